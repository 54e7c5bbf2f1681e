//! From a model's name to an [`Embedder`]: the table of families, and how each is recognised by its files.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clip::{ClipModel, Origin, prefix_of};
use crate::config::{self, ClipConfig, Layout};
use crate::embedder::Embedder;
use crate::error::{Error, Result};
use crate::options::LoadOptions;
use crate::source::{Located, ModelName, resolve};
use crate::tokenizer::Tokenizer;
use crate::weights::{self, CanonicalWeights, Checkpoint, Recipes, WeightBytes, WeightFile, WeightType};

/// The `model_type` of CLIP in the Hugging Face layout.
const CLIP: &str = "clip";

/// A model family: how it is recognised, and how it is loaded.
struct Family {
    /// Shown when nothing matches.
    name: &'static str,
    recognises: fn(&Located) -> Result<bool>,
    load: fn(&Located, &LoadOptions) -> Result<Arc<dyn Embedder>>,
}

/// All families, first match wins. A new family is a row here; see `docs/adding-a-model.md`.
const FAMILIES: &[Family] = &[
    Family {
        name: "CLIP in the Hugging Face layout",
        recognises: is_hf_clip,
        load: |l, o| Ok(Arc::new(hf_clip(l, Weights::Stored, o)?)),
    },
    Family {
        name: "CLIP in the OpenCLIP layout",
        recognises: is_open_clip,
        load: |l, o| Ok(Arc::new(open_clip(l, Weights::Stored, o)?)),
    },
    Family { name: "a plain OpenAI state dict", recognises: is_bare, load: |l, o| Ok(Arc::new(bare_clip(l, o)?)) },
];

/// Loads the model of this name: `mini`, a known variant, a local folder or file, or a hub id `owner/name[@revision]`.
///
/// # Errors
/// A name that leads nowhere, files that are missing or damaged, or a model that this version doesn't support.
pub fn load(name: &str, options: &LoadOptions) -> Result<Arc<dyn Embedder>> {
    let located = resolve(&ModelName::parse(name)?, options)?;
    load_located(&located, options).map_err(|error| explained(&located, error))
}

fn load_located(located: &Located, options: &LoadOptions) -> Result<Arc<dyn Embedder>> {
    for family in FAMILIES {
        if (family.recognises)(located)? {
            return (family.load)(located, options);
        }
    }
    Err(unrecognised(located))
}

/// As [`load`], for callers that need CLIP itself, such as comparison with golden data.
///
/// # Errors
/// As [`load`], and a model of another family.
pub fn load_clip(name: &str, options: &LoadOptions) -> Result<ClipModel> {
    Ok(locate_clip(name, options)?.1)
}

/// As [`load_clip`], with the files that the model was made from.
pub(crate) fn locate_clip(name: &str, options: &LoadOptions) -> Result<(Located, ClipModel)> {
    let located = resolve(&ModelName::parse(name)?, options)?;
    match load_located_clip(&located, options) {
        Ok(model) => Ok((located, model)),
        Err(error) => Err(explained(&located, error)),
    }
}

fn load_located_clip(located: &Located, options: &LoadOptions) -> Result<ClipModel> {
    if is_hf_clip(located)? {
        hf_clip(located, Weights::Stored, options)
    } else if is_open_clip(located)? {
        open_clip(located, Weights::Stored, options)
    } else if is_bare(located)? {
        bare_clip(located, options)
    } else {
        Err(unrecognised(located))
    }
}

/// A file that is missing from the cache may well be on the hub, so saying that there is none would mislead.
fn explained(located: &Located, error: Error) -> Error {
    match error {
        Error::NotFound(what) => located.incomplete(&what).unwrap_or(Error::NotFound(what)),
        other => other,
    }
}

fn unrecognised(located: &Located) -> Error {
    let known: Vec<_> = FAMILIES.iter().map(|family| family.name).collect();
    let kind = model_type(located);
    if let Ok(None) = kind
        && let Some(error) = located.incomplete("no configuration of a model is there")
    {
        return error;
    }
    let found = match kind {
        Ok(Some(kind)) if kind == CLIP => {
            return Error::NotFound(format!(
                "{}: config.json says model_type {CLIP:?}, but there are no weights in the layout that goes with it; add them",
                located.describe()
            ));
        }
        Ok(Some(kind)) => format!("its config.json says model_type {kind:?}"),
        Ok(None) => "it holds neither a config.json with a model_type nor an open_clip_config.json".into(),
        Err(error) => error.to_string(),
    };
    let place = located.describe();
    Error::Unsupported(format!("{place}: not a model this version loads ({found}); it loads {}", known.join(", ")))
}

/// The `model_type` of `config.json`.
fn model_type(located: &Located) -> Result<Option<String>> {
    let Some(bytes) = located.read("config.json")? else { return Ok(None) };
    let path = located.display_path("config.json");
    let config: serde_json::Value = serde_json::from_slice(&bytes)
        .map_err(|error| Error::malformed(&path, format!("not a JSON document: {error}")))?;
    Ok(config.get("model_type").and_then(|kind| kind.as_str()).map(str::to_string))
}

