//! The collections that are served: opened for reading as long as the server runs, for writing while somebody writes.
//!
//! A collection has one writer across all processes. Holding that right for as long as the server runs would lock the command line out, so
//! it is taken for a job or a deletion and given back with the last of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use crossmodal_engine::{Collection, CollectionInfo, Error, FieldInfo, IndexState, Mode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{ApiError, ApiResult, Code};
use crate::models::{Models, ServedModel};

/// The folder within a collection that uploaded files are kept in.
pub const UPLOADS: &str = "uploads";

/// What folders of collections end in.
const ENDING: &str = "cm";

/// A served collection.
pub struct ServedCollection {
    /// The name in addresses.
    pub name: String,
    /// A number of its own: a later collection of the same name has another.
    pub number: u64,
    /// Its folder.
    pub folder: PathBuf,
    /// Whether it may be deleted: it lies below the server's own folder.
    pub removable: bool,
    /// Opened for reading.
    pub reader: Collection,
    writer: Mutex<Weak<Collection>>,
}

impl ServedCollection {
    fn open(name: String, folder: PathBuf, removable: bool) -> crossmodal_engine::Result<Self> {
        // Uploads and searches name files by it.
        let folder = folder.canonicalize().map_err(|source| Error::Io { path: folder.clone(), source })?;
        let reader = Collection::open(&folder, &Mode::read())?;
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        Ok(Self { name, number, folder, removable, reader, writer: Mutex::default() })
    }

    /// The collection opened for writing, shared with whoever writes at the moment; the right ends with the last clone.
    ///
    /// # Errors
    /// Another process is writing, or the folder can't be written.
    pub fn writer(&self) -> ApiResult<Arc<Collection>> {
        let mut slot = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = slot.upgrade() {
            return Ok(writer);
        }
        let writer = Arc::new(Collection::open(&self.folder, &Mode::write().existing())?);
        *slot = Arc::downgrade(&writer);
        Ok(writer)
    }

    /// The folder for uploaded files.
    pub fn uploads(&self) -> PathBuf {
        self.folder.join(UPLOADS)
    }

    /// The field that is searched, if there is one yet.
    ///
    /// # Errors
    /// Failures of the storage.
    pub fn field(&self, info: &CollectionInfo) -> ApiResult<Option<FieldInfo>> {
        let name = self.reader.field()?;
        let own = info.fields.iter().find(|field| field.field.name == name);
        Ok(own.or(info.fields.first()).cloned())
    }

    /// The model whose space it is searched in.
    ///
    /// # Errors
    /// A collection without vectors of a model, or a model that isn't served.
    pub fn model<'a>(&self, models: &'a Models) -> ApiResult<&'a Arc<ServedModel>> {
        let name = self.reader.field()?;
        let fields = self.reader.fields()?;
        let field = fields.iter().find(|field| field.name == name).or(fields.first());
        let field = field.ok_or_else(|| {
            ApiError::new(Code::Conflict, format!("the collection {:?} has no vectors of any model yet", self.name))
        })?;
        models.of_space(&field.space.id).ok_or_else(|| {
            ApiError::new(
                Code::Conflict,
                format!(
                    "the collection {:?} is in the space of {:?}, which isn't served here; only `vector` and `item` parts can search it",
                    self.name, field.space.model
                ),
            )
        })
    }

    /// What is told of it.
    ///
    /// # Errors
    /// Failures of the storage.
    pub fn summary(&self, models: &Models) -> ApiResult<CollectionSummary> {
        let info = self.reader.info()?;
        let field = self.field(&info)?;
        let index = match field.as_ref().map(|field| &field.index) {
            None | Some(IndexState::Missing) => IndexSummary { state: "exact".into(), kind: None, rows: None },
            Some(IndexState::Present(index)) => {
                IndexSummary { state: "present".into(), kind: Some(index.kind.as_str().into()), rows: Some(index.rows) }
            }
            Some(IndexState::Unusable { .. }) => IndexSummary { state: "unusable".into(), kind: None, rows: None },
        };
        let space = field.as_ref().map(|field| field.field.space.clone());
        let served = space.as_ref().and_then(|space| models.of_space(&space.id));
        Ok(CollectionSummary {
            name: self.name.clone(),
            items: info.items,
            model: served.map(|served| served.id.clone()).or(space.as_ref().map(|space| space.model.clone())),
            searchable: served.is_some(),
            space: space.map(|space| space.id),
            dimension: field.map(|field| field.field.dimension),
            bytes: info.bytes,
            change: info.change,
            index,
            removable: self.removable,
        })
    }
}

