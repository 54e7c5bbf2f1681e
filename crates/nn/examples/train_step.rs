//! Time and memory of a training step of CLIP-shaped towers on a processor: `train_step MODEL [--lora RANK] [--steps N] [--threads N] [--batch N]`,
//! with MODEL `mini` or `vit-b-32`. Random weights and inputs; the loss is symmetric InfoNCE, the optimiser AdamW. Prints one line of
//! JSON: median and best seconds of a step, GFLOP/s and share of the peak that was measured in the same run, and the greatest resident
//! memory.

use std::time::{Duration, Instant};

use crossmodal_kernels::peak;
use crossmodal_kernels::team::{Team, set_threads};
use crossmodal_nn::{
    Activation, AdamW, AttentionMask, Device, LayerNorm, Linear, Mlp, Moments, PatchEmbedding, Result, SelfAttention,
    Tensor, TransformerBlock, adamw_step, assemble_tokens, backward, embed_tokens, forward_blocks, keep_freed_memory,
    l2_normalise, softmax_last_dim,
};

/// Shape of one tower.
#[derive(Clone, Copy)]
struct Tower {
    width: usize,
    layers: usize,
    heads: usize,
}

struct Model {
    vision: Tower,
    text: Tower,
    image_size: usize,
    patch_size: usize,
    vocabulary: usize,
    context: usize,
    /// Tokens of the texts of a batch.
    tokens: usize,
    embed_dim: usize,
    batch: usize,
}

const MINI: Model = Model {
    vision: Tower { width: 192, layers: 6, heads: 3 },
    text: Tower { width: 192, layers: 4, heads: 3 },
    image_size: 64,
    patch_size: 8,
    vocabulary: 6144,
    context: 32,
    tokens: 16,
    embed_dim: 128,
    batch: 256,
};

const VIT_B_32: Model = Model {
    vision: Tower { width: 768, layers: 12, heads: 12 },
    text: Tower { width: 512, layers: 12, heads: 8 },
    image_size: 224,
    patch_size: 32,
    vocabulary: 49_408,
    context: 77,
    tokens: 32,
    embed_dim: 512,
    batch: 32,
};

/// Makes parameters: variables, or frozen where only adapters are trained.
struct Maker {
    seed: u64,
    trained: Vec<Tensor>,
    lora: Option<usize>,
}

impl Maker {
    fn values(&mut self, shape: &[usize], scale: f32) -> Result<Tensor> {
        let count = shape.iter().product();
        let values: Vec<f32> = (0..count)
            .map(|_| {
                self.seed ^= self.seed << 13;
                self.seed ^= self.seed >> 7;
                self.seed ^= self.seed << 17;
                ((self.seed >> 40) as f32 / (1 << 23) as f32 - 1.0) * scale
            })
            .collect();
        Tensor::from_vec(values, shape, &Device::Cpu)
    }

    fn variable(&mut self, shape: &[usize], scale: f32) -> Result<Tensor> {
        let variable = candle_core::Var::from_tensor(&self.values(shape, scale)?)?.into_inner();
        self.trained.push(variable.clone());
        Ok(variable)
    }

    fn parameter(&mut self, shape: &[usize], scale: f32) -> Result<Tensor> {
        if self.lora.is_some() { self.values(shape, scale) } else { self.variable(shape, scale) }
    }

    fn linear(&mut self, out: usize, inner: usize) -> Result<Linear> {
        let scale = (inner as f32).powf(-0.5);
        Ok(Linear::new(self.parameter(&[out, inner], scale)?, Some(self.parameter(&[out], 0.02)?)))
    }

    fn norm(&mut self, width: usize) -> Result<LayerNorm> {
        let weight = (self.values(&[width], 0.1)? + 1.0)?;
        let weight = if self.lora.is_some() {
            weight
        } else {
            let variable = candle_core::Var::from_tensor(&weight)?.into_inner();
            self.trained.push(variable.clone());
            variable
        };
        Ok(LayerNorm::new(weight, self.parameter(&[width], 0.02)?, 1e-5))
    }

