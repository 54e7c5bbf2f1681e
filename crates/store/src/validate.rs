//! What may be stored, checked before anything is written. Any store can use it.

use std::borrow::Cow;
use std::collections::HashSet;

use crossmodal_kernels::distance;
use serde_json::Value;

use crate::{Field, Item, ItemVectors, Metric, Span, StoreError, VectorRecord};

/// The largest dimension of a field.
pub(crate) const MAX_DIMENSION: usize = 65_536;
const MAX_ID_BYTES: usize = 4096;
const MAX_NAME_BYTES: usize = 128;
const MAX_URI_BYTES: usize = 64 << 10;
const MAX_METADATA_BYTES: usize = 16 << 20;
const MAX_METADATA_DEPTH: usize = 64;
/// How far from 1 the length of a unit vector may be; rounding of 65,536 values stays below it.
const UNIT_TOLERANCE: f32 = 1e-5;

/// Checks a field's name, dimension and space.
pub(crate) fn field(field: &Field) -> Result<(), StoreError> {
    text("field name", &field.name, 1, MAX_NAME_BYTES)?;
    text("space id", &field.space.id, 1, MAX_NAME_BYTES)?;
    text("model name", &field.space.model, 0, MAX_ID_BYTES)?;
    if !(1..=MAX_DIMENSION).contains(&field.dimension) {
        let reason = format!("is outside 1..={MAX_DIMENSION}");
        return Err(StoreError::InvalidValue { what: "dimension", value: field.dimension.to_string(), reason });
    }
    Ok(())
}

/// Checks that no id appears twice.
pub(crate) fn unique_ids<'a>(ids: impl Iterator<Item = &'a str>) -> Result<(), StoreError> {
    let mut seen = HashSet::new();
    for id in ids {
        if !seen.insert(id) {
            return Err(StoreError::DuplicateId { id: id.to_owned() });
        }
    }
    Ok(())
}

/// Checks an item and gives its metadata as text.
pub(crate) fn item(item: &Item) -> Result<String, StoreError> {
    text("item id", &item.id, 1, MAX_ID_BYTES)?;
    text("modality", &item.modality, 1, MAX_NAME_BYTES)?;
    if let Some(source) = &item.source {
        text("source", &source.uri, 1, MAX_URI_BYTES)?;
        if let Some(size) = source.size.filter(|size| i64::try_from(*size).is_err()) {
            let reason = "is larger than any file".to_owned();
            return Err(StoreError::InvalidValue { what: "source size", value: size.to_string(), reason });
        }
    }
    let invalid = |reason| StoreError::InvalidValue { what: "metadata of item", value: shorten(&item.id), reason };
    if !item.metadata.values().all(|value| depth_at_most(value, MAX_METADATA_DEPTH - 1)) {
        return Err(invalid(format!("is nested deeper than {MAX_METADATA_DEPTH}")));
    }
    let metadata = serde_json::to_string(&item.metadata).map_err(|error| invalid(error.to_string()))?;
    if metadata.len() > MAX_METADATA_BYTES {
        return Err(invalid(format!("has {} bytes as text, at most {MAX_METADATA_BYTES} are stored", metadata.len())));
    }
    Ok(metadata)
}

/// Checks the items of a batch against each other.
pub(crate) fn batch(batch: &[ItemVectors]) -> Result<(), StoreError> {
    unique_ids(batch.iter().map(|entry| entry.item.id.as_str()))?;
    batch.iter().try_for_each(|entry| unique_vectors(&entry.item.id, &entry.vectors))
}

/// Checks that an item's vectors can be told apart.
pub(crate) fn unique_vectors(id: &str, vectors: &[VectorRecord]) -> Result<(), StoreError> {
    let mut seen = HashSet::new();
    for record in vectors {
        if !seen.insert((&record.field, record.part, &record.modality)) {
            return Err(StoreError::DuplicateVector {
                id: id.to_owned(),
                field: record.field.clone(),
                part: record.part,
                modality: record.modality.clone(),
            });
        }
    }
    Ok(())
}

/// Checks one vector against its field and gives the values to store: unit vectors in a cosine field.
pub(crate) fn vector<'a>(id: &str, field: &Field, record: &'a VectorRecord) -> Result<Cow<'a, [f32]>, StoreError> {
    same_space(field, &record.space)?;
    text("modality", &record.modality, 1, MAX_NAME_BYTES)?;
    text("precision", &record.precision, 0, MAX_NAME_BYTES)?;
    let owner = || format!("item {id:?}");
    if let Some(span) = &record.span {
        check_span(span).map_err(|reason| invalid_vector(owner(), field, format!("has a span {reason}")))?;
    }
    values(owner, field, &record.vector)?;
    if field.metric != Metric::Cosine {
        return Ok(Cow::Borrowed(&record.vector));
    }
    if (distance::norm(&record.vector) - 1.0).abs() <= UNIT_TOLERANCE {
        return Ok(Cow::Borrowed(&record.vector));
    }
    let mut unit = record.vector.clone();
    let length = distance::normalize(&mut unit);
    if !(length > 0.0 && length.is_finite()) {
        let reason = format!("has length {length}, so that it has no direction to compare");
        return Err(invalid_vector(owner(), field, reason));
    }
    Ok(Cow::Owned(unit))
}

