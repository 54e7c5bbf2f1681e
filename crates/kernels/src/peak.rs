//! What the machine can do at most, measured now: the yardstick for how near a computation comes to it.

use std::hint::black_box;
use std::time::{Duration, Instant};

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use crate::buffer::Buffer;
use crate::team::{Crew, Session};

/// Independent sums: enough to hide the latency of fused multiply-adds on two units.
const CHAINS: usize = 12;

/// Rounds of one measurement.
const ROUNDS: usize = 1 << 18;

struct MultiplyAdds;

impl SimdOp for MultiplyAdds {
    /// Floating-point operations that were done.
    type Output = f64;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> f64 {
        let ops = isa.f32();
        let (factor, term) = (ops.splat(black_box(0.999)), ops.splat(black_box(0.001)));
        let mut chains: [I::F32; CHAINS] = std::array::from_fn(|i| ops.splat(black_box(i as f32)));
        for _ in 0..ROUNDS {
            for chain in &mut chains {
                *chain = ops.mul_add(*chain, factor, term);
            }
        }
        let sum = chains.into_iter().fold(ops.zero(), |a, b| ops.add(a, b));
        black_box(ops.sum(sum));
        (ROUNDS * CHAINS * ops.len() * 2) as f64
    }
}

/// The best of repeated measurements of `rate` for this long.
fn best(time: Duration, mut rate: impl FnMut() -> f64) -> f64 {
    let start = Instant::now();
    let mut best = 0f64;
    while start.elapsed() < time {
        best = best.max(rate());
    }
    best
}

/// Billions of fp32 operations per second that the team reaches in registers, fused multiply-adds counted as two.
pub fn gflops(session: &Session<'_>, time: Duration) -> f64 {
    let threads = session.threads();
    let done = std::sync::Mutex::new(0f64);
    best(time, || {
        let start = Instant::now();
        *done.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = 0.0;
        Crew::Team(session).for_each(4 * threads, |_| {
            let operations = MultiplyAdds.dispatch();
            *done.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += operations;
        });
        *done.lock().unwrap_or_else(std::sync::PoisonError::into_inner) / start.elapsed().as_secs_f64() / 1e9
    })
}

/// Gigabytes per second at which the team reads memory that is in no cache.
pub fn bandwidth(session: &Session<'_>, time: Duration) -> f64 {
    const FLOATS: usize = 64 << 20;
    const PIECES: usize = 64;
    let mut memory = Buffer::<f32>::zeroed(FLOATS);
    memory.iter_mut().step_by(1024).for_each(|x| *x = 1.0);
    best(time, || {
        let start = Instant::now();
        Crew::Team(session).for_each(PIECES, |piece| {
            let part = &memory[piece * (FLOATS / PIECES)..][..FLOATS / PIECES];
            black_box(crate::distance::dot(part, part));
        });
        (FLOATS * 4) as f64 / start.elapsed().as_secs_f64() / 1e9
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::team::Team;

    #[test]
    fn probes_measure_something() {
        let team = Team::new(2);
        let session = team.session();
        assert!(gflops(&session, Duration::from_millis(20)) > 0.1);
        assert!(bandwidth(&session, Duration::from_millis(20)) > 0.01);
    }
}
