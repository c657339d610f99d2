//! The trait by which a hart reaches its machine: device memory, time, and interrupt lines, whose numbers are here, too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mimus_softmmu::MmioBus;

use super::state::Interrupts;
use crate::common::NoDevices;

/// Frequency of [`Bus::time`] in Hz.
pub const TIME_HZ: u64 = 10_000_000;

/// Numbers of interrupts: positions in mip, codes in mcause (vol. II, "Machine Interrupt (mip and mie) Registers").
#[allow(missing_docs)]
pub mod irq {
    pub const SSIP: u32 = 1;
    pub const MSIP: u32 = 3;
    pub const STIP: u32 = 5;
    pub const MTIP: u32 = 7;
    pub const SEIP: u32 = 9;
    pub const MEIP: u32 = 11;
}

/// The machine's side of a hart.
pub trait Bus: MmioBus + Send {
    /// mtime, in ticks of [`TIME_HZ`].
    fn time(&mut self) -> u64;
    /// A counter that goes on all the time, in nanoseconds: what cycle and instret count.
    fn nanoseconds(&mut self) -> u64;
    /// The vCPU wants to be kicked when [`Bus::time`] has reached `deadline`; `u64::MAX` for never.
    fn set_timer(&mut self, deadline: u64);
    /// Whether something answers at physical address `gpa`, which is not RAM.
    fn exists(&mut self, gpa: u64, size: u8) -> bool;
}

/// Interrupt lines into a hart: bits of mip that devices drive. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Lines(Arc<AtomicU32>);

impl Lines {
    /// Raises or lowers line `number` ([`irq`]); whether that changed it.
    pub fn set(&self, number: u32, level: bool) -> bool {
        let bit = 1 << (number & 31);
        let old = if level { self.0.fetch_or(bit, Ordering::AcqRel) } else { self.0.fetch_and(!bit, Ordering::AcqRel) };
        (old & bit != 0) != level
    }

    /// The lines that are high.
    #[inline]
    pub fn levels(&self) -> Interrupts {
        Interrupts::from_bits_retain(self.0.load(Ordering::Acquire).into())
    }
}

impl Bus for NoDevices {
    fn time(&mut self) -> u64 {
        0
    }
    fn nanoseconds(&mut self) -> u64 {
        0
    }
    fn set_timer(&mut self, _: u64) {}
    fn exists(&mut self, _: u64, _: u8) -> bool {
        false
    }
}
