//! Layer normalisation of rows, and L2 normalisation.

use rten_simd::SimdOp;
use rten_vecmath::{Normalize, NormalizeOptions, Sum, SumSquareSub};

use crate::matrix::Matrix;
use crate::team::Crew;

/// Rows that a piece of work has.
const PIECE_ROWS: usize = 16;

/// Layer normalisation: `(x - mean) / sqrt(variance + eps) * weight + bias`, with the biased variance.
#[derive(Debug, Clone, PartialEq)]
pub struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
}

impl Norm {
    /// A norm with this gain and offset per element.
    ///
    /// # Panics
    /// When they differ in length.
    pub fn new(weight: Vec<f32>, bias: Vec<f32>, eps: f32) -> Self {
        assert!(weight.len() == bias.len(), "shapes don't fit");
        Self { weight, bias, eps }
    }

    /// Elements of a row.
    pub fn width(&self) -> usize {
        self.weight.len()
    }

    /// Normalises one row.
    ///
    /// # Panics
    /// When a slice isn't [`width`](Self::width) long.
    pub fn row(&self, x: &[f32], out: &mut [f32]) {
        assert!(x.len() == self.width() && out.len() == self.width(), "shapes don't fit");
        out.copy_from_slice(x);
        self.row_in_place(out);
    }

    /// Normalises one row in place.
    ///
    /// # Panics
    /// When `x` isn't [`width`](Self::width) long.
    pub fn row_in_place(&self, x: &mut [f32]) {
        assert!(x.len() == self.width(), "shapes don't fit");
        let mean = Sum::new(x).dispatch() / x.len() as f32;
        let variance = SumSquareSub::new(x, mean).dispatch() / x.len() as f32;
        let options = NormalizeOptions {
            pre_scale_bias: mean,
            scale: 1.0 / (variance + self.eps).sqrt(),
            element_scale: Some(&self.weight),
            element_bias: Some(&self.bias),
            ..NormalizeOptions::default()
        };
        Normalize::new_mut(x, options).dispatch();
    }

    /// Normalises every row of a matrix in place.
    ///
    /// # Panics
    /// When its rows aren't [`width`](Self::width) long.
    pub fn rows(&self, crew: Crew<'_>, x: &mut Matrix) {
        let (rows, width) = (x.rows(), x.width());
        let x = x.shared();
        crew.for_each(rows.div_ceil(PIECE_ROWS), |piece| {
            for row in piece * PIECE_ROWS..rows.min((piece + 1) * PIECE_ROWS) {
                // SAFETY: each piece has its own rows.
                self.row_in_place(unsafe { x.cells(row, 0..width) });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{close, numbers};

    #[test]
    fn equals_its_formula() {
        for width in [1, 2, 3, 7, 8, 15, 33, 64, 100, 769] {
            for rows in [1, 2, 13, 60] {
                let (x, weight, bias) = (numbers(rows * width, 1), numbers(width, 2), numbers(width, 3));
                let mut expected = Vec::new();
                for row in x.chunks(width) {
                    let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / width as f64;
                    let variance = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / width as f64;
                    let unit = |x: &f32| (f64::from(*x) - mean) / (variance + 1e-5).sqrt();
                    let affine = row.iter().zip(weight.iter().zip(&bias));
                    expected.extend(affine.map(|(x, (w, b))| unit(x) * f64::from(*w) + f64::from(*b)));
                }
                let norm = Norm::new(weight, bias, 1e-5);
                let mut found = Matrix::from_rows(&x, width);
                norm.rows(Crew::Solo, &mut found);
                // With one or two elements a row's variance may vanish, which magnifies rounding.
                close(&found.to_vec(), &expected, if width < 3 { 1e-3 } else { 2e-5 });
            }
        }
    }
}
