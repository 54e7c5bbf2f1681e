//! Windows bitmaps with 1, 4, 8, 16, 24 and 32 bits a pixel, uncompressed, run-length coded or with bit fields.

use super::packed::{full_palette, map_pixels, stretch, unpack};
use crate::bytes::{le16, le32};
use crate::{ImageFormat, Picture, PixelMode, Result};

const FORMAT: ImageFormat = ImageFormat::Bmp;
const FILE_HEADER: usize = 14;
const CORE_HEADER: usize = 12;
const RAW: u32 = 0;
const RLE8: u32 = 1;
const RLE4: u32 = 2;
const BIT_FIELDS: u32 = 3;

struct Header {
    width: u32,
    height: u32,
    top_down: bool,
    bits: u16,
    compression: u32,
    /// Number of palette entries in the file.
    colours: usize,
    /// Bytes of a palette entry.
    entry: usize,
    palette_at: usize,
    pixels_at: usize,
    /// Red, green, blue and alpha.
    masks: [u32; 4],
}

impl Header {
    fn parse(bytes: &[u8]) -> Option<Result<Self>> {
        let length = le32(bytes, FILE_HEADER)? as usize;
        let core = length == CORE_HEADER;
        if !core && !matches!(length, 40 | 52 | 56 | 64 | 108 | 124) {
            return Some(Err(FORMAT.unsupported(format_args!("a header of {length} bytes"))));
        }
        let (width, height) = crate::dimensions(bytes).ok()?;
        let at = FILE_HEADER + if core { 10 } else { 14 };
        let mut header = Self {
            width,
            height,
            top_down: !core && *bytes.get(25)? == 0xff,
            bits: le16(bytes, at)?,
            compression: if core { RAW } else { le32(bytes, 30)? },
            colours: if core { 0 } else { le32(bytes, 46)? as usize },
            entry: if core { 3 } else { 4 },
            palette_at: FILE_HEADER + length,
            pixels_at: le32(bytes, 10)? as usize,
            masks: [0; 4],
        };
        if header.compression == BIT_FIELDS {
            // In a 40-byte header the masks follow it and there is none for alpha.
            let count = if length >= 56 { 4 } else { 3 };
            for index in 0..count {
                header.masks[index] = le32(bytes, 54 + 4 * index)?;
            }
            header.palette_at += if length < 52 { 12 } else { 0 };
        }
        if header.colours == 0 && header.bits <= 8 {
            header.colours = 1 << header.bits;
        }
        if header.pixels_at == FILE_HEADER + length && header.bits <= 8 {
            header.pixels_at += header.entry * header.colours;
        } else if header.pixels_at == 0 {
            header.pixels_at = header.palette_at;
        }
        Some(Ok(header))
    }

    /// Bytes of a row, padded to four.
    fn stride(&self) -> usize {
        (self.width as usize * usize::from(self.bits)).div_ceil(32) * 4
    }

    fn palette(&self, bytes: &[u8]) -> Option<Vec<[u8; 3]>> {
        let entries = bytes.get(self.palette_at..)?.chunks_exact(self.entry).take(self.colours.min(256));
        Some(entries.map(|entry| [entry[2], entry[1], entry[0]]).collect())
    }
}

/// Decodes the bitmap.
pub(super) fn decode(bytes: &[u8]) -> Result<Picture> {
    let cut_short = || FORMAT.malformed("the file is truncated");
    let header = Header::parse(bytes).ok_or_else(cut_short)??;
    let pixels = bytes.get(header.pixels_at..).ok_or_else(cut_short)?;
    let size = (header.width, header.height);
    let (mode, data) = match (header.bits, header.compression) {
        (1 | 4 | 8, RAW) => {
            let indices = unpack(pixels, size, header.bits as u8, header.stride(), |sample| sample);
            (PixelMode::Palette, indices.ok_or_else(cut_short)?)
        }
        (4, RLE4) | (8, RLE8) => (PixelMode::Palette, run_lengths(pixels, &header).ok_or_else(cut_short)?),
        (16 | 24 | 32, RAW | BIT_FIELDS) => true_colour(pixels, &header)?,
        (bits, compression) => {
            return Err(FORMAT.unsupported(format_args!("{bits} bits a pixel with compression {compression}")));
        }
    };
    let mut picture = Picture::new(size.0, size.1, mode, data);
    if mode == PixelMode::Palette {
        apply_palette(&mut picture, &header.palette(bytes).ok_or_else(cut_short)?);
    }
    if !header.top_down {
        let stride = picture.width as usize * picture.mode.bytes();
        picture.data = picture.data.chunks_exact(stride).rev().flatten().copied().collect();
    }
    Ok(picture)
}

/// Pillow drops a palette that is a grey ramp, or black and white.
fn apply_palette(picture: &mut Picture, palette: &[[u8; 3]]) {
    let step = if palette.len() == 2 { 255 } else { 1 };
    let grey = palette.iter().enumerate().all(|(index, colour)| *colour == [(index * step) as u8; 3]);
    if !grey {
        picture.palette = full_palette(palette.iter().copied());
    } else if palette.len() <= 2 {
        picture.mode = PixelMode::Bilevel;
        picture.data.iter_mut().for_each(|index| *index = index.saturating_mul(stretch(1)));
    } else {
        picture.mode = PixelMode::Grey;
    }
}

