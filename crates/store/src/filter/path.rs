//! Names of fields in written filters: built-in ones, and dotted metadata keys with quotes around odd ones.

use super::FilterPath;
use super::lexer::{is_keyword, is_word_character, quote, unquote};

/// The names that stand for built-in fields, unless they are quoted.
const BUILT_IN: [(&str, FilterPath); 7] = [
    ("id", FilterPath::Id),
    ("modality", FilterPath::Modality),
    ("path", FilterPath::Uri),
    ("uri", FilterPath::Uri),
    ("name", FilterPath::Name),
    ("size", FilterPath::Size),
    ("modified", FilterPath::Modified),
];
/// In front of a metadata key it takes away any other meaning.
const METADATA: &str = "metadata";

/// Checks a metadata key: SQLite's paths have no escapes, so that a few characters can't be asked for.
pub(super) fn check_key(key: &str) -> Result<(), String> {
    if is_askable(key) {
        return Ok(());
    }
    Err(format!("names the metadata key {key:?}; quotes, \\ and control characters can't be used"))
}

/// Whether a metadata key can be named by a filter.
pub(crate) fn is_askable(key: &str) -> bool {
    !key.chars().any(|c| c == '"' || c == '\\' || c.is_control())
}

/// Reads `year`, `camera.model`, `"odd key".x` or `metadata.size`.
pub(super) fn parse_path(text: &str) -> Result<FilterPath, String> {
    let mut keys = Vec::new();
    let mut first_is_quoted = false;
    let mut rest = text;
    loop {
        let (key, quoted, behind) = match rest.chars().next() {
            Some(mark @ ('"' | '\'')) => {
                let (key, behind) = unquote(rest).ok_or_else(|| format!("expected a closing {mark}"))?;
                (key, true, behind)
            }
            _ => {
                let end = rest.find('.').unwrap_or(rest.len());
                if end == 0 {
                    return Err("a part of the field's name is empty; quote an empty key: \"\"".to_owned());
                }
                (rest[..end].to_owned(), false, &rest[end..])
            }
        };
        check_key(&key).map_err(|reason| format!("the filter {reason}"))?;
        first_is_quoted |= keys.is_empty() && quoted;
        keys.push(key);
        if behind.is_empty() {
            break;
        }
        rest = behind.strip_prefix('.').ok_or("expected a dot behind the quoted key")?;
    }
    if first_is_quoted {
        return Ok(FilterPath::Metadata(keys));
    }
    if let [name] = &keys[..]
        && let Some((_, path)) = BUILT_IN.iter().find(|(built_in, _)| built_in == name)
    {
        return Ok(path.clone());
    }
    if keys.len() > 1 && keys[0] == METADATA {
        keys.remove(0);
    }
    Ok(FilterPath::Metadata(keys))
}

/// The name that [`parse_path`] reads as this path.
pub(super) fn write_path(path: &FilterPath) -> String {
    let FilterPath::Metadata(keys) = path else {
        let name = BUILT_IN.iter().find(|(_, built_in)| built_in == path).map(|(name, _)| *name);
        return name.unwrap_or_default().to_owned();
    };
    let write_key = |(position, key): (usize, &String)| {
        let plain = !key.is_empty() && key.chars().all(|c| is_word_character(c) && c != '.');
        let special = is_keyword(key) || key == METADATA || BUILT_IN.iter().any(|(name, _)| name == key);
        if plain && !(position == 0 && special) { key.clone() } else { quote(key, '"') }
    };
    keys.iter().enumerate().map(write_key).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_built_in_or_metadata() {
        let metadata = |keys: &[&str]| FilterPath::Metadata(keys.iter().map(|key| (*key).to_owned()).collect());
        let cases = [
            ("size", FilterPath::Size),
            ("uri", FilterPath::Uri),
            ("metadata.size", metadata(&["size"])),
            ("\"size\"", metadata(&["size"])),
            ("metadata", metadata(&["metadata"])),
            ("metadata.metadata", metadata(&["metadata"])),
            ("size.x", metadata(&["size", "x"])),
            ("camera.'lens model'.\"a.b\".c", metadata(&["camera", "lens model", "a.b", "c"])),
            ("''", metadata(&[""])),
        ];
        for (text, path) in cases {
            assert_eq!(parse_path(text), Ok(path.clone()), "{text}");
            assert_eq!(parse_path(&write_path(&path)), Ok(path), "{text}");
        }
        for text in ["", "a.", ".a", "a..b", "'a", "'a'b", "'a\"'"] {
            assert!(parse_path(text).is_err(), "{text:?}");
        }
    }
}
