//! What a caller wants embedded: content, its modality and everything that changes the resulting vector.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The kinds of data that a model can embed. Closed on purpose: code matches it without `_`, so that the compiler lists
/// every place a new modality touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Modality {
    /// Natural-language text.
    Text,
    /// A still picture.
    Image,
    /// A sound recording.
    Audio,
    /// Moving pictures.
    Video,
    /// A depth map.
    Depth,
    /// A thermal (infrared) picture.
    Thermal,
    /// Inertial motion data: accelerometer and gyroscope.
    Imu,
}

impl Modality {
    /// Every modality, in declaration order.
    pub const ALL: [Self; 7] =
        [Self::Text, Self::Image, Self::Audio, Self::Video, Self::Depth, Self::Thermal, Self::Imu];

    /// The lower-case name used in files, JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Depth => "depth",
            Self::Thermal => "thermal",
            Self::Imu => "imu",
        }
    }
}

impl fmt::Display for Modality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Modality {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|modality| modality.as_str() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|modality| modality.as_str()).collect();
            format!("unknown modality {name:?}, expected one of {}", known.join(", "))
        })
    }
}

/// Whether an input asks or answers. Symmetric models such as CLIP ignore it; instruction-tuned embedding models don't.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// What is searched with.
    Query,
    /// What is searched for.
    #[default]
    Document,
}

/// The data itself. Bytes are encoded files (a JPEG, a WAV, ...): decoding belongs to the model, because the decoding and
/// colour rules are part of what it was trained with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Unicode text, for [`Modality::Text`].
    Text(String),
    /// A text as ids of the model's own tokenizer, for [`Modality::Text`]: with begin and end tokens or without, and never cut
    /// ([`Tokenizer::complete`](crate::tokenizer::Tokenizer::complete)).
    Tokens(Vec<u32>),
    /// An encoded file, for every other modality.
    Bytes(Arc<[u8]>),
}

/// The part of a source that an input covers, for sources that are cut into several vectors. Stores keep spans in the same
/// form.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Span {
    /// Seconds from the start of a recording, `0 <= start <= end`.
    Time {
        /// First second.
        start: f64,
        /// Last second.
        end: f64,
    },
    /// Bytes of a UTF-8 text, `start..end`.
    Text {
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
    /// A rectangle of a picture, in pixels of the decoded picture.
    Region {
        /// Left edge.
        x: u32,
        /// Upper edge.
        y: u32,
        /// Width.
        width: u32,
        /// Height.
        height: u32,
    },
    /// A page of a document.
    Page {
        /// Counted from 1.
        number: u32,
    },
}

/// One thing to embed.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// The data.
    pub content: Content,
    /// How the data is to be read.
    pub modality: Modality,
    /// Query or document.
    pub role: Role,
    /// A task description for instruction-tuned models; `None` means the model's own default. A model that takes no
    /// instructions refuses one rather than ignore it.
    pub instruction: Option<String>,
    /// Number of leading dimensions to keep (Matryoshka models); `None` means all. A model not trained for it refuses.
    pub dimensions: Option<usize>,
    /// The part of the source to embed; `None` means all of it.
    pub span: Option<Span>,
}

impl Input {
    /// A text, with all options at their defaults.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(Content::Text(text.into()), Modality::Text)
    }

    /// A text as ids of the model's own tokenizer, with all options at their defaults.
    pub fn tokens(ids: impl Into<Vec<u32>>) -> Self {
        Self::new(Content::Tokens(ids.into()), Modality::Text)
    }

    /// An encoded picture, with all options at their defaults.
    pub fn image(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self::new(Content::Bytes(bytes.into()), Modality::Image)
    }

    /// Content of some modality, with all options at their defaults.
    pub fn new(content: Content, modality: Modality) -> Self {
        Self { content, modality, role: Role::default(), instruction: None, dimensions: None, span: None }
    }

    /// The same input in the role of a query.
    #[must_use]
    pub fn as_query(mut self) -> Self {
        self.role = Role::Query;
        self
    }
}
