//! Thumbnails of items, made when they are asked for and kept within a budget of memory.
//!
//! Whoever asks for one that is being made waits for it instead of making it again, and no more are made at once than the machine has processors,
//! so that neither many callers nor many pictures take more memory than that.

use std::collections::{BTreeMap, HashMap};
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crossmodal_models::media;
use crossmodal_store::Item;

use crate::error::{Error, Result};
use crate::files;

/// The longest side that a thumbnail may have, in pixels.
pub const MOST_SIDE: u32 = 2_048;
/// The budget of [`Thumbnails::default`] in bytes: some 3,000 thumbnails of 400 pixels.
pub const DEFAULT_BYTES: usize = 64 << 20;
/// Counted for each thumbnail besides its bytes: its key, twice, and its places in the tables.
const OVERHEAD: usize = 256;

/// What a thumbnail is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Content {
    /// The hash of a file's content.
    Hash([u8; 32]),
    /// A file as the file system describes it.
    File { path: PathBuf, size: u64, modified: Option<SystemTime> },
}

type Key = (Content, u32);
type Jpeg = Arc<[u8]>;

/// A cache of thumbnails, to be shared by all threads. The least recently used go when the budget is full.
#[derive(Debug)]
pub struct Thumbnails {
    most_bytes: usize,
    most_at_once: usize,
    state: Mutex<State>,
    /// Told when a maker has finished.
    finished: Condvar,
}

#[derive(Debug, Default)]
struct State {
    kept: HashMap<Key, Kept>,
    /// Keys by their last use.
    by_use: BTreeMap<u64, Key>,
    uses: u64,
    bytes: usize,
    made: u64,
    /// Thumbnails that somebody makes or waits to make.
    in_work: HashMap<Key, Arc<Mutex<Option<Outcome>>>>,
    /// Number of threads that make one at this moment.
    makers: usize,
}

#[derive(Debug)]
struct Kept {
    jpeg: Jpeg,
    used: u64,
}

/// What came of making a thumbnail, in a form that all who waited can have.
type Outcome = std::result::Result<Jpeg, Failure>;

#[derive(Debug, Clone)]
enum Failure {
    Missing,
    Changed(String),
    Io(std::io::ErrorKind, String),
    Refused(String),
    Picture(media::Error),
    /// The thread that made it panicked.
    Abandoned,
}

/// How full a cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThumbnailStatistics {
    /// Thumbnails that are kept.
    pub kept: usize,
    /// Memory they count for, in bytes; never more than the budget.
    pub bytes: usize,
    /// How many were made so far.
    pub made: u64,
}

impl Default for Thumbnails {
    fn default() -> Self {
        Self::new(DEFAULT_BYTES)
    }
}

impl Thumbnails {
    /// An empty cache with a budget in bytes. One of 0 keeps nothing.
    pub fn new(most_bytes: usize) -> Self {
        let most_at_once = std::thread::available_parallelism().map_or(1, usize::from);
        Self { most_bytes, most_at_once, state: Mutex::default(), finished: Condvar::new() }
    }

    /// A JPEG of the picture that an item came from: upright, over white where it is transparent, its longer side at most `side` pixels,
    /// 1..=[`MOST_SIDE`].
    ///
    /// An item that was indexed from a file is known by its content: its thumbnail is made only from a file that has it still, and serves all items
    /// with that content, also when their files are gone. Of other items the file that their source (or else their id) names is shown as it is
    /// now.
    ///
    /// # Errors
    /// A side out of range; [`Error::NotFound`] for a missing file, [`Error::Changed`], [`Error::Picture`] for one that is damaged or no picture,
    /// [`Error::Io`], [`Error::Invalid`] for what isn't a file. Failures aren't remembered.
    pub fn thumbnail(&self, item: &Item, side: u32) -> Result<Arc<[u8]>> {
        if !(1..=MOST_SIDE).contains(&side) {
            let message = format!("a thumbnail with a side of {side} pixels, expected 1 to {MOST_SIDE}");
            return Err(Error::Invalid(message));
        }
        let path = path_of(item);
        let outcome = content(item, &path).and_then(|content| self.get_or_make((content, side), &path));
        outcome.map_err(|failure| failure.of(&path, item))
    }

    /// How full it is.
    pub fn statistics(&self) -> ThumbnailStatistics {
        let state = self.lock();
        ThumbnailStatistics { kept: state.kept.len(), bytes: state.bytes, made: state.made }
    }

