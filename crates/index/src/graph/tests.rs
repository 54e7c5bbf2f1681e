//! The graph against exact search.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use crossmodal_kernels::{MappedFile, distance};

use super::nodes::Random;
use super::*;
use crate::{FlatIndex, RowSet, Selection};

const K: usize = 10;

/// Values between -1 and 1, near a bell curve.
fn values(random: &mut Random, count: usize) -> Vec<f32> {
    let mut value = || random.below(1 << 24) as f32 / (1 << 23) as f32 - 1.0;
    (0..count).map(|_| (value() + value() + value()) / 1.5).collect()
}

struct Data {
    dimension: usize,
    metric: Metric,
    rows: Vec<f32>,
    queries: Vec<Vec<f32>>,
}

impl Data {
    /// Rows and queries around so many centres; with one centre there is no structure at all.
    fn new(metric: Metric, dimension: usize, count: usize, clusters: u64) -> Self {
        let mut random = Random::new(dimension as u64 + clusters);
        let centres: Vec<Vec<f32>> = (0..clusters).map(|_| values(&mut random, dimension)).collect();
        let spread = if clusters == 1 { 1.0 } else { 0.4 };
        let mut draw = || {
            let centre = &centres[random.below(clusters) as usize];
            let noise = values(&mut random, dimension);
            let mut row: Vec<f32> = centre.iter().zip(noise).map(|(centre, noise)| centre + spread * noise).collect();
            match metric {
                Metric::Cosine => _ = distance::normalize(&mut row),
                // Lengths differ by up to three times.
                Metric::InnerProduct => {
                    let factor = 0.5 + random.below(1000) as f32 / 1000.0;
                    row.iter_mut().for_each(|value| *value *= factor);
                }
                Metric::Euclidean => {}
            }
            row
        };
        let rows = (0..count).flat_map(|_| draw()).collect();
        let queries = (0..40).map(|_| draw()).collect();
        Self { dimension, metric, rows, queries }
    }

    fn vectors(&self) -> Vectors<'_> {
        Vectors::new(self.dimension, self.metric, &self.rows).unwrap()
    }

    fn queries(&self) -> Vec<&[f32]> {
        self.queries.iter().map(Vec::as_slice).collect()
    }

    fn build(&self) -> Graph {
        build(self.vectors(), &OPTIONS)
    }

    fn exact(&self, rows: u64, k: usize, selection: Selection<'_>) -> Vec<Vec<Neighbor>> {
        let index = FlatIndex::new(self.dimension, self.metric, &[self.vectors().prefix(rows).values()]).unwrap();
        index.search(&self.queries(), k, selection).unwrap()
    }

    /// Searches, checks what must hold for every result, and returns the share of exact results (by score) that were found.
    fn recall(&self, graph: &Graph, options: &SearchOptions<'_>) -> f64 {
        let exact = self.exact(graph.info().rows, options.k, options.selection);
        let found = graph.search(self.vectors(), &self.queries(), options).unwrap();
        assert_eq!(found.len(), exact.len());
        let (mut hits, mut all) = (0, 0);
        for ((found, exact), query) in found.iter().zip(&exact).zip(&self.queries) {
            assert_eq!(found.len(), exact.len());
            let prepared = &self.vectors().prepare(&[query]).unwrap()[0];
            let (mut rows, mut groups) = (HashSet::new(), HashSet::new());
            for neighbor in found {
                assert_eq!(neighbor.score, self.vectors().score(prepared, neighbor.row));
                assert!(options.selection.allowed.is_none_or(|allowed| allowed.contains(neighbor.row)));
                assert!(options.selection.groups.is_none_or(|list| groups.insert(list[neighbor.row as usize])));
                assert!(rows.insert(neighbor.row));
            }
            for pair in found.windows(2) {
                assert!((-pair[0].score, pair[0].row) < (-pair[1].score, pair[1].row), "{pair:?}");
            }
            all += exact.len();
            hits += exact.last().map_or(0, |last| found.iter().filter(|found| found.score >= last.score).count());
        }
        if all == 0 { 1.0 } else { hits as f64 / all as f64 }
    }
}

const OPTIONS: GraphOptions = GraphOptions { degree: 24, build_effort: 64, threads: 2 };
const PLAIN: SearchOptions<'static> =
    SearchOptions { k: K, effort: None, selection: Selection { allowed: None, groups: None } };

