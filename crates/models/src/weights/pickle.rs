//! The table of contents of a PyTorch archive: a ZIP file with one pickle and one file per storage.
//!
//! The pickle is interpreted by candle's reader, which builds a tree of plain values and never runs anything; this module
//! takes from that tree only tensors of known storage types and checks every number against the archive.

use std::collections::HashMap;
use std::io::Cursor;
use std::ops::Range;
use std::path::Path;

use candle_core::pickle::{Object, Stack};
use zip::{CompressionMethod, ZipArchive};

use super::{Entry, Stored, row_major};
use crate::error::{Error, Result};

/// Lists the tensors of the state dict in `bytes`, wherever training scripts usually nest it.
pub(super) fn table(path: &Path, bytes: &[u8]) -> Result<Vec<(String, Entry)>> {
    let damaged = |error: &dyn std::fmt::Display| Error::malformed(path, format!("damaged PyTorch archive: {error}"));
    let archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| damaged(&error))?;
    if archive.file_names().flatten().any(|name| name.ends_with("/constants.pkl")) {
        return Err(torchscript(path));
    }
    let files = stored_files(archive, bytes.len()).map_err(|error| damaged(&error))?;
    let (pickle, range) =
        files.iter().find(|(name, _)| name.ends_with("data.pkl")).ok_or_else(|| damaged(&"it holds no data.pkl"))?;
    let folder = pickle.trim_end_matches("data.pkl");
    let root = unpickle(&bytes[range.clone()]).map_err(|error| damaged(&error))?;
    let state = state_dict(&root).ok_or_else(|| damaged(&"its top level is not a state dict"))?;
    let mut entries = Vec::new();
    for (key, value) in state {
        let Object::Unicode(name) = key else { continue };
        let Some(tensor) = Rebuilt::of(value) else { continue };
        let entry = tensor.entry(folder, &files).map_err(|reason| Error::tensor(path, name, reason))?;
        entries.push((name.clone(), entry));
    }
    Ok(entries)
}

fn torchscript(path: &Path) -> Error {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let advice = match crate::registry::equivalent_openclip(&name) {
        Some(equivalent) => format!("the same weights are `{equivalent}`"),
        None => {
            "use the same weights as an OpenCLIP checkpoint, for example `timm/vit_base_patch32_clip_224.openai`".into()
        }
    };
    Error::Unsupported(format!("{}: TorchScript archives hold code and are not read; {advice}", path.display()))
}

/// Byte ranges of the archive's files. PyTorch stores them uncompressed, which is what makes mapping possible.
fn stored_files(
    mut archive: ZipArchive<Cursor<&[u8]>>,
    length: usize,
) -> std::result::Result<HashMap<String, Range<usize>>, String> {
    let mut files = HashMap::new();
    for number in 0..archive.len() {
        let file = archive.by_index_raw(number).map_err(|error| error.to_string())?;
        let name = String::from_utf8_lossy(file.name_raw()).into_owned();
        if file.compression() != CompressionMethod::Stored {
            return Err(format!("{name} is compressed, expected it stored"));
        }
        let start = file.data_start().ok_or_else(|| format!("{name} has no data"))? as usize;
        let end = start.saturating_add(file.size() as usize);
        if end > length {
            return Err(format!("{name} reaches beyond the end of the file"));
        }
        files.insert(name, start..end);
    }
    Ok(files)
}

/// Interprets the pickle. A malformed one can make the reader panic, which is caught and reported as damage.
fn unpickle(bytes: &[u8]) -> std::result::Result<Object, String> {
    let parse = || {
        let mut stack = Stack::empty();
        stack.read_loop(&mut Cursor::new(bytes))?;
        stack.finalize()
    };
    std::panic::catch_unwind(parse)
        .map_err(|_| "its pickle is malformed".to_string())?
        .map_err(|error| format!("its pickle is malformed: {error}"))
}

/// The mapping that holds the tensors: the root itself, or what training scripts nest under `state_dict` or `model`.
fn state_dict(root: &Object) -> Option<&[(Object, Object)]> {
    let Object::Dict(pairs) = root else {
        // An ordered dict with attributes is built from its items.
        return match root {
            Object::Build { callable, .. } => state_dict(callable),
            _ => None,
        };
    };
    if pairs.iter().any(|(_, value)| Rebuilt::of(value).is_some()) {
        return Some(pairs);
    }
    ["state_dict", "model", "module"].iter().find_map(|name| {
        let (_, value) = pairs.iter().find(|(key, _)| matches!(key, Object::Unicode(key) if key == name))?;
        state_dict(value)
    })
}

