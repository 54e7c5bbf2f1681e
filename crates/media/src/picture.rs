//! A decoded picture in the terms of Pillow's modes, and its conversions to RGB.
//!
//! The mode matters because OpenCLIP resizes before it converts: palettes and bilevel pictures are then resized
//! nearest, transparent ones premultiplied. Conversions follow Pillow's `convert`, `alpha_composite` and transformers'
//! `convert_to_rgb`.

use crate::RgbPixels;

/// What the bytes of a pixel mean; Pillow's mode names in quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PixelMode {
    /// `1`: one byte, 0 or 255.
    Bilevel,
    /// `L`: one byte of grey.
    Grey,
    /// `LA`: grey and alpha.
    GreyAlpha,
    /// `P`: one byte, an index into the palette.
    Palette,
    /// `I;16`: 16 bits of grey, low byte first.
    Grey16,
    /// `RGB`.
    Rgb,
    /// `RGBA`, colours not premultiplied.
    Rgba,
    /// `CMYK`, 0 means no ink.
    Cmyk,
}

impl PixelMode {
    /// Bytes of one pixel.
    pub fn bytes(self) -> usize {
        match self {
            Self::Bilevel | Self::Grey | Self::Palette => 1,
            Self::GreyAlpha | Self::Grey16 => 2,
            Self::Rgb => 3,
            Self::Rgba | Self::Cmyk => 4,
        }
    }
}

/// Transparency that stands beside the pixels (PNG's tRNS, GIF's transparent index).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transparency {
    /// This level of a bilevel or grey picture is transparent.
    Level(u16),
    /// This colour of an RGB picture is transparent.
    Colour([u16; 3]),
    /// This palette entry is transparent.
    Index(u8),
    /// Alpha of each palette entry; entries past the end are opaque.
    Alphas(Vec<u8>),
}

/// A decoded picture: rows from the top, without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// What the bytes mean.
    pub mode: PixelMode,
    /// `height * width * mode.bytes()` bytes.
    pub data: Vec<u8>,
    /// 256 colours if the mode is [`PixelMode::Palette`], else empty.
    pub palette: Vec<[u8; 3]>,
    /// Transparency beside the pixels.
    pub transparency: Option<Transparency>,
}

/// `value * alpha / 255`, rounded, by Pillow's shifts.
pub(crate) fn multiply_255(value: u8, alpha: u8) -> u8 {
    let product = u32::from(value) * u32::from(alpha) + 128;
    (((product >> 8) + product) >> 8) as u8
}

/// A colour of a given alpha over opaque white, by Pillow's `alpha_composite`: 7 extra bits of precision.
fn channel_over_white(value: u8, alpha: u8) -> u8 {
    const BITS: u32 = 7;
    if alpha == 0 {
        return 255;
    }
    let source = u32::from(alpha) << BITS;
    let sum = u32::from(value) * source + 255 * ((255 << BITS) - source) + (128 << BITS);
    ((((sum >> 8) + sum) >> 8) >> BITS) as u8
}

fn over_white([red, green, blue]: [u8; 3], alpha: u8) -> [u8; 3] {
    [red, green, blue].map(|value| channel_over_white(value, alpha))
}

fn cmyk_to_rgb(cyan: u8, magenta: u8, yellow: u8, black: u8) -> [u8; 3] {
    let light = 255 - black;
    [cyan, magenta, yellow].map(|ink| light - multiply_255(ink, light))
}

/// Pillow clips 16-bit grey instead of scaling it.
fn clip_16(low: u8, high: u8) -> u8 {
    if high == 0 { low } else { 255 }
}

impl Picture {
    /// A picture without palette or transparency.
    pub(crate) fn new(width: u32, height: u32, mode: PixelMode, data: Vec<u8>) -> Self {
        debug_assert_eq!(data.len(), width as usize * height as usize * mode.bytes());
        Self { width, height, mode, data, palette: Vec::new(), transparency: None }
    }

    /// The same kind of picture with other pixels.
    pub(crate) fn with_pixels(&self, width: u32, height: u32, data: Vec<u8>) -> Self {
        Self {
            palette: self.palette.clone(),
            transparency: self.transparency.clone(),
            ..Self::new(width, height, self.mode, data)
        }
    }

    /// RGB with transparency ignored: hidden colours show.
    pub fn to_rgb(&self) -> RgbPixels {
        self.pixels_to_rgb(&self.palette)
    }

