//! `/v1/embeddings` as OpenAI has it, with pictures as Jina and Infinity send them.

use axum::extract::State as Shared;
use crossmodal_engine::Modality;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::dialect::{DialectInput, Excess, Reading, check_dimensions};
use super::embed::{EncodingFormat, Vector, embed};
use crate::error::{ApiError, ApiResult, Code, OpenAiError};
use crate::extract::ApiJson;
use crate::inputs::OneOrMany;
use crate::state::Shared as SharedState;

/// Inputs of one request, as OpenAI limits them.
const MOST_INPUTS: usize = 2048;

/// What Infinity's clients send where their user named no model.
const NO_MODEL: &str = "default/not-specified";

/// What is to be embedded. Unknown fields are ignored.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct EmbeddingsRequest {
    /// One input or several. A list of numbers is one text as token ids.
    #[serde(deserialize_with = "DialectInput::read")]
    pub input: OneOrMany<DialectInput>,
    /// The model; the default one where absent.
    pub model: Option<String>,
    /// How vectors are written; `float` where absent.
    #[serde(alias = "embedding_type")]
    pub encoding_format: Option<EncodingFormat>,
    /// The length of vectors; only the model's own, or one that it was trained for. 0 is as good as none.
    #[schema(minimum = 0)]
    pub dimensions: Option<usize>,
    /// What strings are; texts where absent. Of anything else they are data URIs, base64 or addresses.
    #[schema(value_type = Option<String>, example = "image")]
    pub modality: Option<Modality>,
    /// Whether texts that are too long lose their end, which they do where this is absent, or are refused.
    pub truncate: Option<bool>,
    /// Vectors have unit length; false is refused.
    pub normalized: Option<bool>,
    /// True is refused.
    pub late_chunking: Option<bool>,
    /// Ignored.
    #[schema(value_type = Option<String>)]
    #[expect(dead_code, reason = "clients send it, and it changes nothing here")]
    pub user: Option<IgnoredAny>,
}

/// One vector.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EmbeddingObject {
    /// `embedding`.
    #[schema(example = "embedding")]
    pub object: String,
    /// The input's place in the request.
    pub index: usize,
    /// A vector of unit length.
    pub embedding: Vector,
}

/// What it cost.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct TokenUsage {
    /// Tokens of all texts.
    pub prompt_tokens: usize,
    /// The same.
    pub total_tokens: usize,
}

/// Vectors, in the order of the inputs.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EmbeddingsAnswer {
    /// `list`.
    #[schema(example = "list")]
    pub object: String,
    /// The vectors.
    pub data: Vec<EmbeddingObject>,
    /// The model.
    pub model: String,
    /// What it cost.
    pub usage: TokenUsage,
}

impl EmbeddingsRequest {
    /// The inputs, where nothing is asked for that isn't done.
    fn items(&self) -> ApiResult<Vec<DialectInput>> {
        if self.normalized == Some(false) {
            let message = "vectors have unit length here; /v1/embed gives others with \"normalize\": false";
            return Err(ApiError::invalid(message).about("normalized"));
        }
        if self.late_chunking == Some(true) {
            return Err(ApiError::invalid("late chunking is not supported").about("late_chunking"));
        }
        let items = self.input.clone().into_vec();
        match items.len() {
            0 => Err(ApiError::empty("there are no inputs").about("input")),
            1..=MOST_INPUTS => Ok(items),
            more => Err(ApiError::invalid(format!("{more} inputs, at most {MOST_INPUTS} are taken")).about("input")),
        }
    }
}

/// Says of what is wrong with the inputs that it is them.
fn of_the_input(error: ApiError) -> ApiError {
    match error.code {
        Code::InvalidRequest | Code::InvalidInput | Code::TooLarge => error.about("input"),
        _ => error,
    }
}

/// Embeds texts, token ids, and pictures, as OpenAI's API embeds texts.
///
/// `input` is a text, a list of texts, token ids, a list of such, or a list of objects with one key each, `text` or `image`; lists may be mixed.
/// With `modality: "image"` strings are pictures: data URIs, base64, or (with `--allow-fetch`) addresses.
#[utoipa::path(
    post, path = "/v1/embeddings", operation_id = "openai_embeddings", tag = "Dialects", request_body = EmbeddingsRequest,
    responses(
        (status = 200, description = "Vectors", body = EmbeddingsAnswer),
        (status = "4XX", description = "The request can't be answered", body = OpenAiError),
        (status = "5XX", description = "The server can't answer", body = OpenAiError)
    )
)]
pub async fn embeddings_route(
    Shared(state): Shared<SharedState>,
    ApiJson(request): ApiJson<EmbeddingsRequest>,
) -> ApiResult<ApiJson<EmbeddingsAnswer>> {
    let items = request.items()?;
    let name = request.model.as_deref().filter(|name| *name != NO_MODEL);
    let served = state.models.get(name).map_err(|error| error.about("model"))?.clone();
    let dimensions = request.dimensions.filter(|dimensions| *dimensions > 0);
    check_dimensions(&served, dimensions).map_err(|error| error.about("dimensions"))?;
    let reading = Reading {
        strings: request.modality.unwrap_or(Modality::Text),
        excess: if request.truncate == Some(false) { Excess::Refuse } else { Excess::CutEnd },
        dimensions,
    };
    let own = served.clone();
    let embedded = state
        .run_model(&served, items.len(), move |state, model| {
            embed(model.as_ref(), &reading.inputs(state, &own, model.as_ref(), &items)?)
        })
        .await
        .map_err(of_the_input)?;
    let format = request.encoding_format.unwrap_or_default();
    let objects = embedded.embeddings.into_iter().enumerate().map(|(index, embedding)| EmbeddingObject {
        object: "embedding".into(),
        index,
        embedding: Vector::new(embedding.unit, format),
    });
    Ok(ApiJson(EmbeddingsAnswer {
        object: "list".into(),
        data: objects.collect(),
        model: served.id.clone(),
        usage: TokenUsage { prompt_tokens: embedded.tokens, total_tokens: embedded.tokens },
    }))
}
