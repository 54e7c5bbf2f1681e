//! The public library: models and collections put to work.
//!
//! Plain types in, plain types out. Nothing here prints: long work reports through [`ingest::Events`] and stops through a
//! [`CancelToken`], so that a command line, a server or a binding can sit on top.
//!
//! ```no_run
//! use crossmodal_engine::{Collection, LoadOptions, Mode, Query, SearchOptions, ingest};
//!
//! let model = crossmodal_engine::load("mini", &LoadOptions::default())?;
//! let collection = Collection::open(std::path::Path::new("pictures.cm"), &Mode::write())?;
//! let request = ingest::Request::new(vec!["pictures".into()]);
//! ingest::run(&collection, &model, &request, &ingest::Events::none(), &Default::default())?;
//! for found in collection.search(model.as_ref(), &Query::text("red apple"), &SearchOptions::default())? {
//!     println!("{:.3} {}", found.hit.score, found.hit.item.id);
//! }
//! # Ok::<(), crossmodal_engine::Error>(())
//! ```

#![forbid(unsafe_code)]

pub mod accuracy;
pub mod batching;
pub mod bench;
pub mod bulk;
pub mod classify;
mod collection;
pub mod demo;
pub mod duplicates;
mod embed;
mod error;
pub mod exchange;
pub mod files;
pub mod ingest;
pub mod metadata;
pub mod migrate;
pub mod projection;
pub mod relevance;
mod search;
mod similarity;
pub mod thumbnails;
pub mod upkeep;

pub use collection::{Collection, DEFAULT_FIELD, Mode, Target};
pub use crossmodal_models::{
    CancelToken, Content, Device, Embedder, Embedding, Input, Kept, LoadOptions, Modality, ModelEvent, ModelEvents,
    ModelInfo, Precision, ProbabilityRule, Role, SpaceId, Token, Tokenized, compute, load, load_clip, media, quantize,
    registry, source, verify,
};
pub use crossmodal_store::{
    BackupReport, BuildControl, CollectionInfo, CompactReport, Comparison, Field, FieldInfo, Filter, FilterPath,
    FilterValue, Hit, IndexChoice, IndexInfo, IndexReport, IndexState, Item, ListRequest, Metric, Problem, ProblemKind,
    Source, Span, StoreError, StoredItem, VerifyReport as CollectionReport,
};
pub use embed::{embed_each, read_input};
pub use error::{Error, ErrorKind, Result};
pub use search::expression;
pub use search::{Found, GroupBy, Part, Query, Ranking, SearchOptions, Subject};
pub use similarity::{Similarity, similarity};
