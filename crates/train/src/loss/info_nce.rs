//! The symmetric softmax loss of CLIP.

use candle_core::Tensor;

use super::cross_entropy::cross_entropy;
use super::{Embeddings, Loss};
use crate::error::Result;

/// `1/2 [CE(logits, i) + CE(logits^T, i)]` with the model's learned scale (Radford et al. 2021, as in open_clip).
#[derive(Debug, Clone, Copy, Default)]
pub struct InfoNce;

impl Loss for InfoNce {
    fn name(&self) -> &'static str {
        "infonce"
    }

    fn value(&self, embeddings: &Embeddings) -> Result<Tensor> {
        let logits = embeddings.temperature.logits(&embeddings.similarities()?)?;
        symmetric(&logits, embeddings)
    }
}

/// The mean of the cross-entropies of rows and of columns.
pub(super) fn symmetric(logits: &Tensor, embeddings: &Embeddings) -> Result<Tensor> {
    let rows = cross_entropy(logits, &embeddings.pairing)?;
    let columns = cross_entropy(&logits.t()?.contiguous()?, &embeddings.pairing)?;
    Ok(((rows + columns)? * 0.5)?)
}
