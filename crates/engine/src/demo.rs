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

#[cfg(test)]
mod tests {
    use super::*;

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
