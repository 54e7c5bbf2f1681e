//! Weights in the order in which the product reads them.

use crate::buffer::Buffer;

use super::tile::PANEL;

/// Greatest magnitude of a quantised weight: seven bits with sign. Eight would overflow 16-bit sums of pairs on processors without VNNI; the kernel says more.
pub const INT8_LEVELS: i32 = 63;

/// Weights `[out, in]` of a linear map and its bias, packed.
#[derive(Debug)]
pub struct PackedLinear {
    pub(crate) inner: usize,
    pub(crate) out: usize,
    pub(crate) form: Form,
    /// One number per column of the panels, 0 where there is no bias and beyond the last output.
    pub(crate) bias: Vec<f32>,
}

#[derive(Debug)]
pub(crate) enum Form {
    /// Panels of sixteen outputs: `[panel][in][16]`.
    Fp32(Buffer<f32>),
    /// Panels of sixteen outputs, inputs in groups of eight: `[panel][in / 8][2][16][4]`.
    Int8 {
        panels: Buffer<i8>,
        /// What one level of each output's weights is worth.
        scales: Vec<f32>,
        /// Sum of each output's levels.
        sums: Vec<i32>,
    },
}

/// Weights of a linear map as integers: `weight[o][i] = values[o][i] * scales[o]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Int8Weights {
    /// Levels from -63 to 63, `[out, in]` in row-major order.
    pub values: Vec<i8>,
    /// What one level is worth, for each output.
    pub scales: Vec<f32>,
}

impl Int8Weights {
    /// Quantises each row of `weight` `[scales.len(), in]` symmetrically by its largest magnitude.
    ///
    /// # Panics
    /// When `inner` is 0 or doesn't divide the length.
    pub fn quantise(weight: &[f32], inner: usize) -> Self {
        assert!(inner > 0 && weight.len().is_multiple_of(inner), "shapes don't fit");
        let mut values = Vec::with_capacity(weight.len());
        let mut scales = Vec::with_capacity(weight.len() / inner);
        for row in weight.chunks_exact(inner) {
            let largest = row.iter().fold(0f32, |largest, x| largest.max(x.abs()));
            let scale = largest / INT8_LEVELS as f32;
            // Weights too small to be told from zero by `f32` are zero.
            let (scale, inverse) = if scale.is_normal() { (scale, 1.0 / scale) } else { (0.0, 0.0) };
            scales.push(scale);
            // Adding 1.5 * 2^23 rounds to the nearest whole number, ties to even, in any instruction set.
            const MAGIC: f32 = 12_582_912.0;
            let limit = INT8_LEVELS as f32;
            values.extend(row.iter().map(|x| ((x * inverse).clamp(-limit, limit) + MAGIC - MAGIC) as i8));
        }
        Self { values, scales }
    }

    /// The weights these levels stand for.
    pub fn dequantise(&self) -> Vec<f32> {
        let inner = self.values.len() / self.scales.len().max(1);
        let rows = self.values.chunks_exact(inner.max(1)).zip(&self.scales);
        rows.flat_map(|(row, scale)| row.iter().map(move |level| f32::from(*level) * scale)).collect()
    }
}

fn padded_bias(bias: Option<&[f32]>, gain: Option<&[f32]>, out: usize) -> Vec<f32> {
    let mut padded = bias.map_or(Vec::new(), <[f32]>::to_vec);
    assert!(bias.is_none() || padded.len() == out, "shapes don't fit");
    if let Some(gain) = gain {
        padded.iter_mut().zip(gain).for_each(|(bias, gain)| *bias *= gain);
    }
    padded.resize(out.next_multiple_of(PANEL), 0.0);
    padded
}

impl PackedLinear {
    /// Packs `weight` `[out, in]`, and `bias` `[out]` if there is one. `gain` `[out]` multiplies each output, bias included.
    ///
    /// # Panics
    /// When the slices don't have those shapes.
    pub fn fp32(weight: &[f32], inner: usize, bias: Option<&[f32]>, gain: Option<&[f32]>) -> Self {
        assert!(inner > 0 && weight.len().is_multiple_of(inner), "shapes don't fit");
        let out = weight.len() / inner;
        assert!(gain.is_none_or(|gain| gain.len() == out), "shapes don't fit");
        let mut panels = Buffer::zeroed(out.div_ceil(PANEL) * inner * PANEL);
        for (place, panel) in panels.chunks_exact_mut(inner * PANEL).enumerate() {
            let rows = place * PANEL..out.min((place + 1) * PANEL);
            // Blocks of inputs small enough that the sixteen rows and their part of the panel stay in the cache.
            for from in (0..inner).step_by(64) {
                let to = inner.min(from + 64);
                for (column, row) in rows.clone().enumerate() {
                    let gain = gain.map_or(1.0, |gain| gain[row]);
                    for (i, x) in (from..to).zip(&weight[row * inner + from..row * inner + to]) {
                        panel[i * PANEL + column] = x * gain;
                    }
                }
            }
        }
        Self { inner, out, form: Form::Fp32(panels), bias: padded_bias(bias, gain, out) }
    }

    /// Packs quantised weights; otherwise as [`fp32`](Self::fp32).
    ///
    /// # Panics
    /// When the slices don't have those shapes, or a level exceeds [`INT8_LEVELS`] in magnitude.
    pub fn int8(weights: &Int8Weights, inner: usize, bias: Option<&[f32]>, gain: Option<&[f32]>) -> Self {
        let out = weights.scales.len();
        assert!(inner > 0 && weights.values.len() == out * inner, "shapes don't fit");
        let wide = weights.values.iter().fold(false, |wide, level| wide | (i32::from(*level).abs() > INT8_LEVELS));
        assert!(!wide, "a level beyond {INT8_LEVELS} would overflow the products");
        assert!(gain.is_none_or(|gain| gain.len() == out), "shapes don't fit");
        let groups = inner.div_ceil(8);
        let mut panels = Buffer::zeroed(out.div_ceil(PANEL) * groups * 8 * PANEL);
        for (row, values) in weights.values.chunks_exact(inner).enumerate() {
            let panel = &mut panels[row / PANEL * groups * 8 * PANEL..][..groups * 8 * PANEL];
            let column = row % PANEL;
            for (quad, levels) in values.chunks(4).enumerate() {
                panel[(quad * PANEL + column) * 4..][..levels.len()].copy_from_slice(levels);
            }
        }
        let padded = out.next_multiple_of(PANEL);
        let mut scales = weights.scales.clone();
        if let Some(gain) = gain {
            scales.iter_mut().zip(gain).for_each(|(scale, gain)| *scale *= gain);
        }
        scales.resize(padded, 0.0);
        let mut sums: Vec<i32> =
            weights.values.chunks_exact(inner).map(|row| row.iter().map(|level| i32::from(*level)).sum()).collect();
        sums.resize(padded, 0);
        Self { inner, out, form: Form::Int8 { panels, scales, sums }, bias: padded_bias(bias, gain, out) }
    }

    /// Number of inputs.
    pub fn inner(&self) -> usize {
        self.inner
    }

    /// Number of outputs.
    pub fn out(&self) -> usize {
        self.out
    }

    /// Whether the weights are integers.
    pub fn is_int8(&self) -> bool {
        matches!(self.form, Form::Int8 { .. })
    }
}
