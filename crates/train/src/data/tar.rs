//! The members of a tar archive by their places, without their content: ustar, GNU and pax names and sizes.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

const BLOCK: u64 = 512;
/// Longest name or pax header that is read.
const MOST_NAME: u64 = 1 << 20;

/// A regular file within an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its path within the archive.
    pub name: String,
    /// First byte of its content in the archive.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}

/// Walks the members of an archive from the first to the last; only headers are read.
pub struct Members {
    file: BufReader<File>,
    /// Position of the next header.
    at: u64,
    size: u64,
}

/// What pax and GNU headers say about the member after them.
#[derive(Default)]
struct Override {
    name: Option<String>,
    length: Option<u64>,
}

impl Members {
    /// Opens an archive.
    ///
    /// # Errors
    /// A file that can't be opened.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        // Headers lie apart from each other, so that reading far ahead would be in vain.
        Ok(Self { file: BufReader::with_capacity(4096, file), at: 0, size })
    }

    /// The next regular file; `None` at the end of the archive.
    ///
    /// # Errors
    /// A reason for people, where the archive is damaged or cut short. What comes after can't be found.
    pub fn next(&mut self) -> Result<Option<Member>, String> {
        let mut said = Override::default();
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let length = match said.length.take() {
                Some(length) => length,
                None => number(&header[124..136]).ok_or_else(|| self.damaged("a size that is no number"))?,
            };
            let offset = self.at;
            let end = offset.checked_add(length).filter(|end| *end <= self.size);
            let end = end.ok_or_else(|| {
                let size = self.size;
                format!("cut short: a member of {length} bytes at {offset} reaches beyond the archive's {size} bytes")
            })?;
            match header[156] {
                b'L' => said.name = Some(zero_ended(&self.content(length)?)),
                b'x' => read_pax(&self.content(length)?, &mut said),
                // Regular, old regular, contiguous.
                b'0' | 0 | b'7' => {
                    self.at = end.next_multiple_of(BLOCK);
                    let name = said.name.take().unwrap_or_else(|| plain_name(&header));
                    return Ok(Some(Member { name, offset, length }));
                }
                // Folders, links, devices, global headers.
                _ => said = Override::default(),
            }
            self.at = end.next_multiple_of(BLOCK);
        }
    }

    /// Reads the next header and moves behind it; `None` at the end.
    fn header(&mut self) -> Result<Option<[u8; BLOCK as usize]>, String> {
        let mut header = [0; BLOCK as usize];
        if self.at == self.size {
            return Ok(None);
        }
        self.go_to(self.at)?;
        let read = self.file.read_exact(&mut header);
        read.map_err(|error| format!("cut short: no header at {}: {error}", self.at))?;
        if header.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum: u64 = header.iter().enumerate().map(|(at, byte)| sum_part(at, *byte)).sum();
        if number(&header[148..156]) != Some(sum) {
            return Err(self.damaged("a header whose checksum is wrong"));
        }
        self.at += BLOCK;
        Ok(Some(header))
    }

    fn go_to(&mut self, at: u64) -> Result<(), String> {
        let here = self.file.stream_position().map_err(|error| error.to_string())?;
        let step = at as i64 - here as i64;
        self.file.seek_relative(step).map_err(|error| error.to_string())
    }

    /// The content that begins at the current place, of a header that is about another member.
    fn content(&mut self, length: u64) -> Result<Vec<u8>, String> {
        if length > MOST_NAME {
            return Err(self.damaged("a name of over a megabyte"));
        }
        self.go_to(self.at)?;
        let mut bytes = vec![0; length as usize];
        self.file.read_exact(&mut bytes).map_err(|error| format!("cut short at {}: {error}", self.at))?;
        Ok(bytes)
    }

    /// Reads a part of the archive.
    ///
    /// # Errors
    /// A reason for people.
    pub fn read(&mut self, member: &Member) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; usize::try_from(member.length).map_err(|error| error.to_string())?];
        let read = self.file.seek(SeekFrom::Start(member.offset)).and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(|error| format!("{} can't be read: {error}", member.name))?;
        Ok(bytes)
    }

    fn damaged(&self, what: &str) -> String {
        format!("damaged: {what} near byte {}", self.at)
    }
}

/// The checksum counts its own field as spaces.
fn sum_part(at: usize, byte: u8) -> u64 {
    if (148..156).contains(&at) { 32 } else { byte.into() }
}

