//! What every approximate index has in common: rows it was built over, options of a search, and the [`AnnIndex`] trait.
//!
//! An index is built over the first rows of a matrix that only ever grows (the committed rows of a vector file) and never holds
//! the truth: it finds candidates by its own compact codes, and their scores are computed from the rows themselves, so that every score it
//! returns is the exact one. Rows that came later are not its business (the caller scans them), and rows that died are left out through
//! [`Selection::allowed`].

use std::fmt;
use std::str::FromStr;

use crossmodal_kernels::distance;

use crate::{IndexError, Metric, Neighbor, Selection};

/// Row-major rows, as they lie in memory or in a mapped file.
#[derive(Debug, Clone, Copy)]
pub struct Vectors<'a> {
    dimension: usize,
    metric: Metric,
    values: &'a [f32],
}

impl<'a> Vectors<'a> {
    /// Rows of `dimension` values each. For [`Metric::Cosine`] they must be unit vectors.
    ///
    /// # Errors
    /// A dimension of zero, or values that are no whole number of rows.
    pub fn new(dimension: usize, metric: Metric, values: &'a [f32]) -> Result<Self, IndexError> {
        if dimension == 0 {
            return Err(IndexError::ZeroDimension);
        }
        if !values.len().is_multiple_of(dimension) {
            return Err(IndexError::RaggedBlock { block: 0, length: values.len(), dimension });
        }
        Ok(Self { dimension, metric, values })
    }

    /// Values per row.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// The metric.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// Number of rows.
    pub fn rows(&self) -> u64 {
        (self.values.len() / self.dimension) as u64
    }

    /// All values.
    pub fn values(&self) -> &'a [f32] {
        self.values
    }

    /// One row.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, row: u64) -> &'a [f32] {
        &self.values[row as usize * self.dimension..][..self.dimension]
    }

    /// The first `rows` rows, or all where there are fewer.
    #[must_use]
    pub fn prefix(&self, rows: u64) -> Self {
        Self { values: &self.values[..self.rows().min(rows) as usize * self.dimension], ..*self }
    }

    /// The exact score of a prepared query with a row: the same, bit for bit, as [`FlatIndex`](crate::FlatIndex) gives.
    pub fn score(&self, query: &[f32], row: u64) -> f32 {
        self.metric.score(self.row(row), query)
    }

    /// Checks queries and brings them into the form that rows are compared with: unit length for [`Metric::Cosine`].
    ///
    /// # Errors
    /// A query of the wrong dimension or with values that can't be compared.
    pub fn prepare(&self, queries: &[&[f32]]) -> Result<Vec<Vec<f32>>, IndexError> {
        prepare_queries(self.dimension, self.metric, queries)
    }
}

/// As [`Vectors::prepare`].
pub(crate) fn prepare_queries(
    dimension: usize,
    metric: Metric,
    queries: &[&[f32]],
) -> Result<Vec<Vec<f32>>, IndexError> {
    let prepare = |(query, values): (usize, &&[f32])| {
        if values.len() != dimension {
            return Err(IndexError::QueryDimension { query, found: values.len(), expected: dimension });
        }
        if !values.iter().all(|value| value.is_finite()) {
            return Err(IndexError::QueryValue { query, reason: "it has a NaN or an infinite value" });
        }
        let mut values = values.to_vec();
        if metric == Metric::Cosine {
            let length = distance::normalize(&mut values);
            if !(length > 0.0 && length.is_finite()) {
                return Err(IndexError::QueryValue { query, reason: "it has no direction (length 0 or infinite)" });
            }
        }
        Ok(values)
    };
    queries.iter().enumerate().map(prepare).collect()
}

/// The kinds of indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IndexKind {
    /// Every row is scored: exact.
    Flat,
    /// A graph of near neighbours is walked.
    Graph,
    /// Rows are kept in cells around centres, the nearest cells are scanned.
    Ivf,
}

impl IndexKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Flat, Self::Graph, Self::Ivf];

    /// The stable name: `flat`, `graph` or `ivf`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::Graph => "graph",
            Self::Ivf => "ivf",
        }
    }
}

impl fmt::Display for IndexKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for IndexKind {
    type Err = IndexError;

    fn from_str(text: &str) -> Result<Self, IndexError> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| IndexError::UnknownKind(text.to_owned()))
    }
}

/// How a search is done.
#[derive(Debug, Clone, Copy, Default)]
pub struct SearchOptions<'a> {
    /// Number of results.
    pub k: usize,
    /// How much is looked at: more finds more of the true neighbours and takes longer. A graph keeps so many candidates, an IVF index
    /// scans so many cells. The index's own default when absent.
    pub effort: Option<usize>,
    /// Which rows take part, and what counts as one result.
    pub selection: Selection<'a>,
}

/// What an index can tell about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexInfo {
    /// Its kind.
    pub kind: IndexKind,
    /// The rows it covers: the first so many.
    pub rows: u64,
    /// Bytes of its own data, without the rows.
    pub bytes: u64,
    /// The effort of a search that names none.
    pub default_effort: usize,
    /// Its parameters in words, such as `degree 32, build effort 128, int8 codes`.
    pub parameters: String,
}

/// An approximate index over the first rows of a growing matrix.
pub trait AnnIndex: Send + Sync + fmt::Debug {
    /// Its kind, size and parameters.
    fn info(&self) -> IndexInfo;

    /// The nearest selected rows for each query among the rows that it covers, best first, equal scores in the order of rows, with exact
    /// scores. `vectors` are the rows it was built over, possibly followed by newer ones, which are not looked at.
    /// Which rows are found is approximate; fewer than `k` are returned only when fewer rows (or groups) are selected.
    ///
    /// # Errors
    /// A query of the wrong dimension or with values that can't be compared, rows of another shape than it was built over, too few groups.
    fn search(
        &self,
        vectors: Vectors<'_>,
        queries: &[&[f32]],
        options: &SearchOptions<'_>,
    ) -> Result<Vec<Vec<Neighbor>>, IndexError>;

    /// Reads all of its data and compares it with its checksums.
    ///
    /// # Errors
    /// `Damaged` with what is wrong.
    fn check(&self) -> Result<(), IndexError>;
}

/// How the work of building is done, watched and called off.
pub struct BuildControl<'a> {
    /// Threads; 0 is one per core.
    pub threads: usize,
    /// Called now and then with how many rows are done, of how many.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
    /// Asked now and then; once it is true the work ends with `Cancelled`.
    pub cancelled: &'a (dyn Fn() -> bool + Sync),
}

impl Default for BuildControl<'_> {
    /// All cores, nobody watching, not to be called off.
    fn default() -> Self {
        Self { threads: 0, progress: &|_, _| {}, cancelled: &|| false }
    }
}

impl fmt::Debug for BuildControl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuildControl").field("threads", &self.threads).finish_non_exhaustive()
    }
}
