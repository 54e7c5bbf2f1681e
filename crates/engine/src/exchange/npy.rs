//! NumPy's `.npy` files, read and written row by row, so that their size doesn't matter.
//!
//! The format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>, versions 1 to 3.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use half::f16;

use crate::error::{Error, Result};

/// The longest header that is read; NumPy itself refuses more than 10,000 bytes unless told otherwise.
const MAX_HEADER: usize = 1 << 20;
/// The longest text of an id, in characters; a store takes ids of up to 4,096 bytes.
const MAX_TEXT: usize = 1 << 16;
/// Bytes that are read at a time.
const BUFFER: usize = 1 << 20;

/// What the elements of an array are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Float16,
    Float32,
    Float64,
    /// A signed or unsigned integer of so many bytes.
    Integer(usize),
    Unsigned(usize),
    /// So many characters of four bytes each, the rest filled with zeros.
    Text(usize),
    /// So many bytes, the rest filled with zeros.
    Bytes(usize),
}

impl Kind {
    fn bytes(self) -> usize {
        match self {
            Self::Float16 => 2,
            Self::Float32 => 4,
            Self::Float64 => 8,
            Self::Integer(bytes) | Self::Unsigned(bytes) | Self::Bytes(bytes) => bytes,
            Self::Text(characters) => characters * 4,
        }
    }
}

/// An array of one or two dimensions that is read from its first row to its last.
#[derive(Debug)]
pub struct NpyReader {
    path: PathBuf,
    file: BufReader<File>,
    kind: Kind,
    big_endian: bool,
    rows: usize,
    columns: usize,
    next: usize,
    bytes: Vec<u8>,
}

impl NpyReader {
    /// Opens an array and checks that the file has all of it.
    ///
    /// # Errors
    /// A file that can't be read, isn't an array in C order of one or two dimensions, has elements that are neither numbers nor text,
    /// or is shorter than its header says.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::NotFound(format!("{}: no such file", path.display())),
            _ => Error::io(path, error),
        })?;
        let length = file.metadata().map_err(|error| Error::io(path, error))?.len();
        let mut file = BufReader::with_capacity(BUFFER, file);
        let (header, text) = read_header(path, &mut file)?;
        let shape = Shape::parse(path, &text)?;
        let [rows, columns] = match shape.lengths[..] {
            [rows] => [rows, 1],
            [rows, columns] => [rows, columns],
            _ => {
                let shape = &shape.lengths;
                return Err(Error::file(path, format!("has shape {shape:?}, expected one or two dimensions")));
            }
        };
        if shape.fortran_order && shape.lengths.len() > 1 && rows > 1 && columns > 1 {
            let advice = "save numpy.ascontiguousarray(x) instead";
            return Err(Error::file(path, format!("is in Fortran order, expected rows one after another: {advice}")));
        }
        let (kind, big_endian) = parse_descriptor(path, &shape.descriptor)?;
        let data = (rows as u128) * (columns as u128) * (kind.bytes() as u128);
        if (length as u128) < header as u128 + data {
            let found = length.saturating_sub(header as u64);
            let reason =
                format!("has {found} bytes of data, its shape ({rows}, {columns}) needs {data}: it was cut off");
            return Err(Error::file(path, reason));
        }
        Ok(Self { path: path.to_path_buf(), file, kind, big_endian, rows, columns, next: 0, bytes: Vec::new() })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Rows of the array.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values a row; 1 for an array of one dimension.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Whether the elements are floating-point numbers.
    pub fn holds_floats(&self) -> bool {
        matches!(self.kind, Kind::Float16 | Kind::Float32 | Kind::Float64)
    }

    /// The next rows, at most `count`, row-major; empty at the end.
    ///
    /// # Errors
    /// Elements that aren't floating-point numbers, and failures of reading.
    pub fn floats(&mut self, count: usize) -> Result<Vec<f32>> {
        if !self.holds_floats() {
            return Err(Error::file(&self.path, "holds no floating-point numbers, expected f16, f32 or f64"));
        }
        self.fill(count)?;
        let size = self.kind.bytes();
        let big = self.big_endian;
        Ok(match self.kind {
            Kind::Float16 => {
                self.bytes.chunks_exact(size).map(|b| f16::from_bits(unsigned(b, big) as u16).to_f32()).collect()
            }
            Kind::Float32 if !big => {
                let (values, _) = self.bytes.as_chunks::<4>();
                values.iter().map(|b| f32::from_le_bytes(*b)).collect()
            }
            Kind::Float32 => self.bytes.chunks_exact(size).map(|b| f32::from_bits(unsigned(b, big) as u32)).collect(),
            _ => self.bytes.chunks_exact(size).map(|b| f64::from_bits(unsigned(b, big)) as f32).collect(),
        })
    }

    /// The next rows of an array of one dimension, at most `count`, as text; integers are written in decimals.
    ///
    /// # Errors
    /// An array of two dimensions, elements that are neither integers nor text, text that isn't Unicode, failures of reading.
    pub fn texts(&mut self, count: usize) -> Result<Vec<String>> {
        if self.columns != 1 {
            let reason = format!("has {} columns, expected one id a row", self.columns);
            return Err(Error::file(&self.path, reason));
        }
        let first = self.next;
        self.fill(count)?;
        let element = |bytes: &[u8]| self.text(bytes);
        let texts = self.bytes.chunks_exact(self.kind.bytes().max(1)).map(element).enumerate();
        texts
            .map(|(at, text)| {
                text.ok_or_else(|| {
                    let reason =
                        format!("holds no text that can be read in row {}, expected integers or text", first + at);
                    Error::file(&self.path, reason)
                })
            })
            .collect()
    }

    fn text(&self, bytes: &[u8]) -> Option<String> {
        match self.kind {
            Kind::Integer(size) => {
                let unused = 64 - 8 * size as u32;
                Some((((unsigned(bytes, self.big_endian) << unused) as i64) >> unused).to_string())
            }
            Kind::Unsigned(_) => Some(unsigned(bytes, self.big_endian).to_string()),
            Kind::Text(_) => {
                let characters: Option<String> =
                    bytes.chunks_exact(4).map(|b| char::from_u32(unsigned(b, self.big_endian) as u32)).collect();
                characters.map(|text| text.trim_end_matches('\0').to_owned())
            }
            Kind::Bytes(_) => std::str::from_utf8(bytes).ok().map(|text| text.trim_end_matches('\0').to_owned()),
            Kind::Float16 | Kind::Float32 | Kind::Float64 => None,
        }
    }

    /// Reads the bytes of the next rows.
    fn fill(&mut self, count: usize) -> Result<()> {
        let count = count.min(self.rows - self.next);
        self.bytes.resize(count * self.columns * self.kind.bytes(), 0);
        self.file.read_exact(&mut self.bytes).map_err(|error| Error::io(&self.path, error))?;
        self.next += count;
        Ok(())
    }
}

