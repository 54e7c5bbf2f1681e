//! `collection ...`: what it holds, forgetting, checking, compacting.

use crate::support::Home;

fn with_pictures(count: u32) -> Home {
    let home = Home::new();
    home.noise("pics", count);
    let model = crate::support::other_model();
    home.run(&format!("index pics --collection c -q --model {}", model.display())).expect(0);
    home
}

#[test]
fn items_are_listed_in_pages() {
    let home = with_pictures(5);
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = home.run(&format!("collection list c --limit 2 --json {after}")).expect(0).json();
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_string()));
        match page["next"].as_i64() {
            Some(next) => after = format!("--after {next}"),
            None => break,
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 5);
    let text = home.run("collection list --collection c --limit 0").expect(0).stdout;
    assert!(text.contains("pics/00004.bmp"), "{text}");
    let some =
        home.run_arguments(["collection", "list", "c", "--filter", "name like %0003.bmp", "--json"]).expect(0).json();
    assert_eq!(some["items"].as_array().unwrap().len(), 1);
    let refused = home.run_arguments(["collection", "list", "c", "--filter", "size > big"]).expect(2);
    assert!(refused.stderr.contains("  size > big\n         ^^^"), "{}", refused.stderr);
    let all = home.run("collection list c --limit 18446744073709551615 --json").expect(0).json();
    assert_eq!(all["items"].as_array().unwrap().len(), 5);
}

#[test]
fn items_are_forgotten_and_their_space_given_back() {
    let home = with_pictures(4);
    let removed = home.run("collection remove 00001.bmp pics/00002.bmp --collection c --json").expect(0).json();
    assert_eq!(removed["removed"].as_array().unwrap().len(), 2);
    assert_eq!(home.run("collection info c --json").expect(0).json()["items"], 2);
    let run = home.run("collection remove 00003.bmp 00001.bmp --collection c").expect(1);
    assert!(run.stderr.contains("00001.bmp"));
    assert_eq!(
        home.run("collection info c --json").expect(0).json()["items"],
        2,
        "nothing is removed unless all exist"
    );
    assert_eq!(home.run("collection compact c --json").expect(0).json()["dropped_vectors"], 2);
    home.run("collection verify c").expect(0);
    // Gone for good: they are embedded again.
    assert_eq!(home.run("index pics --collection c --json -q").expect(0).json()["embedded"], 2);
}

#[test]
fn damage_is_found_and_named() {
    let home = with_pictures(3);
    let vectors = home.path("c").read_dir().unwrap().map(|entry| entry.unwrap().path());
    let vectors: Vec<_> =
        walk(vectors.collect()).into_iter().filter(|path| !path.to_string_lossy().contains("sqlite")).collect();
    let largest = vectors.iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(largest).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 0x55;
    std::fs::write(largest, bytes).unwrap();
    let run = home.run("collection verify c --json").expect(1);
    let report = run.json();
    assert_eq!(report["sound"], false);
    assert_eq!(report["affected_items"].as_array().unwrap().len(), 1, "{report}");
    let text = home.run("collection verify c").expect(1).stdout;
    assert!(text.contains(".bmp") && text.contains("problem"), "{text}");
    // Indexing again heals it.
    home.run("index pics --collection c -q").expect(0);
    assert_eq!(home.run("collection verify c --json").json()["affected_items"].as_array().unwrap().len(), 0);
}

fn walk(paths: Vec<std::path::PathBuf>) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(walk(path.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect()));
        } else {
            files.push(path);
        }
    }
    files
}

#[test]
fn folders_that_are_no_collections_are_left_alone() {
    let home = Home::new();
    home.noise("pics", 1);
    let run = home.run("search x --collection nowhere").expect(1);
    assert!(
        run.stderr.contains("there is no collection at") && run.stderr.contains("hint: make it with"),
        "{}",
        run.stderr
    );
    home.run("collection compact nowhere").expect(1);
    assert!(!home.path("nowhere").exists());
    let before = home.path("pics").read_dir().unwrap().count();
    home.run("index pics --collection pics").expect(1);
    assert_eq!(home.path("pics").read_dir().unwrap().count(), before);
}

