//! Steps of optimisers on slices, over the kernels.

use crossmodal_kernels::optimiser::{self, AdamW, NEWTON_SCHULZ};

use super::{crew, session};

/// Moves parameters by a step of AdamW, given their gradients, and updates both moments.
///
/// # Panics
/// When the slices differ in length.
pub fn adamw(settings: &AdamW, parameters: &mut [f32], gradients: &[f32], first: &mut [f32], second: &mut [f32]) {
    settings.run(crew(&session()), parameters, gradients, first, second);
}

/// Replaces a matrix of so many rows by about the nearest with singular values of about 1 (0.7 to 1.2), by Newton and Schulz's iteration over the
/// kernels, as Muon does.
///
/// # Panics
/// When the elements aren't of so many rows.
pub fn orthogonalise(matrix: &mut [f32], rows: usize, iterations: usize) {
    optimiser::orthogonalise(crew(&session()), matrix, rows, iterations, NEWTON_SCHULZ);
}
