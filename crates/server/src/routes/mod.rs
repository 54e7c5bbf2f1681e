//! All routes, what stands before each of them, and their description.

mod cohere;
mod collections;
mod dialect;
mod embed;
mod items;
mod jobs;
mod map;
mod openai;
mod page;
mod plain;
mod search;
mod service;
mod text_embeddings;

use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request};
use axum::http::Method;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tower_http::cors::CorsLayer;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, OpenApi as Description, SecurityRequirement};
use utoipa::{IntoResponses, Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::access;
use crate::body_budget::within_budget;
use crate::error::{ApiError, ErrorBody, in_dialect};
use crate::linger::linger;
use crate::safety::origin::Origins;
use crate::state::Shared;

/// What any route may answer instead.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "describes answers")]
pub(crate) enum Errors {
    /// The request or an input can't be understood: `invalid_request`, `invalid_input`.
    #[response(status = 400)]
    BadRequest(ErrorBody),
    /// No key, or an unknown one: `unauthorized`.
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// The key lacks the scope, or something isn't allowed here: `forbidden`.
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// There is no such thing: `not_found`.
    #[response(status = 404)]
    NotFound(ErrorBody),
    /// It took too long: `timeout`.
    #[response(status = 408)]
    Timeout(ErrorBody),
    /// It can't be done as things are: `conflict`.
    #[response(status = 409)]
    Conflict(ErrorBody),
    /// Beyond a limit: `too_large`.
    #[response(status = 413)]
    TooLarge(ErrorBody),
    /// Another content type was expected: `unsupported_media_type`.
    #[response(status = 415)]
    UnsupportedMediaType(ErrorBody),
    /// Try again after `Retry-After` seconds: `overloaded`, `rate_limited`.
    #[response(status = 429)]
    TooManyRequests(ErrorBody),
    /// Our fault: `internal`.
    #[response(status = 500)]
    Internal(ErrorBody),
    /// Starting, stopping, or the storage is damaged: `unavailable`.
    #[response(status = 503)]
    Unavailable(ErrorBody),
}

/// What the description begins with.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "crossmodal",
        description = "Text, images and more in one vector space: embed, compare, classify, index and search. Vectors have unit length except where it says otherwise.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "Models", description = "What models do without a collection"),
        (name = "Collections", description = "Collections and searches"),
        (name = "Items", description = "What is in a collection"),
        (name = "Jobs", description = "Long work"),
        (name = "Dialects", description = "Routes of other servers, for their clients: OpenAI (with pictures as Jina and Infinity send them), text-embeddings-inference, Cohere; errors in their forms"),
        (name = "Plain", description = "Three plain endpoints; vectors as the model makes them"),
        (name = "Service", description = "Health and metrics")
    ),
    // Routes that axum can't be told by their description: see `router`.
    paths(service::model_route, plain::similarity_fr_route),
    components(schemas(ErrorBody)),
    modifiers(&Bearer)
)]
struct Head;

/// Names the one way to show a key.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, description: &mut Description) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An API key")).build();
        let components = description.components.get_or_insert_with(Components::new);
        components.add_security_scheme("key", SecurityScheme::Http(scheme));
        // With a key or, where the server has none, without.
        let anonymous = SecurityRequirement::default();
        description.security = Some(vec![SecurityRequirement::new("key", Vec::<String>::new()), anonymous]);
    }
}

