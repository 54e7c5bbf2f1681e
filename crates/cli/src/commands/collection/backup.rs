//! `collection backup`: a checked copy of a collection in use.

use crossmodal_engine::{Error, files};
use serde_json::json;

use super::read;
use crate::arguments::BackupArguments;
use crate::failure::Outcome;
use crate::output::Output;
use crate::quantities;

/// Runs the command.
pub fn run(arguments: &BackupArguments, output: &Output) -> anyhow::Result<Outcome> {
    let collection = read(&arguments.collection)?;
    let report = collection.store().backup(&arguments.output).map_err(Error::from)?;
    if output.json {
        output.document(&json!({
            "collection": files::uri(&arguments.collection), "output": files::uri(&arguments.output),
            "change": report.change, "items": report.items, "vectors": report.vectors, "bytes": report.bytes,
        }))?;
    } else {
        let items = quantities::counted(report.items as usize, "item");
        let vectors = quantities::counted(report.vectors as usize, "vector");
        let bytes = quantities::bytes(report.bytes);
        output
            .line(&format!("copied and checked {items} with {vectors} ({bytes}) in {}", arguments.output.display()))?;
    }
    Ok(Outcome::Fine)
}
