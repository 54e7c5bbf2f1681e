//! Many queries at once: the matrix product of a chunk's rows with the queries, as a sieve before exact scores.
//!
//! The product adds in another order than [`Metric::score`], so that its results differ in the last bits. Both are within the same bound of
//! the true inner product; a row is passed over only where the bounds leave no doubt that its exact score is below the worst kept one. All
//! others (few more than those that are kept) are scored exactly.

use crossmodal_kernels::product::{PackedLinear, Product};
use crossmodal_kernels::team::Crew;
use crossmodal_kernels::{Matrix, distance};

use super::{Chunk, FlatIndex, Worker};
use crate::Metric;
use crate::top_k::Collect;

/// Queries from which a product is faster than the dot products one by one.
const LEAST_QUERIES: usize = 16;
/// Rows per result from which few of them are scored a second time.
const ROWS_PER_RESULT: u64 = 32;
/// Values of a row up to which the bound of the rounding error holds.
const MOST_VALUES: usize = 1 << 16;
/// Queries of one product: its results for a chunk stay in the second-level cache.
const COLUMNS: usize = 256;
/// Queries whose products are compared with their floors together.
const LANES: usize = 16;

/// Queries as the weights of a product.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    metric: Metric,
    queries: &'a [&'a [f32]],
    packed: PackedLinear,
    /// Squared lengths of the queries.
    squares: Vec<f32>,
    /// The greatest length of a query.
    longest: f32,
    /// What the rounding errors of a product and of a score are at most, together, as a share of the product of the lengths.
    doubt: f32,
}

/// Buffers of a thread.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    rows: Matrix,
    products: Matrix,
    /// The product that each query's next result has to reach, without the row's part in it.
    floors: Vec<f32>,
    /// The row's part.
    offsets: Vec<f32>,
}

impl<'a> Batch<'a> {
    /// Whether so many queries are better served by a product.
    pub(super) fn worth_it(index: &FlatIndex<'_>, queries: usize, k: usize) -> bool {
        let few_results = (k as u64).saturating_mul(ROWS_PER_RESULT) <= index.rows;
        queries >= LEAST_QUERIES && k > 0 && few_results && index.dimension <= MOST_VALUES
    }

    pub(super) fn new(metric: Metric, queries: &'a [&'a [f32]]) -> Self {
        let dimension = queries[0].len();
        let packed = PackedLinear::fp32(&queries.concat(), dimension, None, None);
        let squares: Vec<f32> = queries.iter().map(|query| distance::dot(query, query)).collect();
        let longest = squares.iter().fold(0f32, |longest, square| longest.max(*square)).sqrt();
        // A sum of n products in any order is off by at most about n / 2^24 of the sum of their magnitudes, which is at most the product
        // of the lengths. Two such sums, the lengths' own errors, and as much again to be safe.
        let doubt = 4.0 * (dimension as f32 + 16.0) * (f32::EPSILON / 2.0);
        Self { metric, queries, packed, squares, longest, doubt }
    }

    /// What a query's products must reach, without the row's part, for a score of `floor`.
    fn product_floor(&self, query: usize, floor: f32) -> f32 {
        match self.metric {
            Metric::Cosine | Metric::InnerProduct => floor,
            // |a - b|^2 = |a|^2 + |b|^2 - 2 <a, b>; the factor is for the rounding of the root.
            Metric::Euclidean => (self.squares[query] - floor * floor * (1.0 + 1e-6)) / 2.0,
        }
    }

    /// The part of a row with this squared length in the product that it must reach.
    fn offset(&self, square: f32) -> f32 {
        match self.metric {
            Metric::Cosine | Metric::InnerProduct => -(self.doubt * square.sqrt() * self.longest + f32::MIN_POSITIVE),
            Metric::Euclidean => {
                let sum = square.sqrt() + self.longest;
                (square - (self.doubt * sum * sum + f32::MIN_POSITIVE)) / 2.0
            }
        }
    }

    /// Offers the rows of a chunk (the selected ones where `selected`) to the queries' collectors.
    pub(super) fn scan<T: Collect>(&self, chunk: &Chunk<'_>, selected: bool, worker: &mut Worker<T>) {
        let Worker { tops, scratch } = worker;
        let (indices, scratch) = (&scratch.indices, &mut scratch.batch);
        let dimension = self.packed.inner();
        let count = if selected { indices.len() } else { chunk.values.len() / dimension };
        if count == 0 {
            return;
        }
        let row_at = |i: usize| if selected { indices[i] as usize } else { i };
        scratch.rows.reshape(count, dimension);
        scratch.offsets.clear();
        for i in 0..count {
            let row = &chunk.values[row_at(i) * dimension..][..dimension];
            scratch.rows.row_mut(i).copy_from_slice(row);
            scratch.offsets.push(self.offset(distance::dot(row, row)));
        }
        if scratch.floors.is_empty() {
            let tops = tops.iter().enumerate();
            scratch.floors.extend(tops.map(|(query, top)| self.product_floor(query, top.floor())));
        }
        for first in (0..tops.len()).step_by(COLUMNS) {
            let columns = first..tops.len().min(first + COLUMNS);
            Product::of(&self.packed).only(columns.clone()).run(Crew::Solo, &scratch.rows, &mut scratch.products);
            for (i, offset) in scratch.offsets.iter().enumerate() {
                let products = scratch.products.row(i).chunks(LANES);
                let floors = scratch.floors[first..].chunks_mut(LANES);
                for (lane, (products, floors)) in products.zip(floors).enumerate() {
                    if !may_reach(products, floors, *offset) {
                        continue;
                    }
                    for (at, product) in products.iter().enumerate() {
                        // Written so that what isn't a number is scored.
                        if *product < floors[at] + offset {
                            continue;
                        }
                        let query = first + lane * LANES + at;
                        let row = row_at(i);
                        let values = &chunk.values[row * dimension..][..dimension];
                        tops[query].push(self.metric.score(values, self.queries[query]), chunk.first_row + row as u64);
                        floors[at] = self.product_floor(query, tops[query].floor());
                    }
                }
            }
        }
    }
}

/// Whether any of the products may reach its floor.
#[inline]
fn may_reach(products: &[f32], floors: &[f32], offset: f32) -> bool {
    let reach = |product: &f32, floor: &f32| {
        let below = *product < *floor + offset;
        u32::from(!below)
    };
    match (<&[f32; LANES]>::try_from(products), <&[f32; LANES]>::try_from(floors)) {
        // Of known length and without an early end, so that it becomes a few vector instructions.
        (Ok(products), Ok(floors)) => {
            products.iter().zip(floors).fold(0, |any, (product, floor)| any | reach(product, floor)) != 0
        }
        _ => products.iter().zip(floors).any(|(product, floor)| reach(product, floor) != 0),
    }
}
