//! Getting a vCPU's attention from another thread, and its sleep.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::halt_polling::HaltPolling;

/// Where a vCPU's exit request is. Null once the vCPU is gone.
struct Request(*const AtomicU32);

// SAFETY: the pointee is an atomic, and `Kicker::detach` replaces the pointer before the vCPU that owns it goes away.
unsafe impl Send for Request {}

struct State {
    request: Request,
    /// It sleeps: only then does anybody have to be woken, which is a system call.
    asleep: bool,
}

/// Makes one vCPU leave compiled code or wake from HLT.
pub struct Kicker {
    state: Mutex<State>,
    /// Kicked since it last looked. Set with the state locked.
    kicked: AtomicBool,
    wake: Condvar,
    /// The sleeper's.
    polling: Mutex<HaltPolling>,
}

impl Kicker {
    /// A kicker not attached to a vCPU yet.
    pub fn new() -> Arc<Kicker> {
        Arc::new(Kicker {
            state: Mutex::new(State { request: Request(std::ptr::null()), asleep: false }),
            kicked: AtomicBool::new(false),
            wake: Condvar::new(),
            polling: Mutex::new(HaltPolling::default()),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attaches the vCPU whose exit request this is.
    ///
    /// # Safety
    ///
    /// `request` must stay valid until [`Kicker::detach`] returns.
    pub unsafe fn attach(&self, request: *const AtomicU32) {
        self.lock().request = Request(request);
    }

    /// Forgets the vCPU.
    pub fn detach(&self) {
        self.lock().request = Request(std::ptr::null());
    }

    /// Makes the vCPU come to its dispatcher soon.
    pub fn kick(&self) {
        let state = self.lock();
        self.kicked.store(true, Ordering::Release);
        let request = state.request.0;
        if !request.is_null() {
            // SAFETY: valid until `detach`, which takes the same lock.
            unsafe { (*request).store(1, Ordering::Release) };
        }
        let asleep = state.asleep;
        drop(state);
        if asleep {
            self.wake.notify_one();
        }
    }

    /// Forgets kicks so far; to be called before looking for what they were about.
    pub fn clear(&self) {
        self.kicked.swap(false, Ordering::AcqRel);
    }

    fn is_kicked(&self) -> bool {
        self.kicked.load(Ordering::Acquire)
    }

    /// Sleeps until kicked or `timeout` is over. One vCPU's thread sleeps at a time.
    pub fn sleep(&self, timeout: Option<Duration>) {
        let mut polling = self.polling.lock().unwrap_or_else(PoisonError::into_inner);
        let end = timeout.map(|timeout| Instant::now() + timeout);
        let over = || end.is_some_and(|end| Instant::now() >= end);
        polling.wait(|| (self.is_kicked() || over()).then_some(()), || self.sleep_until(end));
    }

    fn sleep_until(&self, end: Option<Instant>) {
        let mut state = self.lock();
        state.asleep = true;
        let waits = |_: &mut State| !self.is_kicked();
        let mut state = match end {
            Some(end) => {
                let timeout = end.saturating_duration_since(Instant::now());
                self.wake.wait_timeout_while(state, timeout, waits).unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.wake.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner),
        };
        state.asleep = false;
    }
}

impl std::fmt::Debug for Kicker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kicker").finish_non_exhaustive()
    }
}
