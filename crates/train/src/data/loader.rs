//! Batches in order from several threads: whoever is free plans the next batch or prepares a few samples of one that is planned.
//!
//! The plan fixes which samples a batch has, and each sample brings its own generator, so that the batches don't depend on who did what when.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::open::DataSet;
use super::plan::{CaptionChoice, Distinct, LoaderOptions, Plan, PlannedSample};
use super::prepare::{Inputs, Outcome, Preparation, assemble};
use crate::batch::{Batch, BatchSource, Position};
use crate::error::{Error, Result};

/// Samples that a thread takes at a time.
const CHUNK: usize = 4;

/// Draws batches from a data set.
pub struct Loader {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    position: Position,
    /// Batches of a pass, where that is known.
    per_pass: Option<u64>,
    /// Batches of the pass under way that had no readable sample, and what was skipped in them.
    barren: Vec<(String, String)>,
    /// Whether the pass under way gave anything.
    has_given: bool,
}

struct Shared {
    preparation: Preparation,
    state: Mutex<State>,
    /// Something to do.
    work: Condvar,
    /// Something was done.
    done: Condvar,
}

struct State {
    /// Changes when a position is gone to: what was under way is of no use then.
    generation: u64,
    /// The plan of the pass that is being planned; taken while somebody plans.
    plan: Option<Box<Plan>>,
    queue: VecDeque<Entry>,
    /// Number of the first entry of the queue.
    first: u64,
    stops: bool,
}

enum Entry {
    Batch(Pending),
    /// The end of a pass.
    End {
        skipped: Vec<(String, String)>,
    },
}

struct Pending {
    samples: Vec<(PlannedSample, Option<Outcome>)>,
    skipped: Vec<(String, String)>,
    /// Samples that somebody has taken.
    taken: usize,
    finished: usize,
}

impl Loader {
    /// A loader at the beginning of the first pass.
    ///
    /// # Errors
    /// Options out of range, or sides that the model doesn't take.
    pub fn new(data: &DataSet, inputs: Inputs, options: &LoaderOptions) -> Result<Self> {
        options.check()?;
        inputs.check(data, options)?;
        let options = Arc::new(options.clone());
        let workers = match options.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            given => given,
        };
        let per_pass = batches_of_pass(data, &options);
        let state = State {
            generation: 0,
            plan: Some(Box::new(Plan::new(data, &options, 0))),
            queue: VecDeque::new(),
            first: 0,
            stops: false,
        };
        let shared = Arc::new(Shared {
            preparation: Preparation { data: data.clone(), options, inputs },
            state: Mutex::new(state),
            work: Condvar::new(),
            done: Condvar::new(),
        });
        let mut loader = Self {
            shared,
            threads: Vec::new(),
            position: Position::default(),
            per_pass,
            barren: Vec::new(),
            has_given: false,
        };
        for number in 0..workers {
            let shared = loader.shared.clone();
            let thread = std::thread::Builder::new().name(format!("data-{number}")).spawn(move || shared.work());
            let thread =
                thread.map_err(|error| Error::Invalid(format!("a thread for reading data can't start: {error}")))?;
            loader.threads.push(thread);
        }
        Ok(loader)
    }

    /// Waits for the first entry of the queue to be complete, and takes it.
    fn take(&self) -> Entry {
        let mut state = self.shared.lock();
        loop {
            match state.queue.front() {
                Some(Entry::Batch(pending)) if pending.finished < pending.samples.len() => {}
                Some(_) => {
                    if let Some(entry) = state.queue.pop_front() {
                        state.first += 1;
                        self.shared.work.notify_all();
                        return entry;
                    }
                }
                None => {}
            }
            state = self.shared.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn end_pass(&mut self, skipped: Vec<(String, String)>) -> Result<Option<Batch>> {
        if !self.has_given {
            let listed = self.barren.first().or(skipped.first());
            let first = listed.map(|(key, reason)| format!("; {key}: {reason}")).unwrap_or_default();
            let name = self.shared.preparation.data.name();
            return Err(Error::Invalid(format!("{name}: no sample of the whole pass could be read{first}")));
        }
        self.per_pass = Some(self.position.batch);
        // What was left out after the last batch is listed with the first one of the next pass.
        self.barren = skipped;
        self.position = Position { epoch: self.position.epoch + 1, batch: 0 };
        self.has_given = false;
        Ok(None)
    }
}

/// Batches of a pass, where the samples are at hand. The number is the same for every pass unless items repeat.
fn batches_of_pass(data: &DataSet, options: &Arc<LoaderOptions>) -> Option<u64> {
    let items = data.items()?;
    let is_even = data.records()?.iter().all(|record| record.weight == 1.0);
    if is_even && options.captions == CaptionChoice::Random && options.distinct == Distinct::Item {
        let size = options.batch_size;
        let count = if options.keep_last { items.div_ceil(size) } else { (items / size).max(1) };
        return Some(count as u64);
    }
    let mut plan = Plan::new(data, options, 0);
    let mut count = 0;
    while plan.next().is_some() {
        count += 1;
    }
    Some(count)
}

impl BatchSource for Loader {
    fn next_batch(&mut self) -> Result<Option<Batch>> {
        loop {
            let pending = match self.take() {
                Entry::End { skipped } => return self.end_pass(skipped),
                Entry::Batch(pending) => pending,
            };
            self.position.batch += 1;
            let failed = || Err("wasn't prepared".to_owned());
            let samples = pending.samples.into_iter().map(|(sample, outcome)| (sample, outcome.unwrap_or_else(failed)));
            let mut skipped = std::mem::take(&mut self.barren);
            skipped.extend(pending.skipped);
            let has_concepts = !self.shared.preparation.data.concepts().is_empty();
            let batch = assemble(samples.collect(), skipped, has_concepts);
            if batch.keys.is_empty() {
                self.barren = batch.skipped;
                continue;
            }
            self.has_given = true;
            return Ok(Some(batch));
        }
    }

    fn position(&self) -> Position {
        self.position
    }

    fn seek(&mut self, position: Position) -> Result<()> {
        let Preparation { data, options, .. } = &self.shared.preparation;
        let mut plan = Plan::new(data, options, position.epoch);
        for passed in 0..position.batch {
            if plan.next().is_none() {
                let (name, asked) = (data.name(), position.batch);
                let reason = format!(
                    "{name}: pass {} has {passed} batches, can't go on after batch {asked}: the data isn't what it was",
                    position.epoch
                );
                return Err(Error::Invalid(reason));
            }
        }
        // They were told when the batches were taken.
        drop(plan.left_out());
        let mut state = self.shared.lock();
        state.generation += 1;
        state.first += state.queue.len() as u64;
        state.queue.clear();
        state.plan = Some(Box::new(plan));
        drop(state);
        self.shared.work.notify_all();
        self.position = position;
        self.barren.clear();
        // Whether the batches before gave anything isn't known; they did when the position was taken.
        self.has_given = position.batch > 0;
        Ok(())
    }

    fn batches_per_epoch(&self) -> Option<u64> {
        self.per_pass
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.lock().stops = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A panic in a thread was caught and listed there.
            let _ = thread.join();
        }
    }
}