/// Octal digits, or GNU's binary form for sizes beyond 8 GiB.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let (high, low) = field.split_at(field.len().saturating_sub(8));
        let fits = high.iter().enumerate().all(|(at, byte)| if at == 0 { byte & 0x7f == 0 } else { *byte == 0 });
        return fits.then(|| low.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)));
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches([' ', '\0']);
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

fn zero_ended(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn plain_name(header: &[u8; BLOCK as usize]) -> String {
    let name = zero_ended(&header[..100]);
    // GNU's old format uses the field for something else.
    let is_posix = &header[257..263] == b"ustar\0";
    let prefix = if is_posix { zero_ended(&header[345..500]) } else { String::new() };
    if prefix.is_empty() { name } else { format!("{prefix}/{name}") }
}

/// Records of the form `length key=value\n`.
fn read_pax(bytes: &[u8], said: &mut Override) {
    let mut rest = bytes;
    while let Some(space) = rest.iter().position(|byte| *byte == b' ') {
        let length = std::str::from_utf8(&rest[..space]).ok().and_then(|text| text.parse::<usize>().ok());
        let Some(record) = length.and_then(|length| rest.get(space + 1..length)) else { return };
        let text = String::from_utf8_lossy(record);
        match text.trim_end_matches('\n').split_once('=') {
            Some(("path", value)) => said.name = Some(value.to_owned()),
            Some(("size", value)) => said.length = value.parse().ok(),
            Some(_) | None => {}
        }
        rest = &rest[space + 1 + record.len()..];
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An archive in the ustar format.
    pub(crate) fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        members.iter().for_each(|(name, content)| add(&mut bytes, name.as_bytes(), b'0', content));
        bytes.extend([0; 1024]);
        bytes
    }

    fn add(bytes: &mut Vec<u8>, name: &[u8], kind: u8, content: &[u8]) {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name);
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[156] = kind;
        header[257..263].copy_from_slice(b"ustar\0");
        let sum: u64 = header.iter().enumerate().map(|(at, byte)| sum_part(at, *byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes.extend(header);
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }

    fn walk(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tar");
        std::fs::write(&path, bytes).unwrap();
        let mut members = Members::open(&path).unwrap();
        let mut found = Vec::new();
        while let Some(member) = members.next()? {
            let content = members.read(&member)?;
            found.push((member.name, content));
        }
        Ok(found)
    }

    #[test]
    fn members_are_found_with_their_content() {
        let long = "d/".repeat(80) + "name.txt";
        let mut bytes = archive(&[("a.jpg", &[1; 700]), ("a.txt", b"caption")]);
        bytes.truncate(bytes.len() - 1024);
        add(&mut bytes, b"folder/", b'5', b"");
        add(&mut bytes, b"././@LongLink", b'L', format!("{long}\0").as_bytes());
        add(&mut bytes, b"cut off", b'0', b"GNU");
        add(&mut bytes, b"PaxHeader", b'x', "20 path=b/\u{e9}\u{e9}.json\n".as_bytes());
        add(&mut bytes, b"ascii", b'0', b"pax");
        add(&mut bytes, b"empty", b'0', b"");
        // Neither padding nor an end mark is needed.
        let found = walk(&bytes).unwrap();
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a.jpg", "a.txt", &long, "b/\u{e9}\u{e9}.json", "empty"]);
        assert_eq!(found[0].1, [1; 700]);
        assert_eq!((&found[2].1[..], &found[3].1[..], &found[4].1[..]), (&b"GNU"[..], &b"pax"[..], &b""[..]));
    }

    #[test]
    fn damage_is_told_and_never_a_panic() {
        let whole = archive(&[("a.jpg", &[1; 700]), ("a.txt", b"caption")]);
        assert!(walk(&whole[..600]).unwrap_err().contains("cut short: a member of 700 bytes at 512"));
        assert!(walk(&whole[..1600]).unwrap_err().contains("cut short"));
        let mut wrong = whole.clone();
        wrong[3] ^= 1;
        assert!(walk(&wrong).unwrap_err().contains("checksum"));
        assert!(walk(b"not an archive").unwrap_err().contains("cut short"));
        assert_eq!(walk(b"").unwrap(), []);
        for place in 0..512 {
            let mut bytes = whole.clone();
            bytes[place] = bytes[place].wrapping_add(37);
            let _ = walk(&bytes);
        }
    }

    #[test]
    fn sizes_are_octal_or_binary() {
        assert_eq!(number(b"00000000012\0"), Some(10));
        assert_eq!(number(b"        12 \0"), Some(10));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1]), Some((2 << 32) + 1));
        assert_eq!(number(&[0xff; 12]), None);
        assert_eq!(number(b"00000000019\0"), None);
    }
}
