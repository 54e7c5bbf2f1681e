//! TensorBoard's event file: records with checksums around messages in protocol-buffer form, written by hand since three fields are all it takes.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::GrowingFile;
use super::crc32c::masked;
use crate::error::Result;

/// A file of scalars by name and step.
#[derive(Debug)]
pub struct TensorBoard {
    file: GrowingFile,
}

impl TensorBoard {
    /// The name under which TensorBoard finds the file.
    pub const FILE: &'static str = "events.out.tfevents.1.crossmodal";

    /// Opens or makes the file and keeps its first `bytes`.
    ///
    /// # Errors
    /// A file that can't be written, or is shorter.
    pub fn open(path: &Path, bytes: u64) -> Result<Self> {
        let mut file = GrowingFile::open(path, bytes)?;
        if bytes == 0 {
            let mut event = Vec::new();
            double(&mut event, 1, now());
            text(&mut event, 3, "brain.Event:2");
            file.add(&record(&event))?;
        }
        Ok(Self { file })
    }

    /// Adds scalars of a step.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn add(&mut self, step: u64, scalars: &[(String, f64)]) -> Result<()> {
        let mut summary = Vec::new();
        for (name, value) in scalars {
            let mut entry = Vec::new();
            text(&mut entry, 1, name);
            key(&mut entry, 2, 5);
            entry.extend((*value as f32).to_le_bytes());
            bytes(&mut summary, 1, &entry);
        }
        let mut event = Vec::new();
        double(&mut event, 1, now());
        key(&mut event, 2, 0);
        varint(&mut event, step);
        bytes(&mut event, 5, &summary);
        self.file.add(&record(&event))
    }

    /// Makes everything durable and returns the size in bytes.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn sync(&self) -> Result<u64> {
        self.file.sync()
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// A record: length, its checksum, the message, its checksum.
fn record(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    [&length[..], &masked(&length).to_le_bytes(), message, &masked(message).to_le_bytes()].concat()
}

/// The key of a field: its number, and how its value is written.
fn key(out: &mut Vec<u8>, field: u64, form: u64) {
    varint(out, field << 3 | form);
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn double(out: &mut Vec<u8>, field: u64, value: f64) {
    key(out, field, 1);
    out.extend(value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    key(out, field, 2);
    varint(out, value.len() as u64);
    out.extend(value);
}

fn text(out: &mut Vec<u8>, field: u64, value: &str) {
    bytes(out, field, value.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::crc32c::crc32c;

    /// Reads records back, checking both checksums.
    fn records(mut rest: &[u8]) -> Vec<Vec<u8>> {
        let unmasked =
            |word: &[u8]| u32::from_le_bytes(word.try_into().unwrap()).wrapping_sub(0xa282_ead8).rotate_left(15);
        let mut found = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(unmasked(&rest[8..12]), crc32c(&rest[..8]));
            let message = &rest[12..12 + length];
            assert_eq!(unmasked(&rest[12 + length..16 + length]), crc32c(message));
            found.push(message.to_vec());
            rest = &rest[16 + length..];
        }
        found
    }

    #[test]
    fn events_are_whole_records_and_cut_files_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(TensorBoard::FILE);
        let mut board = TensorBoard::open(&path, 0).unwrap();
        board.add(300, &[("loss".into(), 1.5), ("rate".into(), 0.25)]).unwrap();
        let kept = board.sync().unwrap();
        board.add(301, &[("loss".into(), 1.0)]).unwrap();
        drop(board);
        let mut board = TensorBoard::open(&path, kept).unwrap();
        board.add(302, &[("loss".into(), 0.5)]).unwrap();
        let found = records(&std::fs::read(&path).unwrap());
        assert_eq!(found.len(), 3);
        assert!(found[0].ends_with(b"\x1a\x0dbrain.Event:2"));
        // Step 300 as a varint, then a summary of two values.
        let expected = [&[0x10, 0xac, 0x02, 0x2a, 26][..], b"\x0a\x0b\x0a\x04loss\x15", &1.5f32.to_le_bytes()].concat();
        assert_eq!(found[1][9..9 + expected.len()], expected);
        assert_eq!(found[2][9..12], [0x10, 0xae, 0x02]);
        assert!(TensorBoard::open(&path, 1 << 20).is_err(), "a file that lost its end is noticed");
    }
}
