//! Which characters and sequences betray UTF-8 that was read in another encoding. Character classes and rules are those of
//! ftfy 6.3 by Robyn Speer (Apache-2.0), restated as tables.

use std::sync::LazyLock;

use super::super::python::is_space;
use super::code_pages;

type Class = u32;

const COMMON: Class = 1;
const C1: Class = 1 << 1;
const BAD: Class = 1 << 2;
const LAW: Class = 1 << 3;
const CURRENCY: Class = 1 << 4;
const OPENING: Class = 1 << 5;
const CLOSING: Class = 1 << 6;
const NUMERIC: Class = 1 << 7;
const KAOMOJI: Class = 1 << 8;
const UPPER: Class = 1 << 9;
const LOWER: Class = 1 << 10;
const UPPER_COMMON: Class = 1 << 11;
const LOWER_COMMON: Class = 1 << 12;
const BOX: Class = 1 << 13;
const ASCII_UPPER: Class = 1 << 14;
const ASCII_LOWER: Class = 1 << 15;
const SPACE: Class = 1 << 16;
const FIRST_OF_2: Class = 1 << 17;
const FIRST_OF_3: Class = 1 << 18;
const FIRST_OF_4: Class = 1 << 19;
const CONTINUATION: Class = 1 << 20;
const CONTINUATION_STRICT: Class = 1 << 21;

const ACCENTED: Class = LOWER | UPPER;
const ASCII_LETTER: Class = ASCII_UPPER | ASCII_LOWER;
const PUNCTUATION: Class = OPENING | CLOSING;
const SYMBOLS: Class = CURRENCY | NUMERIC | LAW;

