//! Quantised copies of models: what they hold, how close they come, and what is never overwritten.

use std::path::{Path, PathBuf};

use crossmodal_models::quantize::{QuantizeOptions, QuantizeReport, SCHEME, SCHEME_KEY, quantize};
use crossmodal_models::weights::{Checkpoint, WeightBytes, WeightFile};
use crossmodal_models::{
    CancelToken, ClipModel, Embedder, ErrorKind, Input, LoadOptions, ORIGIN_KEY, Precision, load_clip,
};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

const FIXTURES: [&str; 5] = [
    "hf-clip/legacy-quick-gelu",
    "hf-clip/modern-gelu",
    "open-clip/vit",
    "open-clip/vit-custom",
    "open-clip/vit-avgpool",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn golden(name: &str) -> PathBuf {
    root().join("tests/golden").join(name)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn model(name: &str, precision: Option<Precision>) -> ClipModel {
    let cache = tempfile::tempdir().unwrap();
    let options = LoadOptions { precision, cache_dir: Some(cache.path().into()), ..LoadOptions::default() };
    let model = load_clip(name, &options).unwrap();
    model.space().unwrap();
    model
}

fn copy(name: &str, out: &Path) -> crossmodal_models::Result<QuantizeReport> {
    quantize(name, out, &QuantizeOptions::default(), |_, _| {})
}

fn forced() -> QuantizeOptions {
    QuantizeOptions { force: true, ..QuantizeOptions::default() }
}

/// A copy of a golden model's own files.
fn files_of(name: &str, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(golden(name)).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap();
        if !file.starts_with("golden") {
            std::fs::write(to.join(file), std::fs::read(&path).unwrap()).unwrap();
        }
    }
}

/// Pictures and texts of the golden data.
fn inputs(fixture: &str) -> (Vec<Input>, Vec<Input>) {
    let family = golden(fixture.split('/').next().unwrap());
    let pictures = ["img0.png", "img1.jpg", "img2.png"];
    let pictures = pictures.map(|name| Input::image(std::fs::read(family.join("images").join(name)).unwrap()));
    let document = std::fs::read_to_string(golden(fixture).join("golden.json")).unwrap();
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    let texts = document["texts"].as_array().unwrap().iter().map(|text| Input::text(text.as_str().unwrap()));
    (pictures.into(), texts.collect())
}

/// The gallery's pictures, and its captions in four languages.
fn gallery() -> (Vec<Input>, Vec<Input>) {
    let folder = root().join("samples/gallery");
    let captions = std::fs::read_to_string(folder.join("captions.csv")).unwrap();
    let (mut pictures, mut texts) = (Vec::new(), Vec::new());
    for line in captions.lines().skip(1) {
        // The first five columns hold no commas in quotes but for a few rows, which the test does without.
        let cells: Vec<&str> = line.split(',').collect();
        pictures.push(Input::image(std::fs::read(folder.join(cells[0])).unwrap()));
        if !line.contains('"') {
            texts.extend(cells[1..5].iter().map(|caption| Input::text(*caption)));
        }
    }
    assert!(pictures.len() == 240 && texts.len() > 800, "{} {}", pictures.len(), texts.len());
    (pictures, texts)
}

fn embed(model: &ClipModel, inputs: &[Input]) -> Vec<Vec<f32>> {
    inputs.chunks(16).flat_map(|chunk| model.embed(chunk).unwrap()).map(|embedding| embedding.native).collect()
}

/// Least and mean cosine.
fn cosines(a: &[Vec<f32>], b: &[Vec<f32>]) -> (f64, f64) {
    let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    let cosine = |(a, b): (&Vec<f32>, &Vec<f32>)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    let all: Vec<f64> = a.iter().zip(b).map(cosine).collect();
    (all.iter().copied().fold(1.0, f64::min), all.iter().sum::<f64>() / all.len() as f64)
}

/// Checks a copy against its source: the space, and the vectors in all arithmetics. `floor` is the least cosine to fp32.
fn check(source: &str, out: &Path, (pictures, texts): &(Vec<Input>, Vec<Input>), floor: f64) {
    let (fp32, int8) = (model(source, Some(Precision::Fp32)), model(source, Some(Precision::Int8)));
    let (copy, widened) = (model(text(out), None), model(text(out), Some(Precision::Fp32)));
    assert_eq!(copy.info().precision, Precision::Int8);
    assert_eq!(widened.info().precision, Precision::Fp32);
    assert_eq!(copy.space().unwrap(), fp32.space().unwrap(), "{source}");
    assert_eq!(copy.weights_id().unwrap(), fp32.weights_id().unwrap(), "{source}");
    let keys = [&fp32, &int8, &copy, &widened].map(|model| model.fingerprint(&pictures[0]));
    assert_eq!(keys.iter().collect::<std::collections::HashSet<_>>().len(), 4, "{keys:?}");
    assert_eq!(copy.logit_rule().unwrap(), fp32.logit_rule().unwrap());
    assert_eq!(embed(&copy, pictures), embed(&int8, pictures), "{source}: pictures differ from int8 made on loading");
    for (what, inputs) in [("pictures", pictures), ("texts", texts)] {
        let expected = embed(&fp32, inputs);
        let found = [&int8, &copy, &widened].map(|model| cosines(&embed(model, inputs), &expected));
        for (way, (least, mean)) in ["made on loading", "copy", "copy in fp32"].into_iter().zip(found) {
            println!("{source:60} {what:8} {way:16} least {least:.6} mean {mean:.6}");
            assert!(least >= floor, "{source}: {what}, {way}: least cosine {least}");
        }
    }
}

#[test]
fn mini_is_a_quarter_as_large_and_as_good() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("mini-int8");
    let mut steps = Vec::new();
    let report = quantize("mini", &out, &QuantizeOptions::default(), |done, all| steps.push((done, all))).unwrap();
    let size = out.join("model.safetensors").metadata().unwrap().len();
    assert_eq!((report.model.as_str(), report.folder.as_path(), report.bytes), ("mini", out.as_path(), size));
    assert_eq!(report.fp32_bytes, 4 * 5_734_273);
    assert!(size * 100 < report.fp32_bytes * 28, "{size} of {}", report.fp32_bytes);
    // Six matrices in each of ten blocks, and the token table.
    assert_eq!((report.quantised, steps.last()), (61, Some(&(61 + report.kept, 61 + report.kept))));
    assert_eq!(report.weights_id, model("mini", None).weights_id().unwrap().to_string());
    check("mini", &out, &gallery(), 0.998);
}

