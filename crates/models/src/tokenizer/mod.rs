//! Text to token ids, exactly as the reference implementations do it: `transformers` 5 for the Hugging Face layout,
//! `open_clip` 3 for the OpenCLIP layout. The two give different ids for some texts, so the layout decides.

mod clean;
mod ftfy;
mod html;
mod hugging_face;
mod open_clip;
mod python;
mod tokens;
mod vocabulary;

pub use clean::Clean;
pub use tokens::{Kept, Token, Tokenized};

use crate::config::OpenClipTokenizer;
use crate::error::{Error, Result};
use crate::source::Located;

/// A tokenised text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids with begin and end tokens, at most [`Tokenizer::context_length`] of them, not padded.
    pub ids: Vec<u32>,
    /// Whether the text was longer than that and was cut.
    pub truncated: bool,
    /// Number of ids that the whole text would have had.
    pub full_length: usize,
}

/// Turns texts into token ids. Cheap to share between threads.
pub struct Tokenizer {
    rules: Rules,
    pad_id: u32,
    context_length: usize,
    description: String,
}

enum Rules {
    HuggingFace(Box<hugging_face::HuggingFace>),
    Simple(Box<open_clip::Simple>),
}

impl Tokenizer {
    /// The tokenizer of a model in the Hugging Face layout: `tokenizer.json`, or else `vocab.json` and `merges.txt`, with
    /// `tokenizer_config.json` and `special_tokens_map.json`.
    ///
    /// `context_length` is the number of positions of the text tower and `vocab_size` the number of rows of its token table.
    /// A shorter `model_max_length` in the files wins over `context_length`.
    ///
    /// # Errors
    /// Missing or malformed files, or a vocabulary with ids beyond `vocab_size`.
    pub fn hugging_face(files: &Located, context_length: usize, vocab_size: usize) -> Result<Self> {
        let rules = hugging_face::HuggingFace::load(files)?;
        let context_length = rules.max_length.map_or(context_length, |limit| limit.min(context_length));
        Self::from_hugging_face(rules, files, context_length, vocab_size)
    }

    /// The tokenizer of a model in the OpenCLIP layout. With `hf_tokenizer_name` the folder's Hugging Face tokenizer files are
    /// used, else a merge list in the folder if `vocab_size` isn't that of CLIP, else the built-in CLIP vocabulary.
    ///
    /// # Errors
    /// Missing or malformed files, an option that isn't supported, or a vocabulary with ids beyond `vocab_size`.
    pub fn open_clip(
        files: &Located,
        config: &OpenClipTokenizer,
        context_length: usize,
        vocab_size: usize,
    ) -> Result<Self> {
        let clean = config.clean.as_deref().map(|name| parse_clean(files, name)).transpose()?;
        if config.hf_tokenizer_name.as_deref().is_some_and(|name| !name.is_empty()) {
            let mut rules = hugging_face::HuggingFace::load(files)?;
            rules.clean = Some(clean.unwrap_or(Clean::Whitespace));
            return Self::from_hugging_face(rules, files, context_length, vocab_size);
        }
        let clean = clean.unwrap_or(Clean::Lower);
        let rules = open_clip::Simple::load(files, vocab_size, clean)?;
        check_length(files, context_length, 2)?;
        check_vocabulary(files, u64::from(rules.highest_id()) + 1, vocab_size)?;
        Ok(Self {
            description: format!("OpenCLIP BPE, {} tokens, cleaning {}", rules.highest_id() + 1, clean.as_str()),
            rules: Rules::Simple(Box::new(rules)),
            pad_id: 0,
            context_length,
        })
    }

    fn from_hugging_face(
        rules: hugging_face::HuggingFace,
        files: &Located,
        context_length: usize,
        vocab_size: usize,
    ) -> Result<Self> {
        check_length(files, context_length, rules.added_tokens().max(1))?;
        check_vocabulary(files, u64::from(rules.highest_id()) + 1, vocab_size)?;
        Ok(Self {
            description: rules.describe(),
            pad_id: rules.pad_id,
            rules: Rules::HuggingFace(Box::new(rules)),
            context_length,
        })
    }

