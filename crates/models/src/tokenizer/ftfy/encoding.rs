//! Undoes the reading of UTF-8 in another encoding.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::code_pages;
use super::mojibake::{is_bad, utf8_like_runs};

/// A single-byte encoding that UTF-8 may have been read in.
struct CodePage {
    /// Bytes of the characters beyond ASCII.
    bytes: HashMap<char, u8>,
    /// Windows code pages as they are used: a lost character (U+FFFD) counts as byte 1A.
    lossy: bool,
    /// Whether a space may stand for byte A0. Not in Mac Roman, where a dash and a space would look like that.
    restores_a0: bool,
}

/// In the order in which they are tried. The first is Latin-1.
static CODE_PAGES: LazyLock<Vec<CodePage>> = LazyLock::new(|| {
    let mut latin_1 = [0; 128];
    (0x80..).zip(&mut latin_1).for_each(|(code, entry)| *entry = code);
    let windows = [
        &code_pages::WINDOWS_1252,
        &code_pages::WINDOWS_1251,
        &code_pages::WINDOWS_1250,
        &code_pages::WINDOWS_1253,
        &code_pages::WINDOWS_1254,
        &code_pages::WINDOWS_1257,
    ];
    let mut pages = vec![CodePage::new(&latin_1, false, true)];
    pages.extend(windows.map(|table| CodePage::new(table, true, true)));
    pages.push(CodePage::new(&code_pages::ISO_8859_2, false, true));
    pages.push(CodePage::new(&code_pages::MAC_ROMAN, false, false));
    pages.push(CodePage::new(&code_pages::CP437, false, true));
    pages
});

impl CodePage {
    fn new(upper_half: &[u16; 128], lossy: bool, restores_a0: bool) -> Self {
        let bytes =
            (0x80..=0xFFu8).zip(upper_half).filter_map(|(byte, code)| Some((char::from_u32(u32::from(*code))?, byte)));
        Self { bytes: bytes.collect(), lossy, restores_a0 }
    }

    fn encode(&self, text: &str) -> Option<Vec<u8>> {
        let encode = |c: char| match c {
            '\u{1A}' if self.lossy => None,
            '\u{FFFD}' if self.lossy => Some(0x1A),
            '\0'..='\x7F' => Some(c as u8),
            _ => self.bytes.get(&c).copied(),
        };
        text.chars().map(encode).collect()
    }
}

/// Repairs until nothing changes.
pub(super) fn fix_encoding(text: &str) -> String {
    let mut text = text.to_string();
    loop {
        match fix_once(&text) {
            Some(fixed) if fixed != text => text = fixed,
            _ => return text,
        }
    }
}

fn fix_once(text: &str) -> Option<String> {
    if text.is_ascii() || !is_bad(text) {
        return None;
    }
    if let Some(fixed) = CODE_PAGES.iter().find_map(|page| reread(text, page)) {
        return Some(fixed);
    }
    let fixed = fix_embedded(text);
    if fixed != text {
        return Some(fixed);
    }
    if let Some(fixed) = latin_1_as_windows_1252(text).filter(|fixed| fixed != text) {
        return Some(fixed);
    }
    Some(fix_c1_controls(text))
}

/// The text as it would have been if bytes of this code page had been read as UTF-8.
fn reread(text: &str, page: &CodePage) -> Option<String> {
    let mut bytes = page.encode(text)?;
    if page.restores_a0 && (0..bytes.len()).any(|at| match_length(SPACE_FOR_A0, &bytes[at..]).is_some()) {
        bytes = restore_a0(&bytes);
    }
    if page.lossy {
        bytes = replace(LOST_BYTES, &bytes, |_, out| out.extend("\u{FFFD}".as_bytes()));
    }
    if bytes.contains(&0xED) || bytes.contains(&0xC0) { decode_variants(&bytes) } else { String::from_utf8(bytes).ok() }
}

