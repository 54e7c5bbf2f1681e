//! General matrix products for training: rows times a weight or its transpose, and the gradient of a weight, which sums over rows.
//!
//! What comes before a product (layer norm, non-linearity) is computed while its operand is packed, so that results of those layers
//! needn't be kept; what comes after (bias, gain, residual, the derivative of a non-linearity) is applied while a tile is in the
//! first-level cache. Every element is summed in an order that depends on the depth alone: results are the same, bit for bit, for any
//! number of threads.

mod gradient;
mod pack;
mod rows;
mod tile;
mod transpose;

use std::cell::RefCell;
use std::ops::Range;

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

pub use gradient::{Gradient, column_sums};
pub use pack::{PackedWeight, Weight};
pub(crate) use rows::normalise;
pub use rows::{Normalisation, Rows, Through};
pub(crate) use tile::{MAX_ROWS, Operands, PANEL, Tile, groups, multiply, shape};
pub(crate) use transpose::eight_rows;

use crate::activation::Nonlinearity;
use crate::instructions::run;
use crate::matrix::SharedRows;
use crate::team::Crew;
use pack::pack_rows;

/// Packed rows of a block: what leaves room in the second-level cache for the panels that pass by.
const BLOCK_FLOATS: usize = 96 << 10;

/// Depth that a tile goes over at a time: three panels of it stay in the second-level cache beside the block.
const DEPTH_PART: usize = 1024;

/// Pieces that each thread gets where there are rows enough.
const PIECES_A_THREAD: usize = 4;

/// What becomes of a product.
#[derive(Debug, Clone, Copy)]
pub enum Then<'a> {
    /// It is stored.
    Store,
    /// It is added to what is there.
    Accumulate,
    /// It is added to these rows and stored.
    AddTo(Rows<'a>),
    /// It is multiplied with the derivative of this non-linearity at what is there, and stored.
    Derivative(Nonlinearity),
}

/// What follows the sums: `(sum * scale + bias) * gain`, and [`Then`].
#[derive(Debug, Clone, Copy)]
pub struct Finish<'a> {
    /// A factor for all.
    pub scale: f32,
    /// A term per column.
    pub bias: Option<&'a [f32]>,
    /// A factor per column.
    pub gain: Option<&'a [f32]>,
    /// What becomes of that.
    pub then: Then<'a>,
}

impl Finish<'_> {
    /// The sums as they are, stored.
    pub const STORE: Self = Finish { scale: 1.0, bias: None, gain: None, then: Then::Store };
    /// The sums as they are, added to what is there.
    pub const ACCUMULATE: Self = Finish { scale: 1.0, bias: None, gain: None, then: Then::Accumulate };
}

/// Where a product goes: some columns of rows of `width` elements.
#[derive(Debug)]
pub struct Target<'a> {
    /// The rows.
    pub data: &'a mut [f32],
    /// Elements of a row.
    pub width: usize,
    /// The columns that are written.
    pub columns: Range<usize>,
}

impl<'a> Target<'a> {
    /// Whole rows.
    pub fn new(data: &'a mut [f32], width: usize) -> Self {
        Self { data, width, columns: 0..width }
    }
}

/// Multiplies rows `[count, depth]` with a packed weight `[depth, out]`.
///
/// # Panics
/// When shapes don't fit.
pub fn product(crew: Crew<'_>, x: Rows<'_>, weight: &PackedWeight, finish: Finish<'_>, target: Target<'_>) {
    let Target { data, width, columns } = target;
    assert!(x.width == weight.depth, "rows of {} meet a weight from {}", x.width, weight.depth);
    assert!(columns.len() == weight.out && columns.end <= width, "{} outputs in columns {columns:?}", weight.out);
    assert!(data.len() == x.count * width, "{} elements for {} rows of {width}", data.len(), x.count);
    assert!([finish.bias, finish.gain].iter().flatten().all(|v| v.len() == weight.out), "shapes don't fit");
    if let Then::AddTo(rows) = finish.then {
        assert!(rows.count == x.count && rows.width == weight.out && rows.is_plain(), "shapes don't fit");
    }
    if x.count == 0 || weight.out == 0 {
        return;
    }
    let out = SharedRows::of(data, width);
    let most = (BLOCK_FLOATS / weight.depth).max(2 * MAX_ROWS);
    let wanted = (crew.threads() * PIECES_A_THREAD).min(x.count.div_ceil(8 * MAX_ROWS)).max(crew.threads());
    // Whole rounds of pieces, so that threads finish together.
    let blocks = x.count.div_ceil(most).max(wanted).next_multiple_of(crew.threads()).min(x.count.div_ceil(MAX_ROWS));
    crew.for_each(blocks, |block| {
        let rows = block * x.count / blocks..(block + 1) * x.count / blocks;
        SCRATCH.with_borrow_mut(|scratch| {
            run(Block { x, weight, finish, out, column: columns.start, rows, scratch });
        });
    });
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What one thread works in.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Packed rows.
    a: Vec<f32>,
    /// Packed panels.
    b: Vec<f32>,
    /// Rows after what they go through.
    filled: Vec<f32>,
    /// Sums of tiles between parts of the depth.
    sums: Vec<Tile>,
}

