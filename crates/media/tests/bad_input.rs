//! Damaged, hostile and extreme files: defined errors, no panic, nothing large decoded.

mod golden;

use std::time::{Duration, Instant};

use crossmodal_media::{
    AlphaRule, CenterCrop, ColourOrder, CropRounding, DecodeLimits, DecodeMode, Error, ErrorKind, Filter, ImageFormat,
    ImagePrep, OrientationRule, PassOrder, Resize, decode, dimensions, orientation, sniff, thumbnail,
};
use golden::Golden;

fn kind_of(bytes: &[u8]) -> Option<ErrorKind> {
    decode(bytes, &DecodeLimits::default()).err().map(|error| error.kind())
}

fn prep(side: u32) -> ImagePrep {
    ImagePrep {
        resize: Resize::ShortestEdge { edge: side },
        filter: Filter::Bicubic,
        crop: Some(CenterCrop { width: side, height: side, rounding: CropRounding::HalfEven }),
        colour_order: ColourOrder::AfterResize,
        alpha: AlphaRule::Drop,
        orientation: OrientationRule::Ignore,
        pass_order: PassOrder::Pillow13,
        decode: DecodeMode::Exact,
        rescale: Some(1.0 / 255.0),
        normalise: None,
        limits: DecodeLimits::default(),
    }
}

/// A PNG without pixels whose header declares a size.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut header = b"IHDR".to_vec();
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    file.extend(&header);
    file.extend(crc32(&header).to_be_bytes());
    file
}

fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 })
    })
}

/// A 24-bit bitmap of one colour.
fn bitmap(width: u32, height: u32) -> Vec<u8> {
    let stride = (width * 3).next_multiple_of(4);
    let mut file = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    file.extend(width.to_le_bytes());
    file.extend(height.to_le_bytes());
    file.extend([1, 0, 24, 0]);
    file.resize(54, 0);
    file.resize(54 + (stride * height) as usize, 77);
    file
}

#[test]
fn empty_and_unknown_files_are_told_apart() {
    assert_eq!(kind_of(b""), Some(ErrorKind::Empty));
    for garbage in [&b"x"[..], b"%PDF-1.7", b"RIFF....WAVE", &[0; 1000], b"<html>"] {
        assert_eq!(kind_of(garbage), Some(ErrorKind::UnknownFormat), "{garbage:?}");
        assert_eq!(sniff(garbage), None);
        assert!(dimensions(garbage).is_err());
    }
    let error = decode(b"%PDF-1.7", &DecodeLimits::default()).expect_err("not a picture");
    assert!(error.to_string().contains("25 50 44 46"), "{error}");
}

#[test]
fn bare_signatures_are_malformed() {
    for start in [&b"\xff\xd8\xff"[..], b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"BM", b"II\x2a\0"] {
        assert!(sniff(start).is_some());
        assert_eq!(kind_of(start), Some(ErrorKind::Malformed), "{start:?}");
        assert!(thumbnail(start, 100).is_err());
    }
}

/// Whether pixels of the first picture are missing for certain. An end mark, metadata or other frames may be missing.
fn must_fail(format: ImageFormat, length: usize, whole: usize) -> bool {
    match format {
        ImageFormat::Jpeg => true,
        ImageFormat::Png => length + 20 < whole,
        ImageFormat::Bmp => length + 4 < whole,
        ImageFormat::Gif | ImageFormat::WebP | ImageFormat::Tiff => length < whole / 10,
    }
}

#[test]
fn truncated_files_are_errors() {
    for folder in ["preprocess/images", "preprocess/extra"] {
        let mut files = std::fs::read_dir(golden::folder(folder)).expect("a folder").peekable();
        assert!(files.peek().is_some());
        for path in files.map(|entry| entry.expect("an entry").path()) {
            let bytes = std::fs::read(&path).expect("a file");
            let Some(format) = sniff(&bytes) else {
                continue;
            };
            if bytes.len() > 20_000 {
                continue;
            }
            let step = (bytes.len() / 150).max(1);
            for length in (0..bytes.len()).step_by(step) {
                let result = decode(&bytes[..length], &DecodeLimits::default());
                let _ = orientation(&bytes[..length]);
                if must_fail(format, length, bytes.len()) {
                    let Err(error) = result else { panic!("{} at {length}", path.display()) };
                    let expected = [ErrorKind::Empty, ErrorKind::UnknownFormat, ErrorKind::Malformed];
                    assert!(expected.contains(&error.kind()), "{}: {error}", path.display());
                }
            }
        }
    }
}

