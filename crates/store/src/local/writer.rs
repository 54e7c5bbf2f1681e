//! Writing: vectors are appended and synced, then the rows that name them are committed.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::item_tables::{self, ItemTables};
use super::layout::{Layout, sync_folder};
use super::lock::WriterLock;
use super::rows::{FieldRow, VectorRow, item_checksum, load_change, load_field, load_fields, unknown_field};
use super::vector_file::VectorWriter;
use crate::{Field, Item, ItemVectors, StoreError, VectorRecord, validate};

/// The one writer of a collection. The connection closes before the lock is given back.
#[derive(Debug)]
pub(super) struct Writer {
    pub connection: Connection,
    pub files: HashMap<i64, VectorWriter>,
    pub layout: Layout,
    _lock: WriterLock,
}

/// Vectors on their way into the files: for each field its values, and for each vector its row.
#[derive(Debug, Default)]
struct Appends {
    fields: BTreeMap<i64, FieldAppends>,
}

#[derive(Debug)]
struct FieldAppends {
    committed_rows: u64,
    added_rows: u64,
    multiple: bool,
    values: Vec<f32>,
}

impl Appends {
    /// Gives the vectors of one item their rows.
    fn add(&mut self, fields: &[FieldRow], id: &str, records: &[VectorRecord]) -> Result<Vec<VectorRow>, StoreError> {
        let mut counts = HashMap::<i64, usize>::new();
        let mut rows = Vec::with_capacity(records.len());
        for record in records {
            let field = fields.iter().find(|field| field.field.name == record.field);
            let field = field.ok_or_else(|| unknown_field(&record.field, fields))?;
            let values = validate::vector(id, &field.field, record)?;
            let appends = self.fields.entry(field.key).or_insert_with(|| FieldAppends {
                committed_rows: field.rows,
                added_rows: 0,
                multiple: field.multiple,
                values: Vec::new(),
            });
            let mut row = VectorRow {
                field: field.key,
                row: appends.committed_rows + appends.added_rows,
                item: None,
                part: record.part,
                modality: record.modality.clone(),
                span: record.span.as_ref().and_then(|span| serde_json::to_string(span).ok()),
                precision: record.precision.clone(),
                cache_key: record.cache_key,
                checksum: None,
            };
            row.checksum = Some(row.compute_checksum(&values));
            appends.values.extend_from_slice(&values);
            appends.added_rows += 1;
            let count = counts.entry(field.key).or_default();
            *count += 1;
            appends.multiple |= *count > 1;
            rows.push(row);
        }
        Ok(rows)
    }
}

impl Writer {
    pub fn new(connection: Connection, layout: Layout, lock: WriterLock) -> Self {
        Self { connection, files: HashMap::new(), layout, _lock: lock }
    }

    /// Opens every vector file, cuts uncommitted tails and removes files that no row names.
    pub fn open_files(&mut self) -> Result<(), StoreError> {
        let fields = load_fields(&self.connection)?;
        let used = |key, generation| fields.iter().any(|field| field.key == key && field.generation == generation);
        self.layout.remove_unused_files(used);
        for field in fields {
            let path = self.layout.vector_file(field.key, field.generation);
            self.files.insert(field.key, VectorWriter::open(&path, field.header(), field.rows)?);
        }
        Ok(())
    }

    /// Lists the attributes of items that wait for it, which changes no answer.
    pub fn list_pending(&mut self) -> Result<(), StoreError> {
        if !item_tables::pending(&self.connection, 1)?.is_empty() {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            item_tables::list_pending(&transaction)?;
            transaction.commit()?;
        }
        Ok(())
    }

