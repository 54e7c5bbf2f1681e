//! Models to be trained: variables, patches that are left out, and files that come back the same.

use std::path::{Path, PathBuf};

use candle_core::Device;
use crossmodal_media::PixelTensor;
use crossmodal_models::training::{AdapterRule, TrainableClip, Variables};
use crossmodal_models::weights::WeightType;
use crossmodal_models::{CancelToken, ClipModel, Embedder, LoadOptions, load_clip};

const MODELS: [&str; 6] = [
    "models/mini",
    "tests/golden/hf-clip/legacy-quick-gelu",
    "tests/golden/hf-clip/modern-gelu",
    "tests/golden/open-clip/vit",
    "tests/golden/open-clip/vit-avgpool",
    "tests/golden/open-clip/vit-custom",
];

fn path(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(model)
}

fn trainable(model: &Path) -> TrainableClip {
    TrainableClip::load(model.to_str().unwrap(), &LoadOptions::default(), &Device::Cpu, Variables::new(|_| true))
        .unwrap()
}

fn loaded(model: &Path) -> ClipModel {
    let cache = tempfile::tempdir().unwrap();
    let options = LoadOptions { cache_dir: Some(cache.path().into()), ..LoadOptions::default() };
    load_clip(model.to_str().unwrap(), &options).unwrap()
}

/// Pictures of pseudo-random pixels of the model's own size.
fn pictures(model: &TrainableClip, count: usize) -> Vec<PixelTensor> {
    let (height, width) = model.config().vision.image_size;
    let picture = |number: usize| {
        let mut state = number as u64 * 2 + 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let data = (0..3 * height * width).map(|_| next()).collect();
        PixelTensor { height: height as u32, width: width as u32, data }
    };
    (0..count).map(picture).collect()
}

fn texts(model: &TrainableClip) -> Vec<Vec<u32>> {
    ["a red apple", "dog", "the quick brown fox jumps over"]
        .map(|text| model.tokenizer().encode(text).unwrap().ids)
        .to_vec()
}