#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_written_is_an_error_and_can_still_be_searched() {
    use std::os::unix::fs::PermissionsExt;
    let home = with_pictures(2);
    home.noise("more", 1);
    let mode =
        |name: &str, mode| std::fs::set_permissions(home.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    let files: Vec<_> = home.path("c").read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    let files = files.iter().map(|path| path.to_str().unwrap().to_string());
    files.for_each(|file| mode(&file, if std::path::Path::new(&file).is_dir() { 0o555 } else { 0o444 }));
    mode("c", 0o555);
    mode("", 0o755);
    // The administrator may write anywhere, so the test becomes nobody if it can.
    let is_root = std::fs::write(home.path("c/probe"), "").is_ok();
    let _ = std::fs::remove_file(home.path("c/probe"));
    let run = |arguments: &[&str]| {
        let binary = env!("CARGO_BIN_EXE_crossmodal");
        let mut command = std::process::Command::new(if is_root { "setpriv" } else { binary });
        if is_root {
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", binary]);
        }
        home.prepare(command).args(arguments).output()
    };
    if !run(&["--version"]).is_ok_and(|run| run.status.success()) {
        eprintln!("skipped: this user may write anywhere and can't become another");
        return;
    }
    let written = run(&["index", "more", "--collection", "c"]).unwrap();
    let stderr = String::from_utf8_lossy(&written.stderr);
    assert_eq!(written.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("error:") && !stderr.contains("panicked"), "{stderr}");
    let searched = run(&["collection", "info", "c", "--json"]).unwrap();
    assert!(searched.status.success(), "{}", String::from_utf8_lossy(&searched.stderr));
    mode("c", 0o755);
}

#[test]
fn lost_vectors_are_restored_from_their_files() {
    let home = with_pictures(6);
    let file = std::fs::read_dir(home.path("c/vectors")).unwrap().next().unwrap().unwrap().path();
    let length = file.metadata().unwrap().len();
    std::fs::File::options().write(true).open(&file).unwrap().set_len(length / 2).unwrap();
    home.run("collection verify c").expect(1);
    let refused = home.run("index pics --collection c -q").expect(1);
    assert!(refused.stderr.contains("are lost") && refused.stderr.contains("--repair"), "{}", refused.stderr);
    assert_eq!(refused.stderr.matches("c/vectors").count(), 1, "{}", refused.stderr);
    let restored = home.run("index pics --collection c --repair --json -q").expect(0).json();
    assert!(restored["embedded"].as_u64().unwrap() >= 3, "{restored}");
    home.run("collection verify c").expect(0);
    assert_eq!(home.run("collection info c --json").expect(0).json()["items"], 6);
}

#[test]
fn items_whose_folder_moved_away_can_be_forgotten_together() {
    let home = with_pictures(4);
    std::fs::rename(home.path("pics"), home.path("moved")).unwrap();
    let moved = home.run("index moved --collection c --json -q").expect(0).json();
    assert_eq!((moved["embedded"].as_u64(), moved["reused"].as_u64()), (Some(0), Some(4)));
    let hits = home.run("search x --collection c -k 8 --json").expect(0).json();
    let missing = hits["hits"].as_array().unwrap().iter().filter(|hit| hit["missing"] == true).count();
    assert_eq!(missing, 4);
    assert!(home.run("search x --collection c -k 8").expect(0).stdout.contains("(gone)"));
    let removed = home.run("collection remove --missing --collection c --json").expect(0).json();
    assert_eq!(removed["removed"].as_array().unwrap().len(), 4);
    assert_eq!(home.run("collection info c --json").expect(0).json()["items"], 4);
}
