//! RISC-V: RV64GC with the extensions of [`isa::EXTENSIONS`], in machine, supervisor and user mode.
//!
//! Sources are the RISC-V Instruction Set Manual, volume I (unprivileged, "vol. I") and volume II (privileged, "vol. II"),
//! both of 2024, by chapter names, since numbers change from edition to edition.
//!
//! # The seam to a machine
//!
//! **A vCPU** is a [`Cpu`], made by [`Cpu::new`] of RAM, the code sink, a [`Bus`] and [`Features`] (number of the hart, counter
//! frequency); [`Cpu::reset`] takes it to machine mode at [`Features::reset_pc`]. A machine starts firmware by setting `state.pc`
//! and `state.x` (`a0` is `x[10]`), then calling [`Cpu::update_mode`].
//!
//! **Interrupts** are levels, bits of mip in a word that the vCPU and any thread share: [`Lines`], cloned from `cpu.lines`. A
//! device's thread does `lines.set(irq::SEIP, true)` and kicks the vCPU, as for a PC's INTR. The numbers are in [`irq`]: MSIP
//! and SSIP (software, from the CLINT or ACLINT), MTIP (from mtimecmp), MEIP and SEIP (the PLIC's two contexts of the hart).
//! STIP is not a line: Sstc's stimecmp makes it inside of the vCPU, or firmware sets it.
//!
//! **The dispatcher** is the one of every guest, `Vcpu<Cpu>` in the runtime, by [`crate::common::guest::GuestCpu`]. Its owner,
//! whenever it has seen `exit_request`, calls [`Cpu::take_interrupt`] before it runs the next block; that enters the trap handler
//! if an interrupt is pending and enabled, and says whether it did. An instruction that enables an interrupt sets `exit_request`
//! itself. There is no acknowledgement: software quiets the device.
//!
//! **Sleep.** WFI sets `state.halted`. The machine sleeps until the next of its own deadlines or [`Bus::set_timer`]'s, or a kick;
//! [`Cpu::wakes`] says whether to go on (a pending interrupt that is enabled in mie, whatever mstatus says), and clears
//! `halted` if so.
//!
//! **Time** is [`Bus::time`]: mtime, in ticks of 10 MHz ([`TIME_HZ`]), of the machine's one clock. [`Bus::set_timer`] tells the
//! machine when to kick the vCPU for stimecmp (absolute, in ticks; `u64::MAX` for never): the CPU compares by itself.
//!
//! **Faults on the bus.** [`Bus::exists`] says whether a device answers at a physical address outside RAM; where none does the
//! vCPU raises an access fault. RAM and devices may be anywhere below 2^56.

mod bus;
pub mod compressed;
pub mod cpu;
pub mod csr;
mod debug;
pub mod disasm;
mod engine;
pub mod float;
pub mod helpers;
pub mod isa;
pub mod lift;
pub mod mode;
pub mod paging;
mod pmp;
#[expect(missing_docs, reason = "the names are the manual's")]
mod registers;
mod saved;
pub mod semihost;
pub mod state;
pub mod trap;

pub use crate::common::NoDevices;
pub use bus::{Bus, Lines, TIME_HZ, irq};
pub use cpu::{Cpu, Features};
pub use mode::Mode;
pub use saved::{CpuState, RestoreError};
