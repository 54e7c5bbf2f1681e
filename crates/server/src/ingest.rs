//! Adding files to a collection: uploads are kept in the collection's folder, paths stay where they are; either way a job embeds them.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossmodal_engine::batching::Priority;
use crossmodal_engine::ingest::{self, Events};
use crossmodal_engine::metadata::Metadata;
use crossmodal_engine::upkeep::IndexKeeper;
use crossmodal_engine::{BuildControl, Error, ErrorKind, files, media};
use serde_json::{Map, Value};

use crate::collections::ServedCollection;
use crate::error::{ApiError, ApiResult, Code};
use crate::extract::FormPart;
use crate::jobs::{Job, JobView, SkippedFile};
use crate::models::ServedModel;
use crate::state::Shared;

/// Files to add, and what is known of them.
#[derive(Debug, Default)]
struct Batch {
    files: Vec<PathBuf>,
    metadata: Metadata,
    /// Names of uploaded files as they were sent.
    names: HashMap<PathBuf, String>,
    /// What can't be used, found out before anything ran.
    skipped: Vec<SkippedFile>,
}

/// Keeps uploaded files and queues a job that embeds them.
///
/// # Errors
/// No file, a model that isn't served, a disk that is full, too many jobs.
pub fn add_uploads(
    state: &Shared,
    collection: &Arc<ServedCollection>,
    parts: &[FormPart],
    metadata: &Map<String, Value>,
) -> ApiResult<JobView> {
    let model = collection.model(&state.models)?.clone();
    let folder = collection.uploads();
    std::fs::create_dir_all(&folder).map_err(|source| failed(&folder, source))?;
    let mut batch = Batch::default();
    for part in parts {
        let name = part.file_name.as_deref().map_or("upload", file_name_of).to_string();
        let Some(format) = media::sniff(&part.bytes) else {
            batch.skipped.push(SkippedFile { path: name, reason: "no picture that is read".into() });
            continue;
        };
        let hash = blake3::hash(&part.bytes).to_hex();
        let path = folder.join(format!("{}.{}", &hash[..32], format.extension()));
        keep(&path, &part.bytes)?;
        let mut row = Map::from_iter([("name".to_string(), Value::String(name.clone()))]);
        row.extend(metadata.clone());
        batch.metadata.insert(&path, row);
        batch.names.insert(path.clone(), name);
        if !batch.files.contains(&path) {
            batch.files.push(path);
        }
    }
    queue(state, collection, model, batch)
}

/// Queues a job that embeds files below the allowed folders.
///
/// # Errors
/// A path that isn't allowed or doesn't exist, a model that isn't served, too many jobs.
pub fn add_paths(
    state: &Shared,
    collection: &Arc<ServedCollection>,
    paths: &[String],
    metadata: &Map<String, Value>,
) -> ApiResult<JobView> {
    let model = collection.model(&state.models)?.clone();
    let allowed = |path: &Path| {
        state.allowed_paths.check(path).map_err(|error| ApiError::new(Code::Forbidden, error.to_string()))
    };
    let roots = paths.iter().map(|path| allowed(Path::new(path))).collect::<ApiResult<Vec<_>>>()?;
    let found = files::find(&roots)?;
    let mut batch = Batch::default();
    for file in found.files {
        // A link within an allowed folder may lead out of it.
        match allowed(&file) {
            Ok(_) => {
                if !metadata.is_empty() {
                    batch.metadata.insert(&file, metadata.clone());
                }
                batch.files.push(file);
            }
            Err(error) => batch.skipped.push(SkippedFile { path: file.display().to_string(), reason: error.message }),
        }
    }
    let problems = found.problems.into_iter();
    batch.skipped.extend(problems.map(|(path, reason)| SkippedFile { path: path.display().to_string(), reason }));
    queue(state, collection, model, batch)
}

/// The last component of a name as clients send it, whichever separators they use.
fn file_name_of(name: &str) -> &str {
    let last = name.rsplit(['/', '\\']).next().unwrap_or(name).trim();
    if last.is_empty() { "upload" } else { last }
}

fn failed(path: &Path, source: std::io::Error) -> ApiError {
    if source.kind() == std::io::ErrorKind::StorageFull {
        return ApiError::new(Code::Unavailable, "the server's disk is full");
    }
    Error::Io { path: path.to_path_buf(), source }.into()
}

/// Writes a file whole or not at all, and durably: its item must not outlive it.
fn keep(path: &Path, bytes: &[u8]) -> ApiResult<()> {
    if path.metadata().is_ok_and(|metadata| metadata.len() == bytes.len() as u64) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        if cfg!(unix) {
            std::fs::File::open(folder)?.sync_all()?;
        }
        Ok(())
    };
    write().map_err(|source| failed(path, source))
}

fn queue(
    state: &Shared,
    collection: &Arc<ServedCollection>,
    model: Arc<ServedModel>,
    batch: Batch,
) -> ApiResult<JobView> {
    if batch.files.is_empty() && batch.skipped.is_empty() {
        return Err(ApiError::new(Code::InvalidInput, "there are no files to add"));
    }
    let target = collection.clone();
    state.jobs.add("ingest", &collection.name, Box::new(move |job| run(job, &target, &model, batch)))
}

fn run(job: &Arc<Job>, collection: &ServedCollection, model: &ServedModel, batch: Batch) -> ApiResult<()> {
    let Batch { files, metadata, names, skipped } = batch;
    job.skip(skipped);
    if files.is_empty() {
        return Ok(());
    }
    let writer = collection.writer()?;
    let request = ingest::Request { metadata, ..ingest::Request::new(files) };
    let watcher = job.clone();
    let events = Events::to(move |progress| watcher.progress(progress));
    let embedder = model.batcher.embedder(Priority::Background);
    // Long ingestions are searched fast while they go on.
    let keeper = IndexKeeper::start(writer.clone())?;
    let report = ingest::run(&writer, &embedder, &request, &events, &job.cancel)?;
    job.progress(&report.progress);
    let skipped = report.skipped.iter().map(|skipped| {
        let path = skipped.path.display().to_string();
        SkippedFile { path: names.get(&skipped.path).cloned().unwrap_or(path), reason: skipped.reason.clone() }
    });
    job.skip(skipped);
    // An upload that became no item is of no use.
    for skipped in report.skipped.iter().filter(|skipped| names.contains_key(&skipped.path)) {
        let known = writer.contains(&files::uri(&skipped.path))?;
        if !known && let Err(error) = std::fs::remove_file(&skipped.path) {
            tracing::warn!(file = %skipped.path.display(), %error, "an upload that isn't used can't be removed");
        }
    }
    drop(keeper);
    if !report.cancelled && writer.index_is_due()? {
        let control = BuildControl { cancelled: &|| job.cancel.is_cancelled(), ..BuildControl::default() };
        match writer.build_index(false, &control) {
            Err(error) if error.kind() == ErrorKind::Cancelled => {}
            report => drop(report?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_uploads_are_names_alone() {
        for (sent, kept) in
            [("a.png", "a.png"), ("../../etc/passwd", "passwd"), ("C:\\pictures\\b.jpg", "b.jpg"), ("x/", "upload")]
        {
            assert_eq!(file_name_of(sent), kept);
        }
    }

    #[test]
    fn files_are_written_whole_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        keep(&path, b"one").unwrap();
        let first = path.metadata().unwrap().modified().unwrap();
        keep(&path, b"one").unwrap();
        assert_eq!(path.metadata().unwrap().modified().unwrap(), first);
        // What a crash left half-written is replaced.
        std::fs::write(&path, b"on").unwrap();
        keep(&path, b"one").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
