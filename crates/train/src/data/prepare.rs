//! From a planned sample to what towers take: reading, decoding, augmenting, filling templates, tokenising.

use std::sync::Arc;

use crossmodal_media::{ImagePrep, RgbPixels};
use crossmodal_models::{ClipModel, Embedder, Modality};

use super::augment::Framing;
use super::negatives::shuffled_words;
use super::open::DataSet;
use super::plan::{LoaderOptions, PlannedSample};
use super::random::Random;
use super::record::{Location, hash_of};
use super::template::filled;
use crate::batch::{Batch, Side};
use crate::error::{Error, Result};

/// Turns a text into ids of the model's vocabulary.
pub type Tokenise = Arc<dyn Fn(&str) -> crossmodal_models::Result<Vec<u32>> + Send + Sync>;

/// What a model takes.
#[derive(Clone)]
pub struct Inputs {
    /// The model, for messages.
    pub name: String,
    /// How pictures are prepared; `None` where the model takes none.
    pub image: Option<ImagePrep>,
    /// How texts are tokenised; `None` where the model takes none.
    pub text: Option<Tokenise>,
}

impl Inputs {
    /// What a CLIP model takes.
    pub fn of(model: &Arc<ClipModel>) -> Self {
        let tokenising = model.clone();
        Self {
            name: model.info().name.clone(),
            image: Some(model.prep().clone()),
            text: Some(Arc::new(move |text| Ok(tokenising.tokenizer().encode(text)?.ids))),
        }
    }

    fn takes(&self, modality: Modality) -> bool {
        match modality {
            Modality::Image => self.image.is_some(),
            Modality::Text => self.text.is_some(),
            Modality::Audio | Modality::Video | Modality::Depth | Modality::Thermal | Modality::Imu => false,
        }
    }

    /// Checks that the model takes both sides of a data set.
    ///
    /// # Errors
    /// A side that it has no tower for, and options that concern a modality that isn't there.
    pub(super) fn check(&self, data: &DataSet, options: &LoaderOptions) -> Result<()> {
        let (left, right) = data.modalities();
        for (side, modality) in [("left", left), ("right", right)] {
            if !self.takes(modality) {
                let taken: Vec<&str> =
                    Modality::ALL.into_iter().filter(|kind| self.takes(*kind)).map(Modality::as_str).collect();
                let (model, data, taken) = (&self.name, data.name(), taken.join(" and "));
                let reason = format!("{data}: the {side} side is {modality}, but {model} takes {taken}");
                return Err(Error::Invalid(reason));
            }
        }
        let needs_text = options.hard_negatives || !options.templates.is_empty();
        if needs_text && right != Modality::Text {
            let reason =
                format!("{}: templates and hard negatives need texts on the right side, it is {right}", data.name());
            return Err(Error::Invalid(reason));
        }
        for column in data.right_columns() {
            super::template::check_templates(&column.templates)?;
            if !(column.weight.is_finite() && column.weight >= 0.0) {
                let (name, weight) = (&column.name, column.weight);
                return Err(Error::Invalid(format!("column {name:?} has weight {weight}, expected 0 or more")));
            }
        }
        if let (Some(_), Some(prep)) = (&options.augmentation, &self.image) {
            Framing::of(prep)?;
        }
        Ok(())
    }
}

/// One half of a sample.
#[derive(Debug)]
enum Half {
    Picture(RgbPixels),
    Tokens(Vec<u32>),
}

/// A sample that is ready for a batch.
#[derive(Debug)]
pub(super) struct Ready {
    left: Half,
    right: Half,
    negative: Option<Vec<u32>>,
    left_content: u64,
    right_content: u64,
}

/// A sample that is ready, or the reason why it can't be.
pub(super) type Outcome = std::result::Result<Ready, String>;

/// Everything that preparing needs.
pub(super) struct Preparation {
    pub(super) data: DataSet,
    pub(super) options: Arc<LoaderOptions>,
    pub(super) inputs: Inputs,
}

impl Preparation {
    /// Prepares a sample. The error is a reason for people.
    pub(super) fn prepare(&self, sample: &PlannedSample) -> Outcome {
        let mut random = sample.random.clone();
        let (left_kind, right_kind) = self.data.modalities();
        let (left, left_content) = match left_kind {
            Modality::Text => self.tokens(&text_of(&sample.record.left)?)?,
            Modality::Image => self.pixels(&sample.record.left, &mut random)?,
            Modality::Audio | Modality::Video | Modality::Depth | Modality::Thermal | Modality::Imu => {
                return Err(format!("{left_kind} can't be prepared"));
            }
        };
        let mut negative = None;
        let (right, right_content) = match right_kind {
            Modality::Text => {
                let text = self.caption(sample, &mut random)?;
                if self.options.hard_negatives {
                    let shuffled = shuffled_words(&text, &mut random).unwrap_or_else(|| text.clone());
                    negative = Some(self.ids(&shuffled)?);
                }
                self.tokens(&text)?
            }
            Modality::Image => {
                let place = sample.right.first().copied().unwrap_or(0);
                self.pixels(&sample.record.right[usize::from(place)].location, &mut random)?
            }
            Modality::Audio | Modality::Video | Modality::Depth | Modality::Thermal | Modality::Imu => {
                return Err(format!("{right_kind} can't be prepared"));
            }
        };
        Ok(Ready { left, right, negative, left_content, right_content })
    }

