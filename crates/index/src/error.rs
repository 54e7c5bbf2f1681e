//! What can be wrong with a search: shapes and values, never the environment.

use thiserror::Error;

/// Why an index refused a call. Nothing is computed when one of these is returned.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IndexError {
    /// A dimension of zero.
    #[error("the dimension of an index must be at least 1")]
    ZeroDimension,
    /// A block whose length isn't a whole number of rows.
    #[error("block {block} holds {length} values, which is not a multiple of the dimension {dimension}")]
    RaggedBlock {
        /// Position of the block in the list.
        block: usize,
        /// Number of values in it.
        length: usize,
        /// Values per row.
        dimension: usize,
    },
    /// A query of another dimension than the rows.
    #[error("query {query} has {found} dimensions, the index has {expected}")]
    QueryDimension {
        /// Position of the query in the list.
        query: usize,
        /// Its length.
        found: usize,
        /// The length of a row.
        expected: usize,
    },
    /// A query with a NaN or an infinite value, or a zero query under the cosine metric.
    #[error("query {query} can't be compared: {reason}")]
    QueryValue {
        /// Position of the query in the list.
        query: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A list of groups that is shorter than the index.
    #[error("{found} groups were given for {expected} rows")]
    GroupCount {
        /// Groups given.
        found: u64,
        /// Rows in the index.
        expected: u64,
    },
    /// A metric name that isn't known.
    #[error("{0:?} is not a metric, expected \"cosine\", \"inner_product\" or \"euclidean\"")]
    UnknownMetric(String),
    /// A name of an index kind that isn't known.
    #[error("{0:?} is not a kind of index, expected \"flat\", \"graph\" or \"ivf\"")]
    UnknownKind(String),
    /// The data of an index isn't what was written, or not in a form that this program knows. The rows themselves are not concerned.
    #[error("the index is damaged or of another version: {reason}")]
    Damaged {
        /// What is wrong.
        reason: String,
    },
    /// An index was asked about rows that it was not built over.
    #[error("the index is over other rows: {reason}")]
    OtherRows {
        /// What differs.
        reason: String,
    },
    /// An option out of its range.
    #[error("{option} is {found}, expected {expected}")]
    Option {
        /// Its name.
        option: &'static str,
        /// Its value.
        found: usize,
        /// What is accepted.
        expected: &'static str,
    },
    /// The work was called off.
    #[error("cancelled")]
    Cancelled,
}
