//! Shifts and rotations.

use iced_x86::{Instruction, Mnemonic, OpKind};
use mimus_ir::block::Value;
use mimus_ir::op::{Op, Type};

use super::operand::Addr;
use super::{Lift, Lifted};
use crate::x86::flags::{CcKind, CcOp};
use crate::x86::helpers::Helper;
use crate::x86::state::{Rflags, reg, slot};

/// A shift count: known while lifting, or in CL.
#[derive(Clone, Copy)]
enum Count {
    Const(u64),
    Value(Value),
}

/// Where a read-modify-write operand lives.
enum RmwOperand {
    Register,
    Memory(Addr),
}

impl Lift {
    /// The count in operand `index`, masked to 5 bits, or 6 for 64-bit operands (SDM vol. 2B, SAL/SAR/SHL/SHR).
    fn shift_count(&mut self, insn: &Instruction, index: u32, ty: Type) -> Count {
        let mask = if ty == Type::I64 { 63 } else { 31 };
        if insn.op_kind(index) == OpKind::Immediate8 {
            return Count::Const(u64::from(insn.immediate8()) & mask);
        }
        let cl = self.gpr(reg::RCX);
        Count::Value(self.b.binary_imm(Op::AndI, Type::I8, cl, mask))
    }

    fn read_place(&mut self, insn: &Instruction, ty: Type) -> (RmwOperand, Value) {
        if self.is_memory(insn, 0) {
            let addr = self.linear(insn, ty.bytes(), true);
            (RmwOperand::Memory(addr), self.load_for_write(ty, addr))
        } else {
            (RmwOperand::Register, self.read(insn, 0, ty))
        }
    }

    fn write_place(&mut self, insn: &Instruction, ty: Type, place: &RmwOperand, value: Value) {
        match *place {
            RmwOperand::Register => self.write(insn, 0, ty, value),
            RmwOperand::Memory(addr) => self.store(ty, addr, value),
        }
    }

    fn shift_by(&mut self, op: Op, ty: Type, value: Value, count: Count, minus: u64) -> Value {
        match count {
            Count::Const(n) => {
                let op = op.info().imm_form.unwrap_or(op);
                self.b.binary_imm(op, ty, value, n.wrapping_sub(minus))
            }
            Count::Value(n) => {
                let n = if minus == 0 { n } else { self.b.binary_imm(Op::SubI, Type::I8, n, minus) };
                self.b.binary(op, ty, value, n)
            }
        }
    }

    /// Records a shift's flags; with a count of 0 they stay as they were.
    fn shift_flags(&mut self, kind: CcKind, ty: Type, dst: Value, src: Value, count: Count) {
        match count {
            Count::Const(0) => {}
            Count::Const(_) => self.set_flags_simple(kind, ty, dst, src),
            Count::Value(n) => {
                let op = CcOp { kind, log2: ty as u8 }.encode();
                let op = self.b.iconst(Type::I64, CcOp::all(op, op));
                let moved = self.b.binary_imm(Op::NeI, Type::I8, n, 0);
                for (slot, new) in [(slot::CC_OPS, op), (slot::CC_DST, dst), (slot::CC_SRC, src)] {
                    let old = self.b.load_env(slot);
                    let value = self.b.select(Type::I64, moved, new, old);
                    self.b.store_env(slot, value);
                }
                self.flags = super::cond::Flags::DYNAMIC;
            }
        }
    }

    /// SHL, SHR, SAR. Narrow operands are computed in 32 bits, where counts up to 31 have their meaning.
    pub(super) fn shift(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.operand_type(insn, 0);
        let count = self.shift_count(insn, 1, ty);
        let (place, a) = self.read_place(insn, ty);
        let wide = if ty == Type::I64 { Type::I64 } else { Type::I32 };
        let (op, kind, extend) = match insn.mnemonic() {
            Mnemonic::Shr => (Op::Shr, CcKind::Shr, Op::Zext),
            Mnemonic::Sar => (Op::Sar, CcKind::Shr, Op::Sext),
            _ => (Op::Shl, CcKind::Shl, Op::Zext),
        };
        let a = if ty.bits() < 32 { self.b.extend(extend, Type::I32, ty, a) } else { a };
        let dst = self.shift_by(op, wide, a, count, 0);
        let src = self.shift_by(op, wide, a, count, 1);
        self.write_place(insn, ty, &place, dst);
        self.shift_flags(kind, ty, dst, src, count);
        Ok(())
    }

