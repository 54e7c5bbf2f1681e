//! The towers that families are built from. One vision transformer, one text transformer.
//!
//! A tower takes one of two roads, chosen when it is loaded: layers that gradients can be asked of, or blocks packed for inference,
//! which compute the rows that matter to the result and no others.

mod prefix_tree;
mod share;
pub mod text;
pub mod vit;

use std::sync::Arc;

use candle_core::{Device, Var};
use crossmodal_kernels::Norm;
use crossmodal_kernels::product::{Int8Weights, PackedLinear};
use crossmodal_nn::{
    Activation, LayerNorm, LayerScale, Linear, Mlp, PackedBlock, SelfAttention, Tensor, TransformerBlock, query_gain,
};
use rayon::prelude::*;

use crate::error::Result;
use crate::options::Precision;
use crate::training::Variables;
use crate::weights::CanonicalWeights;

/// Inputs that go through layers together: enough to keep a graphics processor busy, few enough for its memory.
const LAYER_BATCH: usize = 64;

/// The road a tower takes, with what it needs on it.
#[derive(Debug)]
enum Road<L, P> {
    /// Layers: differentiable, and for every device.
    Layers(L),
    /// Blocks packed for inference.
    Packed(Box<P>),
}

/// What happens at one point along the way of a batch, for comparison with a reference.
#[derive(Debug, Clone)]
pub struct TracedStage {
    /// The name it has in golden files.
    pub name: String,
    /// The values, of the shape that the reference has.
    pub values: Tensor,
    /// Which rows (vectors along the last dimension) were computed; `None` means all. The others are 0.
    pub computed: Option<Vec<bool>>,
}

/// The stages of one batch.
pub type Trace = Vec<TracedStage>;

/// Floating-point operations of `layers` blocks over a sequence: linear layers and attention products.
fn nominal_block_flops(layers: usize, tokens: usize, width: usize, mlp_width: usize) -> f64 {
    let (tokens, width, mlp_width) = (tokens as f64, width as f64, mlp_width as f64);
    let linear = 2.0 * tokens * width * (4.0 * width + 2.0 * mlp_width);
    layers as f64 * (linear + 4.0 * tokens * tokens * width)
}

/// Adds a stage with all its rows.
fn note(trace: &mut Trace, name: impl Into<String>, values: &Tensor) {
    trace.push(TracedStage { name: name.into(), values: values.clone(), computed: None });
}

/// Where a tower takes its parameters from, and what it makes of them.
#[derive(Debug)]
pub struct Parameters<'a> {
    /// The checkpoint.
    pub weights: &'a Arc<CanonicalWeights>,
    /// Where the tower will run.
    pub device: &'a Device,
    /// Whether parameters become variables, so that gradients can be asked for; otherwise, on a processor, the tower is packed for
    /// inference.
    pub trainable: bool,
    /// Which of them become variables, where they are to be found again; `None` makes all of them variables.
    pub variables: Option<&'a Variables>,
    /// The arithmetic of packed blocks.
    pub precision: Precision,
}

