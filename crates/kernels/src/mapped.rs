//! Read-only memory-mapped files: the one reviewed wrapper around `mmap` that the workspace uses.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

/// A file mapped read-only into memory; derefs to its bytes. An empty file maps to an empty slice.
#[derive(Debug)]
pub struct MappedFile {
    map: Option<Mmap>,
}

impl MappedFile {
    /// Maps the whole of `path`.
    ///
    /// # Errors
    /// Any error of opening, inspecting or mapping the file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        Self::from_file(&file)
    }

    /// Maps the whole of an open file at its current length.
    ///
    /// # Errors
    /// Any error of inspecting or mapping the file.
    pub fn from_file(file: &File) -> io::Result<Self> {
        if file.metadata()?.len() == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: the mapping is private to this value and read-only. The files mapped here are checkpoints, which
        // nobody rewrites in place while they are in use, and vector files, which are only ever appended to or
        // replaced by rename, so the mapped range is neither truncated nor modified by this program. Every parser of
        // mapped bytes validates what it reads and no value of a type with invalid bit patterns is made from them.
        let map = unsafe { Mmap::map(file)? };
        Ok(Self { map: Some(map) })
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn maps_content_and_empty_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bytes");
        File::create(&path).unwrap();
        assert_eq!(&*MappedFile::open(&path).unwrap(), b"");
        File::create(&path).unwrap().write_all(b"abc").unwrap();
        assert_eq!(&*MappedFile::open(&path).unwrap(), b"abc");
        assert!(MappedFile::open(&dir.path().join("none")).is_err());
    }
}
