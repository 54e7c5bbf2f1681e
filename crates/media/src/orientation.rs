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

/// How stored pixels are turned to stand upright: rows and columns change places, then each axis may be mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Turn {
    /// Whether rows and columns change places.
    pub(crate) swap: bool,
    /// Whether the upright picture's columns run against the stored direction.
    pub(crate) mirror_x: bool,
    /// Whether the upright picture's rows run against the stored direction.
    pub(crate) mirror_y: bool,
}

impl Turn {
    /// What an EXIF orientation asks for; nothing but for 2 to 8.
    pub(crate) fn new(orientation: u8) -> Self {
        Self {
            swap: matches!(orientation, 5..=8),
            mirror_x: matches!(orientation, 2 | 3 | 6 | 7),
            mirror_y: matches!(orientation, 3 | 4 | 7 | 8),
        }
    }

    /// Whether pixels stay where they are.
    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
    }

    /// Width and height of the upright picture, or back.
    pub(crate) fn sides(self, (width, height): (u32, u32)) -> (u32, u32) {
        if self.swap { (height, width) } else { (width, height) }
    }

    /// The picture, upright.
    pub(crate) fn apply(self, picture: &Picture) -> Picture {
        match picture.mode.bytes() {
            1 => self.turned::<1>(picture),
            2 => self.turned::<2>(picture),
            3 => self.turned::<3>(picture),
            _ => self.turned::<4>(picture),
        }
    }

    fn turned<const N: usize>(self, picture: &Picture) -> Picture {
        let (pixels, _) = picture.data.as_chunks::<N>();
        let stride = picture.width as usize;
        let (width, height) = self.sides((picture.width, picture.height));
        let mut data = Vec::with_capacity(picture.data.len());
        for y in 0..height as usize {
            let y = if self.mirror_y { height as usize - 1 - y } else { y };
            for x in 0..width as usize {
                let x = if self.mirror_x { width as usize - 1 - x } else { x };
                data.extend_from_slice(&pixels[if self.swap { x * stride + y } else { y * stride + x }]);
            }
        }
        picture.with_pixels(width, height, data)
    }
}

/// Turns `picture` upright. Orientations other than 2 to 8 leave it as it is.
pub(crate) fn upright(picture: Picture, orientation: u8) -> Picture {
    let turn = Turn::new(orientation);
    if turn.is_none() { picture } else { turn.apply(&picture) }
}
