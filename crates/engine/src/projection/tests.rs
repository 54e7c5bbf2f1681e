//! Maps of real collections: what they keep, that they are the same every time, and what becomes of odd ones.

use crossmodal_models::LoadOptions;
use crossmodal_store::{Field, Item, ItemVectors, Metric, SpaceRef, VectorRecord, VectorStore};

use super::*;
use crate::ErrorKind;
use crate::collection::Mode;

struct Saved {
    collection: Collection,
    _folder: tempfile::TempDir,
}

fn saved(vectors: &[(&str, Vec<f32>)], metric: Metric) -> Saved {
    let folder = tempfile::tempdir().unwrap();
    let collection = Collection::open(&folder.path().join("c"), &Mode::write()).unwrap();
    let space = SpaceRef { id: "s".into(), model: "m".into() };
    let dimension = vectors.first().map_or(3, |(_, vector)| vector.len());
    let field = Field { name: "default".into(), space: space.clone(), dimension, metric };
    collection.store().ensure_field(&field).unwrap();
    let entry = |(at, (modality, vector)): (usize, &(&str, Vec<f32>))| {
        let record = VectorRecord {
            field: "default".into(),
            space: space.clone(),
            part: 0,
            modality: (*modality).into(),
            span: None,
            precision: String::new(),
            cache_key: None,
            vector: vector.clone(),
        };
        ItemVectors { item: Item::new(format!("item-{at:05}"), *modality), vectors: vec![record] }
    };
    collection.store().upsert(&vectors.iter().enumerate().map(entry).collect::<Vec<_>>()).unwrap();
    Saved { collection, _folder: folder }
}

fn map(saved: &Saved) -> Projection {
    project(&saved.collection, &ProjectionOptions::default(), &mut |_| (), &CancelToken::new()).unwrap()
}

fn on_threads(saved: &Saved, options: &ProjectionOptions, threads: usize) -> Projection {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| project(&saved.collection, options, &mut |_| (), &CancelToken::new()).unwrap())
}

fn places_of(projection: &Projection) -> Vec<[f32; 2]> {
    projection.x.iter().zip(&projection.y).map(|(x, y)| [*x, *y]).collect()
}

