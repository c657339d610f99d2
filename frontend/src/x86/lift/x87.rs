//! x87: every operation is a helper call, which most hosts of the same architecture replace by the instruction itself.

use iced_x86::{Instruction, Mnemonic, OpKind};
use mimus_ir::EnvSlot;
use mimus_ir::block::{NONE, Value};
use mimus_ir::op::Type;

use super::operand::Gpr;
use super::{Lift, Lifted, Refusal};
use crate::x86::Mode;
use crate::x86::exception::{Exception, vector};
use crate::x86::fp::x87::{self, X87Op, X87Row};
use crate::x86::fpu::X87Call;
use crate::x86::helpers::Helper;
use crate::x86::state::{State, reg};

/// Address of the last instruction that is not a control instruction.
const FIP: EnvSlot =
    EnvSlot { offset: (std::mem::offset_of!(State, fpu) + std::mem::offset_of!(x87::Fpu, fip)) as u16, ty: Type::I64 };

/// Opcode of FNOP.
const FNOP: u16 = 0x1d0;

/// The opcode of an x87 instruction, as FOP has it (SDM vol. 1, 8.1.9). No prefix is one of its first bytes.
pub(super) fn opcode(bytes: &[u8]) -> u16 {
    let at = bytes.windows(2).find(|pair| pair[0] & 0xf8 == 0xd8);
    at.map_or(0, |pair| u16::from(pair[0] & 7) << 8 | u16::from(pair[1]))
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
            NONE
        };
        self.x87_call(row, addr, wide_operand(insn))?;
        if !row.control {
            self.b.store_env_imm(FIP, insn.ip());
        }
        if memory && writes && !row.is_exact() {
            self.end_after_helper_store();
        }
        Ok(())
    }

    /// Calls the operation's helper and takes its result.
    fn x87_call(&mut self, row: &X87Row, addr: Value, wide: bool) -> Lifted {
        let condition = match row.condition() {
            Some(code) => self.condition(code),
            None => NONE,
        };
        let call = X87Call { op: row.op as u16, opcode: self.x87_opcode, wide };
        let helper = if row.is_exact() { Helper::X87Host } else { Helper::X87 };
        // Only comparisons set flags, from the result.
        let flags = self.flags;
        let value = self.call(helper, Type::I64, &[addr, NONE, condition], call.encode());
        self.flags = flags;
        if row.sets_eflags() {
            self.set_flag_bits(value);
        } else if row.op == X87Op::Fnstsw_AX {
            self.write_gpr(Gpr::new(reg::RAX, Type::I16), value);
        }
        Ok(())
    }

    /// FWAIT.
    pub(super) fn fwait(&mut self, _: &Instruction) -> Lifted {
        if self.mode.intersects(Mode::TS) && self.mode.intersects(Mode::MP) {
            self.raise(Exception::plain(vector::NM));
            return Ok(());
        }
        // FNOP waits as well, and does nothing else.
        self.x87_opcode = FNOP;
        self.x87_call(X87Op::Fnop.row(), NONE, false)
    }

    /// FXSAVE, FXRSTOR.
    pub(super) fn fxsave(&mut self, insn: &Instruction) -> Lifted {
        if self.mode.intersects(Mode::EM) {
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
            self.end_to_context();
        } else {
            self.end_after_helper_store();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::opcode;

    #[test]
    fn opcodes_behind_prefixes() {
        assert_eq!(opcode(&[0xd9, 0xe8]), 0x1e8);
        assert_eq!(opcode(&[0x66, 0x65, 0x41, 0xdd, 0x04, 0x24]), 0x504);
        assert_eq!(opcode(&[0x0f, 0xaf, 0xc0]), 0);
        assert_eq!(opcode(&[0xd8]), 0);
    }
}
