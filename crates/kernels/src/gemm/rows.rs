//! Operands made of rows, as they lie in memory or as a layer ahead of the product would make them.

use std::ops::Range;

use rten_simd::Isa;
use rten_simd::ops::{BitOps, NumOps};

use crate::activation::Nonlinearity;

/// What a layer norm found out about each row, and its parameters.
#[derive(Debug, Clone, Copy)]
pub struct Normalisation<'a> {
    /// Mean and reciprocal standard deviation of each row.
    pub statistics: &'a [[f32; 2]],
    /// Gain per element.
    pub weight: &'a [f32],
    /// Offset per element.
    pub bias: &'a [f32],
}

/// What rows go through on their way into a product.
#[derive(Debug, Clone, Copy)]
pub enum Through<'a> {
    /// Nothing.
    Nothing,
    /// A layer norm.
    Norm(Normalisation<'a>),
    /// A non-linearity.
    Activation(Nonlinearity),
}

/// A number of rows of equal length, and what they go through.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) stride: usize,
    pub(crate) start: usize,
    pub(crate) width: usize,
    pub(crate) count: usize,
    through: Through<'a>,
}

impl<'a> Rows<'a> {
    /// Rows of `width` elements that follow each other.
    ///
    /// # Panics
    /// When `data` isn't a whole number of rows.
    pub fn new(data: &'a [f32], width: usize) -> Self {
        assert!(width > 0 && data.len().is_multiple_of(width), "{} elements don't make rows of {width}", data.len());
        Self { data, stride: width, start: 0, width, count: data.len() / width, through: Through::Nothing }
    }

    /// Some columns of each row.
    ///
    /// # Panics
    /// When there are no such columns, or the rows go through a norm.
    #[must_use]
    pub fn columns(self, columns: Range<usize>) -> Self {
        assert!(columns.start <= columns.end && columns.end <= self.width, "columns {columns:?} of {}", self.width);
        assert!(!matches!(self.through, Through::Norm(_)), "columns of normalised rows");
        Self { start: self.start + columns.start, width: columns.len(), ..self }
    }

    /// Some of the rows.
    ///
    /// # Panics
    /// When there are no such rows.
    #[must_use]
    pub fn part(self, rows: Range<usize>) -> Self {
        assert!(rows.start <= rows.end && rows.end <= self.count, "rows {rows:?} of {}", self.count);
        let through = match self.through {
            Through::Norm(norm) => Through::Norm(Normalisation { statistics: &norm.statistics[rows.clone()], ..norm }),
            through => through,
        };
        let data = &self.data[rows.start * self.stride..rows.end * self.stride];
        Self { data, count: rows.len(), through, ..self }
    }

    /// The rows as a layer norm makes them.
    ///
    /// # Panics
    /// When statistics or parameters are missing for rows or elements.
    #[must_use]
    pub fn normalised(self, norm: Normalisation<'a>) -> Self {
        assert!(norm.statistics.len() == self.count, "{} statistics of {} rows", norm.statistics.len(), self.count);
        assert!(norm.weight.len() == self.width && norm.bias.len() == self.width, "shapes don't fit");
        Self { through: Through::Norm(norm), ..self }
    }

    /// The rows as a non-linearity makes them.
    #[must_use]
    pub fn activated(self, nonlinearity: Nonlinearity) -> Self {
        Self { through: Through::Activation(nonlinearity), ..self }
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Elements of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Whether rows can be read where they lie.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.through, Through::Nothing)
    }

    /// Some columns of a row as it lies in memory.
    #[inline(always)]
    pub(crate) fn raw(&self, row: usize, columns: Range<usize>) -> &'a [f32] {
        &self.data[row * self.stride + self.start..][..self.width][columns]
    }

    /// Writes some columns of a row, after what it goes through.
    #[inline(always)]
    pub(crate) fn fill<I: Isa>(&self, isa: I, row: usize, columns: Range<usize>, out: &mut [f32]) {
        let x = self.raw(row, columns.clone());
        match self.through {
            Through::Nothing => out.copy_from_slice(x),
            Through::Norm(Normalisation { statistics, weight, bias }) => {
                normalise(isa, x, statistics[row], &weight[columns.clone()], &bias[columns], out);
            }
            // Each in a loop of its own, so that the choice isn't made for every vector.
            Through::Activation(Nonlinearity::QuickGelu) => activate(isa, Nonlinearity::QuickGelu, x, out),
            Through::Activation(Nonlinearity::Gelu) => activate(isa, Nonlinearity::Gelu, x, out),
            Through::Activation(Nonlinearity::GeluTanh) => activate(isa, Nonlinearity::GeluTanh, x, out),
        }
    }
}

/// `(x - mean) * reciprocal * weight + bias`.
#[inline(always)]
pub(crate) fn normalise<I: Isa>(
    isa: I,
    x: &[f32],
    [mean, reciprocal]: [f32; 2],
    weight: &[f32],
    bias: &[f32],
    out: &mut [f32],
) {
    let ops = isa.f32();
    let length = ops.len();
    let whole = x.len() - x.len() % length;
    let (mean_v, reciprocal_v) = (ops.splat(mean), ops.splat(reciprocal));
    for at in (0..whole).step_by(length) {
        let unit = ops.mul(ops.sub(ops.load(&x[at..]), mean_v), reciprocal_v);
        let y = ops.mul_add(unit, ops.load(&weight[at..]), ops.load(&bias[at..]));
        ops.store(y, &mut out[at..]);
    }
    for at in whole..x.len() {
        out[at] = ((x[at] - mean) * reciprocal).mul_add(weight[at], bias[at]);
    }
}

#[inline(always)]
fn activate<I: Isa>(isa: I, nonlinearity: Nonlinearity, x: &[f32], out: &mut [f32]) {
    let ops = isa.f32();
    let length = ops.len();
    let whole = x.len() - x.len() % length;
    for at in (0..whole).step_by(length) {
        let y = nonlinearity.eval(isa, ops.load(&x[at..]));
        ops.store(y, &mut out[at..]);
    }
    if whole < x.len() {
        let mut padded = [0.0; 16];
        padded[..x.len() - whole].copy_from_slice(&x[whole..]);
        ops.store(nonlinearity.eval(isa, ops.load(&padded)), &mut padded);
        out[whole..].copy_from_slice(&padded[..x.len() - whole]);
    }
}
