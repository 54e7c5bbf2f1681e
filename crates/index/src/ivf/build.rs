//! Filling the cells.

use crossmodal_kernels::Buffer;
use crossmodal_kernels::distance::dot;
use crossmodal_kernels::product::Int8Weights;
use crossmodal_kernels::signs::{self, BLOCK_ROWS, Rotation};
use rayon::prelude::*;

use super::centres::{Centres, Members, train, training_rows};
use super::{CellCodes, Data, Ivf, IvfOptions, Owned, Parts, SEED, Watch};
use crate::candidates;
use crate::{IndexError, Metric, SearchOptions, Vectors};

impl Ivf {
    /// Trains centres and fills the cells with all rows, on the threads of rayon's current pool. `progress` is told how many of how many
    /// steps are done; `cancel` is asked now and then.
    ///
    /// # Errors
    /// More rows than 2^32; no cells; cancelled.
    pub fn build(
        vectors: Vectors<'_>,
        options: &IvfOptions,
        progress: &(dyn Fn(u64, u64) + Sync),
        cancel: &(dyn Fn() -> bool + Sync),
    ) -> Result<Self, IndexError> {
        let rows = vectors.rows() as usize;
        if options.cells == Some(0) {
            return Err(IndexError::Option { option: "cells", found: 0, expected: "at least 1" });
        }
        let cells = options.cells.unwrap_or(4 * rows.isqrt()).min(rows);
        let watch = Watch::new(progress, cancel, (training_rows(rows, cells) + 2 * rows) as u64);
        let weights = train(vectors, cells, &watch)?;
        let (dimension, metric) = (vectors.dimension(), vectors.metric());
        let empty = Self {
            dimension,
            metric,
            rows: 0,
            codes: options.codes,
            rotation: Rotation::new(dimension, SEED),
            centres: Centres::new(&weights, dimension),
            starts: vec![0; cells + 1],
            data: Data::Owned(Owned { weights, ids: Vec::new(), signs: Buffer::zeroed(0), factors: Vec::new() }),
        };
        empty.fill(vectors, &watch)
    }

    /// An index of all rows with the same centres, what is known of the covered ones taken over from this. Where there are many times
    /// as many rows as when centres were trained, building anew gives better cells.
    ///
    /// # Errors
    /// Rows of another shape, fewer than are covered, more than 2^32; `Damaged`; cancelled.
    pub fn extend(
        &self,
        vectors: Vectors<'_>,
        progress: &(dyn Fn(u64, u64) + Sync),
        cancel: &(dyn Fn() -> bool + Sync),
    ) -> Result<Self, IndexError> {
        candidates::covered(vectors, self.dimension, self.metric, self.rows, &SearchOptions::default().selection)?;
        if self.cells() == 0 {
            // Nothing was there to train centres with.
            return Self::build(vectors, &IvfOptions { cells: None, codes: self.codes }, progress, cancel);
        }
        let new = vectors.rows() - self.rows;
        self.fill(vectors, &Watch::new(progress, cancel, new + vectors.rows()))
    }

    /// Assigns the rows that aren't covered and puts all of them into their cells.
    fn fill(&self, vectors: Vectors<'_>, watch: &Watch<'_>) -> Result<Self, IndexError> {
        let (rows, cells) = (vectors.rows(), self.cells());
        let Ok(count) = u32::try_from(rows) else {
            return Err(IndexError::Option { option: "rows", found: rows as usize, expected: "at most 4294967295" });
        };
        let known = self.rows as u32;
        let weights = self.weights()?;
        let (centres, old) = (Centres::new(&weights, self.dimension), self.parts()?);
        let added: Vec<u32> = (known..count).collect();
        let added = Members::new(&centres.assign(vectors, &added, watch)?, cells);
        // Each slot's source: an old slot, or beyond those an added row.
        let mut sources = Vec::with_capacity(rows as usize);
        let mut starts = vec![0];
        for cell in 0..cells {
            sources.extend(self.starts[cell]..self.starts[cell + 1]);
            sources.extend(added.of(cell).iter().map(|row| known + row));
            starts.push(sources.len() as u32);
        }
        let row = |source: &u32| if *source < known { old.ids[*source as usize] } else { *source };
        let ids: Vec<u32> = sources.iter().map(row).collect();
        let data = Data::Owned(Owned { weights, ids, signs: Buffer::zeroed(0), factors: Vec::new() });
        let Self { dimension, metric, codes, rotation, .. } = self;
        let rotation = rotation.clone();
        let mut new =
            Self { dimension: *dimension, metric: *metric, rows, codes: *codes, rotation, centres, starts, data };
        new.encode(vectors, old, known, &sources, watch)?;
        Ok(new)
    }

