//! Where the pixels go: random parts, shifts, turns, shears, zooms.

use crossmodal_media::Region;
use serde::{Deserialize, Serialize};

use super::canvas::{Canvas, byte};
use super::{probability, range, span};
use crate::data::random::Random;
use crate::error::Result;

/// A part of random area and aspect ratio, brought to the model's size (Szegedy et al., 2015; torchvision's `RandomResizedCrop`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandomResizedCrop {
    /// Bounds of the part's share of the area.
    pub scale: (f32, f32),
    /// Bounds of its width divided by its height; drawn evenly in the logarithm.
    pub ratio: (f32, f32),
}

impl Default for RandomResizedCrop {
    fn default() -> Self {
        Self { scale: (0.08, 1.0), ratio: (0.75, 4.0 / 3.0) }
    }
}

impl RandomResizedCrop {
    pub(super) fn check(&self) -> Result<()> {
        span("crop.scale", self.scale, 1e-4, 1.0)?;
        span("crop.ratio", self.ratio, 0.01, 100.0)
    }

    /// Draws a part of a picture of `width` x `height`. Where ten draws don't fit, it is the largest part in the middle whose aspect ratio is allowed.
    pub fn region(&self, (width, height): (u32, u32), random: &mut Random) -> Region {
        let (full_width, full_height) = (f64::from(width), f64::from(height));
        for _ in 0..10 {
            let area = full_width * full_height * f64::from(random.between(self.scale.0, self.scale.1));
            let ratio = f64::from(random.between(self.ratio.0.ln(), self.ratio.1.ln())).exp();
            let (wide, high) = ((area * ratio).sqrt().round(), (area / ratio).sqrt().round());
            if wide >= 1.0 && high >= 1.0 && wide <= full_width && high <= full_height {
                let (wide, high) = (wide as u32, high as u32);
                let left = random.below((width - wide) as usize + 1) as u32;
                let top = random.below((height - high) as usize + 1) as u32;
                return Region { x: left..left + wide, y: top..top + high };
            }
        }
        let ratio = (full_width / full_height).clamp(f64::from(self.ratio.0), f64::from(self.ratio.1));
        let part = |length: u32, wanted: f64| {
            let kept = (wanted.round() as u32).clamp(1, length);
            let start = (length - kept) / 2;
            start..start + kept
        };
        Region { x: part(width, full_height * ratio), y: part(height, full_width / ratio) }
    }
}

/// Shift, turn, shear and zoom about the middle, drawn evenly between bounds. What is uncovered is transparent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Affine {
    /// How often.
    pub probability: f32,
    /// Largest turn either way, in degrees.
    pub rotate: f32,
    /// Largest shift each way, as a share of the side.
    pub shift: f32,
    /// Largest shear either way, in degrees.
    pub shear: f32,
    /// Bounds of the zoom: above 1 enlarges.
    pub zoom: (f32, f32),
}

impl Default for Affine {
    fn default() -> Self {
        Self { probability: 1.0, rotate: 0.0, shift: 0.0, shear: 0.0, zoom: (1.0, 1.0) }
    }
}

/// One affine map of the picture about its middle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Map {
    /// Degrees, clockwise as one sees it.
    pub(super) rotate: f32,
    /// Pixels to the right and down.
    pub(super) shift: (f32, f32),
    /// Degrees: rows move to the right as they lie lower.
    pub(super) shear: f32,
    pub(super) zoom: f32,
}

impl Affine {
    pub(super) fn check(&self) -> Result<()> {
        probability("affine.probability", self.probability)?;
        range("affine.rotate", self.rotate, 0.0, 180.0)?;
        range("affine.shift", self.shift, 0.0, 1.0)?;
        range("affine.shear", self.shear, 0.0, 80.0)?;
        span("affine.zoom", self.zoom, 0.01, 100.0)
    }

    pub(super) fn apply(&self, canvas: &mut Canvas, random: &mut Random) {
        if !random.chance(self.probability) {
            return;
        }
        let mut either_way = |most: f32| random.between(-most, most);
        let rotate = either_way(self.rotate);
        let shift = (either_way(self.shift) * canvas.width as f32, either_way(self.shift) * canvas.height as f32);
        let shear = either_way(self.shear);
        let zoom = random.between(self.zoom.0, self.zoom.1);
        Map { rotate, shift, shear, zoom }.apply(canvas);
    }
}

