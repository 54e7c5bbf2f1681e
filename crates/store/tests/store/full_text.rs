//! Search by words: what is found, in which order, and that no text is syntax by accident.

use crossmodal_store::{ErrorKind, Filter, Item, ItemVectors, Source, TextRequest, VectorStore};
use serde_json::{Value, json};

use crate::sample::{Random, open_write, strings};

fn add(store: &dyn VectorStore, items: &[(&str, &str, Value)]) {
    let entry = |(id, uri, metadata): &(&str, &str, Value)| {
        let mut item = Item::new(*id, "image");
        item.source = Some(Source { uri: (*uri).to_owned(), size: None, modified_ns: None });
        item.metadata = metadata.as_object().unwrap().clone();
        ItemVectors { item, vectors: vec![] }
    };
    store.upsert(&items.iter().map(entry).collect::<Vec<_>>()).unwrap();
}

fn request(text: &str) -> TextRequest {
    TextRequest { text: text.to_owned(), k: 100, ..TextRequest::default() }
}

fn found(store: &dyn VectorStore, request: &TextRequest) -> Vec<String> {
    let hits = store.search_text(request).unwrap();
    assert!(hits.is_sorted_by(|a, b| a.score > b.score || (a.score == b.score && a.key < b.key)), "{hits:?}");
    assert!(hits.iter().all(|hit| hit.score > 0.0));
    hits.into_iter().map(|hit| hit.item.id).collect()
}

/// Part of the contract of every store that has full text.
pub fn words_are_found(store: &dyn VectorStore) {
    if !store.capabilities().full_text {
        return;
    }
    add(
        store,
        &[
            ("car", "/p/IMG_1.jpg", json!({"caption": "A red car on the road", "year": 2020})),
            ("bus", "/p/big_RedBus.jpg", json!({"year": 2021, "notes": "seen on the road"})),
            ("cafe", "/trips/cafe/2.jpg", json!({"tags": ["Café", "naïve"], "year": 2020})),
            ("cat", "/p/3.jpg", json!({"title": "猫が好き", "info": {"place": "road car"}})),
            ("dog", "/p/4.jpg", json!({"description": "dog", "alt": ["state-of-the-art kennel"]})),
        ],
    );
    let cases: [(&str, &[&str]); 18] = [
        ("car", &["car", "cat"]),
        ("RED", &["car", "bus"]),
        ("cafe", &["cafe"]),
        ("Naive", &["cafe"]),
        ("bus", &["bus"]),
        ("img", &["car"]),
        ("img_1.jpg", &["car"]),
        ("\"red car\"", &["car"]),
        ("\"car red\"", &[]),
        ("\"road car\" kennel", &["dog", "cat"]),
        ("ken*", &["dog"]),
        ("\"of the a\"*", &["dog"]),
        ("ken", &[]),
        ("state-of-the-art", &["dog"]),
        ("好", &["cat"]),
        ("が好", &["cat"]),
        ("好猫", &[]),
        ("missing", &[]),
    ];
    for (text, expected) in cases {
        let mut own = found(store, &request(text));
        if expected.len() == 2 && text != "car" && text != "RED" {
            own.sort();
            let mut expected = strings(expected);
            expected.sort();
            assert_eq!(own, expected, "{text}");
        } else {
            assert_eq!(own, expected, "{text}");
        }
    }
    // More of the words first; filters and pages.
    assert_eq!(found(store, &request("red car road"))[0], "car");
    let filter = Some(Filter::parse("year = 2021").unwrap());
    assert_eq!(found(store, &TextRequest { filter, ..request("road") }), ["bus"]);
    let all = found(store, &request("road jpg"));
    assert_eq!(all.len(), 5);
    let page = |offset, k| found(store, &TextRequest { offset, k, ..request("road jpg") });
    assert_eq!([page(0, 2), page(2, 2), page(4, 2), page(6, 2)].concat(), all);
    assert!(page(0, 0).is_empty());
    // Changes are followed.
    let mut item = store.get(&strings(&["dog"])).unwrap().remove(0).unwrap().item;
    item.metadata.insert("description".to_owned(), json!("wolf"));
    store.touch(&[item]).unwrap();
    store.remove(&strings(&["cat"])).unwrap();
    assert_eq!((found(store, &request("dog")), found(store, &request("wolf"))), (vec![], strings(&["dog"])));
    assert_eq!(found(store, &request("car")), ["car"]);
    if store.capabilities().compact {
        store.compact().unwrap();
        assert_eq!(found(store, &request("car wolf")).len(), 2);
    }
    let error = store.search_text(&request(&"word ".repeat(1000))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("1000 words"), "{error}");
}

#[test]
fn any_text_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_write(&folder.path().join("c"));
    add(&store, &[("a", "/a.jpg", json!({"caption": "near and far or not"})), ("b", "/b.jpg", json!({}))]);
    let pieces = [
        "near", "NEAR(", "AND ", "OR", "NOT ", "\"", "*", "(", ")", ":", "caption:", "-", "^", "+", " ", "{", "}", "'",
        ";", "\0", "\\", "é", "猫", "\u{301}", "\u{e31}", "\u{200d}", "🐈", "a", ",", ".",
    ];
    let mut random = Random::new(3);
    let mut hits = 0;
    for _ in 0..5000 {
        let text: String = (0..random.below(8)).map(|_| pieces[random.below(pieces.len() as u64) as usize]).collect();
        let result = store.search_text(&request(&text));
        hits += result.unwrap_or_else(|error| panic!("{text:?}: {error}")).len();
    }
    assert!(hits > 500, "{hits}");
    for word in ["AND", "OR", "NOT", "near"] {
        assert_eq!(found(&store, &request(word)), ["a"], "{word}");
    }
}
