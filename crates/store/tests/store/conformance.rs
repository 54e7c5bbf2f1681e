//! The contract of [`VectorStore`], for any store: call [`check_all`] with a function that makes an empty one.

use crossmodal_store::{
    ErrorKind, Field, Filter, FilterPath, Item, ItemVectors, ListRequest, Metric, SearchRequest, Source, Span,
    StoreError, VectorRecord, VectorStore,
};
use serde_json::json;

use crate::sample::{Random, assert_search_is_exact, entries, entry, field, hit_ids, record, space, strings};

type Make<'a> = &'a mut dyn FnMut() -> Box<dyn VectorStore>;

/// Every check, each on a fresh store.
pub fn check_all(make: Make<'_>) {
    let checks: [fn(&dyn VectorStore); 18] = [
        empty_stores_answer,
        items_and_vectors_come_back,
        items_are_found_by_key,
        hits_bring_their_vectors,
        upsert_replaces_all_vectors,
        put_vectors_replaces_one_field,
        touch_keeps_vectors,
        remove_forgets,
        spaces_never_mix,
        wrong_vectors_are_refused_whole,
        wrong_items_are_refused_whole,
        vectors_are_cached_by_content,
        sources_are_found,
        lists_are_paged,
        searches_are_exact,
        one_hit_an_item,
        crate::full_text::words_are_found,
        settings_and_compaction,
    ];
    for check in checks {
        check(&*make());
    }
}

fn count(store: &dyn VectorStore) -> u64 {
    store.count(None).unwrap()
}

fn assert_kind<T: std::fmt::Debug>(result: Result<T, StoreError>, kind: ErrorKind, parts: &[&str]) {
    let error = result.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for part in parts {
        assert!(text.contains(part), "{text:?} does not name {part:?}");
    }
}

fn empty_stores_answer(store: &dyn VectorStore) {
    assert_eq!(count(store), 0);
    assert!(store.fields().unwrap().is_empty());
    assert_eq!(store.get(&strings(&["a"])).unwrap(), [None]);
    assert!(store.vectors("a").unwrap().is_empty());
    assert!(store.list(&ListRequest::default()).unwrap().is_empty());
    assert!(store.cached_vectors(&[[1; 32]]).unwrap().is_empty());
    assert_eq!(store.remove(&strings(&["a"])).unwrap(), 0);
    assert!(store.upsert(&[]).unwrap().is_empty());
    let nearest = store.search(&SearchRequest::new("f", vec![1.0], 1));
    assert_kind(nearest, ErrorKind::NotFound, &["\"f\"", "none"]);
    store.ensure_field(&field("f", 1, Metric::Cosine)).unwrap();
    assert_eq!(store.search(&SearchRequest::new("f", vec![1.0], 3)).unwrap(), [[]]);
    assert_eq!(store.info().unwrap().fields[0].vectors, 0);
}

fn full_entry(id: &str) -> ItemVectors {
    let mut item = Item::new(id, "document");
    item.source = Some(Source { uri: format!("/data/{id}"), size: Some(5), modified_ns: Some(-7) });
    item.content_hash = Some([7; 32]);
    item.metadata = json!({"year": 2020, "tags": ["a", "b"], "ü": null}).as_object().unwrap().clone();
    let picture = VectorRecord { span: Some(Span::Page { number: 2 }), ..record("f", vec![0.6, 0.8]) };
    let span = Some(Span::Text { start: 3, end: 9 });
    let caption = VectorRecord {
        modality: "text".to_owned(),
        precision: "int8".to_owned(),
        cache_key: Some([9; 32]),
        span,
        ..record("f", vec![1.0, 0.0])
    };
    let clip = VectorRecord { part: 3, span: Some(Span::Time { start: 0.5, end: 1.5 }), ..record("g", vec![3.0]) };
    ItemVectors { item, vectors: vec![picture, caption, clip] }
}

fn two_fields(store: &dyn VectorStore) {
    store.ensure_field(&field("f", 2, Metric::Cosine)).unwrap();
    store.ensure_field(&field("g", 1, Metric::InnerProduct)).unwrap();
}

