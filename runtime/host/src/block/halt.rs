//! `rerror=`, `werror=`: what a disk that cannot do what it should tells its machine, which it may stop.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::LONGEST_SLEEP;
use super::counters::{Counters, IoStatus};
use super::throttle::Groups;
use mimus_softmmu::kick::Kicker;

/// Faults that the machine has not heard of; it misses those that come then.
const FAULTS: usize = 64;

/// What is done about a request that failed, in QMP's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The guest hears of no error.
    Ignore,
    /// It does.
    Report,
    /// The machine stops.
    Stop,
}

impl Action {
    /// QMP's word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Action::Ignore => "ignore",
            Action::Report => "report",
            Action::Stop => "stop",
        }
    }
}

/// A request that the host could not do.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The disk's.
    pub counters: Arc<Counters>,
    /// Whether it was anything but a read.
    pub writes: bool,
    /// What is done about it.
    pub action: Action,
    /// The host has no room.
    pub no_space: bool,
    /// The host's words for why.
    pub reason: String,
}

impl Fault {
    pub(super) fn new(counters: Arc<Counters>, writes: bool, action: Action, error: &io::Error) -> Fault {
        let whole = error.to_string();
        // Rust adds the number to the words of `strerror`.
        let reason = whole.split(" (os error").next().unwrap_or_default().to_owned();
        Fault { counters, writes, action, no_space: is_full(error), reason }
    }
}

/// Whether the host has no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::StorageFull
}

/// What a machine and its disks tell each other, and what the disks share.
#[derive(Debug, Default)]
pub struct Halt {
    /// A disk wants the machine to stop.
    wanted: AtomicBool,
    faults: Mutex<VecDeque<Fault>>,
    resumed: Mutex<Resumed>,
    changed: Condvar,
    /// The groups of disks.
    pub groups: Groups,
}

/// What to do when the machine goes on.
#[derive(Debug, Default)]
struct Resumed {
    /// How often it has.
    times: u64,
    /// The disks that have stopped it since.
    waiting: Vec<Arc<Counters>>,
}

/// Nothing is behind these locks that a panic could have spoilt.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Halt {
    /// Whether a disk has wanted the machine to stop since this was asked last.
    pub fn take(&self) -> bool {
        self.wanted.swap(false, Ordering::AcqRel)
    }

    /// The next request that failed of those that nobody has heard of.
    pub fn take_fault(&self) -> Option<Fault> {
        lock(&self.faults).pop_front()
    }

    /// The machine goes on: disks try again, and are taken to be in order until they fail again.
    pub fn resume(&self) {
        let mut resumed = lock(&self.resumed);
        resumed.times += 1;
        resumed.waiting.drain(..).for_each(|disk| disk.set_status(IoStatus::Ok));
        drop(resumed);
        self.changed.notify_all();
    }

    /// Tells the machine of a request that failed.
    pub(super) fn tell(&self, kicker: &Kicker, fault: Fault) {
        let mut faults = lock(&self.faults);
        if faults.len() < FAULTS {
            faults.push_back(fault);
        }
        drop(faults);
        kicker.kick();
    }

    /// Has the machine stop for this, and waits until it goes on, or until `end` is set.
    pub(super) fn hold(&self, kicker: &Kicker, fault: Fault, end: &AtomicBool) {
        let mut resumed = lock(&self.resumed);
        let before = resumed.times;
        fault.counters.set_status(if fault.no_space { IoStatus::NoSpace } else { IoStatus::Failed });
        resumed.waiting.push(fault.counters.clone());
        // The machine tells of the fault before it tells that it has stopped.
        self.tell(kicker, fault);
        self.wanted.store(true, Ordering::Release);
        kicker.kick();
        while resumed.times == before && !end.load(Ordering::Acquire) {
            let waited = self.changed.wait_timeout(resumed, LONGEST_SLEEP);
            resumed = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
