//! The affine map `y = x W^T + b`.

use candle_core::{Result, Tensor};

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
        let (out, inner) = self.weight.dims2()?;
        let mut shape = x.dims().to_vec();
        // One two-dimensional product whatever the leading dimensions: a broadcast batched product is much slower.
        let y = x.reshape(((), inner))?.matmul(&self.weight.t()?)?;
        if let Some(last) = shape.last_mut() {
            *last = out;
        }
        let y = y.reshape(shape)?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}
