//! AdamW on slices: one pass over a parameter, its gradient and its two moments.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Numbers that a thread updates at a time.
const CHUNK: usize = 1 << 14;

/// Settings of AdamW (Loshchilov and Hutter 2019). The defaults are those of CLIP's vision transformers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdamW {
    /// How slowly the mean of gradients forgets.
    pub beta1: f64,
    /// How slowly the mean of their squares forgets.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.98, eps: 1e-6 }
    }
}

/// What holds for all numbers of one update.
#[derive(Debug, Clone, Copy)]
pub(super) struct Update {
    pub(super) learning_rate: f64,
    pub(super) weight_decay: f64,
    /// The factor on gradients, from clipping.
    pub(super) gradient_factor: f64,
    /// Number of this update of the parameter, the first being 1.
    pub(super) count: u64,
}

impl AdamW {
    /// Updates a parameter and its moments, in the order of operations of PyTorch's AdamW.
    pub(super) fn update(
        &self,
        update: Update,
        parameter: &mut [f32],
        gradient: &[f32],
        first: &mut [f32],
        second: &mut [f32],
    ) {
        let power = i32::try_from(update.count).unwrap_or(i32::MAX);
        let correction1 = 1.0 - self.beta1.powi(power);
        let correction2 = (1.0 - self.beta2.powi(power)).sqrt();
        let keep = (1.0 - update.learning_rate * update.weight_decay) as f32;
        let step = (update.learning_rate / correction1) as f32;
        let (beta2, eps, root) = (self.beta2 as f32, self.eps as f32, correction2 as f32);
        let (new1, new2) = ((1.0 - self.beta1) as f32, (1.0 - self.beta2) as f32);
        let factor = update.gradient_factor as f32;
        let chunks = parameter.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK));
        let chunks = chunks.zip(first.par_chunks_mut(CHUNK)).zip(second.par_chunks_mut(CHUNK));
        chunks.for_each(|(((parameter, gradient), first), second)| {
            let numbers = parameter.iter_mut().zip(gradient).zip(first).zip(second);
            for (((x, gradient), first), second) in numbers {
                let gradient = gradient * factor;
                *first += new1 * (gradient - *first);
                *second = *second * beta2 + new2 * gradient * gradient;
                *x = *x * keep - step * *first / (second.sqrt() / root + eps);
            }
        });
    }
}
