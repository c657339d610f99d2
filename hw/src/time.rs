//! Conversion between guest nanoseconds and the ticks of a device's clock, and the output of a timer.
//!
//! A device keeps absolute ticks, never sums of rounded intervals, so its rate does not drift.

/// Nanoseconds in a second.
pub(crate) const NS_PER_SEC: u64 = 1_000_000_000;

/// Ticks of a clock of `hz` that have passed `ns` nanoseconds after power-on, rounded down.
pub(crate) fn ticks_at(ns: u64, hz: u64) -> u64 {
    saturate(u128::from(ns) * u128::from(hz) / u128::from(NS_PER_SEC))
}

/// The first nanosecond at which [`ticks_at`] gives `ticks` (or more).
pub(crate) fn ns_of_tick(ticks: u64, hz: u64) -> u64 {
    saturate((u128::from(ticks) * u128::from(NS_PER_SEC)).div_ceil(u128::from(hz.max(1))))
}

fn saturate(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// What happened to a timer's interrupt line since it was last asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TimerLine {
    /// The output rose at least once.
    pub(crate) rose: bool,
    /// The level to drive.
    pub(crate) level: bool,
}

/// The earlier of two optional deadlines.
pub(crate) fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_the_first_nanosecond_of_its_tick() {
        for hz in [1, 32_768, 1_193_182, 3_579_545, 1_000_000_000, 3_000_000_001] {
            for tick in [1, 2, 3, 65_535, 1_193_182, 77_777_777] {
                let ns = ns_of_tick(tick, hz);
                assert!(ticks_at(ns, hz) >= tick, "{hz} {tick}");
                assert!(ticks_at(ns - 1, hz) < tick, "{hz} {tick}");
            }
        }
    }

    #[test]
    fn overflow_saturates() {
        assert_eq!(ns_of_tick(u64::MAX, 1), u64::MAX);
        assert_eq!(ticks_at(u64::MAX, u64::MAX), u64::MAX);
    }

    #[test]
    fn earlier_prefers_the_armed_one() {
        assert_eq!(earlier(None, Some(3)), Some(3));
        assert_eq!(earlier(Some(2), Some(3)), Some(2));
        assert_eq!(earlier(None, None), None);
    }
}
