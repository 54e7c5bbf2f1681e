//! Loading checkpoints in all their forms, and refusing damaged or unknown ones with messages that name the culprit.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crossmodal_models::weights::{Checkpoint, WeightBytes, WeightFile};
use crossmodal_models::{CancelToken, Embedder, ErrorKind, Input, LoadOptions, Modality, load, load_clip};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

/// A copy of a golden model's own files, to be tampered with.
fn copy(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden(name)).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap().to_string();
        if !file.starts_with("golden") {
            std::fs::write(dir.path().join(file), std::fs::read(&path).unwrap()).unwrap();
        }
    }
    dir
}

fn options(dir: &Path) -> LoadOptions {
    LoadOptions { cache_dir: Some(dir.join("cache")), ..LoadOptions::default() }
}

fn open(dir: &Path) -> crossmodal_models::Result<crossmodal_models::ClipModel> {
    load_clip(dir.to_str().unwrap(), &options(dir))
}

/// A golden model itself, with its cache elsewhere.
fn golden_model(name: &str) -> crossmodal_models::Result<crossmodal_models::ClipModel> {
    let cache = tempfile::tempdir().unwrap();
    let model = load_clip(golden(name).to_str().unwrap(), &options(cache.path()))?;
    model.space()?;
    Ok(model)
}

fn embed(model: &dyn Embedder) -> Vec<Vec<f32>> {
    let picture = std::fs::read(golden("hf-clip/images/img0.png")).unwrap();
    let inputs = [Input::text("a photo of a cat"), Input::image(picture), Input::text("")];
    model.embed(&inputs).unwrap().into_iter().map(|embedding| embedding.native).collect()
}

fn gap(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

fn read(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats =
        |view: &TensorView<'_>| view.data().as_chunks::<4>().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect();
    file.iter()
        .filter(|(_, view)| view.dtype() == Dtype::F32)
        .map(|(name, view)| (name.to_string(), view.shape().to_vec(), floats(&view)))
        .collect()
}

fn write(path: &Path, tensors: &Tensors, dtype: Dtype, metadata: Option<HashMap<String, String>>) {
    let encode = |values: &Vec<f32>| -> Vec<u8> {
        match dtype {
            Dtype::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Dtype::F16 => values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
            Dtype::BF16 => values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
            other => panic!("{other:?}"),
        }
    };
    let encoded: Vec<_> = tensors.iter().map(|(name, shape, values)| (name, shape.clone(), encode(values))).collect();
    let views = encoded
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, metadata, path).unwrap();
}

#[test]
fn half_precision_files_load_close_to_the_original() {
    let original = embed(&golden_model("hf-clip/modern-gelu").unwrap());
    for (dtype, bound) in [(Dtype::F16, 0.02), (Dtype::BF16, 0.2)] {
        let dir = copy("hf-clip/modern-gelu");
        let path = dir.path().join("model.safetensors");
        write(&path, &read(&path), dtype, None);
        let found = embed(&open(dir.path()).unwrap());
        let gap = gap(&found, &original);
        assert!(gap > 0.0 && gap < bound, "{dtype:?}: {gap}");
    }
}

#[test]
fn shards_load_as_one_checkpoint() {
    let dir = copy("hf-clip/modern-gelu");
    let path = dir.path().join("model.safetensors");
    let tensors = read(&path);
    std::fs::remove_file(&path).unwrap();
    let (first, second) = tensors.split_at(tensors.len() / 2);
    let mut map = serde_json::Map::new();
    for (name, part) in [("model-00001-of-00002.safetensors", first), ("model-00002-of-00002.safetensors", second)] {
        write(&dir.path().join(name), &part.to_vec(), Dtype::F32, None);
        map.extend(part.iter().map(|(tensor, _, _)| (tensor.clone(), name.into())));
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": map});
    std::fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    let original = embed(&golden_model("hf-clip/modern-gelu").unwrap());
    assert_eq!(embed(&open(dir.path()).unwrap()), original);
    std::fs::remove_file(dir.path().join("model-00002-of-00002.safetensors")).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("model-00002-of-00002.safetensors"), "{error}");
}

