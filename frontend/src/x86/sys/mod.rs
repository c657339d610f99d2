//! System instructions, interrupts and exceptions.
//!
//! A helper that raises an exception has changed nothing yet, but for bits that the processor may set early: accessed
//! bits of descriptors and pages.

pub mod acceptance;
mod canonical;
pub mod control;
pub mod descriptor;
pub mod flags;
pub mod gate;
pub mod interrupt;
pub mod msr;
pub mod port;
pub mod segment;
pub mod stack;
pub mod task;
pub mod transfer;

use super::cpu::{Cpu, Raised, Result};
use super::exception::{Exception, vector};

/// What a helper returns: its value, or 0 with an exception pending.
fn value(result: Result<u64>) -> u64 {
    result.unwrap_or(0)
}

/// What a helper without a value returns: 0, with an exception pending or not.
fn done(_: Result<()>) -> u64 {
    0
}

/// The low `bytes` (2, 4, 8) of `value`.
const fn truncate(value: u64, bytes: u32) -> u64 {
    match bytes {
        2 => value & 0xffff,
        4 => value & 0xffff_ffff,
        _ => value,
    }
}

impl Cpu {
    /// Raises #GP(0).
    pub(crate) fn gp0(&mut self) -> Raised {
        self.raise(Exception::gp(0))
    }

    /// Raises #UD.
    pub(crate) fn ud(&mut self) -> Raised {
        self.raise(Exception::ud())
    }

    /// Raises `vector` with a selector error code (SDM vol. 3A, 6.13); `ext` is its bit 0.
    pub(crate) fn selector_fault(&mut self, vector: u8, selector: u16, ext: u32) -> Raised {
        self.raise(Exception::with_code(vector, u32::from(selector & 0xfffc) | ext))
    }

    /// #GP(0) unless CPL is 0.
    pub(crate) fn require_cpl0(&mut self) -> Result<()> {
        if self.state.cpl() == 0 { Ok(()) } else { Err(self.gp0()) }
    }

    /// #UD in real and virtual-8086 mode.
    pub(crate) fn require_protected(&mut self) -> Result<()> {
        if self.state.protected() && !self.state.vm86() { Ok(()) } else { Err(self.ud()) }
    }

    /// `#GP(0)` unless `addr` is canonical.
    pub(crate) fn require_canonical(&mut self, addr: u64) -> Result<()> {
        if self.state.canonical(addr) { Ok(()) } else { Err(self.raise(Exception::with_code(vector::GP, 0))) }
    }
}
