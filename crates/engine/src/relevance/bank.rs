//! Unit vectors in rows, and their products.

use rayon::prelude::*;

/// Unit vectors of one dimension, one a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bank {
    dimension: usize,
    values: Vec<f32>,
}

impl Bank {
    /// Without rows.
    pub fn new(dimension: usize) -> Self {
        Self { dimension, values: Vec::new() }
    }

    /// Adds a vector, normalised. One of another dimension, or without a direction, is left out.
    pub fn push(&mut self, vector: &[f32]) {
        let unit = normalised(vector);
        if unit.len() == self.dimension && unit.iter().all(|value| value.is_finite()) {
            self.values.extend(unit);
        }
    }

    pub fn dimension(&self) -> usize {
        self.dimension
    }

    pub fn rows(&self) -> usize {
        self.values.len().checked_div(self.dimension).unwrap_or(0)
    }

    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.dimension..(row + 1) * self.dimension]
    }

    /// The products of all rows with a vector.
    pub fn times(&self, vector: &[f32]) -> Vec<f32> {
        self.values.chunks_exact(self.dimension.max(1)).map(|row| dot(row, vector)).collect()
    }

    /// The products of all rows with all rows of another bank, a row of them for each row of this one.
    pub fn products(&self, other: &Self) -> Vec<f32> {
        self.values.par_chunks_exact(self.dimension.max(1)).flat_map_iter(|row| other.times(row)).collect()
    }
}

/// A vector divided by its length; not finite where it has none.
pub(crate) fn normalised(vector: &[f32]) -> Vec<f32> {
    let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    vector.iter().map(|value| (f64::from(*value) / length) as f32).collect()
}

/// The product of two vectors in single precision, in an order that vector units can follow.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0f32; LANES];
    let (whole, rest) = a.as_chunks::<LANES>();
    let (others, other_rest) = b.as_chunks::<LANES>();
    for (a, b) in whole.iter().zip(others) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + rest.iter().zip(other_rest).map(|(a, b)| a * b).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_rows() {
        let row = |seed: usize| -> Vec<f32> { (0..37).map(|i| ((i * 7 + seed * 13) % 11) as f32 - 5.0).collect() };
        let (mut a, mut b) = (Bank::new(37), Bank::new(37));
        (0..3).for_each(|seed| a.push(&row(seed)));
        (3..8).for_each(|seed| b.push(&row(seed)));
        a.push(&[0.0; 37]);
        a.push(&[1.0; 36]);
        assert_eq!((a.rows(), b.rows(), a.dimension()), (3, 5, 37));
        let products = a.products(&b);
        assert_eq!(products.len(), 15);
        for (place, product) in products.iter().enumerate() {
            let exact: f64 =
                a.row(place / 5).iter().zip(b.row(place % 5)).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            assert!((f64::from(*product) - exact).abs() < 1e-6);
        }
        assert!((dot(a.row(0), a.row(0)) - 1.0).abs() < 1e-6);
    }
}
