//! The training loop: batches in, steps, validations and saved states out, events along the way.

mod events;
mod folder;

use std::time::Instant;

use crossmodal_models::CancelToken;
use crossmodal_models::weights::WeightType;
use serde_json::json;

pub use events::{Event, StepReport, Summary, Validation};
pub use folder::RunFolder;

use crate::batch::{Batch, BatchSource};
use crate::checkpoint::{self, Best, Progress, Saved};
use crate::error::{Error, Result};
use crate::grad_cache::{View, gradients};
use crate::gradients::{Gradients, clip_factor};
use crate::log::{Journal, TensorBoard};
use crate::loss::{Duplicates, Loss, WeightedSum};
use crate::model::{Model, PatchDropping};
use crate::optimiser::{Average, Optimiser, OptimiserRules, Schedule};
use crate::report;
use crate::teacher::TeacherModel;

/// How a run goes.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainerRules {
    /// Steps in all.
    pub steps: u64,
    /// Batches whose gradients are averaged for one step.
    pub accumulate: usize,
    /// Samples that go through the towers at a time; `None` is the whole batch. See [`crate::grad_cache`].
    pub piece: Option<usize>,
    /// The greatest norm of all gradients together; `None` doesn't clip.
    pub clip: Option<f64>,
    /// How learning rates move.
    pub schedule: Schedule,
    /// The seed of everything random in the loop.
    pub seed: u64,
    /// What becomes of duplicates in a batch.
    pub duplicates: Duplicates,
    /// Patches that are left out of pictures.
    pub patches: Option<PatchDropping>,
    /// The decay of the running mean of parameters that is validated and saved as the model; `None` takes the last parameters.
    pub average: Option<f64>,
    /// Steps between saved states.
    pub save_every: u64,
    /// Steps between validations; `None` validates at the end only.
    pub validate_every: Option<u64>,
    /// Validations in a row without a better one after which training stops; `None` never stops early.
    pub patience: Option<u64>,
    /// The type that models are written in.
    pub dtype: WeightType,
}

/// Measures a model that was just written.
pub trait Validate: Send {
    /// Measures the model in this folder.
    ///
    /// # Errors
    /// Data or a model that can't be read, or a raised `cancel` token.
    fn validate(&mut self, model: &std::path::Path, cancel: &CancelToken) -> Result<Validation>;

    /// Example retrievals of the model in this folder, for the report.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    fn examples(&mut self, model: &std::path::Path, cancel: &CancelToken) -> Result<Vec<report::Example>> {
        let _ = (model, cancel);
        Ok(Vec::new())
    }
}

/// A run.
pub struct Trainer {
    model: Model,
    loss: WeightedSum,
    optimiser: Optimiser,
    average: Option<Average>,
    rules: TrainerRules,
    source: Box<dyn BatchSource>,
    validation: Option<Box<dyn Validate>>,
    teacher: Option<TeacherModel>,
    folder: RunFolder,
    /// What the run was asked for, in words that a continued run must repeat.
    recipe: String,
    progress: Progress,
    journal: Journal,
    board: TensorBoard,
    /// Samples a second, smoothed.
    rate: Option<f64>,
}

impl std::fmt::Debug for Trainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer")
            .field("folder", &self.folder)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

