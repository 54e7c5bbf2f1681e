//! The language of queries: weighted sums of words, pictures and items, as in `2:dog + ./pool.jpg - fruit`.
//!
//! ```text
//! expression = [ "-" ] operand { ( "+" | "-" ) operand }       operators stand between spaces
//! operand    = [ weight ":" ] ( quoted | "image:" path | "item:" id | path | words )
//! weight     = a decimal number above 0, at most 1000; what follows the colon is neither a space nor a digit
//! quoted     = '"' text '"'                                    \" and \\ stand for " and \
//! path       = a file that exists, with a separator or a picture's ending in its name
//! ```
//! Ordinary text stays ordinary: a text is an expression only where a `+` stands between two operands, or where an operand
//! is weighted, quoted, or a picture or item. `Paris - the river` is six words and a dash; `"Paris" - the river` is a difference.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// The largest weight.
pub const MAX_WEIGHT: f32 = 1000.0;

/// What a term is about.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// Words.
    Text(String),
    /// Words in quotes: a phrase, where words are searched for one by one.
    Phrase(String),
    /// A picture's file.
    Image(PathBuf),
    /// An item of the collection: its id, path, or the end of its id.
    Item(String),
}

/// One summand of a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// The factor on the operand's unit vector; negative where it is subtracted, never 0.
    pub weight: f32,
    /// What is embedded.
    pub operand: Operand,
}

/// Why an expression can't be understood, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ExpressionError {
    /// The whole text.
    pub text: String,
    /// The bytes of the text that can't be understood.
    pub place: Range<usize>,
    /// What is wrong and what was expected.
    pub reason: String,
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line: String = self.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let before = self.text.get(..self.place.start).map_or(0, |text| text.chars().count());
        let within = self.text.get(self.place.clone()).map_or(0, |text| text.chars().count()).max(1);
        write!(f, "{}\n  {line}\n  {}{}", self.reason, " ".repeat(before), "^".repeat(within))
    }
}

/// What lies between operators.
struct Piece {
    /// -1 or 1.
    sign: f32,
    /// The bytes of the operator before it; empty at the start.
    operator: Range<usize>,
    /// The bytes of the operand without spaces around.
    operand: Range<usize>,
}

/// Reads a text as an expression, or as a single operand of weight 1 where it is none.
///
/// # Errors
/// An operator without an operand, a weight out of range, or a picture that doesn't exist.
pub fn parse(text: &str) -> Result<Vec<Term>, ExpressionError> {
    parse_with(text, Files::Named)
}

/// The same without a look at any file, for texts from elsewhere: a path is words, and there are no pictures.
///
/// # Errors
/// As [`parse`], and an operand that names a picture's file.
pub fn parse_text(text: &str) -> Result<Vec<Term>, ExpressionError> {
    parse_with(text, Files::Unseen)
}

/// Whether paths mean files.
#[derive(Clone, Copy, PartialEq)]
enum Files {
    Named,
    Unseen,
}

