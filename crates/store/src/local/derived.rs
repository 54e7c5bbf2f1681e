//! Index files: derived data beside the vectors, never the truth.
//!
//! `indexes/<field>-<generation>.index` covers the first rows of the vector file of the same name; rows never change within a generation, so
//! that the number of rows tells up to where it is complete. What was written later is searched exactly and merged into
//! the results. A file that is missing, damaged, of another version or over other rows costs speed, never results: it is
//! told in the field's [`IndexState`] and replaced by the next [`build_index`](crate::LocalStore::build_index).

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crossmodal_index::{
    AnnIndex, AnyIndex, Container, FlatIndex, GroupedTopK, IndexError, Neighbor, SearchOptions, Selection, TopK,
    Vectors,
};
use crossmodal_kernels::MappedFile;

use super::layout::Layout;
use super::rows::FieldRow;
use super::vector_file::MappedVectors;
use crate::{IndexState, SearchRequest};

/// Rows that the name of an index's rows is made of.
const TAG_ROWS: u64 = 16;
/// Index files up to this size are compared with their checksums whenever they are opened, which takes some milliseconds;
/// larger ones by `verify`, and before they are extended.
const CHECKED_BYTES: u64 = 32 << 20;
/// Queries that an index answers at a time.
const QUERIES_AT_ONCE: usize = 20;

/// The index files of all fields, as they were found last.
#[derive(Debug, Default)]
pub(super) struct Indexes {
    found: Mutex<HashMap<i64, Found>>,
}

/// One index file.
#[derive(Debug, Clone)]
struct Found {
    generation: i64,
    identity: Identity,
    index: Result<Arc<AnyIndex>, Arc<str>>,
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    length: u64,
    modified: Option<SystemTime>,
    file: u64,
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let file = std::os::unix::fs::MetadataExt::ino(metadata);
        #[cfg(not(unix))]
        let file = 0;
        Self { length: metadata.len(), modified: metadata.modified().ok(), file }
    }
}

impl Indexes {
    /// The index of a field as its file is now; `None` where there is no file.
    fn find(&self, layout: &Layout, field: &FieldRow, vectors: &MappedVectors) -> Option<Found> {
        let path = layout.index_file(field.key, field.generation);
        let identity = match fs::metadata(&path) {
            Ok(metadata) => Identity::of(&metadata),
            Err(_) => {
                self.lock().remove(&field.key);
                return None;
            }
        };
        let known = self.lock().get(&field.key).cloned();
        let known = known.filter(|found| found.generation == field.generation && found.identity == identity);
        if known.is_some() {
            return known;
        }
        let index = open(&path, field, vectors).map_err(|error| Arc::from(error.to_string()));
        let found = Found { generation: field.generation, identity, index };
        self.lock().insert(field.key, found.clone());
        Some(found)
    }

    /// The index of a field, if there is a sound one over rows that this state has.
    pub fn get(&self, layout: &Layout, field: &FieldRow, vectors: &MappedVectors) -> Option<Arc<AnyIndex>> {
        let index = self.find(layout, field, vectors)?.index.ok()?;
        // An older state than the index was made in: its rows are not mapped.
        (index.info().rows <= vectors.rows()).then_some(index)
    }

    /// What is to be told about the index of a field.
    pub fn state(&self, layout: &Layout, field: &FieldRow, vectors: &MappedVectors) -> IndexState {
        match self.find(layout, field, vectors) {
            None => IndexState::Missing,
            Some(Found { index: Ok(index), .. }) => IndexState::Present(index.info()),
            Some(Found { index: Err(reason), .. }) => IndexState::Unusable { reason: reason.to_string() },
        }
    }

