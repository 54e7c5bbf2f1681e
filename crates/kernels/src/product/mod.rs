//! The product of activations with packed weights, with what comes before and after it fused in: layer norm and quantisation
//! of a block of rows ahead of it, bias, non-linearity or residual sum on the tile while it is still in registers' reach.
//!
//! Rows are cut into blocks and outputs into runs of panels; a block times a run is a piece of work for one thread. A panel
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
pub(crate) use tile::{MAX_ROWS, Operands, PANEL, Tile, any_rows, tile_rows, tiles};

use crate::activation::Nonlinearity;
use crate::matrix::{Matrix, SharedRows};
use crate::norm::Norm;
use crate::team::Crew;
use int8::{IntOperands, IntTile, RowScale, quantise_row};
use pack::Form;
use tile::TILE_ROWS;

/// Inputs of all rows of a block: half a megabyte, which mostly stays in the second-level cache while panels pass by.
const BLOCK_FLOATS: usize = 128 << 10;

/// Multiplications that a piece should have at least, so that handing it out costs little.
const PIECE: usize = 1 << 18;

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
        let pieces = self.cut(crew.threads(), input.rows(), panels);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let out = out.shared();
        crew.for_each(pieces.len(), |number| {
            let (rows, panels) = pieces[number].clone();
            let piece = Piece { product: self, input, out, rows, panels };
            SCRATCH.with_borrow_mut(|scratch| {
                if scratch.holds != (serial, piece.rows.start) {
                    piece.prepare(scratch);
                    scratch.holds = (serial, piece.rows.start);
                }
                piece.dispatch(scratch);
            });
        });
    }

    /// Cuts the work into blocks of rows and runs of panels. Runs shrink towards the end, so that threads finish together; a thread
    /// alone has one run a block.
    fn cut(&self, threads: usize, rows: usize, panels: Range<usize>) -> Vec<(Range<usize>, Range<usize>)> {
        let block_rows = (BLOCK_FLOATS / self.linear.inner).max(2 * TILE_ROWS);
        let blocks = rows.div_ceil(block_rows);
        let least = PIECE.div_ceil(rows / blocks * PANEL * self.linear.inner);
        let mut rest = blocks * panels.len();
        let mut pieces = Vec::new();
        for block in 0..blocks {
            let rows = block * rows / blocks..(block + 1) * rows / blocks;
            let mut start = panels.start;
            while start < panels.end {
                let run = if threads == 1 { panels.len() } else { (rest / (2 * threads)).max(least) };
                let end = panels.end.min(start + run);
                pieces.push((rows.clone(), start..end));
                rest -= end - start;
                start = end;
            }
        }
        pieces
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
    /// Call and first row of the block that the rows belong to.
    holds: (u64, usize),
    /// Normalised rows.
    rows: Matrix,
    /// Quantised rows.
    levels: Vec<u8>,
    scales: Vec<RowScale>,
}

