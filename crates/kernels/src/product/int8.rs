//! Products of quantised activations with quantised weights, exact in integers on every processor.
//!
//! Activations have 7 bits without sign (0 to 127, with a scale and a zero point per row), weights 7 bits with sign (-63 to 63, a
//! scale per output). `vpmaddubsw`, the fast instruction of processors without VNNI, adds two products in 16 bits and saturates:
//! eight bits on both sides would overflow it silently. With seven, four products fit (4 x 127 x 63 = 32,004), so that two such
//! results may even be added before they are widened, which makes a product 2.67 times as fast as in fp32 instead of twice.
//! With VNNI one instruction multiplies fours and adds them in 32 bits. And the integers are the same on every machine.

use super::tile::{PANEL, TILE_ROWS};

/// Greatest quantised activation.
pub(crate) const ACTIVATION_LEVELS: f32 = 127.0;

/// A tile's sums, row by row.
#[repr(C, align(64))]
pub(crate) struct IntTile(pub(crate) [[i32; PANEL]; TILE_ROWS]);

/// The operands of a tile.
#[derive(Clone, Copy)]
pub(crate) struct IntOperands {
    /// Length of the sums in groups of eight.
    pub(crate) groups: usize,
    /// First element of the first row of activations.
    pub(crate) a: *const u8,
    /// Distance between rows.
    pub(crate) a_stride: usize,
    /// First element of the panel: `[group][2][16][4]`.
    pub(crate) b: *const i8,
    /// Memory to bring into the cache meanwhile, `groups` lines of it.
    pub(crate) prefetch: *const i8,
}

/// Sums of 1 to [`TILE_ROWS`] rows of activations with a panel of weights.
///
/// # Safety
/// `a` is valid for `rows` rows of `8 * groups` elements at their stride, `b` for `groups` groups of 128. No activation exceeds 127,
/// no weight 63 in magnitude. `prefetch` may point anywhere.
#[inline]
pub(crate) unsafe fn sums(rows: usize, operands: IntOperands, tile: &mut IntTile) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instructions are there; the rest is the caller's promise.
    unsafe {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
            return vnni::sums(rows, operands, tile);
        }
        if is_x86_feature_detected!("avxvnni") {
            return avx_vnni::sums(rows, operands, tile);
        }
        if is_x86_feature_detected!("avx2") {
            return avx2::sums(rows, operands, tile);
        }
    }
    // SAFETY: the caller's promise.
    unsafe { plain_sums(rows, operands, tile) }
}

/// As [`sums`], in plain code: the oracle, and the way on processors without a better one.
///
/// # Safety
/// As [`sums`].
unsafe fn plain_sums(rows: usize, operands: IntOperands, tile: &mut IntTile) {
    let IntOperands { groups, a, a_stride, b, prefetch: _ } = operands;
    for (row, sums) in tile.0.iter_mut().enumerate().take(rows) {
        // SAFETY: the caller vouches for these elements.
        let (a, b) = unsafe {
            (
                std::slice::from_raw_parts(a.add(row * a_stride), groups * 8),
                std::slice::from_raw_parts(b, groups * 8 * PANEL),
            )
        };
        sums.fill(0);
        for (a, b) in a.as_chunks::<4>().0.iter().zip(b.as_chunks::<{ 4 * PANEL }>().0) {
            for (sum, b) in sums.iter_mut().zip(b.as_chunks::<4>().0) {
                *sum += a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum::<i32>();
            }
        }
    }
}