#[test]
fn every_layout_keeps_its_files_and_space() {
    for fixture in FIXTURES {
        let dir = tempfile::tempdir().unwrap();
        let (source, out) = (golden(fixture), dir.path().join("copy"));
        let report = copy(text(&source), &out).unwrap();
        assert!(report.bytes * 2 < report.source_bytes, "{fixture}: {report:?}");
        for entry in std::fs::read_dir(&source).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            match name {
                "golden.json" | "golden.safetensors" => assert!(!out.join(name).exists(), "{fixture}: {name}"),
                name if name.ends_with(".safetensors") => compare_tensors(&path, &out.join(name)),
                name => assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(out.join(name)).unwrap(), "{name}"),
            }
        }
        // Random weights are the worst case: nothing in them averages out, and layers are narrow.
        check(text(&source), &out, &inputs(fixture), 0.98);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "{fixture}: something was left beside the copy");
    }
}

/// A copy has the source's tensors: floats with the same values, matrices of blocks in integers with scales.
fn compare_tensors(source: &Path, copy: &Path) {
    let open = |path: &Path| {
        let bytes = WeightBytes::File(path.to_path_buf());
        Checkpoint::open(&[WeightFile { name: "model.safetensors".into(), bytes }]).unwrap()
    };
    let (source, copied) = (open(source), open(copy));
    assert_eq!(copied.metadata("format"), Some("pt"));
    assert_eq!(copied.metadata(SCHEME_KEY), Some(SCHEME));
    assert_eq!(copied.metadata(ORIGIN_KEY).map(str::len), Some(32));
    let bytes = std::fs::read(copy).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut quantised = 0;
    for (name, view) in file.iter() {
        if let Some(matrix) = name.strip_suffix("_scale").filter(|_| source.shape(name).is_none()) {
            assert_eq!((view.dtype(), view.shape()), (Dtype::F32, &source.shape(matrix).unwrap()[..1]), "{name}");
            continue;
        }
        let ((shape, expected), (copied_shape, found)) = (source.load(name).unwrap(), copied.load(name).unwrap());
        assert_eq!(shape, copied_shape, "{name}");
        if view.dtype() == Dtype::F32 {
            assert_eq!(found, expected, "{name}");
            continue;
        }
        assert_eq!(view.dtype(), Dtype::I8, "{name}");
        quantised += 1;
        for (found, expected) in found.chunks(shape[1]).zip(expected.chunks(shape[1])) {
            let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
            let gap = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let levels = if name.contains("token_embedding") { 127.0 } else { 63.0 };
            assert!(gap <= largest / levels * 0.5001, "{name}: {gap} of {largest}");
        }
    }
    assert!(quantised > 10);
    for name in source.names().filter(|name| !name.ends_with("position_ids")) {
        assert!(copied.contains(name), "{name}");
    }
}

