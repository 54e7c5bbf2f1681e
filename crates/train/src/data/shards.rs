//! Webdataset shards: `.tar` files whose members share a key, `000.jpg` and `000.txt`, walked in order without reading the pictures.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossmodal_models::Modality;

use super::folder::entries;
use super::modality_of;
use super::random::Random;
use super::record::{Counterpart, Location, Record, hash_of};
use super::table::ending;
use super::tar::{Member, Members};
use crate::error::{Error, Result};

/// Longest text member that is read, in bytes.
const MOST_TEXT: u64 = 1 << 20;
/// Shards that a brace pattern may name.
const MOST_SHARDS: usize = 1 << 20;

/// A set of shards.
#[derive(Debug, Clone)]
pub struct Shards {
    paths: Arc<[PathBuf]>,
}

/// What a walk comes upon.
#[derive(Debug)]
pub enum Walked {
    /// A sample.
    Record(Arc<Record>),
    /// A sample, or the rest of a shard, that is left out: its name and the reason.
    Skipped(String, String),
}

/// `{0000..0009}` and `{a,b}` written out, several of them in one pattern too.
///
/// # Errors
/// A brace that isn't closed, bounds that are no numbers, or too many names.
pub fn expand(pattern: &str) -> Result<Vec<String>> {
    let invalid = |reason: &str| Error::Invalid(format!("{pattern}: {reason}"));
    let Some((before, rest)) = pattern.split_once('{') else {
        return Ok(vec![pattern.to_owned()]);
    };
    let (inside, after) = rest.split_once('}').ok_or_else(|| invalid("a brace that isn't closed, expected {..}"))?;
    let choices: Vec<String> = match inside.split_once("..") {
        Some((first, last)) => {
            let number = |text: &str| {
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                let number = text.parse::<u64>().ok().filter(|_| digits);
                number.ok_or_else(|| invalid(&format!("{text:?} in braces, expected a number such as {{0000..0009}}")))
            };
            let (low, high) = (number(first)?, number(last)?);
            if low > high || high - low >= MOST_SHARDS as u64 {
                return Err(invalid(&format!("a range from {low} to {high}, expected an ascending one")));
            }
            (low..=high).map(|number| format!("{number:0width$}", width = first.len())).collect()
        }
        None => inside.split(',').map(str::to_owned).collect(),
    };
    let rest = expand(after)?;
    if choices.len() * rest.len() > MOST_SHARDS {
        return Err(invalid(&format!("names more than {MOST_SHARDS} shards")));
    }
    let joined = choices.iter().flat_map(|choice| rest.iter().map(move |after| format!("{before}{choice}{after}")));
    Ok(joined.collect())
}

impl Shards {
    /// Shards by their paths.
    ///
    /// # Errors
    /// No path, one that isn't a file, or a compressed archive: it would have to be unpacked to be walked.
    pub fn new(paths: Vec<PathBuf>) -> Result<Self> {
        for path in &paths {
            if !path.is_file() {
                return Err(Error::Invalid(format!("{}: no such shard", path.display())));
            }
            if ending(path) != "tar" {
                let shown = path.display();
                return Err(Error::Invalid(format!("{shown}: expected a shard ending in .tar, not compressed")));
            }
        }
        if paths.is_empty() {
            return Err(Error::Invalid("no shards".into()));
        }
        Ok(Self { paths: paths.into() })
    }

    /// The shards of a folder, sorted.
    ///
    /// # Errors
    /// A folder that can't be listed.
    pub fn of_folder(folder: &Path) -> Result<Vec<PathBuf>> {
        Ok(entries(folder)?.into_iter().filter(|path| ending(path) == "tar" && path.is_file()).collect())
    }

    /// The paths.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// What the two sides are, by the first sample.
    ///
    /// # Errors
    /// Shards without a sample of two sides.
    pub fn modalities(&self) -> Result<(Modality, Modality)> {
        let mut first_reason = None;
        let mut walk = self.walk_paths((0..self.paths.len()).collect(), None);
        loop {
            match walk.next_kinds() {
                Some(Ok(kinds)) => return Ok(kinds),
                Some(Err((key, reason))) => {
                    first_reason.get_or_insert(format!("{key}: {reason}"));
                }
                None => break,
            }
        }
        let reason = first_reason.unwrap_or_else(|| "they are empty".to_owned());
        let first = self.paths[0].display();
        Err(Error::Invalid(format!(
            "{first}: no sample with two sides in the shards, expected members such as 000.jpg and 000.txt; {reason}"
        )))
    }

