//! A scaffold for training from nothing: pictures and captions are sorted into concepts by a table that is thrown away afterwards.

use candle_core::Tensor;
use crossmodal_nn::l2_normalise;

use super::cross_entropy::log_softmax;
use super::{Embeddings, Loss, Needs};
use crate::error::{Error, Result};

/// The table and what the samples of a batch show.
#[derive(Debug, Clone)]
pub struct Concepts {
    /// One vector per concept, `[concepts, width]`, of any length.
    pub table: Tensor,
    /// The concept of each pair, a row of the table.
    pub numbers: Vec<u32>,
}

/// The cross-entropy between a sample's concept and the softmax of its scaled cosines with all concepts' vectors, averaged over both sides. A batch's few negatives say
/// little to a model that knows nothing yet; a table of all concepts says more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConceptSoftmax {
    /// The factor on cosines.
    pub scale: f64,
}

impl Default for ConceptSoftmax {
    fn default() -> Self {
        Self { scale: 1.0 / 0.07 }
    }
}

impl Loss for ConceptSoftmax {
    fn name(&self) -> &'static str {
        "concepts"
    }

    fn needs(&self) -> Needs {
        Needs { concepts: true, ..Needs::default() }
    }

    fn value(&self, embeddings: &Embeddings) -> Result<Tensor> {
        let batch = embeddings.batch()?;
        let missing =
            || Error::Invalid("the loss `concepts` needs data that names concepts, but the batch doesn't".into());
        let Concepts { table, numbers } = embeddings.concepts.as_ref().ok_or_else(missing)?;
        let all = table.dim(0)?;
        if numbers.len() != batch || numbers.iter().any(|number| *number as usize >= all) {
            let most = numbers.iter().max().copied().unwrap_or_default();
            return Err(Error::Invalid(format!(
                "{} concepts up to number {most} for {batch} pairs, expected one each, below {all}",
                numbers.len()
            )));
        }
        let table = (l2_normalise(table)?.t()? * self.scale)?;
        let own = Tensor::from_slice(numbers, (batch, 1), table.device())?;
        let side = |x: &Tensor| Ok::<_, Error>(log_softmax(&x.matmul(&table)?)?.gather(&own, 1)?.mean_all()?);
        Ok(((side(&embeddings.left)? + side(&embeddings.right)?)? * -0.5)?)
    }
}
