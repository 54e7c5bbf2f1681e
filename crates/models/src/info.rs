//! What a loaded model is, for people and for records.

use serde::Serialize;

use crate::input::Modality;
use crate::options::{Device, Precision};

/// One tower of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TowerInfo {
    /// What the tower reads.
    pub modality: Modality,
    /// For example `ViT, 224 px, patch 32, width 768, 12 layers, 12 heads, MLP 3072, quick_gelu`.
    pub architecture: String,
    /// Number of parameters.
    pub parameters: u64,
}

/// What a model is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelInfo {
    /// The name it was asked for by.
    pub name: String,
    /// A name that leads back to just this model from anywhere: absolute paths, revisions, layouts spelled out.
    pub reference: String,
    /// The family, for example `clip`.
    pub family: String,
    /// The on-disk layout, for example `Hugging Face` or `OpenCLIP`.
    pub layout: String,
    /// The towers.
    pub towers: Vec<TowerInfo>,
    /// Number of parameters in all.
    pub parameters: u64,
    /// Length of an embedding.
    pub dimension: usize,
    /// What it embeds.
    pub modalities: Vec<Modality>,
    /// Image preparation, in words.
    pub preprocessing: Option<String>,
    /// Tokenizer and context length, in words.
    pub tokenizer: Option<String>,
    /// Licence of the weights as far as it is known.
    pub licence: Option<String>,
    /// The arithmetic it runs in.
    pub precision: Precision,
    /// Where it runs.
    pub device: Device,
    /// Where the files were found.
    pub location: String,
}
