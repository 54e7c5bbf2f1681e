//! `crossmodal collection`: looking after collections.

mod condition;

use std::path::Path;

use crossmodal_engine::{Collection, Filter, ListRequest, Mode};
use serde_json::{Value, json};

use super::index::writing;
use crate::arguments::{
    CollectionCommand, CompactArguments, InfoArguments, ListArguments, RemoveArguments, VerifyArguments,
};
use crate::failure::Outcome;
use crate::output::{Output, Style};
use crate::settings::Settings;
use crate::table::{Column, Cut, Table, one_line};
use crate::{pictures, quantities};

/// Problems that are listed in text.
const LISTED: usize = 20;

/// Runs the command.
pub fn run(command: &CollectionCommand, settings: &Settings) -> anyhow::Result<Outcome> {
    let output = &settings.output;
    match command {
        CollectionCommand::Info(arguments) => info(arguments, output),
        CollectionCommand::List(arguments) => list(arguments, output),
        CollectionCommand::Optimize(arguments) => super::optimize::run(arguments, settings),
        CollectionCommand::Migrate(arguments) => super::migrate::run(arguments, settings),
        CollectionCommand::Remove(arguments) => remove(arguments, output),
        CollectionCommand::Verify(arguments) => verify(arguments, output),
        CollectionCommand::Compact(arguments) => compact(arguments, output),
    }
}

fn read(folder: &Path) -> anyhow::Result<Collection> {
    Ok(Collection::open(folder, &Mode::read())?)
}

fn info(arguments: &InfoArguments, output: &Output) -> anyhow::Result<Outcome> {
    let collection = read(&arguments.which.path())?;
    let (info, model) = (collection.info()?, collection.model_name()?);
    if output.json {
        let field = |info: &crossmodal_engine::FieldInfo| {
            let field = &info.field;
            json!({
                "name": field.name, "model": field.space.model, "space": field.space.id, "dimension": field.dimension,
                "metric": format!("{:?}", field.metric).to_lowercase(), "vectors": info.vectors,
                "dead_vectors": info.dead_vectors, "bytes": info.bytes,
            })
        };
        output.document(&json!({
            "location": info.location, "model": model, "items": info.items, "bytes": info.bytes,
            "format_version": info.format_version, "change": info.change,
            "fields": info.fields.iter().map(field).collect::<Vec<_>>(),
        }))?;
        return Ok(Outcome::Fine);
    }
    output.line(&output.paint.style(Style::Bold, &one_line(&info.location)))?;
    let mut table = Table::new(vec![Column::left("").style(Style::Dim), Column::left("").cut(Cut::Middle)]).indented(2);
    table.row(vec!["items".into(), quantities::count(info.items)]);
    table.row(vec!["model".into(), model.unwrap_or_else(|| "none yet".into())]);
    table.row(vec!["size".into(), quantities::bytes(info.bytes)]);
    table.row(vec![
        "format".into(),
        format!("version {}, change {}", info.format_version, quantities::count(info.change)),
    ]);
    for info in &info.fields {
        let field = &info.field;
        let dead = match info.dead_vectors {
            0 => String::new(),
            dead => format!(", {} kept of forgotten items (`compact` drops them)", quantities::count(dead)),
        };
        let text = format!("{} vectors of length {}{dead}", quantities::count(info.vectors), field.dimension);
        table.row(vec![format!("field {}", field.name), text]);
        table.row(vec!["  space".into(), format!("{} ({})", field.space.id, field.space.model)]);
    }
    output.write(&table.render(output.width, output.paint))?;
    Ok(Outcome::Fine)
}

fn list(arguments: &ListArguments, output: &Output) -> anyhow::Result<Outcome> {
    let conditions =
        arguments.filter_by.iter().map(|text| condition::parse(text)).collect::<Result<Vec<Filter>, _>>()?;
    let collection = read(&arguments.which.path())?;
    let request = ListRequest {
        filter: (!conditions.is_empty()).then_some(Filter::And(conditions)),
        after: arguments.after,
        // One more, to know whether there are more.
        limit: (arguments.limit > 0).then_some(arguments.limit.saturating_add(1)),
        ..ListRequest::default()
    };
    let mut items = collection.list(&request)?;
    let more = arguments.limit > 0 && items.len() > arguments.limit;
    if more {
        items.truncate(arguments.limit);
    }
    let next = items.last().filter(|_| more).map(|stored| stored.key);
    if output.json {
        let item = |stored: &crossmodal_engine::StoredItem| {
            let item = &stored.item;
            json!({
                "key": stored.key, "id": item.id, "path": item.source.as_ref().map(|source| &source.uri),
                "modality": item.modality, "size": item.source.as_ref().and_then(|source| source.size),
                "metadata": Value::Object(item.metadata.clone()),
            })
        };
        output.document(&json!({ "items": items.iter().map(item).collect::<Vec<_>>(), "next": next }))?;
        return Ok(Outcome::Fine);
    }
    let columns = vec![
        Column::right("key").style(Style::Dim),
        Column::left("path").cut(Cut::Middle),
        Column::right("size"),
        Column::left("caption").cut(Cut::End),
    ];
    let mut table = Table::new(columns);
    for stored in &items {
        let size = stored.item.source.as_ref().and_then(|source| source.size).map(quantities::bytes);
        let path = pictures::shown(&pictures::path_of(&stored.item));
        table.row(vec![stored.key.to_string(), path, size.unwrap_or_default(), pictures::caption(&stored.item)]);
    }
    if items.is_empty() {
        output.line("no items")?;
    } else {
        output.write(&table.render(output.width, output.paint))?;
    }
    if let Some(next) = next {
        output.note(&format!("there are more: --after {next}"));
    }
    Ok(Outcome::Fine)
}

fn remove(arguments: &RemoveArguments, output: &Output) -> anyhow::Result<Outcome> {
    let collection = Collection::open(&arguments.collection, &writing(&arguments.wait).existing())?;
    // All are looked up before any is removed.
    let ids = arguments.items.iter().map(|item| collection.resolve_item(item));
    let mut ids = ids.collect::<Result<Vec<String>, _>>()?;
    if arguments.missing {
        ids.extend(collection.missing()?);
    }
    ids.sort();
    ids.dedup();
    collection.remove(&ids)?;
    if output.json {
        output.document(&json!({ "removed": ids }))?;
    } else {
        for id in &ids {
            output.line(&format!("forgot {}", one_line(id)))?;
        }
        if ids.is_empty() {
            output.line("no item's file is missing")?;
        }
    }
    Ok(Outcome::Fine)
}

fn verify(arguments: &VerifyArguments, output: &Output) -> anyhow::Result<Outcome> {
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

fn compact(arguments: &CompactArguments, output: &Output) -> anyhow::Result<Outcome> {
    let collection = Collection::open(&arguments.which.path(), &writing(&arguments.wait).existing())?;
    let report = collection.compact()?;
    if output.json {
        output.document(&json!({
            "dropped_vectors": report.dropped_vectors, "bytes_before": report.bytes_before, "bytes_after": report.bytes_after,
        }))?;
    } else {
        let dropped = quantities::counted(report.dropped_vectors as usize, "forgotten vector");
        let (before, after) = (quantities::bytes(report.bytes_before), quantities::bytes(report.bytes_after));
        output.line(&format!("dropped {dropped}: {before} before, {after} now"))?;
    }
    Ok(Outcome::Fine)
}
