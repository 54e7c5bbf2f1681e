//! Bytes to a [`Picture`], under limits that are checked before anything is decoded.

mod bmp;
mod gif;
pub(crate) mod jpeg;
mod packed;
mod png;
mod tiff;
mod webp;

use std::panic::catch_unwind;

use crate::format::recognise;
use crate::orientation::{Turn, upright};
use crate::{
    AlphaRule, DecodeLimits, Error, ImageFormat, OrientationRule, Picture, Resize, Result, RgbPixels, dimensions,
};

impl DecodeLimits {
    pub(crate) fn check_pixels(&self, width: u32, height: u32) -> Result<()> {
        let found = u64::from(width) * u64::from(height);
        if found > self.max_pixels {
            let what = format!("a picture of {width}x{height} pixels: the pixel count");
            return Err(Error::TooLarge { what, found, limit: self.max_pixels });
        }
        Ok(())
    }

    fn check_bytes(&self, bytes: &[u8]) -> Result<()> {
        let found = bytes.len() as u64;
        if found > self.max_bytes {
            let what = "the size in bytes of an encoded picture".to_owned();
            return Err(Error::TooLarge { what, found, limit: self.max_bytes });
        }
        Ok(())
    }

    /// Memory that a decoder may take: every pixel at 16 bits in four channels, twice, and some for tables.
    fn memory(&self) -> usize {
        usize::try_from(self.max_pixels.saturating_mul(16).saturating_add(64 << 20)).unwrap_or(usize::MAX)
    }
}

/// What a picture is decoded for, where its JPEG need not be decoded in full.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Purpose {
    /// How it will be resized.
    pub(crate) resize: Resize,
    /// Whether it will be turned upright first.
    pub(crate) orientation: OrientationRule,
}

impl Purpose {
    /// 8, 4, 2 or 1: the most by which both sides may be divided and still be twice as long as what they become.
    fn reduction(&self, size: (u32, u32), orientation: u8) -> u32 {
        let turn = match self.orientation {
            OrientationRule::Ignore => Turn::default(),
            OrientationRule::Exif => Turn::new(orientation),
        };
        if self.resize == Resize::None {
            return 1;
        }
        let size = turn.sides(size);
        let target = self.resize.target(size);
        let enough = |from: u32, to: u32, by: u32| u64::from(from) >= 2 * u64::from(by) * u64::from(to);
        let fits = |by: &u32| enough(size.0, target.0, *by) && enough(size.1, target.1, *by);
        [8, 4, 2].into_iter().find(fits).unwrap_or(1)
    }
}

/// A picture that may have been decoded smaller than it is.
pub(crate) struct Decoded {
    /// The pixels, as stored.
    pub(crate) picture: Picture,
    /// Each pixel stands for a square of so many pixels a side.
    pub(crate) reduction: u32,
    /// Width and height of the picture in full, as stored.
    pub(crate) full: (u32, u32),
}

/// Decodes the first picture of a file, recognised by its content, to the pixels that Pillow 13 gives.
///
/// The EXIF orientation is not applied, except to TIFF, where Pillow always applies it.
///
/// # Errors
/// [`Error::Empty`], [`Error::UnknownFormat`], [`Error::TooLarge`] before decoding if the file or its header is over
/// `limits`, [`Error::Malformed`] if it is damaged or truncated, [`Error::Unsupported`].
pub fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Picture> {
    Ok(decode_for(bytes, limits, None)?.picture)
}

/// [`decode`], but JPEGs only as large as the purpose needs them, if there is one.
pub(crate) fn decode_for(bytes: &[u8], limits: &DecodeLimits, purpose: Option<&Purpose>) -> Result<Decoded> {
    let format = recognise(bytes)?;
    limits.check_bytes(bytes)?;
    let (width, height) = dimensions(bytes)?;
    limits.check_pixels(width, height)?;
    // The decoders parse foreign bytes and aren't this crate's: a panic in one of them is a damaged file to us.
    let picture = catch_unwind(|| {
        match format {
            ImageFormat::Jpeg => return jpeg::decode(bytes, limits, purpose),
            ImageFormat::Png => png::decode(bytes, limits),
            ImageFormat::Gif => gif::decode(bytes, limits),
            ImageFormat::WebP => webp::decode(bytes, limits),
            ImageFormat::Bmp => bmp::decode(bytes),
            ImageFormat::Tiff => tiff::decode(bytes, limits),
        }
        .map(Decoded::whole)
    });
    picture.unwrap_or_else(|_| Err(format.malformed("the decoder gave up")))
}

