//! `/v2/embed` as Cohere has it, and its routes for reranking.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use axum::extract::State as Shared;
use crossmodal_engine::{Content, Embedder, Embedding, Input, Modality, Role, media};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::dialect::{Excess, at_place, check_dimensions};
use super::embed::{Embedded, EncodingFormat, Vector, embed};
use super::text_embeddings::no_reranker;
use crate::error::{ApiError, ApiResult, CohereError};
use crate::extract::ApiJson;
use crate::inputs;
use crate::state::{Shared as SharedState, State};

/// What vectors are for. CLIP-like models make no difference between queries and documents; others are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InputType {
    /// To be found.
    SearchDocument,
    /// To find with.
    SearchQuery,
    /// To be told apart.
    Classification,
    /// To be grouped.
    Clustering,
    /// Pictures.
    Image,
}

/// How vectors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EmbeddingType {
    /// Numbers.
    Float,
    /// -127 to 127: each vector scaled so that its largest number is 127 in magnitude. Cosines stay what they are, up to rounding.
    Int8,
    /// The same plus 128.
    Uint8,
    /// `ubinary` minus 128.
    Binary,
    /// One bit a number, 1 where it is positive; the first of eight is the highest of its byte, and the last byte is filled up with zeros.
    Ubinary,
    /// Base64 of little-endian 32-bit numbers.
    Base64,
}

/// What becomes of texts that are too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum CohereTruncate {
    /// They are refused.
    None,
    /// They lose their beginning.
    Start,
    /// They lose their end.
    #[default]
    End,
}

/// A part of an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum CohereContent {
    /// Words.
    Text {
        /// The words.
        text: String,
    },
    /// A picture.
    ImageUrl {
        /// Where it is.
        image_url: CohereImage,
    },
}

/// Where a picture is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CohereImage {
    /// A data URI; base64, and with `--allow-fetch` an address, do as well.
    pub url: String,
}

/// An input of one or more parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CohereInput {
    /// Its parts. The vector of several is the mean of their unit vectors, at unit length.
    pub content: Vec<CohereContent>,
}

/// What is to be embedded: exactly one of `texts`, `images`, `inputs`. Unknown fields are ignored.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct CohereEmbedRequest {
    /// The model; the default one where absent.
    pub model: Option<String>,
    /// What vectors are for.
    pub input_type: InputType,
    /// Texts.
    pub texts: Option<Vec<String>>,
    /// Pictures as data URIs.
    pub images: Option<Vec<String>>,
    /// Texts, pictures, and mixtures of them.
    pub inputs: Option<Vec<CohereInput>>,
    /// How vectors are written; `float` where absent.
    pub embedding_types: Option<Vec<EmbeddingType>>,
    /// The length of vectors; only the model's own, or one that it was trained for.
    pub output_dimension: Option<usize>,
    /// Tokens of a text, begin and end tokens among them; what is more counts as too long.
    pub max_tokens: Option<usize>,
    /// What becomes of texts that are too long; they lose their end where absent.
    pub truncate: Option<CohereTruncate>,
}

/// Vectors in the forms that were asked for, each in the order of the inputs.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct EmbeddingsByType {
    /// Numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub float: Option<Vec<Vec<f32>>>,
    /// -127 to 127.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub int8: Option<Vec<Vec<i8>>>,
    /// 1 to 255.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uint8: Option<Vec<Vec<u8>>>,
    /// Eight signs in a number of -128 to 127.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binary: Option<Vec<Vec<i8>>>,
    /// Eight signs in a number of 0 to 255.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ubinary: Option<Vec<Vec<u8>>>,
    /// Base64 of little-endian 32-bit numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub base64: Option<Vec<Vector>>,
}

