//! A flipped bit anywhere in a collection's folder: answers stay true or become errors, and `verify` knows.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crossmodal_store::{
    ItemVectors, LocalStore, Metric, OpenOptions, ProblemKind, SearchRequest, Source, StoreError, VectorStore,
};

use crate::sample::{Random, entries, exact_score, field, open_write};

const DIMENSION: usize = 8;
const ITEMS: usize = 60;
const BATCH: usize = 6;

/// Items whose every part tells which item it is.
fn truth() -> BTreeMap<String, ItemVectors> {
    let mut truth = BTreeMap::new();
    for (number, mut entry) in entries("f", DIMENSION, 0..ITEMS).into_iter().enumerate() {
        entry.item.metadata.insert("number".into(), number.into());
        entry.item.metadata.insert("words".into(), "some words that fill the page a little ".repeat(2).into());
        entry.item.content_hash = Some([number as u8; 32]);
        entry.item.source =
            Some(Source { uri: format!("/p/{number}.jpg"), size: Some(number as u64), modified_ns: Some(1) });
        entry.vectors[0].cache_key = Some([number as u8; 32]);
        truth.insert(entry.item.id.clone(), entry);
    }
    truth
}

/// A collection written in batches. With `log`, as a running writer leaves it: most of it in the write-ahead log.
fn written(truth: &BTreeMap<String, ItemVectors>, folder: &Path, log: bool) {
    let path = folder.join("original");
    let store = open_write(&path);
    store.ensure_field(&field("f", DIMENSION, Metric::InnerProduct)).unwrap();
    let mut all: Vec<_> = truth.values().cloned().collect();
    all.sort_by_key(|entry| entry.item.metadata["number"].as_u64());
    all.chunks(BATCH).for_each(|batch| drop(store.upsert(batch).unwrap()));
    // Closing it writes the log into the database.
    let running = log.then_some(store);
    copy(&path, &folder.join("copy"));
    drop(running);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => assert!(fs::copy(entry.path(), target).is_ok()),
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found.sort();
    found
}

/// What a damaged collection answered.
#[derive(Debug, Default)]
struct Answers {
    /// Items that were listed, each just as it was written.
    listed: usize,
    /// Items that a search over everything found, each with its own score.
    found: usize,
    /// Calls that failed.
    errors: usize,
    /// Answers that are neither.
    wrong: Vec<String>,
}

/// Asks for everything in every way.
fn ask(store: &dyn VectorStore, truth: &BTreeMap<String, ItemVectors>) -> Answers {
    let mut answers = Answers::default();
    match store.list(&Default::default()) {
        Err(_) => answers.errors += 1,
        Ok(items) => {
            for stored in items {
                match truth.get(&stored.item.id) {
                    Some(entry) if entry.item == stored.item => answers.listed += 1,
                    _ => answers.wrong.push(format!("listed {:?}", stored.item.id)),
                }
            }
        }
    }
    let query = Random::new(99).vector(DIMENSION);
    match store.search(&SearchRequest::new("f", query.clone(), ITEMS * 2)) {
        Err(_) => answers.errors += 1,
        Ok(mut hits) => {
            for hit in hits.remove(0) {
                let entry = truth.get(&hit.item.id).filter(|entry| entry.item == hit.item);
                let score = entry.map(|entry| exact_score(Metric::InnerProduct, &query, &entry.vectors[0].vector));
                match score.is_some_and(|score| (f64::from(hit.score) - score).abs() < 1e-4) {
                    true => answers.found += 1,
                    false => answers.wrong.push(format!("found {:?} at {}", hit.item.id, hit.score)),
                }
            }
        }
    }
    for (id, entry) in truth {
        match store.vectors(id) {
            Err(_) => answers.errors += 1,
            Ok(vectors) => {
                if vectors.iter().any(|vector| vector.vector != entry.vectors[0].vector) {
                    answers.wrong.push(format!("vectors of {id:?}"));
                }
            }
        }
    }
    let keys: Vec<_> = truth.values().filter_map(|entry| entry.vectors[0].cache_key).collect();
    match store.cached_vectors(&keys) {
        Err(_) => answers.errors += 1,
        Ok(cached) => {
            for entry in truth.values() {
                let own = entry.vectors[0].cache_key.and_then(|key| cached.get(&key));
                if own.is_some_and(|own| own.vector != entry.vectors[0].vector) {
                    answers.wrong.push(format!("cached vector of {:?}", entry.item.id));
                }
            }
        }
    }
    answers
}

