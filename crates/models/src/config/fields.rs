//! Reading a JSON object field by field, so that a field nobody read can be refused.

use std::path::{Path, PathBuf};

use crossmodal_nn::Activation;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The fields of a JSON object that haven't been read yet.
pub(super) struct Fields {
    path: PathBuf,
    /// Dotted name of this object within the file, with a final dot unless it is the root.
    prefix: String,
    fields: Map<String, Value>,
}

impl Fields {
    /// Parses `bytes` as a JSON object; `path` is for messages.
    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|error| Error::malformed(path, format!("not a JSON document: {error}")))?;
        match value {
            Value::Object(fields) => Ok(Self { path: path.to_path_buf(), prefix: String::new(), fields }),
            other => Err(Error::malformed(path, format!("expected a JSON object, found {}", kind(&other)))),
        }
    }

    /// An error about a field of this object.
    pub(super) fn error(&self, field: &str, value: impl ToString, expected: impl ToString) -> Error {
        Error::Config {
            path: self.path.clone(),
            field: format!("{}{field}", self.prefix),
            value: value.to_string(),
            expected: expected.to_string(),
        }
    }

    /// Takes a field; absent and null are both `None`.
    pub(super) fn optional<T: DeserializeOwned>(&mut self, field: &str, expected: &str) -> Result<Option<T>> {
        match self.fields.remove(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value.clone())
                .map(Some)
                .map_err(|_| self.error(field, shorten(&value), expected)),
        }
    }

    /// Takes a field, or its default.
    pub(super) fn or<T: DeserializeOwned>(&mut self, field: &str, default: T, expected: &str) -> Result<T> {
        Ok(self.optional(field, expected)?.unwrap_or(default))
    }

    /// Takes a field that must be there.
    pub(super) fn required<T: DeserializeOwned>(&mut self, field: &str, expected: &str) -> Result<T> {
        self.optional(field, expected)?.ok_or_else(|| self.error(field, "missing", expected))
    }

    /// Takes a size: a whole number from 1 to a million, which bounds what damaged files can make us allocate.
    pub(super) fn size(&mut self, field: &str, default: usize) -> Result<usize> {
        let expected = "a whole number from 1 to 1000000";
        let value = self.or(field, default, expected)?;
        if (1..=1_000_000).contains(&value) { Ok(value) } else { Err(self.error(field, value, expected)) }
    }

    /// Takes a size without a default.
    pub(super) fn required_size(&mut self, field: &str) -> Result<usize> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Err(self.error(field, "missing", "a whole number from 1 to 1000000")),
            Some(_) => self.size(field, 1),
        }
    }

    /// Takes a number above zero and below infinity.
    pub(super) fn positive(&mut self, field: &str, default: f64) -> Result<f64> {
        let value = self.or(field, default, "a number above 0")?;
        if value.is_finite() && value > 0.0 { Ok(value) } else { Err(self.error(field, value, "a number above 0")) }
    }

    /// Takes a field that may only have the value it has by default.
    pub(super) fn only(&mut self, field: &str, default: &Value) -> Result<()> {
        match self.fields.remove(field) {
            None | Some(Value::Null) => Ok(()),
            Some(value) if value == *default => Ok(()),
            Some(value) => {
                Err(self.error(field, shorten(&value), format!("{default} (other values are not supported)")))
            }
        }
    }

    /// Takes a nested object; absent and null are both `None`.
    pub(super) fn nested(&mut self, field: &str) -> Result<Option<Self>> {
        let fields: Option<Map<String, Value>> = self.optional(field, "an object")?;
        Ok(fields.map(|fields| Self { path: self.path.clone(), prefix: format!("{}{field}.", self.prefix), fields }))
    }

    /// An object without fields in place of a nested one that isn't there.
    pub(super) fn absent(&self, field: &str) -> Self {
        Self { path: self.path.clone(), prefix: format!("{}{field}.", self.prefix), fields: Map::new() }
    }

    /// Takes an activation by name.
    pub(super) fn activation(&mut self, field: &str, default: Activation) -> Result<Activation> {
        let expected = "quick_gelu, gelu, gelu_new or gelu_pytorch_tanh";
        let Some(name) = self.optional::<String>(field, expected)? else { return Ok(default) };
        match name.as_str() {
            "quick_gelu" => Ok(Activation::QuickGelu),
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
            _ => Err(self.error(field, format!("{name:?}"), expected)),
        }
    }

    /// Whether a field is there and not null.
    pub(super) fn has(&self, field: &str) -> bool {
        self.fields.get(field).is_some_and(|value| !value.is_null())
    }

    /// Ends the reading: a field that is neither read nor in `inert` is refused.
    pub(super) fn finish(self, inert: &[&str]) -> Result<()> {
        match self.fields.iter().find(|(name, value)| !inert.contains(&name.as_str()) && !value.is_null()) {
            None => Ok(()),
            Some((name, value)) => {
                Err(self.error(name, shorten(value), "no such field (it may change the numbers, so it isn't ignored)"))
            }
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn shorten(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}
