//! Bodies with their connection's state: requests that may stall, answers that end a request; and the answers that no handler gives.

use std::pin::Pin;
use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use bytes::Bytes;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};

use super::patience::Patience;
use super::socket::InFlight;

/// Sent to clients beyond the limit of connections.
pub(super) static NO_ROOM: LazyLock<String> = LazyLock::new(|| {
    let body = error_json("unavailable", "too many connections, try again later");
    written("503 Service Unavailable\r\nretry-after: 1", &body)
});
/// Sent to clients that send half a head.
pub(super) static HEAD_TIMEOUT: LazyLock<String> = LazyLock::new(|| {
    written("408 Request Timeout", &error_json("timeout", "the head of the request didn't come in time"))
});

/// An answer in full.
fn written(head: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {head}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

fn error_json(code: &str, message: &str) -> String {
    serde_json::json!({"error": {"message": message, "type": "server_error", "param": null, "code": code}}).to_string()
}

/// An answer that the transport gives in place of a handler.
pub(super) fn own_answer(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(error_json(code, message)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    response
}

/// The client stopped sending its body.
#[derive(Debug, thiserror::Error)]
#[error("the body of the request didn't come: nothing for too long")]
struct BodyStalled;

/// The body of a request, which fails when the client stalls. It may outlive the answer, and until then there is no pause between requests.
pub(super) struct RequestBody {
    inner: Incoming,
    patience: Patience,
    in_flight: InFlight,
    ended: bool,
}

impl RequestBody {
    pub(super) fn new(inner: Incoming, stall: Duration, in_flight: InFlight) -> Self {
        Self { inner, patience: Patience::new(stall), in_flight, ended: false }
    }
}

impl hyper::body::Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                this.patience.advanced(frame.data_ref().map_or(0, Bytes::len));
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => {
                this.ended = true;
                Poll::Ready(None)
            }
            Poll::Pending if this.patience.is_over(context) => {
                this.in_flight.0.body_stalled.store(true, Ordering::Relaxed);
                Poll::Ready(Some(Err(BodyStalled.into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.ended && !self.inner.is_end_stream() {
            self.in_flight.0.body_left.store(true, Ordering::Relaxed);
        }
    }
}

/// The body of an answer; its request is in flight until it is dropped.
pub(super) struct AnswerBody {
    inner: Body,
    _in_flight: InFlight,
}

impl AnswerBody {
    pub(super) fn new(inner: Body, in_flight: InFlight) -> Self {
        Self { inner, _in_flight: in_flight }
    }
}

impl hyper::body::Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.get_mut().inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
