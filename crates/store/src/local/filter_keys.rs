//! Which items satisfy a filter: sets of item keys, one for each condition, combined as the filter says.
//!
//! A condition on metadata, size or time is a range of the table `attributes`, one on another built-in field a range of an
//! index over that column. What isn't listed there is looked up in the items; see [`filter_sql`](super::filter_sql).

use roaring::RoaringTreemap;
use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, ToSql, params_from_iter};

use super::attributes::{EVERY_PATH, MODIFIED, SIZE, UNLISTED, path_text, truth};
use super::filter_sql::{Column, Kind, column, operator, translate};
use super::item_tables::path_key;
use super::schema;
use crate::{Comparison, Filter, FilterPath, FilterValue, StoreError};

/// Item keys.
pub(super) type Keys = RoaringTreemap;

/// The keys of all items that satisfy a filter, in the state that `connection`'s transaction sees.
pub(super) fn matching_keys(connection: &Connection, filter: &Filter) -> Result<Keys, StoreError> {
    filter.check()?;
    if schema::version(connection)? < schema::ITEM_TABLES_VERSION {
        return Ok(scan(connection, filter, "1", Vec::new())?);
    }
    Ok(Evaluation { connection }.keys(filter)?)
}

/// Looks every item up of which `among` is true.
fn scan(
    connection: &Connection,
    filter: &Filter,
    among: &str,
    mut parameters: Vec<SqlValue>,
) -> rusqlite::Result<Keys> {
    let condition = translate(filter);
    parameters.extend(condition.parameters);
    let sql = format!("SELECT i.key FROM items i WHERE {among} AND {}", condition.sql);
    collect(connection.prepare(&sql)?.query(params_from_iter(parameters))?)
}

fn collect(mut rows: rusqlite::Rows<'_>) -> rusqlite::Result<Keys> {
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        keys.push(row.get::<_, i64>(0)? as u64);
    }
    // Most conditions give runs of rising keys, which sorting knows to use.
    keys.sort();
    Ok(keys.into_iter().collect())
}

struct Evaluation<'a> {
    connection: &'a Connection,
}

/// Where the values of a path are indexed.
enum Source {
    /// Under this key of `attribute_paths`.
    Attribute(i64),
    /// In a column of `items`, of one kind.
    Column(&'static str, Kind),
}

/// A value to compare with, as it is indexed.
struct Constant {
    kind: Kind,
    value: SqlValue,
}

impl Constant {
    fn of(value: &FilterValue) -> Self {
        match value {
            FilterValue::Bool(value) => Self { kind: Kind::truth(*value), value: truth(*value) },
            FilterValue::Integer(number) => Self { kind: Kind::Number, value: SqlValue::Integer(*number) },
            FilterValue::Number(number) => Self { kind: Kind::Number, value: SqlValue::Real(*number) },
            FilterValue::Text(text) => Self { kind: Kind::Text, value: SqlValue::Text(text.clone()) },
        }
    }
}

impl Evaluation<'_> {
    fn keys(&self, filter: &Filter) -> rusqlite::Result<Keys> {
        match filter {
            Filter::And(parts) => self.all_of(parts),
            Filter::Or(parts) => {
                let mut keys = Keys::new();
                for part in parts {
                    keys |= self.keys(part)?;
                }
                Ok(keys)
            }
            Filter::Not(part) => Ok(self.all()? - self.keys(part)?),
            Filter::Compare { path, .. }
            | Filter::In { path, .. }
            | Filter::Like { path, .. }
            | Filter::Exists { path } => self.condition(path, filter),
        }
    }

    /// Negated parts are taken away from the rest, which needs no list of all items.
    fn all_of(&self, parts: &[Filter]) -> rusqlite::Result<Keys> {
        let mut keys: Option<Keys> = None;
        for part in parts.iter().filter(|part| !matches!(part, Filter::Not(_))) {
            let found = self.keys(part)?;
            let both = match keys {
                Some(keys) => keys & found,
                None => found,
            };
            if both.is_empty() {
                return Ok(both);
            }
            keys = Some(both);
        }
        let mut keys = keys.map_or_else(|| self.all(), Ok)?;
        for part in parts {
            if let Filter::Not(part) = part {
                keys -= self.keys(part)?;
            }
        }
        Ok(keys)
    }

    fn all(&self) -> rusqlite::Result<Keys> {
        collect(self.connection.prepare_cached("SELECT key FROM items")?.query([])?)
    }

