//! WebP, lossy and lossless, to the pixels of libwebp.

use std::io::Cursor;

use image_webp::WebPDecoder;

use crate::orientation::{exif_orientation, xmp_orientation};
use crate::{DecodeLimits, ImageFormat, Picture, PixelMode, Result};

const FORMAT: ImageFormat = ImageFormat::WebP;

fn open(bytes: &[u8], memory: usize) -> Result<WebPDecoder<Cursor<&[u8]>>> {
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(|error| FORMAT.malformed(error))?;
    decoder.set_memory_limit(memory);
    Ok(decoder)
}

/// Decodes the picture, or the first frame of an animation.
pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Picture> {
    let mut decoder = open(bytes, limits.memory())?;
    let (width, height) = decoder.dimensions();
    limits.check_pixels(width, height)?;
    let mode = if decoder.has_alpha() { PixelMode::Rgba } else { PixelMode::Rgb };
    let length = decoder.output_buffer_size().ok_or_else(|| FORMAT.malformed("too large for this machine"))?;
    let mut data = vec![0; length];
    let read =
        if decoder.is_animated() { decoder.read_frame(&mut data).map(|_| ()) } else { decoder.read_image(&mut data) };
    read.map_err(|error| FORMAT.malformed(error))?;
    Ok(Picture::new(width, height, mode, data))
}

/// Orientation in the EXIF or XMP chunk; 1 if there is none.
pub(super) fn orientation(bytes: &[u8]) -> Result<u8> {
    let mut decoder = open(bytes, 64 << 20)?;
    let exif = decoder.exif_metadata().ok().flatten();
    let found = exif.and_then(|exif| exif_orientation(&exif));
    Ok(found.or_else(|| xmp_orientation(&decoder.xmp_metadata().ok()??)).unwrap_or(1))
}
