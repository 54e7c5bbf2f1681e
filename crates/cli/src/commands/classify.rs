//! `crossmodal classify`: labels for pictures, without training.

use std::path::{Path, PathBuf};

use anyhow::Context;
use crossmodal_engine::classify::{Classifier, Prediction};
use crossmodal_engine::{Error, ErrorKind, embed_each, files, read_input};
use serde::Serialize;

use crate::arguments::ClassifyArguments;
use crate::failure::{self, Outcome};
use crate::output::{Output, Style};
use crate::settings::{MINI, ModelChoice, Settings};
use crate::table::{Column, Cut, Table};
use crate::{interrupt, pictures};

/// Labels shown in text unless said otherwise.
const SHOWN: usize = 5;

#[derive(Serialize)]
struct Line<'a> {
    path: String,
    labels: Vec<Label<'a>>,
}

#[derive(Serialize)]
struct Label<'a> {
    label: &'a str,
    probability: f32,
}

/// Runs the command.
pub fn run(arguments: &ClassifyArguments, choice: &ModelChoice, settings: &Settings) -> anyhow::Result<Outcome> {
    let output = &settings.output;
    let labels = match &arguments.labels_file {
        Some(path) => read_labels(path)?,
        None => arguments.labels.iter().map(|label| label.trim().to_string()).collect(),
    };
    let paths = pictures::expand(&arguments.paths, output)?;
    let model = settings.load(&choice.name(), &arguments.rules)?;
    let templates = match arguments.template.as_slice() {
        [] if model.info().name == MINI => Vec::new(),
        [] => vec!["a photo of a {}".to_string()],
        given => given.to_vec(),
    };
    let classifier = Classifier::new(model.as_ref(), &labels, &templates)?;
    let cancel = interrupt::impatient_token()?;
    let (mut failed, mut broken) = (0, None);
    let inputs = paths.iter().map(|path| read_input(path));
    let ended = embed_each(model.as_ref(), inputs, arguments.batch_size, &cancel, |place, result| {
        let path = &paths[place];
        let told = match result {
            Ok(embedding) => show(path, &classifier.classify(&embedding), arguments.top, output),
            Err(error) => {
                failed += 1;
                output.error(&failure::about(&path.display().to_string(), error));
                Ok(())
            }
        };
        told.map_err(|error| {
            broken = Some(error);
            Error::Invalid("stopped".into())
        })
    });
    match (broken, ended) {
        (Some(broken), _) => Err(broken),
        (None, Err(error)) if error.kind() == ErrorKind::Cancelled => Ok(Outcome::Interrupted),
        (None, Err(error)) => Err(error.into()),
        (None, Ok(())) if failed > 0 => Ok(Outcome::Failed),
        (None, Ok(())) => Ok(Outcome::Fine),
    }
}

/// One label a line; empty lines don't count.
pub fn read_labels(path: &PathBuf) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_string).collect())
}

fn show(path: &Path, predictions: &[Prediction], top: Option<usize>, output: &Output) -> anyhow::Result<()> {
    if output.json {
        let most = top.unwrap_or(predictions.len());
        let labels = predictions.iter().take(most);
        let labels = labels.map(|found| Label { label: &found.label, probability: found.probability }).collect();
        return output.record(&Line { path: files::uri(path), labels });
    }
    output.line(&output.paint.style(Style::Bold, &crate::table::one_line(&path.display().to_string())))?;
    let columns = vec![Column::right("").style(Style::Green), Column::left("").cut(Cut::End)];
    let mut table = Table::new(columns).indented(2);
    for found in predictions.iter().take(top.unwrap_or(SHOWN)) {
        table.row(vec![format!("{:.1} %", found.probability * 100.0), found.label.clone()]);
    }
    output.write(&table.render(output.width, output.paint))
}
