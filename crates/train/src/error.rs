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
