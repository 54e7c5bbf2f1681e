//! Transformer blocks, one or a run of them, as one operation.
//!
//! Kept for the gradients are queries, keys and values, mixed values, the sum after the attention, the MLP's hidden layer ahead of its
//! non-linearity, and two numbers a row for each norm: ten widths a token where candle's operations keep over thirty. What norms and
//! non-linearities give is computed again while operands are packed. The memory belongs to the kernels, which use it again; it is given
//! back as soon as the gradients are through. Sequences are taken some at a time, so that what one step gives is still in the cache for
//! the next.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, Error, Layout, Result, Shape, Tensor};
use crossmodal_kernels::Lease;
use crossmodal_kernels::activation::chain;
use crossmodal_kernels::differentiable_attention::{Attention, Gradients, Mask};
use crossmodal_kernels::gemm::{Rows, Then};
use crossmodal_kernels::layer_norm::{NormGradient, statistics};
use crossmodal_kernels::team::Crew;

use super::attention::KernelMask;
use super::bundle::{Bundle, reached};
use super::gradients::returned;
use super::parameters::{BackwardMap, ForwardMap, LinearSums, LinearValues, NormSums, NormValues};
use super::{Values, crew, elements, on_processor, session};
use crate::block::TransformerBlock;

/// Elements of the hidden layer that are worked on at a time: with what belongs to them they stay in a third-level cache.
const CHUNK: usize = 2 << 20;

/// Rows that are worked on at a time at least: weights and their gradients pass by once for them.
const LEAST_ROWS: usize = 1024;

/// Whether a block can be one operation: all its parameters are `f32` on a processor, as products are to be, and its branches have no gains.
pub(crate) fn is_fused(block: &TransformerBlock, x: &Tensor) -> bool {
    let maps = [block.attention.qkv(), block.attention.out(), &block.mlp.fc1, &block.mlp.fc2];
    let is_plain = block.scale1.is_none() && block.scale2.is_none() && maps.iter().all(|map| map.products().is_none());
    is_plain && x.rank() == 3 && on_processor(block.parameters().chain([x]))
}

/// Applies blocks to `[batch, tokens, width]`, one after the other.
///
/// # Errors
/// Parameters whose shapes don't fit.
pub(crate) fn run(blocks: &[TransformerBlock], x: &Tensor, mask: KernelMask) -> Result<Tensor> {
    let blocks: Vec<TransformerBlock> = blocks.iter().map(TransformerBlock::contiguous).collect::<Result<_>>()?;
    for block in &blocks {
        check(block, x.dims3()?.2)?;
    }
    let (tied, bundle) = Bundle::tie(&blocks.iter().flat_map(TransformerBlock::parameters).collect::<Vec<_>>())?;
    let x = x.contiguous()?;
    let keep = x.track_op() || tied.track_op();
    x.apply_op2(&tied, Blocks { blocks, mask, bundle, keep, kept: Mutex::new(None) })
}

/// Refuses parameters whose shapes don't fit each other.
fn check(block: &TransformerBlock, width: usize) -> Result<()> {
    let refuse = |name: &str, found: &[usize], expected: &[usize]| {
        Err(Error::Msg(format!("{name} of shape {found:?}, expected {expected:?}")).bt())
    };
    let heads = block.attention.heads();
    if heads == 0 || width == 0 || !width.is_multiple_of(heads) {
        return Err(Error::Msg(format!("{heads} heads don't divide a width of {width}")).bt());
    }
    let hidden = block.mlp.fc1.weight().dims2()?.0;
    let maps = [
        ("attention.qkv", block.attention.qkv(), [3 * width, width]),
        ("attention.out", block.attention.out(), [width, width]),
        ("mlp.fc1", &block.mlp.fc1, [hidden, width]),
        ("mlp.fc2", &block.mlp.fc2, [width, hidden]),
    ];
    for (name, map, shape) in maps {
        if map.weight().dims() != shape {
            return refuse(&format!("{name}.weight"), map.weight().dims(), &shape);
        }
        if let Some(bias) = map.bias().filter(|bias| bias.dims() != &shape[..1]) {
            return refuse(&format!("{name}.bias"), bias.dims(), &shape[..1]);
        }
    }
    for (name, norm) in [("norm1", &block.norm1), ("norm2", &block.norm2)] {
        for parameter in norm.parameters() {
            if parameter.dims() != [width] {
                return refuse(name, parameter.dims(), &[width]);
            }
        }
    }
    Ok(())
}

