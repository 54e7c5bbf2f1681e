//! Filters to SQL. Every constant is a bound parameter; the text of the SQL is made of fixed pieces only.

use rusqlite::types::Value as SqlValue;
use serde_json::Value;

use crate::{Comparison, Filter, FilterPath, FilterValue, StoreError};

const MAX_DEPTH: usize = 100;
const MAX_CONDITIONS: usize = 5_000;
const MAX_PATTERN_BYTES: usize = 10_000;

/// A condition over the table `items AS i` with the values of its `?`, in order.
#[derive(Debug, Default)]
pub(super) struct Condition {
    pub sql: String,
    pub parameters: Vec<SqlValue>,
}

/// Translates a filter; every part is 0 or 1, never NULL, as the rules of filters demand.
pub(super) fn translate(filter: &Filter) -> Result<Condition, StoreError> {
    let mut condition = Condition::default();
    let mut remaining = MAX_CONDITIONS;
    condition.add(filter, MAX_DEPTH, &mut remaining)?;
    Ok(condition)
}

fn invalid(reason: String) -> StoreError {
    StoreError::InvalidFilter { reason }
}

impl Condition {
    fn add(&mut self, filter: &Filter, depth: usize, remaining: &mut usize) -> Result<(), StoreError> {
        let depth = depth.checked_sub(1).ok_or_else(|| invalid(format!("is nested deeper than {MAX_DEPTH}")))?;
        let too_many = || invalid(format!("has more than {MAX_CONDITIONS} conditions"));
        *remaining = remaining.checked_sub(1).ok_or_else(too_many)?;
        match filter {
            Filter::And(parts) => self.join(parts, " AND ", "1", depth, remaining),
            Filter::Or(parts) => self.join(parts, " OR ", "0", depth, remaining),
            Filter::Not(part) => {
                self.sql.push_str("(NOT ");
                self.add(part, depth, remaining)?;
                self.sql.push(')');
                Ok(())
            }
            Filter::Compare { path, op, value } => self.compare(path, *op, value),
            Filter::In { path, values } => self.any_equal(path, values),
            Filter::Like { path, pattern } => self.like(path, pattern),
            Filter::Exists { path } => self.exists(path),
        }
    }

    /// Joins parts as a balanced tree: SQLite limits the depth of expressions, and a plain list is as deep as long.
    fn join(
        &mut self,
        parts: &[Filter],
        operator: &str,
        empty: &str,
        depth: usize,
        remaining: &mut usize,
    ) -> Result<(), StoreError> {
        match parts {
            [] => self.sql.push_str(empty),
            [part] => self.add(part, depth, remaining)?,
            parts => {
                let (left, right) = parts.split_at(parts.len() / 2);
                self.sql.push('(');
                self.join(left, operator, empty, depth, remaining)?;
                self.sql.push_str(operator);
                self.join(right, operator, empty, depth, remaining)?;
                self.sql.push(')');
            }
        }
        Ok(())
    }

    fn compare(&mut self, path: &FilterPath, op: Comparison, value: &FilterValue) -> Result<(), StoreError> {
        match value {
            FilterValue::Bool(value) => match op {
                Comparison::Equal => self.any_value(path, Kind::truth(*value), "", None),
                Comparison::NotEqual => self.any_value(path, Kind::truth(!*value), "", None),
                _ => {
                    self.sql.push('0');
                    Ok(())
                }
            },
            FilterValue::Text(text) => {
                let text = SqlValue::Text(text.clone());
                self.any_value(path, Kind::Text, &format!(" {} ?", operator(op)), Some(text))
            }
            FilterValue::Integer(_) | FilterValue::Number(_) => {
                // The number goes through the database's own JSON reader, as the stored ones do, so that equal text
                // is always an equal number.
                let number = SqlValue::Text(number_value(value)?.to_string());
                self.any_value(path, Kind::Number, &format!(" {} json_extract(?, '$')", operator(op)), Some(number))
            }
        }
    }

    fn any_equal(&mut self, path: &FilterPath, values: &[FilterValue]) -> Result<(), StoreError> {
        let (mut texts, mut numbers, mut truths) = (Vec::new(), Vec::new(), Vec::new());
        for value in values {
            match value {
                FilterValue::Text(text) => texts.push(Value::from(text.as_str())),
                FilterValue::Bool(value) => truths.push(*value),
                FilterValue::Integer(_) | FilterValue::Number(_) => numbers.push(number_value(value)?),
            }
        }
        self.sql.push_str("(0");
        for (kind, list) in [(Kind::Text, texts), (Kind::Number, numbers)] {
            if !list.is_empty() {
                self.sql.push_str(" OR ");
                let list = SqlValue::Text(Value::Array(list).to_string());
                self.any_value(path, kind, " IN (SELECT value FROM json_each(?))", Some(list))?;
            }
        }
        for value in [true, false] {
            if truths.contains(&value) {
                self.sql.push_str(" OR ");
                self.any_value(path, Kind::truth(value), "", None)?;
            }
        }
        self.sql.push(')');
        Ok(())
    }

