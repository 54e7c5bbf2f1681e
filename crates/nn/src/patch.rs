//! Cutting a picture into patches and embedding each.

use candle_core::{Error, Result, Tensor};
use crossmodal_kernels::patches::Pictures;

use crate::linear::Linear;
use crate::ops::{Values, crew, on_processor, session, take_tokens};

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
        if on_processor([pixels]) && !pixels.track_op() && rows * columns > 0 {
            let all: Vec<u32> = (0..batch).flat_map(|_| 0..(rows * columns) as u32).collect();
            return self.forward_kept(pixels, &all);
        }
        let whole = pixels.narrow(2, 0, rows * p)?.narrow(3, 0, columns * p)?;
        let patches = whole.reshape((batch, channels, rows, p, columns, p))?.permute((0, 2, 4, 1, 3, 5))?.reshape((
            batch,
            rows * columns,
            channels * p * p,
        ))?;
        self.projection.forward(&patches)
    }
}

impl PatchEmbedding {
    /// As [`forward`](Self::forward), for some patches of each picture: `kept` `[batch][count]` has their numbers, and the result is
    /// `[batch, count, width]`. The others are neither cut out nor multiplied.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), a patch that doesn't exist, or a number of patches that the batch doesn't divide.
    pub fn forward_kept(&self, pixels: &Tensor, kept: &[u32]) -> Result<Tensor> {
        let (batch, channels, height, width) = pixels.dims4()?;
        let (rows, columns) = (height / self.patch_size, width / self.patch_size);
        let count = kept.len() / batch.max(1);
        if count * batch != kept.len() {
            return Err(Error::Msg(format!("{} kept patches for a batch of {batch}", kept.len())).bt());
        }
        if let Some(patch) = kept.iter().find(|patch| **patch as usize >= rows * columns) {
            return Err(Error::Msg(format!("patch {patch} of {rows} x {columns}")).bt());
        }
        if !on_processor([pixels]) || pixels.track_op() {
            return take_tokens(&self.forward(pixels)?, kept);
        }
        let size = channels * self.patch_size * self.patch_size;
        let mut cut = vec![0.0; kept.len() * size];
        {
            let pixels = pixels.contiguous()?;
            let pixels = Values::of(&pixels)?;
            let pictures = Pictures { pixels: &pixels, channels, height, width };
            pictures.patches(crew(&session()), self.patch_size, kept, &mut cut);
        }
        self.projection.forward(&Tensor::from_vec(cut, (batch, count, size), pixels.device())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn equals_a_strided_convolution() {
        let device = Device::Cpu;
        let pixels = Tensor::arange(0f32, (2 * 3 * 7 * 9) as f32, &device).unwrap().reshape((2, 3, 7, 9)).unwrap();
        let pixels = (pixels * 0.01).unwrap();
        let weight = Tensor::arange(0f32, (5 * 3 * 2 * 2) as f32, &device).unwrap().reshape((5, 3, 2, 2)).unwrap();
        let weight = (weight * 0.1).unwrap();
        // Pixels that are no variable are cut by the kernels, those of a variable by candle.
        let expected = pixels.conv2d(&weight, 0, 2, 1, 1).unwrap().flatten_from(2).unwrap().transpose(1, 2).unwrap();
        let embedding = PatchEmbedding::new(&weight, None).unwrap();
        let variable = Var::from_tensor(&pixels).unwrap().into_inner();
        let gap = |found: &Tensor, expected: &Tensor| {
            (found - expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap()
        };
        for pixels in [&pixels, &variable] {
            let found = embedding.forward(pixels).unwrap();
            assert_eq!(found.dims(), &[2, 12, 5]);
            assert!(gap(&found, &expected) < 1e-4);
            let kept = [11, 0, 4, 4];
            let some = embedding.forward_kept(pixels, &kept).unwrap();
            assert!(gap(&some, &take_tokens(&expected.contiguous().unwrap(), &kept).unwrap()) < 1e-4);
            assert!(embedding.forward_kept(pixels, &[0, 12]).unwrap_err().to_string().contains("patch 12 of 3 x 4"));
            assert!(embedding.forward_kept(pixels, &[0, 1, 2]).is_err());
        }
    }
}
