//! A local collection together with the rules this engine keeps: which field, which model, how items are named.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossmodal_models::Embedder;
use crossmodal_store::{
    CollectionInfo, CompactReport, Field, ListRequest, LocalStore, Metric, OpenOptions, SpaceRef, StoredItem,
    VectorStore, VerifyReport,
};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::relevance::{Bank, stored};

/// The field that pictures and texts are kept in unless said otherwise.
pub const DEFAULT_FIELD: &str = "default";

/// Setting under which a reference to the model is kept, so that a search needs not name it again.
const MODEL_SETTING: &str = "model";

/// What a collection is opened for.
#[derive(Debug, Clone)]
pub struct Mode(OpenOptions);

impl Mode {
    /// To be searched; it must exist.
    pub fn read() -> Self {
        Self(OpenOptions::read())
    }

    /// To be written; it is created where it doesn't exist.
    pub fn write() -> Self {
        Self(OpenOptions::write())
    }

    /// To be written, waiting up to `patience` for another writer to finish.
    pub fn write_waiting(patience: Duration) -> Self {
        let mut options = OpenOptions::write();
        options.wait = Some(patience);
        Self(options)
    }

    /// Also where vectors are lost: their items are marked so that the next ingestion embeds them again.
    #[must_use]
    pub fn repairing(mut self) -> Self {
        self.0.repair = true;
        self
    }

    /// To be written; it must exist.
    #[must_use]
    pub fn existing(mut self) -> Self {
        self.0.create = false;
        self
    }
}

/// A local collection.
pub struct Collection {
    store: LocalStore,
    /// Read or computed once. A collection has one model.
    reference_texts: OnceLock<Option<Arc<Bank>>>,
}

impl Collection {
    /// Opens or creates the collection in `folder`.
    ///
    /// # Errors
    /// A folder that isn't a collection, that can't be opened so, or that another writer holds.
    pub fn open(folder: &Path, mode: &Mode) -> Result<Self> {
        Ok(Self { store: LocalStore::open(folder, &mode.0)?, reference_texts: OnceLock::new() })
    }

    /// Ids of the items that lost vectors when it was opened [`repairing`](Mode::repairing), sorted.
    pub fn repaired_items(&self) -> &[String] {
        self.store.repaired_items()
    }

    /// The store beneath.
    pub fn store(&self) -> &LocalStore {
        &self.store
    }

    /// A reference to the model that the collection was made with, which [`load`](crate::load) understands from anywhere.
    ///
    /// # Errors
    /// Failures of the storage.
    pub fn model_name(&self) -> Result<Option<String>> {
        let name = self.store.setting(MODEL_SETTING)?;
        Ok(name.and_then(|name| name.as_str().map(str::to_string)))
    }

    /// Makes sure that the collection takes vectors of `model`, and remembers a reference to it.
    ///
    /// # Errors
    /// The collection holds vectors of another space; the message names both models.
    pub fn adopt(&self, model: &dyn Embedder) -> Result<SpaceRef> {
        let space = space_of(model)?;
        let field = Field {
            name: DEFAULT_FIELD.into(),
            space: space.clone(),
            dimension: model.dimension(),
            metric: Metric::Cosine,
        };
        self.store.ensure_field(&field)?;
        if self.model_name()?.is_none() {
            self.store.set_setting(MODEL_SETTING, &Value::String(model.info().reference.clone()))?;
        }
        Ok(space)
    }

    /// Vectors of generic texts for [`relevance`](crate::relevance), kept in the collection or computed once; none for a model
    /// without texts.
    pub(crate) fn reference_texts(&self, model: &dyn Embedder) -> Result<Option<Arc<Bank>>> {
        if let Some(texts) = self.reference_texts.get() {
            return Ok(texts.clone());
        }
        let kept = self.kept_reference_texts(model)?;
        let texts = kept.map_or_else(|| stored::embed(model), |texts| Ok(Some(texts)))?.map(Arc::new);
        Ok(self.reference_texts.get_or_init(|| texts).clone())
    }

