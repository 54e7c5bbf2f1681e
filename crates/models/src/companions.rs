//! What a model consists of besides weights: configurations, tokenizer files, terms. Copies of a model in whatever form take them along.

use serde_json::json;

use crate::clip::ClipModel;
use crate::config::{self, Layout};
use crate::error::Result;
use crate::load::anchor;
use crate::source::Located;

const OPEN_CLIP_CONFIG: &str = "open_clip_config.json";

/// The weight file of a copy, by its layout.
pub(crate) const WEIGHTS: [(Layout, &str); 2] =
    [(Layout::HuggingFace, "model.safetensors"), (Layout::OpenClip, "open_clip_model.safetensors")];

/// Files that a Hugging Face model consists of besides weights.
const HUGGING_FACE_FILES: [&str; 3] = ["config.json", "preprocessor_config.json", "processor_config.json"];

/// Files of tokenizers, in either layout. A name ending in `*` stands for all that begin like it.
const TOKENIZER_FILES: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "bpe*",
];

/// Terms that travel with the weights.
const LICENCE_FILES: [&str; 2] = ["LICENSE*", "NOTICE*"];

/// The name of the weight file of a copy in this layout.
pub(crate) fn weight_name(layout: Layout) -> &'static str {
    WEIGHTS.iter().find(|(other, _)| *other == layout).map_or("", |(_, name)| name)
}

/// Names and contents of what the copy needs besides weights.
pub(crate) fn companions(located: &Located, model: &ClipModel) -> Result<Vec<(String, Vec<u8>)>> {
    let present = located.files()?;
    let has_config = located.read(OPEN_CLIP_CONFIG)?.is_some();
    let patterns: Vec<&str> = match model.config().layout {
        Layout::HuggingFace => [&HUGGING_FACE_FILES[..], &TOKENIZER_FILES, &LICENCE_FILES].concat(),
        Layout::OpenClip if has_config => [&[OPEN_CLIP_CONFIG][..], &TOKENIZER_FILES, &LICENCE_FILES].concat(),
        // Of what lies around a bare file, only this can be part of the model.
        Layout::OpenClip => vec!["merges.txt", "bpe*"],
    };
    let mut files = Vec::new();
    for name in present.into_iter().filter(|name| patterns.iter().any(|pattern| fits(name, pattern))) {
        if let Some(bytes) = located.read(&name)? {
            files.push((name, bytes.into_owned()));
        }
    }
    if model.config().layout == Layout::OpenClip && !has_config {
        let checkpoint = model.weights().checkpoint();
        let prefix = anchor(checkpoint, config::open_clip::ANCHOR)?;
        let config = json!({ "model_cfg": config::describe_state_dict(checkpoint, &prefix)? });
        files.push((OPEN_CLIP_CONFIG.to_string(), format!("{config:#}\n").into_bytes()));
    }
    Ok(files)
}

fn fits(name: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

/// Whether a file of this name can be part of a copy.
pub(crate) fn is_part_of_a_copy(name: &str) -> bool {
    let weights = WEIGHTS.iter().map(|(_, name)| name);
    let others = HUGGING_FACE_FILES.iter().chain(&TOKENIZER_FILES).chain(&LICENCE_FILES).chain(&[OPEN_CLIP_CONFIG]);
    weights.chain(others).any(|pattern| fits(name, pattern))
}
