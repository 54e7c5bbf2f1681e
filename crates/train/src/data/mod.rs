//! Data sets: from a path to batches.
//!
//! [`DataSet::open`] finds out what lies at a path: a table of pairs (CSV, TSV, lines of JSON, Parquet), webdataset shards, a folder of files
//! with captions beside them, a folder for each class, or what img2dataset wrote. A [`Loader`] draws batches from it on several threads. Which
//! samples a batch has, and what becomes of them, is decided by seed and position alone, never by which thread was faster.

pub mod augment;
mod collect;
mod columns;
mod folder;
mod loader;
mod negatives;
mod open;
mod plan;
mod prepare;
mod random;
mod record;
mod shards;
mod skipped;
mod split;
mod table;
mod tar;
mod template;

use crossmodal_models::Modality;

pub use columns::{Columns, RightColumn};
pub use loader::Loader;
pub use negatives::shuffled_words;
pub use open::{CLASSES, DataSet, Expected, Walk};
pub use plan::{CaptionChoice, Distinct, LoaderOptions};
pub use prepare::{Inputs, Tokenise};
pub use random::Random;
pub use record::{Counterpart, Location, Record, hash_of};
pub use shards::{Walked, expand};
pub use skipped::Skipped;
pub use split::{Part, SplitBy, SplitRule};
pub use template::{check_templates, filled};

/// The modality of files with an ending in lower case, where it tells one.
fn modality_of(ending: &str) -> Option<Modality> {
    match ending {
        "jpg" | "jpeg" | "jpe" | "jfif" | "png" | "apng" | "gif" | "webp" | "bmp" | "dib" | "tif" | "tiff" => {
            Some(Modality::Image)
        }
        "wav" | "flac" | "mp3" | "ogg" | "opus" | "m4a" => Some(Modality::Audio),
        "mp4" | "webm" | "mkv" | "mov" | "avi" => Some(Modality::Video),
        _ => None,
    }
}
