//! Attention over packed queries, keys and values, with its gradient.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Error, Layout, Result, Shape, Tensor};
use crossmodal_kernels::differentiable_attention::{Attention, Gradients, Mask, Place};

use super::gradients::returned;
use super::{Values, crew, elements, on_processor, session};
use crate::attention::AttentionMask;

/// A mask that the kernels understand.
#[derive(Debug, Clone)]
pub(crate) enum KernelMask {
    Full,
    Causal,
    /// `[1 or batch, tokens, tokens]`, contiguous.
    Additive(Tensor),
}

impl KernelMask {
    /// The kernels' form of a mask, or none where it has no such form: one that differs from head to head, or needs a gradient.
    ///
    /// # Errors
    /// Failures of the tensor library.
    pub(crate) fn of(mask: &AttentionMask, batch: usize, queries: usize, keys: usize) -> Result<Option<Self>> {
        Ok(match mask {
            AttentionMask::Full => Some(Self::Full),
            AttentionMask::Causal => (queries == keys).then_some(Self::Causal),
            AttentionMask::Additive(mask) => {
                let fits = match *mask.dims() {
                    [sequences, 1, rows, columns] => {
                        (sequences == 1 || sequences == batch) && (rows, columns) == (queries, keys)
                    }
                    [rows, columns] => (rows, columns) == (queries, keys),
                    _ => false,
                };
                (fits && !mask.track_op() && on_processor([mask]))
                    .then(|| mask.contiguous().map(Self::Additive))
                    .transpose()?
            }
        })
    }

    /// Calls `work` with the mask as the kernels take it.
    ///
    /// # Errors
    /// Those of `work`.
    pub(crate) fn with<T>(&self, work: impl FnOnce(Mask<'_>) -> Result<T>) -> Result<T> {
        match self {
            Self::Full => work(Mask::Full),
            Self::Causal => work(Mask::Causal),
            Self::Additive(mask) => work(Mask::Additive(&Values::of(mask)?)),
        }
    }
}

struct PackedAttention {
    heads: usize,
    mask: KernelMask,
    /// Largest score and reciprocal sum of each row, `[batch, heads, tokens, 2]`.
    statistics: OnceLock<Vec<f32>>,
}

/// Maps queries, keys and values `[batch, tokens, 3 * width]` to mixed values `[batch, tokens, width]`.
///
/// # Errors
/// A width that the heads don't divide.
pub(crate) fn packed_attention(qkv: &Tensor, heads: usize, mask: KernelMask) -> Result<Tensor> {
    qkv.contiguous()?.apply_op1(PackedAttention { heads, mask, statistics: OnceLock::new() })
}

impl PackedAttention {
    /// Batch, tokens, and width of a head.
    fn shape(&self, layout: &Layout) -> Result<(usize, usize, usize)> {
        let (batch, tokens, packed) = layout.shape().dims3()?;
        if self.heads == 0 || tokens == 0 || packed == 0 || !packed.is_multiple_of(3 * self.heads) {
            let (shape, heads) = (layout.shape(), self.heads);
            return Err(Error::Msg(format!("attention of {heads} heads over a tensor of shape {shape:?}")).bt());
        }
        Ok((batch, tokens, packed / 3 / self.heads))
    }

    fn forward(&self, qkv: &[f32], (batch, tokens, head_width): (usize, usize, usize)) -> Result<(Vec<f32>, Vec<f32>)> {
        let mut out = vec![0.0; qkv.len() / 3];
        let mut statistics = vec![0.0; 2 * batch * self.heads * tokens];
        self.mask.with(|mask| {
            let attention = Attention::packed(qkv, tokens, (self.heads, head_width), mask);
            attention.forward(crew(&session()), &mut out, &mut statistics);
            Ok(())
        })?;
        Ok((out, statistics))
    }
}

impl CustomOp1 for PackedAttention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let shape = self.shape(layout)?;
        let (batch, tokens, head_width) = shape;
        let (out, statistics) = self.forward(elements(storage, layout)?, shape)?;
        // A second forward pass of the same operation would give the same.
        let _ = self.statistics.set(statistics);
        Ok((CpuStorage::F32(out), Shape::from((batch, tokens, self.heads * head_width))))
    }

    fn bwd(&self, qkv: &Tensor, _out: &Tensor, d_out: &Tensor) -> Result<Option<Tensor>> {
        if !qkv.track_op() {
            return Ok(None);
        }
        let (_, tokens, head_width) = self.shape(qkv.layout())?;
        let d_out = d_out.contiguous()?;
        let mut gradient = vec![0.0; qkv.elem_count()];
        let statistics = self.statistics.get().ok_or_else(|| Error::Msg("attention without a forward pass".into()))?;
        self.mask.with(|mask| {
            let values = Values::of(qkv)?;
            let attention = Attention::packed(&values, tokens, (self.heads, head_width), mask);
            let d_out = Values::of(&d_out)?;
            attention.backward(crew(&session()), statistics, &d_out, Gradients::Packed(&mut gradient));
            Ok(())
        })?;
        returned(qkv, gradient)
    }
}

