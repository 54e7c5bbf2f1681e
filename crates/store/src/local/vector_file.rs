//! Files of vectors: a header, then rows of little-endian `f32`, appended and synced before any row names them.
//!
//! ```text
//! offset  bytes
//!      0      8  magic "XMVECTOR"
//!      8      4  version (1)
//!     12      4  dimension
//!     16      8  field key
//!     24      8  generation
//!     32     24  zero
//!     56      8  first bytes of the BLAKE3 hash of bytes 0..56
//!     64         rows, dimension * 4 bytes each
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crossmodal_kernels::MappedFile;

use crate::StoreError;

#[cfg(target_endian = "big")]
compile_error!("vector files are mapped as little-endian numbers");

const MAGIC: &[u8; 8] = b"XMVECTOR";
const VERSION: u32 = 1;
const HEADER_LENGTH: usize = 64;
const HASHED_LENGTH: usize = 56;

/// What a vector file must say about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub dimension: usize,
    pub field: i64,
    pub generation: i64,
}

impl Header {
    fn encode(&self) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.dimension as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.field.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.generation.to_le_bytes());
        let hash = blake3::hash(&bytes[..HASHED_LENGTH]);
        bytes[HASHED_LENGTH..].copy_from_slice(&hash.as_bytes()[..HEADER_LENGTH - HASHED_LENGTH]);
        bytes
    }

    /// Compares the start of a file with what it must be.
    fn check(&self, path: &Path, found: &[u8]) -> Result<(), StoreError> {
        let expected = self.encode();
        let reason = if found.len() < HEADER_LENGTH {
            format!("it has {} bytes, its header alone has {HEADER_LENGTH}", found.len())
        } else if found[..8] != expected[..8] {
            "it does not begin with the mark of a vector file".to_owned()
        } else if found[..HEADER_LENGTH] != expected {
            let (dimension, field, generation) = (self.dimension, self.field, self.generation);
            format!("its header is not that of dimension {dimension}, field {field}, generation {generation}")
        } else {
            return Ok(());
        };
        Err(StoreError::Damaged { file: path.to_path_buf(), reason })
    }

    pub fn row_bytes(&self) -> u64 {
        self.dimension as u64 * 4
    }

    /// Length of a file with so many rows.
    pub fn file_length(&self, rows: u64) -> u64 {
        HEADER_LENGTH as u64 + rows * self.row_bytes()
    }

    fn whole_rows(&self, file_length: u64) -> u64 {
        file_length.saturating_sub(HEADER_LENGTH as u64) / self.row_bytes()
    }
}

/// A vector file that is open for appending.
#[derive(Debug)]
pub(super) struct VectorWriter {
    file: File,
    path: PathBuf,
    header: Header,
}

impl VectorWriter {
    /// Creates the file, or empties it: a file that no row names yet is the rest of an attempt that was cut off.
    pub fn create(path: &Path, header: Header) -> Result<Self, StoreError> {
        let open = || -> io::Result<File> {
            let mut options = OpenOptions::new();
            let mut file = options.read(true).write(true).create(true).truncate(true).open(path)?;
            file.write_all(&header.encode())?;
            file.sync_all()?;
            Ok(file)
        };
        let file = open().map_err(|error| StoreError::io(path, error))?;
        Ok(Self { file, path: path.to_path_buf(), header })
    }

