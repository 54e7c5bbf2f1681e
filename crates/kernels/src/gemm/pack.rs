//! Operands in the order in which tiles read them.

use std::ops::Range;

use rten_simd::ops::BitOps;
use rten_simd::{Isa, SimdOp};

use super::rows::Rows;
use super::tile::PANEL;
use super::transpose::eight_rows;
use crate::instructions::run;
use crate::lease::Lease;
use crate::matrix::SharedRows;
use crate::team::Crew;

/// Floats beyond the last tile that transposing may write to.
const SURPLUS: usize = 8;

/// Steps that are transposed at a time: eight rows of them stay in the first-level cache.
const STEPS: usize = 256;

/// A weight as it lies in memory, row-major.
#[derive(Debug, Clone, Copy)]
pub enum Weight<'a> {
    /// `[out, depth]`: rows are multiplied with its transpose, as a linear layer does.
    OutDepth(&'a [f32]),
    /// `[depth, out]`: rows are multiplied with it as it is, as the gradient of a linear layer's input is.
    DepthOut(&'a [f32]),
}

/// A weight in panels of sixteen outputs: `[panel][depth][16]`. What lies beyond the last output isn't specified.
#[derive(Debug)]
pub struct PackedWeight {
    data: Lease,
    pub(crate) depth: usize,
    pub(crate) out: usize,
}

impl PackedWeight {
    /// Packs a weight of this depth.
    ///
    /// # Panics
    /// When `depth` is 0 or doesn't divide the weight's length.
    pub fn new(crew: Crew<'_>, weight: Weight<'_>, depth: usize) -> Self {
        let (Weight::OutDepth(values) | Weight::DepthOut(values)) = weight;
        assert!(depth > 0 && values.len().is_multiple_of(depth), "{} weights of depth {depth}", values.len());
        let out = values.len() / depth;
        let panels = out.div_ceil(PANEL);
        let size = panel_size(depth);
        let mut data = Lease::of(panels * size);
        let shared = SharedRows::of(&mut data, size);
        crew.for_each(panels, |panel| {
            // SAFETY: each piece has its own panel.
            let cells = unsafe { shared.cells(panel, 0..size) };
            run(PackPanel { weight, depth, out, panel, cells });
        });
        Self { data, depth, out }
    }

    /// Number of panels.
    pub(crate) fn panels(&self) -> usize {
        self.out.div_ceil(PANEL)
    }

    /// Distance between panels.
    pub(crate) fn panel_size(&self) -> usize {
        panel_size(self.depth)
    }

    /// A panel and those behind it.
    pub(crate) fn panel(&self, panel: usize) -> &[f32] {
        &self.data[panel * self.panel_size()..]
    }
}

/// Room for a panel. A line more than it needs, so that panels of a depth of a power of two don't meet in the same lines of a cache.
fn panel_size(depth: usize) -> usize {
    depth * PANEL + PANEL
}

struct PackPanel<'a> {
    weight: Weight<'a>,
    depth: usize,
    out: usize,
    panel: usize,
    cells: &'a mut [f32],
}

impl SimdOp for PackPanel<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, _isa: I) {
        let Self { weight, depth, out, panel, cells } = self;
        match weight {
            Weight::OutDepth(values) => {
                for from in (0..depth).step_by(STEPS) {
                    let steps = from..depth.min(from + STEPS);
                    for half in 0..2 {
                        let rows = std::array::from_fn(|row| {
                            let row = (panel * PANEL + half * 8 + row).min(out - 1);
                            values[row * depth + steps.start..][..steps.len()].as_ptr()
                        });
                        let to = cells[steps.start * PANEL + half * 8..].as_mut_ptr();
                        // SAFETY: the rows have these steps; the panel has sixteen elements for each and another sixteen.
                        unsafe { eight_rows(rows, steps.len(), to, PANEL) };
                    }
                }
            }
            Weight::DepthOut(values) => {
                let columns = panel * PANEL..out.min((panel + 1) * PANEL);
                for (step, cells) in cells.chunks_exact_mut(PANEL).enumerate().take(depth) {
                    copy_columns(&values[step * out..][columns.clone()], cells);
                }
            }
        }
    }
}