    /// Makes the signs and factors of every slot, or takes them over.
    fn encode(
        &mut self,
        vectors: Vectors<'_>,
        old: Parts<'_>,
        known: u32,
        sources: &[u32],
        watch: &Watch<'_>,
    ) -> Result<(), IndexError> {
        let (sign_bytes, (sign_count, factor_count)) = (self.sign_bytes(), self.lengths());
        let Self { metric, codes, rotation, starts, data, .. } = self;
        let Data::Owned(owned) = data else { return Ok(()) };
        if *codes == CellCodes::Rows {
            return Ok(());
        }
        let encoder = Encoder::new(&owned.weights, rotation, *metric, vectors.dimension());
        let (mut signs, mut factors) = (Buffer::<i8>::zeroed(sign_count), vec![0.0; factor_count]);
        let blocks =
            signs.par_chunks_exact_mut(BLOCK_ROWS * sign_bytes).zip(factors.par_chunks_exact_mut(2 * BLOCK_ROWS));
        let work = |scratch: &mut Vec<f32>, (number, (block, factors)): (usize, (&mut [i8], &mut [f32]))| {
            let block: &mut [u8] = bytemuck::cast_slice_mut(block);
            let first = number * BLOCK_ROWS;
            let slots = &sources[first..sources.len().min(first + BLOCK_ROWS)];
            let mut bits = vec![0; sign_bytes];
            for (at, source) in slots.iter().enumerate() {
                if *source < known {
                    let (from, place) = (*source as usize / BLOCK_ROWS, *source as usize % BLOCK_ROWS);
                    let column = &old.signs[from * BLOCK_ROWS * sign_bytes + place..];
                    column.iter().step_by(BLOCK_ROWS).zip(&mut bits).for_each(|(byte, bits)| *bits = *byte);
                    let pair = &old.factors[from * 2 * BLOCK_ROWS + place..];
                    (factors[at], factors[BLOCK_ROWS + at]) = (pair[0], pair[BLOCK_ROWS]);
                } else {
                    let slot = (first + at) as u32;
                    let cell = starts.partition_point(|start| *start <= slot) - 1;
                    let pair = encoder.encode(vectors.row(u64::from(*source)), cell, scratch, &mut bits);
                    (factors[at], factors[BLOCK_ROWS + at]) = pair;
                }
                block[at..].iter_mut().step_by(BLOCK_ROWS).zip(&bits).for_each(|(byte, bits)| *byte = *bits);
            }
            watch.did(slots.len())
        };
        blocks.enumerate().map_init(Vec::new, work).collect::<Result<(), _>>()?;
        (owned.signs, owned.factors) = (signs, factors);
        Ok(())
    }
}

/// Makes signs, factors and shifts.
struct Encoder<'a> {
    rotation: &'a Rotation,
    metric: Metric,
    dimension: usize,
    centres: Vec<f32>,
    /// The centres, rotated.
    rotated: Vec<f32>,
}

impl<'a> Encoder<'a> {
    fn new(weights: &Int8Weights, rotation: &'a Rotation, metric: Metric, dimension: usize) -> Self {
        let centres = weights.dequantise();
        let mut rotated = vec![0.0; centres.len() / dimension * rotation.outputs()];
        let pairs = rotated.par_chunks_exact_mut(rotation.outputs()).zip(centres.par_chunks_exact(dimension));
        pairs.for_each(|(rotated, centre)| rotation.apply(centre, rotated));
        Self { rotation, metric, dimension, centres, rotated }
    }

    /// Writes the signs of a row in a cell; returns its factor and its shift.
    fn encode(&self, row: &[f32], cell: usize, rest: &mut Vec<f32>, bits: &mut [u8]) -> (f32, f32) {
        let outputs = self.rotation.outputs();
        let centre = &self.centres[cell * self.dimension..][..self.dimension];
        let rotated = &self.rotated[cell * outputs..][..outputs];
        rest.resize(outputs, 0.0);
        self.rotation.apply(row, rest);
        rest.iter_mut().zip(rotated).for_each(|(x, centre)| *x -= centre);
        signs::signs(rest, bits);
        let magnitudes: f32 = rest.iter().map(|x| x.abs()).sum();
        let square = dot(rest, rest);
        let factor = if magnitudes > 0.0 { square / magnitudes } else { 0.0 };
        let signed: f32 = rest.iter().zip(rotated).map(|(x, centre)| if *x >= 0.0 { *centre } else { -centre }).sum();
        let mut shift = dot(centre, row) - dot(centre, centre) - factor * signed;
        if self.metric == Metric::Euclidean {
            shift -= dot(row, row) / 2.0;
        }
        (factor, shift)
    }
}
