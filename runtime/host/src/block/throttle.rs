//! `throttling.*` and throttle groups: how much disks may do.
//!
//! A limit is a bucket, in QEMU's terms (docs/throttle.txt): what is done is poured in, and it leaks at the rate of the limit.
//! While there is more in it than its size, nothing is done. The size is a tenth of a second's share or, with a burst, what the
//! burst does in all its seconds; then a second, small bucket leaks at the rate of the burst.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::config::{Limit, Limits};

/// Levels are counted in parts of a unit: what leaks in a nanosecond at a rate of 1 is one.
const UNIT: u128 = 1_000_000_000;
/// The share of a second that may be done at once.
const AT_ONCE: u128 = 10;

/// A limit, and how far it is used up.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    limit: Limit,
    level: u128,
    /// Of the second bucket.
    burst: u128,
}

impl Bucket {
    fn lasts(&self) -> bool {
        self.limit.seconds > 1
    }

    fn leak(&mut self, nanoseconds: u128) {
        self.level = self.level.saturating_sub(nanoseconds * u128::from(self.limit.average));
        self.burst = self.burst.saturating_sub(nanoseconds * u128::from(self.limit.burst));
    }

    /// Nanoseconds until something may be done.
    fn wait(&self) -> u128 {
        let Limit { average, burst, seconds } = self.limit;
        let (average, burst) = (u128::from(average), u128::from(burst));
        if average == 0 {
            return 0;
        }
        let size = if burst == 0 { average * UNIT / AT_ONCE } else { burst * u128::from(seconds) * UNIT };
        let wait = self.level.saturating_sub(size).div_ceil(average);
        if !self.lasts() || burst == 0 {
            return wait;
        }
        wait.max(self.burst.saturating_sub(burst * UNIT / AT_ONCE).div_ceil(burst))
    }

    fn pour(&mut self, amount: u128) {
        self.level = self.level.saturating_add(amount);
        if self.lasts() {
            self.burst = self.burst.saturating_add(amount);
        }
    }
}

/// The limits of a disk or a group: of all, of reads, and of writes.
#[derive(Debug)]
struct Buckets {
    bytes: [Bucket; 3],
    requests: [Bucket; 3],
    request_bytes: u64,
    /// When they leaked last.
    leaked: Instant,
}

impl Buckets {
    fn new(limits: &Limits, now: Instant) -> Buckets {
        let bucket = |limit| Bucket { limit, ..Bucket::default() };
        let (bytes, requests) = (limits.bytes.map(bucket), limits.requests.map(bucket));
        Buckets { bytes, requests, request_bytes: limits.request_bytes, leaked: now }
    }

    /// Does a request of this many bytes, which reads or writes, or neither; or else for how long it has to wait.
    fn admit(&mut self, now: Instant, bytes: u64, writes: Option<bool>) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.leaked).as_nanos();
        self.leaked = self.leaked.max(now);
        let counts = [true, writes == Some(false), writes == Some(true)];
        let requests = match self.request_bytes {
            0 => UNIT,
            size => (u128::from(bytes) * UNIT / u128::from(size)).max(UNIT),
        };
        let of_bytes =
            self.bytes.iter_mut().zip(counts).map(|(bucket, counts)| (bucket, counts, u128::from(bytes) * UNIT));
        let of_requests = self.requests.iter_mut().zip(counts).map(|(bucket, counts)| (bucket, counts, requests));
        let mut all: Vec<_> = of_bytes.chain(of_requests).collect();
        all.iter_mut().for_each(|(bucket, ..)| bucket.leak(passed));
        all.retain(|(_, counts, _)| *counts);
        match all.iter().map(|(bucket, ..)| bucket.wait()).max() {
            None | Some(0) => {
                all.into_iter().for_each(|(bucket, _, amount)| bucket.pour(amount));
                Ok(())
            }
            Some(wait) => Err(Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX))),
        }
    }
}

/// What holds a disk up.
#[derive(Clone, Debug)]
pub(super) struct Throttle(Arc<Mutex<Buckets>>);

