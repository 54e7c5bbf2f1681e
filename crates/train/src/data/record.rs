//! One item of a data set: where its content lies, what is said of it, and what it is known by.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

/// Largest file that is read as one side of a pair.
const MOST_BYTES: u64 = 256 << 20;

/// Where content lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A text at hand.
    Text(Arc<str>),
    /// A file.
    File(Arc<Path>),
    /// A part of a file: a member of a shard.
    Slice {
        /// The shard.
        file: Arc<Path>,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
    },
}

impl Location {
    /// Reads the content. The error is a reason for people.
    pub fn read(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::Text(text) => Ok(text.as_bytes().to_vec()),
            Self::File(path) => read_file(path),
            Self::Slice { file, offset, length } => read_slice(file, *offset, *length),
        }
    }

    /// The text, where this is one.
    pub fn text(&self) -> Option<&Arc<str>> {
        match self {
            Self::Text(text) => Some(text),
            Self::File(_) | Self::Slice { .. } => None,
        }
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let explain = |error: std::io::Error| format!("{}: {error}", path.display());
    // A pipe or a device may never end, and opening one may never return.
    let metadata = std::fs::metadata(path).map_err(explain)?;
    if !metadata.is_file() {
        return Err(format!("{}: not a regular file", path.display()));
    }
    if metadata.len() > MOST_BYTES {
        let size = metadata.len();
        return Err(format!("{}: a file of {size} bytes is over the limit of {MOST_BYTES}", path.display()));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut bytes)).map_err(explain)?;
    Ok(bytes)
}

fn read_slice(path: &Path, offset: u64, length: u64) -> Result<Vec<u8>, String> {
    if length > MOST_BYTES {
        let shown = path.display();
        return Err(format!("{shown}: a member of {length} bytes at {offset} is over the limit of {MOST_BYTES}"));
    }
    let read = || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = vec![0; length as usize];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error: std::io::Error| format!("{}: {length} bytes at {offset}: {error}", path.display()))
}

/// Something said of an item, or whatever else stands on the right side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counterpart {
    /// Which of the data set's columns it comes from.
    pub column: u16,
    /// The content.
    pub location: Location,
}

/// One item: a left side, and one or more right sides that belong to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its name in messages: path or key.
    pub key: Arc<str>,
    /// Hash of what the item is known by. Equal numbers never stand in one batch, nor on both sides of a split.
    pub identity: u64,
    /// The left side.
    pub left: Location,
    /// The right sides, at least one.
    pub right: Vec<Counterpart>,
    /// Number of its concept.
    pub concept: Option<u32>,
    /// Number of its class.
    pub label: Option<u32>,
    /// How often a pass takes it on average, 0 or more.
    pub weight: f32,
}

/// The first 64 bits of the BLAKE3 hash.
pub fn hash_of(bytes: &[u8]) -> u64 {
    let hash = blake3::hash(bytes);
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_read_from_wherever_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        let path: Arc<Path> = folder.path().join("x").into();
        std::fs::write(&path, b"0123456789").unwrap();
        assert_eq!(Location::Text("caption".into()).read().unwrap(), b"caption");
        assert_eq!(Location::File(path.clone()).read().unwrap(), b"0123456789");
        assert_eq!(Location::Slice { file: path.clone(), offset: 2, length: 3 }.read().unwrap(), b"234");
        let beyond = Location::Slice { file: path.clone(), offset: 8, length: 3 }.read().unwrap_err();
        assert!(beyond.contains("3 bytes at 8") && beyond.contains('x'), "{beyond}");
        let huge = Location::Slice { file: path, offset: 0, length: u64::MAX }.read().unwrap_err();
        assert!(huge.contains("over the limit"), "{huge}");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = Location::File(folder.path().join("none.png").into()).read().unwrap_err();
        assert!(missing.contains("none.png"), "{missing}");
        let not_a_file = Location::File(folder.path().into()).read().unwrap_err();
        assert!(not_a_file.contains("not a regular file"), "{not_a_file}");
    }
}
