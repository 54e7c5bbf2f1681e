//! How fast a client may ask: a token bucket for each, in bounded memory.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Most clients that are remembered. Whoever was silent longest is forgotten first, and starts again with a full bucket.
const MOST_CLIENTS: usize = 10_000;
/// Longest pause that is asked for, in seconds.
const LONGEST_PAUSE: u64 = 3600;

/// Whom a bucket belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Client {
    /// The holder of a key, by the key's name, from wherever.
    Key(Arc<str>),
    /// Somebody without a key, by address.
    Peer(Network),
}

impl Client {
    /// The client at an address. All addresses of one IPv6 /64 are one client: that is the least that is given to a customer, who could otherwise have 2^64
    /// buckets. An IPv4 address in IPv6 form is the same client as without.
    pub fn peer(address: IpAddr) -> Self {
        Self::Peer(match address.to_canonical() {
            IpAddr::V4(address) => Network(IpAddr::V4(address)),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Network(IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)))
            }
        })
    }
}

/// An IPv4 address or the first address of an IPv6 /64. Made by [`Client::peer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(name) => write!(f, "key {name}"),
            Self::Peer(Network(IpAddr::V4(address))) => write!(f, "{address}"),
            Self::Peer(Network(IpAddr::V6(address))) => write!(f, "{address}/64"),
        }
    }
}

/// A rate that can't be kept.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum RateError {
    /// Zero, negative or not a number.
    #[error("rate {0} per second, expected a number above 0")]
    Rate(f64),
    /// A bucket that holds nothing lets nothing pass.
    #[error("burst 0, expected at least 1")]
    Burst,
}

/// The client has to wait so many seconds, at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests: try again in {0} s")]
pub struct RetryAfter(pub u64);

/// A token bucket for each client.
pub struct RateLimiter {
    per_second: f64,
    burst: f64,
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    of: HashMap<Client, Bucket>,
    /// Clients by the turn of their last request, the oldest first.
    by_turn: BTreeMap<u64, Client>,
    turn: u64,
}

#[derive(Clone, Copy)]
struct Bucket {
    /// Below zero after a request that cost more than a bucket holds.
    tokens: f64,
    filled: Instant,
    turn: u64,
}

impl RateLimiter {
    /// Buckets that hold `burst` tokens, begin full, and gain `per_second` tokens a second.
    ///
    /// # Errors
    /// A rate that isn't a finite number above 0, a burst of 0.
    pub fn new(per_second: f64, burst: u32) -> Result<Self, RateError> {
        if !(per_second.is_finite() && per_second > 0.0) {
            return Err(RateError::Rate(per_second));
        }
        if burst == 0 {
            return Err(RateError::Burst);
        }
        Ok(Self { per_second, burst: f64::from(burst), buckets: Mutex::default() })
    }

    /// Takes `cost` tokens from the client's bucket. A cost above `burst` needs a full bucket and is paid off afterwards, as it could never be paid in advance.
    ///
    /// # Errors
    /// There aren't enough tokens, and none are taken: in how many seconds there are.
    pub fn take(&self, client: &Client, cost: u32) -> Result<(), RetryAfter> {
        self.take_at(client, cost, Instant::now())
    }

    fn take_at(&self, client: &Client, cost: u32, now: Instant) -> Result<(), RetryAfter> {
        let cost = f64::from(cost);
        let needed = cost.min(self.burst);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.visit(client, Bucket { tokens: self.burst, filled: now, turn: 0 });
        let gained = now.saturating_duration_since(bucket.filled).as_secs_f64() * self.per_second;
        bucket.tokens = (bucket.tokens + gained).min(self.burst);
        bucket.filled = bucket.filled.max(now);
        if bucket.tokens >= needed {
            bucket.tokens -= cost;
            return Ok(());
        }
        let seconds = ((needed - bucket.tokens) / self.per_second).ceil();
        // The cast saturates; that many seconds are cut off anyway.
        Err(RetryAfter((seconds as u64).clamp(1, LONGEST_PAUSE)))
    }

    /// How many clients are remembered.
    pub fn clients(&self) -> usize {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner).of.len()
    }
}

