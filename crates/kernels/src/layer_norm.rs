//! Layer normalisation for training: what is found out about each row, and gradients.
//!
//! With `u = (x - mean) / sqrt(variance + eps)` and `g = dy * weight`, the gradient of the input is
//! `(g - mean(g) - u * mean(g * u)) / sqrt(variance + eps)`, those of the parameters are the sums over rows of `dy * u` and `dy`.

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use crate::gemm::{Normalisation, normalise};
use crate::instructions::run;
use crate::matrix::SharedRows;
use crate::team::Crew;

/// Rows that a piece of work has. Sums over rows are made piece by piece, so that they don't depend on the number of threads.
const PIECE_ROWS: usize = 64;

/// Finds mean and reciprocal standard deviation, `1 / sqrt(variance + eps)` with the biased variance, of rows of `width` elements.
///
/// # Panics
/// When `x` isn't as many rows as `statistics`.
pub fn statistics(crew: Crew<'_>, x: &[f32], width: usize, eps: f32, statistics: &mut [[f32; 2]]) {
    assert!(width > 0 && x.len() == statistics.len() * width, "{} rows of {width}, {}", statistics.len(), x.len());
    let count = statistics.len();
    let flat = SharedRows::of(statistics.as_flattened_mut(), 2);
    crew.for_each(count.div_ceil(PIECE_ROWS), |piece| {
        let rows = piece * PIECE_ROWS..count.min((piece + 1) * PIECE_ROWS);
        // SAFETY: each piece has its own rows.
        let out = unsafe { flat.rows(rows.clone()) };
        run(Statistics { x: &x[rows.start * width..rows.end * width], width, eps, out });
    });
}

struct Statistics<'a> {
    x: &'a [f32],
    width: usize,
    eps: f32,
    out: &'a mut [f32],
}

impl SimdOp for Statistics<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let length = ops.len();
        let whole = self.width - self.width % length;
        for (x, out) in self.x.chunks_exact(self.width).zip(self.out.as_chunks_mut::<2>().0) {
            let mut sum = ops.zero();
            for at in (0..whole).step_by(length) {
                sum = ops.add(sum, ops.load(&x[at..]));
            }
            let mean = (ops.sum(sum) + x[whole..].iter().sum::<f32>()) / self.width as f32;
            let (mean_v, mut squares) = (ops.splat(mean), ops.zero());
            for at in (0..whole).step_by(length) {
                let centred = ops.sub(ops.load(&x[at..]), mean_v);
                squares = ops.mul_add(centred, centred, squares);
            }
            let mut total = ops.sum(squares);
            for x in &x[whole..] {
                total += (x - mean) * (x - mean);
            }
            *out = [mean, 1.0 / (total / self.width as f32 + self.eps).sqrt()];
        }
    }
}

/// Normalises rows, whose statistics are known.
///
/// # Panics
/// When shapes don't fit.
pub fn forward(crew: Crew<'_>, x: &[f32], norm: Normalisation<'_>, out: &mut [f32]) {
    let width = norm.weight.len();
    let count = norm.statistics.len();
    assert!(x.len() == count * width && out.len() == x.len() && norm.bias.len() == width, "shapes don't fit");
    let out = SharedRows::of(out, width);
    crew.for_each(count.div_ceil(PIECE_ROWS), |piece| {
        let rows = piece * PIECE_ROWS..count.min((piece + 1) * PIECE_ROWS);
        // SAFETY: each piece has its own rows.
        let out = unsafe { out.rows(rows.clone()) };
        let norm = Normalisation { statistics: &norm.statistics[rows.clone()], ..norm };
        run(Forward { x: &x[rows.start * width..rows.end * width], norm, out });
    });
}

struct Forward<'a> {
    x: &'a [f32],
    norm: Normalisation<'a>,
    out: &'a mut [f32],
}

impl SimdOp for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { x, norm: Normalisation { statistics, weight, bias }, out } = self;
        let width = weight.len();
        for ((x, out), statistics) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)).zip(statistics) {
            normalise(isa, x, *statistics, weight, bias, out);
        }
    }
}

/// What a norm's gradients are computed from.
#[derive(Debug, Clone, Copy)]
pub struct NormGradient<'a> {
    /// Inputs, `[count, width]`.
    pub x: &'a [f32],
    /// Gradients of the outputs, of the same shape.
    pub dy: &'a [f32],
    /// Statistics of the inputs and parameters.
    pub norm: Normalisation<'a>,
}

