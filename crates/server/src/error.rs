//! The one table of what can go wrong, and how it is told: status, code, message, in the form of whoever asked.

use std::time::Duration;

use axum::Json;
use axum::extract::Request;
use axum::http::header::{self, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use crossmodal_engine::batching::Overloaded;
use crossmodal_engine::{Error, ErrorKind};
use serde::Serialize;
use utoipa::ToSchema;

/// Shorthand for what handlers return.
pub type ApiResult<T> = Result<T, ApiError>;

/// Codes of errors. Their statuses stand in [`Code::status`] and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The body, a field or a parameter can't be understood.
    InvalidRequest,
    /// An input can't be embedded.
    InvalidInput,
    /// No key, or an unknown one.
    Unauthorized,
    /// The key lacks the scope, or a path or address isn't allowed.
    Forbidden,
    /// No such route, model, collection, item or job.
    NotFound,
    /// The route has other methods.
    MethodNotAllowed,
    /// It took too long.
    Timeout,
    /// The name is taken, another process is writing, vectors of another space.
    Conflict,
    /// Beyond a limit.
    TooLarge,
    /// A content type that the route doesn't take.
    UnsupportedMediaType,
    /// Too much is waiting.
    Overloaded,
    /// The key's allowance is used up.
    RateLimited,
    /// Our fault.
    Internal,
    /// Not yet.
    NotImplemented,
    /// Starting, stopping, or the storage is damaged.
    Unavailable,
}

impl Code {
    /// Every code, for tests and documentation.
    pub const ALL: [Self; 15] = [
        Self::InvalidRequest,
        Self::InvalidInput,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Timeout,
        Self::Conflict,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::Overloaded,
        Self::RateLimited,
        Self::Internal,
        Self::NotImplemented,
        Self::Unavailable,
    ];

    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest | Self::InvalidInput => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Overloaded | Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidInput => "invalid_input",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Timeout => "timeout",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Overloaded => "overloaded",
            Self::RateLimited => "rate_limited",
            Self::Internal => "internal",
            Self::NotImplemented => "not_implemented",
            Self::Unavailable => "unavailable",
        }
    }

    /// The broad class, named as OpenAI's API names it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::InvalidRequest
            | Self::InvalidInput
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::Conflict
            | Self::TooLarge
            | Self::UnsupportedMediaType
            | Self::NotImplemented => "invalid_request_error",
            Self::Unauthorized => "authentication_error",
            Self::Forbidden => "permission_error",
            Self::RateLimited => "rate_limit_error",
            Self::Timeout | Self::Overloaded | Self::Internal | Self::Unavailable => "server_error",
        }
    }

    /// The code that stands for a status which another layer gave.
    fn of_status(status: StatusCode) -> Self {
        Self::ALL.into_iter().find(|code| code.status() == status).unwrap_or(if status.is_server_error() {
            Self::Internal
        } else {
            Self::InvalidRequest
        })
    }
}

/// What goes back to a client instead of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// Which row of the table.
    pub code: Code,
    /// What is wrong: names the field, the value, what was expected.
    pub message: String,
    /// When it's worth trying again.
    pub retry_after: Option<Duration>,
    /// The field that is wrong, where a dialect names it.
    pub field: Option<&'static str>,
    /// Whether what is wrong is that there is nothing to work on, which a dialect tells apart.
    pub empty: bool,
}

