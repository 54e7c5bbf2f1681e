//! Softmax attention over packed queries, keys and values, without transposed copies of the whole, without a mask in memory, and
//! for sequences of any mix of lengths.
//!
//! A piece of work is one head of one sequence: its keys are laid out as a panel of columns once, then each tile of six queries
//! gives its scores, their softmax, and the mixed values, all in the first-level cache.

use std::cell::RefCell;
use std::ops::Range;

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use crate::activation::exp;
use crate::matrix::{Matrix, SharedRows};
use crate::product::{MAX_ROWS, Operands, PANEL, Tile, any_rows, tile_rows, tiles};
use crate::team::Crew;

/// Heads that are worth handing out together: multiplications of a piece of work.
const PIECE: usize = 1 << 16;

/// The queries of one sequence and the rows they attend to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// Rows of the matrix of queries, and of the result.
    pub queries: Range<usize>,
    /// Rows of the matrix of keys and values that come first: those of a beginning that several sequences share.
    pub prefix: Vec<u32>,
    /// Rows of the matrix of keys and values that follow.
    pub keys: Range<usize>,
}

impl Sequence {
    /// Number of rows attended to.
    fn span(&self) -> usize {
        self.prefix.len() + self.keys.len()
    }

    fn key(&self, at: usize) -> usize {
        if at < self.prefix.len() { self.prefix[at] as usize } else { self.keys.start + at - self.prefix.len() }
    }
}

/// Where queries, keys and values lie, and who attends to whom.
#[derive(Debug, Clone)]
pub struct Attention<'a> {
    /// Number of heads.
    pub heads: usize,
    /// Width of a head.
    pub head_width: usize,
    /// Queries `[rows, heads * head_width]`, already divided by the square root of the head's width, at this column of the matrix.
    pub queries: (&'a Matrix, usize),
    /// Keys and, behind them, values, each `heads * head_width` wide, at this column of the matrix.
    pub keys: (&'a Matrix, usize),
    /// The sequences.
    pub sequences: &'a [Sequence],
    /// Whether query `i` of a sequence attends only to the prefix and the first `i + 1` of its keys.
    pub causal: bool,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

#[derive(Debug, Default)]
struct Scratch {
    /// Keys of a head: `[panel][head_width][16]`.
    keys: Vec<f32>,
    /// Values of a head, where they don't follow each other in memory.
    values: Vec<f32>,
    /// Scores of a tile of queries.
    scores: Vec<f32>,
}

impl Attention<'_> {
    /// Writes the mixed values `[queries, heads * head_width]` to the rows of `out` that the sequences' queries have. Other rows are
    /// left alone.
    ///
    /// # Panics
    /// When shapes don't fit, a row doesn't exist, a sequence has no keys, or two sequences share queries.
    pub fn run(&self, crew: Crew<'_>, out: &mut Matrix) {
        let width = self.heads * self.head_width;
        assert!(out.width() == width, "results of {width} in rows of {}", out.width());
        assert!(self.queries.1 + width <= self.queries.0.width(), "shapes don't fit");
        assert!(self.keys.1 + 2 * width <= self.keys.0.width(), "shapes don't fit");
        let mut end = 0;
        for sequence in self.sequences {
            let rows = self.keys.0.rows();
            assert!(sequence.queries.start >= end, "sequences must have queries of their own, in order");
            end = sequence.queries.end;
            assert!(sequence.span() > 0 && sequence.keys.end <= rows, "a sequence has no keys, or {:?}", sequence.keys);
            assert!(sequence.prefix.iter().all(|row| (*row as usize) < rows), "a prefix lies outside");
            assert!(!self.causal || sequence.queries.len() <= sequence.keys.len(), "more queries than keys");
        }
        assert!(end <= self.queries.0.rows() && end <= out.rows(), "queries {end} lie outside");
        let out = out.shared();
        // Several heads to a piece where sequences are short.
        let typical = self.sequences.first().map_or(1, |s| 2 * s.queries.len() * s.span() * self.head_width);
        let at_a_time = (PIECE / typical.max(1)).clamp(1, self.heads.max(1));
        let pieces = self.heads.div_ceil(at_a_time);
        crew.for_each(self.sequences.len() * pieces, |piece| {
            let sequence = &self.sequences[piece / pieces];
            let first = piece % pieces * at_a_time;
            SCRATCH.with_borrow_mut(|scratch| {
                for head in first..self.heads.min(first + at_a_time) {
                    HeadOp { attention: self, sequence, head, out, scratch }.dispatch();
                }
            });
        });
    }
}

/// One head of one sequence.
struct HeadOp<'a> {
    attention: &'a Attention<'a>,
    sequence: &'a Sequence,
    head: usize,
    out: SharedRows<'a>,
    scratch: &'a mut Scratch,
}

