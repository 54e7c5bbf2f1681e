//! Reading items, vectors and counts in one snapshot.

use std::collections::HashMap;

use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use super::derived::Indexes;
use super::filter_keys::matching_keys;
use super::layout::Layout;
use super::rows::{
    FieldRow, ITEM_COLUMNS, VECTOR_COLUMNS, VectorRow, load_change, load_field, load_fields, read_item, read_vector,
};
use super::view::Views;
use super::{layout, schema};
use crate::{
    CacheKey, CachedVector, CollectionInfo, FieldInfo, Filter, IndexState, ListRequest, StoreError, StoredItem,
    StoredVector,
};

pub(super) fn info(
    layout: &Layout,
    views: &Views,
    indexes: &Indexes,
    connection: &Connection,
) -> Result<CollectionInfo, StoreError> {
    let count = |sql: &str, key: i64| -> rusqlite::Result<u64> {
        connection.prepare_cached(sql)?.query_row([key], |row| row.get::<_, i64>(0)).map(|count| count as u64)
    };
    let change = load_change(connection)?;
    let mut fields = Vec::new();
    for row in load_fields(connection)? {
        let dead_vectors = count("SELECT count(*) FROM vectors WHERE field = ?1 AND died IS NOT NULL", row.key)?;
        let bytes = row.header().file_length(row.rows);
        // What is wrong with a vector file is told by those who need the vectors.
        let index = match views.get(layout, connection, &row, change) {
            Ok(view) => indexes.state(layout, &row, &view.vectors),
            Err(_) => IndexState::Missing,
        };
        fields.push(FieldInfo {
            vectors: row.rows.saturating_sub(dead_vectors),
            dead_vectors,
            bytes,
            index,
            field: row.field,
        });
    }
    Ok(CollectionInfo {
        location: layout.folder().display().to_string(),
        format_version: schema::version(connection)?,
        change: change as u64,
        items: count("SELECT count(*) FROM items WHERE key > ?1", -1)?,
        fields,
        bytes: layout.bytes(),
    })
}

