//! From options to a running server, and down again.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use crossmodal_engine::batching::BatchLimits;
use crossmodal_engine::thumbnails::Thumbnails;
use crossmodal_engine::{Collection, Embedder, Input, Modality, Mode};

use crate::body_budget::BodyBudget;
use crate::classifiers::Classifiers;
use crate::collections::Collections;
use crate::jobs::Jobs;
use crate::maps::Maps;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::routes;
use crate::safety::fetch::{FetchRules, Fetcher};
use crate::safety::keys::Keys;
use crate::safety::origin::Origins;
use crate::safety::paths::AllowedPaths;
use crate::safety::rate_limit::RateLimiter;
use crate::state::{Shared, State};
use crate::transport::{self, TransportOptions};

/// Bytes of thumbnails that are kept in memory.
const THUMBNAIL_BYTES: usize = 64 << 20;

/// The least budget of all bodies that are received at once, in bytes. A server that takes larger bodies has room for four of them.
const LEAST_BODIES: usize = 512 << 20;

/// What is served, to whom, and within which limits.
pub struct ServerOptions {
    /// Name or address to listen on.
    pub host: String,
    /// Port; 0 lets the system choose.
    pub port: u16,
    /// Models with the ids they are shown under, the default first.
    pub models: Vec<(String, Arc<dyn Embedder>)>,
    /// Folders of collections.
    pub collections: Vec<PathBuf>,
    /// The folder below which collections can be made and deleted.
    pub data: Option<PathBuf>,
    /// Who may use it; none: everybody who can reach it.
    pub keys: Option<Keys>,
    /// Whether it may be reached from other machines without a key.
    pub insecure: bool,
    /// Requests a second of one client, and how many at once.
    pub rate_limit: Option<(f64, u32)>,
    /// Folders whose files may be added by path.
    pub allow_paths: Vec<PathBuf>,
    /// The rules of fetching addresses that clients give; none: not at all.
    pub fetch: Option<FetchRules>,
    /// Other sites whose pages may use it, as `https://example.org`; `*` for all.
    pub cors_origins: Vec<String>,
    /// Further names that this server is reached by, besides its address.
    pub allowed_hosts: Vec<String>,
    /// Bytes of a body.
    pub max_body: usize,
    /// Inputs of one request.
    pub max_inputs: usize,
    /// How long a request may take.
    pub timeout: Duration,
    /// How requests are computed together.
    pub batch: BatchLimits,
    /// Connections.
    pub transport: TransportOptions,
}

impl std::fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerOptions").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

/// Why a server can't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// A model or collection that can't be used.
    #[error(transparent)]
    Engine(#[from] crossmodal_engine::Error),
    /// An address that can't be listened on.
    #[error("can't listen on {host}:{port}: {source}")]
    Listen {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// What the system said.
        source: std::io::Error,
    },
    /// An address that other machines reach, and no key.
    #[error(
        "{host} can be reached from other machines, and there is no key: set CROSSMODAL_API_KEY or --keys, or say --insecure"
    )]
    NoKey {
        /// The host.
        host: String,
    },
    /// An option that can't be used.
    #[error("{0}")]
    Option(String),
    /// The system gives no threads or no events.
    #[error("can't start: {0}")]
    System(#[from] std::io::Error),
}

/// A server that listens already, so that its address is known, and answers once it [runs](Self::run).
#[derive(Debug)]
pub struct Server {
    state: Shared,
    router: Router,
    listener: TcpListener,
    transport: TransportOptions,
}

/// References to the models of collections, each once, in the order of the folders; of `data`, of each collection below it.
///
/// # Errors
/// A folder that is no collection, or can't be read.
pub fn models_of(folders: &[PathBuf], data: Option<&Path>) -> Result<Vec<String>, ServerError> {
    let mut seen = BTreeSet::new();
    let mut models = Vec::new();
    let mut add = |folder: &Path| -> crossmodal_engine::Result<()> {
        if let Some(model) = Collection::open(folder, &Mode::read())?.model_name()?
            && seen.insert(model.clone())
        {
            models.push(model);
        }
        Ok(())
    };
    for folder in folders {
        add(folder)?;
    }
    for entry in data.and_then(|data| std::fs::read_dir(data).ok()).into_iter().flatten().flatten() {
        // What can't be opened is told when collections are opened.
        let _ = add(&entry.path());
    }
    Ok(models)
}

