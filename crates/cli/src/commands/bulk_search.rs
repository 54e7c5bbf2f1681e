//! `crossmodal search --vectors`: many queries from a file, their results as arrays.

use std::path::Path;

use crossmodal_engine::bulk::{BulkResults, BulkSearch, search_file};
use crossmodal_engine::{Collection, Filter, Mode, files};
use serde_json::json;

use crate::arguments::SearchArguments;
use crate::failure::{Outcome, Usage};
use crate::output::{Output, Style};
use crate::progress::Steps;
use crate::{interrupt, quantities};

/// Runs the command.
pub fn run(
    queries: &Path,
    arguments: &SearchArguments,
    filter: Option<Filter>,
    output: &Output,
) -> anyhow::Result<Outcome> {
    let options = &arguments.bulk;
    let is_npy = |path: &Path| path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("npy"));
    if let Some(path) = options.output.as_deref().filter(|path| !is_npy(path)) {
        return Err(Usage(format!("--output {}: expected a name ending in .npy", path.display())).into());
    }
    if arguments.open || arguments.html.is_some() || arguments.min_score.is_some() {
        return Err(Usage(
            "--vectors writes all hits as arrays; --open, --html and --min-score don't go with it".into(),
        )
        .into());
    }
    let cancel = interrupt::impatient_token()?;
    let collection = Collection::open(&arguments.collection, &Mode::read())?;
    let search = BulkSearch {
        queries: queries.to_path_buf(),
        k: arguments.k,
        effort: options.effort,
        exact: options.exact,
        filter,
        batch_size: options.query_batch,
    };
    let steps = Steps::new(output, "searching");
    let results = search_file(&collection, &search, &mut |done, all| steps.at(done, all), &cancel);
    steps.finish();
    let results = results?;
    if let Some(path) = &options.output {
        results.write(path)?;
    }
    let per_second = quantities::per_second(results.queries, results.seconds);
    let scores = options.output.as_deref().map(BulkResults::scores_path);
    if output.json {
        output.document(&json!({
            "collection": files::uri(&arguments.collection), "queries": results.queries, "k": results.k,
            "seconds": results.seconds, "queries_per_second": per_second, "loading_seconds": results.loading_seconds,
            "output": options.output.as_deref().map(files::uri), "scores": scores.as_deref().map(files::uri),
        }))?;
        return Ok(Outcome::Fine);
    }
    let speed = output.paint.style(Style::Bold, &format!("{} queries/s", quantities::count(per_second.round() as u64)));
    let count = quantities::count(results.queries as u64);
    let times = (quantities::duration(results.seconds), quantities::duration(results.loading_seconds));
    output.line(&format!(
        "{speed}: {count} queries for {} hits each in {}, after loading for {}",
        results.k, times.0, times.1
    ))?;
    if let Some((path, scores)) = options.output.as_deref().zip(scores) {
        output.line(&format!("ids in {}, scores in {}", path.display(), scores.display()))?;
    }
    Ok(Outcome::Fine)
}
