//! Queries as people put them, over the gallery with the built-in model: sums, groups, diversity, pages, confidence.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use crossmodal_engine::ingest::{Events, Request};
use crossmodal_engine::metadata::Metadata;
use crossmodal_engine::{
    CancelToken, Collection, Embedder, ErrorKind, Found, GroupBy, Input, LoadOptions, Mode, Part, Query, SearchOptions,
    demo, ingest, load, relevance,
};

struct Gallery {
    dir: tempfile::TempDir,
    model: Arc<dyn Embedder>,
}

/// The gallery, in two folders, indexed once for all tests.
static GALLERY: LazyLock<Gallery> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let gallery = Gallery { dir, model: load("mini", &LoadOptions::default()).unwrap() };
    let folder = gallery.folder();
    demo::unpack(&folder).unwrap();
    let metadata = Metadata::read(&folder.join(demo::CAPTIONS)).unwrap();
    std::fs::create_dir(folder.join("fruit")).unwrap();
    for name in ["1f34e.png", "1f34b.png", "1f34c.png", "1f351.png", "1f349.png"] {
        std::fs::copy(folder.join(name), folder.join("fruit").join(name)).unwrap();
    }
    let request = Request { metadata, ..Request::new(vec![folder]) };
    let collection = Collection::open(&gallery.dir.path().join("collection"), &Mode::write()).unwrap();
    ingest::run(&collection, &gallery.model, &request, &Events::none(), &CancelToken::new()).unwrap();
    gallery
});

impl Gallery {
    fn folder(&self) -> PathBuf {
        self.dir.path().join("gallery")
    }

    fn path(&self, name: &str) -> String {
        self.folder().canonicalize().unwrap().join(name).to_str().unwrap().to_string()
    }

    fn collection(&self) -> Collection {
        Collection::open(&self.dir.path().join("collection"), &Mode::read()).unwrap()
    }

    fn search(&self, query: &str, options: &SearchOptions) -> Vec<Found> {
        self.collection().search(self.model.as_ref(), &Query::parse(query).unwrap(), options).unwrap()
    }

    fn cosines(&self, query: &str, k: usize) -> Vec<(String, f32)> {
        let found = self.search(query, &SearchOptions::top(k));
        found.into_iter().map(|found| (found.hit.item.id, found.hit.score)).collect()
    }
}

fn ids(found: &[Found]) -> Vec<&str> {
    found.iter().map(|found| found.hit.item.id.as_str()).collect()
}

#[test]
fn sums_are_weighted_unit_vectors() {
    let gallery = &*GALLERY;
    let score = |query: &str, name: &str| {
        let found = gallery.cosines(query, 245);
        found.into_iter().find(|(id, _)| id.ends_with(name)).unwrap().1
    };
    let vectors = |texts: &[&str]| -> Vec<Vec<f32>> {
        let inputs: Vec<Input> = texts.iter().map(|text| Input::text(*text)).collect();
        gallery.model.embed(&inputs).unwrap().into_iter().map(|embedding| embedding.unit).collect()
    };
    let texts = vectors(&["dog face", "red apple"]);
    let sum: Vec<f32> = texts[0].iter().zip(&texts[1]).map(|(a, b)| 2.0 * a - 0.5 * b).collect();
    let length = sum.iter().map(|value| value * value).sum::<f32>().sqrt();
    let (dog, apple) = (score("dog face", "1f436.png"), score("red apple", "1f436.png"));
    let expected = (2.0 * dog - 0.5 * apple) / length;
    assert!((score("2:dog face - 0.5:red apple", "1f436.png") - expected).abs() < 1e-5);
    // A picture and words; a difference moves away from what is subtracted.
    let apple = gallery.path("1f34e.png");
    assert!(score(&format!("lemon - {apple}"), "gallery/1f34e.png") < score("lemon", "gallery/1f34e.png"));
    let both = gallery.cosines(&format!("{apple} + dog face"), 20);
    assert!(both.iter().any(|(id, _)| *id == apple));
    let like = gallery.cosines("item:1f436.png + dog face", 20);
    assert!(!like.iter().any(|(id, _)| id.ends_with("1f436.png")), "an item of the query is no hit");
}

