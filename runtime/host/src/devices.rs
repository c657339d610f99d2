//! A PC's devices, as the vCPU's thread and the threads of displays share them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mimus_hw::Pc;

/// The devices, shared with the threads that bring input.
pub type SharedPc = Arc<Mutex<Pc>>;

/// Locks the devices. A device that panicked is a bug that was reported; its state is still consistent enough to go on.
pub fn lock(pc: &SharedPc) -> MutexGuard<'_, Pc> {
    pc.lock().unwrap_or_else(PoisonError::into_inner)
}
