//! Errors of loading and running models. Each names the file, tensor or field, the value found and what was expected.

use std::path::{Path, PathBuf};

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Broad classes of errors, for callers that decide by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A model, file or revision that doesn't exist.
    NotFound,
    /// Reading or writing failed.
    Io,
    /// The hub can't be reached, or refuses.
    Network,
    /// A file that is damaged or isn't what its name says.
    Malformed,
    /// Something well-formed that this program doesn't support.
    Unsupported,
    /// A tensor that is missing, of the wrong shape, or holds NaN or infinity.
    Weights,
    /// An input that can't be embedded.
    Input,
    /// An input beyond a limit, such as a picture of too many pixels.
    TooLarge,
    /// The work was cancelled.
    Cancelled,
    /// A failure inside the tensor library.
    Internal,
}

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model, file or revision that doesn't exist.
    #[error("{0}")]
    NotFound(String),
    /// Reading or writing `path` failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The hub can't be reached, or refuses. The message says what to do next.
    #[error("{0}")]
    Network(String),
    /// A file that is damaged or isn't what its name says.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A field of a configuration with a value that can't be honoured.
    #[error("{}: field `{field}` is {value}, expected {expected}", path.display())]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// Dotted name of the field.
        field: String,
        /// The value found.
        value: String,
        /// What would be understood.
        expected: String,
    },
    /// Something well-formed that this program doesn't support. The message says what to use instead.
    #[error("{0}")]
    Unsupported(String),
    /// A tensor that is missing, of the wrong shape, or holds NaN or infinity.
    #[error("{}: tensor `{tensor}` {reason}", path.display())]
    Tensor {
        /// The weight file or folder.
        path: PathBuf,
        /// Name of the tensor in the file.
        tensor: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An input that can't be embedded.
    #[error("{0}")]
    Input(String),
    /// An input whose picture can't be decoded.
    #[error(transparent)]
    Media(#[from] crossmodal_media::Error),
    /// The work was cancelled through its token.
    #[error("cancelled")]
    Cancelled,
    /// A failure inside the tensor library.
    #[error("tensor library: {0}")]
    Tensors(#[from] candle_core::Error),
    /// A failure of work that several callers shared.
    #[error(transparent)]
    Shared(std::sync::Arc<Error>),
}

impl Error {
    /// The broad class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Io { .. } => ErrorKind::Io,
            Self::Network(_) => ErrorKind::Network,
            Self::Malformed { .. } => ErrorKind::Malformed,
            Self::Config { .. } | Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::Tensor { .. } => ErrorKind::Weights,
            Self::Media(error) if error.kind() == crossmodal_media::ErrorKind::TooLarge => ErrorKind::TooLarge,
            Self::Input(_) | Self::Media(_) => ErrorKind::Input,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Tensors(_) => ErrorKind::Internal,
            Self::Shared(error) => error.kind(),
        }
    }

    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::NotFound {
            return Self::NotFound(format!("{}: no such file", path.display()));
        }
        Self::Io { path: path.to_path_buf(), source }
    }

    pub(crate) fn malformed(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self::Malformed { path: path.to_path_buf(), reason: reason.to_string() }
    }

    pub(crate) fn tensor(path: &Path, tensor: &str, reason: impl Into<String>) -> Self {
        Self::Tensor { path: path.to_path_buf(), tensor: tensor.to_string(), reason: reason.into() }
    }
}
