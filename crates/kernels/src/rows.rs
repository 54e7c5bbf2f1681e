//! Row-wise steps of a transformer over row-major matrices: normalisation, bias and activation, softmax, and the regrouping
//! of packed attention heads. Rows are shared out over all cores.
//!
//! Bounds: every function stays within 4 units in the last place of its formula in `f32`, but for the exact GELU, whose
//! error function has an absolute error of 7e-7 (Abramowitz and Stegun 7.1.26).

use rayon::prelude::*;
use rten_simd::{SimdOp, SimdUnaryOp};
use rten_vecmath::{ApproxGelu, Gelu, Normalize, NormalizeOptions, Softmax, Sum, SumSquareSub, Swish};

/// Elements that a task should have at least, so that handing it out costs little.
const GRAIN: usize = 8192;

/// The factor in CLIP's `x * sigmoid(1.702 x)`.
const QUICK_GELU: f32 = 1.702;

/// A non-linearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Nonlinearity {
    /// `x * sigmoid(1.702 x)`.
    QuickGelu,
    /// `x * Phi(x)`.
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
}

/// Number of rows for one task.
fn rows_per_task(width: usize) -> usize {
    GRAIN.div_ceil(width.max(1))
}

/// Layer normalisation of each row: `(x - mean) / sqrt(variance + eps) * weight + bias`, with the biased variance.
///
/// # Panics
/// When `x` and `out` differ in length, or a row isn't as long as `weight` and `bias`.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let width = weight.len();
    assert!(x.len() == out.len() && bias.len() == width && x.len().is_multiple_of(width.max(1)), "shapes don't fit");
    let task = rows_per_task(width) * width.max(1);
    out.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(out, x)| {
        for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let mean = Sum::new(x).dispatch() / width as f32;
            let variance = SumSquareSub::new(x, mean).dispatch() / width as f32;
            out.copy_from_slice(x);
            let options = NormalizeOptions {
                pre_scale_bias: mean,
                scale: 1.0 / (variance + eps).sqrt(),
                element_scale: Some(weight),
                element_bias: Some(bias),
                ..NormalizeOptions::default()
            };
            Normalize::new_mut(out, options).dispatch();
        }
    });
}

/// Adds `bias` to each row of `x` and applies the non-linearity, if there is one.
///
/// # Panics
/// When a row isn't as long as `bias`.
pub fn bias_activation(x: &mut [f32], bias: &[f32], nonlinearity: Option<Nonlinearity>) {
    let width = bias.len();
    assert!(x.len().is_multiple_of(width.max(1)), "shapes don't fit");
    x.par_chunks_mut(rows_per_task(width) * width.max(1)).for_each(|x| {
        for row in x.chunks_exact_mut(width) {
            row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
        }
        match nonlinearity {
            Some(Nonlinearity::QuickGelu) => Swish { alpha: QUICK_GELU }.map_mut(x),
            Some(Nonlinearity::Gelu) => Gelu {}.map_mut(x),
            Some(Nonlinearity::GeluTanh) => ApproxGelu {}.map_mut(x),
            None => {}
        }
    });
}

/// Softmax of each row of square matrices `[matrices, tokens, tokens]`, in place. With `causal`, row `i` of a matrix covers
/// its first `i + 1` elements and the others become 0.
///
/// # Panics
/// When `scores` isn't made of such matrices.
pub fn attention_softmax(scores: &mut [f32], tokens: usize, causal: bool) {
    assert!(scores.len().is_multiple_of((tokens * tokens).max(1)), "shapes don't fit");
    let rows = rows_per_task(tokens);
    scores.par_chunks_mut(rows * tokens.max(1)).enumerate().for_each(|(task, chunk)| {
        for (offset, row) in chunk.chunks_exact_mut(tokens).enumerate() {
            let covered = if causal { (task * rows + offset) % tokens + 1 } else { tokens };
            let (covered, hidden) = row.split_at_mut(covered);
            Softmax::new_mut(covered).dispatch();
            hidden.fill(0.0);
        }
    });
}

/// Sizes of packed attention heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadShape {
    /// Number of sequences.
    pub batch: usize,
    /// Tokens of each.
    pub tokens: usize,
    /// Number of heads.
    pub heads: usize,
    /// Width of a head.
    pub head_width: usize,
}

impl HeadShape {
    fn elements(self) -> usize {
        self.batch * self.tokens * self.heads * self.head_width
    }
}

