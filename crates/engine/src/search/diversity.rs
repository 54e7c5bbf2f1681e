//! Maximal marginal relevance (Carbonell and Goldstein, 1998): near to the query, far from what was chosen before.

use crate::relevance::Bank;

/// The order in which `count` candidates are chosen. Scores and mutual cosines are both stretched to 0..=1 over the candidates, because
/// cosines between modalities and within one differ; `nearness` weighs the former, 0..=1. Ties go to the earlier candidate.
pub(super) fn choose(scores: &[f32], vectors: &Bank, nearness: f32, count: usize) -> Vec<usize> {
    let cosines = vectors.products(vectors);
    let candidates = scores.len().min(vectors.rows());
    let others = (0..candidates).flat_map(|row| (0..row).map(move |column| (row, column)));
    let near = stretch(scores.iter().copied());
    let alike = stretch(others.map(|(row, column)| cosines[row * vectors.rows() + column]));
    let mut left: Vec<usize> = (0..candidates).collect();
    let mut chosen = Vec::with_capacity(count.min(candidates));
    // The largest cosine of each candidate with a chosen one; below all of them at first.
    let mut nearest = vec![None::<f32>; candidates];
    while chosen.len() < count && !left.is_empty() {
        let value = |candidate: usize| {
            let repetition = nearest[candidate].map_or(0.0, &alike);
            nearness * near(scores[candidate]) - (1.0 - nearness) * repetition
        };
        let mut best = 0;
        for place in 1..left.len() {
            if value(left[place]) > value(left[best]) {
                best = place;
            }
        }
        let taken = left.remove(best);
        chosen.push(taken);
        for candidate in &left {
            let cosine = cosines[candidate * vectors.rows() + taken];
            let largest = nearest[*candidate].map_or(cosine, |before| before.max(cosine));
            nearest[*candidate] = Some(largest);
        }
    }
    chosen
}

/// Maps the range of some values to 0..=1; all to 0 where they are one value or none.
fn stretch(values: impl Iterator<Item = f32>) -> impl Fn(f32) -> f32 {
    let (low, high) = values.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    move |value| if high > low { (value - low) / (high - low) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_wait() {
        let mut vectors = Bank::new(3);
        // Two nearly alike, one apart, one opposite.
        for vector in [[1.0, 0.0, 0.0], [1.0, 0.05, 0.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.1]] {
            vectors.push(&vector);
        }
        let scores = [0.9, 0.89, 0.6, 0.1];
        assert_eq!(choose(&scores, &vectors, 1.0, 4), [0, 1, 2, 3]);
        assert_eq!(choose(&scores, &vectors, 0.5, 3), [0, 2, 1]);
        assert_eq!(choose(&scores, &vectors, 0.0, 2), [0, 3]);
        // A page is the start of a longer one.
        assert_eq!(choose(&scores, &vectors, 0.5, 4)[..3], choose(&scores, &vectors, 0.5, 3)[..]);
        assert_eq!(choose(&[0.5], &vectors, 0.5, 9), [0]);
        assert!(choose(&[], &Bank::new(3), 0.5, 3).is_empty());
    }
}
