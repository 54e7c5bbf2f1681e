//! Losses beside references: fixtures where there are any, else the formulas written as plain loops, with finite differences as gradients.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};
use crossmodal_train::loss::{
    AffinityMimicking, CrossClr, CrossClrForm, CyClip, Duplicates, Embeddings, FeatureDistillation, InfoNce,
    InteractiveDistillation, Loss, Matryoshka, NegClip, Pairing, SigLip, Teacher, Temperature, Term, WeightedSum,
};

type Fixtures = HashMap<String, Tensor>;

fn fixtures() -> Fixtures {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/losses/golden.safetensors");
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    tensors.into_iter().map(|(name, tensor)| (name, tensor.to_dtype(DType::F64).unwrap())).collect()
}

fn parameters() -> serde_json::Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/losses/golden.json");
    serde_json::from_slice::<serde_json::Value>(&std::fs::read(path).unwrap()).unwrap()["params"].clone()
}

fn scalar(value: f64) -> Var {
    Var::new(value, &Device::Cpu).unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[track_caller]
fn assert_near(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1e-3f64, |largest, x| largest.max(x.abs()));
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance * largest, "{what} [{at}]: {found} is not {expected}");
    }
}

/// Checks value and gradients of a loss with the fixture of this name; gradients with respect to raw and to unit vectors.
fn check_fixture(name: &str, loss: &dyn Loss, log_scale: f64, bias: Option<f64>) {
    let fixtures = fixtures();
    let expected = |part: &str| flat(&fixtures[&format!("{name}/{part}")]);
    let raw = ["x", "y"].map(|side| Var::from_tensor(&fixtures[&format!("inputs/{side}")]).unwrap());
    // Leaves of their own, so that the gradient at the unit vectors can be seen too.
    let unit = raw
        .each_ref()
        .map(|raw| Var::from_tensor(&crossmodal_nn::l2_normalise(raw.as_tensor()).unwrap().detach()).unwrap());
    let features = ["x", "y"].map(|side| fixtures[&format!("inputs/features_{side}")].clone());
    for (kind, sides) in [("raw", &raw), ("unit", &unit)] {
        let vectors = sides.each_ref().map(|side| match kind {
            "raw" => crossmodal_nn::l2_normalise(side.as_tensor()).unwrap(),
            _ => side.as_tensor().clone(),
        });
        let (log_scale, bias) = (scalar(log_scale), bias.map(scalar));
        let [left, right] = vectors;
        let embeddings = Embeddings {
            pairing: Pairing::distinct(left.dim(0).unwrap()),
            left,
            right,
            negatives: None,
            teacher: None,
            concepts: None,
            features: Some((features[0].clone(), features[1].clone())),
            temperature: Temperature {
                log_scale: log_scale.as_tensor().clone(),
                bias: bias.as_ref().map(|bias| bias.as_tensor().clone()),
            },
        };
        let value = loss.value(&embeddings).unwrap();
        assert_near(&flat(&value), &expected("loss"), 1e-12, name);
        let gradients = value.backward().unwrap();
        for (side, letter) in sides.iter().zip(["x", "y"]) {
            let part = format!("grad_{letter}_{kind}");
            assert_near(&flat(gradients.get(side).unwrap()), &expected(&part), 1e-11, &format!("{name} {part}"));
        }
        if fixtures.contains_key(&format!("{name}/grad_log_scale")) {
            let found = flat(gradients.get(&log_scale).unwrap());
            assert_near(&found, &expected("grad_log_scale"), 1e-11, "grad_log_scale");
        }
        if let Some(bias) = bias {
            assert_near(&flat(gradients.get(&bias).unwrap()), &expected("grad_bias"), 1e-11, "grad_bias");
        }
    }
}

#[test]
fn infonce_and_siglip_equal_the_reference() {
    let parameters = parameters();
    let number = |name: &str| parameters[name].as_f64().unwrap();
    check_fixture("infonce", &InfoNce, number("log_scale"), None);
    check_fixture("siglip", &SigLip, number("siglip_log_scale"), Some(number("siglip_bias")));
}

