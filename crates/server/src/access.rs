//! What stands before every route: who is asking and how often, how long it may take, and what is written down of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::Method;
use axum::http::header::{AUTHORIZATION, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tracing::Instrument as _;

use crate::error::{ApiError, Code};
use crate::safety::keys::Identity;
use crate::safety::rate_limit::Client;
use crate::state::Shared;

/// The header that names a request, taken from the client or made here.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Another way to show a key.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// What a route needs a key for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Looking.
    Read,
    /// Changing.
    Write,
}

impl Scope {
    fn check(self, identity: &Identity) -> Result<(), ApiError> {
        let (has, name) = match self {
            Self::Read => (identity.scopes.read, "read"),
            Self::Write => (identity.scopes.write, "write"),
        };
        if has {
            return Ok(());
        }
        let message = format!("the key {:?} has the scopes {}, this needs {name}", identity.name, identity.scopes);
        Err(ApiError::new(Code::Forbidden, message))
    }
}

/// Lets in who may, as often as they may.
pub async fn guard(State((state, scope)): State<(Shared, Scope)>, request: Request, next: Next) -> Response {
    match admit(&state, scope, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn admit(state: &Shared, scope: Scope, request: &Request) -> Result<(), ApiError> {
    state.origins.check(request.headers()).map_err(|reason| ApiError::new(Code::Forbidden, reason))?;
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let client = match &state.keys {
        None => Client::peer(peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))),
        Some(keys) => {
            let header = |name: &HeaderName| request.headers().get(name).map(HeaderValue::as_bytes);
            let identity = keys
                .check(header(&AUTHORIZATION), header(&API_KEY))
                .map_err(|error| ApiError::new(Code::Unauthorized, error.to_string()))?;
            scope.check(&identity)?;
            Client::Key(identity.name)
        }
    };
    if let Some(limit) = &state.rate_limit {
        limit.take(&client, 1).map_err(|retry| {
            let message = "more requests than this server allows one client (--rate-limit)";
            ApiError::new(Code::RateLimited, message).after(Duration::from_secs(retry.0))
        })?;
    }
    Ok(())
}

/// Gives up after a while. The head of the answer counts: what streams may take its time.
pub async fn timeout(State(state): State<Shared>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(state.timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = format!("the request took longer than {} s (--timeout)", state.timeout.as_secs());
            ApiError::new(Code::Timeout, message).into_response()
        }
    }
}

/// Names the request, logs and counts it, and says what every answer says.
pub async fn account(State(state): State<Shared>, request: Request, next: Next) -> Response {
    let id = request_id(&request);
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_string();
    let span = request_span(&id, &route, &request);
    let start = Instant::now();
    let _in_flight = InFlight::new(&state);
    let mut response = next.run(request).instrument(span.clone()).await;
    let (time, status) = (start.elapsed(), response.status().as_u16());
    state.metrics.request(counted_as(&method), &route, status, time);
    #[cfg(feature = "otel")]
    crate::telemetry::answered(&span, status);
    span.in_scope(|| {
        let milliseconds = time.as_secs_f64() * 1000.0;
        match response.extensions().get::<ApiError>() {
            // Quoted: a message may repeat what the client sent, line breaks included.
            Some(error) => {
                tracing::info!(status, milliseconds, code = error.code.as_str(), reason = ?error.message, "refused")
            }
            None => tracing::info!(status, milliseconds, "answered"),
        }
    });
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// What log lines of a request begin with.
#[cfg(not(feature = "otel"))]
fn request_span(id: &str, _route: &str, request: &Request) -> tracing::Span {
    tracing::info_span!("request", %id, method = %request.method(), path = %request.uri().path())
}

#[cfg(feature = "otel")]
use crate::telemetry::request_span;

/// A method as it is counted: clients may make up as many as they like, each of which would be counted for ever.
fn counted_as(method: &Method) -> &str {
    let known = [Method::GET, Method::POST, Method::DELETE, Method::PUT, Method::PATCH, Method::HEAD, Method::OPTIONS];
    if known.contains(method) { method.as_str() } else { "other" }
}

/// Counts a request for as long as it is worked on, also when it is dropped half-way.
struct InFlight(Shared);

impl InFlight {
    fn new(state: &Shared) -> Self {
        state.metrics.in_flight.inc();
        Self(state.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.metrics.in_flight.dec();
    }
}

/// The client's name for the request where it is short and plain, else one of our own.
fn request_id(request: &Request) -> String {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match given.filter(|given| (1..=64).contains(&given.len()) && given.chars().all(plain)) {
        Some(given) => given.to_string(),
        None => {
            static COUNTER: AtomicU64 = AtomicU64::new(0);
            format!("{:x}-{:x}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_methods_are_counted_as_one() {
        assert_eq!(counted_as(&Method::DELETE), "DELETE");
        assert_eq!(counted_as(&Method::from_bytes(b"MADE-UP").unwrap()), "other");
    }

    #[test]
    fn names_of_requests_are_plain() {
        let id =
            |value: &str| request_id(&Request::builder().header(REQUEST_ID, value).body(Default::default()).unwrap());
        assert_eq!(id("abc-1_2.3"), "abc-1_2.3");
        assert_ne!(id("a b"), "a b");
        assert_ne!(id(&"a".repeat(65)), "a".repeat(65));
    }
}