/// What the forward pass keeps of a block for the gradients; a row of each for each token.
struct Kept {
    /// What came in, where that was another block's result.
    input: Option<Lease>,
    statistics1: Vec<[f32; 2]>,
    qkv: Lease,
    /// Largest score and reciprocal sum of each row of scores.
    softmax: Vec<f32>,
    mixed: Lease,
    sum: Lease,
    statistics2: Vec<[f32; 2]>,
    hidden: Lease,
}

/// Batch, tokens of a sequence, and widths.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    tokens: usize,
    width: usize,
    hidden: usize,
    heads: usize,
}

impl Sizes {
    /// Those of a block over a tensor of this shape.
    fn of(block: &TransformerBlock, dims: &[usize]) -> Result<Self> {
        let [batch, tokens, width] = *dims else {
            return Err(Error::Msg(format!("a block over a tensor of shape {dims:?}")).bt());
        };
        let hidden = block.mlp.fc1.weight().dims2()?.0;
        Ok(Self { batch, tokens, width, hidden, heads: block.attention.heads() })
    }

    /// Sequences that are worked on at a time.
    fn chunks(self) -> impl Iterator<Item = Range<usize>> {
        let most = (CHUNK / self.hidden.max(1)).max(LEAST_ROWS).div_ceil(self.tokens.max(1)).max(1);
        let count = self.batch.div_ceil(most);
        (0..count).map(move |chunk| chunk * self.batch / count..(chunk + 1) * self.batch / count)
    }

    /// The rows of some sequences.
    fn rows(self, sequences: &Range<usize>) -> Range<usize> {
        sequences.start * self.tokens..sequences.end * self.tokens
    }

    fn head(self) -> (usize, usize) {
        (self.heads, self.width / self.heads)
    }
}

/// Rows of a number of elements as a range of elements.
fn span(rows: &Range<usize>, width: usize) -> Range<usize> {
    rows.start * width..rows.end * width
}

/// The part of a mask that belongs to some sequences.
fn mask_of<'a>(mask: Mask<'a>, sizes: Sizes, sequences: &Range<usize>) -> Mask<'a> {
    let one = sizes.tokens * sizes.tokens;
    match mask {
        Mask::Additive(values) if values.len() > one => Mask::Additive(&values[span(sequences, one)]),
        mask => mask,
    }
}

struct Blocks {
    blocks: Vec<TransformerBlock>,
    mask: KernelMask,
    bundle: Arc<Bundle>,
    keep: bool,
    /// Of each block.
    kept: Mutex<Option<Vec<Kept>>>,
}

