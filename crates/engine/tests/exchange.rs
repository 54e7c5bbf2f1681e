//! Vectors and whole collections in and out: equal afterwards, atomic, resumable, and clear about what can't be used.

use std::fs;
use std::path::{Path, PathBuf};

use crossmodal_engine::bulk::{BulkResults, BulkSearch, HitIds, search_file};
use crossmodal_engine::exchange::npy::{self, NpyReader};
use crossmodal_engine::exchange::{
    ImportReport, VectorImport, export_archive, export_clip_retrieval, import_archive, import_clip_retrieval,
    import_vectors, is_archive, is_clip_retrieval,
};
use crossmodal_engine::{CancelToken, Collection, Filter, FilterPath, Item, Metric, Mode, Source};
use crossmodal_store::{Field, ItemVectors, SpaceRef, Span, VectorRecord, VectorStore};
use serde_json::{Map, Value, json};

const DIMENSION: usize = 12;

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn open(&self, name: &str) -> Collection {
        Collection::open(&self.path(name), &Mode::write()).unwrap()
    }

    fn floats(&self, name: &str, rows: &[Vec<f32>]) -> PathBuf {
        let path = self.path(name);
        let columns = rows.first().map_or(DIMENSION, Vec::len);
        npy::write(&path, "<f4", &[rows.len(), columns], rows.iter().flatten().map(|value| value.to_le_bytes()))
            .unwrap();
        path
    }

    fn text(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    fn import(&self, rows: &[Vec<f32>]) -> VectorImport {
        let vectors = self.floats("x.npy", rows);
        VectorImport { vectors, ids: None, metadata: None, metric: Metric::InnerProduct, batch_size: 7, strict: false }
    }
}

fn vector(seed: usize) -> Vec<f32> {
    (0..DIMENSION).map(|at| ((seed * 31 + at * 17) % 101) as f32 / 50.0 - 1.0).collect()
}

fn vectors(count: usize) -> Vec<Vec<f32>> {
    (0..count).map(vector).collect()
}

fn import(collection: &Collection, import: &VectorImport) -> ImportReport {
    import_vectors(collection, import, &mut |_, _| {}, &CancelToken::new()).unwrap()
}

fn refused(collection: &Collection, import: &VectorImport) -> String {
    import_vectors(collection, import, &mut |_, _| {}, &CancelToken::new()).unwrap_err().to_string()
}

fn counts(report: &ImportReport) -> [usize; 5] {
    [report.added, report.replaced, report.touched, report.unchanged, report.skipped_count]
}

/// Fields, settings, and items with their vectors.
type Everything = (Vec<Field>, Vec<(String, Value)>, Vec<(Item, Vec<Value>)>);

/// Everything that a collection holds but keys and counts of changes.
fn everything(collection: &Collection) -> Everything {
    let snapshot = collection.store().snapshot().unwrap();
    let mut items = Vec::new();
    let shown = snapshot.for_each::<crossmodal_engine::StoreError>(|stored, vectors| {
        let vectors = vectors.into_iter().map(|vector| {
            let bits: Vec<u32> = vector.vector.iter().map(|value| value.to_bits()).collect();
            json!([vector.field, vector.part, vector.modality, vector.span, vector.precision, vector.cache_key, bits])
        });
        items.push((stored.item, vectors.collect()));
        Ok(())
    });
    shown.unwrap();
    (snapshot.fields().cloned().collect(), snapshot.settings().unwrap(), items)
}