    /// Keeps the vectors of generic texts in the collection, where they are missing.
    ///
    /// # Errors
    /// Failures of model and storage.
    pub(crate) fn keep_reference_texts(&self, model: &dyn Embedder) -> Result<()> {
        if self.kept_reference_texts(model)?.is_none()
            && let Some(texts) = self.reference_texts(model)?
        {
            self.store.set_setting(stored::SETTING, &stored::write(&texts, &model.space()?.to_string()))?;
        }
        Ok(())
    }

    fn kept_reference_texts(&self, model: &dyn Embedder) -> Result<Option<Bank>> {
        let setting = self.store.setting(stored::SETTING)?;
        let space = model.space()?.to_string();
        Ok(setting.and_then(|setting| stored::read(&setting, &space, model.dimension())))
    }

    /// The full id of an item named by its id, by a path to its file, or by the end of its id where that is unique.
    ///
    /// # Errors
    /// No such item, or several.
    pub fn resolve_item(&self, name: &str) -> Result<String> {
        if self.store.get(&[name.to_string()])?.iter().any(Option::is_some) {
            return Ok(name.to_string());
        }
        if let Ok(path) = Path::new(name).canonicalize() {
            let uri = crate::files::uri(&path);
            if self.store.get(std::slice::from_ref(&uri))?.iter().any(Option::is_some) {
                return Ok(uri);
            }
        }
        let end = format!("/{name}");
        let mut matching = self.store.list(&ListRequest::default())?.into_iter().map(|stored| stored.item.id);
        let mut matching = matching.by_ref().filter(|id| id.ends_with(&end));
        match (matching.next(), matching.next()) {
            (Some(id), None) => Ok(id),
            (Some(a), Some(b)) => {
                Err(Error::Invalid(format!("{name:?} may be {a:?}, {b:?} or others; give the whole id")))
            }
            (None, _) => {
                Err(Error::NotFound(format!("no item {name:?} in the collection; `collection list` shows them")))
            }
        }
    }

    /// Ids of items whose files don't exist any more, sorted.
    ///
    /// # Errors
    /// Failures of the storage.
    pub fn missing(&self) -> Result<Vec<String>> {
        let items = self.store.list(&ListRequest::default())?.into_iter().map(|stored| stored.item);
        let gone = items.filter(|item| {
            item.source.as_ref().is_some_and(|source| crate::files::is_gone(&crate::files::path(&source.uri)))
        });
        let mut ids: Vec<String> = gone.map(|item| item.id).collect();
        ids.sort();
        Ok(ids)
    }

    /// The collection's state.
    ///
    /// # Errors
    /// Failures of the storage.
    pub fn info(&self) -> Result<CollectionInfo> {
        Ok(self.store.info()?)
    }

    /// A page of items.
    ///
    /// # Errors
    /// An invalid filter, or failures of the storage.
    pub fn list(&self, request: &ListRequest) -> Result<Vec<StoredItem>> {
        Ok(self.store.list(request)?)
    }

    /// Forgets items. Returns how many there were.
    ///
    /// # Errors
    /// Failures of the storage.
    pub fn remove(&self, ids: &[String]) -> Result<usize> {
        Ok(self.store.remove(ids)?)
    }

    /// Checks everything against everything.
    ///
    /// # Errors
    /// Failures that keep the check from running.
    pub fn verify(&self) -> Result<VerifyReport> {
        Ok(self.store.verify()?)
    }

    /// Gives the space of forgotten vectors back.
    ///
    /// # Errors
    /// Failures of the storage.
    pub fn compact(&self) -> Result<CompactReport> {
        Ok(self.store.compact()?)
    }
}

/// The space of a model, as stores know it.
pub(crate) fn space_of(model: &dyn Embedder) -> Result<SpaceRef> {
    Ok(SpaceRef { id: model.space()?.to_string(), model: model.info().name.clone() })
}
