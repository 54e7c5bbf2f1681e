//! Rows in cells around centres: a search looks into the cells whose centres are nearest to the query.
//!
//! Within a cell, rows are either scored themselves, or estimated by one bit a dimension: what is left of a row without its centre is
//! rotated at random and reduced to its signs ([`crossmodal_kernels::signs`]). With `c` the centre, `r` the rest, `s` its signs, `R` the
//! rotation:
//!
//! ```text
//! <q, c + r> = <q, c> + <c, r> + <q - c, r>,   <q - c, r> ~ f <R(q - c), s>,   f = |r|^2 / <Rr, s>
//! estimate   = <q, c>  +  (<c, r> - f <Rc, s>)  +  f <Rq, s>
//!              a cell's    a row's shift           a row's factor
//! ```
//!
//! so that a row costs one bit a dimension, a factor, a shift and its number, and a query one table for all cells. The Euclidean metric
//! subtracts half of the row's squared length from the shift. The best candidates are scored exactly by the rows themselves.
//!
//! Centres and codes are made from the rows alone, in an order that doesn't depend on threads: the same rows give the same index.

mod build;
mod centres;
mod search;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use crossmodal_kernels::Buffer;
use crossmodal_kernels::product::{INT8_LEVELS, Int8Weights};
use crossmodal_kernels::signs::{BLOCK_ROWS, Rotation};

use crate::{Container, ContainerWriter, IndexError, IndexKind, Metric, Stamp};
use centres::Centres;

/// Version of the format.
const VERSION: u32 = 1;
/// Belongs to the format: it chooses the rotation.
const SEED: u64 = 0x1F83_D9AB_FB41_BD6B;

/// What a cell holds of its rows, besides their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CellCodes {
    /// Nothing: rows are scored themselves. Exact within the cells that are looked into.
    Rows,
    /// One bit a dimension and two numbers: fast, and the rows themselves are read for the best candidates only.
    Signs,
}

/// How an index is built.
#[derive(Debug, Clone, Copy)]
pub struct IvfOptions {
    /// Number of cells; four times the root of the number of rows when absent. Never more than rows.
    pub cells: Option<usize>,
    /// What cells hold.
    pub codes: CellCodes,
}

impl Default for IvfOptions {
    fn default() -> Self {
        Self { cells: None, codes: CellCodes::Signs }
    }
}

/// An index of cells over the first rows of a matrix.
#[derive(Debug)]
pub struct Ivf {
    dimension: usize,
    metric: Metric,
    rows: u64,
    codes: CellCodes,
    rotation: Rotation,
    centres: Centres,
    /// Where each cell's slots start, and the end. A slot is a row's place in the order of cells.
    starts: Vec<u32>,
    data: Data,
}

#[derive(Debug)]
enum Data {
    Owned(Owned),
    Mapped(Container),
}

#[derive(Debug)]
struct Owned {
    weights: Int8Weights,
    /// The row in each slot.
    ids: Vec<u32>,
    /// Signs in blocks of slots, and factors and shifts for each block, as [`scan_signs`](crossmodal_kernels::signs::scan_signs) wants
    /// them; a cell may start within a block.
    signs: Buffer<i8>,
    factors: Vec<f32>,
}

/// The large parts, wherever they are.
#[derive(Clone, Copy)]
struct Parts<'a> {
    ids: &'a [u32],
    signs: &'a [u8],
    factors: &'a [f32],
}

impl Ivf {
    /// Number of cells.
    fn cells(&self) -> usize {
        self.starts.len() - 1
    }

    /// Bytes of one slot's signs.
    fn sign_bytes(&self) -> usize {
        match self.codes {
            CellCodes::Rows => 0,
            CellCodes::Signs => self.rotation.outputs() / 8,
        }
    }

    /// Lengths of the lists of signs and factors.
    fn lengths(&self) -> (usize, usize) {
        let blocks = (self.rows as usize).div_ceil(BLOCK_ROWS) * BLOCK_ROWS;
        (blocks.saturating_mul(self.sign_bytes()), if self.codes == CellCodes::Signs { 2 * blocks } else { 0 })
    }

