//! The k best of a stream of scored rows, with deterministic ties.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeSet, BinaryHeap, HashMap};

/// A scored row. The order is "better is greater": the higher score, and of equal scores the lower row.
#[derive(Debug, Clone, Copy)]
pub struct Ranked {
    /// Higher is better; never NaN inside a [`TopK`].
    pub score: f32,
    /// The row's number.
    pub row: u64,
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        // Adding zero turns -0.0 into 0.0, which `total_cmp` would set apart.
        let scores = (self.score + 0.0).total_cmp(&(other.score + 0.0));
        scores.then(other.row.cmp(&self.row))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ranked {}

/// What takes the scored rows of a search and keeps the best.
pub(crate) trait Collect: Send {
    /// Offers one row.
    fn push(&mut self, score: f32, row: u64);

    /// The least score that can still be kept; negative infinity where everything is.
    fn floor(&self) -> f32;

    /// Takes over everything that another one kept.
    fn merge(&mut self, other: Self);

    /// The kept rows, best first.
    fn into_sorted(self) -> Vec<Ranked>;
}

/// Keeps the `k` best rows that are pushed. Scores that are NaN are dropped.
#[derive(Debug, Clone)]
pub struct TopK {
    k: usize,
    heap: BinaryHeap<Reverse<Ranked>>,
}

impl TopK {
    /// Nothing kept yet.
    pub fn new(k: usize) -> Self {
        Self { k, heap: BinaryHeap::new() }
    }

    /// Offers one row.
    #[inline]
    pub fn push(&mut self, score: f32, row: u64) {
        if self.heap.len() < self.k {
            if !score.is_nan() {
                self.heap.push(Reverse(Ranked { score, row }));
            }
            return;
        }
        let Some(mut worst) = self.heap.peek_mut() else {
            return;
        };
        let offered = Ranked { score, row };
        // The first test is false for NaN and for nearly every row.
        if score >= worst.0.score && offered > worst.0 {
            *worst = Reverse(offered);
        }
    }

    /// Takes over everything that another one kept.
    pub fn merge(&mut self, other: Self) {
        for Reverse(ranked) in other.heap {
            self.push(ranked.score, ranked.row);
        }
    }

    /// The kept rows, best first.
    pub fn into_sorted(self) -> Vec<Ranked> {
        let mut rows: Vec<_> = self.heap.into_iter().map(|Reverse(ranked)| ranked).collect();
        rows.sort_unstable_by(|a, b| b.cmp(a));
        rows
    }
}

impl Collect for TopK {
    #[inline]
    fn push(&mut self, score: f32, row: u64) {
        Self::push(self, score, row);
    }

    fn floor(&self) -> f32 {
        match self.heap.peek() {
            Some(Reverse(worst)) if self.heap.len() == self.k => worst.score,
            _ => f32::NEG_INFINITY,
        }
    }

    fn merge(&mut self, other: Self) {
        Self::merge(self, other);
    }

    fn into_sorted(self) -> Vec<Ranked> {
        Self::into_sorted(self)
    }
}

/// Keeps the `k` best groups, each represented by its best row. Scores that are NaN are dropped.
#[derive(Debug, Clone)]
pub struct GroupedTopK {
    k: usize,
    best: HashMap<i64, Ranked>,
    order: BTreeSet<(Ranked, i64)>,
}

impl GroupedTopK {
    /// Nothing kept yet.
    pub fn new(k: usize) -> Self {
        Self { k, best: HashMap::new(), order: BTreeSet::new() }
    }

    /// The worst of the kept groups' best rows, once `k` groups are kept.
    pub fn bound(&self) -> Option<Ranked> {
        self.order.first().filter(|_| self.best.len() == self.k).map(|worst| worst.0)
    }

    /// Offers one row of a group.
    #[inline]
    pub fn push(&mut self, score: f32, row: u64, group: i64) {
        if score.is_nan() || self.k == 0 {
            return;
        }
        let offered = Ranked { score, row };
        if self.best.len() == self.k && self.order.first().is_some_and(|worst| offered < worst.0) {
            return;
        }
        self.replace(offered, group);
    }

