//! Softmax attention for training: forwards, keeping two numbers a row of scores, and backwards, with the shares computed again.
//!
//! A piece of work is a head of a sequence. Queries are taken some at a time, so that their scores stay in the cache however long the
//! sequence. With scores `S = Q K^T` (queries scaled), shares `P = softmax(S)` and `O = P V`: `dV = P^T dO`, `dP = dO V^T`,
//! `dS = P * (dP - rowsum(P * dP))`, `dQ = dS K`, `dK = dS^T Q`.

use std::cell::RefCell;

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use crate::activation::exp;
use crate::gemm::{Operands, PANEL, Tile, at_least, eight_rows, groups, multiply, shape};
use crate::instructions::run;
use crate::matrix::SharedRows;
use crate::team::Crew;

/// Tiles of queries that are taken at a time.
const TILES: usize = 8;

/// Multiplications that make a piece of work worth handing out.
const PIECE: usize = 1 << 17;

/// Who attends to whom within a sequence.
#[derive(Debug, Clone, Copy)]
pub enum Mask<'a> {
    /// Everyone to everyone.
    Full,
    /// Query `i` to keys up to `i`.
    Causal,
    /// What is added to the scores, 0 or minus infinity: `[queries, keys]` for all sequences alike or for each.
    Additive(&'a [f32]),
}

/// Where something lies: columns from `column` on in rows of `stride` elements.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The rows.
    pub data: &'a [f32],
    /// Distance between rows.
    pub stride: usize,
    /// First column.
    pub column: usize,
}

/// Attention of equally long sequences.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// Number of sequences.
    pub sequences: usize,
    /// Number of heads.
    pub heads: usize,
    /// Width of a head.
    pub head_width: usize,
    /// Queries of a sequence.
    pub queries: usize,
    /// Keys of a sequence.
    pub keys: usize,
    /// Where queries are, `heads * head_width` columns; not scaled.
    pub query: Place<'a>,
    /// Where keys are and, behind them, values, `heads * head_width` columns each.
    pub key: Place<'a>,
    /// Who attends to whom.
    pub mask: Mask<'a>,
}

/// Where gradients go, at the places of what they are gradients of.
#[derive(Debug)]
pub enum Gradients<'a> {
    /// Queries, keys and values lie in the same rows.
    Packed(&'a mut [f32]),
    /// Gradients of the rows of queries, and of the rows of keys and values.
    Apart(&'a mut [f32], &'a mut [f32]),
}

impl<'a> Attention<'a> {
    /// Attention over rows that hold queries, keys and values `[sequences * tokens, 3 * heads * head_width]`.
    pub fn packed(qkv: &'a [f32], tokens: usize, (heads, head_width): (usize, usize), mask: Mask<'a>) -> Self {
        let stride = 3 * heads * head_width;
        let sequences = qkv.len() / (tokens * stride).max(1);
        let (query, key) = (Place { data: qkv, stride, column: 0 }, Place { data: qkv, stride, column: stride / 3 });
        Self { sequences, heads, head_width, queries: tokens, keys: tokens, query, key, mask }
    }

    /// Width of what comes out.
    fn width(&self) -> usize {
        self.heads * self.head_width
    }

    fn check(&self) {
        let Self { sequences, queries, keys, query, key, mask, .. } = *self;
        assert!(queries > 0 && keys > 0 && self.width() > 0, "attention without queries, keys or width");
        assert!(query.data.len() >= sequences * queries * query.stride, "queries are missing");
        assert!(key.data.len() >= sequences * keys * key.stride, "keys are missing");
        assert!(query.column + self.width() <= query.stride, "queries leave their rows");
        assert!(key.column + 2 * self.width() <= key.stride, "values leave their rows");
        match mask {
            Mask::Full => {}
            Mask::Causal => assert!(queries == keys, "{queries} queries and {keys} keys can't be causal"),
            Mask::Additive(mask) => {
                let one = queries * keys;
                assert!(mask.len() == one || mask.len() == sequences * one, "a mask of {} elements", mask.len());
            }
        }
    }

    /// Heads of a piece of work, and pieces of a sequence.
    fn pieces(&self) -> (usize, usize) {
        let at_a_time = (PIECE / (2 * self.queries * self.keys * self.head_width).max(1)).clamp(1, self.heads);
        (at_a_time, self.heads.div_ceil(at_a_time))
    }

