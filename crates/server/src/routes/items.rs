//! `/v1/collections/{name}/items`: listing, adding, looking at and deleting items.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State as Shared;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use crossmodal_engine::{ListRequest, StoredItem, files, media};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::Errors;
use super::embed::unknown_part;
use super::search::{FilterValue, filter};
use crate::collections::ServedCollection;
use crate::error::{ApiError, ApiResult, Code};
use crate::extract::{ApiJson, ApiPath, ApiQuery, Body};
use crate::ingest;
use crate::items::{self, ItemView};
use crate::jobs::JobView;
use crate::metrics::Stage;
use crate::state::Shared as SharedState;

/// Which items.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListParameters {
    /// At most so many; 100 where absent.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
    /// Those behind this key: `next` of the page before.
    pub after: Option<i64>,
    /// Only items that satisfy it: the language of docs/filters.md.
    pub filter: Option<String>,
}

/// A page of items.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ItemsAnswer {
    /// In the order in which they came.
    pub items: Vec<ItemView>,
    /// Items there are, or that satisfy the filter.
    pub total: u64,
    /// `after` of the next page, where there is one.
    pub next: Option<i64>,
}

/// Files to add by path.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddRequest {
    /// Files and folders on the server, below `--allow-path`.
    pub paths: Vec<String>,
    /// What is known of all of them.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub metadata: Map<String, Value>,
}

/// Files to add as a form.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes a form, which is read part by part")]
pub struct AddForm {
    /// Picture files.
    #[schema(value_type = Vec<String>, format = Binary)]
    file: Vec<Vec<u8>>,
    /// What is known of all of them.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
}

/// Lists items.
#[utoipa::path(
    get, path = "/v1/collections/{name}/items", operation_id = "list_items", tag = "Items",
    params(("name" = String, Path, description = "The collection"), ListParameters),
    responses((status = 200, description = "A page of items", body = ItemsAnswer), Errors)
)]
pub async fn list_route(
    Shared(state): Shared<SharedState>,
    ApiPath(name): ApiPath<String>,
    ApiQuery(parameters): ApiQuery<ListParameters>,
) -> ApiResult<ApiJson<ItemsAnswer>> {
    let collection = state.collections.get(&name)?;
    let limit = parameters.limit.unwrap_or(100);
    if !(1..=1000).contains(&limit) {
        return Err(ApiError::invalid(format!("parameter `limit` is {limit}, expected 1 to 1000")));
    }
    let filter = parameters.filter.map(|text| filter(&FilterValue::Text(text))).transpose()?.flatten();
    let answer = state
        .run(move |_| {
            let request = ListRequest {
                filter: filter.clone(),
                after: parameters.after,
                // One more tells whether there is another page.
                limit: Some(limit + 1),
                ..ListRequest::default()
            };
            let mut found = collection.reader.list(&request)?;
            let more = found.len() > limit;
            found.truncate(limit);
            let next = found.last().filter(|_| more).map(|stored| stored.key);
            let items = found.into_iter().map(|stored| ItemView::new(stored, &collection)).collect();
            Ok(ItemsAnswer { items, total: collection.reader.count(filter.as_ref())?, next })
        })
        .await?;
    Ok(ApiJson(answer))
}

/// Adds files: uploads as a form, or paths on the server as JSON. A job embeds them.
#[utoipa::path(
    post, path = "/v1/collections/{name}/items", operation_id = "add_items", tag = "Items",
    params(("name" = String, Path, description = "The collection")),
    request_body(content((AddForm = "multipart/form-data"), (AddRequest = "application/json"))),
    responses((status = 202, description = "A job is at it", body = JobView), Errors)
)]
pub async fn add_route(
    Shared(state): Shared<SharedState>,
    ApiPath(name): ApiPath<String>,
    body: Body<AddRequest>,
) -> ApiResult<impl IntoResponse> {
    let collection = state.collections.get(&name)?;
    let job = state
        .run(move |state| match body {
            Body::Json(request) => {
                if request.paths.is_empty() {
                    return Err(ApiError::invalid("field `paths` is empty"));
                }
                ingest::add_paths(state, &collection, &request.paths, &request.metadata)
            }
            Body::Form(form) => {
                let (mut files, mut metadata) = (Vec::new(), Map::new());
                for part in form.0 {
                    match part.name.as_str() {
                        "file" | "files" | "image" => files.push(part),
                        "metadata" => metadata = part.json()?,
                        name => return Err(unknown_part(name)),
                    }
                }
                ingest::add_uploads(state, &collection, &files, &metadata)
            }
        })
        .await?;
    Ok((StatusCode::ACCEPTED, ApiJson(job)))
}

fn find(collection: &ServedCollection, key: i64) -> ApiResult<StoredItem> {
    let found = collection.reader.item(key)?;
    found.ok_or_else(|| ApiError::not_found(format!("no item {key} in {:?}", collection.name)))
}

/// Tells of one item.
#[utoipa::path(
    get, path = "/v1/collections/{name}/items/{key}", operation_id = "get_item", tag = "Items",
    params(("name" = String, Path, description = "The collection"), ("key" = i64, Path, description = "The item's key")),
    responses((status = 200, description = "The item", body = ItemView), Errors)
)]
pub async fn get_route(
    Shared(state): Shared<SharedState>,
    ApiPath((name, key)): ApiPath<(String, i64)>,
) -> ApiResult<ApiJson<ItemView>> {
    let collection = state.collections.get(&name)?;
    Ok(ApiJson(state.run(move |_| Ok(ItemView::new(find(&collection, key)?, &collection))).await?))
}

