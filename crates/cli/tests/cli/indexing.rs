//! `index` and `search`: what is embedded, what is not, and what is found.

use serde_json::Value;

use crate::support::{Home, drawing, noise, other_model};

const APPLE: &str = "1f34e.png";
const DOG: &str = "1f436.png";
const SHIP: &str = "1f6f3.png";

/// Runs `index --json` and returns the counts (embedded, reused, unchanged, skipped, pruned).
#[track_caller]
fn index(home: &Home, arguments: &str) -> (u64, u64, u64, usize, u64) {
    let report = home.run(&format!("index {arguments} --json -q")).expect(0).json();
    let count = |name: &str| report[name].as_u64().unwrap();
    let skipped = report["skipped"].as_array().unwrap().len();
    (count("embedded"), count("reused"), count("unchanged"), skipped, count("pruned"))
}

fn best(home: &Home, arguments: &str) -> Value {
    let answer = home.run(&format!("search {arguments} --json -q")).expect(0).json();
    answer["hits"][0].clone()
}

#[test]
fn only_what_is_new_or_changed_is_embedded() {
    let home = Home::new();
    home.drawings("pics", &[APPLE, DOG, SHIP]);
    assert_eq!(index(&home, "pics --collection c"), (3, 0, 0, 0, 0));
    assert_eq!(index(&home, "pics --collection c"), (0, 0, 3, 0, 0));
    // A rename embeds nothing; the old name is forgotten only when that is asked for.
    std::fs::rename(home.path("pics").join(APPLE), home.path("pics/renamed.png")).unwrap();
    assert_eq!(index(&home, "pics --collection c"), (0, 1, 2, 0, 0));
    assert_eq!(index(&home, "pics --collection c --prune"), (0, 0, 3, 0, 1));
    assert_eq!(best(&home, "red apple --collection c")["path"], home.path("pics/renamed.png").to_str().unwrap());
    // A changed file is embedded again.
    std::fs::copy(drawing("1f335.png"), home.path("pics/renamed.png")).unwrap();
    assert_eq!(index(&home, "pics --collection c"), (1, 0, 2, 0, 0));
    let info = home.run("collection info c --json").expect(0).json();
    assert_eq!((info["items"].as_u64(), info["model"].as_str()), (Some(3), Some("mini")));
    home.run("collection verify c").expect(0);
}

#[test]
fn paths_given_twice_and_copies_are_embedded_once() {
    let home = Home::new();
    home.drawings("pics", &[APPLE, DOG]);
    std::fs::copy(drawing(DOG), home.path("pics/copy.png")).unwrap();
    let arguments = format!("pics pics pics/{APPLE} ./pics/../pics --collection c");
    assert_eq!(index(&home, &arguments), (2, 1, 0, 0, 0));
}

#[test]
fn metadata_is_kept_and_shown() {
    let home = Home::new();
    home.drawings("pics", &[APPLE, DOG]);
    std::fs::write(home.path("about.csv"), format!("file,caption,year\n{APPLE},a red apple,2024\n")).unwrap();
    index(&home, "pics --collection c --metadata about.csv");
    let hit = best(&home, "red apple --collection c");
    assert_eq!(
        (hit["metadata"]["caption"].as_str(), hit["metadata"]["year"].as_u64()),
        (Some("a red apple"), Some(2024))
    );
    let text = home.run("search red apple --collection c").expect(0).stdout;
    let rows: Vec<&str> = text.lines().collect();
    assert!(
        rows[0].contains("score") && rows[1].contains(&format!("pics/{APPLE}")) && rows[1].ends_with("a red apple"),
        "{text}"
    );
    std::fs::write(home.path("wrong.csv"), "caption\nx\n").unwrap();
    let run = home.run("index pics --collection other --metadata wrong.csv").expect(1);
    assert!(run.stderr.contains("wrong.csv:2: names no file"), "{}", run.stderr);
    assert!(!home.path("other").exists());
}

