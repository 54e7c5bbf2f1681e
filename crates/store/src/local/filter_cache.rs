//! The rows of a field whose items satisfy a filter, and the last such sets, for filters that are used again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crossmodal_index::RowSet;
use rusqlite::Connection;

use super::filter_keys::{Keys, matching_keys};
use super::rows::FieldRow;
use crate::{Filter, StoreError};

/// Bytes of sets and filters that are kept.
const MAX_BYTES: usize = 32 << 20;
/// Below this share of a field's rows, items are looked up one by one; above, the index is read from end to end.
const FEW: u64 = 20;

/// Sets of rows by filter, the last used first. A set belongs to one change of the collection.
#[derive(Debug, Default)]
pub(super) struct FilterCache {
    sets: Mutex<VecDeque<Set>>,
}

#[derive(Debug)]
struct Set {
    field: i64,
    change: i64,
    /// As JSON, which tells any two filters apart.
    filter: String,
    rows: Arc<RowSet>,
}

impl Set {
    fn bytes(&self) -> usize {
        self.filter.len() + self.rows.len() as usize / 8
    }
}

impl FilterCache {
    /// The rows of the field, of its first `len`, whose items satisfy a filter in the state of this change, which
    /// `connection`'s transaction sees.
    pub fn rows(
        &self,
        connection: &Connection,
        field: &FieldRow,
        change: i64,
        len: u64,
        filter: &Filter,
    ) -> Result<Arc<RowSet>, StoreError> {
        let name = serde_json::to_string(filter).unwrap_or_default();
        let fits =
            |set: &Set| set.change == change && set.field == field.key && set.rows.len() == len && set.filter == name;
        let mut sets = self.lock();
        if let Some(at) = sets.iter().position(fits)
            && let Some(set) = sets.remove(at)
        {
            let rows = set.rows.clone();
            sets.push_front(set);
            return Ok(rows);
        }
        drop(sets);
        let keys = matching_keys(connection, filter)?;
        let rows = Arc::new(rows_of(connection, field, len, &keys)?);
        if !name.is_empty() {
            self.keep(Set { field: field.key, change, filter: name, rows: rows.clone() });
        }
        Ok(rows)
    }

    fn keep(&self, set: Set) {
        let mut sets = self.lock();
        // Readers of older states are about to be gone.
        sets.retain(|known| known.change >= set.change);
        sets.push_front(set);
        let mut bytes = 0;
        sets.retain(|known| {
            bytes += known.bytes();
            bytes <= MAX_BYTES
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Set>> {
        // The list is whole at every moment, so that a panic elsewhere does not spoil it.
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rows of a field, of its first `len`, that belong to these items.
fn rows_of(connection: &Connection, field: &FieldRow, len: u64, keys: &Keys) -> rusqlite::Result<RowSet> {
    let mut set = RowSet::none(len);
    if keys.len() < len / FEW {
        let mut statement = connection.prepare_cached("SELECT row FROM vectors WHERE item = ?1 AND field = ?2")?;
        for key in keys {
            let mut rows = statement.query([key as i64, field.key])?;
            while let Some(row) = rows.next()? {
                set.insert(row.get::<_, i64>(0)? as u64);
            }
        }
        return Ok(set);
    }
    // Both orders are those of the keys; the index holds all that is asked for.
    let sql = "SELECT item, row FROM vectors INDEXED BY vectors_by_item WHERE item IS NOT NULL AND field = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([field.key])?;
    let mut keys = keys.iter().peekable();
    while let Some(row) = rows.next()? {
        let item = row.get::<_, i64>(0)? as u64;
        while keys.next_if(|key| *key < item).is_some() {}
        if keys.peek() == Some(&item) {
            set.insert(row.get::<_, i64>(1)? as u64);
        }
    }
    Ok(set)
}
