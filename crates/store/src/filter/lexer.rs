//! The text of a filter to words, quoted texts and symbols.

use super::FilterSyntaxError;

/// The longest text that is read.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// Longer symbols first, so that `<=` isn't taken for `<`.
const SYMBOLS: [&str; 12] = ["<=", ">=", "<>", "!=", "==", "=", "<", ">", "(", ")", ",", "!"];

/// Words with a meaning of their own, in any case.
const KEYWORDS: [&str; 8] = ["and", "or", "not", "in", "like", "exists", "true", "false"];

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// Anything without spaces, quotes and symbols.
    Word(String),
    /// The text between quotes.
    Quoted(String),
    Symbol(&'static str),
    End,
}

/// A token and the bytes it takes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Placed {
    pub token: Token,
    pub start: usize,
    pub end: usize,
}

pub(super) fn is_keyword(word: &str) -> bool {
    KEYWORDS.iter().any(|keyword| word.eq_ignore_ascii_case(keyword))
}

/// Characters of words: all but spaces, quotes and what symbols are made of.
pub(super) fn is_word_character(character: char) -> bool {
    !character.is_whitespace() && !character.is_control() && !"()<>=!,'\"".contains(character)
}

/// Puts a text between quotes; quotes inside are doubled.
pub(super) fn quote(text: &str, mark: char) -> String {
    format!("{mark}{}{mark}", text.replace(mark, &format!("{mark}{mark}")))
}

/// The text between the quotes that `text` begins with, and what follows; `None` without a closing quote.
pub(super) fn unquote(text: &str) -> Option<(String, &str)> {
    let mark = text.chars().next()?;
    let mut content = String::new();
    let mut rest = &text[mark.len_utf8()..];
    loop {
        let end = rest.find(mark)?;
        content.push_str(&rest[..end]);
        rest = &rest[end + mark.len_utf8()..];
        match rest.strip_prefix(mark) {
            Some(behind) => rest = behind,
            None => return Some((content, rest)),
        }
        content.push(mark);
    }
}

/// All tokens, the last of them `End`.
pub(super) fn tokens(text: &str) -> Result<Vec<Placed>, FilterSyntaxError> {
    let error = |start, end, reason| Err(FilterSyntaxError::Text { text: text.to_owned(), start, end, reason });
    if text.len() > MAX_TEXT_BYTES {
        return error(0, 0, format!("it has {} bytes, at most {MAX_TEXT_BYTES} are read", text.len()));
    }
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let (token, length) = if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            (Token::Symbol(symbol), symbol.len())
        } else if first == '\'' || first == '"' {
            let Some((content, behind)) = unquote(rest) else {
                return error(at, at + 1, format!("expected a closing {first} (a {first} inside is doubled)"));
            };
            (Token::Quoted(content), rest.len() - behind.len())
        } else {
            let length = rest.find(|c| !is_word_character(c)).unwrap_or(rest.len());
            if length == 0 {
                let end = at + first.len_utf8();
                return error(at, end, format!("found the control character {first:?}; quote it"));
            }
            (Token::Word(rest[..length].to_owned()), length)
        };
        tokens.push(Placed { token, start: at, end: at + length });
        at += length;
    }
    tokens.push(Placed { token: Token::End, start: at, end: at });
    Ok(tokens)
}
