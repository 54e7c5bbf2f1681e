//! The file that an index is saved in: a header that tells what it is over, named sections, a table with their checksums.
//!
//! ```text
//! offset  bytes
//!      0      8  magic "XMINDEX\0"
//!      8      4  version of this container (1)
//!     12      4  version of the kind's own format
//!     16      8  kind, padded with zeros
//!     24      4  dimension
//!     28      4  metric (0 cosine, 1 inner product, 2 Euclidean)
//!     32      8  rows
//!     40     16  tag: the caller's name for the rows
//!     56      8  zero
//!     64         sections, each at a multiple of 4,096
//!                table: for each section name (8), offset (8), length (8), checksum (32)
//!    -48      8  offset of the table
//!    -40      8  number of sections
//!    -32     32  BLAKE3 hash of header, table and the two numbers before
//! ```
//!
//! All numbers are little-endian. A section's checksum is the BLAKE3 hash of the hashes of its blocks of 1 MiB, so that it is computed on all
//! cores. Opening reads header and table only; sections are checked when asked for.

use std::io::{self, Write};

use crossmodal_kernels::MappedFile;
use rayon::prelude::*;

use crate::{IndexError, IndexKind, Metric};

#[cfg(target_endian = "big")]
compile_error!("index files are mapped as little-endian numbers");

const MAGIC: &[u8; 8] = b"XMINDEX\0";
const VERSION: u32 = 1;
const HEADER_LENGTH: usize = 64;
const TRAILER_LENGTH: usize = 48;
const ENTRY_LENGTH: usize = 56;
const ALIGNMENT: usize = 4096;
const BLOCK: usize = 1 << 20;
const MAX_SECTIONS: usize = 64;

/// What an index is over, and in which format it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The kind of index.
    pub kind: IndexKind,
    /// The version of the kind's own format.
    pub version: u32,
    /// Values per row.
    pub dimension: usize,
    /// The metric.
    pub metric: Metric,
    /// Rows covered: the first so many.
    pub rows: u64,
    /// The caller's name for the rows, so that an index is never used with others.
    pub tag: [u8; 16],
}

impl Stamp {
    fn encode(&self) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.version.to_le_bytes());
        let kind = self.kind.as_str().as_bytes();
        bytes[16..16 + kind.len()].copy_from_slice(kind);
        bytes[24..28].copy_from_slice(&(self.dimension as u32).to_le_bytes());
        let metric = Metric::ALL.iter().position(|metric| *metric == self.metric).unwrap_or_default() as u32;
        bytes[28..32].copy_from_slice(&metric.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.rows.to_le_bytes());
        bytes[40..56].copy_from_slice(&self.tag);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        if bytes[..8] != MAGIC[..] {
            return Err(damaged("it does not begin with the mark of an index"));
        }
        if u32_at(bytes, 8) != VERSION {
            return Err(damaged(format!(
                "its container has version {}, this program knows {VERSION}",
                u32_at(bytes, 8)
            )));
        }
        let name = String::from_utf8_lossy(&bytes[16..24]);
        let kind = name.trim_end_matches('\0').parse()?;
        let metric = Metric::ALL.get(u32_at(bytes, 28) as usize);
        let metric = *metric.ok_or_else(|| damaged(format!("its metric has the number {}", u32_at(bytes, 28))))?;
        let mut tag = [0; 16];
        tag.copy_from_slice(&bytes[40..56]);
        let (dimension, rows) = (u32_at(bytes, 24) as usize, u64_at(bytes, 32));
        Ok(Self { kind, version: u32_at(bytes, 12), dimension, metric, rows, tag })
    }
}

/// Writes a container front to back.
#[derive(Debug)]
pub struct ContainerWriter<W> {
    out: W,
    header: [u8; HEADER_LENGTH],
    at: usize,
    table: Vec<u8>,
}

