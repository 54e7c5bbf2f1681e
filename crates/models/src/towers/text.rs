//! The text transformer: tokens, positions, pre-norm blocks, final norm, pooling, projection.

use candle_core::{DType, Tensor};
use crossmodal_nn::{Activation, AttentionMask, LayerNorm, Linear, TransformerBlock, resize_sequence_positions};

use super::{Parameters, Trace};
use crate::error::Result;

/// Which position stands for the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TextPool {
    /// The first position of the largest id, which is the end-of-text token's.
    LargestId,
    /// The first position of this id; the first position of all where there is none.
    FirstId(u32),
    /// The first position.
    First,
    /// The last position, padding included.
    Last,
}

impl TextPool {
    /// The position that this rule picks.
    pub fn position(self, ids: &[u32]) -> usize {
        match self {
            Self::LargestId => {
                let largest = ids.iter().max();
                ids.iter().position(|id| Some(id) == largest).unwrap_or(0)
            }
            Self::FirstId(wanted) => ids.iter().position(|id| *id == wanted).unwrap_or(0),
            Self::First => 0,
            Self::Last => ids.len().saturating_sub(1),
        }
    }
}

/// What maps the pooled vector to the embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TextProjection {
    /// Nothing.
    None,
    /// A matrix.
    Matrix,
    /// A matrix and a bias.
    Affine,
}

/// Shape and rules of a text transformer.
#[derive(Debug, Clone, PartialEq)]
pub struct TextConfig {
    /// Greatest number of tokens.
    pub context_length: usize,
    /// Number of token ids.
    pub vocab_size: usize,
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
    /// Whether a position attends only to itself and what comes before.
    pub causal: bool,
    /// Whether residual branches have learned gains.
    pub layer_scale: bool,
    /// Which position stands for the text.
    pub pool: TextPool,
    /// What maps the pooled vector to the embedding.
    pub projection: TextProjection,
}

impl TextConfig {
    /// Whether the output depends on the padding, so that texts must be padded to the full context.
    pub fn needs_padding(&self) -> bool {
        !self.causal || self.pool == TextPool::Last
    }

    /// In words.
    pub fn describe(&self) -> String {
        let kind = if self.causal { "causal" } else { "bidirectional" };
        format!(
            "{kind} transformer, context {}, vocabulary {}, width {}, {} layers, {} heads, MLP {}, {}",
            self.context_length,
            self.vocab_size,
            self.width,
            self.layers,
            self.heads,
            self.mlp_width,
            self.activation.as_str()
        )
    }
}

/// A text transformer with its weights.
#[derive(Debug)]
pub struct TextTransformer {
    config: TextConfig,
    tokens: Tensor,
    /// `[context_length, width]`.
    positions: Tensor,
    blocks: Vec<TransformerBlock>,
    norm_final: LayerNorm,
    projection: Option<Linear>,
}

impl TextTransformer {
    /// Loads the `text.*` tensors. Positions of another context length than the configured one are resized.
    ///
    /// # Errors
    /// Tensors that can't be decoded.
    pub fn load(config: &TextConfig, parameters: &Parameters<'_>) -> Result<Self> {
        let positions = parameters.tensor("text.positions")?;
        let positions = if positions.dims2()?.0 == config.context_length {
            positions
        } else {
            resize_sequence_positions(&positions, config.context_length)?
        };
        let blocks = (0..config.layers)
            .map(|i| parameters.block(&format!("text.blocks.{i}"), config.heads, config.activation, config.eps));
        Ok(Self {
            config: config.clone(),
            tokens: parameters.tensor("text.tokens")?,
            positions,
            blocks: blocks.collect::<Result<_>>()?,
            norm_final: parameters.norm("text.norm_final", config.eps)?,
            projection: match config.projection {
                TextProjection::None => None,
                TextProjection::Matrix | TextProjection::Affine => Some(parameters.linear("text.projection")?),
            },
        })
    }

    /// Maps token ids to un-normalised embeddings `[batch, embed_dim]`. All rows of `ids` have one length, at most the
    /// context length; where that is longer than a text, what follows its end is padding that the pooling rule and the
    /// causal mask keep out of the result.
    ///
    /// # Errors
    /// Rows of unequal length, or ids beyond the vocabulary.
    pub fn forward(&self, ids: &[Vec<u32>]) -> Result<Tensor> {
        self.run(ids, None, None)
    }

    /// As [`forward`](Self::forward), and returns every stage on the way. Where `present` is given (`[batch][tokens]`),
    /// positions whose entry is false are hidden from all others, as an attention mask of the reference does.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn trace(&self, ids: &[Vec<u32>], present: Option<&[Vec<bool>]>) -> Result<Trace> {
        let mut trace = Trace::new();
        self.run(ids, present, Some(&mut trace))?;
        Ok(trace)
    }

    fn run(&self, ids: &[Vec<u32>], present: Option<&[Vec<bool>]>, mut trace: Option<&mut Trace>) -> Result<Tensor> {
        let mut note = |name: &str, x: &Tensor| {
            if let Some(trace) = trace.as_deref_mut() {
                trace.push((name.to_string(), x.clone()));
            }
        };
        let device = self.tokens.device();
        let (batch, tokens) = (ids.len(), ids.first().map_or(0, Vec::len));
        let flat = Tensor::from_vec(ids.concat(), batch * tokens, device)?;
        let x = self.tokens.index_select(&flat, 0)?.reshape((batch, tokens, self.config.width))?;
        let mut x = x.broadcast_add(&self.positions.narrow(0, 0, tokens)?)?;
        note("hidden_0", &x);
        let mask = match (self.config.causal, present) {
            (true, Some(present)) => AttentionMask::causal_with_padding(present, DType::F32, device)?,
            (true, None) => AttentionMask::Causal,
            (false, _) => AttentionMask::Full,
        };
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, &mask)?;
            note(&format!("hidden_{}", i + 1), &x);
        }
        if trace.is_some() {
            let normed = self.norm_final.forward(&x)?;
            if let Some(trace) = trace.as_deref_mut() {
                trace.push(("last_hidden_after_final_norm".into(), normed));
            }
        }
        let rows = ids.iter().enumerate().map(|(row, ids)| (row * tokens + self.config.pool.position(ids)) as u32);
        let rows = Tensor::from_vec(rows.collect::<Vec<_>>(), batch, device)?;
        let pooled = x.reshape((batch * tokens, self.config.width))?.index_select(&rows, 0)?;
        let pooled = self.norm_final.forward(&pooled)?;
        let projected = match &self.projection {
            Some(projection) => projection.forward(&pooled)?,
            None => pooled.clone(),
        };
        if let Some(trace) = trace {
            trace.push(("pooled".into(), pooled));
            trace.push(("projected".into(), projected.clone()));
        }
        Ok(projected)
    }
}
