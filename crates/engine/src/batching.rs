//! One owner of a model: requests from many threads share its forward passes.
//!
//! A [`Batcher`] has a thread that takes what is waiting, up to a budget, runs the model once and hands the vectors back. Callers see an ordinary
//! [`Embedder`] ([`Batcher::embedder`], [`Admission::embedder`]), so that searches, classifications and ingestion need no other code to share
//! batches. Preparing (decoding, tokenising) stays with the caller's thread: it runs beside the model, never in front of it.
//!
//! Three rules keep it civil under load. Who wants something embedded at once asks to be admitted first, and is told when too many wait already.
//! Background work (ingestion) only fills what interactive requests leave. An input whose caller gave up is dropped, not computed.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use crossmodal_models::{
    CancelToken, Embedder, Embedding, Error, Input, LogitRule, Modality, ModelInfo, Prepared, Result, SpaceId,
    Tokenized,
};

/// How much is computed together, and how much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Cost of a batch in the model's own unit (tokens, patches); an input that alone costs more makes a batch of its own.
    pub cost: usize,
    /// Inputs of a batch.
    pub inputs: usize,
    /// How long the first input of a batch waits for others that are known to be on their way.
    pub delay: Duration,
    /// Inputs that may be admitted and not yet answered.
    pub admitted: usize,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { cost: 1024, inputs: 64, delay: Duration::from_millis(4), admitted: 512 }
    }
}

/// Who goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Somebody waits for the answer.
    Interactive,
    /// Work that takes what is left over.
    Background,
}

/// Who hears what a batcher does; every method is optional. Called from the threads that do the work.
pub trait BatchObserver: Send + Sync {
    /// An input was prepared: so long it took to decode its file, and so long to resize or tokenise it.
    fn prepared(&self, modality: Modality, decoding: Duration, preprocessing: Duration) {
        let _ = (modality, decoding, preprocessing);
    }

    /// An input was taken from the queue.
    fn queued(&self, modality: Modality, time: Duration) {
        let _ = (modality, time);
    }

    /// The model ran over so many inputs of a modality.
    fn encoded(&self, modality: Modality, inputs: usize, time: Duration) {
        let _ = (modality, inputs, time);
    }
}

/// Nobody.
struct Silent;

impl BatchObserver for Silent {}

/// Too many inputs are waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{waiting} inputs are waiting for the model already, at most {limit} may; try again in {} s", retry_after.as_secs())]
pub struct Overloaded {
    /// Inputs that were admitted and not yet answered.
    pub waiting: usize,
    /// As many as may be.
    pub limit: usize,
    /// How long they are likely to take, in whole seconds, at least one.
    pub retry_after: Duration,
}

/// One owner of a model. Dropping it answers what is waiting with [`Error::Cancelled`] and ends its thread.
pub struct Batcher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    model: Arc<dyn Embedder>,
    limits: BatchLimits,
    observer: Arc<dyn BatchObserver>,
    queues: Mutex<Queues>,
    arrived: Condvar,
    /// Admitted inputs that haven't been answered.
    admitted: AtomicUsize,
    /// Admitted inputs that aren't in the queue yet.
    expected: AtomicUsize,
}

#[derive(Default)]
struct Queues {
    interactive: VecDeque<Entry>,
    background: VecDeque<Entry>,
    closed: bool,
    /// Seconds that an input takes of late, averaged over batches.
    seconds_per_input: f64,
}

/// A prepared input on its way through the queue.
struct Entry {
    prepared: Prepared,
    /// Its place in its caller's batch.
    place: usize,
    /// Its caller's tokens: raised, it needn't be computed.
    cancels: [CancelToken; 2],
    answer: Sender<(usize, Result<Embedding>)>,
    since: Instant,
}

impl Entry {
    fn is_cancelled(&self) -> bool {
        self.cancels.iter().any(CancelToken::is_cancelled)
    }

