//! Searches by given vectors, without a model; and confidence that is kept while a collection doesn't change.

use crossmodal_engine::{
    Collection, ErrorKind, Filter, Found, GroupBy, Input, Item, LoadOptions, Metric, Mode, Part, Query, Ranking,
    SearchOptions, load,
};
use crossmodal_store::{Field, ItemVectors, SpaceRef, VectorRecord, VectorStore};

const DIMENSION: usize = 12;
const ITEMS: usize = 300;

fn vector(seed: usize, dimension: usize) -> Vec<f32> {
    let mut state = seed as u64 * 77 + 5;
    let mut value = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..dimension).map(|_| value()).collect()
}

fn entry(number: usize, field: &str, space: &SpaceRef, dimension: usize) -> ItemVectors {
    let mut item = Item::new(format!("{number}"), "image");
    item.metadata.insert("even".into(), number.is_multiple_of(2).into());
    let record = VectorRecord {
        field: field.into(),
        space: space.clone(),
        part: 0,
        modality: "image".into(),
        span: None,
        precision: "fp32".into(),
        cache_key: None,
        vector: vector(number, dimension),
    };
    ItemVectors { item, vectors: vec![record] }
}

/// A collection of vectors that come from elsewhere.
fn external(dir: &tempfile::TempDir, metric: Metric) -> Collection {
    let collection = Collection::open(&dir.path().join(metric.as_str()), &Mode::write()).unwrap();
    let space = SpaceRef { id: "elsewhere".into(), model: "elsewhere".into() };
    let field = Field { name: "given".into(), space: space.clone(), dimension: DIMENSION, metric };
    collection.store().ensure_field(&field).unwrap();
    let items: Vec<ItemVectors> = (0..ITEMS).map(|number| entry(number, "given", &space, DIMENSION)).collect();
    collection.store().upsert(&items).unwrap();
    collection
}

fn search(collection: &Collection, query: Query, options: &SearchOptions) -> Vec<Found> {
    collection.search_vectors(&[query], options).unwrap().remove(0)
}

fn ids(found: &[Found]) -> Vec<&str> {
    found.iter().map(|found| found.hit.item.id.as_str()).collect()
}

/// From the definition, in double precision.
fn score(metric: Metric, query: &[f32], number: usize) -> f64 {
    let row = vector(number, DIMENSION);
    let pairs = || query.iter().zip(&row).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let dot: f64 = pairs().map(|(a, b)| a * b).sum();
    match metric {
        Metric::Cosine => {
            let (aa, bb) = pairs().fold((0.0, 0.0), |(aa, bb), (a, b)| (aa + a * a, bb + b * b));
            dot / (aa * bb).sqrt()
        }
        Metric::InnerProduct => dot,
        Metric::Euclidean => -pairs().map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt(),
    }
}

fn exact(metric: Metric, query: &[f32], k: usize) -> Vec<String> {
    let mut scores: Vec<(f64, usize)> = (0..ITEMS).map(|number| (score(metric, query, number), number)).collect();
    scores.sort_by(|a, b| b.0.total_cmp(&a.0));
    scores[..k].iter().map(|(_, number)| number.to_string()).collect()
}

