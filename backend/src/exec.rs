//! Entering compiled code from Rust, and the reason that it comes back with.

use mimus_softmmu::{EnvHeader, ExitCode};

#[cfg(all(target_arch = "x86_64", unix))]
use crate::target::x64::mxcsr;
use crate::thunks::Thunks;

/// Address of host code in the executable view of an [`crate::Arena`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostAddr(pub u64);

/// Runs compiled code from `entry` until it comes back to the dispatcher.
///
/// # Safety
///
/// - `thunks` and the code at `entry`, with every block linked to it, lie in arenas that are not dropped, and in
///   generations not freed, while this runs; `entry` is what [`crate::Arena::publish`] gave plus the block's
///   [`crate::CompiledInfo::entry_offset`].
/// - `env` points to an env, aligned to 16 bytes, that is large enough for every offset in the blocks' ops, has its
///   [`mimus_softmmu::EnvHeader`] at the offset that both were compiled for, and is used by no one else meanwhile
///   but through `exit_request`.
/// - The header is filled in as its documentation says, with pointers valid throughout: the TLB bank with its mask,
///   whose every matching tag has an addend that leads to mapped memory; the link table with an entry for each slot
///   number; the jump cache with its mask; helpers of the documented signature; [`Thunks::install`] done and
///   `slow_rust` set.
pub unsafe fn enter(thunks: &Thunks, env: *mut u8, entry: HostAddr) -> ExitCode {
    // SAFETY: `thunks.entry` is the entry trampoline, compiled for exactly this signature (`Thunks::new`); the caller
    // keeps its arena alive.
    let code = unsafe {
        let header = env.add(thunks.header_offset()).cast::<EnvHeader>();
        if thunks.floats() && (*header).fp_env_offset != 0 {
            call_with_floats(thunks, env, header, entry)
        } else {
            call(thunks, env, entry)
        }
    };
    // Only constants of this enum are ever returned by compiled code.
    ExitCode::from_code(code).unwrap_or(ExitCode::Stopped)
}

/// # Safety
///
/// As of [`enter`].
unsafe fn call(thunks: &Thunks, env: *mut u8, entry: HostAddr) -> u64 {
    type Trampoline = unsafe extern "C" fn(*mut u8, u64) -> u64;
    // SAFETY: `thunks.entry` is the entry trampoline, compiled for exactly this signature (`Thunks::new`); the caller
    // keeps its arena alive.
    unsafe { std::mem::transmute::<usize, Trampoline>(thunks.entry().0 as usize)(env, entry.0) }
}

/// Enters with the guest's floating-point environment in the host's register, exceptions masked, and takes the flags raised back.
///
/// # Safety
///
/// As of [`enter`]; `header` is the header of `env`, whose `fp_env_offset` is that of four bytes in env.
#[cfg(all(target_arch = "x86_64", unix))]
unsafe fn call_with_floats(thunks: &Thunks, env: *mut u8, header: *mut EnvHeader, entry: HostAddr) -> u64 {
    // SAFETY: by the caller's promise.
    unsafe { mxcsr::call(thunks.entry().0, env, header, entry.0) }
}

/// # Safety
///
/// As of [`enter`].
#[cfg(not(all(target_arch = "x86_64", unix)))]
unsafe fn call_with_floats(thunks: &Thunks, env: *mut u8, _: *mut EnvHeader, entry: HostAddr) -> u64 {
    // SAFETY: by the caller's promise.
    unsafe { call(thunks, env, entry) }
}
