//! Where correct candidates stand among all, and the gain of an order.

use crate::error::{Error, Result};

/// What a relevance is worth in [`ndcg`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gain {
    /// The relevance itself, as scikit-learn's `ndcg_score` takes it.
    Linear,
    /// `2^relevance - 1` (Burges et al., 2005).
    Exponential,
}

/// Ranks of the correct candidates of a query, ascending, the best place being 1. `scores` has one number a candidate, higher is better;
/// `correct` names candidates by their places, each once. Ties are ranked pessimistically. `query` is for messages.
///
/// # Errors
/// A score that is NaN, no correct candidate, one out of range or named twice.
pub fn ranks_of_correct(query: usize, scores: &[f32], correct: &[usize]) -> Result<Vec<u32>> {
    if let Some(candidate) = scores.iter().position(|score| score.is_nan()) {
        return Err(Error::NotANumber { query, candidate });
    }
    let mut correct = correct.to_vec();
    correct.sort_unstable();
    check_correct(query, scores.len(), &correct)?;
    let mut of_correct: Vec<f32> = correct.iter().map(|candidate| scores[*candidate]).collect();
    of_correct.sort_unstable_by(|a, b| b.total_cmp(a));
    // How many wrong candidates stand right before each correct one, hence before all that follow it.
    let mut before = vec![0u32; of_correct.len() + 1];
    let mut named = correct.iter().peekable();
    for (candidate, score) in scores.iter().enumerate() {
        if named.next_if_eq(&&candidate).is_some() {
            continue;
        }
        before[of_correct.partition_point(|other| other > score)] += 1;
    }
    let mut wrong = 0;
    let ranks = before.iter().take(of_correct.len()).zip(1..).map(|(more, place)| {
        wrong += more;
        place + wrong
    });
    Ok(ranks.collect())
}

fn check_correct(query: usize, candidates: usize, sorted: &[usize]) -> Result<()> {
    match sorted.last() {
        None => return Err(Error::Invalid(format!("query {query} has no correct candidate, expected at least one"))),
        Some(last) if *last >= candidates => {
            let reason = format!("query {query}: candidate {last} is said to be correct, but there are {candidates}");
            return Err(Error::Invalid(reason));
        }
        Some(_) => {}
    }
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::Invalid(format!("query {query}: candidate {} is named as correct twice", pair[0]))),
        None => Ok(()),
    }
}

/// Normalised discounted cumulative gain of the first `k` candidates (Järvelin and Kekäläinen, 2002): `sum gain / log2(place + 1)`, divided by
/// the same sum in the best order. 0 where nothing is relevant. Among candidates of one score the less relevant stand first. `query` is for
/// messages.
///
/// # Errors
/// Lengths that differ, a score that is NaN, or a relevance that is negative or not finite.
pub fn ndcg(query: usize, scores: &[f32], relevance: &[f64], k: usize, gain: Gain) -> Result<f64> {
    if scores.len() != relevance.len() {
        let (scores, relevance) = (scores.len(), relevance.len());
        return Err(Error::Invalid(format!("query {query} has {scores} scores and {relevance} relevances")));
    }
    if let Some(candidate) = scores.iter().position(|score| score.is_nan()) {
        return Err(Error::NotANumber { query, candidate });
    }
    if let Some(candidate) = relevance.iter().position(|value| !value.is_finite() || *value < 0.0) {
        let value = relevance[candidate];
        let reason = format!("query {query}: relevance of candidate {candidate} is {value}, expected 0 or more");
        return Err(Error::Invalid(reason));
    }
    let worth = |relevance: &f64| match gain {
        Gain::Linear => *relevance,
        Gain::Exponential => relevance.exp2() - 1.0,
    };
    let mut order: Vec<(f32, f64)> = scores.iter().copied().zip(relevance.iter().map(worth)).collect();
    // Zeros of both signs are one score.
    let by_score = |a: f32, b: f32| b.partial_cmp(&a).unwrap_or(std::cmp::Ordering::Equal);
    order.sort_by(|a, b| by_score(a.0, b.0).then(a.1.total_cmp(&b.1)));
    let found = discounted(order.iter().map(|(_, gain)| *gain), k);
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    let ideal = discounted(order.iter().map(|(_, gain)| *gain), k);
    Ok(if ideal > 0.0 { found / ideal } else { 0.0 })
}

fn discounted(gains: impl Iterator<Item = f64>, k: usize) -> f64 {
    gains.take(k).enumerate().map(|(place, gain)| gain / (place as f64 + 2.0).log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_among_all_candidates() {
        let scores = [0.1, 0.9, 0.5, 0.7, 0.3];
        assert_eq!(ranks_of_correct(0, &scores, &[1]).unwrap(), [1]);
        assert_eq!(ranks_of_correct(0, &scores, &[4, 0]).unwrap(), [4, 5]);
        assert_eq!(ranks_of_correct(0, &scores, &[0, 1, 2, 3, 4]).unwrap(), [1, 2, 3, 4, 5]);
        assert_eq!(ranks_of_correct(0, &[f32::INFINITY, f32::NEG_INFINITY, 0.0], &[1, 2]).unwrap(), [2, 3]);
    }

    #[test]
    fn a_correct_candidate_stands_behind_wrong_ones_of_its_score() {
        assert_eq!(ranks_of_correct(0, &[0.5; 6], &[2]).unwrap(), [6]);
        assert_eq!(ranks_of_correct(0, &[0.5; 6], &[0, 2]).unwrap(), [5, 6]);
        assert_eq!(ranks_of_correct(0, &[0.0, -0.0, 1.0], &[0]).unwrap(), [3]);
        assert_eq!(ndcg(0, &[0.5, 0.5], &[1.0, 0.0], 1, Gain::Linear).unwrap(), 0.0);
        assert_eq!(ndcg(0, &[0.0, -0.0], &[1.0, 0.0], 1, Gain::Linear).unwrap(), 0.0);
    }

    #[test]
    fn what_has_no_order_is_refused() {
        let message = |scores: &[f32], correct: &[usize]| ranks_of_correct(7, scores, correct).unwrap_err().to_string();
        assert_eq!(message(&[0.1, f32::NAN], &[0]), "the score of query 7 and candidate 1 is NaN, expected a number");
        assert!(message(&[0.1], &[]).contains("query 7 has no correct candidate"));
        assert!(message(&[0.1], &[1]).contains("candidate 1 is said to be correct, but there are 1"));
        assert!(message(&[0.1, 0.2], &[1, 0, 1]).contains("candidate 1 is named as correct twice"));
        assert!(ndcg(0, &[f32::NAN], &[1.0], 1, Gain::Linear).is_err());
        assert!(ndcg(0, &[0.0], &[-1.0], 1, Gain::Linear).is_err());
        assert!(ndcg(0, &[0.0], &[1.0, 2.0], 1, Gain::Linear).is_err());
    }

    #[test]
    fn the_best_order_has_gain_one_and_no_relevance_none() {
        let relevance = [3.0, 0.0, 1.0];
        for gain in [Gain::Linear, Gain::Exponential] {
            assert_eq!(ndcg(0, &[0.9, 0.1, 0.5], &relevance, 10, gain).unwrap(), 1.0);
            assert!(ndcg(0, &[0.1, 0.9, 0.5], &relevance, 10, gain).unwrap() < 1.0);
            assert_eq!(ndcg(0, &[0.1, 0.9, 0.5], &[0.0; 3], 10, gain).unwrap(), 0.0);
        }
    }
}
