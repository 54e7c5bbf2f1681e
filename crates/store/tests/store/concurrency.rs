//! Readers in threads and writers in processes at the same time: every answer is one committed state.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use crossmodal_store::{Filter, FilterPath, ItemVectors, LocalStore, Metric, OpenOptions, SearchRequest, VectorStore};

use crate::processes::{child, finish, say};
use crate::sample::{entry, field, open_read, open_write};

const DIMENSION: usize = 4;
const ITEMS: usize = 30;

/// All items of one round: the vector and the metadata tell the round.
fn round(number: usize) -> Vec<ItemVectors> {
    let entry = |item: usize| {
        let mut entry = entry(&format!("item-{item}"), "f", vec![number as f32, item as f32, 1.0, 0.0]);
        entry.item.metadata.insert("round".into(), number.into());
        entry
    };
    (0..ITEMS).map(entry).collect()
}

/// Looks in every way and returns the round of the state that each answer showed.
fn look(store: &dyn VectorStore) -> usize {
    // The score is the round, since the query picks the first value.
    let hits = store.search(&SearchRequest::new("f", vec![1.0, 0.0, 0.0, 0.0], ITEMS * 2)).unwrap().remove(0);
    let rounds: BTreeSet<u64> = hits.iter().map(|hit| hit.item.metadata["round"].as_u64().unwrap()).collect();
    let scores: BTreeSet<u64> = hits.iter().map(|hit| hit.score as u64).collect();
    assert_eq!((hits.len(), rounds.len()), (ITEMS, 1), "a mixture of states: {rounds:?}");
    assert_eq!(rounds, scores, "vectors of one state and items of another");
    let items = store.list(&Default::default()).unwrap();
    let listed: BTreeSet<u64> = items.iter().map(|stored| stored.item.metadata["round"].as_u64().unwrap()).collect();
    assert_eq!((items.len(), listed.len()), (ITEMS, 1), "a mixture of states: {listed:?}");
    // Later answers show the same state or a later one, and filters never a mixture.
    let (first, later) = (*rounds.first().unwrap(), *listed.first().unwrap());
    assert!(later >= first);
    let filter = Filter::equals(FilterPath::metadata("round"), later as i64);
    let request = SearchRequest { filter: Some(filter), ..SearchRequest::new("f", vec![0.0, 1.0, 0.0, 0.0], ITEMS) };
    let filtered = store.search(&request).unwrap().remove(0).len();
    assert!(filtered == ITEMS || filtered == 0, "{filtered} items of a round");
    let vectors = store.vectors("item-7").unwrap();
    assert!(vectors.len() == 1 && vectors[0].vector[0] as u64 >= later);
    first as usize
}

#[test]
fn threads_see_whole_states_during_writes_and_compactions() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    let writer = open_write(&path);
    writer.ensure_field(&field("f", DIMENSION, Metric::InnerProduct)).unwrap();
    writer.upsert(&round(0)).unwrap();
    let (stop, looks) = (AtomicBool::new(false), AtomicUsize::new(0));
    let other = open_read(&path);
    // Some share the writer's store, some one reader's, one opens a store each time.
    let stores: [Option<&LocalStore>; 5] = [Some(&writer), Some(&writer), Some(&other), Some(&other), None];
    let last = thread::scope(|scope| {
        let readers = stores.map(|store| {
            let (stop, looks, path) = (&stop, &looks, &path);
            scope.spawn(move || {
                let mut last = 0;
                while !stop.load(Ordering::Relaxed) {
                    let own = store.is_none().then(|| open_read(path));
                    let seen = look(store.or(own.as_ref()).unwrap());
                    assert!(seen >= last, "round {seen} after {last}");
                    last = seen;
                    looks.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let start = Instant::now();
        let mut number = 0;
        while start.elapsed() < Duration::from_secs(2) || number < 20 {
            number += 1;
            writer.upsert(&round(number)).unwrap();
            if number % 4 == 0 {
                writer.compact().unwrap();
            }
        }
        stop.store(true, Ordering::Relaxed);
        // A reader's failed assertion is this test's.
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        number
    });
    let looks = looks.into_inner();
    println!("{looks} looks at {last} rounds");
    assert!(looks > 20 && look(&writer) == last && look(&other) == last);
    assert!(writer.verify().unwrap().is_clean());
}

/// The job of a writing process: opens, writes a few items of its own, closes, several times over.
pub fn take_turns(folder: &Path) {
    let own = env::var("CROSSMODAL_STORE_TEST_FIRST").unwrap();
    for turn in 0..8 {
        let patience = Some(Duration::from_secs(60));
        let store = LocalStore::open(folder, &OpenOptions { wait: patience, ..OpenOptions::write() }).unwrap();
        store.ensure_field(&field("f", DIMENSION, Metric::InnerProduct)).unwrap();
        let batch: Vec<_> = (0..5)
            .map(|item| entry(&format!("{own}-{turn}-{item}"), "f", vec![turn as f32, item as f32, 1.0, 2.0]))
            .collect();
        store.upsert(&batch).unwrap();
        store.remove(&[format!("{own}-{turn}-0")]).unwrap();
        if turn % 3 == 2 {
            store.compact().unwrap();
        }
    }
    say("done");
}

#[test]
fn writing_processes_take_turns_and_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    let start = |number: usize| {
        child("take-turns", &path).env("CROSSMODAL_STORE_TEST_FIRST", number.to_string()).spawn().unwrap()
    };
    let children: Vec<_> = (0..3).map(start).collect();
    for child in children {
        assert_eq!(finish(child), ["done"]);
    }
    let store = open_read(&path);
    assert_eq!(store.count(None).unwrap(), 3 * 8 * 4);
    for own in 0..3 {
        for turn in 0..8 {
            for item in 1..5 {
                let vectors = store.vectors(&format!("{own}-{turn}-{item}")).unwrap();
                assert_eq!(vectors[0].vector, [turn as f32, item as f32, 1.0, 2.0]);
            }
        }
    }
    assert!(store.verify().unwrap().is_clean());
}
