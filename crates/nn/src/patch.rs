//! Cutting a picture into patches and embedding each.

use candle_core::{Result, Tensor};

use crate::linear::Linear;

/// A convolution whose stride equals its kernel, computed as unfold and one matrix product. Pixels beyond the last whole
/// patch are ignored, as a valid convolution does.
#[derive(Debug, Clone)]
pub struct PatchEmbedding {
    projection: Linear,
    patch_size: usize,
}

impl PatchEmbedding {
    /// An embedding with `weight` of shape `[width, channels, patch_size, patch_size]`.
    ///
    /// # Errors
    /// A weight that isn't four-dimensional.
    pub fn new(weight: &Tensor, bias: Option<Tensor>) -> Result<Self> {
        let (_, _, patch_size, _) = weight.dims4()?;
        Ok(Self { projection: Linear::new(weight.flatten_from(1)?, bias), patch_size })
    }

    /// Maps pixels `[batch, channels, height, width]` to `[batch, patches, width]`, patches in rows from the top.
    ///
    /// # Errors
    /// A number of channels other than the weight's, or a picture smaller than one patch.
    pub fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let (batch, channels, height, width) = pixels.dims4()?;
        let p = self.patch_size;
        let (rows, columns) = (height / p, width / p);
        let whole = pixels.narrow(2, 0, rows * p)?.narrow(3, 0, columns * p)?;
        let patches = whole.reshape((batch, channels, rows, p, columns, p))?.permute((0, 2, 4, 1, 3, 5))?.reshape((
            batch,
            rows * columns,
            channels * p * p,
        ))?;
        self.projection.forward(&patches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn equals_a_strided_convolution() {
        let device = Device::Cpu;
        let pixels = Tensor::arange(0f32, (2 * 3 * 7 * 9) as f32, &device).unwrap().reshape((2, 3, 7, 9)).unwrap();
        let pixels = (pixels * 0.01).unwrap();
        let weight = Tensor::arange(0f32, (5 * 3 * 2 * 2) as f32, &device).unwrap().reshape((5, 3, 2, 2)).unwrap();
        let weight = (weight * 0.1).unwrap();
        let expected = pixels.conv2d(&weight, 0, 2, 1, 1).unwrap().flatten_from(2).unwrap().transpose(1, 2).unwrap();
        let found = PatchEmbedding::new(&weight, None).unwrap().forward(&pixels).unwrap();
        assert_eq!(found.dims(), &[2, 12, 5]);
        let difference = (found - expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(difference < 1e-4, "{difference}");
    }
}
