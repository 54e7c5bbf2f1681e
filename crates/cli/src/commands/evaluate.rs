//! `crossmodal evaluate`: how well a model finds pictures by their captions and captions by their pictures, and sorts by classes.

use crossmodal_engine::Modality;
use crossmodal_train::data::DataSet;
use crossmodal_train::eval::{Bootstrap, Estimate};
use crossmodal_train::evaluate::{Direction, Options, Progress, Report, ZeroShot, evaluate};

use super::classify::read_labels;
use crate::arguments::EvaluateArguments;
use crate::failure::Outcome;
use crate::output::{Output, Style};
use crate::progress::Steps;
use crate::settings::{MINI, ModelChoice, Settings};
use crate::table::{Column, Table};
use crate::{interrupt, quantities};

/// Left-out samples that are listed in text.
const LISTED: usize = 10;

/// Runs the command.
pub fn run(arguments: &EvaluateArguments, choice: &ModelChoice, settings: &Settings) -> anyhow::Result<Outcome> {
    let output = &settings.output;
    // What is wrong with the data is told before a model is downloaded.
    let classes = arguments.labels.as_ref().map(read_labels).transpose()?;
    let (part, rule) = arguments.data.split();
    let data = DataSet::open(&arguments.data.data, &arguments.data.columns())?.part(part, &rule)?;
    let model = settings.load(&choice.name(), &arguments.rules)?;
    let templates = match arguments.template.as_slice() {
        [] if model.info().name == MINI => Vec::new(),
        [] => vec!["a photo of a {}".to_string()],
        given => given.to_vec(),
    };
    let options = Options {
        batch_size: arguments.batch_size,
        recall_at: arguments.recall_at.clone(),
        classes,
        templates,
        bootstrap: Bootstrap { resamples: arguments.resamples, level: arguments.level, ..Bootstrap::default() },
    };
    let cancel = interrupt::impatient_token()?;
    let mut stages = Stages { output: *output, shown: None };
    let report = evaluate(model.as_ref(), &data, &options, &cancel, &mut |progress| stages.at(progress));
    stages.finish();
    let report = match report {
        Err(error) if error.is_cancelled() => {
            output.error("interrupted");
            return Ok(Outcome::Interrupted);
        }
        other => other?,
    };
    if output.json {
        output.document(&report)?;
    } else {
        show(&report, output)?;
    }
    Ok(Outcome::Fine)
}

/// One display for each stage.
struct Stages {
    output: Output,
    shown: Option<(&'static str, Steps)>,
}

impl Stages {
    fn at(&mut self, progress: Progress) {
        if self.shown.as_ref().is_none_or(|(stage, _)| *stage != progress.stage) {
            self.finish();
            self.shown = Some((progress.stage, Steps::new(&self.output, progress.stage)));
        }
        if let Some((_, steps)) = &self.shown {
            steps.at(progress.done, progress.all);
        }
    }

    fn finish(&mut self) {
        if let Some((_, steps)) = self.shown.take() {
            steps.finish();
        }
    }
}

/// One thing of a modality.
fn noun(modality: Modality) -> &'static str {
    match modality {
        Modality::Text => "text",
        Modality::Image => "picture",
        Modality::Audio => "sound",
        Modality::Video => "video",
        Modality::Depth => "depth map",
        Modality::Thermal => "thermal picture",
        Modality::Imu => "recording",
    }
}

fn show(report: &Report, output: &Output) -> anyhow::Result<()> {
    let (left, right) = (noun(report.left), noun(report.right));
    let model = output.paint.style(Style::Bold, &report.model);
    let counts =
        format!("{} and {}", quantities::counted(report.items, left), quantities::counted(report.counterparts, right));
    let time = quantities::duration(report.seconds);
    output.line(&format!("{model} on {counts} of {} ({}), in {time}", report.data, report.kind))?;
    if let (Some(by_right), Some(by_left)) = (&report.left_by_right, &report.right_by_left) {
        output.line("")?;
        let names = [format!("{left}s by {right}"), format!("{right}s by {left}")];
        output.write(&retrieval(&names, [by_right, by_left], report.level).render(output.width, output.paint))?;
    }
    if let Some(found) = &report.zero_shot {
        let (count, classes) = (quantities::counted(found.samples, left), quantities::count(found.classes as u64));
        output.line(&format!("\nSorting {count} by {classes} classes, {}", said(&found.templates)))?;
        output.write(&sorting(found, report.level).render(output.width, output.paint))?;
    }
    tell_left_out(report, output);
    Ok(())
}

