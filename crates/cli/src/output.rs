//! Where results and notes go: results to standard output, everything else to standard error, colours only where wanted.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::arguments::ColourChoice;

/// Nobody reads standard output any more, as after `| head -1`: a reason to stop, not to complain.
#[derive(Debug)]
pub struct PipeClosed;

impl std::fmt::Display for PipeClosed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("standard output was closed")
    }
}

impl std::error::Error for PipeClosed {}

/// How a piece of text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// As it is.
    Plain,
    /// Headings.
    Bold,
    /// What matters less.
    Dim,
    /// Scores and success.
    Green,
    /// Notes.
    Yellow,
    /// Errors.
    Red,
    /// Names and commands.
    Cyan,
}

/// Whether styles are written at all.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    enabled: bool,
}

impl Paint {
    /// Without styles.
    #[cfg(test)]
    pub fn plain() -> Self {
        Self { enabled: false }
    }

    fn choose(choice: ColourChoice, is_terminal: bool) -> Self {
        let enabled = match choice {
            ColourChoice::Always => true,
            ColourChoice::Never => false,
            ColourChoice::Auto => {
                let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                let dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
                is_terminal && !refused && !dumb
            }
        };
        Self { enabled }
    }

    /// The text in a style.
    pub fn style(self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Plain => return text.to_string(),
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Green => "32",
            Style::Yellow => "33",
            Style::Red => "31",
            Style::Cyan => "36",
        };
        if self.enabled { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

/// The two streams.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// Whether results are JSON.
    pub json: bool,
    /// Styles of standard output.
    pub paint: Paint,
    /// Styles of standard error.
    pub note_paint: Paint,
    /// Columns of the terminal; `None` where standard output is none, so that nothing is cut for programs.
    pub width: Option<usize>,
    quiet: bool,
}

impl Output {
    /// Decides by options and by what the streams are.
    pub fn new(json: bool, quiet: bool, colour: ColourChoice) -> Self {
        let terminal = io::stdout().is_terminal();
        let width = terminal.then(|| console::Term::stdout().size_checked()).flatten();
        Self {
            json,
            quiet,
            paint: Paint::choose(colour, terminal),
            note_paint: Paint::choose(colour, io::stderr().is_terminal()),
            width: width.map(|(_, columns)| usize::from(columns).max(40)),
        }
    }

    /// Whether there are to be no notes and no progress.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether progress can be drawn in place.
    pub fn draws_progress(&self) -> bool {
        !self.quiet && io::stderr().is_terminal()
    }

    /// Writes a result as it is.
    pub fn write(&self, text: &str) -> anyhow::Result<()> {
        written(io::stdout().lock().write_all(text.as_bytes()))
    }

    /// Writes a line of results.
    pub fn line(&self, text: &str) -> anyhow::Result<()> {
        self.write(&format!("{text}\n"))
    }

    /// Writes a JSON document on several lines.
    pub fn document(&self, value: &impl Serialize) -> anyhow::Result<()> {
        self.line(&serde_json::to_string_pretty(value)?)
    }

    /// Writes a JSON document on one line.
    pub fn record(&self, value: &impl Serialize) -> anyhow::Result<()> {
        self.line(&serde_json::to_string(value)?)
    }

    /// Tells a person something that isn't a result.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            complain(&format!("{} {text}", self.note_paint.style(Style::Yellow, "note:")));
        }
    }

    /// Tells of something that went wrong without ending the work.
    pub fn error(&self, text: &str) {
        complain(&format!("{} {text}", self.note_paint.style(Style::Red, "error:")));
    }

    /// Makes sure that everything arrived.
    pub fn flush(&self) -> anyhow::Result<()> {
        written(io::stdout().lock().flush())
    }
}

/// Writes a line to standard error; if that is closed there is nobody left to tell.
pub fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn written(result: io::Result<()>) -> anyhow::Result<()> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => anyhow::Error::new(PipeClosed),
        _ => anyhow::Error::new(error).context("standard output"),
    })
}
