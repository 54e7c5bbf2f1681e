//! Inner products, Euclidean distances and norms of `f32` vectors, one pair at a time or blocks of rows at once.
//!
//! Every function picks the widest instruction set of the machine at run time. The sum of one pair is always taken in
//! the same order, whichever function computes it and whatever else is in the batch, so that equal vectors get equal
//! scores and a score does not depend on what it was computed together with.

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

/// Queries and rows of a register tile: twelve sums, loaded from seven places instead of twenty-four.
const TILE_QUERIES: usize = 4;
const TILE_ROWS: usize = 3;

/// Values of a cache line.
const LINE: usize = 16;

/// Bytes ahead of a scan that are asked for.
const AHEAD: usize = 4096;

/// What is computed for a pair of vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairOp {
    /// The inner product.
    Dot,
    /// The squared Euclidean distance.
    SquaredEuclidean,
}

/// The inner product of two slices of equal length; 0 for empty ones.
///
/// # Panics
/// When the lengths differ.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    one_pair(PairOp::Dot, a, b)
}

/// The squared Euclidean distance between two slices of equal length.
///
/// # Panics
/// When the lengths differ.
pub fn squared_euclidean(a: &[f32], b: &[f32]) -> f32 {
    one_pair(PairOp::SquaredEuclidean, a, b)
}

/// The Euclidean length of a vector. Exact to rounding also where the squares overflow or underflow.
pub fn norm(a: &[f32]) -> f32 {
    let squared = dot(a, a);
    if squared.is_finite() && squared > 1e-20 {
        return squared.sqrt();
    }
    let squared: f64 = a.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    squared.sqrt() as f32
}

/// Scales a vector to unit length and returns the length it had. A vector whose length is zero, infinite or NaN is
/// left alone.
pub fn normalize(a: &mut [f32]) -> f32 {
    let length = norm(a);
    if length > 0.0 && length.is_finite() {
        // Dividing instead of multiplying by the inverse: the inverse of a subnormal length is infinite.
        a.iter_mut().for_each(|x| *x /= length);
    }
    length
}

/// Computes `op` for every query with every row of a contiguous row-major block. `out[q * row_count + r]` is the
/// result of query `q` and row `r`. Each tile of rows is read once for several queries.
///
/// # Panics
/// When `rows` isn't a whole number of rows, a query hasn't `dimension` values, or `out` isn't
/// `queries.len() * row_count` long.
pub fn score_rows(op: PairOp, rows: &[f32], dimension: usize, queries: &[&[f32]], out: &mut [f32]) {
    if dimension == 0 {
        assert!(rows.is_empty() && out.is_empty(), "rows of no values can't be counted");
        return;
    }
    assert_eq!(rows.len() % dimension, 0, "{} values are no whole number of rows of {dimension}", rows.len());
    let count = rows.len() / dimension;
    if queries.len() == 1 {
        let lines = dimension.div_ceil(LINE);
        let row = |r: usize| {
            // The processor's own prefetching begins anew in each page of a mapped file.
            let ahead = rows.as_ptr().wrapping_add(r * dimension).wrapping_byte_add(AHEAD);
            (0..lines).for_each(|line| prefetch_line(ahead.wrapping_add(line * LINE)));
            &rows[r * dimension..][..dimension]
        };
        return score(op, dimension, count, row, queries, out);
    }
    score(op, dimension, count, |r| &rows[r * dimension..][..dimension], queries, out);
}

/// As [`score_rows`], for the rows of the block with the given indices only. `out[q * indices.len() + i]` is the
/// result of query `q` and row `indices[i]`.
///
/// # Panics
/// As [`score_rows`], and when an index is outside the block.
pub fn score_selected_rows(
    op: PairOp,
    rows: &[f32],
    dimension: usize,
    indices: &[u32],
    queries: &[&[f32]],
    out: &mut [f32],
) {
    let row = |i: usize| {
        // Rows that aren't neighbours come from memory one by one: the next one is asked for while this one is scored.
        if let Some(next) = indices.get(i + 1) {
            prefetch(&rows[*next as usize * dimension..][..dimension]);
        }
        &rows[indices[i] as usize * dimension..][..dimension]
    };
    score(op, dimension, indices.len(), row, queries, out);
}

