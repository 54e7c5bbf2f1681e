//! The complete export of a collection, and its import: nothing is lost but what a compaction drops as well.
//!
//! ```text
//! manifest.json            format, version, settings, fields with their spaces, checksums (BLAKE3) of the other files
//! items.jsonl              one item a line, in the order of keys, with what is known of each of its vectors
//! vectors-1.safetensors    the first field's vectors as a tensor `vectors` (n, dimension) of f32, in the order in which items name them
//! ```
//!
//! Keys and the number of changes are a collection's own and not exported; items keep their order.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crossmodal_models::CancelToken;
use crossmodal_store::{
    Field, Item, ItemVectors, Source, SpaceRef, Span, StoredItem, StoredVector, VectorRecord, VectorStore,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::destination::{Destination, Finished, OutputFile};
use crate::collection::Collection;
use crate::error::{Error, Result};

const MANIFEST: &str = "manifest.json";
const ITEMS: &str = "items.jsonl";
const FORMAT: &str = "crossmodal collection";
const VERSION: u32 = 1;
/// The tensor's name in each file of vectors.
const TENSOR: &str = "vectors";
/// Manifests and headers are small; what claims to be longer is none.
const MAX_MANIFEST: u64 = 64 << 20;
/// Items that are written together.
const BATCH: usize = 512;

/// What an export or an import did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ArchiveReport {
    /// Items.
    pub items: usize,
    /// Items that were in the collection just so, and were left alone (imports).
    pub unchanged: usize,
    /// Vectors.
    pub vectors: usize,
    /// Bytes of the export's files.
    pub bytes: u64,
    /// Whether an import was stopped before its end; what was done stays.
    pub cancelled: bool,
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    format: String,
    version: u32,
    items: usize,
    settings: Map<String, Value>,
    fields: Vec<ManifestField>,
    files: Vec<ManifestFile>,
}

#[derive(Serialize, Deserialize)]
struct ManifestField {
    name: String,
    space: SpaceRef,
    dimension: usize,
    metric: String,
    vectors: usize,
    file: String,
}

#[derive(Serialize, Deserialize)]
struct ManifestFile {
    name: String,
    bytes: u64,
    blake3: String,
}

#[derive(Serialize, Deserialize)]
struct ItemLine {
    id: String,
    modality: String,
    source: Option<Source>,
    /// Hexadecimal digits.
    content_hash: Option<String>,
    metadata: Map<String, Value>,
    vectors: Vec<VectorLine>,
}

#[derive(Serialize, Deserialize)]
struct VectorLine {
    field: String,
    part: u32,
    modality: String,
    span: Option<Span>,
    precision: String,
    /// Hexadecimal digits.
    cache_key: Option<String>,
}

/// Whether a folder holds a complete export.
pub fn is_archive(folder: &Path) -> bool {
    folder.join(MANIFEST).is_file() && folder.join(ITEMS).is_file()
}

