//! The table of contents of a safetensors file.

use std::collections::HashMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use super::{Entry, Stored, row_major};
use crate::error::{Error, Result};

/// The free-form metadata of a header.
type Metadata = HashMap<String, String>;

/// The length of the header's own length field.
const LENGTH_FIELD: usize = 8;

/// Reads and validates the header.
pub(super) fn table(path: &Path, bytes: &[u8]) -> Result<(Vec<(String, Entry)>, Metadata)> {
    // Deserialising checks every offset against the file's length; nothing is copied.
    SafeTensors::deserialize(bytes).map_err(|error| explain(path, bytes, &error))?;
    let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| explain(path, bytes, &error))?;
    let data = LENGTH_FIELD + header;
    let entries = metadata.tensors().into_iter().map(|(name, info)| {
        let (start, end) = info.data_offsets;
        let entry = Entry {
            file: 0,
            dtype: stored(info.dtype),
            shape: info.shape.clone(),
            strides: row_major(&info.shape),
            bytes: data + start..data + end,
        };
        (name, entry)
    });
    let entries = entries.collect();
    Ok((entries, metadata.metadata().clone().unwrap_or_default()))
}

fn stored(dtype: Dtype) -> Stored {
    match dtype {
        Dtype::F64 => Stored::F64,
        Dtype::F32 => Stored::F32,
        Dtype::F16 => Stored::F16,
        Dtype::BF16 => Stored::Bf16,
        Dtype::I8 => Stored::I8,
        other => Stored::Other { size: (other.bitsize() / 8).max(1) },
    }
}

fn explain(path: &Path, bytes: &[u8], error: &safetensors::SafeTensorError) -> Error {
    let announced = bytes.first_chunk::<8>().map(|length| u64::from_le_bytes(*length));
    let cut = match announced {
        Some(length) if length.saturating_add(8) > bytes.len() as u64 => true,
        _ => matches!(error, safetensors::SafeTensorError::MetadataIncompleteBuffer),
    };
    let hint = if cut { " (the file looks cut short; fetch it again)" } else { "" };
    Error::malformed(path, format!("damaged safetensors file of {} bytes: {error}{hint}", bytes.len()))
}