    /// Gives an index up that turned out to be damaged while it was used.
    fn give_up(&self, field: &FieldRow, error: &IndexError) {
        if let Some(found) = self.lock().get_mut(&field.key) {
            found.index = Err(Arc::from(error.to_string()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, Found>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens an index file and checks that it is over these rows.
pub(super) fn open(path: &Path, field: &FieldRow, vectors: &MappedVectors) -> Result<Arc<AnyIndex>, IndexError> {
    let map = MappedFile::open(path).map_err(|error| IndexError::Damaged { reason: error.to_string() })?;
    let container = Container::open(map)?;
    let (stamp, bytes) = (*container.stamp(), container.bytes());
    let other = |reason: &str| IndexError::OtherRows { reason: reason.to_owned() };
    if (stamp.dimension, stamp.metric) != (field.field.dimension, field.field.metric) {
        return Err(other("dimension or metric is not the field's"));
    }
    if stamp.rows > vectors.rows() {
        return Err(other("it covers more rows than there are"));
    }
    if stamp.tag != tag(field, vectors, stamp.rows) {
        return Err(other("it was made over other vectors"));
    }
    let index = Arc::new(AnyIndex::open(container)?);
    if bytes <= CHECKED_BYTES {
        index.check()?;
    }
    Ok(index)
}

/// A name for the first `rows` rows: over what they are called and over a sample of their values, so that an index that was left behind by another
/// collection in the same folder is not taken for one over these.
pub(super) fn tag(field: &FieldRow, vectors: &MappedVectors, rows: u64) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for number in [field.field.dimension as u64, field.key as u64, field.generation as u64, rows] {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(field.field.space.id.as_bytes());
    let sampled = rows.min(TAG_ROWS);
    for place in 0..sampled {
        let row = if sampled > 1 { place * (rows - 1) / (sampled - 1) } else { 0 };
        hasher.update(bytemuck::cast_slice(vectors.row(row).unwrap_or_default()));
    }
    let mut tag = [0; 16];
    hasher.finalize_xof().fill(&mut tag);
    tag
}

/// The nearest selected rows: from the index as far as there is one, and exactly from the rows behind it.
pub(super) fn search(
    indexes: &Indexes,
    layout: &Layout,
    field: &FieldRow,
    vectors: &MappedVectors,
    request: &SearchRequest,
    selection: Selection<'_>,
) -> Result<Vec<Vec<Neighbor>>, IndexError> {
    let (dimension, metric) = (field.field.dimension, field.field.metric);
    let queries: Vec<&[f32]> = request.queries.iter().map(Vec::as_slice).collect();
    let index = if request.exact { None } else { indexes.get(layout, field, vectors) };
    let Some(index) = index else {
        return FlatIndex::new(dimension, metric, &[vectors.values()])?.search(&queries, request.k, selection);
    };
    let all = Vectors::new(dimension, metric, vectors.values())?;
    let options = SearchOptions { k: request.k, effort: request.effort, selection };
    let found = match search_in_parts(&index, all, vectors, &queries, &options) {
        Err(error @ (IndexError::Damaged { .. } | IndexError::OtherRows { .. })) => {
            indexes.give_up(field, &error);
            return FlatIndex::new(dimension, metric, &[vectors.values()])?.search(&queries, request.k, selection);
        }
        found => found?,
    };
    let covered = index.info().rows;
    if covered >= all.rows() {
        return Ok(found);
    }
    let newer = &vectors.values()[covered as usize * dimension..];
    let newer = FlatIndex::new(dimension, metric, &[newer])?.numbered_from(covered);
    let newer = newer.search(&queries, request.k, selection)?;
    Ok(found.into_iter().zip(newer).map(|(old, new)| merge(old, new, request.k, selection.groups)).collect())
}

/// Searches so many queries at a time that what they read of the vectors can be given back in between.
fn search_in_parts(
    index: &AnyIndex,
    all: Vectors<'_>,
    vectors: &MappedVectors,
    queries: &[&[f32]],
    options: &SearchOptions<'_>,
) -> Result<Vec<Vec<Neighbor>>, IndexError> {
    let mut found = Vec::with_capacity(queries.len());
    for part in queries.chunks(QUERIES_AT_ONCE) {
        found.extend(index.search(all, part, options)?);
        // Besides the hits, some candidates are scored.
        vectors.note_single_reads((part.len() * (options.k + options.k / 2 + 8)) as u64);
    }
    Ok(found)
}

/// The `k` best of two lists; of several rows of a group only the best.
fn merge(old: Vec<Neighbor>, new: Vec<Neighbor>, k: usize, groups: Option<&[i64]>) -> Vec<Neighbor> {
    let both = old.into_iter().chain(new);
    let ranked = match groups {
        Some(groups) => {
            let mut top = GroupedTopK::new(k);
            both.for_each(|found| top.push(found.score, found.row, groups[found.row as usize]));
            top.into_sorted()
        }
        None => {
            let mut top = TopK::new(k);
            both.for_each(|found| top.push(found.score, found.row));
            top.into_sorted()
        }
    };
    ranked.into_iter().map(|ranked| Neighbor { row: ranked.row, score: ranked.score }).collect()
}
