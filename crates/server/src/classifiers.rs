//! Zero-shot classifiers that were asked for lately: many pictures are sorted by the same labels, which needn't be embedded each time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crossmodal_engine::Embedder;
use crossmodal_engine::classify::Classifier;

use crate::error::ApiResult;

/// Classifiers that are kept.
const KEPT: usize = 32;
/// Labels times dimensions up to which one is kept: 16 MiB.
const MOST_VALUES: usize = 4 << 20;

/// What tells classifiers apart.
type Key = blake3::Hash;

/// The classifiers, the latest last.
#[derive(Debug, Default)]
pub struct Classifiers(Mutex<VecDeque<(Key, Arc<Classifier>)>>);

impl Classifiers {
    /// The classifier of a model for some labels and templates.
    ///
    /// # Errors
    /// As [`Classifier::new`].
    pub fn get(
        &self,
        id: &str,
        model: &dyn Embedder,
        labels: &[String],
        templates: &[String],
    ) -> ApiResult<Arc<Classifier>> {
        let key = key(id, labels, templates);
        if let Some(known) = self.take(&key) {
            self.put(key, known.clone());
            return Ok(known);
        }
        let classifier = Arc::new(Classifier::new(model, labels, templates)?);
        if labels.len().saturating_mul(model.dimension()) <= MOST_VALUES {
            self.put(key, classifier.clone());
        }
        Ok(classifier)
    }

    fn take(&self, key: &Key) -> Option<Arc<Classifier>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.iter().position(|(known, _)| known == key)?;
        kept.remove(place).map(|(_, classifier)| classifier)
    }

    fn put(&self, key: Key, classifier: Arc<Classifier>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(known, _)| *known != key);
        kept.push_back((key, classifier));
        if kept.len() > KEPT {
            kept.pop_front();
        }
    }
}

fn key(id: &str, labels: &[String], templates: &[String]) -> Key {
    let mut hasher = blake3::Hasher::new();
    for list in [std::slice::from_ref(&id.to_string()), labels, templates] {
        hasher.update(&(list.len() as u64).to_le_bytes());
        for text in list {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_told_apart_however_they_are_cut() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_string()).collect::<Vec<_>>();
        let keys = [
            key("m", &texts(&["a", "b"]), &[]),
            key("m", &texts(&["ab"]), &[]),
            key("m", &texts(&["a"]), &texts(&["b"])),
            key("n", &texts(&["a", "b"]), &[]),
        ];
        for (place, key) in keys.iter().enumerate() {
            assert!(!keys[..place].contains(key));
        }
    }
}
