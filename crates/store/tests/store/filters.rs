//! Filters: every kind of condition against every kind of value, missing ones included.

use crossmodal_store::{
    Comparison, ErrorKind, Filter, FilterPath, FilterValue, Item, ItemVectors, ListRequest, LocalStore, Metric,
    SearchRequest, Source, VectorStore,
};
use serde_json::{Value, json};

use crate::sample::{field, hit_ids, open_write, record};

/// Items named by what `x` is in their metadata.
const VALUES: &str = r#"{
    "missing": null, "null": {"x": null}, "three": {"x": 3}, "three-real": {"x": 3.0}, "half": {"x": 3.5},
    "big": {"x": 9007199254740993}, "text": {"x": "b"}, "text-3": {"x": "3"}, "quote": {"x": "it's \"b\" %_\\ é"},
    "upper": {"x": "B"}, "empty": {"x": ""}, "true": {"x": true}, "false": {"x": false}, "list": {"x": [1, "b", null]},
    "empty-list": {"x": []}, "object": {"x": {"y": 3, "z": {"deep key": "v"}}}, "nested-list": {"x": [[3]]}
}"#;

fn store_with_values() -> (tempfile::TempDir, LocalStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = open_write(&folder.path().join("c"));
    store.ensure_field(&field("f", 1, Metric::InnerProduct)).unwrap();
    let values: Value = serde_json::from_str(VALUES).unwrap();
    let entries = values.as_object().unwrap().iter().enumerate().map(|(i, (id, metadata))| {
        let mut item = Item::new(id, if i % 2 == 0 { "image" } else { "text" });
        item.metadata = metadata.as_object().cloned().unwrap_or_default();
        if i == 2 {
            item.source = Some(Source { uri: "/Cats/1".to_owned(), size: Some(100), modified_ns: Some(-5) });
        }
        if i == 3 {
            item.source = Some(Source { uri: "/dogs/2".to_owned(), size: None, modified_ns: None });
        }
        ItemVectors { item, vectors: vec![record("f", vec![1.0])] }
    });
    store.upsert(&entries.collect::<Vec<_>>()).unwrap();
    (folder, store)
}

fn matching(store: &LocalStore, filter: &Filter) -> Vec<String> {
    let listed = store.list(&ListRequest { filter: Some(filter.clone()), ..ListRequest::default() }).unwrap();
    let listed: Vec<_> = listed.into_iter().map(|item| item.item.id).collect();
    assert_eq!(store.count(Some(filter)).unwrap(), listed.len() as u64);
    let request = SearchRequest { filter: Some(filter.clone()), ..SearchRequest::new("f", vec![1.0], 100) };
    assert_eq!(hit_ids(&store.search(&request).unwrap()[0]), listed, "search and list differ for {filter:?}");
    listed
}

fn x() -> FilterPath {
    FilterPath::metadata("x")
}

fn compare(op: Comparison, value: impl Into<FilterValue>) -> Filter {
    Filter::compare(x(), op, value)
}

#[test]
fn comparisons_know_kinds_and_missing_values() {
    use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    let (_folder, store) = store_with_values();
    let cases: [(Filter, &[&str]); 22] = [
        (compare(Equal, 3), &["three", "three-real"]),
        (compare(Equal, 3.0), &["three", "three-real"]),
        (compare(Equal, 3.5), &["half"]),
        (compare(Equal, 9_007_199_254_740_993), &["big"]),
        (compare(Equal, 9_007_199_254_740_992), &[]),
        (compare(NotEqual, 3), &["half", "big", "list"]),
        (compare(Less, 3.5), &["three", "three-real", "list"]),
        (compare(LessOrEqual, 3.5), &["three", "three-real", "half", "list"]),
        (compare(Greater, 3), &["half", "big"]),
        (compare(GreaterOrEqual, 3), &["three", "three-real", "half", "big"]),
        (compare(Equal, "b"), &["text", "list"]),
        (compare(Equal, "3"), &["text-3"]),
        (compare(Equal, "it's \"b\" %_\\ é"), &["quote"]),
        (compare(Equal, ""), &["empty"]),
        (compare(Less, "b"), &["text-3", "upper", "empty"]),
        (compare(NotEqual, "b"), &["text-3", "quote", "upper", "empty"]),
        (compare(Equal, true), &["true"]),
        (compare(NotEqual, true), &["false"]),
        (compare(Less, true), &[]),
        (compare(Equal, false), &["false"]),
        (Filter::equals(FilterPath::metadata("absent"), 1), &[]),
        (Filter::equals(FilterPath::Metadata(vec!["x".into(), "y".into()]), 3), &["object"]),
    ];
    for (filter, expected) in cases {
        assert_eq!(matching(&store, &filter), expected, "{filter:?}");
    }
}

