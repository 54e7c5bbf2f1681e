//! Recognising picture formats by their content, and reading sizes from headers alone.

use std::io::Cursor;

use crate::bytes::{be16, be32, le16, le32};
use crate::decode::jpeg::JpegHeader;
use crate::{Error, Result};

/// A picture format this crate reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageFormat {
    /// JPEG, baseline and progressive.
    Jpeg,
    /// PNG; of an animated one, its first picture.
    Png,
    /// GIF; of an animated one, its first frame.
    Gif,
    /// WebP, lossy and lossless; of an animated one, its first frame.
    WebP,
    /// Windows bitmap.
    Bmp,
    /// TIFF; of several pages, the first.
    Tiff,
}

impl ImageFormat {
    /// The usual ending of its files, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            Self::Png => "png",
            Self::Gif => "gif",
            Self::WebP => "webp",
            Self::Bmp => "bmp",
            Self::Tiff => "tif",
        }
    }

    /// Its media type, as HTTP names it.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Gif => "image/gif",
            Self::WebP => "image/webp",
            Self::Bmp => "image/bmp",
            Self::Tiff => "image/tiff",
        }
    }

    /// The format's usual name, for example `JPEG`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::Gif => "GIF",
            Self::WebP => "WebP",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
        }
    }

    /// An error saying that a file of this format is damaged.
    pub(crate) fn malformed(self, reason: impl ToString) -> Error {
        Error::Malformed { format: self.name(), reason: reason.to_string() }
    }

    /// An error saying that a file of this format uses something that isn't read.
    pub(crate) fn unsupported(self, reason: impl ToString) -> Error {
        Error::Unsupported { format: self.name(), reason: reason.to_string() }
    }
}

const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
const TIFF_STARTS: [&[u8]; 4] = [b"II\x2a\0", b"MM\0\x2a", b"II\x2b\0", b"MM\0\x2b"];

/// The format that `bytes` start like, whatever the file was called; `None` if it is none that this crate reads.
pub fn sniff(bytes: &[u8]) -> Option<ImageFormat> {
    if bytes.starts_with(b"\xff\xd8\xff") {
        Some(ImageFormat::Jpeg)
    } else if bytes.starts_with(PNG_SIGNATURE) {
        Some(ImageFormat::Png)
    } else if bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a") {
        Some(ImageFormat::Gif)
    } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        Some(ImageFormat::WebP)
    } else if bytes.starts_with(b"BM") {
        Some(ImageFormat::Bmp)
    } else if TIFF_STARTS.iter().any(|start| bytes.starts_with(start)) {
        Some(ImageFormat::Tiff)
    } else {
        None
    }
}

/// [`sniff`], with an error that shows how the file starts.
pub(crate) fn recognise(bytes: &[u8]) -> Result<ImageFormat> {
    if bytes.is_empty() {
        return Err(Error::Empty);
    }
    sniff(bytes).ok_or_else(|| Error::UnknownFormat {
        start: bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "),
    })
}

/// Width and height in pixels as the header declares them, before any EXIF orientation. Decodes nothing.
///
/// # Errors
/// [`Error::Empty`], [`Error::UnknownFormat`], or [`Error::Malformed`] if the header is cut short or a side is 0.
pub fn dimensions(bytes: &[u8]) -> Result<(u32, u32)> {
    let format = recognise(bytes)?;
    let size = match format {
        ImageFormat::Jpeg => JpegHeader::parse(bytes).map(|header| Some((header.width, header.height)))?,
        ImageFormat::Png => png_size(bytes),
        ImageFormat::Gif => le16(bytes, 6).zip(le16(bytes, 8)).map(|(w, h)| (w.into(), h.into())),
        ImageFormat::WebP => webp_size(bytes),
        ImageFormat::Bmp => bmp_size(bytes),
        ImageFormat::Tiff => Some(
            tiff::decoder::Decoder::new(Cursor::new(bytes))
                .and_then(|mut decoder| decoder.dimensions())
                .map_err(|error| format.malformed(error))?,
        ),
    };
    match size {
        None => Err(format.malformed("the header is cut short or damaged")),
        Some((width, height)) if width == 0 || height == 0 => {
            Err(format.malformed(format_args!("a size of {width}x{height} pixels")))
        }
        Some(size) => Ok(size),
    }
}

fn png_size(bytes: &[u8]) -> Option<(u32, u32)> {
    (bytes.get(12..16)? == b"IHDR").then_some(())?;
    Some((be32(bytes, 16)?, be32(bytes, 20)?))
}

fn webp_size(bytes: &[u8]) -> Option<(u32, u32)> {
    match bytes.get(12..16)? {
        b"VP8 " if bytes.get(23..26)? == b"\x9d\x01\x2a" => {
            Some((u32::from(le16(bytes, 26)? & 0x3fff), u32::from(le16(bytes, 28)? & 0x3fff)))
        }
        b"VP8L" if *bytes.get(20)? == 0x2f => {
            let bits = le32(bytes, 21)?;
            Some(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1))
        }
        b"VP8X" => Some(((le32(bytes, 24)? & 0xff_ffff) + 1, (le32(bytes, 26)? >> 8) + 1)),
        _ => None,
    }
}

fn bmp_size(bytes: &[u8]) -> Option<(u32, u32)> {
    if le32(bytes, 14)? == 12 {
        return Some((le16(bytes, 18)?.into(), le16(bytes, 20)?.into()));
    }
    let height = le32(bytes, 22)?;
    // A negative height means rows from the top.
    let height = if bytes[25] == 0xff { height.wrapping_neg() } else { height };
    Some((le32(bytes, 18)?, height))
}

/// Big-endian length and position of a JPEG segment's payload; shared by the header walk.
pub(crate) fn jpeg_segment(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let length = usize::from(be16(bytes, at)?);
    bytes.get(at + 2..at + length.max(2))
}
