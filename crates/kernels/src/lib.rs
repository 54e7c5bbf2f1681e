//! Arithmetic on slices: distances, norms, the row-wise steps of transformers; and mapped files.
//!
//! Knows no tensors, files formats or models. This is the only crate with `unsafe` code; every block carries its proof.

pub mod distance;
mod mapped;
pub mod rows;

pub use mapped::MappedFile;
