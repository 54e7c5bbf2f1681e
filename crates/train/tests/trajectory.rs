//! Fifty steps from the same weights on the same batches have the losses that they have in PyTorch.

use std::path::{Path, PathBuf};

use candle_core::Device;
use crossmodal_media::PixelTensor;
use crossmodal_models::weights::WeightType;
use crossmodal_models::{CancelToken, LoadOptions};
use crossmodal_train::loss::{Duplicates, InfoNce, WeightedSum};
use crossmodal_train::model::{Model, Selection, Start};
use crossmodal_train::optimiser::{AdamW, Decay, OptimiserRules, Schedule, WarmUp};
use crossmodal_train::trainer::{Event, Parts, RunFolder, Trainer, TrainerRules};
use crossmodal_train::{Batch, BatchSource, Position, Result, Side};
use serde::Deserialize;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

#[derive(Deserialize)]
struct Golden {
    settings: Settings,
    losses: Vec<f64>,
}

#[derive(Deserialize, Clone, Copy)]
struct Settings {
    steps: u64,
    batches: u64,
    batch: usize,
    tokens: usize,
    rate: f64,
    decay: f64,
    clip: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
}

/// The batches of scripts/make_trajectory_golden.py.
struct Formula {
    settings: Settings,
    side: usize,
    /// Ids of the begin and end tokens.
    ends: [u32; 2],
    position: Position,
}

impl Formula {
    fn pictures(&self, number: usize) -> Vec<PixelTensor> {
        let size = 3 * self.side * self.side;
        let value = |at: usize| (((at * 7919 + number * 104_729) % 2003) as f64 / 1001.0 - 1.0) as f32;
        let side = self.side as u32;
        let picture = |row: usize| PixelTensor {
            width: side,
            height: side,
            data: (row * size..(row + 1) * size).map(value).collect(),
        };
        (0..self.settings.batch).map(picture).collect()
    }

    fn texts(&self, number: usize) -> Vec<Vec<u32>> {
        let last = self.settings.tokens - 1;
        let id = |row: usize, at: usize| match at {
            0 => self.ends[0],
            _ if at == last => self.ends[1],
            _ => 1 + ((row * 131 + at * 17 + number * 29) % 1200) as u32,
        };
        (0..self.settings.batch).map(|row| (0..=last).map(|at| id(row, at)).collect()).collect()
    }
}

impl BatchSource for Formula {
    fn next_batch(&mut self) -> Result<Option<Batch>> {
        if self.position.batch == self.settings.batches {
            self.position = Position { epoch: self.position.epoch + 1, batch: 0 };
            return Ok(None);
        }
        let number = self.position.batch as usize;
        self.position.batch += 1;
        Ok(Some(Batch::of(Side::Pixels(self.pictures(number)), Side::Tokens(self.texts(number)))))
    }

    fn position(&self) -> Position {
        self.position
    }

    fn seek(&mut self, position: Position) -> Result<()> {
        self.position = position;
        Ok(())
    }

    fn batches_per_epoch(&self) -> Option<u64> {
        Some(self.settings.batches)
    }
}

#[test]
fn losses_follow_pytorch_for_fifty_steps() {
    let text = std::fs::read_to_string(golden().join("train/trajectory.json")).unwrap();
    let Golden { settings, losses: expected } = serde_json::from_str(&text).unwrap();
    let checkpoint = golden().join("hf-clip/modern-gelu");
    let start = Start::Checkpoint(checkpoint.to_str().unwrap().into());
    let model = Model::open(&start, &Selection::default(), &LoadOptions::default(), &Device::Cpu).unwrap();
    let config = std::fs::read_to_string(checkpoint.join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let id = |name: &str| config["text_config"][name].as_u64().unwrap() as u32;
    let source = Formula {
        settings,
        side: model.clip().config().vision.image_size.0,
        ends: [id("bos_token_id"), id("eos_token_id")],
        position: Position::default(),
    };
    let Settings { steps, rate, decay, clip, beta1, beta2, eps, .. } = settings;
    let rules = TrainerRules {
        steps,
        accumulate: 1,
        piece: None,
        clip: Some(clip),
        schedule: Schedule { warm_up: 0, counting: WarmUp::OpenClip, steps, decay: Decay::Constant, floor: 0.0 },
        seed: 0,
        duplicates: Duplicates::Ignore,
        patches: None,
        average: None,
        save_every: u64::MAX,
        validate_every: None,
        patience: None,
        dtype: WeightType::F32,
    };
    let parts = Parts {
        model,
        loss: WeightedSum::single(InfoNce),
        optimiser: OptimiserRules { adamw: AdamW { beta1, beta2, eps }, ..OptimiserRules::adamw(rate, decay) },
        rules,
        source: Box::new(source),
        validation: None,
        teacher: None,
        recipe: String::new(),
    };
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = Trainer::open(parts, RunFolder::open(folder.path()).unwrap(), false).unwrap();
    let mut found = Vec::new();
    trainer
        .run(&CancelToken::new(), &mut |event| {
            if let Event::Step(report) = event {
                found.push(report.loss);
            }
        })
        .unwrap();
    assert_eq!(found.len(), expected.len());
    let mut furthest = 0f64;
    for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let distance = (found - expected).abs() / expected.abs();
        furthest = furthest.max(distance);
        assert!(distance < 1e-3, "step {step}: loss {found}, PyTorch's is {expected}");
    }
    // Something was learned, so that equal losses say that equal steps were made.
    assert!(expected[expected.len() - 1] < 0.8 * expected[0]);
    println!("at most {furthest:.1e} apart");
}
