//! A set of row numbers as a bitmap.

/// A set of rows in `0..len`, one bit each. Rows beyond `len` are never members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowSet {
    words: Vec<u64>,
    len: u64,
}

impl RowSet {
    /// No row of `0..len`.
    pub fn none(len: u64) -> Self {
        Self { words: vec![0; len.div_ceil(64) as usize], len }
    }

    /// Every row of `0..len`.
    pub fn all(len: u64) -> Self {
        let mut set = Self::none(0);
        set.extend_with_members(len);
        set
    }

    /// The number of rows that the set speaks about (members or not).
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the set speaks about no row at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of members.
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// The number of members below `end`.
    pub fn count_before(&self, end: u64) -> u64 {
        let end = end.min(self.len);
        let whole = (end / 64) as usize;
        let rest = if end.is_multiple_of(64) { 0 } else { self.words[whole] & !(u64::MAX << (end % 64)) };
        self.words[..whole].iter().map(|word| u64::from(word.count_ones())).sum::<u64>() + u64::from(rest.count_ones())
    }

    /// The members in order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.members_in(0, self.len)
    }

    /// Whether `row` is a member.
    pub fn contains(&self, row: u64) -> bool {
        row < self.len && self.words[(row / 64) as usize] >> (row % 64) & 1 == 1
    }

    /// Makes `row` a member; false (and no change) when it is beyond the set's length.
    pub fn insert(&mut self, row: u64) -> bool {
        if row < self.len {
            self.words[(row / 64) as usize] |= 1 << (row % 64);
        }
        row < self.len
    }

    /// Makes `row` no member.
    pub fn remove(&mut self, row: u64) {
        if row < self.len {
            self.words[(row / 64) as usize] &= !(1 << (row % 64));
        }
    }

    /// Lengthens the set to `len`; the new rows are members. Does nothing when it is already as long.
    pub fn extend_with_members(&mut self, len: u64) {
        if len <= self.len {
            return;
        }
        self.words.resize(len.div_ceil(64) as usize, 0);
        let (first, last) = ((self.len / 64) as usize, self.words.len() - 1);
        for index in first..=last {
            let mut mask = u64::MAX;
            if index == first {
                mask &= u64::MAX << (self.len % 64);
            }
            if index == last && !len.is_multiple_of(64) {
                mask &= u64::MAX >> (64 - len % 64);
            }
            self.words[index] |= mask;
        }
        self.len = len;
    }

    /// Keeps only the rows that are members of `other` too; the length stays.
    pub fn intersect(&mut self, other: &Self) {
        let others = other.words.iter().copied().chain(std::iter::repeat(0));
        self.words.iter_mut().zip(others).for_each(|(word, other)| *word &= other);
    }

    /// The members among `first..first + count`, in order.
    pub fn members_in(&self, first: u64, count: u64) -> impl Iterator<Item = u64> + '_ {
        let end = first.saturating_add(count).min(self.len);
        let words = first / 64..if first < end { end.div_ceil(64) } else { first / 64 };
        words.flat_map(move |index| {
            let start = index * 64;
            let mut word = self.words[index as usize];
            if start < first {
                word &= u64::MAX << (first - start);
            }
            if end - start < 64 {
                word &= u64::MAX >> (64 - (end - start));
            }
            std::iter::from_fn(move || {
                let bit = u64::from(word.trailing_zeros());
                (word != 0).then(|| {
                    word &= word - 1;
                    start + bit
                })
            })
        })
    }

    /// Whether any row of `first..first + count` is a member.
    pub fn any_in(&self, first: u64, count: u64) -> bool {
        let end = (first + count).min(self.len);
        let mut row = first;
        while row < end {
            let word = self.words[(row / 64) as usize] >> (row % 64);
            if word != 0 {
                return row + u64::from(word.trailing_zeros()) < end;
            }
            row = (row / 64 + 1) * 64;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_keeps_old_rows_and_adds_members() {
        for start in [0, 1, 63, 64, 65, 130] {
            for end in [start, start + 1, start + 63, start + 64, start + 200] {
                let mut set = RowSet::none(start);
                set.extend_with_members(end);
                assert_eq!((set.len(), set.count()), (end, end - start), "{start}..{end}");
                assert!((0..end).all(|row| set.contains(row) == (row >= start)));
            }
        }
    }

    #[test]
    fn rows_come_and_go() {
        let mut set = RowSet::all(100);
        set.remove(64);
        set.remove(1000);
        assert!(!set.contains(64) && !set.contains(100) && set.count() == 99);
        assert!(set.insert(64) && !set.insert(100));
        assert_eq!(set, RowSet::all(100));
    }

    #[test]
    fn members_are_listed_and_counted_up_to_a_row() {
        for len in [0, 1, 63, 64, 65, 300] {
            let mut set = RowSet::none(len);
            let members: Vec<u64> = (0..len).filter(|row| row % 7 == 3 || row % 64 == 63).collect();
            members.iter().for_each(|row| assert!(set.insert(*row)));
            assert_eq!(set.iter().collect::<Vec<_>>(), members);
            for end in 0..len + 70 {
                let expected = members.iter().filter(|row| **row < end).count() as u64;
                assert_eq!(set.count_before(end), expected, "{end} of {len}");
            }
        }
    }

    #[test]
    fn intersections_keep_the_length() {
        for other in [0, 10, 64, 100, 300] {
            let mut set = RowSet::all(130);
            set.intersect(&RowSet::all(other));
            assert_eq!((set.len(), set.count()), (130, other.min(130)));
        }
    }

    #[test]
    fn members_are_listed_over_word_borders() {
        for len in [0, 1, 63, 64, 65, 300] {
            let mut set = RowSet::none(len);
            (0..len).filter(|row| row % 3 == 0 || row % 64 > 61).for_each(|row| {
                set.insert(row);
            });
            for first in 0..310 {
                for count in [0, 1, 5, 64, 65, 400, u64::MAX] {
                    let expected: Vec<_> =
                        (first..len).take(count.min(1000) as usize).filter(|row| set.contains(*row)).collect();
                    assert_eq!(set.members_in(first, count).collect::<Vec<_>>(), expected, "{len} {first} {count}");
                }
            }
        }
    }

    #[test]
    fn ranges_are_tested_over_word_borders() {
        let mut set = RowSet::none(300);
        set.insert(130);
        for first in 0..300 {
            for count in [0, 1, 5, 64, 65, 400] {
                let expected = (first..first + count).contains(&130);
                assert_eq!(set.any_in(first, count), expected, "{first} {count}");
            }
        }
    }
}
