//! Arguments of the commands that work: demo, index, search, embed, similarity, classify, completions.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};

use super::WaitOption;
use super::bulk::BulkOptions;
use super::media::{ModelOption, ModelRules};

/// `crossmodal demo`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  crossmodal demo
  crossmodal demo --dir crossmodal-demo

JSON: {model, pictures, collection, embedded, unchanged, seconds, items_per_second,
       queries: [{query, language, image, milliseconds, hits: [{rank, score, id, path, caption}]}], credit}")]
pub struct DemoArguments {
    /// Work in this folder and keep it
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Keep the temporary folder
    #[arg(long, conflicts_with = "dir")]
    pub keep: bool,
}

/// `crossmodal index`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  crossmodal index photos --collection photos.cm --model openai/clip-vit-base-patch32
  crossmodal index photos --collection photos.cm --prune
  crossmodal index gallery --collection gallery.cm --metadata gallery/captions.csv

A second run embeds only what is new or changed; a rename or a copy embeds nothing. Hidden files and what .gitignore
and .ignore files name are passed over. Ctrl-C stops cleanly, and the next run goes on from there.
JSON: {collection, model, total, embedded, reused, unchanged, skipped: [{path, reason}], pruned,
       others, unread: {ending: number}, unmatched_metadata: [file], seconds, items_per_second, cancelled}")]
pub struct IndexArguments {
    /// Pictures and folders of pictures
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// The collection's folder; made if it doesn't exist
    #[arg(short, long, value_name = "DIR", env = "CROSSMODAL_COLLECTION")]
    pub collection: PathBuf,
    /// The model. Default: the collection's own, else mini
    #[command(flatten)]
    pub model: ModelOption,
    /// What is known of the files: a .csv, .tsv, .jsonl or .json file with a column `file`
    #[arg(long, value_name = "FILE")]
    pub metadata: Option<PathBuf>,
    /// Pictures that are embedded and committed together
    #[arg(long, value_name = "N", default_value_t = 32, env = "CROSSMODAL_BATCH_SIZE", value_parser = batch_size)]
    pub batch_size: usize,
    /// Forget items whose files are gone from the given folders
    #[arg(long)]
    pub prune: bool,
    /// Give up vectors that a damaged collection has lost, and embed their files again
    #[arg(long)]
    pub repair: bool,
    /// Exit with 3 if a file couldn't be read or embedded
    #[arg(long)]
    pub strict: bool,
    /// Patience.
    #[command(flatten)]
    pub wait: WaitOption,
    /// Image rules.
    #[command(flatten)]
    pub rules: ModelRules,
}

/// What ranks the items of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum SearchMode {
    /// Nearness of vectors
    #[default]
    Vector,
    /// The query's words in captions, names and other texts
    Text,
    /// Both
    Hybrid,
}

/// `crossmodal search`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("asked").args(["words", "query", "queries", "image", "like", "vectors"]).required(true).multiple(true))]
#[command(after_help = "\
Examples:
  crossmodal search red apple --collection gallery.cm
  crossmodal search '2:dog + ./pool.jpg - fruit' --collection photos.cm
  crossmodal search --like beach.jpg at night --not people --collection photos.cm --open
  crossmodal search dog --relevant-only --group-by folder --collection photos.cm
  crossmodal search --queries queries.txt --json --collection photos.cm > hits.jsonl
  crossmodal search --vectors Q.npy -k 10 --output R.npy --collection x.cm

Words are a sum where they say so: `+` and `-` between spaces join words, \"quoted words\", pictures (a path, or image:PATH)
and items (item:ID), each with a weight before a colon if wanted. Anything else is plain text: docs/searching.md.
JSON: {collection, model, query: {words, images, like, not, unlike}, milliseconds, hits: [{rank, score, confidence,
       id, path, modality, missing, group, metadata}]}; a line of it for each query where there are several;
       of --vectors {collection, queries, k, seconds, queries_per_second, loading_seconds, output, scores}")]
