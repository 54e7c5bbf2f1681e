//! A page of search results: one HTML file with thumbnails inside, readable anywhere, without JavaScript and without a network.

use std::fmt::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rayon::prelude::*;

use crate::quantities;

/// Longer side of a thumbnail in pixels: twice the size it is shown at, for fine screens.
const THUMBNAIL: u32 = 440;

/// What a page shows.
#[derive(Debug, Clone)]
pub struct Page {
    /// The query in words.
    pub query: String,
    /// Pictures that were searched by.
    pub query_pictures: Vec<std::path::PathBuf>,
    /// The collection.
    pub collection: String,
    /// The model.
    pub model: String,
    /// How long the search took, in seconds.
    pub seconds: f64,
    /// What the scores are, in a sentence.
    pub scores: String,
    /// The rank of the first hit.
    pub first: usize,
    /// The hits, best first.
    pub hits: Vec<PageHit>,
}

/// One hit.
#[derive(Debug, Clone)]
pub struct PageHit {
    /// How good it is.
    pub score: f32,
    /// How unlikely it is by chance, 0..=1.
    pub confidence: Option<f32>,
    /// The file.
    pub path: std::path::PathBuf,
    /// What is known of it.
    pub caption: String,
}

/// What confidence is.
const CONFIDENCE: &str = " Confidence is the probability that no unrelated item would be as near.";

const STYLE: &str = "\
:root { color-scheme: light dark; --back: #f6f6f4; --card: #fff; --ink: #1d1d1b; --soft: #6b6b66; --line: #e2e2dd; --accent: #1f6f54; }
@media (prefers-color-scheme: dark) {
  :root { --back: #161615; --card: #20201f; --ink: #ececea; --soft: #9d9d97; --line: #33332f; --accent: #6fcfa9; }
}
* { box-sizing: border-box; }
body { margin: 0; padding: 2rem clamp(1rem, 4vw, 3rem) 3rem; background: var(--back); color: var(--ink);
  font: 16px/1.45 system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; }
header { display: flex; gap: 1rem; align-items: center; margin-bottom: 1.75rem; }
header img { width: 4.5rem; height: 4.5rem; object-fit: contain; border-radius: .6rem; background: #fff; border: 1px solid var(--line); }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
header p, footer { color: var(--soft); margin: 0; font-size: .9rem; overflow-wrap: anywhere; }
ol { list-style: none; margin: 0; padding: 0; display: grid; gap: 1.1rem; grid-template-columns: repeat(auto-fill, minmax(min(13rem, 100%), 1fr)); }
li { background: var(--card); border: 1px solid var(--line); border-radius: .75rem; overflow: hidden; display: flex; flex-direction: column; }
li > a { display: block; background: #fff; text-decoration: none; }
li img { width: 100%; aspect-ratio: 4 / 3; padding: .7rem; object-fit: contain; display: block; }
.missing { display: grid; place-items: center; aspect-ratio: 4 / 3; padding: 1rem; color: #6b6b66; font-size: .85rem; text-align: center; }
.text { padding: .7rem .85rem .8rem; display: grid; gap: .25rem; }
.first { display: flex; justify-content: space-between; gap: .75rem; font-variant-numeric: tabular-nums; font-size: .85rem; color: var(--soft); }
.score { color: var(--accent); font-weight: 600; }
.caption { overflow-wrap: anywhere; }
.path { color: var(--soft); font-size: .8rem; overflow-wrap: anywhere; }
footer { margin-top: 2rem; }
.nothing { color: var(--soft); font-size: 1.1rem; }
";

impl Page {
    /// The page as HTML. Pictures that can't be read any more are shown as such.
    pub fn html(&self) -> String {
        let cards: Vec<String> =
            self.hits.par_iter().enumerate().map(|(place, hit)| card(self.first + place, hit)).collect();
        let title = escape(&self.query);
        let mut html = String::new();
        let _ = write!(
            html,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"referrer\" content=\"no-referrer\">\n<title>{title} - crossmodal</title>\n<style>\n{STYLE}</style>\n\
             </head>\n<body>\n<header>\n{}<div>\n<h1>{title}</h1>\n<p>{}</p>\n</div>\n</header>\n<main>\n",
            self.query_pictures.iter().map(|path| query_picture(path)).collect::<String>(),
            escape(&self.summary()),
        );
        if cards.is_empty() {
            html.push_str("<p class=\"nothing\">Nothing found.</p>\n");
        } else {
            let _ = write!(html, "<ol>\n{}</ol>\n", cards.concat());
        }
        let _ = write!(
            html,
            "</main>\n<footer>{}{}</footer>\n</body>\n</html>\n",
            escape(&self.scores),
            if self.hits.iter().any(|hit| hit.confidence.is_some()) { CONFIDENCE } else { "" }
        );
        html
    }

    fn summary(&self) -> String {
        let hits = quantities::counted(self.hits.len(), "result");
        format!("{hits} from {} in {}, with {}", self.collection, quantities::duration(self.seconds), self.model)
    }
}

fn query_picture(path: &Path) -> String {
    thumbnail(path)
        .map_or_else(|_| String::new(), |source| format!("<img src=\"{source}\" alt=\"the query picture\">\n"))
}

fn card(rank: usize, hit: &PageHit) -> String {
    let path = escape(&hit.path.display().to_string());
    let caption = escape(&hit.caption);
    let alternative = if caption.is_empty() { &path } else { &caption };
    let picture = match thumbnail(&hit.path) {
        Ok(source) => format!("<img src=\"{source}\" alt=\"{alternative}\">"),
        Err(reason) => format!("<span class=\"missing\">{}</span>", escape(&reason)),
    };
    let caption =
        if caption.is_empty() { String::new() } else { format!("<span class=\"caption\">{caption}</span>\n") };
    let confidence = hit.confidence.map_or_else(String::new, |c| format!("<span>confidence {c:.2}</span>"));
    format!(
        "<li>\n<a href=\"{}\" title=\"{path}\">{picture}</a>\n<div class=\"text\">\n\
         <span class=\"first\"><span>{rank}</span>{confidence}<span class=\"score\">{:.3}</span></span>\n{caption}\
         <span class=\"path\">{path}</span>\n</div>\n</li>\n",
        escape(&file_address(&hit.path)),
        hit.score
    )
}

/// A thumbnail as a data URI, or why there is none.
fn thumbnail(path: &Path) -> Result<String, String> {
    let limit = crossmodal_engine::media::DecodeLimits::default().max_bytes;
    let (bytes, _) = crossmodal_engine::files::read_limited(path, limit)
        .map_err(|error| format!("can't be read any more: {error}"))?;
    let jpeg = crossmodal_engine::media::thumbnail(&bytes, THUMBNAIL).map_err(|error| error.to_string())?;
    Ok(format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg)))
}

/// `file://` and the path, all but plain characters percent-encoded.
fn file_address(path: &Path) -> String {
    let mut address = String::from("file://");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                address.push(char::from(*byte))
            }
            b'\\' if cfg!(windows) => address.push('/'),
            _ => {
                let _ = write!(address, "%{byte:02X}");
            }
        }
    }
    address
}

