//! The text transformer: tokens, positions, pre-norm blocks, final norm, pooling, projection.

use std::fmt::Arguments;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use crossmodal_kernels::product::{PackedLinear, Product};
use crossmodal_kernels::team::{Crew, Pool, threads};
use crossmodal_kernels::{Matrix, Norm};
use crossmodal_nn::{
    Activation, AttentionMask, LayerNorm, Linear, PackedBlock, TransformerBlock, Workspace, embed_tokens,
    forward_blocks, resize_sequence_positions, run_blocks, take_tokens,
};

use super::prefix_tree::{PrefixTree, runs, total_rows};
use super::share::share;
use super::{Parameters, Road, Trace, TracedStage, nominal_block_flops, note};
use crate::error::{Error, Result};
use crate::options::Precision;
use crate::progress::CancelToken;
use crate::weights::CanonicalWeights;

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

    /// Floating-point operations of a text of so many tokens, each computed in every layer.
    pub fn nominal_flops(&self, tokens: usize, embed_dim: usize) -> f64 {
        nominal_block_flops(self.layers, tokens, self.width, self.mlp_width) + 2.0 * (self.width * embed_dim) as f64
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
    road: Road<Layers, Packed>,
}

/// Differentiable layers.
#[derive(Debug)]
struct Layers {
    tokens: Tensor,
    /// `[context_length, width]`.
    positions: Tensor,
    blocks: Vec<TransformerBlock>,
    norm_final: LayerNorm,
    projection: Option<Linear>,
}

/// Blocks for inference. Token embeddings stay in their file: a text needs a few rows of a table that makes up most of a small model.
#[derive(Debug)]
struct Packed {
    weights: Arc<CanonicalWeights>,
    /// `[context_length, width]`.
    positions: Matrix,
    blocks: Vec<PackedBlock>,
    norm_final: Norm,
    projection: Option<PackedLinear>,
    spaces: Pool<Space>,
}

/// What one thread works in.
#[derive(Debug, Default)]
struct Space {
    x: Matrix,
    pooled: Matrix,
    projected: Matrix,
    blocks: Workspace,
}

/// Merged rows that go through the blocks together: enough that weights are read seldom, few enough for the caches.
const RUN_ROWS: usize = 256;

/// Merged rows that make it worth giving each thread texts of its own.
const ROWS_FOR_ONE: usize = 64;

impl TextTransformer {
    /// Loads the `text.*` tensors. Positions of another context length than the configured one are resized.
    ///
    /// # Errors
    /// Tensors that can't be decoded.
    pub fn load(config: &TextConfig, parameters: &Parameters<'_>) -> Result<Self> {
        let positions = parameters.weights.tensor("text.positions", parameters.device)?;
        let positions = if positions.dims2()?.0 == config.context_length {
            positions
        } else {
            resize_sequence_positions(&positions, config.context_length)?
        };
        // What is trained is what was resized, as in the references.
        let positions = parameters.parameter("text.positions", positions)?;
        let projected = match config.projection {
            TextProjection::None => false,
            TextProjection::Matrix | TextProjection::Affine => true,
        };
        let TextConfig { layers, width, heads, activation, eps, .. } = *config;
        let road = if !parameters.packs() {
            let block = |i| parameters.block(&format!("text.blocks.{i}"), heads, activation, eps);
            Road::Layers(Layers {
                tokens: parameters.tensor("text.tokens")?,
                positions,
                blocks: (0..layers).map(block).collect::<Result<_>>()?,
                norm_final: parameters.norm("text.norm_final", eps)?,
                projection: projected.then(|| parameters.linear("text.projection")).transpose()?,
            })
        } else {
            Road::Packed(Box::new(Packed {
                weights: parameters.weights.clone(),
                positions: Matrix::from_rows(&positions.flatten_all()?.to_vec1()?, width),
                blocks: parameters.packed_blocks("text.blocks", layers, (width, heads), activation, eps)?,
                norm_final: parameters.packed_norm("text.norm_final", eps)?,
                projection: projected
                    .then(|| parameters.packed("text.projection", None, Precision::Fp32))
                    .transpose()?,
                spaces: Pool::new(),
            }))
        };
        Ok(Self { config: config.clone(), road })
    }

