//! What a run leaves behind to be read: a log of one JSON object per line, and TensorBoard's event file.

mod crc32c;
mod tensorboard;

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

pub use tensorboard::TensorBoard;

use crate::error::{Error, Result};

/// A file that is only ever added to, and cut back to where a saved state left it.
#[derive(Debug)]
pub(crate) struct GrowingFile {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl GrowingFile {
    /// Opens or makes a file and keeps its first `bytes` only: what came later is of steps that will be made again.
    pub(crate) fn open(path: &Path, bytes: u64) -> Result<Self> {
        let failed = |source| Error::File { path: path.to_path_buf(), source };
        let mut file = OpenOptions::new().create(true).write(true).truncate(false).open(path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?.len();
        if found < bytes {
            let path = path.display();
            return Err(Error::Invalid(format!("{path}: has {found} bytes, but the saved state goes with {bytes}")));
        }
        file.set_len(bytes).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Self { path: path.to_path_buf(), file, bytes })
    }

    /// Adds bytes.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|source| Error::File { path: self.path.clone(), source })?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Makes everything durable and returns the size.
    pub(crate) fn sync(&self) -> Result<u64> {
        self.file.sync_all().map_err(|source| Error::File { path: self.path.clone(), source })?;
        Ok(self.bytes)
    }
}

/// A log of one JSON object per line.
#[derive(Debug)]
pub struct Journal {
    file: GrowingFile,
}

impl Journal {
    /// Opens or makes a log and keeps its first `bytes`.
    ///
    /// # Errors
    /// A file that can't be written, or is shorter.
    pub fn open(path: &Path, bytes: u64) -> Result<Self> {
        Ok(Self { file: GrowingFile::open(path, bytes)? })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn add(&mut self, entry: &serde_json::Value) -> Result<()> {
        self.file.add(format!("{entry}\n").as_bytes())
    }

    /// Makes everything durable and returns the size in bytes.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn sync(&self) -> Result<u64> {
        self.file.sync()
    }
}
