//! Exceptions and interrupts (vol. II, "Machine Trap Delegation Registers", "Machine Cause (mcause) Register").

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::bus::irq;
use super::cpu::Cpu;
use super::state::{Envcfg, Interrupts, Mstatus, privilege};
use super::{float, isa};
use crate::common::guest::Raised;

/// Codes of exceptions.
#[allow(missing_docs)]
pub mod cause {
    pub const FETCH_ACCESS_FAULT: u64 = 1;
    pub const ILLEGAL: u64 = 2;
    pub const BREAKPOINT: u64 = 3;
    pub const LOAD_MISALIGNED: u64 = 4;
    pub const LOAD_ACCESS_FAULT: u64 = 5;
    pub const STORE_MISALIGNED: u64 = 6;
    pub const STORE_ACCESS_FAULT: u64 = 7;
    /// ECALL from user mode; the other modes' follow.
    pub const ECALL: u64 = 8;
    pub const FETCH_PAGE_FAULT: u64 = 12;
    pub const LOAD_PAGE_FAULT: u64 = 13;
    pub const STORE_PAGE_FAULT: u64 = 15;
    /// In mcause: an interrupt.
    pub const INTERRUPT: u64 = 1 << 63;
}

/// Interrupts from the one that is taken first (vol. II, "Machine Interrupt (mip and mie) Registers").
const PRIORITY: [u32; 6] = [irq::MEIP, irq::MSIP, irq::MTIP, irq::SEIP, irq::SSIP, irq::STIP];

/// An exception.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Trap {
    /// Its code.
    pub cause: u64,
    /// For mtval or stval.
    pub tval: u64,
}

impl Trap {
    /// No exception: a watchpoint wants the instruction executed by itself.
    pub(crate) const WATCHED: Trap = Trap { cause: u64::MAX, tval: 0 };
}

/// What is to be done about the instruction at the program counter instead of executing it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Pending {
    /// It raises an exception.
    Trap(Trap),
    /// It is an SC without a reservation: it writes 1 to `rd` and goes on behind its 4 bytes.
    FailedStore {
        /// Destination register.
        rd: u8,
    },
    /// It is a floating-point instruction with an operand or result that code for the common case is not made for.
    Float {
        /// Its word, with the rounding mode that is meant.
        word: u32,
    },
}

/// What a trap op's code stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TrapCode {
    /// An exception whose value is known when the code is translated.
    Known(Trap),
    /// An exception whose value is integer register `register`.
    Register {
        /// Code of the exception.
        cause: u64,
        /// Number of the register.
        register: u8,
    },
    /// [`Pending::FailedStore`].
    FailedStore {
        /// Destination register.
        rd: u8,
    },
    /// [`Pending::Float`].
    Float {
        /// Its word.
        word: u32,
    },
    /// No exception: the instruction is started again, as after a lost compare-and-swap.
    Retry,
}

impl TrapCode {
    /// As held in a trap op: kind in bits 0..8, code or register in bits 8..16, value or second register from bit 16 on, which
    /// must have no more than 48 bits.
    pub const fn encode(self) -> u64 {
        match self {
            TrapCode::Known(Trap { cause, tval }) => cause << 8 | tval << 16,
            TrapCode::Register { cause, register } => 1 | cause << 8 | (register as u64) << 16,
            TrapCode::FailedStore { rd } => 2 | (rd as u64) << 8,
            TrapCode::Float { word } => 3 | (word as u64) << 16,
            TrapCode::Retry => 4,
        }
    }

    /// From a trap op.
    pub const fn decode(code: u64) -> TrapCode {
        let low = code >> 8 & 0xff;
        match code & 0xff {
            0 => TrapCode::Known(Trap { cause: low, tval: code >> 16 }),
            1 => TrapCode::Register { cause: low, register: (code >> 16) as u8 & 31 },
            2 => TrapCode::FailedStore { rd: low as u8 & 31 },
            3 => TrapCode::Float { word: (code >> 16) as u32 },
            _ => TrapCode::Retry,
        }
    }
}

impl Cpu {
    /// Makes an exception pending. The instruction at the program counter must have had no side effect yet.
    #[cold]
    pub fn raise(&mut self, trap: Trap) -> Raised {
        self.core.refuse(trap)
    }

    pub(crate) fn set_pending(&mut self, pending: Pending) {
        self.core.raise(pending);
    }

    /// Makes an illegal-instruction exception pending for the instruction word `word`.
    #[cold]
    pub(crate) fn raise_illegal(&mut self, word: u32) -> Raised {
        self.raise(Trap { cause: cause::ILLEGAL, tval: word.into() })
    }

    /// mip: lines, what software has set, and stimecmp's interrupt.
    pub fn mip(&mut self) -> Interrupts {
        let sstc = self.state.menvcfg.intersects(Envcfg::STCE);
        let mut mip = self.state.mip | self.lines.levels();
        if sstc {
            let due = self.state.stimecmp != u64::MAX && self.bus.time() >= self.state.stimecmp;
            mip.set(Interrupts::STI, due);
        }
        mip
    }

    /// The interrupt to be taken now, if there is one.
    pub fn pending_interrupt(&mut self) -> Option<u32> {
        if self.state.mie.is_empty() {
            return None;
        }
        let ready = self.mip() & self.state.mie;
        let s = &self.state;
        let enabled = |level: u64, bit| s.privilege < level || s.privilege == level && s.mstatus.intersects(bit);
        let none = Interrupts::empty();
        let machine = if enabled(privilege::MACHINE, Mstatus::MIE) { ready & !s.mideleg } else { none };
        let supervisor = if enabled(privilege::SUPERVISOR, Mstatus::SIE) { ready & s.mideleg } else { none };
        let taken = if machine.is_empty() { supervisor } else { machine };
        PRIORITY.into_iter().find(|&number| taken.has(number))
    }