fn is_hf_clip(located: &Located) -> Result<bool> {
    Ok(located.has_weights(Layout::HuggingFace)? && model_type(located)?.as_deref() == Some(CLIP))
}

fn is_open_clip(located: &Located) -> Result<bool> {
    Ok(located.read("open_clip_config.json")?.is_some())
}

fn is_bare(located: &Located) -> Result<bool> {
    Ok(located.is_single_file() && located.read("config.json")?.is_none())
}

/// A file's name for messages and its bytes.
type NamedBytes = (PathBuf, Cow<'static, [u8]>);

fn optional(located: &Located, file: &str) -> Result<Option<NamedBytes>> {
    Ok(located.read(file)?.map(|bytes| (located.display_path(file), bytes)))
}

fn required(located: &Located, file: &str) -> Result<NamedBytes> {
    optional(located, file)?.ok_or_else(|| Error::NotFound(format!("{}: no {file}", located.describe())))
}

fn origin(located: &Located) -> Origin {
    Origin {
        name: located.name().to_string(),
        reference: located.reference(),
        location: located.describe(),
        licence: located.licence(),
    }
}

/// Names of tensors whose number of rows may differ from the configuration's, because positions are resized.
const RESIZABLE: [&str; 2] = ["vision.positions", "text.positions"];

/// Where the weights of a model come from.
#[derive(Clone, Copy)]
enum Weights<'a> {
    /// Its files.
    Stored,
    /// Nowhere: they are drawn.
    Drawn(&'a Beginning<'a>),
}

/// Gives the elements of a canonical tensor, by the configuration and the tensor's name and shape.
type Draw<'a> = dyn Fn(&ClipConfig, &str, &[usize]) -> Vec<f32> + 'a;

/// How a model begins that hasn't been trained.
pub(crate) struct Beginning<'a> {
    /// Checks that it can be begun.
    pub(crate) check: fn(&ClipConfig) -> Result<()>,
    /// The elements of a canonical tensor.
    pub(crate) draw: &'a Draw<'a>,
}

/// A model of the architecture in a folder, without weights there.
pub(crate) fn untrained_clip(
    folder: &Path,
    options: &LoadOptions,
    beginning: Beginning<'_>,
) -> Result<(Located, ClipModel)> {
    let located = resolve(&ModelName::Path { path: folder.to_path_buf(), layout: None }, options)?;
    let weights = Weights::Drawn(&beginning);
    let model = if is_open_clip(&located)? {
        open_clip(&located, weights, options)?
    } else if model_type(&located)?.as_deref() == Some(CLIP) {
        hf_clip(&located, weights, options)?
    } else {
        return Err(unrecognised(&located));
    };
    Ok((located, model))
}

/// The tensors of a layout for an untrained model, as a checkpoint in memory.
fn drawn(config: &ClipConfig, recipes: &Recipes, beginning: &Beginning<'_>) -> Result<Checkpoint> {
    (beginning.check)(config)?;
    let shapes: BTreeMap<&str, &[usize]> = recipes.shapes().collect();
    let shape = |name: &str| shapes.get(name).copied().unwrap_or_default();
    let sources = recipes.sources(|name| shape(name).to_vec(), |_| None);
    let mut bytes = Vec::new();
    let place = Path::new("untrained.safetensors");
    weights::write_sources(&mut bytes, place, WeightType::F32, &[], &sources, |name| {
        Ok((beginning.draw)(config, name, shape(name)))
    })?;
    Checkpoint::open(&[WeightFile { name: "untrained.safetensors".into(), bytes: WeightBytes::Owned(bytes.into()) }])
}

fn hf_clip(located: &Located, weights: Weights<'_>, options: &LoadOptions) -> Result<ClipModel> {
    let (path, bytes) = required(located, "config.json")?;
    let preprocessor = match optional(located, "preprocessor_config.json")? {
        Some(found) => Some(found),
        None => optional(located, "processor_config.json")?,
    };
    let preprocessor = preprocessor.as_ref().map(|(path, bytes)| (path.as_path(), bytes.as_ref()));
    let config = config::hf_clip::read((&path, &bytes), preprocessor)?;
    let tokenizer = Tokenizer::hugging_face(located, config.text.context_length, config.text.vocab_size)?;
    let (checkpoint, prefix) = match weights {
        Weights::Stored => {
            let checkpoint = Checkpoint::open(&located.weights(Layout::HuggingFace)?)?;
            let prefix = anchor(&checkpoint, config::hf_clip::ANCHOR)?;
            (checkpoint, prefix)
        }
        Weights::Drawn(beginning) => {
            (drawn(&config, &config::hf_clip::recipes(&config, ""), beginning)?, String::new())
        }
    };
    let recipes = config::hf_clip::recipes(&config, &prefix);
    let weights = CanonicalWeights::new(checkpoint, recipes, config::hf_clip::ignorable, &[])?;
    ClipModel::new(config, tokenizer, weights, origin(located), options)
}

