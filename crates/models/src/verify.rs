//! Comparison of a model with golden data from its reference implementation, stage by stage.
//!
//! A golden folder holds `golden.json` (texts, picture files, tolerances) and `golden.safetensors` (the reference's
//! arrays). Each stage is computed from the reference's own input to it, ids and pixels, so that a difference shows where
//! it arises; whole inputs also go the ordinary way through [`Embedder::embed`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use crate::clip::ClipModel;
use crate::embedder::Embedder;
use crate::error::{Error, Result};
use crate::input::Input;
use crate::towers::TracedStage;

/// Factor on the reference's own float noise.
const NOISE_FACTOR: f64 = 10.0;
/// Floor of a tolerance, as a share of the tensor's largest magnitude.
const FLOOR: f64 = 1e-5;

/// How one stage compares.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stage {
    /// Name of the golden tensor, with `(embedded)` after it where it was reached through the ordinary interface.
    pub stage: String,
    /// Number of items compared: texts, pictures.
    pub items: usize,
    /// Number of rows (vectors along the last dimension) that were compared, where the model computes only those that its result
    /// depends on.
    pub rows: Option<usize>,
    /// Largest absolute difference; for ids, the number of positions that differ.
    pub max_abs_difference: f64,
    /// Smallest cosine between corresponding rows; `None` for ids and scalars.
    pub cosine: Option<f64>,
    /// Largest difference allowed. 0 means equal bit for bit.
    pub tolerance: f64,
    /// Whether the difference is within the tolerance.
    pub passed: bool,
    /// Why the stage could not be compared.
    pub note: Option<String>,
}

/// How a model compares with a golden folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VerifyReport {
    /// The model.
    pub model: String,
    /// The golden folder.
    pub golden: PathBuf,
    /// What the golden data was made with.
    pub reference: String,
    /// Every golden tensor.
    pub stages: Vec<Stage>,
    /// Whether every stage passed.
    pub passed: bool,
}

#[derive(Deserialize)]
struct Manifest {
    reference: String,
    texts: Vec<String>,
    images: Vec<PathBuf>,
    #[serde(default)]
    notes: Notes,
    tensors: BTreeMap<String, TensorFacts>,
}

#[derive(Deserialize, Default)]
struct Notes {
    #[serde(default)]
    wrong_activation_max_abs: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct TensorFacts {
    #[serde(default)]
    max_abs: f64,
    f32_vs_f64_max_abs: Option<f64>,
}

/// Compares `model` with the golden data in `folder`.
///
/// # Errors
/// Golden files that are missing or malformed, or a model that can't run at all. Differences are reported, not errors.
pub fn verify(model: &ClipModel, folder: &Path) -> Result<VerifyReport> {
    let golden = Golden::open(folder)?;
    let mut comparison = Comparison { golden: &golden, stages: Vec::new(), found: Vec::new() };
    comparison.texts(model)?;
    comparison.pictures(model)?;
    comparison.interpolated(model)?;
    comparison.logits(model)?;
    comparison.leftovers();
    let stages = comparison.stages;
    Ok(VerifyReport {
        model: model.info().name.clone(),
        golden: folder.to_path_buf(),
        reference: golden.manifest.reference.clone(),
        passed: stages.iter().all(|stage| stage.passed),
        stages,
    })
}

/// A golden folder, opened.
struct Golden {
    folder: PathBuf,
    manifest: Manifest,
    bytes: Vec<u8>,
}

impl Golden {
    fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("golden.json");
        let text = std::fs::read(&path).map_err(|error| Error::io(&path, error))?;
        let manifest = serde_json::from_slice(&text).map_err(|error| Error::malformed(&path, error))?;
        let path = folder.join("golden.safetensors");
        let bytes = std::fs::read(&path).map_err(|error| Error::io(&path, error))?;
        SafeTensors::deserialize(&bytes).map_err(|error| Error::malformed(&path, error))?;
        Ok(Self { folder: folder.to_path_buf(), manifest, bytes })
    }

