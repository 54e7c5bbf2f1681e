//! Models, health, version, metrics: what the service says of itself.

use axum::extract::State as Shared;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use crossmodal_engine::Modality;
use serde::Serialize;
use std::sync::atomic::Ordering;
use utoipa::ToSchema;

use super::Errors;
use crate::error::{ApiError, ApiResult, Code, InferenceError};
use crate::extract::{ApiJson, ApiPath};
use crate::metrics::{self, ModelLabels};
use crate::models::ServedModel;
use crate::state::Shared as SharedState;

/// A model as the API tells of it: what OpenAI's clients read, and more.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ModelView {
    /// The name to ask for it by.
    pub id: String,
    /// `model`.
    pub object: String,
    /// Seconds since 1970; 0, since weights don't say when they were made.
    pub created: u64,
    /// Who made it, as far as its name tells.
    pub owned_by: String,
    /// The family.
    pub family: String,
    /// The layout of its files.
    pub layout: String,
    /// Length of its vectors.
    pub dimension: usize,
    /// What it embeds.
    #[schema(value_type = Vec<String>)]
    pub modalities: Vec<Modality>,
    /// Number of parameters.
    pub parameters: u64,
    /// The arithmetic it runs in.
    pub precision: String,
    /// Where it runs: `cpu` or `cuda:N`.
    pub device: String,
    /// The id of its vector space: vectors of equal spaces can be compared.
    pub space: String,
    /// How pictures are prepared.
    pub preprocessing: Option<String>,
    /// How texts are tokenised.
    pub tokenizer: Option<String>,
    /// The licence of its weights, where it is known.
    pub licence: Option<String>,
    /// Whether it is used where a request names no model.
    pub default: bool,
}

impl ModelView {
    fn new(served: &ServedModel, default: bool) -> Self {
        let info = served.model().info().clone();
        let owner = served.id.split_once('/').map_or("crossmodal", |(owner, _)| owner);
        Self {
            id: served.id.clone(),
            object: "model".into(),
            created: 0,
            owned_by: if owner.is_empty() { "local".into() } else { owner.to_string() },
            family: info.family,
            layout: info.layout,
            dimension: info.dimension,
            modalities: info.modalities,
            parameters: info.parameters,
            precision: info.precision.as_str().into(),
            device: info.device.to_string(),
            space: served.space.to_string(),
            preprocessing: info.preprocessing,
            tokenizer: info.tokenizer,
            licence: info.licence,
            default,
        }
    }
}

/// All models.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ModelsAnswer {
    /// `list`.
    pub object: String,
    /// The models, the default first.
    pub data: Vec<ModelView>,
}

/// Lists the models.
#[utoipa::path(
    get, path = "/v1/models", operation_id = "list_models", tag = "Models",
    responses((status = 200, description = "The models", body = ModelsAnswer), Errors)
)]
pub async fn models_route(Shared(state): Shared<SharedState>) -> ApiJson<ModelsAnswer> {
    let models = state.models.all().iter().enumerate();
    let data = models.map(|(place, served)| ModelView::new(served, place == 0)).collect();
    ApiJson(ModelsAnswer { object: "list".into(), data })
}

/// Tells of one model.
#[utoipa::path(
    get, path = "/v1/models/{id}", operation_id = "get_model", tag = "Models", params(("id" = String, Path, description = "Its id; slashes may stand as they are")),
    responses((status = 200, description = "The model", body = ModelView), Errors)
)]
pub async fn model_route(
    Shared(state): Shared<SharedState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<ApiJson<ModelView>> {
    let served = state.models.get(Some(&id))?;
    Ok(ApiJson(ModelView::new(served, served.id == state.models.all()[0].id)))
}

/// The program.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct VersionAnswer {
    /// `crossmodal`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Whether collections can be made and deleted (`--data`).
    pub can_create_collections: bool,
    /// Whether files can be added by path (`--allow-path`).
    pub can_add_paths: bool,
    /// Whether addresses are fetched (`--allow-fetch`).
    pub fetches_addresses: bool,
    /// Bytes that a body may have.
    pub max_body: usize,
}

/// Tells what runs here, and what it allows.
#[utoipa::path(
    get, path = "/v1/version", operation_id = "version", tag = "Service",
    responses((status = 200, description = "The program", body = VersionAnswer), Errors)
)]
pub async fn version_route(Shared(state): Shared<SharedState>) -> ApiJson<VersionAnswer> {
    ApiJson(VersionAnswer {
        name: "crossmodal".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        can_create_collections: state.collections.can_create(),
        can_add_paths: !state.allowed_paths.is_empty(),
        fetches_addresses: state.fetcher.is_some(),
        max_body: state.max_body,
    })
}

/// How the service is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct HealthAnswer {
    /// `ok`.
    pub status: String,
}

fn ok() -> ApiJson<HealthAnswer> {
    ApiJson(HealthAnswer { status: "ok".into() })
}

/// Whether the process lives.
#[utoipa::path(
    get, path = "/health/live", operation_id = "live", tag = "Service",
    responses((status = 200, description = "It lives", body = HealthAnswer), Errors)
)]
pub async fn live_route() -> ApiJson<HealthAnswer> {
    ok()
}

/// Whether requests are answered at once: models are loaded, and the server isn't stopping.
#[utoipa::path(
    get, path = "/health/ready", operation_id = "ready", tag = "Service",
    responses((status = 200, description = "It is ready", body = HealthAnswer), Errors)
)]
pub async fn ready_route(Shared(state): Shared<SharedState>) -> ApiResult<ApiJson<HealthAnswer>> {
    if state.stopping.load(Ordering::Relaxed) {
        return Err(ApiError::new(Code::Unavailable, "the server is stopping"));
    }
    if !state.warm.load(Ordering::Relaxed) {
        return Err(ApiError::new(Code::Unavailable, "models are being loaded"));
    }
    Ok(ok())
}

/// The same as `/health/ready`, where text-embeddings-inference has it.
#[utoipa::path(
    get, path = "/health", operation_id = "health", tag = "Service",
    responses(
        (status = 200, description = "It is ready", body = HealthAnswer),
        (status = 503, description = "It is starting or stopping", body = InferenceError)
    )
)]
pub async fn health_route(state: Shared<SharedState>) -> ApiResult<ApiJson<HealthAnswer>> {
    ready_route(state).await
}

/// Counters and times for Prometheus.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "Service",
    responses((status = 200, description = "Metrics", body = String, content_type = "application/openmetrics-text"), Errors)
)]
pub async fn metrics_route(Shared(state): Shared<SharedState>) -> Response {
    for served in state.models.all() {
        let labels = ModelLabels { model: served.id.clone() };
        state.metrics.waiting.get_or_create(&labels).set(served.batcher.waiting() as i64);
    }
    state.metrics.connections(&state.connections);
    match state.metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => ApiError::internal(error).into_response(),
    }
}
