//! Folders: files with captions beside them, files in a folder for each class, and what img2dataset writes as files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crossmodal_models::Modality;

use super::collect::{Collected, Collector, Said, known_by};
use super::columns::RightColumn;
use super::modality_of;
use super::record::{Counterpart, Location};
use super::table::{self, Entry, ending};
use crate::error::{Error, Result};

/// Deepest folder that is looked into.
const DEEPEST: usize = 32;
/// Endings of pictures that img2dataset writes.
const WRITTEN: [&str; 4] = ["jpg", "png", "webp", "jpeg"];

/// What lies below a folder, sorted by path, hidden entries left out.
#[derive(Debug, Default)]
pub struct Listing {
    /// Files whose endings tell a modality, with that modality.
    pub media: Vec<(PathBuf, Modality)>,
    /// Texts, `.txt`.
    pub texts: BTreeSet<PathBuf>,
}

impl Listing {
    /// Walks a folder.
    ///
    /// # Errors
    /// A folder that can't be listed, or folders within each other beyond a limit, as links that lead back make them.
    pub fn of(root: &Path) -> Result<Self> {
        let mut listing = Self::default();
        listing.walk(root, 0)?;
        listing.media.sort();
        Ok(listing)
    }

    fn walk(&mut self, folder: &Path, depth: usize) -> Result<()> {
        if depth > DEEPEST {
            let shown = folder.display();
            return Err(Error::Invalid(format!("{shown}: lies {depth} folders deep, expected at most {DEEPEST}")));
        }
        for path in entries(folder)? {
            if path.is_dir() {
                self.walk(&path, depth + 1)?;
                continue;
            }
            let ending = ending(&path);
            if ending == "txt" {
                self.texts.insert(path);
            } else if let Some(modality) = modality_of(&ending) {
                self.media.push((path, modality));
            }
        }
        Ok(())
    }

    /// Whether at least one file has its caption beside it.
    pub fn has_captions(&self) -> bool {
        self.media.iter().any(|(path, _)| self.texts.contains(&path.with_extension("txt")))
    }

    /// The modality of the files.
    ///
    /// # Errors
    /// Files of several modalities: it isn't clear then what the left side is.
    pub fn modality(&self, root: &Path) -> Result<Modality> {
        let kinds: BTreeSet<Modality> = self.media.iter().map(|(_, modality)| *modality).collect();
        let named: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
        match kinds.into_iter().collect::<Vec<_>>().as_slice() {
            [one] => Ok(*one),
            _ => Err(Error::Invalid(format!(
                "{}: files of several kinds ({}), expected one; name pairs in a table",
                root.display(),
                named.join(", ")
            ))),
        }
    }
}

