//! One committed state, held for as long as somebody reads from it: what exports and whole-collection analyses work on.

use std::io;

use rusqlite::Connection;

use super::layout::{self, Layout};
use super::rows::{
    FieldRow, ITEM_COLUMNS, VECTOR_COLUMNS, VectorRow, load_change, load_fields, read_item, read_vector, unknown_field,
};
use super::vector_file::MappedVectors;
use super::{LocalStore, MAX_READ_ATTEMPTS, missing_is_damage, schema};
use crate::{Field, StoreError, StoredItem, StoredVector};

/// A collection at one change. Writers and compactions go on beside it; it keeps a connection of its own, and the disk space of what it
/// sees, until it is dropped.
#[derive(Debug)]
pub struct Snapshot {
    connection: Connection,
    layout: Layout,
    change: u64,
    fields: Vec<(FieldRow, MappedVectors)>,
}

/// All vectors of one field in a snapshot.
#[derive(Debug)]
pub struct FieldMatrix<'a> {
    /// Row-major rows: those of present items, and dead ones in between.
    pub values: &'a [f32],
    /// The rows of present items whose values are what was written, and the items' keys, in the order of rows.
    pub live: Vec<(u64, i64)>,
    /// Rows of present items that are damaged, and left out.
    pub damaged: u64,
}

/// Some items of a field in a snapshot, spread evenly over all of them.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemSample<'a> {
    /// Number of items that have vectors in the field.
    pub items: u64,
    /// One vector of each sampled item, in the order of the items' keys. Damaged ones are left out.
    pub vectors: Vec<ItemVector<'a>>,
}

/// The vector that stands for an item: of several, that of the first part.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemVector<'a> {
    /// The item's key.
    pub item: i64,
    /// The modality that was embedded.
    pub modality: String,
    /// The values: as many as the field's dimension.
    pub values: &'a [f32],
}

impl LocalStore {
    /// Holds the state of this moment.
    ///
    /// # Errors
    /// `Damaged` for a vector file that is missing or has a wrong header, and failures of the storage.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let mut attempt = 1;
        loop {
            match Snapshot::begin(&self.layout) {
                // A compaction removed the files of this state between its two halves.
                Err(StoreError::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && attempt < MAX_READ_ATTEMPTS =>
                {
                    attempt += 1;
                }
                result => return result.map_err(|error| missing_is_damage(error).in_folder(self.folder())),
            }
        }
    }
}

impl Snapshot {
    fn begin(layout: &Layout) -> Result<Self, StoreError> {
        let connection = schema::open_reader(layout)?;
        connection.execute_batch("BEGIN")?;
        // The first statement that reads fixes the state.
        let change = load_change(&connection)? as u64;
        let map = |field: FieldRow| {
            let path = layout.vector_file(field.key, field.generation);
            let vectors = MappedVectors::open(&path, field.header(), field.rows)?;
            Ok((field, vectors))
        };
        let fields = load_fields(&connection)?.into_iter().map(map).collect::<Result<_, StoreError>>()?;
        Ok(Self { connection, layout: layout.clone(), change, fields })
    }

    /// The number of the last change that it sees.
    pub fn change(&self) -> u64 {
        self.change
    }

