//! From arguments to plain decisions, taken once: threads, folders, image rules, which model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ArgMatches;
use clap::parser::ValueSource;
use crossmodal_engine::media::{AlphaRule, DecodeLimits, DecodeMode, OrientationRule, PassOrder, PrepOverrides};
use crossmodal_engine::{Collection, Embedder, Error, LoadOptions, Mode, StoreError, compute};

use crate::arguments::{Alpha, Decode, GlobalOptions, ModelOption, ModelRules, Orientation, Pillow, Precision};
use crate::output::Output;
use crate::progress::Download;

/// The model inside the program.
pub const MINI: &str = "mini";

/// What holds for the whole run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The streams.
    pub output: Output,
    /// Threads to use; 0 means one per core.
    pub threads: usize,
    cache: Option<PathBuf>,
}

impl Settings {
    /// Takes the decisions and sizes the thread pool.
    pub fn resolve(global: &GlobalOptions) -> anyhow::Result<Self> {
        compute::set_threads(global.threads);
        rayon::ThreadPoolBuilder::new().num_threads(global.threads).build_global()?;
        Ok(Self {
            output: Output::new(global.json, global.quiet, global.color),
            threads: global.threads,
            cache: global.cache.clone().filter(|folder| !folder.as_os_str().is_empty()),
        })
    }

    /// Loads a model, showing downloads.
    ///
    /// # Errors
    /// A name that leads nowhere, or files that can't be used.
    pub fn load(&self, name: &str, rules: &ModelRules) -> anyhow::Result<Arc<dyn Embedder>> {
        let download = Download::new(&self.output);
        let loaded = crossmodal_engine::load(name, &self.load_options(rules, &download));
        download.finish();
        Ok(loaded.map_err(Error::from)?)
    }

    /// Options for loading, with downloads shown by `download`.
    pub fn load_options(&self, rules: &ModelRules, download: &Download) -> LoadOptions {
        LoadOptions {
            prep: overrides(rules),
            precision: rules.precision.map(|precision| match precision {
                Precision::Fp32 => crossmodal_engine::Precision::Fp32,
                Precision::Int8 => crossmodal_engine::Precision::Int8,
            }),
            device: rules.device.unwrap_or_default().resolve(),
            events: Some(download.events()),
            cache_dir: self.cache.clone(),
            ..LoadOptions::default()
        }
    }
}

fn overrides(rules: &ModelRules) -> PrepOverrides {
    let ModelRules { precision: _, device: _, alpha, orientation, pillow, decode, max_pixels } = rules;
    PrepOverrides {
        alpha: alpha.map(|alpha| match alpha {
            Alpha::Drop => AlphaRule::Drop,
            Alpha::White => AlphaRule::OverWhite,
            Alpha::Key => AlphaRule::KeyOverWhite,
        }),
        orientation: orientation.map(|orientation| match orientation {
            Orientation::Exif => OrientationRule::Exif,
            Orientation::Ignore => OrientationRule::Ignore,
        }),
        pass_order: pillow.map(|pillow| match pillow {
            Pillow::Twelve => PassOrder::Pillow12,
            Pillow::Thirteen => PassOrder::Pillow13,
        }),
        decode: decode.map(|decode| match decode {
            Decode::Exact => DecodeMode::Exact,
            Decode::Fast => DecodeMode::Fast,
        }),
        limits: max_pixels.map(|max_pixels| DecodeLimits { max_pixels, ..DecodeLimits::default() }),
    }
}

/// Which model a command is to use, and who said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelChoice {
    option: Option<String>,
    environment: Option<String>,
}

impl ModelChoice {
    /// Tells an option from an environment variable, which is only a default.
    pub fn resolve(model: &ModelOption, matches: &ArgMatches) -> Self {
        let name = model.model.clone().filter(|name| !name.is_empty());
        match matches.value_source("model") {
            Some(ValueSource::EnvVariable) => Self { option: None, environment: name },
            _ => Self { option: name, environment: None },
        }
    }

    /// The model for work without a collection.
    pub fn name(&self) -> String {
        self.within(None)
    }

    /// The model for work with a collection made with `own`: the option, else the collection's, else the environment's.
    pub fn within(&self, own: Option<String>) -> String {
        self.option.clone().or(own).or_else(|| self.environment.clone()).unwrap_or_else(|| MINI.to_string())
    }

    /// Whether nobody chose.
    pub fn is_open(&self) -> bool {
        self.option.is_none() && self.environment.is_none()
    }
}

/// Name of the model that the collection in `folder` was made with; none where there is no collection yet, or one whose
/// making was interrupted.
///
/// # Errors
/// A folder that holds something else, or a collection that can't be read.
pub fn model_of(folder: &Path) -> anyhow::Result<Option<String>> {
    match Collection::open(folder, &Mode::read()) {
        Ok(collection) => Ok(collection.model_name()?),
        Err(Error::Store(StoreError::NoCollection { .. })) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_wins_over_the_collection_and_that_over_the_environment() {
        let named = |name: &str| Some(name.to_string());
        let option = ModelChoice { option: named("a"), environment: None };
        let environment = ModelChoice { option: None, environment: named("e") };
        let open = ModelChoice { option: None, environment: None };
        assert_eq!(option.within(named("own")), "a");
        assert_eq!(environment.within(named("own")), "own");
        assert_eq!(environment.within(None), "e");
        assert_eq!(open.within(None), MINI);
        assert!(open.is_open() && !environment.is_open());
    }
}
