//! Groups of rows that are nearly equal: connected by pairs whose cosine reaches a threshold.
//!
//! Every pair is looked at, but most of them through a few coordinates only. The rows, scaled to unit length, are turned: into the directions
//! in which they differ most, or by random signs and a Walsh-Hadamard transform, which spreads differences evenly over all coordinates. The squared distance
//! over some coordinates of an orthonormal basis never exceeds the whole one, 2 - 2 cos, so that a pair that is too far apart there is settled, and
//! nothing is missed. Half of it is |a|²/2 + |b|²/2 - ab, so that pairs become matrix products. What is left is compared in full. Which
//! coordinates pay, and how many, is tried on sampled pairs.

use std::sync::{Mutex, PoisonError};

use crossmodal_kernels::product::{PackedLinear, Product};
use crossmodal_kernels::team::Crew;
use crossmodal_kernels::{Matrix, distance};
use rayon::prelude::*;

use crate::IndexError;
use crate::principal::principal_directions;

/// Widths of the projection that are tried, of evenly spread coordinates and of principal ones.
const WIDTHS: [usize; 5] = [32, 64, 128, 256, 512];
const PRINCIPAL_WIDTHS: [usize; 6] = [8, 16, 24, 32, 48, 64];
/// Rows that the principal directions are those of.
const PRINCIPAL_SAMPLE: usize = 1024;
/// Fewer rows than this are compared before principal directions are found.
const PRINCIPAL_ROWS: usize = 4096;
/// Rows of the two sides of a matrix product: the products fit the cache of a core.
const QUERY_ROWS: usize = 128;
const TILE_ROWS: usize = 1024;
/// Products that are looked through together.
const SCANNED: usize = 64;
/// Pairs that the width is chosen by.
const SAMPLES: usize = 4096;
/// What a full comparison costs, in products of the matrix product: for each of its own, and besides.
const COMPARED_COST: f64 = 6.0;
const CANDIDATE_COST: f64 = 1500.0;
/// More than rounding does to inner products of unit vectors.
const ROUNDING: f32 = 1e-5;
/// How much below the threshold a cosine may be by rounding, so that equal vectors reach 1.
const TOLERANCE: f32 = 1e-6;

/// Joins rows into groups: two rows are in one group when a chain of rows connects them in which neighbours have a cosine of at
/// least `threshold` (to 1e-6), or the same number in `known`. Returns the group of each row of `rows` as the position in `rows` of
/// its first member.
///
/// `values` are row-major; rows need not have unit length. A row without a direction (of length zero, or not finite) is near to none.
///
/// # Errors
/// A dimension of zero, values that are no whole number of rows, a row beyond them, or lists of different lengths.
pub fn near_groups(
    values: &[f32],
    dimension: usize,
    rows: &[u64],
    known: &[usize],
    threshold: f32,
) -> Result<Vec<usize>, IndexError> {
    if dimension == 0 {
        return Err(IndexError::ZeroDimension);
    }
    if !values.len().is_multiple_of(dimension) {
        return Err(IndexError::RaggedBlock { block: 0, length: values.len(), dimension });
    }
    let count = (values.len() / dimension) as u64;
    if let Some(row) = rows.iter().find(|row| **row >= count) {
        return Err(IndexError::GroupCount { found: count, expected: row + 1 });
    }
    if known.len() != rows.len() {
        return Err(IndexError::GroupCount { found: known.len() as u64, expected: rows.len() as u64 });
    }
    let vectors = Rows::new(values, dimension, rows);
    let groups = Mutex::new(Groups::new(known));
    let (turn, width) = choose(&vectors, threshold);
    let projected = vectors.project(&turn, width);
    let compare = Compare { vectors: &vectors, projected: &projected, threshold, groups: &groups };
    // A block of queries meets the tile that it lies in and those behind it.
    let tiles = |block: usize| block * QUERY_ROWS / TILE_ROWS..projected.tiles.len();
    let blocks = 0..projected.queries.len();
    let pairs: Vec<(usize, usize)> = blocks.flat_map(|block| tiles(block).map(move |tile| (block, tile))).collect();
    pairs.par_iter().for_each_init(Scratch::default, |scratch, (block, tile)| compare.block(*block, *tile, scratch));
    Ok(groups.into_inner().unwrap_or_else(PoisonError::into_inner).first_members())
}

/// The rows that take part.
struct Rows<'a> {
    values: &'a [f32],
    dimension: usize,
    rows: &'a [u64],
    lengths: Vec<f32>,
}

