//! Other ways of drawing the same thing: edges alone, few flat colours, other grounds.

use serde::{Deserialize, Serialize};

use super::canvas::{Canvas, byte, luma};
use super::{probability, range};
use crate::data::random::Random;
use crate::error::{Error, Result};

/// A drawing of the edges: dark lines on white where brightness changes (Sobel's operator).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LineArt {
    /// How often.
    pub probability: f32,
    /// How dark lines are: the factor on the change of brightness a pixel.
    pub strength: f32,
}

impl Default for LineArt {
    fn default() -> Self {
        Self { probability: 1.0, strength: 2.0 }
    }
}

impl LineArt {
    pub(super) fn check(&self) -> Result<()> {
        probability("line_art.probability", self.probability)?;
        range("line_art.strength", self.strength, 0.0, 100.0)
    }

    /// Whether it was drawn; then the picture is opaque.
    pub(super) fn apply(&self, canvas: &mut Canvas, random: &mut Random) -> bool {
        if !random.chance(self.probability) {
            return false;
        }
        canvas.lay_over_with(|_, _| [255; 3]);
        draw_edges(canvas, self.strength);
        true
    }
}

pub(super) fn draw_edges(canvas: &mut Canvas, strength: f32) {
    let (width, height) = (canvas.width, canvas.height);
    let grey: Vec<f32> = canvas.pixels.iter().map(|pixel| luma([pixel[0], pixel[1], pixel[2]]).into()).collect();
    for row in 0..height {
        let rows = [row.saturating_sub(1), row, (row + 1).min(height - 1)].map(|row| &grey[row * width..][..width]);
        for column in 0..width {
            let (left, right) = (column.saturating_sub(1), (column + 1).min(width - 1));
            let across = |row: &[f32]| row[right] - row[left];
            let along = |row: &[f32]| row[left] + 2.0 * row[column] + row[right];
            // An eighth makes it the change of brightness a pixel.
            let horizontal = (across(rows[0]) + 2.0 * across(rows[1]) + across(rows[2])) / 8.0;
            let vertical = (along(rows[2]) - along(rows[0])) / 8.0;
            let line = byte(255.0 - strength * (horizontal * horizontal + vertical * vertical).sqrt());
            canvas.pixels[row * width + column] = [line, line, line, 255];
        }
    }
}

/// Few flat colours: each pixel takes the mean colour of its group of like colours (k-means).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlatFill {
    /// How often.
    pub probability: f32,
    /// Bounds of the number of colours, 1 to 64.
    pub colours: (u8, u8),
}

impl Default for FlatFill {
    fn default() -> Self {
        Self { probability: 1.0, colours: (3, 8) }
    }
}

impl FlatFill {
    pub(super) fn check(&self) -> Result<()> {
        probability("flat_fill.probability", self.probability)?;
        let (least, most) = self.colours;
        if (1..=64).contains(&least) && (least..=64).contains(&most) {
            return Ok(());
        }
        Err(Error::Invalid(format!("augmentation: flat_fill.colours goes from {least} to {most}, expected 1 to 64")))
    }

    pub(super) fn apply(&self, canvas: &mut Canvas, random: &mut Random) {
        if random.chance(self.probability) {
            let (least, most) = self.colours;
            let count = usize::from(least) + random.below(usize::from(most - least) + 1);
            flatten(canvas, count, random);
        }
    }
}

/// Rounds of grouping; more of them hardly change a picture.
const ROUNDS: usize = 4;

pub(super) fn flatten(canvas: &mut Canvas, count: usize, random: &mut Random) {
    let colour = |pixel: &[u8; 4]| [pixel[0], pixel[1], pixel[2]].map(f32::from);
    let mut centres: Vec<[f32; 3]> = Vec::with_capacity(count);
    centres.push(colour(&canvas.pixels[random.below(canvas.pixels.len())]));
    // The pixel that is farthest from all centres is the next one: small parts in colours of their own aren't lost.
    let mut nearest = vec![f32::INFINITY; canvas.pixels.len()];
    while centres.len() < count {
        let Some(last) = centres.last().copied() else { break };
        for (distance, pixel) in nearest.iter_mut().zip(&canvas.pixels) {
            *distance = distance.min(apart(colour(pixel), last));
        }
        let Some(farthest) = (0..nearest.len()).max_by(|a, b| nearest[*a].total_cmp(&nearest[*b])) else { break };
        if nearest[farthest] == 0.0 {
            break;
        }
        centres.push(colour(&canvas.pixels[farthest]));
    }
    for _ in 0..ROUNDS {
        let mut sums = vec![([0f32; 3], 0f32); centres.len()];
        for pixel in &canvas.pixels {
            let (sum, number) = &mut sums[closest(&centres, colour(pixel))];
            sum.iter_mut().zip(colour(pixel)).for_each(|(sum, value)| *sum += value);
            *number += 1.0;
        }
        for (centre, (sum, number)) in centres.iter_mut().zip(sums) {
            if number > 0.0 {
                *centre = sum.map(|sum| sum / number);
            }
        }
    }
    for pixel in &mut canvas.pixels {
        let [red, green, blue] = centres[closest(&centres, colour(pixel))].map(byte);
        *pixel = [red, green, blue, pixel[3]];
    }
}

