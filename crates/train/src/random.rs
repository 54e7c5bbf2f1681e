//! Random numbers that depend on a seed, a purpose and a count alone, so that a resumed run needs no generator's state.

/// A SplitMix64 sequence (Steele et al. 2014).
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The sequence of this seed for this purpose, for example the number of a step.
    pub fn new(seed: u64, purpose: u64, count: u64) -> Self {
        let mut state = 0;
        for part in [seed, purpose, count] {
            state = mixed(state ^ mixed(part.wrapping_add(0x9e37_79b9_7f4a_7c15)));
        }
        Self { state }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.state)
    }

    /// Evenly distributed over `0..1`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Normally distributed with deviation 1.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// A whole number below `bound`, which isn't 0.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// `count` different numbers below `all`, in ascending order; all of them where there aren't more.
    pub fn choose(&mut self, count: usize, all: usize) -> Vec<u32> {
        let mut numbers: Vec<u32> = (0..all as u32).collect();
        let count = count.min(all);
        for at in 0..count {
            let other = at + self.below(all - at);
            numbers.swap(at, other);
        }
        numbers.truncate(count);
        numbers.sort_unstable();
        numbers
    }
}

fn mixed(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_different_even_and_depend_on_all_three_numbers() {
        let mut seen = [0; 10];
        for count in 0..5000 {
            let chosen = Random::new(3, 1, count).choose(4, 10);
            assert!(chosen.len() == 4 && chosen.is_sorted_by(|a, b| a < b));
            chosen.iter().for_each(|number| seen[*number as usize] += 1);
        }
        assert!(seen.iter().all(|times| (1850..2150).contains(times)), "{seen:?}");
        let first = |seed, purpose, count| Random::new(seed, purpose, count).bits();
        assert_eq!(first(1, 2, 3), first(1, 2, 3));
        let others = [first(2, 2, 3), first(1, 3, 3), first(1, 2, 4), first(2, 1, 3), first(1, 3, 2)];
        assert!(others.iter().all(|other| *other != first(1, 2, 3)));
        assert_eq!(Random::new(1, 1, 1).choose(9, 3), [0, 1, 2]);
    }
}
