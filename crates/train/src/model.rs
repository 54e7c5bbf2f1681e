//! A CLIP model in training: which of its parameters are trained, and embeddings of the sides of a batch.

use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor, Var};
use crossmodal_models::LoadOptions;
use crossmodal_models::training::{AdapterRule, TrainableClip, Variables};
use crossmodal_models::weights::WeightType;
use crossmodal_nn::l2_normalise;
use serde::{Deserialize, Serialize};

use crate::batch::{Side, normalised};
use crate::error::{Error, Result};
use crate::gradients;
use crate::loss::Temperature;
use crate::optimiser::Average;
use crate::parameter::{CONCEPTS, Parameter, Role};
use crate::random::Random;

/// The greatest factor on cosines, as in open_clip.
const GREATEST_SCALE: f64 = 100.0;

/// The bias of the sigmoid loss before training, for models that have none.
const FIRST_BIAS: f32 = -10.0;

/// One of the two towers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tower {
    /// The picture tower.
    Image,
    /// The text tower.
    Text,
}

impl Tower {
    /// What the canonical names of its parameters begin with.
    fn prefix(self) -> &'static str {
        match self {
            Self::Image => "vision.",
            Self::Text => "text.",
        }
    }
}

/// What the products of the towers are computed in. Everything else (parameters, norms, sums, the loss, the optimiser) is in 32 bits in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Products {
    /// 32 bits.
    #[default]
    F32,
    /// bfloat16: faster on graphics processors.
    Bf16,
}

/// Which parameters are trained, and in what arithmetic.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// What of the towers.
    pub trained: Trained,
    /// A tower that is left as it is (LiT).
    pub lock: Option<Tower>,
    /// Whether the logit scale and the logit bias are trained too.
    pub temperature: bool,
    /// The arithmetic.
    pub products: Products,
}

impl Default for Selection {
    fn default() -> Self {
        Self { trained: Trained::All, lock: None, temperature: true, products: Products::default() }
    }
}

/// What of the towers is trained.
#[derive(Debug, Clone, PartialEq)]
pub enum Trained {
    /// Everything.
    All,
    /// Only the projections into the common space (a linear probe).
    Projections,
    /// Low-rank adapters beside the linear maps of the blocks, which are merged when the model is saved (LoRA, Hu et al. 2021).
    LowRank(LowRank),
}

/// Low-rank adapters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LowRank {
    /// The smaller dimension of an adapter's two matrices.
    pub rank: usize,
    /// The factor on their product is this over the rank.
    pub alpha: f64,
    /// Which maps get one: `q`, `k`, `v`, `out`, `fc1`, `fc2`.
    pub targets: Vec<String>,
    /// Decides on their first values.
    pub seed: u64,
}

impl Default for LowRank {
    /// Rank 8 for queries and values, the choice of the paper.
    fn default() -> Self {
        Self { rank: 8, alpha: 16.0, targets: vec!["q".into(), "v".into()], seed: 0 }
    }
}

/// The maps of a block that can have an adapter.
const TARGETS: [&str; 6] = ["q", "k", "v", "out", "fc1", "fc2"];

impl LowRank {
    /// Checks every field.
    ///
    /// # Errors
    /// A rank or alpha out of range, no targets or unknown ones.
    pub fn check(&self) -> Result<()> {
        if !(1..=1024).contains(&self.rank) {
            return Err(Error::Invalid(format!("lora.rank is {}, expected 1 to 1024", self.rank)));
        }
        if !(self.alpha > 0.0 && self.alpha.is_finite()) {
            return Err(Error::Invalid(format!("lora.alpha is {}, expected a number above 0", self.alpha)));
        }
        let unknown = self.targets.iter().find(|target| !TARGETS.contains(&target.as_str()));
        match unknown {
            _ if self.targets.is_empty() => Err(Error::Invalid("lora.targets: expected at least one".into())),
            Some(unknown) => {
                let all = TARGETS.join(", ");
                Err(Error::Invalid(format!("lora.targets: there is no {unknown:?}, expected some of {all}")))
            }
            None => Ok(()),
        }
    }

    fn rule(&self, lock: Option<Tower>) -> AdapterRule {
        let targets = self.targets.clone();
        let fits = move |name: &str| {
            let free = lock.is_none_or(|tower| !name.starts_with(tower.prefix()));
            free && name.rsplit('.').next().is_some_and(|last| targets.iter().any(|target| target == last))
        };
        AdapterRule { rank: self.rank, scale: self.alpha / self.rank as f64, seed: self.seed, targets: Box::new(fits) }
    }
}

