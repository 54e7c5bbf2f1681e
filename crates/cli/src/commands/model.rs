//! `crossmodal model`: the known variants, what a model is, downloads, proof against reference data.

use crossmodal_engine::verify::{Stage, VerifyReport, verify};
use crossmodal_engine::{Error, load_clip, registry};
use serde_json::{Value, json};

use super::similarity::rule_name;
use crate::arguments::{GoldenArguments, ModelCommand, ModelNameArguments};
use crate::failure::Outcome;
use crate::output::{Output, Style};
use crate::progress::Download;
use crate::quantities;
use crate::settings::Settings;
use crate::table::{Column, Cut, Table};

/// Runs the command.
pub fn run(command: &ModelCommand, settings: &Settings) -> anyhow::Result<Outcome> {
    match command {
        ModelCommand::List => list(&settings.output),
        ModelCommand::Info(arguments) => info(arguments, settings),
        ModelCommand::Pull(arguments) => pull(arguments, settings),
        ModelCommand::Verify(arguments) => compare(arguments, settings),
    }
}

fn list(output: &Output) -> anyhow::Result<Outcome> {
    let variants = registry::all();
    if output.json {
        let with_name = |variant: &registry::Variant| -> serde_json::Result<Value> {
            let mut entry = json!({ "name": variant.full_name() });
            if let (Value::Object(entry), Value::Object(rest)) = (&mut entry, serde_json::to_value(variant)?) {
                entry.extend(rest);
            }
            Ok(entry)
        };
        let models = variants.iter().map(with_name).collect::<Result<Vec<_>, _>>()?;
        output.document(&json!({ "models": models }))?;
        return Ok(Outcome::Fine);
    }
    let columns = vec![
        Column::left("name").style(Style::Bold),
        Column::right("dim"),
        Column::right("pixels"),
        Column::right("params"),
        Column::right("size"),
        Column::right("ImageNet"),
        Column::left("licence").cut(Cut::End),
        Column::left("hub id").cut(Cut::Middle).style(Style::Dim),
    ];
    let mut table = Table::new(columns);
    for variant in variants.iter().filter(|variant| variant.supported) {
        table.row(vec![
            variant.full_name(),
            variant.embed_dim.to_string(),
            variant.image_size.to_string(),
            quantities::short_count(variant.parameters),
            match variant.approx_download_bytes {
                0 => "-".into(),
                bytes => quantities::bytes(bytes),
            },
            variant.imagenet_top1.map_or_else(|| "-".into(), |accuracy| format!("{accuracy:.1} %")),
            variant.licence.clone(),
            variant.hub_id.clone().unwrap_or_else(|| "built in".into()),
        ]);
    }
    output.write(&table.render(output.width, output.paint))?;
    let unsupported: Vec<String> =
        variants.iter().filter(|variant| !variant.supported).map(registry::Variant::full_name).collect();
    if !unsupported.is_empty() {
        output.note(&format!("known, but not supported by this version: {}", unsupported.join(", ")));
    }
    output.note(
        "ImageNet is published zero-shot top-1 accuracy; sizes are for 32-bit weights. Any other checkpoint of these \
        families works by its folder or hub id: crossmodal model pull owner/name",
    );
    Ok(Outcome::Fine)
}

