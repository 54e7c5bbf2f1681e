//! Errors of the engine: those of its rooms, and its own.

use std::path::PathBuf;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Broad classes of errors, for callers that decide by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Something that doesn't exist: a file, a model, an item.
    NotFound,
    /// An argument or input that can't be used.
    InvalidInput,
    /// An input beyond a limit, such as a picture of too many pixels.
    TooLarge,
    /// Vectors of different spaces would meet.
    SpaceMismatch,
    /// Someone else writes to the collection.
    Locked,
    /// Reading or writing failed.
    Io,
    /// The network or a remote service failed.
    Network,
    /// A file is damaged.
    Damaged,
    /// Well-formed, but not supported.
    Unsupported,
    /// The work was cancelled.
    Cancelled,
    /// Anything else.
    Internal,
}

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Loading or running a model failed.
    #[error(transparent)]
    Model(#[from] crossmodal_models::Error),
    /// The collection refused or failed.
    #[error(transparent)]
    Store(#[from] crossmodal_store::StoreError),
    /// A file or folder that can't be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// An argument or input that can't be used.
    #[error("{0}")]
    Invalid(String),
    /// Something that doesn't exist.
    #[error("{0}")]
    NotFound(String),
    /// A file that isn't what it was when its item was written.
    #[error("{} has changed since it was indexed: {reason}; index it again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// What tells so.
        reason: String,
    },
    /// A file that can't be shown as a picture.
    #[error("{}: {source}", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        source: crossmodal_media::Error,
    },
    /// A query that can't be understood.
    #[error(transparent)]
    Expression(#[from] crate::search::expression::ExpressionError),
    /// A file of vectors or of an exported collection that can't be understood.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        reason: String,
    },
    /// A metadata file that can't be understood.
    #[error("{}:{line}: {reason}", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
}

impl Error {
    /// The broad class of this error.
    pub fn kind(&self) -> ErrorKind {
        use crossmodal_media::ErrorKind as Media;
        use crossmodal_models::ErrorKind as Models;
        use crossmodal_store::ErrorKind as Store;
        match self {
            Self::Model(error) => match error.kind() {
                Models::NotFound => ErrorKind::NotFound,
                Models::Io => ErrorKind::Io,
                Models::Network => ErrorKind::Network,
                Models::Malformed | Models::Weights => ErrorKind::Damaged,
                Models::Unsupported => ErrorKind::Unsupported,
                Models::Input => ErrorKind::InvalidInput,
                Models::TooLarge => ErrorKind::TooLarge,
                Models::Cancelled => ErrorKind::Cancelled,
                _ => ErrorKind::Internal,
            },
            Self::Store(error) => match error.kind() {
                Store::NotFound | Store::NotACollection => ErrorKind::NotFound,
                Store::Locked => ErrorKind::Locked,
                Store::SpaceMismatch => ErrorKind::SpaceMismatch,
                Store::InvalidInput => ErrorKind::InvalidInput,
                Store::Damaged => ErrorKind::Damaged,
                Store::ReadOnly | Store::DiskFull | Store::Io => ErrorKind::Io,
                Store::NewerVersion | Store::Unsupported => ErrorKind::Unsupported,
                Store::Cancelled => ErrorKind::Cancelled,
                _ => ErrorKind::Internal,
            },
            Self::Io { .. } => ErrorKind::Io,
            Self::Invalid(_) | Self::Expression(_) | Self::Metadata { .. } | Self::File { .. } => {
                ErrorKind::InvalidInput
            }
            Self::Picture { source, .. } => match source.kind() {
                Media::Empty | Media::Malformed => ErrorKind::Damaged,
                Media::UnknownFormat | Media::Unsupported => ErrorKind::Unsupported,
                Media::TooLarge => ErrorKind::InvalidInput,
                _ => ErrorKind::Internal,
            },
            // The content that was asked for doesn't exist any more.
            Self::NotFound(_) | Self::Changed { .. } => ErrorKind::NotFound,
        }
    }

    pub(crate) fn file(path: &std::path::Path, reason: impl Into<String>) -> Self {
        Self::File { path: path.to_path_buf(), reason: reason.into() }
    }

    pub(crate) fn io(path: &std::path::Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }
}
