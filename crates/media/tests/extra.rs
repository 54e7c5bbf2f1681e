//! Many small files of every format and mode, compared with Pillow 13 by hash: pixels in their own mode, conversions to
//! RGB, and resizes with every filter in the pass orders of Pillow 13 and 12.
//!
//! `CROSSMODAL_EXTRA_GOLDEN` names another folder written by `scripts/make_resize_golden.py`, for a wider check.

mod golden;

use crossmodal_media::{
    AlphaRule, DecodeLimits, Filter, OrientationRule, PassOrder, Picture, Region, decode, decode_rgb, resize,
};
use golden::{Golden, pillow_mode, sha256};
use serde_json::Value;

fn filter(name: &str) -> Filter {
    match name {
        "nearest" => Filter::Nearest,
        "bilinear" => Filter::Bilinear,
        "bicubic" => Filter::Bicubic,
        "lanczos" => Filter::Lanczos,
        other => panic!("an unknown filter: {other}"),
    }
}

/// Names of the expectations that `bytes` don't meet.
fn conversions_that_differ(bytes: &[u8], expected: &Value) -> Vec<String> {
    let limits = DecodeLimits::default();
    let picture = match decode(bytes, &limits) {
        Ok(picture) => picture,
        Err(error) => return vec![error.to_string()],
    };
    let rgb = |orientation, alpha| sha256(&decode_rgb(bytes, &limits, orientation, alpha).expect("decoded once").data);
    let actual = [
        ("mode", pillow_mode(picture.mode).to_owned()),
        ("native", sha256(&picture.data)),
        ("drop", rgb(OrientationRule::Ignore, AlphaRule::Drop)),
        ("over_white", rgb(OrientationRule::Ignore, AlphaRule::OverWhite)),
        ("upright", rgb(OrientationRule::Exif, AlphaRule::Drop)),
        ("load_image", rgb(OrientationRule::Exif, AlphaRule::KeyOverWhite)),
    ];
    actual.iter().filter(|(key, value)| expected[key] != **value).map(|(key, _)| (*key).to_owned()).collect()
}

fn resizes_that_differ(picture: &Picture, expected: &Value, order: PassOrder) -> Vec<String> {
    let differs = |(case, hash): (&String, &Value)| {
        let (size, name) = case.split_once(' ').expect("a size and a filter");
        let (width, height) = size.split_once('x').expect("two sides");
        let (width, height) = (width.parse().expect("a width"), height.parse().expect("a height"));
        let actual = resize(picture, (width, height), &Region::whole(width, height), filter(name), order);
        (*hash != sha256(&actual.data)).then(|| format!("{case} {order:?}"))
    };
    expected.as_object().expect("cases").iter().filter_map(differs).collect()
}

fn folder() -> Golden {
    match std::env::var("CROSSMODAL_EXTRA_GOLDEN") {
        Ok(folder) => Golden::at(folder.into()),
        Err(_) => Golden::at(golden::folder("preprocess/extra")),
    }
}

#[test]
fn files_of_every_kind_decode_and_convert_as_in_pillow() {
    let golden = folder();
    let mut wrong = Vec::new();
    for (name, expected) in golden.json()["files"].as_object().expect("files") {
        let differ = conversions_that_differ(&golden.file(name), expected);
        wrong.extend(differ.iter().map(|what| format!("{name}: {what} ({})", expected["mode"])));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_mode_and_filter_resizes_as_in_pillow() {
    let golden = folder();
    let mut wrong = Vec::new();
    for (name, expected) in golden.json()["files"].as_object().expect("files") {
        let Ok(picture) = decode(&golden.file(name), &DecodeLimits::default()) else {
            continue;
        };
        for (key, order) in [("resized_13", PassOrder::Pillow13), ("resized_12", PassOrder::Pillow12)] {
            let differ = resizes_that_differ(&picture, &expected[key], order);
            wrong.extend(differ.iter().map(|case| format!("{name}: {case} ({})", expected["mode"])));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
