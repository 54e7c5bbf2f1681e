//! Optimisers and schedules beside PyTorch's trajectories.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};
use crossmodal_train::gradients::{Gradients, clip_factor, with_values};
use crossmodal_train::optimiser::{
    AdamW, Average, Decay, GroupRule, Muon, MuonRule, Optimiser, OptimiserRules, Schedule, WarmUp,
};
use crossmodal_train::parameter::{Parameter, Role};

fn fixtures() -> HashMap<String, Tensor> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/losses/golden.safetensors");
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn settings() -> serde_json::Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/losses/golden.json");
    serde_json::from_slice::<serde_json::Value>(&std::fs::read(path).unwrap()).unwrap()["params"].clone()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn parameter(name: &str, role: Role, values: &Tensor) -> Parameter {
    let var = Var::from_tensor(&values.to_dtype(DType::F32).unwrap()).unwrap();
    Parameter { name: name.into(), var, role }
}

/// Follows a trajectory of the fixtures: `w` decays, `b` and `g` don't.
fn follow(fixture: &str, tolerance: f64) {
    let fixtures = fixtures();
    let settings = &settings()["adamw"];
    let number = |name: &str| settings[name].as_f64().unwrap();
    let rules = OptimiserRules {
        adamw: AdamW {
            beta1: settings["betas"][0].as_f64().unwrap(),
            beta2: settings["betas"][1].as_f64().unwrap(),
            eps: number("eps"),
        },
        ..OptimiserRules::adamw(number("lr"), number("weight_decay"))
    };
    let names = [("w", Role::Matrix), ("b", Role::Bias), ("g", Role::Vector)];
    let start = |name: &str| &fixtures[&format!("{fixture}/{name}_0")];
    let parameters: Vec<Parameter> = names.iter().map(|(name, role)| parameter(name, *role, start(name))).collect();
    let mut optimiser = Optimiser::new(&parameters, &rules);
    let at = |part: &str, step: u64| fixtures[&format!("{fixture}/{part}_{step}")].clone();
    let clipped = fixtures.contains_key(&format!("{fixture}/grad_norm_1"));
    for step in 1..=settings["steps"].as_u64().unwrap() {
        let mut gradients = Gradients::empty(3);
        for (place, (name, _)) in names.iter().enumerate() {
            let gradient = at(&format!("{name}_grad"), step).to_dtype(DType::F32).unwrap();
            // The fixture shows gradients after clipping; what they were before is in the norm.
            let factor = if clipped { clip_unclipped(&values(&at("grad_norm", step))) } else { 1.0 };
            gradients.set(place, Some((gradient / factor).unwrap()));
        }
        let norm = gradients.norm().unwrap();
        if clipped {
            assert!((norm - values(&at("grad_norm", step))[0]).abs() < 1e-5 * norm, "step {step}: norm {norm}");
        }
        let factor = clip_factor(norm, clipped.then(|| number("max_norm")));
        optimiser.step(&gradients, factor, 1.0).unwrap();
        let state = optimiser.state();
        for (parameter, (name, _)) in parameters.iter().zip(names) {
            let parts = [
                (values(parameter.var.as_tensor()), name.to_string()),
                (state[&format!("{name}#first")].iter().map(|x| f64::from(*x)).collect(), format!("{name}_m")),
                (state[&format!("{name}#second")].iter().map(|x| f64::from(*x)).collect(), format!("{name}_v")),
            ];
            for (found, part) in parts {
                let expected = values(&at(&part, step));
                let largest = expected.iter().fold(0f64, |largest, x| largest.max(x.abs()));
                for (found, expected) in found.iter().zip(&expected) {
                    let gap = (found - expected).abs();
                    assert!(gap <= tolerance * largest, "{fixture} step {step} {part}: {found} is not {expected}");
                }
            }
        }
    }
}

/// The factor that clipping to norm 1 put on gradients of this norm.
fn clip_unclipped(norm: &[f64]) -> f64 {
    (1.0 / (norm[0] + 1e-6)).min(1.0)
}

#[test]
fn adamw_follows_pytorch() {
    follow("adamw_f32", 1e-6);
    follow("adamw_f64", 1e-6);
    follow("adamw_clip_f64", 1e-6);
}

#[test]
fn both_schedules_equal_their_references() {
    let fixtures = fixtures();
    let settings = &settings()["schedule"];
    for (name, counting) in [("open_clip", WarmUp::OpenClip), ("transformers", WarmUp::Transformers)] {
        let schedule = Schedule {
            warm_up: settings["warmup"].as_u64().unwrap(),
            counting,
            steps: settings["total"].as_u64().unwrap(),
            decay: Decay::Cosine,
            floor: 0.0,
        };
        let base = settings["base_lr"].as_f64().unwrap();
        for (step, expected) in values(&fixtures[&format!("schedule/{name}")]).into_iter().enumerate() {
            let found = base * schedule.factor(step as u64);
            assert!((found - expected).abs() < 1e-15, "{name} step {step}: {found} is not {expected}");
        }
    }
}

