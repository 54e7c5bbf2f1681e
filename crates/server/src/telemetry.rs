//! Spans of requests for an OpenTelemetry collector, as OTLP over HTTP. Compiled with the feature `otel` only.
//!
//! The environment says where they go, in OpenTelemetry's own words: `OTEL_EXPORTER_OTLP_ENDPOINT` and its like. Without an endpoint nothing is
//! made or sent. A request with a `traceparent` continues its client's trace; its log lines carry the trace's id.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::extract::Request;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{Status, TraceContextExt as _, TracerProvider as _};
use opentelemetry::{Context, Key};
use opentelemetry_http::{Bytes, HeaderExtractor, HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::registry::LookupSpan;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

/// Bytes of a collector's answer that are read; it has no more to say than how many spans it refused.
const MOST_OF_ANSWER: u64 = 1 << 20;
/// What OpenTelemetry's specification says where the environment says nothing.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends spans until it is dropped, which sends those that are left.
#[derive(Debug)]
pub struct Exporter(SdkTracerProvider);

impl Exporter {
    /// An exporter to the collector that the environment names; none where it names none or turns telemetry off.
    ///
    /// # Errors
    /// An endpoint that is no address, a protocol or compression that this program doesn't speak.
    pub fn from_environment() -> Result<Option<Self>, String> {
        let off = setting(&["OTEL_SDK_DISABLED"]).is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || setting(&["OTEL_TRACES_EXPORTER"]).is_some_and(|value| value == "none");
        let endpoint = setting(&["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]);
        if off || endpoint.is_none() {
            return Ok(None);
        }
        let protocol = setting(&["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"]);
        // The library would fall back with a warning that nobody hears yet, and knock at a port that speaks something else.
        if let Some(other) = protocol.filter(|protocol| protocol != "http/protobuf") {
            return Err(format!("OTEL_EXPORTER_OTLP_PROTOCOL is {other:?}; spans are sent as \"http/protobuf\" only"));
        }
        let exporter = SpanExporter::builder().with_http().with_http_client(Client::new(timeout()?)).build();
        let exporter = exporter.map_err(|error| format!("OpenTelemetry: {error}"))?;
        Ok(Some(Self(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource()).build())))
    }

    /// Makes spans of the program's own ones, of whatever level log lines have.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        // What the exporter says of itself belongs to the log alone.
        let ours =
            filter_fn(|metadata| *metadata.level() <= Level::INFO && !metadata.target().starts_with("opentelemetry"))
                .with_max_level_hint(LevelFilter::INFO);
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("crossmodal"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(ours)
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "the last spans didn't reach the collector");
        }
    }
}

/// The first of some variables that is set to something.
fn setting(names: &[&str]) -> Option<String> {
    names
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .map(|value| value.trim().to_string())
        .find(|value| !value.is_empty())
}

fn timeout() -> Result<Duration, String> {
    let Some(given) = setting(&["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"]) else {
        return Ok(DEFAULT_TIMEOUT);
    };
    let milliseconds =
        given.parse().map_err(|_| format!("OTEL_EXPORTER_OTLP_TIMEOUT is {given:?}, expected milliseconds"))?;
    Ok(Duration::from_millis(milliseconds))
}

/// Who sends: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, else the program's name.
fn resource() -> Resource {
    let named = Resource::builder().build();
    let name = named.get(&Key::from_static_str("service.name")).map(|name| name.to_string()).unwrap_or_default();
    if !name.is_empty() && !name.starts_with("unknown_service") {
        return named;
    }
    Resource::builder().with_service_name("crossmodal").build()
}

/// A request's span, as the child of the span that its client names.
pub fn request_span(id: &str, route: &str, request: &Request) -> Span {
    let (method, path) = (request.method().as_str(), request.uri().path());
    let span =
        tracing::info_span!("request", %id, %method, %path, otel.kind = "server", trace_id = tracing::field::Empty);
    let parent =
        TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(request.headers()));
    if span.set_parent(parent).is_err() {
        // Nothing is exported.
        return span;
    }
    span.set_attribute("http.request.method", method.to_string());
    span.set_attribute("url.path", path.to_string());
    let matched = route != "unmatched";
    if matched {
        span.set_attribute("http.route", route.to_string());
    }
    let context = span.context();
    context.span().update_name(if matched { format!("{method} {route}") } else { method.to_string() });
    span.record("trace_id", tracing::field::display(context.span().span_context().trace_id()));
    span
}

/// Notes how a request ended.
pub fn answered(span: &Span, status: u16) {
    span.set_attribute("http.response.status_code", i64::from(status));
    if status >= 500 {
        span.set_status(Status::error(""));
    }
}

/// Posts to the collector with the HTTP client and the TLS that the program has anyway.
#[derive(Debug)]
struct Client(Agent);

impl Client {
    fn new(timeout: Duration) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(provider)
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(timeout))
            .user_agent(concat!("crossmodal/", env!("CARGO_PKG_VERSION")))
            .build();
        Self(agent.into())
    }
}

#[async_trait]
impl HttpClient for Client {
    /// Blocks; spans are sent from a thread that does nothing else.
    async fn send_bytes(
        &self,
        request: opentelemetry_http::Request<Bytes>,
    ) -> Result<opentelemetry_http::Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let answer = self.0.run(opentelemetry_http::Request::from_parts(head, &body[..]))?;
        let (head, mut body) = answer.into_parts();
        let body = body.with_config().limit(MOST_OF_ANSWER).read_to_vec()?;
        Ok(opentelemetry_http::Response::from_parts(head, body.into()))
    }
}
