//! Moving a collection into the space of another model, without a pause and without losing the way back.
//!
//! The new vectors fill a second field beside the first, from the same files. Searches go on in the first until all items are there;
//! then one transaction makes the second the active one. An interrupted migration goes on where it was. The first field
//! stays, so that [`roll_back`] is one transaction too, until [`finish`] drops it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use crossmodal_models::{CancelToken, Embedder};
use crossmodal_store::{BuildControl, ListRequest, SearchRequest, StoredItem, VectorStore};

use crate::collection::{Collection, DEFAULT_FIELD, Space, Spaces, Target, space_of};
use crate::error::{Error, Result};
use crate::files::{self, Found};
use crate::ingest::{self, Events, Skipped};

/// Neighbours that are compared between the two spaces.
pub const OVERLAP_AT: usize = 10;
/// Items whose neighbours are compared.
const OVERLAP_ITEMS: usize = 200;
/// Items that are listed at a time.
const PAGE: usize = 10_000;

/// How a migration is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// Pictures that are embedded and committed together.
    pub batch_size: usize,
    /// Threads that read and decode; 0 is one per core.
    pub threads: usize,
    /// Whether the new space becomes the active one when it is complete.
    pub switch: bool,
    /// Whether that happens although items are missing from it, which searches won't find any more.
    pub allow_missing: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { batch_size: 32, threads: 0, switch: true, allow_missing: false }
    }
}

/// How alike the two spaces see the collection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Overlap {
    /// Mean share of the [`OVERLAP_AT`] nearest items that an item has in both spaces, 0..=1.
    pub mean: f64,
    /// Items that were compared.
    pub items: usize,
}

/// What came of a migration.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The model of the space before; `None` when the collection was empty of spaces.
    pub from: Option<String>,
    /// The model of the new space.
    pub to: String,
    /// Items of the collection.
    pub items: u64,
    /// Items that the new space had before this run.
    pub before: u64,
    /// Items embedded by this run.
    pub embedded: usize,
    /// Items that took a vector that was there already, of identical content.
    pub reused: usize,
    /// Items that are missing from the new space, with reasons, in order of path.
    pub missing: Vec<Skipped>,
    /// Comparison of the two spaces; `None` before the new one is complete, or with too few items.
    pub overlap: Option<Overlap>,
    /// Whether the new space is the active one now.
    pub switched: bool,
    /// Whether the work was called off; the same call goes on from there.
    pub cancelled: bool,
}

/// Embeds every item again with `model` into a second field, reports how alike the spaces are, and switches.
///
/// # Errors
/// The collection is in the model's space already, no item has a file, failures of the storage or of the model as a whole. An item
/// that can't be embedded is no error: it is listed in the report, and keeps the switch from happening unless that is allowed.
pub fn run(
    collection: &Collection,
    model: &Arc<dyn Embedder>,
    options: &Options,
    events: &Events,
    cancel: &CancelToken,
) -> Result<Report> {
    let space = space_of(model.as_ref())?;
    let active = collection.field()?;
    let fields = collection.store().fields()?;
    if !fields.iter().any(|field| field.name == active) {
        return Err(Error::Invalid("the collection has no vectors yet: `crossmodal index` with the new model".into()));
    }
    let field = match fields.iter().find(|field| field.space.id == space.id) {
        Some(field) if field.name == active => {
            let name = &model.info().name;
            return Err(Error::Invalid(format!("the collection is in the space of {name} already")));
        }
        Some(field) => field.name.clone(),
        None => new_name(&fields.iter().map(|field| field.name.as_str()).collect()),
    };
    let from = collection.model_name()?;
    let target = collection.target(field, model.as_ref())?;
    let items = collection.info()?.items;
    let (paths, mut missing) = left_to_do(collection, &target)?;
    let before = items.saturating_sub((paths.len() + missing.len()) as u64);
    let request = ingest::Request {
        batch_size: options.batch_size,
        threads: options.threads,
        ..ingest::Request::new(Vec::new())
    };
    let found = Found { files: paths, ..Found::default() };
    let report = ingest::run_into(collection, model, &target, &request, &found, events, cancel)?;
    missing.extend(report.skipped);
    missing.sort_by(|a, b| a.path.cmp(&b.path));
    let mut report = Report {
        from: from.clone(),
        to: model.info().reference.clone(),
        items,
        before,
        embedded: report.progress.embedded,
        reused: report.progress.reused,
        missing,
        overlap: None,
        switched: false,
        cancelled: report.cancelled,
    };
    if report.cancelled {
        return Ok(report);
    }
    if collection.store().index_is_due(&target.field)? {
        let cancelled = || cancel.is_cancelled();
        collection.store().build_index(
            &target.field,
            false,
            &BuildControl { cancelled: &cancelled, ..BuildControl::default() },
        )?;
    }
    report.overlap = overlap(collection, &active, &target.field)?;
    if options.switch && (report.missing.is_empty() || options.allow_missing) {
        let previous = Space { field: active, model: from.unwrap_or_default() };
        let active = Space { field: target.field, model: report.to.clone() };
        collection.set_spaces(&Spaces { active, previous: Some(previous) })?;
        report.switched = true;
    }
    Ok(report)
}