/// What stands in a folder, sorted, hidden entries left out.
pub fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let explain = |source| Error::File { path: folder.to_path_buf(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(explain)? {
        let entry = entry.map_err(explain)?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// The column that samples of folders have.
pub fn column(name: &str) -> Vec<RightColumn> {
    vec![RightColumn::named(name)]
}

/// Files with captions beside them, `a.png` and `a.txt`: each line that isn't empty is a caption. Files without captions are left out and listed.
pub fn with_captions(root: &Path, listing: &Listing) -> Collected {
    let mut collector = Collector::default();
    for (path, _) in &listing.media {
        let known = known_by(path.strip_prefix(root).unwrap_or(path));
        let beside = path.with_extension("txt");
        match std::fs::read_to_string(&beside) {
            Ok(text) => {
                let text = text.trim_start_matches('\u{feff}');
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                let right = lines.map(|line| Counterpart { column: 0, location: Location::Text(line.into()) });
                let said = Said { right: right.collect(), ..Said::default() };
                collector.add(&known, Location::File(path.as_path().into()), said);
            }
            Err(error) => collector.skipped.add(&known, format!("no caption: {}: {error}", beside.display())),
        }
    }
    collector.finish()
}

/// Files in a folder for each class. The caption is the folder's name with spaces for underscores, the class is the name itself; of folders within each other the
/// first one counts. Files that lie in no folder are left out and listed.
pub fn by_class(root: &Path, listing: &Listing) -> Collected {
    let mut collector = Collector::default();
    for (path, _) in &listing.media {
        let below = path.strip_prefix(root).unwrap_or(path);
        let known = known_by(below);
        let mut parts = below.components();
        let class = parts.next().map(|part| part.as_os_str().to_string_lossy().into_owned());
        let (Some(class), Some(_)) = (class, parts.next()) else {
            collector.skipped.add(&known, "lies in no folder, expected one for each class".to_owned());
            continue;
        };
        let caption = class.replace('_', " ");
        let right = vec![Counterpart { column: 0, location: Location::Text(caption.as_str().into()) }];
        let said = Said { right, concept: Some(class.clone()), label: Some(class), ..Said::default() };
        collector.add(&known, Location::File(path.as_path().into()), said);
    }
    collector.finish()
}

/// The parts of what img2dataset writes as files: `00000.parquet` beside the folder `00000`.
pub fn written_parts(root: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let tables = entries(root)?.into_iter().filter(|path| ending(path) == "parquet");
    Ok(tables.map(|table| (table.with_extension(""), table)).filter(|(folder, _)| folder.is_dir()).collect())
}

/// Pictures that img2dataset wrote as files, with what its tables say of them. Rows that weren't downloaded are left out and listed.
///
/// # Errors
/// A table that can't be read.
pub fn written_files(root: &Path, parts: &[(PathBuf, PathBuf)]) -> Result<Collected> {
    let mut collector = Collector::default();
    for (folder, table) in parts {
        for entry in table::rows(table)? {
            let (number, entry) = entry?;
            let place = || format!("{}:{number}", table.display());
            let row = match entry {
                Entry::Row(row) => row,
                Entry::Malformed(reason) => {
                    collector.skipped.add(&place(), reason);
                    continue;
                }
            };
            let text = |name: &str| row.get(name).and_then(serde_json::Value::as_str).map(str::trim);
            let Some(key) = text("key").filter(|key| !key.is_empty()) else {
                collector.skipped.add(&place(), "column \"key\" is empty".to_owned());
                continue;
            };
            if let Some(status) = text("status").filter(|status| *status != "success") {
                let reason = text("error_message").unwrap_or("no reason given");
                collector.skipped.add(key, format!("{status}: {reason}"));
                continue;
            }
            let files = WRITTEN.iter().map(|ending| folder.join(format!("{key}.{ending}")));
            let Some(file) = files.into_iter().find(|file| file.is_file()) else {
                let (shown, known) = (folder.join(key), WRITTEN.join(", "));
                collector.skipped.add(key, format!("no picture {}, tried the endings {known}", shown.display()));
                continue;
            };
            let caption = text("caption").filter(|caption| !caption.is_empty());
            let right = caption.map(|caption| Counterpart { column: 0, location: Location::Text(caption.into()) });
            let said = Said { right: right.into_iter().collect(), ..Said::default() };
            let known = known_by(file.strip_prefix(root).unwrap_or(&file));
            collector.add(&known, Location::File(file.into()), said);
        }
    }
    Ok(collector.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in names {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    fn captions(collected: &Collected, record: usize) -> Vec<&str> {
        collected.records[record].right.iter().map(|right| &**right.location.text().unwrap()).collect()
    }

    #[test]
    fn captions_stand_beside_their_pictures() {
        let names = [
            ("b.png", ""),
            ("b.txt", "red\n\n round \n"),
            ("s/a.JPG", ""),
            ("s/a.txt", "blue"),
            ("c.png", ""),
            (".h.png", ""),
        ];
        let folder = files(&names);
        let listing = Listing::of(folder.path()).unwrap();
        assert!(listing.has_captions());
        assert_eq!(listing.modality(folder.path()).unwrap(), Modality::Image);
        let found = with_captions(folder.path(), &listing);
        let keys: Vec<&str> = found.records.iter().map(|record| &*record.key).collect();
        assert_eq!(keys, ["b.png", "s/a.JPG"]);
        assert_eq!((captions(&found, 0), captions(&found, 1)), (vec!["red", "round"], vec!["blue"]));
        assert_eq!(found.skipped.listed()[0].0, "c.png");
    }

    #[test]
    fn folders_are_classes() {
        let folder = files(&[("fire_truck/a.png", ""), ("cat/x/b.png", ""), ("cat/c.png", ""), ("lone.png", "")]);
        let listing = Listing::of(folder.path()).unwrap();
        assert!(!listing.has_captions());
        let found = by_class(folder.path(), &listing);
        assert_eq!(found.labels, ["cat", "fire_truck"]);
        assert_eq!(captions(&found, 2), ["fire truck"]);
        assert_eq!(found.records[2].label, Some(1));
        assert_eq!(found.skipped.listed()[0].0, "lone.png");
    }

    #[test]
    fn files_of_several_kinds_are_refused() {
        let folder = files(&[("a.png", ""), ("b.wav", "")]);
        let error = Listing::of(folder.path()).unwrap().modality(folder.path()).unwrap_err().to_string();
        assert!(error.contains("files of several kinds (image, audio)"), "{error}");
    }
}