/// Exports everything to the folder `target`, which appears when it is complete. `force` replaces an earlier export.
///
/// # Errors
/// `target` exists, the collection is damaged, failures of storage and disk, or the work was cancelled; nothing is left behind then.
pub fn export_archive(
    collection: &Collection,
    target: &Path,
    force: bool,
    progress: &mut dyn FnMut(usize, usize),
    cancel: &CancelToken,
) -> Result<ArchiveReport> {
    let destination = Destination::create(target, force)?;
    let snapshot = collection.store().snapshot()?;
    let all = snapshot.items()? as usize;
    let mut fields = Vec::new();
    for (number, field) in snapshot.fields().enumerate() {
        let vectors = snapshot.vectors(&field.name)? as usize;
        let mut file = destination.file(&format!("vectors-{}.safetensors", number + 1))?;
        file.write(&tensor_header(vectors, field.dimension)?)?;
        fields.push((field.clone(), vectors, file));
    }
    let mut items = destination.file(ITEMS)?;
    let mut report = ArchiveReport::default();
    snapshot.for_each::<Error>(|stored, vectors| {
        cancel.check()?;
        for vector in &vectors {
            let field = fields.iter_mut().find(|(field, ..)| field.name == vector.field);
            let (.., file) = field.ok_or_else(|| Error::Invalid(format!("no field {:?} is known", vector.field)))?;
            write_values(file, &vector.vector)?;
        }
        report.vectors += vectors.len();
        let mut line =
            serde_json::to_vec(&item_line(stored, vectors)).map_err(|error| json_error(items.path(), &error))?;
        line.push(b'\n');
        items.write(&line)?;
        report.items += 1;
        progress(report.items, all);
        Ok(())
    })?;
    let mut manifest = Manifest {
        format: FORMAT.into(),
        version: VERSION,
        items: report.items,
        settings: snapshot.settings()?.into_iter().collect(),
        fields: Vec::new(),
        files: vec![manifest_file(items.finish()?)],
    };
    for (field, vectors, file) in fields {
        let file = file.finish()?;
        let Field { name, space, dimension, metric } = field;
        let (metric, file_name) = (metric.to_string(), file.name.clone());
        manifest.fields.push(ManifestField { name, space, dimension, metric, vectors, file: file_name });
        manifest.files.push(manifest_file(file));
    }
    let mut file = destination.file(MANIFEST)?;
    let text = serde_json::to_vec_pretty(&manifest).map_err(|error| json_error(file.path(), &error))?;
    file.write(&text)?;
    report.bytes = file.finish()?.bytes + manifest.files.iter().map(|file| file.bytes).sum::<u64>();
    destination.finish()?;
    Ok(report)
}

fn manifest_file(file: Finished) -> ManifestFile {
    ManifestFile { name: file.name, bytes: file.bytes, blake3: file.blake3 }
}

fn write_values(file: &mut OutputFile, values: &[f32]) -> Result<()> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    file.write(&bytes)
}

fn item_line(stored: StoredItem, vectors: Vec<StoredVector>) -> ItemLine {
    let Item { id, source, content_hash, modality, metadata } = stored.item;
    let vector = |vector: StoredVector| {
        let StoredVector { field, part, modality, span, precision, cache_key, vector: _ } = vector;
        VectorLine { field, part, modality, span, precision, cache_key: cache_key.map(hex) }
    };
    let vectors = vectors.into_iter().map(vector).collect();
    ItemLine { id, modality, source, content_hash: content_hash.map(hex), metadata, vectors }
}

/// Imports an export into a collection: fields are created where they are missing, items that differ are replaced, others left alone, so that
/// the same import goes on where it was interrupted. Settings that the collection has are kept.
///
/// # Errors
/// A folder that is no export or of a newer version, a file that isn't what was exported (before anything is written), fields of
/// other spaces, and failures of the storage.
pub fn import_archive(
    collection: &Collection,
    folder: &Path,
    batch_size: Option<usize>,
    progress: &mut dyn FnMut(usize, usize),
    cancel: &CancelToken,
) -> Result<ArchiveReport> {
    let manifest = read_manifest(folder)?;
    for file in &manifest.files {
        check_file(folder, file)?;
        cancel.check()?;
    }
    let mut fields = Vec::new();
    for field in &manifest.fields {
        fields.push(FieldReader::open(folder, field)?);
    }
    for field in &fields {
        collection.store().ensure_field(&field.field)?;
    }
    for (name, value) in &manifest.settings {
        if collection.store().setting(name)?.is_none() {
            collection.store().set_setting(name, value)?;
        }
    }
    let path = folder.join(ITEMS);
    let mut lines = open(&path)?.lines();
    let mut report = ArchiveReport { bytes: manifest.files.iter().map(|file| file.bytes).sum(), ..Default::default() };
    let batch_size = batch_size.unwrap_or(BATCH).max(1);
    loop {
        if cancel.is_cancelled() {
            report.cancelled = true;
            return Ok(report);
        }
        let mut batch = Vec::with_capacity(batch_size);
        for line in lines.by_ref().take(batch_size) {
            let line = line.map_err(|error| Error::io(&path, error))?;
            let number = (report.items + batch.len()) as u64 + 1;
            batch.push(read_item(&path, number, &line, &mut fields)?);
        }
        if batch.is_empty() {
            break;
        }
        report.items += batch.len();
        report.vectors += batch.iter().map(|entry| entry.vectors.len()).sum::<usize>();
        report.unchanged += write_changed(collection, batch)?;
        progress(report.items, manifest.items);
    }
    if report.items != manifest.items || fields.iter().any(|field| field.left != 0) {
        let reason = format!("names {} items, {} were found, or vectors are left over", manifest.items, report.items);
        return Err(Error::file(&folder.join(MANIFEST), reason));
    }
    Ok(report)
}