impl std::fmt::Debug for ServedCollection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServedCollection")
            .field("name", &self.name)
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

/// A collection as the API tells of it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct CollectionSummary {
    /// Its name.
    pub name: String,
    /// Number of items.
    pub items: u64,
    /// The model that it is searched with.
    pub model: Option<String>,
    /// Whether that model is served here, so that words and pictures can be searched for.
    pub searchable: bool,
    /// The id of its vector space.
    pub space: Option<String>,
    /// Length of its vectors.
    pub dimension: Option<usize>,
    /// Bytes on disk, uploaded files not counted.
    pub bytes: u64,
    /// The number of its last change: it rises whenever something is written.
    pub change: u64,
    /// Its index.
    pub index: IndexSummary,
    /// Whether it can be deleted through the API.
    pub removable: bool,
}

/// The index of a collection as the API tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct IndexSummary {
    /// `exact` (every vector is compared), `present` or `unusable`.
    #[schema(example = "present")]
    pub state: String,
    /// `graph`, `ivf` or `flat`.
    pub kind: Option<String>,
    /// Vectors that it covers; newer ones are searched exactly.
    pub rows: Option<u64>,
}

/// All served collections by name.
#[derive(Debug)]
pub struct Collections {
    open: RwLock<BTreeMap<String, Arc<ServedCollection>>>,
    /// The server's own folder, below which collections can be made and deleted.
    data: Option<PathBuf>,
    /// Held while a collection is made or deleted.
    changing: Mutex<()>,
}

