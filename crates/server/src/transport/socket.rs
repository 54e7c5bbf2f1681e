//! A socket that knows what the client has to do next, and gives up when it doesn't.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::TransportOptions;
use super::bodies::HEAD_TIMEOUT;
use super::patience::{Patience, Timer};

/// How far the requests of a connection and their answers are. Written by those who answer, read by the socket.
#[derive(Debug, Default)]
pub(super) struct Progress {
    started: AtomicU64,
    finished: AtomicU64,
    /// A body was waited for in vain.
    pub(super) body_stalled: AtomicBool,
    /// A body wasn't read to its end, so that there may be bytes on the way that nobody will read.
    pub(super) body_left: AtomicBool,
    /// Wakes the connection for the beginning of a pause. The reader of the connection remembers that nothing could be read and doesn't ask again by itself, so
    /// that nobody would measure the pause.
    pause_begins: AtomicWaker,
}

/// Half of a request in flight: its body until that is read or given up, or its answer until the last byte is handed over.
pub(super) struct InFlight(pub(super) Arc<Progress>);

impl InFlight {
    pub(super) fn start(progress: &Arc<Progress>) -> Self {
        progress.started.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(progress))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.finished.fetch_add(1, Ordering::Relaxed);
        self.0.pause_begins.wake();
    }
}

/// Why the socket ended the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing came after the last request, or at all.
    Idle,
    /// Part of a head came, and the rest didn't.
    Head,
    /// The client doesn't read.
    Write,
}

/// The state between requests.
struct BetweenRequests {
    /// How many halves of requests were finished before, which tells one pause from the next.
    finished: u64,
    /// Since when nothing came, or the first byte of a head.
    since: Instant,
    head_begun: bool,
}

pub(super) struct GuardedSocket {
    stream: TcpStream,
    progress: Arc<Progress>,
    options: TransportOptions,
    between: Option<BetweenRequests>,
    read_timer: Timer,
    writing: Patience,
    pub(super) ending: Option<Ending>,
    /// The client has closed its side.
    pub(super) is_closed_by_peer: bool,
}

impl GuardedSocket {
    pub(super) fn new(stream: TcpStream, progress: Arc<Progress>, options: TransportOptions) -> Self {
        Self {
            stream,
            progress,
            between: None,
            read_timer: Timer::default(),
            writing: Patience::new(options.write_stall),
            options,
            ending: None,
            is_closed_by_peer: false,
        }
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// The state between requests; none while one is in flight.
    fn between(&mut self) -> Option<&mut BetweenRequests> {
        let finished = self.progress.finished.load(Ordering::Relaxed);
        if self.progress.started.load(Ordering::Relaxed) != finished {
            self.between = None;
        } else if self.between.as_ref().is_none_or(|between| between.finished != finished) {
            self.between = Some(BetweenRequests { finished, since: Instant::now(), head_begun: false });
        }
        self.between.as_mut()
    }

    fn note_read(&mut self, count: usize) {
        if count == 0 {
            self.is_closed_by_peer = true;
        } else if let Some(between) = self.between().filter(|between| !between.head_begun) {
            between.head_begun = true;
            between.since = Instant::now();
        }
    }

    /// Nothing can be read now. While a request is in flight its body has its own patience, and the end of the connection is all that could come here.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (header_timeout, keep_alive) = (self.options.header_timeout, self.options.keep_alive);
        // The time to take the last answer is measured by the writing.
        let is_writing = self.writing.is_waiting();
        let Some(between) = self.between().filter(|_| !is_writing) else {
            self.progress.pause_begins.register(context.waker());
            return Poll::Pending;
        };
        let is_first = between.finished == 0;
        let head_begun = between.head_begun;
        let limit = if head_begun || is_first { header_timeout } else { keep_alive };
        let deadline = between.since + limit;
        if !self.read_timer.is_due(deadline, context) {
            return Poll::Pending;
        }
        if head_begun {
            self.ending = Some(Ending::Head);
            // No answer is under way between requests, and the socket isn't full, so these bytes stand alone.
            let _ = self.stream.try_write(HEAD_TIMEOUT.as_bytes());
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the head of a request didn't come in time",
            )));
        }
        self.ending = Some(Ending::Idle);
        // Read as the end of the stream, which is how connections between requests end.
        Poll::Ready(Ok(()))
    }

    fn note_write(&mut self, outcome: Poll<io::Result<usize>>, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match outcome {
            Poll::Ready(Ok(count)) => {
                if self.writing.is_waiting() {
                    self.progress.pause_begins.wake();
                }
                self.writing.advanced(count);
            }
            Poll::Pending if self.writing.is_over(context) => {
                self.ending = Some(Ending::Write);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client doesn't read its answer")));
            }
            _ => {}
        }
        outcome
    }
}

impl AsyncRead for GuardedSocket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        match Pin::new(&mut this.stream).poll_read(context, buffer) {
            Poll::Pending => this.poll_silence(context),
            Poll::Ready(Ok(())) => {
                this.note_read(buffer.filled().len() - before);
                Poll::Ready(Ok(()))
            }
            failed => failed,
        }
    }
}

impl AsyncWrite for GuardedSocket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.note_write(outcome, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.note_write(outcome, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
