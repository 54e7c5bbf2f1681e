//! Nearness search over one snapshot: the rows that index and exact scan find, then their items.

use std::sync::Arc;

use crossmodal_index::{IndexError, Neighbor, RowSet, Selection};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row};

use super::derived::{self, Indexes};
use super::filter_cache::FilterCache;
use super::layout::Layout;
use super::rows::{
    FieldRow, ITEM_COLUMNS, VECTOR_COLUMN_COUNT, VECTOR_COLUMNS, load_change, load_field, read_sound_item, read_vector,
};
use super::view::{FieldView, Views};
use crate::{Hit, SearchRequest, StoreError, validate};

/// Answers a search in the state that `connection`'s transaction sees.
pub(super) fn search(
    layout: &Layout,
    views: &Views,
    indexes: &Indexes,
    filters: &FilterCache,
    connection: &Connection,
    request: &SearchRequest,
) -> Result<Vec<Vec<Hit>>, StoreError> {
    let field = load_field(connection, &request.field)?;
    if let Some(space) = &request.space {
        validate::same_space(&field.field, space)?;
    }
    for (index, query) in request.queries.iter().enumerate() {
        validate::query(index, &field.field, query)?;
    }
    let change = load_change(connection)?;
    let view = views.get(layout, connection, &field, change)?;
    let rows = |filter| filters.rows(connection, &field, change, view.live.len(), filter);
    let matching = request.filter.as_ref().map(rows).transpose()?;
    if let Some(hits) = search_view(layout, indexes, connection, &field, &view, matching.as_deref(), request)? {
        return Ok(hits);
    }
    // A row that was found isn't what was written. All rows are checked once, and the damaged ones left out.
    let view = views.exclude_damaged(connection, &field, &view)?;
    let hits = search_view(layout, indexes, connection, &field, &view, matching.as_deref(), request)?;
    hits.ok_or_else(|| StoreError::Damaged {
        file: layout.vector_file(field.key, field.generation),
        reason: "it changed while it was searched".to_owned(),
    })
}

/// The hits, or `None` when one of them is damaged.
fn search_view(
    layout: &Layout,
    indexes: &Indexes,
    connection: &Connection,
    field: &FieldRow,
    view: &Arc<FieldView>,
    matching: Option<&RowSet>,
    request: &SearchRequest,
) -> Result<Option<Vec<Vec<Hit>>>, StoreError> {
    let selected = matching.map(|matching| intersection(&view.live, matching));
    let allowed = selected.as_ref().unwrap_or(&view.live);
    let selection = Selection { allowed: Some(allowed), groups: view.groups.as_ref().map(|groups| &groups[..]) };
    let invalid = |error: IndexError| StoreError::InvalidVector {
        owner: "a query".to_owned(),
        field: request.field.clone(),
        reason: format!("was refused: {error}"),
    };
    let found = derived::search(indexes, layout, field, &view.vectors, request, selection).map_err(invalid)?;
    let mut loader = HitLoader::new(connection, field, view, request.vectors)?;
    let mut lists = Vec::with_capacity(found.len());
    for neighbors in found {
        let mut hits = Vec::with_capacity(neighbors.len());
        for neighbor in neighbors.iter().filter(|neighbor| request.min_score.is_none_or(|min| neighbor.score >= min)) {
            match loader.load(neighbor)? {
                Some(hit) => hits.push(hit),
                None => return Ok(None),
            }
        }
        lists.push(hits);
    }
    Ok(Some(lists))
}

fn intersection(live: &RowSet, matching: &RowSet) -> RowSet {
    let mut both = matching.clone();
    both.intersect(live);
    both
}

/// Reads the items of rows that were found.
struct HitLoader<'a> {
    statement: CachedStatement<'a>,
    field: i64,
    view: &'a FieldView,
    with_vectors: bool,
}

impl<'a> HitLoader<'a> {
    fn new(
        connection: &'a Connection,
        field: &FieldRow,
        view: &'a FieldView,
        with_vectors: bool,
    ) -> Result<Self, StoreError> {
        let sql = format!(
            "SELECT {VECTOR_COLUMNS}, {ITEM_COLUMNS}, i.checksum FROM vectors v JOIN items i ON i.key = v.item
             WHERE v.field = ?1 AND v.row = ?2"
        );
        Ok(Self { statement: connection.prepare_cached(&sql)?, field: field.key, view, with_vectors })
    }

    /// The item of a row, or `None` when the row's values or the item are not what was written.
    fn load(&mut self, neighbor: &Neighbor) -> Result<Option<Hit>, StoreError> {
        let read = |row: &Row<'_>| Ok((read_vector(row)?, read_sound_item(row, VECTOR_COLUMN_COUNT)?));
        let found = self.statement.query_row([self.field, neighbor.row as i64], read).optional()?;
        let Some((vector, Some(item))) = found else { return Ok(None) };
        let values = self.view.vectors.row(neighbor.row).filter(|values| vector.matches(values));
        let Some(values) = values else { return Ok(None) };
        let span = vector.span()?;
        let (part, modality) = (vector.part, vector.modality);
        let values = self.with_vectors.then(|| values.to_vec());
        Ok(Some(Hit { key: item.key, score: neighbor.score, part, modality, span, item: item.item, vector: values }))
    }
}
