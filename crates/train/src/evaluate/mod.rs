//! How good a model is on a data set: retrieval both ways, and sorting by classes that it wasn't trained on, each with a confidence interval.

mod embed;
mod retrieval;
mod zero_shot;

use std::time::Instant;

use crossmodal_eval::Bootstrap;
use crossmodal_models::{CancelToken, Embedder, Modality};
use serde::Serialize;

pub use retrieval::{Direction, RecallAt};
pub use zero_shot::ZeroShot;

use crate::data::{DataSet, Skipped, check_templates};
use crate::error::{Error, Result};

/// How an evaluation is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Inputs that are embedded together.
    pub batch_size: usize,
    /// The numbers of first places that recall is told for.
    pub recall_at: Vec<usize>,
    /// Names of the classes, in the order of their numbers where the data has numbers only; `None` takes the data's own.
    pub classes: Option<Vec<String>>,
    /// What is said of a picture of a class, `{}` standing for the class; several are averaged, none is the bare name.
    pub templates: Vec<String>,
    /// How intervals are resampled, and their level.
    pub bootstrap: Bootstrap,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            batch_size: 64,
            recall_at: vec![1, 5, 10],
            classes: None,
            templates: Vec::new(),
            bootstrap: Bootstrap::default(),
        }
    }
}

/// What an evaluation is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done, in a word or two.
    pub stage: &'static str,
    /// Steps that are done.
    pub done: usize,
    /// Steps of this stage.
    pub all: usize,
}

/// A sample that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Its key.
    pub key: String,
    /// Why.
    pub reason: String,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The model.
    pub model: String,
    /// The data set.
    pub data: String,
    /// What was found there, in words.
    pub kind: &'static str,
    /// What the left side is.
    pub left: Modality,
    /// What the right side is.
    pub right: Modality,
    /// Items that could be embedded.
    pub items: usize,
    /// Different right sides of theirs.
    pub counterparts: usize,
    /// Texts that were longer than the model reads and were cut.
    pub truncated: usize,
    /// Number of samples that were left out.
    pub skipped: u64,
    /// The first of them, with reasons.
    pub left_out: Vec<LeftOut>,
    /// Confidence level of all intervals.
    pub level: f64,
    /// The left side by the right one, for example pictures by text; `None` where the data has classes only.
    pub left_by_right: Option<Direction>,
    /// The right side by the left one.
    pub right_by_left: Option<Direction>,
    /// Sorting by classes; `None` where the data has none, or numbers without names.
    pub zero_shot: Option<ZeroShot>,
    /// Seconds it took.
    pub seconds: f64,
}

/// Evaluates `model` on `data`. What is equal counts once: the same file under several names is one candidate whose captions are all correct, and the
/// same text said of several items is one query for all of them. Progress is told now and then.
///
/// # Errors
/// Sides that the model doesn't take, classes that don't fit, data of which nothing can be read, failures of the model, a raised `cancel` token.
pub fn evaluate(
    model: &dyn Embedder,
    data: &DataSet,
    options: &Options,
    cancel: &CancelToken,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report> {
    let start = Instant::now();
    check(model, data, options)?;
    let mut skipped: Skipped = data.skipped().clone();
    let job = embed::Job { model, batch_size: options.batch_size, cancel };
    let items = job.items(data, &mut skipped, progress)?;
    let counterparts = job.counterparts(data, &items, &mut skipped, progress)?;
    let directions = if data.kind() == crate::data::CLASSES {
        None
    } else {
        Some(retrieval::both(&items, &counterparts, options, cancel, progress)?)
    };
    let zero_shot = zero_shot::zero_shot(&job, data, &items, options, progress)?;
    let (left_by_right, right_by_left) = directions.unzip();
    let (left, right) = data.modalities();
    let left_out = skipped.listed().iter();
    Ok(Report {
        model: model.info().name.clone(),
        data: data.name().to_owned(),
        kind: data.kind(),
        left,
        right,
        items: items.vectors.len(),
        counterparts: counterparts.vectors.len(),
        truncated: counterparts.truncated,
        skipped: skipped.count(),
        left_out: left_out.map(|(key, reason)| LeftOut { key: key.clone(), reason: reason.clone() }).collect(),
        level: options.bootstrap.level,
        left_by_right,
        right_by_left,
        zero_shot,
        seconds: start.elapsed().as_secs_f64(),
    })
}

fn check(model: &dyn Embedder, data: &DataSet, options: &Options) -> Result<()> {
    check_templates(&options.templates)?;
    if options.recall_at.contains(&0) {
        return Err(Error::Invalid("recall at 0, expected at least 1".into()));
    }
    let (left, right) = data.modalities();
    for (side, modality) in [("left", left), ("right", right)] {
        if !model.modalities().contains(&modality) {
            let taken: Vec<&str> = model.modalities().iter().map(|modality| modality.as_str()).collect();
            let (model, data, taken) = (&model.info().name, data.name(), taken.join(" and "));
            return Err(Error::Invalid(format!("{data}: the {side} side is {modality}, but {model} takes {taken}")));
        }
    }
    Ok(())
}