/// Writes the items of a batch that aren't in the collection just so; returns how many are.
fn write_changed(collection: &Collection, mut batch: Vec<ItemVectors>) -> Result<usize> {
    let (store, all) = (collection.store(), batch.len());
    let ids: Vec<String> = batch.iter().map(|entry| entry.item.id.clone()).collect();
    let known = store.get(&ids)?;
    let mut same = Vec::with_capacity(all);
    for (entry, known) in batch.iter().zip(known) {
        same.push(match known {
            Some(known) if known.item == entry.item => {
                let vectors = store.vectors(&entry.item.id);
                vectors.is_ok_and(|vectors| same_vectors(&vectors, &entry.vectors))
            }
            _ => false,
        });
    }
    let mut same = same.into_iter();
    batch.retain(|_| !same.next().unwrap_or(false));
    if !batch.is_empty() {
        store.upsert(&batch)?;
    }
    Ok(all - batch.len())
}

fn same_vectors(stored: &[StoredVector], wanted: &[VectorRecord]) -> bool {
    let same = |stored: &StoredVector, wanted: &VectorRecord| {
        stored.field == wanted.field
            && (stored.part, &stored.modality, &stored.precision) == (wanted.part, &wanted.modality, &wanted.precision)
            && stored.span == wanted.span
            && stored.cache_key == wanted.cache_key
            && stored.vector == wanted.vector
    };
    stored.len() == wanted.len() && stored.iter().all(|stored| wanted.iter().any(|wanted| same(stored, wanted)))
}

fn read_manifest(folder: &Path) -> Result<Manifest> {
    let path = folder.join(MANIFEST);
    let mut text = Vec::new();
    open(&path)?.take(MAX_MANIFEST).read_to_end(&mut text).map_err(|error| Error::io(&path, error))?;
    let value: Value = serde_json::from_slice(&text).map_err(|error| json_error(&path, &error))?;
    if value["format"] != FORMAT {
        return Err(Error::file(&path, format!("is no manifest of a {FORMAT}")));
    }
    if value["version"] != VERSION {
        let reason = format!("has version {}, this program reads {VERSION}; use a newer one", value["version"]);
        return Err(Error::file(&path, reason));
    }
    let manifest: Manifest = serde_json::from_value(value).map_err(|error| json_error(&path, &error))?;
    let names = || manifest.files.iter().map(|file| file.name.as_str());
    // Files lie in the folder itself: a manifest from elsewhere must not lead anywhere.
    if let Some(name) = names().find(|name| name.contains(['/', '\\']) || *name == "..") {
        return Err(Error::file(&path, format!("names the file {name:?}, which does not lie beside it")));
    }
    let needed = manifest.fields.iter().map(|field| field.file.as_str()).chain([ITEMS]);
    for needed in needed {
        if !names().any(|name| name == needed) {
            return Err(Error::file(&path, format!("has no checksum of {needed}")));
        }
    }
    Ok(manifest)
}

/// Compares a file with the manifest.
fn check_file(folder: &Path, file: &ManifestFile) -> Result<()> {
    let path = folder.join(&file.name);
    let mut reader = open(&path)?;
    let mut hasher = blake3::Hasher::new();
    let mut bytes = 0;
    loop {
        let buffer = reader.fill_buf().map_err(|error| Error::io(&path, error))?;
        if buffer.is_empty() {
            break;
        }
        hasher.update(buffer);
        let length = buffer.len();
        bytes += length as u64;
        reader.consume(length);
    }
    if bytes != file.bytes {
        return Err(Error::file(&path, format!("has {bytes} bytes, {} were exported", file.bytes)));
    }
    if hasher.finalize().to_hex().as_str() != file.blake3 {
        return Err(Error::file(&path, "is not what was exported: its checksum differs"));
    }
    Ok(())
}

