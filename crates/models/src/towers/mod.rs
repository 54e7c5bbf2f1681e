//! The towers that families are built from. One vision transformer, one text transformer.

pub mod text;
pub mod vit;

use candle_core::{Device, Var};
use crossmodal_nn::{Activation, LayerNorm, LayerScale, Linear, Mlp, SelfAttention, Tensor, TransformerBlock};

use crate::error::Result;
use crate::weights::CanonicalWeights;

/// What happens along the way of one batch, for comparison with a reference. Names are those of golden files.
pub type Trace = Vec<(String, Tensor)>;

/// Where a tower takes its parameters from, and what it makes of them.
#[derive(Debug)]
pub struct Parameters<'a> {
    /// The checkpoint.
    pub weights: &'a CanonicalWeights,
    /// Where the tower will run.
    pub device: &'a Device,
    /// Whether parameters become variables, so that gradients can be asked for; layers then take their differentiable
    /// road.
    pub trainable: bool,
}

impl Parameters<'_> {
    fn tensor(&self, name: &str) -> Result<Tensor> {
        let tensor = self.weights.tensor(name, self.device)?;
        if self.trainable { Ok(Var::from_tensor(&tensor)?.into_inner()) } else { Ok(tensor) }
    }

    fn optional(&self, name: &str) -> Result<Option<Tensor>> {
        self.weights.contains(name).then(|| self.tensor(name)).transpose()
    }

    fn linear(&self, prefix: &str) -> Result<Linear> {
        Ok(Linear::new(self.tensor(&format!("{prefix}.weight"))?, self.optional(&format!("{prefix}.bias"))?))
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
}
