//! One bit a dimension: a random rotation that spreads what a vector holds over all of its dimensions, the signs that are left of a
//! rotated vector, and the scan that estimates inner products from them.
//!
//! For a vector `r` and its signs `s` after the rotation, `<q, r>` is about `f * <Rq, s>` with `f = |r|^2 / sum |(Rr)_i|`: exact for a
//! query in the direction of `r`, and without bias for others (RaBitQ, Gao and Long 2024). The scan takes the signs four at a time as
//! an index into sixteen sums of the query's values, which one instruction looks up for thirty-two rows.

/// Rows of a block.
pub const BLOCK_ROWS: usize = 32;

/// Values that a rotated vector's length is a multiple of.
const GROUP: usize = 16;

/// Least length of a rotated vector: more signs than values make up for what a sign says less than a value.
const LEAST: usize = 256;

/// Bytes at the beginning of blocks that are asked for; the scan asks for what follows.
#[cfg(target_arch = "x86_64")]
const EXPECTED: usize = 4096;

/// Largest entry of a table: four of them fit a byte.
const ENTRY_LEVELS: usize = 63;

/// A random rotation: flipped signs and Walsh-Hadamard transforms in turns.
#[derive(Debug, Clone)]
pub struct Rotation {
    inputs: usize,
    /// The length of the transform: the largest power of two that fits.
    window: usize,
    /// Factors of each turn, `outputs` each: signs, with what makes the transform keep lengths.
    turns: Vec<Vec<f32>>,
}

impl Rotation {
    /// The rotation of vectors of `inputs` values that belongs to a seed.
    pub fn new(inputs: usize, seed: u64) -> Self {
        let outputs = inputs.next_multiple_of(GROUP).max(LEAST);
        let window = 1 << outputs.ilog2();
        let scale = 1.0 / (window as f32).sqrt();
        let mut state = seed;
        let mut sign = || {
            // SplitMix64.
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            if (z ^ (z >> 31)) >> 63 == 0 { 1.0 } else { -1.0 }
        };
        // With a window over everything two turns mix well; otherwise the window alternates between both ends.
        let count = if window == outputs { 2 } else { 4 };
        let in_window = |turn: usize, i: usize| if turn.is_multiple_of(2) { i < window } else { i >= outputs - window };
        let turn = |turn| (0..outputs).map(|i| sign() * if in_window(turn, i) { scale } else { 1.0 }).collect();
        Self { inputs, window, turns: (0..count).map(turn).collect() }
    }

    /// Values of a rotated vector: the inputs' number rounded up to a multiple of sixteen, at least 256.
    pub fn outputs(&self) -> usize {
        self.turns[0].len()
    }

    /// Rotates a vector.
    ///
    /// # Panics
    /// When `input` or `out` has another length than the rotation.
    pub fn apply(&self, input: &[f32], out: &mut [f32]) {
        assert!(input.len() == self.inputs && out.len() == self.outputs(), "shapes don't fit");
        out[..input.len()].copy_from_slice(input);
        out[input.len()..].fill(0.0);
        for (turn, factors) in self.turns.iter().enumerate() {
            let start = if turn.is_multiple_of(2) { 0 } else { out.len() - self.window };
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") {
                // SAFETY: AVX2 is there.
                unsafe { turn_avx2(factors, out, start, self.window) };
                continue;
            }
            turn_plain(factors, out, start, self.window);
        }
    }
}

/// [`turn_plain`], compiled for wider vectors.
///
/// # Safety
/// The processor has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn turn_avx2(factors: &[f32], x: &mut [f32], start: usize, window: usize) {
    turn_plain(factors, x, start, window);
}