/// Two fields, several vectors an item, spans, sources, hashes, odd metadata, settings, an item without vectors, removed ones.
fn rich(collection: &Collection) {
    let space = |id: &str| SpaceRef { id: id.into(), model: format!("model of {id}") };
    let fields = [("default", Metric::Cosine, DIMENSION), ("other", Metric::Euclidean, 3)];
    for (name, metric, dimension) in fields {
        collection.store().ensure_field(&Field { name: name.into(), space: space(name), dimension, metric }).unwrap();
    }
    let record = |field: &str, part: u32, vector: Vec<f32>| VectorRecord {
        field: field.into(),
        space: space(field),
        part,
        modality: ["image", "text"][part as usize % 2].into(),
        span: (part > 0).then_some(Span::Time { start: 0.1 * f64::from(part), end: 7.3 }),
        precision: "int8".into(),
        cache_key: (part == 0).then_some([part as u8 + 9; 32]),
        vector,
    };
    let mut batch = Vec::new();
    for number in 0..60usize {
        let mut item = Item::new(format!("item {number} \"ü\"\n"), "image");
        item.metadata =
            json!({"n": number, "f": number as f64 / 7.0 + 1e-17, "s": "a\u{2028}b", "deep": [{"x": null}], "": 1})
                .as_object()
                .unwrap()
                .clone();
        if number % 3 == 0 {
            item.source = Some(Source { uri: format!("/p/{number}.jpg"), size: Some(1 << 40), modified_ns: Some(-5) });
            item.content_hash = Some([number as u8; 32]);
        }
        let mut vectors = Vec::new();
        if number % 10 != 9 {
            vectors.push(record("default", 0, vector(number)));
            (1..number as u32 % 4)
                .for_each(|part| vectors.push(record("default", part, vector(number + part as usize))));
            vectors.push(record("other", 0, vec![number as f32, -0.0, f32::MIN_POSITIVE / 2.0]));
        }
        batch.push(ItemVectors { item, vectors });
    }
    collection.store().upsert(&batch).unwrap();
    collection.store().remove(&[batch[4].item.id.clone()]).unwrap();
    collection.store().upsert(&batch[10..12]).unwrap();
    collection.store().set_setting("model", &json!("some/model")).unwrap();
    collection.store().set_setting("a", &json!({"b": [0.1, 1e300]})).unwrap();
}

#[test]
fn a_complete_export_loses_nothing() {
    let place = Place::new();
    let original = place.open("c");
    rich(&original);
    let cancel = CancelToken::new();
    let exported = export_archive(&original, &place.path("e"), false, &mut |_, _| {}, &cancel).unwrap();
    assert_eq!(exported.items, 59);
    assert!(is_archive(&place.path("e")) && !is_clip_retrieval(&place.path("e")));
    let copy = place.open("copy");
    let imported = import_archive(&copy, &place.path("e"), Some(7), &mut |_, _| {}, &cancel).unwrap();
    assert_eq!((imported.items, imported.vectors, imported.unchanged), (59, exported.vectors, 0));
    assert_eq!(everything(&copy), everything(&original));
    assert!(copy.verify().unwrap().is_clean());
    // Again: nothing is left to do, and what differs is put right.
    let again = import_archive(&copy, &place.path("e"), None, &mut |_, _| {}, &cancel).unwrap();
    assert_eq!(again.unchanged, 59);
    copy.store().remove(&["item 7 \"ü\"\n".into()]).unwrap();
    let mut item = copy.list(&Default::default()).unwrap()[0].item.clone();
    item.metadata = Map::new();
    copy.store().touch(&[item]).unwrap();
    assert_eq!(import_archive(&copy, &place.path("e"), None, &mut |_, _| {}, &cancel).unwrap().unchanged, 57);
    let sorted = |collection: &Collection| {
        let mut items = everything(collection).2;
        items.sort_by(|a, b| a.0.id.cmp(&b.0.id));
        items
    };
    assert_eq!(sorted(&copy), sorted(&original));
}

#[test]
fn exports_replace_only_exports_and_leave_nothing_half_done() {
    let place = Place::new();
    let collection = place.open("c");
    rich(&collection);
    let export = |name: &str, force| {
        export_archive(&collection, &place.path(name), force, &mut |_, _| {}, &CancelToken::new())
            .map_err(|error| error.to_string())
    };
    export("e", false).unwrap();
    let error = export("e", false).unwrap_err();
    assert!(error.contains("exists already") && error.contains("--force"), "{error}");
    collection.remove(&["item 0 \"ü\"\n".into()]).unwrap();
    assert_eq!(export("e", true).unwrap().items, 58);
    fs::create_dir(place.path("mine")).unwrap();
    place.text("mine/photo.jpg", "x");
    assert!(export("mine", true).unwrap_err().contains("is no export"));
    assert!(place.path("mine/photo.jpg").exists());
    let cancel = CancelToken::new();
    cancel.cancel();
    assert!(export_archive(&collection, &place.path("f"), false, &mut |_, _| {}, &cancel).is_err());
    let mut names: Vec<_> =
        fs::read_dir(place.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["c", "e", "mine"]);
}

