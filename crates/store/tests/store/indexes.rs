//! Indexes are derived: whatever becomes of their files, searches answer from the vectors.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crossmodal_store::{
    BuildControl, ErrorKind, IndexChoice, IndexKind, IndexState, ItemVectors, LocalStore, Metric, ProblemKind,
    SearchRequest, VectorStore,
};

use crate::sample::{Random, entries, entry, field, hit_ids, open_read, open_write, record};

const DIMENSION: usize = 24;
const ROWS: usize = 1500;
const CHOICES: [(IndexChoice, IndexKind); 3] =
    [(IndexChoice::Flat, IndexKind::Flat), (IndexChoice::Graph, IndexKind::Graph), (IndexChoice::Ivf, IndexKind::Ivf)];

struct Collection {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Collection {
    fn new(metric: Metric) -> (Self, LocalStore) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        let store = open_write(&path);
        store.ensure_field(&field("f", DIMENSION, metric)).unwrap();
        store.upsert(&entries("f", DIMENSION, 0..ROWS)).unwrap();
        (Self { _folder: folder, path }, store)
    }

    fn index_file(&self) -> PathBuf {
        self.path.join("indexes/1-1.index")
    }
}

fn build(store: &LocalStore, choice: IndexChoice) {
    store.choose_index("f", choice).unwrap();
    store.build_index("f", false, &BuildControl::default()).unwrap();
}

fn state(store: &LocalStore) -> IndexState {
    store.info().unwrap().fields.remove(0).index
}

fn covered(store: &LocalStore) -> u64 {
    match state(store) {
        IndexState::Present(info) => info.rows,
        other => panic!("{other:?}"),
    }
}

fn queries(seed: u64) -> Vec<Vec<f32>> {
    (0..20).map(|query| Random::new(seed + 1000 * query).vector(DIMENSION)).collect()
}

/// Compares what is found with what an exact search finds: scores equal bit for bit, nearly all hits the same. Returns the exact lists.
fn assert_nearly_exact(store: &dyn VectorStore, least_recall: f64) -> Vec<Vec<String>> {
    // Random vectors have no cells to speak of: enough of them are looked into that few neighbours are missed.
    let request = SearchRequest { queries: queries(77), effort: Some(200), ..SearchRequest::new("f", vec![], 10) };
    let exact = store.search(&SearchRequest { exact: true, ..request.clone() }).unwrap();
    let found = store.search(&request).unwrap();
    let (mut same, mut all) = (0, 0);
    for (found, exact) in found.iter().zip(&exact) {
        assert_eq!(found.len(), exact.len());
        assert!(found.windows(2).all(|pair| pair[0].score >= pair[1].score));
        let ids: HashSet<_> = hit_ids(exact).into_iter().collect();
        assert_eq!(hit_ids(found).iter().collect::<HashSet<_>>().len(), found.len(), "an item was found twice");
        for hit in found {
            if let Some(twin) = exact.iter().find(|twin| twin.key == hit.key) {
                assert_eq!(hit.score.to_bits(), twin.score.to_bits());
            }
        }
        same += hit_ids(found).iter().filter(|id| ids.contains(**id)).count();
        all += exact.len();
    }
    assert!(same as f64 >= least_recall * all as f64, "{same} of {all} found");
    exact.iter().map(|hits| hits.iter().map(|hit| hit.item.id.clone()).collect()).collect()
}

#[test]
fn every_kind_finds_nearly_what_exact_search_finds_with_exact_scores() {
    for metric in Metric::ALL {
        let (collection, store) = Collection::new(metric);
        for (choice, kind) in CHOICES {
            build(&store, choice);
            let IndexState::Present(info) = state(&store) else { panic!("no index") };
            assert_eq!((info.kind, info.rows), (kind, ROWS as u64));
            assert_nearly_exact(&store, 0.9);
            // A reader sees it too.
            assert_nearly_exact(&open_read(&collection.path), 0.9);
            assert!(store.verify().unwrap().is_clean());
        }
    }
}

