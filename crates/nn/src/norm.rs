//! Layer normalisation and L2 normalisation.

use candle_core::{D, Result, Tensor};

use crate::ops::norm::layer_norm;
use crate::ops::on_processor;

/// Layer normalisation over the last dimension: `(x - mean) / sqrt(variance + eps) * weight + bias`, biased variance.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// A norm with gain and offset of shape `[width]`.
    pub fn new(weight: Tensor, bias: Tensor, eps: f64) -> Self {
        Self { weight, bias, eps }
    }

    /// Gain and offset.
    pub fn parameters(&self) -> [&Tensor; 2] {
        [&self.weight, &self.bias]
    }

    /// What is added to the variance.
    pub fn eps(&self) -> f64 {
        self.eps
    }

    /// The same norm with parameters that lie in row-major order.
    pub(crate) fn contiguous(&self) -> Result<Self> {
        Ok(Self { weight: self.weight.contiguous()?, bias: self.bias.contiguous()?, eps: self.eps })
    }

    /// Normalises the last dimension of `x`.
    ///
    /// # Errors
    /// A last dimension other than the norm's width.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if on_processor([x, &self.weight, &self.bias]) {
            return layer_norm(x, &self.weight, &self.bias, self.eps);
        }
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normalised = centred.broadcast_div(&(variance + self.eps)?.sqrt()?)?;
        normalised.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)
    }
}

/// Divides each vector along the last dimension by its Euclidean length. A zero vector gives NaN, as the references do.
///
/// # Errors
/// Failures of the tensor library.
pub fn l2_normalise(x: &Tensor) -> Result<Tensor> {
    x.broadcast_div(&x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    fn rows() -> Var {
        Var::new(&[[1.0f64, 2.0, 4.0, -3.0], [0.5, 0.25, -0.125, 7.0]], &Device::Cpu).unwrap()
    }

    fn norm() -> LayerNorm {
        let weight = Tensor::new(&[1.0f64, 0.5, -2.0, 1.5], &Device::Cpu).unwrap();
        let bias = Tensor::new(&[0.1f64, -0.2, 0.3, 0.0], &Device::Cpu).unwrap();
        LayerNorm::new(weight, bias, 1e-5)
    }

    #[test]
    fn normalises_each_row() {
        let y: Vec<Vec<f64>> = norm().forward(rows().as_tensor()).unwrap().to_vec2().unwrap();
        // Row one has mean 1 and variance 6.5.
        let unit = 1.0 / (6.5f64 + 1e-5).sqrt();
        let expected = [0.1, 0.5 * unit - 0.2, -2.0 * 3.0 * unit + 0.3, 1.5 * -4.0 * unit];
        for (found, expected) in y[0].iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn gradient_matches_finite_differences() {
        let x = rows();
        let loss = |x: &Tensor| norm().forward(x).unwrap().sqr().unwrap().sum_all().unwrap();
        let gradient: Vec<f64> =
            loss(x.as_tensor()).backward().unwrap().get(&x).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let flat: Vec<f64> = x.as_tensor().flatten_all().unwrap().to_vec1().unwrap();
        for (i, slope) in gradient.iter().enumerate() {
            let at = |delta: f64| {
                let mut moved = flat.clone();
                moved[i] += delta;
                loss(&Tensor::from_vec(moved, (2, 4), &Device::Cpu).unwrap()).to_scalar::<f64>().unwrap()
            };
            let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((slope - expected).abs() < 1e-5, "{i}: {slope} is not {expected}");
        }
    }

    #[test]
    fn unit_vectors_have_length_one() {
        let y: Vec<Vec<f64>> = l2_normalise(rows().as_tensor()).unwrap().to_vec2().unwrap();
        for row in y {
            assert!((row.iter().map(|v| v * v).sum::<f64>() - 1.0).abs() < 1e-12);
        }
    }
}
