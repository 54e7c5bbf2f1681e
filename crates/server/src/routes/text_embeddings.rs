//! The routes of text-embeddings-inference: `/embed`, `/info`, `/tokenize`, `/similarity`, `/rerank`.

use axum::extract::State as Shared;
use crossmodal_engine::{Modality, Precision, Token};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::dialect::{DialectInput, Excess, Reading, at_place, check_dimensions};
use super::embed::embed;
use crate::error::{ApiError, ApiResult, Code, InferenceError};
use crate::extract::ApiJson;
use crate::inputs::{self, OneOrMany};
use crate::state::{Shared as SharedState, State};

/// The side of a text that is too long which gets lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub enum TruncationDirection {
    /// The beginning.
    #[serde(alias = "left")]
    Left,
    /// The end.
    #[default]
    #[serde(alias = "right")]
    Right,
}

/// What becomes of texts that are too long. `truncate` is true where absent, as that server has it with `--auto-truncate`.
fn excess(truncate: Option<bool>, direction: Option<TruncationDirection>) -> Excess {
    match (truncate, direction.unwrap_or_default()) {
        (Some(false), _) => Excess::Refuse,
        (_, TruncationDirection::Left) => Excess::CutStart,
        (_, TruncationDirection::Right) => Excess::CutEnd,
    }
}

/// The models here have no prompts, so that a name of one can only be a mistake.
fn check_prompt(name: Option<&str>) -> ApiResult<()> {
    match name {
        None => Ok(()),
        Some(name) => Err(ApiError::invalid(format!("`prompt_name` is {name:?}, but the model has no prompts"))),
    }
}

/// Refuses more inputs than one request may have, and none at all.
fn check_count(state: &State, inputs: usize) -> ApiResult<()> {
    if inputs == 0 {
        return Err(ApiError::empty("`inputs` cannot be empty"));
    }
    if inputs > state.max_inputs {
        let message = format!("batch size {inputs} > maximum allowed batch size {}", state.max_inputs);
        return Err(ApiError::new(Code::TooLarge, message));
    }
    Ok(())
}

/// What is to be embedded. Unknown fields are ignored.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct InferenceEmbedRequest {
    /// One input or several. A list of numbers is one text as token ids.
    #[serde(deserialize_with = "DialectInput::read")]
    pub inputs: OneOrMany<DialectInput>,
    /// Whether texts that are too long are cut, which they are where this is absent, or refused.
    pub truncate: Option<bool>,
    /// Which side they lose; the end where absent.
    pub truncation_direction: Option<TruncationDirection>,
    /// Refused: the models here have no prompts.
    pub prompt_name: Option<String>,
    /// Whether vectors get unit length; true where absent.
    pub normalize: Option<bool>,
    /// The length of vectors; only the model's own, or one that it was trained for.
    pub dimensions: Option<usize>,
}

/// Embeds texts with the default model, as text-embeddings-inference does. Objects such as `{"image": "data:..."}` may stand among the texts.
#[utoipa::path(
    post, path = "/embed", operation_id = "inference_embed", tag = "Dialects", request_body = InferenceEmbedRequest,
    responses(
        (status = 200, description = "One vector for each input", body = Vec<Vec<f32>>),
        (status = "4XX", description = "The request can't be answered", body = InferenceError),
        (status = "5XX", description = "The server can't answer", body = InferenceError)
    )
)]
pub async fn embed_route(
    Shared(state): Shared<SharedState>,
    ApiJson(request): ApiJson<InferenceEmbedRequest>,
) -> ApiResult<ApiJson<Vec<Vec<f32>>>> {
    check_prompt(request.prompt_name.as_deref())?;
    let served = state.models.get(None)?.clone();
    check_dimensions(&served, request.dimensions)?;
    let reading = Reading {
        strings: Modality::Text,
        excess: excess(request.truncate, request.truncation_direction),
        dimensions: request.dimensions,
    };
    let (items, normalize) = (request.inputs.into_vec(), request.normalize.unwrap_or(true));
    check_count(&state, items.len())?;
    let own = served.clone();
    let embedded = state
        .run_model(&served, items.len(), move |state, model| {
            embed(model.as_ref(), &reading.inputs(state, &own, model.as_ref(), &items)?)
        })
        .await?;
    let vectors = embedded.embeddings.into_iter();
    Ok(ApiJson(vectors.map(|embedding| if normalize { embedding.unit } else { embedding.native }).collect()))
}

