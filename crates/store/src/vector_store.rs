//! The interface of every store.

use std::collections::HashMap;

use crate::{
    CacheKey, CachedVector, CollectionInfo, CompactReport, Field, Filter, Hit, Item, ItemVectors, ListRequest,
    SearchRequest, StoreError, StoredItem, StoredVector, TextHit, TextRequest, VectorRecord, VerifyReport,
};

/// What a store can do beyond the interface's minimum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// A batch is written completely or not at all.
    pub atomic_batches: bool,
    /// Every search sees one committed state, even while another process writes.
    pub snapshot_reads: bool,
    /// [`SearchRequest::exact`] is honoured; other searches may be approximate where an index exists.
    pub exact_search: bool,
    /// Filters are evaluated, with the rules of [`Filter`].
    pub filters: bool,
    /// [`VectorStore::search_text`] works.
    pub full_text: bool,
    /// Vectors of removed items can be found by cache key until the next compaction.
    pub vector_cache: bool,
    /// [`VectorStore::verify`] works.
    pub verify: bool,
    /// [`VectorStore::compact`] works.
    pub compact: bool,
    /// The largest dimension of a field.
    pub max_dimension: usize,
}

/// A collection: items with metadata and any number of vectors, found by id, source, filter or nearness.
///
/// Every method is safe to call from several threads. Writing methods take effect completely or not at all, and what
/// they acknowledged by returning `Ok` survives a crash of the program and of the machine.
pub trait VectorStore: Send + Sync {
    /// What the store can do.
    fn capabilities(&self) -> Capabilities;

    /// The collection's state.
    ///
    /// # Errors
    /// Failures of the storage only.
    fn info(&self) -> Result<CollectionInfo, StoreError>;

    /// The fields, in the order of their creation.
    ///
    /// # Errors
    /// Failures of the storage only.
    fn fields(&self) -> Result<Vec<Field>, StoreError>;

    /// Creates a field, or confirms that it exists just so.
    ///
    /// # Errors
    /// `SpaceMismatch` when it exists with another space, `FieldMismatch` with another dimension or metric,
    /// `InvalidValue` for a name or dimension out of range.
    fn ensure_field(&self, field: &Field) -> Result<(), StoreError>;

    /// Adds items, or replaces those that exist with *all* of their vectors, as one transaction. Returns the keys.
    ///
    /// # Errors
    /// `DuplicateId`, `DuplicateVector`, `UnknownField`, `SpaceMismatch`, `InvalidVector` or `InvalidValue` before
    /// anything is written; `DiskFull`, `ReadOnly` and other failures of the storage. Nothing of the batch is kept.
    fn upsert(&self, batch: &[ItemVectors]) -> Result<Vec<i64>, StoreError>;

    /// Replaces the vectors of existing items in the fields that each list names, and leaves their other fields and
    /// everything else alone: how a second space is filled. One transaction.
    ///
    /// # Errors
    /// As [`upsert`](Self::upsert), and `UnknownItem`.
    fn put_vectors(&self, batch: &[(String, Vec<VectorRecord>)]) -> Result<(), StoreError>;

    /// Replaces everything but the vectors of those of the items that exist (a rename, new metadata), as one
    /// transaction. Returns how many existed.
    ///
    /// # Errors
    /// `DuplicateId`, `InvalidValue`, and failures of the storage.
    fn touch(&self, items: &[Item]) -> Result<usize, StoreError>;

    /// Forgets items and their vectors, as one transaction. Returns how many existed.
    ///
    /// # Errors
    /// Failures of the storage only.
    fn remove(&self, ids: &[String]) -> Result<usize, StoreError>;

    /// Items by id, in the order asked for; `None` for those that don't exist.
    ///
    /// # Errors
    /// Failures of the storage only.
    fn get(&self, ids: &[String]) -> Result<Vec<Option<StoredItem>>, StoreError>;

    /// Items by key, in the order asked for; `None` for those that don't exist. A key is never given to another item.
    ///
    /// # Errors
    /// Failures of the storage only.
    fn get_by_key(&self, keys: &[i64]) -> Result<Vec<Option<StoredItem>>, StoreError>;

    /// All vectors of one item, ordered by field, part and modality; empty when it doesn't exist.
    ///
    /// # Errors
    /// `Damaged` when a vector isn't what was written, and failures of the storage.
    fn vectors(&self, id: &str) -> Result<Vec<StoredVector>, StoreError>;

    /// Vectors by cache key, so that identical content is never embedded twice. A vector can be found from the commit
    /// that wrote it for as long as its item has it, and after its removal or replacement until the next compaction.
    /// Damaged vectors are never returned.
    ///
    /// # Errors
    /// Failures of the storage only.
    fn cached_vectors(&self, keys: &[CacheKey]) -> Result<HashMap<CacheKey, CachedVector>, StoreError>;

    /// Items whose source has exactly this uri, in the order of their keys (several parts of one file may be items).
    ///
    /// # Errors
    /// Failures of the storage only.
    fn lookup_source(&self, uri: &str) -> Result<Vec<StoredItem>, StoreError>;

    /// A page of items, in the order of their keys.
    ///
    /// # Errors
    /// `InvalidFilter`, and failures of the storage.
    fn list(&self, request: &ListRequest) -> Result<Vec<StoredItem>, StoreError>;

    /// Number of items that satisfy a filter, or of all.
    ///
    /// # Errors
    /// `InvalidFilter`, and failures of the storage.
    fn count(&self, filter: Option<&Filter>) -> Result<u64, StoreError>;

    /// The nearest items for each query: best first, one hit an item (its best vector), equal scores in the order in
    /// which the vectors were written. Fewer than `k` only when fewer items match. Scores are exact; which items are found may be approximate
    /// unless the request is exact.
    ///
    /// # Errors
    /// `UnknownField`, `SpaceMismatch`, `InvalidVector` (a query), `InvalidFilter`, and failures of the storage.
    fn search(&self, request: &SearchRequest) -> Result<Vec<Vec<Hit>>, StoreError>;

    /// At most `count` vectors of a field, spread evenly over all of them: the same ones for the same state. Damaged vectors
    /// are left out.
    ///
    /// # Errors
    /// `UnknownField`, and failures of the storage.
    fn sample(&self, field: &str, count: usize) -> Result<Vec<StoredVector>, StoreError>;

    /// The items whose names, captions and other texts have the words that are asked for: best first, equal scores in
    /// the order of their keys.
    ///
    /// # Errors
    /// `InvalidText` for too much text, `InvalidFilter`, `Unsupported`, and failures of the storage.
    fn search_text(&self, request: &TextRequest) -> Result<Vec<TextHit>, StoreError>;

    /// A setting of the collection; `None` when it was never set.
    ///
    /// # Errors
    /// Failures of the storage only.
    fn setting(&self, name: &str) -> Result<Option<serde_json::Value>, StoreError>;

    /// Stores a setting.
    ///
    /// # Errors
    /// Failures of the storage only.
    fn set_setting(&self, name: &str, value: &serde_json::Value) -> Result<(), StoreError>;

    /// Checks everything against everything and reports what is wrong.
    ///
    /// # Errors
    /// Failures that keep the check from running; damage is reported, not returned as an error.
    fn verify(&self) -> Result<VerifyReport, StoreError>;

    /// Drops the vectors of removed and replaced items and gives their space back. Readers keep working.
    ///
    /// # Errors
    /// `DiskFull` (both copies exist for a moment), `Unsupported`, and other failures of the storage; the collection
    /// is then as it was.
    fn compact(&self) -> Result<CompactReport, StoreError>;
}
