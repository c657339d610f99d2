//! `impl GuestCpu` for RISC-V: what the dispatcher and the lockstep of `mimus-engine` drive a hart by.

use std::borrow::Cow;

use mimus_ir::{Block, EnvSlot, VecInfo};
use mimus_softmmu::Verdict;

use super::cpu::Cpu;
use super::state::{f_slot, slot};
use super::trap::{Pending, Trap, TrapCode};
use super::{disasm, float, helpers, lift};
use crate::common::guest::{self, GuestCpu, Raised, TbWords, Truncated};
use crate::common::helpers::HelperRow;

impl GuestCpu for Cpu {
    const MAX_INSN_LEN: usize = lift::MAX_INSN_LEN;
    const MAX_BLOCK_INSNS: u32 = lift::MAX_GUEST_INSNS;

    fn helper_table() -> &'static [HelperRow<Cpu>] {
        helpers::TABLE
    }

    fn slot_name(place: EnvSlot) -> Option<Cow<'static, str>> {
        let index = |first: EnvSlot, bytes: u16| {
            let offset = place.offset.checked_sub(first.offset)?;
            (offset % bytes == 0 && offset / bytes < 32).then_some(usize::from(offset / bytes))
        };
        if let Some((_, name)) = slot::ALL.iter().find(|(known, _)| *known == place) {
            return Some((*name).into());
        }
        if let Some(n) = index(super::state::x_slot(0), 8) {
            return Some(disasm::X_NAMES[n].into());
        }
        index(f_slot(0), 16).map(|n| disasm::F_NAMES[n].into())
    }

    fn compute_float(&mut self, info: VecInfo, operands: [u128; 3]) -> u128 {
        float::operation(&mut self.state, info, operands)
    }

    fn raise_trap(&mut self, code: u64) {
        match TrapCode::decode(code) {
            TrapCode::Known(trap) => self.set_pending(Pending::Trap(trap)),
            TrapCode::Register { cause, register } => {
                let tval = self.state.x[usize::from(register & 31)];
                self.set_pending(Pending::Trap(Trap { cause, tval }));
            }
            TrapCode::FailedStore { rd } => self.set_pending(Pending::FailedStore { rd }),
            TrapCode::Float { word } => self.set_pending(Pending::Float { word }),
            TrapCode::Retry => self.header.verdict = Verdict::Again as u32,
        }
    }

    fn pc(&self) -> u64 {
        self.state.pc
    }

    fn set_pc(&mut self, pc: u64) {
        self.state.pc = pc;
    }

    fn tb_words(&self) -> TbWords {
        [self.mode.bits(), 0]
    }

    fn page_relative(&self) -> bool {
        true
    }

    fn update_mode(&mut self) {
        Cpu::update_mode(self);
    }

    fn translate_fetch(&mut self, addr: u64) -> Result<u64, Raised> {
        Cpu::translate_fetch(self, addr)
    }

    fn lift(&self, code: &guest::Code<'_>) -> Result<Block, Truncated> {
        lift::lift(code, self.state.pc, self.header.pc_base, self.mode)
    }

    fn raise_too_long(&mut self) -> Raised {
        self.raise_illegal(0)
    }

    fn deliver(&mut self) {
        self.deliver_pending();
    }

    fn disassemble(&self, bytes: &[u8], pc: u64) -> String {
        disasm::listing(bytes, pc)
    }

    fn pending_text(&self) -> Option<Cow<'static, str>> {
        self.pending
            .map(|pending| format!("{pending:x?} at {:#x} in mode {}", self.state.pc, self.state.privilege).into())
    }
}
