//! Where log lines go and what they look like.

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

#[cfg(feature = "otel")]
use crate::telemetry::Exporter;

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Which lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Faults.
    Error,
    /// And what may become one.
    Warn,
    /// And every request.
    #[default]
    Info,
    /// And how it was come by.
    Debug,
}

/// What logging holds. Keep it until the end of the program: dropped, it hands over what is still to be sent.
#[must_use = "spans that wait to be sent are sent when this is dropped"]
#[derive(Debug)]
pub struct Logging {
    #[cfg(feature = "otel")]
    _exporter: Option<Exporter>,
}

/// Sends log lines to standard error, from here on for the whole process; with the feature `otel`, and where the environment names a
/// collector, spans to it.
///
/// # Errors
/// Log lines go somewhere already; a setting of the environment that can't be used.
pub fn start(format: LogFormat, level: LogLevel, colours: bool) -> Result<Logging, String> {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(colours).compact().with_filter(level).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).with_filter(level).boxed(),
    };
    let layers = tracing_subscriber::registry().with(lines);
    #[cfg(feature = "otel")]
    let (layers, exporter) = {
        let exporter = Exporter::from_environment()?;
        (layers.with(exporter.as_ref().map(Exporter::layer)), exporter)
    };
    layers.try_init().map_err(|error| error.to_string())?;
    Ok(Logging {
        #[cfg(feature = "otel")]
        _exporter: exporter,
    })
}