impl std::fmt::Debug for Tile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tile")
    }
}

/// A slice of a scratch vector with at least this many elements, starting on a cache line.
pub(crate) fn at_least(scratch: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if scratch.len() < length + PANEL {
        scratch.resize(length + PANEL, 0.0);
    }
    let start = scratch.as_ptr().align_offset(64).min(PANEL);
    &mut scratch[start..start + length]
}

/// A block of rows times the whole weight.
struct Block<'a> {
    x: Rows<'a>,
    weight: &'a PackedWeight,
    finish: Finish<'a>,
    out: SharedRows<'a>,
    column: usize,
    rows: Range<usize>,
    scratch: &'a mut Scratch,
}

impl SimdOp for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { x, weight, finish, out, column, rows, scratch } = self;
        let (height, most) = shape(isa);
        let depth = weight.depth;
        let tiles = rows.len().div_ceil(height);
        let a = at_least(&mut scratch.a, pack::rows_size(tiles, height, depth));
        pack_rows(isa, &x, rows.clone(), height, a, &mut scratch.filled);
        let parts = depth.div_ceil(DEPTH_PART);
        scratch.sums.resize(if parts > 1 { tiles } else { 1 }, Tile::default());
        for (panel, panels) in groups(weight.panels(), most) {
            for part in 0..parts {
                let steps = part * depth / parts..(part + 1) * depth / parts;
                for tile in 0..tiles {
                    let first = rows.start + tile * height;
                    let wanted = first..rows.end.min(first + height);
                    if part + 1 == parts {
                        expect(isa, out, wanted.clone(), column + panel * PANEL, panels * PANEL);
                    }
                    let sums = &mut scratch.sums[if parts > 1 { tile } else { 0 }];
                    let operands = Operands {
                        depth: steps.len(),
                        a: a[(tile * depth + steps.start) * height..].as_ptr(),
                        a_row: 1,
                        a_step: height,
                        b: weight.panel(panel)[steps.start * PANEL..].as_ptr(),
                        b_panel: weight.panel_size(),
                        b_step: PANEL,
                    };
                    // SAFETY: each tile has `height` elements for each of `depth` steps in `a`, panels as many times sixteen in the
                    // packed weight.
                    unsafe {
                        if part == 0 {
                            multiply::<I, true, false>(isa, panels, operands, sums);
                        } else {
                            multiply::<I, true, true>(isa, panels, operands, sums);
                        }
                    }
                    if part + 1 == parts {
                        // SAFETY: this block's rows are nobody else's.
                        unsafe { store(isa, sums, &finish, out, wanted, column, panel..panel + panels, weight.out) };
                    }
                }
            }
        }
    }
}

/// Brings the cells that a tile will be stored to into the cache, while its sums are made. Without that each line is waited for when
/// it is written, which took two thirds of the time of shallow products.
#[inline(always)]
pub(crate) fn expect<I: Isa>(isa: I, out: SharedRows<'_>, rows: Range<usize>, column: usize, columns: usize) {
    let ops = isa.f32();
    for row in rows {
        let start = out.pointer(row).wrapping_add(column);
        for at in (0..columns).step_by(PANEL) {
            ops.prefetch_write(start.wrapping_add(at));
        }
    }
}

