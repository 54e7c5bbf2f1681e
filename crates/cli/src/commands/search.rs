//! `crossmodal search`: the items of a collection nearest to words, pictures, items, and sums of them.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use crossmodal_engine::expression::{self, Operand};
use crossmodal_engine::{
    Collection, Embedder, Error, Filter, Found, GroupBy, Input, Mode, Part, Query, Ranking, SearchOptions, files,
    read_input, relevance,
};
use serde::Serialize;
use serde_json::{Map, Value};

use super::bulk_search;
use crate::arguments::{SearchArguments, SearchMode};
use crate::failure::{self, Outcome, Usage};
use crate::output::{Output, Style};
use crate::page::{Page, PageHit};
use crate::settings::{ModelChoice, Settings};
use crate::table::{Column, Cut, Table};
use crate::{page, pictures};

/// The most bytes that a file of queries may have.
const QUERIES_LIMIT: u64 = 64 << 20;

#[derive(Serialize)]
struct Answer<'a> {
    collection: String,
    model: &'a str,
    query: Asked<'a>,
    milliseconds: f64,
    hits: Vec<JsonHit<'a>>,
}

#[derive(Serialize)]
struct Asked<'a> {
    words: Option<&'a str>,
    images: Vec<String>,
    like: &'a [String],
    not: &'a [String],
    unlike: &'a [String],
}

#[derive(Serialize)]
struct JsonHit<'a> {
    rank: usize,
    score: f32,
    confidence: Option<f32>,
    id: &'a str,
    path: String,
    modality: &'a str,
    missing: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    metadata: &'a Map<String, Value>,
}

/// What was asked and found.
struct Results {
    /// The words of each query; one without words at least.
    words: Vec<Option<String>>,
    found: Vec<Vec<Found>>,
    seconds: f64,
}

/// Runs the command.
pub fn run(arguments: &SearchArguments, choice: &ModelChoice, settings: &Settings) -> anyhow::Result<Outcome> {
    let output = &settings.output;
    if let Some(queries) = &arguments.bulk.vectors {
        return bulk_search::run(queries, arguments, filter(arguments)?, output);
    }
    if arguments.bulk.output.is_some() || arguments.bulk.effort.is_some() || arguments.bulk.exact {
        return Err(Usage("--output, --effort and --exact go with --vectors".into()).into());
    }
    let options = options(arguments)?;
    let words = words(arguments)?;
    if words.len() > 1 && (arguments.open || arguments.html.is_some()) {
        return Err(Usage("--open and --html show the hits of one query".into()).into());
    }
    let collection = Collection::open(&arguments.collection, &Mode::read())?;
    let model = settings.load(&choice.within(collection.model_name()?), &arguments.rules)?;
    let named =
        NamedItems { like: items(&collection, &arguments.like)?, unlike: items(&collection, &arguments.unlike)? };
    let common = common_parts(arguments, &named, model.as_ref(), output)?;
    let mut queries = Vec::with_capacity(words.len());
    for words in &words {
        let mut parts = match words {
            Some(words) => parts(words, model.as_ref(), output)?,
            None => Vec::new(),
        };
        parts.extend(common.iter().cloned());
        queries.push(Query { parts });
    }
    let start = Instant::now();
    let found = collection.search_all(model.as_ref(), &queries, &options)?;
    let results = Results { words, found, seconds: start.elapsed().as_secs_f64() };
    let name = &model.info().name;
    if output.json {
        results.json(arguments, &named, name, output)?;
    } else {
        results.text(arguments, &collection, output)?;
    }
    if arguments.open || arguments.html.is_some() {
        publish(&results.page(arguments, name).html(), arguments, output)?;
    }
    Ok(Outcome::Fine)
}

/// Items named in the arguments, by their full ids.
struct NamedItems {
    like: Vec<String>,
    unlike: Vec<String>,
}

fn items(collection: &Collection, names: &[String]) -> anyhow::Result<Vec<String>> {
    Ok(names.iter().map(|name| collection.resolve_item(name)).collect::<Result<_, _>>()?)
}