#[test]
fn newer_removed_and_replaced_items_are_right_at_once_and_extending_covers_them() {
    for (choice, _) in CHOICES {
        let (_collection, store) = Collection::new(Metric::Cosine);
        build(&store, choice);
        let query = Random::new(5_000_000).vector(DIMENSION);
        let best = |store: &LocalStore| {
            let hits = store.search(&SearchRequest::new("f", query.clone(), 3)).unwrap().remove(0);
            hits.into_iter().map(|hit| hit.item.id).collect::<Vec<_>>()
        };
        store.upsert(&[entry("new", "f", query.clone())]).unwrap();
        assert_eq!(best(&store)[0], "new");
        let second = best(&store)[1].clone();
        store.remove(std::slice::from_ref(&second)).unwrap();
        assert!(!best(&store).contains(&second));
        store.upsert(&[entry("new", "f", query.iter().map(|x| -x).collect())]).unwrap();
        assert!(!best(&store).contains(&"new".to_owned()));
        assert_nearly_exact(&store, 0.9);
        assert_eq!(covered(&store), ROWS as u64);
        let report = store.build_index("f", false, &BuildControl::default()).unwrap();
        assert_eq!((report.added, covered(&store)), (2, ROWS as u64 + 2));
        assert!(!best(&store).contains(&second) && !best(&store).contains(&"new".to_owned()));
        assert_nearly_exact(&store, 0.9);
        // Compaction renumbers the rows: the index over the old ones is gone.
        store.compact().unwrap();
        assert_eq!(state(&store), IndexState::Missing);
        assert_nearly_exact(&store, 1.0);
        store.build_index("f", false, &BuildControl::default()).unwrap();
        assert_eq!(covered(&store), ROWS as u64);
        assert!(store.verify().unwrap().is_clean());
    }
}

#[test]
fn items_with_several_vectors_are_found_once() {
    for (choice, _) in CHOICES {
        let (_collection, store) = Collection::new(Metric::InnerProduct);
        let several = |id: usize| {
            let vectors = (0..4).map(|part| {
                let vector = Random::new((id * 10 + part) as u64 + 9_000).vector(DIMENSION);
                crossmodal_store::VectorRecord { part: part as u32, ..record("f", vector) }
            });
            ItemVectors { vectors: vectors.collect(), ..entry(&format!("several-{id}"), "f", vec![]) }
        };
        store.upsert(&(0..200).map(several).collect::<Vec<_>>()).unwrap();
        build(&store, choice);
        store.upsert(&(200..220).map(several).collect::<Vec<_>>()).unwrap();
        assert_nearly_exact(&store, 0.9);
    }
}

#[test]
fn filters_find_all_that_match_whatever_their_share() {
    use crossmodal_store::{Filter, FilterPath};
    for (choice, _) in CHOICES {
        let (_collection, store) = Collection::new(Metric::Cosine);
        let mut entries = entries("f", DIMENSION, 0..ROWS);
        for (place, entry) in entries.iter_mut().enumerate() {
            for share in [1usize, 2, 10, 100, 700] {
                entry.item.metadata.insert(format!("s{share}"), (place % share == 0).into());
            }
        }
        store.upsert(&entries).unwrap();
        build(&store, choice);
        for share in [1usize, 2, 10, 100, 700] {
            let filter = Some(Filter::equals(FilterPath::metadata(format!("s{share}")), true));
            let request =
                SearchRequest { queries: queries(3), filter, effort: Some(200), ..SearchRequest::new("f", vec![], 10) };
            let exact = store.search(&SearchRequest { exact: true, ..request.clone() }).unwrap();
            let found = store.search(&request).unwrap();
            let mut same = 0;
            for (found, exact) in found.iter().zip(&exact) {
                assert_eq!(found.len(), 10.min(ROWS.div_ceil(share)), "{choice:?}, one in {share}");
                same += found.iter().filter(|hit| exact.iter().any(|twin| twin.key == hit.key)).count();
            }
            let all: usize = exact.iter().map(Vec::len).sum();
            assert!(same as f64 >= 0.9 * all as f64, "{choice:?}, one in {share}: {same} of {all}");
        }
    }
}

#[test]
fn a_lost_damaged_or_foreign_file_costs_nothing_but_speed() {
    for (choice, _) in CHOICES {
        let (collection, store) = Collection::new(Metric::Cosine);
        build(&store, choice);
        let (file, sound) = (collection.index_file(), fs::read(collection.index_file()).unwrap());
        let expected = assert_nearly_exact(&store, 0.9);
        // Deleted, while the store is open.
        fs::remove_dir_all(collection.path.join("indexes")).unwrap();
        assert_eq!(state(&store), IndexState::Missing);
        assert_eq!(assert_nearly_exact(&store, 1.0), expected);
        build(&store, choice);
        drop(store);
        // Flipped anywhere, or cut anywhere.
        let length = sound.len();
        let flips = (0..64).step_by(7).chain((64..length).step_by(length / 97)).chain(length - 60..length);
        for at in flips {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x44;
            check_damaged(&collection.path, &file, &bytes, &expected, &format!("byte {at}"));
        }
        for cut in [0, 1, 63, 64, 5000.min(length - 1), length / 2, length - 1] {
            check_damaged(&collection.path, &file, &sound[..cut], &expected, &format!("cut at {cut}"));
        }
        // Over another collection's vectors, with as many rows.
        let (other, store) = Collection::new(Metric::Cosine);
        store.upsert(&[entry("item-0", "f", vec![1.0; DIMENSION])]).unwrap();
        store.compact().unwrap();
        let foreign = other.path.join("indexes/1-2.index");
        fs::create_dir_all(other.path.join("indexes")).unwrap();
        fs::write(&foreign, &sound).unwrap();
        assert!(matches!(state(&store), IndexState::Unusable { .. }));
        assert_nearly_exact(&store, 1.0);
        build(&store, choice);
        assert_eq!(covered(&store), ROWS as u64);
    }
}