    /// RGB with transparency laid over white, as transformers 5 does.
    pub fn to_rgb_over_white(&self) -> RgbPixels {
        match (self.mode, &self.transparency) {
            (PixelMode::GreyAlpha, _) => self.map_pixels(|pixel: [u8; 2]| over_white([pixel[0]; 3], pixel[1])),
            (PixelMode::Rgba, _) => {
                self.map_pixels(|[red, green, blue, alpha]: [u8; 4]| over_white([red, green, blue], alpha))
            }
            (PixelMode::Palette, Some(Transparency::Index(index))) => {
                let mut palette = self.palette.clone();
                palette[usize::from(*index)] = [255; 3];
                self.pixels_to_rgb(&palette)
            }
            (PixelMode::Palette, Some(Transparency::Alphas(alphas))) => {
                let mut palette = self.palette.clone();
                for (colour, alpha) in palette.iter_mut().zip(alphas) {
                    *colour = over_white(*colour, *alpha);
                }
                self.pixels_to_rgb(&palette)
            }
            (_, Some(Transparency::Level(level))) => self.to_rgb().with_white_for([*level as u8; 3]),
            (_, Some(Transparency::Colour(colour))) => self.to_rgb().with_white_for(colour.map(|value| value as u8)),
            _ => self.to_rgb(),
        }
    }

    /// RGB as transformers 5 sees a picture that went through its `load_image`: alpha is dropped, but where a single
    /// transparent level, colour or palette entry was declared, that colour survives as a key and turns white.
    pub fn to_rgb_key_over_white(&self) -> RgbPixels {
        let rgb = self.to_rgb();
        match &self.transparency {
            Some(Transparency::Index(index)) => {
                let colour = self.palette[usize::from(*index)];
                rgb.with_white_for(colour)
            }
            Some(Transparency::Colour(colour)) => rgb.with_white_for(colour.map(|value| value as u8)),
            Some(Transparency::Level(level)) => {
                let level = *level as u8;
                // Pillow converts the key together with 8-bit grey only. Otherwise the bare number is read as a red.
                let key = if self.mode == PixelMode::Grey { [level; 3] } else { [level, 0, 0] };
                rgb.with_white_for(key)
            }
            Some(Transparency::Alphas(_)) | None => rgb,
        }
    }

    /// Whether a pixel can be anything but opaque.
    pub fn has_transparency(&self) -> bool {
        matches!(self.mode, PixelMode::GreyAlpha | PixelMode::Rgba) || self.transparency.is_some()
    }

    /// RGBA, colours not premultiplied: hidden colours stay, a transparent level, colour or palette entry gets alpha 0.
    pub fn to_rgba(&self) -> Self {
        let with_key = |rgb: RgbPixels, key: [u8; 3]| {
            let (pixels, _) = rgb.data.as_chunks::<3>();
            let opaque = |pixel: &[u8; 3]| if *pixel == key { 0 } else { 255 };
            pixels.iter().flat_map(|pixel| [pixel[0], pixel[1], pixel[2], opaque(pixel)]).collect()
        };
        let entry = |alpha: &dyn Fn(u8) -> u8| {
            let colour = |index: &u8| {
                let [red, green, blue] = self.palette[usize::from(*index)];
                [red, green, blue, alpha(*index)]
            };
            self.data.iter().flat_map(colour).collect()
        };
        let data: Vec<u8> = match (self.mode, &self.transparency) {
            (PixelMode::Rgba, _) => self.data.clone(),
            (PixelMode::GreyAlpha, _) => {
                self.data.as_chunks::<2>().0.iter().flat_map(|[grey, alpha]| [*grey, *grey, *grey, *alpha]).collect()
            }
            (PixelMode::Palette, Some(Transparency::Index(index))) => {
                entry(&|other| if other == *index { 0 } else { 255 })
            }
            (PixelMode::Palette, Some(Transparency::Alphas(alphas))) => {
                entry(&|index| alphas.get(usize::from(index)).copied().unwrap_or(255))
            }
            (_, Some(Transparency::Level(level))) => with_key(self.to_rgb(), [*level as u8; 3]),
            (_, Some(Transparency::Colour(colour))) => with_key(self.to_rgb(), colour.map(|value| value as u8)),
            _ => {
                let rgb = self.to_rgb();
                rgb.data.as_chunks::<3>().0.iter().flat_map(|pixel| [pixel[0], pixel[1], pixel[2], 255]).collect()
            }
        };
        Self::new(self.width, self.height, PixelMode::Rgba, data)
    }