/// Every tensor of the archive is the original, rounded to the archive's type.
fn same_tensors(archive: &str, prefix: &str, original: &str, round: fn(f32) -> f32) {
    let path = golden("pickle").join(archive);
    let file = WeightFile { name: archive.into(), bytes: WeightBytes::File(path) };
    let checkpoint = Checkpoint::open(&[file]).unwrap();
    for (name, shape, values) in read(&golden(original)) {
        let (found_shape, found) = checkpoint.load(&format!("{prefix}{name}")).unwrap();
        assert_eq!(found_shape, shape, "{name}");
        assert_eq!(found, values.into_iter().map(round).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn pytorch_archives_hold_the_same_tensors() {
    let half = |value| f16::from_f32(value).to_f32();
    same_tensors("pytorch_model.bin", "", "hf-clip/modern-gelu/model.safetensors", half);
    let brain = |value| bf16::from_f32(value).to_f32();
    same_tensors("epoch_3.pt", "module.", "open-clip/vit-avgpool/open_clip_model.safetensors", brain);
}

#[test]
fn models_load_from_pytorch_archives() {
    let dir = copy("hf-clip/modern-gelu");
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    std::fs::copy(golden("pickle/pytorch_model.bin"), dir.path().join("pytorch_model.bin")).unwrap();
    let original = embed(&golden_model("hf-clip/modern-gelu").unwrap());
    assert!(gap(&embed(&open(dir.path()).unwrap()), &original) < 0.02);
    let dir = copy("open-clip/vit-avgpool");
    std::fs::remove_file(dir.path().join("open_clip_model.safetensors")).unwrap();
    std::fs::copy(golden("pickle/epoch_3.pt"), dir.path().join("open_clip_pytorch_model.bin")).unwrap();
    let original = embed(&golden_model("open-clip/vit-avgpool").unwrap());
    assert!(gap(&embed(&open(dir.path()).unwrap()), &original) < 0.2);
}

#[test]
fn code_and_old_archives_are_refused_with_advice() {
    let error = golden_model("pickle/ViT-B-32.pt").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let message = error.to_string();
    assert!(
        message.contains("TorchScript") && message.contains("ViT-B-32/openai")
            || message.contains("vit_base_patch32_clip_224.openai"),
        "{message}"
    );
    let dir = copy("hf-clip/modern-gelu");
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    std::fs::copy(golden("pickle/old_format.bin"), dir.path().join("pytorch_model.bin")).unwrap();
    let message = open(dir.path()).unwrap_err().to_string();
    assert!(message.contains("pytorch_model.bin") && message.contains("save it again"), "{message}");
}

/// The OpenCLIP copy of the golden Hugging Face model: the same numbers under the other names.
fn as_open_clip(original: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let tensors: HashMap<String, (Vec<usize>, Vec<f32>)> = read(&original.join("model.safetensors"))
        .into_iter()
        .map(|(name, shape, values)| (name, (shape, values)))
        .collect();
    let mut renamed = Tensors::new();
    for (name, (shape, values)) in &tensors {
        let name = name
            .replace("vision_model.encoder.layers.", "visual.transformer.resblocks.")
            .replace("text_model.encoder.layers.", "transformer.resblocks.")
            .replace("layer_norm1", "ln_1")
            .replace("layer_norm2", "ln_2")
            .replace("self_attn.out_proj", "attn.out_proj")
            .replace("mlp.fc1", "mlp.c_fc")
            .replace("mlp.fc2", "mlp.c_proj")
            .replace("vision_model.embeddings.class_embedding", "visual.class_embedding")
            .replace("vision_model.embeddings.patch_embedding", "visual.conv1")
            .replace("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding")
            .replace("vision_model.pre_layrnorm", "visual.ln_pre")
            .replace("vision_model.post_layernorm", "visual.ln_post")
            .replace("text_model.embeddings.token_embedding", "token_embedding")
            .replace("text_model.embeddings.position_embedding.weight", "positional_embedding")
            .replace("text_model.final_layer_norm", "ln_final");
        if let Some(end) = name.find("self_attn.q_proj.") {
            let kind = &name[end + "self_attn.q_proj.".len()..];
            let source = |part: &str| {
                let full = format!("{}{part}_proj.{kind}", "").to_string();
                let original =
                    tensors.keys().find(|other| other.ends_with(&full) && rename_prefix(other) == name[..end]);
                tensors[original.unwrap()].1.clone()
            };
            let all = [source("self_attn.q"), source("self_attn.k"), source("self_attn.v")].concat();
            let mut shape = shape.clone();
            shape[0] *= 3;
            renamed.push((format!("{}attn.in_proj_{kind}", &name[..end]), shape, all));
        } else if name == "visual_projection.weight" || name == "text_projection.weight" {
            let (rows, columns) = (shape[0], shape[1]);
            let transposed = (0..rows * columns).map(|flat| values[flat % rows * columns + flat / rows]).collect();
            let name = if name.starts_with("visual") { "visual.proj" } else { "text_projection" };
            renamed.push((name.into(), vec![columns, rows], transposed));
        } else if !name.contains("k_proj") && !name.contains("v_proj") {
            renamed.push((name, shape.clone(), values.clone()));
        }
    }
    write(&dir.path().join("open_clip_model.safetensors"), &renamed, Dtype::F32, None);
    let config = serde_json::json!({
        "model_cfg": {
            "embed_dim": 36, "quick_gelu": true,
            "vision_cfg": {"image_size": 32, "layers": 3, "width": 48, "head_width": 12, "patch_size": 8, "mlp_ratio": 112.5 / 48.0},
            "text_cfg": {"context_length": 77, "vocab_size": 1414, "width": 40, "heads": 5, "layers": 2, "mlp_ratio": 2.4},
        },
        "preprocess_cfg": {},
    });
    std::fs::write(dir.path().join("open_clip_config.json"), config.to_string()).unwrap();
    for file in ["vocab.json", "merges.txt"] {
        std::fs::copy(original.join(file), dir.path().join(file)).unwrap();
    }
    dir
}

fn rename_prefix(name: &str) -> String {
    let name = name
        .replace("vision_model.encoder.layers.", "visual.transformer.resblocks.")
        .replace("text_model.encoder.layers.", "transformer.resblocks.");
    name.split("self_attn").next().unwrap().to_string()
}

#[test]
fn copies_in_both_layouts_share_a_space() {
    let copy = as_open_clip(&golden("hf-clip/legacy-quick-gelu"));
    let (a, b) = (golden_model("hf-clip/legacy-quick-gelu").unwrap(), open(copy.path()).unwrap());
    assert_eq!(embed(&a)[0], embed(&b)[0], "the copy computes the same text embedding");
    assert_eq!(a.space().unwrap(), b.space().unwrap());
    let picture = Input::image(Vec::new());
    assert_ne!(a.fingerprint(&picture), b.fingerprint(&picture), "their picture rules differ, so cache keys must");
    assert_ne!(a.space().unwrap(), golden_model("hf-clip/modern-gelu").unwrap().space().unwrap());
}

#[test]
fn a_derived_copy_carries_its_origins_weights() {
    let dir = copy("hf-clip/modern-gelu");
    let model = open(dir.path()).unwrap();
    let (space, weights) = (model.space().unwrap(), model.weights_id().unwrap());
    let path = dir.path().join("model.safetensors");
    let tensors = read(&path);
    let derived = |origin: &str| {
        let metadata = HashMap::from([(crossmodal_models::ORIGIN_KEY.to_string(), origin.to_string())]);
        write(&path, &tensors, Dtype::BF16, Some(metadata));
        open(dir.path()).and_then(|model| model.space())
    };
    assert_eq!(derived(&weights.to_string()).unwrap(), space);
    assert!(derived("nonsense").unwrap_err().to_string().contains("model.safetensors"));
    // With other preprocessing it is another space all the same.
    let config = dir.path().join("preprocessor_config.json");
    let text = std::fs::read_to_string(&config).unwrap().replace("\"resample\": 3", "\"resample\": 2");
    std::fs::write(&config, text).unwrap();
    assert_ne!(derived(&weights.to_string()).unwrap(), space);
}

#[test]
fn the_space_is_remembered_until_the_weights_change() {
    let dir = copy("hf-clip/modern-gelu");
    let id = open(dir.path()).unwrap().space().unwrap();
    let cached: Vec<_> = std::fs::read_dir(dir.path().join("cache/spaces")).unwrap().collect();
    assert_eq!(cached.len(), 1);
    assert_eq!(open(dir.path()).unwrap().space().unwrap(), id);
    let path = dir.path().join("model.safetensors");
    let mut tensors = read(&path);
    tensors.iter_mut().find(|(name, _, _)| name == "visual_projection.weight").unwrap().2[0] += 1.0;
    write(&path, &tensors, Dtype::F32, None);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000)).unwrap();
    assert_ne!(open(dir.path()).unwrap().space().unwrap(), id);
}

/// Loads a copy whose weights were changed and returns the message.
fn tampered(change: impl FnOnce(&mut Tensors)) -> (ErrorKind, String) {
    let dir = copy("hf-clip/modern-gelu");
    let path = dir.path().join("model.safetensors");
    let mut tensors = read(&path);
    change(&mut tensors);
    write(&path, &tensors, Dtype::F32, None);
    let error = open(dir.path()).and_then(|model| model.embed(&[Input::text("x")])).unwrap_err();
    (error.kind(), error.to_string())
}

#[test]
fn wrong_weights_are_named() {
    let name = "text_model.encoder.layers.1.mlp.fc1.weight";
    let find = |tensors: &Tensors| tensors.iter().position(|(other, _, _)| other == name).unwrap();
    let (kind, message) = tampered(|tensors| drop(tensors.remove(find(tensors))));
    assert!(kind == ErrorKind::Weights && message.contains(name) && message.contains("is missing"), "{message}");
    let (kind, message) = tampered(|tensors| {
        let at = find(tensors);
        tensors[at].1.reverse();
    });
    let shapes = message.contains("has shape [30, 100], expected [100, 30]");
    assert!(kind == ErrorKind::Weights && message.contains(name) && shapes, "{message}");
    let (kind, message) = tampered(|tensors| {
        let at = find(tensors);
        tensors[at].2[7] = f32::NAN;
    });
    assert!(kind == ErrorKind::Weights && message.contains(name) && message.contains("NaN at element 7"), "{message}");
    let (kind, message) = tampered(|tensors| tensors.push(("surprise.weight".into(), vec![1], vec![1.0])));
    assert!(kind == ErrorKind::Weights && message.contains("surprise.weight"), "{message}");
}

#[test]
fn damaged_weight_files_are_reported_at_every_length() {
    let dir = copy("hf-clip/modern-gelu");
    let path = dir.path().join("model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 1, 7, 8, 9, 100, 5000, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("model.safetensors"), "{length}: {error}");
    }
    std::fs::remove_file(&path).unwrap();
    let whole = std::fs::read(golden("pickle/pytorch_model.bin")).unwrap();
    let path = dir.path().join("pytorch_model.bin");
    for length in [0, 3, 4, 100, 5000, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("pytorch_model.bin"), "{length}: {error}");
    }
    // Flipped bytes may or may not be noticed, but nothing panics or runs away.
    for step in 0..300 {
        let mut bytes = whole.clone();
        let at = (step * 7919 + 13) % 9000;
        bytes[at] ^= 1 << (step % 8);
        std::fs::write(&path, &bytes).unwrap();
        let _ = open(dir.path());
    }
}

