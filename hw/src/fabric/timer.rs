//! Timers: devices say when they have something to do, one queue of a machine knows when the first of them has.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use super::lock::lock;

/// In [`Queue::earliest`]: no timer is armed.
const NEVER: u64 = u64::MAX;

/// What is called with the earliest deadline when it gets earlier.
type Alarm = Box<dyn Fn(u64) + Send + Sync>;

struct Queue {
    /// Deadlines and the timers' numbers.
    armed: Mutex<BTreeSet<(u64, u32)>>,
    /// The first deadline, for who only looks.
    earliest: AtomicU64,
    alarm: OnceLock<Alarm>,
}

/// The deadlines of a machine's devices, in guest nanoseconds since power-on. Clones are the same queue.
#[derive(Clone)]
pub struct TimerQueue(Arc<Queue>);

impl TimerQueue {
    /// A queue without timers.
    pub(crate) fn new() -> TimerQueue {
        let queue = Queue { armed: Mutex::default(), earliest: AtomicU64::new(NEVER), alarm: OnceLock::new() };
        TimerQueue(Arc::new(queue))
    }

    /// A timer, which the board knows by `number`.
    pub(crate) fn timer(&self, number: u32) -> Timer {
        Timer { queue: Some(self.clone()), number, deadline: None }
    }

    /// The earliest deadline; none when no timer is armed. Takes no lock.
    pub fn next_deadline(&self) -> Option<u64> {
        Some(self.0.earliest.load(Ordering::Acquire)).filter(|&at| at != NEVER)
    }

    /// Has `alarm` called whenever the earliest deadline gets earlier, by whoever sets that. Later calls change nothing.
    pub fn on_earlier(&self, alarm: impl Fn(u64) + Send + Sync + 'static) {
        // Only the first one counts.
        let _ = self.0.alarm.set(Box::new(alarm));
    }

    /// The numbers of the timers that are due, in the order of their deadlines. They stay so until their devices set them anew.
    pub(crate) fn due(&self, now: u64) -> Vec<u32> {
        if self.0.earliest.load(Ordering::Acquire) > now {
            return Vec::new();
        }
        self.armed().iter().take_while(|(at, _)| *at <= now).map(|(_, number)| *number).collect()
    }

    fn armed(&self) -> MutexGuard<'_, BTreeSet<(u64, u32)>> {
        lock(&self.0.armed)
    }

    fn change(&self, number: u32, before: Option<u64>, after: Option<u64>) {
        let mut armed = self.armed();
        if let Some(at) = before {
            armed.remove(&(at, number));
        }
        armed.extend(after.map(|at| (at, number)));
        let earliest = armed.first().map_or(NEVER, |(at, _)| *at);
        let old = self.0.earliest.swap(earliest, Ordering::AcqRel);
        drop(armed);
        if earliest < old
            && let Some(alarm) = self.0.alarm.get()
        {
            alarm(earliest);
        }
    }
}

impl std::fmt::Debug for TimerQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TimerQueue").field("next_deadline", &self.next_deadline()).finish()
    }
}

/// A device's timer. One that belongs to no queue can be set all the same.
#[derive(Default)]
pub(crate) struct Timer {
    queue: Option<TimerQueue>,
    number: u32,
    deadline: Option<u64>,
}

impl Timer {
    /// Says when the device has something to do next. To say the same again costs nothing.
    pub(crate) fn set(&mut self, deadline: Option<u64>) {
        let before = std::mem::replace(&mut self.deadline, deadline);
        if let Some(queue) = self.queue.as_ref().filter(|_| before != deadline) {
            queue.change(self.number, before, deadline);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_deadline_is_known_and_told() {
        let queue = TimerQueue::new();
        let told = Arc::new(Mutex::new(Vec::new()));
        let notes = told.clone();
        queue.on_earlier(move |at| notes.lock().unwrap().push(at));
        let [mut a, mut b] = [queue.timer(1), queue.timer(2)];
        assert_eq!(queue.next_deadline(), None);
        a.set(Some(500));
        b.set(Some(700));
        b.set(Some(300));
        b.set(Some(300));
        assert_eq!((queue.next_deadline(), queue.due(299)), (Some(300), vec![]));
        assert_eq!((queue.due(300), queue.due(500)), (vec![2], vec![2, 1]));
        b.set(None);
        assert_eq!((queue.next_deadline(), queue.due(500)), (Some(500), vec![1]));
        drop(a);
        assert_eq!((queue.next_deadline(), queue.due(u64::MAX - 1)), (None, vec![]));
        assert_eq!(*told.lock().unwrap(), [500, 300]);
        Timer::default().set(Some(1));
    }
}
