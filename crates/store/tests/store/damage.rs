//! Damaged files: noticed, named, and the rest stays usable.

use std::fs;
use std::path::{Path, PathBuf};

use crossmodal_store::{
    ErrorKind, Item, ItemVectors, LocalStore, Metric, OpenOptions, ProblemKind, SearchRequest, Source, StoreError,
    VectorStore,
};

use crate::sample::{Random, entries, field, hit_ids, open_read, open_write, strings};

const DIMENSION: usize = 8;
const HEADER: usize = 64;

struct Collection {
    _folder: tempfile::TempDir,
    path: PathBuf,
    entries: Vec<ItemVectors>,
}

impl Collection {
    /// Thirty items in rows 0..30.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        let store = open_write(&path);
        store.ensure_field(&field("f", DIMENSION, Metric::InnerProduct)).unwrap();
        let mut entries = entries("f", DIMENSION, 0..30);
        for (i, entry) in entries.iter_mut().enumerate() {
            entry.vectors[0].cache_key = Some([i as u8; 32]);
            entry.item.content_hash = Some([i as u8; 32]);
            let uri = format!("/{i}");
            entry.item.source = Some(Source { uri, size: Some(1), modified_ns: Some(2) });
        }
        store.upsert(&entries).unwrap();
        Self { _folder: folder, path, entries }
    }

    fn vector_file(&self) -> PathBuf {
        self.path.join("vectors/1-1.f32")
    }

    fn change(&self, file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(file).unwrap();
        change(&mut bytes);
        fs::write(file, bytes).unwrap();
    }

    fn open_write(&self) -> Result<LocalStore, StoreError> {
        LocalStore::open(&self.path, &OpenOptions::write())
    }
}

fn search_all(store: &dyn VectorStore) -> Vec<String> {
    let hits = store.search(&SearchRequest::new("f", vec![1.0; DIMENSION], 100)).unwrap().remove(0);
    hit_ids(&hits).iter().map(|id| (*id).to_owned()).collect()
}

#[test]
fn an_uncommitted_tail_is_cut() {
    for tail in [1, 3, DIMENSION * 4, DIMENSION * 40 + 2] {
        let collection = Collection::new();
        let file = collection.vector_file();
        let length = fs::metadata(&file).unwrap().len();
        collection.change(&file, |bytes| bytes.extend(vec![0xab; tail]));
        let reader = open_read(&collection.path);
        assert_eq!(search_all(&reader).len(), 30);
        assert!(reader.verify().unwrap().is_clean());
        let store = collection.open_write().unwrap();
        assert_eq!(fs::metadata(&file).unwrap().len(), length);
        store.upsert(&entries("f", DIMENSION, 30..35)).unwrap();
        assert_eq!((search_all(&store).len(), search_all(&reader).len()), (35, 35));
        assert!(store.verify().unwrap().is_clean());
    }
}

#[test]
fn a_flipped_bit_is_named_and_never_found() {
    let mut random = Random::new(5);
    for _ in 0..20 {
        let collection = Collection::new();
        let row = random.below(30) as usize;
        let at = HEADER + row * DIMENSION * 4 + random.below(DIMENSION as u64 * 4) as usize;
        let bit = random.below(8);
        collection.change(&collection.vector_file(), |bytes| bytes[at] ^= 1 << bit);
        let id = format!("item-{row}");
        // Opening costs no full read, so that damage inside shows when it is met.
        let store = collection.open_write().unwrap();
        let found = search_all(&store);
        assert!(found.len() == 29 && !found.contains(&id), "{row}");
        let error = store.vectors(&id).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.to_string().contains(&id) && error.to_string().contains("1-1.f32"), "{error}");
        assert!(store.cached_vectors(&[[row as u8; 32]]).unwrap().is_empty());
        let report = store.verify().unwrap();
        assert_eq!((report.affected_items(), report.problems.len()), (vec![id.clone()], 1));
        assert_eq!((report.problems[0].kind, report.problems[0].field.as_deref()), (ProblemKind::Checksum, Some("f")));
        // Writing the item again heals it; compaction drops the damaged row.
        store.upsert(&collection.entries[row..=row]).unwrap();
        assert_eq!(search_all(&store).len(), 30);
        store.compact().unwrap();
        assert!(store.verify().unwrap().is_clean());
    }
}

#[test]
fn lost_rows_are_counted_and_the_rest_can_be_read() {
    let collection = Collection::new();
    collection.change(&collection.vector_file(), |bytes| bytes.truncate(HEADER + 20 * DIMENSION * 4 + 5));
    let error = collection.open_write().map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains("holds 20 whole vectors, the collection names 30; 10 are lost"), "{error}");
    let reader = open_read(&collection.path);
    assert_eq!((search_all(&reader).len(), reader.count(None).unwrap()), (20, 30));
    let report = reader.verify().unwrap();
    assert_eq!(report.affected_items().len(), 10);
    assert!(report.problems.iter().any(|problem| problem.kind == ProblemKind::VectorFile));
    repair_and_restore(&collection, 10);
}

