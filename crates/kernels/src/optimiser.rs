//! Steps of optimisers on slices.

use rten_simd::{Isa, SimdOp};

use crate::gemm::{Finish, PackedWeight, Rows, Target, Then, Weight, product};
use crate::instructions::run;
use crate::matrix::SharedRows;
use crate::team::Crew;

/// Elements that a piece of work has. Sums are made piece by piece, so that they don't depend on the number of threads.
const PIECE: usize = 16 << 10;

/// A step of AdamW (Loshchilov and Hutter 2019): `p -= rate * decay * p`, `m += (1 - b1) (g - m)`, `v = b2 v + (1 - b2) g^2`,
/// `p -= rate / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)`, in this order, as PyTorch does it. As there, what doesn't depend on
/// the element is computed in double precision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Weight decay.
    pub decay: f64,
    /// Factor of the gradient, such as that of clipping.
    pub gradient_scale: f64,
    /// Number of this step, from 1 on.
    pub step: u64,
}

impl AdamW {
    /// Moves `parameters`, given their gradients, and updates both moments.
    ///
    /// # Panics
    /// When the slices differ in length.
    pub fn run(
        &self,
        crew: Crew<'_>,
        parameters: &mut [f32],
        gradients: &[f32],
        first: &mut [f32],
        second: &mut [f32],
    ) {
        let count = parameters.len();
        assert!([gradients.len(), first.len(), second.len()] == [count; 3], "slices differ in length");
        let parts = [parameters, first, second].map(|slice| SharedRows::of(slice, 1));
        let power = i32::try_from(self.step).unwrap_or(i32::MAX);
        let numbers = Numbers {
            kept: (1.0 - self.rate * self.decay) as f32,
            rate: (self.rate / (1.0 - self.beta1.powi(power))) as f32,
            root: (1.0 - self.beta2.powi(power)).sqrt() as f32,
            new1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            new2: (1.0 - self.beta2) as f32,
            eps: self.eps as f32,
            gradient_scale: self.gradient_scale as f32,
        };
        crew.for_each(count.div_ceil(PIECE), |piece| {
            let range = piece * PIECE..count.min((piece + 1) * PIECE);
            // SAFETY: each piece has its own elements.
            let [parameters, first, second] = parts.map(|part| unsafe { part.rows(range.clone()) });
            run(Adam { numbers, parameters, gradients: &gradients[range], first, second });
        });
    }
}

/// What a step of AdamW does to every element.
#[derive(Clone, Copy)]
struct Numbers {
    /// What weight decay leaves.
    kept: f32,
    /// Learning rate over the correction of the first moment.
    rate: f32,
    /// Root of the correction of the second moment.
    root: f32,
    /// Share of the new in the first moment.
    new1: f32,
    beta2: f32,
    /// Share of the new in the second moment.
    new2: f32,
    eps: f32,
    gradient_scale: f32,
}

struct Adam<'a> {
    numbers: Numbers,
    parameters: &'a mut [f32],
    gradients: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
}

impl SimdOp for Adam<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, _isa: I) {
        let Numbers { kept, rate, root, new1, beta2, new2, eps, gradient_scale } = self.numbers;
        let state = self.first.iter_mut().zip(self.second.iter_mut());
        // Plain code, which the compiler turns into vectors of the instruction set that this is compiled for; there is no root in `ops`.
        for ((parameter, gradient), (first, second)) in self.parameters.iter_mut().zip(self.gradients).zip(state) {
            let gradient = gradient * gradient_scale;
            *first += new1 * (gradient - *first);
            *second = *second * beta2 + new2 * gradient * gradient;
            *parameter = *parameter * kept - rate * *first / (second.sqrt() / root + eps);
        }
    }
}

/// Sum of squares, in double precision.
pub fn sum_of_squares(crew: Crew<'_>, values: &[f32]) -> f64 {
    let pieces = values.len().div_ceil(PIECE);
    let mut sums = vec![0f32; 2 * pieces];
    let shared = SharedRows::of(&mut sums, 2);
    crew.for_each(pieces, |piece| {
        let values = &values[piece * PIECE..values.len().min((piece + 1) * PIECE)];
        let sum = run(Squares(values));
        // A double as two floats, the second what the first leaves out.
        let high = sum as f32;
        let low = if high.is_finite() { (sum - f64::from(high)) as f32 } else { 0.0 };
        // SAFETY: each piece has its own sum.
        unsafe { shared.cells(piece, 0..2) }.copy_from_slice(&[high, low]);
    });
    sums.iter().map(|sum| f64::from(*sum)).sum()
}