    fn parts(&self) -> Result<Parts<'_>, IndexError> {
        match &self.data {
            Data::Owned(owned) => {
                Ok(Parts { ids: &owned.ids, signs: bytemuck::cast_slice(&owned.signs), factors: &owned.factors })
            }
            Data::Mapped(container) => {
                let (signs, factors) = self.lengths();
                Ok(Parts {
                    ids: container.numbers("rows", self.rows as usize)?,
                    signs: container.numbers("signs", signs)?,
                    factors: container.numbers("factors", factors)?,
                })
            }
        }
    }

    /// The centres' levels and scales.
    fn weights(&self) -> Result<Int8Weights, IndexError> {
        match &self.data {
            Data::Owned(owned) => Ok(owned.weights.clone()),
            Data::Mapped(container) => read_weights(container, self.cells(), self.dimension),
        }
    }

    /// Writes the index as a container of the kind `ivf`.
    ///
    /// # Errors
    /// Those of `out`; of the kind `Other` when this is mapped from a damaged file.
    pub fn write<W: Write>(&self, out: W, tag: [u8; 16]) -> io::Result<W> {
        let Self { dimension, metric, rows, .. } = *self;
        let (parts, weights) = (self.parts().map_err(io::Error::other)?, self.weights().map_err(io::Error::other)?);
        let stamp = Stamp { kind: IndexKind::Ivf, version: VERSION, dimension, metric, rows, tag };
        let mut writer = ContainerWriter::new(out, &stamp)?;
        let form = [self.cells() as u32, u32::from(self.codes == CellCodes::Signs)];
        writer.section("form", bytemuck::cast_slice(&form))?;
        writer.section("centres", bytemuck::cast_slice(&weights.values))?;
        writer.section("scales", bytemuck::cast_slice(&weights.scales))?;
        writer.section("starts", bytemuck::cast_slice(&self.starts))?;
        writer.section("rows", bytemuck::cast_slice(parts.ids))?;
        writer.section("signs", parts.signs)?;
        writer.section("factors", bytemuck::cast_slice(parts.factors))?;
        writer.finish()
    }

    /// An index in a mapped file. Only the centres are read.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn open(container: Container) -> Result<Self, IndexError> {
        let Stamp { kind, version, dimension, metric, rows, .. } = *container.stamp();
        if (kind, version) != (IndexKind::Ivf, VERSION) || dimension == 0 || u32::try_from(rows).is_err() {
            let reason =
                format!("it is of kind {kind}, version {version}, {rows} x {dimension}, not ivf, version {VERSION}");
            return Err(IndexError::Damaged { reason });
        }
        let form = container.numbers::<u32>("form", 2)?;
        let cells = form[0] as usize;
        let codes = match form[1] {
            0 => CellCodes::Rows,
            1 => CellCodes::Signs,
            other => return Err(damaged(format!("its cells hold codes of the kind {other}"))),
        };
        let starts: Vec<u32> = container.numbers("starts", cells.saturating_add(1))?.to_vec();
        if !starts.is_sorted() || starts[0] != 0 || u64::from(starts[cells]) != rows {
            return Err(damaged("its cells don't add up to its rows"));
        }
        let centres = Centres::new(&read_weights(&container, cells, dimension)?, dimension);
        // They were copied, and are needed again only when rows are added.
        container.release("centres");
        let (rotation, data) = (Rotation::new(dimension, SEED), Data::Mapped(container));
        let opened = Self { dimension, metric, rows, codes, rotation, centres, starts, data };
        opened.parts()?;
        Ok(opened)
    }
}

fn read_weights(container: &Container, cells: usize, dimension: usize) -> Result<Int8Weights, IndexError> {
    let values: &[i8] = container.numbers("centres", cells.saturating_mul(dimension))?;
    if values.iter().any(|level| i32::from(*level).abs() > INT8_LEVELS) {
        return Err(damaged(format!("a centre has a level beyond {INT8_LEVELS}")));
    }
    Ok(Int8Weights { values: values.to_vec(), scales: container.numbers("scales", cells)?.to_vec() })
}

fn damaged(reason: impl Into<String>) -> IndexError {
    IndexError::Damaged { reason: reason.into() }
}

/// What a long computation tells its caller, and asks it.
struct Watch<'a> {
    progress: &'a (dyn Fn(u64, u64) + Sync),
    cancel: &'a (dyn Fn() -> bool + Sync),
    done: AtomicU64,
    total: u64,
}

impl<'a> Watch<'a> {
    fn new(progress: &'a (dyn Fn(u64, u64) + Sync), cancel: &'a (dyn Fn() -> bool + Sync), total: u64) -> Self {
        Self { progress, cancel, done: AtomicU64::new(0), total }
    }

    /// So many rows more are done.
    fn did(&self, rows: usize) -> Result<(), IndexError> {
        let done = self.done.fetch_add(rows as u64, Ordering::Relaxed) + rows as u64;
        (self.progress)(done.min(self.total), self.total);
        if (self.cancel)() { Err(IndexError::Cancelled) } else { Ok(()) }
    }
}
