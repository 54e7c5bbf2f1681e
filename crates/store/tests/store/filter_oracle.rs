//! What filters mean, from their rules: an item and a filter in memory, and random ones of both.

use std::cmp::Ordering;

use crossmodal_store::{Comparison, Filter, FilterPath, FilterValue, Item};
use serde_json::{Map, Value, json};

use crate::sample::Random;

/// Whether an item satisfies a filter.
pub fn matches(filter: &Filter, item: &Item) -> bool {
    match filter {
        Filter::And(parts) => parts.iter().all(|part| matches(part, item)),
        Filter::Or(parts) => parts.iter().any(|part| matches(part, item)),
        Filter::Not(part) => !matches(part, item),
        Filter::Compare { path, op, value } => values(path, item).iter().any(|own| compare(own, *op, value)),
        Filter::In { path, values: list } => {
            values(path, item).iter().any(|own| list.iter().any(|value| compare(own, Comparison::Equal, value)))
        }
        Filter::Like { path, pattern } => {
            let pattern: Vec<char> = pattern.chars().collect();
            let fits = |text: &str| like(&text.chars().collect::<Vec<_>>(), &pattern);
            values(path, item).iter().any(|own| own.as_str().is_some_and(fits))
        }
        Filter::Exists { path } => place(path, item).is_some_and(|value| !value.is_null()),
    }
}

fn place(path: &FilterPath, item: &Item) -> Option<Value> {
    let source = item.source.as_ref();
    match path {
        FilterPath::Id => Some(json!(item.id)),
        FilterPath::Modality => Some(json!(item.modality)),
        FilterPath::Uri => source.map(|source| json!(source.uri)),
        FilterPath::Name => source.map(|source| json!(source.uri.rsplit('/').next())),
        FilterPath::Size => source.and_then(|source| source.size).map(|size| json!(size)),
        FilterPath::Modified => source.and_then(|source| source.modified_ns).map(|time| json!(time)),
        FilterPath::Metadata(keys) => {
            let (first, rest) = keys.split_first()?;
            rest.iter().try_fold(item.metadata.get(first)?, |value, key| value.as_object()?.get(key)).cloned()
        }
        other => panic!("{other:?} is new"),
    }
}

fn values(path: &FilterPath, item: &Item) -> Vec<Value> {
    match place(path, item) {
        None | Some(Value::Object(_)) => vec![],
        Some(Value::Array(values)) => values,
        Some(value) => vec![value],
    }
}

fn compare(own: &Value, op: Comparison, value: &FilterValue) -> bool {
    let ordering = match (own, value) {
        (Value::String(own), FilterValue::Text(text)) => own.as_bytes().cmp(text.as_bytes()),
        // The numbers of these tests are exact as floating-point ones.
        (Value::Number(own), FilterValue::Integer(number)) => own.as_f64().unwrap().total_cmp(&(*number as f64)),
        (Value::Number(own), FilterValue::Number(number)) => own.as_f64().unwrap().total_cmp(number),
        (Value::Bool(own), FilterValue::Bool(value)) => {
            return match op {
                Comparison::Equal => own == value,
                Comparison::NotEqual => own != value,
                _ => false,
            };
        }
        _ => return false,
    };
    match op {
        Comparison::Equal => ordering == Ordering::Equal,
        Comparison::NotEqual => ordering != Ordering::Equal,
        Comparison::Less => ordering == Ordering::Less,
        Comparison::LessOrEqual => ordering != Ordering::Greater,
        Comparison::Greater => ordering == Ordering::Greater,
        Comparison::GreaterOrEqual => ordering != Ordering::Less,
    }
}

fn like(text: &[char], pattern: &[char]) -> bool {
    match (pattern, text) {
        ([], text) => text.is_empty(),
        (['%', rest @ ..], text) => (0..=text.len()).any(|start| like(&text[start..], rest)),
        (['_', rest @ ..], [_, text @ ..]) => like(text, rest),
        ([first, rest @ ..], [character, text @ ..]) => first.eq_ignore_ascii_case(character) && like(text, rest),
        (_, []) => false,
    }
}

const KEYS: [&str; 4] = ["a", "b", "c", "d e"];

fn random_scalar(random: &mut Random) -> Value {
    match random.below(9) {
        0 => json!(random.below(2) == 0),
        1 => Value::Null,
        2 => json!(random.below(4) as f64 / 2.0),
        3 | 4 => json!(random.below(5) as i64 - 2),
        5 => json!("Long ".repeat(random.below(30) as usize)),
        _ => json!(["", "x", "X", "yx", "é"][random.below(5) as usize]),
    }
}

/// Few keys and few values, so that much is equal; now and then more than is listed.
pub fn random_metadata(random: &mut Random) -> Map<String, Value> {
    let mut metadata = Map::new();
    for key in KEYS {
        let value = match random.below(9) {
            0..=3 => random_scalar(random),
            4 | 5 => (0..random.below(4)).map(|_| random_scalar(random)).collect(),
            6 => json!({ "a": random_scalar(random), "b": [random_scalar(random), [1]], "c": {"a": 1} }),
            7 if random.below(10) == 0 => (0..random.below(90)).map(|number| json!(number)).collect(),
            _ => continue,
        };
        metadata.insert(key.to_owned(), value);
    }
    if random.below(20) == 0 {
        metadata.extend((0..270).map(|number| (format!("k{number}"), json!(number))));
    }
    metadata
}

fn random_path(random: &mut Random) -> FilterPath {
    let key = |random: &mut Random| KEYS[random.below(4) as usize].to_owned();
    match random.below(12) {
        0 => FilterPath::Id,
        1 => FilterPath::Modality,
        2 => FilterPath::Name,
        3 => FilterPath::metadata("k7"),
        4 | 5 => FilterPath::Metadata(vec![key(random), key(random)]),
        _ => FilterPath::metadata(key(random)),
    }
}

fn random_value(random: &mut Random) -> FilterValue {
    match random_scalar(random) {
        Value::Bool(value) => value.into(),
        Value::String(text) => FilterValue::Text(text),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => integer.into(),
            None => number.as_f64().unwrap().into(),
        },
        _ => "image".into(),
    }
}

pub fn random_filter(random: &mut Random, depth: u64) -> Filter {
    use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    let path = random_path(random);
    match random.below(if depth == 0 { 6 } else { 10 }) {
        0..=2 => {
            let op = [Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual][random.below(6) as usize];
            Filter::Compare { path, op, value: random_value(random) }
        }
        3 => Filter::In { path, values: (0..random.below(4)).map(|_| random_value(random)).collect() },
        4 => {
            let pattern = ["%x%", "_", "x", "lo%", "%", "id-1_", "%É"][random.below(7) as usize].to_owned();
            Filter::Like { path, pattern }
        }
        5 => Filter::Exists { path },
        6 => random_filter(random, depth - 1).negated(),
        kind => {
            let parts = (0..random.below(4)).map(|_| random_filter(random, depth - 1)).collect();
            if kind < 9 { Filter::And(parts) } else { Filter::Or(parts) }
        }
    }
}
