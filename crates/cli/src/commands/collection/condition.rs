//! Filters as people type them, and names as programs read them.

use crossmodal_engine::Filter;

use crate::failure::Usage;

/// Reads a filter; see `docs/filters.md`.
///
/// # Errors
/// A text that is none, with the place.
pub fn parse(text: &str) -> Result<Filter, Usage> {
    Filter::parse(text).map_err(|error| Usage(format!("--filter: {error}")))
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
    fn names_in_json() {
        assert_eq!(snake_case("MissingRow"), "missing_row");
        assert_eq!(snake_case("Checksum"), "checksum");
    }
}