fn apart(a: [f32; 3], b: [f32; 3]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

fn closest(centres: &[[f32; 3]], colour: [f32; 3]) -> usize {
    let mut best = (0, f32::INFINITY);
    for (place, centre) in centres.iter().enumerate() {
        let distance = apart(*centre, colour);
        if distance < best.1 {
            best = (place, distance);
        }
    }
    best.0
}

/// What shows where a picture is transparent: each kind is drawn as often as its weight says, in comparison with the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Background {
    /// White.
    pub white: f32,
    /// One random colour.
    pub plain: f32,
    /// From one random colour to another in a random direction.
    pub gradient: f32,
    /// Soft patches of random colours.
    pub patches: f32,
}

impl Default for Background {
    fn default() -> Self {
        Self { white: 1.0, plain: 1.0, gradient: 1.0, patches: 1.0 }
    }
}

/// Patches a side.
const PATCHES: usize = 4;

impl Background {
    pub(super) fn check(&self) -> Result<()> {
        let Self { white, plain, gradient, patches } = self;
        let weights = [("white", white), ("plain", plain), ("gradient", gradient), ("patches", patches)];
        for (name, weight) in weights {
            range(&format!("background.{name}"), *weight, 0.0, 1e6)?;
        }
        if weights.iter().all(|(_, weight)| **weight == 0.0) {
            return Err(Error::Invalid("augmentation: background has no kind whose weight is above 0".into()));
        }
        Ok(())
    }

    /// Makes the picture opaque.
    pub(super) fn apply(&self, canvas: &mut Canvas, random: &mut Random) {
        let kinds = [self.white, self.plain, self.gradient, self.patches];
        let mut left = random.unit() * kinds.iter().sum::<f32>();
        let drawn = kinds.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        match drawn {
            Some(1) => {
                let ground = colour(random);
                canvas.lay_over_with(|_, _| ground);
            }
            Some(2) => gradient(canvas, random),
            Some(3) => patches(canvas, random),
            Some(_) | None => canvas.lay_over_with(|_, _| [255; 3]),
        }
    }
}

fn colour(random: &mut Random) -> [u8; 3] {
    let [red, green, blue, ..] = random.next_u64().to_le_bytes();
    [red, green, blue]
}

fn mixed(from: [f32; 3], to: [f32; 3], share: f32) -> [f32; 3] {
    std::array::from_fn(|channel| from[channel] + (to[channel] - from[channel]) * share)
}

fn gradient(canvas: &mut Canvas, random: &mut Random) {
    let (from, to) = (colour(random).map(f32::from), colour(random).map(f32::from));
    let (sin, cos) = random.between(0.0, std::f32::consts::TAU).sin_cos();
    let (width, height) = (canvas.width as f32, canvas.height as f32);
    canvas.lay_over_with(|column, row| {
        let (x, y) = ((column as f32 + 0.5) / width - 0.5, (row as f32 + 0.5) / height - 0.5);
        // Half the diagonal of the unit square is 0.71.
        mixed(from, to, ((x * cos + y * sin) / 1.42 + 0.5).clamp(0.0, 1.0)).map(byte)
    });
}