    fn answer(self, result: Result<Embedding>) {
        // A caller that is gone needs no answer.
        let _ = self.answer.send((self.place, result));
    }
}

impl Batcher {
    /// Starts the owner of a model.
    pub fn new(model: Arc<dyn Embedder>, limits: BatchLimits) -> Self {
        Self::observed(model, limits, Arc::new(Silent))
    }

    /// The same, with somebody who hears of every step.
    pub fn observed(model: Arc<dyn Embedder>, limits: BatchLimits, observer: Arc<dyn BatchObserver>) -> Self {
        let shared = Arc::new(Shared {
            model,
            limits,
            observer,
            queues: Mutex::default(),
            arrived: Condvar::new(),
            admitted: AtomicUsize::new(0),
            expected: AtomicUsize::new(0),
        });
        let own = shared.clone();
        let run = move || own.run();
        let thread = std::thread::Builder::new().name("batcher".into()).spawn(run).ok();
        Self { shared, thread }
    }

    /// The model itself, for questions that compute nothing.
    pub fn model(&self) -> &Arc<dyn Embedder> {
        &self.shared.model
    }

    /// Its limits.
    pub fn limits(&self) -> BatchLimits {
        self.shared.limits
    }

    /// Inputs that were admitted and not yet answered.
    pub fn waiting(&self) -> usize {
        self.shared.admitted.load(Ordering::Relaxed)
    }

    /// Lets `inputs` inputs in, if there is room.
    ///
    /// # Errors
    /// Too many wait already. More inputs than the limit itself are let in when nothing else waits.
    pub fn admit(&self, inputs: usize) -> std::result::Result<Admission, Overloaded> {
        let limit = self.shared.limits.admitted;
        let fits = |waiting: usize| (waiting == 0 || waiting + inputs <= limit).then_some(waiting + inputs);
        let admitted = self.shared.admitted.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits);
        admitted.map_err(|waiting| Overloaded { waiting, limit, retry_after: self.shared.drain_time(waiting) })?;
        self.shared.expected.fetch_add(inputs, Ordering::SeqCst);
        Ok(Admission(Arc::new(Admitted {
            shared: self.shared.clone(),
            inputs,
            to_come: AtomicUsize::new(inputs),
            cancel: CancelToken::new(),
        })))
    }

    /// The model as anybody may use it: `encode` waits for its turn. Nothing limits how many wait.
    pub fn embedder(&self, priority: Priority) -> Arc<dyn Embedder> {
        Arc::new(BatchedEmbedder { shared: self.shared.clone(), priority, cancel: CancelToken::new(), admitted: None })
    }
}

impl Drop for Batcher {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.arrived.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Batcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.shared.model.info().name;
        f.debug_struct("Batcher").field("model", name).field("limits", &self.shared.limits).finish_non_exhaustive()
    }
}

/// The right to have some inputs embedded. It ends when it and every embedder made of it are dropped.
#[derive(Clone)]
pub struct Admission(Arc<Admitted>);

struct Admitted {
    shared: Arc<Shared>,
    inputs: usize,
    /// Inputs that aren't in the queue yet.
    to_come: AtomicUsize,
    cancel: CancelToken,
}

impl Admission {
    /// Gives up: what is waiting isn't computed any more.
    pub fn cancel(&self) {
        self.0.cancel.cancel();
    }

    /// A token that [`cancel`](Self::cancel) raises.
    pub fn token(&self) -> &CancelToken {
        &self.0.cancel
    }

    /// The model, for the inputs that were admitted.
    pub fn embedder(&self) -> Arc<dyn Embedder> {
        Arc::new(BatchedEmbedder {
            shared: self.0.shared.clone(),
            priority: Priority::Interactive,
            cancel: self.0.cancel.clone(),
            admitted: Some(self.0.clone()),
        })
    }
}

