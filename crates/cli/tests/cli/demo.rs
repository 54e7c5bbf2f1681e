//! `crossmodal demo` offline: real results first, nothing embedded twice.

use crate::support::Home;

#[test]
fn the_demo_finds_what_it_says_and_a_second_one_embeds_nothing() {
    let home = Home::new();
    let first = home.run("demo --dir try").expect(0);
    for expected in [
        "Embedded 240 drawings",
        "\"red apple\"",
        "red apple",
        "pomme rouge",
        "mini knows emoji-like drawings",
        "CC-BY 4.0",
    ] {
        assert!(first.stdout.contains(expected), "{expected:?} is missing in:\n{}", first.stdout);
    }
    assert!(!first.stdout.contains('\u{1b}'), "colours although this is no terminal");
    assert!(home.path("try/collection").is_dir() && first.stdout.contains("try/collection"));

    let second = home.run("demo --dir try --json -q").expect(0);
    let report = second.json();
    assert_eq!((report["embedded"].as_u64(), report["unchanged"].as_u64()), (Some(0), Some(240)));
    assert_eq!(second.stderr, "");
    let queries = report["queries"].as_array().unwrap();
    let captions: Vec<&str> = queries.iter().map(|query| query["hits"][0]["caption"].as_str().unwrap()).collect();
    let expected = [
        "red apple",
        "pomme rouge",
        "waxing crescent moon",
        "lune croissante",
        "ferry",
        "cat with wry smile",
        "crocodile",
    ];
    assert_eq!(captions, expected);
    for query in queries {
        let scores: Vec<f64> =
            query["hits"].as_array().unwrap().iter().map(|hit| hit["score"].as_f64().unwrap()).collect();
        assert!(scores.len() == 3 && scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    }
}
