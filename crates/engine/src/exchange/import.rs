//! Rows of vectors with ids and metadata into a collection without a model, batch by batch.

use std::collections::HashSet;
use std::time::Instant;

use crossmodal_models::CancelToken;
use crossmodal_store::{
    Field, Item, ItemVectors, ListRequest, Metric, Source, SpaceRef, StoreError, VectorRecord, VectorStore,
};
use serde_json::{Map, Value};

use super::EXTERNAL;
use crate::collection::Collection;
use crate::error::{Error, Result};

/// Skipped rows that a report names; further ones are only counted.
const NAMED: usize = 1000;
/// The longest vectors that a collection takes.
const MAX_DIMENSION: usize = 65_536;

/// A row that wasn't imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedRow {
    /// The row's number, from 0.
    pub row: usize,
    /// Its id.
    pub id: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImportReport {
    /// Rows of the input.
    pub rows: usize,
    /// Items that are new.
    pub added: usize,
    /// Items that were there with another vector.
    pub replaced: usize,
    /// Items of which only the metadata changed.
    pub touched: usize,
    /// Items that were there just so.
    pub unchanged: usize,
    /// The first thousand rows that were passed over.
    pub skipped: Vec<SkippedRow>,
    /// Number of all rows that were passed over.
    pub skipped_count: usize,
    /// Rows of the metadata that name no id of the vectors.
    pub unmatched_metadata: usize,
    /// Seconds.
    pub seconds: f64,
    /// Whether it was stopped before the end; what was done stays.
    pub cancelled: bool,
}

/// Rows as they come from files. All lists are equally long.
pub(super) struct Rows {
    pub ids: Vec<String>,
    pub metadata: Vec<Map<String, Value>>,
    /// Where each item came from, where that is known.
    pub sources: Vec<Option<Source>>,
    /// Row-major.
    pub values: Vec<f32>,
}

/// Something that gives rows, from the first to the last.
pub(super) trait RowSource {
    /// All rows.
    fn rows(&self) -> usize;
    /// Values a row.
    fn dimension(&self) -> usize;
    /// The next rows, at most `count`, of one or more; empty at the end.
    fn next(&mut self, count: usize) -> Result<Rows>;
    /// Rows of the metadata that no row asked for; known at the end.
    fn unmatched_metadata(&self) -> usize;
}

/// How rows are imported.
pub(super) struct Rules {
    pub metric: Metric,
    pub modality: &'static str,
    pub batch_size: usize,
    /// Whether a row that can't be imported is a failure.
    pub strict: bool,
}

/// Imports all rows that `open` gives. A strict import reads them twice, so that it writes all or nothing.
pub(super) fn run<S: RowSource>(
    collection: &Collection,
    rules: &Rules,
    open: impl Fn() -> Result<S>,
    progress: &mut dyn FnMut(usize, usize),
    cancel: &CancelToken,
) -> Result<ImportReport> {
    let mut source = open()?;
    let field = field_for(collection, source.dimension(), rules.metric)?;
    if rules.strict {
        let mut check = Importer::new(collection, &field, rules, false)?;
        check.run(&mut source, &mut |_, _| {}, cancel)?;
        check.refuse_skipped()?;
        source = open()?;
    }
    collection.store().ensure_field(&field)?;
    let mut importer = Importer::new(collection, &field, rules, true)?;
    importer.run(&mut source, progress, cancel)?;
    Ok(importer.report)
}

/// The field of external vectors; its dimension and metric are fixed by the first import.
fn field_for(collection: &Collection, dimension: usize, metric: Metric) -> Result<Field> {
    if !(1..=MAX_DIMENSION).contains(&dimension) {
        return Err(Error::Invalid(format!("the vectors have {dimension} dimensions, expected 1 to {MAX_DIMENSION}")));
    }
    if let Some(model) = collection.model_name()? {
        return Err(Error::Invalid(format!(
            "{} holds embeddings of the model {model:?}; vectors that were computed elsewhere need a collection of their own",
            collection.store().folder().display()
        )));
    }
    let space = SpaceRef { id: EXTERNAL.into(), model: "external vectors".into() };
    let field = Field { name: EXTERNAL.into(), space, dimension, metric };
    if let Some(existing) = collection.store().fields()?.into_iter().find(|field| field.name == EXTERNAL) {
        let mismatch = |property, existing: String, offered: String| {
            Error::from(StoreError::FieldMismatch { field: EXTERNAL.into(), property, existing, offered })
        };
        if existing.dimension != dimension {
            return Err(mismatch("dimension", existing.dimension.to_string(), dimension.to_string()));
        }
        if existing.metric != metric {
            return Err(mismatch("metric", existing.metric.to_string(), metric.to_string()));
        }
    }
    Ok(field)
}

struct Importer<'a> {
    collection: &'a Collection,
    field: &'a Field,
    rules: &'a Rules,
    writes: bool,
    /// Whether there was anything before, so that items must be looked up.
    looks_up: bool,
    /// Hashes of the ids so far: a second row with one is no update but a mistake.
    seen: HashSet<[u8; 16]>,
    report: ImportReport,
}

