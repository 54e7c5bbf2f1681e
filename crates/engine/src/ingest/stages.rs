//! The threads of ingestion and the queues between them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use crossmodal_models::{CancelToken, Embedder, ErrorKind, Prepared};
use crossmodal_store::{CacheKey, Item, ItemVectors, VectorRecord, VectorStore};

use super::budget::Budget;
use super::plan::{Action, Finished, Loaded, Pending, Planner, load};
use super::{Events, Progress, Report, Request, Skipped, StageName};
use crate::collection::{Collection, Target};
use crate::error::{Error, Result};
use crate::files::Found;

/// What the writer is handed.
enum Write {
    Put(Finished),
    Touch(Item),
}

/// A prepared input and the item it belongs to.
struct Ready {
    pending: Pending,
    prepared: Prepared,
}

/// What came of one file.
enum Outcome {
    Embedded,
    Reused,
    Unchanged,
    Skipped(Skipped),
    /// Nothing more follows: the writer is the last stage, and what feeds it has ended before.
    Ended,
}

/// What is known in this run of content that isn't committed yet, so that of several files with one content one is
/// embedded and the others take its vector.
enum Twin {
    /// One is on its way, these wait for it.
    Waiting(Vec<Pending>),
    /// It is embedded but not committed.
    Embedded(Vec<f32>),
}

/// State that all stages share.
struct Shared<'a> {
    /// Raised by the user, or by a stage that failed.
    cancel: &'a CancelToken,
    stop: CancelToken,
    failure: Mutex<Option<Error>>,
    outcomes: Sender<Outcome>,
    twins: Mutex<HashMap<CacheKey, Twin>>,
    written: AtomicUsize,
    budget: Arc<Budget>,
    /// Nanoseconds of work by stage, in the order of [`STAGES`].
    busy: [AtomicU64; 5],
}

/// Bytes of files that are in memory at once, between reading and decoding.
const MEMORY_BUDGET: u64 = 512 << 20;

const STAGES: [StageName; 5] =
    [StageName::Read, StageName::Plan, StageName::Prepare, StageName::Encode, StageName::Write];

impl Shared<'_> {
    fn stopped(&self) -> bool {
        self.cancel.is_cancelled() || self.stop.is_cancelled()
    }

    fn fail(&self, error: Error) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.stop.cancel();
    }

    fn skip(&self, path: PathBuf, reason: String) {
        self.note(Outcome::Skipped(Skipped { path, reason }));
    }

    fn twins(&self) -> MutexGuard<'_, HashMap<CacheKey, Twin>> {
        self.twins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, outcome: Outcome) {
        // The receiver outlives all stages.
        let _ = self.outcomes.send(outcome);
    }

    /// Runs `work` and counts its time towards `stage`.
    fn timed<T>(&self, stage: StageName, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        if let Some(place) = STAGES.iter().position(|name| *name == stage) {
            self.busy[place].fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        }
        result
    }
}