    /// A floating-point tensor, if it is there.
    fn floats(&self, name: &str) -> Option<Tensor> {
        let tensors = SafeTensors::deserialize(&self.bytes).ok()?;
        let view = tensors.tensor(name).ok()?;
        if view.dtype() != safetensors::Dtype::F32 {
            return None;
        }
        let values: Vec<f32> = view.data().as_chunks::<4>().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect();
        Tensor::from_vec(values, view.shape(), &Device::Cpu).ok()
    }

    /// A matrix of 64-bit integers, if it is there.
    fn integers(&self, name: &str) -> Option<Vec<Vec<i64>>> {
        let tensors = SafeTensors::deserialize(&self.bytes).ok()?;
        let view = tensors.tensor(name).ok()?;
        if view.dtype() != safetensors::Dtype::I64 || view.shape().len() != 2 {
            return None;
        }
        let values: Vec<i64> = view.data().as_chunks::<8>().0.iter().map(|raw| i64::from_le_bytes(*raw)).collect();
        Some(values.chunks(view.shape()[1].max(1)).map(<[i64]>::to_vec).collect())
    }

    /// The tolerance of a tensor: ten times the reference's own noise, at least a hundred-thousandth of its largest
    /// magnitude, and never looser than a third of what a wrong activation would do.
    fn tolerance(&self, name: &str) -> f64 {
        let Some(facts) = self.manifest.tensors.get(name) else { return 0.0 };
        // Pixels are equal bit for bit; other tensors whose noise wasn't measured have the floor alone.
        if name.ends_with("pixel_values") {
            return 0.0;
        }
        let noise = facts.f32_vs_f64_max_abs.unwrap_or(0.0);
        let wrong = self.manifest.notes.wrong_activation_max_abs.values().copied().filter(|effect| *effect > 0.0);
        let cap = wrong.fold(f64::INFINITY, f64::min) / 3.0;
        (NOISE_FACTOR * noise).max(FLOOR * facts.max_abs).min(cap)
    }
}

struct Comparison<'a> {
    golden: &'a Golden,
    stages: Vec<Stage>,
    /// Unit embeddings by modality prefix, for the logits.
    found: Vec<(&'static str, Tensor)>,
}

