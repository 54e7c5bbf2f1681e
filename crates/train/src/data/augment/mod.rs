//! Augmentation: what becomes of a decoded picture before the model's own normalisation.
//!
//! Each part is plain data, is left out where it is `None`, and happens with a probability of its own. The order is fixed: crop and resize, mirror,
//! affine, line art or background, flat fills, colours, grey, posterise, blur, noise, erase. Transparency is kept until the background is chosen, so
//! that what a turn or a shift uncovers is background too.

mod blur;
mod canvas;
mod colour;
mod geometry;
mod style;

use crossmodal_media::{AlphaRule, ImagePrep, Picture, RgbPixels, decode_oriented};
use serde::{Deserialize, Serialize};

pub use blur::{Blur, Erase, Noise};
pub use canvas::{Canvas, Framing};
pub use colour::{ColourJitter, Posterise};
pub use geometry::{Affine, RandomResizedCrop};
pub use style::{Background, FlatFill, LineArt};

use super::random::Random;
use crate::error::{Error, Result};

/// What becomes of pictures. The default leaves them as they are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augmentation {
    /// A random part of the picture is taken instead of what the model's preparation takes.
    pub crop: Option<RandomResizedCrop>,
    /// Probability of mirroring left and right.
    pub mirror: f32,
    /// Shift, turn, shear and zoom.
    pub affine: Option<Affine>,
    /// A drawing of the edges.
    pub line_art: Option<LineArt>,
    /// What shows where the picture is transparent; `None` follows the model's rule.
    pub background: Option<Background>,
    /// Few flat colours.
    pub flat_fill: Option<FlatFill>,
    /// Brightness, contrast, saturation and hue.
    pub colour: Option<ColourJitter>,
    /// Probability of taking the colours away.
    pub grey: f32,
    /// Fewer levels.
    pub posterise: Option<Posterise>,
    /// Gaussian blur.
    pub blur: Option<Blur>,
    /// Noise.
    pub noise: Option<Noise>,
    /// A rectangle in one colour.
    pub erase: Option<Erase>,
}

/// Checks a probability.
fn probability(field: &str, value: f32) -> Result<()> {
    range(field, value, 0.0, 1.0)
}

/// Checks a value against its bounds.
fn range(field: &str, value: f32, low: f32, high: f32) -> Result<()> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(Error::Invalid(format!("augmentation: {field} is {value}, expected {low} to {high}")))
    }
}

/// Checks a pair of ascending bounds.
fn span(field: &str, (from, to): (f32, f32), low: f32, high: f32) -> Result<()> {
    range(field, from, low, high)?;
    range(field, to, low, high)?;
    if from <= to {
        Ok(())
    } else {
        Err(Error::Invalid(format!("augmentation: {field} goes from {from} to {to}, expected an ascending range")))
    }
}

