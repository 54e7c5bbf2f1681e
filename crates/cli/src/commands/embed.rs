//! `crossmodal embed`: embeddings of texts and pictures, as lines of JSON or as a file.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::BufRead;
use std::path::PathBuf;

use clap::ArgMatches;
use crossmodal_engine::{Embedder, Embedding, Error, Input, embed_each, files, read_input};
use serde_json::json;

use crate::arguments::EmbedArguments;
use crate::failure::{self, Outcome, Usage};
use crate::output::Output;
use crate::settings::{ModelChoice, Settings};
use crate::vector_file::{Format, Record, VectorFile};
use crate::{interrupt, pictures, quantities};

/// Something to embed, as it was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// A text.
    Text(String),
    /// A file.
    Path(PathBuf),
    /// The lines of standard input.
    Lines,
}

/// The inputs in the order in which they stand on the command line, options and paths mixed.
pub fn in_order(arguments: &EmbedArguments, matches: &ArgMatches) -> Vec<Named> {
    let texts = matches.indices_of("text").into_iter().flatten().zip(arguments.text.iter().cloned().map(Named::Text));
    let path = |path: &PathBuf| if path.as_os_str() == "-" { Named::Lines } else { Named::Path(path.clone()) };
    let paths = matches.indices_of("paths").into_iter().flatten().zip(arguments.paths.iter().map(path));
    let mut inputs: Vec<(usize, Named)> = texts.chain(paths).collect();
    inputs.sort_by_key(|(place, _)| *place);
    inputs.into_iter().map(|(_, named)| named).collect()
}

/// Runs the command.
pub fn run(
    arguments: &EmbedArguments,
    inputs: Vec<Named>,
    choice: &ModelChoice,
    settings: &Settings,
) -> anyhow::Result<Outcome> {
    let output = &settings.output;
    let format = arguments.output.as_deref().map(Format::of).transpose()?;
    if inputs.iter().filter(|input| **input == Named::Lines).count() > 1 {
        return Err(Usage("standard input (-) can be read only once".into()).into());
    }
    let inputs = with_folders_expanded(inputs, output)?;
    let model = settings.load(&choice.name(), &arguments.rules)?;
    let file = match (&arguments.output, format) {
        (Some(path), Some(format)) => Some(VectorFile::create(path, format, model.dimension())?),
        _ => None,
    };
    let mut sink = Sink { output: *output, raw: arguments.raw, file, failed: 0 };
    let ended = embed_all(model.as_ref(), inputs, arguments.batch_size, &mut sink)?;
    if ended == Outcome::Interrupted {
        output.error("interrupted");
        return Ok(ended);
    }
    if let (Some(file), Some(path), Some(format)) = (sink.file, &arguments.output, format) {
        if sink.failed > 0 && format.needs_every_row() {
            let failed = quantities::counted(sink.failed, "input");
            anyhow::bail!("{failed} failed, so {} isn't written: its rows would shift", path.display());
        }
        let rows = file.rows();
        file.finish()?;
        if output.json {
            let (name, dimension) = (&model.info().name, model.dimension());
            output.document(
                &json!({ "output": files::uri(path), "rows": rows, "dimension": dimension, "model": name }),
            )?;
        } else {
            let amount = quantities::counted(rows, "embedding");
            output.note(&format!("{amount} of length {} in {}", model.dimension(), path.display()));
        }
    }
    Ok(if sink.failed > 0 { Outcome::Failed } else { Outcome::Fine })
}

fn with_folders_expanded(inputs: Vec<Named>, output: &Output) -> anyhow::Result<Vec<Named>> {
    let mut expanded = Vec::with_capacity(inputs.len());
    for input in inputs {
        match input {
            Named::Path(path) => expanded.extend(pictures::expand(&[path], output)?.into_iter().map(Named::Path)),
            Named::Text(_) | Named::Lines => expanded.push(input),
        }
    }
    Ok(expanded)
}

/// Where embeddings go.
struct Sink {
    output: Output,
    raw: bool,
    file: Option<VectorFile>,
    failed: usize,
}

impl Sink {
    fn take(&mut self, named: &Named, result: Result<Embedding, Error>) -> anyhow::Result<()> {
        let (input, modality) = match named {
            Named::Text(text) => (text.clone(), "text"),
            Named::Path(path) => (files::uri(path), "image"),
            Named::Lines => ("standard input".to_string(), "text"),
        };
        let embedding = match result {
            Ok(embedding) => embedding,
            Err(error) => {
                self.failed += 1;
                let subject = match named {
                    Named::Path(path) => path.display().to_string(),
                    Named::Text(_) => format!("{input:?}"),
                    Named::Lines => input.clone(),
                };
                self.output.error(&failure::about(&subject, error));
                return Ok(());
            }
        };
        if embedding.truncated {
            self.output.note(&format!("{} was longer than the model reads and is cut", shortened(&input)));
        }
        let embedding = if self.raw { &embedding.native } else { &embedding.unit };
        let record = Record { input: &input, modality, embedding };
        match &mut self.file {
            Some(file) => file.add(&record),
            None => self.output.record(&record),
        }
    }
}

/// The beginning of a text, quoted.
fn shortened(text: &str) -> String {
    let beginning: String = text.chars().take(30).collect();
    if beginning.len() < text.len() { format!("{beginning:?}...") } else { format!("{text:?}") }
}

fn embed_all(model: &dyn Embedder, inputs: Vec<Named>, batch_size: usize, sink: &mut Sink) -> anyhow::Result<Outcome> {
    let cancel = interrupt::impatient_token()?;
    let waiting = RefCell::new(VecDeque::new());
    let each_input = inputs.into_iter().flat_map(unfold).map(|(named, input)| {
        waiting.borrow_mut().push_back(named);
        input
    });
    let mut failure = None;
    let ended = embed_each(model, each_input, batch_size, &cancel, |_, result| {
        let named = waiting.borrow_mut().pop_front().unwrap_or(Named::Lines);
        sink.take(&named, result).map_err(|error| {
            failure = Some(error);
            // Only stops the others; what went wrong is told below.
            Error::Invalid("stopped".into())
        })
    });
    match (failure, ended) {
        (Some(failure), _) => Err(failure),
        (None, Ok(())) => Ok(Outcome::Fine),
        (None, Err(error)) if error.kind() == crossmodal_engine::ErrorKind::Cancelled => Ok(Outcome::Interrupted),
        (None, Err(error)) => Err(error.into()),
    }
}

type Unfolded = Box<dyn Iterator<Item = (Named, Result<Input, Error>)>>;

/// An input with its content; standard input with that of each line.
fn unfold(named: Named) -> Unfolded {
    let one = |named, input| -> Unfolded { Box::new(std::iter::once((named, input))) };
    match named {
        Named::Text(text) => {
            let input = Ok(Input::text(text.clone()));
            one(Named::Text(text), input)
        }
        Named::Path(path) => {
            let input = read_input(&path);
            one(Named::Path(path), input)
        }
        Named::Lines => Box::new(std::io::stdin().lock().lines().map(|line| match line {
            Ok(line) => (Named::Text(line.clone()), Ok(Input::text(line))),
            Err(error) => (Named::Lines, Err(Error::Io { path: "standard input".into(), source: error })),
        })),
    }
}
