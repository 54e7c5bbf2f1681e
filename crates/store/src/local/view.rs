//! What a search needs of a field at one committed state: the mapped vectors, and which rows are live.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crossmodal_index::RowSet;
use rusqlite::{Connection, Row};

use super::layout::Layout;
use super::rows::{FieldRow, ITEM_COLUMNS, VECTOR_COLUMN_COUNT, VECTOR_COLUMNS, read_sound_item, read_vector};
use super::vector_file::MappedVectors;
use crate::StoreError;

/// One field at one change. Never modified; a newer state is a new view that shares what stayed the same.
#[derive(Debug)]
pub(super) struct FieldView {
    pub change: i64,
    pub generation: i64,
    pub vectors: Arc<MappedVectors>,
    /// Rows that may be found: those of present items, less those that are known to be damaged.
    pub live: Arc<RowSet>,
    /// The item of each row, -1 for dead ones; only when an item may have several rows.
    pub groups: Option<Arc<Vec<i64>>>,
}

/// The newest view of each field.
#[derive(Debug, Default)]
pub(super) struct Views {
    fields: Mutex<HashMap<i64, Arc<FieldView>>>,
}

impl Views {
    /// The view of a field at the state that `connection`'s transaction sees, made from the last one where possible.
    pub fn get(
        &self,
        layout: &Layout,
        connection: &Connection,
        field: &FieldRow,
        change: i64,
    ) -> Result<Arc<FieldView>, StoreError> {
        let known = self.lock().get(&field.key).cloned();
        let known = known.filter(|view| view.generation == field.generation && view.change <= change);
        if let Some(view) = known.as_ref().filter(|view| view.change == change) {
            return Ok(view.clone());
        }
        let view = Arc::new(build(layout, connection, field, change, known.as_deref())?);
        self.keep(field.key, &view);
        Ok(view)
    }

    /// A view without the rows whose checksums, or whose items' checksums, are wrong. Rows never change, so that newer views build on it.
    pub fn exclude_damaged(
        &self,
        connection: &Connection,
        field: &FieldRow,
        view: &FieldView,
    ) -> Result<Arc<FieldView>, StoreError> {
        let mut live = (*view.live).clone();
        let sql = format!(
            "SELECT {VECTOR_COLUMNS}, {ITEM_COLUMNS}, i.checksum FROM vectors v LEFT JOIN items i ON i.key = v.item
             WHERE v.field = ?1 AND v.item IS NOT NULL"
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let read = |row: &Row<'_>| {
            // Nothing but NULL where the item doesn't exist.
            let item = read_sound_item(row, VECTOR_COLUMN_COUNT).ok().flatten();
            Ok((read_vector(row)?, item.is_some()))
        };
        for row in statement.query_map([field.key], read)? {
            let (row, item_is_sound) = row?;
            if !item_is_sound || !view.vectors.row(row.row).is_some_and(|values| row.matches(values)) {
                live.remove(row.row);
            }
        }
        let view = Arc::new(FieldView {
            change: view.change,
            generation: view.generation,
            vectors: view.vectors.clone(),
            live: Arc::new(live),
            groups: view.groups.clone(),
        });
        // Kept also in place of a view of the same change.
        self.lock().insert(field.key, view.clone());
        Ok(view)
    }

    fn keep(&self, field: i64, view: &Arc<FieldView>) {
        let mut fields = self.lock();
        // Another thread may have seen a newer state meanwhile.
        if fields.get(&field).is_none_or(|known| known.change < view.change) {
            fields.insert(field, view.clone());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Arc<FieldView>>> {
        // The map is whole at every moment, so that a panic elsewhere does not spoil it.
        self.fields.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn build(
    layout: &Layout,
    connection: &Connection,
    field: &FieldRow,
    change: i64,
    known: Option<&FieldView>,
) -> Result<FieldView, StoreError> {
    let path = layout.vector_file(field.key, field.generation);
    let vectors = match known {
        Some(view) if view.vectors.rows() == field.rows => view.vectors.clone(),
        _ => Arc::new(MappedVectors::open(&path, field.header(), field.rows)?),
    };
    let (since, mut live) = match known {
        Some(view) => (view.change, (*view.live).clone()),
        None => (-1, RowSet::none(0)),
    };
    live.extend_with_members(vectors.rows());
    let sql = "SELECT row FROM vectors WHERE field = ?1 AND died > ?2";
    let mut statement = connection.prepare_cached(sql)?;
    for row in statement.query_map([field.key, since], |row| row.get::<_, i64>(0))? {
        live.remove(row? as u64);
    }
    let groups = match (field.multiple, known.and_then(|view| view.groups.as_deref())) {
        (false, _) => None,
        (true, Some(known)) => Some(extend_groups(connection, field, vectors.rows(), known.clone())?),
        (true, None) => Some(extend_groups(connection, field, vectors.rows(), Vec::new())?),
    };
    let groups = groups.map(Arc::new);
    Ok(FieldView { change, generation: field.generation, vectors, live: Arc::new(live), groups })
}

/// Adds the items of the rows that `groups` doesn't reach yet. Rows never move to another item.
fn extend_groups(
    connection: &Connection,
    field: &FieldRow,
    rows: u64,
    mut groups: Vec<i64>,
) -> rusqlite::Result<Vec<i64>> {
    let first = groups.len() as i64;
    groups.resize(rows as usize, -1);
    let sql = "SELECT row, item FROM vectors WHERE field = ?1 AND row >= ?2 AND item IS NOT NULL";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([field.key, first])?;
    while let Some(row) = rows.next()? {
        if let Some(group) = groups.get_mut(row.get::<_, i64>(0)? as usize) {
            *group = row.get(1)?;
        }
    }
    Ok(groups)
}
