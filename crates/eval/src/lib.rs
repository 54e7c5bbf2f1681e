//! Metrics over scores, ranks and labels, with their intervals. Knows no models and no files.
//!
//! Ties are ranked pessimistically everywhere: a correct candidate stands behind every wrong one of the same score. A model that gives all
//! candidates one score is thereby worth nothing, not a lucky order's worth. Scores that are NaN are an error, infinite ones are not.

#![forbid(unsafe_code)]

mod classification;
mod error;
mod interval;
mod random;
mod ranking;
mod retrieval;

pub use classification::Classification;
pub use error::{Error, ErrorKind, Result};
pub use interval::{Bootstrap, Estimate, Interval, Method, mean, median, proportion, wilson};
pub use ranking::{Gain, ndcg, ranks_of_correct};
pub use retrieval::Retrieval;
