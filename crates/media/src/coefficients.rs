//! Weights of Pillow's resizer along one axis.
//!
//! Follows the arithmetic of Pillow's `Resample.c` (`precompute_coeffs`): windows are centred on the output pixel's
//! centre in input coordinates, stretched when shrinking, and normalised in f64.

use std::f64::consts::PI;
use std::ops::Range;

use crate::Filter;

/// Fraction bits of the fixed-point weights for 8-bit samples.
pub(crate) const FRACTION_BITS: u32 = 22;

/// Weights for a range of output positions along one axis.
pub(crate) struct Coefficients {
    /// First input position of each output position's window.
    starts: Vec<usize>,
    /// Windows one after another, in `offsets`.
    weights: Vec<f64>,
    /// Start of each window in `weights`, and the end of the last.
    offsets: Vec<usize>,
}

fn support(filter: Filter) -> f64 {
    match filter {
        Filter::Nearest => 0.0,
        Filter::Bilinear => 1.0,
        Filter::Bicubic => 2.0,
        Filter::Lanczos => 3.0,
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) }
}

fn weight(filter: Filter, x: f64) -> f64 {
    const A: f64 = -0.5;
    let distance = x.abs();
    match filter {
        Filter::Nearest => 0.0,
        Filter::Bilinear if distance < 1.0 => 1.0 - distance,
        Filter::Bicubic if distance < 1.0 => ((A + 2.0) * distance - (A + 3.0)) * distance * distance + 1.0,
        Filter::Bicubic if distance < 2.0 => (((distance - 5.0) * distance + 8.0) * distance - 4.0) * A,
        Filter::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
        Filter::Bilinear | Filter::Bicubic | Filter::Lanczos => 0.0,
    }
}

impl Coefficients {
    /// Weights of the output positions `range` when `from` samples become `to`.
    pub(crate) fn new(filter: Filter, from: u32, to: u32, range: Range<usize>) -> Self {
        let scale = f64::from(from) / f64::from(to);
        let stretch = scale.max(1.0);
        let reach = support(filter) * stretch;
        let reciprocal = 1.0 / stretch;
        let mut result = Self { starts: Vec::with_capacity(range.len()), weights: Vec::new(), offsets: vec![0] };
        for position in range {
            let centre = (position as f64 + 0.5) * scale;
            // Truncation towards zero, as C casts do; a negative start becomes 0 either way.
            let start = (centre - reach + 0.5).max(0.0) as usize;
            let end = ((centre + reach + 0.5) as usize).min(from as usize);
            let first = result.weights.len();
            let mut sum = 0.0;
            for index in start..end {
                let value = weight(filter, (index as f64 - centre + 0.5) * reciprocal);
                result.weights.push(value);
                sum += value;
            }
            if sum != 0.0 {
                result.weights[first..].iter_mut().for_each(|value| *value /= sum);
            }
            result.starts.push(start);
            result.offsets.push(result.weights.len());
        }
        result
    }

    /// Input positions that any window touches.
    pub(crate) fn reach(&self) -> Range<usize> {
        // Starts and ends never decrease.
        match (self.starts.first(), self.starts.last()) {
            (Some(&first), Some(&last)) => {
                let count = self.offsets.len();
                first..last + self.offsets[count - 1] - self.offsets[count - 2]
            }
            _ => 0..0,
        }
    }

    /// The first input position and the f64 weights of each output position.
    pub(crate) fn windows(&self) -> impl Iterator<Item = (usize, &[f64])> {
        self.starts.iter().zip(self.offsets.windows(2)).map(|(start, ends)| (*start, &self.weights[ends[0]..ends[1]]))
    }

    /// The weights in fixed point, rounded half away from zero, in the order of [`Self::windows`].
    pub(crate) fn fixed_point(&self) -> FixedWindows {
        let one = f64::from(1u32 << FRACTION_BITS);
        let round = |value: &f64| (value * one + if *value < 0.0 { -0.5 } else { 0.5 }) as i32;
        FixedWindows {
            starts: self.starts.clone(),
            weights: self.weights.iter().map(round).collect(),
            offsets: self.offsets.clone(),
        }
    }
}

/// [`Coefficients`] in fixed point with [`FRACTION_BITS`].
pub(crate) struct FixedWindows {
    starts: Vec<usize>,
    weights: Vec<i32>,
    offsets: Vec<usize>,
}

impl FixedWindows {
    /// The first input position and the weights of each output position.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        self.starts.iter().zip(self.offsets.windows(2)).map(|(start, ends)| (*start, &self.weights[ends[0]..ends[1]]))
    }
}