    /// Walks all samples, the shards in the order of `random`, or as they are given.
    pub fn walk(&self, random: Option<&mut Random>, modalities: (Modality, Modality)) -> Walk {
        let mut order: Vec<usize> = (0..self.paths.len()).collect();
        if let Some(random) = random {
            random.shuffle(&mut order);
        }
        self.walk_paths(order, Some(modalities))
    }

    fn walk_paths(&self, mut order: Vec<usize>, modalities: Option<(Modality, Modality)>) -> Walk {
        order.reverse();
        Walk { shards: self.clone(), order, current: None, modalities }
    }
}

/// A walk over shards.
pub struct Walk {
    shards: Shards,
    /// Shards to come, the next one last.
    order: Vec<usize>,
    current: Option<Open>,
    modalities: Option<(Modality, Modality)>,
}

struct Open {
    path: Arc<Path>,
    members: Members,
    /// The first member of the next sample.
    ahead: Option<(String, String, Member)>,
    is_over: bool,
    /// What is wrong with the rest, told after the sample before it.
    damage: Option<String>,
}

/// The members of one key.
struct Sample {
    key: String,
    /// By ending.
    members: HashMap<String, Member>,
}

/// Key and ending: the name up to the first dot of its last part, and what follows.
fn split_name(name: &str) -> Option<(String, String)> {
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = name[start..].find('.')? + start;
    // Hidden files have no key.
    (dot > start).then(|| (name[..dot].to_owned(), name[dot + 1..].to_ascii_lowercase()))
}

impl Open {
    /// The members of the next key, or a reason why the rest of the shard can't be read.
    fn sample(&mut self) -> Result<Option<Sample>, String> {
        let mut sample: Option<Sample> =
            self.ahead.take().map(|(key, ending, member)| Sample { key, members: HashMap::from([(ending, member)]) });
        while !self.is_over {
            let member = match self.members.next() {
                Ok(Some(member)) => member,
                Ok(None) => {
                    self.is_over = true;
                    break;
                }
                Err(reason) => {
                    self.is_over = true;
                    self.damage = Some(reason);
                    break;
                }
            };
            let Some((key, ending)) = split_name(&member.name) else { continue };
            match &mut sample {
                Some(sample) if sample.key == key => {
                    sample.members.insert(ending, member);
                }
                Some(_) => {
                    self.ahead = Some((key, ending, member));
                    break;
                }
                None => sample = Some(Sample { key, members: HashMap::from([(ending, member)]) }),
            }
        }
        match self.damage.take_if(|_| sample.is_none()) {
            Some(reason) => Err(reason),
            None => Ok(sample),
        }
    }
}

impl Walk {
    /// The next sample, or what is left out.
    fn sample(&mut self) -> Option<std::result::Result<Sample, (String, String)>> {
        loop {
            if self.current.is_none() {
                let path = self.shards.paths[self.order.pop()?].clone();
                match Members::open(&path) {
                    Ok(members) => {
                        self.current =
                            Some(Open { path: path.into(), members, ahead: None, is_over: false, damage: None });
                    }
                    Err(error) => return Some(Err((path.display().to_string(), error.to_string()))),
                }
            }
            let open = self.current.as_mut()?;
            match open.sample() {
                Ok(Some(sample)) => return Some(Ok(sample)),
                Ok(None) => self.current = None,
                Err(reason) => {
                    let name = open.path.display().to_string();
                    self.current = None;
                    return Some(Err((name, reason)));
                }
            }
        }
    }

    fn next_kinds(&mut self) -> Option<std::result::Result<(Modality, Modality), (String, String)>> {
        let sample = match self.sample()? {
            Ok(sample) => sample,
            Err(reason) => return Some(Err(reason)),
        };
        let mut kinds: Vec<Modality> = sample.members.keys().filter_map(|ending| modality_of(ending)).collect();
        kinds.sort_by_key(|kind| place_of(*kind));
        kinds.dedup();
        let has_text = sample.members.contains_key("txt") || sample.members.contains_key("json");
        Some(match (kinds.as_slice(), has_text) {
            ([left, ..], true) => Ok((*left, Modality::Text)),
            ([left, right, ..], false) => Ok((*left, *right)),
            _ => Err((sample.key, "only one side".to_owned())),
        })
    }

