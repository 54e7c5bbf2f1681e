//! The product of activations with packed weights, with what comes before and after it fused in: layer norm and quantisation
//! of a block of rows ahead of it, bias, non-linearity or residual sum on the tile while it is still in registers' reach.
//!
//! Rows are cut into blocks and outputs into groups of panels; a block times a group is a piece of work for one thread. A panel
//! of weights (sixteen outputs, all inputs) is read from memory once for a block while the next one is prefetched.

mod int8;
mod pack;
mod tile;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

pub use pack::{INT8_LEVELS, Int8Weights, PackedLinear};
pub(crate) use tile::{Operands, PANEL, TILE_ROWS, Tile, any_rows, tiles};

use crate::activation::Nonlinearity;
use crate::matrix::{Matrix, SharedRows};
use crate::norm::Norm;
use crate::team::Crew;
use int8::{IntOperands, IntTile, RowScale, quantise_row};
use pack::Form;

/// Most rows of a block: with all their inputs they stay in the second-level cache beside two panels.
const BLOCK_ROWS: usize = 96;

/// Multiplications that a piece should have at least, so that handing it out costs little.
const PIECE: usize = 1 << 19;

/// What happens to the product and its bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// It is stored.
    Store,
    /// It goes through a non-linearity and is stored.
    Activate(Nonlinearity),
    /// It is added to what is there.
    Add,
}

/// A linear map to be applied to rows.
#[derive(Debug, Clone)]
pub struct Product<'a> {
    /// The map.
    pub linear: &'a PackedLinear,
    /// Which of its outputs are wanted.
    pub columns: Range<usize>,
    /// The norm that each input row goes through first.
    pub norm: Option<&'a Norm>,
    /// What becomes of the result.
    pub finish: Finish,
}

impl<'a> Product<'a> {
    /// All outputs of `linear`, stored.
    pub fn of(linear: &'a PackedLinear) -> Self {
        Self { linear, columns: 0..linear.out(), norm: None, finish: Finish::Store }
    }

    /// With each input row normalised first.
    #[must_use]
    pub fn after(self, norm: &'a Norm) -> Self {
        Self { norm: Some(norm), ..self }
    }

    /// Only some outputs.
    #[must_use]
    pub fn only(self, columns: Range<usize>) -> Self {
        Self { columns, ..self }
    }

    /// With another ending.
    #[must_use]
    pub fn then(self, finish: Finish) -> Self {
        Self { finish, ..self }
    }

    /// Applies the map to the rows of `input`. With [`Finish::Add`], `out` has as many rows as `input` and is wide enough; otherwise it
    /// is given that shape.
    ///
    /// # Panics
    /// When shapes don't fit.
    pub fn run(&self, crew: Crew<'_>, input: &Matrix, out: &mut Matrix) {
        let Self { linear, columns, norm, finish } = self;
        assert!(input.width() == linear.inner, "rows of {} meet a map from {}", input.width(), linear.inner);
        assert!(columns.end <= linear.out, "outputs {columns:?} of {}", linear.out);
        assert!(norm.is_none_or(|norm| norm.width() == linear.inner), "shapes don't fit");
        if *finish == Finish::Add {
            assert!(out.rows() == input.rows() && out.width() >= columns.len(), "shapes don't fit");
        } else {
            out.reshape(input.rows(), columns.len());
        }
        if input.rows() == 0 || columns.is_empty() {
            return;
        }
        let panels = columns.start / PANEL..columns.end.div_ceil(PANEL);
        let (blocks, groups) = self.cut(crew, input.rows(), panels.len());
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let out = out.shared();
        crew.for_each(blocks * groups, |piece| {
            let (block, group) = (piece / groups, piece % groups);
            let rows = block * input.rows() / blocks..(block + 1) * input.rows() / blocks;
            let part = |at: usize| panels.start + at * panels.len() / groups;
            let job = Piece { product: self, input, out, rows, panels: part(group)..part(group + 1) };
            SCRATCH.with_borrow_mut(|scratch| {
                if scratch.holds != (serial, block) {
                    job.prepare(scratch);
                    scratch.holds = (serial, block);
                }
                job.dispatch(scratch);
            });
        });
    }

    /// Into how many blocks of rows and groups of panels the work is cut.
    fn cut(&self, crew: Crew<'_>, rows: usize, panels: usize) -> (usize, usize) {
        let blocks = rows.div_ceil(BLOCK_ROWS);
        if crew.threads() == 1 {
            return (blocks, 1);
        }
        let wanted = (8 * crew.threads()).div_ceil(blocks);
        let most = (rows / blocks * panels * PANEL * self.linear.inner / PIECE).max(1);
        (blocks, wanted.min(most).min(panels))
    }
}

