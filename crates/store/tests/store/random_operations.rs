//! Random operations against a plain model in memory.

use std::collections::BTreeMap;

use crossmodal_store::{
    Filter, FilterPath, Item, ItemVectors, ListRequest, LocalStore, Metric, SearchRequest, VectorRecord, VectorStore,
};
use serde_json::json;

use crate::filter_oracle::{self, random_filter, random_metadata};
use crate::sample::{Random, assert_search_is_exact, field, open_write, record};

const DIMENSION: usize = 6;
const METRICS: [(&str, Metric); 3] =
    [("cos", Metric::Cosine), ("dot", Metric::InnerProduct), ("far", Metric::Euclidean)];

/// What the store should hold.
#[derive(Default)]
struct Model {
    items: BTreeMap<String, ItemVectors>,
}

fn random_item(random: &mut Random) -> Item {
    let mut item = Item::new(format!("id-{}", random.below(60)), ["image", "text"][random.below(2) as usize]);
    item.metadata = random_metadata(random);
    item.metadata.insert("n".to_owned(), json!(random.below(5)));
    item
}

fn random_vectors(random: &mut Random) -> Vec<VectorRecord> {
    let mut vectors = Vec::new();
    for (name, _) in METRICS {
        // None, one or several.
        for part in 0..random.below(4).saturating_sub(1) {
            // Few distinct values, so that equal vectors are common.
            let values = (0..DIMENSION).map(|i| if i == 0 { 1.0 } else { random.below(3) as f32 - 1.0 }).collect();
            vectors.push(VectorRecord { part: part as u32, ..record(name, values) });
        }
    }
    vectors
}

impl Model {
    fn step(&mut self, store: &LocalStore, random: &mut Random) {
        match random.below(20) {
            0..=10 => self.upsert(store, random),
            11..=13 => self.put_vectors(store, random),
            14 => {
                let item = random_item(random);
                let known = self.items.get_mut(&item.id);
                assert_eq!(store.touch(std::slice::from_ref(&item)).unwrap(), usize::from(known.is_some()));
                if let Some(known) = known {
                    known.item = item;
                }
            }
            15..=18 => {
                let ids: Vec<_> = (0..random.below(6)).map(|_| random_item(random).id).collect();
                let before = self.items.len();
                ids.iter().for_each(|id| drop(self.items.remove(id)));
                assert_eq!(store.remove(&ids).unwrap(), before - self.items.len());
            }
            _ => drop(store.compact().unwrap()),
        }
    }

    fn upsert(&mut self, store: &LocalStore, random: &mut Random) {
        let mut batch = BTreeMap::new();
        for _ in 0..random.below(8) {
            let item = random_item(random);
            batch.insert(item.id.clone(), ItemVectors { item, vectors: random_vectors(random) });
        }
        store.upsert(&batch.values().cloned().collect::<Vec<_>>()).unwrap();
        self.items.extend(batch);
    }

    fn put_vectors(&mut self, store: &LocalStore, random: &mut Random) {
        let (id, vectors) = (random_item(random).id, random_vectors(random));
        let result = store.put_vectors(&[(id.clone(), vectors.clone())]);
        let Some(known) = self.items.get_mut(&id) else {
            assert!(result.is_err());
            return;
        };
        result.unwrap();
        known.vectors.retain(|old| vectors.iter().all(|new| new.field != old.field));
        known.vectors.extend(vectors);
    }

    fn check(&self, store: &LocalStore, random: &mut Random) {
        let mut listed = store.list(&Default::default()).unwrap();
        listed.sort_by(|a, b| a.item.id.cmp(&b.item.id));
        assert!(listed.iter().map(|stored| &stored.item).eq(self.items.values().map(|entry| &entry.item)));
        for (name, metric) in METRICS {
            let query: Vec<_> = (0..DIMENSION).map(|_| random.value()).collect();
            let of_field = |entry: &&VectorRecord| entry.field == name;
            let vectors = self.items.iter().flat_map(|(id, entry)| {
                entry.vectors.iter().filter(of_field).map(move |record| (id.as_str(), &record.vector[..]))
            });
            assert_search_is_exact(store, name, metric, 1 + random.below(20) as usize, &query, vectors);
        }
        self.check_filtered(store, random);
    }

    fn check_filtered(&self, store: &LocalStore, random: &mut Random) {
        let n = random.below(5) as i64;
        let filter = Filter::equals(FilterPath::metadata("n"), n);
        let matches = |entry: &&ItemVectors| entry.item.metadata["n"] == json!(n);
        let expected = self.items.values().filter(matches);
        assert_eq!(store.count(Some(&filter)).unwrap(), expected.clone().count() as u64);
        let expected = expected.filter(|entry| entry.vectors.iter().any(|record| record.field == "dot"));
        let request = SearchRequest { filter: Some(filter), ..SearchRequest::new("dot", vec![1.0; DIMENSION], 100) };
        let hits = store.search(&request).unwrap().remove(0);
        let mut ids: Vec<_> = hits.iter().map(|hit| &hit.item.id).collect();
        ids.sort_unstable();
        assert!(ids.into_iter().eq(expected.map(|entry| &entry.item.id)));
        assert!(hits.is_sorted_by(|a, b| a.score >= b.score));
        for _ in 0..10 {
            let filter = random_filter(random, 3);
            let items = store.list(&ListRequest { filter: Some(filter.clone()), ..ListRequest::default() }).unwrap();
            let mut found: Vec<_> = items.iter().map(|stored| stored.item.id.as_str()).collect();
            found.sort_unstable();
            let expected =
                self.items.values().map(|entry| &entry.item).filter(|item| filter_oracle::matches(&filter, item));
            assert!(found.iter().eq(expected.map(|item| &item.id)), "{filter}: {found:?}");
            assert_eq!(store.count(Some(&filter)).unwrap(), found.len() as u64);
        }
    }
}

#[test]
fn random_operations_equal_the_model() {
    for seed in 0..3 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        let mut store = open_write(&path);
        for (name, metric) in METRICS {
            store.ensure_field(&field(name, DIMENSION, metric)).unwrap();
        }
        let (mut random, mut model) = (Random::new(seed), Model::default());
        for step in 0..120 {
            model.step(&store, &mut random);
            if step % 5 == 0 {
                model.check(&store, &mut random);
            }
            if random.below(30) == 0 {
                drop(store);
                store = open_write(&path);
                assert!(store.verify().unwrap().is_clean());
            }
        }
        for (id, entry) in &model.items {
            assert_eq!(store.vectors(id).unwrap().len(), entry.vectors.len());
        }
        assert!(store.verify().unwrap().is_clean());
    }
}
