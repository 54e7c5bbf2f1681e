//! Tables of samples, row by row: CSV, TSV, lines of JSON, JSON arrays, Parquet.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;
use parquet::file::reader::SerializedFileReader;
use parquet::record::reader::RowIter;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Endings of tables, in lower case.
pub const ENDINGS: [&str; 6] = ["csv", "tsv", "jsonl", "ndjson", "json", "parquet"];

/// Columns by name.
pub type Row = Map<String, Value>;

/// What stands in a table at one place.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// A row.
    Row(Row),
    /// Something else, for the reason given; what follows can be read all the same.
    Malformed(String),
}

/// The rows of a table with their numbers: lines of text files, counted from 1; rows of Parquet, counted from 0.
pub type Rows = Box<dyn Iterator<Item = Result<(u64, Entry)>>>;

/// The ending of a path, in lower case.
pub fn ending(path: &Path) -> String {
    path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}

/// Whether a path ends as tables do.
pub fn is_table(path: &Path) -> bool {
    ENDINGS.contains(&ending(path).as_str())
}

/// What is wrong with a row.
pub fn wrong(path: &Path, number: u64, reason: impl std::fmt::Display) -> Error {
    Error::Invalid(format!("{}:{number}: {reason}", path.display()))
}

fn unreadable(path: &Path, source: std::io::Error) -> Error {
    Error::File { path: path.to_path_buf(), source }
}

/// Reads a table. Columns that are empty in a row are left out of it.
///
/// # Errors
/// A file that can't be opened, an ending that isn't a table's; later a file that can't be read on.
pub fn rows(path: &Path) -> Result<Rows> {
    match ending(path).as_str() {
        "csv" => delimited(path, None),
        "tsv" => delimited(path, Some(b'\t')),
        "jsonl" | "ndjson" => json_lines(path),
        "json" => json_array(path),
        "parquet" => parquet_rows(path),
        other => {
            let (shown, known) = (path.display(), ENDINGS.join(", "));
            Err(Error::Invalid(format!("{shown}: a table ending in {other:?}, expected {known}")))
        }
    }
}

fn open(path: &Path) -> Result<BufReader<File>> {
    Ok(BufReader::with_capacity(1 << 16, File::open(path).map_err(|error| unreadable(path, error))?))
}

/// Comma or tab, whichever the first line has more of: open_clip's tables are tab-separated whatever they are called.
fn separator(path: &Path) -> Result<u8> {
    let mut line = Vec::new();
    open(path)?.read_until(b'\n', &mut line).map_err(|error| unreadable(path, error))?;
    let count = |byte: u8| line.iter().filter(|other| **other == byte).count();
    Ok(if count(b'\t') > count(b',') { b'\t' } else { b',' })
}

fn delimited(path: &Path, separator_given: Option<u8>) -> Result<Rows> {
    let separator = separator_given.map_or_else(|| separator(path), Ok)?;
    let mut file = open(path)?;
    // A byte order mark would become part of the first column's name.
    let start = file.fill_buf().map_err(|error| unreadable(path, error))?;
    if start.starts_with(b"\xef\xbb\xbf") {
        file.consume(3);
    }
    let path = path.to_path_buf();
    let mut reader = csv::ReaderBuilder::new().delimiter(separator).from_reader(file);
    let header = reader.headers().map_err(|error| explain(&path, &error))?.clone();
    let names: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
    Ok(Box::new(reader.into_records().map(move |record| match record {
        Ok(record) => {
            let line = record.position().map_or(1, csv::Position::line);
            let cells = names.iter().zip(record.iter()).filter(|(_, cell)| !cell.trim().is_empty());
            let row = cells.map(|(name, cell)| (name.clone(), Value::String(cell.to_owned()))).collect();
            Ok((line, Entry::Row(row)))
        }
        Err(error) => malformed(&path, &error),
    })))
}

/// A row of another length than the first line, or that isn't UTF-8; what else goes wrong ends the table.
fn malformed(path: &Path, error: &csv::Error) -> Result<(u64, Entry)> {
    let line = error.position().map_or(1, csv::Position::line);
    let reason = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{len} cells, expected {expected_len} as in the first line")
        }
        csv::ErrorKind::Utf8 { err, .. } => format!("not UTF-8: {err}"),
        _ => return Err(explain(path, error)),
    };
    Ok((line, Entry::Malformed(reason)))
}

fn explain(path: &Path, error: &csv::Error) -> Error {
    wrong(path, error.position().map_or(1, csv::Position::line), error)
}

fn without_nulls(mut row: Row) -> Row {
    row.retain(|_, value| !value.is_null());
    row
}

fn json_lines(path: &Path) -> Result<Rows> {
    let file = open(path)?;
    let path = path.to_path_buf();
    Ok(Box::new(file.lines().zip(1..).filter_map(move |(line, number)| {
        let line = match line {
            Ok(line) => line,
            Err(error) => return Some(Err(wrong(&path, number, error))),
        };
        let text = line.strip_prefix('\u{feff}').unwrap_or(&line);
        if text.trim().is_empty() {
            return None;
        }
        let entry = match serde_json::from_str(text) {
            Ok(row) => Entry::Row(without_nulls(row)),
            Err(error) => Entry::Malformed(format!("not a JSON object: {error}")),
        };
        Some(Ok((number, entry)))
    })))
}

