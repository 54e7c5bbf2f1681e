//! `crossmodal demo`: the whole way from pictures to search results in a few seconds, without a network.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crossmodal_engine::ingest::{self, Report, Request};
use crossmodal_engine::metadata::Metadata;
use crossmodal_engine::{Collection, Embedder, Hit, Mode, Part, Query, SearchOptions, demo};
use serde::Serialize;

use crate::arguments::{DemoArguments, ModelRules};
use crate::failure::{Outcome, Usage};
use crate::output::{Output, Style};
use crate::progress::Indexing;
use crate::settings::{MINI, Settings};
use crate::table::{Column, Table};
use crate::{interrupt, pictures, quantities};

/// Hits shown for each query.
const SHOWN: usize = 3;

/// What is asked: words, and the column of the captions in the words' language.
const QUESTIONS: [(&str, &str); 6] = [
    ("red apple", "en"),
    ("pomme rouge", "fr"),
    ("moon", "en"),
    ("lune croissante", "fr"),
    ("boat", "en"),
    ("smile", "en"),
];

/// The picture that is searched by: a turtle.
const PICTURE: &str = "1f422.png";

#[derive(Serialize)]
struct Summary<'a> {
    model: &'a str,
    pictures: usize,
    collection: Option<String>,
    embedded: usize,
    unchanged: usize,
    seconds: f64,
    items_per_second: f64,
    queries: &'a [Answer],
    credit: &'static str,
}

#[derive(Serialize)]
struct Answer {
    query: Option<&'static str>,
    language: &'static str,
    image: Option<String>,
    milliseconds: f64,
    hits: Vec<Found>,
}

#[derive(Serialize)]
struct Found {
    rank: usize,
    score: f32,
    id: String,
    path: String,
    caption: String,
}

/// Where the demo works.
struct Place {
    folder: PathBuf,
    kept: bool,
    /// Removes the folder when it goes.
    _temporary: Option<tempfile::TempDir>,
}

impl Place {
    fn choose(arguments: &DemoArguments) -> anyhow::Result<Self> {
        if let Some(folder) = &arguments.dir {
            let foreign = |entry: std::io::Result<std::fs::DirEntry>| {
                entry.is_ok_and(|entry| !["gallery", "collection"].contains(&&*entry.file_name().to_string_lossy()))
            };
            if std::fs::read_dir(folder).is_ok_and(|mut entries| entries.any(foreign)) {
                let place = folder.display();
                return Err(Usage(format!("{place} holds other files; --dir wants a new or empty folder")).into());
            }
            return Ok(Self { folder: folder.clone(), kept: true, _temporary: None });
        }
        let temporary = tempfile::Builder::new().prefix("crossmodal-demo-").tempdir()?;
        if arguments.keep {
            return Ok(Self { folder: temporary.keep(), kept: true, _temporary: None });
        }
        Ok(Self { folder: temporary.path().to_path_buf(), kept: false, _temporary: Some(temporary) })
    }

    fn gallery(&self) -> PathBuf {
        self.folder.join("gallery")
    }

    fn collection(&self) -> PathBuf {
        self.folder.join("collection")
    }
}

/// Runs the command.
pub fn run(arguments: &DemoArguments, settings: &Settings) -> anyhow::Result<Outcome> {
    let output = &settings.output;
    let cancel = interrupt::token()?;
    let place = Place::choose(arguments)?;
    let pictures = demo::unpack(&place.gallery())?;
    let model = settings.load(MINI, &ModelRules::default())?;
    let collection = Collection::open(&place.collection(), &Mode::write())?;
    let metadata = Metadata::read(&place.gallery().join(demo::CAPTIONS))?;
    let request = Request { metadata, threads: settings.threads, ..Request::new(vec![place.gallery()]) };
    let display = Indexing::new(output);
    let report = ingest::run(&collection, &model, &request, &display.events(None), &cancel);
    display.finish();
    let report = report?;
    if report.cancelled {
        return Ok(Outcome::Interrupted);
    }
    let mut answers = Vec::new();
    for (words, language) in QUESTIONS {
        answers.push(ask(&collection, model.as_ref(), Question::Words(words), language)?);
    }
    answers.push(ask(&collection, model.as_ref(), Question::Picture(&place.gallery().join(PICTURE)), "en")?);
    if output.json {
        output.document(&Summary {
            model: MINI,
            pictures: pictures.len(),
            collection: place.kept.then(|| place.collection().display().to_string()),
            embedded: report.progress.embedded,
            unchanged: report.progress.unchanged,
            seconds: report.progress.seconds,
            items_per_second: quantities::per_second(report.progress.done, report.progress.seconds),
            queries: &answers,
            credit: demo::CREDIT,
        })?;
        return Ok(Outcome::Fine);
    }
    tell(&report, model.as_ref(), &answers, output)?;
    output.write(&farewell(&place, output))?;
    Ok(Outcome::Fine)
}

