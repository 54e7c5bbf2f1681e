//! The parameters that an untrained model begins with, drawn as the reference implementations draw them, from a seed.

use crate::config::{ClipConfig, Layout};
use crate::error::{Error, Result};

/// The logit scale before training: a temperature of 0.07.
const LOGIT_SCALE: f32 = 2.6592;

/// The logit bias of models for the sigmoid loss before training.
const LOGIT_BIAS: f32 = -10.0;

/// How the elements of a tensor are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Draw {
    /// All alike.
    Constant(f32),
    /// Normally distributed around 0 with this deviation.
    Normal(f64),
    /// Evenly distributed between minus and plus this.
    Uniform(f64),
}

/// Checks that a model of this configuration can be begun from nothing.
///
/// # Errors
/// Gains on residual branches, whose first value the configuration here doesn't keep.
pub(super) fn check(config: &ClipConfig) -> Result<()> {
    if config.vision.layer_scale || config.text.layer_scale {
        return Err(Error::Unsupported(
            "a model with layer scale (ls_init_value) can't be trained from nothing; begin from a checkpoint of it"
                .into(),
        ));
    }
    Ok(())
}

/// The elements of the canonical tensor of this name and shape. They depend on the seed and the name alone.
pub(super) fn values(config: &ClipConfig, seed: u64, name: &str, shape: &[usize]) -> Vec<f32> {
    let count = shape.iter().product();
    let mut random = Random::new(seed, name);
    match draw(config, name) {
        Draw::Constant(value) => vec![value; count],
        Draw::Normal(deviation) => (0..count).map(|_| (random.normal() * deviation) as f32).collect(),
        Draw::Uniform(bound) => (0..count).map(|_| (random.uniform(-bound, bound)) as f32).collect(),
    }
}

fn draw(config: &ClipConfig, name: &str) -> Draw {
    match name {
        "logit_scale" => return Draw::Constant(LOGIT_SCALE),
        "logit_bias" => return Draw::Constant(LOGIT_BIAS),
        _ => {}
    }
    if name.contains("norm") {
        return Draw::Constant(if name.ends_with(".weight") { 1.0 } else { 0.0 });
    }
    match config.layout {
        Layout::HuggingFace => hugging_face(config, name),
        Layout::OpenClip => open_clip(config, name),
    }
}

/// As transformers' `CLIPPreTrainedModel` with a factor of 1.
fn hugging_face(config: &ClipConfig, name: &str) -> Draw {
    const RANGE: f64 = 0.02;
    let (width, layers) = shape_of(config, name);
    match name {
        "vision.class" => Draw::Normal(width.powf(-0.5)),
        "vision.patch.weight" | "vision.positions" | "text.tokens" | "text.positions" => Draw::Normal(RANGE),
        _ if name.ends_with(".bias") => Draw::Constant(0.0),
        _ if name.ends_with("fc1.weight") => Draw::Normal((2.0 * width).powf(-0.5)),
        _ if name.ends_with("qkv.weight") || name.ends_with("fc2.weight") => {
            Draw::Normal(width.powf(-0.5) * (2.0 * layers).powf(-0.5))
        }
        _ => Draw::Normal(width.powf(-0.5)),
    }
}

/// As open_clip's text tower, and its vision tower, whose blocks are left as PyTorch draws them.
fn open_clip(config: &ClipConfig, name: &str) -> Draw {
    let (width, layers) = shape_of(config, name);
    let patch = config.vision.patch_size as f64;
    let hidden = config.vision.mlp_width as f64;
    match name {
        "vision.class" | "vision.positions" | "vision.projection.weight" => Draw::Normal(width.powf(-0.5)),
        "vision.patch.weight" => Draw::Uniform((3.0 * patch * patch).powf(-0.5)),
        "text.tokens" => Draw::Normal(0.02),
        "text.positions" => Draw::Normal(0.01),
        "text.projection.weight" => Draw::Normal(width.powf(-0.5)),
        _ if name.ends_with("qkv.bias") || name.ends_with("out.bias") => Draw::Constant(0.0),
        _ if name.starts_with("vision.") => match name {
            _ if name.ends_with("qkv.weight") => Draw::Uniform((6.0 / (4.0 * width)).sqrt()),
            _ if name.contains(".fc2.") => Draw::Uniform(hidden.powf(-0.5)),
            _ => Draw::Uniform(width.powf(-0.5)),
        },
        // open_clip leaves these biases as PyTorch draws them.
        _ if name.ends_with("fc1.bias") => Draw::Uniform(width.powf(-0.5)),
        _ if name.ends_with("fc2.bias") => Draw::Uniform((config.text.mlp_width as f64).powf(-0.5)),
        _ if name.ends_with(".bias") => Draw::Constant(0.0),
        _ if name.ends_with("fc1.weight") => Draw::Normal((2.0 * width).powf(-0.5)),
        _ if name.ends_with("qkv.weight") => Draw::Normal(width.powf(-0.5)),
        _ => Draw::Normal(width.powf(-0.5) * (2.0 * layers).powf(-0.5)),
    }
}

/// Width and number of blocks of the tower that a parameter is part of.
fn shape_of(config: &ClipConfig, name: &str) -> (f64, f64) {
    if name.starts_with("vision.") {
        (config.vision.width as f64, config.vision.layers as f64)
    } else {
        (config.text.width as f64, config.text.layers as f64)
    }
}

/// Numbers that depend on a seed and a name: a SplitMix64 sequence.
pub(super) struct Random {
    state: u64,
}

impl Random {
    pub(super) fn new(seed: u64, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(name.as_bytes());
        let bytes = hasher.finalize();
        let state = bytes.as_bytes()[..8].iter().fold(0u64, |state, byte| state << 8 | u64::from(*byte));
        Self { state }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.state;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Evenly distributed over `low..high`.
    pub(super) fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Normally distributed with deviation 1, by Box and Muller.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform(0.0, 1.0)).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform(0.0, 1.0)).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_their_distributions_and_depend_on_seed_and_name() {
        let draws = |seed, name: &str| {
            let mut random = Random::new(seed, name);
            (0..20_000).map(|_| random.normal()).collect::<Vec<f64>>()
        };
        let numbers = draws(1, "a");
        let mean = numbers.iter().sum::<f64>() / 2e4;
        let variance = numbers.iter().map(|x| x * x).sum::<f64>() / 2e4;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.04, "{mean} {variance}");
        assert!(numbers.iter().filter(|x| x.abs() > 1.96).count().abs_diff(1000) < 130);
        assert_eq!(numbers, draws(1, "a"));
        assert!(numbers[0] != draws(2, "a")[0] && numbers[0] != draws(1, "b")[0]);
    }
}