impl NormGradient<'_> {
    /// Computes what is wanted of: the gradient of the input, which is added to what is in `dx`; the gradients of gain and offset, which
    /// are added to what is in `parameters`.
    ///
    /// # Panics
    /// When shapes don't fit.
    pub fn run(&self, crew: Crew<'_>, dx: Option<&mut [f32]>, parameters: Option<(&mut [f32], &mut [f32])>) {
        let width = self.norm.weight.len();
        let count = self.norm.statistics.len();
        assert!(self.x.len() == count * width && self.dy.len() == self.x.len(), "shapes don't fit");
        assert!(dx.as_ref().is_none_or(|dx| dx.len() == self.x.len()), "shapes don't fit");
        let pieces = count.div_ceil(PIECE_ROWS);
        let mut partial = vec![0f32; if parameters.is_some() { pieces * 2 * width } else { 0 }];
        let sums = parameters.is_some().then(|| SharedRows::of(&mut partial, 2 * width));
        let dx = dx.map(|dx| SharedRows::of(dx, width));
        crew.for_each(pieces, |piece| {
            let rows = piece * PIECE_ROWS..count.min((piece + 1) * PIECE_ROWS);
            // SAFETY: each piece has its own rows, and a row of sums of its own.
            let (dx, sums) =
                unsafe { (dx.map(|dx| dx.rows(rows.clone())), sums.map(|sums| sums.cells(piece, 0..2 * width))) };
            let elements = rows.start * width..rows.end * width;
            let norm = Normalisation { statistics: &self.norm.statistics[rows], ..self.norm };
            let gradient = NormGradient { x: &self.x[elements.clone()], dy: &self.dy[elements], norm };
            run(Backward { gradient, dx, sums });
        });
        if let Some((weight, bias)) = parameters {
            for sums in partial.chunks_exact(2 * width) {
                weight.iter_mut().zip(&sums[..width]).for_each(|(total, sum)| *total += sum);
                bias.iter_mut().zip(&sums[width..]).for_each(|(total, sum)| *total += sum);
            }
        }
    }
}

struct Backward<'a> {
    gradient: NormGradient<'a>,
    dx: Option<&'a mut [f32]>,
    sums: Option<&'a mut [f32]>,
}

impl SimdOp for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { gradient: NormGradient { x, dy, norm }, mut dx, mut sums } = self;
        let width = norm.weight.len();
        for (row, statistics) in norm.statistics.iter().enumerate() {
            let cells = row * width..(row + 1) * width;
            let (x, dy) = (&x[cells.clone()], &dy[cells.clone()]);
            if let Some(sums) = &mut sums {
                let (weight, bias) = sums.split_at_mut(width);
                add_parameters(isa, x, dy, *statistics, weight, bias);
            }
            if let Some(dx) = &mut dx {
                input_gradient(isa, x, dy, *statistics, norm.weight, &mut dx[cells]);
            }
        }
    }
}

#[inline(always)]
fn add_parameters<I: Isa>(
    isa: I,
    x: &[f32],
    dy: &[f32],
    [mean, reciprocal]: [f32; 2],
    weight: &mut [f32],
    bias: &mut [f32],
) {
    let ops = isa.f32();
    let length = ops.len();
    let whole = x.len() - x.len() % length;
    let (mean_v, reciprocal_v) = (ops.splat(mean), ops.splat(reciprocal));
    for at in (0..whole).step_by(length) {
        let unit = ops.mul(ops.sub(ops.load(&x[at..]), mean_v), reciprocal_v);
        let dy = ops.load(&dy[at..]);
        let gain = ops.mul_add(dy, unit, ops.load(&weight[at..]));
        let offset = ops.add(dy, ops.load(&bias[at..]));
        ops.store(gain, &mut weight[at..]);
        ops.store(offset, &mut bias[at..]);
    }
    for at in whole..x.len() {
        weight[at] += dy[at] * ((x[at] - mean) * reciprocal);
        bias[at] += dy[at];
    }
}