#[test]
fn every_form_of_crossclr_equals_the_reference() {
    let parameters = parameters();
    let number = |name: &str| parameters["crossclr"][name].as_f64().unwrap();
    let (lambda, kappa, gamma) = (number("lambda"), Some(number("kappa")), Some(number("gamma")));
    let paper = |name: &str, lambda, kappa, gamma| {
        let form = CrossClrForm::Paper { lambda, kappa, gamma };
        check_fixture(name, &CrossClr { tau: number("tau"), form }, 0.0, None);
    };
    paper("crossclr_full", lambda, kappa, gamma);
    paper("crossclr_no_prune", lambda, kappa, None);
    paper("crossclr_no_weight", lambda, None, gamma);
    paper("crossclr_inter_only", 0.0, None, None);
    let release = |name: &str| parameters["release"][name].as_f64().unwrap();
    let form = CrossClrForm::Release { negative_weight: release("negative_weight") };
    check_fixture("crossclr_release", &CrossClr { tau: release("tau"), form }, 0.0, None);
}

const BATCH: usize = 5;
const WIDTH: usize = 6;
const LOG_SCALE: f64 = 1.3;
const BIAS: f64 = -0.7;

/// Numbers between -1 and 1.
fn numbers(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Everything that a loss may depend on, as plain numbers: what the loops compute with.
#[derive(Clone)]
struct Plain {
    left: Vec<f64>,
    right: Vec<f64>,
    negatives: Vec<f64>,
    log_scale: f64,
    bias: f64,
}

type Rows = Vec<Vec<f64>>;

fn rows(values: &[f64]) -> Rows {
    values.chunks(WIDTH).map(<[f64]>::to_vec).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn products(a: &Rows, b: &Rows) -> Rows {
    a.iter().map(|a| b.iter().map(|b| dot(a, b)).collect()).collect()
}

fn scaled(matrix: &Rows, factor: f64) -> Rows {
    matrix.iter().map(|row| row.iter().map(|x| x * factor).collect()).collect()
}

fn transposed(matrix: &Rows) -> Rows {
    (0..matrix[0].len()).map(|column| matrix.iter().map(|row| row[column]).collect()).collect()
}

/// `-log softmax(row)[at]`, over the columns that are kept.
fn surprise(row: &[f64], at: usize, kept: impl Fn(usize) -> bool) -> f64 {
    let sum: f64 = row.iter().enumerate().filter(|(column, _)| kept(*column)).map(|(_, x)| x.exp()).sum();
    sum.ln() - row[at]
}

fn mean_surprise(logits: &Rows) -> f64 {
    logits.iter().enumerate().map(|(at, row)| surprise(row, at, |_| true)).sum::<f64>() / logits.len() as f64
}

fn info_nce(logits: &Rows) -> f64 {
    (mean_surprise(logits) + mean_surprise(&transposed(logits))) / 2.0
}

fn teacher() -> (Rows, Rows, f64) {
    (rows(&unit(numbers(BATCH * WIDTH, 21))), rows(&unit(numbers(BATCH * WIDTH, 22))), 4.0)
}

fn unit(mut values: Vec<f64>) -> Vec<f64> {
    for row in values.chunks_mut(WIDTH) {
        let length = dot(row, row).sqrt();
        row.iter_mut().for_each(|x| *x /= length);
    }
    values
}

fn tensor(values: &[f64]) -> Tensor {
    Tensor::from_slice(values, (values.len() / WIDTH, WIDTH), &Device::Cpu).unwrap()
}

/// Compares value and all gradients of a loss with loops and their finite differences.
fn check_loops(loss: &dyn Loss, pairing: &Pairing, loops: impl Fn(&Plain) -> f64) {
    let name = loss.name();
    let needs = loss.needs();
    let plain = Plain {
        left: unit(numbers(BATCH * WIDTH, 1)),
        right: unit(numbers(BATCH * WIDTH, 2)),
        negatives: unit(numbers(BATCH * WIDTH, 3)),
        log_scale: LOG_SCALE,
        bias: BIAS,
    };
    let sides = [&plain.left, &plain.right, &plain.negatives].map(|side| Var::from_tensor(&tensor(side)).unwrap());
    let (log_scale, bias) = (scalar(LOG_SCALE), scalar(BIAS));
    let (teacher_left, teacher_right, scale) = teacher();
    let embeddings = Embeddings {
        left: sides[0].as_tensor().clone(),
        right: sides[1].as_tensor().clone(),
        negatives: needs.negatives.then(|| sides[2].as_tensor().clone()),
        teacher: needs.teacher.then(|| Teacher {
            left: tensor(&teacher_left.concat()),
            right: tensor(&teacher_right.concat()),
            scale,
        }),
        features: None,
        concepts: None,
        temperature: Temperature {
            log_scale: log_scale.as_tensor().clone(),
            bias: needs.bias.then(|| bias.as_tensor().clone()),
        },
        pairing: pairing.clone(),
    };
    let value = loss.value(&embeddings).unwrap();
    assert_near(&flat(&value), &[loops(&plain)], 1e-12, name);
    let gradients = value.backward().unwrap();
    let slope = |change: &dyn Fn(&mut Plain, f64)| {
        let at = |step: f64| {
            let mut moved = plain.clone();
            change(&mut moved, step);
            loops(&moved)
        };
        (at(1e-5) - at(-1e-5)) / 2e-5
    };
    let found = |var: &Var| gradients.get(var).map(flat);
    let all = |of: fn(&mut Plain) -> &mut Vec<f64>| -> Vec<f64> {
        (0..BATCH * WIDTH).map(|at| slope(&|plain, step| of(plain)[at] += step)).collect()
    };
    assert_near(&found(&sides[0]).unwrap(), &all(|plain| &mut plain.left), 1e-7, &format!("{name} left"));
    assert_near(&found(&sides[1]).unwrap(), &all(|plain| &mut plain.right), 1e-7, &format!("{name} right"));
    if needs.negatives {
        let expected = all(|plain| &mut plain.negatives);
        assert_near(&found(&sides[2]).unwrap(), &expected, 1e-7, &format!("{name} negatives"));
    }
    let expected = slope(&|plain, step| plain.log_scale += step);
    if expected.abs() > 1e-9 {
        assert_near(&found(&log_scale).unwrap(), &[expected], 1e-7, &format!("{name} log_scale"));
    }
    if needs.bias {
        let expected = slope(&|plain, step| plain.bias += step);
        assert_near(&found(&bias).unwrap(), &[expected], 1e-7, &format!("{name} bias"));
    }
}

fn distinct() -> Pairing {
    Pairing::distinct(BATCH)
}

/// Pictures 0 and 3 are the same, captions 1 and 3 too.
fn twice(treatment: Duplicates) -> Pairing {
    Pairing::of(treatment, &[1, 2, 3, 1, 5], &[1, 2, 3, 2, 5]).unwrap()
}

fn same(a: usize, b: usize) -> bool {
    a == b || matches!((a.min(b), a.max(b)), (0, 3) | (1, 3))
}

#[test]
fn cyclip_is_infonce_and_two_consistencies() {
    let loss = CyClip { within: 0.3, across: 0.7 };
    check_loops(&loss, &distinct(), |plain| {
        let (x, y) = (rows(&plain.left), rows(&plain.right));
        let (s, xx, yy) = (products(&x, &y), products(&x, &x), products(&y, &y));
        let mut total = info_nce(&scaled(&s, plain.log_scale.exp()));
        for j in 0..BATCH {
            for k in 0..BATCH {
                total += 0.3 * (xx[j][k] - yy[j][k]).powi(2) / BATCH as f64;
                total += 0.7 * (s[j][k] - s[k][j]).powi(2) / BATCH as f64;
            }
        }
        total
    });
}

#[test]
fn negclip_lets_pictures_choose_among_hard_negatives_too() {
    check_loops(&NegClip, &distinct(), |plain| {
        let (x, y, hard) = (rows(&plain.left), rows(&plain.right), rows(&plain.negatives));
        let scale = plain.log_scale.exp();
        let pictures = scaled(&products(&x, &[y.clone(), hard].concat()), scale);
        (mean_surprise(&pictures) + mean_surprise(&scaled(&products(&y, &x), scale))) / 2.0
    });
}

#[test]
fn distillation_follows_the_teacher() {
    let (left, right, scale) = teacher();
    check_loops(&FeatureDistillation, &distinct(), |plain| {
        let gap = |own: &[f64], theirs: &Rows| {
            let squares = own.iter().zip(theirs.concat()).map(|(a, b)| (a - b).powi(2));
            squares.sum::<f64>() / (BATCH * WIDTH) as f64
        };
        gap(&plain.left, &left) + gap(&plain.right, &right)
    });
    let targets = scaled(&products(&left, &right), scale);
    check_loops(&AffinityMimicking, &distinct(), |plain| {
        let logits = scaled(&products(&rows(&plain.left), &rows(&plain.right)), plain.log_scale.exp());
        let direction = |logits: &Rows, targets: &Rows| {
            let mut total = 0.0;
            for (logits, targets) in logits.iter().zip(targets) {
                for at in 0..BATCH {
                    total += (-surprise(targets, at, |_| true)).exp() * surprise(logits, at, |_| true);
                }
            }
            total / BATCH as f64
        };
        (direction(&logits, &targets) + direction(&transposed(&logits), &transposed(&targets))) / 2.0
    });
    check_loops(&InteractiveDistillation, &distinct(), |plain| {
        let with =
            |own: &[f64], theirs: &Rows| mean_surprise(&scaled(&products(&rows(own), theirs), plain.log_scale.exp()));
        (with(&plain.left, &right) + with(&plain.right, &left)) / 2.0
    });
}

#[test]
fn matryoshka_is_the_weighted_mean_over_widths() {
    let loss = Matryoshka { inner: Box::new(InfoNce), widths: vec![(2, 1.0), (4, 0.5), (WIDTH, 2.0)] };
    check_loops(&loss, &distinct(), |plain| {
        let cut = |side: &[f64], width: usize| -> Rows {
            let cut = rows(side).into_iter().map(|row| {
                let length = if width == WIDTH { 1.0 } else { dot(&row[..width], &row[..width]).sqrt() };
                row[..width].iter().map(|x| x / length).collect()
            });
            cut.collect()
        };
        let at = |width: usize| {
            info_nce(&scaled(&products(&cut(&plain.left, width), &cut(&plain.right, width)), plain.log_scale.exp()))
        };
        (at(2) + 0.5 * at(4) + 2.0 * at(WIDTH)) / 3.5
    });
    let wide = Matryoshka { inner: Box::new(InfoNce), widths: vec![(WIDTH + 1, 1.0)] };
    let embeddings = Embeddings {
        left: tensor(&numbers(BATCH * WIDTH, 1)),
        right: tensor(&numbers(BATCH * WIDTH, 2)),
        negatives: None,
        teacher: None,
        features: None,
        concepts: None,
        temperature: Temperature { log_scale: scalar(0.0).into_inner(), bias: None },
        pairing: distinct(),
    };
    let message = wide.value(&embeddings).unwrap_err().to_string();
    assert!(message.contains("width 7") && message.contains("1 to 6"), "{message}");
    for loss in [&NegClip as &dyn Loss, &AffinityMimicking, &SigLip] {
        let message = loss.value(&embeddings).unwrap_err().to_string();
        assert!(message.contains(loss.name()) && message.contains("needs"), "{message}");
    }
}

#[test]
fn duplicates_are_masked_or_positive_in_a_softmax() {
    let logits = |plain: &Plain| scaled(&products(&rows(&plain.left), &rows(&plain.right)), plain.log_scale.exp());
    check_loops(&InfoNce, &twice(Duplicates::Ignore), |plain| info_nce(&logits(plain)));
    check_loops(&InfoNce, &twice(Duplicates::Mask), |plain| {
        let logits = logits(plain);
        let direction = |logits: &Rows| {
            let each = logits.iter().enumerate().map(|(at, row)| surprise(row, at, |k| k == at || !same(at, k)));
            each.sum::<f64>() / BATCH as f64
        };
        (direction(&logits) + direction(&transposed(&logits))) / 2.0
    });
    check_loops(&InfoNce, &twice(Duplicates::Positive), |plain| {
        let logits = logits(plain);
        let direction = |logits: &Rows| {
            let mut total = 0.0;
            for (at, row) in logits.iter().enumerate() {
                let positives: Vec<usize> = (0..BATCH).filter(|k| same(at, *k)).collect();
                let each = positives.iter().map(|k| surprise(row, *k, |_| true));
                total += each.sum::<f64>() / positives.len() as f64;
            }
            total / BATCH as f64
        };
        (direction(&logits) + direction(&transposed(&logits))) / 2.0
    });
}

#[test]
fn duplicates_are_masked_or_positive_in_the_sigmoid_loss() {
    for treatment in [Duplicates::Ignore, Duplicates::Mask, Duplicates::Positive] {
        check_loops(&SigLip, &twice(treatment), |plain| {
            let (x, y) = (rows(&plain.left), rows(&plain.right));
            let mut total = 0.0;
            for (j, x) in x.iter().enumerate() {
                for (k, y) in y.iter().enumerate() {
                    let sign = match treatment {
                        _ if j == k => 1.0,
                        Duplicates::Mask if same(j, k) => continue,
                        Duplicates::Positive if same(j, k) => 1.0,
                        _ => -1.0,
                    };
                    let logit = plain.log_scale.exp() * dot(x, y) + plain.bias;
                    total += (1.0 + (-sign * logit).exp()).ln();
                }
            }
            total / BATCH as f64
        });
    }
}

#[test]
fn duplicates_are_no_negatives_in_crossclr() {
    let form = CrossClrForm::Paper { lambda: 0.8, kappa: None, gamma: None };
    check_loops(&CrossClr { tau: 0.4, form }, &twice(Duplicates::Mask), |plain| {
        let half = |x: &Rows, y: &Rows| {
            let mut total = 0.0;
            for i in 0..BATCH {
                let positive = (dot(&x[i], &y[i]) / 0.4).exp();
                let mut sum = positive;
                for k in (0..BATCH).filter(|k| !same(i, *k)) {
                    sum += (dot(&x[i], &y[k]) / 0.4).exp() + 0.8 * (dot(&x[i], &x[k]) / 0.4).exp();
                }
                total -= (positive / sum).ln() / BATCH as f64;
            }
            total
        };
        let (x, y) = (rows(&plain.left), rows(&plain.right));
        (half(&x, &y) + half(&y, &x)) / 2.0
    });
    // Positives next to what is masked aren't multiplied into NaN.
    let form = CrossClrForm::Release { negative_weight: 0.8 };
    check_loops(&CrossClr { tau: 0.4, form }, &twice(Duplicates::Positive), |plain| {
        let half = |x: &Rows, y: &Rows| {
            let mut total = 0.0;
            for i in 0..BATCH {
                let mut row: Vec<f64> = (0..BATCH).map(|k| dot(&x[i], &y[k]) / 0.4).collect();
                row.extend((0..BATCH).map(|k| if k == i { 0.0 } else { 0.8 * dot(&x[i], &x[k]) / 0.4 }));
                let kept = |k: usize| k < BATCH || k - BATCH == i || !same(i, k - BATCH);
                let positives: Vec<usize> = (0..BATCH).filter(|k| same(i, *k)).collect();
                let each = positives.iter().map(|k| surprise(&row, *k, kept));
                total += each.sum::<f64>() / positives.len() as f64 / BATCH as f64;
            }
            total
        };
        let (x, y) = (rows(&plain.left), rows(&plain.right));
        (half(&x, &y) + half(&y, &x)) / 2.0
    });
}

#[test]
fn sums_weigh_their_terms() {
    let term = |weight, loss| Term { weight, loss };
    let sum = WeightedSum::new(vec![term(0.5, Box::new(InfoNce) as Box<dyn Loss>), term(2.0, Box::new(NegClip))]);
    check_loops(&sum.unwrap(), &distinct(), |plain| {
        let (x, y, hard) = (rows(&plain.left), rows(&plain.right), rows(&plain.negatives));
        let scale = plain.log_scale.exp();
        let pictures = scaled(&products(&x, &[y.clone(), hard].concat()), scale);
        let captions = mean_surprise(&scaled(&products(&y, &x), scale));
        0.5 * info_nce(&scaled(&products(&x, &y), scale)) + 2.0 * (mean_surprise(&pictures) + captions) / 2.0
    });
    assert!(WeightedSum::new(Vec::new()).is_err());
    for weight in [0.0, -1.0, f64::NAN] {
        let message = WeightedSum::new(vec![term(weight, Box::new(InfoNce))]).unwrap_err().to_string();
        assert!(message.contains("infonce") && message.contains("above 0"), "{message}");
    }
}

#[test]
fn accuracy_counts_duplicates_as_right() {
    let left = tensor(&unit(numbers(BATCH * WIDTH, 1)));
    // Each left vector is its own answer, but the first one's is its duplicate's.
    let order = Tensor::new(&[3u32, 1, 2, 0, 4], &Device::Cpu).unwrap();
    let embeddings = |pairing| Embeddings {
        left: left.clone(),
        right: left.index_select(&order, 0).unwrap(),
        negatives: None,
        teacher: None,
        features: None,
        concepts: None,
        temperature: Temperature { log_scale: scalar(0.0).into_inner(), bias: None },
        pairing,
    };
    assert_eq!(embeddings(distinct()).accuracy().unwrap(), 0.6);
    assert_eq!(embeddings(twice(Duplicates::Mask)).accuracy().unwrap(), 1.0);
}
