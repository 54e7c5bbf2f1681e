//! Which columns of a table are what: named by the user, or recognised by their usual names.

use std::path::Path;
use std::sync::Arc;

use crossmodal_models::Modality;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::collect::{Collected, Collector, Said, known_by};
use super::modality_of;
use super::record::{Counterpart, Location};
use super::table::{self, Entry, Row, ending, wrong};
use crate::error::{Error, Result};

/// Rows that are looked at to learn what columns there are.
const LOOKED_AT: usize = 64;

/// How often a pass takes an item at most.
const MOST_WEIGHT: f32 = 1000.0;

/// Names of a column of pictures or of other files, in the order of preference. `key` isn't among them: it names no file.
const FILE_NAMES: [&str; 11] =
    ["image", "image_path", "filepath", "file", "path", "filename", "file_name", "img", "picture", "audio", "video"];
/// Names of a column of captions.
const CAPTION_NAMES: [&str; 11] = [
    "caption",
    "captions",
    "title",
    "text",
    "texts",
    "txt",
    "sentence",
    "sentences",
    "description",
    "alt_text",
    "prompt",
];
/// Names of pairs of columns of texts.
const TEXT_PAIRS: [(&str, &str); 7] = [
    ("query", "document"),
    ("query", "positive"),
    ("anchor", "positive"),
    ("question", "answer"),
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("text_a", "text_b"),
];
const LABEL_NAMES: [&str; 4] = ["label", "class", "category", "cls"];
const CONCEPT_NAMES: [&str; 2] = ["concept", "concept_id"];

/// A column of right sides, and how training draws from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RightColumn {
    /// Its name. Dots lead into objects: `captions.en`.
    pub name: String,
    /// How often it is drawn from, in comparison with the other columns that an item has. 1 unless said otherwise.
    #[serde(default = "one")]
    pub weight: f32,
    /// So many of an item's texts at most are joined by commas, in random order: for keywords. 1 unless said otherwise.
    #[serde(default = "one_text")]
    pub join: usize,
    /// Templates for its texts, instead of those for all columns.
    #[serde(default)]
    pub templates: Vec<String>,
}

fn one() -> f32 {
    1.0
}

fn one_text() -> usize {
    1
}

impl RightColumn {
    /// A column of this name, everything else at its default.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), weight: one(), join: one_text(), templates: Vec::new() }
    }
}

/// Which columns are what. What isn't said is recognised by usual names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Columns {
    /// The left side: paths relative to the table, or texts.
    pub left: Option<String>,
    /// The right side. Several columns give an item several right sides.
    pub right: Vec<RightColumn>,
    /// Class of an item.
    pub label: Option<String>,
    /// Concept of an item: several items may show the same.
    pub concept: Option<String>,
    /// How often a pass of training takes an item on average: 0.5 every other time, 2 twice; 1 where a row says nothing. Never recognised by its name.
    pub weight: Option<String>,
    /// What the two sides are, where that isn't recognised by names and endings.
    pub modalities: Option<(Modality, Modality)>,
}

/// Columns that are settled.
#[derive(Debug)]
struct Settled {
    left: String,
    right: Vec<RightColumn>,
    label: Option<String>,
    concept: Option<String>,
    weight: Option<String>,
    modalities: (Modality, Modality),
}

/// A table's samples.
#[derive(Debug)]
pub struct TableSamples {
    /// The records and their names.
    pub collected: Collected,
    /// The columns of right sides.
    pub right: Vec<RightColumn>,
    /// What the two sides are.
    pub modalities: (Modality, Modality),
}

/// A value by the name of its column; dots lead into objects.
fn value<'a>(row: &'a Row, name: &str) -> Option<&'a Value> {
    if let Some(value) = row.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    match row.get(first)? {
        Value::Object(inner) => value(inner, rest),
        _ => None,
    }
}

/// The texts of a value: itself, those of a list, or those of all values of an object. Empty ones don't count.
fn texts(value: &Value, found: &mut Vec<Arc<str>>) {
    match value {
        Value::String(text) if text.trim().is_empty() => {}
        Value::String(text) => found.push(text.trim().into()),
        Value::Number(number) => found.push(number.to_string().into()),
        Value::Array(values) => values.iter().for_each(|value| texts(value, found)),
        Value::Object(values) => values.values().for_each(|value| texts(value, found)),
        Value::Null | Value::Bool(_) => {}
    }
}

