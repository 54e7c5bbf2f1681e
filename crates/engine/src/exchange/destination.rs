//! A folder that appears under its name only when it is complete.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{is_archive, is_clip_retrieval};
use crate::error::{Error, Result};

/// An export on its way: files are written into a folder beside the final one.
pub(super) struct Destination {
    target: PathBuf,
    parent: PathBuf,
    folder: TempDir,
}

impl Destination {
    /// Begins an export to `target`.
    ///
    /// # Errors
    /// `target` exists: without `force`, or with it when it is no export, whose loss nobody would regret.
    pub fn create(target: &Path, force: bool) -> Result<Self> {
        let target = std::path::absolute(target).map_err(|error| Error::io(target, error))?;
        if target.symlink_metadata().is_ok() {
            let is_empty = fs::read_dir(&target).is_ok_and(|mut entries| entries.next().is_none());
            if !is_empty && !is_archive(&target) && !is_clip_retrieval(&target) {
                return Err(Error::Invalid(format!("{} exists and is no export; it is left alone", target.display())));
            }
            if !is_empty && !force {
                return Err(Error::Invalid(format!("{} exists already; --force replaces it", target.display())));
            }
        }
        let parent = target.parent().unwrap_or(Path::new(".")).to_path_buf();
        fs::create_dir_all(&parent).map_err(|error| Error::io(&parent, error))?;
        let folder = tempfile::Builder::new().prefix(".crossmodal-").tempdir_in(&parent);
        let folder = folder.map_err(|error| Error::io(&parent, error))?;
        Ok(Self { target, parent, folder })
    }

    /// Begins a file; its folder within the export is made.
    pub fn file(&self, name: &str) -> Result<OutputFile> {
        let path = self.folder.path().join(name);
        let shown = self.target.join(name);
        let failed = |error| Error::io(&shown, error);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let file = File::create_new(&path).map_err(failed)?;
        let file = BufWriter::with_capacity(1 << 20, file);
        Ok(OutputFile { name: name.to_owned(), shown, file, hasher: blake3::Hasher::new(), bytes: 0 })
    }

    /// Gives the export its name, durably.
    pub fn finish(self) -> Result<()> {
        let failed = |error| Error::io(&self.target, error);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let ordinary = fs::Permissions::from_mode(0o755);
            fs::set_permissions(self.folder.path(), ordinary).map_err(failed)?;
        }
        sync_folders(self.folder.path()).map_err(failed)?;
        // A folder can't be renamed over a full one: the old one steps aside, and comes back if anything fails.
        let aside = tempfile::Builder::new().prefix(".crossmodal-").tempdir_in(&self.parent).map_err(failed)?;
        let old = aside.path().join("old");
        let replaces = self.target.symlink_metadata().is_ok();
        if replaces {
            fs::rename(&self.target, &old).map_err(failed)?;
        }
        if let Err(error) = fs::rename(self.folder.path(), &self.target) {
            if replaces {
                fs::rename(&old, &self.target).map_err(failed)?;
            }
            return Err(failed(error));
        }
        // Moved away, so that there is nothing to remove.
        let _ = self.folder.keep();
        sync_folder(&self.parent).map_err(failed)
    }
}

fn sync_folders(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folder(&entry.path())?;
        }
    }
    sync_folder(folder)
}

/// Only Unix can open a folder and sync it.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// A file of an export, with what is needed to check it later.
pub(super) struct OutputFile {
    name: String,
    shown: PathBuf,
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    bytes: u64,
}

/// A finished file.
#[derive(Debug, Clone)]
pub(super) struct Finished {
    pub name: String,
    pub bytes: u64,
    /// BLAKE3, in hexadecimal digits.
    pub blake3: String,
}

impl OutputFile {
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|error| Error::io(&self.shown, error))
    }

    /// Syncs the file.
    pub fn finish(mut self) -> Result<Finished> {
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        synced.map_err(|error| Error::io(&self.shown, error))?;
        Ok(Finished { name: self.name, bytes: self.bytes, blake3: self.hasher.finalize().to_hex().to_string() })
    }

    /// The path to show in messages.
    pub fn path(&self) -> &Path {
        &self.shown
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}
