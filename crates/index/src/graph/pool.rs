//! What a walk remembers: the nearest nodes so far, and which nodes it has seen.

use std::cell::RefCell;

/// The nearest things so far, in order, and which of them were looked at. A thing has 31 bits.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// Distance (32 bits), number (31 bits), whether it was looked at (1 bit).
    keys: Vec<u64>,
    capacity: usize,
    /// Everything before was looked at.
    cursor: usize,
}

impl Pool {
    /// Empties it; it will keep so many (at least one).
    pub(super) fn reset(&mut self, capacity: usize) {
        self.keys.clear();
        self.cursor = 0;
        self.capacity = capacity.max(1);
    }

    /// Keeps so many from now on; not fewer than before.
    pub(super) fn widen(&mut self, capacity: usize) {
        self.capacity = self.capacity.max(capacity);
    }

    /// Offers something that was not offered before.
    #[inline]
    pub(super) fn push(&mut self, distance: u32, number: u32) {
        let key = u64::from(distance) << 32 | u64::from(number) << 1;
        if self.keys.len() == self.capacity {
            if self.keys.last().is_some_and(|last| key >= *last) {
                return;
            }
            self.keys.pop();
        }
        let at = self.keys.partition_point(|known| *known < key);
        self.keys.insert(at, key);
        self.cursor = self.cursor.min(at);
    }

    /// The nearest that was not looked at, which now counts as looked at.
    #[inline]
    pub(super) fn next(&mut self) -> Option<u32> {
        let found = self.keys[self.cursor..].iter().position(|key| key & 1 == 0)?;
        self.cursor += found;
        let key = &mut self.keys[self.cursor];
        *key |= 1;
        let number = number_of(*key);
        self.cursor += 1;
        Some(number)
    }

    /// What [`Pool::next`] would return now.
    #[inline]
    pub(super) fn peek(&self) -> Option<u32> {
        self.keys[self.cursor..].iter().find(|key| **key & 1 == 0).map(|key| number_of(*key))
    }

    /// The distance that an offer must not exceed to be kept.
    #[inline]
    pub(super) fn bound(&self) -> u32 {
        match self.keys.last() {
            Some(last) if self.keys.len() == self.capacity => (last >> 32) as u32,
            _ => u32::MAX,
        }
    }

    /// Distances and numbers, nearest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.keys.iter().map(|key| ((key >> 32) as u32, number_of(*key)))
    }
}

fn number_of(key: u64) -> u32 {
    (key as u32) >> 1
}

/// Which of the nodes were seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    words: Vec<u64>,
    touched: Vec<u32>,
}

impl Seen {
    /// Forgets everything; there are so many nodes.
    pub(super) fn reset(&mut self, nodes: usize) {
        if self.touched.len() > self.words.len() / 4 {
            self.words.fill(0);
        } else {
            self.touched.iter().for_each(|word| self.words[*word as usize] = 0);
        }
        self.touched.clear();
        self.words.resize(nodes.div_ceil(64), 0);
    }

    /// Whether a node was seen.
    pub(super) fn contains(&self, node: u32) -> bool {
        self.words.get(node as usize / 64).is_some_and(|word| word >> (node % 64) & 1 == 1)
    }

    /// Whether a node is seen for the first time. Nodes that don't exist never are.
    #[inline]
    pub(super) fn insert(&mut self, node: u32) -> bool {
        let Some(word) = self.words.get_mut(node as usize / 64) else { return false };
        let bit = 1 << (node % 64);
        if *word & bit != 0 {
            return false;
        }
        if *word == 0 {
            self.touched.push(node / 64);
        }
        *word |= bit;
        true
    }
}

/// What one walk needs and the next one on the same thread uses again.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) pool: Pool,
    pub(super) results: Pool,
    pub(super) seen: Seen,
    pub(super) fresh: Vec<u32>,
    pub(super) distances: Vec<u32>,
}

/// Runs something with this thread's scratch. Must not be nested.
pub(super) fn with_scratch<T>(run: impl FnOnce(&mut Scratch) -> T) -> T {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::default();
    }
    SCRATCH.with_borrow_mut(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_keeps_the_nearest_in_order_and_hands_each_out_once() {
        let mut pool = Pool::default();
        pool.reset(4);
        assert_eq!((pool.next(), pool.bound()), (None, u32::MAX));
        for (distance, number) in [(9, 1), (3, 2), (5, 3)] {
            pool.push(distance, number);
        }
        assert_eq!((pool.next(), pool.next(), pool.peek()), (Some(2), Some(3), Some(1)));
        for (distance, number) in [(4, 4), (1, 5), (10, 6), (u32::MAX, (1 << 31) - 1)] {
            pool.push(distance, number);
        }
        assert_eq!(pool.iter().collect::<Vec<_>>(), [(1, 5), (3, 2), (4, 4), (5, 3)]);
        assert_eq!((pool.bound(), pool.peek()), (5, Some(5)));
        assert_eq!([pool.next(), pool.next(), pool.next()], [Some(5), Some(4), None]);
        pool.reset(1);
        pool.push(7, 7);
        pool.push(7, 8);
        pool.push(7, 6);
        assert_eq!(pool.iter().collect::<Vec<_>>(), [(7, 6)]);
    }

    #[test]
    fn nodes_are_seen_once_until_the_next_walk() {
        let mut seen = Seen::default();
        for nodes in [1, 64, 65, 1000, 10] {
            seen.reset(nodes);
            for node in (0..nodes as u32).step_by(3) {
                assert!(
                    !seen.contains(node) && seen.insert(node) && !seen.insert(node) && seen.contains(node),
                    "{node} of {nodes}"
                );
            }
            assert!(!seen.insert(u32::MAX));
        }
    }
}
