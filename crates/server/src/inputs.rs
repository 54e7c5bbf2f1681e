//! What clients send to be embedded: JSON values and parts of forms, made into the engine's inputs.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use crossmodal_engine::{Content, Input, Modality};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{ApiError, ApiResult, Code};
use crate::extract::FormPart;
use crate::safety::fetch::{FetchError, Fetcher};

/// The longest text, in bytes: far beyond what any model reads, and short enough to tokenise at once.
pub const MOST_TEXT: usize = 1 << 20;

/// Base64 with or without padding.
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
/// The same in the alphabet for addresses.
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// Something to embed: an object with one key, its modality. All but texts are a data URI, base64, or (where the server allows it) an
/// `http(s)` address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum InputValue {
    /// Words.
    #[schema(example = "red apple")]
    Text(String),
    /// A picture file.
    Image(String),
    /// A sound file.
    Audio(String),
    /// A film.
    Video(String),
    /// A depth map.
    Depth(String),
    /// A thermal picture.
    Thermal(String),
    /// Motion data.
    Imu(String),
}

impl InputValue {
    /// Its modality and its value.
    pub fn parts(&self) -> (Modality, &str) {
        match self {
            Self::Text(value) => (Modality::Text, value),
            Self::Image(value) => (Modality::Image, value),
            Self::Audio(value) => (Modality::Audio, value),
            Self::Video(value) => (Modality::Video, value),
            Self::Depth(value) => (Modality::Depth, value),
            Self::Thermal(value) => (Modality::Thermal, value),
            Self::Imu(value) => (Modality::Imu, value),
        }
    }

    /// The input itself. Blocks while an address is fetched.
    ///
    /// # Errors
    /// A text that is too long, a value that isn't base64, an address that isn't allowed or can't be fetched.
    pub fn resolve(&self, fetcher: Option<&Fetcher>) -> ApiResult<Input> {
        let (modality, value) = self.parts();
        of_value(modality, value, fetcher)
    }
}

/// The input that a value of a modality stands for. Blocks while an address is fetched.
///
/// # Errors
/// As [`InputValue::resolve`].
pub fn of_value(modality: Modality, value: &str, fetcher: Option<&Fetcher>) -> ApiResult<Input> {
    match modality {
        Modality::Text => text_input(value),
        _ => Ok(Input::new(Content::Bytes(bytes_of(value, fetcher)?.into()), modality)),
    }
}

/// One or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// One.
    One(T),
    /// Several.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// All of them.
    pub fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(value) => vec![value],
            Self::Many(values) => values,
        }
    }
}

/// A text to embed.
///
/// # Errors
/// A text that is too long.
pub fn text_input(text: &str) -> ApiResult<Input> {
    if text.len() > MOST_TEXT {
        return Err(ApiError::new(
            Code::TooLarge,
            format!("a text of {} bytes, at most {MOST_TEXT} are taken", text.len()),
        ));
    }
    Ok(Input::text(text))
}

/// The input that a part of a form is, by the part's name; none where the name is no modality.
///
/// # Errors
/// A text that isn't UTF-8 or is too long.
pub fn of_part(part: &FormPart) -> ApiResult<Option<Input>> {
    match part.name.parse::<Modality>() {
        Ok(Modality::Text) => Ok(Some(text_input(part.text()?)?)),
        Ok(modality) => Ok(Some(Input::new(Content::Bytes(part.bytes.to_vec().into()), modality))),
        Err(_) => Ok(None),
    }
}

/// The bytes that a data URI, base64 or an address stands for.
///
/// # Errors
/// As [`InputValue::resolve`].
pub fn bytes_of(value: &str, fetcher: Option<&Fetcher>) -> ApiResult<Vec<u8>> {
    let value = value.trim();
    if let Some(rest) = strip_prefix_ignoring_case(value, "data:") {
        return data_uri(rest);
    }
    if strip_prefix_ignoring_case(value, "http:").or(strip_prefix_ignoring_case(value, "https:")).is_some() {
        let fetcher = fetcher.ok_or_else(|| {
            let message = "this server fetches no addresses (--allow-fetch); send the bytes as a data URI or base64";
            ApiError::new(Code::Forbidden, message)
        })?;
        return Ok(fetcher.fetch(value)?.bytes);
    }
    base64(value)
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// What follows `data:`, as RFC 2397 has it; base64 only, which is how files are sent.
fn data_uri(rest: &str) -> ApiResult<Vec<u8>> {
    let (head, data) = rest.split_once(',').ok_or_else(|| {
        ApiError::new(Code::InvalidInput, "a data URI without a comma, expected data:TYPE;base64,DATA")
    })?;
    if !head.to_ascii_lowercase().ends_with(";base64") {
        return Err(ApiError::new(Code::InvalidInput, "a data URI that isn't base64, expected data:TYPE;base64,DATA"));
    }
    base64(data)
}

fn base64(text: &str) -> ApiResult<Vec<u8>> {
    // Some encoders break lines.
    let broken = text.bytes().any(|byte| byte.is_ascii_whitespace());
    let joined: String;
    let text = if broken {
        joined = text.split_ascii_whitespace().collect();
        &joined
    } else {
        text
    };
    let engine = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    let bytes = engine.decode(text).map_err(|error| {
        ApiError::new(Code::InvalidInput, format!("neither a data URI nor an address nor base64: {error}"))
    })?;
    if bytes.is_empty() {
        return Err(ApiError::new(Code::InvalidInput, "an empty file"));
    }
    Ok(bytes)
}

impl From<FetchError> for ApiError {
    fn from(error: FetchError) -> Self {
        let code = match &error {
            FetchError::Forbidden(_) => Code::Forbidden,
            FetchError::TooLarge(_) => Code::TooLarge,
            _ => Code::InvalidInput,
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_as_data_uris_and_base64() {
        for value in ["data:image/png;base64,aGVsbG8=", "DATA:;BASE64,aGVsbG8", "aGVsbG8=", "aGVs\nbG8=\n", " aGVsbG8 "]
        {
            assert_eq!(bytes_of(value, None).unwrap(), b"hello", "{value}");
        }
        assert_eq!(bytes_of("-_8=", None).unwrap(), [0xfb, 0xff]);
        for (value, code) in [
            ("data:image/png,hello", Code::InvalidInput),
            ("data:image/png;base64", Code::InvalidInput),
            ("%%%", Code::InvalidInput),
            ("", Code::InvalidInput),
            ("http://example.org/a.png", Code::Forbidden),
            ("HTTPS://example.org/a.png", Code::Forbidden),
            ("file:///etc/passwd", Code::InvalidInput),
        ] {
            assert_eq!(bytes_of(value, None).unwrap_err().code, code, "{value}");
        }
    }

    #[test]
    fn an_input_has_one_key() {
        let read = |json: &str| serde_json::from_str::<InputValue>(json);
        assert_eq!(read(r#"{"text": "a"}"#).unwrap(), InputValue::Text("a".into()));
        for wrong in [r#"{"text": "a", "image": "b"}"#, "{}", r#"{"smell": "a"}"#, r#"{"text": 1}"#, r#""a""#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn texts_have_a_limit() {
        assert!(text_input(&"a".repeat(MOST_TEXT)).is_ok());
        assert_eq!(text_input(&"a".repeat(MOST_TEXT + 1)).unwrap_err().code, Code::TooLarge);
    }
}
