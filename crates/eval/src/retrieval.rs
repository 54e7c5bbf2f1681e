//! Retrieval: each query looks for its correct candidates among all.

use crate::error::{Error, Result};
use crate::ranking::ranks_of_correct;

/// Ranks of the correct candidates of every query; metrics are read off per query, so that intervals can resample them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retrieval {
    /// Ascending ranks from 1, at least one a query.
    ranks: Vec<Vec<u32>>,
    candidates: usize,
}

impl Retrieval {
    /// No queries yet, among so many candidates.
    pub fn new(candidates: usize) -> Self {
        Self { ranks: Vec::new(), candidates }
    }

    /// Ranks of a whole matrix: one row of `candidates` scores for each query, in the order of `correct`.
    ///
    /// # Errors
    /// As [`add`](Self::add), and a matrix of another size.
    pub fn from_matrix(scores: &[f32], candidates: usize, correct: &[Vec<usize>]) -> Result<Self> {
        let (found, queries) = (scores.len(), correct.len());
        if candidates == 0 || found != queries * candidates {
            let reason = format!("{found} scores, expected {queries} queries x {candidates} candidates");
            return Err(Error::Invalid(reason));
        }
        let mut retrieval = Self::new(candidates);
        for (row, correct) in scores.chunks_exact(candidates).zip(correct) {
            retrieval.add(row, correct)?;
        }
        Ok(retrieval)
    }

    /// Ranks by inner products of vectors of length `dimension`, one after another: cosines where they are unit vectors. For large sets compute
    /// blocks of the matrix elsewhere and [`add`](Self::add) their rows.
    ///
    /// # Errors
    /// As [`add`](Self::add), and vectors of another length.
    pub fn from_vectors(queries: &[f32], candidates: &[f32], dimension: usize, correct: &[Vec<usize>]) -> Result<Self> {
        let whole = |vectors: &[f32]| dimension > 0 && vectors.len().is_multiple_of(dimension);
        if !whole(queries) || !whole(candidates) || queries.len() / dimension != correct.len() {
            let (queries, candidates, named) = (queries.len(), candidates.len(), correct.len());
            let reason = format!(
                "{queries} and {candidates} numbers, expected {named} queries and candidates of {dimension} each"
            );
            return Err(Error::Invalid(reason));
        }
        let mut retrieval = Self::new(candidates.len() / dimension);
        let mut scores = vec![0.0; retrieval.candidates];
        for (query, correct) in queries.chunks_exact(dimension).zip(correct) {
            for (score, candidate) in scores.iter_mut().zip(candidates.chunks_exact(dimension)) {
                *score = query.iter().zip(candidate).map(|(a, b)| a * b).sum();
            }
            retrieval.add(&scores, correct)?;
        }
        Ok(retrieval)
    }

    /// Adds a query: its score with every candidate, and the places of the correct ones.
    ///
    /// # Errors
    /// Another number of scores than candidates, a score that is NaN, no correct candidate, one out of range or named twice.
    pub fn add(&mut self, scores: &[f32], correct: &[usize]) -> Result<()> {
        let query = self.ranks.len();
        if scores.len() != self.candidates {
            let (found, expected) = (scores.len(), self.candidates);
            return Err(Error::Invalid(format!("query {query} has {found} scores, expected {expected}")));
        }
        self.ranks.push(ranks_of_correct(query, scores, correct)?);
        Ok(())
    }

    /// Number of queries.
    pub fn queries(&self) -> usize {
        self.ranks.len()
    }

    /// Number of candidates.
    pub fn candidates(&self) -> usize {
        self.candidates
    }

    /// Whether a query found at least one correct candidate among its first `k`: what retrieval papers report as recall@k.
    pub fn hits_at(&self, k: usize) -> Vec<bool> {
        self.first_ranks().iter().map(|rank| *rank as usize <= k).collect()
    }

    /// The share of a query's correct candidates among its first `k`.
    pub fn recall_at(&self, k: usize) -> Vec<f64> {
        let share = |ranks: &Vec<u32>| ranks.partition_point(|rank| *rank as usize <= k) as f64 / ranks.len() as f64;
        self.ranks.iter().map(share).collect()
    }