fn patches(canvas: &mut Canvas, random: &mut Random) {
    let colours: Vec<[f32; 3]> = (0..PATCHES * PATCHES).map(|_| colour(random).map(f32::from)).collect();
    let place = |at: usize, length: usize| {
        let at = (at as f32 + 0.5) / length as f32 * (PATCHES - 1) as f32;
        let low = (at as usize).min(PATCHES - 2);
        (low, at - low as f32)
    };
    let (width, height) = (canvas.width, canvas.height);
    canvas.lay_over_with(|column, row| {
        let ((left, x), (top, y)) = (place(column, width), place(row, height));
        let line = |row: usize| mixed(colours[row * PATCHES + left], colours[row * PATCHES + left + 1], x);
        mixed(line(top), line(top + 1), y).map(byte)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stand_where_brightness_changes() {
        let pixel = |column: usize| if column < 4 { [0, 0, 0, 255] } else { [80, 80, 80, 255] };
        let mut canvas = Canvas { width: 8, height: 3, pixels: (0..24).map(|at| pixel(at % 8)).collect() };
        draw_edges(&mut canvas, 2.0);
        // The change is 40 a pixel on both sides of the edge.
        let row: Vec<u8> = canvas.pixels[8..16].iter().map(|pixel| pixel[0]).collect();
        assert_eq!(row, [255, 255, 255, 175, 175, 255, 255, 255]);
        let mut plain = Canvas { width: 3, height: 3, pixels: vec![[9, 9, 9, 255]; 9] };
        draw_edges(&mut plain, 50.0);
        assert_eq!(plain.pixels, [[255; 4]; 9]);
    }

    #[test]
    fn the_outline_of_a_transparent_picture_is_drawn() {
        let mut canvas = Canvas { width: 5, height: 5, pixels: vec![[0, 0, 0, 0]; 25] };
        canvas.pixels[12] = [0, 0, 0, 255];
        assert!(LineArt::default().apply(&mut canvas, &mut Random::about(&[])));
        assert!(canvas.pixels[11][0] < 255 && canvas.pixels[0] == [255; 4]);
        assert!(canvas.pixels.iter().all(|pixel| pixel[3] == 255));
        assert!(!LineArt { probability: 0.0, ..LineArt::default() }.apply(&mut canvas, &mut Random::about(&[])));
    }

    #[test]
    fn like_colours_become_their_mean() {
        let pixels = [[10, 0, 0], [20, 0, 0], [0, 200, 0], [0, 220, 0], [0, 0, 250]];
        let pixels = pixels.map(|[red, green, blue]| [red, green, blue, 255]).to_vec();
        for seed in 0..20 {
            let mut canvas = Canvas { width: 5, height: 1, pixels: pixels.clone() };
            flatten(&mut canvas, 3, &mut Random::about(&[seed]));
            let found: Vec<[u8; 4]> = canvas.pixels;
            let expected = [[15, 0, 0, 255], [15, 0, 0, 255], [0, 210, 0, 255], [0, 210, 0, 255], [0, 0, 250, 255]];
            assert_eq!(found, expected, "{seed}");
        }
    }

    #[test]
    fn enough_colours_change_nothing() {
        let pixels: Vec<[u8; 4]> = (0..6).map(|at| [at * 40, 0, 100, 255]).collect();
        let mut canvas = Canvas { width: 6, height: 1, pixels: pixels.clone() };
        flatten(&mut canvas, 6, &mut Random::about(&[1]));
        assert_eq!(canvas.pixels, pixels);
        flatten(&mut canvas, 64, &mut Random::about(&[1]));
        assert_eq!(canvas.pixels, pixels);
    }

    #[test]
    fn grounds_show_only_where_the_picture_is_transparent() {
        let only = |place: usize| {
            let weights: [f32; 4] = std::array::from_fn(|at| f32::from(u8::from(at == place)));
            Background { white: weights[0], plain: weights[1], gradient: weights[2], patches: weights[3] }
        };
        let pixels: Vec<[u8; 4]> = (0..64).map(|at| if at < 32 { [1, 2, 3, 255] } else { [0; 4] }).collect();
        for kind in 0..4 {
            let background = only(kind);
            background.check().unwrap();
            let mut canvas = Canvas { width: 8, height: 8, pixels: pixels.clone() };
            background.apply(&mut canvas, &mut Random::about(&[kind as u64]));
            assert!(canvas.pixels[..32].iter().all(|pixel| *pixel == [1, 2, 3, 255]));
            assert!(canvas.pixels.iter().all(|pixel| pixel[3] == 255));
            let grounds: std::collections::BTreeSet<[u8; 4]> = canvas.pixels[32..].iter().copied().collect();
            match kind {
                0 => assert_eq!(grounds, [[255; 4]].into()),
                1 => assert_eq!(grounds.len(), 1),
                _ => assert!(grounds.len() > 8, "{grounds:?}"),
            }
        }
        assert!(Background { white: 0.0, plain: 0.0, gradient: 0.0, patches: 0.0 }.check().is_err());
    }
}
