//! Tokenizers in Hugging Face files. For CLIP, `transformers` 5 takes only vocabulary, merges and added tokens from the files
//! and makes the rest of the pipeline itself; so does this. Other tokenizers are used as their `tokenizer.json` says.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{AddedToken, Encoding, PostProcessor, SplitDelimiterBehavior, TruncationDirection};

use super::clean::Clean;
use super::vocabulary::{END_OF_WORD, parse_merges, parse_vocab};
use super::{Encoded, Token};
use crate::error::{Error, Result};
use crate::source::Located;

const CONFIG: &str = "tokenizer_config.json";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";
const ADDED_TOKENS: &str = "added_tokens.json";
const TOKENIZER: &str = "tokenizer.json";

/// Words of a normalised text.
const CLIP_WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Configuration keys of the special tokens, with the default of CLIP's tokenizer.
const SPECIAL_ROLES: [(&str, Option<&str>); 7] = [
    ("bos_token", Some("<|startoftext|>")),
    ("eos_token", Some("<|endoftext|>")),
    ("unk_token", Some("<|endoftext|>")),
    ("sep_token", None),
    ("pad_token", Some("<|endoftext|>")),
    ("cls_token", None),
    ("mask_token", None),
];

/// A tokenizer of the `tokenizers` library with the options that its files hold besides.
pub(super) struct HuggingFace {
    tokenizer: tokenizers::Tokenizer,
    kind: &'static str,
    direction: TruncationDirection,
    /// The id that fills up short texts.
    pub pad_id: u32,
    /// `model_max_length`.
    pub max_length: Option<usize>,
    /// Cleaning before the tokenizer's own normalisation.
    pub clean: Option<Clean>,
}

impl HuggingFace {
    pub(super) fn load(files: &Located) -> Result<Self> {
        let config = read_json(files, CONFIG)?.unwrap_or_default();
        let class = config.get("tokenizer_class").and_then(Value::as_str);
        let is_clip = class.is_none_or(|class| matches!(class, "CLIPTokenizer" | "CLIPTokenizerFast"));
        let model = read_json(files, TOKENIZER)?;
        let special = SpecialTokens::read(files, &config, model.as_ref())?;
        let (mut tokenizer, kind) = match (is_clip, &model) {
            (true, _) => (clip(files, model.as_ref(), &special)?, "Hugging Face CLIP BPE"),
            (false, Some(_)) => (as_is(files)?, "Hugging Face tokenizer.json"),
            (false, None) => {
                let path = files.display_path(TOKENIZER);
                let class = class.unwrap_or_default();
                return Err(Error::NotFound(format!(
                    "{}: no such file, and {class} can't be made without it",
                    path.display()
                )));
            }
        };
        let padding = tokenizer.get_padding().map(|padding| padding.pad_id);
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| Error::malformed(&files.display_path(TOKENIZER), error))?;
        let id_of = |role: &str| special.content(role).and_then(|token| tokenizer.token_to_id(&token));
        let left = config.get("truncation_side").and_then(Value::as_str) == Some("left");
        Ok(Self {
            kind,
            direction: if left { TruncationDirection::Left } else { TruncationDirection::Right },
            pad_id: id_of("pad_token").or(padding).unwrap_or(0),
            max_length: max_length(&config),
            clean: None,
            tokenizer,
        })
    }

    /// Number of begin and end tokens.
    pub(super) fn added_tokens(&self) -> usize {
        self.tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false))
    }

    pub(super) fn highest_id(&self) -> u32 {
        self.tokenizer.get_vocab(true).into_values().max().unwrap_or(0)
    }

    pub(super) fn describe(&self) -> String {
        let tokens = self.tokenizer.get_vocab_size(true);
        match self.clean {
            Some(clean) => format!("{}, {tokens} tokens, cleaning {}", self.kind, clean.as_str()),
            None => format!("{}, {tokens} tokens", self.kind),
        }
    }

    /// What is put before and behind the ids of a text.
    pub(super) fn frame(&self) -> Result<(Vec<u32>, Vec<u32>)> {
        let any = tokenizers::Token::new(0, String::new(), (0, 0));
        let framed = self.tokenizer.post_process(Encoding::from_tokens(vec![any], 0), None, true).map_err(failed)?;
        let place = framed.get_special_tokens_mask().iter().position(|special| *special == 0).unwrap_or(0);
        let ids = framed.get_ids();
        Ok((ids[..place].to_vec(), ids[place + 1..].to_vec()))
    }

    /// All tokens, with their places in the text unless it is cleaned first.
    pub(super) fn tokenize(&self, text: &str) -> Result<Vec<Token>> {
        let cleaned = self.clean.map(|clean| clean.apply(text));
        let text = cleaned.as_deref().unwrap_or(text);
        let encoding = self.tokenizer.encode(text, true).map_err(failed)?;
        let (ids, tokens) = (encoding.get_ids(), encoding.get_tokens());
        let (places, special) = (encoding.get_offsets(), encoding.get_special_tokens_mask());
        let token = |index: usize| {
            let (place, special) = (places[index], special[index] == 1);
            Token {
                id: ids[index],
                text: match text.as_bytes().get(place.0..place.1) {
                    Some(bytes) if !special => String::from_utf8_lossy(bytes).into_owned(),
                    _ => tokens[index].clone(),
                },
                special,
                bytes: (!special && self.clean.is_none()).then_some(place),
            }
        };
        Ok((0..ids.len()).map(token).collect())
    }

    pub(super) fn encode(&self, text: &str, context_length: usize) -> Result<Encoded> {
        let cleaned = self.clean.map(|clean| clean.apply(text));
        let text = cleaned.as_deref().unwrap_or(text);
        let mut encoding = self.tokenizer.encode_fast(text, false).map_err(failed)?;
        let full_length = encoding.len() + self.added_tokens();
        encoding.truncate(context_length - self.added_tokens(), 0, self.direction);
        let encoding = self.tokenizer.post_process(encoding, None, true).map_err(failed)?;
        Ok(Encoded { ids: encoding.get_ids().to_vec(), truncated: full_length > context_length, full_length })
    }
}

