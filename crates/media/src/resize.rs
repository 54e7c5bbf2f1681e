//! Resizing equal to Pillow's, bit for bit, computing only the part of the result that a crop keeps.
//!
//! Two passes of fixed-point convolution, each rounded to 8 bits, in the order of the chosen Pillow version; the
//! separate rules for palettes, alpha and 16-bit grey are those of Pillow's `Image.resize`.

use std::mem::swap;
use std::ops::Range;

use crate::coefficients::Coefficients;
use crate::convolve::Plane;
use crate::orientation::Turn;
use crate::picture::multiply_255;
use crate::{Filter, PassOrder, Picture, PixelMode};

/// A part of a picture in pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Columns.
    pub x: Range<u32>,
    /// Rows.
    pub y: Range<u32>,
}

impl Region {
    /// The whole of a picture of `width` x `height`.
    pub fn whole(width: u32, height: u32) -> Self {
        Self { x: 0..width, y: 0..height }
    }

    fn columns(&self) -> Range<usize> {
        self.x.start as usize..self.x.end as usize
    }

    fn rows(&self) -> Range<usize> {
        self.y.start as usize..self.y.end as usize
    }
}

/// Resizes `picture` to `width` x `height` and returns the part `region` of the result.
///
/// # Panics
/// If a side is 0 or `region` is not inside the result.
pub fn resize(picture: &Picture, size: (u32, u32), region: &Region, filter: Filter, order: PassOrder) -> Picture {
    Source { picture, turn: Turn::default(), reduction: 1, full: (picture.width, picture.height) }
        .resize(size, region, filter, order)
}

/// Stored pixels, and what they are pixels of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    /// The pixels as stored.
    pub(crate) picture: &'a Picture,
    /// How they are to be turned.
    pub(crate) turn: Turn,
    /// Each stored pixel stands for a square of so many pixels a side.
    pub(crate) reduction: u32,
    /// Width and height of the file's picture, as stored.
    pub(crate) full: (u32, u32),
}

impl Source<'_> {
    /// Turns the pixels upright, resizes them to `width` x `height`, and returns the part `region` of the result. The
    /// result is bit for bit that of turning first, but only the result is turned.
    ///
    /// # Panics
    /// If a side is 0 or `region` is not inside the result.
    pub(crate) fn resize(
        self,
        (width, height): (u32, u32),
        region: &Region,
        filter: Filter,
        order: PassOrder,
    ) -> Picture {
        assert!(width > 0 && height > 0, "a size of {width}x{height} pixels");
        assert!(region.x.end <= width && region.y.end <= height, "{region:?} is outside {width}x{height}");
        let (picture, mode) = (self.picture, self.picture.mode);
        let same_size = (width, height) == self.turn.sides((picture.width, picture.height));
        let plain = filter == Filter::Nearest || matches!(mode, PixelMode::Bilevel | PixelMode::Palette);
        if !self.turn.is_none() && (same_size || plain || mode == PixelMode::Grey16) {
            let picture = &self.turn.apply(picture);
            let full = self.turn.sides(self.full);
            return Source { picture, turn: Turn::default(), full, ..self }.resize(
                (width, height),
                region,
                filter,
                order,
            );
        }
        if same_size {
            return crop(picture, region);
        }
        if plain {
            return nearest(picture, (width, height), region);
        }
        let axes = Axes::new(&self, (width, height), region, filter, order);
        let data = match mode {
            PixelMode::Bilevel | PixelMode::Palette | PixelMode::Grey => axes.convolve::<1>(&picture.data),
            PixelMode::Rgb => axes.convolve::<3>(&picture.data),
            PixelMode::Cmyk => axes.convolve::<4>(&picture.data),
            PixelMode::GreyAlpha => unpremultiply::<2>(axes.convolve::<2>(&premultiply::<2>(&picture.data))),
            PixelMode::Rgba => unpremultiply::<4>(axes.convolve::<4>(&premultiply::<4>(&picture.data))),
            PixelMode::Grey16 => axes.convolve_16(&picture.data),
        };
        picture.with_pixels(region.x.len() as u32, region.y.len() as u32, data)
    }
}

fn crop(picture: &Picture, region: &Region) -> Picture {
    if *region == Region::whole(picture.width, picture.height) {
        return picture.clone();
    }
    let size = picture.mode.bytes();
    let stride = picture.width as usize * size;
    let (left, right) = (region.x.start as usize * size, region.x.end as usize * size);
    let rows = picture.data.chunks_exact(stride).take(region.y.end as usize).skip(region.y.start as usize);
    let data = rows.flat_map(|row| &row[left..right]).copied().collect();
    picture.with_pixels(region.x.len() as u32, region.y.len() as u32, data)
}