/// Every leaf of a JSON document with its path.
fn leaves(value: &serde_json::Value, path: &str, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| leaves(value, &format!("{path}/{name}"), found))
        }
        _ => found.push(path.to_string()),
    }
}

/// Another value of the same type.
fn changed(value: &serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Bool(flag) => (!flag).into(),
        serde_json::Value::Number(number) if number.is_f64() => (number.as_f64().unwrap() * 1.5 + 0.25).into(),
        serde_json::Value::Number(number) => (number.as_i64().unwrap() + 1).into(),
        serde_json::Value::String(text) if text == "bilinear" => "bicubic".into(),
        serde_json::Value::String(_) => "something else".into(),
        serde_json::Value::Array(items) => items.iter().map(changed).collect::<Vec<_>>().into(),
        other => panic!("{other}"),
    }
}

/// Changes each field of a configuration in turn: the output must change, or loading must fail, unless it is inert.
fn every_field_counts(fixture: &str, file: &str, inert: &[&str]) {
    let dir = copy(fixture);
    let path = dir.path().join(file);
    let original: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let odd = std::fs::read(golden("preprocess/images/04_odd.png")).unwrap();
    let run = || -> crossmodal_models::Result<Vec<Vec<f32>>> {
        let model = open(dir.path())?;
        let inputs = [Input::text("A photo of a cat &amp; \u{201c}dog\u{201d}"), Input::image(odd.clone())];
        let mut found: Vec<Vec<f32>> = model.embed(&inputs)?.into_iter().map(|embedding| embedding.native).collect();
        found.push(vec![model.logit_rule()?.unwrap().bias]);
        Ok(found)
    };
    let reference = run().unwrap();
    let mut paths = Vec::new();
    leaves(&original, "", &mut paths);
    for pointer in paths {
        let mut document = original.clone();
        let place = document.pointer_mut(&pointer).unwrap();
        if place.is_null() {
            continue;
        }
        *place = changed(place);
        std::fs::write(&path, document.to_string()).unwrap();
        let unchanged = run().is_ok_and(|found| found == reference);
        let name = pointer.rsplit('/').next().unwrap();
        // A tower's own model_type and projection_dim have no effect in the reference either.
        let of_tower = file == "config.json" && pointer.matches('/').count() == 2;
        let expected = inert.contains(&name) || of_tower && ["model_type", "projection_dim"].contains(&name);
        assert_eq!(unchanged, expected, "{fixture}/{file}: field {pointer}");
    }
    let mut document = original.clone();
    document["no_such_field"] = 1.into();
    std::fs::write(&path, document.to_string()).unwrap();
    let message = open(dir.path()).unwrap_err().to_string();
    assert!(message.contains("no_such_field") && message.contains(file), "{message}");
}