#[inline(always)]
fn turn_plain(factors: &[f32], x: &mut [f32], start: usize, window: usize) {
    x.iter_mut().zip(factors).for_each(|(x, factor)| *x *= factor);
    let x = &mut x[start..start + window];
    for group in x.as_chunks_mut::<16>().0 {
        for half in [1, 2, 4, 8] {
            for pair in 0..8 {
                let low = pair / half * 2 * half + pair % half;
                (group[low], group[low + half]) = (group[low] + group[low + half], group[low] - group[low + half]);
            }
        }
    }
    let mut half = 16;
    while half < window {
        for pair in x.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            low.iter_mut().zip(high).for_each(|(low, high)| (*low, *high) = (*low + *high, *low - *high));
        }
        half *= 2;
    }
}

/// Writes the signs of a vector of eight values a byte: bit `i` of byte `j` is set where value `8 j + i` isn't negative.
///
/// # Panics
/// When there aren't eight values for each byte.
pub fn signs(values: &[f32], bits: &mut [u8]) {
    assert_eq!(values.len(), bits.len() * 8, "shapes don't fit");
    for (byte, values) in bits.iter_mut().zip(values.as_chunks::<8>().0) {
        *byte = values.iter().enumerate().fold(0, |byte, (i, x)| byte | u8::from(*x >= 0.0) << i);
    }
}

/// What four signs contribute to the inner product with a query, for all sixteen cases of every four values.
#[derive(Debug, Clone, Default)]
pub struct SignTable {
    /// `[four][case]`, at most `ENTRY_LEVELS`.
    entries: Vec<u8>,
    /// What one level is worth.
    step: f32,
    /// The sum of the least case of every four.
    least: f32,
}

impl SignTable {
    /// Makes the table of a rotated query.
    ///
    /// # Panics
    /// When the query's length isn't a multiple of sixteen, as [`Rotation::outputs`] is.
    pub fn set(&mut self, query: &[f32]) {
        assert!(query.len().is_multiple_of(GROUP), "shapes don't fit");
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: AVX2 is there.
            unsafe { self.set_avx2(query) };
            return;
        }
        self.set_plain(query);
    }

    /// As `set_plain`, compiled for wider vectors.
    ///
    /// # Safety
    /// The processor has AVX2.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    unsafe fn set_avx2(&mut self, query: &[f32]) {
        self.set_plain(query);
    }

    #[inline(always)]
    fn set_plain(&mut self, query: &[f32]) {
        let fours = query.as_chunks::<4>().0;
        // A case's sum is the least plus twice the values whose sign is set; an entry is in 0..=levels, and the sum of all in 16 bits.
        let magnitude = |four: &[f32; 4]| (four[0].abs() + four[1].abs()) + (four[2].abs() + four[3].abs());
        let (mut most, mut least) = (0f32, 0f32);
        for four in fours {
            most = most.max(magnitude(four));
            least -= magnitude(four);
        }
        let levels = ENTRY_LEVELS.min(usize::from(u16::MAX) / fours.len().max(1)) as f32;
        let step = 2.0 * most / levels;
        let inverse = if step.is_normal() && levels > 0.0 { 1.0 / step } else { 0.0 };
        (self.step, self.least) = if inverse > 0.0 { (step, least) } else { (0.0, 0.0) };
        self.entries.resize(query.len() * 4, 0);
        for (four, entries) in fours.iter().zip(self.entries.as_chunks_mut::<16>().0) {
            let start = magnitude(four) * inverse + 0.5;
            let four = four.map(|x| x * inverse);
            for (case, entry) in entries.iter_mut().enumerate() {
                let sign = |bit: usize| if case >> bit & 1 == 1 { four[bit] } else { -four[bit] };
                let level = start + ((sign(0) + sign(1)) + (sign(2) + sign(3)));
                *entry = level.clamp(0.0, levels) as i32 as u8;
            }
        }
    }
}

