//! Scans of compressed rows: the inner products of one query with many rows of 8-bit integers or of half-precision numbers.
//!
//! A row is stored as codes and a scale, `row[i] ~ codes[i] * scale`, and lies directly behind the one before. What comes out has the
//! query's rounding and the row's in it and is for choosing candidates; it isn't the same to the last bit on every machine.

use half::f16;

/// Greatest magnitude of an 8-bit code.
pub const CODE_LEVELS: i8 = 127;

/// Quantises a row to -127..=127 by its largest magnitude and returns the scale. A row without a finite largest magnitude, or too small
/// for one, gets zeros and the scale 0.
///
/// # Panics
/// When the lengths differ.
pub fn quantise(row: &[f32], codes: &mut [i8]) -> f32 {
    assert_eq!(row.len(), codes.len(), "shapes don't fit");
    let scale = largest(row) / f32::from(CODE_LEVELS);
    if !scale.is_normal() || row.iter().any(|x| x.is_nan()) {
        codes.fill(0);
        return 0.0;
    }
    let inverse = 1.0 / scale;
    codes.iter_mut().zip(row).for_each(|(code, x)| *code = round(x * inverse) as i8);
    scale
}

/// Rounds a row to half precision after dividing it by its largest magnitude, and returns that as the scale; as [`quantise`] otherwise.
///
/// # Panics
/// When the lengths differ.
pub fn halve(row: &[f32], codes: &mut [u16]) -> f32 {
    assert_eq!(row.len(), codes.len(), "shapes don't fit");
    let scale = largest(row);
    if !scale.is_normal() || row.iter().any(|x| x.is_nan()) {
        codes.fill(0);
        return 0.0;
    }
    codes.iter_mut().zip(row).for_each(|(code, x)| *code = f16::from_f32(x / scale).to_bits());
    scale
}

fn largest(row: &[f32]) -> f32 {
    row.iter().fold(0f32, |largest, x| largest.max(x.abs()))
}

/// The nearest whole number, ties to even, of a magnitude below 2^22.
#[inline(always)]
fn round(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    x + MAGIC - MAGIC
}

/// A query as 16-bit integers: `query[i] ~ levels[i] * scale`, with levels so small that no sum over a row overflows 32 bits.
#[derive(Debug, Clone)]
pub struct Int8Query {
    levels: Vec<i16>,
    scale: f32,
}

impl Int8Query {
    /// Quantises a query.
    pub fn new(query: &[f32]) -> Self {
        let most = i32::MAX as usize / (CODE_LEVELS as usize * query.len().max(1));
        let most = most.clamp(1, i16::MAX as usize) as f32;
        let scale = largest(query) / most;
        let inverse = if scale.is_normal() { 1.0 / scale } else { 0.0 };
        let levels = query.iter().map(|x| round((x * inverse).clamp(-most, most)) as i16).collect();
        Self { levels, scale: if scale.is_normal() { scale } else { 0.0 } }
    }
}

/// The inner products of a query with rows of [`quantise`]d codes, each times its row's scale.
///
/// # Panics
/// When `codes` isn't a row of the query's length for each scale, or `out` has another length than `scales`.
pub fn scan_int8(codes: &[i8], scales: &[f32], query: &Int8Query, out: &mut [f32]) {
    let width = query.levels.len();
    assert!(codes.len() == scales.len() * width && out.len() == scales.len(), "shapes don't fit");
    if width == 0 {
        return out.fill(0.0);
    }
    let rows = codes.chunks_exact(width).zip(scales).zip(out);
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        for ((row, scale), out) in rows {
            // SAFETY: AVX2 is there.
            *out = unsafe { avx2::int8(row, &query.levels) } as f32 * (scale * query.scale);
        }
        return;
    }
    for ((row, scale), out) in rows {
        *out = int8_plain(row, &query.levels) as f32 * (scale * query.scale);
    }
}

fn int8_plain(row: &[i8], levels: &[i16]) -> i32 {
    row.iter().zip(levels).fold(0i32, |sum, (code, level)| sum.wrapping_add(i32::from(*code) * i32::from(*level)))
}

/// The inner products of a query with rows of [`halve`]d codes, each times its row's scale.
///
/// # Panics
/// As [`scan_int8`].
pub fn scan_half(codes: &[u16], scales: &[f32], query: &[f32], out: &mut [f32]) {
    let width = query.len();
    assert!(codes.len() == scales.len() * width && out.len() == scales.len(), "shapes don't fit");
    if width == 0 {
        return out.fill(0.0);
    }
    let rows = codes.chunks_exact(width).zip(scales).zip(out);
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
        for ((row, scale), out) in rows {
            // SAFETY: AVX2, FMA and F16C are there.
            *out = unsafe { avx2::half(row, query) } * scale;
        }
        return;
    }
    for ((row, scale), out) in rows {
        *out = half_plain(row, query) * scale;
    }
}

fn half_plain(row: &[u16], query: &[f32]) -> f32 {
    row.iter().zip(query).map(|(code, x)| f16::from_bits(*code).to_f32() * x).sum()
}

