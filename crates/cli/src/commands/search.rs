//! `crossmodal search`: the items of a collection nearest to words, pictures, items.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use crossmodal_engine::{Collection, Embedder, Hit, Input, Mode, Query, files, read_input};
use serde::Serialize;
use serde_json::{Map, Value};

use super::bulk_search;
use crate::arguments::SearchArguments;
use crate::failure::{self, Outcome, Usage};
use crate::output::{Output, Style};
use crate::page::{Page, PageHit};
use crate::settings::{ModelChoice, Settings};
use crate::table::{Column, Cut, Table};
use crate::{page, pictures};

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
}

#[derive(Serialize)]
struct JsonHit<'a> {
    rank: usize,
    score: f32,
    id: &'a str,
    path: String,
    modality: &'a str,
    missing: bool,
    metadata: &'a Map<String, Value>,
}

/// Runs the command.
pub fn run(arguments: &SearchArguments, choice: &ModelChoice, settings: &Settings) -> anyhow::Result<Outcome> {
    let output = &settings.output;
    if let Some(queries) = &arguments.bulk.vectors {
        return bulk_search::run(queries, arguments, None, output);
    }
    if arguments.min_score.is_some_and(|score| !(-1.0..=1.0).contains(&score)) {
        return Err(Usage("--min-score is a cosine, -1 to 1".into()).into());
    }
    let collection = Collection::open(&arguments.collection, &Mode::read())?;
    let model = settings.load(&choice.within(collection.model_name()?), &arguments.rules)?;
    let words = (!arguments.words.is_empty()).then(|| arguments.words.join(" "));
    let query = query(arguments, words.as_deref(), &collection, model.as_ref(), output)?;
    let start = Instant::now();
    let hits = collection.search(model.as_ref(), &query)?;
    let seconds = start.elapsed().as_secs_f64();
    let name = &model.info().name;
    if output.json {
        output.document(&Answer {
            collection: files::uri(&arguments.collection),
            model: name,
            query: Asked {
                words: words.as_deref(),
                images: arguments.image.iter().map(|path| files::uri(path)).collect(),
                like: &query.like,
            },
            milliseconds: seconds * 1e3,
            hits: json_hits(&hits),
        })?;
    } else if hits.is_empty() {
        output.line(&nothing(&collection, arguments)?)?;
    } else {
        output.write(&table(&hits).render(output.width, output.paint))?;
    }
    if arguments.open || arguments.html.is_some() {
        let page = Page {
            query: asked(arguments, words.as_deref()),
            query_pictures: arguments.image.clone(),
            collection: arguments.collection.display().to_string(),
            model: name.clone(),
            seconds,
            hits: hits.iter().map(page_hit).collect(),
        };
        publish(&page.html(), arguments, output)?;
    }
    Ok(Outcome::Fine)
}

fn query(
    arguments: &SearchArguments,
    words: Option<&str>,
    collection: &Collection,
    model: &dyn Embedder,
    output: &Output,
) -> anyhow::Result<Query> {
    let mut query = Query { k: arguments.k, min_score: arguments.min_score, ..Query::new() };
    if let Some(words) = words {
        let input = Input::text(words).as_query();
        if model.prepare(&input).is_ok_and(|prepared| prepared.truncated) {
            output.note("the words are more than the model reads; the end is cut");
        }
        query.inputs.push(input);
    }
    for path in &arguments.image {
        let input = read_input(path)?.as_query();
        // Tried here, where the name of a picture that can't be read is known.
        let tried = model.prepare(&input).map_err(crossmodal_engine::Error::from);
        tried.map_err(|error| anyhow::anyhow!(failure::about(&path.display().to_string(), error)))?;
        query.inputs.push(input);
    }
    for item in &arguments.like {
        query.like.push(collection.resolve_item(item)?);
    }
    Ok(query)
}

fn nothing(collection: &Collection, arguments: &SearchArguments) -> anyhow::Result<String> {
    if collection.info()?.items == 0 {
        return Ok(format!("{} is empty: fill it with `crossmodal index`", arguments.collection.display()));
    }
    Ok(match arguments.min_score {
        Some(score) => format!("nothing found with a score of {score} or more"),
        None => "nothing found".into(),
    })
}

fn json_hits(hits: &[Hit]) -> Vec<JsonHit<'_>> {
    let ranked = hits.iter().enumerate();
    ranked
        .map(|(place, hit)| JsonHit {
            rank: place + 1,
            score: hit.score,
            id: &hit.item.id,
            path: files::uri(&pictures::path_of(&hit.item)),
            modality: &hit.modality,
            missing: files::is_gone(&pictures::path_of(&hit.item)),
            metadata: &hit.item.metadata,
        })
        .collect()
}

fn table(hits: &[Hit]) -> Table {
    let captions: Vec<String> = hits.iter().map(|hit| pictures::caption(&hit.item)).collect();
    let mut columns = vec![
        Column::right("#").style(Style::Dim),
        Column::right("score").style(Style::Green),
        Column::left("path").cut(Cut::Middle),
    ];
    let with_captions = captions.iter().any(|caption| !caption.is_empty());
    if with_captions {
        columns.push(Column::left("caption").cut(Cut::End));
    }
    let mut table = Table::new(columns);
    for (place, (hit, caption)) in hits.iter().zip(captions).enumerate() {
        let path = pictures::path_of(&hit.item);
        let gone = if files::is_gone(&path) { " (gone)" } else { "" };
        let path = format!("{}{gone}", pictures::shown(&path));
        let mut cells = vec![(place + 1).to_string(), format!("{:.3}", hit.score), path];
        if with_captions {
            cells.push(caption);
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
    parts.join(" + ")
}

fn page_hit(hit: &Hit) -> PageHit {
    PageHit { score: hit.score, path: pictures::path_of(&hit.item), caption: pictures::caption(&hit.item) }
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
