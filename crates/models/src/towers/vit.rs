//! The vision transformer: patches, class token, positions, pre-norm blocks, pooling, projection.

use std::fmt::Arguments;
use std::sync::{Mutex, PoisonError};

use candle_core::{Device, Tensor};
use crossmodal_kernels::attention::Sequence;
use crossmodal_kernels::product::{Finish, PackedLinear, Product};
use crossmodal_kernels::team::{Crew, Pool};
use crossmodal_kernels::{Matrix, Norm};
use crossmodal_nn::{
    Activation, AttentionMask, GridResize, LayerNorm, Linear, Observer, PackedBlock, PatchEmbedding, Pooled,
    TransformerBlock, Workspace, assemble_tokens, forward_blocks, resize_grid_positions, run_blocks,
};

use super::share::{equal_sizes, share};
use super::{Parameters, Road, Trace, TracedStage, nominal_block_flops};
use crate::error::{Error, Result};
use crate::options::Precision;
use crate::progress::CancelToken;

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

    /// Floating-point operations of a picture, every token computed in every layer.
    pub fn nominal_flops(&self, embed_dim: usize) -> f64 {
        let (rows, columns) = self.grid();
        let patches = 2 * rows * columns * 3 * self.patch_size * self.patch_size * self.width;
        let blocks = nominal_block_flops(self.layers, self.positions(), self.width, self.mlp_width);
        blocks + (patches + 2 * self.width * embed_dim) as f64
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
    /// `[1 + rows * columns, width]` for the configured size.
    positions: Tensor,
    road: Road<Layers, Packed>,
}

/// Differentiable layers.
#[derive(Debug)]
struct Layers {
    patches: PatchEmbedding,
    /// `[1, 1, width]`.
    class: Tensor,
    norm_pre: Option<LayerNorm>,
    blocks: Vec<TransformerBlock>,
    norm_post: LayerNorm,
    projection: Linear,
}

/// Blocks for inference.
#[derive(Debug)]
struct Packed {
    /// From the pixels of a patch, channel by channel.
    patch: PackedLinear,
    class: Vec<f32>,
    /// Positions for the configured size.
    positions: Matrix,
    norm_pre: Option<Norm>,
    blocks: Vec<PackedBlock>,
    norm_post: Norm,
    projection: PackedLinear,
    spaces: Pool<Space>,
}

/// What one thread works in.
#[derive(Debug, Default)]
struct Space {
    patches: Matrix,
    x: Matrix,
    pooled: Matrix,
    projected: Matrix,
    blocks: Workspace,
}

/// Rows that go through the blocks together, computed by all threads: enough that weights are read seldom, few enough for the caches.
/// Threads that take pictures through the blocks each for itself are slower: they read the weights twice, at different times.
const GROUP_ROWS: usize = 400;

/// Stages of a group for a trace: names and rows, and whether these are pooled ones.
type Record = Mutex<Vec<(String, Matrix, bool)>>;

/// Pictures of one size, as pixels `[3, height, width]` each.
#[derive(Debug, Clone, Copy)]
pub struct Pictures<'a> {
    /// The pixels of each.
    pub pixels: &'a [&'a [f32]],
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
}

