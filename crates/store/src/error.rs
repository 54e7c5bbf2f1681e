//! Everything that can go wrong with a collection, each naming its culprit.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::SpaceRef;
use crate::local::DATABASE_NAME;

/// The class of a [`StoreError`], for callers that decide by it (exit codes, HTTP status).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A folder, collection, field or item that doesn't exist.
    NotFound,
    /// The path holds something that isn't a collection; it was left alone.
    NotACollection,
    /// The collection was written by a newer version of this program.
    NewerVersion,
    /// Another process writes to the collection.
    Locked,
    /// Vectors of one space were about to enter a field of another.
    SpaceMismatch,
    /// The request itself is wrong: a duplicate id, a wrong dimension, a NaN, a malformed filter.
    InvalidInput,
    /// Files of the collection are damaged.
    Damaged,
    /// The store was opened for reading, or its folder can't be written.
    ReadOnly,
    /// No space is left, or a limit on file sizes was hit. Nothing of the failed batch was kept.
    DiskFull,
    /// Any other failure of the file system.
    Io,
    /// Any other failure of the database.
    Database,
    /// The store can't do this; see [`Capabilities`](crate::Capabilities).
    Unsupported,
    /// The work was called off.
    Cancelled,
}

/// Why an operation on a collection failed. Whatever failed, no acknowledged data is lost.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no collection at the path, and creating one wasn't asked for.
    #[error("there is no collection at {path}")]
    NoCollection {
        /// The folder that was to be opened.
        path: PathBuf,
    },
    /// The path exists but holds something else.
    #[error("{path} is not a collection: {reason}")]
    NotACollection {
        /// The folder that was to be opened.
        path: PathBuf,
        /// What was found instead.
        reason: String,
    },
    /// A format version above the one this program knows.
    #[error("the collection {path} has format version {found}, this program knows up to {supported}; use a newer one")]
    NewerVersion {
        /// The collection's folder.
        path: PathBuf,
        /// Its format version.
        found: i64,
        /// The newest version that this program reads.
        supported: i64,
    },
    /// Another writer holds the collection.
    #[error("the collection {path} is being written by {}{}", holder_text(.holder), waited_text(.waited))]
    Locked {
        /// The collection's folder.
        path: PathBuf,
        /// Process id of the writer, where it could be read.
        holder: Option<u32>,
        /// How long this call waited for it.
        waited: Duration,
    },
    /// Vectors of one space met a field of another.
    #[error(
        "field {field:?} holds vectors of {} (space {}); vectors of {} (space {}) can't be mixed in: use another \
         field, or another collection", .existing.model, .existing.id, .offered.model, .offered.id
    )]
    SpaceMismatch {
        /// The field.
        field: String,
        /// The space that the field was created with.
        existing: SpaceRef,
        /// The space that was offered.
        offered: SpaceRef,
    },
    /// A field exists with another dimension or metric.
    #[error("field {field:?} has {property} {existing}, not {offered}")]
    FieldMismatch {
        /// The field.
        field: String,
        /// `dimension` or `metric`.
        property: &'static str,
        /// The value that the field was created with.
        existing: String,
        /// The value that was offered.
        offered: String,
    },
    /// A field that the collection doesn't have.
    #[error("the collection has no field {field:?} (it has: {})", list_text(.known))]
    UnknownField {
        /// The name that was asked for.
        field: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// An item that the collection doesn't have.
    #[error("the collection has no item {id:?}")]
    UnknownItem {
        /// The id that was asked for.
        id: String,
    },
    /// One batch names an item twice; nothing of the batch was written.
    #[error("the id {id:?} appears twice in one batch")]
    DuplicateId {
        /// The repeated id.
        id: String,
    },
    /// One item has two vectors with the same field, part and modality; nothing of the batch was written.
    #[error("item {id:?} has two vectors for field {field:?}, part {part}, modality {modality:?}")]
    DuplicateVector {
        /// The item's id.
        id: String,
        /// The field of both vectors.
        field: String,
        /// The part of both vectors.
        part: u32,
        /// The modality of both vectors.
        modality: String,
    },
    /// A vector that can't be stored or searched for; nothing of the batch was written.
    #[error("the vector of {owner} for field {field:?} {reason}")]
    InvalidVector {
        /// `item "x"` or `query 3`.
        owner: String,
        /// The field.
        field: String,
        /// What is wrong, with the value and what was expected.
        reason: String,
    },
    /// An id, name or metadata that can't be stored; nothing of the batch was written.
    #[error("{what} {value:?} {reason}")]
    InvalidValue {
        /// What the value is, such as `item id`.
        what: &'static str,
        /// The value, shortened.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A filter that can't be evaluated.
    #[error("the filter {reason}")]
    InvalidFilter {
        /// What is wrong with it.
        reason: String,
    },
    /// A text that can't be searched for.
    #[error("the text {text:?} {reason}")]
    InvalidText {
        /// The text, shortened.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of the collection is damaged.
    #[error("{file} is damaged: {reason}")]
    Damaged {
        /// The damaged file.
        file: PathBuf,
        /// What was found and what was expected, with counts.
        reason: String,
    },
    /// A write to a store that can only be read.
    #[error("the collection {path} can't be written: {reason}")]
    ReadOnly {
        /// The collection's folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// No space is left, or a limit on file sizes was hit. The failed batch left no trace.
    #[error("no space left while writing {file}: {reason}")]
    DiskFull {
        /// The file that was being written.
        file: PathBuf,
        /// The system's message.
        reason: String,
    },
    /// Another failure of the file system.
    #[error("{file}: {source}")]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another failure of the database.
    #[error("{file}: {source}")]
    Database {
        /// The database file.
        file: PathBuf,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An operation that this store can't do.
    #[error("this store can't {operation}")]
    Unsupported {
        /// The operation.
        operation: &'static str,
    },
    /// The work was called off; what was committed before stays.
    #[error("cancelled")]
    Cancelled,
}

fn holder_text(holder: &Option<u32>) -> String {
    holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

fn waited_text(waited: &Duration) -> String {
    if waited.is_zero() {
        return String::new();
    }
    format!(" (waited {:.1} s)", waited.as_secs_f64())
}

fn list_text(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl StoreError {
    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoCollection { .. } | Self::UnknownField { .. } | Self::UnknownItem { .. } => ErrorKind::NotFound,
            Self::NotACollection { .. } => ErrorKind::NotACollection,
            Self::NewerVersion { .. } => ErrorKind::NewerVersion,
            Self::Locked { .. } => ErrorKind::Locked,
            Self::SpaceMismatch { .. } => ErrorKind::SpaceMismatch,
            Self::FieldMismatch { .. }
            | Self::DuplicateId { .. }
            | Self::DuplicateVector { .. }
            | Self::InvalidVector { .. }
            | Self::InvalidValue { .. }
            | Self::InvalidFilter { .. }
            | Self::InvalidText { .. } => ErrorKind::InvalidInput,
            Self::Damaged { .. } => ErrorKind::Damaged,
            Self::ReadOnly { .. } => ErrorKind::ReadOnly,
            Self::DiskFull { .. } => ErrorKind::DiskFull,
            Self::Io { .. } => ErrorKind::Io,
            Self::Database { .. } => ErrorKind::Database,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }

    /// Classifies a failure of the file system.
    pub(crate) fn io(file: &Path, source: io::Error) -> Self {
        let file = file.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { file, reason: source.to_string() }
            }
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                Self::ReadOnly { path: file, reason: source.to_string() }
            }
            _ => Self::Io { file, source },
        }
    }

    /// Puts a relative file name, as inner functions report it, into its collection's folder.
    pub(crate) fn in_folder(mut self, folder: &Path) -> Self {
        if let Self::Damaged { file, .. }
        | Self::DiskFull { file, .. }
        | Self::Io { file, .. }
        | Self::Database { file, .. }
        | Self::ReadOnly { path: file, .. } = &mut self
        {
            // Joining an absolute path gives that path; one that begins with the folder is whole already.
            if !file.starts_with(folder) {
                *file = folder.join(&*file);
            }
        }
        self
    }
}

impl From<rusqlite::Error> for StoreError {
    /// Classifies a failure of the database; the file's folder is filled in by the store.
    fn from(source: rusqlite::Error) -> Self {
        use rusqlite::{Error, ErrorCode};
        let (file, reason) = (PathBuf::from(DATABASE_NAME), source.to_string());
        match (&source, source.sqlite_error_code()) {
            (_, Some(ErrorCode::DiskFull)) => Self::DiskFull { file, reason },
            (_, Some(ErrorCode::ReadOnly)) => Self::ReadOnly { path: file, reason },
            (_, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
            | (Error::FromSqlConversionFailure(..) | Error::InvalidColumnType(..), _)
            | (Error::IntegralValueOutOfRange(..), _) => Self::Damaged { file, reason },
            (_, Some(ErrorCode::SystemIoFailure)) => Self::Io { file, source: io::Error::other(reason) },
            _ => Self::Database { file, source: Box::new(source) },
        }
    }
}
