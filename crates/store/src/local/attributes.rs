//! The attributes of an item: its metadata, size and time as rows of an index that answers filters.
//!
//! A row is a path, a value and the item. The path are the keys from the outermost object inwards. A scalar is one row,
//! an array one for each of its scalar elements, an object has the rows of its members. SQLite orders values by storage
//! class, which keeps kinds apart: numbers, then texts, then blobs, which stand for what is neither.
//!
//! What would make the index large isn't in it, but marked, and a filter looks it up in the metadata itself: texts of
//! more than [`MAX_TEXT_BYTES`], arrays of more than [`MAX_ELEMENTS`], items of more than [`MAX_ATTRIBUTES`].

use rusqlite::types::Value as SqlValue;
use serde_json::{Map, Number, Value};

use crate::Item;
use crate::filter::is_askable;

/// The key of the path that marks items whose attributes aren't listed at all. Keys of other paths begin at 1.
pub(super) const EVERY_PATH: i64 = 0;
/// A text that is longer, in bytes, is marked.
const MAX_TEXT_BYTES: usize = 64;
/// An array with more scalar elements is marked.
const MAX_ELEMENTS: usize = 64;
/// An item with more attributes is marked.
const MAX_ATTRIBUTES: usize = 256;
/// An item with a longer path, in bytes, is marked.
const MAX_PATH_BYTES: usize = 512;

/// The value of what is present and has no value to compare: an object, an array without scalars.
const PRESENT: &[u8] = &[];
/// The value of what has to be looked up in the metadata.
pub(super) const UNLISTED: &[u8] = &[2];
/// The value, at [`EVERY_PATH`], of items whose attributes will be listed with those of others.
pub(super) const PENDING: &[u8] = &[3];

/// The path of the source's size; no path of metadata begins so.
pub(super) const SIZE: &str = "\u{1e}size";
/// The path of the source's time.
pub(super) const MODIFIED: &str = "\u{1e}modified";

/// One row, but for the item.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Attribute {
    /// As [`path_text`] writes it; none for [`EVERY_PATH`].
    pub path: Option<String>,
    pub value: SqlValue,
}

/// A path as one text. Keys that filters can name have no control characters.
pub(super) fn path_text(keys: &[impl AsRef<str>]) -> String {
    keys.iter().map(AsRef::as_ref).collect::<Vec<_>>().join("\u{1f}")
}

/// The value that stands for a truth value.
pub(super) fn truth(value: bool) -> SqlValue {
    SqlValue::Blob(vec![u8::from(value)])
}

/// All attributes of an item, none twice.
pub(super) fn attributes(item: &Item) -> Vec<Attribute> {
    let mut list = List { attributes: Vec::new(), complete: true };
    if let Some(source) = &item.source {
        for (path, value) in [(SIZE, source.size.map(|size| size as i64)), (MODIFIED, source.modified_ns)] {
            value.into_iter().for_each(|value| list.add(path, SqlValue::Integer(value)));
        }
    }
    list.object("", &item.metadata);
    if list.complete {
        return list.attributes;
    }
    vec![Attribute { path: None, value: SqlValue::Blob(UNLISTED.to_vec()) }]
}

struct List {
    attributes: Vec<Attribute>,
    complete: bool,
}

impl List {
    fn object(&mut self, prefix: &str, object: &Map<String, Value>) {
        for (key, value) in object {
            if !self.complete {
                return;
            }
            if !is_askable(key) {
                continue;
            }
            let path = format!("{prefix}{key}");
            if path.len() > MAX_PATH_BYTES {
                self.complete = false;
                return;
            }
            match value {
                Value::Array(elements) => self.array(&path, elements),
                Value::Object(members) => {
                    self.add(&path, SqlValue::Blob(PRESENT.to_vec()));
                    self.object(&format!("{path}\u{1f}"), members);
                }
                scalar => {
                    if let Some(value) = sql_value(scalar) {
                        self.add(&path, value);
                    }
                }
            }
        }
    }

