//! What can be opened, by whom, and what is left alone.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crossmodal_store::{ErrorKind, LocalStore, Metric, OpenOptions, SearchRequest, StoreError, VectorStore};

use crate::sample::{entries, entry, field, open_read, open_write, strings};

fn open(folder: &Path, options: &OpenOptions) -> StoreError {
    LocalStore::open(folder, options).map(|_| ()).unwrap_err()
}

fn listing(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn what_is_not_a_collection_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (missing, file, other) = (folder.path().join("no"), folder.path().join("file"), folder.path().join("other"));
    fs::write(&file, "text").unwrap();
    fs::create_dir(&other).unwrap();
    fs::write(other.join("photo.jpg"), "x").unwrap();
    let existing = OpenOptions { create: false, ..OpenOptions::write() };
    for options in [OpenOptions::read(), existing] {
        let error = open(&missing, &options);
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains(missing.to_str().unwrap()), "{error}");
    }
    for options in [OpenOptions::read(), OpenOptions::write()] {
        assert!(open(&file, &options).to_string().contains("it is a file"));
        assert_eq!(open(&file.join("inside"), &options).kind(), ErrorKind::NotACollection);
        let error = open(&other, &options);
        assert_eq!(error.kind(), ErrorKind::NotACollection);
        assert!(error.to_string().contains("photo.jpg"), "{error}");
    }
    assert_eq!((listing(folder.path()), listing(&other)), (strings(&["file", "other"]), strings(&["photo.jpg"])));
}

#[test]
fn databases_of_others_and_of_the_future_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let foreign = folder.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    let database = rusqlite::Connection::open(foreign.join("collection.sqlite")).unwrap();
    database.execute_batch("CREATE TABLE t (x); PRAGMA application_id = 5;").unwrap();
    drop(database);
    let future = folder.path().join("future");
    drop(open_write(&future));
    let database = rusqlite::Connection::open(future.join("collection.sqlite")).unwrap();
    database.execute_batch("PRAGMA user_version = 99;").unwrap();
    drop(database);
    let garbage = folder.path().join("garbage");
    fs::create_dir(&garbage).unwrap();
    fs::write(garbage.join("collection.sqlite"), "no database".repeat(1000)).unwrap();
    let cases = [
        (&foreign, ErrorKind::NotACollection, "application id 5"),
        (&future, ErrorKind::NewerVersion, "version 99, this program knows up to 2"),
        (&garbage, ErrorKind::Damaged, "not a database"),
    ];
    for (folder, kind, part) in cases {
        let before = fs::read(folder.join("collection.sqlite")).unwrap();
        for options in [OpenOptions::read(), OpenOptions::write()] {
            let error = open(folder, &options);
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(part), "{error}");
            assert!(error.to_string().contains(folder.to_str().unwrap()), "{error}");
        }
        assert_eq!(fs::read(folder.join("collection.sqlite")).unwrap(), before);
    }
}

#[test]
fn a_creation_that_was_cut_off_begins_again() {
    let folder = tempfile::tempdir().unwrap();
    let prepare: [fn(&Path); 5] = [
        |_| {},
        |folder| fs::create_dir(folder).unwrap(),
        |folder| fs::create_dir_all(folder.join("vectors")).unwrap(),
        |folder| {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("collection.lock"), "17\n").unwrap();
            fs::write(folder.join("collection.sqlite"), "").unwrap();
        },
        |folder| {
            fs::create_dir(folder).unwrap();
            let database = rusqlite::Connection::open(folder.join("collection.sqlite")).unwrap();
            database.pragma_update(None, "journal_mode", "wal").unwrap();
        },
    ];
    for (i, prepare) in prepare.iter().enumerate() {
        let folder = folder.path().join(i.to_string());
        prepare(&folder);
        assert_eq!(open(&folder, &OpenOptions::read()).kind(), ErrorKind::NotFound, "{i}");
        let store = open_write(&folder);
        store.ensure_field(&field("f", 2, Metric::Cosine)).unwrap();
        store.upsert(&[entry("a", "f", vec![1.0, 0.0])]).unwrap();
        drop(store);
        assert_eq!(open_read(&folder).count(None).unwrap(), 1, "{i}");
    }
}

#[test]
fn a_second_writer_is_refused_or_waits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    let store = open_write(&path);
    let error = open(&path, &OpenOptions::write());
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    let wait = |milliseconds| OpenOptions { wait: Some(Duration::from_millis(milliseconds)), ..OpenOptions::write() };
    let start = Instant::now();
    assert!(open(&path, &wait(150)).to_string().contains("waited 0."));
    assert!(start.elapsed() >= Duration::from_millis(150));
    let waiting = std::thread::spawn({
        let path = path.clone();
        move || LocalStore::open(&path, &wait(20_000)).map(|store| store.count(None).unwrap())
    });
    std::thread::sleep(Duration::from_millis(100));
    store.ensure_field(&field("f", 2, Metric::Cosine)).unwrap();
    store.upsert(&[entry("a", "f", vec![1.0, 0.0])]).unwrap();
    drop(store);
    assert_eq!(waiting.join().unwrap().unwrap(), 1);
}

#[test]
fn readers_see_every_commit_and_cannot_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    let writer = open_write(&path);
    let reader = open_read(&path);
    assert_eq!(reader.count(None).unwrap(), 0);
    writer.ensure_field(&field("f", 4, Metric::Cosine)).unwrap();
    let entries = entries("f", 4, 0..40);
    let found = || reader.search(&SearchRequest::new("f", vec![1.0; 4], 100)).unwrap()[0].len();
    for (i, batch) in entries.chunks(10).enumerate() {
        writer.upsert(batch).unwrap();
        assert_eq!(found(), (i + 1) * 10);
    }
    writer.remove(&strings(&["item-1"])).unwrap();
    assert_eq!(found(), 39);
    writer.compact().unwrap();
    assert_eq!(found(), 39);
    let refused = [
        reader.upsert(&entries).map(|_| ()),
        reader.remove(&strings(&["item-2"])).map(|_| ()),
        reader.ensure_field(&field("g", 4, Metric::Cosine)),
        reader.compact().map(|_| ()),
        reader.touch(&[entries[0].item.clone()]).map(|_| ()),
        reader.set_setting("a", &serde_json::json!(1)),
    ];
    for result in refused {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnly);
        assert!(error.to_string().contains("opened for reading"), "{error}");
    }
    reader.ensure_field(&field("f", 4, Metric::Cosine)).unwrap();
    assert!(reader.verify().unwrap().is_clean());
}

#[test]
fn odd_folder_names_work() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["with space", "100%?#&x=1", "naïve 画像", "quote'\"", "a:b"] {
        let path = folder.path().join(name);
        let store = open_write(&path);
        store.ensure_field(&field("f", 2, Metric::Cosine)).unwrap();
        store.upsert(&[entry("a", "f", vec![1.0, 0.0])]).unwrap();
        drop(store);
        assert_eq!(open_read(&path).search(&SearchRequest::new("f", vec![1.0, 0.0], 1)).unwrap()[0].len(), 1);
    }
}