impl<W: Write> ContainerWriter<W> {
    /// Begins a container.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(mut out: W, stamp: &Stamp) -> io::Result<Self> {
        let header = stamp.encode();
        out.write_all(&header)?;
        Ok(Self { out, header, at: HEADER_LENGTH, table: Vec::new() })
    }

    /// Adds a section.
    ///
    /// # Errors
    /// Those of `out`.
    ///
    /// # Panics
    /// When the name is longer than eight bytes.
    pub fn section(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        assert!(name.len() <= 8, "the section name {name:?} is too long");
        let start = self.at.next_multiple_of(ALIGNMENT);
        self.out.write_all(&vec![0; start - self.at])?;
        self.out.write_all(bytes)?;
        self.at = start + bytes.len();
        let mut field = [0; 8];
        field[..name.len()].copy_from_slice(name.as_bytes());
        self.table.extend(field);
        self.table.extend((start as u64).to_le_bytes());
        self.table.extend((bytes.len() as u64).to_le_bytes());
        self.table.extend(checksum(bytes));
        Ok(())
    }

    /// Writes the table and gives the writer back, flushed.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish(mut self) -> io::Result<W> {
        let mut end = self.table;
        let count = (end.len() / ENTRY_LENGTH) as u64;
        end.extend((self.at as u64).to_le_bytes());
        end.extend(count.to_le_bytes());
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.header).update(&end);
        end.extend(hasher.finalize().as_bytes());
        self.out.write_all(&end)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// A container in a mapped file.
#[derive(Debug)]
pub struct Container {
    map: MappedFile,
    stamp: Stamp,
    sections: Vec<Section>,
}

#[derive(Debug)]
struct Section {
    name: [u8; 8],
    start: usize,
    length: usize,
    checksum: [u8; 32],
}

impl Container {
    /// Opens a container and checks header and table, not the sections.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn open(map: MappedFile) -> Result<Self, IndexError> {
        let length = map.len();
        if length < HEADER_LENGTH + TRAILER_LENGTH {
            return Err(damaged(format!("it has {length} bytes, fewer than the least one")));
        }
        let stamp = Stamp::decode(&map)?;
        let trailer = &map[length - TRAILER_LENGTH..];
        let (table, count) = (u64_at(trailer, 0), u64_at(trailer, 8));
        let end = (length - TRAILER_LENGTH) as u64;
        if count > MAX_SECTIONS as u64 || table.checked_add(count * ENTRY_LENGTH as u64) != Some(end) {
            return Err(damaged("its table is not where it must be; the end may be cut off"));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&map[..HEADER_LENGTH]).update(&map[table as usize..length - 32]);
        if hasher.finalize().as_bytes()[..] != trailer[16..] {
            return Err(damaged("the checksum of its header is wrong"));
        }
        let entries = map[table as usize..end as usize].chunks_exact(ENTRY_LENGTH);
        let sections = entries.map(|entry| Section::decode(entry, table)).collect::<Result<_, _>>()?;
        Ok(Self { stamp, sections, map })
    }

    /// What it is over.
    pub fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// Bytes of the whole file.
    pub fn bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// The bytes of a section, which begin at a multiple of 4,096 in the file, so that they can be seen as numbers.
    ///
    /// # Errors
    /// `Damaged` when there is no such section.
    pub fn section(&self, name: &str) -> Result<&[u8], IndexError> {
        let found = self.sections.iter().find(|section| section.name() == name.as_bytes());
        let section = found.ok_or_else(|| damaged(format!("it has no section {name:?}")))?;
        Ok(&self.map[section.start..section.start + section.length])
    }

    /// A section as numbers, `count` of them.
    ///
    /// # Errors
    /// `Damaged` when there is no such section, or it is of another length.
    pub fn numbers<T: bytemuck::AnyBitPattern>(&self, name: &str, count: usize) -> Result<&[T], IndexError> {
        let bytes = self.section(name)?;
        let numbers: &[T] = bytemuck::try_cast_slice(bytes)
            .map_err(|error| damaged(format!("the section {name:?} does not hold whole numbers: {error}")))?;
        if numbers.len() != count {
            return Err(damaged(format!("the section {name:?} holds {} numbers, expected {count}", numbers.len())));
        }
        Ok(numbers)
    }

    /// Tells the system that a section won't be needed soon; it is read from the file again if it is needed after all.
    pub fn release(&self, name: &str) {
        if let Some(section) = self.sections.iter().find(|section| section.name() == name.as_bytes()) {
            let end = section.start + section.length;
            self.map.release(section.start.next_multiple_of(ALIGNMENT).min(end)..end);
        }
    }

    /// Compares every section with its checksum.
    ///
    /// # Errors
    /// `Damaged` with the name of the first section that is not what was written.
    pub fn check(&self) -> Result<(), IndexError> {
        for section in &self.sections {
            if checksum(&self.map[section.start..section.start + section.length]) != section.checksum {
                let name = String::from_utf8_lossy(section.name()).into_owned();
                return Err(damaged(format!("the section {name:?} is not what was written")));
            }
        }
        Ok(())
    }
}

