//! What a run is asked for: a file in TOML or options of a command, every field checked.

mod nearest;

use std::path::Path;

use crossmodal_models::weights::WeightType;
use serde::{Deserialize, Serialize};

use crate::data::{Columns, LoaderOptions, SplitRule};
use crate::error::{Error, Result};
use crate::loss::{
    AffinityMimicking, ConceptSoftmax, CrossClr, CrossClrForm, CyClip, Duplicates, FeatureDistillation, InfoNce,
    InteractiveDistillation, Loss, Matryoshka, NegClip, SigLip, Term, WeightedSum,
};
use crate::model::{LowRank, PatchDropping, Products, Selection, Tower, Trained};
use crate::optimiser::{AdamW, Decay, GroupRule, Muon, MuonRule, OptimiserRules, WarmUp};

/// Everything that a run is asked for. Paths in a file are relative to it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// The model, and what of it is trained.
    pub model: ModelRecipe,
    /// What it learns from.
    pub data: DataRecipe,
    /// The losses; none means InfoNCE.
    pub loss: Vec<LossRecipe>,
    /// How parameters are moved.
    pub optimiser: OptimiserRecipe,
    /// How the run goes.
    pub run: RunRecipe,
}

/// The model, and what of it is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelRecipe {
    /// A model to go on from: `mini`, a known variant, a folder, a hub id.
    pub from: Option<String>,
    /// Instead of `from`, a folder with configuration and tokenizer of a model that begins untrained.
    pub architecture: Option<String>,
    /// What is trained: `all`, `projections` or `lora`.
    pub trained: TrainedRecipe,
    /// Adapters, for `trained = "lora"`.
    pub lora: LowRank,
    /// A tower that is left as it is: `image` or `text`.
    pub lock: Option<Tower>,
    /// Whether the logit scale and the logit bias are trained.
    pub temperature: bool,
    /// The factor on cosines to begin with, 1 to 100; the model's own where nothing is said.
    pub logit_scale: Option<f64>,
    /// A larger model to learn from, for losses of distillation.
    pub teacher: Option<String>,
}

impl Default for ModelRecipe {
    fn default() -> Self {
        Self {
            from: None,
            architecture: None,
            trained: TrainedRecipe::All,
            lora: LowRank::default(),
            lock: None,
            temperature: true,
            logit_scale: None,
            teacher: None,
        }
    }
}

/// What of the towers is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainedRecipe {
    /// Everything.
    #[default]
    All,
    /// The projections into the common space.
    Projections,
    /// Low-rank adapters.
    Lora,
}

/// What a run learns from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataRecipe {
    /// The data set: a table, shards, or a folder.
    pub path: String,
    /// Which columns are what, where that doesn't show.
    pub columns: Columns,
    /// Another data set to measure by; without one, a part of `path` is held out.
    pub validation: Option<String>,
    /// The columns of `validation`, where they aren't those of `path`.
    pub validation_columns: Option<Columns>,
    /// The part of `path` that is held out where there is no `validation`; a share of 0 holds nothing out.
    pub split: SplitRule,
    /// How batches are made.
    pub batches: LoaderOptions,
}

/// A loss by name, with what may be set of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossRecipe {
    /// Its name, for example `infonce`.
    pub name: LossName,
    /// The factor on its value.
    #[serde(default = "one")]
    pub weight: f64,
    /// Numbers of first dimensions that are to be good embeddings by themselves (Matryoshka).
    #[serde(default)]
    pub widths: Vec<usize>,
    /// The fixed factor on cosines of `concepts`.
    pub scale: Option<f64>,
    /// The fixed temperature of `crossclr` and `crossclr-release`.
    pub tau: Option<f64>,
    /// The weight of negatives within a modality of `crossclr`, and of `crossclr-release`.
    pub lambda: Option<f64>,
    /// How sharply `crossclr` weights well connected samples; 0 weights all alike.
    pub kappa: Option<f64>,
    /// The share of the greatest connectivity above which `crossclr` prunes; 1 prunes nothing.
    pub gamma: Option<f64>,
    /// The weight of consistency within modalities of `cyclip`.
    pub within: Option<f64>,
    /// The weight of consistency between modalities of `cyclip`.
    pub across: Option<f64>,
}

fn one() -> f64 {
    1.0
}

/// Names of losses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each is documented with the loss of its name")]
pub enum LossName {
    Infonce,
    Siglip,
    Crossclr,
    CrossclrRelease,
    Cyclip,
    Negclip,
    FeatureDistillation,
    AffinityMimicking,
    InteractiveDistillation,
    Concepts,
}

