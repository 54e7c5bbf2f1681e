//! The architecture of a plain OpenAI state dict, read off its tensors' shapes as the reference does.

use serde_json::{Value, json};

use super::{ClipConfig, open_clip};
use crate::error::{Error, Result};
use crate::weights::Checkpoint;

/// Infers the configuration of a ViT state dict with OpenAI's names.
///
/// # Errors
/// A state dict of another model, or one that doesn't say which activation it was trained with.
pub fn infer(checkpoint: &Checkpoint, prefix: &str) -> Result<ClipConfig> {
    let origin = checkpoint.path().join("shapes of its tensors");
    open_clip::read(&origin, describe(checkpoint, prefix)?.to_string().as_bytes())
}

/// The `model_cfg` of the `open_clip_config.json` that would say what the state dict's shapes do.
///
/// # Errors
/// As [`infer`].
pub fn describe(checkpoint: &Checkpoint, prefix: &str) -> Result<Value> {
    let path = checkpoint.path();
    let shape = |name: &str| {
        let full = format!("{prefix}{name}");
        checkpoint.shape(&full).ok_or_else(|| Error::tensor(path, &full, "is missing"))
    };
    // OpenAI's own files carry these attributes; only of them it is known that they use quick_gelu.
    if !["input_resolution", "context_length", "vocab_size"]
        .iter()
        .any(|name| checkpoint.contains(&format!("{prefix}{name}")))
    {
        return Err(Error::Unsupported(format!(
            "{}: a plain state dict doesn't say which activation and preprocessing it was trained with; put the model's \
             open_clip_config.json beside it",
            path.display()
        )));
    }
    let dims = |name: &str, rank: usize| -> Result<Vec<usize>> {
        let shape = shape(name)?;
        if shape.len() == rank && shape.iter().all(|size| *size > 0) {
            return Ok(shape.to_vec());
        }
        Err(Error::tensor(path, name, format!("has shape {shape:?}, expected {rank} dimensions")))
    };
    let blocks = |start: &str| {
        let start = format!("{prefix}{start}transformer.resblocks.");
        let numbers =
            checkpoint.names().filter_map(|name| name.strip_prefix(&start)?.split('.').next()?.parse::<u32>().ok());
        numbers.max().map_or(0, |last| last + 1)
    };
    let conv = dims("visual.conv1.weight", 4)?;
    let positions = dims("visual.positional_embedding", 2)?[0];
    let grid = (positions.saturating_sub(1) as f64).sqrt().round() as usize;
    let tokens = dims("token_embedding.weight", 2)?;
    Ok(json!({
        "embed_dim": dims("text_projection", 2)?[1],
        "quick_gelu": true,
        "vision_cfg": {
            "image_size": grid * conv[2], "patch_size": conv[2], "width": conv[0], "layers": blocks("visual."),
            "mlp_ratio": dims("visual.transformer.resblocks.0.mlp.c_fc.weight", 2)?[0] as f64 / conv[0] as f64,
        },
        "text_cfg": {
            "context_length": dims("positional_embedding", 2)?[0], "vocab_size": tokens[0], "width": tokens[1],
            "heads": (tokens[1] / 64).max(1), "layers": blocks(""),
        },
    }))
}
