//! CLIP's byte-level BPE vocabulary: 256 byte symbols, the same at the end of a word, one token per merge, two specials.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use flate2::read::GzDecoder;
use tokenizers::models::bpe::{BPE, Merges, Vocab};

use crate::error::{Error, Result};
use crate::source::Located;

/// The merge list of CLIP, as far as it is used. Licence: data/README.md.
const CLIP_MERGES: &[u8] = include_bytes!("../../data/clip_merges.txt.gz");

/// Number of tokens of the vocabulary that every published CLIP with its own tokenizer has.
pub(super) const CLIP_SIZE: usize = 49_408;

/// Merges beyond this number are left out, as the reference does.
const MAX_MERGES: usize = CLIP_SIZE - 512 - 2;

/// Marks a token that ends a word.
pub(super) const END_OF_WORD: &str = "</w>";

/// Limit for an unpacked merge list; the full public one has 3 MB.
const MAX_UNPACKED: u64 = 64 << 20;

/// A merge list made ready.
pub(super) struct Vocabulary {
    /// Splits a word of byte symbols.
    pub bpe: BPE,
    /// Id of the begin token.
    pub start_id: u32,
    /// Id of the end token, the highest of all.
    pub end_id: u32,
}

impl Vocabulary {
    /// The standard CLIP vocabulary, made on first use.
    pub(super) fn clip() -> Result<Arc<Self>> {
        static CLIP: OnceLock<Arc<Vocabulary>> = OnceLock::new();
        if let Some(vocabulary) = CLIP.get() {
            return Ok(Arc::clone(vocabulary));
        }
        let path = Path::new("built-in CLIP merge list");
        let vocabulary = Arc::new(Self::from_merges(&unpack(CLIP_MERGES, path)?, path)?);
        Ok(Arc::clone(CLIP.get_or_init(|| vocabulary)))
    }

    /// A merge list in the model's folder: `bpe*.txt.gz` as the original tokenizer reads it, or `merges.txt`.
    pub(super) fn from_folder(files: &Located) -> Result<Option<Self>> {
        let packed = files.files()?.into_iter().find(|name| name.starts_with("bpe") && name.ends_with(".txt.gz"));
        let (name, packed) = packed.map_or_else(|| ("merges.txt".to_string(), false), |name| (name, true));
        let Some(bytes) = files.read(&name)? else {
            return Ok(None);
        };
        let path = files.display_path(&name);
        if packed {
            return Self::from_merges(&unpack(&bytes, &path)?, &path).map(Some);
        }
        let text = std::str::from_utf8(&bytes).map_err(|error| Error::malformed(&path, error))?;
        Self::from_merges(text.trim_end_matches(['\r', '\n']), &path).map(Some)
    }

    /// Lines of two symbols each, after a first line that is skipped.
    fn from_merges(list: &str, path: &Path) -> Result<Self> {
        let symbols = byte_symbols();
        let mut tokens: Vec<String> = printable_first().map(|byte| symbols[usize::from(byte)].to_string()).collect();
        tokens.extend_from_within(..);
        tokens[256..].iter_mut().for_each(|token| token.push_str(END_OF_WORD));
        let mut merges = Vec::new();
        for line in list.split('\n').skip(1).take(MAX_MERGES) {
            let mut pieces = line.split_whitespace();
            if let (Some(left), Some(right), None) = (pieces.next(), pieces.next(), pieces.next()) {
                merges.push((left.to_string(), right.to_string()));
            }
            tokens.push(line.split_whitespace().collect());
        }
        let start_id = u32::try_from(tokens.len()).map_err(|error| Error::malformed(path, error))?;
        let ids: Vocab = tokens.into_iter().zip(0..).filter(|(token, _)| !token.is_empty()).collect();
        merges.retain(|(left, right)| ids.contains_key(left) && ids.contains_key(right));
        let bpe = BPE::builder()
            .vocab_and_merges(ids, merges)
            .end_of_word_suffix(END_OF_WORD.to_string())
            .build()
            .map_err(|error| Error::malformed(path, error))?;
        Ok(Self { bpe, start_id, end_id: start_id + 1 })
    }
}

fn unpack(bytes: &[u8], path: &Path) -> Result<String> {
    let mut text = String::new();
    let mut reader = GzDecoder::new(bytes).take(MAX_UNPACKED);
    let length = reader.read_to_string(&mut text).map_err(|error| Error::malformed(path, error))?;
    if length as u64 == MAX_UNPACKED {
        return Err(Error::malformed(path, format!("unpacks to more than {MAX_UNPACKED} bytes")));
    }
    Ok(text)
}

/// Bytes in the order of their tokens: printable ones first.
fn printable_first() -> impl Iterator<Item = u8> {
    let bytes = || 0..=u8::MAX;
    bytes().filter(|byte| is_printable(*byte)).chain(bytes().filter(|byte| !is_printable(*byte)))
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// The character that stands for each byte: itself in Latin-1 if printable, else one from U+0100 on.
pub(super) fn byte_symbols() -> [char; 256] {
    let mut symbols = ['\0'; 256];
    let mut next = 0x100;
    for byte in 0..=u8::MAX {
        symbols[usize::from(byte)] = if is_printable(byte) {
            char::from(byte)
        } else {
            next += 1;
            char::from_u32(next - 1).unwrap_or('\0')
        };
    }
    symbols
}

/// Reads `vocab.json` text.
pub(super) fn parse_vocab(bytes: &[u8], path: &Path) -> Result<Vocab> {
    let ids: HashMap<String, u32> = serde_json::from_slice(bytes).map_err(|error| Error::malformed(path, error))?;
    Ok(ids.into_iter().collect())
}

/// Reads `merges.txt` text: lines of two symbols, `#version` lines skipped.
pub(super) fn parse_merges(bytes: &[u8], path: &Path) -> Result<Merges> {
    let text = std::str::from_utf8(bytes).map_err(|error| Error::malformed(path, error))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with("#version") && !line.is_empty());
    lines
        .map(|(number, line)| {
            let (left, right) = line.split_once(' ').ok_or_else(|| {
                Error::malformed(path, format!("line {} is {line:?}, expected two symbols", number + 1))
            })?;
            Ok((left.to_string(), right.to_string()))
        })
        .collect()
}