impl EmbeddingsByType {
    fn new(vectors: &[Vec<f32>], types: &[EmbeddingType]) -> Self {
        let mut told = Self::default();
        for kind in types {
            match kind {
                EmbeddingType::Float => told.float = Some(vectors.to_vec()),
                EmbeddingType::Int8 => told.int8 = Some(vectors.iter().map(|vector| levels(vector)).collect()),
                EmbeddingType::Uint8 => {
                    let raised = |vector: &Vec<f32>| {
                        levels(vector).into_iter().map(|level| level.cast_unsigned() ^ 128).collect()
                    };
                    told.uint8 = Some(vectors.iter().map(raised).collect());
                }
                EmbeddingType::Binary => {
                    let lowered =
                        |vector: &Vec<f32>| signs(vector).into_iter().map(|byte| (byte ^ 128).cast_signed()).collect();
                    told.binary = Some(vectors.iter().map(lowered).collect());
                }
                EmbeddingType::Ubinary => told.ubinary = Some(vectors.iter().map(|vector| signs(vector)).collect()),
                EmbeddingType::Base64 => {
                    let encoded = |vector: &Vec<f32>| Vector::new(vector.clone(), EncodingFormat::Base64);
                    told.base64 = Some(vectors.iter().map(encoded).collect());
                }
            }
        }
        told
    }
}

/// Levels of -127 to 127, the largest number having the largest.
fn levels(vector: &[f32]) -> Vec<i8> {
    let largest = vector.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let scale = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    vector.iter().map(|value| (value * scale).round() as i8).collect()
}

/// Eight signs in a byte, the first the highest.
fn signs(vector: &[f32]) -> Vec<u8> {
    let byte = |values: &[f32]| {
        values.iter().zip(0..8).fold(0, |byte, (value, place)| byte | u8::from(*value > 0.0) << (7 - place))
    };
    vector.chunks(8).map(byte).collect()
}

/// A picture of the request.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CoherePicture {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// The format of its file.
    #[schema(example = "jpeg")]
    pub format: String,
    /// Bits of a pixel as the model sees it: 24.
    pub bit_depth: u8,
}

impl CoherePicture {
    /// Of the bytes of a picture that was decoded before.
    fn of(bytes: &[u8]) -> Option<Self> {
        let (width, height) = media::dimensions(bytes).ok()?;
        let format = media::sniff(bytes)?.media_type().trim_start_matches("image/").to_string();
        Some(Self { width, height, format, bit_depth: 24 })
    }
}

/// The version of the API.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ApiVersion {
    /// `2`.
    #[schema(example = "2")]
    pub version: String,
}

/// What it cost.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct BilledUnits {
    /// Tokens of all texts, where there were any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<usize>,
    /// Pictures, where there were any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<usize>,
}

/// About the answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CohereMeta {
    /// The version of the API.
    pub api_version: ApiVersion,
    /// What it cost.
    pub billed_units: BilledUnits,
}

/// Vectors.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CohereEmbedAnswer {
    /// A name for the answer, never given twice.
    pub id: String,
    /// The vectors.
    pub embeddings: EmbeddingsByType,
    /// The texts of the request, where it had `texts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub texts: Option<Vec<String>>,
    /// The pictures of the request, where it had `images`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<Vec<CoherePicture>>,
    /// About the answer.
    pub meta: CohereMeta,
    /// `embeddings_by_type`.
    #[schema(example = "embeddings_by_type")]
    pub response_type: String,
}

/// What a request asks to be embedded, each input with its parts.
#[derive(Debug)]
struct Asked {
    inputs: Vec<CohereInput>,
    texts: Option<Vec<String>>,
    shows_images: bool,
}

impl Asked {
    fn new(
        texts: Option<Vec<String>>,
        images: Option<Vec<String>>,
        inputs: Option<Vec<CohereInput>>,
    ) -> ApiResult<Self> {
        let text = |text: &String| CohereInput { content: vec![CohereContent::Text { text: text.clone() }] };
        let image =
            |url: String| CohereInput { content: vec![CohereContent::ImageUrl { image_url: CohereImage { url } }] };
        let shows_images = images.is_some();
        let inputs = match (&texts, images, inputs) {
            (Some(texts), None, None) => texts.iter().map(text).collect(),
            (None, Some(images), None) => images.into_iter().map(image).collect(),
            (None, None, Some(inputs)) => inputs,
            _ => return Err(ApiError::invalid("expected exactly one of `texts`, `images` and `inputs`")),
        };
        if inputs.is_empty() {
            return Err(ApiError::empty("there is nothing to embed"));
        }
        if let Some(place) = inputs.iter().position(|input: &CohereInput| input.content.is_empty()) {
            return Err(ApiError::empty(format!("input {place} has no content")));
        }
        Ok(Self { inputs, texts, shows_images })
    }

