//! Stack instructions.

use iced_x86::{Instruction, Mnemonic, OpKind};
use mimus_ir::block::Value;
use mimus_ir::op::{Op, Type};

use super::data::selector_slot;
use super::operand::{Addr, Gpr, seg_of};
use super::{Lift, Lifted, Refusal};
use crate::x86::Mode;
use crate::x86::helpers::Helper;
use crate::x86::state::{Seg, gpr_slot, reg};

impl Lift {
    /// Width of the stack pointer.
    pub(super) fn stack_type(&self) -> Type {
        match self.mode.stack_mask() {
            0xffff => Type::I16,
            0xffff_ffff => Type::I32,
            _ => Type::I64,
        }
    }

    /// Linear address of `size` bytes at `sp + disp`.
    pub(super) fn stack_address(&mut self, sp: Value, disp: i32, size: u32, write: bool) -> Addr {
        let ty = self.stack_type();
        if ty == Type::I64 {
            let addr = Addr { value: sp, disp };
            self.check_alignment(addr, size);
            return addr;
        }
        let value = self.b.binary_imm(Op::AddI, ty, sp, disp as i64 as u64);
        self.linear_in(Seg::Ss, Addr { value, disp: 0 }, ty, size, write)
    }

    /// Writes `sp + disp` to the stack pointer.
    pub(super) fn move_sp(&mut self, sp: Value, disp: i32) {
        let ty = self.stack_type();
        let value = self.b.binary_imm(Op::AddI, ty, sp, disp as i64 as u64);
        self.write_gpr(Gpr::new(reg::RSP, ty), value);
    }

    /// Pushes the low bits of `value`.
    pub(super) fn push_value(&mut self, ty: Type, value: Value) {
        let sp = self.gpr(reg::RSP);
        let disp = -(ty.bytes() as i32);
        let addr = self.stack_address(sp, disp, ty.bytes(), true);
        self.store(ty, addr, value);
        self.move_sp(sp, disp);
    }

    /// Width that a stack instruction moves, by its change of the stack pointer.
    fn stack_operand_type(&self, insn: &Instruction, count: u32) -> Type {
        let bytes = insn.stack_pointer_increment().unsigned_abs() / count;
        Type::int(bytes).unwrap_or(Type::I64)
    }

    /// PUSH.
    pub(super) fn push(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.stack_operand_type(insn, 1);
        let value = match insn.op_kind(0) {
            OpKind::Register => match seg_of(insn.op_register(0)) {
                Some(seg) => {
                    let selector = self.b.load_env(selector_slot(seg));
                    self.zext64(Type::I16, selector)
                }
                None => self.read(insn, 0, ty),
            },
            _ => self.read(insn, 0, ty),
        };
        self.push_value(ty, value);
        Ok(())
    }

    /// POP. The stack pointer is incremented before a destination that uses it is addressed or written.
    pub(super) fn pop(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.stack_operand_type(insn, 1);
        let size = ty.bytes();
        let sp = self.gpr(reg::RSP);
        let addr = self.stack_address(sp, 0, size, false);
        let value = self.load(ty, addr);
        if self.is_memory(insn, 0) {
            // The address is computed with the new stack pointer, which must not be in env before the store went through.
            let undo = self.gpr(reg::RSP);
            self.move_sp(sp, size as i32);
            let target = self.effective(insn);
            let kept = self.flatten(target);
            self.b.store_env(gpr_slot(reg::RSP), undo);
            let seg = seg_of(insn.memory_segment()).unwrap_or(Seg::Ds);
            let target = self.linear_in(seg, Addr { value: kept, disp: 0 }, Lift::address_type(insn), size, true);
            self.store(ty, target, value);
            self.move_sp(sp, size as i32);
            return Ok(());
        }
        if let Some(seg) = seg_of(insn.op_register(0)) {
            let selector = self.b.extend(Op::Zext, Type::I64, Type::I16, value);
            self.call(Helper::LoadSeg, Type::I64, &[selector], seg as u32);
            self.move_sp(sp, size as i32);
            self.hold_off(seg);
            self.after_segment_load(seg);
            return Ok(());
        }
        let gpr = Gpr::of(insn.op_register(0)).ok_or(Refusal::Undefined)?;
        self.move_sp(sp, size as i32);
        self.write_gpr(gpr, value);
        Ok(())
    }

