//! Exact search: every allowed row is scored, on all cores.
//!
//! One query, or a few, are compared with each row as it comes from memory. Many are one matrix product ([`batch`]), which tells for nearly
//! every row that it isn't among the best; the others are scored as ever, so that results are the same to the last bit.

mod batch;
mod coded;

use crossmodal_kernels::distance::{self, PairOp};
use rayon::prelude::*;

use crate::ann::prepare_queries;
use crate::top_k::{Collect, Grouped};
use crate::{IndexError, Metric, Ranked, RowSet, TopK};
use batch::Batch;
pub use coded::{CodedRows, RowCodes};

/// Values in one piece of work: 256 KiB, which stays in the cache of a core while all queries pass over it.
const CHUNK_VALUES: usize = 1 << 16;
/// Queries that are scored together before their results enter the heaps.
const QUERY_GROUP: usize = 32;

/// A row and its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbor {
    /// The row's number, counted over all blocks.
    pub row: u64,
    /// Higher is better; see [`Metric`].
    pub score: f32,
}

/// Which rows take part in a search, and what counts as one result.
#[derive(Debug, Clone, Copy, Default)]
pub struct Selection<'a> {
    /// Only members take part; all rows when absent. Rows beyond its length don't take part.
    pub allowed: Option<&'a RowSet>,
    /// The group of each row: of several rows of a group, only the best is a result. At least one entry a row.
    pub groups: Option<&'a [i64]>,
}

/// Exact nearest-neighbour search over borrowed blocks of rows, such as several mapped files.
#[derive(Debug, Clone)]
pub struct FlatIndex<'a> {
    dimension: usize,
    metric: Metric,
    chunks: Vec<Chunk<'a>>,
    rows: u64,
    first_row: u64,
}

/// A piece of work: consecutive rows of one block.
#[derive(Debug, Clone, Copy)]
struct Chunk<'a> {
    first_row: u64,
    values: &'a [f32],
}

impl<'a> FlatIndex<'a> {
    /// An index over row-major blocks; rows are numbered through all of them in order. For [`Metric::Cosine`] the
    /// rows must be unit vectors.
    ///
    /// # Errors
    /// A dimension of zero, or a block that isn't a whole number of rows.
    pub fn new(dimension: usize, metric: Metric, blocks: &[&'a [f32]]) -> Result<Self, IndexError> {
        if dimension == 0 {
            return Err(IndexError::ZeroDimension);
        }
        let chunk_rows = match CHUNK_VALUES / dimension {
            rows @ 0..12 => rows.max(1),
            // The height of a tile of the matrix product divides it.
            rows => rows / 6 * 6,
        };
        let (mut chunks, mut rows) = (Vec::new(), 0);
        for (block, values) in blocks.iter().enumerate() {
            if values.len() % dimension != 0 {
                return Err(IndexError::RaggedBlock { block, length: values.len(), dimension });
            }
            for values in values.chunks(chunk_rows * dimension) {
                chunks.push(Chunk { first_row: rows, values });
                rows += (values.len() / dimension) as u64;
            }
        }
        Ok(Self { dimension, metric, chunks, rows, first_row: 0 })
    }

    /// The same rows, counted from `first_row` on: in results, in selections and in groups.
    #[must_use]
    pub fn numbered_from(mut self, first_row: u64) -> Self {
        self.chunks.iter_mut().for_each(|chunk| chunk.first_row = chunk.first_row - self.first_row + first_row);
        self.first_row = first_row;
        self
    }

    /// Number of rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Values per row.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// The metric.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// The `k` best selected rows for each query, best first, equal scores in the order of rows. Each chunk of rows is
    /// read from memory once for all queries. A row whose score is NaN is never a result. Returns fewer than `k` only
    /// when fewer rows (or groups) are selected.
    ///
    /// # Errors
    /// A query of the wrong dimension or with values that can't be compared, or too few groups.
    pub fn search(
        &self,
        queries: &[&[f32]],
        k: usize,
        selection: Selection<'_>,
    ) -> Result<Vec<Vec<Neighbor>>, IndexError> {
        let prepared = prepare_queries(self.dimension, self.metric, queries)?;
        let queries: Vec<&[f32]> = prepared.iter().map(Vec::as_slice).collect();
        if let Some(groups) = selection.groups {
            let expected = self.first_row + self.rows;
            if (groups.len() as u64) < expected {
                return Err(IndexError::GroupCount { found: groups.len() as u64, expected });
            }
            return Ok(self.best(&queries, k, selection.allowed, || Grouped::new(k, groups)));
        }
        Ok(self.best(&queries, k, selection.allowed, || TopK::new(k)))
    }

    /// Scores every chunk on all cores; one collector a query.
    fn best<T: Collect>(
        &self,
        queries: &[&[f32]],
        k: usize,
        allowed: Option<&RowSet>,
        new: impl Fn() -> T + Sync,
    ) -> Vec<Vec<Neighbor>> {
        let batch = Batch::worth_it(self, queries.len(), k).then(|| Batch::new(self.metric, queries));
        let start = || Worker { tops: queries.iter().map(|_| new()).collect(), scratch: Scratch::default() };
        let scan_chunk = |mut worker: Worker<T>, chunk: &Chunk<'_>| {
            let row_count = chunk.values.len() / self.dimension;
            let selected = worker.scratch.select(allowed, chunk.first_row, row_count);
            match &batch {
                Some(batch) => batch.scan(chunk, selected, &mut worker),
                None => self.scan_chunk(chunk, selected, queries, &mut worker),
            }
            worker
        };
        let unite = |mut tops: Vec<T>, others: Vec<T>| {
            tops.iter_mut().zip(others).for_each(|(top, other)| top.merge(other));
            tops
        };
        let parts = self.chunks.par_iter().fold(start, scan_chunk).map(|worker| worker.tops);
        let tops = parts.reduce(|| queries.iter().map(|_| new()).collect(), unite);
        tops.into_iter().map(|top| neighbors(top.into_sorted())).collect()
    }