fn build(vectors: Vectors<'_>, options: &GraphOptions) -> Graph {
    Graph::build(vectors, options, &|_, _| (), &|| false).unwrap()
}

fn extend(graph: &Graph, vectors: Vectors<'_>) -> Graph {
    graph.extend(vectors, &OPTIONS, &|_, _| (), &|| false).unwrap()
}

fn bytes(graph: &Graph) -> Vec<u8> {
    graph.write(Vec::new(), [7; 16]).unwrap()
}

fn open(bytes: &[u8]) -> Result<Graph, IndexError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("graph");
    std::fs::write(&path, bytes).unwrap();
    Graph::open(Container::open(MappedFile::open(&path).unwrap())?)
}

#[test]
fn nearly_all_true_neighbours_are_found() {
    for metric in Metric::ALL {
        for (dimension, clusters) in [(48, 60), (70, 7), (12, 1)] {
            let data = Data::new(metric, dimension, 4000, clusters);
            let recall = data.recall(&data.build(), &PLAIN);
            assert!(recall >= 0.98, "{metric}, {clusters} clusters of dimension {dimension}: {recall}");
        }
    }
}

#[test]
fn more_effort_finds_more() {
    let data = Data::new(Metric::Cosine, 96, 5000, 1);
    let graph = data.build();
    let at = |effort| data.recall(&graph, &SearchOptions { effort: Some(effort), ..PLAIN });
    let (least, most) = (at(1), at(2000));
    assert!(least < most && most >= 0.99, "{least} {most}");
}

#[test]
fn selections_of_any_size_are_searched_and_never_come_short() {
    for metric in Metric::ALL {
        let data = Data::new(metric, 32, 6000, 40);
        let graph = data.build();
        for every in [1, 2, 5, 10, 50, 100, 1000, 5999, 6001] {
            let mut allowed = RowSet::none(5990);
            (every / 2..6000).step_by(every).for_each(|row| _ = allowed.insert(row as u64));
            let selection = Selection { allowed: Some(&allowed), groups: None };
            for (k, effort) in [(K, None), (1, Some(1)), (700, Some(1))] {
                let recall = data.recall(&graph, &SearchOptions { k, effort, selection });
                assert!(recall >= 0.97 || effort.is_some(), "{metric}, every {every}: {recall}");
            }
        }
    }
}

/// The queries' neighbours are not selected, so that a walk has to go far.
#[test]
fn selections_far_from_the_query_are_found() {
    let data = Data::new(Metric::Cosine, 32, 6000, 40);
    let graph = data.build();
    let (mut sum, near) = (0.0, data.exact(6000, 1500, Selection::default()));
    for (query, near) in data.queries.iter().zip(near) {
        let mut allowed = RowSet::all(6000);
        near.iter().for_each(|neighbor| allowed.remove(neighbor.row));
        let selection = Selection { allowed: Some(&allowed), groups: None };
        let data = Data { queries: vec![query.clone()], rows: data.rows.clone(), ..data };
        sum += data.recall(&graph, &SearchOptions { selection, ..PLAIN });
    }
    assert!(sum / data.queries.len() as f64 >= 0.85, "{sum}");
}

#[test]
fn the_best_row_of_each_group_is_found() {
    for metric in Metric::ALL {
        let data = Data::new(metric, 32, 5000, 30);
        let graph = data.build();
        let mut half = RowSet::none(5000);
        (0..5000).step_by(2).for_each(|row| _ = half.insert(row));
        for size in [1, 3, 100, 1000, 5000] {
            let groups: Vec<i64> = (0..5000).map(|row| row / size - 3).collect();
            for allowed in [None, Some(&half)] {
                let selection = Selection { allowed, groups: Some(&groups) };
                let recall = data.recall(&graph, &SearchOptions { selection, ..PLAIN });
                assert!(recall >= 0.97, "{metric}, groups of {size}: {recall}");
            }
        }
    }
}

#[test]
fn an_extended_graph_covers_everything_and_the_old_one_stays() {
    for metric in Metric::ALL {
        let data = Data::new(metric, 40, 4000, 50);
        for first in [0, 1, 2000, 2500, 3999, 4000] {
            let old = build(data.vectors().prefix(first), &OPTIONS);
            let before = old.search(data.vectors(), &data.queries(), &PLAIN).unwrap();
            let graph = extend(&old, data.vectors());
            assert_eq!((old.info().rows, graph.info().rows), (first, 4000));
            let recall = data.recall(&graph, &PLAIN);
            assert!(recall >= 0.97, "{metric} from {first}: {recall}");
            assert_eq!(old.search(data.vectors(), &data.queries(), &PLAIN).unwrap(), before);
            assert!(before.iter().flatten().all(|neighbor| neighbor.row < first));
        }
    }
}