impl<'a> Rows<'a> {
    fn new(values: &'a [f32], dimension: usize, rows: &'a [u64]) -> Self {
        let mut new = Self { values, dimension, rows, lengths: Vec::new() };
        new.lengths = (0..rows.len()).into_par_iter().map(|at| distance::norm(new.row(at))).collect();
        new
    }

    fn row(&self, at: usize) -> &'a [f32] {
        &self.values[self.rows[at] as usize * self.dimension..][..self.dimension]
    }

    fn cosine(&self, a: usize, b: usize) -> f32 {
        distance::dot(self.row(a), self.row(b)) / (self.lengths[a] * self.lengths[b])
    }

    /// The first coordinates of a turned row, or all of the row itself where as many are wanted. A row without a direction comes out as
    /// NaN, which reaches no threshold.
    fn project_row(&self, at: usize, turn: &Turn, scratch: &mut Vec<f32>, out: &mut [f32]) {
        scratch.clear();
        scratch.extend_from_slice(self.row(at));
        let length = distance::normalize(scratch);
        if !(length > 0.0 && length.is_finite()) {
            out.fill(f32::NAN);
            return;
        }
        match turn {
            Turn::Principal(directions) => {
                let directions = directions.chunks_exact(self.dimension);
                out.iter_mut().zip(directions).for_each(|(out, direction)| *out = distance::dot(direction, scratch));
            }
            Turn::Spread => {
                if out.len() < self.dimension {
                    scratch.resize(self.dimension.next_power_of_two(), 0.0);
                    rotate(scratch);
                }
                out.copy_from_slice(&scratch[..out.len()]);
            }
        }
    }

    /// The principal directions of some of the rows, as many as there are, at most the greatest width.
    fn principal(&self) -> Turn {
        let count = self.rows.len();
        let taken = count.min(PRINCIPAL_SAMPLE);
        let mut sample = Vec::with_capacity(taken * self.dimension);
        for place in 0..taken {
            let start = sample.len();
            sample.extend_from_slice(self.row(place * count / taken));
            let length = distance::normalize(&mut sample[start..]);
            if !(length > 0.0 && length.is_finite()) {
                sample.truncate(start);
            }
        }
        let most = PRINCIPAL_WIDTHS.into_iter().filter(|width| *width < self.dimension).max().unwrap_or(0);
        Turn::Principal(principal_directions(&sample, self.dimension, most))
    }

    fn project(&self, turn: &Turn, width: usize) -> Projected {
        let mut values = vec![0.0; self.rows.len() * width];
        let rows = values.par_chunks_mut(width).enumerate();
        rows.for_each_init(Vec::new, |scratch, (at, out)| self.project_row(at, turn, scratch, out));
        let half_squares: Vec<f32> = values.par_chunks(width).map(|row| 0.5 * distance::dot(row, row)).collect();
        let queries = values.par_chunks(QUERY_ROWS * width).map(|rows| Matrix::from_rows(rows, width)).collect();
        let tiles = values.par_chunks(TILE_ROWS * width).zip(half_squares.par_chunks(TILE_ROWS));
        let pack = |(rows, half_squares): (&[f32], &[f32])| {
            let bias: Vec<f32> = half_squares.iter().map(|half| -half).collect();
            PackedLinear::fp32(rows, width, Some(&bias), None)
        };
        Projected { queries, tiles: tiles.map(pack).collect(), half_squares }
    }
}

/// How rows are turned before their first coordinates are taken.
enum Turn {
    /// Into these orthonormal directions, row-major.
    Principal(Vec<f32>),
    /// So that differences are spread evenly.
    Spread,
}

/// Projected rows, in the forms that both sides of a matrix product have.
struct Projected {
    /// Blocks of [`QUERY_ROWS`].
    queries: Vec<Matrix>,
    /// Blocks of [`TILE_ROWS`], as maps that give the inner product less half the squared length of the tile's row.
    tiles: Vec<PackedLinear>,
    /// Half the squared length of each row.
    half_squares: Vec<f32>,
}

/// An orthonormal transform: fixed random signs, then Walsh-Hadamard. The length must be a power of two.
fn rotate(values: &mut [f32]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for value in values.iter_mut() {
        state = next(state);
        if state >> 63 == 1 {
            *value = -*value;
        }
    }
    let scale = 1.0 / (values.len() as f32).sqrt();
    let mut half = 1;
    while half < values.len() {
        for pair in values.chunks_exact_mut(half * 2) {
            let (left, right) = pair.split_at_mut(half);
            for (left, right) in left.iter_mut().zip(right) {
                (*left, *right) = (*left + *right, *left - *right);
            }
        }
        half *= 2;
    }
    values.iter_mut().for_each(|value| *value *= scale);
}