fn items_and_vectors_come_back(store: &dyn VectorStore) {
    two_fields(store);
    let (first, second) = (full_entry("first"), ItemVectors { item: Item::new("second", "text"), vectors: vec![] });
    let keys = store.upsert(&[first.clone(), second.clone()]).unwrap();
    assert!(keys[0] < keys[1]);
    let found = store.get(&strings(&["second", "none", "first"])).unwrap();
    assert_eq!(found[0].as_ref().unwrap().item, second.item);
    assert_eq!((found[1].as_ref(), found[2].as_ref().unwrap().key), (None, keys[0]));
    assert_eq!(found[2].as_ref().unwrap().item, first.item);
    let vectors = store.vectors("first").unwrap();
    assert_eq!(vectors.len(), 3);
    for (vector, record) in vectors.iter().zip(&first.vectors) {
        assert_eq!((&vector.field, vector.part, &vector.modality), (&record.field, record.part, &record.modality));
        assert_eq!((&vector.span, &vector.precision), (&record.span, &record.precision));
        assert_eq!((vector.cache_key, &vector.vector), (record.cache_key, &record.vector));
    }
    let hit = store.search(&SearchRequest::new("g", vec![2.0], 5)).unwrap().remove(0).remove(0);
    assert_eq!((hit.key, hit.score, hit.part, hit.span), (keys[0], 6.0, 3, first.vectors[2].span));
    assert_eq!((hit.modality.as_str(), hit.item), ("image", first.item));
}

fn items_are_found_by_key(store: &dyn VectorStore) {
    assert_eq!(store.get_by_key(&[1, 0, -1, i64::MAX]).unwrap(), [None, None, None, None]);
    two_fields(store);
    let (first, second) = (full_entry("first"), ItemVectors { item: Item::new("second", "text"), vectors: vec![] });
    let keys = store.upsert(&[first.clone(), second.clone()]).unwrap();
    let found = store.get_by_key(&[keys[1], keys[1] + 1, keys[0], keys[1]]).unwrap();
    let items: Vec<_> = found.iter().map(|stored| stored.as_ref().map(|stored| (stored.key, &stored.item))).collect();
    let expected = [(keys[1], &second.item), (keys[0], &first.item)];
    assert_eq!(items, [Some(expected[0]), None, Some(expected[1]), Some(expected[0])]);
    assert!(store.get_by_key(&[]).unwrap().is_empty());
    store.remove(&strings(&["first"])).unwrap();
    assert_eq!(store.get_by_key(&[keys[0]]).unwrap(), [None]);
}

fn hits_bring_their_vectors(store: &dyn VectorStore) {
    two_fields(store);
    store.upsert(&[full_entry("a"), entry("b", "f", vec![0.0, 1.0])]).unwrap();
    let request = SearchRequest::new("f", vec![1.0, 0.2], 5);
    assert!(store.search(&request).unwrap()[0].iter().all(|hit| hit.vector.is_none()));
    for hit in &store.search(&SearchRequest { vectors: true, ..request }).unwrap()[0] {
        let own = store.vectors(&hit.item.id).unwrap();
        let own = own.iter().find(|own| (&own.field[..], own.part, &own.modality) == ("f", hit.part, &hit.modality));
        assert_eq!(hit.vector.as_ref(), own.map(|own| &own.vector), "{}", hit.item.id);
    }
}

fn upsert_replaces_all_vectors(store: &dyn VectorStore) {
    two_fields(store);
    let keys = store.upsert(&[full_entry("a")]).unwrap();
    let again = store.upsert(&[entry("a", "f", vec![0.0, 1.0])]).unwrap();
    assert_eq!((keys, count(store)), (again, 1));
    assert_eq!(store.vectors("a").unwrap().len(), 1);
    let hits = store.search(&SearchRequest::new("f", vec![1.0, 0.0], 5)).unwrap().remove(0);
    assert_eq!((hits.len(), hits[0].score), (1, 0.0));
    assert!(store.search(&SearchRequest::new("g", vec![1.0], 5)).unwrap()[0].is_empty());
}

