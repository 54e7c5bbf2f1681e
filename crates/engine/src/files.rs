//! Finding files, and naming them in a way that survives JSON and SQL.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;

use crate::error::{Error, Result};

/// Endings of picture files, in lower case. Files without an ending are looked into; others are not picture files.
const PICTURE_ENDINGS: [&str; 12] =
    ["jpg", "jpeg", "jpe", "jfif", "png", "gif", "webp", "bmp", "dib", "tif", "tiff", "apng"];

/// Endings of picture files in formats that aren't read, in lower case: they are counted apart, so that nobody misses them
/// unawares.
const UNREAD_ENDINGS: [&str; 16] =
    ["heic", "heif", "avif", "jxl", "jp2", "psd", "svg", "cr2", "cr3", "nef", "arw", "dng", "orf", "rw2", "raf", "exr"];

/// What a walk over folders found.
#[derive(Debug, Default)]
pub struct Found {
    /// Absolute paths of files to read, each once, in order.
    pub files: Vec<PathBuf>,
    /// The roots as absolute paths.
    pub roots: Vec<PathBuf>,
    /// Paths that couldn't be looked into, with reasons: forbidden folders, broken links.
    pub problems: BTreeMap<PathBuf, String>,
    /// Number of picture files in formats that aren't read, by ending.
    pub unread: BTreeMap<String, usize>,
    /// Number of entries passed over: files that aren't pictures by their names, links back to a folder around them.
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
                let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
                if looks_like_picture(&path, ending.as_deref()) {
                    files.insert(path);
                } else if let Some(ending) = ending.filter(|ending| UNREAD_ENDINGS.contains(&ending.as_str())) {
                    *found.unread.entry(ending).or_default() += 1;
                } else {
                    found.others += 1;
                }
            }
            Ok(_) => {}
            Err(error) if is_loop(&error) => found.others += 1,
            Err(error) => {
                let path = path_of(&error).unwrap_or(root).to_path_buf();
                found.problems.insert(path, without_path(&error));
            }
        }
    }
}

fn path_of(error: &ignore::Error) -> Option<&Path> {
    match error {
        ignore::Error::WithPath { path, .. } => Some(path),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => path_of(err),
        _ => None,
    }
}

fn is_loop(error: &ignore::Error) -> bool {
    match error {
        ignore::Error::Loop { .. } => true,
        ignore::Error::WithPath { err, .. } | ignore::Error::WithDepth { err, .. } => is_loop(err),
        _ => false,
    }
}

fn without_path(error: &ignore::Error) -> String {
    match error {
        ignore::Error::WithPath { err, .. }
        | ignore::Error::WithDepth { err, .. }
        | ignore::Error::WithLineNumber { err, .. } => without_path(err),
        other => other.to_string(),
    }
}

fn looks_like_picture(path: &Path, ending: Option<&str>) -> bool {
    ending.map_or_else(|| starts_like_picture(path), |ending| PICTURE_ENDINGS.contains(&ending))
}

/// Whether a path ends as those of picture files do.
pub(crate) fn has_picture_ending(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    ending.is_some_and(|ending| PICTURE_ENDINGS.contains(&ending.as_str()))
}

fn starts_like_picture(path: &Path) -> bool {
    let mut start = [0; 16];
    let read = std::fs::File::open(path).and_then(|mut file| file.read(&mut start));
    read.is_ok_and(|length| crossmodal_models::media::sniff(&start[..length]).is_some())
}

/// Reads a regular file of at most `limit` bytes, with what the file system knows of it. Pipes and devices are refused: they
/// may never end.
///
/// # Errors
/// A file that can't be read, isn't a regular one, or is too large.
pub fn read_limited(path: &Path, limit: u64) -> Result<(Vec<u8>, Metadata)> {
    let metadata = std::fs::metadata(path).map_err(|error| Error::io(path, error))?;
    let refused = |reason: String| Error::Invalid(format!("{}: {reason}", path.display()));
    if metadata.is_dir() {
        return Err(refused("a folder, expected a file".into()));
    }
    if !metadata.is_file() {
        return Err(refused("neither a file nor a folder".into()));
    }
    let too_large = |size: u64| refused(format!("a file of {size} bytes is over the limit of {limit}"));
    if metadata.len() > limit {
        return Err(too_large(metadata.len()));
    }
    let file = File::open(path).map_err(|error| Error::io(path, error))?;
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    // It may have grown since.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| Error::io(path, error))?;
    if bytes.len() as u64 > limit {
        return Err(too_large(bytes.len() as u64));
    }
    Ok((bytes, metadata))
}