/// Inclusive ranges of code points of each class; `KAOMOJI` are accented letters that occur in emoticons.
#[rustfmt::skip]
const RANGES: &[(Class, &[(u32, u32)])] = &[
    (COMMON, &[(0xA0, 0xA0), (0xAD, 0xAD), (0xB4, 0xB4), (0xB7, 0xB7), (0x2013, 0x2015), (0x2019, 0x2019), (0x2026, 0x2026)]),
    (C1, &[(0x80, 0x9F)]),
    (BAD, &[
        (0xA4, 0xA4), (0xA6, 0xA6), (0xA8, 0xA8), (0xAA, 0xAA), (0xAC, 0xAC), (0xAF, 0xAF), (0xB8, 0xB8), (0xBA, 0xBA),
        (0x0192, 0x0192), (0x02C6, 0x02C7), (0x02D8, 0x02D8), (0x02DB, 0x02DC), (0x2020, 0x2021), (0x2030, 0x2030),
        (0x2310, 0x2310), (0x25CA, 0x25CA), (0xFFFD, 0xFFFD),
    ]),
    (LAW, &[(0xA7, 0xA7), (0xB6, 0xB6)]),
    (CURRENCY, &[(0xA2, 0xA3), (0xA5, 0xA5), (0x20A7, 0x20A7), (0x20AC, 0x20AC)]),
    (OPENING, &[
        (0xA1, 0xA1), (0xA9, 0xA9), (0xAB, 0xAB), (0xBF, 0xBF), (0x0384, 0x0385), (0x2018, 0x2018), (0x201A, 0x201A),
        (0x201C, 0x201C), (0x201E, 0x201E), (0x2022, 0x2022), (0x2039, 0x2039), (0xF8FF, 0xF8FF),
    ]),
    (CLOSING, &[(0xAE, 0xAE), (0xBB, 0xBB), (0x02DD, 0x02DD), (0x201D, 0x201D), (0x203A, 0x203A), (0x2122, 0x2122)]),
    (NUMERIC, &[
        (0xB1, 0xB3), (0xB5, 0xB5), (0xB9, 0xB9), (0xBC, 0xBE), (0xD7, 0xD7), (0xF7, 0xF7), (0x2044, 0x2044), (0x2116, 0x2116),
        (0x2202, 0x2202), (0x2206, 0x2206), (0x220F, 0x220F), (0x2211, 0x2211), (0x221A, 0x221A), (0x221E, 0x221E),
        (0x2229, 0x2229), (0x222B, 0x222B), (0x2248, 0x2248), (0x2260, 0x2261), (0x2264, 0x2265),
    ]),
    (KAOMOJI, &[
        (0xB0, 0xB0), (0xD2, 0xD6), (0xD9, 0xDC), (0xF2, 0xF6), (0xF8, 0xFC), (0x014C, 0x014C), (0x0150, 0x0150),
        (0x016A, 0x016A), (0x0172, 0x0172),
    ]),
    (UPPER, &[
        (0xC0, 0xD1), (0xD8, 0xD8), (0xDC, 0xDD), (0x0100, 0x0100), (0x0102, 0x0102), (0x0104, 0x0104), (0x0106, 0x0106),
        (0x010C, 0x010C), (0x010E, 0x010E), (0x0110, 0x0110), (0x0112, 0x0112), (0x0116, 0x0116), (0x0118, 0x0118),
        (0x011A, 0x011A), (0x011E, 0x011E), (0x0122, 0x0122), (0x012A, 0x012A), (0x0130, 0x0130), (0x0136, 0x0136),
        (0x0139, 0x0139), (0x013B, 0x013B), (0x013D, 0x013D), (0x0141, 0x0141), (0x0143, 0x0143), (0x0145, 0x0145),
        (0x0147, 0x0147), (0x0152, 0x0152), (0x0158, 0x0158), (0x015A, 0x015A), (0x015E, 0x015E), (0x0160, 0x0160),
        (0x0162, 0x0162), (0x0164, 0x0164), (0x016E, 0x016E), (0x0170, 0x0170), (0x0178, 0x0179), (0x017B, 0x017B),
        (0x017D, 0x017D), (0x0490, 0x0490),
    ]),
    (LOWER, &[
        (0xDF, 0xF1), (0xFC, 0xFC), (0x0101, 0x0101), (0x0103, 0x0103), (0x0105, 0x0105), (0x0107, 0x0107), (0x010D, 0x010D),
        (0x010F, 0x010F), (0x0111, 0x0111), (0x0113, 0x0113), (0x0117, 0x0117), (0x0119, 0x0119), (0x011B, 0x011B),
        (0x011F, 0x011F), (0x0123, 0x0123), (0x012B, 0x012B), (0x012F, 0x012F), (0x0137, 0x0137), (0x013A, 0x013A),
        (0x013C, 0x013C), (0x013E, 0x013E), (0x0142, 0x0142), (0x0153, 0x0153), (0x0155, 0x0155), (0x015B, 0x015B),
        (0x015F, 0x015F), (0x0161, 0x0161), (0x0165, 0x0165), (0x017A, 0x017A), (0x017C, 0x017C), (0x017E, 0x017E),
        (0x0491, 0x0491), (0xFB01, 0xFB02),
    ]),
    (UPPER_COMMON, &[(0xDE, 0xDE), (0x0386, 0x0386), (0x0388, 0x038A), (0x038C, 0x038C), (0x038E, 0x038F), (0x0391, 0x03AB), (0x0401, 0x042F)]),
    (LOWER_COMMON, &[(0x03AC, 0x03C9), (0x0430, 0x045F)]),
    (BOX, &[
        (0x2502, 0x2502), (0x250C, 0x250C), (0x2510, 0x2510), (0x2518, 0x2518), (0x251C, 0x251C), (0x2524, 0x2524),
        (0x252C, 0x252C), (0x253C, 0x253C), (0x2550, 0x256C), (0x2580, 0x2580), (0x2584, 0x2584), (0x2588, 0x2588),
        (0x258C, 0x258C), (0x2590, 0x2593),
    ]),
    (ASCII_UPPER, &[(0x41, 0x5A)]),
    (ASCII_LOWER, &[(0x61, 0x7A)]),
];

/// Continuation bytes that, in some encoding, are punctuation which often stands for itself.
const HONEST_CONTINUATIONS: &str = " –—―‘’‚“”„•…";

/// The encodings whose letters are recognised as UTF-8 bytes wherever they occur.
const LATIN_LIKE: [&[u16; 128]; 6] = [
    &code_pages::WINDOWS_1252,
    &code_pages::WINDOWS_1251,
    &code_pages::WINDOWS_1250,
    &code_pages::WINDOWS_1253,
    &code_pages::WINDOWS_1254,
    &code_pages::WINDOWS_1257,
];

