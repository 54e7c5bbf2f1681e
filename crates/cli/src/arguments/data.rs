//! Options about data sets of pairs, shared by the commands that read them.

use clap::{Args, ValueEnum};
use crossmodal_train::data::{Columns, Part, RightColumn, SplitBy, SplitRule};

/// Which data, and which part of it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The data")]
pub struct DataOptions {
    /// A table of pairs (.csv, .tsv, .jsonl, .json, .parquet), webdataset shards (.tar, 'shard-{0000..0009}.tar', or a folder of them), a folder
    /// of pictures with .txt captions beside them, a folder for each class, or what img2dataset wrote
    #[arg(long, value_name = "DATA")]
    pub data: String,
    /// A table's column of pictures [default: recognised by usual names: image, filepath, path, file, ...]
    #[arg(long, value_name = "NAME", alias = "csv-img-key")]
    pub image_column: Option<String>,
    /// A table's column of captions; several may be given, and a dot leads into objects: captions.en [default: caption, title, text, ...]
    #[arg(long, value_name = "NAME", alias = "csv-caption-key")]
    pub caption_column: Vec<String>,
    /// A table's column of classes [default: label, class, category]
    #[arg(long, value_name = "NAME")]
    pub label_column: Option<String>,
    /// A table's column of concepts, of which several items may show the same [default: concept]
    #[arg(long, value_name = "NAME")]
    pub concept_column: Option<String>,
    /// The part of the data to use
    #[arg(long, value_name = "PART", value_enum, default_value_t)]
    pub split: SplitChoice,
    /// Share of the validation part
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, value_parser = share)]
    pub validation_share: f64,
    /// What decides on an item's part
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub split_by: SplitByChoice,
    /// Another number splits differently
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub split_seed: u64,
}

/// A part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum SplitChoice {
    /// Everything.
    #[default]
    All,
    /// All but the validation part.
    Train,
    /// The share that is held out.
    Validation,
}

/// What decides on an item's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum SplitByChoice {
    /// Its path or key.
    #[default]
    Item,
    /// The bytes of its file: copies stay together.
    Content,
    /// Its concept.
    Concept,
}

impl DataOptions {
    /// Which columns are what.
    pub fn columns(&self) -> Columns {
        Columns {
            left: self.image_column.clone(),
            right: self.caption_column.iter().map(RightColumn::named).collect(),
            label: self.label_column.clone(),
            concept: self.concept_column.clone(),
            ..Columns::default()
        }
    }

    /// The part and the rule that splits it off.
    pub fn split(&self) -> (Part, SplitRule) {
        let part = match self.split {
            SplitChoice::All => Part::All,
            SplitChoice::Train => Part::Train,
            SplitChoice::Validation => Part::Validation,
        };
        let by = match self.split_by {
            SplitByChoice::Item => SplitBy::Item,
            SplitByChoice::Content => SplitBy::Content,
            SplitByChoice::Concept => SplitBy::Concept,
        };
        (part, SplitRule { share: self.validation_share, seed: self.split_seed, by })
    }
}

/// A number between 0 and 1, both excluded.
pub fn share(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_string())?;
    if number > 0.0 && number < 1.0 { Ok(number) } else { Err("must be above 0 and below 1".into()) }
}