/// The vectors of a field, from the first to the last.
struct FieldReader {
    field: Field,
    path: PathBuf,
    file: BufReader<File>,
    left: usize,
}

impl FieldReader {
    fn open(folder: &Path, field: &ManifestField) -> Result<Self> {
        let path = folder.join(&field.file);
        let metric = field.metric.parse().map_err(|error| Error::file(&folder.join(MANIFEST), format!("{error}")))?;
        let mut file = open(&path)?;
        let expected = tensor_header(field.vectors, field.dimension)?;
        let mut header = vec![0; expected.len()];
        file.read_exact(&mut header).map_err(|error| Error::io(&path, error))?;
        if header != expected {
            let reason = format!("does not begin with a tensor of shape ({}, {})", field.vectors, field.dimension);
            return Err(Error::file(&path, reason));
        }
        let (name, space, dimension) = (field.name.clone(), field.space.clone(), field.dimension);
        Ok(Self { field: Field { name, space, dimension, metric }, path, file, left: field.vectors })
    }

    fn next(&mut self) -> Result<Vec<f32>> {
        let more = self.left.checked_sub(1);
        self.left = more.ok_or_else(|| Error::file(&self.path, "has fewer vectors than items name"))?;
        let mut bytes = vec![0; self.field.dimension * 4];
        self.file.read_exact(&mut bytes).map_err(|error| Error::io(&self.path, error))?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

fn read_item(path: &Path, number: u64, line: &str, fields: &mut [FieldReader]) -> Result<ItemVectors> {
    let wrong = |reason: String| Error::Metadata { path: path.to_path_buf(), line: number, reason };
    let line: ItemLine = serde_json::from_str(line).map_err(|error| wrong(format!("is no item: {error}")))?;
    let hash = |text: Option<String>| match text {
        None => Ok(None),
        Some(text) => parse_hex(&text).map(Some).ok_or_else(|| wrong(format!("has the hash {text:?}"))),
    };
    let mut vectors = Vec::with_capacity(line.vectors.len());
    for vector in line.vectors {
        let field = fields.iter_mut().find(|field| field.field.name == vector.field);
        let field = field.ok_or_else(|| wrong(format!("names the unknown field {:?}", vector.field)))?;
        vectors.push(VectorRecord {
            space: field.field.space.clone(),
            part: vector.part,
            modality: vector.modality,
            span: vector.span,
            precision: vector.precision,
            cache_key: hash(vector.cache_key)?,
            vector: field.next()?,
            field: vector.field,
        });
    }
    let ItemLine { id, modality, source, content_hash, metadata, vectors: _ } = line;
    Ok(ItemVectors { item: Item { id, source, content_hash: hash(content_hash)?, modality, metadata }, vectors })
}

/// The start of a safetensors file with one tensor, padded so that the data begins at a multiple of 8.
fn tensor_header(rows: usize, columns: usize) -> Result<Vec<u8>> {
    let bytes = rows.checked_mul(columns).and_then(|values| values.checked_mul(4));
    let bytes = bytes.ok_or_else(|| Error::Invalid(format!("({rows}, {columns}) is no shape that fits a file")))?;
    let mut text = format!(r#"{{"{TENSOR}":{{"dtype":"F32","shape":[{rows},{columns}],"data_offsets":[0,{bytes}]}}}}"#)
        .into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    Ok([&(text.len() as u64).to_le_bytes()[..], &text].concat())
}

fn open(path: &Path) -> Result<BufReader<File>> {
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::NotFound(format!("{}: no such file", path.display())),
        _ => Error::io(path, error),
    })?;
    Ok(BufReader::with_capacity(1 << 20, file))
}

fn json_error(path: &Path, error: &serde_json::Error) -> Error {
    Error::file(path, error.to_string())
}

fn hex(hash: [u8; 32]) -> String {
    blake3::Hash::from_bytes(hash).to_hex().to_string()
}

fn parse_hex(text: &str) -> Option<[u8; 32]> {
    blake3::Hash::from_hex(text).ok().map(|hash| *hash.as_bytes())
}