/// What the model is for.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ModelType {
    /// It embeds.
    pub embedding: Pooling,
}

/// How a model makes one vector of many.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Pooling {
    /// `last_token`: texts are taken at their end token.
    #[schema(example = "last_token")]
    pub pooling: String,
}

/// What runs here, in the terms of text-embeddings-inference.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct InferenceInfo {
    /// The default model.
    pub model_id: String,
    /// Null: models are told apart by their vector space, which `/v1/models` shows.
    pub model_sha: Option<String>,
    /// The arithmetic it runs in.
    #[schema(example = "float32")]
    pub model_dtype: String,
    /// The name it is asked for by.
    pub served_model_name: String,
    /// What the model is for.
    pub model_type: ModelType,
    /// Requests that are worked on at once.
    pub max_concurrent_requests: usize,
    /// Tokens of a text, begin and end tokens among them; 0 where the model doesn't tell.
    pub max_input_length: usize,
    /// Tokens or patches that are computed together.
    pub max_batch_tokens: usize,
    /// Inputs that are computed together.
    pub max_batch_requests: Option<usize>,
    /// Inputs of one request.
    pub max_client_batch_size: usize,
    /// Whether texts that are too long are cut unless a request says otherwise.
    pub auto_truncate: bool,
    /// Threads that tokenise.
    pub tokenization_workers: usize,
    /// The version of this server.
    pub version: String,
    /// Null.
    pub sha: Option<String>,
    /// Null.
    pub docker_label: Option<String>,
}

/// Tells of the default model and of limits, as text-embeddings-inference does.
#[utoipa::path(
    get, path = "/info", operation_id = "inference_info", tag = "Dialects",
    responses(
        (status = 200, description = "The model and the limits", body = InferenceInfo),
        (status = "4XX", description = "The request can't be answered", body = InferenceError),
        (status = "5XX", description = "The server can't answer", body = InferenceError)
    )
)]
pub async fn info_route(Shared(state): Shared<SharedState>) -> ApiResult<ApiJson<InferenceInfo>> {
    let served = state.models.get(None)?;
    let info = served.model().info();
    let parts = served.model().tokenize("").map_err(crossmodal_engine::Error::from)?;
    let limits = served.batcher.limits();
    let model_dtype = match info.precision {
        Precision::Fp32 => "float32",
        other => other.as_str(),
    };
    Ok(ApiJson(InferenceInfo {
        model_id: info.name.clone(),
        model_sha: None,
        model_dtype: model_dtype.into(),
        served_model_name: served.id.clone(),
        model_type: ModelType { embedding: Pooling { pooling: "last_token".into() } },
        max_concurrent_requests: State::PLACES,
        max_input_length: parts.map_or(0, |parts| parts.limit),
        max_batch_tokens: limits.cost,
        max_batch_requests: Some(limits.inputs),
        max_client_batch_size: state.max_inputs,
        auto_truncate: true,
        tokenization_workers: rayon::current_num_threads(),
        version: env!("CARGO_PKG_VERSION").into(),
        sha: None,
        docker_label: None,
    }))
}

/// What is to be taken apart.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct TokenizeRequest {
    /// One text or several.
    pub inputs: OneOrMany<String>,
    /// Whether begin and end tokens are shown; true where absent.
    pub add_special_tokens: Option<bool>,
    /// Refused: the models here have no prompts.
    pub prompt_name: Option<String>,
}

/// One token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct TokenView {
    /// Its id.
    pub id: u32,
    /// What it stands for.
    pub text: String,
    /// Whether the tokenizer put it around the text.
    pub special: bool,
    /// The first byte of the text that it covers; null for special tokens, and where texts are cleaned before they are tokenised.
    pub start: Option<usize>,
    /// One past the last.
    pub stop: Option<usize>,
}

impl From<Token> for TokenView {
    fn from(token: Token) -> Self {
        let Token { id, text, special, bytes } = token;
        Self { id, text, special, start: bytes.map(|(start, _)| start), stop: bytes.map(|(_, stop)| stop) }
    }
}

