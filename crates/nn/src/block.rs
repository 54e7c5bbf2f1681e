//! The pre-norm transformer block that all towers share.

use candle_core::{Error, Result, Tensor};

use crate::activation::Activation;
use crate::attention::{AttentionMask, SelfAttention};
use crate::linear::Linear;
use crate::norm::LayerNorm;
use crate::ops::attention::KernelMask;
use crate::ops::block::{is_fused, run};
use crate::ops::take_tokens;

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
    /// All parameters.
    pub fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        let gains = [&self.scale1, &self.scale2].into_iter().flatten().map(|LayerScale(gain)| gain);
        let norms = self.norm1.parameters().into_iter().chain(self.norm2.parameters());
        let maps = [self.attention.qkv(), self.attention.out(), &self.mlp.fc1, &self.mlp.fc2];
        norms.chain(maps.into_iter().flat_map(Linear::parameters)).chain(gains)
    }

    /// The same block with parameters that lie in row-major order.
    pub(crate) fn contiguous(&self) -> Result<Self> {
        Ok(Self {
            norm1: self.norm1.contiguous()?,
            attention: self.attention.contiguous()?,
            norm2: self.norm2.contiguous()?,
            mlp: Mlp {
                fc1: self.mlp.fc1.contiguous()?,
                activation: self.mlp.activation,
                fc2: self.mlp.fc2.contiguous()?,
            },
            ..self.clone()
        })
    }

    /// Maps `[batch, tokens, width]` to the same shape.
    ///
    /// # Errors
    /// A width that doesn't fit.
    pub fn forward(&self, x: &Tensor, mask: &AttentionMask) -> Result<Tensor> {
        if let Some(mask) = fused_mask(std::slice::from_ref(self), x, mask)? {
            return run(std::slice::from_ref(self), x, mask);
        }
        let branch = self.attention.forward(&self.norm1.forward(x)?, mask)?;
        self.rest(x, branch)
    }

    /// What [`forward`](Self::forward) gives at one position of each sequence, `[batch, width]`. In a last block nothing else is needed:
    /// keys and values are computed for all tokens, all else for this one.
    ///
    /// # Errors
    /// A width that doesn't fit, or positions that don't exist or aren't one for each sequence.
    pub fn forward_pooled(&self, x: &Tensor, at: &[u32], mask: &AttentionMask) -> Result<Tensor> {
        let (batch, _, width) = x.dims3()?;
        if at.len() != batch {
            return Err(Error::Msg(format!("{} pooled positions for a batch of {batch}", at.len())).bt());
        }
        let pooled = take_tokens(x, at)?.reshape((batch, width))?;
        let normalised = self.norm1.forward(&pooled)?;
        let branch = self.attention.forward_pooled(&self.norm1.forward(x)?, &normalised, at, mask)?;
        self.rest(&pooled, branch)
    }

    /// The residual sum and the MLP behind the attention's branch.
    fn rest(&self, x: &Tensor, branch: Tensor) -> Result<Tensor> {
        let x = (x + scaled(branch, self.scale1.as_ref())?)?;
        let Mlp { fc1, activation, fc2 } = &self.mlp;
        let branch = fc2.forward(&activation.forward(&fc1.forward(&self.norm2.forward(&x)?)?)?)?;
        x + scaled(branch, self.scale2.as_ref())?
    }
}

/// Applies blocks to `[batch, tokens, width]`, one after the other: what [`TransformerBlock::forward`] of each gives, as one operation where
/// that can be, so that nothing is copied between them.
///
/// # Errors
/// A width that doesn't fit.
pub fn forward_blocks(blocks: &[TransformerBlock], x: &Tensor, mask: &AttentionMask) -> Result<Tensor> {
    if blocks.is_empty() {
        return Ok(x.clone());
    }
    if let Some(mask) = fused_mask(blocks, x, mask)? {
        return run(blocks, x, mask);
    }
    blocks.iter().try_fold(x.clone(), |x, block| block.forward(&x, mask))
}

/// The kernels' form of the mask where these blocks can be one operation.
fn fused_mask(blocks: &[TransformerBlock], x: &Tensor, mask: &AttentionMask) -> Result<Option<KernelMask>> {
    if !blocks.iter().all(|block| is_fused(block, x)) {
        return Ok(None);
    }
    let (batch, tokens, _) = x.dims3()?;
    KernelMask::of(mask, batch, tokens, tokens)
}