fn unsigned(bytes: &[u8], big_endian: bool) -> u64 {
    let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    if big_endian { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
}

/// The length of everything before the data, and the dictionary.
fn read_header(path: &Path, file: &mut impl Read) -> Result<(usize, String)> {
    let cut_off = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::file(path, "is no .npy file: it ends within the header"),
        _ => Error::io(path, error),
    };
    let mut start = [0; 8];
    file.read_exact(&mut start).map_err(cut_off)?;
    if start[..6] != *b"\x93NUMPY" {
        return Err(Error::file(path, "is no .npy file: it does not begin with NumPy's mark"));
    }
    let mut size = [0; 4];
    let size_bytes = match start[6] {
        1 => 2,
        2 | 3 => 4,
        version => return Err(Error::file(path, format!("has version {version} of the format, expected 1, 2 or 3"))),
    };
    file.read_exact(&mut size[..size_bytes]).map_err(cut_off)?;
    let size = u32::from_le_bytes(size) as usize;
    if size > MAX_HEADER {
        return Err(Error::file(path, format!("has a header of {size} bytes, at most {MAX_HEADER} are read")));
    }
    let mut text = vec![0; size];
    file.read_exact(&mut text).map_err(cut_off)?;
    Ok((start.len() + size_bytes + size, String::from_utf8_lossy(&text).into_owned()))
}

/// What a header says.
struct Shape {
    descriptor: String,
    fortran_order: bool,
    lengths: Vec<usize>,
}

impl Shape {
    /// Reads the dictionary, a literal of Python with three known keys.
    fn parse(path: &Path, text: &str) -> Result<Self> {
        let wrong = |what: &str| Error::file(path, format!("has a header without {what}: {}", text.trim_end()));
        let value = |key: &str| {
            let keys = [format!("'{key}'"), format!("\"{key}\"")];
            let after = keys.iter().find_map(|key| text.split_once(key.as_str()))?.1;
            Some(after.trim_start().strip_prefix(':')?.trim_start())
        };
        let descriptor = value("descr").ok_or_else(|| wrong("'descr'"))?;
        let quote = descriptor.chars().next().filter(|quote| ['\'', '"'].contains(quote));
        let quote = quote.ok_or_else(|| {
            Error::file(path, "holds records of several fields, expected a plain array of numbers or text")
        })?;
        let descriptor = descriptor[1..].split(quote).next().unwrap_or_default().to_owned();
        let order = value("fortran_order").ok_or_else(|| wrong("'fortran_order'"))?;
        let inside = value("shape").and_then(|shape| shape.strip_prefix('(')?.split_once(')'));
        let (inside, _) = inside.ok_or_else(|| wrong("'shape'"))?;
        let numbers = inside.split(',').map(str::trim).filter(|number| !number.is_empty());
        let lengths = numbers.map(|number| number.trim_end_matches('L').parse().ok()).collect::<Option<_>>();
        let lengths = lengths.ok_or_else(|| wrong("a 'shape' of whole numbers"))?;
        Ok(Self { descriptor, fortran_order: order.starts_with("True"), lengths })
    }
}

