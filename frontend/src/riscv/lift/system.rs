//! CSRs, environment calls, returns from traps, fences, cache blocks.

use mimus_ir::block::{EnvSlot, Value};
use mimus_ir::op::{Op, Type};

use super::{Lift, Lifted};
use crate::riscv::csr::{self, Action, Gate, Kind};
use crate::riscv::helpers::Helper;
use crate::riscv::isa::{Code, Insn};
use crate::riscv::mode::Mode;
use crate::riscv::state::{Mstatus, privilege, slot};
use crate::riscv::trap::{Trap, cause};

/// Bits of FENCE: output and stores before it, input and loads behind it (vol. I, 2.7).
const PREDECESSOR_STORES: u32 = 0b0101 << 24;
const SUCCESSOR_LOADS: u32 = 0b1010 << 20;

const SSTATUS: u16 = 0x100;
const FFLAGS: u16 = 0x001;

impl Lift {
    pub(super) fn system(&mut self, insn: &Insn) -> Lifted {
        let word = self.word.into();
        match insn.code {
            // Accesses are those of total store order, but for loads that overtake stores (vol. I, 2.7).
            Code::Fence if self.word & PREDECESSOR_STORES != 0 && self.word & SUCCESSOR_LOADS != 0 => self.b.fence(),
            // Translated code is told of stores to it.
            Code::Fence | Code::FenceI => {}
            Code::Ecall => {
                let pc = self.b.pc(self.pc);
                self.call(Helper::Ecall, &[pc], 0);
                self.end_to_pc();
            }
            Code::Ebreak => self.raise(Trap { cause: cause::BREAKPOINT, tval: 0 }),
            Code::Mret | Code::Sret => {
                let word = self.iconst(word);
                self.call(if insn.code == Code::Mret { Helper::Mret } else { Helper::Sret }, &[word, word], 0);
                self.retire();
                self.end_to_pc();
            }
            Code::Wfi => {
                let (next, word) = (self.b.pc(self.next), self.iconst(word));
                self.call(Helper::Wfi, &[next, word], 0);
                self.retire();
                self.b.exit(0);
                self.ended = true;
            }
            Code::SfenceVma | Code::SinvalVma => {
                let operands = [self.x(insn.rs1), self.x(insn.rs2), self.iconst(word)];
                self.call(Helper::Sfence, &operands, u32::from(insn.rs1 != 0) | u32::from(insn.rs2 != 0) << 1);
                self.retire();
                self.end_to_context();
            }
            Code::SfenceWInval | Code::SfenceInvalIr => {
                let word = self.iconst(word);
                self.call(Helper::Sfence, &[word, word, word], 4);
            }
            Code::CboInval | Code::CboClean | Code::CboFlush | Code::CboZero => {
                let (addr, word) = (self.x(insn.rs1), self.iconst(word));
                self.call(Helper::CacheBlock, &[addr, word], insn.code as u32);
                if insn.code == Code::CboZero {
                    // What follows may be what was overwritten.
                    self.retire();
                    self.end_to_context();
                }
            }
            Code::Csrrw | Code::Csrrs | Code::Csrrc | Code::Csrrwi | Code::Csrrsi | Code::Csrrci => self.csr(insn),
            _ => return false,
        }
        true
    }

    fn csr(&mut self, insn: &Insn) {
        let immediate = matches!(insn.code, Code::Csrrwi | Code::Csrrsi | Code::Csrrci);
        let number = insn.imm as u16;
        let action = match insn.code {
            Code::Csrrw | Code::Csrrwi => Action::Write,
            // Bits of nothing: no write takes place (vol. I, "CSR Instructions").
            _ if insn.rs1 == 0 => Action::Read,
            Code::Csrrs | Code::Csrrsi => Action::Set,
            _ => Action::Clear,
        };
        let Some((row, _)) = csr::lookup(number) else { return self.illegal() };
        let denied = self.mode.privilege() < csr::least_privilege(number)
            || action != Action::Read && csr::read_only(number)
            || row.gate == Gate::Float && self.mode.intersects(Mode::FLOAT_OFF);
        if denied {
            return self.illegal();
        }
        let operand = if immediate { self.iconst(insn.rs1.into()) } else { self.x(insn.rs1) };
        if let Kind::Plain { offset, mask } = row.kind
            && row.gate == Gate::Open
        {
            return self.plain_csr(insn, EnvSlot { offset, ty: Type::I64 }, mask, action, operand);
        }
        if number == SSTATUS && action == Action::Clear && immediate && u64::from(insn.rs1) == Mstatus::SIE.bits() {
            return self.disable_interrupts(insn);
        }
        if row.gate == Gate::Float && action != Action::Read && self.mode.intersects(Mode::FLOAT_CLEAN) {
            return self.make_float_dirty();
        }
        let word = self.iconst(self.word.into());
        let access = u32::from(number) | (action as u32) << 12;
        if csr::counts_instructions(number) && !self.mode.intersects(Mode::COUNTING) {
            // Started again in a mode in which it finds what it asks for.
            self.call(Helper::CountInstructions, &[word, word], access);
            let again = self.b.pc(self.pc);
            return self.end_at(again);
        }
        let old = self.call(row.helper(), &[operand, word], access);
        self.set_x(insn.rd, old);
        if action != Action::Read && number != FFLAGS {
            // What is written to minstret is what the next instruction finds (vol. I, "CSR Instructions").
            if number != csr::MINSTRET {
                self.retire();
            }
            self.end_to_context();
        }
    }

    /// A register that is a word of env and nothing more.
    fn plain_csr(&mut self, insn: &Insn, slot: EnvSlot, mask: u64, action: Action, operand: Value) {
        let old = self.b.load_env(slot);
        let new = match action {
            Action::Read => None,
            Action::Write => Some(operand),
            Action::Set => Some(self.b.binary(Op::Or, Type::I64, old, operand)),
            Action::Clear => {
                let kept = self.b.unary(Op::Not, Type::I64, operand);
                Some(self.b.binary(Op::And, Type::I64, old, kept))
            }
        };
        if let Some(new) = new {
            let new = if mask == u64::MAX { new } else { self.b.binary_imm(Op::And, Type::I64, new, mask) };
            self.b.store_env(slot, new);
        }
        self.set_x(insn.rd, old);
    }

    /// CSRRCI of sstatus.SIE: what kernels do most. Nothing depends on that bit but whether interrupts are taken, and the mode
    /// tells FS already.
    fn disable_interrupts(&mut self, insn: &Insn) {
        let old = self.b.load_env(slot::MSTATUS);
        let new = self.b.binary_imm(Op::And, Type::I64, old, (!Mstatus::SIE).bits());
        self.b.store_env(slot::MSTATUS, new);
        if insn.rd != 0 {
            let seen = self.b.binary_imm(Op::And, Type::I64, old, Mstatus::SUPERVISOR.bits());
            let dirty = !self.mode.intersects(Mode::FLOAT_OFF | Mode::FLOAT_CLEAN);
            let fixed = if dirty { Mstatus::UXL | Mstatus::SD } else { Mstatus::UXL };
            let seen = self.b.binary_imm(Op::Or, Type::I64, seen, fixed.bits());
            self.set_x(insn.rd, seen);
        }
        debug_assert!(self.mode.privilege() >= privilege::SUPERVISOR);
    }

    /// The current instruction is started again once floating-point state is dirty.
    pub(super) fn make_float_dirty(&mut self) {
        self.call(Helper::FloatDirty, &[], 0);
        let again = self.b.pc(self.pc);
        self.end_at(again);
    }
}
