//! `/v1/embed`, `/v1/similarity`, `/v1/classify`: what models do without a collection.

use axum::extract::State as Shared;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crossmodal_engine::{CancelToken, Embedder, Embedding, Input, Modality};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Errors;
use crate::error::{ApiError, ApiResult, Code};
use crate::extract::{ApiJson, Body, Form};
use crate::inputs::{self, InputValue, OneOrMany};
use crate::models::ServedModel;
use crate::state::{Shared as SharedState, State};

/// How vectors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncodingFormat {
    /// Numbers.
    #[default]
    Float,
    /// Base64 of little-endian 32-bit numbers: exact, and a third of the size.
    Base64,
}

/// A vector in one of the two forms.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Vector {
    /// Numbers.
    Float(Vec<f32>),
    /// Base64 of little-endian 32-bit numbers.
    Base64(String),
}

impl Vector {
    /// A vector in a form.
    pub fn new(values: Vec<f32>, format: EncodingFormat) -> Self {
        match format {
            EncodingFormat::Float => Self::Float(values),
            EncodingFormat::Base64 => {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                Self::Base64(STANDARD.encode(bytes))
            }
        }
    }
}

/// What is to be embedded.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EmbedRequest {
    /// One input or several.
    pub inputs: OneOrMany<InputValue>,
    /// The model; the default one where absent.
    pub model: Option<String>,
    /// Whether vectors get unit length; true where absent.
    pub normalize: Option<bool>,
    /// How vectors are written; `float` where absent.
    pub encoding_format: Option<EncodingFormat>,
}

/// The same as a form: parts named after modalities, in order.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes a form, which is read part by part")]
pub struct EmbedForm {
    /// Texts.
    text: Vec<String>,
    /// Picture files.
    #[schema(value_type = Vec<String>, format = Binary)]
    image: Vec<Vec<u8>>,
    /// The model.
    model: Option<String>,
    /// Whether vectors get unit length.
    normalize: Option<bool>,
    /// How vectors are written.
    encoding_format: Option<EncodingFormat>,
}

/// One embedded input.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EmbeddingView {
    /// Its place in the request.
    pub index: usize,
    /// What it was.
    #[schema(value_type = String, example = "text")]
    pub modality: Modality,
    /// Its vector.
    pub embedding: Vector,
    /// Whether it was longer than the model reads, and was cut.
    pub truncated: bool,
}

/// What it cost.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct Usage {
    /// Tokens of all texts.
    pub tokens: usize,
}

/// Vectors.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EmbedAnswer {
    /// The model.
    pub model: String,
    /// The id of its vector space.
    pub space: String,
    /// Length of its vectors.
    pub dimension: usize,
    /// The arithmetic it runs in.
    pub precision: String,
    /// The vectors, in the order of the inputs.
    pub embeddings: Vec<EmbeddingView>,
    /// What it cost.
    pub usage: Usage,
}

/// Vectors with what they cost.
#[derive(Debug)]
pub struct Embedded {
    /// Of each input, in order.
    pub embeddings: Vec<Embedding>,
    /// The modality of each.
    pub modalities: Vec<Modality>,
    /// Tokens of all texts.
    pub tokens: usize,
}

/// Embeds inputs, counting tokens. Pictures are prepared side by side.
///
/// # Errors
/// The first input that can't be embedded, named by its place.
pub fn embed(model: &dyn Embedder, inputs: &[Input]) -> ApiResult<Embedded> {
    let prepared: Vec<_> = inputs.par_iter().map(|input| model.prepare(input)).collect();
    let mut ready = Vec::with_capacity(inputs.len());
    for (place, prepared) in prepared.into_iter().enumerate() {
        let named = |error: crossmodal_engine::Error| {
            let error = ApiError::from(error);
            match inputs.len() {
                1 => error,
                _ => ApiError { message: format!("input {place}: {}", error.message), ..error },
            }
        };
        ready.push(prepared.map_err(|error| named(error.into()))?);
    }
    let texts = ready.iter().filter(|prepared| prepared.modality == Modality::Text);
    let tokens = texts.map(|prepared| prepared.cost).sum();
    let modalities = ready.iter().map(|prepared| prepared.modality).collect();
    let embeddings = model.encode(ready, &CancelToken::new()).map_err(crossmodal_engine::Error::from)?;
    Ok(Embedded { embeddings, modalities, tokens })
}

struct Asked {
    inputs: Vec<Input>,
    model: Option<String>,
    normalize: bool,
    format: EncodingFormat,
}