/// Finishes a tile and stores its columns that exist.
///
/// # Safety
/// Nobody else reads or writes these rows meanwhile.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "coordinates of one tile, each of another kind")]
unsafe fn store<I: Isa>(
    isa: I,
    tile: &mut Tile,
    finish: &Finish<'_>,
    out: SharedRows<'_>,
    rows: Range<usize>,
    column: usize,
    panels: Range<usize>,
    columns: usize,
) {
    for (sums, row) in tile.0.iter_mut().zip(rows) {
        for (sums, panel) in sums.iter_mut().zip(panels.clone()) {
            let wanted = panel * PANEL..columns.min((panel + 1) * PANEL);
            // SAFETY: the caller's promise.
            let cells = unsafe { out.cells(row, column + wanted.start..column + wanted.end) };
            match <&mut [f32; PANEL]>::try_from(&mut *cells) {
                Ok(cells) => finish_panel(isa, sums, finish, row, wanted, cells),
                Err(_) => {
                    let mut padded = [0.0; PANEL];
                    padded[..cells.len()].copy_from_slice(cells);
                    finish_panel(isa, sums, finish, row, wanted, &mut padded);
                    cells.copy_from_slice(&padded[..cells.len()]);
                }
            }
        }
    }
}

/// Sixteen values of a vector that has at least those that are wanted.
#[inline(always)]
fn sixteen(values: &[f32], wanted: &Range<usize>) -> [f32; PANEL] {
    let values = &values[wanted.clone()];
    match <[f32; PANEL]>::try_from(values) {
        Ok(values) => values,
        Err(_) => {
            let mut padded = [0.0; PANEL];
            padded[..values.len()].copy_from_slice(values);
            padded
        }
    }
}

#[inline(always)]
fn finish_panel<I: Isa>(
    isa: I,
    sums: &mut [f32; PANEL],
    finish: &Finish<'_>,
    row: usize,
    wanted: Range<usize>,
    cells: &mut [f32; PANEL],
) {
    let ops = isa.f32();
    let (scale, one) = (ops.splat(finish.scale), finish.scale == 1.0);
    let bias = finish.bias.map(|bias| sixteen(bias, &wanted));
    let gain = finish.gain.map(|gain| sixteen(gain, &wanted));
    for at in (0..PANEL).step_by(ops.len()) {
        let mut x = ops.load(&sums[at..]);
        if !one {
            x = ops.mul(x, scale);
        }
        if let Some(bias) = &bias {
            x = ops.add(x, ops.load(&bias[at..]));
        }
        if let Some(gain) = &gain {
            x = ops.mul(x, ops.load(&gain[at..]));
        }
        ops.store(x, &mut sums[at..]);
    }
    match finish.then {
        Then::Store => *cells = *sums,
        Then::Accumulate => add(isa, sums, &cells.clone(), cells),
        Then::AddTo(rows) => {
            let other = sixteen(rows.raw(row, 0..rows.width), &wanted);
            add(isa, sums, &other, cells);
        }
        Then::Derivative(Nonlinearity::QuickGelu) => chain(isa, sums, Nonlinearity::QuickGelu, cells),
        Then::Derivative(Nonlinearity::Gelu) => chain(isa, sums, Nonlinearity::Gelu, cells),
        Then::Derivative(Nonlinearity::GeluTanh) => chain(isa, sums, Nonlinearity::GeluTanh, cells),
    }
}

#[inline(always)]
fn add<I: Isa>(isa: I, a: &[f32; PANEL], b: &[f32; PANEL], out: &mut [f32; PANEL]) {
    let ops = isa.f32();
    for at in (0..PANEL).step_by(ops.len()) {
        let sum = ops.add(ops.load(&a[at..]), ops.load(&b[at..]));
        ops.store(sum, &mut out[at..]);
    }
}

#[inline(always)]
fn chain<I: Isa>(isa: I, sums: &[f32; PANEL], nonlinearity: Nonlinearity, cells: &mut [f32; PANEL]) {
    let ops = isa.f32();
    for at in (0..PANEL).step_by(ops.len()) {
        let slope = nonlinearity.slope(isa, ops.load(&cells[at..]));
        let product = ops.mul(ops.load(&sums[at..]), slope);
        ops.store(product, &mut cells[at..]);
    }
}

#[cfg(test)]
mod tests;
