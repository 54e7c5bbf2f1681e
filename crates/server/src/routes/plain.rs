//! Three plain endpoints: `/embed/text`, `/embed/image`, `/similarité` with its ASCII twin `/similarity`.
//!
//! Unlike all others they return vectors as the model makes them, un-normalised, and the model's scaled logit.

use axum::extract::State as Shared;
use crossmodal_engine::{Input, Modality};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Errors;
use super::embed::embed;
use super::text_embeddings::{SentenceSimilarityRequest, sentence_similarity};
use crate::error::{ApiError, ApiResult, ErrorBody, InferenceError};
use crate::extract::{ApiJson, Body, Form};
use crate::inputs;
use crate::state::Shared as SharedState;

/// A text to embed.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct PlainText {
    /// The text.
    pub text: String,
}

/// A picture to embed.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes a form, which is read part by part")]
pub struct PlainImage {
    /// The picture file.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
}

/// A text and a picture to compare.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes a form, which is read part by part")]
pub struct PlainPair {
    /// The text, as it is or as a JSON string, or `{"text": ...}`.
    text: String,
    /// The picture file.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
}

/// A vector as the model makes it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PlainEmbedding {
    /// One row.
    pub embedding: Vec<Vec<f32>>,
}

/// The model's scaled logit.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PlainSimilarity {
    /// The cosine times the model's scale, plus its bias.
    pub similarity: f32,
}

/// The same in French.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PlainSimilarityFr {
    /// The cosine times the model's scale, plus its bias.
    #[serde(rename = "similarité")]
    pub similarity: f32,
}

async fn native(state: &SharedState, input: Input) -> ApiResult<ApiJson<PlainEmbedding>> {
    let served = state.models.get(None)?.clone();
    served.check_modality(input.modality)?;
    let embedding = state
        .run_model(&served, 1, move |_, model| {
            let mut embedded = embed(model.as_ref(), &[input])?.embeddings;
            Ok(embedded.pop().map(|embedding| embedding.native).unwrap_or_default())
        })
        .await?;
    Ok(ApiJson(PlainEmbedding { embedding: vec![embedding] }))
}

/// Embeds a text with the default model, un-normalised.
#[utoipa::path(
    post, path = "/embed/text", operation_id = "plain_text", tag = "Plain", request_body = PlainText,
    responses((status = 200, description = "The vector", body = PlainEmbedding), Errors)
)]
pub async fn text_route(
    Shared(state): Shared<SharedState>,
    ApiJson(request): ApiJson<PlainText>,
) -> ApiResult<ApiJson<PlainEmbedding>> {
    native(&state, inputs::text_input(&request.text)?).await
}

/// Embeds a picture with the default model, un-normalised.
#[utoipa::path(
    post, path = "/embed/image", operation_id = "plain_image", tag = "Plain", request_body(content = PlainImage, content_type = "multipart/form-data"),
    responses((status = 200, description = "The vector", body = PlainEmbedding), Errors)
)]
pub async fn image_route(Shared(state): Shared<SharedState>, form: Form) -> ApiResult<ApiJson<PlainEmbedding>> {
    native(&state, file_of(&form)?).await
}

fn file_of(form: &Form) -> ApiResult<Input> {
    let part = form.0.iter().find(|part| part.name == "file");
    let part = part.ok_or_else(|| ApiError::invalid("there is no part \"file\" with a picture"))?;
    Ok(Input::image(part.bytes.to_vec()))
}

/// The text of a form: a JSON string, an object with a string `text`, or, where it is no such JSON, the text as it is.
fn text_of(form: &Form) -> ApiResult<Input> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        Text(String),
        Object { text: String },
    }
    let part = form.0.iter().find(|part| part.name == "text");
    let part = part.ok_or_else(|| ApiError::invalid("there is no part \"text\""))?;
    let plain = part.text()?;
    let looks_like_json = plain.trim_start().starts_with(['"', '{']);
    match serde_json::from_str::<Given>(plain) {
        Ok(Given::Text(text) | Given::Object { text }) if looks_like_json => inputs::text_input(&text),
        _ => inputs::text_input(plain),
    }
}

/// The model's scaled logit for the text and the picture of a form.
async fn logit(state: &SharedState, form: &Form) -> ApiResult<f32> {
    let (text, picture) = (text_of(form)?, file_of(form)?);
    let served = state.models.get(None)?.clone();
    served.check_modality(Modality::Image)?;
    let name = served.id.clone();
    state
        .run_model(&served, 2, move |_, model| {
            let compared = crossmodal_engine::similarity(model.as_ref(), &[picture], &[text])?;
            let logit = compared.logits.and_then(|logits| logits.first()?.first().copied());
            logit.ok_or_else(|| ApiError::invalid(format!("{name} defines no logits between pictures and texts")))
        })
        .await
}

/// The scaled logit of a text and a picture; the same as `/similarity`, with a French answer.
#[utoipa::path(
    post, path = "/similarité", operation_id = "plain_similarity_fr", tag = "Plain", request_body(content = PlainPair, content_type = "multipart/form-data"),
    responses((status = 200, description = "The logit", body = PlainSimilarityFr), Errors)
)]
pub async fn similarity_fr_route(
    Shared(state): Shared<SharedState>,
    form: Form,
) -> ApiResult<ApiJson<PlainSimilarityFr>> {
    Ok(ApiJson(PlainSimilarityFr { similarity: logit(&state, &form).await? }))
}

/// The answers of `/similarity`.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
pub enum SimilarityAnswers {
    /// To a form: the model's scaled logit.
    Plain(PlainSimilarity),
    /// To JSON: cosines.
    Cosines(Vec<f32>),
}

/// An error in our form, or in that of text-embeddings-inference.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes answers")]
pub enum EitherError {
    /// Ours.
    Own(ErrorBody),
    /// The other one.
    Inference(InferenceError),
}

/// The scaled logit of a text and a picture sent as a form.
///
/// JSON makes it the route of text-embeddings-inference: cosines of a sentence with others, and errors in that server's form.
#[utoipa::path(
    post, path = "/similarity", operation_id = "plain_similarity", tag = "Plain",
    request_body(content((PlainPair = "multipart/form-data"), (SentenceSimilarityRequest = "application/json"))),
    responses(
        (status = 200, description = "The logit, or cosines", body = SimilarityAnswers),
        (status = "4XX", description = "It can't be answered; in the form of whoever asked", body = EitherError),
        (status = "5XX", description = "The server can't answer", body = EitherError)
    )
)]
pub async fn similarity_route(
    Shared(state): Shared<SharedState>,
    body: Body<SentenceSimilarityRequest>,
) -> ApiResult<ApiJson<SimilarityAnswers>> {
    let answer = match body {
        Body::Form(form) => SimilarityAnswers::Plain(PlainSimilarity { similarity: logit(&state, &form).await? }),
        Body::Json(request) => SimilarityAnswers::Cosines(sentence_similarity(&state, request).await?.0),
    };
    Ok(ApiJson(answer))
}
