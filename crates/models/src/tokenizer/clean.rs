//! The cleaning that OpenCLIP does before it splits a text into tokens.

use std::str::FromStr;

use super::ftfy::fix_text;
use super::html::unescape;
use super::python::{collapse_spaces, strip};

/// How far a text is simplified. All modes repair broken characters and decode HTML entities twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clean {
    /// White space collapsed, lower case.
    Lower,
    /// White space collapsed.
    Whitespace,
    /// Underscores to spaces, ASCII punctuation removed, lower case, white space collapsed.
    Canonicalize,
}

impl FromStr for Clean {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "lower" => Ok(Self::Lower),
            "whitespace" => Ok(Self::Whitespace),
            "canonicalize" => Ok(Self::Canonicalize),
            _ => Err("one of lower, whitespace, canonicalize".to_string()),
        }
    }
}

impl Clean {
    /// The name used in configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lower => "lower",
            Self::Whitespace => "whitespace",
            Self::Canonicalize => "canonicalize",
        }
    }

    /// Cleans one text.
    pub fn apply(self, text: &str) -> String {
        let fixed = fix_text(text);
        let once = unescape(&fixed);
        let twice = unescape(&once);
        let basic = strip(&twice);
        match self {
            Self::Lower => collapse_spaces(basic).to_lowercase(),
            Self::Whitespace => collapse_spaces(basic),
            Self::Canonicalize => {
                let spaced = basic.replace('_', " ");
                let letters: String = spaced.chars().filter(|c| !c.is_ascii_punctuation()).collect();
                collapse_spaces(&letters.to_lowercase())
            }
        }
    }
}
