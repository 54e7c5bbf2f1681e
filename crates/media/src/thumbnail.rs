//! Small JPEGs of pictures, for pages that show search results.

use libjpeg_turbo_rs::{PixelFormat, Subsampling, compress};

use crate::resize::{Region, resize};
use crate::{
    AlphaRule, DecodeLimits, Error, Filter, OrientationRule, PassOrder, Picture, PixelMode, Resize, Result, decode_rgb,
};

const QUALITY: u8 = 82;

/// A JPEG of the picture, upright, over white where it is transparent, its longer side at most `max_side` pixels.
///
/// # Errors
/// As [`decode`](crate::decode), under the default limits.
pub fn thumbnail(bytes: &[u8], max_side: u32) -> Result<Vec<u8>> {
    let limits = DecodeLimits::default();
    let pixels = decode_rgb(bytes, &limits, OrientationRule::Exif, AlphaRule::OverWhite)?;
    let picture = Picture::new(pixels.width, pixels.height, PixelMode::Rgb, pixels.data);
    let side = max_side.clamp(1, picture.width.max(picture.height));
    let (width, height) =
        Resize::Longest { width: side, height: side, fill: 0 }.target((picture.width, picture.height));
    let whole = Region::whole(width, height);
    let small = resize(&picture, (width, height), &whole, Filter::Bilinear, PassOrder::default());
    compress(&small.data, width as usize, height as usize, PixelFormat::Rgb, QUALITY, Subsampling::S420)
        .map_err(|error| Error::Unsupported { format: "JPEG", reason: error.to_string() })
}