impl Buckets {
    /// The client's bucket, which becomes the last to be forgotten.
    fn visit(&mut self, client: &Client, new: Bucket) -> &mut Bucket {
        self.turn += 1;
        let turn = self.turn;
        match self.of.get(client) {
            Some(bucket) => drop(self.by_turn.remove(&bucket.turn)),
            None if self.of.len() >= MOST_CLIENTS => {
                if let Some((_, oldest)) = self.by_turn.pop_first() {
                    self.of.remove(&oldest);
                }
            }
            None => {}
        }
        self.by_turn.insert(turn, client.clone());
        let bucket = self.of.entry(client.clone()).or_insert(new);
        bucket.turn = turn;
        bucket
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { per_second, burst, .. } = self;
        f.debug_struct("RateLimiter").field("per_second", per_second).field("burst", burst).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(name: &str) -> Client {
        Client::Key(name.into())
    }

    fn peer(address: &str) -> Client {
        Client::peer(address.parse().expect("address"))
    }

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let limiter = RateLimiter::new(2.0, 5).expect("valid");
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        for _ in 0..5 {
            assert_eq!(limiter.take_at(&key("a"), 1, at(0)), Ok(()));
        }
        assert_eq!(limiter.take_at(&key("a"), 1, at(0)), Err(RetryAfter(1)));
        assert_eq!(limiter.take_at(&key("a"), 1, at(499)), Err(RetryAfter(1)));
        assert_eq!(limiter.take_at(&key("a"), 1, at(500)), Ok(()));
        assert_eq!(limiter.take_at(&key("a"), 1, at(500)), Err(RetryAfter(1)));
        assert_eq!(limiter.take_at(&key("a"), 5, at(500)), Err(RetryAfter(3)));
        // Others aren't touched, and a long rest fills the bucket and no more.
        assert_eq!(limiter.take_at(&key("b"), 5, at(500)), Ok(()));
        assert_eq!(limiter.take_at(&key("a"), 5, at(1_000_000)), Ok(()));
        assert_eq!(limiter.take_at(&key("a"), 1, at(1_000_000)), Err(RetryAfter(1)));
    }

    #[test]
    fn over_a_long_time_the_rate_is_the_one_that_was_set() {
        let limiter = RateLimiter::new(7.5, 3).expect("valid");
        let start = Instant::now();
        let passed = (0..100_000)
            .filter(|step| limiter.take_at(&key("a"), 1, start + Duration::from_millis(*step)).is_ok())
            .count();
        assert!((750..=753).contains(&passed), "{passed} in 100 s");
    }

    #[test]
    fn a_cost_above_the_burst_passes_once_and_is_paid_off() {
        let limiter = RateLimiter::new(1.0, 10).expect("valid");
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(limiter.take_at(&key("a"), 25, at(0)), Ok(()));
        assert_eq!(limiter.take_at(&key("a"), 1, at(0)), Err(RetryAfter(16)));
        assert_eq!(limiter.take_at(&key("a"), 25, at(0)), Err(RetryAfter(25)));
        assert_eq!(limiter.take_at(&key("a"), 1, at(15)), Err(RetryAfter(1)));
        assert_eq!(limiter.take_at(&key("a"), 1, at(16)), Ok(()));
    }

    #[test]
    fn a_clock_that_seems_to_go_back_gives_nothing_away() {
        let limiter = RateLimiter::new(1.0, 1).expect("valid");
        let start = Instant::now();
        let later = start + Duration::from_secs(10);
        assert_eq!(limiter.take_at(&key("a"), 1, later), Ok(()));
        assert_eq!(limiter.take_at(&key("a"), 1, start), Err(RetryAfter(1)));
        assert_eq!(limiter.take_at(&key("a"), 1, later), Err(RetryAfter(1)));
        assert_eq!(limiter.take_at(&key("a"), 1, later + Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn one_customer_has_one_bucket() {
        assert_eq!(peer("2001:db8:1:2::1"), peer("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(peer("2001:db8:1:2::1"), peer("2001:db8:1:3::1"));
        assert_eq!(peer("::ffff:192.0.2.7"), peer("192.0.2.7"));
        assert_ne!(peer("192.0.2.7"), peer("192.0.2.8"));
        assert_ne!(peer("192.0.2.7"), key("192.0.2.7"));
        assert_eq!(peer("2001:db8:1:2::1").to_string(), "2001:db8:1:2::/64");
    }

    #[test]
    fn memory_is_bounded_and_the_longest_silent_is_forgotten() {
        let limiter = RateLimiter::new(0.001, 1).expect("valid");
        let now = Instant::now();
        let client = |number: u32| Client::peer(IpAddr::V4(number.into()));
        let most = u32::try_from(MOST_CLIENTS).expect("small");
        for number in 0..most {
            assert_eq!(limiter.take_at(&client(number), 1, now), Ok(()));
        }
        // The first one asks again, in vain, and so isn't the oldest any more.
        assert!(limiter.take_at(&client(0), 1, now).is_err());
        for number in most..most + 100 {
            assert_eq!(limiter.take_at(&client(number), 1, now), Ok(()));
            assert_eq!(limiter.clients(), MOST_CLIENTS);
        }
        assert!(limiter.take_at(&client(0), 1, now).is_err());
        assert!(limiter.take_at(&client(101), 1, now).is_err());
        assert!(limiter.take_at(&client(100), 1, now).is_ok());
        let buckets = limiter.buckets.lock().expect("lock");
        assert_eq!(buckets.of.len(), buckets.by_turn.len());
    }

    #[test]
    fn rates_that_make_no_sense_are_refused_and_slow_ones_have_bounded_pauses() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(RateLimiter::new(rate, 1), Err(RateError::Rate(_))), "{rate}");
        }
        assert!(matches!(RateLimiter::new(1.0, 0), Err(RateError::Burst)));
        let limiter = RateLimiter::new(f64::MIN_POSITIVE, 1).expect("valid");
        let now = Instant::now();
        assert_eq!(limiter.take_at(&key("a"), 1, now), Ok(()));
        assert_eq!(limiter.take_at(&key("a"), 1, now), Err(RetryAfter(LONGEST_PAUSE)));
    }
}
