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
    /// The hidden layer after the non-linearity.
    fn hidden(&self, x: &Tensor) -> Result<Tensor> {
        self.fc1.forward_activated(x, self.activation)
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
        let mixed = self.attention.mix(&self.norm1.forward(x)?, mask)?;
        let x = self.attention.out.forward_onto(&mixed, x, gain(self.scale1.as_ref()))?;
        let hidden = self.mlp.hidden(&self.norm2.forward(&x)?)?;
        self.mlp.fc2.forward_onto(&hidden, &x, gain(self.scale2.as_ref()))
    }
}

fn gain(scale: Option<&LayerScale>) -> Option<&Tensor> {
    scale.map(|LayerScale(gain)| gain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    const WIDTH: usize = 12;

    /// Numbers between -1 and 1.
    fn values(shape: &[usize], seed: usize) -> Tensor {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    /// A block whose parameters are variables (the differentiable road) or not (the fused one).
    fn block(variables: bool, activation: Activation, scaled: bool) -> TransformerBlock {
        let parameter = |shape: &[usize], seed: usize| {
            let tensor = values(shape, seed);
            if variables { Var::from_tensor(&tensor).unwrap().as_tensor().clone() } else { tensor }
        };
        let linear = |out, inner, seed| Linear::new(parameter(&[out, inner], seed), Some(parameter(&[out], seed + 1)));
        let norm = |seed| LayerNorm::new(parameter(&[WIDTH], seed), parameter(&[WIDTH], seed + 1), 1e-5);
        let scale = |seed| scaled.then(|| LayerScale(parameter(&[WIDTH], seed)));
        TransformerBlock {
            norm1: norm(1),
            attention: SelfAttention::new(linear(3 * WIDTH, WIDTH, 3), linear(WIDTH, WIDTH, 5), 3),
            scale1: scale(7),
            norm2: norm(8),
            mlp: Mlp { fc1: linear(40, WIDTH, 10), activation, fc2: linear(WIDTH, 40, 12) },
            scale2: scale(14),
        }
    }

    #[test]
    fn both_roads_give_the_same_values() {
        let present = vec![vec![true; 7], [vec![true; 4], vec![false; 3]].concat()];
        let device = Device::Cpu;
        let x = values(&[2, 7, WIDTH], 20);
        for activation in [Activation::QuickGelu, Activation::Gelu, Activation::GeluTanh] {
            for scaled in [false, true] {
                let padded = AttentionMask::causal_with_padding(&present, x.dtype(), &device).unwrap();
                for mask in [AttentionMask::Full, AttentionMask::Causal, padded] {
                    let plain = block(true, activation, scaled).forward(&x, &mask).unwrap();
                    let fused = block(false, activation, scaled).forward(&x, &mask).unwrap();
                    assert!(plain.track_op() && !fused.track_op());
                    let gap = (plain.detach() - fused).unwrap().abs().unwrap().max_all().unwrap();
                    let gap = gap.to_scalar::<f32>().unwrap();
                    assert!(gap < 2e-5, "{activation:?} {scaled} {mask:?}: {gap}");
                }
            }
        }
    }

    #[test]
    fn a_block_with_variables_has_gradients_for_all_of_them() {
        let x = Var::from_tensor(&values(&[1, 5, WIDTH], 21)).unwrap();
        let block = block(true, Activation::Gelu, true);
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