struct Squares<'a>(&'a [f32]);

impl SimdOp for Squares<'_> {
    type Output = f64;

    #[inline(always)]
    fn eval<I: Isa>(self, _isa: I) -> f64 {
        let (chunks, rest) = self.0.as_chunks::<16>();
        let mut sums = [0f64; 16];
        for chunk in chunks {
            for (sum, x) in sums.iter_mut().zip(chunk) {
                *sum += f64::from(*x) * f64::from(*x);
            }
        }
        sums.iter().sum::<f64>() + rest.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>()
    }
}

/// Coefficients of the quintic iteration `X <- a X + (b A + c A^2) X` with `A = X X^T`, which Muon uses: they raise small singular values
/// fastest, and end between 0.7 and 1.2 rather than at 1.
pub const NEWTON_SCHULZ: [f32; 3] = [3.4445, -4.775, 2.0315];

/// Replaces a matrix `[rows, columns]` by about the nearest with orthonormal rows (or columns, whichever are fewer), by Newton-Schulz
/// iteration from the matrix over its Frobenius norm.
///
/// # Panics
/// When `matrix` isn't of that shape.
pub fn orthogonalise(crew: Crew<'_>, matrix: &mut [f32], rows: usize, steps: usize, [a, b, c]: [f32; 3]) {
    assert!(rows > 0 && matrix.len().is_multiple_of(rows), "{} elements in {rows} rows", matrix.len());
    let columns = matrix.len() / rows;
    if columns < rows {
        let mut turned = transposed(matrix, columns);
        orthogonalise(crew, &mut turned, columns, steps, [a, b, c]);
        matrix.copy_from_slice(&transposed(&turned, rows));
        return;
    }
    let factor = 1.0 / (sum_of_squares(crew, matrix).sqrt() as f32 + 1e-7);
    matrix.iter_mut().for_each(|x| *x *= factor);
    let (mut square, mut mixed, mut next) = (vec![0.0; rows * rows], vec![0.0; rows * rows], vec![0.0; matrix.len()]);
    for _ in 0..steps {
        let packed = PackedWeight::new(crew, Weight::OutDepth(matrix), columns);
        product(crew, Rows::new(matrix, columns), &packed, Finish::STORE, Target::new(&mut square, rows));
        // b A + c A^2, and a on the diagonal.
        let packed = PackedWeight::new(crew, Weight::DepthOut(&square), rows);
        let scaled: Vec<f32> = square.iter().map(|x| b * x).collect();
        let finish = Finish { scale: c, then: Then::AddTo(Rows::new(&scaled, rows)), ..Finish::STORE };
        product(crew, Rows::new(&square, rows), &packed, finish, Target::new(&mut mixed, rows));
        mixed.iter_mut().step_by(rows + 1).for_each(|x| *x += a);
        let packed = PackedWeight::new(crew, Weight::DepthOut(matrix), rows);
        product(crew, Rows::new(&mixed, rows), &packed, Finish::STORE, Target::new(&mut next, columns));
        matrix.copy_from_slice(&next);
    }
}