    /// Writes the mixed values `[sequences * queries, heads * head_width]` and, for each row of scores, the largest and the reciprocal of the
    /// sum of exponentials, `[sequences, heads, queries, 2]`. (Their logarithm in one number would lose digits where scores are large.)
    ///
    /// # Panics
    /// When shapes don't fit.
    pub fn forward(&self, crew: Crew<'_>, out: &mut [f32], statistics: &mut [f32]) {
        self.check();
        assert!(out.len() == self.sequences * self.queries * self.width(), "shapes don't fit");
        assert!(statistics.len() == 2 * self.sequences * self.heads * self.queries, "shapes don't fit");
        let (out, statistics) = (SharedRows::of(out, self.width()), SharedRows::of(statistics, 2 * self.queries));
        let (at_a_time, pieces) = self.pieces();
        crew.for_each(self.sequences * pieces, |piece| {
            let (sequence, first) = (piece / pieces, piece % pieces * at_a_time);
            SCRATCH.with_borrow_mut(|scratch| {
                for head in first..self.heads.min(first + at_a_time) {
                    let head = Head { attention: self, sequence, head };
                    run(Forward { head, out, statistics, scratch });
                }
            });
        });
    }

    /// Writes the gradients of queries, keys and values, given those of the mixed values and the statistics that
    /// [`forward`](Self::forward) wrote.
    ///
    /// # Panics
    /// When shapes don't fit.
    pub fn backward(&self, crew: Crew<'_>, statistics: &[f32], d_out: &[f32], gradients: Gradients<'_>) {
        self.check();
        assert!(d_out.len() == self.sequences * self.queries * self.width(), "shapes don't fit");
        assert!(statistics.len() == 2 * self.sequences * self.heads * self.queries, "shapes don't fit");
        let (dq, dk) = match gradients {
            Gradients::Packed(both) => {
                assert!(both.len() == self.query.data.len() && both.len() == self.key.data.len(), "shapes don't fit");
                let both = SharedRows::of(both, self.query.stride);
                (both, both)
            }
            Gradients::Apart(dq, dk) => {
                assert!(dq.len() == self.query.data.len() && dk.len() == self.key.data.len(), "shapes don't fit");
                (SharedRows::of(dq, self.query.stride), SharedRows::of(dk, self.key.stride))
            }
        };
        let (at_a_time, pieces) = self.pieces();
        crew.for_each(self.sequences * pieces, |piece| {
            let (sequence, first) = (piece / pieces, piece % pieces * at_a_time);
            SCRATCH.with_borrow_mut(|scratch| {
                for head in first..self.heads.min(first + at_a_time) {
                    let head = Head { attention: self, sequence, head };
                    run(Backward { head, statistics, d_out, dq, dk, scratch });
                }
            });
        });
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What one thread works in.
#[derive(Debug, Default)]
struct Scratch {
    /// Scaled queries of a head and gradients of what it gave, in whole tiles.
    queries: Vec<f32>,
    d_out: Vec<f32>,
    /// Keys and values of a head as panels of sixteen of them: `[panel][head_width][16]`.
    key_panels: Vec<f32>,
    value_panels: Vec<f32>,
    /// Keys and values as rows of whole panels, where they don't lie so.
    key_rows: Vec<f32>,
    value_rows: Vec<f32>,
    /// Scores or shares of some queries, and their gradients.
    scores: Vec<f32>,
    d_scores: Vec<f32>,
    /// Sums of the gradients of keys and values.
    d_keys: Vec<f32>,
    d_values: Vec<f32>,
}

/// A head of a sequence.
#[derive(Clone, Copy)]
struct Head<'a> {
    attention: &'a Attention<'a>,
    sequence: usize,
    head: usize,
}

/// Rows of sixteen-column panels.
#[derive(Clone, Copy)]
struct PanelRows {
    start: *const f32,
    stride: usize,
}

impl<'a> Head<'a> {
    /// The head's columns of a row.
    fn row(&self, place: Place<'a>, row: usize, part: usize) -> &'a [f32] {
        let column = place.column + part * self.attention.width() + self.head * self.attention.head_width;
        &place.data[row * place.stride + column..][..self.attention.head_width]
    }

    fn query(&self, at: usize) -> &'a [f32] {
        self.row(self.attention.query, self.sequence * self.attention.queries + at, 0)
    }