#[test]
fn no_field_of_a_configuration_is_ignored() {
    let inert = [
        "architectures",
        "attention_dropout",
        "dtype",
        "torch_dtype",
        "initializer_factor",
        "initializer_range",
        "logit_scale_init_value",
        "bos_token_id",
        "pad_token_id",
        "transformers_version",
    ];
    every_field_counts("hf-clip/modern-gelu", "config.json", &inert);
    every_field_counts("hf-clip/modern-gelu", "preprocessor_config.json", &["image_processor_type"]);
    every_field_counts("open-clip/vit", "open_clip_config.json", &[]);
    // Initial values are overwritten by the weights; names decide where the text tower is.
    every_field_counts("open-clip/vit-custom", "open_clip_config.json", &["custom_text", "ls_init_value"]);
    every_field_counts("open-clip/vit-avgpool", "open_clip_config.json", &["custom_text", "init_logit_bias"]);
}

/// Files of 2021 and 2022 carry every setting of generation and bookkeeping in both towers, and each tower twice.
#[test]
fn settings_of_old_files_that_change_nothing_are_accepted() {
    let dir = copy("hf-clip/legacy-quick-gelu");
    let expected = embed(&open(dir.path()).unwrap());
    let path = dir.path().join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let settings: serde_json::Value = serde_json::from_str(
        r#"{
        "_name_or_path": "", "add_cross_attention": false, "architectures": null, "bad_words_ids": null,
        "chunk_size_feed_forward": 0, "cross_attention_hidden_size": null, "decoder_start_token_id": null,
        "diversity_penalty": 0.0, "do_sample": false, "dropout": 0.0, "early_stopping": false,
        "encoder_no_repeat_ngram_size": 0, "exponential_decay_length_penalty": null, "finetuning_task": null,
        "forced_bos_token_id": null, "forced_eos_token_id": null, "id2label": {"0": "LABEL_0"}, "is_decoder": false,
        "is_encoder_decoder": false, "label2id": {"LABEL_0": 0}, "length_penalty": 1.0, "max_length": 20,
        "min_length": 0, "no_repeat_ngram_size": 0, "num_beam_groups": 1, "num_beams": 1, "num_return_sequences": 1,
        "output_attentions": false, "output_hidden_states": false, "output_scores": false, "prefix": null,
        "problem_type": null, "pruned_heads": {}, "remove_invalid_values": false, "repetition_penalty": 1.0,
        "return_dict": true, "return_dict_in_generate": false, "sep_token_id": null, "task_specific_params": null,
        "temperature": 1.0, "tf_legacy_loss": false, "tie_encoder_decoder": false, "tie_word_embeddings": true,
        "tokenizer_class": null, "top_k": 50, "top_p": 1.0, "torch_dtype": null, "torchscript": false,
        "transformers_version": "4.16.0.dev0", "typical_p": 1.0, "use_bfloat16": false
    }"#,
    )
    .unwrap();
    for tower in ["text_config", "vision_config"] {
        let fields = config[tower].as_object_mut().unwrap();
        for (name, value) in settings.as_object().unwrap() {
            fields.entry(name).or_insert(value.clone());
        }
        config[format!("{tower}_dict")] = config[tower].clone();
        // Where both are there, the second counts.
        config[tower]["num_hidden_layers"] = 99.into();
    }
    std::fs::write(&path, config.to_string()).unwrap();
    assert_eq!(embed(&open(dir.path()).unwrap()), expected);
    config["text_config_dict"]["pruned_heads"] = serde_json::json!({"0": [1]});
    std::fs::write(&path, config.to_string()).unwrap();
    assert!(open(dir.path()).unwrap_err().to_string().contains("pruned_heads"));
}

