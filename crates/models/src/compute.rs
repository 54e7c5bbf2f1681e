//! The threads that models compute with, and what the machine can do at most.

use std::time::Duration;

use crossmodal_kernels::{peak, team};

pub use crossmodal_kernels::team::{set_threads, threads};

/// The limits of this machine, with the number of threads that models use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak {
    /// Billions of fp32 operations per second, a fused multiply-add counted as two.
    pub gflops: f64,
    /// Gigabytes per second that can be read from memory.
    pub bandwidth: f64,
}

/// Measures the limits for about as long as `time`.
pub fn peak(time: Duration) -> Peak {
    let session = team::Team::global().session();
    Peak { gflops: peak::gflops(&session, time / 2), bandwidth: peak::bandwidth(&session, time / 2) }
}