impl Decoded {
    pub(crate) fn whole(picture: Picture) -> Self {
        Self { reduction: 1, full: (picture.width, picture.height), picture }
    }
}

/// EXIF orientation, 1 to 8 (1 is upright), that a file asks for and that [`decode`] doesn't apply. It is looked for
/// in JPEG's APP1, PNG's eXIf, WebP's EXIF, and in their XMP packets.
///
/// # Errors
/// As [`dimensions`](crate::dimensions).
pub fn orientation(bytes: &[u8]) -> Result<u8> {
    let format = recognise(bytes)?;
    let found = catch_unwind(|| match format {
        ImageFormat::Jpeg => jpeg::orientation(bytes),
        ImageFormat::Png => png::orientation(bytes),
        ImageFormat::WebP => webp::orientation(bytes),
        ImageFormat::Gif | ImageFormat::Bmp | ImageFormat::Tiff => Ok(1),
    })
    .unwrap_or_else(|_| Err(format.malformed("the decoder gave up")))?;
    Ok(if (1..=8).contains(&found) { found } else { 1 })
}

/// [`decode`], then turned upright if `rule` says so.
///
/// # Errors
/// As [`decode`].
pub fn decode_oriented(bytes: &[u8], limits: &DecodeLimits, rule: OrientationRule) -> Result<Picture> {
    let picture = decode(bytes, limits)?;
    match rule {
        OrientationRule::Ignore => Ok(picture),
        OrientationRule::Exif => Ok(upright(picture, orientation(bytes)?)),
    }
}

impl Picture {
    /// The picture in RGB under a rule for transparency.
    pub fn to_rgb_with(&self, alpha: AlphaRule) -> RgbPixels {
        match alpha {
            AlphaRule::Drop => self.to_rgb(),
            AlphaRule::OverWhite => self.to_rgb_over_white(),
            AlphaRule::KeyOverWhite => self.to_rgb_key_over_white(),
        }
    }
}

/// Decodes a file to RGB in full size, for showing it.
///
/// # Errors
/// As [`decode`].
pub fn decode_rgb(
    bytes: &[u8],
    limits: &DecodeLimits,
    orientation: OrientationRule,
    alpha: AlphaRule,
) -> Result<RgbPixels> {
    let picture = decode_oriented(bytes, limits, orientation)?.into_rgb(|picture| picture.to_rgb_with(alpha));
    Ok(RgbPixels { width: picture.width, height: picture.height, data: picture.data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_stay_twice_as_long_as_what_they_become() {
        let by = |resize: Resize, size: (u32, u32)| {
            Purpose { resize, orientation: OrientationRule::Ignore }.reduction(size, 6)
        };
        let edge = Resize::ShortestEdge { edge: 224 };
        // 298 x 224 pixels need 596 x 448.
        assert_eq!(by(edge, (4000, 3000)), 4);
        assert_eq!(by(edge, (8000, 6000)), 8);
        assert_eq!(by(edge, (80_000, 60_000)), 8);
        assert_eq!(by(edge, (448 * 8, 448 * 8)), 8);
        assert_eq!(by(edge, (448 * 8, 448 * 8 - 1)), 4);
        assert_eq!(by(edge, (896, 896)), 2);
        assert_eq!(by(edge, (895, 2000)), 1);
        assert_eq!(by(edge, (100, 100)), 1);
        assert_eq!(by(edge, (1, 65_000)), 1);
        assert_eq!(by(Resize::None, (4000, 3000)), 1);
        assert_eq!(by(Resize::Squash { width: 100, height: 1000 }, (4000, 4000)), 2);
        assert_eq!(by(Resize::Longest { width: 224, height: 224, fill: 0 }, (4000, 3000)), 8);
    }

    #[test]
    fn the_orientation_says_which_side_is_which() {
        let resize = Resize::Squash { width: 100, height: 1000 };
        let by =
            |orientation: OrientationRule, number: u8| Purpose { resize, orientation }.reduction((8000, 1600), number);
        assert_eq!(by(OrientationRule::Ignore, 6), 1);
        assert_eq!(by(OrientationRule::Exif, 1), 1);
        assert_eq!(by(OrientationRule::Exif, 6), 4);
    }
}
