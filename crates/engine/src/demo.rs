//! The gallery that comes with the program, so that it shows something without a network.

use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};

use crate::error::{Error, Result};

/// 240 emoji drawings of Twemoji 15, with captions in four languages and their licence.
static GALLERY: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../samples/gallery");

/// Name of the captions file within the gallery.
pub const CAPTIONS: &str = "captions.csv";

/// Where the drawings come from and under which terms.
pub const CREDIT: &str = "Twemoji 15 graphics, copyright Twitter, Inc and other contributors, CC-BY 4.0; captions from \
    Unicode CLDR 48, Unicode License v3";

/// Writes the gallery into `folder`, which is created, and returns the paths of its pictures. Files that are there already
/// with the right size are left alone.
///
/// # Errors
/// A folder or file that can't be written.
pub fn unpack(folder: &Path) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
    let mut pictures = Vec::new();
    for file in GALLERY.files() {
        let path = folder.join(file.path());
        let there = path.metadata().is_ok_and(|metadata| metadata.len() == file.contents().len() as u64);
        if !there {
            std::fs::write(&path, file.contents()).map_err(|error| Error::io(&path, error))?;
        }
        if path.extension().is_some_and(|ending| ending == "png") {
            pictures.push(path);
        }
    }
    pictures.sort();
    Ok(pictures)
}

/// A picture of the gallery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawing {
    /// File name.
    pub name: &'static str,
    /// The file's bytes.
    pub bytes: &'static [u8],
    /// Its name in the languages asked for.
    pub captions: Vec<String>,
}

/// The gallery's pictures with their names in these languages (`en`, `fr`, `es`, `de`), in the order of the captions file.
///
/// # Errors
/// A language that there are no captions in.
pub fn captioned(languages: &[&str]) -> Result<Vec<Drawing>> {
    let text = GALLERY.get_file(CAPTIONS).map(|file| file.contents()).unwrap_or_default();
    let mut reader = csv::Reader::from_reader(text);
    let damaged = |error: csv::Error| Error::Invalid(format!("{CAPTIONS} of the gallery: {error}"));
    let header = reader.headers().map_err(damaged)?.clone();
    let column = |language: &&str| {
        let found = header.iter().position(|name| name == *language && name != "file");
        found.ok_or_else(|| Error::Invalid(format!("the gallery has no captions in {language:?}")))
    };
    let columns = languages.iter().map(column).collect::<Result<Vec<usize>>>()?;
    let mut drawings = Vec::new();
    for record in reader.records() {
        let record = record.map_err(damaged)?;
        let Some(file) = record.get(0).and_then(|name| GALLERY.get_file(name)) else { continue };
        let captions = columns.iter().filter_map(|column| record.get(*column)).map(str::to_string).collect();
        drawings.push(Drawing { name: file.path().to_str().unwrap_or_default(), bytes: file.contents(), captions });
    }
    Ok(drawings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drawing_has_its_names() {
        let drawings = captioned(&["en", "fr"]).unwrap();
        assert_eq!(drawings.len(), 240);
        assert!(drawings.iter().all(|drawing| drawing.captions.len() == 2 && drawing.name.ends_with(".png")));
        let apple = drawings.iter().find(|drawing| drawing.name == "1f34e.png").unwrap();
        assert_eq!(apple.captions, ["red apple", "pomme rouge"]);
        assert!(captioned(&["xx"]).unwrap_err().to_string().contains("xx"));
    }

    #[test]
    fn the_gallery_unpacks_whole_and_twice() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let pictures = unpack(dir.path()).unwrap();
            assert_eq!(pictures.len(), 240);
        }
        assert!(dir.path().join(CAPTIONS).exists() && dir.path().join("LICENSE").exists());
    }
}
