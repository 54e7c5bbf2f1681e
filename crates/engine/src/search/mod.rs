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
use crossmodal_store::{SearchRequest, SpaceRef, VectorStore};

use self::direction::Direction;
use self::page::Page;
pub use self::query::{Found, GroupBy, Part, Query, Ranking, SearchOptions, Subject};
use crate::collection::{Collection, space_of};
use crate::error::{Error, Result};
use crate::relevance::Confidences;

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
        let known = self.known()?;
        let request = request(known.active.clone(), Some(space_of(model)?), options);
        // A model of another space is refused before it embeds anything.
        self.store().search(&request)?;
        let field = known.field(&known.active)?;
        let directions = self.directions(Some(model), field, queries)?;
        let texts = if has_text(&directions) { self.reference_texts(&field.name, model)? } else { None };
        let confidences = Confidences::new(self, &field.name, known.change, options.filter.as_ref(), texts);
        self.pages(&directions, confidences, options, request)
    }

    /// Searches for several queries made of vectors and items, which needs no model: the hits of each. The field is the collection's only
    /// one, or the active one of several. Queries that hold a bare vector have no confidence: nothing tells what scores are
    /// usual for them.
    ///
    /// # Errors
    /// A query that needs a model, a vector of another dimension or with values that can't be compared, and as [`search`](Self::search).
    pub fn search_vectors(&self, queries: &[Query], options: &SearchOptions) -> Result<Vec<Vec<Found>>> {
        options.check()?;
        let known = self.known()?;
        let field = known.main_field(self.store().folder())?;
        let directions = self.directions(None, field, queries)?;
        let confidences = Confidences::new(self, &field.name, known.change, options.filter.as_ref(), None);
        self.pages(&directions, confidences, options, request(field.name.clone(), None, options))
    }

    fn pages(
        &self,
        directions: &[Direction],
        confidences: Confidences<'_>,
        options: &SearchOptions,
        request: SearchRequest,
    ) -> Result<Vec<Vec<Found>>> {
        let judged = directions.iter().any(|direction| direction.recipe.is_some());
        if options.relevant_only.is_some() && directions.iter().any(|direction| direction.recipe.is_none()) {
            return Err(Error::Invalid(
                "a query that holds a bare vector has no confidence, so that its relevant hits can't be told".into(),
            ));
        }
        let request = SearchRequest { vectors: judged || options.diversity.is_some(), ..request };
        let page = |direction| Page { collection: self, options, direction, confidences: &confidences };
        page::fill(&directions.iter().map(page).collect::<Vec<_>>(), &request)
    }
}

/// What the store is asked for, without the queries.
fn request(field: String, space: Option<SpaceRef>, options: &SearchOptions) -> SearchRequest {
    SearchRequest {
        queries: Vec::new(),
        space,
        filter: options.filter.clone(),
        // By words, hits with too small a cosine stand among the others.
        min_score: options.min_score.filter(|_| options.ranking == Ranking::Vectors),
        effort: options.effort,
        exact: options.exact,
        ..SearchRequest::new(field, Vec::new(), 0)
    }
}

fn has_text(directions: &[Direction]) -> bool {
    let recipes = directions.iter().filter_map(|direction| direction.recipe.as_ref());
    recipes.flatten().any(|(kind, _)| kind == "text")
}
