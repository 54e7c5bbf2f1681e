//! What is lost of a picture: sharpness, cleanness, a rectangle.

use serde::{Deserialize, Serialize};

use super::canvas::{Canvas, byte};
use super::geometry::RandomResizedCrop;
use super::{probability, range, span};
use crate::data::random::Random;
use crate::error::Result;

/// Gaussian blur.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Blur {
    /// How often.
    pub probability: f32,
    /// Bounds of the standard deviation, in pixels of the model's size.
    pub deviation: (f32, f32),
}

impl Default for Blur {
    fn default() -> Self {
        Self { probability: 1.0, deviation: (0.1, 2.0) }
    }
}

impl Blur {
    pub(super) fn check(&self) -> Result<()> {
        probability("blur.probability", self.probability)?;
        span("blur.deviation", self.deviation, 0.01, 100.0)
    }

    pub(super) fn apply(&self, canvas: &mut Canvas, random: &mut Random) {
        if random.chance(self.probability) {
            blur(canvas, random.between(self.deviation.0, self.deviation.1));
        }
    }
}

/// Weights of a Gaussian up to three deviations; they add up to 1.
fn kernel(deviation: f32) -> Vec<f32> {
    let reach = (3.0 * deviation).ceil().max(1.0) as i32;
    let weights: Vec<f32> =
        (-reach..=reach).map(|at| (-((at * at) as f32) / (2.0 * deviation * deviation)).exp()).collect();
    let sum: f32 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// Blurs the colours of an opaque picture; at the edges the outermost pixels count on.
pub(super) fn blur(canvas: &mut Canvas, deviation: f32) {
    let weights = kernel(deviation);
    let reach = weights.len() / 2;
    let (width, height) = (canvas.width, canvas.height);
    let row_length = width * 3;
    let mut planes: Vec<f32> = Vec::with_capacity(height * row_length);
    let mut padded = vec![0f32; row_length + 6 * reach];
    for row in canvas.pixels.chunks_exact(width) {
        for (at, place) in padded.chunks_exact_mut(3).enumerate() {
            let pixel = row[at.saturating_sub(reach).min(width - 1)];
            place.iter_mut().zip(pixel).for_each(|(value, from)| *value = f32::from(from));
        }
        let start = planes.len();
        planes.resize(start + row_length, 0.0);
        for (at, weight) in weights.iter().enumerate() {
            add_scaled(&mut planes[start..], &padded[3 * at..3 * at + row_length], *weight);
        }
    }
    let mut sum = vec![0f32; row_length];
    for row in 0..height {
        sum.fill(0.0);
        for (at, weight) in weights.iter().enumerate() {
            let from = (row + at).saturating_sub(reach).min(height - 1);
            add_scaled(&mut sum, &planes[from * row_length..(from + 1) * row_length], *weight);
        }
        for (pixel, values) in canvas.pixels[row * width..].iter_mut().zip(sum.chunks_exact(3)) {
            pixel.iter_mut().zip(values).for_each(|(value, sum)| *value = byte(*sum));
        }
    }
}

fn add_scaled(sums: &mut [f32], values: &[f32], factor: f32) {
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += factor * value);
}

/// Every value is moved by a number drawn evenly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Noise {
    /// How often.
    pub probability: f32,
    /// Largest move either way, in levels of 255; drawn evenly from 0 to this for each picture.
    pub levels: f32,
}

impl Default for Noise {
    fn default() -> Self {
        Self { probability: 1.0, levels: 16.0 }
    }
}

impl Noise {
    pub(super) fn check(&self) -> Result<()> {
        probability("noise.probability", self.probability)?;
        range("noise.levels", self.levels, 0.0, 255.0)
    }

    pub(super) fn apply(&self, canvas: &mut Canvas, random: &mut Random) {
        if !random.chance(self.probability) {
            return;
        }
        let step = random.between(0.0, self.levels) / 127.5;
        for pixel in &mut canvas.pixels {
            let drawn = random.next_u64().to_le_bytes();
            for (value, drawn) in pixel.iter_mut().take(3).zip(drawn) {
                *value = byte(f32::from(*value) + (f32::from(drawn) - 127.5) * step);
            }
        }
    }
}