impl SimdOp for HeadOp<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { attention, sequence, head, out, scratch } = self;
        let Attention { heads, head_width, queries, keys, causal, .. } = *attention;
        let (span, width) = (sequence.span(), heads * head_width);
        let column = head * head_width;
        lay_out_keys(isa, scratch, sequence, keys.0, keys.1 + column, head_width);
        let (values, values_stride) = values_of(scratch, sequence, keys.0, keys.1 + width + column, head_width);
        let row_length = span.next_multiple_of(PANEL);
        scratch.scores.resize((MAX_ROWS * row_length).max(scratch.scores.len()), 0.0);
        let mut tile = Tile::default();
        for (from, height) in tiles(sequence.queries.len(), tile_rows(isa)) {
            let first = sequence.queries.start + from;
            // Keys that the tile's last query sees.
            let seen = if causal { sequence.prefix.len() + from + height } else { span };
            for panel in 0..seen.div_ceil(PANEL) {
                let operands = Operands {
                    depth: head_width,
                    a: queries.0.row(first)[queries.1 + column..].as_ptr(),
                    a_stride: queries.0.stride(),
                    b: scratch.keys[panel * head_width * PANEL..].as_ptr(),
                    b_stride: PANEL,
                    prefetch: std::ptr::null(),
                };
                // SAFETY: the tile's queries are rows of their matrix with `head_width` elements from this column, and the panel
                // has `head_width` rows of sixteen.
                unsafe { any_rows::<I, 0, false>(isa, height, operands, &mut tile) };
                for (row, sums) in tile.0.iter().enumerate().take(height) {
                    scratch.scores[row * row_length + panel * PANEL..][..PANEL].copy_from_slice(sums);
                }
            }
            let mut shares = [0f32; MAX_ROWS];
            for (row, share) in shares.iter_mut().enumerate().take(height) {
                let own = if causal { sequence.prefix.len() + from + row + 1 } else { span };
                let scores = &mut scratch.scores[row * row_length..][..row_length];
                *share = 1.0 / exponentials(isa, &mut scores[..seen.next_multiple_of(PANEL)], own);
            }
            for panel in 0..head_width.div_ceil(PANEL) {
                let columns = panel * PANEL..head_width.min((panel + 1) * PANEL);
                let operands = Operands {
                    depth: seen,
                    a: scratch.scores.as_ptr(),
                    a_stride: row_length,
                    b: values.wrapping_add(panel * PANEL),
                    b_stride: values_stride,
                    prefetch: std::ptr::null(),
                };
                // SAFETY: `scores` has `height` rows of `seen` elements, and `values_of` saw to it that sixteen columns from here may be
                // read in each of the `seen` rows. The result's cells are this head's own.
                unsafe {
                    any_rows::<I, 0, false>(isa, height, operands, &mut tile);
                    for (row, sums) in tile.0.iter().enumerate().take(height) {
                        let out = out.cells(first + row, column + columns.start..column + columns.end);
                        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum * shares[row]);
                    }
                }
            }
        }
    }
}

