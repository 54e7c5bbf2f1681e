//! Kills and Ctrl-C in the middle of the work: nothing is lost or damaged, and the next run goes on.
#![cfg(unix)]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Home, Run, other_model};

fn start(home: &Home, arguments: &[&str]) -> Child {
    home.command().args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn signal(child: &Child, name: &str) {
    let done = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(done.success());
}

/// Waits until the collection exists, and a moment more.
fn wait_until_indexing(home: &Home, collection: &str, moment: Duration) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !home.path(collection).join("collection.sqlite").exists() {
        assert!(Instant::now() < deadline, "indexing never began");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(moment);
}

#[test]
fn a_kill_loses_nothing_that_was_committed() {
    const PICTURES: u32 = 1500;
    let home = Home::new();
    home.noise("pics", PICTURES);
    let model = other_model();
    let arguments =
        ["index", "pics", "--collection", "c", "--batch-size", "8", "--model", model.to_str().unwrap(), "-q", "--json"];
    let mut items = 0;
    for moment in [0, 40, 90, 170, 260] {
        let mut child = start(&home, &arguments);
        wait_until_indexing(&home, "c", Duration::from_millis(moment));
        child.kill().unwrap();
        child.wait().unwrap();
        let now = items_after_a_kill(&home);
        assert!(now >= items, "{now} items after {items}");
        items = now;
    }
    let report = home.run_arguments(arguments).expect(0).json();
    let count = |name: &str| report[name].as_u64().unwrap();
    assert_eq!(count("unchanged"), items);
    assert_eq!(count("embedded"), u64::from(PICTURES) - items);
    home.run("collection verify c").expect(0);
}

/// Number of items in a collection that must be sound; a kill right at its making may leave none.
fn items_after_a_kill(home: &Home) -> u64 {
    let run = home.run("collection verify c --json");
    if run.stderr.contains("there is no collection at") {
        return 0;
    }
    run.expect(0).json()["items"].as_u64().unwrap()
}

#[test]
fn control_c_stops_cleanly_and_the_next_run_goes_on() {
    const PICTURES: u32 = 400;
    let home = Home::new();
    home.noise("pics", PICTURES);
    let child = start(&home, &["index", "pics", "--collection", "c", "--json", "--batch-size", "4"]);
    wait_until_indexing(&home, "c", Duration::from_millis(300));
    signal(&child, "-INT");
    let run = Run::from(child.wait_with_output().unwrap()).expect(130);
    let report = run.json();
    assert_eq!(report["cancelled"], true);
    assert!(report["embedded"].as_u64().unwrap() < u64::from(PICTURES));
    assert!(run.stderr.contains("interrupted"), "{}", run.stderr);
    home.run("collection verify c").expect(0);
    let kept = home.run("collection info c --json").expect(0).json()["items"].as_u64().unwrap();
    assert_eq!(kept, report["embedded"].as_u64().unwrap(), "what was embedded is kept");
}

#[test]
fn a_second_writer_is_told_or_waits() {
    let home = Home::new();
    home.noise("pics", 800);
    home.noise("more", 1);
    let mut child = start(&home, &["index", "pics", "--collection", "c", "-q"]);
    wait_until_indexing(&home, "c", Duration::from_millis(100));
    let run = home.run("index more --collection c").expect(1);
    assert!(run.stderr.contains("is being written by") && run.stderr.contains("--wait"), "{}", run.stderr);
    // Readers are not disturbed.
    home.run("collection info c").expect(0);
    signal(&child, "-INT");
    let waited = home.run("index more --collection c --wait=30 -q --json").expect(0).json();
    // The same picture is among the first ones, and may have been committed already.
    assert_eq!(waited["embedded"].as_u64().unwrap() + waited["reused"].as_u64().unwrap(), 1);
    child.wait().unwrap();
}