    /// Maps token ids to un-normalised embeddings `[batch, embed_dim]`, differentiably where the tower was loaded so. All rows of `ids`
    /// have one length, at most the context length; where that is longer than a text, what follows its end is padding that the
    /// pooling rule and the causal mask keep out of the result.
    ///
    /// # Errors
    /// Rows of unequal length, or ids beyond the vocabulary.
    pub fn forward(&self, ids: &[Vec<u32>]) -> Result<Tensor> {
        match &self.road {
            Road::Layers(layers) => layers.run(&self.config, ids, None, None),
            Road::Packed(_) => {
                let rows = self.encode(ids, &CancelToken::new())?;
                let width = rows.first().map_or(0, Vec::len);
                Ok(Tensor::from_vec(rows.concat(), (ids.len(), width), &Device::Cpu)?)
            }
        }
    }

    /// Maps texts of any lengths to un-normalised embeddings, as many at a time as is fastest. Where the result depends on padding
    /// ([`TextConfig::needs_padding`]), `ids` are padded.
    ///
    /// # Errors
    /// An empty text, one longer than the context, ids beyond the vocabulary, or a raised `cancel` token.
    pub fn encode(&self, ids: &[Vec<u32>], cancel: &CancelToken) -> Result<Vec<Vec<f32>>> {
        match &self.road {
            Road::Packed(packed) => packed.encode(&self.config, ids, cancel, None),
            Road::Layers(layers) => {
                let texts = ids.iter().map(|ids| needed(&self.config, ids)).collect::<Result<Vec<&[u32]>>>()?;
                let mut results = vec![Vec::new(); texts.len()];
                let mut order: Vec<usize> = (0..texts.len()).collect();
                order.sort_by_key(|place| texts[*place].len());
                // Of one length, so that nothing is padded.
                for places in order.chunk_by(|a, b| texts[*a].len() == texts[*b].len()) {
                    for places in places.chunks(super::LAYER_BATCH) {
                        cancel.check()?;
                        let texts: Vec<Vec<u32>> = places.iter().map(|place| texts[*place].to_vec()).collect();
                        let rows: Vec<Vec<f32>> = layers.run(&self.config, &texts, None, None)?.to_vec2()?;
                        places.iter().zip(rows).for_each(|(place, row)| results[*place] = row);
                    }
                }
                Ok(results)
            }
        }
    }

    /// As [`forward`](Self::forward), and returns every stage on the way. Where `present` is given (`[batch][tokens]`),
    /// positions whose entry is false are hidden from all others, as an attention mask of the reference does. A tower packed for
    /// inference computes only the tokens that the result depends on, and the last block's pooled ones.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn trace(&self, ids: &[Vec<u32>], present: Option<&[Vec<bool>]>) -> Result<Trace> {
        let mut trace = Trace::new();
        match &self.road {
            Road::Layers(layers) => drop(layers.run(&self.config, ids, present, Some(&mut trace))?),
            Road::Packed(packed) => drop(packed.encode(&self.config, ids, &CancelToken::new(), Some(&mut trace))?),
        }
        Ok(trace)
    }
}

