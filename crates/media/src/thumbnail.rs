//! Small JPEGs of pictures, for pages that show search results.

use libjpeg_turbo_rs::{PixelFormat, Subsampling, compress};

use crate::decode::{Decoded, Purpose, decode_for};
use crate::orientation::Turn;
use crate::resize::{Region, Source};
use crate::{AlphaRule, DecodeLimits, Error, Filter, OrientationRule, PassOrder, Resize, Result, orientation};

const QUALITY: u8 = 82;

/// A JPEG of the picture, upright, over white where it is transparent, its longer side at most `max_side` pixels. Large JPEGs are decoded no larger than
/// it takes ([`DecodeMode::Fast`](crate::DecodeMode)).
///
/// # Errors
/// As [`decode`](crate::decode), under the default limits.
pub fn thumbnail(bytes: &[u8], max_side: u32) -> Result<Vec<u8>> {
    let within = |side: u32| Resize::Longest { width: side, height: side, fill: 0 };
    let purpose = Purpose { resize: within(max_side.max(1)), orientation: OrientationRule::Exif };
    let Decoded { picture, reduction, full } = decode_for(bytes, &DecodeLimits::default(), Some(&purpose))?;
    let turn = Turn::new(orientation(bytes)?);
    let picture = &picture.into_rgb(|picture| picture.to_rgb_with(AlphaRule::OverWhite));
    let (full_width, full_height) = turn.sides(full);
    let side = max_side.clamp(1, full_width.max(full_height));
    let (width, height) = within(side).target((full_width, full_height));
    let source = Source { picture, turn, reduction, full };
    let small = source.resize((width, height), &Region::whole(width, height), Filter::Bilinear, PassOrder::default());
    compress(&small.data, width as usize, height as usize, PixelFormat::Rgb, QUALITY, Subsampling::S420)
        .map_err(|error| Error::Unsupported { format: "JPEG", reason: error.to_string() })
}
