//! Collections: items, metadata, vectors and filters, with nothing lost.
//!
//! [`VectorStore`] is the interface; [`LocalStore`] is the engine that needs nothing but a folder. The crate knows no
//! model and embeds nothing: it is handed vectors with the space they belong to and refuses to mix spaces.
//!
//! # Why the interface is synchronous
//! SQLite, file appends with `fsync` and exact search are blocking or bound by the processor, and the one writer of a
//! collection is one thread anyway. An asynchronous interface would wrap all of that in thread pools, colour every
//! caller (the command line, tests, training) and gain nothing. A client of a remote engine blocks behind this same
//! interface (its own small runtime, or a blocking HTTP client); an asynchronous server calls it from its pool of
//! blocking threads, where cancellation means "ignore the answer": every operation is one bounded batch.
//!
//! # Where metadata lives
//! With the vectors, always: an item's metadata is written by the same call, to the same engine, as its vectors, and
//! no second copy is kept anywhere. For a local store that is the folder; for a remote one it is the remote record
//! (id, key, source, content hash, modality, metadata), so that every client sees one truth and a filter is evaluated
//! where the vectors are. What an engine has no place for (settings, the fields' spaces) goes into a reserved table
//! of that same engine, never into a local file. A local folder for a remote store holds its address and nothing else.
#![forbid(unsafe_code)]

mod error;
mod field;
mod filter;
mod fuse;
mod item;
mod local;
mod report;
mod request;
mod validate;
mod vector_store;

pub use crossmodal_index::{BuildControl, IndexInfo, IndexKind, Metric};
pub use error::{ErrorKind, StoreError};
pub use field::{Field, SpaceRef};
pub use filter::{Comparison, Filter, FilterPath, FilterSyntaxError, FilterValue};
pub use fuse::{Fused, Fusion, RankedList, fuse};
pub use item::{CacheKey, CachedVector, Item, ItemVectors, Source, Span, StoredItem, StoredVector, VectorRecord};
pub use local::{BackupReport, FieldMatrix, ItemSample, ItemVector, LocalStore, Mode, OpenOptions, Searcher, Snapshot};
pub use report::{
    CollectionInfo, CompactReport, FieldInfo, IndexChoice, IndexReport, IndexState, Problem, ProblemKind, VerifyReport,
};
pub use request::{Hit, ListRequest, SearchRequest, TextHit, TextRequest};
pub use vector_store::{Capabilities, VectorStore};
