//! The RISC-V env: registers as compiled code and helpers see them.

use bytemuck::{Pod, Zeroable};
use mimus_ir::{EnvSlot, Type};
use serde::{Deserialize, Serialize};

pub use super::registers::{Countinhibit, Envcfg, Exceptions, Interrupts, Mstatus};
use crate::common::reservation::{Reservation, Slots};

/// PMP entries that there are.
pub const PMP_ENTRIES: usize = 16;

/// Privilege modes (vol. II, "Privilege Levels").
#[allow(missing_docs)]
pub mod privilege {
    pub const USER: u64 = 0;
    pub const SUPERVISOR: u64 = 1;
    pub const MACHINE: u64 = 3;
}

/// A counter of time.
#[derive(Clone, Copy, PartialEq, Debug, Pod, Zeroable, Serialize, Deserialize)]
#[repr(C)]
pub struct Counter {
    /// Its value at `since`; all of it while it is inhibited.
    pub value: u64,
    /// When it began to count from there, in nanoseconds.
    pub since: u64,
}

/// RISC-V registers. The first bytes are what translated code touches.
#[derive(Clone, Copy, PartialEq, Debug, Pod, Zeroable, Serialize, Deserialize)]
#[repr(C, align(16))]
pub struct State {
    /// Integer registers; the first is always 0.
    pub x: [u64; 32],
    /// Program counter; exact whenever the dispatcher or a helper that reads it runs.
    pub pc: u64,
    /// The present reservation (vol. I, "Load-Reserved/Store-Conditional Instructions").
    pub reservation: Reservation,
    /// fflags and the rounding mode as the IR has them ([`mimus_ir::FpEnv`]), in bits 0..32.
    pub fp_env: u64,
    /// Floating-point registers: low 64 bits of each; single precision boxed (vol. I, "NaN Boxing of Narrower Values").
    pub f: [[u64; 2]; 32],
    /// frm.
    pub frm: u64,
    /// Present privilege mode.
    pub privilege: u64,
    /// mstatus, of which sstatus is a part; without SD.
    pub mstatus: Mstatus,
    /// mie.
    pub mie: Interrupts,
    /// The bits of mip that software sets.
    pub mip: Interrupts,
    /// medeleg.
    pub medeleg: Exceptions,
    /// mideleg.
    pub mideleg: Interrupts,
    /// mtvec.
    pub mtvec: u64,
    /// mscratch.
    pub mscratch: u64,
    /// mepc.
    pub mepc: u64,
    /// mcause.
    pub mcause: u64,
    /// mtval.
    pub mtval: u64,
    /// mcounteren.
    pub mcounteren: u64,
    /// mcountinhibit.
    pub mcountinhibit: Countinhibit,
    /// menvcfg.
    pub menvcfg: Envcfg,
    /// stvec.
    pub stvec: u64,
    /// sscratch.
    pub sscratch: u64,
    /// sepc.
    pub sepc: u64,
    /// scause.
    pub scause: u64,
    /// stval.
    pub stval: u64,
    /// scounteren.
    pub scounteren: u64,
    /// senvcfg.
    pub senvcfg: Envcfg,
    /// satp.
    pub satp: u64,
    /// stimecmp (Sstc).
    pub stimecmp: u64,
    /// mcycle.
    pub cycle: Counter,
    /// minstret, which counts where [`State::counting`] is set and mcountinhibit.IR is not.
    pub instret: u64,
    /// 1 once minstret or instret has been read or written: code translated before does not count.
    pub counting: u64,
    /// pmpcfg, a byte an entry.
    pub pmpcfg: [u8; PMP_ENTRIES],
    /// pmpaddr.
    pub pmpaddr: [u64; PMP_ENTRIES],
    /// 1 while WFI waits for an interrupt.
    pub halted: u64,
    /// Unused.
    pub pad: u64,
}

/// Env slots by name.
pub mod slot {
    use super::*;

    macro_rules! slots {
        ($($(#[$doc:meta])* $name:ident $field:ident;)*) => {
            $($(#[$doc])* pub const $name: EnvSlot =
                EnvSlot { offset: std::mem::offset_of!(State, $field) as u16, ty: Type::I64 };)*
            /// All of them with their names.
            pub const ALL: &[(EnvSlot, &str)] =
                &[(RESERVATION.address, "reservation"), (RESERVATION.value, "reserved"), $(($name, stringify!($field))),*];
        };
    }

    /// The reservation.
    pub const RESERVATION: Slots = Reservation::slots(std::mem::offset_of!(State, reservation));

    slots! {
        /// Program counter.
        PC pc;
        /// mstatus.
        MSTATUS mstatus;
        /// minstret.
        INSTRET instret;
    }
}

/// Slot of an integer register other than the first.
pub const fn x_slot(number: u8) -> EnvSlot {
    EnvSlot { offset: (std::mem::offset_of!(State, x) + 8 * (number & 31) as usize) as u16, ty: Type::I64 }
}

/// Slot of a floating-point register as a vector: what is above its 64 bits has no meaning.
pub const fn f_slot(number: u8) -> EnvSlot {
    EnvSlot { offset: (std::mem::offset_of!(State, f) + 16 * (number & 31) as usize) as u16, ty: Type::V128 }
}

impl Default for State {
    /// The state after reset (vol. II, "Reset"), with the program counter at 0.
    fn default() -> State {
        let mut s = State::zeroed();
        s.privilege = privilege::MACHINE;
        s.reservation = Reservation::default();
        s.stimecmp = u64::MAX;
        s.fp_env = super::float::FP_ENV_RESET.bits().into();
        s
    }
}

impl State {
    /// Writes integer register `number`, unless it is the first.
    pub fn set_x(&mut self, number: u8, value: u64) {
        if number & 31 != 0 {
            self.x[usize::from(number & 31)] = value;
        }
    }

    /// MPP.
    pub const fn mpp(&self) -> u64 {
        self.mstatus.intersection(Mstatus::MPP).bits() >> Mstatus::MPP_SHIFT
    }

    /// Privilege that loads and stores are made with: MPP's in machine mode with MPRV.
    pub const fn data_privilege(&self) -> u64 {
        if self.privilege == privilege::MACHINE && self.mstatus.intersects(Mstatus::MPRV) {
            self.mpp()
        } else {
            self.privilege
        }
    }
}