fn failed(error: tokenizers::Error) -> Error {
    Error::Input(format!("tokenizing a text: {error}"))
}

/// `model_max_length` if it is a real limit; files write 1e30 for "none".
fn max_length(config: &Map<String, Value>) -> Option<usize> {
    let limit = config.get("model_max_length")?.as_u64()?;
    usize::try_from(limit).ok().filter(|limit| *limit > 0)
}

fn as_is(files: &Located) -> Result<tokenizers::Tokenizer> {
    let path = files.display_path(TOKENIZER);
    let bytes = files.read(TOKENIZER)?.unwrap_or_default();
    tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| Error::malformed(&path, error))
}

/// CLIP's pipeline around the vocabulary in the files.
fn clip(files: &Located, model: Option<&Map<String, Value>>, special: &SpecialTokens) -> Result<tokenizers::Tokenizer> {
    let path = files.display_path(if model.is_some() { TOKENIZER } else { "vocab.json" });
    let malformed = |error: tokenizers::Error| Error::malformed(&path, error);
    let (vocab, merges) = match model {
        Some(model) => vocabulary_of(model).map_err(|reason| Error::malformed(&path, reason))?,
        None => vocabulary_files(files)?,
    };
    let bpe = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .unk_token(special.content("unk_token").unwrap_or_default())
        .continuing_subword_prefix(String::new())
        .end_of_word_suffix(END_OF_WORD.to_string())
        .build()
        .map_err(malformed)?;
    let mut tokenizer = tokenizers::Tokenizer::new(bpe);
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".to_string()), " ").map_err(malformed)?;
    let normalizers = Normalizers::new(vec![NFC.into(), spaces.into(), Lowercase.into()]);
    tokenizer.with_normalizer(Some(normalizers)).map_err(malformed)?;
    let words = SplitPattern::Regex(CLIP_WORDS.to_string());
    let split = Split::new(words, SplitDelimiterBehavior::Removed, true).map_err(malformed)?;
    let bytes = ByteLevel::new(false, true, true);
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![split.into(), bytes.into()])));
    tokenizer.add_tokens(special.to_add()).map_err(malformed)?;
    let token = |role: &str| {
        let content = special.content(role).unwrap_or_default();
        let id = tokenizer.token_to_id(&content);
        id.map(|id| (content, id)).ok_or_else(|| Error::malformed(&path, format!("the vocabulary has no {role}")))
    };
    let ends =
        RobertaProcessing::new(token("eos_token")?, token("bos_token")?).trim_offsets(false).add_prefix_space(false);
    tokenizer.with_post_processor(Some(ends));
    Ok(tokenizer)
}

