//! `/v1/jobs`: what works in the background, watched as it goes.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, StreamExt as _, stream};
use serde::Serialize;
use tokio_stream::wrappers::WatchStream;
use utoipa::ToSchema;

use super::Errors;
use crate::error::{ApiError, ApiResult};
use crate::extract::{ApiJson, ApiPath};
use crate::jobs::JobView;
use crate::state::Shared as SharedState;

/// All jobs.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct JobsAnswer {
    /// The newest first.
    pub jobs: Vec<JobView>,
}

/// An event of a job.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what is streamed")]
pub struct JobEvent {
    /// `progress`, or `end` for the last one.
    event: String,
    /// The job as JSON.
    data: String,
}

/// Lists jobs, the newest first.
#[utoipa::path(
    get, path = "/v1/jobs", operation_id = "list_jobs", tag = "Jobs",
    responses((status = 200, description = "The jobs", body = JobsAnswer), Errors)
)]
pub async fn list_route(Shared(state): Shared<SharedState>) -> ApiJson<JobsAnswer> {
    ApiJson(JobsAnswer { jobs: state.jobs.all() })
}

/// Tells of one job.
#[utoipa::path(
    get, path = "/v1/jobs/{id}", operation_id = "get_job", tag = "Jobs", params(("id" = u64, Path, description = "Its number")),
    responses((status = 200, description = "The job", body = JobView), Errors)
)]
pub async fn get_route(Shared(state): Shared<SharedState>, ApiPath(id): ApiPath<u64>) -> ApiResult<ApiJson<JobView>> {
    Ok(ApiJson(state.jobs.get(id)?.view()))
}

/// Calls a job off. What is committed stays.
#[utoipa::path(
    delete, path = "/v1/jobs/{id}", operation_id = "cancel_job", tag = "Jobs", params(("id" = u64, Path, description = "Its number")),
    responses((status = 202, description = "It is being called off", body = JobView), Errors)
)]
pub async fn cancel_route(
    Shared(state): Shared<SharedState>,
    ApiPath(id): ApiPath<u64>,
) -> ApiResult<impl IntoResponse> {
    let job = state.jobs.get(id)?;
    job.cancel.cancel();
    Ok((StatusCode::ACCEPTED, ApiJson(job.view())))
}

/// Follows a job: an event `progress` with the job for every change, at last one `end`.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/events", operation_id = "follow_job", tag = "Jobs", params(("id" = u64, Path, description = "Its number")),
    responses(
        (status = 200, description = "Server-sent events", body = JobEvent, content_type = "text/event-stream"),
        Errors
    )
)]
pub async fn events_route(
    Shared(state): Shared<SharedState>,
    ApiPath(id): ApiPath<u64>,
) -> ApiResult<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    let job = state.jobs.get(id)?;
    // The watch tells the last state only, so that a slow reader misses steps, never the end.
    let states = WatchStream::new(job.watch());
    let events = stream::unfold((states, false, job), |(mut states, over, job)| async move {
        if over {
            return None;
        }
        let view = states.next().await?;
        let over = view.state.is_over();
        Some((Ok(event(&view, over)), (states, over, job)))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}

fn event(view: &JobView, over: bool) -> Event {
    let event = Event::default().event(if over { "end" } else { "progress" });
    event
        .json_data(view)
        .unwrap_or_else(|error| Event::default().event("error").data(ApiError::internal(error).message))
}
