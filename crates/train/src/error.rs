//! What can go wrong.

use std::path::PathBuf;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in training and evaluation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something about a model.
    #[error(transparent)]
    Model(#[from] crossmodal_models::Error),
    /// Scores that have no order.
    #[error(transparent)]
    Metrics(#[from] crossmodal_eval::Error),
    /// The tensor library failed.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A loss or a gradient that isn't a number any more; nothing was changed by it.
    #[error(
        "step {step}: {what} is {value}, so training stopped before the model was damaged; its batch: {}",
        list(keys)
    )]
    Diverged {
        /// The step that wasn't made, the first being 0.
        step: u64,
        /// What isn't a number: the loss or the gradients.
        what: &'static str,
        /// What it is instead.
        value: f64,
        /// Keys of the batch's samples.
        keys: Vec<String>,
    },
    /// A setting or a value that doesn't fit; the text names it and what was expected.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// Whether the work ended because somebody asked for it through a [`CancelToken`](crossmodal_models::CancelToken).
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Model(error) if error.kind() == crossmodal_models::ErrorKind::Cancelled)
    }
}

/// The first few keys, and how many more there are.
fn list(keys: &[String]) -> String {
    const SHOWN: usize = 12;
    let shown = keys.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match keys.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more (all of them in the log)"),
    }
}
