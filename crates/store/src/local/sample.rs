//! Some vectors of a field, spread evenly over its rows: what statistics are made of.

use rusqlite::{Connection, OptionalExtension};

use super::layout::Layout;
use super::rows::{VECTOR_COLUMNS, VectorRow, load_change, load_field, read_vector};
use super::view::Views;
use crate::{StoreError, StoredVector};

/// At most `count` vectors of a field in the order of their rows. Damaged ones are left out.
pub(super) fn sample(
    layout: &Layout,
    views: &Views,
    connection: &Connection,
    field: &str,
    count: usize,
) -> Result<Vec<StoredVector>, StoreError> {
    let field = load_field(connection, field)?;
    let view = views.get(layout, connection, &field, load_change(connection)?)?;
    let live: Vec<u64> = (0..view.live.len()).filter(|row| view.live.contains(*row)).collect();
    let taken = count.min(live.len());
    let sql = format!("SELECT {VECTOR_COLUMNS} FROM vectors v WHERE v.field = ?1 AND v.row = ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut vectors = Vec::with_capacity(taken);
    for place in 0..taken {
        let row = live[place * live.len() / taken];
        let found = statement.query_row([field.key, row as i64], read_vector).optional()?;
        let values = view.vectors.row(row);
        let (Some(found), Some(values)) = (found, values) else { continue };
        if found.matches(values) {
            let span = found.span()?;
            let VectorRow { part, modality, precision, cache_key, .. } = found;
            let (field, vector) = (field.field.name.clone(), values.to_vec());
            vectors.push(StoredVector { field, part, modality, span, precision, cache_key, vector });
        }
    }
    Ok(vectors)
}