pub struct SearchArguments {
    /// Words, or a sum of words, pictures and items; several arguments are one query
    #[arg(value_name = "WORDS")]
    pub words: Vec<String>,
    /// The collection's folder
    #[arg(short, long, value_name = "DIR", env = "CROSSMODAL_COLLECTION")]
    pub collection: PathBuf,
    /// Search by a picture
    #[arg(long, value_name = "FILE")]
    pub image: Vec<PathBuf>,
    /// Search by an item of the collection: its id, path, or the end of its id
    #[arg(long, value_name = "ITEM")]
    pub like: Vec<String>,
    /// Search away from words
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    pub not: Vec<String>,
    /// Search away from an item
    #[arg(long, value_name = "ITEM")]
    pub unlike: Vec<String>,
    /// A query of its own, as WORDS are; may be repeated
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    pub query: Vec<String>,
    /// Queries from a file, one a line; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub queries: Option<PathBuf>,
    /// Number of hits
    #[arg(short = 'k', long = "top", value_name = "N", default_value_t = 10, value_parser = at_least_one)]
    pub k: usize,
    /// Hits to pass over: the pages before
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = offset)]
    pub offset: usize,
    /// Only items that satisfy a condition: `year >= 2020 and tag in (a, b)`, see docs/filters.md
    #[arg(long, value_name = "CONDITION")]
    pub filter: Option<String>,
    /// What ranks the items: vectors, the words in captions and names, or both
    #[arg(long, value_enum, default_value_t)]
    pub mode: SearchMode,
    /// With `--mode hybrid`, the share of the vectors' scores, 0 to 1. Without it, ranks are fused
    #[arg(long, value_name = "SHARE")]
    pub alpha: Option<f32>,
    /// Only hits with at least this cosine, -1 to 1
    #[arg(long, value_name = "COSINE", allow_negative_numbers = true)]
    pub min_score: Option<f32>,
    /// Only hits that are hardly there by chance: at least this confidence, 0 to 1
    #[arg(long, value_name = "CONFIDENCE", num_args = 0..=1, require_equals = true, default_missing_value = "0.7")]
    pub relevant_only: Option<f32>,
    /// Only the best hit of each group: `folder`, `file`, or a metadata key
    #[arg(long, value_name = "KEY")]
    pub group_by: Option<String>,
    /// Hits that repeat each other less; 1 heeds nearness alone, 0 difference alone
    #[arg(long, value_name = "NEARNESS", num_args = 0..=1, require_equals = true, default_missing_value = "0.5")]
    pub diverse: Option<f32>,
    /// The model. Default: the collection's own
    #[command(flatten)]
    pub model: ModelOption,
    /// Show the hits as pictures in the browser
    #[arg(long)]
    pub open: bool,
    /// Write the hits as a self-contained HTML page
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Many queries at once.
    #[command(flatten)]
    pub bulk: BulkOptions,
    /// Image rules.
    #[command(flatten)]
    pub rules: ModelRules,
}

/// `crossmodal embed`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("inputs").args(["text", "paths"]).required(true).multiple(true))]
#[command(after_help = "\
Examples:
  crossmodal embed --text 'red apple' --text 'dog face'
  crossmodal embed photos --output photos.npy --model openai/clip-vit-base-patch32
  cat captions.txt | crossmodal embed - > captions.jsonl

