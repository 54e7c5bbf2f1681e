//! Deciding what must be done for a file, and what must be forgotten.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use crossmodal_models::{Embedder, Input, Modality};
use crossmodal_store::{
    CacheKey, Item, ItemVectors, ListRequest, Source, SpaceRef, StoredItem, VectorRecord, VectorStore,
};

use crate::collection::{Collection, Target};
use crate::error::{Error, Result};
use crate::files::{self, Found};
use crate::ingest::budget::Permit;

/// A file with its content.
pub(super) struct Loaded {
    pub(super) path: PathBuf,
    pub(super) bytes: Arc<[u8]>,
    pub(super) content_hash: [u8; 32],
    pub(super) source: Source,
    pub(super) permit: Permit,
}

/// What must be done for a file.
pub(super) enum Action {
    /// Nothing.
    Unchanged,
    /// Only what is known of it changed.
    Touch(Item),
    /// Identical content is in the collection: its vector serves.
    Reuse(Finished),
    /// It must be embedded.
    Embed(Pending),
    /// Nothing is done, for this reason.
    LeaveOut(PathBuf, &'static str),
}

/// An item that waits for its vector.
pub(super) struct Pending {
    pub(super) item: Item,
    pub(super) cache_key: CacheKey,
    /// The content, until it is prepared or turns out to be on its way under another name.
    pub(super) content: Option<(Input, Permit)>,
    /// Whether the collection has the item with the same content, so that its vectors in other fields stay true.
    same_content: bool,
}

/// An item with its vector, to be written.
pub(super) struct Finished {
    pub(super) item: ItemVectors,
    /// Whether only this field's vectors are replaced; otherwise all of the item's are.
    pub(super) keeps_other_fields: bool,
}

impl Pending {
    /// The same without its content: another file with the same content is on its way.
    pub(super) fn parked(self) -> Self {
        Self { content: None, ..self }
    }

    /// The item with its vector.
    pub(super) fn with_vector(self, target: &Target, precision: &str, vector: Vec<f32>) -> Finished {
        let item = record(self.item, self.cache_key, target, precision, vector);
        Finished { item, keeps_other_fields: self.same_content }
    }
}

fn record(item: Item, cache_key: CacheKey, target: &Target, precision: &str, vector: Vec<f32>) -> ItemVectors {
    let vector = VectorRecord {
        field: target.field.clone(),
        space: target.space.clone(),
        part: 0,
        modality: item.modality.clone(),
        span: None,
        precision: precision.into(),
        cache_key: Some(cache_key),
        vector,
    };
    ItemVectors { item, vectors: vec![vector] }
}

/// Reads a file and hashes it.
pub(super) fn load(path: &Path, permit: Permit) -> std::result::Result<Loaded, String> {
    let limit = crossmodal_models::media::DecodeLimits::default().max_bytes;
    let (bytes, metadata) = files::read_limited(path, limit).map_err(|error| match error {
        Error::Io { source, .. } => source.to_string(),
        // The report names the file itself.
        other => other.to_string().trim_start_matches(&format!("{}: ", path.display())).to_string(),
    })?;
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let source = Source {
        uri: files::uri(path),
        size: Some(bytes.len() as u64),
        modified_ns: modified.and_then(|time| i64::try_from(time.as_nanos()).ok()),
    };
    let content_hash = *blake3::hash(&bytes).as_bytes();
    Ok(Loaded { path: path.to_path_buf(), content_hash, bytes: bytes.into(), source, permit })
}

/// Everything that determines a vector: content, space, and what else the model says changes it.
fn cache_key(model: &dyn Embedder, space: &SpaceRef, content_hash: &[u8; 32], input: &Input) -> CacheKey {
    let mut hasher = blake3::Hasher::new();
    for part in [&content_hash[..], space.id.as_bytes(), model.fingerprint(input).as_bytes()] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    *hasher.finalize().as_bytes()
}

/// Plans a batch of files.
pub(super) struct Planner<'a> {
    pub(super) collection: &'a Collection,
    pub(super) model: &'a dyn Embedder,
    pub(super) target: &'a Target,
    /// Whether only files are embedded whose content is that of an item which exists.
    pub(super) same_content_only: bool,
    pub(super) metadata: &'a crate::metadata::Metadata,
    pub(super) roots: &'a [PathBuf],
}

