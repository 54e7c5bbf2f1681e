//! Losses: functions of the embeddings of a batch, differentiable, each in a file of its own.
//!
//! All take unit vectors, so that a loss can be put on parts of them ([`Matryoshka`]) or on cached ones (gradients in pieces). They compute in the type of
//! their inputs; tests compare values and gradients in `f64` with references.

mod concepts;
mod cross_clr;
mod cross_entropy;
mod cy_clip;
mod distillation;
mod info_nce;
mod matryoshka;
mod neg_clip;
mod pairing;
mod sig_lip;
mod weighted_sum;

use candle_core::Tensor;

pub use concepts::{ConceptSoftmax, Concepts};
pub use cross_clr::{CrossClr, CrossClrForm};
pub use cy_clip::CyClip;
pub use distillation::{AffinityMimicking, FeatureDistillation, InteractiveDistillation};
pub use info_nce::InfoNce;
pub use matryoshka::Matryoshka;
pub use neg_clip::NegClip;
pub use pairing::{Duplicates, Pairing};
pub use sig_lip::SigLip;
pub use weighted_sum::{Term, TermValue, WeightedSum};

use crate::error::{Error, Result};

/// What turns similarities into logits: `exp(log_scale) * similarity + bias`.
#[derive(Debug, Clone)]
pub struct Temperature {
    /// Logarithm of the scale, a scalar.
    pub log_scale: Tensor,
    /// Added after scaling, a scalar; models of the sigmoid loss have one.
    pub bias: Option<Tensor>,
}

impl Temperature {
    /// Logits of similarities of any shape.
    ///
    /// # Errors
    /// Failures of the tensor library.
    pub fn logits(&self, similarities: &Tensor) -> Result<Tensor> {
        let scaled = similarities.broadcast_mul(&self.log_scale.exp()?)?;
        Ok(match &self.bias {
            Some(bias) => scaled.broadcast_add(bias)?,
            None => scaled,
        })
    }
}

/// What a larger model makes of the same batch.
#[derive(Debug, Clone)]
pub struct Teacher {
    /// Unit vectors `[batch, teacher width]` of the left side.
    pub left: Tensor,
    /// Unit vectors `[batch, teacher width]` of the right side.
    pub right: Tensor,
    /// The factor on the teacher's cosines: `exp` of its logit scale.
    pub scale: f64,
}

/// The embeddings of a batch, and what else losses look at.
#[derive(Debug, Clone)]
pub struct Embeddings {
    /// Unit vectors `[batch, width]`.
    pub left: Tensor,
    /// Unit vectors `[batch, width]`; row `i` belongs to row `i` of `left`.
    pub right: Tensor,
    /// Unit vectors `[batch, width]` of hard negatives of the right side, where the batch has them.
    pub negatives: Option<Tensor>,
    /// What a larger model makes of the batch, for distillation.
    pub teacher: Option<Teacher>,
    /// Input features `[batch, any width]` of both sides, by which CrossCLR judges how well connected a sample is; without them it takes the embeddings themselves,
    /// without gradient.
    pub features: Option<(Tensor, Tensor)>,
    /// The scaffold's table, and what the pairs show.
    pub concepts: Option<Concepts>,
    /// What turns similarities into logits.
    pub temperature: Temperature,
    /// Which pairs belong together.
    pub pairing: Pairing,
}

impl Embeddings {
    /// Number of pairs.
    ///
    /// # Errors
    /// Embeddings that aren't matrices of one shape.
    pub fn batch(&self) -> Result<usize> {
        let (left, right) = (self.left.dims2()?, self.right.dims2()?);
        if left != right {
            return Err(Error::Invalid(format!("embeddings of shapes {left:?} and {right:?}, expected equal ones")));
        }
        if left.0 != self.pairing.len() {
            let pairs = self.pairing.len();
            return Err(Error::Invalid(format!("{} embeddings with the contents of {pairs} pairs", left.0)));
        }
        Ok(left.0)
    }

    /// Cosines `[batch, batch]` of left with right.
    ///
    /// # Errors
    /// Shapes that don't fit.
    pub fn similarities(&self) -> Result<Tensor> {
        self.batch()?;
        Ok(self.left.matmul(&self.right.t()?)?)
    }

    /// The share of left samples whose most similar right one belongs to them, from 0 to 1.
    ///
    /// # Errors
    /// Shapes that don't fit.
    pub fn accuracy(&self) -> Result<f64> {
        let best: Vec<u32> = self.left.detach().matmul(&self.right.detach().t()?)?.argmax(1)?.to_vec1()?;
        let right = best.iter().enumerate().filter(|(row, best)| self.pairing.belong(*row, **best as usize));
        Ok(right.count() as f64 / best.len().max(1) as f64)
    }

    fn teacher(&self, loss: &str) -> Result<&Teacher> {
        self.teacher.as_ref().ok_or_else(|| Error::Invalid(format!("{loss} needs a teacher, but there is none")))
    }
}

/// What a loss needs besides the embeddings of both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// Hard negatives of the right side.
    pub negatives: bool,
    /// The embeddings of a teacher.
    pub teacher: bool,
    /// A logit bias.
    pub bias: bool,
    /// Concepts and their table.
    pub concepts: bool,
}

impl Needs {
    /// What either of two needs.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            negatives: self.negatives | other.negatives,
            teacher: self.teacher | other.teacher,
            bias: self.bias | other.bias,
            concepts: self.concepts | other.concepts,
        }
    }
}

/// A differentiable function of a batch's embeddings, to be made small.
pub trait Loss: Send + Sync + std::fmt::Debug {
    /// Its name in recipes and logs.
    fn name(&self) -> &'static str;

    /// What it needs besides the embeddings of both sides.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Its value, a scalar: the mean over the batch.
    ///
    /// # Errors
    /// Shapes that don't fit, or a batch without what the loss needs.
    fn value(&self, embeddings: &Embeddings) -> Result<Tensor>;
}
