//! From a path to a data set, and walks over its samples.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossmodal_models::Modality;
use rayon::prelude::*;

use super::collect::Collected;
use super::columns::{Columns, RightColumn};
use super::folder::{self, Listing};
use super::random::Random;
use super::record::{Record, hash_of};
use super::shards::{self, Shards, Walked, expand};
use super::skipped::Skipped;
use super::split::{Part, SplitBy, SplitRule};
use super::table;
use crate::error::{Error, Result};

/// What [`DataSet::open`] understands, for messages and help.
pub struct Expected;

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            "expected a table of pairs (.csv, .tsv, .jsonl, .json, .parquet), webdataset shards (.tar, a pattern such as shard-{0000..0009}.tar, \
             or a folder of them), a folder of files with .txt captions beside them, a folder with a folder for each class, or what img2dataset wrote",
        )
    }
}

/// What [`DataSet::kind`] says where captions are only the names of classes.
pub const CLASSES: &str = "folders of classes";

/// Where the samples are.
#[derive(Debug, Clone)]
enum Samples {
    /// At hand, but for the content of files.
    Held(Arc<[Arc<Record>]>),
    /// Walked from shard to shard, those of a part only.
    Shards(Shards, Part, SplitRule),
}

/// A data set: items with a left side and one or more right sides each.
#[derive(Debug, Clone)]
pub struct DataSet {
    name: String,
    kind: &'static str,
    samples: Samples,
    modalities: (Modality, Modality),
    right: Arc<[RightColumn]>,
    concepts: Arc<[String]>,
    labels: Arc<[String]>,
    skipped: Skipped,
}

impl DataSet {
    /// Opens what lies at `path`: a table, shards (also as a pattern), or a folder. `columns` say which columns of a table are what; what they
    /// leave open is recognised by usual names.
    ///
    /// # Errors
    /// A path that leads nowhere, a folder that holds nothing of what is [`Expected`], tables and shards that can't be read or have no pairs, and
    /// `columns` where there is no table.
    pub fn open(path: &str, columns: &Columns) -> Result<Self> {
        let place = Path::new(path);
        if place.is_dir() {
            return Self::open_folder(place, columns);
        }
        if place.is_file() && table::is_table(place) {
            return Self::of_table(place, columns);
        }
        let is_pattern = path.contains('{') && !place.exists();
        if is_pattern || (place.is_file() && table::ending(place) == "tar") {
            let paths = expand(path)?.into_iter().map(PathBuf::from).collect();
            return Self::of_shards(path, paths, columns);
        }
        let found = if place.exists() { "not a data set" } else { "no such file or folder" };
        Err(Error::Invalid(format!("{path}: {found}; {Expected}")))
    }

    /// A folder: shards first, then what img2dataset wrote, a table, captions, classes.
    fn open_folder(root: &Path, columns: &Columns) -> Result<Self> {
        let name = root.display().to_string();
        let shards = Shards::of_folder(root)?;
        if !shards.is_empty() {
            return Self::of_shards(&name, shards, columns);
        }
        let parts = folder::written_parts(root)?;
        if !parts.is_empty() {
            refuse_columns(&name, columns)?;
            let collected = folder::written_files(root, &parts)?;
            return Self::held(&name, "img2dataset", collected, folder::column("caption"), PAIR);
        }
        let tables: Vec<PathBuf> = folder::entries(root)?.into_iter().filter(|path| table::is_table(path)).collect();
        match tables.as_slice() {
            [one] => return Self::of_table(one, columns),
            [] => refuse_columns(&name, columns)?,
            several => {
                let names: Vec<_> = several.iter().filter_map(|path| path.file_name()?.to_str()).collect();
                let reason = format!("{name}: holds several tables ({}), name the one to read", names.join(", "));
                return Err(Error::Invalid(reason));
            }
        }
        let listing = Listing::of(root)?;
        if listing.media.is_empty() {
            return Err(Error::Invalid(format!("{name}: holds no pictures, tables or shards; {Expected}")));
        }
        let modalities = (listing.modality(root)?, Modality::Text);
        if listing.has_captions() {
            let collected = folder::with_captions(root, &listing);
            return Self::held(&name, "captions beside files", collected, folder::column("txt"), modalities);
        }
        let collected = folder::by_class(root, &listing);
        if collected.records.is_empty() {
            let reason =
                format!("{name}: its pictures have neither captions beside them nor folders for classes; {Expected}");
            return Err(Error::Invalid(reason));
        }
        Self::held(&name, CLASSES, collected, folder::column("class"), modalities)
    }

