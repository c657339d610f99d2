//! Memory for code that lives as long as the machine: thunks and stubs, from `cranelift-jit`'s memory provider.
//!
//! The provider alone, without the module that it serves: a `JITModule` looks at `PERF_BUILDID_DIR` in the environment and then
//! opens a file in `/tmp`, which the sandbox has closed. Translations are in the [`crate::Arena`].

use std::fmt;
use std::sync::{Mutex, PoisonError};

use cranelift_jit::{BranchProtection, JITMemoryKind, JITMemoryProvider, SystemMemoryProvider};

use crate::compile::CODE_ALIGN;
use crate::error::BackendError;
use crate::exec::HostAddr;

/// Code that is not executable yet: all of it becomes so at once, so that it shares pages.
#[derive(Default)]
pub(crate) struct PermanentBuilder {
    code: Vec<u8>,
}

/// A piece of code, in bytes from the first one's beginning.
#[derive(Clone, Copy)]
pub(crate) struct Offset(usize);

impl PermanentBuilder {
    /// Adds code without relocations.
    pub(crate) fn add(&mut self, code: &[u8]) -> Offset {
        let start = self.code.len().next_multiple_of(CODE_ALIGN as usize);
        self.code.resize(start, 0);
        self.code.extend_from_slice(code);
        Offset(start)
    }

    /// Makes it executable, and read-only.
    pub(crate) fn finish(self) -> Result<Permanent, BackendError> {
        let mut memory = SystemMemoryProvider::new();
        let start = memory
            .allocate(self.code.len(), CODE_ALIGN.into(), JITMemoryKind::Executable)
            .map_err(BackendError::Memory)?;
        // SAFETY: that many bytes were allocated there just now, writable until they are finalized.
        unsafe { std::ptr::copy_nonoverlapping(self.code.as_ptr(), start, self.code.len()) };
        memory.finalize(BranchProtection::None).map_err(|e| BackendError::Permanent(e.to_string()))?;
        Ok(Permanent { memory: Mutex::new(memory), start: HostAddr(start as u64) })
    }
}

/// Executable code, until it is dropped.
pub(crate) struct Permanent {
    /// Behind a lock since it may not be looked at by two threads; nobody does before it is dropped.
    memory: Mutex<SystemMemoryProvider>,
    start: HostAddr,
}

impl Permanent {
    /// Where the code begins that `add` put there.
    pub(crate) fn address(&self, code: Offset) -> HostAddr {
        HostAddr(self.start.0 + code.0 as u64)
    }
}

impl fmt::Debug for Permanent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permanent").finish_non_exhaustive()
    }
}

impl Drop for Permanent {
    fn drop(&mut self) {
        let memory = self.memory.get_mut().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: only `enter` leads to this code, and it borrows the thunks that own it.
        unsafe { memory.free_memory() };
    }
}
