//! PNG in the modes that Pillow gives it: 16-bit grey stays 16-bit, every other 16-bit picture keeps the high bytes,
//! palettes stay indices, and tRNS stands beside the pixels.

use std::io::Cursor;

use png::{BitDepth, ColorType, Decoder, Info, Limits, Reader, Transformations};

use super::packed::{full_palette, high_bytes, map_pixels, packed_stride, stretch, unpack};
use crate::orientation::{exif_orientation, xmp_orientation};
use crate::picture::Transparency;
use crate::{DecodeLimits, ImageFormat, Picture, PixelMode, Result};

const FORMAT: ImageFormat = ImageFormat::Png;

fn open(bytes: &[u8], memory: usize) -> Result<Reader<Cursor<&[u8]>>> {
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: memory });
    decoder.set_transformations(Transformations::IDENTITY);
    decoder.set_ignore_iccp_chunk(true);
    decoder.read_info().map_err(|error| FORMAT.malformed(error))
}

/// Decodes the default picture of the file.
pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Picture> {
    let mut reader = open(bytes, limits.memory())?;
    let size = reader.info().size();
    limits.check_pixels(size.0, size.1)?;
    let length = reader.output_buffer_size().ok_or_else(|| FORMAT.malformed("too large for this machine"))?;
    let mut data = vec![0; length];
    let frame = reader.next_frame(&mut data).map_err(|error| FORMAT.malformed(error))?;
    if (frame.width, frame.height) != size {
        return Err(FORMAT.malformed("the first frame is smaller than the picture"));
    }
    let info = reader.info();
    let (mode, data) = to_mode(info, data).ok_or_else(|| FORMAT.malformed("too few pixels"))?;
    let mut picture = Picture::new(size.0, size.1, mode, data);
    if mode == PixelMode::Palette {
        let colours = info.palette.as_deref().unwrap_or_default();
        picture.palette = full_palette(colours.as_chunks::<3>().0.iter().copied());
    }
    picture.transparency = info.trns.as_deref().and_then(|chunk| transparency(mode, chunk));
    Ok(picture)
}

fn to_mode(info: &Info<'_>, data: Vec<u8>) -> Option<(PixelMode, Vec<u8>)> {
    let bits = info.bit_depth as u8;
    let wide = info.bit_depth == BitDepth::Sixteen;
    let small = |map: &dyn Fn(u8) -> u8| unpack(&data, info.size(), bits, packed_stride(info.width, bits.into()), map);
    Some(match info.color_type {
        ColorType::Grayscale if bits == 1 => (PixelMode::Bilevel, small(&|bit| bit * 255)?),
        ColorType::Grayscale if wide => (PixelMode::Grey16, map_pixels(&data, |[high, low]: [u8; 2]| [low, high])),
        ColorType::Grayscale if bits < 8 => (PixelMode::Grey, small(&|sample| sample * stretch(bits))?),
        ColorType::Grayscale => (PixelMode::Grey, data),
        ColorType::Indexed if bits < 8 => (PixelMode::Palette, small(&|sample| sample)?),
        ColorType::Indexed => (PixelMode::Palette, data),
        ColorType::Rgb => (PixelMode::Rgb, if wide { high_bytes(&data) } else { data }),
        ColorType::Rgba => (PixelMode::Rgba, if wide { high_bytes(&data) } else { data }),
        // Pillow has no 16-bit grey with alpha and makes it RGBA.
        ColorType::GrayscaleAlpha if wide => {
            (PixelMode::Rgba, map_pixels(&data, |[grey, _, alpha, _]: [u8; 4]| [grey, grey, grey, alpha]))
        }
        ColorType::GrayscaleAlpha => (PixelMode::GreyAlpha, data),
    })
}

/// What Pillow keeps of a tRNS chunk. For up to 8 bits the decoder hands over the low byte of each 16-bit value.
fn transparency(mode: PixelMode, chunk: &[u8]) -> Option<Transparency> {
    let wide = |at: usize| Some(u16::from_be_bytes([*chunk.get(at)?, *chunk.get(at + 1)?]));
    match mode {
        PixelMode::Palette => {
            let mut clear = chunk.iter().enumerate().filter(|(_, alpha)| **alpha != 255);
            match (clear.next(), clear.next()) {
                (None, _) => None,
                (Some((index, 0)), None) => u8::try_from(index).ok().map(Transparency::Index),
                _ => Some(Transparency::Alphas(chunk.to_vec())),
            }
        }
        PixelMode::Bilevel => Some(Transparency::Level(if *chunk.first()? == 0 { 0 } else { 255 })),
        PixelMode::Grey => Some(Transparency::Level((*chunk.first()?).into())),
        PixelMode::Grey16 => Some(Transparency::Level(wide(0)?)),
        PixelMode::Rgb if chunk.len() == 3 => Some(Transparency::Colour([0, 1, 2].map(|at| chunk[at].into()))),
        PixelMode::Rgb => Some(Transparency::Colour([wide(0)?, wide(2)?, wide(4)?])),
        PixelMode::GreyAlpha | PixelMode::Rgba | PixelMode::Cmyk => None,
    }
}

/// Orientation in eXIf, in ImageMagick's raw EXIF profile or in XMP, before or after the pixels; 1 if there is none.
pub(super) fn orientation(bytes: &[u8]) -> Result<u8> {
    let mut reader = open(bytes, 64 << 20)?;
    if let Some(found) = orientation_so_far(reader.info()) {
        return Ok(found);
    }
    // Metadata after a damaged end isn't worth an error: the pixels have been read.
    let _ = reader.finish();
    Ok(orientation_so_far(reader.info()).unwrap_or(1))
}

fn orientation_so_far(info: &Info<'_>) -> Option<u8> {
    if let Some(exif) = &info.exif_metadata {
        return exif_orientation(exif);
    }
    const RAW_PROFILE: &str = "Raw profile type exif";
    let compressed = info.compressed_latin1_text.iter().filter(|chunk| chunk.keyword == RAW_PROFILE);
    let raw = compressed
        .filter_map(|chunk| chunk.get_text().ok())
        .chain(info.uncompressed_latin1_text.iter().filter(|text| text.keyword == RAW_PROFILE).map(|t| t.text.clone()))
        .find_map(|text| exif_orientation(&raw_profile(&text)?));
    raw.or_else(|| {
        let packets = info.utf8_text.iter().filter(|chunk| chunk.keyword == "XML:com.adobe.xmp");
        packets.filter_map(|chunk| chunk.get_text().ok()).find_map(|text| xmp_orientation(text.as_bytes()))
    })
}

/// Bytes of a raw profile: an empty line, the name, the length, then hexadecimal digits.
fn raw_profile(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text.lines().skip(3).flat_map(str::chars).map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    Some(digits.as_chunks::<2>().0.iter().map(|[high, low]| (high << 4 | low) as u8).collect())
}
