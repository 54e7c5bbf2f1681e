//! Fast decoding: equal where nothing is to be gained, close elsewhere, and in the same frame.

use crossmodal_media::{
    AlphaRule, CenterCrop, ColourOrder, CropRounding, DecodeLimits, DecodeMode, Filter, ImagePrep, OrientationRule,
    PassOrder, PrepOverrides, Resize, decode_rgb, thumbnail,
};
use libjpeg_turbo_rs::{PixelFormat, Subsampling, compress};

fn prep(resize: Resize, decode: DecodeMode) -> ImagePrep {
    ImagePrep {
        resize,
        filter: Filter::Bicubic,
        crop: Some(CenterCrop { width: 64, height: 64, rounding: CropRounding::Floor }),
        colour_order: ColourOrder::BeforeResize,
        alpha: AlphaRule::Drop,
        orientation: OrientationRule::Exif,
        pass_order: PassOrder::Pillow13,
        decode,
        rescale: Some(1.0 / 255.0),
        normalise: None,
        limits: DecodeLimits::default(),
    }
}

/// Soft waves and a bright square away from the middle: everything that a wrong turn or frame would move.
fn jpeg(width: usize, height: usize, format: PixelFormat) -> Vec<u8> {
    let channels = if format == PixelFormat::Grayscale { 1 } else { 3 };
    let mut data = Vec::with_capacity(width * height * channels);
    for y in 0..height {
        for x in 0..width {
            let (across, down) = (x as f64 / width as f64, y as f64 / height as f64);
            let inside = (0.4..0.6).contains(&across) && (0.2..0.45).contains(&down);
            for channel in 0..channels {
                let wave = 90.0 * (9.0 * across + 5.0 * down + channel as f64).sin() + 110.0;
                data.push(if inside { 250 } else { wave as u8 });
            }
        }
    }
    compress(&data, width, height, format, 90, Subsampling::S420).expect("an encodable picture")
}

/// The file with an EXIF orientation.
fn turned(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    let mut file = jpeg[..2].to_vec();
    file.extend([0xff, 0xe1, 0, exif.len() as u8 + 2]);
    file.extend(exif);
    file.extend(&jpeg[2..]);
    file
}

/// Mean and largest difference between the two modes.
fn difference(file: &[u8], resize: Resize) -> (f64, u8) {
    let [exact, fast] =
        [DecodeMode::Exact, DecodeMode::Fast].map(|mode| prep(resize, mode).apply(file).expect("sound"));
    assert_eq!((exact.width, exact.height), (fast.width, fast.height));
    let differences: Vec<u8> = exact.data.iter().zip(&fast.data).map(|(a, b)| a.abs_diff(*b)).collect();
    let sum: f64 = differences.iter().map(|difference| f64::from(*difference)).sum();
    (sum / differences.len() as f64, differences.into_iter().max().unwrap_or(0))
}

const EDGE: Resize = Resize::ShortestEdge { edge: 64 };

#[test]
fn large_jpegs_come_out_close_in_every_orientation() {
    for format in [PixelFormat::Rgb, PixelFormat::Grayscale] {
        for (width, height) in [(1100, 801), (1027, 1030), (517, 613), (300, 257)] {
            let plain = jpeg(width, height, format);
            for orientation in 1..=8 {
                for resize in [EDGE, Resize::Squash { width: 64, height: 64 }] {
                    let (mean, most) = difference(&turned(&plain, orientation), resize);
                    let context = format!("{format:?} {width}x{height}, orientation {orientation}, {resize:?}");
                    assert!(most > 0, "{context}: nothing was saved");
                    assert!(mean < 0.6 && most < 25, "{context}: mean difference {mean}, largest {most}");
                }
            }
        }
    }
}

#[test]
fn pictures_that_shrink_little_come_out_equal() {
    for (width, height) in [(255, 900), (64, 64), (20, 30), (200, 100)] {
        let file = turned(&jpeg(width, height, PixelFormat::Rgb), 6);
        assert_eq!(difference(&file, EDGE), (0.0, 0), "{width}x{height}");
    }
    let large = jpeg(1000, 700, PixelFormat::Rgb);
    assert_eq!(difference(&large, Resize::None), (0.0, 0));
    assert_eq!(difference(&large, Resize::Squash { width: 600, height: 64 }), (0.0, 0));
}

#[test]
fn other_formats_are_always_decoded_in_full() {
    // A bitmap of 512 x 512 pixels of 24 bits.
    let header = [14 + 40, 40, 512, 512, 1 | 24 << 16, 0, 512 * 512 * 3, 0, 0, 0, 0];
    let mut file = b"BM\0\0\0\0\0\0\0\0".to_vec();
    file.extend(header.iter().flat_map(|number: &u32| number.to_le_bytes()));
    file.extend((0..512 * 512 * 3_u32).map(|at| (at.wrapping_mul(at) >> 9) as u8));
    assert_eq!(difference(&file, EDGE), (0.0, 0));
}

#[test]
fn memory_of_one_picture_leaves_no_trace_in_the_next() {
    let files =
        [jpeg(900, 700, PixelFormat::Rgb), jpeg(130, 700, PixelFormat::Grayscale), jpeg(333, 91, PixelFormat::Rgb)];
    let prep = prep(EDGE, DecodeMode::Exact);
    let fresh = files.each_ref().map(|file| {
        let work = || prep.apply(file).expect("sound");
        std::thread::scope(|scope| scope.spawn(work).join().expect("no panic"))
    });
    for round in 0..6 {
        let index = round * 2 % 3;
        assert_eq!(prep.apply(&files[index]).expect("sound"), fresh[index], "round {round}");
    }
}

#[test]
fn only_fast_decoding_changes_the_fingerprint() {
    let exact = prep(EDGE, DecodeMode::Exact);
    let fast = exact.clone().with(&PrepOverrides { decode: Some(DecodeMode::Fast), ..PrepOverrides::default() });
    assert_eq!(fast, prep(EDGE, DecodeMode::Fast));
    assert_ne!(fast.fingerprint(), exact.fingerprint());
    // As written into collections before there was a choice.
    let known = "ShortestEdge { edge: 64 } Bicubic Some(CenterCrop { width: 64, height: 64, rounding: Floor }) BeforeResize \
                 Drop Exif Pillow13 Some(0.00392156862745098) None";
    assert_eq!(exact.fingerprint(), known);
    assert_eq!(exact.clone().with(&PrepOverrides::default()), exact);
}

#[test]
fn thumbnails_of_reduced_jpegs_show_the_same_upright_picture() {
    let plain = jpeg(1100, 800, PixelFormat::Rgb);
    let limits = DecodeLimits::default();
    for orientation in 1..=8 {
        let file = turned(&plain, orientation);
        let small = thumbnail(&file, 110).expect("sound");
        let shown = decode_rgb(&small, &limits, OrientationRule::Ignore, AlphaRule::Drop).expect("sound");
        let size = if orientation < 5 { (110, 80) } else { (80, 110) };
        assert_eq!((shown.width, shown.height), size, "{orientation}");
        let exact = prep(Resize::Squash { width: size.0, height: size.1 }, DecodeMode::Exact);
        let expected = ImagePrep { filter: Filter::Bilinear, crop: None, ..exact }.apply(&file).expect("sound");
        let sum: u64 = shown.data.iter().zip(&expected.data).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        let mean = sum as f64 / expected.data.len() as f64;
        assert!(mean < 3.0, "orientation {orientation}: mean difference {mean}");
    }
}