impl Admitted {
    /// So many of the inputs don't have to be waited for any more.
    fn arrived(&self, inputs: usize) {
        let take = |left: usize| Some(left.saturating_sub(inputs));
        let before = self.to_come.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).unwrap_or(0);
        self.shared.expected.fetch_sub(before.min(inputs), Ordering::SeqCst);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.arrived(usize::MAX);
        self.shared.admitted.fetch_sub(self.inputs, Ordering::SeqCst);
        // Whoever waits for company may stop.
        self.shared.arrived.notify_all();
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("inputs", &self.0.inputs).finish_non_exhaustive()
    }
}

/// A model whose forward passes are shared.
struct BatchedEmbedder {
    shared: Arc<Shared>,
    priority: Priority,
    cancel: CancelToken,
    admitted: Option<Arc<Admitted>>,
}

impl Embedder for BatchedEmbedder {
    fn info(&self) -> &ModelInfo {
        self.shared.model.info()
    }

    fn space(&self) -> Result<SpaceId> {
        self.shared.model.space()
    }

    fn modalities(&self) -> &[Modality] {
        self.shared.model.modalities()
    }

    fn dimension(&self) -> usize {
        self.shared.model.dimension()
    }

    fn fingerprint(&self, input: &Input) -> String {
        self.shared.model.fingerprint(input)
    }

    fn prepare(&self, input: &Input) -> Result<Prepared> {
        self.cancel.check()?;
        let start = Instant::now();
        let prepared = self.shared.model.prepare(input)?;
        let rest = start.elapsed().saturating_sub(prepared.decoding);
        self.shared.observer.prepared(input.modality, prepared.decoding, rest);
        Ok(prepared)
    }

    fn encode(&self, batch: Vec<Prepared>, cancel: &CancelToken) -> Result<Vec<Embedding>> {
        let count = batch.len();
        if count == 0 {
            return Ok(Vec::new());
        }
        let (answer, answers) = bounded(count);
        let since = Instant::now();
        let entries = batch.into_iter().enumerate().map(|(place, prepared)| Entry {
            prepared,
            place,
            cancels: [self.cancel.clone(), cancel.clone()],
            answer: answer.clone(),
            since,
        });
        self.shared.enqueue(entries, self.priority)?;
        drop(answer);
        if let Some(admitted) = &self.admitted {
            admitted.arrived(count);
        }
        let mut results: Vec<Option<Embedding>> = (0..count).map(|_| None).collect();
        for (place, result) in answers {
            results[place] = Some(result?);
        }
        // Entries that were dropped with the batcher have no answer.
        results.into_iter().map(|result| result.ok_or(Error::Cancelled)).collect()
    }

    fn tokenize(&self, text: &str) -> Result<Option<Tokenized>> {
        self.shared.model.tokenize(text)
    }