fn parse_descriptor(path: &Path, descriptor: &str) -> Result<(Kind, bool)> {
    let (order, rest) = match descriptor.chars().next() {
        Some(order @ ('<' | '>' | '|' | '=')) => (order, &descriptor[1..]),
        _ => ('=', descriptor),
    };
    let big_endian = order == '>' || (order == '=' && cfg!(target_endian = "big"));
    let size = rest.get(1..).and_then(|size| size.parse::<usize>().ok());
    let kind = match (rest.chars().next(), size) {
        (Some('f'), Some(2)) => Some(Kind::Float16),
        (Some('f'), Some(4)) => Some(Kind::Float32),
        (Some('f'), Some(8)) => Some(Kind::Float64),
        (Some('i'), Some(size @ (1 | 2 | 4 | 8))) => Some(Kind::Integer(size)),
        (Some('u'), Some(size @ (1 | 2 | 4 | 8))) => Some(Kind::Unsigned(size)),
        (Some('U'), Some(size @ 1..=MAX_TEXT)) => Some(Kind::Text(size)),
        (Some('S' | 'a'), Some(size @ 1..=MAX_TEXT)) => Some(Kind::Bytes(size)),
        _ => None,
    };
    let kind = kind.ok_or_else(|| {
        let python =
            if rest.starts_with('O') { " (Python objects: save them as fixed-width text, or as numbers)" } else { "" };
        Error::file(
            path,
            format!("holds elements of type {descriptor:?}{python}, expected f2, f4, f8, integers, U or S"),
        )
    })?;
    Ok((kind, big_endian))
}

/// The start of a file in version 1.0: magic, length, and a dictionary padded so that the data begins at a multiple of 64.
/// `descriptor` is NumPy's name of the elements' type, such as `<f4`.
pub fn header(descriptor: &str, shape: &[usize]) -> Vec<u8> {
    let lengths: Vec<String> = shape.iter().map(usize::to_string).collect();
    // A tuple of one needs its comma.
    let comma = if shape.len() == 1 { "," } else { "" };
    let shape = format!("({}{comma})", lengths.join(", "));
    let dictionary = format!("{{'descr': '{descriptor}', 'fortran_order': False, 'shape': {shape}, }}");
    let length = (10 + dictionary.len() + 1).next_multiple_of(64) - 10;
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend_from_slice(&(length as u16).to_le_bytes());
    header.extend_from_slice(format!("{dictionary:<width$}\n", width = length - 1).as_bytes());
    header
}

