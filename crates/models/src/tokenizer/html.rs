//! HTML character references, decoded as HTML 5 and Python's `html.unescape` do: entities without a semicolon, longest
//! known prefix, the Windows-1252 reading of references to C1 controls.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

/// Name (with its semicolon, where it has one) and code points of each entity of the HTML 5 standard.
const ENTITIES: &str = include_str!("../../data/html_entities.tsv");

/// What references to 0x80 to 0x9F mean.
const C1_MEANINGS: [u16; 32] = [
    0x20AC, 0x0081, 0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160, 0x2039, 0x0152, 0x008D,
    0x017D, 0x008F, 0x0090, 0x2018, 0x2019, 0x201C, 0x201D, 0x2022, 0x2013, 0x2014, 0x02DC, 0x2122, 0x0161, 0x203A,
    0x0153, 0x009D, 0x017E, 0x0178,
];

/// Longest name that is looked for, in characters, without the semicolon.
const MAX_NAME: usize = 32;

static TABLE: LazyLock<HashMap<&'static str, String>> = LazyLock::new(|| {
    let parse = |code: &str| u32::from_str_radix(code, 16).ok().and_then(char::from_u32);
    ENTITIES
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, codes)| (name, codes.split(' ').filter_map(parse).collect()))
        .collect()
});

/// What the entity `name` stands for; `name` has no `&`, and its semicolon where the standard gives it one.
pub(super) fn entity(name: &str) -> Option<&'static str> {
    TABLE.get(name).map(String::as_str)
}

/// Replaces every character reference.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let consumed = reference(rest, &mut out);
        rest = &rest[consumed..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Decodes the reference that `rest`, the text after an `&`, begins with. Returns the number of bytes used up.
fn reference(rest: &str, out: &mut String) -> usize {
    let length = match rest.strip_prefix('#') {
        Some(number) => numeric(number, out).map(|used| used + 1),
        None => named(rest, out),
    };
    length.unwrap_or_else(|| {
        out.push('&');
        0
    })
}

fn numeric(text: &str, out: &mut String) -> Option<usize> {
    let (prefix, radix) = if text.starts_with(['x', 'X']) { (1, 16) } else { (0, 10) };
    let digits = text[prefix..].bytes().take_while(|byte| char::from(*byte).is_digit(radix)).count();
    if digits == 0 {
        return None;
    }
    let end = prefix + digits;
    let number = text[prefix..end]
        .chars()
        .filter_map(|digit| digit.to_digit(radix))
        .fold(0u32, |value, digit| value.saturating_mul(radix).saturating_add(digit));
    out.extend(meaning(number));
    Some(end + usize::from(text[end..].starts_with(';')))
}

/// The character that a numeric reference stands for; none for the code points that HTML forbids.
fn meaning(number: u32) -> Option<char> {
    match number {
        0 => Some('\u{FFFD}'),
        0x80..=0x9F => char::from_u32(u32::from(C1_MEANINGS[number as usize - 0x80])),
        0x01..=0x08 | 0x0B | 0x0E..=0x1F | 0x7F | 0xFDD0..=0xFDEF => None,
        _ if number & 0xFFFE == 0xFFFE && number <= 0x10_FFFF => None,
        _ => Some(char::from_u32(number).unwrap_or('\u{FFFD}')),
    }
}

fn named(text: &str, out: &mut String) -> Option<usize> {
    let stops = |c: char| matches!(c, '\t' | '\n' | '\u{C}' | ' ' | '<' | '&' | '#' | ';');
    let mut end =
        text.char_indices().take(MAX_NAME).take_while(|(_, c)| !stops(*c)).last().map(|(at, c)| at + c.len_utf8())?;
    end += usize::from(text[end..].starts_with(';'));
    let name = &text[..end];
    if let Some(value) = entity(name) {
        out.push_str(value);
        return Some(end);
    }
    let cuts: Vec<usize> = name.char_indices().map(|(at, _)| at).skip(2).collect();
    match cuts.into_iter().rev().find_map(|cut| entity(&name[..cut]).map(|value| (cut, value))) {
        Some((cut, value)) => {
            out.push_str(value);
            out.push_str(&name[cut..]);
        }
        None => {
            out.push('&');
            out.push_str(name);
        }
    }
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::unescape;

    #[test]
    fn decodes_as_python_does() {
        let cases = [
            ("AT&amp;T &lt;b&gt;", "AT&T <b>"),
            ("&notit; &notin; &ampamp", "¬it; ∉ &amp"),
            ("&#150;&#x80;&#0;&#xD800;&#1114112;", "–€\u{FFFD}\u{FFFD}\u{FFFD}"),
            ("&#1;&#xFDD0;&#13;", "\r"),
            ("&# &#x; &; & &unknown;", "&# &#x; &; & &unknown;"),
            ("&frac12 &NotEqualTilde;", "½ ≂̸"),
        ];
        for (text, expected) in cases {
            assert_eq!(unescape(text), expected, "{text}");
        }
    }
}
