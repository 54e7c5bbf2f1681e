//! The sigmoid loss: each pair is judged on its own.

use candle_core::Tensor;

use super::{Embeddings, Loss, Needs};
use crate::error::{Error, Result};

/// `-(1/N) sum_ij log sigmoid(z_ij (exp(log_scale) x_i.y_j + bias))` with `z` 1 for pairs that belong together and -1 for others (Zhai et al. 2023).
#[derive(Debug, Clone, Copy, Default)]
pub struct SigLip;

impl Loss for SigLip {
    fn name(&self) -> &'static str {
        "siglip"
    }

    fn needs(&self) -> Needs {
        Needs { bias: true, ..Needs::default() }
    }

    fn value(&self, embeddings: &Embeddings) -> Result<Tensor> {
        if embeddings.temperature.bias.is_none() {
            return Err(Error::Invalid("siglip needs a logit bias, but the model has none".into()));
        }
        let logits = embeddings.temperature.logits(&embeddings.similarities()?)?;
        let signs = embeddings.pairing.signs(logits.dtype(), logits.device())?;
        // -log sigmoid(z l) is softplus(-z l); where z is 0 the pair is left out.
        let wrong = (logits * &signs)?.neg()?;
        let softplus = (wrong.relu()? + (wrong.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
        let counted = softplus * signs.abs()?;
        Ok((counted?.sum_all()? / embeddings.batch()? as f64)?)
    }
}
