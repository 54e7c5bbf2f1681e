//! Weight files: safetensors (whole or sharded) and PyTorch state dicts, mapped, decoded to `f32` one tensor at a time.
//!
//! A matrix `NAME` of 8-bit integers is a quantised one: row `i` stands for its integers times element `i` of the tensor
//! `NAME_scale`.

mod canonical;
mod pickle;
mod safetensors;
mod write;

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossmodal_kernels::MappedFile;
use crossmodal_kernels::product::{INT8_LEVELS, Int8Weights};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

pub use canonical::{CanonicalWeights, Recipe, Recipes, SourceTensor};
pub(crate) use write::write_sources;
pub use write::{WeightType, write};

use crate::error::{Error, Result};

/// Where the bytes of a weight file are.
#[derive(Debug, Clone)]
pub enum WeightBytes {
    /// Built into the program.
    Static(&'static [u8]),
    /// In a file, to be mapped.
    File(PathBuf),
    /// In memory, for example the parameters that an untrained model begins with.
    Owned(Arc<[u8]>),
}

/// A weight file: a name for messages and its bytes.
#[derive(Debug, Clone)]
pub struct WeightFile {
    /// File name; its ending decides the format.
    pub name: String,
    /// The bytes.
    pub bytes: WeightBytes,
}

/// Number types that tensors are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    F64,
    F32,
    F16,
    Bf16,
    /// Levels of a quantised matrix, with a scale per row in a tensor of their own.
    I8,
    /// Other integers and booleans: counters and position ids, never weights.
    Other {
        size: usize,
    },
}

impl Stored {
    fn size(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::I8 => 1,
            Self::Other { size } => size,
        }
    }
}

/// Where one tensor lies.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    file: usize,
    dtype: Stored,
    shape: Vec<usize>,
    /// Distance between neighbours along each dimension, in elements.
    strides: Vec<usize>,
    /// Bytes of the tensor's storage within the file, from its first element.
    bytes: Range<usize>,
}

/// The row-major strides of a shape.
pub(crate) fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
    }
    strides
}

enum OpenFile {
    Static(&'static [u8]),
    Mapped(MappedFile),
    Owned(Arc<[u8]>),
}

impl OpenFile {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Static(bytes) => bytes,
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// All tensors of a checkpoint, over one or several files.
pub struct Checkpoint {
    files: Vec<(PathBuf, OpenFile)>,
    entries: HashMap<String, Entry>,
    metadata: HashMap<String, String>,
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint").field("tensors", &self.entries.len()).finish_non_exhaustive()
    }
}

impl Checkpoint {
    /// Maps the files and reads their tables of contents. Nothing is decoded yet.
    ///
    /// # Errors
    /// A file that is missing, damaged, in an unknown format, or holds a tensor of a name that another file has too.
    pub fn open(files: &[WeightFile]) -> Result<Self> {
        let mut checkpoint = Self { files: Vec::new(), entries: HashMap::new(), metadata: HashMap::new() };
        for file in files {
            checkpoint.add(file)?;
        }
        Ok(checkpoint)
    }

    fn add(&mut self, file: &WeightFile) -> Result<()> {
        let (path, open) = match &file.bytes {
            WeightBytes::Static(bytes) => (PathBuf::from(&file.name), OpenFile::Static(bytes)),
            WeightBytes::Owned(bytes) => (PathBuf::from(&file.name), OpenFile::Owned(bytes.clone())),
            WeightBytes::File(path) => {
                let map = MappedFile::open(path).map_err(|error| Error::io(path, error))?;
                (path.clone(), OpenFile::Mapped(map))
            }
        };
        let number = self.files.len();
        let bytes = open.bytes();
        let table = match format_of(&path, bytes)? {
            Format::Safetensors => {
                let (table, metadata) = safetensors::table(&path, bytes)?;
                self.metadata.extend(metadata);
                table
            }
            Format::Pickle => pickle::table(&path, bytes)?,
        };
        for (name, mut entry) in table {
            entry.file = number;
            if self.entries.insert(name.clone(), entry).is_some() {
                return Err(Error::tensor(&path, &name, "is in another file of the checkpoint too"));
            }
        }
        self.files.push((path, open));
        Ok(())
    }

    /// Names of all tensors, in no particular order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// Free-form metadata of safetensors headers.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// The first file, for messages that concern the checkpoint as a whole.
    pub fn path(&self) -> &Path {
        self.files.first().map_or(Path::new("checkpoint"), |(path, _)| path)
    }