/// Lays out the keys of a head as panels of sixteen columns, zeros beyond the last.
#[inline(always)]
fn lay_out_keys<I: Isa>(
    _isa: I,
    scratch: &mut Scratch,
    sequence: &Sequence,
    keys: &Matrix,
    column: usize,
    head_width: usize,
) {
    let panels = sequence.span().div_ceil(PANEL);
    let size = head_width * PANEL;
    scratch.keys.resize((panels * size).max(scratch.keys.len()), 0.0);
    for (number, panel) in scratch.keys.chunks_exact_mut(size).enumerate().take(panels) {
        let first = number * PANEL;
        let rows: [&[f32]; PANEL] = std::array::from_fn(|at| {
            let at = (first + at).min(sequence.span() - 1);
            &keys.row(sequence.key(at))[column..column + head_width]
        });
        // Eight by eight, which the compiler turns into shuffles where it can.
        for (i, line) in panel.as_chunks_mut::<PANEL>().0.iter_mut().enumerate() {
            for (cell, row) in line.iter_mut().zip(rows) {
                *cell = row[i];
            }
        }
    }
}

/// Where the values of a head can be read as rows of sixteen-column panels: in place, or copied where that isn't so.
#[inline(always)]
fn values_of(
    scratch: &mut Scratch,
    sequence: &Sequence,
    matrix: &Matrix,
    column: usize,
    head_width: usize,
) -> (*const f32, usize) {
    // A row's padding makes it safe to read up to sixteen columns beyond the last, but not from an odd head's end.
    if sequence.prefix.is_empty() && head_width.is_multiple_of(PANEL) {
        return (matrix.row(sequence.keys.start)[column..].as_ptr(), matrix.stride());
    }
    let stride = head_width.next_multiple_of(PANEL);
    scratch.values.resize((sequence.span() * stride).max(scratch.values.len()), 0.0);
    for (at, row) in scratch.values.chunks_exact_mut(stride).enumerate().take(sequence.span()) {
        row[..head_width].copy_from_slice(&matrix.row(sequence.key(at))[column..column + head_width]);
    }
    (scratch.values.as_ptr(), stride)
}

