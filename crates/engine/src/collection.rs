//! A local collection together with the rules this engine keeps: which field, which model, how queries are combined.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossmodal_models::{CancelToken, Embedder, Input};
use crossmodal_store::{
    CollectionInfo, CompactReport, Field, Filter, Hit, ListRequest, LocalStore, Metric, OpenOptions, SearchRequest,
    SpaceRef, StoredItem, VectorStore, VerifyReport,
};
use serde_json::Value;

use crate::error::{Error, Result};

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

/// What is searched for. Several parts are combined: the mean of their unit vectors.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Texts and pictures.
    pub inputs: Vec<Input>,
    /// Ids of items whose vectors join the query. They are left out of the hits.
    pub like: Vec<String>,
    /// Number of hits, at least 1.
    pub k: usize,
    /// Only hits with at least this cosine.
    pub min_score: Option<f32>,
    /// Only items that satisfy it.
    pub filter: Option<Filter>,
}

impl Query {
    /// The ten best hits for nothing yet.
    pub fn new() -> Self {
        Self { k: 10, ..Self::default() }
    }

    /// The ten best hits for a text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { inputs: vec![Input::text(text).as_query()], ..Self::new() }
    }

    /// The ten best hits for an encoded picture.
    pub fn image(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { inputs: vec![Input::image(bytes).as_query()], ..Self::new() }
    }

    /// The ten items most like one of the collection.
    pub fn like(id: impl Into<String>) -> Self {
        Self { like: vec![id.into()], ..Self::new() }
    }
}

/// A local collection.
pub struct Collection {
    store: LocalStore,
}

impl Collection {
    /// Opens or creates the collection in `folder`.
    ///
    /// # Errors
    /// A folder that isn't a collection, that can't be opened so, or that another writer holds.
    pub fn open(folder: &Path, mode: &Mode) -> Result<Self> {
        Ok(Self { store: LocalStore::open(folder, &mode.0)? })
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

    /// The field that work without a model is about: the only one, or the default one of several.
    ///
    /// # Errors
    /// A collection without vectors, several fields of which none is the default one, failures of the storage.
    pub(crate) fn main_field(&self) -> Result<Field> {
        let mut fields = self.store.fields()?;
        let at = if fields.len() == 1 { Some(0) } else { fields.iter().position(|field| field.name == DEFAULT_FIELD) };
        at.map(|at| fields.swap_remove(at)).ok_or_else(|| {
            let folder = self.store.folder().display();
            Error::Invalid(match fields.len() {
                0 => format!("{folder} holds no vectors"),
                count => format!("{folder} has {count} fields and none is named {DEFAULT_FIELD:?}"),
            })
        })
    }

    /// Searches, best hit first.
    ///
    /// # Errors
    /// An empty query, an item that doesn't exist, a model of another space, or failures of model and storage.
    pub fn search(&self, model: &dyn Embedder, query: &Query) -> Result<Vec<Hit>> {
        let vector = self.query_vector(model, query)?;
        let request = SearchRequest {
            field: DEFAULT_FIELD.into(),
            space: Some(space_of(model)?),
            queries: vec![vector],
            // The items the query is made of are found too, and dropped below.
            k: query.k.max(1).saturating_add(query.like.len()),
            filter: query.filter.clone(),
            min_score: query.min_score,
            effort: None,
            exact: false,
        };
        let mut hits = self.store.search(&request)?.pop().unwrap_or_default();
        hits.retain(|hit| !query.like.contains(&hit.item.id));
        hits.truncate(query.k.max(1));
        Ok(hits)
    }

    fn query_vector(&self, model: &dyn Embedder, query: &Query) -> Result<Vec<f32>> {
        for input in &query.inputs {
            if matches!(&input.content, crossmodal_models::Content::Text(text) if text.trim().is_empty()) {
                return Err(Error::Invalid("the query is empty: give some words, a picture or an item".into()));
            }
        }
        let prepared =
            query.inputs.iter().map(|input| model.prepare(input)).collect::<crossmodal_models::Result<_>>()?;
        let mut parts: Vec<Vec<f32>> =
            model.encode(prepared, &CancelToken::new())?.into_iter().map(|embedding| embedding.unit).collect();
        for id in &query.like {
            parts.push(self.vector_of(id)?);
        }
        let Some(first) = parts.first() else {
            return Err(Error::Invalid("the query is empty: give some words, a picture or an item".into()));
        };
        let mut sum = vec![0f32; first.len()];
        for part in &parts {
            sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
        }
        if sum.iter().all(|value| *value == 0.0) {
            return Err(Error::Invalid("the parts of the query cancel each other out".into()));
        }
        Ok(sum)
    }

    /// The vector of an item, which may also be named by the end of its id, as long as that is unique.
    fn vector_of(&self, id: &str) -> Result<Vec<f32>> {
        let vectors = self.store.vectors(id)?;
        let own = vectors.into_iter().find(|vector| vector.field == DEFAULT_FIELD);
        own.map(|vector| vector.vector)
            .ok_or_else(|| Error::NotFound(format!("no item {id:?} in the collection; `collection list` shows them")))
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
