//! How much a faster or smaller model differs from its original: agreement of vectors, and what becomes of retrieval, on pictures with
//! captions.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crossmodal_index::Metric;
use crossmodal_models::{CancelToken, Embedder, Input};
use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value;

use crate::embed::embed_each;
use crate::error::{Error, Result};
use crate::metadata::Metadata;
use crate::{demo, files};

/// Inputs that are prepared and embedded together.
const BATCH: usize = 16;

/// Metadata columns that hold captions, in the order of preference.
pub const CAPTION_COLUMNS: [&str; 5] = ["caption", "text", "title", "description", "en"];

/// A picture and what it shows.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Name for messages.
    pub name: String,
    /// The picture.
    pub picture: Picture,
    /// What it shows; each caption counts.
    pub captions: Vec<String>,
}

/// Where a picture is.
#[derive(Debug, Clone)]
pub enum Picture {
    /// In memory: the bytes of an image file.
    Bytes(Cow<'static, [u8]>),
    /// In a file, read when its turn comes.
    File(PathBuf),
}

impl Picture {
    fn input(&self) -> Result<Input> {
        match self {
            Self::Bytes(bytes) => Ok(Input::image(bytes.to_vec())),
            Self::File(path) => crate::read_input(path),
        }
    }
}

/// Pictures with captions, and those that couldn't be used.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    /// Those to compare on.
    pub samples: Vec<Sample>,
    /// Those without a caption.
    pub passed_over: Vec<PassedOver>,
}

/// A picture that was left out of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PassedOver {
    /// The picture.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// The built-in gallery with captions in these languages (`en`, `fr`, `es`, `de`).
///
/// # Errors
/// A language that there are no captions in.
pub fn gallery(languages: &[&str]) -> Result<Samples> {
    let sample = |drawing: demo::Drawing| Sample {
        name: drawing.name.to_string(),
        picture: Picture::Bytes(Cow::Borrowed(drawing.bytes)),
        captions: drawing.captions,
    };
    Ok(Samples { samples: demo::captioned(languages)?.into_iter().map(sample).collect(), passed_over: Vec::new() })
}

/// The pictures below a folder. Captions come from `metadata`: the column `column`, else the first of [`CAPTION_COLUMNS`] that says
/// something; a list is several captions. Without `metadata`, a picture's caption is its file name: no ending, `_` and `-` as spaces.
///
/// # Errors
/// A folder that doesn't exist.
pub fn folder(folder: &Path, metadata: Option<&Metadata>, column: Option<&str>) -> Result<Samples> {
    let found = files::find(&[folder.to_path_buf()])?;
    let mut samples = Samples::default();
    for (path, reason) in found.problems {
        samples.passed_over.push(PassedOver { name: path.display().to_string(), reason });
    }
    for path in found.files {
        let captions = match metadata {
            Some(metadata) => captions(metadata, &path, &found.roots, column),
            None => {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy().replace(['_', '-'], " ");
                Vec::from([stem.split_whitespace().collect::<Vec<_>>().join(" ")])
            }
        };
        let captions: Vec<String> = captions.into_iter().filter(|caption| !caption.trim().is_empty()).collect();
        let name = path.display().to_string();
        if captions.is_empty() {
            samples.passed_over.push(PassedOver { name, reason: "has no caption".into() });
        } else {
            samples.samples.push(Sample { name, picture: Picture::File(path), captions });
        }
    }
    Ok(samples)
}

fn captions(metadata: &Metadata, path: &Path, roots: &[PathBuf], column: Option<&str>) -> Vec<String> {
    let Some(row) = metadata.of(path, roots) else { return Vec::new() };
    let text = |value: &Value| value.as_str().map(str::to_string);
    let read = |name: &str| match row.get(name) {
        Some(Value::Array(values)) => values.iter().filter_map(text).collect(),
        Some(value) => text(value).into_iter().collect(),
        None => Vec::new(),
    };
    match column {
        Some(column) => read(column),
        None => CAPTION_COLUMNS.iter().map(|name| read(name)).find(|found| !found.is_empty()).unwrap_or_default(),
    }
}

