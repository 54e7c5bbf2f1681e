//! Pictures named on the command line: files as they are, folders as the pictures below them.

use std::path::{Path, PathBuf};

use crossmodal_engine::{Item, files};
use serde_json::Value;

use crate::output::Output;

/// Replaces folders by the pictures below them, named as the folder was. Files are left alone, even those that don't exist:
/// whoever reads them says so.
///
/// # Errors
/// A folder that can't be looked into.
pub fn expand(paths: &[PathBuf], output: &Output) -> anyhow::Result<Vec<PathBuf>> {
    let mut expanded = Vec::new();
    for path in paths {
        if !path.is_dir() {
            expanded.push(path.clone());
            continue;
        }
        let found = files::find(std::slice::from_ref(path))?;
        let root = found.roots.first().cloned().unwrap_or_default();
        for (problem, reason) in &found.problems {
            output.error(&format!("{}: {reason}", problem.display()));
        }
        if found.files.is_empty() {
            output.note(&format!("{}: no pictures", path.display()));
        }
        let named = |file: &PathBuf| file.strip_prefix(&root).map_or_else(|_| file.clone(), |below| path.join(below));
        expanded.extend(found.files.iter().map(named));
    }
    Ok(expanded)
}

/// A path for tables: relative where it lies below the current folder.
pub fn shown(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let below =
        here.as_deref().and_then(|here| path.strip_prefix(here).ok()).filter(|path| !path.as_os_str().is_empty());
    below.unwrap_or(path).display().to_string()
}

/// The file that an item came from.
pub fn path_of(item: &Item) -> PathBuf {
    item.source.as_ref().map_or_else(|| PathBuf::from(&item.id), |source| files::path(&source.uri))
}

/// What to say about an item in a few words: a caption, or else its first text.
pub fn caption(item: &Item) -> String {
    const NAMES: [&str; 7] = ["caption", "title", "description", "text", "label", "name", "alt"];
    let text = |value: &Value| value.as_str().map(str::to_string).filter(|text| !text.trim().is_empty());
    let named = NAMES.iter().find_map(|name| item.metadata.get(*name).and_then(text));
    named.or_else(|| item.metadata.values().find_map(text)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_prefer_their_own_names() {
        let mut item = Item::new("a", "image");
        assert_eq!(caption(&item), "");
        item.metadata.insert("year".into(), 2020.into());
        item.metadata.insert("en".into(), "red apple".into());
        assert_eq!(caption(&item), "red apple");
        item.metadata.insert("title".into(), "An apple".into());
        assert_eq!(caption(&item), "An apple");
    }
}