#[test]
fn vectors_find_their_nearest_in_every_metric() {
    let dir = tempfile::tempdir().unwrap();
    for metric in [Metric::Cosine, Metric::InnerProduct, Metric::Euclidean] {
        let collection = external(&dir, metric);
        let (a, b) = (vector(1_000, DIMENSION), vector(1_001, DIMENSION));
        let found = search(&collection, Query::vector(a.clone()), &SearchOptions::top(20));
        assert_eq!(ids(&found), exact(metric, &a, 20), "{metric:?}");
        assert!(found.iter().all(|found| found.confidence.is_none() && found.hit.vector.is_none()));
        assert!((f64::from(found[0].hit.score) - score(metric, &a, id(&found[0]))).abs() < 1e-5);
        // Sums are of unit vectors where cosines are compared, of vectors as they are elsewhere.
        let length = |vector: &[f32]| vector.iter().map(|value| value * value).sum::<f32>().sqrt();
        let (of_a, of_b) = if metric == Metric::Cosine { (length(&a), length(&b)) } else { (1.0, 1.0) };
        let sum: Vec<f32> = a.iter().zip(&b).map(|(x, y)| 2.0 * x / of_a - 0.5 * y / of_b).collect();
        let parts = vec![Part::vector(2.0, a), Part::vector(-0.5, b)];
        let summed = search(&collection, Query { parts }, &SearchOptions::top(20));
        assert_eq!(ids(&summed), exact(metric, &sum, 20), "{metric:?}");
    }
}

fn id(found: &Found) -> usize {
    found.hit.item.id.parse().unwrap()
}

#[test]
fn vectors_and_items_are_added_filtered_and_paged() {
    let dir = tempfile::tempdir().unwrap();
    let collection = external(&dir, Metric::Cosine);
    let like = search(&collection, Query::like("7"), &SearchOptions::top(5));
    let expected = exact(Metric::Cosine, &vector(7, DIMENSION), 6);
    assert_eq!(ids(&like), expected[1..], "the item itself is left out");
    assert!(like.iter().all(|found| found.confidence.is_some()), "what items mean is known");
    let same = search(&collection, Query::vector(vector(7, DIMENSION)), &SearchOptions::top(6));
    assert_eq!(ids(&same), expected);
    let both = Query { parts: vec![Part::item(1.0, "7"), Part::vector(1e-3, vector(9, DIMENSION))] };
    let both = search(&collection, both, &SearchOptions::top(5));
    assert!(both[0].confidence.is_none() && !ids(&both).contains(&"7"));
    let filter = Some(Filter::parse("even = true").unwrap());
    let even = search(&collection, Query::like("7"), &SearchOptions { filter, ..SearchOptions::top(400) });
    assert!(even.len() == ITEMS / 2 && even.iter().all(|found| id(found).is_multiple_of(2)));
    let query = || Query::vector(vector(2_000, DIMENSION));
    let whole = search(&collection, query(), &SearchOptions::top(30));
    let page = search(&collection, query(), &SearchOptions { offset: 10, exact: true, ..SearchOptions::top(20) });
    assert_eq!(ids(&page), ids(&whole[10..]));
    let least = SearchOptions { min_score: Some(whole[3].hit.score), ..SearchOptions::default() };
    assert_eq!(ids(&search(&collection, query(), &least)), ids(&whole[..4]));
    let group_by = Some(GroupBy::Metadata(vec!["even".into()]));
    assert_eq!(search(&collection, query(), &SearchOptions { group_by, ..SearchOptions::default() }).len(), 2);
    let diverse = SearchOptions { diversity: Some(0.5), ..SearchOptions::top(10) };
    let diverse = search(&collection, query(), &diverse);
    assert!(diverse[0] == whole[0] && ids(&diverse) != ids(&whole[..10]));
    let all = [query(), Query::like("7")];
    let together = collection.search_vectors(&all, &SearchOptions::top(5)).unwrap();
    assert_eq!((ids(&together[0]), ids(&together[1])), (ids(&whole[..5]), ids(&like)));
    let item = collection.item(whole[0].hit.key).unwrap().unwrap();
    assert_eq!((item.item, collection.item(-1).unwrap()), (whole[0].hit.item.clone(), None));
}

