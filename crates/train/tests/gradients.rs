//! Gradients of whole models: every parameter has one, pieces give those of the whole batch, and what is locked has none.

use std::path::Path;

use candle_core::Device;
use crossmodal_media::{PixelTensor, RgbPixels};
use crossmodal_models::LoadOptions;
use crossmodal_train::grad_cache::{Outcome, View, gradients};
use crossmodal_train::gradients::with_values;
use crossmodal_train::loss::{ConceptSoftmax, Duplicates, InfoNce, Loss, NegClip, SigLip, Teacher, Term, WeightedSum};
use crossmodal_train::model::{LowRank, Model, PatchDropping, Products, Selection, Start, Tower, Trained};
use crossmodal_train::{Batch, Side};

const MODELS: [&str; 6] = [
    "models/mini",
    "tests/golden/hf-clip/legacy-quick-gelu",
    "tests/golden/hf-clip/modern-gelu",
    "tests/golden/open-clip/vit",
    "tests/golden/open-clip/vit-avgpool",
    "tests/golden/open-clip/vit-custom",
];

fn open(model: &str, selection: &Selection) -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(model);
    let start = Start::Checkpoint(path.to_str().unwrap().into());
    Model::open(&start, selection, &LoadOptions::default(), &Device::Cpu).unwrap()
}