/// Adds the gradient of a row's input to `dx`.
#[inline(always)]
fn input_gradient<I: Isa>(isa: I, x: &[f32], dy: &[f32], [mean, reciprocal]: [f32; 2], weight: &[f32], dx: &mut [f32]) {
    let ops = isa.f32();
    let length = ops.len();
    let width = x.len();
    let whole = width - width % length;
    let (mean_v, reciprocal_v) = (ops.splat(mean), ops.splat(reciprocal));
    let (mut first, mut second) = (ops.zero(), ops.zero());
    for at in (0..whole).step_by(length) {
        let unit = ops.mul(ops.sub(ops.load(&x[at..]), mean_v), reciprocal_v);
        let g = ops.mul(ops.load(&dy[at..]), ops.load(&weight[at..]));
        first = ops.add(first, g);
        second = ops.mul_add(g, unit, second);
    }
    let (mut first, mut second) = (ops.sum(first), ops.sum(second));
    for at in whole..width {
        let g = dy[at] * weight[at];
        first += g;
        second += g * ((x[at] - mean) * reciprocal);
    }
    let (first, second) = (first / width as f32, second / width as f32);
    let (first_v, second_v) = (ops.splat(first), ops.splat(second));
    for at in (0..whole).step_by(length) {
        let unit = ops.mul(ops.sub(ops.load(&x[at..]), mean_v), reciprocal_v);
        let g = ops.mul(ops.load(&dy[at..]), ops.load(&weight[at..]));
        let rest = ops.sub(ops.sub(g, first_v), ops.mul(unit, second_v));
        ops.store(ops.mul_add(rest, reciprocal_v, ops.load(&dx[at..])), &mut dx[at..]);
    }
    for at in whole..width {
        let g = dy[at] * weight[at];
        dx[at] += (g - first - (x[at] - mean) * reciprocal * second) * reciprocal;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instructions::everywhere;
    use crate::team::Team;
    use crate::testing::{close, numbers};

    const EPS: f32 = 1e-5;

    /// Value of each row's weighted sum of outputs, in double precision: what the gradients are the slopes of.
    fn outputs(x: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
        let width = weight.len();
        let mut out = Vec::new();
        for row in x.chunks_exact(width) {
            let mean = row.iter().sum::<f64>() / width as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
            let unit = row.iter().map(|x| (x - mean) / (variance + f64::from(EPS)).sqrt());
            out.extend(unit.zip(weight.iter().zip(bias)).map(|(u, (w, b))| u * w + b));
        }
        out
    }

    #[test]
    fn values_and_gradients_equal_the_formulas() {
        for (rows, width) in [(1, 3), (2, 7), (5, 16), (70, 33), (130, 48), (3, 769)] {
            let (x, dy) = (numbers(rows * width, 1), numbers(rows * width, 2));
            let (weight, bias) = (numbers(width, 3), numbers(width, 4));
            let wide = |values: &[f32]| values.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
            let (x64, weight64, bias64) = (wide(&x), wide(&weight), wide(&bias));
            let loss = |x: &[f64], weight: &[f64], bias: &[f64]| -> f64 {
                outputs(x, weight, bias).iter().zip(&dy).map(|(y, dy)| y * f64::from(*dy)).sum()
            };
            let slope = |of: usize, at: usize| {
                let moved = |delta: f64| {
                    let mut values = [x64.clone(), weight64.clone(), bias64.clone()];
                    values[of][at] += delta;
                    loss(&values[0], &values[1], &values[2])
                };
                (moved(1e-5) - moved(-1e-5)) / 2e-5
            };
            let team = Team::new(3);
            let session = team.session();
            let check = |crew: Crew<'_>| {
                let mut found = vec![[0.0; 2]; rows];
                statistics(crew, &x, width, EPS, &mut found);
                let norm = Normalisation { statistics: &found, weight: &weight, bias: &bias };
                let mut y = vec![0.0; x.len()];
                forward(crew, &x, norm, &mut y);
                close(&y, &outputs(&x64, &weight64, &bias64), 1e-4);
                let mut dx = vec![1.0; x.len()];
                let (mut dw, mut db) = (vec![2.0; width], vec![3.0; width]);
                let gradient = NormGradient { x: &x, dy: &dy, norm };
                gradient.run(crew, Some(&mut dx), Some((&mut dw, &mut db)));
                for at in (0..x.len()).step_by(1 + x.len() / 40) {
                    close(&dx[at..=at], &[1.0 + slope(0, at)], 2e-3);
                }
                for at in (0..width).step_by(1 + width / 20) {
                    close(&dw[at..=at], &[2.0 + slope(1, at)], 2e-4);
                    close(&db[at..=at], &[3.0 + slope(2, at)], 2e-4);
                }
                // Each alone is the same.
                let mut again = vec![1.0; x.len()];
                gradient.run(crew, Some(&mut again), None);
                assert_eq!(again, dx);
                let (mut dw_again, mut db_again) = (vec![2.0; width], vec![3.0; width]);
                gradient.run(crew, None, Some((&mut dw_again, &mut db_again)));
                assert_eq!((dw_again, db_again), (dw, db));
            };
            everywhere(|| check(Crew::Solo));
            check(Crew::Team(&session));
        }
    }
}
