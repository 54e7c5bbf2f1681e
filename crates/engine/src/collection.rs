//! A local collection together with the rules this engine keeps: which field, which model, how items are named.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossmodal_models::Embedder;
use crossmodal_store::{
    BuildControl, CollectionInfo, CompactReport, Field, Filter, FilterPath, IndexChoice, IndexReport, ListRequest,
    LocalStore, Metric, OpenOptions, SpaceRef, StoreError, StoredItem, VectorStore, VerifyReport,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::relevance::KeptStatistics;
use crate::relevance::stored::ReferenceTexts;

/// The field that pictures and texts are kept in unless said otherwise.
pub const DEFAULT_FIELD: &str = "default";

/// Setting under which a reference to the model is kept, so that a search needs not name it again.
const MODEL_SETTING: &str = "model";

/// Setting under which the fields of a migrated collection are kept.
const SPACES_SETTING: &str = "spaces";

/// Where vectors of a model go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The field.
    pub field: String,
    /// Its space.
    pub space: SpaceRef,
}

/// A field and the model that fills it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Space {
    pub field: String,
    /// A reference that [`load`](crate::load) understands.
    pub model: String,
}

/// Which space of a collection is searched, and which was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spaces {
    pub active: Space,
    pub previous: Option<Space>,
}

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
    pub(crate) reference_texts: ReferenceTexts,
    pub(crate) statistics: KeptStatistics,
    known: Mutex<Option<Arc<Known>>>,
}

/// What a search needs to know of a collection before it begins, as it was at one change.
#[derive(Debug)]
pub(crate) struct Known {
    pub change: u64,
    /// The name of the field that is searched and filled.
    pub active: String,
    fields: Vec<Field>,
}

impl Known {
    pub fn field(&self, name: &str) -> Result<&Field> {
        let found = self.fields.iter().find(|field| field.name == name);
        Ok(found.ok_or_else(|| StoreError::UnknownField {
            field: name.to_owned(),
            known: self.fields.iter().map(|field| field.name.clone()).collect(),
        })?)
    }

    /// The only field, or the active one of several. `folder` is the collection's, for messages.
    pub fn main_field(&self, folder: &Path) -> Result<&Field> {
        let active = |field: &&Field| self.fields.len() == 1 || field.name == self.active;
        self.fields.iter().find(active).ok_or_else(|| {
            let (folder, active) = (folder.display(), &self.active);
            Error::Invalid(match self.fields.len() {
                0 => format!("{folder} holds no vectors"),
                count => format!("{folder} has {count} fields and none is named {active:?}"),
            })
        })
    }
}

impl Collection {
    /// Opens or creates the collection in `folder`.
    ///
    /// # Errors
    /// A folder that isn't a collection, that can't be opened so, or that another writer holds.
    pub fn open(folder: &Path, mode: &Mode) -> Result<Self> {
        Ok(Self {
            store: LocalStore::open(folder, &mode.0)?,
            reference_texts: ReferenceTexts::default(),
            statistics: KeptStatistics::default(),
            known: Mutex::default(),
        })
    }

    /// Ids of the items that lost vectors when it was opened [`repairing`](Mode::repairing), sorted.
    pub fn repaired_items(&self) -> &[String] {
        self.store.repaired_items()
    }

    /// The store beneath.
    pub fn store(&self) -> &LocalStore {
        &self.store
    }

    /// A reference to the model that the collection is searched with, which [`load`](crate::load) understands from anywhere.
    ///
    /// # Errors
    /// Failures of the storage.
    pub fn model_name(&self) -> Result<Option<String>> {
        if let Some(spaces) = self.spaces()? {
            return Ok(Some(spaces.active.model));
        }
        let name = self.store.setting(MODEL_SETTING)?;
        Ok(name.and_then(|name| name.as_str().map(str::to_string)))
    }

    /// The field that is searched and filled.
    ///
    /// # Errors
    /// Failures of the storage.
    pub fn field(&self) -> Result<String> {
        Ok(self.spaces()?.map_or_else(|| DEFAULT_FIELD.to_owned(), |spaces| spaces.active.field))
    }

    /// The spaces of a collection that was migrated; `None` for one that has been in one space all along.
    pub(crate) fn spaces(&self) -> Result<Option<Spaces>> {
        let value = self.store.setting(SPACES_SETTING)?;
        value.map(serde_json::from_value).transpose().map_err(|error| {
            Error::Invalid(format!("the collection's setting {SPACES_SETTING:?} can't be read: {error}"))
        })
    }

