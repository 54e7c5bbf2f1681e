//! Arithmetic on slices: matrix products with packed weights, attention, norms, distances, resampling; the team of threads that
//! shares them out; mapped files.
//!
//! Knows no tensors, files formats or models. This is the only crate with `unsafe` code; every block carries its proof.

pub mod activation;
pub mod attention;
mod buffer;
pub mod codes;
pub mod differentiable_attention;
pub mod distance;
pub mod gemm;
mod instructions;
pub mod layer_norm;
mod lease;
mod mapped;
mod matrix;
mod norm;
pub mod optimiser;
pub mod patches;
pub mod peak;
pub mod product;
pub mod resample;
pub mod scan;
pub mod signs;
pub mod team;
#[cfg(test)]
mod testing;

pub use buffer::{Buffer, Number};
pub use lease::{Lease, keep_freed_memory};
pub use mapped::MappedFile;
pub use matrix::Matrix;
pub use norm::Norm;
