//! `collection export`: everything to a folder that others can read.

use crossmodal_engine::{exchange, files};
use serde_json::json;

use super::read;
use crate::arguments::{ExportArguments, ExportFormat};
use crate::failure::{Outcome, Usage};
use crate::output::Output;
use crate::progress::Steps;
use crate::{interrupt, quantities};

/// Runs the command.
pub fn run(arguments: &ExportArguments, output: &Output) -> anyhow::Result<Outcome> {
    if arguments.f16 && arguments.format == ExportFormat::Crossmodal {
        return Err(Usage("--f16 goes with --format clip-retrieval; a complete export loses nothing".into()).into());
    }
    let cancel = interrupt::token()?;
    let collection = read(&arguments.collection)?;
    let steps = Steps::new(output, "exporting");
    let mut progress = |done, all| steps.at(done, all);
    let (target, force) = (&arguments.output, arguments.force);
    let report = match arguments.format {
        ExportFormat::Crossmodal => exchange::export_archive(&collection, target, force, &mut progress, &cancel),
        ExportFormat::ClipRetrieval => {
            exchange::export_clip_retrieval(&collection, target, arguments.f16, force, &mut progress, &cancel)
        }
    };
    steps.finish();
    let report = report?;
    if output.json {
        let format = match arguments.format {
            ExportFormat::Crossmodal => "crossmodal",
            ExportFormat::ClipRetrieval => "clip-retrieval",
        };
        output.document(&json!({
            "collection": files::uri(&arguments.collection), "output": files::uri(target), "format": format,
            "items": report.items, "vectors": report.vectors, "bytes": report.bytes,
        }))?;
    } else {
        let items = quantities::counted(report.items, "item");
        let vectors = quantities::counted(report.vectors, "vector");
        let bytes = quantities::bytes(report.bytes);
        output.line(&format!("exported {items} with {vectors} ({bytes}) to {}", target.display()))?;
    }
    Ok(Outcome::Fine)
}