/// A number in -1..1.
fn number(seed: usize) -> f32 {
    (layout::hash(seed as u64) >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// Unit vectors around random centres, one cluster after another in turns.
fn clustered(clusters: usize, count: usize, dimension: usize, noise: f32) -> Vec<Vec<f32>> {
    let vector = |at: usize| {
        let mut vector: Vec<f32> = (0..dimension)
            .map(|d| {
                let centre = number((at % clusters) * dimension + d);
                // A large common part, as CLIP's vectors have.
                2.0 * number(7_000_000 + d) + centre + noise * number(1_000_000 + at * dimension + d)
            })
            .collect();
        let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|value| *value /= length);
        vector
    };
    (0..count).map(vector).collect()
}

fn pictures(vectors: Vec<Vec<f32>>) -> Vec<(&'static str, Vec<f32>)> {
    vectors.into_iter().map(|vector| ("image", vector)).collect()
}

fn squared<T: AsRef<[f32]>>(a: &T, b: &T) -> f64 {
    let differences = a.as_ref().iter().zip(b.as_ref()).map(|(a, b)| f64::from(*a) - f64::from(*b));
    differences.map(|difference| difference * difference).sum()
}

/// The other points of each, nearest first.
fn ranking<T: AsRef<[f32]>>(all: &[T]) -> Vec<Vec<usize>> {
    let from = |at: usize| {
        let mut others: Vec<usize> = (0..all.len()).filter(|other| *other != at).collect();
        others.sort_by(|a, b| squared(&all[at], &all[*a]).total_cmp(&squared(&all[at], &all[*b])));
        others
    };
    (0..all.len()).map(from).collect()
}

/// Venna and Kaski 2001: 1 when the `k` nearest on the map are the nearest in the space, less by how far away intruders are there.
fn trustworthiness(vectors: &[Vec<f32>], places: &[[f32; 2]], k: usize) -> f64 {
    let (n, space, map) = (vectors.len(), ranking(vectors), ranking(places));
    let mut penalty = 0;
    for (space, map) in space.iter().zip(&map) {
        let mut rank = vec![0; n];
        space.iter().enumerate().for_each(|(place, other)| rank[*other] = place + 1);
        penalty += map[..k].iter().map(|other| rank[*other].saturating_sub(k)).sum::<usize>();
    }
    1.0 - 2.0 * penalty as f64 / (n * k * (2 * n - 3 * k - 1)) as f64
}

/// The share of the `k` nearest on the map that have the same label.
fn agreement(places: &[[f32; 2]], label: impl Fn(usize) -> usize, k: usize) -> f64 {
    let ranked = ranking(places);
    let same = ranked
        .iter()
        .enumerate()
        .map(|(at, near)| near[..k].iter().filter(|other| label(**other) == label(at)).count());
    same.sum::<usize>() as f64 / (places.len() * k) as f64
}

fn principal_places(vectors: &[Vec<f32>]) -> Vec<[f32; 2]> {
    let vector = |values| crossmodal_store::ItemVector { item: 0, modality: "image".into(), values };
    let vectors: Vec<_> = vectors.iter().map(|values| vector(values.as_slice())).collect();
    components::principal(&Points::centred(&vectors, vectors[0].values.len()))
}

#[test]
fn separated_clusters_stay_apart() {
    let vectors = clustered(12, 600, 48, 0.8);
    let places = places_of(&map(&saved(&pictures(vectors.clone()), Metric::Cosine)));
    let label = |at: usize| at % 12;
    assert!(agreement(&places, label, 15) > 0.995, "{}", agreement(&places, label, 15));
    assert!(agreement(&principal_places(&vectors), label, 15) < 0.9, "the principal components do it already");
    let centres: Vec<[f32; 2]> = (0..12)
        .map(|cluster| {
            let members = (0..600).filter(|at| label(*at) == cluster);
            members.fold([0.0; 2], |sum, at| [sum[0] + places[at][0] / 50.0, sum[1] + places[at][1] / 50.0])
        })
        .collect();
    for (at, place) in places.iter().enumerate() {
        let own = squared(place, &centres[label(at)]);
        let others = centres.iter().enumerate().filter(|(cluster, _)| *cluster != label(at));
        let nearest = others.map(|(_, centre)| squared(place, centre)).fold(f64::INFINITY, f64::min);
        assert!(own < nearest, "{at} lies nearer to the middle of another cluster");
    }
}

#[test]
fn maps_are_trustworthier_than_principal_components() {
    for (clusters, noise) in [(5, 1.5), (30, 0.7), (400, 0.2)] {
        let vectors = clustered(clusters, 800, 64, noise);
        let saved = saved(&pictures(vectors.clone()), Metric::Cosine);
        let found = trustworthiness(&vectors, &places_of(&map(&saved)), 15);
        let before = trustworthiness(&vectors, &principal_places(&vectors), 15);
        assert!(found > before + 0.05, "{clusters} clusters: {found}, principal components {before}");
    }
}

#[test]
fn the_gallery_lies_in_groups() {
    let folder = tempfile::tempdir().unwrap();
    let pictures = folder.path().join("pictures");
    crate::demo::unpack(&pictures).unwrap();
    let collection = Collection::open(&folder.path().join("c"), &Mode::write()).unwrap();
    let model = crate::load("mini", &LoadOptions::default()).unwrap();
    let request = crate::ingest::Request::new(vec![pictures]);
    crate::ingest::run(&collection, &model, &request, &crate::ingest::Events::none(), &CancelToken::new()).unwrap();
    let snapshot = collection.store().snapshot().unwrap();
    let vectors: Vec<Vec<f32>> =
        snapshot.sample_items("default", 1_000).unwrap().vectors.iter().map(|vector| vector.values.to_vec()).collect();
    let saved = Saved { collection, _folder: folder };
    let projection = map(&saved);
    assert_eq!((projection.total, projection.keys.len(), projection.change), (240, 240, snapshot.change()));
    let found = trustworthiness(&vectors, &places_of(&projection), 15);
    let before = trustworthiness(&vectors, &principal_places(&vectors), 15);
    assert!(found > before + 0.05, "{found}, principal components {before}");
    // What is among the nearest in the space is far more often near on the map than by chance.
    let (space, on_map) = (ranking(&vectors), ranking(&places_of(&projection)));
    let kept = |(space, on_map): (&Vec<usize>, &Vec<usize>)| {
        space[..15].iter().filter(|other| on_map[..15].contains(other)).count()
    };
    let kept: usize = space.iter().zip(&on_map).map(kept).sum();
    assert!(kept as f64 / (240.0 * 15.0) > 0.4, "{kept}");
}

#[test]
fn pictures_and_texts_of_one_thing_lie_together() {
    // Two cones far apart, in each of which the same things lie in the same directions.
    let things = clustered(10, 400, 32, 0.5);
    let cone = |text: bool, at: usize| if text { 3.0 * number(90_000 + at) } else { 3.0 * number(95_000 + at) };
    let vectors: Vec<(&str, Vec<f32>)> = things
        .iter()
        .enumerate()
        .map(|(at, thing)| {
            let text = at / 10 % 2 == 0;
            let values = thing.iter().enumerate().map(|(d, value)| value + 0.1 * cone(text, d));
            (if text { "text" } else { "image" }, values.collect())
        })
        .collect();
    let places = places_of(&map(&saved(&vectors, Metric::Cosine)));
    assert!(agreement(&places, |at| at % 10, 15) > 0.95);
    let of_other_modality = 1.0 - agreement(&places, |at| at / 10 % 2, 15);
    assert!(of_other_modality > 0.25, "{of_other_modality}");
}

#[test]
fn equal_states_and_options_give_equal_maps_on_any_number_of_threads() {
    let saved = saved(&pictures(clustered(9, 700, 40, 1.0)), Metric::Cosine);
    let options = ProjectionOptions { limit: 650, seed: 3 };
    let first = on_threads(&saved, &options, 1);
    for threads in [2, 3, 7] {
        assert_eq!(on_threads(&saved, &options, threads), first, "{threads} threads");
    }
    assert_ne!(on_threads(&saved, &ProjectionOptions { seed: 4, ..options }, 2).x, first.x);
}

#[test]
fn large_collections_are_sampled_evenly_and_limits_are_checked() {
    let saved = saved(&pictures(clustered(4, 100, 8, 1.0)), Metric::Cosine);
    let run =
        |limit| project(&saved.collection, &ProjectionOptions { limit, seed: 0 }, &mut |_| (), &CancelToken::new());
    let projection = run(20).unwrap();
    assert_eq!((projection.total, projection.keys.len()), (100, 20));
    assert!(projection.keys.windows(2).all(|keys| keys[1] - keys[0] == 5), "{:?}", projection.keys);
    assert_eq!(run(100).unwrap().keys.len(), 100);
    for limit in [0, MOST_ITEMS + 1] {
        let error = run(limit).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("1 to 50000"), "{error}");
    }
}

