//! The exponential function and the non-linearities of transformers.
//!
//! Bounds against the formulas in double precision, tested: the exponential 2e-7 relative; `x * sigmoid(1.702 x)` and the tanh form of
//! GELU 4e-7 of the larger of 1 and the result, the exact GELU 1e-6 of it (its error function is formula 7.1.26 of Abramowitz and
//! Stegun, with an absolute error of 1.5e-7 before rounding).

use rten_simd::ops::{BitOps, FloatOps, IntOps, NumOps};
use rten_simd::{Isa, Simd, SimdOp};

use crate::instructions::run;
use crate::matrix::SharedRows;
use crate::team::Crew;

/// The factor in CLIP's `x * sigmoid(1.702 x)`.
const QUICK_GELU: f32 = 1.702;

/// A non-linearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Nonlinearity {
    /// `x * sigmoid(1.702 x)`.
    QuickGelu,
    /// `x * Phi(x)`.
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
}

/// `exp(x)` for `x` between -87 and 88; beyond, the value at the nearer end.
///
/// `x = n ln 2 + r` with `n` whole and `|r| <= ln 2 / 2`, a Taylor polynomial for `exp(r)` with its last coefficients fitted to the
/// range, and `n` added to the exponent bits.
#[inline(always)]
pub(crate) fn exp<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // Adding 1.5 * 2^23 rounds to a whole number and leaves it in the low bits.
    const MAGIC: f32 = 12_582_912.0;
    let ops = isa.f32();
    let x = ops.min(ops.max(x, ops.splat(-87.0)), ops.splat(88.0));
    let shifted = ops.mul_add(x, ops.splat(std::f32::consts::LOG2_E), ops.splat(MAGIC));
    let n = ops.sub(shifted, ops.splat(MAGIC));
    let r = ops.mul_add(n, ops.splat(-0.693_359_4), x);
    let r = ops.mul_add(n, ops.splat(2.121_944_4e-4), r);
    let mut y = ops.splat(1.0 / 720.0);
    y = ops.mul_add(y, r, ops.splat(8.363_19e-3));
    y = ops.mul_add(y, r, ops.splat(1.0 / 24.0));
    y = ops.mul_add(y, r, ops.splat(1.666_664_6e-1));
    y = ops.mul_add(y, r, ops.splat(0.5));
    y = ops.mul_add(y, r, ops.splat(1.0));
    y = ops.mul_add(y, r, ops.splat(1.0));
    let integers = isa.i32();
    let exponent: I::I32 = shifted.reinterpret_cast();
    let bits: I::I32 = y.reinterpret_cast();
    integers.add(bits, integers.shift_left::<23>(exponent)).reinterpret_cast()
}

/// `x / (1 + exp(-z))`.
#[inline(always)]
fn times_sigmoid<I: Isa>(isa: I, x: I::F32, z: I::F32) -> I::F32 {
    let ops = isa.f32();
    ops.div(x, ops.add(ops.splat(1.0), exp(isa, ops.neg(z))))
}

/// What a standard normal variable has beyond `|x|`, and `exp(-x^2 / 2)`.
#[inline(always)]
fn normal_tail<I: Isa>(isa: I, x: I::F32) -> (I::F32, I::F32) {
    let ops = isa.f32();
    let z = ops.mul(ops.abs(x), ops.splat(std::f32::consts::FRAC_1_SQRT_2));
    let t = ops.div(ops.splat(1.0), ops.mul_add(z, ops.splat(0.327_591_1), ops.splat(1.0)));
    let mut y = ops.splat(1.061_405_4);
    y = ops.mul_add(y, t, ops.splat(-1.453_152));
    y = ops.mul_add(y, t, ops.splat(1.421_413_7));
    y = ops.mul_add(y, t, ops.splat(-0.284_496_74));
    y = ops.mul_add(y, t, ops.splat(0.254_829_6));
    let bell = exp(isa, ops.neg(ops.mul(z, z)));
    // The complement of the error function at |x| / sqrt(2), halved.
    (ops.mul(ops.mul(y, t), ops.mul(ops.splat(0.5), bell)), bell)
}

impl Nonlinearity {
    /// Applies the non-linearity to a vector.
    #[inline(always)]
    pub(crate) fn eval<I: Isa>(self, isa: I, x: I::F32) -> I::F32 {
        let ops = isa.f32();
        match self {
            Self::QuickGelu => times_sigmoid(isa, x, ops.mul(x, ops.splat(QUICK_GELU))),
            Self::GeluTanh => {
                // 1 + tanh(u) is twice the logistic function of 2 u.
                let cubic = ops.mul_add(ops.mul(x, x), ops.splat(0.044_715), ops.splat(1.0));
                let u2 = ops.mul(ops.mul(x, ops.splat(2.0 * 0.797_884_6)), cubic);
                times_sigmoid(isa, x, u2)
            }
            Self::Gelu => {
                let (tail, _) = normal_tail(isa, x);
                let upper = ops.mul(x, ops.sub(ops.splat(1.0), tail));
                ops.select(ops.mul(x, tail), upper, ops.lt(x, ops.zero()))
            }
        }
    }

