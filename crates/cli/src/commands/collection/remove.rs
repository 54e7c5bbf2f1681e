//! `collection remove`: items that are to be forgotten.

use crossmodal_engine::Collection;
use serde_json::json;

use crate::arguments::RemoveArguments;
use crate::commands::index::writing;
use crate::failure::Outcome;
use crate::output::Output;
use crate::table::one_line;

/// Runs the command.
pub fn run(arguments: &RemoveArguments, output: &Output) -> anyhow::Result<Outcome> {
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