    /// Runs `body` in one transaction with the number of its change; nothing stays when it fails.
    pub fn transaction<T>(
        &mut self,
        body: impl FnOnce(&Transaction<'_>, i64) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute("UPDATE collection SET change = change + 1", [])?;
        let change = load_change(&transaction)?;
        let value = body(&transaction, change)?;
        transaction.commit()?;
        Ok(value)
    }

    pub fn ensure_field(&mut self, wanted: &Field) -> Result<(), StoreError> {
        validate::field(wanted)?;
        let fields = load_fields(&self.connection)?;
        if let Some(existing) = fields.iter().find(|field| field.field.name == wanted.name) {
            return validate::same_field(&existing.field, wanted);
        }
        let layout = self.layout.clone();
        let (key, file) = self.transaction(|transaction, _| {
            let insert = "INSERT INTO fields (name, space_id, model, dimension, metric, generation, rows, multiple)
                          VALUES (?1, ?2, ?3, ?4, ?5, 1, 0, 0)";
            let (space, metric) = (&wanted.space, wanted.metric.as_str());
            transaction
                .execute(insert, params![wanted.name, space.id, space.model, wanted.dimension as i64, metric])?;
            let key = transaction.last_insert_rowid();
            let row = FieldRow { key, field: wanted.clone(), generation: 1, rows: 0, multiple: false };
            let file = VectorWriter::create(&layout.vector_file(key, 1), row.header())?;
            sync_folder(&layout.vectors())?;
            Ok((key, file))
        })?;
        self.files.insert(key, file);
        Ok(())
    }

    /// Forgets a field with all of its vectors; the items stay.
    pub fn drop_field(&mut self, name: &str) -> Result<u64, StoreError> {
        let field = load_field(&self.connection, name)?;
        let dropped = self.transaction(|transaction, _| {
            let dropped = transaction.execute("DELETE FROM vectors WHERE field = ?1", [field.key])?;
            transaction.execute("DELETE FROM fields WHERE key = ?1", [field.key])?;
            Ok(dropped as u64)
        })?;
        self.files.remove(&field.key);
        self.remove_unused()?;
        Ok(dropped)
    }

    pub fn upsert(&mut self, batch: &[ItemVectors]) -> Result<Vec<i64>, StoreError> {
        validate::batch(batch)?;
        let fields = load_fields(&self.connection)?;
        let mut appends = Appends::default();
        let mut rows = Vec::with_capacity(batch.len());
        for entry in batch {
            let metadata = validate::item(&entry.item)?;
            rows.push((metadata, appends.add(&fields, &entry.item.id, &entry.vectors)?));
        }
        self.append_and_commit(&appends, |transaction, change| {
            let mut tables = ItemTables::new(transaction);
            let mut keys = Vec::with_capacity(batch.len());
            for (entry, (metadata, vectors)) in batch.iter().zip(&rows) {
                let key = put_item(transaction, &mut tables, &entry.item, metadata, change)?;
                kill_vectors(transaction, key, None, change)?;
                insert_vectors(transaction, key, vectors)?;
                keys.push(key);
            }
            item_tables::list_many_pending(transaction)?;
            Ok(keys)
        })
    }

    pub fn put_vectors(&mut self, batch: &[(String, Vec<VectorRecord>)]) -> Result<(), StoreError> {
        validate::unique_ids(batch.iter().map(|(id, _)| id.as_str()))?;
        let fields = load_fields(&self.connection)?;
        let mut appends = Appends::default();
        let mut rows = Vec::with_capacity(batch.len());
        for (id, records) in batch {
            validate::unique_vectors(id, records)?;
            let key = find_item(&self.connection, id)?;
            let key = key.ok_or_else(|| StoreError::UnknownItem { id: id.clone() })?;
            rows.push((key, appends.add(&fields, id, records)?));
        }
        self.append_and_commit(&appends, |transaction, change| {
            for (key, vectors) in &rows {
                let mut replaced: Vec<_> = vectors.iter().map(|vector| vector.field).collect();
                replaced.sort_unstable();
                replaced.dedup();
                for field in replaced {
                    kill_vectors(transaction, *key, Some(field), change)?;
                }
                insert_vectors(transaction, *key, vectors)?;
                transaction.prepare_cached("UPDATE items SET changed = ?2 WHERE key = ?1")?.execute([*key, change])?;
            }
            Ok(())
        })
    }

    pub fn touch(&mut self, items: &[Item]) -> Result<usize, StoreError> {
        validate::unique_ids(items.iter().map(|item| item.id.as_str()))?;
        let metadata: Vec<_> = items.iter().map(validate::item).collect::<Result<_, _>>()?;
        self.transaction(|transaction, change| {
            let (mut tables, mut count) = (ItemTables::new(transaction), 0);
            for (item, metadata) in items.iter().zip(&metadata) {
                if find_item(transaction, &item.id)?.is_some() {
                    put_item(transaction, &mut tables, item, metadata, change)?;
                    count += 1;
                }
            }
            item_tables::list_many_pending(transaction)?;
            Ok(count)
        })
    }

    pub fn remove(&mut self, ids: &[String]) -> Result<usize, StoreError> {
        self.transaction(|transaction, change| {
            let (mut tables, mut count) = (ItemTables::new(transaction), 0);
            for id in ids {
                if let Some(known) = item_tables::find(transaction, id)? {
                    kill_vectors(transaction, known.key, None, change)?;
                    tables.remove(&known)?;
                    count += transaction.prepare_cached("DELETE FROM items WHERE key = ?1")?.execute([known.key])?;
                }
            }
            Ok(count)
        })
    }

    pub fn set_setting(&mut self, name: &str, value: &serde_json::Value) -> Result<(), StoreError> {
        validate::setting_name(name)?;
        self.transaction(|transaction, _| {
            let sql = "INSERT INTO settings VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
            transaction.execute(sql, params![name, value.to_string()])?;
            Ok(())
        })
    }

    /// The order that keeps both truths in step: files first, durably, then the rows. When either fails, the files are
    /// cut back to the rows that are committed.
    fn append_and_commit<T>(
        &mut self,
        appends: &Appends,
        body: impl FnOnce(&Transaction<'_>, i64) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let result = self.append(appends).and_then(|()| {
            self.transaction(|transaction, change| {
                let value = body(transaction, change)?;
                for (key, added) in &appends.fields {
                    let rows = (added.committed_rows + added.added_rows) as i64;
                    let sql = "UPDATE fields SET rows = ?2, multiple = ?3 WHERE key = ?1";
                    transaction.prepare_cached(sql)?.execute(params![key, rows, added.multiple])?;
                }
                Ok(value)
            })
        });
        if result.is_err() {
            self.cut_tails();
        }
        result
    }

