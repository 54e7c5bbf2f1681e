//! Long work in the background: a queue of jobs, one at a time, each watched and called off by anybody who may.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossmodal_engine::CancelToken;
use crossmodal_engine::ingest::Progress;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use utoipa::ToSchema;

use crate::error::{ApiError, ApiResult, Code};
use crate::metrics::Metrics;

/// Jobs that are over and still told of.
const REMEMBERED: usize = 200;
/// Jobs that may wait.
const MOST_WAITING: usize = 100;
/// Skipped files that a job names.
const MOST_SKIPPED: usize = 1000;

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It waits for others.
    Queued,
    /// It is at work.
    Running,
    /// It is over.
    Done,
    /// It ended with an error; what was committed stays.
    Failed,
    /// It was called off; what was committed stays.
    Cancelled,
}

impl JobState {
    /// Whether nothing will change any more.
    pub fn is_over(self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Done | Self::Failed | Self::Cancelled => true,
        }
    }
}

/// Numbers of an ingestion.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct JobProgress {
    /// Files found.
    pub total: usize,
    /// Files dealt with.
    pub done: usize,
    /// Files that were embedded.
    pub embedded: usize,
    /// Files whose content was embedded before.
    pub reused: usize,
    /// Files that were there already.
    pub unchanged: usize,
    /// Files that couldn't be used.
    pub skipped: usize,
    /// Items committed.
    pub written: usize,
    /// Seconds since it began.
    pub seconds: f64,
    /// The busiest stage.
    pub bottleneck: Option<String>,
}

impl From<&Progress> for JobProgress {
    fn from(progress: &Progress) -> Self {
        Self {
            total: progress.total,
            done: progress.done,
            embedded: progress.embedded,
            reused: progress.reused,
            unchanged: progress.unchanged,
            skipped: progress.skipped,
            written: progress.written,
            seconds: progress.seconds,
            bottleneck: progress.bottleneck.map(|(stage, _)| stage.as_str().to_string()),
        }
    }
}

/// A file that was passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SkippedFile {
    /// Its name as it was sent, or its path.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// A job as the API tells of it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct JobView {
    /// Its number.
    pub id: u64,
    /// What it does: `ingest`.
    pub kind: String,
    /// The collection it works on.
    pub collection: String,
    /// How far it is.
    pub state: JobState,
    /// Numbers.
    pub progress: JobProgress,
    /// Files that were passed over, the first thousand of them.
    pub skipped: Vec<SkippedFile>,
    /// Why it failed.
    pub error: Option<String>,
}

/// A job, shared by who does it and who watches.
#[derive(Debug)]
pub struct Job {
    view: watch::Sender<JobView>,
    /// Raised to call it off.
    pub cancel: CancelToken,
}

impl Job {
    /// How it stands.
    pub fn view(&self) -> JobView {
        self.view.borrow().clone()
    }

    /// Hears of every change.
    pub fn watch(&self) -> watch::Receiver<JobView> {
        self.view.subscribe()
    }

    /// Tells of progress.
    pub fn progress(&self, progress: &Progress) {
        self.view.send_modify(|view| view.progress = progress.into());
    }

    /// Names files that were passed over.
    pub fn skip(&self, skipped: impl IntoIterator<Item = SkippedFile>) {
        self.view.send_modify(|view| {
            let room = MOST_SKIPPED.saturating_sub(view.skipped.len());
            view.skipped.extend(skipped.into_iter().take(room));
        });
    }

    fn enter(&self, state: JobState, error: Option<String>) {
        self.view.send_modify(|view| {
            view.state = state;
            view.error = error;
        });
    }
}

/// What a job does. It tells of progress through the job and heeds its token.
pub type Work = Box<dyn FnOnce(&Arc<Job>) -> ApiResult<()> + Send>;

/// All jobs.
#[derive(Debug)]
pub struct Jobs {
    known: Mutex<Known>,
    queue: mpsc::UnboundedSender<(Arc<Job>, Queued)>,
    metrics: Arc<Metrics>,
}

struct Queued(Work);

impl std::fmt::Debug for Queued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Queued")
    }
}

#[derive(Debug, Default)]
struct Known {
    jobs: VecDeque<Arc<Job>>,
    last: u64,
    closed: bool,
}

impl Jobs {
    /// Starts the thread that does them.
    ///
    /// # Errors
    /// A system that gives no thread.
    pub fn start(metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let (queue, mut waiting) = mpsc::unbounded_channel::<(Arc<Job>, Queued)>();
        let counters = metrics.clone();
        std::thread::Builder::new().name("jobs".into()).spawn(move || {
            while let Some((job, Queued(work))) = waiting.blocking_recv() {
                run(&job, work);
                counters.jobs.dec();
            }
        })?;
        Ok(Self { known: Mutex::default(), queue, metrics })
    }