/// Source position of each output position. `None` outside, which Pillow leaves at 0.
///
/// Pillow adds up the step, rounding errors included, except for 16-bit grey, which takes a more general path.
fn nearest_positions(from: u32, to: u32, range: &Range<u32>, mode: PixelMode) -> Vec<Option<usize>> {
    let step = f64::from(from) / f64::from(to);
    let inside = |at: f64| Some(at as usize).filter(|position| *position < from as usize);
    if mode == PixelMode::Grey16 {
        return range.clone().map(|index| inside(step * (f64::from(index) + 0.5))).collect();
    }
    let mut at = step * 0.5;
    let mut positions = Vec::with_capacity(range.len());
    for index in 0..range.end {
        if index >= range.start {
            positions.push(inside(at));
        }
        at += step;
    }
    positions
}

fn nearest(picture: &Picture, (width, height): (u32, u32), region: &Region) -> Picture {
    let columns = nearest_positions(picture.width, width, &region.x, picture.mode);
    let rows = nearest_positions(picture.height, height, &region.y, picture.mode);
    let size = picture.mode.bytes();
    let stride = picture.width as usize * size;
    let mut data = vec![0; rows.len() * columns.len() * size];
    for (target, row) in data.chunks_exact_mut(columns.len() * size).zip(rows) {
        let Some(row) = row else { continue };
        let source = &picture.data[row * stride..(row + 1) * stride];
        for (pixel, column) in target.chunks_exact_mut(size).zip(&columns) {
            if let Some(column) = column {
                pixel.copy_from_slice(&source[column * size..(column + 1) * size]);
            }
        }
    }
    picture.with_pixels(region.x.len() as u32, region.y.len() as u32, data)
}

/// Multiplies the colours by the alpha, which is the last of `C` channels.
fn premultiply<const C: usize>(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    for pixel in data.as_chunks_mut::<C>().0 {
        let alpha = pixel[C - 1];
        for value in &mut pixel[..C - 1] {
            *value = multiply_255(*value, alpha);
        }
    }
    data
}

fn unpremultiply<const C: usize>(mut data: Vec<u8>) -> Vec<u8> {
    for pixel in data.as_chunks_mut::<C>().0 {
        let alpha = u32::from(pixel[C - 1]);
        if alpha == 0 || alpha == 255 {
            continue;
        }
        for value in &mut pixel[..C - 1] {
            *value = (u32::from(*value) * 255 / alpha).min(255) as u8;
        }
    }
    data
}

/// Columns become rows, for pixels of `C` bytes in rows of `width`.
fn swapped<const C: usize>(data: &[u8], width: usize) -> Vec<u8> {
    let (pixels, _) = data.as_chunks::<C>();
    (0..width).flat_map(|column| pixels.iter().skip(column).step_by(width).flatten()).copied().collect()
}

/// Whether the vertical pass comes first. Pillow 13 does it when the height shrinks by more than twice as many pixels
/// as the width; before, only pictures more than 100 times taller than wide took that order.
fn vertical_first((width, height): (u32, u32), (to_width, to_height): (u32, u32), order: PassOrder) -> bool {
    if to_height >= height {
        return false;
    }
    match order {
        PassOrder::Pillow13 => i64::from(height) - i64::from(to_height) > 2 * (i64::from(width) - i64::from(to_width)),
        PassOrder::Pillow12 => u64::from(height) > 100 * u64::from(width),
    }
}

/// Both axes of a resize, in the directions in which pixels are stored.
struct Axes {
    width: usize,
    horizontal: Option<Coefficients>,
    vertical: Option<Coefficients>,
    columns: Range<usize>,
    rows: Range<usize>,
    vertical_first: bool,
    /// Whether rows and columns of the result change places.
    swap: bool,
}