    fn append(&mut self, appends: &Appends) -> Result<(), StoreError> {
        for (key, added) in &appends.fields {
            if let Some(file) = self.files.get_mut(key) {
                file.append(added.committed_rows, &added.values)?;
            } else {
                let reason = format!("field {key} has no open vector file");
                return Err(StoreError::Damaged { file: self.layout.vectors(), reason });
            }
        }
        Ok(())
    }

    /// Cuts files back to what the database says now. Failing to is harmless: the next batch overwrites the tail, and
    /// the next opening cuts it.
    fn cut_tails(&mut self) {
        for field in load_fields(&self.connection).unwrap_or_default() {
            if let Some(file) = self.files.get(&field.key) {
                let _ = file.cut(field.rows);
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // What fails here is done by the next writer.
        let _ = self.list_pending();
    }
}

fn find_item(connection: &Connection, id: &str) -> rusqlite::Result<Option<i64>> {
    let mut statement = connection.prepare_cached("SELECT key FROM items WHERE id = ?1")?;
    statement.query_row([id], |row| row.get(0)).optional()
}

/// Inserts an item, or replaces everything of it but its key and its vectors.
pub(super) fn put_item(
    connection: &Connection,
    tables: &mut ItemTables<'_>,
    item: &Item,
    metadata: &str,
    change: i64,
) -> rusqlite::Result<i64> {
    let known = item_tables::find(connection, &item.id)?;
    let sql = "INSERT INTO items (id, uri, size, modified_ns, content_hash, modality, metadata, changed, checksum)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
               ON CONFLICT (id) DO UPDATE SET uri = excluded.uri, size = excluded.size,
                   modified_ns = excluded.modified_ns, content_hash = excluded.content_hash,
                   modality = excluded.modality, metadata = excluded.metadata, changed = excluded.changed,
                   checksum = excluded.checksum
               RETURNING key";
    let source = item.source.as_ref();
    let values = params![
        item.id,
        source.map(|source| &source.uri),
        source.and_then(|source| source.size).map(|size| size as i64),
        source.and_then(|source| source.modified_ns),
        item.content_hash,
        item.modality,
        metadata,
        change,
        item_checksum(item, metadata),
    ];
    let key = connection.prepare_cached(sql)?.query_row(values, |row| row.get(0))?;
    match known {
        Some(known) => tables.replace(&known, item)?,
        None => tables.add(key, item)?,
    }
    Ok(key)
}

/// Takes an item's vectors away from it, in one field or in all; they stay as a cache.
fn kill_vectors(connection: &Connection, item: i64, field: Option<i64>, change: i64) -> rusqlite::Result<usize> {
    let sql = "UPDATE vectors SET item = NULL, died = ?2 WHERE item = ?1 AND (?3 IS NULL OR field = ?3)";
    connection.prepare_cached(sql)?.execute(params![item, change, field])
}

fn insert_vectors(connection: &Connection, item: i64, vectors: &[VectorRow]) -> rusqlite::Result<()> {
    let sql = "INSERT INTO vectors (field, row, item, part, modality, span, precision, cache_key, checksum)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let mut statement = connection.prepare_cached(sql)?;
    for v in vectors {
        let row = v.row as i64;
        statement.execute(params![
            v.field,
            row,
            item,
            v.part,
            v.modality,
            v.span,
            v.precision,
            v.cache_key,
            v.checksum
        ])?;
    }
    Ok(())
}