/// What a run is made of.
pub struct Parts {
    /// The model.
    pub model: Model,
    /// The loss.
    pub loss: WeightedSum,
    /// How parameters are moved.
    pub optimiser: OptimiserRules,
    /// How the run goes.
    pub rules: TrainerRules,
    /// Where batches come from.
    pub source: Box<dyn BatchSource>,
    /// What measures the model, if anything.
    pub validation: Option<Box<dyn Validate>>,
    /// The larger model of a distillation.
    pub teacher: Option<TeacherModel>,
    /// What the run was asked for; a continued run must be asked for the same.
    pub recipe: String,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("model", &self.model).field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Trainer {
    /// Begins a run in a folder, or continues the one that is there if `resume` says so.
    ///
    /// # Errors
    /// A loss that needs what the model or the run doesn't have; a folder that holds a run already, or none where one is to be continued, or one that was asked for
    /// something else.
    pub fn open(parts: Parts, folder: RunFolder, resume: bool) -> Result<Self> {
        let Parts { model, loss, optimiser, rules, mut source, validation, teacher, recipe } = parts;
        let needs = loss.needs();
        if needs.teacher && teacher.is_none() {
            return Err(Error::Invalid(format!("loss {}: needs a teacher, but none is given", loss.name())));
        }
        let mut optimiser = Optimiser::new(model.parameters(), &optimiser);
        let mut average = rules.average.map(|decay| Average::new(model.parameters(), decay)).transpose()?;
        let mut progress = Progress::default();
        let state = folder.state();
        match (state.exists(), resume) {
            (true, false) => {
                let place = folder.path().display();
                return Err(Error::Invalid(format!(
                    "{place}: holds a run already; --resume continues it, or give another folder"
                )));
            }
            // A run that was killed before its first state was saved begins again.
            (false, _) => {}
            (true, true) => {
                let saved = Saved::open(&state)?;
                same_recipe(&folder, &saved.recipe, &recipe)?;
                saved.restore(&mut optimiser, average.as_mut())?;
                progress = saved.progress;
                source.seek(progress.position)?;
            }
        }
        let journal = Journal::open(&folder.log(), progress.log_bytes)?;
        let board = TensorBoard::open(&folder.tensorboard()?, progress.tensorboard_bytes)?;
        Ok(Self {
            model,
            loss,
            optimiser,
            average,
            rules,
            source,
            validation,
            teacher,
            folder,
            recipe,
            progress,
            journal,
            board,
            rate: None,
        })
    }

    /// The model as it is.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Trains to the end, until `cancel` is raised, or until nothing gets better any more. Events are told to `hear`.
    ///
    /// # Errors
    /// Data that can't be read, files that can't be written, and [`Error::Diverged`].
    pub fn run(&mut self, cancel: &CancelToken, hear: &mut dyn FnMut(&Event)) -> Result<Summary> {
        // A step asks for the same large blocks of memory as the one before.
        crossmodal_nn::keep_freed_memory();
        let first = self.progress.step;
        self.journal
            .add(&json!({ "event": "start", "step": first, "steps": self.rules.steps, "loss": self.loss.name() }))?;
        hear(&Event::Started { step: first, steps: self.rules.steps, parameters: self.trained() });
        let mut cancelled = false;
        loop {
            if self.validation_is_due() {
                match self.validate(cancel, hear) {
                    Err(error) if error.is_cancelled() => {
                        cancelled = true;
                        break;
                    }
                    result => result?,
                }
            }
            if self.progress.step >= self.rules.steps || self.progress.finished {
                break;
            }
            if cancel.is_cancelled() {
                cancelled = true;
                break;
            }
            let start = Instant::now();
            let report = self.step(cancel, hear)?;
            self.progress.seconds += start.elapsed().as_secs_f64();
            hear(&Event::Step(report));
            if self.progress.step.is_multiple_of(self.rules.save_every) {
                self.save(hear)?;
            }
        }
        if !cancelled {
            self.progress.finished = true;
        }
        self.save(hear)?;
        self.finish(cancelled, cancel)
    }

    /// Whether the model is to be measured as it is now. A run that was killed before it was asks again.
    fn validation_is_due(&self) -> bool {
        let step = self.progress.step;
        let due = self.rules.validate_every.is_some_and(|every| step.is_multiple_of(every));
        let last = step == self.rules.steps;
        self.validation.is_some() && step > 0 && (due || last) && self.progress.validated != step
    }

    /// Number of values that are trained.
    fn trained(&self) -> u64 {
        self.model.parameters().iter().map(|parameter| parameter.var.elem_count() as u64).sum()
    }

    /// The next batch; a pass that ends is followed by another one.
    fn next_batch(&mut self) -> Result<Batch> {
        for _ in 0..2 {
            if let Some(batch) = self.source.next_batch()? {
                return Ok(batch);
            }
        }
        Err(Error::Invalid(
            "the data gives no batch in a whole pass: fewer readable samples than the batch size".into(),
        ))
    }

    fn step(&mut self, cancel: &CancelToken, hear: &mut dyn FnMut(&Event)) -> Result<StepReport> {
        let start = Instant::now();
        let step = self.progress.step;
        let count = self.rules.accumulate.max(1);
        let mut sum = Gradients::empty(self.model.parameters().len());
        let (mut loss, mut accuracy, mut terms, mut samples) = (0.0, 0.0, Vec::new(), 0);
        let mut keys = Vec::new();
        for part in 0..count {
            let batch = self.next_batch()?;
            self.tell_skipped(&batch, hear)?;
            let number = step * count as u64 + part as u64;
            let outcome = self.outcome(&batch, number, cancel)?;
            samples += batch.left.len() as u64;
            keys.extend(batch.keys);
            if !outcome.loss.is_finite() {
                return Err(self.diverged("the loss", outcome.loss, keys));
            }
            loss += outcome.loss / count as f64;
            accuracy += outcome.accuracy / count as f64;
            add_terms(&mut terms, &outcome.terms, count);
            sum.add(&outcome.gradients, 1.0 / count as f64)?;
        }
        let norm = sum.norm()?;
        if !norm.is_finite() {
            return Err(self.diverged("the norm of the gradients", norm, keys));
        }
        let factor = self.rules.schedule.factor(step);
        self.optimiser.step(&sum, clip_factor(norm, self.rules.clip), factor)?;
        self.model.clamp_logit_scale()?;
        self.progress.step += 1;
        if let Some(average) = &mut self.average {
            average.update(self.model.parameters(), self.progress.step)?;
        }
        self.progress.samples += samples;
        self.progress.position = self.source.position();
        let rate = samples as f64 / start.elapsed().as_secs_f64().max(1e-9);
        let rate = *self.rate.insert(self.rate.map_or(rate, |old| 0.9 * old + 0.1 * rate));
        let left = (self.rules.steps - self.progress.step) as f64 * samples as f64 / rate;
        let report = StepReport {
            step: self.progress.step,
            steps: self.rules.steps,
            epoch: self.progress.position.epoch,
            loss,
            terms,
            accuracy,
            learning_rate_factor: factor,
            gradient_norm: norm,
            logit_scale: self.model.logit_scale()?,
            samples: self.progress.samples,
            samples_per_second: rate,
            seconds_left: left,
            skipped: self.progress.skipped,
        };
        self.journal.add(&report.entry())?;
        self.board.add(report.step, &report.scalars())?;
        Ok(report)
    }

    /// Loss and gradients of a batch, the run's `number`th.
    fn outcome(&self, batch: &Batch, number: u64, cancel: &CancelToken) -> Result<crate::grad_cache::Outcome> {
        let device = self.model.clip().device();
        let teacher = self.teacher.as_ref().filter(|_| self.loss.needs().teacher);
        let teacher = teacher.map(|teacher| teacher.look(batch, device, cancel)).transpose()?;
        let steps = self.rules.steps * self.rules.accumulate.max(1) as u64;
        let (samples, patches) = (batch.left.len(), self.model.clip().patches());
        let kept = self.rules.patches.and_then(|rule| rule.kept(self.rules.seed, number, steps, samples, patches));
        let view = View {
            kept: kept.as_deref(),
            duplicates: self.rules.duplicates,
            piece: self.rules.piece,
            teacher: teacher.as_ref(),
        };
        gradients(&self.model, batch, &self.loss, &view)
    }

    fn tell_skipped(&mut self, batch: &Batch, hear: &mut dyn FnMut(&Event)) -> Result<()> {
        for (key, reason) in &batch.skipped {
            self.progress.skipped += 1;
            self.journal.add(&json!({ "event": "skipped", "key": key, "reason": reason }))?;
            hear(&Event::Skipped { key: key.clone(), reason: reason.clone() });
        }
        Ok(())
    }

    /// The error about a batch that led astray. What the log holds of it stays, whatever becomes of the run.
    fn diverged(&mut self, what: &'static str, value: f64, keys: Vec<String>) -> Error {
        let step = self.progress.step;
        let entry =
            json!({ "event": "diverged", "step": step, "what": what, "value": value.to_string(), "keys": keys });
        match self.journal.add(&entry) {
            Ok(()) => Error::Diverged { step, what, value, keys },
            Err(error) => error,
        }
    }

    fn validate(&mut self, cancel: &CancelToken, hear: &mut dyn FnMut(&Event)) -> Result<()> {
        let Some(validation) = &mut self.validation else { return Ok(()) };
        let last = self.folder.last();
        self.model.save(&last, self.rules.dtype, self.average.as_ref())?;
        let found = validation.validate(&last, cancel)?;
        let step = self.progress.step;
        let better = self.progress.best.is_none_or(|best| found.score > best.score);
        if better {
            self.progress.best = Some(Best { score: found.score, step });
            self.progress.validations_since_best = 0;
            self.model.save(&self.folder.best(), self.rules.dtype, self.average.as_ref())?;
        } else {
            self.progress.validations_since_best += 1;
        }
        self.progress.finished = self.rules.patience.is_some_and(|most| self.progress.validations_since_best >= most);
        self.progress.validated = step;
        self.journal.add(&found.entry(step, better))?;
        self.board.add(step, &found.scalars())?;
        hear(&Event::Validated { step, validation: found, best: better });
        Ok(())
    }

    /// Writes the model and then the state, which says up to where the logs belong to it.
    fn save(&mut self, hear: &mut dyn FnMut(&Event)) -> Result<()> {
        self.model.save(&self.folder.last(), self.rules.dtype, self.average.as_ref())?;
        self.progress.log_bytes = self.journal.sync()?;
        self.progress.tensorboard_bytes = self.board.sync()?;
        checkpoint::save(&self.folder.state(), &self.recipe, &self.progress, &self.optimiser, self.average.as_ref())?;
        hear(&Event::Saved { step: self.progress.step });
        Ok(())
    }

    fn finish(&mut self, cancelled: bool, cancel: &CancelToken) -> Result<Summary> {
        let best = self.progress.best;
        let model = if best.is_some() { self.folder.best() } else { self.folder.last() };
        let examples = match &mut self.validation {
            Some(validation) if !cancelled => validation.examples(&model, cancel)?,
            _ => Vec::new(),
        };
        report::write(&self.folder, &examples)?;
        Ok(Summary {
            step: self.progress.step,
            steps: self.rules.steps,
            samples: self.progress.samples,
            skipped: self.progress.skipped,
            seconds: self.progress.seconds,
            best,
            cancelled,
            stopped_early: !cancelled && self.progress.step < self.rules.steps,
            model,
            report: self.folder.report(),
        })
    }
}

/// Adds the terms of one of `count` batches to their means.
fn add_terms(means: &mut Vec<(&'static str, f64)>, terms: &[(&'static str, f64)], count: usize) {
    if means.is_empty() {
        means.extend(terms.iter().map(|(name, _)| (*name, 0.0)));
    }
    means.iter_mut().zip(terms).for_each(|(mean, term)| mean.1 += term.1 / count as f64);
}

fn same_recipe(folder: &RunFolder, saved: &str, given: &str) -> Result<()> {
    if saved == given {
        return Ok(());
    }
    let (mut old, mut new) = (saved.lines(), given.lines());
    let (old, new) = loop {
        match (old.next(), new.next()) {
            (Some(old), Some(new)) if old == new => {}
            (old, new) => break (old.unwrap_or("nothing"), new.unwrap_or("nothing")),
        }
    };
    let place = folder.path().display();
    Err(Error::Invalid(format!(
        "{place}: the run there was begun with `{old}`, now it is `{new}`; a run is continued with what it was begun with"
    )))
}