    fn parts(&self) -> usize {
        self.inputs.iter().map(|input| input.content.len()).sum()
    }
}

/// How parts are read.
#[derive(Clone, Copy)]
struct Rules {
    excess: Excess,
    max_tokens: usize,
    role: Role,
    dimensions: Option<usize>,
}

impl Rules {
    /// The engine's inputs, part after part. Blocks while addresses are fetched.
    fn inputs(self, state: &State, model: &dyn Embedder, asked: &Asked) -> ApiResult<Vec<Input>> {
        let one = |content: &CohereContent| match content {
            CohereContent::Text { text } => self.excess.text_within(model, text, self.max_tokens),
            CohereContent::ImageUrl { image_url } => {
                inputs::of_value(Modality::Image, &image_url.url, state.fetcher.as_ref())
            }
        };
        let mut read = Vec::with_capacity(asked.parts());
        for (place, input) in asked.inputs.iter().enumerate() {
            for content in &input.content {
                let input = one(content).map_err(|error| at_place(error, place, asked.inputs.len()))?;
                read.push(Input { role: self.role, dimensions: self.dimensions, ..input });
            }
        }
        Ok(read)
    }
}

/// The mean of unit vectors at unit length; one is what it is.
fn mean(mut parts: Vec<Embedding>) -> ApiResult<Vec<f32>> {
    if parts.len() == 1 {
        return Ok(parts.remove(0).unit);
    }
    let mut sum = parts.first().map(|part| vec![0.0_f32; part.unit.len()]).unwrap_or_default();
    for part in &parts {
        sum.iter_mut().zip(&part.unit).for_each(|(sum, value)| *sum += value);
    }
    let mean = Embedding::from_native(sum).map_err(crossmodal_engine::Error::from)?;
    Ok(mean.unit)
}

/// One vector for each input, of the vectors of all parts.
fn joined(asked: &Asked, embeddings: Vec<Embedding>) -> ApiResult<Vec<Vec<f32>>> {
    let mut embeddings = embeddings.into_iter();
    let inputs = asked.inputs.iter();
    inputs.map(|input| mean(embeddings.by_ref().take(input.content.len()).collect())).collect()
}

/// A name in the form of a UUID, never given twice.
fn new_id() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    let seed = format!("{} {time} {}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
    let hash = blake3::hash(seed.as_bytes()).to_hex();
    // The digits that say that a UUID was made at random.
    format!("{}-{}-4{}-a{}-{}", &hash[..8], &hash[8..12], &hash[13..16], &hash[17..20], &hash[20..32])
}

/// Embeds texts and pictures as Cohere's API does.
///
/// `input_type` says what vectors are for. An input of several parts gets the mean of their unit vectors, at unit length.
#[utoipa::path(
    post, path = "/v2/embed", operation_id = "cohere_embed", tag = "Dialects", request_body = CohereEmbedRequest,
    responses(
        (status = 200, description = "Vectors", body = CohereEmbedAnswer),
        (status = "4XX", description = "The request can't be answered", body = CohereError),
        (status = "5XX", description = "The server can't answer", body = CohereError)
    )
)]
pub async fn embed_route(
    Shared(state): Shared<SharedState>,
    ApiJson(request): ApiJson<CohereEmbedRequest>,
) -> ApiResult<ApiJson<CohereEmbedAnswer>> {
    let CohereEmbedRequest { model, input_type, texts, images, inputs, embedding_types, .. } = request;
    let asked = Asked::new(texts, images, inputs)?;
    let served = state.models.get(model.as_deref())?.clone();
    check_dimensions(&served, request.output_dimension)?;
    let rules = Rules {
        excess: match request.truncate.unwrap_or_default() {
            CohereTruncate::None => Excess::Refuse,
            CohereTruncate::Start => Excess::CutStart,
            CohereTruncate::End => Excess::CutEnd,
        },
        max_tokens: request.max_tokens.unwrap_or(usize::MAX),
        role: if input_type == InputType::SearchQuery { Role::Query } else { Role::Document },
        dimensions: request.output_dimension,
    };
    let own = served.clone();
    let (asked, vectors, pictures, billed_units) = state
        .run_model(&served, asked.parts(), move |state, model| {
            let contents = asked.inputs.iter().flat_map(|input| &input.content);
            let modalities = contents.map(|content| match content {
                CohereContent::Text { .. } => Modality::Text,
                CohereContent::ImageUrl { .. } => Modality::Image,
            });
            modalities.into_iter().try_for_each(|modality| own.check_modality(modality))?;
            let inputs = rules.inputs(state, model.as_ref(), &asked)?;
            let Embedded { embeddings, modalities, tokens } = embed(model.as_ref(), &inputs)?;
            let count = |modality| modalities.iter().filter(|found| **found == modality).count();
            let (texts, images) = (count(Modality::Text), count(Modality::Image));
            let billed =
                BilledUnits { input_tokens: (texts > 0).then_some(tokens), images: (images > 0).then_some(images) };
            let pictures = asked.shows_images.then(|| inputs.iter().filter_map(picture).collect());
            let vectors = joined(&asked, embeddings)?;
            Ok((asked, vectors, pictures, billed))
        })
        .await?;
    let types = embedding_types.filter(|types| !types.is_empty()).unwrap_or_else(|| vec![EmbeddingType::Float]);
    Ok(ApiJson(CohereEmbedAnswer {
        id: new_id(),
        embeddings: EmbeddingsByType::new(&vectors, &types),
        texts: asked.texts,
        images: pictures,
        meta: CohereMeta { api_version: ApiVersion { version: "2".into() }, billed_units },
        response_type: "embeddings_by_type".into(),
    }))
}

