//! Vectors as codes of seven bits a value, and the squared Euclidean distances between them.
//!
//! Levels are -63..=63, so that the difference of two fits eight bits and two squares of it fit sixteen: the fast instructions of
//! processors without VNNI (`vpmaddubsw`) then need no widening. Distances are exact integers, the same on every machine and whatever they
//! are computed together with. A code is [`length`] levels long: the dimension and zeros up to a whole number of cache lines.

/// The greatest level.
pub const LEVELS: f32 = 63.0;
/// Bytes of a cache line, of which codes are whole numbers.
const LINE: usize = 64;
/// So many rows ahead is memory asked for.
const AHEAD: usize = 3;
/// The longest code whose distances fit 32 bits.
pub const MAX_LENGTH: usize = 1 << 17;

/// The length of the code of a vector of `dimension` values.
pub fn length(dimension: usize) -> usize {
    dimension.next_multiple_of(LINE)
}

/// Writes the code of a vector: `(value - centre) * inverse_scale`, rounded and cut to the levels; what is beyond the vector becomes 0. A NaN
/// becomes 0.
///
/// # Panics
/// When `centre` has another length than the vector, or `code` is shorter.
pub fn encode(vector: &[f32], centre: &[f32], inverse_scale: f32, code: &mut [i8]) {
    assert_eq!(vector.len(), centre.len(), "the centre has another length than the vector");
    assert!(code.len() >= vector.len(), "the code is shorter than the vector");
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 is there.
        return unsafe { encode_avx2(vector, centre, inverse_scale, code) };
    }
    encode_plain(vector, centre, inverse_scale, code);
}

/// [`encode_plain`], compiled for wider vectors.
///
/// # Safety
/// The processor has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn encode_avx2(vector: &[f32], centre: &[f32], inverse_scale: f32, code: &mut [i8]) {
    encode_plain(vector, centre, inverse_scale, code);
}

#[inline(always)]
fn encode_plain(vector: &[f32], centre: &[f32], inverse_scale: f32, code: &mut [i8]) {
    // Adding 1.5 * 2^23 rounds to the nearest integer, ties to even, and leaves it in the low bits.
    const MAGIC: f32 = 12_582_912.0;
    let (levels, padding) = code.split_at_mut(vector.len());
    for (level, (value, centre)) in levels.iter_mut().zip(vector.iter().zip(centre)) {
        let scaled = (value - centre) * inverse_scale;
        // In this order NaN is replaced by the first bound's neighbour, zero, as both comparisons are false for it.
        let cut = if scaled > LEVELS { LEVELS } else { scaled };
        let cut = if cut >= -LEVELS {
            cut
        } else if cut < -LEVELS {
            -LEVELS
        } else {
            0.0
        };
        *level = (cut + MAGIC).to_bits() as i8;
    }
    padding.fill(0);
}

/// The squared Euclidean distance of two codes of equal length.
///
/// # Panics
/// When the lengths differ, are no multiple of 64 or exceed [`MAX_LENGTH`].
pub fn squared_distance(a: &[i8], b: &[i8]) -> u32 {
    let mut out = [0];
    squared_distances(a, b, &[0], &mut out);
    out[0]
}

/// The squared Euclidean distances of a code to some rows of a block of codes, which lie one behind the other. Memory is asked for some rows
/// ahead. Levels beyond ±63 give wrong distances and do no other harm.
///
/// # Panics
/// When a row is outside the block, `out` is not as long as `rows`, or the code's length is 0, no multiple of 64 or exceeds [`MAX_LENGTH`].
pub fn squared_distances(code: &[i8], block: &[i8], rows: &[u32], out: &mut [u32]) {
    check(code, block, rows.iter().max().map_or(0, |row| *row as usize + 1), rows.len(), out);
    let row = |i: usize| rows[i] as usize;
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 is there, every row lies in the block, and the length is a whole number of lines.
        return unsafe { avx2::squared_distances(code, block, row, out) };
    }
    plain_squared_distances(code, block, row, out);
}

