//! Bad pictures, names and models: each has a clear outcome, none a panic.

use std::path::PathBuf;

use serde_json::json;

use crate::support::{Home, copy_folder, drawing, edit_safetensors, offset, other_model};

#[test]
fn pictures_that_cannot_be_read_are_listed_with_reasons() {
    let home = Home::new();
    home.drawings("pics", &["1f34e.png"]);
    let good = std::fs::read(drawing("1f436.png")).unwrap();
    std::fs::write(home.path("pics/empty.jpg"), b"").unwrap();
    std::fs::write(home.path("pics/truncated.png"), &good[..good.len() / 2]).unwrap();
    std::fs::write(home.path("pics/garbage.jpg"), b"these are words, not pixels").unwrap();
    std::fs::write(home.path("pics/wrong-ending.jpg"), &good).unwrap();
    std::fs::write(home.path("pics/notes.txt"), b"passed over").unwrap();
    std::fs::write(home.path("pics/bomb.png"), bomb()).unwrap();
    let run = home.run("index pics --collection c --json").expect(0);
    let report = run.json();
    assert_eq!((report["embedded"].as_u64(), report["others"].as_u64()), (Some(2), Some(1)), "{report}");
    let skipped = report["skipped"].as_array().unwrap();
    let names: Vec<&str> =
        skipped.iter().map(|file| file["path"].as_str().unwrap().rsplit('/').next().unwrap()).collect();
    assert_eq!(names, ["bomb.png", "empty.jpg", "garbage.jpg", "truncated.png"]);
    assert!(skipped.iter().all(|file| !file["reason"].as_str().unwrap().is_empty()));
    assert!(run.stderr.contains("note: using mini"), "{}", run.stderr);
    let text = home.run("index pics --collection c --strict").expect(3).stdout;
    assert!(text.contains("Skipped:") && text.contains("pics/empty.jpg: ") && text.contains("unchanged"), "{text}");
    home.run("collection verify c").expect(0);
}

/// A PNG that claims 20000 x 20000 pixels and has none.
fn bomb() -> Vec<u8> {
    let good = std::fs::read(drawing("1f436.png")).unwrap();
    let mut bytes = good[..33].to_vec();
    bytes[16..24].copy_from_slice(&[0, 0, 0x4e, 0x20, 0, 0, 0x4e, 0x20]);
    let checksum = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&checksum.to_be_bytes());
    bytes.extend_from_slice(&good[33..]);
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| (0..8).fold(crc, |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()));
    !bytes.iter().fold(!0, |crc, byte| (crc >> 8) ^ step((crc ^ u32::from(*byte)) & 0xff))
}

#[test]
fn long_lists_of_bad_files_are_cut_in_text_only() {
    let home = Home::new();
    std::fs::create_dir(home.path("pics")).unwrap();
    for number in 0..25 {
        std::fs::write(home.path(format!("pics/{number}.png")), b"").unwrap();
    }
    let text = home.run("index pics --collection c").expect(0).stdout;
    assert!(text.contains("and 5 more; --json lists all"), "{text}");
    let report = home.run("index pics --collection c --json").expect(0).json();
    assert_eq!(report["skipped"].as_array().unwrap().len(), 25);
}

#[cfg(target_os = "linux")]
#[test]
fn names_that_are_not_utf8_are_indexed_and_found() {
    use std::os::unix::ffi::OsStrExt;
    let home = Home::new();
    std::fs::create_dir(home.path("pics")).unwrap();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9.png");
    std::fs::copy(drawing("1f34e.png"), home.path("pics").join(name)).unwrap();
    assert_eq!(home.run("index pics --collection c --json").expect(0).json()["embedded"], 1);
    let hits = home.run("search red apple --collection c --json").expect(0).json();
    assert!(hits["hits"][0]["path"].as_str().unwrap().ends_with("/caf\\xE9.png"), "{hits}");
    home.run("search red apple --collection c --html page.html").expect(0);
    let page = std::fs::read_to_string(home.path("page.html")).unwrap();
    assert!(page.contains("data:image/jpeg") && page.contains("caf%E9.png"));
    let path = home.path("pics").join(name);
    home.run_arguments([std::ffi::OsStr::new("embed"), path.as_os_str()]).expect(0);
    assert_eq!(home.run("index pics --collection c --json --prune").expect(0).json()["unchanged"], 1);
}

#[test]
fn one_pixel_is_a_picture() {
    let home = Home::new();
    let path = crate::support::golden("preprocess/images/01_1x1.png");
    assert_eq!(home.run_arguments([std::ffi::OsStr::new("embed"), path.as_os_str()]).expect(0).json_lines().len(), 1);
}

