//! The affine map `y = x W^T + b`, with low-rank adapters where they are asked for.

use std::ops::Range;

use candle_core::{D, DType, Error, Result, Tensor};

use crate::ops::linear::affine;
use crate::ops::on_processor;

/// A low-rank addition to a linear map (LoRA): `scale * (x down^T) up^T` on some of its outputs.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// To the rank, `[rank, in]`.
    pub down: Tensor,
    /// From the rank, `[outputs, rank]`.
    pub up: Tensor,
    /// The factor.
    pub scale: f64,
    /// The outputs it is added to.
    pub outputs: Range<usize>,
}

/// The affine map `y = x W^T + b`, plus what its adapters add.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    adapters: Vec<Adapter>,
    products: Option<DType>,
}

impl Linear {
    /// A map with `weight` of shape `[out, in]` and `bias` of shape `[out]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias, adapters: Vec::new(), products: None }
    }

    /// With an adapter on all outputs: `y = x W^T + b + scale * (x a^T) b^T`, `a` of shape `[rank, in]` and `b` of shape `[out, rank]`. The
    /// weight and bias get gradients only where they are variables themselves.
    ///
    /// # Errors
    /// Shapes that don't fit.
    pub fn with_adapter(self, a: Tensor, b: Tensor, scale: f64) -> Result<Self> {
        let out = self.weight.dims2()?.0;
        self.with_adapter_on(0..out, a, b, scale)
    }

    /// With an adapter on some outputs, such as the queries' of a packed projection: `b` is of shape `[outputs.len(), rank]`.
    ///
    /// # Errors
    /// Outputs that don't exist, or shapes that don't fit.
    pub fn with_adapter_on(mut self, outputs: Range<usize>, a: Tensor, b: Tensor, scale: f64) -> Result<Self> {
        let (out, inner) = self.weight.dims2()?;
        let (rank, from) = a.dims2()?;
        let (to, same_rank) = b.dims2()?;
        if outputs.end > out || outputs.start > outputs.end {
            return Err(Error::Msg(format!("an adapter on outputs {outputs:?} of a map to {out}")).bt());
        }
        if from != inner || to != outputs.len() || rank != same_rank || rank == 0 {
            return Err(Error::Msg(format!(
                "an adapter of shapes [{rank}, {from}] and [{to}, {same_rank}], expected [rank, {inner}] and [{}, rank]",
                outputs.len()
            ))
            .bt());
        }
        self.adapters.push(Adapter { down: a, up: b, scale, outputs });
        Ok(self)
    }

    /// With products in this type: their operands are converted to it and their results back. Everything else, gradients of parameters included, stays in the parameters'
    /// type (mixed precision, Micikevicius et al. 2018).
    #[must_use]
    pub fn with_products(self, products: DType) -> Self {
        Self { products: Some(products), ..self }
    }

    /// The type of products, where it is another than the parameters'.
    pub(crate) fn products(&self) -> Option<DType> {
        self.products
    }

    /// The weight, `[out, in]`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The bias, `[out]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// The adapters.
    pub fn adapters(&self) -> &[Adapter] {
        &self.adapters
    }

    /// All parameters: weight, bias, those of the adapters.
    pub fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        let adapters = self.adapters.iter().flat_map(|adapter| [&adapter.down, &adapter.up]);
        std::iter::once(&self.weight).chain(&self.bias).chain(adapters)
    }

    /// The map to some of the outputs, with parameters that are parts of these.
    ///
    /// # Errors
    /// Outputs that don't exist.
    pub fn to_outputs(&self, outputs: Range<usize>) -> Result<Self> {
        let bias = self.bias.as_ref().map(|bias| bias.narrow(0, outputs.start, outputs.len())).transpose()?;
        let weight = self.weight.narrow(0, outputs.start, outputs.len())?;
        let mut part = Self { products: self.products, ..Self::new(weight, bias) };
        for Adapter { down, up, scale, outputs: adapted } in &self.adapters {
            let (start, end) = (adapted.start.max(outputs.start), adapted.end.min(outputs.end));
            if start < end {
                let up = up.narrow(0, start - adapted.start, end - start)?;
                let own = start - outputs.start..end - outputs.start;
                part.adapters.push(Adapter { down: down.clone(), up, scale: *scale, outputs: own });
            }
        }
        Ok(part)
    }

    /// The same map with parameters that lie in row-major order.
    pub(crate) fn contiguous(&self) -> Result<Self> {
        let adapter = |adapter: &Adapter| {
            Ok(Adapter { down: adapter.down.contiguous()?, up: adapter.up.contiguous()?, ..adapter.clone() })
        };
        Ok(Self {
            weight: self.weight.contiguous()?,
            bias: self.bias.as_ref().map(Tensor::contiguous).transpose()?,
            adapters: self.adapters.iter().map(adapter).collect::<Result<_>>()?,
            products: self.products,
        })
    }

    /// Maps the last dimension of `x` from `in` to `out`.
    ///
    /// # Errors
    /// A last dimension other than `in`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let products = self.products;
        let mut y = map(x, &self.weight, self.bias.as_ref(), products)?;
        for Adapter { down, up, scale, outputs } in &self.adapters {
            let added = (map(&map(x, down, None, products)?, up, None, products)? * *scale)?;
            let out = self.weight.dims2()?.0;
            y = (y + added.pad_with_zeros(D::Minus1, outputs.start, out - outputs.end)?)?;
        }
        Ok(y)
    }
}

/// The matrix product `a b`, in another type where one is given.
pub(crate) fn multiply(a: &Tensor, b: &Tensor, products: Option<DType>) -> Result<Tensor> {
    match products {
        Some(products) => a.to_dtype(products)?.matmul(&b.to_dtype(products)?)?.to_dtype(a.dtype()),
        None => a.matmul(b),
    }
}

/// `x W^T + b`.
fn map(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, products: Option<DType>) -> Result<Tensor> {
    if products.is_none() && on_processor([x, weight].into_iter().chain(bias)) {
        return affine(x, weight, bias);
    }
    let (out, inner) = weight.dims2()?;
    let mut shape = x.dims().to_vec();
    // One two-dimensional product whatever the leading dimensions: a broadcast batched product is much slower.
    let y = multiply(&x.reshape(((), inner))?, &weight.t()?, products)?;
    if let Some(last) = shape.last_mut() {
        *last = out;
    }
    let y = y.reshape(shape)?;
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}
