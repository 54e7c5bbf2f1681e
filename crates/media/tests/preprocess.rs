//! Every array of the preprocessing fixture, bit for bit: decoded pixels, all routes, both sizes, both Pillow versions,
//! and the final numbers.

mod golden;

use crossmodal_media::{
    AlphaRule, CenterCrop, ColourOrder, CropRounding, DecodeLimits, DecodeMode, Filter, ImagePrep, OrientationRule,
    PassOrder, Resize, RgbPixels, decode, decode_rgb,
};
use golden::Golden;
use serde_json::Value;

const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const DEVIATION: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// The preparation that a route of the fixture stands for.
fn route(name: &str, side: u32, pass_order: PassOrder) -> ImagePrep {
    let crop = |rounding| Some(CenterCrop { width: side, height: side, rounding });
    let squash = Resize::Squash { width: side, height: side };
    let base = ImagePrep {
        resize: Resize::ShortestEdge { edge: side },
        filter: Filter::Bicubic,
        crop: crop(CropRounding::HalfEven),
        colour_order: ColourOrder::BeforeResize,
        alpha: AlphaRule::Drop,
        orientation: OrientationRule::Ignore,
        pass_order,
        decode: DecodeMode::Exact,
        rescale: Some(1.0 / 255.0),
        normalise: Some((MEAN, DEVIATION)),
        limits: DecodeLimits::default(),
    };
    match name {
        "rgb_first" => base,
        "open_clip" => ImagePrep { colour_order: ColourOrder::AfterResize, ..base },
        "hf" => ImagePrep { crop: crop(CropRounding::Floor), alpha: AlphaRule::OverWhite, ..base },
        "hf_load" => ImagePrep {
            crop: crop(CropRounding::Floor),
            alpha: AlphaRule::KeyOverWhite,
            orientation: OrientationRule::Exif,
            ..base
        },
        "siglip" => ImagePrep { normalise: Some(([0.5; 3], [0.5; 3])), ..base },
        "squash_bicubic" => ImagePrep { resize: squash, crop: None, alpha: AlphaRule::OverWhite, ..base },
        "squash_bilinear" => {
            ImagePrep { resize: squash, crop: None, filter: Filter::Bilinear, alpha: AlphaRule::OverWhite, ..base }
        }
        other => panic!("a route the fixture didn't have before: {other}"),
    }
}

fn assert_pixels(golden: &Golden, array: &str, actual: &RgbPixels, context: &str) {
    let (shape, expected) = golden.bytes(array);
    assert_eq!(shape, [actual.height as usize, actual.width as usize, 3], "shape of {context} ({array})");
    if expected != actual.data {
        let different = expected.iter().zip(&actual.data).filter(|(a, b)| a != b).count();
        let most = expected.iter().zip(&actual.data).map(|(a, b)| a.abs_diff(*b)).max();
        panic!("{context} ({array}): {different} of {} samples differ, by up to {most:?}", expected.len());
    }
}

fn check_routes(golden: &Golden, name: &str, image: &Value, key: &str, order: PassOrder) -> usize {
    let bytes = golden.file(image["file"].as_str().expect("a file"));
    let mut checked = 0;
    for (side, routes) in image[key].as_object().expect("sizes") {
        for (route_name, array) in routes.as_object().expect("routes") {
            let prep = route(route_name, side.parse().expect("a size"), order);
            let actual = prep.apply(&bytes).expect("a sound file");
            assert_pixels(
                golden,
                array.as_str().expect("a name"),
                &actual,
                &format!("{name} {route_name} {side} {key}"),
            );
            checked += 1;
        }
    }
    checked
}

#[test]
fn every_route_gives_the_reference_pixels() {
    let golden = Golden::open("preprocess");
    let mut checked = 0;
    for (name, image) in golden.images() {
        checked += check_routes(&golden, name, image, "routes", PassOrder::Pillow13);
        checked += check_routes(&golden, name, image, "pillow_12", PassOrder::Pillow12);
    }
    assert!(checked > 130, "only {checked} arrays were compared");
}

#[test]
fn decoded_pixels_are_those_of_pillow() {
    let golden = Golden::open("preprocess");
    for (name, image) in golden.images() {
        let bytes = golden.file(image["file"].as_str().expect("a file"));
        let limits = DecodeLimits::default();
        let actual = decode_rgb(&bytes, &limits, OrientationRule::Ignore, AlphaRule::Drop).expect("a sound file");
        if let Some(array) = image["decoded"].as_str() {
            assert_pixels(&golden, array, &actual, name);
        }
        assert_eq!(golden::sha256(&actual.data), image["decoded_sha256"].as_str().expect("a hash"), "{name}");
        let mode = golden::pillow_mode(decode(&bytes, &limits).expect("a sound file").mode);
        assert_eq!(mode, image["mode"].as_str().expect("a mode"), "{name}");
    }
}

#[test]
fn tensors_equal_the_reference_numbers() {
    let golden = Golden::open("preprocess");
    let mut checked = 0;
    for (name, image) in golden.images() {
        let bytes = golden.file(image["file"].as_str().expect("a file"));
        for (route_name, array) in image["float"].as_object().expect("routes") {
            let actual = route(route_name, 64, PassOrder::Pillow13).tensor(&bytes).expect("a sound file");
            let (shape, expected) = golden.floats(array.as_str().expect("a name"));
            assert_eq!(shape, [3, actual.height as usize, actual.width as usize]);
            assert_eq!(expected, actual.data, "{name} {route_name}");
            checked += 1;
        }
    }
    assert!(checked > 0);
}

#[test]
fn normalisation_tables_equal_the_reference_numbers() {
    let golden = Golden::open("preprocess");
    for route_name in ["hf", "open_clip", "siglip"] {
        let (shape, expected) = golden.floats(&format!("lut/{route_name}"));
        assert_eq!(shape, [3, 256]);
        let data = (0..=255u8).flat_map(|byte| [byte; 3]).collect();
        let tensor = route(route_name, 64, PassOrder::Pillow13).normalise(&RgbPixels { width: 256, height: 1, data });
        assert_eq!(expected, tensor.data, "{route_name}");
    }
}
