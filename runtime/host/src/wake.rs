//! A descriptor that wakes a thread out of its wait for files.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// A descriptor that is readable once [`Wake::signal`] was called.
#[derive(Debug)]
pub struct Wake {
    event: OwnedFd,
    /// Told, and the thread has not looked yet.
    told: AtomicBool,
    stop: AtomicBool,
}

impl Wake {
    /// One that is not signalled.
    ///
    /// # Errors
    ///
    /// When the host gives no file descriptor.
    pub fn new() -> io::Result<Wake> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Wake { event, told: AtomicBool::new(false), stop: AtomicBool::new(false) })
    }

    /// Tells the thread to look.
    pub fn signal(&self) {
        if !self.told.swap(true, Ordering::AcqRel) {
            // Fails only when the counter is full: the thread is being woken already.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    /// The thread is about to look.
    pub fn clear(&self) {
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
        // Before what it is about is looked for.
        self.told.swap(false, Ordering::AcqRel);
    }

    /// Tells the thread to end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.signal();
    }

    /// Whether the thread is to end.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    #[test]
    fn what_is_told_is_seen_until_it_was_looked_at() {
        let wake = Wake::new().unwrap();
        let readable = || poll(&mut [PollFd::new(&wake, PollFlags::IN)], Some(&Timespec::default())).unwrap() == 1;
        assert!(!readable());
        wake.signal();
        wake.signal();
        assert!(readable());
        wake.clear();
        assert!(!readable() && !wake.is_stopped());
        wake.signal();
        wake.clear();
        wake.stop();
        assert!(readable() && wake.is_stopped());
    }
}
