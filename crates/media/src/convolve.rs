//! The two passes of the resizer over 8-bit samples, in fixed point.

use crossmodal_kernels::resample::{Rows, horizontal, vertical};

use crate::coefficients::Coefficients;

/// The rows and columns of 8-bit samples that a pass reads.
pub(crate) struct Plane<'a> {
    /// Samples from the first one that is read.
    pub(crate) data: &'a [u8],
    /// Bytes from one row to the next.
    pub(crate) stride: usize,
    /// Columns that the pass reads.
    pub(crate) columns: usize,
    /// Rows that the pass reads.
    pub(crate) rows: usize,
}

impl Plane<'_> {
    fn rows<const C: usize>(&self) -> Rows<'_> {
        Rows::new(self.data, self.stride, self.columns * C, self.rows)
    }

    /// Every row, convolved along the row; a copy if there are no coefficients.
    pub(crate) fn horizontal<const C: usize>(&self, coefficients: Option<&Coefficients>) -> Vec<u8> {
        match coefficients {
            Some(coefficients) => horizontal(&self.rows::<C>(), C, &coefficients.fixed_point()),
            None => self.copied::<C>(),
        }
    }

    /// Every column, convolved down the column; a copy if there are no coefficients.
    pub(crate) fn vertical<const C: usize>(&self, coefficients: Option<&Coefficients>) -> Vec<u8> {
        match coefficients {
            Some(coefficients) => vertical(&self.rows::<C>(), &coefficients.fixed_point()),
            None => self.copied::<C>(),
        }
    }

    fn copied<const C: usize>(&self) -> Vec<u8> {
        let mut copy = Vec::with_capacity(self.columns * C * self.rows);
        self.rows::<C>().iter().for_each(|row| copy.extend_from_slice(row));
        copy
    }
}
