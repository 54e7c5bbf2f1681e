//! From the bytes of a file to a model's input.

use std::ops::Range;

use crate::decode::{Decoded, Purpose, decode_for};
use crate::orientation::Turn;
use crate::picture::Picture;
use crate::resize::{Region, Source, resize};
use crate::{
    CenterCrop, ColourOrder, CropRounding, DecodeMode, Error, ImagePrep, OrientationRule, PixelMode, PixelTensor,
    Resize, Result, RgbPixels, orientation, spare,
};

/// Longest side that a picture is resized to; a line of pixels would otherwise become billions of columns.
const MAX_RESIZED_SIDE: u32 = 1 << 28;

/// Rounds half to even and keeps at least one pixel, where the references would fail.
fn round_side(side: f64) -> u32 {
    (side.round_ties_even() as u32).max(1)
}

/// `int(edge * long / short)` in Python: integers multiplied, then divided in f64, then truncated.
fn long_side(edge: u32, long: u32, short: u32) -> u32 {
    ((u64::from(edge) * u64::from(long)) as f64 / f64::from(short)) as u32
}

impl Resize {
    /// Size to which a picture of `width` x `height` is resized, before padding and cropping.
    pub fn target(&self, (width, height): (u32, u32)) -> (u32, u32) {
        let ratios = |to_width: u32, to_height: u32| {
            (f64::from(height) / f64::from(to_height), f64::from(width) / f64::from(to_width))
        };
        let scaled = |ratio: f64| (round_side(f64::from(width) / ratio), round_side(f64::from(height) / ratio));
        match *self {
            Self::None => (width, height),
            Self::ShortestEdge { edge } if width <= height => (edge, long_side(edge, height, width)),
            Self::ShortestEdge { edge } => (long_side(edge, width, height), edge),
            Self::Squash { width, height } => (width, height),
            Self::Cover { width, height } => {
                let (down, across) = ratios(width, height);
                scaled(down.min(across))
            }
            Self::Longest { width, height, .. } => {
                let (down, across) = ratios(width, height);
                scaled(down.max(across))
            }
        }
    }
}

/// Position of a crop of `to` pixels on an axis of `from`; negative where the picture is smaller and gets padded.
fn crop_offset(from: u32, to: u32, rounding: CropRounding) -> i64 {
    let margin = i64::from(from) - i64::from(to);
    match rounding {
        // Also where the margin is negative: more padding goes to the top and left.
        CropRounding::Floor => margin.div_euclid(2),
        // torchvision pads the smaller half on the top and left.
        CropRounding::HalfEven if margin < 0 => -(-margin / 2),
        CropRounding::HalfEven => (margin as f64 / 2.0).round_ties_even() as i64,
    }
}

/// A window onto a picture, which may reach outside it.
#[derive(Debug, Clone, Copy)]
struct Window {
    x: i64,
    y: i64,
    width: u32,
    height: u32,
    /// Value of every channel outside the picture.
    fill: u8,
}

impl Window {
    fn centre((width, height): (u32, u32), crop: &CenterCrop, fill: u8) -> Self {
        Self {
            x: crop_offset(width, crop.width, crop.rounding),
            y: crop_offset(height, crop.height, crop.rounding),
            width: crop.width,
            height: crop.height,
            fill,
        }
    }

    /// Part of a picture of `width` x `height` that shows in the window.
    fn visible(&self, (width, height): (u32, u32)) -> Region {
        let part = |offset: i64, length: u32, limit: u32| -> Range<u32> {
            let start = offset.clamp(0, limit.into());
            let end = (offset + i64::from(length)).clamp(start, limit.into());
            start as u32..end as u32
        };
        Region { x: part(self.x, self.width, width), y: part(self.y, self.height, height) }
    }

    /// Puts the visible part where it belongs in the window and fills the rest.
    fn frame(&self, visible: Picture) -> Picture {
        if (visible.width, visible.height) == (self.width, self.height) {
            return visible;
        }
        let size = visible.mode.bytes();
        let stride = self.width as usize * size;
        let fill = if visible.mode == PixelMode::Bilevel && self.fill != 0 { 255 } else { self.fill };
        let mut data = vec![fill; stride * self.height as usize];
        if visible.mode == PixelMode::Grey16 {
            data.as_chunks_mut::<2>().0.iter_mut().for_each(|[_, high]| *high = 0);
        }
        let left = usize::try_from(-self.x).unwrap_or(0) * size;
        let top = usize::try_from(-self.y).unwrap_or(0);
        let length = visible.width as usize * size;
        if length > 0 {
            for (row, source) in data.chunks_exact_mut(stride).skip(top).zip(visible.data.chunks_exact(length)) {
                row[left..left + length].copy_from_slice(source);
            }
        }
        visible.with_pixels(self.width, self.height, data)
    }
}

/// A decoded file on its way to a model's input, made by [`ImagePrep::open`] for [`ImagePrep::finish`].
pub struct Opened {
    decoded: Decoded,
    turn: Turn,
}

impl ImagePrep {
    /// Decodes, resizes and crops a file: the bytes a model's input is computed from.
    ///
    /// # Errors
    /// As [`decode`](crate::decode); [`Error::TooLarge`] too if the resized picture would be over the limits and isn't
    /// cropped.
    pub fn apply(&self, bytes: &[u8]) -> Result<RgbPixels> {
        let Opened { decoded, turn } = self.open(bytes)?;
        self.apply_to_decoded(decoded, turn)
    }