/// Lists the places where a value may reach its floor: where it isn't less than `floors[place] + offset`, so also where one of them is
/// no number.
///
/// # Panics
/// When the lengths differ.
pub fn reaching(values: &[f32], floors: &[f32], offset: f32, out: &mut Vec<u32>) {
    assert_eq!(values.len(), floors.len(), "shapes don't fit");
    out.clear();
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 is there.
        unsafe { avx2::reaching(values, floors, offset, out) };
        return;
    }
    reaching_plain(values, floors, offset, 0, out);
}

#[inline]
fn reaching_plain(values: &[f32], floors: &[f32], offset: f32, first: usize, out: &mut Vec<u32>) {
    for (place, (value, floor)) in (first as u32..).zip(values.iter().zip(floors)) {
        let below = *value < floor + offset;
        if !below {
            out.push(place);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        _CMP_NLT_UQ, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch, _mm256_add_epi32, _mm256_add_ps, _mm256_cmp_ps,
        _mm256_cvtepi8_epi16, _mm256_cvtph_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16,
        _mm256_movemask_ps, _mm256_or_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_storeu_ps,
        _mm256_storeu_si256,
    };

    /// Bytes ahead of a scan that are asked for: memory answers in some hundred nanoseconds, and the processor's own prefetching stops at
    /// the end of each page.
    const AHEAD: usize = 2048;

    /// The exact sum of the products of codes and levels, modulo 2^32.
    ///
    /// # Safety
    /// The processor has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn int8(row: &[i8], levels: &[i16]) -> i32 {
        let (codes, rest) = row.as_chunks::<32>();
        let (parts, levels) = levels.as_chunks::<32>();
        let mut sums = [_mm256_setzero_si256(); 2];
        for (codes, part) in codes.iter().zip(parts) {
            _mm_prefetch::<_MM_HINT_T0>(codes.as_ptr().wrapping_add(AHEAD));
            for (half, sum) in sums.iter_mut().enumerate() {
                // SAFETY: sixteen codes and sixteen levels from each half of thirty-two.
                let (codes, part) = unsafe {
                    (
                        _mm_loadu_si128(codes.as_ptr().add(half * 16).cast()),
                        _mm256_loadu_si256(part.as_ptr().add(half * 16).cast()),
                    )
                };
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_cvtepi8_epi16(codes), part));
            }
        }
        let mut lanes = [0i32; 8];
        // SAFETY: eight integers.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), _mm256_add_epi32(sums[0], sums[1])) };
        lanes.iter().fold(super::int8_plain(rest, levels), |sum, lane| sum.wrapping_add(*lane))
    }

    /// As [`super::reaching`], for a list that is empty.
    ///
    /// # Safety
    /// The processor has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn reaching(values: &[f32], floors: &[f32], offset: f32, out: &mut Vec<u32>) {
        let offsets = _mm256_set1_ps(offset);
        let (chunks, rest) = values.as_chunks::<32>();
        let (floor_chunks, floor_rest) = floors.as_chunks::<32>();
        for (number, (values, floors)) in chunks.iter().zip(floor_chunks).enumerate() {
            let mut masks = [_mm256_setzero_ps(); 4];
            for (quarter, mask) in masks.iter_mut().enumerate() {
                // SAFETY: eight values and eight floors from each quarter of thirty-two.
                let (value, floor) = unsafe {
                    (
                        _mm256_loadu_ps(values.as_ptr().add(quarter * 8)),
                        _mm256_loadu_ps(floors.as_ptr().add(quarter * 8)),
                    )
                };
                *mask = _mm256_cmp_ps::<_CMP_NLT_UQ>(value, _mm256_add_ps(floor, offsets));
            }
            let [a, b, c, d] = masks;
            if _mm256_movemask_ps(_mm256_or_ps(_mm256_or_ps(a, b), _mm256_or_ps(c, d))) != 0 {
                super::reaching_plain(values, floors, offset, number * 32, out);
            }
        }
        super::reaching_plain(rest, floor_rest, offset, values.len() - rest.len(), out);
    }

    /// The sum of the products of half-precision codes and a query.
    ///
    /// # Safety
    /// The processor has AVX2, FMA and F16C.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) unsafe fn half(row: &[u16], query: &[f32]) -> f32 {
        let (codes, rest) = row.as_chunks::<32>();
        let (parts, query) = query.as_chunks::<32>();
        let mut sums = [_mm256_setzero_ps(); 4];
        for (codes, part) in codes.iter().zip(parts) {
            _mm_prefetch::<_MM_HINT_T0>(codes.as_ptr().wrapping_add(AHEAD).cast());
            for (quarter, sum) in sums.iter_mut().enumerate() {
                // SAFETY: eight codes and eight values from each quarter of thirty-two.
                let (codes, part) = unsafe {
                    (
                        _mm_loadu_si128(codes.as_ptr().add(quarter * 8).cast()),
                        _mm256_loadu_ps(part.as_ptr().add(quarter * 8)),
                    )
                };
                *sum = _mm256_fmadd_ps(_mm256_cvtph_ps(codes), part, *sum);
            }
        }
        let [a, b, c, d] = sums;
        let mut lanes = [0f32; 8];
        // SAFETY: eight numbers.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), _mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d))) };
        lanes.iter().sum::<f32>() + super::half_plain(rest, query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    fn exact(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }

    #[test]
    fn integers_equal_the_scalar_oracle() {
        for width in (1..=130).chain([512, 768, 20_001]) {
            for extreme in [false, true] {
                let number = |x: &f32| if extreme { 2.0 } else { *x };
                let query: Vec<f32> = numbers(width, 3).iter().map(number).collect();
                let rows: Vec<f32> = numbers(3 * width, 5).iter().map(number).collect();
                let mut codes = vec![0; 3 * width];
                let scales: Vec<f32> = rows
                    .chunks_exact(width)
                    .zip(codes.chunks_exact_mut(width))
                    .map(|(row, codes)| quantise(row, codes))
                    .collect();
                let query = Int8Query::new(&query);
                let mut found = [f32::NAN; 3];
                scan_int8(&codes, &scales, &query, &mut found);
                for (row, found) in found.iter().enumerate() {
                    let products = codes[row * width..][..width].iter().zip(&query.levels);
                    let sum: i64 = products.map(|(code, level)| i64::from(*code) * i64::from(*level)).sum();
                    assert_eq!(*found, sum as f32 * (scales[row] * query.scale), "{width} row {row}");
                }
            }
        }
    }

    #[test]
    fn codes_are_within_half_a_level() {
        for width in [1, 2, 31, 512] {
            for size in [1.0, 1e-20, 1e20] {
                let row: Vec<f32> = numbers(width, 7).iter().map(|x| x * size).collect();
                let (mut codes, mut halves) = (vec![0; width], vec![0; width]);
                let (scale, unit) = (quantise(&row, &mut codes), halve(&row, &mut halves));
                for (i, x) in row.iter().enumerate() {
                    assert!((f32::from(codes[i]) * scale - x).abs() <= scale * 0.5001, "{x} in levels of {scale}");
                    let back = f16::from_bits(halves[i]).to_f32() * unit;
                    assert!((back - x).abs() <= unit / 2047.0, "{x} became {back}");
                }
            }
        }
    }

    #[test]
    fn half_precision_equals_the_scalar_oracle() {
        for width in (1..=130).chain([512, 768]) {
            let (query, rows) = (numbers(width, 3), numbers(4 * width, 5));
            let mut codes = vec![0; rows.len()];
            let scales: Vec<f32> = rows
                .chunks_exact(width)
                .zip(codes.chunks_exact_mut(width))
                .map(|(row, codes)| halve(row, codes))
                .collect();
            let mut found = [f32::NAN; 4];
            scan_half(&codes, &scales, &query, &mut found);
            for (row, found) in found.iter().enumerate() {
                let back: Vec<f32> = codes[row * width..][..width]
                    .iter()
                    .map(|code| f16::from_bits(*code).to_f32() * scales[row])
                    .collect();
                let bound = 1e-5 * (width as f64).sqrt() * 4.0;
                assert!((f64::from(*found) - exact(&back, &query)).abs() < bound, "{width} row {row}");
            }
        }
    }

    #[test]
    fn what_reaches_its_floor_is_listed() {
        for length in (0..100).chain([1000]) {
            let (mut values, mut floors) = (numbers(length, 1), numbers(length, 2));
            values.iter_mut().skip(5).step_by(41).for_each(|x| *x = f32::NAN);
            floors.iter_mut().skip(9).step_by(37).for_each(|x| *x = f32::NAN);
            floors.iter_mut().skip(7).step_by(31).for_each(|x| *x = f32::NEG_INFINITY);
            for offset in [0.0, 3.0, -3.9, f32::NAN, f32::INFINITY] {
                let below = |i: usize| values[i] < floors[i] + offset;
                let expected: Vec<u32> = (0..length).filter(|i| !below(*i)).map(|i| i as u32).collect();
                let mut found = vec![9];
                reaching(&values, &floors, offset, &mut found);
                assert_eq!(found, expected, "{length} {offset}");
            }
        }
    }

    #[test]
    fn rows_that_have_no_scale_become_zero() {
        for row in [[0.0, 0.0], [f32::NAN, 1.0], [f32::INFINITY, 1.0], [1e-45, 0.0]] {
            let (mut codes, mut halves) = ([9; 2], [9; 2]);
            assert_eq!((quantise(&row, &mut codes), halve(&row, &mut halves)), (0.0, 0.0));
            assert_eq!((codes, halves), ([0; 2], [0; 2]));
        }
        let mut out = [f32::NAN];
        scan_int8(&[5, 5], &[1.0], &Int8Query::new(&[0.0, 0.0]), &mut out);
        assert_eq!(out, [0.0]);
    }
}
