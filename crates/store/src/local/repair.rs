//! Repair: vectors that are damaged or lost are given up, so that the rest can be written to again and their items are
//! embedded again; what is derived from the items is made anew where it isn't what they give.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, params};

use super::item_tables::{self, ItemTables};
use super::rows::{ITEM_COLUMNS, load_fields, read_item};
use super::vector_file::{MappedVectors, VectorWriter};
use super::verify::lost_rows;
use super::verify_items;
use super::writer::{Writer, put_item};
use crate::{Item, StoreError, validate};

impl Writer {
    /// Restores every vector file to its length and header, takes vectors that aren't what was written away from their
    /// items, and clears those items' content hashes, so that an incremental run embeds them again. Returns their ids.
    pub fn repair(&mut self) -> Result<Vec<String>, StoreError> {
        if !verify_items::is_sound(&self.connection) {
            self.transaction(|transaction, _| Ok(item_tables::rebuild(transaction)?))?;
        }
        let mut ids = BTreeSet::new();
        for field in load_fields(&self.connection)? {
            let path = self.layout.vector_file(field.key, field.generation);
            self.files.insert(field.key, VectorWriter::restore(&path, field.header(), field.rows)?);
            let vectors = MappedVectors::open(&path, field.header(), field.rows)?;
            let lost = lost_rows(&self.connection, &field, Some(&vectors))?;
            if lost.is_empty() {
                continue;
            }
            ids.extend(self.transaction(|transaction, change| {
                let (mut tables, mut affected) = (ItemTables::new(transaction), Vec::new());
                for row in &lost {
                    let sql = "UPDATE vectors SET item = NULL, died = coalesce(died, ?3), cache_key = NULL,
                               checksum = NULL WHERE field = ?1 AND row = ?2";
                    transaction.execute(sql, params![row.field, row.row as i64, change])?;
                    if let Some(mut item) = row.item.map(|key| load_item(transaction, key)).transpose()?.flatten() {
                        forget_content(&mut item);
                        put_item(transaction, &mut tables, &item, &validate::item(&item)?, change)?;
                        affected.push(item.id);
                    }
                }
                Ok(affected)
            })?);
        }
        Ok(ids.into_iter().collect())
    }
}

fn load_item(connection: &Connection, key: i64) -> rusqlite::Result<Option<Item>> {
    let sql = format!("SELECT {ITEM_COLUMNS} FROM items i WHERE i.key = ?1");
    connection.query_row(&sql, [key], |row| read_item(row, 0)).optional().map(|stored| stored.map(|stored| stored.item))
}

/// Removes everything that tells an incremental run that an item is up to date.
fn forget_content(item: &mut Item) {
    item.content_hash = None;
    if let Some(source) = &mut item.source {
        source.size = None;
        source.modified_ns = None;
    }
}
