//! What every handler shares: models, collections, jobs, limits, and the one way to do blocking work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crossmodal_engine::batching::Admission;
use crossmodal_engine::thumbnails::Thumbnails;
use crossmodal_engine::{CancelToken, Embedder};
use tokio::sync::Semaphore;

use crate::body_budget::BodyBudget;
use crate::classifiers::Classifiers;
use crate::collections::Collections;
use crate::error::{ApiError, ApiResult, Code};
use crate::jobs::Jobs;
use crate::maps::Maps;
use crate::metrics::Metrics;
use crate::models::{Models, ServedModel};
use crate::safety::fetch::Fetcher;
use crate::safety::keys::Keys;
use crate::safety::origin::Origins;
use crate::safety::paths::AllowedPaths;
use crate::safety::rate_limit::RateLimiter;
use crate::transport::TransportCounts;

/// Requests that wait for one of those places; more are turned away.
const MOST_WAITING: usize = 512;

/// The state of a server.
pub struct State {
    /// The models.
    pub models: Models,
    /// The collections.
    pub collections: Collections,
    /// Long work.
    pub jobs: Jobs,
    /// Collections laid out in the plane.
    pub maps: Arc<Maps>,
    /// Zero-shot classifiers of late.
    pub classifiers: Classifiers,
    /// Small pictures.
    pub thumbnails: Thumbnails,
    /// Places for making them, so that a page full of large pictures doesn't take those of searches.
    pub thumbnail_places: Semaphore,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Who may use it; none: everybody.
    pub keys: Option<Keys>,
    /// How often.
    pub rate_limit: Option<RateLimiter>,
    /// Which files may be added by path.
    pub allowed_paths: AllowedPaths,
    /// Fetches addresses that clients give, where that is allowed.
    pub fetcher: Option<Fetcher>,
    /// Which pages may use it.
    pub origins: Origins,
    /// Open connections, and what became of others.
    pub connections: Arc<TransportCounts>,
    /// Bytes of a body.
    pub max_body: usize,
    /// Bytes of all bodies.
    pub bodies: Arc<BodyBudget>,
    /// How long a request may take.
    pub timeout: Duration,
    /// Inputs of one request.
    pub max_inputs: usize,
    /// Whether the models have been tried, so that the first request waits for nothing.
    pub warm: AtomicBool,
    /// Whether the server is on its way down.
    pub stopping: AtomicBool,
    pub(crate) workers: Arc<Semaphore>,
    pub(crate) waiting: AtomicUsize,
    pub(crate) searches: Arc<Semaphore>,
}

/// How handlers hold it.
pub type Shared = Arc<State>;

impl State {
    /// Requests that are worked on at once. More than a batch holds, so that batches fill.
    pub const PLACES: usize = 96;

    /// Thumbnails that are looked after at once: twice as many as are made, so that files are read meanwhile.
    pub fn thumbnail_places() -> Semaphore {
        Semaphore::new(2 * std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// The places for blocking work.
    pub fn places() -> (Arc<Semaphore>, AtomicUsize) {
        (Arc::new(Semaphore::new(Self::PLACES)), AtomicUsize::new(0))
    }

    /// Searches by given vectors that run at once. They do nothing but compute: more of them would only take turns on the processors, each with
    /// a thread and a connection to the database of its own, and the first would be answered as late as the last.
    pub fn searches() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(2 * std::thread::available_parallelism().map_or(1, usize::from)))
    }

    /// Runs a search that needs no model, when it is its turn.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_search<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Shared) -> ApiResult<T> + Send + 'static,
    ) -> ApiResult<T> {
        let turn = self.place(&self.searches).await?;
        self.run(move |state| {
            let _turn = turn;
            work(state)
        })
        .await
    }

    /// Runs blocking work on a thread of its own, when there is a place.
    ///
    /// # Errors
    /// Too much is waiting; what the work returns.
    pub async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Shared) -> ApiResult<T> + Send + 'static,
    ) -> ApiResult<T> {
        let permit = self.place(&self.workers).await?;
        let state = self.clone();
        let span = tracing::Span::current();
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            span.in_scope(|| work(&state))
        });
        task.await.unwrap_or_else(|error| Err(ApiError::internal(error)))
    }

    /// One of the places, now or when one becomes free.
    async fn place(&self, places: &Arc<Semaphore>) -> ApiResult<tokio::sync::OwnedSemaphorePermit> {
        /// Counts a waiting request for as long as it waits, also when its client goes away.
        struct Waiting<'a>(&'a AtomicUsize);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        if let Ok(permit) = places.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before >= MOST_WAITING {
            let message = format!("{MOST_WAITING} requests are waiting already");
            return Err(ApiError::new(Code::Overloaded, message).after(Duration::from_secs(1)));
        }
        places.clone().acquire_owned().await.map_err(ApiError::internal)
    }

    /// Runs work with a model for so many inputs: lets them in, hands the model over, and gives up when the client does.
    ///
    /// # Errors
    /// Too many inputs in one request, or too many waiting; what the work returns.
    pub async fn run_model<T: Send + 'static>(
        self: &Arc<Self>,
        model: &ServedModel,
        inputs: usize,
        work: impl FnOnce(&Shared, Arc<dyn Embedder>) -> ApiResult<T> + Send + 'static,
    ) -> ApiResult<T> {
        if inputs > self.max_inputs {
            let message = format!("{inputs} inputs in one request, at most {} are taken", self.max_inputs);
            return Err(ApiError::new(Code::TooLarge, message));
        }
        let admission = model.batcher.admit(inputs)?;
        let _gives_up = CancelOnDrop(admission.token().clone());
        self.run(move |state| {
            let admission: Admission = admission;
            work(state, admission.embedder())
        })
        .await
    }
}

/// Raises a token when the future that holds it is dropped: a client that went away, or a timeout.
struct CancelOnDrop(CancelToken);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("models", &self.models)
            .field("collections", &self.collections)
            .finish_non_exhaustive()
    }
}
