//! Many queries at once: the matrix product of a chunk's rows with the queries, as a sieve before exact scores.
//!
//! The product adds in another order than [`Metric::score`], so that its results differ in the last bits. Both are within the same bound of
//! the true inner product; a row is passed over only where the bounds leave no doubt that its exact score is below the worst kept one. All
//! others (few more than those that are kept) are scored exactly.
//!
//! Where integers are faster, queries and rows are quantised for the product. What that loses of a vector has a length that is known, and the
//! inner product is off by no more than that length times the other vector's (Cauchy and Schwarz), which widens the bounds: some more rows are scored
//! exactly, and the results are the same.

use std::sync::atomic::{AtomicI32, Ordering};

use crossmodal_kernels::product::{Int8Weights, PackedLinear, Product};
use crossmodal_kernels::team::Crew;
use crossmodal_kernels::{Matrix, distance, scan};

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
/// The same where the product quantises the rows first, each time.
const INT8_COLUMNS: usize = 1024;
/// Values of a row from which quantising pays.
const LEAST_QUANTISED: usize = 64;
/// How much longer the longest query may be than the shortest: the bounds are those of the longest.
const MOST_UNEQUAL: f32 = 1.5;
/// Levels of a quantised row of the product: the distance between its greatest and its least value, 0 included.
const ROW_LEVELS: f32 = 127.0;

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
    /// The greatest length of what quantising lost of a query; none where nothing is quantised.
    lost: Option<f32>,
    /// The product that each query's next result has to reach, without the row's part in it: the greatest that a part of the work knows
    /// of, as an integer of the same order.
    floors: Vec<AtomicI32>,
}

/// A number as an integer: greater numbers are greater integers, and NaN is beyond infinity or negative infinity.
fn ordered(x: f32) -> i32 {
    let bits = x.to_bits() as i32;
    bits ^ ((bits >> 31) as u32 >> 1) as i32
}

/// The number that [`ordered`] was given.
fn unordered(bits: i32) -> f32 {
    f32::from_bits((bits ^ ((bits >> 31) as u32 >> 1) as i32) as u32)
}

/// Whether products of integers are faster than those in single precision: the kernels have code of their own for AVX2 only.
fn int8_is_fast() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx2")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Queries as integer weights, and the greatest length of what that loses of one.
fn quantised(queries: &[&[f32]], dimension: usize) -> (PackedLinear, f32) {
    let weights = Int8Weights::quantise(&queries.concat(), dimension);
    let back = weights.dequantise();
    let lost = queries.iter().zip(back.chunks_exact(dimension)).map(|(query, back)| {
        let square: f64 = query.iter().zip(back).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
        square.sqrt()
    });
    // Rounded up.
    let lost = (lost.fold(0.0, f64::max) * (1.0 + 1e-6)) as f32;
    (PackedLinear::int8(&weights, dimension, None, None), lost)
}

/// The greatest length that quantising may take from a row of this length: half a level in every dimension. Infinite where the levels are no
/// ordinary numbers.
fn lost_of_row(row: &[f32], length: f32) -> f32 {
    let (mut least, mut greatest) = ([0f32; 16], [0f32; 16]);
    let (chunks, rest) = row.as_chunks::<16>();
    for chunk in chunks {
        for i in 0..16 {
            least[i] = if chunk[i] < least[i] { chunk[i] } else { least[i] };
            greatest[i] = if chunk[i] > greatest[i] { chunk[i] } else { greatest[i] };
        }
    }
    let low = least.iter().chain(rest).fold(0f32, |low, x| low.min(*x));
    let high = greatest.iter().chain(rest).fold(0f32, |high, x| high.max(*x));
    let level = (high - low) / ROW_LEVELS;
    if !level.is_normal() || !length.is_finite() {
        return f32::INFINITY;
    }
    0.5001 * level * (row.len() as f32).sqrt() + 1e-6 * length
}

/// Buffers of a thread.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    rows: Matrix,
    products: Matrix,
    /// As those of the batch, for one chunk.
    floors: Vec<f32>,
    /// The row's part.
    offsets: Vec<f32>,
    places: Vec<u32>,
}

impl<'a> Batch<'a> {
    /// Whether so many queries are better served by a product.
    pub(super) fn worth_it(index: &FlatIndex<'_>, queries: usize, k: usize) -> bool {
        let few_results = (k as u64).saturating_mul(ROWS_PER_RESULT) <= index.rows;
        queries >= LEAST_QUERIES && k > 0 && few_results && index.dimension <= MOST_VALUES
    }

