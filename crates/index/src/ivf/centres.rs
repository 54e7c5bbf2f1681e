//! The centres of the cells: training, the nearest centre of rows, the nearest centres of queries.
//!
//! A centre *is* its 8-bit form. Products with centres are then exact but for the other side's rounding, take a byte a value, and run on
//! the integer kernel, which is 2.7 times as fast as fp32; no other form is kept.

use crossmodal_kernels::Matrix;
use crossmodal_kernels::distance::dot;
use crossmodal_kernels::product::{Int8Weights, PackedLinear, Product};
use crossmodal_kernels::team::Crew;
use rayon::prelude::*;

use super::Watch;
use crate::{IndexError, Metric, Vectors};

/// Rows that are compared with the centres together.
const CHUNK: usize = 64;
/// Rows that training looks at, for each cell.
const SAMPLES: usize = 64;
/// Rounds of training.
const ROUNDS: usize = 8;
/// Scores whose greatest is found first.
const LANES: usize = 16;

/// Centres, ready for products.
#[derive(Debug)]
pub(super) struct Centres {
    pub(super) packed: PackedLinear,
    /// Half the squared length of each.
    halves: Vec<f32>,
}

impl Centres {
    /// The centres of these levels and scales.
    pub(super) fn new(weights: &Int8Weights, dimension: usize) -> Self {
        let packed = PackedLinear::int8(weights, dimension, None, None);
        let halves = weights.dequantise().chunks_exact(dimension).map(|centre| dot(centre, centre) / 2.0).collect();
        Self { packed, halves }
    }

    /// The inner products of the rows of `input` with all centres.
    pub(super) fn products(&self, input: &Matrix, out: &mut Matrix) {
        Product::of(&self.packed).run(Crew::Solo, input, out);
    }

    /// Turns the inner products of a vector into scores by which its nearest cells are found: for unbounded inner products the products
    /// themselves, otherwise those less half the squared length of the centre, which rank like distances.
    pub(super) fn scores(&self, metric: Metric, products: &[f32], out: &mut Vec<f32>) {
        out.clear();
        match metric {
            Metric::InnerProduct => out.extend_from_slice(products),
            Metric::Cosine | Metric::Euclidean => {
                out.extend(products.iter().zip(&self.halves).map(|(product, half)| product - half));
            }
        }
    }

    /// The distance of a vector from a centre by its squared length and its product with it.
    pub(super) fn distance(&self, cell: usize, square: f32, product: f32) -> f32 {
        (square + 2.0 * self.halves[cell] - 2.0 * product).max(0.0).sqrt()
    }

    /// The cell with the nearest centre for each of the listed rows.
    pub(super) fn assign(&self, vectors: Vectors<'_>, rows: &[u32], watch: &Watch<'_>) -> Result<Vec<u32>, IndexError> {
        let mut cells = vec![0; rows.len()];
        let work = |(input, products, scores): &mut (Matrix, Matrix, Vec<f32>), (cells, rows): (&mut [u32], &[u32])| {
            input.reshape(rows.len(), vectors.dimension());
            for (at, row) in rows.iter().enumerate() {
                input.row_mut(at).copy_from_slice(vectors.row(u64::from(*row)));
            }
            self.products(input, products);
            for (at, cell) in cells.iter_mut().enumerate() {
                // A cell is where a row is near, whatever the metric.
                self.scores(Metric::Euclidean, products.row(at), scores);
                *cell = greatest(scores) as u32;
            }
            watch.did(rows.len())
        };
        let chunks = cells.par_chunks_mut(CHUNK).zip(rows.par_chunks(CHUNK));
        chunks.map_init(Default::default, work).collect::<Result<(), _>>()?;
        Ok(cells)
    }
}

/// The place of the greatest number, the first of equal ones; 0 where all are NaN.
fn greatest(scores: &[f32]) -> usize {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = scores.as_chunks::<LANES>();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, score)| *lane = if *score > *lane { *score } else { *lane });
    }
    let most = lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |most, score| most.max(*score));
    scores.iter().position(|score| *score == most).unwrap_or(0)
}