/// A block of rows times a run of panels.
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
    /// A tile's operands: a part of the depth of some of the block's rows and of a panel.
    ///
    /// # Safety
    /// The rows, the panel and the part of the depth exist.
    unsafe fn operands(&self, from: usize, panel: usize, part: Range<usize>, prefetch: *const f32) -> Operands {
        let depth = self.piece.product.linear.inner;
        let panel = self.panels[panel * depth * PANEL..][..depth * PANEL].as_ptr();
        // SAFETY: the caller's promise.
        let (a, b) = unsafe { (self.a.add(from * self.a_stride + part.start), panel.add(part.start * PANEL)) };
        Operands { depth: part.len(), a, a_stride: self.a_stride, b, b_stride: PANEL, prefetch }
    }

    /// Many rows: each tile goes over the whole depth, and the first four bring in a quarter of the next panel each;
    /// the others ask for what is on its way already.
    #[inline(always)]
    fn many_rows<I: Isa>(&self, isa: I) {
        let depth = self.piece.product.linear.inner;
        let mut tile = Tile::default();
        for panel in self.piece.panels.clone() {
            let next = self.panels.as_ptr().wrapping_add((panel + 1) * depth * PANEL);
            for (number, (from, height)) in tiles(self.piece.rows.len(), tile_rows(isa)).enumerate() {
                let quarter = if number < 4 { number * depth * PANEL / 4 } else { 0 };
                // SAFETY: `a` points to the block's rows, `from + height` of which exist; the cells of these rows in this panel's
                // columns belong to this piece alone, since pieces are disjoint products of rows and panels.
                unsafe {
                    let operands = self.operands(from, panel, 0..depth, next.wrapping_add(quarter));
                    any_rows::<I, 1, false>(isa, height, operands, &mut tile);
                    let rows = self.piece.rows.start + from..self.piece.rows.start + from + height;
                    self.piece.finish(isa, &mut tile, rows, panel);
                }
            }
        }
    }

    /// Few rows, so that reading the weights is what takes the time: a part of a panel is used by all tiles while what lies two parts
    /// further arrives from memory.
    #[inline(always)]
    fn few_rows<I: Isa, const LINES: usize>(&self, isa: I) {
        let depth = self.piece.product.linear.inner;
        let mut sums: [Tile; FEW_ROWS / TILE_ROWS] = std::array::from_fn(|_| Tile::default());
        let heights = tiles(self.piece.rows.len(), tile_rows(isa));
        for panel in self.piece.panels.clone() {
            let start = self.panels.as_ptr().wrapping_add(panel * depth * PANEL);
            sums.iter_mut().for_each(|tile| *tile = Tile::default());
            for part in (0..depth).step_by(DEPTH_PART) {
                let part = part..depth.min(part + DEPTH_PART);
                for (number, ((from, height), tile)) in heights.clone().zip(&mut sums).enumerate() {
                    let ahead = (part.start + 2 * DEPTH_PART) * PANEL + number * LINES * DEPTH_PART / 4 * PANEL;
                    // SAFETY: as in `many_rows`.
                    unsafe {
                        let operands = self.operands(from, panel, part.clone(), start.wrapping_add(ahead));
                        any_rows::<I, LINES, true>(isa, height, operands, tile);
                    }
                }
            }
            for ((from, height), tile) in heights.clone().zip(&mut sums) {
                let rows = self.piece.rows.start + from..self.piece.rows.start + from + height;
                // SAFETY: as in `many_rows`.
                unsafe { self.piece.finish(isa, tile, rows, panel) };
            }
        }
    }
}

/// Rows up to which reading the weights part by part is worth it.
const FEW_ROWS: usize = 3 * TILE_ROWS;

/// Depth of a part, 16 KiB of weights. Of 128, 256, 512 and 2,048, and of distances from one to four parts, this with two was the
/// fastest for 12 rows through a tower's weights (`cargo bench`, "tower").
const DEPTH_PART: usize = 256;

impl SimdOp for FloatPiece<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        match self.piece.rows.len() {
            // A single tile asks for all of the weights that come next, several share that.
            rows if rows <= tile_rows(isa) => self.few_rows::<I, 4>(isa),
            ..=FEW_ROWS => self.few_rows::<I, 2>(isa),
            _ => self.many_rows(isa),
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
        let mut tile = Tile::default();
        for panel in piece.panels.clone() {
            let b = panels[panel * groups * 8 * PANEL..][..groups * 8 * PANEL].as_ptr();
            let columns = panel * PANEL..(panel + 1) * PANEL;
            // Of a length that the compiler sees, so that it uses vectors.
            let (mut scales_here, mut sums_here) = ([0f32; PANEL], [0i32; PANEL]);
            scales_here.copy_from_slice(&scales[columns.clone()]);
            sums_here.copy_from_slice(&sums[columns]);
            for (number, (from, height)) in tiles(piece.rows.len(), TILE_ROWS).enumerate() {
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
                            let exact = integers[column] - row.zero * sums_here[column];
                            tile[column] = exact as f32 * (row.scale * scales_here[column]);
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
