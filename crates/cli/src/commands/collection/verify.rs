//! `collection verify`: everything checked against everything.

use serde_json::json;

use super::{condition, read};
use crate::arguments::VerifyArguments;
use crate::failure::Outcome;
use crate::output::{Output, Style};
use crate::quantities;
use crate::table::one_line;

/// Problems that are listed in text.
const LISTED: usize = 20;

/// Runs the command.
pub fn run(arguments: &VerifyArguments, output: &Output) -> anyhow::Result<Outcome> {
    let folder = arguments.which.path();
    let report = read(&folder)?.verify()?;
    if output.json {
        let problem = |problem: &crossmodal_engine::Problem| {
            json!({
                "kind": condition::snake_case(&format!("{:?}", problem.kind)), "file": problem.file.to_string_lossy(),
                "field": problem.field, "item": problem.item, "detail": problem.detail,
            })
        };
        output.document(&json!({
            "sound": report.is_clean(), "items": report.items, "vectors": report.vectors, "dead_vectors": report.dead_vectors,
            "problems": report.problems.iter().map(problem).collect::<Vec<_>>(), "affected_items": report.affected_items(),
        }))?;
    } else {
        let checked = format!(
            "{} and {} checked",
            quantities::counted(report.items as usize, "item"),
            quantities::counted((report.vectors + report.dead_vectors) as usize, "vector")
        );
        if report.is_clean() {
            output.line(&format!("{} {checked}", output.paint.style(Style::Green, "sound:")))?;
        } else {
            let problems = quantities::counted(report.problems.len(), "problem");
            output.line(&format!("{} {checked}", output.paint.style(Style::Red, &format!("{problems}:"))))?;
        }
        for problem in report.problems.iter().take(LISTED) {
            // Some details name the file themselves.
            let file = problem.file.display().to_string();
            let subject = if problem.detail.contains(&file) { String::new() } else { format!("{file}: ") };
            let item = problem.item.as_deref().map_or_else(String::new, |item| format!(" (item {item})"));
            output.line(&format!("  {subject}{}{}", one_line(&problem.detail), one_line(&item)))?;
        }
        if report.problems.len() > LISTED {
            output.line(&format!("  and {} more; --json lists all", report.problems.len() - LISTED))?;
        }
        if !report.is_clean() && !report.affected_items().is_empty() {
            output.line("`crossmodal index --repair` over the same files restores them.")?;
        }
    }
    Ok(if report.is_clean() { Outcome::Fine } else { Outcome::Failed })
}
