//! A budget for the bytes of all bodies that are held in memory at once.
//!
//! Every body has a limit of its own, but a thousand connections that each send as much as they may would fill the machine. What a request
//! has sent counts until it is answered; beyond the budget, requests that send more than a little are turned away.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use crate::error::{ApiError, Code};

/// What every request may send whatever the others do: a query goes through while uploads wait.
const ALWAYS: usize = 64 << 10;

/// The bytes of all bodies.
#[derive(Debug)]
pub struct BodyBudget {
    held: AtomicUsize,
    limit: usize,
}

impl BodyBudget {
    /// A budget of so many bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), limit })
    }
}

/// What one request holds of the budget.
struct Share {
    budget: Arc<BodyBudget>,
    held: AtomicUsize,
    refused: AtomicBool,
}

impl Share {
    /// Takes bytes into account; false where there is no room for them.
    fn take(&self, bytes: usize) -> bool {
        let own = self.held.load(Ordering::Relaxed) + bytes;
        let all = self.budget.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.held.store(own, Ordering::Relaxed);
        let fits = own <= ALWAYS || all <= self.budget.limit;
        if !fits {
            self.refused.store(true, Ordering::Relaxed);
        }
        fits
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.held.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Counts the bodies of requests, and turns away those that don't fit.
pub async fn within_budget(State(budget): State<Arc<BodyBudget>>, request: Request, next: Next) -> Response {
    let share = Arc::new(Share { budget, held: AtomicUsize::new(0), refused: AtomicBool::new(false) });
    let own = share.clone();
    let response = next.run(request.map(|body| Body::new(Counted { body, share: Some(own) }))).await;
    if share.refused.load(Ordering::Relaxed) {
        let message = "too many large bodies are being received already";
        return ApiError::new(Code::Overloaded, message).after(Duration::from_secs(2)).into_response();
    }
    response
}

/// A body whose bytes are counted.
struct Counted {
    body: Body,
    /// None once it was refused: what still comes is thrown away uncounted.
    share: Option<Arc<Share>>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        let length = match &frame {
            Poll::Ready(Some(Ok(frame))) => frame.data_ref().map_or(0, Bytes::len),
            _ => 0,
        };
        if self.share.as_ref().is_some_and(|share| !share.take(length)) {
            self.share = None;
            return Poll::Ready(Some(Err(axum::Error::new("beyond the budget of all bodies"))));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_given_back() {
        let budget = BodyBudget::new(1 << 20);
        let share = |budget: &Arc<BodyBudget>| Share {
            budget: budget.clone(),
            held: AtomicUsize::new(0),
            refused: AtomicBool::new(false),
        };
        let large = share(&budget);
        assert!(large.take(1 << 20));
        let small = share(&budget);
        assert!(small.take(1000), "a little always fits");
        let second = share(&budget);
        assert!(!second.take(ALWAYS + 1) && second.refused.load(Ordering::Relaxed));
        drop((large, second));
        assert!(share(&budget).take(1 << 19));
        drop(small);
        assert_eq!(budget.held.load(Ordering::Relaxed), 0);
    }
}
