//! Filters over items as a syntax tree.
//!
//! # Rules
//! * Every filter is true or false for an item; there is no third value. `Not` is the exact complement.
//! * A field that is missing and a field that is JSON `null` are the same: no value. Every comparison with no value is
//!   false, `NotEqual` too; "missing or different" is `Not(Compare { Equal })`.
//! * A comparison is true when *any* value of the field satisfies it. A scalar is one value; an array has as many as
//!   it has elements (`tags = "cat"`); an object has none.
//! * Values of different kinds (text, number, truth value) are never equal and have no order: the comparison is false.
//!   Integers and floating-point numbers are one kind, compared exactly.
//! * Text is compared by bytes; `Like` ignores the case of ASCII letters.
//!
//! People write filters as text ([`Filter::parse`], written back by `Display`), programs as JSON
//! ([`Filter::from_json`]); `docs/filters.md` describes both.

mod date;
mod display;
mod json;
mod lexer;
mod parser;
mod path;
mod syntax_error;

use serde::{Deserialize, Serialize};

use crate::StoreError;

pub(crate) use self::path::is_askable;
pub use self::syntax_error::FilterSyntaxError;

/// How deep a filter may be nested.
const MAX_DEPTH: usize = 100;
/// How many conditions, combinations included, a filter may have.
const MAX_CONDITIONS: usize = 5_000;
const MAX_PATTERN_BYTES: usize = 10_000;

/// What a condition looks at.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FilterPath {
    /// The item's id (text).
    Id,
    /// The item's modality (text).
    Modality,
    /// The source's path or address (text); missing for items without a source.
    Uri,
    /// The last part of the source's path or address, behind the last `/` (on Windows also `\`; text).
    Name,
    /// The source's size in bytes (number).
    Size,
    /// The source's modification time in nanoseconds since 1970 (number).
    Modified,
    /// A place in the metadata: the keys from the outermost object inwards. At least one; any text without `"`, `\` and
    /// control characters.
    Metadata(Vec<String>),
}

impl FilterPath {
    /// A top-level metadata key.
    pub fn metadata(key: impl Into<String>) -> Self {
        Self::Metadata(vec![key.into()])
    }
}

/// A constant in a filter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FilterValue {
    /// A truth value. Ordered comparisons with it are false.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A finite number.
    Number(f64),
    /// Text.
    Text(String),
}

impl From<&str> for FilterValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for FilterValue {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<f64> for FilterValue {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for FilterValue {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

/// How a value is compared with a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    /// `=`
    Equal,
    /// Has a value of the same kind that differs.
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// A condition on items; see the rules at the head of this file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// All of these; true when empty.
    And(Vec<Filter>),
    /// Any of these; false when empty.
    Or(Vec<Filter>),
    /// The opposite.
    Not(Box<Filter>),
    /// Some value of `path` compares so with `value`.
    Compare {
        /// What is compared.
        path: FilterPath,
        /// How.
        op: Comparison,
        /// With what.
        value: FilterValue,
    },
    /// Some value of `path` equals one of `values`.
    In {
        /// What is compared.
        path: FilterPath,
        /// With what; false when empty.
        values: Vec<FilterValue>,
    },
    /// Some text of `path` matches `pattern`: `%` is any text, `_` any one character, `\` takes the next one literally.
    Like {
        /// What is compared.
        path: FilterPath,
        /// At most 10,000 bytes.
        pattern: String,
    },
    /// `path` has a value: it is present and not `null` (an empty array or object is a value here).
    Exists {
        /// What is looked for.
        path: FilterPath,
    },
}

impl Filter {
    /// Some value of `path` equals `value`.
    pub fn equals(path: FilterPath, value: impl Into<FilterValue>) -> Self {
        Self::compare(path, Comparison::Equal, value)
    }

    /// Some value of `path` compares so with `value`.
    pub fn compare(path: FilterPath, op: Comparison, value: impl Into<FilterValue>) -> Self {
        Self::Compare { path, op, value: value.into() }
    }

    /// The opposite.
    pub fn negated(self) -> Self {
        Self::Not(Box::new(self))
    }

    /// Whether the filter can be evaluated.
    ///
    /// # Errors
    /// `InvalidFilter` for one that is nested too deep, has too many conditions, a number that isn't finite, a metadata
    /// key that can't be asked for, or a malformed pattern.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let mut remaining = MAX_CONDITIONS;
        self.check_part(MAX_DEPTH, &mut remaining).map_err(|reason| StoreError::InvalidFilter { reason })
    }

    fn check_part(&self, depth: usize, remaining: &mut usize) -> Result<(), String> {
        let depth = depth.checked_sub(1).ok_or_else(|| format!("is nested deeper than {MAX_DEPTH}"))?;
        *remaining = remaining.checked_sub(1).ok_or_else(|| format!("has more than {MAX_CONDITIONS} conditions"))?;
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().try_for_each(|part| part.check_part(depth, remaining)),
            Self::Not(part) => part.check_part(depth, remaining),
            Self::Compare { path, value, .. } => path.check().and_then(|()| value.check()),
            Self::In { path, values } => path.check().and_then(|()| values.iter().try_for_each(FilterValue::check)),
            Self::Like { path, pattern } => path.check().and_then(|()| check_pattern(pattern)),
            Self::Exists { path } => path.check(),
        }
    }
}

impl FilterPath {
    fn check(&self) -> Result<(), String> {
        match self {
            Self::Metadata(keys) if keys.is_empty() => Err("names no metadata key".to_owned()),
            Self::Metadata(keys) => keys.iter().try_for_each(|key| path::check_key(key)),
            _ => Ok(()),
        }
    }
}

impl FilterValue {
    fn check(&self) -> Result<(), String> {
        match self {
            Self::Number(number) if !number.is_finite() => {
                Err(format!("compares with {self:?}, which is not a finite number"))
            }
            _ => Ok(()),
        }
    }
}

fn check_pattern(pattern: &str) -> Result<(), String> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(format!("has a pattern of {} bytes, at most {MAX_PATTERN_BYTES}", pattern.len()));
    }
    if pattern.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1 {
        return Err(format!("has the pattern {pattern:?}, which ends with a \\ that takes nothing literally"));
    }
    Ok(())
}
