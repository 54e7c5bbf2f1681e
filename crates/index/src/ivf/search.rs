//! Looking into the nearest cells.

use crossmodal_kernels::Matrix;
use crossmodal_kernels::signs::{BLOCK_ROWS, SignTable, scan_signs};
use rayon::prelude::*;

use super::centres::greatest_many;
use super::{CellCodes, Data, Ivf, Parts};
use crate::candidates::{self, Candidates};
use crate::{
    AnnIndex, FlatIndex, IndexError, IndexInfo, IndexKind, Neighbor, RowSet, SearchOptions, Selection, Vectors,
};

/// Queries that are compared with the centres together.
const QUERIES: usize = 64;
/// Estimates that are compared with the floor together.
const LANES: usize = 16;
/// Rows that are estimated in the time of one exact score.
const ESTIMATES_PER_SCORE: usize = 32;
/// Candidates that are scored exactly, for each result and at least.
const CANDIDATES: (usize, usize) = (10, 50);
/// By how much more is looked at when too little was found.
const WIDER: usize = 4;

/// Buffers that are used again for each query.
#[derive(Default)]
struct Scratch {
    scores: Vec<f32>,
    cells: Vec<u32>,
    rotated: Vec<f32>,
    table: SignTable,
    estimates: Vec<f32>,
    candidates: Candidates,
    rows: Vec<u32>,
}

/// One query and what is known of it.
struct Query<'a> {
    values: &'a [f32],
    /// Its inner products with the centres.
    products: &'a [f32],
}

/// How much is looked at.
#[derive(Clone, Copy)]
struct Breadth {
    /// Cells that are looked into.
    probes: usize,
    /// Cells that are looked into where those have fewer selected rows than candidates are kept.
    most: usize,
    /// Candidates that are kept and scored exactly.
    keep: usize,
}

impl Ivf {
    /// The number of cells that a search looks into which says nothing.
    fn default_effort(&self) -> usize {
        (self.cells() / 64).max(8).min(self.cells())
    }

    /// Looks into the nearest cells and scores what is found, of signs the best candidates only.
    fn probe(
        &self,
        parts: Parts<'_>,
        vectors: Vectors<'_>,
        query: &Query<'_>,
        breadth: Breadth,
        (k, selection): (usize, &Selection<'_>),
        scratch: &mut Scratch,
    ) -> Vec<Neighbor> {
        self.centres.scores(self.metric, query.products, &mut scratch.scores);
        greatest_many(&scratch.scores, breadth.most, &mut scratch.cells);
        if self.codes == CellCodes::Signs {
            scratch.rotated.resize(self.rotation.outputs(), 0.0);
            self.rotation.apply(query.values, &mut scratch.rotated);
            scratch.table.set(&scratch.rotated);
        }
        let Scratch { cells, table, estimates, candidates, rows, .. } = scratch;
        candidates.reset(breadth.keep);
        rows.clear();
        let mut seen = 0;
        for (number, cell) in cells.iter().enumerate() {
            if number >= breadth.probes && seen >= breadth.keep {
                break;
            }
            let slots = self.starts[*cell as usize] as usize..self.starts[*cell as usize + 1] as usize;
            let ids = &parts.ids[slots.clone()];
            let selected = count(selection.allowed, ids);
            seen += selected;
            if selected == 0 {
                continue;
            }
            match self.codes {
                CellCodes::Rows => rows.extend(ids.iter().filter(|row| is_member(selection.allowed, **row))),
                CellCodes::Signs => {
                    let blocks = slots.start / BLOCK_ROWS..slots.end.div_ceil(BLOCK_ROWS);
                    let bytes = BLOCK_ROWS * self.sign_bytes();
                    estimates.resize(blocks.len() * BLOCK_ROWS, 0.0);
                    let signs = &parts.signs[blocks.start * bytes..blocks.end * bytes];
                    let factors = &parts.factors[blocks.start * 2 * BLOCK_ROWS..blocks.end * 2 * BLOCK_ROWS];
                    scan_signs(signs, factors, table, query.products[*cell as usize], estimates);
                    let estimates = &estimates[slots.start - blocks.start * BLOCK_ROWS..][..ids.len()];
                    keep_best(candidates, estimates, ids, slots.start, selection.allowed);
                }
            }
        }
        rows.extend(candidates.rows().map(|slot| parts.ids[slot as usize]));
        candidates::collect(k, selection, |top| candidates::offer(top, vectors, query.values, rows))
    }

    /// Probes until there are `k` results or nothing more to find.
    fn find(
        &self,
        parts: Parts<'_>,
        vectors: Vectors<'_>,
        query: &Query<'_>,
        options: &SearchOptions<'_>,
        mut breadth: Breadth,
        scratch: &mut Scratch,
    ) -> Result<Vec<Neighbor>, IndexError> {
        let SearchOptions { k, ref selection, .. } = *options;
        loop {
            let found = self.probe(parts, vectors, query, breadth, (k, selection), scratch);
            if found.len() >= k {
                return Ok(found);
            }
            if breadth.probes >= self.cells() && breadth.keep as u64 >= self.rows {
                // Everything was looked at. Rows whose estimate isn't a number are left, if anything.
                let exact = FlatIndex::new(self.dimension, self.metric, &[vectors.values()])?;
                return exact.search(&[query.values], k, *selection).map(|mut all| all.remove(0));
            }
            let wider = |number: usize| number.saturating_mul(WIDER).min(self.cells());
            let Breadth { probes, most, keep } = breadth;
            breadth = Breadth { probes: wider(probes), most: wider(most), keep: keep.saturating_mul(WIDER) };
        }
    }
}

fn is_member(allowed: Option<&RowSet>, row: u32) -> bool {
    allowed.is_none_or(|allowed| allowed.contains(u64::from(row)))
}

/// How many of the rows are selected.
fn count(allowed: Option<&RowSet>, ids: &[u32]) -> usize {
    match allowed {
        None => ids.len(),
        Some(_) => ids.iter().filter(|row| is_member(allowed, **row)).count(),
    }
}

/// Offers a cell's selected rows by their slots.
fn keep_best(candidates: &mut Candidates, estimates: &[f32], ids: &[u32], first_slot: usize, allowed: Option<&RowSet>) {
    for (number, (estimates, ids)) in estimates.chunks(LANES).zip(ids.chunks(LANES)).enumerate() {
        let floor = candidates.floor();
        if !reaches(estimates, floor) {
            continue;
        }
        let slot = first_slot + number * LANES;
        for (at, (estimate, row)) in estimates.iter().zip(ids).enumerate() {
            if *estimate >= floor && is_member(allowed, *row) {
                candidates.push(*estimate, (slot + at) as u64);
            }
        }
    }
}

/// Whether any estimate isn't below the floor.
#[inline]
fn reaches(estimates: &[f32], floor: f32) -> bool {
    match <&[f32; LANES]>::try_from(estimates) {
        // Of known length and without an early end, so that it becomes a few vector instructions.
        Ok(estimates) => estimates.iter().fold(0, |any, estimate| any | u32::from(*estimate >= floor)) != 0,
        Err(_) => estimates.iter().any(|estimate| *estimate >= floor),
    }
}

impl AnnIndex for Ivf {
    fn info(&self) -> IndexInfo {
        let (signs, factors) = self.lengths();
        let lists = self.rows as usize * 4 + self.starts.len() * 4 + signs + factors * 4;
        let codes = match self.codes {
            CellCodes::Rows => "no codes",
            CellCodes::Signs => "one bit a dimension",
        };
        IndexInfo {
            kind: IndexKind::Ivf,
            rows: self.rows,
            bytes: (lists + self.cells() * (self.dimension + 8)) as u64,
            default_effort: self.default_effort(),
            parameters: format!("{} cells, {codes}", self.cells()),
        }
    }

