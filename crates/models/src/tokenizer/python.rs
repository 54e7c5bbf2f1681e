//! The parts of Python's string semantics that the reference tokenizers lean on and that differ from Rust's.

use std::sync::LazyLock;

use regex::Regex;

static WORD: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\A[\p{L}\p{N}_]").expect("a valid pattern"));

/// `str.isspace` of one character: white space and the four ASCII separators.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1C}'..='\u{1F}').contains(&c)
}

/// Whether `\w` of Python's `re` matches.
pub(super) fn is_word(c: char) -> bool {
    WORD.is_match(c.encode_utf8(&mut [0; 4]))
}

/// `text.strip()`.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `" ".join(text.split())`.
pub(super) fn collapse_spaces(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split(is_space).filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_separators_are_white_space() {
        assert_eq!(collapse_spaces("\u{1C} a\u{1F}\u{A0}b \u{3000}"), "a b");
        assert_eq!(strip("\u{2029}x\u{85}"), "x");
        assert!(!is_space('\u{200B}'));
    }

    #[test]
    fn marks_are_not_word_characters() {
        assert!(is_word('é') && is_word('Ⅷ') && is_word('_') && !is_word('\u{301}') && !is_word('ⓐ'));
    }
}