    /// A key (part 0) or value (part 1).
    fn key(&self, at: usize, part: usize) -> &'a [f32] {
        self.row(self.attention.key, self.sequence * self.attention.keys + at, part)
    }

    /// Width of the head in whole panels.
    fn padded(&self) -> usize {
        self.attention.head_width.next_multiple_of(PANEL)
    }

    /// Distance between rows of scores: whole panels, and whole tiles when keys are taken as rows.
    fn score_stride(&self, height: usize) -> usize {
        self.attention.keys.next_multiple_of(height).next_multiple_of(PANEL)
    }

    /// Keys that queries before `end` see.
    fn seen(&self, end: usize) -> usize {
        if matches!(self.attention.mask, Mask::Causal) { end } else { self.attention.keys }
    }

    /// Lays out keys (part 0) or values (part 1) as panels.
    fn panels(&self, part: usize, out: &mut [f32]) {
        let (keys, head_width) = (self.attention.keys, self.attention.head_width);
        for (number, panel) in out.chunks_exact_mut(head_width * PANEL).enumerate() {
            for half in 0..2 {
                let first = number * PANEL + half * 8;
                let rows = std::array::from_fn(|at| self.key((first + at).min(keys - 1), part).as_ptr());
                // SAFETY: rows have `head_width` elements, the panel sixteen for each, of which eight from `half * 8` on are written.
                unsafe { eight_rows(rows, head_width, panel[half * 8..].as_mut_ptr(), PANEL) };
            }
        }
    }

    /// Keys (part 0) or values (part 1) as rows whose panels are whole: in place, or copied where that isn't so.
    fn rows(&self, part: usize, copy: &mut Vec<f32>) -> PanelRows {
        let Attention { keys, head_width, key, .. } = *self.attention;
        if head_width.is_multiple_of(PANEL) {
            return PanelRows { start: self.key(0, part).as_ptr(), stride: key.stride };
        }
        let stride = self.padded();
        let copy = at_least(copy, keys * stride);
        for (at, row) in copy.chunks_exact_mut(stride).enumerate() {
            row[..head_width].copy_from_slice(self.key(at, part));
        }
        PanelRows { start: copy.as_ptr(), stride }
    }

    /// Copies queries, scaled, as rows of whole panels and whole tiles.
    fn copy_queries(&self, height: usize, out: &mut Vec<f32>) {
        let scale = (self.attention.head_width as f32).powf(-0.5);
        let (queries, stride) = (self.attention.queries, self.padded());
        let out = at_least(out, queries.next_multiple_of(height) * stride);
        for (at, row) in out.chunks_exact_mut(stride).enumerate().take(queries) {
            row.iter_mut().zip(self.query(at)).for_each(|(out, x)| *out = x * scale);
        }
    }
}

/// Products of all rows of a tile at `a` with panels at a distance of `panel_size`, stored to rows of `stride` elements.
///
/// # Safety
/// `a` has `rows` (whole tiles) of `depth` elements at their stride, each panel `depth` steps; `out` is `rows` long.
#[inline(always)]
unsafe fn scores<I: Isa>(
    isa: I,
    rows: usize,
    (a, a_row): (*const f32, usize),
    (panels, depth): (&[f32], usize),
    out: &mut [f32],
    stride: usize,
    count: usize,
) {
    let (height, most) = shape(isa);
    let mut tile = Tile::default();
    for (panel, number) in groups(count, most) {
        for first in (0..rows).step_by(height) {
            let b = panels[panel * depth * PANEL..].as_ptr();
            let a = a.wrapping_add(first * a_row);
            let operands = Operands { depth, a, a_row, a_step: 1, b, b_panel: depth * PANEL, b_step: PANEL };
            // SAFETY: the caller's promise.
            unsafe { multiply::<I, false, false>(isa, number, operands, &mut tile) };
            for (row, sums) in tile.0.iter().enumerate().take(height) {
                let out = &mut out[(first + row) * stride + panel * PANEL..][..number * PANEL];
                for (out, sums) in out.as_chunks_mut::<PANEL>().0.iter_mut().zip(sums) {
                    *out = *sums;
                }
            }
        }
    }
}

