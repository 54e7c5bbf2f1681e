//! Fields: named places for vectors of one space.

use serde::{Deserialize, Serialize};

use crate::Metric;

/// The vector space of a model, as the store sees it: an opaque id, and a name for messages.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SpaceRef {
    /// Equal ids mean comparable vectors. 32 lower-case hexadecimal digits by convention; the store only compares it.
    pub id: String,
    /// The model's name, for people. Not compared.
    pub model: String,
}

/// A named place for vectors: one space, one dimension, one metric, fixed when it is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The name, unique in the collection; 1..=128 bytes.
    pub name: String,
    /// The space that every vector of the field belongs to.
    pub space: SpaceRef,
    /// Values per vector, 1..=65536.
    pub dimension: usize,
    /// How vectors are compared. Vectors of a [`Metric::Cosine`] field are stored with unit length: one that has it
    /// already (to 1e-5) is kept bit for bit, another is scaled, and a zero vector is refused.
    pub metric: Metric,
}
