//! TIFF: bilevel, grey of up to 16 bits, palettes, RGB, RGBA and CMYK, uncompressed, LZW, Deflate or PackBits.
//! Pillow turns every TIFF upright when it loads it.

use std::io::Cursor;

use tiff::ColorType;
use tiff::TiffError;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::Tag;

use super::packed::{full_palette, packed_stride, stretch, unpack};
use crate::orientation::{Directory, upright};
use crate::{DecodeLimits, ImageFormat, Picture, PixelMode, Result};

const FORMAT: ImageFormat = ImageFormat::Tiff;
const PHOTOMETRIC: u16 = 262;
const ORIENTATION: u16 = 274;
const BLACK_IS_ZERO: u8 = 1;
const PALETTE: u32 = 3;

fn describe(error: TiffError) -> crate::Error {
    match error {
        TiffError::UnsupportedError(reason) => FORMAT.unsupported(reason),
        other => FORMAT.malformed(other),
    }
}

/// Decodes the first page and turns it upright.
pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Picture> {
    let directory = Directory::parse(bytes);
    let orientation = directory.as_ref().and_then(|directory| directory.integer(ORIENTATION)).unwrap_or(1);
    let photometric = directory.as_ref().and_then(|directory| directory.integer(PHOTOMETRIC));
    let picture =
        if photometric == Some(PALETTE) { decode_palette(bytes, limits)? } else { decode_page(bytes, limits)?.0 };
    Ok(upright(picture, u8::try_from(orientation).unwrap_or(1)))
}

/// The decoder refuses palettes, so the file is read as a grey one whose levels are the indices.
fn decode_palette(bytes: &[u8], limits: &DecodeLimits) -> Result<Picture> {
    let mut as_grey = bytes.to_vec();
    let directory = Directory::parse(bytes).ok_or_else(|| FORMAT.malformed("no directory"))?;
    let (at, _) = directory.integer_at(PHOTOMETRIC).ok_or_else(|| FORMAT.malformed("no photometric tag"))?;
    as_grey[directory.low_byte_of_short(at)] = BLACK_IS_ZERO;
    let (mut picture, bits, map) = decode_page(&as_grey, limits)?;
    if !matches!(picture.mode, PixelMode::Bilevel | PixelMode::Grey) {
        return Err(FORMAT.unsupported("a palette with more than 8 bits a pixel"));
    }
    let colours = map.ok_or_else(|| FORMAT.malformed("a palette picture without a colour map"))?;
    let count = 1usize << bits;
    let [red, green, blue] = [0, 1, 2].map(|channel| colours.get(channel * count..(channel + 1) * count));
    let (Some(red), Some(green), Some(blue)) = (red, green, blue) else {
        return Err(FORMAT.malformed("the colour map is too short"));
    };
    let high = |value: u16| (value >> 8) as u8;
    picture.palette = full_palette((0..count).map(|index| [red[index], green[index], blue[index]].map(high)));
    let scale = stretch(bits);
    picture.data.iter_mut().for_each(|sample| *sample /= scale);
    picture.mode = PixelMode::Palette;
    Ok(picture)
}

/// The page, its bits per sample, and its colour map.
type Page = (Picture, u8, Option<Vec<u16>>);

fn decode_page(bytes: &[u8], limits: &DecodeLimits) -> Result<Page> {
    let memory = limits.memory();
    let mut decoder = Decoder::new(Cursor::new(bytes)).map_err(describe)?;
    let mut bounds = Limits::default();
    bounds.decoding_buffer_size = memory;
    bounds.intermediate_buffer_size = memory;
    decoder = decoder.with_limits(bounds);
    let size = decoder.dimensions().map_err(describe)?;
    limits.check_pixels(size.0, size.1)?;
    let colour = decoder.colortype().map_err(describe)?;
    let map = decoder.get_tag_u16_vec(Tag::ColorMap).ok();
    let samples = decoder.read_image().map_err(describe)?;
    let picture = to_picture(colour, size, samples)?;
    let expected = size.0 as usize * size.1 as usize * picture.mode.bytes();
    if picture.data.len() != expected {
        return Err(FORMAT.malformed(format_args!("{} bytes of pixels, expected {expected}", picture.data.len())));
    }
    Ok((picture, colour.bit_depth(), map))
}

fn to_picture(colour: ColorType, size: (u32, u32), samples: DecodingResult) -> Result<Picture> {
    let mode = match colour {
        ColorType::Gray(1) => PixelMode::Bilevel,
        ColorType::Gray(2 | 4 | 8) => PixelMode::Grey,
        ColorType::Gray(16) => PixelMode::Grey16,
        ColorType::Multiband { bit_depth: 8, num_samples: 2 } => PixelMode::GreyAlpha,
        ColorType::RGB(8 | 16) => PixelMode::Rgb,
        ColorType::RGBA(8 | 16) => PixelMode::Rgba,
        ColorType::CMYK(8 | 16) => PixelMode::Cmyk,
        other => return Err(FORMAT.unsupported(format_args!("pixels of {other:?}"))),
    };
    let data = match (samples, colour) {
        (DecodingResult::U8(data), ColorType::Gray(bits @ (1 | 2 | 4))) => {
            let stride = packed_stride(size.0, bits.into());
            unpack(&data, size, bits, stride, |sample| sample * stretch(bits))
                .ok_or_else(|| FORMAT.malformed("too few pixels"))?
        }
        (DecodingResult::U8(data), _) => data,
        (DecodingResult::U16(data), ColorType::Gray(16)) => data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        (DecodingResult::U16(data), _) => data.iter().map(|value| (value >> 8) as u8).collect(),
        _ => return Err(FORMAT.unsupported("signed or floating-point pixels")),
    };
    let (width, height) = size;
    Ok(Picture { width, height, mode, data, palette: Vec::new(), transparency: None })
}