impl Augmentation {
    /// What open_clip does unless told otherwise: a random part of at least nine tenths of the picture.
    pub fn mild() -> Self {
        let crop = RandomResizedCrop { scale: (0.9, 1.0), ..RandomResizedCrop::default() };
        Self { crop: Some(crop), ..Self::default() }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// A field out of range, by its name.
    pub fn check(&self) -> Result<()> {
        let Self { crop, mirror, affine, line_art, background, flat_fill, colour, grey, posterise, blur, noise, erase } =
            self;
        probability("mirror", *mirror)?;
        probability("grey", *grey)?;
        crop.as_ref().map_or(Ok(()), RandomResizedCrop::check)?;
        affine.as_ref().map_or(Ok(()), Affine::check)?;
        line_art.as_ref().map_or(Ok(()), LineArt::check)?;
        background.as_ref().map_or(Ok(()), Background::check)?;
        flat_fill.as_ref().map_or(Ok(()), FlatFill::check)?;
        colour.as_ref().map_or(Ok(()), ColourJitter::check)?;
        posterise.as_ref().map_or(Ok(()), Posterise::check)?;
        blur.as_ref().map_or(Ok(()), Blur::check)?;
        noise.as_ref().map_or(Ok(()), Noise::check)?;
        erase.as_ref().map_or(Ok(()), Erase::check)
    }

    /// Decodes and augments a file. What comes out is of the model's size and is still to be normalised.
    ///
    /// # Errors
    /// A picture that can't be decoded, or a preparation without a fixed size.
    pub fn picture(&self, bytes: &[u8], prep: &ImagePrep, random: &mut Random) -> Result<RgbPixels> {
        let picture = decode_oriented(bytes, &prep.limits, prep.orientation);
        let picture = picture.map_err(|error| Error::Model(error.into()))?;
        Ok(self.apply(&picture, &Framing::of(prep)?, prep.alpha, random))
    }

    /// Augments a decoded, upright picture and brings it to the size of `framing`. Without a [`Background`], `alpha` says what transparent parts
    /// become: white, or what the picture hides there (black, where an affine part has uncovered the ground).
    pub fn apply(&self, picture: &Picture, framing: &Framing, alpha: AlphaRule, random: &mut Random) -> RgbPixels {
        let size = (picture.width, picture.height);
        let region = self.crop.as_ref().map(|crop| crop.region(size, random));
        let mut canvas = framing.frame(picture, region.as_ref());
        if random.chance(self.mirror) {
            canvas.mirror();
        }
        if let Some(affine) = &self.affine {
            affine.apply(&mut canvas, random);
        }
        let is_drawn = self.line_art.as_ref().is_some_and(|line_art| line_art.apply(&mut canvas, random));
        match &self.background {
            Some(background) if !is_drawn => background.apply(&mut canvas, random),
            Some(_) | None => canvas.lay_over(alpha),
        }
        if let Some(flat_fill) = self.flat_fill.as_ref().filter(|_| !is_drawn) {
            flat_fill.apply(&mut canvas, random);
        }
        if let Some(colour) = &self.colour {
            colour.apply(&mut canvas, random);
        }
        if random.chance(self.grey) {
            canvas.grey();
        }
        if let Some(posterise) = &self.posterise {
            posterise.apply(&mut canvas, random);
        }
        if let Some(blur) = &self.blur {
            blur.apply(&mut canvas, random);
        }
        if let Some(noise) = &self.noise {
            noise.apply(&mut canvas, random);
        }
        if let Some(erase) = &self.erase {
            erase.apply(&mut canvas, random);
        }
        canvas.into_rgb()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossmodal_media::PixelMode;

    pub(super) fn noise(width: u32, height: u32, mode: PixelMode) -> Picture {
        let mut random = Random::about(&[u64::from(width), u64::from(height)]);
        let count = width as usize * height as usize * mode.bytes();
        let data = (0..count).map(|_| random.next_u64() as u8).collect();
        Picture { width, height, mode, data, palette: Vec::new(), transparency: None }
    }

    fn framing(width: u32, height: u32) -> Framing {
        Framing::cover(width, height)
    }

    /// Everything at once.
    fn strong() -> Augmentation {
        Augmentation {
            crop: Some(RandomResizedCrop { scale: (0.5, 1.0), ..RandomResizedCrop::default() }),
            mirror: 0.5,
            affine: Some(Affine { probability: 1.0, rotate: 20.0, shift: 0.1, shear: 10.0, zoom: (0.8, 1.2) }),
            line_art: Some(LineArt { probability: 0.2, ..LineArt::default() }),
            background: Some(Background::default()),
            flat_fill: Some(FlatFill { probability: 0.3, ..FlatFill::default() }),
            colour: Some(ColourJitter { probability: 0.9, brightness: 0.3, contrast: 0.3, saturation: 0.3, hue: 0.1 }),
            grey: 0.1,
            posterise: Some(Posterise { probability: 0.2, ..Posterise::default() }),
            blur: Some(Blur { probability: 0.3, ..Blur::default() }),
            noise: Some(Noise { probability: 0.3, ..Noise::default() }),
            erase: Some(Erase { probability: 0.3, ..Erase::default() }),
        }
    }

    #[test]
    fn nothing_chosen_changes_nothing() {
        let picture = noise(9, 9, PixelMode::Rgb);
        let nothing = Augmentation::default();
        let found = nothing.apply(&picture, &framing(9, 9), AlphaRule::Drop, &mut Random::about(&[]));
        assert_eq!(found.data, picture.data);
    }

    #[test]
    fn the_generator_decides_on_everything() {
        strong().check().unwrap();
        let picture = noise(50, 40, PixelMode::Rgba);
        let with = |seed: u64| {
            strong().apply(&picture, &framing(32, 32), AlphaRule::OverWhite, &mut Random::about(&[seed])).data
        };
        assert_eq!(with(1), with(1));
        let different: std::collections::BTreeSet<Vec<u8>> = (0..20).map(with).collect();
        assert_eq!(different.len(), 20);
        assert!(different.iter().all(|data| data.len() == 32 * 32 * 3));
    }

    #[test]
    fn pictures_of_any_size_become_the_size_asked_for() {
        for (width, height) in [(1, 1), (1, 300), (300, 2), (33, 17)] {
            for mode in [PixelMode::Rgb, PixelMode::Rgba, PixelMode::Grey] {
                for seed in 0..10 {
                    let picture = noise(width, height, mode);
                    let found =
                        strong().apply(&picture, &framing(16, 24), AlphaRule::Drop, &mut Random::about(&[seed]));
                    assert_eq!((found.width, found.height, found.data.len()), (16, 24, 16 * 24 * 3));
                }
            }
        }
    }

    #[test]
    fn fields_survive_being_written_and_unknown_ones_are_refused() {
        let text = serde_json::to_string(&strong()).unwrap();
        assert_eq!(serde_json::from_str::<Augmentation>(&text).unwrap(), strong());
        assert!(serde_json::from_str::<Augmentation>(r#"{"blurr": null}"#).unwrap_err().to_string().contains("blurr"));
    }

    #[test]
    fn fields_out_of_range_are_named() {
        let cases = [
            (Augmentation { mirror: 1.5, ..Augmentation::default() }, "mirror is 1.5"),
            (Augmentation { grey: f32::NAN, ..Augmentation::default() }, "grey is NaN"),
            (
                Augmentation {
                    affine: Some(Affine { zoom: (0.0, 1.0), ..Affine::default() }),
                    ..Augmentation::default()
                },
                "affine.zoom is 0",
            ),
            (
                Augmentation {
                    crop: Some(RandomResizedCrop { scale: (0.9, 0.5), ..RandomResizedCrop::default() }),
                    ..Augmentation::default()
                },
                "crop.scale goes from 0.9 to 0.5",
            ),
        ];
        for (augmentation, expected) in cases {
            let error = augmentation.check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
