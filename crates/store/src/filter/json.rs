//! Filters as JSON, in the shape that document databases made common:
//! `{"year": {"$gte": 2020}, "tag": {"$in": ["a", "b"]}, "$or": [{"modality": "image"}, {"size": {"$lt": 1000}}]}`.

use serde_json::{Map, Value};

use super::parser::{Operand, any_of, compare, operand};
use super::path::parse_path;
use super::{Comparison, Filter, FilterPath, FilterSyntaxError, FilterValue, MAX_DEPTH};

const OPERATORS: &str = "$eq, $ne, $lt, $lte, $gt, $gte, $in, $nin, $like, $exists or $not";

impl Filter {
    /// Reads a filter from JSON: an object whose members must all hold. A member is `$and` or `$or` with a list of
    /// filters, `$not` with a filter, or a field with a value that it equals, `null` for a missing one, or an object of
    /// operators that must all hold: `$eq`, `$ne`, `$lt`, `$lte`, `$gt`, `$gte`, `$in`, `$nin`, `$like`, `$exists`, `$not`.
    /// Fields and values are those of [`parse`](Self::parse). What is read can be evaluated.
    ///
    /// # Errors
    /// Anything else, with the JSON pointer to the place and what was expected there.
    pub fn from_json(value: &Value) -> Result<Self, FilterSyntaxError> {
        let filter = filter(value, &Place { pointer: String::new(), depth: 0 })?;
        let whole = |reason| FilterSyntaxError::Json { pointer: String::new(), reason };
        filter.check().map_err(|error| whole(error.to_string()))?;
        Ok(filter)
    }

    pub(super) fn parse_json(text: &str) -> Result<Self, FilterSyntaxError> {
        let value = serde_json::from_str(text).map_err(|error| {
            // The column counts bytes; one behind a cut-off text points at its end.
            let before = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum::<usize>();
            let place = (before + error.column().saturating_sub(1)).min(text.len());
            let start = (0..=place).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            let reason = format!("this is no JSON: {error}");
            FilterSyntaxError::Text { text: text.to_owned(), start, end: start, reason }
        })?;
        Self::from_json(&value)
    }
}

struct Place {
    pointer: String,
    depth: usize,
}

impl Place {
    fn below(&self, member: &str) -> Self {
        let member = member.replace('~', "~0").replace('/', "~1");
        Self { pointer: format!("{}/{member}", self.pointer), depth: self.depth + 1 }
    }

    fn error<T>(&self, reason: String) -> Result<T, FilterSyntaxError> {
        Err(FilterSyntaxError::Json { pointer: self.pointer.clone(), reason })
    }

    fn expected<T>(&self, expected: &str, found: &Value) -> Result<T, FilterSyntaxError> {
        let found = match found {
            Value::Null => "null".to_owned(),
            Value::Bool(_) | Value::Number(_) => found.to_string(),
            Value::String(text) => format!("the text {:?}", crate::validate::shorten(text)),
            Value::Array(_) => "an array".to_owned(),
            Value::Object(_) => "an object".to_owned(),
        };
        self.error(format!("expected {expected}, found {found}"))
    }
}

/// All of the parts; a single one is itself.
fn all(mut parts: Vec<Filter>) -> Filter {
    if parts.len() == 1 { parts.remove(0) } else { Filter::And(parts) }
}

fn filter(value: &Value, place: &Place) -> Result<Filter, FilterSyntaxError> {
    let Value::Object(members) = value else {
        return place.expected("an object such as {\"year\": {\"$gte\": 2020}}", value);
    };
    if place.depth > MAX_DEPTH {
        return place.error(format!("nested deeper than {MAX_DEPTH}"));
    }
    let member = |(name, value): (&String, &Value)| {
        let place = place.below(name);
        match name.as_str() {
            "$and" => filters(value, &place).map(Filter::And),
            "$or" => filters(value, &place).map(Filter::Or),
            "$not" => filter(value, &place).map(Filter::negated),
            name if name.starts_with('$') => place
                .error("expected a field, $and, $or or $not (a field's name that begins with $ is quoted)".to_owned()),
            name => {
                let path = parse_path(name).or_else(|reason| place.error(reason))?;
                field(&path, value, &place)
            }
        }
    };
    members.iter().map(member).collect::<Result<_, _>>().map(all)
}

