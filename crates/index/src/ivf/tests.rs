//! Searches against exact ones.

use crossmodal_kernels::distance::normalize;

use super::*;
use crate::testing::{self, values};
use crate::{AnnIndex, FlatIndex, Neighbor, RowSet, SearchOptions, Selection, Vectors};

/// Rows in overlapping clusters of unequal sizes, or without any order.
fn rows(metric: Metric, dimension: usize, count: usize, clustered: bool) -> Vec<f32> {
    let (centres, noise) = (values(1, 20 * dimension), values(2, count * dimension));
    let mut rows = noise;
    for (number, row) in rows.chunks_exact_mut(dimension).enumerate() {
        let cluster = (number * number + number / 7) % 20;
        if clustered {
            let centre = &centres[cluster * dimension..][..dimension];
            row.iter_mut().zip(centre).for_each(|(x, centre)| *x = 0.5 * *x + centre);
        }
        if metric == Metric::Cosine {
            normalize(row);
        }
    }
    rows
}

fn build(vectors: Vectors<'_>, cells: Option<usize>, codes: CellCodes) -> Ivf {
    Ivf::build(vectors, &IvfOptions { cells, codes }, &|_, _| {}, &|| false).unwrap()
}

fn saved(index: &Ivf) -> Vec<u8> {
    index.write(Vec::new(), [7; 16]).unwrap()
}

fn open(bytes: &[u8]) -> Result<Ivf, IndexError> {
    Ivf::open(testing::container(bytes)?)
}

/// Queries near rows, but none of them.
fn queries(rows: &[f32], dimension: usize, count: usize) -> Vec<Vec<f32>> {
    let step = rows.len() / dimension / count.max(1);
    let query = |i: usize| {
        let near = &rows[i * step * dimension..][..dimension];
        near.iter().zip(values(50 + i as u64, dimension)).map(|(x, noise)| x + 0.05 * noise).collect()
    };
    (0..count).map(query).collect()
}

fn exact(vectors: Vectors<'_>, queries: &[&[f32]], k: usize, selection: Selection<'_>) -> Vec<Vec<Neighbor>> {
    let index = FlatIndex::new(vectors.dimension(), vectors.metric(), &[vectors.values()]).unwrap();
    index.search(queries, k, selection).unwrap()
}

/// The share of the true neighbours that are found; all scores are checked to be exact and in order.
fn recall(index: &Ivf, vectors: Vectors<'_>, queries: &[Vec<f32>], options: &SearchOptions<'_>) -> f64 {
    let queries: Vec<&[f32]> = queries.iter().map(Vec::as_slice).collect();
    let found = index.search(vectors, &queries, options).unwrap();
    let expected = exact(vectors, &queries, options.k, options.selection);
    let prepared = vectors.prepare(&queries).unwrap();
    let (mut hits, mut total) = (0, 0);
    for ((found, expected), query) in found.iter().zip(&expected).zip(&prepared) {
        assert_eq!(found.len(), expected.len());
        assert!(found.is_sorted_by(|a, b| a.score > b.score || (a.score == b.score && a.row < b.row)), "{found:?}");
        for neighbor in found {
            assert_eq!(neighbor.score, vectors.score(query, neighbor.row));
            assert!(options.selection.allowed.is_none_or(|allowed| allowed.contains(neighbor.row)));
        }
        total += expected.len();
        hits += found.iter().filter(|neighbor| expected.contains(neighbor)).count();
    }
    hits as f64 / total.max(1) as f64
}