#[test]
fn inputs_that_make_no_sense_are_refused_with_reasons() {
    let model = load("mini", &LoadOptions::default()).unwrap();
    let picture = std::fs::read(golden("hf-clip/images/img0.png")).unwrap();
    let mut with_instruction = Input::text("x");
    with_instruction.instruction = Some("find".into());
    let mut with_dimensions = Input::text("x");
    with_dimensions.dimensions = Some(64);
    let cases = [
        (with_instruction, "takes no instructions"),
        (with_dimensions, "can't be cut to 64"),
        (Input::new(crossmodal_models::Content::Bytes(picture.into()), Modality::Audio), "has no tower for audio"),
        (Input::image(Vec::new()), "empty"),
        (Input::image(b"hello world, no picture".to_vec()), "not a picture"),
    ];
    for (input, expected) in cases {
        let error = model.prepare(&input).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
        assert!(error.to_string().contains(expected), "{error}");
    }
    let cancel = CancelToken::new();
    cancel.cancel();
    let batch = vec![model.prepare(&Input::text("x")).unwrap()];
    assert_eq!(model.encode(batch, &cancel).unwrap_err().kind(), ErrorKind::Cancelled);
    let long = model.embed(&[Input::text("word ".repeat(500)), Input::text("word")]).unwrap();
    assert_eq!([long[0].truncated, long[1].truncated], [true, false]);
}