impl Comparison<'_> {
    fn texts(&mut self, model: &ClipModel) -> Result<()> {
        let golden = self.golden;
        let Some(expected) = golden.integers("text/input_ids") else { return Ok(()) };
        let length = expected.first().map_or(0, Vec::len);
        let tokenizer = model.tokenizer();
        let ids = |text: &String| Ok(tokenizer.padded(&tokenizer.encode(text)?.ids, length));
        let found: Vec<Vec<u32>> = golden.manifest.texts.iter().map(ids).collect::<Result<_>>()?;
        let expected: Vec<Vec<u32>> =
            expected.iter().map(|row| row.iter().map(|id| u32::try_from(*id).unwrap_or(u32::MAX)).collect()).collect();
        let differing = |(a, b): (&Vec<u32>, &Vec<u32>)| {
            a.iter().zip(b).filter(|(a, b)| a != b).count() + a.len().abs_diff(b.len())
        };
        let differences: usize = found.iter().zip(&expected).map(differing).sum();
        let lengths_agree = found.len() == expected.len();
        self.stages.push(Stage {
            stage: "text/input_ids".into(),
            items: expected.len(),
            rows: None,
            max_abs_difference: differences as f64,
            cosine: None,
            tolerance: 0.0,
            passed: differences == 0 && lengths_agree,
            note: (!lengths_agree).then(|| format!("{} texts but {} rows of ids", found.len(), expected.len())),
        });
        let present = golden.integers("text/attention_mask");
        let present: Option<Vec<Vec<bool>>> =
            present.map(|rows| rows.iter().map(|row| row.iter().map(|flag| *flag != 0).collect()).collect());
        let trace = model.trace_tokens(&expected, present.as_deref())?;
        self.trace("text/", &trace);
        let inputs: Vec<Input> = golden.manifest.texts.iter().map(Input::text).collect();
        self.embedded("text/", model, &inputs)
    }

    fn pictures(&mut self, model: &ClipModel) -> Result<()> {
        let golden = self.golden;
        let Some(expected) = golden.floats("vision/pixel_values") else { return Ok(()) };
        let mut inputs = Vec::new();
        let mut pixels = Vec::new();
        for file in &golden.manifest.images {
            let path = golden.folder.join(file);
            let bytes = std::fs::read(&path).map_err(|error| Error::io(&path, error))?;
            let made = model.prep().tensor(&bytes)?;
            pixels.push(Tensor::from_vec(made.data, (3, made.height as usize, made.width as usize), &Device::Cpu)?);
            inputs.push(Input::image(bytes));
        }
        self.compare("vision/pixel_values", "", &Tensor::stack(&pixels, 0)?);
        let trace = model.trace_pixels(&expected)?;
        self.trace("vision/", &trace);
        self.embedded("vision/", model, &inputs)
    }

    /// Pictures of another size than the model's own, with resized position embeddings.
    fn interpolated(&mut self, model: &ClipModel) -> Result<()> {
        let Some(pixels) = self.golden.floats("interpolate/pixel_values") else { return Ok(()) };
        let projected = model.vision()?.forward(&pixels)?;
        self.compare("interpolate/projected", "", &projected);
        Ok(())
    }

    /// Compares every stage of a trace that has a golden tensor, and the unit vectors of the last one.
    fn trace(&mut self, prefix: &'static str, trace: &[TracedStage]) {
        for TracedStage { name, values, computed } in trace {
            let name = format!("{prefix}{name}");
            if self.golden.manifest.tensors.contains_key(&name) {
                self.compare_rows(&name, "", values, computed.as_deref());
            }
        }
        if let Some(unit) = trace.last().and_then(|stage| crossmodal_nn::l2_normalise(&stage.values).ok()) {
            self.compare(&format!("{prefix}normalised"), "", &unit);
            self.found.push((prefix, unit));
        }
    }

    /// Compares what the ordinary interface gives.
    fn embedded(&mut self, prefix: &str, model: &ClipModel, inputs: &[Input]) -> Result<()> {
        let embeddings = model.embed(inputs)?;
        let rows = |pick: fn(&crate::Embedding) -> &Vec<f32>| -> Result<Tensor> {
            let values: Vec<f32> = embeddings.iter().flat_map(pick).copied().collect();
            Ok(Tensor::from_vec(values, (embeddings.len(), model.dimension()), &Device::Cpu)?)
        };
        self.compare(&format!("{prefix}projected"), " (embedded)", &rows(|embedding| &embedding.native)?);
        self.compare(&format!("{prefix}normalised"), " (embedded)", &rows(|embedding| &embedding.unit)?);
        Ok(())
    }

    fn logits(&mut self, model: &ClipModel) -> Result<()> {
        let Some(rule) = model.logit_rule()? else { return Ok(()) };
        let scalar = |value: f32| Tensor::new(value, &Device::Cpu);
        self.compare("logit_scale_exp", "", &scalar(rule.scale)?);
        if self.golden.manifest.tensors.contains_key("logit_bias") {
            self.compare("logit_bias", "", &scalar(rule.bias)?);
        }
        let by = |wanted: &str| self.found.iter().find(|(prefix, _)| *prefix == wanted).map(|(_, unit)| unit.clone());
        let (Some(vision), Some(text)) = (by("vision/"), by("text/")) else { return Ok(()) };
        let per_image = vision.matmul(&text.t()?)?.affine(f64::from(rule.scale), f64::from(rule.bias))?;
        self.compare("logits_per_image", "", &per_image);
        if self.golden.manifest.tensors.contains_key("logits_per_text") {
            self.compare("logits_per_text", "", &per_image.t()?);
        }
        Ok(())
    }

    /// A golden tensor that nothing was compared with is a failure, lest a renamed one pass unseen.
    fn leftovers(&mut self) {
        const INPUTS: [&str; 3] = ["text/attention_mask", "interpolate/pixel_values", "logit_scale_log"];
        for name in self.golden.manifest.tensors.keys() {
            let compared = self.stages.iter().any(|stage| stage.stage == *name);
            if !compared && !INPUTS.contains(&name.as_str()) {
                self.stages.push(Stage::failed(name.clone(), "this model has no such stage".into()));
            }
        }
    }

    fn compare(&mut self, name: &str, suffix: &str, found: &Tensor) {
        self.compare_rows(name, suffix, found, None);
    }

    /// Compares the rows that were computed.
    fn compare_rows(&mut self, name: &str, suffix: &str, found: &Tensor, computed: Option<&[bool]>) {
        let stage = format!("{name}{suffix}");
        let stage = match self.golden.floats(name) {
            None => Stage::failed(stage, "the golden data lacks this tensor".into()),
            Some(expected) => match difference(&expected, found, computed) {
                Ok((max_abs_difference, cosine)) => {
                    let tolerance = self.golden.tolerance(name);
                    let passed = max_abs_difference <= tolerance;
                    let items = expected.dims().first().copied().unwrap_or(1);
                    let rows = computed.map(|computed| computed.iter().filter(|computed| **computed).count());
                    Stage { stage, items, rows, max_abs_difference, cosine, tolerance, passed, note: None }
                }
                Err(note) => Stage::failed(stage, note),
            },
        };
        self.stages.push(stage);
    }
}

