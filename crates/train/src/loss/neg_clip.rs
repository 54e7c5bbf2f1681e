//! NegCLIP: captions with their words in another order are hard negatives.

use candle_core::Tensor;

use super::cross_entropy::cross_entropy;
use super::{Embeddings, Loss, Needs};
use crate::error::{Error, Result};

/// As InfoNCE, but a picture chooses among all captions and all their hard negatives (Yuksekgonul et al. 2023).
#[derive(Debug, Clone, Copy, Default)]
pub struct NegClip;

impl Loss for NegClip {
    fn name(&self) -> &'static str {
        "negclip"
    }

    fn needs(&self) -> Needs {
        Needs { negatives: true, ..Needs::default() }
    }

    fn value(&self, embeddings: &Embeddings) -> Result<Tensor> {
        let Embeddings { left, negatives, temperature, pairing, .. } = embeddings;
        let missing = || Error::Invalid("negclip needs hard negatives, but the batch has none".into());
        let negatives = negatives.as_ref().ok_or_else(missing)?;
        let similarities = embeddings.similarities()?;
        let harder = left.matmul(&negatives.t()?)?;
        let pictures = temperature.logits(&Tensor::cat(&[&similarities, &harder], 1)?)?;
        let captions = temperature.logits(&similarities.t()?.contiguous()?)?;
        Ok(((cross_entropy(&pictures, pairing)? + cross_entropy(&captions, pairing)?)? * 0.5)?)
    }
}
