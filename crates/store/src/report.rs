//! What a store says about itself.

use std::collections::BTreeSet;
use std::path::PathBuf;

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