/// Adds the mask to the scores of a query, of which the first `seen` count; the others become minus infinity up to the next whole panel.
#[inline(always)]
fn mask_scores(head: &Head<'_>, query: usize, scores: &mut [f32], seen: usize) {
    if let Mask::Additive(mask) = head.attention.mask {
        let Attention { queries, keys, .. } = *head.attention;
        let first = if mask.len() == queries * keys { 0 } else { head.sequence * queries };
        let mask = &mask[(first + query) * keys..][..keys];
        scores.iter_mut().zip(mask).for_each(|(score, mask)| *score += mask);
    }
    scores[seen..].fill(f32::NEG_INFINITY);
}

/// Replaces scores by `exp(score - largest)` and returns the largest and the sum. Of whole panels.
#[inline(always)]
fn exponentials<I: Isa>(isa: I, scores: &mut [f32], seen: usize) -> (f32, f32) {
    let ops = isa.f32();
    // Of a query that sees nothing all shares are equal, rather than not a number.
    let mut largest = ops.splat(-1e30);
    for scores in scores.chunks_exact(ops.len()) {
        largest = ops.max(largest, ops.load(scores));
    }
    let most = ops.fold_splat(largest, f32::NEG_INFINITY, f32::max);
    let largest = ops.fold_splat(largest, f32::NEG_INFINITY, f32::max);
    let mut sum = ops.zero();
    for scores in scores.chunks_exact_mut(ops.len()) {
        let exponential = exp(isa, ops.sub(ops.load(scores), largest));
        sum = ops.add(sum, exponential);
        ops.store(exponential, scores);
    }
    // The exponential of what lies beyond is not quite 0.
    scores[seen..].fill(0.0);
    let mut first = [0.0; PANEL];
    ops.store(most, &mut first);
    (first[0], ops.sum(sum))
}

struct Forward<'a> {
    head: Head<'a>,
    out: SharedRows<'a>,
    statistics: SharedRows<'a>,
    scratch: &'a mut Scratch,
}

impl SimdOp for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { head, out, statistics, scratch } = self;
        let Attention { heads, head_width, queries, keys, .. } = *head.attention;
        let (height, most) = shape(isa);
        head.copy_queries(height, &mut scratch.queries);
        let q = at_least(&mut scratch.queries, queries.next_multiple_of(height) * head.padded());
        let panels = at_least(&mut scratch.key_panels, keys.div_ceil(PANEL) * head_width * PANEL);
        head.panels(0, panels);
        let values = head.rows(1, &mut scratch.value_rows);
        let stride = head.score_stride(height);
        // SAFETY: each head of a sequence has its own statistics.
        let statistics = unsafe { statistics.cells(head.sequence * heads + head.head, 0..2 * queries) };
        let column = head.head * head_width;
        let mut tile = Tile::default();
        for from in (0..queries).step_by(TILES * height) {
            let end = queries.min(from + TILES * height);
            let rows = (end - from).next_multiple_of(height);
            let shares = at_least(&mut scratch.scores, rows * stride);
            let seen = head.seen(end);
            let first = q[from * head.padded()..].as_ptr();
            let used = seen.div_ceil(PANEL);
            // SAFETY: queries were copied in whole tiles, and there are panels for all keys.
            unsafe { scores(isa, rows, (first, head.padded()), (panels, head_width), shares, stride, used) };
            for query in from..end {
                let row = &mut shares[(query - from) * stride..][..used * PANEL];
                let own = head.seen(query + 1);
                mask_scores(&head, query, row, own);
                let (largest, sum) = exponentials(isa, row, own);
                let factor = 1.0 / sum;
                statistics[2 * query..][..2].copy_from_slice(&[largest, factor]);
                row.iter_mut().for_each(|share| *share *= factor);
            }
            for (panel, number) in groups(head_width.div_ceil(PANEL), most) {
                for first in (0..rows).step_by(height) {
                    let a = shares[first * stride..].as_ptr();
                    let b = values.start.wrapping_add(panel * PANEL);
                    let operands =
                        Operands { depth: seen, a, a_row: stride, a_step: 1, b, b_panel: PANEL, b_step: values.stride };
                    // SAFETY: there are whole tiles of shares, and rows of whole panels for all keys.
                    unsafe { multiply::<I, false, false>(isa, number, operands, &mut tile) };
                    for (at, sums) in tile.0.iter().enumerate().take(height.min(end - from - first)) {
                        let row = head.sequence * queries + from + first + at;
                        let wanted = panel * PANEL..head_width.min((panel + number) * PANEL);
                        // SAFETY: these columns of the sequence's rows are this head's own.
                        let cells = unsafe { out.cells(row, column + wanted.start..column + wanted.end) };
                        for (cells, sums) in cells.chunks_mut(PANEL).zip(sums) {
                            cells.copy_from_slice(&sums[..cells.len()]);
                        }
                    }
                }
            }
        }
    }
}