#[test]
fn progress_rises_to_one_and_cancelling_stops_everywhere() {
    let saved = saved(&pictures(clustered(9, 1_200, 16, 1.0)), Metric::Cosine);
    let mut told = Vec::new();
    let options = ProjectionOptions::default();
    project(&saved.collection, &options, &mut |done| told.push(done), &CancelToken::new()).unwrap();
    assert!(told.is_sorted() && told.last() == Some(&1.0) && told.len() > 100, "{told:?}");
    for at in [0, 1, 2, 200] {
        let (cancel, mut calls) = (CancelToken::new(), 0);
        let mut stop = |_| {
            calls += 1;
            if calls > at {
                cancel.cancel();
            }
        };
        let error = project(&saved.collection, &options, &mut stop, &cancel).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert_eq!(calls, at + 1);
    }
    let cancel = CancelToken::new();
    cancel.cancel();
    let error = project(&saved.collection, &options, &mut |_| panic!("nothing is done"), &cancel).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

fn assert_sound(projection: &Projection, count: usize, what: &str) {
    assert_eq!((projection.keys.len(), projection.x.len(), projection.y.len()), (count, count, count), "{what}");
    let sound = places_of(projection).iter().flatten().all(|value| (-1.0..=1.0).contains(value));
    assert!(sound, "{what}: {:?}", places_of(projection));
}

#[test]
fn every_small_number_of_items_has_a_map() {
    let folder = tempfile::tempdir().unwrap();
    let collection = Collection::open(&folder.path().join("c"), &Mode::write()).unwrap();
    assert_sound(&map(&Saved { collection, _folder: folder }), 0, "a collection without vectors");
    for metric in Metric::ALL {
        for dimension in [1, 2, 24] {
            for count in (0..20).chain([31, 40]) {
                let vectors = clustered(count.max(1), count, dimension, 0.1);
                assert_sound(&map(&saved(&pictures(vectors), metric)), count, &format!("{count} x {dimension}"));
            }
        }
    }
    let two = places_of(&map(&saved(&pictures(vec![vec![1.0, 0.0], vec![0.0, 1.0]]), Metric::Cosine)));
    assert!((two[0][0] + two[1][0]).abs() < 1e-5 && two[0][0].abs() > 0.9, "{two:?}");
}

#[test]
fn copies_never_give_what_is_no_number() {
    for count in [2, 3, 16, 17, 100, 600] {
        let equal = pictures(vec![vec![0.6, 0.8]; count]);
        assert_sound(&map(&saved(&equal, Metric::Cosine)), count, &format!("{count} equal vectors"));
    }
    assert_sound(&map(&saved(&pictures(vec![vec![0.0; 4]; 30]), Metric::Euclidean)), 30, "nothing but zeros");
    // Forty copies of three things, and three that are like nothing else.
    let mut vectors: Vec<Vec<f32>> = (0..120).map(|at| clustered(3, 3, 20, 0.0)[at % 3].clone()).collect();
    vectors.extend(clustered(50, 50, 20, 0.0).split_off(47));
    let places = places_of(&map(&saved(&pictures(vectors), Metric::Cosine)));
    assert!(agreement(&places[..120], |at| at % 3, 15) == 1.0);
    // Magnitudes whose squares are beyond numbers, or nothing.
    for size in [1e30, 1e-30] {
        let vectors = clustered(5, 60, 6, 0.3).iter().map(|row| row.iter().map(|x| x * size).collect()).collect();
        let places = map(&saved(&pictures(vectors), Metric::Euclidean));
        assert_sound(&places, 60, &format!("values of {size}"));
        assert!(agreement(&places_of(&places), |at| at % 5, 5) > 0.95, "{size}");
    }
}
