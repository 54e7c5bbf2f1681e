//! Backup: a copy of one committed state as a collection of its own, made while others read and write, and verified.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::layout::{Layout, sync_folder};
use super::rows::{FieldRow, load_fields};
use super::vector_file::too_short;
use super::{LocalStore, MAX_READ_ATTEMPTS, OpenOptions, missing_is_damage, schema};
use crate::{StoreError, VectorStore};

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupReport {
    /// Number of the last change in it.
    pub change: u64,
    /// Items, each checked.
    pub items: u64,
    /// Vectors of items, each checked.
    pub vectors: u64,
    /// Bytes of the folder.
    pub bytes: u64,
}

/// Removes what was begun, unless it was completed.
struct Partial {
    folder: PathBuf,
    complete: bool,
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.complete {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

impl LocalStore {
    /// Copies the last committed state into `destination`, which must not exist: a collection that can be opened as any other. It appears
    /// under that name when it is complete, synced and verified. Others may read, write and compact meanwhile. Vectors of removed items come
    /// along, derived indexes don't.
    ///
    /// # Errors
    /// `InvalidValue` when `destination` exists, `Damaged` when the collection isn't sound, `DiskFull`, `ReadOnly` and other failures of
    /// the storage; nothing is left behind then.
    pub fn backup(&self, destination: &Path) -> Result<BackupReport, StoreError> {
        let io_error = |path: &Path, error| StoreError::io(path, error);
        if destination.symlink_metadata().is_ok() {
            let (value, reason) = (destination.display().to_string(), "exists already".to_owned());
            return Err(StoreError::InvalidValue { what: "backup folder", value, reason });
        }
        let destination = std::path::absolute(destination).map_err(|error| io_error(destination, error))?;
        let (Some(parent), Some(name)) = (destination.parent(), destination.file_name()) else {
            let (value, reason) = (destination.display().to_string(), "has no name".to_owned());
            return Err(StoreError::InvalidValue { what: "backup folder", value, reason });
        };
        fs::create_dir_all(parent).map_err(|error| io_error(parent, error))?;
        let folder = parent.join(format!(".{}.partial-{}", name.to_string_lossy(), std::process::id()));
        let mut attempt = 1;
        loop {
            // What a killed process with this id left behind is worth nothing.
            let _ = fs::remove_dir_all(&folder);
            let mut partial = Partial { folder: folder.clone(), complete: false };
            match self.copy_to(&folder) {
                // A compaction removed a vector file between the copies of the database and of that file.
                Err(StoreError::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && attempt < MAX_READ_ATTEMPTS =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(missing_is_damage(error).in_folder(self.folder())),
                Ok(()) => {
                    let report = self.check(&folder)?;
                    fs::rename(&folder, &destination).map_err(|error| io_error(&destination, error))?;
                    partial.complete = true;
                    sync_folder(parent)?;
                    return Ok(report);
                }
            }
        }
    }

    /// The database first: the vectors that it names stand in the files already.
    fn copy_to(&self, folder: &Path) -> Result<(), StoreError> {
        let copy = Layout::new(folder);
        copy.create_folders()?;
        let target = copy.database();
        let text = target.to_str().ok_or_else(|| StoreError::InvalidValue {
            what: "backup folder",
            value: folder.display().to_string(),
            reason: "is not Unicode".to_owned(),
        })?;
        // One read transaction: everything up to one commit, and nothing of the log beside it.
        schema::open_reader(&self.layout)?.execute("VACUUM INTO ?1", [text])?;
        sync(&target)?;
        let fields = load_fields(&schema::open_reader(&copy)?)?;
        for field in fields {
            let name = |layout: &Layout| layout.vector_file(field.key, field.generation);
            copy_rows(&field, &name(&self.layout), &name(&copy))?;
        }
        sync_folder(&copy.vectors())?;
        sync_folder(folder)
    }

    fn check(&self, folder: &Path) -> Result<BackupReport, StoreError> {
        let copy = Self::open(folder, &OpenOptions::read())?;
        let (info, report) = (copy.info()?, copy.verify()?);
        if let Some(problem) = report.problems.first() {
            let reason = format!("a copy of it is not sound: {} ({} problems)", problem.detail, report.problems.len());
            return Err(StoreError::Damaged { file: self.folder().to_path_buf(), reason });
        }
        Ok(BackupReport { change: info.change, items: report.items, vectors: report.vectors, bytes: info.bytes })
    }
}

/// The committed rows of a vector file; whatever a writer has appended behind them is left out.
fn copy_rows(field: &FieldRow, from: &Path, to: &Path) -> Result<(), StoreError> {
    let length = field.header().file_length(field.rows);
    let source = File::open(from).map_err(|error| StoreError::io(from, error))?;
    let mut target = File::create_new(to).map_err(|error| StoreError::io(to, error))?;
    let copied = io::copy(&mut source.take(length), &mut target).map_err(|error| StoreError::io(to, error))?;
    if copied < length {
        let whole = copied.saturating_sub(field.header().file_length(0)) / field.header().row_bytes();
        return Err(too_short(from, whole, field.rows));
    }
    target.sync_all().map_err(|error| StoreError::io(to, error))
}

fn sync(path: &Path) -> Result<(), StoreError> {
    let file = fs::OpenOptions::new().write(true).open(path);
    file.and_then(|file| file.sync_all()).map_err(|error| StoreError::io(path, error))
}
