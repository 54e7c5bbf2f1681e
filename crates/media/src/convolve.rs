//! The two passes of the resizer over 8-bit samples, in fixed point.

use std::ops::Range;

use crate::coefficients::{Coefficients, FRACTION_BITS};

/// Rows of 8-bit samples, and the part of them that a pass reads.
pub(crate) struct Plane<'a> {
    /// Rows one after another.
    pub(crate) data: &'a [u8],
    /// Bytes of a row.
    pub(crate) stride: usize,
    /// Column and row at which the data starts, in the coordinates of the windows.
    pub(crate) origin: (usize, usize),
    /// Columns that the pass reads.
    pub(crate) columns: Range<usize>,
    /// Rows that the pass reads.
    pub(crate) rows: Range<usize>,
}

const HALF: i32 = 1 << (FRACTION_BITS - 1);

/// Samples accumulated together in the vertical pass, small enough to stay in the first-level cache.
const STRIP: usize = 1024;

fn clip(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

impl Plane<'_> {
    /// The bytes of the plane's columns in row `row`.
    fn row<const C: usize>(&self, row: usize) -> &[u8] {
        let start = (row - self.origin.1) * self.stride + (self.columns.start - self.origin.0) * C;
        &self.data[start..start + self.columns.len() * C]
    }

    fn copied<const C: usize>(&self) -> Vec<u8> {
        self.rows.clone().flat_map(|row| self.row::<C>(row)).copied().collect()
    }

    /// Every row, convolved along the row; a copy if there are no coefficients.
    pub(crate) fn horizontal<const C: usize>(&self, coefficients: Option<&Coefficients>) -> Vec<u8> {
        let Some(coefficients) = coefficients else {
            return self.copied::<C>();
        };
        let windows = coefficients.fixed_point();
        let first = self.columns.start;
        let mut result = Vec::new();
        for row in self.rows.clone() {
            let (pixels, _) = self.row::<C>(row).as_chunks::<C>();
            result.extend(windows.iter().flat_map(|(start, weights)| {
                let mut sums = [HALF; C];
                for (pixel, weight) in pixels[start - first..].iter().zip(weights) {
                    for (sum, value) in sums.iter_mut().zip(pixel) {
                        *sum += i32::from(*value) * weight;
                    }
                }
                sums.map(clip)
            }));
        }
        result
    }

    /// Every column, convolved down the column; a copy if there are no coefficients.
    pub(crate) fn vertical<const C: usize>(&self, coefficients: Option<&Coefficients>) -> Vec<u8> {
        let Some(coefficients) = coefficients else {
            return self.copied::<C>();
        };
        let windows = coefficients.fixed_point();
        let width = self.columns.len() * C;
        let mut result = Vec::new();
        let mut sums = [0i32; STRIP];
        for (start, weights) in windows.iter() {
            for left in (0..width).step_by(STRIP) {
                let strip = left..(left + STRIP).min(width);
                let sums = &mut sums[..strip.len()];
                sums.fill(HALF);
                for (offset, weight) in weights.iter().enumerate() {
                    let row = &self.row::<C>(start + offset)[strip.clone()];
                    for (sum, value) in sums.iter_mut().zip(row) {
                        *sum += i32::from(*value) * weight;
                    }
                }
                result.extend(sums.iter().map(|sum| clip(*sum)));
            }
        }
        result
    }
}