impl Axes {
    fn new(source: &Source<'_>, size: (u32, u32), region: &Region, filter: Filter, order: PassOrder) -> Self {
        let turn = source.turn;
        let from = turn.sides((source.picture.width, source.picture.height));
        let full = turn.sides(source.full);
        let axis = |from: u32, full: u32, to: u32, range: Range<usize>, mirrored: bool| {
            let extent = f64::from(full) / f64::from(source.reduction);
            // The last stored sample may stand for a part of a square; mirrored, it comes first.
            let start = if mirrored { f64::from(from) - extent } else { 0.0 };
            let coefficients = if from != to {
                Coefficients::new(filter, from, start..start + extent, to, range)
            } else if turn.is_none() {
                // A pass that keeps the size is skipped.
                return None;
            } else {
                Coefficients::identity(range)
            };
            Some(if mirrored { coefficients.mirrored(from) } else { coefficients })
        };
        let mut axes = Self {
            width: source.picture.width as usize,
            horizontal: axis(from.0, full.0, size.0, region.columns(), turn.mirror_x),
            vertical: axis(from.1, full.1, size.1, region.rows(), turn.mirror_y),
            columns: region.columns(),
            rows: region.rows(),
            vertical_first: vertical_first(from, size, order),
            swap: turn.swap,
        };
        if turn.swap {
            // The upright picture's horizontal pass runs down the stored columns.
            swap(&mut axes.horizontal, &mut axes.vertical);
            swap(&mut axes.columns, &mut axes.rows);
            axes.vertical_first = !axes.vertical_first;
        }
        axes
    }

    /// Input columns and rows that the region depends on.
    fn needed(&self) -> (Range<usize>, Range<usize>) {
        let columns = self.horizontal.as_ref().map_or(self.columns.clone(), Coefficients::reach);
        let rows = self.vertical.as_ref().map_or(self.rows.clone(), Coefficients::reach);
        (columns, rows)
    }

    fn convolve<const C: usize>(&self, data: &[u8]) -> Vec<u8> {
        let (columns, rows) = self.needed();
        let stride = self.width * C;
        let data = &data[rows.start * stride + columns.start * C..];
        let plane = Plane { data, stride, columns: columns.len(), rows: rows.len() };
        let (horizontal, vertical) = (self.horizontal.as_ref(), self.vertical.as_ref());
        let result = if self.vertical_first {
            let data = &plane.vertical::<C>(vertical);
            Plane { data, stride: columns.len() * C, columns: columns.len(), rows: self.rows.len() }
                .horizontal::<C>(horizontal)
        } else {
            let data = &plane.horizontal::<C>(horizontal);
            let columns = self.columns.len();
            Plane { data, stride: columns * C, columns, rows: rows.len() }.vertical::<C>(vertical)
        };
        if self.swap { swapped::<C>(&result, self.columns.len()) } else { result }
    }

    fn convolve_16(&self, data: &[u8]) -> Vec<u8> {
        let samples: Vec<u16> = data.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
        let height = samples.len() / self.width;
        let (columns, rows) = self.needed();
        let horizontal = |input: &[u16], width: usize, shift: usize, rows: Range<usize>| {
            pass_16(self.horizontal.as_ref(), rows, self.columns.clone(), |row, column| {
                input[row * width + column - shift]
            })
        };
        let result = if self.vertical_first {
            let tall = pass_16(self.vertical.as_ref(), columns.clone(), self.rows.clone(), |column, row| {
                samples[row * self.width + column]
            });
            let tall = transpose(&tall, columns.len());
            horizontal(&tall, columns.len(), columns.start, 0..self.rows.len())
        } else {
            debug_assert!(rows.end <= height);
            let wide = horizontal(&samples, self.width, 0, rows.clone());
            let width = self.columns.len();
            let tall = pass_16(self.vertical.as_ref(), 0..width, self.rows.clone(), |column, row| {
                wide[(row - rows.start) * width + column]
            });
            transpose(&tall, width)
        };
        result.iter().flat_map(|sample| sample.to_le_bytes()).collect()
    }
}

/// One pass over 16-bit grey, accumulated in f64: a line of results for each of `lines`.
fn pass_16(
    coefficients: Option<&Coefficients>,
    lines: Range<usize>,
    keep: Range<usize>,
    sample: impl Fn(usize, usize) -> u16,
) -> Vec<u16> {
    let mut result = Vec::with_capacity(lines.len() * keep.len());
    for line in lines {
        let Some(coefficients) = coefficients else {
            result.extend(keep.clone().map(|position| sample(line, position)));
            continue;
        };
        result.extend(coefficients.windows().map(|(start, weights)| {
            let terms =
                weights.iter().enumerate().map(|(index, weight)| f64::from(sample(line, start + index)) * weight);
            round_16(terms.fold(0.0, |sum, term| sum + term))
        }));
    }
    result
}