/// The transpose of a matrix with this many columns.
fn transposed(matrix: &[f32], columns: usize) -> Vec<f32> {
    let rows = matrix.len() / columns;
    let mut out = Vec::with_capacity(matrix.len());
    for column in 0..columns {
        out.extend((0..rows).map(|row| matrix[row * columns + column]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::team::Team;
    use crate::testing::{close, numbers};

    #[test]
    fn steps_of_adamw_equal_the_formula() {
        for count in [1, 7, 33, 40_000] {
            let start = numbers(count, 1);
            let team = Team::new(3);
            let session = team.session();
            for crew in [Crew::Solo, Crew::Team(&session)] {
                let (mut found, mut first, mut second) = (start.clone(), vec![0.0; count], vec![0.0; count]);
                let mut expected: Vec<[f64; 3]> = start.iter().map(|p| [f64::from(*p), 0.0, 0.0]).collect();
                for step in 1..=4 {
                    let gradients = numbers(count, 10 + step);
                    let settings =
                        AdamW { rate: 0.01, beta1: 0.9, beta2: 0.98, eps: 1e-6, decay: 0.2, gradient_scale: 0.5, step };
                    settings.run(crew, &mut found, &gradients, &mut first, &mut second);
                    for ([p, m, v], gradient) in expected.iter_mut().zip(&gradients) {
                        let gradient = f64::from(*gradient) * 0.5;
                        *p *= 1.0 - 0.01 * 0.2;
                        *m = 0.9 * *m + 0.1 * gradient;
                        *v = 0.98 * *v + 0.02 * gradient * gradient;
                        let root = (*v / (1.0 - 0.98f64.powi(step as i32))).sqrt() + 1e-6;
                        *p -= 0.01 / (1.0 - 0.9f64.powi(step as i32)) * *m / root;
                    }
                }
                for (part, found) in [&found, &first, &second].into_iter().enumerate() {
                    let expected: Vec<f64> = expected.iter().map(|state| state[part]).collect();
                    close(found, &expected, 2e-6);
                }
            }
        }
    }

    #[test]
    fn squares_add_up_alike_for_any_number_of_threads() {
        let values = numbers(100_003, 1);
        let expected: f64 = values.iter().map(|x| f64::from(*x).powi(2)).sum();
        let alone = sum_of_squares(Crew::Solo, &values);
        assert!((alone - expected).abs() < 1e-9 * expected);
        assert_eq!(sum_of_squares(Crew::Team(&Team::new(3).session()), &values), alone);
        assert!(sum_of_squares(Crew::Solo, &[f32::NAN, 1.0]).is_nan());
        assert!(sum_of_squares(Crew::Solo, &[f32::MAX; 4]) > 1e70);
    }

    #[test]
    fn singular_values_come_near_one() {
        for (rows, columns) in [(1, 1), (3, 3), (5, 20), (40, 17), (64, 64)] {
            let mut matrix = numbers(rows * columns, 2);
            let before = matrix.clone();
            orthogonalise(Crew::Solo, &mut matrix, rows, 8, NEWTON_SCHULZ);
            let few = rows.min(columns);
            let wide = if columns < rows { transposed(&matrix, columns) } else { matrix.clone() };
            let long = wide.len() / few;
            // The rows' products: near one with themselves, near zero with others, up to the iteration's spread.
            for i in 0..few {
                for j in 0..few {
                    let products = (0..long).map(|k| f64::from(wide[i * long + k]) * f64::from(wide[j * long + k]));
                    let expected = if i == j { 1.0 } else { 0.0 };
                    let found: f64 = products.sum();
                    assert!((found - expected).abs() < 0.6, "{rows} x {columns}: {i}, {j}: {found}");
                }
            }
            // And the direction is kept: the product with the matrix before is what the polar factor maximises.
            let along: f32 = matrix.iter().zip(&before).map(|(a, b)| a * b).sum();
            assert!(along > 0.0);
        }
    }

    #[test]
    fn one_step_equals_the_polynomial() {
        let (rows, columns) = (3, 7);
        let start = numbers(rows * columns, 4);
        let norm = start.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let x: Vec<f64> = start.iter().map(|x| f64::from(*x) / norm).collect();
        let times = |a: &[f64], b: &[f64], inner: usize| -> Vec<f64> {
            let (rows, columns) = (a.len() / inner, b.len() / inner);
            let cell =
                |at: usize| (0..inner).map(|k| a[at / columns * inner + k] * b[k * columns + at % columns]).sum();
            (0..rows * columns).map(cell).collect()
        };
        let turned: Vec<f64> = (0..columns * rows).map(|at| x[at % rows * columns + at / rows]).collect();
        let square = times(&x, &turned, columns);
        let fourth = times(&square, &square, rows);
        let [a, b, c] = NEWTON_SCHULZ.map(f64::from);
        let mixed: Vec<f64> = square.iter().zip(&fourth).map(|(s, f)| b * s + c * f).collect();
        let expected: Vec<f64> = times(&mixed, &x, rows).iter().zip(&x).map(|(y, x)| y + a * x).collect();
        let mut found = start;
        orthogonalise(Crew::Solo, &mut found, rows, 1, NEWTON_SCHULZ);
        close(&found, &expected, 1e-5);
    }
}