type VocabularyAndMerges = (Vocab, Merges);

/// Vocabulary and merges inside `tokenizer.json`.
fn vocabulary_of(model: &Map<String, Value>) -> std::result::Result<VocabularyAndMerges, String> {
    let model = model.get("model").ok_or("field `model` is missing")?;
    let vocab = model.get("vocab").and_then(Value::as_object).ok_or("field `model.vocab` is missing or no object")?;
    let id = |(token, id): (&String, &Value)| {
        let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
        number.map(|number| (token.clone(), number)).ok_or(format!("the id of token {token:?} is {id}"))
    };
    let vocab = vocab.iter().map(id).collect::<std::result::Result<_, _>>()?;
    let merges = model.get("merges").and_then(Value::as_array).ok_or("field `model.merges` is missing or no array")?;
    let pair = |merge: &Value| {
        let pieces = match merge {
            Value::String(joined) => joined.split_once(' ').map(|(left, right)| (left.to_string(), right.to_string())),
            Value::Array(pieces) => match pieces.as_slice() {
                [Value::String(left), Value::String(right)] => Some((left.clone(), right.clone())),
                _ => None,
            },
            _ => None,
        };
        pieces.ok_or(format!("merge {merge} is not a pair"))
    };
    Ok((vocab, merges.iter().map(pair).collect::<std::result::Result<_, _>>()?))
}

fn vocabulary_files(files: &Located) -> Result<VocabularyAndMerges> {
    let read = |name: &str| -> Result<_> {
        let path = files.display_path(name);
        let bytes = files
            .read(name)?
            .ok_or_else(|| Error::NotFound(format!("{}: no such file, nor is there a {TOKENIZER}", path.display())))?;
        Ok((bytes, path))
    };
    let (vocab, vocab_path) = read("vocab.json")?;
    let (merges, merges_path) = read("merges.txt")?;
    Ok((parse_vocab(&vocab, &vocab_path)?, parse_merges(&merges, &merges_path)?))
}

/// Special and added tokens, gathered from the files in the order of precedence that `transformers` has.
struct SpecialTokens {
    /// By id.
    added: BTreeMap<u64, AddedToken>,
    /// By role, in the order of `SPECIAL_ROLES`.
    roles: Vec<(&'static str, WrittenToken)>,
    extra: Vec<WrittenToken>,
}

impl SpecialTokens {
    fn read(files: &Located, config: &Map<String, Value>, model: Option<&Map<String, Value>>) -> Result<Self> {
        let mut settings = config.clone();
        let added = match config.get("added_tokens_decoder").and_then(Value::as_object) {
            Some(listed) => listed_tokens(listed, &files.display_path(CONFIG))?,
            None => older_tokens(files, model, &mut settings)?,
        };
        let resolve = |written: WrittenToken| {
            let mut listed = added.values();
            let known = listed.find(|other| other.content == written.token.content);
            known.map_or(written.clone(), |token| WrittenToken { token: token.clone(), ..written })
        };
        let role_token = |(role, default): (&'static str, Option<&str>)| {
            let written = match settings.get(role) {
                Some(token) => WrittenToken::parse(token),
                None => default.and_then(|content| WrittenToken::parse(&Value::from(content))),
            };
            written.map(|written| (role, resolve(written)))
        };
        let roles = SPECIAL_ROLES.into_iter().filter_map(role_token).collect();
        let extra = ["extra_special_tokens", "additional_special_tokens"]
            .into_iter()
            .filter_map(|key| settings.get(key)?.as_array())
            .flatten()
            .filter_map(WrittenToken::parse)
            .collect();
        Ok(Self { added, roles, extra })
    }