#[test]
fn what_does_not_exist_is_named_and_nothing_is_made() {
    let home = Home::new();
    home.drawings("pics", &["1f34e.png"]);
    let cases = [
        ("index pics nowhere --collection c", "nowhere: no such file or folder"),
        ("index pics --collection c --metadata no.csv", "no.csv"),
        ("index pics --collection c --model nothing", "\"nothing\" names no model"),
        ("index pics --collection c --model ./nothing", "./nothing"),
        ("index pics --collection c --model some-owner/some-model", "HF_HUB_OFFLINE"),
        ("model pull some-owner/some-model", "some-owner/some-model"),
        ("model verify mini --golden nowhere", "nowhere"),
        ("similarity --text x nowhere.png", "nowhere.png"),
        ("classify pics --labels-file nowhere.txt", "nowhere.txt"),
    ];
    for (line, expected) in cases {
        let run = home.run(line).expect(1);
        assert!(run.stderr.starts_with("error: ") || run.stderr.contains("\nerror: "), "{line}: {}", run.stderr);
        assert!(run.stderr.contains(expected), "{line}: {}", run.stderr);
        assert_eq!(run.stdout, "", "{line}");
        assert!(!home.path("c").exists(), "{line}");
    }
}

#[test]
fn an_empty_query_is_an_error() {
    let home = Home::new();
    home.drawings("pics", &["1f34e.png"]);
    home.run("index pics --collection c -q").expect(0);
    for words in ["", "  "] {
        let run = home.run_arguments(["search", words, "--collection", "c"]).expect(1);
        assert!(run.stderr.contains("the query is empty"), "{}", run.stderr);
    }
}

#[test]
fn limits_on_pixels_are_heeded() {
    let home = Home::new();
    let picture = drawing("1f34e.png");
    let run = home.run_arguments(["embed", picture.to_str().unwrap(), "--max-pixels", "100"]).expect(1);
    assert!(run.stderr.contains("1f34e.png") && run.stderr.contains("100"), "{}", run.stderr);
}

/// A copy of a small checkpoint, to be damaged.
fn checkpoint(home: &Home) -> PathBuf {
    let folder = home.path("model");
    copy_folder(&other_model(), &folder);
    folder
}

/// Embeds a text and a picture, and checks that this fails with messages that hold all of `expected`.
#[track_caller]
fn fails_with(home: &Home, expected: &[&str]) {
    let picture = drawing("1f34e.png");
    let run = home.run_arguments(["embed", "--text", "x", picture.to_str().unwrap(), "--model", "./model"]).expect(1);
    for expected in expected {
        assert!(run.stderr.contains(expected), "{expected:?} is missing in {}", run.stderr);
    }
}

#[test]
fn a_configuration_that_cannot_be_honoured_names_field_and_value() {
    let home = Home::new();
    let path = checkpoint(&home).join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["text_config"]["hidden_act"] = json!("wiggle");
    std::fs::write(&path, config.to_string()).unwrap();
    fails_with(&home, &["config.json", "hidden_act", "wiggle", "expected"]);
    std::fs::write(&path, "{").unwrap();
    fails_with(&home, &["config.json"]);
}

const TENSOR: &str = "text_model.final_layer_norm.weight";

#[test]
fn weights_that_are_not_numbers_are_named() {
    let home = Home::new();
    edit_safetensors(&checkpoint(&home).join("model.safetensors"), |header, data| {
        let start = offset(header, TENSOR);
        // All ones are NaN in every floating-point format.
        data[start..start + 4].fill(0xff);
    });
    fails_with(&home, &[TENSOR]);
}

#[test]
fn a_missing_tensor_is_named() {
    let home = Home::new();
    edit_safetensors(&checkpoint(&home).join("model.safetensors"), |header, _| {
        let tensor = header.remove(TENSOR).unwrap();
        header.insert("text_model.final_layer_norm.wrong".into(), tensor);
    });
    fails_with(&home, &["final_layer_norm"]);
}

#[test]
fn a_tensor_of_another_shape_is_named() {
    let home = Home::new();
    edit_safetensors(&checkpoint(&home).join("model.safetensors"), |header, _| {
        let length = header[TENSOR]["shape"][0].as_u64().unwrap();
        header[TENSOR]["shape"] = json!([length / 2, 2]);
    });
    fails_with(&home, &[TENSOR]);
}

#[test]
fn a_truncated_weight_file_is_damaged() {
    let home = Home::new();
    let path = checkpoint(&home).join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    for length in [bytes.len() - 1000, 100, 4, 0] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        fails_with(&home, &["model.safetensors"]);
    }
}