    fn pixels_to_rgb(&self, palette: &[[u8; 3]]) -> RgbPixels {
        match self.mode {
            PixelMode::Bilevel | PixelMode::Grey => self.map_pixels(|[grey]: [u8; 1]| [grey; 3]),
            PixelMode::GreyAlpha => self.map_pixels(|[grey, _]: [u8; 2]| [grey; 3]),
            PixelMode::Palette => self.map_pixels(|[index]: [u8; 1]| palette[usize::from(index)]),
            PixelMode::Grey16 => self.map_pixels(|[low, high]: [u8; 2]| [clip_16(low, high); 3]),
            PixelMode::Rgb => RgbPixels { width: self.width, height: self.height, data: self.data.clone() },
            PixelMode::Rgba => self.map_pixels(|[red, green, blue, _]: [u8; 4]| [red, green, blue]),
            PixelMode::Cmyk => self.map_pixels(|[c, m, y, k]: [u8; 4]| cmyk_to_rgb(c, m, y, k)),
        }
    }

    fn map_pixels<const N: usize>(&self, map: impl Fn([u8; N]) -> [u8; 3]) -> RgbPixels {
        let (pixels, _) = self.data.as_chunks::<N>();
        let data = pixels.iter().flat_map(|pixel| map(*pixel)).collect();
        RgbPixels { width: self.width, height: self.height, data }
    }

    /// The pixels as a picture of RGB mode, without a copy where it is one already.
    pub(crate) fn into_rgb(self, convert: impl Fn(&Self) -> RgbPixels) -> Self {
        if self.mode == PixelMode::Rgb && self.transparency.is_none() {
            return self;
        }
        let RgbPixels { width, height, data } = convert(&self);
        Self::new(width, height, PixelMode::Rgb, data)
    }
}

impl RgbPixels {
    fn with_white_for(mut self, key: [u8; 3]) -> Self {
        for pixel in self.data.as_chunks_mut::<3>().0 {
            if *pixel == key {
                *pixel = [255; 3];
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rgba(picture: &Picture) -> Vec<[u8; 4]> {
        let rgba = picture.to_rgba();
        assert_eq!(rgba.mode, PixelMode::Rgba);
        rgba.data.as_chunks::<4>().0.to_vec()
    }

    #[test]
    fn every_kind_of_transparency_becomes_alpha() {
        let of = |mode: PixelMode, data: &[u8], transparency: Option<Transparency>| {
            let width = data.len() / mode.bytes();
            let palette = if mode == PixelMode::Palette { vec![[1, 2, 3], [4, 5, 6], [7, 8, 9]] } else { Vec::new() };
            Picture { palette, transparency, ..Picture::new(width as u32, 1, mode, data.to_vec()) }
        };
        let cases = [
            (of(PixelMode::Rgba, &[1, 2, 3, 4], None), vec![[1, 2, 3, 4]]),
            (of(PixelMode::GreyAlpha, &[9, 8], None), vec![[9, 9, 9, 8]]),
            (of(PixelMode::Palette, &[0, 1], Some(Transparency::Index(1))), vec![[1, 2, 3, 255], [4, 5, 6, 0]]),
            (
                of(PixelMode::Palette, &[0, 1, 2], Some(Transparency::Alphas(vec![7, 9]))),
                vec![[1, 2, 3, 7], [4, 5, 6, 9], [7, 8, 9, 255]],
            ),
            (of(PixelMode::Grey, &[5, 6], Some(Transparency::Level(5))), vec![[5, 5, 5, 0], [6, 6, 6, 255]]),
            (
                of(PixelMode::Rgb, &[1, 2, 3, 1, 2, 4], Some(Transparency::Colour([1, 2, 4]))),
                vec![[1, 2, 3, 255], [1, 2, 4, 0]],
            ),
        ];
        for (picture, expected) in cases {
            assert!(picture.has_transparency());
            assert_eq!(rgba(&picture), expected);
        }
        let opaque = of(PixelMode::Rgb, &[1, 2, 3], None);
        assert!(!opaque.has_transparency());
        assert_eq!(rgba(&opaque), [[1, 2, 3, 255]]);
    }
}
