//! Rows of the database to values and back, with their checksums.

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row};
use serde::de::DeserializeOwned;

use super::vector_file::Header;
use crate::validate::MAX_DIMENSION;
use crate::{CacheKey, Field, Item, Source, SpaceRef, Span, StoreError, StoredItem};

/// Far more than fits on a disk, and small enough that a file's length never overflows.
const MAX_ROWS: i64 = 1 << 40;

/// A field with what the local store keeps about it.
#[derive(Debug, Clone)]
pub(super) struct FieldRow {
    pub key: i64,
    pub field: Field,
    pub generation: i64,
    /// Committed rows of the vector file, live and dead.
    pub rows: u64,
    /// Whether an item ever had several vectors in it.
    pub multiple: bool,
}

impl FieldRow {
    pub fn header(&self) -> Header {
        Header { dimension: self.field.dimension, field: self.key, generation: self.generation }
    }
}

const FIELD_COLUMNS: &str = "key, name, space_id, model, dimension, metric, generation, rows, multiple";

fn read_field(row: &Row<'_>) -> rusqlite::Result<FieldRow> {
    let metric = row.get::<_, String>(5)?.parse().map_err(|error| conversion(5, error))?;
    let space = SpaceRef { id: row.get(2)?, model: row.get(3)? };
    let dimension = in_range(4, row.get(4)?, 1..=MAX_DIMENSION as i64)? as usize;
    let field = Field { name: row.get(1)?, space, dimension, metric };
    let rows = in_range(7, row.get(7)?, 0..=MAX_ROWS)? as u64;
    Ok(FieldRow { key: row.get(0)?, field, generation: row.get(6)?, rows, multiple: row.get(8)? })
}

/// Numbers that size buffers: a damaged database must not make the program ask for all memory.
fn in_range(column: usize, number: i64, range: std::ops::RangeInclusive<i64>) -> rusqlite::Result<i64> {
    if range.contains(&number) { Ok(number) } else { Err(rusqlite::Error::IntegralValueOutOfRange(column, number)) }
}

/// All fields in the order of their creation.
pub(super) fn load_fields(connection: &Connection) -> rusqlite::Result<Vec<FieldRow>> {
    let sql = format!("SELECT {FIELD_COLUMNS} FROM fields ORDER BY key");
    connection.prepare_cached(&sql)?.query_map([], read_field)?.collect()
}

/// One field by name.
pub(super) fn load_field(connection: &Connection, name: &str) -> Result<FieldRow, StoreError> {
    let sql = format!("SELECT {FIELD_COLUMNS} FROM fields WHERE name = ?1");
    let found = connection.prepare_cached(&sql)?.query_row([name], read_field).optional()?;
    found.map_or_else(|| Err(unknown_field(name, &load_fields(connection)?)), Ok)
}

pub(super) fn unknown_field(name: &str, fields: &[FieldRow]) -> StoreError {
    let known = fields.iter().map(|field| field.field.name.clone()).collect();
    StoreError::UnknownField { field: name.to_owned(), known }
}

/// The number of the last committed change.
pub(super) fn load_change(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("SELECT change FROM collection")?.query_row([], |row| row.get(0))
}

/// The columns of an item, as [`read_item`] expects them; the table's name is `i`.
pub(super) const ITEM_COLUMNS: &str =
    "i.key, i.id, i.uri, i.size, i.modified_ns, i.content_hash, i.modality, i.metadata";

/// Reads an item whose columns begin at `first`.
pub(super) fn read_item(row: &Row<'_>, first: usize) -> rusqlite::Result<StoredItem> {
    let source = |uri| -> rusqlite::Result<Source> {
        let size = row.get::<_, Option<i64>>(first + 3)?.map(|size| size as u64);
        Ok(Source { uri, size, modified_ns: row.get(first + 4)? })
    };
    let item = Item {
        id: row.get(first + 1)?,
        source: row.get::<_, Option<String>>(first + 2)?.map(source).transpose()?,
        content_hash: row.get(first + 5)?,
        modality: row.get(first + 6)?,
        metadata: read_json(&row.get::<_, String>(first + 7)?, first + 7)?,
    };
    Ok(StoredItem { key: row.get(first)?, item })
}

