//! Matryoshka: the first few dimensions are to be a good embedding by themselves.

use candle_core::Tensor;
use crossmodal_nn::l2_normalise;

use super::{Embeddings, Loss, Needs};
use crate::error::{Error, Result};

/// The weighted mean of a loss over embeddings cut to their first dimensions and made unit vectors again (Kusupati et al. 2022). The teacher of a distillation isn't cut.
#[derive(Debug)]
pub struct Matryoshka {
    /// The loss.
    pub inner: Box<dyn Loss>,
    /// Numbers of dimensions, each with its weight; the whole width counts only if it is among them.
    pub widths: Vec<(usize, f64)>,
}

impl Loss for Matryoshka {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn needs(&self) -> Needs {
        self.inner.needs()
    }

    fn value(&self, embeddings: &Embeddings) -> Result<Tensor> {
        let whole = embeddings.left.dim(1)?;
        let sum: f64 = self.widths.iter().map(|(_, weight)| weight).sum();
        let mut total: Option<Tensor> = None;
        for (width, weight) in &self.widths {
            let value = (self.inner.value(&cut(embeddings, *width, whole)?)? * (weight / sum))?;
            total = Some(match total {
                Some(total) => (total + value)?,
                None => value,
            });
        }
        total.ok_or_else(|| Error::Invalid("matryoshka needs at least one width, but there is none".into()))
    }
}

fn cut(embeddings: &Embeddings, width: usize, whole: usize) -> Result<Embeddings> {
    if width == whole {
        return Ok(embeddings.clone());
    }
    if width == 0 || width > whole {
        return Err(Error::Invalid(format!("matryoshka width {width}, expected 1 to {whole}, the model's dimensions")));
    }
    let cut = |x: &Tensor| Ok::<_, Error>(l2_normalise(&x.narrow(1, 0, width)?.contiguous()?)?);
    Ok(Embeddings {
        left: cut(&embeddings.left)?,
        right: cut(&embeddings.right)?,
        negatives: embeddings.negatives.as_ref().map(cut).transpose()?,
        ..embeddings.clone()
    })
}