#[test]
fn not_is_the_exact_complement() {
    let (_folder, store) = store_with_values();
    let like = |path, pattern: &str| Filter::Like { path, pattern: pattern.to_owned() };
    let filters = [
        compare(Comparison::Equal, 3),
        compare(Comparison::NotEqual, "b"),
        compare(Comparison::Less, false),
        Filter::Exists { path: x() },
        Filter::In { path: x(), values: vec![3.into(), "b".into()] },
        like(x(), "%b%"),
        Filter::equals(FilterPath::Uri, "/Cats/1"),
        Filter::compare(FilterPath::Size, Comparison::Less, 1000),
        Filter::equals(FilterPath::Size, "100"),
        like(FilterPath::Uri, "%"),
        Filter::And(vec![]),
        Filter::Or(vec![]),
    ];
    let all = matching(&store, &Filter::And(vec![]));
    assert_eq!(all.len(), 17);
    for filter in filters {
        let (yes, no) = (matching(&store, &filter), matching(&store, &filter.clone().negated()));
        assert!(all.iter().all(|id| yes.contains(id) != no.contains(id)), "{filter:?}");
        assert_eq!(matching(&store, &filter.clone().negated().negated()), yes);
    }
}

#[test]
fn existence_lists_and_patterns() {
    let (_folder, store) = store_with_values();
    let like = |pattern: &str| Filter::Like { path: x(), pattern: pattern.to_owned() };
    let within = |values: Vec<FilterValue>| Filter::In { path: x(), values };
    let cases: [(Filter, &[&str]); 12] = [
        (Filter::Exists { path: x() }.negated(), &["missing", "null"]),
        (Filter::Exists { path: FilterPath::Uri }, &["three", "three-real"]),
        (Filter::Exists { path: FilterPath::Size }, &["three"]),
        (within(vec![]), &[]),
        (within(vec![3.into(), "B".into(), true.into()]), &["three", "three-real", "upper", "true"]),
        (within(vec![3.5.into(), false.into(), true.into()]), &["half", "true", "false"]),
        (like("b"), &["text", "upper", "list"]),
        (like("%\\%\\_\\\\%"), &["quote"]),
        (like("_"), &["text", "text-3", "upper", "list"]),
        (like("%É"), &[]),
        (like("%é"), &["quote"]),
        (Filter::Like { path: FilterPath::Uri, pattern: "%/cats/%".to_owned() }, &["three"]),
    ];
    for (filter, expected) in cases {
        assert_eq!(matching(&store, &filter), expected, "{filter:?}");
    }
}

