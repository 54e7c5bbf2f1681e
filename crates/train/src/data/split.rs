//! Training and validation parts: which part an item belongs to depends on the item alone, so that it stays there when data is added.

use serde::{Deserialize, Serialize};

use super::random::Random;
use crate::error::{Error, Result};

/// A part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Everything.
    #[default]
    All,
    /// What isn't in the validation part.
    Train,
    /// A share that is held out.
    Validation,
}

impl Part {
    /// The name used in recipes, messages and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Train => "train",
            Self::Validation => "validation",
        }
    }
}

/// What decides on the part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SplitBy {
    /// What an item is known by: its path, key or text. All that is said of an item stays together.
    #[default]
    Item,
    /// The bytes of the left side, which are read for it: copies under other names stay together too.
    Content,
    /// The concept: the validation part shows concepts that training never saw.
    Concept,
}

/// How a data set is split.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SplitRule {
    /// Expected share of the validation part, from 0 to 1.
    pub share: f64,
    /// Another seed gives another split.
    pub seed: u64,
    /// What decides.
    pub by: SplitBy,
}

impl Default for SplitRule {
    /// A twentieth, by item.
    fn default() -> Self {
        Self { share: 0.05, seed: 0, by: SplitBy::Item }
    }
}

impl SplitRule {
    /// Checks the share.
    ///
    /// # Errors
    /// A share that isn't between 0 and 1.
    pub fn check(&self) -> Result<()> {
        if (0.0..=1.0).contains(&self.share) {
            Ok(())
        } else {
            Err(Error::Invalid(format!("a validation share of {}, expected one between 0 and 1", self.share)))
        }
    }

    /// The part of whatever has this number.
    pub fn part_of(&self, number: u64) -> Part {
        let drawn = Random::about(&[self.seed, number]).next_u64() as f64 / 2f64.powi(64);
        if drawn < self.share { Part::Validation } else { Part::Train }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_kept_and_parts_only_grow_with_it() {
        let rule = SplitRule { share: 0.2, seed: 3, by: SplitBy::Item };
        let held = (0..10_000).filter(|number| rule.part_of(*number) == Part::Validation).count();
        assert!((1900..2100).contains(&held), "{held}");
        let larger = SplitRule { share: 0.3, ..rule };
        let is_held = |rule: &SplitRule, number| rule.part_of(number) == Part::Validation;
        assert!((0..10_000).all(|number| !is_held(&rule, number) || is_held(&larger, number)));
        let other = SplitRule { seed: 4, ..rule };
        assert!((0..100).any(|number| rule.part_of(number) != other.part_of(number)));
        let ends = [0.0, 1.0].map(|share| SplitRule { share, ..rule });
        assert!((0..1000).all(|number| !is_held(&ends[0], number) && is_held(&ends[1], number)));
    }

    #[test]
    fn shares_are_checked() {
        for share in [-0.1, 1.1, f64::NAN] {
            assert!(SplitRule { share, ..SplitRule::default() }.check().is_err());
        }
    }
}