/// Runs all stages to the end, or to a cancellation or failure.
#[expect(clippy::too_many_arguments, reason = "one call from each of two places, and all of them are different things")]
pub(super) fn run(
    collection: &Collection,
    model: &Arc<dyn Embedder>,
    target: &Target,
    same_content_only: bool,
    request: &Request,
    found: &Found,
    events: &Events,
    cancel: &CancelToken,
) -> Result<Report> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if request.threads == 0 { cores } else { request.threads };
    let batch_size = request.batch_size.clamp(1, 4096);
    let (outcomes, heard) = unbounded();
    let shared = Shared {
        cancel,
        stop: CancelToken::new(),
        failure: Mutex::new(None),
        outcomes,
        twins: Mutex::default(),
        written: AtomicUsize::new(0),
        budget: Budget::new(MEMORY_BUDGET),
        busy: [const { AtomicU64::new(0) }; 5],
    };
    let planner = Planner {
        collection,
        model: model.as_ref(),
        target,
        same_content_only,
        metadata: &request.metadata,
        roots: &found.roots,
    };
    let (to_plan, planned) = bounded(threads * 4);
    let (to_prepare, preparing) = bounded(batch_size.max(threads * 2));
    let (to_encode, encoding) = bounded(batch_size * 2);
    let (to_write, writing) = bounded(batch_size * 4);
    let next = AtomicUsize::new(0);
    let mut progress = Progress { total: found.files.len(), ..Progress::default() };
    let mut skipped = Vec::new();
    std::thread::scope(|scope| {
        let shared = &shared;
        for _ in 0..threads {
            let to_plan = to_plan.clone();
            scope.spawn(|| read(shared, &found.files, &next, to_plan));
            let (preparing, to_encode) = (preparing.clone(), to_encode.clone());
            let model = model.as_ref();
            scope.spawn(move || prepare(shared, model, preparing, to_encode));
        }
        drop((to_plan, to_encode, preparing));
        let writer_of_plan = to_write.clone();
        scope.spawn(move || plan(shared, planner, planned, to_prepare, writer_of_plan));
        let encoder = Encoder { model: model.as_ref(), target, batch_size };
        scope.spawn(move || encoder.run(shared, encoding, to_write));
        let writer = scope.spawn(move || {
            write(shared, collection, batch_size, writing);
            shared.note(Outcome::Ended);
        });
        watch(shared, &heard, &mut progress, &mut skipped, threads, events, || writer.is_finished());
    });
    if let Some(error) = shared.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(error);
    }
    Ok(Report { progress, skipped, cancelled: cancel.is_cancelled(), ..Report::default() })
}

/// Counts outcomes and tells the listener, until the last stage is done.
fn watch(
    shared: &Shared<'_>,
    heard: &Receiver<Outcome>,
    progress: &mut Progress,
    skipped: &mut Vec<Skipped>,
    threads: usize,
    events: &Events,
    finished: impl Fn() -> bool,
) {
    let start = Instant::now();
    let mut ended = false;
    while !ended {
        // Asked before the queue is emptied. The writer says when it ends; this is for a writer that panicked.
        ended = finished();
        let deadline = Instant::now() + Duration::from_millis(100);
        while let Ok(outcome) = heard.recv_deadline(deadline) {
            progress.done += 1;
            match outcome {
                Outcome::Embedded => progress.embedded += 1,
                Outcome::Reused => progress.reused += 1,
                Outcome::Unchanged => progress.unchanged += 1,
                Outcome::Skipped(file) => {
                    progress.skipped += 1;
                    skipped.push(file);
                }
                Outcome::Ended => {
                    progress.done -= 1;
                    ended = true;
                    break;
                }
            }
        }
        progress.written = shared.written.load(Ordering::Relaxed);
        progress.seconds = start.elapsed().as_secs_f64();
        progress.bottleneck = bottleneck(shared, progress.seconds, threads);
        events.send(progress);
    }
}

/// The stage that was at work for the largest share of the time, per thread that it has.
fn bottleneck(shared: &Shared<'_>, seconds: f64, threads: usize) -> Option<(StageName, f64)> {
    let share = |(stage, busy): (&StageName, &AtomicU64)| {
        let workers = match stage {
            StageName::Read | StageName::Prepare => threads,
            StageName::Plan | StageName::Encode | StageName::Write => 1,
        };
        (*stage, busy.load(Ordering::Relaxed) as f64 / 1e9 / workers as f64 / seconds.max(1e-9))
    };
    STAGES.iter().zip(&shared.busy).map(share).max_by(|a, b| a.1.total_cmp(&b.1)).filter(|(_, share)| *share > 0.0)
}

fn read(shared: &Shared<'_>, files: &[PathBuf], next: &AtomicUsize, to_plan: Sender<Loaded>) {
    while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
        if shared.stopped() {
            return;
        }
        let length = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let Some(permit) = shared.budget.acquire(length, || shared.stopped()) else { return };
        match shared.timed(StageName::Read, || load(path, permit)) {
            Ok(loaded) => {
                if to_plan.send(loaded).is_err() {
                    return;
                }
            }
            Err(reason) => shared.skip(path.clone(), reason),
        }
    }
}