enum Question<'a> {
    Words(&'static str),
    Picture(&'a Path),
}

fn ask(
    collection: &Collection,
    model: &dyn Embedder,
    question: Question<'_>,
    language: &'static str,
) -> anyhow::Result<Answer> {
    let (query, words, image) = match question {
        Question::Words(words) => (Query::text(words), Some(words), None),
        Question::Picture(path) => {
            let picture = Part::input(1.0, crossmodal_engine::read_input(path)?);
            (Query { parts: vec![picture] }, None, Some(path.display().to_string()))
        }
    };
    let start = Instant::now();
    // A picture of the collection finds itself first, which is no news.
    let own = usize::from(image.is_some());
    let hits = collection.search(model, &query, &SearchOptions::top(SHOWN + own))?;
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    let hits = hits.iter().skip(own).enumerate().map(|(place, hit)| found(place + 1, &hit.hit, language)).collect();
    Ok(Answer { query: words, language, image, milliseconds, hits })
}

fn found(rank: usize, hit: &Hit, language: &str) -> Found {
    let path = pictures::path_of(&hit.item);
    let caption = hit.item.metadata.get(language).and_then(|caption| caption.as_str()).unwrap_or_default();
    Found {
        rank,
        score: hit.score,
        id: hit.item.id.clone(),
        path: path.display().to_string(),
        caption: caption.to_string(),
    }
}

fn tell(report: &Report, model: &dyn Embedder, answers: &[Answer], output: &Output) -> anyhow::Result<()> {
    let progress = &report.progress;
    let time = quantities::duration(progress.seconds);
    let done = match progress.embedded {
        0 => format!(
            "Found all {} in the collection from last time, checked in {time}",
            quantities::counted(progress.done, "drawing")
        ),
        _ => format!(
            "Embedded {} in {time} ({})",
            quantities::counted(progress.done, "drawing"),
            quantities::rate(progress.done, progress.seconds)
        ),
    };
    let parameters = quantities::short_count(model.info().parameters);
    output.line(&output.paint.style(Style::Bold, &done))?;
    output.line(&format!(
        "with mini, a CLIP model of {parameters} parameters inside this program. No network is used.\n"
    ))?;
    for answer in answers {
        output.write(&told(answer, output))?;
    }
    Ok(())
}

fn told(answer: &Answer, output: &Output) -> String {
    let question = match (answer.query, answer.language) {
        (Some(words), "fr") => format!("\"{words}\" (French)"),
        (Some(words), _) => format!("\"{words}\""),
        (None, _) => format!("like the picture {PICTURE}, a turtle"),
    };
    let time = output.paint.style(Style::Dim, &quantities::duration(answer.milliseconds / 1e3));
    let mut text = format!("{} {time}\n", output.paint.style(Style::Cyan, &question));
    let columns = vec![Column::right("").style(Style::Green), Column::left(""), Column::left("").style(Style::Dim)];
    let mut table = Table::new(columns).indented(2);
    for hit in &answer.hits {
        let file = Path::new(&hit.path).file_name().map(|name| name.to_string_lossy().into_owned());
        table.row(vec![format!("{:.3}", hit.score), hit.caption.clone(), file.unwrap_or_default()]);
    }
    text.push_str(&table.render(output.width, output.paint));
    text.push('\n');
    text
}

/// What the numbers mean, what to do next, and whom to thank.
fn farewell(place: &Place, output: &Output) -> String {
    let bold = |text: &str| output.paint.style(Style::Bold, text);
    let command = |text: &str| format!("  {}\n", output.paint.style(Style::Cyan, text));
    let mut text = String::from(
        "The numbers are cosines: 1 is the same direction. mini knows emoji-like drawings and their names in English,\n\
         French, Spanish and German; it doesn't know photographs, and misses now and then.\n\n",
    );
    if place.kept {
        let collection = place.collection().display().to_string();
        text.push_str(&format!("{}\n", bold("Go on with this collection")));
        text.push_str(&command(&format!("crossmodal search thumbs up --collection {}", quoted(&collection))));
        text.push_str(&command(&format!(
            "crossmodal search --like {PICTURE} --open --collection {}",
            quoted(&collection)
        )));
    } else {
        text.push_str(&format!("{}\n", bold("Keep the collection and search it yourself")));
        text.push_str(&command("crossmodal demo --dir crossmodal-demo"));
    }
    text.push_str(&format!(
        "\n{}\n",
        bold("Your own pictures, with a model that knows photographs (one download of about 600 MB)")
    ));
    text.push_str(&command("crossmodal model pull openai/clip-vit-base-patch32"));
    text.push_str(&command("crossmodal index PICTURES --collection pictures.cm --model openai/clip-vit-base-patch32"));
    text.push_str(&command("crossmodal search a dog on a beach --collection pictures.cm --open"));
    text.push_str(&format!("\n{}\n", output.paint.style(Style::Dim, demo::CREDIT)));
    text
}

/// A path for a command line: in quotes where a shell would split it.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@%\\".contains(c);
    if path.chars().all(plain) { path.to_string() } else { format!("'{}'", path.replace('\'', "'\\''")) }
}