fn scaled(branch: Tensor, scale: Option<&LayerScale>) -> Result<Tensor> {
    match scale {
        Some(LayerScale(gain)) => branch.broadcast_mul(gain),
        None => Ok(branch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};
    use crossmodal_kernels::attention::Sequence;
    use crossmodal_kernels::product::PackedLinear;
    use crossmodal_kernels::team::Crew;
    use crossmodal_kernels::{Matrix, Norm};

    use crate::packed::{PackedBlock, Pooled, Workspace, query_gain};

    const WIDTH: usize = 12;
    const HEADS: usize = 3;

    /// Numbers between -1 and 1.
    fn values(shape: &[usize], seed: usize) -> Tensor {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    /// A block of variables.
    fn block(activation: Activation, scaled: bool) -> TransformerBlock {
        let parameter =
            |shape: &[usize], seed: usize| Var::from_tensor(&values(shape, seed)).unwrap().as_tensor().clone();
        let linear = |out, inner, seed| Linear::new(parameter(&[out, inner], seed), Some(parameter(&[out], seed + 1)));
        let norm = |seed| LayerNorm::new(parameter(&[WIDTH], seed), parameter(&[WIDTH], seed + 1), 1e-5);
        let scale = |seed| scaled.then(|| LayerScale(parameter(&[WIDTH], seed)));
        TransformerBlock {
            norm1: norm(1),
            attention: SelfAttention::new(linear(3 * WIDTH, WIDTH, 3), linear(WIDTH, WIDTH, 5), HEADS),
            scale1: scale(7),
            norm2: norm(8),
            mlp: Mlp { fc1: linear(40, WIDTH, 10), activation, fc2: linear(WIDTH, 40, 12) },
            scale2: scale(14),
        }
    }

    /// The same block, packed.
    fn packed(activation: Activation, scaled: bool) -> PackedBlock {
        let parameter = |shape: &[usize], seed: usize| values(shape, seed).flatten_all().unwrap().to_vec1().unwrap();
        let linear = |out, inner, seed, gain: Option<Vec<f32>>| {
            let (weight, bias): (Vec<f32>, Vec<f32>) = (parameter(&[out, inner], seed), parameter(&[out], seed + 1));
            PackedLinear::fp32(&weight, inner, Some(&bias), gain.as_deref())
        };
        let norm = |seed| Norm::new(parameter(&[WIDTH], seed), parameter(&[WIDTH], seed + 1), 1e-5);
        let scale = |seed| scaled.then(|| parameter(&[WIDTH], seed));
        PackedBlock {
            norm1: norm(1),
            qkv: linear(3 * WIDTH, WIDTH, 3, Some(query_gain(WIDTH, HEADS))),
            out: linear(WIDTH, WIDTH, 5, scale(7)),
            norm2: norm(8),
            fc1: linear(40, WIDTH, 10, None),
            nonlinearity: activation.kernel(),
            fc2: linear(WIDTH, 40, 12, scale(14)),
            heads: HEADS,
        }
    }

    #[test]
    fn both_roads_give_the_same_values() {
        let (batch, tokens) = (2, 7);
        let x = values(&[batch, tokens, WIDTH], 20);
        let flat: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
        let sequences: Vec<Sequence> = (0..batch)
            .map(|at| at * tokens..(at + 1) * tokens)
            .map(|rows| Sequence { queries: rows.clone(), prefix: Vec::new(), keys: rows })
            .collect();
        for activation in [Activation::QuickGelu, Activation::Gelu, Activation::GeluTanh] {
            for scaled in [false, true] {
                for mask in [AttentionMask::Full, AttentionMask::Causal] {
                    let causal = matches!(mask, AttentionMask::Causal);
                    let plain = block(activation, scaled).forward(&x, &mask).unwrap();
                    let plain: Vec<f32> = plain.detach().flatten_all().unwrap().to_vec1().unwrap();
                    let fused = packed(activation, scaled);
                    let mut rows = Matrix::from_rows(&flat, WIDTH);
                    let mut workspace = Workspace::default();
                    fused.forward(Crew::Solo, &mut rows, &sequences, causal, &mut workspace);
                    let gap = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(gap(&rows.to_vec(), &plain) < 2e-5, "{activation:?} {scaled} {mask:?}");
                    // The fourth row of each sequence alone; where the mask is causal it sees four rows.
                    let pooled: Vec<Pooled> = sequences
                        .iter()
                        .map(|Sequence { keys, .. }| Pooled {
                            row: keys.start + 3,
                            prefix: vec![keys.start as u32],
                            keys: keys.start + 1..if causal { keys.start + 4 } else { keys.end },
                        })
                        .collect();
                    let mut found = Matrix::default();
                    let x = Matrix::from_rows(&flat, WIDTH);
                    fused.forward_pooled(Crew::Solo, &x, &pooled, &mut found, &mut workspace);
                    for (at, pooled) in pooled.iter().enumerate() {
                        let expected = &plain[pooled.row * WIDTH..][..WIDTH];
                        assert!(gap(found.row(at), expected) < 2e-5, "{activation:?} {scaled} {mask:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_block_with_variables_has_gradients_for_all_of_them() {
        let x = Var::from_tensor(&values(&[1, 5, WIDTH], 21)).unwrap();
        let block = block(Activation::Gelu, true);
        let loss = block.forward(x.as_tensor(), &AttentionMask::Causal).unwrap().sqr().unwrap().sum_all().unwrap();
        let gradients = loss.backward().unwrap();
        let gradient: Vec<f32> = gradients.get(&x).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let flat: Vec<f32> = x.as_tensor().flatten_all().unwrap().to_vec1().unwrap();
        for at in [0, 17, 59] {
            let loss_at = |delta: f32| {
                let mut moved = flat.clone();
                moved[at] += delta;
                let moved = Tensor::from_vec(moved, (1, 5, WIDTH), &Device::Cpu).unwrap();
                let y =
                    block.forward(&moved, &AttentionMask::Causal).unwrap().to_dtype(candle_core::DType::F64).unwrap();
                y.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
            };
            let expected = (loss_at(1e-2) - loss_at(-1e-2)) / 2e-2;
            let gap = (f64::from(gradient[at]) - expected).abs();
            assert!(gap < 2e-2 * expected.abs().max(1.0), "{at}: {} is not {expected}", gradient[at]);
        }
    }
}