#[test]
fn finds_the_neighbours_under_every_metric() {
    for metric in Metric::ALL {
        for codes in [CellCodes::Rows, CellCodes::Signs] {
            for clustered in [true, false] {
                let dimension = 80;
                let rows = rows(metric, dimension, 6000, clustered);
                let vectors = Vectors::new(dimension, metric, &rows).unwrap();
                let index = build(vectors, Some(60), codes);
                let queries = queries(&rows, dimension, 50);
                let at = |effort| {
                    recall(
                        &index,
                        vectors,
                        &queries,
                        &SearchOptions { k: 10, effort: Some(effort), ..Default::default() },
                    )
                };
                let (few, all) = (at(6), at(60));
                let case = format!("{metric} {codes:?} clustered {clustered}: {few} and {all}");
                assert!(all >= if codes == CellCodes::Rows { 1.0 } else { 0.85 }, "{case}");
                assert!(few >= if clustered && metric != Metric::InnerProduct { 0.9 } else { 0.15 }, "{case}");
            }
        }
    }
}

#[test]
fn selections_hold_at_every_selectivity() {
    let dimension = 40;
    for codes in [CellCodes::Rows, CellCodes::Signs] {
        let rows = rows(Metric::Cosine, dimension, 8000, true);
        let vectors = Vectors::new(dimension, Metric::Cosine, &rows).unwrap();
        let index = build(vectors, Some(50), codes);
        let queries = queries(&rows, dimension, 20);
        let groups: Vec<i64> = (0..8000).map(|row| row / 9).collect();
        for every in [1, 2, 10, 60, 400, 5000, 9000] {
            let mut allowed = RowSet::none(9000);
            (0..9000).skip(every / 3).step_by(every).for_each(|row| {
                allowed.insert(row);
            });
            for groups in [None, Some(&groups[..])] {
                let selection = Selection { allowed: Some(&allowed), groups };
                let options = SearchOptions { k: 10, effort: Some(10), selection };
                let recall = recall(&index, vectors, &queries, &options);
                assert!(recall >= 0.9, "{codes:?}, one of {every}, groups {}: {recall}", groups.is_some());
            }
        }
        // One cluster's worth of rows that are all in one group, and everything else in a few others.
        let groups: Vec<i64> = (0..8000).map(|row| if row < 7990 { 0 } else { row }).collect();
        let selection = Selection { allowed: None, groups: Some(&groups) };
        assert!(recall(&index, vectors, &queries, &SearchOptions { k: 10, effort: Some(1), selection }) >= 0.9);
        let nothing = RowSet::none(8000);
        let selection = Selection { allowed: Some(&nothing), groups: None };
        let found = index.search(vectors, &[&queries[0]], &SearchOptions { k: 3, effort: None, selection }).unwrap();
        assert_eq!(found, [[]]);
    }
}

#[test]
fn what_is_saved_comes_back_bit_for_bit() {
    for (metric, codes) in [(Metric::Euclidean, CellCodes::Signs), (Metric::InnerProduct, CellCodes::Rows)] {
        let rows = rows(metric, 33, 2000, true);
        let vectors = Vectors::new(33, metric, &rows).unwrap();
        let index = build(vectors, None, codes);
        let opened = open(&saved(&index)).unwrap();
        opened.check().unwrap();
        assert_eq!(opened.info(), index.info());
        assert_eq!(saved(&opened), saved(&index));
        let queries = queries(&rows, 33, 30);
        let queries: Vec<&[f32]> = queries.iter().map(Vec::as_slice).collect();
        let options = SearchOptions { k: 7, ..Default::default() };
        let found = index.search(vectors, &queries, &options).unwrap();
        assert_eq!(opened.search(vectors, &queries, &options).unwrap(), found);
        // Alone or together, on one thread or several.
        let alone: Vec<_> =
            queries.iter().map(|query| index.search(vectors, &[query], &options).unwrap().remove(0)).collect();
        assert_eq!(alone, found);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(pool.install(|| saved(&build(vectors, None, codes))), saved(&index));
    }
}