    fn condition(&self, path: &FilterPath, filter: &Filter) -> rusqlite::Result<Keys> {
        let keys = match (path, column(path)) {
            (FilterPath::Size, _) => path_key(self.connection, SIZE)?,
            (FilterPath::Modified, _) => path_key(self.connection, MODIFIED)?,
            (_, Column::Metadata(keys)) => path_key(self.connection, &path_text(keys))?,
            (_, Column::Plain(name, kind)) => return self.listed(&Source::Column(name, kind), filter),
        };
        let mut found = match keys {
            Some(key) => self.listed(&Source::Attribute(key), filter)?,
            None => Keys::new(),
        };
        // The marks come last in a path's order. One that is unknown leaves the items that are marked at every path.
        let key = keys.unwrap_or(EVERY_PATH);
        let marked = format!("SELECT 1 FROM attributes WHERE path IN (?1, {EVERY_PATH}) AND value >= ?2 LIMIT 1");
        if self.connection.prepare_cached(&marked)?.exists((key, UNLISTED))? {
            let among =
                format!("i.key IN (SELECT item FROM attributes WHERE path IN (?, {EVERY_PATH}) AND value >= ?)");
            let parameters = vec![SqlValue::Integer(key), SqlValue::Blob(UNLISTED.to_vec())];
            found |= scan(self.connection, filter, &among, parameters)?;
        }
        Ok(found)
    }

    /// Items with an indexed value that satisfies a condition.
    fn listed(&self, source: &Source, condition: &Filter) -> rusqlite::Result<Keys> {
        match condition {
            Filter::Compare { op, value, .. } => self.compared(source, *op, &Constant::of(value)),
            Filter::In { values, .. } => {
                let mut keys = Keys::new();
                for value in values {
                    keys |= self.compared(source, Comparison::Equal, &Constant::of(value))?;
                }
                Ok(keys)
            }
            Filter::Like { pattern, .. } => {
                let test = "{} >= '' AND {} < x'' AND {} LIKE ?2 ESCAPE '\\'";
                if source.may_hold(Kind::Text) { self.select(source, test, pattern) } else { Ok(Keys::new()) }
            }
            Filter::Exists { .. } => self.select(source, "{} IS NOT NULL AND ?2", &1),
            Filter::And(_) | Filter::Or(_) | Filter::Not(_) => self.keys(condition),
        }
    }

    fn compared(&self, source: &Source, op: Comparison, constant: &Constant) -> rusqlite::Result<Keys> {
        let Constant { kind, value } = constant;
        if !source.may_hold(*kind) {
            return Ok(Keys::new());
        }
        // The storage classes that come before and behind a kind bound its ranges.
        let (first, end) = match (kind, op) {
            (_, Comparison::Equal) => ("", ""),
            (Kind::Number, _) => ("", " AND {} < ''"),
            (Kind::Text, _) => (" AND {} >= ''", " AND {} < x''"),
            (Kind::True, Comparison::NotEqual) => return self.select(source, "{} = ?2", &truth(false)),
            (Kind::False, Comparison::NotEqual) => return self.select(source, "{} = ?2", &truth(true)),
            (Kind::True | Kind::False, _) => return Ok(Keys::new()),
        };
        let range = |op| {
            let bound = if matches!(op, Comparison::Less | Comparison::LessOrEqual) { first } else { end };
            self.select(source, &format!("{{}} {} ?2{bound}", operator(op)), value)
        };
        match op {
            Comparison::NotEqual => Ok(range(Comparison::Less)? | range(Comparison::Greater)?),
            op => range(op),
        }
    }

    /// Items with an indexed value that satisfies `test`, in which `{}` stands for it and `?2` for `parameter`.
    fn select(&self, source: &Source, test: &str, parameter: &dyn ToSql) -> rusqlite::Result<Keys> {
        let (sql, key) = match source {
            Source::Attribute(key) => {
                (format!("SELECT item FROM attributes WHERE path = ?1 AND {}", test.replace("{}", "value")), *key)
            }
            // `?1` is true of every row.
            Source::Column(name, _) => {
                (format!("SELECT i.key FROM items i WHERE ?1 AND {}", test.replace("{}", name)), 1)
            }
        };
        let parameters: [&dyn ToSql; 2] = [&key, parameter];
        collect(self.connection.prepare_cached(&sql)?.query(&parameters[..])?)
    }
}

impl Source {
    fn may_hold(&self, kind: Kind) -> bool {
        match self {
            Self::Attribute(_) => true,
            Self::Column(_, own) => *own == kind,
        }
    }
}
