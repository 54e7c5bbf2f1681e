//! `collection import`: vectors from elsewhere, and exports.

use std::path::Path;

use crossmodal_engine::exchange::{self, ImportReport, VectorImport};
use crossmodal_engine::{Collection, Metric, files};
use serde_json::json;

use crate::arguments::{ImportArguments, MetricChoice};
use crate::commands::index::writing;
use crate::failure::Outcome;
use crate::output::{Output, Style};
use crate::progress::Steps;
use crate::table::{Column, Table, one_line};
use crate::{interrupt, quantities};

/// Skipped rows that are listed in text.
const LISTED: usize = 20;

/// Runs the command.
pub fn run(arguments: &ImportArguments, output: &Output) -> anyhow::Result<Outcome> {
    let source = arguments.folder.as_deref().or(arguments.vectors.as_deref()).unwrap_or(Path::new(""));
    if !source.exists() {
        anyhow::bail!("{}: no such file or folder", source.display());
    }
    let is_archive = arguments.folder.as_deref().is_some_and(exchange::is_archive);
    if let Some(folder) =
        arguments.folder.as_deref().filter(|folder| !is_archive && !exchange::is_clip_retrieval(folder))
    {
        anyhow::bail!(
            "{}: neither what `collection export` writes nor a folder with img_emb/img_emb_*.npy",
            folder.display()
        );
    }
    let vectors = arguments.vectors.as_ref().map(|vectors| vector_import(arguments, vectors));
    if let Some(import) = &vectors {
        // A file that can't be read must not leave an empty collection behind.
        import.check()?;
    }
    let cancel = interrupt::token()?;
    let collection = Collection::open(&arguments.collection, &writing(&arguments.wait))?;
    let steps = Steps::new(output, "importing");
    let mut progress = |done, all| steps.at(done, all);
    if let Some(folder) = arguments.folder.as_deref().filter(|_| is_archive) {
        let report = exchange::import_archive(&collection, folder, Some(arguments.batch_size), &mut progress, &cancel);
        steps.finish();
        let report = report?;
        if output.json {
            output.document(&json!({
                "collection": files::uri(&arguments.collection), "items": report.items, "unchanged": report.unchanged,
                "vectors": report.vectors, "bytes": report.bytes, "cancelled": report.cancelled,
            }))?;
        } else {
            let items = quantities::counted(report.items, "item");
            let vectors = quantities::counted(report.vectors, "vector");
            let unchanged = quantities::count(report.unchanged as u64);
            output.line(&format!("imported {items} with {vectors}, {unchanged} of them were there unchanged"))?;
        }
        return Ok(if report.cancelled { Outcome::Interrupted } else { Outcome::Fine });
    }
    let report = match &vectors {
        Some(import) => exchange::import_vectors(&collection, import, &mut progress, &cancel),
        None => {
            let (metric, batch_size, strict) = (metric(arguments), arguments.batch_size, arguments.strict);
            exchange::import_clip_retrieval(&collection, source, metric, batch_size, strict, &mut progress, &cancel)
        }
    };
    steps.finish();
    let report = report?;
    show(&report, &arguments.collection, output)?;
    Ok(if report.cancelled { Outcome::Interrupted } else { Outcome::Fine })
}

fn vector_import(arguments: &ImportArguments, vectors: &Path) -> VectorImport {
    VectorImport {
        vectors: vectors.to_path_buf(),
        ids: arguments.ids.clone(),
        metadata: arguments.metadata.clone(),
        metric: metric(arguments),
        batch_size: arguments.batch_size,
        strict: arguments.strict,
    }
}

fn metric(arguments: &ImportArguments) -> Metric {
    match arguments.metric {
        MetricChoice::Cosine => Metric::Cosine,
        MetricChoice::InnerProduct => Metric::InnerProduct,
        MetricChoice::Euclidean => Metric::Euclidean,
    }
}

fn show(report: &ImportReport, collection: &Path, output: &Output) -> anyhow::Result<()> {
    if output.json {
        let skipped = report.skipped.iter().map(|row| json!({ "row": row.row, "id": row.id, "reason": row.reason }));
        return output.document(&json!({
            "collection": files::uri(collection), "rows": report.rows, "added": report.added,
            "replaced": report.replaced, "touched": report.touched, "unchanged": report.unchanged,
            "skipped_count": report.skipped_count, "skipped": skipped.collect::<Vec<_>>(),
            "unmatched_metadata": report.unmatched_metadata, "seconds": report.seconds,
            "rows_per_second": quantities::per_second(report.rows, report.seconds), "cancelled": report.cancelled,
        }));
    }
    let verb = if report.cancelled { "Stopped after" } else { "Imported" };
    let rows = quantities::counted(report.rows, "row");
    let (time, rate) = (quantities::duration(report.seconds), quantities::rate(report.rows, report.seconds));
    let heading = output.paint.style(Style::Bold, &format!("{verb} {rows} in {time} ({rate})"));
    output.line(&format!("{heading} into {}", collection.display()))?;
    let columns = vec![Column::left(""), Column::right("").style(Style::Bold), Column::left("").style(Style::Dim)];
    let mut table = Table::new(columns).indented(2);
    let counts = [
        ("added", report.added, ""),
        ("replaced", report.replaced, "were there with another vector"),
        ("touched", report.touched, "only their metadata changed"),
        ("unchanged", report.unchanged, "were there just so"),
        ("skipped", report.skipped_count, "can't be imported"),
    ];
    for (name, number, meaning) in counts {
        if number > 0 || name == "added" {
            table.row(vec![name.into(), quantities::count(number as u64), meaning.into()]);
        }
    }
    output.write(&table.render(output.width, output.paint))?;
    if report.skipped_count > 0 {
        output.line(&output.paint.style(Style::Yellow, "Skipped:"))?;
        for row in report.skipped.iter().take(LISTED) {
            output.line(&format!("  row {} (id {}) {}", row.row, one_line(&row.id), one_line(&row.reason)))?;
        }
        if report.skipped_count > LISTED {
            let rest = quantities::count((report.skipped_count - LISTED) as u64);
            output.line(&format!("  and {rest} more; --json lists up to 1,000"))?;
        }
    }
    if report.unmatched_metadata > 0 {
        let rows = quantities::counted(report.unmatched_metadata, "row");
        output.note(&format!("{rows} of the metadata name no id of the vectors"));
    }
    if report.cancelled {
        output.line("What was imported is kept; the same command goes on from there.")?;
    }
    Ok(())
}
