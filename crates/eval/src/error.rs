//! What can be wrong with scores and labels.

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Broad classes of errors, for callers that decide by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A score that is no number.
    NotANumber,
    /// Shapes, labels or settings that don't fit.
    Invalid,
}

/// What can be wrong with scores and labels.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A score is NaN, so that there is no order.
    #[error("the score of query {query} and candidate {candidate} is NaN, expected a number")]
    NotANumber {
        /// The query, counted from 0.
        query: usize,
        /// The candidate, counted from 0.
        candidate: usize,
    },
    /// Shapes, labels or settings that don't fit; the text names them and what was expected.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// The broad class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotANumber { .. } => ErrorKind::NotANumber,
            Self::Invalid(_) => ErrorKind::Invalid,
        }
    }
}