pub(super) fn get(connection: &Connection, ids: &[String]) -> Result<Vec<Option<StoredItem>>, StoreError> {
    let sql = format!("SELECT {ITEM_COLUMNS} FROM items i WHERE i.id = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut find = |id: &String| Ok(statement.query_row([id], |row| read_item(row, 0)).optional()?);
    ids.iter().map(&mut find).collect()
}

pub(super) fn get_by_key(connection: &Connection, keys: &[i64]) -> Result<Vec<Option<StoredItem>>, StoreError> {
    let sql = format!("SELECT {ITEM_COLUMNS} FROM items i WHERE i.key = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut find = |key: &i64| Ok(statement.query_row([key], |row| read_item(row, 0)).optional()?);
    keys.iter().map(&mut find).collect()
}

pub(super) fn lookup_source(connection: &Connection, uri: &str) -> Result<Vec<StoredItem>, StoreError> {
    let sql = format!("SELECT {ITEM_COLUMNS} FROM items i WHERE i.uri = ?1 ORDER BY i.key");
    let mut statement = connection.prepare_cached(&sql)?;
    let items = statement.query_map([uri], |row| read_item(row, 0))?;
    Ok(items.collect::<Result<_, _>>()?)
}

pub(super) fn list(connection: &Connection, request: &ListRequest) -> Result<Vec<StoredItem>, StoreError> {
    let limit = request.limit.and_then(|limit| i64::try_from(limit).ok()).unwrap_or(i64::MAX);
    // Keys begin at 1.
    let after = request.after.unwrap_or(0);
    if let Some(filter) = &request.filter {
        return list_filtered(connection, request, filter, after, limit);
    }
    let (conditions, mut parameters) = conditions(connection, request)?;
    let sql = format!("SELECT {ITEM_COLUMNS} FROM items i WHERE i.key > ?{conditions} ORDER BY i.key LIMIT ?");
    parameters.insert(0, SqlValue::Integer(after));
    parameters.push(SqlValue::Integer(limit));
    let mut statement = connection.prepare(&sql)?;
    let items = statement.query_map(params_from_iter(parameters), |row| read_item(row, 0))?;
    Ok(items.collect::<Result<_, _>>()?)
}

fn list_filtered(
    connection: &Connection,
    request: &ListRequest,
    filter: &Filter,
    after: i64,
    limit: i64,
) -> Result<Vec<StoredItem>, StoreError> {
    let keys = matching_keys(connection, filter)?;
    let (conditions, parameters) = conditions(connection, request)?;
    let sql = format!("SELECT {ITEM_COLUMNS} FROM items i WHERE i.key = ?{conditions}");
    let mut statement = connection.prepare(&sql)?;
    let mut items = Vec::new();
    // No key is below 1.
    let first = u64::try_from(after.saturating_add(1)).unwrap_or(0);
    let mut keys = keys.iter();
    keys.advance_to(first);
    for key in keys {
        if items.len() as i64 >= limit {
            break;
        }
        let parameters = std::iter::once(SqlValue::Integer(key as i64)).chain(parameters.iter().cloned());
        let item = statement.query_row(params_from_iter(parameters), |row| read_item(row, 0)).optional()?;
        items.extend(item);
    }
    Ok(items)
}

/// Further conditions over the items, on the beginning of their uris and on the vectors that they lack, and their values.
fn conditions(connection: &Connection, request: &ListRequest) -> Result<(String, Vec<SqlValue>), StoreError> {
    let (mut sql, mut parameters) = (String::new(), Vec::new());
    if let Some(prefix) = &request.uri_prefix {
        sql.push_str(" AND i.uri >= ?");
        parameters.push(SqlValue::Text(prefix.clone()));
        if let Some(end) = after_prefix(prefix) {
            sql.push_str(" AND i.uri < ?");
            parameters.push(SqlValue::Text(end));
        }
    }
    if let Some(name) = &request.without_field {
        let field = load_field(connection, name)?;
        sql.push_str(" AND NOT EXISTS (SELECT 1 FROM vectors v WHERE v.item = i.key AND v.field = ?)");
        parameters.push(SqlValue::Integer(field.key));
    }
    Ok((sql, parameters))
}

/// The first text, by bytes, that is behind every text with this prefix; none when there is no such text.
fn after_prefix(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // UTF-8 orders as code points do; a range of chars steps over the surrogates.
        if let Some(next) = (last..=char::MAX).nth(1) {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

pub(super) fn count(connection: &Connection, filter: Option<&Filter>) -> Result<u64, StoreError> {
    if let Some(filter) = filter {
        return Ok(matching_keys(connection, filter)?.len());
    }
    let count = connection.query_row("SELECT count(*) FROM items", [], |row| row.get::<_, i64>(0))?;
    Ok(count as u64)
}

pub(super) fn setting(connection: &Connection, name: &str) -> Result<Option<serde_json::Value>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT value FROM settings WHERE name = ?1")?;
    let text = statement.query_row([name], |row| row.get::<_, String>(0)).optional()?;
    let damaged = |error| StoreError::Damaged {
        file: layout::DATABASE_NAME.into(),
        reason: format!("the setting {name:?} is no JSON: {error}"),
    };
    text.map(|text| serde_json::from_str(&text).map_err(damaged)).transpose()
}

/// Access to vectors by row, in the state that one transaction sees.
pub(super) struct VectorReader<'a> {
    layout: &'a Layout,
    views: &'a Views,
    connection: &'a Connection,
    fields: Vec<FieldRow>,
    change: i64,
}

impl<'a> VectorReader<'a> {
    pub fn new(layout: &'a Layout, views: &'a Views, connection: &'a Connection) -> Result<Self, StoreError> {
        let (fields, change) = (load_fields(connection)?, load_change(connection)?);
        Ok(Self { layout, views, connection, fields, change })
    }

    /// The field of a row, and its values; `None` for the values when they are not those that were written.
    fn load(&self, row: &VectorRow) -> Result<(&FieldRow, Option<Vec<f32>>), StoreError> {
        let field = self.fields.iter().find(|field| field.key == row.field);
        let field = field.ok_or_else(|| StoreError::Damaged {
            file: layout::DATABASE_NAME.into(),
            reason: format!("a vector names field {}, which does not exist", row.field),
        })?;
        let view = self.views.get(self.layout, self.connection, field, self.change)?;
        let values = view.vectors.row(row.row).filter(|values| row.matches(values));
        Ok((field, values.map(<[f32]>::to_vec)))
    }

    pub fn vectors(&self, id: &str) -> Result<Vec<StoredVector>, StoreError> {
        let sql = format!(
            "SELECT {VECTOR_COLUMNS} FROM items i JOIN vectors v ON v.item = i.key WHERE i.id = ?1
             ORDER BY v.field, v.part, v.modality"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows: Vec<_> = statement.query_map([id], read_vector)?.collect::<Result<_, _>>()?;
        let load = |row: VectorRow| {
            let (field, vector) = self.load(&row)?;
            let vector = vector.ok_or_else(|| StoreError::Damaged {
                file: self.layout.vector_file(field.key, field.generation),
                reason: format!("the vector of item {id:?} in row {} is not what was written", row.row),
            })?;
            let (field, span) = (field.field.name.clone(), row.span()?);
            let VectorRow { part, modality, precision, cache_key, .. } = row;
            Ok(StoredVector { field, part, modality, span, precision, cache_key, vector })
        };
        rows.into_iter().map(load).collect()
    }

    pub fn cached(&self, keys: &[CacheKey]) -> Result<HashMap<CacheKey, CachedVector>, StoreError> {
        let sql = format!("SELECT {VECTOR_COLUMNS} FROM vectors v WHERE v.cache_key = ?1 ORDER BY v.field, v.row DESC");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut found = HashMap::new();
        for key in keys {
            let mut rows = statement.query([key])?;
            while let Some(row) = rows.next()? {
                let row = read_vector(row)?;
                // A damaged file is no reason to fail here: what can't be reused is embedded again.
                let loaded = match self.load(&row) {
                    Err(error) if error.kind() != crate::ErrorKind::Damaged => return Err(error),
                    loaded => loaded.ok().and_then(|(_, vector)| vector),
                };
                if let Some(vector) = loaded {
                    found.insert(*key, CachedVector { vector, precision: row.precision });
                    break;
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::after_prefix;

    #[test]
    fn the_end_of_a_prefix_is_the_next_text() {
        assert_eq!(after_prefix("a/").as_deref(), Some("a0"));
        assert_eq!(after_prefix("a\u{d7ff}").as_deref(), Some("a\u{e000}"));
        assert_eq!(after_prefix("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(after_prefix("\u{10ffff}"), None);
        assert_eq!(after_prefix(""), None);
    }
}