fn check_damaged(collection: &Path, file: &Path, bytes: &[u8], expected: &[Vec<String>], what: &str) {
    fs::write(file, bytes).unwrap();
    let store = open_read(collection);
    let clean = store.verify().unwrap().is_clean();
    if clean {
        // Padding between sections is nobody's.
        assert!(matches!(state(&store), IndexState::Present(_)), "{what}");
    } else {
        let problems = store.verify().unwrap().problems;
        assert!(problems.iter().all(|problem| problem.kind == ProblemKind::Index && problem.item.is_none()), "{what}");
        assert!(matches!(state(&store), IndexState::Unusable { .. }), "{what}");
        assert_eq!(assert_nearly_exact(&store, 1.0), expected, "{what}");
    }
}

#[test]
fn an_unusable_file_is_told_and_replaced() {
    let (collection, store) = Collection::new(Metric::Cosine);
    build(&store, IndexChoice::Graph);
    fs::write(collection.index_file(), b"no index").unwrap();
    assert!(store.index_is_due("f").unwrap());
    let report = store.build_index("f", false, &BuildControl::default()).unwrap();
    assert!(report.replaced.is_some_and(|reason| reason.contains("damaged")));
    assert_eq!(covered(&store), ROWS as u64);
    assert!(!store.index_is_due("f").unwrap());
}

#[test]
fn choices_are_remembered_and_followed() {
    let (collection, store) = Collection::new(Metric::Cosine);
    assert_eq!(store.index_choice("f").unwrap(), IndexChoice::Auto);
    // So few are searched exactly.
    assert!(!store.index_is_due("f").unwrap());
    assert_eq!(store.build_index("f", false, &BuildControl::default()).unwrap().state, IndexState::Missing);
    build(&store, IndexChoice::Ivf);
    drop(store);
    let store = open_write(&collection.path);
    assert_eq!(store.index_choice("f").unwrap(), IndexChoice::Ivf);
    store.choose_index("f", IndexChoice::Graph).unwrap();
    assert!(store.index_is_due("f").unwrap());
    store.choose_index("f", IndexChoice::Exact).unwrap();
    assert!(store.index_is_due("f").unwrap());
    store.build_index("f", false, &BuildControl::default()).unwrap();
    assert!(!collection.index_file().exists());
    assert_eq!(store.index_choice("none").unwrap(), IndexChoice::Auto);
    assert_eq!(store.build_index("none", false, &BuildControl::default()).unwrap_err().kind(), ErrorKind::NotFound);
    let reader = open_read(&collection.path);
    assert_eq!(reader.build_index("f", false, &BuildControl::default()).unwrap_err().kind(), ErrorKind::ReadOnly);
}

#[test]
fn cancelled_work_leaves_the_earlier_index_in_place() {
    let (collection, store) = Collection::new(Metric::Cosine);
    build(&store, IndexChoice::Graph);
    store.upsert(&entries("f", DIMENSION, ROWS..ROWS + 500)).unwrap();
    let control = BuildControl { cancelled: &|| true, ..BuildControl::default() };
    assert_eq!(store.build_index("f", false, &control).unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(covered(&store), ROWS as u64);
    assert_nearly_exact(&store, 0.9);
    let names: Vec<_> =
        fs::read_dir(collection.path.join("indexes")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["1-1.index"]);
    // What a killed process left is removed by the next writer.
    drop(store);
    fs::write(collection.path.join("indexes/1-1.index.part"), b"half").unwrap();
    drop(open_write(&collection.path));
    assert!(!collection.path.join("indexes/1-1.index.part").exists());
}

#[test]
fn others_search_and_write_while_an_index_is_built() {
    let (_collection, store) = Collection::new(Metric::Cosine);
    store.upsert(&entries("f", DIMENSION, ROWS..6 * ROWS)).unwrap();
    store.choose_index("f", IndexChoice::Graph).unwrap();
    let built = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            store.build_index("f", true, &BuildControl::default()).unwrap();
            built.store(true, Ordering::SeqCst);
        });
        let mut number = 0;
        while !built.load(Ordering::SeqCst) {
            let vector = Random::new(900_000 + number).vector(DIMENSION);
            let id = format!("meanwhile-{number}");
            store.upsert(&[entry(&id, "f", vector.clone())]).unwrap();
            let hits = store.search(&SearchRequest::new("f", vector, 1)).unwrap().remove(0);
            assert_eq!(hit_ids(&hits), [id.as_str()]);
            number += 1;
        }
        assert!(number > 0);
    });
    assert_nearly_exact(&store, 0.9);
    assert!(covered(&store) >= 6 * ROWS as u64);
}

