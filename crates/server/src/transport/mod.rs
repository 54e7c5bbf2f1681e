//! Connections: accepting them up to a limit, ending those whose other side stalls, and letting the last ones finish at shutdown.
//!
//! HTTP/1.1 only. What a client can make the server hold is bounded: connections by `max_connections`, each with buffers of 64 KiB, heads of
//! `max_header_bytes` and 100 fields, and a time for everything the client has to do.

mod bodies;
mod connection;
mod patience;
mod socket;

use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The pause after the system couldn't accept a connection, at first; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How many refused clients are given a moment to read why. Those beyond are dropped at once.
const MOST_REFUSALS: usize = 64;
/// How long tasks that are cut off get to let go of what they hold.
const CUT_OFF: Duration = Duration::from_secs(1);

/// Limits of connections.
#[derive(Debug, Clone)]
pub struct TransportOptions {
    /// Connections at a time. Further ones are answered with 503 and dropped.
    pub max_connections: usize,
    /// Time from the first byte of a request until its head is complete, and from the opening of a connection until its first byte.
    pub header_timeout: Duration,
    /// Largest head of a request (request line and fields) in bytes, at least 8,192. Larger ones are answered with 431, as are more than 100 fields.
    pub max_header_bytes: usize,
    /// Time that a connection may rest between two requests.
    pub keep_alive: Duration,
    /// Time in which a client has to read at least 1 KiB of an answer that waits for it, else it is dropped.
    pub write_stall: Duration,
    /// Time in which a client has to send at least 1 KiB of a body that is waited for, else it is answered with 408.
    pub body_stall: Duration,
    /// Time that requests in flight get at shutdown.
    pub drain: Duration,
    /// Counted while the server runs. Keep a clone to show it.
    pub counts: Arc<TransportCounts>,
}

impl Default for TransportOptions {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            header_timeout: Duration::from_secs(10),
            max_header_bytes: 32 << 10,
            keep_alive: Duration::from_secs(75),
            write_stall: Duration::from_secs(30),
            body_stall: Duration::from_secs(30),
            drain: Duration::from_secs(30),
            counts: Arc::default(),
        }
    }
}

/// What happened to connections since the start.
#[derive(Debug, Default)]
pub struct TransportCounts {
    open: AtomicUsize,
    accepted: AtomicU64,
    refused: AtomicU64,
    header_timeouts: AtomicU64,
    body_stalls: AtomicU64,
    write_stalls: AtomicU64,
    panics: AtomicU64,
    accept_errors: AtomicU64,
}

impl TransportCounts {
    /// Connections that are open now, the resting ones included.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections that were served, or are.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections beyond the limit, answered with 503.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Connections ended because the head of a request didn't come in time.
    pub fn header_timeouts(&self) -> u64 {
        self.header_timeouts.load(Ordering::Relaxed)
    }

    /// Requests given up because their bodies didn't come.
    pub fn body_stalls(&self) -> u64 {
        self.body_stalls.load(Ordering::Relaxed)
    }

    /// Connections ended because the client didn't read its answer.
    pub fn write_stalls(&self) -> u64 {
        self.write_stalls.load(Ordering::Relaxed)
    }

    /// Requests whose handler panicked, answered with 500.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Times that the system couldn't accept a connection, such as for want of file descriptors.
    pub fn accept_errors(&self) -> u64 {
        self.accept_errors.load(Ordering::Relaxed)
    }
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were open at shutdown and came to their end.
    pub finished: usize,
    /// Connections that were cut off after the time for draining.
    pub cut: usize,
}

/// A place among the open connections, given back when dropped.
struct Slot(Arc<TransportCounts>);

impl Slot {
    fn take(counts: &Arc<TransportCounts>) -> Self {
        counts.open.fetch_add(1, Ordering::Relaxed);
        counts.accepted.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counts))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves `app` until `shutdown` is ready: then accepts no more, closes connections that rest, lets requests in flight finish, and after