/// Knuth's MMIX generator; the upper bits are good.
fn next(state: u64) -> u64 {
    state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
}

/// Half the squared distance that a pair of this cosine has, negated; with a margin for rounding.
fn least(threshold: f32) -> f32 {
    threshold - 1.0 - ROUNDING
}

/// The turn and the width that cost least on sampled pairs.
fn choose(vectors: &Rows<'_>, threshold: f32) -> (Turn, usize) {
    let whole = vectors.dimension;
    let mut best = (Turn::Spread, whole, whole as f64);
    let mut consider = |turn: Turn, widths: &[usize]| {
        let (width, cost) = least_cost(vectors, &turn, widths, threshold);
        if cost < best.2 {
            best = (turn, width, cost);
        }
    };
    consider(Turn::Spread, &WIDTHS);
    if vectors.rows.len() >= PRINCIPAL_ROWS {
        let turn = vectors.principal();
        let found = match &turn {
            Turn::Principal(directions) => directions.len() / whole,
            Turn::Spread => whole,
        };
        let mut widths = PRINCIPAL_WIDTHS.map(|width| width.min(found)).to_vec();
        widths.dedup();
        if found > 0 {
            consider(turn, &widths);
        }
    }
    (best.0, best.1)
}

/// The width below the whole that costs least for a turn, and what it costs a pair, in products of the matrix product.
fn least_cost(vectors: &Rows<'_>, turn: &Turn, widths: &[usize], threshold: f32) -> (usize, f64) {
    let whole = vectors.dimension;
    let widths: Vec<usize> = widths.iter().copied().filter(|width| *width < whole).collect();
    let (Some(widest), count) = (widths.last().copied(), vectors.rows.len() as u64) else {
        return (whole, whole as f64);
    };
    let mut state = count;
    let mut any = || {
        state = next(state);
        ((state >> 32) % count.max(1)) as usize
    };
    let mut passed = vec![0usize; widths.len()];
    let (mut scratch, mut a, mut b) = (Vec::new(), vec![0.0; widest], vec![0.0; widest]);
    for _ in 0..if count > 1 { SAMPLES } else { 0 } {
        vectors.project_row(any(), turn, &mut scratch, &mut a);
        vectors.project_row(any(), turn, &mut scratch, &mut b);
        for (passed, width) in passed.iter_mut().zip(&widths) {
            let squared = distance::squared_euclidean(&a[..*width], &b[..*width]);
            *passed += usize::from(-0.5 * squared >= least(threshold));
        }
    }
    let cost = |(width, passed): (&usize, &usize)| {
        *width as f64 + *passed as f64 / SAMPLES as f64 * (whole as f64 * COMPARED_COST + CANDIDATE_COST)
    };
    let costs = widths.iter().zip(&passed).map(|pair| (*pair.0, cost(pair)));
    costs.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((whole, whole as f64))
}

struct Compare<'a> {
    vectors: &'a Rows<'a>,
    projected: &'a Projected,
    threshold: f32,
    groups: &'a Mutex<Groups>,
}

