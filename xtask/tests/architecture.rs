//! The rules of ARCHITECTURE.md and STYLE.md that a machine can check.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What each crate may use of the workspace, and nothing else.
const LAW: &[(&str, &[&str])] = &[
    ("crossmodal-kernels", &[]),
    ("crossmodal-nn", &["crossmodal-kernels"]),
    ("crossmodal-media", &["crossmodal-kernels"]),
    ("crossmodal-models", &["crossmodal-nn", "crossmodal-media", "crossmodal-kernels"]),
    ("crossmodal-index", &["crossmodal-kernels"]),
    ("crossmodal-store", &["crossmodal-index", "crossmodal-kernels"]),
    ("crossmodal-engine", &["crossmodal-models", "crossmodal-media", "crossmodal-store", "crossmodal-index"]),
    ("crossmodal-eval", &[]),
    ("crossmodal-train", &["crossmodal-models", "crossmodal-nn", "crossmodal-media", "crossmodal-eval"]),
    ("crossmodal-server", &["crossmodal-engine"]),
    ("crossmodal-cli", &["crossmodal-server", "crossmodal-engine", "crossmodal-train"]),
    ("xtask", &[]),
];

/// Longest source file, tests included. A longer one gives its reason in its `//!` header with the words "This file is long".
const MOST_LINES: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_path_buf()
}

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

fn sources() -> Vec<PathBuf> {
    let output =
        Command::new("git").args(["ls-files", "-co", "--exclude-standard", "*.rs"]).current_dir(root()).output();
    match output {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => {
            let names = String::from_utf8(output.stdout).expect("file names are UTF-8");
            names.lines().map(|name| root().join(name)).filter(|path| path.exists()).collect()
        }
        // Outside a checkout: everything but build output.
        _ => {
            let mut found = Vec::new();
            for folder in ["crates", "xtask"] {
                collect(&root().join(folder), &mut found);
            }
            found
        }
    }
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("folder can be listed") {
        let path = entry.expect("entry can be read").path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn crates_use_only_what_the_law_allows() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let names: BTreeSet<&str> = packages.iter().map(|package| package["name"].as_str().expect("name")).collect();
    let listed: BTreeSet<&str> = LAW.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, listed, "every crate of the workspace has a line in the law");
    for package in packages {
        let name = package["name"].as_str().expect("name");
        let (_, allowed) = LAW.iter().find(|(listed, _)| *listed == name).expect("listed above");
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let used = dependency["name"].as_str().expect("name");
            let in_tests = dependency["kind"].as_str() == Some("dev");
            assert!(!names.contains(used) || in_tests || allowed.contains(&used), "{name} may not use {used}");
        }
    }
}

#[test]
fn the_map_names_every_crate_and_no_dead_path() {
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    for folder in std::fs::read_dir(root().join("crates")).expect("crates") {
        let name = folder.expect("entry").file_name().into_string().expect("UTF-8");
        assert!(map.contains(&format!("crates/{name}")), "ARCHITECTURE.md doesn't name crates/{name}");
    }
    for document in ["ARCHITECTURE.md", "STYLE.md", "README.md", "docs/adding-a-model.md"] {
        let text = std::fs::read_to_string(root().join(document)).expect(document);
        for path in text.split('`').skip(1).step_by(2).filter(|quoted| is_path(quoted)) {
            assert!(root().join(path).exists(), "{document} names {path}, which doesn't exist");
        }
    }
}

/// Whether quoted text is a path of the repository.
fn is_path(quoted: &str) -> bool {
    let starts = ["crates/", "tests/", "docs/", "scripts/", "models/", "samples/", "bench/", "xtask/", ".ci/"];
    starts.iter().any(|start| quoted.starts_with(start)) && !quoted.contains([' ', '*', '<', '{'])
}

#[test]
fn every_file_says_what_it_owns_and_stays_short() {
    let sources = sources();
    assert!(sources.len() > 40, "found only {} source files", sources.len());
    for path in sources {
        let text = std::fs::read_to_string(&path).expect("source");
        let header: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
        assert!(!header.is_empty(), "{} has no //! header", path.display());
        let lines = text.lines().count();
        assert!(
            lines <= MOST_LINES || header.contains("This file is long"),
            "{} has {lines} lines, at most {MOST_LINES} are allowed",
            path.display()
        );
    }
}

#[test]
fn unsafe_code_lives_in_kernels_only() {
    for folder in std::fs::read_dir(root().join("crates")).expect("crates") {
        let folder = folder.expect("entry").path();
        if folder.ends_with("kernels") {
            continue;
        }
        let head = ["src/lib.rs", "src/main.rs"].map(|file| folder.join(file)).into_iter().find(|file| file.exists());
        let text = std::fs::read_to_string(head.expect("a crate has a root file")).expect("source");
        assert!(text.contains("#![forbid(unsafe_code)]"), "{} doesn't forbid unsafe code", folder.display());
    }
}