#[test]
fn a_damaged_export_is_refused_before_anything_is_written() {
    let place = Place::new();
    let collection = place.open("c");
    rich(&collection);
    export_archive(&collection, &place.path("e"), false, &mut |_, _| {}, &CancelToken::new()).unwrap();
    let names: Vec<PathBuf> = fs::read_dir(place.path("e")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names.len(), 4);
    for (round, name) in names.iter().cycle().take(40).enumerate() {
        let whole = fs::read(name).unwrap();
        let mut bytes = whole.clone();
        let at = (round * 7919 + 13) % bytes.len();
        bytes[at] = if bytes[at] == b'7' { b'3' } else { b'7' };
        if round % 5 == 4 {
            bytes.truncate(at);
        }
        fs::write(name, bytes).unwrap();
        let copy = place.open(&format!("copy-{round}"));
        let result = import_archive(&copy, &place.path("e"), None, &mut |_, _| {}, &CancelToken::new());
        // A manifest's own names may change unnoticed; what it promises of the other files may not.
        if name.ends_with("manifest.json") {
            assert!(result.is_err() || everything(&copy).2.len() == 59);
        } else {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(name.file_name().unwrap().to_str().unwrap()), "{error}");
            assert_eq!(copy.info().unwrap().items, 0);
        }
        fs::write(name, whole).unwrap();
    }
    let manifest = fs::read_to_string(place.path("e/manifest.json")).unwrap();
    for (from, to, expected) in [
        ("\"version\": 1", "\"version\": 2", "use a newer one"),
        ("\"items.jsonl\"", "\"../items.jsonl\"", "does not lie beside it"),
        ("crossmodal collection", "something else", "is no manifest"),
    ] {
        fs::write(place.path("e/manifest.json"), manifest.replace(from, to)).unwrap();
        let copy = place.open("last");
        let error = import_archive(&copy, &place.path("e"), None, &mut |_, _| {}, &CancelToken::new()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn exports_see_one_state_while_another_thread_writes() {
    let place = Place::new();
    let collection = place.open("c");
    let space = SpaceRef { id: "s".into(), model: "m".into() };
    let field = Field { name: "default".into(), space: space.clone(), dimension: DIMENSION, metric: Metric::Cosine };
    collection.store().ensure_field(&field).unwrap();
    // Every batch gives all items the same round, so that a mixture would show.
    let batch = |round: usize| -> Vec<ItemVectors> {
        let entry = |number: usize| {
            let mut item = Item::new(format!("{number}"), "image");
            item.metadata.insert("round".into(), round.into());
            let vector = VectorRecord {
                field: "default".into(),
                space: space.clone(),
                part: 0,
                modality: "image".into(),
                span: None,
                precision: String::new(),
                cache_key: None,
                vector: vector(round + number),
            };
            ItemVectors { item, vectors: vec![vector] }
        };
        (0..40).map(entry).collect()
    };
    collection.store().upsert(&batch(0)).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1.. {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
                collection.store().upsert(&batch(round)).unwrap();
                if round % 3 == 0 {
                    collection.compact().unwrap();
                }
            }
        });
        for round in 0..12 {
            let (target, backup) = (place.path(&format!("e{round}")), place.path(&format!("b{round}")));
            export_archive(&collection, &target, false, &mut |_, _| {}, &CancelToken::new()).unwrap();
            let copy = place.open(&format!("copy{round}"));
            import_archive(&copy, &target, None, &mut |_, _| {}, &CancelToken::new()).unwrap();
            let report = collection.store().backup(&backup).unwrap();
            assert_eq!((report.items, report.vectors), (40, 40));
            for copy in [copy, Collection::open(&backup, &Mode::read()).unwrap()] {
                assert!(copy.verify().unwrap().is_clean());
                let items = everything(&copy).2;
                assert_eq!(items.len(), 40);
                assert!(items.iter().all(|(item, _)| item.metadata == items[0].0.metadata), "a mixture of states");
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_backup_is_the_same_collection() {
    let place = Place::new();
    let collection = place.open("c");
    rich(&collection);
    let report = collection.store().backup(&place.path("deep/er/b")).unwrap();
    let info = collection.info().unwrap();
    assert_eq!((report.items, report.change), (59, info.change));
    let copy = Collection::open(&place.path("deep/er/b"), &Mode::write()).unwrap();
    assert_eq!(everything(&copy), everything(&collection));
    let keys = |collection: &Collection| -> Vec<i64> {
        collection.list(&Default::default()).unwrap().iter().map(|stored| stored.key).collect()
    };
    assert_eq!(keys(&copy), keys(&collection));
    copy.remove(&["item 1 \"ü\"\n".into()]).unwrap();
    copy.compact().unwrap();
    assert!(copy.verify().unwrap().is_clean());
    let error = collection.store().backup(&place.path("deep/er/b")).unwrap_err().to_string();
    assert!(error.contains("exists already"), "{error}");
    // A damaged collection has no sound copy.
    let file = place.path("c/vectors/1-1.f32");
    let mut bytes = fs::read(&file).unwrap();
    bytes[64 + 5] ^= 1;
    fs::write(&file, bytes).unwrap();
    let error = collection.store().backup(&place.path("deep/er/d")).unwrap_err().to_string();
    assert!(error.contains("not sound") && error.contains("/c"), "{error}");
    assert_eq!(fs::read_dir(place.path("deep/er")).unwrap().count(), 1);
}

#[test]
fn vectors_are_imported_once_and_changes_followed() {
    let place = Place::new();
    let collection = place.open("c");
    let rows = vectors(30);
    let first = place.import(&rows);
    assert_eq!(counts(&import(&collection, &first)), [30, 0, 0, 0, 0]);
    assert_eq!(counts(&import(&collection, &first)), [0, 0, 0, 30, 0]);
    for (row, expected) in rows.iter().enumerate() {
        assert_eq!(&collection.store().vectors(&row.to_string()).unwrap()[0].vector, expected);
    }
    let metadata = place.text("m.jsonl", "{\"id\": 3, \"n\": 1}\n{\"id\": \"29\"}\n{\"id\": \"no\"}\n");
    let mut changed = rows.clone();
    changed[5][2] = 9.0;
    let second = VectorImport { metadata: Some(metadata), ..place.import(&changed) };
    let report = import(&collection, &second);
    assert_eq!((counts(&report), report.unmatched_metadata), ([0, 1, 1, 28, 0], 1));
    let strict = refused(&collection, &VectorImport { strict: true, ..second });
    assert!(strict.contains("1 rows of the metadata"), "{strict}");
    assert!(collection.verify().unwrap().is_clean());
}

#[test]
fn an_interrupted_import_goes_on() {
    let place = Place::new();
    let collection = place.open("c");
    let request = place.import(&vectors(30));
    let cancel = CancelToken::new();
    let mut progress = |done: usize, all: usize| {
        assert_eq!(all, 30);
        if done >= 14 {
            cancel.cancel();
        }
    };
    let report = import_vectors(&collection, &request, &mut progress, &cancel).unwrap();
    assert!(report.cancelled && report.rows == 14, "{report:?}");
    assert_eq!(counts(&import(&collection, &request)), [16, 0, 0, 14, 0]);
}

#[test]
fn rows_that_cannot_be_compared_are_named() {
    let place = Place::new();
    let mut rows = vectors(10);
    (rows[2][3], rows[5][0]) = (f32::NAN, f32::INFINITY);
    rows[7] = vec![0.0; DIMENSION];
    rows[8] = vec![1e38; DIMENSION];
    let ids = place.path("ids.npy");
    npy::write_texts(&ids, &[10], &["a", "b", "c", "d", "e", "f", "g", "h", "i", "b"]).unwrap();
    let request = VectorImport { ids: Some(ids), metric: Metric::Cosine, ..place.import(&rows) };
    let strict = VectorImport { strict: true, ..request.clone() };
    let error = refused(&place.open("strict"), &strict);
    assert!(error.contains("row 2 (id \"c\") has NaN at position 3 (5 rows in all)"), "{error}");
    assert_eq!(place.open("strict").info().unwrap().items, 0);
    let collection = place.open("c");
    let report = import(&collection, &request);
    assert_eq!(counts(&report), [5, 0, 0, 0, 5]);
    let named: Vec<_> = report.skipped.iter().map(|row| (row.row, row.id.as_str())).collect();
    assert_eq!(named, [(2, "c"), (5, "f"), (7, "h"), (8, "i"), (9, "b")]);
    assert!(report.skipped[4].reason.contains("earlier row"));
    // In other metrics a zero is a vector like any other.
    let euclidean = VectorImport { metric: Metric::Euclidean, ..request };
    assert_eq!(counts(&import(&place.open("e"), &euclidean)), [7, 0, 0, 0, 3]);
}

#[test]
fn files_that_contradict_each_other_are_refused() {
    let place = Place::new();
    let collection = place.open("c");
    let request = place.import(&vectors(10));
    import(&collection, &request);
    let other = place.floats("other.npy", &[vec![1.0; 5]]);
    let five = VectorImport { vectors: other, ..request.clone() };
    assert!(refused(&collection, &five).contains("dimension 12, not 5"));
    let cosine = VectorImport { metric: Metric::Cosine, ..request.clone() };
    assert!(refused(&collection, &cosine).contains("metric inner_product, not cosine"));
    let ids = place.path("ids.npy");
    npy::write(&ids, "<i8", &[3], [[0u8; 8]; 3]).unwrap();
    let error = refused(&collection, &VectorImport { ids: Some(ids), ..request.clone() });
    assert!(error.contains("ids.npy") && error.contains("one id for each of the 10 vectors"), "{error}");
    let metadata = place.text("m.jsonl", "{}\n{}\n");
    let error = refused(&collection, &VectorImport { metadata: Some(metadata), ..request.clone() });
    assert!(error.contains("holds 2 rows without an \"id\""), "{error}");
    collection.store().set_setting("model", &json!("mini")).unwrap();
    assert!(refused(&collection, &request).contains("a collection of their own"));
}

fn search(collection: &Collection, search: &BulkSearch) -> BulkResults {
    search_file(collection, search, &mut |_, _| {}, &CancelToken::new()).unwrap()
}

#[test]
fn bulk_results_equal_exact_scores_in_every_batch_size() {
    let place = Place::new();
    let rows = vectors(40);
    let metadata: String = (0..40).map(|row| format!("{{\"even\": {}}}\n", row % 2 == 0)).collect();
    let request = VectorImport { metadata: Some(place.text("m.jsonl", &metadata)), ..place.import(&rows) };
    let collection = place.open("c");
    import(&collection, &request);
    let queries: Vec<Vec<f32>> = (100..111).map(vector).collect();
    let file = place.floats("q.npy", &queries);
    let even = Filter::equals(FilterPath::metadata("even"), true);
    for filter in [None, Some(even)] {
        for batch_size in [1, 4, 100] {
            let exact = filter.is_none();
            let request =
                BulkSearch { queries: file.clone(), k: 25, effort: None, exact, filter: filter.clone(), batch_size };
            let results = search(&collection, &request);
            let HitIds::Integers(ids) = &results.ids else { panic!("{:?}", results.ids) };
            for (query, (ids, scores)) in queries.iter().zip(ids.chunks(25).zip(results.scores.chunks(25))) {
                let score = |row: usize| rows[row].iter().zip(query).map(|(a, b)| f64::from(a * b)).sum::<f64>();
                let mut expected: Vec<f64> =
                    (0..40).filter(|row| filter.is_none() || row % 2 == 0).map(score).collect();
                expected.sort_by(|a, b| b.total_cmp(a));
                for (place, (id, found)) in ids.iter().zip(scores).enumerate() {
                    match expected.get(place) {
                        None => assert_eq!((*id, *found), (-1, f32::NEG_INFINITY)),
                        Some(best) => {
                            assert!((f64::from(*found) - best).abs() < 1e-4, "{found} is not {best}");
                            assert!((score(*id as usize) - best).abs() < 1e-4);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn bulk_results_are_arrays_of_integers_or_texts() {
    let place = Place::new();
    let collection = place.open("c");
    import(&collection, &place.import(&vectors(3)));
    let queries = place.floats("q.npy", &vectors(2));
    let request = BulkSearch { queries, k: 4, effort: None, exact: false, filter: None, batch_size: 9 };
    let output = place.path("r.npy");
    search(&collection, &request).write(&output).unwrap();
    let bytes = fs::read(&output).unwrap();
    assert!(bytes.windows(5).any(|part| part == b"'<i8'") && bytes.windows(6).any(|part| part == b"(2, 4)"));
    let mut scores = NpyReader::open(&place.path("r.scores.npy")).unwrap();
    assert_eq!((scores.rows(), scores.columns()), (2, 4));
    assert!(scores.floats(2).unwrap()[..3].is_sorted_by(|a, b| a >= b));
    let item = Item::new("näme", "vector");
    let mut vectors = collection.store().vectors("1").unwrap();
    let record = VectorRecord {
        field: "external".into(),
        space: SpaceRef { id: "external".into(), model: String::new() },
        part: 0,
        modality: "vector".into(),
        span: None,
        precision: String::new(),
        cache_key: None,
        vector: vectors.remove(0).vector,
    };
    collection.store().upsert(&[ItemVectors { item, vectors: vec![record] }]).unwrap();
    search(&collection, &request).write(&output).unwrap();
    assert!(fs::read(&output).unwrap().windows(5).any(|part| part == b"'<U4'"));
    let wrong = BulkSearch { queries: place.floats("w.npy", &[vec![1.0; 3]]), ..request };
    let error = search_file(&collection, &wrong, &mut |_, _| {}, &CancelToken::new()).unwrap_err().to_string();
    assert!(error.contains("w.npy") && error.contains("of 3 dimensions, the collection's have 12"), "{error}");
}

fn clip(collection: &Collection, folder: &Path) -> ImportReport {
    let cancel = CancelToken::new();
    import_clip_retrieval(collection, folder, Metric::Cosine, 7, true, &mut |_, _| {}, &cancel).unwrap()
}

#[test]
fn the_layout_of_clip_retrieval_comes_back() {
    let place = Place::new();
    let original = place.open("c");
    rich(&original);
    for half in [false, true] {
        let target = place.path(if half { "half" } else { "full" });
        let exported = export_clip_retrieval(&original, &target, half, false, &mut |_, _| {}, &CancelToken::new());
        assert_eq!(exported.unwrap().items, 53);
        assert!(is_clip_retrieval(&target) && !is_archive(&target));
        let copy = place.open(if half { "half.cm" } else { "full.cm" });
        assert_eq!(counts(&clip(&copy, &target)), [53, 0, 0, 0, 0]);
        assert_eq!(counts(&clip(&copy, &target)), [0, 0, 0, 53, 0]);
        let (_, _, items) = everything(&original);
        for (item, _) in items.iter().filter(|(_, vectors)| !vectors.is_empty()) {
            let stored = copy.store().get(std::slice::from_ref(&item.id)).unwrap().remove(0).unwrap().item;
            assert_eq!(stored.metadata, item.metadata);
            assert_eq!(stored.source.map(|source| source.uri), item.source.clone().map(|source| source.uri));
            let (found, expected) =
                (copy.store().vectors(&item.id).unwrap(), original.store().vectors(&item.id).unwrap());
            for (found, expected) in found[0].vector.iter().zip(&expected[0].vector) {
                assert!((found - expected).abs() <= if half { 1e-3 } else { 0.0 }, "{found} is not {expected}");
            }
        }
    }
    // A second part, of another length than its table.
    let whole = fs::read(place.path("full/metadata/metadata_0.parquet")).unwrap();
    fs::write(place.path("full/metadata/metadata_1.parquet"), whole).unwrap();
    let rows = [vector(1)];
    npy::write(
        &place.path("full/img_emb/img_emb_1.npy"),
        "<f4",
        &[1, DIMENSION],
        rows[0].iter().map(|v| v.to_le_bytes()),
    )
    .unwrap();
    let copy = place.open("wrong.cm");
    let cancel = CancelToken::new();
    let error = import_clip_retrieval(&copy, &place.path("full"), Metric::Cosine, 7, false, &mut |_, _| {}, &cancel)
        .unwrap_err();
    assert!(error.to_string().contains("metadata_1.parquet") && error.to_string().contains("has 53 rows"), "{error}");
    assert_eq!(copy.info().unwrap().items, 0);
}
