//! `collection compact`: space that is given back.

use crossmodal_engine::Collection;
use serde_json::json;

use crate::arguments::CompactArguments;
use crate::commands::index::writing;
use crate::failure::Outcome;
use crate::output::Output;
use crate::quantities;

/// Runs the command.
pub fn run(arguments: &CompactArguments, output: &Output) -> anyhow::Result<Outcome> {
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