/// Rounds half away from zero and clips.
fn round_16(sum: f64) -> u16 {
    // Casts truncate towards zero and saturate.
    (sum + 0.5) as u16
}

/// Lines of `height` samples, one for each of `width` columns, become rows.
fn transpose(columns: &[u16], width: usize) -> Vec<u16> {
    let height = columns.len() / width.max(1);
    (0..height).flat_map(|row| (0..width).map(move |column| columns[column * height + row])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODES: [PixelMode; 8] = [
        PixelMode::Bilevel,
        PixelMode::Palette,
        PixelMode::Grey,
        PixelMode::GreyAlpha,
        PixelMode::Grey16,
        PixelMode::Rgb,
        PixelMode::Rgba,
        PixelMode::Cmyk,
    ];

    fn noise(width: u32, height: u32, mode: PixelMode) -> Picture {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let bytes = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as u8
        });
        Picture::new(width, height, mode, bytes.take((width * height) as usize * mode.bytes()).collect())
    }

    #[test]
    fn each_orientation_turns_the_way_exif_says() {
        // The rows A B C and D E F, as every orientation shows them.
        let picture = Picture::new(3, 2, PixelMode::Grey, b"ABCDEF".to_vec());
        let expected = ["ABCDEF", "CBAFED", "FEDCBA", "DEFABC", "ADBECF", "DAEBFC", "FCEBDA", "CFBEAD"];
        for (orientation, expected) in (1..).zip(expected) {
            let turned = Turn::new(orientation).apply(&picture);
            assert_eq!(String::from_utf8_lossy(&turned.data), expected, "orientation {orientation}");
            assert_eq!((turned.width, turned.height), if orientation < 5 { (3, 2) } else { (2, 3) });
        }
        for odd in [0, 9, 255] {
            assert!(Turn::new(odd).is_none());
        }
    }

    #[test]
    fn turning_the_result_equals_turning_the_picture() {
        let sizes = [(20, 26), (26, 20), (90, 11), (41, 9), (13, 131), (41, 60)];
        for orientation in 1..=8 {
            let turn = Turn::new(orientation);
            for mode in MODES {
                let picture = noise(41, 60, mode);
                let upright = turn.apply(&picture);
                for (number, size) in sizes.into_iter().enumerate() {
                    let region = Region { x: 1..size.0 - 5, y: 2..size.1 - 1 };
                    let filter = [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos, Filter::Nearest][number % 4];
                    for order in [PassOrder::Pillow12, PassOrder::Pillow13] {
                        let source = Source { picture: &picture, turn, reduction: 1, full: (41, 60) };
                        let actual = source.resize(size, &region, filter, order);
                        let expected = resize(&upright, size, &region, filter, order);
                        assert_eq!(actual, expected, "{orientation} {mode:?} {size:?} {filter:?} {order:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_reduced_picture_keeps_the_framing_of_the_full_one() {
        // 403 x 301 pixels of a slope along one stored axis, reduced by 4: the last stored sample stands for 3 pixels or 1.
        let slope = |at: f64, length: f64| (at / length * 255.0).clamp(0.0, 255.0);
        let (full, size) = ((403, 301), (101, 76));
        for along_rows in [true, false] {
            let data = |(width, height): (u32, u32), step: f64| {
                let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
                let value = |(x, y): (u32, u32)| {
                    let (at, length) = if along_rows { (x, 403.0) } else { (y, 301.0) };
                    slope((f64::from(at) + 0.5) * step, length).round() as u8
                };
                pixels.map(value).collect::<Vec<_>>()
            };
            let whole = Picture::new(full.0, full.1, PixelMode::Grey, data(full, 1.0));
            let reduced = Picture::new(size.0, size.1, PixelMode::Grey, data(size, 4.0));
            for orientation in 1..=8 {
                let turn = Turn::new(orientation);
                let to = turn.sides((40, 30));
                let shrink = |picture: &Picture, reduction: u32| {
                    let source = Source { picture, turn, reduction, full };
                    source.resize(to, &Region::whole(to.0, to.1), Filter::Bilinear, PassOrder::Pillow13)
                };
                let (expected, actual) = (shrink(&whole, 1), shrink(&reduced, 4));
                let most = expected.data.iter().zip(&actual.data).map(|(a, b)| a.abs_diff(*b)).max();
                // One reduced sample is 2.5 to 3.4 levels wide.
                assert!(most <= Some(1), "orientation {orientation}, along rows {along_rows}: {most:?}");
            }
        }
    }
}