fn filter(arguments: &SearchArguments) -> Result<Option<Filter>, Usage> {
    let filter = arguments.filter.as_deref().map(Filter::parse).transpose();
    filter.map_err(|error| Usage(format!("--filter: {error}")))
}

fn options(arguments: &SearchArguments) -> anyhow::Result<SearchOptions> {
    if arguments.min_score.is_some_and(|score| !(-1.0..=1.0).contains(&score)) {
        return Err(Usage("--min-score is a cosine, -1 to 1".into()).into());
    }
    let shares =
        [("--relevant-only", arguments.relevant_only), ("--diverse", arguments.diverse), ("--alpha", arguments.alpha)];
    for (option, value) in shares {
        if value.is_some_and(|value| !(0.0..=1.0).contains(&value)) {
            return Err(Usage(format!("{option} takes a number from 0 to 1")).into());
        }
    }
    let ranking = match arguments.mode {
        SearchMode::Hybrid => Ranking::Both { vectors: arguments.alpha },
        _ if arguments.alpha.is_some() => return Err(Usage("--alpha is for --mode hybrid".into()).into()),
        SearchMode::Vector => Ranking::Vectors,
        SearchMode::Text => Ranking::Words,
    };
    let group_by = arguments.group_by.as_deref().map(str::parse::<GroupBy>).transpose();
    Ok(SearchOptions {
        k: arguments.k,
        offset: arguments.offset,
        ranking,
        filter: filter(arguments)?,
        min_score: arguments.min_score,
        relevant_only: arguments.relevant_only,
        group_by: group_by.map_err(|reason| Usage(format!("--group-by: {reason}")))?,
        diversity: arguments.diverse,
        ..SearchOptions::default()
    })
}

/// The words of every query.
fn words(arguments: &SearchArguments) -> anyhow::Result<Vec<Option<String>>> {
    let mut words: Vec<Option<String>> = Vec::new();
    if !arguments.words.is_empty() {
        words.push(Some(arguments.words.join(" ")));
    }
    words.extend(arguments.query.iter().cloned().map(Some));
    if let Some(path) = &arguments.queries {
        let text = read_queries(path)?;
        words.extend(text.lines().filter(|line| !line.trim().is_empty()).map(|line| Some(line.to_string())));
        if words.is_empty() {
            return Err(Usage(format!("{}: no queries in it", path.display())).into());
        }
    }
    if words.is_empty() {
        words.push(None);
    }
    Ok(words)
}

fn read_queries(path: &Path) -> anyhow::Result<String> {
    if path.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().lock().take(QUERIES_LIMIT).read_to_string(&mut text).context("standard input")?;
        return Ok(text);
    }
    let (bytes, _) = files::read_limited(path, QUERIES_LIMIT)?;
    String::from_utf8(bytes).with_context(|| path.display().to_string())
}

/// The parts of a query's words.
fn parts(words: &str, model: &dyn Embedder, output: &Output) -> anyhow::Result<Vec<Part>> {
    let terms = expression::parse(words).map_err(Error::from)?;
    let part = |term: expression::Term| match term.operand {
        Operand::Text(words) => Ok(text(term.weight, &words, model, output)),
        Operand::Phrase(words) => Ok(text(term.weight, &words, model, output).as_phrase()),
        Operand::Image(path) => picture(term.weight, &path, model),
        Operand::Item(name) => Ok(Part::item(term.weight, name)),
    };
    terms.into_iter().map(part).collect()
}

/// The parts that every query has: pictures, items, and what is searched away from.
fn common_parts(
    arguments: &SearchArguments,
    named: &NamedItems,
    model: &dyn Embedder,
    output: &Output,
) -> anyhow::Result<Vec<Part>> {
    let mut parts = Vec::new();
    for path in &arguments.image {
        parts.push(picture(1.0, path, model)?);
    }
    parts.extend(named.like.iter().map(|id| Part::item(1.0, id)));
    parts.extend(arguments.not.iter().map(|words| text(-1.0, words, model, output)));
    parts.extend(named.unlike.iter().map(|id| Part::item(-1.0, id)));
    Ok(parts)
}

