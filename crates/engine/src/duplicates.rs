//! Items that are there several times: exact copies by their content, near ones by their vectors.

use std::collections::HashMap;

use crossmodal_index::near_groups;
use crossmodal_models::CancelToken;
use crossmodal_store::{Item, StoredItem};

use crate::collection::Collection;
use crate::error::{Error, Result};

/// The least cosine of near duplicates unless said otherwise.
pub const DEFAULT_THRESHOLD: f32 = 0.97;

/// Why an item is the one to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepReason {
    /// It has the most pixels.
    Resolution,
    /// Its file is the largest.
    Size,
    /// It came first.
    First,
}

/// An item of a group.
#[derive(Debug, Clone, PartialEq)]
pub struct Duplicate {
    /// The item.
    pub stored: StoredItem,
    /// The cosine to the item that is to be kept: of the two of their vectors that are nearest. 1 for exact copies.
    pub similarity: f32,
    /// Whether it has the content of the item that is to be kept.
    pub exact: bool,
}

/// Items that are copies of each other, directly or through others of the group.
#[derive(Debug, Clone, PartialEq)]
pub struct DuplicateGroup {
    /// All of them: the one to keep first, then the most similar to it.
    pub items: Vec<Duplicate>,
    /// Why the first is the one to keep.
    pub reason: KeepReason,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DuplicateReport {
    /// Items that were compared.
    pub items: usize,
    /// Groups of two and more, the largest first.
    pub groups: Vec<DuplicateGroup>,
    /// Damaged vectors that were left out.
    pub damaged: u64,
}

impl DuplicateReport {
    /// Number of items that could go if one of each group stayed.
    pub fn surplus(&self) -> usize {
        self.groups.iter().map(|group| group.items.len() - 1).sum()
    }
}

/// Groups the items of a collection that are connected by equal content, or by vectors of the default field (or the only one) whose cosine is at
/// least `threshold`, in 0..=1.
///
/// # Errors
/// A threshold out of range, a collection without vectors or with several fields and no default one, failures of the storage,
/// [`Cancelled`](crossmodal_models::Error::Cancelled).
pub fn find(collection: &Collection, threshold: f32, cancel: &CancelToken) -> Result<DuplicateReport> {
    if !(0.0..=1.0).contains(&threshold) {
        return Err(Error::Invalid(format!("the threshold is {threshold}, expected a cosine from 0 to 1")));
    }
    let field = collection.main_field()?;
    let snapshot = collection.store().snapshot()?;
    let matrix = snapshot.matrix(&field.name)?;
    cancel.check()?;
    // Items by their content: each hash and each item without one is a group that is known beforehand.
    let (mut by_content, mut group_of) = (HashMap::new(), HashMap::new());
    let mut items = 0;
    snapshot.for_each_item::<Error>(|stored| {
        let next = items;
        let group = stored.item.content_hash.map_or(next, |hash| *by_content.entry(hash).or_insert(next));
        group_of.insert(stored.key, group);
        items += 1;
        Ok(())
    })?;
    // One row of each content enters the comparison of vectors; rows of one item belong together anyway.
    let mut rows_of = HashMap::<usize, Vec<usize>>::new();
    let (mut rows, mut known) = (Vec::new(), Vec::new());
    let mut represented = HashMap::new();
    for (row, key) in &matrix.live {
        let Some(group) = group_of.get(key) else { continue };
        if represented.entry(*group).or_insert(*key) == key {
            rows_of.entry(*group).or_default().push(rows.len());
            rows.push(*row);
            known.push(*group);
        }
    }
    cancel.check()?;
    let first = near_groups(matrix.values, field.dimension, &rows, &known, threshold)
        .map_err(|error| Error::Invalid(format!("the vectors can't be compared: {error}")))?;
    cancel.check()?;
    // Contents that are near each other become one group.
    let near: HashMap<usize, usize> = known.iter().zip(&first).map(|(group, first)| (*group, known[*first])).collect();
    let final_group = |group: usize| near.get(&group).copied().unwrap_or(group);
    let mut sizes = HashMap::<usize, usize>::new();
    group_of.values().for_each(|group| *sizes.entry(final_group(*group)).or_default() += 1);
    let mut members = HashMap::<usize, Vec<(StoredItem, usize)>>::new();
    snapshot.for_each_item::<Error>(|stored| {
        if let Some(content) = group_of.get(&stored.key).copied() {
            let group = final_group(content);
            if sizes.get(&group).is_some_and(|size| *size > 1) {
                members.entry(group).or_default().push((stored, content));
            }
        }
        Ok(())
    })?;
    let row = |at: usize| &matrix.values[rows[at] as usize * field.dimension..][..field.dimension];
    let similarity = |a: usize, b: usize| {
        let none = Vec::new();
        let (a, b) = (rows_of.get(&a).unwrap_or(&none), rows_of.get(&b).unwrap_or(&none));
        let pairs = a.iter().flat_map(|a| b.iter().map(move |b| cosine(row(*a), row(*b))));
        pairs.fold(f32::NEG_INFINITY, f32::max)
    };
    let mut groups: Vec<_> = members.into_values().map(|members| arrange(members, similarity)).collect();
    groups.sort_by_key(|group| (std::cmp::Reverse(group.items.len()), group.items[0].stored.key));
    Ok(DuplicateReport { items, groups, damaged: matrix.damaged })
}

/// The item to keep first, the others by their similarity to it.
fn arrange(members: Vec<(StoredItem, usize)>, similarity: impl Fn(usize, usize) -> f32) -> DuplicateGroup {
    let merit = |item: &Item| (pixels(item), item.source.as_ref().and_then(|source| source.size));
    // Of equal merit the first one stays, which `max_by_key` would not choose.
    let best = (0..members.len()).rev().max_by_key(|at| merit(&members[*at].0.item)).unwrap_or(0);
    let (keep, keep_content) = (&members[best].0, members[best].1);
    let (resolution, size) = merit(&keep.item);
    let others =
        || members.iter().enumerate().filter(|(at, _)| *at != best).map(|(_, (stored, _))| merit(&stored.item));
    let reason = match () {
        () if resolution.is_some() && others().all(|other| other.0 < resolution) => KeepReason::Resolution,
        () if size.is_some() && others().all(|other| (other.0, other.1) < (resolution, size)) => KeepReason::Size,
        () => KeepReason::First,
    };
    let keep_key = keep.key;
    let mut items: Vec<Duplicate> = members
        .into_iter()
        .map(|(stored, content)| {
            let exact = content == keep_content;
            let similarity = if exact { 1.0 } else { similarity(content, keep_content) };
            Duplicate { stored, similarity, exact }
        })
        .collect();
    items.sort_by(|a, b| {
        let rank = |item: &Duplicate| (item.stored.key != keep_key, !item.exact);
        rank(a).cmp(&rank(b)).then(b.similarity.total_cmp(&a.similarity)).then(a.stored.key.cmp(&b.stored.key))
    });
    DuplicateGroup { items, reason }
}

/// Width times height, where the metadata tells them.
fn pixels(item: &Item) -> Option<u64> {
    let number = |key: &str| item.metadata.get(key).and_then(serde_json::Value::as_u64);
    number("width")?.checked_mul(number("height")?)
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    (dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()) as f32
}