    fn replace(&mut self, offered: Ranked, group: i64) {
        match self.best.get(&group) {
            Some(known) if *known >= offered => return,
            Some(known) => {
                self.order.remove(&(*known, group));
            }
            None if self.best.len() == self.k => {
                if let Some((_, dropped)) = self.order.pop_first() {
                    self.best.remove(&dropped);
                }
            }
            None => {}
        }
        self.best.insert(group, offered);
        self.order.insert((offered, group));
    }

    /// Takes over everything that another one kept.
    pub fn merge(&mut self, other: Self) {
        for (ranked, group) in other.order {
            self.push(ranked.score, ranked.row, group);
        }
    }

    /// The best row of each kept group, best first.
    pub fn into_sorted(self) -> Vec<Ranked> {
        self.order.into_iter().rev().map(|(ranked, _)| ranked).collect()
    }
}

/// A [`GroupedTopK`] and the group of each row.
pub(crate) struct Grouped<'a> {
    top: GroupedTopK,
    groups: &'a [i64],
}

impl<'a> Grouped<'a> {
    /// Nothing kept yet. `groups` has an entry for every row that will be pushed.
    pub(crate) fn new(k: usize, groups: &'a [i64]) -> Self {
        Self { top: GroupedTopK::new(k), groups }
    }
}

impl Collect for Grouped<'_> {
    #[inline]
    fn push(&mut self, score: f32, row: u64) {
        self.top.push(score, row, self.groups[row as usize]);
    }

    fn floor(&self) -> f32 {
        match self.top.order.first() {
            Some((worst, _)) if self.top.best.len() == self.top.k => worst.score,
            _ => f32::NEG_INFINITY,
        }
    }

    fn merge(&mut self, other: Self) {
        self.top.merge(other.top);
    }

    fn into_sorted(self) -> Vec<Ranked> {
        self.top.into_sorted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(ranked: Vec<Ranked>) -> Vec<(f32, u64)> {
        ranked.into_iter().map(|r| (r.score, r.row)).collect()
    }

    #[test]
    fn keeps_the_best_with_low_rows_first_whatever_the_order() {
        let offers = [(1.0, 5), (f32::NAN, 1), (2.0, 9), (1.0, 3), (-0.0, 8), (0.0, 7), (1.0, 4)];
        for rotation in 0..offers.len() {
            let mut top = TopK::new(4);
            let mut other = TopK::new(4);
            for (i, (score, row)) in offers.iter().cycle().skip(rotation).take(7).enumerate() {
                if i % 2 == 0 { top.push(*score, *row) } else { other.push(*score, *row) }
            }
            top.merge(other);
            assert_eq!(rows(top.into_sorted()), [(2.0, 9), (1.0, 3), (1.0, 4), (1.0, 5)]);
        }
    }

    #[test]
    fn nan_never_wins_and_infinities_are_ordinary() {
        let mut top = TopK::new(2);
        for (row, score) in [f32::NAN, f32::NEG_INFINITY, f32::INFINITY, f32::NAN].iter().enumerate() {
            top.push(*score, row as u64);
        }
        assert_eq!(rows(top.into_sorted()), [(f32::INFINITY, 2), (f32::NEG_INFINITY, 1)]);
        let mut none = TopK::new(0);
        none.push(1.0, 0);
        assert!(none.into_sorted().is_empty());
    }

    #[test]
    fn a_group_is_represented_by_its_best_row() {
        let offers = [(0.9, 0, 1), (0.8, 1, 1), (0.7, 2, 2), (0.95, 3, 2), (0.6, 4, 3), (0.95, 5, 4)];
        for rotation in 0..offers.len() {
            let mut top = GroupedTopK::new(3);
            for (score, row, group) in offers.iter().cycle().skip(rotation).take(6) {
                top.push(*score, *row, *group);
            }
            assert_eq!(rows(top.into_sorted()), [(0.95, 3), (0.95, 5), (0.9, 0)]);
        }
        let mut none = GroupedTopK::new(0);
        none.push(1.0, 0, 0);
        assert!(none.into_sorted().is_empty());
    }
}