    fn of_table(path: &Path, columns: &Columns) -> Result<Self> {
        let found = columns.read(path)?;
        Self::held(&path.display().to_string(), "table", found.collected, found.right, found.modalities)
    }

    fn of_shards(name: &str, paths: Vec<PathBuf>, columns: &Columns) -> Result<Self> {
        refuse_columns(name, columns)?;
        let shards = Shards::new(paths)?;
        let modalities = shards.modalities()?;
        Ok(Self {
            name: name.to_owned(),
            kind: "shards",
            samples: Samples::Shards(shards, Part::All, SplitRule::default()),
            modalities,
            right: folder::column("txt").into(),
            concepts: Arc::default(),
            labels: Arc::default(),
            skipped: Skipped::default(),
        })
    }

    fn held(
        name: &str,
        kind: &'static str,
        collected: Collected,
        right: Vec<RightColumn>,
        modalities: (Modality, Modality),
    ) -> Result<Self> {
        let Collected { records, concepts, labels, skipped } = collected;
        if records.is_empty() {
            let first = skipped.listed().first().map(|(key, reason)| format!("; {key}: {reason}")).unwrap_or_default();
            return Err(Error::Invalid(format!("{name}: no sample with two sides{first}")));
        }
        Ok(Self {
            name: name.to_owned(),
            kind,
            samples: Samples::Held(records.into_iter().map(Arc::new).collect()),
            modalities,
            right: right.into(),
            concepts: concepts.into(),
            labels: labels.into(),
            skipped,
        })
    }

    /// A part of this data set. Parts of one rule don't overlap, and an item stays in its part when items are added.
    ///
    /// # Errors
    /// A share out of range, a part without items, or shards that are to be split by anything but their keys.
    pub fn part(&self, part: Part, rule: &SplitRule) -> Result<Self> {
        rule.check()?;
        let mut chosen = self.clone();
        match &self.samples {
            _ if part == Part::All => {}
            Samples::Held(records) => {
                if rule.by == SplitBy::Concept && self.concepts.is_empty() {
                    let reason = format!("{}: names no concepts to split by, expected a column `concept`", self.name);
                    return Err(Error::Invalid(reason));
                }
                let kept = records.par_iter().filter(|record| rule.part_of(self.split_number(rule, record)) == part);
                let kept: Vec<Arc<Record>> = kept.cloned().collect();
                if kept.is_empty() {
                    let (name, all, share) = (&self.name, records.len(), rule.share);
                    let part = part.as_str();
                    return Err(Error::Invalid(format!(
                        "{name}: of {all} items none is in the {part} part, the validation share being {share}"
                    )));
                }
                chosen.samples = Samples::Held(kept.into());
            }
            Samples::Shards(shards, _, _) => {
                if rule.by != SplitBy::Item {
                    return Err(Error::Invalid(format!("{}: shards can be split by item only", self.name)));
                }
                chosen.samples = Samples::Shards(shards.clone(), part, *rule);
            }
        }
        Ok(chosen)
    }

    /// Concepts are split by their names: their numbers change when data is added.
    fn split_number(&self, rule: &SplitRule, record: &Record) -> u64 {
        match (rule.by, record.concept.and_then(|concept| self.concepts.get(concept as usize))) {
            (SplitBy::Concept, Some(name)) => hash_of(name.as_bytes()),
            (SplitBy::Concept | SplitBy::Item, _) => record.identity,
            (SplitBy::Content, _) => record.left.read().map_or(record.identity, |bytes| hash_of(&bytes)),
        }
    }

    /// What was opened.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What was found at the path, in words.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Number of items, where that is known without walking shards.
    pub fn items(&self) -> Option<usize> {
        self.records().map(<[_]>::len)
    }

    /// The items, where they are at hand.
    pub fn records(&self) -> Option<&[Arc<Record>]> {
        match &self.samples {
            Samples::Held(records) => Some(records),
            Samples::Shards(..) => None,
        }
    }

    /// What the left and the right sides are.
    pub fn modalities(&self) -> (Modality, Modality) {
        self.modalities
    }

    /// The columns that right sides come from.
    pub fn right_columns(&self) -> &[RightColumn] {
        &self.right
    }

