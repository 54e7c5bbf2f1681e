//! What the server counts and times, in the text format of Prometheus.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crossmodal_engine::Modality;
use crossmodal_engine::batching::BatchObserver;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::transport::TransportCounts;

/// The content type of the answer.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A part of the way of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for the model.
    Queue,
    /// Decoding files.
    Decode,
    /// Resizing, tokenising.
    Preprocess,
    /// Running the model.
    Model,
    /// Searching a collection.
    Search,
    /// Reading and shrinking pictures to show.
    Thumbnail,
}

impl Stage {
    fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Decode => "decode",
            Self::Preprocess => "preprocess",
            Self::Model => "model",
            Self::Search => "search",
            Self::Thumbnail => "thumbnail",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    stage: &'static str,
    /// Empty where it has none.
    modality: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModalityLabels {
    modality: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// What is asked for when metrics are read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ModelLabels {
    /// The model's id.
    pub model: String,
}

/// All counters.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter<u64, AtomicU64>>,
    request_seconds: Family<RouteLabels, Histogram, fn() -> Histogram>,
    stage_seconds: Family<StageLabels, Histogram, fn() -> Histogram>,
    batch_inputs: Family<ModalityLabels, Histogram, fn() -> Histogram>,
    /// Inputs that were let in and not answered yet, by model.
    pub waiting: Family<ModelLabels, Gauge<i64, AtomicI64>>,
    /// Requests being answered.
    pub in_flight: Gauge<i64, AtomicI64>,
    connections: Gauge<i64, AtomicI64>,
    lost_connections: Family<ReasonLabels, Counter<u64, AtomicU64>>,
    /// Jobs that aren't over.
    pub jobs: Gauge<i64, AtomicI64>,
}

/// From half a millisecond to a minute.
fn seconds() -> Histogram {
    const BOUNDS: [f64; 17] =
        [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0];
    Histogram::new(BOUNDS)
}

fn batches() -> Histogram {
    Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("crossmodal");
        let requests = Family::default();
        registry.register("requests", "Requests answered", requests.clone());
        let request_seconds = Family::new_with_constructor(seconds as fn() -> Histogram);
        registry.register_with_unit(
            "request",
            "Time to the head of the answer",
            Unit::Seconds,
            request_seconds.clone(),
        );
        let stage_seconds = Family::new_with_constructor(seconds as fn() -> Histogram);
        registry.register_with_unit("stage", "Time of a stage of requests", Unit::Seconds, stage_seconds.clone());
        let batch_inputs = Family::new_with_constructor(batches as fn() -> Histogram);
        registry.register("batch_inputs", "Inputs that the model ran over together", batch_inputs.clone());
        let waiting = Family::default();
        registry.register("waiting_inputs", "Inputs let in and not answered yet", waiting.clone());
        let in_flight = Gauge::default();
        registry.register("requests_in_flight", "Requests being answered", in_flight.clone());
        let connections = Gauge::default();
        registry.register("connections", "Open connections", connections.clone());
        let lost_connections = Family::default();
        registry.register("lost_connections", "Connections refused or given up", lost_connections.clone());
        let jobs = Gauge::default();
        registry.register("jobs", "Jobs that are waiting or running", jobs.clone());
        Self {
            registry,
            requests,
            request_seconds,
            stage_seconds,
            batch_inputs,
            waiting,
            in_flight,
            connections,
            lost_connections,
            jobs,
        }
    }
}

impl Metrics {
    /// Counts a request.
    pub fn request(&self, method: &str, route: &str, status: u16, time: Duration) {
        let labels = RequestLabels { method: method.to_string(), route: route.to_string(), status };
        self.requests.get_or_create(&labels).inc();
        let labels = RouteLabels { route: route.to_string() };
        self.request_seconds.get_or_create(&labels).observe(time.as_secs_f64());
    }

    /// Counts a stage.
    pub fn stage(&self, stage: Stage, modality: &'static str, time: Duration) {
        let labels = StageLabels { stage: stage.as_str(), modality };
        self.stage_seconds.get_or_create(&labels).observe(time.as_secs_f64());
    }

    /// Takes over what the transport counts.
    pub fn connections(&self, counts: &TransportCounts) {
        self.connections.set(counts.open() as i64);
        let lost = [
            ("refused", counts.refused()),
            ("header_timeout", counts.header_timeouts()),
            ("body_stall", counts.body_stalls()),
            ("write_stall", counts.write_stalls()),
            ("panic", counts.panics()),
            ("accept_error", counts.accept_errors()),
        ];
        for (reason, count) in lost {
            self.lost_connections.get_or_create(&ReasonLabels { reason }).inner().store(count, Ordering::Relaxed);
        }
    }

    /// Everything as text.
    ///
    /// # Errors
    /// None in practice: the text is written into memory.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl BatchObserver for Metrics {
    fn prepared(&self, modality: Modality, decoding: Duration, preprocessing: Duration) {
        if !decoding.is_zero() {
            self.stage(Stage::Decode, modality.as_str(), decoding);
        }
        self.stage(Stage::Preprocess, modality.as_str(), preprocessing);
    }

    fn queued(&self, modality: Modality, time: Duration) {
        self.stage(Stage::Queue, modality.as_str(), time);
    }

    fn encoded(&self, modality: Modality, inputs: usize, time: Duration) {
        self.stage(Stage::Model, modality.as_str(), time);
        let labels = ModalityLabels { modality: modality.as_str() };
        self.batch_inputs.get_or_create(&labels).observe(inputs as f64);
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_told() {
        let metrics = Metrics::default();
        metrics.request("POST", "/v1/embed", 200, Duration::from_millis(3));
        metrics.encoded(Modality::Text, 32, Duration::from_millis(40));
        metrics.waiting.get_or_create(&ModelLabels { model: "mini".into() }).set(5);
        metrics.connections(&TransportCounts::default());
        let text = metrics.text().unwrap();
        for line in [
            r#"crossmodal_requests_total{method="POST",route="/v1/embed",status="200"} 1"#,
            r#"crossmodal_request_seconds_bucket{le="0.005",route="/v1/embed"} 1"#,
            r#"crossmodal_stage_seconds_count{stage="model",modality="text"} 1"#,
            r#"crossmodal_batch_inputs_sum{modality="text"} 32.0"#,
            r#"crossmodal_waiting_inputs{model="mini"} 5"#,
            r#"crossmodal_lost_connections_total{reason="write_stall"} 0"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
