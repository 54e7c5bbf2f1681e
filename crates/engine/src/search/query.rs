//! What is searched for, and how.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use crossmodal_models::{Content, Input};
use crossmodal_store::{Filter, Hit, Item};
use serde_json::Value;

use super::expression::{self, Operand};
use crate::error::{Error, Result};

/// What a part of a query is about.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    /// A text or picture to embed.
    Input(Input),
    /// An item of the collection, by its id, path, or the end of its id. It is left out of the hits.
    Item(String),
    /// A vector of the collection's dimension. Where the collection compares by cosine, its length counts for nothing and isn't 0.
    Vector(Vec<f32>),
}

/// A summand of a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// The factor on the unit vector; negative to search away from it. Finite, not 0.
    pub weight: f32,
    /// What the vector is of.
    pub subject: Subject,
    /// Whether the words of a text are a phrase, where words are searched for.
    pub phrase: bool,
}

impl Part {
    /// A text, a picture, or whatever else the model embeds.
    pub fn input(weight: f32, input: Input) -> Self {
        Self { weight, subject: Subject::Input(input.as_query()), phrase: false }
    }

    /// An item of the collection.
    pub fn item(weight: f32, id: impl Into<String>) -> Self {
        Self { weight, subject: Subject::Item(id.into()), phrase: false }
    }

    /// A vector as it is.
    pub fn vector(weight: f32, vector: Vec<f32>) -> Self {
        Self { weight, subject: Subject::Vector(vector), phrase: false }
    }

    /// The same, a phrase where words are searched for.
    #[must_use]
    pub fn as_phrase(self) -> Self {
        Self { phrase: true, ..self }
    }
}

/// A weighted sum of unit vectors: the direction that is searched in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Query {
    /// The summands.
    pub parts: Vec<Part>,
}

impl Query {
    /// A text as it is.
    pub fn text(text: impl Into<String>) -> Self {
        Self { parts: vec![Part::input(1.0, Input::text(text))] }
    }

    /// An encoded picture.
    pub fn image(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { parts: vec![Part::input(1.0, Input::image(bytes))] }
    }

    /// One of the collection's items.
    pub fn like(id: impl Into<String>) -> Self {
        Self { parts: vec![Part::item(1.0, id)] }
    }

    /// A vector.
    pub fn vector(vector: Vec<f32>) -> Self {
        Self { parts: vec![Part::vector(1.0, vector)] }
    }

    /// Reads the language of [`expression`], pictures included.
    ///
    /// # Errors
    /// A text that can't be understood, or a picture that can't be read.
    pub fn parse(text: &str) -> Result<Self> {
        Self::of(expression::parse(text)?)
    }

    /// Reads the language of [`expression`] for somebody whose files these aren't: no file is looked at, a path is words.
    ///
    /// # Errors
    /// A text that can't be understood, or that names a picture's file.
    pub fn parse_text(text: &str) -> Result<Self> {
        Self::of(expression::parse_text(text)?)
    }

    fn of(terms: Vec<expression::Term>) -> Result<Self> {
        let part = |term: expression::Term| -> Result<Part> {
            Ok(match term.operand {
                Operand::Text(words) => Part::input(term.weight, Input::text(words)),
                Operand::Phrase(words) => Part::input(term.weight, Input::text(words)).as_phrase(),
                Operand::Image(path) => Part::input(term.weight, crate::read_input(&path)?),
                Operand::Item(id) => Part::item(term.weight, id),
            })
        };
        Ok(Self { parts: terms.into_iter().map(part).collect::<Result<_>>()? })
    }

