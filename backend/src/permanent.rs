//! Memory for code that lives as long as the machine: thunks and stubs, by `cranelift-jit`.
//!
//! A [`JITModule`] frees nothing before its end, which is what thunks want and translations do not: those are in the
//! [`crate::Arena`].

use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::{Mutex, PoisonError};

use cranelift_codegen::ir::Signature;
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, Module, ModuleError, default_libcall_names};

use crate::compile::CODE_ALIGN;
use crate::error::BackendError;
use crate::exec::HostAddr;
use crate::host::HostIsa;

impl From<ModuleError> for BackendError {
    fn from(e: ModuleError) -> BackendError {
        BackendError::Permanent(e.to_string())
    }
}

/// Code that is not executable yet: all of it becomes so at once, so that it shares pages.
pub(crate) struct PermanentBuilder {
    module: JITModule,
    signature: Signature,
}

impl PermanentBuilder {
    pub(crate) fn new(host: &HostIsa) -> PermanentBuilder {
        let module = JITModule::new(JITBuilder::with_isa(host.isa.clone(), default_libcall_names()));
        // Nobody calls these functions by name, so none looks at what they take.
        PermanentBuilder { module, signature: Signature::new(host.c_call_conv()) }
    }

    /// Adds code without relocations.
    pub(crate) fn add(&mut self, code: &[u8]) -> Result<FuncId, BackendError> {
        let id = self.module.declare_anonymous_function(&self.signature)?;
        self.module.define_function_bytes(id, CODE_ALIGN.into(), code, &[])?;
        Ok(id)
    }

    /// Makes it executable, and read-only.
    pub(crate) fn finish(mut self) -> Result<Permanent, BackendError> {
        self.module.finalize_definitions()?;
        Ok(Permanent { module: Mutex::new(ManuallyDrop::new(self.module)) })
    }
}

/// Executable code, until it is dropped.
pub(crate) struct Permanent {
    /// Behind a lock that is taken while thunks are made and dropped, since a module may not be looked at by two threads.
    module: Mutex<ManuallyDrop<JITModule>>,
}

impl Permanent {
    /// Where the code that `add` gave this name begins.
    pub(crate) fn address(&self, id: FuncId) -> HostAddr {
        let module = self.module.lock().unwrap_or_else(PoisonError::into_inner);
        HostAddr(module.get_finalized_function(id) as u64)
    }
}

impl fmt::Debug for Permanent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permanent").finish_non_exhaustive()
    }
}

impl Drop for Permanent {
    fn drop(&mut self) {
        let module = self.module.get_mut().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: nobody sees the field again. Only `enter` leads to this code, and it borrows the thunks that own it.
        unsafe { ManuallyDrop::take(module).free_memory() };
    }
}