/// Numbers calls, so that a thread knows whether the rows it prepared are those of the current one.
static SERIAL: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// The rows that this thread prepared last: the next piece is likely to need them too.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

#[derive(Debug, Default)]
struct Scratch {
    /// Call and block that the rows belong to.
    holds: (u64, usize),
    /// Normalised rows.
    rows: Matrix,
    /// Quantised rows.
    levels: Vec<u8>,
    scales: Vec<RowScale>,
}

/// A block of rows times a group of panels.
struct Piece<'a> {
    product: &'a Product<'a>,
    input: &'a Matrix,
    out: SharedRows<'a>,
    rows: Range<usize>,
    panels: Range<usize>,
}

impl Piece<'_> {
    /// Normalises and quantises the block's rows, as far as that is asked for.
    fn prepare(&self, scratch: &mut Scratch) {
        let Product { linear, norm, .. } = self.product;
        if let Some(norm) = norm {
            scratch.rows.reshape(self.rows.len(), linear.inner);
            for (to, from) in self.rows.clone().enumerate() {
                norm.row(self.input.row(from), scratch.rows.row_mut(to));
            }
        }
        if linear.is_int8() {
            let stride = linear.inner.next_multiple_of(8);
            scratch.levels.resize((self.rows.len() * stride).max(scratch.levels.len()), 0);
            scratch.scales.clear();
            for (to, from) in self.rows.clone().enumerate() {
                let row = if norm.is_some() { scratch.rows.row(to) } else { self.input.row(from) };
                scratch.scales.push(quantise_row(row, &mut scratch.levels[to * stride..][..stride]));
            }
        }
    }

    fn dispatch(&self, scratch: &Scratch) {
        match &self.product.linear.form {
            Form::Fp32(panels) => {
                let (a, a_stride) = match self.product.norm {
                    Some(_) => (scratch.rows.pointer(0), scratch.rows.stride()),
                    None => (self.input.pointer(self.rows.start), self.input.stride()),
                };
                FloatPiece { piece: self, panels, a, a_stride }.dispatch();
            }
            Form::Int8 { panels, scales, sums } => {
                IntPiece { piece: self, panels, scales, sums, scratch }.dispatch();
            }
        }
    }

    /// Adds the bias to a tile's sums, does what is to follow, and stores the columns that are wanted.
    ///
    /// # Safety
    /// Nobody else reads or writes the block's rows in these columns meanwhile.
    #[inline(always)]
    unsafe fn finish<I: Isa>(&self, isa: I, tile: &mut Tile, rows: Range<usize>, panel: usize) {
        let Product { linear, columns, finish, .. } = self.product;
        let (first, last) = (panel * PANEL, (panel + 1) * PANEL);
        let sums = &mut tile.0[..rows.len()];
        add_bias(isa, sums, &linear.bias[first..last]);
        match finish {
            // Each in a loop of its own, so that the choice isn't made for every vector.
            Finish::Activate(Nonlinearity::QuickGelu) => activate(isa, sums, Nonlinearity::QuickGelu),
            Finish::Activate(Nonlinearity::Gelu) => activate(isa, sums, Nonlinearity::Gelu),
            Finish::Activate(Nonlinearity::GeluTanh) => activate(isa, sums, Nonlinearity::GeluTanh),
            Finish::Store | Finish::Add => {}
        }
        let wanted = first.max(columns.start)..last.min(columns.end);
        for (sums, row) in sums.iter().zip(rows) {
            // SAFETY: these cells are this piece's own, and the caller promises that they are nobody else's.
            let out = unsafe { self.out.cells(row, wanted.start - columns.start..wanted.end - columns.start) };
            match (<&mut [f32; PANEL]>::try_from(&mut *out), *finish) {
                (Ok(out), Finish::Add) => {
                    let ops = isa.f32();
                    for at in (0..PANEL).step_by(ops.len()) {
                        let sum = ops.add(ops.load(&out[at..]), ops.load(&sums[at..]));
                        ops.store(sum, &mut out[at..]);
                    }
                }
                (Ok(out), Finish::Store | Finish::Activate(_)) => *out = *sums,
                (Err(_), Finish::Add) => {
                    out.iter_mut().zip(&sums[wanted.start - first..]).for_each(|(out, sum)| *out += sum);
                }
                (Err(_), Finish::Store | Finish::Activate(_)) => {
                    out.copy_from_slice(&sums[wanted.start - first..wanted.end - first]);
                }
            }
        }
    }
}

