//! What is derived from items, for filters and full text: format 1 brought up to date, limits, damage and its repair.

use std::path::Path;

use crossmodal_store::{
    Comparison, ErrorKind, Filter, FilterPath, Item, ItemVectors, ListRequest, LocalStore, Metric, OpenOptions,
    ProblemKind, SearchRequest, Source, TextRequest, VectorStore,
};
use serde_json::{Value, json};

use crate::sample::{entries, field, open_read, open_write, strings};

fn item(id: &str, metadata: Value) -> Item {
    let mut item = Item::new(id, "image");
    item.source = Some(Source { uri: format!("/pictures/{id}.jpg"), size: Some(7), modified_ns: Some(8) });
    item.metadata = metadata.as_object().unwrap().clone();
    item
}

fn items() -> Vec<Item> {
    let long = "long ".repeat(40);
    let many: serde_json::Map<_, _> = (0..300).map(|i| (format!("key-{i}"), json!(i))).collect();
    let mut many = Value::Object(many);
    many["x"] = json!([1, "b"]);
    vec![
        item("plain", json!({"x": 1, "caption": "a red car"})),
        item("list", json!({"x": ["b", 2.5, null, true], "y": {"z": "deep"}})),
        item("long-text", json!({"x": long, "tags": ["red", "blue"]})),
        item("long-list", json!({"x": (0..100).collect::<Vec<_>>()})),
        item("many", many),
        item("odd-keys", json!({"a\"b": 1, "a\u{1f}b": 2, "": 3, "x": "nul \u{0} byte"})),
        item("none", json!({})),
    ]
}

fn fill(folder: &Path) -> LocalStore {
    let store = open_write(folder);
    store.ensure_field(&field("f", 4, Metric::Cosine)).unwrap();
    let vectors = entries("f", 4, 0..items().len());
    let batch = items().into_iter().zip(vectors).map(|(item, entry)| ItemVectors { item, ..entry });
    store.upsert(&batch.collect::<Vec<_>>()).unwrap();
    store
}

fn database(folder: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(folder.join("collection.sqlite")).unwrap()
}

/// Takes away what format 2 added: the tables and indexes of format 1 stay as they were.
fn make_version_1(folder: &Path) {
    let sql = "DROP TABLE texts; DROP TABLE attributes; DROP TABLE attribute_paths; DROP INDEX items_by_modality;
               PRAGMA user_version = 1;";
    database(folder).execute_batch(sql).unwrap();
}

fn ids(store: &dyn VectorStore, filter: &Filter) -> Vec<String> {
    let listed = store.list(&ListRequest { filter: Some(filter.clone()), ..ListRequest::default() }).unwrap();
    let request = SearchRequest { filter: Some(filter.clone()), ..SearchRequest::new("f", vec![1.0; 4], 100) };
    let ids: Vec<_> = listed.into_iter().map(|stored| stored.item.id).collect();
    let mut found: Vec<_> = store.search(&request).unwrap().remove(0).into_iter().map(|hit| hit.item.id).collect();
    let mut sorted = ids.clone();
    sorted.sort();
    found.sort();
    assert_eq!(found, sorted, "{filter}");
    ids
}

fn texts(store: &dyn VectorStore, text: &str) -> Vec<String> {
    let request = TextRequest { text: text.to_owned(), k: 100, ..TextRequest::default() };
    store.search_text(&request).unwrap().into_iter().map(|hit| hit.item.id).collect()
}

fn filters() -> Vec<Filter> {
    let texts = [
        "x = 1",
        "x = 2.5",
        "x = b",
        "x != b",
        "x < 3",
        "x > 97",
        "x >= 'a'",
        "x < 'z'",
        "x = true",
        "x != true",
        "x like 'LONG%'",
        "x like '%byte'",
        "exists x",
        "not exists x",
        "x in (99, b)",
        "y.z = deep",
        "exists y",
        "exists missing",
        "not x = 1",
        "\"\" = 3",
        "key-7 = 7",
        "key-7 > 3 and not x = 1",
        "tags = red",
        "size = 7 and x = 1",
        "modified < 9",
        "name = plain.jpg",
        "name like 'LO%'",
        "path like '%list%'",
        "id > m",
        "modality = image",
        "modality = 5",
        "x = 1 or tags = blue",
        "not (x = 1 or tags = blue)",
        "true",
        "false",
    ];
    texts.iter().map(|text| Filter::parse(text).unwrap()).collect()
}

#[test]
fn a_collection_of_format_1_is_read_and_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    let store = fill(&path);
    let expected: Vec<_> = filters().iter().map(|filter| ids(&store, filter)).collect();
    assert!(expected.iter().filter(|ids| !ids.is_empty()).count() > 25);
    drop(store);
    make_version_1(&path);
    // As it is, it can be read; each condition looks at the items themselves.
    let reader = open_read(&path);
    assert_eq!(reader.info().unwrap().format_version, 1);
    for (filter, expected) in filters().iter().zip(&expected) {
        assert_eq!(ids(&reader, filter), *expected, "{filter}");
    }
    let error = reader.search_text(&TextRequest { text: "red".to_owned(), k: 1, ..Default::default() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("open it once for writing"), "{error}");
    assert!(reader.verify().unwrap().is_clean());
    // Opened for writing, it is of the new format, also for the reader that was there before.
    let store = open_write(&path);
    assert!(store.verify().unwrap().is_clean());
    for store in [&store, &reader] {
        assert_eq!(store.info().unwrap().format_version, 2);
        for (filter, expected) in filters().iter().zip(&expected) {
            assert_eq!(ids(store, filter), *expected, "{filter}");
        }
        assert_eq!(texts(store, "red"), ["plain", "long-text"]);
    }
    store.touch(&[item("plain", json!({"x": 5}))]).unwrap();
    assert_eq!(ids(&reader, &Filter::parse("x = 5").unwrap()), ["plain", "long-list"]);
    assert!(texts(&reader, "car").is_empty());
}