fn single(row: &Row, name: &str) -> Option<String> {
    let mut found = Vec::new();
    texts(value(row, name)?, &mut found);
    found.first().map(|text| text.to_string())
}

impl Columns {
    fn settle(&self, path: &Path, rows: &[(u64, Row)]) -> Result<Settled> {
        let mut names: Vec<&str> = rows.iter().flat_map(|(_, row)| row.keys().map(String::as_str)).collect();
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(*name));
        let has = |name: &str| rows.iter().any(|(_, row)| value(row, name).is_some());
        let given = [&self.left, &self.label, &self.concept, &self.weight].into_iter().flatten().map(String::as_str);
        if let Some(name) = given.chain(self.right.iter().map(|column| column.name.as_str())).find(|name| !has(name)) {
            return Err(missing(path, &format!("no column {name:?}"), &names));
        }
        let first_of = |known: &[&str]| known.iter().copied().find(|known| names.contains(known)).map(str::to_owned);
        let pair = TEXT_PAIRS.iter().find(|(left, right)| names.contains(left) && names.contains(right));
        let left = self.left.clone().or_else(|| first_of(&FILE_NAMES)).or_else(|| pair.map(|(left, _)| (*left).into()));
        let left = left.ok_or_else(|| {
            let known = FILE_NAMES.join(", ");
            missing(path, &format!("no column of pictures or other files ({known}), nor a known pair of texts"), &names)
        })?;
        let right = match self.right.as_slice() {
            [] => {
                let of_pair = pair.filter(|(first, _)| *first == left).map(|(_, right)| (*right).to_owned());
                let known = of_pair.or_else(|| first_of(&CAPTION_NAMES).filter(|name| *name != left));
                let known = known.ok_or_else(|| {
                    let known = CAPTION_NAMES.join(", ");
                    missing(path, &format!("no column of captions ({known})"), &names)
                })?;
                vec![RightColumn::named(known)]
            }
            given => given.to_vec(),
        };
        let modalities = match self.modalities {
            Some(modalities) => modalities,
            None => (modality_of_column(rows, &left), modality_of_column(rows, &right[0].name)),
        };
        let label = self.label.clone().or_else(|| first_of(&LABEL_NAMES));
        let concept = self.concept.clone().or_else(|| first_of(&CONCEPT_NAMES));
        Ok(Settled { left, right, label, concept, weight: self.weight.clone(), modalities })
    }

    /// Reads the samples of a table. Malformed rows and rows without one of the two sides are left out and listed.
    ///
    /// # Errors
    /// A table that can't be read, or columns that aren't there or can't be recognised: the message lists those that are.
    pub fn read(&self, path: &Path) -> Result<TableSamples> {
        let mut rows = table::rows(path)?;
        let mut collector = Collector::default();
        let place = |number: u64| format!("{}:{number}", path.display());
        let mut first = Vec::new();
        while first.len() < LOOKED_AT
            && let Some(entry) = rows.next()
        {
            match entry? {
                (number, Entry::Row(row)) => first.push((number, row)),
                (number, Entry::Malformed(reason)) => collector.skipped.add(&place(number), reason),
            }
        }
        if first.is_empty() {
            return Err(match collector.skipped.listed().first() {
                Some((place, reason)) => Error::Invalid(format!("{place}: {reason}; no other row can be read either")),
                None => Error::Invalid(format!("{}: has no rows", path.display())),
            });
        }
        let settled = self.settle(path, &first)?;
        let base = path.parent().unwrap_or(Path::new(""));
        let first = first.into_iter().map(|(number, row)| Ok((number, Entry::Row(row))));
        for entry in first.chain(rows) {
            let (number, entry) = entry?;
            let side = match entry {
                Entry::Row(row) => settled.side(&row, base),
                Entry::Malformed(reason) => Err(reason),
            };
            match side {
                Ok((known, left, said)) => collector.add(&known, left, said),
                Err(reason) => collector.skipped.add(&place(number), reason),
            }
        }
        Ok(TableSamples { collected: collector.finish(), right: settled.right, modalities: settled.modalities })
    }
}