/// Makes the space before the last switch the active one again. Returns the models of the space that was active and of the one that is now.
///
/// # Errors
/// There is no earlier space, or failures of the storage.
pub fn roll_back(collection: &Collection) -> Result<(String, String)> {
    let Some(Spaces { active, previous: Some(previous) }) = collection.spaces()? else {
        return Err(Error::Invalid("there is no earlier space to go back to".into()));
    };
    let models = (active.model.clone(), previous.model.clone());
    collection.set_spaces(&Spaces { active: previous, previous: Some(active) })?;
    Ok(models)
}

/// Drops the vectors of every space but the active one. Returns how many there were.
///
/// # Errors
/// Failures of the storage.
pub fn finish(collection: &Collection) -> Result<u64> {
    let active = collection.field()?;
    let mut dropped = 0;
    if let Some(spaces) = collection.spaces()? {
        // Forgotten first: a setting must not name a field that isn't there.
        collection.set_spaces(&Spaces { previous: None, ..spaces })?;
    }
    for field in collection.store().fields()? {
        if field.name != active {
            dropped += collection.store().drop_field(&field.name)?;
        }
    }
    Ok(dropped)
}

/// A name that no field has.
fn new_name(taken: &BTreeSet<&str>) -> String {
    let mut number = 2;
    loop {
        let name = format!("{DEFAULT_FIELD}-{number}");
        if !taken.contains(name.as_str()) {
            return name;
        }
        number += 1;
    }
}

/// The files of the items that have no vector in the field yet, and the items that have no file.
fn left_to_do(collection: &Collection, target: &Target) -> Result<(Vec<PathBuf>, Vec<Skipped>)> {
    let (mut paths, mut without) = (Vec::new(), Vec::new());
    let mut request =
        ListRequest { without_field: Some(target.field.clone()), limit: Some(PAGE), ..ListRequest::default() };
    loop {
        let page = collection.store().list(&request)?;
        let Some(last) = page.last() else { return Ok((paths, without)) };
        request.after = Some(last.key);
        for StoredItem { item, .. } in page {
            // What the pipeline makes of a file must be this item and no other.
            match item.source.filter(|source| source.uri == item.id) {
                Some(source) => paths.push(files::path(&source.uri)),
                None => {
                    let reason = "it was not made from a file, so that it can't be embedded again".to_owned();
                    without.push(Skipped { path: item.id.into(), reason });
                }
            }
        }
    }
}

/// Compares the neighbours of items, evenly chosen, in two fields.
fn overlap(collection: &Collection, old: &str, new: &str) -> Result<Option<Overlap>> {
    let (mut olds, mut news, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    for id in evenly_chosen(collection)? {
        let vectors = collection.store().vectors(&id)?;
        let find =
            |field: &str| vectors.iter().find(|vector| vector.field == field).map(|vector| vector.vector.clone());
        if let (Some(old), Some(new)) = (find(old), find(new)) {
            olds.push(old);
            news.push(new);
            ids.push(id);
        }
    }
    if ids.len() <= OVERLAP_AT {
        return Ok(None);
    }
    let neighbours = |field: &str, queries: Vec<Vec<f32>>| -> Result<Vec<BTreeSet<String>>> {
        let request = SearchRequest { queries, ..SearchRequest::new(field, Vec::new(), OVERLAP_AT + 1) };
        let lists = collection.store().search(&request)?.into_iter().zip(&ids);
        Ok(lists
            .map(|(hits, own)| {
                let others = hits.into_iter().map(|hit| hit.item.id).filter(|id| id != own);
                others.take(OVERLAP_AT).collect()
            })
            .collect())
    };
    let (olds, news) = (neighbours(old, olds)?, neighbours(new, news)?);
    let shares = olds.iter().zip(&news).map(|(old, new)| old.intersection(new).count() as f64 / OVERLAP_AT as f64);
    Ok(Some(Overlap { mean: shares.sum::<f64>() / ids.len() as f64, items: ids.len() }))
}

fn evenly_chosen(collection: &Collection) -> Result<Vec<String>> {
    let items = collection.info()?.items as usize;
    let step = items.div_ceil(OVERLAP_ITEMS).max(1);
    let (mut chosen, mut seen) = (Vec::new(), 0);
    let mut request = ListRequest { limit: Some(PAGE), ..ListRequest::default() };
    loop {
        let page = collection.store().list(&request)?;
        let Some(last) = page.last() else { return Ok(chosen) };
        request.after = Some(last.key);
        for stored in page {
            if seen % step == 0 {
                chosen.push(stored.item.id);
            }
            seen += 1;
        }
    }
}