/// Attention of one query a sequence.
struct PooledAttention {
    heads: usize,
    mask: KernelMask,
    /// Largest score and reciprocal sum of each row, `[batch, heads, 2]`.
    statistics: OnceLock<Vec<f32>>,
}

/// Mixes, for one query a sequence `[batch, width]`, the values of keys and values `[batch, tokens, 2 * width]`. The mask is of one query.
///
/// # Errors
/// Shapes that don't fit.
pub(crate) fn pooled_attention(queries: &Tensor, keys: &Tensor, heads: usize, mask: KernelMask) -> Result<Tensor> {
    let op = PooledAttention { heads, mask, statistics: OnceLock::new() };
    queries.contiguous()?.apply_op2(&keys.contiguous()?, op)
}

impl PooledAttention {
    /// Calls `work` with the attention over these operands.
    fn with<T>(
        &self,
        (queries, width): (&[f32], usize),
        (keys, tokens): (&[f32], usize),
        work: impl FnOnce(&Attention<'_>) -> T,
    ) -> Result<T> {
        self.mask.with(|mask| {
            Ok(work(&Attention {
                sequences: queries.len() / width,
                heads: self.heads,
                head_width: width / self.heads,
                queries: 1,
                keys: tokens,
                query: Place { data: queries, stride: width, column: 0 },
                key: Place { data: keys, stride: 2 * width, column: 0 },
                mask,
            }))
        })
    }
}

impl CustomOp2 for PooledAttention {
    fn name(&self) -> &'static str {
        "attention of one query"
    }

    fn cpu_fwd(&self, q: &CpuStorage, ql: &Layout, k: &CpuStorage, kl: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((batch, width), (sequences, tokens, packed)) = (ql.shape().dims2()?, kl.shape().dims3()?);
        let fits = batch == sequences && packed == 2 * width && tokens > 0 && width > 0 && self.heads > 0;
        if !fits || !width.is_multiple_of(self.heads) {
            let (q, k, heads) = (ql.shape(), kl.shape(), self.heads);
            return Err(
                Error::Msg(format!("attention of {heads} heads over queries {q:?}, keys and values {k:?}")).bt()
            );
        }
        let (mut out, mut statistics) = (vec![0.0; batch * width], vec![0.0; 2 * batch * self.heads]);
        self.with((elements(q, ql)?, width), (elements(k, kl)?, tokens), |attention| {
            attention.forward(crew(&session()), &mut out, &mut statistics);
        })?;
        let _ = self.statistics.set(statistics);
        Ok((CpuStorage::F32(out), ql.shape().clone()))
    }

    fn bwd(&self, q: &Tensor, k: &Tensor, _: &Tensor, d_out: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (width, tokens) = (q.dims2()?.1, k.dims3()?.1);
        let d_out = d_out.contiguous()?;
        let statistics = self.statistics.get().ok_or_else(|| Error::Msg("attention without a forward pass".into()))?;
        let (mut dq, mut dk) = (vec![0.0; q.elem_count()], vec![0.0; k.elem_count()]);
        {
            let (q, k, d_out) = (Values::of(q)?, Values::of(k)?, Values::of(&d_out)?);
            self.with((&q, width), (&k, tokens), |attention| {
                attention.backward(crew(&session()), statistics, &d_out, Gradients::Apart(&mut dq, &mut dk));
            })?;
        }
        let dq = if q.track_op() { returned(q, dq)? } else { None };
        let dk = if k.track_op() { returned(k, dk)? } else { None };
        Ok((dq, dk))
    }
}
