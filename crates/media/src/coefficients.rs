//! Weights of Pillow's resizer along one axis.
//!
//! Follows the arithmetic of Pillow's `Resample.c` (`precompute_coeffs`): windows are centred on the output pixel's
//! centre in input coordinates, stretched when shrinking, and normalised in f64.

use std::f64::consts::PI;
use std::ops::Range;

use crossmodal_kernels::resample::{FRACTION_BITS, Windows};

use crate::Filter;

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
    /// Weights of the output positions `range` when the part `span` of `from` samples becomes `to`. The span is all of
    /// them but where the picture ends inside the first or last sample.
    pub(crate) fn new(filter: Filter, from: u32, span: Range<f64>, to: u32, range: Range<usize>) -> Self {
        let scale = (span.end - span.start) / f64::from(to);
        let stretch = scale.max(1.0);
        let reach = support(filter) * stretch;
        let reciprocal = 1.0 / stretch;
        let mut result = Self { starts: Vec::with_capacity(range.len()), weights: Vec::new(), offsets: vec![0] };
        for position in range {
            let centre = span.start + (position as f64 + 0.5) * scale;
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

    /// Weights that take each sample of `range` as it is.
    pub(crate) fn identity(range: Range<usize>) -> Self {
        Self { weights: vec![1.0; range.len()], offsets: (0..=range.len()).collect(), starts: range.collect() }
    }

    /// The same weights for `from` samples that are stored in the other direction.
    pub(crate) fn mirrored(mut self, from: u32) -> Self {
        for (start, ends) in self.starts.iter_mut().zip(self.offsets.windows(2)) {
            self.weights[ends[0]..ends[1]].reverse();
            *start = from as usize - (*start + ends[1] - ends[0]);
        }
        self
    }

    /// Input positions that any window touches.
    pub(crate) fn reach(&self) -> Range<usize> {
        let ends = self.windows().map(|(start, weights)| start + weights.len());
        let start = self.starts.iter().min().copied().unwrap_or(0);
        start..ends.max().unwrap_or(0)
    }

    /// The first input position and the f64 weights of each output position.
    pub(crate) fn windows(&self) -> impl Iterator<Item = (usize, &[f64])> {
        self.starts.iter().zip(self.offsets.windows(2)).map(|(start, ends)| (*start, &self.weights[ends[0]..ends[1]]))
    }

    /// The weights in fixed point, rounded half away from zero; input positions are counted from the start of
    /// [`Self::reach`].
    pub(crate) fn fixed_point(&self) -> Windows {
        let one = f64::from(1u32 << FRACTION_BITS);
        let round = |value: &f64| (value * one + if *value < 0.0 { -0.5 } else { 0.5 }) as i32;
        let first = self.reach().start;
        let mut windows = Windows::default();
        for (start, weights) in self.windows() {
            windows.push(start - first, weights.iter().map(round));
        }
        windows
    }
}
