//! `collection list`: items in pages.

use crossmodal_engine::{Filter, ListRequest};
use serde_json::{Value, json};

use super::{condition, read};
use crate::arguments::ListArguments;
use crate::failure::Outcome;
use crate::output::{Output, Style};
use crate::table::{Column, Cut, Table};
use crate::{pictures, quantities};

/// Runs the command.
pub fn run(arguments: &ListArguments, output: &Output) -> anyhow::Result<Outcome> {
    let conditions = arguments.filter.iter().map(|text| condition::parse(text)).collect::<Result<Vec<Filter>, _>>()?;
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
