//! Nearest-neighbour search over vectors in memory or mapped files.
//!
//! Synchronous; knows rows and scores only: no items, no SQL, no network, no paths. What is saved is written to a `Write` and read from a
//! mapped file that is handed in. Scores are always "higher is better", whatever the metric.
#![forbid(unsafe_code)]

mod ann;
mod container;
mod error;
mod flat;
mod metric;
mod near_groups;
mod row_set;
mod top_k;

pub use ann::{AnnIndex, IndexInfo, IndexKind, SearchOptions, Vectors};
pub use container::{Container, ContainerWriter, Stamp};
pub use error::IndexError;
pub use flat::{FlatIndex, Neighbor, Selection};
pub use metric::Metric;
pub use near_groups::near_groups;
pub use row_set::RowSet;
pub use top_k::{GroupedTopK, Ranked, TopK};
