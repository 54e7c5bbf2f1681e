//! Nearest-neighbour search over vectors in memory or mapped files.
//!
//! Synchronous; knows rows and scores only: no items, no SQL, no network, and no files beyond the mapped slices it is
//! handed. Scores are always "higher is better", whatever the metric.
#![forbid(unsafe_code)]

mod error;
mod flat;
mod metric;
mod row_set;
mod top_k;

pub use error::IndexError;
pub use flat::{FlatIndex, Neighbor, Selection};
pub use metric::Metric;
pub use row_set::RowSet;
pub use top_k::{GroupedTopK, Ranked, TopK};
