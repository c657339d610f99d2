//! `throttling.bps-total`, `throttling.iops-total`: how much a disk may do.

use std::time::{Duration, Instant};

use crate::config::Rates;

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

/// The limits of a disk: of all, of reads, and of writes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Throttle {
    bytes: [Option<Limit>; 3],
    requests: [Option<Limit>; 3],
}

impl Throttle {
    /// No more than this a second.
    pub(super) fn new(bytes: Rates, requests: Rates) -> Throttle {
        let limit = |per_second| (per_second != 0).then(|| Limit { per_second, paid: Instant::now() });
        let limits = |rates: Rates| [rates.total, rates.read, rates.write].map(limit);
        Throttle { bytes: limits(bytes), requests: limits(requests) }
    }

    /// A request of this many bytes has come, which reads or writes, or neither; when it may be done.
    pub(super) fn charge(&mut self, now: Instant, bytes: u64, writes: Option<bool>) -> Instant {
        let counts = [true, writes == Some(false), writes == Some(true)];
        let of = |limits: &mut [Option<Limit>; 3], count: u64| {
            let limits = limits.iter_mut().zip(counts).filter(|(_, counts)| *counts);
            limits.filter_map(|(limit, _)| Some(limit.as_mut()?.charge(now, count))).max()
        };
        let (bytes, requests) = (of(&mut self.bytes, bytes), of(&mut self.requests, 1));
        bytes.max(requests).map_or(now, |start| start.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_followed_by_the_rate() {
        let start = Instant::now();
        let later = start + Duration::from_secs(10);
        let (none, of) = (Rates::default(), |total| Rates { total, ..Rates::default() });
        let mut throttle = Throttle::new(of(1000), none);
        assert_eq!(throttle.charge(later, 100, Some(true)), later, "a rest of 100 ms allows that at once");
        assert_eq!(throttle.charge(later, 1000, Some(false)), later);
        assert_eq!(throttle.charge(later, 1, Some(true)), later + Duration::from_secs(1));
        let mut throttle = Throttle::new(Rates { write: 1000, ..none }, none);
        assert_eq!(throttle.charge(later, 1100, Some(true)), later);
        assert_eq!(throttle.charge(later, 1 << 40, Some(false)), later, "reads are not limited");
        assert_eq!(throttle.charge(later, 1, Some(true)), later + Duration::from_secs(1));
        let mut throttle = Throttle::new(none, of(10));
        let times: Vec<Instant> = (0..4).map(|_| throttle.charge(later, 1 << 40, None)).collect();
        let after = |milliseconds| later + Duration::from_millis(milliseconds);
        assert_eq!(times, [later, later, after(100), after(200)]);
        assert_eq!(Throttle::new(none, none).charge(later, u64::MAX, Some(true)), later);
    }
}
