//! Evaluating models on data sets of all kinds.

use serde_json::Value;

use crate::support::{Home, drawing};

fn gallery() -> String {
    drawing("captions.csv").display().to_string()
}

/// Recall in percent, with one digit, as it is shown.
fn recall(report: &Value, direction: &str) -> Vec<f64> {
    let recall = report[direction]["recall"].as_array().unwrap();
    recall.iter().map(|at| (1000.0 * at["value"].as_f64().unwrap()).round() / 10.0).collect()
}

#[test]
fn the_gallery_gives_the_figures_of_the_model_card() {
    let home = Home::new();
    let report = home.run(&format!("evaluate --data {} --caption-column de --json", gallery())).expect(0).json();
    assert_eq!((&report["model"], &report["items"], &report["skipped"]), (&"mini".into(), &240.into(), &0.into()));
    for (found, expected) in recall(&report, "left_by_right").into_iter().zip([86.2, 97.1, 97.5]) {
        assert!((found - expected).abs() < 0.5, "{found}, expected {expected}");
    }
    let first = &report["right_by_left"]["recall"][0];
    assert_eq!((&first["k"], &first["interval"]["method"]), (&1.into(), &"wilson".into()));
    assert!(report["zero_shot"].is_null());
    let text = home.run(&format!("evaluate --data {} --csv-caption-key fr --recall-at 1,3", gallery())).expect(0);
    assert!(text.stdout.contains("240 pictures and 240 texts"), "{}", text.stdout);
    for part in ["pictures by text", "texts by picture", "recall@3", "median rank", "85.8 %", "95 %"] {
        assert!(text.stdout.contains(part), "{part}:\n{}", text.stdout);
    }
}

#[test]
fn folders_are_classes_and_broken_files_are_told() {
    let home = Home::new();
    home.drawings("data/red_apple", &["1f34e.png"]);
    home.drawings("data/rose", &["1f339.png"]);
    std::fs::write(home.path("data/rose/broken.png"), b"no picture").unwrap();
    let run = home.run("evaluate --data data").expect(0);
    assert!(run.stdout.contains("Sorting 2 pictures by 2 classes, each by its bare name"), "{}", run.stdout);
    assert!(run.stdout.contains("top 1, mean over classes") && run.stdout.contains("50.0 %"), "{}", run.stdout);
    assert!(run.stderr.contains("left out:") && run.stderr.contains("broken.png"), "{}", run.stderr);
    std::fs::write(home.path("labels.txt"), "rose\nred apple\nlemon\n").unwrap();
    let report = home.run("evaluate --data data --labels labels.txt --template {} --json").expect(0).json();
    assert_eq!((&report["zero_shot"]["classes"], &report["skipped"]), (&3.into(), &1.into()));
    assert!(report["left_out"][0]["key"].as_str().unwrap().ends_with("broken.png"));
    assert_eq!(report["zero_shot"]["templates"], serde_json::json!(["{}"]));
}

#[test]
fn parts_add_up() {
    let home = Home::new();
    let with = |split: &str| {
        let line = format!(
            "evaluate --data {} --caption-column en --split {split} --validation-share 0.3 --json --resamples 10",
            gallery()
        );
        home.run(&line).expect(0).json()["items"].as_u64().unwrap()
    };
    let (train, held) = (with("train"), with("validation"));
    assert_eq!(train + held, 240);
    assert!((40..110).contains(&held), "{held}");
}

#[test]
fn what_is_wrong_is_named() {
    let home = Home::new();
    home.drawings("bare", &["1f34e.png"]);
    std::fs::write(home.path("pairs.csv"), "image,caption\nnone.png,red\n").unwrap();
    std::fs::write(home.path("sounds.csv"), "audio,caption\na.wav,a dog barks\n").unwrap();
    let cases = [
        ("evaluate --data none", 1, "none: no such file or folder; expected a table of pairs"),
        ("evaluate --data bare", 1, "neither captions beside them nor folders for classes"),
        ("evaluate --data pairs.csv", 1, "no sample could be read; none.png: "),
        ("evaluate --data sounds.csv", 1, "the left side is audio, but mini takes text and image"),
        ("evaluate --data pairs.csv --caption-column fr", 1, "no column \"fr\"; the table has image, caption"),
        ("evaluate --data pairs.csv --labels none.txt", 1, "none.txt"),
        ("evaluate --data pairs.csv --template red", 1, "template \"red\" has no {}"),
        ("evaluate --data pairs.csv --level 1", 2, "must be above 0 and below 1"),
        ("evaluate --data pairs.csv --recall-at 0", 2, "must be at least 1"),
        ("evaluate", 2, "--data"),
    ];
    for (line, code, expected) in cases {
        let run = home.run(line).expect(code);
        assert!(run.stderr.contains(expected), "{line}:\n{}", run.stderr);
        assert!(run.stdout.is_empty(), "{line}: {}", run.stdout);
    }
    let columns = home.run(&format!("evaluate --data {}", gallery())).expect(1);
    assert!(columns.stderr.contains("no column of captions") && columns.stderr.contains("file, en, fr, es, de"));
}
