//! `crossmodal bench`: how fast a model embeds on this machine.

use std::time::Duration;

use crossmodal_engine::{Modality, bench};

use crate::arguments::{BenchArguments, BenchModality};
use crate::failure::Outcome;
use crate::interrupt;
use crate::output::{Output, Style};
use crate::progress::Steps;
use crate::settings::Settings;
use crate::table::{Column, Table};

/// Runs the command.
pub fn run(arguments: &BenchArguments, settings: &Settings) -> anyhow::Result<Outcome> {
    let output = &settings.output;
    let model = settings.load(&arguments.name, &arguments.rules)?;
    let modality = |modality: &BenchModality| match modality {
        BenchModality::Image => Modality::Image,
        BenchModality::Text => Modality::Text,
    };
    let request = bench::Request {
        modalities: arguments.modality.iter().map(modality).collect(),
        batch_sizes: arguments.batch.iter().map(|size| *size as usize).collect(),
        text_tokens: arguments.tokens.iter().map(|tokens| *tokens as usize).collect(),
        time: Duration::from_secs(u64::from(arguments.seconds)),
    };
    let cancel = interrupt::impatient_token()?;
    let steps = Steps::new(output, "measuring");
    let report = bench::run(model.as_ref(), &request, &cancel, |done, all| steps.at(done, all));
    steps.finish();
    let report = match report {
        Err(error) if error.kind() == crossmodal_engine::ErrorKind::Cancelled => return Ok(Outcome::Interrupted),
        other => other?,
    };
    if output.json {
        output.document(&report)?;
    } else {
        show(&report, output)?;
    }
    Ok(Outcome::Fine)
}

fn show(report: &bench::Report, output: &Output) -> anyhow::Result<()> {
    let bench::Report { model, precision, threads, peak_gflops, memory_gb_per_second, results } = report;
    let threads = if *threads == 1 { "1 thread".to_string() } else { format!("{threads} threads") };
    output.line(&format!("{} in {precision}, {threads}", output.paint.style(Style::Bold, model)))?;
    output.line(&format!(
        "this machine: {peak_gflops:.0} GFLOP/s in fp32, {memory_gb_per_second:.0} GB/s from memory\n"
    ))?;
    let mut table = Table::new(vec![
        Column::left("modality"),
        Column::right("batch"),
        Column::right("tokens"),
        Column::right("items/s").style(Style::Green),
        Column::right("p50 ms"),
        Column::right("p95 ms"),
        Column::right("peak"),
    ])
    .indented(2);
    for result in results {
        table.row(vec![
            result.modality.clone(),
            result.batch.to_string(),
            result.tokens.map_or(String::new(), |tokens| tokens.to_string()),
            figure(result.items_per_second),
            figure(result.p50_ms),
            figure(result.p95_ms),
            format!("{:.0} %", result.share_of_peak * 100.0),
        ]);
    }
    output.write(&table.render(output.width, output.paint))
}

/// Three significant digits or so.
fn figure(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}
