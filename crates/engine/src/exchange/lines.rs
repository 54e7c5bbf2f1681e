//! Metadata as JSON lines, matched to rows by their order or by an `id`, without keeping the file in memory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The key that names an item.
const ID: &str = "id";
/// The longest line: what a store takes as metadata, escaped.
const MAX_LINE: u64 = 64 << 20;

/// A file of JSON objects, one a line.
pub(super) struct MetadataLines {
    path: PathBuf,
    file: BufReader<File>,
    /// The line that is read next, from 1.
    line: u64,
    /// Where the object of each id lies and in which line; `None` when objects go by the order of lines.
    places: Option<HashMap<String, (u64, u64)>>,
    found: usize,
}

impl MetadataLines {
    /// Opens a file and looks through it: either all objects have an `id` or none has; without, there must be `rows` of them.
    ///
    /// # Errors
    /// A file that can't be read, a line that isn't an object, ids that appear twice or only sometimes, another number of lines.
    pub fn open(path: &Path, rows: usize) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::io(path, error))?;
        let file = BufReader::with_capacity(1 << 20, file);
        let mut lines = Self { path: path.to_path_buf(), file, line: 1, places: None, found: 0 };
        let (mut count, mut offset, mut places) = (0, 0, HashMap::new());
        while let Some(Line { length, object }) = lines.read()? {
            let line = lines.line - 1;
            if let Some(object) = object {
                count += 1;
                if let Some(id) = object.get(ID) {
                    let id = id_text(id)
                        .ok_or_else(|| lines.wrong(line, format!("has the id {id}, expected text or an integer")))?;
                    if places.insert(id.clone(), (offset, line)).is_some() {
                        return Err(lines.wrong(line, format!("a second row about {id:?}")));
                    }
                }
                if !places.is_empty() && places.len() != count {
                    return Err(lines.wrong(line, "only some rows have an \"id\", expected all or none".into()));
                }
            }
            offset += length;
        }
        if places.is_empty() && count != rows {
            let reason = format!("holds {count} rows without an \"id\", expected one for each of the {rows} vectors");
            return Err(Error::file(path, reason));
        }
        lines.places = (!places.is_empty()).then_some(places);
        lines.seek(0, 1)?;
        Ok(lines)
    }

    /// The object of the next row, whose id is `id`; empty where the file has none.
    pub fn of(&mut self, id: &str) -> Result<Map<String, Value>> {
        if let Some(places) = &self.places {
            let Some((offset, line)) = places.get(id).copied() else {
                return Ok(Map::new());
            };
            // Most files are in the order of the rows: seeking within the buffer keeps it.
            self.seek(offset, line)?;
        }
        while let Some(Line { object, .. }) = self.read()? {
            if let Some(mut object) = object {
                self.found += 1;
                object.shift_remove(ID);
                return Ok(object);
            }
        }
        Err(Error::file(&self.path, "became shorter while it was read"))
    }

    /// Rows that were not asked for.
    pub fn unmatched(&self) -> usize {
        self.places.as_ref().map_or(0, |places| places.len().saturating_sub(self.found))
    }

    fn seek(&mut self, offset: u64, line: u64) -> Result<()> {
        let failed = |error| Error::io(&self.path, error);
        let place = self.file.stream_position().map_err(failed)?;
        match i64::try_from(offset).ok().zip(i64::try_from(place).ok()) {
            Some((offset, place)) => self.file.seek_relative(offset - place).map_err(failed)?,
            None => drop(self.file.seek(SeekFrom::Start(offset)).map_err(failed)?),
        }
        self.line = line;
        Ok(())
    }

    /// The next line; none at the end.
    fn read(&mut self) -> Result<Option<Line>> {
        let mut bytes = Vec::new();
        let read = (&mut self.file).take(MAX_LINE).read_until(b'\n', &mut bytes);
        let length = read.map_err(|error| Error::io(&self.path, error))? as u64;
        if length == 0 {
            return Ok(None);
        }
        let line = self.line;
        self.line += 1;
        if length == MAX_LINE {
            return Err(self.wrong(line, format!("is longer than {MAX_LINE} bytes")));
        }
        let text = if line == 1 { bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes) } else { &bytes };
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(Some(Line { length, object: None }));
        }
        let object =
            serde_json::from_slice(text).map_err(|error| self.wrong(line, format!("not a JSON object: {error}")))?;
        Ok(Some(Line { length, object: Some(object) }))
    }

    fn wrong(&self, line: u64, reason: String) -> Error {
        Error::Metadata { path: self.path.clone(), line, reason }
    }
}

/// A line of the file.
struct Line {
    /// Bytes, the end of the line included.
    length: u64,
    /// None for an empty line.
    object: Option<Map<String, Value>>,
}

fn id_text(id: &Value) -> Option<String> {
    match id {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(text: &str, rows: usize) -> Result<MetadataLines> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.jsonl");
        std::fs::write(&path, text).unwrap();
        MetadataLines::open(&path, rows)
    }

    #[test]
    fn rows_go_by_order_or_by_id() {
        let mut lines = open("\u{feff}{\"n\": 1}\n\n{\"n\": 2}", 2).unwrap();
        assert_eq!(lines.of("x").unwrap()["n"], 1);
        assert_eq!(lines.of("y").unwrap()["n"], 2);
        let mut lines = open("{\"id\": 7, \"n\": 1}\r\n{\"id\": \"a\", \"n\": 2}\n{\"id\": \"b\"}\n", 5).unwrap();
        for _ in 0..2 {
            assert_eq!(lines.of("a").unwrap()["n"], 2);
            assert_eq!(serde_json::Value::from(lines.of("7").unwrap()), serde_json::json!({"n": 1}));
        }
        assert!(lines.of("none").unwrap().is_empty());
        let mut lines = open("{\"id\": 7}\n{\"id\": 8}\n", 5).unwrap();
        lines.of("8").unwrap();
        assert_eq!(lines.unmatched(), 1);
    }

    #[test]
    fn errors_name_the_line() {
        let cases = [
            ("{\"n\": 1}\nnope\n", ":2: not a JSON object"),
            ("{\"id\": 1}\n{\"id\": 1}\n", ":2: a second row about \"1\""),
            ("{\"id\": 1}\n{\"n\": 1}\n", ":2: only some rows have"),
            ("{\"n\": 1}\n{\"id\": 1}\n", ":2: only some rows have"),
            ("{\"id\": [1]}\n", ":1: has the id [1]"),
            ("{\"n\": 1}\n", "holds 1 rows without an \"id\", expected one for each of the 2 vectors"),
        ];
        for (text, expected) in cases {
            let error = open(text, 2).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
