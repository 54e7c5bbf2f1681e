//! The HTTP server: routes, JSON types, the error table, and the web page inside the program.
//!
//! One process serves any number of models and collections. Each model has one owner that batches what many requests ask of it
//! ([`crossmodal_engine::batching`]); blocking work runs on threads of its own, a bounded number at a time; what doesn't fit is turned away
//! with a time to come back. Handlers are thin: a request becomes plain types of the engine, its answer becomes JSON.
//!
//! ```text
//! transport (connections, stalls, draining) -> access (name, log, count, time limit, key, allowance)
//!     -> routes (own API, plain endpoints, dialects of other servers) -> state (models, collections, jobs, maps)
//! ```

#![forbid(unsafe_code)]

mod access;
mod body_budget;
mod classifiers;
mod collections;
pub mod error;
mod extract;
mod ingest;
mod inputs;
mod items;
mod jobs;
mod linger;
pub mod logging;
mod maps;
mod metrics;
mod models;
mod routes;
pub mod safety;
mod start;
mod state;
#[cfg(feature = "otel")]
mod telemetry;
pub mod transport;

pub use start::{Server, ServerError, ServerOptions, models_of};
