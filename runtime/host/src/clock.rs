//! Guest time, and the thread that wakes a vCPU when a device's time has come.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mimus_softmmu::kick::Kicker;

/// Frequency of the guest's time stamp counter in Hz: one count a nanosecond.
pub const TSC_HZ: u64 = 1_000_000_000;

/// Nanoseconds since power-on, without those for which the machine was stopped. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct Clock {
    shared: Arc<Time>,
}

#[derive(Debug)]
struct Time {
    start: Instant,
    /// Odd while the next two change, so that nobody takes one of before with one of after.
    version: AtomicU64,
    /// Nanoseconds for which it was stopped.
    lost: AtomicU64,
    /// What it shows while it is stopped; [`RUNS`] otherwise.
    frozen: AtomicU64,
}

/// In [`Time::frozen`]: the clock runs.
const RUNS: u64 = u64::MAX;

impl Clock {
    /// Starts now.
    pub fn start() -> Clock {
        let time = Time {
            start: Instant::now(),
            version: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            frozen: AtomicU64::new(RUNS),
        };
        Clock { shared: Arc::new(time) }
    }

    /// Guest time in nanoseconds.
    pub fn now(&self) -> u64 {
        let time = &*self.shared;
        loop {
            let version = time.version.load(Ordering::Acquire);
            let (frozen, lost) = (time.frozen.load(Ordering::Acquire), time.lost.load(Ordering::Acquire));
            let now = if frozen == RUNS { time.elapsed().saturating_sub(lost) } else { frozen };
            if version & 1 == 0 && time.version.load(Ordering::Acquire) == version {
                return now;
            }
            std::hint::spin_loop();
        }
    }

    /// Whether it stands still.
    pub fn is_stopped(&self) -> bool {
        self.shared.frozen.load(Ordering::Acquire) != RUNS
    }

    /// Stops or goes on. Only one thread may call this.
    pub fn run(&self, runs: bool) {
        if runs != self.is_stopped() {
            return;
        }
        let time = &*self.shared;
        let now = self.now();
        time.version.fetch_add(1, Ordering::AcqRel);
        if runs {
            time.lost.store(time.elapsed().saturating_sub(now), Ordering::Release);
            time.frozen.store(RUNS, Ordering::Release);
        } else {
            time.frozen.store(now, Ordering::Release);
        }
        time.version.fetch_add(1, Ordering::AcqRel);
    }
}

impl Time {
    fn elapsed(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

#[derive(Debug, Default)]
struct Armed {
    deadline: Option<u64>,
    stop: bool,
}

#[derive(Debug)]
struct Shared {
    armed: Mutex<Armed>,
    changed: Condvar,
}

/// Kicks the vCPU at the next deadline.
#[derive(Debug)]
pub struct Timer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// A handle to arm a [`Timer`].
#[derive(Clone, Debug)]
pub struct Alarm {
    shared: Arc<Shared>,
}

impl Alarm {
    /// Sets the deadline in guest nanoseconds. A later one than before is noticed when the earlier is over.
    pub fn set(&self, deadline: Option<u64>) {
        let mut armed = self.shared.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = match (armed.deadline, deadline) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(old), Some(new)) => new < old,
        };
        if earlier {
            armed.deadline = deadline;
            drop(armed);
            self.shared.changed.notify_one();
        }
    }
}

impl Timer {
    /// Starts the timer's thread.
    ///
    /// # Errors
    ///
    /// When no thread can be made.
    pub fn start(clock: Clock, kicker: Arc<Kicker>) -> std::io::Result<Timer> {
        let shared = Arc::new(Shared { armed: Mutex::default(), changed: Condvar::new() });
        let own = shared.clone();
        let thread =
            std::thread::Builder::new().name("timer".into()).spawn(move || Timer::run(&own, &clock, &kicker))?;
        Ok(Timer { shared, thread: Some(thread) })
    }

    /// Has it look at the clock again, which was stopped or goes on.
    pub fn look(&self) {
        // With the lock: the thread is either before its look at the clock or waiting already.
        drop(self.shared.armed.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.changed.notify_one();
    }

    /// A handle to arm it.
    pub fn alarm(&self) -> Alarm {
        Alarm { shared: self.shared.clone() }
    }

    fn run(shared: &Shared, clock: &Clock, kicker: &Kicker) {
        let mut armed = shared.armed.lock().unwrap_or_else(PoisonError::into_inner);
        while !armed.stop {
            let now = clock.now();
            match armed.deadline.filter(|_| !clock.is_stopped()) {
                Some(deadline) if deadline <= now => {
                    armed.deadline = None;
                    drop(armed);
                    kicker.kick();
                    armed = shared.armed.lock().unwrap_or_else(PoisonError::into_inner);
                }
                Some(deadline) => {
                    let wait = Duration::from_nanos(deadline - now);
                    armed = shared.changed.wait_timeout(armed, wait).unwrap_or_else(PoisonError::into_inner).0;
                }
                None => armed = shared.changed.wait(armed).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.shared.armed.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic was printed by the thread itself.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_clock_stands_still_and_goes_on_from_there() {
        let clock = Clock::start();
        let same = clock.clone();
        clock.run(false);
        let stopped = same.now();
        std::thread::sleep(Duration::from_millis(30));
        assert!(same.is_stopped() && same.now() == stopped);
        clock.run(false);
        clock.run(true);
        let after = same.now();
        assert!(after >= stopped && after < stopped + 25_000_000, "{stopped} {after}");
        std::thread::sleep(Duration::from_millis(2));
        assert!(same.now() >= after + 2_000_000);
    }

    #[test]
    fn no_deadline_comes_while_the_clock_is_stopped() {
        let (clock, kicker) = (Clock::start(), Kicker::new());
        let timer = Timer::start(clock.clone(), kicker.clone()).unwrap();
        clock.run(false);
        timer.alarm().set(Some(clock.now() + 1_000_000));
        let before = Instant::now();
        kicker.sleep(Some(Duration::from_millis(30)));
        assert!(before.elapsed() >= Duration::from_millis(30));
        clock.run(true);
        timer.look();
        kicker.sleep(Some(Duration::from_secs(20)));
        assert!(before.elapsed() < Duration::from_secs(10));
    }
}
