//! The folder of a run: who may write it, and what lies where.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::log::TensorBoard;

/// A folder that one run writes at a time.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Held for its lock.
    _lock: File,
}

impl RunFolder {
    /// Opens or makes a folder, for this process alone.
    ///
    /// # Errors
    /// A folder that can't be made, or that another process trains in.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |source| Error::File { path: path.to_path_buf(), source };
        std::fs::create_dir_all(path).map_err(failed)?;
        let lock = File::options().create(true).truncate(false).write(true).open(path.join(".lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_path_buf(), _lock: lock }),
            Err(std::fs::TryLockError::WouldBlock) => {
                Err(Error::Invalid(format!("{}: another process trains in this folder", path.display())))
            }
            Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole state of the run.
    pub fn state(&self) -> PathBuf {
        self.path.join("state.safetensors")
    }

    /// One JSON object per line.
    pub fn log(&self) -> PathBuf {
        self.path.join("log.jsonl")
    }

    /// The model with the best validation.
    pub fn best(&self) -> PathBuf {
        self.path.join("best")
    }

    /// The latest model.
    pub fn last(&self) -> PathBuf {
        self.path.join("last")
    }

    /// Curves and examples.
    pub fn report(&self) -> PathBuf {
        self.path.join("report.html")
    }

    /// TensorBoard's event file, whose folder is made.
    pub(super) fn tensorboard(&self) -> Result<PathBuf> {
        let folder = self.path.join("tensorboard");
        std::fs::create_dir_all(&folder).map_err(|source| Error::File { path: folder.clone(), source })?;
        Ok(folder.join(TensorBoard::FILE))
    }
}