/// The kernel in scope for a number of rows that is known only now.
#[cfg(target_arch = "x86_64")]
macro_rules! any_rows {
    ($rows:ident, $operands:ident, $tile:ident) => {
        match $rows {
            1 => fixed::<1>($operands, $tile),
            2 => fixed::<2>($operands, $tile),
            3 => fixed::<3>($operands, $tile),
            4 => fixed::<4>($operands, $tile),
            5 => fixed::<5>($operands, $tile),
            6 => fixed::<6>($operands, $tile),
            _ => unreachable!("a tile has 1 to 6 rows"),
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _MM_HINT_T1, _mm_prefetch, _mm256_add_epi16, _mm256_add_epi32, _mm256_load_si256, _mm256_madd_epi16,
        _mm256_maddubs_epi16, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_setzero_si256, _mm256_storeu_si256,
    };

    use super::{IntOperands, IntTile};

    /// As [`super::sums`].
    ///
    /// # Safety
    /// As [`super::sums`], on a processor with AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn sums(rows: usize, operands: IntOperands, tile: &mut IntTile) {
        // SAFETY: the caller's promise, for the number of rows it gave.
        unsafe { any_rows!(rows, operands, tile) }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn fixed<const ROWS: usize>(operands: IntOperands, tile: &mut IntTile) {
        let IntOperands { groups, a, a_stride, b, mut prefetch } = operands;
        let ones = _mm256_set1_epi16(1);
        let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
        for group in 0..groups {
            // Two lines of weights a group; with several tiles to a panel, each prefetches its part of the next one.
            _mm_prefetch::<_MM_HINT_T1>(prefetch);
            prefetch = prefetch.wrapping_add(64);
            // SAFETY: the group is inside the panel and the rows; panels start on cache lines and a group is two of them.
            unsafe {
                let b: [__m256i; 4] = std::array::from_fn(|i| _mm256_load_si256(b.add(group * 128 + i * 32).cast()));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let a = a.add(row * a_stride + group * 8).cast::<i32>();
                    let (low, high) =
                        (_mm256_set1_epi32(a.read_unaligned()), _mm256_set1_epi32(a.add(1).read_unaligned()));
                    for (half, sum) in sums.iter_mut().enumerate() {
                        // No sum of four products leaves 16 bits.
                        let pairs = _mm256_add_epi16(
                            _mm256_maddubs_epi16(low, b[half]),
                            _mm256_maddubs_epi16(high, b[half + 2]),
                        );
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
                    }
                }
            }
        }
        for (row, sums) in tile.0.iter_mut().zip(sums) {
            for (half, sum) in row.as_chunks_mut::<8>().0.iter_mut().zip(sums) {
                // SAFETY: eight integers.
                unsafe { _mm256_storeu_si256(half.as_mut_ptr().cast(), sum) };
            }
        }
    }
}

/// Sixteen columns at a time, in one register.
#[cfg(target_arch = "x86_64")]
mod vnni {
    use std::arch::x86_64::{
        __m512i, _MM_HINT_T1, _mm_prefetch, _mm512_add_epi32, _mm512_dpbusd_epi32, _mm512_load_si512,
        _mm512_set1_epi32, _mm512_setzero_si512, _mm512_storeu_si512,
    };

    use super::{IntOperands, IntTile};

    /// As [`super::sums`].
    ///
    /// # Safety
    /// As [`super::sums`], on a processor with AVX-512 and VNNI.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) unsafe fn sums(rows: usize, operands: IntOperands, tile: &mut IntTile) {
        // SAFETY: the caller's promise, for the number of rows it gave.
        unsafe { any_rows!(rows, operands, tile) }
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    #[inline]
    unsafe fn fixed<const ROWS: usize>(operands: IntOperands, tile: &mut IntTile) {
        let IntOperands { groups, a, a_stride, b, mut prefetch } = operands;
        // Two sums a row, so that one needn't wait for the other.
        let mut sums = [[_mm512_setzero_si512(); 2]; ROWS];
        for group in 0..groups {
            _mm_prefetch::<_MM_HINT_T1>(prefetch);
            prefetch = prefetch.wrapping_add(64);
            // SAFETY: the group is inside the panel and the rows; panels start on cache lines and a group is two of them.
            unsafe {
                let b: [__m512i; 2] = std::array::from_fn(|i| _mm512_load_si512(b.add(group * 128 + i * 64).cast()));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let a = a.add(row * a_stride + group * 8).cast::<i32>();
                    for (half, sum) in sums.iter_mut().enumerate() {
                        *sum = _mm512_dpbusd_epi32(*sum, _mm512_set1_epi32(a.add(half).read_unaligned()), b[half]);
                    }
                }
            }
        }
        for (row, [low, high]) in tile.0.iter_mut().zip(sums) {
            // SAFETY: sixteen integers.
            unsafe { _mm512_storeu_si512(row.as_mut_ptr().cast(), _mm512_add_epi32(low, high)) };
        }
    }
}