/// Estimates for the rows of blocks: `out[row] = base + shift[row] + factor[row] * <query, signs[row]>`.
///
/// A block holds thirty-two rows, byte `j` of each of them, then byte `j + 1` and so on; `factors` has thirty-two factors and then
/// thirty-two shifts for each block.
///
/// # Panics
/// When `blocks`, `factors` and `out` aren't of one number of blocks.
pub fn scan_signs(blocks: &[u8], factors: &[f32], table: &SignTable, base: f32, out: &mut [f32]) {
    let block_bytes = table.entries.len() / 32 * BLOCK_ROWS;
    let count = out.len() / BLOCK_ROWS;
    assert!(
        blocks.len() == count * block_bytes && factors.len() == 2 * out.len() && out.len() == count * BLOCK_ROWS,
        "shapes don't fit"
    );
    // Two registers of it at a time.
    #[cfg(target_arch = "x86_64")]
    let wide = block_bytes.is_multiple_of(128);
    for (number, (factors, out)) in
        factors.as_chunks::<{ 2 * BLOCK_ROWS }>().0.iter().zip(out.as_chunks_mut::<BLOCK_ROWS>().0).enumerate()
    {
        let block = &blocks[number * block_bytes..][..block_bytes];
        #[cfg(target_arch = "x86_64")]
        if wide && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
            // SAFETY: AVX-512 with bytes is there.
            unsafe { avx512::block(block, factors, table, base, out) };
            continue;
        }
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: AVX2 and FMA are there.
            unsafe { avx2::block(block, factors, table, base, out) };
            continue;
        }
        block_plain(block, factors, table, base, out);
    }
}

/// Brings the beginning of blocks that are scanned next into the cache.
pub fn expect(blocks: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in blocks[..blocks.len().min(EXPECTED)].chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every processor of this kind has the instruction, and it may be given any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = blocks;
}