impl Planner<'_> {
    pub(super) fn plan(&self, batch: Vec<Loaded>) -> Result<Vec<Action>> {
        let ids: Vec<String> = batch.iter().map(|file| file.source.uri.clone()).collect();
        let known = self.collection.store().get(&ids)?;
        let mut planned = Vec::with_capacity(batch.len());
        let mut fresh = Vec::new();
        for (file, known) in batch.into_iter().zip(known) {
            let pending = self.pending(file, known.as_ref().map(|stored| &stored.item));
            match known {
                Some(known) if self.has_vector(&known, &pending)? => {
                    let action =
                        if known.item == pending.item { Action::Unchanged } else { Action::Touch(pending.item) };
                    planned.push(action);
                }
                _ if self.same_content_only && !pending.same_content => {
                    let path = files::path(&pending.item.id);
                    planned.push(Action::LeaveOut(path, "its content changed since it was indexed: index it first"));
                }
                _ => fresh.push(pending),
            }
        }
        let keys: Vec<CacheKey> = fresh.iter().map(|pending| pending.cache_key).collect();
        let mut cached = self.collection.store().cached_vectors(&keys)?;
        for pending in fresh {
            let action = match cached.remove(&pending.cache_key) {
                Some(found) => {
                    // Several new files may share it.
                    cached.insert(pending.cache_key, found.clone());
                    Action::Reuse(pending.with_vector(self.target, &found.precision, found.vector))
                }
                None => Action::Embed(pending),
            };
            planned.push(action);
        }
        Ok(planned)
    }

    /// Metadata that an earlier run stored stays unless this run brings its own.
    fn pending(&self, file: Loaded, stored: Option<&Item>) -> Pending {
        let input = Input::image(file.bytes);
        let own = self.metadata.of(&file.path, self.roots);
        let item = Item {
            id: file.source.uri.clone(),
            source: Some(file.source),
            content_hash: Some(file.content_hash),
            modality: Modality::Image.as_str().into(),
            metadata: own.or(stored.map(|item| &item.metadata)).cloned().unwrap_or_default(),
        };
        let cache_key = cache_key(self.model, &self.target.space, &file.content_hash, &input);
        let same_content = stored.is_some_and(|stored| stored.content_hash == Some(file.content_hash));
        Pending { item, cache_key, content: Some((input, file.permit)), same_content }
    }

    /// Whether the item has just the vector that this run would give it.
    fn has_vector(&self, known: &StoredItem, pending: &Pending) -> Result<bool> {
        if known.item.content_hash != pending.item.content_hash {
            return Ok(false);
        }
        let vectors = match self.collection.store().vectors(&known.item.id) {
            Ok(vectors) => vectors,
            // A damaged vector is what embedding again heals.
            Err(error) if error.kind() == crossmodal_store::ErrorKind::Damaged => return Ok(false),
            Err(error) => return Err(Error::Store(error)),
        };
        Ok(vectors
            .iter()
            .any(|vector| vector.field == self.target.field && vector.cache_key == Some(pending.cache_key)))
    }
}

/// Forgets items whose source lies at or below one of the roots and is gone. Only what the file system says doesn't exist is
/// gone: what can't be looked at (a forbidden folder, a link to an unmounted disk) keeps its item, and so does everything
/// below a place that the walk had a problem with.
pub(super) fn prune(collection: &Collection, found: &Found) -> Result<usize> {
    let present: HashSet<String> = found.files.iter().map(|path| files::uri(path)).collect();
    let is_gone = |uri: &str| {
        let path = files::path(uri);
        files::is_gone(&path) && !path.ancestors().any(|place| found.problems.contains_key(place))
    };
    let mut gone = Vec::new();
    for root in &found.roots {
        let prefix = match files::uri(root) {
            root if root.ends_with('/') => root,
            root => format!("{root}/"),
        };
        let request = ListRequest { uri_prefix: Some(prefix), ..ListRequest::default() };
        for stored in collection.store().list(&request)? {
            let source = stored.item.source.as_ref();
            if source.is_some_and(|source| !present.contains(&source.uri) && is_gone(&source.uri)) {
                gone.push(stored.item.id);
            }
        }
    }
    gone.sort();
    gone.dedup();
    let mut pruned = 0;
    for batch in gone.chunks(1000) {
        pruned += collection.store().remove(batch)?;
    }
    Ok(pruned)
}
