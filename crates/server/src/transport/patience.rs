//! How long the other side is waited for: a timer that is cheap to move, and the rule of what counts as progress.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Bytes that have to pass within the time for a stall. A client that sends or takes a byte now and then stalls as much as one that does nothing.
const LEAST_PROGRESS: usize = 1024;

/// A timer that is made when it is first needed, and only touched when it would ring too late.
#[derive(Default)]
pub(super) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Whether `deadline` has passed; if not, the task is woken then.
    pub(super) fn is_due(&mut self, deadline: Instant, context: &mut Context<'_>) -> bool {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        // An earlier deadline of before rings early, and then the timer is moved.
        while sleep.as_mut().poll(context).is_ready() {
            if Instant::now() >= deadline {
                return true;
            }
            sleep.as_mut().reset(deadline);
        }
        false
    }
}

/// Counts the time that was waited for the other side since it last made progress. Time in which nobody waits doesn't count.
pub(super) struct Patience {
    limit: Duration,
    waited: Duration,
    waiting_since: Option<Instant>,
    bytes: usize,
    timer: Timer,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, waited: Duration::ZERO, waiting_since: None, bytes: 0, timer: Timer::default() }
    }

    /// So many bytes passed.
    pub(super) fn advanced(&mut self, bytes: usize) {
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
        }
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes >= LEAST_PROGRESS {
            self.bytes = 0;
            self.waited = Duration::ZERO;
        }
    }

    /// Nothing passes at the moment. Whether that has been so for too long; if not, the task is woken when it is.
    pub(super) fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        self.timer.is_due(since + self.limit.saturating_sub(self.waited), context)
    }

    /// Whether the other side is being waited for.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting_since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(200);

    /// Waits until `bytes` pass after `pause` or patience ends; whether it ended.
    async fn wait(patience: &mut Patience, pause: Duration, bytes: usize) -> bool {
        let over = poll_fn(|context| if patience.is_over(context) { Poll::Ready(()) } else { Poll::Pending });
        let over = tokio::time::timeout(pause, over).await.is_ok();
        if !over {
            patience.advanced(bytes);
        }
        over
    }

    #[tokio::test]
    async fn drops_now_and_then_are_no_progress() {
        let mut patience = Patience::new(LIMIT);
        let start = Instant::now();
        while !wait(&mut patience, LIMIT / 8, 10).await {}
        assert!((LIMIT..LIMIT * 4).contains(&start.elapsed()), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn steady_progress_is_waited_for_and_pauses_of_our_own_do_not_count() {
        let mut patience = Patience::new(LIMIT);
        for _ in 0..16 {
            assert!(!wait(&mut patience, LIMIT / 8, 600).await);
        }
        patience.advanced(LEAST_PROGRESS);
        for _ in 0..3 {
            tokio::time::sleep(LIMIT).await;
            assert!(!patience.is_waiting());
            assert!(!wait(&mut patience, LIMIT / 8, 1).await);
        }
    }

    #[tokio::test]
    async fn a_timer_moves_both_ways() {
        let mut timer = Timer::default();
        let start = Instant::now();
        for (deadline, moved) in [(400, 100), (100, 250)] {
            let due = |milliseconds| start + Duration::from_millis(milliseconds);
            poll_fn(|context| Poll::Ready(timer.is_due(due(deadline), context))).await;
            let rang =
                poll_fn(|context| if timer.is_due(due(moved), context) { Poll::Ready(()) } else { Poll::Pending });
            rang.await;
            assert!(Instant::now() >= due(moved) && Instant::now() < due(moved) + Duration::from_millis(140));
        }
    }
}
