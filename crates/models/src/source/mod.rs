//! Where a model's files come from: inside the program, a local folder or file, or the hub. Knows names and bytes, not models.

mod builtin;
mod cache;
mod hub;
mod name;
mod settings;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub use name::ModelName;
pub use settings::{DEFAULT_ENDPOINT, HubSettings};

use crate::config::Layout;
use crate::error::{Error, Result};
use crate::options::LoadOptions;
use crate::registry;
use crate::weights::{WeightBytes, WeightFile};
use hub::Hub;

/// Limit for files that are read as a whole: configurations and tokenizers.
const MAX_READ: u64 = 256 << 20;

/// The configuration that makes a folder an OpenCLIP one.
const OPEN_CLIP_CONFIG: &str = "open_clip_config.json";

/// Weight files of the Hugging Face layout, best first. An index stands for the files it lists.
const HUGGING_FACE_WEIGHTS: [&str; 4] =
    ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"];

/// Weight files of the OpenCLIP layout, best first.
const OPEN_CLIP_WEIGHTS: [&str; 8] = [
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
];

/// A model's files, wherever they are. Those on the hub are downloaded when they are first read.
#[derive(Debug)]
pub struct Located {
    name: String,
    place: Place,
    layout: Option<Layout>,
    licence: Option<String>,
    reference: String,
}

#[derive(Debug)]
enum Place {
    Builtin,
    Folder(PathBuf),
    /// A weight file whose folder may hold configurations.
    File {
        folder: PathBuf,
        file: String,
    },
    Hub(Box<Hub>),
}

/// Finds the files of a model. The hub is asked only when a file is read.
///
/// # Errors
/// A path that doesn't exist, or a known variant that this version doesn't load.
pub fn resolve(name: &ModelName, options: &LoadOptions) -> Result<Located> {
    resolve_with(name, options, &HubSettings::from_env())
}

/// As [`resolve`], with settings of the hub that don't come from the environment.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_with(name: &ModelName, options: &LoadOptions, settings: &HubSettings) -> Result<Located> {
    let hub = |repo: &str, revision: &str| Place::Hub(Box::new(Hub::new(settings, repo, revision, options)));
    match name {
        ModelName::Builtin => Ok(Located {
            name: builtin::NAME.to_string(),
            place: Place::Builtin,
            layout: None,
            licence: registry::find(builtin::NAME).map(|variant| variant.licence.clone()),
            reference: builtin::NAME.to_string(),
        }),
        ModelName::Variant(variant) if !variant.supported => Err(Error::Unsupported(format!(
            "{}: its picture tower is not a vision transformer, the only kind that this version loads; try ViT-B-32/openai",
            variant.full_name()
        ))),
        ModelName::Variant(variant) => Ok(Located {
            name: variant.full_name(),
            place: hub(variant.hub_id.as_deref().unwrap_or_default(), "main"),
            layout: Some(variant.layout.into()),
            licence: Some(variant.licence.clone()),
            reference: variant.full_name(),
        }),
        ModelName::Path { path, layout } => {
            let place = local(path)?;
            Ok(Located {
                name: path.display().to_string(),
                reference: ModelName::of_path(&absolute(&place, path), *layout),
                place,
                layout: *layout,
                licence: None,
            })
        }
        ModelName::Hub { repo, revision, layout } => Ok(Located {
            name: repo.clone(),
            place: hub(repo, revision),
            layout: *layout,
            licence: None,
            reference: ModelName::of_repo(repo, revision, *layout),
        }),
    }
}

fn local(path: &Path) -> Result<Place> {
    let metadata = std::fs::metadata(path).map_err(|error| Error::io(path, error))?;
    if metadata.is_dir() {
        return Ok(Place::Folder(path.to_path_buf()));
    }
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(Place::File { folder: folder.to_path_buf(), file })
}

/// The path from the root. Of a file, links are followed for its folder only: in a hub cache, a weight file is a link to a blob
/// without the configurations beside it.
fn absolute(place: &Place, path: &Path) -> PathBuf {
    let whole = match place {
        Place::File { folder, file } => folder.canonicalize().map(|folder| folder.join(file)),
        _ => path.canonicalize(),
    };
    whole.or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_path_buf())
}

impl Located {
    /// The name it was asked for by, spelled out.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A name that leads back to this model from any working folder and that [`ModelName::parse`] understands: `mini`, a known
    /// variant's full name, an absolute path, or `owner/name[@revision]`; the latter two with `#openclip` or `#hf` if that layout
    /// was asked for.
    pub fn reference(&self) -> String {
        self.reference.clone()
    }

    /// The error for something that isn't there because only a part of the repository is in the cache and the hub, which may have
    /// the rest, couldn't be asked; `None` in all other cases.
    pub(crate) fn incomplete(&self, what: &str) -> Option<Error> {
        match &self.place {
            Place::Hub(hub) => hub.incomplete(&self.reference, what),
            _ => None,
        }
    }

    /// The licence of the weights as far as it is known.
    pub fn licence(&self) -> Option<String> {
        match &self.place {
            Place::Hub(hub) => self.licence.clone().or_else(|| hub.licence().map(str::to_string)),
            _ => self.licence.clone(),
        }
    }

    /// Where the files are, in words.
    pub fn describe(&self) -> String {
        match &self.place {
            Place::Builtin => format!("{} (built in)", builtin::NAME),
            Place::Folder(folder) => folder.display().to_string(),
            Place::File { folder, file } => folder.join(file).display().to_string(),
            Place::Hub(hub) => hub.describe(),
        }
    }

