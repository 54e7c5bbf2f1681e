//! Training: losses whose gradients are proven, optimisers, data sets, the loop, and evaluation of a model on a data set.
//!
//! A batch's way: `data` reads samples, augments pictures and tokenises texts on worker threads and hands out [`Batch`]es in an order that
//! depends on the seed alone; the model's differentiable towers turn them into embeddings; a `loss` is a function of embeddings; an
//! `optimiser` moves the parameters. Events of the loop are given to whoever asked for them; nothing here draws on a terminal.

#![forbid(unsafe_code)]

pub mod assemble;
mod batch;
pub mod checkpoint;
pub mod data;
mod error;
pub mod evaluate;
pub mod grad_cache;
pub mod gradients;
pub mod log;
pub mod loss;
mod measure;
pub mod model;
pub mod optimiser;
pub mod parameter;
mod random;
pub mod recipe;
pub mod report;
pub mod teacher;
pub mod trainer;

pub use crossmodal_eval as eval;

pub use batch::{Batch, BatchSource, Position, Side};
pub use crossmodal_models::CancelToken;
pub use error::{Error, Result};
pub use measure::Measure;