impl CustomOp2 for Blocks {
    fn name(&self) -> &'static str {
        "transformer blocks"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = elements(x, xl)?;
        let mut y = vec![0.0; x.len()];
        let kept = self.mask.with(|mask| self.forward(xl.dims(), mask, x, &mut y, self.keep))?;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        Ok((CpuStorage::F32(y), xl.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, tied: &Tensor, _: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let dx = self.mask.with(|mask| {
            let (values, dy) = (Values::of(x)?, Values::of(&dy)?);
            let kept = match kept {
                Some(kept) if kept.len() == self.blocks.len() => kept,
                // A second backward pass over the same graph.
                _ => self.forward(x.dims(), mask, &values, &mut Lease::of(values.len()), true)?,
            };
            self.backward(x.dims(), mask, (&values, x.track_op()), dy.to_vec(), kept)
        })?;
        let dx = if x.track_op() { returned(x, dx)? } else { None };
        Ok((dx, reached(tied)?))
    }
}

impl Blocks {
    /// Writes the last block's result, and returns what the gradients need where that is wanted.
    fn forward(&self, dims: &[usize], mask: Mask<'_>, x: &[f32], y: &mut [f32], keep: bool) -> Result<Vec<Kept>> {
        let mut kept = Vec::new();
        let mut input: Option<Lease> = None;
        for (number, block) in self.blocks.iter().enumerate() {
            let sizes = Sizes::of(block, dims)?;
            let x = input.as_deref().unwrap_or(x);
            let mut next = (number + 1 < self.blocks.len()).then(|| Lease::of(x.len()));
            let of_block = forward(block, sizes, mask, x, next.as_deref_mut().unwrap_or(y), keep)?;
            if let Some(of_block) = of_block {
                kept.push(Kept { input, ..of_block });
            }
            input = next;
        }
        Ok(kept)
    }

