//! Arguments of `crossmodal evaluate`.

use std::path::PathBuf;

use clap::Args;

use super::data::{DataOptions, share};
use super::media::{ModelOption, ModelRules};
use super::tasks::{at_least_one, batch_size};

/// `crossmodal evaluate`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  crossmodal evaluate --data samples/gallery/captions.csv --caption-column fr
  crossmodal evaluate --model openai/clip-vit-base-patch32 --data coco.csv --json > coco.json
  crossmodal evaluate --data 'test-{0000..0009}.tar' --labels classes.txt --template 'a photo of a {}'
  crossmodal evaluate --data pairs.jsonl --split validation --validation-share 0.1

Recall@k is the share of queries with a correct answer among the first k; equal scores count against the model, and what is equal counts once.
Classes are a column, a folder each, or .cls members of shards; each is the mean of its templates, which default to the bare name for mini, else
'a photo of a {}'. Intervals are Wilson's for shares of independent queries, else bootstrapped over queries (docs/evaluating.md).
JSON: {model, data, kind, left, right, items, counterparts, truncated, skipped, left_out: [{key, reason}], level,
       left_by_right, right_by_left: {queries, candidates, recall: [{k, value, interval: {low, high, level, method}}],
       median_rank, mean_reciprocal_rank, ndcg_at_10: {value, interval}}, zero_shot: {classes, samples, templates, top_1, top_5,
       balanced_top_1, majority_share}, seconds}; what doesn't apply is null")]
pub struct EvaluateArguments {
    /// The model. Default: mini
    #[command(flatten)]
    pub model: ModelOption,
    /// The data.
    #[command(flatten)]
    pub data: DataOptions,
    /// File with the names of all classes, one a line; where the data has numbers, a class is the line of its number, counted from 0
    #[arg(long, value_name = "FILE", help_heading = "Sorting by classes")]
    pub labels: Option<PathBuf>,
    /// What is said of a picture of a class; {} stands for its name. Several are averaged
    #[arg(long, value_name = "TEMPLATE", help_heading = "Sorting by classes")]
    pub template: Vec<String>,
    /// Confidence level of the intervals
    #[arg(long, value_name = "LEVEL", default_value_t = 0.95, value_parser = share, help_heading = "Figures")]
    pub level: f64,
    /// Resamples of bootstrapped intervals
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = at_least_one, help_heading = "Figures")]
    pub resamples: usize,
    /// Numbers of first places that recall is told for
    #[arg(long, value_name = "K,K", value_delimiter = ',', default_value = "1,5,10", value_parser = at_least_one, help_heading = "Figures")]
    pub recall_at: Vec<usize>,
    /// Inputs that are embedded together
    #[arg(long, value_name = "N", default_value_t = 64, env = "CROSSMODAL_BATCH_SIZE", value_parser = batch_size)]
    pub batch_size: usize,
    /// Image rules.
    #[command(flatten)]
    pub rules: ModelRules,
}
