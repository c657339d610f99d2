//! Guest time, and the thread that wakes a vCPU when a device's time has come.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::kick::Kicker;

/// Frequency of the guest's time stamp counter in Hz: one count a nanosecond.
pub const TSC_HZ: u64 = 1_000_000_000;

/// Nanoseconds since power-on.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts now.
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// Guest time in nanoseconds.
    pub fn now(&self) -> u64 {
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
            std::thread::Builder::new().name("timer".into()).spawn(move || Timer::run(&own, clock, &kicker))?;
        Ok(Timer { shared, thread: Some(thread) })
    }

    /// A handle to arm it.
    pub fn alarm(&self) -> Alarm {
        Alarm { shared: self.shared.clone() }
    }

    fn run(shared: &Shared, clock: Clock, kicker: &Kicker) {
        let mut armed = shared.armed.lock().unwrap_or_else(PoisonError::into_inner);
        while !armed.stop {
            let now = clock.now();
            match armed.deadline {
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