    fn scan_chunk<T: Collect>(&self, chunk: &Chunk<'_>, selected: bool, queries: &[&[f32]], worker: &mut Worker<T>) {
        let Worker { tops, scratch } = worker;
        let count = if selected { scratch.indices.len() } else { chunk.values.len() / self.dimension };
        if count == 0 {
            return;
        }
        let op = match self.metric {
            Metric::Cosine | Metric::InnerProduct => PairOp::Dot,
            Metric::Euclidean => PairOp::SquaredEuclidean,
        };
        for (queries, tops) in queries.chunks(QUERY_GROUP).zip(tops.chunks_mut(QUERY_GROUP)) {
            scratch.scores.resize(count * queries.len(), 0.0);
            if selected {
                let (indices, scores) = (&scratch.indices, &mut scratch.scores);
                distance::score_selected_rows(op, chunk.values, self.dimension, indices, queries, scores);
            } else {
                distance::score_rows(op, chunk.values, self.dimension, queries, &mut scratch.scores);
            }
            for (top, scores) in tops.iter_mut().zip(scratch.scores.chunks(count)) {
                for (i, score) in scores.iter().enumerate() {
                    let row = if selected { u64::from(scratch.indices[i]) } else { i as u64 };
                    // The root is taken before ranking: distinct squares may have equal roots, and ties go by row.
                    let score = if op == PairOp::Dot { *score } else { -score.sqrt() };
                    top.push(score, chunk.first_row + row);
                }
            }
        }
    }
}

fn neighbors(ranked: Vec<Ranked>) -> Vec<Neighbor> {
    ranked.iter().map(|ranked| Neighbor { row: ranked.row, score: ranked.score }).collect()
}

/// What one part of the work has found so far, and its buffers.
struct Worker<T> {
    tops: Vec<T>,
    scratch: Scratch,
}

/// Buffers that are used again for each chunk.
#[derive(Debug, Default)]
struct Scratch {
    scores: Vec<f32>,
    /// The selected rows of the chunk, relative to its first.
    indices: Vec<u32>,
    batch: batch::Scratch,
}

