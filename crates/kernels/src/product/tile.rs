//! The innermost loop: a few rows times one panel of sixteen columns, held in registers.

#![expect(clippy::needless_range_loop, reason = "iterators keep these loops from being unrolled into registers")]

use rten_simd::Isa;
use rten_simd::ops::{BitOps, NumOps};

/// Columns of a panel.
pub(crate) const PANEL: usize = 16;

/// Most rows of a tile of two or four vectors: twelve sums leave four of sixteen registers for operands.
pub(crate) const TILE_ROWS: usize = 6;

/// Most rows of any tile. Where a vector holds all sixteen columns there are thirty-two registers, and six sums would wait for each
/// other.
pub(crate) const MAX_ROWS: usize = 12;

/// Most rows of a tile in this instruction set.
#[inline(always)]
pub(crate) fn tile_rows<I: Isa>(isa: I) -> usize {
    if isa.f32().len() == PANEL { MAX_ROWS } else { TILE_ROWS }
}

/// A tile's sums, row by row.
#[derive(Default)]
#[repr(C, align(64))]
pub(crate) struct Tile(pub(crate) [[f32; PANEL]; MAX_ROWS]);

/// The operands of a tile.
#[derive(Clone, Copy)]
pub(crate) struct Operands {
    /// Length of the sums.
    pub(crate) depth: usize,
    /// First element of the first row of `a`.
    pub(crate) a: *const f32,
    /// Distance between rows of `a`.
    pub(crate) a_stride: usize,
    /// First of sixteen columns of the first row of `b`.
    pub(crate) b: *const f32,
    /// Distance between rows of `b`.
    pub(crate) b_stride: usize,
    /// Memory to bring into the cache meanwhile, `depth / 4 * LINES` lines of it.
    pub(crate) prefetch: *const f32,
}

/// Sums of `ROWS` rows of `a` with sixteen columns of `b`, in `VECTORS` vectors, on top of those in the tile with `ADD`; `LINES` cache
/// lines are prefetched for each four steps.
///
/// # Safety
/// `a` is valid for `ROWS` rows of `depth` elements, `b` for `depth` rows of sixteen, at their strides; sixteen elements are
/// `VECTORS` vectors of `I`. `prefetch` may point anywhere.
#[inline(always)]
unsafe fn sums<I: Isa, const ROWS: usize, const VECTORS: usize, const LINES: usize, const ADD: bool>(
    isa: I,
    operands: Operands,
    tile: &mut Tile,
) {
    let ops = isa.f32();
    let length = PANEL / VECTORS;
    let Operands { depth, a, a_stride, b, b_stride, prefetch } = operands;
    let mut sums = [[ops.zero(); VECTORS]; ROWS];
    if ADD {
        for row in 0..ROWS {
            for v in 0..VECTORS {
                sums[row][v] = ops.load(&tile.0[row][v * length..]);
            }
        }
    }
    let mut k = 0;
    let mut line = prefetch;
    while k + 4 <= depth {
        for _ in 0..LINES {
            ops.prefetch(line);
            line = line.wrapping_add(PANEL);
        }
        // SAFETY: steps up to `k + 3` are below `depth`, so these elements are among those the caller vouches for.
        unsafe {
            step(ops, a.add(k), a_stride, b.add(k * b_stride), &mut sums);
            step(ops, a.add(k + 1), a_stride, b.add((k + 1) * b_stride), &mut sums);
            step(ops, a.add(k + 2), a_stride, b.add((k + 2) * b_stride), &mut sums);
            step(ops, a.add(k + 3), a_stride, b.add((k + 3) * b_stride), &mut sums);
        }
        k += 4;
    }
    while k < depth {
        // SAFETY: `k < depth`.
        unsafe { step(ops, a.add(k), a_stride, b.add(k * b_stride), &mut sums) };
        k += 1;
    }
    for row in 0..ROWS {
        for v in 0..VECTORS {
            ops.store(sums[row][v], &mut tile.0[row][v * length..]);
        }
    }
}

/// Adds the products of one column of rows of `a` with one row of `b`. Written without closures and iterators: what isn't inlined
/// into a function compiled for the instruction set is compiled for the least one, and hundred times slower.
///
/// # Safety
/// `a` is valid for `ROWS` elements at the stride, `b` for sixteen.
#[inline(always)]
unsafe fn step<T: Copy, O: NumOps<f32, Simd = T>, const ROWS: usize, const VECTORS: usize>(
    ops: O,
    a: *const f32,
    a_stride: usize,
    b: *const f32,
    sums: &mut [[T; VECTORS]; ROWS],
) {
    let mut columns = [ops.zero(); VECTORS];
    for v in 0..VECTORS {
        // SAFETY: the caller's promise.
        columns[v] = unsafe { ops.load_ptr(b.add(v * (PANEL / VECTORS))) };
    }
    for row in 0..ROWS {
        // SAFETY: the caller's promise.
        let x = ops.splat(unsafe { *a.add(row * a_stride) });
        for v in 0..VECTORS {
            sums[row][v] = ops.mul_add(x, columns[v], sums[row][v]);
        }
    }
}

/// As [`sums`] for a number of rows from 1 to [`tile_rows`] that is known only now.
///
/// # Safety
/// As [`sums`] for `rows` rows.
#[inline(always)]
pub(crate) unsafe fn any_rows<I: Isa, const LINES: usize, const ADD: bool>(
    isa: I,
    rows: usize,
    operands: Operands,
    tile: &mut Tile,
) {
    macro_rules! rows {
        ($vectors:literal: $($rows:literal)*) => {
            match rows {
                // SAFETY: the caller's promise; the number of vectors is chosen by their length below.
                $($rows => unsafe { sums::<I, $rows, $vectors, LINES, ADD>(isa, operands, tile) },)*
                _ => unreachable!("a tile has no {rows} rows"),
            }
        };
    }
    match isa.f32().len() {
        16 => rows!(1: 1 2 3 4 5 6 7 8 9 10 11 12),
        8 => rows!(2: 1 2 3 4 5 6),
        4 => rows!(4: 1 2 3 4 5 6),
        other => unreachable!("vectors of {other} elements"),
    }
}

/// The rows of a block cut into tiles of nearly equal height, at most `most`.
pub(crate) fn tiles(rows: usize, most: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    let count = rows.div_ceil(most).max(1);
    (0..count).map(move |tile| {
        let (from, to) = (tile * rows / count, (tile + 1) * rows / count);
        (from, to - from)
    })
}