    /// The words that are searched for, without those that are searched away from; phrases in quotes.
    pub(super) fn words(&self) -> String {
        let words = self.parts.iter().filter(|part| part.weight > 0.0).filter_map(|part| match &part.subject {
            Subject::Input(Input { content: Content::Text(text), .. }) if part.phrase => {
                Some(format!("\"{}\"", text.replace('"', " ")))
            }
            Subject::Input(Input { content: Content::Text(text), .. }) => Some(text.clone()),
            _ => None,
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

/// What makes hits belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupBy {
    /// The folder of the item's file.
    Folder,
    /// The item's file: several items may be parts of one.
    File,
    /// A value of the metadata: the keys from the outermost object inwards.
    Metadata(Vec<String>),
}

impl FromStr for GroupBy {
    type Err = String;

    /// `folder`, `file`, or a metadata key with dots between levels; `metadata.folder` is the key, not the folder.
    fn from_str(name: &str) -> std::result::Result<Self, String> {
        match name {
            "folder" => Ok(Self::Folder),
            "file" => Ok(Self::File),
            _ => {
                let keys: Vec<String> =
                    name.strip_prefix("metadata.").unwrap_or(name).split('.').map(str::to_string).collect();
                if keys.iter().any(|key| key.trim().is_empty()) {
                    return Err(format!(
                        "{name:?} is no key: expected folder, file, or a metadata key such as camera.model"
                    ));
                }
                Ok(Self::Metadata(keys))
            }
        }
    }
}

impl GroupBy {
    /// The group of an item; none where it has no such value: then it stands alone.
    pub(super) fn of(&self, item: &Item) -> Option<String> {
        let uri = item.source.as_ref().map(|source| source.uri.as_str());
        match self {
            Self::File => uri.map(str::to_string),
            Self::Folder => {
                let folder = Path::new(uri?).parent()?;
                Some(folder.display().to_string())
            }
            Self::Metadata(keys) => {
                let (first, inner) = keys.split_first()?;
                let value = inner.iter().try_fold(item.metadata.get(first)?, |value, key| value.get(key))?;
                match value {
                    Value::Null => None,
                    Value::String(text) => Some(text.clone()),
                    value => Some(value.to_string()),
                }
            }
        }
    }
}

/// What ranks the items.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Ranking {
    /// Nearness of vectors; scores are cosines.
    #[default]
    Vectors,
    /// The query's words in names, captions and other texts; scores are BM25.
    Words,
    /// Both, fused; scores only compare within one answer.
    Both {
        /// The share of the vectors' scores against the words', 0..=1, each stretched to the same range. None fuses ranks instead (reciprocal
        /// rank fusion), which needs no scale.
        vectors: Option<f32>,
    },
}

/// How hits are found, chosen and ordered. In this order: the filter, the ranking, `min_score`, `relevant_only`, `group_by`,
/// `diversity`, `offset`, `k`.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchOptions {
    /// Number of hits, at least 1.
    pub k: usize,
    /// Hits passed over at the start: the pages before.
    pub offset: usize,
    /// What ranks the items.
    pub ranking: Ranking,
    /// Only items that satisfy it.
    pub filter: Option<Filter>,
    /// Only hits with at least this cosine, whatever ranks them.
    pub min_score: Option<f32>,
    /// Only hits with at least this confidence, 0..=1; [`relevance::RELEVANT`](crate::relevance::RELEVANT) is the measured choice.
    pub relevant_only: Option<f32>,
    /// Only the best hit of each group.
    pub group_by: Option<GroupBy>,
    /// Hits that differ from each other (maximal marginal relevance): 1 is nearness alone, 0 difference alone.
    pub diversity: Option<f32>,
    /// How many candidates an approximate index weighs; a rule of the index chooses when absent.
    pub effort: Option<usize>,
    /// Whether every vector is compared, also where an approximate index exists.
    pub exact: bool,
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self {
            k: 10,
            offset: 0,
            ranking: Ranking::Vectors,
            filter: None,
            min_score: None,
            relevant_only: None,
            group_by: None,
            diversity: None,
            effort: None,
            exact: false,
        }
    }
}

impl SearchOptions {
    /// The best `k`.
    pub fn top(k: usize) -> Self {
        Self { k, ..Self::default() }
    }

    pub(super) fn check(&self) -> Result<()> {
        let share = |name: &str, value: Option<f32>| match value {
            Some(value) if !(0.0..=1.0).contains(&value) => {
                Err(Error::Invalid(format!("{name} is {value}, expected a number from 0 to 1")))
            }
            _ => Ok(()),
        };
        share("the confidence of relevant hits", self.relevant_only)?;
        if let Ranking::Both { vectors } = self.ranking {
            share("the share of the vectors' scores", vectors)?;
        }
        share("the weight of nearness against diversity", self.diversity)?;
        if self.min_score.is_some_and(f32::is_nan) {
            return Err(Error::Invalid("the least score is not a number".into()));
        }
        Ok(())
    }

    /// Hits that must be ranked to fill the page.
    pub(super) fn needed(&self) -> usize {
        self.offset.saturating_add(self.k.max(1))
    }
}

/// A hit, and what is made of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The hit.
    pub hit: Hit,
    /// The probability that none of as many unrelated items as were searched scores as high; see [`relevance`](crate::relevance). None
    /// where the collection is too small to tell, or where the query holds a bare vector.
    pub confidence: Option<f32>,
    /// Its group, where hits are grouped and it has one.
    pub group: Option<String>,
}
