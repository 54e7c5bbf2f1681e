//! A page about a run: curves and example retrievals in one HTML file, readable anywhere, without JavaScript and without a network.

mod chart;

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::trainer::RunFolder;
use chart::{Chart, Series};

/// What a model answers to a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The query in words.
    pub query: String,
    /// The answers, best first.
    pub answers: Vec<Answer>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// A picture as the bytes of a PNG or JPEG file.
    pub picture: Vec<u8>,
    /// What the picture is called.
    pub caption: String,
    /// The cosine with the query.
    pub score: f32,
    /// Whether it is the right answer.
    pub right: bool,
}

const STYLE: &str = "\
:root { color-scheme: light dark; --back: #f6f6f4; --card: #fff; --ink: #1d1d1b; --soft: #6b6b66; --line: #e2e2dd; --accent: #1f6f54; --other: #b4632a; }
@media (prefers-color-scheme: dark) {
  :root { --back: #161615; --card: #20201f; --ink: #ececea; --soft: #9d9d97; --line: #33332f; --accent: #6fcfa9; --other: #e39a63; }
}
* { box-sizing: border-box; }
body { margin: 0; padding: 2rem clamp(1rem, 4vw, 3rem) 3rem; background: var(--back); color: var(--ink); font: 16px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .8rem; } p { color: var(--soft); margin: 0; }
.charts { display: grid; gap: 1.1rem; grid-template-columns: repeat(auto-fill, minmax(min(26rem, 100%), 1fr)); margin-top: 1.5rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: .75rem; padding: .8rem 1rem; }
figcaption { font-weight: 600; margin-bottom: .3rem; } svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; } .grid { stroke: var(--line); } .faint { stroke: var(--accent); opacity: .25; }
.line0 { stroke: var(--accent); } .line1 { stroke: var(--other); } .dot0 { fill: var(--accent); } .dot1 { fill: var(--other); }
.example { margin: 0 0 1.2rem; } .answers { display: flex; gap: .6rem; flex-wrap: wrap; margin-top: .4rem; }
.answer { width: 7.5rem; background: var(--card); border: 1px solid var(--line); border-radius: .6rem; overflow: hidden; font-size: .8rem; }
.answer.right { border: 2px solid var(--accent); } .answer img { width: 100%; aspect-ratio: 1; object-fit: contain; background: #fff; display: block; }
.answer div { padding: .3rem .5rem .45rem; color: var(--soft); overflow-wrap: anywhere; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .2rem 1.2rem .2rem 0; font-variant-numeric: tabular-nums; }
";

/// Writes the report of a run from its log.
///
/// # Errors
/// A log that can't be read, or a report that can't be written.
pub fn write(folder: &RunFolder, examples: &[Example]) -> Result<()> {
    let log = folder.log();
    let text = std::fs::read_to_string(&log).map_err(|source| Error::File { path: log.clone(), source })?;
    let title = folder.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let page = html(&title, &entries(&text, &log)?, examples);
    let place = folder.report();
    crossmodal_models::training::replace_file(&place, |file| {
        use std::io::Write as _;
        let failed = |source| crossmodal_models::Error::Io { path: place.clone(), source };
        file.write_all(page.as_bytes()).map_err(failed)
    })?;
    Ok(())
}

fn entries(text: &str, path: &Path) -> Result<Vec<Value>> {
    let parse = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| {
            Error::Invalid(format!("{}: line {}: not a JSON object: {error}", path.display(), number + 1))
        })
    };
    text.lines().enumerate().map(parse).collect()
}