/// Routes that a key with the scope `read` opens, and their description.
fn readable() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(embed::embed_route))
        .routes(routes!(embed::similarity_route))
        .routes(routes!(embed::classify_route))
        .routes(routes!(service::models_route))
        .routes(routes!(service::version_route))
        .routes(routes!(service::metrics_route))
        .routes(routes!(collections::list_route))
        .routes(routes!(collections::get_route))
        .routes(routes!(search::search_route))
        .routes(routes!(items::list_route))
        .routes(routes!(items::get_route))
        .routes(routes!(items::thumbnail_route))
        .routes(routes!(items::file_route))
        .routes(routes!(map::map_route))
        .routes(routes!(jobs::list_route))
        .routes(routes!(jobs::get_route))
        .routes(routes!(jobs::events_route))
        .routes(routes!(plain::text_route))
        .routes(routes!(plain::image_route))
        .routes(routes!(plain::similarity_route))
        .routes(routes!(openai::embeddings_route))
        .routes(routes!(text_embeddings::embed_route))
        .routes(routes!(text_embeddings::info_route))
        .routes(routes!(text_embeddings::tokenize_route))
        .routes(routes!(text_embeddings::rerank_route))
        .routes(routes!(cohere::embed_route))
        .routes(routes!(cohere::rerank_route))
        .routes(routes!(cohere::rerank_v1_route))
}

/// Routes that a key needs the scope `write` for.
fn writable() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(collections::create_route))
        .routes(routes!(collections::delete_route))
        .routes(routes!(items::add_route))
        .routes(routes!(items::delete_route))
        .routes(routes!(jobs::cancel_route))
}

/// Routes that anybody may see.
fn open() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(service::live_route))
        .routes(routes!(service::ready_route))
        .routes(routes!(service::health_route))
}

/// The whole application.
pub fn router(state: &Shared) -> Router {
    let guarded = |scope| from_fn_with_state((state.clone(), scope), access::guard);
    let readable = readable().layer(guarded(access::Scope::Read));
    let writable = writable().layer(guarded(access::Scope::Write));
    let description = OpenApiRouter::with_openapi(Head::openapi()).merge(readable).merge(writable).merge(open());
    let (router, json) = description.split_for_parts();
    // Ids of models may have slashes, and names with accents reach us in several spellings: what descriptions can't say.
    let more = Router::new()
        .route("/v1/models/{*id}", get(service::model_route))
        // Infinity, and text-embeddings-inference besides, serve it without a version.
        .route("/embeddings", post(openai::embeddings_route))
        .route("/similarit%C3%A9", post(plain::similarity_fr_route))
        .route("/similarit%c3%a9", post(plain::similarity_fr_route))
        .route("/similarité", post(plain::similarity_fr_route))
        .route("/similarite%CC%81", post(plain::similarity_fr_route))
        .layer(guarded(access::Scope::Read));
    let pages = Router::new()
        .route("/openapi.json", get(move || async move { Json(json) }))
        .merge(SwaggerUi::new("/docs").config(Config::from("/openapi.json").try_it_out_enabled(true)))
        .merge(page::router());
    router
        .merge(more)
        .merge(pages)
        .fallback(no_such_route)
        .layer(DefaultBodyLimit::max(state.max_body))
        .layer(from_fn_with_state(state.bodies.clone(), within_budget))
        .layer(from_fn_with_state(state.clone(), access::timeout))
        .layer(from_fn(in_its_dialect))
        .layer(cors(&state.origins))
        .layer(from_fn_with_state(state.clone(), access::account))
        .layer(from_fn(linger))
        .with_state(state.clone())
}

/// What browsers are told about pages of other sites: nothing, unless some were named.
fn cors(origins: &Origins) -> CorsLayer {
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, HeaderName::from_static("x-api-key")])
        .expose_headers([RETRY_AFTER, HeaderName::from_static("x-request-id")])
        .max_age(Duration::from_secs(600));
    if origins.any() {
        return layer.allow_origin(tower_http::cors::Any);
    }
    let allowed: Vec<HeaderValue> = origins.allowed().iter().filter_map(|origin| origin.parse().ok()).collect();
    if allowed.is_empty() { CorsLayer::new() } else { layer.allow_origin(allowed) }
}

/// Writes errors as the clients of the route expect them.
async fn in_its_dialect(request: Request, next: Next) -> Response {
    in_dialect(dialect::of_request(&request), request, next).await
}

async fn no_such_route(request: Request) -> impl IntoResponse {
    ApiError::not_found(format!("there is no {}; /docs lists what there is", request.uri().path()))
}