impl Selection {
    /// Whether the parameter of this canonical name is trained.
    pub fn selects(&self, name: &str) -> bool {
        match Role::of(name) {
            Role::LogitScale | Role::LogitBias => return self.temperature,
            _ => {}
        }
        if self.lock.is_some_and(|tower| name.starts_with(tower.prefix())) {
            return false;
        }
        match self.trained {
            Trained::All => true,
            Trained::Projections => name.contains(".projection."),
            Trained::LowRank(_) => false,
        }
    }

    fn variables(&self) -> Variables {
        let chosen = self.clone();
        let variables = Variables::new(move |name: &str| chosen.selects(name));
        let variables = match self.products {
            Products::F32 => variables,
            Products::Bf16 => variables.with_products(DType::BF16),
        };
        match &self.trained {
            Trained::LowRank(adapters) => variables.with_adapters(adapters.rule(self.lock)),
            Trained::All | Trained::Projections => variables,
        }
    }
}

/// Where a model's parameters come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// A model by name: `mini`, a known variant, a folder, a hub id.
    Checkpoint(String),
    /// A folder with everything that a model consists of but weights, which are drawn from a seed.
    Architecture {
        /// The folder.
        folder: PathBuf,
        /// The seed.
        seed: u64,
    },
}

/// A model in training.
#[derive(Debug)]
pub struct Model {
    clip: TrainableClip,
    /// In alphabetical order; what is thrown away after training comes last.
    parameters: Vec<Parameter>,
    temperature: Temperature,
    concepts: Option<Var>,
}

impl Model {
    /// Loads or begins a model, with the selected parameters as variables.
    ///
    /// # Errors
    /// A model that can't be loaded, or a selection that leaves nothing of the towers to train.
    pub fn open(start: &Start, selection: &Selection, options: &LoadOptions, device: &Device) -> Result<Self> {
        let variables = selection.variables();
        let clip = match start {
            Start::Checkpoint(name) => TrainableClip::load(name, options, device, variables)?,
            Start::Architecture { folder, seed } => TrainableClip::begin(folder, *seed, options, device, variables)?,
        };
        let parameters: Vec<Parameter> =
            clip.variables().into_iter().map(|(name, var)| Parameter::new(name, var)).collect();
        let in_towers = |parameter: &Parameter| !matches!(parameter.role, Role::LogitScale | Role::LogitBias);
        if !parameters.iter().any(in_towers) {
            return Err(Error::Invalid(format!("{selection:?} leaves nothing of the towers to train")));
        }
        let temperature = Temperature { log_scale: clip.logit_scale().clone(), bias: clip.logit_bias().cloned() };
        Ok(Self { clip, parameters, temperature, concepts: None })
    }

    /// The model as files know it.
    pub fn clip(&self) -> &TrainableClip {
        &self.clip
    }

    /// Everything that is trained.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// What turns cosines into logits.
    pub fn temperature(&self) -> &Temperature {
        &self.temperature
    }

    /// The scaffold's table, `[concepts, width]`.
    pub fn concepts(&self) -> Option<&Tensor> {
        self.concepts.as_ref().map(Var::as_tensor)
    }

    /// Sets the factor on cosines, for example the 10 that the sigmoid loss begins with.
    ///
    /// # Errors
    /// A factor that isn't between 1 and 100.
    pub fn set_logit_scale(&mut self, scale: f64) -> Result<()> {
        if !(1.0..=GREATEST_SCALE).contains(&scale) {
            return Err(Error::Invalid(format!("logit scale {scale}, expected 1 to {GREATEST_SCALE}")));
        }
        match self.parameters.iter().find(|parameter| parameter.role == Role::LogitScale) {
            Some(parameter) => gradients::update(&parameter.var, |values| values.fill(scale.ln() as f32)),
            None => {
                self.temperature.log_scale = Tensor::new(scale.ln() as f32, self.clip.device())?;
                Ok(())
            }
        }
    }

