//! The gradient of a weight, a sum over rows of the outer products of what came out and what went in, and sums of columns.

use std::ops::Range;

use rten_simd::{Isa, SimdOp};

use super::pack::{pack_steps, steps_size};
use super::rows::Rows;
use super::tile::{MAX_ROWS, Operands, PANEL, Tile, groups, multiply, shape};
use super::{SCRATCH, Scratch, at_least, expect};
use crate::instructions::run;
use crate::matrix::SharedRows;
use crate::team::Crew;

/// Rows that are packed at a time.
const STEPS: usize = 256;

/// Most outputs and most inputs of a piece: packed rows of both fit the second-level cache.
const MOST_OUTPUTS: usize = 384;
const MOST_INPUTS: usize = 384;

/// What the gradient of a weight is computed from.
#[derive(Debug, Clone, Copy)]
pub struct Gradient<'a> {
    /// Gradients of the outputs, `[count, out]`.
    pub outputs: Rows<'a>,
    /// Inputs, `[count, in]`.
    pub inputs: Rows<'a>,
    /// A factor.
    pub scale: f32,
    /// Whether the result is added to what is there.
    pub accumulate: bool,
}

impl Gradient<'_> {
    /// Writes the gradient of the weight `[out, in]`, and of the bias `[out]` where it is wanted (without the factor).
    ///
    /// # Panics
    /// When shapes don't fit.
    pub fn run(&self, crew: Crew<'_>, weight: &mut [f32], bias: Option<&mut [f32]>) {
        let (out, inner) = (self.outputs.width, self.inputs.width);
        assert!(self.outputs.count == self.inputs.count, "{} rows and {}", self.outputs.count, self.inputs.count);
        assert!(weight.len() == out * inner, "{} weights of {out} x {inner}", weight.len());
        assert!(bias.as_ref().is_none_or(|bias| bias.len() == out), "shapes don't fit");
        let mut unwanted = [];
        let has_bias = bias.is_some();
        let bias = SharedRows::of(bias.unwrap_or(&mut unwanted), 1);
        let weight = SharedRows::of(weight, inner.max(1));
        let (across, down) = cut(crew.threads(), out, inner);
        crew.for_each(across * down, |piece| {
            let (outputs, inputs) = (part(out, down, piece / across), part(inner, across, piece % across));
            let bias = (has_bias && piece % across == 0).then_some(bias);
            SCRATCH.with_borrow_mut(|scratch| {
                run(Piece { gradient: self, outputs, inputs, weight, bias, scratch });
            });
        });
    }
}

/// Pieces across the inputs and down the outputs: as few as fit the caches, and enough for the threads. How it is cut changes no sum.
fn cut(threads: usize, out: usize, inner: usize) -> (usize, usize) {
    let (mut across, mut down) = (inner.div_ceil(MOST_INPUTS).max(1), out.div_ceil(MOST_OUTPUTS).max(1));
    while !(across * down).is_multiple_of(threads) && across * down < 4 * threads {
        // The side whose parts are longer is cut.
        let (wide, high) = (inner / across, out / down);
        if wide.max(high) < 4 * PANEL {
            break;
        }
        if wide >= high { across += 1 } else { down += 1 }
    }
    (across, down)
}

/// One of `parts` parts of a length, with borders at whole panels.
fn part(length: usize, parts: usize, number: usize) -> Range<usize> {
    let panels = length.div_ceil(PANEL);
    let border = |number: usize| (number * panels / parts * PANEL).min(length);
    border(number)..border(number + 1)
}

struct Piece<'a> {
    gradient: &'a Gradient<'a>,
    outputs: Range<usize>,
    inputs: Range<usize>,
    weight: SharedRows<'a>,
    bias: Option<SharedRows<'a>>,
    scratch: &'a mut Scratch,
}

impl SimdOp for Piece<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        if shape(isa).0 == 8 { self.run::<I, 8>(isa) } else { self.run::<I, 6>(isa) }
    }
}

