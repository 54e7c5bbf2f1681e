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
use crate::orientation::upright;
use crate::{AlphaRule, DecodeLimits, Error, ImageFormat, OrientationRule, Picture, Result, RgbPixels, dimensions};

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

/// Decodes the first picture of a file, recognised by its content, to the pixels that Pillow 13 gives.
///
/// The EXIF orientation is not applied, except to TIFF, where Pillow always applies it.
///
/// # Errors
/// [`Error::Empty`], [`Error::UnknownFormat`], [`Error::TooLarge`] before decoding if the file or its header is over
/// `limits`, [`Error::Malformed`] if it is damaged or truncated, [`Error::Unsupported`].
pub fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Picture> {
    let format = recognise(bytes)?;
    limits.check_bytes(bytes)?;
    let (width, height) = dimensions(bytes)?;
    limits.check_pixels(width, height)?;
    // The decoders parse foreign bytes and aren't this crate's: a panic in one of them is a damaged file to us.
    catch_unwind(|| match format {
        ImageFormat::Jpeg => jpeg::decode(bytes, limits),
        ImageFormat::Png => png::decode(bytes, limits),
        ImageFormat::Gif => gif::decode(bytes, limits),
        ImageFormat::WebP => webp::decode(bytes, limits),
        ImageFormat::Bmp => bmp::decode(bytes),
        ImageFormat::Tiff => tiff::decode(bytes, limits),
    })
    .unwrap_or_else(|_| Err(format.malformed("the decoder gave up")))
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
pub(crate) fn decode_oriented(bytes: &[u8], limits: &DecodeLimits, rule: OrientationRule) -> Result<Picture> {
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
