//! Measuring a model on held-out data while it is trained: retrieval both ways, sorting by classes, examples.

use std::path::Path;

use crossmodal_media::thumbnail;
use crossmodal_models::{CancelToken, ClipModel, Embedder, Input, LoadOptions, Modality, load_clip};

use crate::data::DataSet;
use crate::error::{Error, Result};
use crate::evaluate::{Direction, Options, Report, evaluate};
use crate::report::{Answer, Example};
use crate::trainer::{Validate, Validation};

/// Queries of the report.
const EXAMPLES: usize = 6;

/// Answers to each.
const ANSWERS: usize = 5;

/// Items that answers are looked for among.
const CANDIDATES: usize = 400;

/// Longer side of pictures in the report, in pixels.
const THUMBNAIL: u32 = 160;

/// Measures models on a data set, by the public way in: each is loaded from its files as any other model.
#[derive(Debug)]
pub struct Measure {
    data: DataSet,
    load: LoadOptions,
}

impl Measure {
    /// Measures on this data.
    pub fn new(data: DataSet, load: LoadOptions) -> Self {
        Self { data, load }
    }

    fn model(&self, folder: &Path) -> Result<ClipModel> {
        let name =
            folder.to_str().ok_or_else(|| Error::Invalid(format!("{}: the path isn't UTF-8", folder.display())))?;
        // A bare word would be taken for the name of a known model.
        let absolute = std::path::absolute(folder).ok().and_then(|path| path.to_str().map(str::to_string));
        Ok(load_clip(absolute.as_deref().unwrap_or(name), &LoadOptions { trainable: false, ..self.load.clone() })?)
    }
}

impl Validate for Measure {
    fn validate(&mut self, model: &Path, cancel: &CancelToken) -> Result<Validation> {
        let model = self.model(model)?;
        // Intervals take longer than the metrics and aren't told here.
        let mut options = Options::default();
        options.bootstrap.resamples = 1;
        Ok(validation(&evaluate(&model, &self.data, &options, cancel, &mut |_| ())?))
    }

    fn examples(&mut self, model: &Path, cancel: &CancelToken) -> Result<Vec<Example>> {
        if self.data.modalities() != (Modality::Image, Modality::Text) {
            return Ok(Vec::new());
        }
        let Some(records) = self.data.records() else { return Ok(Vec::new()) };
        let model = self.model(model)?;
        let mut candidates = Vec::new();
        for record in records.iter().take(CANDIDATES) {
            cancel.check()?;
            // What can't be read was told before.
            let Ok(bytes) = record.left.read() else { continue };
            let Some(text) = record.right.first().and_then(|right| right.location.text()) else { continue };
            let Ok(prepared) = model.prepare(&Input::image(bytes.clone())) else { continue };
            candidates.push((prepared, bytes, text.to_string()));
        }
        let mut prepared = Vec::new();
        let mut shown = Vec::new();
        for (input, bytes, text) in candidates {
            prepared.push(input);
            shown.push((bytes, text));
        }
        let pictures = model.encode(prepared, cancel)?;
        let every = (shown.len() / EXAMPLES).max(1);
        let mut examples = Vec::new();
        for place in (0..shown.len()).step_by(every).take(EXAMPLES) {
            let query = shown[place].1.clone();
            let vector = model.embed(&[Input::text(query.clone())])?.remove(0).unit;
            let dot = |other: &[f32]| vector.iter().zip(other).map(|(a, b)| a * b).sum::<f32>();
            let mut scores: Vec<(usize, f32)> =
                pictures.iter().enumerate().map(|(at, picture)| (at, dot(&picture.unit))).collect();
            scores.sort_by(|a, b| b.1.total_cmp(&a.1));
            let answers = scores.iter().take(ANSWERS).filter_map(|(at, score)| {
                let (bytes, text) = &shown[*at];
                let picture = thumbnail(bytes, THUMBNAIL).ok()?;
                Some(Answer { picture, caption: text.clone(), score: *score, right: *text == query })
            });
            examples.push(Example { query: query.clone(), answers: answers.collect() });
        }
        Ok(examples)
    }
}

/// Metrics by name, and the score that models are compared by: the mean of recall@1 both ways, or the share of rightly sorted items where there are only classes.
fn validation(report: &Report) -> Validation {
    let mut metrics = Vec::new();
    let mut add = |from: Modality, to: Modality, direction: &Direction| {
        let start = format!("{}_to_{}", from.as_str(), to.as_str());
        for recall in &direction.recall {
            metrics.push((format!("{start}_recall_at_{}", recall.k), recall.share.value));
        }
        metrics.push((format!("{start}_median_rank"), direction.median_rank.value));
        direction.recall.first().map_or(0.0, |recall| recall.share.value)
    };
    let found = report.left_by_right.as_ref().map(|direction| add(report.right, report.left, direction));
    let back = report.right_by_left.as_ref().map(|direction| add(report.left, report.right, direction));
    let retrieval = found.zip(back).map(|(found, back)| (found + back) / 2.0);
    if let Some(zero_shot) = &report.zero_shot {
        metrics.push(("zero_shot_top_1".into(), zero_shot.top_1.value));
        metrics.push(("zero_shot_top_5".into(), zero_shot.top_5.value));
    }
    let sorted = report.zero_shot.as_ref().map(|zero_shot| zero_shot.top_1.value);
    Validation { score: retrieval.or(sorted).unwrap_or(0.0), metrics }
}
