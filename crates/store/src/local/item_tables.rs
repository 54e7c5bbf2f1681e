//! Attributes and texts of items: written with the items in one transaction, and derived from them anew where that is
//! needed. They tell nothing that the items don't.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, ToSql, params};

use super::attributes::{Attribute, EVERY_PATH, PENDING, attributes};
use super::item_text::ItemText;
use super::rows::{ITEM_COLUMNS, item_checksum, read_item};
use crate::Item;

/// A row of `attributes` is one value of one item at one path; see [`attributes`](super::attributes). Its key order is
/// that in which filters look values up, so that the table is its own covering index. `texts` keeps no copy of its
/// texts; a row's number is the item's key.
const TABLES: &str = "
CREATE TABLE attribute_paths (
    key INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE attributes (
    path INTEGER NOT NULL,
    value ANY NOT NULL,
    item INTEGER NOT NULL,
    PRIMARY KEY (path, value, item)
) STRICT, WITHOUT ROWID;
CREATE VIRTUAL TABLE texts USING fts5 (
    name, caption, other, content='', contentless_delete=1, tokenize='unicode61 remove_diacritics 2'
);
";
const INSERT_ATTRIBUTE: &str = "INSERT OR IGNORE INTO attributes (path, value, item) VALUES (?1, ?2, ?3)";

/// The attributes of so many items are listed at once. They lie all over the index, where the items of one batch would change
/// nearly as many pages as those of many.
const LISTED_AT_ONCE: i64 = 4096;

/// Creates the empty tables.
pub(super) fn create_tables(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(TABLES)
}

/// Makes the tables anew from the items, inside the caller's transaction. Items that can't be read have nothing in them.
pub(super) fn rebuild(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "DROP TABLE IF EXISTS texts; DROP TABLE IF EXISTS attributes; DROP TABLE IF EXISTS attribute_paths;
         CREATE TEMP TABLE unsorted_attributes (path, value, item);",
    )?;
    create_tables(connection)?;
    let mut tables = ItemTables::new(connection);
    tables.insert = "INSERT INTO temp.unsorted_attributes VALUES (?1, ?2, ?3)";
    let mut statement = connection.prepare(&format!("SELECT {ITEM_COLUMNS} FROM items i ORDER BY i.key"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Ok(stored) = read_item(row, 0) {
            tables.list(stored.key, &stored.item)?;
            tables.add_text(stored.key, &stored.item)?;
        }
    }
    // In order, a table is filled from left to right, page by page.
    connection.execute_batch(
        "INSERT INTO attributes SELECT path, value, item FROM temp.unsorted_attributes ORDER BY 1, 2, 3;
         DROP TABLE temp.unsorted_attributes;",
    )
}

/// Lists what waits for it, merges what updates left in pieces, and forgets paths that no item has; inside the caller's
/// transaction.
pub(super) fn tidy(connection: &Connection) -> rusqlite::Result<()> {
    list_pending(connection)?;
    // Each path is looked up at its place in the index.
    connection.execute_batch(
        "INSERT INTO texts (texts) VALUES ('optimize');
         DELETE FROM attribute_paths WHERE NOT EXISTS (SELECT 1 FROM attributes a WHERE a.path = attribute_paths.key);",
    )
}

/// The keys of the items whose attributes are to be listed, at most so many.
pub(super) fn pending(connection: &Connection, most: i64) -> rusqlite::Result<Vec<i64>> {
    let sql = "SELECT item FROM attributes WHERE path = ?1 AND value = ?2 LIMIT ?3";
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_map(params![EVERY_PATH, PENDING, most], |row| row.get(0))?.collect()
}

/// Lists the attributes of all items that wait for it, inside the caller's transaction.
pub(super) fn list_pending(connection: &Connection) -> rusqlite::Result<()> {
    let mut tables = ItemTables::new(connection);
    let sql = format!("SELECT {ITEM_COLUMNS} FROM items i WHERE i.key = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    for key in pending(connection, -1)? {
        // An item that can't be read has no attributes.
        if let Ok(stored) = statement.query_row([key], |row| read_item(row, 0)) {
            tables.list(key, &stored.item)?;
        }
        tables.delete(EVERY_PATH, PENDING, key)?;
    }
    Ok(())
}

/// As [`list_pending`], when enough items wait.
pub(super) fn list_many_pending(connection: &Connection) -> rusqlite::Result<()> {
    let many = pending(connection, LISTED_AT_ONCE)?.len() as i64 == LISTED_AT_ONCE;
    if many { list_pending(connection) } else { Ok(()) }
}

/// An item that is about to be replaced or removed.
pub(super) struct Known {
    pub key: i64,
    /// None when it isn't what was written, so that nobody knows what was derived from it.
    item: Option<Item>,
}

/// Looks an item up by its id.
pub(super) fn find(connection: &Connection, id: &str) -> rusqlite::Result<Option<Known>> {
    let sql = format!("SELECT {ITEM_COLUMNS}, i.checksum FROM items i WHERE i.id = ?1");
    let read = |row: &rusqlite::Row<'_>| {
        let (metadata, checksum): (String, i64) = (row.get(7)?, row.get(8)?);
        let item = read_item(row, 0).ok().map(|stored| stored.item);
        Ok(Known { key: row.get(0)?, item: item.filter(|item| item_checksum(item, &metadata) == checksum) })
    };
    connection.prepare_cached(&sql)?.query_row([id], read).optional()
}