#[test]
fn a_lost_or_foreign_vector_file_names_all_items() {
    let changes: [fn(&Path); 4] = [
        |file| fs::remove_file(file).unwrap(),
        |file| fs::write(file, "").unwrap(),
        |file| fs::write(file, "something else entirely".repeat(100)).unwrap(),
        |file| fs::write(file, "short").unwrap(),
    ];
    for change in changes {
        let collection = Collection::new();
        change(&collection.vector_file());
        let reader = open_read(&collection.path);
        let error = reader.search(&SearchRequest::new("f", vec![1.0; DIMENSION], 1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        assert!(error.to_string().contains("1-1.f32"), "{error}");
        assert_eq!(collection.open_write().map(|_| ()).unwrap_err().kind(), ErrorKind::Damaged);
        assert_eq!(reader.get(&strings(&["item-3"])).unwrap()[0].as_ref().unwrap().item, collection.entries[3].item);
        assert_eq!(reader.verify().unwrap().affected_items().len(), 30);
        repair_and_restore(&collection, 30);
    }
}

#[test]
fn a_flipped_header_costs_nothing_after_repair() {
    for at in [0, 9, 12, 17, 25, 40, 60] {
        let collection = Collection::new();
        collection.change(&collection.vector_file(), |bytes| bytes[at] ^= 4);
        assert_eq!(collection.open_write().map(|_| ()).unwrap_err().kind(), ErrorKind::Damaged);
        repair_and_restore(&collection, 0);
    }
}

/// Repairs, checks that just the lost items are to be embedded again, does so, and finds everything.
fn repair_and_restore(collection: &Collection, lost: usize) {
    let store = LocalStore::open(&collection.path, &OpenOptions { repair: true, ..OpenOptions::write() }).unwrap();
    let repaired = store.repaired_items().to_vec();
    assert_eq!((repaired.len(), search_all(&store).len(), store.count(None).unwrap()), (lost, 30 - lost, 30));
    assert!(store.verify().unwrap().is_clean());
    let stale = |item: &Item| item.content_hash.is_none() && item.source.as_ref().unwrap().size.is_none();
    for found in store.get(&repaired).unwrap() {
        assert!(stale(&found.unwrap().item));
    }
    let again: Vec<_> = collection.entries.iter().filter(|e| repaired.contains(&e.item.id)).cloned().collect();
    store.upsert(&again).unwrap();
    drop(store);
    let store = collection.open_write().unwrap();
    assert_eq!(search_all(&store).len(), 30);
    store.compact().unwrap();
    let ids: Vec<_> = collection.entries.iter().map(|entry| entry.item.id.clone()).collect();
    for (found, entry) in store.get(&ids).unwrap().into_iter().zip(&collection.entries) {
        assert_eq!(found.unwrap().item, entry.item);
        assert_eq!(store.vectors(&entry.item.id).unwrap()[0].vector, entry.vectors[0].vector);
    }
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn a_changed_item_is_named() {
    let collection = Collection::new();
    let database = rusqlite::Connection::open(collection.path.join("collection.sqlite")).unwrap();
    database.execute("UPDATE items SET modality = 'imagf' WHERE id = 'item-4'", []).unwrap();
    database.execute("UPDATE items SET metadata = '{' WHERE id = 'item-5'", []).unwrap();
    drop(database);
    let store = collection.open_write().unwrap();
    assert_eq!(store.verify().unwrap().affected_items(), ["item-4", "item-5"]);
    assert_eq!(store.get(&strings(&["item-5"])).unwrap_err().kind(), ErrorKind::Damaged);
    assert!(store.get(&strings(&["item-6"])).unwrap()[0].is_some());
    store.upsert(&collection.entries).unwrap();
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn damaged_database_pages_are_errors_not_panics() {
    let mut random = Random::new(11);
    for _ in 0..40 {
        let collection = Collection::new();
        let file = collection.path.join("collection.sqlite");
        collection.change(&file, |bytes| {
            for _ in 0..30 {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = random.next() as u8;
            }
        });
        // Any clear error or a report will do: nothing may panic or hang.
        if let Ok(store) = LocalStore::open(&collection.path, &OpenOptions::read()) {
            let _ = (store.info().is_ok(), store.verify().is_ok(), store.vectors("item-3").is_ok());
            let _ = store.search(&SearchRequest::new("f", vec![1.0; DIMENSION], 5)).is_ok();
            let _ = store.list(&Default::default()).is_ok();
        }
        if let Ok(store) = collection.open_write() {
            let _ = (store.upsert(&collection.entries).is_ok(), store.compact().is_ok());
        }
    }
}