/// How flips of one file ended.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Outcomes {
    /// All answers right and complete, nothing reported.
    harmless: usize,
    /// All answers right and complete, and yet something was reported.
    reported: usize,
    /// Some answers missing or errors, and something was reported (or the collection couldn't be opened at all).
    detected: usize,
    /// An earlier committed state, without a report: commits at the end of the log are lost with it.
    shortened: usize,
    /// Wrong items were listed, or an item was given another's vectors (a flip in an index of the database leads to another row), and `verify`
    /// reports damage. Searches are never wrong.
    wrong_but_reported: usize,
    /// Wrong answers or missing items that nothing reports.
    silent: Vec<String>,
}

fn flip(
    folder: &Path,
    file: &Path,
    at: usize,
    bit: u8,
    truth: &BTreeMap<String, ItemVectors>,
    outcomes: &mut Outcomes,
) {
    let whole = fs::read(file).unwrap();
    let mut bytes = whole.clone();
    bytes[at] ^= 1 << bit;
    fs::write(file, bytes).unwrap();
    let place = format!("{} byte {at} bit {bit}", file.file_name().unwrap().to_string_lossy());
    match LocalStore::open(folder, &OpenOptions::read()) {
        Err(error) => {
            assert!(error.to_string().contains(folder.to_str().unwrap()), "{place}: {error}");
            outcomes.detected += 1;
        }
        Ok(store) => {
            let answers = ask(&store, truth);
            let clean = store.verify().is_ok_and(|report| report.is_clean());
            let complete = answers.listed == ITEMS && answers.found == ITEMS && answers.errors == 0;
            match () {
                () if answers
                    .wrong
                    .iter()
                    .all(|wrong| wrong.starts_with("listed") || wrong.starts_with("vectors of"))
                    && !answers.wrong.is_empty()
                    && !clean =>
                {
                    outcomes.wrong_but_reported += 1;
                }
                () if !answers.wrong.is_empty() => outcomes.silent.push(format!("{place}: {:?}", answers.wrong)),
                () if complete && clean => outcomes.harmless += 1,
                () if complete => outcomes.reported += 1,
                () if !clean => outcomes.detected += 1,
                // Before its first batch the field itself doesn't exist, and a search for it is refused.
                () if answers.errors <= usize::from(answers.listed == 0)
                    && answers.found == answers.listed
                    && answers.listed.is_multiple_of(BATCH) =>
                {
                    outcomes.shortened += 1;
                }
                () => outcomes.silent.push(format!("{place}: {answers:?}")),
            }
        }
    }
    fs::write(file, whole).unwrap();
}

/// Restores the copy, since opening it may have changed other files.
fn restore(folder: &Path) {
    let (copied, kept) = (folder.join("copy"), folder.join("kept"));
    fs::remove_dir_all(&copied).unwrap();
    copy(&kept, &copied);
}

#[test]
fn a_flipped_bit_in_any_file_is_found_or_harmless() {
    let flips = if std::env::var_os("CROSSMODAL_LONG_TESTS").is_some() { 400 } else { 25 };
    let truth = truth();
    let mut random = Random::new(77);
    for log in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        written(&truth, folder.path(), log);
        let copied = folder.path().join("copy");
        copy(&copied, &folder.path().join("kept"));
        let names = files(&copied);
        assert!(names.len() >= 3, "{names:?}");
        for name in &names {
            let length = fs::metadata(name).unwrap().len();
            if length == 0 {
                continue;
            }
            let mut outcomes = Outcomes::default();
            for _ in 0..flips {
                let (at, bit) = (random.below(length) as usize, random.below(8) as u8);
                flip(&copied, name, at, bit, &truth, &mut outcomes);
                restore(folder.path());
            }
            let shown = name.file_name().unwrap().to_string_lossy().into_owned();
            println!("log {log} {shown}: {outcomes:?}");
            let total = [outcomes.harmless, outcomes.reported, outcomes.detected, outcomes.shortened];
            match shown.as_str() {
                // Every value and the header have checksums.
                "1-1.f32" => assert_eq!(outcomes, Outcomes { detected: flips, ..Outcomes::default() }),
                // The process id of the writer, and an index of the log that is made anew.
                "collection.lock" | "collection.sqlite-shm" => {
                    assert_eq!(outcomes, Outcomes { harmless: flips, ..Outcomes::default() }, "{shown}");
                }
                // Frames have checksums: the log ends before the first wrong one.
                "collection.sqlite-wal" => {
                    assert_eq!(total.iter().sum::<usize>(), flips, "{outcomes:?}");
                }
                _ => assert_eq!(outcomes.silent, Vec::<String>::new(), "{shown}"),
            }
        }
    }
}

