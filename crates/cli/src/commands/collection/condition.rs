//! Conditions on items as people type them, made into filters.

use crossmodal_engine::{Comparison, Filter, FilterPath, FilterValue};

use crate::failure::Usage;

/// Operators; longer ones first, so that `<=` isn't taken for `<`.
const OPERATORS: [(&str, Option<Comparison>); 7] = [
    ("!=", Some(Comparison::NotEqual)),
    ("<=", Some(Comparison::LessOrEqual)),
    (">=", Some(Comparison::GreaterOrEqual)),
    ("=", Some(Comparison::Equal)),
    ("<", Some(Comparison::Less)),
    (">", Some(Comparison::Greater)),
    ("~", None),
];

/// `KEY OPERATOR VALUE`, or `KEY` alone for its presence. The first operator in the text counts.
///
/// # Errors
/// A condition without a key, or about a property that items don't have.
pub fn parse(text: &str) -> Result<Filter, Usage> {
    let found =
        OPERATORS.iter().filter_map(|(operator, comparison)| Some((text.find(operator)?, operator, comparison)));
    // At one place the longer operator wins, which `min_by_key` leaves to the order of the table.
    let first = found.min_by_key(|(place, ..)| *place);
    let Some((place, operator, comparison)) = first else {
        return Ok(Filter::Exists { path: path(text.trim(), text)? });
    };
    let path = path(text[..place].trim(), text)?;
    let value = text[place + operator.len()..].trim();
    Ok(match comparison {
        Some(op) => Filter::Compare { path, op: *op, value: constant(value) },
        None => Filter::Like { path, pattern: value.to_string() },
    })
}

fn path(key: &str, condition: &str) -> Result<FilterPath, Usage> {
    Ok(match key {
        "" => return Err(Usage(format!("condition {condition:?} has no key, expected for example year>=2020"))),
        "@id" => FilterPath::Id,
        "@uri" => FilterPath::Uri,
        "@size" => FilterPath::Size,
        "@modality" => FilterPath::Modality,
        key if key.starts_with('@') => {
            return Err(Usage(format!(
                "condition {condition:?}: items have no {key}, only @id, @uri, @size, @modality"
            )));
        }
        key => FilterPath::Metadata(key.split('.').map(str::to_string).collect()),
    })
}

/// A number or truth value where the text is one; in quotes it is always text.
fn constant(text: &str) -> FilterValue {
    if let Some(quoted) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        return FilterValue::Text(quoted.to_string());
    }
    if let Ok(value) = text.parse::<bool>() {
        return FilterValue::Bool(value);
    }
    if let Ok(value) = text.parse::<i64>() {
        return FilterValue::Integer(value);
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => FilterValue::Number(value),
        _ => FilterValue::Text(text.to_string()),
    }
}

/// `MissingRow` as `missing_row`.
pub fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for character in name.chars() {
        if character.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.extend(character.to_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_become_filters() {
        let year = || FilterPath::metadata("year");
        let cases = [
            ("year>=2020", Filter::compare(year(), Comparison::GreaterOrEqual, 2020)),
            ("year != 1.5", Filter::compare(year(), Comparison::NotEqual, 1.5)),
            ("year=\"2020\"", Filter::equals(year(), "2020")),
            ("year", Filter::Exists { path: year() }),
            ("@size<10", Filter::compare(FilterPath::Size, Comparison::Less, 10)),
            ("a.b=x=y", Filter::equals(FilterPath::Metadata(vec!["a".into(), "b".into()]), "x=y")),
            ("year~%dog%", Filter::Like { path: year(), pattern: "%dog%".into() }),
            ("year=true", Filter::equals(year(), true)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
        for text in ["=3", "@owner=x", ""] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_in_json() {
        assert_eq!(snake_case("MissingRow"), "missing_row");
        assert_eq!(snake_case("Checksum"), "checksum");
    }
}