fn put_vectors_replaces_one_field(store: &dyn VectorStore) {
    two_fields(store);
    let entry = full_entry("a");
    store.upsert(std::slice::from_ref(&entry)).unwrap();
    store.put_vectors(&[("a".to_owned(), vec![record("g", vec![5.0])])]).unwrap();
    let vectors = store.vectors("a").unwrap();
    assert_eq!(vectors.iter().map(|v| (v.field.as_str(), v.part)).collect::<Vec<_>>(), [("f", 0), ("f", 0), ("g", 0)]);
    assert_eq!(store.get(&strings(&["a"])).unwrap()[0].as_ref().unwrap().item, entry.item);
    let unknown = store.put_vectors(&[("b".to_owned(), vec![record("g", vec![5.0])])]);
    assert_kind(unknown, ErrorKind::NotFound, &["\"b\""]);
    assert_eq!(count(store), 1);
}

fn touch_keeps_vectors(store: &dyn VectorStore) {
    two_fields(store);
    let keys = store.upsert(&[full_entry("a")]).unwrap();
    let mut item = Item::new("a", "image");
    item.source = Some(Source { uri: "/moved".to_owned(), size: None, modified_ns: None });
    assert_eq!(store.touch(&[item.clone(), Item::new("missing", "image")]).unwrap(), 1);
    let found = store.get(&strings(&["a", "missing"])).unwrap();
    assert_eq!((found[0].as_ref().unwrap().key, &found[0].as_ref().unwrap().item), (keys[0], &item));
    assert_eq!((&found[1], store.vectors("a").unwrap().len()), (&None, 3));
}

fn remove_forgets(store: &dyn VectorStore) {
    store.ensure_field(&field("f", 4, Metric::Euclidean)).unwrap();
    let keys = store.upsert(&entries("f", 4, 0..10)).unwrap();
    assert_eq!(store.remove(&strings(&["item-3", "none", "item-4", "item-3"])).unwrap(), 2);
    assert_eq!(count(store), 8);
    assert!(store.vectors("item-3").unwrap().is_empty());
    let query = Random::new(3).vector(4);
    let hits = store.search(&SearchRequest::new("f", query, 100)).unwrap().remove(0);
    assert!(hits.len() == 8 && !hit_ids(&hits).contains(&"item-3"));
    let again = store.upsert(&entries("f", 4, 3..4)).unwrap();
    assert!(again[0] > *keys.last().unwrap(), "a key was given twice");
}

fn spaces_never_mix(store: &dyn VectorStore) {
    let wanted = field("f", 2, Metric::Cosine);
    store.ensure_field(&wanted).unwrap();
    store.ensure_field(&wanted).unwrap();
    let other = space("another-model");
    let names = ["\"f\"", "model", "another-model", &wanted.space.id, &other.id];
    let mismatch = ErrorKind::SpaceMismatch;
    assert_kind(store.ensure_field(&Field { space: other.clone(), ..wanted.clone() }), mismatch, &names);
    let mut foreign = entry("b", "f", vec![1.0, 0.0]);
    foreign.vectors[0].space = other.clone();
    assert_kind(store.upsert(&[entry("a", "f", vec![1.0, 0.0]), foreign]), mismatch, &names);
    let request = SearchRequest { space: Some(other.clone()), ..SearchRequest::new("f", vec![1.0, 0.0], 1) };
    assert_kind(store.search(&request), mismatch, &names);
    assert_eq!(count(store), 0, "a part of the batch was kept");
    let input = ErrorKind::InvalidInput;
    assert_kind(store.ensure_field(&Field { dimension: 3, ..wanted.clone() }), input, &["dimension 2", "3"]);
    assert_kind(store.ensure_field(&Field { metric: Metric::Euclidean, ..wanted.clone() }), input, &["cosine"]);
    assert_kind(store.ensure_field(&field("", 3, Metric::Cosine)), input, &["field name"]);
    assert_kind(store.ensure_field(&field("g", 0, Metric::Cosine)), input, &["dimension", "0"]);
    // Another field may have another space: a migration.
    store.ensure_field(&Field { name: "g".to_owned(), space: other, ..wanted }).unwrap();
    assert_eq!(store.fields().unwrap().len(), 2);
}

