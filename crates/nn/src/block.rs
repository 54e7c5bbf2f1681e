//! The pre-norm transformer block that all towers share.

use candle_core::{Result, Tensor};

use crate::activation::Activation;
use crate::attention::{AttentionMask, SelfAttention};
use crate::linear::Linear;
use crate::norm::LayerNorm;

/// A learned gain per channel on a residual branch.
#[derive(Debug, Clone)]
pub struct LayerScale(
    /// The gain, of shape `[width]`.
    pub Tensor,
);

/// Two linear layers with a non-linearity between them.
#[derive(Debug, Clone)]
pub struct Mlp {
    /// From the width to the hidden width.
    pub fc1: Linear,
    /// The non-linearity.
    pub activation: Activation,
    /// Back to the width.
    pub fc2: Linear,
}

impl Mlp {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.fc2.forward(&self.activation.forward(&self.fc1.forward(x)?)?)
    }
}

/// `x += scale1(attention(norm1(x))); x += scale2(mlp(norm2(x)))`.
#[derive(Debug, Clone)]
pub struct TransformerBlock {
    /// Norm ahead of the attention.
    pub norm1: LayerNorm,
    /// The attention.
    pub attention: SelfAttention,
    /// Gain on the attention branch.
    pub scale1: Option<LayerScale>,
    /// Norm ahead of the MLP.
    pub norm2: LayerNorm,
    /// The MLP.
    pub mlp: Mlp,
    /// Gain on the MLP branch.
    pub scale2: Option<LayerScale>,
}

impl TransformerBlock {
    /// Maps `[batch, tokens, width]` to the same shape.
    ///
    /// # Errors
    /// A width that doesn't fit.
    pub fn forward(&self, x: &Tensor, mask: &AttentionMask) -> Result<Tensor> {
        let branch = self.attention.forward(&self.norm1.forward(x)?, mask)?;
        let x = (x + scaled(branch, self.scale1.as_ref())?)?;
        let branch = self.mlp.forward(&self.norm2.forward(&x)?)?;
        &x + scaled(branch, self.scale2.as_ref())?
    }
}

fn scaled(branch: Tensor, scale: Option<&LayerScale>) -> Result<Tensor> {
    match scale {
        Some(LayerScale(gain)) => branch.broadcast_mul(gain),
        None => Ok(branch),
    }
}
