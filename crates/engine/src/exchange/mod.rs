//! Collections and plain vectors in and out: `.npy` arrays, complete exports, the layout of clip-retrieval.
//!
//! | what | in | out |
//! |---|---|---|
//! | vectors that were computed elsewhere | [`import_vectors`]: `.npy`, ids, metadata | — |
//! | a whole collection, lossless | [`import_archive`] | [`export_archive`]: safetensors, JSON lines and a manifest with checksums |
//! | clip-retrieval's `img_emb/*.npy` and `metadata/*.parquet` | [`import_clip_retrieval`] | [`export_clip_retrieval`] |
//!
//! Everything is read and written in batches, so that memory doesn't depend on sizes. Imports may be interrupted: what is there
//! unchanged is skipped by the next run. Exports see one committed state, also while another process writes, and appear
//! under their name only when they are complete.

mod archive;
mod clip_retrieval;
mod destination;
mod import;
mod lines;
pub mod npy;
mod table;
mod vectors;

use std::fs::File;

pub use archive::{ArchiveReport, export_archive, import_archive, is_archive};
pub use clip_retrieval::{export_clip_retrieval, import_clip_retrieval, is_clip_retrieval};
pub use import::{ImportReport, SkippedRow};
pub use vectors::{VectorImport, import_vectors};

/// The field, and the space, of vectors that were computed elsewhere: by which model, nobody here knows.
pub const EXTERNAL: &str = "external";

/// Temporary files are private; a result is as readable as any file the user makes (short of asking for the umask, which
/// can't be read without changing it).
pub(crate) fn give_ordinary_permissions(file: &File) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let _ = file.set_permissions(std::fs::Permissions::from_mode(0o644));
    }
    #[cfg(not(unix))]
    let _ = file;
}