#[test]
fn built_in_fields_and_combinations() {
    let (_folder, store) = store_with_values();
    let modality = |name: &str| Filter::equals(FilterPath::Modality, name);
    let deep = FilterPath::Metadata(vec!["x".into(), "z".into(), "deep key".into()]);
    let cases: [(Filter, &[&str]); 7] = [
        (Filter::compare(FilterPath::Id, Comparison::Less, "emptz"), &["big", "empty", "empty-list"]),
        (Filter::And(vec![modality("image"), compare(Comparison::Equal, 3)]), &["three"]),
        (Filter::Or(vec![modality("none"), compare(Comparison::Equal, 3), modality("none")]), &["three", "three-real"]),
        (Filter::compare(FilterPath::Size, Comparison::Greater, 99.5), &["three"]),
        (Filter::equals(FilterPath::Modified, -5), &["three"]),
        (Filter::In { path: FilterPath::Size, values: vec![100.into(), "x".into(), true.into()] }, &["three"]),
        (Filter::equals(deep, "v"), &["object"]),
    ];
    for (filter, expected) in cases {
        assert_eq!(matching(&store, &filter), expected, "{filter:?}");
    }
}

#[test]
fn hostile_filters_are_data_or_refused() {
    let (_folder, store) = store_with_values();
    let hostile = "'; DROP TABLE items; --";
    assert!(matching(&store, &compare(Comparison::Equal, hostile)).is_empty());
    assert!(matching(&store, &Filter::equals(FilterPath::metadata(hostile), 1)).is_empty());
    assert!(matching(&store, &Filter::equals(FilterPath::metadata("x') OR 1=1 --"), 1)).is_empty());
    let wide = |n| Filter::Or((0..n).map(|i| Filter::equals(FilterPath::Id, i)).collect());
    assert!(matching(&store, &wide(4000)).is_empty());
    let texts = (0..50_000).map(|i| FilterValue::from(i.to_string().as_str())).collect();
    assert_eq!(matching(&store, &Filter::In { path: x(), values: texts }), ["text-3"]);
    let deep = |n| (0..n).fold(compare(Comparison::Equal, 3), |inner, _| inner.negated());
    assert_eq!(matching(&store, &deep(98)), ["three", "three-real"]);
    let refused = [
        (wide(6000), "more than 5000 conditions"),
        (deep(1000), "deeper than 100"),
        (compare(Comparison::Equal, f64::NAN), "NaN"),
        (Filter::In { path: x(), values: vec![f64::INFINITY.into()] }, "inf"),
        (Filter::equals(FilterPath::Metadata(vec![]), 1), "no metadata key"),
        (Filter::equals(FilterPath::metadata("a\"b"), 1), "a\\\"b"),
        (Filter::Like { path: x(), pattern: "a\\".to_owned() }, "ends with"),
        (Filter::Like { path: x(), pattern: "a".repeat(20_000) }, "20000 bytes"),
    ];
    for (filter, part) in refused {
        let error = store.count(Some(&filter)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(store.count(None).unwrap(), 17);
}

#[test]
fn odd_numbers_equal_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_write(&folder.path().join("c"));
    let mut random = crate::sample::Random::new(77);
    let mut numbers = vec![0.1, -0.0, 1e-300, 5e-324, 1.797_693_134_862_315_7e308, 0.1 + 0.2];
    numbers.extend((0..200).map(|_| f64::from_bits(random.next())).filter(|number| number.is_finite()));
    let entries = numbers.iter().enumerate().map(|(i, number)| {
        let mut item = Item::new(i.to_string(), "text");
        item.metadata.insert("x".to_owned(), json!(number));
        ItemVectors { item, vectors: vec![] }
    });
    store.upsert(&entries.collect::<Vec<_>>()).unwrap();
    for number in numbers {
        for filter in [compare(Comparison::Equal, number), Filter::In { path: x(), values: vec![number.into()] }] {
            assert_eq!(store.count(Some(&filter)).unwrap(), 1, "{number:e}");
        }
    }
}

#[test]
fn filters_survive_serialization() {
    let filter = Filter::And(vec![
        compare(Comparison::GreaterOrEqual, 2.5),
        Filter::In { path: FilterPath::Modality, values: vec!["a".into(), 1.into(), true.into()] }.negated(),
        Filter::Exists { path: FilterPath::Uri },
    ]);
    let text = serde_json::to_string(&filter).unwrap();
    assert_eq!(serde_json::from_str::<Filter>(&text).unwrap(), filter, "{text}");
}
