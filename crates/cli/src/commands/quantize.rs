//! `crossmodal quantize`: a smaller copy of a model, and how close it comes to the original.

use std::path::Path;
use std::time::Instant;

use crossmodal_engine::accuracy::{self, Agreement, Report, Retrieval, Samples};
use crossmodal_engine::metadata::Metadata;
use crossmodal_engine::quantize::{QuantizeOptions, QuantizeReport, quantize};
use crossmodal_engine::{CancelToken, Embedder, Error, Precision};
use serde_json::{Value, json};

use crate::arguments::{ModelRules, Precision as PrecisionRule, QuantizeArguments};
use crate::failure::Outcome;
use crate::output::{Output, Style};
use crate::progress::{Download, Steps};
use crate::settings::Settings;
use crate::table::{Column, Table};
use crate::{interrupt, quantities};

/// Left-out pictures that are listed in text.
const LISTED: usize = 10;

/// Runs the command.
pub fn run(arguments: &QuantizeArguments, settings: &Settings) -> anyhow::Result<Outcome> {
    let output = &settings.output;
    let cancel = interrupt::token()?;
    // What is wrong with the samples is told before the work begins.
    let samples = arguments.check.then(|| samples(arguments)).transpose()?;
    let only_check = arguments.check && !arguments.force && arguments.out.is_dir();
    let mut document = json!({ "model": arguments.model, "folder": arguments.out.display().to_string(), "copy": null });
    if !only_check {
        let start = Instant::now();
        let report = write(arguments, settings, &cancel)?;
        let seconds = start.elapsed().as_secs_f64();
        if !output.json {
            tell_copy(&report, seconds, output)?;
        }
        document["copy"] = json!({
            "weights_id": report.weights_id, "source_bytes": report.source_bytes, "fp32_bytes": report.fp32_bytes,
            "bytes": report.bytes, "quantised": report.quantised, "kept": report.kept, "seconds": seconds,
        });
    }
    let accuracy = samples.map(|samples| check(arguments, settings, samples, only_check, &cancel)).transpose()?;
    if output.json {
        document["accuracy"] = accuracy.as_ref().map_or(Ok(Value::Null), with_verdict)?;
        output.document(&document)?;
    } else if let Some(report) = &accuracy {
        let of =
            arguments.samples.as_ref().map_or("the built-in gallery".into(), |folder| folder.display().to_string());
        tell_accuracy(report, &of, output)?;
    }
    Ok(Outcome::Fine)
}

fn samples(arguments: &QuantizeArguments) -> anyhow::Result<Samples> {
    let Some(folder) = &arguments.samples else { return Ok(accuracy::gallery(&["en"])?) };
    let metadata = arguments.metadata.as_deref().map(Metadata::read).transpose()?;
    let samples = accuracy::folder(folder, metadata.as_ref(), arguments.caption.as_deref())?;
    if samples.samples.len() < 2 {
        let (place, found) = (folder.display(), samples.samples.len());
        anyhow::bail!("{place}: a check needs at least two pictures with captions, found {found}");
    }
    Ok(samples)
}

fn write(arguments: &QuantizeArguments, settings: &Settings, cancel: &CancelToken) -> anyhow::Result<QuantizeReport> {
    let download = Download::new(&settings.output);
    let load = settings.load_options(&ModelRules::default(), &download);
    let load = crossmodal_engine::LoadOptions { cancel: cancel.clone(), ..load };
    let steps = Steps::new(&settings.output, "quantising");
    let options = QuantizeOptions { force: arguments.force, load };
    let report = quantize(&arguments.model, &arguments.out, &options, |done, all| steps.at(done, all));
    steps.finish();
    download.finish();
    Ok(report.map_err(Error::from)?)
}

/// Compares the copy with its original in fp32. `found` says that the copy was there already, so that it may be anything.
fn check(
    arguments: &QuantizeArguments,
    settings: &Settings,
    samples: Samples,
    found: bool,
    cancel: &CancelToken,
) -> anyhow::Result<Report> {
    let place = arguments.out.display();
    let is_quantised = |model: &dyn Embedder| model.info().precision == Precision::Int8;
    if found && is_quantised(settings.load(&arguments.model, &ModelRules::default())?.as_ref()) {
        anyhow::bail!("{}: is quantised already; a check compares with the original", arguments.model);
    }
    let copy = load_folder(&arguments.out, settings)?;
    let rules = ModelRules { precision: Some(PrecisionRule::Fp32), ..ModelRules::default() };
    let original = settings.load(&arguments.model, &rules)?;
    if found {
        let is_copy = is_quantised(copy.as_ref())
            && copy.space().map_err(Error::from)? == original.space().map_err(Error::from)?;
        if !is_copy {
            anyhow::bail!("{place}: exists and is no quantised copy of {}", arguments.model);
        }
        settings.output.note(&format!("{place} is there already and is checked as it is; --force makes it anew"));
    }
    let steps = Steps::new(&settings.output, "comparing");
    let report = accuracy::compare(original.as_ref(), copy.as_ref(), samples, cancel, |done, all| steps.at(done, all));
    steps.finish();
    Ok(report?)
}

