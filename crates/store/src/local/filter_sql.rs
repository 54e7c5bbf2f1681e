//! Filters to SQL over the items themselves: for collections and items whose attributes aren't listed. Every constant is a
//! bound parameter; the text of the SQL is made of fixed pieces only.

use rusqlite::types::Value as SqlValue;
use serde_json::Value;

use crate::{Comparison, Filter, FilterPath, FilterValue};

/// A condition over the table `items AS i` with the values of its `?`, in order.
#[derive(Debug, Default)]
pub(super) struct Condition {
    pub sql: String,
    pub parameters: Vec<SqlValue>,
}

/// Translates a filter that was checked; every part is 0 or 1, never NULL, as the rules of filters demand.
pub(super) fn translate(filter: &Filter) -> Condition {
    let mut condition = Condition::default();
    condition.add(filter);
    condition
}

impl Condition {
    fn add(&mut self, filter: &Filter) {
        match filter {
            Filter::And(parts) => self.join(parts, " AND ", "1"),
            Filter::Or(parts) => self.join(parts, " OR ", "0"),
            Filter::Not(part) => {
                self.sql.push_str("(NOT ");
                self.add(part);
                self.sql.push(')');
            }
            Filter::Compare { path, op, value } => self.compare(path, *op, value),
            Filter::In { path, values } => self.any_equal(path, values),
            Filter::Like { path, pattern } => {
                self.any_value(path, Kind::Text, " LIKE ? ESCAPE '\\'", Some(SqlValue::Text(pattern.clone())));
            }
            Filter::Exists { path } => self.exists(path),
        }
    }

    /// Joins parts as a balanced tree: SQLite limits the depth of expressions, and a plain list is as deep as long.
    fn join(&mut self, parts: &[Filter], operator: &str, empty: &str) {
        match parts {
            [] => self.sql.push_str(empty),
            [part] => self.add(part),
            parts => {
                let (left, right) = parts.split_at(parts.len() / 2);
                self.sql.push('(');
                self.join(left, operator, empty);
                self.sql.push_str(operator);
                self.join(right, operator, empty);
                self.sql.push(')');
            }
        }
    }

    fn compare(&mut self, path: &FilterPath, op: Comparison, value: &FilterValue) {
        match value {
            FilterValue::Bool(value) => match op {
                Comparison::Equal => self.any_value(path, Kind::truth(*value), "", None),
                Comparison::NotEqual => self.any_value(path, Kind::truth(!*value), "", None),
                _ => self.sql.push('0'),
            },
            FilterValue::Text(text) => {
                let text = SqlValue::Text(text.clone());
                self.any_value(path, Kind::Text, &format!(" {} ?", operator(op)), Some(text))
            }
            FilterValue::Integer(_) | FilterValue::Number(_) => {
                // The number goes through the database's own JSON reader, as the stored ones do, so that equal text
                // is always an equal number.
                let number = SqlValue::Text(number_value(value).to_string());
                self.any_value(path, Kind::Number, &format!(" {} json_extract(?, '$')", operator(op)), Some(number))
            }
        }
    }

    fn any_equal(&mut self, path: &FilterPath, values: &[FilterValue]) {
        let (mut texts, mut numbers, mut truths) = (Vec::new(), Vec::new(), Vec::new());
        for value in values {
            match value {
                FilterValue::Text(text) => texts.push(Value::from(text.as_str())),
                FilterValue::Bool(value) => truths.push(*value),
                FilterValue::Integer(_) | FilterValue::Number(_) => numbers.push(number_value(value)),
            }
        }
        self.sql.push_str("(0");
        for (kind, list) in [(Kind::Text, texts), (Kind::Number, numbers)] {
            if !list.is_empty() {
                self.sql.push_str(" OR ");
                let list = SqlValue::Text(Value::Array(list).to_string());
                self.any_value(path, kind, " IN (SELECT value FROM json_each(?))", Some(list));
            }
        }
        for value in [true, false] {
            if truths.contains(&value) {
                self.sql.push_str(" OR ");
                self.any_value(path, Kind::truth(value), "", None);
            }
        }
        self.sql.push(')');
    }

    fn exists(&mut self, path: &FilterPath) {
        match column(path) {
            Column::Plain(name, _) => self.sql.push_str(&format!("({name} IS NOT NULL)")),
            Column::Metadata(keys) => {
                self.sql.push_str("(ifnull(json_type(i.metadata, ?), 'null') <> 'null')");
                self.parameters.push(json_path(keys));
            }
        }
    }

    /// Some value of `path` has this kind and satisfies `test`, which follows it in the SQL.
    fn any_value(&mut self, path: &FilterPath, kind: Kind, test: &str, parameter: Option<SqlValue>) {
        match column(path) {
            Column::Plain(_, own) if own != kind => {
                self.sql.push('0');
                return;
            }
            Column::Plain(name, _) => self.sql.push_str(&format!("ifnull({name}{test}, 0)")),
            Column::Metadata(keys) => {
                let keys = json_path(keys);
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
    }
}

/// Kinds of values that can be compared with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    True,
    False,
}

impl Kind {
    pub fn truth(value: bool) -> Self {
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

/// Where the values of a path are.
pub(super) enum Column<'a> {
    /// In an expression over `items AS i`, of one kind.
    Plain(&'static str, Kind),
    Metadata(&'a [String]),
}

/// What follows the last separator of the uri: the characters that aren't separators are trimmed from its end, which
/// leaves what is before the name.
const NAME: &str = if cfg!(windows) {
    "substr(i.uri, 1 + length(rtrim(i.uri, replace(replace(i.uri, '/', ''), '\\', ''))))"
} else {
    "substr(i.uri, 1 + length(rtrim(i.uri, replace(i.uri, '/', ''))))"
};

pub(super) fn column(path: &FilterPath) -> Column<'_> {
    match path {
        FilterPath::Id => Column::Plain("i.id", Kind::Text),
        FilterPath::Modality => Column::Plain("i.modality", Kind::Text),
        FilterPath::Uri => Column::Plain("i.uri", Kind::Text),
        FilterPath::Name => Column::Plain(NAME, Kind::Text),
        FilterPath::Size => Column::Plain("i.size", Kind::Number),
        FilterPath::Modified => Column::Plain("i.modified_ns", Kind::Number),
        FilterPath::Metadata(keys) => Column::Metadata(keys),
    }
}

pub(super) fn operator(op: Comparison) -> &'static str {
    match op {
        Comparison::Equal => "=",
        Comparison::NotEqual => "<>",
        Comparison::Less => "<",
        Comparison::LessOrEqual => "<=",
        Comparison::Greater => ">",
        Comparison::GreaterOrEqual => ">=",
    }
}

fn number_value(value: &FilterValue) -> Value {
    match value {
        FilterValue::Integer(number) => Value::from(*number),
        FilterValue::Number(number) => Value::from(*number),
        FilterValue::Bool(_) | FilterValue::Text(_) => Value::Null,
    }
}

/// The path in SQLite's notation. Quoted keys have no escapes there; keys that would need one were refused.
fn json_path(keys: &[String]) -> SqlValue {
    SqlValue::Text(keys.iter().fold("$".to_owned(), |path, key| format!("{path}.\"{key}\"")))
}
