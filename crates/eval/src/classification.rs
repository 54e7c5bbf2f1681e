//! Classification: each sample has one class, and a score for every class.

use crate::error::{Error, Result};
use crate::ranking::ranks_of_correct;

/// Where each sample's own class stood among all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classification {
    classes: usize,
    labels: Vec<u32>,
    ranks: Vec<u32>,
}

impl Classification {
    /// No samples yet, among so many classes.
    pub fn new(classes: usize) -> Self {
        Self { classes, labels: Vec::new(), ranks: Vec::new() }
    }

    /// Adds a sample: its score with every class, and its own class.
    ///
    /// # Errors
    /// Another number of scores than classes, a score that is NaN, or a class out of range.
    pub fn add(&mut self, scores: &[f32], label: u32) -> Result<()> {
        let (sample, classes) = (self.labels.len(), self.classes);
        if scores.len() != classes {
            return Err(Error::Invalid(format!("sample {sample} has {} scores, expected {classes}", scores.len())));
        }
        if label as usize >= classes {
            return Err(Error::Invalid(format!("sample {sample} has class {label}, but there are {classes} classes")));
        }
        let ranks = ranks_of_correct(sample, scores, &[label as usize])?;
        self.ranks.extend(ranks);
        self.labels.push(label);
        Ok(())
    }

    /// Number of samples.
    pub fn samples(&self) -> usize {
        self.labels.len()
    }

    /// Number of classes that scores are compared among.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The class of each sample.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Whether a sample's own class was among its first `k`; the mean is top-k accuracy.
    pub fn hits_at(&self, k: usize) -> Vec<bool> {
        self.ranks.iter().map(|rank| *rank as usize <= k).collect()
    }

    /// Top-k accuracy of each class over the samples named by their places; `None` for a class that doesn't occur among them.
    pub fn accuracy_by_class(&self, k: usize, samples: impl IntoIterator<Item = usize>) -> Vec<Option<f64>> {
        let mut counts = vec![(0u64, 0u64); self.classes];
        for sample in samples {
            let (hits, all) = &mut counts[self.labels[sample] as usize];
            *hits += u64::from(self.ranks[sample] as usize <= k);
            *all += 1;
        }
        counts.into_iter().map(|(hits, all)| (all > 0).then(|| hits as f64 / all as f64)).collect()
    }

    /// The mean over classes of their top-k accuracies, over the samples named by their places; classes that don't occur are left out. NaN
    /// without samples.
    pub fn balanced_accuracy(&self, k: usize, samples: impl IntoIterator<Item = usize>) -> f64 {
        let found: Vec<f64> = self.accuracy_by_class(k, samples).into_iter().flatten().collect();
        found.iter().sum::<f64>() / found.len() as f64
    }

    /// The share of the largest class: what always answering with it would reach. NaN without samples.
    pub fn majority_share(&self) -> f64 {
        let mut counts = vec![0u64; self.classes];
        self.labels.iter().for_each(|label| counts[*label as usize] += 1);
        counts.iter().max().copied().unwrap_or(0) as f64 / self.labels.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balance_weighs_classes_alike() {
        let mut found = Classification::new(3);
        // Three of class 0, all right; one of class 2, second.
        for _ in 0..3 {
            found.add(&[0.9, 0.1, 0.2], 0).unwrap();
        }
        found.add(&[0.5, 0.1, 0.2], 2).unwrap();
        assert_eq!(found.hits_at(1), [true, true, true, false]);
        assert_eq!(found.hits_at(2), [true; 4]);
        assert_eq!(found.accuracy_by_class(1, 0..4), [Some(1.0), None, Some(0.0)]);
        assert_eq!(found.balanced_accuracy(1, 0..4), 0.5);
        assert_eq!(found.majority_share(), 0.75);
    }

    #[test]
    fn a_model_that_says_nothing_is_never_right() {
        let mut found = Classification::new(4);
        (0..4).for_each(|label| found.add(&[0.25; 4], label).unwrap());
        assert_eq!(found.hits_at(3), [false; 4]);
    }

    #[test]
    fn classes_out_of_range_and_nan_are_refused() {
        let mut found = Classification::new(2);
        assert!(found.add(&[0.1, 0.2], 2).unwrap_err().to_string().contains("class 2, but there are 2 classes"));
        assert!(found.add(&[0.1], 0).is_err());
        assert!(found.add(&[0.1, f32::NAN], 0).is_err());
        assert_eq!(found.samples(), 0);
    }
}