    fn get_or_make(&self, key: Key, path: &Path) -> Outcome {
        let mut state = self.lock();
        if let Some(jpeg) = state.get(&key) {
            return Ok(jpeg);
        }
        if let Some(work) = state.in_work.get(&key).cloned() {
            loop {
                if let Some(outcome) = work.lock().unwrap_or_else(PoisonError::into_inner).clone() {
                    return outcome;
                }
                state = self.wait(state);
            }
        }
        let mut task = Task { cache: self, outcome: Err(Failure::Abandoned), started: false, key };
        state.in_work.insert(task.key.clone(), Arc::default());
        while state.makers >= self.most_at_once {
            state = self.wait(state);
        }
        state.makers += 1;
        task.started = true;
        drop(state);
        task.outcome = make(&task.key, path);
        task.outcome.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.finished.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thumbnail in the making. Dropping it hands the outcome to all who wait, also when its thread panics.
struct Task<'a> {
    cache: &'a Thumbnails,
    key: Key,
    outcome: Outcome,
    started: bool,
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        let mut state = self.cache.lock();
        state.makers -= usize::from(self.started);
        if let Ok(jpeg) = &self.outcome {
            state.made += 1;
            state.keep(self.key.clone(), jpeg.clone(), self.cache.most_bytes);
        }
        if let Some(work) = state.in_work.remove(&self.key) {
            *work.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.outcome.clone());
        }
        drop(state);
        self.cache.finished.notify_all();
    }
}

impl State {
    fn get(&mut self, key: &Key) -> Option<Jpeg> {
        let kept = self.kept.get_mut(key)?;
        self.uses += 1;
        let before = std::mem::replace(&mut kept.used, self.uses);
        if let Some(key) = self.by_use.remove(&before) {
            self.by_use.insert(self.uses, key);
        }
        Some(kept.jpeg.clone())
    }

    /// Keeps a thumbnail that isn't kept yet, in the place of others where necessary; one over the whole budget isn't kept.
    fn keep(&mut self, key: Key, jpeg: Jpeg, most_bytes: usize) {
        let size = jpeg.len() + OVERHEAD;
        if size > most_bytes {
            return;
        }
        while self.bytes + size > most_bytes
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.bytes -= self.kept.remove(&oldest).map_or(0, |kept| kept.jpeg.len() + OVERHEAD);
        }
        self.uses += 1;
        self.bytes += size;
        self.by_use.insert(self.uses, key.clone());
        self.kept.insert(key, Kept { jpeg, used: self.uses });
    }
}

impl Failure {
    fn of(self, path: &Path, item: &Item) -> Error {
        let path = path.to_path_buf();
        match self {
            Self::Missing => {
                Error::NotFound(format!("{}: the file of item {:?} doesn't exist any more", path.display(), item.id))
            }
            Self::Changed(reason) => Error::Changed { path, reason },
            Self::Io(kind, reason) => Error::Io { path, source: std::io::Error::new(kind, reason) },
            Self::Refused(reason) => Error::Invalid(reason),
            Self::Picture(source) => Error::Picture { path, source },
            Self::Abandoned => {
                let source = std::io::Error::other("its thumbnail couldn't be made: the program failed");
                Error::Io { path, source }
            }
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Io { source, .. } => source.into(),
            other => Self::Refused(other.to_string()),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::NotFound => Self::Missing,
            kind => Self::Io(kind, error.to_string()),
        }
    }
}

/// The file that an item came from.
fn path_of(item: &Item) -> PathBuf {
    files::path(item.source.as_ref().map_or(&item.id, |source| &source.uri))
}

/// What an item's thumbnail is of. Only items whose source has a size were read from a file; the hash of others is of something else.
fn content(item: &Item, path: &Path) -> std::result::Result<Content, Failure> {
    let from_file = item.source.as_ref().is_some_and(|source| source.size.is_some());
    match item.content_hash.filter(|_| from_file) {
        Some(hash) => Ok(Content::Hash(hash)),
        None => Ok(described(path, &std::fs::metadata(path)?)),
    }
}

fn described(path: &Path, metadata: &Metadata) -> Content {
    Content::File { path: path.to_path_buf(), size: metadata.len(), modified: metadata.modified().ok() }
}

fn make((content, side): &Key, path: &Path) -> Outcome {
    let (bytes, metadata) = files::read_limited(path, media::DecodeLimits::default().max_bytes)?;
    match content {
        Content::Hash(hash) if blake3::hash(&bytes).as_bytes() != hash => {
            return Err(Failure::Changed("its content is another".into()));
        }
        Content::File { .. } if *content != described(path, &metadata) => {
            return Err(Failure::Changed("it changed while it was looked at".into()));
        }
        Content::Hash(_) | Content::File { .. } => {}
    }
    media::thumbnail(&bytes, *side).map(Arc::from).map_err(Failure::Picture)
}
