//! `crossmodal collection optimize`: the index that makes searches fast.

use crossmodal_engine::{BuildControl, CancelToken, Collection, IndexChoice, IndexReport, IndexState};
use serde_json::json;

use super::index::writing;
use crate::arguments::{IndexKindOption, OptimizeArguments};
use crate::failure::Outcome;
use crate::output::{Output, Style};
use crate::progress::Steps;
use crate::settings::Settings;
use crate::table::one_line;
use crate::{interrupt, quantities};

/// Runs the command.
pub fn run(arguments: &OptimizeArguments, settings: &Settings) -> anyhow::Result<Outcome> {
    let output = &settings.output;
    let collection = Collection::open(&arguments.which.path(), &writing(&arguments.wait).existing())?;
    if let Some(kind) = arguments.kind {
        collection.choose_index(choice(kind))?;
    }
    let cancel = interrupt::token()?;
    let Some(report) = build(&collection, arguments.rebuild, settings, &cancel)? else {
        output.note("what was there before is still in place");
        return Ok(Outcome::Interrupted);
    };
    show(&report, output)?;
    Ok(Outcome::Fine)
}

/// Builds or extends the index with progress; `None` after an interruption.
pub fn build(
    collection: &Collection,
    rebuild: bool,
    settings: &Settings,
    cancel: &CancelToken,
) -> anyhow::Result<Option<IndexReport>> {
    let steps = Steps::new(&settings.output, "building the index");
    let control = BuildControl {
        threads: settings.threads,
        progress: &|done, all| steps.at(done as usize, all as usize),
        cancelled: &|| cancel.is_cancelled(),
    };
    let report = collection.build_index(rebuild, &control);
    steps.finish();
    match report {
        Err(error) if error.kind() == crossmodal_engine::ErrorKind::Cancelled => Ok(None),
        report => Ok(Some(report?)),
    }
}

fn choice(kind: IndexKindOption) -> IndexChoice {
    match kind {
        IndexKindOption::Auto => IndexChoice::Auto,
        IndexKindOption::Exact => IndexChoice::Exact,
        IndexKindOption::Flat => IndexChoice::Flat,
        IndexKindOption::Graph => IndexChoice::Graph,
        IndexKindOption::Ivf => IndexChoice::Ivf,
    }
}

fn show(report: &IndexReport, output: &Output) -> anyhow::Result<()> {
    if output.json {
        let info = match &report.state {
            IndexState::Present(info) => Some(info),
            IndexState::Missing | IndexState::Unusable { .. } => None,
        };
        return output.document(&json!({
            "choice": report.choice, "kind": info.map_or("exact", |info| info.kind.as_str()),
            "vectors": info.map(|info| info.rows), "added": report.added, "bytes": info.map(|info| info.bytes),
            "parameters": info.map(|info| &info.parameters), "effort": info.map(|info| info.default_effort),
            "seconds": report.seconds, "replaced": report.replaced,
        }));
    }
    if let Some(reason) = &report.replaced {
        output.note(&format!("the earlier index could not be used and was built again: {reason}"));
    }
    output.line(&format!("{} {}", output.paint.style(Style::Bold, "index:"), describe(&report.state)))?;
    if report.state == IndexState::Missing && report.choice == IndexChoice::Auto {
        output.line("  the vectors are so few that this is fast, and exact")?;
    }
    if report.added > 0 {
        let vectors = quantities::counted(report.added as usize, "vector");
        output.line(&format!("  {vectors} added in {}", quantities::duration(report.seconds)))?;
    }
    Ok(())
}

/// The index in words.
pub fn describe(state: &IndexState) -> String {
    match state {
        IndexState::Present(info) => format!(
            "{} over {}, {} ({})",
            info.kind,
            quantities::counted(info.rows as usize, "vector"),
            quantities::bytes(info.bytes),
            info.parameters
        ),
        IndexState::Missing => "none: every vector is compared".into(),
        IndexState::Unusable { reason } => {
            format!("unusable, `collection optimize` builds it again: {}", one_line(reason))
        }
    }
}