impl Throttle {
    /// The limits of one disk, or those of its group in `groups`.
    pub(super) fn new(limits: &Limits, groups: &Groups) -> Throttle {
        let fresh = || Throttle(Arc::new(Mutex::new(Buckets::new(limits, Instant::now()))));
        if limits.group.is_empty() {
            return fresh();
        }
        // Nothing is behind the lock that a panic could have spoilt.
        let mut groups = groups.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = groups.get(&limits.group).and_then(Weak::upgrade) {
            return Throttle(known);
        }
        let throttle = fresh();
        groups.insert(limits.group.clone(), Arc::downgrade(&throttle.0));
        throttle
    }

    /// Does a request now, or else says how long it has to wait before it may be asked for again.
    pub(super) fn admit(&self, bytes: u64, writes: Option<bool>) -> Result<(), Duration> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.admit(Instant::now(), bytes, writes)
    }
}

/// The groups of disks of a machine that share their limits, by name.
#[derive(Clone, Debug, Default)]
pub struct Groups(Arc<Mutex<HashMap<String, Weak<Mutex<Buckets>>>>>);

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(average: u64) -> Limit {
        Limit { average, ..Limit::default() }
    }

    /// When requests of these bytes are done that come one after another, in milliseconds from the first on.
    fn times(limits: &Limits, requests: &[(u64, Option<bool>)]) -> Vec<u128> {
        let start = Instant::now();
        let (mut now, mut buckets) = (start, Buckets::new(limits, start));
        let mut done = |&(bytes, writes): &(u64, _)| {
            while let Err(wait) = buckets.admit(now, bytes, writes) {
                now += wait;
            }
            (now - start).as_millis()
        };
        requests.iter().map(&mut done).collect()
    }

    #[test]
    fn what_is_done_at_once_is_a_tenth_of_a_second() {
        let limits = Limits { bytes: [limit(1000), limit(0), limit(0)], ..Limits::default() };
        let write = |bytes| (bytes, Some(true));
        assert_eq!(times(&limits, &[write(100), write(1000), write(1), write(1)]), [0, 0, 1000, 1001]);
        let limits = Limits { bytes: [limit(0), limit(0), limit(1000)], ..Limits::default() };
        assert_eq!(
            times(&limits, &[write(1100), (1 << 40, Some(false)), write(1)]),
            [0, 0, 1000],
            "reads are not limited"
        );
        let limits = Limits { requests: [limit(10), limit(0), limit(0)], ..Limits::default() };
        assert_eq!(times(&limits, &[(1 << 40, None); 5]), [0, 0, 100, 200, 300]);
        assert_eq!(times(&Limits::default(), &[write(u64::MAX); 3]), [0; 3]);
    }

    #[test]
    fn a_burst_has_its_rate_and_its_seconds() {
        // As in QEMU's docs/throttle.txt: 100 a second, and 2,000 for a minute.
        let burst = Limit { average: 100, burst: 2000, seconds: 60 };
        let limits = Limits { requests: [burst, limit(0), limit(0)], ..Limits::default() };
        let done = times(&limits, &vec![(512, Some(false)); 140_000]);
        // 200 at once, 2,000 each second, of which 100 leak, until 120,000 are in the bucket.
        assert_eq!((done[200], done[2201]), (0, 1000));
        let full = 120_000 * 1000 / 1900;
        let at_burst = done.iter().filter(|time| **time < full).count();
        assert!((126_000..=126_700).contains(&at_burst), "{at_burst}");
        assert_eq!(done[139_999] - done[139_899], 1000, "then what the limit says");
    }

    #[test]
    fn a_large_request_counts_as_several() {
        let limits = Limits { requests: [limit(10), limit(0), limit(0)], request_bytes: 4096, ..Limits::default() };
        assert_eq!(times(&limits, &[(512, None), (40_960, None), (512, None)]), [0, 0, 1000]);
    }

    #[test]
    fn a_group_shares_what_it_has() {
        let groups = Groups::default();
        let limits = Limits { requests: [limit(1), limit(0), limit(0)], group: "g".into(), ..Limits::default() };
        let first = Throttle::new(&limits, &groups);
        let second = Throttle::new(&limits, &groups);
        let alone = Throttle::new(&Limits { group: String::new(), ..limits.clone() }, &groups);
        assert!(first.admit(1, None).is_ok());
        assert!(second.admit(1, None).is_err() && first.admit(1, None).is_err());
        assert!(alone.admit(1, None).is_ok());
        drop((first, second));
        assert!(Throttle::new(&limits, &groups).admit(1, None).is_ok(), "a group ends with its last disk");
    }
}