impl Server {
    /// Opens collections, starts the owners of the models, and listens.
    ///
    /// # Errors
    /// Options that can't be used, a collection that can't be opened, an address that can't be listened on.
    pub fn bind(options: ServerOptions) -> Result<Self, ServerError> {
        let (host, port) = (options.host.clone(), options.port);
        let failed = |source| ServerError::Listen { host: host.clone(), port, source };
        let addresses: Vec<SocketAddr> = (host.as_str(), port).to_socket_addrs().map_err(failed)?.collect();
        let wide = addresses.iter().any(|address| !address.ip().is_loopback());
        if wide && options.keys.is_none() && !options.insecure {
            return Err(ServerError::NoKey { host });
        }
        let metrics = Arc::new(Metrics::default());
        let models = Models::new(options.models, options.batch, &metrics)?;
        let collections = Collections::open(&options.collections, options.data)?;
        let allowed_paths = AllowedPaths::new(options.allow_paths)
            .map_err(|error| ServerError::Option(format!("--allow-path: {error}")))?;
        // Names matter where nothing else tells friend from foe: a page of another site may reach this machine under a name of its own.
        let local_only = !wide && options.keys.is_none();
        let origins = Origins::new(&options.cors_origins, local_only.then_some(&options.allowed_hosts[..]))
            .map_err(ServerError::Option)?;
        let rate_limit = options.rate_limit.map(|(per_second, burst)| RateLimiter::new(per_second, burst)).transpose();
        let rate_limit = rate_limit.map_err(|error| ServerError::Option(format!("--rate-limit: {error}")))?;
        let listener = TcpListener::bind(&addresses[..]).map_err(failed)?;
        listener.set_nonblocking(true)?;
        let (workers, waiting) = State::places();
        let state = Arc::new(State {
            models,
            collections,
            jobs: Jobs::start(metrics.clone())?,
            maps: Arc::new(Maps::default()),
            classifiers: Classifiers::default(),
            thumbnails: Thumbnails::new(THUMBNAIL_BYTES),
            thumbnail_places: State::thumbnail_places(),
            metrics,
            keys: options.keys,
            rate_limit,
            allowed_paths,
            fetcher: options.fetch.map(Fetcher::new),
            origins,
            connections: options.transport.counts.clone(),
            max_body: options.max_body,
            bodies: BodyBudget::new(options.max_body.saturating_mul(4).max(LEAST_BODIES)),
            max_inputs: options.max_inputs,
            timeout: options.timeout,
            warm: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            workers,
            waiting,
            searches: State::searches(),
        });
        Ok(Self { router: routes::router(&state), state, listener, transport: options.transport })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system doesn't tell.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The names of the collections that are served.
    pub fn collections(&self) -> Vec<String> {
        self.state.collections.all().iter().map(|collection| collection.name.clone()).collect()
    }

    /// Answers until `shutdown` is over, then finishes what is under way. Returns how many connections had to be cut.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<usize, ServerError> {
        let Self { state, router, listener, transport } = self;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .max_blocking_threads(State::PLACES + 32)
            .thread_name("http")
            .build()?;
        warm_up(state.clone())?;
        let stopping = state.clone();
        let shutdown = async move {
            shutdown.await;
            stopping.stopping.store(true, Ordering::Relaxed);
            stopping.jobs.close();
            stopping.maps.close();
            tracing::info!("stopping: finishing what is under way");
        };
        let cut = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let drained = transport::serve(listener, router, transport, shutdown).await?;
            Ok::<_, std::io::Error>(drained.cut)
        })?;
        // Jobs that were called off commit what they have.
        let patience = std::time::Instant::now();
        while !state.jobs.are_over() && patience.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(20));
        }
        runtime.shutdown_timeout(Duration::from_secs(5));
        Ok(cut)
    }
}

/// Embeds something with each model, so that the first request waits for nothing.
fn warm_up(state: Shared) -> std::io::Result<()> {
    let work = move || {
        for served in state.models.all() {
            let mut inputs = Vec::new();
            for modality in served.model().modalities() {
                match modality {
                    Modality::Text => inputs.push(Input::text("warm")),
                    Modality::Image => inputs.push(Input::image(small_picture())),
                    Modality::Audio | Modality::Video | Modality::Depth | Modality::Thermal | Modality::Imu => {}
                }
            }
            let embedder = served.batcher.embedder(crossmodal_engine::batching::Priority::Interactive);
            if let Err(error) = embedder.embed(&inputs) {
                tracing::error!(model = %served.id, %error, "this model doesn't work");
            }
        }
        state.warm.store(true, Ordering::Relaxed);
        tracing::info!("ready");
    };
    std::thread::Builder::new().name("warm-up".into()).spawn(work).map(drop)
}

/// A grey picture of 4 by 4 pixels as an uncompressed BMP.
fn small_picture() -> Vec<u8> {
    let pixels = 4 * 4 * 3u32;
    let mut bytes = b"BM".to_vec();
    for word in [54 + pixels, 0, 54, 40, 4, 4, 1 | 24 << 16, 0, pixels, 2835, 2835, 0, 0] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.resize(54 + pixels as usize, 128);
    bytes
}