    fn block(&mut self, Tower { width, heads, .. }: Tower) -> Result<TransformerBlock> {
        let mut qkv = self.linear(3 * width, width)?;
        if let Some(rank) = self.lora {
            // Queries and values, as is usual.
            for part in [0, 2] {
                let (a, b) = (self.variable(&[rank, width], 0.05)?, self.variable(&[width, rank], 0.01)?);
                qkv = qkv.with_adapter_on(part * width..(part + 1) * width, a, b, 2.0)?;
            }
        }
        Ok(TransformerBlock {
            norm1: self.norm(width)?,
            attention: SelfAttention::new(qkv, self.linear(width, width)?, heads),
            scale1: None,
            norm2: self.norm(width)?,
            mlp: Mlp {
                fc1: self.linear(4 * width, width)?,
                activation: Activation::QuickGelu,
                fc2: self.linear(width, 4 * width)?,
            },
            scale2: None,
        })
    }
}

struct Towers {
    patches: PatchEmbedding,
    class: Tensor,
    positions: Tensor,
    norm_pre: LayerNorm,
    vision: Vec<TransformerBlock>,
    norm_post: LayerNorm,
    image_projection: Linear,
    tokens: Tensor,
    text_positions: Tensor,
    text: Vec<TransformerBlock>,
    norm_final: LayerNorm,
    text_projection: Linear,
    logit_scale: Tensor,
}

impl Towers {
    fn new(model: &Model, maker: &mut Maker) -> Result<Self> {
        let Model { vision, text, patch_size: p, .. } = *model;
        let grid = (model.image_size / p) * (model.image_size / p);
        let bare = |maker: &mut Maker, out, inner: usize| {
            Ok::<_, candle_core::Error>(Linear::new(maker.parameter(&[out, inner], (inner as f32).powf(-0.5))?, None))
        };
        Ok(Self {
            patches: PatchEmbedding::new(&maker.parameter(&[vision.width, 3, p, p], 0.02)?, None)?,
            class: maker.parameter(&[vision.width], 0.02)?,
            positions: maker.parameter(&[1 + grid, vision.width], 0.02)?,
            norm_pre: maker.norm(vision.width)?,
            vision: (0..vision.layers).map(|_| maker.block(vision)).collect::<Result<_>>()?,
            norm_post: maker.norm(vision.width)?,
            image_projection: bare(maker, model.embed_dim, vision.width)?,
            tokens: maker.parameter(&[model.vocabulary, text.width], 0.02)?,
            text_positions: maker.parameter(&[model.context, text.width], 0.02)?,
            text: (0..text.layers).map(|_| maker.block(text)).collect::<Result<_>>()?,
            norm_final: maker.norm(text.width)?,
            text_projection: bare(maker, model.embed_dim, text.width)?,
            logit_scale: maker.parameter(&[1], 1.0)?,
        })
    }

    fn loss(&self, pixels: &Tensor, ids: &[Vec<u32>]) -> Result<Tensor> {
        let batch = ids.len();
        let x = assemble_tokens(&self.patches.forward(pixels)?, &self.class, &self.positions, None)?;
        let image = run(&self.vision, self.norm_pre.forward(&x)?, &vec![0; batch], &AttentionMask::Full)?;
        let image = self.image_projection.forward(&self.norm_post.forward(&image)?)?;
        let x = embed_tokens(&self.tokens, &self.text_positions, ids)?;
        let ends = vec![ids[0].len() as u32 - 1; batch];
        let text = run(&self.text, x, &ends, &AttentionMask::Causal)?;
        let text = self.text_projection.forward(&self.norm_final.forward(&text)?)?;
        let logits = l2_normalise(&image)?.matmul(&l2_normalise(&text)?.t()?)?;
        let logits = logits.broadcast_mul(&self.logit_scale.exp()?)?;
        let own = Tensor::eye(batch, logits.dtype(), logits.device())?;
        let entropy = |logits: &Tensor| (softmax_last_dim(logits)?.log()? * &own)?.sum_all();
        (entropy(&logits)? + entropy(&logits.t()?.contiguous()?)?)? * (-0.5 / batch as f64)
    }
}

