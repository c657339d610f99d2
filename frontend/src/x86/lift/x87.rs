//! x87: every operation is a helper call.

use iced_x86::{Instruction, Mnemonic, OpKind};
use mimus_ir::op::Type;

use super::{Lift, Lifted, Refusal};
use crate::x86::Mode;
use crate::x86::exception::{Exception, vector};
use crate::x86::fp::x87;
use crate::x86::fpu::X87Call;
use crate::x86::helpers::Helper;

/// The stack register that an operation names beside ST(0).
fn stack_register(insn: &Instruction) -> u8 {
    let registers = (0..insn.op_count()).filter(|&i| insn.op_kind(i) == OpKind::Register).map(|i| insn.op_register(i));
    let numbers = registers.filter(|r| r.is_st()).map(|r| r.number() as u8);
    numbers.max().unwrap_or(0)
}

/// Whether the operand size is 32 bits, which decides the layout of environment images.
fn wide_operand(insn: &Instruction) -> bool {
    matches!(insn.memory_size(), iced_x86::MemorySize::FpuEnv28 | iced_x86::MemorySize::FpuState108)
}

impl Lift {
    /// Any x87 instruction.
    pub(super) fn x87(&mut self, insn: &Instruction) -> Lifted {
        let row = x87::lookup(insn.code()).ok_or(Refusal::Undefined)?;
        if self.unavailable(false, false) {
            return Ok(());
        }
        let memory = (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory);
        let bytes = row.memory.bytes().map_or(108, u32::from);
        let writes = row.store
            || matches!(insn.mnemonic(), Mnemonic::Fnsave | Mnemonic::Fnstenv | Mnemonic::Fsave | Mnemonic::Fstenv);
        let addr = if memory {
            let addr = self.linear(insn, bytes, writes);
            self.flatten(addr)
        } else {
            self.iconst(0)
        };
        let pc = self.iconst(insn.ip());
        let call = X87Call { op: row.op as u16, register: stack_register(insn), wide: wide_operand(insn) };
        self.call(Helper::X87, Type::I64, &[addr, pc], call.encode());
        if memory && writes {
            self.end_after_helper_store();
        }
        Ok(())
    }

    /// FWAIT.
    pub(super) fn fwait(&mut self, _: &Instruction) -> Lifted {
        if self.mode.has(Mode::TS) && self.mode.has(Mode::MP) {
            self.raise(Exception::plain(vector::NM));
        } else {
            self.call(Helper::Fwait, Type::I64, &[], 0);
        }
        Ok(())
    }

    /// FXSAVE, FXRSTOR.
    pub(super) fn fxsave(&mut self, insn: &Instruction) -> Lifted {
        if self.mode.has(Mode::EM) {
            self.raise(Exception::ud());
            return Ok(());
        }
        if self.unavailable(false, false) {
            return Ok(());
        }
        let restore = matches!(insn.mnemonic(), Mnemonic::Fxrstor | Mnemonic::Fxrstor64);
        let wide = matches!(insn.mnemonic(), Mnemonic::Fxsave64 | Mnemonic::Fxrstor64);
        let addr = self.linear(insn, 512, !restore);
        let addr = self.flatten(addr);
        self.call(Helper::Fxsave, Type::I64, &[addr], u32::from(restore) | u32::from(wide) << 1);
        if restore {
            // MXCSR is part of the mode.
            self.end_to_dispatcher();
        } else {
            self.end_after_helper_store();
        }
        Ok(())
    }
}