    /// The rank of each query's best correct candidate, from 1.
    pub fn first_ranks(&self) -> Vec<u32> {
        self.ranks.iter().map(|ranks| ranks[0]).collect()
    }

    /// `1 / rank` of each query's best correct candidate; their mean is the mean reciprocal rank.
    pub fn reciprocal_ranks(&self) -> Vec<f64> {
        self.first_ranks().iter().map(|rank| 1.0 / f64::from(*rank)).collect()
    }

    /// Average precision of each query over all its correct candidates; their mean is mAP.
    pub fn average_precisions(&self) -> Vec<f64> {
        let precision = |ranks: &Vec<u32>| {
            let sum: f64 = ranks.iter().zip(1..).map(|(rank, found)| f64::from(found) / f64::from(*rank)).sum();
            sum / ranks.len() as f64
        };
        self.ranks.iter().map(precision).collect()
    }

    /// [nDCG](crate::ndcg) of each query's first `k`, a correct candidate being worth 1 and a wrong one nothing.
    pub fn ndcg_at(&self, k: usize) -> Vec<f64> {
        let discount = |rank: u32| 1.0 / (f64::from(rank) + 1.0).log2();
        let gain = |ranks: &Vec<u32>| {
            let found: f64 = ranks.iter().filter(|rank| **rank as usize <= k).map(|rank| discount(*rank)).sum();
            let ideal: f64 = (1..=ranks.len().min(k) as u32).map(discount).sum();
            if ideal > 0.0 { found / ideal } else { 0.0 }
        };
        self.ranks.iter().map(gain).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Gain, ndcg};

    #[test]
    fn metrics_are_read_off_the_ranks() {
        // Ranks 1 and 4 of the first query, 3 of the second.
        let scores = [0.9, 0.5, 0.4, 0.3, 0.1, 0.2, 0.3, 0.0];
        let retrieval = Retrieval::from_matrix(&scores, 4, &[vec![0, 3], vec![0]]).unwrap();
        assert_eq!((retrieval.queries(), retrieval.candidates()), (2, 4));
        assert_eq!(retrieval.first_ranks(), [1, 3]);
        assert_eq!(retrieval.hits_at(1), [true, false]);
        assert_eq!(retrieval.hits_at(3), [true, true]);
        assert_eq!(retrieval.recall_at(3), [0.5, 1.0]);
        assert_eq!(retrieval.recall_at(4), [1.0, 1.0]);
        assert_eq!(retrieval.reciprocal_ranks(), [1.0, 1.0 / 3.0]);
        assert_eq!(retrieval.average_precisions(), [0.75, 1.0 / 3.0]);
    }

    #[test]
    fn binary_gain_is_the_graded_one_of_zeros_and_ones() {
        let scores = [0.9, 0.5, 0.4, 0.3, 0.2, 0.1];
        let retrieval = Retrieval::from_matrix(&scores, 6, &[vec![1, 2, 5]]).unwrap();
        for k in 0..=7 {
            let graded = ndcg(0, &scores, &[0.0, 1.0, 1.0, 0.0, 0.0, 1.0], k, Gain::Linear).unwrap();
            assert!((retrieval.ndcg_at(k)[0] - graded).abs() < 1e-15, "{k}");
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        assert!(Retrieval::from_matrix(&[0.0; 5], 2, &[vec![0], vec![0]]).is_err());
        assert!(Retrieval::from_matrix(&[], 0, &[]).is_err());
        assert!(Retrieval::from_vectors(&[0.0; 4], &[0.0; 3], 2, &[vec![0], vec![0]]).is_err());
        assert!(Retrieval::from_vectors(&[0.0; 4], &[0.0; 4], 0, &[vec![0]]).is_err());
        let error = Retrieval::new(2).add(&[0.0], &[0]).unwrap_err();
        assert_eq!(error.to_string(), "query 0 has 1 scores, expected 2");
    }
}