impl Map {
    /// Draws the picture anew: each pixel is taken from where it came from, linear between neighbours, colours weighed by alpha.
    pub(super) fn apply(&self, canvas: &mut Canvas) {
        let identity = Self { rotate: 0.0, shift: (0.0, 0.0), shear: 0.0, zoom: 1.0 };
        if *self == identity {
            return;
        }
        let (sin, cos) = self.rotate.to_radians().sin_cos();
        let lean = self.shear.to_radians().tan();
        // Forwards: p -> zoom * rotation * shear * p. Backwards, the inverses in the other order.
        let (xx, xy) = ((cos + lean * sin) / self.zoom, (sin - lean * cos) / self.zoom);
        let (yx, yy) = (-sin / self.zoom, cos / self.zoom);
        let (middle_x, middle_y) = ((canvas.width as f32 - 1.0) / 2.0, (canvas.height as f32 - 1.0) / 2.0);
        let mut drawn = Vec::with_capacity(canvas.pixels.len());
        for row in 0..canvas.height {
            let y = row as f32 - middle_y - self.shift.1;
            for column in 0..canvas.width {
                let x = column as f32 - middle_x - self.shift.0;
                drawn.push(sample(canvas, xx * x + xy * y + middle_x, yx * x + yy * y + middle_y));
            }
        }
        canvas.pixels = drawn;
    }
}

/// The whole number at or below a place, without the call that `floor` is on processors without SSE 4.1.
fn at_or_below(place: f32) -> i32 {
    let whole = place as i32;
    whole - i32::from(whole as f32 > place)
}