    /// Enters the handler of an interrupt, if one is pending and enabled; which.
    pub fn take_interrupt(&mut self) -> Option<u32> {
        let number = self.pending_interrupt()?;
        self.state.halted = 0;
        self.enter_trap(Trap { cause: number.into(), tval: 0 }, true);
        Some(number)
    }

    /// Whether a WFI is over: an interrupt that mie enables is pending, whether or not it will be taken. Clears `halted` then.
    pub fn wakes(&mut self) -> bool {
        let wakes = self.mip().intersects(self.state.mie);
        if wakes {
            self.state.halted = 0;
        }
        wakes
    }

    /// To be called by what may have enabled an interrupt: has the dispatcher look at once if one is to be taken.
    pub(crate) fn open_interrupts(&mut self) {
        if self.pending_interrupt().is_some() {
            self.header.exit_request.store(1, Ordering::Release);
        }
    }

    /// The instruction at the program counter, of 4 bytes, has been executed.
    pub(crate) fn executed(&mut self) {
        self.state.pc = self.state.pc.wrapping_add(4);
        if self.mode.counts() {
            self.state.instret = self.state.instret.wrapping_add(1);
        }
    }

    /// Does what is pending of the instruction at the program counter.
    pub fn deliver_pending(&mut self) {
        match self.pending.take() {
            Some(Pending::Trap(trap)) if trap.cause == cause::BREAKPOINT && self.semihost() => {}
            Some(Pending::Trap(trap)) => self.enter_trap(trap, false),
            Some(Pending::FailedStore { rd }) => {
                self.state.set_x(rd, 1);
                // An SC ends the reservation that there is, if for another address.
                self.state.reservation.end();
                self.executed();
            }
            Some(Pending::Float { word }) => {
                if let Some(insn) = isa::decode(word) {
                    float::execute(&mut self.state, &insn);
                    self.executed();
                }
            }
            None => {}
        }
    }

    /// Enters a handler, from the instruction at the program counter.
    pub(crate) fn enter_trap(&mut self, trap: Trap, interrupt: bool) {
        let s = &mut self.state;
        let Trap { cause, tval } = trap;
        let delegated = if interrupt { s.mideleg.has(cause as u32) } else { s.medeleg.has(cause) };
        let code = cause | if interrupt { cause::INTERRUPT } else { 0 };
        let vector = if s.privilege <= privilege::SUPERVISOR && delegated {
            (s.sepc, s.scause, s.stval) = (s.pc, code, tval);
            let (spp, spie) = (s.privilege & 1 != 0, s.mstatus.contains(Mstatus::SIE));
            s.mstatus.remove(Mstatus::SIE);
            s.mstatus.set(Mstatus::SPP, spp);
            s.mstatus.set(Mstatus::SPIE, spie);
            s.privilege = privilege::SUPERVISOR;
            s.stvec
        } else {
            (s.mepc, s.mcause, s.mtval) = (s.pc, code, tval);
            let mpie = s.mstatus.contains(Mstatus::MIE);
            let mpp = Mstatus::from_bits_retain(s.privilege << Mstatus::MPP_SHIFT);
            s.mstatus = s.mstatus & !(Mstatus::MPP | Mstatus::MIE) | mpp;
            s.mstatus.set(Mstatus::MPIE, mpie);
            s.privilege = privilege::MACHINE;
            s.mtvec
        };
        let offset = if interrupt && vector & 1 != 0 { 4 * cause } else { 0 };
        s.pc = (vector & !3).wrapping_add(offset);
        if interrupt {
            self.traps.interrupts += 1;
        } else {
            self.traps.exceptions += 1;
        }
        self.update_mode();
    }

    /// MRET: back to where a trap into machine mode came from.
    pub(crate) fn return_from_machine(&mut self) {
        let s = &mut self.state;
        let to = s.mpp();
        let mie = s.mstatus.intersects(Mstatus::MPIE);
        s.mstatus.remove(Mstatus::MPP);
        s.mstatus |= Mstatus::MPIE;
        s.mstatus.set(Mstatus::MIE, mie);
        if to != privilege::MACHINE {
            s.mstatus.remove(Mstatus::MPRV);
        }
        s.privilege = to;
        s.pc = s.mepc;
        self.returned();
    }

    /// SRET.
    pub(crate) fn return_from_supervisor(&mut self) {
        let s = &mut self.state;
        let to = if s.mstatus.intersects(Mstatus::SPP) { privilege::SUPERVISOR } else { privilege::USER };
        let sie = s.mstatus.intersects(Mstatus::SPIE);
        s.mstatus.remove(Mstatus::SPP | Mstatus::MPRV);
        s.mstatus |= Mstatus::SPIE;
        s.mstatus.set(Mstatus::SIE, sie);
        s.privilege = to;
        s.pc = s.sepc;
        self.returned();
    }

    fn returned(&mut self) {
        self.update_mode();
        self.open_interrupts();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trap_codes_are_what_they_were() {
        for code in [
            TrapCode::Known(Trap { cause: cause::ILLEGAL, tval: 0xffff_ffff }),
            TrapCode::Register { cause: cause::STORE_MISALIGNED, register: 31 },
            TrapCode::FailedStore { rd: 17 },
            TrapCode::Float { word: 0xffff_fff3 },
            TrapCode::Retry,
        ] {
            assert_eq!(TrapCode::decode(code.encode()), code);
        }
    }
}
