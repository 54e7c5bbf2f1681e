//! An index that is kept up to its collection while vectors are written: a thread that extends it whenever that is worth it.
//!
//! What is newer than the index is searched exactly, so that this is about speed alone. Extending copies the index, which is why it waits
//! until enough is new ([`Collection::index_is_due`]) and then rests for a multiple of the time it took.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossmodal_store::{BuildControl, IndexReport, Mode as StoreMode};

use crate::collection::Collection;
use crate::error::{Error, ErrorKind, Result};

/// The least time between a failure and the next try; it doubles with each further one, up to the most.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(10);
const MOST_REST_AFTER_FAILURE: Duration = Duration::from_secs(600);

/// How an index is kept.
#[derive(Debug, Clone)]
pub struct KeeperOptions {
    /// Threads that build; 0 is one per core.
    pub threads: usize,
    /// Time between two looks at the collection.
    pub look_every: Duration,
    /// The rest after a build, as a multiple of the time it took: 4 leaves four fifths of the time to others.
    pub rest: u32,
}

impl Default for KeeperOptions {
    /// One thread, so that what fills the collection has the others.
    fn default() -> Self {
        Self { threads: 1, look_every: Duration::from_secs(2), rest: 4 }
    }
}

/// What a keeper is doing and has done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KeeperState {
    /// Rows done, of how many, while an index is being built.
    pub building: Option<(u64, u64)>,
    /// Builds that were finished.
    pub built: u64,
    /// What the last finished build came to.
    pub last: Option<IndexReport>,
    /// Why the last try failed; none after one that didn't. The collection isn't the worse for it.
    pub failure: Option<String>,
}

/// Keeps the index of an open collection for as long as it lives; dropped, it calls off what it is building and waits for that.
#[derive(Debug)]
pub struct IndexKeeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Shows the state of a keeper, also after it has ended.
#[derive(Debug, Clone)]
pub struct KeeperWatch(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<KeeperState>,
    stopped: Mutex<bool>,
    wake: Condvar,
    /// The same as `stopped`, for those who can't wait for a lock.
    cancelled: AtomicBool,
    done: AtomicU64,
    all: AtomicU64,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, KeeperState> {
        // Whole at every moment, so that a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_all();
    }

    /// Waits; true once the keeper is to stop.
    fn rest(&self, time: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.wake.wait_timeout_while(stopped, time, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl KeeperWatch {
    /// The state now.
    pub fn state(&self) -> KeeperState {
        let mut state = self.0.state().clone();
        if state.building.is_some() {
            state.building = Some((self.0.done.load(Ordering::Relaxed), self.0.all.load(Ordering::Relaxed)));
        }
        state
    }
}

impl IndexKeeper {
    /// Starts keeping the index of a collection that was opened for writing.
    ///
    /// # Errors
    /// A collection that was opened for reading, or a system that gives no thread.
    pub fn start(collection: Arc<Collection>) -> Result<Self> {
        Self::start_with(collection, KeeperOptions::default())
    }

    /// Starts with options of one's own.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(collection: Arc<Collection>, options: KeeperOptions) -> Result<Self> {
        let folder = collection.store().folder().to_path_buf();
        if collection.store().mode() == StoreMode::Read {
            let reason = format!("{} was opened for reading, so that its index can't be extended", folder.display());
            return Err(Error::Invalid(reason));
        }
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        let thread = std::thread::Builder::new().name("index keeper".into());
        let thread = thread.spawn(move || keep(&collection, &options, &own));
        let thread = thread.map_err(|source| Error::io(&folder, source))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Something that shows the state and can be handed on.
    pub fn watch(&self) -> KeeperWatch {
        KeeperWatch(self.shared.clone())
    }

    /// Calls off what is being built, waits until that has ended, and tells what was done.
    pub fn stop(mut self) -> KeeperState {
        self.end();
        self.watch().state()
    }

    fn end(&mut self) {
        self.shared.stop();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            let mut state = self.shared.state();
            state.building = None;
            state.failure = Some("building the index panicked".into());
        }
    }
}

impl Drop for IndexKeeper {
    fn drop(&mut self) {
        self.end();
    }
}

/// The thread: looks, builds, rests.
fn keep(collection: &Collection, options: &KeeperOptions, shared: &Shared) {
    let mut seen = None;
    let mut after_failure = REST_AFTER_FAILURE;
    let mut rest = options.look_every;
    while !shared.rest(rest) {
        rest = options.look_every;
        let start = Instant::now();
        match look(collection, options, shared, &mut seen) {
            Ok(false) => {}
            Ok(true) => rest = rest.max(start.elapsed().saturating_mul(options.rest)),
            // Asked for.
            Err(error) if error.kind() == ErrorKind::Cancelled => {}
            Err(error) => {
                shared.state().failure = Some(error.to_string());
                rest = rest.max(after_failure);
                after_failure = (after_failure * 2).min(MOST_REST_AFTER_FAILURE);
                continue;
            }
        }
        after_failure = REST_AFTER_FAILURE;
    }
}

/// Builds where it is due; whether it was. `seen` is the change at which nothing was due.
fn look(collection: &Collection, options: &KeeperOptions, shared: &Shared, seen: &mut Option<u64>) -> Result<bool> {
    let change = collection.store().change()?;
    if *seen == Some(change) {
        return Ok(false);
    }
    if !collection.index_is_due()? {
        *seen = Some(change);
        return Ok(false);
    }
    shared.done.store(0, Ordering::Relaxed);
    shared.all.store(0, Ordering::Relaxed);
    shared.state().building = Some((0, 0));
    let control = BuildControl {
        threads: options.threads,
        progress: &|done, all| {
            shared.done.store(done, Ordering::Relaxed);
            shared.all.store(all, Ordering::Relaxed);
        },
        cancelled: &|| shared.cancelled.load(Ordering::SeqCst),
    };
    let built = collection.build_index(false, &control);
    let mut state = shared.state();
    state.building = None;
    let report = built?;
    state.built += 1;
    state.last = Some(report);
    state.failure = None;
    Ok(true)
}
