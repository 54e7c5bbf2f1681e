//! Live displays on standard error: one for indexing, one for downloads. Plain lines now and then where it isn't a terminal.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossmodal_engine::ingest::{Events, Progress};
use crossmodal_engine::upkeep::KeeperWatch;
use crossmodal_engine::{ModelEvent, ModelEvents};
use crossmodal_train::trainer::Event;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::{Output, complain};
use crate::quantities;

/// Time between plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

fn bar(output: &Output, template: &str) -> ProgressBar {
    let target = if output.draws_progress() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(None, target).with_style(style.progress_chars("━╸─"))
}

fn bar_template(output: &Output) -> &'static str {
    // A style without colours, since `indicatif` decides about colours on its own.
    if output.note_paint.style(crate::output::Style::Cyan, "").is_empty() {
        "{prefix} {bar:28} {msg}"
    } else {
        "{prefix} {bar:28.cyan/dim} {msg}"
    }
}

/// Progress through a known number of steps.
pub struct Steps {
    bar: ProgressBar,
}

impl Steps {
    /// A display of what is being done.
    pub fn new(output: &Output, what: &'static str) -> Self {
        let bar = bar(output, bar_template(output));
        bar.set_prefix(what);
        Self { bar }
    }

    /// So many of so many steps are done.
    pub fn at(&self, done: usize, all: usize) {
        self.bar.set_length(all as u64);
        self.bar.set_position(done as u64);
        self.bar.set_message(format!("{done} of {all}"));
    }

    /// Removes the display.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Progress of indexing.
pub struct Indexing {
    bar: ProgressBar,
    output: Output,
    last: Arc<Mutex<Instant>>,
}

impl Indexing {
    /// A display that shows that something is going on until the first event.
    pub fn new(output: &Output) -> Self {
        let bar = bar(output, "{spinner} {msg}");
        bar.set_message("looking for pictures");
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar, output: *output, last: Arc::new(Mutex::new(Instant::now())) }
    }

    /// Where the events go. What becomes of an index that is kept meanwhile is shown beside them.
    pub fn events(&self, index: Option<KeeperWatch>) -> Events {
        if self.output.is_quiet() {
            return Events::none();
        }
        let (bar, output, last) = (self.bar.clone(), self.output, Arc::clone(&self.last));
        Events::to(move |progress| {
            if output.draws_progress() {
                draw(&bar, &output, progress, index.as_ref());
            } else {
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                if last.elapsed() >= PLAIN_EVERY {
                    *last = Instant::now();
                    let total = quantities::count(progress.total as u64);
                    let done = quantities::count(progress.done as u64);
                    complain(&format!("{done} of {total}, {}{}", state(progress), building(index.as_ref())));
                }
            }
        })
    }

    /// Removes the display.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn draw(bar: &ProgressBar, output: &Output, progress: &Progress, index: Option<&KeeperWatch>) {
    if bar.length().is_none() {
        bar.disable_steady_tick();
        if let Ok(style) = ProgressStyle::with_template(bar_template(output)) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar.set_prefix("indexing");
        bar.set_length(progress.total as u64);
    }
    bar.set_position(progress.done as u64);
    let counts = format!("{}/{}", quantities::count(progress.done as u64), quantities::count(progress.total as u64));
    bar.set_message(format!("{counts}  {}{}", state(progress), building(index)));
    bar.tick();
}

/// How far a build of the index is, in words; nothing where there is none.
fn building(index: Option<&KeeperWatch>) -> String {
    match index.and_then(|index| index.state().building) {
        Some((done, all)) if all > 0 => format!("  index {:.0} %", done as f64 / all as f64 * 100.0),
        Some(_) => "  index".to_owned(),
        None => String::new(),
    }
}