Standard output is one line of JSON for each input, in the order given, with or without --json:
  {\"input\": ..., \"modality\": \"text\"|\"image\", \"embedding\": [...]}
An input that fails is named on standard error, the rest goes on, and the exit code is 1; .npy and .safetensors files
are written only if nothing failed, because their rows have no names to tell.
With --output, --json prints {output, rows, dimension, model}.")]
pub struct EmbedArguments {
    /// A text
    #[arg(short, long, value_name = "TEXT")]
    pub text: Vec<String>,
    /// Pictures and folders of pictures; `-` reads texts from standard input, one per line
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// The model's own output instead of unit vectors
    #[arg(long)]
    pub raw: bool,
    /// Write a file instead: .npy, .safetensors or .jsonl
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Inputs that are embedded together
    #[arg(long, value_name = "N", default_value_t = 32, env = "CROSSMODAL_BATCH_SIZE", value_parser = batch_size)]
    pub batch_size: usize,
    /// The model. Default: mini
    #[command(flatten)]
    pub model: ModelOption,
    /// Image rules.
    #[command(flatten)]
    pub rules: ModelRules,
}

/// `crossmodal similarity`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  crossmodal similarity --text 'red apple' --text 'dog face' apple.png dog.png
  crossmodal similarity --text 'a photo of a cat' cat.jpg --json

Probabilities are as the model defines them, over the texts for one picture.
JSON: {model, texts, images, cosines, logits, probabilities, rule}; matrices have a row for each picture")]
pub struct SimilarityArguments {
    /// A text
    #[arg(short, long, value_name = "TEXT", required = true)]
    pub text: Vec<String>,
    /// Pictures
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// The model. Default: mini
    #[command(flatten)]
    pub model: ModelOption,
    /// Image rules.
    #[command(flatten)]
    pub rules: ModelRules,
}

/// `crossmodal classify`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("classes").args(["labels", "labels_file"]).required(true))]
#[command(after_help = "\
Examples:
  crossmodal classify photos/cat.jpg --labels cat,dog,bird --model openai/clip-vit-base-patch32
  crossmodal classify photos --labels-file labels.txt --top 1 --json
  crossmodal classify cat.jpg --labels cat,dog --template 'a photo of a {}' --template 'a drawing of a {}'

Several templates are averaged the way CLIP does. Without one it is the bare label for mini, else 'a photo of a {}'.
JSON, one line for each picture: {\"path\": ..., \"labels\": [{\"label\": ..., \"probability\": ...}]}, best first")]
pub struct ClassifyArguments {
    /// Pictures and folders of pictures
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Labels, separated by commas
    #[arg(short, long, value_name = "A,B,C", value_delimiter = ',')]
    pub labels: Vec<String>,
    /// File with one label per line
    #[arg(long, value_name = "FILE")]
    pub labels_file: Option<PathBuf>,
    /// What is said of a picture; {} stands for the label
    #[arg(long, value_name = "TEMPLATE")]
    pub template: Vec<String>,
    /// Labels to show for each picture [default: 5 in text, all in JSON]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub top: Option<usize>,
    /// Pictures that are embedded together
    #[arg(long, value_name = "N", default_value_t = 32, env = "CROSSMODAL_BATCH_SIZE", value_parser = batch_size)]
    pub batch_size: usize,
    /// The model. Default: mini
    #[command(flatten)]
    pub model: ModelOption,
    /// Image rules.
    #[command(flatten)]
    pub rules: ModelRules,
}

/// `crossmodal completions`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  crossmodal completions bash > ~/.local/share/bash-completion/completions/crossmodal
  crossmodal completions zsh > ~/.zfunc/_crossmodal
  crossmodal completions fish > ~/.config/fish/completions/crossmodal.fish

JSON: {shell, script}")]
pub struct CompletionsArguments {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: clap_complete::Shell,
}

/// Number of threads; 0 means one per core.
pub fn threads(text: &str) -> Result<usize, String> {
    in_range(text, 0, 1024)
}

/// A number from 1 on.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    in_range(text, 1, 1_000_000)
}

fn offset(text: &str) -> Result<usize, String> {
    in_range(text, 0, 1_000_000)
}

/// Items that are worked on together.
pub fn batch_size(text: &str) -> Result<usize, String> {
    in_range(text, 1, 4096)
}

fn in_range(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|_| "not a whole number".to_string())?;
    if number < least {
        return Err(format!("must be at least {least}"));
    }
    if number > most {
        return Err(format!("must be at most {most}"));
    }
    Ok(number)
}
