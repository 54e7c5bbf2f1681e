//! Layers over candle tensors, and their compiled form for inference. Each layer is written once and knows no model family.
//!
//! Two roads. The layers are differentiable, on every device: training takes them; in `f32` on a processor they run over kernels too, forwards
//! and backwards, a whole block as one operation. [`PackedBlock`] is a block compiled for inference in
//! `f32` or int8 on a processor, over kernels, which computes only the rows that are asked for. Which road a model takes is decided
//! where its parameters are loaded. Candle's own fused layer norm and softmax drop the gradient silently, so they are not used.
//! Tests compare the two roads.

#![forbid(unsafe_code)]

mod activation;
mod attention;
mod block;
mod linear;
mod norm;
mod ops;
mod packed;
mod patch;
mod position;

pub use activation::Activation;
pub use attention::{AttentionMask, SelfAttention, softmax_last_dim};
pub use block::{LayerScale, Mlp, TransformerBlock, forward_blocks};
pub use candle_core::{DType, Device, Error, Result, Tensor};
pub use crossmodal_kernels::keep_freed_memory;
pub use crossmodal_kernels::optimiser::AdamW;
pub use linear::{Adapter, Linear};
pub use norm::{LayerNorm, l2_normalise};
pub use ops::{adamw, assemble_tokens, backward, embed_tokens, orthogonalise, take_rows, take_tokens};
pub use packed::{Observer, PackedBlock, Pooled, Workspace, query_gain, run_blocks};
pub use patch::PatchEmbedding;
pub use position::{GridResize, resize_grid_positions, resize_sequence_positions};