/// Eight columns at a time, for processors with VNNI and without AVX-512.
#[cfg(target_arch = "x86_64")]
mod avx_vnni {
    use std::arch::x86_64::{
        __m256i, _MM_HINT_T1, _mm_prefetch, _mm256_dpbusd_avx_epi32, _mm256_load_si256, _mm256_set1_epi32,
        _mm256_setzero_si256, _mm256_storeu_si256,
    };

    use super::{IntOperands, IntTile};

    /// As [`super::sums`].
    ///
    /// # Safety
    /// As [`super::sums`], on a processor with AVX-VNNI.
    #[target_feature(enable = "avx2,avxvnni")]
    pub(super) unsafe fn sums(rows: usize, operands: IntOperands, tile: &mut IntTile) {
        // SAFETY: the caller's promise, for the number of rows it gave.
        unsafe { any_rows!(rows, operands, tile) }
    }

    #[target_feature(enable = "avx2,avxvnni")]
    #[inline]
    unsafe fn fixed<const ROWS: usize>(operands: IntOperands, tile: &mut IntTile) {
        let IntOperands { groups, a, a_stride, b, mut prefetch } = operands;
        let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
        for group in 0..groups {
            _mm_prefetch::<_MM_HINT_T1>(prefetch);
            prefetch = prefetch.wrapping_add(64);
            // SAFETY: the group is inside the panel and the rows; panels start on cache lines and a group is two of them.
            unsafe {
                let b: [__m256i; 4] = std::array::from_fn(|i| _mm256_load_si256(b.add(group * 128 + i * 32).cast()));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let a = a.add(row * a_stride + group * 8).cast::<i32>();
                    for quad in 0..2 {
                        let a = _mm256_set1_epi32(a.add(quad).read_unaligned());
                        for (half, sum) in sums.iter_mut().enumerate() {
                            *sum = _mm256_dpbusd_avx_epi32(*sum, a, b[quad * 2 + half]);
                        }
                    }
                }
            }
        }
        for (row, sums) in tile.0.iter_mut().zip(sums) {
            for (half, sum) in row.as_chunks_mut::<8>().0.iter_mut().zip(sums) {
                // SAFETY: eight integers.
                unsafe { _mm256_storeu_si256(half.as_mut_ptr().cast(), sum) };
            }
        }
    }
}

/// How a row of activations was quantised: `x = scale * (level - zero)`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct RowScale {
    pub(crate) scale: f32,
    pub(crate) zero: i32,
}

/// Quantises a row to 0..=127 with the scale that its least and greatest elements ask for. `levels` may be longer; what is
/// beyond the row becomes 0.
///
/// # Panics
/// When `levels` is shorter than the row.
pub(crate) fn quantise_row(row: &[f32], levels: &mut [u8]) -> RowScale {
    assert!(row.len() <= levels.len(), "shapes don't fit");
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 is there.
        return unsafe { quantise_row_avx2(row, levels) };
    }
    quantise_row_plain(row, levels)
}

/// [`quantise_row_plain`], compiled for wider vectors.
///
/// # Safety
/// The processor has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn quantise_row_avx2(row: &[f32], levels: &mut [u8]) -> RowScale {
    quantise_row_plain(row, levels)
}