    /// The derivative at a vector.
    #[inline(always)]
    pub(crate) fn slope<I: Isa>(self, isa: I, x: I::F32) -> I::F32 {
        let ops = isa.f32();
        let one = ops.splat(1.0);
        match self {
            Self::QuickGelu => {
                let z = ops.mul(x, ops.splat(QUICK_GELU));
                let share = times_sigmoid(isa, one, z);
                // s + z s (1 - s)
                ops.mul_add(ops.mul(z, share), ops.sub(one, share), share)
            }
            Self::GeluTanh => {
                let square = ops.mul(x, x);
                let factor = ops.splat(2.0 * 0.797_884_6);
                let u2 = ops.mul(ops.mul(x, factor), ops.mul_add(square, ops.splat(0.044_715), one));
                let share = times_sigmoid(isa, one, u2);
                let inner = ops.mul(factor, ops.mul_add(square, ops.splat(3.0 * 0.044_715), one));
                ops.mul_add(ops.mul(ops.mul(x, inner), share), ops.sub(one, share), share)
            }
            Self::Gelu => {
                let (tail, bell) = normal_tail(isa, x);
                let cumulative = ops.select(tail, ops.sub(one, tail), ops.lt(x, ops.zero()));
                // The density is the bell over the square root of 2 pi.
                ops.mul_add(ops.mul(x, ops.splat(0.398_942_3)), bell, cumulative)
            }
        }
    }

    /// Applies the non-linearity to each element.
    pub fn apply(self, x: &mut [f32]) {
        run(Elements { nonlinearity: self, x });
    }
}

/// Replaces each `x` by `gradient * f'(x)`, with `f` the non-linearity.
///
/// # Panics
/// When the slices differ in length.
pub fn chain(crew: Crew<'_>, nonlinearity: Nonlinearity, gradient: &[f32], x: &mut [f32]) {
    assert!(x.len() == gradient.len(), "{} and {} elements", x.len(), gradient.len());
    let x = SharedRows::of(x, 1);
    crew.for_each(gradient.len().div_ceil(PIECE), |piece| {
        let range = piece * PIECE..gradient.len().min((piece + 1) * PIECE);
        // SAFETY: each piece has its own elements.
        let x = unsafe { x.rows(range.clone()) };
        run(Chain { nonlinearity, gradient: &gradient[range], x });
    });
}

/// Writes `f(x)`, with `f` the non-linearity, to `out`.
///
/// # Panics
/// When the slices differ in length.
pub fn apply(crew: Crew<'_>, nonlinearity: Nonlinearity, x: &[f32], out: &mut [f32]) {
    assert!(x.len() == out.len(), "{} and {} elements", x.len(), out.len());
    let out = SharedRows::of(out, 1);
    crew.for_each(x.len().div_ceil(PIECE), |piece| {
        let range = piece * PIECE..x.len().min((piece + 1) * PIECE);
        // SAFETY: each piece has its own elements.
        let out = unsafe { out.rows(range.clone()) };
        out.copy_from_slice(&x[range]);
        nonlinearity.apply(out);
    });
}

/// Elements that a piece of work has.
const PIECE: usize = 16 << 10;

struct Chain<'a> {
    nonlinearity: Nonlinearity,
    gradient: &'a [f32],
    x: &'a mut [f32],
}

impl SimdOp for Chain<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { nonlinearity, gradient, x } = self;
        let ops = isa.f32();
        let length = ops.len();
        let whole = x.len() - x.len() % length;
        for at in (0..whole).step_by(length) {
            let y = ops.mul(ops.load(&gradient[at..]), nonlinearity.slope(isa, ops.load(&x[at..])));
            ops.store(y, &mut x[at..]);
        }
        let rest = x.len() - whole;
        if rest > 0 {
            let mut padded = [0.0; 16];
            padded[..rest].copy_from_slice(&x[whole..]);
            ops.store(nonlinearity.slope(isa, ops.load(&padded)), &mut padded);
            for ((x, gradient), slope) in x[whole..].iter_mut().zip(&gradient[whole..]).zip(padded) {
                *x = gradient * slope;
            }
        }
    }
}

struct Elements<'a> {
    nonlinearity: Nonlinearity,
    x: &'a mut [f32],
}