    /// Opens the file, checks it against the number of committed rows and cuts what lies behind them.
    pub fn open(path: &Path, header: Header, committed_rows: u64) -> Result<Self, StoreError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => missing(path, committed_rows),
            _ => StoreError::io(path, error),
        };
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
        let mut start = Vec::new();
        (&file).take(HEADER_LENGTH as u64).read_to_end(&mut start).map_err(failed)?;
        header.check(path, &start)?;
        let length = file.metadata().map_err(failed)?.len();
        if length < header.file_length(committed_rows) {
            return Err(too_short(path, header.whole_rows(length), committed_rows));
        }
        let writer = Self { file, path: path.to_path_buf(), header };
        if length > header.file_length(committed_rows) {
            writer.cut(committed_rows)?;
        }
        Ok(writer)
    }

    /// Opens or creates a damaged file, writes its header anew and gives it exactly `rows` rows; lost ones are zero.
    pub fn restore(path: &Path, header: Header, rows: u64) -> Result<Self, StoreError> {
        let open = || -> io::Result<File> {
            let mut options = OpenOptions::new();
            let mut file = options.read(true).write(true).create(true).truncate(false).open(path)?;
            file.write_all(&header.encode())?;
            file.set_len(header.file_length(rows))?;
            file.sync_all()?;
            Ok(file)
        };
        let file = open().map_err(|error| StoreError::io(path, error))?;
        Ok(Self { file, path: path.to_path_buf(), header })
    }

    /// Writes rows behind the first `committed_rows` and syncs them. After a failure the caller cuts.
    pub fn append(&mut self, committed_rows: u64, values: &[f32]) -> Result<(), StoreError> {
        self.write_at(committed_rows, values)?;
        self.sync()
    }

    /// As [`append`](Self::append), but not synced yet.
    pub fn write_at(&mut self, row: u64, values: &[f32]) -> Result<(), StoreError> {
        let offset = self.header.file_length(row);
        let file = &mut self.file;
        let written = file.seek(SeekFrom::Start(offset)).and_then(|_| file.write_all(bytemuck::cast_slice(values)));
        written.map_err(|error| StoreError::io(&self.path, error))
    }

    /// Makes everything written durable.
    pub fn sync(&self) -> Result<(), StoreError> {
        // Data and length; times of access don't matter.
        self.file.sync_data().map_err(|error| StoreError::io(&self.path, error))
    }

    /// Cuts everything behind the first `rows` rows.
    pub fn cut(&self, rows: u64) -> Result<(), StoreError> {
        let cut = self.file.set_len(self.header.file_length(rows)).and_then(|()| self.file.sync_data());
        cut.map_err(|error| StoreError::io(&self.path, error))
    }
}

/// The committed rows of a vector file, mapped.
#[derive(Debug)]
pub(super) struct MappedVectors {
    map: MappedFile,
    dimension: usize,
    rows: u64,
    /// Rows that were read one by one since the pages were given back.
    single_reads: AtomicU64,
}

/// A file from this size on gives its pages back now and then while single rows of it are read.
const LARGE_FILE: usize = 1 << 30;
/// So many single rows are read between. Each brings all of the block that the system has cached around it into the process's memory, up to 512 KiB.
const SINGLE_READS: u64 = 448;

impl MappedVectors {
    /// Maps a file that should have `committed_rows`; a shorter one gives the rows that are left.
    ///
    /// Rows behind the committed ones are not mapped: a writer may be cutting or overwriting them.
    pub fn open(path: &Path, header: Header, committed_rows: u64) -> Result<Self, StoreError> {
        let length = header.file_length(committed_rows);
        let map = MappedFile::open_prefix(path, length).map_err(|error| StoreError::io(path, error))?;
        header.check(path, &map[..map.len().min(HEADER_LENGTH)])?;
        let rows = committed_rows.min(header.whole_rows(map.len() as u64));
        Ok(Self { map, dimension: header.dimension, rows, single_reads: AtomicU64::new(0) })
    }

    /// Number of rows: the committed ones, or fewer when the file is damaged.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// All rows, row-major.
    pub fn values(&self) -> &[f32] {
        let bytes = self.rows as usize * self.dimension * 4;
        // A mapping begins at a page and the header has 64 bytes, so that rows are aligned.
        bytemuck::cast_slice(&self.map[HEADER_LENGTH..HEADER_LENGTH + bytes])
    }

    /// Notes that so many rows, here and there, were read. In a large file they would in time bring all of it into the process's memory,
    /// because the system maps what lies around a page along with it; so the pages are given back now and then. They stay in the
    /// system's cache.
    pub fn note_single_reads(&self, rows: u64) {
        if self.map.len() >= LARGE_FILE && self.single_reads.fetch_add(rows, Ordering::Relaxed) + rows >= SINGLE_READS {
            self.single_reads.store(0, Ordering::Relaxed);
            self.map.release(0..self.map.len());
        }
    }

    /// One row, when the file has it.
    pub fn row(&self, row: u64) -> Option<&[f32]> {
        (row < self.rows).then(|| &self.values()[row as usize * self.dimension..][..self.dimension])
    }
}

fn missing(path: &Path, rows: u64) -> StoreError {
    let reason = format!("the file is missing; it should hold {rows} vectors");
    StoreError::Damaged { file: path.to_path_buf(), reason }
}

/// The error for a file that lost rows.
pub(super) fn too_short(path: &Path, found: u64, expected: u64) -> StoreError {
    let lost = expected - found;
    let reason = format!("it holds {found} whole vectors, the collection names {expected}; {lost} are lost");
    StoreError::Damaged { file: path.to_path_buf(), reason }
}
