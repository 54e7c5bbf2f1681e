//! The first two principal components: where a map starts, and all there is to one of few items.
//!
//! Orthogonal iteration with a block of vectors and Rayleigh-Ritz (Golub and Van Loan, Matrix Computations, 8.2.4 and 8.3), on rows that are
//! centred already. Sums are over pieces of fixed size in a fixed order, so that threads change nothing.

use rayon::prelude::*;

use super::points::Points;

/// Columns of the block: two that are wanted, and two that make them converge faster.
const WIDTH: usize = 4;
/// Rows that the directions are computed from, spread evenly; all rows are projected onto them.
const MOST_ROWS: usize = 4_096;
/// Rows of a piece of work.
const PIECE: usize = 128;
const MOST_STEPS: usize = 60;
/// The relative change of the variance of the first two directions at which they are good enough.
const SETTLED: f64 = 1e-5;
/// What is left of a column, as a part of it, when it is a sum of the others.
const DEPENDENT: f64 = 1e-6;

/// A row of the block.
type Row<T> = [T; WIDTH];

/// The coordinates of all points along the two directions of greatest variance. The largest coordinate of each is positive; a direction without
/// variance is 0.
pub(super) fn principal(points: &Points) -> Vec<[f32; 2]> {
    let axes = directions(points);
    let project = |row: &[f32]| {
        let mut place = [0f64; 2];
        for (value, axes) in row.iter().zip(&axes) {
            place[0] += f64::from(*value) * axes[0];
            place[1] += f64::from(*value) * axes[1];
        }
        place.map(|value| value as f32)
    };
    let mut places: Vec<[f32; 2]> =
        (0..points.count()).into_par_iter().map(|point| project(points.row(point))).collect();
    for axis in 0..2 {
        let larger = |most: f32, place: &[f32; 2]| if place[axis].abs() > most.abs() { place[axis] } else { most };
        if places.iter().fold(0.0, larger) < 0.0 {
            places.iter_mut().for_each(|place| place[axis] = -place[axis]);
        }
    }
    places
}

/// Unit vectors of the two directions, coordinate by coordinate.
fn directions(points: &Points) -> Vec<[f64; 2]> {
    let count = points.count();
    let taken = count.min(MOST_ROWS);
    let rows: Vec<&[f32]> = (0..taken).map(|place| points.row(place * count / taken)).collect();
    let mut block: Vec<Row<f64>> = (0..points.dimension()).map(start).collect();
    orthonormalise(&mut block);
    let mut before = 0.0;
    let mut step = 0;
    loop {
        let mut image = apply(&rows, &block);
        let (variances, rotation) = diagonalise(products(&block, &image));
        step += 1;
        let settled = (variances[0] + variances[1] - before).abs() <= SETTLED * (variances[0] + variances[1]);
        if settled || step == MOST_STEPS {
            let column = |row: &Row<f64>, to: usize| (0..WIDTH).map(|from| row[from] * rotation[from][to]).sum();
            let flat = |to: usize| variances[to] <= DEPENDENT * DEPENDENT * variances[0];
            let direction = |row: &Row<f64>| [0, 1].map(|to| if flat(to) { 0.0 } else { column(row, to) });
            return block.iter().map(direction).collect();
        }
        before = variances[0] + variances[1];
        orthonormalise(&mut image);
        block = image;
    }
}

