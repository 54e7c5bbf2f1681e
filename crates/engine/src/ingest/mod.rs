//! Ingestion: from folders of files to vectors in a collection, every stage at work at once.
//!
//! ```text
//! read (threads) -> plan -> prepare (threads) -> encode -> write
//! ```
//! Bounded queues join the stages, so a fast stage waits for a slow one instead of filling memory. `plan` decides by content
//! hash what must be embedded at all: an unchanged file goes no further, a renamed or copied one takes its vector from the
//! collection. `write` commits a batch at a time, so that a kill loses at most the batches in flight.

mod budget;
mod plan;
mod stages;

use std::path::PathBuf;
use std::sync::Arc;

use crossmodal_models::{CancelToken, Embedder};

use crate::collection::{Collection, Target};
use crate::error::Result;
use crate::metadata::Metadata;

/// What to ingest, and how.
#[derive(Debug)]
pub struct Request {
    /// Files and folders.
    pub paths: Vec<PathBuf>,
    /// What is known of the files.
    pub metadata: Metadata,
    /// Most items that are embedded and committed together.
    pub batch_size: usize,
    /// Threads for reading and for decoding; 0 means one per core.
    pub threads: usize,
    /// Forget items whose files were below the given paths and are gone.
    pub prune: bool,
}

impl Request {
    /// Everything at its default.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, metadata: Metadata::default(), batch_size: 32, threads: 0, prune: false }
    }
}

/// A stage of ingestion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StageName {
    /// Reading and hashing files.
    Read,
    /// Looking up what is known already.
    Plan,
    /// Decoding and resizing.
    Prepare,
    /// Running the model.
    Encode,
    /// Committing to the collection.
    Write,
}

impl StageName {
    /// The name shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "reading",
            Self::Plan => "looking up",
            Self::Prepare => "decoding",
            Self::Encode => "encoding",
            Self::Write => "writing",
        }
    }
}

/// How far ingestion is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Progress {
    /// Files found.
    pub total: usize,
    /// Files dealt with, whatever came of them.
    pub done: usize,
    /// Files that were embedded.
    pub embedded: usize,
    /// Files that took the vector of identical content from the collection.
    pub reused: usize,
    /// Files that were in the collection already, unchanged.
    pub unchanged: usize,
    /// Files that couldn't be read or embedded.
    pub skipped: usize,
    /// Items committed since the start.
    pub written: usize,
    /// Seconds since the start.
    pub seconds: f64,
    /// The busiest stage, and the share of the time it was at work, 0..=1.
    pub bottleneck: Option<(StageName, f64)>,
}

/// A function that hears of progress.
type Listener = Arc<dyn Fn(&Progress) + Send + Sync>;

/// Who hears of progress. Called about ten times a second from the thread that called [`run`].
#[derive(Clone)]
pub struct Events(Option<Listener>);

impl Events {
    /// Nobody.
    pub fn none() -> Self {
        Self(None)
    }

    /// A function.
    pub fn to(listener: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    fn send(&self, progress: &Progress) {
        if let Some(listener) = &self.0 {
            listener(progress);
        }
    }
}

/// A file that was passed over, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file or folder.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// The final counts.
    pub progress: Progress,
    /// Items forgotten because their files are gone.
    pub pruned: usize,
    /// Files that couldn't be read or embedded, in order of path. What the collection held of them stays.
    pub skipped: Vec<Skipped>,
    /// Files passed over because they aren't pictures by their names.
    pub others: usize,
    /// Number of picture files in formats that aren't read, by ending.
    pub unread: std::collections::BTreeMap<String, usize>,
    /// Rows of metadata about files that weren't found, sorted.
    pub unmatched_metadata: Vec<String>,
    /// Whether the work was cancelled. What was committed stays, and a second run goes on from there.
    pub cancelled: bool,
}

/// Embeds files of items that exist into another field; their other fields stay. A file whose content isn't that of its item any more is
/// left out: its vectors would stand for different things.
pub(crate) fn run_into(
    collection: &Collection,
    model: &Arc<dyn Embedder>,
    target: &Target,
    request: &Request,
    found: &crate::files::Found,
    events: &Events,
    cancel: &CancelToken,
) -> Result<Report> {
    let report = stages::run(collection, model, target, true, request, found, events, cancel)?;
    if !report.cancelled {
        collection.keep_reference_texts(&target.field, model.as_ref())?;
    }
    Ok(report)
}

/// Ingests files into a collection.
///
/// # Errors
/// A path that doesn't exist, a model of another space than the collection's, failures of the storage or of the model as
/// a whole. A single file that can't be read or embedded is no error: it is listed in the report.
pub fn run(
    collection: &Collection,
    model: &Arc<dyn Embedder>,
    request: &Request,
    events: &Events,
    cancel: &CancelToken,
) -> Result<Report> {
    let found = crate::files::find(&request.paths)?;
    let target = collection.adopt(model.as_ref())?;
    let mut report = stages::run(collection, model, &target, false, request, &found, events, cancel)?;
    let walk_problems =
        found.problems.iter().map(|(path, reason)| Skipped { path: path.clone(), reason: reason.clone() });
    report.skipped.extend(walk_problems);
    report.skipped.sort_by(|a, b| a.path.cmp(&b.path));
    report.others = found.others;
    report.unread = found.unread.clone();
    report.unmatched_metadata = request.metadata.unmatched(&found.files, &found.roots);
    if request.prune && !report.cancelled {
        report.pruned = plan::prune(collection, &found)?;
    }
    if !report.cancelled {
        // So that searches find them ready.
        collection.keep_reference_texts(&target.field, model.as_ref())?;
    }
    Ok(report)
}