fn gap(a: &candle_core::Tensor, b: &candle_core::Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

#[test]
fn all_parameters_of_all_layouts_are_variables_and_come_back_from_files() {
    for model in MODELS {
        let source = path(model);
        let trainable = trainable(&source);
        let names: Vec<&str> = trainable.names().collect();
        assert_eq!(trainable.variables().keys().map(String::as_str).collect::<Vec<_>>(), names, "{model}");
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        trainable.save(&out, WeightType::F32, |_| None).unwrap();
        let (before, after) = (loaded(&source), loaded(&out));
        assert_eq!(before.weights_id().unwrap(), after.weights_id().unwrap(), "{model}");
        assert_eq!(before.space().unwrap(), after.space().unwrap(), "{model}");
        assert_eq!(before.logit_rule().unwrap(), after.logit_rule().unwrap(), "{model}");
        let cancel = CancelToken::new();
        let pictures = pictures(&trainable, 2);
        let encode = |model: &ClipModel| model.encode_pixels(&pictures, &cancel).unwrap();
        assert_eq!(encode(&before), encode(&after), "{model}");
        assert!(!out.join("model.safetensors.part").exists());
    }
}

#[test]
fn what_was_trained_is_what_is_saved() {
    for model in MODELS {
        let trainable = trainable(&path(model));
        for (number, var) in trainable.variables().values().enumerate() {
            var.set(&(var.as_tensor() * (1.0 + (number % 7) as f64 / 32.0)).unwrap().detach()).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        trainable.save(folder.path(), WeightType::F32, |_| None).unwrap();
        let after = self::trainable(folder.path());
        for name in trainable.names() {
            assert_eq!(trainable.values(name).unwrap().1, after.values(name).unwrap().1, "{model}: {name}");
        }
        // The tower computes with the new values, and so do the files' packed towers.
        let pictures = pictures(&trainable, 2);
        let own: Vec<f32> = trainable.embed_pixels(&pictures, None).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let theirs = loaded(folder.path()).encode_pixels(&pictures, &CancelToken::new()).unwrap().concat();
        let largest = own.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        let gap = own.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(gap < 1e-4 * largest, "{model}: {gap} of {largest}");
        // Other values than the present ones can be written.
        let ones = |name: &str| (name == "vision.norm_post.weight").then(|| vec![1.0; trainable.config().vision.width]);
        trainable.save(folder.path(), WeightType::F32, ones).unwrap();
        let saved = self::trainable(folder.path()).values("vision.norm_post.weight").unwrap().1;
        assert!(saved.iter().all(|x| *x == 1.0), "{model}");
    }
}

#[test]
fn half_precision_is_written_and_announced() {
    let mini = path("models/mini");
    let trainable = trainable(&mini);
    let folder = tempfile::tempdir().unwrap();
    let type_of = |folder: &Path| {
        let config: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
        config["torch_dtype"].as_str().unwrap().to_string()
    };
    trainable.save(folder.path(), WeightType::F16, |_| None).unwrap();
    assert_eq!(type_of(folder.path()), "float16");
    // The source is in half precision too, so nothing was lost.
    assert_eq!(loaded(folder.path()).weights_id().unwrap(), loaded(&mini).weights_id().unwrap());
    let size = std::fs::metadata(folder.path().join("model.safetensors")).unwrap().len();
    assert!(size < 11_600_000, "{size}");
    trainable.save(folder.path(), WeightType::F32, |_| None).unwrap();
    assert_eq!(type_of(folder.path()), "float32", "transformers loads weights in the type that is announced");
    let huge = |name: &str| (name == "text.norm_final.bias").then(|| vec![1e6; trainable.config().text.width]);
    let message = trainable.save(folder.path(), WeightType::F16, huge).unwrap_err().to_string();
    assert!(message.contains("final_layer_norm.bias") && message.contains("1000000"), "{message}");
    // The failure left the weights that were there.
    assert_eq!(loaded(folder.path()).weights_id().unwrap(), loaded(&mini).weights_id().unwrap());
}

#[test]
fn an_untrained_model_is_drawn_from_its_seed_and_can_be_saved() {
    for (model, width) in [("models/mini", 192.0f64), ("tests/golden/open-clip/vit", 0.0)] {
        let folder = tempfile::tempdir().unwrap();
        let architecture = folder.path().join("architecture");
        std::fs::create_dir(&architecture).unwrap();
        for entry in std::fs::read_dir(path(model)).unwrap() {
            let entry = entry.unwrap();
            if !entry.file_name().to_string_lossy().ends_with(".safetensors") {
                std::fs::copy(entry.path(), architecture.join(entry.file_name())).unwrap();
            }
        }
        let begin = |seed| {
            TrainableClip::begin(&architecture, seed, &LoadOptions::default(), &Device::Cpu, Variables::new(|_| true))
                .unwrap()
        };
        let (one, same, other) = (begin(7), begin(7), begin(8));
        let name = "text.blocks.0.mlp.fc1.weight";
        assert_eq!(one.values(name).unwrap(), same.values(name).unwrap());
        assert_ne!(one.values(name).unwrap(), other.values(name).unwrap());
        let values = one.values(name).unwrap().1;
        if width > 0.0 {
            let variance = values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / values.len() as f64;
            assert!((variance * 2.0 * width - 1.0).abs() < 0.02, "{variance}");
        }
        assert_eq!(one.values("logit_scale").unwrap().1, [2.6592]);
        assert!(one.values("vision.norm_post.weight").unwrap().1.iter().all(|x| *x == 1.0));
        let out = folder.path().join("out");
        one.save(&out, WeightType::F32, |_| None).unwrap();
        let back = trainable(&out);
        for name in one.names() {
            assert_eq!(one.values(name).unwrap().1, back.values(name).unwrap().1, "{model}: {name}");
        }
    }
    let layer_scale = path("tests/golden/open-clip/vit-custom");
    let begun = TrainableClip::begin(&layer_scale, 1, &LoadOptions::default(), &Device::Cpu, Variables::new(|_| true));
    let message = begun.map(drop).unwrap_err().to_string();
    assert!(message.contains("layer scale"), "{message}");
}

#[test]
fn patches_can_be_left_out() {
    for model in MODELS {
        let trainable = trainable(&path(model));
        let pictures = pictures(&trainable, 2);
        let all = trainable.patches() as u32;
        let whole = trainable.embed_pixels(&pictures, None).unwrap();
        // Without positions of their own patches would be a set: here each brings its position along.
        let backwards: Vec<u32> = (0..all).rev().collect();
        let reordered = trainable.embed_pixels(&pictures, Some(&[backwards.clone(), backwards])).unwrap();
        assert!(gap(&whole, &reordered) < 2e-4, "{model}: {}", gap(&whole, &reordered));
        let kept = [vec![0, 1], vec![all - 1, 1]];
        let seen = trainable.embed_pixels(&pictures, Some(&kept)).unwrap();
        assert!(gap(&whole, &seen) > 1e-3, "{model}");
        // Patch number 2 isn't seen, number 1 is.
        let patch = trainable.config().vision.patch_size;
        let columns = trainable.config().vision.grid().1 as u32;
        let change = |number: u32| {
            let mut changed = pictures.clone();
            for picture in &mut changed {
                let (x, y) = ((number % columns) as usize * patch, (number / columns) as usize * patch);
                picture.data[y * picture.width as usize + x] += 1.0;
            }
            gap(&seen, &trainable.embed_pixels(&changed, Some(&kept)).unwrap())
        };
        assert_eq!(change(2), 0.0, "{model}");
        assert!(change(1) > 0.0, "{model}");
    }
    let trainable = trainable(&path("models/mini"));
    let pictures = pictures(&trainable, 2);
    for wrong in [vec![vec![0]], vec![vec![0], vec![0, 1]], vec![vec![], vec![]], vec![vec![64], vec![0]]] {
        let message = trainable.embed_pixels(&pictures, Some(&wrong)).unwrap_err().to_string();
        assert!(message.contains("below 64"), "{message}");
    }
}

#[test]
fn texts_of_all_lengths_go_together() {
    for model in MODELS {
        let trainable = trainable(&path(model));
        let texts = texts(&trainable);
        let together = trainable.embed_tokens(&texts).unwrap();
        for (row, text) in texts.iter().enumerate() {
            let alone = trainable.embed_tokens(std::slice::from_ref(text)).unwrap();
            assert!(gap(&together.narrow(0, row, 1).unwrap(), &alone) < 1e-5, "{model}: {row}");
        }
        let expected = loaded(&path(model)).encode_tokens(&texts, &CancelToken::new()).unwrap().concat();
        let found: Vec<f32> = together.flatten_all().unwrap().to_vec1().unwrap();
        let gap = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(gap < 2e-4, "{model}: {gap}");
        assert!(trainable.embed_tokens(&[vec![]]).is_err());
        assert!(trainable.embed_tokens(&[vec![10_000_000]]).unwrap_err().to_string().contains("10000000"));
    }
}

#[test]
fn adapters_begin_without_effect_and_are_merged_when_saved() {
    for model in MODELS {
        let rule = AdapterRule {
            rank: 2,
            scale: 0.5,
            seed: 1,
            targets: Box::new(|name| name.contains("attention.q") || name.ends_with(".v") || name.ends_with("fc2")),
        };
        let variables = Variables::new(|_| false).with_adapters(rule);
        let source = path(model);
        let adapted =
            TrainableClip::load(source.to_str().unwrap(), &LoadOptions::default(), &Device::Cpu, variables).unwrap();
        let blocks = adapted.config().vision.layers + adapted.config().text.layers;
        assert_eq!(adapted.variables().len(), blocks * 3 * 2, "{model}");
        let (pictures, texts) = (pictures(&adapted, 2), texts(&adapted));
        let embed =
            |model: &TrainableClip| [model.embed_pixels(&pictures, None).unwrap(), model.embed_tokens(&texts).unwrap()];
        let plain = embed(&trainable(&source));
        let first = embed(&adapted);
        assert!(plain.iter().zip(&first).all(|(a, b)| gap(a, b) < 1e-6), "{model}");
        for (name, var) in adapted.variables() {
            if name.ends_with(".b") {
                let ramp = candle_core::Tensor::arange(0f32, var.elem_count() as f32, &Device::Cpu).unwrap();
                let values = (ramp.sin().unwrap() * 0.2).unwrap().reshape(var.shape()).unwrap();
                var.set(&values).unwrap();
            }
        }
        let trained = embed(&adapted);
        assert!(plain.iter().zip(&trained).all(|(a, b)| gap(a, b) > 1e-3), "{model}");
        let folder = tempfile::tempdir().unwrap();
        adapted.save(folder.path(), WeightType::F32, |_| None).unwrap();
        let merged = embed(&trainable(folder.path()));
        for (a, b) in trained.iter().zip(&merged) {
            assert!(gap(a, b) < 2e-4, "{model}: {}", gap(a, b));
        }
        // With the first values of the adapters it is the model as it was.
        let zeros = |name: &str| name.ends_with(".b").then(|| vec![0.0; adapted.variables()[name].elem_count()]);
        let zeros = |name: &str| name.contains(".adapter").then(|| zeros(name)).flatten();
        adapted.save(folder.path(), WeightType::F32, zeros).unwrap();
        assert_eq!(loaded(folder.path()).weights_id().unwrap(), loaded(&source).weights_id().unwrap(), "{model}");
    }
}