impl VisionTransformer {
    /// Loads the `vision.*` tensors. Positions of another grid than the configured one are resized.
    ///
    /// # Errors
    /// Tensors that can't be decoded.
    pub fn load(config: &VisionConfig, parameters: &Parameters<'_>, resize: GridResize) -> Result<Self> {
        let positions = parameters.weights.tensor("vision.positions", parameters.device)?;
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
        // What is trained is what was resized, as in the references.
        let positions = parameters.parameter("vision.positions", positions)?;
        let VisionConfig { layers, width, heads, activation, eps, pre_norm, .. } = *config;
        let road = if !parameters.packs() {
            let block = |i| parameters.block(&format!("vision.blocks.{i}"), heads, activation, eps);
            Road::Layers(Layers {
                patches: PatchEmbedding::new(&parameters.tensor("vision.patch.weight")?, None)?,
                class: parameters.tensor("vision.class")?.reshape((1, 1, width))?,
                norm_pre: pre_norm.then(|| parameters.norm("vision.norm_pre", eps)).transpose()?,
                blocks: (0..layers).map(block).collect::<Result<_>>()?,
                norm_post: parameters.norm("vision.norm_post", eps)?,
                projection: parameters.linear("vision.projection")?,
            })
        } else {
            Road::Packed(Box::new(Packed {
                patch: parameters.packed("vision.patch", None, Precision::Fp32)?,
                class: parameters.values("vision.class")?,
                positions: Matrix::from_rows(&positions.flatten_all()?.to_vec1()?, width),
                norm_pre: pre_norm.then(|| parameters.packed_norm("vision.norm_pre", eps)).transpose()?,
                blocks: parameters.packed_blocks("vision.blocks", layers, (width, heads), activation, eps)?,
                norm_post: parameters.packed_norm("vision.norm_post", eps)?,
                projection: parameters.packed("vision.projection", None, Precision::Fp32)?,
                spaces: Pool::new(),
            }))
        };
        Ok(Self { config: config.clone(), resize, positions, road })
    }