fn open_clip(located: &Located, weights: Weights<'_>, options: &LoadOptions) -> Result<ClipModel> {
    let (path, bytes) = required(located, "open_clip_config.json")?;
    let config = config::open_clip::read(&path, &bytes)?;
    let checkpoint = match weights {
        Weights::Stored => Checkpoint::open(&located.weights(Layout::OpenClip)?)?,
        Weights::Drawn(beginning) => drawn(&config, &config::open_clip::recipes(&config, "", ""), beginning)?,
    };
    with_open_clip_names(located, options, config, checkpoint)
}

fn bare_clip(located: &Located, options: &LoadOptions) -> Result<ClipModel> {
    let checkpoint = Checkpoint::open(&located.weights(Layout::OpenClip)?)?;
    let prefix = anchor(&checkpoint, config::open_clip::ANCHOR)?;
    let config = config::infer_from_state_dict(&checkpoint, &prefix)?;
    with_open_clip_names(located, options, config, checkpoint)
}

fn with_open_clip_names(
    located: &Located,
    options: &LoadOptions,
    mut config: ClipConfig,
    checkpoint: Checkpoint,
) -> Result<ClipModel> {
    let tokenizer =
        Tokenizer::open_clip(located, &config.tokenizer, config.text.context_length, config.text.vocab_size)?;
    let prefix = anchor(&checkpoint, config::open_clip::ANCHOR)?;
    let in_text = anchor(&checkpoint, config::open_clip::TEXT_ANCHOR)?;
    let text = in_text.strip_prefix(&prefix).unwrap_or(&in_text).to_string();
    // A model built for a bias starts from 0 where the file has none.
    config.logit_bias &= checkpoint.contains(&format!("{prefix}logit_bias"));
    let recipes = config::open_clip::recipes(&config, &prefix, &text);
    let weights = CanonicalWeights::new(checkpoint, recipes, config::open_clip::ignorable, &RESIZABLE)?;
    ClipModel::new(config, tokenizer, weights, origin(located), options)
}

/// What the names of a checkpoint begin with, found by a name that every one of its layout has.
pub(crate) fn anchor(checkpoint: &Checkpoint, name: &str) -> Result<String> {
    let names = checkpoint.names();
    prefix_of(names, name)
        .ok_or_else(|| Error::tensor(checkpoint.path(), name, "is missing: not the weights of this model"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::ErrorKind;
    use crate::source::{HubSettings, resolve_with};

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    /// What loading `name` says when the cache holds these files of it and the hub can't be asked.
    fn message(name: &str, files: &[(&str, &str)], offline: bool) -> String {
        let cache = tempfile::tempdir().unwrap();
        let write = |path: &Path, text: &str| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let folder = cache.path().join("models--team--model");
        write(&folder.join("refs/main"), COMMIT);
        files.iter().for_each(|(file, text)| write(&folder.join("snapshots").join(COMMIT).join(file), text));
        // Nothing listens on this port.
        let settings = HubSettings {
            endpoint: "http://127.0.0.1:1".into(),
            cache: cache.path().into(),
            token: None,
            offline,
            silence: Duration::from_secs(1),
        };
        let options = LoadOptions::default();
        let located = resolve_with(&ModelName::parse(name).unwrap(), &options, &settings).unwrap();
        let error = load_located(&located, &options).map(drop).map_err(|error| explained(&located, error)).unwrap_err();
        let same = load_located_clip(&located, &options).map(drop).map_err(|error| explained(&located, error));
        assert_eq!(same.unwrap_err().to_string(), error.to_string());
        assert_eq!(error.kind(), ErrorKind::Network, "{error}");
        error.to_string()
    }

    #[test]
    fn half_a_repository_in_the_cache_is_no_unknown_model() {
        let hf = ("config.json", r#"{"model_type": "clip"}"#);
        let weights = ("model.safetensors", "");
        let readme = ("README.md", "");
        let cases = [("team/model", hf), ("team/model", readme), ("team/model", weights), ("team/model#openclip", hf)];
        for (name, file) in cases {
            for offline in [false, true] {
                let message = message(name, &[file], offline);
                let why = if offline { "HF_HUB_OFFLINE is set" } else { "can't be reached" };
                for part in ["isn't completely in", why, &format!("`crossmodal model pull {name}`"), "folder's path"] {
                    assert!(message.contains(part), "{file:?}: {message}");
                }
                assert!(!message.contains("this version loads"), "{message}");
            }
        }
        let complete = include_str!("../../../models/mini/config.json");
        let without_tokenizer = message("team/model#hf", &[("config.json", complete), weights], true);
        assert!(without_tokenizer.contains("isn't completely in"), "{without_tokenizer}");
    }

    #[test]
    fn weights_that_a_folder_lacks_are_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), r#"{"model_type": "clip"}"#).unwrap();
        let error = load(folder.path().to_str().unwrap(), &LoadOptions::default()).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("no weights"), "{error}");
    }
}
