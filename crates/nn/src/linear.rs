//! The affine map `y = x W^T + b`, with low-rank adapters beside it where it is fine-tuned so.

use std::ops::Range;

use candle_core::{D, Result, Tensor};

/// The affine map `y = x W^T + b`.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    adapters: Vec<Adapter>,
}

/// `scale * (x A^T) B^T`, added to some of the outputs (LoRA, Hu et al. 2021).
#[derive(Debug, Clone)]
struct Adapter {
    a: Tensor,
    b: Tensor,
    scale: f64,
    outputs: Range<usize>,
}

impl Linear {
    /// A map with `weight` of shape `[out, in]` and `bias` of shape `[out]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias, adapters: Vec::new() }
    }

    /// The same map plus `scale * (x A^T) B^T`, with `a` of shape `[rank, in]` and `b` of shape `[outputs, rank]`, on these outputs only: the maps to queries, keys and
    /// values are stacked in one matrix, and each may have an adapter of its own.
    ///
    /// # Errors
    /// Shapes that don't fit.
    pub fn with_adapter_on(mut self, outputs: Range<usize>, a: Tensor, b: Tensor, scale: f64) -> Result<Self> {
        let ((out, inner), (rank, a_inner), (b_out, b_rank)) = (self.weight.dims2()?, a.dims2()?, b.dims2()?);
        if a_inner != inner || b_rank != rank || b_out != outputs.len() || outputs.end > out {
            let (a, b) = (a.shape(), b.shape());
            candle_core::bail!("an adapter of {a:?} and {b:?} for outputs {outputs:?} of a map from {inner} to {out}");
        }
        self.adapters.push(Adapter { a, b, scale, outputs });
        Ok(self)
    }

    /// As [`with_adapter_on`](Self::with_adapter_on), on all outputs.
    ///
    /// # Errors
    /// Shapes that don't fit.
    pub fn with_adapter(self, a: Tensor, b: Tensor, scale: f64) -> Result<Self> {
        let out = self.weight.dim(0)?;
        self.with_adapter_on(0..out, a, b, scale)
    }

    /// Maps the last dimension of `x` from `in` to `out`.
    ///
    /// # Errors
    /// A last dimension other than `in`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (out, inner) = self.weight.dims2()?;
        let mut shape = x.dims().to_vec();
        // One two-dimensional product whatever the leading dimensions: a broadcast batched product is much slower.
        let rows = x.reshape(((), inner))?;
        let mut y = rows.matmul(&self.weight.t()?)?;
        for Adapter { a, b, scale, outputs } in &self.adapters {
            let change = (rows.matmul(&a.t()?)? * *scale)?.matmul(&b.t()?)?;
            y = (y + change.pad_with_zeros(D::Minus1, outputs.start, out - outputs.end)?)?;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    fn values(shape: (usize, usize), seed: usize) -> Var {
        let count = shape.0 * shape.1;
        let values: Vec<f64> = (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f64 / 1001.0 - 1.0).collect();
        Var::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn adapters_are_a_change_of_the_weight_on_their_outputs() {
        let (x, weight) = (values((5, 4), 1), values((6, 4), 2));
        let (a, b, c, d) = (values((2, 4), 3), values((3, 2), 4), values((1, 4), 5), values((6, 1), 6));
        let linear = Linear::new(weight.as_tensor().clone(), None)
            .with_adapter_on(2..5, a.as_tensor().clone(), b.as_tensor().clone(), 0.5)
            .and_then(|linear| linear.with_adapter(c.as_tensor().clone(), d.as_tensor().clone(), 2.0))
            .unwrap();
        let on_rows = (b.matmul(&a).unwrap() * 0.5).unwrap().pad_with_zeros(0, 2, 1).unwrap();
        let merged = ((weight.as_tensor() + on_rows).unwrap() + (d.matmul(&c).unwrap() * 2.0).unwrap()).unwrap();
        let merged = Linear::new(merged, None);
        let loss = |linear: &Linear| linear.forward(x.as_tensor()).unwrap().sqr().unwrap().sum_all().unwrap();
        let (found, expected) = (loss(&linear), loss(&merged));
        let gap = |a: &Tensor, b: &Tensor| {
            (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f64>().unwrap()
        };
        assert!(gap(&found, &expected) < 1e-9);
        let (found, expected) = (found.backward().unwrap(), expected.backward().unwrap());
        for var in [&x, &a, &b, &c, &d] {
            assert!(gap(found.get(var).unwrap(), expected.get(var).unwrap()) < 1e-9);
        }
        let wrong = Linear::new(weight.into_inner(), None).with_adapter_on(4..7, a.into_inner(), b.into_inner(), 1.0);
        assert!(wrong.is_err());
    }
}
