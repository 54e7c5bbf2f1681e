//! `search`: sums, negatives, several queries, pages, groups, diversity, relevance, and how they are told.

use std::collections::HashSet;
use std::sync::LazyLock;

use serde_json::Value;

use crate::support::{Home, Run, drawing};

/// The whole gallery, indexed once.
static GALLERY: LazyLock<Home> = LazyLock::new(|| {
    let home = Home::new();
    let folder = drawing("captions.csv").parent().unwrap().canonicalize().unwrap();
    crate::support::copy_folder(&folder, &home.path("pics"));
    home.drawings("pics/fruit", &["1f34e.png", "1f34b.png"]);
    home.run("index pics --collection c --metadata pics/captions.csv -q").expect(0);
    home
});

fn search(arguments: &[&str]) -> Run {
    GALLERY.run_arguments([&["search", "--collection", "c"], arguments].concat())
}

fn hits(arguments: &[&str]) -> Vec<Value> {
    search(&[arguments, &["--json"]].concat()).expect(0).json()["hits"].as_array().unwrap().clone()
}

fn ids(hits: &[Value]) -> Vec<&str> {
    hits.iter().map(|hit| hit["id"].as_str().unwrap().rsplit("/pics/").next().unwrap()).collect()
}

#[test]
fn sums_and_what_only_looks_like_them() {
    let apple = hits(&["red apple", "-k", "1"])[0].clone();
    assert_eq!(ids(std::slice::from_ref(&apple)), ["1f34e.png"]);
    // The same sum in four ways.
    let sums: [&[&str]; 4] = [
        &["2:lemon - \"red apple\""],
        &["2:lemon", "-", "\"red apple\""],
        &["lemon", "--not", "red apple", "--query", "x"],
        &["2:lemon - 1:red apple"],
    ];
    assert_eq!(hits(sums[0]), hits(sums[1]));
    assert_eq!(hits(sums[0]), hits(sums[3]));
    let both = search(&[sums[2], &["--json"]].concat()).expect(0).json_lines();
    assert_eq!(both[0]["query"]["words"], "lemon");
    assert_eq!(both[0]["query"]["not"][0], "red apple");
    let single = hits(&["lemon - 1:red apple"]);
    assert_eq!(ids(both[0]["hits"].as_array().unwrap()), ids(&single));
    let picture = hits(&["pics/1f34e.png", "-k", "2"]);
    assert!(picture[0]["score"].as_f64().unwrap() > 0.9999 && picture[1]["score"].as_f64().unwrap() > 0.9999);
    assert_eq!(ids(&hits(&["item:pics/1f34b.png", "-k", "1"])), ["fruit/1f34b.png"]);
    assert_eq!(ids(&hits(&["--like", "pics/1f34b.png", "--unlike", "1f436.png", "-k", "1"])), ["fruit/1f34b.png"]);
    for plain in ["C++", "black-and-white", "8:30 clock", "a - b", "T-shirt", "5\" disk"] {
        let quoted = format!("\"{}\"", plain.replace('"', "\\\""));
        assert_eq!(hits(&[plain]), hits(&[&quoted]), "{plain}");
    }
}

