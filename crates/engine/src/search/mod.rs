//! Searching a collection: queries to vectors, vectors to candidates, candidates to a page of hits.
//!
//! All queries of a call are embedded in one forward pass and searched together. Each then fills its page from a pool of candidates, which
//! grows until the page is full or nothing is left.

mod candidates;
mod direction;
mod diversity;
pub mod expression;
mod page;
mod query;

use crossmodal_models::Embedder;
use crossmodal_store::{SearchRequest, VectorStore};

use self::page::{Nulls, Page};
pub use self::query::{Found, GroupBy, Part, Query, Ranking, SearchOptions, Subject};
use crate::collection::{Collection, space_of};
use crate::error::Result;
use crate::relevance::{SAMPLE, Statistics};

impl Collection {
    /// Searches, best hit first.
    ///
    /// # Errors
    /// An empty query, an item that doesn't exist, options out of range, a model of another space, or failures of model and storage.
    pub fn search(&self, model: &dyn Embedder, query: &Query, options: &SearchOptions) -> Result<Vec<Found>> {
        Ok(self.search_all(model, std::slice::from_ref(query), options)?.pop().unwrap_or_default())
    }

    /// Searches for several queries at once: the hits of each.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    pub fn search_all(
        &self,
        model: &dyn Embedder,
        queries: &[Query],
        options: &SearchOptions,
    ) -> Result<Vec<Vec<Found>>> {
        options.check()?;
        let field = self.field()?;
        let request = SearchRequest {
            queries: Vec::new(),
            space: Some(space_of(model)?),
            filter: options.filter.clone(),
            // By words, hits with too small a cosine stand among the others.
            min_score: options.min_score.filter(|_| options.ranking == Ranking::Vectors),
            ..SearchRequest::new(field.clone(), Vec::new(), 0)
        };
        // A model of another space is refused before it embeds anything.
        self.store().search(&request)?;
        let directions = self.directions(model, &field, queries)?;
        let sample = self.store().sample(&field, SAMPLE)?;
        let sample = sample.into_iter().map(|vector| (vector.modality, vector.vector)).collect();
        let has_text = directions.iter().any(|direction| direction.recipe.iter().any(|(kind, _)| kind == "text"));
        let texts = if has_text { self.reference_texts(&field, model)? } else { None };
        let statistics = Statistics::new(sample, texts.as_deref().cloned());
        let nulls = Nulls::new(&statistics);
        let searched = self.store().count(options.filter.as_ref())?;
        let pages = directions.iter().map(|direction| Page {
            collection: self,
            field: &field,
            options,
            direction,
            searched,
            nulls: &nulls,
        });
        page::fill(&pages.collect::<Vec<_>>(), &request)
    }
}