/// How a candidate compares with a reference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The original.
    pub reference: Side,
    /// What is compared with it.
    pub candidate: Side,
    /// Agreement on pictures.
    pub images: Agreement,
    /// Agreement on texts, each different one once.
    pub texts: Agreement,
    /// Pictures found by their captions.
    pub text_to_image: Retrieval,
    /// Captions found by their pictures.
    pub image_to_text: Retrieval,
    /// Pictures that couldn't be used.
    pub passed_over: Vec<PassedOver>,
}

/// The least cosine of a copy that counts as close.
pub const CLOSE_COSINE: f64 = 0.99;

/// The greatest loss of recall@1 of a copy that counts as close.
pub const CLOSE_RECALL: f64 = 0.01;

impl Report {
    /// Whether every cosine is at least [`CLOSE_COSINE`], and recall@1 is lower by at most [`CLOSE_RECALL`] either way.
    pub fn is_close(&self) -> bool {
        let agrees = |agreement: &Agreement| agreement.least_cosine >= CLOSE_COSINE;
        // A hair more, so that a loss of exactly that much isn't lost to rounding.
        let finds = |retrieval: &Retrieval| retrieval.reference.at_1 - retrieval.candidate.at_1 <= CLOSE_RECALL + 1e-9;
        [self.images, self.texts].iter().all(agrees) && [self.text_to_image, self.image_to_text].iter().all(finds)
    }
}

/// One of the models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Side {
    /// Its name.
    pub model: String,
    /// Its arithmetic.
    pub precision: String,
}

/// Cosines between the two vectors of each input.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Agreement {
    /// Number of inputs.
    pub inputs: usize,
    /// The least cosine.
    pub least_cosine: f64,
    /// The cosine that 95 % of the inputs reach.
    pub p5_cosine: f64,
    /// Their mean.
    pub mean_cosine: f64,
}

/// What both models find.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Retrieval {
    /// Number of queries.
    pub queries: usize,
    /// What the reference finds.
    pub reference: Recall,
    /// What the candidate finds.
    pub candidate: Recall,
}

/// Shares of queries with a right answer among the best k, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Recall {
    /// The best answer is right.
    pub at_1: f64,
    /// One of the best five is.
    pub at_5: f64,
}

/// Embeds the samples with both models and compares. Each different caption is one text, and every picture that has it is a right
/// answer to it. `progress` hears how many of how many inputs are done.
///
/// # Errors
/// Models of different spaces, fewer than two usable samples, failures of a model, cancellation.
pub fn compare(
    reference: &dyn Embedder,
    candidate: &dyn Embedder,
    samples: Samples,
    cancel: &CancelToken,
    mut progress: impl FnMut(usize, usize),
) -> Result<Report> {
    if reference.space()? != candidate.space()? {
        let (a, b) = (&reference.info().name, &candidate.info().name);
        return Err(Error::Invalid(format!(
            "{a} and {b} have different vector spaces: neither is a copy of the other"
        )));
    }
    let Samples { samples, mut passed_over } = samples;
    let all = 2 * (samples.len() + Captions::of(samples.iter()).texts.len());
    let mut done = 0;
    let mut step = || {
        done += 1;
        progress(done, all);
    };
    let found = pictures(reference, samples.iter(), cancel, &mut step)?;
    let (usable, vectors) = usable(&samples, found, &mut passed_over)?;
    let captions = Captions::of(usable.iter().copied());
    let original = Vectors { pictures: vectors, texts: texts(reference, &captions.texts, cancel, &mut step)? };
    let other = Vectors {
        pictures: pictures(candidate, usable.iter().copied(), cancel, &mut step)?.into_iter().collect::<Result<_>>()?,
        texts: texts(candidate, &captions.texts, cancel, &mut step)?,
    };
    progress(all, all);
    let side = |model: &dyn Embedder| Side {
        model: model.info().name.clone(),
        precision: model.info().precision.as_str().to_string(),
    };
    let by_text = |vectors: &Vectors| recall(&vectors.texts, &vectors.pictures, &captions.pictures_of);
    let by_picture = |vectors: &Vectors| recall(&vectors.pictures, &vectors.texts, &captions.texts_of);
    Ok(Report {
        reference: side(reference),
        candidate: side(candidate),
        images: agreement(&original.pictures, &other.pictures),
        texts: agreement(&original.texts, &other.texts),
        text_to_image: Retrieval {
            queries: captions.texts.len(),
            reference: by_text(&original),
            candidate: by_text(&other),
        },
        image_to_text: Retrieval {
            queries: usable.len(),
            reference: by_picture(&original),
            candidate: by_picture(&other),
        },
        passed_over,
    })
}

