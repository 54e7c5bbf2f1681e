//! Options about models and about how pictures are read, shared by several commands.

use clap::{Args, ValueEnum};

/// Which model to use.
#[derive(Debug, Clone, Args)]
pub struct ModelOption {
    /// Model: mini, a known variant, a local folder or file, or a hub id owner/name[@revision]
    #[arg(short, long, value_name = "MODEL", env = "CROSSMODAL_MODEL")]
    pub model: Option<String>,
}

/// Departures from the model's own image preparation. Each changes embeddings.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "How pictures are read (default: as the model's reference does)")]
pub struct ImageRules {
    /// Transparency: drop the alpha channel, or lay the picture over white
    #[arg(long, value_name = "RULE", value_enum, env = "CROSSMODAL_ALPHA")]
    pub alpha: Option<Alpha>,
    /// Orientation recorded by the camera: turn the picture upright, or leave it as stored
    #[arg(long, value_name = "RULE", value_enum, env = "CROSSMODAL_ORIENTATION")]
    pub orientation: Option<Orientation>,
    /// Resize exactly as this major version of Pillow does
    #[arg(long, value_name = "VERSION", value_enum, env = "CROSSMODAL_PILLOW")]
    pub pillow: Option<Pillow>,
    /// Refuse pictures with more pixels than this, before decoding them
    #[arg(long, value_name = "N", env = "CROSSMODAL_MAX_PIXELS")]
    pub max_pixels: Option<u64>,
}

/// What happens to transparency.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Alpha {
    /// The alpha channel is dropped.
    Drop,
    /// The picture is laid over white.
    White,
    /// As transformers' load_image: alpha is dropped, but a single transparent colour turns white.
    Key,
}

/// What happens to the orientation that a camera recorded.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Orientation {
    /// The picture is turned upright.
    Exif,
    /// It stays as stored.
    Ignore,
}

/// Which Pillow to equal.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Pillow {
    /// Up to 12.
    #[value(name = "12")]
    Twelve,
    /// From 13 on.
    #[value(name = "13")]
    Thirteen,
}