#[test]
fn queries_that_mean_nothing_are_refused() {
    let (gallery, collection) = (&*GALLERY, GALLERY.collection());
    let search = |query: &Query, options: &SearchOptions| collection.search(gallery.model.as_ref(), query, options);
    let refused = |query: &Query, part: &str| {
        let error = search(query, &SearchOptions::default()).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    };
    refused(&Query::parse("dog + cat - dog - cat").unwrap(), "cancel");
    refused(&Query::parse("").unwrap(), "empty");
    refused(&Query::default(), "empty");
    refused(&Query { parts: vec![Part::input(0.0, Input::text("x"))] }, "weight 0");
    refused(&Query { parts: vec![Part::input(f32::NAN, Input::text("x"))] }, "weight NaN");
    assert_eq!(Query::parse("dog + image:none.png").unwrap_err().kind(), ErrorKind::InvalidInput);
    let text = Query::text("dog");
    let wrong = [
        SearchOptions { diversity: Some(1.5), ..SearchOptions::default() },
        SearchOptions { relevant_only: Some(f32::NAN), ..SearchOptions::default() },
        SearchOptions { min_score: Some(f32::NAN), ..SearchOptions::default() },
    ];
    for options in wrong {
        assert_eq!(search(&text, &options).unwrap_err().kind(), ErrorKind::InvalidInput, "{options:?}");
    }
}

#[test]
fn many_queries_are_many_single_ones() {
    let gallery = &*GALLERY;
    let queries = ["red apple", "2:dog face + cat face", "item:1f436.png", "moon - star"];
    let parsed: Vec<Query> = queries.iter().map(|query| Query::parse(query).unwrap()).collect();
    for options in [
        SearchOptions::top(5),
        SearchOptions { relevant_only: Some(0.01), group_by: Some(GroupBy::Folder), ..SearchOptions::default() },
    ] {
        let together = gallery.collection().search_all(gallery.model.as_ref(), &parsed, &options).unwrap();
        assert_eq!(together.len(), queries.len());
        for (query, found) in queries.iter().zip(together) {
            let alone = gallery.search(query, &options);
            assert_eq!(ids(&found), ids(&alone), "{query}");
            let close = |pair: (&Found, &Found)| (pair.0.confidence.unwrap() - pair.1.confidence.unwrap()).abs() < 1e-3;
            assert!(found.iter().zip(&alone).all(close));
        }
    }
    assert!(
        gallery.collection().search_all(gallery.model.as_ref(), &[], &SearchOptions::default()).unwrap().is_empty()
    );
}

#[test]
fn pages_and_least_scores() {
    let gallery = &*GALLERY;
    let all = gallery.search("red apple", &SearchOptions::top(30));
    for diversity in [None, Some(0.5)] {
        let options = |offset, k| SearchOptions { offset, k, diversity, ..SearchOptions::default() };
        let whole = gallery.search("red apple", &options(0, 30));
        let pages: Vec<Found> =
            [0, 10, 20].iter().flat_map(|offset| gallery.search("red apple", &options(*offset, 10))).collect();
        assert_eq!(ids(&whole), ids(&pages));
        assert_eq!(ids(&whole) == ids(&all), diversity.is_none());
    }
    let last = gallery.search("red apple", &SearchOptions { offset: 243, ..SearchOptions::default() });
    assert_eq!(last.len(), 2);
    let beyond = gallery.search("red apple", &SearchOptions { offset: usize::MAX, ..SearchOptions::default() });
    assert!(beyond.is_empty());
    let least = all[4].hit.score;
    let few = gallery.search("red apple", &SearchOptions { min_score: Some(least), ..SearchOptions::default() });
    assert_eq!(ids(&few), ids(&all[..5]));
}

#[test]
fn groups_show_their_best_and_are_never_too_few() {
    let gallery = &*GALLERY;
    let options = |name: &str, k| SearchOptions { group_by: Some(name.parse().unwrap()), ..SearchOptions::top(k) };
    let folders = gallery.search("dog face", &options("folder", 10));
    assert_eq!(folders.len(), 2, "the second folder is far down the list");
    let all = gallery.search("dog face", &SearchOptions::top(245));
    let best = all.iter().find(|found| found.hit.item.id.contains("/fruit/")).unwrap();
    assert_eq!(ids(&folders), [all[0].hit.item.id.as_str(), best.hit.item.id.as_str()]);
    assert!(folders[1].group.as_deref().unwrap().ends_with("/fruit"));
    // Copies have the same caption.
    let captions = gallery.search("red apple", &options("en", 240));
    let groups: HashSet<_> = captions.iter().map(|found| found.group.clone()).collect();
    assert_eq!((captions.len(), groups.len()), (240, 240));
    assert_eq!(gallery.search("red apple", &options("file", 245)).len(), 245);
    // What has no such value stands alone.
    let none = gallery.search("red apple", &options("no.such.key", 20));
    assert!(none.len() == 20 && none.iter().all(|found| found.group.is_none()));
    for wrong in ["", "a..b", "metadata."] {
        assert!(wrong.parse::<GroupBy>().is_err(), "{wrong:?}");
    }
    assert_eq!("metadata.folder".parse(), Ok(GroupBy::Metadata(vec!["folder".into()])));
}

