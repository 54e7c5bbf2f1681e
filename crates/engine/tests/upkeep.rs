//! Indexes that are kept while a collection is filled and searched.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossmodal_engine::ingest::{Events, Request};
use crossmodal_engine::upkeep::{IndexKeeper, KeeperOptions};
use crossmodal_engine::{
    CancelToken, Collection, ErrorKind, IndexChoice, IndexState, Item, LoadOptions, Metric, Mode, Query, SearchOptions,
    demo, ingest, load,
};
use crossmodal_store::{Field, ItemVectors, SpaceRef, VectorRecord, VectorStore};

const DIMENSION: usize = 16;

/// Eager, so that much happens in a short time.
fn eager() -> KeeperOptions {
    KeeperOptions { threads: 1, look_every: Duration::from_millis(3), rest: 0 }
}

fn vector(seed: usize) -> Vec<f32> {
    let mut state = seed as u64 * 77 + 5;
    let mut value = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..DIMENSION).map(|_| value()).collect()
}

fn space() -> SpaceRef {
    SpaceRef { id: "elsewhere".into(), model: "elsewhere".into() }
}

fn open(folder: &Path) -> Arc<Collection> {
    let collection = Collection::open(folder, &Mode::write()).unwrap();
    let field = Field { name: "given".into(), space: space(), dimension: DIMENSION, metric: Metric::Cosine };
    collection.store().ensure_field(&field).unwrap();
    collection.choose_index(IndexChoice::Graph).unwrap();
    Arc::new(collection)
}

fn write(collection: &Collection, numbers: std::ops::Range<usize>) {
    let entry = |number: usize| ItemVectors {
        item: Item::new(number.to_string(), "image"),
        vectors: vec![VectorRecord {
            field: "given".into(),
            space: space(),
            part: 0,
            modality: "image".into(),
            span: None,
            precision: "fp32".into(),
            cache_key: None,
            vector: vector(number),
        }],
    };
    collection.store().upsert(&numbers.map(entry).collect::<Vec<_>>()).unwrap();
}

fn covered(collection: &Collection) -> u64 {
    match &collection.info().unwrap().fields[0].index {
        IndexState::Present(info) => info.rows,
        IndexState::Missing => 0,
        state => panic!("{state:?}"),
    }
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(120), "{what} didn't happen");
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// Rows beyond which an index is extended, with some more.
const MANY: usize = 6_000;

#[test]
fn what_is_written_is_found_at_once_and_covered_soon() {
    let dir = tempfile::tempdir().unwrap();
    let collection = open(&dir.path().join("c"));
    let keeper = IndexKeeper::start_with(collection.clone(), eager()).unwrap();
    let watch = keeper.watch();
    let (written, stop, searches) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let Some(newest) = written.load(Ordering::SeqCst).checked_sub(1) else { continue };
                let query = Query::vector(vector(newest));
                let found = collection.search_vectors(&[query], &SearchOptions::top(3)).unwrap().remove(0);
                assert!(found[0].hit.item.id == newest.to_string() && found[0].hit.score > 0.9999);
                searches.fetch_add(1, Ordering::SeqCst);
            }
        });
        for start in (0..2 * MANY).step_by(500) {
            write(&collection, start..start + 500);
            written.store(start + 500, Ordering::SeqCst);
            if start == 500 {
                wait_until("the first build", || watch.state().built > 0);
            }
        }
        wait_until("an extension", || watch.state().built > 1);
        stop.store(true, Ordering::SeqCst);
    });
    let state = keeper.stop();
    assert!(state.failure.is_none() && state.building.is_none() && state.built >= 2, "{state:?}");
    let (searches, covered_rows) = (searches.load(Ordering::SeqCst), covered(&collection));
    // More than the rows that need no extension.
    assert!(searches > 0 && covered_rows > 5_000, "{searches} searches, {covered_rows} rows covered");
    assert!(collection.verify().unwrap().is_clean());
    // Nobody keeps it any more.
    let before = covered(&collection);
    write(&collection, 2 * MANY..4 * MANY);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!((covered(&collection), watch.state()), (before, state));
}

#[test]
fn real_pictures_are_ingested_and_searched_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let pictures = dir.path().join("gallery");
    demo::unpack(&pictures).unwrap();
    let model = load("mini", &LoadOptions::default()).unwrap();
    let collection = Arc::new(Collection::open(&dir.path().join("c"), &Mode::write()).unwrap());
    let keeper = IndexKeeper::start_with(collection.clone(), eager()).unwrap();
    // Nothing is due while there is no field, and so few vectors need no index unless one is asked for.
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(keeper.watch().state(), Default::default());
    collection.adopt(model.as_ref()).unwrap();
    collection.choose_index(IndexChoice::Graph).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let query = Query::text("red apple");
                collection.search(model.as_ref(), &query, &SearchOptions::default()).unwrap();
            }
        });
        let request = Request { batch_size: 8, ..Request::new(vec![pictures]) };
        let report = ingest::run(&collection, &model, &request, &Events::none(), &CancelToken::new());
        wait_until("a build", || keeper.watch().state().built > 0);
        stop.store(true, Ordering::SeqCst);
        assert_eq!(report.unwrap().progress.written, 240);
    });
    let state = keeper.stop();
    assert!(state.failure.is_none() && state.built >= 1, "{state:?}");
    let found = collection.search(model.as_ref(), &Query::text("red apple"), &SearchOptions::default()).unwrap();
    assert!(found[0].hit.item.id.ends_with("1f34e.png"));
    assert!(collection.verify().unwrap().is_clean());
}

#[test]
fn a_dropped_keeper_calls_off_what_it_builds() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("c");
    let collection = open(&folder);
    write(&collection, 0..5 * MANY);
    let keeper = IndexKeeper::start_with(collection.clone(), eager()).unwrap();
    let watch = keeper.watch();
    wait_until("the start of a build", || watch.state().building.is_some() || watch.state().built > 0);
    drop(keeper);
    let state = watch.state();
    assert!(state.building.is_none() && state.failure.is_none(), "{state:?}");
    assert_eq!(covered(&collection) > 0, state.built > 0);
    let parts = std::fs::read_dir(folder.join("indexes")).into_iter().flatten().flatten();
    assert!(parts.into_iter().all(|entry| entry.file_name().to_str().unwrap().ends_with(".index")));
    // The thread let go of the collection.
    assert_eq!(Arc::strong_count(&collection), 1);
    drop(IndexKeeper::start(collection).unwrap());
}

#[test]
fn failures_are_told_and_cost_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("c");
    let collection = open(&folder);
    write(&collection, 0..100);
    // Where the index would go, there is a file.
    let _ = std::fs::remove_dir_all(folder.join("indexes"));
    std::fs::write(folder.join("indexes"), b"").unwrap();
    let keeper = IndexKeeper::start_with(collection.clone(), eager()).unwrap();
    let watch = keeper.watch();
    wait_until("a failure", || watch.state().failure.is_some());
    let found = collection.search_vectors(&[Query::vector(vector(7))], &SearchOptions::default()).unwrap();
    assert_eq!(found[0][0].hit.item.id, "7");
    let state = keeper.stop();
    assert!(state.built == 0 && state.failure.unwrap().contains("indexes"));
    drop(collection);
    let reader = Arc::new(Collection::open(&folder, &Mode::read()).unwrap());
    let error = IndexKeeper::start(reader).unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains("for reading"), "{error}");
}
