//! JPEG, to the very pixels of libjpeg-turbo with the settings that Pillow uses: accurate integer inverse DCT, smooth
//! chroma upsampling, block smoothing for incomplete progressive files.

use libjpeg_turbo_rs::{DecodeLimits as TurboLimits, Decoder, JpegError, PixelFormat, ScalingFactor};

use super::{Decoded, Purpose};
use crate::format::jpeg_segment;
use crate::orientation::{exif_orientation, xmp_orientation};
use crate::{DecodeLimits, ImageFormat, Picture, PixelMode, Result, spare};

/// More scans than any encoder writes; bounds the time that a crafted progressive file can take.
const MAX_SCANS: usize = 500;

/// What stands before the first scan.
pub(crate) struct JpegHeader {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Bits of a sample.
    precision: u8,
    /// Whether there is no DCT, whose blocks could be decoded smaller.
    lossless: bool,
    /// Horizontal and vertical sampling factor of each component.
    sampling: Vec<(u8, u8)>,
    /// All EXIF segments in a row.
    exif: Vec<u8>,
    xmp: Vec<u8>,
    /// Position after the first start-of-scan marker.
    scan_at: usize,
}

const FORMAT: ImageFormat = ImageFormat::Jpeg;

impl JpegHeader {
    /// Walks the markers up to the first scan, the way Pillow's reader does.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let cut_short = || FORMAT.malformed("the file ends before the picture starts");
        let mut header = Self {
            width: 0,
            height: 0,
            precision: 0,
            lossless: false,
            sampling: Vec::new(),
            exif: Vec::new(),
            xmp: Vec::new(),
            scan_at: 0,
        };
        let mut at = 2;
        loop {
            // Bytes that belong to no marker, and fill bytes, are skipped.
            while *bytes.get(at).ok_or_else(cut_short)? != 0xff {
                at += 1;
            }
            let marker = *bytes.get(at + 1).ok_or_else(cut_short)?;
            match marker {
                0xff => {
                    at += 1;
                    continue;
                }
                0 | 0x01 | 0xd0..=0xd8 => {
                    at += 2;
                    continue;
                }
                0xd9 => return Err(FORMAT.malformed("the end marker stands before any picture")),
                _ => {}
            }
            let segment = jpeg_segment(bytes, at + 2).ok_or_else(cut_short)?;
            at += 4 + segment.len();
            match marker {
                0xda => {
                    header.scan_at = at;
                    return header.checked();
                }
                // Start of frame of every process; C4, C8 and CC are other things.
                0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                    header.lossless = marker & 3 == 3;
                    header.read_frame(segment).ok_or_else(|| FORMAT.malformed("the frame header is cut short"))?;
                }
                0xe1 => header.read_app1(segment),
                _ => {}
            }
        }
    }

    fn read_frame(&mut self, segment: &[u8]) -> Option<()> {
        let [precision, h0, h1, w0, w1, count] = *segment.first_chunk::<6>()?;
        self.precision = precision;
        self.height = u16::from_be_bytes([h0, h1]).into();
        self.width = u16::from_be_bytes([w0, w1]).into();
        let components = segment.get(6..6 + 3 * usize::from(count))?;
        self.sampling = components.chunks_exact(3).map(|item| (item[1] >> 4, item[1] & 15)).collect();
        Some(())
    }

    fn read_app1(&mut self, segment: &[u8]) {
        if let Some(rest) = segment.strip_prefix(b"Exif\0\0") {
            self.exif.extend_from_slice(rest);
        } else if let Some(rest) = segment.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0") {
            self.xmp = rest.to_vec();
        }
    }

    fn checked(self) -> Result<Self> {
        if self.sampling.is_empty() {
            Err(FORMAT.malformed("a scan starts before any frame header"))
        } else if self.width == 0 || self.height == 0 {
            Err(FORMAT.malformed(format_args!("a size of {}x{} pixels", self.width, self.height)))
        } else {
            Ok(self)
        }
    }

    /// EXIF orientation; 1 if there is none.
    fn orientation(&self) -> u8 {
        exif_orientation(&self.exif).or_else(|| xmp_orientation(&self.xmp)).unwrap_or(1)
    }

    fn mode(&self) -> Result<(PixelMode, PixelFormat)> {
        if self.precision != 8 {
            return Err(FORMAT.unsupported(format_args!("{} bits a sample, only 8 are read", self.precision)));
        }
        match self.sampling.as_slice() {
            [_] => Ok((PixelMode::Grey, PixelFormat::Grayscale)),
            [_, _, _] => Ok((PixelMode::Rgb, PixelFormat::Rgb)),
            &[first, second, third, black] if !exact_cmyk(first, second, third, black) => {
                Err(FORMAT.unsupported("CMYK in an unusual subsampling"))
            }
            [_, _, _, _] => Ok((PixelMode::Cmyk, PixelFormat::Cmyk)),
            other => Err(FORMAT.unsupported(format_args!("{} components, only 1, 3 and 4 are read", other.len()))),
        }
    }
}