/// `options.drain` cuts off what is left. Handlers find the client's address as [`axum::extract::ConnectInfo`] of [`SocketAddr`].
///
/// # Errors
/// Values of `options` that nothing could be served with. Trouble with single connections or with accepting is counted and survived.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    options: TransportOptions,
    shutdown: impl Future<Output = ()>,
) -> io::Result<Drained> {
    check(&options)?;
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut refusals = JoinSet::new();
    let mut pause = FIRST_PAUSE;
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                note_panic(ended, &options.counts);
                continue;
            }
            Some(_) = refusals.join_next(), if !refusals.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) if options.counts.open() < options.max_connections => {
                pause = FIRST_PAUSE;
                let slot = Slot::take(&options.counts);
                let run = connection::run(stream, peer, app.clone(), options.clone(), stopping.clone());
                connections.spawn(async move {
                    run.await;
                    drop(slot);
                });
            }
            Ok((stream, peer)) => refuse(stream, peer, &options, &mut refusals),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                options.counts.accept_errors.fetch_add(1, Ordering::Relaxed);
                tracing::error!("no connection can be accepted for the moment: {error}");
                // Trying again at once would fail again and keep a core busy, while connections may be about to end.
                tokio::select! {
                    () = &mut shutdown => break,
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                }
            }
        }
    }
    drop(listener);
    // Nobody listens if there are no connections.
    let _ = stop.send(true);
    Ok(drain(connections, &options).await)
}

/// Refuses options that would let nothing through.
fn check(options: &TransportOptions) -> io::Result<()> {
    let invalid = |message: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    if options.max_connections == 0 {
        return invalid("max_connections is 0, expected at least 1");
    }
    if options.max_header_bytes < 8192 {
        return invalid("max_header_bytes is below 8192, which common clients may exceed");
    }
    let TransportOptions { header_timeout, keep_alive, write_stall, body_stall, .. } = options;
    if [header_timeout, keep_alive, write_stall, body_stall].into_iter().any(Duration::is_zero) {
        return invalid("a time limit is 0, expected more");
    }
    Ok(())
}

/// Tells a client that there is no room, and drops it.
fn refuse(stream: TcpStream, peer: SocketAddr, options: &TransportOptions, refusals: &mut JoinSet<()>) {
    options.counts.refused.fetch_add(1, Ordering::Relaxed);
    tracing::debug!(%peer, limit = options.max_connections, "connection refused");
    // Written at once and without the runtime, which doesn't know yet that a new connection can be written to. Its buffer has room; if not, the client
    // learns from the end of the connection that there is none.
    let Ok(mut stream) = stream.into_std() else { return };
    let _ = stream.write_all(bodies::NO_ROOM.as_bytes());
    if refusals.len() < MOST_REFUSALS
        && let Ok(stream) = TcpStream::from_std(stream)
    {
        refusals.spawn(connection::linger(stream));
    }
}

/// Whether an error of `accept` is about a connection that ended before it was accepted, rather than about the server.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

async fn drain(mut connections: JoinSet<()>, options: &TransportOptions) -> Drained {
    let mut finished = 0;
    let all = async {
        while let Some(ended) = connections.join_next().await {
            note_panic(ended, &options.counts);
            finished += 1;
        }
    };
    let in_time = tokio::time::timeout(options.drain, all).await.is_ok();
    let cut = connections.len();
    if !in_time {
        tracing::warn!(cut, "connections were cut off at shutdown");
        // A handler that blocks its thread can't be interrupted, and isn't waited for.
        let _ = tokio::time::timeout(CUT_OFF, connections.shutdown()).await;
    }
    Drained { finished, cut }
}

fn note_panic(ended: Result<(), tokio::task::JoinError>, counts: &TransportCounts) {
    if ended.is_err_and(|error| error.is_panic()) {
        counts.panics.fetch_add(1, Ordering::Relaxed);
        tracing::error!("a connection ended with a panic");
    }
}
