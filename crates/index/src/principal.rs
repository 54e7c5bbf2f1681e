//! The directions in which vectors differ most: their principal components, by orthogonal iteration over a sample.

use crossmodal_kernels::distance;
use rayon::prelude::*;

/// Rounds of the iteration. The directions needn't be the best ones: they are orthonormal after each.
const ROUNDS: usize = 6;

/// `count` orthonormal directions of `dimension` values each, row-major, those in which the sample differs most first. Fewer where
/// the sample differs in fewer directions. `sample` is row-major and of finite values.
pub(crate) fn principal_directions(sample: &[f32], dimension: usize, count: usize) -> Vec<f32> {
    let centred = centred(sample, dimension);
    let rows: Vec<&[f32]> = centred.chunks_exact(dimension).collect();
    // The rows themselves are as good a start as any, since they lie in the span that is looked for.
    let mut directions: Vec<Vec<f32>> = rows.iter().take(count).map(|row| row.to_vec()).collect();
    orthonormalise(&mut directions);
    for _ in 0..ROUNDS {
        directions = directions
            .par_iter()
            .map(|direction| {
                let mut next = vec![0f32; dimension];
                for row in &rows {
                    let share = distance::dot(row, direction);
                    next.iter_mut().zip(*row).for_each(|(next, value)| *next += share * value);
                }
                next
            })
            .collect();
        orthonormalise(&mut directions);
    }
    directions.concat()
}

/// The rows less their mean.
fn centred(sample: &[f32], dimension: usize) -> Vec<f32> {
    let mut mean = vec![0f64; dimension];
    for row in sample.chunks_exact(dimension) {
        mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += f64::from(*value));
    }
    let count = (sample.len() / dimension).max(1) as f64;
    let mut centred = sample.to_vec();
    for row in centred.chunks_exact_mut(dimension) {
        row.iter_mut().zip(&mean).for_each(|(value, mean)| *value -= (*mean / count) as f32);
    }
    centred
}

/// Gram and Schmidt, twice over, which leaves nothing but rounding; what depends on earlier vectors is dropped.
fn orthonormalise(vectors: &mut Vec<Vec<f32>>) {
    let mut kept: Vec<Vec<f64>> = Vec::with_capacity(vectors.len());
    for vector in vectors.iter() {
        let mut vector: Vec<f64> = vector.iter().map(|value| f64::from(*value)).collect();
        let before = dot(&vector, &vector).sqrt();
        for _ in 0..2 {
            for other in &kept {
                let share = dot(&vector, other);
                vector.iter_mut().zip(other).for_each(|(value, other)| *value -= share * other);
            }
        }
        let length = dot(&vector, &vector).sqrt();
        if length > 1e-5 * before && length.is_normal() {
            vector.iter_mut().for_each(|value| *value /= length);
            kept.push(vector);
        }
    }
    *vectors = kept.into_iter().map(|vector| vector.into_iter().map(|value| value as f32).collect()).collect();
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0f64; LANES];
    let (whole, rest) = a.as_chunks::<LANES>();
    let (others, other_rest) = b.as_chunks::<LANES>();
    for (a, b) in whole.iter().zip(others) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f64>() + rest.iter().zip(other_rest).map(|(a, b)| a * b).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::values;

    fn product(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }

    #[test]
    fn directions_are_orthonormal_and_find_the_surface() {
        let (dimension, latent, count) = (40, 5, 300);
        let basis = values(1, latent * dimension);
        let points = values(2, count * latent);
        let mut rows = Vec::new();
        for point in points.chunks_exact(latent) {
            let at = |i: usize| 3.0 + (0..latent).map(|l| point[l] * basis[l * dimension + i]).sum::<f32>();
            rows.extend((0..dimension).map(at));
        }
        let directions = principal_directions(&rows, dimension, 8);
        let found: Vec<&[f32]> = directions.chunks_exact(dimension).collect();
        assert!((latent..=8).contains(&found.len()), "{} directions", found.len());
        for (i, a) in found.iter().enumerate() {
            for (j, b) in found.iter().enumerate() {
                let expected = f64::from(u8::from(i == j));
                assert!((product(a, b) - expected).abs() < 1e-5, "{i} {j}: {}", product(a, b));
            }
        }
        // All of a difference between two rows lies in the first of them.
        let difference: Vec<f32> = (0..dimension).map(|i| rows[i] - rows[7 * dimension + i]).collect();
        let caught: f64 = found[..latent].iter().map(|direction| product(direction, &difference).powi(2)).sum();
        assert!(caught > 0.999 * product(&difference, &difference));
    }

    #[test]
    fn what_does_not_differ_has_no_directions() {
        assert!(principal_directions(&[1.0; 12], 3, 2).is_empty());
        assert!(principal_directions(&[], 3, 2).is_empty());
        assert!(principal_directions(&[0.0; 6], 3, 2).is_empty());
    }
}