struct Backward<'a> {
    head: Head<'a>,
    statistics: &'a [f32],
    d_out: &'a [f32],
    dq: SharedRows<'a>,
    dk: SharedRows<'a>,
    scratch: &'a mut Scratch,
}

impl SimdOp for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { head, statistics, d_out, dq, dk, scratch } = self;
        let Attention { heads, head_width, queries, keys, key, .. } = *head.attention;
        let (height, padded) = (shape(isa).0, head.padded());
        let whole = queries.next_multiple_of(height);
        head.copy_queries(height, &mut scratch.queries);
        let q = at_least(&mut scratch.queries, whole * padded);
        let d_mixed = at_least(&mut scratch.d_out, whole * padded);
        for (at, row) in d_mixed.chunks_exact_mut(padded).enumerate().take(queries) {
            let from = (head.sequence * queries + at) * head.attention.width() + head.head * head_width;
            row[..head_width].copy_from_slice(&d_out[from..from + head_width]);
        }
        let panels = keys.div_ceil(PANEL) * head_width * PANEL;
        let key_panels = at_least(&mut scratch.key_panels, panels);
        head.panels(0, key_panels);
        let value_panels = at_least(&mut scratch.value_panels, panels);
        head.panels(1, value_panels);
        let key_rows = head.rows(0, &mut scratch.key_rows);
        let stride = head.score_stride(height);
        let sums = keys.next_multiple_of(height) * padded;
        let (d_keys, d_values) = (at_least(&mut scratch.d_keys, sums), at_least(&mut scratch.d_values, sums));
        d_keys.fill(0.0);
        d_values.fill(0.0);
        let statistics = &statistics.as_chunks::<2>().0[(head.sequence * heads + head.head) * queries..][..queries];
        for from in (0..queries).step_by(TILES * height) {
            let end = queries.min(from + TILES * height);
            let rows = (end - from).next_multiple_of(height);
            let shares = at_least(&mut scratch.scores, rows * stride);
            let d_scores = at_least(&mut scratch.d_scores, rows * stride);
            let seen = head.seen(end);
            let used = seen.div_ceil(PANEL);
            let (q, d_mixed) = (&q[from * padded..], &d_mixed[from * padded..]);
            // SAFETY: both were copied in whole tiles, and there are panels for all keys.
            unsafe {
                scores(isa, rows, (q.as_ptr(), padded), (key_panels, head_width), shares, stride, used);
                scores(isa, rows, (d_mixed.as_ptr(), padded), (value_panels, head_width), d_scores, stride, used);
            }
            for (row, statistics) in statistics[from..end].iter().enumerate() {
                let cells = row * stride..row * stride + used * PANEL;
                let own = head.seen(from + row + 1);
                mask_scores(&head, from + row, &mut shares[cells.clone()], own);
                through_softmax(isa, &mut shares[cells.clone()], &mut d_scores[cells], *statistics, own);
            }
            // SAFETY: whole tiles of gradients of scores, rows of whole panels of all keys; the head's columns are its own.
            unsafe {
                query_gradients(isa, &head, (from, end), (d_scores, stride, seen), key_rows, dq);
                let depth = end - from;
                add_key_gradients(isa, (d_scores, stride), (q, padded), depth, seen, head_width, d_keys);
                add_key_gradients(isa, (shares, stride), (d_mixed, padded), depth, seen, head_width, d_values);
            }
        }
        for at in 0..keys {
            for (part, sums) in [&*d_keys, &*d_values].into_iter().enumerate() {
                let column = key.column + part * head.attention.width() + head.head * head_width;
                // SAFETY: these columns of the sequence's rows are this head's own.
                let cells = unsafe { dk.cells(head.sequence * keys + at, column..column + head_width) };
                cells.copy_from_slice(&sums[at * padded..][..head_width]);
            }
        }
    }
}