#[test]
fn added_rows_are_found_and_old_ones_stay() {
    for codes in [CellCodes::Rows, CellCodes::Signs] {
        let rows = rows(Metric::Cosine, 64, 5000, true);
        let all = Vectors::new(64, Metric::Cosine, &rows).unwrap();
        let queries = queries(&rows, 64, 40);
        let options = SearchOptions { k: 10, effort: Some(12), ..Default::default() };
        let first = build(all.prefix(3001), Some(40), codes);
        let before = recall(&first, all.prefix(3001), &queries[..20], &options);
        let opened = open(&saved(&first)).unwrap();
        let mut extended = opened.extend(all.prefix(3002), &|_, _| {}, &|| false).unwrap();
        extended = extended.extend(all, &|_, _| {}, &|| false).unwrap();
        let after = recall(&extended, all, &queries, &options);
        assert!(before >= 0.9 && after >= 0.9, "{codes:?}: {before}, {after}");
        // In one step or in several, and without new rows, it is the same index.
        let once = first.extend(all, &|_, _| {}, &|| false).unwrap();
        assert_eq!(saved(&once), saved(&extended));
        assert_eq!(saved(&once.extend(all, &|_, _| {}, &|| false).unwrap()), saved(&once));
        // The rows it was built over may have grown since.
        recall(&first, all.prefix(3001), &queries[..5], &options);
        let found = first.search(all, &[&queries[39]], &options).unwrap();
        assert!(found[0].iter().all(|neighbor| neighbor.row < 3001));
    }
}

#[test]
fn odd_shapes_work() {
    let options = SearchOptions { k: 5, effort: Some(2), ..Default::default() };
    for metric in Metric::ALL {
        for codes in [CellCodes::Rows, CellCodes::Signs] {
            for (dimension, count, cells) in [
                (1, 0, None),
                (3, 0, Some(4)),
                (1, 1, None),
                (1, 100, Some(7)),
                (17, 5, Some(64)),
                (130, 40, None),
                (16, 1000, Some(1)),
            ] {
                let rows = rows(metric, dimension, count, false);
                let vectors = Vectors::new(dimension, metric, &rows).unwrap();
                let index = open(&saved(&build(vectors, cells, codes))).unwrap();
                let query = vec![0.5; dimension];
                let recall = recall(&index, vectors, &[query], &options);
                assert!(recall >= if count == 0 { 0.0 } else { 0.8 }, "{metric} {dimension} {count}: {recall}");
                let more = self::rows(metric, dimension, count + 50, false);
                let more = Vectors::new(dimension, metric, &more).unwrap();
                assert_eq!(index.extend(more, &|_, _| {}, &|| false).unwrap().info().rows, count as u64 + 50);
            }
            // All rows equal, so that one cell holds everything; then two values, one of them rare.
            for rare in [0, 3] {
                let mut rows = vec![0.5; 4 * 3000];
                rows[..4 * rare].iter_mut().for_each(|x| *x = -0.5);
                let vectors = Vectors::new(4, metric, &rows).unwrap();
                let index = build(vectors, Some(30), codes);
                let found = index.search(vectors, &[&[1.0; 4]], &options).unwrap();
                let expected = vectors.score(&vectors.prepare(&[&[1.0; 4]]).unwrap()[0], 2999);
                assert!(found[0].len() == 5 && found[0].iter().all(|neighbor| neighbor.score == expected), "{found:?}");
            }
        }
    }
}

#[test]
fn rows_that_are_no_numbers_are_never_results() {
    for (value, codes) in [(f32::NAN, CellCodes::Signs), (f32::NAN, CellCodes::Rows), (1e30, CellCodes::Signs)] {
        let mut rows = rows(Metric::Euclidean, 20, 500, true);
        rows[20 * 7..20 * 8].fill(value);
        rows[20 * 450 + 3] = value;
        let vectors = Vectors::new(20, Metric::Euclidean, &rows).unwrap();
        let index = build(vectors, Some(10), codes);
        let options = SearchOptions { k: 490, effort: Some(10), ..Default::default() };
        let found = index.search(vectors, &[&[0.1; 20]], &options).unwrap().remove(0);
        assert!(found.len() == 490 && found.iter().all(|neighbor| neighbor.row != 7 && neighbor.row != 450));
    }
}

