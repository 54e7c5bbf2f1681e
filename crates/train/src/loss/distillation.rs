//! Distillation: a larger model's embeddings of the same batch are the target.

use candle_core::Tensor;
use crossmodal_nn::softmax_last_dim;

use super::cross_entropy::{cross_entropy, soft_cross_entropy};
use super::{Embeddings, Loss, Needs, Teacher};
use crate::error::{Error, Result};

const NEEDS: Needs = Needs { negatives: false, teacher: true, bias: false, concepts: false };

/// The mean squared difference of the unit vectors, both sides added (CLIP-KD, Yang et al. 2024). Teacher and student must be of one width.
#[derive(Debug, Clone, Copy, Default)]
pub struct FeatureDistillation;

impl Loss for FeatureDistillation {
    fn name(&self) -> &'static str {
        "feature-distillation"
    }

    fn needs(&self) -> Needs {
        NEEDS
    }

    fn value(&self, embeddings: &Embeddings) -> Result<Tensor> {
        let teacher = embeddings.teacher(self.name())?;
        same_width(self.name(), embeddings, teacher)?;
        let gap = |own: &Tensor, theirs: &Tensor| Ok::<_, Error>((own - theirs)?.sqr()?.mean_all()?);
        Ok((gap(&embeddings.left, &teacher.left)? + gap(&embeddings.right, &teacher.right)?)?)
    }
}

/// The cross-entropy between the teacher's and the student's softmax over a batch, from left to right and from right to left, averaged; each with its own scale
/// (affinity mimicking of TinyCLIP, Wu et al. 2023; open_clip's distillation is the same). Teacher and student may be of different widths.
#[derive(Debug, Clone, Copy, Default)]
pub struct AffinityMimicking;

impl Loss for AffinityMimicking {
    fn name(&self) -> &'static str {
        "affinity-mimicking"
    }

    fn needs(&self) -> Needs {
        NEEDS
    }

    fn value(&self, embeddings: &Embeddings) -> Result<Tensor> {
        let teacher = embeddings.teacher(self.name())?;
        let targets = (teacher.left.matmul(&teacher.right.t()?)? * teacher.scale)?;
        let logits = embeddings.temperature.logits(&embeddings.similarities()?)?;
        let rows = soft_cross_entropy(&logits, &softmax_last_dim(&targets)?)?;
        let columns = soft_cross_entropy(&logits.t()?.contiguous()?, &softmax_last_dim(&targets.t()?.contiguous()?)?)?;
        Ok(((rows + columns)? * 0.5)?)
    }
}

/// InfoNCE between the student's left and the teacher's right side, and the other way round, averaged, with the student's scale (interactive contrastive learning of
/// CLIP-KD). Its public code multiplies by the logarithm of the scale; here it is the scale itself. Teacher and student must be of one width.
#[derive(Debug, Clone, Copy, Default)]
pub struct InteractiveDistillation;

impl Loss for InteractiveDistillation {
    fn name(&self) -> &'static str {
        "interactive-distillation"
    }

    fn needs(&self) -> Needs {
        NEEDS
    }

    fn value(&self, embeddings: &Embeddings) -> Result<Tensor> {
        let Embeddings { left, right, temperature, pairing, .. } = embeddings;
        let teacher = embeddings.teacher(self.name())?;
        same_width(self.name(), embeddings, teacher)?;
        let with =
            |own: &Tensor, theirs: &Tensor| cross_entropy(&temperature.logits(&own.matmul(&theirs.t()?)?)?, pairing);
        Ok(((with(left, &teacher.right)? + with(right, &teacher.left)?)? * 0.5)?)
    }
}

fn same_width(loss: &str, embeddings: &Embeddings, teacher: &Teacher) -> Result<()> {
    let (own, theirs) = (embeddings.left.dim(1)?, teacher.left.dim(1)?);
    if own == theirs {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "{loss}: the teacher's vectors have {theirs} dimensions, expected the model's {own}; affinity-mimicking works with any"
    )))
}