/// Turns a query's scores into shares, and gradients of shares into gradients of scores. Of whole panels; the first `seen` count.
#[inline(always)]
fn through_softmax<I: Isa>(
    isa: I,
    scores: &mut [f32],
    gradients: &mut [f32],
    [largest, factor]: [f32; 2],
    seen: usize,
) {
    let ops = isa.f32();
    let length = ops.len();
    let (shift, factor) = (ops.splat(largest), ops.splat(factor));
    let whole = scores.len();
    for at in (0..whole).step_by(length) {
        let exponential = exp(isa, ops.sub(ops.load(&scores[at..]), shift));
        ops.store(ops.mul(exponential, factor), &mut scores[at..]);
    }
    scores[seen..].fill(0.0);
    let mut total = ops.zero();
    for at in (0..whole).step_by(length) {
        total = ops.mul_add(ops.load(&scores[at..]), ops.load(&gradients[at..]), total);
    }
    let total = ops.splat(ops.sum(total));
    for at in (0..whole).step_by(length) {
        let difference = ops.sub(ops.load(&gradients[at..]), total);
        ops.store(ops.mul(ops.load(&scores[at..]), difference), &mut gradients[at..]);
    }
}

/// Writes the gradients of some queries.
///
/// # Safety
/// There are whole tiles of gradients of scores for them, rows of whole panels of all keys, and nobody else has the head's columns of
/// these rows.
#[inline(always)]
unsafe fn query_gradients<I: Isa>(
    isa: I,
    head: &Head<'_>,
    (from, end): (usize, usize),
    (d_scores, stride, seen): (&[f32], usize, usize),
    keys: PanelRows,
    dq: SharedRows<'_>,
) {
    let Attention { head_width, queries, query, .. } = *head.attention;
    let (height, most) = shape(isa);
    let scale = (head_width as f32).powf(-0.5);
    let column = query.column + head.head * head_width;
    let mut tile = Tile::default();
    for (panel, number) in groups(head_width.div_ceil(PANEL), most) {
        for first in (0..end - from).step_by(height) {
            let a = d_scores[first * stride..].as_ptr();
            let b = keys.start.wrapping_add(panel * PANEL);
            let operands =
                Operands { depth: seen, a, a_row: stride, a_step: 1, b, b_panel: PANEL, b_step: keys.stride };
            // SAFETY: the caller's promise.
            unsafe { multiply::<I, false, false>(isa, number, operands, &mut tile) };
            for (at, sums) in tile.0.iter().enumerate().take(height.min(end - from - first)) {
                let row = head.sequence * queries + from + first + at;
                let wanted = panel * PANEL..head_width.min((panel + number) * PANEL);
                // SAFETY: the caller's promise.
                let cells = unsafe { dq.cells(row, column + wanted.start..column + wanted.end) };
                for (cells, sums) in cells.chunks_mut(PANEL).zip(sums) {
                    cells.iter_mut().zip(sums).for_each(|(cell, sum)| *cell = sum * scale);
                }
            }
        }
    }
}

/// Adds `weights^T values` to `out`: for each key the sum over `depth` queries.
///
/// # Safety
/// `weights` has `depth` rows of whole tiles and panels of keys, `values` as many of whole panels, `out` whole tiles of keys.
#[inline(always)]
unsafe fn add_key_gradients<I: Isa>(
    isa: I,
    (weights, stride): (&[f32], usize),
    (values, padded): (&[f32], usize),
    depth: usize,
    seen: usize,
    head_width: usize,
    out: &mut [f32],
) {
    let ops = isa.f32();
    let (height, most) = shape(isa);
    let mut tile = Tile::default();
    for (panel, number) in groups(head_width.div_ceil(PANEL), most) {
        for first in (0..seen).step_by(height) {
            let a = weights[first..].as_ptr();
            let b = values[panel * PANEL..].as_ptr();
            let operands = Operands { depth, a, a_row: 1, a_step: stride, b, b_panel: PANEL, b_step: padded };
            // SAFETY: the caller's promise.
            unsafe { multiply::<I, true, false>(isa, number, operands, &mut tile) };
            for (at, sums) in tile.0.iter().enumerate().take(height) {
                let out = &mut out[(first + at) * padded + panel * PANEL..][..number * PANEL];
                for (out, sums) in out.as_chunks_mut::<PANEL>().0.iter_mut().zip(sums) {
                    for at in (0..PANEL).step_by(ops.len()) {
                        let sum = ops.add(ops.load(&out[at..]), ops.load(&sums[at..]));
                        ops.store(sum, &mut out[at..]);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
