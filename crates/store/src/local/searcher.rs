//! Searches for many queries in one committed state, answered with ids and scores alone.
//!
//! A search that returns whole items reads each of them from the database, which takes longer than finding them does. Here the ids of all rows
//! are read once. What is found is not compared with its checksum: a damaged vector is found or missed by the values it has, until
//! `verify` names it.

use std::sync::Arc;

use crossmodal_index::{IndexError, RowSet, Selection};
use rusqlite::Connection;

use super::rows::{FieldRow, load_change, load_field};
use super::view::FieldView;
use super::{LocalStore, derived};
use crate::{Filter, SearchRequest, StoreError, validate};

/// A field at one moment, ready to be searched.
#[derive(Debug)]
pub struct Searcher<'a> {
    store: &'a LocalStore,
    field: FieldRow,
    view: Arc<FieldView>,
    allowed: Arc<RowSet>,
    /// The id of each live row's item, end to end, and where each row's begins.
    ids: String,
    starts: Vec<usize>,
}

impl LocalStore {
    /// Prepares a field's present state for many searches, restricted to what satisfies a filter.
    ///
    /// # Errors
    /// `UnknownField`, `InvalidFilter`, `Damaged`, and failures of the storage.
    pub fn searcher(&self, field: &str, filter: Option<&Filter>) -> Result<Searcher<'_>, StoreError> {
        self.read(|connection| {
            let row = load_field(connection, field)?;
            let change = load_change(connection)?;
            let view = self.views.get(&self.layout, connection, &row, change)?;
            let allowed = match filter {
                None => view.live.clone(),
                Some(filter) => {
                    let matching = self.filters.rows(connection, &row, change, view.live.len(), filter)?;
                    let mut allowed = (*matching).clone();
                    allowed.intersect(&view.live);
                    Arc::new(allowed)
                }
            };
            let (ids, starts) = load_ids(connection, &row)?;
            Ok(Searcher { store: self, field: row, view, allowed, ids, starts })
        })
    }
}

fn load_ids(connection: &Connection, field: &FieldRow) -> Result<(String, Vec<usize>), StoreError> {
    let sql = "SELECT v.row, i.id FROM vectors v JOIN items i ON i.key = v.item WHERE v.field = ?1 ORDER BY v.row";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([field.key])?;
    let (mut ids, mut starts) = (String::new(), Vec::with_capacity(field.rows as usize + 1));
    while let Some(row) = rows.next()? {
        // Rows without an item have an empty id.
        let number = row.get::<_, i64>(0)?.clamp(0, field.rows as i64) as usize;
        starts.resize(number.max(starts.len()), ids.len());
        starts.push(ids.len());
        ids.push_str(row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?);
    }
    starts.resize(field.rows as usize + 1, ids.len());
    Ok((ids, starts))
}

impl Searcher<'_> {
    /// The nearest items for each query: id and score, best first, one entry an item.
    ///
    /// # Errors
    /// `InvalidVector` for a query of another dimension, or with values that can't be compared.
    pub fn search(
        &self,
        queries: Vec<Vec<f32>>,
        k: usize,
        effort: Option<usize>,
        exact: bool,
    ) -> Result<Vec<Vec<(&str, f32)>>, StoreError> {
        for (index, query) in queries.iter().enumerate() {
            validate::query(index, &self.field.field, query)?;
        }
        let request =
            SearchRequest { queries, effort, exact, ..SearchRequest::new(&self.field.field.name, Vec::new(), k) };
        let groups = self.view.groups.as_ref().map(|groups| &groups[..]);
        let selection = Selection { allowed: Some(&self.allowed), groups };
        let (layout, indexes) = (&self.store.layout, &self.store.indexes);
        let found = derived::search(indexes, layout, &self.field, &self.view.vectors, &request, selection);
        let found = found.map_err(|error: IndexError| StoreError::InvalidVector {
            owner: "a query".to_owned(),
            field: self.field.field.name.clone(),
            reason: format!("was refused: {error}"),
        })?;
        let named = |row: u64| {
            let row = row as usize;
            &self.ids[self.starts[row]..self.starts[row + 1]]
        };
        let named =
            |list: Vec<crossmodal_index::Neighbor>| list.iter().map(|hit| (named(hit.row), hit.score)).collect();
        Ok(found.into_iter().map(named).collect())
    }
}
