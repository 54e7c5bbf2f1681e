//! The picture while it is augmented: RGBA at the model's size.

use crossmodal_media::{
    AlphaRule, Filter, ImagePrep, PassOrder, Picture, PixelMode, Region, Resize, RgbPixels, resize,
};

use crate::error::{Error, Result};

/// RGBA pixels in rows from the top, colours not premultiplied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canvas {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// `height * width` pixels.
    pub pixels: Vec<[u8; 4]>,
}

/// How a picture is brought to the model's size where no crop is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fit {
    /// Its middle, this share of what covers the whole at the model's aspect ratio.
    Cover(f64),
    /// All of it, whatever the aspect ratio.
    Squash,
    /// All of it, with transparent margins.
    Within,
}

/// How a picture is brought to the model's size.
#[derive(Debug, Clone, PartialEq)]
pub struct Framing {
    width: u32,
    height: u32,
    fit: Fit,
    filter: Filter,
    order: PassOrder,
}

impl Framing {
    /// As a model's preparation does it, to within a pixel: resizing and cropping become one step.
    ///
    /// # Errors
    /// A preparation that doesn't lead to a fixed size.
    pub fn of(prep: &ImagePrep) -> Result<Self> {
        let crop = prep.crop.map(|crop| (crop.width, crop.height));
        let share =
            |edge: u32| crop.map_or(1.0, |(width, height)| f64::from(width.min(height)) / f64::from(edge)).min(1.0);
        let (fit, size) = match prep.resize {
            Resize::ShortestEdge { edge } => (Fit::Cover(share(edge)), crop),
            Resize::Cover { width, height } => (Fit::Cover(share(width.min(height))), crop),
            Resize::Squash { width, height } => (Fit::Squash, crop.or(Some((width, height)))),
            Resize::Longest { width, height, fill: _ } => (Fit::Within, crop.or(Some((width, height)))),
            Resize::None => (Fit::Cover(1.0), crop),
        };
        let Some((width, height)) = size.filter(|(width, height)| *width > 0 && *height > 0) else {
            let reason = format!(
                "the model's preparation doesn't lead to one size ({:?}), pictures can't be augmented",
                prep.resize
            );
            return Err(Error::Invalid(reason));
        };
        Ok(Self { width, height, fit, filter: prep.filter, order: prep.pass_order })
    }

    /// The middle of the picture at this size, bicubic.
    pub fn cover(width: u32, height: u32) -> Self {
        Self { width, height, fit: Fit::Cover(1.0), filter: Filter::Bicubic, order: PassOrder::default() }
    }

    /// The part of the picture that is shown, and the size that it is brought to.
    fn place(&self, (width, height): (u32, u32)) -> (Region, (u32, u32)) {
        match self.fit {
            Fit::Squash => (Region::whole(width, height), (self.width, self.height)),
            Fit::Within => {
                let ratio = (f64::from(width) / f64::from(self.width)).max(f64::from(height) / f64::from(self.height));
                let side = |side: u32, most: u32| ((f64::from(side) / ratio).round() as u32).clamp(1, most);
                (Region::whole(width, height), (side(width, self.width), side(height, self.height)))
            }
            Fit::Cover(share) => {
                let ratio = (f64::from(width) / f64::from(self.width)).min(f64::from(height) / f64::from(self.height));
                let part = |length: u32, side: u32| {
                    let kept = ((f64::from(side) * ratio * share).round() as u32).clamp(1, length);
                    let start = (length - kept) / 2;
                    start..start + kept
                };
                (Region { x: part(width, self.width), y: part(height, self.height) }, (self.width, self.height))
            }
        }
    }