/// Some numbers in -1..1 for a coordinate.
fn start(coordinate: usize) -> Row<f64> {
    std::array::from_fn(|column| {
        let bits = super::layout::hash((coordinate * WIDTH + column) as u64);
        (bits >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    })
}

/// The product of the rows' second moments with the block.
fn apply(rows: &[&[f32]], block: &[Row<f64>]) -> Vec<Row<f64>> {
    let narrow: Vec<Row<f32>> = block.iter().map(|row| row.map(|value| value as f32)).collect();
    let piece = |rows: &[&[f32]]| {
        let mut sums = vec![[0f32; WIDTH]; block.len()];
        for row in rows {
            let mut products = [0f32; WIDTH];
            for (value, column) in row.iter().zip(&narrow) {
                products.iter_mut().zip(column).for_each(|(product, column)| *product += value * column);
            }
            for (sum, value) in sums.iter_mut().zip(*row) {
                sum.iter_mut().zip(&products).for_each(|(sum, product)| *sum += value * product);
            }
        }
        sums
    };
    let pieces: Vec<Vec<Row<f32>>> = rows.par_chunks(PIECE).map(piece).collect();
    let mut sums = vec![[0f64; WIDTH]; block.len()];
    for piece in &pieces {
        for (sum, piece) in sums.iter_mut().zip(piece) {
            sum.iter_mut().zip(piece).for_each(|(sum, piece)| *sum += f64::from(*piece));
        }
    }
    sums
}

/// The inner products of the columns of two blocks.
fn products(a: &[Row<f64>], b: &[Row<f64>]) -> [Row<f64>; WIDTH] {
    let product = |left: usize, right: usize| a.iter().zip(b).map(|(a, b)| a[left] * b[right]).sum();
    std::array::from_fn(|left| std::array::from_fn(|right| product(left, right)))
}

/// Makes the columns orthogonal and of unit length (Gram-Schmidt, twice); those that depend on earlier ones become 0.
fn orthonormalise(block: &mut [Row<f64>]) {
    for column in 0..WIDTH {
        let length = |block: &[Row<f64>]| block.iter().map(|row| row[column] * row[column]).sum::<f64>().sqrt();
        let before = length(block);
        for _ in 0..2 {
            for earlier in 0..column {
                let product: f64 = block.iter().map(|row| row[column] * row[earlier]).sum();
                block.iter_mut().for_each(|row| row[column] -= product * row[earlier]);
            }
        }
        let after = length(block);
        let inverse = if after > DEPENDENT * before { 1.0 / after } else { 0.0 };
        block.iter_mut().for_each(|row| row[column] *= inverse);
    }
}

/// Eigenvalues of a symmetric matrix, the largest first, and its eigenvectors as columns: the cyclic method of Jacobi.
fn diagonalise(mut matrix: [Row<f64>; WIDTH]) -> (Row<f64>, [Row<f64>; WIDTH]) {
    let mut vectors: [Row<f64>; WIDTH] = std::array::from_fn(|a| std::array::from_fn(|b| f64::from(u8::from(a == b))));
    for _ in 0..30 {
        for a in 0..WIDTH {
            for b in a + 1..WIDTH {
                let off = (matrix[a][b] + matrix[b][a]) / 2.0;
                if off == 0.0 {
                    continue;
                }
                let angle = 0.5 * (2.0 * off).atan2(matrix[a][a] - matrix[b][b]);
                let (sine, cosine) = angle.sin_cos();
                let turn = |row: &mut Row<f64>| {
                    (row[a], row[b]) = (cosine * row[a] + sine * row[b], cosine * row[b] - sine * row[a]);
                };
                matrix.iter_mut().for_each(turn);
                vectors.iter_mut().for_each(turn);
                let (upper, lower) = (matrix[a], matrix[b]);
                matrix[a] = std::array::from_fn(|at| cosine * upper[at] + sine * lower[at]);
                matrix[b] = std::array::from_fn(|at| cosine * lower[at] - sine * upper[at]);
                (matrix[a][b], matrix[b][a]) = (0.0, 0.0);
            }
        }
    }
    let mut order: [usize; WIDTH] = std::array::from_fn(|at| at);
    order.sort_by(|a, b| matrix[*b][*b].total_cmp(&matrix[*a][*a]));
    (order.map(|at| matrix[at][at]), vectors.map(|row| order.map(|at| row[at])))
}

#[cfg(test)]
mod tests {
    use crossmodal_store::ItemVector;

    use super::*;

    fn points(rows: &[Vec<f32>]) -> Points {
        let vector = |values| ItemVector { item: 0, modality: "image".into(), values };
        let vectors: Vec<_> = rows.iter().map(|row| vector(row.as_slice())).collect();
        Points::centred(&vectors, rows[0].len())
    }

    fn number(seed: usize) -> f64 {
        (super::super::layout::hash(seed as u64) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    #[test]
    fn directions_of_greatest_variance_are_found() {
        // Independent coordinates of known spread, turned in the plane of the first and the last.
        let (dimension, spreads) = (40, [3.0, 0.5, 2.0]);
        let rows: Vec<Vec<f32>> = (0..500)
            .map(|row| {
                let spread = |at: usize| spreads.get(at).copied().unwrap_or(0.3);
                let mut values: Vec<f64> =
                    (0..dimension).map(|at| 7.0 + spread(at) * number(row * dimension + at)).collect();
                let (first, last) = (values[0], values[dimension - 1]);
                (values[0], values[dimension - 1]) = (0.8 * first - 0.6 * last, 0.6 * first + 0.8 * last);
                values.iter().map(|value| *value as f32).collect()
            })
            .collect();
        let axes = directions(&points(&rows));
        let expected = |axis: usize, at: usize| match (axis, at) {
            (0, 0) => 0.8,
            (0, 39) => 0.6,
            (1, 2) => 1.0,
            _ => 0.0,
        };
        for axis in 0..2 {
            let product: f64 = axes.iter().enumerate().map(|(at, axes)| axes[axis] * expected(axis, at)).sum();
            assert!(product.abs() > 0.99, "{axis}: {product}");
            let length: f64 = axes.iter().map(|axes| axes[axis] * axes[axis]).sum();
            assert!((length - 1.0).abs() < 1e-6, "{length}");
        }
    }

    #[test]
    fn signs_are_fixed_and_missing_directions_are_zero() {
        let line: Vec<Vec<f32>> = (0..6).map(|at| vec![at as f32 * at as f32; 3]).collect();
        let places = principal(&points(&line));
        assert!(places[5][0] > 0.0 && places[0][0] < 0.0);
        assert!(places.iter().all(|place| place[1].abs() < 1e-5), "{places:?}");
        let mirrored: Vec<Vec<f32>> = line.iter().map(|row| row.iter().map(|value| -value).collect()).collect();
        assert!(principal(&points(&mirrored))[5][0] > 0.0);
        let one_dimension: Vec<Vec<f32>> = [1.0, 2.0, 4.0].iter().map(|value| vec![*value]).collect();
        assert!(principal(&points(&one_dimension)).iter().all(|place| place[1] == 0.0 && place[0] != 0.0));
        let equal = vec![vec![0.5; 9]; 4];
        assert_eq!(principal(&points(&equal)), [[0.0; 2]; 4]);
        assert_eq!(principal(&points(&equal[..1])), [[0.0; 2]]);
    }

    #[test]
    fn matrices_are_diagonalised() {
        let matrix = [[4.0, 1.0, 0.5, 0.0], [1.0, 3.0, 0.2, 0.1], [0.5, 0.2, 9.0, 0.7], [0.0, 0.1, 0.7, 1.0]];
        let (values, vectors) = diagonalise(matrix);
        assert!(values.is_sorted_by(|a, b| a >= b));
        for (column, value) in values.iter().enumerate() {
            for at in 0..WIDTH {
                let product: f64 = (0..WIDTH).map(|other| matrix[at][other] * vectors[other][column]).sum();
                assert!((product - value * vectors[at][column]).abs() < 1e-9);
            }
        }
    }
}