impl Scratch {
    /// Lists the allowed rows of a chunk; says whether those aren't simply all.
    fn select(&mut self, allowed: Option<&RowSet>, first_row: u64, row_count: usize) -> bool {
        self.indices.clear();
        let Some(allowed) = allowed else { return false };
        let members = allowed.members_in(first_row, row_count as u64);
        self.indices.extend(members.map(|row| (row - first_row) as u32));
        self.indices.len() < row_count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::values;

    struct Case {
        metric: Metric,
        dimension: usize,
        rows: Vec<f32>,
        queries: Vec<Vec<f32>>,
        allowed: Option<RowSet>,
        groups: Option<Vec<i64>>,
    }

    impl Case {
        fn new(metric: Metric, dimension: usize, row_count: usize, query_count: usize) -> Self {
            let mut rows = values(1, dimension * row_count);
            // A third of the rows are copies, so that there are ties.
            for row in (3..row_count).step_by(3) {
                rows.copy_within((row / 2) * dimension..(row / 2 + 1) * dimension, row * dimension);
            }
            if metric == Metric::Cosine {
                rows.chunks_mut(dimension).for_each(|row| {
                    distance::normalize(row);
                });
            }
            let queries = (0..query_count).map(|q| values(100 + q as u64, dimension)).collect();
            Self { metric, dimension, rows, queries, allowed: None, groups: None }
        }

        fn search(&self, blocks: &[&[f32]], k: usize) -> Vec<Vec<Neighbor>> {
            let index = FlatIndex::new(self.dimension, self.metric, blocks).unwrap();
            let queries: Vec<_> = self.queries.iter().map(Vec::as_slice).collect();
            let selection = Selection { allowed: self.allowed.as_ref(), groups: self.groups.as_deref() };
            index.search(&queries, k, selection).unwrap()
        }

        /// Sorts everything.
        fn oracle(&self, query: &[f32], k: usize) -> Vec<Neighbor> {
            let mut query = query.to_vec();
            if self.metric == Metric::Cosine {
                distance::normalize(&mut query);
            }
            let rows = self.rows.chunks(self.dimension).enumerate();
            let allowed = rows.filter(|(row, _)| self.allowed.as_ref().is_none_or(|set| set.contains(*row as u64)));
            let score = |(row, values)| Neighbor { row: row as u64, score: self.metric.score(values, &query) };
            let mut all: Vec<_> = allowed.map(score).collect();
            all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
            if let Some(groups) = &self.groups {
                let mut seen = std::collections::HashSet::new();
                all.retain(|neighbor| seen.insert(groups[neighbor.row as usize]));
            }
            all.truncate(k);
            all
        }

        fn check(&self, k: usize) {
            let cut = self.rows.len() / self.dimension / 3 * self.dimension;
            let (first, second) = self.rows.split_at(cut);
            let found = self.search(&[first, &[], second], k);
            for (found, query) in found.iter().zip(&self.queries) {
                let expected = self.oracle(query, k);
                let wrong = found.iter().zip(&expected).find(|(found, expected)| found != expected);
                assert_eq!(wrong, None, "{} {}", self.metric, self.dimension);
                assert_eq!(found.len(), expected.len(), "{} {}", self.metric, self.dimension);
            }
        }
    }

    #[test]
    fn equals_sorting_everything() {
        for metric in Metric::ALL {
            for (dimension, rows, queries) in [(1, 9, 1), (3, 0, 2), (17, 500, 5), (512, 700, 40), (70_000, 3, 1)] {
                for k in [0, 1, 10, 1000] {
                    Case::new(metric, dimension, rows, queries).check(k);
                }
            }
        }
    }

    /// Enough queries and rows for matrix products, in several parts of the work, and more than a product's columns.
    #[test]
    fn batches_equal_sorting_everything() {
        for metric in Metric::ALL {
            for (dimension, rows, queries) in
                [(1, 400, 17), (5, 3000, 16), (33, 9000, 40), (64, 3000, 300), (130, 2500, 1100)]
            {
                let mut case = Case::new(metric, dimension, rows, queries);
                assert!(Batch::worth_it(&FlatIndex::new(dimension, metric, &[&case.rows]).unwrap(), queries, 10));
                case.check(10);
                // Lengths far apart, where the bounds of the rounding error are wide for some rows.
                if metric != Metric::Cosine {
                    for (number, row) in case.rows.chunks_mut(dimension).enumerate() {
                        let scale = [1.0, 1e-6, 300.0, 1e15, 0.0][number * 7 % 5];
                        row.iter_mut().for_each(|x| *x *= scale);
                    }
                    case.queries.iter_mut().step_by(3).for_each(|query| query.iter_mut().for_each(|x| *x *= 1e4));
                    case.check(10);
                }
                let mut allowed = RowSet::none(rows as u64);
                (0..rows as u64).filter(|row| row % 3 == 0 || row / 500 == 2).for_each(|row| {
                    allowed.insert(row);
                });
                case.allowed = Some(allowed);
                case.check(5);
                case.groups = Some((0..rows as i64).map(|row| row / 7).collect());
                case.check(5);
            }
        }
    }

    #[test]
    fn batches_and_single_queries_agree_on_what_is_no_number() {
        for (metric, dimension) in Metric::ALL.into_iter().flat_map(|metric| [(metric, 6), (metric, 70)]) {
            let mut case = Case::new(metric, dimension, 2000, 20);
            for (at, value) in
                [(3, f32::NAN), (700, f32::INFINITY), (901, f32::NEG_INFINITY), (5000, 3e38), (7001, -3e38)]
            {
                case.rows[at] = value;
            }
            if metric != Metric::Cosine && dimension == 6 {
                case.queries[4].fill(2e38);
                case.queries[5].fill(0.0);
            }
            // Nothing to quantise, and less than the levels of any number.
            case.rows[100 * dimension..101 * dimension].fill(0.0);
            case.rows[101 * dimension..102 * dimension].fill(1e-40);
            let together = case.search(&[&case.rows], 12);
            let index = FlatIndex::new(dimension, metric, &[&case.rows]).unwrap();
            for (query, together) in case.queries.iter().zip(&together) {
                assert_eq!(index.search(&[query], 12, Selection::default()).unwrap()[0], *together, "{metric}");
            }
        }
    }

    #[test]
    fn selections_equal_sorting_what_is_selected() {
        for metric in Metric::ALL {
            for every in [1, 2, 50, 499, 5000] {
                let mut case = Case::new(metric, 33, 5000, 6);
                let mut allowed = RowSet::none(4990);
                (0..5000).step_by(every).for_each(|row| {
                    allowed.insert(row);
                });
                case.allowed = Some(allowed);
                case.check(10);
                case.groups = Some((0..5000).map(|row| row / 7).collect());
                case.check(10);
            }
        }
    }

    #[test]
    fn rows_with_nan_never_win() {
        let rows = [f32::NAN, 0.0, 1.0, 0.0, 0.5, f32::NAN, -1.0, 0.0];
        let index = FlatIndex::new(2, Metric::InnerProduct, &[&rows]).unwrap();
        let found = index.search(&[&[1.0, 1.0]], 4, Selection::default()).unwrap();
        let expected = [Neighbor { row: 1, score: 1.0 }, Neighbor { row: 3, score: -1.0 }];
        assert_eq!(found, [expected]);
    }

    #[test]
    fn wrong_shapes_and_values_are_named() {
        assert_eq!(FlatIndex::new(0, Metric::Cosine, &[]).unwrap_err(), IndexError::ZeroDimension);
        let ragged = FlatIndex::new(2, Metric::Cosine, &[&[], &[1.0]]).unwrap_err();
        assert_eq!(ragged, IndexError::RaggedBlock { block: 1, length: 1, dimension: 2 });
        let rows = [1.0, 0.0];
        let index = FlatIndex::new(2, Metric::Cosine, &[&rows]).unwrap();
        let error = |query: &[f32]| index.search(&[&[1.0, 0.0], query], 1, Selection::default()).unwrap_err();
        assert_eq!(error(&[1.0]), IndexError::QueryDimension { query: 1, found: 1, expected: 2 });
        assert!(matches!(error(&[0.0, 0.0]), IndexError::QueryValue { query: 1, .. }));
        assert!(matches!(error(&[f32::NAN, 0.0]), IndexError::QueryValue { query: 1, .. }));
        let groups = Selection { allowed: None, groups: Some(&[]) };
        let error = index.search(&[&[1.0, 0.0]], 1, groups).unwrap_err();
        assert_eq!(error, IndexError::GroupCount { found: 0, expected: 1 });
    }
}
