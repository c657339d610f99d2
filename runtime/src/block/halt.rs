//! `rerror=stop`, `werror=stop`: a machine is stopped while a disk of it cannot do what it should.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use super::LONGEST_SLEEP;
use crate::kick::Kicker;

/// What a machine and its disks tell each other.
#[derive(Debug, Default)]
pub struct Halt {
    /// A disk wants the machine to stop.
    wanted: AtomicBool,
    /// How often the machine has gone on.
    resumed: Mutex<u64>,
    changed: Condvar,
}

impl Halt {
    /// Whether a disk has wanted the machine to stop since this was asked last.
    pub fn take(&self) -> bool {
        self.wanted.swap(false, Ordering::AcqRel)
    }

    /// The machine goes on: disks try again.
    pub fn resume(&self) {
        *self.resumed.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    /// Has the machine stop, and waits until it goes on, or until `end` is set.
    pub(super) fn hold(&self, kicker: &Kicker, end: &AtomicBool) {
        // Nothing is behind the lock that a panic could have spoilt.
        let mut resumed = self.resumed.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *resumed;
        self.wanted.store(true, Ordering::Release);
        kicker.kick();
        while *resumed == before && !end.load(Ordering::Acquire) {
            let waited = self.changed.wait_timeout(resumed, LONGEST_SLEEP);
            resumed = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