impl Section {
    fn decode(entry: &[u8], table: u64) -> Result<Self, IndexError> {
        let (start, length) = (u64_at(entry, 8), u64_at(entry, 16));
        if start.checked_add(length).is_none_or(|end| end > table) {
            return Err(damaged("a section lies outside the file"));
        }
        let (mut name, mut checksum) = ([0; 8], [0; 32]);
        name.copy_from_slice(&entry[..8]);
        checksum.copy_from_slice(&entry[24..]);
        Ok(Self { name, start: start as usize, length: length as usize, checksum })
    }

    fn name(&self) -> &[u8] {
        let length = self.name.iter().position(|byte| *byte == 0).unwrap_or(self.name.len());
        &self.name[..length]
    }
}

fn damaged(reason: impl Into<String>) -> IndexError {
    IndexError::Damaged { reason: reason.into() }
}

fn checksum(bytes: &[u8]) -> [u8; 32] {
    let blocks: Vec<[u8; 32]> = bytes.par_chunks(BLOCK).map(|block| *blake3::hash(block).as_bytes()).collect();
    *blake3::hash(blocks.as_flattened()).as_bytes()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp =
        Stamp { kind: IndexKind::Graph, version: 7, dimension: 3, metric: Metric::Euclidean, rows: 9, tag: [5; 16] };

    fn bytes() -> Vec<u8> {
        let mut writer = ContainerWriter::new(Vec::new(), &STAMP).unwrap();
        writer.section("links", bytemuck::cast_slice(&[1u32, 2, 3])).unwrap();
        writer.section("empty", &[]).unwrap();
        writer.section("codes", &vec![9; 3 * BLOCK + 1]).unwrap();
        writer.finish().unwrap()
    }

    fn open(bytes: &[u8]) -> Result<Container, IndexError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index");
        std::fs::write(&path, bytes).unwrap();
        Container::open(MappedFile::open(&path).unwrap())
    }

    #[test]
    fn sections_come_back() {
        let container = open(&bytes()).unwrap();
        assert_eq!(*container.stamp(), STAMP);
        assert_eq!(container.numbers::<u32>("links", 3).unwrap(), [1, 2, 3]);
        assert_eq!(container.section("empty").unwrap(), []);
        assert_eq!(container.section("codes").unwrap().len(), 3 * BLOCK + 1);
        container.check().unwrap();
        for (name, count) in [("links", 2), ("none", 1), ("codes", 1)] {
            assert!(container.numbers::<u32>(name, count).is_err(), "{name}");
        }
    }

    #[test]
    fn every_flipped_byte_that_matters_and_every_cut_is_noticed() {
        let whole = bytes();
        let used = |at: usize| {
            // Padding between sections is nobody's.
            (64..4096).contains(&at) || (4096 + 12..8192).contains(&at)
        };
        let step = whole.len() / 200;
        for at in (0..64).chain((0..whole.len()).step_by(step)).chain(whole.len() - 300..whole.len()) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            let noticed = open(&bytes).and_then(|container| container.check()).is_err();
            assert!(noticed || used(at), "byte {at}");
        }
        for length in (0..whole.len()).step_by(step).chain(whole.len() - 60..whole.len()) {
            assert!(open(&whole[..length]).is_err(), "{length}");
        }
    }
}