fn text(weight: f32, words: &str, model: &dyn Embedder, output: &Output) -> Part {
    let input = Input::text(words).as_query();
    if model.prepare(&input).is_ok_and(|prepared| prepared.truncated) {
        output.note("the words are more than the model reads; the end is cut");
    }
    Part::input(weight, input)
}

fn picture(weight: f32, path: &Path, model: &dyn Embedder) -> anyhow::Result<Part> {
    let input = read_input(path)?.as_query();
    // Tried here, where the name of a picture that can't be read is known.
    let tried = model.prepare(&input).map_err(Error::from);
    tried.map_err(|error| anyhow::anyhow!(failure::about(&path.display().to_string(), error)))?;
    Ok(Part::input(weight, input))
}

impl Results {
    /// One document, or a line for each of several queries.
    fn json(
        &self,
        arguments: &SearchArguments,
        named: &NamedItems,
        model: &str,
        output: &Output,
    ) -> anyhow::Result<()> {
        let many = self.words.len() > 1;
        for (words, found) in self.words.iter().zip(&self.found) {
            let answer = Answer {
                collection: files::uri(&arguments.collection),
                model,
                query: Asked {
                    words: words.as_deref(),
                    images: arguments.image.iter().map(|path| files::uri(path)).collect(),
                    like: &named.like,
                    not: &arguments.not,
                    unlike: &named.unlike,
                },
                milliseconds: self.seconds * 1e3,
                hits: json_hits(found, arguments.offset),
            };
            if many { output.record(&answer)? } else { output.document(&answer)? }
        }
        Ok(())
    }

    fn text(&self, arguments: &SearchArguments, collection: &Collection, output: &Output) -> anyhow::Result<()> {
        for (place, (words, found)) in self.words.iter().zip(&self.found).enumerate() {
            if self.words.len() > 1 {
                let gap = if place > 0 { "\n" } else { "" };
                let title = output.paint.style(Style::Cyan, words.as_deref().unwrap_or_default());
                output.line(&format!("{gap}{title}"))?;
            }
            if found.is_empty() {
                output.line(&nothing(collection, arguments)?)?;
            } else {
                output.write(&table(found, arguments).render(output.width, output.paint))?;
            }
        }
        Ok(())
    }

    fn page(&self, arguments: &SearchArguments, model: &str) -> Page {
        let words = self.words.first().and_then(Option::as_deref);
        Page {
            query: asked(arguments, words),
            query_pictures: arguments.image.clone(),
            collection: arguments.collection.display().to_string(),
            model: model.to_string(),
            seconds: self.seconds,
            scores: match arguments.mode {
                SearchMode::Vector => {
                    format!("Scores are cosines between the query and each picture, as {model} sees them.")
                }
                SearchMode::Text => {
                    "Scores tell how well the texts of each picture have the query's words (BM25).".into()
                }
                SearchMode::Hybrid => format!(
                    "Scores join how near each picture is to the query, as {model} sees it, and how well its texts have the query's words."
                ),
            },
            first: arguments.offset + 1,
            hits: self.found.iter().flatten().map(page_hit).collect(),
        }
    }
}

fn nothing(collection: &Collection, arguments: &SearchArguments) -> anyhow::Result<String> {
    let items = collection.info()?.items;
    if items == 0 {
        return Ok(format!("{} is empty: fill it with `crossmodal index`", arguments.collection.display()));
    }
    if arguments.relevant_only.is_some() && items < relevance::LEAST_ITEMS as u64 {
        let least = relevance::LEAST_ITEMS;
        return Ok(format!("what is relevant can't be told among {items} items; it takes {least}"));
    }
    let mut text = match arguments.min_score {
        Some(score) => format!("nothing found with a score of {score} or more"),
        None => "nothing found".to_string(),
    };
    if arguments.relevant_only.is_some() {
        text.push_str(" that isn't likely to be there by chance");
    }
    if arguments.offset > 0 {
        text.push_str(&format!(" after the first {}", arguments.offset));
    }
    Ok(text)
}