/// Whether the decoder equals libjpeg-turbo for four components with these sampling factors. It takes the first and last
/// plane for full-size ones and the middle two for equals, and halves heights without smoothing.
fn exact_cmyk(first: (u8, u8), second: (u8, u8), third: (u8, u8), black: (u8, u8)) -> bool {
    let half_height = first.0 == second.0 && first.1 == 2 * second.1;
    first == black && second == third && !half_height
}

/// EXIF orientation of the file; 1 if it declares none.
pub(super) fn orientation(bytes: &[u8]) -> Result<u8> {
    Ok(JpegHeader::parse(bytes)?.orientation())
}

/// Decodes to [`PixelMode::Grey`], [`PixelMode::Rgb`] or [`PixelMode::Cmyk`], the first two only as large as the purpose
/// needs them, to the pixels of libjpeg-turbo's smaller inverse DCTs.
///
/// Damaged files are refused where libjpeg would fill in grey, and so are files without an end marker.
pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits, purpose: Option<&Purpose>) -> Result<Decoded> {
    let header = JpegHeader::parse(bytes)?;
    let (mode, output) = header.mode()?;
    // Entropy-coded data can't contain this pair of bytes; thumbnails, which can, stand before the first scan.
    if !bytes[header.scan_at..].windows(2).rev().any(|pair| pair == [0xff, 0xd9]) {
        return Err(FORMAT.malformed("the file is truncated: it has no end marker"));
    }
    let full = (header.width, header.height);
    let reduction = match purpose {
        Some(purpose) if mode != PixelMode::Cmyk && !header.lossless => purpose.reduction(full, header.orientation()),
        _ => 1,
    };
    let turbo_limits = TurboLimits { max_pixels: limits.max_pixels, max_scans: MAX_SCANS, ..TurboLimits::default() };
    let scale = ScalingFactor::try_new(1, reduction).map_err(describe)?;
    let decoder = Decoder::new_with_limits(bytes, turbo_limits).map_err(describe)?;
    let decoder = decoder.with_output_format(output).with_block_smoothing(true).with_scale(scale);
    let size = (full.0.div_ceil(reduction), full.1.div_ceil(reduction));
    if (decoder.output_width(), decoder.output_height()) != (size.0 as usize, size.1 as usize) {
        return Err(FORMAT.malformed("two frame headers disagree about the size"));
    }
    let mut data = spare::take(size.0 as usize * size.1 as usize * mode.bytes());
    let written = decoder.decode_image_into(&mut data).map_err(describe)?.bytes_written;
    if written != data.len() {
        return Err(FORMAT.malformed("the decoder gave another number of pixels than the header"));
    }
    if mode == PixelMode::Cmyk {
        // Adobe stores inks inverted, and Pillow takes every CMYK JPEG for one of Adobe's.
        data.iter_mut().for_each(|ink| *ink = 255 - *ink);
    }
    Ok(Decoded { picture: Picture::new(size.0, size.1, mode, data), reduction, full })
}

fn describe(error: JpegError) -> crate::Error {
    match error {
        JpegError::Unsupported(reason) => FORMAT.unsupported(reason),
        JpegError::UnexpectedEof => FORMAT.malformed("the compressed data ends too early (truncated or damaged)"),
        other => FORMAT.malformed(other),
    }
}