    /// The path of a file for messages; it need not exist.
    pub fn display_path(&self, file: &str) -> PathBuf {
        match &self.place {
            Place::Builtin => Path::new(builtin::NAME).join(file),
            Place::Folder(folder) | Place::File { folder, .. } => folder.join(file),
            Place::Hub(hub) => hub.display_path(file),
        }
    }

    /// The local folder that the model was given as.
    pub(crate) fn folder(&self) -> Option<&Path> {
        match &self.place {
            Place::Folder(folder) => Some(folder),
            Place::Builtin | Place::File { .. } | Place::Hub(_) => None,
        }
    }

    /// Whether the model was given as one weight file.
    pub fn is_single_file(&self) -> bool {
        matches!(self.place, Place::File { .. })
    }

    /// Names of the files there are.
    ///
    /// # Errors
    /// A folder that can't be listed, or a hub that can't be reached.
    pub fn files(&self) -> Result<Vec<String>> {
        let mut names = match &self.place {
            Place::Builtin => builtin::FILES.iter().map(|(name, _)| name.to_string()).collect(),
            Place::Folder(folder) | Place::File { folder, .. } => list(folder)?,
            Place::Hub(hub) => hub.files()?.to_vec(),
        };
        names.sort();
        Ok(names)
    }

    /// The contents of a small file, or `None` if there is no such file.
    ///
    /// # Errors
    /// A file that can't be read or downloaded, or is too large to be what its name says.
    pub fn read(&self, file: &str) -> Result<Option<Cow<'static, [u8]>>> {
        if file == OPEN_CLIP_CONFIG && self.layout == Some(Layout::HuggingFace) {
            return Ok(None);
        }
        let path = match &self.place {
            Place::Builtin => return Ok(builtin::file(file).map(Cow::Borrowed)),
            _ => self.path(file)?,
        };
        path.map(|path| read_limited(&path).map(Cow::Owned)).transpose()
    }

    /// Whether there are weights of this layout.
    ///
    /// # Errors
    /// As [`files`](Self::files).
    pub fn has_weights(&self, layout: Layout) -> Result<bool> {
        Ok(self.weight_name(layout)?.is_some())
    }

    /// The weight files of this layout, downloaded if need be. All shards, if they are sharded.
    ///
    /// # Errors
    /// No such files, an index that is malformed or lists a missing file, or a failed download.
    pub fn weights(&self, layout: Layout) -> Result<Vec<WeightFile>> {
        let missing = |name: &str| Error::NotFound(format!("{}: no weight file {name}", self.describe()));
        let Some(name) = self.weight_name(layout)? else {
            let expected = candidates(layout).join(", ");
            return Err(missing(&format!("in the {} layout (any of {expected})", layout.as_str())));
        };
        let names = if name.ends_with(".index.json") { self.shards(&name)? } else { vec![name] };
        let open = |name: String| {
            let bytes = match &self.place {
                Place::Builtin => WeightBytes::Static(builtin::file(&name).ok_or_else(|| missing(&name))?),
                _ => WeightBytes::File(self.path(&name)?.ok_or_else(|| missing(&name))?),
            };
            Ok(WeightFile { name, bytes })
        };
        names.into_iter().map(open).collect()
    }

    fn weight_name(&self, layout: Layout) -> Result<Option<String>> {
        if self.layout.is_some_and(|preferred| preferred != layout) {
            return Ok(None);
        }
        if let Place::File { file, .. } = &self.place {
            let fits = layout == Layout::OpenClip || !file.starts_with("open_clip");
            return Ok(fits.then(|| file.clone()));
        }
        let present = self.files()?;
        Ok(candidates(layout)
            .iter()
            .find(|name| present.iter().any(|other| other == *name))
            .map(|name| name.to_string()))
    }

    fn shards(&self, index: &str) -> Result<Vec<String>> {
        let path = self.display_path(index);
        let bytes = self.read(index)?.ok_or_else(|| Error::NotFound(format!("{}: no such file", path.display())))?;
        let index: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|error| Error::malformed(&path, error))?;
        let map = index.get("weight_map").and_then(|map| map.as_object());
        let map = map.ok_or_else(|| Error::malformed(&path, "field `weight_map` is missing or no object"))?;
        let mut names = BTreeSet::new();
        for (tensor, file) in map {
            let file = file.as_str().filter(|file| cache::is_inside(file));
            let file =
                file.ok_or_else(|| Error::malformed(&path, format!("`weight_map` gives no file name for {tensor}")))?;
            names.insert(file.to_string());
        }
        Ok(names.into_iter().collect())
    }

    /// The path of a file, downloaded if need be; `None` if there is no such file.
    fn path(&self, file: &str) -> Result<Option<PathBuf>> {
        match &self.place {
            Place::Builtin => Ok(None),
            Place::Folder(folder) | Place::File { folder, .. } => {
                Ok(Some(folder.join(file)).filter(|path| path.is_file()))
            }
            Place::Hub(hub) => {
                let listed = hub.files()?.iter().any(|name| name == file);
                listed.then(|| hub.fetch(file)).transpose()
            }
        }
    }
}

fn candidates(layout: Layout) -> &'static [&'static str] {
    match layout {
        Layout::HuggingFace => &HUGGING_FACE_WEIGHTS,
        Layout::OpenClip => &OPEN_CLIP_WEIGHTS,
    }
}

fn list(folder: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).map_err(|error| Error::io(folder, error))?;
    let names = entries.flatten().filter(|entry| entry.path().is_file());
    Ok(names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

fn read_limited(path: &Path) -> Result<Vec<u8>> {
    let size = std::fs::metadata(path).map_err(|error| Error::io(path, error))?.len();
    if size > MAX_READ {
        return Err(Error::malformed(path, format!("has {size} bytes, expected at most {MAX_READ}")));
    }
    std::fs::read(path).map_err(|error| Error::io(path, error))
}
