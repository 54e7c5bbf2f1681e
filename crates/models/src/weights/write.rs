//! Writing weight files: safetensors, tensor by tensor, in one floating-point type.

use std::io::{self, Write};

use half::{bf16, f16};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::SourceTensor;
use crate::error::{Error, Result};

/// The floating-point type that weights are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightType {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits, half precision.
    F16,
    /// 16 bits, the range of 32 bits.
    Bf16,
}

impl WeightType {
    /// The name it has in safetensors headers.
    fn header_name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }

    /// The name that Hugging Face configurations use.
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    fn put(self, values: &[f32], out: &mut impl Write) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(values.len() * self.size());
        match self {
            Self::F32 => values.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
            Self::F16 => values.iter().for_each(|x| bytes.extend(f16::from_f32(*x).to_le_bytes())),
            Self::Bf16 => values.iter().for_each(|x| bytes.extend(bf16::from_f32(*x).to_le_bytes())),
        }
        out.write_all(&bytes)
    }
}

/// As [`write`], of a layout's tensors: `values` gives the elements of canonical ones, each once.
///
/// # Errors
/// As [`write`].
pub(crate) fn write_sources(
    out: &mut impl Write,
    place: &std::path::Path,
    dtype: WeightType,
    metadata: &[(&str, &str)],
    sources: &[SourceTensor],
    mut values: impl FnMut(&str) -> Result<Vec<f32>>,
) -> Result<()> {
    let tensors: Vec<_> = sources.iter().map(|source| (source.name.clone(), source.shape.clone())).collect();
    let mut rest = sources.iter();
    let mut held: (&str, Vec<f32>) = ("", Vec::new());
    write(out, place, dtype, metadata, &tensors, |name| {
        let source = rest.next().ok_or_else(|| Error::tensor(place, name, "is missing"))?;
        if held.0 != source.canonical {
            held = (&source.canonical, values(&source.canonical)?);
        }
        Ok(source.values(&held.1))
    })
}

/// Writes tensors to `out` as a safetensors file with this metadata. `tensors` are their names and shapes; `values` gives the elements of each, one after the other.
///
/// # Errors
/// A value that the type can't hold; those of `values`; failures to write, about `place`.
pub fn write(
    out: &mut impl Write,
    place: &std::path::Path,
    dtype: WeightType,
    metadata: &[(&str, &str)],
    tensors: &[(String, Vec<usize>)],
    mut values: impl FnMut(&str) -> Result<Vec<f32>>,
) -> Result<()> {
    let failed = |source| Error::Io { path: place.to_path_buf(), source };
    let mut header = Map::new();
    let metadata: Map<String, Value> = metadata.iter().map(|(key, value)| (key.to_string(), json!(value))).collect();
    header.insert("__metadata__".to_string(), Value::Object(metadata));
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += shape.iter().product::<usize>() * dtype.size();
        let entry = json!({ "dtype": dtype.header_name(), "shape": shape, "data_offsets": [start, end] });
        header.insert(name.clone(), entry);
    }
    let mut text = Value::Object(header).to_string();
    // The format asks for spaces up to a multiple of eight.
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    out.write_all(&(text.len() as u64).to_le_bytes()).and_then(|()| out.write_all(text.as_bytes())).map_err(failed)?;
    for (name, shape) in tensors {
        let values = values(name)?;
        if values.len() != shape.iter().product::<usize>() {
            let found = values.len();
            return Err(Error::tensor(place, name, format!("has {found} elements, expected those of shape {shape:?}")));
        }
        let largest = values.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        if dtype == WeightType::F16 && largest > f16::MAX.to_f32() {
            let reason = format!("holds {largest}, which 16-bit floats can't; write bf16 or f32");
            return Err(Error::tensor(place, name, reason));
        }
        dtype.put(&values, out).map_err(failed)?;
    }
    Ok(())
}
