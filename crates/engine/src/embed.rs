//! Embedding inputs one after the other, without a collection.

use std::path::Path;

use crossmodal_models::media::DecodeLimits;
use crossmodal_models::{CancelToken, Embedder, Embedding, Input};

use crate::error::Result;

/// Reads a file as an input. Its modality is decided by its content; in this version every file is a picture.
///
/// # Errors
/// A file that can't be read.
pub fn read_input(path: &Path) -> Result<Input> {
    let (bytes, _) = crate::files::read_limited(path, DecodeLimits::default().max_bytes)?;
    Ok(Input::image(bytes))
}

/// Embeds inputs in batches of `batch_size` and hands each result to `each` with its place, in order. An input that
/// can't be read or embedded is handed over as an error and doesn't stop the others.
///
/// # Errors
/// Failures of the model as a whole, cancellation, and what `each` returns.
pub fn embed_each(
    model: &dyn Embedder,
    inputs: impl IntoIterator<Item = Result<Input>>,
    batch_size: usize,
    cancel: &CancelToken,
    mut each: impl FnMut(usize, Result<Embedding>) -> Result<()>,
) -> Result<()> {
    use rayon::prelude::*;
    let mut inputs = inputs.into_iter().enumerate();
    loop {
        let chunk: Vec<(usize, Result<Input>)> = inputs.by_ref().take(batch_size.max(1)).collect();
        if chunk.is_empty() {
            return Ok(());
        }
        let prepare =
            |(place, input): (usize, Result<Input>)| (place, input.and_then(|input| Ok(model.prepare(&input)?)));
        let prepared: Vec<_> = chunk.into_par_iter().map(prepare).collect();
        let (mut places, mut batch, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for (place, result) in prepared {
            match result {
                Ok(prepared) => {
                    places.push(place);
                    batch.push(prepared);
                }
                Err(error) => failed.push((place, Err(error))),
            }
        }
        let embedded = places.into_iter().zip(model.encode(batch, cancel)?.into_iter().map(Ok));
        let mut results: Vec<(usize, Result<Embedding>)> = embedded.chain(failed).collect();
        results.sort_by_key(|(place, _)| *place);
        for (place, result) in results {
            each(place, result)?;
        }
    }
}