#[test]
fn a_truncated_jpeg_says_so() {
    let bytes = Golden::open("preprocess").file("images/10_exif6.jpg");
    for length in [bytes.len() / 2, bytes.len() - 2] {
        let error = decode(&bytes[..length], &DecodeLimits::default()).expect_err("truncated");
        assert!(error.to_string().contains("truncated"), "{error}");
    }
}

#[test]
fn flipped_bits_never_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    let limits = DecodeLimits { max_pixels: 1 << 20, ..DecodeLimits::default() };
    for entry in std::fs::read_dir(golden::folder("preprocess/extra")).expect("a folder") {
        let bytes = std::fs::read(entry.expect("an entry").path()).expect("a file");
        if sniff(&bytes).is_none() {
            continue;
        }
        for _ in 0..40 {
            let mut damaged = bytes.clone();
            for _ in 0..=next() % 4 {
                let at = next() % damaged.len();
                damaged[at] ^= 1 << (next() % 8);
            }
            let _ = decode(&damaged, &limits);
            let _ = orientation(&damaged);
        }
    }
}

#[test]
fn header_bombs_are_refused_at_once() {
    let start = Instant::now();
    for (width, height) in [(20_000, 20_000), (u32::MAX, u32::MAX), (1, u32::MAX)] {
        let bomb = png_header(width, height);
        assert_eq!(dimensions(&bomb), Ok((width, height)));
        let error = decode(&bomb, &DecodeLimits::default()).expect_err("a bomb");
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
        assert!(error.to_string().contains(&format!("{width}x{height}")), "{error}");
    }
    assert_eq!(kind_of(b"GIF89a\xff\xff\xff\xff\0\0\0"), Some(ErrorKind::TooLarge));
    assert!(start.elapsed() < Duration::from_millis(200));
    assert!(matches!(dimensions(&png_header(0, 5)), Err(Error::Malformed { .. })));
}

#[test]
fn limits_are_those_of_the_caller() {
    let golden = Golden::open("preprocess");
    let bytes = golden.file("images/14_large.jpg");
    let pixels = 3000 * 2000;
    assert!(decode(&bytes, &DecodeLimits { max_pixels: pixels, ..DecodeLimits::default() }).is_ok());
    let tight = DecodeLimits { max_pixels: pixels - 1, ..DecodeLimits::default() };
    assert_eq!(decode(&bytes, &tight).expect_err("too many pixels").kind(), ErrorKind::TooLarge);
    let tight = DecodeLimits { max_bytes: bytes.len() as u64 - 1, ..DecodeLimits::default() };
    assert_eq!(decode(&bytes, &tight).expect_err("too many bytes").kind(), ErrorKind::TooLarge);
}

#[test]
fn lines_and_single_pixels_become_full_inputs() {
    for (width, height) in [(1, 1), (1, 900), (900, 1), (2, 3)] {
        let pixels = prep(32).apply(&bitmap(width, height)).expect("a sound bitmap");
        assert_eq!((pixels.width, pixels.height), (32, 32));
        assert!(pixels.data.iter().all(|value| *value == 77), "{width}x{height}");
    }
}

#[test]
fn an_uncropped_line_is_refused_before_it_becomes_huge() {
    let prep = ImagePrep { crop: None, ..prep(4096) };
    let error = prep.apply(&bitmap(1, 20_000)).expect_err("4096 x 81920000 pixels");
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
}

#[test]
fn thumbnails_are_small_upright_jpegs() {
    let golden = Golden::open("preprocess");
    for (name, image) in golden.images() {
        let bytes = golden.file(image["file"].as_str().expect("a file"));
        let small = thumbnail(&bytes, 48).expect("a sound file");
        assert_eq!(sniff(&small), Some(ImageFormat::Jpeg));
        let (width, height) = dimensions(&small).expect("a sound thumbnail");
        assert!(width <= 48 && height <= 48, "{name}: {width}x{height}");
    }
    // Stored as 120x67 and turned by a quarter.
    let turned = thumbnail(&golden.file("images/10_exif6.jpg"), 48).expect("a sound file");
    assert_eq!(dimensions(&turned), Ok((27, 48)));
}
