//! Search by words in one snapshot, ranked by BM25.
//!
//! What people type is never syntax of the database: each word and each phrase in quotes becomes a quoted phrase, so that
//! the database's own tokenizer cuts it as it cut the texts. A hit has at least one of them.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use rusqlite::{Connection, OptionalExtension};

use super::filter_keys::{Keys, matching_keys};
use super::item_text::separated;
use super::rows::{ITEM_COLUMNS, read_item};
use super::schema;
use crate::{StoreError, TextHit, TextRequest};

const MAX_TEXT_BYTES: usize = 10_000;
const MAX_WORDS: usize = 200;

/// How much a word counts in the name, in captions and elsewhere.
const RANK: &str = "bm25(texts, 2.0, 4.0, 1.0)";

/// A word that more than one text in so many has says little and costs much: it is passed over beside rarer ones...
const COMMON_SHARE: u64 = 8;
/// ... where there are more texts with it than this.
const COMMON_FLOOR: u64 = 10_000;

pub(super) fn search(connection: &Connection, request: &TextRequest) -> Result<Vec<TextHit>, StoreError> {
    let words = words(&request.text)?;
    let keys = request.filter.as_ref().map(|filter| matching_keys(connection, filter)).transpose()?;
    if schema::version(connection)? < schema::ITEM_TABLES_VERSION {
        let operation =
            "search texts in a collection of format version 1; open it once for writing to bring it up to date";
        return Err(StoreError::Unsupported { operation });
    }
    let wanted = request.k.saturating_add(request.offset);
    if words.is_empty() || wanted == 0 || request.k == 0 || keys.as_ref().is_some_and(Keys::is_empty) {
        return Ok(Vec::new());
    }
    let best = best(connection, &rarer(connection, words)?.join(" OR "), keys.as_ref(), wanted)?;
    let sql = format!("SELECT {ITEM_COLUMNS} FROM items i WHERE i.key = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut hits = Vec::new();
    for Ranked { key, score } in best.into_iter().skip(request.offset) {
        if let Some(stored) = statement.query_row([key], |row| read_item(row, 0)).optional()? {
            hits.push(TextHit { key, score: score as f32, item: stored.item });
        }
    }
    Ok(hits)
}

/// The words and phrases of a text as quoted phrases of the database's language; a `*` behind makes it a beginning.
fn words(text: &str) -> Result<Vec<String>, StoreError> {
    let invalid = |reason| StoreError::InvalidText { text: crate::validate::shorten(text), reason };
    if text.len() > MAX_TEXT_BYTES {
        return Err(invalid(format!("has {} bytes, at most {MAX_TEXT_BYTES} are searched for", text.len())));
    }
    let mut words = Vec::new();
    // Every second piece was between quotes; a quote that isn't closed goes to the end.
    let mut pieces = text.split('"').enumerate().peekable();
    while let Some((position, piece)) = pieces.next() {
        if position % 2 == 1 {
            let beginning = pieces.peek().is_some_and(|(_, behind)| behind.starts_with('*'));
            words.extend(phrase(piece, beginning));
        } else {
            let own = |word: &str| phrase(word.trim_end_matches('*'), word.ends_with('*'));
            words.extend(piece.split_whitespace().filter_map(own));
        }
    }
    if words.len() > MAX_WORDS {
        return Err(invalid(format!("has {} words, at most {MAX_WORDS} are searched for", words.len())));
    }
    Ok(words)
}

fn phrase(text: &str, beginning: bool) -> Option<String> {
    // What has neither letters nor digits is cut to nothing by the tokenizer.
    let has_words = text.chars().any(char::is_alphanumeric);
    has_words.then(|| format!("\"{}\"{}", separated(text), if beginning { "*" } else { "" }))
}

/// The words less those that nearly every text has; all of them when they are all like that.
fn rarer(connection: &Connection, words: Vec<String>) -> rusqlite::Result<Vec<String>> {
    let most: i64 = connection.query_row("SELECT ifnull(max(key), 0) FROM items", [], |row| row.get(0))?;
    let common = COMMON_FLOOR.max(most as u64 / COMMON_SHARE);
    if words.len() < 2 || most as u64 <= common {
        return Ok(words);
    }
    let sql = "SELECT count(*) FROM (SELECT 1 FROM texts WHERE texts MATCH ?1 LIMIT ?2)";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rare = Vec::new();
    for word in &words {
        let count: i64 = statement.query_row((word, common as i64 + 1), |row| row.get(0))?;
        if count as u64 <= common {
            rare.push(word.clone());
        }
    }
    Ok(if rare.is_empty() { words } else { rare })
}

/// An item with its score; greater when it ranks higher: by score, then by lower key.
#[derive(Debug, PartialEq)]
struct Ranked {
    key: i64,
    score: f64,
}

impl Eq for Ranked {}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.key.cmp(&self.key))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The best `count` items, best first.
fn best(connection: &Connection, query: &str, keys: Option<&Keys>, count: usize) -> rusqlite::Result<Vec<Ranked>> {
    let sql = format!("SELECT rowid, {RANK} FROM texts WHERE texts MATCH ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([query])?;
    // The least of those kept is on top.
    let mut heap = BinaryHeap::new();
    while let Some(row) = rows.next()? {
        let key: i64 = row.get(0)?;
        if keys.is_some_and(|keys| !keys.contains(key as u64)) {
            continue;
        }
        // The database's ranks are the negated scores.
        let ranked = Ranked { key, score: -row.get::<_, f64>(1)? };
        if heap.len() < count {
            heap.push(std::cmp::Reverse(ranked));
        } else if heap.peek().is_some_and(|least| ranked > least.0) {
            heap.pop();
            heap.push(std::cmp::Reverse(ranked));
        }
    }
    Ok(heap.into_sorted_vec().into_iter().map(|ranked| ranked.0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_text_is_never_syntax() {
        let cases: [(&str, &[&str]); 9] = [
            ("red car", &["\"red\"", "\"car\""]),
            ("\"red car\" bus", &["\"red car\"", "\"bus\""]),
            ("retriev* \"golden ret\"*", &["\"retriev\"*", "\"golden ret\"*"]),
            (
                "AND OR NOT NEAR(a b) c:d ^e -f",
                &["\"AND\"", "\"OR\"", "\"NOT\"", "\"NEAR(a\"", "\"b)\"", "\"c:d\"", "\"^e\"", "\"-f\""],
            ),
            ("\"open", &["\"open\""]),
            ("* ! \"\" ' \"?\"", &[]),
            ("", &[]),
            ("a\0b", &["\"a b\""]),
            ("猫好", &["\" 猫  好 \""]),
        ];
        for (text, expected) in cases {
            assert_eq!(words(text).unwrap(), expected, "{text}");
        }
        assert!(words(&"a ".repeat(201)).unwrap_err().to_string().contains("201 words"));
        assert!(words(&"a".repeat(10_001)).unwrap_err().to_string().contains("10001 bytes"));
    }
}