    /// Paths of the files that are mapped.
    pub fn mapped_paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().filter(|(_, open)| matches!(open, OpenFile::Mapped(_))).map(|(path, _)| path.as_path())
    }

    /// Size of all files together, in bytes.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|(_, open)| open.bytes().len() as u64).sum()
    }

    /// Whether a tensor holds the scales of a quantised one.
    pub(crate) fn is_scale(&self, name: &str) -> bool {
        let of = name.strip_suffix(SCALE).and_then(|matrix| self.entries.get(matrix));
        of.is_some_and(|entry| entry.dtype == Stored::I8)
    }

    /// Decodes a tensor to `f32` in row-major order.
    ///
    /// # Errors
    /// A tensor that is missing, doesn't hold floating-point numbers, or holds NaN or infinity.
    pub fn load(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        let (entry, path, bytes) = self.find(name)?;
        if entry.dtype == Stored::I8 {
            let (shape, levels) = self.levels(name)?;
            return Ok((shape, levels.dequantise()));
        }
        let count: usize = entry.shape.iter().product();
        let values = if entry.strides == row_major(&entry.shape) || count <= 1 {
            decode(&bytes[..count * entry.dtype.size()], entry.dtype)
        } else {
            decode(bytes, entry.dtype).map(|storage| gather(&storage, &entry.shape, &entry.strides))
        };
        let values =
            values.ok_or_else(|| Error::tensor(path, name, "holds integers, expected floating-point numbers"))?;
        check_finite(path, name, &values)?;
        self.release(entry);
        Ok((entry.shape.clone(), values))
    }

    /// The integers and scales of a quantised matrix; `None` where the tensor holds something else, or integers of a wider range than
    /// the kernels compute with.
    ///
    /// # Errors
    /// A quantised matrix without its scales, or with scales that don't fit.
    pub fn int8(&self, name: &str) -> Result<Option<Int8Weights>> {
        if !self.entries.get(name).is_some_and(|entry| entry.dtype == Stored::I8) {
            return Ok(None);
        }
        let (_, levels) = self.levels(name)?;
        let fit = levels.values.iter().all(|level| i32::from(*level).abs() <= INT8_LEVELS);
        Ok(fit.then_some(levels))
    }

    fn levels(&self, name: &str) -> Result<(Vec<usize>, Int8Weights)> {
        let (entry, path, bytes) = self.find(name)?;
        let (shape, scales) = self.load(&format!("{name}{SCALE}"))?;
        let rows = entry.shape.first().copied().unwrap_or(0);
        if entry.shape.len() != 2 || shape.iter().product::<usize>() != rows {
            let reason = format!("is quantised with shape {:?}, but its scales have shape {shape:?}", entry.shape);
            return Err(Error::tensor(path, name, reason));
        }
        let values = bytes.iter().map(|byte| i8::from_le_bytes([*byte])).collect();
        self.release(entry);
        Ok((entry.shape.clone(), Int8Weights { values, scales }))
    }

    /// Decodes one row of a matrix into `row`; `None` where that can't be done without the rest.
    ///
    /// # Errors
    /// As [`load`](Self::load), and a row that doesn't exist or is of another length.
    pub fn load_row(&self, name: &str, at: usize, row: &mut [f32]) -> Result<Option<()>> {
        let (entry, path, bytes) = self.find(name)?;
        let [rows, width] = entry.shape[..] else { return Ok(None) };
        if entry.strides != row_major(&entry.shape) {
            return Ok(None);
        }
        if at >= rows || row.len() != width {
            let reason = format!("has shape {:?}, row {at} of length {} was asked for", entry.shape, row.len());
            return Err(Error::tensor(path, name, reason));
        }
        let size = entry.dtype.size();
        let bytes = &bytes[at * width * size..(at + 1) * width * size];
        if entry.dtype == Stored::I8 {
            let mut scale = [0.0];
            let scales = format!("{name}{SCALE}");
            let (scales_entry, _, scale_bytes) = self.find(&scales)?;
            let place = at * scales_entry.dtype.size();
            match scale_bytes.get(place..place + scales_entry.dtype.size()) {
                Some(bytes) if decode_into(bytes, scales_entry.dtype, &mut scale) => {}
                _ => return Err(Error::tensor(path, &scales, format!("has no floating-point scale for row {at}"))),
            }
            row.iter_mut().zip(bytes).for_each(|(x, byte)| *x = f32::from(i8::from_le_bytes([*byte])) * scale[0]);
        } else if !decode_into(bytes, entry.dtype, row) {
            return Err(Error::tensor(path, name, "holds integers, expected floating-point numbers"));
        }
        check_finite(path, name, row)?;
        Ok(Some(()))
    }

    fn find(&self, name: &str) -> Result<(&Entry, &Path, &[u8])> {
        let entry = self.entries.get(name).ok_or_else(|| Error::tensor(self.path(), name, "is missing"))?;
        let (path, open) = &self.files[entry.file];
        Ok((entry, path, &open.bytes()[entry.bytes.clone()]))
    }

    /// Lets go of a tensor's pages, lest the file count as memory beside what was made of it.
    fn release(&self, entry: &Entry) {
        if let (_, OpenFile::Mapped(map)) = &self.files[entry.file] {
            map.release(entry.bytes.clone());
        }
    }
}