/// Reads an item whose columns begin at `first` and are followed by its checksum; `None` when it isn't what was written.
pub(super) fn read_sound_item(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<StoredItem>> {
    let (metadata, checksum): (String, i64) = (row.get(first + 7)?, row.get(first + 8)?);
    let stored = read_item(row, first).ok();
    Ok(stored.filter(|stored| item_checksum(&stored.item, &metadata) == checksum))
}

/// What a row of `vectors` says about a vector, besides its values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct VectorRow {
    pub field: i64,
    pub row: u64,
    pub item: Option<i64>,
    pub part: u32,
    pub modality: String,
    /// As JSON.
    pub span: Option<String>,
    pub precision: String,
    pub cache_key: Option<CacheKey>,
    /// Absent for a row that is known to be lost.
    pub checksum: Option<i64>,
}

/// The columns of a vector, as [`read_vector`] expects them; the table's name is `v`.
pub(super) const VECTOR_COLUMNS: &str =
    "v.field, v.row, v.item, v.part, v.modality, v.span, v.precision, v.cache_key, v.checksum";
/// How many they are.
pub(super) const VECTOR_COLUMN_COUNT: usize = 9;

/// Reads a vector whose columns begin at 0.
pub(super) fn read_vector(row: &Row<'_>) -> rusqlite::Result<VectorRow> {
    Ok(VectorRow {
        field: row.get(0)?,
        row: row.get::<_, i64>(1)? as u64,
        item: row.get(2)?,
        part: row.get(3)?,
        modality: row.get(4)?,
        span: row.get(5)?,
        precision: row.get(6)?,
        cache_key: row.get(7)?,
        checksum: row.get(8)?,
    })
}

impl VectorRow {
    /// Over everything that stays the same while the row exists, and the values.
    pub fn compute_checksum(&self, values: &[f32]) -> i64 {
        let mut hasher = Checksum::new();
        hasher.number(i64::from(self.part));
        hasher.bytes(Some(self.modality.as_bytes()));
        hasher.bytes(self.span.as_deref().map(str::as_bytes));
        hasher.bytes(Some(self.precision.as_bytes()));
        hasher.bytes(self.cache_key.as_ref().map(|key| &key[..]));
        hasher.bytes(Some(bytemuck::cast_slice(values)));
        hasher.finish()
    }

    /// Whether these are the values that were written.
    pub fn matches(&self, values: &[f32]) -> bool {
        self.checksum == Some(self.compute_checksum(values))
    }

    pub fn span(&self) -> rusqlite::Result<Option<Span>> {
        self.span.as_deref().map(|span| read_json(span, 5)).transpose()
    }
}

/// Over everything that an item consists of.
pub(super) fn item_checksum(item: &Item, metadata: &str) -> i64 {
    let mut hasher = Checksum::new();
    let source = item.source.as_ref();
    hasher.bytes(Some(item.id.as_bytes()));
    hasher.bytes(source.map(|source| source.uri.as_bytes()));
    for number in [source.and_then(|s| s.size.map(|size| size as i64)), source.and_then(|s| s.modified_ns)] {
        hasher.bytes(number.map(i64::to_le_bytes).as_ref().map(|bytes| &bytes[..]));
    }
    hasher.bytes(item.content_hash.as_ref().map(|hash| &hash[..]));
    hasher.bytes(Some(item.modality.as_bytes()));
    hasher.bytes(Some(metadata.as_bytes()));
    hasher.finish()
}

/// The first 64 bits of a BLAKE3 hash over parts with their lengths.
struct Checksum(blake3::Hasher);

impl Checksum {
    fn new() -> Self {
        Self(blake3::Hasher::new())
    }

    fn number(&mut self, number: i64) {
        self.0.update(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: Option<&[u8]>) {
        self.number(bytes.map_or(-1, |bytes| bytes.len() as i64));
        self.0.update(bytes.unwrap_or_default());
    }

    fn finish(&self) -> i64 {
        let mut first = [0; 8];
        self.0.finalize_xof().fill(&mut first);
        i64::from_le_bytes(first)
    }
}

fn read_json<T: DeserializeOwned>(text: &str, column: usize) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|error| conversion(column, error))
}

fn conversion(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}
