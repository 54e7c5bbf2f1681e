//! What colours the pixels have: brightness, contrast, saturation, hue, number of levels.

use serde::{Deserialize, Serialize};

use super::canvas::{Canvas, byte, luma};
use super::{probability, range};
use crate::data::random::Random;
use crate::error::{Error, Result};

/// Brightness, contrast, saturation and hue, in this order, each by a factor or turn drawn evenly (torchvision's `ColorJitter`, whose order is random).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ColourJitter {
    /// How often.
    pub probability: f32,
    /// The factor lies between 1 less and 1 more this; 0 leaves brightness alone.
    pub brightness: f32,
    /// As `brightness`, of the distance from the mean grey.
    pub contrast: f32,
    /// As `brightness`, of the distance from the pixel's own grey.
    pub saturation: f32,
    /// Largest turn of the hue either way, as a share of the circle, at most 0.5.
    pub hue: f32,
}

impl Default for ColourJitter {
    fn default() -> Self {
        Self { probability: 1.0, brightness: 0.0, contrast: 0.0, saturation: 0.0, hue: 0.0 }
    }
}

impl ColourJitter {
    pub(super) fn check(&self) -> Result<()> {
        probability("colour.probability", self.probability)?;
        range("colour.brightness", self.brightness, 0.0, 10.0)?;
        range("colour.contrast", self.contrast, 0.0, 10.0)?;
        range("colour.saturation", self.saturation, 0.0, 10.0)?;
        range("colour.hue", self.hue, 0.0, 0.5)
    }

    pub(super) fn apply(&self, canvas: &mut Canvas, random: &mut Random) {
        if !random.chance(self.probability) {
            return;
        }
        let mut factor = |most: f32| random.between((1.0 - most).max(0.0), 1.0 + most);
        let [brightness, contrast, saturation] = [self.brightness, self.contrast, self.saturation].map(&mut factor);
        let turn = random.between(-self.hue, self.hue);
        brighten(canvas, brightness);
        set_contrast(canvas, contrast);
        saturate(canvas, saturation);
        turn_hue(canvas, turn);
    }
}

/// Changes every value by a function of it alone.
fn by_table(canvas: &mut Canvas, change: impl Fn(f32) -> f32) {
    let table: [u8; 256] = std::array::from_fn(|value| byte(change(value as f32)));
    canvas.map(|colour| colour.map(|value| table[usize::from(value)]));
}

/// Multiplies all values.
pub(super) fn brighten(canvas: &mut Canvas, factor: f32) {
    if factor != 1.0 {
        by_table(canvas, |value| value * factor);
    }
}

/// Moves values away from the mean grey of the picture, or towards it.
pub(super) fn set_contrast(canvas: &mut Canvas, factor: f32) {
    if factor != 1.0 {
        let sum: u64 = canvas.pixels.iter().map(|pixel| u64::from(luma([pixel[0], pixel[1], pixel[2]]))).sum();
        let mean = (sum as f32 / canvas.pixels.len().max(1) as f32).round();
        by_table(canvas, |value| mean + (value - mean) * factor);
    }
}

/// Moves values away from the pixel's own grey, or towards it.
pub(super) fn saturate(canvas: &mut Canvas, factor: f32) {
    if factor != 1.0 {
        canvas.map(|colour| {
            let grey = f32::from(luma(colour));
            colour.map(|value| byte(grey + (f32::from(value) - grey) * factor))
        });
    }
}

/// Turns the hue by a share of the circle, once round at most: a third makes red green, green blue and blue red.
pub(super) fn turn_hue(canvas: &mut Canvas, turn: f32) {
    if turn != 0.0 {
        canvas.map(|colour| turned(colour, turn));
    }
}

/// A colour with another hue, and the same value and saturation in HSV.
fn turned(colour: [u8; 3], turn: f32) -> [u8; 3] {
    let [red, green, blue] = colour.map(f32::from);
    let (most, least) = (red.max(green).max(blue), red.min(green).min(blue));
    let chroma = most - least;
    if chroma == 0.0 {
        return colour;
    }
    // In sixths of the circle.
    let hue = if most == red {
        (green - blue) / chroma
    } else if most == green {
        (blue - red) / chroma + 2.0
    } else {
        (red - green) / chroma + 4.0
    };
    // The remainder by hand: a turn goes round once at most, and `rem_euclid` is a call.
    let hue = hue + 6.0 * turn;
    let hue = if hue >= 6.0 { hue - 6.0 } else { hue };
    let hue = if hue < 0.0 { hue + 6.0 } else { hue };
    // How far a channel is from its full value, by the distance of the hue from the channel's own.
    let channel = |own: f32| {
        let apart = (hue - own).abs();
        let apart = apart.min(6.0 - apart);
        byte(most - chroma * (apart - 1.0).clamp(0.0, 1.0))
    };
    [channel(0.0), channel(2.0), channel(4.0)]
}

