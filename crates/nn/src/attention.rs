//! Multi-head self-attention.

use candle_core::{D, DType, Device, Error, Result, Tensor};

use crate::linear::{Linear, multiply};
use crate::ops::attention::{KernelMask, packed_attention, pooled_attention};
use crate::ops::on_processor;

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

    /// The mask of one query of each sequence, at the positions `at`, as something to add to scores `[batch, heads, 1, tokens]`.
    fn of_queries(&self, at: &[u32], tokens: usize, dtype: DType, device: &Device) -> Result<Option<Tensor>> {
        if let Some(position) = at.iter().find(|position| **position as usize >= tokens) {
            return Err(Error::Msg(format!("position {position} in sequences of {tokens} tokens")).bt());
        }
        match self {
            Self::Full => Ok(None),
            Self::Causal => {
                let term = |at: u32, key: u32| if key > at { f32::NEG_INFINITY } else { 0.0 };
                let row = |at: &u32| (0..tokens as u32).map(|key| term(*at, key)).collect::<Vec<f32>>();
                let values: Vec<f32> = at.iter().flat_map(row).collect();
                Ok(Some(Tensor::from_vec(values, (at.len(), 1, 1, tokens), device)?.to_dtype(dtype)?))
            }
            Self::Additive(mask) => {
                let mask = mask.broadcast_as((at.len(), mask.dim(D::Minus(3)).unwrap_or(1), tokens, tokens))?;
                let row = |(sequence, at): (usize, &u32)| mask.narrow(0, sequence, 1)?.narrow(2, *at as usize, 1);
                let rows: Vec<Tensor> = at.iter().enumerate().map(row).collect::<Result<_>>()?;
                Ok(Some(Tensor::cat(&rows, 0)?))
            }
        }
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

    /// The projection to queries, keys and values.
    pub fn qkv(&self) -> &Linear {
        &self.qkv
    }

    /// The projection of the mixed values.
    pub fn out(&self) -> &Linear {
        &self.out
    }

    /// Number of heads.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// The same attention with parameters that lie in row-major order.
    pub(crate) fn contiguous(&self) -> Result<Self> {
        Ok(Self { qkv: self.qkv.contiguous()?, out: self.out.contiguous()?, heads: self.heads })
    }

    /// Maps `[batch, tokens, width]` to the same shape.
    ///
    /// # Errors
    /// A width that doesn't fit.
    pub fn forward(&self, x: &Tensor, mask: &AttentionMask) -> Result<Tensor> {
        let (batch, tokens, width) = x.dims3()?;
        let (heads, head_width) = (self.heads, width / self.heads);
        let (qkv, products) = (self.qkv.forward(x)?, self.qkv.products());
        if products.is_none()
            && on_processor([&qkv])
            && let Some(mask) = KernelMask::of(mask, batch, tokens, tokens)?
        {
            return self.out.forward(&packed_attention(&qkv, heads, mask)?);
        }
        let qkv = qkv.reshape((batch, tokens, 3, heads, head_width))?.permute((2, 0, 3, 1, 4))?;
        let [q, k, v] = [0, 1, 2].map(|part| qkv.get(part).and_then(|t| t.contiguous()));
        let q = (q? * (head_width as f64).powf(-0.5))?;
        let scores = multiply(&q, &k?.transpose(2, 3)?, products)?;
        let scores = match mask.additive(tokens, scores.dtype(), x.device())? {
            None => scores,
            Some(mask) => scores.broadcast_add(&mask)?,
        };
        let mixed = multiply(&softmax_last_dim(&scores)?, &v?, products)?;
        self.out.forward(&mixed.transpose(1, 2)?.reshape((batch, tokens, width))?)
    }

    /// Attention of one token of each sequence to all of it: from `x` `[batch, tokens, width]`, all tokens, and `pooled` `[batch, width]`,
    /// those at the positions `at`, what [`forward`](Self::forward) gives at these, `[batch, width]`.
    ///
    /// # Errors
    /// Shapes that don't fit, or a position that doesn't exist.
    pub fn forward_pooled(&self, x: &Tensor, pooled: &Tensor, at: &[u32], mask: &AttentionMask) -> Result<Tensor> {
        let (batch, tokens, width) = x.dims3()?;
        let (heads, head_width) = (self.heads, width / self.heads);
        let queries = self.qkv.to_outputs(0..width)?.forward(pooled)?;
        let keys = self.qkv.to_outputs(width..3 * width)?.forward(x)?;
        let mask = mask.of_queries(at, tokens, x.dtype(), x.device())?;
        let products = self.qkv.products();
        if products.is_none() && on_processor([&queries, &keys]) {
            let wanted = mask.as_ref().map_or(AttentionMask::Full, |mask| AttentionMask::Additive(mask.clone()));
            if let Some(mask) = KernelMask::of(&wanted, batch, 1, tokens)? {
                return self.out.forward(&pooled_attention(&queries, &keys, heads, mask)?);
            }
        }
        let queries = (queries.reshape((batch, heads, 1, head_width))? * (head_width as f64).powf(-0.5))?;
        let keys = keys.reshape((batch, tokens, 2, heads, head_width))?.permute((2, 0, 3, 1, 4))?;
        let [k, v] = [0, 1].map(|part| keys.get(part).and_then(|t| t.contiguous()));
        let scores = multiply(&queries, &k?.transpose(2, 3)?.contiguous()?, products)?;
        let scores = match mask {
            None => scores,
            Some(mask) => scores.broadcast_add(&mask)?,
        };
        self.out.forward(&multiply(&softmax_last_dim(&scores)?, &v?, products)?.reshape((batch, width))?)
    }
}