/// Repairs the parts that are garbled on their own, for text that was joined from pieces in several encodings.
fn fix_embedded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for run in utf8_like_runs(text) {
        out.push_str(&text[done..run.start]);
        let part = &text[run.clone()];
        if part.len() < text.len() && is_bad(part) {
            out.push_str(&fix_encoding(part));
        } else {
            out.push_str(part);
        }
        done = run.end;
    }
    out.push_str(&text[done..]);
    out
}

/// Windows-1252 that was read as Latin-1, if the whole text can be.
fn latin_1_as_windows_1252(text: &str) -> Option<String> {
    let unassigned = |c: char| matches!(c, '\u{81}' | '\u{8D}' | '\u{8F}' | '\u{90}' | '\u{9D}');
    let legitimate = text.chars().all(|c| c <= '\u{FF}' && !unassigned(c));
    legitimate.then(|| fix_c1_controls(text))
}

/// Gives control characters 80 to 9F their meaning in Windows-1252.
pub(super) fn fix_c1_controls(text: &str) -> String {
    let fix = |c: char| match c {
        '\u{80}'..='\u{9F}' => char::from_u32(u32::from(code_pages::WINDOWS_1252[c as usize - 0x80])).unwrap_or(c),
        _ => c,
    };
    text.chars().map(fix).collect()
}

/// One position of a byte pattern: inclusive ranges.
type ByteSet = &'static [(u8, u8)];

const SPACE: ByteSet = &[(0x20, 0x20)];
const CONTINUATION: ByteSet = &[(0x80, 0xBF)];
const CONTINUATION_BUT_85_A0: ByteSet = &[(0x80, 0x84), (0x86, 0x9F), (0xA1, 0xBF)];
const LOST: ByteSet = &[(0x1A, 0x1A)];
const LOST_OR_MARK: ByteSet = &[(0x1A, 0x1A), (0x3F, 0x3F)];
const LOST_OR_CONTINUATION: ByteSet = &[(0x1A, 0x1A), (0x80, 0xBF)];
const HIGH_SURROGATE: ByteSet = &[(0xA0, 0xAF)];
const LOW_SURROGATE: ByteSet = &[(0xB0, 0xBF)];
const ANY_LOST_OR_CONTINUATION: ByteSet = &[(0x1A, 0x1A), (0x3F, 0x3F), (0x80, 0xBF)];
const ED: ByteSet = &[(0xED, 0xED)];
const F0: ByteSet = &[(0xF0, 0xF0)];
const FIRST_OF_3: ByteSet = &[(0xE0, 0xEF)];
const FIRST_OF_4: ByteSet = &[(0xF0, 0xF4)];

/// UTF-8 whose byte A0 became a plain space, where the character meant is a likely one. The first alternative that matches counts.
const SPACE_FOR_A0: &[&[ByteSet]] = &[
    &[&[(0xC2, 0xC3), (0xC5, 0xC5), (0xCE, 0xCE), (0xD0, 0xD0), (0xD9, 0xD9)], SPACE],
    &[&[(0xE2, 0xE3)], SPACE, CONTINUATION_BUT_85_A0],
    &[&[(0xE0, 0xE3)], CONTINUATION_BUT_85_A0, SPACE],
    &[F0, SPACE, CONTINUATION, CONTINUATION],
    &[F0, CONTINUATION, SPACE, CONTINUATION],
    &[F0, CONTINUATION, CONTINUATION, SPACE],
];

