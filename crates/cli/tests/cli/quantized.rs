//! `quantize`: small copies of models, and how close they come.

use crate::support::{Home, assert_close, copy_folder, drawing, numbers, other_model};

#[test]
fn a_copy_works_in_place_of_its_original() {
    let home = Home::new();
    let run = home.run("quantize mini small").expect(0);
    assert!(run.stdout.contains("27 % of 21.9 MiB") && run.stdout.contains("61 in int8"), "{}", run.stdout);
    let [original, copy] =
        ["mini", "small"].map(|name| home.run(&format!("model info {name} --json")).expect(0).json());
    assert_eq!((original["precision"].as_str(), copy["precision"].as_str()), (Some("fp32"), Some("int8")));
    for same in ["space", "parameters", "logits", "tokenizer", "preprocessing"] {
        assert_eq!(original[same], copy[same], "{same}");
    }
    // A collection of the original's takes the copy's vectors, and the other way round.
    home.drawings("pictures", &["1f34e.png", "1f422.png", "1f351.png"]);
    home.run("index pictures --collection c --model mini").expect(0);
    home.drawings("pictures", &["1f312.png"]);
    let added = home.run("index pictures --collection c --model ./small --json").expect(0).json();
    assert_eq!(added["total"], 4, "{added}");
    let best = |model: &str| -> String {
        let run = home.run(&format!("search red apple --collection c --model {model} --json")).expect(0);
        run.json()["hits"][0]["path"].as_str().unwrap().to_string()
    };
    assert!(best("mini").ends_with("1f34e.png") && best("./small").ends_with("1f34e.png"));
    // Pictures are what the original gives in int8, to the last digit.
    let picture = drawing("1f422.png");
    let embedding = |arguments: &[&str]| {
        let run = home.run_arguments([&["embed", picture.to_str().unwrap()], arguments].concat()).expect(0);
        numbers(&run.json_lines()[0]["embedding"])
    };
    let copy = embedding(&["--model", "./small"]);
    assert_eq!(copy, embedding(&["--model", "mini", "--precision", "int8"]));
    assert_ne!(copy, embedding(&["--model", "mini"]));
    assert_close(&copy, &embedding(&["--model", "./small", "--precision", "fp32"]), 0.02);
}

#[test]
fn a_check_tells_how_close_it_is() {
    let home = Home::new();
    let report = home.run("quantize mini small --check --json").expect(0).json();
    assert_eq!((report["model"].as_str(), report["folder"].as_str()), (Some("mini"), Some("small")));
    let size = home.path("small/model.safetensors").metadata().unwrap().len();
    assert_eq!((report["copy"]["bytes"].as_u64(), report["copy"]["quantised"].as_u64()), (Some(size), Some(61)));
    let accuracy = &report["accuracy"];
    assert_eq!((accuracy["close"].as_bool(), accuracy["images"]["inputs"].as_u64()), (Some(true), Some(240)));
    for kind in ["images", "texts"] {
        assert!(accuracy[kind]["least_cosine"].as_f64().unwrap() > 0.99, "{accuracy}");
    }
    for kind in ["text_to_image", "image_to_text"] {
        let recall = |side: &str| accuracy[kind][side]["at_1"].as_f64().unwrap();
        assert!(recall("reference") > 0.4 && (recall("reference") - recall("candidate")).abs() < 0.02, "{accuracy}");
    }
    // What is there is checked as it is; nothing is written.
    let modified = || home.path("small/model.safetensors").metadata().unwrap().modified().unwrap();
    let before = modified();
    home.drawings("pictures", &["1f34e.png", "1f422.png"]);
    std::fs::write(home.path("pictures/broken.png"), "no picture").unwrap();
    let captions = "file,says\n1f34e.png,red apple\n1f422.png,turtle\nbroken.png,nothing\n";
    std::fs::write(home.path("captions.csv"), captions).unwrap();
    let line = "quantize mini small --check --samples pictures --metadata captions.csv --caption says";
    let again = home.run(&format!("{line} --json")).expect(0).json();
    assert_eq!((&again["copy"], modified()), (&serde_json::Value::Null, before));
    assert_eq!((&again["accuracy"]["images"]["inputs"], &again["accuracy"]["texts"]["inputs"]), (&2.into(), &2.into()));
    let run = home.run(line).expect(0);
    for part in ["2 pictures and 2 texts of pictures", "recall@5", "100.0 %", "close to the original"] {
        assert!(run.stdout.contains(part), "{part:?}: {}", run.stdout);
    }
    assert!(run.stderr.contains("is there already") && run.stderr.contains("left out"), "{}", run.stderr);
    assert!(run.stderr.matches("broken.png").count() == 1, "{}", run.stderr);
}

#[test]
fn what_cannot_be_done_is_said_and_harms_nothing() {
    let home = Home::new();
    copy_folder(&other_model(), &home.path("other"));
    home.run("quantize mini small --quiet").expect(0);
    std::fs::create_dir(home.path("photos")).unwrap();
    std::fs::write(home.path("photos/a.txt"), "mine").unwrap();
    let cases = [
        ("quantize mini small", "small: exists already; --force replaces a quantised copy"),
        ("quantize mini photos --force", "a.txt, which is no part of a quantised model"),
        ("quantize small again", "small: is quantised already"),
        ("quantize other other", "other: is the model itself"),
        ("quantize other other/small", "lies within the model's own folder"),
        ("quantize no/such/model out", "no/such/model"),
        ("quantize mini other --check", "other: exists and is no quantised copy of mini"),
        ("quantize other small --check", "small: exists and is no quantised copy of other"),
        ("quantize small small --check", "small: is quantised already"),
        ("quantize mini out --check --samples nowhere", "nowhere: no such file or folder"),
        ("quantize mini out --check --samples photos", "at least two pictures"),
    ];
    for (line, expected) in cases {
        let run = home.run(line).expect(1);
        assert!(run.stderr.contains(expected) && run.stdout.is_empty(), "{line}: {}", run.stderr);
    }
    assert!(!home.path("out").exists() && !home.path("again").exists());
    home.run("quantize mini out --samples photos").expect(2);
    home.run("quantize mini").expect(2);
    let mut names: Vec<_> = std::fs::read_dir(home.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["cache", "other", "photos", "small"]);
    home.run("quantize other small --force --quiet").expect(0);
    assert_eq!(home.run("model info small --json").expect(0).json()["dimension"], 36);
}