fn parse_with(text: &str, files: Files) -> Result<Vec<Term>, ExpressionError> {
    let pieces = pieces(text);
    let operands: Vec<Parsed> = pieces.iter().map(|piece| parse_operand(&text[piece.operand.clone()], files)).collect();
    if let ([piece], [operand]) = (&pieces[..], &operands[..]) {
        // A weight alone would change nothing, so that a number and a colon are words.
        return match &operand.operand {
            Operand::Text(_) | Operand::Phrase(_) if operand.weight.is_some() => Ok(vec![plain(text)]),
            other => Ok(vec![Term { weight: 1.0, operand: usable(text, &piece.operand, other.clone(), files)? }]),
        };
    }
    let joined = |pair: &[Piece]| pair[1].sign > 0.0 && !pair[0].operand.is_empty() && !pair[1].operand.is_empty();
    if !pieces.windows(2).any(joined) && !operands.iter().any(|operand| operand.explicit) {
        return Ok(vec![plain(text)]);
    }
    let wrong =
        |place: &Range<usize>, reason: String| ExpressionError { text: text.to_string(), place: place.clone(), reason };
    let mut terms = Vec::with_capacity(pieces.len());
    for (place, (piece, operand)) in pieces.iter().zip(operands).enumerate() {
        match (piece.operand.is_empty(), place) {
            // A minus may stand first.
            (true, 0) if pieces[1].sign < 0.0 => continue,
            (true, 0) => return Err(wrong(&pieces[1].operator, "nothing stands before this operator".into())),
            (true, _) => return Err(wrong(&piece.operator, "nothing stands after this operator".into())),
            (false, _) => {}
        }
        let weight = operand.weight.unwrap_or(1.0);
        if !(weight > 0.0 && weight <= MAX_WEIGHT) {
            let reason = format!("the weight is {weight}, expected a number above 0, at most {MAX_WEIGHT}");
            return Err(wrong(&piece.operand, reason));
        }
        let operand = usable(text, &piece.operand, operand.operand, files)?;
        terms.push(Term { weight: piece.sign * weight, operand });
    }
    Ok(terms)
}

fn plain(text: &str) -> Term {
    Term { weight: 1.0, operand: Operand::Text(text.trim().to_string()) }
}

/// The operand, unless it is a picture that doesn't exist or that must not be looked for.
fn usable(text: &str, place: &Range<usize>, operand: Operand, files: Files) -> Result<Operand, ExpressionError> {
    let reason = match (&operand, files) {
        (Operand::Image(_), Files::Unseen) => {
            "pictures can't be named by their files here; send them as parts of the query".to_owned()
        }
        (Operand::Image(path), Files::Named) if !path.exists() => format!("{}: no such file", path.display()),
        _ => return Ok(operand),
    };
    Err(ExpressionError { text: text.to_string(), place: place.clone(), reason })
}

/// Cuts a text at operators: words that are `+` or `-` alone, outside quotes. At least one piece.
fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut sign, mut operator, mut start) = (1.0, 0..0, 0);
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with(char::is_whitespace) {
            at += rest.chars().next().map_or(1, char::len_utf8);
            continue;
        }
        // An operand that begins with a quote reaches to the closing one; elsewhere a quote is a character.
        let begins = text[start..at].trim().is_empty();
        let end = at + rest.find(char::is_whitespace).unwrap_or(rest.len());
        let word = &text[at..end];
        if word == "+" || word == "-" {
            pieces.push(Piece { sign, operator, operand: trimmed(text, start..at) });
            (sign, operator, start) = (if word == "+" { 1.0 } else { -1.0 }, at..end, end);
            at = end;
        } else if let Some(quoted) = begins.then(|| quoted_end(text, at)).flatten() {
            at = quoted;
        } else {
            at = end;
        }
    }
    pieces.push(Piece { sign, operator, operand: trimmed(text, start..text.len()) });
    pieces
}

fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let part = &text[range.clone()];
    let start = range.start + (part.len() - part.trim_start().len());
    start..start + part.trim().len()
}

/// The byte behind the closing quote of the operand, weighted or not, that begins at `at`; none where it isn't a quoted one.
fn quoted_end(text: &str, at: usize) -> Option<usize> {
    let (_, length) = weight(&text[at..]).unwrap_or((0.0, 0));
    let open = at + length;
    text[open..].strip_prefix('"')?;
    let close = closing_quote(&text[open + 1..])?;
    Some(open + 1 + close + 1)
}

/// The place of the quote that closes a text whose opening one is cut off.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (place, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(place),
            _ => {}
        }
    }
    None
}

struct Parsed {
    weight: Option<f32>,
    operand: Operand,
    /// Whether it shows that the text is an expression.
    explicit: bool,
}

fn parse_operand(part: &str, files: Files) -> Parsed {
    let (weight, length) = weight(part).map_or((None, 0), |(weight, length)| (Some(weight), length));
    let body = &part[length..];
    let operand = quoted(body).or_else(|| picture(body, files)).or_else(|| item(body));
    let explicit = weight.is_some() || operand.is_some();
    Parsed { weight, operand: operand.unwrap_or_else(|| Operand::Text(body.to_string())), explicit }
}