/// Rate, time left and bottleneck in words.
fn state(progress: &Progress) -> String {
    let mut text = quantities::rate(progress.done, progress.seconds);
    let remaining = progress.total.saturating_sub(progress.done);
    // An early estimate would only jump about.
    if progress.done > 0 && remaining > 0 && progress.seconds > 0.5 {
        let left = progress.seconds * remaining as f64 / progress.done as f64;
        text.push_str(&format!("  {} left", quantities::estimate(left)));
    }
    if let Some((stage, share)) = progress.bottleneck.filter(|_| remaining > 0) {
        text.push_str(&format!("  mostly {} ({:.0} %)", stage.as_str(), share.min(1.0) * 100.0));
    }
    text
}

/// Progress of training.
pub struct Training {
    bar: ProgressBar,
    output: Output,
    last: Mutex<Instant>,
}

impl Training {
    /// A display that shows that something is going on until the first step.
    pub fn new(output: &Output) -> Self {
        let bar = bar(output, bar_template(output));
        bar.set_prefix("training");
        Self { bar, output: *output, last: Mutex::new(Instant::now()) }
    }

    /// Shows an event.
    pub fn hear(&self, event: &Event) {
        match event {
            Event::Started { step, steps, .. } => {
                self.bar.set_length(*steps);
                self.bar.set_position(*step);
            }
            Event::Step(report) => {
                let line = format!(
                    "step {}/{}  loss {:.4}  accuracy {:.1} %  {}  {} left",
                    quantities::count(report.step),
                    quantities::count(report.steps),
                    report.loss,
                    100.0 * report.accuracy,
                    quantities::rate((report.samples_per_second * 1000.0) as usize, 1000.0),
                    quantities::estimate(report.seconds_left)
                );
                self.bar.set_position(report.step);
                self.bar.set_message(line.clone());
                let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                if !self.output.draws_progress() && !self.output.is_quiet() && last.elapsed() >= PLAIN_EVERY {
                    *last = Instant::now();
                    complain(&line);
                }
            }
            Event::Validated { step, validation, best } => {
                let mark = if *best { ", the best so far" } else { "" };
                self.say(&format!("validation after step {step}: {:.1} %{mark}", 100.0 * validation.score));
            }
            Event::Skipped { key, reason } => self.say(&format!("skipped {key}: {reason}")),
            Event::Saved { .. } => {}
        }
    }

    /// A line that stays.
    fn say(&self, line: &str) {
        if !self.output.is_quiet() {
            self.bar.suspend(|| complain(line));
        }
    }

    /// Removes the display.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Progress of downloads; invisible until one begins.
pub struct Download {
    state: Arc<DownloadState>,
}

struct DownloadState {
    bar: ProgressBar,
    output: Output,
    received: AtomicU64,
}

impl Download {
    /// A display for all files of a model.
    pub fn new(output: &Output) -> Self {
        let template =
            "{prefix} {bar:28} {binary_bytes:>10}/{binary_total_bytes:<10} {binary_bytes_per_sec:>12}  {eta} left";
        let state = DownloadState { bar: bar(output, template), output: *output, received: AtomicU64::new(0) };
        Self { state: Arc::new(state) }
    }

    /// Where the events go.
    pub fn events(&self) -> ModelEvents {
        let state = Arc::clone(&self.state);
        Arc::new(move |event| state.hear(event))
    }

    /// Bytes that arrived.
    pub fn received(&self) -> u64 {
        self.state.received.load(Ordering::Relaxed)
    }

    /// Removes the display.
    pub fn finish(&self) {
        self.state.bar.finish_and_clear();
    }
}

impl DownloadState {
    fn hear(&self, event: ModelEvent) {
        match event {
            ModelEvent::DownloadStarted { file, total } => {
                if !self.output.draws_progress() && !self.output.is_quiet() {
                    complain(&format!("downloading {file} ({})", quantities::bytes(total)));
                }
                self.bar.reset();
                self.bar.set_length(total);
                self.bar.set_prefix(file);
            }
            ModelEvent::DownloadAdvanced { bytes } => {
                self.received.fetch_add(bytes, Ordering::Relaxed);
                self.bar.inc(bytes);
            }
            ModelEvent::DownloadFinished { .. } => self.bar.tick(),
        }
    }
}