#[inline(always)]
fn quantise_row_plain(row: &[f32], levels: &mut [u8]) -> RowScale {
    // Sixteen running extremes let the compiler use vectors.
    let (mut least, mut greatest) = ([0f32; 16], [0f32; 16]);
    let (chunks, rest) = row.as_chunks::<16>();
    for chunk in chunks {
        for i in 0..16 {
            least[i] = if chunk[i] < least[i] { chunk[i] } else { least[i] };
            greatest[i] = if chunk[i] > greatest[i] { chunk[i] } else { greatest[i] };
        }
    }
    let low = least.iter().chain(rest).fold(0f32, |a, b| a.min(*b));
    let high = greatest.iter().chain(rest).fold(0f32, |a, b| a.max(*b));
    let scale = (high - low) / ACTIVATION_LEVELS;
    if !scale.is_normal() {
        levels.fill(0);
        return RowScale { scale: 0.0, zero: 0 };
    }
    let inverse = 1.0 / scale;
    let zero = (-low * inverse).round_ties_even().min(ACTIVATION_LEVELS);
    // Adding 1.5 * 2^23 rounds to the nearest integer, ties to even, and leaves it in the low bits.
    const MAGIC: f32 = 12_582_912.0;
    let level = |x: f32| {
        let rounded = (x * inverse).clamp(-zero, ACTIVATION_LEVELS - zero) + (MAGIC + zero);
        (rounded.to_bits() & 0x7F) as u8
    };
    let (quantised, padding) = levels.split_at_mut(row.len());
    quantised.iter_mut().zip(row).for_each(|(out, x)| *out = level(*x));
    padding.fill(0);
    RowScale { scale, zero: zero as i32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vector_and_plain_code_give_the_same_integers() {
        for groups in [1, 2, 3, 17, 96] {
            for extreme in [false, true] {
                let mut state = 12345u32;
                let mut next = || {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    state >> 16
                };
                let a: Vec<u8> =
                    (0..6 * groups * 8).map(|_| if extreme { 127 } else { (next() % 128) as u8 }).collect();
                let mut b = crate::buffer::Buffer::<i8>::zeroed(groups * 128);
                b.iter_mut().for_each(|b| *b = if extreme { -63 } else { (next() % 127) as i8 - 63 });
                for rows in 1..=6 {
                    let operands = IntOperands {
                        groups,
                        a: a.as_ptr(),
                        a_stride: groups * 8,
                        b: b.as_ptr(),
                        prefetch: b.as_ptr(),
                    };
                    let (mut found, mut expected) = (IntTile([[7; 16]; 6]), IntTile([[7; 16]; 6]));
                    // SAFETY: the vectors hold that many rows and groups, within the ranges.
                    unsafe {
                        sums(rows, operands, &mut found);
                        plain_sums(rows, operands, &mut expected);
                    }
                    assert_eq!(found.0, expected.0, "{groups} groups, {rows} rows");
                    assert!(!extreme || found.0[0][0] == -63 * 127 * 8 * groups as i32);
                    for (name, kernel) in instruction_sets() {
                        // SAFETY: as above, and the processor has the instructions.
                        unsafe { kernel(rows, operands, &mut found) };
                        assert_eq!(found.0, expected.0, "{name}: {groups} groups, {rows} rows");
                    }
                }
            }
        }
    }

    type Kernel = unsafe fn(usize, IntOperands, &mut IntTile);

    /// What this processor can run, the slower ones included.
    #[cfg(target_arch = "x86_64")]
    fn instruction_sets() -> Vec<(&'static str, Kernel)> {
        let known: [(&str, bool, Kernel); 3] = [
            ("AVX2", is_x86_feature_detected!("avx2"), avx2::sums),
            ("AVX-VNNI", is_x86_feature_detected!("avx2") && is_x86_feature_detected!("avxvnni"), avx_vnni::sums),
            ("AVX-512 VNNI", is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni"), vnni::sums),
        ];
        known.into_iter().filter(|(_, there, _)| *there).map(|(name, _, kernel)| (name, kernel)).collect()
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn instruction_sets() -> Vec<(&'static str, Kernel)> {
        Vec::new()
    }

    #[test]
    fn rows_are_quantised_to_within_half_a_level() {
        for width in [1, 7, 16, 33, 768] {
            for (low, high) in [(-1.0f32, 1.0f32), (-0.17, 40.0), (0.5, 3.0), (-9.0, -2.0), (0.0, 0.0), (-1e-3, 1e-30)]
            {
                let at = |i: usize| low + (high - low) * ((i * 7919 % 101) as f32 / 100.0);
                let row: Vec<f32> = (0..width).map(at).collect();
                let mut levels = vec![99; width.next_multiple_of(8)];
                let RowScale { scale, zero } = quantise_row(&row, &mut levels);
                for (x, level) in row.iter().zip(&levels) {
                    let back = scale * (i32::from(*level) - zero) as f32;
                    assert!((back - x).abs() <= scale * 0.5001 + x.abs() * 1e-6, "{x} became {back}, level is {scale}");
                    assert!(*level <= 127);
                }
                assert!(levels[width..].iter().all(|level| *level == 0));
                let mut plain = vec![99; levels.len()];
                assert_eq!(quantise_row_plain(&row, &mut plain), RowScale { scale, zero });
                assert_eq!(plain, levels);
            }
        }
    }
}