/// Damage to the truth is named, the rest stays usable, and writing the named items again heals it.
#[test]
fn flipped_vectors_are_named_one_by_one_and_healed() {
    let truth = truth();
    let folder = tempfile::tempdir().unwrap();
    written(&truth, folder.path(), false);
    let path = folder.path().join("copy");
    let file = path.join("vectors/1-1.f32");
    let mut bytes = fs::read(&file).unwrap();
    let damaged = [3usize, 17, 18, 59];
    for (nth, row) in damaged.iter().enumerate() {
        bytes[64 + row * DIMENSION * 4 + nth * 5] ^= 1 << nth;
    }
    fs::write(&file, bytes).unwrap();
    let expected: Vec<String> = {
        let mut ids: Vec<_> = damaged.iter().map(|row| format!("item-{row}")).collect();
        ids.sort();
        ids
    };
    let store = open_write(&path);
    let report = store.verify().unwrap();
    assert_eq!(report.affected_items(), expected);
    assert!(report.problems.iter().all(|problem| problem.kind == ProblemKind::Checksum));
    let answers = ask(&store, &truth);
    assert_eq!((answers.listed, answers.found, answers.wrong), (ITEMS, ITEMS - 4, Vec::<String>::new()));
    drop(store);
    let store = LocalStore::open(&path, &OpenOptions { repair: true, ..OpenOptions::write() }).unwrap();
    assert_eq!(store.repaired_items(), expected);
    let again: Vec<_> = expected.iter().map(|id| truth[id].clone()).collect();
    store.upsert(&again).unwrap();
    assert!(store.verify().unwrap().is_clean());
    let answers = ask(&store, &truth);
    assert_eq!((answers.listed, answers.found, answers.errors), (ITEMS, ITEMS, 0));
}

/// A torn tail of the log at every length: some number of whole batches is there, never a part of one.
#[test]
fn a_torn_log_loses_whole_commits_at_its_end_only() {
    let truth = truth();
    let folder = tempfile::tempdir().unwrap();
    written(&truth, folder.path(), true);
    let copied = folder.path().join("copy");
    copy(&copied, &folder.path().join("kept"));
    let log = copied.join("collection.sqlite-wal");
    let whole = fs::read(&log).unwrap();
    assert!(whole.len() > 50_000, "the log holds {} bytes", whole.len());
    let mut random = Random::new(3);
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..40 {
        let length = if round == 0 { whole.len() as u64 } else { random.below(whole.len() as u64) };
        fs::write(&log, &whole[..length as usize]).unwrap();
        for options in [OpenOptions::read(), OpenOptions::write()] {
            let store = match LocalStore::open(&copied, &options) {
                Ok(store) => store,
                Err(StoreError::NoCollection { .. }) => continue,
                Err(error) => panic!("{length}: {error}"),
            };
            let report = store.verify().unwrap();
            assert!(report.is_clean(), "{length}: {report:?}");
            let count = store.count(None).unwrap() as usize;
            assert_eq!(count % BATCH, 0, "{length}: a part of a batch is there");
            seen.insert(count);
            if count > 0 {
                let answers = ask(&store, &truth);
                assert_eq!((answers.listed, answers.found, answers.errors), (count, count, 0), "{:?}", answers.wrong);
            }
        }
        restore(folder.path());
    }
    assert!(seen.len() > 5 && seen.contains(&ITEMS), "{seen:?}");
}