    fn content(&self, role: &str) -> Option<String> {
        self.roles.iter().find(|(other, _)| *other == role).map(|(_, token)| token.token.content.clone())
    }

    /// The tokens to give to the tokenizer, in order: of two with one content the later counts. A role's token is left out
    /// if its content is listed already, or if a role before it has it in the same notation.
    fn to_add(&self) -> Vec<AddedToken> {
        let is_role = |token: &AddedToken| {
            let mut roles = self.roles.iter();
            roles.any(|(_, role)| role.token.content == token.content)
        };
        let special = |token: &AddedToken| token.clone().special(token.special || is_role(token));
        let mut tokens: Vec<AddedToken> = self.added.values().map(special).collect();
        let listed = |token: &AddedToken| self.added.values().any(|other| other.content == token.content);
        let mut written: Vec<&WrittenToken> = Vec::new();
        for token in self.roles.iter().map(|(_, token)| token).chain(&self.extra) {
            if !listed(&token.token) && !written.contains(&token) {
                written.push(token);
                tokens.push(special(&token.token));
            }
        }
        tokens
    }
}

/// A token with its notation, which decides whether two mentions are one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct WrittenToken {
    token: AddedToken,
    is_object: bool,
}

impl WrittenToken {
    /// A string, which makes a special token, or an object with properties.
    fn parse(written: &Value) -> Option<Self> {
        let is_object = written.is_object();
        let token = if is_object { added_token(written)? } else { AddedToken::from(written.as_str()?, true) };
        Some(Self { token, is_object })
    }
}

/// `added_tokens_decoder` of `tokenizer_config.json`.
fn listed_tokens(listed: &Map<String, Value>, path: &Path) -> Result<BTreeMap<u64, AddedToken>> {
    let mut added = BTreeMap::new();
    for (id, token) in listed {
        let id = id.parse().map_err(|_| Error::malformed(path, format!("added token id {id:?} is no number")))?;
        added.extend(added_token(token).map(|token| (id, token)));
    }
    Ok(added)
}

/// Added tokens of files without `added_tokens_decoder`: those of `added_tokens.json`, then those of `tokenizer.json`. The roles
/// in `special_tokens_map.json` go into `settings`.
fn older_tokens(
    files: &Located,
    model: Option<&Map<String, Value>>,
    settings: &mut Map<String, Value>,
) -> Result<BTreeMap<u64, AddedToken>> {
    for (role, mut token) in read_json(files, SPECIAL_TOKENS)?.unwrap_or_default() {
        if let Some(fields) = token.as_object_mut() {
            fields.insert("special".to_string(), Value::Bool(true));
        }
        settings.insert(role, token);
    }
    let content = |token: &Value| -> Option<String> {
        Some(token.as_str().or_else(|| token.get("content")?.as_str())?.to_string())
    };
    let specials: Vec<String> = SPECIAL_ROLES.iter().filter_map(|(role, _)| content(settings.get(*role)?)).collect();
    let mut added = BTreeMap::new();
    for (token, id) in read_json(files, ADDED_TOKENS)?.unwrap_or_default() {
        let special = specials.contains(&token);
        added.extend(id.as_u64().map(|id| (id, AddedToken::from(token, special))));
    }
    let listed = model.and_then(|model| model.get("added_tokens")).and_then(Value::as_array);
    for token in listed.into_iter().flatten() {
        added.extend(token.get("id").and_then(Value::as_u64).zip(added_token(token)));
    }
    Ok(added)
}

/// A token that is written as an object with its properties.
fn added_token(token: &Value) -> Option<AddedToken> {
    let flag = |name: &str| token.get(name).and_then(Value::as_bool);
    let special = flag("special").unwrap_or(false);
    let made = AddedToken::from(token.get("content")?.as_str()?, special)
        .single_word(flag("single_word").unwrap_or(false))
        .lstrip(flag("lstrip").unwrap_or(false))
        .rstrip(flag("rstrip").unwrap_or(false))
        .normalized(flag("normalized").unwrap_or(!special));
    Some(made)
}

fn read_json(files: &Located, name: &str) -> Result<Option<Map<String, Value>>> {
    let Some(bytes) = files.read(name)? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| Error::malformed(&files.display_path(name), error))
}
