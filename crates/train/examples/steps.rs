//! Losses, time and memory of the trainer's steps on batches from a file: `steps MODEL BATCHES [--steps N] [--rate R] [--decay D] [--clip C]
//! [--lora RANK] [--piece N] [--threads N]`.
//!
//! MODEL is a checkpoint's folder; BATCHES a file of safetensors with `pixels` `[batches, batch, 3, height, width]` (32-bit floats, prepared) and `ids`
//! `[batches, batch, tokens]` (64-bit integers), taken in turn. InfoNCE and AdamW with a constant rate. Prints one line of JSON; the counterpart in PyTorch is
//! `bench/train/torch_steps.py`.

use std::collections::HashMap;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use crossmodal_media::PixelTensor;
use crossmodal_models::weights::WeightType;
use crossmodal_models::{CancelToken, LoadOptions, compute};
use crossmodal_train::loss::{Duplicates, InfoNce, WeightedSum};
use crossmodal_train::model::{LowRank, Model, Selection, Start, Trained};
use crossmodal_train::optimiser::{Decay, OptimiserRules, Schedule, WarmUp};
use crossmodal_train::trainer::{Event, Parts, RunFolder, Trainer, TrainerRules};
use crossmodal_train::{Batch, BatchSource, Position, Result, Side};

/// The batches of a file, one after the other and again from the first.
struct Given {
    pixels: Tensor,
    ids: Tensor,
    position: Position,
}

impl Given {
    fn count(&self) -> Result<u64> {
        Ok(self.pixels.dim(0)? as u64)
    }
}

impl BatchSource for Given {
    fn next_batch(&mut self) -> Result<Option<Batch>> {
        if self.position.batch == self.count()? {
            self.position = Position { epoch: self.position.epoch + 1, batch: 0 };
            return Ok(None);
        }
        let at = self.position.batch as usize;
        self.position.batch += 1;
        let pixels = self.pixels.get(at)?;
        let (_, _, height, width) = pixels.dims4()?;
        let pictures = pixels.flatten_from(1)?.to_vec2::<f32>()?.into_iter();
        let picture = |data| PixelTensor { width: width as u32, height: height as u32, data };
        let texts: Vec<Vec<u32>> = self.ids.get(at)?.to_dtype(DType::U32)?.to_vec2()?;
        Ok(Some(Batch::of(Side::Pixels(pictures.map(picture).collect()), Side::Tokens(texts))))
    }

    fn position(&self) -> Position {
        self.position
    }

    fn seek(&mut self, position: Position) -> Result<()> {
        self.position = position;
        Ok(())
    }

    fn batches_per_epoch(&self) -> Option<u64> {
        self.count().ok()
    }
}

/// What follows a name on the command line.
fn after<T: std::str::FromStr>(name: &str, otherwise: T) -> T {
    let arguments: Vec<String> = std::env::args().collect();
    let place = arguments.iter().position(|argument| argument == name);
    let Some(place) = place else { return otherwise };
    let value = arguments.get(place + 1).and_then(|value| value.parse().ok());
    value.unwrap_or_else(|| panic!("{name}: expected a number"))
}

/// Greatest resident memory so far, in bytes; 0 where the system doesn't say.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, batches, ..] = arguments.as_slice() else {
        panic!(
            "usage: steps MODEL BATCHES [--steps N] [--rate R] [--decay D] [--clip C] [--lora RANK] [--piece N] [--threads N]"
        )
    };
    compute::set_threads(after("--threads", 2));
    let mut selection = Selection::default();
    let rank = after("--lora", 0);
    if rank > 0 {
        selection.trained = Trained::LowRank(LowRank { rank, alpha: 2.0 * rank as f64, ..LowRank::default() });
        selection.temperature = false;
    }
    let model = Model::open(&Start::Checkpoint(folder.clone()), &selection, &LoadOptions::default(), &Device::Cpu)?;
    let tensors: HashMap<String, Tensor> = candle_core::safetensors::load(batches, &Device::Cpu)?;
    let tensor = |name: &str| tensors.get(name).cloned().unwrap_or_else(|| panic!("{batches}: no tensor {name:?}"));
    let source = Given { pixels: tensor("pixels"), ids: tensor("ids"), position: Position::default() };
    let batch = source.pixels.dim(1)?;
    drop(tensors);
    let (piece, clip) = (after("--piece", 0), after("--clip", 0.0));
    let steps = after("--steps", 6);
    let rules = TrainerRules {
        steps,
        accumulate: 1,
        piece: (piece > 0).then_some(piece),
        clip: (clip > 0.0).then_some(clip),
        schedule: Schedule { warm_up: 0, counting: WarmUp::OpenClip, steps, decay: Decay::Constant, floor: 0.0 },
        seed: 0,
        duplicates: Duplicates::Mask,
        patches: None,
        average: None,
        save_every: u64::MAX,
        validate_every: None,
        patience: None,
        dtype: WeightType::F32,
    };
    let run = std::env::temp_dir().join(format!("crossmodal-steps-{}", std::process::id()));
    let parts = Parts {
        model,
        loss: WeightedSum::single(InfoNce),
        optimiser: OptimiserRules::adamw(after("--rate", 1e-4), after("--decay", 0.1)),
        rules,
        source: Box::new(source),
        validation: None,
        teacher: None,
        recipe: String::new(),
    };
    let mut trainer = Trainer::open(parts, RunFolder::open(&run)?, false)?;
    let (mut seconds, mut losses) = (Vec::new(), Vec::new());
    // Before what is written at the end.
    let mut memory = 0;
    let mut last = Instant::now();
    trainer.run(&CancelToken::new(), &mut |event| match event {
        Event::Started { .. } => last = Instant::now(),
        Event::Step(report) => {
            seconds.push(last.elapsed().as_secs_f64());
            losses.push(report.loss);
            memory = peak_memory();
            last = Instant::now();
        }
        Event::Skipped { .. } | Event::Validated { .. } | Event::Saved { .. } => {}
    })?;
    drop(trainer);
    // What a run leaves is of no use here.
    let _ = std::fs::remove_dir_all(&run);
    // The first step warms up.
    let mut rest = seconds.split_off(1.min(seconds.len() - 1));
    rest.sort_by(f64::total_cmp);
    let median = rest[rest.len() / 2];
    println!(
        "{}",
        serde_json::json!({
            "seconds": median,
            "best": rest[0],
            "samples_per_second": batch as f64 / median,
            "memory": memory,
            "losses": losses,
        })
    );
    Ok(())
}