    /// Leaves the parameters' gradients with the bundle, and turns the result's gradient into the input's as far as one is needed.
    fn backward(
        &self,
        dims: &[usize],
        mask: Mask<'_>,
        (x, tracked): (&[f32], bool),
        mut gradient: Vec<f32>,
        mut kept: Vec<Kept>,
    ) -> Result<Vec<f32>> {
        for (number, block) in self.blocks.iter().enumerate().rev() {
            let Some(mut kept) = kept.pop() else { break };
            let earlier = &self.blocks[..number];
            let input = tracked || earlier.iter().flat_map(TransformerBlock::parameters).any(Tensor::track_op);
            let own = kept.input.take();
            let x = own.as_deref().unwrap_or(x);
            let needs = Needs::of(block, input);
            backward(block, &self.bundle, Sizes::of(block, dims)?, mask, x, &mut gradient, kept, needs)?;
            if !input {
                break;
            }
        }
        Ok(gradient)
    }
}

/// Which parts of a block need gradients.
#[derive(Clone, Copy)]
struct Needs {
    input: bool,
    /// Anything ahead of the MLP's branch.
    attention: bool,
}

impl Needs {
    fn of(block: &TransformerBlock, input: bool) -> Self {
        let ahead = block.norm1.parameters().into_iter();
        let mut ahead = ahead.chain(block.attention.qkv().parameters()).chain(block.attention.out().parameters());
        Self { input, attention: input || ahead.any(Tensor::track_op) }
    }
}

/// Writes the block's result, and returns what the gradients need where that is wanted.
fn forward(
    block: &TransformerBlock,
    sizes: Sizes,
    mask: Mask<'_>,
    x: &[f32],
    y: &mut [f32],
    keep: bool,
) -> Result<Option<Kept>> {
    let Sizes { width, hidden, heads, tokens, .. } = sizes;
    let (norm1, norm2) = (NormValues::of(&block.norm1)?, NormValues::of(&block.norm2)?);
    let maps = [block.attention.qkv(), block.attention.out(), &block.mlp.fc1, &block.mlp.fc2];
    let [qkv, out, fc1, fc2] = maps.map(LinearValues::of);
    let (qkv, out, fc1, fc2) = (qkv?, out?, fc1?, fc2?);
    let session = session();
    let crew = crew(&session);
    let [qkv, out, fc1, fc2] = [&qkv, &out, &fc1, &fc2].map(|map| ForwardMap::new(crew, map));
    let largest = sizes.chunks().map(|chunk| chunk.len() * tokens).max().unwrap_or(0);
    let rows = if keep { sizes.batch * tokens } else { largest };
    let mut kept = Kept {
        input: None,
        statistics1: vec![[0.0; 2]; rows],
        qkv: Lease::of(rows * 3 * width),
        softmax: vec![0.0; 2 * rows * heads],
        mixed: Lease::of(rows * width),
        sum: Lease::of(rows * width),
        statistics2: vec![[0.0; 2]; rows],
        hidden: Lease::of(rows * hidden),
    };
    for chunk in sizes.chunks() {
        let rows = sizes.rows(&chunk);
        // Where nothing is kept, all chunks use the same memory.
        let own = if keep { rows.clone() } else { 0..rows.len() };
        let x = &x[span(&rows, width)];
        let statistics1 = &mut kept.statistics1[own.clone()];
        statistics(crew, x, width, norm1.eps, statistics1);
        let normalised = Rows::new(x, width).normalised(norm1.with(statistics1));
        let packed = &mut kept.qkv[span(&own, 3 * width)];
        qkv.apply(crew, normalised, Then::Store, packed);
        let mixed = &mut kept.mixed[span(&own, width)];
        let softmax = &mut kept.softmax[span(&own, 2 * heads)];
        let mask = mask_of(mask, sizes, &chunk);
        Attention::packed(packed, tokens, sizes.head(), mask).forward(crew, mixed, softmax);
        let sum = &mut kept.sum[span(&own, width)];
        out.apply(crew, Rows::new(mixed, width), Then::AddTo(Rows::new(x, width)), sum);
        let statistics2 = &mut kept.statistics2[own.clone()];
        statistics(crew, sum, width, norm2.eps, statistics2);
        let normalised = Rows::new(sum, width).normalised(norm2.with(statistics2));
        let inner = &mut kept.hidden[span(&own, hidden)];
        fc1.apply(crew, normalised, Then::Store, inner);
        let activated = Rows::new(inner, hidden).activated(block.mlp.activation.kernel());
        let y = &mut y[span(&rows, width)];
        fc2.apply(crew, activated, Then::AddTo(Rows::new(sum, width)), y);
    }
    Ok(keep.then_some(kept))
}

/// Leaves the parameters' gradients with the bundle and turns the result's gradient into the input's.
#[expect(clippy::too_many_arguments, reason = "what flows in and out of a block, each of another kind")]
fn backward(
    block: &TransformerBlock,
    bundle: &Bundle,
    sizes: Sizes,
    mask: Mask<'_>,
    x: &[f32],
    gradient: &mut [f32],
    mut kept: Kept,
    needs: Needs,
) -> Result<()> {
    let (norm1, norm2) = (NormValues::of(&block.norm1)?, NormValues::of(&block.norm2)?);
    let maps = [block.attention.qkv(), block.attention.out(), &block.mlp.fc1, &block.mlp.fc2];
    let [qkv, out, fc1, fc2] = maps.map(LinearValues::of);
    let (qkv, out, fc1, fc2) = (qkv?, out?, fc1?, fc2?);
    let (mut norm1_sums, mut norm2_sums) = (NormSums::of(&block.norm1), NormSums::of(&block.norm2));
    let mut sums = maps.map(LinearSums::of);
    {
        let session = session();
        let crew = crew(&session);
        let maps = [&qkv, &out, &fc1, &fc2].map(|map| BackwardMap::new(crew, map));
        let walk = Walk { crew, sizes, needs, norm1: &norm1, norm2: &norm2, maps: &maps, block };
        for chunk in sizes.chunks() {
            let rows = sizes.rows(&chunk);
            let elements = span(&rows, sizes.width);
            let (x, gradient) = (&x[elements.clone()], &mut gradient[elements]);
            walk.mlp(&rows, gradient, &mut kept, &mut norm2_sums, &mut sums);
            if needs.attention {
                let mask = mask_of(mask, sizes, &chunk);
                walk.attention(&rows, x, mask, &kept, gradient, &mut norm1_sums, &mut sums);
            }
        }
    }
    for (map, sums) in maps.into_iter().zip(sums) {
        sums.leave(map, bundle)?;
    }
    norm1_sums.leave(&block.norm1, bundle)?;
    norm2_sums.leave(&block.norm2, bundle)
}

/// What the backward pass through some sequences needs.
struct Walk<'a> {
    crew: Crew<'a>,
    sizes: Sizes,
    needs: Needs,
    norm1: &'a NormValues<'a>,
    norm2: &'a NormValues<'a>,
    maps: &'a [BackwardMap<'a>; 4],
    block: &'a TransformerBlock,
}

