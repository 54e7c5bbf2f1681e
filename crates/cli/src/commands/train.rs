//! `crossmodal fine-tune` and `crossmodal train`.

use crossmodal_train::assemble::assemble;
use crossmodal_train::data::RightColumn;
use crossmodal_train::data::augment::Augmentation;
use crossmodal_train::model::{LowRank, Products, Tower};
use crossmodal_train::recipe::{LossName, LossRecipe, Recipe, TrainedRecipe};
use crossmodal_train::trainer::{Event, RunFolder, StepReport, Summary, Trainer};
use serde_json::{Value, json};

use crate::arguments::{FineTuneArguments, LossChoice, ModelRules, TowerChoice, TrainArguments, TrainedChoice};
use crate::failure::{Outcome, Usage};
use crate::output::{Output, Style};
use crate::progress::{Download, Training};
use crate::settings::{ModelChoice, Settings};
use crate::table::{Column, Table};
use crate::{interrupt, quantities};

/// Runs `fine-tune`.
pub fn fine_tune(arguments: &FineTuneArguments, choice: &ModelChoice, settings: &Settings) -> anyhow::Result<Outcome> {
    run(&recipe(arguments, choice.name()), arguments.resume, settings)
}

/// Runs `train`.
pub fn train(arguments: &TrainArguments, settings: &Settings) -> anyhow::Result<Outcome> {
    let mut recipe = Recipe::read(&arguments.recipe)?;
    if let Some(output) = &arguments.output {
        recipe.run.output = Some(output.to_string_lossy().into_owned());
    }
    if let Some(device) = &arguments.device {
        recipe.run.device.clone_from(device);
    }
    run(&recipe, arguments.resume, settings)
}

/// The recipe that options stand for.
fn recipe(arguments: &FineTuneArguments, model: String) -> Recipe {
    let mut recipe = Recipe::default();
    recipe.model.from = Some(model);
    recipe.model.teacher.clone_from(&arguments.teacher);
    recipe.model.lock = arguments.lock.map(|tower| match tower {
        TowerChoice::Image => Tower::Image,
        TowerChoice::Text => Tower::Text,
    });
    recipe.model.trained = match (arguments.lora, arguments.trained) {
        (Some(_), _) => TrainedRecipe::Lora,
        (None, TrainedChoice::All) => TrainedRecipe::All,
        (None, TrainedChoice::Projections) => TrainedRecipe::Projections,
    };
    if let Some(rank) = arguments.lora {
        let targets = arguments.lora_targets.clone();
        recipe.model.lora = LowRank { rank, alpha: 2.0 * rank as f64, targets, seed: arguments.seed };
    }
    let data = &mut recipe.data;
    data.path.clone_from(&arguments.data);
    data.columns.left.clone_from(&arguments.image_column);
    data.columns.right = arguments.caption_column.iter().map(RightColumn::named).collect();
    data.validation.clone_from(&arguments.validation);
    data.split.share = arguments.validation_share;
    data.batches.batch_size = arguments.batch_size;
    data.batches.templates.clone_from(&arguments.template);
    data.batches.augmentation = arguments.augment.then(Augmentation::mild);
    data.batches.seed = arguments.seed;
    recipe.loss = vec![LossRecipe::named(match arguments.loss {
        LossChoice::Infonce => LossName::Infonce,
        LossChoice::Siglip => LossName::Siglip,
        LossChoice::Crossclr => LossName::Crossclr,
        LossChoice::Cyclip => LossName::Cyclip,
        LossChoice::Negclip => LossName::Negclip,
        LossChoice::AffinityMimicking => LossName::AffinityMimicking,
        LossChoice::FeatureDistillation => LossName::FeatureDistillation,
        LossChoice::InteractiveDistillation => LossName::InteractiveDistillation,
    })];
    let usual_rate = match recipe.model.trained {
        TrainedRecipe::All => 1e-5,
        TrainedRecipe::Lora => 2e-4,
        TrainedRecipe::Projections => 1e-3,
    };
    recipe.optimiser.learning_rate = arguments.learning_rate.unwrap_or(usual_rate);
    recipe.optimiser.weight_decay = arguments.weight_decay;
    let run = &mut recipe.run;
    run.output = Some(arguments.output.to_string_lossy().into_owned());
    run.epochs = arguments.epochs as u64;
    run.steps = arguments.steps.map(|steps| steps as u64);
    run.accumulate = arguments.accumulate;
    run.piece = arguments.piece.unwrap_or(0);
    run.average = arguments.average;
    run.patience = arguments.patience;
    run.save_every = arguments.save_every as u64;
    run.seed = arguments.seed;
    run.device.clone_from(&arguments.device);
    run.products = if arguments.bf16 { Products::Bf16 } else { Products::F32 };
    recipe
}

