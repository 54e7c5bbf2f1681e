//! How a model is to be loaded.

use std::path::PathBuf;

use crossmodal_media::PrepOverrides;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::progress::{CancelToken, ModelEvents};

/// Where a model runs. As text `cpu` or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// A CUDA graphics processor by its number, in a build with the feature `cuda`.
    Cuda(usize),
}

impl Device {
    /// The first graphics processor that this build can use, or else the processor.
    pub fn best() -> Self {
        if Self::Cuda(0).open().is_ok() { Self::Cuda(0) } else { Self::Cpu }
    }

    /// The device of the tensor library.
    ///
    /// # Errors
    /// A graphics processor that isn't there, or a build without the feature `cuda`.
    pub fn open(self) -> Result<candle_core::Device> {
        match self {
            Self::Cpu => Ok(candle_core::Device::Cpu),
            Self::Cuda(_) if !cfg!(feature = "cuda") => Err(Error::Unsupported(format!(
                "the device {self}: this program was built without CUDA; build it with the feature `cuda`, or use cpu"
            ))),
            Self::Cuda(number) => candle_core::Device::new_cuda(number)
                .map_err(|error| Error::Unsupported(format!("the device {self} can't be used: {error}"))),
        }
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.to_string()
    }
}

impl std::str::FromStr for Device {
    type Err = Error;

    /// `cpu`, `cuda` (the first one) or `cuda:N`.
    fn from_str(text: &str) -> Result<Self> {
        let number = text.strip_prefix("cuda:").map(str::parse);
        match (text, number) {
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(0)),
            (_, Some(Ok(number))) => Ok(Self::Cuda(number)),
            _ => Err(Error::Unsupported(format!("the device {text:?}; expected cpu or cuda:N, for example cuda:0"))),
        }
    }
}

impl TryFrom<String> for Device {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_they_are_written() {
        for (text, device) in [("cpu", Device::Cpu), ("cuda:0", Device::Cuda(0)), ("cuda:3", Device::Cuda(3))] {
            assert_eq!(text.parse::<Device>().unwrap(), device);
            assert_eq!(device.to_string(), text);
            assert_eq!(serde_json::from_str::<Device>(&format!("{text:?}")).unwrap(), device);
            assert_eq!(serde_json::to_string(&device).unwrap(), format!("{text:?}"));
        }
        assert_eq!("cuda".parse::<Device>().unwrap(), Device::Cuda(0));
        for text in ["", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:x", "cpu:0"] {
            let error = text.parse::<Device>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")) && error.contains("cuda:N"), "{error}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_says_so() {
        assert_eq!(Device::best(), Device::Cpu);
        let options = LoadOptions { device: Device::Cuda(1), ..LoadOptions::default() };
        let error = crate::load("mini", &options).map(drop).unwrap_err().to_string();
        assert!(error.contains("cuda:1") && error.contains("built without CUDA"), "{error}");
    }
}