    /// Names of concepts, by number; empty where the data names none.
    pub fn concepts(&self) -> &[String] {
        &self.concepts
    }

    /// Names of classes, by number; empty where the data names none. Shards have numbers without names.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// What was left out when it was opened.
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// A number that changes when the samples do, so that a resumed run notices: of shards their names and sizes, else what items are known by and what is
    /// said of them.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        match &self.samples {
            Samples::Held(records) => {
                for record in records.iter() {
                    hasher.update(&record.identity.to_le_bytes());
                    if record.weight != 1.0 {
                        hasher.update(&record.weight.to_le_bytes());
                    }
                    for right in &record.right {
                        let text = right.location.text().map_or(&[][..], |text| text.as_bytes());
                        hasher.update(&(text.len() as u64).to_le_bytes());
                        hasher.update(text);
                    }
                }
            }
            Samples::Shards(shards, part, rule) => {
                for path in shards.paths() {
                    let size = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    hasher.update(name.as_bytes()).update(&size.to_le_bytes());
                }
                hasher.update(format!("{part:?} {rule:?}").as_bytes());
            }
        }
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        u64::from_le_bytes(first)
    }

    /// Walks all samples in their own order.
    pub fn walk(&self) -> Walk {
        match &self.samples {
            Samples::Held(records) => Walk::Held(records.clone(), 0..records.len()),
            Samples::Shards(shards, part, rule) => {
                Walk::Shards(Box::new(shards.walk(None, self.modalities)), *part, *rule)
            }
        }
    }

    /// Walks shards in the order of `random`; `None` where the samples are at hand.
    pub(super) fn walk_shards(&self, random: &mut Random) -> Option<Walk> {
        match &self.samples {
            Samples::Held(_) => None,
            Samples::Shards(shards, part, rule) => {
                Some(Walk::Shards(Box::new(shards.walk(Some(random), self.modalities)), *part, *rule))
            }
        }
    }
}

/// What img2dataset's files are.
const PAIR: (Modality, Modality) = (Modality::Image, Modality::Text);

fn refuse_columns(name: &str, columns: &Columns) -> Result<()> {
    if *columns == Columns::default() {
        return Ok(());
    }
    Err(Error::Invalid(format!("{name}: columns are named, but there is no table")))
}

/// A walk over samples.
pub enum Walk {
    /// Over samples at hand.
    Held(Arc<[Arc<Record>]>, std::ops::Range<usize>),
    /// Over those of shards that are in a part.
    Shards(Box<shards::Walk>, Part, SplitRule),
}

impl Iterator for Walk {
    type Item = Walked;