#[test]
fn searches_by_picture_item_and_several_at_once() {
    let home = Home::new();
    home.drawings(
        "pics",
        &[APPLE, DOG, SHIP, "1f6a2.png", "26f4.png"].map(|name| if drawing(name).exists() { name } else { APPLE }),
    );
    index(&home, "pics --collection c");
    let query = drawing(SHIP);
    assert!(best(&home, &format!("--image {} --collection c", query.display()))["score"].as_f64().unwrap() > 0.9999);
    let like = home.run(&format!("search --like {DOG} --collection c --json")).expect(0).json();
    let ids: Vec<&str> = like["hits"].as_array().unwrap().iter().map(|hit| hit["id"].as_str().unwrap()).collect();
    assert!(!ids.is_empty() && ids.iter().all(|id| !id.ends_with(DOG)), "{ids:?}");
    let mixed = home.run(&format!("search red --like {APPLE} --collection c -k 1 --json")).expect(0).json();
    assert_eq!(mixed["hits"].as_array().unwrap().len(), 1);
    let none = home.run("search red apple --collection c --min-score 0.99").expect(0);
    assert!(none.stdout.contains("nothing found"), "{}", none.stdout);
    let run = home.run("search --like nowhere.png --collection c").expect(1);
    assert!(run.stderr.contains("no item \"nowhere.png\""), "{}", run.stderr);
}

#[test]
fn a_page_of_results_is_self_contained_and_escaped() {
    let home = Home::new();
    home.drawings("pics", &[APPLE, DOG]);
    std::fs::write(
        home.path("about.csv"),
        format!("file,caption\n{APPLE},\"<script>alert(1)</script> & \"\"quotes\"\"\"\n"),
    )
    .unwrap();
    index(&home, "pics --collection c --metadata about.csv");
    let run = home.run("search red apple --collection c --html page.html").expect(0);
    assert!(run.stderr.contains("page.html"));
    let page = std::fs::read_to_string(home.path("page.html")).unwrap();
    assert_eq!(page.matches("data:image/jpeg;base64,").count(), 2);
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;quotes&quot;"));
    assert!(!page.contains("<script") && !page.contains("http"), "{page}");
}

#[test]
fn an_opener_that_is_missing_is_no_failure() {
    let home = Home::new();
    home.drawings("pics", &[APPLE]);
    index(&home, "pics --collection c");
    let mut command = home.command();
    let run = command
        .args(["search", "apple", "--collection", "c", "--open", "--html", "page.html"])
        .env("PATH", "")
        .output()
        .unwrap();
    assert!(run.status.success());
    assert!(String::from_utf8_lossy(&run.stderr).contains("couldn't be opened"));
}

#[test]
fn spaces_are_never_mixed() {
    let home = Home::new();
    home.drawings("pics", &[APPLE]);
    index(&home, "pics --collection c");
    let other = other_model();
    home.noise("more", 2);
    for line in ["index more --collection c --model", "search red apple --collection c --model"] {
        let run = home.run(&format!("{line} {}", other.display())).expect(1);
        assert!(run.stderr.contains("mini") && run.stderr.contains(other.to_str().unwrap()), "{}", run.stderr);
    }
    // The environment is a default only: the collection's own model wins.
    let mut command = home.command();
    let run =
        command.args(["search", "red apple", "--collection", "c"]).env("CROSSMODAL_MODEL", &other).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    // And a collection made with it goes on with it unasked.
    assert_eq!(index(&home, &format!("more --collection d --model {}", other.display())).0, 2);
    std::fs::write(home.path("more/new.bmp"), noise(77, 16)).unwrap();
    assert_eq!(index(&home, "more --collection d"), (1, 0, 2, 0, 0));
}

#[test]
fn settings_come_from_the_environment_too() {
    let home = Home::new();
    home.drawings("pics", &[APPLE]);
    let mut command = home.command();
    let run = command
        .args(["index", "pics", "-q"])
        .env("CROSSMODAL_COLLECTION", home.path("c"))
        .env("CROSSMODAL_THREADS", "1");
    assert!(run.output().unwrap().status.success());
    assert!(home.path("c").is_dir());
    // An argument wins over the environment.
    home.run("index pics --collection d -q").expect(0);
    let mut command = home.command();
    let run = command.args(["collection", "info", "d", "--json"]).env("CROSSMODAL_COLLECTION", home.path("c"));
    assert!(
        crate::support::Run::from(run.output().unwrap()).expect(0).json()["location"].as_str().unwrap().ends_with('d')
    );
}
