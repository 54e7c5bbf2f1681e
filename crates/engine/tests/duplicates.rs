//! Duplicates: exact copies, near ones, chains, and which one stays.

use crossmodal_engine::duplicates::{DuplicateReport, KeepReason, find};
use crossmodal_engine::{CancelToken, Collection, Item, Metric, Mode, Source};
use crossmodal_store::{Field, ItemVectors, SpaceRef, VectorRecord, VectorStore};

const DIMENSION: usize = 80;

/// A unit vector in a plane of its own, turned by an angle.
fn turned(plane: usize, degrees: f64) -> Vec<f32> {
    let mut vector = vec![0.0; DIMENSION];
    (vector[plane * 2], vector[plane * 2 + 1]) = (degrees.to_radians().cos() as f32, degrees.to_radians().sin() as f32);
    vector
}

struct Entry {
    id: &'static str,
    content: Option<u8>,
    size: Option<u64>,
    sides: Option<(u64, u64)>,
    vectors: Vec<Vec<f32>>,
}

fn entry(id: &'static str, vector: Vec<f32>) -> Entry {
    Entry { id, content: None, size: None, sides: None, vectors: vec![vector] }
}

fn report(entries: Vec<Entry>, threshold: f32) -> DuplicateReport {
    let folder = tempfile::tempdir().unwrap();
    let collection = Collection::open(&folder.path().join("c"), &Mode::write()).unwrap();
    let space = SpaceRef { id: "s".into(), model: "m".into() };
    let field = Field { name: "default".into(), space: space.clone(), dimension: DIMENSION, metric: Metric::Cosine };
    collection.store().ensure_field(&field).unwrap();
    let stored = |entry: Entry| {
        let mut item = Item::new(entry.id, "image");
        item.content_hash = entry.content.map(|byte| [byte; 32]);
        item.source = entry.size.map(|size| Source { uri: entry.id.into(), size: Some(size), modified_ns: None });
        if let Some((width, height)) = entry.sides {
            item.metadata.insert("width".into(), width.into());
            item.metadata.insert("height".into(), height.into());
        }
        let vectors = entry.vectors.into_iter().enumerate().map(|(part, vector)| VectorRecord {
            field: "default".into(),
            space: space.clone(),
            part: part as u32,
            modality: "image".into(),
            span: None,
            precision: String::new(),
            cache_key: None,
            vector,
        });
        ItemVectors { item, vectors: vectors.collect() }
    };
    collection.store().upsert(&entries.into_iter().map(stored).collect::<Vec<_>>()).unwrap();
    find(&collection, threshold, &CancelToken::new()).unwrap()
}

fn ids(report: &DuplicateReport) -> Vec<Vec<&str>> {
    report.groups.iter().map(|group| group.items.iter().map(|item| item.stored.item.id.as_str()).collect()).collect()
}

#[test]
fn groups_are_chains_of_near_items_and_equal_content() {
    let entries = || {
        vec![
            entry("a0", turned(0, 0.0)),
            entry("a1", turned(0, 10.0)),
            entry("a2", turned(0, 20.0)),
            entry("far", turned(0, 60.0)),
            // Equal content, vectors of two models' making or none at all.
            Entry { content: Some(1), ..entry("copy1", turned(1, 0.0)) },
            Entry { content: Some(1), ..entry("copy2", turned(2, 0.0)) },
            Entry { content: Some(1), vectors: Vec::new(), ..entry("copy3", Vec::new()) },
            entry("alone", turned(3, 0.0)),
            // Several vectors of one item are no duplicates of each other.
            Entry { vectors: vec![turned(4, 0.0), turned(4, 1.0), turned(5, 0.0)], ..entry("film", Vec::new()) },
            Entry { vectors: vec![turned(6, 0.0), turned(5, 2.0)], ..entry("cut", Vec::new()) },
        ]
    };
    let found = report(entries(), 0.98);
    assert_eq!(found.items, 10);
    assert_eq!(ids(&found), [vec!["a0", "a1", "a2"], vec!["copy1", "copy2", "copy3"], vec!["film", "cut"]]);
    assert_eq!(found.surplus(), 5);
    let near = &found.groups[0].items;
    assert!((near[2].similarity - 20f32.to_radians().cos()).abs() < 1e-6 && !near[2].exact, "{near:?}");
    assert!(found.groups[1].items.iter().all(|item| item.exact && item.similarity == 1.0));
    assert!((found.groups[2].items[1].similarity - 2f32.to_radians().cos()).abs() < 1e-6);
    // Ten degrees have a cosine of 0.9848.
    assert_eq!(ids(&report(entries(), 0.985)).len(), 2);
    assert_eq!(ids(&report(entries(), 0.4))[0], ["a0", "a1", "a2", "far"]);
}

#[test]
fn the_best_of_a_group_is_kept() {
    let same = |id, size, sides| Entry { size, sides, ..entry(id, turned(0, 0.0)) };
    let kept = |entries| {
        let report = report(entries, 0.97);
        (report.groups[0].items[0].stored.item.id.clone(), report.groups[0].reason)
    };
    let large = vec![same("a", Some(9), Some((10, 10))), same("b", Some(5), Some((20, 10))), same("c", None, None)];
    assert_eq!(kept(large), ("b".into(), KeepReason::Resolution));
    let heavy = vec![same("a", Some(4), None), same("b", Some(5), None), same("c", None, None)];
    assert_eq!(kept(heavy), ("b".into(), KeepReason::Size));
    let sized = vec![same("a", Some(4), Some((3, 2))), same("b", Some(5), Some((2, 3)))];
    assert_eq!(kept(sized), ("b".into(), KeepReason::Size));
    let equal = vec![same("a", Some(4), None), same("b", Some(4), None)];
    assert_eq!(kept(equal), ("a".into(), KeepReason::First));
    assert_eq!(kept(vec![same("a", None, None), same("b", None, None)]), ("a".into(), KeepReason::First));
}

#[test]
fn thresholds_out_of_range_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let collection = Collection::open(&folder.path().join("c"), &Mode::write()).unwrap();
    for threshold in [-0.1, 1.1, f32::NAN] {
        let error = find(&collection, threshold, &CancelToken::new()).unwrap_err().to_string();
        assert!(error.contains("a cosine from 0 to 1"), "{error}");
    }
    assert!(find(&collection, 0.9, &CancelToken::new()).is_err(), "there are no vectors to compare");
}
