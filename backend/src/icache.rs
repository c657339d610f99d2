//! Making freshly written code visible to instruction fetch, which x86-64 does by itself and other hosts do not.

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64", target_arch = "s390x")))]
compile_error!("instruction cache maintenance is not known for this host");

use rustix::thread::{MembarrierCommand, membarrier};

/// Tells the kernel that [`sync_all_threads`] will be used. Kernels without it are let be: they run one
/// thread per core between interrupts, which serialize.
pub(crate) fn register() {
    let _ = membarrier(MembarrierCommand::RegisterPrivateExpeditedSyncCore);
}

/// Makes every thread of the process discard instructions it fetched ahead, before memory that held other code
/// is used again. SDM vol. 3A, 11.1.3 "Handling Self- and Cross-Modifying Code": code written through another
/// linear address needs a serializing instruction on the core that runs it; Arm ARM, B2.4.4 asks for an ISB.
pub(crate) fn sync_all_threads() {
    let _ = membarrier(MembarrierCommand::PrivateExpeditedSyncCore);
}

/// Makes `len` bytes just written at `written` visible to instruction fetch at `executed`, its executable alias.
///
/// # Safety
///
/// Both ranges are mapped.
pub(crate) unsafe fn sync(written: *const u8, executed: *const u8, len: usize) {
    #[cfg(target_arch = "aarch64")]
    {
        // SAFETY: the caller maps both ranges; the instructions change no memory.
        unsafe { aarch64_sync(written, executed, len) };
    }
    #[cfg(target_arch = "riscv64")]
    {
        let _ = (written, executed, len);
        // FENCE.I orders this hart's fetches after its stores (unprivileged ISA, "Zifencei"); other harts are made
        // to do the same by the kernel.
        // SAFETY: the instruction changes no memory.
        unsafe { std::arch::asm!("fence.i", options(nostack, preserves_flags)) };
        sync_all_threads();
    }
    #[cfg(any(target_arch = "x86_64", target_arch = "s390x"))]
    {
        // Instruction fetch is coherent with stores.
        let _ = (written, executed, len);
    }
}

/// Arm ARM, B2.4.4 "Concurrent modification and execution of instructions": clean the data cache to the point of
/// unification, invalidate the instruction cache, with barriers between.
///
/// # Safety
///
/// Both ranges are mapped.
#[cfg(target_arch = "aarch64")]
unsafe fn aarch64_sync(written: *const u8, executed: *const u8, len: usize) {
    // The smallest line that the architecture allows is 16 bytes; CTR_EL0 has the actual ones.
    let ctr: u64;
    // SAFETY: CTR_EL0 may be read at EL0 under Linux.
    unsafe { std::arch::asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack, preserves_flags)) };
    let lines = |shift: u32| 4usize << ((ctr >> shift) & 15);
    let (data_line, code_line) = (lines(16), lines(0));
    let mut at = written as usize & !(data_line - 1);
    while at < written as usize + len {
        // SAFETY: the line overlaps a mapped range.
        unsafe { std::arch::asm!("dc cvau, {}", in(reg) at, options(nostack, preserves_flags)) };
        at += data_line;
    }
    // SAFETY: a barrier.
    unsafe { std::arch::asm!("dsb ish", options(nostack, preserves_flags)) };
    let mut at = executed as usize & !(code_line - 1);
    while at < executed as usize + len {
        // SAFETY: the line overlaps a mapped range.
        unsafe { std::arch::asm!("ic ivau, {}", in(reg) at, options(nostack, preserves_flags)) };
        at += code_line;
    }
    // SAFETY: barriers.
    unsafe { std::arch::asm!("dsb ish", "isb", options(nostack, preserves_flags)) };
    sync_all_threads();
}