#[inline(always)]
fn add_bias<I: Isa>(isa: I, sums: &mut [[f32; PANEL]], bias: &[f32]) {
    let ops = isa.f32();
    for at in (0..PANEL).step_by(ops.len()) {
        let bias = ops.load(&bias[at..]);
        for sums in sums.iter_mut() {
            let biased = ops.add(ops.load(&sums[at..]), bias);
            ops.store(biased, &mut sums[at..]);
        }
    }
}

#[inline(always)]
fn activate<I: Isa>(isa: I, sums: &mut [[f32; PANEL]], nonlinearity: Nonlinearity) {
    let ops = isa.f32();
    for sums in sums {
        for at in (0..PANEL).step_by(ops.len()) {
            let y = nonlinearity.eval(isa, ops.load(&sums[at..]));
            ops.store(y, &mut sums[at..]);
        }
    }
}

struct FloatPiece<'a> {
    piece: &'a Piece<'a>,
    panels: &'a [f32],
    a: *const f32,
    a_stride: usize,
}

impl FloatPiece<'_> {
    #[inline(always)]
    fn with_lines<I: Isa, const LINES: usize>(&self, isa: I, heights: impl Iterator<Item = (usize, usize)> + Clone) {
        let Self { piece, panels, a, a_stride } = *self;
        let depth = piece.product.linear.inner;
        let mut tile = Tile([[0.0; PANEL]; TILE_ROWS]);
        for panel in piece.panels.clone() {
            let b = panels[panel * depth * PANEL..][..depth * PANEL].as_ptr();
            for (number, (from, height)) in heights.clone().enumerate() {
                // The first tiles bring in the next panel, a part each.
                let ahead = if number < 4 / LINES { depth * PANEL + number * LINES * depth * PANEL / 4 } else { 0 };
                let prefetch = b.wrapping_add(ahead);
                // SAFETY: `a` points to the block's rows of `depth` elements, `from + height` of which exist, `b` to a whole panel;
                // the cells of the block's rows in this panel's columns belong to this piece alone, since pieces are disjoint
                // products of rows and panels.
                unsafe {
                    let a = a.add(from * a_stride);
                    let operands = Operands { depth, a, a_stride, b, b_stride: PANEL, prefetch };
                    any_rows::<I, LINES>(isa, height, operands, &mut tile);
                    let rows = piece.rows.start + from..piece.rows.start + from + height;
                    piece.finish(isa, &mut tile, rows, panel);
                }
            }
        }
    }
}

impl SimdOp for FloatPiece<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let heights = tiles(self.piece.rows.len());
        match self.piece.rows.len() {
            0..=6 => self.with_lines::<I, 4>(isa, heights),
            7..=18 => self.with_lines::<I, 2>(isa, heights),
            _ => self.with_lines::<I, 1>(isa, heights),
        }
    }
}

struct IntPiece<'a> {
    piece: &'a Piece<'a>,
    panels: &'a [i8],
    scales: &'a [f32],
    sums: &'a [i32],
    scratch: &'a Scratch,
}

impl SimdOp for IntPiece<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { piece, panels, scales, sums, scratch } = self;
        let groups = piece.product.linear.inner.div_ceil(8);
        let mut integers = IntTile([[0; PANEL]; TILE_ROWS]);
        let mut tile = Tile([[0.0; PANEL]; TILE_ROWS]);
        for panel in piece.panels.clone() {
            let b = panels[panel * groups * 8 * PANEL..][..groups * 8 * PANEL].as_ptr();
            let columns = panel * PANEL..(panel + 1) * PANEL;
            let (scales, sums) = (&scales[columns.clone()], &sums[columns]);
            for (number, (from, height)) in tiles(piece.rows.len()).enumerate() {
                let ahead = if number < 2 { groups * 8 * PANEL + number * groups * 64 } else { 0 };
                let a = scratch.levels[from * groups * 8..(from + height) * groups * 8].as_ptr();
                let operands = IntOperands { groups, a, a_stride: groups * 8, b, prefetch: b.wrapping_add(ahead) };
                // SAFETY: `a` and `b` were just cut to that size; levels and weights are made within their ranges by
                // `quantise_row` and checked by `PackedLinear::int8`; the cells are this piece's own.
                unsafe {
                    int8::sums(height, operands, &mut integers);
                    let rows = scratch.scales[from..from + height].iter();
                    for ((tile, integers), row) in tile.0.iter_mut().zip(&integers.0).zip(rows) {
                        for column in 0..PANEL {
                            let exact = integers[column] - row.zero * sums[column];
                            tile[column] = exact as f32 * (row.scale * scales[column]);
                        }
                    }
                    let rows = piece.rows.start + from..piece.rows.start + from + height;
                    piece.finish(isa, &mut tile, rows, panel);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