fn ones(name: &str, shape: (usize, usize)) -> Parameter {
    Parameter::new(name, Var::from_tensor(&Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap()).unwrap())
}

#[test]
fn groups_have_their_own_rates_and_muon_takes_the_matrices_of_blocks() {
    let names = ["vision.blocks.0.mlp.fc1.weight", "vision.patch.weight", "text.projection.weight", "text.tokens"];
    let parameters: Vec<Parameter> = names.iter().map(|name| ones(name, (4, 4))).collect();
    let rules = OptimiserRules {
        muon: Some(MuonRule { muon: Muon::default(), learning_rate: 0.02, weight_decay: 0.0 }),
        groups: vec![
            GroupRule { prefix: "text.".into(), factor: 0.5 },
            GroupRule { prefix: "text.tokens".into(), factor: 0.0 },
        ],
        ..OptimiserRules::adamw(0.01, 0.0)
    };
    let mut optimiser = Optimiser::new(&parameters, &rules);
    let mut gradients = Gradients::empty(names.len());
    for place in 0..names.len() {
        gradients.set(place, Some(Tensor::eye(4, DType::F32, &Device::Cpu).unwrap()));
    }
    optimiser.step(&gradients, 1.0, 0.5).unwrap();
    let moved = |place: usize| {
        let first = with_values(parameters[place].var.as_tensor(), |values| values[0]).unwrap();
        f64::from(1.0 - first)
    };
    // Muon moves the unit matrix's directions by about its rate, AdamW's first step is its rate.
    assert!((0.68 * 0.01..1.21 * 0.01).contains(&moved(0)), "{}", moved(0));
    assert!((moved(1) - 0.005).abs() < 1e-6 && (moved(2) - 0.0025).abs() < 1e-6);
    assert_eq!(moved(3), 0.0);
    assert!(!optimiser.state().contains_key("vision.blocks.0.mlp.fc1.weight#second"), "muon has one moment");
}

#[test]
fn state_that_was_saved_continues_exactly() {
    let names = ["text.blocks.0.mlp.fc2.weight", "text.projection.weight"];
    let rules = OptimiserRules {
        muon: Some(MuonRule { muon: Muon::default(), learning_rate: 0.02, weight_decay: 0.1 }),
        ..OptimiserRules::adamw(0.01, 0.1)
    };
    let gradient = |step: u64| {
        let mut gradients = Gradients::empty(2);
        for place in 0..2 {
            let numbers: Vec<f32> = (0..12).map(|i| ((i * 37 + step * 11 + place as u64) % 17) as f32 - 8.0).collect();
            gradients.set(place, Some(Tensor::from_vec(numbers, (3, 4), &Device::Cpu).unwrap()));
        }
        gradients
    };
    let run = |interrupted: bool| {
        let mut parameters: Vec<Parameter> = names.iter().map(|name| ones(name, (3, 4))).collect();
        let mut optimiser = Optimiser::new(&parameters, &rules);
        let mut average = Average::new(&parameters, 0.9).unwrap();
        for step in 0..6 {
            if interrupted && step == 3 {
                let state: HashMap<String, Vec<f32>> =
                    optimiser.state().into_iter().map(|(name, values)| (name, values.to_vec())).collect();
                let (count, averages) = (optimiser.count(), average.values().to_vec());
                parameters = parameters
                    .iter()
                    .map(|old| parameter(&old.name, old.role, &old.var.as_tensor().copy().unwrap()))
                    .collect();
                optimiser = Optimiser::new(&parameters, &rules);
                optimiser.restore(count, |name| state.get(name).cloned()).unwrap();
                average = Average::new(&parameters, 0.9).unwrap();
                average.restore(averages).unwrap();
            }
            optimiser.step(&gradient(step), 1.0, 1.0).unwrap();
            average.update(&parameters, step + 1).unwrap();
        }
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let weights = parameters.iter().map(|parameter| with_values(parameter.var.as_tensor(), bits).unwrap());
        (weights.collect::<Vec<_>>(), average.values().iter().map(|values| bits(values)).collect::<Vec<_>>())
    };
    assert_eq!(run(true), run(false));
    let parameters = [ones(names[0], (3, 4))];
    let message = Optimiser::new(&parameters, &rules).restore(1, |_| None).unwrap_err().to_string();
    assert!(message.contains(names[0]) && message.contains("12 numbers"), "{message}");
}