/// Whether the file system says that there is nothing at this path. What can't be looked at isn't gone.
pub fn is_gone(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// A path as text that [`path`] turns back: UTF-8 as it is, each byte that isn't UTF-8 as `\xNN`, and a backslash that
/// would read as the beginning of such an escape as `\x5C`.
pub fn uri(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(at) = rest.find("\\x") {
            let escape = escaped_byte(&rest[at..]).map_or("\\", |_| "\\x5C");
            text.push_str(&rest[..at]);
            text.push_str(escape);
            rest = &rest[at + 1..];
        }
        text.push_str(rest);
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02X}"));
        }
    }
    text
}

/// The path that [`uri`] named.
pub fn path(uri: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(uri.len());
    let mut rest = uri;
    while let Some(at) = rest.find("\\x") {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let (piece, length) = match escaped_byte(&rest[at..]) {
            Some(byte) => (byte, 4),
            None => (b'\\', 1),
        };
        bytes.push(piece);
        rest = &rest[at + length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    from_bytes(bytes)
}

/// The byte that a text beginning with `\xNN` stands for.
fn escaped_byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("\\x")?.get(..2)?;
    u8::from_str_radix(digits, 16).ok().filter(|_| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

#[cfg(unix)]
fn from_bytes(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(not(unix))]
fn from_bytes(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_pictures_once_and_leaves_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("sub")).unwrap();
        for name in ["b.JPG", "a.png", "sub/c.webp", "notes.txt", ".hidden.png", "ignored.png", "d.HEIC", "e.heic"] {
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
        assert_eq!(found.unread, BTreeMap::from([("heic".to_string(), 2)]));
    }

    #[test]
    fn a_missing_root_is_an_error_that_names_it() {
        let error = find(&[PathBuf::from("/no/such/folder")]).unwrap_err().to_string();
        assert_eq!(error, "/no/such/folder: no such file or folder");
    }

    #[cfg(unix)]
    #[test]
    fn link_loops_are_not_followed_and_broken_links_are_told_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.png"), b"x").unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("again")).unwrap();
        std::os::unix::fs::symlink("/no/such/place", dir.path().join("broken")).unwrap();
        let found = find(&[dir.path().to_path_buf(), dir.path().to_path_buf()]).unwrap();
        assert_eq!(found.files.len(), 1);
        let problems: Vec<_> = found.problems.keys().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(problems, ["broken"]);
    }

    #[cfg(unix)]
    #[test]
    fn endless_and_huge_files_are_refused() {
        let message = |path: &Path, limit| read_limited(path, limit).unwrap_err().to_string();
        assert!(message(Path::new("/dev/zero"), 10).contains("neither a file nor a folder"));
        let dir = tempfile::tempdir().unwrap();
        assert!(message(dir.path(), 10).contains("a folder"));
        let path = dir.path().join("eleven");
        std::fs::write(&path, b"01234567890").unwrap();
        assert!(message(&path, 10).contains("11 bytes is over the limit of 10"));
        assert_eq!(read_limited(&path, 11).unwrap().0.len(), 11);
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_not_utf8_survive_as_text() {
        use std::os::unix::ffi::OsStringExt;
        let raw = [
            &b"/a/caf\xe9.png"[..],
            b"/a/caf\\xE9.png",
            b"/a/\xff\xfe",
            b"/plain",
            b"/h\xc3\xa9",
            b"/back\\slash\\x",
            b"/\\\\x41\\x4",
        ];
        let mut seen = BTreeSet::new();
        for raw in raw {
            let original = PathBuf::from(std::ffi::OsString::from_vec(raw.to_vec()));
            assert_eq!(path(&uri(&original)), original);
            assert!(seen.insert(uri(&original)), "{}", uri(&original));
        }
    }
}
