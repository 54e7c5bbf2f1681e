//! Resizing equal to Pillow's, bit for bit, computing only the part of the result that a crop keeps.
//!
//! Two passes of fixed-point convolution, each rounded to 8 bits, in the order of the chosen Pillow version; the
//! separate rules for palettes, alpha and 16-bit grey are those of Pillow's `Image.resize`.

use std::ops::Range;

use crate::coefficients::Coefficients;
use crate::convolve::Plane;
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
pub fn resize(
    picture: &Picture,
    (width, height): (u32, u32),
    region: &Region,
    filter: Filter,
    order: PassOrder,
) -> Picture {
    assert!(width > 0 && height > 0, "a size of {width}x{height} pixels");
    assert!(region.x.end <= width && region.y.end <= height, "{region:?} is outside {width}x{height}");
    if (width, height) == (picture.width, picture.height) {
        return crop(picture, region);
    }
    let mode = picture.mode;
    if filter == Filter::Nearest || matches!(mode, PixelMode::Bilevel | PixelMode::Palette) {
        return nearest(picture, (width, height), region);
    }
    let axes = Axes::new(picture, (width, height), region, filter, order);
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

/// Both axes of a resize.
struct Axes {
    width: usize,
    horizontal: Option<Coefficients>,
    vertical: Option<Coefficients>,
    columns: Range<usize>,
    rows: Range<usize>,
    vertical_first: bool,
}

impl Axes {
    fn new(picture: &Picture, size: (u32, u32), region: &Region, filter: Filter, order: PassOrder) -> Self {
        let (columns, rows) = (region.columns(), region.rows());
        let axis = |from: u32, to: u32, range: &Range<usize>| {
            // A pass that keeps the size is skipped.
            (from != to).then(|| Coefficients::new(filter, from, to, range.clone()))
        };
        Self {
            width: picture.width as usize,
            horizontal: axis(picture.width, size.0, &columns),
            vertical: axis(picture.height, size.1, &rows),
            columns,
            rows,
            vertical_first: vertical_first((picture.width, picture.height), size, order),
        }
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
        let plane = Plane { data, stride, origin: (0, 0), columns: columns.clone(), rows: rows.clone() };
        let (horizontal, vertical) = (self.horizontal.as_ref(), self.vertical.as_ref());
        if self.vertical_first {
            let data = &plane.vertical::<C>(vertical);
            let stride = columns.len() * C;
            Plane { data, stride, origin: (columns.start, 0), columns, rows: 0..self.rows.len() }
                .horizontal::<C>(horizontal)
        } else {
            let data = &plane.horizontal::<C>(horizontal);
            let columns = 0..self.columns.len();
            Plane { data, stride: columns.len() * C, origin: (0, rows.start), columns, rows }.vertical::<C>(vertical)
        }
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