    /// Gives a model without logit bias one for training with the sigmoid loss. It has no place in the model's files, and cosines, hence rankings, don't depend on it.
    ///
    /// # Errors
    /// Failures of the tensor library.
    pub fn add_bias(&mut self) -> Result<()> {
        if self.temperature.bias.is_none() {
            let var = Var::new(FIRST_BIAS, self.clip.device())?;
            self.temperature.bias = Some(var.as_tensor().clone());
            self.parameters.push(Parameter::new("logit_bias", var));
        }
        Ok(())
    }

    /// Adds the scaffold's table of one vector per concept, drawn from the seed.
    ///
    /// # Errors
    /// Failures of the tensor library.
    pub fn add_concepts(&mut self, count: usize, seed: u64) -> Result<()> {
        let width = self.clip.config().embed_dim;
        let mut random = Random::new(seed, 0x636f_6e63, 0);
        let deviation = (width as f64).powf(-0.5);
        let values: Vec<f32> = (0..count * width).map(|_| (random.normal() * deviation) as f32).collect();
        let var = Var::from_tensor(&Tensor::from_vec(values, (count, width), self.clip.device())?)?;
        self.parameters.push(Parameter::new(CONCEPTS, var.clone()));
        self.concepts = Some(var);
        Ok(())
    }

    /// Unit vectors `[samples, width]` of some samples of a side, differentiable. `kept` are the patches that each picture is seen through.
    ///
    /// # Errors
    /// Samples that the model can't take.
    pub fn embed(&self, side: &Side, samples: Range<usize>, kept: Option<&[Vec<u32>]>) -> Result<Tensor> {
        let kept = |samples: Range<usize>| kept.map(|kept| &kept[samples]);
        let native = match side {
            Side::Pictures(pictures) => {
                let pixels = normalised(&pictures[samples.clone()], self.clip.prep());
                self.clip.embed_pixels(&pixels, kept(samples))?
            }
            Side::Pixels(pictures) => self.clip.embed_pixels(&pictures[samples.clone()], kept(samples))?,
            Side::Tokens(texts) => self.clip.embed_tokens(&texts[samples])?,
        };
        Ok(l2_normalise(&native)?)
    }

    /// Keeps the logit scale between 1 and 100 (its logarithm from 0), as open_clip does after each step.
    ///
    /// # Errors
    /// Failures of the tensor library.
    pub fn clamp_logit_scale(&self) -> Result<()> {
        let greatest = GREATEST_SCALE.ln() as f32;
        match self.parameters.iter().find(|parameter| parameter.role == Role::LogitScale) {
            Some(scale) => gradients::update(&scale.var, |values| {
                values.iter_mut().for_each(|value| *value = value.clamp(0.0, greatest));
            }),
            None => Ok(()),
        }
    }

    /// Writes the model as files in the layout it came from, with averages instead of the last parameters where they are given.
    ///
    /// # Errors
    /// As [`TrainableClip::save`].
    pub fn save(&self, folder: &Path, dtype: WeightType, average: Option<&Average>) -> Result<()> {
        let values = |name: &str| {
            let at = self.parameters.iter().position(|parameter| parameter.name == name)?;
            average.map(|average| average.values()[at].clone())
        };
        Ok(self.clip.save(folder, dtype, values)?)
    }

    /// The factor on cosines.
    ///
    /// # Errors
    /// Failures of the tensor library.
    pub fn logit_scale(&self) -> Result<f64> {
        let log_scale: f32 = self.temperature.log_scale.to_dtype(DType::F32)?.to_scalar()?;
        Ok(f64::from(log_scale).exp())
    }
}

/// Patches that are left out of pictures in training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchDropping {
    /// The smallest share of patches that is kept, above 0.
    pub least: f64,
    /// The largest share that is kept, at most 1.
    pub most: f64,
    /// The share of the run after which all patches are seen.
    pub until: f64,
}

impl PatchDropping {
    /// The patches that each picture of this step's batch is seen through: as many for each, chosen for each anew. `None` where all are seen.
    pub fn kept(&self, seed: u64, step: u64, steps: u64, pictures: usize, patches: usize) -> Option<Vec<Vec<u32>>> {
        if step as f64 >= self.until * steps as f64 {
            return None;
        }
        let mut random = Random::new(seed, 0x7061_7463, step);
        let share = self.least + (self.most - self.least) * random.unit();
        let count = ((share * patches as f64).round() as usize).clamp(1, patches);
        Some((0..pictures).map(|_| random.choose(count, patches)).collect())
    }
}
