//! From queries to the vectors that are searched for: every text and picture of all queries in one forward pass, then weighted sums.

use crossmodal_models::{CancelToken, Content, Embedder, Input};
use crossmodal_store::{Field, Metric, VectorStore};
use rayon::prelude::*;

use super::query::{Part, Query, Subject};
use crate::collection::Collection;
use crate::error::{Error, Result};
use crate::relevance::{Recipe, normalised};

/// Sums shorter than this are rounding: the parts cancel each other out.
const SHORTEST: f64 = 1e-4;

/// A query as a direction in the space.
pub(super) struct Direction {
    /// Of unit length where the field compares by cosine.
    pub vector: Vec<f32>,
    /// What it was made of; none where that is a bare vector, which may be of anything.
    pub recipe: Option<Recipe>,
    /// Ids of the items it was made of.
    pub items: Vec<String>,
    /// The words that were searched for.
    pub words: String,
}

/// A vector of one part, and what it is of where that is known.
struct PartVector {
    modality: Option<String>,
    vector: Vec<f32>,
}

impl Collection {
    /// The directions of queries. Only queries without texts and pictures need no model.
    pub(super) fn directions(
        &self,
        model: Option<&dyn Embedder>,
        field: &Field,
        queries: &[Query],
    ) -> Result<Vec<Direction>> {
        let mut embedded = embed(model, queries)?.into_iter();
        let mut directions = Vec::with_capacity(queries.len());
        for query in queries {
            let (mut sum, mut largest) = (vec![0f64; field.dimension], 0f64);
            let (mut recipe, mut items) = (Some(Recipe::new()), Vec::new());
            for part in &query.parts {
                if !part.weight.is_finite() || part.weight == 0.0 {
                    return Err(Error::Invalid(format!("a part of the query has weight {}", part.weight)));
                }
                let PartVector { modality, vector } = self.part_vector(part, field, &mut embedded, &mut items)?;
                sum.iter_mut().zip(&vector).for_each(|(sum, v)| *sum += f64::from(part.weight) * f64::from(*v));
                recipe = recipe.zip(modality).map(|(mut recipe, modality)| {
                    recipe.push((modality, part.weight));
                    recipe
                });
                largest = largest.max(f64::from(part.weight.abs()));
            }
            if query.parts.is_empty() {
                return Err(empty());
            }
            let length = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
            let vector = match field.metric {
                Metric::Cosine if length < SHORTEST * largest => {
                    return Err(Error::Invalid("the parts of the query cancel each other out".into()));
                }
                Metric::Cosine => {
                    normalised(&sum.into_iter().map(|value| (value / largest) as f32).collect::<Vec<_>>())
                }
                // Lengths count.
                Metric::InnerProduct | Metric::Euclidean => sum.into_iter().map(|value| value as f32).collect(),
            };
            directions.push(Direction { vector, recipe, items, words: query.words() });
        }
        Ok(directions)
    }

    fn part_vector(
        &self,
        part: &Part,
        field: &Field,
        embedded: &mut impl Iterator<Item = PartVector>,
        items: &mut Vec<String>,
    ) -> Result<PartVector> {
        match &part.subject {
            Subject::Input(_) => embedded.next().ok_or_else(empty),
            Subject::Item(name) => {
                let id = self.resolve_item(name)?;
                let own = self.store().vectors(&id)?.into_iter().find(|vector| vector.field == field.name);
                let own = own.ok_or_else(|| Error::NotFound(format!("item {id:?} has no vector to search by")))?;
                items.push(id);
                Ok(PartVector { modality: Some(own.modality), vector: own.vector })
            }
            Subject::Vector(vector) => Ok(PartVector { modality: None, vector: given(vector, field)? }),
        }
    }
}

fn empty() -> Error {
    Error::Invalid("the query is empty: give some words, a picture, an item or a vector".into())
}

/// The unit vectors of all texts and pictures, in the order of the queries and their parts.
fn embed(model: Option<&dyn Embedder>, queries: &[Query]) -> Result<Vec<PartVector>> {
    let mut inputs: Vec<&Input> = Vec::new();
    for part in queries.iter().flat_map(|query| &query.parts) {
        if let Subject::Input(input) = &part.subject {
            if matches!(&input.content, Content::Text(text) if text.trim().is_empty()) {
                return Err(empty());
            }
            inputs.push(input);
        }
    }
    let Some(first) = inputs.first() else { return Ok(Vec::new()) };
    let Some(model) = model else {
        let kind = first.modality.as_str();
        return Err(Error::Invalid(format!(
            "the query holds content of the kind {kind:?}, which takes a model; without one, vectors and items are searched for"
        )));
    };
    let prepared: Vec<_> = inputs.par_iter().map(|input| model.prepare(input)).collect();
    let prepared = prepared.into_iter().collect::<crossmodal_models::Result<Vec<_>>>()?;
    let embeddings = model.encode(prepared, &CancelToken::new())?;
    let of = |(input, embedding): (&&Input, crossmodal_models::Embedding)| PartVector {
        modality: Some(input.modality.as_str().to_string()),
        vector: embedding.unit,
    };
    Ok(inputs.iter().zip(embeddings).map(of).collect())
}

/// A vector that was given, as it goes into the sum.
fn given(vector: &[f32], field: &Field) -> Result<Vec<f32>> {
    let (found, expected) = (vector.len(), field.dimension);
    if found != expected {
        let reason = format!("a vector of the query has {found} values, the collection's have {expected}");
        return Err(Error::Invalid(reason));
    }
    if let Some(at) = vector.iter().position(|value| !value.is_finite()) {
        let reason = format!("a vector of the query has {} in place {at}, expected finite numbers", vector[at]);
        return Err(Error::Invalid(reason));
    }
    match field.metric {
        Metric::Cosine => {
            let unit = normalised(vector);
            // Not a number where the length is 0.
            if unit.iter().any(|value| !value.is_finite()) {
                return Err(Error::Invalid("a vector of the query has length 0, so that it has no direction".into()));
            }
            Ok(unit)
        }
        Metric::InnerProduct | Metric::Euclidean => Ok(vector.to_vec()),
    }
}
