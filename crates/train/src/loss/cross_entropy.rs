//! Softmax cross-entropy over the rows of a matrix of logits.

use candle_core::{D, Tensor};

use super::Pairing;
use crate::error::Result;

/// `log(sum(exp(row)))` as a column. Minus infinity is a term of 0, as long as a row has others.
pub(super) fn log_sum_exp(logits: &Tensor) -> Result<Tensor> {
    // The shift changes neither value nor gradient.
    let largest = logits.detach().max_keepdim(D::Minus1)?;
    let sum = logits.broadcast_sub(&largest)?.exp()?.sum_keepdim(D::Minus1)?;
    Ok((sum.log()? + largest)?)
}

/// The logarithm of the softmax over rows.
pub(super) fn log_softmax(logits: &Tensor) -> Result<Tensor> {
    Ok(logits.broadcast_sub(&log_sum_exp(logits)?)?)
}

/// Element `i` of row `i`, as a column.
pub(super) fn diagonal(matrix: &Tensor) -> Result<Tensor> {
    let rows = matrix.dim(0)?;
    let places = Tensor::arange(0u32, rows as u32, matrix.device())?.reshape((rows, 1))?;
    Ok(matrix.gather(&places, 1)?)
}

/// The mean over rows of the cross-entropy between a row's softmax and its targets: its own column, and its duplicates' where they are positives. Columns beyond
/// the number of pairs are negatives of all.
pub(super) fn cross_entropy(logits: &Tensor, pairing: &Pairing) -> Result<Tensor> {
    let (dtype, device, pairs) = (logits.dtype(), logits.device(), pairing.len());
    let logits = match pairing.mask(dtype, device)? {
        Some(mask) => (logits + mask.pad_with_zeros(1, 0, logits.dim(1)? - pairs)?)?,
        None => logits.clone(),
    };
    let expected = match pairing.targets(dtype, device)? {
        Some(targets) => (logits.narrow(1, 0, pairs)?.contiguous()? * targets)?.sum_keepdim(1)?,
        None => diagonal(&logits)?,
    };
    Ok((log_sum_exp(&logits)? - expected)?.mean_all()?)
}

/// The mean over rows of the cross-entropy between given targets, each row of sum 1, and a row's softmax.
pub(super) fn soft_cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let rows = logits.dim(0)?;
    Ok(((log_softmax(logits)? * targets)?.sum_all()? * (-1.0 / rows as f64))?)
}