    /// SHLD, SHRD. 16-bit operands shifted by more than 16 take bits of the first operand again, as processors do.
    pub(super) fn double_shift(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.operand_type(insn, 0);
        let left = insn.mnemonic() == Mnemonic::Shld;
        let fill = self.read(insn, 1, ty);
        let count = self.shift_count(insn, 2, ty);
        let (place, a) = self.read_place(insn, ty);
        let (op, kind) = if left { (Op::Shl, CcKind::Shl) } else { (Op::Shr, CcKind::Shr) };
        let (dst, src);
        if ty == Type::I64 {
            let main = self.shift_by(op, ty, a, count, 0);
            let back = if left { Op::Shr } else { Op::Shl };
            let half = self.b.binary_imm(back.info().imm_form.unwrap_or(back), ty, fill, 1);
            let rest = match count {
                Count::Const(n) => Count::Const(63 - n),
                Count::Value(n) => Count::Value(self.b.binary_imm(Op::XorI, Type::I8, n, 63)),
            };
            let other = self.shift_by(back, ty, half, rest, 0);
            dst = self.b.binary(Op::Or, ty, main, other);
            src = self.shift_by(op, ty, a, count, 1);
        } else {
            let bits = ty.bits();
            let mut window = self.b.extend(Op::Zext, Type::I64, ty, a);
            let fill = self.b.extend(Op::Zext, Type::I64, ty, fill);
            if left || ty == Type::I16 {
                let copies = if ty == Type::I16 { 2 } else { 1 };
                let top = self.b.binary_imm(Op::ShlI, Type::I64, window, u64::from(copies * bits));
                window = if ty == Type::I16 { self.b.binary(Op::Or, Type::I64, top, window) } else { top };
            }
            let fill_at = if ty == Type::I16 || !left { bits } else { 0 };
            let fill = self.b.binary_imm(Op::ShlI, Type::I64, fill, u64::from(fill_at));
            window = self.b.binary(Op::Or, Type::I64, window, fill);
            let down = if left { 64 - bits } else { 0 };
            // Bits are taken from the top of the window when shifting left: 16-bit windows are 48 bits wide.
            let up = if left && ty == Type::I16 { 16 } else { 0 };
            if up != 0 {
                window = self.b.binary_imm(Op::ShlI, Type::I64, window, up);
            }
            let whole = self.shift_by(op, Type::I64, window, count, 0);
            let last = self.shift_by(op, Type::I64, window, count, 1);
            dst = self.b.binary_imm(Op::ShrI, Type::I64, whole, u64::from(down));
            src = self.b.binary_imm(Op::ShrI, Type::I64, last, u64::from(down));
        }
        // Results keep only their own width in a 32-bit register.
        let value = if ty == Type::I32 { self.b.extend(Op::Zext, Type::I64, Type::I32, dst) } else { dst };
        self.write_place(insn, ty, &place, value);
        self.shift_flags(kind, ty, dst, src, count);
        Ok(())
    }

    /// ROL, ROR: only CF and OF change.
    pub(super) fn rotate(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.operand_type(insn, 0);
        let left = insn.mnemonic() == Mnemonic::Rol;
        let count = self.shift_count(insn, 1, ty);
        let (place, a) = self.read_place(insn, ty);
        let dst = self.shift_by(if left { Op::Rotl } else { Op::Rotr }, ty, a, count, 0);
        if let Count::Const(0) = count {
            self.write_place(insn, ty, &place, dst);
            return Ok(());
        }
        let variable = match count {
            Count::Const(_) => None,
            Count::Value(n) => Some((n, self.flag_bits())),
        };
        self.write_place(insn, ty, &place, dst);
        let top = self.b.extract(Type::I64, dst, ty.bits() - 1, 1);
        let (carry, other) = if left {
            (self.b.extract(Type::I64, dst, 0, 1), top)
        } else {
            (top, self.b.extract(Type::I64, dst, ty.bits() - 2, 1))
        };
        let overflow = self.b.binary(Op::Xor, Type::I64, top, if left { carry } else { other });
        let Some((n, old)) = variable else {
            self.set_apart(Some(carry), Some(overflow));
            return Ok(());
        };
        let bits = self.b.deposit(Type::I64, old, carry, 0, 1);
        let bits = self.b.deposit(Type::I64, bits, overflow, Rflags::OF.position(), 1);
        let moved = self.b.binary_imm(Op::NeI, Type::I8, n, 0);
        let bits = self.b.select(Type::I64, moved, bits, old);
        self.set_flag_bits(bits);
        Ok(())
    }

    /// RCL, RCR.
    pub(super) fn rotate_carry(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.operand_type(insn, 0);
        let right = u32::from(insn.mnemonic() == Mnemonic::Rcr) << 8;
        let count = match self.shift_count(insn, 1, ty) {
            Count::Const(n) => self.iconst(n),
            Count::Value(n) => n,
        };
        let (place, a) = self.read_place(insn, ty);
        let dst = self.call(Helper::RotateCarry, ty, &[a, count], ty.bytes() | right);
        let bits = self.call(Helper::RotateCarry, Type::I64, &[a, count], ty.bytes() | right | 0x200);
        self.write_place(insn, ty, &place, dst);
        self.set_flag_bits(bits);
        Ok(())
    }
}
