//! Multi-head self-attention.

use candle_core::{D, DType, Device, Result, Tensor};

use crate::linear::Linear;

/// Which positions a position may attend to.
#[derive(Debug, Clone)]
pub enum AttentionMask {
    /// All of them.
    Full,
    /// Position `i` attends to positions up to `i`.
    Causal,
    /// An additive mask, 0 or minus infinity, that broadcasts to `[batch, heads, tokens, tokens]`.
    Additive(Tensor),
}

impl AttentionMask {
    /// As [`Causal`](Self::Causal), and no position attends to a key whose entry in `present` (`[batch][tokens]`) is
    /// false.
    ///
    /// # Errors
    /// Rows of unequal length.
    pub fn causal_with_padding(present: &[Vec<bool>], dtype: DType, device: &Device) -> Result<Self> {
        let tokens = present.first().map_or(0, Vec::len);
        let mut mask = Vec::with_capacity(present.len() * tokens * tokens);
        for row in present {
            for query in 0..tokens {
                let blocked = row.iter().enumerate().map(|(key, present)| key > query || !present);
                mask.extend(blocked.map(|blocked| if blocked { f32::NEG_INFINITY } else { 0.0 }));
            }
        }
        Ok(Self::Additive(Tensor::from_vec(mask, (present.len(), 1, tokens, tokens), device)?.to_dtype(dtype)?))
    }

    /// The mask as something to add, for `tokens` positions; `None` where nothing is masked.
    fn additive(&self, tokens: usize, dtype: DType, device: &Device) -> Result<Option<Tensor>> {
        match self {
            Self::Full => Ok(None),
            Self::Additive(mask) => Ok(Some(mask.clone())),
            Self::Causal => match Self::causal_with_padding(&[vec![true; tokens]], dtype, device)? {
                Self::Additive(mask) => Ok(Some(mask)),
                Self::Full | Self::Causal => Ok(None),
            },
        }
    }
}

/// Softmax over the last dimension, differentiable.
///
/// # Errors
/// Failures of the tensor library.
pub fn softmax_last_dim(x: &Tensor) -> Result<Tensor> {
    let exp = x.broadcast_sub(&x.max_keepdim(D::Minus1)?)?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
}

/// Multi-head self-attention with one packed projection for queries, keys and values, scaled by `head_width^-0.5`.
#[derive(Debug, Clone)]
pub struct SelfAttention {
    qkv: Linear,
    out: Linear,
    heads: usize,
}

impl SelfAttention {
    /// Attention with `qkv` from `[width]` to `[3 * width]` (queries, keys, values in that order), `out` from `[width]`
    /// to `[width]`. `heads` divides the width.
    pub fn new(qkv: Linear, out: Linear, heads: usize) -> Self {
        Self { qkv, out, heads }
    }

    /// Maps `[batch, tokens, width]` to the same shape.
    ///
    /// # Errors
    /// A width that doesn't fit.
    pub fn forward(&self, x: &Tensor, mask: &AttentionMask) -> Result<Tensor> {
        let (batch, tokens, width) = x.dims3()?;
        let (heads, head_width) = (self.heads, width / self.heads);
        let qkv = self.qkv.forward(x)?.reshape((batch, tokens, 3, heads, head_width))?.permute((2, 0, 3, 1, 4))?;
        let [q, k, v] = [0, 1, 2].map(|part| qkv.get(part).and_then(|t| t.contiguous()));
        let q = (q? * (head_width as f64).powf(-0.5))?;
        let scores = q.matmul(&k?.transpose(2, 3)?)?;
        let scores = match mask.additive(tokens, scores.dtype(), x.device())? {
            None => scores,
            Some(mask) => scores.broadcast_add(&mask)?,
        };
        let mixed = softmax_last_dim(&scores)?.matmul(&v?)?;
        self.out.forward(&mixed.transpose(1, 2)?.reshape((batch, tokens, width))?)
    }
}
