//! `/v1/collections`: what collections there are, making and deleting them.

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Errors;
use crate::collections::CollectionSummary;
use crate::error::ApiResult;
use crate::extract::{ApiJson, ApiPath};
use crate::state::Shared as SharedState;

/// All collections.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CollectionsAnswer {
    /// By name.
    pub collections: Vec<CollectionSummary>,
}

/// A collection to make.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRequest {
    /// Its name: letters, digits, `-` and `_`.
    #[schema(example = "holidays", min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    pub name: String,
    /// The model whose space it is in; the default one where absent.
    pub model: Option<String>,
}

/// Lists the collections.
#[utoipa::path(
    get, path = "/v1/collections", operation_id = "list_collections", tag = "Collections",
    responses((status = 200, description = "The collections", body = CollectionsAnswer), Errors)
)]
pub async fn list_route(Shared(state): Shared<SharedState>) -> ApiResult<ApiJson<CollectionsAnswer>> {
    let collections = state
        .run(|state| {
            let summaries = state.collections.all().into_iter().map(|collection| collection.summary(&state.models));
            summaries.collect::<ApiResult<Vec<_>>>()
        })
        .await?;
    Ok(ApiJson(CollectionsAnswer { collections }))
}

/// Makes an empty collection in the server's own folder.
#[utoipa::path(
    post, path = "/v1/collections", operation_id = "create_collection", tag = "Collections", request_body = CreateRequest,
    responses((status = 201, description = "It is there", body = CollectionSummary), Errors)
)]
pub async fn create_route(
    Shared(state): Shared<SharedState>,
    ApiJson(request): ApiJson<CreateRequest>,
) -> ApiResult<impl IntoResponse> {
    let summary = state
        .run(move |state| {
            let model = state.models.get(request.model.as_deref())?;
            state.collections.create(&request.name, model)?.summary(&state.models)
        })
        .await?;
    Ok((StatusCode::CREATED, ApiJson(summary)))
}

/// Tells of one collection.
#[utoipa::path(
    get, path = "/v1/collections/{name}", operation_id = "get_collection", tag = "Collections",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "The collection", body = CollectionSummary), Errors)
)]
pub async fn get_route(
    Shared(state): Shared<SharedState>,
    ApiPath(name): ApiPath<String>,
) -> ApiResult<ApiJson<CollectionSummary>> {
    let collection = state.collections.get(&name)?;
    Ok(ApiJson(state.run(move |state| collection.summary(&state.models)).await?))
}

/// Deletes one of the server's own collections, with the files that were uploaded into it.
#[utoipa::path(
    delete, path = "/v1/collections/{name}", operation_id = "delete_collection", tag = "Collections",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 204, description = "It is gone"), Errors)
)]
pub async fn delete_route(Shared(state): Shared<SharedState>, ApiPath(name): ApiPath<String>) -> ApiResult<StatusCode> {
    state.run(move |state| state.collections.delete(&name)).await?;
    Ok(StatusCode::NO_CONTENT)
}
