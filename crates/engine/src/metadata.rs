//! Metadata files: CSV or JSON lines that say something about each picture.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Names of the column that says which file a row is about, in the order of preference.
pub const FILE_COLUMNS: [&str; 6] = ["file", "path", "filename", "file_name", "image", "id"];

/// Metadata by file.
#[derive(Debug, Default)]
pub struct Metadata {
    rows: HashMap<String, Map<String, Value>>,
}

impl Metadata {
    /// Reads a `.csv`, `.jsonl`, `.ndjson` or `.json` (an array of objects) file. Each row names its file in one of
    /// [`FILE_COLUMNS`]; the other columns become metadata.
    ///
    /// # Errors
    /// A file that can't be read, a row that is malformed or names no file, or two rows about one file.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| Error::io(path, error))?;
        let text = String::from_utf8(bytes).map_err(|error| wrong(path, 1, format!("not UTF-8: {error}")))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        let rows = match ending.as_str() {
            "csv" => csv_rows(path, text, b',')?,
            "tsv" => csv_rows(path, text, b'\t')?,
            "jsonl" | "ndjson" => json_lines(path, text)?,
            "json" => json_array(path, text)?,
            other => {
                return Err(wrong(
                    path,
                    1,
                    format!("a metadata file ending in {other:?}, expected csv, tsv, jsonl or json"),
                ));
            }
        };
        let mut metadata = Self::default();
        for (line, row) in rows {
            metadata.add(path, line, row)?;
        }
        Ok(metadata)
    }

    fn add(&mut self, path: &Path, line: u64, mut row: Map<String, Value>) -> Result<()> {
        let column = FILE_COLUMNS.iter().find(|column| row.contains_key(**column));
        let name = column.and_then(|column| row.shift_remove(*column));
        let Some(Value::String(name)) = name.filter(|name| name.as_str().is_some_and(|name| !name.is_empty())) else {
            let expected = FILE_COLUMNS.join(", ");
            return Err(wrong(path, line, format!("names no file, expected one of the columns {expected}")));
        };
        let key = name.trim_start_matches("./").to_string();
        if self.rows.insert(key, row).is_some() {
            return Err(wrong(path, line, format!("a second row about {name:?}")));
        }
        Ok(())
    }

    /// Says something about one file, named by its whole path; replaces what was said before.
    pub fn insert(&mut self, file: &Path, row: Map<String, Value>) {
        self.rows.insert(file.to_string_lossy().into_owned(), row);
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Names of the rows that say something about none of `files`, sorted.
    pub fn unmatched(&self, files: &[PathBuf], roots: &[PathBuf]) -> Vec<String> {
        let matched: HashSet<&str> = files.iter().filter_map(|file| self.key(file, roots)).collect();
        let mut left: Vec<String> = self.rows.keys().filter(|key| !matched.contains(key.as_str())).cloned().collect();
        left.sort();
        left
    }

    /// What is known of a file: looked up by its whole path, by its path below one of `roots`, then by its name alone.
    pub fn of(&self, file: &Path, roots: &[PathBuf]) -> Option<&Map<String, Value>> {
        self.rows.get(self.key(file, roots)?)
    }

    fn key(&self, file: &Path, roots: &[PathBuf]) -> Option<&str> {
        let below = roots.iter().filter_map(|root| file.strip_prefix(root).ok());
        let name = file.file_name().map(Path::new);
        let mut candidates = std::iter::once(file).chain(below).chain(name);
        candidates.find_map(|candidate| Some(self.rows.get_key_value(&*candidate.to_string_lossy())?.0.as_str()))
    }
}

fn wrong(path: &Path, line: u64, reason: String) -> Error {
    Error::Metadata { path: path.to_path_buf(), line, reason }
}

fn csv_rows(path: &Path, text: &str, delimiter: u8) -> Result<Vec<(u64, Map<String, Value>)>> {
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(text.as_bytes());
    let explain = |error: csv::Error| {
        let line = error.position().map_or(1, csv::Position::line);
        wrong(path, line, error.to_string())
    };
    let header = reader.headers().map_err(explain)?.clone();
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(explain)?;
        let line = record.position().map_or(1, csv::Position::line);
        // An empty cell is no value.
        let cells = header.iter().zip(record.iter()).filter(|(_, cell)| !cell.is_empty());
        rows.push((line, cells.map(|(name, cell)| (name.trim().to_string(), scalar(cell))).collect()));
    }
    Ok(rows)
}

/// A CSV cell as a number or truth value where it is exactly one, else as text.
fn scalar(cell: &str) -> Value {
    let parsed = serde_json::from_str::<Value>(cell).ok().filter(|value| value.is_number() || value.is_boolean());
    // What would be written otherwise stays text: leading zeros, signs and exponents may be codes.
    match parsed.map(|value| (value.to_string(), value)) {
        Some((written, value)) if written == cell => value,
        _ => Value::String(cell.to_string()),
    }
}

fn json_lines(path: &Path, text: &str) -> Result<Vec<(u64, Map<String, Value>)>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            let number = number as u64 + 1;
            let row = serde_json::from_str(line)
                .map_err(|error| wrong(path, number, format!("not a JSON object: {error}")))?;
            Ok((number, row))
        })
        .collect()
}

fn json_array(path: &Path, text: &str) -> Result<Vec<(u64, Map<String, Value>)>> {
    let rows: Vec<Map<String, Value>> = serde_json::from_str(text)
        .map_err(|error| wrong(path, error.line() as u64, format!("not an array of JSON objects: {error}")))?;
    Ok(rows.into_iter().enumerate().map(|(index, row)| (index as u64 + 1, row)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(name: &str, text: &str) -> Result<Metadata> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        Metadata::read(&path)
    }

    #[test]
    fn csv_cells_keep_their_meaning() {
        let text = "\u{feff}file,caption,year,code,ok,empty\nsub/a.png,\"red, round\",2024,007,true,\n";
        let metadata = read("m.csv", text).unwrap();
        let row = metadata.of(Path::new("/pictures/sub/a.png"), &[PathBuf::from("/pictures")]).unwrap();
        let expected = json!({"caption": "red, round", "year": 2024, "code": "007", "ok": true});
        assert_eq!(&Value::Object(row.clone()), &expected);
    }

    #[test]
    fn json_lines_are_found_by_name() {
        let metadata = read("m.jsonl", "{\"path\": \"a.png\", \"tags\": [\"x\"]}\n\n{\"path\": \"b.png\"}\n").unwrap();
        assert_eq!(metadata.len(), 2);
        assert!(metadata.of(Path::new("/anywhere/a.png"), &[]).is_some());
        assert!(metadata.of(Path::new("/anywhere/c.png"), &[]).is_none());
        assert_eq!(metadata.unmatched(&[PathBuf::from("/anywhere/b.png")], &[]), ["a.png"]);
    }

    #[test]
    fn errors_name_the_line() {
        let cases = [
            ("m.csv", "caption\nred\n", ":2: names no file"),
            ("m.csv", "file,caption\na.png,x\na.png,y\n", ":3: a second row about \"a.png\""),
            ("m.csv", "file,caption\na.png\n", ":2: "),
            ("m.jsonl", "{\"file\": \"a\"}\nnope\n", ":2: not a JSON object"),
            ("m.txt", "", "expected csv, tsv, jsonl or json"),
        ];
        for (name, text, expected) in cases {
            let error = read(name, text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
