//! The folders that clip-retrieval's inference writes and its indexing reads: `img_emb/img_emb_0.npy` with a row for each row of
//! `metadata/metadata_0.parquet`, and so on for further numbers.

use std::path::{Path, PathBuf};

use crossmodal_models::CancelToken;
use crossmodal_store::{Item, Metric, Source, StoredVector};
use half::f16;
use serde_json::{Map, Value};

use super::ArchiveReport;
use super::destination::Destination;
use super::import::{ImportReport, RowSource, Rows, Rules, run};
use super::npy::{self, NpyReader};
use super::table::{TableReader, TableWriter};
use crate::collection::Collection;
use crate::error::{Error, Result};

const EMBEDDINGS: &str = "img_emb";
const METADATA: &str = "metadata";
/// Columns that name an item, in the order of preference; its number over all parts where there is none.
const ID_COLUMNS: [&str; 3] = ["id", "image_path", "key"];
/// Columns of the tables that are written.
const COLUMNS: [&str; 5] = ["image_path", "caption", "id", "modality", "metadata"];

/// Whether a folder holds embeddings in this layout.
pub fn is_clip_retrieval(folder: &Path) -> bool {
    parts(folder).is_ok_and(|parts| !parts.is_empty())
}

/// One numbered pair of files.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    embeddings: PathBuf,
    metadata: Option<PathBuf>,
}

/// The parts in the order of their numbers.
fn parts(folder: &Path) -> Result<Vec<Part>> {
    let embeddings = folder.join(EMBEDDINGS);
    let entries = std::fs::read_dir(&embeddings).map_err(|error| Error::io(&embeddings, error))?;
    let mut numbered = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| Error::io(&embeddings, error))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let text = name.strip_prefix("img_emb_").and_then(|rest| rest.strip_suffix(".npy"));
        if let Some((text, number)) = text.and_then(|text| Some((text, text.parse::<u64>().ok()?))) {
            let metadata = folder.join(METADATA).join(format!("metadata_{text}.parquet"));
            let metadata = metadata.is_file().then_some(metadata);
            numbered.push((number, Part { embeddings: path.clone(), metadata }));
        }
    }
    numbered.sort_by_key(|(number, _)| *number);
    Ok(numbered.into_iter().map(|(_, part)| part).collect())
}

/// Imports such a folder, as [`import_vectors`](super::import_vectors) does: ids and paths are the column `image_path` (or `id`, or `key`), other
/// columns become metadata.
///
/// # Errors
/// As [`import_vectors`](super::import_vectors), and a table whose number of rows isn't that of its embeddings.
pub fn import_clip_retrieval(
    collection: &Collection,
    folder: &Path,
    metric: Metric,
    batch_size: usize,
    strict: bool,
    progress: &mut dyn FnMut(usize, usize),
    cancel: &CancelToken,
) -> Result<ImportReport> {
    let rules = Rules { metric, modality: "image", batch_size: batch_size.max(1), strict };
    run(collection, &rules, || PartRows::open(folder), progress, cancel)
}

struct PartRows {
    parts: std::vec::IntoIter<Part>,
    current: Option<(NpyReader, Option<TableReader>)>,
    rows: usize,
    dimension: usize,
    next: usize,
}

impl PartRows {
    fn open(folder: &Path) -> Result<Self> {
        let parts = parts(folder)?;
        let (mut rows, mut dimension) = (0, None);
        // All are opened once, so that a wrong part is known before anything is written.
        for part in &parts {
            let (embeddings, _) = open_part(part)?;
            let expected = *dimension.get_or_insert(embeddings.columns());
            if embeddings.columns() != expected {
                let reason =
                    format!("holds vectors of {} dimensions, the first part's have {expected}", embeddings.columns());
                return Err(Error::file(&part.embeddings, reason));
            }
            rows += embeddings.rows();
        }
        let dimension =
            dimension.ok_or_else(|| Error::NotFound(format!("{}: no {EMBEDDINGS}/img_emb_*.npy", folder.display())))?;
        Ok(Self { parts: parts.into_iter(), current: None, rows, dimension, next: 0 })
    }
}

fn open_part(part: &Part) -> Result<(NpyReader, Option<TableReader>)> {
    let embeddings = NpyReader::open(&part.embeddings)?;
    let table = part.metadata.as_deref().map(TableReader::open).transpose()?;
    if let Some((table, path)) = table.as_ref().zip(part.metadata.as_ref())
        && table.rows() != embeddings.rows()
    {
        let reason = format!("has {} rows, {} has {}", table.rows(), part.embeddings.display(), embeddings.rows());
        return Err(Error::file(path, reason));
    }
    Ok((embeddings, table))
}

