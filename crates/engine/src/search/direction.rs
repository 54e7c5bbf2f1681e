//! From queries to unit vectors: every text and picture of all queries in one forward pass, then weighted sums.

use crossmodal_models::{CancelToken, Content, Embedder, Input};
use crossmodal_store::VectorStore;
use rayon::prelude::*;

use super::query::{Query, Subject};
use crate::collection::Collection;
use crate::error::{Error, Result};
use crate::relevance::{Recipe, normalised};

/// Sums shorter than this are rounding: the parts cancel each other out.
const SHORTEST: f64 = 1e-4;

/// A query as a direction in the space.
pub(super) struct Direction {
    /// Of unit length.
    pub vector: Vec<f32>,
    /// What it was made of.
    pub recipe: Recipe,
    /// Ids of the items it was made of.
    pub items: Vec<String>,
    /// The words that were searched for.
    pub words: String,
}

impl Collection {
    /// The directions of queries.
    pub(super) fn directions(&self, model: &dyn Embedder, field: &str, queries: &[Query]) -> Result<Vec<Direction>> {
        let empty = || Error::Invalid("the query is empty: give some words, a picture or an item".into());
        let mut inputs: Vec<&Input> = Vec::new();
        for part in queries.iter().flat_map(|query| &query.parts) {
            if let Subject::Input(input) = &part.subject {
                if matches!(&input.content, Content::Text(text) if text.trim().is_empty()) {
                    return Err(empty());
                }
                inputs.push(input);
            }
        }
        let prepared: Vec<_> = inputs.par_iter().map(|input| model.prepare(input)).collect();
        let prepared = prepared.into_iter().collect::<crossmodal_models::Result<Vec<_>>>()?;
        let mut embedded = model.encode(prepared, &CancelToken::new())?.into_iter();
        let mut directions = Vec::with_capacity(queries.len());
        for query in queries {
            let mut sum = vec![0f64; model.dimension()];
            let (mut recipe, mut items) = (Recipe::new(), Vec::new());
            for part in &query.parts {
                if !part.weight.is_finite() || part.weight == 0.0 {
                    return Err(Error::Invalid(format!("a part of the query has weight {}", part.weight)));
                }
                let (modality, vector) = match &part.subject {
                    Subject::Input(input) => {
                        (input.modality.as_str().to_string(), embedded.next().ok_or_else(empty)?.unit)
                    }
                    Subject::Item(name) => {
                        let id = self.resolve_item(name)?;
                        let vector = self.vector_of(&id, field)?;
                        items.push(id);
                        (vector.modality, vector.vector)
                    }
                };
                sum.iter_mut().zip(&vector).for_each(|(sum, v)| *sum += f64::from(part.weight) * f64::from(*v));
                recipe.push((modality, part.weight));
            }
            if recipe.is_empty() {
                return Err(empty());
            }
            let largest = recipe.iter().fold(0f64, |largest, (_, weight)| largest.max(f64::from(weight.abs())));
            if sum.iter().map(|value| value * value).sum::<f64>().sqrt() < SHORTEST * largest {
                return Err(Error::Invalid("the parts of the query cancel each other out".into()));
            }
            let sum: Vec<f32> = sum.into_iter().map(|value| (value / largest) as f32).collect();
            directions.push(Direction { vector: normalised(&sum), recipe, items, words: query.words() });
        }
        Ok(directions)
    }

    /// The first vector of an item in a field.
    fn vector_of(&self, id: &str, field: &str) -> Result<crossmodal_store::StoredVector> {
        let own = self.store().vectors(id)?.into_iter().find(|vector| vector.field == field);
        own.ok_or_else(|| Error::NotFound(format!("item {id:?} has no vector to search by")))
    }
}