/// Forgets an item. A file that was uploaded goes with it; any other stays where it is.
#[utoipa::path(
    delete, path = "/v1/collections/{name}/items/{key}", operation_id = "delete_item", tag = "Items",
    params(("name" = String, Path, description = "The collection"), ("key" = i64, Path, description = "The item's key")),
    responses((status = 204, description = "It is gone"), Errors)
)]
pub async fn delete_route(
    Shared(state): Shared<SharedState>,
    ApiPath((name, key)): ApiPath<(String, i64)>,
) -> ApiResult<StatusCode> {
    let collection = state.collections.get(&name)?;
    state
        .run(move |_| {
            let stored = find(&collection, key)?;
            let uploaded = items::is_uploaded(&stored.item, &collection);
            let path = stored.item.source.as_ref().map(|source| files::path(&source.uri));
            collection.writer()?.remove(&[stored.item.id])?;
            if let Some(path) = path.filter(|_| uploaded)
                && let Err(error) = std::fs::remove_file(&path)
            {
                tracing::warn!(file = %path.display(), %error, "the file of a deleted item can't be removed");
            }
            Ok(())
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How large.
#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ThumbnailParameters {
    /// Pixels of the longer side; 320 where absent.
    #[param(minimum = 16, maximum = 1024)]
    pub size: Option<u32>,
}

/// A small picture of an item.
#[utoipa::path(
    get, path = "/v1/collections/{name}/items/{key}/thumbnail", operation_id = "get_thumbnail", tag = "Items",
    params(
        ("name" = String, Path, description = "The collection"), ("key" = i64, Path, description = "The item's key"),
        ThumbnailParameters
    ),
    responses(
        (status = 200, description = "A JPEG", body = Vec<u8>, content_type = "image/jpeg"),
        (status = 304, description = "The copy that the client has is current"), Errors
    )
)]
pub async fn thumbnail_route(
    Shared(state): Shared<SharedState>,
    ApiPath((name, key)): ApiPath<(String, i64)>,
    ApiQuery(parameters): ApiQuery<ThumbnailParameters>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let size = parameters.size.unwrap_or(320);
    if !(16..=1024).contains(&size) {
        return Err(ApiError::invalid(format!("parameter `size` is {size}, expected 16 to 1024")));
    }
    let collection = state.collections.get(&name)?;
    let known = headers.get(IF_NONE_MATCH).cloned();
    let _place = state.thumbnail_places.acquire().await.map_err(ApiError::internal)?;
    let (tag, jpeg) = state
        .run(move |state| {
            let stored = find(&collection, key)?;
            let hash = stored.item.content_hash.map(|hash| blake3::Hash::from_bytes(hash).to_hex());
            let tag = hash.map(|hash| format!("\"{}-{size}\"", &hash[..32]));
            if tag.is_some() && known.as_ref().map(HeaderValue::as_bytes) == tag.as_deref().map(str::as_bytes) {
                return Ok((tag, None));
            }
            let start = Instant::now();
            let jpeg = state.thumbnails.thumbnail(&stored.item, size)?;
            state.metrics.stage(Stage::Thumbnail, "image", start.elapsed());
            Ok((tag, Some(jpeg)))
        })
        .await?;
    let mut response = match jpeg {
        None => StatusCode::NOT_MODIFIED.into_response(),
        Some(jpeg) => ([(CONTENT_TYPE, "image/jpeg")], bytes::Bytes::from_owner(jpeg)).into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, max-age=3600"));
    if let Some(tag) = tag.and_then(|tag| HeaderValue::from_str(&tag).ok()) {
        headers.insert(ETAG, tag);
    }
    Ok(response)
}

/// The file of an item as it is.
#[utoipa::path(
    get, path = "/v1/collections/{name}/items/{key}/file", operation_id = "get_file", tag = "Items",
    params(("name" = String, Path, description = "The collection"), ("key" = i64, Path, description = "The item's key")),
    responses(
        (status = 200, description = "The file", content(
            (Vec<u8> = "image/jpeg"), (Vec<u8> = "image/png"), (Vec<u8> = "image/gif"), (Vec<u8> = "image/webp"),
            (Vec<u8> = "image/bmp"), (Vec<u8> = "image/tiff"), (Vec<u8> = "application/octet-stream")
        )), Errors
    )
)]
pub async fn file_route(
    Shared(state): Shared<SharedState>,
    ApiPath((name, key)): ApiPath<(String, i64)>,
) -> ApiResult<Response> {
    let collection = state.collections.get(&name)?;
    let (path, bytes) = state.run(move |_| read_file(&collection, key)).await?;
    let kind = media::sniff(&bytes).map_or("application/octet-stream", |format| format.media_type());
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' };
    let disposition = format!("inline; filename=\"{}\"", name.chars().map(plain).collect::<String>());
    let mut response = ([(CONTENT_TYPE, kind)], bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, max-age=3600"));
    // Whatever the file is, it is never run.
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    if let Ok(disposition) = HeaderValue::from_str(&disposition) {
        headers.insert(CONTENT_DISPOSITION, disposition);
    }
    Ok(response)
}

fn read_file(collection: &Arc<ServedCollection>, key: i64) -> ApiResult<(PathBuf, Vec<u8>)> {
    let stored = find(collection, key)?;
    let source = stored.item.source.ok_or_else(|| ApiError::not_found(format!("item {key} has no file")))?;
    let path = files::path(&source.uri);
    if files::is_gone(&path) {
        return Err(ApiError::not_found(format!("the file of item {key} is gone")));
    }
    let limit = media::DecodeLimits::default().max_bytes;
    let (bytes, _) = files::read_limited(&path, limit)
        .map_err(|error| ApiError::new(Code::Unavailable, format!("the file of item {key} can't be read: {error}")))?;
    Ok((path, bytes))
}
