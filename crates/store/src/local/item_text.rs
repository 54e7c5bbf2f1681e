//! What full-text search knows about an item: words of its file's name, of its captions, and of its other texts.

use serde_json::{Map, Value};

use crate::Item;

/// Bytes of each column; what is behind them isn't found by its words.
const MAX_COLUMN_BYTES: usize = 64 << 10;
/// Folders above a file whose names are searched with it.
const FOLDERS: usize = 2;

/// Metadata keys whose texts describe the item, at any depth and in any case, also with an `s` behind.
const CAPTION_KEYS: [&str; 16] = [
    "caption",
    "title",
    "description",
    "text",
    "alt",
    "alt_text",
    "keyword",
    "tag",
    "label",
    "subject",
    "headline",
    "summary",
    "comment",
    "transcript",
    "ocr",
    "prompt",
];

/// The columns of the full-text table, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ItemText {
    /// The file's name; the last part of the id for an item without a source.
    pub name: String,
    /// Texts below [`CAPTION_KEYS`].
    pub caption: String,
    /// All other texts of the metadata, and the names of the nearest folders.
    pub other: String,
}

impl ItemText {
    pub fn of(item: &Item) -> Self {
        let mut text = Self::default();
        let path = item.source.as_ref().map_or(&item.id, |source| &source.uri);
        let mut parts = path.rsplit(['/', '\\']).filter(|part| !part.is_empty());
        if let Some(name) = parts.next() {
            add(&mut text.name, name);
            add_camel_case(&mut text.name, name);
        }
        if item.source.is_some() {
            parts.take(FOLDERS).for_each(|folder| add(&mut text.other, folder));
        }
        text.add_object(&item.metadata);
        text
    }

    fn add_object(&mut self, object: &Map<String, Value>) {
        for (key, value) in object {
            let key = key.to_ascii_lowercase();
            let singular = key.strip_suffix('s').unwrap_or(&key);
            let is_caption = CAPTION_KEYS.iter().any(|caption| key == *caption || singular == *caption);
            self.add_value(value, is_caption);
        }
    }

    fn add_value(&mut self, value: &Value, is_caption: bool) {
        match value {
            Value::String(text) => add(if is_caption { &mut self.caption } else { &mut self.other }, text),
            Value::Array(values) => values.iter().for_each(|value| self.add_value(value, is_caption)),
            Value::Object(object) => self.add_object(object),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// Adds a text to a column, as far as it has room.
fn add(column: &mut String, text: &str) {
    if !column.is_empty() {
        column.push(' ');
    }
    let room = MAX_COLUMN_BYTES.saturating_sub(column.len());
    let end = (0..=room.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    column.push_str(&separated(&text[..end]));
}

/// Adds the words of `RedCar` as `Red Car`.
fn add_camel_case(column: &mut String, name: &str) {
    let mut split = String::new();
    let mut before = ' ';
    for character in name.chars() {
        if before.is_lowercase() && character.is_uppercase() {
            split.push(' ');
        }
        split.push(character);
        before = character;
    }
    if split.len() > name.len() {
        add(column, &split);
    }
}

/// The text with spaces around each character of scripts that put none between words, so that each is a word of its
/// own: a phrase of them finds any text that has them in a row. NUL, at which SQLite ends texts, is a space.
pub(super) fn separated(text: &str) -> String {
    let mut separated = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unspaced(character) {
            separated.extend([' ', character, ' ']);
        } else {
            separated.push(if character == '\0' { ' ' } else { character });
        }
    }
    separated
}

/// Han, Hiragana, Katakana, Thai, Lao, Myanmar and Khmer letters.
fn is_unspaced(character: char) -> bool {
    let ranges = [
        '\u{e01}'..='\u{eff}',
        '\u{1000}'..='\u{109f}',
        '\u{1780}'..='\u{17ff}',
        '\u{3041}'..='\u{30ff}',
        '\u{3400}'..='\u{9fff}',
        '\u{f900}'..='\u{faff}',
        '\u{20000}'..='\u{3ffff}',
    ];
    character.is_alphabetic() && ranges.iter().any(|range| range.contains(&character))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Source;

    #[test]
    fn texts_go_to_their_columns() {
        let mut item = Item::new("a/b_c", "image");
        assert_eq!(ItemText::of(&item), ItemText { name: "b_c".to_owned(), ..ItemText::default() });
        item.source = Some(Source { uri: "/far/near/pets/RedCat.jpg".to_owned(), size: None, modified_ns: None });
        let metadata = json!({
            "Caption": "a cat", "tags": ["pet", {"x": "y"}], "n": 5, "exif": {"Title": "T", "camera": "C"}, "注": "猫が好き",
        });
        item.metadata = metadata.as_object().unwrap().clone();
        let expected = ItemText {
            name: "RedCat.jpg Red Cat.jpg".to_owned(),
            caption: "a cat pet T".to_owned(),
            other: "pets near y C  猫  が  好  き ".to_owned(),
        };
        assert_eq!(ItemText::of(&item), expected);
    }

    #[test]
    fn columns_have_a_limit() {
        let mut item = Item::new("a", "text");
        item.metadata.insert("text".to_owned(), json!(["é".repeat(MAX_COLUMN_BYTES), "more"]));
        let caption = ItemText::of(&item).caption;
        assert!(caption.len() <= MAX_COLUMN_BYTES + 2 && caption.starts_with("éé"), "{}", caption.len());
    }
}
