//! One ranking made of several, such as that of vectors and that of words.

use std::collections::BTreeMap;

/// One ranking, and how much it counts.
#[derive(Debug, Clone, Copy)]
pub struct RankedList<'a> {
    /// Item keys and scores, best first, higher being better. Of a key that comes twice the first place counts.
    pub hits: &'a [(i64, f32)],
    /// At least 0; 1 counts twice as much as 0.5.
    pub weight: f32,
}

/// How rankings become one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fusion {
    /// Reciprocal rank fusion (Cormack, Clarke and Buettcher 2009): each list adds `weight / (k + rank)` with ranks from
    /// 1. Scores don't matter, so that lists of any kind can be fused. The authors' `k` is [`Fusion::RANKS`]'s, 60.
    ReciprocalRank {
        /// How little the first ranks stand out; above 0.
        k: f32,
    },
    /// Each list adds `weight * (score - worst) / (best - worst)` with the best and the worst score in it, and `weight`
    /// where these are equal. An item that a list doesn't have gets nothing from it, as its worst one does.
    Scores,
}

impl Fusion {
    /// Reciprocal rank fusion as published.
    pub const RANKS: Self = Self::ReciprocalRank { k: 60.0 };
}

/// An item of the fused ranking.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fused {
    /// The item's key.
    pub key: i64,
    /// The sum of what the lists added.
    pub score: f32,
}

/// Fuses rankings: the best `count` of all their items, best first, equal scores by rising key.
pub fn fuse(lists: &[RankedList<'_>], fusion: Fusion, count: usize) -> Vec<Fused> {
    let mut sums = BTreeMap::<i64, f64>::new();
    for list in lists {
        let (best, worst) = list.hits.iter().fold((f32::NEG_INFINITY, f32::INFINITY), |(best, worst), (_, score)| {
            (best.max(*score), worst.min(*score))
        });
        let (worst, range) = (f64::from(worst), f64::from(best) - f64::from(worst));
        let mut seen = std::collections::HashSet::new();
        for (key, score) in list.hits {
            if !seen.insert(*key) {
                continue;
            }
            let part = match fusion {
                Fusion::ReciprocalRank { k } => 1.0 / (f64::from(k) + seen.len() as f64),
                Fusion::Scores if range > 0.0 => (f64::from(*score) - worst) / range,
                Fusion::Scores => 1.0,
            };
            *sums.entry(*key).or_default() += f64::from(list.weight) * part;
        }
    }
    let mut fused: Vec<_> = sums.into_iter().map(|(key, score)| Fused { key, score: score as f32 }).collect();
    // Stable: the map's order of keys stays among equals.
    fused.sort_by(|a, b| b.score.total_cmp(&a.score));
    fused.truncate(count);
    fused
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fused(lists: &[(&[(i64, f32)], f32)], fusion: Fusion) -> Vec<(i64, f32)> {
        let lists: Vec<_> = lists.iter().map(|(hits, weight)| RankedList { hits, weight: *weight }).collect();
        fuse(&lists, fusion, 10).into_iter().map(|fused| (fused.key, fused.score)).collect()
    }

    #[test]
    fn ranks_add_up() {
        let (a, b) = ([(1, 0.9), (2, 0.8), (3, 0.7)], [(3, 12.0), (4, 3.0), (3, 2.0), (1, 1.0)]);
        let found = fused(&[(&a, 1.0), (&b, 1.0)], Fusion::RANKS);
        let expected = [(3, 1.0 / 63.0 + 1.0 / 61.0), (1, 1.0 / 61.0 + 1.0 / 63.0), (2, 1.0 / 62.0), (4, 1.0 / 62.0)];
        let by_rank = |list: &[(i64, f32)]| list.iter().map(|(key, _)| *key).collect::<Vec<_>>();
        // The first two are equal, and so are the others: lower keys come first.
        assert_eq!(by_rank(&found), [1, 3, 2, 4]);
        for (key, score) in expected {
            let (_, own) = found.iter().find(|(found, _)| *found == key).unwrap();
            assert!((own - score).abs() < 1e-7, "{key}: {own}, {score}");
        }
        assert_eq!(by_rank(&fused(&[(&a, 1.0), (&b, 3.0)], Fusion::RANKS)), [3, 1, 4, 2]);
        assert_eq!(by_rank(&fused(&[(&a, 1.0), (&b, 0.0)], Fusion::RANKS)), [1, 2, 3, 4]);
        assert!(fused(&[(&[], 1.0)], Fusion::RANKS).is_empty());
    }

    #[test]
    fn scores_are_brought_to_one_scale() {
        let (a, b) = ([(1, 0.5), (2, 0.4), (3, 0.1)], [(3, -10.0), (2, -20.0)]);
        let found = fused(&[(&a, 1.0), (&b, 0.5)], Fusion::Scores);
        assert_eq!(found.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [1, 2, 3]);
        for ((_, score), expected) in found.iter().zip([1.0, 0.75, 0.5]) {
            assert!((score - expected).abs() < 1e-6, "{score} {expected}");
        }
        assert_eq!(fused(&[(&[(7, 3.0), (8, 3.0)], 0.5)], Fusion::Scores), [(7, 0.5), (8, 0.5)]);
        let lists = [RankedList { hits: &a, weight: 1.0 }];
        assert_eq!(fuse(&lists, Fusion::Scores, 2).len(), 2);
    }
}