impl Piece<'_> {
    #[inline(always)]
    fn run<I: Isa, const HEIGHT: usize>(self, isa: I) {
        let Self { gradient, outputs, inputs, weight, bias, scratch } = self;
        let count = gradient.outputs.count;
        let tiles = outputs.len().div_ceil(HEIGHT);
        let (a_size, b_size) = (steps_size(HEIGHT, STEPS), steps_size(PANEL, STEPS));
        let a = at_least(&mut scratch.a, tiles * a_size);
        let b = at_least(&mut scratch.b, inputs.len().div_ceil(PANEL) * b_size);
        let mut sums = Tile::default();
        let mut start = 0;
        // Once even without rows, so that the result is zeroed.
        loop {
            let rows = start..count.min(start + STEPS);
            let (a_size, b_size) = (steps_size(HEIGHT, rows.len()), steps_size(PANEL, rows.len()));
            pack_steps::<I, HEIGHT>(isa, &gradient.outputs, rows.clone(), outputs.clone(), a, &mut scratch.filled);
            pack_steps::<I, PANEL>(isa, &gradient.inputs, rows.clone(), inputs.clone(), b, &mut scratch.filled);
            let add = gradient.accumulate || start > 0;
            if let Some(bias) = bias {
                for (tile, first) in outputs.clone().step_by(HEIGHT).enumerate() {
                    let values = a[tile * a_size..][..rows.len() * HEIGHT].as_chunks::<HEIGHT>().0;
                    let sums = sum_steps(values);
                    for (row, sum) in (first..outputs.end.min(first + HEIGHT)).zip(sums) {
                        // SAFETY: of the pieces with these outputs, only this one was given the bias.
                        let cell = unsafe { bias.cells(row, 0..1) };
                        cell[0] = if add { cell[0] + sum } else { sum };
                    }
                }
            }
            for (panel, panels) in groups(inputs.len().div_ceil(PANEL), shape(isa).1) {
                for (tile, first) in outputs.clone().step_by(HEIGHT).enumerate() {
                    let operands = Operands {
                        depth: rows.len(),
                        a: a[tile * a_size..].as_ptr(),
                        a_row: 1,
                        a_step: HEIGHT,
                        b: b[panel * b_size..].as_ptr(),
                        b_panel: b_size,
                        b_step: PANEL,
                    };
                    let wanted = first..outputs.end.min(first + HEIGHT);
                    expect(isa, weight, wanted.clone(), inputs.start + panel * PANEL, panels * PANEL);
                    // SAFETY: tiles and panels were laid out above with these sizes. These rows in these columns are this piece's own.
                    unsafe {
                        multiply::<I, true, false>(isa, panels, operands, &mut sums);
                        add_up(&sums, gradient.scale, add, weight, wanted, &inputs, panel..panel + panels);
                    }
                }
            }
            start = rows.end;
            if start >= count {
                break;
            }
        }
    }
}

/// Sums over steps, in four interleaved chains.
#[inline(always)]
fn sum_steps<const HEIGHT: usize>(values: &[[f32; HEIGHT]]) -> [f32; HEIGHT] {
    let mut sums = [[0f32; HEIGHT]; 4];
    let (fours, rest) = values.as_chunks::<4>();
    for four in fours {
        for (sums, values) in sums.iter_mut().zip(four) {
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum += value;
            }
        }
    }
    for values in rest {
        for (sum, value) in sums[0].iter_mut().zip(values) {
            *sum += value;
        }
    }
    std::array::from_fn(|at| (sums[0][at] + sums[1][at]) + (sums[2][at] + sums[3][at]))
}

/// Stores a tile, or adds it to what is there.
///
/// # Safety
/// Nobody else reads or writes these cells meanwhile.
#[inline(always)]
unsafe fn add_up(
    tile: &Tile,
    scale: f32,
    add: bool,
    weight: SharedRows<'_>,
    rows: Range<usize>,
    inputs: &Range<usize>,
    panels: Range<usize>,
) {
    for (sums, row) in tile.0.iter().zip(rows) {
        for (sums, panel) in sums.iter().zip(panels.clone()) {
            let from = inputs.start + panel * PANEL;
            // SAFETY: the caller's promise.
            let cells = unsafe { weight.cells(row, from..inputs.end.min(from + PANEL)) };
            match (<&mut [f32; PANEL]>::try_from(&mut *cells), add) {
                (Ok(cells), true) => {
                    for (cell, sum) in cells.iter_mut().zip(sums) {
                        *cell += sum * scale;
                    }
                }
                (Ok(cells), false) => {
                    for (cell, sum) in cells.iter_mut().zip(sums) {
                        *cell = sum * scale;
                    }
                }
                (Err(_), true) => cells.iter_mut().zip(sums).for_each(|(cell, sum)| *cell += sum * scale),
                (Err(_), false) => cells.iter_mut().zip(sums).for_each(|(cell, sum)| *cell = sum * scale),
            }
        }
    }
}

/// Rows whose columns are summed before the sums of others are added: what makes the result independent of the number of threads.
const SUM_ROWS: usize = 512;

/// Sums each column of rows, on top of what is there with `accumulate`.
///
/// # Panics
/// When shapes don't fit.
pub fn column_sums(crew: Crew<'_>, x: Rows<'_>, accumulate: bool, out: &mut [f32]) {
    assert!(out.len() == x.width, "{} sums of {} columns", out.len(), x.width);
    let parts = x.count.div_ceil(SUM_ROWS);
    let width = x.width.next_multiple_of(PANEL);
    let mut partial = vec![0f32; parts * width];
    let shared = SharedRows::of(&mut partial, width.max(1));
    crew.for_each(parts, |part| {
        // SAFETY: each piece has its own row.
        let sums = unsafe { shared.cells(part, 0..x.width) };
        run(SumRows { x: &x, rows: part * SUM_ROWS..x.count.min((part + 1) * SUM_ROWS), sums });
    });
    if !accumulate {
        out.fill(0.0);
    }
    for partial in partial.chunks_exact(width.max(1)) {
        out.iter_mut().zip(partial).for_each(|(sum, partial)| *sum += partial);
    }
}

struct SumRows<'a> {
    x: &'a Rows<'a>,
    rows: Range<usize>,
    sums: &'a mut [f32],
}

impl SimdOp for SumRows<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { x, rows, sums } = self;
        let mut filled = if x.is_plain() { Vec::new() } else { vec![0.0; x.width] };
        for row in rows {
            let values = if x.is_plain() {
                x.raw(row, 0..x.width)
            } else {
                x.fill(isa, row, 0..x.width, &mut filled);
                &filled
            };
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum += value;
            }
        }
    }
}

const _: () = assert!(MAX_ROWS == 8, "tiles are packed eight rows at a time");
