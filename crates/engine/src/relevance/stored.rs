//! The vectors of generic texts, kept as a setting of the collection so that a search needn't compute them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crossmodal_models::{Embedder, Input, Modality};
use crossmodal_store::VectorStore;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Bank;
use crate::collection::Collection;
use crate::error::Result;

/// Short texts about anything: things, scenes, captions, ideas, as people might search for them. One a line.
const TEXTS: &str = include_str!("reference_texts.txt");

/// The name of the setting, before the field's.
const SETTING: &str = "relevance.texts.";

/// Raised when the texts or the form change: older settings are then computed anew.
const VERSION: u32 = 1;

/// The form of the setting.
#[derive(Serialize, Deserialize)]
struct Setting {
    version: u32,
    /// The space that the vectors belong to.
    space: String,
    dimension: usize,
    /// One signed byte a value, in base64; each row scaled to the whole range. Direction is all that counts.
    vectors: String,
}

/// Vectors of the texts that an open collection has read or computed, by space; none for a model without texts.
#[derive(Debug, Default)]
pub(crate) struct ReferenceTexts(Mutex<HashMap<String, Option<Arc<Bank>>>>);

impl Collection {
    /// Vectors of the texts in the space of `model`, which is that of `field`: kept ones, or computed; none for a model without texts.
    pub(crate) fn reference_texts(&self, field: &str, model: &dyn Embedder) -> Result<Option<Arc<Bank>>> {
        let space = model.space()?.to_string();
        let lock = || self.reference_texts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(texts) = lock().get(&space) {
            return Ok(texts.clone());
        }
        let texts = match self.kept(field, &space, model.dimension())? {
            Some(texts) => Some(texts),
            None => embed(model)?,
        };
        let texts = texts.map(Arc::new);
        lock().insert(space, texts.clone());
        Ok(texts)
    }

    /// Keeps the vectors of the texts as a setting, where they are missing.
    pub(crate) fn keep_reference_texts(&self, field: &str, model: &dyn Embedder) -> Result<()> {
        let space = model.space()?.to_string();
        if self.kept(field, &space, model.dimension())?.is_none()
            && let Some(texts) = self.reference_texts(field, model)?
        {
            self.store().set_setting(&format!("{SETTING}{field}"), &write(&texts, &space))?;
        }
        Ok(())
    }

    fn kept(&self, field: &str, space: &str, dimension: usize) -> Result<Option<Bank>> {
        let setting = self.store().setting(&format!("{SETTING}{field}"))?;
        Ok(setting.and_then(|setting| read(&setting, space, dimension)))
    }
}

/// Embeds the texts; none for a model without texts.
fn embed(model: &dyn Embedder) -> Result<Option<Bank>> {
    if !model.modalities().contains(&Modality::Text) {
        return Ok(None);
    }
    let inputs: Vec<Input> = TEXTS.lines().map(|text| Input::text(text).as_query()).collect();
    let mut bank = Bank::new(model.dimension());
    model.embed(&inputs)?.iter().for_each(|embedding| bank.push(&embedding.unit));
    Ok(Some(bank))
}

/// The setting that keeps these vectors.
fn write(bank: &Bank, space: &str) -> Value {
    let mut bytes = Vec::with_capacity(bank.rows() * bank.dimension());
    for row in 0..bank.rows() {
        let row = bank.row(row);
        let largest = row.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
        bytes.extend(row.iter().map(|value| (value / largest * 127.0).round() as i8 as u8));
    }
    let setting = Setting {
        version: VERSION,
        space: space.to_string(),
        dimension: bank.dimension(),
        vectors: STANDARD.encode(bytes),
    };
    serde_json::json!(setting)
}

/// The vectors that a setting keeps; none where it is of another version or space, or damaged.
fn read(setting: &Value, space: &str, dimension: usize) -> Option<Bank> {
    let setting = Setting::deserialize(setting).ok()?;
    if setting.version != VERSION || setting.space != space || setting.dimension != dimension || dimension == 0 {
        return None;
    }
    let bytes = STANDARD.decode(setting.vectors).ok()?;
    let mut bank = Bank::new(dimension);
    for row in bytes.chunks_exact(dimension) {
        bank.push(&row.iter().map(|byte| f32::from(*byte as i8)).collect::<Vec<_>>());
    }
    (bank.rows() == TEXTS.lines().count()).then_some(bank)
}

#[cfg(test)]
mod tests {
    use super::super::bank::dot;
    use super::*;

    #[test]
    fn texts_are_many_and_all_different() {
        let texts: std::collections::HashSet<&str> = TEXTS.lines().collect();
        assert_eq!((texts.len(), TEXTS.lines().count()), (256, 256));
        assert!(texts.iter().all(|text| !text.trim().is_empty()));
    }

    #[test]
    fn settings_keep_directions() {
        let mut bank = Bank::new(24);
        for row in 0..256 {
            bank.push(&(0..24).map(|column| ((row * 31 + column * 17) % 101) as f32 - 50.0).collect::<Vec<_>>());
        }
        let setting = write(&bank, "space");
        let read_back = read(&setting, "space", 24).unwrap();
        assert!((0..256).all(|row| dot(bank.row(row), read_back.row(row)) > 0.9999));
        assert!(read(&setting, "other", 24).is_none() && read(&setting, "space", 25).is_none());
        let mut damaged = setting.clone();
        damaged["vectors"] = "AAAA".into();
        assert!(read(&damaged, "space", 24).is_none() && read(&Value::Null, "space", 24).is_none());
    }
}
