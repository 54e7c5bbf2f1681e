//! Help, usage errors, completions, streams that close.

use std::process::Stdio;

use crate::support::Home;

const COMMANDS: [&str; 22] = [
    "",
    "demo",
    "index",
    "search",
    "embed",
    "similarity",
    "classify",
    "collection",
    "collection info",
    "collection list",
    "collection remove",
    "collection verify",
    "collection compact",
    "collection import",
    "collection export",
    "collection backup",
    "collection duplicates",
    "model",
    "model list",
    "model info",
    "model pull",
    "model verify",
];

#[test]
fn every_command_explains_itself_with_examples() {
    let home = Home::new();
    for command in COMMANDS.iter().chain(&["quantize", "evaluate", "completions", "fine-tune", "train"]) {
        let help = home.run(&format!("{command} --help")).expect(0).stdout;
        assert!(help.contains("Examples:") && help.contains("--json"), "{command}:\n{help}");
        assert!(help.contains("crossmodal"), "{command}");
    }
}

#[test]
fn alone_it_says_what_to_try() {
    let run = Home::new().run("").expect(0);
    assert!(run.stdout.contains("crossmodal demo") && run.stderr.is_empty());
    assert!(Home::new().run("--version").expect(0).stdout.starts_with("crossmodal "));
}

#[test]
fn wrong_usage_is_two_and_helps() {
    let home = Home::new();
    let cases = [
        ("serch x", "search"),
        ("search --collection c", "WORDS"),
        ("search x", "--collection"),
        ("search x --collection c -k 0", "at least 1"),
        ("index pics --collection c --batch-size 0", "at least 1"),
        ("embed", "--text"),
        ("embed --text x --output x.csv", ".safetensors"),
        ("classify x.png", "--labels"),
        ("classify x.png --labels a --labels-file b", "cannot be used with"),
        ("--color sometimes demo", "never"),
        ("search x --collection c -k 99999999999", "at most"),
        ("search x --collection c --min-score nan", "cosine"),
        ("demo --threads 100000", "at most"),
        ("index pics --collection c --wait=99999999999999", "--wait"),
        ("completions tcsh", "possible values"),
        ("collection info", "DIR"),
        ("collection import --collection c", "--vectors"),
        ("collection import x --vectors y.npy --collection c", "cannot be used with"),
        ("collection import --vectors y.npy --collection c --metric hamming", "inner_product"),
        ("collection export x --f16 --collection c", "clip-retrieval"),
        ("collection duplicates c --threshold 1.5", "0 to 1"),
        ("collection duplicates c --threshold nan", "0 to 1"),
        ("search x --effort 5 --collection c", "--vectors"),
        ("search --vectors q.npy words --collection c", "cannot be used with"),
        ("search --vectors q.npy --output r.txt --collection c", ".npy"),
    ];
    for (line, expected) in cases {
        let run = home.run(line).expect(2);
        assert!(run.stderr.contains(expected), "{line}: {}", run.stderr);
        assert_eq!(run.stdout, "", "{line}");
    }
    let run = home.command().arg("demo").env("CROSSMODAL_THREADS", "many").output().unwrap();
    assert_eq!(run.status.code(), Some(2));
}

#[test]
fn completions_for_every_shell() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(home.run(&format!("completions {shell}")).expect(0).stdout.contains("similarity"));
    }
    let json = home.run("completions bash --json").expect(0).json();
    assert_eq!(json["shell"], "bash");
}

#[test]
fn colours_follow_the_option() {
    let home = Home::new();
    assert!(home.run("model list --color always").expect(0).stdout.contains("\u{1b}["));
    for line in ["model list --color never", "model list"] {
        assert!(!home.run(line).expect(0).stdout.contains('\u{1b}'));
    }
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let home = Home::new();
    let texts: String = (0..300).map(|number| format!("text {number}\n")).collect();
    std::fs::write(home.path("texts.txt"), texts).unwrap();
    for line in ["embed -", "completions zsh", "model list --json", "--help", "model info mini"] {
        let mut command = home.command();
        let input = std::fs::File::open(home.path("texts.txt")).unwrap();
        command.args(line.split(' ')).stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let run = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success() && stderr.is_empty(), "{line}: {:?} {stderr}", run.status);
    }
}