    fn like(&mut self, path: &FilterPath, pattern: &str) -> Result<(), StoreError> {
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(invalid(format!("has a pattern of {} bytes, at most {MAX_PATTERN_BYTES}", pattern.len())));
        }
        if pattern.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1 {
            return Err(invalid(format!("pattern {pattern:?} ends with a \\ that takes nothing literally")));
        }
        self.any_value(path, Kind::Text, " LIKE ? ESCAPE '\\'", Some(SqlValue::Text(pattern.to_owned())))
    }

    fn exists(&mut self, path: &FilterPath) -> Result<(), StoreError> {
        match column(path) {
            Column::Plain(name, _) => self.sql.push_str(&format!("({name} IS NOT NULL)")),
            Column::Metadata(keys) => {
                self.sql.push_str("(ifnull(json_type(i.metadata, ?), 'null') <> 'null')");
                self.parameters.push(json_path(keys)?);
            }
        }
        Ok(())
    }

    /// Some value of `path` has this kind and satisfies `test`, which follows it in the SQL.
    fn any_value(
        &mut self,
        path: &FilterPath,
        kind: Kind,
        test: &str,
        parameter: Option<SqlValue>,
    ) -> Result<(), StoreError> {
        match column(path) {
            Column::Plain(_, own) if own != kind => {
                self.sql.push('0');
                return Ok(());
            }
            Column::Plain(name, _) => self.sql.push_str(&format!("ifnull({name}{test}, 0)")),
            Column::Metadata(keys) => {
                let keys = json_path(keys)?;
                let test = if test.is_empty() { String::new() } else { format!(" AND e.value{test}") };
                // A scalar is listed as itself, an array by its elements; an object would be listed by its members.
                self.sql.push_str(&format!(
                    "(ifnull(json_type(i.metadata, ?), 'null') <> 'object' AND EXISTS \
                     (SELECT 1 FROM json_each(i.metadata, ?) AS e WHERE e.type IN ({}){test}))",
                    kind.json_types()
                ));
                self.parameters.extend([keys.clone(), keys]);
            }
        }
        self.parameters.extend(parameter);
        Ok(())
    }
}

/// Kinds of values that can be compared with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    True,
    False,
}

impl Kind {
    fn truth(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }

    fn json_types(self) -> &'static str {
        match self {
            Self::Text => "'text'",
            Self::Number => "'integer', 'real'",
            Self::True => "'true'",
            Self::False => "'false'",
        }
    }
}

enum Column<'a> {
    Plain(&'static str, Kind),
    Metadata(&'a [String]),
}

fn column(path: &FilterPath) -> Column<'_> {
    match path {
        FilterPath::Id => Column::Plain("i.id", Kind::Text),
        FilterPath::Modality => Column::Plain("i.modality", Kind::Text),
        FilterPath::Uri => Column::Plain("i.uri", Kind::Text),
        FilterPath::Size => Column::Plain("i.size", Kind::Number),
        FilterPath::Modified => Column::Plain("i.modified_ns", Kind::Number),
        FilterPath::Metadata(keys) => Column::Metadata(keys),
    }
}

fn operator(op: Comparison) -> &'static str {
    match op {
        Comparison::Equal => "=",
        Comparison::NotEqual => "<>",
        Comparison::Less => "<",
        Comparison::LessOrEqual => "<=",
        Comparison::Greater => ">",
        Comparison::GreaterOrEqual => ">=",
    }
}

fn number_value(value: &FilterValue) -> Result<Value, StoreError> {
    match value {
        FilterValue::Integer(number) => Ok(Value::from(*number)),
        FilterValue::Number(number) if number.is_finite() => Ok(Value::from(*number)),
        other => Err(invalid(format!("compares with {other:?}, which is not a finite number"))),
    }
}

/// The path in SQLite's notation. Quoted keys have no escapes there, so that a few characters can't be asked for.
fn json_path(keys: &[String]) -> Result<SqlValue, StoreError> {
    if keys.is_empty() {
        return Err(invalid("names no metadata key".to_owned()));
    }
    let mut path = "$".to_owned();
    for key in keys {
        if key.chars().any(|c| c == '"' || c == '\\' || c.is_control()) {
            return Err(invalid(format!(
                "names the metadata key {key:?}; quotes, \\ and control characters can't be used"
            )));
        }
        path.push_str(&format!(".\"{key}\""));
    }
    Ok(SqlValue::Text(path))
}