impl Collections {
    /// Opens the given folders, and every collection in `data`, which is created where it is missing.
    ///
    /// # Errors
    /// A given folder that is no collection or can't be opened; the message names it. What lies in `data` and can't be opened is told in
    /// the log and left out.
    pub fn open(folders: &[PathBuf], data: Option<PathBuf>) -> crossmodal_engine::Result<Self> {
        let mut open = BTreeMap::new();
        let mut add = |folder: PathBuf, removable: bool| -> crossmodal_engine::Result<()> {
            let name = free_name(&open, &name_of(&folder));
            let collection = ServedCollection::open(name.clone(), folder, removable)?;
            let known = |other: &Arc<ServedCollection>| other.folder == collection.folder;
            if !open.values().any(known) {
                open.insert(name, Arc::new(collection));
            }
            Ok(())
        };
        for folder in folders {
            add(folder.clone(), false)?;
        }
        if let Some(data) = &data {
            let failed = |source| Error::Io { path: data.clone(), source };
            std::fs::create_dir_all(data).map_err(failed)?;
            let mut inside: Vec<PathBuf> = std::fs::read_dir(data)
                .map_err(failed)?
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| path.extension().is_some_and(|ending| ending == ENDING) && path.is_dir())
                .collect();
            inside.sort();
            for folder in inside {
                if let Err(error) = add(folder.clone(), true) {
                    tracing::warn!(folder = %folder.display(), %error, "left out: this collection can't be opened");
                }
            }
        }
        Ok(Self { open: RwLock::new(open), data, changing: Mutex::default() })
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<Arc<ServedCollection>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The collection of a name.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, name: &str) -> ApiResult<Arc<ServedCollection>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = open.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "there is none".to_string() } else { known.join(", ") };
            ApiError::not_found(format!("no collection {name:?}; served here: {known}"))
        })
    }

    /// Makes an empty collection in the space of a model.
    ///
    /// # Errors
    /// A server without a folder of its own, a name that can't be used or is taken, failures of the storage.
    pub fn create(&self, name: &str, model: &ServedModel) -> ApiResult<Arc<ServedCollection>> {
        check_name(name)?;
        let data = self.own_folder()?;
        let _changing = self.changing();
        let folder = data.join(format!("{name}.{ENDING}"));
        let taken = || ApiError::new(Code::Conflict, format!("there is a collection {name:?} already"));
        if self.get(name).is_ok() || folder.exists() {
            return Err(taken());
        }
        Collection::open(&folder, &Mode::write())?.adopt(model.model().as_ref())?;
        let collection = Arc::new(ServedCollection::open(name.to_string(), folder, true)?);
        self.open.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_string(), collection.clone());
        Ok(collection)
    }

    /// Deletes a collection with its files. Whoever reads it at the moment finishes undisturbed.
    ///
    /// # Errors
    /// No such collection, one that isn't the server's own, one that is being written, failures of the storage.
    pub fn delete(&self, name: &str) -> ApiResult<()> {
        let _changing = self.changing();
        let collection = self.get(name)?;
        if !collection.removable {
            let message = format!(
                "{name:?} was given to the server when it started; only its own collections (--data) can be deleted"
            );
            return Err(ApiError::new(Code::Forbidden, message));
        }
        // The right to write keeps others from writing into what is going away.
        let slot = collection.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.upgrade().is_some() {
            return Err(ApiError::new(Code::Conflict, format!("{name:?} is being written; cancel its jobs first")));
        }
        let writer = Collection::open(&collection.folder, &Mode::write().existing())?;
        let doomed = collection.folder.with_extension("deleted");
        std::fs::rename(&collection.folder, &doomed)
            .map_err(|source| ApiError::from(Error::Io { path: collection.folder.clone(), source }))?;
        self.open.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        drop(writer);
        drop(slot);
        std::fs::remove_dir_all(&doomed).map_err(|source| ApiError::from(Error::Io { path: doomed, source }))
    }

    fn own_folder(&self) -> ApiResult<&Path> {
        self.data.as_deref().ok_or_else(|| {
            ApiError::new(Code::Forbidden, "this server has no folder to make collections in (--data DIR)")
        })
    }

    /// Whether collections can be made.
    pub fn can_create(&self) -> bool {
        self.data.is_some()
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name that a folder's collection gets: its own without the ending, what can't stand in an address replaced.
fn name_of(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    let stem = match folder.extension() {
        Some(ending) if ending == ENDING => folder.file_stem(),
        _ => folder.file_name(),
    };
    let text = stem.unwrap_or_default().to_string_lossy();
    let safe = |c: char| if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    let name: String = text.chars().map(safe).collect();
    if name.is_empty() { "collection".into() } else { name }
}

fn free_name(taken: &BTreeMap<String, Arc<ServedCollection>>, name: &str) -> String {
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let mut names = std::iter::once(name.to_string()).chain(numbered);
    names.find(|name| !taken.contains_key(name)).unwrap_or_else(|| name.to_string())
}

fn check_name(name: &str) -> ApiResult<()> {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let fits = (1..=64).contains(&name.len()) && name.chars().all(inner) && !name.starts_with(['-', '_']);
    if fits {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "field `name` is {name:?}, expected 1 to 64 letters, digits, '-' and '_', a letter or digit first"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_folders() {
        assert_eq!(name_of(Path::new("/x/pictures.cm")), "pictures");
        assert_eq!(name_of(Path::new("/x/my photos")), "my-photos");
        assert_eq!(name_of(Path::new("/x/v1.2")), "v1.2");
    }

    #[test]
    fn names_that_could_leave_the_folder_are_refused() {
        for name in ["", "..", "a/b", "a.b", "-a", "é", &"a".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert!(check_name("Photos_2024-b").is_ok());
    }
}
