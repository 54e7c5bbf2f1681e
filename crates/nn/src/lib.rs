//! Layers over candle tensors. Each layer is written once, picks its road itself, and knows no model family.
//!
//! Two roads: differentiable operations where a gradient is asked for (some tensor is a variable or depends on one), kernels
//! on slices for inference in `f32` on a processor. Candle's own fused layer norm and softmax drop the gradient silently, so
//! they are not used. Tests compare the two roads.

#![forbid(unsafe_code)]

mod activation;
mod attention;
mod block;
mod fused;
mod linear;
mod norm;
mod patch;
mod position;

pub use activation::Activation;
pub use attention::{AttentionMask, SelfAttention, softmax_last_dim};
pub use block::{LayerScale, Mlp, TransformerBlock};
pub use candle_core::{DType, Device, Error, Result, Tensor};
pub use linear::Linear;
pub use norm::{LayerNorm, l2_normalise};
pub use patch::PatchEmbedding;
pub use position::{GridResize, resize_grid_positions, resize_sequence_positions};