impl Layers {
    fn run(
        &self,
        config: &TextConfig,
        ids: &[Vec<u32>],
        present: Option<&[Vec<bool>]>,
        trace: Option<&mut Trace>,
    ) -> Result<Tensor> {
        let device = self.tokens.device();
        let mut x = embed_tokens(&self.tokens, &self.positions, ids)?;
        let mut stages = Trace::new();
        if trace.is_some() {
            note(&mut stages, "hidden_0", &x);
        }
        let mask = match (config.causal, present) {
            (true, Some(present)) => AttentionMask::causal_with_padding(present, DType::F32, device)?,
            (true, None) => AttentionMask::Causal,
            (false, _) => AttentionMask::Full,
        };
        // Of the last block only the pooled positions matter.
        let whole: &[TransformerBlock] = match self.blocks.split_last() {
            Some((_, rest)) if trace.is_none() => rest,
            _ => &self.blocks,
        };
        if trace.is_some() {
            for (i, block) in whole.iter().enumerate() {
                x = block.forward(&x, &mask)?;
                note(&mut stages, format!("hidden_{}", i + 1), &x);
            }
        } else {
            x = forward_blocks(whole, &x, &mask)?;
        }
        if trace.is_some() {
            note(&mut stages, "last_hidden_after_final_norm", &self.norm_final.forward(&x)?);
        }
        let places: Vec<u32> = ids.iter().map(|ids| config.pool.position(ids) as u32).collect();
        let pooled = match &self.blocks[whole.len()..] {
            [last] => last.forward_pooled(&x, &places, &mask)?,
            _ => take_tokens(&x, &places)?.reshape((ids.len(), config.width))?,
        };
        let pooled = self.norm_final.forward(&pooled)?;
        let projected = match &self.projection {
            Some(projection) => projection.forward(&pooled)?,
            None => pooled.clone(),
        };
        if let Some(trace) = trace {
            note(&mut stages, "pooled", &pooled);
            note(&mut stages, "projected", &projected);
            trace.extend(stages);
        }
        Ok(projected)
    }
}

impl Packed {
    fn encode(
        &self,
        config: &TextConfig,
        ids: &[Vec<u32>],
        cancel: &CancelToken,
        trace: Option<&mut Trace>,
    ) -> Result<Vec<Vec<f32>>> {
        let texts = ids.iter().map(|ids| needed(config, ids)).collect::<Result<Vec<&[u32]>>>()?;
        let mut distinct = texts.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let (all, threads) = (total_rows(&distinct, config.causal), threads());
        // A trace is of one run, so that its stages come in order.
        let alone = trace.is_none() && threads > 1 && all >= 2 * threads * ROWS_FOR_ONE;
        let most = match (trace.is_some(), alone) {
            (true, _) => usize::MAX,
            (_, true) => (all / (4 * threads)).clamp(ROWS_FOR_ONE, RUN_ROWS),
            (_, false) => RUN_ROWS,
        };
        let runs = runs(&distinct, most, config.causal);
        let record = trace.is_some().then(|| Mutex::new(Vec::new()));
        let results = share(runs.len(), alone, cancel, |crew, run| {
            let texts = &distinct[runs[run].clone()];
            self.spaces.with(|space| self.run(config, crew, texts, space, record.as_ref()))
        })?;
        let places: Vec<usize> =
            texts.iter().map(|text| distinct.binary_search(text).unwrap_or_else(|place| place)).collect();
        if let (Some(trace), Some(record)) = (trace, record) {
            let snapshots = record.into_inner().unwrap_or_else(PoisonError::into_inner);
            let paths = tree(config, &distinct).paths;
            for snapshot in &snapshots {
                trace.push(snapshot.spread(config, ids, &places, &paths)?);
            }
        }
        let results: Vec<Vec<f32>> = results.into_iter().flatten().collect();
        Ok(places.into_iter().map(|place| results[place].clone()).collect())
    }

    /// Embeds distinct texts in sorted order.
    fn run(
        &self,
        config: &TextConfig,
        crew: Crew<'_>,
        texts: &[&[u32]],
        space: &mut Space,
        record: Option<&Mutex<Vec<Snapshot>>>,
    ) -> Result<Vec<Vec<f32>>> {
        let tree = tree(config, texts);
        let positions: Vec<usize> = texts.iter().map(|ids| config.pool.position(ids)).collect();
        let Space { x, pooled, projected, blocks: workspace } = space;
        x.reshape(tree.rows.len(), config.width);
        for (row, (token, position)) in tree.rows.iter().enumerate() {
            let x = x.row_mut(row);
            self.weights.row("text.tokens", *token as usize, x)?;
            x.iter_mut().zip(self.positions.row(*position as usize)).for_each(|(x, position)| *x += position);
        }
        let record = |name: Arguments<'_>, x: &Matrix, kind: Kind| {
            if let Some(record) = record {
                let rows = (0..x.rows()).map(|row| x.row(row).to_vec()).collect();
                record.lock().unwrap_or_else(PoisonError::into_inner).push(Snapshot {
                    name: name.to_string(),
                    rows,
                    kind,
                });
            }
        };
        record(format_args!("hidden_0"), x, Kind::Tokens);
        let mut observer = |blocks: usize, x: &Matrix| record(format_args!("hidden_{blocks}"), x, Kind::Tokens);
        let last = tree.tokens_at(&positions);
        run_blocks(
            crew,
            &self.blocks,
            x,
            &tree.sequences,
            config.causal,
            &last,
            pooled,
            workspace,
            Some(&mut observer),
        );
        record(format_args!("hidden_{}", self.blocks.len()), pooled, Kind::PooledTokens);
        self.norm_final.rows(crew, pooled);
        record(format_args!("last_hidden_after_final_norm"), pooled, Kind::PooledTokens);
        record(format_args!("pooled"), pooled, Kind::Texts);
        let result = match &self.projection {
            Some(projection) => {
                Product::of(projection).run(crew, pooled, projected);
                &*projected
            }
            None => &*pooled,
        };
        record(format_args!("projected"), result, Kind::Texts);
        Ok((0..texts.len()).map(|row| result.row(row).to_vec()).collect())
    }
}

