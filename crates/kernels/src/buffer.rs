//! Zeroed memory for numbers, aligned to cache lines and, where large, to huge pages.

use std::marker::PhantomData;

use memmap2::MmapMut;

/// What a huge page is aligned to on the platforms that have them.
const HUGE: usize = 2 << 20;

/// A number that any bytes are a valid value of.
///
/// # Safety
/// Implemented only for types without padding or invalid bit patterns, whose alignment is at most 64.
pub unsafe trait Number: Copy + Send + Sync + 'static {}

// SAFETY: every bit pattern is a value, there is no padding, the alignment is the size.
unsafe impl Number for f32 {}
// SAFETY: as above.
unsafe impl Number for i8 {}
// SAFETY: as above.
unsafe impl Number for u32 {}

/// A fixed number of elements, zero at first.
///
/// Memory comes from the operating system in whole pages, so that it is zero without being written, and it asks for huge
/// pages where it is large: a matrix product that streams weights over small pages spends a tenth of its time on address
/// translation.
pub struct Buffer<T> {
    pages: Option<MmapMut>,
    start: usize,
    length: usize,
    kind: PhantomData<T>,
}

impl<T> std::fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffer").field("length", &self.length).finish_non_exhaustive()
    }
}

impl<T: Number> Buffer<T> {
    /// `length` zeros.
    ///
    /// # Panics
    /// When the system has no memory left, as `Vec` does.
    pub fn zeroed(length: usize) -> Self {
        let Some(bytes) = length.checked_mul(size_of::<T>()) else { panic!("{length} elements don't fit the memory") };
        if bytes == 0 {
            return Self { pages: None, start: 0, length, kind: PhantomData };
        }
        let margin = if bytes >= HUGE { HUGE } else { 0 };
        let pages = match MmapMut::map_anon(bytes + margin) {
            Ok(pages) => pages,
            Err(error) => panic!("no memory for {bytes} bytes: {error}"),
        };
        let start = if margin == 0 { 0 } else { pages.as_ptr().align_offset(HUGE).min(margin) };
        #[cfg(target_os = "linux")]
        if margin > 0 {
            // Whole huge pages only, so that no memory is taken beyond the end. A kernel that knows none is no loss.
            let _ = pages.advise_range(memmap2::Advice::HugePage, start, bytes / HUGE * HUGE);
        }
        Self { pages: Some(pages), start, length, kind: PhantomData }
    }
}

impl<T: Number> std::ops::Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.pages {
            None => &[],
            // SAFETY: `start + length * size_of::<T>()` bytes lie in the mapping, pages (and `start`, which is 0 or a multiple of
            // the huge page) are aligned beyond any `Number`, every bit pattern is a value, and the mapping is borrowed.
            Some(pages) => unsafe { std::slice::from_raw_parts(pages.as_ptr().add(self.start).cast(), self.length) },
        }
    }
}

impl<T: Number> std::ops::DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.pages {
            None => &mut [],
            // SAFETY: as for `deref`, and the mapping is borrowed mutably.
            Some(pages) => unsafe {
                std::slice::from_raw_parts_mut(pages.as_mut_ptr().add(self.start).cast(), self.length)
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_zeros_then_what_is_written() {
        for length in [0, 1, 1000, (HUGE / 4) - 1, HUGE / 4, HUGE / 4 + 1, 3 * HUGE / 4 + 12345] {
            let mut buffer = Buffer::<f32>::zeroed(length);
            assert_eq!(buffer.len(), length);
            assert!(buffer.iter().all(|x| *x == 0.0));
            buffer.iter_mut().enumerate().for_each(|(i, x)| *x = i as f32);
            assert!(buffer.iter().enumerate().all(|(i, x)| *x == i as f32));
            assert!(length == 0 || buffer.as_ptr().addr().is_multiple_of(64));
        }
    }
}