#[test]
fn many_small_extensions_and_one_from_a_file_keep_recall() {
    let data = Data::new(Metric::Cosine, 24, 3000, 20);
    let mut graph = build(data.vectors().prefix(1500), &OPTIONS);
    for rows in [1501, 1510, 1800, 2300, 2301, 3000] {
        graph = open(&bytes(&extend(&graph, data.vectors().prefix(rows)))).unwrap();
        assert_eq!(graph.info().rows, rows);
        assert!(data.recall(&graph, &PLAIN) >= 0.97, "{rows}");
    }
}

#[test]
fn a_saved_graph_answers_the_same() {
    for metric in Metric::ALL {
        let data = Data::new(metric, 33, 3000, 20);
        let built = data.build();
        let bytes = bytes(&built);
        let opened = open(&bytes).unwrap();
        opened.check().unwrap();
        assert_eq!(opened.info(), built.info());
        for options in [PLAIN, SearchOptions { effort: Some(12), k: 3, ..PLAIN }] {
            let answers = |graph: &Graph| graph.search(data.vectors(), &data.queries(), &options).unwrap();
            assert_eq!(answers(&opened), answers(&built));
        }
        assert_eq!(opened.write(Vec::new(), [7; 16]).unwrap(), bytes);
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let data = Data::new(Metric::Cosine, 20, 3000, 20);
    let on = |threads| bytes(&build(data.vectors(), &GraphOptions { threads, ..OPTIONS }));
    let first = on(1);
    assert!([2, 5].into_iter().all(|threads| on(threads) == first));
}

#[test]
fn damage_is_noticed_by_a_check_and_never_harms_a_search() {
    let data = Data::new(Metric::InnerProduct, 20, 600, 10);
    let whole = bytes(&data.build());
    let mut allowed = RowSet::none(600);
    (0..600).step_by(7).for_each(|row| _ = allowed.insert(row));
    let groups: Vec<i64> = (0..600).map(|row| row / 4).collect();
    let mut opened = 0;
    // Whole pages of each section, then single bytes all over.
    let pages = (1..whole.len() / 4096).flat_map(|page| [0x00, 0xFF, 0x80].map(|fill| (page * 4096, 4096, fill)));
    let single = (64..whole.len()).step_by(whole.len() / 60).map(|at| (at, 1, 0xA5));
    for (at, length, fill) in pages.chain(single) {
        let mut damaged = whole.clone();
        let end = (at + length).min(whole.len());
        damaged[at..end].fill(fill);
        let Ok(graph) = open(&damaged) else { continue };
        opened += 1;
        for (allowed, groups) in [(None, None), (Some(&allowed), None), (None, Some(&groups[..]))] {
            let options = SearchOptions { selection: Selection { allowed, groups }, ..PLAIN };
            for found in graph.search(data.vectors(), &data.queries()[..4], &options).unwrap() {
                assert_eq!(found.len(), K);
                assert!(found.iter().all(|found| allowed.is_none_or(|allowed| allowed.contains(found.row))));
            }
        }
    }
    assert!(opened > 30, "{opened}");
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    let graph = open(&damaged).unwrap();
    assert!(matches!(graph.check(), Err(IndexError::Damaged { .. })));
}

#[test]
fn few_rows_and_few_dimensions_are_exact() {
    for metric in Metric::ALL {
        for dimension in [1, 2, 64, 65] {
            for count in [0, 1, 2, 3, 9, 23, 24, 25, 26, 100] {
                let data = Data::new(metric, dimension, count, 5);
                for graph in [data.build(), open(&bytes(&data.build())).unwrap()] {
                    for k in [0, 1, K, 200] {
                        let recall = data.recall(&graph, &SearchOptions { k, effort: Some(200), ..PLAIN });
                        assert_eq!(recall, 1.0, "{metric}, {count} rows of {dimension}, k {k}");
                    }
                }
            }
        }
    }
}

#[test]
fn equal_rows_share_a_node_and_hide_nothing() {
    for metric in Metric::ALL {
        let mut data = Data::new(metric, 24, 5000, 20);
        let same = data.rows[..24].to_vec();
        data.rows.chunks_mut(24).skip(1000).step_by(2).for_each(|row| row.copy_from_slice(&same));
        let graph = data.build();
        assert!(graph.shape.nodes <= 3001, "{}", graph.shape.nodes);
        data.queries.push(same.clone());
        for k in [1, K, 100] {
            let recall = data.recall(&graph, &SearchOptions { k, effort: Some(150), ..PLAIN });
            assert!(recall >= 0.97, "{metric}: {recall}");
        }
        // More than the node would give by itself.
        let k = 2500;
        assert!(data.recall(&graph, &SearchOptions { k, ..PLAIN }) >= 0.9);
        let extended = extend(&build(data.vectors().prefix(3000), &OPTIONS), data.vectors());
        assert!(data.recall(&extended, &PLAIN) >= 0.97);
    }
}

#[test]
fn rows_that_are_all_equal_are_found() {
    for metric in Metric::ALL {
        for value in [0.0, 0.25] {
            let mut data = Data::new(metric, 16, 3000, 1);
            if (metric, value) != (Metric::Cosine, 0.0) {
                data.rows.fill(value);
            }
            let graph = data.build();
            let found = graph.search(data.vectors(), &data.queries(), &PLAIN).unwrap();
            assert!(found.iter().all(|found| found.len() == K));
            if value > 0.0 {
                let lowest: Vec<u64> = (0..K as u64).collect();
                assert!(found.iter().all(|found| found.iter().map(|found| found.row).eq(lowest.iter().copied())));
            }
        }
    }
}

#[test]
fn rows_that_are_no_numbers_are_never_results() {
    let mut data = Data::new(Metric::Euclidean, 8, 200, 3);
    data.rows.chunks_mut(8).step_by(2).for_each(|row| row[3] = f32::NAN);
    let graph = data.build();
    for k in [K, 100, 150] {
        let found = graph.search(data.vectors(), &data.queries(), &SearchOptions { k, ..PLAIN }).unwrap();
        assert!(found.iter().all(|found| found.len() == k.min(100)));
        assert!(found.iter().flatten().all(|found| found.row % 2 == 1 && !found.score.is_nan()));
    }
}

#[test]
fn progress_is_told_and_work_can_be_called_off() {
    let data = Data::new(Metric::Cosine, 16, 2000, 10);
    let last = AtomicU64::new(0);
    let progress = |done: u64, total: u64| {
        assert!(done <= total && last.swap(done, Ordering::Relaxed) <= done);
    };
    let graph = Graph::build(data.vectors(), &OPTIONS, &progress, &|| false).unwrap();
    assert_eq!(last.load(Ordering::Relaxed), graph.shape.nodes as u64);
    let asked = AtomicU64::new(0);
    for calls in [0, 1, 5, 20] {
        asked.store(0, Ordering::Relaxed);
        let cancel = || asked.fetch_add(1, Ordering::Relaxed) >= calls;
        let error = Graph::build(data.vectors(), &OPTIONS, &|_, _| (), &cancel).unwrap_err();
        assert_eq!(error, IndexError::Cancelled);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let data = Data::new(Metric::Cosine, 16, 100, 3);
    let graph = data.build();
    for (degree, build_effort) in [(3, 64), (257, 64), (24, 7), (24, 5000)] {
        let options = GraphOptions { degree, build_effort, threads: 1 };
        let error = Graph::build(data.vectors(), &options, &|_, _| (), &|| false).unwrap_err();
        assert!(matches!(error, IndexError::Option { .. }), "{error}");
    }
    let query: &[f32] = &[1.0; 16];
    let other = Vectors::new(16, Metric::Euclidean, &data.rows).unwrap();
    for vectors in [other, data.vectors().prefix(99), Vectors::new(8, Metric::Cosine, &data.rows).unwrap()] {
        assert!(matches!(graph.search(vectors, &[query], &PLAIN), Err(IndexError::OtherRows { .. })));
        assert!(graph.extend(vectors, &OPTIONS, &|_, _| (), &|| false).is_err());
    }
    let error = graph.search(data.vectors(), &[query, &[1.0; 3]], &PLAIN).unwrap_err();
    assert_eq!(error, IndexError::QueryDimension { query: 1, found: 3, expected: 16 });
    let selection = Selection { allowed: None, groups: Some(&[1; 99]) };
    let error = graph.search(data.vectors(), &[query], &SearchOptions { selection, ..PLAIN }).unwrap_err();
    assert_eq!(error, IndexError::GroupCount { found: 99, expected: 100 });
}