impl<'a> Importer<'a> {
    fn new(collection: &'a Collection, field: &'a Field, rules: &'a Rules, writes: bool) -> Result<Self> {
        let first = ListRequest { limit: Some(1), ..ListRequest::default() };
        let looks_up = writes && !collection.list(&first)?.is_empty();
        Ok(Self { collection, field, rules, writes, looks_up, seen: HashSet::new(), report: ImportReport::default() })
    }

    fn run(
        &mut self,
        source: &mut dyn RowSource,
        progress: &mut dyn FnMut(usize, usize),
        cancel: &CancelToken,
    ) -> Result<()> {
        let start = Instant::now();
        let all = source.rows();
        progress(0, all);
        loop {
            if cancel.is_cancelled() {
                self.report.cancelled = true;
                break;
            }
            let rows = source.next(self.rules.batch_size)?;
            if rows.ids.is_empty() {
                self.report.unmatched_metadata = source.unmatched_metadata();
                break;
            }
            self.batch(rows)?;
            progress(self.report.rows, all);
        }
        self.report.seconds = start.elapsed().as_secs_f64();
        Ok(())
    }

    fn refuse_skipped(&self) -> Result<()> {
        if self.report.unmatched_metadata > 0 {
            let count = self.report.unmatched_metadata;
            return Err(Error::Invalid(format!(
                "{count} rows of the metadata name no id of the vectors; nothing was imported"
            )));
        }
        let Some(SkippedRow { row, id, reason }) = self.report.skipped.first() else {
            return Ok(());
        };
        let others = match self.report.skipped_count {
            1 => String::new(),
            count => format!(" ({count} rows in all)"),
        };
        Err(Error::Invalid(format!("row {row} (id {id:?}) {reason}{others}; nothing was imported")))
    }

    fn skip(&mut self, row: usize, id: String, reason: String) {
        self.report.skipped_count += 1;
        if self.report.skipped.len() < NAMED {
            self.report.skipped.push(SkippedRow { row, id, reason });
        }
    }

    fn batch(&mut self, rows: Rows) -> Result<()> {
        let known = if self.looks_up { self.collection.store().get(&rows.ids)? } else { Vec::new() };
        let mut known = known.into_iter();
        let (mut written, mut touched) = (Vec::new(), Vec::new());
        let first = self.report.rows;
        self.report.rows += rows.ids.len();
        let vectors = rows.values.chunks_exact(self.field.dimension);
        let parts = rows.ids.into_iter().zip(rows.metadata).zip(rows.sources).zip(vectors);
        for (offset, (((id, metadata), source), values)) in parts.enumerate() {
            let known = known.next().flatten();
            if let Some(reason) = self.problem(&id, values) {
                self.skip(first + offset, id, reason);
                continue;
            }
            if !self.writes {
                continue;
            }
            let item =
                Item { id, source, content_hash: Some(hash(values)), modality: self.rules.modality.into(), metadata };
            match known.map(|known| known.item) {
                Some(known) if known == item => self.report.unchanged += 1,
                Some(known) if known.content_hash == item.content_hash => touched.push(item),
                known => {
                    *(if known.is_some() { &mut self.report.replaced } else { &mut self.report.added }) += 1;
                    written.push(self.record(item, values));
                }
            }
        }
        if !touched.is_empty() {
            self.report.touched += self.collection.store().touch(&touched)?;
        }
        if !written.is_empty() {
            self.collection.store().upsert(&written)?;
        }
        Ok(())
    }

    /// Why a row can't be imported.
    fn problem(&mut self, id: &str, values: &[f32]) -> Option<String> {
        if id.is_empty() {
            return Some("has an empty id".into());
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Some(format!("has {} at position {at}", values[at]));
        }
        let length = values.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt() as f32;
        if self.rules.metric == Metric::Cosine && !(length > 0.0 && length.is_finite()) {
            return Some(format!("has length {length}, so that it has no direction to compare"));
        }
        let mut key = [0; 16];
        key.copy_from_slice(&blake3::hash(id.as_bytes()).as_bytes()[..16]);
        (!self.seen.insert(key)).then(|| "has the id of an earlier row".into())
    }

    fn record(&self, item: Item, values: &[f32]) -> ItemVectors {
        let vector = VectorRecord {
            field: self.field.name.clone(),
            space: self.field.space.clone(),
            part: 0,
            modality: item.modality.clone(),
            span: None,
            precision: "fp32".into(),
            cache_key: None,
            vector: values.to_vec(),
        };
        ItemVectors { item, vectors: vec![vector] }
    }
}

/// Of the values as they are imported: equal vectors are equal content.
fn hash(values: &[f32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let mut bytes = [0; 4096];
    for values in values.chunks(bytes.len() / 4) {
        for (bytes, value) in bytes.chunks_exact_mut(4).zip(values) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
        hasher.update(&bytes[..values.len() * 4]);
    }
    *hasher.finalize().as_bytes()
}
