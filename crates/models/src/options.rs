//! How a model is to be loaded.

use std::path::PathBuf;

use crossmodal_media::PrepOverrides;
use serde::{Deserialize, Serialize};

use crate::progress::{CancelToken, ModelEvents};

/// Where a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
}

/// The arithmetic a model runs in. Variants of one checkpoint share a vector space and differ in this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Precision {
    /// 32-bit floating point.
    #[default]
    Fp32,
    /// Linear layers of transformer blocks in 8-bit integers, with a scale per output and one per row of activations; the rest in
    /// 32-bit floating point. About twice as fast on a processor, and a quarter of the size.
    Int8,
}

impl Precision {
    /// The name used in files and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Int8 => "int8",
        }
    }
}

/// How a model is to be loaded. `LoadOptions::default()` is right for most uses.
#[derive(Clone, Default)]
pub struct LoadOptions {
    /// Where the model runs.
    pub device: Device,
    /// The arithmetic it runs in; `None` means what the checkpoint is stored for: int8 where it is quantised, else fp32.
    pub precision: Option<Precision>,
    /// Whether parameters become variables, so that gradients can be asked for. Slower, and fp32 only.
    pub trainable: bool,
    /// Departures from the checkpoint's own image preparation.
    pub prep: PrepOverrides,
    /// Who hears of downloads; `None` is silence.
    pub events: Option<ModelEvents>,
    /// Ends the download of a model's files: it is checked before and during each transfer, and once raised, loading fails with
    /// [`Error::Cancelled`](crate::Error::Cancelled). What had arrived stays in the cache, where the next download goes on. On a
    /// silent connection it takes effect after [`HubSettings::silence`](crate::source::HubSettings::silence) at the latest.
    pub cancel: CancelToken,
    /// Folder for derived data such as cached space ids; `None` means the user's cache folder.
    pub cache_dir: Option<PathBuf>,
}

impl std::fmt::Debug for LoadOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadOptions")
            .field("device", &self.device)
            .field("precision", &self.precision)
            .field("trainable", &self.trainable)
            .field("prep", &self.prep)
            .field("cache_dir", &self.cache_dir)
            .finish_non_exhaustive()
    }
}

/// The folder for derived data: `$CROSSMODAL_CACHE`, or `crossmodal` in the user's cache folder.
pub fn default_cache_dir() -> Option<PathBuf> {
    match std::env::var_os("CROSSMODAL_CACHE") {
        Some(folder) if !folder.is_empty() => Some(PathBuf::from(folder)),
        _ => dirs::cache_dir().map(|folder| folder.join("crossmodal")),
    }
}