#[test]
fn shards_and_archives_become_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let sharded = dir.path().join("sharded");
    files_of("hf-clip/modern-gelu", &sharded);
    std::fs::rename(sharded.join("model.safetensors"), sharded.join("a.safetensors")).unwrap();
    let bytes = std::fs::read(sharded.join("a.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let map: serde_json::Map<_, _> =
        file.names().iter().map(|name| (name.to_string(), "a.safetensors".into())).collect();
    let index = serde_json::json!({ "weight_map": map });
    std::fs::write(sharded.join("model.safetensors.index.json"), index.to_string()).unwrap();
    let out = dir.path().join("from-shards");
    copy(text(&sharded), &out).unwrap();
    assert!(out.join("model.safetensors").exists() && !out.join("model.safetensors.index.json").exists());
    check(text(&sharded), &out, &inputs("hf-clip/modern-gelu"), 0.98);

    let archive = dir.path().join("archive");
    files_of("open-clip/vit-avgpool", &archive);
    std::fs::remove_file(archive.join("open_clip_model.safetensors")).unwrap();
    let file = archive.join("epoch_3.pt");
    std::fs::copy(golden("pickle/epoch_3.pt"), &file).unwrap();
    let out = dir.path().join("from-archive");
    copy(text(&file), &out).unwrap();
    assert!(out.join("open_clip_model.safetensors").exists() && out.join("open_clip_config.json").exists());
    check(text(&file), &out, &inputs("open-clip/vit-avgpool"), 0.98);
}

/// Names and shapes of a small state dict of OpenAI's kind.
fn bare_tensors() -> Vec<(String, Vec<usize>)> {
    let mut tensors: Vec<(String, Vec<usize>)> = Vec::new();
    let mut add = |name: &str, shape: &[usize]| tensors.push((name.to_string(), shape.to_vec()));
    for (tower, layers) in [("visual.transformer", 2), ("transformer", 1)] {
        for layer in 0..layers {
            let matrices: [(&str, [usize; 2]); 4] = [
                ("attn.in_proj_", [192, 64]),
                ("attn.out_proj.", [64, 64]),
                ("mlp.c_fc.", [256, 64]),
                ("mlp.c_proj.", [64, 256]),
            ];
            for (name, [rows, columns]) in matrices {
                add(&format!("{tower}.resblocks.{layer}.{name}weight"), &[rows, columns]);
                add(&format!("{tower}.resblocks.{layer}.{name}bias"), &[rows]);
            }
            for name in ["ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias"] {
                add(&format!("{tower}.resblocks.{layer}.{name}"), &[64]);
            }
        }
    }
    for norm in ["visual.ln_pre", "visual.ln_post", "ln_final"] {
        add(&format!("{norm}.weight"), &[64]);
        add(&format!("{norm}.bias"), &[64]);
    }
    add("visual.conv1.weight", &[64, 3, 16, 16]);
    add("visual.class_embedding", &[64]);
    add("visual.positional_embedding", &[5, 64]);
    add("visual.proj", &[64, 32]);
    add("positional_embedding", &[77, 64]);
    add("token_embedding.weight", &[914, 64]);
    add("text_projection", &[64, 32]);
    add("logit_scale", &[]);
    tensors
}

#[test]
fn a_bare_state_dict_gets_a_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("downloads");
    files_of("open-clip/vit", &folder);
    std::fs::remove_file(folder.join("open_clip_config.json")).unwrap();
    std::fs::write(folder.join("LICENSE"), "of something else").unwrap();
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 8e6 - 1.0
    };
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = bare_tensors()
        .into_iter()
        .map(|(name, shape)| {
            let values = (0..shape.iter().product()).flat_map(|_| (random() * 0.2).to_le_bytes()).collect();
            (name, shape, values)
        })
        .collect();
    let number = 32i64.to_le_bytes();
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    // The attribute by which OpenAI's own files are recognised.
    let attribute = ("input_resolution", TensorView::new(Dtype::I64, vec![], &number).unwrap());
    let bare = folder.join("ViT.safetensors");
    safetensors::serialize_to_file(views.chain([attribute]), None, &bare).unwrap();
    let out = folder.join("copy");
    copy(text(&bare), &out).unwrap();
    let mut names: Vec<_> =
        std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["bpe_small.txt.gz", "merges.txt", "open_clip_config.json", "open_clip_model.safetensors"]);
    check(text(&bare), &out, &inputs("open-clip/vit"), 0.98);
}

#[test]
fn gradients_and_comparison_work_on_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("copy");
    copy("mini", &out).unwrap();
    let options = LoadOptions { trainable: true, ..LoadOptions::default() };
    let trainable = load_clip(text(&out), &options).unwrap();
    assert_eq!(trainable.info().precision, Precision::Fp32);
    let texts = [Input::text("red apple"), Input::text("turtle")];
    let (a, b) = (embed(&trainable, &texts), embed(&model(text(&out), Some(Precision::Fp32)), &texts));
    assert!(cosines(&a, &b).0 > 0.999_999);
}

