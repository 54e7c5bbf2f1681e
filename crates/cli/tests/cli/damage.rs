//! Damage to any file of a collection, with the built-in model: `index --repair` over the same pictures restores it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::Home;

const DRAWINGS: [&str; 6] = ["1f34e.png", "1f34b.png", "1f436.png", "1f34c.png", "1f680.png", "1f33b.png"];

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found.sort();
    found
}

fn hits(home: &Home) -> Value {
    home.run("search red apple --collection c --json -k 6").expect(0).json()["hits"].clone()
}

#[test]
fn a_flipped_byte_in_any_file_of_vectors_is_repaired_from_the_pictures() {
    let home = Home::new();
    home.drawings("pics", &DRAWINGS);
    home.run("index pics --collection c -q").expect(0);
    let expected = hits(&home);
    let all = files(&home.path("c"));
    // The database is the one file that pictures alone can't restore; what flips in it do is the store's own test.
    let others: Vec<_> = all.iter().filter(|path| !path.to_string_lossy().contains(".sqlite")).collect();
    assert!(others.iter().any(|path| path.extension().is_some_and(|ending| ending == "f32")), "{all:?}");
    for file in others {
        let length = std::fs::metadata(file).unwrap().len() as usize;
        for at in [3, length / 2, length - 1] {
            let mut bytes = std::fs::read(file).unwrap();
            if at >= bytes.len() {
                continue;
            }
            bytes[at] ^= 0x10;
            std::fs::write(file, bytes).unwrap();
            let report = home.run("collection verify c --json");
            assert!(!report.stderr.contains("panicked"), "{}", report.stderr);
            // Damage that a search meets is passed over, never shown.
            let met = home.run("search red apple --collection c --json -k 6");
            if met.code == Some(0) {
                let expected = expected.as_array().unwrap();
                assert!(met.json()["hits"].as_array().unwrap().iter().all(|hit| {
                    expected.iter().any(|known| known["id"] == hit["id"] && known["score"] == hit["score"])
                }));
            }
            home.run("index pics --collection c --repair -q").expect(0);
            home.run("collection compact c").expect(0);
            assert_eq!(home.run("collection verify c --json").expect(0).json()["sound"], true, "{}", file.display());
            assert_eq!(hits(&home), expected, "{} byte {at}", file.display());
            if !file.exists() {
                break;
            }
        }
    }
}