fn run(recipe: &Recipe, resume: bool, settings: &Settings) -> anyhow::Result<Outcome> {
    let output = &settings.output;
    let Some(folder) = &recipe.run.output else {
        return Err(Usage("no folder for the run: give --output or run.output in the recipe".into()).into());
    };
    let cancel = interrupt::token()?;
    let download = Download::new(output);
    let mut options = settings.load_options(&ModelRules::default(), &download);
    options.cancel = cancel.clone();
    let parts = assemble(recipe, &options);
    download.finish();
    // The folder is made only when nothing else is wrong.
    let parts = match parts {
        Err(error) if error.is_cancelled() => {
            output.error("interrupted");
            return Ok(Outcome::Interrupted);
        }
        parts => parts?,
    };
    let mut trainer = Trainer::open(parts, RunFolder::open(folder.as_ref())?, resume)?;
    let display = Training::new(output);
    let mut failure = None;
    let summary = trainer.run(&cancel, &mut |event| {
        display.hear(event);
        if output.json && failure.is_none() {
            failure = output.record(&record(event)).err();
        }
    });
    display.finish();
    if let Some(failure) = failure {
        return Err(failure);
    }
    let summary = summary?;
    show(&summary, output)?;
    Ok(if summary.cancelled { Outcome::Interrupted } else { Outcome::Fine })
}

fn record(event: &Event) -> Value {
    match event {
        Event::Started { step, steps, parameters } => {
            json!({ "event": "started", "step": step, "steps": steps, "parameters": parameters })
        }
        Event::Step(StepReport { step, steps, epoch, loss, accuracy, samples_per_second, seconds_left, .. }) => json!({
            "event": "step", "step": step, "steps": steps, "epoch": epoch, "loss": loss, "accuracy": accuracy,
            "samples_per_second": samples_per_second, "seconds_left": seconds_left,
        }),
        Event::Skipped { key, reason } => json!({ "event": "skipped", "key": key, "reason": reason }),
        Event::Validated { step, validation, best } => {
            let metrics: serde_json::Map<String, Value> =
                validation.metrics.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
            json!({ "event": "validation", "step": step, "score": validation.score, "best": best, "metrics": metrics })
        }
        Event::Saved { step } => json!({ "event": "saved", "step": step }),
    }
}

fn show(summary: &Summary, output: &Output) -> anyhow::Result<()> {
    let Summary { step, steps, samples, skipped, seconds, best, cancelled, stopped_early, model, report } = summary;
    if output.json {
        let best = best.map(|best| json!({ "score": best.score, "step": best.step }));
        return output.record(&json!({
            "event": "finished", "model": model.display().to_string(), "step": step, "steps": steps, "samples": samples,
            "skipped": skipped, "seconds": seconds, "best": best, "cancelled": cancelled,
            "stopped_early": stopped_early, "report": report.display().to_string(),
        }));
    }
    let verb = if *cancelled { "Stopped after" } else { "Trained" };
    let (made, time) = (quantities::counted(*step as usize, "step"), quantities::duration(*seconds));
    let rate = quantities::rate(*samples as usize, *seconds);
    output.line(&output.paint.style(Style::Bold, &format!("{verb} {made} in {time} ({rate})")))?;
    let mut table = Table::new(vec![Column::left("").style(Style::Dim), Column::left("")]).indented(2);
    if let Some(best) = best {
        table.row(vec!["best".into(), format!("{:.1} % after step {}", 100.0 * best.score, best.step)]);
    }
    table.row(vec!["model".into(), model.display().to_string()]);
    table.row(vec!["report".into(), report.display().to_string()]);
    if *skipped > 0 {
        table.row(vec!["skipped".into(), quantities::counted(*skipped as usize, "sample")]);
    }
    output.write(&table.render(output.width, output.paint))?;
    if *cancelled {
        output.line("What was learned is kept; the same command with --resume goes on from there.")?;
    } else if *stopped_early {
        output.note("it stopped before the last step because no validation was better any more");
    }
    Ok(())
}
