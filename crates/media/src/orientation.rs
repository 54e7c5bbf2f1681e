//! EXIF orientation: finding it in a file and turning a picture upright, as `PIL.ImageOps.exif_transpose` does.

use crate::Picture;
use crate::bytes::{be16, be32, le16, le32};

const ORIENTATION_TAG: u16 = 0x0112;

/// First directory of a TIFF structure, which is also what an EXIF block is.
pub(crate) struct Directory<'a> {
    bytes: &'a [u8],
    big_endian: bool,
    /// Position of the first entry.
    entries_at: usize,
    count: usize,
}

impl<'a> Directory<'a> {
    /// Reads the header; `None` if this isn't a TIFF structure.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let big_endian = match bytes.get(..4)? {
            b"II\x2a\0" => false,
            b"MM\0\x2a" => true,
            _ => return None,
        };
        let mut directory = Self { bytes, big_endian, entries_at: 0, count: 0 };
        let offset = directory.long(4)? as usize;
        directory.count = directory.short(offset)?.into();
        directory.entries_at = offset + 2;
        Some(directory)
    }

    fn short(&self, at: usize) -> Option<u16> {
        if self.big_endian { be16(self.bytes, at) } else { le16(self.bytes, at) }
    }

    fn long(&self, at: usize) -> Option<u32> {
        if self.big_endian { be32(self.bytes, at) } else { le32(self.bytes, at) }
    }

    /// Position of the 12-byte entry of `tag`.
    fn entry(&self, tag: u16) -> Option<usize> {
        (0..self.count)
            .map(|index| self.entries_at + 12 * index)
            .take_while(|&at| at + 12 <= self.bytes.len())
            .find(|&at| self.short(at) == Some(tag))
    }

    /// Position and width in bytes of a single integer stored in the entry of `tag`.
    pub(crate) fn integer_at(&self, tag: u16) -> Option<(usize, usize)> {
        let at = self.entry(tag)?;
        let width = match self.short(at + 2)? {
            1 | 6 => 1,
            3 | 8 => 2,
            4 | 9 => 4,
            _ => return None,
        };
        (self.long(at + 4)? == 1).then_some((at + 8, width))
    }

    /// The single integer stored in the entry of `tag`.
    pub(crate) fn integer(&self, tag: u16) -> Option<u32> {
        match self.integer_at(tag)? {
            (at, 1) => self.bytes.get(at).map(|byte| (*byte).into()),
            (at, 2) => self.short(at).map(u32::from),
            (at, _) => self.long(at),
        }
    }

    /// Position at which a 16-bit integer's low byte stands.
    pub(crate) fn low_byte_of_short(&self, at: usize) -> usize {
        at + usize::from(self.big_endian)
    }
}

/// Orientation, 1 to 8, of an EXIF block with or without its `Exif\0\0` start; 1 if there is none.
pub(crate) fn exif_orientation(mut exif: &[u8]) -> Option<u8> {
    while let Some(rest) = exif.strip_prefix(b"Exif\0\0") {
        exif = rest;
    }
    let value = Directory::parse(exif)?.integer(ORIENTATION_TAG)?;
    u8::try_from(value).ok()
}

/// Orientation in an XMP packet, written as an attribute or an element.
pub(crate) fn xmp_orientation(xmp: &[u8]) -> Option<u8> {
    const NAME: &[u8] = b"tiff:Orientation";
    xmp.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME).find_map(|(at, _)| {
        let rest = &xmp[at + NAME.len()..];
        let digit = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"))?.first()?;
        digit.is_ascii_digit().then(|| digit - b'0')
    })
}

/// Turns `picture` upright. Orientations other than 2 to 8 leave it as it is.
pub(crate) fn upright(picture: Picture, orientation: u8) -> Picture {
    let (right, bottom) = (picture.width as usize - 1, picture.height as usize - 1);
    // The source of the pixel at x to the right and y down.
    match orientation {
        2 => turned(picture, false, |x, y| (right - x, y)),
        3 => turned(picture, false, |x, y| (right - x, bottom - y)),
        4 => turned(picture, false, |x, y| (x, bottom - y)),
        5 => turned(picture, true, |x, y| (y, x)),
        6 => turned(picture, true, |x, y| (y, bottom - x)),
        7 => turned(picture, true, |x, y| (right - y, bottom - x)),
        8 => turned(picture, true, |x, y| (right - y, x)),
        _ => picture,
    }
}

fn turned(picture: Picture, swap_sides: bool, source: impl Fn(usize, usize) -> (usize, usize)) -> Picture {
    match picture.mode.bytes() {
        1 => turned_pixels::<1>(picture, swap_sides, source),
        2 => turned_pixels::<2>(picture, swap_sides, source),
        3 => turned_pixels::<3>(picture, swap_sides, source),
        _ => turned_pixels::<4>(picture, swap_sides, source),
    }
}

fn turned_pixels<const N: usize>(
    picture: Picture,
    swap_sides: bool,
    source: impl Fn(usize, usize) -> (usize, usize),
) -> Picture {
    let (pixels, _) = picture.data.as_chunks::<N>();
    let stride = picture.width as usize;
    let (mut width, mut height) = (picture.width, picture.height);
    if swap_sides {
        std::mem::swap(&mut width, &mut height);
    }
    let mut data = Vec::with_capacity(picture.data.len());
    for y in 0..height as usize {
        for x in 0..width as usize {
            let (from_x, from_y) = source(x, y);
            data.extend_from_slice(&pixels[from_y * stride + from_x]);
        }
    }
    picture.with_pixels(width, height, data)
}
