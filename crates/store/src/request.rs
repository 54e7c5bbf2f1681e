//! What is asked of a store, and what a search answers.

use crate::{Filter, Item, SpaceRef, Span};

/// A search by vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchRequest {
    /// The field that is searched.
    pub field: String,
    /// The space of the queries; when given, it must be the field's.
    pub space: Option<SpaceRef>,
    /// The queries, each of the field's dimension. In a cosine field they need not have unit length.
    pub queries: Vec<Vec<f32>>,
    /// Number of hits for each query.
    pub k: usize,
    /// Only items that satisfy it are found.
    pub filter: Option<Filter>,
    /// Only hits with at least this score are returned.
    pub min_score: Option<f32>,
    /// How many candidates an approximate index weighs for each query: more find more of the true best and take longer. A rule
    /// of the index chooses when absent. Exact searches ignore it.
    pub effort: Option<usize>,
    /// Whether every vector is compared, also where an approximate index exists.
    pub exact: bool,
    /// Whether each hit comes with the vector that it was found by.
    pub vectors: bool,
}

impl SearchRequest {
    /// One query without a filter.
    pub fn new(field: impl Into<String>, query: Vec<f32>, k: usize) -> Self {
        Self {
            field: field.into(),
            space: None,
            queries: vec![query],
            k,
            filter: None,
            min_score: None,
            effort: None,
            exact: false,
            vectors: false,
        }
    }
}

/// One item that a search found, with the vector of it that is nearest to the query.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The item's internal number.
    pub key: i64,
    /// Higher is better; see [`Metric`](crate::Metric).
    pub score: f32,
    /// The part that matched.
    pub part: u32,
    /// The modality of the vector that matched.
    pub modality: String,
    /// The place inside the item that matched.
    pub span: Option<Span>,
    /// The item.
    pub item: Item,
    /// The vector that matched; only where [`SearchRequest::vectors`] asks for it.
    pub vector: Option<Vec<f32>>,
}

/// A search by words.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TextRequest {
    /// Words, and phrases in double quotes; a `*` behind either finds what begins so. A hit has at least one of them;
    /// more of them, rarer ones, and those in captions and names score higher. Case and accents don't matter.
    pub text: String,
    /// At most so many hits.
    pub k: usize,
    /// Only items that satisfy it are found.
    pub filter: Option<Filter>,
    /// So many of the best hits are left out: those of the pages before.
    pub offset: usize,
}

/// One item that a search by words found.
#[derive(Debug, Clone, PartialEq)]
pub struct TextHit {
    /// The item's internal number.
    pub key: i64,
    /// BM25, above 0; higher is better. Only comparable within one search.
    pub score: f32,
    /// The item.
    pub item: Item,
}

/// A page of items, in the order of their keys.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ListRequest {
    /// Only items that satisfy it.
    pub filter: Option<Filter>,
    /// Only items that have no vector in this field: what is left to do where a second space is filled.
    pub without_field: Option<String>,
    /// Only items whose source's uri starts with this, compared by bytes. For a folder, end it with a separator.
    pub uri_prefix: Option<String>,
    /// Only items with a key above this one: the last key of the page before.
    pub after: Option<i64>,
    /// At most so many items; all of them when absent.
    pub limit: Option<usize>,
}