impl ApiError {
    /// An error of a code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None, field: None, empty: false }
    }

    /// A body, field or parameter that can't be understood.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest, message)
    }

    /// Something that doesn't exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    /// Our own fault. The message goes to the log; the client learns only that it happened.
    pub fn internal(reason: impl std::fmt::Display) -> Self {
        tracing::error!(%reason, "internal error");
        Self::new(Code::Internal, "something went wrong inside the server; its log has more")
    }

    /// Nothing to work on.
    pub fn empty(message: impl Into<String>) -> Self {
        Self { empty: true, ..Self::invalid(message) }
    }

    /// The same, of a field.
    #[must_use]
    pub fn about(self, field: &'static str) -> Self {
        Self { field: Some(field), ..self }
    }

    /// The same, worth trying again after a while.
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl std::error::Error for ApiError {}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error.kind() {
            ErrorKind::NotFound => Self::new(Code::NotFound, message),
            ErrorKind::InvalidInput | ErrorKind::Unsupported => Self::new(Code::InvalidInput, message),
            ErrorKind::TooLarge => Self::new(Code::TooLarge, message),
            ErrorKind::SpaceMismatch => Self::new(Code::Conflict, message),
            ErrorKind::Locked => Self::new(Code::Conflict, message).after(Duration::from_secs(5)),
            ErrorKind::Cancelled => Self::new(Code::Unavailable, "the work was given up"),
            ErrorKind::Damaged => {
                tracing::error!(%message, "damaged storage");
                Self::new(Code::Unavailable, message)
            }
            // Files, disks and what nobody thought of: the client can't help it and needn't know paths.
            _ => Self::internal(message),
        }
    }
}

impl From<crossmodal_engine::StoreError> for ApiError {
    fn from(error: crossmodal_engine::StoreError) -> Self {
        Error::from(error).into()
    }
}

impl From<Overloaded> for ApiError {
    fn from(overloaded: Overloaded) -> Self {
        Self::new(Code::Overloaded, overloaded.to_string()).after(overloaded.retry_after)
    }
}

/// An error as our own API tells it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// A row of the table of errors.
    pub code: Code,
    /// What is wrong, for people.
    pub message: String,
    /// The broad class.
    #[serde(rename = "type")]
    #[schema(example = "invalid_request_error")]
    pub kind: String,
}

/// An error as OpenAI's API tells it.
#[derive(Debug, Serialize, ToSchema)]
pub struct OpenAiError {
    /// What went wrong.
    pub error: OpenAiErrorDetail,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct OpenAiErrorDetail {
    /// What is wrong, for people.
    pub message: String,
    /// The broad class.
    #[serde(rename = "type")]
    #[schema(example = "invalid_request_error")]
    pub kind: String,
    /// The field that is wrong, where that is known.
    pub param: Option<String>,
    /// A row of the table of errors.
    pub code: Code,
}

/// An error as text-embeddings-inference tells it.
#[derive(Debug, Serialize, ToSchema)]
pub struct InferenceError {
    /// What is wrong, for people.
    pub error: String,
    /// `Validation`, `Empty`, `Overloaded`, `Unhealthy` or `Backend`.
    #[schema(example = "Validation")]
    pub error_type: String,
}

/// An error as Cohere's API tells it.
#[derive(Debug, Serialize, ToSchema)]
pub struct CohereError {
    /// What is wrong, for people.
    pub message: String,
}

/// How errors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Our own form.
    Own,
    /// `{error: {message, type, param, code}}`.
    OpenAi,
    /// text-embeddings-inference: `{error, error_type}`.
    TextEmbeddingsInference,
    /// `{message}`.
    Cohere,
}

impl Dialect {
    fn body(self, error: &ApiError) -> Response {
        let (code, message) = (error.code, error.message.clone());
        let kind = code.kind().to_string();
        match self {
            Self::Own => Json(ErrorBody { error: ErrorDetail { code, message, kind } }).into_response(),
            Self::OpenAi => {
                let param = error.field.map(str::to_string);
                Json(OpenAiError { error: OpenAiErrorDetail { message, kind, param, code } }).into_response()
            }
            Self::TextEmbeddingsInference => {
                let kind = match code {
                    Code::Overloaded | Code::RateLimited => "Overloaded",
                    Code::Internal | Code::Timeout => "Backend",
                    Code::Unavailable => "Unhealthy",
                    _ if error.empty => "Empty",
                    _ => "Validation",
                };
                Json(InferenceError { error: message, error_type: kind.into() }).into_response()
            }
            Self::Cohere => Json(CohereError { message }).into_response(),
        }
    }