fn wrong_vectors_are_refused_whole(store: &dyn VectorStore) {
    two_fields(store);
    let refuse = |vector: Vec<f32>, parts: &[&str]| {
        let batch = [entry("good", "f", vec![1.0, 0.0]), entry("bad", "f", vector)];
        assert_kind(store.upsert(&batch), ErrorKind::InvalidInput, parts);
    };
    refuse(vec![1.0], &["\"bad\"", "\"f\"", "has 1 dimensions, expected 2"]);
    refuse(vec![1.0, f32::NAN], &["\"bad\"", "NaN at position 1"]);
    refuse(vec![f32::NEG_INFINITY, 0.0], &["\"bad\"", "-inf at position 0"]);
    refuse(vec![0.0, 0.0], &["\"bad\"", "length 0", "no direction"]);
    assert_kind(store.upsert(&[entry("a", "h", vec![1.0])]), ErrorKind::NotFound, &["\"h\"", "f, g"]);
    let mut twice = full_entry("a");
    twice.vectors.push(twice.vectors[1].clone());
    assert_kind(store.upsert(&[twice]), ErrorKind::InvalidInput, &["\"a\"", "two vectors", "\"text\""]);
    let mut span = entry("a", "f", vec![1.0, 0.0]);
    span.vectors[0].span = Some(Span::Time { start: 2.0, end: 1.0 });
    assert_kind(store.upsert(&[span]), ErrorKind::InvalidInput, &["span", "2", "1"]);
    assert_eq!(count(store), 0, "a part of a refused batch was kept");
    for query in [vec![1.0], vec![0.0, 0.0], vec![f32::NAN, 1.0]] {
        let request = SearchRequest { queries: vec![vec![1.0, 0.0], query], ..SearchRequest::new("f", vec![], 1) };
        assert_kind(store.search(&request), ErrorKind::InvalidInput, &["query 1"]);
    }
}

fn wrong_items_are_refused_whole(store: &dyn VectorStore) {
    let good = ItemVectors { item: Item::new("good", "text"), vectors: vec![] };
    let refuse = |item: Item, parts: &[&str]| {
        let bad = ItemVectors { item: item.clone(), vectors: vec![] };
        assert_kind(store.upsert(&[good.clone(), bad]), ErrorKind::InvalidInput, parts);
        assert_kind(store.touch(&[good.item.clone(), item]), ErrorKind::InvalidInput, parts);
    };
    refuse(Item::new("good", "text"), &["\"good\"", "twice"]);
    refuse(Item::new("", "text"), &["item id", "0 bytes"]);
    refuse(Item::new("x".repeat(5000), "text"), &["item id", "5000 bytes"]);
    refuse(Item::new("a\0b", "text"), &["item id", "NUL"]);
    refuse(Item::new("a", ""), &["modality"]);
    let mut deep = Item::new("deep", "text");
    let nested = (0..200).fold(json!(1), |inner, _| json!([inner]));
    deep.metadata.insert("x".to_owned(), nested);
    refuse(deep, &["\"deep\"", "nested"]);
    let mut huge = Item::new("huge", "text");
    huge.source = Some(Source { uri: "/huge".to_owned(), size: Some(u64::MAX), modified_ns: None });
    refuse(huge, &["source size", "18446744073709551615"]);
    assert_eq!(count(store), 0, "a part of a refused batch was kept");
}

fn cached_entry(id: &str, key: u8, vector: Vec<f32>) -> ItemVectors {
    let mut entry = entry(id, "f", vector);
    entry.vectors[0].cache_key = Some([key; 32]);
    entry
}

