//! A bound on the bytes of files that are in memory at once: queues bound their number, which says little about their size.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Bytes that may be in memory at once. A single file may exceed it when it is alone.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    used: Mutex<u64>,
    freed: Condvar,
}

/// Leave to hold some bytes, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: Mutex::new(0), freed: Condvar::new() })
    }

    /// Waits until `bytes` fit; `None` when `stopped` says so meanwhile.
    pub(super) fn acquire(self: &Arc<Self>, bytes: u64, stopped: impl Fn() -> bool) -> Option<Permit> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        while *used > 0 && used.saturating_add(bytes) > self.limit {
            if stopped() {
                return None;
            }
            let waited = self.freed.wait_timeout(used, Duration::from_millis(50));
            used = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *used += bytes;
        Some(Permit { budget: self.clone(), bytes })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut used = self.budget.used.lock().unwrap_or_else(PoisonError::into_inner);
        *used = used.saturating_sub(self.bytes);
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn what_does_not_fit_waits_for_what_is_given_back() {
        let budget = Budget::new(100);
        let alone = budget.acquire(500, || false).unwrap();
        assert!(budget.acquire(1, || true).is_none());
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let permit = budget.acquire(60, || false);
                assert!(done.load(Ordering::SeqCst) && permit.is_some());
            });
            std::thread::sleep(Duration::from_millis(20));
            done.store(true, Ordering::SeqCst);
            drop(alone);
        });
        let first = budget.acquire(60, || false).unwrap();
        let second = budget.acquire(40, || false).unwrap();
        assert!(budget.acquire(1, || true).is_none());
        drop((first, second));
        assert_eq!(*budget.used.lock().unwrap(), 0);
    }
}
