//! Sorting by classes that are known by their names alone: the class whose prompts' mean is nearest.

use crossmodal_eval::{Classification, Estimate, proportion};
use crossmodal_models::{Embedding, Modality};
use serde::Serialize;

use super::embed::{Items, Job};
use super::retrieval::score;
use super::{Options, Progress};
use crate::data::{DataSet, filled};
use crate::error::{Error, Result};

/// Sorting by classes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ZeroShot {
    /// Number of classes to choose from.
    pub classes: usize,
    /// Items that have a class.
    pub samples: usize,
    /// Templates around the names of classes; none is the bare name.
    pub templates: Vec<String>,
    /// Share of items whose class is the nearest.
    pub top_1: Estimate,
    /// Share of items whose class is among the five nearest.
    pub top_5: Estimate,
    /// Mean over classes of the share of their items whose class is the nearest.
    pub balanced_top_1: Estimate,
    /// What always answering with the largest class would reach.
    pub majority_share: f64,
}

/// What items are sorted by.
struct Classes {
    names: Vec<String>,
    /// Places of vectors, each with its class.
    labelled: Vec<(usize, u32)>,
}

/// The classes of a data set; `None` where it has none, or numbers without names.
fn classes_of(data: &DataSet, items: &Items, given: Option<&[String]>) -> Result<Option<Classes>> {
    let records = items.records.iter();
    let mut labelled: Vec<(usize, u32)> = records.filter_map(|(record, place)| Some((*place, record.label?))).collect();
    let names = match given {
        Some(_) if labelled.is_empty() => {
            return Err(Error::Invalid(format!("{}: classes are named, but no item has one", data.name())));
        }
        None if labelled.is_empty() || data.labels().is_empty() => return Ok(None),
        None => data.labels(),
        Some(given) => {
            for (_, label) in &mut labelled {
                *label = number_of(data, *label, given)?;
            }
            given
        }
    };
    labelled.sort_unstable();
    // The same content under several names counts once.
    labelled.dedup();
    Ok(Some(Classes { names: names.to_vec(), labelled }))
}

/// The place among `given` names of the data's class with this number: by its name, or by the number itself.
fn number_of(data: &DataSet, label: u32, given: &[String]) -> Result<u32> {
    let plain = |name: &str| name.trim().replace('_', " ").to_lowercase();
    let name = data.labels().get(label as usize);
    let by_name = name.and_then(|name| given.iter().position(|other| plain(other) == plain(name)));
    let number = match name {
        None => Some(label as usize),
        Some(name) => by_name.or_else(|| name.trim().parse().ok()),
    };
    number.filter(|number| *number < given.len()).map(|number| number as u32).ok_or_else(|| {
        let (data, count) = (data.name(), given.len());
        let class = name.map_or_else(|| label.to_string(), |name| format!("{name:?}"));
        Error::Invalid(format!(
            "{data}: class {class} is neither among the {count} names given nor the number of one, counted from 0"
        ))
    })
}

/// The unit vector of the mean of the prompts of each class.
fn class_vectors(job: &Job<'_>, names: &[String], templates: &[String]) -> Result<Vec<Vec<f32>>> {
    let bare = ["{}".to_owned()];
    let templates = if templates.is_empty() { &bare } else { templates };
    let spoken = names.iter().map(|name| name.replace('_', " "));
    let prompts: Vec<String> = spoken
        .flat_map(|name| templates.iter().map(move |template| filled(template, &name)).collect::<Vec<_>>())
        .collect();
    let vectors = job.texts(&prompts)?;
    let mean = |prompts: &[Vec<f32>]| {
        let mut sum = vec![0f32; prompts[0].len()];
        prompts.iter().for_each(|prompt| sum.iter_mut().zip(prompt).for_each(|(sum, value)| *sum += value));
        Ok(Embedding::from_native(sum)?.unit)
    };
    vectors.chunks_exact(templates.len()).map(mean).collect()
}

/// Sorts the items by their classes; `None` where there are none.
pub(super) fn zero_shot(
    job: &Job<'_>,
    data: &DataSet,
    items: &Items,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Option<ZeroShot>> {
    let Some(Classes { names, labelled }) = classes_of(data, items, options.classes.as_deref())? else {
        return Ok(None);
    };
    if !job.model.modalities().contains(&Modality::Text) {
        return Ok(None);
    }
    progress(Progress { stage: "classes", done: 0, all: names.len() });
    let classes = class_vectors(job, &names, &options.templates)?;
    let queries: Vec<Vec<f32>> = labelled.iter().map(|(place, _)| items.vectors[*place].clone()).collect();
    let mut found = Classification::new(names.len());
    score(&queries, &classes, job.cancel, |query, scores| Ok(found.add(scores, labelled[query].1)?))?;
    progress(Progress { stage: "classes", done: names.len(), all: names.len() });
    let bootstrap = &options.bootstrap;
    let balanced = |samples: &[usize]| found.balanced_accuracy(1, samples.iter().copied());
    Ok(Some(ZeroShot {
        classes: names.len(),
        samples: found.samples(),
        templates: options.templates.clone(),
        top_1: proportion(&found.hits_at(1), bootstrap.level)?,
        top_5: proportion(&found.hits_at(5), bootstrap.level)?,
        balanced_top_1: Estimate {
            value: found.balanced_accuracy(1, 0..found.samples()),
            interval: bootstrap.interval(found.samples(), None, balanced)?,
        },
        majority_share: found.majority_share(),
    }))
}
