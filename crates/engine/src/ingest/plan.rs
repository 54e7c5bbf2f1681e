//! Deciding what must be done for a file, and what must be forgotten.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use crossmodal_models::{Embedder, Input, Modality};
use crossmodal_store::{
    CacheKey, Item, ItemVectors, ListRequest, Source, SpaceRef, StoredItem, VectorRecord, VectorStore,
};
use serde_json::{Map, Value};

use crate::collection::{Collection, DEFAULT_FIELD};
use crate::error::{Error, Result};
use crate::files::{self, Found};

/// A file with its content.
pub(super) struct Loaded {
    pub(super) path: PathBuf,
    pub(super) bytes: Arc<[u8]>,
    pub(super) content_hash: [u8; 32],
    pub(super) source: Source,
}

/// What must be done for a file.
pub(super) enum Action {
    /// Nothing.
    Unchanged,
    /// Only what is known of it changed.
    Touch(Item),
    /// Identical content is in the collection: its vector serves.
    Reuse(ItemVectors),
    /// It must be embedded.
    Embed(Pending),
}

/// An item that waits for its vector.
pub(super) struct Pending {
    pub(super) item: Item,
    pub(super) cache_key: CacheKey,
    pub(super) input: Input,
}

impl Pending {
    /// The item with its vector.
    pub(super) fn with_vector(self, space: &SpaceRef, precision: &str, vector: Vec<f32>) -> ItemVectors {
        record(self.item, self.cache_key, space, precision, vector)
    }
}

fn record(item: Item, cache_key: CacheKey, space: &SpaceRef, precision: &str, vector: Vec<f32>) -> ItemVectors {
    let vector = VectorRecord {
        field: DEFAULT_FIELD.into(),
        space: space.clone(),
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
pub(super) fn load(path: &Path) -> std::result::Result<Loaded, String> {
    let limit = crossmodal_models::media::DecodeLimits::default().max_bytes;
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if metadata.len() > limit {
        return Err(format!("a file of {} bytes is over the limit of {limit}", metadata.len()));
    }
    if !metadata.is_file() {
        return Err("neither a file nor a folder".into());
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let source = Source {
        uri: files::uri(path),
        size: Some(bytes.len() as u64),
        modified_ns: modified.and_then(|time| i64::try_from(time.as_nanos()).ok()),
    };
    Ok(Loaded { path: path.to_path_buf(), content_hash: *blake3::hash(&bytes).as_bytes(), bytes: bytes.into(), source })
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
    pub(super) space: &'a SpaceRef,
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
            let pending = self.pending(file, known.as_ref().map(|stored| &stored.item.metadata));
            match known {
                Some(known) if self.has_vector(&known, &pending)? => {
                    let action =
                        if known.item == pending.item { Action::Unchanged } else { Action::Touch(pending.item) };
                    planned.push(action);
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
                    Action::Reuse(record(pending.item, pending.cache_key, self.space, &found.precision, found.vector))
                }
                None => Action::Embed(pending),
            };
            planned.push(action);
        }
        Ok(planned)
    }

    /// Metadata that an earlier run stored stays unless this run brings its own.
    fn pending(&self, file: Loaded, stored: Option<&Map<String, Value>>) -> Pending {
        let input = Input::image(file.bytes);
        let own = self.metadata.of(&file.path, self.roots);
        let item = Item {
            id: file.source.uri.clone(),
            source: Some(file.source),
            content_hash: Some(file.content_hash),
            modality: Modality::Image.as_str().into(),
            metadata: own.or(stored).cloned().unwrap_or_default(),
        };
        let cache_key = cache_key(self.model, self.space, &file.content_hash, &input);
        Pending { item, cache_key, input }
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
        Ok(vectors.iter().any(|vector| vector.field == DEFAULT_FIELD && vector.cache_key == Some(pending.cache_key)))
    }
}

/// Forgets items whose source lies at or below one of the roots and that the walk didn't find. A file that is there but
/// can't be read keeps its item.
pub(super) fn prune(collection: &Collection, found: &Found) -> Result<usize> {
    let present: HashSet<String> = found.files.iter().map(|path| files::uri(path)).collect();
    let mut gone = Vec::new();
    for root in &found.roots {
        let prefix = match files::uri(root) {
            root if root.ends_with('/') => root,
            root => format!("{root}/"),
        };
        let request = ListRequest { uri_prefix: Some(prefix), ..ListRequest::default() };
        for stored in collection.store().list(&request)? {
            let Some(source) = &stored.item.source else { continue };
            if !present.contains(&source.uri) && !files::path(&source.uri).exists() {
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
