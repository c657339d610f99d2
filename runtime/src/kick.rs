//! Getting a vCPU's attention from another thread, and its sleep.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Where a vCPU's exit request is. Null once the vCPU is gone.
struct Request(*const AtomicU32);

// SAFETY: the pointee is an atomic, and `Kicker::detach` replaces the pointer before the vCPU that owns it goes away.
unsafe impl Send for Request {}

struct State {
    request: Request,
    /// Kicked since it last looked.
    kicked: bool,
    /// It sleeps: only then does anybody have to be woken, which is a system call.
    asleep: bool,
}

/// Makes one vCPU leave compiled code or wake from HLT.
pub struct Kicker {
    state: Mutex<State>,
    wake: Condvar,
}

impl Kicker {
    /// A kicker not attached to a vCPU yet.
    pub fn new() -> Arc<Kicker> {
        Arc::new(Kicker {
            state: Mutex::new(State { request: Request(std::ptr::null()), kicked: false, asleep: false }),
            wake: Condvar::new(),
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
        let mut state = self.lock();
        state.kicked = true;
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
        self.lock().kicked = false;
    }

    /// Sleeps until kicked or `timeout` is over.
    pub fn sleep(&self, timeout: Option<Duration>) {
        let mut state = self.lock();
        state.asleep = true;
        let waits = |s: &mut State| !s.kicked;
        let mut state = match timeout {
            Some(timeout) => {
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
