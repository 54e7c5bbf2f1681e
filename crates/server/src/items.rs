//! Items and hits as the API tells of them.

use crossmodal_engine::{Found, Item, Span, StoredItem, files};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::collections::ServedCollection;

/// An item as the API tells of it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ItemView {
    /// Its number: never changes, is never given twice.
    pub key: i64,
    /// Its stable name.
    pub id: String,
    /// The path of its file.
    pub path: Option<String>,
    /// The name it was uploaded under, or that of its file.
    pub name: String,
    /// What it is.
    #[schema(example = "image")]
    pub modality: String,
    /// Bytes of its file.
    pub size: Option<u64>,
    /// When its file was last changed, in milliseconds since 1970.
    pub modified: Option<i64>,
    /// Hash of its content (BLAKE3).
    pub content_hash: Option<String>,
    /// Whether its file was uploaded, and goes with it when it is deleted.
    pub uploaded: bool,
    /// What is known of it.
    #[schema(value_type = Object)]
    pub metadata: Map<String, Value>,
}

impl ItemView {
    /// Of an item of a collection.
    pub fn new(stored: StoredItem, collection: &ServedCollection) -> Self {
        let StoredItem { key, item } = stored;
        Self {
            key,
            path: item.source.as_ref().map(|source| files::path(&source.uri).display().to_string()),
            name: name(&item),
            modality: item.modality.clone(),
            size: item.source.as_ref().and_then(|source| source.size),
            modified: item.source.as_ref().and_then(|source| source.modified_ns).map(|ns| ns / 1_000_000),
            content_hash: item.content_hash.map(|hash| blake3::Hash::from_bytes(hash).to_hex().to_string()),
            uploaded: is_uploaded(&item, collection),
            id: item.id,
            metadata: item.metadata,
        }
    }
}

/// The name to show.
pub fn name(item: &Item) -> String {
    if let Some(Value::String(name)) = item.metadata.get("name") {
        return name.clone();
    }
    let path = item.source.as_ref().map_or_else(|| files::path(&item.id), |source| files::path(&source.uri));
    path.file_name().map_or_else(|| item.id.clone(), |name| name.to_string_lossy().into_owned())
}

/// Whether an item's file lies in the collection's own folder of uploads.
pub fn is_uploaded(item: &Item, collection: &ServedCollection) -> bool {
    let path = item.source.as_ref().map(|source| files::path(&source.uri));
    path.is_some_and(|path| path.parent() == Some(collection.uploads().as_path()))
}

/// A hit as the API tells of it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct HitView {
    /// Counted from 1 over all pages.
    pub rank: usize,
    /// A cosine, BM25, or a fusion of both: as the mode says.
    pub score: f32,
    /// The probability that none of as many unrelated items would score as high.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f32>,
    /// Its group, where hits are grouped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The item's number.
    pub key: i64,
    /// The item's stable name.
    pub id: String,
    /// The path of its file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The name to show.
    pub name: String,
    /// The modality of what matched.
    pub modality: String,
    /// The part of the item that matched.
    pub part: u32,
    /// The place within the item that matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub span: Option<Span>,
    /// What is known of the item.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub metadata: Option<Map<String, Value>>,
}

impl HitView {
    /// Of what a search found.
    pub fn new(rank: usize, found: Found, with_metadata: bool) -> Self {
        let Found { hit, confidence, group } = found;
        let item = hit.item;
        Self {
            rank,
            score: hit.score,
            confidence,
            group,
            key: hit.key,
            path: item.source.as_ref().map(|source| files::path(&source.uri).display().to_string()),
            name: name(&item),
            id: item.id,
            modality: hit.modality,
            part: hit.part,
            span: hit.span,
            metadata: with_metadata.then_some(item.metadata),
        }
    }
}