#[test]
fn damage_is_refused_or_harmless() {
    let rows = rows(Metric::Cosine, 32, 600, true);
    let vectors = Vectors::new(32, Metric::Cosine, &rows).unwrap();
    let whole = saved(&build(vectors, Some(12), CellCodes::Signs));
    let queries = queries(&rows, 32, 3);
    let queries: Vec<&[f32]> = queries.iter().map(Vec::as_slice).collect();
    let groups: Vec<i64> = (0..600).map(|row| row % 50).collect();
    let allowed = RowSet::all(590);
    let mut noticed = 0;
    // Sections begin at multiples of 4,096; their padding is skipped.
    let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    for at in used.iter().step_by(used.len() / 400) {
        let mut bytes = whole.clone();
        bytes[*at] ^= 0xC1;
        let Ok(index) = open(&bytes) else {
            noticed += 1;
            continue;
        };
        noticed += usize::from(index.check().is_err());
        for selection in [Selection::default(), Selection { allowed: Some(&allowed), groups: Some(&groups) }] {
            let options = SearchOptions { k: 10, effort: Some(4), selection };
            // What comes out may be anything but a row that isn't there.
            if let Ok(found) = index.search(vectors, &queries, &options) {
                assert!(found.iter().flatten().all(|neighbor| neighbor.row < 600));
            }
        }
        let _ = index.extend(vectors, &|_, _| {}, &|| false).map(|index| index.info());
    }
    assert_eq!(noticed, used.iter().step_by(used.len() / 400).count());
}

#[test]
fn wrong_uses_are_named_and_building_can_be_called_off() {
    let rows = rows(Metric::Cosine, 8, 300, true);
    let vectors = Vectors::new(8, Metric::Cosine, &rows).unwrap();
    let index = build(vectors, Some(5), CellCodes::Signs);
    let options = SearchOptions { k: 5, ..Default::default() };
    let other = Vectors::new(8, Metric::Euclidean, &rows).unwrap();
    assert!(matches!(index.search(other, &[&[1.0; 8]], &options), Err(IndexError::OtherRows { .. })));
    let wide = Vectors::new(4, Metric::Cosine, &rows).unwrap();
    assert!(matches!(index.search(wide, &[&[1.0; 4]], &options), Err(IndexError::OtherRows { .. })));
    assert!(matches!(index.search(vectors.prefix(9), &[&[1.0; 8]], &options), Err(IndexError::OtherRows { .. })));
    assert!(matches!(index.search(vectors, &[&[1.0; 7]], &options), Err(IndexError::QueryDimension { .. })));
    let options = SearchOptions { selection: Selection { allowed: None, groups: Some(&[1; 10]) }, ..options };
    assert!(matches!(index.search(vectors, &[&[1.0; 8]], &options), Err(IndexError::GroupCount { .. })));
    let none = IvfOptions { cells: Some(0), codes: CellCodes::Rows };
    assert!(matches!(Ivf::build(vectors, &none, &|_, _| {}, &|| false), Err(IndexError::Option { .. })));
    let called = AtomicU64::new(0);
    let cancel = || called.fetch_add(1, Ordering::Relaxed) > 3;
    let cancelled = Ivf::build(vectors, &IvfOptions::default(), &|_, _| {}, &cancel);
    assert_eq!(cancelled.unwrap_err(), IndexError::Cancelled);
    let last = AtomicU64::new(0);
    let progress = |done: u64, total: u64| {
        assert!(done <= total);
        last.fetch_max(done * 1000 / total, Ordering::Relaxed);
    };
    Ivf::build(vectors, &IvfOptions::default(), &progress, &|| false).unwrap();
    assert_eq!(last.into_inner(), 1000);
}