    fn array(&mut self, path: &str, elements: &[Value]) {
        let mut values = Vec::new();
        for value in elements.iter().filter_map(sql_value) {
            if values.len() == MAX_ELEMENTS {
                return self.add(path, SqlValue::Blob(UNLISTED.to_vec()));
            }
            if !values.contains(&value) {
                values.push(value);
            }
        }
        if values.is_empty() {
            values.push(SqlValue::Blob(PRESENT.to_vec()));
        }
        values.into_iter().for_each(|value| self.add(path, value));
    }

    fn add(&mut self, path: &str, value: SqlValue) {
        self.complete &= self.attributes.len() < MAX_ATTRIBUTES;
        if self.complete {
            self.attributes.push(Attribute { path: Some(path.to_owned()), value });
        }
    }
}

/// A scalar as it is indexed; `None` for `null`, arrays and objects.
fn sql_value(value: &Value) -> Option<SqlValue> {
    match value {
        Value::Null | Value::Array(_) | Value::Object(_) => None,
        Value::Bool(value) => Some(truth(*value)),
        Value::Number(number) => sql_number(number),
        // SQLite ends texts at a NUL in some of its functions.
        Value::String(text) if text.len() > MAX_TEXT_BYTES || text.contains('\0') => {
            Some(SqlValue::Blob(UNLISTED.to_vec()))
        }
        Value::String(text) => Some(SqlValue::Text(text.clone())),
    }
}

/// Equal numbers as equal values: whole ones as integers where they fit.
fn sql_number(number: &Number) -> Option<SqlValue> {
    if let Some(integer) = number.as_i64() {
        return Some(SqlValue::Integer(integer));
    }
    let real = number.as_f64()?;
    // Both limits are exact as floating-point numbers.
    let is_integer = real.fract() == 0.0 && real >= i64::MIN as f64 && real < -(i64::MIN as f64);
    Some(if is_integer { SqlValue::Integer(real as i64) } else { SqlValue::Real(real) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn listed(metadata: Value) -> Vec<(Option<String>, SqlValue)> {
        let item = Item { metadata: metadata.as_object().unwrap().clone(), ..Item::new("a", "text") };
        attributes(&item).into_iter().map(|attribute| (attribute.path, attribute.value)).collect()
    }

    #[test]
    fn scalars_elements_and_members_are_listed() {
        let metadata = json!({
            "a": 1, "b": [1, 1.0, "x", null, true, [9], {"c": 9}], "c": {"d": {"e": 2.5}}, "n": null, "empty": [],
            "\"": 1, "big": 18446744073709551615u64,
        });
        let row = |path: &str, value| (Some(path.to_owned()), value);
        let expected = [
            row("a", SqlValue::Integer(1)),
            row("b", SqlValue::Integer(1)),
            row("b", SqlValue::Text("x".to_owned())),
            row("b", truth(true)),
            row("c", SqlValue::Blob(vec![])),
            row("c\u{1f}d", SqlValue::Blob(vec![])),
            row("c\u{1f}d\u{1f}e", SqlValue::Real(2.5)),
            row("empty", SqlValue::Blob(vec![])),
            row("big", SqlValue::Real(18446744073709551615.0)),
        ];
        assert_eq!(listed(metadata), expected);
    }

    #[test]
    fn what_would_be_large_is_marked() {
        let mark = SqlValue::Blob(UNLISTED.to_vec());
        let everywhere = [(None, mark.clone())];
        let numbers: Vec<_> = (0..65).collect();
        assert_eq!(listed(json!({ "a": numbers })), [(Some("a".to_owned()), mark.clone())]);
        assert_eq!(listed(json!({ "a": "é".repeat(33) })), [(Some("a".to_owned()), mark)]);
        assert_eq!(listed(json!({ "a": "é".repeat(32) }))[0].1, SqlValue::Text("é".repeat(32)));
        let many = |count: usize| Value::Object((0..count).map(|i| (i.to_string(), json!(i))).collect());
        assert_eq!(listed(many(256)).len(), 256);
        assert_eq!(listed(many(257)), everywhere);
        assert_eq!(listed(json!({ "k".repeat(600): 1 })), everywhere);
    }
}
