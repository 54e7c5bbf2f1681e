//! Arguments of `crossmodal collection import`, `export`, `backup` and `duplicates`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};

use super::WaitOption;
use super::tasks::batch_size;

/// `crossmodal collection import`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").args(["folder", "vectors"]).required(true))]
#[command(after_help = "\
Examples:
  crossmodal collection import --vectors X.npy --collection x.cm
  crossmodal collection import --vectors X.npy --ids IDS.npy --metadata rows.jsonl --metric inner_product --collection x.cm
  crossmodal collection import clip-retrieval-output --collection x.cm
  crossmodal collection import exported --collection copy.cm

Vectors from elsewhere go into a collection of their own; `search --vectors` searches it. The first import fixes
dimension and metric. Metadata with an `id` belongs to the row of that id, other metadata to the rows in order. Rows with NaN, an
infinite value, length zero (cosine) or the id of an earlier row are named and passed over. What is there unchanged is left alone, so
that the same command goes on where it was interrupted.
JSON: {collection, rows, added, replaced, touched, unchanged, skipped_count, skipped: [{row, id, reason}], unmatched_metadata,
       seconds, rows_per_second, cancelled}; of an export {collection, items, unchanged, vectors, bytes, cancelled}")]
pub struct ImportArguments {
    /// What `collection export` wrote, or a folder with img_emb/img_emb_*.npy and metadata/metadata_*.parquet
    #[arg(value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
    /// Vectors: .npy, f16, f32 or f64, shape (n, dimension)
    #[arg(long, value_name = "FILE")]
    pub vectors: Option<PathBuf>,
    /// Their ids: .npy of n integers or texts [default: 0 to n-1]
    #[arg(long, value_name = "FILE", requires = "vectors")]
    pub ids: Option<PathBuf>,
    /// Their metadata: a JSON object a line
    #[arg(long, value_name = "FILE", requires = "vectors")]
    pub metadata: Option<PathBuf>,
    /// How vectors are compared
    #[arg(long, value_name = "METRIC", value_enum, default_value_t)]
    pub metric: MetricChoice,
    /// Refuse everything if any row can't be imported, before anything is written
    #[arg(long)]
    pub strict: bool,
    /// Rows that are committed together
    #[arg(long, value_name = "N", default_value_t = 1024, env = "CROSSMODAL_BATCH_SIZE", value_parser = batch_size)]
    pub batch_size: usize,
    /// The collection's folder; made if it doesn't exist
    #[arg(short, long, value_name = "DIR", env = "CROSSMODAL_COLLECTION")]
    pub collection: PathBuf,
    /// Patience.
    #[command(flatten)]
    pub wait: WaitOption,
}

/// How vectors are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum MetricChoice {
    /// The cosine of the angle between them.
    #[default]
    Cosine,
    /// Their inner product.
    InnerProduct,
    /// Their distance.
    Euclidean,
}

/// `crossmodal collection export`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  crossmodal collection export exported --collection photos.cm
  crossmodal collection export embeddings --format clip-retrieval --f16 --collection photos.cm

The folder appears when it is complete, and holds the state of one moment even while the collection is written.
`crossmodal` loses nothing: manifest.json (settings, spaces, checksums), items.jsonl, vectors-*.safetensors.
`clip-retrieval` holds one vector an item: img_emb/img_emb_0.npy and metadata/metadata_0.parquet.
JSON: {collection, output, format, items, vectors, bytes}")]
pub struct ExportArguments {
    /// The folder to make
    #[arg(value_name = "FOLDER")]
    pub output: PathBuf,
    /// The layout
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub format: ExportFormat,
    /// Half precision (clip-retrieval)
    #[arg(long)]
    pub f16: bool,
    /// Replace an earlier export
    #[arg(long)]
    pub force: bool,
    /// The collection's folder
    #[arg(short, long, value_name = "DIR", env = "CROSSMODAL_COLLECTION")]
    pub collection: PathBuf,
}

/// Layouts of exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ExportFormat {
    /// Everything.
    #[default]
    Crossmodal,
    /// Embeddings and metadata as clip-retrieval reads them.
    ClipRetrieval,
}

/// `crossmodal collection backup`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  crossmodal collection backup backups/photos-2026-11.cm --collection photos.cm

The copy is a collection itself: restoring it means using it. Others may read and write meanwhile; the copy holds the state of
one moment, is synced to disk, and every item and vector in it is checked before it gets its name.
JSON: {collection, output, change, items, vectors, bytes}")]
pub struct BackupArguments {
    /// The folder to make; it must not exist
    #[arg(value_name = "FOLDER")]
    pub output: PathBuf,
    /// The collection's folder
    #[arg(short, long, value_name = "DIR", env = "CROSSMODAL_COLLECTION")]
    pub collection: PathBuf,
}

/// `crossmodal collection duplicates`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  crossmodal collection duplicates photos.cm
  crossmodal collection duplicates photos.cm --threshold 0.99 --json

Exact copies are found by their content, near ones by their vectors: two items belong to one group when a chain of items with cosines of
at least the threshold connects them. The first of a group is the one to keep: the most pixels (where the metadata has width and
height), else the largest file, else the oldest item.
JSON: {threshold, items, surplus, seconds, groups: [{size, reason, items: [{key, id, path, size, similarity, exact, keep}]}]}")]
pub struct DuplicatesArguments {
    /// Which collection.
    #[command(flatten)]
    pub which: super::collection::CollectionPath,
    /// The least cosine of near duplicates, 0 to 1
    #[arg(long, value_name = "COSINE", default_value_t = 0.97, allow_negative_numbers = true, value_parser = cosine)]
    pub threshold: f32,
    /// Groups that are listed in text; 0 means all
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,
}

fn cosine(text: &str) -> Result<f32, String> {
    let number: f32 = text.parse().map_err(|_| "not a number".to_string())?;
    if (0.0..=1.0).contains(&number) { Ok(number) } else { Err("must be a cosine from 0 to 1".into()) }
}