#[test]
fn metadata_that_is_not_listed_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let store = fill(&folder.path().join("c"));
    let cases: [(&str, &[&str]); 8] = [
        ("x = 99", &["long-list"]),
        ("x = b", &["list", "many"]),
        ("key-299 = 299", &["many"]),
        ("x like '%long%'", &["long-text"]),
        ("exists x", &["plain", "list", "long-text", "long-list", "many", "odd-keys"]),
        ("x = 1", &["plain", "long-list", "many"]),
        ("\"\" = 3", &["odd-keys"]),
        ("x < 1", &["long-list"]),
    ];
    for (filter, expected) in cases {
        assert_eq!(ids(&store, &Filter::parse(filter).unwrap()), expected, "{filter}");
    }
    store.remove(&strings(&["long-list", "many"])).unwrap();
    assert_eq!(ids(&store, &Filter::parse("x = 1").unwrap()), ["plain"]);
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn what_is_derived_is_checked_and_made_anew() {
    let damage = [
        "DELETE FROM attributes WHERE item = 2",
        "INSERT INTO attributes SELECT path, value, 5 FROM attributes WHERE item = 1",
        "UPDATE attributes SET value = 12 WHERE value = 1",
        "UPDATE attribute_paths SET path = 'xx' WHERE path = 'x'",
        "INSERT INTO attributes VALUES (1, 1, 99)",
        "DELETE FROM texts WHERE rowid = 1",
        "INSERT INTO texts (rowid, name) VALUES (99, 'red')",
        "INSERT OR REPLACE INTO texts (rowid, name, caption, other) VALUES (1, 'plain', 'car', 'a red')",
        "DELETE FROM texts_data WHERE id > 10",
        "UPDATE texts_data SET block = zeroblob(50) WHERE id > 10",
        "DROP TABLE attribute_paths",
    ];
    for sql in damage {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        let store = fill(&path);
        let filter = Filter::parse("x = 1").unwrap();
        let (expected, vectors) = (ids(&store, &filter), store.vectors("plain").unwrap());
        drop(store);
        database(&path).execute_batch(sql).unwrap();
        let report = open_read(&path).verify().unwrap();
        let kinds: Vec<_> = report.problems.iter().map(|problem| problem.kind).collect();
        assert!(kinds.contains(&ProblemKind::Derived) || kinds.contains(&ProblemKind::Database), "{sql}: {report:?}");
        assert!(report.affected_items().is_empty(), "{sql}: items themselves are sound");
        let store = LocalStore::open(&path, &OpenOptions { repair: true, ..OpenOptions::write() }).unwrap();
        assert!(store.repaired_items().is_empty());
        let report = store.verify().unwrap();
        assert!(report.is_clean(), "{sql}: {report:?}");
        assert_eq!((ids(&store, &filter), texts(&store, "car")), (expected, strings(&["plain"])), "{sql}");
        assert_eq!(store.vectors("plain").unwrap(), vectors);
    }
}

#[test]
fn a_damaged_item_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    drop(fill(&path));
    let sql = "UPDATE items SET metadata = '{\"x\": 2}' WHERE id = 'plain'; UPDATE items SET metadata = '{' WHERE id = 'list'";
    database(&path).execute_batch(sql).unwrap();
    let store = open_write(&path);
    assert_eq!(store.verify().unwrap().affected_items(), ["list", "plain"]);
    // Conditions that the damaged items don't meet are answered.
    assert_eq!(store.count(Some(&Filter::parse("tags = red").unwrap())).unwrap(), 1);
    store.touch(&[item("plain", json!({"x": 3, "caption": "a bus"}))]).unwrap();
    store.remove(&strings(&["list"])).unwrap();
    assert!(store.verify().unwrap().is_clean());
    assert_eq!((texts(&store, "car").len(), texts(&store, "bus")), (0, strings(&["plain"])));
}

#[test]
fn sets_of_rows_follow_every_change() {
    let folder = tempfile::tempdir().unwrap();
    let store = fill(&folder.path().join("c"));
    let filter = Filter::parse("exists caption").unwrap();
    assert_eq!((ids(&store, &filter), ids(&store, &filter)), (strings(&["plain"]), strings(&["plain"])));
    store.touch(&[item("none", json!({"caption": "now"}))]).unwrap();
    assert_eq!(ids(&store, &filter), ["plain", "none"]);
    store.remove(&strings(&["plain"])).unwrap();
    assert_eq!(ids(&store, &filter), ["none"]);
    store.compact().unwrap();
    assert_eq!(ids(&store, &filter), ["none"]);
    let vectors = entries("f", 4, 50..60);
    store.upsert(&vectors).unwrap();
    assert_eq!(ids(&store, &filter), ["none"]);
    assert_eq!(ids(&store, &filter.negated()).len(), 15);
    let by_number = Filter::compare(FilterPath::Size, Comparison::GreaterOrEqual, 7);
    assert_eq!(ids(&store, &by_number).len(), 6);
}