fn picture(input: &Input) -> Option<CoherePicture> {
    match &input.content {
        Content::Bytes(bytes) => CoherePicture::of(bytes),
        Content::Text(_) | Content::Tokens(_) => None,
    }
}

/// Answers 501 until there is a reranker.
#[utoipa::path(
    post, path = "/v2/rerank", operation_id = "cohere_rerank", tag = "Dialects",
    responses((status = 501, description = "There is no reranker yet", body = CohereError))
)]
pub async fn rerank_route() -> ApiError {
    no_reranker()
}

/// The same under the path of older clients.
#[utoipa::path(
    post, path = "/v1/rerank", operation_id = "cohere_rerank_v1", tag = "Dialects",
    responses((status = 501, description = "There is no reranker yet", body = CohereError))
)]
pub async fn rerank_v1_route() -> ApiError {
    no_reranker()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_in_every_form() {
        let vectors = [vec![0.5, -1.0, 0.0, 0.25, 1e-9, -0.1, 0.0, 0.0, 0.125]];
        let all = ["float", "int8", "uint8", "binary", "ubinary", "base64"];
        let types: Vec<EmbeddingType> = serde_json::from_value(serde_json::json!(all)).unwrap();
        let told = EmbeddingsByType::new(&vectors, &types);
        assert_eq!(told.float.unwrap(), vectors);
        assert_eq!(told.int8.unwrap(), [[64, -127, 0, 32, 0, -13, 0, 0, 16]]);
        assert_eq!(told.uint8.unwrap(), [[192, 1, 128, 160, 128, 115, 128, 128, 144]]);
        assert_eq!(told.ubinary.unwrap(), [[0b1001_1000, 0b1000_0000]]);
        assert_eq!(told.binary.unwrap(), [[24, 0]]);
        assert_eq!(told.base64.unwrap(), [Vector::new(vectors[0].clone(), EncodingFormat::Base64)]);
    }

    #[test]
    fn ids_look_like_uuids_and_differ() {
        let (first, second) = (new_id(), new_id());
        assert_ne!(first, second);
        let lengths: Vec<usize> = first.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
    }

    #[test]
    fn exactly_one_kind_of_input() {
        let texts = || Some(vec!["a".to_string()]);
        assert!(Asked::new(texts(), None, None).is_ok());
        assert!(Asked::new(None, None, None).is_err());
        assert!(Asked::new(texts(), texts(), None).is_err());
        assert!(Asked::new(Some(Vec::new()), None, None).unwrap_err().empty);
        let bare = CohereInput { content: Vec::new() };
        assert!(Asked::new(None, None, Some(vec![bare])).unwrap_err().message.contains("input 0"));
    }
}
