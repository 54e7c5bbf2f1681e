//! Looking into the nearest cells.

use crossmodal_kernels::distance::dot;
use crossmodal_kernels::signs::{self, BLOCK_ROWS, SignTable, scan_signs};
use crossmodal_kernels::{Matrix, scan};
use rayon::prelude::*;

use super::centres::greatest_many;
use super::{CellCodes, Data, Ivf, Parts};
use crate::candidates::{self, Candidates};
use crate::top_k::Collect;
use crate::{
    AnnIndex, FlatIndex, IndexError, IndexInfo, IndexKind, Metric, Neighbor, Ranked, RowSet, SearchOptions, Selection,
    Vectors,
};

/// Most queries that are compared with the centres together.
const QUERIES: usize = 64;
/// Rows that are estimated in the time of one exact score.
const ESTIMATES_PER_SCORE: usize = 32;
/// Candidates that are scored exactly, for each result and at least.
const CANDIDATES: (usize, usize) = (10, 64);
/// Candidates that are scored before the floor for further ones is raised.
const SCORED: usize = 16;
/// What an estimate may be off by, times factor and distance from the centre: 2.5 times its standard deviation. The part of a row that its
/// signs don't hold has a length of sqrt(pi / 2 - 1) of the whole, which is sqrt(2 / pi) of the factor times the root of the dimension, and
/// lies in a random direction.
const DOUBT: f32 = 2.5 * 0.603;
/// By how much more is looked at when too little was found.
const WIDER: usize = 4;

/// Buffers that are used again for each query.
#[derive(Default)]
struct Scratch {
    scores: Vec<f32>,
    cells: Vec<u32>,
    rotated: Vec<f32>,
    table: SignTable,
    cell: Estimated,
    candidates: Candidates,
    rows: Vec<u32>,
}

/// The estimates of a cell's rows.
#[derive(Default)]
struct Estimated {
    /// Whole blocks; the cell's own rows begin at `start`.
    estimates: Vec<f32>,
    start: usize,
    /// As many zeros.
    zeros: Vec<f32>,
    places: Vec<u32>,
}

/// One query and what is known of it.
struct Query<'a> {
    /// As it was given.
    given: &'a [f32],
    /// As rows are compared with it.
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
    /// The number of cells that a search looks into which says nothing: 38 of 4,096, which found 0.99 of the neighbours among a million
    /// rows (`bench/search`), and fewer in proportion to the root.
    fn default_effort(&self) -> usize {
        (self.cells() * 36 / 100).isqrt().max(8).min(self.cells())
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
        let Scratch { cells, table, cell: estimated, candidates, rows, .. } = scratch;
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
                    estimated.estimates.resize(blocks.len() * BLOCK_ROWS, 0.0);
                    estimated.zeros.resize(blocks.len() * BLOCK_ROWS, 0.0);
                    estimated.start = slots.start - blocks.start * BLOCK_ROWS;
                    let bits = &parts.signs[blocks.start * bytes..blocks.end * bytes];
                    let factors = &parts.factors[blocks.start * 2 * BLOCK_ROWS..blocks.end * 2 * BLOCK_ROWS];
                    if let Some(next) = cells.get(number + 1) {
                        signs::expect(&parts.signs[self.starts[*next as usize] as usize / BLOCK_ROWS * bytes..]);
                    }
                    scan_signs(bits, factors, table, query.products[*cell as usize], &mut estimated.estimates);
                    let place = (number as u64) << 32 | slots.start as u64;
                    keep_best(candidates, estimated, ids, place, selection.allowed);
                }
            }
        }
        candidates::collect(k, selection, |top| {
            candidates::offer(top, vectors, query.values, rows);
            let square = dot(query.values, query.values);
            for some in candidates.sorted().chunks(SCORED) {
                let floor = self.estimate_floor(square, top.floor());
                rows.clear();
                for Ranked { score: estimate, row: place } in some {
                    let (cell, slot) = (cells[(place >> 32) as usize] as usize, *place as u32 as usize);
                    let factor = parts.factors[slot / BLOCK_ROWS * 2 * BLOCK_ROWS + slot % BLOCK_ROWS];
                    let distance = self.centres.distance(cell, square, query.products[cell]);
                    let hopeless = estimate + DOUBT * factor * distance < floor;
                    if !hopeless {
                        rows.push(parts.ids[slot]);
                    }
                }
                candidates::offer(top, vectors, query.values, rows);
            }
        })
    }

    /// The estimate that a row with this score has, but for its error.
    fn estimate_floor(&self, square: f32, score: f32) -> f32 {
        match self.metric {
            Metric::Cosine | Metric::InnerProduct => score,
            Metric::Euclidean => (square - score * score) / 2.0,
        }
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
            if breadth.probes >= self.cells() {
                // Fewer are selected, or most candidates are of few groups.
                let exact = FlatIndex::new(self.dimension, self.metric, &[vectors.values()])?;
                return exact.search(&[query.given], k, *selection).map(|mut all| all.remove(0));
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

/// Offers a cell's selected rows by their places: the number of the cell in the order of the search, and in the lower half the slot.
fn keep_best(candidates: &mut Candidates, cell: &mut Estimated, ids: &[u32], first: u64, allowed: Option<&RowSet>) {
    let (estimates, zeros) = (&cell.estimates[cell.start..][..ids.len()], &cell.zeros[..ids.len()]);
    scan::reaching(estimates, zeros, candidates.floor(), &mut cell.places);
    for at in &cell.places {
        let at = *at as usize;
        if is_member(allowed, ids[at]) {
            candidates.push(estimates[at], first + at as u64);
        }
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
        let some = |(prepared, queries): (&[Vec<f32>], &[&[f32]])| {
            let (mut input, mut products, mut scratch) = (Matrix::default(), Matrix::default(), Scratch::default());
            input.reshape(prepared.len(), self.dimension);
            prepared.iter().enumerate().for_each(|(at, query)| input.row_mut(at).copy_from_slice(query));
            self.centres.products(&input, &mut products);
            let find = |(at, (values, given)): (usize, (&Vec<f32>, &&[f32]))| {
                let query = Query { given, values, products: products.row(at) };
                self.find(parts, vectors, &query, options, breadth, &mut scratch)
            };
            prepared.iter().zip(queries).enumerate().map(find).collect::<Result<Vec<_>, _>>()
        };
        let share = prepared.len().div_ceil(rayon::current_num_threads()).clamp(1, QUERIES);
        let found =
            prepared.par_chunks(share).zip(queries.par_chunks(share)).map(some).collect::<Result<Vec<_>, _>>()?;
        Ok(found.into_iter().flatten().collect())
    }

    fn check(&self) -> Result<(), IndexError> {
        match &self.data {
            Data::Owned(_) => Ok(()),
            Data::Mapped(container) => container.check(),
        }
    }
}