fn filters(value: &Value, place: &Place) -> Result<Vec<Filter>, FilterSyntaxError> {
    let Value::Array(parts) = value else { return place.expected("an array of filters", value) };
    parts.iter().enumerate().map(|(position, part)| filter(part, &place.below(&position.to_string()))).collect()
}

fn field(path: &FilterPath, value: &Value, place: &Place) -> Result<Filter, FilterSyntaxError> {
    match value {
        Value::Object(operators) => conditions(path, operators, place),
        Value::Null => Ok(Filter::Exists { path: path.clone() }.negated()),
        Value::Array(_) => place.expected("a value or an object of operators ({\"$in\": [...]} for a list)", value),
        value => Ok(compare(path.clone(), Comparison::Equal, constant(path, value, place)?)),
    }
}

fn conditions(path: &FilterPath, operators: &Map<String, Value>, place: &Place) -> Result<Filter, FilterSyntaxError> {
    if operators.is_empty() {
        return place.error(format!("expected {OPERATORS}, found an empty object"));
    }
    if place.depth > MAX_DEPTH {
        return place.error(format!("nested deeper than {MAX_DEPTH}"));
    }
    let condition = |(name, value): (&String, &Value)| condition(path, name, value, &place.below(name));
    operators.iter().map(condition).collect::<Result<_, _>>().map(all)
}

fn condition(path: &FilterPath, name: &str, value: &Value, place: &Place) -> Result<Filter, FilterSyntaxError> {
    let compared = |op| constant(path, value, place).map(|operand| compare(path.clone(), op, operand));
    match name {
        "$eq" => compared(Comparison::Equal),
        "$ne" => compared(Comparison::NotEqual),
        "$lt" => compared(Comparison::Less),
        "$lte" => compared(Comparison::LessOrEqual),
        "$gt" => compared(Comparison::Greater),
        "$gte" => compared(Comparison::GreaterOrEqual),
        "$in" => list(path, value, place),
        "$nin" => list(path, value, place).map(Filter::negated),
        "$like" => match value {
            Value::String(pattern) => Ok(Filter::Like { path: path.clone(), pattern: pattern.clone() }),
            value => place.expected("a pattern such as \"%cat%\"", value),
        },
        "$exists" => match value {
            Value::Bool(true) => Ok(Filter::Exists { path: path.clone() }),
            Value::Bool(false) => Ok(Filter::Exists { path: path.clone() }.negated()),
            value => place.expected("true or false", value),
        },
        "$not" => match value {
            Value::Object(operators) => conditions(path, operators, place).map(Filter::negated),
            value => place.expected("an object of operators", value),
        },
        _ => place.error(format!("expected {OPERATORS}; a key of a nested object is written \"camera.model\"")),
    }
}

fn list(path: &FilterPath, value: &Value, place: &Place) -> Result<Filter, FilterSyntaxError> {
    let Value::Array(values) = value else { return place.expected("an array of values", value) };
    let element = |(at, value): (usize, &Value)| constant(path, value, &place.below(&at.to_string()));
    values.iter().enumerate().map(element).collect::<Result<_, _>>().map(|operands| any_of(path.clone(), operands))
}

fn constant(path: &FilterPath, value: &Value, place: &Place) -> Result<Operand, FilterSyntaxError> {
    let constant = match value {
        Value::Bool(value) => FilterValue::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => FilterValue::Integer(integer),
            (None, Some(number)) if number.is_finite() => FilterValue::Number(number),
            _ => return place.expected("a number that can be compared", value),
        },
        Value::String(text) => return operand(path, text.clone(), true).or_else(|reason| place.error(reason)),
        value => return place.expected("a text, a number or a truth value", value),
    };
    Ok(Operand::Value(constant))
}