/// Runs blocks, the last for one token of each sequence only.
fn run(blocks: &[TransformerBlock], x: Tensor, at: &[u32], mask: &AttentionMask) -> Result<Tensor> {
    let Some((last, others)) = blocks.split_last() else { return Ok(x) };
    last.forward_pooled(&forward_blocks(others, &x, mask)?, at, mask)
}

/// Operations of a step as it is usually counted: two for each weight and token forwards, four backwards (two where weights are
/// frozen), attention likewise, all tokens in all layers.
fn operations(model: &Model, frozen: bool) -> f64 {
    let tower = |Tower { width, layers, .. }: Tower, tokens: usize| {
        (layers * tokens * (24 * width * width + 4 * tokens * width)) as f64
    };
    let patches = (model.image_size / model.patch_size).pow(2);
    let one = tower(model.vision, 1 + patches) + tower(model.text, model.tokens);
    one * model.batch as f64 * if frozen { 2.0 } else { 3.0 }
}

/// Greatest resident memory so far, in bytes; 0 where the system doesn't say.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn main() -> Result<()> {
    keep_freed_memory();
    let arguments: Vec<String> = std::env::args().collect();
    let after = |name: &str| {
        arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1)?.parse::<usize>().ok())
    };
    let mut model = if arguments.iter().any(|a| a == "vit-b-32") { VIT_B_32 } else { MINI };
    model.batch = after("--batch").unwrap_or(model.batch);
    let lora = after("--lora");
    set_threads(after("--threads").unwrap_or(2));
    let mut maker = Maker { seed: 1, trained: Vec::new(), lora };
    let towers = Towers::new(&model, &mut maker)?;
    let size = model.image_size;
    let pixels = maker.values(&[model.batch, 3, size, size], 1.0)?;
    let id = |row: usize, at: usize| ((row * 7919 + at * 104_729) % model.vocabulary) as u32;
    let ids: Vec<Vec<u32>> = (0..model.batch).map(|row| (0..model.tokens).map(|at| id(row, at)).collect()).collect();
    let mut moments: Vec<Moments> = maker.trained.iter().map(Moments::new).collect();
    let (mut seconds, mut losses) = (Vec::new(), Vec::new());
    for step in 1..=after("--steps").unwrap_or(6) {
        let start = Instant::now();
        let loss = towers.loss(&pixels, &ids)?;
        let mut gradients = backward(&loss)?;
        losses.push(loss.to_scalar::<f32>()?);
        drop(loss);
        let settings = AdamW {
            rate: 1e-4,
            beta1: 0.9,
            beta2: 0.98,
            eps: 1e-6,
            decay: 0.1,
            gradient_scale: 1.0,
            step: step as u32,
        };
        for (variable, moments) in maker.trained.iter().zip(&mut moments) {
            if let Some(gradient) = gradients.remove(variable) {
                adamw_step(variable, &gradient, moments, settings)?;
            }
        }
        seconds.push(start.elapsed().as_secs_f64());
    }
    // The first step warms up.
    let mut rest = seconds.split_off(1.min(seconds.len() - 1));
    rest.sort_by(f64::total_cmp);
    let (median, best) = (rest[rest.len() / 2], rest[0]);
    let limit = peak::gflops(&Team::global().session(), Duration::from_millis(500));
    let rate = operations(&model, lora.is_some()) / median / 1e9;
    println!(
        "{{\"seconds\": {median:.4}, \"best\": {best:.4}, \"samples_per_second\": {:.1}, \"gflops\": {rate:.1}, \
         \"of_peak\": {:.3}, \"peak_gflops\": {limit:.1}, \"memory\": {}, \"losses\": {losses:?}}}",
        model.batch as f64 / median,
        rate / limit,
        peak_memory(),
    );
    Ok(())
}