    /// Takes `region` of the picture, or what this framing takes, and brings it to size.
    pub(super) fn frame(&self, picture: &Picture, region: Option<&Region>) -> Canvas {
        let (own, own_size) = self.place((picture.width, picture.height));
        let (region, size) = region.map_or((&own, own_size), |region| (region, (self.width, self.height)));
        // Without transparency a quarter of the work is spared.
        let picture = if picture.has_transparency() {
            picture.to_rgba()
        } else {
            let RgbPixels { width, height, data } = picture.to_rgb();
            Picture { width, height, mode: PixelMode::Rgb, data, palette: Vec::new(), transparency: None }
        };
        let whole = (picture.width, picture.height);
        let is_whole = *region == Region::whole(whole.0, whole.1);
        let part = if is_whole { picture } else { resize(&picture, whole, region, self.filter, self.order) };
        let part = resize(&part, size, &Region::whole(size.0, size.1), self.filter, self.order);
        Canvas::of(&part).within(self.width as usize, self.height as usize)
    }
}

impl Canvas {
    /// The pixels of an RGB or RGBA picture.
    fn of(picture: &Picture) -> Self {
        let pixels = if picture.mode == PixelMode::Rgba {
            picture.data.as_chunks::<4>().0.to_vec()
        } else {
            picture.data.as_chunks::<3>().0.iter().map(|pixel| [pixel[0], pixel[1], pixel[2], 255]).collect()
        };
        Self { width: picture.width as usize, height: picture.height as usize, pixels }
    }

    /// In the middle of a transparent ground of this size, which isn't smaller.
    fn within(self, width: usize, height: usize) -> Self {
        if (self.width, self.height) == (width, height) {
            return self;
        }
        let (left, top) = ((width - self.width) / 2, (height - self.height) / 2);
        let mut pixels = vec![[0; 4]; width * height];
        for (row, source) in self.pixels.chunks_exact(self.width).enumerate() {
            let start = (top + row) * width + left;
            pixels[start..start + self.width].copy_from_slice(source);
        }
        Self { width, height, pixels }
    }

    /// Exchanges left and right.
    pub fn mirror(&mut self) {
        let width = self.width;
        self.pixels.chunks_exact_mut(width).for_each(<[[u8; 4]]>::reverse);
    }

    /// Makes the picture opaque by a model's rule.
    pub fn lay_over(&mut self, alpha: AlphaRule) {
        match alpha {
            AlphaRule::Drop => self.pixels.iter_mut().for_each(|pixel| pixel[3] = 255),
            AlphaRule::OverWhite | AlphaRule::KeyOverWhite => self.lay_over_with(|_, _| [255; 3]),
        }
    }

    /// Makes the picture opaque over a ground whose colour depends on column and row.
    pub(super) fn lay_over_with(&mut self, ground: impl Fn(usize, usize) -> [u8; 3]) {
        for (row, pixels) in self.pixels.chunks_exact_mut(self.width).enumerate() {
            for (column, pixel) in pixels.iter_mut().enumerate().filter(|(_, pixel)| pixel[3] != 255) {
                let below = ground(column, row);
                let alpha = u32::from(pixel[3]);
                for (value, below) in pixel.iter_mut().zip(below) {
                    let sum = u32::from(*value) * alpha + u32::from(below) * (255 - alpha);
                    *value = ((sum + 127) / 255) as u8;
                }
                pixel[3] = 255;
            }
        }
    }

    /// Changes the three colours of every pixel.
    pub(super) fn map(&mut self, change: impl Fn([u8; 3]) -> [u8; 3]) {
        for pixel in &mut self.pixels {
            let [red, green, blue] = change([pixel[0], pixel[1], pixel[2]]);
            *pixel = [red, green, blue, pixel[3]];
        }
    }

    /// Takes the colours away.
    pub fn grey(&mut self) {
        self.map(|colour| [luma(colour); 3]);
    }

    pub(super) fn into_rgb(self) -> RgbPixels {
        let data = self.pixels.iter().flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
        RgbPixels { width: self.width as u32, height: self.height as u32, data }
    }
}

/// Grey of a colour by ITU-R 601, in Pillow's fixed point.
pub(super) fn luma([red, green, blue]: [u8; 3]) -> u8 {
    ((u32::from(red) * 19_595 + u32::from(green) * 38_470 + u32::from(blue) * 7_471 + 0x8000) >> 16) as u8
}