/// The places of the `count` greatest numbers, greatest first, the first of equal ones first; of NaN, none.
pub(super) fn greatest_many(scores: &[f32], count: usize, out: &mut Vec<u32>) {
    out.clear();
    let mut floor = f32::NEG_INFINITY;
    if count.saturating_mul(LANES) < scores.len() {
        // So many groups have a member that is at least as great as the last of their greatest ones: nothing below it is wanted.
        let most = |group: &[f32]| group.iter().fold(f32::NEG_INFINITY, |most, score| most.max(*score));
        let mut mosts: Vec<f32> = scores.chunks(LANES).map(most).collect();
        let (_, nth, _) = mosts.select_nth_unstable_by(count.max(1) - 1, |a, b| b.total_cmp(a));
        floor = *nth;
    }
    for (group, scores) in scores.chunks(LANES).enumerate() {
        if scores.iter().fold(false, |any, score| any | (*score >= floor)) {
            let above = (0..).zip(scores).filter(|(_, score)| **score >= floor);
            out.extend(above.map(|(at, _)| group as u32 * LANES as u32 + at));
        }
    }
    out.sort_unstable_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b)));
    out.truncate(count);
}

/// Rows that training goes through in all.
pub(super) fn training_rows(rows: usize, cells: usize) -> usize {
    ROUNDS * rows.min(cells.saturating_mul(SAMPLES))
}

/// Trains the centres of `cells` cells by k-means over a sample of the rows, the same ones for the same rows whatever the threads.
pub(super) fn train(vectors: Vectors<'_>, cells: usize, watch: &Watch<'_>) -> Result<Int8Weights, IndexError> {
    let dimension = vectors.dimension();
    let sample = spread(vectors.rows(), cells.saturating_mul(SAMPLES));
    let mut means: Vec<f32> = spread(sample.len() as u64, cells)
        .iter()
        .flat_map(|at| vectors.row(u64::from(sample[*at as usize])))
        .copied()
        .collect();
    for _ in 0..ROUNDS {
        let centres = Centres::new(&Int8Weights::quantise(&means, dimension), dimension);
        let of = centres.assign(vectors, &sample, watch)?;
        let members = Members::new(&of, cells);
        means.par_chunks_exact_mut(dimension).enumerate().for_each(|(cell, mean)| {
            let members = members.of(cell);
            if members.is_empty() {
                return;
            }
            let mut sums = vec![0f64; dimension];
            for member in members {
                let row = vectors.row(u64::from(sample[*member as usize]));
                sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
            }
            mean.iter_mut().zip(&sums).for_each(|(mean, sum)| *mean = (sum / members.len() as f64) as f32);
        });
        split(&mut means, dimension, &members);
    }
    // A value that is no number would spoil its whole centre, and the order of all.
    means.iter_mut().for_each(|x| *x = if x.is_finite() { *x } else { 0.0 });
    Ok(Int8Weights::quantise(&means, dimension))
}

/// Up to `count` numbers below `total`, evenly spread, each from a random place of its stretch.
fn spread(total: u64, count: usize) -> Vec<u32> {
    let count = (count as u64).min(total);
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    let place = |i: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let (start, end) = (i * total / count, (i + 1) * total / count);
        (start + state % (end - start)) as u32
    };
    (0..count).map(place).collect()
}

/// Gives the place of every empty cell to a half of one of the largest cells.
fn split(means: &mut [f32], dimension: usize, members: &Members) {
    let mut sizes: Vec<usize> = (0..means.len() / dimension).map(|cell| members.of(cell).len()).collect();
    let mut large: std::collections::BinaryHeap<_> =
        sizes.iter().enumerate().map(|(cell, size)| (*size, std::cmp::Reverse(cell))).collect();
    for empty in 0..sizes.len() {
        if sizes[empty] > 0 {
            continue;
        }
        let Some((size, std::cmp::Reverse(from))) = large.pop().filter(|(size, _)| *size > 1) else { return };
        (sizes[empty], sizes[from]) = (size / 2, size - size / 2);
        large.push((sizes[from], std::cmp::Reverse(from)));
        large.push((sizes[empty], std::cmp::Reverse(empty)));
        for i in 0..dimension {
            let (x, nudge) = (means[from * dimension + i], if i % 2 == 0 { 1.0 / 32.0 } else { -1.0 / 32.0 });
            means[empty * dimension + i] = x * (1.0 + nudge);
            means[from * dimension + i] = x * (1.0 - nudge);
        }
    }
}

