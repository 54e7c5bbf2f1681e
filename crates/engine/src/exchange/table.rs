//! Parquet tables of metadata: read row by row as JSON objects, written as columns of text.

use std::fs::File;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as PhysicalType};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::record::reader::RowIter;
use parquet::schema::types::Type;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Rows of a group: what is in memory at a time while writing.
const GROUP_ROWS: usize = 10_000;

/// The rows of a table, from the first to the last.
pub(super) struct TableReader {
    path: PathBuf,
    rows: usize,
    iterator: RowIter<'static>,
}

impl TableReader {
    /// Opens a table. Only uncompressed and Snappy-compressed ones can be read, which is what pandas and pyarrow write by default.
    ///
    /// # Errors
    /// A file that can't be read or isn't Parquet.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::io(path, error))?;
        let opened = guarded(path, || {
            let reader = SerializedFileReader::new(file)?;
            let rows = reader.metadata().file_metadata().num_rows();
            Ok((rows, RowIter::from_file_into(Box::new(reader))))
        });
        let (rows, iterator) = opened?;
        let rows = usize::try_from(rows).map_err(|_| Error::file(path, format!("claims to have {rows} rows")))?;
        Ok(Self { path: path.to_path_buf(), rows, iterator })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The next row without its empty columns; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Map<String, Value>>> {
        let iterator = &mut self.iterator;
        let row = guarded(&self.path, || iterator.next().transpose())?;
        let Some(Value::Object(mut row)) = row.map(|row| row.to_json_value()) else {
            return Ok(None);
        };
        row.retain(|_, value| !value.is_null());
        Ok(Some(row))
    }
}

/// Runs the reader, whose panics at damaged bytes become errors.
fn guarded<T>(path: &Path, read: impl FnOnce() -> std::result::Result<T, ParquetError>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::file(path, format!("can't be read as Parquet: {error}"))),
        Err(_) => Err(Error::file(path, "can't be read as Parquet: it is damaged")),
    }
}

/// A table of text columns on its way into `file`.
pub(super) struct TableWriter<W: Write + Send> {
    path: PathBuf,
    columns: Vec<Vec<Option<String>>>,
    writer: SerializedFileWriter<W>,
}

impl<W: Write + Send> TableWriter<W> {
    /// Begins a table with columns of these names. `path` is for messages.
    pub fn new(path: &Path, file: W, names: &[&str]) -> Result<Self> {
        let begin = || {
            let column = |name: &&str| {
                let kind = Type::primitive_type_builder(name, PhysicalType::BYTE_ARRAY);
                let kind = kind.with_logical_type(Some(LogicalType::String)).with_repetition(Repetition::OPTIONAL);
                kind.build().map(Arc::new)
            };
            let fields = names.iter().map(column).collect::<std::result::Result<_, _>>()?;
            let schema = Arc::new(Type::group_type_builder("schema").with_fields(fields).build()?);
            let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
            SerializedFileWriter::new(file, schema, Arc::new(properties))
        };
        let writer = begin().map_err(|error| failed(path, &error))?;
        Ok(Self { path: path.to_path_buf(), columns: vec![Vec::new(); names.len()], writer })
    }

    /// Adds a row; one value for each column.
    pub fn add(&mut self, row: Vec<Option<String>>) -> Result<()> {
        self.columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
        if self.columns.first().is_some_and(|column| column.len() >= GROUP_ROWS) { self.group() } else { Ok(()) }
    }

    fn group(&mut self) -> Result<()> {
        let columns = &mut self.columns;
        let writer = &mut self.writer;
        let mut write = || {
            let mut group = writer.next_row_group()?;
            for values in columns.iter_mut() {
                let Some(mut column) = group.next_column()? else { break };
                let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
                let values: Vec<ByteArray> =
                    values.drain(..).flatten().map(|text| ByteArray::from(text.into_bytes())).collect();
                column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None)?;
                column.close()?;
            }
            group.close().map(drop)
        };
        write().map_err(|error| failed(&self.path, &error))
    }

    /// Writes what is left and gives the file back.
    pub fn finish(mut self) -> Result<W> {
        if self.columns.first().is_some_and(|column| !column.is_empty()) {
            self.group()?;
        }
        self.writer.into_inner().map_err(|error| failed(&self.path, &error))
    }
}

fn failed(path: &Path, error: &ParquetError) -> Error {
    Error::file(path, format!("can't be written as Parquet: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn table(path: &Path, rows: usize) {
        let mut writer = TableWriter::new(path, File::create(path).unwrap(), &["path", "caption"]).unwrap();
        for row in 0..rows {
            writer.add(vec![Some(format!("{row}.jpg")), (row % 3 == 0).then(|| format!("caption ü {row}"))]).unwrap();
        }
        writer.finish().unwrap();
    }

    #[test]
    fn rows_come_back_over_groups() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.parquet");
        for rows in [0, 1, GROUP_ROWS, GROUP_ROWS + 5] {
            table(&path, rows);
            let mut reader = TableReader::open(&path).unwrap();
            assert_eq!(reader.rows(), rows);
            for row in 0..rows {
                let expected = match row % 3 {
                    0 => json!({"path": format!("{row}.jpg"), "caption": format!("caption ü {row}")}),
                    _ => json!({"path": format!("{row}.jpg")}),
                };
                assert_eq!(Value::Object(reader.next().unwrap().unwrap()), expected);
            }
            assert!(reader.next().unwrap().is_none());
        }
    }

    #[test]
    fn damaged_tables_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.parquet");
        table(&path, 40);
        let whole = std::fs::read(&path).unwrap();
        let mut state = 7u64;
        for round in 0..300 {
            let mut bytes = whole.clone();
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (state >> 33) as usize % bytes.len();
            match round % 3 {
                0 => bytes.truncate(at),
                _ => bytes[at] ^= (state >> 20) as u8 | 1,
            }
            std::fs::write(&path, bytes).unwrap();
            let Ok(mut reader) = TableReader::open(&path) else { continue };
            // An error or some rows: nothing may panic or go on for ever.
            for _ in 0..200 {
                match reader.next() {
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => break,
                }
            }
        }
        std::fs::write(&path, "nothing of the kind").unwrap();
        assert!(TableReader::open(&path).err().unwrap().to_string().contains("m.parquet"));
    }
}
