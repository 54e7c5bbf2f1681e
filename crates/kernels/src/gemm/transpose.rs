//! Turning eight rows into columns: how operands that lie along the sum are packed.

/// Writes step `k` of eight rows to `out[k * step..][..8]`, for `length` steps in ascending order. Where `step` is less than eight, the next
/// step overwrites the surplus.
///
/// # Safety
/// Each row is valid for `length` elements, `out` for `(length - 1) * step + 8`.
#[inline]
pub(crate) unsafe fn eight_rows(rows: [*const f32; 8], length: usize, out: *mut f32, step: usize) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx") {
        // SAFETY: AVX is there; the rest is the caller's promise.
        unsafe { avx::eight_rows(rows, length, out, step) };
        return;
    }
    // SAFETY: the caller's promise.
    unsafe { plain(rows, 0..length, out, step) }
}

/// As [`eight_rows`], for some steps, in plain code.
///
/// # Safety
/// As [`eight_rows`].
unsafe fn plain(rows: [*const f32; 8], steps: std::ops::Range<usize>, out: *mut f32, step: usize) {
    for k in steps {
        for (lane, row) in rows.iter().enumerate() {
            // SAFETY: step `k` of the row exists, and eight elements of the result from `k * step`.
            unsafe { *out.add(k * step + lane) = *row.add(k) };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx {
    use std::arch::x86_64::{
        __m256, _mm256_loadu_ps, _mm256_permute2f128_ps, _mm256_shuffle_ps, _mm256_storeu_ps, _mm256_unpackhi_ps,
        _mm256_unpacklo_ps,
    };

    /// As [`super::eight_rows`].
    ///
    /// # Safety
    /// As [`super::eight_rows`], on a processor with AVX.
    #[target_feature(enable = "avx")]
    pub(super) unsafe fn eight_rows(rows: [*const f32; 8], length: usize, out: *mut f32, step: usize) {
        let whole = length - length % 8;
        for k in (0..whole).step_by(8) {
            // SAFETY: steps `k` to `k + 7` exist.
            let square = unsafe { rows.map(|row| _mm256_loadu_ps(row.add(k))) };
            for (at, column) in transposed(square).into_iter().enumerate() {
                // SAFETY: the caller vouches for eight elements from each step's place.
                unsafe { _mm256_storeu_ps(out.add((k + at) * step), column) };
            }
        }
        // SAFETY: the caller's promise.
        unsafe { super::plain(rows, whole..length, out, step) }
    }

    #[target_feature(enable = "avx")]
    #[inline]
    fn transposed(r: [__m256; 8]) -> [__m256; 8] {
        let [p0, p1] = [_mm256_unpacklo_ps(r[0], r[1]), _mm256_unpackhi_ps(r[0], r[1])];
        let [p2, p3] = [_mm256_unpacklo_ps(r[2], r[3]), _mm256_unpackhi_ps(r[2], r[3])];
        let [p4, p5] = [_mm256_unpacklo_ps(r[4], r[5]), _mm256_unpackhi_ps(r[4], r[5])];
        let [p6, p7] = [_mm256_unpacklo_ps(r[6], r[7]), _mm256_unpackhi_ps(r[6], r[7])];
        let [q0, q1] = [_mm256_shuffle_ps::<0x44>(p0, p2), _mm256_shuffle_ps::<0xEE>(p0, p2)];
        let [q2, q3] = [_mm256_shuffle_ps::<0x44>(p1, p3), _mm256_shuffle_ps::<0xEE>(p1, p3)];
        let [q4, q5] = [_mm256_shuffle_ps::<0x44>(p4, p6), _mm256_shuffle_ps::<0xEE>(p4, p6)];
        let [q6, q7] = [_mm256_shuffle_ps::<0x44>(p5, p7), _mm256_shuffle_ps::<0xEE>(p5, p7)];
        [
            _mm256_permute2f128_ps::<0x20>(q0, q4),
            _mm256_permute2f128_ps::<0x20>(q1, q5),
            _mm256_permute2f128_ps::<0x20>(q2, q6),
            _mm256_permute2f128_ps::<0x20>(q3, q7),
            _mm256_permute2f128_ps::<0x31>(q0, q4),
            _mm256_permute2f128_ps::<0x31>(q1, q5),
            _mm256_permute2f128_ps::<0x31>(q2, q6),
            _mm256_permute2f128_ps::<0x31>(q3, q7),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_the_rows() {
        for length in [1, 2, 7, 8, 9, 16, 31] {
            for step in [6, 8, 16] {
                let values: Vec<f32> = (0..8 * length).map(|i| i as f32).collect();
                let rows = std::array::from_fn(|row| values[row * length..].as_ptr());
                let mut out = vec![-1.0; (length - 1) * step + 8];
                // SAFETY: the rows have `length` elements, the result as many as are asked for.
                unsafe { eight_rows(rows, length, out.as_mut_ptr(), step) };
                for k in 0..length {
                    for lane in 0..step.min(8) {
                        assert_eq!(out[k * step + lane], values[lane * length + k]);
                    }
                }
            }
        }
    }
}