/// The arguments of PyTorch's tensor constructor, as far as they matter for reading.
struct Rebuilt<'a> {
    storage: &'a Object,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl<'a> Rebuilt<'a> {
    /// Recognises a tensor or parameter; anything else is `None`.
    fn of(object: &'a Object) -> Option<Self> {
        let Object::Reduce { callable, args } = object else { return None };
        let (Object::Class { class_name, .. }, Object::Tuple(args)) = (callable.as_ref(), args.as_ref()) else {
            return None;
        };
        match (class_name.as_str(), args.as_slice()) {
            ("_rebuild_tensor_v2", [Object::PersistentLoad(storage), offset, shape, strides, ..]) => {
                let (offset, shape, strides) = (integer(offset)?, integers(shape)?, integers(strides)?);
                Some(Self { storage: storage.as_ref(), offset, shape, strides })
            }
            ("_rebuild_parameter", [tensor, ..]) => Self::of(tensor),
            // (constructor, type, arguments, state)
            ("_rebuild_from_type_v2", [_, _, Object::Tuple(args), ..]) => match args.as_slice() {
                [Object::PersistentLoad(storage), offset, shape, strides, ..] => {
                    let (offset, shape, strides) = (integer(offset)?, integers(shape)?, integers(strides)?);
                    Some(Self { storage: storage.as_ref(), offset, shape, strides })
                }
                [tensor, ..] => Self::of(tensor),
                [] => None,
            },
            _ => None,
        }
    }

    /// Places the tensor within the archive.
    fn entry(self, folder: &str, files: &HashMap<String, Range<usize>>) -> std::result::Result<Entry, String> {
        let Object::Tuple(storage) = self.storage else { return Err("has a malformed storage".into()) };
        let [_, Object::Class { class_name, .. }, Object::Unicode(key), ..] = storage.as_slice() else {
            return Err("has a malformed storage".into());
        };
        let dtype = storage_type(class_name).ok_or_else(|| format!("is of unknown storage type {class_name}"))?;
        let file = format!("{folder}data/{key}");
        let range = files.get(&file).ok_or_else(|| format!("needs {file}, which the archive doesn't hold"))?;
        if self.shape.len() != self.strides.len() {
            return Err(format!("has {} dimensions but {} strides", self.shape.len(), self.strides.len()));
        }
        let reach = extent(&self.shape, &self.strides).ok_or("has an impossible shape")?;
        let start = self.offset.checked_mul(dtype.size()).and_then(|skip| range.start.checked_add(skip));
        let end = reach.checked_mul(dtype.size()).zip(start).and_then(|(length, start)| start.checked_add(length));
        match start.zip(end) {
            Some((start, end)) if end <= range.end => {
                let strides =
                    if self.shape.iter().product::<usize>() <= 1 { row_major(&self.shape) } else { self.strides };
                Ok(Entry { file: 0, dtype, shape: self.shape, strides, bytes: start..end })
            }
            _ => Err(format!("of shape {:?} reaches beyond its storage of {} bytes", self.shape, range.len())),
        }
    }
}

/// Number of elements from the first to the last one of a strided view, both included.
fn extent(shape: &[usize], strides: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size))?;
    if shape.contains(&0) {
        return Some(0);
    }
    shape
        .iter()
        .zip(strides)
        .try_fold(1usize, |reach, (size, stride)| reach.checked_add((size - 1).checked_mul(*stride)?))
}

fn storage_type(class: &str) -> Option<Stored> {
    Some(match class {
        "DoubleStorage" => Stored::F64,
        "FloatStorage" => Stored::F32,
        "HalfStorage" => Stored::F16,
        "BFloat16Storage" => Stored::Bf16,
        "LongStorage" => Stored::Other { size: 8 },
        "IntStorage" => Stored::Other { size: 4 },
        "ShortStorage" => Stored::Other { size: 2 },
        "ByteStorage" | "CharStorage" | "BoolStorage" => Stored::Other { size: 1 },
        _ => return None,
    })
}

fn integer(object: &Object) -> Option<usize> {
    match object {
        Object::Int(value) => usize::try_from(*value).ok(),
        Object::Long(value) => usize::try_from(*value).ok(),
        _ => None,
    }
}

fn integers(object: &Object) -> Option<Vec<usize>> {
    match object {
        Object::Tuple(values) | Object::List(values) => values.iter().map(integer).collect(),
        _ => None,
    }
}