/// A weight at the start of an operand, and its length with the colon.
fn weight(part: &str) -> Option<(f32, usize)> {
    let colon = part.find(':')?;
    let digits = &part[..colon];
    let number = digits.starts_with(|c: char| c.is_ascii_digit()) && digits.ends_with(|c: char| c.is_ascii_digit());
    let number = number && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    // `8:30` is a time and `16:9` a shape.
    let follows = part[colon + 1..].chars().next().is_some_and(|c| !c.is_whitespace() && !c.is_ascii_digit());
    let weight = digits.parse().ok().filter(|_| number && follows)?;
    Some((weight, colon + 1))
}

fn quoted(body: &str) -> Option<Operand> {
    let inner = body.strip_prefix('"')?;
    let close = closing_quote(inner).filter(|close| close + 1 == inner.len())?;
    let mut text = String::with_capacity(close);
    let mut characters = inner[..close].chars();
    while let Some(character) = characters.next() {
        text.push(if character == '\\' { characters.next().unwrap_or('\\') } else { character });
    }
    Some(Operand::Phrase(text))
}

fn picture(body: &str, files: Files) -> Option<Operand> {
    if let Some(path) = body.strip_prefix("image:").filter(|path| !path.starts_with(char::is_whitespace)) {
        return (!path.is_empty()).then(|| Operand::Image(path.into()));
    }
    if files == Files::Unseen {
        return None;
    }
    let path = PathBuf::from(body);
    let looks = body.contains(std::path::is_separator) || crate::files::has_picture_ending(&path);
    (looks && path.is_file()).then_some(Operand::Image(path))
}