/// Writes what is derived, inside one transaction.
pub(super) struct ItemTables<'a> {
    connection: &'a Connection,
    insert: &'static str,
    /// Keys of the paths that were met.
    paths: HashMap<String, i64>,
}

impl<'a> ItemTables<'a> {
    pub fn new(connection: &'a Connection) -> Self {
        Self { connection, insert: INSERT_ATTRIBUTE, paths: HashMap::new() }
    }

    /// What was derived from `old` gives way to what `new`, of the same key, says.
    pub fn replace(&mut self, old: &Known, new: &Item) -> rusqlite::Result<()> {
        let same = |old: &Item| old.metadata == new.metadata && old.source == new.source;
        if old.item.as_ref().is_some_and(same) {
            return Ok(());
        }
        self.remove(old)?;
        self.add(old.key, new)
    }

    /// Adds the texts of a new item, and notes that its attributes are to be listed.
    pub fn add(&mut self, key: i64, item: &Item) -> rusqlite::Result<()> {
        self.connection.prepare_cached(INSERT_ATTRIBUTE)?.execute(params![EVERY_PATH, PENDING, key])?;
        self.add_text(key, item)
    }

    /// Lists an item's attributes.
    fn list(&mut self, key: i64, item: &Item) -> rusqlite::Result<()> {
        for Attribute { path, value } in attributes(item) {
            let path = self.path_key(path)?;
            self.connection.prepare_cached(self.insert)?.execute(params![path, value, key])?;
        }
        Ok(())
    }

    fn add_text(&mut self, key: i64, item: &Item) -> rusqlite::Result<()> {
        let ItemText { name, caption, other } = ItemText::of(item);
        let sql = "INSERT INTO texts (rowid, name, caption, other) VALUES (?1, ?2, ?3, ?4)";
        self.connection.prepare_cached(sql)?.execute(params![key, name, caption, other])?;
        Ok(())
    }

    pub fn remove(&mut self, old: &Known) -> rusqlite::Result<()> {
        self.connection.prepare_cached("DELETE FROM texts WHERE rowid = ?1")?.execute([old.key])?;
        let Some(item) = &old.item else {
            // Through the whole table, which nothing but damage makes necessary.
            self.connection.execute("DELETE FROM attributes WHERE item = ?1", [old.key])?;
            return Ok(());
        };
        if self.delete(EVERY_PATH, PENDING, old.key)? == 0 {
            for Attribute { path, value } in attributes(item) {
                let path = self.path_key(path)?;
                self.delete(path, value, old.key)?;
            }
        }
        Ok(())
    }

    fn delete(&self, path: i64, value: impl ToSql, item: i64) -> rusqlite::Result<usize> {
        let sql = "DELETE FROM attributes WHERE path = ?1 AND value = ?2 AND item = ?3";
        self.connection.prepare_cached(sql)?.execute(params![path, value, item])
    }

    fn path_key(&mut self, path: Option<String>) -> rusqlite::Result<i64> {
        let Some(path) = path else { return Ok(EVERY_PATH) };
        if let Some(key) = self.paths.get(&path) {
            return Ok(*key);
        }
        let key = match path_key(self.connection, &path)? {
            Some(key) => key,
            None => {
                let sql = "INSERT INTO attribute_paths (path) VALUES (?1)";
                self.connection.prepare_cached(sql)?.insert([&path])?
            }
        };
        self.paths.insert(path, key);
        Ok(key)
    }
}

/// The key of a path that some item has or had.
pub(super) fn path_key(connection: &Connection, path: &str) -> rusqlite::Result<Option<i64>> {
    let mut statement = connection.prepare_cached("SELECT key FROM attribute_paths WHERE path = ?1")?;
    statement.query_row([path], |row| row.get(0)).optional()
}
