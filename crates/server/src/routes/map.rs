//! `/v1/collections/{name}/map`: a collection as points in the plane.

use std::sync::Arc;

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Errors;
use crate::error::{ApiError, ApiResult};
use crate::extract::{ApiJson, ApiPath, ApiQuery};
use crate::maps::MapState;
use crate::state::Shared as SharedState;

/// How many items.
#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MapParameters {
    /// At most so many, spread evenly over all; 5000 where absent.
    #[param(minimum = 1, maximum = 50000)]
    pub limit: Option<usize>,
}

/// A map: item `keys[i]` lies at `x[i]`, `y[i]`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct MapAnswer {
    /// `ready`.
    pub state: String,
    /// The collection's change that it shows.
    pub change: u64,
    /// Items in the collection.
    pub total: u64,
    /// Keys of the items shown.
    pub keys: Vec<i64>,
    /// -1 to 1.
    pub x: Vec<f32>,
    /// -1 to 1.
    pub y: Vec<f32>,
}

/// A map on its way.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct MapProgress {
    /// `computing`.
    pub state: String,
    /// 0 to 1.
    pub progress: f32,
}

/// Lays a collection out in the plane: what is near in the vector space lies near. Computed once for each state of the collection.
#[utoipa::path(
    get, path = "/v1/collections/{name}/map", operation_id = "get_map", tag = "Collections",
    params(("name" = String, Path, description = "The collection"), MapParameters),
    responses(
        (status = 200, description = "The map", body = MapAnswer),
        (status = 202, description = "It is being computed; ask again", body = MapProgress), Errors
    )
)]
pub async fn map_route(
    Shared(state): Shared<SharedState>,
    ApiPath(name): ApiPath<String>,
    ApiQuery(parameters): ApiQuery<MapParameters>,
) -> ApiResult<Response> {
    let collection = state.collections.get(&name)?;
    let limit = parameters.limit.unwrap_or(5000);
    if !(1..=50_000).contains(&limit) {
        return Err(ApiError::invalid(format!("parameter `limit` is {limit}, expected 1 to 50000")));
    }
    let found = state.run(move |state| Arc::clone(&state.maps).get(&collection, limit)).await?;
    Ok(match found {
        MapState::Ready(map) => ApiJson(MapAnswer {
            state: "ready".into(),
            change: map.change,
            total: map.total,
            keys: map.keys.clone(),
            x: map.x.clone(),
            y: map.y.clone(),
        })
        .into_response(),
        MapState::Computing(progress) => {
            (StatusCode::ACCEPTED, ApiJson(MapProgress { state: "computing".into(), progress })).into_response()
        }
    })
}
