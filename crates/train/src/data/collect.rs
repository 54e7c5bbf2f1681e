//! From rows and files to records: one record an item, however many rows say something about it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::record::{Counterpart, Location, Record, hash_of};
use super::skipped::Skipped;

/// Most right sides of an item.
const MOST_RIGHT: usize = u16::MAX as usize;

/// Names in the order of their first appearance.
#[derive(Debug, Clone, Default)]
pub struct Names {
    names: Vec<String>,
    numbers: HashMap<String, u32>,
}

impl Names {
    /// The number of a name, a new one if need be.
    pub fn number(&mut self, name: &str) -> u32 {
        match self.numbers.get(name) {
            Some(number) => *number,
            None => {
                let number = self.names.len() as u32;
                self.names.push(name.to_owned());
                self.numbers.insert(name.to_owned(), number);
                number
            }
        }
    }

    /// All names, each at the place of its number.
    pub fn into_names(self) -> Vec<String> {
        self.names
    }
}

/// What a row or a file says about an item.
#[derive(Debug, Default)]
pub struct Said {
    /// Right sides.
    pub right: Vec<Counterpart>,
    /// Concept by name.
    pub concept: Option<String>,
    /// Class by name.
    pub label: Option<String>,
    /// How often a pass takes the item on average.
    pub weight: Option<f32>,
}

/// Records under way.
#[derive(Debug, Default)]
pub struct Collector {
    records: Vec<Record>,
    places: HashMap<u64, usize>,
    concepts: Names,
    labels: Names,
    /// What was left out.
    pub skipped: Skipped,
}

/// What was collected.
#[derive(Debug)]
pub struct Collected {
    /// The records, in the order of their first rows.
    pub records: Vec<Record>,
    /// Names of concepts.
    pub concepts: Vec<String>,
    /// Names of classes.
    pub labels: Vec<String>,
    /// What was left out.
    pub skipped: Skipped,
}

impl Collector {
    /// Adds what is said about the item known by `known_by`. What is said of one item in several places is joined; a class, a concept
    /// or a weight that differs from what was said first is left out and listed.
    pub fn add(&mut self, known_by: &str, left: Location, said: Said) {
        let identity = hash_of(known_by.as_bytes());
        let concept = said.concept.map(|name| self.concepts.number(&name));
        let label = said.label.map(|name| self.labels.number(&name));
        let Some(place) = self.places.get(&identity) else {
            self.places.insert(identity, self.records.len());
            let (key, weight) = (shortened(known_by), said.weight.unwrap_or(1.0));
            self.records.push(Record { key, identity, left, right: said.right, concept, label, weight });
            return;
        };
        let record = &mut self.records[*place];
        for counterpart in said.right {
            if record.right.len() == MOST_RIGHT {
                self.skipped.add(known_by, format!("more than {MOST_RIGHT} right sides; the first ones hold"));
                break;
            }
            if !record.right.contains(&counterpart) {
                record.right.push(counterpart);
            }
        }
        for (what, held, new) in [("concept", &mut record.concept, concept), ("class", &mut record.label, label)] {
            match (&held, new) {
                (None, _) => *held = new,
                (Some(first), Some(new)) if *first != new => {
                    self.skipped.add(known_by, format!("a second {what} of one item; the first one holds"));
                }
                (Some(_), _) => {}
            }
        }
        if said.weight.is_some_and(|weight| weight != record.weight) {
            self.skipped.add(known_by, "a second weight of one item; the first one holds".to_owned());
        }
    }

    /// Everything collected. Records without a right side are left out and listed.
    pub fn finish(mut self) -> Collected {
        let skipped = &mut self.skipped;
        self.records.retain(|record| {
            let has_right = !record.right.is_empty();
            if !has_right {
                skipped.add(&record.key, "nothing is said about it".to_owned());
            }
            has_right
        });
        Collected {
            records: self.records,
            concepts: self.concepts.into_names(),
            labels: self.labels.into_names(),
            skipped: self.skipped,
        }
    }
}

/// A name for messages.
fn shortened(known_by: &str) -> Arc<str> {
    const MOST: usize = 200;
    match known_by.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &known_by[..end]).into(),
        None => known_by.into(),
    }
}

/// A file's place as it is known by: with slashes, and without a leading `./`.
pub fn known_by(path: &Path) -> String {
    let text = path.to_string_lossy().replace('\\', "/");
    text.trim_start_matches("./").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Vec<Counterpart> {
        vec![Counterpart { column: 0, location: Location::Text(text.into()) }]
    }

    #[test]
    fn rows_about_one_item_are_joined() {
        let mut collector = Collector::default();
        let left = || Location::File(Path::new("a.png").into());
        let said =
            |caption: &str, label: &str| Said { right: text(caption), label: Some(label.into()), ..Said::default() };
        collector.add("a.png", left(), said("red", "fruit"));
        collector.add("b.png", left(), said("blue", "flower"));
        collector.add("a.png", left(), said("round", "fruit"));
        collector.add("a.png", left(), said("red", "flower"));
        collector.add("c.png", left(), Said::default());
        let found = collector.finish();
        assert_eq!(found.records.len(), 2);
        assert_eq!(found.records[0].right, [text("red"), text("round")].concat());
        assert_eq!((found.records[0].label, found.records[1].label), (Some(0), Some(1)));
        assert_eq!(found.labels, ["fruit", "flower"]);
        assert_eq!(found.skipped.count(), 2);
        let reasons: Vec<&str> = found.skipped.listed().iter().map(|(_, reason)| reason.as_str()).collect();
        assert_eq!(reasons, ["a second class of one item; the first one holds", "nothing is said about it"]);
    }
}
