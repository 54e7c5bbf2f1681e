//! `collection optimize` and `collection migrate`.

use std::fs;

use serde_json::Value;

use crate::support::{Home, noise, other_model};

fn indexed(count: u32) -> Home {
    let home = Home::new();
    home.noise("pics", count);
    home.run("index pics --collection c -q").expect(0);
    home
}

fn ids(search: &Value) -> Vec<String> {
    search["hits"].as_array().unwrap().iter().map(|hit| hit["id"].as_str().unwrap().to_string()).collect()
}

fn search(home: &Home) -> Value {
    home.run("search --like 00003.bmp -k 5 --collection c --json").expect(0).json()
}

#[test]
fn an_index_is_chosen_built_shown_extended_and_given_up() {
    let home = indexed(40);
    let exact = search(&home);
    let few = home.run("collection optimize c --json").expect(0).json();
    assert_eq!((few["choice"].as_str(), few["kind"].as_str()), (Some("auto"), Some("exact")));
    for kind in ["flat", "graph", "ivf"] {
        let report = home.run(&format!("collection optimize c --kind {kind} --json")).expect(0).json();
        assert_eq!((report["kind"].as_str(), report["vectors"].as_u64()), (Some(kind), Some(40)), "{report}");
        let info = home.run("collection info c --json").expect(0).json();
        assert_eq!(info["fields"][0]["index"]["kind"], kind);
        assert!(home.run("collection info c").expect(0).stdout.contains(&format!("{kind} over 40 vectors")));
        assert_eq!(ids(&search(&home)), ids(&exact), "{kind}");
    }
    // Newer pictures are found at once, whatever the index covers, and covered when asked for.
    fs::write(home.path("pics/new.bmp"), noise(3, 16)).unwrap();
    home.run("index pics --collection c -q").expect(0);
    assert!(ids(&search(&home))[0].ends_with("new.bmp"));
    let report = home.run("collection optimize c --json").expect(0).json();
    assert_eq!((report["added"].as_u64(), report["vectors"].as_u64()), (Some(1), Some(41)));
    // Damage is told, costs nothing, and is mended.
    let file = home.path("c/indexes/1-1.index");
    let mut bytes = fs::read(&file).unwrap();
    // Sections begin at multiples of 4,096.
    bytes[4096..4100].iter_mut().for_each(|byte| *byte ^= 0xAA);
    fs::write(&file, bytes).unwrap();
    assert!(ids(&search(&home))[0].ends_with("new.bmp"));
    assert!(home.run("collection info c").expect(0).stdout.contains("unusable"));
    let verify = home.run("collection verify c --json").expect(1).json();
    assert_eq!(verify["problems"][0]["kind"], "index");
    assert_eq!(verify["affected_items"].as_array().unwrap().len(), 0);
    let mended = home.run("collection optimize c").expect(0);
    assert!(mended.stderr.contains("built again"), "{}", mended.stderr);
    home.run("collection verify c").expect(0);
    home.run("collection optimize c --kind exact").expect(0);
    assert!(!file.exists());
}

#[test]
fn a_collection_moves_to_another_model_and_back() {
    let home = indexed(15);
    let (before, other) = (search(&home), other_model().display().to_string());
    let compared = home.run(&format!("collection migrate c --model {other} --no-switch --json")).expect(0).json();
    assert_eq!((compared["embedded"].as_u64(), compared["switched"].as_bool()), (Some(15), Some(false)));
    let overlap = compared["overlap_at_10"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&overlap) && compared["compared_items"] == 15, "{compared}");
    // Searches still answer from the old space, and the same bytes.
    assert_eq!(search(&home)["hits"], before["hits"]);
    // The second call finds everything done.
    let switched = home.run(&format!("collection migrate c --model {other} --json")).expect(0).json();
    assert_eq!((switched["before"].as_u64(), switched["embedded"].as_u64()), (Some(15), Some(0)));
    assert_eq!(switched["switched"], true);
    let after = search(&home);
    assert_ne!(after["hits"], before["hits"]);
    assert_ne!(after["model"], before["model"]);
    // New pictures go into the new space.
    fs::write(home.path("pics/new.bmp"), noise(3, 16)).unwrap();
    let report = home.run("index pics --collection c --json -q").expect(0).json();
    assert_eq!((report["reused"].as_u64(), report["unchanged"].as_u64()), (Some(1), Some(15)), "{report}");
    assert!(ids(&search(&home))[0].ends_with("new.bmp"));
    let again = home.run(&format!("collection migrate c --model {other}")).expect(1);
    assert!(again.stderr.contains("already"), "{}", again.stderr);
    home.run("collection migrate c --rollback").expect(0);
    assert_eq!(search(&home)["hits"], before["hits"]);
    home.run("collection migrate c --rollback").expect(0);
    assert_eq!(search(&home)["model"], after["model"]);
    let dropped = home.run("collection migrate c --finish --json").expect(0).json();
    assert_eq!(dropped["dropped_vectors"], 15);
    assert!(home.run("collection migrate c --rollback").expect(1).stderr.contains("no earlier space"));
    assert!(ids(&search(&home))[0].ends_with("new.bmp"));
    home.run("collection verify c").expect(0);
}

#[test]
fn what_cannot_be_embedded_again_keeps_the_old_space() {
    let home = indexed(14);
    let other = other_model().display().to_string();
    fs::remove_file(home.path("pics/00001.bmp")).unwrap();
    fs::write(home.path("pics/00002.bmp"), noise(99, 16)).unwrap();
    let report = home.run(&format!("collection migrate c --model {other} --json")).expect(1).json();
    assert_eq!((report["embedded"].as_u64(), report["switched"].as_bool()), (Some(12), Some(false)));
    let missing: Vec<_> =
        report["missing"].as_array().unwrap().iter().map(|item| item["path"].as_str().unwrap()).collect();
    assert!(missing.len() == 2 && missing[0].ends_with("00001.bmp") && missing[1].ends_with("00002.bmp"), "{report}");
    // The changed picture still has its old vector in the old space.
    assert_eq!(search(&home)["hits"].as_array().unwrap().len(), 5);
    let report = home.run(&format!("collection migrate c --model {other} --allow-missing")).expect(0);
    assert!(report.stdout.contains("12 of 14 items"), "{}", report.stdout);
    assert_eq!(
        home.run("search --like 00003.bmp -k 100 --collection c --json").expect(0).json()["hits"]
            .as_array()
            .unwrap()
            .len(),
        11
    );
}