fn json_array(path: &Path) -> Result<Rows> {
    let rows: Vec<Row> = serde_json::from_reader(open(path)?)
        .map_err(|error| wrong(path, error.line() as u64, format!("not an array of JSON objects: {error}")))?;
    Ok(Box::new(rows.into_iter().zip(1..).map(|(row, number)| Ok((number, Entry::Row(without_nulls(row)))))))
}

/// Only uncompressed and Snappy-compressed tables can be read, which is what img2dataset, pandas and pyarrow write by default.
fn parquet_rows(path: &Path) -> Result<Rows> {
    let file = File::open(path).map_err(|error| unreadable(path, error))?;
    let open = || Ok(RowIter::from_file_into(Box::new(SerializedFileReader::new(file)?)));
    let mut rows = guarded(path, open)?;
    let path: PathBuf = path.to_path_buf();
    let mut number = 0;
    let mut is_over = false;
    Ok(Box::new(std::iter::from_fn(move || {
        if is_over {
            return None;
        }
        let row = guarded(&path, || rows.next().transpose());
        is_over = !matches!(row, Ok(Some(_)));
        number += 1;
        match row {
            Ok(None) => None,
            Err(error) => Some(Err(error)),
            Ok(Some(row)) => match row.to_json_value() {
                Value::Object(row) => Some(Ok((number - 1, Entry::Row(without_nulls(row))))),
                other => Some(Ok((number - 1, Entry::Malformed(format!("{other} isn't a row of columns"))))),
            },
        }
    })))
}

/// Runs the reader, whose panics at damaged bytes become errors.
fn guarded<T>(path: &Path, read: impl FnOnce() -> std::result::Result<T, ParquetError>) -> Result<T> {
    let failed = |reason: String| Error::Invalid(format!("{}: can't be read as Parquet: {reason}", path.display()));
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed("it is damaged".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(name: &str, text: &str) -> Result<Vec<(u64, Value)>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let shown = |(number, entry)| match entry {
            Entry::Row(row) => (number, Value::Object(row)),
            Entry::Malformed(reason) => (number, Value::String(reason)),
        };
        rows(&path)?.map(|row| row.map(shown)).collect()
    }

    #[test]
    fn rows_of_all_text_formats_are_alike() {
        let expected =
            vec![json!({"image": "a.png", "caption": "red, round"}), json!({"image": "b.png", "caption": "blue"})];
        let cases = [
            ("t.csv", "\u{feff}image, caption\na.png,\"red, round\"\nb.png,blue\n", [2, 3]),
            ("t.csv", "image\tcaption\na.png\tred, round\nb.png\tblue", [2, 3]),
            ("t.tsv", "image\tcaption\na.png\tred, round\nb.png\tblue\n", [2, 3]),
            (
                "t.jsonl",
                "{\"image\": \"a.png\", \"caption\": \"red, round\", \"x\": null}\n\n{\"image\": \"b.png\", \"caption\": \"blue\"}",
                [1, 3],
            ),
            (
                "t.json",
                "[{\"image\": \"a.png\", \"caption\": \"red, round\"}, {\"image\": \"b.png\", \"caption\": \"blue\"}]",
                [1, 2],
            ),
        ];
        for (name, text, lines) in cases {
            let found = read(name, text).unwrap();
            let (numbers, rows): (Vec<u64>, Vec<Value>) = found.into_iter().unzip();
            assert_eq!((numbers, &rows), (lines.to_vec(), &expected), "{name}");
        }
    }

    #[test]
    fn what_follows_a_malformed_row_is_read() {
        let row = |number: u64, image: &str, caption: &str| (number, json!({"image": image, "caption": caption}));
        let reason = |number: u64, text: &str| (number, json!(text));
        let found = read("t.csv", "image,caption\na.png,x\nb.png\nc.png,y, z\nd.png,z\n").unwrap();
        let expected = [
            row(2, "a.png", "x"),
            reason(3, "1 cells, expected 2 as in the first line"),
            reason(4, "3 cells, expected 2 as in the first line"),
            row(5, "d.png", "z"),
        ];
        assert_eq!(found, expected);
        let found = read(
            "t.jsonl",
            "{\"image\": \"a\", \"caption\": \"x\"}\n\nnope\n[1]\n{\"image\": \"b\", \"caption\": \"y\"}\n",
        );
        let found = found.unwrap();
        assert_eq!((&found[0], &found[3]), (&row(1, "a", "x"), &row(5, "b", "y")));
        for (place, number) in [(1, 3), (2, 4)] {
            let (line, entry) = &found[place];
            assert!(*line == number && entry.as_str().unwrap().starts_with("not a JSON object"), "{entry}");
        }
    }

    #[test]
    fn errors_name_the_line() {
        let cases = [
            ("t.json", "{\"image\": \"a\"}\n", "t.json:1: not an array of JSON objects"),
            ("t.parquet", "PAR1 and more", "can't be read as Parquet"),
            ("t.txt", "", "expected csv, tsv, jsonl"),
        ];
        for (name, text, expected) in cases {
            let error = read(name, text).unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }
    }
}
