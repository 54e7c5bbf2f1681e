//! A safetensors file of a quantised model, written tensor by tensor: sizes are known beforehand, so the header comes first.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crossmodal_kernels::product::Int8Weights;
use serde_json::{Map, Value, json};

use super::folder::NewFolder;
use super::{Form, SourceTensor};
use crate::error::{Error, Result};
use crate::weights::{Checkpoint, SCALE};

/// A file being written.
#[derive(Debug)]
pub(super) struct WeightWriter {
    /// For messages.
    path: PathBuf,
    file: BufWriter<File>,
    /// Where the data of each tensor starts in the file.
    starts: HashMap<String, u64>,
    size: u64,
}

impl WeightWriter {
    /// Writes the header for these tensors of a checkpoint into a new file of a folder.
    pub(super) fn create(
        folder: &NewFolder<'_>,
        name: &str,
        checkpoint: &Checkpoint,
        tensors: &[SourceTensor<'_>],
        metadata: &[(&str, &str)],
    ) -> Result<Self> {
        let layout = Layout::of(checkpoint, tensors, metadata)?;
        let path = folder.shown(name);
        let file = File::create_new(folder.file(name)).map_err(|error| failed(&path, error, layout.size))?;
        let mut writer =
            Self { path, file: BufWriter::with_capacity(1 << 20, file), starts: layout.starts, size: layout.size };
        writer.put(0, |file| file.write_all(&layout.header))?;
        Ok(writer)
    }

    /// Writes a tensor, and its scales if it is to be quantised.
    pub(super) fn add(&mut self, checkpoint: &Checkpoint, tensor: &SourceTensor<'_>) -> Result<()> {
        let (shape, values) = checkpoint.load(tensor.name)?;
        let inner = shape.get(1..).map_or(1, |sizes| sizes.iter().product());
        let levels = match tensor.form {
            Form::Floats => return self.put_floats(tensor.name, &values),
            Form::Factors => Int8Weights::quantise(&values, inner),
            Form::Rows => finest(&values, inner),
        };
        drop(values);
        self.put_floats(&scales_of(tensor.name), &levels.scales)?;
        self.put(self.start(tensor.name), |file| {
            levels.values.iter().try_for_each(|level| file.write_all(&level.to_le_bytes()))
        })
    }

    /// Makes everything durable and returns the file's size.
    pub(super) fn finish(self) -> Result<u64> {
        let Self { path, file, size, .. } = self;
        let file = file.into_inner().map_err(|error| failed(&path, error.into_error(), size))?;
        file.sync_all().map_err(|error| failed(&path, error, size))?;
        Ok(size)
    }

    fn start(&self, name: &str) -> u64 {
        self.starts.get(name).copied().unwrap_or_default()
    }

    fn put_floats(&mut self, name: &str, values: &[f32]) -> Result<()> {
        self.put(self.start(name), |file| values.iter().try_for_each(|value| file.write_all(&value.to_le_bytes())))
    }

    fn put(&mut self, start: u64, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
        let written = self.file.seek(SeekFrom::Start(start)).and_then(|_| write(&mut self.file));
        written.map_err(|error| failed(&self.path, error, self.size))
    }
}

/// Quantises rows that are looked up and never multiplied as integers, so that the whole range can be used: half the error of
/// [`Int8Weights::quantise`].
fn finest(values: &[f32], inner: usize) -> Int8Weights {
    let mut levels = Int8Weights { values: Vec::with_capacity(values.len()), scales: Vec::new() };
    for row in values.chunks_exact(inner) {
        let largest = row.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        let scale = largest / 127.0;
        let (scale, inverse) = if scale.is_normal() { (scale, 1.0 / scale) } else { (0.0, 0.0) };
        levels.scales.push(scale);
        levels.values.extend(row.iter().map(|x| (x * inverse).round_ties_even().clamp(-127.0, 127.0) as i8));
    }
    levels
}

fn scales_of(name: &str) -> String {
    format!("{name}{SCALE}")
}

fn failed(path: &Path, source: io::Error, size: u64) -> Error {
    let source = match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            io::Error::new(source.kind(), format!("no room for the {size} bytes of this file"))
        }
        _ => source,
    };
    Error::Io { path: path.to_path_buf(), source }
}

/// Where everything lies in a file.
struct Layout {
    header: Vec<u8>,
    starts: HashMap<String, u64>,
    size: u64,
}

impl Layout {
    /// Floats first, so that they are aligned whatever the integers' sizes are.
    fn of(checkpoint: &Checkpoint, tensors: &[SourceTensor<'_>], metadata: &[(&str, &str)]) -> Result<Self> {
        let mut slots: Vec<(String, &str, Vec<usize>)> = Vec::new();
        for tensor in tensors {
            let missing = || Error::tensor(checkpoint.path(), tensor.name, "is missing");
            let shape = checkpoint.shape(tensor.name).ok_or_else(missing)?.to_vec();
            if tensor.form.is_quantised() {
                let scales = scales_of(tensor.name);
                if checkpoint.contains(&scales) {
                    return Err(Error::tensor(checkpoint.path(), &scales, "has the name that scales would have"));
                }
                slots.push((scales, "F32", shape[..1].to_vec()));
                slots.push((tensor.name.to_string(), "I8", shape));
            } else {
                slots.push((tensor.name.to_string(), "F32", shape));
            }
        }
        slots.sort_by_key(|(_, dtype, _)| *dtype != "F32");
        let mut header = Map::new();
        let metadata: Map<String, Value> =
            metadata.iter().map(|(key, value)| (key.to_string(), json!(value))).collect();
        header.insert("__metadata__".to_string(), Value::Object(metadata));
        let mut starts = HashMap::new();
        let mut end = 0;
        for (name, dtype, shape) in slots {
            let start = end;
            end += shape.iter().product::<usize>() as u64 * if dtype == "F32" { 4 } else { 1 };
            header.insert(name.clone(), json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] }));
            starts.insert(name, start);
        }
        let mut text = Value::Object(header).to_string();
        // The format asks for spaces up to a multiple of eight.
        text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
        let data = 8 + text.len() as u64;
        starts.values_mut().for_each(|start| *start += data);
        let header = [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
        Ok(Self { header, starts, size: data + end })
    }
}
