//! Large memory that is used again: activations of one training step have the sizes of the last one's, and fresh pages cost the system
//! a fault and a clearing each.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use crate::buffer::Buffer;

/// Buffers that nobody holds at the moment, the longest unused first.
static FREE: Mutex<Vec<Buffer<f32>>> = Mutex::new(Vec::new());

/// Floats by which a buffer may exceed what is asked for, beside a quarter.
const SLACK: usize = 16 << 10;

/// A number of floats, lent for as long as this lives. What they are at first isn't specified.
#[derive(Debug)]
pub struct Lease {
    buffer: Option<Buffer<f32>>,
    length: usize,
}

impl Lease {
    /// Lends `length` floats: a buffer that was given back where one fits, otherwise a new one, for which buffers that fit nobody are let
    /// go, so that free memory doesn't pile up when sizes change.
    ///
    /// # Panics
    /// When the system has no memory left, as `Vec` does.
    pub fn of(length: usize) -> Self {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |buffer: &Buffer<f32>| buffer.len() >= length && buffer.len() <= length + length / 4 + SLACK;
        let best = (0..free.len()).filter(|at| fits(&free[*at])).min_by_key(|at| free[*at].len());
        if let Some(at) = best {
            return Self { buffer: Some(free.remove(at)), length };
        }
        let mut released = 0;
        while released < length && !free.is_empty() {
            released += free.remove(0).len();
        }
        drop(free);
        Self { buffer: Some(Buffer::zeroed(length)), length }
    }

    /// As [`of`](Self::of), all zeros.
    pub fn zeroed(length: usize) -> Self {
        let mut lease = Self::of(length);
        lease.fill(0.0);
        lease
    }

    /// Gives the memory that nobody holds back to the system.
    pub fn release_all() {
        FREE.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            FREE.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }
}

impl Deref for Lease {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer[..self.length])
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut [f32] {
        let length = self.length;
        self.buffer.as_mut().map_or(&mut [], |buffer| &mut buffer[..length])
    }
}

/// Has the system's allocator keep large blocks that were freed, for the rest of the process, instead of giving their pages back: tensors
/// of a training step have the sizes of the last step's, and the faults and clearing of their pages took a tenth of the time. Says whether
/// the allocator can do that, which glibc's can. Where the environment already says how memory is to be given back, nothing is changed.
pub fn keep_freed_memory() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let chosen = ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES"];
        if chosen.iter().any(|name| std::env::var_os(name).is_some()) {
            return false;
        }
        // SAFETY: `mallopt` takes two numbers and may be called at any time; it locks what it changes.
        unsafe {
            libc::mallopt(libc::M_MMAP_MAX, 0) == 1
                && libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX) == 1
                && libc::mallopt(libc::M_TOP_PAD, 64 << 20) == 1
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_apart_and_as_long_as_asked_for() {
        for round in 0..3 {
            let mut leases: Vec<Lease> = [0, 1, 1000, 100_000, 130_000].map(Lease::of).into();
            for (number, lease) in leases.iter_mut().enumerate() {
                lease.fill((round * 10 + number) as f32);
            }
            for (number, (lease, length)) in leases.iter().zip([0, 1, 1000, 100_000, 130_000]).enumerate() {
                assert_eq!(lease.len(), length);
                assert!(lease.iter().all(|x| *x == (round * 10 + number) as f32));
            }
        }
        assert!(Lease::zeroed(5000).iter().all(|x| *x == 0.0));
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn kept_memory_is_still_cleared_where_that_is_asked_for() {
        assert!(keep_freed_memory());
        for round in 0..3 {
            let mut values = vec![0f32; 20 << 20];
            assert!(values.iter().all(|x| *x == 0.0), "round {round}");
            values.fill(1.0);
        }
    }
}