fn info(arguments: &ModelNameArguments, settings: &Settings) -> anyhow::Result<Outcome> {
    let output = &settings.output;
    let model = settings.load(&arguments.name, &arguments.rules)?;
    let info = model.info();
    let space = model.space().map_err(Error::from)?;
    let rule = model.logit_rule().map_err(Error::from)?;
    if output.json {
        let mut document = serde_json::to_value(info)?;
        if let Value::Object(entries) = &mut document {
            entries.insert("space".into(), space.to_string().into());
            let logits = rule.map(
                |rule| json!({ "scale": rule.scale, "bias": rule.bias, "probability": rule_name(rule.probability) }),
            );
            entries.insert("logits".into(), logits.unwrap_or(Value::Null));
        }
        output.document(&document)?;
        return Ok(Outcome::Fine);
    }
    output.line(&output.paint.style(Style::Bold, &info.name))?;
    let mut table = Table::new(vec![Column::left("").style(Style::Dim), Column::left("")]).indented(2);
    let mut row = |name: &str, value: String| table.row(vec![name.into(), value]);
    row("family", format!("{}, {} layout", info.family, info.layout));
    for tower in &info.towers {
        let name = format!("{} tower", tower.modality);
        row(&name, format!("{} ({} parameters)", tower.architecture, quantities::count(tower.parameters)));
    }
    row(
        "parameters",
        format!("{}, in {} on {}", quantities::count(info.parameters), info.precision.as_str(), info.device),
    );
    row("dimension", quantities::count(info.dimension as u64));
    row("modalities", info.modalities.iter().map(|modality| modality.as_str()).collect::<Vec<_>>().join(", "));
    row("pictures", info.preprocessing.clone().unwrap_or_else(|| "none".into()));
    row("tokenizer", info.tokenizer.clone().unwrap_or_else(|| "none".into()));
    if let Some(rule) = rule {
        let bias = if rule.bias == 0.0 { String::new() } else { format!(" {:+.4}", rule.bias) };
        row("logits", format!("cosine x {:.4}{bias}, then {}", rule.scale, rule_name(rule.probability)));
    }
    row("space", space.to_string());
    row("licence", info.licence.clone().unwrap_or_else(|| "unknown: ask whoever made it".into()));
    row("location", info.location.clone());
    output.write(&table.render(output.width, output.paint))?;
    Ok(Outcome::Fine)
}

fn pull(arguments: &ModelNameArguments, settings: &Settings) -> anyhow::Result<Outcome> {
    let output = &settings.output;
    let download = Download::new(output);
    let loaded = crossmodal_engine::load(&arguments.name, &settings.load_options(&arguments.rules, &download));
    download.finish();
    let model = loaded.map_err(Error::from)?;
    let (info, bytes) = (model.info(), download.received());
    if output.json {
        let document = json!({ "name": info.name, "location": info.location, "downloaded_bytes": bytes });
        output.document(&document)?;
        return Ok(Outcome::Fine);
    }
    let what = match bytes {
        0 => "was here already".to_string(),
        bytes => format!("downloaded, {}", quantities::bytes(bytes)),
    };
    output.line(&format!("{}: {what}, at {}", output.paint.style(Style::Bold, &info.name), info.location))?;
    output.note(&format!("use it: crossmodal index PICTURES --collection pictures.cm --model {}", arguments.name));
    Ok(Outcome::Fine)
}

fn compare(arguments: &GoldenArguments, settings: &Settings) -> anyhow::Result<Outcome> {
    let output = &settings.output;
    let download = Download::new(output);
    let model = load_clip(&arguments.name, &settings.load_options(&arguments.rules, &download));
    download.finish();
    let report = verify(&model.map_err(Error::from)?, &arguments.golden).map_err(Error::from)?;
    if output.json {
        output.document(&report)?;
    } else {
        show(&report, output)?;
    }
    Ok(if report.passed { Outcome::Fine } else { Outcome::Failed })
}

fn show(report: &VerifyReport, output: &Output) -> anyhow::Result<()> {
    output.line(&format!("{} against {}", output.paint.style(Style::Bold, &report.model), report.reference))?;
    let columns = vec![
        Column::left("stage"),
        Column::right("items"),
        Column::right("max abs diff"),
        Column::right("cosine"),
        Column::right("tolerance"),
        Column::left("verdict").cut(Cut::End),
    ];
    let mut table = Table::new(columns).indented(2);
    for stage in &report.stages {
        table.row(vec![
            stage.stage.clone(),
            stage.items.to_string(),
            number(stage.max_abs_difference),
            stage.cosine.map_or_else(|| "-".into(), |cosine| format!("{cosine:.7}")),
            if stage.tolerance == 0.0 { "equal".into() } else { number(stage.tolerance) },
            verdict(stage),
        ]);
    }
    output.write(&table.render(output.width, output.paint))?;
    let out = report.stages.iter().filter(|stage| !stage.passed).count();
    let all = report.stages.len();
    if out == 0 && report.passed {
        output.line(&output.paint.style(Style::Green, &format!("all {all} stages within tolerance")))
    } else {
        output.line(&output.paint.style(Style::Red, &format!("{out} of {all} stages out of tolerance")))
    }
}

fn number(value: f64) -> String {
    if value == 0.0 { "0".into() } else { format!("{value:.2e}") }
}

fn verdict(stage: &Stage) -> String {
    let word = if stage.passed { "ok" } else { "OUT" };
    match &stage.note {
        Some(note) => format!("{word}: {note}"),
        None => word.into(),
    }
}
