//! Samples that were left out: all counted, the first ones listed with reasons.

/// How many are listed.
const LISTED: usize = 1000;

/// Samples that were left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skipped {
    count: u64,
    listed: Vec<(String, String)>,
}

impl Skipped {
    /// Adds a sample by its key, with a reason.
    pub fn add(&mut self, key: &str, reason: String) {
        self.count += 1;
        if self.listed.len() < LISTED {
            self.listed.push((key.to_owned(), reason));
        }
    }

    /// How many were left out.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Keys and reasons of the first thousand.
    pub fn listed(&self) -> &[(String, String)] {
        &self.listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_not_all_are_kept() {
        let mut skipped = Skipped::default();
        (0..LISTED + 5).for_each(|number| skipped.add(&number.to_string(), "broken".into()));
        assert_eq!((skipped.count(), skipped.listed().len()), (LISTED as u64 + 5, LISTED));
    }
}