/// Copies one part (0 queries, 1 keys, 2 values) of `packed` `[batch, tokens, 3, heads, head_width]`, plus `bias`
/// `[3 * heads * head_width]` and times `scale`, to `[batch, heads, tokens, head_width]`.
///
/// # Panics
/// When a slice doesn't have that shape.
pub fn unpack_heads(packed: &[f32], bias: Option<&[f32]>, part: usize, scale: f32, shape: HeadShape) -> Vec<f32> {
    let HeadShape { batch: _, tokens, heads, head_width } = shape;
    let width = heads * head_width;
    assert!(packed.len() == 3 * shape.elements() && part < 3, "shapes don't fit");
    assert!(bias.is_none_or(|bias| bias.len() == 3 * width), "shapes don't fit");
    let mut out = vec![0.0; shape.elements()];
    out.par_chunks_mut((tokens * head_width).max(1)).enumerate().for_each(|(place, out)| {
        let (sequence, head) = (place / heads, place % heads);
        let column = part * width + head * head_width;
        let bias = bias.map(|bias| &bias[column..column + head_width]);
        for (token, out) in out.chunks_exact_mut(head_width).enumerate() {
            let start = (sequence * tokens + token) * 3 * width + column;
            let x = &packed[start..start + head_width];
            match bias {
                Some(bias) => {
                    out.iter_mut().zip(x.iter().zip(bias)).for_each(|(out, (x, bias))| *out = (x + bias) * scale);
                }
                None => out.iter_mut().zip(x).for_each(|(out, x)| *out = x * scale),
            }
        }
    });
    out
}

/// Copies `[batch, heads, tokens, head_width]` to `[batch, tokens, heads * head_width]`.
///
/// # Panics
/// When `x` doesn't have that shape.
pub fn merge_heads(x: &[f32], shape: HeadShape) -> Vec<f32> {
    let HeadShape { batch: _, tokens, heads, head_width } = shape;
    assert!(x.len() == shape.elements(), "shapes don't fit");
    let mut out = vec![0.0; shape.elements()];
    out.par_chunks_mut((heads * head_width).max(1)).enumerate().for_each(|(row, out)| {
        let (sequence, token) = (row / tokens, row % tokens);
        for (head, out) in out.chunks_exact_mut(head_width).enumerate() {
            let start = ((sequence * heads + head) * tokens + token) * head_width;
            out.copy_from_slice(&x[start..start + head_width]);
        }
    });
    out
}

