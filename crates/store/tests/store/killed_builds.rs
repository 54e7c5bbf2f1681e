//! kill -9 of a process that writes and, on another thread, builds and extends indexes all the while.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;
use std::{env, fs, thread};

use crossmodal_store::{
    BuildControl, IndexChoice, IndexState, LocalStore, Metric, OpenOptions, SearchRequest, VectorStore,
};

use crate::processes::{DIMENSION, LONG, Model, apply, holds, say, unacknowledged, words_until_killed, write_for_ever};
use crate::sample::{Random, exact_score, field, open_write};

const FIELDS: [(&str, IndexChoice); 2] = [("a", IndexChoice::Graph), ("b", IndexChoice::Ivf)];

fn ensure_fields(store: &LocalStore) {
    for (name, choice) in FIELDS {
        store.ensure_field(&field(name, DIMENSION, Metric::InnerProduct)).unwrap();
        store.choose_index(name, choice).unwrap();
    }
}

/// The child: every build covers what was written up to then.
pub fn write_and_index_for_ever(folder: &Path, first: u64) {
    let store = open_write(folder);
    ensure_fields(&store);
    let build = || {
        let control = BuildControl { threads: 1, ..BuildControl::default() };
        loop {
            for (name, _) in FIELDS {
                let report = store.build_index(name, false, &control).unwrap();
                if report.added > 0 {
                    say("built");
                }
            }
            thread::yield_now();
        }
    };
    thread::scope(|scope| {
        scope.spawn(build);
        write_for_ever(&store, first);
    });
}

/// Compares searches with the truth, with the index and without it: exact scores, no item twice, and hardly one of the best missing.
fn assert_searches(store: &LocalStore, model: &Model, seed: u64) {
    for (name, _) in FIELDS {
        let query = Random::new(seed).vector(DIMENSION);
        let mut truth = HashMap::<&str, f64>::new();
        for (id, entry) in model {
            for record in entry.vectors.iter().filter(|record| record.field == name) {
                let score = exact_score(Metric::InnerProduct, &query, &record.vector);
                let best = truth.entry(id).or_insert(score);
                *best = best.max(score);
            }
        }
        let mut ranked: Vec<f64> = truth.values().copied().collect();
        ranked.sort_by(|a, b| b.total_cmp(a));
        let k = truth.len().min(10);
        for exact in [true, false] {
            let request = SearchRequest { exact, effort: Some(400), ..SearchRequest::new(name, query.clone(), 10) };
            let hits = store.search(&request).unwrap().remove(0);
            let scores: BTreeMap<&str, f64> =
                hits.iter().map(|hit| (hit.item.id.as_str(), f64::from(hit.score))).collect();
            assert_eq!((hits.len(), scores.len()), (k, k), "{name}, exact: {exact}");
            assert!(scores.iter().all(|(id, score)| (truth[id] - score).abs() < 1e-4), "{name}, exact: {exact}");
            let missed = hits.iter().filter(|hit| f64::from(hit.score) < ranked[k - 1] - 1e-4).count();
            assert!(missed <= if exact { 0 } else { 2 }, "{name}: {missed} of the best are missed, exact: {exact}");
        }
    }
}

fn index_files(folder: &Path, ending: &str) -> usize {
    let entries = fs::read_dir(folder.join("indexes")).map(|entries| entries.flatten().collect::<Vec<_>>());
    let names = entries.unwrap_or_default().into_iter().map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(ending)).count()
}

/// Whatever moment of a build the kill falls into: nothing acknowledged is lost, an index that is found is sound, and the next build goes on.
#[test]
fn a_killed_build_costs_nothing_but_its_time() {
    let rounds = if env::var_os(LONG).is_some() { 200 } else { 24 };
    let mut random = Random::new(77);
    let folder = tempfile::tempdir().unwrap();
    let (mut path, mut model, mut next) = (folder.path().join("0"), Model::new(), 0);
    let (mut with_index, mut cut_off, mut builds, mut operations) = (0, 0, 0, 0);
    for round in 0..rounds {
        if round % 12 == 0 {
            (path, model) = (folder.path().join(round.to_string()), Model::new());
        }
        let (begun, after) = (round % 12 > 1, Duration::from_micros(random.below(250_000)));
        let words = words_until_killed("write-and-index", &path, next, begun, after);
        let unacknowledged = unacknowledged(next, &words);
        builds += words.iter().filter(|word| *word == "built").count();
        operations += unacknowledged - next;
        cut_off += index_files(&path, ".part");
        (next..unacknowledged).for_each(|number| apply(&mut model, number));
        let mut with_in_flight = model.clone();
        apply(&mut with_in_flight, unacknowledged);
        next = unacknowledged + 1;
        // A reader first, beside what the killed process left.
        if let Ok(reader) = LocalStore::open(&path, &OpenOptions::read())
            && reader.fields().unwrap().len() == FIELDS.len()
        {
            let state = if holds(&reader, &model) { &model } else { &with_in_flight };
            assert_searches(&reader, state, round);
            for info in reader.info().unwrap().fields {
                // A file is whole or isn't there: it takes its place by renaming.
                assert!(!matches!(info.index, IndexState::Unusable { .. }), "round {round}: {:?}", info.index);
                with_index += usize::from(matches!(info.index, IndexState::Present(_)));
            }
        }
        let store = open_write(&path);
        ensure_fields(&store);
        if !holds(&store, &model) {
            assert!(holds(&store, &with_in_flight), "round {round}: neither before nor after operation {next}");
            model = with_in_flight;
        }
        assert_searches(&store, &model, round);
        if round % 3 == 2 {
            for (name, _) in FIELDS {
                store.build_index(name, false, &BuildControl::default()).unwrap();
            }
            assert_eq!(index_files(&path, ".part"), 0);
            assert_searches(&store, &model, round + 1000);
        }
        let report = store.verify().unwrap();
        assert!(report.is_clean(), "round {round}: {report:?}");
    }
    println!(
        "{rounds} rounds, {operations} acknowledged operations, {builds} builds; {with_index} indexes found afterwards, {cut_off} cut off while being written"
    );
    assert!(operations > rounds && with_index as u64 > rounds / 3, "{operations} operations, {with_index} indexes");
}