/// As [`squared_distances`], for all rows of a block.
///
/// # Panics
/// As [`squared_distances`], and when `block` has not as many rows as `out`.
pub fn squared_distances_of_all(code: &[i8], block: &[i8], out: &mut [u32]) {
    check(code, block, out.len(), out.len(), out);
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 is there, every row lies in the block, and the length is a whole number of lines.
        return unsafe { avx2::squared_distances(code, block, |i| i, out) };
    }
    plain_squared_distances(code, block, |i| i, out);
}

/// Panics where the shapes don't fit; `end` is one more than the greatest row.
fn check(code: &[i8], block: &[i8], end: usize, count: usize, out: &[u32]) {
    let length = code.len();
    assert!(length.is_multiple_of(LINE) && (LINE..=MAX_LENGTH).contains(&length), "a code has {length} levels");
    assert!(end <= block.len() / length, "a row is outside the block");
    assert_eq!(out.len(), count, "the output has another length than the rows");
}

/// The oracle, and the way on processors without a better one.
fn plain_squared_distances(code: &[i8], block: &[i8], row: impl Fn(usize) -> usize, out: &mut [u32]) {
    for (i, out) in out.iter_mut().enumerate() {
        let other = &block[row(i) * code.len()..][..code.len()];
        *out = code.iter().zip(other).fold(0, |sum, (a, b)| {
            let difference = i32::from(a.wrapping_sub(*b));
            sum.wrapping_add((difference * difference) as u32)
        });
    }
}

