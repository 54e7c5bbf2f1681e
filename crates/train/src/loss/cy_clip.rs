//! CyCLIP: the geometry of both sides is to be the same.

use candle_core::Tensor;

use super::info_nce::symmetric;
use super::{Embeddings, Loss};
use crate::error::Result;

/// InfoNCE, plus consistency between modalities, `(1/N) sum_jk (s_jk - s_kj)^2`, and within them, `(1/N) sum_jk (x_j.x_k - y_j.y_k)^2`, on cosines without the scale
/// (Goel et al. 2022).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CyClip {
    /// Weight of the consistency within modalities.
    pub within: f64,
    /// Weight of the consistency between modalities.
    pub across: f64,
}

impl Default for CyClip {
    fn default() -> Self {
        Self { within: 0.25, across: 0.25 }
    }
}

impl Loss for CyClip {
    fn name(&self) -> &'static str {
        "cyclip"
    }

    fn value(&self, embeddings: &Embeddings) -> Result<Tensor> {
        let batch = embeddings.batch()? as f64;
        let Embeddings { left, right, .. } = embeddings;
        let similarities = embeddings.similarities()?;
        let across = (&similarities - similarities.t()?.contiguous()?)?.sqr()?.sum_all()?;
        let within = (left.matmul(&left.t()?)? - right.matmul(&right.t()?)?)?.sqr()?.sum_all()?;
        let contrast = symmetric(&embeddings.temperature.logits(&similarities)?, embeddings)?;
        Ok(((contrast + (within * (self.within / batch))?)? + (across * (self.across / batch))?)?)
    }
}