    /// Makes another space the active one: one transaction.
    pub(crate) fn set_spaces(&self, spaces: &Spaces) -> Result<()> {
        let value = serde_json::to_value(spaces).map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(self.store.set_setting(SPACES_SETTING, &value)?)
    }

    /// Makes sure that the collection takes vectors of `model`, and remembers a reference to it.
    ///
    /// # Errors
    /// The collection holds vectors of another space; the message names both models.
    pub fn adopt(&self, model: &dyn Embedder) -> Result<Target> {
        let target = self.target(self.field()?, model)?;
        if self.model_name()?.is_none() {
            self.store.set_setting(MODEL_SETTING, &Value::String(model.info().reference.clone()))?;
        }
        Ok(target)
    }

    /// Makes sure that a field takes vectors of `model`.
    pub(crate) fn target(&self, field: String, model: &dyn Embedder) -> Result<Target> {
        let space = space_of(model)?;
        self.store.ensure_field(&Field {
            name: field.clone(),
            space: space.clone(),
            dimension: model.dimension(),
            metric: Metric::Cosine,
        })?;
        Ok(Target { field, space })
    }

    /// The field that work without a model is about: the only one, or the active one of several.
    ///
    /// # Errors
    /// A collection without vectors, several fields of which none is the active one, failures of the storage.
    pub(crate) fn main_field(&self) -> Result<Field> {
        Ok(self.known()?.main_field(self.store.folder())?.clone())
    }

    /// What is known at the present change; read again only where there was one.
    pub(crate) fn known(&self) -> Result<Arc<Known>> {
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the rest, so that what is kept is never older than it says.
        let change = self.store.change()?;
        if let Some(known) = lock().as_ref().filter(|known| known.change == change) {
            return Ok(known.clone());
        }
        let known = Arc::new(Known { change, active: self.field()?, fields: self.store.fields()? });
        *lock() = Some(known.clone());
        Ok(known)
    }

    /// The item with a key, as hits name it.
    ///
    /// # Errors
    /// Failures of the storage.
    pub fn item(&self, key: i64) -> Result<Option<StoredItem>> {
        Ok(self.store.get_by_key(&[key])?.pop().flatten())
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
        let ending = Filter::Like { path: FilterPath::Id, pattern: format!("%{}", literally(&end)) };
        let some = ListRequest { filter: Some(ending), ..ListRequest::default() };
        // The filter ignores the case of letters.
        let mut matching = self.store.list(&some)?.into_iter().map(|stored| stored.item.id);
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

    /// The fields, in the order of their creation.
    ///
    /// # Errors
    /// Failures of the storage.
    pub fn fields(&self) -> Result<Vec<Field>> {
        Ok(self.store.fields()?)
    }

    /// Number of items that satisfy a filter, or of all.
    ///
    /// # Errors
    /// An invalid filter, or failures of the storage.
    pub fn count(&self, filter: Option<&Filter>) -> Result<u64> {
        Ok(self.store.count(filter)?)
    }

    /// The collection's state.
    ///
    /// # Errors
    /// Failures of the storage.
    pub fn info(&self) -> Result<CollectionInfo> {
        Ok(self.store.info()?)
    }

    /// Whether there is an item with this id.
    ///
    /// # Errors
    /// Failures of the storage.
    pub fn contains(&self, id: &str) -> Result<bool> {
        Ok(self.store.get(&[id.to_owned()])?.iter().any(Option::is_some))
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

    /// Remembers which kind of index the collection is to have; the next [`build_index`](Self::build_index) follows it.
    ///
    /// # Errors
    /// Failures of the storage.
    pub fn choose_index(&self, choice: IndexChoice) -> Result<()> {
        Ok(self.store.choose_index(&self.main_field()?.name, choice)?)
    }

    /// Whether building or extending the index is worth it; never in a collection without vectors.
    ///
    /// # Errors
    /// Several fields of which none is the active one, and failures of the storage.
    pub fn index_is_due(&self) -> Result<bool> {
        if self.known()?.fields.is_empty() {
            return Ok(false);
        }
        Ok(self.store.index_is_due(&self.main_field()?.name)?)
    }

    /// Brings the index up to the vectors there are: extends it, or builds it anew where that is necessary or asked for.
    ///
    /// # Errors
    /// A collection without vectors, one opened for reading, cancellation, failures of the storage.
    pub fn build_index(&self, rebuild: bool, control: &BuildControl<'_>) -> Result<IndexReport> {
        Ok(self.store.build_index(&self.main_field()?.name, rebuild, control)?)
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

/// A text within a pattern, where `%`, `_` and `\` stand for themselves.
fn literally(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for letter in text.chars() {
        if matches!(letter, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}
