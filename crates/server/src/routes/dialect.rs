//! What the dialects of other servers share: which route speaks which, their lists of inputs, and what becomes of texts that are too long.

use axum::extract::{MatchedPath, Request};
use crossmodal_engine::{Embedder, Input, Kept, Modality};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::error::{ApiError, ApiResult, Code, Dialect};
use crate::extract::{is_json, media_type};
use crate::inputs::{self, InputValue, OneOrMany};
use crate::models::ServedModel;
use crate::state::State;

/// The dialect that a request is answered in.
pub(super) fn of_request(request: &Request) -> Dialect {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    match route {
        Some("/v1/embeddings" | "/embeddings") => Dialect::OpenAi,
        Some("/embed" | "/info" | "/tokenize" | "/rerank" | "/health") => Dialect::TextEmbeddingsInference,
        // The plain endpoint of the same path takes forms.
        Some("/similarity") if media_type(request.headers()).is_some_and(is_json) => Dialect::TextEmbeddingsInference,
        Some("/v2/embed" | "/v1/rerank" | "/v2/rerank") => Dialect::Cohere,
        _ => Dialect::Own,
    }
}

/// One input in a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum DialectInput {
    /// A text.
    #[schema(example = "red apple")]
    Text(String),
    /// A text as ids of the model's own tokenizer, with begin and end tokens or without. Never cut.
    Tokens(Vec<u32>),
    /// An object with one key, its modality.
    Typed(InputValue),
}

impl DialectInput {
    /// Reads one input or a list of inputs. A list of numbers is one input: the ids of its tokens.
    ///
    /// # Errors
    /// Something that is neither, named by its place.
    pub(super) fn read<'de, D: Deserializer<'de>>(reader: D) -> Result<OneOrMany<Self>, D::Error> {
        match Value::deserialize(reader)? {
            Value::Array(values) if values.is_empty() || !values.iter().all(Value::is_number) => {
                let items = values.into_iter().enumerate().map(|(place, value)| {
                    Self::of_value(value).map_err(|reason| D::Error::custom(format!("input {place}: {reason}")))
                });
                items.collect::<Result<_, _>>().map(OneOrMany::Many)
            }
            value => Self::of_value(value).map(OneOrMany::One).map_err(D::Error::custom),
        }
    }

    fn of_value(value: Value) -> Result<Self, String> {
        let found = match value {
            Value::String(text) => return Ok(Self::Text(text)),
            Value::Array(values) => return values.iter().map(token_id).collect::<Result<_, _>>().map(Self::Tokens),
            Value::Object(_) => {
                return serde_json::from_value(value).map(Self::Typed).map_err(|error| error.to_string());
            }
            Value::Null => "null".to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Number(value) => value.to_string(),
        };
        Err(format!("{found}, expected a text, a list of token ids, or an object such as {{\"image\": \"data:...\"}}"))
    }

    /// What it is, strings being of the modality `strings`.
    pub(super) fn modality(&self, strings: Modality) -> Modality {
        match self {
            Self::Text(_) => strings,
            Self::Tokens(_) => Modality::Text,
            Self::Typed(value) => value.parts().0,
        }
    }
}

fn token_id(value: &Value) -> Result<u32, String> {
    let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
    id.ok_or_else(|| format!("{value} in a list of token ids, expected whole numbers from 0 on"))
}

/// What is wrong with an input of a list, told with its place where there are several.
pub(super) fn at_place(error: ApiError, place: usize, inputs: usize) -> ApiError {
    match inputs {
        1 => error,
        _ => ApiError { message: format!("input {place}: {}", error.message), ..error },
    }
}

/// How inputs of a list are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// What strings are.
    pub strings: Modality,
    /// What becomes of texts that are too long.
    pub excess: Excess,
    /// The length of vectors, where one was asked for.
    pub dimensions: Option<usize>,
}

impl Reading {
    /// Makes the engine's inputs of a list, having asked whether the model embeds such. Blocks while addresses are fetched.
    ///
    /// # Errors
    /// A modality that the model lacks, an empty text, a value that can't be read, a text that is too long and mustn't be cut.
    pub fn inputs(
        self,
        state: &State,
        served: &ServedModel,
        model: &dyn Embedder,
        items: &[DialectInput],
    ) -> ApiResult<Vec<Input>> {
        items.iter().try_for_each(|item| served.check_modality(item.modality(self.strings)))?;
        let fetcher = state.fetcher.as_ref();
        let input = |item: &DialectInput| match item {
            DialectInput::Text(text) if self.strings == Modality::Text => self.excess.text(model, text),
            DialectInput::Text(value) => inputs::of_value(self.strings, value, fetcher),
            DialectInput::Tokens(ids) if ids.is_empty() => Err(ApiError::empty("there are no token ids")),
            DialectInput::Tokens(ids) => Ok(Input::tokens(ids.clone())),
            DialectInput::Typed(InputValue::Text(text)) => self.excess.text(model, text),
            DialectInput::Typed(value) => value.resolve(fetcher),
        };
        let named = |(place, item)| {
            let input = input(item).map_err(|error| at_place(error, place, items.len()))?;
            Ok(Input { dimensions: self.dimensions, ..input })
        };
        items.iter().enumerate().map(named).collect()
    }
}

