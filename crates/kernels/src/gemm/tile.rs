//! The innermost loop: a tile of rows times one to three panels of sixteen columns, held in registers.
//!
//! With vectors of sixteen elements (32 registers) a tile is eight rows of up to three panels, 24 sums that hide the latency of two
//! units. With shorter vectors it is six rows of one panel.

#![expect(clippy::needless_range_loop, reason = "iterators keep these loops from being unrolled into registers")]

use rten_simd::Isa;
use rten_simd::ops::{BitOps, NumOps};

/// Columns of a panel.
pub(crate) const PANEL: usize = 16;

/// Most rows of a tile.
pub(crate) const MAX_ROWS: usize = 8;

/// Most panels of a tile.
pub(crate) const MAX_PANELS: usize = 3;

/// A tile's sums: row by row, panel by panel.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
pub(crate) struct Tile(pub(crate) [[[f32; PANEL]; MAX_PANELS]; MAX_ROWS]);

/// The operands of a tile.
#[derive(Clone, Copy)]
pub(crate) struct Operands {
    /// Length of the sums.
    pub(crate) depth: usize,
    /// Element of the first row and step of `a`.
    pub(crate) a: *const f32,
    /// Distance between rows of `a`; 1 where they are said to be adjacent.
    pub(crate) a_row: usize,
    /// Distance between steps of `a`.
    pub(crate) a_step: usize,
    /// First of sixteen columns of the first step of the first panel.
    pub(crate) b: *const f32,
    /// Distance between panels.
    pub(crate) b_panel: usize,
    /// Distance between steps of a panel.
    pub(crate) b_step: usize,
}

/// Rows of a full tile, and panels it may have at most.
#[inline(always)]
pub(crate) fn shape<I: Isa>(isa: I) -> (usize, usize) {
    if isa.f32().len() == 16 { (8, 3) } else { (6, 1) }
}

/// Cuts panels into groups of at most `most`, of nearly equal size: their first panel and their number.
pub(crate) fn groups(panels: usize, most: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    let count = panels.div_ceil(most);
    (0..count).map(move |group| {
        let (from, to) = (group * panels / count, (group + 1) * panels / count);
        (from, to - from)
    })
}

/// Sums of `ROWS` rows with `PANELS` panels of `VECTORS` vectors each, on top of those in the tile with `ADD`. With `ADJACENT`, rows of
/// `a` lie next to each other.
///
/// # Safety
/// `a` is valid for `ROWS` rows of `depth` steps, `b` for `depth` steps of sixteen columns of each panel, at their distances; sixteen
/// elements are `VECTORS` vectors of `I`.
#[inline(always)]
unsafe fn sums<
    I: Isa,
    const ROWS: usize,
    const PANELS: usize,
    const VECTORS: usize,
    const ADJACENT: bool,
    const ADD: bool,
>(
    isa: I,
    operands: Operands,
    tile: &mut Tile,
) {
    let ops = isa.f32();
    let length = PANEL / VECTORS;
    let Operands { depth, mut a, a_row, a_step, mut b, b_panel, b_step } = operands;
    let mut sums = [[[ops.zero(); VECTORS]; PANELS]; ROWS];
    if ADD {
        for row in 0..ROWS {
            for panel in 0..PANELS {
                for v in 0..VECTORS {
                    sums[row][panel][v] = ops.load(&tile.0[row][panel][v * length..]);
                }
            }
        }
    }
    let row_distance = if ADJACENT { 1 } else { a_row };
    for _ in 0..depth {
        let mut columns = [[ops.zero(); VECTORS]; PANELS];
        for panel in 0..PANELS {
            for v in 0..VECTORS {
                // SAFETY: the step is one of `depth`, for which the caller vouches.
                columns[panel][v] = unsafe { ops.load_ptr(b.add(panel * b_panel + v * length)) };
            }
        }
        for row in 0..ROWS {
            // SAFETY: as above.
            let x = ops.splat(unsafe { *a.add(row * row_distance) });
            for panel in 0..PANELS {
                for v in 0..VECTORS {
                    sums[row][panel][v] = ops.mul_add(x, columns[panel][v], sums[row][panel][v]);
                }
            }
        }
        a = a.wrapping_add(a_step);
        b = b.wrapping_add(b_step);
    }
    for row in 0..ROWS {
        for panel in 0..PANELS {
            for v in 0..VECTORS {
                ops.store(sums[row][panel][v], &mut tile.0[row][panel][v * length..]);
            }
        }
    }
}

/// As [`sums`], for all rows of a tile and as many panels as [`shape`] allows.
///
/// # Safety
/// As [`sums`].
#[inline(always)]
pub(crate) unsafe fn multiply<I: Isa, const ADJACENT: bool, const ADD: bool>(
    isa: I,
    panels: usize,
    operands: Operands,
    tile: &mut Tile,
) {
    // SAFETY: the caller's promise; the number of vectors is chosen by their length.
    unsafe {
        match (isa.f32().len(), panels) {
            (16, 1) => sums::<I, 8, 1, 1, ADJACENT, ADD>(isa, operands, tile),
            (16, 2) => sums::<I, 8, 2, 1, ADJACENT, ADD>(isa, operands, tile),
            (16, 3) => sums::<I, 8, 3, 1, ADJACENT, ADD>(isa, operands, tile),
            (8, 1) => sums::<I, 6, 1, 2, ADJACENT, ADD>(isa, operands, tile),
            (4, 1) => sums::<I, 6, 1, 4, ADJACENT, ADD>(isa, operands, tile),
            (length, panels) => unreachable!("{panels} panels of vectors of {length} elements"),
        }
    }
}