/// Brings a row into the cache.
#[inline(always)]
fn prefetch(row: &[f32]) {
    row.chunks(LINE).for_each(|line| prefetch_line(line.as_ptr()));
}

/// Brings a cache line into the cache, whatever the address.
#[inline(always)]
fn prefetch_line(line: *const f32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every processor of this kind has the instruction, and it may be given any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

fn one_pair(op: PairOp, a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "vectors of different lengths can't be compared");
    let mut out = [0.0];
    score(op, a.len(), 1, |_| a, &[b], &mut out);
    out[0]
}

fn score<'a>(
    op: PairOp,
    dimension: usize,
    row_count: usize,
    row: impl Fn(usize) -> &'a [f32],
    queries: &[&[f32]],
    out: &mut [f32],
) {
    for query in queries {
        assert_eq!(query.len(), dimension, "a query has another dimension than the rows");
    }
    assert_eq!(out.len(), queries.len() * row_count, "the output has another length than queries times rows");
    match op {
        PairOp::Dot => Scorer { step: DotStep, dimension, row_count, row, queries, out }.dispatch(),
        PairOp::SquaredEuclidean => Scorer { step: EuclideanStep, dimension, row_count, row, queries, out }.dispatch(),
    }
}

/// How one vector of products enters a sum. Padding lanes are zero in both operands and must add nothing.
trait Step: Copy {
    fn add<O: NumOps<f32>>(self, ops: O, a: O::Simd, b: O::Simd, sum: O::Simd) -> O::Simd;
}

#[derive(Clone, Copy)]
struct DotStep;

impl Step for DotStep {
    #[inline(always)]
    fn add<O: NumOps<f32>>(self, ops: O, a: O::Simd, b: O::Simd, sum: O::Simd) -> O::Simd {
        ops.mul_add(a, b, sum)
    }
}

#[derive(Clone, Copy)]
struct EuclideanStep;

impl Step for EuclideanStep {
    #[inline(always)]
    fn add<O: NumOps<f32>>(self, ops: O, a: O::Simd, b: O::Simd, sum: O::Simd) -> O::Simd {
        let difference = ops.sub(a, b);
        ops.mul_add(difference, difference, sum)
    }
}

struct Scorer<'q, 'o, S, F> {
    step: S,
    dimension: usize,
    row_count: usize,
    row: F,
    queries: &'q [&'q [f32]],
    out: &'o mut [f32],
}

impl<'a, S: Step, F: Fn(usize) -> &'a [f32]> SimdOp for Scorer<'_, '_, S, F> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(mut self, isa: I) {
        let tiled = self.queries.len() / TILE_QUERIES * TILE_QUERIES;
        for first in (0..tiled).step_by(TILE_QUERIES) {
            // The first queries meet rows that come from memory, which arrives fastest as one stream; for the others
            // the rows are in the cache, and several at once share the loads of the queries.
            let done = match first {
                0 => 0,
                _ => self.sweep::<I, TILE_QUERIES, TILE_ROWS>(isa, first, 0),
            };
            self.sweep::<I, TILE_QUERIES, 1>(isa, first, done);
        }
        for query in tiled..self.queries.len() {
            self.sweep::<I, 1, 1>(isa, query, 0);
        }
    }
}

