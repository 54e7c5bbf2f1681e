//! Checkpoints, tokenizers, towers: everything between a model's name and its [`Embedder`].
//!
//! Reads public checkpoints in their own formats and reproduces the reference implementations' numbers;
//! [`verify`] proves it for any checkpoint. Knows nothing of collections or of how results are shown.

#![forbid(unsafe_code)]

mod clip;
mod companions;
pub mod compute;
pub mod config;
mod embedder;
mod error;
mod info;
mod input;
mod load;
mod options;
mod progress;
pub mod quantize;
pub mod registry;
pub mod source;
mod space;
pub mod tokenizer;
pub mod towers;
pub mod training;
pub mod verify;
pub mod weights;

pub use clip::ClipModel;
pub use crossmodal_media as media;
pub use embedder::{Embedder, Embedding, Generator, LogitRule, Prepared, ProbabilityRule, Reranker};
pub use error::{Error, ErrorKind, Result};
pub use info::{ModelInfo, TowerInfo};
pub use input::{Content, Input, Modality, Role, Span};
pub use load::{load, load_clip};
pub use options::{Device, LoadOptions, Precision, default_cache_dir};
pub use progress::{CancelToken, ModelEvent, ModelEvents};
pub use space::{ORIGIN_KEY, SpaceId};
pub use tokenizer::{Kept, Token, Tokenized};