impl Settled {
    /// What the item of a row is known by, its left side, and what the row says of it.
    fn side(&self, row: &Row, base: &Path) -> std::result::Result<(String, Location, Said), String> {
        let (left_modality, right_modality) = self.modalities;
        let left = single(row, &self.left).ok_or_else(|| format!("column {:?} is empty", self.left))?;
        let mut right = Vec::new();
        for (column, place) in self.right.iter().zip(0..) {
            let mut found = Vec::new();
            if let Some(value) = value(row, &column.name) {
                texts(value, &mut found);
            }
            for text in found {
                right.push(Counterpart { column: place, location: location(&text, right_modality, base)? });
            }
        }
        if right.is_empty() {
            let names: Vec<&str> = self.right.iter().map(|column| column.name.as_str()).collect();
            return Err(format!("nothing in {}", names.join(", ")));
        }
        let named = |column: &Option<String>| column.as_ref().and_then(|column| single(row, column));
        let weight = self.weight.as_ref().and_then(|column| Some((column, single(row, column)?)));
        let weight = weight.map(|(column, text)| weight_of(column, &text)).transpose()?;
        let said = Said { right, concept: named(&self.concept), label: named(&self.label), weight };
        let known = if left_modality == Modality::Text { left.clone() } else { known_by(Path::new(&left)) };
        Ok((known, location(&left, left_modality, base)?, said))
    }
}

fn weight_of(column: &str, text: &str) -> std::result::Result<f32, String> {
    let weight = text.parse().ok().filter(|weight| (0.0..=MOST_WEIGHT).contains(weight));
    weight.ok_or_else(|| format!("column {column:?} is {text:?}, expected a number from 0 to {MOST_WEIGHT}"))
}

fn location(text: &str, modality: Modality, base: &Path) -> std::result::Result<Location, String> {
    match modality {
        Modality::Text => Ok(Location::Text(text.into())),
        Modality::Image | Modality::Audio | Modality::Video | Modality::Depth | Modality::Thermal | Modality::Imu => {
            if text.contains("://") {
                return Err(format!("{text:?} is an address, expected a path"));
            }
            Ok(Location::File(base.join(text).into()))
        }
    }
}

/// What a column holds, by its values' endings: files of a known kind, else texts. Where the endings say nothing, its name decides.
fn modality_of_column(rows: &[(u64, Row)], name: &str) -> Modality {
    let by_ending = rows.iter().find_map(|(_, row)| modality_of(&ending(Path::new(&single(row, name)?))));
    let last = name.rsplit('.').next().unwrap_or(name);
    match last {
        _ if CAPTION_NAMES.contains(&last) || TEXT_PAIRS.iter().any(|(a, b)| last == *a || last == *b) => {
            Modality::Text
        }
        "audio" => Modality::Audio,
        "video" => Modality::Video,
        _ if FILE_NAMES.contains(&last) => by_ending.unwrap_or(Modality::Image),
        _ => by_ending.unwrap_or(Modality::Text),
    }
}