impl Asked {
    /// Of a form. Addresses aren't fetched: a form carries bytes.
    fn of_form(form: &Form) -> ApiResult<Self> {
        let mut asked = Self { inputs: Vec::new(), model: None, normalize: true, format: EncodingFormat::default() };
        for part in &form.0 {
            match part.name.as_str() {
                "model" => asked.model = Some(part.text()?.to_string()),
                "normalize" => asked.normalize = part.json()?,
                "encoding_format" => {
                    asked.format = match part.text()?.trim() {
                        "float" => EncodingFormat::Float,
                        "base64" => EncodingFormat::Base64,
                        other => {
                            let message =
                                format!("the part \"encoding_format\" is {other:?}, expected float or base64");
                            return Err(ApiError::invalid(message));
                        }
                    }
                }
                name => match inputs::of_part(part)? {
                    Some(input) => asked.inputs.push(input),
                    None => return Err(unknown_part(name)),
                },
            }
        }
        Ok(asked)
    }
}

/// A part of a form that nobody asked for.
pub(super) fn unknown_part(name: &str) -> ApiError {
    ApiError::invalid(format!("unknown part {name:?}; inputs are parts named text, image, ..."))
}

/// Refuses requests without inputs.
pub(super) fn check_inputs(inputs: usize) -> ApiResult<()> {
    if inputs == 0 { Err(ApiError::invalid("there are no inputs")) } else { Ok(()) }
}

/// Makes inputs of values, having asked whether the model embeds such.
///
/// # Errors
/// A modality that the model lacks, a value that can't be read.
pub(super) fn resolve(state: &State, model: &ServedModel, values: &[InputValue]) -> ApiResult<Vec<Input>> {
    values.iter().try_for_each(|value| model.check_modality(value.parts().0))?;
    values.iter().map(|value| value.resolve(state.fetcher.as_ref())).collect()
}

/// Embeds texts, pictures and whatever else the model embeds.
#[utoipa::path(
    post, path = "/v1/embed", operation_id = "embed", tag = "Models",
    request_body(content((EmbedRequest = "application/json"), (EmbedForm = "multipart/form-data"))),
    responses((status = 200, description = "Vectors", body = EmbedAnswer), Errors)
)]
pub async fn embed_route(
    Shared(state): Shared<SharedState>,
    body: Body<EmbedRequest>,
) -> ApiResult<ApiJson<EmbedAnswer>> {
    let (asked, values) = match body {
        Body::Form(form) => (Asked::of_form(&form)?, Vec::new()),
        Body::Json(request) => {
            let EmbedRequest { inputs, model, normalize, encoding_format } = request;
            let (normalize, format) = (normalize.unwrap_or(true), encoding_format.unwrap_or_default());
            (Asked { inputs: Vec::new(), model, normalize, format }, inputs.into_vec())
        }
    };
    let served = state.models.get(asked.model.as_deref())?.clone();
    let count = asked.inputs.len() + values.len();
    check_inputs(count)?;
    let Asked { inputs, normalize, format, .. } = asked;
    let own = served.clone();
    let embedded = state
        .run_model(&served, count, move |state, model| {
            inputs.iter().try_for_each(|input| own.check_modality(input.modality))?;
            let resolved = resolve(state, &own, &values)?;
            embed(model.as_ref(), &[inputs, resolved].concat())
        })
        .await?;
    let views = embedded.embeddings.into_iter().zip(embedded.modalities).enumerate();
    let views = views.map(|(index, (embedding, modality))| EmbeddingView {
        index,
        modality,
        truncated: embedding.truncated,
        embedding: Vector::new(if normalize { embedding.unit } else { embedding.native }, format),
    });
    let info = served.model().info();
    Ok(ApiJson(EmbedAnswer {
        model: served.id.clone(),
        space: served.space.to_string(),
        dimension: info.dimension,
        precision: info.precision.as_str().into(),
        embeddings: views.collect(),
        usage: Usage { tokens: embedded.tokens },
    }))
}

/// What is to be compared.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SimilarityRequest {
    /// One row of the answer each.
    pub rows: Vec<InputValue>,
    /// One column of the answer each.
    pub columns: Vec<InputValue>,
    /// The model; the default one where absent.
    pub model: Option<String>,
}

/// Matrices with one row for each of `rows` and one column for each of `columns`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SimilarityAnswer {
    /// The model.
    pub model: String,
    /// Cosines, -1 to 1.
    pub cosines: Vec<Vec<f32>>,
    /// Logits as the model defines them, where rows are pictures and columns texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits: Option<Vec<Vec<f32>>>,
    /// Probabilities of the columns for each row, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probabilities: Option<Vec<Vec<f32>>>,
}