fn json_hits(found: &[Found], offset: usize) -> Vec<JsonHit<'_>> {
    let ranked = found.iter().enumerate();
    ranked
        .map(|(place, Found { hit, confidence, group })| JsonHit {
            rank: offset + place + 1,
            score: hit.score,
            confidence: *confidence,
            id: &hit.item.id,
            path: files::uri(&pictures::path_of(&hit.item)),
            modality: &hit.modality,
            missing: files::is_gone(&pictures::path_of(&hit.item)),
            group: group.as_deref(),
            metadata: &hit.item.metadata,
        })
        .collect()
}

fn table(found: &[Found], arguments: &SearchArguments) -> Table {
    let with_confidence = found.iter().any(|found| found.confidence.is_some());
    let with_captions = found.iter().any(|found| !pictures::caption(&found.hit.item).is_empty());
    let with_groups = matches!(arguments.group_by.as_deref(), Some(key) if key != "folder" && key != "file");
    let mut columns = vec![Column::right("#").style(Style::Dim), Column::right("score").style(Style::Green)];
    if with_confidence {
        columns.push(Column::right("confidence"));
    }
    columns.push(Column::left("path").cut(Cut::Middle));
    if with_groups {
        columns.push(Column::left(arguments.group_by.as_deref().unwrap_or_default()).cut(Cut::End));
    }
    if with_captions {
        columns.push(Column::left("caption").cut(Cut::End));
    }
    let mut table = Table::new(columns);
    for (place, Found { hit, confidence, group }) in found.iter().enumerate() {
        let path = pictures::path_of(&hit.item);
        let gone = if files::is_gone(&path) { " (gone)" } else { "" };
        let mut cells = vec![(arguments.offset + place + 1).to_string(), format!("{:.3}", hit.score)];
        if with_confidence {
            cells.push(confidence.map(|confidence| format!("{confidence:.2}")).unwrap_or_default());
        }
        cells.push(format!("{}{gone}", pictures::shown(&path)));
        if with_groups {
            cells.push(group.clone().unwrap_or_default());
        }
        if with_captions {
            cells.push(pictures::caption(&hit.item));
        }
        table.row(cells);
    }
    table
}

/// The query in words, for the page's title.
fn asked(arguments: &SearchArguments, words: Option<&str>) -> String {
    let images = arguments.image.iter().map(|path| {
        let name = path.file_name().unwrap_or(path.as_os_str());
        format!("the picture {}", name.to_string_lossy())
    });
    let items = arguments.like.iter().map(|item| format!("more like {item}"));
    let parts: Vec<String> = words.map(str::to_string).into_iter().chain(images).chain(items).collect();
    let mut title = parts.join(" + ");
    title.extend(arguments.not.iter().map(|words| format!(" - {words}")));
    title.extend(arguments.unlike.iter().map(|item| format!(" - less like {item}")));
    title
}

fn page_hit(found: &Found) -> PageHit {
    PageHit {
        score: found.hit.score,
        confidence: found.confidence,
        path: pictures::path_of(&found.hit.item),
        caption: pictures::caption(&found.hit.item),
    }
}

fn publish(html: &str, arguments: &SearchArguments, output: &Output) -> anyhow::Result<()> {
    let path = match &arguments.html {
        Some(path) => {
            std::fs::write(path, html).with_context(|| path.display().to_string())?;
            path.clone()
        }
        None => temporary_page(html)?,
    };
    output.note(&format!("the page is {}", path.display()));
    if arguments.open
        && let Err(reason) = page::open(&absolute(&path))
    {
        output.note(&format!("it couldn't be opened ({reason}); open it in a browser"));
    }
    Ok(())
}

fn temporary_page(html: &str) -> anyhow::Result<PathBuf> {
    let file = tempfile::Builder::new().prefix("crossmodal-search-").suffix(".html").tempfile()?;
    std::fs::write(file.path(), html).with_context(|| file.path().display().to_string())?;
    let (_, path) = file.keep()?;
    Ok(path)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}
