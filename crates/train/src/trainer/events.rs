//! What a run tells while it goes on.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::checkpoint::Best;

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The run begins or goes on.
    Started {
        /// Steps made before.
        step: u64,
        /// Steps in all.
        steps: u64,
        /// Number of values that are trained.
        parameters: u64,
    },
    /// A step was made.
    Step(StepReport),
    /// A sample could not be read.
    Skipped {
        /// Its key.
        key: String,
        /// Why.
        reason: String,
    },
    /// The model was measured.
    Validated {
        /// Steps made.
        step: u64,
        /// What was found.
        validation: Validation,
        /// Whether it is the best so far.
        best: bool,
    },
    /// The state was saved.
    Saved {
        /// Steps made.
        step: u64,
    },
}

/// What a step came to.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Steps made, this one included.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// Passes over the data that are complete.
    pub epoch: u64,
    /// The loss.
    pub loss: f64,
    /// Its terms, each without its weight.
    pub terms: Vec<(&'static str, f64)>,
    /// The share of left samples whose most similar right one of the batch belongs to them.
    pub accuracy: f64,
    /// The factor that the schedule put on learning rates.
    pub learning_rate_factor: f64,
    /// The norm of the gradients before clipping.
    pub gradient_norm: f64,
    /// The factor on cosines after the step.
    pub logit_scale: f64,
    /// Samples that were learned from since the beginning.
    pub samples: u64,
    /// Samples a second, smoothed.
    pub samples_per_second: f64,
    /// Seconds until the last step at this rate.
    pub seconds_left: f64,
    /// Samples that could not be read since the beginning.
    pub skipped: u64,
}

impl StepReport {
    /// The report as a line of the log.
    pub(super) fn entry(&self) -> Value {
        let terms: Map<String, Value> =
            self.terms.iter().map(|(name, value)| (name.to_string(), json!(value))).collect();
        json!({
            "event": "step", "step": self.step, "epoch": self.epoch, "loss": self.loss, "terms": terms,
            "accuracy": self.accuracy, "learning_rate_factor": self.learning_rate_factor,
            "gradient_norm": self.gradient_norm, "logit_scale": self.logit_scale, "samples": self.samples,
            "samples_per_second": self.samples_per_second, "skipped": self.skipped,
        })
    }

    /// The report for TensorBoard.
    pub(super) fn scalars(&self) -> Vec<(String, f64)> {
        let mut scalars = vec![
            ("train/loss".to_string(), self.loss),
            ("train/accuracy".to_string(), self.accuracy),
            ("train/learning_rate_factor".to_string(), self.learning_rate_factor),
            ("train/gradient_norm".to_string(), self.gradient_norm),
            ("train/logit_scale".to_string(), self.logit_scale),
            ("train/samples_per_second".to_string(), self.samples_per_second),
        ];
        if self.terms.len() > 1 {
            scalars.extend(self.terms.iter().map(|(name, value)| (format!("loss/{name}"), *value)));
        }
        scalars
    }
}

/// What a validation found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Validation {
    /// Metrics by name, for example `text_to_image_recall_at_1`.
    pub metrics: Vec<(String, f64)>,
    /// What models are compared by; higher is better.
    pub score: f64,
}

impl Validation {
    pub(super) fn entry(&self, step: u64, best: bool) -> Value {
        let metrics: Map<String, Value> =
            self.metrics.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        json!({ "event": "validation", "step": step, "metrics": metrics, "score": self.score, "best": best })
    }

    pub(super) fn scalars(&self) -> Vec<(String, f64)> {
        self.metrics.iter().map(|(name, value)| (format!("validation/{name}"), *value)).collect()
    }
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Steps made.
    pub step: u64,
    /// Steps that were asked for.
    pub steps: u64,
    /// Samples that were learned from, repeated ones counted each time.
    pub samples: u64,
    /// Samples that could not be read.
    pub skipped: u64,
    /// Seconds of work.
    pub seconds: f64,
    /// The best validation.
    pub best: Option<Best>,
    /// Whether it was interrupted.
    pub cancelled: bool,
    /// Whether it stopped because nothing got better any more.
    pub stopped_early: bool,
    /// The folder of the best model, or of the last one where nothing was validated.
    pub model: PathBuf,
    /// The report.
    pub report: PathBuf,
}