#[test]
fn diverse_hits_repeat_less() {
    let gallery = &*GALLERY;
    let twice = |found: &[Found]| {
        let names: HashSet<_> = found.iter().map(|found| found.hit.item.metadata["en"].to_string()).collect();
        found.len() - names.len()
    };
    let plain = gallery.search("red apple", &SearchOptions::top(12));
    let diverse = gallery.search("red apple", &SearchOptions { diversity: Some(0.5), ..SearchOptions::top(12) });
    assert!(twice(&plain) >= 1 && twice(&diverse) == 0, "{} {}", twice(&plain), twice(&diverse));
    assert_eq!(diverse[0].hit.item.id, plain[0].hit.item.id);
    let same = gallery.search("red apple", &SearchOptions { diversity: Some(1.0), ..SearchOptions::top(12) });
    assert_eq!(ids(&same), ids(&plain));
}

#[test]
fn confidence_tells_matches_from_chance() {
    let gallery = &*GALLERY;
    let relevant = SearchOptions { relevant_only: Some(relevance::RELEVANT), ..SearchOptions::default() };
    let hits = gallery.search("red apple", &relevant);
    assert!(hits[0].hit.item.id.ends_with("1f34e.png") && hits[0].confidence.unwrap() > 0.9);
    assert!(hits.len() <= 4 && hits.iter().all(|found| found.confidence.unwrap() >= relevance::RELEVANT));
    // Nobody drew what these ask for. Three in ten are answered by definition of the cut.
    let foreign: Vec<Query> = include_str!("../examples/relevance_foreign.txt").lines().map(Query::text).collect();
    let answered = |queries: &[Query]| {
        let found = gallery.collection().search_all(gallery.model.as_ref(), queries, &relevant).unwrap();
        found.iter().filter(|found| !found.is_empty()).count() as f64 / queries.len() as f64
    };
    let drawn: Vec<Query> =
        demo::captioned(&["en"]).unwrap().into_iter().map(|drawing| Query::text(&drawing.captions[0])).collect();
    let (wrongly, rightly) = (answered(&foreign), answered(&drawn));
    assert!(wrongly <= 0.4 && rightly >= 0.6, "{wrongly} {rightly}");
    // The same picture in two places is a match at another scale of cosines.
    let apple = std::fs::read(gallery.path("1f34e.png")).unwrap();
    let copies = gallery.collection().search(gallery.model.as_ref(), &Query::image(apple), &relevant).unwrap();
    assert!(copies.len() >= 2 && copies[..2].iter().all(|found| found.confidence.unwrap() > 0.9));
    // Confidence is of the item searched, not of the page: paging and grouping don't change it.
    let second = gallery.search("red apple", &SearchOptions { offset: 1, ..SearchOptions::top(1) });
    let whole = gallery.search("red apple", &SearchOptions::top(2));
    assert_eq!(second[0].confidence, whole[1].confidence);
}

#[test]
fn the_reference_texts_are_kept_and_can_be_missing() {
    let gallery = &*GALLERY;
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    std::fs::create_dir_all(copy.join("vectors")).unwrap();
    let original = gallery.dir.path().join("collection");
    for folder in ["", "vectors"] {
        for entry in std::fs::read_dir(original.join(folder)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), copy.join(folder).join(entry.file_name())).unwrap();
            }
        }
    }
    let search = |folder: &std::path::Path| {
        let collection = Collection::open(folder, &Mode::read()).unwrap();
        collection.search(gallery.model.as_ref(), &Query::text("red apple"), &SearchOptions::default()).unwrap()
    };
    {
        let collection = Collection::open(&copy, &Mode::write()).unwrap();
        use crossmodal_store::VectorStore as _;
        assert!(collection.store().setting("relevance.texts.default").unwrap().is_some());
        collection.store().set_setting("relevance.texts.default", &serde_json::json!({"version": 0})).unwrap();
    }
    let (kept, computed) = (search(&original), search(&copy));
    assert_eq!(ids(&kept), ids(&computed));
    for (a, b) in kept.iter().zip(&computed) {
        assert!((a.confidence.unwrap() - b.confidence.unwrap()).abs() < 0.02, "{:?} {:?}", a.confidence, b.confidence);
    }
}

#[test]
fn a_few_items_give_no_confidence() {
    let gallery = &*GALLERY;
    let dir = tempfile::tempdir().unwrap();
    let collection = Collection::open(&dir.path().join("few"), &Mode::write()).unwrap();
    let search = |options: &SearchOptions| {
        collection.search(gallery.model.as_ref(), &Query::text("red apple"), options).unwrap()
    };
    let request = Request::new(vec![gallery.folder().join("fruit")]);
    ingest::run(&collection, &gallery.model, &request, &Events::none(), &CancelToken::new()).unwrap();
    let found = search(&SearchOptions::default());
    assert!(found.len() == 5 && found.iter().all(|found| found.confidence.is_none()));
    let relevant = search(&SearchOptions { relevant_only: Some(0.5), ..SearchOptions::default() });
    assert!(relevant.is_empty());
}
