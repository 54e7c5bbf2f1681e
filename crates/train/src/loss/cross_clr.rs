//! CrossCLR: also pushes apart samples of one modality, weights well connected ones, and prunes them from negatives.

use candle_core::{D, DType, Tensor};
use crossmodal_nn::l2_normalise;

use super::cross_entropy::{cross_entropy, diagonal, log_sum_exp};
use super::{Embeddings, Loss, Pairing};
use crate::error::Result;

/// Which of the two published forms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CrossClrForm {
    /// As the paper describes it: `lambda` multiplies the exponentials of intra-modal negatives.
    Paper {
        /// The weight of intra-modal negatives; 0 leaves them out.
        lambda: f64,
        /// How sharply well connected samples are weighted; `None` weights all alike.
        kappa: Option<f64>,
        /// Share of the greatest connectivity above which a sample is pruned from negatives; `None` prunes none.
        gamma: Option<f64>,
    },
    /// As its public code does it: the weight multiplies the logits of intra-modal negatives, whose diagonal stays in the sum as logit 0.
    Release {
        /// The factor on intra-modal logits.
        negative_weight: f64,
    },
}

/// CrossCLR (Zolfaghari et al. 2021), with a temperature of its own that isn't learned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CrossClr {
    /// The temperature that cosines are divided by.
    pub tau: f64,
    /// Which form.
    pub form: CrossClrForm,
}

impl Default for CrossClr {
    fn default() -> Self {
        Self { tau: 0.03, form: CrossClrForm::Paper { lambda: 0.8, kappa: Some(0.0035), gamma: Some(0.9) } }
    }
}

impl Loss for CrossClr {
    fn name(&self) -> &'static str {
        match self.form {
            CrossClrForm::Paper { .. } => "crossclr",
            CrossClrForm::Release { .. } => "crossclr-release",
        }
    }

    fn value(&self, embeddings: &Embeddings) -> Result<Tensor> {
        embeddings.batch()?;
        let Embeddings { left, right, features, pairing, .. } = embeddings;
        let inter = (left.matmul(&right.t()?)? / self.tau)?;
        let transposed = inter.t()?.contiguous()?;
        let halves = match self.form {
            CrossClrForm::Release { negative_weight } => {
                let half = |inter: &Tensor, x: &Tensor| self.release_half(inter, x, negative_weight, pairing);
                [half(&inter, left)?, half(&transposed, right)?]
            }
            CrossClrForm::Paper { lambda, kappa, gamma } => {
                let (left_features, right_features) =
                    features.clone().unwrap_or_else(|| (left.detach(), right.detach()));
                let of = |features: &Tensor| Connectivity::of(features, kappa, gamma);
                let (own, other) = (of(&left_features)?, of(&right_features)?);
                let first = self.paper_half(&inter, left, lambda, (&own, &other), pairing)?;
                [first, self.paper_half(&transposed, right, lambda, (&other, &own), pairing)?]
            }
        };
        let [first, second] = halves;
        Ok(((first + second)? * 0.5)?)
    }
}

impl CrossClr {
    /// One direction of the paper's form. `inter` are logits with the other side, `x` this side's embeddings.
    fn paper_half(
        &self,
        inter: &Tensor,
        x: &Tensor,
        lambda: f64,
        (own, other): (&Connectivity, &Connectivity),
        pairing: &Pairing,
    ) -> Result<Tensor> {
        let batch = pairing.len();
        let positives = diagonal(inter)?;
        let mut negatives = vec![(inter + other.mask(batch, true, inter)?)?];
        if lambda > 0.0 {
            let intra = ((x.matmul(&x.t()?)? / self.tau)? + lambda.ln())?;
            negatives.push((intra + own.mask(batch, false, inter)?)?);
        }
        if let Some(mask) = pairing.mask_unless_ignored(inter.dtype(), inter.device())? {
            negatives = negatives.iter().map(|logits| logits + &mask).collect::<candle_core::Result<_>>()?;
        }
        let all = Tensor::cat(&negatives, 1)?;
        let each = (log_sum_exp(&all)? - positives)?.squeeze(1)?;
        let weights = Tensor::from_slice(&own.weights, batch, inter.device())?.to_dtype(inter.dtype())?;
        Ok((each * weights)?.sum_all()?)
    }

    fn release_half(&self, inter: &Tensor, x: &Tensor, weight: f64, pairing: &Pairing) -> Result<Tensor> {
        let batch = pairing.len();
        let off_diagonal = (1.0 - Tensor::eye(batch, inter.dtype(), inter.device())?)?;
        let mut intra = ((x.matmul(&x.t()?)? * (weight / self.tau))? * off_diagonal)?;
        if let Some(mask) = pairing.mask_unless_ignored(inter.dtype(), inter.device())? {
            intra = (intra + mask)?;
        }
        cross_entropy(&Tensor::cat(&[inter, &intra], 1)?, pairing)
    }
}

/// How well the samples of one side are connected; nothing of it has a gradient.
struct Connectivity {
    /// Weights of the samples, of sum 1.
    weights: Vec<f64>,
    /// Whether a sample is so well connected that it is no negative.
    pruned: Vec<bool>,
}

impl Connectivity {
    /// `C(i)`, the sum of cosines with the others over the size of the batch, and what follows from it.
    fn of(features: &Tensor, kappa: Option<f64>, gamma: Option<f64>) -> Result<Self> {
        let unit = l2_normalise(&features.detach().to_dtype(DType::F64)?)?;
        let batch = unit.dim(0)?;
        let all: Vec<f64> = unit.matmul(&unit.t()?)?.sum(D::Minus1)?.to_vec1()?;
        // A unit vector's cosine with itself is 1.
        let connectivity: Vec<f64> = all.iter().map(|sum| (sum - 1.0) / batch as f64).collect();
        let greatest = connectivity.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // Shares of a maximum that isn't positive mean nothing.
        let is_pruned = |c: &f64| gamma.is_some_and(|gamma| greatest > 0.0 && c / greatest > gamma);
        let pruned = connectivity.iter().map(is_pruned).collect();
        // Relative to the greatest, so that no exponential overflows.
        let weight = |c: &f64| kappa.map_or(1.0, |kappa| ((c - greatest) / kappa).exp());
        let weights: Vec<f64> = connectivity.iter().map(weight).collect();
        let sum: f64 = weights.iter().sum();
        Ok(Self { weights: weights.iter().map(|weight| weight / sum).collect(), pruned })
    }

    /// What is to be added to logits `[batch, batch]` so that pruned columns are no negatives. On the diagonal there is the positive, which stays, or the sample
    /// itself, which doesn't.
    fn mask(&self, batch: usize, keep_diagonal: bool, like: &Tensor) -> Result<Tensor> {
        let blocked = |row: usize, column: usize| {
            if row == column { !keep_diagonal } else { self.pruned[column] }
        };
        let cells = (0..batch * batch).map(|cell| blocked(cell / batch, cell % batch));
        let cells: Vec<f32> = cells.map(|blocked| if blocked { f32::NEG_INFINITY } else { 0.0 }).collect();
        Ok(Tensor::from_vec(cells, (batch, batch), like.device())?.to_dtype(like.dtype())?)
    }
}