    /// The status: that of the code, but text-embeddings-inference has another one for what it can read and won't take.
    fn status(self, error: &ApiError) -> StatusCode {
        match (self, error.code) {
            (Self::TextEmbeddingsInference, Code::InvalidRequest | Code::InvalidInput) if !error.empty => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            _ => error.code.status(),
        }
    }

    /// The whole response.
    pub fn response(self, error: ApiError) -> Response {
        let mut response = self.body(&error);
        *response.status_mut() = self.status(&error);
        if let Some(wait) = error.retry_after {
            let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if error.code == Code::Unauthorized {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(error);
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        Dialect::Own.response(self)
    }
}

/// Writes errors as a dialect does: those of handlers, and those of the framework (no such route, another method, a body that is too large).
pub async fn in_dialect(dialect: Dialect, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_string());
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        return retold(dialect.response(error), &response);
    }
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || method == Method::HEAD {
        return response;
    }
    let code = Code::of_status(status);
    let message = match code {
        Code::NotFound => format!("there is no {path}; /docs lists what there is"),
        Code::MethodNotAllowed => format!("{path} doesn't take {method}"),
        Code::TooLarge => "the body is too large".to_string(),
        _ => status.canonical_reason().unwrap_or("failed").to_lowercase(),
    };
    let mut told = retold(dialect.response(ApiError::new(code, message)), &response);
    *told.status_mut() = status;
    told
}

/// Keeps what earlier layers added: request ids, allowances, the methods that there are.
fn retold(mut told: Response, before: &Response) -> Response {
    for (name, value) in before.headers() {
        if *name != header::CONTENT_LENGTH && !told.headers().contains_key(name) {
            told.headers_mut().insert(name.clone(), value.clone());
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_name_and_a_status_of_an_error() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert!(code.status().is_client_error() || code.status().is_server_error());
        }
        assert_eq!(Code::of_status(StatusCode::IM_A_TEAPOT), Code::InvalidRequest);
        assert_eq!(Code::of_status(StatusCode::BAD_GATEWAY), Code::Internal);
    }

    #[test]
    fn waiting_times_are_whole_seconds() {
        let error = ApiError::new(Code::Overloaded, "later").after(Duration::from_millis(1200));
        let response = error.into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()["retry-after"], "2");
    }

    #[test]
    fn every_dialect_has_its_form() {
        let told = |dialect: Dialect, error: ApiError| {
            let response = dialect.response(error);
            let status = response.status().as_u16();
            let body = http_body_util::BodyExt::collect(response.into_body());
            let bytes = futures_util::FutureExt::now_or_never(body).unwrap().unwrap().to_bytes();
            (status, serde_json::from_slice::<serde_json::Value>(&bytes).unwrap())
        };
        let error = || ApiError::invalid("no").about("input");
        let kind = "invalid_request_error";
        assert_eq!(
            told(Dialect::Own, error()),
            (400, serde_json::json!({"error": {"code": "invalid_request", "message": "no", "type": kind}}))
        );
        assert_eq!(
            told(Dialect::OpenAi, error()),
            (
                400,
                serde_json::json!({"error": {"message": "no", "type": kind, "param": "input", "code": "invalid_request"}})
            )
        );
        assert_eq!(
            told(Dialect::TextEmbeddingsInference, error()),
            (422, serde_json::json!({"error": "no", "error_type": "Validation"}))
        );
        assert_eq!(
            told(Dialect::TextEmbeddingsInference, ApiError::empty("none")),
            (400, serde_json::json!({"error": "none", "error_type": "Empty"}))
        );
        assert_eq!(told(Dialect::Cohere, error()), (400, serde_json::json!({"message": "no"})));
    }

    #[test]
    fn internal_errors_keep_paths_to_themselves() {
        let error = Error::Io { path: "/secret/place".into(), source: std::io::Error::other("on fire") };
        let told = ApiError::from(error);
        assert_eq!(told.code, Code::Internal);
        assert!(!told.message.contains("secret"));
    }
}
