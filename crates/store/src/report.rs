//! What a store says about itself.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crossmodal_index::IndexInfo;
use serde::{Deserialize, Serialize};

use crate::Field;

/// A collection at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectionInfo {
    /// The folder, or the address of a remote engine.
    pub location: String,
    /// Version of the on-disk format.
    pub format_version: i64,
    /// Number of the last committed change; it rises with every batch. Derived data records up to which it is complete.
    pub change: u64,
    /// Number of items.
    pub items: u64,
    /// The fields in the order of their creation.
    pub fields: Vec<FieldInfo>,
    /// Bytes of everything in the folder.
    pub bytes: u64,
}

/// One field at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldInfo {
    /// The field.
    pub field: Field,
    /// Vectors of present items.
    pub vectors: u64,
    /// Vectors of removed or replaced items, kept as a cache until the next compaction.
    pub dead_vectors: u64,
    /// Bytes of its vector file.
    pub bytes: u64,
    /// Its index.
    pub index: IndexState,
}

/// What is known of the index of a field, which makes searches faster and is never the truth.
#[derive(Debug, Clone, PartialEq)]
pub enum IndexState {
    /// There is none: searches compare every vector.
    Missing,
    /// It is used; vectors behind the rows that it covers are searched exactly and merged in.
    Present(IndexInfo),
    /// Its file can't be used; searches compare every vector until it is built again.
    Unusable {
        /// Why.
        reason: String,
    },
}

/// Which kind of index a field gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexChoice {
    /// By the number of vectors and the machine's memory: exact while they are few, then a graph, cells when a graph doesn't fit.
    #[default]
    Auto,
    /// No index: every vector is compared.
    Exact,
    /// Every vector is compared by an int8 code, the best ones exactly.
    Flat,
    /// A graph of near neighbours.
    Graph,
    /// Cells around centres, with compact codes.
    Ivf,
}

/// What building an index came to.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexReport {
    /// What was asked for.
    pub choice: IndexChoice,
    /// The index now; `Missing` when exact search was chosen.
    pub state: IndexState,
    /// Vectors that it covers now and didn't before.
    pub added: u64,
    /// Seconds.
    pub seconds: f64,
    /// Why an earlier file was given up, where it was.
    pub replaced: Option<String>,
}

/// The class of a [`Problem`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The database fails its own check.
    Database,
    /// A vector file is missing, or its header is wrong.
    VectorFile,
    /// A vector file is shorter than the rows that name it.
    MissingRow,
    /// A vector's checksum isn't the recorded one.
    Checksum,
    /// A vector has a NaN or an infinite value.
    NotFinite,
    /// Rows and counts contradict each other.
    Dangling,
    /// An index isn't what was written. Nothing is lost: it is built again from the vectors.
    Index,
    /// What is derived from the items, for filters and full text, isn't what they give. Nothing is lost: repairing makes
    /// it anew.
    Derived,
}

/// One thing that is wrong with a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its class.
    pub kind: ProblemKind,
    /// The file.
    pub file: PathBuf,
    /// The field, where one is affected.
    pub field: Option<String>,
    /// The item, where one is affected (a damaged vector of a removed item affects none).
    pub item: Option<String>,
    /// What was found and what was expected.
    pub detail: String,
}

/// The result of a full check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Items checked.
    pub items: u64,
    /// Vectors of present items checked.
    pub vectors: u64,
    /// Vectors kept as a cache that were checked.
    pub dead_vectors: u64,
    /// Everything that is wrong; empty for a sound collection.
    pub problems: Vec<Problem>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Ids of the items that are affected, sorted. Removing and adding them again heals them.
    pub fn affected_items(&self) -> Vec<String> {
        let ids: BTreeSet<_> = self.problems.iter().filter_map(|problem| problem.item.clone()).collect();
        ids.into_iter().collect()
    }
}

/// What a compaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompactReport {
    /// Dead vectors that were dropped.
    pub dropped_vectors: u64,
    /// Bytes of the folder before.
    pub bytes_before: u64,
    /// Bytes of the folder after.
    pub bytes_after: u64,
}
