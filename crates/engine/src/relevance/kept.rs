//! Statistics of a collection, kept for as long as it doesn't change: what confidence costs, the first search pays.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossmodal_store::{Filter, VectorStore};

use super::{Bank, Judge, Null, Recipe, SAMPLE, Statistics};
use crate::collection::Collection;
use crate::error::Result;

/// Fields whose statistics are kept, each with a sample of 4 KiB a dimension.
const MOST_FIELDS: usize = 3;
/// Null distributions of a field that are kept, each with reference queries of 1 KiB a dimension. Weights are anybody's choice, so
/// that there is no end of recipes.
const MOST_NULLS: usize = 16;
/// Filters whose numbers of items are kept.
const MOST_COUNTS: usize = 64;

/// The statistics of an open collection, those used last first.
#[derive(Debug, Default)]
pub(crate) struct KeptStatistics(Mutex<VecDeque<Arc<Kept>>>);

/// Statistics of a field at one change of the collection. Equal changes mean equal collections, so that nothing here gets out of date.
#[derive(Debug)]
struct Kept {
    field: String,
    change: u64,
    statistics: Statistics,
    nulls: Mutex<VecDeque<(NullName, Option<Arc<Null>>)>>,
    counts: Mutex<VecDeque<(Option<Filter>, u64)>>,
}

/// What a null distribution is of.
#[derive(Debug, PartialEq)]
struct NullName {
    recipe: Recipe,
    modality: String,
    /// Whether its texts are the generic ones, rather than items.
    generic_texts: bool,
}

/// Keeps at most so many, the last used first.
fn remember<T>(list: &Mutex<VecDeque<T>>, most: usize, value: T) {
    let mut list = locked(list);
    list.push_front(value);
    list.truncate(most);
}

/// Finds one and moves it to the front.
fn recall<T, U: Clone>(list: &Mutex<VecDeque<T>>, fits: impl Fn(&T) -> bool, take: impl Fn(&T) -> U) -> Option<U> {
    let mut list = locked(list);
    let at = list.iter().position(fits)?;
    let found = list.remove(at)?;
    let value = take(&found);
    list.push_front(found);
    Some(value)
}

fn locked<T>(list: &Mutex<VecDeque<T>>) -> MutexGuard<'_, VecDeque<T>> {
    // The list is whole at every moment, so that a panic elsewhere does not spoil it.
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KeptStatistics {
    fn get(&self, collection: &Collection, field: &str, change: u64) -> Result<Arc<Kept>> {
        let fits = |kept: &Arc<Kept>| kept.change == change && kept.field == field;
        if let Some(kept) = recall(&self.0, fits, Arc::clone) {
            return Ok(kept);
        }
        // Outside the lock: several threads may do it at once, and then all come to the same.
        let sample = collection.store().sample(field, SAMPLE)?;
        let sample = sample.into_iter().map(|vector| (vector.modality, vector.vector)).collect();
        let kept = Arc::new(Kept {
            field: field.to_owned(),
            change,
            statistics: Statistics::new(sample),
            nulls: Mutex::default(),
            counts: Mutex::default(),
        });
        locked(&self.0).retain(|known| known.field != field || known.change > change);
        remember(&self.0, MOST_FIELDS, kept.clone());
        Ok(kept)
    }
}

impl Kept {
    fn null(&self, recipe: &Recipe, modality: &str, texts: Option<&Bank>) -> Option<Arc<Null>> {
        let texts = texts.filter(|_| recipe.iter().any(|(kind, _)| kind == "text"));
        let name = NullName { recipe: recipe.clone(), modality: modality.to_owned(), generic_texts: texts.is_some() };
        let known = recall(&self.nulls, |(known, _)| *known == name, |(_, null)| null.clone());
        known.unwrap_or_else(|| {
            let null = self.statistics.null(recipe, modality, texts).map(Arc::new);
            remember(&self.nulls, MOST_NULLS, (name, null.clone()));
            null
        })
    }

    fn count(&self, collection: &Collection, filter: Option<&Filter>) -> Result<u64> {
        let fits = |(known, _): &(Option<Filter>, u64)| known.as_ref() == filter;
        if let Some(count) = recall(&self.counts, fits, |(_, count)| *count) {
            return Ok(count);
        }
        let count = collection.store().count(filter)?;
        remember(&self.counts, MOST_COUNTS, (filter.cloned(), count));
        Ok(count)
    }
}

/// What judges the hits of one call. Nothing is read or computed before the first hit is judged.
pub(crate) struct Confidences<'a> {
    collection: &'a Collection,
    field: &'a str,
    change: u64,
    filter: Option<&'a Filter>,
    texts: Option<Arc<Bank>>,
    kept: OnceCell<Arc<Kept>>,
}

impl<'a> Confidences<'a> {
    /// For a field at a change of the collection, a filter, and the vectors of generic texts where a query holds words.
    pub fn new(
        collection: &'a Collection,
        field: &'a str,
        change: u64,
        filter: Option<&'a Filter>,
        texts: Option<Arc<Bank>>,
    ) -> Self {
        Self { collection, field, change, filter, texts, kept: OnceCell::new() }
    }

    /// The field that is searched.
    pub fn field(&self) -> &'a str {
        self.field
    }

    /// Judges items of a modality that a query was answered with; none where there is too little to tell.
    pub fn judge(&self, recipe: &Recipe, modality: &str, query: &[f32]) -> Result<Option<Judge>> {
        let kept = match self.kept.get() {
            Some(kept) => kept,
            None => {
                let kept = self.collection.statistics.get(self.collection, self.field, self.change)?;
                self.kept.get_or_init(|| kept)
            }
        };
        let Some(null) = kept.null(recipe, modality, self.texts.as_deref()) else { return Ok(None) };
        Ok(Judge::new(null, query, kept.count(self.collection, self.filter)?))
    }
}
