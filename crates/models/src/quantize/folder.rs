//! Folders that appear under their name complete or not at all.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::SCHEME_KEY;
use crate::companions::{WEIGHTS, is_part_of_a_copy};
use crate::error::{Error, Result};
use crate::source::Located;
use crate::weights::Checkpoint;

/// Where a copy is to be, checked.
#[derive(Debug)]
pub(super) struct Place {
    /// An absolute path, links above it followed.
    path: PathBuf,
    /// How the caller named it.
    given: PathBuf,
}

impl Place {
    /// Checks that writing a copy to `out` harms nothing. Folders above it are made.
    pub(super) fn choose(out: &Path, source: &Located, weights: &Checkpoint, force: bool) -> Result<Self> {
        let refused = |reason: &str| Error::Input(format!("{}: {reason}", out.display()));
        let name = out.file_name().ok_or_else(|| refused("is no name for a new folder"))?;
        let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(|error| Error::Io { path: parent.to_path_buf(), source: error })?;
        let path = parent.canonicalize().map_err(|error| Error::io(parent, error))?.join(name);
        if let Some(folder) = source.folder() {
            let folder = folder.canonicalize().map_err(|error| Error::io(folder, error))?;
            if path == folder {
                return Err(refused("is the model itself; give another folder"));
            }
            if path.starts_with(&folder) {
                return Err(refused("lies within the model's own folder; give another one"));
            }
        }
        for weights in weights.mapped_paths() {
            let absolute = std::path::absolute(weights).unwrap_or_else(|_| weights.to_path_buf());
            let real = weights.canonicalize().unwrap_or_else(|_| absolute.clone());
            if absolute.starts_with(&path) || real.starts_with(&path) {
                return Err(refused("holds the model; give another folder"));
            }
        }
        match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(out, error)),
            Ok(_) if !force => return Err(refused("exists already; --force replaces a quantised copy")),
            Ok(found) if !found.is_dir() => return Err(refused("exists and isn't a folder")),
            Ok(_) => check_replaceable(&path, out)?,
        }
        Ok(Self { path, given: out.to_path_buf() })
    }

    fn io(&self, source: io::Error) -> Error {
        Error::Io { path: self.given.clone(), source }
    }
}

/// Checks that a folder is empty or a quantised copy of some model with nothing of anyone else in it.
fn check_replaceable(folder: &Path, given: &Path) -> Result<()> {
    let mut entries = 0;
    for entry in fs::read_dir(folder).map_err(|error| Error::io(given, error))? {
        let entry = entry.map_err(|error| Error::io(given, error))?;
        let name = entry.file_name();
        let kind = entry.file_type().map_err(|error| Error::io(given, error))?;
        if !kind.is_file() || !is_part_of_a_copy(&name.to_string_lossy()) {
            let (given, name) = (given.display(), name.display());
            return Err(Error::Input(format!(
                "{given}: holds {name}, which is no part of a quantised model; not replaced"
            )));
        }
        entries += 1;
    }
    if entries > 0 && !WEIGHTS.iter().any(|(_, name)| is_quantised(&folder.join(name))) {
        return Err(Error::Input(format!("{}: exists and is no quantised model; not replaced", given.display())));
    }
    Ok(())
}

/// Whether a file begins with the header of a quantised copy, whether or not the rest of it is sound.
fn is_quantised(path: &Path) -> bool {
    let header = || -> io::Result<serde_json::Value> {
        let mut file = File::open(path)?;
        let mut length = [0; 8];
        file.read_exact(&mut length)?;
        let mut header = Vec::new();
        file.take(u64::from_le_bytes(length).min(64 << 20)).read_to_end(&mut header)?;
        Ok(serde_json::from_slice(&header)?)
    };
    header().is_ok_and(|header| header["__metadata__"][SCHEME_KEY].is_string())
}

/// A folder in the making, beside the place it is for. It goes with everything in it unless it is put in place; what a killed process
/// left is removed by the next one that writes to the same place.
#[derive(Debug)]
pub(super) struct NewFolder<'a> {
    place: &'a Place,
    part: PathBuf,
    /// Held open for its lock, which tells this folder from a leftover.
    _lock: Option<File>,
    /// Whether it has its name, so that `part` may be another process's by now.
    placed: bool,
}

impl<'a> NewFolder<'a> {
    pub(super) fn beside(place: &'a Place) -> Result<Self> {
        let part = sibling(&place.path, "part");
        let taken = match fs::create_dir(&part) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => true,
            result => result.map(|()| false).map_err(|error| place.io(error))?,
        };
        if taken {
            let abandoned = lock(&part).is_some_and(|lock| lock.try_lock().is_ok());
            if !abandoned {
                let (place, part) = (place.given.display(), part.display());
                let advice = format!("another process writes it, or was killed; in that case remove {part}");
                return Err(Error::Input(format!("{place}: {advice}")));
            }
            fs::remove_dir_all(&part).and_then(|()| fs::create_dir(&part)).map_err(|error| place.io(error))?;
        }
        let lock = lock(&part).filter(|lock| lock.try_lock().is_ok());
        Ok(Self { place, part, _lock: lock, placed: false })
    }

    /// The path of a file within, as it will be when the folder has its name.
    pub(super) fn shown(&self, name: &str) -> PathBuf {
        self.place.given.join(name)
    }

    /// The path of a file within.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.part.join(name)
    }

    /// Writes a small file.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let written = File::create_new(self.file(name)).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        written.map_err(|source| Error::Io { path: self.shown(name), source })
    }

    /// Gives the folder its name. One that is there already is set aside before and removed afterwards, so that a crash in between
    /// leaves the old one whole under another name, never a mixture.
    pub(super) fn put_in_place(mut self, replace: bool) -> Result<()> {
        let (part, place) = (&self.part, &self.place.path);
        let failed = |error| self.place.io(error);
        sync_folder(part).map_err(failed)?;
        let old = sibling(place, "old");
        let aside = replace && place.symlink_metadata().is_ok();
        if aside {
            remove(&old)?;
            fs::rename(place, &old).map_err(failed)?;
        }
        if let Err(error) = fs::rename(part, place) {
            if aside {
                // Nothing better can be done if this fails too: the message names what is wrong, and the old copy is still there.
                let _ = fs::rename(&old, place);
            }
            return Err(failed(error));
        }
        self.placed = true;
        let parent = place.parent().unwrap_or(Path::new("."));
        sync_folder(parent).map_err(failed)?;
        remove(&old)
    }
}

impl Drop for NewFolder<'_> {
    fn drop(&mut self) {
        if !self.placed {
            let _ = fs::remove_dir_all(&self.part);
        }
    }
}

/// A hidden name beside a path that nothing but this module takes.
fn sibling(path: &Path, ending: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".crossmodal-{ending}"));
    path.with_file_name(name)
}

/// A folder opened to be locked; `None` where the system can't.
fn lock(folder: &Path) -> Option<File> {
    if cfg!(unix) { File::open(folder).ok() } else { None }
}

/// Removes a folder, if it is there.
fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|source| Error::Io { path: folder.to_path_buf(), source }),
    }
}

/// Makes the creation and renaming of files in a folder durable.
fn sync_folder(folder: &Path) -> io::Result<()> {
    // Only Unix can open a folder and sync it; elsewhere the file system does so by itself.
    let result = if cfg!(unix) { File::open(folder).and_then(|folder| folder.sync_all()) } else { Ok(()) };
    match result {
        // Some network file systems can't.
        Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput) => Ok(()),
        result => result,
    }
}