/// The refusal to write `out`, and that nothing changed below `dir`.
#[track_caller]
fn refused(name: &str, out: &Path, options: &QuantizeOptions, dir: &Path) -> String {
    let before = listing(dir);
    let error = quantize(name, out, options, |_, _| {}).unwrap_err();
    assert_eq!(listing(dir), before, "{error}");
    error.to_string()
}

/// Every file below a folder with its contents' hash.
fn listing(folder: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).ok();
        let below = if path.is_dir() { listing(&path) } else { Vec::new() };
        found.push((path, bytes));
        found.extend(below);
    }
    found.sort();
    found
}

#[test]
fn what_is_there_is_not_harmed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let source = dir.join("model");
    files_of("hf-clip/modern-gelu", &source);
    let name = text(&source);
    let out = dir.join("copy");
    copy(name, &out).unwrap();
    let default = QuantizeOptions::default();
    let cases = [
        (&out, &default, "exists already; --force"),
        (&source, &forced(), "is the model itself"),
        (&source.join("../model"), &default, "is the model itself"),
        (&source.join("copy"), &forced(), "within the model's own folder"),
        (&dir, &forced(), "holds the model"),
        (&dir.join("copy/.."), &default, "no name for a new folder"),
    ];
    for (out, options, expected) in cases {
        let message = refused(name, out, options, &dir);
        assert!(message.contains(expected), "{message}");
    }
    let foreign = dir.join("photos");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("holiday.jpg"), b"x").unwrap();
    assert!(refused(name, &foreign, &forced(), &dir).contains("holiday.jpg"));
    let other = dir.join("other");
    files_of("hf-clip/modern-gelu", &other);
    assert!(refused(name, &other, &forced(), &dir).contains("no quantised model"));
    assert!(refused(name, &other.join("config.json"), &forced(), &dir).contains("isn't a folder"));
    std::fs::write(out.join("notes.txt"), b"mine").unwrap();
    assert!(refused(name, &out, &forced(), &dir).contains("notes.txt"));
    assert!(refused(text(&out), &dir.join("again"), &default, &dir).contains("is quantised already"));
    assert!(refused(text(&dir.join("no-such")), &dir.join("again"), &default, &dir).contains("no-such"));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&other, dir.join("link")).unwrap();
        assert!(refused(name, &dir.join("link"), &forced(), &dir).contains("isn't a folder"));
    }
}

#[test]
fn a_copy_is_replaced_whole_even_where_it_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("below/copy");
    copy(text(&golden("hf-clip/modern-gelu")), &out).unwrap();
    let whole = listing(&out);
    let weights = out.join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() - 1]).unwrap();
    let error = load_clip(text(&out), &LoadOptions::default()).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert!(error.to_string().contains("cut short"), "{error}");
    let again = |name: &Path| quantize(text(name), &out, &forced(), |_, _| {}).unwrap();
    again(&golden("hf-clip/modern-gelu"));
    assert_eq!(listing(&out), whole);
    again(&golden("open-clip/vit"));
    assert!(!weights.exists() && out.join("open_clip_model.safetensors").exists());
    assert_eq!(std::fs::read_dir(out.parent().unwrap()).unwrap().count(), 1);
    std::fs::remove_dir_all(&out).unwrap();
    std::fs::create_dir(&out).unwrap();
    again(&golden("hf-clip/modern-gelu"));
    assert_eq!(listing(&out), whole);
}

#[test]
fn a_failure_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("model");
    files_of("hf-clip/modern-gelu", &source);
    let weights = source.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let out = dir.path().join("copy");
    // The token is raised after the third tensor.
    let cancel = CancelToken::new();
    let load = LoadOptions { cancel: cancel.clone(), ..LoadOptions::default() };
    let stop = |done, _| {
        if done == 3 {
            cancel.cancel()
        }
    };
    let error = quantize(text(&source), &out, &QuantizeOptions { load, ..forced() }, stop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    // What a killed process left is no obstacle and doesn't stay.
    let left = dir.path().join(".copy.crossmodal-part");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("model.safetensors"), "half").unwrap();
    if cfg!(unix) {
        copy(text(&source), &out).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        std::fs::remove_dir_all(&out).unwrap();
        // One that is still being written is.
        std::fs::create_dir(&left).unwrap();
        let held = std::fs::File::open(&left).unwrap();
        held.lock().unwrap();
        let message = copy(text(&source), &out).unwrap_err().to_string();
        assert!(message.contains("another process"), "{message}");
        assert!(left.exists());
    }
    std::fs::remove_dir_all(&left).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&weights, bytes).unwrap();
    let error = copy(text(&source), &out).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Weights);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}