/// The samples whose pictures could be embedded, and their vectors.
fn usable<'a>(
    samples: &'a [Sample],
    found: Vec<Result<Vec<f32>>>,
    passed_over: &mut Vec<PassedOver>,
) -> Result<(Vec<&'a Sample>, Vec<Vec<f32>>)> {
    let (mut usable, mut vectors) = (Vec::new(), Vec::new());
    for (sample, vector) in samples.iter().zip(found) {
        match vector {
            Ok(vector) => {
                usable.push(sample);
                vectors.push(vector);
            }
            Err(error) => passed_over.push(PassedOver { name: sample.name.clone(), reason: error.to_string() }),
        }
    }
    match usable.len() {
        0 | 1 => Err(Error::Invalid(format!(
            "a comparison needs at least two pictures with captions, found {}",
            usable.len()
        ))),
        _ => Ok((usable, vectors)),
    }
}

/// What one model makes of the samples.
#[derive(Debug)]
struct Vectors {
    pictures: Vec<Vec<f32>>,
    texts: Vec<Vec<f32>>,
}

/// The different captions of some samples, and which picture has which.
#[derive(Debug, Default)]
struct Captions<'a> {
    texts: Vec<&'a str>,
    texts_of: Vec<Vec<usize>>,
    pictures_of: Vec<Vec<usize>>,
}

impl<'a> Captions<'a> {
    fn of(samples: impl Iterator<Item = &'a Sample>) -> Self {
        let mut captions = Self::default();
        let mut known = HashMap::new();
        for (picture, sample) in samples.enumerate() {
            let mut own = Vec::new();
            for text in &sample.captions {
                let place = *known.entry(text.as_str()).or_insert_with(|| {
                    captions.texts.push(text.as_str());
                    captions.pictures_of.push(Vec::new());
                    captions.texts.len() - 1
                });
                own.push(place);
                captions.pictures_of[place].push(picture);
            }
            captions.texts_of.push(own);
        }
        captions
    }
}

fn pictures<'a>(
    model: &dyn Embedder,
    samples: impl Iterator<Item = &'a Sample>,
    cancel: &CancelToken,
    step: &mut impl FnMut(),
) -> Result<Vec<Result<Vec<f32>>>> {
    embed(model, samples.map(|sample| sample.picture.input()), cancel, step)
}

fn texts(model: &dyn Embedder, texts: &[&str], cancel: &CancelToken, step: &mut impl FnMut()) -> Result<Vec<Vec<f32>>> {
    embed(model, texts.iter().map(|text| Ok(Input::text(*text))), cancel, step)?.into_iter().collect()
}

fn embed(
    model: &dyn Embedder,
    inputs: impl Iterator<Item = Result<Input>>,
    cancel: &CancelToken,
    step: &mut impl FnMut(),
) -> Result<Vec<Result<Vec<f32>>>> {
    let mut vectors = Vec::new();
    embed_each(model, inputs, BATCH, cancel, |_, embedding| {
        step();
        vectors.push(embedding.map(|embedding| embedding.unit));
        Ok(())
    })?;
    Ok(vectors)
}

