//! Every golden fixture of the CLIP family, stage by stage, and the built-in model against its expected values.

use std::path::{Path, PathBuf};

use crossmodal_models::verify::{VerifyReport, verify};
use crossmodal_models::{Embedder, Input, LoadOptions, load_clip};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn check(fixture: &str) {
    let folder = root().join("tests/golden").join(fixture);
    // Both roads: fused kernels, and the differentiable operations that training uses.
    for trainable in [false, true] {
        let cache = tempfile::tempdir().unwrap();
        let options = LoadOptions { cache_dir: Some(cache.path().into()), trainable, ..LoadOptions::default() };
        let model = load_clip(folder.to_str().unwrap(), &options).unwrap();
        report(fixture, &verify(&model, &folder).unwrap());
    }
}

fn report(fixture: &str, report: &VerifyReport) {
    for stage in &report.stages {
        println!(
            "{fixture:32} {:40} {:9.2e} of {:9.2e} {}",
            stage.stage,
            stage.max_abs_difference,
            stage.tolerance,
            stage.note.as_deref().unwrap_or_default()
        );
    }
    let failed: Vec<_> = report.stages.iter().filter(|stage| !stage.passed).map(|stage| &stage.stage).collect();
    assert!(report.passed, "{fixture}: {failed:?} out of tolerance");
    for needed in ["text/input_ids", "vision/pixel_values", "text/hidden_2", "vision/hidden_2", "logits_per_image"] {
        assert!(report.stages.iter().any(|stage| stage.stage == needed), "{fixture}: {needed} was not compared");
    }
}

#[test]
fn hf_clip_legacy_quick_gelu() {
    check("hf-clip/legacy-quick-gelu");
}

#[test]
fn hf_clip_modern_gelu() {
    check("hf-clip/modern-gelu");
}

#[test]
fn open_clip_vit() {
    check("open-clip/vit");
}

#[test]
fn open_clip_vit_custom() {
    check("open-clip/vit-custom");
}

#[test]
fn open_clip_vit_avgpool() {
    check("open-clip/vit-avgpool");
}

/// Largest absolute difference of two vectors.
fn gap(found: &[f32], expected: &serde_json::Value) -> f64 {
    let expected: Vec<f64> = expected.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(found, expected)| (f64::from(*found) - expected).abs()).fold(0.0, f64::max)
}

#[test]
fn mini_reproduces_its_expected_values() {
    let text = std::fs::read_to_string(root().join("models/mini/expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
    let model = load_clip("mini", &LoadOptions::default()).unwrap();
    let rule = model.logit_rule().unwrap().unwrap();
    assert!((f64::from(rule.scale) - expected["logit_scale_exp"].as_f64().unwrap()).abs() < 1e-5);
    let mut worst = 0f64;
    let mut units = [Vec::new(), Vec::new()];
    for picture in expected["images"].as_array().unwrap() {
        let name = Path::new(picture["file"].as_str().unwrap()).file_name().unwrap().to_owned();
        let bytes = std::fs::read(root().join("samples/gallery").join(name)).unwrap();
        let pixels = model.prep().tensor(&bytes).unwrap();
        let row = picture["pixel_values_row_c0_y32"].as_array().unwrap();
        let row: Vec<f32> = row.iter().map(|value| value.as_f64().unwrap() as f32).collect();
        assert_eq!(pixels.data[32 * 64..33 * 64], row, "{}: pixels are not equal", picture["file"]);
        let sum: f64 = pixels.data.iter().map(|value| f64::from(*value)).sum();
        assert!((sum - picture["pixel_values_sum"].as_f64().unwrap()).abs() < 1e-6 * sum.abs());
        let embedding = model.embed(&[Input::image(bytes)]).unwrap().remove(0);
        worst = worst.max(gap(&embedding.unit, &picture["embedding"]));
        units[0].push(embedding.unit);
    }
    for text in expected["texts"].as_array().unwrap() {
        let words = text["text"].as_str().unwrap();
        let ids = model.tokenizer().encode(words).unwrap().ids;
        let padded: Vec<u32> =
            text["input_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        assert_eq!(ids, padded[..ids.len()], "{words:?}");
        assert!(padded[ids.len()..].iter().all(|id| *id == model.tokenizer().pad_id()));
        let embedding = model.embed(&[Input::text(words)]).unwrap().remove(0);
        worst = worst.max(gap(&embedding.unit, &text["embedding"]));
        units[1].push(embedding.unit);
    }
    assert!(worst < 2e-6, "unit vectors differ by up to {worst:e}");
    for (picture, row) in units[0].iter().zip(expected["logits_per_image"].as_array().unwrap()) {
        let cosine = |text: &Vec<f32>| picture.iter().zip(text).map(|(a, b)| a * b).sum::<f32>() * rule.scale;
        let logits: Vec<f32> = units[1].iter().map(cosine).collect();
        assert!(gap(&logits, row) < 5e-5, "logits differ by up to {:e}", gap(&logits, row));
    }
    println!("mini: unit vectors within {worst:e}");
}