impl<'a, S: Step, F: Fn(usize) -> &'a [f32]> Scorer<'_, '_, S, F> {
    /// Scores `Q` queries with rows from `first_row` on, `R` at a time; returns the first row that is left over.
    #[inline(always)]
    fn sweep<I: Isa, const Q: usize, const R: usize>(&mut self, isa: I, first_query: usize, first_row: usize) -> usize {
        let queries: [&[f32]; Q] = std::array::from_fn(|q| self.queries[first_query + q]);
        let mut next = first_row;
        while next + R <= self.row_count {
            let rows: [&[f32]; R] = std::array::from_fn(|r| (self.row)(next + r));
            let sums = tile(isa, self.step, self.dimension, queries, rows);
            for (q, sums) in sums.iter().enumerate() {
                self.out[(first_query + q) * self.row_count + next..][..R].copy_from_slice(sums);
            }
            next += R;
        }
        next
    }
}

/// The results of `Q` queries with `R` rows, all of length `n`. Each pair has one vector of running sums.
#[inline(always)]
fn tile<I: Isa, S: Step, const Q: usize, const R: usize>(
    isa: I,
    step: S,
    n: usize,
    queries: [&[f32]; Q],
    rows: [&[f32]; R],
) -> [[f32; R]; Q] {
    let ops = isa.f32();
    let width = ops.len();
    // Slices of one visible length let the compiler drop the bounds checks below.
    let queries: [&[f32]; Q] = std::array::from_fn(|q| &queries[q][..n]);
    let rows: [&[f32]; R] = std::array::from_fn(|r| &rows[r][..n]);
    let mut sums = [[ops.zero(); R]; Q];
    let mut at = 0;
    while at + width <= n {
        let row_parts: [_; R] = std::array::from_fn(|r| ops.load(&rows[r][at..at + width]));
        for q in 0..Q {
            let query_part = ops.load(&queries[q][at..at + width]);
            for r in 0..R {
                sums[q][r] = step.add(ops, query_part, row_parts[r], sums[q][r]);
            }
        }
        at += width;
    }
    if at < n {
        let row_parts: [_; R] = std::array::from_fn(|r| ops.load_pad(&rows[r][at..]).0);
        for q in 0..Q {
            let query_part = ops.load_pad(&queries[q][at..]).0;
            for r in 0..R {
                sums[q][r] = step.add(ops, query_part, row_parts[r], sums[q][r]);
            }
        }
    }
    std::array::from_fn(|q| std::array::from_fn(|r| ops.sum(sums[q][r])))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [usize; 19] = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 100, 512, 513];

    /// Repeatable values in -1..1.
    fn values(seed: u64, n: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    /// Scalar, in double precision.
    fn oracle(op: PairOp, a: &[f32], b: &[f32]) -> f32 {
        let pairs = a.iter().zip(b).map(|(a, b)| (f64::from(*a), f64::from(*b)));
        let sum: f64 = match op {
            PairOp::Dot => pairs.map(|(a, b)| a * b).sum(),
            PairOp::SquaredEuclidean => pairs.map(|(a, b)| (a - b) * (a - b)).sum(),
        };
        sum as f32
    }

    fn assert_close(found: f32, expected: f32, what: &str) {
        assert!((found - expected).abs() <= 2e-5 * (1.0 + expected.abs()), "{what}: {found} instead of {expected}");
    }

    #[test]
    fn pairs_equal_the_scalar_oracle() {
        for n in SIZES {
            let (a, b) = (values(1, n), values(2, n));
            assert_close(dot(&a, &b), oracle(PairOp::Dot, &a, &b), &format!("dot {n}"));
            let expected = oracle(PairOp::SquaredEuclidean, &a, &b);
            assert_close(squared_euclidean(&a, &b), expected, &format!("euclidean {n}"));
            assert_close(norm(&a), oracle(PairOp::Dot, &a, &a).sqrt(), &format!("norm {n}"));
        }
    }

    #[test]
    fn blocks_equal_pairs_bit_for_bit() {
        for op in [PairOp::Dot, PairOp::SquaredEuclidean] {
            for dimension in SIZES.into_iter().skip(1) {
                for row_count in [0, 1, 2, 3, 7, 8, 9, 17] {
                    for query_count in [0, 1, 3, 4, 5, 8, 9, 13] {
                        check_block(op, dimension, row_count, query_count);
                    }
                }
            }
        }
    }

    /// Dispatching takes the widest instruction set only; the portable one is what other machines get.
    #[test]
    fn the_portable_instruction_set_equals_the_scalar_oracle() {
        for dimension in SIZES {
            let (rows, query) = (values(1, dimension * 5), values(2, dimension));
            let row = |r: usize| &rows[r * dimension..][..dimension];
            let queries = [&query[..]; 9];
            let mut out = [f32::NAN; 9 * 5];
            let out_of = &mut out[..];
            Scorer { step: DotStep, dimension, row_count: 5, row, queries: &queries, out: out_of }
                .eval(rten_simd::isa::GenericIsa::new());
            for (i, found) in out.iter().enumerate() {
                assert_close(*found, oracle(PairOp::Dot, row(i % 5), &query), &format!("{dimension} {i}"));
            }
        }
    }

    fn check_block(op: PairOp, dimension: usize, row_count: usize, query_count: usize) {
        let rows = values(3, dimension * row_count);
        let queries: Vec<_> = (0..query_count).map(|q| values(10 + q as u64, dimension)).collect();
        let queries: Vec<_> = queries.iter().map(Vec::as_slice).collect();
        let indices: Vec<u32> = (0..row_count as u32).rev().step_by(2).collect();
        let mut out = vec![f32::NAN; query_count * row_count];
        let mut selected = vec![f32::NAN; query_count * indices.len()];
        score_rows(op, &rows, dimension, &queries, &mut out);
        score_selected_rows(op, &rows, dimension, &indices, &queries, &mut selected);
        for (q, query) in queries.iter().enumerate() {
            for r in 0..row_count {
                let row = &rows[r * dimension..][..dimension];
                let found = out[q * row_count + r];
                assert_eq!(found, one_pair(op, row, query), "{op:?} {dimension} query {q} row {r}");
                assert_close(found, oracle(op, row, query), &format!("{op:?} {dimension} query {q} row {r}"));
            }
            for (i, r) in indices.iter().enumerate() {
                assert_eq!(selected[q * indices.len() + i], out[q * row_count + *r as usize]);
            }
        }
    }

    #[test]
    fn normalizing_gives_unit_length_and_the_old_one() {
        for n in SIZES.into_iter().skip(1) {
            for scale in [1.0, 1e-3, 1e25, 1e-30] {
                let original: Vec<_> = values(5, n).iter().map(|x| x * scale).collect();
                let mut unit = original.clone();
                let length = normalize(&mut unit);
                let expected = original.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
                assert_close(length / scale, (expected / f64::from(scale)) as f32, &format!("length {n} {scale}"));
                assert_close(norm(&unit), 1.0, &format!("unit {n} {scale}"));
            }
        }
    }

    #[test]
    fn vectors_without_a_direction_are_left_alone() {
        let mut zero = [0.0; 5];
        assert_eq!(normalize(&mut zero), 0.0);
        assert_eq!(zero, [0.0; 5]);
        assert_eq!(normalize(&mut []), 0.0);
        let mut infinite = [1.0, f32::INFINITY];
        assert_eq!(normalize(&mut infinite), f32::INFINITY);
        assert_eq!(infinite, [1.0, f32::INFINITY]);
        assert!(normalize(&mut [f32::NAN]).is_nan());
    }

    #[test]
    #[should_panic(expected = "different lengths")]
    fn different_lengths_are_refused() {
        dot(&[1.0], &[]);
    }

    #[test]
    #[should_panic(expected = "no whole number of rows")]
    fn ragged_blocks_are_refused() {
        score_rows(PairOp::Dot, &[1.0, 2.0, 3.0], 2, &[], &mut []);
    }
}
