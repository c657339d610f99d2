//! Locks of the fabric and of what is built on it.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`. What is behind it is whole at every point where its holder can panic, so that nobody minds if one has.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
