//! Compaction: live vectors are copied into files of a new generation, which one transaction switches to.
//!
//! Killed before the commit, the new files are unused and removed at the next opening; killed after it, the old ones
//! are. Readers that mapped an old file keep it until they look again.

use rusqlite::{TransactionBehavior, params};

use super::item_tables;
use super::layout::sync_folder;
use super::rows::{FieldRow, load_fields};
use super::vector_file::{Header, MappedVectors, VectorWriter, too_short};
use super::writer::Writer;
use crate::{CompactReport, StoreError};

/// Values that are copied at a time.
const COPY_VALUES: usize = 1 << 20;

/// One field on its way into its next generation.
struct NewGeneration {
    field: i64,
    generation: i64,
    /// The old rows that stay; their positions are their new rows.
    kept: Vec<u64>,
    dropped: u64,
    file: VectorWriter,
}

impl Writer {
    pub fn compact(&mut self) -> Result<CompactReport, StoreError> {
        let bytes_before = self.layout.bytes();
        let mut generations = Vec::new();
        for field in load_fields(&self.connection)? {
            match self.copy_live(&field) {
                Ok(Some(generation)) => generations.push(generation),
                Ok(None) => {}
                Err(error) => {
                    self.remove_unused()?;
                    return Err(error);
                }
            }
        }
        sync_folder(&self.layout.vectors())?;
        let dropped_vectors = generations.iter().map(|generation| generation.dropped).sum();
        let switched = if generations.is_empty() { Ok(()) } else { self.switch(&generations) };
        if switched.is_ok() {
            self.files.extend(generations.into_iter().map(|generation| (generation.field, generation.file)));
        }
        self.remove_unused()?;
        switched?;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        item_tables::tidy(&transaction)?;
        transaction.commit()?;
        self.connection.execute_batch("VACUUM")?;
        // Busy readers may keep the log as long as it is; the next checkpoint cuts it.
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(CompactReport { dropped_vectors, bytes_before, bytes_after: self.layout.bytes() })
    }

    /// Copies the live rows of a field, synced; `None` when all rows are live.
    fn copy_live(&self, field: &FieldRow) -> Result<Option<NewGeneration>, StoreError> {
        let sql = "SELECT row FROM vectors WHERE field = ?1 AND item IS NOT NULL ORDER BY row";
        let mut statement = self.connection.prepare(sql)?;
        let rows = statement.query_map([field.key], |row| row.get::<_, i64>(0))?;
        let kept: Vec<u64> = rows.map(|row| row.map(|row| row as u64)).collect::<Result<_, _>>()?;
        if kept.len() as u64 == field.rows {
            return Ok(None);
        }
        let path = self.layout.vector_file(field.key, field.generation);
        let vectors = MappedVectors::open(&path, field.header(), field.rows)?;
        let generation = field.generation + 1;
        let header = Header { generation, ..field.header() };
        let mut file = VectorWriter::create(&self.layout.vector_file(field.key, generation), header)?;
        let rows_at_once = (COPY_VALUES / field.field.dimension).max(1);
        let mut values = Vec::new();
        for (chunk, rows) in kept.chunks(rows_at_once).enumerate() {
            values.clear();
            for row in rows {
                // Copied as they are, with their checksums: a damaged vector stays reported as damaged.
                let row = vectors.row(*row).ok_or_else(|| too_short(&path, vectors.rows(), field.rows))?;
                values.extend_from_slice(row);
            }
            file.write_at((chunk * rows_at_once) as u64, &values)?;
        }
        file.sync()?;
        let dropped = field.rows - kept.len() as u64;
        Ok(Some(NewGeneration { field: field.key, generation, kept, dropped, file }))
    }

    fn switch(&mut self, generations: &[NewGeneration]) -> Result<(), StoreError> {
        self.transaction(|transaction, _| {
            for new in generations {
                transaction.execute("DELETE FROM vectors WHERE field = ?1 AND item IS NULL", [new.field])?;
                // In rising order a new row is always free: the dead are gone and the live before it have moved.
                let mut renumber = transaction.prepare("UPDATE vectors SET row = ?3 WHERE field = ?1 AND row = ?2")?;
                for (row, old) in new.kept.iter().enumerate().filter(|(row, old)| *row as u64 != **old) {
                    renumber.execute(params![new.field, *old as i64, row as i64])?;
                }
                let sql = "UPDATE fields SET generation = ?2, rows = ?3 WHERE key = ?1";
                transaction.execute(sql, params![new.field, new.generation, new.kept.len() as i64])?;
            }
            Ok(())
        })
    }

    /// Removes the files of all generations but the committed ones.
    pub(super) fn remove_unused(&self) -> Result<(), StoreError> {
        let fields = load_fields(&self.connection)?;
        let used = |key, generation| fields.iter().any(|field| field.key == key && field.generation == generation);
        self.layout.remove_unused_files(used);
        Ok(())
    }
}