/// Takes what is waiting, at most `limit`, after blocking for the first.
fn take_batch<T>(queue: &Receiver<T>, limit: usize) -> Vec<T> {
    let mut batch: Vec<T> = queue.recv().into_iter().collect();
    if !batch.is_empty() {
        batch.extend(queue.try_iter().take(limit - 1));
    }
    batch
}

fn plan(
    shared: &Shared<'_>,
    planner: Planner<'_>,
    queue: Receiver<Loaded>,
    to_prepare: Sender<Pending>,
    to_write: Sender<Write>,
) {
    loop {
        let batch = take_batch(&queue, 64);
        if batch.is_empty() || shared.stopped() {
            return;
        }
        let actions = match shared.timed(StageName::Plan, || planner.plan(batch)) {
            Ok(actions) => actions,
            Err(error) => return shared.fail(error),
        };
        for action in actions {
            match action {
                Action::LeaveOut(path, reason) => shared.skip(path, reason.into()),
                Action::Unchanged => shared.note(Outcome::Unchanged),
                Action::Touch(item) => {
                    shared.note(Outcome::Unchanged);
                    let _ = to_write.send(Write::Touch(item));
                }
                Action::Reuse(item) => {
                    shared.note(Outcome::Reused);
                    let _ = to_write.send(Write::Put(item));
                }
                Action::Embed(pending) => embed_once(shared, &planner, pending, &to_prepare, &to_write),
            }
        }
    }
}

/// Sends the first file of some content on to be embedded; others wait for its vector, or take it.
fn embed_once(
    shared: &Shared<'_>,
    planner: &Planner<'_>,
    pending: Pending,
    to_prepare: &Sender<Pending>,
    to_write: &Sender<Write>,
) {
    let mut twins = shared.twins();
    match twins.get_mut(&pending.cache_key) {
        Some(Twin::Waiting(waiting)) => waiting.push(pending.parked()),
        Some(Twin::Embedded(vector)) => {
            let item = pending.with_vector(planner.target, planner.model.info().precision.as_str(), vector.clone());
            drop(twins);
            shared.note(Outcome::Reused);
            let _ = to_write.send(Write::Put(item));
        }
        None => {
            twins.insert(pending.cache_key, Twin::Waiting(Vec::new()));
            drop(twins);
            let _ = to_prepare.send(pending);
        }
    }
}

fn prepare(shared: &Shared<'_>, model: &dyn Embedder, queue: Receiver<Pending>, to_encode: Sender<Ready>) {
    for mut pending in queue {
        if shared.stopped() {
            continue;
        }
        let Some((input, permit)) = pending.content.take() else { continue };
        let prepared = shared.timed(StageName::Prepare, || model.prepare(&input));
        drop((input, permit));
        match prepared {
            Ok(prepared) => {
                let _ = to_encode.send(Ready { pending, prepared });
            }
            Err(error) => {
                let twins = match shared.twins().remove(&pending.cache_key) {
                    Some(Twin::Waiting(twins)) => twins,
                    Some(Twin::Embedded(_)) | None => Vec::new(),
                };
                for pending in std::iter::once(pending).chain(twins) {
                    shared.skip(crate::files::path(&pending.item.id), error.to_string());
                }
            }
        }
    }
}

struct Encoder<'a> {
    model: &'a dyn Embedder,
    target: &'a Target,
    batch_size: usize,
}

