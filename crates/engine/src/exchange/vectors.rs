//! `.npy` vectors with optional ids and metadata as a source of rows.

use std::path::PathBuf;

use crossmodal_models::CancelToken;
use crossmodal_store::Metric;

use super::import::{ImportReport, RowSource, Rows, Rules, run};
use super::lines::MetadataLines;
use super::npy::NpyReader;
use crate::collection::Collection;
use crate::error::{Error, Result};

/// Vectors that were computed elsewhere.
#[derive(Debug, Clone)]
pub struct VectorImport {
    /// `.npy`: f16, f32 or f64 of shape (n, dimension), C order.
    pub vectors: PathBuf,
    /// `.npy` of n integers or texts; the rows' numbers from 0 when absent.
    pub ids: Option<PathBuf>,
    /// JSON lines. Objects with an `id` belong to the row of that id, others to the rows in order: then there must be n.
    pub metadata: Option<PathBuf>,
    /// How vectors are compared. It is fixed by the first import into a collection.
    pub metric: Metric,
    /// Rows that are written and synced together, at least 1.
    pub batch_size: usize,
    /// Whether a row that can't be imported, or metadata without a row, is a failure; nothing is imported then. Otherwise such rows are
    /// passed over and named.
    pub strict: bool,
}

impl VectorImport {
    /// Checks that all files can be read and fit each other, as far as that shows before their rows are read: what can't be imported
    /// needs no collection.
    ///
    /// # Errors
    /// A file that can't be read, or that contradicts another one.
    pub fn check(&self) -> Result<()> {
        VectorRows::open(self).map(drop)
    }
}

/// Imports vectors into a collection without a model. Items that are there just so are left alone, so that the same import goes on
/// where it was interrupted.
///
/// # Errors
/// A collection that holds embeddings of a model, or vectors of another dimension or metric; files that can't be read or contradict
/// each other; with `strict`, the first row that can't be imported; failures of the storage.
pub fn import_vectors(
    collection: &Collection,
    import: &VectorImport,
    progress: &mut dyn FnMut(usize, usize),
    cancel: &CancelToken,
) -> Result<ImportReport> {
    let rules = Rules {
        metric: import.metric,
        modality: "vector",
        batch_size: import.batch_size.max(1),
        strict: import.strict,
    };
    run(collection, &rules, || VectorRows::open(import), progress, cancel)
}

struct VectorRows {
    vectors: NpyReader,
    ids: Option<NpyReader>,
    metadata: Option<MetadataLines>,
    next: usize,
}

impl VectorRows {
    fn open(import: &VectorImport) -> Result<Self> {
        let vectors = NpyReader::open(&import.vectors)?;
        if !vectors.holds_floats() {
            return Err(Error::file(vectors.path(), "holds no floating-point numbers, expected f16, f32 or f64"));
        }
        let ids = import.ids.as_deref().map(NpyReader::open).transpose()?;
        if let Some(ids) = ids.as_ref().filter(|ids| ids.rows() != vectors.rows() || ids.columns() != 1) {
            let found = format!("has shape ({}, {})", ids.rows(), ids.columns());
            let reason = format!("{found}, expected one id for each of the {} vectors", vectors.rows());
            return Err(Error::file(ids.path(), reason));
        }
        let metadata = import.metadata.as_deref().map(|path| MetadataLines::open(path, vectors.rows())).transpose()?;
        Ok(Self { vectors, ids, metadata, next: 0 })
    }
}

impl RowSource for VectorRows {
    fn rows(&self) -> usize {
        self.vectors.rows()
    }

    fn dimension(&self) -> usize {
        self.vectors.columns()
    }

    fn next(&mut self, count: usize) -> Result<Rows> {
        let count = count.min(self.vectors.rows() - self.next);
        let values = self.vectors.floats(count)?;
        let ids = match &mut self.ids {
            Some(ids) => ids.texts(count)?,
            None => (self.next..self.next + count).map(|row| row.to_string()).collect(),
        };
        self.next += count;
        let metadata = match &mut self.metadata {
            Some(lines) => ids.iter().map(|id| lines.of(id)).collect::<Result<_>>()?,
            None => vec![serde_json::Map::new(); count],
        };
        Ok(Rows { ids, metadata, sources: vec![None; count], values })
    }

    fn unmatched_metadata(&self) -> usize {
        self.metadata.as_ref().map_or(0, MetadataLines::unmatched)
    }
}