#[test]
fn what_takes_a_model_or_cannot_be_compared_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let collection = external(&dir, Metric::Cosine);
    let refused = |query: Query, options: &SearchOptions, part: &str| {
        let error = collection.search_vectors(&[query], options).unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains(part), "{error}");
    };
    let plain = SearchOptions::default();
    let good = || vector(1, DIMENSION);
    let with = |at: usize, value: f32| {
        let mut vector = good();
        vector[at] = value;
        vector
    };
    refused(Query::vector(vec![1.0; 3]), &plain, "3 values");
    refused(Query::vector(Vec::new()), &plain, "0 values");
    refused(Query::vector(with(4, f32::NAN)), &plain, "NaN in place 4");
    refused(Query::vector(with(0, f32::INFINITY)), &plain, "inf in place 0");
    refused(Query::vector(vec![0.0; DIMENSION]), &plain, "length 0");
    refused(Query { parts: vec![Part::vector(f32::NAN, good())] }, &plain, "weight NaN");
    refused(Query { parts: vec![Part::vector(1.0, good()), Part::vector(-1.0, good())] }, &plain, "cancel");
    refused(Query::default(), &plain, "empty");
    refused(Query::text("dog"), &plain, "takes a model");
    let text = Part::input(1.0, Input::text("dog"));
    refused(Query { parts: vec![Part::vector(1.0, good()), text] }, &plain, "\"text\"");
    refused(Query::vector(good()), &SearchOptions { relevant_only: Some(0.5), ..plain.clone() }, "no confidence");
    refused(Query::vector(good()), &SearchOptions { ranking: Ranking::Words, ..plain.clone() }, "needs words");
    let error = collection.search_vectors(&[Query::like("none")], &plain).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let empty = Collection::open(&dir.path().join("empty"), &Mode::write()).unwrap();
    let error = empty.search_vectors(&[Query::vector(good())], &plain).unwrap_err();
    assert!(error.to_string().contains("holds no vectors"), "{error}");
}

/// What an open collection answers again and again is what a collection answers that was just opened, to the bit, also after changes.
#[test]
fn kept_statistics_are_those_of_the_present_state() {
    let model = load("mini", &LoadOptions::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("collection");
    let open = Collection::open(&folder, &Mode::write()).unwrap();
    let target = open.adopt(model.as_ref()).unwrap();
    let write = |numbers: std::ops::Range<usize>| {
        let one = |number| entry(number, &target.field, &target.space, model.dimension());
        open.store().upsert(&numbers.map(one).collect::<Vec<_>>()).unwrap();
    };
    let queries = [Query::text("red apple"), Query::parse("2:dog - item:3").unwrap(), Query::like("5")];
    let filter = Some(Filter::parse("even = true").unwrap());
    let options = [
        SearchOptions::default(),
        SearchOptions { filter, ..SearchOptions::default() },
        SearchOptions { relevant_only: Some(0.001), ..SearchOptions::default() },
    ];
    let answers = |collection: &Collection| -> Vec<Vec<Vec<Found>>> {
        options.iter().map(|options| collection.search_all(model.as_ref(), &queries, options).unwrap()).collect()
    };
    let check = || {
        let fresh = answers(&Collection::open(&folder, &Mode::read()).unwrap());
        assert!(fresh[0][0].iter().all(|found| found.confidence.is_some()));
        assert_eq!(answers(&open), fresh);
        // Now from what is kept, on several threads.
        std::thread::scope(|scope| {
            let threads = [(); 3].map(|()| scope.spawn(|| answers(&open)));
            threads.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), fresh));
        });
        fresh
    };
    write(0..200);
    let first = check();
    write(200..1500);
    let second = check();
    assert_ne!(first, second);
    open.remove(
        &(0..100).filter(|number| ![3, 5].contains(number)).map(|number| number.to_string()).collect::<Vec<_>>(),
    )
    .unwrap();
    open.compact().unwrap();
    assert_ne!(check(), second);
    let bare = Query {
        parts: vec![Part::input(1.0, Input::text("red apple")), Part::vector(0.1, vector(1, model.dimension()))],
    };
    let found = open.search(model.as_ref(), &bare, &SearchOptions::default()).unwrap();
    assert!(found.len() == 10 && found[0].confidence.is_none());
}
