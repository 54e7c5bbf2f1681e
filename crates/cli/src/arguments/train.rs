//! Arguments of `crossmodal fine-tune` and `crossmodal train`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::media::ModelOption;
use super::tasks::{at_least_one, batch_size};

/// `crossmodal fine-tune`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  crossmodal fine-tune --model openai/clip-vit-base-patch32 --data photos.csv --output tuned
  crossmodal fine-tune --model openai/clip-vit-base-patch32 --data photos.csv --output tuned --lora 8 --learning-rate 1e-4
  crossmodal fine-tune --data pairs.jsonl --output tuned --lock image --loss siglip --epochs 3
  crossmodal search red apple --collection new.cm --model tuned/best

OUT/best is the model with the best validation, OUT/last the latest one, each a folder in the model's own layout that every command, transformers or open_clip
load. Beside them lie report.html, log.jsonl, TensorBoard's events, and the state from which --resume continues exactly. Ctrl-C saves.
Everything else can be set in a recipe (docs/training.md): `crossmodal train RECIPE.toml`.
JSON: one object a line while it goes on ({event: started, step, validation, skipped, saved}), and at last {event: finished, model, step, steps, samples,
       skipped, seconds, best: null or {score, step}, cancelled, stopped_early, report}")]
pub struct FineTuneArguments {
    /// The model. Default: mini
    #[command(flatten)]
    pub model: ModelOption,
    /// Pairs to learn from: a table (.csv, .tsv, .jsonl, .parquet), webdataset shards, a folder of pictures with captions or of classes
    #[arg(long, value_name = "DATA")]
    pub data: String,
    /// Folder of the run, which is made
    #[arg(long, value_name = "OUT")]
    pub output: PathBuf,
    /// A table's column of pictures [default: recognised by usual names: image, filepath, path, file, ...]
    #[arg(long, value_name = "NAME", alias = "csv-img-key", help_heading = "The data")]
    pub image_column: Option<String>,
    /// A table's column of captions; several may be given [default: caption, title, text, ...]
    #[arg(long, value_name = "NAME", alias = "csv-caption-key", help_heading = "The data")]
    pub caption_column: Vec<String>,
    /// Data to measure by; without it a share of --data is held out
    #[arg(long, value_name = "DATA", help_heading = "The data")]
    pub validation: Option<String>,
    /// Share of --data that is held out; 0 holds nothing out
    #[arg(
        long,
        value_name = "SHARE",
        default_value_t = 0.05,
        conflicts_with = "validation",
        help_heading = "The data"
    )]
    pub validation_share: f64,
    /// Words around captions, {} standing for the caption; several are drawn from
    #[arg(long, value_name = "TEMPLATE", help_heading = "The data")]
    pub template: Vec<String>,
    /// Random crops of pictures, at least nine tenths of each
    #[arg(long, help_heading = "The data")]
    pub augment: bool,
    /// The loss
    #[arg(long, value_name = "LOSS", value_enum, default_value_t, help_heading = "What is learned")]
    pub loss: LossChoice,
    /// A larger model to learn from, for losses of distillation
    #[arg(long, value_name = "MODEL", help_heading = "What is learned")]
    pub teacher: Option<String>,
    /// What is trained
    #[arg(long, value_name = "WHAT", value_enum, default_value_t, help_heading = "What is learned")]
    pub trained: TrainedChoice,
    /// Train low-rank adapters of this rank instead, merged when the model is saved
    #[arg(long, value_name = "RANK", conflicts_with = "trained", help_heading = "What is learned")]
    pub lora: Option<usize>,
    /// Maps of the blocks that get adapters: q, k, v, out, fc1, fc2
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        requires = "lora",
        default_value = "q,v",
        help_heading = "What is learned"
    )]
    pub lora_targets: Vec<String>,
    /// Leave a tower as it is
    #[arg(long, value_name = "TOWER", value_enum, help_heading = "What is learned")]
    pub lock: Option<TowerChoice>,
    /// Passes over the data
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = at_least_one, help_heading = "The run")]
    pub epochs: usize,
    /// Steps, instead of passes
    #[arg(long, value_name = "N", value_parser = at_least_one, conflicts_with = "epochs", help_heading = "The run")]
    pub steps: Option<usize>,
    /// Pairs of a step
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = batch_size, help_heading = "The run")]
    pub batch_size: usize,
    /// Pairs that go through the towers at a time: large batches in the memory of small ones, with the same gradients
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "The run")]
    pub piece: Option<usize>,
    /// Batches whose gradients are averaged for a step
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one, help_heading = "The run")]
    pub accumulate: usize,
    /// Learning rate at its highest [default: 1e-5, with --lora 2e-4, for projections 1e-3]
    #[arg(long, value_name = "RATE", help_heading = "The run")]
    pub learning_rate: Option<f64>,
    /// Weight decay of matrices
    #[arg(long, value_name = "DECAY", default_value_t = 0.1, help_heading = "The run")]
    pub weight_decay: f64,
    /// Decay of a running mean of the parameters, which is what is measured and saved; 0 takes the last parameters
    #[arg(long, value_name = "DECAY", default_value_t = 0.0, help_heading = "The run")]
    pub average: f64,
    /// Validations without a better one after which it stops; 0 never stops early
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "The run")]
    pub patience: u64,
    /// Steps between saved states
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = at_least_one, help_heading = "The run")]
    pub save_every: usize,
    /// Decides on everything random
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "The run")]
    pub seed: u64,
    /// Where to train: auto, cpu or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto", help_heading = "The run")]
    pub device: String,
    /// Compute products in bfloat16 and everything else in 32 bits: faster on graphics processors
    #[arg(long, help_heading = "The run")]
    pub bf16: bool,
    /// Continue the run in OUT where it was saved last
    #[arg(long, help_heading = "The run")]
    pub resume: bool,
}

/// `crossmodal train`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  crossmodal train recipes/mini.toml
  crossmodal train recipes/mini.toml --resume
  crossmodal train recipe.toml --output elsewhere --json

A recipe says everything about a run: [model], [data], [[loss]], [optimiser], [run]; docs/training.md lists all fields. Paths in it are relative to it.
JSON: as of `crossmodal fine-tune`")]
pub struct TrainArguments {
    /// The recipe
    #[arg(value_name = "RECIPE")]
    pub recipe: PathBuf,
    /// Folder of the run, instead of the recipe's run.output
    #[arg(long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Where to train, instead of the recipe's run.device
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Continue the run where it was saved last
    #[arg(long)]
    pub resume: bool,
}

/// Losses of `fine-tune`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LossChoice {
    /// Softmax over a batch, as CLIP was trained.
    #[default]
    Infonce,
    /// A sigmoid for each pair.
    Siglip,
    /// Also pushes apart what is alike within a modality.
    Crossclr,
    /// InfoNCE with the same geometry on both sides.
    Cyclip,
    /// Captions in another order of words are hard negatives.
    Negclip,
    /// A teacher's similarities.
    AffinityMimicking,
    /// A teacher's vectors.
    FeatureDistillation,
    /// A teacher's other side.
    InteractiveDistillation,
}

/// What is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum TrainedChoice {
    /// Everything.
    #[default]
    All,
    /// Only the projections into the common space.
    Projections,
}

/// A tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TowerChoice {
    /// The picture tower.
    Image,
    /// The text tower.
    Text,
}
