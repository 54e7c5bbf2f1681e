//! What the data side hands to the loop.

use crossmodal_media::{ImagePrep, PixelTensor, RgbPixels};
use rayon::prelude::*;

use crate::error::Result;

/// One half of the pairs of a batch, ready for a tower.
#[derive(Debug, Clone)]
pub enum Side {
    /// Pictures of one size, resized and cropped, that the model is still to rescale and normalise. They take a quarter of the memory of
    /// [`Pixels`](Self::Pixels).
    Pictures(Vec<RgbPixels>),
    /// Prepared pictures, all of one size.
    Pixels(Vec<PixelTensor>),
    /// Token ids, with begin and end tokens and without padding.
    Tokens(Vec<Vec<u32>>),
}

impl Side {
    /// How many samples there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Pictures(pictures) => pictures.len(),
            Self::Pixels(pictures) => pictures.len(),
            Self::Tokens(texts) => texts.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Rescales and normalises pictures, as a tower takes them.
pub(crate) fn normalised(pictures: &[RgbPixels], prep: &ImagePrep) -> Vec<PixelTensor> {
    pictures.par_iter().map(|picture| prep.normalise(picture)).collect()
}

/// Pairs that belong together: sample `i` of `left` goes with sample `i` of `right`.
#[derive(Debug, Clone)]
pub struct Batch {
    /// What each pair is called in messages: the key of its sample in the data set.
    pub keys: Vec<String>,
    /// Usually the pictures.
    pub left: Side,
    /// Usually the captions.
    pub right: Side,
    /// Hard negatives of the captions, one each, where asked for (NegCLIP). Equal to the caption where none can be made of it: such a pair says
    /// nothing about the order of words.
    pub negatives: Option<Side>,
    /// Equal numbers mark equal content on the left side, for example the same picture with another caption.
    pub left_content: Vec<u64>,
    /// As `left_content`, of the right side.
    pub right_content: Vec<u64>,
    /// A number of the concept that each pair shows, below the number of concepts, where the data set names concepts.
    pub concepts: Option<Vec<u32>>,
    /// Samples that were skipped while this batch was filled, each with the reason.
    pub skipped: Vec<(String, String)>,
}

impl Batch {
    /// Pairs with numbers for keys, of which nothing else is known: all contents differ.
    pub fn of(left: Side, right: Side) -> Self {
        let numbers: Vec<u64> = (0..left.len() as u64).collect();
        Self {
            keys: numbers.iter().map(u64::to_string).collect(),
            left,
            right,
            negatives: None,
            left_content: numbers.clone(),
            right_content: numbers,
            concepts: None,
            skipped: Vec::new(),
        }
    }
}

/// Where a run stands in its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Position {
    /// Passes over the data that are complete.
    pub epoch: u64,
    /// Batches taken of the pass under way.
    pub batch: u64,
}

/// A stream of batches. The same seed and position give the same batches, bit for bit, whatever the number of workers.
pub trait BatchSource: Send {
    /// The next batch, or `None` at the end of a pass; the call after that begins the next pass.
    ///
    /// # Errors
    /// Data that can't be read at all; samples that can't are skipped and listed in the batch.
    fn next_batch(&mut self) -> Result<Option<Batch>>;

    /// Where the next batch will be taken from.
    fn position(&self) -> Position;

    /// Goes to a position, so that a run can be resumed.
    ///
    /// # Errors
    /// Data that can't be read.
    fn seek(&mut self, position: Position) -> Result<()>;

    /// Batches of a pass, where that is known before the end of the first one.
    fn batches_per_epoch(&self) -> Option<u64>;
}
