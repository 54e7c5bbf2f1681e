//! From a recipe to a run: model, data, loss and rules put together, with everything that depends on several of them.

use candle_core::Device;
use crossmodal_models::LoadOptions;

use crate::batch::BatchSource;
use crate::data::{DataSet, Inputs, Loader, Part};
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::measure::Measure;
use crate::model::{Model, Products, Start};
use crate::optimiser::Schedule;
use crate::recipe::Recipe;
use crate::teacher::TeacherModel;
use crate::trainer::{Parts, TrainerRules, Validate};

/// The device of this name: `cpu`, `cuda:N`, or `auto` for the first GPU where the program was built for one and there is one, else the processor.
///
/// # Errors
/// Another name, or a GPU that isn't there or that the program wasn't built for.
pub fn device(name: &str) -> Result<Device> {
    use crossmodal_models::Device;
    let expected = |_| Error::Invalid(format!("device {name:?}, expected auto, cpu or cuda:N"));
    let device = if name == "auto" { Device::best() } else { name.parse::<Device>().map_err(expected)? };
    Ok(device.open()?)
}

/// Puts together what a recipe asks for.
///
/// # Errors
/// A recipe whose parts don't fit together, and whatever can't be read.
pub fn assemble(recipe: &Recipe, options: &LoadOptions) -> Result<Parts> {
    recipe.check()?;
    // What is wrong with the data is told before a model is downloaded.
    let (training, held_out) = data(recipe)?;
    let loss = recipe.loss()?;
    let needs = loss.needs();
    let device = device(&recipe.run.device)?;
    if recipe.run.products == Products::Bf16 && device.is_cpu() {
        return Err(Error::Invalid(
            "run.products: bf16 is for graphics processors, but this run is on a processor; expected f32".into(),
        ));
    }
    let mut model = Model::open(&start(recipe)?, &recipe.selection(), options, &device)?;
    if needs.bias {
        model.add_bias()?;
    }
    if needs.concepts {
        let count = training.concepts().len();
        if count == 0 {
            let name = training.name();
            return Err(Error::Invalid(format!(
                "{name}: names no concepts, but the loss `concepts` needs them; expected a column `concept`"
            )));
        }
        model.add_concepts(count, recipe.run.seed)?;
    }
    if let Some(scale) = recipe.model.logit_scale {
        model.set_logit_scale(scale)?;
    }
    let teacher = match (&recipe.model.teacher, needs.teacher) {
        (Some(name), true) => Some(TeacherModel::load(name, options, &model)?),
        (Some(name), false) => {
            return Err(Error::Invalid(format!("model.teacher {name:?}: none of the losses learns from a teacher")));
        }
        (None, true) => {
            return Err(Error::Invalid(format!("model.teacher: is missing, loss {} needs one", loss.name())));
        }
        (None, false) => None,
    };
    let mut batches = recipe.data.batches.clone();
    batches.hard_negatives |= needs.negatives;
    let inputs = Inputs::of(model.clip().model());
    let source = Loader::new(&training, inputs, &batches)?;
    let rules = rules(recipe, source.batches_per_epoch())?;
    let mut text = serde_json::to_value(recipe).map_err(|error| Error::Invalid(format!("recipe: {error}")))?;
    // A run may be moved to another folder and another machine.
    if let Some(run) = text["run"].as_object_mut() {
        run.retain(|field, _| !["output", "device"].contains(&field.as_str()));
    }
    text["data"]["fingerprint"] = training.fingerprint().into();
    let validation = held_out.map(|data| Box::new(Measure::new(data, options.clone())) as Box<dyn Validate>);
    Ok(Parts {
        model,
        loss,
        optimiser: recipe.optimiser(),
        rules,
        source: Box::new(source),
        validation,
        teacher,
        recipe: format!("{text:#}"),
    })
}

fn start(recipe: &Recipe) -> Result<Start> {
    match (&recipe.model.from, &recipe.model.architecture) {
        (Some(name), None) => Ok(Start::Checkpoint(name.clone())),
        (None, Some(folder)) => Ok(Start::Architecture { folder: folder.into(), seed: recipe.run.seed }),
        _ => Err(Error::Invalid("expected either model.from or model.architecture".into())),
    }
}

/// What is learned from, and what is measured by.
fn data(recipe: &Recipe) -> Result<(DataSet, Option<DataSet>)> {
    let recipe = &recipe.data;
    let all = DataSet::open(&recipe.path, &recipe.columns)?;
    if let Some(path) = &recipe.validation {
        let columns = recipe.validation_columns.as_ref().unwrap_or(&recipe.columns);
        return Ok((all, Some(DataSet::open(path, columns)?)));
    }
    if recipe.split.share == 0.0 {
        return Ok((all, None));
    }
    let part = |part| {
        let explained =
            |error: Error| Error::Invalid(format!("{error}; a larger data.split.share holds out more, 0 nothing"));
        all.part(part, &recipe.split).map_err(explained)
    };
    Ok((part(Part::Train)?, Some(part(Part::Validation)?)))
}

fn rules(recipe: &Recipe, batches_per_epoch: Option<u64>) -> Result<TrainerRules> {
    let run = &recipe.run;
    let per_pass = batches_per_epoch.map(|batches| (batches / run.accumulate as u64).max(1));
    let steps = match (run.steps, per_pass) {
        (Some(steps), _) => steps,
        (None, Some(steps)) => steps * run.epochs,
        (None, None) => {
            let data = &recipe.data.path;
            return Err(Error::Invalid(format!(
                "{data}: the length of a pass isn't known beforehand; say how many steps"
            )));
        }
    };
    let optimiser = &recipe.optimiser;
    let warm_up = if optimiser.warm_up < 1.0 { optimiser.warm_up * steps as f64 } else { optimiser.warm_up };
    let validate_every = match run.validate_every {
        0 => per_pass,
        every => Some(every),
    };
    Ok(TrainerRules {
        steps,
        accumulate: run.accumulate,
        piece: (run.piece > 0).then_some(run.piece),
        clip: (optimiser.clip > 0.0).then_some(optimiser.clip),
        schedule: Schedule {
            warm_up: warm_up.round() as u64,
            counting: optimiser.counting,
            steps,
            decay: optimiser.decay,
            floor: optimiser.floor,
        },
        seed: run.seed,
        duplicates: run.duplicates,
        patches: run.patches,
        average: (run.average > 0.0).then_some(run.average),
        save_every: run.save_every,
        validate_every,
        patience: (run.patience > 0).then_some(run.patience),
        dtype: run.dtype,
    })
}