#[test]
fn wrong_queries_are_pointed_at() {
    let run = search(&["dog + cat - - fish"]).expect(1);
    assert!(run.stderr.contains("\n  dog + cat - - fish\n            ^\n"), "{}", run.stderr);
    let run = search(&["dog + image:none.png"]).expect(1);
    assert!(run.stderr.contains("none.png: no such file") && run.stderr.contains("^^^^^"), "{}", run.stderr);
    let run = search(&["0:dog + cat"]).expect(1);
    assert!(run.stderr.contains("the weight is 0"), "{}", run.stderr);
    assert!(search(&["dog - \"dog\""]).expect(1).stderr.contains("cancel each other out"));
    assert!(search(&["item:nowhere + dog"]).expect(1).stderr.contains("no item \"nowhere\""));
    let usage: [(&[&str], &str); 11] = [
        (&["--not", "dog"], "WORDS"),
        (&["dog", "--relevant-only=2"], "--relevant-only"),
        (&["dog", "--diverse=-1"], "--diverse"),
        (&["dog", "--group-by", "a..b"], "--group-by"),
        (&["dog", "--offset=-1"], "--offset"),
        (&["dog", "--query", "cat", "--html", "x.html"], "one query"),
        (&["--queries", "empty.txt"], "no queries"),
        (&["dog", "--offset", "99999999"], "at most"),
        (&["dog", "--mode", "hybrid", "--alpha", "2"], "--alpha"),
        (&["dog", "--alpha", "0.5"], "--mode hybrid"),
        (&["dog", "--filter", "year >="], "--filter"),
    ];
    std::fs::write(GALLERY.path("empty.txt"), "\n \n").unwrap();
    for (arguments, expected) in usage {
        let run = search(arguments).expect(2);
        assert!(run.stderr.contains(expected), "{arguments:?}: {}", run.stderr);
    }
    assert!(search(&["--queries", "missing.txt"]).expect(1).stderr.contains("missing.txt"));
}

#[test]
fn several_queries_answer_in_order() {
    std::fs::write(GALLERY.path("queries.txt"), "red apple\n\n2:dog face + cat face\n").unwrap();
    let lines =
        search(&["moon", "--query", "lemon", "--queries", "queries.txt", "-k", "3", "--json"]).expect(0).json_lines();
    let words: Vec<&str> = lines.iter().map(|line| line["query"]["words"].as_str().unwrap()).collect();
    assert_eq!(words, ["moon", "lemon", "red apple", "2:dog face + cat face"]);
    for line in &lines {
        let alone = hits(&[line["query"]["words"].as_str().unwrap(), "-k", "3"]);
        assert_eq!(ids(line["hits"].as_array().unwrap()), ids(&alone));
    }
    let text = search(&["--query", "lemon", "--query", "moon", "-k", "1"]).expect(0).stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines[0], lines[3], lines[4]), ("lemon", "", "moon"), "{text}");
    let piped = GALLERY.run_with_input("search --collection c --queries - --json", "red apple\n").expect(0).json();
    assert_eq!(piped["hits"][0]["metadata"]["en"], "red apple");
}

#[test]
fn pages_groups_and_diversity() {
    let whole = hits(&["red apple", "-k", "6"]);
    let second = hits(&["red apple", "-k", "3", "--offset", "3"]);
    assert_eq!(second[..], whole[3..]);
    assert_eq!(second[0]["rank"], 4);
    let folders = hits(&["dog face", "--group-by", "folder"]);
    assert_eq!(folders.len(), 2);
    assert!(folders[1]["group"].as_str().unwrap().ends_with("/fruit") && whole[0].get("group").is_none());
    let names = hits(&["red apple", "--group-by", "en", "-k", "8"]);
    assert_eq!(names.iter().map(|hit| hit["group"].as_str().unwrap()).collect::<HashSet<_>>().len(), 8);
    let text = search(&["red apple", "--group-by", "keywords_en", "-k", "2"]).expect(0).stdout;
    assert!(text.lines().next().unwrap().contains("keywords_en"), "{text}");
    let diverse = hits(&["red apple", "--diverse", "-k", "8"]);
    assert_eq!(diverse[0], whole[0]);
    assert_eq!(diverse.iter().map(|hit| hit["metadata"]["en"].to_string()).collect::<HashSet<_>>().len(), 8);
    assert_eq!(hits(&["red apple", "--diverse=1", "-k", "6"]), whole);
    let none = search(&["red apple", "--offset", "1000"]).expect(0).stdout;
    assert!(none.contains("nothing found after the first 1000"), "{none}");
}

