//! Convolution of rows of 8-bit samples with fixed-point weights, along the rows and down the columns: the two passes of
//! a resizer.
//!
//! All arithmetic is modulo 2^32, so every road gives the same bytes, whatever the weights. AVX2 has no cheap 32-bit
//! product; there a weight w is split into `high * 2^15 + low`, both 16-bit numbers, and the samples are multiplied with
//! each half and added up in pairs, which is one instruction each.

/// Fraction bits of the weights.
pub const FRACTION_BITS: u32 = 22;

const HALF: i32 = 1 << (FRACTION_BITS - 1);

/// Samples accumulated together by [`scalar::vertical`], small enough to stay in the first-level cache.
const STRIP: usize = 1024;

/// For each output position along an axis: the input positions it depends on, a run of neighbours, and their weights.
#[derive(Debug, Clone, Default)]
pub struct Windows {
    starts: Vec<usize>,
    /// End of each window in `weights`.
    ends: Vec<usize>,
    weights: Vec<i32>,
    /// One past the last input position of any window.
    reach: usize,
}

impl Windows {
    /// Adds the window of the next output position, which begins at the input position `start`. Weights have
    /// [`FRACTION_BITS`].
    pub fn push(&mut self, start: usize, weights: impl IntoIterator<Item = i32>) {
        self.weights.extend(weights);
        self.starts.push(start);
        let count = self.weights.len() - self.ends.last().copied().unwrap_or(0);
        self.ends.push(self.weights.len());
        self.reach = self.reach.max(start + count);
    }

    /// Number of output positions.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is no output position.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The first input position and the weights of each output position.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let mut begin = 0;
        self.starts.iter().zip(&self.ends).map(move |(start, end)| {
            let weights = &self.weights[begin..*end];
            begin = *end;
            (*start, weights)
        })
    }
}

/// Rows of 8-bit samples at equal distances in memory.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    data: &'a [u8],
    stride: usize,
    bytes: usize,
    count: usize,
}

impl<'a> Rows<'a> {
    /// `count` rows of `bytes` bytes, each starting `stride` bytes after the one before.
    ///
    /// # Panics
    /// When the rows reach past the end of `data`.
    pub fn new(data: &'a [u8], stride: usize, bytes: usize, count: usize) -> Self {
        let needed = count.checked_sub(1).map_or(Some(0), |gaps| gaps.checked_mul(stride)?.checked_add(bytes));
        assert!(needed.is_some_and(|needed| needed <= data.len()), "rows reach past the end of {} bytes", data.len());
        Self { data, stride, bytes, count }
    }

    /// The rows from the top.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        let rows = *self;
        (0..self.count).map(move |index| rows.row(index))
    }

    fn row(&self, index: usize) -> &'a [u8] {
        &self.data[index * self.stride..][..self.bytes]
    }
}

/// Convolves every row along itself: pixels of `channels` interleaved samples, 1 to 4. The result has `windows.len()`
/// pixels a row.
///
/// # Panics
/// When a window reaches past the end of a row, or with another number of channels.
pub fn horizontal(rows: &Rows<'_>, channels: usize, windows: &Windows) -> Vec<u8> {
    match channels {
        1 => convolve_rows::<1>(rows, windows),
        2 => convolve_rows::<2>(rows, windows),
        3 => convolve_rows::<3>(rows, windows),
        4 => convolve_rows::<4>(rows, windows),
        other => panic!("pixels of {other} channels, only 1 to 4 are convolved"),
    }
}

fn convolve_rows<const C: usize>(rows: &Rows<'_>, windows: &Windows) -> Vec<u8> {
    assert!(windows.reach <= rows.bytes / C, "windows reach to {}, rows have {} bytes", windows.reach, rows.bytes);
    let mut output = vec![0; rows.count * windows.len() * C];
    #[cfg(target_arch = "x86_64")]
    if avx2::horizontal::<C>(rows, windows, &mut output) {
        return output;
    }
    scalar::horizontal::<C>(rows, windows, &mut output);
    output
}