/// What one position of a rule accepts.
#[derive(Clone, Copy)]
enum Accepts {
    /// A character of one of these classes.
    Of(Class),
    /// One of these characters.
    Chars(&'static str),
    /// A character of one of these classes or one of these characters.
    Either(Class, &'static str),
    /// Anything but an ASCII letter.
    NotAsciiLetter,
    /// A letter, number or underscore.
    Word,
    /// Anything but a line feed.
    Any,
}

use Accepts::{Any, Chars, Either, NotAsciiLetter, Of, Word};

/// Sequences that hardly occur in text that was read in the right encoding.
#[rustfmt::skip]
const RULES: &[&[Accepts]] = &[
    &[Of(C1)],
    &[Of(BAD | ACCENTED | BOX | PUNCTUATION | SYMBOLS), Of(BAD)],
    &[Of(ASCII_LETTER), Of(LOWER_COMMON | UPPER_COMMON), Of(BAD)],
    &[Of(BAD), Of(ACCENTED | BOX | PUNCTUATION | SYMBOLS)],
    &[Of(LOWER | LOWER_COMMON | BOX | CLOSING | CURRENCY | NUMERIC), Of(UPPER)],
    &[Of(BOX | CLOSING | CURRENCY | NUMERIC), Of(LOWER)],
    &[Of(LOWER | BOX | CLOSING), Of(CURRENCY)],
    &[Of(SPACE), Of(UPPER), Of(CURRENCY)],
    &[Of(UPPER | BOX), Of(NUMERIC | LAW)],
    &[Of(ACCENTED | BOX | CURRENCY | CLOSING), Of(OPENING), Of(NUMERIC)],
    &[Of(ACCENTED | SYMBOLS | BOX), Of(CLOSING), Of(OPENING)],
    &[Of(CURRENCY | NUMERIC | BOX), Of(OPENING)],
    &[Of(ASCII_LOWER), Of(UPPER), Of(OPENING | CURRENCY)],
    &[Of(BOX), Of(KAOMOJI)],
    &[Of(ACCENTED | SYMBOLS | PUNCTUATION), Of(BOX)],
    &[Of(BOX), Of(CLOSING)],
    &[Of(ACCENTED), Of(PUNCTUATION), Word],
    // The ligature is followed by a plain letter in real words.
    &[Chars("Œœ"), NotAsciiLetter],
    &[Of(UPPER), Chars("°")],
    // Windows-1252 pairs that the classes leave out.
    &[Chars("ÂÃÎÐ"), Either(PUNCTUATION, "€œŠš¢£Ÿž\u{A0}\u{AD}®©°·»–—´")],
    &[Chars("×"), Chars("²³")],
    // Arabic words read as Windows-1252; two pairs, because each alone is plausible.
    &[Chars("ØÙ"), Either(COMMON | CURRENCY | BAD | NUMERIC | OPENING, "ŸŠ®°µ»"),
      Chars("ØÙ"), Either(COMMON | CURRENCY | BAD | NUMERIC | OPENING, "ŸŠ®°µ»")],
    // Alphabets of South Asia.
    &[Chars("à"), Chars("²µ¹¼½¾")],
    // Mac Roman.
    &[Chars("√"), Chars("±∂†≠®™´≤≥¥µø")],
    &[Chars("≈"), Chars("°¢")],
    &[Chars("‚"), Chars("Ä"), Chars("ìîïòôúùû†°¢π")],
    &[Chars("‚"), Chars("âó"), Chars("àä°ê")],
    // Windows-1251: general punctuation, then Latin-1 and Cyrillic letters.
    &[Chars("в"), Chars("Ђ")],
    &[Chars("ВГРС"), Either(C1 | BAD | PUNCTUATION | CURRENCY, "°µ"), Chars("ВГРС")],
    &[Chars("Г"), Chars("ў"), Chars("В"), Chars("Ђ"), Chars("В"), Any, Either(ASCII_LETTER, " ")],
    // `à`, `á` and the no-break space.
    &[Chars("Ã"), Chars("\u{A0}¡")],
    &[Of(ASCII_LOWER), Chars("ÃÂ"), Chars(" ")],
    &[Of(ASCII_LOWER), Of(SPACE), Chars("ÃÂ"), Chars(" ")],
    &[Either(ASCII_LOWER | CLOSING, ".,?!"), Chars("Â"), Either(PUNCTUATION, " ")],
    // Windows-1253: general punctuation, then Latin-1 and Greek letters.
    &[Chars("β"), Chars("€"), Chars("™\u{A0}Ά\u{AD}®°")],
    &[Chars("ΒΓΞΟ"), Either(C1 | BAD | PUNCTUATION | CURRENCY, "°"), Chars("ΒΓΞΟ")],
    // Windows-1257: general punctuation.
    &[Chars("ā"), Chars("€")],
];

/// Class bits of every code point below 0x2700.
static CLASSES: LazyLock<Vec<Class>> = LazyLock::new(|| {
    let mut table = vec![0; 0x2700];
    for (class, ranges) in RANGES {
        for &(first, last) in *ranges {
            (first..=last).filter(|code| *code < 0x2700).for_each(|code| table[code as usize] |= class);
        }
    }
    (0..0x2700).filter_map(char::from_u32).filter(|c| is_space(*c)).for_each(|c| table[c as usize] |= SPACE);
    for byte in 0x80..=0xFFu8 {
        let role = utf8_role(byte);
        table[usize::from(byte)] |= role;
        LATIN_LIKE.iter().for_each(|page| table[usize::from(page[usize::from(byte - 0x80)])] |= role);
    }
    for c in HONEST_CONTINUATIONS.chars() {
        table[c as usize] |= CONTINUATION;
        table[c as usize] &= !CONTINUATION_STRICT;
    }
    table
});

/// The part a byte plays in the UTF-8 of the characters that matter: four-byte sequences begin with F0, or F3 for the tags in flags.
fn utf8_role(byte: u8) -> Class {
    match byte {
        0x80..=0xBF => CONTINUATION | CONTINUATION_STRICT,
        0xC2..=0xDF => FIRST_OF_2,
        0xE0..=0xEF => FIRST_OF_3,
        0xF0 | 0xF3 => FIRST_OF_4,
        _ => 0,
    }
}

fn class(c: char) -> Class {
    match c {
        '\u{FFFD}' => BAD,
        '\u{3000}' => SPACE,
        '\u{F8FF}' => OPENING,
        '\u{FB01}' | '\u{FB02}' => LOWER,
        _ => CLASSES.get(c as usize).copied().unwrap_or(0),
    }
}

impl Accepts {
    fn accepts(self, c: char, classes: Class) -> bool {
        match self {
            Of(wanted) => classes & wanted != 0,
            Chars(wanted) => wanted.contains(c),
            Either(wanted, chars) => classes & wanted != 0 || chars.contains(c),
            NotAsciiLetter => classes & ASCII_LETTER == 0,
            Word => super::super::python::is_word(c),
            Any => c != '\n',
        }
    }
}

/// Whether the text holds a sequence that hardly occurs in text that was read in the right encoding.
pub(super) fn is_bad(text: &str) -> bool {
    if text.strip_prefix(['Ã', 'Â']).is_some_and(|rest| rest.starts_with(' ')) {
        return true;
    }
    let chars: Vec<(char, Class)> = text.chars().map(|c| (c, class(c))).collect();
    (0..chars.len()).any(|at| RULES.iter().any(|rule| follows(rule, &chars[at..])))
}

fn follows(rule: &[Accepts], chars: &[(char, Class)]) -> bool {
    rule.len() <= chars.len() && rule.iter().zip(chars).all(|(accepts, &(c, classes))| accepts.accepts(c, classes))
}

/// Byte ranges of the runs that look like UTF-8 read in a Latin-like encoding, each as long as possible. A run doesn't begin
/// right after a character that looks like a continuation byte, lest the middle of a bigger garble be taken for a whole.
pub(super) fn utf8_like_runs(text: &str) -> Vec<std::ops::Range<usize>> {
    let chars: Vec<(usize, Class)> = text.char_indices().map(|(at, c)| (at, class(c))).collect();
    let offset = |index: usize| chars.get(index).map_or(text.len(), |(at, _)| *at);
    let mut runs = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let mut end = at;
        if at == 0 || chars[at - 1].1 & CONTINUATION_STRICT == 0 {
            while let Some(length) = utf8_like_unit(&chars[end..]) {
                end += length;
            }
        }
        if end > at {
            runs.push(offset(at)..offset(end));
        }
        at = end.max(at + 1);
    }
    runs
}

/// Length of the UTF-8 sequence that these characters look like.
fn utf8_like_unit(chars: &[(usize, Class)]) -> Option<usize> {
    let first = chars.first()?.1;
    let length =
        [(FIRST_OF_2, 2), (FIRST_OF_3, 3), (FIRST_OF_4, 4)].into_iter().find(|(class, _)| first & class != 0)?.1;
    let rest = chars.get(1..length)?;
    rest.iter().all(|(_, class)| class & CONTINUATION != 0).then_some(length)
}