impl Encoder<'_> {
    fn run(&self, shared: &Shared<'_>, queue: Receiver<Ready>, to_write: Sender<Write>) {
        loop {
            let batch = full_batch(&queue, self.batch_size);
            if batch.is_empty() {
                return;
            }
            if shared.stopped() {
                continue;
            }
            if let Err(error) = shared.timed(StageName::Encode, || self.encode(shared, batch, &to_write)) {
                shared.fail(error);
            }
        }
    }

    fn encode(&self, shared: &Shared<'_>, batch: Vec<Ready>, to_write: &Sender<Write>) -> Result<()> {
        let precision = self.model.info().precision.as_str();
        let (pending, prepared): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|ready| (ready.pending, ready.prepared)).unzip();
        let embeddings = match self.model.encode(prepared, shared.cancel) {
            Ok(embeddings) => embeddings,
            Err(error) if error.kind() == ErrorKind::Cancelled => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for (pending, embedding) in pending.into_iter().zip(embeddings) {
            let vector = embedding.unit;
            let waiting = shared.twins().insert(pending.cache_key, Twin::Embedded(vector.clone()));
            if let Some(Twin::Waiting(waiting)) = waiting {
                for twin in waiting {
                    let _ = to_write.send(Write::Put(twin.with_vector(self.target, precision, vector.clone())));
                    shared.note(Outcome::Reused);
                }
            }
            let _ = to_write.send(Write::Put(pending.with_vector(self.target, precision, vector)));
            shared.note(Outcome::Embedded);
        }
        Ok(())
    }
}

/// Waits for a full batch, but not longer than a moment after the first: a slow source must not hold back what is there.
fn full_batch<T>(queue: &Receiver<T>, size: usize) -> Vec<T> {
    let mut batch: Vec<T> = queue.recv().into_iter().collect();
    let deadline = Instant::now() + Duration::from_millis(50);
    while !batch.is_empty() && batch.len() < size {
        match queue.recv_deadline(deadline) {
            Ok(item) => batch.push(item),
            Err(_) => break,
        }
    }
    batch
}

fn write(shared: &Shared<'_>, collection: &Collection, batch_size: usize, queue: Receiver<Write>) {
    loop {
        let batch = full_batch(&queue, batch_size);
        if batch.is_empty() {
            return;
        }
        // After a cancellation what is already embedded is still kept; after a failure nothing is.
        if shared.stop.is_cancelled() {
            continue;
        }
        let count = batch.iter().filter(|write| matches!(write, Write::Put(_))).count();
        let batch = Batch::of(batch);
        let commit = || batch.commit(collection);
        match shared.timed(StageName::Write, commit) {
            Ok(()) => {
                shared.written.fetch_add(count, Ordering::Relaxed);
                // From here on the collection itself knows these vectors.
                let mut twins = shared.twins();
                batch.cache_keys().for_each(|key| drop(twins.remove(&key)));
            }
            Err(error) => shared.fail(error),
        }
    }
}

/// What is written together.
#[derive(Default)]
struct Batch {
    /// New items and new content: all vectors are replaced.
    put: Vec<ItemVectors>,
    /// Known content whose vector in this field is missing or outdated.
    refresh: Vec<(String, Vec<VectorRecord>)>,
    /// Items of which only what is known of them changes.
    touch: Vec<Item>,
}

impl Batch {
    fn of(writes: Vec<Write>) -> Self {
        let mut batch = Self::default();
        for write in writes {
            match write {
                Write::Put(Finished { item, keeps_other_fields: false }) => batch.put.push(item),
                Write::Put(Finished { item, keeps_other_fields: true }) => {
                    batch.refresh.push((item.item.id.clone(), item.vectors));
                    batch.touch.push(item.item);
                }
                Write::Touch(item) => batch.touch.push(item),
            }
        }
        batch
    }

    fn commit(&self, collection: &Collection) -> Result<()> {
        let store = collection.store();
        if !self.put.is_empty() {
            store.upsert(&self.put)?;
        }
        if !self.refresh.is_empty() {
            store.put_vectors(&self.refresh)?;
        }
        if !self.touch.is_empty() {
            store.touch(&self.touch)?;
        }
        Ok(())
    }

    fn cache_keys(&self) -> impl Iterator<Item = CacheKey> {
        let put = self.put.iter().flat_map(|item| &item.vectors);
        let refresh = self.refresh.iter().flat_map(|(_, vectors)| vectors);
        put.chain(refresh).filter_map(|vector| vector.cache_key)
    }
}