impl LossRecipe {
    /// The loss of this name with everything else at its default.
    pub fn named(name: LossName) -> Self {
        Self {
            name,
            weight: 1.0,
            widths: Vec::new(),
            scale: None,
            tau: None,
            lambda: None,
            kappa: None,
            gamma: None,
            within: None,
            across: None,
        }
    }

    fn build(&self) -> Result<Term> {
        use LossName as Name;
        let paper = || CrossClrForm::Paper {
            lambda: self.lambda.unwrap_or(0.8),
            kappa: Some(self.kappa.unwrap_or(0.0035)).filter(|kappa| *kappa > 0.0),
            gamma: Some(self.gamma.unwrap_or(0.9)).filter(|gamma| *gamma < 1.0),
        };
        let crossclr = |form| CrossClr { tau: self.tau.unwrap_or(0.03), form };
        let usual = CyClip::default();
        let loss: Box<dyn Loss> = match self.name {
            Name::Infonce => Box::new(InfoNce),
            Name::Siglip => Box::new(SigLip),
            Name::Crossclr => Box::new(crossclr(paper())),
            Name::CrossclrRelease => {
                Box::new(crossclr(CrossClrForm::Release { negative_weight: self.lambda.unwrap_or(0.8) }))
            }
            Name::Cyclip => Box::new(CyClip {
                within: self.within.unwrap_or(usual.within),
                across: self.across.unwrap_or(usual.across),
            }),
            Name::Negclip => Box::new(NegClip),
            Name::FeatureDistillation => Box::new(FeatureDistillation),
            Name::AffinityMimicking => Box::new(AffinityMimicking),
            Name::InteractiveDistillation => Box::new(InteractiveDistillation),
            Name::Concepts => {
                Box::new(self.scale.map_or_else(ConceptSoftmax::default, |scale| ConceptSoftmax { scale }))
            }
        };
        self.check(loss.name())?;
        if self.widths.is_empty() {
            return Ok(Term { weight: self.weight, loss });
        }
        let widths = self.widths.iter().map(|width| (*width, 1.0)).collect();
        let loss = Box::new(Matryoshka { inner: loss, widths });
        Ok(Term { weight: self.weight, loss })
    }

    /// Refuses settings that are another loss's, and values out of range.
    fn check(&self, name: &str) -> Result<()> {
        use LossName as Name;
        let crossclr = matches!(self.name, Name::Crossclr | Name::CrossclrRelease);
        let settings = [
            ("scale", self.scale, self.name == Name::Concepts, 1e-6, 1e6),
            ("tau", self.tau, crossclr, 1e-6, 1e6),
            ("lambda", self.lambda, crossclr, 0.0, 1e6),
            ("kappa", self.kappa, self.name == Name::Crossclr, 0.0, 1e6),
            ("gamma", self.gamma, self.name == Name::Crossclr, 0.0, 1.0),
            ("within", self.within, self.name == Name::Cyclip, 0.0, 1e6),
            ("across", self.across, self.name == Name::Cyclip, 0.0, 1e6),
        ];
        for (field, value, fits, least, most) in settings {
            let Some(value) = value else { continue };
            if !fits {
                return Err(Error::Invalid(format!("loss {name}: has no setting {field}")));
            }
            within(&format!("loss.{field} of {name}"), value, least, most)?;
        }
        Ok(())
    }
}

/// How parameters are moved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimiserRecipe {
    /// AdamW's learning rate at its highest.
    pub learning_rate: f64,
    /// AdamW's weight decay.
    pub weight_decay: f64,
    /// How slowly the mean of gradients forgets.
    pub beta1: f64,
    /// How slowly the mean of their squares forgets.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// The greatest norm of all gradients together; 0 doesn't clip.
    pub clip: f64,
    /// Muon for matrices of blocks.
    pub muon: Option<MuonRecipe>,
    /// Factors on learning rates by what canonical names begin with, for example `{ "vision." = 0.1 }`.
    pub factors: std::collections::BTreeMap<String, f64>,
    /// Steps of the warm-up; a share of the run where it is below 1.
    pub warm_up: f64,
    /// How steps of the warm-up are counted.
    pub counting: WarmUp,
    /// What follows the warm-up.
    pub decay: Decay,
    /// The factor that a cosine ends at.
    pub floor: f64,
}