/// Compares inputs with inputs.
#[utoipa::path(
    post, path = "/v1/similarity", operation_id = "compare", tag = "Models", request_body = SimilarityRequest,
    responses((status = 200, description = "Matrices", body = SimilarityAnswer), Errors)
)]
pub async fn similarity_route(
    Shared(state): Shared<SharedState>,
    ApiJson(request): ApiJson<SimilarityRequest>,
) -> ApiResult<ApiJson<SimilarityAnswer>> {
    let SimilarityRequest { rows, columns, model } = request;
    if rows.is_empty() || columns.is_empty() {
        return Err(ApiError::invalid("a comparison needs at least one of `rows` and one of `columns`"));
    }
    let served = state.models.get(model.as_deref())?.clone();
    let own = served.clone();
    let compared = state
        .run_model(&served, rows.len() + columns.len(), move |state, model| {
            let (rows, columns) = (resolve(state, &own, &rows)?, resolve(state, &own, &columns)?);
            Ok(crossmodal_engine::similarity(model.as_ref(), &rows, &columns)?)
        })
        .await?;
    Ok(ApiJson(SimilarityAnswer {
        model: served.id.clone(),
        cosines: compared.cosines,
        logits: compared.logits,
        probabilities: compared.probabilities,
    }))
}

/// What is to be sorted by labels.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassifyRequest {
    /// One input or several, usually pictures.
    pub inputs: OneOrMany<InputValue>,
    /// The labels, all different.
    pub labels: Vec<String>,
    /// Texts with `{}` where the label goes; averaged. The label itself where absent.
    #[serde(default)]
    #[schema(example = json!(["a photo of a {}"]))]
    pub templates: Vec<String>,
    /// The model; the default one where absent.
    pub model: Option<String>,
}

/// The same as a form.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes a form, which is read part by part")]
pub struct ClassifyForm {
    /// Picture files.
    #[schema(value_type = Vec<String>, format = Binary)]
    image: Vec<Vec<u8>>,
    /// The labels.
    label: Vec<String>,
    /// Templates.
    template: Vec<String>,
    /// The model.
    model: Option<String>,
}

/// A label and its probability.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PredictionView {
    /// The label.
    pub label: String,
    /// Its probability, 0 to 1.
    pub probability: f32,
}

/// The labels of one input, best first.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Classified {
    /// The input's place in the request.
    pub index: usize,
    /// All labels, best first.
    pub predictions: Vec<PredictionView>,
}

/// The labels of all inputs.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ClassifyAnswer {
    /// The model.
    pub model: String,
    /// Of each input, in order.
    pub results: Vec<Classified>,
}

/// The most labels times templates.
const MOST_PROMPTS: usize = 100_000;

/// Sorts inputs by labels that the model was never trained on.
#[utoipa::path(
    post, path = "/v1/classify", operation_id = "classify", tag = "Models",
    request_body(content((ClassifyRequest = "application/json"), (ClassifyForm = "multipart/form-data"))),
    responses((status = 200, description = "Labels, best first", body = ClassifyAnswer), Errors)
)]
pub async fn classify_route(
    Shared(state): Shared<SharedState>,
    body: Body<ClassifyRequest>,
) -> ApiResult<ApiJson<ClassifyAnswer>> {
    let mut given = Vec::new();
    let (values, labels, templates, model) = match body {
        Body::Json(request) => (request.inputs.into_vec(), request.labels, request.templates, request.model),
        Body::Form(form) => {
            let (mut labels, mut templates, mut model) = (Vec::new(), Vec::new(), None);
            for part in &form.0 {
                match part.name.as_str() {
                    "label" | "labels" => labels.push(part.text()?.to_string()),
                    "template" | "templates" => templates.push(part.text()?.to_string()),
                    "model" => model = Some(part.text()?.to_string()),
                    name => given.push(inputs::of_part(part)?.ok_or_else(|| unknown_part(name))?),
                }
            }
            (Vec::new(), labels, templates, model)
        }
    };
    let prompts = labels.len().saturating_mul(templates.len().max(1));
    if prompts > MOST_PROMPTS {
        let message = format!("{prompts} labels times templates, at most {MOST_PROMPTS} are taken");
        return Err(ApiError::new(Code::TooLarge, message));
    }
    let served = state.models.get(model.as_deref())?.clone();
    let count = given.len() + values.len();
    check_inputs(count)?;
    let own = served.clone();
    let results = state
        .run_model(&served, count, move |state, model| {
            given.iter().try_for_each(|input| own.check_modality(input.modality))?;
            let inputs = [given, resolve(state, &own, &values)?].concat();
            let classifier = state.classifiers.get(&own.id, model.as_ref(), &labels, &templates)?;
            let embedded = embed(model.as_ref(), &inputs)?;
            Ok(embedded.embeddings.iter().map(|embedding| classifier.classify(embedding)).collect::<Vec<_>>())
        })
        .await?;
    let view = |(index, predictions): (usize, Vec<crossmodal_engine::classify::Prediction>)| Classified {
        index,
        predictions: predictions
            .into_iter()
            .map(|prediction| PredictionView { label: prediction.label, probability: prediction.probability })
            .collect(),
    };
    Ok(ApiJson(ClassifyAnswer {
        model: served.id.clone(),
        results: results.into_iter().enumerate().map(view).collect(),
    }))
}
