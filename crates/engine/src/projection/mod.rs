//! A map of a collection: two coordinates an item, so that what is near in the model's space lies together.
//!
//! The way is that of UMAP (McInnes, Healy and Melville 2018, <https://arxiv.org/abs/1802.03426>): the nearest neighbours of every item, found
//! exactly; a graph whose weights say how likely two items belong together; a layout that starts from the principal components and is improved by
//! stochastic gradient steps. Vectors of each modality are centred by their own mean first: models like CLIP keep pictures and texts in two cones,
//! whose distance says nothing about what is in them.
//!
//! The same state of a collection with the same options gives the same map, bit for bit, whatever the number of threads.

mod components;
mod fuzzy;
mod layout;
mod points;
mod scale;
#[cfg(test)]
mod tests;

use crossmodal_models::CancelToken;

use crate::collection::Collection;
use crate::error::{Error, Result};
use points::Points;

/// The most items that a map can have.
pub const MOST_ITEMS: usize = 50_000;
/// The most items that a map has unless said otherwise.
pub const DEFAULT_LIMIT: usize = 5_000;
/// Neighbours of an item that decide where it lies.
const NEIGHBOURS: usize = 15;
/// With fewer items everything is a neighbour of everything, and principal components show more.
const LEAST_ITEMS: usize = NEIGHBOURS + 1;
/// The part of the whole progress that is made when the neighbours are known.
const NEIGHBOURS_SHARE: f32 = 0.4;

/// What a map is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProjectionOptions {
    /// The most items, 1..=[`MOST_ITEMS`]. Of a larger collection so many are taken, spread evenly over the order in which they were added.
    pub limit: usize,
    /// Where random numbers start. Another seed gives another map of the same items, about as good.
    pub seed: u64,
}

impl Default for ProjectionOptions {
    fn default() -> Self {
        Self { limit: DEFAULT_LIMIT, seed: 0 }
    }
}

/// A map.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Projection {
    /// The number of the last change of the collection that it knows of.
    pub change: u64,
    /// Number of items that could be on it: more than there are keys if it is of a sample.
    pub total: u64,
    /// The items' keys, rising.
    pub keys: Vec<i64>,
    /// Horizontal places of the items, in -1..=1.
    pub x: Vec<f32>,
    /// Vertical places of the items, in -1..=1. Both directions have the same scale.
    pub y: Vec<f32>,
}

/// Makes a map of the vectors of the default field (or the only one): one vector an item, that of its first part. Items whose vectors are damaged
/// are left out. `progress` is told which part of the work is done, in 0..=1, never less than before.
///
/// Fewer than 16 items are laid out by their principal components alone, equal ones at the same place; a collection that never held
/// vectors gives an empty map.
///
/// # Errors
/// A limit out of range, several fields and no default one, failures of the storage, [`Cancelled`](crossmodal_models::Error::Cancelled).
pub fn project(
    collection: &Collection,
    options: &ProjectionOptions,
    progress: &mut dyn FnMut(f32),
    cancel: &CancelToken,
) -> Result<Projection> {
    if !(1..=MOST_ITEMS).contains(&options.limit) {
        return Err(Error::Invalid(format!("the limit is {} items, expected 1 to {MOST_ITEMS}", options.limit)));
    }
    let snapshot = collection.store().snapshot()?;
    let change = snapshot.change();
    if snapshot.fields().next().is_none() {
        progress(1.0);
        return Ok(Projection { change, ..Projection::default() });
    }
    let field = collection.main_field()?;
    cancel.check()?;
    let sample = snapshot.sample_items(&field.name, options.limit)?;
    cancel.check()?;
    let points = Points::centred(&sample.vectors, field.dimension);
    let (total, keys) = (sample.items, sample.vectors.iter().map(|vector| vector.item).collect());
    let places = places(&points, options.seed, progress, cancel)?;
    progress(1.0);
    let (x, y) = places.into_iter().map(|[x, y]| (x, y)).unzip();
    Ok(Projection { change, total, keys, x, y })
}

/// Where points lie on the map, in -1..=1.
fn places(points: &Points, seed: u64, progress: &mut dyn FnMut(f32), cancel: &CancelToken) -> Result<Vec<[f32; 2]>> {
    let start = scale::to_square(&components::principal(points));
    if points.count() < LEAST_ITEMS {
        return Ok(start);
    }
    let neighbours = points.neighbours(NEIGHBOURS, &mut |done| progress(done * NEIGHBOURS_SHARE), cancel)?;
    let graph = fuzzy::graph(&neighbours);
    drop(neighbours);
    let mut rest = |done| progress(NEIGHBOURS_SHARE + done * (1.0 - NEIGHBOURS_SHARE));
    let places = layout::optimise(&graph, &start, seed, &mut rest, cancel)?;
    Ok(scale::to_square(&places))
}