/// Fewer levels a channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Posterise {
    /// How often.
    pub probability: f32,
    /// Bounds of the number of bits that are kept, 1 to 8.
    pub bits: (u8, u8),
}

impl Default for Posterise {
    fn default() -> Self {
        Self { probability: 1.0, bits: (2, 5) }
    }
}

impl Posterise {
    pub(super) fn check(&self) -> Result<()> {
        probability("posterise.probability", self.probability)?;
        let (least, most) = self.bits;
        if (1..=8).contains(&least) && (least..=8).contains(&most) {
            return Ok(());
        }
        Err(Error::Invalid(format!("augmentation: posterise.bits goes from {least} to {most}, expected 1 to 8")))
    }

    pub(super) fn apply(&self, canvas: &mut Canvas, random: &mut Random) {
        if random.chance(self.probability) {
            let bits = self.bits.0 + random.below(usize::from(self.bits.1 - self.bits.0) + 1) as u8;
            posterise(canvas, bits);
        }
    }
}

/// Keeps the highest `bits` of each value, as Pillow's `posterize` does.
pub(super) fn posterise(canvas: &mut Canvas, bits: u8) {
    let mask = 0xff_u8 << (8 - bits);
    canvas.map(|colour| colour.map(|value| value & mask));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(colour: [u8; 3]) -> Canvas {
        Canvas { width: 1, height: 1, pixels: vec![[colour[0], colour[1], colour[2], 255]] }
    }

    fn changed(colour: [u8; 3], change: impl Fn(&mut Canvas)) -> [u8; 3] {
        let mut canvas = one(colour);
        change(&mut canvas);
        let [red, green, blue, _] = canvas.pixels[0];
        [red, green, blue]
    }

    #[test]
    fn a_third_of_the_circle_permutes_the_channels() {
        for colour in [[255, 0, 0], [200, 30, 90], [1, 2, 3], [7, 7, 200], [90, 200, 30]] {
            let [red, green, blue] = colour;
            assert_eq!(changed(colour, |canvas| turn_hue(canvas, 1.0 / 3.0)), [blue, red, green]);
            assert_eq!(changed(colour, |canvas| turn_hue(canvas, -1.0 / 3.0)), [green, blue, red]);
            assert_eq!(changed(colour, |canvas| turn_hue(canvas, 1.0)), colour);
        }
        assert_eq!(changed([255, 0, 0], |canvas| turn_hue(canvas, 0.5)), [0, 255, 255]);
        assert_eq!(changed([255, 0, 0], |canvas| turn_hue(canvas, 1.0 / 12.0)), [255, 128, 0]);
        assert_eq!(changed([9, 9, 9], |canvas| turn_hue(canvas, 0.2)), [9, 9, 9]);
    }

    #[test]
    fn factors_have_their_fixed_points() {
        assert_eq!(changed([10, 100, 200], |canvas| brighten(canvas, 1.5)), [15, 150, 255]);
        assert_eq!(changed([10, 100, 200], |canvas| brighten(canvas, 0.0)), [0, 0, 0]);
        let grey = luma([10, 100, 200]);
        assert_eq!(changed([10, 100, 200], |canvas| saturate(canvas, 0.0)), [grey; 3]);
        assert_eq!(changed([10, 100, 200], Canvas::grey), [grey; 3]);
        let mut two = Canvas { width: 2, height: 1, pixels: vec![[50, 50, 50, 255], [150, 150, 150, 255]] };
        set_contrast(&mut two, 0.5);
        assert_eq!(two.pixels, [[75, 75, 75, 255], [125, 125, 125, 255]]);
        set_contrast(&mut two, 0.0);
        assert_eq!(two.pixels[0], [100, 100, 100, 255]);
    }

    #[test]
    fn grey_is_pillows() {
        // Image.new('RGB', (1, 1), colour).convert('L')
        let cases = [([255, 0, 0], 76), ([0, 255, 0], 150), ([0, 0, 255], 29), ([10, 100, 200], 84), ([255; 3], 255)];
        for (colour, expected) in cases {
            assert_eq!(luma(colour), expected);
        }
    }

    #[test]
    fn high_bits_are_kept() {
        assert_eq!(changed([0b1011_0111, 255, 3], |canvas| posterise(canvas, 3)), [0b1010_0000, 0b1110_0000, 0]);
        assert_eq!(changed([1, 2, 3], |canvas| posterise(canvas, 8)), [1, 2, 3]);
        assert!(Posterise { bits: (0, 3), ..Posterise::default() }.check().is_err());
        assert!(Posterise { bits: (5, 3), ..Posterise::default() }.check().is_err());
    }

    #[test]
    fn no_bounds_change_nothing() {
        let jitter = ColourJitter::default();
        assert_eq!(changed([10, 100, 200], |canvas| jitter.apply(canvas, &mut Random::about(&[]))), [10, 100, 200]);
    }
}