#[test]
fn confidence_is_told_and_cuts() {
    let all = hits(&["red apple", "-k", "20"]);
    assert!(all[0]["confidence"].as_f64().unwrap() > 0.9 && all[19]["confidence"].as_f64().unwrap() < 0.5);
    let relevant = hits(&["red apple", "--relevant-only"]);
    assert!(!relevant.is_empty() && relevant.len() < 8);
    assert!(relevant.iter().all(|hit| hit["confidence"].as_f64().unwrap() >= 0.7));
    let everything = hits(&["red apple", "--relevant-only=0", "-k", "20"]);
    assert_eq!(ids(&everything), ids(&all));
    let none = search(&["hydraulic pump maintenance manual", "--relevant-only"]).expect(0).stdout;
    assert!(none.contains("likely to be there by chance"), "{none}");
    let text = search(&["red apple", "-k", "1"]).expect(0).stdout;
    assert!(text.lines().next().unwrap().contains("confidence"), "{text}");
    let run = search(&["red apple", "-k", "2", "--offset", "1", "--html", "page.html"]).expect(0);
    assert!(run.stderr.contains("page.html"));
    let page = std::fs::read_to_string(GALLERY.path("page.html")).unwrap();
    assert!(page.contains("<span>2</span>") && page.contains("confidence "), "{page}");
    // Too few items to tell.
    GALLERY.run("index pics/fruit --collection few -q").expect(0);
    let few = GALLERY.run("search red apple --collection few --json").expect(0).json();
    assert!(few["hits"][0]["confidence"].is_null());
    let text = GALLERY.run("search red apple --collection few").expect(0).stdout;
    assert!(!text.contains("confidence"), "{text}");
    let none = GALLERY.run("search red apple --collection few --relevant-only").expect(0).stdout;
    assert!(none.contains("can't be told among 2 items"), "{none}");
}

#[test]
fn filters_and_words() {
    let few = hits(&["red apple", "--filter", "en in ('dog face', lemon)"]);
    assert_eq!(few.len(), 3);
    assert!(few.iter().all(|hit| hit["metadata"]["en"] != "red apple"));
    let run = search(&["dog", "--filter", "year >= "]).expect(2);
    assert!(run.stderr.contains("^"), "{}", run.stderr);
    // Words that stand in keywords only.
    let text = hits(&["yolo", "--mode", "text"]);
    assert!(!text.is_empty());
    assert!(text.iter().all(|hit| hit["metadata"]["keywords_en"].as_str().unwrap().contains("yolo")));
    assert!(text.iter().all(|hit| hit["confidence"].is_number()));
    let both = hits(&["face tongue", "--mode", "text", "-k", "100"]);
    let phrase = hits(&["\"with tongue\"", "--mode", "text", "-k", "100"]);
    assert!(!phrase.is_empty() && phrase.len() < both.len());
    assert!(phrase.iter().all(|hit| hit["metadata"]["en"].as_str().unwrap().contains("with tongue")));
    assert!(search(&["zzyzx", "--mode", "text"]).expect(0).stdout.contains("nothing found"));
    assert!(search(&["--like", "1f436.png", "--mode", "text"]).expect(1).stderr.contains("needs words"));
    let hybrid = hits(&["dog face", "--mode", "hybrid"]);
    assert_eq!((hybrid.len(), hybrid[0]["metadata"]["en"].as_str()), (10, Some("dog face")));
    let (vectors, words) = (hits(&["yolo"]), hits(&["yolo", "--mode", "text"]));
    assert_eq!(ids(&hits(&["yolo", "--mode", "hybrid", "--alpha", "1"]))[..5], ids(&vectors)[..5]);
    let by_words = hits(&["yolo", "--mode", "hybrid", "--alpha", "0"]);
    assert_eq!(ids(&by_words)[0], ids(&words)[0]);
    // A least cosine holds whatever ranks the items.
    let least = text[0]["score"].as_f64().unwrap();
    assert!(least > 0.0);
    assert!(hits(&["yolo", "--mode", "text", "--min-score", "0.99"]).is_empty());
    assert_eq!(ids(&hits(&["yolo", "--mode", "text", "--min-score", "-1"])), ids(&text));
}