/// A float as a byte, rounded and kept within bounds.
pub(super) fn byte(value: f32) -> u8 {
    // The conversion saturates.
    (value + 0.5) as u8
}

#[cfg(test)]
mod tests {
    use super::super::tests::noise;
    use super::*;
    use crossmodal_media::{CenterCrop, CropRounding};

    #[test]
    fn framing_shows_what_the_model_would() {
        let framing = Framing::cover(32, 32);
        assert_eq!(framing.place((100, 50)), (Region { x: 25..75, y: 0..50 }, (32, 32)));
        let part = Framing { fit: Fit::Cover(0.5), ..framing.clone() };
        assert_eq!(part.place((100, 50)), (Region { x: 37..62, y: 12..37 }, (32, 32)));
        let squashed = Framing { fit: Fit::Squash, ..framing.clone() };
        assert_eq!(squashed.place((100, 50)), (Region::whole(100, 50), (32, 32)));
        let within = Framing { fit: Fit::Within, ..framing };
        assert_eq!(within.place((100, 50)), (Region::whole(100, 50), (32, 16)));
        let canvas = within.frame(&noise(100, 50, PixelMode::Rgb), None);
        let alphas: Vec<u8> = (0..32).map(|row| canvas.pixels[row * 32][3]).collect();
        assert_eq!(alphas, [vec![0; 8], vec![255; 16], vec![0; 8]].concat());
    }

    #[test]
    fn a_square_picture_is_prepared_as_the_model_does() {
        let prep = ImagePrep {
            resize: Resize::ShortestEdge { edge: 32 },
            filter: Filter::Bicubic,
            crop: Some(CenterCrop { width: 32, height: 32, rounding: CropRounding::Floor }),
            ..prep()
        };
        let picture = noise(72, 72, PixelMode::Rgb);
        let ours = Framing::of(&prep).unwrap().frame(&picture, None).into_rgb();
        assert_eq!(ours, prep.apply_to(picture).unwrap());
        let open = ImagePrep { crop: None, ..prep };
        assert!(Framing::of(&open).unwrap_err().to_string().contains("one size"));
    }

    fn prep() -> ImagePrep {
        ImagePrep {
            resize: Resize::None,
            filter: Filter::Bicubic,
            crop: None,
            colour_order: crossmodal_media::ColourOrder::BeforeResize,
            alpha: AlphaRule::Drop,
            orientation: crossmodal_media::OrientationRule::Ignore,
            pass_order: PassOrder::default(),
            decode: crossmodal_media::DecodeMode::Exact,
            rescale: None,
            normalise: None,
            limits: crossmodal_media::DecodeLimits::default(),
        }
    }

    #[test]
    fn transparency_is_laid_over_a_ground() {
        let canvas = Canvas { width: 3, height: 1, pixels: vec![[10, 20, 30, 0], [10, 20, 30, 255], [0, 0, 0, 128]] };
        let laid = |rule: AlphaRule| {
            let mut canvas = canvas.clone();
            canvas.lay_over(rule);
            canvas.pixels
        };
        assert_eq!(laid(AlphaRule::OverWhite), [[255; 4], [10, 20, 30, 255], [127, 127, 127, 255]]);
        assert_eq!(laid(AlphaRule::Drop), [[10, 20, 30, 255], [10, 20, 30, 255], [0, 0, 0, 255]]);
    }

    #[test]
    fn mirroring_twice_changes_nothing() {
        let canvas = Canvas::of(&noise(5, 4, PixelMode::Rgba));
        let mut mirrored = canvas.clone();
        mirrored.mirror();
        assert_eq!(mirrored.pixels[0], canvas.pixels[4]);
        mirrored.mirror();
        assert_eq!(mirrored, canvas);
    }

    #[test]
    fn bytes_saturate() {
        assert_eq!([-3.0, 0.49, 0.5, 254.6, 300.0, f32::NAN].map(byte), [0, 0, 1, 255, 255, 0]);
    }
}