/// Rows by which steps are fetched ahead: rows are too short for the processor to foresee the next one.
const AHEAD: usize = 4;

/// Brings values into the cache.
#[inline(always)]
fn prefetch<I: Isa>(isa: I, values: &[f32]) {
    for line in values.chunks(PANEL) {
        isa.f32().prefetch(line.as_ptr());
    }
}

/// Copies up to sixteen columns.
#[inline(always)]
fn copy_columns(from: &[f32], to: &mut [f32]) {
    match (<&[f32; PANEL]>::try_from(from), <&mut [f32; PANEL]>::try_from(&mut *to)) {
        (Ok(from), Ok(to)) => *to = *from,
        _ => to[..from.len()].copy_from_slice(from),
    }
}

/// Room that tiles of packed rows need.
pub(super) fn rows_size(tiles: usize, height: usize, depth: usize) -> usize {
    tiles * height * depth + SURPLUS
}

/// Packs rows as tiles `[tile][depth][height]`. What lies beyond the last row isn't specified.
#[inline(always)]
pub(super) fn pack_rows<I: Isa>(
    isa: I,
    x: &Rows<'_>,
    rows: Range<usize>,
    height: usize,
    out: &mut [f32],
    filled: &mut Vec<f32>,
) {
    let depth = x.width;
    if !x.is_plain() {
        filled.resize((8 * STEPS).max(filled.len()), 0.0);
    }
    for (tile, first) in rows.clone().step_by(height).enumerate() {
        for row in first + height..rows.end.min(first + 2 * height) {
            prefetch(isa, x.raw(row, 0..depth));
        }
        for from in (0..depth).step_by(STEPS) {
            let steps = from..depth.min(from + STEPS);
            let length = steps.len();
            let mut pointers = [std::ptr::null(); 8];
            for (lane, pointer) in pointers.iter_mut().enumerate() {
                let row = first + lane;
                *pointer = if x.is_plain() {
                    x.raw(row.min(rows.end - 1), steps.clone()).as_ptr()
                } else {
                    let cells = &mut filled[lane * STEPS..][..length];
                    if lane < height && row < rows.end {
                        x.fill(isa, row, steps.clone(), cells);
                    }
                    cells.as_ptr()
                };
            }
            let to = out[(tile * depth + from) * height..][..length * height + 8 - height].as_mut_ptr();
            // SAFETY: the pointers are to `length` elements each, of rows or of `filled`; the result is as long as was just cut out.
            unsafe { eight_rows(pointers, length, to, height) };
        }
    }
}

/// Distance between tiles or panels of `across` elements a step that [`pack_steps`] lays out.
pub(super) fn steps_size(across: usize, steps: usize) -> usize {
    // A line more, as for `panel_size`.
    steps * across + PANEL
}

/// Packs some columns of rows, whose number is the depth, as `[group of ACROSS columns][row][ACROSS]`. What lies beyond the last column
/// isn't specified.
#[inline(always)]
pub(super) fn pack_steps<I: Isa, const ACROSS: usize>(
    isa: I,
    x: &Rows<'_>,
    rows: Range<usize>,
    columns: Range<usize>,
    out: &mut [f32],
    filled: &mut Vec<f32>,
) {
    let size = steps_size(ACROSS, rows.len());
    filled.resize(columns.len().max(filled.len()), 0.0);
    let last = rows.end - 1;
    for (step, row) in rows.enumerate() {
        prefetch(isa, x.raw((row + AHEAD).min(last), columns.clone()));
        let values = if x.is_plain() {
            x.raw(row, columns.clone())
        } else {
            let cells = &mut filled[..columns.len()];
            x.fill(isa, row, columns.clone(), cells);
            &*cells
        };
        let (whole, rest) = values.as_chunks::<ACROSS>();
        for (group, values) in whole.iter().enumerate() {
            out[group * size + step * ACROSS..][..ACROSS].copy_from_slice(values);
        }
        if !rest.is_empty() {
            out[whole.len() * size + step * ACROSS..][..rest.len()].copy_from_slice(rest);
        }
    }
}
