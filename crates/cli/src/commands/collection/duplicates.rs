//! `collection duplicates`: items that are there several times.

use std::time::Instant;

use crossmodal_engine::duplicates::{self, Duplicate, DuplicateGroup, DuplicateReport, KeepReason};
use crossmodal_engine::files;
use serde_json::{Value, json};

use super::read;
use crate::arguments::DuplicatesArguments;
use crate::failure::Outcome;
use crate::output::{Output, Style};
use crate::table::{Column, Cut, Table};
use crate::{interrupt, pictures, quantities};

/// Runs the command.
pub fn run(arguments: &DuplicatesArguments, output: &Output) -> anyhow::Result<Outcome> {
    let cancel = interrupt::impatient_token()?;
    let collection = read(&arguments.which.path())?;
    let start = Instant::now();
    let report = duplicates::find(&collection, arguments.threshold, &cancel)?;
    let seconds = start.elapsed().as_secs_f64();
    if report.damaged > 0 {
        let damaged = quantities::counted(report.damaged as usize, "damaged vector");
        output.note(&format!("{damaged} left out; `crossmodal collection verify` names them"));
    }
    if output.json {
        output.document(&json!({
            "threshold": arguments.threshold, "items": report.items, "surplus": report.surplus(), "seconds": seconds,
            "groups": report.groups.iter().map(group).collect::<Vec<_>>(),
        }))?;
    } else {
        show(&report, arguments, seconds, output)?;
    }
    Ok(Outcome::Fine)
}

fn name(reason: KeepReason) -> &'static str {
    match reason {
        KeepReason::Resolution => "resolution",
        KeepReason::Size => "size",
        KeepReason::First => "first",
    }
}

fn group(group: &DuplicateGroup) -> Value {
    let item = |(place, duplicate): (usize, &Duplicate)| {
        let item = &duplicate.stored.item;
        json!({
            "key": duplicate.stored.key, "id": item.id, "path": files::uri(&pictures::path_of(item)),
            "size": item.source.as_ref().and_then(|source| source.size), "similarity": duplicate.similarity,
            "exact": duplicate.exact, "keep": place == 0,
        })
    };
    let items: Vec<Value> = group.items.iter().enumerate().map(item).collect();
    json!({ "size": items.len(), "reason": name(group.reason), "items": items })
}

fn show(
    report: &DuplicateReport,
    arguments: &DuplicatesArguments,
    seconds: f64,
    output: &Output,
) -> anyhow::Result<()> {
    let items = quantities::counted(report.items, "item");
    let time = quantities::duration(seconds);
    if report.groups.is_empty() {
        return output.line(&format!("no duplicates among {items} (compared in {time})"));
    }
    let groups = quantities::counted(report.groups.len(), "group");
    let heading = output.paint.style(Style::Bold, &format!("{groups} of duplicates"));
    let surplus = quantities::count(report.surplus() as u64);
    output.line(&format!("{heading} among {items}, {surplus} could go (compared in {time})"))?;
    let columns = vec![
        Column::left("").style(Style::Green),
        Column::right("cosine").style(Style::Dim),
        Column::right("size"),
        Column::left("path").cut(Cut::Middle),
    ];
    let mut table = Table::new(columns);
    let limit = if arguments.limit == 0 { usize::MAX } else { arguments.limit };
    for group in report.groups.iter().take(limit) {
        for (place, duplicate) in group.items.iter().enumerate() {
            let item = &duplicate.stored.item;
            let size = item.source.as_ref().and_then(|source| source.size).map(quantities::bytes);
            let keep = if place == 0 { format!("keep ({})", name(group.reason)) } else { String::new() };
            let similarity = if duplicate.exact { "same".into() } else { format!("{:.4}", duplicate.similarity) };
            let path = pictures::shown(&pictures::path_of(item));
            table.row(vec![keep, similarity, size.unwrap_or_default(), path]);
        }
    }
    output.write(&table.render(output.width, output.paint))?;
    if report.groups.len() > limit {
        output.note(&format!(
            "{} more groups: --limit 0 lists all",
            quantities::count((report.groups.len() - limit) as u64)
        ));
    }
    Ok(())
}