fn vectors_are_cached_by_content(store: &dyn VectorStore) {
    if !store.capabilities().vector_cache {
        return;
    }
    store.ensure_field(&field("f", 3, Metric::Cosine)).unwrap();
    store.upsert(&[cached_entry("a", 1, vec![1.0, 2.0, 3.0]), cached_entry("b", 2, vec![0.0, 1.0, 0.0])]).unwrap();
    let found = store.cached_vectors(&[[1; 32], [2; 32], [3; 32], [1; 32]]).unwrap();
    assert_eq!((found.len(), found[&[1; 32]].precision.as_str()), (2, "fp32"));
    let unit = found[&[1; 32]].vector.clone();
    // A vector from the cache is stored again bit for bit.
    store.upsert(&[cached_entry("copy", 1, unit.clone())]).unwrap();
    assert_eq!(store.vectors("copy").unwrap()[0].vector, unit);
    // Removed and replaced items stay in the cache until compaction.
    store.remove(&strings(&["a", "copy"])).unwrap();
    store.upsert(&[cached_entry("b", 4, vec![0.0, 0.0, 1.0])]).unwrap();
    let found = store.cached_vectors(&[[1; 32], [2; 32], [4; 32]]).unwrap();
    assert_eq!((found.len(), &found[&[1; 32]].vector), (3, &unit));
    store.compact().unwrap();
    let found = store.cached_vectors(&[[1; 32], [2; 32], [4; 32]]).unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), [&[4; 32]]);
}

fn sourced(id: &str, uri: &str) -> ItemVectors {
    let mut item = Item::new(id, "image");
    item.source = Some(Source { uri: uri.to_owned(), size: None, modified_ns: None });
    ItemVectors { item, vectors: vec![] }
}

fn sources_are_found(store: &dyn VectorStore) {
    let uris = ["/a/x", "/a/y", "/a", "/ab/z", "/a/\u{10ffff}", "/A/x", "/a/%_", "/a/x"];
    let batch: Vec<_> = uris.iter().enumerate().map(|(i, uri)| sourced(&format!("i{i}"), uri)).collect();
    store.upsert(&batch).unwrap();
    store.upsert(&[ItemVectors { item: Item::new("none", "text"), vectors: vec![] }]).unwrap();
    let ids = |items: Vec<crossmodal_store::StoredItem>| items.into_iter().map(|i| i.item.id).collect::<Vec<_>>();
    assert_eq!(ids(store.lookup_source("/a/x").unwrap()), ["i0", "i7"]);
    assert!(store.lookup_source("/a/").unwrap().is_empty());
    let under = |prefix: &str| {
        ids(store.list(&ListRequest { uri_prefix: Some(prefix.to_owned()), ..ListRequest::default() }).unwrap())
    };
    assert_eq!(under("/a/"), ["i0", "i1", "i4", "i6", "i7"]);
    assert_eq!(under("/a/%"), ["i6"]);
    assert_eq!(under(""), ["i0", "i1", "i2", "i3", "i4", "i5", "i6", "i7"]);
    assert!(under("/zzz").is_empty());
}

fn lists_are_paged(store: &dyn VectorStore) {
    store.ensure_field(&field("f", 1, Metric::InnerProduct)).unwrap();
    store.upsert(&entries("f", 1, 0..25)).unwrap();
    let filter = Filter::equals(FilterPath::Id, "item-7").negated();
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let request = ListRequest { filter: Some(filter.clone()), after, limit: Some(10), ..ListRequest::default() };
        let page = store.list(&request).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.key);
        seen.extend(page.into_iter().map(|item| item.item.id));
    }
    let expected: Vec<_> = (0..25).filter(|i| *i != 7).map(|i| format!("item-{i}")).collect();
    assert_eq!(seen, expected);
    assert!(store.list(&ListRequest { limit: Some(0), ..ListRequest::default() }).unwrap().is_empty());
    assert_eq!(store.count(Some(&filter)).unwrap(), 24);
}

