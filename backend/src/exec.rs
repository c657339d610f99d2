//! Entering compiled code.

use mimus_softmmu::{EnvHeader, ExitCode};

use crate::thunks::{RUST_MXCSR, Thunks};

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
        if thunks.floats() && (*header).mxcsr_offset != 0 {
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

/// Enters with the guest's MXCSR in the host's register, exceptions masked, and takes the flags raised back.
///
/// # Safety
///
/// As of [`enter`]; `header` is the header of `env`, whose `mxcsr_offset` is that of four bytes in env.
#[cfg(all(target_arch = "x86_64", unix))]
unsafe fn call_with_floats(thunks: &Thunks, env: *mut u8, header: *mut EnvHeader, entry: HostAddr) -> u64 {
    let code: u64;
    // SAFETY: the trampoline is a function of the C convention, as in `call`, and the stack is aligned for it here;
    // what it may clobber is declared, and R12 and R13 it preserves. MXCSR is as Rust wants it at the end. The fields
    // and the guest's MXCSR are in env, which the caller gives up meanwhile.
    unsafe {
        let guest = env.add((*header).mxcsr_offset as usize).cast::<u32>();
        (*header).floats = 0;
        (*header).live_mxcsr = guest.read() | RUST_MXCSR;
        std::arch::asm!(
            "ldmxcsr [r12]",
            "call r13",
            "cmp dword ptr [r14], 0",
            "je 2f",
            "stmxcsr [r12]",
            "2:",
            "ldmxcsr [r15]",
            inlateout("rdi") env => _,
            inlateout("rsi") entry.0 => _,
            lateout("rax") code,
            in("r12") &raw mut (*header).live_mxcsr,
            in("r13") thunks.entry().0,
            in("r14") &raw mut (*header).floats,
            in("r15") &RUST_MXCSR,
            clobber_abi("sysv64"),
        );
        if (*header).floats != 0 {
            guest.write(guest.read() | (*header).live_mxcsr & FLAGS);
        }
    }
    code
}

/// # Safety
///
/// As of [`enter`].
#[cfg(not(all(target_arch = "x86_64", unix)))]
unsafe fn call_with_floats(thunks: &Thunks, env: *mut u8, _: *mut EnvHeader, entry: HostAddr) -> u64 {
    // SAFETY: by the caller's promise.
    unsafe { call(thunks, env, entry) }
}

/// The status flags of MXCSR (SDM vol. 1, 10.2.3).
const FLAGS: u32 = 0x3f;
