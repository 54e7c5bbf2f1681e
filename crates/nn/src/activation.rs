//! The non-linearities of transformer MLPs. Which one a checkpoint needs is a fact of its configuration.

use candle_core::{Result, Tensor};
use crossmodal_kernels::activation::Nonlinearity;

use crate::ops::activation::activate;
use crate::ops::on_processor;

/// The non-linearity between the two halves of an MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x * sigmoid(1.702 x)` (original CLIP).
    QuickGelu,
    /// `x * Phi(x)` with the exact error function.
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
}

impl Activation {
    /// The name that configurations use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QuickGelu => "quick_gelu",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_pytorch_tanh",
        }
    }

    /// The kernel that computes it.
    pub fn kernel(self) -> Nonlinearity {
        match self {
            Self::QuickGelu => Nonlinearity::QuickGelu,
            Self::Gelu => Nonlinearity::Gelu,
            Self::GeluTanh => Nonlinearity::GeluTanh,
        }
    }

    /// Applies the function to every element.
    ///
    /// # Errors
    /// Failures of the tensor library.
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        if on_processor([x]) {
            return activate(x, self.kernel());
        }
        match self {
            // exp overflows to infinity for very negative x, where the quotient is the correct limit, zero.
            Self::QuickGelu => x / (x.affine(-1.702, 0.0)?.exp()? + 1.0)?,
            Self::Gelu => x.gelu_erf(),
            Self::GeluTanh => x.gelu(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    const INPUTS: [f32; 8] = [-200.0, -3.0, -0.5, -1e-4, 0.0, 0.7, 2.5, 90.0];

    fn close(found: &[f32], expected: &[f32]) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() <= 2e-6 * expected.abs().max(1.0), "{found} is not {expected}");
        }
    }

    fn run(activation: Activation) -> Vec<f32> {
        let x = Tensor::new(&INPUTS, &Device::Cpu).unwrap();
        activation.forward(&x).unwrap().to_vec1().unwrap()
    }

    // Expected values: PyTorch 2.15, float64.
    #[test]
    fn values_match_the_reference() {
        let expected = [0.0, -0.018_071_31, -0.149_611_56, -4.999_574_5e-5, 0.0, 0.536_893_95, 2.465_013_8, 90.0];
        close(&run(Activation::QuickGelu), &expected);
        let expected = [0.0, -0.004_049_694, -0.154_268_77, -4.999_601e-5, 0.0, 0.530_625_4, 2.484_475_9, 90.0];
        close(&run(Activation::Gelu), &expected);
        let expected = [0.0, -0.003_637_392, -0.154_286, -4.999_601e-5, 0.0, 0.530_570_1, 2.484_916, 90.0];
        close(&run(Activation::GeluTanh), &expected);
    }

    #[test]
    fn gradients_match_finite_differences() {
        for activation in [Activation::QuickGelu, Activation::Gelu, Activation::GeluTanh] {
            let points = [-2.0f64, -0.3, 0.4, 1.7];
            let x = Var::new(&points, &Device::Cpu).unwrap();
            let y = activation.forward(x.as_tensor()).unwrap().sum_all().unwrap();
            let gradient: Vec<f64> = y.backward().unwrap().get(&x).unwrap().to_vec1().unwrap();
            let value = |x: f64| -> f64 {
                activation.forward(&Tensor::new(x, &Device::Cpu).unwrap()).unwrap().to_scalar().unwrap()
            };
            for (point, slope) in points.iter().zip(gradient) {
                let expected = (value(point + 1e-5) - value(point - 1e-5)) / 2e-5;
                assert!((slope - expected).abs() < 1e-6, "{activation:?} at {point}: {slope} is not {expected}");
            }
        }
    }
}