/// Checks a query against its field.
pub(crate) fn query(index: usize, field: &Field, query: &[f32]) -> Result<(), StoreError> {
    let owner = || format!("query {index}");
    values(owner, field, query)?;
    let length = distance::norm(query);
    if field.metric == Metric::Cosine && !(length > 0.0 && length.is_finite()) {
        let reason = format!("has length {length}, so that it has no direction to compare");
        return Err(invalid_vector(owner(), field, reason));
    }
    Ok(())
}

/// Checks that vectors of `space` belong into a field.
pub(crate) fn same_space(field: &Field, space: &crate::SpaceRef) -> Result<(), StoreError> {
    if field.space.id == space.id {
        return Ok(());
    }
    let (existing, offered) = (field.space.clone(), space.clone());
    Err(StoreError::SpaceMismatch { field: field.name.clone(), existing, offered })
}

/// Checks that an existing field is just as the wanted one.
pub(crate) fn same_field(existing: &Field, wanted: &Field) -> Result<(), StoreError> {
    same_space(existing, &wanted.space)?;
    let mismatch = |property, existing: String, offered: String| {
        Err(StoreError::FieldMismatch { field: wanted.name.clone(), property, existing, offered })
    };
    if existing.dimension != wanted.dimension {
        return mismatch("dimension", existing.dimension.to_string(), wanted.dimension.to_string());
    }
    if existing.metric != wanted.metric {
        return mismatch("metric", existing.metric.to_string(), wanted.metric.to_string());
    }
    Ok(())
}

fn values(owner: impl Fn() -> String, field: &Field, values: &[f32]) -> Result<(), StoreError> {
    if values.len() != field.dimension {
        let reason = format!("has {} dimensions, expected {}", values.len(), field.dimension);
        return Err(invalid_vector(owner(), field, reason));
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(invalid_vector(owner(), field, format!("has {} at position {at}", values[at]))),
        None => Ok(()),
    }
}

fn invalid_vector(owner: String, field: &Field, reason: String) -> StoreError {
    StoreError::InvalidVector { owner, field: field.name.clone(), reason }
}

fn check_span(span: &Span) -> Result<(), String> {
    match span {
        Span::Time { start, end } if !(*start >= 0.0 && start <= end && end.is_finite()) => {
            Err(format!("from second {start} to {end}"))
        }
        Span::Text { start, end } if start > end => Err(format!("from byte {start} to {end}")),
        Span::Page { number: 0 } => Err("of page 0, pages are counted from 1".to_owned()),
        Span::Time { .. } | Span::Text { .. } | Span::Region { .. } | Span::Page { .. } => Ok(()),
    }
}

/// SQLite ends text at a NUL in some of its functions, so that none may be stored.
fn text(what: &'static str, value: &str, min: usize, max: usize) -> Result<(), StoreError> {
    let reason = if !(min..=max).contains(&value.len()) {
        format!("has {} bytes, expected {min}..={max}", value.len())
    } else if value.contains('\0') {
        "contains a NUL character".to_owned()
    } else {
        return Ok(());
    };
    Err(StoreError::InvalidValue { what, value: shorten(value), reason })
}

/// Checks the name of a setting.
pub(crate) fn setting_name(name: &str) -> Result<(), StoreError> {
    text("setting name", name, 1, MAX_NAME_BYTES)
}

/// The beginning of a text, for messages.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn depth_at_most(value: &Value, limit: usize) -> bool {
    match value {
        Value::Array(values) => limit > 0 && values.iter().all(|value| depth_at_most(value, limit - 1)),
        Value::Object(values) => limit > 0 && values.values().all(|value| depth_at_most(value, limit - 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_counted_without_deep_recursion() {
        let nested = |depth: usize| (0..depth).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
        let item_with = |value| {
            let mut item = Item::new("a", "text");
            item.metadata.insert("x".to_owned(), value);
            item
        };
        assert!(item(&item_with(nested(MAX_METADATA_DEPTH - 1))).is_ok());
        let error = item(&item_with(nested(MAX_METADATA_DEPTH))).unwrap_err();
        assert!(error.to_string().contains("nested deeper than 64"), "{error}");
    }

    #[test]
    fn long_texts_are_shortened_at_characters() {
        assert_eq!(shorten("é"), "é");
        assert_eq!(shorten(&"é".repeat(100)).chars().count(), 81);
    }
}