    /// Queues a job.
    ///
    /// # Errors
    /// Too many wait, or the server is stopping.
    pub fn add(&self, kind: &str, collection: &str, work: Work) -> ApiResult<JobView> {
        let mut known = self.lock();
        if known.closed {
            return Err(ApiError::new(Code::Unavailable, "the server is stopping"));
        }
        if known.jobs.iter().filter(|job| !job.view.borrow().state.is_over()).count() >= MOST_WAITING {
            let message = format!("{MOST_WAITING} jobs are waiting already");
            return Err(ApiError::new(Code::Overloaded, message).after(std::time::Duration::from_secs(10)));
        }
        known.last += 1;
        let view = JobView {
            id: known.last,
            kind: kind.to_string(),
            collection: collection.to_string(),
            state: JobState::Queued,
            progress: JobProgress::default(),
            skipped: Vec::new(),
            error: None,
        };
        let job = Arc::new(Job { view: watch::Sender::new(view.clone()), cancel: CancelToken::new() });
        known.jobs.push_back(job.clone());
        while known.jobs.len() > REMEMBERED && known.jobs.front().is_some_and(|job| job.view.borrow().state.is_over()) {
            known.jobs.pop_front();
        }
        drop(known);
        self.metrics.jobs.inc();
        if self.queue.send((job, Queued(work))).is_err() {
            return Err(ApiError::internal("the thread for jobs has ended"));
        }
        Ok(view)
    }

    /// A job by its number.
    ///
    /// # Errors
    /// There is none, or it was over long ago.
    pub fn get(&self, id: u64) -> ApiResult<Arc<Job>> {
        let known = self.lock();
        let found = known.jobs.iter().find(|job| job.view.borrow().id == id);
        found.cloned().ok_or_else(|| ApiError::not_found(format!("no job {id}")))
    }

    /// All that are known, the newest first.
    pub fn all(&self) -> Vec<JobView> {
        self.lock().jobs.iter().rev().map(|job| job.view()).collect()
    }

    /// Calls all of them off and takes no more.
    pub fn close(&self) {
        let mut known = self.lock();
        known.closed = true;
        known.jobs.iter().for_each(|job| job.cancel.cancel());
    }

    /// Whether all of them are over.
    pub fn are_over(&self) -> bool {
        self.lock().jobs.iter().all(|job| job.view.borrow().state.is_over())
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run(job: &Arc<Job>, work: Work) {
    if job.cancel.is_cancelled() {
        return job.enter(JobState::Cancelled, None);
    }
    job.enter(JobState::Running, None);
    // A fault in one job must not end the thread for all others.
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(job)));
    match result {
        Ok(Ok(())) if job.cancel.is_cancelled() => job.enter(JobState::Cancelled, None),
        Ok(Ok(())) => job.enter(JobState::Done, None),
        Ok(Err(_)) if job.cancel.is_cancelled() => job.enter(JobState::Cancelled, None),
        Ok(Err(error)) => job.enter(JobState::Failed, Some(error.message)),
        Err(_) => job.enter(JobState::Failed, Some(ApiError::internal("a job panicked").message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(condition: impl Fn() -> bool) {
        let start = std::time::Instant::now();
        while !condition() {
            assert!(start.elapsed().as_secs() < 20, "waited too long");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    #[test]
    fn jobs_run_one_after_the_other_and_end_as_they_end() {
        let jobs = Jobs::start(Arc::new(Metrics::default())).unwrap();
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let held = move |_: &Arc<Job>| {
            gate.recv().unwrap();
            Ok(())
        };
        let first = jobs.add("ingest", "a", Box::new(held)).unwrap();
        let failing = jobs.add("ingest", "a", Box::new(|_| Err(ApiError::invalid("no good")))).unwrap();
        let panicking = jobs.add("ingest", "a", Box::new(|_| panic!("on purpose"))).unwrap();
        let called_off = jobs.add("ingest", "a", Box::new(|_| Ok(()))).unwrap();
        let state = |id| jobs.get(id).unwrap().view().state;
        until(|| state(first.id) == JobState::Running);
        assert_eq!(state(failing.id), JobState::Queued);
        jobs.get(called_off.id).unwrap().cancel.cancel();
        release.send(()).unwrap();
        until(|| jobs.are_over());
        let states = [first, failing, panicking, called_off].map(|job| state(job.id));
        assert_eq!(states, [JobState::Done, JobState::Failed, JobState::Failed, JobState::Cancelled]);
        assert_eq!(jobs.get(2).unwrap().view().error.as_deref(), Some("no good"));
        assert_eq!(jobs.get(9).unwrap_err().code, Code::NotFound);
        jobs.close();
        assert_eq!(jobs.add("ingest", "a", Box::new(|_| Ok(()))).unwrap_err().code, Code::Unavailable);
    }
}