fn pictures(model: &Model, count: usize) -> Vec<PixelTensor> {
    let (height, width) = model.clip().config().vision.image_size;
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

/// Pictures of noise with captions of different lengths; the third and the fifth caption are the same.
fn batch(model: &Model) -> Batch {
    let captions =
        ["a red apple", "dog", "the sun over the sea", "two old houses by a river", "the sun over the sea", "car"];
    let negatives =
        ["red a apple", "god", "the sea over the sun", "a river by two old houses", "sea the sun over", "rac"];
    let tokens =
        |texts: [&str; 6]| Side::Tokens(texts.map(|text| model.clip().tokenizer().encode(text).unwrap().ids).to_vec());
    Batch {
        keys: (0..6).map(|number| format!("sample {number}")).collect(),
        left: Side::Pixels(pictures(model, 6)),
        right: tokens(captions),
        negatives: Some(tokens(negatives)),
        left_content: (0..6).collect(),
        right_content: vec![0, 1, 2, 3, 2, 5],
        concepts: Some(vec![0, 1, 2, 3, 2, 4]),
        skipped: Vec::new(),
    }
}

#[test]
fn products_in_half_the_bits_give_nearly_the_same_gradients() {
    let loss = WeightedSum::single(InfoNce);
    for name in ["models/mini", "tests/golden/hf-clip/modern-gelu"] {
        let outcome = |products: Products| {
            let model = open(name, &Selection { products, ..Selection::default() });
            let outcome = gradients(&model, &batch(&model), &loss, &View::default()).unwrap();
            let names: Vec<String> = model.parameters().iter().map(|parameter| parameter.name.clone()).collect();
            (outcome, names)
        };
        let ((whole, names), (half, _)) = (outcome(Products::F32), outcome(Products::Bf16));
        assert!(half.loss != whole.loss && (half.loss - whole.loss).abs() < 0.02 * whole.loss, "{name}");
        let flat = |gradient: &Option<candle_core::Tensor>| {
            let gradient = gradient.as_ref().unwrap();
            assert_eq!(gradient.dtype(), candle_core::DType::F32);
            with_values(gradient, <[f32]>::to_vec).unwrap()
        };
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let (mut along, mut squares) = (0.0, [0.0; 2]);
        for ((name, whole), half) in names.iter().zip(whole.gradients.values()).zip(half.gradients.values()) {
            let (whole, half) = (flat(whole), flat(half));
            assert!(half.iter().all(|x| x.is_finite()) && half.iter().any(|x| *x != 0.0), "{name}");
            along += dot(&whole, &half);
            squares[0] += dot(&whole, &whole);
            squares[1] += dot(&half, &half);
        }
        let cosine = along / (squares[0] * squares[1]).sqrt();
        assert!((0.99..0.999_999_9).contains(&cosine), "{name}: the gradients' cosine is {cosine}");
    }
}

#[test]
fn pictures_become_what_the_model_prepares() {
    let model = open(MODELS[0], &Selection::default());
    let (height, width) = model.clip().config().vision.image_size;
    let (height, width) = (height as u32, width as u32);
    let picture = |number: usize| {
        let bytes = (0..3 * width as usize * height as usize).map(|at| (at * (37 + number) % 251) as u8);
        RgbPixels { width, height, data: bytes.collect() }
    };
    let pictures: Vec<RgbPixels> = (0..3).map(picture).collect();
    let pixels = pictures.iter().map(|picture| model.clip().prep().normalise(picture)).collect();
    let embed = |side: &Side| model.embed(side, 1..3, None).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(embed(&Side::Pictures(pictures)), embed(&Side::Pixels(pixels)));
}

#[test]
fn every_parameter_of_every_layout_gets_a_gradient() {
    for name in MODELS {
        let model = open(name, &Selection::default());
        assert_eq!(model.parameters().len(), model.clip().names().count(), "{name}");
        // The sigmoid loss reaches the bias of models that have one.
        let terms = [Box::new(InfoNce) as Box<dyn Loss>, Box::new(SigLip)];
        let terms = terms.into_iter().take(1 + usize::from(model.temperature().bias.is_some()));
        let loss = WeightedSum::new(terms.map(|loss| Term { weight: 1.0, loss }).collect()).unwrap();
        let outcome = gradients(&model, &batch(&model), &loss, &View::default()).unwrap();
        for (parameter, gradient) in model.parameters().iter().zip(outcome.gradients.values()) {
            let gradient = gradient.as_ref().unwrap_or_else(|| panic!("{name}: {} has no gradient", parameter.name));
            assert_eq!(gradient.dims(), parameter.var.dims(), "{name}: {}", parameter.name);
            let largest = with_values(gradient, |values| {
                assert!(values.iter().all(|x| x.is_finite()), "{name}: {}", parameter.name);
                values.iter().fold(0f32, |largest, x| largest.max(x.abs()))
            });
            assert!(largest.unwrap() > 1e-9, "{name}: the gradient of {} is zero", parameter.name);
        }
    }
}

/// The largest difference of any gradient, as a share of the largest gradient of the same parameter or of a hundredth of the largest of all, and
/// the parameter's name.
fn gap(model: &Model, a: &Outcome, b: &Outcome) -> (f32, String) {
    let values = |gradient: &candle_core::Tensor| with_values(gradient, <[f32]>::to_vec).unwrap();
    let size = |values: &[f32]| values.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    let all = a.gradients.values().iter().flatten().map(|gradient| size(&values(gradient))).fold(0f32, f32::max);
    let mut worst = (0f32, String::new());
    for ((parameter, a), b) in model.parameters().iter().zip(a.gradients.values()).zip(b.gradients.values()) {
        assert_eq!(a.is_some(), b.is_some(), "{}", parameter.name);
        let (Some(a), Some(b)) = (a, b) else { continue };
        let (a, b) = (values(a), values(b));
        let difference: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
        let gap = size(&difference) / size(&a).max(all / 100.0);
        if gap > worst.0 {
            worst = (gap, format!("{}: largest {} and {} of {all}", parameter.name, size(&a), size(&b)));
        }
    }
    worst
}

#[test]
fn pieces_have_the_gradients_of_the_whole_batch() {
    for name in ["models/mini", "tests/golden/open-clip/vit-custom"] {
        let mut model = open(name, &Selection::default());
        model.add_concepts(5, 3).unwrap();
        model.add_bias().unwrap();
        let batch = batch(&model);
        let terms: [(f64, Box<dyn Loss>); 3] =
            [(1.0, Box::new(NegClip)), (0.3, Box::new(ConceptSoftmax::default())), (0.2, Box::new(SigLip))];
        let terms = terms.into_iter().map(|(weight, loss)| Term { weight, loss });
        let loss = WeightedSum::new(terms.collect()).unwrap();
        let dropping = PatchDropping { least: 0.3, most: 0.6, until: 1.0 };
        let kept = dropping.kept(1, 0, 10, 6, model.clip().patches()).unwrap();
        let view = View { kept: Some(&kept), duplicates: Duplicates::Mask, ..View::default() };
        let whole = gradients(&model, &batch, &loss, &view).unwrap();
        for piece in [1, 4, 5] {
            let pieces = gradients(&model, &batch, &loss, &View { piece: Some(piece), ..view }).unwrap();
            assert!((whole.loss - pieces.loss).abs() < 1e-5 * whole.loss.abs(), "{name}: {piece}");
            assert_eq!(whole.accuracy, pieces.accuracy);
            let (gap, parameter) = gap(&model, &whole, &pieces);
            assert!(gap < 2e-4, "{name}: pieces of {piece}: {gap} of {parameter}");
        }
        // Another choice of patches has other gradients, so the comparison can fail.
        let other = dropping.kept(1, 1, 10, 6, model.clip().patches()).unwrap();
        let other = gradients(&model, &batch, &loss, &View { kept: Some(&other), ..view }).unwrap();
        assert!(gap(&model, &whole, &other).0 > 1e-2);
    }
}

#[test]
fn what_is_locked_is_not_trained() {
    let cases: [(Selection, &[&str], &[&str]); 4] = [
        (
            Selection { lock: Some(Tower::Image), ..Selection::default() },
            &["text.tokens", "text.projection.weight", "logit_scale"],
            &["vision."],
        ),
        (
            Selection { trained: Trained::Projections, ..Selection::default() },
            &["text.projection.weight", "vision.projection.weight", "logit_scale"],
            &["blocks", "norm", "tokens", "patch"],
        ),
        (
            Selection { lock: Some(Tower::Text), temperature: false, ..Selection::default() },
            &["vision.class"],
            &["text.", "logit"],
        ),
        (
            Selection {
                trained: Trained::LowRank(LowRank::default()),
                lock: Some(Tower::Image),
                temperature: true,
                ..Selection::default()
            },
            &["text.blocks.0.attention.qkv.adapter.q.a", "text.blocks.1.attention.qkv.adapter.v.b", "logit_scale"],
            &["vision.", "weight", "bias", "adapter.k", "tokens"],
        ),
    ];
    for (selection, trained, locked) in cases {
        let model = open("tests/golden/hf-clip/modern-gelu", &selection);
        let names: Vec<&str> = model.parameters().iter().map(|parameter| parameter.name.as_str()).collect();
        assert!(trained.iter().all(|name| names.contains(name)), "{selection:?}: {names:?}");
        assert!(!names.iter().any(|name| locked.iter().any(|part| name.contains(part))), "{selection:?}: {names:?}");
        let loss = WeightedSum::single(InfoNce);
        let whole = gradients(&model, &batch(&model), &loss, &View::default()).unwrap();
        assert!(whole.gradients.values().iter().all(Option::is_some), "{selection:?}");
        let view = View { piece: Some(2), ..View::default() };
        let pieces = gradients(&model, &batch(&model), &loss, &view).unwrap();
        let (gap, parameter) = gap(&model, &whole, &pieces);
        assert!(gap < 2e-4, "{selection:?}: {gap} of {parameter}");
    }
}

#[test]
fn what_a_loss_lacks_is_named() {
    let model = open("tests/golden/hf-clip/modern-gelu", &Selection::default());
    let view = View::default();
    let message = |batch: &Batch, loss: WeightedSum| gradients(&model, batch, &loss, &view).unwrap_err().to_string();
    let mut batch = batch(&model);
    assert!(message(&batch, WeightedSum::single(SigLip)).contains("siglip needs a logit bias"));
    assert!(message(&batch, WeightedSum::single(ConceptSoftmax::default())).contains("concepts"));
    batch.negatives = None;
    assert!(message(&batch, WeightedSum::single(NegClip)).contains("negclip needs hard negatives"));
    let width = model.clip().config().embed_dim;
    let vectors = candle_core::Tensor::zeros((6, width + 1), candle_core::DType::F32, &Device::Cpu).unwrap();
    let teacher = Teacher { left: vectors.clone(), right: vectors, scale: 1.0 };
    let view = View { teacher: Some(&teacher), ..View::default() };
    let loss = WeightedSum::single(crossmodal_train::loss::FeatureDistillation);
    let message = gradients(&model, &batch, &loss, &view).unwrap_err().to_string();
    assert!(message.contains(&format!("{} dimensions", width + 1)), "{message}");
}
