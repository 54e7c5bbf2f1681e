//! What can be typed: every command, option, environment variable and example. Parsing has no effects.

// Doc comments here are what `--help` prints: brackets in them are usage, not links.
#![allow(rustdoc::broken_intra_doc_links, rustdoc::bare_urls)]

mod bench;
mod bulk;
mod collection;
mod data;
mod evaluate;
mod exchange;
mod media;
mod model;
mod quantize;
mod serve;
mod tasks;
mod train;
mod upkeep;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

pub use bench::{BenchArguments, BenchModality};
pub use collection::{
    CollectionCommand, CompactArguments, InfoArguments, ListArguments, RemoveArguments, VerifyArguments,
};
pub use evaluate::EvaluateArguments;
pub use exchange::{
    BackupArguments, DuplicatesArguments, ExportArguments, ExportFormat, ImportArguments, MetricChoice,
};
pub use media::{Alpha, Decode, ModelOption, ModelRules, Orientation, Pillow, Precision};
pub use model::{GoldenArguments, ModelCommand, ModelNameArguments};
pub use quantize::QuantizeArguments;
pub use serve::{AccessOptions, KeyCommand, LogDetail, LogForm, NewKeyArguments, ServeArguments};
pub use tasks::{
    ClassifyArguments, CompletionsArguments, DemoArguments, EmbedArguments, IndexArguments, SearchArguments,
    SearchMode, SimilarityArguments,
};
pub use train::{FineTuneArguments, LossChoice, TowerChoice, TrainArguments, TrainedChoice};
pub use upkeep::{IndexKindOption, MigrateArguments, OptimizeArguments};

/// Shown by `crossmodal` alone.
pub const WELCOME: &str = "\
crossmodal finds pictures by words and by other pictures, on this machine alone.

  crossmodal demo                                     see it work, offline, in a few seconds
  crossmodal index PICTURES --collection pics.cm      embed a folder of pictures
  crossmodal search red apple --collection pics.cm    find the best ones
  crossmodal serve --collection pics.cm               a web page and an HTTP API for it
  crossmodal model pull openai/clip-vit-base-patch32  get a model that knows photographs

`crossmodal --help` lists all commands, `crossmodal COMMAND --help` explains one, with examples.
";

const AFTER_HELP: &str = "\
Examples:
  crossmodal demo
  crossmodal index photos --collection photos.cm --model openai/clip-vit-base-patch32
  crossmodal search dog on a beach --collection photos.cm --open
  crossmodal classify photos/cat.jpg --labels cat,dog,bird

Exit codes: 0 fine, 1 failure, 2 wrong usage, 3 `index --strict` passed something over, 130 interrupted.
A model is `mini` (built in), a variant from `crossmodal model list`, a local folder or weight file, or a hub id owner/name[@revision].";

/// Finds pictures by words and by other pictures: embeddings of CLIP-family models, local collections, search, an HTTP server.
#[derive(Debug, Parser)]
#[command(name = "crossmodal", version, after_help = AFTER_HELP, max_term_width = 110)]
pub struct Cli {
    /// Options that every command takes.
    #[command(flatten)]
    pub global: GlobalOptions,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct GlobalOptions {
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress and no notes, only results and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Colours: auto heeds NO_COLOR and whether the output is a terminal
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t, env = "CROSSMODAL_COLOR")]
    pub color: ColourChoice,
    /// Threads to use; 0 means one per core
    #[arg(long, global = true, value_name = "N", default_value_t = 0, env = "CROSSMODAL_THREADS", value_parser = tasks::threads)]
    pub threads: usize,
    /// Folder for derived data such as cached space ids [default: the user's cache folder]
    #[arg(long, global = true, value_name = "DIR", env = "CROSSMODAL_CACHE", hide_env_values = true)]
    pub cache: Option<PathBuf>,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ColourChoice {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what this does, offline: index a small gallery and search it
    Demo(DemoArguments),
    /// Embed the pictures of folders and keep them in a collection
    Index(IndexArguments),
    /// Search a collection by words, by a picture, or by one of its items
    Search(SearchArguments),
    /// Print embeddings of texts and pictures
    Embed(EmbedArguments),
    /// Compare pictures with texts
    Similarity(SimilarityArguments),
    /// Sort pictures by labels that were never trained on (zero-shot)
    Classify(ClassifyArguments),
    /// Measure how good a model is on pictures with captions or classes
    Evaluate(EvaluateArguments),
    /// Serve collections and models over HTTP, with a web page
    Serve(ServeArguments),
    /// Look after collections: info, list, optimize, import, export, migrate, duplicates, ...
    #[command(subcommand)]
    Collection(CollectionCommand),
    /// Look after models: list, info, pull, verify
    #[command(subcommand)]
    Model(ModelCommand),
    /// Fine-tune a model on pictures and captions of your own
    FineTune(Box<FineTuneArguments>),
    /// Train as a recipe says, also from nothing
    Train(TrainArguments),
    /// Make a copy of a model in 8-bit integers: a quarter of the size, and faster
    Quantize(QuantizeArguments),
    /// Measure how fast a model embeds on this machine
    Bench(BenchArguments),
    /// Make keys for the HTTP server
    #[command(subcommand)]
    Key(KeyCommand),
    /// Print a completion script for a shell
    Completions(CompletionsArguments),
}

/// How long to wait for another writer.
#[derive(Debug, Clone, Args)]
pub struct WaitOption {
    /// Wait for another writer to finish instead of failing, an hour at most or so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "3600", action = ArgAction::Set, value_parser = clap::value_parser!(u64).range(..=31_536_000))]
    pub wait: Option<u64>,
}
