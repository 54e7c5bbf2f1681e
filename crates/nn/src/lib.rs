//! Layers over candle tensors. Each layer is written once, in differentiable operations, and knows no model family.
//!
//! Candle's own fused layer norm and softmax drop the gradient silently, so this crate has its own. Fused kernels for
//! inference on a processor belong here too: a layer picks its road itself, models never do.

#![forbid(unsafe_code)]

mod activation;
mod attention;
mod block;
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