    /// PUSHA, PUSHAD.
    pub(super) fn pusha(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.stack_operand_type(insn, 8);
        let sp = self.gpr(reg::RSP);
        for number in 0..8 {
            let value = if number == reg::RSP { sp } else { self.gpr(number) };
            let addr = self.stack_address(sp, -(ty.bytes() as i32) * (number as i32 + 1), ty.bytes(), true);
            self.store(ty, addr, value);
        }
        self.move_sp(sp, -(ty.bytes() as i32) * 8);
        Ok(())
    }

    /// POPA, POPAD: the saved stack pointer is skipped.
    pub(super) fn popa(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.stack_operand_type(insn, 8);
        let sp = self.gpr(reg::RSP);
        let mut values = [None; 8];
        for number in (0..8).rev().filter(|&n| n != reg::RSP) {
            let addr = self.stack_address(sp, ty.bytes() as i32 * (7 - number as i32), ty.bytes(), false);
            values[number] = Some(self.load(ty, addr));
        }
        for (number, value) in values.into_iter().enumerate() {
            if let Some(value) = value {
                self.write_gpr(Gpr::new(number, ty), value);
            }
        }
        self.move_sp(sp, ty.bytes() as i32 * 8);
        Ok(())
    }

    /// PUSHF, PUSHFD, PUSHFQ.
    pub(super) fn pushf(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.stack_operand_type(insn, 1);
        let value = self.call(Helper::PushfValue, ty, &[], ty.bytes());
        self.push_value(ty, value);
        Ok(())
    }

    /// POPF, POPFD, POPFQ.
    pub(super) fn popf(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.stack_operand_type(insn, 1);
        let sp = self.gpr(reg::RSP);
        let addr = self.stack_address(sp, 0, ty.bytes(), false);
        let value = self.load(ty, addr);
        self.call(Helper::Popf, Type::I64, &[value], ty.bytes());
        self.move_sp(sp, ty.bytes() as i32);
        self.end_to_context();
        Ok(())
    }

    /// ENTER.
    pub(super) fn enter(&mut self, insn: &Instruction) -> Lifted {
        let bytes = match insn.mnemonic() {
            Mnemonic::Enter if insn.code() == iced_x86::Code::Enterq_imm16_imm8 => 8,
            _ if insn.code() == iced_x86::Code::Enterd_imm16_imm8 => 4,
            _ => 2,
        };
        let alloc = self.iconst(u64::from(insn.immediate16()));
        let level = self.iconst(u64::from(insn.immediate8_2nd() & 31));
        self.call(Helper::Enter, Type::I64, &[alloc, level], bytes);
        self.end_after_helper_store();
        Ok(())
    }

    /// LEAVE.
    pub(super) fn leave(&mut self, insn: &Instruction) -> Lifted {
        let ty = match insn.code() {
            iced_x86::Code::Leaveq => Type::I64,
            iced_x86::Code::Leaved => Type::I32,
            _ => Type::I16,
        };
        let bp = self.gpr(reg::RBP);
        let addr = self.stack_address(bp, 0, ty.bytes(), false);
        let value = self.load(ty, addr);
        self.move_sp(bp, ty.bytes() as i32);
        self.write_gpr(Gpr::new(reg::RBP, ty), value);
        Ok(())
    }

    /// Whether the code segment is 64-bit.
    pub(super) fn code64(&self) -> bool {
        self.mode.intersects(Mode::CODE64)
    }
}
