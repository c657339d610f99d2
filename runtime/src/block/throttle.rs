//! `throttling.bps-total`, `throttling.iops-total`: how much a disk may do.

use std::time::{Duration, Instant};

/// What may be done at once after a rest: this long a time's share.
const BURST: Duration = Duration::from_millis(100);

/// A limit on something that is counted.
#[derive(Clone, Copy, Debug)]
struct Limit {
    per_second: u64,
    /// When all that was done will have been allowed.
    paid: Instant,
}

impl Limit {
    /// Does `count`; when it may be done.
    fn charge(&mut self, now: Instant, count: u64) -> Instant {
        let start = self.paid.max(now.checked_sub(BURST).unwrap_or(now));
        let nanoseconds = u128::from(count) * 1_000_000_000 / u128::from(self.per_second.max(1));
        self.paid = start + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX).min(1 << 62));
        start
    }
}

/// The limits of a disk.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Throttle {
    bytes: Option<Limit>,
    requests: Option<Limit>,
}

impl Throttle {
    /// No more than this a second; 0 is no limit.
    pub(super) fn new(bytes: u64, requests: u64) -> Throttle {
        let limit = |per_second| (per_second != 0).then(|| Limit { per_second, paid: Instant::now() });
        Throttle { bytes: limit(bytes), requests: limit(requests) }
    }

    /// A request of this many bytes has come; when it may be done.
    pub(super) fn charge(&mut self, now: Instant, bytes: u64) -> Instant {
        let bytes = self.bytes.as_mut().map_or(now, |limit| limit.charge(now, bytes));
        let requests = self.requests.as_mut().map_or(now, |limit| limit.charge(now, 1));
        bytes.max(requests).max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_followed_by_the_rate() {
        let start = Instant::now();
        let later = start + Duration::from_secs(10);
        let mut throttle = Throttle::new(1000, 0);
        assert_eq!(throttle.charge(later, 100), later, "a rest of 100 ms allows that at once");
        assert_eq!(throttle.charge(later, 1000), later);
        assert_eq!(throttle.charge(later, 1), later + Duration::from_secs(1));
        let mut throttle = Throttle::new(0, 10);
        let times: Vec<Instant> = (0..4).map(|_| throttle.charge(later, 1 << 40)).collect();
        let after = |milliseconds| later + Duration::from_millis(milliseconds);
        assert_eq!(times, [later, later, after(100), after(200)]);
        assert_eq!(Throttle::new(0, 0).charge(later, u64::MAX), later);
    }
}