/// What becomes of a text that is longer than the model reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    /// It loses its end.
    CutEnd,
    /// It loses its beginning.
    CutStart,
    /// It is refused.
    Refuse,
}

impl Excess {
    /// The input that a text is, cut where it must be.
    ///
    /// # Errors
    /// An empty text, one that is too long and mustn't be cut, one beyond the limit of the server.
    pub fn text(self, model: &dyn Embedder, text: &str) -> ApiResult<Input> {
        self.text_within(model, text, usize::MAX)
    }

    /// The same with a limit besides the model's own, begin and end tokens counted.
    ///
    /// # Errors
    /// The same, and a limit that leaves no room.
    pub fn text_within(self, model: &dyn Embedder, text: &str, most: usize) -> ApiResult<Input> {
        if text.is_empty() {
            return Err(ApiError::empty("an empty text"));
        }
        let input = inputs::text_input(text)?;
        if self == Self::CutEnd && most == usize::MAX {
            // The model does so of its own accord.
            return Ok(input);
        }
        let parts = model.tokenize(text).map_err(crossmodal_engine::Error::from)?.ok_or_else(|| {
            let name = &model.info().name;
            ApiError::new(
                Code::InvalidInput,
                format!("{name} doesn't tell its tokens, so that texts can only lose their end"),
            )
        })?;
        let (length, most) = (parts.tokens.len(), most.min(parts.limit));
        if length <= most {
            return Ok(input);
        }
        let keep = match self {
            Self::CutEnd => Kept::Beginning,
            Self::CutStart => Kept::End,
            Self::Refuse => {
                let message = format!("a text of {length} tokens, at most {most} are read");
                return Err(ApiError::new(Code::InvalidInput, message));
            }
        };
        let ids = parts.shortened(most, keep);
        let ids = ids.ok_or_else(|| ApiError::invalid(format!("{most} tokens leave no room for a text")))?;
        Ok(Input::tokens(ids))
    }
}

/// Asks the model whether it gives vectors of a length.
///
/// # Errors
/// It doesn't; the message says what it gives.
pub(super) fn check_dimensions(served: &ServedModel, dimensions: Option<usize>) -> ApiResult<()> {
    let Some(dimensions) = dimensions else { return Ok(()) };
    let probe = Input { dimensions: Some(dimensions), ..Input::text("a") };
    served.model().prepare(&probe).map_err(crossmodal_engine::Error::from)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<OneOrMany<DialectInput>, String> {
        let mut reader = serde_json::Deserializer::from_str(json);
        DialectInput::read(&mut reader).map_err(|error| error.to_string())
    }

    #[test]
    fn lists_of_inputs_in_every_form() {
        let text = |text: &str| DialectInput::Text(text.into());
        let image = DialectInput::Typed(InputValue::Image("AAAA".into()));
        for (json, expected) in [
            (r#""a""#, OneOrMany::One(text("a"))),
            ("[5, 6]", OneOrMany::One(DialectInput::Tokens(vec![5, 6]))),
            (r#"["a", "b"]"#, OneOrMany::Many(vec![text("a"), text("b")])),
            ("[[5], [6, 7]]", OneOrMany::Many(vec![DialectInput::Tokens(vec![5]), DialectInput::Tokens(vec![6, 7])])),
            (r#"{"image": "AAAA"}"#, OneOrMany::One(image.clone())),
            (
                r#"["a", {"image": "AAAA"}, [5]]"#,
                OneOrMany::Many(vec![text("a"), image, DialectInput::Tokens(vec![5])]),
            ),
            ("[]", OneOrMany::Many(Vec::new())),
        ] {
            assert_eq!(read(json).unwrap(), expected, "{json}");
        }
    }

    #[test]
    fn what_is_no_input_is_named() {
        for (json, part) in [
            (r#"["a", 5]"#, "input 1: 5, expected a text"),
            ("null", "null, expected a text"),
            ("true", "true, expected a text"),
            ("[-1]", "-1 in a list of token ids"),
            ("[[1, 2.5]]", "input 0: 2.5 in a list"),
            (r#"[[1, "a"]]"#, "\"a\" in a list of token ids"),
            (r#"[{"smell": "a"}]"#, "input 0: unknown variant `smell`"),
            (r#"{"text": "a", "image": "b"}"#, "expected"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(part), "{json}: {error}");
        }
    }
}