impl Default for OptimiserRecipe {
    fn default() -> Self {
        let AdamW { beta1, beta2, eps } = AdamW::default();
        Self {
            learning_rate: 1e-5,
            weight_decay: 0.1,
            beta1,
            beta2,
            eps,
            clip: 1.0,
            muon: None,
            factors: std::collections::BTreeMap::new(),
            warm_up: 0.05,
            counting: WarmUp::default(),
            decay: Decay::default(),
            floor: 0.0,
        }
    }
}

/// Muon for matrices of blocks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MuonRecipe {
    /// Its learning rate at its highest.
    pub learning_rate: f64,
    /// Its weight decay.
    pub weight_decay: f64,
    /// How slowly the sum of gradients forgets.
    pub momentum: f64,
    /// Steps of the iteration that makes directions equally long.
    pub iterations: usize,
}

impl Default for MuonRecipe {
    fn default() -> Self {
        let Muon { momentum, iterations } = Muon::default();
        Self { learning_rate: 0.02, weight_decay: 0.0, momentum, iterations }
    }
}

/// How a run goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunRecipe {
    /// The folder of the run.
    pub output: Option<String>,
    /// Passes over the data; `steps` counts where both are given.
    pub epochs: u64,
    /// Steps.
    pub steps: Option<u64>,
    /// Batches whose gradients are averaged for one step.
    pub accumulate: usize,
    /// Samples that go through the towers at a time, for batches that don't fit into memory; 0 is the whole batch.
    pub piece: usize,
    /// Decides on everything random in the loop, and on the parameters of an untrained model.
    pub seed: u64,
    /// What becomes of duplicates in a batch.
    pub duplicates: Duplicates,
    /// Patches that are left out of pictures.
    pub patches: Option<PatchDropping>,
    /// The decay of the running mean of parameters; 0 takes the last parameters.
    pub average: f64,
    /// Steps between saved states.
    pub save_every: u64,
    /// Steps between validations; 0 validates at the end of each pass, where its length is known, and at the end.
    pub validate_every: u64,
    /// Validations without a better one after which training stops; 0 never stops early.
    pub patience: u64,
    /// The type that models are written in.
    pub dtype: WeightType,
    /// Where to train: `auto`, `cpu` or `cuda:N`.
    pub device: String,
    /// What products are computed in; `bf16` is for graphics processors.
    pub products: Products,
}

impl Default for RunRecipe {
    fn default() -> Self {
        Self {
            output: None,
            epochs: 5,
            steps: None,
            accumulate: 1,
            piece: 0,
            seed: 0,
            duplicates: Duplicates::default(),
            patches: None,
            average: 0.0,
            save_every: 500,
            validate_every: 0,
            patience: 0,
            dtype: WeightType::F32,
            device: "auto".into(),
            products: Products::default(),
        }
    }
}

impl Recipe {
    /// Reads a recipe. Paths in it become relative to where the program runs.
    ///
    /// # Errors
    /// A file that can't be read, isn't TOML, or has a field that doesn't exist or doesn't fit; the message names file, line and field.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::File { path: path.to_path_buf(), source })?;
        let mut recipe: Self = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let message = nearest::explained(error.message());
            Error::Invalid(format!("{}: line {line}: {message}", path.display()))
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let within = |place: &mut String| {
            let joined = folder.join(&*place);
            if !Path::new(&*place).is_absolute() && !place.is_empty() {
                *place = joined.to_string_lossy().into_owned();
            }
        };
        within(&mut recipe.data.path);
        [&mut recipe.data.validation, &mut recipe.model.architecture, &mut recipe.run.output]
            .into_iter()
            .flatten()
            .for_each(within);
        // A name that is a folder beside the recipe means that folder; others are known models or hub ids.
        for name in [&mut recipe.model.from, &mut recipe.model.teacher].into_iter().flatten() {
            if folder.join(&*name).exists() {
                within(name);
            }
        }
        recipe.check().map_err(|error| Error::Invalid(format!("{}: {error}", path.display())))?;
        Ok(recipe)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// A field out of range or fields that contradict each other, by name.
    pub fn check(&self) -> Result<()> {
        let Self { model, data, loss, optimiser, run } = self;
        match (&model.from, &model.architecture) {
            (None, None) => return Err(Error::Invalid("model.from or model.architecture is missing".into())),
            (Some(_), Some(_)) => {
                return Err(Error::Invalid("model.from and model.architecture: expected only one of them".into()));
            }
            _ => {}
        }
        if model.trained == TrainedRecipe::Lora {
            model.lora.check()?;
        } else if model.lora != LowRank::default() {
            return Err(Error::Invalid("model.lora: is for trained = \"lora\"".into()));
        }
        if let Some(scale) = model.logit_scale {
            within("model.logit_scale", scale, 1.0, 100.0)?;
        }
        if data.path.is_empty() {
            return Err(Error::Invalid("data.path: is missing".into()));
        }
        data.batches.check().map_err(|error| Error::Invalid(format!("data.batches: {error}")))?;
        data.split.check()?;
        loss.iter().try_for_each(|loss| loss.build().map(drop))?;
        optimiser.check()?;
        run.check()
    }

