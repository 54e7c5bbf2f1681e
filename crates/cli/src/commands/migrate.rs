//! `crossmodal collection migrate`: into the space of another model and back.

use crossmodal_engine::migrate::{self, Options, Report};
use crossmodal_engine::{Collection, files};
use serde_json::json;

use super::index::writing;
use crate::arguments::MigrateArguments;
use crate::failure::Outcome;
use crate::output::{Output, Style};
use crate::progress::Indexing;
use crate::settings::Settings;
use crate::table::one_line;
use crate::{interrupt, pictures, quantities};

/// Missing items that are listed in text.
const LISTED: usize = 20;

/// Runs the command.
pub fn run(arguments: &MigrateArguments, settings: &Settings) -> anyhow::Result<Outcome> {
    let output = &settings.output;
    let mode = writing(&arguments.wait).existing();
    let folder = arguments.which.path();
    if arguments.rollback {
        let (from, to) = migrate::roll_back(&Collection::open(&folder, &mode)?)?;
        if output.json {
            output.document(&json!({ "from": from, "to": to }))?;
        } else {
            output.line(&format!("searched with {to} again, no longer with {from}"))?;
        }
        return Ok(Outcome::Fine);
    }
    if arguments.finish {
        let dropped = migrate::finish(&Collection::open(&folder, &mode)?)?;
        if output.json {
            output.document(&json!({ "dropped_vectors": dropped }))?;
        } else {
            output.line(&format!("dropped {}", quantities::counted(dropped as usize, "vector")))?;
        }
        return Ok(Outcome::Fine);
    }
    let name = arguments.model.model.clone().unwrap_or_default();
    let model = settings.load(&name, &arguments.rules)?;
    let cancel = interrupt::token()?;
    let collection = Collection::open(&folder, &mode)?;
    let options = Options {
        batch_size: arguments.batch_size,
        threads: settings.threads,
        switch: !arguments.no_switch,
        allow_missing: arguments.allow_missing,
    };
    let display = Indexing::new(output);
    let report = migrate::run(&collection, &model, &options, &display.events(None), &cancel);
    display.finish();
    let report = report?;
    show(&report, &options, output)?;
    Ok(match &report {
        Report { cancelled: true, .. } => Outcome::Interrupted,
        Report { switched: false, .. } if options.switch => Outcome::Failed,
        Report { .. } => Outcome::Fine,
    })
}

fn show(report: &Report, options: &Options, output: &Output) -> anyhow::Result<()> {
    if output.json {
        let missing = report.missing.iter();
        return output.document(&json!({
            "from": report.from, "to": report.to, "items": report.items, "before": report.before,
            "embedded": report.embedded, "reused": report.reused,
            "missing": missing.map(|item| json!({ "path": files::uri(&item.path), "reason": item.reason })).collect::<Vec<_>>(),
            "overlap_at_10": report.overlap.map(|overlap| overlap.mean),
            "compared_items": report.overlap.map(|overlap| overlap.items),
            "switched": report.switched, "cancelled": report.cancelled,
        }));
    }
    let done = report.before as usize + report.embedded + report.reused;
    let heading = format!(
        "{} of {} are in the space of {}",
        quantities::count(done as u64),
        quantities::counted(report.items as usize, "item"),
        report.to
    );
    output.line(&output.paint.style(Style::Bold, &heading))?;
    for item in report.missing.iter().take(LISTED) {
        let path = one_line(&pictures::shown(&item.path));
        output.line(&format!("  {path}: {}", output.paint.style(Style::Dim, &one_line(&item.reason))))?;
    }
    if report.missing.len() > LISTED {
        output.line(&format!("  and {} more; --json lists all", report.missing.len() - LISTED))?;
    }
    if let Some(overlap) = report.overlap {
        let share = overlap.mean * 100.0;
        output.line(&format!(
            "  {share:.0} % of the ten nearest items are the same in both spaces (over {} items)",
            overlap.items
        ))?;
    }
    if report.cancelled {
        output.line("What was embedded is kept; the same command goes on from there.")?;
    } else if report.switched {
        output.line("Searches use the new space from now on. --rollback goes back, --finish drops the old vectors.")?;
    } else if options.switch {
        output.line("Not switched: searches would no longer find what is missing. Mend it and give the command again, or add --allow-missing.")?;
    } else {
        output.line("Not switched. The same command without --no-switch does.")?;
    }
    Ok(())
}
