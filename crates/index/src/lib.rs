//! Nearest-neighbour search over vectors in memory or mapped files.
//!
//! Synchronous; knows rows and scores only: no items, no SQL, no network, no paths. What is saved is written to a `Write` and read from a
//! mapped file that is handed in. Scores are always "higher is better", whatever the metric.
#![forbid(unsafe_code)]

mod ann;
mod any;
mod candidates;
mod container;
mod error;
mod flat;
mod graph;
mod ivf;
mod metric;
mod near_groups;
mod principal;
mod row_set;
#[cfg(test)]
mod testing;
mod top_k;

pub use ann::{AnnIndex, BuildControl, IndexInfo, IndexKind, SearchOptions, Vectors};
pub use any::AnyIndex;
pub use container::{Container, ContainerWriter, Stamp};
pub use error::IndexError;
pub use flat::{CodedRows, FlatIndex, Neighbor, RowCodes, Selection};
pub use graph::{Graph, GraphOptions};
pub use ivf::{CellCodes, Ivf, IvfOptions};
pub use metric::Metric;
pub use near_groups::near_groups;
pub use row_set::RowSet;
pub use top_k::{GroupedTopK, Ranked, TopK};
