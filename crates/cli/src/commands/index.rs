//! `crossmodal index`: pictures into a collection.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossmodal_engine::ingest::{self, Report, Request};
use crossmodal_engine::metadata::Metadata;
use crossmodal_engine::upkeep::IndexKeeper;
use crossmodal_engine::{Collection, Mode, files};
use serde::Serialize;

use crate::arguments::{IndexArguments, WaitOption};
use crate::failure::Outcome;
use crate::output::{Output, Style};
use crate::progress::Indexing;
use crate::settings::{MINI, ModelChoice, Settings, model_of};
use crate::table::{Column, Table};
use crate::{interrupt, pictures, quantities};

/// Skipped files that are listed in text.
const LISTED: usize = 20;

#[derive(Serialize)]
struct Summary<'a> {
    collection: String,
    model: &'a str,
    total: usize,
    embedded: usize,
    reused: usize,
    unchanged: usize,
    skipped: Vec<SkippedFile<'a>>,
    pruned: usize,
    others: usize,
    unread: &'a std::collections::BTreeMap<String, usize>,
    unmatched_metadata: &'a [String],
    seconds: f64,
    items_per_second: f64,
    cancelled: bool,
}

#[derive(Serialize)]
struct SkippedFile<'a> {
    path: String,
    reason: &'a str,
}

/// Runs the command.
pub fn run(arguments: &IndexArguments, choice: &ModelChoice, settings: &Settings) -> anyhow::Result<Outcome> {
    let output = &settings.output;
    for path in &arguments.paths {
        if !path.exists() && path.symlink_metadata().is_err() {
            anyhow::bail!("{}: no such file or folder", path.display());
        }
    }
    // All that can fail does so before the collection is made.
    let metadata = arguments.metadata.as_deref().map(Metadata::read).transpose()?.unwrap_or_default();
    let own = model_of(&arguments.collection)?;
    let is_default = choice.is_open() && own.is_none();
    let name = choice.within(own);
    let model = settings.load(&name, &arguments.rules)?;
    if is_default && name == MINI {
        output.note(
            "using mini, the built-in model: it knows emoji-like drawings, not photographs. \
             For those: --model openai/clip-vit-base-patch32",
        );
    }
    let request = Request {
        paths: arguments.paths.clone(),
        metadata,
        batch_size: arguments.batch_size,
        threads: settings.threads,
        prune: arguments.prune,
    };
    let cancel = interrupt::token()?;
    let mode = writing(&arguments.wait);
    let mode = if arguments.repair { mode.repairing() } else { mode };
    let collection = Arc::new(Collection::open(&arguments.collection, &mode)?);
    let repaired = collection.repaired_items().len();
    if repaired > 0 {
        output.note(&format!("{} lost vectors and will be embedded again", quantities::counted(repaired, "item")));
    }
    let display = Indexing::new(output);
    // A long run is searched while it goes on.
    let keeper = IndexKeeper::start(collection.clone())?;
    let report = ingest::run(&collection, &model, &request, &display.events(Some(keeper.watch())), &cancel);
    let kept = keeper.stop();
    display.finish();
    let report = report?;
    if let Some(reason) = kept.failure {
        output.note(&format!("the index could not be kept up to the collection: {reason}"));
    }
    // The vectors are safe already: what is interrupted here costs speed only.
    if !report.cancelled && report.progress.written > 0 && collection.index_is_due()? {
        let built = super::optimize::build(&collection, false, settings, &cancel)?;
        if let Some(reason) = built.and_then(|report| report.replaced) {
            output.note(&format!("the earlier index could not be used and was built again: {reason}"));
        }
    }
    show(&report, &arguments.collection, &model.info().name, output)?;
    Ok(match &report {
        Report { cancelled: true, .. } => Outcome::Interrupted,
        Report { skipped, .. } if arguments.strict && !skipped.is_empty() => Outcome::Incomplete,
        Report { .. } => Outcome::Fine,
    })
}