#[test]
fn batches_of_mixed_inputs_come_back_in_order() {
    let model = load("mini", &LoadOptions::default()).unwrap();
    let picture = std::fs::read(golden("hf-clip/images/img0.png")).unwrap();
    let mut inputs = Vec::new();
    for count in 0..45 {
        inputs.push(Input::text(format!("{} dog {count}", "very ".repeat(count % 7))));
        if count % 9 == 0 {
            inputs.push(Input::image(picture.clone()));
        }
    }
    let together = model.embed(&inputs).unwrap();
    for (input, embedding) in inputs.iter().zip(&together) {
        let alone = model.embed(std::slice::from_ref(input)).unwrap().remove(0);
        assert!(gap(&[alone.unit], std::slice::from_ref(&embedding.unit)) < 2e-6, "{input:?}");
    }
}

#[test]
fn models_that_do_not_exist_or_fit_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    let message = open(&dir.path().join("nothing")).unwrap_err().to_string();
    assert!(message.contains("nothing"), "{message}");
    let message = open(dir.path()).unwrap_err().to_string();
    assert!(message.contains("not a model this version loads"), "{message}");
    std::fs::write(dir.path().join("config.json"), "{\"model_type\": \"bert\"}").unwrap();
    std::fs::write(dir.path().join("model.safetensors"), "x").unwrap();
    let message = open(dir.path()).unwrap_err().to_string();
    assert!(message.contains("\"bert\""), "{message}");
    std::fs::write(dir.path().join("config.json"), "{\"model_type\": ").unwrap();
    let message = open(dir.path()).unwrap_err().to_string();
    assert!(message.contains("config.json: not a JSON document"), "{message}");
}
