//! Repairs broken text as ftfy 6.3 by Robyn Speer (Apache-2.0) does with its default options: mojibake, HTML entities, ligatures,
//! character widths, curly quotes, line breaks, terminal escapes, control characters, NFC. Written anew from its rules.

mod code_pages;
mod encoding;
mod mojibake;

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;
use unicode_normalization::UnicodeNormalization;

use super::html;

/// Characters after which even a line without a line feed is cut, to bound the work on one piece.
const MAX_SEGMENT: usize = 1_000_000;

static ENTITY: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"&#?[0-9A-Za-z]{1,24};").expect("a valid pattern"));
static TERMINAL_ESCAPE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\x1B\[[\d;]*[a-zA-Z]").expect("a valid pattern"));

/// Repairs `text` line by line. Entities are decoded up to the first line that holds a `<`: it and what follows is taken for HTML.
pub(super) fn fix_text(text: &str) -> Cow<'_, str> {
    if is_sound(text) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut decode_entities = true;
    for line in text.split_inclusive('\n') {
        let mut rest = line;
        while !rest.is_empty() {
            let end = rest.char_indices().nth(MAX_SEGMENT).map_or(rest.len(), |(at, _)| at);
            let (segment, tail) = rest.split_at(end);
            decode_entities &= !segment.contains('<');
            out.push_str(&fix_segment(segment, decode_entities));
            rest = tail;
        }
    }
    Cow::Owned(out)
}

/// Whether the text is plain ASCII that no rule touches, as most text is.
fn is_sound(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'\t' | b'\n' | 0x0C | 0x20..=0x7E) && byte != b'&')
}

fn fix_segment(segment: &str, decode_entities: bool) -> String {
    let mut text = segment.to_string();
    loop {
        let mut fixed = if decode_entities { unescape_entities(&text) } else { text.clone() };
        fixed = encoding::fix_encoding(&fixed);
        fixed = encoding::fix_c1_controls(&fixed);
        fixed = fixed.chars().fold(String::with_capacity(fixed.len()), expand_ligature);
        fixed = fixed.chars().fold(String::with_capacity(fixed.len()), normalise_width);
        fixed = fixed.chars().map(uncurl_quote).collect();
        fixed = fix_line_breaks(&fixed);
        fixed = TERMINAL_ESCAPE.replace_all(&fixed, "").into_owned();
        fixed.retain(|c| !is_useless_control(c));
        fixed = fixed.nfc().collect();
        if fixed == text {
            return text;
        }
        text = fixed;
    }
}

/// Decodes unambiguous entities only: those that end in a semicolon, besides fully upper-case spellings of lower-case names.
fn unescape_entities(text: &str) -> String {
    ENTITY.replace_all(text, |matched: &regex::Captures<'_>| decode_entity(&matched[0])).into_owned()
}

fn decode_entity(written: &str) -> String {
    let name = &written[1..];
    if let Some(value) = html::entity(name) {
        return value.to_string();
    }
    if name.starts_with('#') {
        let decoded = html::unescape(written);
        return if decoded.contains(';') { written.to_string() } else { decoded.into_owned() };
    }
    let lower = name.to_ascii_lowercase();
    match html::entity(&lower) {
        Some(value) if lower.to_ascii_uppercase() == name && html::unescape(written) == written => value.to_uppercase(),
        _ => written.to_string(),
    }
}

fn expand_ligature(mut out: String, c: char) -> String {
    match c {
        'Ĳ' => out.push_str("IJ"),
        'ĳ' => out.push_str("ij"),
        'ŉ' => out.push_str("ʼn"),
        'Ǳ' => out.push_str("DZ"),
        'ǲ' => out.push_str("Dz"),
        'ǳ' => out.push_str("dz"),
        'Ǆ' => out.push_str("DŽ"),
        'ǅ' => out.push_str("Dž"),
        'ǆ' => out.push_str("dž"),
        'Ǉ' => out.push_str("LJ"),
        'ǈ' => out.push_str("Lj"),
        'ǉ' => out.push_str("lj"),
        'Ǌ' => out.push_str("NJ"),
        'ǋ' => out.push_str("Nj"),
        'ǌ' => out.push_str("nj"),
        'ﬀ' => out.push_str("ff"),
        'ﬁ' => out.push_str("fi"),
        'ﬂ' => out.push_str("fl"),
        'ﬃ' => out.push_str("ffi"),
        'ﬄ' => out.push_str("ffl"),
        'ﬅ' => out.push_str("ſt"),
        'ﬆ' => out.push_str("st"),
        _ => out.push(c),
    }
    out
}

/// Full-width and half-width forms become ordinary ones.
fn normalise_width(mut out: String, c: char) -> String {
    match c {
        '\u{3000}' => out.push(' '),
        '\u{FF01}'..='\u{FFEF}' => out.extend(std::iter::once(c).nfkc()),
        _ => out.push(c),
    }
    out
}

fn uncurl_quote(c: char) -> char {
    match c {
        '\u{02BC}' | '\u{2018}'..='\u{201B}' => '\'',
        '\u{201C}'..='\u{201F}' => '"',
        _ => c,
    }
}

fn fix_line_breaks(text: &str) -> String {
    text.replace("\r\n", "\n").replace(['\r', '\u{2028}', '\u{2029}', '\u{85}'], "\n")
}

/// Control characters without a displayed effect. White space, joiners, direction marks and tags are not among them.
fn is_useless_control(c: char) -> bool {
    matches!(
        c,
        '\0'..='\u{8}'
            | '\u{B}'
            | '\u{E}'..='\u{1F}'
            | '\u{7F}'
            | '\u{206A}'..='\u{206F}'
            | '\u{FEFF}'
            | '\u{FFF9}'..='\u{FFFC}'
    )
}

#[cfg(test)]
mod tests {
    use super::fix_text;

    #[test]
    fn repairs_known_cases() {
        let cases = [
            ("schÃ¶n cafÃ© â€” mojibake", "schön café — mojibake"),
            ("voilÃ  le travail", "voilà le travail"),
            ("&lt;b&gt; P&EACUTE;REZ &amp", "<b> PÉREZ &amp"),
            ("<i> &lt;", "<i> &lt;"),
            ("“ﬁne” ‘ＡＢ’ ﾊﾟ", "\"fine\" 'AB' パ"),
            ("a\r\nb\u{2028}c\u{1B}[31mred\u{1B}[0m\u{0}\u{FEFF}", "a\nb\ncred"),
            ("â€œ lost â€�", "\" lost \u{FFFD}"),
            ("Cafe\u{301}", "Café"),
            ("nothing to do", "nothing to do"),
        ];
        for (text, expected) in cases {
            assert_eq!(fix_text(text), expected, "{text}");
        }
    }
}