    fn record(&mut self, sample: Sample) -> std::result::Result<Record, String> {
        let Some(open) = self.current.as_mut() else { return Err("the shard is closed".into()) };
        let (left_kind, right_kind) = self.modalities.unwrap_or((Modality::Image, Modality::Text));
        let of_kind = |kind: Modality| {
            let mut fitting: Vec<(&String, &Member)> =
                sample.members.iter().filter(|(ending, _)| modality_of(ending) == Some(kind)).collect();
            fitting.sort_by(|a, b| a.0.cmp(b.0));
            fitting.first().map(|(_, member)| Location::Slice {
                file: open.path.clone(),
                offset: member.offset,
                length: member.length,
            })
        };
        let left = of_kind(left_kind).ok_or_else(|| format!("no {left_kind}"))?;
        let (of_right, members) = (of_kind(right_kind), &mut open.members);
        let right = if right_kind == Modality::Text {
            let text = caption(&sample, members)?;
            Counterpart { column: 0, location: Location::Text(text.into()) }
        } else {
            Counterpart { column: 0, location: of_right.ok_or_else(|| format!("no {right_kind}"))? }
        };
        let label = match sample.members.get("cls") {
            Some(member) => Some(read_class(members, member)?),
            None => None,
        };
        let identity = hash_of(sample.key.as_bytes());
        Ok(Record { key: sample.key.into(), identity, left, right: vec![right], concept: None, label, weight: 1.0 })
    }
}

/// Pictures before sounds before the rest: which kind stands on the left.
fn place_of(kind: Modality) -> usize {
    match kind {
        Modality::Image => 0,
        Modality::Video => 1,
        Modality::Audio => 2,
        Modality::Depth => 3,
        Modality::Thermal => 4,
        Modality::Imu => 5,
        Modality::Text => 6,
    }
}

/// The text of `.txt`, or else the field `caption` or `text` of `.json`.
fn caption(sample: &Sample, members: &mut Members) -> std::result::Result<String, String> {
    if let Some(member) = sample.members.get("txt") {
        let text = read_text(members, member)?.trim().to_owned();
        if !text.is_empty() {
            return Ok(text);
        }
    }
    let Some(member) = sample.members.get("json") else {
        let known = sample.members.contains_key("txt");
        return Err(if known { "an empty caption".into() } else { "no caption, expected .txt or .json".into() });
    };
    let text = read_text(members, member)?;
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| format!("{}: not JSON: {error}", member.name))?;
    let field = ["caption", "text"].iter().find_map(|field| value.get(field)?.as_str());
    let field = field.map(str::trim).filter(|text| !text.is_empty());
    field.map(str::to_owned).ok_or_else(|| format!("{}: neither `caption` nor `text`", member.name))
}

fn read_class(members: &mut Members, member: &Member) -> std::result::Result<u32, String> {
    let text = read_text(members, member)?;
    text.trim().parse().map_err(|_| format!("{}: class {:?}, expected a number", member.name, text.trim()))
}

fn read_text(members: &mut Members, member: &Member) -> std::result::Result<String, String> {
    if member.length > MOST_TEXT {
        return Err(format!("{}: a text of {} bytes is over the limit of {MOST_TEXT}", member.name, member.length));
    }
    String::from_utf8(members.read(member)?).map_err(|error| format!("{}: not UTF-8: {error}", member.name))
}

impl Iterator for Walk {
    type Item = Walked;

