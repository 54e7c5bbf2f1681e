//! Filters written as the text that means them.

use std::fmt::{self, Display, Formatter};

use super::lexer::quote;
use super::path::write_path;
use super::{Comparison, Filter, FilterPath, FilterValue, date};

/// The filter as [`Filter::parse`] reads it: an equal filter comes back, but for combinations of a single part, which
/// are written as that part, and for built-in fields that are compared with values of another kind.
impl Display for Filter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::And(parts) => join(f, parts, " and ", "true"),
            Self::Or(parts) => join(f, parts, " or ", "false"),
            Self::Not(part) => {
                f.write_str("not ")?;
                operand(f, part)
            }
            Self::Compare { path, op, value } => {
                write!(f, "{} {} ", write_path(path), symbol(*op))?;
                write_value(f, path, value)
            }
            Self::In { path, values } => {
                write!(f, "{} in (", write_path(path))?;
                for (position, value) in values.iter().enumerate() {
                    f.write_str(if position > 0 { ", " } else { "" })?;
                    write_value(f, path, value)?;
                }
                f.write_str(")")
            }
            Self::Like { path, pattern } => write!(f, "{} like {}", write_path(path), quote(pattern, '\'')),
            Self::Exists { path } => write!(f, "exists {}", write_path(path)),
        }
    }
}

fn join(f: &mut Formatter<'_>, parts: &[Filter], word: &str, empty: &str) -> fmt::Result {
    match parts {
        [] => f.write_str(empty),
        [part] => part.fmt(f),
        [first, rest @ ..] => {
            operand(f, first)?;
            rest.iter().try_for_each(|part| {
                f.write_str(word)?;
                operand(f, part)
            })
        }
    }
}

/// A part of a combination, in parentheses where it is one itself.
fn operand(f: &mut Formatter<'_>, part: &Filter) -> fmt::Result {
    match part {
        Filter::And(parts) | Filter::Or(parts) if parts.len() > 1 => write!(f, "({part})"),
        Filter::And(parts) | Filter::Or(parts) if parts.len() == 1 => operand(f, &parts[0]),
        part => part.fmt(f),
    }
}

fn symbol(op: Comparison) -> &'static str {
    match op {
        Comparison::Equal => "=",
        Comparison::NotEqual => "!=",
        Comparison::Less => "<",
        Comparison::LessOrEqual => "<=",
        Comparison::Greater => ">",
        Comparison::GreaterOrEqual => ">=",
    }
}

fn write_value(f: &mut Formatter<'_>, path: &FilterPath, value: &FilterValue) -> fmt::Result {
    match value {
        FilterValue::Bool(value) => write!(f, "{value}"),
        FilterValue::Integer(moment) if *path == FilterPath::Modified => match date::write(*moment) {
            Some(text) => write!(f, "'{text}'"),
            None => write!(f, "{moment}"),
        },
        FilterValue::Integer(number) => write!(f, "{number}"),
        // Always with a point or an exponent.
        FilterValue::Number(number) => write!(f, "{number:?}"),
        FilterValue::Text(text) => f.write_str(&quote(text, '\'')),
    }
}