/// Loads a folder by a name that can't be taken for anything else.
fn load_folder(folder: &Path, settings: &Settings) -> anyhow::Result<std::sync::Arc<dyn Embedder>> {
    let absolute = std::path::absolute(folder)?;
    let name = absolute.to_str().ok_or_else(|| anyhow::anyhow!("{}: the path isn't UTF-8", folder.display()))?;
    settings.load(name, &ModelRules::default())
}

fn with_verdict(report: &Report) -> anyhow::Result<Value> {
    let mut document = serde_json::to_value(report)?;
    document["close"] = report.is_close().into();
    Ok(document)
}

fn tell_copy(report: &QuantizeReport, seconds: f64, output: &Output) -> anyhow::Result<()> {
    let QuantizeReport { model, folder, source_bytes, fp32_bytes, bytes, quantised, kept, .. } = report;
    let model = output.paint.style(Style::Bold, model);
    output.line(&format!("Quantised {model} into {} in {}", folder.display(), quantities::duration(seconds)))?;
    let mut table = Table::new(vec![Column::left("").style(Style::Dim), Column::left("")]).indented(2);
    let share = 100.0 * *bytes as f64 / (*fp32_bytes).max(1) as f64;
    let before = if source_bytes.abs_diff(*fp32_bytes) * 50 < *fp32_bytes {
        String::new()
    } else {
        format!(", the original file {}", quantities::bytes(*source_bytes))
    };
    let fp32 = quantities::bytes(*fp32_bytes);
    table.row(vec!["size".into(), format!("{}, {share:.0} % of {fp32} in fp32{before}", quantities::bytes(*bytes))]);
    table.row(vec!["tensors".into(), format!("{quantised} in int8, {kept} in fp32")]);
    output.write(&table.render(output.width, output.paint))?;
    output.note(&format!("use it: crossmodal index PICTURES --collection pictures.cm --model {}", folder.display()));
    Ok(())
}

fn tell_accuracy(report: &Report, samples: &str, output: &Output) -> anyhow::Result<()> {
    let (images, texts) = (report.images.inputs, report.texts.inputs);
    let counts = format!("{} and {}", quantities::counted(images, "picture"), quantities::counted(texts, "text"));
    output.line(&format!("Against {} in fp32, on {counts} of {samples}", report.reference.model))?;
    let mut table = Table::new(vec![
        Column::left("cosines"),
        Column::right("least"),
        Column::right("95 % reach"),
        Column::right("mean"),
    ])
    .indented(2);
    for (name, agreement) in [("pictures", report.images), ("texts", report.texts)] {
        let Agreement { least_cosine, p5_cosine, mean_cosine, .. } = agreement;
        let cosines = [least_cosine, p5_cosine, mean_cosine].map(|cosine| format!("{cosine:.4}"));
        table.row([vec![name.to_string()], cosines.to_vec()].concat());
    }
    output.write(&table.render(output.width, output.paint))?;
    let columns = [&report.reference.precision, &report.candidate.precision].map(|precision| Column::right(precision));
    let mut table = Table::new(
        [vec![Column::left("found")], columns.to_vec(), vec![Column::right("points").style(Style::Green)]].concat(),
    )
    .indented(2);
    let queries = [("pictures by text", report.text_to_image), ("texts by picture", report.image_to_text)];
    for (name, Retrieval { reference, candidate, .. }) in queries {
        for (k, before, after) in [(1, reference.at_1, candidate.at_1), (5, reference.at_5, candidate.at_5)] {
            let change = format!("{:+.1}", 100.0 * (after - before));
            let [before, after] = [before, after].map(|share| format!("{:.1} %", 100.0 * share));
            table.row(vec![format!("{name}, recall@{k}"), before, after, change]);
        }
    }
    output.write(&table.render(output.width, output.paint))?;
    for left in report.passed_over.iter().take(LISTED) {
        output.note(&format!("left out: {}", about(&left.name, &left.reason)));
    }
    if report.passed_over.len() > LISTED {
        output.note(&format!("and {} more left out", report.passed_over.len() - LISTED));
    }
    if report.is_close() {
        let verdict = "close to the original: every cosine at least 0.99, recall@1 within one point";
        output.line(&output.paint.style(Style::Green, verdict))
    } else {
        let verdict = "not close to the original: a cosine below 0.99, or recall@1 lost more than one point";
        output.line(&output.paint.style(Style::Yellow, verdict))
    }
}

/// A reason that names its subject once.
fn about(name: &str, reason: &str) -> String {
    if reason.contains(name) { reason.to_string() } else { format!("{name}: {reason}") }
}
