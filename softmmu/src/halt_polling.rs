//! Looking for what is awaited for a little while before sleeping: to be woken takes the host longer than a disk's cache takes
//! to answer. Others who want the processor have it meanwhile.

use std::time::{Duration, Instant};

/// What is tried first.
const LEAST: Duration = Duration::from_micros(10);
/// The longest that is ever looked.
const MOST: Duration = Duration::from_micros(250);

/// How long to look before sleeping, as it was worthwhile before: nothing where waiting takes long.
#[derive(Debug)]
pub struct HaltPolling {
    span: Duration,
    /// None if who is awaited needs the processor.
    most: Duration,
}

impl Default for HaltPolling {
    /// One that has seen nothing yet.
    fn default() -> HaltPolling {
        let alone = std::thread::available_parallelism().is_ok_and(|count| count.get() == 1);
        HaltPolling { span: Duration::ZERO, most: if alone { Duration::ZERO } else { MOST } }
    }
}

impl HaltPolling {
    /// What `look` finds, or else `sleep` brings.
    pub fn wait<T>(&mut self, mut look: impl FnMut() -> Option<T>, sleep: impl FnOnce() -> T) -> T {
        if let Some(found) = look() {
            return found;
        }
        let start = Instant::now();
        while start.elapsed() < self.span {
            std::thread::yield_now();
            if let Some(found) = look() {
                return found;
            }
        }
        let found = sleep();
        self.learn(start.elapsed());
        found
    }

    /// It slept, and all of the waiting took so long.
    fn learn(&mut self, waited: Duration) {
        self.span = if waited > self.most { Duration::ZERO } else { (self.span * 2).max(LEAST).min(self.most) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_short_times_looks_and_who_waits_long_sleeps() {
        let mut polling = HaltPolling { span: Duration::ZERO, most: MOST };
        let spans: Vec<u128> = [30, 50, 90, 100, 200, 250, 250, 251, 30, 5_000_000]
            .map(|waited| {
                polling.learn(Duration::from_micros(waited));
                polling.span.as_micros()
            })
            .to_vec();
        assert_eq!(spans, [10, 20, 40, 80, 160, 250, 250, 0, 10, 0]);
        let mut alone = HaltPolling { span: Duration::ZERO, most: Duration::ZERO };
        alone.learn(Duration::from_micros(1));
        assert_eq!(alone.span, Duration::ZERO);
    }

    #[test]
    fn what_is_there_while_it_looks_needs_no_sleep() {
        let mut polling = HaltPolling { span: Duration::from_secs(3600), most: MOST };
        let mut left = 3;
        let look = || {
            left -= 1;
            (left == 0).then_some("found")
        };
        assert_eq!(polling.wait(look, || panic!("it slept")), "found");
        polling.span = Duration::ZERO;
        assert_eq!(polling.wait(|| None, || "slept"), "slept");
    }
}