/// Convolves every column. The result has `windows.len()` rows of as many bytes as the input's.
///
/// # Panics
/// When a window reaches past the last row.
pub fn vertical(rows: &Rows<'_>, windows: &Windows) -> Vec<u8> {
    assert!(windows.reach <= rows.count, "windows reach to {}, there are {} rows", windows.reach, rows.count);
    let mut output = vec![0; windows.len() * rows.bytes];
    #[cfg(target_arch = "x86_64")]
    if avx2::vertical(rows, windows, &mut output) {
        return output;
    }
    scalar::vertical(rows, windows, &mut output);
    output
}

/// The plain statement of both passes: the oracle, and the road of processors without AVX2.
mod scalar {
    use super::{FRACTION_BITS, HALF, Rows, STRIP, Windows};

    fn clip(sum: i32) -> u8 {
        (sum >> FRACTION_BITS).clamp(0, 255) as u8
    }

    /// The output pixel of one window over one row.
    pub(super) fn pixel<const C: usize>(row: &[u8], start: usize, weights: &[i32]) -> [u8; C] {
        let mut sums = [HALF; C];
        for (pixel, weight) in row.as_chunks::<C>().0[start..].iter().zip(weights) {
            for (sum, value) in sums.iter_mut().zip(pixel) {
                *sum = sum.wrapping_add(i32::from(*value).wrapping_mul(*weight));
            }
        }
        sums.map(clip)
    }

    pub(super) fn horizontal<const C: usize>(rows: &Rows<'_>, windows: &Windows, output: &mut [u8]) {
        let mut targets = output.as_chunks_mut::<C>().0.iter_mut();
        for row in rows.iter() {
            for ((start, weights), target) in windows.iter().zip(&mut targets) {
                *target = pixel(row, start, weights);
            }
        }
    }

    /// The output row of one window.
    pub(super) fn line(rows: &Rows<'_>, start: usize, weights: &[i32], output: &mut [u8]) {
        let mut sums = [0i32; STRIP];
        for (strip, target) in output.chunks_mut(STRIP).enumerate() {
            let sums = &mut sums[..target.len()];
            sums.fill(HALF);
            for (offset, weight) in weights.iter().enumerate() {
                let row = &rows.row(start + offset)[strip * STRIP..];
                for (sum, value) in sums.iter_mut().zip(row) {
                    *sum = sum.wrapping_add(i32::from(*value).wrapping_mul(*weight));
                }
            }
            for (value, sum) in target.iter_mut().zip(sums) {
                *value = clip(*sum);
            }
        }
    }

    pub(super) fn vertical(rows: &Rows<'_>, windows: &Windows, output: &mut [u8]) {
        for ((start, weights), target) in windows.iter().zip(output.chunks_exact_mut(rows.bytes.max(1))) {
            line(rows, start, weights, target);
        }
    }
}

