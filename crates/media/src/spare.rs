//! One large buffer a thread, kept for the next picture.
//!
//! Fresh memory of a picture's size comes from the system page by page, which for large JPEGs takes a sixth of the time of
//! decoding. Threads that prepare pictures decode one after another into the same memory.

use std::cell::Cell;

/// Largest buffer that is kept, in bytes: 21 megapixels of RGB.
const MOST: usize = 64 << 20;

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A buffer of `length` bytes of any content.
pub(crate) fn take(length: usize) -> Vec<u8> {
    let mut buffer = SPARE.take();
    if buffer.capacity() < length {
        return vec![0; length];
    }
    buffer.resize(length, 0);
    if cfg!(debug_assertions) {
        // Whoever relies on the content is found out.
        buffer.fill(0xa5);
    }
    buffer
}

/// Keeps a buffer for the next [`take`] on this thread.
pub(crate) fn give_back(buffer: Vec<u8>) {
    if buffer.capacity() <= MOST {
        SPARE.set(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_unless_it_is_too_large() {
        let buffer = take(1000);
        let place = buffer.as_ptr();
        give_back(buffer);
        for length in [900, 1000] {
            let buffer = take(length);
            assert_eq!((buffer.as_ptr(), buffer.len()), (place, length));
            give_back(buffer);
        }
        let (first, second) = (take(10), take(20));
        assert_eq!((first.as_ptr(), second), (place, vec![0; 20]));
        give_back(Vec::with_capacity(MOST + 1));
        assert_eq!(SPARE.take().capacity(), 0);
    }
}
