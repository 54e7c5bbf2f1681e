//! Arguments of `crossmodal collection optimize` and `migrate`.

use clap::{ArgGroup, Args, ValueEnum};

use super::WaitOption;
use super::collection::CollectionPath;
use super::media::{ModelOption, ModelRules};

/// `crossmodal collection optimize`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  crossmodal collection optimize photos.cm
  crossmodal collection optimize photos.cm --kind graph
  crossmodal collection optimize photos.cm --kind exact      compare every vector again

An index makes searches fast and loses nothing: it is derived from the vectors, what is newer is searched exactly, and the folder `indexes`
may be deleted at any time. `crossmodal index` extends it by itself when enough is new.
JSON: {choice, kind, vectors, added, bytes, parameters, effort, seconds, replaced}; kind is `exact` where there is no index")]
pub struct OptimizeArguments {
    /// Which collection.
    #[command(flatten)]
    pub which: CollectionPath,
    /// The kind of index, remembered for later [default: the collection's, at first auto]
    #[arg(long, value_name = "KIND", value_enum)]
    pub kind: Option<IndexKindOption>,
    /// Build it anew, although there is one
    #[arg(long)]
    pub rebuild: bool,
    /// Patience.
    #[command(flatten)]
    pub wait: WaitOption,
}

/// Kinds of indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum IndexKindOption {
    /// By the number of vectors and the memory: exact, graph or ivf
    Auto,
    /// None: every vector is compared
    Exact,
    /// Every vector is compared by an int8 code, the best exactly
    Flat,
    /// A graph of near neighbours: the fastest
    Graph,
    /// Cells of compact codes: the least memory
    Ivf,
}

/// `crossmodal collection migrate`
#[derive(Debug, Args)]
// Several may be given: the model's environment variable must not forbid the others.
#[command(group = ArgGroup::new("what").args(["model", "rollback", "finish"]).required(true).multiple(true))]
#[command(after_help = "\
Examples:
  crossmodal collection migrate photos.cm --model laion/CLIP-ViT-B-32-laion2B-s34B-b79K
  crossmodal collection migrate photos.cm --rollback      search in the space before again
  crossmodal collection migrate photos.cm --finish        drop the vectors of the space before

Searches go on in the old space until every picture is embedded in the new one; then it is switched at once. An interrupted
migration goes on when the same command is given again.
JSON: {from, to, items, before, embedded, reused, missing: [{path, reason}], overlap_at_10, compared_items, switched, cancelled};
--rollback: {from, to}; --finish: {dropped_vectors}")]
pub struct MigrateArguments {
    /// Which collection.
    #[command(flatten)]
    pub which: CollectionPath,
    /// The new model
    #[command(flatten)]
    pub model: ModelOption,
    /// Make the space before the last switch the active one again
    #[arg(long, conflicts_with = "finish")]
    pub rollback: bool,
    /// Drop the vectors of the spaces that are not active, for good
    #[arg(long)]
    pub finish: bool,
    /// Embed, and compare the spaces, but don't switch
    #[arg(long, conflicts_with_all = ["rollback", "finish"])]
    pub no_switch: bool,
    /// Switch although some items can't be embedded; searches won't find those any more
    #[arg(long, conflicts_with_all = ["rollback", "finish", "no_switch"])]
    pub allow_missing: bool,
    /// Pictures that are embedded and committed together
    #[arg(long, value_name = "N", default_value_t = 32, env = "CROSSMODAL_BATCH_SIZE", value_parser = super::tasks::batch_size)]
    pub batch_size: usize,
    /// Patience.
    #[command(flatten)]
    pub wait: WaitOption,
    /// Image rules.
    #[command(flatten)]
    pub rules: ModelRules,
}