/// Shows the tokens of texts, none left away, as the default model's tokenizer makes them.
#[utoipa::path(
    post, path = "/tokenize", operation_id = "inference_tokenize", tag = "Dialects", request_body = TokenizeRequest,
    responses(
        (status = 200, description = "The tokens of each text", body = Vec<Vec<TokenView>>),
        (status = "4XX", description = "The request can't be answered", body = InferenceError),
        (status = "5XX", description = "The server can't answer", body = InferenceError)
    )
)]
pub async fn tokenize_route(
    Shared(state): Shared<SharedState>,
    ApiJson(request): ApiJson<TokenizeRequest>,
) -> ApiResult<ApiJson<Vec<Vec<TokenView>>>> {
    check_prompt(request.prompt_name.as_deref())?;
    let served = state.models.get(None)?.clone();
    let (texts, special) = (request.inputs.into_vec(), request.add_special_tokens.unwrap_or(true));
    check_count(&state, texts.len())?;
    let tokens = move |text: &String| {
        inputs::text_input(text)?;
        let parts = served.model().tokenize(text).map_err(crossmodal_engine::Error::from)?;
        let parts =
            parts.ok_or_else(|| ApiError::new(Code::InvalidInput, format!("{} has no tokenizer", served.id)))?;
        let shown = parts.tokens.into_iter().filter(|token| special || !token.special);
        Ok(shown.map(TokenView::from).collect())
    };
    let all = state.run(move |_| texts.iter().map(tokens).collect::<ApiResult<Vec<_>>>()).await?;
    Ok(ApiJson(all))
}

/// A sentence and others to compare it with.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct SentenceSimilarityRequest {
    /// The sentences.
    pub inputs: Sentences,
    /// What becomes of long ones.
    pub parameters: Option<SentenceParameters>,
}

/// A sentence and others to compare it with.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct Sentences {
    /// The one.
    pub source_sentence: String,
    /// The others.
    pub sentences: Vec<String>,
}

/// What becomes of long sentences.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct SentenceParameters {
    /// As for `/embed`.
    pub truncate: Option<bool>,
    /// As for `/embed`.
    pub truncation_direction: Option<TruncationDirection>,
    /// Refused: the models here have no prompts.
    pub prompt_name: Option<String>,
}

/// Cosines of one sentence with others. Answers `/similarity` where its body is JSON; the plain endpoint of that path takes a form.
///
/// # Errors
/// No sentences, too many, one that is empty, or too long and not to be cut.
pub(super) async fn sentence_similarity(
    state: &SharedState,
    request: SentenceSimilarityRequest,
) -> ApiResult<ApiJson<Vec<f32>>> {
    let SentenceParameters { truncate, truncation_direction, prompt_name } = request.parameters.unwrap_or_default();
    check_prompt(prompt_name.as_deref())?;
    let Sentences { source_sentence, sentences } = request.inputs;
    if sentences.is_empty() {
        return Err(ApiError::empty("`inputs.sentences` cannot be empty"));
    }
    check_count(state, sentences.len() + 1)?;
    let served = state.models.get(None)?.clone();
    let excess = excess(truncate, truncation_direction);
    let cosines = state
        .run_model(&served, sentences.len() + 1, move |_, model| {
            let source = excess.text(model.as_ref(), &source_sentence)?;
            let count = sentences.len();
            let others = sentences.iter().enumerate().map(|(place, sentence)| {
                excess.text(model.as_ref(), sentence).map_err(|error| at_place(error, place, count))
            });
            let others = others.collect::<ApiResult<Vec<_>>>()?;
            let mut compared = crossmodal_engine::similarity(model.as_ref(), &[source], &others)?;
            Ok(compared.cosines.pop().unwrap_or_default())
        })
        .await?;
    Ok(ApiJson(cosines))
}

/// What every route for reranking answers: there is no reranker to ask.
pub(super) fn no_reranker() -> ApiError {
    ApiError::new(
        Code::NotImplemented,
        "this server has no reranker; compare vectors (/v1/similarity), or search with \"mode\": \"hybrid\"",
    )
}

/// Answers 501 until there is a reranker.
#[utoipa::path(
    post, path = "/rerank", operation_id = "inference_rerank", tag = "Dialects",
    responses((status = 501, description = "There is no reranker yet", body = InferenceError))
)]
pub async fn rerank_route() -> ApiError {
    no_reranker()
}