    /// Maps pixels `[batch, 3, height, width]` to un-normalised embeddings `[batch, embed_dim]`, differentiably where the tower was
    /// loaded so. Pictures of another size than the configured one get resized positions.
    ///
    /// # Errors
    /// Pictures smaller than a patch.
    pub fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        match &self.road {
            Road::Layers(layers) => self.run_layers(layers, pixels, None, None),
            Road::Packed(_) => {
                let rows = self.with_pictures(pixels, |pictures| self.encode(pictures, &CancelToken::new()))?;
                let width = rows.first().map_or(0, Vec::len);
                Ok(Tensor::from_vec(rows.concat(), (pixels.dim(0)?, width), &Device::Cpu)?)
            }
        }
    }

    /// As [`forward`](Self::forward), seeing each picture only through the patches whose numbers are listed for it (row by row from the top, the first being 0): as many
    /// for each, at least one. Patches that aren't seen cost next to nothing.
    ///
    /// # Errors
    /// As [`forward`](Self::forward); lists of unequal lengths, patches that don't exist, and a tower that was packed for inference.
    pub fn forward_kept(&self, pixels: &Tensor, kept: Option<&[Vec<u32>]>) -> Result<Tensor> {
        let Some(kept) = kept else { return self.forward(pixels) };
        let Road::Layers(layers) = &self.road else {
            return Err(Error::Input("patches can be left out by a trainable tower only".into()));
        };
        let (batch, _, height, width) = pixels.dims4()?;
        let all = (height / self.config.patch_size) * (width / self.config.patch_size);
        let count = kept.first().map_or(0, Vec::len);
        let fit = |list: &Vec<u32>| list.len() == count && list.iter().all(|patch| (*patch as usize) < all);
        if kept.len() != batch || count == 0 || !kept.iter().all(fit) {
            let reason =
                format!("one list of patches for each of {batch} pictures, all of one length, numbers below {all}");
            return Err(Error::Input(format!("lists of patches that don't fit, expected {reason}")));
        }
        self.run_layers(layers, pixels, Some(kept), None)
    }

    /// Maps any number of pictures of one size to un-normalised embeddings, as many at a time as is fastest.
    ///
    /// # Errors
    /// Pictures smaller than a patch, pixels that aren't `3 * height * width`, or a raised `cancel` token.
    pub fn encode(&self, pictures: Pictures<'_>, cancel: &CancelToken) -> Result<Vec<Vec<f32>>> {
        let Pictures { pixels, height, width } = pictures;
        if let Some(wrong) = pixels.iter().find(|pixels| pixels.len() != 3 * height * width) {
            let found = wrong.len();
            return Err(Error::Input(format!("{found} pixel values, expected 3 x {height} x {width}")));
        }
        match &self.road {
            Road::Packed(packed) => self.encode_packed(packed, pictures, cancel, None),
            Road::Layers(layers) => {
                let mut rows = Vec::with_capacity(pixels.len());
                for some in pixels.chunks(super::LAYER_BATCH) {
                    cancel.check()?;
                    let shape = (some.len(), 3, height, width);
                    let pixels = Tensor::from_vec(some.concat(), shape, self.positions.device())?;
                    rows.extend(self.run_layers(layers, &pixels, None, None)?.to_vec2()?);
                }
                Ok(rows)
            }
        }
    }

    /// As [`forward`](Self::forward), and returns every stage on the way. A tower packed for inference computes only the pooled token
    /// in the last block.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn trace(&self, pixels: &Tensor) -> Result<Trace> {
        let mut trace = Trace::new();
        match &self.road {
            Road::Layers(layers) => drop(self.run_layers(layers, pixels, None, Some(&mut trace))?),
            Road::Packed(packed) => {
                let cancel = CancelToken::new();
                self.with_pictures(pixels, |pictures| self.encode_packed(packed, pictures, &cancel, Some(&mut trace)))?;
            }
        }
        Ok(trace)
    }

    /// Hands out a tensor's pictures one by one.
    fn with_pictures<T>(&self, pixels: &Tensor, work: impl FnOnce(Pictures<'_>) -> Result<T>) -> Result<T> {
        let (_, channels, height, width) = pixels.dims4()?;
        let values: Vec<f32> = pixels.flatten_all()?.to_vec1()?;
        let pixels: Vec<&[f32]> = values.chunks_exact((channels * height * width).max(1)).collect();
        work(Pictures { pixels: &pixels, height, width })
    }

    fn run_layers(
        &self,
        layers: &Layers,
        pixels: &Tensor,
        kept: Option<&[Vec<u32>]>,
        mut trace: Option<&mut Trace>,
    ) -> Result<Tensor> {
        let traced = trace.is_some();
        let mut note = |name: &str, x: &Tensor| {
            if let Some(trace) = trace.as_deref_mut() {
                super::note(trace, name, x);
            }
        };
        let (batch, _, height, width) = pixels.dims4()?;
        let pixels = &pixels.to_device(self.positions.device())?;
        let kept: Option<Vec<u32>> = kept.map(<[Vec<u32>]>::concat);
        let x = match &kept {
            None => layers.patches.forward(pixels)?,
            Some(kept) => layers.patches.forward_kept(pixels, kept)?,
        };
        let x = assemble_tokens(&x, &layers.class, &self.positions_for(height, width)?, kept.as_deref())?;
        note("embeddings", &x);
        let mut x = match &layers.norm_pre {
            Some(norm) => norm.forward(&x)?,
            None => x,
        };
        note("hidden_0", &x);
        // Of the last block only the class token matters, where that stands for the picture.
        let whole: &[TransformerBlock] = match (layers.blocks.split_last(), self.config.pool) {
            (Some((_, rest)), VisionPool::ClassToken) if !traced => rest,
            _ => &layers.blocks,
        };
        if traced {
            for (i, block) in whole.iter().enumerate() {
                x = block.forward(&x, &AttentionMask::Full)?;
                note(&format!("hidden_{}", i + 1), &x);
            }
        } else {
            x = forward_blocks(whole, &x, &AttentionMask::Full)?;
        }
        if let [last] = &layers.blocks[whole.len()..] {
            let pooled = last.forward_pooled(&x, &vec![0; batch], &AttentionMask::Full)?;
            return Ok(layers.projection.forward(&layers.norm_post.forward(&pooled)?)?);
        }
        let pooled = self.pool(layers, &x)?;
        note("pooled", &pooled);
        let projected = layers.projection.forward(&pooled)?;
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

    fn pool(&self, layers: &Layers, x: &Tensor) -> Result<Tensor> {
        let pooled = match self.config.pool {
            // The norm works on each token alone, so pooling first changes nothing and saves the other tokens' norms.
            VisionPool::ClassToken => layers.norm_post.forward(&x.get_on_dim(1, 0)?)?,
            VisionPool::AverageOfPatches => {
                let patches = x.narrow(1, 1, x.dim(1)? - 1)?;
                if self.config.norm_after_pool {
                    layers.norm_post.forward(&patches.mean(1)?)?
                } else {
                    layers.norm_post.forward(&patches)?.mean(1)?
                }
            }
        };
        Ok(pooled)
    }

    fn encode_packed(
        &self,
        packed: &Packed,
        pictures: Pictures<'_>,
        cancel: &CancelToken,
        trace: Option<&mut Trace>,
    ) -> Result<Vec<Vec<f32>>> {
        let Pictures { pixels, height, width } = pictures;
        let (rows, columns) = (height / self.config.patch_size, width / self.config.patch_size);
        if rows * columns == 0 {
            let patch = self.config.patch_size;
            return Err(Error::Input(format!(
                "a picture of {width} x {height} pixels is smaller than a patch of {patch}"
            )));
        }
        let own;
        let positions = if (height, width) == self.config.image_size {
            &packed.positions
        } else {
            own = Matrix::from_rows(&self.positions_for(height, width)?.flatten_all()?.to_vec1()?, self.config.width);
            &own
        };
        let tokens = 1 + rows * columns;
        // A trace is of one group, so that its stages come in order.
        let sizes = match trace {
            Some(_) => vec![pixels.len()],
            None => equal_sizes(pixels.len(), GROUP_ROWS / tokens),
        };
        let mut start = 0;
        let groups: Vec<_> = sizes
            .into_iter()
            .map(|size| {
                start += size;
                start - size..start
            })
            .collect();
        let record = trace.is_some().then(|| Record::new(Vec::new()));
        let results = share(groups.len(), false, cancel, |crew, group| {
            let pixels = &pixels[groups[group].clone()];
            let pictures = Pictures { pixels, ..pictures };
            Ok(packed.spaces.with(|space| packed.run(&self.config, crew, pictures, positions, space, record.as_ref())))
        })?;
        if let (Some(trace), Some(record)) = (trace, record) {
            let record = record.into_inner().unwrap_or_else(PoisonError::into_inner);
            for (name, x, pooled) in record {
                trace.push(stage(&self.config, name, &x, pooled, (pixels.len(), tokens))?);
            }
        }
        Ok(results.into_iter().flatten().collect())
    }
}

/// A recorded stage in the reference's shape.
fn stage(
    config: &VisionConfig,
    name: String,
    x: &Matrix,
    pooled: bool,
    (batch, tokens): (usize, usize),
) -> Result<TracedStage> {
    let hidden = name.starts_with("hidden") || name == "embeddings";
    if hidden && pooled {
        let mut values = vec![0.0; batch * tokens * config.width];
        let mut computed = vec![false; batch * tokens];
        for picture in 0..batch {
            values[picture * tokens * config.width..][..config.width].copy_from_slice(x.row(picture));
            computed[picture * tokens] = true;
        }
        let values = Tensor::from_vec(values, (batch, tokens, config.width), &Device::Cpu)?;
        return Ok(TracedStage { name, values, computed: Some(computed) });
    }
    let shape = if hidden { vec![batch, tokens, x.width()] } else { vec![batch, x.width()] };
    Ok(TracedStage { name, values: Tensor::from_vec(x.to_vec(), shape, &Device::Cpu)?, computed: None })
}

impl Packed {
    /// Embeds pictures of one size, with `positions` for it.
    fn run(
        &self,
        config: &VisionConfig,
        crew: Crew<'_>,
        pictures: Pictures<'_>,
        positions: &Matrix,
        space: &mut Space,
        record: Option<&Record>,
    ) -> Vec<Vec<f32>> {
        let (batch, tokens) = (pictures.pixels.len(), positions.rows());
        let Space { patches, x, pooled, projected, blocks: workspace } = space;
        let record = |name: Arguments<'_>, x: &Matrix, pooled: bool| {
            if let Some(record) = record {
                let copy = Matrix::from_rows(&x.to_vec(), x.width());
                record.lock().unwrap_or_else(PoisonError::into_inner).push((name.to_string(), copy, pooled));
            }
        };
        // The class token's row has no patch: its product is zero.
        unfold(pictures, config.patch_size, tokens, patches);
        x.reshape(batch * tokens, config.width);
        for row in 0..batch * tokens {
            x.row_mut(row).copy_from_slice(positions.row(row % tokens));
            if row % tokens == 0 {
                x.row_mut(row).iter_mut().zip(&self.class).for_each(|(x, class)| *x += class);
            }
        }
        Product::of(&self.patch).then(Finish::Add).run(crew, patches, x);
        record(format_args!("embeddings"), x, false);
        if let Some(norm) = &self.norm_pre {
            norm.rows(crew, x);
        }
        record(format_args!("hidden_0"), x, false);
        let rows = |picture: usize| picture * tokens..(picture + 1) * tokens;
        let sequences: Vec<Sequence> = (0..batch)
            .map(|picture| Sequence { queries: rows(picture), prefix: Vec::new(), keys: rows(picture) })
            .collect();
        let mut observer = |blocks: usize, x: &Matrix| record(format_args!("hidden_{blocks}"), x, false);
        match config.pool {
            VisionPool::ClassToken => {
                let class: Vec<Pooled> = (0..batch)
                    .map(|picture| Pooled { row: picture * tokens, prefix: Vec::new(), keys: rows(picture) })
                    .collect();
                let observer: Observer<'_> = &mut observer;
                run_blocks(crew, &self.blocks, x, &sequences, false, &class, pooled, workspace, Some(observer));
                record(format_args!("hidden_{}", self.blocks.len()), pooled, true);
                self.norm_post.rows(crew, pooled);
            }
            VisionPool::AverageOfPatches => {
                for (number, block) in self.blocks.iter().enumerate() {
                    block.forward(crew, x, &sequences, false, workspace);
                    observer(number + 1, x);
                }
                if !config.norm_after_pool {
                    self.norm_post.rows(crew, x);
                }
                average_patches(x, batch, tokens, pooled);
                if config.norm_after_pool {
                    self.norm_post.rows(crew, pooled);
                }
            }
        }
        record(format_args!("pooled"), pooled, true);
        Product::of(&self.projection).run(crew, pooled, projected);
        record(format_args!("projected"), projected, true);
        (0..batch).map(|row| projected.row(row).to_vec()).collect()
    }
}