    /// The loss.
    ///
    /// # Errors
    /// Settings that don't fit.
    pub fn loss(&self) -> Result<WeightedSum> {
        if self.loss.is_empty() {
            return Ok(WeightedSum::single(InfoNce));
        }
        WeightedSum::new(self.loss.iter().map(LossRecipe::build).collect::<Result<_>>()?)
    }

    /// What of the model is trained.
    pub fn selection(&self) -> Selection {
        let trained = match self.model.trained {
            TrainedRecipe::All => Trained::All,
            TrainedRecipe::Projections => Trained::Projections,
            TrainedRecipe::Lora => Trained::LowRank(self.model.lora.clone()),
        };
        let products = self.run.products;
        Selection { trained, lock: self.model.lock, temperature: self.model.temperature, products }
    }

    /// How parameters are moved.
    pub fn optimiser(&self) -> OptimiserRules {
        let recipe = &self.optimiser;
        let muon = recipe.muon.as_ref().map(|muon| MuonRule {
            muon: Muon { momentum: muon.momentum, iterations: muon.iterations },
            learning_rate: muon.learning_rate,
            weight_decay: muon.weight_decay,
        });
        let group = |(prefix, factor): (&String, &f64)| GroupRule { prefix: prefix.clone(), factor: *factor };
        OptimiserRules {
            adamw: AdamW { beta1: recipe.beta1, beta2: recipe.beta2, eps: recipe.eps },
            learning_rate: recipe.learning_rate,
            weight_decay: recipe.weight_decay,
            muon,
            groups: recipe.factors.iter().map(group).collect(),
        }
    }
}

impl OptimiserRecipe {
    fn check(&self) -> Result<()> {
        within("optimiser.learning_rate", self.learning_rate, 0.0, 10.0)?;
        within("optimiser.weight_decay", self.weight_decay, 0.0, 10.0)?;
        within("optimiser.beta1", self.beta1, 0.0, 0.999_999)?;
        within("optimiser.beta2", self.beta2, 0.0, 0.999_999_9)?;
        within("optimiser.eps", self.eps, 0.0, 1.0)?;
        within("optimiser.clip", self.clip, 0.0, 1e9)?;
        within("optimiser.warm_up", self.warm_up, 0.0, 1e9)?;
        within("optimiser.floor", self.floor, 0.0, 1.0)?;
        for (prefix, factor) in &self.factors {
            within(&format!("optimiser.factors.{prefix:?}"), *factor, 0.0, 1e6)?;
        }
        let Some(muon) = &self.muon else { return Ok(()) };
        within("optimiser.muon.learning_rate", muon.learning_rate, 0.0, 10.0)?;
        within("optimiser.muon.weight_decay", muon.weight_decay, 0.0, 10.0)?;
        within("optimiser.muon.momentum", muon.momentum, 0.0, 0.999_999)?;
        within("optimiser.muon.iterations", muon.iterations as f64, 1.0, 100.0)
    }
}

impl RunRecipe {
    fn check(&self) -> Result<()> {
        let count = |field: &str, value: u64| within(&format!("run.{field}"), value as f64, 1.0, 1e12);
        count("epochs", self.epochs)?;
        self.steps.map_or(Ok(()), |steps| count("steps", steps))?;
        count("accumulate", self.accumulate as u64)?;
        count("save_every", self.save_every)?;
        within("run.average", self.average, 0.0, 0.999_999)?;
        self.patches.map_or(Ok(()), |patches| {
            within("run.patches.most", patches.most, 1e-6, 1.0)?;
            within("run.patches.least", patches.least, 1e-6, patches.most)?;
            within("run.patches.until", patches.until, 0.0, 1.0)
        })
    }
}

fn within(field: &str, value: f64, least: f64, most: f64) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::Invalid(format!("{field} is {value}, expected {least} to {most}")))
}
