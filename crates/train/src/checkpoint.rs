//! The whole state of a run in one file, replaced in one go, so that a run that was killed continues exactly where it was saved.

use std::collections::BTreeMap;
use std::path::Path;

use crossmodal_models::training::replace_file;
use crossmodal_models::weights::{self, Checkpoint, WeightBytes, WeightFile, WeightType};
use serde::{Deserialize, Serialize};

use crate::batch::Position;
use crate::error::{Error, Result};
use crate::gradients::{update, with_values};
use crate::optimiser::{Average, Optimiser};

/// Metadata key of what isn't a tensor.
const KEY: &str = "crossmodal.training";

/// The best validation so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// What it came to; higher is better.
    pub score: f64,
    /// The step it was after.
    pub step: u64,
}

/// Where a run stands, besides its tensors.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Steps made.
    pub step: u64,
    /// Where the next batch is taken from.
    pub position: Position,
    /// The best validation so far.
    pub best: Option<Best>,
    /// The step of the last validation, 0 where there was none.
    pub validated: u64,
    /// Validations since the best one.
    pub validations_since_best: u64,
    /// Samples that were learned from, repeated ones counted each time.
    pub samples: u64,
    /// Samples that could not be read.
    pub skipped: u64,
    /// Seconds of work, without the time in between.
    pub seconds: f64,
    /// Whether there is nothing left to do: all steps are made, or nothing got better any more.
    pub finished: bool,
    /// Bytes of the log that belong to these steps.
    pub log_bytes: u64,
    /// Bytes of the TensorBoard file that belong to these steps.
    pub tensorboard_bytes: u64,
}

/// What is in the metadata.
#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    /// What the run was asked for; a run is continued with the same only.
    recipe: String,
    optimiser_steps: u64,
    progress: Progress,
}

const VERSION: u32 = 1;

/// Writes the state of a run.
///
/// # Errors
/// A file that can't be written.
pub fn save(
    place: &Path,
    recipe: &str,
    progress: &Progress,
    optimiser: &Optimiser,
    average: Option<&Average>,
) -> Result<()> {
    let header = Header {
        version: VERSION,
        recipe: recipe.to_string(),
        optimiser_steps: optimiser.count(),
        progress: progress.clone(),
    };
    let header = serde_json::to_string(&header).map_err(|error| Error::Invalid(format!("state: {error}")))?;
    let mut tensors: Vec<(String, Vec<usize>)> = Vec::new();
    let state = optimiser.state();
    for (at, parameter) in optimiser.parameters().iter().enumerate() {
        tensors.push((format!("parameter/{}", parameter.name), parameter.var.dims().to_vec()));
        if let Some(average) = average {
            tensors.push((format!("average/{}", parameter.name), vec![average.values()[at].len()]));
        }
    }
    tensors.extend(state.iter().map(|(name, values)| (format!("optimiser/{name}"), vec![values.len()])));
    let places: BTreeMap<&str, usize> =
        optimiser.parameters().iter().enumerate().map(|(at, parameter)| (parameter.name.as_str(), at)).collect();
    let values = |name: &str| -> crossmodal_models::Result<Vec<f32>> {
        let (kind, name) = name.split_once('/').unwrap_or_default();
        let at = || places.get(name).copied().unwrap_or_default();
        Ok(match (kind, average) {
            ("parameter", _) => optimiser.parameters()[at()].var.as_tensor().flatten_all()?.to_vec1()?,
            ("average", Some(average)) => average.values()[at()].clone(),
            _ => state.get(name).map(|values| values.to_vec()).unwrap_or_default(),
        })
    };
    replace_file(place, |file| weights::write(file, place, WeightType::F32, &[(KEY, &header)], &tensors, values))?;
    Ok(())
}

/// A state that was read.
#[derive(Debug)]
pub struct Saved {
    tensors: Checkpoint,
    optimiser_steps: u64,
    /// What the run was asked for.
    pub recipe: String,
    /// Where it stood.
    pub progress: Progress,
}

impl Saved {
    /// Reads a state.
    ///
    /// # Errors
    /// A file that is missing, damaged or isn't a state of this version.
    pub fn open(place: &Path) -> Result<Self> {
        let name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let tensors = Checkpoint::open(&[WeightFile { name, bytes: WeightBytes::File(place.to_path_buf()) }])?;
        let wrong = |reason: String| Error::Invalid(format!("{}: {reason}", place.display()));
        let header = tensors.metadata(KEY).ok_or_else(|| wrong("isn't the state of a training run".into()))?;
        let header: Header =
            serde_json::from_str(header).map_err(|error| wrong(format!("isn't the state of a run: {error}")))?;
        if header.version != VERSION {
            return Err(wrong(format!("state of version {}, expected {VERSION}", header.version)));
        }
        let Header { recipe, optimiser_steps, progress, .. } = header;
        Ok(Self { tensors, optimiser_steps, recipe, progress })
    }

    /// Puts parameters, moments and averages back.
    ///
    /// # Errors
    /// A tensor that is missing or of another size: the state of another model.
    pub fn restore(&self, optimiser: &mut Optimiser, average: Option<&mut Average>) -> Result<()> {
        let load = |name: &str| -> Result<Vec<f32>> { Ok(self.tensors.load(name)?.1) };
        for parameter in optimiser.parameters() {
            let name = format!("parameter/{}", parameter.name);
            let values = load(&name)?;
            let expected = with_values(parameter.var.as_tensor(), <[f32]>::len)?;
            if values.len() != expected {
                let path = self.tensors.path().display();
                let found = values.len();
                return Err(Error::Invalid(format!("{path}: {name} has {found} numbers, the model's {expected}")));
            }
            update(&parameter.var, |own| own.copy_from_slice(&values))?;
        }
        if let Some(average) = average {
            let names = optimiser.parameters().iter().map(|parameter| format!("average/{}", parameter.name));
            average.restore(names.map(|name| load(&name)).collect::<Result<_>>()?)?;
        }
        optimiser.restore(self.optimiser_steps, |name| load(&format!("optimiser/{name}")).ok())
    }
}
