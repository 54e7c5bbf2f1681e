//! The affine map `y = x W^T + b`, with what follows it folded in where no gradient is asked for.

use candle_core::{Result, Tensor};
use crossmodal_kernels::rows;

use crate::activation::Activation;
use crate::fused::{Plain, in_place, open};

/// The affine map `y = x W^T + b`.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// A map with `weight` of shape `[out, in]` and `bias` of shape `[out]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// Maps the last dimension of `x` from `in` to `out`.
    ///
    /// # Errors
    /// A last dimension other than `in`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.product(x)?;
        let Some(bias) = &self.bias else { return Ok(y) };
        match Plain::of(bias).filter(|_| open(&[&y])) {
            Some(bias) => in_place(&y, |y| rows::bias_activation(y, bias.slice(), None))?,
            None => return y.broadcast_add(bias),
        }
        Ok(y)
    }

    /// `activation(forward(x))`.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub(crate) fn forward_activated(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        if let Some(bias) = self.bias.as_ref().and_then(Plain::of) {
            let y = self.product(x)?;
            if open(&[&y]) {
                in_place(&y, |y| rows::bias_activation(y, bias.slice(), Some(activation.kernel())))?;
                return Ok(y);
            }
        }
        activation.forward(&self.forward(x)?)
    }

    /// `residual + forward(x) * gain`.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and a residual of another shape.
    pub(crate) fn forward_onto(&self, x: &Tensor, residual: &Tensor, gain: Option<&Tensor>) -> Result<Tensor> {
        if let (Some(bias), Some(gain), Some(onto)) =
            (self.bias.as_ref().and_then(Plain::of), Plain::maybe(gain), Plain::of(residual))
        {
            let y = self.product(x)?;
            if y.dims() == residual.dims() && open(&[&y]) {
                let gain = gain.as_ref().map(Plain::slice);
                in_place(&y, |y| rows::add_residual(onto.slice(), y, bias.slice(), gain))?;
                return Ok(y);
            }
        }
        let branch = self.forward(x)?;
        let branch = match gain {
            Some(gain) => branch.broadcast_mul(gain)?,
            None => branch,
        };
        residual + branch
    }

    /// `x W^T` without the bias.
    pub(crate) fn product(&self, x: &Tensor) -> Result<Tensor> {
        let (out, inner) = self.weight.dims2()?;
        let mut shape = x.dims().to_vec();
        // One two-dimensional product whatever the leading dimensions: a broadcast batched product is much slower.
        let y = x.reshape(((), inner))?.matmul(&self.weight.t()?)?;
        if let Some(last) = shape.last_mut() {
            *last = out;
        }
        y.reshape(shape)
    }

    pub(crate) fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }
}