fn true_colour(pixels: &[u8], header: &Header) -> Result<(PixelMode, Vec<u8>)> {
    let row = header.width as usize * usize::from(header.bits / 8);
    let mut packed = Vec::with_capacity(row * header.height as usize);
    for y in 0..header.height as usize {
        let line = pixels.get(y * header.stride()..).and_then(|rest| rest.get(..row));
        packed.extend_from_slice(line.ok_or_else(|| FORMAT.malformed("the file is truncated"))?);
    }
    let [red, green, blue, alpha] = header.masks;
    let masks = (header.compression == BIT_FIELDS).then_some((red, green, blue));
    let data = match (header.bits, masks) {
        (16, None | Some((0x7c00, 0x3e0, 0x1f))) => map_pixels(&packed, |pixel| rgb16(pixel, 5)),
        (16, Some((0xf800, 0x7e0, 0x1f))) => map_pixels(&packed, |pixel| rgb16(pixel, 6)),
        (24, None | Some((0xff_0000, 0xff00, 0xff))) => map_pixels(&packed, |[b, g, r]: [u8; 3]| [r, g, b]),
        (32, None) => map_pixels(&packed, |[b, g, r, _]: [u8; 4]| [r, g, b]),
        (32, Some((0, 0, 0))) if alpha == 0 => {
            return Ok((PixelMode::Rgba, map_pixels(&packed, |[b, g, r, a]: [u8; 4]| [r, g, b, a])));
        }
        (32, Some(_)) => return byte_fields(&packed, header.masks),
        _ => return Err(FORMAT.unsupported(format_args!("bit fields {:x?}", header.masks))),
    };
    Ok((PixelMode::Rgb, data))
}

/// 32-bit pixels whose fields are whole bytes.
fn byte_fields(packed: &[u8], masks: [u32; 4]) -> Result<(PixelMode, Vec<u8>)> {
    let byte = |mask: u32| (0..4usize).find(|index| mask == 0xff << (8 * index));
    let [red, green, blue, alpha] = masks.map(byte);
    let (Some(red), Some(green), Some(blue)) = (red, green, blue) else {
        return Err(FORMAT.unsupported(format_args!("bit fields {masks:x?}")));
    };
    match (alpha, masks[3]) {
        (Some(alpha), _) => Ok((
            PixelMode::Rgba,
            map_pixels(packed, |pixel: [u8; 4]| [pixel[red], pixel[green], pixel[blue], pixel[alpha]]),
        )),
        (None, 0) => Ok((PixelMode::Rgb, map_pixels(packed, |pixel: [u8; 4]| [pixel[red], pixel[green], pixel[blue]]))),
        _ => Err(FORMAT.unsupported(format_args!("bit fields {masks:x?}"))),
    }
}

/// 5 bits of red and blue, and 5 or 6 of green, stretched to 8 by Pillow's rounding down.
fn rgb16(pixel: [u8; 2], green_bits: u32) -> [u8; 3] {
    let value = u32::from(u16::from_le_bytes(pixel));
    let green_most = (1 << green_bits) - 1;
    let green = (value >> 5 & green_most) * 255 / green_most;
    [(value >> (5 + green_bits) & 31) * 255 / 31, green, (value & 31) * 255 / 31].map(|level| level as u8)
}

/// Indices from run-length coding, rows in file order. `None` if there are too few.
fn run_lengths(code: &[u8], header: &Header) -> Option<Vec<u8>> {
    let width = header.width as usize;
    let total = width * header.height as usize;
    let nibbles = header.compression == RLE4;
    let mut indices: Vec<u8> = Vec::with_capacity(total);
    let mut at = 0;
    while indices.len() < total {
        let (Some(&first), Some(&second)) = (code.get(at), code.get(at + 1)) else {
            break;
        };
        at += 2;
        let column = indices.len() % width;
        match (first, second) {
            (0, 0) => {
                let missing = (width - column) % width;
                indices.resize(indices.len() + missing, 0);
            }
            (0, 1) => break,
            (0, 2) => {
                let (right, down) = (usize::from(*code.get(at)?), usize::from(*code.get(at + 1)?));
                at += 2;
                indices.resize((indices.len() + right + down * width).min(total), 0);
            }
            (0, count) => {
                let count = usize::from(count).min(total - indices.len());
                let length = if nibbles { count.div_ceil(2) } else { count };
                let literal = code.get(at..at + length)?;
                let start = indices.len();
                match nibbles {
                    true => indices.extend(literal.iter().flat_map(|byte| [byte >> 4, byte & 15])),
                    false => indices.extend_from_slice(literal),
                }
                indices.truncate(start + count);
                at += length.next_multiple_of(2);
            }
            (count, value) => {
                // A run never leaves its row.
                let count = usize::from(count).min(width - column);
                let pair = if nibbles { [value >> 4, value & 15] } else { [value; 2] };
                indices.extend((0..count).map(|index| pair[index % 2]));
            }
        }
    }
    (indices.len() == total).then_some(indices)
}