/// The estimates of one block in plain code: the oracle, and the way on processors without a better one.
fn block_plain(
    block: &[u8],
    factors: &[f32; 2 * BLOCK_ROWS],
    table: &SignTable,
    base: f32,
    out: &mut [f32; BLOCK_ROWS],
) {
    let mut sums = [0u16; BLOCK_ROWS];
    let tables = table.entries.as_chunks::<32>().0;
    for (bytes, table) in block.as_chunks::<BLOCK_ROWS>().0.iter().zip(tables) {
        for (sum, byte) in sums.iter_mut().zip(bytes) {
            let (low, high) = (usize::from(byte & 15), usize::from(byte >> 4));
            *sum += u16::from(table[low]) + u16::from(table[16 + high]);
        }
    }
    for row in 0..BLOCK_ROWS {
        let product = table.step * f32::from(sums[row]) + table.least;
        out[row] = base + factors[BLOCK_ROWS + row] + factors[row] * product;
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch, _mm256_add_epi8, _mm256_add_epi16, _mm256_add_ps,
        _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_castsi256_si128, _mm256_cvtepi32_ps,
        _mm256_cvtepu16_epi32, _mm256_extracti128_si256, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256,
        _mm256_set1_epi8, _mm256_set1_ps, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi16,
        _mm256_srli_epi16, _mm256_storeu_ps, _mm256_sub_epi16, _mm256_unpackhi_epi16, _mm256_unpacklo_epi16,
    };

    use super::{BLOCK_ROWS, SignTable};

    /// Bytes ahead of a scan that are asked for: the processor's own prefetching begins anew in each page.
    const AHEAD: usize = 4096;

    /// As [`super::block_plain`], but for the order of the last two additions.
    ///
    /// # Safety
    /// The processor has AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn block(
        block: &[u8],
        factors: &[f32; 2 * BLOCK_ROWS],
        table: &SignTable,
        base: f32,
        out: &mut [f32; BLOCK_ROWS],
    ) {
        let nibble = _mm256_set1_epi8(15);
        // Bytes of even rows, with what the odd rows' bytes above them carry, and those of odd rows.
        let (mut both, mut odd) = (_mm256_setzero_si256(), _mm256_setzero_si256());
        let (bytes, tables) = (block.as_chunks::<{ 2 * BLOCK_ROWS }>().0, table.entries.as_chunks::<64>().0);
        for (bytes, tables) in bytes.iter().zip(tables) {
            _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(AHEAD).cast());
            let look_up = |at: usize| -> __m256i {
                // SAFETY: thirty-two of sixty-four bytes, and two of four tables of sixteen.
                let (bytes, low, high) = unsafe {
                    (
                        _mm256_loadu_si256(bytes.as_ptr().add(at * 32).cast()),
                        _mm_loadu_si128(tables.as_ptr().add(at * 32).cast()),
                        _mm_loadu_si128(tables.as_ptr().add(at * 32 + 16).cast()),
                    )
                };
                let (low, high) = (_mm256_broadcastsi128_si256(low), _mm256_broadcastsi128_si256(high));
                _mm256_add_epi8(
                    _mm256_shuffle_epi8(low, _mm256_and_si256(bytes, nibble)),
                    _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble)),
                )
            };
            // At most four times 63.
            let sum = _mm256_add_epi8(look_up(0), look_up(1));
            both = _mm256_add_epi16(both, sum);
            odd = _mm256_add_epi16(odd, _mm256_srli_epi16::<8>(sum));
        }
        let even = _mm256_sub_epi16(both, _mm256_slli_epi16::<8>(odd));
        let (low, high) = (_mm256_unpacklo_epi16(even, odd), _mm256_unpackhi_epi16(even, odd));
        let eights = [
            _mm256_castsi256_si128(low),
            _mm256_castsi256_si128(high),
            _mm256_extracti128_si256::<1>(low),
            _mm256_extracti128_si256::<1>(high),
        ];
        let (step, least, base) = (_mm256_set1_ps(table.step), _mm256_set1_ps(table.least), _mm256_set1_ps(base));
        for (number, sums) in eights.into_iter().enumerate() {
            let product = _mm256_fmadd_ps(step, _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(sums)), least);
            // SAFETY: eight of the block's factors, shifts and places, of thirty-two each.
            unsafe {
                let factor = _mm256_loadu_ps(factors.as_ptr().add(number * 8));
                let shift = _mm256_loadu_ps(factors.as_ptr().add(BLOCK_ROWS + number * 8));
                let estimate = _mm256_fmadd_ps(factor, product, _mm256_add_ps(base, shift));
                _mm256_storeu_ps(out.as_mut_ptr().add(number * 8), estimate);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m256i, __m512i, _MM_HINT_T0, _mm_prefetch, _mm256_add_epi16, _mm256_permute2x128_si256, _mm256_slli_epi16,
        _mm256_sub_epi16, _mm256_unpackhi_epi16, _mm256_unpacklo_epi16, _mm512_add_epi8, _mm512_add_epi16,
        _mm512_add_ps, _mm512_and_si512, _mm512_castsi512_si256, _mm512_cvtepi32_ps, _mm512_cvtepu16_epi32,
        _mm512_extracti64x4_epi64, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi8,
        _mm512_set1_ps, _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_shuffle_i64x2, _mm512_srli_epi16,
        _mm512_storeu_ps,
    };

    use super::{BLOCK_ROWS, SignTable};

    /// As of the narrower kernel.
    const AHEAD: usize = 4096;

    /// As [`super::block_plain`], but for the order of the last two additions.
    ///
    /// # Safety
    /// The processor has AVX-512 with bytes, and the block is of whole runs of 128 bytes.
    #[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
    pub(super) unsafe fn block(
        block: &[u8],
        factors: &[f32; 2 * BLOCK_ROWS],
        table: &SignTable,
        base: f32,
        out: &mut [f32; BLOCK_ROWS],
    ) {
        let nibble = _mm512_set1_epi8(15);
        let (mut both, mut odd) = (_mm512_setzero_si512(), _mm512_setzero_si512());
        let (bytes, tables) = (block.as_chunks::<128>().0, table.entries.as_chunks::<128>().0);
        for (bytes, tables) in bytes.iter().zip(tables) {
            _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(AHEAD).cast());
            _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(AHEAD + 64).cast());
            // Two bytes of each of the thirty-two rows, and the four tables that go with them.
            let look_up = |at: usize| -> __m512i {
                // SAFETY: sixty-four of 128 bytes.
                let (bytes, tables) = unsafe {
                    (
                        _mm512_loadu_si512(bytes.as_ptr().add(at * 64).cast()),
                        _mm512_loadu_si512(tables.as_ptr().add(at * 64).cast()),
                    )
                };
                let low = _mm512_shuffle_i64x2::<0b10_10_00_00>(tables, tables);
                let high = _mm512_shuffle_i64x2::<0b11_11_01_01>(tables, tables);
                _mm512_add_epi8(
                    _mm512_shuffle_epi8(low, _mm512_and_si512(bytes, nibble)),
                    _mm512_shuffle_epi8(high, _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), nibble)),
                )
            };
            // At most four times 63.
            let sum = _mm512_add_epi8(look_up(0), look_up(1));
            both = _mm512_add_epi16(both, sum);
            odd = _mm512_add_epi16(odd, _mm512_srli_epi16::<8>(sum));
        }
        let folded = |x: __m512i| _mm256_add_epi16(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64::<1>(x));
        let (both, odd) = (folded(both), folded(odd));
        let even = _mm256_sub_epi16(both, _mm256_slli_epi16::<8>(odd));
        let (low, high) = (_mm256_unpacklo_epi16(even, odd), _mm256_unpackhi_epi16(even, odd));
        let sixteens: [__m256i; 2] =
            [_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high)];
        let (step, least, base) = (_mm512_set1_ps(table.step), _mm512_set1_ps(table.least), _mm512_set1_ps(base));
        for (number, sums) in sixteens.into_iter().enumerate() {
            let product = _mm512_fmadd_ps(step, _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(sums)), least);
            // SAFETY: sixteen of the block's factors, shifts and places, of thirty-two each.
            unsafe {
                let factor = _mm512_loadu_ps(factors.as_ptr().add(number * 16));
                let shift = _mm512_loadu_ps(factors.as_ptr().add(BLOCK_ROWS + number * 16));
                let estimate = _mm512_fmadd_ps(factor, product, _mm512_add_ps(base, shift));
                _mm512_storeu_ps(out.as_mut_ptr().add(number * 16), estimate);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distance::{dot, norm};
    use crate::testing::{close, numbers};

    #[test]
    fn rotations_keep_lengths_and_angles_and_spread_values() {
        for inputs in [1, 2, 15, 100, 255, 256, 257, 400, 512, 513, 768, 1000] {
            let rotation = Rotation::new(inputs, 9);
            let (a, b) = (numbers(inputs, 1), numbers(inputs, 2));
            let (mut ra, mut rb) = (vec![0.0; rotation.outputs()], vec![0.0; rotation.outputs()]);
            rotation.apply(&a, &mut ra);
            rotation.apply(&b, &mut rb);
            let scale = norm(&a) * norm(&b);
            assert!((dot(&a, &b) - dot(&ra, &rb)).abs() < 1e-5 * scale, "{inputs}");
            assert!((norm(&a) - norm(&ra)).abs() < 1e-5 * norm(&a), "{inputs}");
            // A vector along one axis is spread: no rotated value holds much of it.
            let mut axis = vec![0.0; inputs];
            axis[inputs / 2] = 1.0;
            rotation.apply(&axis, &mut ra);
            let most = ra.iter().fold(0f32, |most, x| most.max(x.abs()));
            assert!(most < 6.0 / (rotation.outputs() as f32).sqrt(), "{inputs}: {most}");
        }
        let rotated = |seed| {
            let rotation = Rotation::new(32, seed);
            let mut out = vec![0.0; rotation.outputs()];
            rotation.apply(&[1.0; 32], &mut out);
            out
        };
        assert_ne!(rotated(1), rotated(2));
    }

    struct Case {
        rows: Vec<Vec<u8>>,
        blocks: Vec<u8>,
        factors: Vec<f32>,
        query: Vec<f32>,
    }

    fn case(length: usize, count: usize, seed: u64) -> Case {
        let rows: Vec<Vec<u8>> = (0..count * BLOCK_ROWS)
            .map(|row| {
                let mut bits = vec![0; length / 8];
                signs(&numbers(length, seed + row as u64), &mut bits);
                bits
            })
            .collect();
        let mut blocks = Vec::new();
        for block in rows.chunks(BLOCK_ROWS) {
            (0..length / 8).for_each(|j| blocks.extend(block.iter().map(|row| row[j])));
        }
        Case { rows, blocks, factors: numbers(2 * count * BLOCK_ROWS, seed), query: numbers(length, seed + 999) }
    }

    #[test]
    fn estimates_equal_the_formula_within_the_tables_rounding() {
        for (length, count) in [(16, 1), (32, 2), (48, 3), (512, 2), (784, 1), (4096, 1), (8192, 1)] {
            let Case { rows, blocks, factors, query } = case(length, count, length as u64);
            let mut table = SignTable::default();
            table.set(&query);
            let mut found = vec![f32::NAN; count * BLOCK_ROWS];
            scan_signs(&blocks, &factors, &table, 0.25, &mut found);
            for (row, found) in found.iter().enumerate() {
                let signed = query
                    .iter()
                    .enumerate()
                    .map(|(i, x)| if rows[row][i / 8] >> (i % 8) & 1 == 1 { f64::from(*x) } else { -f64::from(*x) });
                let at = row / BLOCK_ROWS * 2 * BLOCK_ROWS + row % BLOCK_ROWS;
                let (factor, shift) = (f64::from(factors[at]), f64::from(factors[at + BLOCK_ROWS]));
                let expected = 0.25 + shift + factor * signed.sum::<f64>();
                // Half a step for each four values, at the worst.
                let bound = factor.abs() * f64::from(table.step) * 0.501 * (length / 4) as f64 + 1e-4;
                assert!((f64::from(*found) - expected).abs() <= bound, "{length} row {row}: {found} not {expected}");
            }
        }
    }

    #[test]
    fn vector_and_plain_code_agree() {
        for (length, extreme) in [(16, false), (16, true), (528, false), (4096, true), (8192, true)] {
            let Case { mut blocks, factors, query, .. } = case(length, 3, 5);
            if extreme {
                blocks.fill(u8::MAX);
            }
            let query: Vec<f32> = if extreme { vec![1.5; length] } else { query };
            let mut table = SignTable::default();
            table.set(&query);
            let mut found = vec![f32::NAN; 3 * BLOCK_ROWS];
            scan_signs(&blocks, &factors, &table, -3.0, &mut found);
            let mut expected = [f32::NAN; BLOCK_ROWS];
            for block in 0..3 {
                let bytes = &blocks[block * length * 4..][..length * 4];
                let factors = &factors.as_chunks().0[block];
                block_plain(bytes, factors, &table, -3.0, &mut expected);
                let expected: Vec<f64> = expected.iter().map(|x| f64::from(*x)).collect();
                // Products are differences of numbers as large as the least one.
                close(&found[block * BLOCK_ROWS..][..BLOCK_ROWS], &expected, 1e-6 * f64::from(1.0 - table.least));
            }
        }
    }

    #[test]
    fn a_query_without_values_has_no_product() {
        let mut table = SignTable::default();
        for query in [[0.0; 16], [f32::INFINITY; 16], [f32::NAN; 16]] {
            table.set(&query);
            let mut out = [f32::NAN; BLOCK_ROWS];
            scan_signs(&[0xA5; 64], &[1.0; 64], &table, 2.0, &mut out);
            assert_eq!(out, [3.0; BLOCK_ROWS], "{query:?}");
        }
    }
}