/// Adds `branch`, plus `bias` on each row and times `gain` where given, to `x`: `x + (branch + bias) * gain`.
///
/// # Panics
/// When `x` and `branch` differ in length, or a row isn't as long as `bias` or `gain`.
pub fn add_residual(x: &[f32], branch: &mut [f32], bias: &[f32], gain: Option<&[f32]>) {
    let width = bias.len();
    assert!(x.len() == branch.len() && x.len().is_multiple_of(width.max(1)), "shapes don't fit");
    assert!(gain.is_none_or(|gain| gain.len() == width), "shapes don't fit");
    let task = rows_per_task(width) * width.max(1);
    branch.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(branch, x)| {
        for (branch, x) in branch.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            branch.iter_mut().zip(bias).for_each(|(branch, bias)| *branch += bias);
            if let Some(gain) = gain {
                branch.iter_mut().zip(gain).for_each(|(branch, gain)| *branch *= gain);
            }
            branch.iter_mut().zip(x).for_each(|(branch, x)| *branch += x);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 22) as f32 - 2.0
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    fn close(found: &[f32], expected: &[f64], bound: f64) {
        assert_eq!(found.len(), expected.len());
        for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
            let gap = (f64::from(*found) - expected).abs();
            assert!(gap <= bound * expected.abs().max(1.0), "{at}: {found} is not {expected}");
        }
    }

    const WIDTHS: [usize; 10] = [1, 2, 3, 7, 8, 15, 33, 64, 100, 769];

    #[test]
    fn layer_norm_equals_its_formula() {
        for width in WIDTHS {
            for rows in [1, 2, 13, 300] {
                let (x, weight, bias) = (numbers(rows * width, 1), numbers(width, 2), numbers(width, 3));
                let mut out = vec![0.0; x.len()];
                layer_norm(&x, &weight, &bias, 1e-5, &mut out);
                let mut expected = Vec::new();
                for row in x.chunks(width) {
                    let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / width as f64;
                    let variance = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / width as f64;
                    let unit = |x: &f32| (f64::from(*x) - mean) / (variance + 1e-5).sqrt();
                    let affine = row.iter().zip(weight.iter().zip(&bias));
                    expected.extend(affine.map(|(x, (w, b))| unit(x) * f64::from(*w) + f64::from(*b)));
                }
                // With one or two elements a row's variance may vanish, which magnifies rounding.
                close(&out, &expected, if width < 3 { 1e-3 } else { 2e-5 });
            }
        }
    }

    #[test]
    fn activations_equal_their_formulas() {
        let erf = |x: f64| {
            // Series and continued fraction of the error function, to double precision.
            let (mut sum, mut term) = (x, x);
            for n in 1..200 {
                term *= -x * x / n as f64;
                sum += term / (2 * n + 1) as f64;
            }
            if x.abs() > 5.0 { x.signum() } else { sum * 2.0 / std::f64::consts::PI.sqrt() }
        };
        let quick = |x: f64| x / (1.0 + (-1.702 * x).exp());
        let exact = |x: f64| 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2));
        let tanh = |x: f64| 0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044_715 * x.powi(3))).tanh());
        for width in WIDTHS {
            let (x, bias) = (numbers(width * 11, 4), numbers(width, 5));
            let cases: [(Nonlinearity, &dyn Fn(f64) -> f64); 3] =
                [(Nonlinearity::QuickGelu, &quick), (Nonlinearity::Gelu, &exact), (Nonlinearity::GeluTanh, &tanh)];
            for (nonlinearity, formula) in cases {
                let mut found = x.clone();
                bias_activation(&mut found, &bias, Some(nonlinearity));
                let biased = x.chunks(width).flat_map(|row| row.iter().zip(&bias).map(|(x, b)| f64::from(x + b)));
                close(&found, &biased.map(formula).collect::<Vec<_>>(), 2e-6);
            }
            let mut found = x.clone();
            bias_activation(&mut found, &bias, None);
            assert!(found.iter().zip(&x).enumerate().all(|(at, (found, x))| *found == x + bias[at % width]));
        }
        let mut extremes = [-1e4, -90.0, 90.0, 1e4];
        bias_activation(&mut extremes, &[0.0; 4], Some(Nonlinearity::QuickGelu));
        assert_eq!(extremes, [0.0, 0.0, 90.0, 1e4]);
    }

    #[test]
    fn softmax_covers_what_the_mask_leaves() {
        for tokens in [1, 2, 3, 5, 16, 77, 130] {
            for causal in [false, true] {
                let x = numbers(3 * tokens * tokens, 6);
                let mut found = x.clone();
                attention_softmax(&mut found, tokens, causal);
                let mut expected = Vec::new();
                for (row, x) in x.chunks(tokens).enumerate() {
                    let covered = if causal { row % tokens + 1 } else { tokens };
                    let total: f64 = x[..covered].iter().map(|x| f64::from(*x).exp()).sum();
                    let one = |(at, x): (usize, &f32)| if at < covered { f64::from(*x).exp() / total } else { 0.0 };
                    expected.extend(x.iter().enumerate().map(one));
                }
                close(&found, &expected, 1e-6);
            }
        }
    }

    #[test]
    fn heads_are_unpacked_and_merged() {
        let shape = HeadShape { batch: 2, tokens: 5, heads: 3, head_width: 7 };
        let width = shape.heads * shape.head_width;
        let (packed, bias) = (numbers(3 * shape.elements(), 7), numbers(3 * width, 8));
        for part in 0..3 {
            for bias in [None, Some(&bias[..])] {
                let merged = merge_heads(&unpack_heads(&packed, bias, part, 0.5, shape), shape);
                for (at, found) in merged.iter().enumerate() {
                    let column = part * width + at % width;
                    let x = packed[at / width * 3 * width + column] + bias.map_or(0.0, |bias| bias[column]);
                    assert_eq!(*found, x * 0.5);
                }
            }
        }
    }

    #[test]
    fn residuals_add_up() {
        for width in WIDTHS {
            let (x, branch) = (numbers(width * 9, 9), numbers(width * 9, 10));
            let (bias, gain) = (numbers(width, 11), numbers(width, 12));
            for gain in [None, Some(&gain[..])] {
                let mut found = branch.clone();
                add_residual(&x, &mut found, &bias, gain);
                for (at, found) in found.iter().enumerate() {
                    let gain = gain.map_or(1.0, |gain| gain[at % width]);
                    assert_eq!(*found, (branch[at] + bias[at % width]) * gain + x[at]);
                }
            }
        }
    }
}