/// Text made harmless for HTML, attributes included.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            character => escaped.push(character),
        }
    }
    escaped
}

/// Shows a file with the platform's own program for it.
///
/// # Errors
/// Why nothing opened, in words.
pub fn open(path: &Path) -> Result<(), String> {
    use std::process::{Command, Stdio};
    let (program, arguments): (&str, &[&str]) = if cfg!(target_os = "macos") {
        ("open", &[])
    } else if cfg!(windows) {
        ("cmd", &["/C", "start", ""])
    } else {
        ("xdg-open", &[])
    };
    let mut command = Command::new(program);
    command.args(arguments).arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
    // An opener fails quickly, or hands over and ends, or stays for as long as the browser does.
    for _ in 0..20 {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("{program} ended with {status}")),
            Ok(None) => std::thread::sleep(std::time::Duration::from_millis(50)),
            Err(error) => return Err(format!("{program}: {error}")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_foreign_is_escaped() {
        let evil = "<script>alert('x')</script>\" onload=\"y&";
        let page = Page {
            query: evil.into(),
            query_pictures: Vec::new(),
            collection: evil.into(),
            model: evil.into(),
            seconds: 0.1,
            scores: "Scores are cosines.".into(),
            first: 1,
            hits: vec![PageHit { score: 0.5, confidence: Some(0.25), path: evil.into(), caption: evil.into() }],
        };
        let html = page.html();
        assert!(!html.contains("<script") && !html.contains("\" onload"), "{html}");
        assert!(html.contains("&lt;script&gt;") && html.contains("can&#39;t be read any more"));
    }

    #[test]
    fn nothing_found_is_said() {
        let page = Page {
            query: "q".into(),
            query_pictures: Vec::new(),
            collection: "c".into(),
            model: "m".into(),
            seconds: 0.0,
            scores: "Scores are cosines.".into(),
            first: 1,
            hits: Vec::new(),
        };
        assert!(page.html().contains("Nothing found") && page.html().contains("0 results from c"));
    }

    #[cfg(unix)]
    #[test]
    fn addresses_of_odd_files_are_encoded() {
        use std::os::unix::ffi::OsStrExt;
        let path = Path::new(std::ffi::OsStr::from_bytes(b"/a b/caf\xe9#?.png"));
        assert_eq!(file_address(path), "file:///a%20b/caf%E9%23%3F.png");
    }
}
