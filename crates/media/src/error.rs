//! Errors of decoding and preparing media.

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Broad classes of errors, for callers that decide by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No bytes at all.
    Empty,
    /// Not a format this crate reads.
    UnknownFormat,
    /// Damaged or cut short.
    Malformed,
    /// Larger than the limits allow.
    TooLarge,
    /// A variant of a known format that isn't read.
    Unsupported,
}

/// An error of decoding or preparing a picture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No bytes at all.
    #[error("the file is empty")]
    Empty,
    /// Not a format this crate reads.
    #[error("not a picture in a known format (JPEG, PNG, GIF, WebP, BMP, TIFF); it starts with {start}")]
    UnknownFormat {
        /// The first bytes, in hexadecimal.
        start: String,
    },
    /// Damaged or cut short.
    #[error("damaged {format}: {reason}")]
    Malformed {
        /// Name of the format, for example `JPEG`.
        format: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// Larger than the limits allow.
    #[error("{what} of {found} is over the limit of {limit}")]
    TooLarge {
        /// What is too large, for example `a picture of 20000x20000 pixels`.
        what: String,
        /// The size found.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// A variant of a known format that isn't read.
    #[error("unsupported {format}: {reason}")]
    Unsupported {
        /// Name of the format.
        format: &'static str,
        /// What about it.
        reason: String,
    },
}

impl Error {
    /// The broad class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Empty => ErrorKind::Empty,
            Self::UnknownFormat { .. } => ErrorKind::UnknownFormat,
            Self::Malformed { .. } => ErrorKind::Malformed,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
        }
    }
}
