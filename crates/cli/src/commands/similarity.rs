//! `crossmodal similarity`: how pictures and texts compare.

use crossmodal_engine::{Embedder, Input, ProbabilityRule, Similarity, files, read_input, similarity};
use serde::Serialize;

use crate::arguments::SimilarityArguments;
use crate::failure::{self, Outcome};
use crate::output::{Output, Style};
use crate::pictures;
use crate::settings::{ModelChoice, Settings};
use crate::table::{Column, Cut, Table, cut_to};

/// Columns of a text's heading at most.
const HEADING: usize = 18;

#[derive(Serialize)]
struct Answer<'a> {
    model: &'a str,
    texts: &'a [String],
    images: Vec<String>,
    cosines: &'a [Vec<f32>],
    logits: Option<&'a [Vec<f32>]>,
    probabilities: Option<&'a [Vec<f32>]>,
    rule: Option<&'static str>,
}

/// Runs the command.
pub fn run(arguments: &SimilarityArguments, choice: &ModelChoice, settings: &Settings) -> anyhow::Result<Outcome> {
    let output = &settings.output;
    let paths = pictures::expand(&arguments.paths, output)?;
    let model = settings.load(&choice.name(), &arguments.rules)?;
    let images = paths.iter().map(|path| read_input(path)).collect::<Result<Vec<_>, _>>()?;
    let texts: Vec<Input> = arguments.text.iter().map(Input::text).collect();
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    let compared = similarity(model.as_ref(), &images, &texts);
    let compared = compared.map_err(|error| {
        let named = names.iter().zip(&images).chain(arguments.text.iter().zip(&texts));
        culprit(model.as_ref(), named, error)
    })?;
    if output.json {
        output.document(&Answer {
            model: &model.info().name,
            texts: &arguments.text,
            images: paths.iter().map(|path| files::uri(path)).collect(),
            cosines: &compared.cosines,
            logits: compared.logits.as_deref(),
            probabilities: compared.probabilities.as_deref(),
            rule: compared.rule.map(rule_name),
        })?;
        return Ok(Outcome::Fine);
    }
    show(&compared, &names, &arguments.text, output)?;
    Ok(Outcome::Fine)
}

/// Finds the input that can't be read, since a comparison fails as a whole.
fn culprit<'a>(
    model: &dyn Embedder,
    named: impl Iterator<Item = (&'a String, &'a Input)>,
    error: crossmodal_engine::Error,
) -> anyhow::Error {
    for (name, input) in named {
        if let Err(cause) = model.prepare(input) {
            return anyhow::anyhow!(failure::about(name, cause.into()));
        }
    }
    error.into()
}

/// The rule's name in JSON.
pub fn rule_name(rule: ProbabilityRule) -> &'static str {
    match rule {
        ProbabilityRule::Softmax => "softmax",
        ProbabilityRule::Sigmoid => "sigmoid",
    }
}

fn show(compared: &Similarity, images: &[String], texts: &[String], output: &Output) -> anyhow::Result<()> {
    let heading = |text: &str| output.paint.style(Style::Bold, text);
    output.line(&heading("Cosines"))?;
    output.write(&matrix(&compared.cosines, images, texts, |value| format!("{value:.4}"), output))?;
    if let Some(probabilities) = &compared.probabilities {
        let meaning = match compared.rule {
            Some(ProbabilityRule::Sigmoid) => "Probabilities (each text on its own)",
            Some(ProbabilityRule::Softmax) | None => "Probabilities (over the texts, for each picture)",
        };
        output.line(&format!("\n{}", heading(meaning)))?;
        output.write(&matrix(probabilities, images, texts, |value| format!("{:.1} %", value * 100.0), output))?;
    }
    Ok(())
}

/// One row a picture, one column a text; on a terminal too narrow for that, one row a pair.
fn matrix(
    values: &[Vec<f32>],
    images: &[String],
    texts: &[String],
    shown: impl Fn(f32) -> String,
    output: &Output,
) -> String {
    let headings: Vec<String> = texts.iter().map(|text| cut_to(text, HEADING, Cut::End)).collect();
    let needed = 20 + headings.iter().map(|heading| heading.chars().count().max(8) + 2).sum::<usize>();
    if output.width.is_some_and(|width| needed > width) {
        let columns = vec![
            Column::right("").style(Style::Green),
            Column::left("").cut(Cut::End),
            Column::left("").cut(Cut::Middle),
        ];
        let mut table = Table::new(columns).indented(2);
        for (row, image) in values.iter().zip(images) {
            for (value, text) in row.iter().zip(texts) {
                table.row(vec![shown(*value), text.clone(), image.clone()]);
            }
        }
        return table.render(output.width, output.paint);
    }
    let mut columns = vec![Column::left("picture").cut(Cut::Middle)];
    columns.extend(headings.iter().map(|heading| Column::right(heading).style(Style::Green)));
    let mut table = Table::new(columns).indented(2);
    for (row, image) in values.iter().zip(images) {
        table.row(std::iter::once(image.clone()).chain(row.iter().map(|value| shown(*value))).collect());
    }
    table.render(output.width, output.paint)
}
