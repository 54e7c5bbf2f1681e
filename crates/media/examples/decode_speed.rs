//! Measures what a picture's way from file to tensor costs, decoded in full and decoded fast, and what a thumbnail costs, on one thread.
//!
//! `cargo run --release -p crossmodal-media --example decode_speed FILE...`

use std::hint::black_box;
use std::time::{Duration, Instant};

use crossmodal_media::{
    AlphaRule, CenterCrop, ColourOrder, CropRounding, DecodeLimits, DecodeMode, Filter, ImagePrep, OrientationRule,
    PassOrder, Region, Resize, decode, resize, thumbnail,
};

const SIDE: u32 = 224;
const THUMBNAIL: u32 = 440;
const RUNS: usize = 25;

/// CLIP's preparation, as Hugging Face does it.
fn prep(decode: DecodeMode) -> ImagePrep {
    ImagePrep {
        resize: Resize::ShortestEdge { edge: SIDE },
        filter: Filter::Bicubic,
        crop: Some(CenterCrop { width: SIDE, height: SIDE, rounding: CropRounding::Floor }),
        colour_order: ColourOrder::BeforeResize,
        alpha: AlphaRule::OverWhite,
        orientation: OrientationRule::Exif,
        pass_order: PassOrder::Pillow13,
        decode,
        rescale: Some(1.0 / 255.0),
        normalise: Some(([0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_6, 0.275_777_1])),
        limits: DecodeLimits::default(),
    }
}

fn main() {
    for path in std::env::args().skip(1) {
        let bytes = std::fs::read(&path).expect("a readable file");
        let (exact, fast) = (prep(DecodeMode::Exact), prep(DecodeMode::Fast));
        let picture = decode(&bytes, &exact.limits).expect("a sound file");
        println!("{path}: {}x{} pixels, {} bytes, best of {RUNS} runs", picture.width, picture.height, bytes.len());
        let size = exact.resize.target((picture.width, picture.height));
        let (x, y) = ((size.0 - SIDE) / 2, (size.1 - SIDE) / 2);
        let middle = Region { x: x..x + SIDE, y: y..y + SIDE };
        let shrink = |region: &Region| {
            black_box(resize(&picture, size, region, exact.filter, exact.pass_order));
        };
        let pixels = exact.apply(&bytes).expect("a sound file");
        let [decoding, cropped, whole, normalising, exactly, quickly, small] = best([
            &mut || drop(black_box(decode(&bytes, &exact.limits))),
            &mut || shrink(&middle),
            &mut || shrink(&Region::whole(size.0, size.1)),
            &mut || drop(black_box(exact.normalise(&pixels))),
            &mut || drop(black_box(exact.tensor(&bytes))),
            &mut || drop(black_box(fast.tensor(&bytes))),
            &mut || drop(black_box(thumbnail(&bytes, THUMBNAIL))),
        ]);
        println!("  decode into fresh memory {decoding:8.2} ms");
        println!("  resize and crop          {cropped:8.2} ms");
        println!("  resize without a crop    {whole:8.2} ms");
        println!("  normalise                {normalising:8.2} ms");
        println!("  file to tensor, exact    {exactly:8.2} ms");
        println!("  file to tensor, fast     {quickly:8.2} ms, {:.2} of exact", quickly / exactly);
        println!("  thumbnail of {THUMBNAIL} pixels  {small:8.2} ms");
    }
}

/// Least time of each task in milliseconds. Tasks take turns, so that a busy moment hits all of them.
fn best<const N: usize>(mut tasks: [&mut dyn FnMut(); N]) -> [f64; N] {
    let mut least = [Duration::MAX; N];
    for _ in 0..RUNS {
        for (task, least) in tasks.iter_mut().zip(&mut least) {
            let start = Instant::now();
            task();
            *least = start.elapsed().min(*least);
        }
    }
    least.map(|time| time.as_secs_f64() * 1e3)
}