/// The picture at a place between pixels; transparent outside.
fn sample(canvas: &Canvas, x: f32, y: f32) -> [u8; 4] {
    let (left, top) = (at_or_below(x), at_or_below(y));
    let (right_share, low_share) = (x - left as f32, y - top as f32);
    let weights = [
        (1.0 - right_share) * (1.0 - low_share),
        right_share * (1.0 - low_share),
        (1.0 - right_share) * low_share,
        right_share * low_share,
    ];
    let (width, height) = (canvas.width as i32, canvas.height as i32);
    let pixel = |column: i32, row: i32| {
        let is_inside = column >= 0 && row >= 0 && column < width && row < height;
        if is_inside { canvas.pixels[(row * width + column) as usize] } else { [0; 4] }
    };
    let four = [pixel(left, top), pixel(left + 1, top), pixel(left, top + 1), pixel(left + 1, top + 1)];
    if four.iter().all(|pixel| pixel[3] == 255) {
        let sum = |channel: usize| -> f32 {
            four.iter().zip(weights).map(|(pixel, weight)| weight * f32::from(pixel[channel])).sum()
        };
        return [byte(sum(0)), byte(sum(1)), byte(sum(2)), 255];
    }
    let weights: [f32; 4] = std::array::from_fn(|place| weights[place] * f32::from(four[place][3]));
    let alpha: f32 = weights.iter().sum();
    if alpha < 0.5 {
        return [0; 4];
    }
    let mean = |channel: usize| -> f32 {
        four.iter().zip(weights).map(|(pixel, weight)| weight * f32::from(pixel[channel])).sum::<f32>() / alpha
    };
    [byte(mean(0)), byte(mean(1)), byte(mean(2)), byte(alpha)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canvas(width: usize, height: usize) -> Canvas {
        let mut random = Random::about(&[1]);
        let pixels = (0..width * height).map(|_| [0; 3].map(|_: u8| random.next_u64() as u8));
        Canvas { width, height, pixels: pixels.map(|[red, green, blue]| [red, green, blue, 255]).collect() }
    }

    fn map(canvas: &Canvas, map: Map) -> Canvas {
        let mut canvas = canvas.clone();
        map.apply(&mut canvas);
        canvas
    }

    const NONE: Map = Map { rotate: 0.0, shift: (0.0, 0.0), shear: 0.0, zoom: 1.0 };

    #[test]
    fn quarter_turns_are_exact() {
        for side in [8, 9, 64] {
            let before = canvas(side, side);
            let turned = map(&before, Map { rotate: 90.0, ..NONE });
            for row in 0..side {
                for column in 0..side {
                    // Clockwise: what was on the left is at the top.
                    let from = (side - 1 - column) * side + row;
                    assert_eq!(turned.pixels[row * side + column], before.pixels[from]);
                }
            }
            let half = map(&before, Map { rotate: 180.0, ..NONE });
            assert!(half.pixels.iter().eq(before.pixels.iter().rev()));
        }
    }

    #[test]
    fn whole_shifts_are_exact_and_uncover_transparent_ground() {
        let before = canvas(6, 5);
        let shifted = map(&before, Map { shift: (2.0, -1.0), ..NONE });
        for row in 0..5 {
            for column in 0..6 {
                let from = (column as i32 - 2, row as i32 + 1);
                let inside = from.0 >= 0 && from.1 < 5;
                let expected = if inside { before.pixels[from.1 as usize * 6 + from.0 as usize] } else { [0; 4] };
                assert_eq!(shifted.pixels[row * 6 + column], expected);
            }
        }
    }

    #[test]
    fn half_a_pixel_is_the_mean_of_two() {
        let before = Canvas { width: 2, height: 1, pixels: vec![[100, 0, 0, 255], [200, 0, 0, 255]] };
        let shifted = map(&before, Map { shift: (0.5, 0.0), ..NONE });
        assert_eq!(shifted.pixels, [[100, 0, 0, 128], [150, 0, 0, 255]]);
    }

    #[test]
    fn shear_moves_rows_and_zoom_moves_away_from_the_middle() {
        let before = canvas(9, 9);
        let sheared = map(&before, Map { shear: 45.0, ..NONE });
        // The row below the middle by two has moved two to the right.
        assert_eq!(sheared.pixels[6 * 9 + 6], before.pixels[6 * 9 + 4]);
        assert_eq!(sheared.pixels[4 * 9..5 * 9], before.pixels[4 * 9..5 * 9]);
        let zoomed = map(&before, Map { zoom: 2.0, ..NONE });
        assert_eq!(zoomed.pixels[4 * 9 + 8], before.pixels[4 * 9 + 6]);
        assert_eq!(zoomed.pixels[8 * 9 + 4], before.pixels[6 * 9 + 4]);
    }

    #[test]
    fn transparent_pixels_lend_no_colour() {
        let before = Canvas { width: 2, height: 1, pixels: vec![[200, 0, 0, 255], [0, 255, 0, 0]] };
        let shifted = map(&before, Map { shift: (-0.5, 0.0), ..NONE });
        assert_eq!(shifted.pixels[0], [200, 0, 0, 128]);
    }

    #[test]
    fn no_bounds_change_nothing() {
        let before = canvas(7, 5);
        let mut after = before.clone();
        Affine::default().apply(&mut after, &mut Random::about(&[3]));
        assert_eq!(after, before);
    }

    #[test]
    fn parts_keep_their_bounds() {
        let crop = RandomResizedCrop { scale: (0.2, 0.6), ratio: (0.5, 2.0) };
        let mut random = Random::about(&[2]);
        let mut areas = Vec::new();
        for _ in 0..500 {
            let Region { x, y } = crop.region((200, 100), &mut random);
            assert!(x.end <= 200 && y.end <= 100);
            let (area, ratio) =
                (f64::from(x.len() as u32 * y.len() as u32) / 20_000.0, x.len() as f64 / y.len() as f64);
            assert!((0.19..0.61).contains(&area) && (0.48..2.05).contains(&ratio), "{area} {ratio}");
            areas.push(area);
        }
        assert!(areas.iter().copied().fold(1.0, f64::min) < 0.25 && areas.iter().copied().fold(0.0, f64::max) > 0.55);
    }

    #[test]
    fn a_part_that_cannot_be_is_the_middle() {
        let crop = RandomResizedCrop { scale: (1.0, 1.0), ratio: (1.0, 1.0) };
        assert_eq!(crop.region((300, 100), &mut Random::about(&[])), Region { x: 100..200, y: 0..100 });
        assert_eq!(crop.region((100, 300), &mut Random::about(&[])), Region { x: 0..100, y: 100..200 });
    }
}