/// Both passes with AVX2.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{FRACTION_BITS, HALF, Rows, Windows, scalar};

    /// Bits of the low half of a weight.
    const LOW_BITS: i32 = 15;
    /// Rows that go through a window together, so that its weights are loaded once for all.
    const TOGETHER: usize = 4;
    /// Rows that take their turns at one window, so that its weights stay in the first-level cache.
    const BAND: usize = 16;
    /// Bytes that one load takes from a row.
    const LOAD: usize = 16;
    /// Columns in bytes that the vertical pass keeps in registers.
    const BLOCK: usize = 32;

    /// The halves of a weight; `None` if the high one isn't a 16-bit number.
    fn split(weight: i32) -> Option<(i16, i16)> {
        let low = weight & ((1 << LOW_BITS) - 1);
        Some((i16::try_from(weight >> LOW_BITS).ok()?, low as i16))
    }

    /// Where the samples of a group of pixels go: lane pair j of a register holds channel j % K of the pixels
    /// 2 * (j / K) and 2 * (j / K) + 1, K being C rounded up to a power of two.
    struct Layout<const C: usize>;

    impl<const C: usize> Layout<C> {
        /// Lane pairs that belong to one pair of pixels.
        const PERIOD: usize = C.next_power_of_two();
        /// Pixels of a group.
        const PIXELS: usize = 16 / Self::PERIOD;

        /// The 16-bit lanes that hold a pixel of the group, one for each channel.
        fn lanes(pixel: usize) -> impl Iterator<Item = usize> {
            let first = pixel / 2 * 2 * Self::PERIOD + pixel % 2;
            (0..Self::PERIOD).map(move |channel| first + 2 * channel)
        }

        /// Byte shuffle from 16 loaded bytes to zero-extended 16-bit lanes.
        fn shuffle() -> [u8; 32] {
            let mut shuffle = [0x80; 32];
            for pixel in 0..Self::PIXELS {
                for (channel, lane) in Self::lanes(pixel).enumerate().take(C) {
                    shuffle[2 * lane] = (pixel * C + channel) as u8;
                }
            }
            shuffle
        }
    }

    /// The weights of a group of pixels, in the order of [`Layout`].
    #[derive(Clone, Copy)]
    #[repr(align(32))]
    struct Group {
        high: [i16; 16],
        low: [i16; 16],
    }

    /// A window whose first pixel is moved to the left where the loads would pass the end of the row.
    struct Placed {
        /// First byte that is loaded.
        at: usize,
        /// Number of groups; 0 if rows are too short for this window.
        groups: usize,
    }

    /// Windows for the horizontal pass over rows of one length.
    struct Taps {
        placed: Vec<Placed>,
        groups: Vec<Group>,
    }

    /// First pixel and number of groups of the window that starts at pixel `start`, in rows of `bytes` bytes.
    fn place<const C: usize>(start: usize, taps: usize, bytes: usize) -> Option<(usize, usize)> {
        let mut groups = taps.div_ceil(Layout::<C>::PIXELS).max(1);
        loop {
            let loaded = (groups - 1) * Layout::<C>::PIXELS * C + LOAD;
            let first = start.min(bytes.checked_sub(loaded)? / C);
            if first + groups * Layout::<C>::PIXELS >= start + taps {
                return Some((first, groups));
            }
            groups += 1;
        }
    }

    impl Taps {
        /// `None` if a weight is too large to be split.
        fn new<const C: usize>(windows: &Windows, bytes: usize) -> Option<Self> {
            let mut taps = Self { placed: Vec::with_capacity(windows.len()), groups: Vec::new() };
            for (start, weights) in windows.iter() {
                let Some((first, groups)) = place::<C>(start, weights.len(), bytes) else {
                    taps.placed.push(Placed { at: 0, groups: 0 });
                    continue;
                };
                for group in 0..groups {
                    let mut packed = Group { high: [0; 16], low: [0; 16] };
                    for offset in 0..Layout::<C>::PIXELS {
                        let pixel = first + group * Layout::<C>::PIXELS + offset;
                        let weight = pixel.checked_sub(start).and_then(|tap| weights.get(tap)).copied().unwrap_or(0);
                        let (high, low) = split(weight)?;
                        for lane in Layout::<C>::lanes(offset) {
                            (packed.high[lane], packed.low[lane]) = (high, low);
                        }
                    }
                    taps.groups.push(packed);
                }
                taps.placed.push(Placed { at: first * C, groups });
            }
            Some(taps)
        }
    }

    /// Fills `output` and returns true, or returns false if this road can't be taken.
    pub(super) fn horizontal<const C: usize>(rows: &Rows<'_>, windows: &Windows, output: &mut [u8]) -> bool {
        if !is_x86_feature_detected!("avx2") || windows.is_empty() {
            return false;
        }
        let Some(taps) = Taps::new::<C>(windows, rows.bytes) else {
            return false;
        };
        let width = windows.len() * C;
        for (index, band) in output.chunks_mut(width * BAND).enumerate() {
            // SAFETY: the processor has AVX2, as was just asked.
            unsafe { convolve_band::<C>(rows, index * BAND, windows, &taps, band) };
        }
        true
    }

    /// Convolves the rows from `first` on, as many as `output` has room for.
    #[target_feature(enable = "avx2")]
    fn convolve_band<const C: usize>(rows: &Rows<'_>, first: usize, windows: &Windows, taps: &Taps, output: &mut [u8]) {
        let width = windows.len() * C;
        let count = output.len() / width;
        let shuffle = load_256(&Layout::<C>::shuffle());
        let mut rest = taps.groups.as_slice();
        for (index, (placed, (start, weights))) in taps.placed.iter().zip(windows.iter()).enumerate() {
            let mut put = |row: usize, pixel: [u8; C]| output[row * width + index * C..][..C].copy_from_slice(&pixel);
            let groups;
            (groups, rest) = rest.split_at(placed.groups);
            if groups.is_empty() {
                (0..count).for_each(|row| put(row, scalar::pixel(rows.row(first + row), start, weights)));
                continue;
            }
            let length = (groups.len() - 1) * Layout::<C>::PIXELS * C + LOAD;
            let source = |row: usize| &rows.row(first + row)[placed.at..][..length];
            let together = count - count % TOGETHER;
            for row in (0..together).step_by(TOGETHER) {
                let sources = [source(row), source(row + 1), source(row + 2), source(row + 3)];
                let pixels = convolve_window::<C, TOGETHER>(sources, groups, shuffle);
                (0..TOGETHER).for_each(|offset| put(row + offset, pixels[offset]));
            }
            for row in together..count {
                let [pixel] = convolve_window::<C, 1>([source(row)], groups, shuffle);
                put(row, pixel);
            }
        }
    }

    /// The output pixels of one window over `R` rows. Each source has the bytes that the groups load.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn convolve_window<const C: usize, const R: usize>(
        sources: [&[u8]; R],
        groups: &[Group],
        shuffle: __m256i,
    ) -> [[u8; C]; R] {
        let step = Layout::<C>::PIXELS * C;
        let length = (groups.len() - 1) * step + LOAD;
        assert!(sources.iter().all(|source| source.len() == length), "the groups load {length} bytes");
        let mut high = [_mm256_setzero_si256(); R];
        let mut low = [_mm256_setzero_si256(); R];
        for (position, group) in groups.iter().enumerate() {
            let (high_weights, low_weights) = (load_lanes(&group.high), load_lanes(&group.low));
            for row in 0..R {
                // SAFETY: `position` is below the number of groups, so the 16 bytes end at `length` at the latest, and
                // every source was found to be that long.
                let bytes = unsafe { _mm_loadu_si128(sources[row].as_ptr().add(position * step).cast()) };
                let samples = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(bytes), shuffle);
                high[row] = _mm256_add_epi32(high[row], _mm256_madd_epi16(samples, high_weights));
                low[row] = _mm256_add_epi32(low[row], _mm256_madd_epi16(samples, low_weights));
            }
        }
        std::array::from_fn(|row| finish(high[row], low[row]))
    }

    /// Adds up what belongs to each channel, rounds and clips.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn finish<const C: usize>(high: __m256i, low: __m256i) -> [u8; C] {
        let sums = _mm256_add_epi32(_mm256_slli_epi32::<LOW_BITS>(high), low);
        let mut sums = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
        if Layout::<C>::PERIOD <= 2 {
            sums = _mm_add_epi32(sums, _mm_shuffle_epi32::<0b01_00_11_10>(sums));
        }
        if Layout::<C>::PERIOD == 1 {
            sums = _mm_add_epi32(sums, _mm_shuffle_epi32::<0b10_11_00_01>(sums));
        }
        let values = _mm_srai_epi32::<{ FRACTION_BITS as i32 }>(_mm_add_epi32(sums, _mm_set1_epi32(HALF)));
        let words = _mm_packs_epi32(values, values);
        let bytes = _mm_cvtsi128_si32(_mm_packus_epi16(words, words)).to_le_bytes();
        std::array::from_fn(|channel| bytes[channel])
    }

    #[target_feature(enable = "avx2")]
    fn load_256(bytes: &[u8; 32]) -> __m256i {
        // SAFETY: the reference is to 32 bytes, and the load asks for no alignment.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx2")]
    fn load_lanes(lanes: &[i16; 16]) -> __m256i {
        // SAFETY: the reference is to 16 numbers of 2 bytes, and the load asks for no alignment.
        unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
    }

    /// The halves of two weights as they stand beside two interleaved rows: high in the first number, low in the second.
    fn pairs(weights: &[i32]) -> Option<Vec<[i32; 2]>> {
        let pack = |first: i16, second: i16| i32::from(first) & 0xffff | i32::from(second) << 16;
        let packed = weights.chunks(2).map(|pair| {
            let (high, low) = split(pair[0])?;
            let (next_high, next_low) = split(pair.get(1).copied().unwrap_or(0))?;
            Some([pack(high, next_high), pack(low, next_low)])
        });
        packed.collect()
    }

    /// Fills `output` and returns true, or returns false if this road can't be taken.
    pub(super) fn vertical(rows: &Rows<'_>, windows: &Windows, output: &mut [u8]) -> bool {
        if !is_x86_feature_detected!("avx2") || rows.bytes < BLOCK {
            return false;
        }
        for ((start, weights), target) in windows.iter().zip(output.chunks_exact_mut(rows.bytes)) {
            match pairs(weights) {
                // SAFETY: the processor has AVX2, as was just asked.
                Some(pairs) => unsafe { convolve_columns(rows, start, weights.len(), &pairs, target) },
                None => scalar::line(rows, start, weights, target),
            }
        }
        true
    }

    /// One output row of the vertical pass, at least [`BLOCK`] bytes. `pairs` are the weights of `taps` rows from `start`.
    #[target_feature(enable = "avx2")]
    fn convolve_columns(rows: &Rows<'_>, start: usize, taps: usize, pairs: &[[i32; 2]], output: &mut [u8]) {
        let last = output.len() - BLOCK;
        // The last block overlaps the one before where the width is no multiple of the block.
        for left in (0..last).step_by(BLOCK).chain([last]) {
            let mut high = [_mm256_setzero_si256(); 4];
            let mut low = [_mm256_setzero_si256(); 4];
            for (pair, [high_weights, low_weights]) in pairs.iter().enumerate() {
                let first = &rows.row(start + 2 * pair)[left..];
                // An odd last row is paired with itself; the second weight is 0.
                let second = &rows.row(start + (2 * pair + 1).min(taps - 1))[left..];
                let (first, second) = (&first[..BLOCK], &second[..BLOCK]);
                let (high_weights, low_weights) = (_mm256_set1_epi32(*high_weights), _mm256_set1_epi32(*low_weights));
                for half in 0..2 {
                    let (first, second) = (load_half(first, half), load_half(second, half));
                    let mixed = [_mm_unpacklo_epi8(first, second), _mm_unpackhi_epi8(first, second)];
                    for (quarter, mixed) in mixed.into_iter().enumerate() {
                        let samples = _mm256_cvtepu8_epi16(mixed);
                        let at = 2 * half + quarter;
                        high[at] = _mm256_add_epi32(high[at], _mm256_madd_epi16(samples, high_weights));
                        low[at] = _mm256_add_epi32(low[at], _mm256_madd_epi16(samples, low_weights));
                    }
                }
            }
            store_block(high, low, (&mut output[left..][..BLOCK]).try_into().expect("a slice of this length"));
        }
    }

    /// Bytes 0 to 15 or 16 to 31.
    #[target_feature(enable = "avx2")]
    fn load_half(block: &[u8], half: usize) -> __m128i {
        let bytes: &[u8] = &block[half * LOAD..][..LOAD];
        // SAFETY: the slice has 16 bytes, and the load asks for no alignment.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }

    /// Rounds, clips and stores four times eight sums.
    #[target_feature(enable = "avx2")]
    fn store_block(high: [__m256i; 4], low: [__m256i; 4], output: &mut [u8; BLOCK]) {
        let half = _mm256_set1_epi32(HALF);
        let value = |at: usize| {
            let sum = _mm256_add_epi32(_mm256_slli_epi32::<LOW_BITS>(high[at]), low[at]);
            _mm256_srai_epi32::<{ FRACTION_BITS as i32 }>(_mm256_add_epi32(sum, half))
        };
        let words = [_mm256_packs_epi32(value(0), value(1)), _mm256_packs_epi32(value(2), value(3))];
        // Packing works in each 128-bit half: dwords come out as 0-3 of the four sums, then 4-7 of them.
        let bytes = _mm256_packus_epi16(words[0], words[1]);
        let bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        // SAFETY: the reference is to 32 bytes, and the store asks for no alignment.
        unsafe { _mm256_storeu_si256(output.as_mut_ptr().cast(), bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn below(&mut self, limit: usize) -> usize {
            (self.next() >> 11) as usize % limit
        }

        fn bytes(&mut self, count: usize) -> Vec<u8> {
            match self.below(5) {
                0 => vec![0; count],
                1 => vec![255; count],
                2 => (0..count).map(|_| if self.below(2) == 0 { 0 } else { 255 }).collect(),
                _ => (0..count).map(|_| (self.next() >> 32) as u8).collect(),
            }
        }

        /// Windows over an axis of `length` positions.
        fn windows(&mut self, length: usize, most_taps: usize) -> Windows {
            let mut windows = Windows::default();
            let kind = self.below(4);
            for _ in 0..self.below(12) {
                let taps = self.below(most_taps.min(length) + 1);
                let start = self.below(length - taps + 1);
                let weights: Vec<i32> = (0..taps)
                    .map(|_| match kind {
                        // About as a resizer's: they add up to one, some are negative.
                        0 => (self.next() as i32 >> 9) / (taps as i32),
                        1 => self.next() as i32 >> 3,
                        2 => [1 << 22, -(1 << 22), (1 << 30) - 1, -(1 << 30), 32767, 32768, -1, 0][self.below(8)],
                        _ => self.next() as i32,
                    })
                    .collect();
                windows.push(start, weights);
            }
            windows
        }
    }

    /// Both passes in the plainest way there is.
    fn expected(sample: impl Fn(usize) -> u8, (start, weights): (usize, &[i32])) -> u8 {
        let terms = weights.iter().enumerate().map(|(tap, weight)| i64::from(*weight) * i64::from(sample(start + tap)));
        // Modulo 2^32, as the contract says.
        let sum = (terms.sum::<i64>() + i64::from(HALF)) as i32;
        (sum >> FRACTION_BITS).clamp(0, 255) as u8
    }

    fn check_horizontal<const C: usize>(numbers: &mut Numbers, width: usize, most_taps: usize) {
        let windows = numbers.windows(width, most_taps);
        let (count, stride) = (numbers.below(11), width * C + numbers.below(9));
        let data = numbers.bytes(count * stride);
        let rows = Rows::new(&data, stride, width * C, count);
        let actual = horizontal(&rows, C, &windows);
        let mut plain = vec![0; actual.len()];
        scalar::horizontal::<C>(&rows, &windows, &mut plain);
        assert_eq!(actual, plain, "{C} channels, rows of {width}, {windows:?}");
        let mut slow = Vec::new();
        for row in rows.iter() {
            for window in windows.iter() {
                slow.extend((0..C).map(|channel| expected(|at| row[at * C + channel], window)));
            }
        }
        assert_eq!(actual, slow, "{C} channels, rows of {width}, {windows:?}");
    }

    fn check_vertical(numbers: &mut Numbers, bytes: usize, count: usize) {
        let windows = numbers.windows(count, 70);
        let stride = bytes + numbers.below(9);
        let data = numbers.bytes(count * stride);
        let rows = Rows::new(&data, stride, bytes, count);
        let actual = vertical(&rows, &windows);
        let mut plain = vec![0; actual.len()];
        scalar::vertical(&rows, &windows, &mut plain);
        assert_eq!(actual, plain, "{count} rows of {bytes} bytes, {windows:?}");
        let slow: Vec<u8> = windows
            .iter()
            .flat_map(|window| (0..bytes).map(move |column| (column, window)))
            .map(|(column, window)| expected(|row| data[row * stride + column], window))
            .collect();
        assert_eq!(actual, slow, "{count} rows of {bytes} bytes, {windows:?}");
    }

    #[test]
    fn every_road_along_rows_gives_the_same_bytes() {
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        for round in 0..4000 {
            // Short rows provoke loads that would pass the end.
            let width = 1 + numbers.below(if round % 4 == 0 { 300 } else { 40 });
            let most_taps = 1 + numbers.below(100);
            check_horizontal::<1>(&mut numbers, width, most_taps);
            check_horizontal::<2>(&mut numbers, width, most_taps);
            check_horizontal::<3>(&mut numbers, width, most_taps);
            check_horizontal::<4>(&mut numbers, width, most_taps);
        }
    }

    #[test]
    fn every_road_down_columns_gives_the_same_bytes() {
        let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
        for round in 0..3000 {
            let bytes = if round % 10 == 0 { 1000 + numbers.below(1200) } else { 1 + numbers.below(130) };
            let count = 1 + numbers.below(90);
            check_vertical(&mut numbers, bytes, count);
        }
    }

    #[test]
    fn thousands_of_taps_add_up_without_loss() {
        let taps = 5000;
        let mut windows = Windows::default();
        windows.push(3, (0..taps).map(|_| (1 << FRACTION_BITS) / taps));
        windows.push(0, (0..taps).map(|tap| if tap % 2 == 0 { 32767 } else { -32768 }));
        for value in [1, 128, 255] {
            let data = vec![value; 40 * 6000];
            let wide = Rows::new(&data, 6000 * 3, 6000 * 3, 2);
            let mut plain = vec![0; 2 * 2 * 3];
            scalar::horizontal::<3>(&wide, &windows, &mut plain);
            assert_eq!(horizontal(&wide, 3, &windows), plain);
            let tall = Rows::new(&data, 40, 40, 6000);
            let mut plain = vec![0; 40 * 2];
            scalar::vertical(&tall, &windows, &mut plain);
            assert_eq!(vertical(&tall, &windows), plain);
        }
    }

    #[test]
    fn nothing_to_do_is_no_error() {
        let none = Windows::default();
        assert!(horizontal(&Rows::new(&[], 0, 0, 0), 3, &none).is_empty());
        assert!(vertical(&Rows::new(&[], 0, 0, 0), &none).is_empty());
        assert!(horizontal(&Rows::new(&[7; 60], 30, 30, 2), 3, &none).is_empty());
        let mut empty = Windows::default();
        empty.push(0, []);
        assert_eq!(horizontal(&Rows::new(&[7; 60], 30, 30, 2), 3, &empty), [0; 6]);
        assert_eq!(vertical(&Rows::new(&[7; 80], 40, 40, 2), &empty), [0; 40]);
    }

    #[test]
    #[should_panic(expected = "windows reach to 11")]
    fn a_window_past_the_end_of_the_rows_is_refused() {
        let mut windows = Windows::default();
        windows.push(8, [1, 2, 3]);
        horizontal(&Rows::new(&[0; 60], 30, 30, 2), 3, &windows);
    }

    #[test]
    #[should_panic(expected = "rows reach past the end")]
    fn rows_past_the_end_of_the_data_are_refused() {
        Rows::new(&[0; 60], 30, 31, 2);
    }
}