#[test]
fn a_dropped_field_is_gone_with_its_files() {
    let (collection, store) = Collection::new(Metric::Cosine);
    build(&store, IndexChoice::Flat);
    assert_eq!(store.drop_field("f").unwrap(), ROWS as u64);
    assert!(!collection.index_file().exists() && !collection.path.join("vectors/1-1.f32").exists());
    assert_eq!(store.info().unwrap().items, ROWS as u64);
    assert_eq!(store.drop_field("f").unwrap_err().kind(), ErrorKind::NotFound);
    // A field of the same name begins anew.
    store.ensure_field(&field("f", DIMENSION, Metric::Cosine)).unwrap();
    store.upsert(&entries("f", DIMENSION, 0..10)).unwrap();
    assert_nearly_exact(&store, 1.0);
    assert!(store.verify().unwrap().is_clean());
}

/// Whatever is written, removed, compacted and indexed in whatever order: no hit is dead or twice, every score is the exact one, and nearly
/// all of the true neighbours are found, all of them by a store that looks at every vector.
#[test]
fn random_histories_are_searched_as_they_are() {
    for seed in 0..6 {
        let (_collection, store) = Collection::new(Metric::ALL[seed as usize % 3]);
        let mut random = Random::new(seed + 400_000);
        for _ in 0..30 {
            let first = random.below(2 * ROWS as u64) as usize;
            match random.below(8) {
                0..=2 => {
                    let vector =
                        |id: usize, random: &mut Random| entry(&format!("item-{id}"), "f", random.vector(DIMENSION));
                    let batch: Vec<_> = (first..first + 40).map(|id| vector(id, &mut random)).collect();
                    store.upsert(&batch).unwrap();
                }
                3..=4 => {
                    let ids: Vec<_> = (first..first + 25).map(|id| format!("item-{id}")).collect();
                    store.remove(&ids).unwrap();
                }
                5 => drop(store.compact().unwrap()),
                _ => build(&store, CHOICES[random.below(3) as usize].0),
            }
            let exact = assert_nearly_exact(&store, 0.85);
            let items = store.count(None).unwrap();
            assert!(exact.iter().all(|hits| hits.len() as u64 == items.min(10)), "seed {seed}");
        }
        assert!(store.verify().unwrap().is_clean());
    }
}

#[test]
fn a_searcher_answers_as_a_search_does_in_its_own_state() {
    use crossmodal_store::{Filter, FilterPath};
    let (_collection, store) = Collection::new(Metric::Cosine);
    let mut marked = entries("f", DIMENSION, 100..400);
    marked.iter_mut().for_each(|entry| drop(entry.item.metadata.insert("marked".into(), true.into())));
    store.upsert(&marked).unwrap();
    store.remove(&(0..50).map(|id| format!("item-{id}")).collect::<Vec<_>>()).unwrap();
    let several = ItemVectors {
        vectors: (0..3)
            .map(|part| crossmodal_store::VectorRecord {
                part,
                ..record("f", Random::new(u64::from(part)).vector(DIMENSION))
            })
            .collect(),
        ..entry("several", "f", vec![])
    };
    store.upsert(&[several]).unwrap();
    build(&store, IndexChoice::Graph);
    for filter in [None, Some(Filter::equals(FilterPath::metadata("marked"), true))] {
        for exact in [false, true] {
            let searcher = store.searcher("f", filter.as_ref()).unwrap();
            let request = SearchRequest {
                queries: queries(8),
                filter: filter.clone(),
                exact,
                ..SearchRequest::new("f", vec![], 12)
            };
            let hits = store.search(&request).unwrap();
            // What is written now belongs to a later state.
            store.upsert(&[entry("later", "f", queries(8).remove(0))]).unwrap();
            let found = searcher.search(queries(8), 12, None, exact).unwrap();
            for (found, hits) in found.iter().zip(&hits) {
                let expected: Vec<_> = hits.iter().map(|hit| (hit.item.id.as_str(), hit.score)).collect();
                assert_eq!(*found, expected);
            }
            assert_eq!(found.len(), hits.len());
            store.remove(&["later".to_owned()]).unwrap();
        }
    }
    assert_eq!(store.searcher("none", None).unwrap_err().kind(), ErrorKind::NotFound);
    let searcher = store.searcher("f", None).unwrap();
    assert_eq!(searcher.search(vec![vec![1.0]], 1, None, false).unwrap_err().kind(), ErrorKind::InvalidInput);
}