fn item(body: &str) -> Option<Operand> {
    let id = body.strip_prefix("item:").filter(|id| !id.starts_with(char::is_whitespace) && !id.is_empty())?;
    Some(Operand::Item(id.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(weight: f32, words: &str) -> Term {
        Term { weight, operand: Operand::Text(words.into()) }
    }

    fn phrase(weight: f32, words: &str) -> Term {
        Term { weight, operand: Operand::Phrase(words.into()) }
    }

    #[test]
    fn ordinary_text_stays_as_it_is() {
        for words in [
            "black-and-white photo",
            "C++",
            "C + +",
            "a - b",
            "a + + b",
            "8:30 clock",
            "T-shirt",
            "16:9 - wide",
            "2:dog",
            "note: red",
            "Google +",
            "+ one",
            "- fruit",
            "+",
            "-",
            "a photo of a \"red\" door",
            "5\" floppy",
            "\"open",
            "and/or",
            "a\\b",
            "image: a dog",
            "item:",
            "image:",
            "3:",
            "--",
            "x -y",
            "caf\u{e9} - \u{1f600}",
            "1.2.3:x - y",
            "\"a\" b - c",
        ] {
            assert_eq!(parse(words).unwrap(), [text(1.0, words)], "{words}");
        }
        assert_eq!(parse("  red  apple ").unwrap(), [text(1.0, "red  apple")]);
    }

    #[test]
    fn sums_and_differences() {
        let cases: [(&str, Vec<Term>); 9] = [
            ("dog + cat", vec![text(1.0, "dog"), text(1.0, "cat")]),
            ("2:dog - fruit", vec![text(2.0, "dog"), text(-1.0, "fruit")]),
            ("a b + 0.5:c d - e-f", vec![text(1.0, "a b"), text(0.5, "c d"), text(-1.0, "e-f")]),
            ("\"a - b\" - c", vec![phrase(1.0, "a - b"), text(-1.0, "c")]),
            ("\"a + b\"", vec![phrase(1.0, "a + b")]),
            ("3:\"say \\\"hi\\\" + \\\\\" + C++", vec![phrase(3.0, "say \"hi\" + \\"), text(1.0, "C++")]),
            ("- \"fruit\" + dog", vec![phrase(-1.0, "fruit"), text(1.0, "dog")]),
            (
                "item:a/b.png - red",
                vec![Term { weight: 1.0, operand: Operand::Item("a/b.png".into()) }, text(-1.0, "red")],
            ),
            ("8:30 clock + night", vec![text(1.0, "8:30 clock"), text(1.0, "night")]),
        ];
        for (expression, expected) in cases {
            assert_eq!(parse(expression).unwrap(), expected, "{expression}");
        }
    }

    #[test]
    fn pictures_are_files_that_exist() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my pool.png");
        std::fs::write(&path, b"x").unwrap();
        let picture = |weight| Term { weight, operand: Operand::Image(path.clone()) };
        let name = path.to_str().unwrap();
        assert_eq!(parse(name).unwrap(), [picture(1.0)]);
        assert_eq!(parse(&format!("image:{name}")).unwrap(), [picture(1.0)]);
        assert_eq!(parse(&format!("2:dog - {name}")).unwrap(), [text(2.0, "dog"), picture(-1.0)]);
        assert_eq!(parse(&format!("{name} - dog")).unwrap(), [picture(1.0), text(-1.0, "dog")]);
        let missing = folder.path().join("none.png").display().to_string();
        assert_eq!(parse(&missing).unwrap(), [text(1.0, &missing)]);
        let error = parse("dog + image:none.png").unwrap_err();
        assert_eq!(error.to_string(), "none.png: no such file\n  dog + image:none.png\n        ^^^^^^^^^^^^^^");
    }

    #[test]
    fn texts_from_elsewhere_touch_no_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pool.png");
        std::fs::write(&path, b"x").unwrap();
        let name = path.to_str().unwrap();
        assert_eq!(parse_text(name).unwrap(), [text(1.0, name)]);
        assert_eq!(parse_text(&format!("{name} + dog")).unwrap(), [text(1.0, name), text(1.0, "dog")]);
        assert_eq!(parse_text(&format!("{name} - dog")).unwrap(), [text(1.0, &format!("{name} - dog"))]);
        let item = Term { weight: -1.0, operand: Operand::Item("a.png".into()) };
        assert_eq!(parse_text("2:dog - item:a.png").unwrap(), [text(2.0, "dog"), item]);
        // The same answer for a file that exists and for one that doesn't.
        for named in [name, "none.png"] {
            let error = parse_text(&format!("dog + image:{named}")).unwrap_err();
            assert!(error.reason.contains("parts of the query"), "{error}");
            assert_eq!(error.place.start, 6);
            assert!(parse_text(&format!("image:{named}")).is_err());
        }
        assert!(parse_text("a + b - - c").is_err());
    }

    #[test]
    fn errors_point_at_their_place() {
        let cases = [
            ("dog + cat +", 10..11, "after"),
            ("d\u{f6}g + a + + cat", 9..10, "after"),
            ("+ dog + cat", 0..1, "before"),
            ("dog + 0:cat", 6..11, "above 0"),
            ("1001:dog + cat", 0..8, "at most 1000"),
            ("a + b - - c", 6..7, "after"),
        ];
        for (expression, place, reason) in cases {
            let error = parse(expression).unwrap_err();
            assert!(error.reason.contains(reason), "{expression}: {error}");
            assert_eq!(error.place, place, "{expression}: {error}");
        }
    }

    #[test]
    fn anything_can_be_read() {
        let pieces = ["+", "-", " ", "\"", "\\", "2:", "image:", "item:", "a", "\u{e9}", ":", ".", "\n", "9", "/"];
        let mut state = 1u64;
        for _ in 0..20_000 {
            let mut expression = String::new();
            for _ in 0..10 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                expression.push_str(pieces[(state >> 33) as usize % pieces.len()]);
            }
            match parse(&expression) {
                Ok(terms) => assert!(!terms.is_empty() && terms.iter().all(|term| term.weight != 0.0)),
                Err(error) => assert!(error.place.end <= expression.len() && error.to_string().contains('^')),
            }
        }
    }
}
