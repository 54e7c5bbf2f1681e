//! What is wrong with a written filter, and where.

use std::fmt;

/// Why a filter can't be read. The message of a text shows the place with a mark below it, on three lines.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FilterSyntaxError {
    /// In a text.
    Text {
        /// The whole text.
        text: String,
        /// First byte of the place.
        start: usize,
        /// One past its last byte; equal to `start` where something is missing.
        end: usize,
        /// What was found and what was expected.
        reason: String,
    },
    /// In JSON.
    Json {
        /// JSON pointer to the place; empty for the whole.
        pointer: String,
        /// What was found and what was expected.
        reason: String,
    },
}

/// Characters of the text that are shown before and behind the place.
const SHOWN_BEFORE: usize = 40;
const SHOWN_BEHIND: usize = 30;
/// Marks below a long place.
const MAX_MARKS: usize = 60;

impl fmt::Display for FilterSyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json { pointer, reason } if pointer.is_empty() => f.write_str(reason),
            Self::Json { pointer, reason } => write!(f, "at {pointer}: {reason}"),
            Self::Text { text, start, end, reason } => {
                // Places lie between characters; a caller's own error may not.
                let (before, rest) = split(text, *start);
                let (place, behind) = split(rest, end.saturating_sub(*start));
                let skipped = before.chars().count().saturating_sub(SHOWN_BEFORE);
                let before: String = before.chars().skip(skipped).collect();
                let shown: String = place.chars().take(MAX_MARKS).collect();
                let cut = shown.len() < place.len();
                let behind: String = if cut { String::new() } else { behind.chars().take(SHOWN_BEHIND).collect() };
                let lead = if skipped > 0 { "…" } else { "" };
                let line = format!("{lead}{before}{shown}{behind}").replace(char::is_control, " ");
                let indent = " ".repeat(lead.chars().count() + before.chars().count());
                let marks = "^".repeat(shown.chars().count().max(1));
                write!(f, "{reason}\n  {line}\n  {indent}{marks}")
            }
        }
    }
}

impl std::error::Error for FilterSyntaxError {}

/// Splits at a byte, or at the last border of characters before it.
fn split(text: &str, at: usize) -> (&str, &str) {
    let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.split_at(at)
}
