//! Reading requests: bodies, queries and paths, with every refusal in our own words.

use std::fmt;

use axum::extract::multipart::MultipartError;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Json, Multipart, Path, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{ApiError, ApiResult, Code};

/// The most parts of a multipart body.
const MOST_PARTS: usize = 10_000;

/// A JSON body, and a JSON answer.
#[derive(Debug, Clone, Copy)]
pub struct ApiJson<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for ApiJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !media_type(request.headers()).is_some_and(is_json) {
            return Ok(Self(Json::from_request(request, state).await?.0));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(JsonRejection::from)?;
        // Only where something is wrong it is read again, by what remembers where in the document it is: for long vectors that takes as
        // long as reading itself.
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Self(value)),
            Err(_) => Ok(Self(Json::from_bytes(&bytes)?.0)),
        }
    }
}

impl<T: Serialize> IntoResponse for ApiJson<T> {
    fn into_response(self) -> Response {
        Json(self.0).into_response()
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        match &rejection {
            JsonRejection::MissingJsonContentType(_) => {
                Self::new(Code::UnsupportedMediaType, "expected the content type application/json")
            }
            rejection if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => too_large(),
            // Says where and what was expected.
            rejection => Self::invalid(one_line(&rejection.body_text())),
        }
    }
}

/// The part of a rejection that says what is wrong.
fn one_line(text: &str) -> String {
    let known =
        ["Failed to deserialize the JSON body into the target type: ", "Failed to parse the request body as JSON: "];
    let text = known.iter().find_map(|start| text.strip_prefix(start)).unwrap_or(text);
    format!("the body: {text}")
}

fn too_large() -> ApiError {
    ApiError::new(Code::TooLarge, "the body is larger than this server takes (--max-body)")
}

/// Parameters behind the question mark.
#[derive(Debug, Clone, Copy)]
pub struct ApiQuery<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::from_request_parts(parts, state).await;
        Ok(Self(query.map_err(|rejection: QueryRejection| ApiError::invalid(rejection.body_text()))?.0))
    }
}

/// Parameters within the path.
#[derive(Debug, Clone, Copy)]
pub struct ApiPath<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for ApiPath<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::from_request_parts(parts, state).await;
        Ok(Self(path.map_err(|rejection: PathRejection| ApiError::invalid(rejection.body_text()))?.0))
    }
}

/// A part of a multipart body.
#[derive(Clone)]
pub struct FormPart {
    /// Its name.
    pub name: String,
    /// The name of its file, where it is one.
    pub file_name: Option<String>,
    /// Its content.
    pub bytes: Bytes,
}

impl fmt::Debug for FormPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FormPart").field("name", &self.name).field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl FormPart {
    /// Its content as text.
    ///
    /// # Errors
    /// Bytes that aren't UTF-8.
    pub fn text(&self) -> ApiResult<&str> {
        std::str::from_utf8(&self.bytes)
            .map_err(|error| ApiError::invalid(format!("the part {:?} is not UTF-8: {error}", self.name)))
    }

    /// Its content as JSON.
    ///
    /// # Errors
    /// Bytes that aren't such a document.
    pub fn json<T: DeserializeOwned>(&self) -> ApiResult<T> {
        serde_json::from_slice(&self.bytes)
            .map_err(|error| ApiError::invalid(format!("the part {:?}: {error}", self.name)))
    }
}

/// A whole multipart body.
#[derive(Debug)]
pub struct Form(pub Vec<FormPart>);

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let form = Multipart::from_request(request, state).await;
        let mut form = form.map_err(|_| {
            ApiError::new(Code::UnsupportedMediaType, "expected the content type multipart/form-data with a boundary")
        })?;
        let mut parts = Vec::new();
        while let Some(field) = form.next_field().await? {
            if parts.len() == MOST_PARTS {
                return Err(ApiError::new(Code::TooLarge, format!("more than {MOST_PARTS} parts")));
            }
            let name = field.name().unwrap_or_default().to_string();
            let file_name = field.file_name().map(str::to_string);
            parts.push(FormPart { name, file_name, bytes: field.bytes().await? });
        }
        Ok(Self(parts))
    }
}

impl From<MultipartError> for ApiError {
    fn from(error: MultipartError) -> Self {
        if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return too_large();
        }
        Self::invalid(format!("the multipart body: {}", error.body_text()))
    }
}

/// A body in JSON or as a form.
#[derive(Debug)]
pub enum Body<T> {
    /// `application/json`
    Json(T),
    /// `multipart/form-data`
    Form(Form),
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match media_type(request.headers()) {
            Some("multipart/form-data") => Ok(Self::Form(Form::from_request(request, state).await?)),
            Some(other) if is_json(other) => Ok(Self::Json(ApiJson::from_request(request, state).await?.0)),
            found => Err(ApiError::new(
                Code::UnsupportedMediaType,
                format!(
                    "the content type is {}, expected application/json or multipart/form-data",
                    found.map_or_else(|| "missing".to_string(), |found| format!("{found:?}"))
                ),
            )),
        }
    }
}

/// The content type without its parameters.
pub fn media_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or(value).trim())
}

/// Whether a media type is JSON: `application/json` or `application/...+json`.
pub fn is_json(media_type: &str) -> bool {
    let lower = media_type.to_ascii_lowercase();
    lower == "application/json" || (lower.starts_with("application/") && lower.ends_with("+json"))
}