/// A rectangle in one random colour (random erasing; Zhong et al., 2017).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Erase {
    /// How often.
    pub probability: f32,
    /// Bounds of its share of the area.
    pub scale: (f32, f32),
    /// Bounds of its width divided by its height.
    pub ratio: (f32, f32),
}

impl Default for Erase {
    fn default() -> Self {
        Self { probability: 1.0, scale: (0.02, 0.33), ratio: (0.3, 3.3) }
    }
}

impl Erase {
    pub(super) fn check(&self) -> Result<()> {
        probability("erase.probability", self.probability)?;
        span("erase.scale", self.scale, 1e-4, 1.0)?;
        span("erase.ratio", self.ratio, 0.01, 100.0)
    }

    pub(super) fn apply(&self, canvas: &mut Canvas, random: &mut Random) {
        if !random.chance(self.probability) {
            return;
        }
        let part = RandomResizedCrop { scale: self.scale, ratio: self.ratio };
        let region = part.region((canvas.width as u32, canvas.height as u32), random);
        let [red, green, blue, ..] = random.next_u64().to_le_bytes();
        let (width, columns) = (canvas.width, region.x.start as usize..region.x.end as usize);
        for row in region.y {
            let start = row as usize * width;
            canvas.pixels[start + columns.start..start + columns.end].fill([red, green, blue, 255]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(width: usize, height: usize, colour: [u8; 4]) -> Canvas {
        Canvas { width, height, pixels: vec![colour; width * height] }
    }

    #[test]
    fn a_plain_picture_stays_plain() {
        for deviation in [0.1, 1.0, 30.0] {
            let mut canvas = plain(7, 3, [10, 200, 33, 255]);
            blur(&mut canvas, deviation);
            assert_eq!(canvas, plain(7, 3, [10, 200, 33, 255]));
        }
    }

    #[test]
    fn a_point_becomes_the_bell_curve() {
        let mut canvas = plain(15, 15, [0, 0, 0, 255]);
        canvas.pixels[7 * 15 + 7] = [255, 0, 0, 255];
        blur(&mut canvas, 1.5);
        let weights = kernel(1.5);
        for row in 0..15usize {
            for column in 0..15usize {
                let weight = |at: usize| (at + 5).checked_sub(7).and_then(|at| weights.get(at)).copied().unwrap_or(0.0);
                let expected = byte(255.0 * weight(row) * weight(column));
                assert_eq!(canvas.pixels[row * 15 + column], [expected, 0, 0, 255]);
            }
        }
    }

    #[test]
    fn a_tiny_deviation_changes_nothing() {
        let mut random = Random::about(&[4]);
        let pixels: Vec<[u8; 4]> = (0..30).map(|_| [random.next_u64() as u8, 5, 9, 255]).collect();
        let mut canvas = Canvas { width: 6, height: 5, pixels: pixels.clone() };
        blur(&mut canvas, 0.1);
        assert_eq!(canvas.pixels, pixels);
    }

    #[test]
    fn noise_keeps_its_bound_and_the_mean() {
        let mut canvas = plain(100, 100, [128, 128, 128, 255]);
        Noise { probability: 1.0, levels: 20.0 }.apply(&mut canvas, &mut Random::about(&[1]));
        let values: Vec<f32> =
            canvas.pixels.iter().flat_map(|pixel| pixel[..3].iter().map(|value| f32::from(*value))).collect();
        assert!(values.iter().all(|value| (108.0..=148.0).contains(value)));
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        assert!((mean - 128.0).abs() < 0.3 && values.iter().any(|value| *value != 128.0), "{mean}");
    }

    #[test]
    fn one_rectangle_is_erased() {
        let erase = Erase { probability: 1.0, scale: (0.25, 0.25), ratio: (1.0, 1.0) };
        let mut canvas = plain(20, 20, [1, 2, 3, 255]);
        erase.apply(&mut canvas, &mut Random::about(&[9]));
        let changed: Vec<usize> = (0..400).filter(|at| canvas.pixels[*at] != [1, 2, 3, 255]).collect();
        assert_eq!(changed.len(), 100);
        let (first, last) = (changed[0], changed[99]);
        assert_eq!((last / 20 - first / 20, last % 20 - first % 20), (9, 9));
        assert!(changed.iter().all(|at| canvas.pixels[*at] == canvas.pixels[first]));
    }
}
