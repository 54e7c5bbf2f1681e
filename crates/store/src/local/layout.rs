//! Where the files of a collection lie.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::StoreError;

/// Items, metadata, settings, spaces, and the rows that name vectors.
pub(crate) const DATABASE_NAME: &str = "collection.sqlite";
const LOCK_NAME: &str = "collection.lock";
const VECTORS_NAME: &str = "vectors";
const INDEXES_NAME: &str = "indexes";

/// The paths of one collection.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    folder: PathBuf,
}

impl Layout {
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf() }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn database(&self) -> PathBuf {
        self.folder.join(DATABASE_NAME)
    }

    pub fn write_ahead_log(&self) -> PathBuf {
        self.folder.join(format!("{DATABASE_NAME}-wal"))
    }

    pub fn lock(&self) -> PathBuf {
        self.folder.join(LOCK_NAME)
    }

    pub fn vectors(&self) -> PathBuf {
        self.folder.join(VECTORS_NAME)
    }

    /// The file of one field in one generation; compaction begins a new generation.
    pub fn vector_file(&self, field: i64, generation: i64) -> PathBuf {
        self.vectors().join(format!("{field}-{generation}.f32"))
    }

    pub fn indexes(&self) -> PathBuf {
        self.folder.join(INDEXES_NAME)
    }

    /// The index over one field's vectors in one generation.
    pub fn index_file(&self, field: i64, generation: i64) -> PathBuf {
        self.indexes().join(format!("{field}-{generation}.index"))
    }

    /// Whether a name in the folder is one of those that a collection may have before its database exists.
    pub fn is_own_name(name: &OsStr) -> bool {
        [LOCK_NAME, VECTORS_NAME, INDEXES_NAME].iter().any(|own| name == *own)
    }

    /// Removes vector and index files that `is_used` doesn't know: those of old generations, and of writes that were cut off.
    /// Failing to is harmless, so failures are not reported; the next opening tries again.
    pub fn remove_unused_files(&self, is_used: impl Fn(i64, i64) -> bool) {
        let listed = [(self.vectors(), ".f32"), (self.indexes(), ".index"), (self.indexes(), ".index.part")];
        for (folder, ending) in listed {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let unused = |(field, generation)| ending.ends_with(".part") || !is_used(field, generation);
                if parse_name(&entry.file_name(), ending).is_some_and(unused) {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        let folders = [self.folder.clone(), self.vectors(), self.indexes()];
        let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
        let lengths = entries.filter_map(|entry| entry.metadata().ok()).filter(|metadata| metadata.is_file());
        lengths.map(|metadata| metadata.len()).sum()
    }

    /// Creates the folders that are missing, durably.
    pub fn create_folders(&self) -> Result<(), StoreError> {
        let create = |path: &Path| fs::create_dir_all(path).map_err(|error| StoreError::io(path, error));
        create(&self.folder)?;
        create(&self.vectors())?;
        sync_folder(&self.folder)
    }
}

/// The field and the generation that a file's name tells.
fn parse_name(name: &OsStr, ending: &str) -> Option<(i64, i64)> {
    let (field, generation) = name.to_str()?.strip_suffix(ending)?.split_once('-')?;
    Some((field.parse().ok()?, generation.parse().ok()?))
}

/// Makes the creation and removal of files in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    // Only Unix can open a folder and sync it; elsewhere the file system does so by itself.
    let result = if cfg!(unix) { File::open(folder).and_then(|folder| folder.sync_all()) } else { Ok(()) };
    match result {
        // Some network file systems can't.
        Err(error) if error.kind() == io::ErrorKind::Unsupported || error.kind() == io::ErrorKind::InvalidInput => {
            Ok(())
        }
        result => result.map_err(|error| StoreError::io(folder, error)),
    }
}