fn html(title: &str, entries: &[Value], examples: &[Example]) -> String {
    let steps: Vec<&Value> = entries.iter().filter(|entry| entry["event"] == "step").collect();
    let validations: Vec<&Value> = entries.iter().filter(|entry| entry["event"] == "validation").collect();
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{0}</title><style>{STYLE}</style></head><body>\n<h1>{0}</h1>\n",
        escaped(title)
    );
    if let Some(last) = steps.last() {
        let number = |field: &str| last[field].as_f64().unwrap_or_default();
        let _ = writeln!(
            page,
            "<p>{} steps, {} samples, loss {:.4}, accuracy in a batch {:.1} %, {} samples skipped.</p>",
            last["step"],
            last["samples"],
            number("loss"),
            100.0 * number("accuracy"),
            last["skipped"]
        );
    }
    page.push_str("<div class=\"charts\">\n");
    for (field, caption) in [
        ("loss", "Loss"),
        ("accuracy", "Accuracy in a batch"),
        ("learning_rate_factor", "Factor on learning rates"),
        ("gradient_norm", "Norm of the gradients"),
        ("logit_scale", "Logit scale"),
    ] {
        let points = points(&steps, |entry| entry[field].as_f64());
        let smooth = matches!(field, "loss" | "accuracy" | "gradient_norm");
        push_chart(&mut page, &Chart { caption, series: vec![Series { name: field.to_string(), points }], smooth });
    }
    let names: Vec<String> = validations
        .first()
        .and_then(|entry| entry["metrics"].as_object())
        .map_or_else(Vec::new, |metrics| metrics.keys().cloned().collect());
    for name in &names {
        let points = points(&validations, |entry| entry["metrics"][name.as_str()].as_f64());
        push_chart(
            &mut page,
            &Chart { caption: name, series: vec![Series { name: name.clone(), points }], smooth: false },
        );
    }
    page.push_str("</div>\n");
    push_examples(&mut page, examples);
    page.push_str("</body></html>\n");
    page
}

fn points(entries: &[&Value], value: impl Fn(&Value) -> Option<f64>) -> Vec<(f64, f64)> {
    entries.iter().filter_map(|entry| Some((entry["step"].as_f64()?, value(entry)?))).collect()
}

fn push_chart(page: &mut String, chart: &Chart<'_>) {
    if let Some(svg) = chart.svg() {
        let _ = writeln!(page, "<figure><figcaption>{}</figcaption>{svg}</figure>", escaped(chart.caption));
    }
}

fn push_examples(page: &mut String, examples: &[Example]) {
    if examples.is_empty() {
        return;
    }
    page.push_str("<h2>What the model finds</h2>\n");
    for Example { query, answers } in examples {
        let _ = write!(page, "<div class=\"example\"><b>{}</b><div class=\"answers\">", escaped(query));
        for Answer { picture, caption, score, right } in answers {
            let kind = if picture.starts_with(b"\x89PNG") { "png" } else { "jpeg" };
            let (class, data) = (if *right { "answer right" } else { "answer" }, base64(picture));
            let _ = write!(
                page,
                "<div class=\"{class}\"><img alt=\"\" src=\"data:image/{kind};base64,{data}\"><div>{score:.3} {}</div></div>",
                escaped(caption)
            );
        }
        page.push_str("</div></div>\n");
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().enumerate().fold(0u32, |word, (at, byte)| word | u32::from(*byte) << (16 - 8 * at));
        for at in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_equals_the_published_examples() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn a_page_shows_curves_metrics_and_examples_and_nothing_from_outside() {
        let log = (1..=30)
            .map(|step| {
                format!(
                    "{{\"event\":\"step\",\"step\":{step},\"loss\":{},\"accuracy\":0.5,\"samples\":9}}\n",
                    30 - step
                )
            })
            .collect::<String>();
        let log = log + "{\"event\":\"validation\",\"step\":30,\"metrics\":{\"recall\":0.25}}\n";
        let entries = entries(&log, Path::new("log.jsonl")).unwrap();
        let answer = Answer { picture: b"\x89PNG".to_vec(), caption: "<cat>".into(), score: 0.5, right: true };
        let page = html("run", &entries, &[Example { query: "a & b".into(), answers: vec![answer] }]);
        for part in ["<figcaption>Loss<", "<figcaption>recall<", "a &amp; b", "&lt;cat&gt;", "answer right", "30 steps"]
        {
            assert!(page.contains(part), "{part}");
        }
        assert!(!page.contains("http") && !page.contains("<script"));
        let wrong = super::entries("{}\nnonsense\n", Path::new("log.jsonl")).unwrap_err().to_string();
        assert!(wrong.contains("log.jsonl: line 2"), "{wrong}");
    }
}
