//! `collection info`: what a collection holds.

use crossmodal_engine::IndexState;
use serde_json::{Value, json};

use super::super::optimize;
use super::read;
use crate::arguments::InfoArguments;
use crate::failure::Outcome;
use crate::output::{Output, Style};
use crate::quantities;
use crate::table::{Column, Cut, Table, one_line};

/// Runs the command.
pub fn run(arguments: &InfoArguments, output: &Output) -> anyhow::Result<Outcome> {
    let collection = read(&arguments.which.path())?;
    let (info, model) = (collection.info()?, collection.model_name()?);
    if output.json {
        let field = |info: &crossmodal_engine::FieldInfo| {
            let field = &info.field;
            json!({
                "name": field.name, "model": field.space.model, "space": field.space.id, "dimension": field.dimension,
                "metric": format!("{:?}", field.metric).to_lowercase(), "vectors": info.vectors,
                "dead_vectors": info.dead_vectors, "bytes": info.bytes,
                "index": index_json(&info.index),
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
        table.row(vec!["  index".into(), optimize::describe(&info.index)]);
        table.row(vec!["  space".into(), format!("{} ({})", field.space.id, field.space.model)]);
    }
    output.write(&table.render(output.width, output.paint))?;
    Ok(Outcome::Fine)
}

fn index_json(index: &IndexState) -> Value {
    match index {
        IndexState::Missing => Value::Null,
        IndexState::Present(info) => json!({
            "kind": info.kind.as_str(), "vectors": info.rows, "bytes": info.bytes, "effort": info.default_effort,
            "parameters": info.parameters,
        }),
        IndexState::Unusable { reason } => json!({ "unusable": reason }),
    }
}
