//! The vision transformer: patches, class token, positions, pre-norm blocks, pooling, projection.

use candle_core::Tensor;
use crossmodal_nn::{
    Activation, AttentionMask, GridResize, LayerNorm, Linear, PatchEmbedding, TransformerBlock, resize_grid_positions,
};

use super::{Parameters, Trace};
use crate::error::{Error, Result};

/// Which vector stands for the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VisionPool {
    /// The class token's.
    ClassToken,
    /// The mean over the patches, without the class token.
    AverageOfPatches,
}

/// Shape and rules of a vision transformer.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionConfig {
    /// Height and width of the picture in pixels.
    pub image_size: (usize, usize),
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Number of attention heads; divides `width`.
    pub heads: usize,
    /// Width of the hidden layer of the MLPs.
    pub mlp_width: usize,
    /// Non-linearity of the MLPs.
    pub activation: Activation,
    /// Added to the variance in layer norms.
    pub eps: f64,
    /// Whether a norm stands ahead of the first block.
    pub pre_norm: bool,
    /// Whether residual branches have learned gains.
    pub layer_scale: bool,
    /// Which vector stands for the picture.
    pub pool: VisionPool,
    /// Whether the final norm comes after pooling rather than before; this only matters for averages.
    pub norm_after_pool: bool,
}

impl VisionConfig {
    /// Rows and columns of patches. Pixels beyond the last whole patch are ignored.
    pub fn grid(&self) -> (usize, usize) {
        (self.image_size.0 / self.patch_size, self.image_size.1 / self.patch_size)
    }

    /// Number of positions: the class token and the patches.
    pub fn positions(&self) -> usize {
        1 + self.grid().0 * self.grid().1
    }

    /// In words.
    pub fn describe(&self) -> String {
        let (height, width) = self.image_size;
        let size = if height == width { format!("{height} px") } else { format!("{height}x{width} px") };
        format!(
            "ViT, {size}, patch {}, width {}, {} layers, {} heads, MLP {}, {}",
            self.patch_size,
            self.width,
            self.layers,
            self.heads,
            self.mlp_width,
            self.activation.as_str()
        )
    }
}

/// A vision transformer with its weights.
#[derive(Debug)]
pub struct VisionTransformer {
    config: VisionConfig,
    resize: GridResize,
    patches: PatchEmbedding,
    class: Tensor,
    /// `[1 + rows * columns, width]` for the configured size.
    positions: Tensor,
    norm_pre: Option<LayerNorm>,
    blocks: Vec<TransformerBlock>,
    norm_post: LayerNorm,
    projection: Linear,
}

impl VisionTransformer {
    /// Loads the `vision.*` tensors. Positions of another grid than the configured one are resized.
    ///
    /// # Errors
    /// Tensors that can't be decoded.
    pub fn load(config: &VisionConfig, parameters: &Parameters<'_>, resize: GridResize) -> Result<Self> {
        let positions = parameters.tensor("vision.positions")?;
        let stored = positions.dims2()?.0;
        let positions = if stored == config.positions() {
            positions
        } else {
            let side = (stored.saturating_sub(1) as f64).sqrt() as usize;
            if side * side + 1 != stored {
                let reason = format!("has {stored} positions, expected one and a square number");
                return Err(Error::tensor(parameters.weights.checkpoint().path(), "vision.positions", reason));
            }
            resize_grid_positions(&positions, (side, side), config.grid(), resize)?
        };
        let blocks = (0..config.layers)
            .map(|i| parameters.block(&format!("vision.blocks.{i}"), config.heads, config.activation, config.eps));
        Ok(Self {
            config: config.clone(),
            resize,
            patches: PatchEmbedding::new(&parameters.tensor("vision.patch.weight")?, None)?,
            class: parameters.tensor("vision.class")?.reshape((1, 1, config.width))?,
            positions,
            norm_pre: config.pre_norm.then(|| parameters.norm("vision.norm_pre", config.eps)).transpose()?,
            blocks: blocks.collect::<Result<_>>()?,
            norm_post: parameters.norm("vision.norm_post", config.eps)?,
            projection: parameters.linear("vision.projection")?,
        })
    }

    /// Maps pixels `[batch, 3, height, width]` to un-normalised embeddings `[batch, embed_dim]`. Pictures of another size
    /// than the configured one get resized positions.
    ///
    /// # Errors
    /// Pictures smaller than a patch.
    pub fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        self.run(pixels, None)
    }

    /// As [`forward`](Self::forward), and returns every stage on the way.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn trace(&self, pixels: &Tensor) -> Result<Trace> {
        let mut trace = Trace::new();
        self.run(pixels, Some(&mut trace))?;
        Ok(trace)
    }

    fn run(&self, pixels: &Tensor, mut trace: Option<&mut Trace>) -> Result<Tensor> {
        let mut note = |name: &str, x: &Tensor| {
            if let Some(trace) = trace.as_deref_mut() {
                trace.push((name.to_string(), x.clone()));
            }
        };
        let (batch, _, height, width) = pixels.dims4()?;
        let x = self.patches.forward(pixels)?;
        let class = self.class.broadcast_as((batch, 1, self.config.width))?;
        let x = Tensor::cat(&[&class, &x], 1)?.broadcast_add(&self.positions_for(height, width)?)?;
        note("embeddings", &x);
        let mut x = match &self.norm_pre {
            Some(norm) => norm.forward(&x)?,
            None => x,
        };
        note("hidden_0", &x);
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, &AttentionMask::Full)?;
            note(&format!("hidden_{}", i + 1), &x);
        }
        let pooled = self.pool(&x)?;
        note("pooled", &pooled);
        let projected = self.projection.forward(&pooled)?;
        note("projected", &projected);
        Ok(projected)
    }

    fn positions_for(&self, height: usize, width: usize) -> Result<Tensor> {
        if (height, width) == self.config.image_size {
            return Ok(self.positions.clone());
        }
        let grid = (height / self.config.patch_size, width / self.config.patch_size);
        Ok(resize_grid_positions(&self.positions, self.config.grid(), grid, self.resize)?)
    }

    fn pool(&self, x: &Tensor) -> Result<Tensor> {
        let pooled = match self.config.pool {
            // The norm works on each token alone, so pooling first changes nothing and saves the other tokens' norms.
            VisionPool::ClassToken => self.norm_post.forward(&x.get_on_dim(1, 0)?)?,
            VisionPool::AverageOfPatches => {
                let patches = x.narrow(1, 1, x.dim(1)? - 1)?;
                if self.config.norm_after_pool {
                    self.norm_post.forward(&patches.mean(1)?)?
                } else {
                    self.norm_post.forward(&patches)?.mean(1)?
                }
            }
        };
        Ok(pooled)
    }
}