    /// The fields, in the order of their creation.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().map(|(row, _)| &row.field)
    }

    /// Number of items.
    ///
    /// # Errors
    /// Failures of the storage.
    pub fn items(&self) -> Result<u64, StoreError> {
        self.number("SELECT count(*) FROM items WHERE key > ?1", -1)
    }

    /// Number of vectors of present items in a field.
    ///
    /// # Errors
    /// `UnknownField`, and failures of the storage.
    pub fn vectors(&self, field: &str) -> Result<u64, StoreError> {
        let key = self.field(field)?.0.key;
        self.number("SELECT count(*) FROM vectors WHERE field = ?1 AND item IS NOT NULL", key)
    }

    /// Number of items that have vectors in a field.
    ///
    /// # Errors
    /// `UnknownField`, and failures of the storage.
    pub fn items_with(&self, field: &str) -> Result<u64, StoreError> {
        let key = self.field(field)?.0.key;
        self.number("SELECT count(DISTINCT item) FROM vectors WHERE field = ?1 AND item IS NOT NULL", key)
    }

    /// All settings, by name.
    ///
    /// # Errors
    /// `Damaged` for a value that is no JSON, and failures of the storage.
    pub fn settings(&self) -> Result<Vec<(String, serde_json::Value)>, StoreError> {
        let mut statement = self.prepare("SELECT name, value FROM settings ORDER BY name")?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)));
        let rows = rows.and_then(|rows| rows.collect::<Result<Vec<_>, _>>()).map_err(|error| self.failed(error))?;
        let parse = |(name, text): (String, String)| match serde_json::from_str(&text) {
            Ok(value) => Ok((name, value)),
            Err(error) => Err(self.damaged(format!("the setting {name:?} is no JSON: {error}"))),
        };
        rows.into_iter().map(parse).collect()
    }

    /// Shows every item, in the order of keys.
    ///
    /// # Errors
    /// `Damaged` for an item that can't be read, failures of the storage, and what `visit` returns.
    pub fn for_each_item<E: From<StoreError>>(
        &self,
        mut visit: impl FnMut(StoredItem) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut statement = self.prepare(&format!("SELECT {ITEM_COLUMNS} FROM items i ORDER BY i.key"))?;
        let rows = statement.query_map([], |row| read_item(row, 0)).map_err(|error| self.failed(error))?;
        for row in rows {
            visit(row.map_err(|error| self.failed(error))?)?;
        }
        Ok(())
    }

    /// Shows every item, in the order of keys, with all of its vectors, ordered by field, part and modality.
    ///
    /// # Errors
    /// As [`for_each_item`](Self::for_each_item), and `Damaged` for a vector that isn't what was written.
    pub fn for_each<E: From<StoreError>>(
        &self,
        mut visit: impl FnMut(StoredItem, Vec<StoredVector>) -> Result<(), E>,
    ) -> Result<(), E> {
        let sql =
            format!("SELECT {VECTOR_COLUMNS} FROM vectors v WHERE v.item = ?1 ORDER BY v.field, v.part, v.modality");
        let mut statement = self.prepare(&sql)?;
        self.for_each_item(|stored| {
            let rows = statement.query_map([stored.key], read_vector);
            let rows = rows.and_then(|rows| rows.collect::<Result<Vec<_>, _>>()).map_err(|error| self.failed(error))?;
            let vectors = rows.into_iter().map(|row| self.load(&stored.item.id, row)).collect::<Result<_, _>>()?;
            visit(stored, vectors)
        })
    }

    /// All vectors of a field. Every row is compared with its checksum.
    ///
    /// # Errors
    /// `UnknownField`, and failures of the storage.
    pub fn matrix(&self, field: &str) -> Result<FieldMatrix<'_>, StoreError> {
        let (field, vectors) = self.field(field)?;
        let sql =
            format!("SELECT {VECTOR_COLUMNS} FROM vectors v WHERE v.field = ?1 AND v.item IS NOT NULL ORDER BY v.row");
        let mut statement = self.prepare(&sql)?;
        let rows = statement.query_map([field.key], read_vector).map_err(|error| self.failed(error))?;
        let mut matrix = FieldMatrix { values: vectors.values(), live: Vec::new(), damaged: 0 };
        for row in rows {
            let row = row.map_err(|error| self.failed(error))?;
            match row.item.filter(|_| vectors.row(row.row).is_some_and(|values| row.matches(values))) {
                Some(item) => matrix.live.push((row.row, item)),
                None => matrix.damaged += 1,
            }
        }
        Ok(matrix)
    }

    /// One vector of each item of a field, or of `most` items spread evenly where there are more. Only what is returned is read and
    /// compared with its checksum.
    ///
    /// # Errors
    /// `UnknownField`, and failures of the storage.
    pub fn sample_items(&self, field: &str, most: usize) -> Result<ItemSample<'_>, StoreError> {
        let (field, vectors) = self.field(field)?;
        let sql = "SELECT item, row FROM vectors WHERE field = ?1 AND item IS NOT NULL ORDER BY item, part, modality";
        let mut statement = self.prepare(sql)?;
        let pairs = statement.query_map([field.key], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)));
        let pairs = pairs.and_then(|rows| rows.collect::<Result<Vec<_>, _>>());
        let mut firsts = pairs.map_err(|error| self.failed(error))?;
        firsts.dedup_by_key(|(item, _)| *item);
        let taken = most.min(firsts.len());
        let sql = format!("SELECT {VECTOR_COLUMNS} FROM vectors v WHERE v.field = ?1 AND v.row = ?2");
        let mut statement = self.prepare(&sql)?;
        let mut sample = ItemSample { items: firsts.len() as u64, vectors: Vec::with_capacity(taken) };
        for place in 0..taken {
            let (item, row) = firsts[place * firsts.len() / taken];
            let found = statement.query_row([field.key, row], read_vector).map_err(|error| self.failed(error))?;
            if let Some(values) = vectors.row(found.row).filter(|values| found.matches(values)) {
                sample.vectors.push(ItemVector { item, modality: found.modality, values });
            }
        }
        Ok(sample)
    }

    fn load(&self, id: &str, row: VectorRow) -> Result<StoredVector, StoreError> {
        let found = self.fields.iter().find(|(field, _)| field.key == row.field);
        let (field, vectors) = found.ok_or_else(|| {
            self.damaged(format!("a vector of item {id:?} names field {}, which does not exist", row.field))
        })?;
        let values = vectors.row(row.row).filter(|values| row.matches(values)).ok_or_else(|| StoreError::Damaged {
            file: self.layout.vector_file(field.key, field.generation),
            reason: format!("the vector of item {id:?} in row {} is not what was written", row.row),
        })?;
        let span = row.span().map_err(|error| self.failed(error))?;
        let VectorRow { part, modality, precision, cache_key, .. } = row;
        let (field, vector) = (field.field.name.clone(), values.to_vec());
        Ok(StoredVector { field, part, modality, span, precision, cache_key, vector })
    }

    fn field(&self, name: &str) -> Result<&(FieldRow, MappedVectors), StoreError> {
        let found = self.fields.iter().find(|(field, _)| field.field.name == name);
        found.ok_or_else(|| unknown_field(name, &self.fields.iter().map(|(row, _)| row.clone()).collect::<Vec<_>>()))
    }

    fn number(&self, sql: &str, key: i64) -> Result<u64, StoreError> {
        let count = self.prepare(sql)?.query_row([key], |row| row.get::<_, i64>(0));
        count.map(|count| count as u64).map_err(|error| self.failed(error))
    }

    fn prepare(&self, sql: &str) -> Result<rusqlite::CachedStatement<'_>, StoreError> {
        self.connection.prepare_cached(sql).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: rusqlite::Error) -> StoreError {
        StoreError::from(error).in_folder(self.layout.folder())
    }

    fn damaged(&self, reason: String) -> StoreError {
        StoreError::Damaged { file: self.layout.folder().join(layout::DATABASE_NAME), reason }
    }
}