fn searches_are_exact(store: &dyn VectorStore) {
    if !store.capabilities().exact_search {
        return;
    }
    for metric in Metric::ALL {
        let name = metric.as_str();
        store.ensure_field(&field(name, 19, metric)).unwrap();
        let entries = entries(name, 19, 0..300);
        store.upsert(&entries[..200]).unwrap();
        store.upsert(&entries[200..]).unwrap();
        let vectors = || entries.iter().map(|entry| (entry.item.id.as_str(), &entry.vectors[0].vector[..]));
        for (k, seed) in [(1, 1000), (10, 1001), (1000, 1002)] {
            assert_search_is_exact(store, name, metric, k, &Random::new(seed).vector(19), vectors());
        }
    }
    let queries: Vec<_> = (0..9).map(|seed| Random::new(seed).vector(19)).collect();
    let request = SearchRequest { queries: queries.clone(), ..SearchRequest::new("cosine", vec![], 4) };
    let together = store.search(&request).unwrap();
    for (query, hits) in queries.into_iter().zip(&together) {
        assert_eq!(*hits, store.search(&SearchRequest::new("cosine", query, 4)).unwrap()[0]);
    }
    // Upserting all of them thrice took the vectors of the other fields away.
    let found = |field: &str| store.search(&SearchRequest::new(field, vec![1.0; 19], 1000)).unwrap()[0].len();
    assert_eq!((found("cosine"), found("inner_product"), found("euclidean")), (0, 0, 300));
    let limited = SearchRequest { min_score: Some(-2.0), ..SearchRequest::new("euclidean", vec![0.0; 19], 1000) };
    let hits = store.search(&limited).unwrap().remove(0);
    assert!(hits.len() < 300 && hits.iter().all(|hit| hit.score >= -2.0));
    assert!(store.search(&SearchRequest { k: 0, ..limited }).unwrap()[0].is_empty());
}

fn one_hit_an_item(store: &dyn VectorStore) {
    store.ensure_field(&field("f", 8, Metric::InnerProduct)).unwrap();
    let video = |id: usize| {
        let mut entry = entry(&format!("video-{id}"), "f", Random::new(id as u64).vector(8));
        for part in 1..20 {
            let vector = Random::new((id * 100 + part) as u64).vector(8);
            entry.vectors.push(VectorRecord { part: part as u32, ..record("f", vector) });
        }
        entry
    };
    let mut entries: Vec<_> = (0..30).map(video).collect();
    store.upsert(&entries).unwrap();
    entries.remove(0);
    store.remove(&strings(&["video-0"])).unwrap();
    let vectors = || {
        let pairs = |entry: &ItemVectors| {
            entry.vectors.iter().map(|v| (entry.item.id.clone(), v.vector.clone())).collect::<Vec<_>>()
        };
        entries.iter().flat_map(pairs).collect::<Vec<_>>()
    };
    for seed in 500..510 {
        let (query, vectors) = (Random::new(seed).vector(8), vectors());
        let vectors = vectors.iter().map(|(id, vector)| (id.as_str(), &vector[..]));
        assert_search_is_exact(store, "f", Metric::InnerProduct, 7, &query, vectors);
    }
    let filter = Some(Filter::equals(FilterPath::Id, "video-3"));
    let request = SearchRequest { filter, ..SearchRequest::new("f", entries[2].vectors[5].vector.clone(), 7) };
    let hits = store.search(&request).unwrap().remove(0);
    assert_eq!(hit_ids(&hits), ["video-3"]);
}

fn settings_and_compaction(store: &dyn VectorStore) {
    assert_eq!(store.setting("model").unwrap(), None);
    store.set_setting("model", &json!({"name": "x"})).unwrap();
    store.set_setting("model", &json!([1, null])).unwrap();
    assert_eq!(store.setting("model").unwrap(), Some(json!([1, null])));
    assert_kind(store.set_setting("", &json!(1)), ErrorKind::InvalidInput, &["setting name"]);
    store.ensure_field(&field("f", 16, Metric::Cosine)).unwrap();
    let entries = entries("f", 16, 0..100);
    store.upsert(&entries).unwrap();
    store.upsert(&entries[..50]).unwrap();
    let request = SearchRequest::new("f", Random::new(9999).vector(16), 20);
    let (before, info) = (store.search(&request).unwrap(), store.info().unwrap());
    assert_eq!((info.items, info.fields[0].vectors, info.fields[0].dead_vectors), (100, 100, 50));
    if store.capabilities().compact {
        assert_eq!(store.compact().unwrap().dropped_vectors, 50);
        assert_eq!(store.compact().unwrap().dropped_vectors, 0);
        assert_eq!(store.search(&request).unwrap(), before);
        let info = store.info().unwrap();
        assert_eq!((info.items, info.fields[0].vectors, info.fields[0].dead_vectors), (100, 100, 0));
    }
    if store.capabilities().verify {
        let report = store.verify().unwrap();
        assert!(report.is_clean() && report.items == 100 && report.vectors == 100, "{report:?}");
    }
}
