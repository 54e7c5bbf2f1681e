//! Writing a trained model: a folder in the layout that it came from.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::Value;

use super::TrainableClip;
use crate::companions::weight_name;
use crate::error::{Error, Result};
use crate::weights::{self, WeightType};

/// Fields of Hugging Face configurations that name the type of the weights.
const TYPE_FIELDS: [&str; 2] = ["torch_dtype", "dtype"];

impl TrainableClip {
    /// Writes the model into `folder`, which is made if need be: configuration and tokenizer files as they came, weights in `dtype`. The weight file is replaced in one
    /// go and last, so that the folder always holds a whole model. `values` gives the elements of parameters that are to be other than they are now, by their canonical
    /// names, for example averages.
    ///
    /// # Errors
    /// A folder that can't be written, or a parameter that the type can't hold.
    pub fn save(
        &self,
        folder: &Path,
        dtype: WeightType,
        mut values: impl FnMut(&str) -> Option<Vec<f32>>,
    ) -> Result<()> {
        fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
        for (name, bytes) in &self.companions {
            let bytes = if name == "config.json" { with_type(bytes, dtype)? } else { bytes.clone() };
            let place = folder.join(name);
            // What is there already stays as it is, down to its time stamps.
            if fs::read(&place).is_ok_and(|found| found == bytes) {
                continue;
            }
            replace_file(&place, |file| file.write_all(&bytes).map_err(|error| Error::io(&place, error)))?;
        }
        let checkpoint = self.clip.weights().checkpoint();
        let own_shape = |name: &str| checkpoint.shape(name).map(<[usize]>::to_vec);
        let sources = self.clip.weights().recipes().sources(|name| self.shape(name), own_shape);
        let place = folder.join(weight_name(self.clip.config().layout));
        replace_file(&place, |file| {
            weights::write_sources(file, &place, dtype, &[("format", "pt")], &sources, |canonical| {
                let mut all = match values(canonical) {
                    Some(values) => values,
                    None => self.values(canonical)?.1,
                };
                self.variables.merge(canonical, &mut all, &mut values)?;
                Ok(all)
            })
        })
    }
}

/// A configuration that says which type the weights have, where it said anything of the kind: transformers would load them in that one.
fn with_type(config: &[u8], dtype: WeightType) -> Result<Vec<u8>> {
    let malformed = |error| Error::malformed(Path::new("config.json"), error);
    let mut config: Value = serde_json::from_slice(config).map_err(malformed)?;
    let mut correct = |fields: &mut Value| {
        for field in TYPE_FIELDS {
            if let Some(value) = fields.get_mut(field).filter(|value| value.is_string()) {
                *value = dtype.torch_name().into();
            }
        }
    };
    correct(&mut config);
    for tower in ["text_config", "vision_config"] {
        config.get_mut(tower).map(&mut correct);
    }
    Ok(format!("{config:#}\n").into_bytes())
}

/// Writes a file beside its place, makes it durable and gives it its name, so that a reader sees the old or the new one whole.
///
/// # Errors
/// Those of `fill`, and failures to write.
pub fn replace_file(place: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let failed = |source| Error::Io { path: place.to_path_buf(), source };
    let mut name = place.file_name().unwrap_or_default().to_os_string();
    name.push(".part");
    let part = place.with_file_name(name);
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&part).map_err(failed)?);
    fill(&mut file)?;
    let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().and_then(|()| fs::rename(&part, place)).map_err(failed)?;
    match place.parent() {
        // Only Unix can open a folder and sync it; elsewhere the file system does so by itself.
        Some(folder) if cfg!(unix) => File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed),
        _ => Ok(()),
    }
}
