//! Files of embeddings: `.npy`, `.safetensors`, `.jsonl`. Written under another name and renamed, so that none is ever half done.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use crossmodal_engine::exchange::npy;
use serde::Serialize;
use serde_json::json;
use tempfile::NamedTempFile;

use crate::failure::Usage;

/// A line of `.jsonl`.
#[derive(Debug, Serialize)]
pub struct Record<'a> {
    /// The text, or the path.
    pub input: &'a str,
    /// `text` or `image`.
    pub modality: &'a str,
    /// The vector.
    pub embedding: &'a [f32],
}

/// The kinds of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// NumPy's, version 1.0: float32, C order, shape (n, d).
    Npy,
    /// A tensor `embeddings` of shape (n, d), the inputs as a JSON list in its metadata.
    Safetensors,
    /// One record a line.
    JsonLines,
}

impl Format {
    /// The format that a file's name asks for.
    ///
    /// # Errors
    /// A name with another ending.
    pub fn of(path: &Path) -> Result<Self, Usage> {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        match ending.as_deref() {
            Some("npy") => Ok(Self::Npy),
            Some("safetensors") => Ok(Self::Safetensors),
            Some("jsonl" | "ndjson") => Ok(Self::JsonLines),
            _ => Err(Usage(format!("{}: the name must end in .npy, .safetensors or .jsonl", path.display()))),
        }
    }

    /// Whether a row is known by its place alone, so that none may be missing.
    pub fn needs_every_row(self) -> bool {
        self != Self::JsonLines
    }
}

/// A file in the making.
pub struct VectorFile {
    format: Format,
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
    dimension: usize,
    /// Names of the rows, for the one format that keeps them.
    inputs: Vec<String>,
    rows: usize,
    values: Vec<f32>,
}

impl VectorFile {
    /// Begins a file beside its final place.
    ///
    /// # Errors
    /// A folder that can't be written.
    pub fn create(path: &Path, format: Format, dimension: usize) -> anyhow::Result<Self> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = tempfile::Builder::new().prefix(".crossmodal-").tempfile_in(folder);
        let file = file.with_context(|| format!("can't write {}", path.display()))?;
        Ok(Self {
            format,
            path: path.to_path_buf(),
            file: BufWriter::new(file),
            dimension,
            inputs: Vec::new(),
            rows: 0,
            values: Vec::new(),
        })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// A disk that is full or fails.
    pub fn add(&mut self, record: &Record<'_>) -> anyhow::Result<()> {
        self.rows += 1;
        if self.format == Format::Safetensors {
            self.inputs.push(record.input.to_string());
        }
        match self.format {
            Format::Npy | Format::Safetensors => self.values.extend_from_slice(record.embedding),
            Format::JsonLines => {
                serde_json::to_writer(&mut self.file, record)?;
                self.file.write_all(b"\n").with_context(|| self.path.display().to_string())?;
            }
        }
        Ok(())
    }

    /// Number of rows so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Completes the file and gives it its name.
    ///
    /// # Errors
    /// A disk that is full or fails; nothing is left behind then.
    pub fn finish(mut self) -> anyhow::Result<()> {
        let named = || self.path.display().to_string();
        let header = match self.format {
            Format::Npy => npy::header("<f4", &[self.rows, self.dimension]),
            Format::Safetensors => safetensors_header(&self.inputs, self.dimension)?,
            Format::JsonLines => Vec::new(),
        };
        let values = self.values.iter().map(|value| value.to_le_bytes());
        let write = || -> std::io::Result<()> {
            self.file.write_all(&header)?;
            for value in values {
                self.file.write_all(&value)?;
            }
            self.file.flush()
        };
        write().with_context(named)?;
        let file = self
            .file
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)
            .with_context(|| self.path.display().to_string())?;
        give_ordinary_permissions(file.as_file());
        file.persist(&self.path).with_context(|| self.path.display().to_string())?;
        Ok(())
    }
}

/// Temporary files are private; a result is as readable as any file the user makes (short of asking for the umask, which
/// can't be read without changing it).
fn give_ordinary_permissions(file: &std::fs::File) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let _ = file.set_permissions(std::fs::Permissions::from_mode(0o644));
    }
    #[cfg(not(unix))]
    let _ = file;
}

/// Length and JSON, padded so that the data begins at a multiple of 8.
fn safetensors_header(inputs: &[String], columns: usize) -> anyhow::Result<Vec<u8>> {
    let rows = inputs.len();
    let document = json!({
        "__metadata__": { "inputs": serde_json::to_string(inputs)? },
        "embeddings": { "dtype": "F32", "shape": [rows, columns], "data_offsets": [0, rows * columns * 4] },
    });
    let mut text = document.to_string();
    let padding = text.len().next_multiple_of(8) - text.len();
    text.push_str(&" ".repeat(padding));
    Ok([&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_aligned() {
        for (rows, columns) in [(0, 128), (1, 512), (1_000_000_000, 1280)] {
            let header = npy::header("<f4", &[rows, columns]);
            assert_eq!(header.len() % 64, 0);
            assert_eq!(usize::from(u16::from_le_bytes([header[8], header[9]])), header.len() - 10);
            assert!(header.ends_with(b"\n"));
        }
        assert_eq!(safetensors_header(&["ü\"".into()], 3).unwrap().len() % 8, 0);
    }

    #[test]
    fn endings_choose_the_format() {
        assert_eq!(Format::of(Path::new("a.NPY")).unwrap(), Format::Npy);
        assert!(Format::of(Path::new("a.csv")).unwrap_err().0.contains(".safetensors"));
    }

    #[test]
    fn an_unfinished_file_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npy");
        let mut file = VectorFile::create(&path, Format::Npy, 2).unwrap();
        file.add(&Record { input: "a", modality: "text", embedding: &[1.0, 2.0] }).unwrap();
        assert_eq!(file.rows(), 1);
        drop(file);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