impl SimdOp for Elements<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let length = ops.len();
        let mut chunks = self.x.chunks_exact_mut(length);
        for chunk in &mut chunks {
            ops.store(self.nonlinearity.eval(isa, ops.load(chunk)), chunk);
        }
        let rest = chunks.into_remainder();
        if !rest.is_empty() {
            let mut padded = [0.0; 16];
            padded[..rest.len()].copy_from_slice(rest);
            ops.store(self.nonlinearity.eval(isa, ops.load(&padded)), &mut padded);
            rest.copy_from_slice(&padded[..rest.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instructions::everywhere;

    #[test]
    fn equal_their_formulas() {
        let erf = |x: f64| {
            // Series of the error function to double precision; beyond 5 it is 1 to the last place.
            let (mut sum, mut term) = (x, x);
            for n in 1..200 {
                term *= -x * x / n as f64;
                sum += term / (2 * n + 1) as f64;
            }
            if x.abs() > 5.0 { x.signum() } else { sum * 2.0 / std::f64::consts::PI.sqrt() }
        };
        let quick = |x: f64| x / (1.0 + (-1.702 * x).exp());
        let exact = |x: f64| 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2));
        let tanh = |x: f64| 0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044_715 * x.powi(3))).tanh());
        type Case<'a> = (Nonlinearity, &'a dyn Fn(f64) -> f64, f64);
        let cases: [Case<'_>; 3] = [
            (Nonlinearity::QuickGelu, &quick, 4e-7),
            (Nonlinearity::Gelu, &exact, 1e-6),
            (Nonlinearity::GeluTanh, &tanh, 4e-7),
        ];
        let x: Vec<f32> = (0..40_001).map(|i| (i as f32 - 20_000.0) / 1000.0).collect();
        for (nonlinearity, formula, bound) in cases {
            let mut found = x.clone();
            nonlinearity.apply(&mut found);
            for (x, found) in x.iter().zip(&found) {
                let expected = formula(f64::from(*x));
                let gap = (f64::from(*found) - expected).abs() / expected.abs().max(1.0);
                assert!(gap <= bound, "{nonlinearity:?} of {x}: {found} is not {expected}, {gap:e}");
            }
        }
        let mut extremes = [-1e4, -90.0, 90.0, 1e4];
        Nonlinearity::QuickGelu.apply(&mut extremes);
        assert_eq!(extremes[2..], [90.0, 1e4]);
        assert!(extremes[..2].iter().all(|x| x.abs() < 1e-30), "{extremes:?}");
    }

    #[test]
    fn slopes_are_those_of_the_formulas() {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        // By central differences of the forms in double precision; the exact GELU through its integral, the normal density.
        let quick = |x: f64| x * sigmoid(1.702 * x);
        let tanh = |x: f64| 0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044_715 * x.powi(3))).tanh());
        let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let cumulative = |x: f64| {
            let steps = 4000;
            let inner: f64 = (0..steps).map(|i| density(x * (i as f64 + 0.5) / steps as f64)).sum();
            0.5 + inner * x / steps as f64
        };
        let central = |f: &dyn Fn(f64) -> f64, x: f64| (f(x + 1e-5) - f(x - 1e-5)) / 2e-5;
        let x: Vec<f32> = (0..1003).map(|i| (i as f32 - 501.0) / 60.0).collect();
        let gradient = crate::testing::numbers(x.len(), 1);
        for nonlinearity in [Nonlinearity::QuickGelu, Nonlinearity::Gelu, Nonlinearity::GeluTanh] {
            everywhere(|| {
                let mut found = x.clone();
                chain(Crew::Solo, nonlinearity, &gradient, &mut found);
                for ((x, gradient), found) in x.iter().zip(&gradient).zip(&found) {
                    let at = f64::from(*x);
                    let slope = match nonlinearity {
                        Nonlinearity::QuickGelu => central(&quick, at),
                        Nonlinearity::Gelu => cumulative(at) + at * density(at),
                        Nonlinearity::GeluTanh => central(&tanh, at),
                    };
                    let expected = slope * f64::from(*gradient);
                    assert!(
                        (f64::from(*found) - expected).abs() < 4e-6,
                        "{nonlinearity:?} at {x}: {found}, not {expected}"
                    );
                }
            });
        }
    }

    #[test]
    fn exponential_is_exact_to_rounding() {
        struct Exponentials<'a>(&'a mut [f32]);
        impl SimdOp for Exponentials<'_> {
            type Output = ();

            #[inline(always)]
            fn eval<I: Isa>(self, isa: I) {
                let ops = isa.f32();
                for chunk in self.0.chunks_exact_mut(ops.len()) {
                    ops.store(exp(isa, ops.load(chunk)), chunk);
                }
            }
        }
        let x: Vec<f32> = (0..160_000).map(|i| -87.0 + i as f32 * (175.0 / 160_000.0)).collect();
        let mut found = x.clone();
        Exponentials(&mut found).dispatch();
        for (x, found) in x.iter().zip(&found) {
            let expected = f64::from(*x).exp();
            assert!((f64::from(*found) / expected - 1.0).abs() < 2e-7, "exp({x}) = {found}, not {expected}");
        }
        let mut ends = [f32::NEG_INFINITY, -1e30, -87.0, 0.0, 88.0, 100.0, 1e30, f32::INFINITY].repeat(2);
        Exponentials(&mut ends).dispatch();
        assert!(ends[0] < 2e-38 && ends[0] == ends[1] && ends[1] == ends[2], "{ends:?}");
        assert_eq!(ends[3], 1.0);
        assert!(ends[4] > 1e38 && ends[4].is_finite() && ends[4] == ends[7], "{ends:?}");
    }
}