    /// The effort is the number of cells that are looked into.
    fn search(
        &self,
        vectors: Vectors<'_>,
        queries: &[&[f32]],
        options: &SearchOptions<'_>,
    ) -> Result<Vec<Vec<Neighbor>>, IndexError> {
        let SearchOptions { k, effort, selection } = *options;
        let vectors = candidates::covered(vectors, self.dimension, self.metric, self.rows, &selection)?;
        let prepared = vectors.prepare(queries)?;
        let probes = effort.unwrap_or_else(|| self.default_effort()).clamp(1, self.cells().max(1));
        let keep = k.saturating_mul(CANDIDATES.0).max(CANDIDATES.1);
        let estimated = probes * (self.rows as usize / self.cells().max(1));
        let scored = (estimated / ESTIMATES_PER_SCORE).max(2 * keep);
        let selected = selection.allowed.map_or(self.rows, |allowed| allowed.count_before(self.rows));
        if selected <= scored as u64 || self.cells() == 0 {
            return FlatIndex::new(self.dimension, self.metric, &[vectors.values()])?.search(queries, k, selection);
        }
        // The cells in which so many selected rows would be, were they evenly spread, and as many again a few times.
        let most = probes.max(keep.saturating_mul(WIDER * self.cells()) / selected.max(1) as usize).min(self.cells());
        let breadth = Breadth { probes, most, keep };
        let parts = self.parts()?;
        let some = |queries: &[Vec<f32>]| {
            let (mut input, mut products, mut scratch) = (Matrix::default(), Matrix::default(), Scratch::default());
            input.reshape(queries.len(), self.dimension);
            queries.iter().enumerate().for_each(|(at, query)| input.row_mut(at).copy_from_slice(query));
            self.centres.products(&input, &mut products);
            let find = |(at, values): (usize, &Vec<f32>)| {
                let query = Query { values, products: products.row(at) };
                self.find(parts, vectors, &query, options, breadth, &mut scratch)
            };
            queries.iter().enumerate().map(find).collect::<Result<Vec<_>, _>>()
        };
        let found = prepared.par_chunks(QUERIES).map(some).collect::<Result<Vec<_>, _>>()?;
        Ok(found.into_iter().flatten().collect())
    }

    fn check(&self) -> Result<(), IndexError> {
        match &self.data {
            Data::Owned(_) => Ok(()),
            Data::Mapped(container) => container.check(),
        }
    }
}
