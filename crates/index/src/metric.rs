//! The similarity measures and their scores.

use std::fmt;
use std::str::FromStr;

use crossmodal_kernels::distance;

use crate::IndexError;

/// How two vectors are compared. Every score is "higher is better".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// The cosine of the angle, in -1..=1. Rows are stored with unit length, so that it is a plain inner product;
    /// queries are normalised by the search.
    Cosine,
    /// The inner product, unbounded. Rows and queries are taken as they are.
    InnerProduct,
    /// The negated Euclidean distance (not squared), in -infinity..=0: 0 is identical.
    Euclidean,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Self; 3] = [Self::Cosine, Self::InnerProduct, Self::Euclidean];

    /// The stable name: `cosine`, `inner_product` or `euclidean`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::InnerProduct => "inner_product",
            Self::Euclidean => "euclidean",
        }
    }

    /// The score of two vectors of one length, both already prepared (unit vectors for [`Metric::Cosine`]).
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn score(self, a: &[f32], b: &[f32]) -> f32 {
        match self {
            Self::Cosine | Self::InnerProduct => distance::dot(a, b),
            Self::Euclidean => -distance::squared_euclidean(a, b).sqrt(),
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Metric {
    type Err = IndexError;

    fn from_str(text: &str) -> Result<Self, IndexError> {
        Self::ALL
            .into_iter()
            .find(|metric| metric.as_str() == text)
            .ok_or_else(|| IndexError::UnknownMetric(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_unknown_ones_are_named() {
        for metric in Metric::ALL {
            assert_eq!(metric.to_string().parse(), Ok(metric));
        }
        let error = "hamming".parse::<Metric>().unwrap_err();
        assert!(error.to_string().contains("hamming"), "{error}");
    }

    #[test]
    fn scores_rise_with_similarity() {
        let (near, far) = ([1.0, 0.5], [-3.0, 2.0]);
        for metric in Metric::ALL {
            assert!(metric.score(&[1.0, 0.0], &near) > metric.score(&[1.0, 0.0], &far));
        }
        assert_eq!(Metric::Euclidean.score(&[0.0, 0.0], &[3.0, 4.0]), -5.0);
    }
}