fn said(templates: &[String]) -> String {
    let quoted: Vec<String> = templates.iter().map(|template| format!("{template:?}")).collect();
    if quoted.is_empty() { "each by its bare name".to_string() } else { format!("each as {}", quoted.join(", ")) }
}

fn percent(value: f64) -> String {
    format!("{:.1} %", 100.0 * value)
}

fn percents(estimate: &Estimate) -> [String; 2] {
    let interval = &estimate.interval;
    [percent(estimate.value), format!("{:.1} to {:.1}", 100.0 * interval.low, 100.0 * interval.high)]
}

fn ranks(estimate: &Estimate) -> [String; 2] {
    let interval = &estimate.interval;
    // Whole numbers and halves but for the ends of intervals, which may lie between two resamples.
    let shown = |rank: f64| format!("{}", (10.0 * rank).round() / 10.0);
    [shown(estimate.value), format!("{} to {}", shown(interval.low), shown(interval.high))]
}

fn shares(estimate: &Estimate) -> [String; 2] {
    let interval = &estimate.interval;
    [format!("{:.3}", estimate.value), format!("{:.3} to {:.3}", interval.low, interval.high)]
}

/// `95 %`.
fn level(level: f64) -> String {
    format!("{} %", (1e4 * level).round() / 100.0)
}

fn retrieval(names: &[String; 2], directions: [&Direction; 2], of_level: f64) -> Table {
    let mut columns = vec![Column::left("")];
    for name in names {
        let value = Column::right(name).style(Style::Green);
        columns.extend([value, Column::left(&level(of_level)).style(Style::Dim)]);
    }
    let mut table = Table::new(columns).indented(2);
    let mut row = |name: String, cells: [[String; 2]; 2]| {
        table.row(std::iter::once(name).chain(cells.into_iter().flatten()).collect());
    };
    let [first, second] = directions;
    for (one, other) in first.recall.iter().zip(&second.recall) {
        row(format!("recall@{}", one.k), [percents(&one.share), percents(&other.share)]);
    }
    row("median rank".into(), directions.map(|direction| ranks(&direction.median_rank)));
    row("mean reciprocal rank".into(), directions.map(|direction| shares(&direction.mean_reciprocal_rank)));
    row("nDCG@10".into(), directions.map(|direction| shares(&direction.ndcg_at_10)));
    table
}

fn sorting(found: &ZeroShot, of_level: f64) -> Table {
    let value = Column::right("right").style(Style::Green);
    let interval = Column::left(&level(of_level)).style(Style::Dim);
    let mut table = Table::new(vec![Column::left(""), value, interval]).indented(2);
    let rows = [("top 1", &found.top_1), ("top 5", &found.top_5), ("top 1, mean over classes", &found.balanced_top_1)];
    for (name, estimate) in rows {
        let [value, interval] = percents(estimate);
        table.row(vec![name.into(), value, interval]);
    }
    table.row(vec!["always the largest class".into(), percent(found.majority_share), String::new()]);
    table
}

fn tell_left_out(report: &Report, output: &Output) {
    for left in report.left_out.iter().take(LISTED) {
        let (key, reason) = (&left.key, &left.reason);
        output.note(&if reason.contains(key) {
            format!("left out: {reason}")
        } else {
            format!("left out: {key}: {reason}")
        });
    }
    let more = report.skipped.saturating_sub(report.left_out.len().min(LISTED) as u64);
    if more > 0 {
        output.note(&format!("and {} more left out", quantities::count(more)));
    }
    if report.truncated > 0 {
        let texts = quantities::counted(report.truncated, "text");
        output.note(&format!("{texts} longer than the model reads, cut"));
    }
}