/// Writes an array whose shape is known beforehand to `path`, completely or not at all: it is written beside its place and renamed.
///
/// # Errors
/// Failures of writing; nothing is left behind then.
pub fn write(
    path: &Path,
    descriptor: &str,
    shape: &[usize],
    data: impl IntoIterator<Item = impl AsRef<[u8]>>,
) -> Result<()> {
    let failed = |error| Error::io(path, error);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::Builder::new().prefix(".crossmodal-").tempfile_in(folder).map_err(failed)?;
    let mut writer = BufWriter::with_capacity(BUFFER, file);
    let written = writer.write_all(&header(descriptor, shape)).and_then(|()| {
        data.into_iter().try_for_each(|bytes| writer.write_all(bytes.as_ref()))?;
        writer.flush()
    });
    written.map_err(failed)?;
    let file = writer.into_inner().map_err(|error| failed(error.into_error()))?;
    super::give_ordinary_permissions(file.as_file());
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Writes text as fixed-width Unicode (`<U`), which NumPy reads without pickling.
///
/// # Errors
/// As [`write()`].
pub fn write_texts(path: &Path, shape: &[usize], texts: &[impl AsRef<str>]) -> Result<()> {
    let width = texts.iter().map(|text| text.as_ref().chars().count()).max().unwrap_or(0).max(1);
    let element = |text: &str| {
        let mut bytes: Vec<u8> = text.chars().flat_map(|character| u32::from(character).to_le_bytes()).collect();
        bytes.resize(width * 4, 0);
        bytes
    };
    write(path, &format!("<U{width}"), shape, texts.iter().map(|text| element(text.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(descriptor: &str, shape: &[usize], data: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        std::fs::write(&path, [&header(descriptor, shape)[..], data].concat()).unwrap();
        (folder, path)
    }

    #[test]
    fn floats_of_every_width_and_order_are_read_in_batches() {
        let values = [1.5f32, -2.0, 0.25, 1024.0, -0.0, 3.5];
        let narrow = values.map(|value| f16::from_f32(value).to_le_bytes());
        let wide = values.map(|value| f64::from(value).to_le_bytes());
        let cases = [
            ("<f2", narrow.concat()),
            ("<f4", values.map(f32::to_le_bytes).concat()),
            (">f4", values.map(f32::to_be_bytes).concat()),
            ("<f8", wide.concat()),
        ];
        for (descriptor, data) in cases {
            let (_folder, path) = file(descriptor, &[3, 2], &data);
            let mut reader = NpyReader::open(&path).unwrap();
            assert_eq!((reader.rows(), reader.columns()), (3, 2));
            assert_eq!(reader.floats(2).unwrap(), values[..4], "{descriptor}");
            assert_eq!(reader.floats(2).unwrap(), values[4..], "{descriptor}");
            assert!(reader.floats(2).unwrap().is_empty());
        }
    }

    #[test]
    fn ids_are_integers_or_text() {
        let unicode: Vec<u8> = ['ü', '\0', 'a', 'b'].iter().flat_map(|c| u32::from(*c).to_le_bytes()).collect();
        let cases: [(&str, Vec<u8>, [&str; 2]); 5] = [
            ("<i8", [(-3i64).to_le_bytes(), 7i64.to_le_bytes()].concat(), ["-3", "7"]),
            (">i2", [(-3i16).to_be_bytes(), 7i16.to_be_bytes()].concat(), ["-3", "7"]),
            ("|u1", vec![255, 0], ["255", "0"]),
            ("<U2", unicode, ["ü", "ab"]),
            ("|S3", b"x\0\0abc".to_vec(), ["x", "abc"]),
        ];
        for (descriptor, data, expected) in cases {
            let (_folder, path) = file(descriptor, &[2], &data);
            assert_eq!(NpyReader::open(&path).unwrap().texts(9).unwrap(), expected, "{descriptor}");
        }
    }

    #[test]
    fn texts_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ids.npy");
        write_texts(&path, &[3], &["a", "größer", ""]).unwrap();
        assert_eq!(NpyReader::open(&path).unwrap().texts(3).unwrap(), ["a", "größer", ""]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let fortran = String::from_utf8_lossy(&header("<f4", &[2, 2])[10..]).replace("False", "True ");
        let fortran = [&header("<f4", &[2, 2])[..10], fortran.as_bytes(), &[0; 16]].concat();
        let records = header("<f4", &[1]);
        let records = String::from_utf8_lossy(&records[10..]).replace("'<f4',", "[('a')]");
        let records = [&header("<f4", &[1])[..10], records.as_bytes()].concat();
        let cases: [(Vec<u8>, &str); 8] = [
            (b"\x93NUM".to_vec(), "ends within the header"),
            (b"not an array at all".to_vec(), "NumPy's mark"),
            (b"\x93NUMPY\x09\x00\x10\x00".to_vec(), "version 9"),
            ([header("<f4", &[3, 2]), vec![0; 23]].concat(), "has 23 bytes of data, its shape (3, 2) needs 24"),
            ([header("|O", &[1]), vec![0; 8]].concat(), "Python objects"),
            (header("<f4", &[1, 2, 3]), "one or two dimensions"),
            (fortran, "Fortran order"),
            (records, "several fields"),
        ];
        for (bytes, expected) in cases {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x.npy");
            std::fs::write(&path, bytes).unwrap();
            let error = NpyReader::open(&path).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("x.npy"), "{error}");
        }
        let (_folder, path) = file("<i4", &[2], &[0; 8]);
        assert!(NpyReader::open(&path).unwrap().floats(1).unwrap_err().to_string().contains("f16, f32 or f64"));
        let (_folder, path) = file("<f4", &[2], &[0; 8]);
        assert!(NpyReader::open(&path).unwrap().texts(1).unwrap_err().to_string().contains("integers or text"));
    }

    #[test]
    fn damaged_headers_never_panic() {
        let whole = [header("<f4", &[3, 2]), vec![0; 24]].concat();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        for at in 0..whole.len() - 24 {
            for value in [0, b'(', b'9', 0xff, b'\''] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                std::fs::write(&path, bytes).unwrap();
                if let Ok(mut reader) = NpyReader::open(&path) {
                    let _ = reader.floats(2);
                }
            }
        }
    }
}