    fn next(&mut self) -> Option<Walked> {
        match self {
            Self::Held(records, places) => Some(Walked::Record(records[places.next()?].clone())),
            Self::Shards(walk, part, rule) => loop {
                match walk.next()? {
                    Walked::Record(record) if *part != Part::All && rule.part_of(record.identity) != *part => {}
                    walked => return Some(walked),
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tar::tests::archive;
    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        folder
    }

    fn open(path: &Path) -> Result<DataSet> {
        DataSet::open(path.to_str().unwrap(), &Columns::default())
    }

    #[test]
    fn the_kind_is_found_by_what_is_there() {
        let table: &[u8] = b"image,caption\na.png,red\n";
        let shard = archive(&[("0.jpg", b"p"), ("0.txt", b"red")]);
        type Files<'a> = Vec<(&'a str, &'a [u8])>;
        let cases: [(&str, Files<'_>); 4] = [
            ("table", vec![("captions.csv", table), ("a.png", b"")]),
            ("shards", vec![("0.tar", &shard), ("0.parquet", b"no matter")]),
            ("captions beside files", vec![("a.png", b""), ("a.txt", b"red")]),
            ("folders of classes", vec![("cat/a.png", b"")]),
        ];
        for (kind, files) in cases {
            let folder = folder(&files);
            assert_eq!(open(folder.path()).unwrap().kind(), kind);
        }
        let shards = folder(&[("s-00.tar", &shard), ("s-01.tar", &shard)]);
        let pattern = open(&shards.path().join("s-{00..01}.tar")).unwrap();
        assert_eq!((pattern.kind(), pattern.walk().count()), ("shards", 2));
    }

    #[test]
    fn what_is_no_data_set_is_told_what_was_expected() {
        let empty = folder(&[("notes.md", b"")]);
        let bare = folder(&[("a.png", b"")]);
        let tables = folder(&[("a.csv", b""), ("b.csv", b"")]);
        let cases = [
            (empty.path().to_path_buf(), "holds no pictures, tables or shards; expected a table of pairs"),
            (bare.path().to_path_buf(), "neither captions beside them nor folders for classes; expected"),
            (tables.path().to_path_buf(), "holds several tables (a.csv, b.csv)"),
            (empty.path().join("notes.md"), "notes.md: not a data set; expected a table of pairs"),
            (empty.path().join("none"), "none: no such file or folder; expected a table of pairs"),
            (empty.path().join("{0..1}.tar"), "0.tar: no such shard"),
        ];
        for (path, expected) in cases {
            let error = open(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let columns = Columns { left: Some("image".into()), ..Columns::default() };
        let error = DataSet::open(bare.path().to_str().unwrap(), &columns).unwrap_err().to_string();
        assert!(error.contains("columns are named, but there is no table"), "{error}");
    }

    fn keys(data: &DataSet) -> Vec<String> {
        let record = |walked| match walked {
            Walked::Record(record) => record.key.to_string(),
            Walked::Skipped(key, reason) => panic!("{key}: {reason}"),
        };
        data.walk().map(record).collect()
    }

    #[test]
    fn parts_are_apart_and_stable() {
        let row = |number: usize| format!("{number}.png,caption {number}\n{number}.png,another {number}\n");
        let table = |count: usize| format!("image,caption\n{}", (0..count).map(row).collect::<String>());
        let members: Vec<(String, &[u8])> = (0..100)
            .flat_map(|number| [(format!("{number}.jpg"), &b"p"[..]), (format!("{number}.txt"), &b"t"[..])])
            .collect();
        let members: Vec<(&str, &[u8])> = members.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
        let folder = folder(&[
            ("a.csv", table(100).as_bytes()),
            ("b.csv", table(200).as_bytes()),
            ("c.tar", &archive(&members)),
        ]);
        let rule = SplitRule { share: 0.3, ..SplitRule::default() };
        let parts = |name: &str| {
            let data = open(&folder.path().join(name)).unwrap();
            [Part::Train, Part::Validation].map(|part| keys(&data.part(part, &rule).unwrap()))
        };
        let ([train, held], [more_train, more_held]) = (parts("a.csv"), parts("b.csv"));
        assert_eq!(train.len() + held.len(), 100);
        assert!((15..45).contains(&held.len()));
        assert!(train.iter().all(|key| !held.contains(key)));
        assert!(train.iter().all(|key| more_train.contains(key)) && held.iter().all(|key| more_held.contains(key)));
        let [train, held] = parts("c.tar");
        assert!(train.len() + held.len() == 100 && train.iter().all(|key| !held.contains(key)));
    }

    #[test]
    fn copies_and_concepts_stay_together_where_asked() {
        let rows: String = (0..60).map(|number| format!("{number}.png,text {number},{}\n", number % 20)).collect();
        let folder = folder(&[("t.csv", format!("image,caption,concept\n{rows}").as_bytes())]);
        for number in 0..60 {
            std::fs::write(folder.path().join(format!("{number}.png")), format!("bytes {}", number % 20)).unwrap();
        }
        let data = open(&folder.path().join("t.csv")).unwrap();
        for by in [SplitBy::Content, SplitBy::Concept] {
            let held = data.part(Part::Validation, &SplitRule { share: 0.4, seed: 1, by }).unwrap();
            let mut held: Vec<usize> =
                keys(&held).iter().map(|key| key.trim_end_matches(".png").parse::<usize>().unwrap() % 20).collect();
            held.sort_unstable();
            assert!(!held.is_empty() && held.chunks(3).all(|copies| copies == [copies[0]; 3]), "{by:?} {held:?}");
        }
    }

    #[test]
    fn the_fingerprint_follows_what_is_said() {
        let folder = folder(&[("a.csv", b"image,caption\na.png,red\n"), ("b.csv", b"image,caption\na.png,blue\n")]);
        let fingerprint = |name: &str| open(&folder.path().join(name)).unwrap().fingerprint();
        assert_eq!(fingerprint("a.csv"), fingerprint("a.csv"));
        assert_ne!(fingerprint("a.csv"), fingerprint("b.csv"));
    }
}
