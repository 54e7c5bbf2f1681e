//! The tokenizer of OpenAI's CLIP as `open_clip` has it (`SimpleTokenizer`): cleaned text, byte-level BPE per word, padded with 0.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use regex::Regex;
use tokenizers::Model;

use super::clean::Clean;
use super::vocabulary::{CLIP_SIZE, END_OF_WORD, Vocabulary, byte_symbols};
use super::{Encoded, Token, check_vocabulary};
use crate::error::{Error, Result};
use crate::source::Located;

const START: &str = "<start_of_text>";
const END: &str = "<end_of_text>";

/// Words of a cleaned text. Contractions and specials match in either case, and the long s counts as an s. The iota below
/// (U+0345) is no part of any word: the reference's caseless matching takes it for a letter where letters are excluded.
static WORDS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i:<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d)|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}\x{345}]+")
        .expect("a valid pattern")
});

/// The original tokenizer with some vocabulary.
pub(super) struct Simple {
    vocabulary: Arc<Vocabulary>,
    symbols: [char; 256],
    clean: Clean,
}

impl Simple {
    pub(super) fn load(files: &Located, vocab_size: usize, clean: Clean) -> Result<Self> {
        let own = if vocab_size == CLIP_SIZE { None } else { Vocabulary::from_folder(files)? };
        let vocabulary = own.map_or_else(Vocabulary::clip, |vocabulary| Ok(Arc::new(vocabulary)))?;
        check_vocabulary(files, u64::from(vocabulary.end_id) + 1, vocab_size)?;
        Ok(Self { vocabulary, symbols: byte_symbols(), clean })
    }

    pub(super) fn highest_id(&self) -> u32 {
        self.vocabulary.end_id
    }

    pub(super) fn encode(&self, text: &str, context_length: usize) -> Result<Encoded> {
        let cleaned = self.clean.apply(text);
        let mut ids = vec![self.vocabulary.start_id];
        for word in WORDS.find_iter(&cleaned) {
            match word.as_str() {
                START => ids.push(self.vocabulary.start_id),
                END => ids.push(self.vocabulary.end_id),
                word => self.encode_word(word, &mut ids)?,
            }
        }
        ids.push(self.vocabulary.end_id);
        let full_length = ids.len();
        let truncated = full_length > context_length;
        if truncated {
            ids.truncate(context_length - 1);
            ids.push(self.vocabulary.end_id);
        }
        Ok(Encoded { ids, truncated, full_length })
    }

    /// Begin and end tokens.
    pub(super) fn frame(&self) -> (Vec<u32>, Vec<u32>) {
        (vec![self.vocabulary.start_id], vec![self.vocabulary.end_id])
    }

    /// All tokens. Cleaning moves characters about, so that they have no place in the text.
    pub(super) fn tokenize(&self, text: &str) -> Result<Vec<Token>> {
        let cleaned = self.clean.apply(text);
        let (start_id, end_id) = (self.vocabulary.start_id, self.vocabulary.end_id);
        let plain = |id, text: &str, special| Token { id, text: text.to_string(), special, bytes: None };
        let bytes: HashMap<char, u8> = self.symbols.iter().copied().zip(0..=u8::MAX).collect();
        let mut tokens = vec![plain(start_id, START, true)];
        for word in WORDS.find_iter(&cleaned) {
            match word.as_str() {
                START => tokens.push(plain(start_id, START, false)),
                END => tokens.push(plain(end_id, END, false)),
                word => {
                    for token in self.pieces(word)? {
                        tokens.push(plain(token.id, &written(&token.value, &bytes), false));
                    }
                }
            }
        }
        tokens.push(plain(end_id, END, true));
        Ok(tokens)
    }

    fn encode_word(&self, word: &str, ids: &mut Vec<u32>) -> Result<()> {
        ids.extend(self.pieces(word)?.iter().map(|token| token.id));
        Ok(())
    }

    fn pieces(&self, word: &str) -> Result<Vec<tokenizers::Token>> {
        let symbols: String = word.bytes().map(|byte| self.symbols[usize::from(byte)]).collect();
        let tokens = self.vocabulary.bpe.tokenize(&symbols);
        tokens.map_err(|error| Error::Input(format!("tokenizing {word:?}: {error}")))
    }
}

/// The text that a token of byte symbols stands for.
fn written(token: &str, bytes: &HashMap<char, u8>) -> String {
    let token = token.strip_suffix(END_OF_WORD).unwrap_or(token);
    let written: Vec<u8> = token.chars().filter_map(|symbol| bytes.get(&symbol).copied()).collect();
    String::from_utf8_lossy(&written).into_owned()
}