impl Stage {
    fn failed(stage: String, note: String) -> Self {
        let max_abs_difference = f64::INFINITY;
        Self {
            stage,
            items: 0,
            rows: None,
            max_abs_difference,
            cosine: None,
            tolerance: 0.0,
            passed: false,
            note: Some(note),
        }
    }
}

/// Largest absolute difference and smallest cosine of items, over the rows that were computed. NaN counts as infinitely different.
fn difference(
    expected: &Tensor,
    found: &Tensor,
    computed: Option<&[bool]>,
) -> std::result::Result<(f64, Option<f64>), String> {
    if expected.dims() != found.dims() {
        return Err(format!("has shape {:?}, expected {:?}", found.dims(), expected.dims()));
    }
    let flat =
        |tensor: &Tensor| tensor.flatten_all().and_then(|t| t.to_vec1::<f32>()).map_err(|error| error.to_string());
    let (mut a, mut b) = (flat(expected)?, flat(found)?);
    if let Some(computed) = computed {
        let width = expected.dims().last().copied().unwrap_or(0);
        if a.len() != width * computed.len() || !computed.contains(&true) {
            return Err(format!("{} rows of shape {:?} were said to be computed", computed.len(), expected.dims()));
        }
        for (row, _) in computed.iter().enumerate().filter(|(_, computed)| !**computed) {
            a[row * width..(row + 1) * width].fill(0.0);
            b[row * width..(row + 1) * width].fill(0.0);
        }
    }
    let gap = |(a, b): (&f32, &f32)| {
        let gap = (f64::from(*a) - f64::from(*b)).abs();
        if gap.is_nan() { f64::INFINITY } else { gap }
    };
    let max = a.iter().zip(&b).map(gap).fold(0.0, f64::max);
    let rows = expected.dims().first().copied().unwrap_or(0);
    if rows == 0 || a.len() == rows {
        return Ok((max, None));
    }
    let width = a.len() / rows;
    let cosine = a.chunks(width).zip(b.chunks(width)).map(|(a, b)| {
        let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    });
    Ok((max, Some(cosine.fold(f64::INFINITY, f64::min))))
}