fn missing(path: &Path, what: &str, names: &[&str]) -> Error {
    wrong(path, 1, format!("{what}; the table has {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(columns: &Columns, name: &str, text: &str) -> Result<TableSamples> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        columns.read(&path)
    }

    fn captions(samples: &TableSamples, record: usize) -> Vec<&str> {
        let right = &samples.collected.records[record].right;
        right.iter().map(|right| &**right.location.text().unwrap()).collect()
    }

    #[test]
    fn usual_names_are_recognised() {
        for header in ["image,caption", "filepath\ttitle", "path,text", "file_name,sentence"] {
            let separator = if header.contains('\t') { "\t" } else { "," };
            let rows = ["a.png", "a red apple"].join(separator);
            let found = read(&Columns::default(), "t.csv", &format!("{header}\n{rows}\n")).unwrap();
            assert_eq!(found.modalities, (Modality::Image, Modality::Text), "{header}");
            assert_eq!(captions(&found, 0), ["a red apple"], "{header}");
            let Location::File(path) = &found.collected.records[0].left else { panic!("{header}") };
            assert!(path.is_absolute() && path.ends_with("a.png"));
        }
        let texts = read(&Columns::default(), "t.tsv", "query\tdocument\nwho\tme\n").unwrap();
        assert_eq!(texts.modalities, (Modality::Text, Modality::Text));
        let sounds = read(&Columns::default(), "t.csv", "file,caption\na.wav,a dog barks\n").unwrap();
        assert_eq!(sounds.modalities, (Modality::Audio, Modality::Text));
    }

    #[test]
    fn several_captions_come_from_rows_lists_objects_and_columns() {
        let rows = read(&Columns::default(), "t.csv", "image,caption\n./a.png,red\na.png,round\nb.png,blue\n").unwrap();
        assert_eq!((captions(&rows, 0), captions(&rows, 1)), (vec!["red", "round"], vec!["blue"]));
        let text = r#"{"image": "a.png", "concept": "1f34e", "captions": {"en": ["red apple"], "fr": ["pomme", " "]}}"#;
        let all = read(&Columns::default(), "t.jsonl", text).unwrap();
        assert_eq!((captions(&all, 0), all.collected.records[0].concept), (vec!["red apple", "pomme"], Some(0)));
        let one = Columns { right: vec![RightColumn::named("captions.fr")], ..Columns::default() };
        assert_eq!(captions(&read(&one, "t.jsonl", text).unwrap(), 0), ["pomme"]);
        let two = Columns { right: ["fr", "en"].map(RightColumn::named).to_vec(), ..Columns::default() };
        let found = read(&two, "t.csv", "file,en,fr,label\na.png,apple,pomme,fruit\nb.png,,,\n").unwrap();
        assert_eq!(captions(&found, 0), ["pomme", "apple"]);
        assert_eq!(found.collected.labels, ["fruit"]);
        assert_eq!(found.collected.records[0].right[1].column, 1);
        let (key, reason) = &found.collected.skipped.listed()[0];
        assert!(key.ends_with("t.csv:3") && reason == "nothing in fr, en", "{key}: {reason}");
    }

    #[test]
    fn columns_that_are_not_there_are_answered_with_those_that_are() {
        let message = |columns: &Columns, text: &str| read(columns, "t.csv", text).unwrap_err().to_string();
        let error = message(&Columns::default(), "file,en\na.png,apple\n");
        assert!(
            error.contains("no column of captions (caption, ") && error.ends_with("the table has file, en"),
            "{error}"
        );
        let error = message(&Columns::default(), "picture_url,caption\na.png,apple\n");
        assert!(error.contains("no column of pictures"), "{error}");
        let named = Columns { label: Some("klass".into()), ..Columns::default() };
        assert!(message(&named, "file,caption\na.png,apple\n").contains("no column \"klass\"; the table has"));
        assert!(message(&Columns::default(), "file,caption\n").contains("has no rows"));
    }

    #[test]
    fn weights_are_numbers() {
        let columns = Columns { weight: Some("often".into()), ..Columns::default() };
        let rows = "image,caption,often\na.png,red,0.5\nb.png,blue,\nc.png,green,-1\nd.png,grey,many\na.png,round,2\n";
        let found = read(&columns, "t.csv", rows).unwrap();
        let weights: Vec<f32> = found.collected.records.iter().map(|record| record.weight).collect();
        assert_eq!(weights, [0.5, 1.0]);
        let reasons: Vec<&str> = found.collected.skipped.listed().iter().map(|(_, reason)| reason.as_str()).collect();
        assert_eq!(
            reasons,
            [
                "column \"often\" is \"-1\", expected a number from 0 to 1000",
                "column \"often\" is \"many\", expected a number from 0 to 1000",
                "a second weight of one item; the first one holds",
            ]
        );
        let lines = r#"{"image": "a.png", "caption": "red", "often": 2.5}"#;
        assert_eq!(read(&columns, "t.jsonl", lines).unwrap().collected.records[0].weight, 2.5);
    }

    #[test]
    fn addresses_are_left_out_with_a_reason() {
        let found = read(&Columns::default(), "t.csv", "image,caption\nhttps://x/a.png,red\nb.png,blue\n").unwrap();
        assert_eq!(found.collected.records.len(), 1);
        assert!(found.collected.skipped.listed()[0].1.contains("is an address"));
    }
}