    pub(super) fn new(metric: Metric, queries: &'a [&'a [f32]]) -> Self {
        let dimension = queries[0].len();
        let squares: Vec<f32> = queries.iter().map(|query| distance::dot(query, query)).collect();
        let longest = squares.iter().fold(0f32, |longest, square| longest.max(*square)).sqrt();
        let shortest = squares.iter().fold(f32::INFINITY, |shortest, square| shortest.min(*square)).sqrt();
        let equal = longest.is_finite() && longest <= MOST_UNEQUAL * shortest;
        let (packed, lost) = if int8_is_fast() && equal && dimension >= LEAST_QUANTISED {
            let (packed, lost) = quantised(queries, dimension);
            (packed, Some(lost))
        } else {
            (PackedLinear::fp32(&queries.concat(), dimension, None, None), None)
        };
        // A sum of n products in any order is off by at most about n / 2^24 of the sum of their magnitudes, which is at most the product
        // of the lengths. Two such sums, the lengths' own errors, and as much again to be safe.
        let doubt = 4.0 * (dimension as f32 + 16.0) * (f32::EPSILON / 2.0);
        let floors = queries.iter().map(|_| AtomicI32::new(ordered(f32::NEG_INFINITY))).collect();
        Self { metric, queries, packed, squares, longest, doubt, lost, floors }
    }

    /// What a query's products must reach, without the row's part, for a score of `floor`.
    fn product_floor(&self, query: usize, floor: f32) -> f32 {
        match self.metric {
            Metric::Cosine | Metric::InnerProduct => floor,
            // |a - b|^2 = |a|^2 + |b|^2 - 2 <a, b>; the factor is for the rounding of the root.
            Metric::Euclidean => (self.squares[query] - floor * floor * (1.0 + 1e-6)) / 2.0,
        }
    }

    /// The part of a row in the product that it must reach.
    fn offset(&self, row: &[f32]) -> f32 {
        let square = distance::dot(row, row);
        let length = square.sqrt();
        let quantised = self.lost.map_or(0.0, |lost| lost * length + lost_of_row(row, length) * (self.longest + lost));
        if quantised == f32::INFINITY {
            return f32::NEG_INFINITY;
        }
        match self.metric {
            Metric::Cosine | Metric::InnerProduct => {
                -(self.doubt * length * self.longest + quantised + f32::MIN_POSITIVE)
            }
            Metric::Euclidean => {
                let sum = length + self.longest;
                (square - (self.doubt * sum * sum + f32::MIN_POSITIVE)) / 2.0 - quantised
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
            scratch.offsets.push(self.offset(row));
        }
        scratch.floors.clear();
        scratch.floors.extend(self.floors.iter().map(|floor| unordered(floor.load(Ordering::Relaxed))));
        let width = if self.lost.is_some() { INT8_COLUMNS } else { COLUMNS };
        for first in (0..tops.len()).step_by(width) {
            let columns = first..tops.len().min(first + width);
            Product::of(&self.packed).only(columns.clone()).run(Crew::Solo, &scratch.rows, &mut scratch.products);
            for (i, offset) in scratch.offsets.iter().enumerate() {
                let floors = &mut scratch.floors[columns.clone()];
                scan::reaching(scratch.products.row(i), floors, *offset, &mut scratch.places);
                for place in &scratch.places {
                    let (query, row) = (first + *place as usize, row_at(i));
                    let values = &chunk.values[row * dimension..][..dimension];
                    tops[query].push(self.metric.score(values, self.queries[query]), chunk.first_row + row as u64);
                    let floor = self.product_floor(query, tops[query].floor());
                    // Another part of the work may know of better results.
                    let known = &mut floors[*place as usize];
                    if ordered(floor) > ordered(*known) {
                        *known = floor;
                        self.floors[query].fetch_max(ordered(floor), Ordering::Relaxed);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_the_order_of_numbers() {
        let numbers = [f32::NEG_INFINITY, -3.5, -1e-40, -0.0, 0.0, 1e-40, 1.0, 2.5, f32::INFINITY, f32::NAN];
        assert!(numbers.map(ordered).is_sorted_by(|a, b| a < b));
        numbers.iter().for_each(|x| assert_eq!(unordered(ordered(*x)).to_bits(), x.to_bits()));
    }
}
