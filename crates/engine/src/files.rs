//! Finding files, and naming them in a way that survives JSON and SQL.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;

use crate::error::{Error, Result};

/// Endings of picture files, in lower case. Files without an ending are looked into; others are not picture files.
const PICTURE_ENDINGS: [&str; 12] =
    ["jpg", "jpeg", "jpe", "jfif", "png", "gif", "webp", "bmp", "dib", "tif", "tiff", "apng"];

/// What a walk over folders found.
#[derive(Debug, Default)]
pub struct Found {
    /// Absolute paths of files to read, each once, in order.
    pub files: Vec<PathBuf>,
    /// The roots as absolute paths.
    pub roots: Vec<PathBuf>,
    /// Paths that couldn't be looked into, with reasons: forbidden folders, broken links, loops.
    pub problems: Vec<(PathBuf, String)>,
    /// Number of files passed over because they aren't pictures by their names.
    pub others: usize,
}

/// Walks `paths`: files are taken whatever their name, folders are searched for pictures. Hidden files and what
/// `.gitignore` and `.ignore` files name are passed over; symbolic links are followed, loops are not.
///
/// # Errors
/// A path that doesn't exist: nothing is read then, so that a mistyped or unmounted folder can't empty a collection.
pub fn find(paths: &[PathBuf]) -> Result<Found> {
    let mut found = Found::default();
    let mut files = BTreeSet::new();
    for path in paths {
        let root = path.canonicalize().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::NotFound(format!("{}: no such file or folder", path.display())),
            _ => Error::io(path, error),
        })?;
        if root.is_dir() {
            walk(&root, &mut files, &mut found);
        } else {
            files.insert(root.clone());
        }
        found.roots.push(root);
    }
    found.files = files.into_iter().collect();
    Ok(found)
}

fn walk(root: &Path, files: &mut BTreeSet<PathBuf>, found: &mut Found) {
    let walker = WalkBuilder::new(root).follow_links(true).require_git(false).build();
    for entry in walker {
        match entry {
            Ok(entry) if entry.file_type().is_some_and(|kind| kind.is_file()) => {
                let path = entry.into_path();
                if looks_like_picture(&path) {
                    files.insert(path);
                } else {
                    found.others += 1;
                }
            }
            Ok(_) => {}
            Err(error) => {
                let path = path_of(&error).unwrap_or(root).to_path_buf();
                found.problems.push((path, without_path(&error)));
            }
        }
    }
}

fn path_of(error: &ignore::Error) -> Option<&Path> {
    match error {
        ignore::Error::WithPath { path, .. } => Some(path),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => path_of(err),
        ignore::Error::Loop { child, .. } => Some(child),
        _ => None,
    }
}

fn without_path(error: &ignore::Error) -> String {
    match error {
        ignore::Error::WithPath { err, .. }
        | ignore::Error::WithDepth { err, .. }
        | ignore::Error::WithLineNumber { err, .. } => without_path(err),
        ignore::Error::Loop { ancestor, .. } => format!("a symbolic link back to {}, not followed", ancestor.display()),
        other => other.to_string(),
    }
}

fn looks_like_picture(path: &Path) -> bool {
    match path.extension() {
        Some(ending) => {
            let ending = ending.to_string_lossy().to_ascii_lowercase();
            PICTURE_ENDINGS.contains(&ending.as_str())
        }
        None => starts_like_picture(path),
    }
}

fn starts_like_picture(path: &Path) -> bool {
    use std::io::Read;
    let mut start = [0; 16];
    let read = std::fs::File::open(path).and_then(|mut file| file.read(&mut start));
    read.is_ok_and(|length| crossmodal_models::media::sniff(&start[..length]).is_some())
}

/// A path as text: UTF-8 paths as they are; in others each byte that isn't UTF-8 becomes `\xNN`.
pub fn uri(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02X}"));
        }
    }
    text
}

/// The path that [`uri`] named.
pub fn path(uri: &str) -> PathBuf {
    let plain = PathBuf::from(uri);
    if !uri.contains("\\x") || plain.exists() {
        return plain;
    }
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStringExt;
        PathBuf::from(std::ffi::OsString::from_vec(unescape(uri)))
    }
    #[cfg(not(unix))]
    plain
}

#[cfg(unix)]
fn unescape(uri: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(uri.len());
    let mut rest = uri;
    while let Some(at) = rest.find("\\x") {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let code = rest.get(at + 2..at + 4).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[at + 4..];
            }
            None => {
                bytes.extend_from_slice(b"\\x");
                rest = &rest[at + 2..];
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_pictures_once_and_leaves_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("sub")).unwrap();
        for name in ["b.JPG", "a.png", "sub/c.webp", "notes.txt", ".hidden.png", "ignored.png"] {
            std::fs::write(root.join(name), b"x").unwrap();
        }
        std::fs::write(root.join(".ignore"), "ignored.png\n").unwrap();
        std::fs::write(root.join("bare"), b"\xff\xd8\xff\xe0 0123456789abcdef").unwrap();
        std::fs::write(root.join("README"), b"plain words, no picture").unwrap();
        let found = find(&[root.clone(), root.join("a.png"), root.join("sub")]).unwrap();
        let names: Vec<_> =
            found.files.iter().map(|file| file.strip_prefix(&root).unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.png", "b.JPG", "bare", "sub/c.webp"]);
        assert_eq!(found.others, 2);
    }

    #[test]
    fn a_missing_root_is_an_error_that_names_it() {
        let error = find(&[PathBuf::from("/no/such/folder")]).unwrap_err().to_string();
        assert_eq!(error, "/no/such/folder: no such file or folder");
    }

    #[cfg(unix)]
    #[test]
    fn link_loops_are_reported_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.png"), b"x").unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("again")).unwrap();
        let found = find(&[dir.path().to_path_buf()]).unwrap();
        assert_eq!(found.files.len(), 1);
        assert_eq!(found.problems.len(), 1);
        assert!(found.problems[0].1.contains("symbolic link"), "{}", found.problems[0].1);
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_not_utf8_survive_as_text() {
        use std::os::unix::ffi::OsStringExt;
        for raw in [&b"/a/caf\xe9.png"[..], b"/a/\xff\xfe", b"/plain", b"/h\xc3\xa9"] {
            let original = PathBuf::from(std::ffi::OsString::from_vec(raw.to_vec()));
            assert_eq!(path(&uri(&original)), original);
        }
    }
}