    /// Tokenises one text. A text that is too long loses its end but keeps the end token.
    ///
    /// # Errors
    /// A text that the tokenizer can't handle; no text is known to cause this for CLIP.
    pub fn encode(&self, text: &str) -> Result<Encoded> {
        match &self.rules {
            Rules::HuggingFace(rules) => rules.encode(text, self.context_length),
            Rules::Simple(rules) => rules.encode(text, self.context_length),
        }
    }

    /// Takes a text apart without cutting it.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn tokenize(&self, text: &str) -> Result<Tokenized> {
        let tokens = match &self.rules {
            Rules::HuggingFace(rules) => rules.tokenize(text)?,
            Rules::Simple(rules) => rules.tokenize(text)?,
        };
        Ok(Tokenized { tokens, limit: self.context_length })
    }

    /// Makes ids that somebody else tokenised complete. Ids that begin with the begin token are taken to be complete, and get an end token only
    /// if there is none among them; all others are ids of a text without begin and end tokens, and get both. Where a tokenizer has no begin token,
    /// ids with an end token among them are complete.
    ///
    /// # Errors
    /// More ids than the model reads: unlike a text, they aren't cut.
    pub fn complete(&self, ids: &[u32]) -> Result<Vec<u32>> {
        let (begin, end) = match &self.rules {
            Rules::HuggingFace(rules) => rules.frame()?,
            Rules::Simple(rules) => rules.frame(),
        };
        let has_end = end.first().is_none_or(|end| ids.contains(end));
        let is_begun = if begin.is_empty() { has_end } else { ids.starts_with(&begin) };
        let complete = match (is_begun, has_end) {
            (true, true) => ids.to_vec(),
            (true, false) => [ids, &end].concat(),
            (false, _) => [&begin, ids, &end].concat(),
        };
        if complete.len() > self.context_length {
            let (given, all, most) = (ids.len(), complete.len(), self.context_length);
            let added = if all > given { format!(", {all} with begin and end tokens") } else { String::new() };
            return Err(Error::Input(format!("{given} token ids{added}, but the model reads at most {most}")));
        }
        Ok(complete)
    }

    /// `ids` followed by padding up to `length`, which is at most the context length.
    pub fn padded(&self, ids: &[u32], length: usize) -> Vec<u32> {
        let missing = length.saturating_sub(ids.len());
        ids.iter().copied().chain(std::iter::repeat_n(self.pad_id, missing)).collect()
    }

    /// The id that fills up short texts.
    pub fn pad_id(&self) -> u32 {
        self.pad_id
    }

    /// Largest number of ids that [`encode`](Self::encode) returns.
    pub fn context_length(&self) -> usize {
        self.context_length
    }

    /// The kind of tokenizer, in words.
    pub fn describe(&self) -> String {
        format!("{}, context {}", self.description, self.context_length)
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tokenizer").field(&self.describe()).finish()
    }
}

fn parse_clean(files: &Located, name: &str) -> Result<Clean> {
    name.parse().map_err(|expected| Error::Config {
        path: files.display_path("open_clip_config.json"),
        field: "model_cfg.text_cfg.tokenizer_kwargs.clean".to_string(),
        value: format!("{name:?}"),
        expected,
    })
}

fn check_vocabulary(files: &Located, needed: u64, vocab_size: usize) -> Result<()> {
    if needed > vocab_size as u64 {
        return Err(Error::malformed(
            &files.display_path(""),
            format!(
                "the tokenizer doesn't match the model: it has {needed} tokens, the model's vocab_size is {vocab_size}"
            ),
        ));
    }
    Ok(())
}

fn check_length(files: &Located, context_length: usize, least: usize) -> Result<()> {
    if context_length < least {
        return Err(Error::malformed(
            &files.display_path(""),
            format!("a context length of {context_length} leaves no room for the {least} begin and end tokens"),
        ));
    }
    Ok(())
}