    fn next(&mut self) -> Option<Walked> {
        let walked = match self.sample()? {
            Ok(sample) => {
                let key = sample.key.clone();
                match self.record(sample) {
                    Ok(record) => Walked::Record(Arc::new(record)),
                    Err(reason) => Walked::Skipped(key, reason),
                }
            }
            Err((name, reason)) => Walked::Skipped(name, reason),
        };
        Some(walked)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tar::tests::archive;
    use super::*;

    fn shards(contents: &[Vec<u8>]) -> (tempfile::TempDir, Shards) {
        let folder = tempfile::tempdir().unwrap();
        for (number, bytes) in contents.iter().enumerate() {
            std::fs::write(folder.path().join(format!("{number:04}.tar")), bytes).unwrap();
        }
        let shards = Shards::new(Shards::of_folder(folder.path()).unwrap()).unwrap();
        (folder, shards)
    }

    fn walk(shards: &Shards) -> (Vec<Arc<Record>>, Vec<(String, String)>) {
        let (mut records, mut skipped) = (Vec::new(), Vec::new());
        for walked in shards.walk(None, shards.modalities().unwrap()) {
            match walked {
                Walked::Record(record) => records.push(record),
                Walked::Skipped(key, reason) => skipped.push((key, reason)),
            }
        }
        (records, skipped)
    }

    #[test]
    fn braces_are_written_out() {
        assert_eq!(expand("a-{08..11}.tar").unwrap(), ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]);
        assert_eq!(expand("{x,y}/{0..1}.tar").unwrap(), ["x/0.tar", "x/1.tar", "y/0.tar", "y/1.tar"]);
        assert_eq!(expand("plain.tar").unwrap(), ["plain.tar"]);
        for wrong in ["{0..", "{5..2}", "{a..b}", "{-1..2}", "{0..99999999}"] {
            let error = expand(wrong).unwrap_err().to_string();
            assert!(error.starts_with(wrong), "{error}");
        }
    }

    #[test]
    fn members_of_a_key_are_one_sample() {
        let first = archive(&[
            ("d/000.jpg", b"picture 0"),
            ("d/000.txt", b"red\n"),
            ("d/000.cls", b"7"),
            ("d/001.json", br#"{"caption": "blue"}"#),
            ("d/001.png", b"picture 1"),
            ("d/.hidden", b""),
            ("d/002.jpg", b"no caption"),
        ]);
        let second = archive(&[("003.txt", b"green"), ("003.jpg", b"picture 3"), ("003.seg.png", b"mask")]);
        let (_folder, shards) = shards(&[first, second]);
        assert_eq!(shards.modalities().unwrap(), (Modality::Image, Modality::Text));
        let (records, skipped) = walk(&shards);
        let found: Vec<(&str, &str, Vec<u8>)> = records
            .iter()
            .map(|record| {
                let caption = &**record.right[0].location.text().unwrap();
                (&*record.key, caption, record.left.read().unwrap())
            })
            .collect();
        let expected = [
            ("d/000", "red", b"picture 0".to_vec()),
            ("d/001", "blue", b"picture 1".to_vec()),
            ("003", "green", b"picture 3".to_vec()),
        ];
        assert_eq!(found, expected);
        assert_eq!((records[0].label, records[1].label), (Some(7), None));
        assert_eq!(skipped, [("d/002".to_owned(), "no caption, expected .txt or .json".to_owned())]);
    }

    #[test]
    fn pictures_and_sounds_make_pairs_too() {
        let (_folder, shards) = shards(&[archive(&[("0.wav", b"s"), ("0.jpg", b"p")])]);
        assert_eq!(shards.modalities().unwrap(), (Modality::Image, Modality::Audio));
        assert_eq!(walk(&shards).0[0].right[0].location.read().unwrap(), b"s");
    }

    #[test]
    fn a_damaged_shard_loses_its_rest_only() {
        let mut first = archive(&[("0.jpg", b"p"), ("0.txt", b"red"), ("1.jpg", &[1; 600]), ("1.txt", b"blue")]);
        first.truncate(2600);
        let second = archive(&[("2.jpg", b"p"), ("2.txt", b"green")]);
        let (_folder, shards) = shards(&[first, second]);
        let (records, skipped) = walk(&shards);
        let keys: Vec<&str> = records.iter().map(|record| &*record.key).collect();
        assert_eq!(keys, ["0", "2"]);
        assert!(skipped.len() == 1 && skipped[0].0.ends_with("0000.tar") && skipped[0].1.contains("cut short"));
    }

    #[test]
    fn shards_without_pairs_are_refused() {
        let (_folder, shards) = shards(&[archive(&[("0.jpg", b"p")])]);
        let error = shards.modalities().unwrap_err().to_string();
        assert!(error.contains("no sample with two sides") && error.contains("only one side"), "{error}");
        let missing = Shards::new(vec!["none.tar".into()]).unwrap_err().to_string();
        assert_eq!(missing, "none.tar: no such shard");
    }
}