/// Ending of the names of scales.
pub(crate) const SCALE: &str = "_scale";

fn check_finite(path: &Path, name: &str, values: &[f32]) -> Result<()> {
    // Blocks without an early way out are checked many elements at a time.
    let finite = |values: &[f32]| values.iter().fold(true, |all, value| all & value.is_finite());
    match values.chunks(CHUNK).position(|chunk| !finite(chunk)) {
        None => Ok(()),
        Some(chunk) => {
            let at = chunk * CHUNK + values[chunk * CHUNK..].iter().position(|value| !value.is_finite()).unwrap_or(0);
            let reason = format!("holds {} at element {at}: the checkpoint is damaged", values[at]);
            Err(Error::tensor(path, name, reason))
        }
    }
}

enum Format {
    Safetensors,
    Pickle,
}

/// Decides by content, and by name only to word the refusal.
fn format_of(path: &Path, bytes: &[u8]) -> Result<Format> {
    if bytes.is_empty() {
        return Err(Error::malformed(path, "the file is empty"));
    }
    if bytes.starts_with(b"PK\x03\x04") {
        return Ok(Format::Pickle);
    }
    if bytes.starts_with(b"\x80") && bytes.get(1).is_some_and(|protocol| (2..=5).contains(protocol)) {
        let advice = "save it again with PyTorch 1.6 or later, or as safetensors";
        return Err(Error::Unsupported(format!(
            "{}: a PyTorch file of the format before version 1.6 is not supported; {advice}",
            path.display()
        )));
    }
    if bytes.starts_with(b"version https://git-lfs") {
        return Err(Error::malformed(path, "this is a Git LFS pointer, not the weights; run `git lfs pull`"));
    }
    if bytes.get(8) == Some(&b'{') {
        return Ok(Format::Safetensors);
    }
    Err(Error::malformed(path, "neither a safetensors file nor a PyTorch archive, or its start is damaged"))
}

/// Numbers decoded at a time on the stack, to reach the vectorised conversions of `half` without alignment demands.
const CHUNK: usize = 4096;

fn decode(bytes: &[u8], dtype: Stored) -> Option<Vec<f32>> {
    let mut values = vec![0f32; bytes.len() / dtype.size()];
    decode_into(bytes, dtype, &mut values).then_some(values)
}

/// Decodes as many numbers as `values` holds; whether the type is a floating-point one.
fn decode_into(bytes: &[u8], dtype: Stored, values: &mut [f32]) -> bool {
    match dtype {
        Stored::F64 => {
            for (value, raw) in values.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *value = f64::from_le_bytes(*raw) as f32;
            }
        }
        Stored::F32 => {
            for (value, raw) in values.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *value = f32::from_le_bytes(*raw);
            }
        }
        Stored::F16 => {
            let mut chunk = [f16::ZERO; CHUNK];
            for (values, raw) in values.chunks_mut(CHUNK).zip(bytes.chunks(2 * CHUNK)) {
                for (half, raw) in chunk.iter_mut().zip(raw.as_chunks::<2>().0) {
                    *half = f16::from_le_bytes(*raw);
                }
                chunk[..values.len()].convert_to_f32_slice(values);
            }
        }
        Stored::Bf16 => {
            for (value, raw) in values.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *value = bf16::from_le_bytes(*raw).to_f32();
            }
        }
        Stored::I8 | Stored::Other { .. } => return false,
    }
    true
}

/// Row-major copy of a strided view.
fn gather(storage: &[f32], shape: &[usize], strides: &[usize]) -> Vec<f32> {
    let count: usize = shape.iter().product();
    (0..count)
        .map(|flat| {
            let mut rest = flat;
            let mut at = 0;
            for (size, stride) in shape.iter().zip(strides).rev() {
                at += rest % size * stride;
                rest /= size;
            }
            storage[at]
        })
        .collect()
}
