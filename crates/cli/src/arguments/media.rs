//! Options about models and about how pictures are read, shared by several commands.

use clap::{Args, ValueEnum};
use crossmodal_engine::Device;

/// Which model to use.
#[derive(Debug, Clone, Args)]
pub struct ModelOption {
    /// Model: mini, a known variant, a local folder or file, or a hub id owner/name[@revision]
    #[arg(short, long, value_name = "MODEL", env = "CROSSMODAL_MODEL")]
    pub model: Option<String>,
}

/// Departures from how the model's reference runs it and prepares pictures. Each changes embeddings.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "How pictures are read (default: as the model's reference does)")]
pub struct ModelRules {
    /// Arithmetic of the model: int8 is about twice as fast and changes embeddings a little [default: as the checkpoint is stored]
    #[arg(long, value_name = "TYPE", value_enum, env = "CROSSMODAL_PRECISION", help_heading = "How the model runs")]
    pub precision: Option<Precision>,
    /// Where the model runs: cpu, cuda:N, or auto for the first graphics processor that this build can use [default: auto]
    #[arg(long, value_name = "DEVICE", value_parser = DeviceChoice::parse, env = "CROSSMODAL_DEVICE", help_heading = "How the model runs")]
    pub device: Option<DeviceChoice>,
    /// Transparency: drop the alpha channel, or lay the picture over white
    #[arg(long, value_name = "RULE", value_enum, env = "CROSSMODAL_ALPHA")]
    pub alpha: Option<Alpha>,
    /// Orientation recorded by the camera: turn the picture upright, or leave it as stored
    #[arg(long, value_name = "RULE", value_enum, env = "CROSSMODAL_ORIENTATION")]
    pub orientation: Option<Orientation>,
    /// Resize exactly as this major version of Pillow does
    #[arg(long, value_name = "VERSION", value_enum, env = "CROSSMODAL_PILLOW")]
    pub pillow: Option<Pillow>,
    /// Decode JPEGs in full, or large ones at a half, a quarter or an eighth of their sides: faster, embeddings differ a little
    #[arg(long, value_name = "MODE", value_enum, env = "CROSSMODAL_DECODE")]
    pub decode: Option<Decode>,
    /// Refuse pictures with more pixels than this, before decoding them
    #[arg(long, value_name = "N", env = "CROSSMODAL_MAX_PIXELS")]
    pub max_pixels: Option<u64>,
}

/// Where a model runs.
#[derive(Debug, Clone, Copy, Default)]
pub enum DeviceChoice {
    /// A graphics processor where there is one.
    #[default]
    Auto,
    /// This one.
    Named(Device),
}

impl DeviceChoice {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => match text.parse::<Device>() {
                Ok(device) => Ok(Self::Named(device)),
                Err(_) => Err("expected auto, cpu or cuda:N, for example cuda:0".to_string()),
            },
        }
    }

    /// The device that it comes to on this machine.
    pub fn resolve(self) -> Device {
        match self {
            Self::Auto => Device::best(),
            Self::Named(device) => device,
        }
    }
}

/// The arithmetic of a model.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Precision {
    /// 32-bit floating point.
    Fp32,
    /// Linear layers in 8-bit integers.
    Int8,
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

/// Whether JPEGs are decoded in full.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Decode {
    /// Every pixel, as the references do.
    Exact,
    /// Sides stay at least twice as long as what the model resizes them to.
    Fast,
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