/// The mean of each picture's rows but the first.
fn average_patches(x: &Matrix, batch: usize, tokens: usize, out: &mut Matrix) {
    out.reshape(batch, x.width());
    for picture in 0..batch {
        let mut sums = vec![0f64; x.width()];
        for token in 1..tokens {
            sums.iter_mut().zip(x.row(picture * tokens + token)).for_each(|(sum, x)| *sum += f64::from(*x));
        }
        let mean = |(out, sum): (&mut f32, f64)| *out = (sum / (tokens - 1) as f64) as f32;
        out.row_mut(picture).iter_mut().zip(sums).for_each(mean);
    }
}

/// The pixels of each patch as a row `[3, patch, patch]`, patches in rows from the top, behind a row of zeros for each picture. Pixels
/// beyond the last whole patch are left out.
fn unfold(pictures: Pictures<'_>, patch: usize, tokens: usize, out: &mut Matrix) {
    let Pictures { pixels, height, width } = pictures;
    let columns = width / patch;
    out.reshape(pixels.len() * tokens, 3 * patch * patch);
    for (picture, pixels) in pixels.iter().enumerate() {
        out.row_mut(picture * tokens).fill(0.0);
        for token in 1..tokens {
            let (top, left) = ((token - 1) / columns * patch, (token - 1) % columns * patch);
            let lines =
                (0..3).flat_map(|channel| (0..patch).map(move |line| (channel * height + top + line) * width + left));
            let row = out.row_mut(picture * tokens + token);
            for (to, from) in row.chunks_exact_mut(patch).zip(lines) {
                to.copy_from_slice(&pixels[from..from + patch]);
            }
        }
    }
}
