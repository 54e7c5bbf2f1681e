//! One connection from its acceptance to its end.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tower::ServiceExt;

use super::TransportOptions;
use super::bodies::{AnswerBody, RequestBody, own_answer};
use super::socket::{Ending, GuardedSocket, InFlight, Progress};

/// Bytes buffered in each direction. Also the largest piece of a body.
const BUFFER: usize = 64 << 10;
/// How long the rest of a request is read and thrown away after its answer, in all and without anything coming.
const LINGER: Duration = Duration::from_secs(15);
const LINGER_SILENCE: Duration = Duration::from_secs(3);

type Answering = Pin<Box<dyn Future<Output = Result<Response<AnswerBody>, Infallible>> + Send>>;

/// Serves a connection to its end. When `stopping` becomes true, it ends after the request in flight.
pub(super) async fn run(
    stream: TcpStream,
    peer: SocketAddr,
    app: Router,
    options: TransportOptions,
    mut stopping: watch::Receiver<bool>,
) {
    // Answers are written whole; waiting for more to send with them only delays them. A socket that refuses is slower, not wrong.
    let _ = stream.set_nodelay(true);
    let counts = Arc::clone(&options.counts);
    let progress = Arc::new(Progress::default());
    let socket = GuardedSocket::new(stream, Arc::clone(&progress), options.clone());
    let (header_bytes, answers) = (options.max_header_bytes, Arc::clone(&progress));
    let service = service_fn(move |request| answer(app.clone(), peer, &options, &answers, request));
    let mut connection = http1::Builder::new()
        // The socket watches the time of heads, since it can also answer when it's over.
        .header_read_timeout(None)
        .timer(TokioTimer::new())
        .max_header_size(header_bytes)
        .max_buf_size(BUFFER.max(header_bytes))
        .serve_connection(TokioIo::new(socket), service);
    let mut is_stopping = false;
    let outcome = loop {
        tokio::select! {
            outcome = poll_fn(|context| connection.poll_without_shutdown(context)) => break outcome,
            // An error means that the server is gone, which is a stop as well.
            _ = stopping.wait_for(|stop| *stop), if !is_stopping => {
                is_stopping = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    if let Err(error) = &outcome {
        tracing::debug!(%peer, "connection ended: {error}");
    }
    let socket = connection.into_parts().io.into_inner();
    match socket.ending {
        Some(Ending::Head) => drop(counts.header_timeouts.fetch_add(1, Ordering::Relaxed)),
        Some(Ending::Write) => {
            counts.write_stalls.fetch_add(1, Ordering::Relaxed);
            return;
        }
        Some(Ending::Idle) | None => {}
    }
    let is_unread = outcome.is_err() || progress.body_left.load(Ordering::Relaxed);
    if is_unread && !socket.is_closed_by_peer && socket.ending != Some(Ending::Idle) {
        linger(socket.into_stream()).await;
    }
}

/// Closes our side and reads on for a moment. A socket that is closed with unread bytes resets the connection, and the client may lose the answer that
/// says what was wrong with its request.
pub(super) async fn linger(mut stream: TcpStream) {
    let read_on = async {
        let mut discarded = vec![0; 16 << 10];
        if stream.shutdown().await.is_err() {
            return;
        }
        while let Ok(Ok(1..)) = timeout(LINGER_SILENCE, stream.read(&mut discarded)).await {}
    };
    // That the time is over is as good an end as any.
    let _ = timeout(LINGER, read_on).await;
}

/// Has `app` answer a request. A body that stalls and a handler that panics have their own answers.
fn answer(
    app: Router,
    peer: SocketAddr,
    options: &TransportOptions,
    progress: &Arc<Progress>,
    request: Request<Incoming>,
) -> Answering {
    let in_flight = InFlight::start(progress);
    let (stall, counts) = (options.body_stall, Arc::clone(&options.counts));
    let mut request = request.map(|body| Body::new(RequestBody::new(body, stall, InFlight::start(progress))));
    request.extensions_mut().insert(ConnectInfo(peer));
    Box::pin(async move {
        let mut answering = std::pin::pin!(app.oneshot(request));
        // What a panic leaves half done belongs to the request, which is over; shared state is guarded by locks that know.
        let outcome = poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| answering.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(outcome)) => Poll::Ready(Some(outcome)),
            Err(_) => Poll::Ready(None),
        });
        let outcome = outcome.await;
        let response = match outcome {
            Some(Ok(_)) if in_flight.0.body_stalled.load(Ordering::Relaxed) => {
                counts.body_stalls.fetch_add(1, Ordering::Relaxed);
                own_answer(StatusCode::REQUEST_TIMEOUT, "timeout", "the body of the request didn't come in time")
            }
            Some(Ok(response)) => response,
            Some(Err(never)) => match never {},
            None => {
                counts.panics.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%peer, "a handler panicked");
                own_answer(StatusCode::INTERNAL_SERVER_ERROR, "internal", "internal error, the log has more")
            }
        };
        Ok(response.map(|body| AnswerBody::new(body, in_flight)))
    })
}