fn agreement(a: &[Vec<f32>], b: &[Vec<f32>]) -> Agreement {
    let mut cosines: Vec<f64> = a.iter().zip(b).map(|(a, b)| cosine(a, b)).collect();
    cosines.sort_by(f64::total_cmp);
    let inputs = cosines.len();
    Agreement {
        inputs,
        least_cosine: cosines.first().copied().unwrap_or(1.0),
        p5_cosine: cosines.get(inputs / 20).copied().unwrap_or(1.0),
        mean_cosine: cosines.iter().sum::<f64>() / inputs.max(1) as f64,
    }
}

/// In double precision, since it is close to 1.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// `right[query]` are the places of the right answers among `answers`.
fn recall(queries: &[Vec<f32>], answers: &[Vec<f32>], right: &[Vec<usize>]) -> Recall {
    // Number of wrong answers that score higher than the best right one.
    let ahead = |(query, right): (&Vec<f32>, &Vec<usize>)| {
        let scores: Vec<f32> = answers.iter().map(|answer| Metric::Cosine.score(query, answer)).collect();
        let best = right.iter().map(|place| scores[*place]).fold(f32::NEG_INFINITY, f32::max);
        scores.iter().filter(|score| **score > best).count()
    };
    let ahead: Vec<usize> = queries.par_iter().zip(right).map(ahead).collect();
    let share = |k: usize| ahead.iter().filter(|ahead| **ahead < k).count() as f64 / queries.len().max(1) as f64;
    Recall { at_1: share(1), at_5: share(5) }
}

#[cfg(test)]
mod tests {
    use crossmodal_models::{LoadOptions, Precision, load};

    use super::*;

    fn model(precision: Precision) -> std::sync::Arc<dyn Embedder> {
        load("mini", &LoadOptions { precision: Some(precision), ..LoadOptions::default() }).unwrap()
    }

    fn some(count: usize) -> Samples {
        let mut samples = gallery(&["en", "de"]).unwrap();
        samples.samples.truncate(count);
        samples
    }

    fn run(reference: &dyn Embedder, candidate: &dyn Embedder, samples: Samples) -> Result<Report> {
        compare(reference, candidate, samples, &CancelToken::new(), |_, _| {})
    }

    #[test]
    fn a_model_agrees_with_itself() {
        let model = model(Precision::Fp32);
        let report = run(model.as_ref(), model.as_ref(), some(12)).unwrap();
        assert_eq!((report.images.inputs, report.texts.inputs), (12, 24));
        for agreement in [report.images, report.texts] {
            assert!((agreement.least_cosine - 1.0).abs() < 1e-12 && (agreement.mean_cosine - 1.0).abs() < 1e-12);
        }
        for retrieval in [report.text_to_image, report.image_to_text] {
            assert_eq!(retrieval.reference, retrieval.candidate);
            assert!(retrieval.reference.at_1 > 0.3 && retrieval.reference.at_5 >= retrieval.reference.at_1);
        }
    }

    #[test]
    fn another_arithmetic_differs_a_little() {
        let mut steps = Vec::new();
        let (fp32, int8) = (model(Precision::Fp32), model(Precision::Int8));
        let report =
            compare(fp32.as_ref(), int8.as_ref(), some(12), &CancelToken::new(), |done, all| steps.push((done, all)));
        let report = report.unwrap();
        assert_eq!((report.reference.precision.as_str(), report.candidate.precision.as_str()), ("fp32", "int8"));
        for agreement in [report.images, report.texts] {
            let Agreement { least_cosine, p5_cosine, mean_cosine, .. } = agreement;
            assert!(least_cosine > 0.98 && mean_cosine < 0.999_999_9, "{agreement:?}");
            assert!(least_cosine <= p5_cosine && p5_cosine <= mean_cosine, "{agreement:?}");
        }
        assert_eq!(steps.last(), Some(&(72, 72)));
    }

