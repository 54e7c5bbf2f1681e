//! Embedding both sides of a data set, each different content once.

use std::collections::HashMap;
use std::sync::Arc;

use crossmodal_models::{CancelToken, Content, Embedder, Embedding, Input, Modality, Prepared};
use rayon::prelude::*;

use super::Progress;
use crate::data::{DataSet, Location, Record, Skipped, Walked, hash_of};
use crate::error::{Error, Result};

/// Who embeds.
pub(super) struct Job<'a> {
    pub(super) model: &'a dyn Embedder,
    pub(super) batch_size: usize,
    pub(super) cancel: &'a CancelToken,
}

/// The left side.
pub(super) struct Items {
    /// A unit vector for each different content.
    pub(super) vectors: Vec<Vec<f32>>,
    /// The records that could be embedded, each with the place of its vector.
    pub(super) records: Vec<(Arc<Record>, usize)>,
}

/// The right side.
pub(super) struct Counterparts {
    /// A unit vector for each different content.
    pub(super) vectors: Vec<Vec<f32>>,
    /// Which items each one belongs to, by the places of their vectors, ascending.
    pub(super) items: Vec<Vec<usize>>,
    /// The record that each one was first found with: those of one record aren't independent of each other.
    pub(super) owner: Vec<u32>,
    /// Texts that were cut.
    pub(super) truncated: usize,
}

/// Content that was read and prepared, with its hash; or the reason why not.
type Made = std::result::Result<(u64, Prepared), String>;

impl Job<'_> {
    fn input(content: Vec<u8>, modality: Modality) -> std::result::Result<Input, String> {
        Ok(match modality {
            Modality::Text => {
                Input::text(String::from_utf8(content).map_err(|error| format!("a text that isn't UTF-8: {error}"))?)
            }
            Modality::Image
            | Modality::Audio
            | Modality::Video
            | Modality::Depth
            | Modality::Thermal
            | Modality::Imu => Input::new(Content::Bytes(content.into()), modality),
        })
    }

    fn make(&self, location: &Location, modality: Modality) -> Made {
        let content = location.read()?;
        let hash = hash_of(&content);
        let prepared = self.model.prepare(&Self::input(content, modality)?).map_err(|error| match location {
            Location::File(path) => format!("{}: {error}", path.display()),
            Location::Text(_) | Location::Slice { .. } => error.to_string(),
        })?;
        Ok((hash, prepared))
    }

    fn encode(&self, prepared: Vec<Prepared>) -> Result<Vec<Embedding>> {
        Ok(self.model.encode(prepared, self.cancel)?)
    }

    /// Embeds the left sides of all records.
    pub(super) fn items(
        &self,
        data: &DataSet,
        skipped: &mut Skipped,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Items> {
        let (modality, _) = data.modalities();
        let mut found = Items { vectors: Vec::new(), records: Vec::new() };
        let mut places: HashMap<u64, usize> = HashMap::new();
        let mut walk = data.walk();
        let mut done = 0;
        loop {
            self.cancel.check()?;
            let mut chunk = Vec::with_capacity(self.batch_size);
            while chunk.len() < self.batch_size.max(1) {
                match walk.next() {
                    Some(Walked::Record(record)) => chunk.push(record),
                    Some(Walked::Skipped(key, reason)) => skipped.add(&key, reason),
                    None => break,
                }
            }
            if chunk.is_empty() {
                break;
            }
            done += chunk.len();
            let made: Vec<Made> = chunk.par_iter().map(|record| self.make(&record.left, modality)).collect();
            let mut batch = Vec::new();
            for (record, made) in chunk.into_iter().zip(made) {
                match made {
                    Ok((hash, prepared)) => {
                        let next = found.vectors.len() + batch.len();
                        let place = *places.entry(hash).or_insert(next);
                        if place == next {
                            batch.push(prepared);
                        }
                        found.records.push((record, place));
                    }
                    Err(reason) => skipped.add(&record.key, reason),
                }
            }
            found.vectors.extend(self.encode(batch)?.into_iter().map(|embedding| embedding.unit));
            progress(Progress { stage: plural(modality), done, all: data.items().unwrap_or(done) });
        }
        if found.records.is_empty() {
            let first = skipped.listed().first().map(|(key, reason)| format!("; {key}: {reason}")).unwrap_or_default();
            return Err(Error::Invalid(format!("{}: no sample could be read{first}", data.name())));
        }
        Ok(found)
    }

    /// Embeds the right sides of the records that have a left one.
    pub(super) fn counterparts(
        &self,
        data: &DataSet,
        items: &Items,
        skipped: &mut Skipped,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Counterparts> {
        let (_, modality) = data.modalities();
        let mut found = Counterparts { vectors: Vec::new(), items: Vec::new(), owner: Vec::new(), truncated: 0 };
        let mut places: HashMap<u64, usize> = HashMap::new();
        let all: Vec<(usize, &Record, usize, &Location)> = items
            .records
            .iter()
            .enumerate()
            .flat_map(|(owner, (record, item))| {
                record.right.iter().map(move |right| (owner, &**record, *item, &right.location))
            })
            .collect();
        for (number, chunk) in all.chunks(self.batch_size.max(1)).enumerate() {
            self.cancel.check()?;
            let made: Vec<Made> = chunk.par_iter().map(|(.., location)| self.make(location, modality)).collect();
            let mut batch = Vec::new();
            for ((owner, record, item, _), made) in chunk.iter().zip(made) {
                match made {
                    Ok((hash, prepared)) => {
                        let next = found.items.len();
                        let place = *places.entry(hash).or_insert(next);
                        if place == next {
                            batch.push(prepared);
                            found.items.push(vec![*item]);
                            found.owner.push(*owner as u32);
                        } else if let Err(at) = found.items[place].binary_search(item) {
                            found.items[place].insert(at, *item);
                        }
                    }
                    Err(reason) => skipped.add(&record.key, reason),
                }
            }
            for embedding in self.encode(batch)? {
                found.truncated += usize::from(embedding.truncated);
                found.vectors.push(embedding.unit);
            }
            let done = (number * self.batch_size.max(1) + chunk.len()).min(all.len());
            progress(Progress { stage: plural(modality), done, all: all.len() });
        }
        Ok(found)
    }

    /// Unit vectors of texts.
    pub(super) fn texts(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        let mut vectors = Vec::with_capacity(texts.len());
        for chunk in texts.chunks(self.batch_size.max(1)) {
            self.cancel.check()?;
            let prepared: Vec<_> = chunk.par_iter().map(|text| self.model.prepare(&Input::text(text))).collect();
            let prepared = prepared.into_iter().collect::<crossmodal_models::Result<Vec<_>>>()?;
            vectors.extend(self.encode(prepared)?.into_iter().map(|embedding| embedding.unit));
        }
        Ok(vectors)
    }
}

/// What things of a modality are called.
fn plural(modality: Modality) -> &'static str {
    match modality {
        Modality::Text => "texts",
        Modality::Image => "pictures",
        Modality::Audio => "sounds",
        Modality::Video => "videos",
        Modality::Depth => "depth maps",
        Modality::Thermal => "thermal pictures",
        Modality::Imu => "recordings",
    }
}