impl RowSource for PartRows {
    fn rows(&self) -> usize {
        self.rows
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn next(&mut self, count: usize) -> Result<Rows> {
        let mut rows = Rows { ids: Vec::new(), metadata: Vec::new(), sources: Vec::new(), values: Vec::new() };
        while rows.ids.is_empty() {
            let (embeddings, table) = match &mut self.current {
                Some(current) => current,
                None => match self.parts.next() {
                    Some(part) => self.current.insert(open_part(&part)?),
                    None => break,
                },
            };
            rows.values = embeddings.floats(count)?;
            for _ in 0..rows.values.len() / self.dimension {
                let metadata = match table {
                    None => Map::new(),
                    Some(table) => table.next()?.ok_or_else(|| {
                        Error::file(embeddings.path(), "has more rows than its table, which became shorter")
                    })?,
                };
                let (id, source, metadata) = describe(metadata, self.next);
                rows.ids.push(id);
                rows.sources.push(source);
                rows.metadata.push(metadata);
                self.next += 1;
            }
            if rows.ids.is_empty() {
                self.current = None;
            }
        }
        Ok(rows)
    }

    fn unmatched_metadata(&self) -> usize {
        0
    }
}

/// The id, the source and the other columns of a row.
fn describe(mut row: Map<String, Value>, number: usize) -> (String, Option<Source>, Map<String, Value>) {
    let text = |value: &Value| match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let id = ID_COLUMNS.iter().find_map(|column| text(row.get(*column)?));
    let path = row.shift_remove("image_path").as_ref().and_then(text);
    let source = path.map(|uri| Source { uri, size: None, modified_ns: None });
    row.shift_remove("id");
    // What an export of this program wrote.
    if let Some(Value::Object(own)) =
        row.get("metadata").and_then(Value::as_str).and_then(|text| serde_json::from_str(text).ok())
    {
        return (id.unwrap_or_else(|| number.to_string()), source, own);
    }
    (id.unwrap_or_else(|| number.to_string()), source, row)
}

/// Exports the first vector of each item in the default field (or the only one) to the folder `target`, as f16 or f32. Hashes, further
/// vectors and other fields are left out: a complete export is [`export_archive`](super::export_archive).
///
/// # Errors
/// As [`export_archive`](super::export_archive).
pub fn export_clip_retrieval(
    collection: &Collection,
    target: &Path,
    half_precision: bool,
    force: bool,
    progress: &mut dyn FnMut(usize, usize),
    cancel: &CancelToken,
) -> Result<ArchiveReport> {
    let field = collection.main_field()?;
    let destination = Destination::create(target, force)?;
    let snapshot = collection.store().snapshot()?;
    let all = snapshot.items_with(&field.name)? as usize;
    let mut embeddings = destination.file(&format!("{EMBEDDINGS}/img_emb_0.npy"))?;
    embeddings.write(&npy::header(if half_precision { "<f2" } else { "<f4" }, &[all, field.dimension]))?;
    let table = destination.file(&format!("{METADATA}/metadata_0.parquet"))?;
    let path = table.path().to_path_buf();
    let mut table = TableWriter::new(&path, table, &COLUMNS)?;
    let mut report = ArchiveReport::default();
    snapshot.for_each::<Error>(|stored, vectors| {
        cancel.check()?;
        let Some(StoredVector { vector, .. }) = vectors.into_iter().find(|vector| vector.field == field.name) else {
            return Ok(());
        };
        let bytes: Vec<u8> = match half_precision {
            true => vector.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
            false => vector.iter().flat_map(|value| value.to_le_bytes()).collect(),
        };
        embeddings.write(&bytes)?;
        table.add(columns(stored.item))?;
        report.items += 1;
        progress(report.items, all);
        Ok(())
    })?;
    report.vectors = report.items;
    report.bytes = table.finish()?.finish()?.bytes + embeddings.finish()?.bytes;
    destination.finish()?;
    Ok(report)
}

fn columns(item: Item) -> Vec<Option<String>> {
    let caption = item.metadata.get("caption").and_then(Value::as_str).map(str::to_owned);
    let path = item.source.map(|source| source.uri);
    vec![path, caption, Some(item.id), Some(item.modality), Some(Value::Object(item.metadata).to_string())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_are_named_by_what_they_have() {
        let cases = [
            (json!({"image_path": "/a.jpg", "caption": "x"}), "/a.jpg", json!({"caption": "x"})),
            (json!({"key": "000017", "url": "u"}), "000017", json!({"key": "000017", "url": "u"})),
            (json!({"caption": "x"}), "5", json!({"caption": "x"})),
            (json!({"id": "i", "image_path": "/p", "caption": "x", "metadata": "{\"n\": 1}"}), "i", json!({"n": 1})),
            (json!({"id": 9, "metadata": "no JSON"}), "9", json!({"metadata": "no JSON"})),
        ];
        for (row, id, metadata) in cases {
            let Value::Object(row) = row else { unreachable!() };
            let path = row.get("image_path").cloned();
            let (found, source, rest) = describe(row, 5);
            assert_eq!((found.as_str(), Value::Object(rest)), (id, metadata));
            assert_eq!(source.map(|source| Value::String(source.uri)), path);
        }
    }

    #[test]
    fn parts_are_ordered_by_number() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_clip_retrieval(folder.path()));
        for name in
            ["img_emb/img_emb_10.npy", "img_emb/img_emb_9.npy", "img_emb/notes.npy", "metadata/metadata_9.parquet"]
        {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let parts = parts(folder.path()).unwrap();
        let expected = |number: u64, metadata: bool| Part {
            embeddings: folder.path().join(format!("img_emb/img_emb_{number}.npy")),
            metadata: metadata.then(|| folder.path().join(format!("metadata/metadata_{number}.parquet"))),
        };
        assert_eq!(parts, [expected(9, true), expected(10, false)]);
        assert!(is_clip_retrieval(folder.path()));
    }
}