/// How a collection is opened to be written.
pub fn writing(wait: &WaitOption) -> Mode {
    wait.wait.map_or_else(Mode::write, |seconds| Mode::write_waiting(Duration::from_secs(seconds)))
}

fn show(report: &Report, collection: &Path, model: &str, output: &Output) -> anyhow::Result<()> {
    let progress = &report.progress;
    if output.json {
        let skipped = report.skipped.iter();
        return output.document(&Summary {
            collection: files::uri(collection),
            model,
            total: progress.total,
            embedded: progress.embedded,
            reused: progress.reused,
            unchanged: progress.unchanged,
            skipped: skipped.map(|file| SkippedFile { path: files::uri(&file.path), reason: &file.reason }).collect(),
            pruned: report.pruned,
            others: report.others,
            unread: &report.unread,
            unmatched_metadata: &report.unmatched_metadata,
            seconds: progress.seconds,
            items_per_second: quantities::per_second(progress.done, progress.seconds),
            cancelled: report.cancelled,
        });
    }
    let verb = if report.cancelled { "Stopped after" } else { "Indexed" };
    let amount = quantities::counted(progress.done - progress.skipped, "picture");
    let time = quantities::duration(progress.seconds);
    // A rate says something about embedding only.
    let rate = match progress.embedded {
        0 => String::new(),
        _ => format!(" ({})", quantities::rate(progress.done - progress.skipped, progress.seconds)),
    };
    let heading = output.paint.style(Style::Bold, &format!("{verb} {amount} in {time}{rate}"));
    output.line(&format!("{heading} into {} with {model}", collection.display()))?;
    output.write(&counts(report).render(output.width, output.paint))?;
    show_skipped(report, output)?;
    if let Some(first) = report.unmatched_metadata.first() {
        let rows = quantities::counted(report.unmatched_metadata.len(), "row");
        output.note(&format!("{rows} of the metadata name no picture that was found, the first is {first:?}"));
    }
    if !report.unread.is_empty() {
        let kinds: Vec<String> = report.unread.iter().map(|(ending, number)| format!(".{ending} {number}")).collect();
        output.note(&format!("pictures in formats that aren't read yet: {}", kinds.join(", ")));
    }
    if progress.total == 0 {
        output.note("no pictures found; JPEG, PNG, GIF, WebP, BMP and TIFF are read");
    }
    if report.cancelled {
        output.line(match progress.written {
            0 => "Nothing was finished yet.",
            _ => "What was embedded is kept; the same command goes on from there.",
        })?;
    }
    Ok(())
}

fn counts(report: &Report) -> Table {
    let progress = &report.progress;
    let columns = vec![Column::left(""), Column::right("").style(Style::Bold), Column::left("").style(Style::Dim)];
    let mut table = Table::new(columns).indented(2);
    let rows = [
        ("embedded", progress.embedded, ""),
        ("reused", progress.reused, "same content as another file: nothing to embed"),
        ("unchanged", progress.unchanged, "in the collection already"),
        ("skipped", report.skipped.len(), "couldn't be read or embedded"),
        ("pruned", report.pruned, "their files are gone"),
        ("passed over", report.others, "no pictures by their names"),
    ];
    for (name, number, meaning) in rows {
        if number > 0 || name == "embedded" {
            table.row(vec![name.into(), quantities::count(number as u64), meaning.into()]);
        }
    }
    table
}

fn show_skipped(report: &Report, output: &Output) -> anyhow::Result<()> {
    if report.skipped.is_empty() {
        return Ok(());
    }
    output.line(&output.paint.style(Style::Yellow, "Skipped:"))?;
    for file in report.skipped.iter().take(LISTED) {
        let path = crate::table::one_line(&pictures::shown(&file.path));
        let reason = crate::table::one_line(&file.reason);
        output.line(&format!("  {path}: {}", output.paint.style(Style::Dim, &reason)))?;
    }
    let rest = report.skipped.len().saturating_sub(LISTED);
    if rest > 0 {
        output.line(&format!("  and {} more; --json lists all", quantities::count(rest as u64)))?;
    }
    Ok(())
}
