//! Read-only memory-mapped files: the one reviewed wrapper around `mmap` that the workspace uses.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

use memmap2::{Mmap, MmapOptions};

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
        Self::open_prefix(path, u64::MAX)
    }

    /// Maps the first `length` bytes of `path`, or all of it where it is shorter. What lies behind them may be cut off or
    /// overwritten while the mapping lives.
    ///
    /// # Errors
    /// Any error of opening, inspecting or mapping the file.
    pub fn open_prefix(path: &Path, length: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len().min(length);
        let length = usize::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        Self::map(&file, length)
    }

    fn map(file: &File, length: usize) -> io::Result<Self> {
        if length == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: the mapping is private to this value and read-only, and `length` bytes of the file exist. Two kinds of
        // file are mapped: checkpoints, which nobody rewrites in place while they are in use, and the committed part of
        // vector files, which this program only ever appends to, cuts behind, or replaces as a whole by rename; so
        // nothing in the mapped range is truncated or modified by this program. (Repairing a file whose header is
        // damaged rewrites that header; no reader holds such a file, since a wrong header is refused on opening.) Every
        // parser of mapped bytes validates what it reads, and no value of a type with invalid bit patterns is made.
        let map = unsafe { MmapOptions::new().len(length).map(file)? };
        Ok(Self { map: Some(map) })
    }

    /// Tells the system that single places will be read: it then reads their pages from the file and not what lies behind them. Without effect where
    /// the system has no such request.
    pub fn expect_single_reads(&self) {
        #[cfg(unix)]
        if let Some(map) = &self.map {
            // A refusal only means that more is read.
            drop(map.advise(memmap2::Advice::Random));
        }
    }

    /// Tells the system that these bytes won't be needed soon: they stop counting as this process's memory and are read from the
    /// file again if they are needed after all. Without effect where the system has no such request.
    pub fn release(&self, range: Range<usize>) {
        #[cfg(target_os = "linux")]
        if let Some(map) = self.map.as_ref().filter(|map| range.start < range.end && range.end <= map.len()) {
            // SAFETY: the mapping is of a file and never written to, so that a dropped page comes back with the same bytes.
            let advised = unsafe {
                map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.end - range.start)
            };
            // A refusal only means that the memory stays.
            drop(advised);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = range;
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
        assert_eq!(&*MappedFile::open_prefix(&path, 2).unwrap(), b"ab");
        assert_eq!(&*MappedFile::open_prefix(&path, 0).unwrap(), b"");
        assert!(MappedFile::open(&dir.path().join("none")).is_err());
    }

    #[test]
    fn single_reads_see_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bytes");
        let bytes: Vec<u8> = (0..50_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let map = MappedFile::open(&path).unwrap();
        map.expect_single_reads();
        assert_eq!(&*map, &bytes[..]);
    }

    #[test]
    fn released_bytes_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bytes");
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let map = MappedFile::open(&path).unwrap();
        for range in [0..100_000, 5..6, 4096..8192, 99_999..100_000, 7..7, 99_000..200_000] {
            assert_eq!(&*map, &bytes[..]);
            map.release(range);
            assert_eq!(&*map, &bytes[..]);
        }
    }
}