/// Replaces the first `own` scores by `exp(score - largest)` and the others by 0, and returns the sum. `scores` is made of whole
/// panels.
#[inline(always)]
fn exponentials<I: Isa>(isa: I, scores: &mut [f32], own: usize) -> f32 {
    let ops = isa.f32();
    let length = ops.len();
    // What lies beyond is made too small to matter for the maximum, and its exponential 0.
    scores[own..].fill(f32::NEG_INFINITY);
    let mut largest = ops.splat(f32::NEG_INFINITY);
    for scores in scores.chunks_exact(length) {
        largest = ops.max(largest, ops.load(scores));
    }
    let largest = ops.fold_splat(largest, f32::NEG_INFINITY, f32::max);
    let mut sum = ops.zero();
    for scores in scores.chunks_exact_mut(length) {
        let shifted = ops.sub(ops.load(scores), largest);
        let exponential = exp(isa, shifted);
        sum = ops.add(sum, exponential);
        ops.store(exponential, scores);
    }
    // The exponential of what lies beyond is not quite 0.
    scores[own..].fill(0.0);
    ops.sum(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::team::Team;
    use crate::testing::{close, numbers};

    /// Attention of each query, in double precision, straight from the formula.
    fn reference(attention: &Attention<'_>) -> Vec<(usize, Vec<f64>)> {
        let Attention { heads, head_width, queries, keys, sequences, causal } = attention;
        let width = heads * head_width;
        let mut results = Vec::new();
        for sequence in *sequences {
            for (number, query) in sequence.queries.clone().enumerate() {
                let seen = if *causal { sequence.prefix.len() + number + 1 } else { sequence.span() };
                let mut mixed = Vec::new();
                for head in 0..*heads {
                    let q = &queries.0.row(query)[queries.1 + head * head_width..][..*head_width];
                    let part = |row: usize, part: usize| {
                        &keys.0.row(row)[keys.1 + part * width + head * head_width..][..*head_width]
                    };
                    let scores: Vec<f64> = (0..seen)
                        .map(|at| q.iter().zip(part(sequence.key(at), 0)).map(|(a, b)| f64::from(a * b)).sum())
                        .collect();
                    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let total: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
                    for i in 0..*head_width {
                        let value = |at: usize| f64::from(part(sequence.key(at), 1)[i]);
                        mixed.push((0..seen).map(|at| (scores[at] - largest).exp() / total * value(at)).sum());
                    }
                }
                results.push((query, mixed));
            }
        }
        results
    }

    fn check(attention: &Attention<'_>) {
        let team = Team::new(3);
        let session = team.session();
        let expected = reference(attention);
        for crew in [Crew::Solo, Crew::Team(&session)] {
            let mut found = Matrix::zeroed(attention.queries.0.rows(), attention.heads * attention.head_width);
            attention.run(crew, &mut found);
            for (row, expected) in &expected {
                close(found.row(*row), expected, 2e-5);
            }
        }
    }

    #[test]
    fn full_and_causal_attention_equal_their_formula() {
        for (heads, head_width) in [(1, 1), (2, 3), (3, 16), (2, 17), (4, 64), (1, 80)] {
            let width = heads * head_width;
            for lengths in [&[1][..], &[2, 1, 3], &[50], &[77, 5], &[16, 17, 33], &[257]] {
                let rows: usize = lengths.iter().sum();
                let packed = Matrix::from_rows(&numbers(rows * (3 * width + 2), 1), 3 * width + 2);
                let mut start = 0;
                let sequences: Vec<_> = lengths
                    .iter()
                    .map(|length| {
                        let rows = start..start + length;
                        start += length;
                        Sequence { queries: rows.clone(), prefix: Vec::new(), keys: rows }
                    })
                    .collect();
                for causal in [false, true] {
                    let (queries, keys) = ((&packed, 1), (&packed, 1 + width));
                    check(&Attention { heads, head_width, queries, keys, sequences: &sequences, causal });
                }
            }
        }
    }

    #[test]
    fn prefixes_may_lie_anywhere() {
        let (heads, head_width) = (3, 20);
        let width = heads * head_width;
        let keys = Matrix::from_rows(&numbers(40 * 2 * width, 2), 2 * width);
        let queries = Matrix::from_rows(&numbers(12 * width, 3), width);
        let sequences = [
            Sequence { queries: 0..3, prefix: vec![39, 2, 7], keys: 10..13 },
            Sequence { queries: 3..4, prefix: (0..20).rev().collect(), keys: 30..31 },
            Sequence { queries: 5..12, prefix: vec![1], keys: 20..27 },
        ];
        for causal in [false, true] {
            let (queries, keys) = ((&queries, 0), (&keys, 0));
            check(&Attention { heads, head_width, queries, keys, sequences: &sequences, causal });
        }
        // One query over many keys, as for the last block's pooled token.
        let sequences = [Sequence { queries: 4..5, prefix: vec![3, 4, 5], keys: 6..40 }];
        let (queries, keys) = ((&queries, 0), (&keys, 0));
        check(&Attention { heads, head_width, queries, keys, sequences: &sequences, causal: false });
    }

    #[test]
    fn large_scores_do_not_overflow() {
        let mut packed = Matrix::zeroed(3, 3 * 8);
        for row in 0..3 {
            packed.row_mut(row).iter_mut().enumerate().for_each(|(i, x)| *x = ((row * 24 + i) as f32 - 30.0) * 5.0);
        }
        let sequences = [Sequence { queries: 0..3, prefix: Vec::new(), keys: 0..3 }];
        let mut found = Matrix::zeroed(3, 8);
        let attention = Attention {
            heads: 1,
            head_width: 8,
            queries: (&packed, 0),
            keys: (&packed, 8),
            sequences: &sequences,
            causal: false,
        };
        attention.run(Crew::Solo, &mut found);
        assert!(found.to_vec().iter().all(|x| x.is_finite()));
    }
}