/// Asks for the memory of some values, which then may be in the cache when they are needed. Without effect where there is no such request.
#[inline]
pub fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        let start = values.as_ptr().cast::<i8>();
        for offset in (0..size_of_val(values)).step_by(LINE) {
            // SAFETY: prefetching reads nothing and can't fault; SSE is part of every x86-64 processor.
            unsafe {
                std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(start.wrapping_add(offset));
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _MM_HINT_T0, _mm_add_epi32, _mm_cvtsi128_si32, _mm_prefetch, _mm_shuffle_epi32, _mm256_abs_epi8,
        _mm256_add_epi32, _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_madd_epi16,
        _mm256_maddubs_epi16, _mm256_set1_epi16, _mm256_setzero_si256, _mm256_sub_epi8,
    };

    use super::{AHEAD, LINE};

    /// As [`super::squared_distances`], with the rows as a function of their place in `out`.
    ///
    /// # Safety
    /// The processor has AVX2. For each place of `out`, the row lies in `block`, whose rows are as long as `code`, a multiple of 64.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn squared_distances(code: &[i8], block: &[i8], row: impl Fn(usize) -> usize, out: &mut [u32]) {
        let (length, count) = (code.len(), out.len());
        let start = |i: usize| block.as_ptr().wrapping_add(row(i) * length);
        let fetch = |i: usize| {
            for line in (0..length).step_by(LINE) {
                _mm_prefetch::<_MM_HINT_T0>(start(i).wrapping_add(line));
            }
        };
        (0..count.min(AHEAD)).for_each(fetch);
        for (i, out) in out.iter_mut().enumerate() {
            if i + AHEAD < count {
                fetch(i + AHEAD);
            }
            // SAFETY: the caller's promise: `length` levels of either, a multiple of 64.
            *out = unsafe { pair(code.as_ptr(), start(i), length) };
        }
    }

    /// # Safety
    /// The processor has AVX2, and `length` levels can be read from both; it is a multiple of 64.
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn pair(a: *const i8, b: *const i8, length: usize) -> u32 {
        let ones = _mm256_set1_epi16(1);
        let mut sums = [_mm256_setzero_si256(); 2];
        for line in (0..length).step_by(LINE) {
            for (half, sum) in sums.iter_mut().enumerate() {
                let at = line + half * 32;
                // SAFETY: 32 levels inside the length.
                let (a, b) = unsafe { (load(a.add(at)), load(b.add(at))) };
                let gap = _mm256_abs_epi8(_mm256_sub_epi8(a, b));
                let squares = _mm256_madd_epi16(_mm256_maddubs_epi16(gap, gap), ones);
                *sum = _mm256_add_epi32(*sum, squares);
            }
        }
        let sum = _mm256_add_epi32(sums[0], sums[1]);
        let sum = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
        let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b01_00_11_10>(sum));
        let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b10_11_00_01>(sum));
        _mm_cvtsi128_si32(sum) as u32
    }

    /// # Safety
    /// The processor has AVX2, and 32 bytes can be read.
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn load(at: *const i8) -> __m256i {
        // SAFETY: the caller's promise; the load needs no alignment.
        unsafe { _mm256_loadu_si256(at.cast()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(seed: u64, count: usize) -> Vec<i8> {
        crate::testing::numbers(count, seed).iter().map(|x| (x * 31.5).round() as i8).collect()
    }

    /// In 64 bits, without any of the code above.
    fn oracle(a: &[i8], b: &[i8]) -> u32 {
        a.iter().zip(b).map(|(a, b)| (i64::from(*a) - i64::from(*b)).pow(2) as u32).sum()
    }

    #[test]
    fn distances_equal_the_scalar_oracle() {
        for dimension in (1..=130).chain([512, 768, 4096]) {
            let length = length(dimension);
            let mut code = levels(1, length);
            code[dimension..].fill(0);
            let block = levels(2, length * 9);
            let rows = [8, 0, 3, 3, 7, 1, 2];
            let expected: Vec<u32> =
                rows.iter().map(|row| oracle(&code, &block[*row as usize * length..][..length])).collect();
            for count in 0..=rows.len() {
                let (mut found, mut plain) = (vec![u32::MAX; count], vec![u32::MAX; count]);
                squared_distances(&code, &block, &rows[..count], &mut found);
                plain_squared_distances(&code, &block, |i| rows[i] as usize, &mut plain);
                assert_eq!(found, expected[..count], "{dimension}");
                assert_eq!(plain, expected[..count], "{dimension}");
            }
            let mut all = [0; 9];
            squared_distances_of_all(&code, &block, &mut all);
            assert_eq!(rows.map(|row| all[row as usize]), expected[..], "{dimension}");
            assert_eq!(squared_distance(&code, &block[..length]), all[0]);
        }
    }

    #[test]
    fn the_longest_and_most_different_codes_fit() {
        let (a, b) = (vec![63; MAX_LENGTH], vec![-63; MAX_LENGTH]);
        assert_eq!(squared_distance(&a, &b), 126 * 126 * MAX_LENGTH as u32);
    }

    #[test]
    fn levels_beyond_the_range_do_no_harm() {
        let (a, b) = (vec![-128; 64], vec![127; 64]);
        squared_distance(&a, &b);
        squared_distance(&a, &[0; 64]);
    }

    #[test]
    fn vectors_become_the_nearest_levels() {
        for dimension in (1..=130).chain([512, 768]) {
            let vector = crate::testing::numbers(dimension, 3);
            let centre = crate::testing::numbers(dimension, 4);
            let mut code = vec![99; length(dimension)];
            encode(&vector, &centre, 20.0, &mut code);
            for (at, level) in code[..dimension].iter().enumerate() {
                let expected = ((vector[at] - centre[at]) * 20.0).round_ties_even().clamp(-63.0, 63.0);
                assert_eq!(f32::from(*level), expected, "{at} of {dimension}");
            }
            assert!(code[dimension..].iter().all(|level| *level == 0));
            let mut plain = vec![98; code.len()];
            encode_plain(&vector, &centre, 20.0, &mut plain);
            assert_eq!(plain, code);
        }
    }

    #[test]
    fn values_that_are_no_numbers_become_levels_too() {
        let mut code = [9; 64];
        encode(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30], &[0.0; 4], 1.0, &mut code);
        assert_eq!(code[..4], [0, 63, -63, 63]);
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let refused = |code: usize, block: usize, row: u32, out: usize| {
            let run = move || squared_distances(&vec![0; code], &vec![0; block], &[row], &mut vec![0; out]);
            assert!(std::panic::catch_unwind(run).is_err(), "{code} {block} {row} {out}");
        };
        refused(64, 128, 2, 1);
        refused(64, 128, u32::MAX, 1);
        refused(63, 126, 0, 1);
        refused(0, 0, 0, 1);
        refused(64, 128, 0, 2);
        refused(64, 127, 1, 1);
    }
}
