//! Token sequences merged where they begin alike, so that a causal transformer computes each beginning once.
//!
//! With causal attention a token's hidden state depends on the tokens up to it and nothing else. Sequences that share a beginning (a
//! template, or just the start token) therefore share those states; equal ones share all of them.

use std::ops::Range;

use crossmodal_kernels::attention::Sequence;
use crossmodal_nn::Pooled;

/// Sequences in sorted order, each as far as it differs from the one before.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PrefixTree {
    /// Token and position of each row.
    pub(crate) rows: Vec<(u32, u32)>,
    /// The rows that each sequence adds, and those of the beginning it attends to besides.
    pub(crate) sequences: Vec<Sequence>,
    /// For each sequence that went in, in their order, the rows of its tokens.
    pub(crate) paths: Vec<Vec<u32>>,
}

/// Length of the beginning that two sequences share.
fn shared(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl PrefixTree {
    /// Merges `sequences`, which are sorted and not empty.
    pub(crate) fn of(sequences: &[&[u32]]) -> Self {
        let mut tree = Self::default();
        let mut before: &[u32] = &[];
        for tokens in sequences {
            debug_assert!(before <= *tokens && !tokens.is_empty());
            let old = shared(before, tokens);
            let prefix = tree.paths.last().map_or(Vec::new(), |path| path[..old].to_vec());
            let start = tree.rows.len();
            tree.rows.extend(tokens.iter().zip(0..).skip(old).map(|(token, position)| (*token, position)));
            let keys = start..tree.rows.len();
            let path = prefix.iter().copied().chain(keys.clone().map(|row| row as u32)).collect();
            if !keys.is_empty() {
                tree.sequences.push(Sequence { queries: keys.clone(), prefix, keys });
            }
            tree.paths.push(path);
            before = tokens;
        }
        tree
    }

    /// Sequences that share nothing, because each of their tokens depends on all others.
    pub(crate) fn apart(sequences: &[&[u32]]) -> Self {
        let mut tree = Self::default();
        for tokens in sequences {
            let keys = tree.rows.len()..tree.rows.len() + tokens.len();
            tree.rows.extend(tokens.iter().zip(0..).map(|(token, position)| (*token, position)));
            tree.paths.push(keys.clone().map(|row| row as u32).collect());
            tree.sequences.push(Sequence { queries: keys.clone(), prefix: Vec::new(), keys });
        }
        tree
    }

    /// What stands for each sequence: the token at its position in `positions`, which attends to all of the sequence.
    pub(crate) fn tokens_at(&self, positions: &[usize]) -> Vec<Pooled> {
        let pooled = |(path, position): (&Vec<u32>, &usize)| Pooled {
            row: path[*position] as usize,
            prefix: path.clone(),
            keys: 0..0,
        };
        self.paths.iter().zip(positions).map(pooled).collect()
    }
}

/// Rows that a sequence adds to those of the sequence before it, where there is one and beginnings are merged.
fn added(before: Option<&[u32]>, tokens: &[u32]) -> usize {
    tokens.len() - before.map_or(0, |before| shared(before, tokens))
}

/// Cuts sorted sequences into runs of at most `rows` rows each, or of one sequence; with `merged`, beginnings count once in a run.
pub(crate) fn runs(sequences: &[&[u32]], rows: usize, merged: bool) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let (mut start, mut size) = (0, 0);
    for (at, tokens) in sequences.iter().enumerate() {
        let before = |first: usize| (merged && at > first).then(|| sequences[at - 1]);
        if at > start && size + added(before(start), tokens) > rows {
            runs.push(start..at);
            (start, size) = (at, 0);
        }
        size += added(before(start), tokens);
    }
    if start < sequences.len() {
        runs.push(start..sequences.len());
    }
    runs
}

/// Rows of all sequences together.
pub(crate) fn total_rows(sequences: &[&[u32]], merged: bool) -> usize {
    let before = |at: usize| (merged && at > 0).then(|| sequences[at - 1]);
    sequences.iter().enumerate().map(|(at, tokens)| added(before(at), tokens)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_are_shared() {
        let sequences: [&[u32]; 5] = [&[1, 2], &[1, 2, 3, 9], &[1, 2, 4], &[1, 2, 4], &[5]];
        let tree = PrefixTree::of(&sequences);
        assert_eq!(tree.rows, [(1, 0), (2, 1), (3, 2), (9, 3), (4, 2), (5, 0)]);
        assert_eq!(tree.paths, [vec![0, 1], vec![0, 1, 2, 3], vec![0, 1, 4], vec![0, 1, 4], vec![5]]);
        let added: Vec<_> = tree.sequences.iter().map(|s| (s.queries.clone(), s.prefix.clone())).collect();
        assert_eq!(added, [(0..2, vec![]), (2..4, vec![0, 1]), (4..5, vec![0, 1]), (5..6, vec![])]);
        assert_eq!(tree.tokens_at(&[1, 3, 2, 2, 0])[1], Pooled { row: 3, prefix: vec![0, 1, 2, 3], keys: 0..0 });
        assert_eq!(total_rows(&sequences, true), 6);
        assert_eq!(total_rows(&sequences, false), 13);
        let apart = PrefixTree::apart(&sequences);
        assert_eq!((apart.rows.len(), &apart.paths[2]), (13, &vec![6, 7, 8]));
        assert_eq!(PrefixTree::of(&[]), PrefixTree::default());
    }

    #[test]
    fn runs_cover_everything_once() {
        let owned: Vec<Vec<u32>> =
            (0..40u32).map(|i| (0..3 + i % 5).map(|t| if t < 2 { i / 10 } else { i * t }).collect()).collect();
        let mut sequences: Vec<&[u32]> = owned.iter().map(Vec::as_slice).collect();
        sequences.sort_unstable();
        for rows in [1, 5, 20, 1000] {
            for merged in [true, false] {
                let runs = runs(&sequences, rows, merged);
                assert_eq!(runs.iter().flat_map(Clone::clone).collect::<Vec<_>>(), (0..40).collect::<Vec<_>>());
                for run in runs {
                    let part = &sequences[run.clone()];
                    let tree = if merged { PrefixTree::of(part) } else { PrefixTree::apart(part) };
                    let size = tree.rows.len();
                    assert!(size <= rows || run.len() == 1, "{size} rows in a run of {}", run.len());
                }
            }
        }
    }
}