/// The members of every cell, in order.
#[derive(Debug)]
pub(super) struct Members {
    /// Where each cell's members start, and the end.
    pub(super) starts: Vec<u32>,
    pub(super) members: Vec<u32>,
}

impl Members {
    /// Groups `0..of.len()` by cell.
    pub(super) fn new(of: &[u32], cells: usize) -> Self {
        let mut starts = vec![0u32; cells + 1];
        of.iter().for_each(|cell| starts[*cell as usize + 1] += 1);
        for cell in 0..cells {
            starts[cell + 1] += starts[cell];
        }
        let (mut next, mut members) = (starts.clone(), vec![0; of.len()]);
        for (member, cell) in of.iter().enumerate() {
            members[next[*cell as usize] as usize] = member as u32;
            next[*cell as usize] += 1;
        }
        Self { starts, members }
    }

    /// The members of a cell.
    pub(super) fn of(&self, cell: usize) -> &[u32] {
        &self.members[self.starts[cell] as usize..self.starts[cell + 1] as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_are_found_first_ones_first() {
        for length in [1, 2, 15, 16, 17, 100, 4096, 4099] {
            let mut scores: Vec<f32> = (0..length).map(|i| ((i * 7919 + 13) % 257) as f32 - 100.0).collect();
            scores[length / 2] = f32::NAN;
            let mut order: Vec<u32> = (0..length as u32).filter(|i| !scores[*i as usize].is_nan()).collect();
            order.sort_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b)));
            assert_eq!(greatest(&scores), order.first().map_or(0, |first| *first as usize), "{length}");
            for count in [1, 2, 7, 60, 300, 5000] {
                let mut found = vec![9];
                greatest_many(&scores, count, &mut found);
                assert_eq!(found, order[..count.min(order.len())], "{length} {count}");
            }
        }
    }

    #[test]
    fn spread_numbers_are_distinct_and_in_order() {
        for (total, count) in [(0, 5), (1, 1), (7, 7), (7, 20), (1000, 64)] {
            let found = spread(total, count);
            assert_eq!(found.len(), count.min(total as usize));
            assert!(found.is_sorted_by(|a, b| a < b) && found.iter().all(|i| u64::from(*i) < total));
        }
    }

    #[test]
    fn members_are_grouped_by_cell() {
        let members = Members::new(&[2, 0, 2, 3, 0], 5);
        let cells: Vec<_> = (0..5).map(|cell| members.of(cell).to_vec()).collect();
        assert_eq!(cells, [vec![1, 4], vec![], vec![0, 2], vec![3], vec![]]);
    }

    #[test]
    fn training_finds_clusters_and_fills_empty_cells() {
        // Eight tight clusters; the first rows are all of one of them, so that centres start in the wrong places.
        let rows: Vec<f32> = (0..4000)
            .flat_map(|row: usize| {
                let cluster = if row < 2000 { 0 } else { row % 8 };
                (0..8).map(move |i| if i == cluster { 1.0 } else { 0.01 * ((row * 31 + i * 17) % 7) as f32 })
            })
            .collect();
        let vectors = Vectors::new(8, Metric::Cosine, &rows).unwrap();
        let weights = train(vectors, 16, &Watch::new(&|_, _| {}, &|| false, 0)).unwrap();
        let centres = weights.dequantise();
        for cluster in 0..8 {
            let near = centres.chunks(8).any(|centre| centre[cluster] > 0.9);
            assert!(near, "no centre near cluster {cluster}");
        }
    }
}