    /// The first half of [`Self::tensor`]: decodes a file. For those who want to know how long each half takes.
    ///
    /// # Errors
    /// As [`decode`](crate::decode).
    pub fn open(&self, bytes: &[u8]) -> Result<Opened> {
        let purpose = Purpose { resize: self.resize, orientation: self.orientation };
        let purpose = match self.decode {
            DecodeMode::Exact => None,
            DecodeMode::Fast => Some(&purpose),
        };
        let decoded = decode_for(bytes, &self.limits, purpose)?;
        let turn = match self.orientation {
            OrientationRule::Ignore => Turn::default(),
            OrientationRule::Exif => Turn::new(orientation(bytes)?),
        };
        Ok(Opened { decoded, turn })
    }

    /// The second half of [`Self::tensor`]: resizes, crops, rescales and normalises.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the resized picture would be over the limits and isn't cropped.
    pub fn finish(&self, opened: Opened) -> Result<PixelTensor> {
        Ok(self.normalise(&self.apply_to_decoded(opened.decoded, opened.turn)?))
    }

    /// [`Self::apply`] for a picture that is already decoded and upright.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the resized picture would be over the limits and isn't cropped.
    pub fn apply_to(&self, picture: Picture) -> Result<RgbPixels> {
        self.apply_to_decoded(Decoded::whole(picture), Turn::default())
    }

    fn apply_to_decoded(&self, decoded: Decoded, turn: Turn) -> Result<RgbPixels> {
        let Decoded { picture, reduction, full } = decoded;
        let convert = |picture: &Picture| picture.to_rgb_with(self.alpha);
        let picture = match self.colour_order {
            ColourOrder::BeforeResize => picture.into_rgb(convert),
            ColourOrder::AfterResize => picture,
        };
        let shaped = self.shape(&Source { picture: &picture, turn, reduction, full })?;
        spare::give_back(picture.data);
        let Picture { width, height, data, .. } = shaped.into_rgb(convert);
        Ok(RgbPixels { width, height, data })
    }

    /// Turns upright, resizes, pads and crops.
    fn shape(&self, source: &Source<'_>) -> Result<Picture> {
        let size = self.resize.target(source.turn.sides(source.full));
        let longest = size.0.max(size.1);
        if longest > MAX_RESIZED_SIDE {
            let what = "a side in pixels of the resized picture".to_owned();
            return Err(Error::TooLarge { what, found: longest.into(), limit: MAX_RESIZED_SIDE.into() });
        }
        let part = |region: &Region| source.resize(size, region, self.filter, self.pass_order);
        if let Resize::Longest { width, height, fill } = self.resize {
            // OpenCLIP's padding: the smaller half on the top and left.
            let canvas = CenterCrop { width, height, rounding: CropRounding::HalfEven };
            let window = Window::centre(size, &canvas, fill);
            let padded = window.frame(part(&window.visible(size)));
            let Some(crop) = &self.crop else {
                return Ok(padded);
            };
            let window = Window::centre((width, height), crop, 0);
            let visible = window.visible((width, height));
            let cropped = resize(&padded, (width, height), &visible, self.filter, self.pass_order);
            return Ok(window.frame(cropped));
        }
        match &self.crop {
            Some(crop) => {
                let window = Window::centre(size, crop, 0);
                Ok(window.frame(part(&window.visible(size))))
            }
            None => {
                let pixels = u64::from(size.0) * u64::from(size.1);
                if pixels > self.limits.max_pixels {
                    let what = format!("a resized picture of {}x{} pixels: the pixel count", size.0, size.1);
                    return Err(Error::TooLarge { what, found: pixels, limit: self.limits.max_pixels });
                }
                Ok(part(&Region::whole(size.0, size.1)))
            }
        }
    }

    /// Decodes, resizes, crops, rescales and normalises a file: planes of red, green and blue.
    ///
    /// Bytes are multiplied by `rescale` in f64 and rounded to f32; mean and deviation are applied in f32, as
    /// transformers' and OpenCLIP's image processors do.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn tensor(&self, bytes: &[u8]) -> Result<PixelTensor> {
        self.finish(self.open(bytes)?)
    }

    /// Rescales and normalises pixels.
    pub fn normalise(&self, pixels: &RgbPixels) -> PixelTensor {
        let tables = [0, 1, 2].map(|channel| self.table(channel));
        let mut data = Vec::with_capacity(pixels.data.len());
        for (channel, table) in tables.iter().enumerate() {
            data.extend(pixels.data.iter().skip(channel).step_by(3).map(|value| table[usize::from(*value)]));
        }
        PixelTensor { width: pixels.width, height: pixels.height, data }
    }

    /// The number that each byte of a channel becomes.
    fn table(&self, channel: usize) -> [f32; 256] {
        std::array::from_fn(|byte| {
            let value = match self.rescale {
                Some(factor) => (byte as f64 * factor) as f32,
                None => byte as f32,
            };
            match &self.normalise {
                Some((mean, deviation)) => (value - mean[channel]) / deviation[channel],
                None => value,
            }
        })
    }
}
