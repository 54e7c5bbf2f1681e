//! `model ...`: the registry, descriptions, and proof against reference data.

use std::path::Path;

use crate::support::{Home, copy_folder, edit_safetensors, golden, offset};

#[test]
fn every_golden_checkpoint_passes_every_stage() {
    let home = Home::new();
    for name in [
        "hf-clip/legacy-quick-gelu",
        "hf-clip/modern-gelu",
        "open-clip/vit",
        "open-clip/vit-custom",
        "open-clip/vit-avgpool",
    ] {
        let folder = golden(name);
        let folder = folder.to_str().unwrap();
        let run = home.run_arguments(["model", "verify", folder, "--golden", folder]).expect(0);
        assert!(run.stdout.contains("stages within tolerance"), "{}", run.stdout);
        let report = home.run_arguments(["model", "verify", folder, "--golden", folder, "--json"]).expect(0).json();
        assert_eq!(report["passed"], true);
        assert!(report["stages"].as_array().unwrap().len() > 10);
    }
}

#[test]
fn a_stage_that_is_out_fails_and_is_named() {
    let home = Home::new();
    let name = "legacy-quick-gelu";
    copy_folder(&golden("hf-clip").join(name), &home.path(name));
    copy_folder(&golden("hf-clip/images"), &home.path("images"));
    edit_safetensors(&home.path(name).join("golden.safetensors"), |header, data| {
        let start = offset(header, "text/projected");
        data[start..start + 4].copy_from_slice(&5.0f32.to_le_bytes());
    });
    let run = home.run(&format!("model verify {name} --golden {name}")).expect(1);
    let line = run.stdout.lines().find(|line| line.trim_start().starts_with("text/projected")).unwrap();
    assert!(line.contains("OUT") && run.stdout.contains("out of tolerance"), "{}", run.stdout);
    let report = home.run(&format!("model verify {name} --golden {name} --json")).expect(1).json();
    assert_eq!(report["passed"], false);
}

#[test]
fn a_model_describes_itself() {
    let home = Home::new();
    let info = home.run("model info mini --json").expect(0).json();
    assert_eq!((info["dimension"].as_u64(), info["parameters"].as_u64()), (Some(128), Some(5_734_273)));
    assert_eq!(info["modalities"], serde_json::json!(["text", "image"]));
    assert_eq!(info["space"].as_str().unwrap().len(), 32);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/mini/expected.json");
    let golden: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(golden).unwrap()).unwrap();
    let (scale, expected) = (info["logits"]["scale"].as_f64().unwrap(), golden["logit_scale_exp"].as_f64().unwrap());
    assert!((scale - expected).abs() < 1e-4 * expected, "{scale}, expected {expected}");
    let text = home.run("model info mini").expect(0).stdout;
    for expected in ["5,734,273", "tokenizer", "licence", "built in"] {
        assert!(text.contains(expected), "{expected:?} is missing in:\n{text}");
    }
}

#[test]
fn a_model_says_that_it_decodes_fast() {
    let home = Home::new();
    let [exact, fast] =
        ["exact", "fast"].map(|mode| home.run(&format!("model info mini --decode {mode} --json")).expect(0).json());
    assert_eq!(exact, home.run("model info mini --json").expect(0).json());
    assert!(fast["preprocessing"].as_str().unwrap().contains("reduced size"), "{fast}");
    assert_eq!(fast["space"], exact["space"]);
}

#[test]
fn known_variants_are_listed() {
    let home = Home::new();
    let models = home.run("model list --json").expect(0).json();
    let names: Vec<&str> =
        models["models"].as_array().unwrap().iter().map(|model| model["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"mini") && names.contains(&"ViT-B-32/openai"), "{names:?}");
    let text = home.run("model list").expect(0).stdout;
    assert!(text.contains("licence") && text.contains("ViT-B-32/openai"), "{text}");
}

#[test]
fn pulling_what_is_here_already_says_so() {
    let run = Home::new().run("model pull mini").expect(0);
    assert!(run.stdout.contains("was here already"), "{}", run.stdout);
}
