//! Arguments of `crossmodal collection`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::WaitOption;
use super::exchange::{BackupArguments, DuplicatesArguments, ExportArguments, ImportArguments};
use super::upkeep::{MigrateArguments, OptimizeArguments};

/// The collection, as an argument or as an option.
#[derive(Debug, Clone, Args)]
// Both may be given: the option's environment variable must not forbid the argument.
#[group(id = "which", required = true, multiple = true)]
pub struct CollectionPath {
    /// The collection's folder
    #[arg(value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// The same, as for other commands; DIR wins
    #[arg(short, long, value_name = "DIR", env = "CROSSMODAL_COLLECTION")]
    pub collection: Option<PathBuf>,
}

impl CollectionPath {
    /// The folder, however it was given.
    pub fn path(&self) -> PathBuf {
        self.folder.clone().or_else(|| self.collection.clone()).unwrap_or_default()
    }
}

/// `crossmodal collection ...`
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  crossmodal collection info photos.cm
  crossmodal collection list photos.cm --limit 20")]
pub enum CollectionCommand {
    /// What a collection holds: items, fields, spaces, sizes
    Info(InfoArguments),
    /// List items
    List(ListArguments),
    /// Build or extend the index that makes searches fast
    Optimize(OptimizeArguments),
    /// Move to the space of another model, while searches go on
    Migrate(MigrateArguments),
    /// Forget items (the files stay)
    Remove(RemoveArguments),
    /// Check everything against everything
    Verify(VerifyArguments),
    /// Give the space of forgotten vectors back
    Compact(CompactArguments),
    /// Take in vectors that were computed elsewhere, or what `export` wrote
    Import(ImportArguments),
    /// Write everything to a folder that others can read
    Export(ExportArguments),
    /// Copy a collection while it is in use, and check the copy
    Backup(BackupArguments),
    /// Find items that are there several times
    Duplicates(DuplicatesArguments),
}

/// `crossmodal collection info`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  crossmodal collection info photos.cm
  crossmodal collection info photos.cm --json

JSON: {location, model, items, bytes, format_version, change,
       fields: [{name, model, space, dimension, metric, vectors, dead_vectors, bytes,
                index: {kind, vectors, bytes, effort, parameters}, {unusable} or null}]}")]
pub struct InfoArguments {
    /// Which collection.
    #[command(flatten)]
    pub which: CollectionPath,
}

/// `crossmodal collection list`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  crossmodal collection list photos.cm
  crossmodal collection list photos.cm --limit 100 --after 100
  crossmodal collection list photos.cm --filter 'year >= 2020 and caption like dog%'

JSON: {items: [{key, id, path, modality, size, metadata}], next}; `next` is the value for --after, or null at the end")]
pub struct ListArguments {
    /// Which collection.
    #[command(flatten)]
    pub which: CollectionPath,
    /// At most so many items; 0 means all
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: usize,
    /// Only items after this key: the last one of the page before
    #[arg(long, value_name = "KEY")]
    pub after: Option<i64>,
    /// Only items that satisfy a condition: `year >= 2020 and tag in (a, b)`, see docs/filters.md. Several must all hold
    #[arg(long, value_name = "FILTER")]
    pub filter: Vec<String>,
}

/// `crossmodal collection remove`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  crossmodal collection remove beach.jpg old/dog.png --collection photos.cm
  crossmodal collection remove /home/me/photos/beach.jpg --collection photos.cm
  crossmodal collection remove --missing --collection photos.cm    after moving or deleting a folder

JSON: {removed: [ids]}")]
pub struct RemoveArguments {
    /// Items: an id, a path, or the end of an id where that is unique
    #[arg(value_name = "ITEM", required_unless_present = "missing")]
    pub items: Vec<String>,
    /// All items whose files don't exist any more
    #[arg(long)]
    pub missing: bool,
    /// The collection's folder
    #[arg(short, long, value_name = "DIR", env = "CROSSMODAL_COLLECTION")]
    pub collection: PathBuf,
    /// Patience.
    #[command(flatten)]
    pub wait: WaitOption,
}

/// `crossmodal collection verify`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  crossmodal collection verify photos.cm

Exits 1 when something is wrong. `crossmodal index --repair` over the same files restores what is
affected, `collection compact` drops damage that affects no item.
JSON: {sound, items, vectors, dead_vectors, problems: [{kind, file, field, item, detail}], affected_items}")]
pub struct VerifyArguments {
    /// Which collection.
    #[command(flatten)]
    pub which: CollectionPath,
}

/// `crossmodal collection compact`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  crossmodal collection compact photos.cm

JSON: {dropped_vectors, bytes_before, bytes_after}")]
pub struct CompactArguments {
    /// Which collection.
    #[command(flatten)]
    pub which: CollectionPath,
    /// Patience.
    #[command(flatten)]
    pub wait: WaitOption,
}