    fn logit_rule(&self) -> Result<Option<LogitRule>> {
        self.shared.model.logit_rule()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(&self, entries: impl Iterator<Item = Entry>, priority: Priority) -> Result<()> {
        let mut queues = self.lock();
        if queues.closed {
            return Err(Error::Cancelled);
        }
        match priority {
            Priority::Interactive => queues.interactive.extend(entries),
            Priority::Background => queues.background.extend(entries),
        }
        self.arrived.notify_all();
        Ok(())
    }

    /// How long so many inputs will take, by the speed of late.
    fn drain_time(&self, inputs: usize) -> Duration {
        let seconds = self.lock().seconds_per_input * inputs as f64;
        Duration::from_secs(seconds.ceil().clamp(1.0, 60.0) as u64)
    }

    fn run(&self) {
        while let Some(batch) = self.next_batch() {
            self.encode(batch);
        }
    }

    /// What is computed next, all of one modality; none once the batcher is closed.
    fn next_batch(&self) -> Option<Vec<Entry>> {
        let mut queues = self.lock();
        loop {
            queues.drop_cancelled();
            if queues.closed {
                queues.interactive.clear();
                queues.background.clear();
                return None;
            }
            let Some(first) = queues.first() else {
                queues = self.arrived.wait(queues).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let patience = (first.since + self.limits.delay).saturating_duration_since(Instant::now());
            let company = self.expected.load(Ordering::SeqCst) > 0;
            if patience.is_zero() || !company || queues.is_full(&self.limits) {
                return Some(queues.take(&self.limits));
            }
            queues = self.arrived.wait_timeout(queues, patience).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn encode(&self, batch: Vec<Entry>) {
        let Some(modality) = batch.first().map(|entry| entry.prepared.modality) else { return };
        let start = Instant::now();
        for entry in &batch {
            self.observer.queued(modality, start.saturating_duration_since(entry.since));
        }
        let count = batch.len();
        let (prepared, rest): (Vec<Prepared>, Vec<_>) =
            batch.into_iter().map(|entry| (entry.prepared, (entry.place, entry.answer))).unzip();
        let result = self.model.encode(prepared, &CancelToken::new());
        let time = start.elapsed();
        self.observer.encoded(modality, count, time);
        self.learn(time.as_secs_f64() / count as f64);
        match result {
            Ok(embeddings) => {
                for ((place, answer), embedding) in rest.into_iter().zip(embeddings) {
                    let _ = answer.send((place, Ok(embedding)));
                }
            }
            Err(error) => {
                // What is computed together fails together.
                let error = Arc::new(error);
                for (place, answer) in rest {
                    let _ = answer.send((place, Err(Error::Shared(error.clone()))));
                }
            }
        }
    }

    fn learn(&self, seconds: f64) {
        let mut queues = self.lock();
        let before = queues.seconds_per_input;
        queues.seconds_per_input = if before == 0.0 { seconds } else { 0.8 * before + 0.2 * seconds };
    }
}

impl Queues {
    fn drop_cancelled(&mut self) {
        for queue in [&mut self.interactive, &mut self.background] {
            if queue.iter().any(Entry::is_cancelled) {
                let (gone, kept): (VecDeque<Entry>, _) = queue.drain(..).partition(Entry::is_cancelled);
                *queue = kept;
                gone.into_iter().for_each(|entry| entry.answer(Err(Error::Cancelled)));
            }
        }
    }

    fn first(&self) -> Option<&Entry> {
        self.interactive.front().or_else(|| self.background.front())
    }

    /// The queue whose turn it is.
    fn turn(&mut self) -> &mut VecDeque<Entry> {
        if self.interactive.is_empty() { &mut self.background } else { &mut self.interactive }
    }

    /// Whether more would not go into the next batch.
    fn is_full(&mut self, limits: &BatchLimits) -> bool {
        let queue = self.turn();
        let Some(modality) = queue.front().map(|entry| entry.prepared.modality) else { return false };
        let same = queue.iter().filter(|entry| entry.prepared.modality == modality);
        let (mut inputs, mut cost) = (0, 0);
        for entry in same {
            (inputs, cost) = (inputs + 1, cost + entry.prepared.cost);
            if inputs >= limits.inputs || cost >= limits.cost {
                return true;
            }
        }
        false
    }

    /// The oldest input and those behind it of its modality, as many as the budget allows.
    fn take(&mut self, limits: &BatchLimits) -> Vec<Entry> {
        let queue = self.turn();
        let mut batch: Vec<Entry> = Vec::new();
        let Some(modality) = queue.front().map(|entry| entry.prepared.modality) else { return batch };
        let (mut cost, mut rest) = (0, VecDeque::new());
        while let Some(entry) = queue.pop_front() {
            let fits = batch.is_empty() || (batch.len() < limits.inputs && cost + entry.prepared.cost <= limits.cost);
            if entry.prepared.modality == modality && fits {
                cost += entry.prepared.cost;
                batch.push(entry);
            } else {
                rest.push_back(entry);
                if !fits {
                    break;
                }
            }
        }
        rest.append(queue);
        *queue = rest;
        batch
    }
}
