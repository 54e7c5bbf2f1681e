//! How many pictures a second are augmented, part by part and all together, and how many samples a second a loader gives: on one thread.
//!
//! `cargo run --release -p crossmodal-train --example data_speed`

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossmodal_media::{AlphaRule, Picture, PixelMode};
use crossmodal_models::{LoadOptions, load_clip};
use crossmodal_train::BatchSource;
use crossmodal_train::data::augment::{
    Affine, Augmentation, Background, Blur, ColourJitter, Erase, FlatFill, Framing, LineArt, Noise, Posterise,
    RandomResizedCrop,
};
use crossmodal_train::data::{Columns, DataSet, Inputs, Loader, LoaderOptions, Random, RightColumn};

const TIME: Duration = Duration::from_millis(500);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for (side, source) in [(64, 96), (224, 320)] {
        println!("{side} x {side} pixels from {source} x {source}, pictures a second:");
        for (name, augmentation) in parts() {
            let rates = [PixelMode::Rgb, PixelMode::Rgba].map(|mode| rate(&augmentation, side, source, mode));
            println!("  {name:<12} {:>9.0} opaque {:>9.0} with alpha", rates[0], rates[1]);
        }
    }
    let gallery = concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples/gallery/captions.csv");
    let columns = Columns { right: vec![RightColumn::named("en")], ..Columns::default() };
    let (data, model) = (DataSet::open(gallery, &columns)?, Arc::new(load_clip("mini", &LoadOptions::default())?));
    for (name, augmentation) in [("as the model does", None), ("everything", Some(everything()))] {
        for workers in [1, 2] {
            let options = LoaderOptions {
                batch_size: 60,
                workers,
                augmentation: augmentation.clone(),
                ..LoaderOptions::default()
            };
            let mut loader = Loader::new(&data, Inputs::of(&model), &options)?;
            let (start, mut samples) = (Instant::now(), 0);
            while start.elapsed() < TIME * 4 {
                samples += loader.next_batch()?.map_or(0, |batch| batch.keys.len());
            }
            let rate = samples as f64 / start.elapsed().as_secs_f64();
            println!("loader, {name}, {workers} threads: {rate:.0} samples a second");
        }
    }
    Ok(())
}

fn rate(augmentation: &Augmentation, side: u32, source: u32, mode: PixelMode) -> f64 {
    let mut random = Random::about(&[1]);
    let data = (0..source as usize * source as usize * mode.bytes()).map(|_| random.next_u64() as u8).collect();
    let picture = Picture { width: source, height: source, mode, data, palette: Vec::new(), transparency: None };
    let framing = Framing::cover(side, side);
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < TIME {
        std::hint::black_box(augmentation.apply(&picture, &framing, AlphaRule::OverWhite, &mut random));
        count += 1;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

fn parts() -> Vec<(&'static str, Augmentation)> {
    let none = Augmentation::default();
    let Augmentation { crop, affine, line_art, background, flat_fill, colour, posterise, blur, noise, erase, .. } =
        always();
    vec![
        ("resize alone", none.clone()),
        ("crop", Augmentation { crop, ..none.clone() }),
        ("affine", Augmentation { affine, ..none.clone() }),
        ("line art", Augmentation { line_art, ..none.clone() }),
        ("background", Augmentation { background, ..none.clone() }),
        ("flat fill", Augmentation { flat_fill, ..none.clone() }),
        ("colour", Augmentation { colour, ..none.clone() }),
        ("posterise", Augmentation { posterise, ..none.clone() }),
        ("blur", Augmentation { blur, ..none.clone() }),
        ("noise", Augmentation { noise, ..none.clone() }),
        ("erase", Augmentation { erase, ..none }),
        ("everything", everything()),
    ]
}

/// Every part, always.
fn always() -> Augmentation {
    Augmentation {
        crop: Some(RandomResizedCrop { scale: (0.5, 1.0), ..RandomResizedCrop::default() }),
        mirror: 0.5,
        affine: Some(Affine { probability: 1.0, rotate: 15.0, shift: 0.1, shear: 10.0, zoom: (0.8, 1.1) }),
        line_art: Some(LineArt::default()),
        background: Some(Background::default()),
        flat_fill: Some(FlatFill::default()),
        colour: Some(ColourJitter { probability: 1.0, brightness: 0.3, contrast: 0.3, saturation: 0.3, hue: 0.1 }),
        grey: 0.1,
        posterise: Some(Posterise::default()),
        blur: Some(Blur::default()),
        noise: Some(Noise::default()),
        erase: Some(Erase::default()),
    }
}

/// Every part, as often as a recipe would want it.
fn everything() -> Augmentation {
    let all = always();
    Augmentation {
        line_art: all.line_art.map(|part| LineArt { probability: 0.1, ..part }),
        flat_fill: all.flat_fill.map(|part| FlatFill { probability: 0.1, ..part }),
        posterise: all.posterise.map(|part| Posterise { probability: 0.1, ..part }),
        blur: all.blur.map(|part| Blur { probability: 0.3, ..part }),
        noise: all.noise.map(|part| Noise { probability: 0.3, ..part }),
        erase: all.erase.map(|part| Erase { probability: 0.2, ..part }),
        ..all
    }
}
