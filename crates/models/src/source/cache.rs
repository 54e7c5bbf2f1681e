//! The hub's cache folder, in the layout that the Python client uses, so that both share downloads: per repository `refs`
//! (branch to commit), `snapshots` (commit to files, as links) and `blobs` (contents by entity tag).

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::progress::CancelToken;

/// How often a lock that another process holds is tried.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// The folder of one repository.
#[derive(Debug, Clone)]
pub(super) struct RepoCache {
    folder: PathBuf,
    locks: PathBuf,
}

impl RepoCache {
    pub(super) fn new(cache: &Path, repo: &str) -> Self {
        let name = format!("models--{}", repo.replace('/', "--"));
        Self { folder: cache.join(&name), locks: cache.join(".locks").join(name) }
    }

    /// The commit that a revision had when last asked for; the revision itself if it is a commit that was fetched.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        let remembered = fs::read_to_string(self.folder.join("refs").join(revision)).ok();
        let commit = remembered.map_or_else(|| revision.to_string(), |commit| commit.trim().to_string());
        (is_plain(&commit) && self.snapshot(&commit).is_dir()).then_some(commit)
    }

    pub(super) fn remember(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        create_parent(&path)?;
        fs::write(&path, commit).map_err(|error| Error::io(&path, error))
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// Where a file of a commit is once it is there.
    pub(super) fn file(&self, commit: &str, name: &str) -> PathBuf {
        self.snapshot(commit).join(name)
    }

    /// Names of the files of a commit that are there, with `/` between folders.
    pub(super) fn files(&self, commit: &str) -> Vec<String> {
        let mut found = Vec::new();
        list(&self.snapshot(commit), "", &mut found);
        found
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// Holds off other processes that fetch the same blob until dropped.
    pub(super) fn lock(&self, etag: &str, cancel: &CancelToken) -> Result<File> {
        let path = self.locks.join(format!("{etag}.lock"));
        create_parent(&path)?;
        let file = File::create(&path).map_err(|error| Error::io(&path, error))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(Error::io(&path, error)),
                // The other process may need hours for its download, so waiting has to end when it is no longer wanted.
                Err(TryLockError::WouldBlock) if cancel.is_cancelled() => return Err(Error::Cancelled),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            }
        }
    }

    /// Puts a blob in its place in a snapshot.
    pub(super) fn link(&self, etag: &str, commit: &str, name: &str) -> Result<PathBuf> {
        let path = self.file(commit, name);
        if path.exists() {
            return Ok(path);
        }
        create_parent(&path)?;
        let up = "../".repeat(2 + name.matches('/').count());
        place(&self.blob(etag), &PathBuf::from(format!("{up}blobs/{etag}")), &path)
            .map_err(|error| Error::io(&path, error))?;
        Ok(path)
    }
}

/// Depth-limited listing of a snapshot.
fn list(folder: &Path, prefix: &str, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() && prefix.matches('/').count() < 4 {
            list(&entry.path(), &format!("{name}/"), found);
        } else if entry.path().is_file() {
            found.push(name);
        }
    }
}

#[cfg(unix)]
fn place(_blob: &Path, relative: &Path, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(relative, path)
}

#[cfg(not(unix))]
fn place(blob: &Path, _relative: &Path, path: &Path) -> std::io::Result<()> {
    fs::rename(blob, path)
}

pub(super) fn create_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|error| Error::io(parent, error))
}

/// Whether a commit or entity tag from a server or file is safe to use as a file name.
pub(super) fn is_plain(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 200 && name.chars().all(allowed) && !name.starts_with('.')
}

/// Whether a file name from a server or index stays within its folder.
pub(super) fn is_inside(name: &str) -> bool {
    let bad = |part: &str| part.is_empty() || part == "." || part == "..";
    !name.contains(['\\', ':', '\0']) && !name.split('/').any(bad)
}