impl Compare<'_> {
    /// Compares every row of a block of queries with every later row of a tile.
    fn block(&self, block: usize, tile: usize, scratch: &mut Scratch) {
        let Scratch { products, candidates } = scratch;
        let Projected { queries, tiles, half_squares } = self.projected;
        Product::of(&tiles[tile]).run(Crew::Solo, &queries[block], products);
        candidates.clear();
        for at in 0..products.rows() {
            let query = block * QUERY_ROWS + at;
            let least = least(self.threshold) + half_squares[query];
            for (part, chunk) in products.row(at).chunks(SCANNED).enumerate() {
                // Without a branch a value, so that it is vectorised; nearly every chunk ends here.
                if chunk.iter().fold(false, |any, product| any | (*product >= least)) {
                    let near = chunk.iter().enumerate().filter(|(_, product)| **product >= least);
                    let near = near.map(|(at, _)| (query, tile * TILE_ROWS + part * SCANNED + at));
                    candidates.extend(near.filter(|(query, other)| query < other));
                }
            }
        }
        if !candidates.is_empty() {
            self.join(candidates);
        }
    }

    /// Joins those of the candidates that are near enough and not joined yet.
    fn join(&self, candidates: &mut Vec<(usize, usize)>) {
        let mut groups = self.lock();
        candidates.retain(|(a, b)| groups.find(*a) != groups.find(*b));
        drop(groups);
        candidates.retain(|(a, b)| self.vectors.cosine(*a, *b) >= self.threshold - TOLERANCE);
        let mut groups = self.lock();
        candidates.iter().for_each(|(a, b)| groups.join(*a, *b));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a thread uses again for each of its blocks.
#[derive(Default)]
struct Scratch {
    products: Matrix,
    candidates: Vec<(usize, usize)>,
}

/// Disjoint sets: each member points to another of its set, the root to itself. Roots are the first members.
struct Groups {
    parents: Vec<usize>,
}

impl Groups {
    fn new(known: &[usize]) -> Self {
        let mut first = std::collections::HashMap::new();
        Self { parents: known.iter().enumerate().map(|(at, group)| *first.entry(*group).or_insert(at)).collect() }
    }

    fn find(&mut self, mut at: usize) -> usize {
        while self.parents[at] != at {
            self.parents[at] = self.parents[self.parents[at]];
            at = self.parents[at];
        }
        at
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        self.parents[a.max(b)] = a.min(b);
    }

    fn first_members(mut self) -> Vec<usize> {
        (0..self.parents.len()).map(|at| self.find(at)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(seed: u64, count: usize) -> Vec<f32> {
        let mut state = seed;
        let mut value = || {
            state = next(state);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| value()).collect()
    }

    /// Clusters of several widths around random centres, so that cosines of all sizes appear.
    fn clustered(dimension: usize, rows: usize) -> Vec<f32> {
        let (centres, noise) = (values(1, dimension * 7), values(2, dimension * rows));
        let mut all = Vec::new();
        for (row, noise) in noise.chunks(dimension).enumerate() {
            let centre = &centres[row % 7 * dimension..][..dimension];
            let size = [0.0, 0.05, 0.2, 0.5, 1.0][row / 7 % 5];
            let scale = 1.0 + row as f32;
            all.extend(centre.iter().zip(noise).map(|(centre, noise)| scale * (centre + size * noise)));
        }
        all
    }

    fn oracle(values: &[f32], dimension: usize, rows: &[u64], known: &[usize], threshold: f64) -> Vec<usize> {
        let row = |row: u64| &values[row as usize * dimension..][..dimension];
        let cosine = |a: &[f32], b: &[f32]| {
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
        };
        let mut groups: Vec<usize> = (0..rows.len()).collect();
        for b in 0..rows.len() {
            for a in 0..b {
                if known[a] == known[b] || cosine(row(rows[a]), row(rows[b])) >= threshold {
                    let (from, to) = (groups[b].max(groups[a]), groups[b].min(groups[a]));
                    groups.iter_mut().filter(|group| **group == from).for_each(|group| *group = to);
                }
            }
        }
        groups
    }

    #[test]
    fn equals_comparing_every_pair() {
        for (dimension, rows) in [(3, 40), (64, 300), (130, 1100), (512, 210)] {
            let values = clustered(dimension, rows);
            let some: Vec<u64> = (0..rows as u64).filter(|row| row % 11 != 3).collect();
            let known: Vec<usize> = (0..some.len()).map(|at| if at % 50 == 1 { 1 } else { at }).collect();
            for threshold in [0.3, 0.9, 0.97, 0.995] {
                let found = near_groups(&values, dimension, &some, &known, threshold).unwrap();
                let expected = oracle(&values, dimension, &some, &known, f64::from(threshold));
                assert_eq!(found, expected, "{dimension} {threshold}");
                assert!(found.iter().enumerate().any(|(at, group)| at != *group), "nothing is near");
            }
        }
    }

    #[test]
    fn every_width_finds_the_same() {
        let (dimension, rows) = (300, 400);
        let values = clustered(dimension, rows);
        let all: Vec<u64> = (0..rows as u64).collect();
        let known: Vec<usize> = (0..rows).collect();
        let vectors = Rows::new(&values, dimension, &all);
        let expected = oracle(&values, dimension, &all, &known, 0.98);
        let principal = vectors.principal();
        let spread = [32, 64, 256, dimension].map(|width| (&Turn::Spread, width));
        for (turn, width) in spread.into_iter().chain([1, 8, 24, 64].map(|width| (&principal, width))) {
            let groups = Mutex::new(Groups::new(&known));
            let projected = vectors.project(turn, width);
            let compare = Compare { vectors: &vectors, projected: &projected, threshold: 0.98, groups: &groups };
            (0..projected.queries.len()).for_each(|block| compare.block(block, 0, &mut Scratch::default()));
            assert_eq!(groups.into_inner().unwrap().first_members(), expected, "{width}");
        }
        let widths = [0.2, 0.999].map(|threshold| choose(&vectors, threshold).1);
        assert!(widths[0] > widths[1], "{widths:?}");
    }

    /// Enough rows for principal directions to be tried, on a surface that they find.
    #[test]
    fn principal_directions_are_chosen_and_miss_nothing() {
        let (dimension, latent, rows) = (96, 6, PRINCIPAL_ROWS);
        let (basis, points) = (values(1, latent * dimension), values(2, latent * rows));
        let mut all = Vec::with_capacity(rows * dimension);
        for point in points.chunks_exact(latent) {
            all.extend((0..dimension).map(|i| (0..latent).map(|l| point[l] * basis[l * dimension + i]).sum::<f32>()));
        }
        // Some of no direction.
        all[5 * dimension..6 * dimension].fill(0.0);
        all[9 * dimension] = f32::NAN;
        let numbers: Vec<u64> = (0..rows as u64).collect();
        let known: Vec<usize> = (0..rows).collect();
        let vectors = Rows::new(&all, dimension, &numbers);
        let (turn, width) = choose(&vectors, 0.995);
        assert!(matches!(turn, Turn::Principal(_)) && width <= 8, "{width}");
        let found = near_groups(&all, dimension, &numbers, &known, 0.995).unwrap();
        let mut expected = Groups::new(&known);
        for b in 0..rows {
            (0..b).filter(|a| vectors.cosine(*a, b) >= 0.995 - TOLERANCE).for_each(|a| expected.join(a, b));
        }
        assert_eq!(found, expected.first_members());
    }

    #[test]
    fn equal_vectors_reach_one_and_rows_without_direction_nothing() {
        let row = values(9, 100);
        let scaled: Vec<f32> = row.iter().map(|value| value * 3.7).collect();
        let (zero, nan) = (vec![0.0; 100], vec![f32::NAN; 100]);
        let all = [&row[..], &zero, &scaled, &nan, &zero, &nan, &row].concat();
        let rows: Vec<u64> = (0..7).collect();
        let found = near_groups(&all, 100, &rows, &[0, 1, 2, 3, 4, 5, 6], 1.0).unwrap();
        assert_eq!(found, [0, 1, 0, 3, 4, 5, 0]);
        assert!(near_groups(&all, 100, &[7], &[0], 1.0).is_err());
        assert!(near_groups(&all, 100, &[6], &[], 1.0).is_err());
        assert!(near_groups(&[], 0, &[], &[], 1.0).is_err());
        assert!(near_groups(&[], 4, &[], &[], 1.0).unwrap().is_empty());
    }

    #[test]
    fn products_are_partial_distances() {
        let (dimension, rows) = (200, 50);
        let values = clustered(dimension, rows);
        let all: Vec<u64> = (0..rows as u64).collect();
        let vectors = Rows::new(&values, dimension, &all);
        let principal = vectors.principal();
        let spread = [32, 128, dimension].map(|width| (&Turn::Spread, width));
        for (turn, width) in spread.into_iter().chain([8, 32].map(|width| (&principal, width))) {
            let Projected { queries, tiles, half_squares } = vectors.project(turn, width);
            let mut products = Matrix::default();
            Product::of(&tiles[0]).run(Crew::Solo, &queries[0], &mut products);
            for (a, b) in [(0, 0), (0, 7), (3, 49), (14, 28)] {
                let product = products.row(a)[b] - half_squares[a];
                let squared = distance::squared_euclidean(queries[0].row(a), queries[0].row(b));
                assert!((product + 0.5 * squared).abs() < 1e-5, "{width} {a} {b}: {product} for {squared}");
                assert!(product >= vectors.cosine(a, b) - 1.0 - ROUNDING, "{width} {a} {b} would be missed");
            }
        }
    }

    #[test]
    fn rotating_keeps_distances() {
        let (mut a, mut b) = (values(3, 256), values(4, 256));
        let before = distance::squared_euclidean(&a, &b);
        rotate(&mut a);
        rotate(&mut b);
        assert!((distance::squared_euclidean(&a, &b) - before).abs() < 1e-3);
    }
}
