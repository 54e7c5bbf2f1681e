//! Items and their vectors, as written and as read.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::SpaceRef;

/// A hash over everything that determines a vector (content, space, options), computed by the caller.
pub type CacheKey = [u8; 32];

/// Where an item came from, and what tells cheaply whether it changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// A path or an address. The store compares it byte for byte; making it canonical is the caller's work.
    pub uri: String,
    /// Bytes, where known.
    pub size: Option<u64>,
    /// Time of the last modification in nanoseconds since 1970, where known.
    pub modified_ns: Option<i64>,
}

/// The place inside an item that one vector stands for. Absent: the whole item.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Span {
    /// Seconds from the start of audio, video or motion data.
    Time {
        /// First second, at least 0.
        start: f64,
        /// Last second, at least `start`.
        end: f64,
    },
    /// Bytes of a text, `start..end`.
    Text {
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
    /// A rectangle of an image, in pixels of the decoded image.
    Region {
        /// Left edge.
        x: u32,
        /// Upper edge.
        y: u32,
        /// Width.
        width: u32,
        /// Height.
        height: u32,
    },
    /// A page of a document.
    Page {
        /// Counted from 1.
        number: u32,
    },
}

/// One thing that can be found.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The stable name, chosen by the caller; unique in the collection, 1..=4096 bytes, no NUL.
    pub id: String,
    /// Where it came from.
    pub source: Option<Source>,
    /// Hash of its content, to tell whether it changed.
    pub content_hash: Option<[u8; 32]>,
    /// `image`, `text`, ...
    pub modality: String,
    /// Anything; a JSON object, nested at most 64 deep, at most 16 MiB as text.
    pub metadata: Map<String, Value>,
}

impl Item {
    /// An item with nothing but an id and a modality.
    pub fn new(id: impl Into<String>, modality: impl Into<String>) -> Self {
        Self { id: id.into(), source: None, content_hash: None, modality: modality.into(), metadata: Map::new() }
    }
}

/// An item as the store holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredItem {
    /// The internal number: stays the same while the item exists, rises with every new item, is never given twice.
    pub key: i64,
    /// The item.
    pub item: Item,
}

/// One vector of an item. `(field, part, modality)` is unique within the item.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorRecord {
    /// The field's name; it must exist.
    pub field: String,
    /// The space that the vector belongs to; compared with the field's at every write.
    pub space: SpaceRef,
    /// Which part of the item, from 0.
    pub part: u32,
    /// The modality that was embedded: a document may have an image vector and a text vector.
    pub modality: String,
    /// The place inside the item.
    pub span: Option<Span>,
    /// The numeric variant that computed it, such as `fp32` or `int8`; recorded, not compared.
    pub precision: String,
    /// Under which it can be found again by [`cached_vectors`](crate::VectorStore::cached_vectors).
    pub cache_key: Option<CacheKey>,
    /// The values: as many as the field's dimension, all finite.
    pub vector: Vec<f32>,
}

/// An item with its vectors, as written by [`upsert`](crate::VectorStore::upsert).
#[derive(Debug, Clone, PartialEq)]
pub struct ItemVectors {
    /// The item.
    pub item: Item,
    /// All of its vectors, in any number of fields.
    pub vectors: Vec<VectorRecord>,
}

/// One vector of an item as the store holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredVector {
    /// The field's name.
    pub field: String,
    /// Which part of the item.
    pub part: u32,
    /// The modality that was embedded.
    pub modality: String,
    /// The place inside the item.
    pub span: Option<Span>,
    /// The numeric variant that computed it.
    pub precision: String,
    /// The key that it was stored under.
    pub cache_key: Option<CacheKey>,
    /// The values (of unit length in a cosine field).
    pub vector: Vec<f32>,
}

/// A vector found by its cache key.
#[derive(Debug, Clone, PartialEq)]
pub struct CachedVector {
    /// The values.
    pub vector: Vec<f32>,
    /// The numeric variant that computed it.
    pub precision: String,
}