    #[test]
    fn a_quantised_copy_of_mini_is_as_good() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("copy");
        crossmodal_models::quantize::quantize("mini", &out, &Default::default(), |_, _| {}).unwrap();
        let copy = load(out.to_str().unwrap(), &LoadOptions::default()).unwrap();
        let everything = gallery(&["en", "fr", "es", "de"]).unwrap();
        let report = run(model(Precision::Fp32).as_ref(), copy.as_ref(), everything).unwrap();
        println!("{}", serde_json::to_string_pretty(&report).unwrap());
        assert_eq!((report.images.inputs, report.passed_over.len()), (240, 0));
        assert!(report.images.least_cosine > 0.998 && report.texts.least_cosine > 0.998, "{report:?}");
        for Retrieval { reference, candidate, .. } in [report.text_to_image, report.image_to_text] {
            assert!((reference.at_1 - candidate.at_1).abs() <= 0.01, "{report:?}");
            assert!((reference.at_5 - candidate.at_5).abs() <= 0.01, "{report:?}");
        }
        assert!(report.is_close());
        let worse = Agreement { least_cosine: 0.98, ..report.texts };
        assert!(!Report { texts: worse, ..report.clone() }.is_close());
        let mut lost = report.text_to_image;
        lost.candidate.at_1 = lost.reference.at_1 - 0.02;
        assert!(!Report { text_to_image: lost, ..report }.is_close());
    }

    #[test]
    fn models_of_different_spaces_are_refused() {
        let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/hf-clip/modern-gelu");
        let other = load(other.to_str().unwrap(), &LoadOptions::default()).unwrap();
        let error = run(model(Precision::Fp32).as_ref(), other.as_ref(), some(3)).unwrap_err().to_string();
        assert!(error.contains("different vector spaces"), "{error}");
    }

    #[test]
    fn recall_counts_any_right_answer() {
        let axes = [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]].map(Vec::from);
        let found = |right: &[Vec<usize>]| recall(&axes[..1], &axes, right);
        assert_eq!(found(&[vec![1, 0]]), Recall { at_1: 1.0, at_5: 1.0 });
        assert_eq!(found(&[vec![1]]), Recall { at_1: 0.0, at_5: 1.0 });
        let two = recall(&axes[..2], &axes, &[vec![0], vec![0]]);
        assert_eq!(two, Recall { at_1: 0.5, at_5: 1.0 });
    }

    #[test]
    fn folders_bring_their_own_captions() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
        let drawings = demo::captioned(&["en"]).unwrap();
        write("red_apple-2.png", drawings[0].bytes);
        write("b.png", drawings[1].bytes);
        write("broken.png", b"no picture");
        let captions = |samples: &Samples| -> Vec<Vec<String>> {
            samples.samples.iter().map(|sample| sample.captions.clone()).collect()
        };
        let named = folder(dir.path(), None, None).unwrap();
        assert_eq!(captions(&named), [["b"], ["broken"], ["red apple 2"]]);
        let model = model(Precision::Fp32);
        let report = run(model.as_ref(), model.as_ref(), named).unwrap();
        assert_eq!((report.images.inputs, report.texts.inputs, report.passed_over.len()), (2, 2, 1));
        assert!(report.passed_over[0].name.ends_with("broken.png"), "{:?}", report.passed_over);

        write("m.jsonl", b"{\"file\": \"b.png\", \"year\": 3, \"text\": [\"x\", \"y\"], \"alt\": \"z\"}\n");
        let metadata = Metadata::read(&dir.path().join("m.jsonl")).unwrap();
        let preferred = folder(dir.path(), Some(&metadata), None).unwrap();
        assert_eq!((captions(&preferred), preferred.passed_over.len()), (vec![vec!["x".into(), "y".into()]], 2));
        let chosen = folder(dir.path(), Some(&metadata), Some("alt")).unwrap();
        assert_eq!(captions(&chosen), [["z"]]);
        let error = run(model.as_ref(), model.as_ref(), chosen).unwrap_err().to_string();
        assert!(error.contains("at least two") && error.contains("found 1"), "{error}");
    }
}