    /// The chosen texts, joined, in a template.
    fn caption(&self, sample: &PlannedSample, random: &mut Random) -> std::result::Result<String, String> {
        let chosen = sample.right.iter().map(|place| &sample.record.right[usize::from(*place)]);
        let texts: Vec<String> =
            chosen.clone().map(|right| text_of(&right.location)).collect::<std::result::Result<_, _>>()?;
        let text = texts.join(", ");
        let column = chosen.clone().next().and_then(|right| self.data.right_columns().get(usize::from(right.column)));
        let own = column.map(|column| column.templates.as_slice()).filter(|templates| !templates.is_empty());
        let templates = own.unwrap_or(&self.options.templates);
        Ok(match templates.get(random.below(templates.len())) {
            Some(template) => filled(template, &text),
            None => text,
        })
    }

    fn ids(&self, text: &str) -> std::result::Result<Vec<u32>, String> {
        let tokenise = self.inputs.text.as_ref().ok_or("the model takes no texts")?;
        tokenise(text).map_err(|error| error.to_string())
    }

    /// Ids, and their hash: texts that the model can't tell apart have the same.
    fn tokens(&self, text: &str) -> std::result::Result<(Half, u64), String> {
        let ids = self.ids(text)?;
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        Ok((Half::Tokens(ids), hash_of(&bytes)))
    }

    /// A picture of the model's size, and the hash of the file that it comes from.
    fn pixels(&self, location: &Location, random: &mut Random) -> std::result::Result<(Half, u64), String> {
        let prep = self.inputs.image.as_ref().ok_or("the model takes no pictures")?;
        let bytes = location.read()?;
        let pixels = match &self.options.augmentation {
            Some(augmentation) => augmentation.picture(&bytes, prep, random).map_err(|error| error.to_string()),
            None => prep.apply(&bytes).map_err(|error| error.to_string()),
        };
        let pixels = pixels.map_err(|error| match location {
            Location::File(path) => format!("{}: {error}", path.display()),
            Location::Text(_) | Location::Slice { .. } => error.to_string(),
        })?;
        Ok((Half::Picture(pixels), hash_of(&bytes)))
    }
}

fn text_of(location: &Location) -> std::result::Result<String, String> {
    match location {
        Location::Text(text) => Ok(text.to_string()),
        Location::File(_) | Location::Slice { .. } => {
            String::from_utf8(location.read()?).map_err(|error| format!("not UTF-8: {error}"))
        }
    }
}

/// Puts samples together. Those that couldn't be prepared, or whose pictures differ in size from the first one's, are listed as skipped.
pub(super) fn assemble(
    samples: Vec<(PlannedSample, Outcome)>,
    mut skipped: Vec<(String, String)>,
    has_concepts: bool,
) -> Batch {
    let mut keys = Vec::with_capacity(samples.len());
    let (mut lefts, mut rights, mut negatives) = (Vec::new(), Vec::new(), Vec::new());
    let (mut left_content, mut right_content, mut concepts) = (Vec::new(), Vec::new(), Vec::new());
    let mut sizes: [Option<(u32, u32)>; 2] = [None; 2];
    for (sample, ready) in samples {
        let key = sample.record.key.to_string();
        let ready = match ready {
            Ok(ready) => ready,
            Err(reason) => {
                skipped.push((key, reason));
                continue;
            }
        };
        let odd = [&ready.left, &ready.right].into_iter().zip(&mut sizes).find_map(|(half, first)| match half {
            Half::Tokens(_) => None,
            Half::Picture(pixels) => {
                let size = (pixels.width, pixels.height);
                (*first.get_or_insert(size) != size).then_some(size)
            }
        });
        if let Some((width, height)) = odd {
            skipped.push((key, format!("prepared to {width}x{height} pixels, unlike the first of its batch")));
            continue;
        }
        keys.push(key);
        lefts.push(ready.left);
        rights.push(ready.right);
        negatives.extend(ready.negative);
        left_content.push(ready.left_content);
        right_content.push(ready.right_content);
        concepts.extend(sample.record.concept);
    }
    let concepts = (has_concepts && concepts.len() == keys.len()).then_some(concepts);
    let negatives = (!negatives.is_empty()).then_some(Side::Tokens(negatives));
    let (left, right) = (side(lefts), side(rights));
    Batch { keys, left, right, negatives, left_content, right_content, concepts, skipped }
}

fn side(halves: Vec<Half>) -> Side {
    let (mut pictures, mut tokens) = (Vec::new(), Vec::new());
    for half in halves {
        match half {
            Half::Picture(picture) => pictures.push(picture),
            Half::Tokens(ids) => tokens.push(ids),
        }
    }
    if pictures.is_empty() { Side::Tokens(tokens) } else { Side::Pictures(pictures) }
}
