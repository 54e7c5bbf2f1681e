//! Retrieval metrics against values computed from the definitions with numpy and scikit-learn.

use std::path::{Path, PathBuf};

use crossmodal_eval::{Gain, Retrieval, mean, ndcg};
use safetensors::SafeTensors;
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/metrics")
}

fn expected() -> Value {
    serde_json::from_slice(&std::fs::read(folder().join("golden.json")).unwrap()).unwrap()
}

struct Arrays(Vec<u8>);

impl Arrays {
    fn read() -> Self {
        Self(std::fs::read(folder().join("golden.safetensors")).unwrap())
    }

    fn bytes<const N: usize>(&self, name: &str) -> Vec<[u8; N]> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let (chunks, rest) = tensors.tensor(name).unwrap().data().as_chunks::<N>();
        assert!(rest.is_empty());
        chunks.to_vec()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.bytes(name).into_iter().map(f32::from_le_bytes).collect()
    }

    fn integers(&self, name: &str) -> Vec<i64> {
        self.bytes(name).into_iter().map(i64::from_le_bytes).collect()
    }

    /// Rows of unit length.
    fn unit(&self, name: &str, dimension: usize) -> Vec<f32> {
        let mut values = self.floats(name);
        for row in values.chunks_exact_mut(dimension) {
            let length = row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            row.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
        }
        values
    }
}

#[track_caller]
fn assert_equal(found: f64, expected: &Value, what: &str) {
    let expected = expected.as_f64().unwrap_or_else(|| panic!("{what} isn't in the golden data"));
    assert!((found - expected).abs() < 1e-12, "{what}: {found}, expected {expected}");
}

fn check(retrieval: &Retrieval, expected: &Value) {
    for k in [1, 5, 10] {
        let hits = retrieval.hits_at(k).into_iter().map(|hit| f64::from(u8::from(hit)));
        assert_equal(mean(hits), &expected[format!("hit_at_{k}")], "hit");
        assert_equal(mean(retrieval.recall_at(k)), &expected[format!("recall_at_{k}")], "recall");
    }
    assert_equal(mean(retrieval.reciprocal_ranks()), &expected["mrr"], "mrr");
    assert_equal(mean(retrieval.average_precisions()), &expected["map"], "map");
}

#[test]
fn retrieval_both_ways_with_five_captions_a_picture() {
    let (arrays, expected) = (Arrays::read(), expected());
    let dimension = expected["params"]["retrieval"]["dim"].as_u64().unwrap() as usize;
    let (images, captions) = (arrays.unit("retrieval/images", dimension), arrays.unit("retrieval/captions", dimension));
    let owners = arrays.integers("retrieval/caption_owner");
    let mut captions_of = vec![Vec::new(); images.len() / dimension];
    for (caption, owner) in owners.iter().enumerate() {
        captions_of[*owner as usize].push(caption);
    }
    let of_captions: Vec<Vec<usize>> = owners.iter().map(|owner| vec![*owner as usize]).collect();
    let values = &expected["values"];
    let found = Retrieval::from_vectors(&images, &captions, dimension, &captions_of).unwrap();
    check(&found, &values["image_to_text"]);
    let found = Retrieval::from_vectors(&captions, &images, dimension, &of_captions).unwrap();
    check(&found, &values["text_to_image"]);
}

#[test]
fn gain_with_graded_relevance() {
    let (arrays, expected) = (Arrays::read(), expected());
    let documents = expected["params"]["ndcg"]["docs"].as_u64().unwrap() as usize;
    let scores: Vec<f32> =
        arrays.bytes("ndcg/scores").into_iter().map(|bytes| f64::from_le_bytes(bytes) as f32).collect();
    let relevance: Vec<f64> = arrays.integers("ndcg/relevance").into_iter().map(|value| value as f64).collect();
    for k in [1, 5, 10, 30] {
        for (gain, name) in [(Gain::Linear, "linear"), (Gain::Exponential, "exp")] {
            let rows = scores.chunks_exact(documents).zip(relevance.chunks_exact(documents)).enumerate();
            let found = rows.map(|(query, (scores, relevance))| ndcg(query, scores, relevance, k, gain).unwrap());
            assert_equal(mean(found), &expected["values"]["ndcg"][format!("ndcg_{name}_at_{k}")], name);
        }
    }
}
