//! Repeatable items and vectors, and an exact oracle for searches.

use std::path::Path;

use crossmodal_store::{
    Field, Hit, Item, ItemVectors, LocalStore, Metric, OpenOptions, SearchRequest, SpaceRef, VectorRecord, VectorStore,
};

/// Small, fast and repeatable.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1)
    }

    pub fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `0..limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// In -1..1.
    pub fn value(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn vector(&mut self, dimension: usize) -> Vec<f32> {
        (0..dimension).map(|_| self.value()).collect()
    }
}

pub fn space(model: &str) -> SpaceRef {
    let id = model.bytes().fold(7u128, |id, byte| id.wrapping_mul(0x0100_0000_01b3).wrapping_add(byte.into()));
    SpaceRef { id: format!("{id:032x}"), model: model.to_owned() }
}

pub fn field(name: &str, dimension: usize, metric: Metric) -> Field {
    Field { name: name.to_owned(), space: space("model"), dimension, metric }
}

pub fn record(field: &str, vector: Vec<f32>) -> VectorRecord {
    VectorRecord {
        field: field.to_owned(),
        space: space("model"),
        part: 0,
        modality: "image".to_owned(),
        span: None,
        precision: "fp32".to_owned(),
        cache_key: None,
        vector,
    }
}

pub fn entry(id: &str, field: &str, vector: Vec<f32>) -> ItemVectors {
    ItemVectors { item: Item::new(id, "image"), vectors: vec![record(field, vector)] }
}

/// `n` items with one vector each.
pub fn entries(field: &str, dimension: usize, ids: std::ops::Range<usize>) -> Vec<ItemVectors> {
    let vector = |id: usize| Random::new(id as u64).vector(dimension);
    ids.map(|id| entry(&format!("item-{id}"), field, vector(id))).collect()
}

pub fn open_write(folder: &Path) -> LocalStore {
    LocalStore::open(folder, &OpenOptions::write()).unwrap()
}

pub fn open_read(folder: &Path) -> LocalStore {
    LocalStore::open(folder, &OpenOptions::read()).unwrap()
}

pub fn strings(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

pub fn hit_ids(hits: &[Hit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.item.id.as_str()).collect()
}

/// Double precision, from the definition.
pub fn exact_score(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    let pairs = || a.iter().zip(b).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let dot: f64 = pairs().map(|(a, b)| a * b).sum();
    let lengths = || {
        let (aa, bb): (f64, f64) = pairs().fold((0.0, 0.0), |sum, (a, b)| (sum.0 + a * a, sum.1 + b * b));
        (aa * bb).sqrt()
    };
    match metric {
        Metric::Cosine => dot / lengths(),
        Metric::InnerProduct => dot,
        Metric::Euclidean => -pairs().map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt(),
    }
}

/// Searches and compares with scoring every vector: `vectors` are the (id, vector) pairs that the field should hold.
pub fn assert_search_is_exact<'a>(
    store: &dyn VectorStore,
    field: &str,
    metric: Metric,
    k: usize,
    query: &[f32],
    vectors: impl Iterator<Item = (&'a str, &'a [f32])>,
) {
    let mut expected = std::collections::HashMap::<&str, f64>::new();
    for (id, vector) in vectors {
        let score = exact_score(metric, query, vector);
        let best = expected.entry(id).or_insert(score);
        *best = best.max(score);
    }
    let hits = store.search(&SearchRequest::new(field, query.to_vec(), k)).unwrap().remove(0);
    assert_eq!(hits.len(), k.min(expected.len()));
    let mut ranked: Vec<f64> = expected.values().copied().collect();
    ranked.sort_by(|a, b| b.total_cmp(a));
    for (hit, score) in hits.iter().zip(ranked) {
        let own = *expected.get(hit.item.id.as_str()).unwrap_or_else(|| panic!("{} should not exist", hit.item.id));
        assert!((f64::from(hit.score) - own).abs() < 1e-4, "{}: {} is not {own}", hit.item.id, hit.score);
        assert!((f64::from(hit.score) - score).abs() < 1e-4, "{} is not the best left, {score}", hit.score);
    }
    let mut ids = hit_ids(&hits);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), hits.len(), "an item was found twice");
}
