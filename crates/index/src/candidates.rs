//! The rows that an estimate found promising, and their exact scores.

use crossmodal_kernels::distance::{self, PairOp};

use crate::top_k::{Collect, Grouped};
use crate::{IndexError, Metric, Neighbor, Ranked, Selection, TopK, Vectors};

/// Keeps the best rows by an estimate: like a [`TopK`], made for hundreds of them. Estimates that are NaN are dropped.
#[derive(Debug, Clone, Default)]
pub(crate) struct Candidates {
    keep: usize,
    /// What an estimate must exceed or equal; only ever rises.
    floor: f32,
    rows: Vec<Ranked>,
}

impl Candidates {
    /// Nothing kept yet.
    pub(crate) fn new(keep: usize) -> Self {
        let mut new = Self::default();
        new.reset(keep);
        new
    }

    /// Drops everything.
    pub(crate) fn reset(&mut self, keep: usize) {
        self.rows.clear();
        (self.keep, self.floor) = (keep.max(1), f32::NEG_INFINITY);
    }

    /// What an estimate must at least be to be kept.
    #[inline]
    pub(crate) fn floor(&self) -> f32 {
        self.floor
    }

    /// Offers a row whose estimate isn't below the floor.
    #[inline]
    pub(crate) fn push(&mut self, estimate: f32, row: u64) {
        if estimate >= self.floor {
            self.rows.push(Ranked { score: estimate, row });
            // Throwing away half of them at a time costs a few steps a row.
            if self.rows.len() >= self.keep.saturating_mul(2) {
                self.prune();
            }
        }
    }

    fn prune(&mut self) {
        if self.rows.len() > self.keep {
            let (_, worst, _) = self.rows.select_nth_unstable_by(self.keep - 1, |a, b| b.cmp(a));
            self.floor = worst.score;
            self.rows.truncate(self.keep);
        }
    }

    /// Takes over everything that another one kept.
    pub(crate) fn merge(&mut self, other: Self) {
        other.rows.into_iter().for_each(|ranked| self.push(ranked.score, ranked.row));
    }

    /// The best rows with their estimates, best first.
    pub(crate) fn sorted(&mut self) -> &[Ranked] {
        self.prune();
        self.rows.sort_unstable_by(|a, b| b.cmp(a));
        &self.rows
    }

    /// The best rows, in no order.
    pub(crate) fn rows(&mut self) -> impl Iterator<Item = u64> + '_ {
        self.prune();
        self.rows.iter().map(|ranked| ranked.row)
    }
}

/// Scores the listed rows and adds them to `top`. Numbers that are no row's are passed over.
pub(crate) fn offer(top: &mut impl Collect, vectors: Vectors<'_>, query: &[f32], rows: &mut Vec<u32>) {
    let op = match vectors.metric() {
        Metric::Cosine | Metric::InnerProduct => PairOp::Dot,
        Metric::Euclidean => PairOp::SquaredEuclidean,
    };
    rows.retain(|row| u64::from(*row) < vectors.rows());
    let mut scores = vec![0.0; rows.len()];
    distance::score_selected_rows(op, vectors.values(), vectors.dimension(), rows, &[query], &mut scores);
    for (row, score) in rows.iter().zip(scores) {
        top.push(if op == PairOp::Dot { score } else { -score.sqrt() }, u64::from(*row));
    }
}

/// The best `k` rows or groups of those that `fill` offers.
pub(crate) fn collect(k: usize, selection: &Selection<'_>, fill: impl FnOnce(&mut Top<'_>)) -> Vec<Neighbor> {
    let mut top = match selection.groups {
        Some(groups) => Top::Groups(Grouped::new(k, groups)),
        None => Top::Rows(TopK::new(k)),
    };
    fill(&mut top);
    let ranked = top.into_sorted();
    ranked.iter().map(|ranked| Neighbor { row: ranked.row, score: ranked.score }).collect()
}

/// A collector of rows or of groups.
pub(crate) enum Top<'a> {
    Rows(TopK),
    Groups(Grouped<'a>),
}

impl Collect for Top<'_> {
    #[inline]
    fn push(&mut self, score: f32, row: u64) {
        match self {
            Self::Rows(top) => top.push(score, row),
            Self::Groups(top) => top.push(score, row),
        }
    }

    fn floor(&self) -> f32 {
        match self {
            Self::Rows(top) => top.floor(),
            Self::Groups(top) => top.floor(),
        }
    }

    fn merge(&mut self, other: Self) {
        match (self, other) {
            (Self::Rows(top), Self::Rows(other)) => Collect::merge(top, other),
            (Self::Groups(top), Self::Groups(other)) => top.merge(other),
            (_, other) => debug_assert!(other.into_sorted().is_empty(), "rows and groups don't mix"),
        }
    }

    fn into_sorted(self) -> Vec<Ranked> {
        match self {
            Self::Rows(top) => top.into_sorted(),
            Self::Groups(top) => top.into_sorted(),
        }
    }
}

/// Checks that rows and selection are of the shape that an index over `rows` rows needs, and returns those rows.
pub(crate) fn covered<'a>(
    vectors: Vectors<'a>,
    dimension: usize,
    metric: Metric,
    rows: u64,
    selection: &Selection<'_>,
) -> Result<Vectors<'a>, IndexError> {
    let other = |reason| Err(IndexError::OtherRows { reason });
    if vectors.dimension() != dimension {
        return other(format!("they have {} dimensions, the index has {dimension}", vectors.dimension()));
    }
    if vectors.metric() != metric {
        return other(format!("their metric is {}, the index has {metric}", vectors.metric()));
    }
    if vectors.rows() < rows {
        return other(format!("there are {}, the index covers {rows}", vectors.rows()));
    }
    match selection.groups {
        Some(groups) if (groups.len() as u64) < rows => {
            Err(IndexError::GroupCount { found: groups.len() as u64, expected: rows })
        }
        _ => Ok(vectors.prefix(rows)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_the_best_whatever_the_order() {
        let estimate = |row: u64| if row == 70 { f32::NAN } else { (row * 37 % 101 / 4) as f32 };
        let mut all: Vec<_> =
            (0..500).filter(|row| *row != 70).map(|row| Ranked { score: estimate(row), row }).collect();
        all.sort_by(|a, b| b.cmp(a));
        for keep in [1, 2, 7, 100, 1000] {
            let expected: Vec<u64> = all.iter().take(keep).map(|ranked| ranked.row).collect();
            for rotation in [0, 123, 400] {
                let (mut one, mut other) = (Candidates::new(keep), Candidates::new(keep));
                for i in 0..500 {
                    let row = (i + rotation) % 500;
                    if i % 3 == 0 { one.push(estimate(row), row) } else { other.push(estimate(row), row) }
                }
                one.merge(other);
                assert_eq!(
                    one.sorted().iter().map(|ranked| ranked.row).collect::<Vec<_>>(),
                    expected,
                    "{keep} {rotation}"
                );
                assert!(one.rows().eq(expected.iter().copied()));
            }
        }
    }
}