/// UTF-8 that lost some of its bytes, which are now 1A or, once a sequence, a question mark.
const LOST_BYTES: &[&[ByteSet]] = &[
    &[&[(0xC2, 0xDF)], LOST],
    &[&[(0xC2, 0xC3)], &[(0x3F, 0x3F)]],
    &[ED, HIGH_SURROGATE, LOST_OR_MARK, ED, LOW_SURROGATE, ANY_LOST_OR_CONTINUATION],
    &[ED, HIGH_SURROGATE, ANY_LOST_OR_CONTINUATION, ED, LOW_SURROGATE, LOST_OR_MARK],
    &[FIRST_OF_3, LOST_OR_MARK, LOST_OR_CONTINUATION],
    &[FIRST_OF_3, LOST_OR_CONTINUATION, LOST_OR_MARK],
    &[FIRST_OF_4, LOST_OR_MARK, LOST_OR_CONTINUATION, LOST_OR_CONTINUATION],
    &[FIRST_OF_4, LOST_OR_CONTINUATION, LOST_OR_MARK, LOST_OR_CONTINUATION],
    &[FIRST_OF_4, LOST_OR_CONTINUATION, LOST_OR_CONTINUATION, LOST_OR_MARK],
    &[LOST],
];

fn match_length(patterns: &[&[ByteSet]], bytes: &[u8]) -> Option<usize> {
    let accepts = |set: &ByteSet, byte: &u8| set.iter().any(|(first, last)| (first..=last).contains(&byte));
    let matches = |pattern: &&&[ByteSet]| {
        pattern.len() <= bytes.len() && pattern.iter().zip(bytes).all(|(set, byte)| accepts(set, byte))
    };
    patterns.iter().find(matches).map(|pattern| pattern.len())
}

/// Lets `write` replace each match, from left to right.
fn replace(patterns: &[&[ByteSet]], bytes: &[u8], write: impl Fn(&[u8], &mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if let Some(length) = match_length(patterns, &bytes[at..]) {
            write(&bytes[at..at + length], &mut out);
            at += length;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    out
}

/// Puts A0 back. `Ã` as a word of its own is `à` and keeps its space, but for the Portuguese words that begin with `à`.
fn restore_a0(bytes: &[u8]) -> Vec<u8> {
    let mut spaced = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        spaced.push(bytes[at]);
        if let Some(rest) = bytes[at..].strip_prefix(b"\xC3 ") {
            let joined: [&[u8]; 5] = [b" ", b"quele", b"quela", b"quilo", b"s "];
            if !joined.iter().any(|continuation| rest.starts_with(continuation)) {
                spaced.push(0xA0);
            }
        }
        at += 1;
    }
    replace(SPACE_FOR_A0, &spaced, |matched, out| {
        out.extend(matched.iter().map(|byte| if *byte == 0x20 { 0xA0 } else { *byte }))
    })
}

/// Decodes UTF-8, CESU-8 (surrogate pairs of three bytes each) and Java's two-byte NUL. Where the reference takes a final line feed
/// for the end of the bytes, so does this.
fn decode_variants(bytes: &[u8]) -> Option<String> {
    let mut out = String::with_capacity(bytes.len());
    let mut plain = 0;
    let mut at = 0;
    while at < bytes.len() {
        let Some((c, length)) = variant_character(&bytes[at..]) else {
            at += 1;
            continue;
        };
        out.push_str(std::str::from_utf8(&bytes[plain..at]).ok()?);
        out.push(c);
        at += length;
        plain = at;
    }
    out.push_str(std::str::from_utf8(&bytes[plain..]).ok()?);
    Some(out)
}

fn variant_character(bytes: &[u8]) -> Option<(char, usize)> {
    match bytes {
        [0xC0, 0x80, ..] | [0xC0, b'\n'] => Some(('\0', 2)),
        [0xED, b1 @ 0xA0..=0xAF, b2 @ 0x80..=0xBF, 0xED, b4 @ 0xB0..=0xBF, b5, rest @ ..]
            if (0x80..=0xBF).contains(b5) || (*b5 == b'\n' && rest.is_empty()) =>
        {
            let bits = |byte: &u8, mask: u8, shift: u32| u32::from(byte & mask) << shift;
            let code = 0x1_0000 + bits(b1, 0x0F, 16) + bits(b2, 0x3F, 10) + bits(b4, 0x0F, 6) + bits(b5, 0x3F, 0);
            char::from_u32(code).map(|c| (c, 6))
        }
        _ => None,
    }
}