impl Parameters<'_> {
    /// Whether the tower is packed for inference: not where gradients may be asked for, and on the processor only.
    fn packs(&self) -> bool {
        !self.trainable && self.device.is_cpu()
    }

    fn tensor(&self, name: &str) -> Result<Tensor> {
        self.parameter(name, self.weights.tensor(name, self.device)?)
    }

    /// A parameter with these values, which may be others than the checkpoint's.
    fn parameter(&self, name: &str, values: Tensor) -> Result<Tensor> {
        match self.variables {
            _ if !self.trainable => Ok(values),
            Some(variables) => variables.parameter(name, values),
            None => Ok(Var::from_tensor(&values)?.into_inner()),
        }
    }

    fn optional(&self, name: &str) -> Result<Option<Tensor>> {
        self.weights.contains(name).then(|| self.tensor(name)).transpose()
    }

    fn linear(&self, prefix: &str) -> Result<Linear> {
        let weight = self.tensor(&format!("{prefix}.weight"))?;
        let shape = weight.dims2()?;
        let linear = Linear::new(weight, self.optional(&format!("{prefix}.bias"))?);
        match self.variables.filter(|_| self.trainable) {
            Some(variables) => Ok(variables.computed(variables.adapted(prefix, linear, shape, self.device)?)),
            None => Ok(linear),
        }
    }

    fn norm(&self, prefix: &str, eps: f64) -> Result<LayerNorm> {
        Ok(LayerNorm::new(self.tensor(&format!("{prefix}.weight"))?, self.tensor(&format!("{prefix}.bias"))?, eps))
    }

    fn block(&self, prefix: &str, heads: usize, activation: Activation, eps: f64) -> Result<TransformerBlock> {
        let scale = |name: &str| Ok::<_, crate::Error>(self.optional(&format!("{prefix}.{name}"))?.map(LayerScale));
        Ok(TransformerBlock {
            norm1: self.norm(&format!("{prefix}.norm1"), eps)?,
            attention: SelfAttention::new(
                self.linear(&format!("{prefix}.attention.qkv"))?,
                self.linear(&format!("{prefix}.attention.out"))?,
                heads,
            ),
            scale1: scale("scale1")?,
            norm2: self.norm(&format!("{prefix}.norm2"), eps)?,
            mlp: Mlp {
                fc1: self.linear(&format!("{prefix}.mlp.fc1"))?,
                activation,
                fc2: self.linear(&format!("{prefix}.mlp.fc2"))?,
            },
            scale2: scale("scale2")?,
        })
    }

    fn values(&self, name: &str) -> Result<Vec<f32>> {
        Ok(self.weights.values(name)?.1)
    }

    fn optional_values(&self, name: &str) -> Result<Option<Vec<f32>>> {
        self.weights.contains(name).then(|| self.values(name)).transpose()
    }

    fn packed_norm(&self, prefix: &str, eps: f64) -> Result<Norm> {
        let (weight, bias) = (self.values(&format!("{prefix}.weight"))?, self.values(&format!("{prefix}.bias"))?);
        Ok(Norm::new(weight, bias, eps as f32))
    }

    /// A linear map with its outputs multiplied by `gain`, in this arithmetic.
    fn packed(&self, prefix: &str, gain: Option<&[f32]>, precision: Precision) -> Result<PackedLinear> {
        let bias = self.optional_values(&format!("{prefix}.bias"))?;
        let name = format!("{prefix}.weight");
        if precision == Precision::Int8
            && let Some(levels) = self.weights.int8(&name)?
        {
            let inner = levels.values.len() / levels.scales.len().max(1);
            return Ok(PackedLinear::int8(&levels, inner, bias.as_deref(), gain));
        }
        let (shape, weight) = self.weights.values(&name)?;
        let inner = shape[1..].iter().product();
        Ok(match precision {
            Precision::Fp32 => PackedLinear::fp32(&weight, inner, bias.as_deref(), gain),
            Precision::Int8 => PackedLinear::int8(&Int8Weights::quantise(&weight, inner), inner, bias.as_deref(), gain),
        })
    }

    fn packed_block(
        &self,
        prefix: &str,
        (width, heads): (usize, usize),
        activation: Activation,
        eps: f64,
    ) -> Result<PackedBlock> {
        let gain = |name: &str| self.optional_values(&format!("{prefix}.{name}"));
        let linear = |name: &str, gain: Option<Vec<f32>>| {
            self.packed(&format!("{prefix}.{name}"), gain.as_deref(), self.precision)
        };
        Ok(PackedBlock {
            norm1: self.packed_norm(&format!("{prefix}.norm1"), eps)?,
            qkv: linear("attention.qkv", Some(query_gain(width, heads)))?,
            out: linear("attention.out", gain("scale1")?)?,
            norm2: self.packed_norm(&format!("{prefix}.norm2"), eps)?,
            fc1: linear("mlp.fc1", None)?,
            nonlinearity: activation.kernel(),
            fc2: linear("mlp.fc2", gain("scale2")?)?,
            heads,
        })
    }

    /// All blocks of a tower, packed by several threads: each holds one tensor beside what it has packed.
    fn packed_blocks(
        &self,
        prefix: &str,
        layers: usize,
        shape: (usize, usize),
        activation: Activation,
        eps: f64,
    ) -> Result<Vec<PackedBlock>> {
        let numbers: Vec<usize> = (0..layers).collect();
        let block = |i: usize| self.packed_block(&format!("{prefix}.{i}"), shape, activation, eps);
        numbers.into_par_iter().map(block).collect()
    }
}