/// Samples that a thread has taken.
struct Taken {
    generation: u64,
    entry: u64,
    start: usize,
    samples: Vec<PlannedSample>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each thread does until the loader goes.
    fn work(&self) {
        let mut state = self.lock();
        while !state.stops {
            if let Some(taken) = state.take_samples() {
                drop(state);
                let outcomes: Vec<Outcome> = taken.samples.iter().map(|sample| self.prepare(sample)).collect();
                state = self.lock();
                state.put(&taken, outcomes);
                self.done.notify_all();
                continue;
            }
            let ahead = state.queue.len() <= self.preparation.options.prefetch;
            if let Some(plan) = state.plan.take_if(|_| ahead) {
                let generation = state.generation;
                drop(state);
                let (plan, entry) = self.plan(plan);
                state = self.lock();
                state.planned(generation, plan, entry);
                self.work.notify_all();
                self.done.notify_all();
                continue;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn prepare(&self, sample: &PlannedSample) -> Outcome {
        let prepare = AssertUnwindSafe(|| self.preparation.prepare(sample));
        catch_unwind(prepare).unwrap_or_else(|_| Err("preparing it failed inside the program".to_owned()))
    }

    /// The next entry of a pass; after its end, the plan of the next pass.
    fn plan(&self, mut plan: Box<Plan>) -> (Box<Plan>, Entry) {
        match plan.next() {
            Some(batch) => {
                let samples = batch.samples.into_iter().map(|sample| (sample, None)).collect();
                (plan, Entry::Batch(Pending { samples, skipped: batch.skipped, taken: 0, finished: 0 }))
            }
            None => {
                let skipped = plan.left_out();
                let Preparation { data, options, .. } = &self.preparation;
                (Box::new(Plan::new(data, options, plan.pass() + 1)), Entry::End { skipped })
            }
        }
    }
}

impl State {
    /// Takes a few samples of the first batch that has some left.
    fn take_samples(&mut self) -> Option<Taken> {
        let (first, generation) = (self.first, self.generation);
        let with_rest = self.queue.iter_mut().zip(first..).find_map(|(entry, number)| match entry {
            Entry::Batch(pending) if pending.taken < pending.samples.len() => Some((number, pending)),
            Entry::Batch(_) | Entry::End { .. } => None,
        });
        let (entry, pending) = with_rest?;
        let start = pending.taken;
        let end = (start + CHUNK).min(pending.samples.len());
        pending.taken = end;
        let samples = pending.samples[start..end].iter().map(|(sample, _)| sample.clone()).collect();
        Some(Taken { generation, entry, start, samples })
    }

    fn put(&mut self, taken: &Taken, outcomes: Vec<Outcome>) {
        if taken.generation != self.generation {
            return;
        }
        let place = taken.entry.checked_sub(self.first).map(|place| place as usize);
        let Some(Entry::Batch(pending)) = place.and_then(|place| self.queue.get_mut(place)) else { return };
        pending.finished += outcomes.len();
        for ((_, slot), outcome) in pending.samples[taken.start..].iter_mut().zip(outcomes) {
            *slot = Some(outcome);
        }
    }

    fn planned(&mut self, generation: u64, plan: Box<Plan>, entry: Entry) {
        if generation == self.generation {
            self.plan = Some(plan);
            self.queue.push_back(entry);
        }
    }
}