/// What a row of a snapshot is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A token of the merged texts.
    Tokens,
    /// The pooled token of a text.
    PooledTokens,
    /// A text.
    Texts,
}

/// The rows at one point of a run.
#[derive(Debug)]
struct Snapshot {
    name: String,
    rows: Vec<Vec<f32>>,
    kind: Kind,
}

impl Snapshot {
    /// In the reference's shape: `[batch, tokens, width]` with the rows that were computed marked, or `[batch, width]`. Text `i` of the
    /// batch is distinct text `places[i]`, whose tokens are the rows `paths[places[i]]`.
    fn spread(
        &self,
        config: &TextConfig,
        ids: &[Vec<u32>],
        places: &[usize],
        paths: &[Vec<u32>],
    ) -> Result<TracedStage> {
        let width = self.rows.first().map_or(0, Vec::len);
        let name = self.name.clone();
        if self.kind == Kind::Texts {
            let values: Vec<f32> = places.iter().flat_map(|place| &self.rows[*place]).copied().collect();
            let values = Tensor::from_vec(values, (ids.len(), width), &Device::Cpu)?;
            return Ok(TracedStage { name, values, computed: None });
        }
        let tokens = ids.first().map_or(0, Vec::len);
        let mut values = vec![0.0; ids.len() * tokens * width];
        let mut computed = vec![false; ids.len() * tokens];
        for (text, (ids, place)) in ids.iter().zip(places).enumerate() {
            let mut put = |position: usize, row: &[f32]| {
                let cell = text * tokens + position;
                values[cell * width..(cell + 1) * width].copy_from_slice(row);
                computed[cell] = true;
            };
            if self.kind == Kind::PooledTokens {
                put(config.pool.position(ids), &self.rows[*place]);
            } else {
                paths[*place].iter().enumerate().for_each(|(position, row)| put(position, &self.rows[*row as usize]));
            }
        }
        let values = Tensor::from_vec(values, (ids.len(), tokens, width), &Device::Cpu)?;
        Ok(TracedStage { name, values, computed: Some(computed) })
    }
}

fn tree(config: &TextConfig, texts: &[&[u32]]) -> PrefixTree {
    if config.causal { PrefixTree::of(texts) } else { PrefixTree::apart(texts) }
}

/// The tokens of a text that its embedding depends on.
fn needed<'a>(config: &TextConfig, ids: &'a [u32]) -> Result<&'a [u32]> {
    if ids.is_empty() || ids.len() > config.context_length {
        let (found, most) = (ids.len(), config.context_length);
        return Err(Error::Input(format!("a text of {found} tokens, expected 1 to {most}")));
    }
    if let Some(id) = ids.iter().find(|id| **id as usize >= config.vocab_size) {
        return Err(Error::Input(format!("token id {id} is beyond the vocabulary of {}", config.vocab_size)));
    }
    // What follows the pooled token can't reach it through a causal mask.
    Ok(if config.causal { &ids[..=config.pool.position(ids)] } else { ids })
}
