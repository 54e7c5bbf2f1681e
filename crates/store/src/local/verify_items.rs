//! Checks that attributes and texts are those that the items give.
//!
//! Each row is hashed, and the hashes of an item's rows are added up: once over the rows that are there, once over those
//! that the item gives. The texts that the items give are cut into words by the database too, a few items at a time, in a
//! table in memory.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};

use super::attributes::{Attribute, EVERY_PATH, PENDING, attributes};
use super::item_tables::{create_tables, pending};
use super::item_text::ItemText;
use super::rows::{ITEM_COLUMNS, item_checksum, read_item};
use crate::{Item, StoreError};

/// Items whose texts are in memory at a time.
const ITEMS_AT_ONCE: usize = 2_000;

/// What disagrees: items by id, and rows of items that don't exist.
#[derive(Debug, Default)]
pub(super) struct Disagreements {
    pub attributes: Vec<String>,
    pub texts: Vec<String>,
}

impl Disagreements {
    pub fn is_empty(&self) -> bool {
        self.attributes.is_empty() && self.texts.is_empty()
    }
}

/// Whether nothing disagrees and the tables can be read.
pub(super) fn is_sound(connection: &Connection) -> bool {
    let fts = connection.execute("INSERT INTO texts (texts, rank) VALUES ('integrity-check', 0)", []);
    fts.is_ok() && compare(connection).is_ok_and(|disagreements| disagreements.is_empty())
}

/// Sums of hashes by item key; an item without rows and one whose sum is 0 are the same.
type Sums = HashMap<i64, u64>;

/// Compares everything in the state that `connection`'s transaction sees. Items that aren't what was written are not
/// compared, as nobody knows what they gave.
pub(super) fn compare(connection: &Connection) -> Result<Disagreements, StoreError> {
    let mut attribute_sums = attribute_sums(connection)?;
    let pending: HashSet<i64> = pending(connection, -1)?.into_iter().collect();
    let mut text_sums = Sums::new();
    add_text_sums(connection, &mut text_sums, 1)?;
    let sql = format!("SELECT {ITEM_COLUMNS}, i.checksum FROM items i ORDER BY i.key");
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let mut some = Vec::new();
    while let Some(row) = rows.next()? {
        let key = row.get(0)?;
        let Some(item) = sound_item(row) else {
            attribute_sums.remove(&key);
            text_sums.remove(&key);
            continue;
        };
        if pending.contains(&key) {
            subtract(&mut attribute_sums, key, value_hash(None, ValueRef::Blob(PENDING)));
        } else {
            attributes(&item).iter().for_each(|own| subtract(&mut attribute_sums, key, attribute_hash(own)));
        }
        some.push((key, ItemText::of(&item)));
        if some.len() == ITEMS_AT_ONCE {
            subtract_texts(&mut text_sums, &mut some)?;
        }
    }
    subtract_texts(&mut text_sums, &mut some)?;
    let (attributes, texts) = (disagreeing(connection, attribute_sums)?, disagreeing(connection, text_sums)?);
    Ok(Disagreements { attributes, texts })
}

/// The ids of the items whose sums don't come out even, sorted.
fn disagreeing(connection: &Connection, sums: Sums) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT id FROM items WHERE key = ?1")?;
    let mut name = |key: i64| {
        let id = statement.query_row([key], |row| row.get(0)).optional()?;
        Ok(id.unwrap_or_else(|| format!("of the missing key {key}")))
    };
    let keys = sums.into_iter().filter(|(_, sum)| *sum != 0);
    let mut names = keys.map(|(key, _)| name(key)).collect::<rusqlite::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn sound_item(row: &rusqlite::Row<'_>) -> Option<Item> {
    let (metadata, checksum): (String, i64) = (row.get(7).ok()?, row.get(8).ok()?);
    let item = read_item(row, 0).ok()?.item;
    (item_checksum(&item, &metadata) == checksum).then_some(item)
}

fn subtract(sums: &mut Sums, key: i64, hash: u64) {
    let sum = sums.entry(key).or_default();
    *sum = sum.wrapping_sub(hash);
}

fn hash(content: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

/// Kinds are told apart, as equal bytes of two kinds are different values.
fn value_hash(path: Option<&str>, value: ValueRef<'_>) -> u64 {
    match value {
        ValueRef::Null => hash((path, 0)),
        ValueRef::Integer(number) => hash((path, 1, number)),
        ValueRef::Real(number) => hash((path, 2, number.to_bits())),
        ValueRef::Text(text) => hash((path, 3, text)),
        ValueRef::Blob(bytes) => hash((path, 4, bytes)),
    }
}

fn attribute_hash(attribute: &Attribute) -> u64 {
    value_hash(attribute.path.as_deref(), ValueRef::from(&attribute.value))
}

fn attribute_sums(connection: &Connection) -> rusqlite::Result<Sums> {
    let mut paths = HashMap::new();
    let mut statement = connection.prepare("SELECT key, path FROM attribute_paths")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        paths.insert(row.get::<_, i64>(0)?, row.get::<_, String>(1)?);
    }
    let mut sums = Sums::new();
    let mut statement = connection.prepare("SELECT path, value, item FROM attributes")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (path, item): (i64, i64) = (row.get(0)?, row.get(2)?);
        let hash = match paths.get(&path) {
            None if path != EVERY_PATH => hash(("a path that doesn't exist", path)),
            name => value_hash(name.map(String::as_str), row.get_ref(1)?),
        };
        let sum = sums.entry(item).or_default();
        *sum = sum.wrapping_add(hash);
    }
    Ok(sums)
}

/// Adds the hashes of all words of the connection's table of texts, `sign` times.
fn add_text_sums(connection: &Connection, sums: &mut Sums, sign: u64) -> rusqlite::Result<()> {
    connection.execute_batch("CREATE VIRTUAL TABLE temp.words USING fts5vocab (main, texts, instance)")?;
    let mut statement = connection.prepare("SELECT doc, term, col, offset FROM temp.words")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let place = (row.get_ref(1)?.as_bytes()?, row.get_ref(2)?.as_bytes()?, row.get::<_, i64>(3)?);
        let sum = sums.entry(row.get(0)?).or_default();
        *sum = sum.wrapping_add(hash(place).wrapping_mul(sign));
    }
    drop(rows);
    drop(statement);
    connection.execute_batch("DROP TABLE temp.words")
}

/// Takes away what these items give, and empties the list.
fn subtract_texts(sums: &mut Sums, items: &mut Vec<(i64, ItemText)>) -> rusqlite::Result<()> {
    let memory = Connection::open_in_memory()?;
    create_tables(&memory)?;
    let transaction = memory.unchecked_transaction()?;
    let sql = "INSERT INTO texts (rowid, name, caption, other) VALUES (?1, ?2, ?3, ?4)";
    let mut statement = transaction.prepare(sql)?;
    for (key, text) in items.drain(..) {
        statement.execute(params![key, text.name, text.caption, text.other])?;
    }
    drop(statement);
    transaction.commit()?;
    // Minus one times.
    add_text_sums(&memory, sums, u64::MAX)
}
