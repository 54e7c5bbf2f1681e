//! Fine-tuning by the real program: what comes out works, and a killed run continues to the same bytes.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Home, drawing, golden};

/// Arguments of a run over the gallery with a small model.
fn arguments(output: &str, steps: u32) -> Vec<String> {
    let data = drawing("captions.csv").canonicalize().unwrap();
    let model = golden("hf-clip/modern-gelu");
    let line = format!(
        "fine-tune --model {} --data {} --image-column file --caption-column en --output {output} --steps {steps} \
         --batch-size 16 --learning-rate 1e-3 --average 0.9 --save-every 3 --augment --seed 1",
        model.display(),
        data.display()
    );
    line.split_whitespace().map(str::to_string).collect()
}

fn weights(home: &Home, run: &str) -> Vec<u8> {
    std::fs::read(home.path(run).join("last/model.safetensors")).unwrap()
}

/// Steps in the log, each with its loss.
fn steps(home: &Home, run: &str) -> Vec<(u64, f64)> {
    let text = std::fs::read_to_string(home.path(run).join("log.jsonl")).unwrap_or_default();
    let entries = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let steps = entries.filter(|entry| entry["event"] == "step");
    steps.map(|entry| (entry["step"].as_u64().unwrap(), entry["loss"].as_f64().unwrap())).collect()
}

#[test]
fn a_tuned_model_is_a_model_like_any_other() {
    let home = Home::new();
    let run = home.run_arguments(arguments("tuned", 30).iter().chain(["--json".to_string()].iter())).expect(0);
    let events = run.json_lines();
    let last = events.last().unwrap();
    assert_eq!((last["event"].as_str(), last["step"].as_u64()), (Some("finished"), Some(30)));
    assert!(last["best"]["score"].is_number() && last["cancelled"] == false);
    let losses: Vec<f64> =
        events.iter().filter(|event| event["event"] == "step").map(|event| event["loss"].as_f64().unwrap()).collect();
    assert!(losses.len() == 30 && losses[29] < losses[0], "{losses:?}");
    for model in ["tuned/best", "tuned/last"] {
        let info = home.run(&format!("model info ./{model} --json")).expect(0).json();
        assert_eq!(info["layout"], "Hugging Face");
    }
    for file in ["report.html", "log.jsonl", "tensorboard/events.out.tfevents.1.crossmodal", "last/tokenizer.json"] {
        assert!(home.path("tuned").join(file).is_file(), "{file}");
    }
    // A second run needs another folder or --resume, and this one has nothing left to do.
    let again = home.run_arguments(arguments("tuned", 30)).expect(1);
    assert!(again.stderr.contains("--resume"), "{}", again.stderr);
    let before = weights(&home, "tuned");
    home.run_arguments(arguments("tuned", 30).iter().chain(["--resume".to_string()].iter())).expect(0);
    assert!(before == weights(&home, "tuned"));
}

#[test]
fn a_killed_run_continues_to_the_same_bytes() {
    const STEPS: u32 = 24;
    let home = Home::new();
    home.run_arguments(arguments("whole", STEPS)).expect(0);
    let resumed: Vec<String> = arguments("cut", STEPS).into_iter().chain(["--resume".to_string()]).collect();
    let mut kills = 0;
    for moment in [0, 35, 90, 20, 150, 60, 250] {
        let mut child = home
            .command()
            .args(&resumed)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Wait for the run to be under way, then a moment more.
        let (made, deadline) = (steps(&home, "cut").len(), Instant::now() + Duration::from_secs(120));
        while child.try_wait().unwrap().is_none() && steps(&home, "cut").len() <= made && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(3));
        }
        std::thread::sleep(Duration::from_millis(moment));
        kills += usize::from(child.try_wait().unwrap().is_none());
        let _ = child.kill();
        child.wait().unwrap();
    }
    assert!(kills >= 2, "only {kills} runs were still going when they were killed");
    home.run_arguments(&resumed).expect(0);
    assert!(weights(&home, "whole") == weights(&home, "cut"), "the weights differ after {kills} kills");
    assert_eq!(steps(&home, "whole"), steps(&home, "cut"));
}

#[cfg(unix)]
#[test]
fn control_c_saves() {
    let home = Home::new();
    let line: Vec<String> = arguments("run", 100_000).into_iter().chain(["--json".to_string()]).collect();
    let child =
        home.command().args(&line).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while steps(&home, "run").len() < 4 {
        assert!(Instant::now() < deadline, "training never began");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let run = crate::support::Run::from(child.wait_with_output().unwrap()).expect(130);
    let last = run.json_lines().pop().unwrap();
    assert_eq!(last["cancelled"], true);
    let made = last["step"].as_u64().unwrap();
    assert!(made >= 4 && steps(&home, "run").len() as u64 == made);
    let more: Vec<String> =
        arguments("run", 100_000).into_iter().chain(["--resume".to_string(), "-q".to_string()]).collect();
    let mut child = home.command().args(&more).stdin(Stdio::null()).spawn().unwrap();
    while (steps(&home, "run").len() as u64) < made + 2 {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "it didn't go on");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_is_wrong_is_told_before_anything_is_made() {
    let home = Home::new();
    let with = |extra: &[&str]| {
        let line: Vec<String> =
            arguments("run", 5).into_iter().chain(extra.iter().map(|word| word.to_string())).collect();
        home.run_arguments(line)
    };
    let cases: [(&[&str], &str); 6] = [
        (&["--loss", "affinity-mimicking"], "teacher"),
        (&["--lora", "4", "--lora-targets", "q,zebra"], "zebra"),
        (&["--validation-share", "0.000001"], "share"),
        (&["--device", "tpu"], "cuda:N"),
        (&["--device", "cpu", "--bf16"], "run.products: bf16 is for graphics processors"),
        (&["--weight-decay", "99"], "weight_decay"),
    ];
    for (extra, expected) in cases {
        let run = with(extra);
        assert!(run.code == Some(1) && run.stderr.contains(expected), "{extra:?}: {:?} {}", run.code, run.stderr);
        assert!(!home.path("run").exists(), "{extra:?}");
    }
    std::fs::write(home.path("recipe.toml"), "[model]\nfrom = \"mini\"\n[dada]\npath = \"x\"\n").unwrap();
    let run = home.run("train recipe.toml").expect(1);
    assert!(run.stderr.contains("line 3") && run.stderr.contains("did you mean `data`?"), "{}", run.stderr);
    assert!(Path::new(&home.path("recipe.toml")).exists());
}
