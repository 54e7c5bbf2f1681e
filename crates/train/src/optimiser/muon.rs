//! Muon: momentum whose directions are all made equally long, for matrices of blocks.

use crossmodal_nn::orthogonalise;
use serde::{Deserialize, Serialize};

/// Settings of Muon (Jordan et al. 2024).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Muon {
    /// How slowly the sum of gradients forgets.
    pub momentum: f64,
    /// Steps of the iteration that makes the directions equally long.
    pub iterations: usize,
}

impl Default for Muon {
    fn default() -> Self {
        Self { momentum: 0.95, iterations: 5 }
    }
}

impl Muon {
    /// Adds a gradient to the momentum and returns the direction to go, of `rows x columns`: `stacked` matrices above each other, each orthogonalised by itself and
    /// multiplied by `sqrt(max(1, rows / columns))`.
    pub(super) fn direction(
        &self,
        gradient: &[f32],
        factor: f64,
        momentum: &mut [f32],
        (rows, columns): (usize, usize),
        stacked: usize,
    ) -> Vec<f32> {
        let (mu, factor) = (self.momentum as f32, factor as f32);
        let new = (1.0 - self.momentum) as f32;
        // Nesterov's look ahead: the momentum as it will be after another gradient like this one.
        let mut ahead: Vec<f32> = momentum
            .iter_mut()
            .zip(gradient)
            .map(|(momentum, gradient)| {
                let gradient = gradient * factor;
                *momentum += new * (gradient - *momentum);
                gradient + mu * (*momentum - gradient)
            })
            .collect();
        let rows = rows / stacked;
        let scale = (rows as f32 / columns as f32).max(1.0).sqrt();
        for part in ahead.chunks_mut(rows * columns) {
            orthogonalise(part, rows, self.iterations);
            part.iter_mut().for_each(|x| *x *= scale);
        }
        ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers between -1 and 1 without any pattern, so that matrices of them have full rank.
    fn numbers(count: usize) -> Vec<f32> {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn directions_are_nearly_orthogonal_in_each_stacked_matrix() {
        let (rows, columns) = (24, 16);
        let muon = Muon { momentum: 0.9, iterations: 5 };
        for stacked in [1, 3] {
            let gradient = numbers(rows * columns);
            let mut momentum = vec![0.0; gradient.len()];
            let direction = muon.direction(&gradient, 0.5, &mut momentum, (rows, columns), stacked);
            // The first momentum is a tenth of the clipped gradient.
            let expected = gradient.iter().map(|x| 0.05 * x);
            assert!(momentum.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-7));
            let part = rows / stacked;
            for matrix in direction.chunks(part * columns) {
                let scale = (part as f32 / columns as f32).max(1.0);
                let vectors: Vec<Vec<f32>> = if part <= columns {
                    matrix.chunks(columns).map(<[f32]>::to_vec).collect()
                } else {
                    (0..columns).map(|at| matrix.iter().skip(at).step_by(columns).copied().collect()).collect()
                };
                for (i, a) in vectors.iter().enumerate() {
                    for (j, b) in vectors.iter().enumerate() {
                        let product = a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>() / scale;
                        let expected = if i == j { 1.0 } else { 0.0 };
                        assert!((product - expected).abs() < 0.5, "{stacked}: {i} {j}: {product}");
                    }
                }
            }
        }
    }

    #[test]
    fn singular_values_come_near_one() {
        // A rotation times known singular values.
        let (sine, cosine) = 0.7f32.sin_cos();
        let (large, small) = (3.0f32, 0.4f32);
        let mut matrix = [cosine * large, -sine * small, sine * large, cosine * small];
        orthogonalise(&mut matrix, 2, 5);
        let [a, b, c, d] = matrix;
        let gram = [[a * a + c * c, a * b + c * d], [a * b + c * d, b * b + d * d]];
        for (i, row) in gram.iter().enumerate() {
            assert!((0.68f32.powi(2)..1.21f32.powi(2)).contains(&row[i]), "{gram:?}");
            assert!(row[1 - i].abs() < 1e-4, "{gram:?}");
        }
    }
}