impl Walk<'_> {
    /// Through the MLP's branch: adds to the result's gradient what comes back through it, which makes it the gradient of the sum after
    /// the attention. The hidden layer is overwritten with its gradient.
    fn mlp(
        &self,
        rows: &Range<usize>,
        d_sum: &mut [f32],
        kept: &mut Kept,
        norm_sums: &mut NormSums,
        sums: &mut [LinearSums; 4],
    ) {
        let Sizes { width, hidden, .. } = self.sizes;
        let [_, _, fc1, fc2] = self.maps;
        let [_, _, fc1_sums, fc2_sums] = sums;
        let nonlinearity = self.block.mlp.activation.kernel();
        let outputs = Rows::new(d_sum, width);
        let inner = &mut kept.hidden[span(rows, hidden)];
        fc2_sums.add(self.crew, fc2, outputs, Rows::new(inner, hidden).activated(nonlinearity));
        if fc2.has_adapters() {
            let mut gradient = Lease::of(inner.len());
            fc2.input_gradient(self.crew, outputs, Then::Store, &mut gradient);
            chain(self.crew, nonlinearity, &gradient, inner);
        } else {
            fc2.input_gradient(self.crew, outputs, Then::Derivative(nonlinearity), inner);
        }
        let sum = &kept.sum[span(rows, width)];
        let statistics = &kept.statistics2[rows.clone()];
        let d_hidden = Rows::new(inner, hidden);
        fc1_sums.add(self.crew, fc1, d_hidden, Rows::new(sum, width).normalised(self.norm2.with(statistics)));
        if self.needs.attention || norm_sums.wanted() {
            let mut gradient = Lease::of(rows.len() * width);
            fc1.input_gradient(self.crew, d_hidden, Then::Store, &mut gradient);
            let norm = self.norm2.with(statistics);
            let through = NormGradient { x: sum, dy: &gradient, norm };
            through.run(self.crew, self.needs.attention.then_some(d_sum), norm_sums.parts());
        }
    }

    /// Through the attention's branch: adds to `d_sum` what comes back through it.
    #[expect(clippy::too_many_arguments, reason = "what flows in and out of one step, each of another kind")]
    fn attention(
        &self,
        rows: &Range<usize>,
        x: &[f32],
        mask: Mask<'_>,
        kept: &Kept,
        d_sum: &mut [f32],
        norm_sums: &mut NormSums,
        sums: &mut [LinearSums; 4],
    ) {
        let Sizes { width, heads, tokens, .. } = self.sizes;
        let [qkv, out, _, _] = self.maps;
        let [qkv_sums, out_sums, _, _] = sums;
        let mixed = &kept.mixed[span(rows, width)];
        out_sums.add(self.crew, out, Rows::new(d_sum, width), Rows::new(mixed, width));
        let mut gradient = Lease::of(rows.len() * width);
        out.input_gradient(self.crew, Rows::new(d_sum, width), Then::Store, &mut gradient);
        let packed = &kept.qkv[span(rows, 3 * width)];
        let mut d_packed = Lease::of(packed.len());
        let attention = Attention::packed(packed, tokens, self.sizes.head(), mask);
        let softmax = &kept.softmax[span(rows, 2 * heads)];
        attention.backward(self.crew, softmax, &gradient, Gradients::Packed(&mut d_packed));
        let outputs = Rows::new(&d_packed, 3 * width);
        let norm = self.norm1.with(&kept.statistics1[rows.clone()]);
        qkv_sums.add(self.crew, qkv, outputs, Rows::new(x, width).normalised(norm));
        if self.needs.input || norm_sums.wanted() {
            qkv.input_gradient(self.crew, outputs, Then::Store, &mut gradient);
            let through = NormGradient { x, dy: &gradient, norm };
            through.run(self.crew, self.needs.input.then_some(d_sum), norm_sums.parts());
        }
    }
}
