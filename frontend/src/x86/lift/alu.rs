//! Integer arithmetic and logic.

use iced_x86::{Instruction, Mnemonic};
use mimus_ir::block::Value;
use mimus_ir::op::{Op, RmwKind, Type};

use super::cond::Record;
use super::operand::{Addr, Gpr};
use super::{Lift, Lifted, Refusal};
use crate::x86::flags::CcKind;
use crate::x86::helpers::Helper;
use crate::x86::state::reg;

/// One two-operand instruction.
struct Alu {
    op: Op,
    kind: CcKind,
    /// Whether the result is written.
    writes: bool,
    rmw: Option<RmwKind>,
}

fn alu_row(mnemonic: Mnemonic) -> Option<Alu> {
    let row = |op, kind, writes, rmw| Some(Alu { op, kind, writes, rmw });
    match mnemonic {
        Mnemonic::Add => row(Op::Add, CcKind::Add, true, Some(RmwKind::Add)),
        Mnemonic::Adc => row(Op::Add, CcKind::Adc, true, None),
        Mnemonic::Sub => row(Op::Sub, CcKind::Sub, true, None),
        Mnemonic::Sbb => row(Op::Sub, CcKind::Sbb, true, None),
        Mnemonic::Cmp => row(Op::Sub, CcKind::Sub, false, None),
        Mnemonic::And => row(Op::And, CcKind::Logic, true, Some(RmwKind::And)),
        Mnemonic::Or => row(Op::Or, CcKind::Logic, true, Some(RmwKind::Or)),
        Mnemonic::Xor => row(Op::Xor, CcKind::Logic, true, Some(RmwKind::Xor)),
        Mnemonic::Test => row(Op::And, CcKind::Logic, false, None),
        _ => None,
    }
}

impl Lift {
    /// ADD, ADC, SUB, SBB, CMP, AND, OR, XOR, TEST.
    pub(super) fn alu(&mut self, insn: &Instruction) -> Lifted {
        let row = alu_row(insn.mnemonic()).ok_or(Refusal::Undefined)?;
        let ty = self.operand_type(insn, 0);
        let carry = if matches!(row.kind, CcKind::Adc | CcKind::Sbb) { Some(self.carry()) } else { None };
        let to_memory = self.is_memory(insn, 0);
        if to_memory && row.writes {
            let src = self.read(insn, 1, ty);
            let addr = self.linear(insn, ty.bytes(), true);
            if insn.has_lock_prefix() {
                let op = row.op;
                let atomic = |l: &mut Lift, a: Value| {
                    let sum = l.b.binary(op, ty, a, src);
                    carry.map_or(sum, |c| l.b.binary(op, ty, sum, c))
                };
                let a = match (row.rmw, row.kind) {
                    (Some(kind), _) => {
                        let addr = self.flatten(addr);
                        self.b.rmw(kind, ty, addr, src)
                    }
                    (None, CcKind::Sub) => {
                        let negated = self.b.unary(Op::Neg, ty, src);
                        let addr = self.flatten(addr);
                        self.b.rmw(RmwKind::Add, ty, addr, negated)
                    }
                    _ => self.compare_and_swap(ty, addr, atomic),
                };
                let dst = atomic(self, a);
                self.alu_flags(&row, ty, a, src, dst, carry);
                return Ok(());
            }
            let a = self.load_for_write(ty, addr);
            let dst = self.alu_result(&row, ty, a, src, carry);
            self.store(ty, addr, dst);
            self.alu_flags(&row, ty, a, src, dst, carry);
            return Ok(());
        }
        let same_register = !to_memory
            && insn.op_kind(1) == iced_x86::OpKind::Register
            && insn.op_register(0) == insn.op_register(1)
            && matches!(insn.mnemonic(), Mnemonic::Xor | Mnemonic::Sub);
        if same_register {
            // The zeroing idiom: no dependence on the old value.
            let zero = self.b.iconst(ty, 0);
            self.write(insn, 0, ty, zero);
            self.alu_flags(&row, ty, zero, zero, zero, None);
            return Ok(());
        }
        let a = self.read(insn, 0, ty);
        let src = self.read(insn, 1, ty);
        let dst = self.alu_result(&row, ty, a, src, carry);
        if row.writes {
            self.write(insn, 0, ty, dst);
        }
        self.alu_flags(&row, ty, a, src, dst, carry);
        Ok(())
    }

    fn alu_result(&mut self, row: &Alu, ty: Type, a: Value, src: Value, carry: Option<Value>) -> Value {
        let result = self.b.binary(row.op, ty, a, src);
        carry.map_or(result, |c| self.b.binary(row.op, ty, result, c))
    }

    fn alu_flags(&mut self, row: &Alu, ty: Type, a: Value, src: Value, dst: Value, carry: Option<Value>) {
        self.set_flags(Record { kind: row.kind, ty, a, dst, src, aux: carry.unwrap_or(src) });
    }

    /// Applies `update` to memory atomically where no read-modify-write op exists: the swap is expected to succeed, and the
    /// instruction starts again when another vCPU came between. The old value.
    pub(super) fn compare_and_swap(
        &mut self,
        ty: Type,
        addr: Addr,
        update: impl FnOnce(&mut Lift, Value) -> Value,
    ) -> Value {
        let old = self.load_for_write(ty, addr);
        let new = update(self, old);
        let addr = self.flatten(addr);
        let seen = self.b.cas(ty, addr, old, new);
        let lost = self.b.binary(Op::Ne, ty, seen, old);
        self.b.trap_if(lost, crate::x86::exception::RETRY);
        old
    }

    /// INC, DEC: carry is kept.
    pub(super) fn inc_dec(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.operand_type(insn, 0);
        let decrements = insn.mnemonic() == Mnemonic::Dec;
        let (op, delta) = if decrements { (Op::SubI, u64::MAX) } else { (Op::AddI, 1) };
        let dst = if !self.is_memory(insn, 0) {
            let a = self.read(insn, 0, ty);
            let dst = self.b.binary_imm(op, ty, a, 1);
            self.write(insn, 0, ty, dst);
            dst
        } else {
            let addr = self.linear(insn, ty.bytes(), true);
            if insn.has_lock_prefix() {
                let addr = self.flatten(addr);
                let one = self.b.iconst(ty, delta);
                let a = self.b.rmw(RmwKind::Add, ty, addr, one);
                self.b.binary_imm(op, ty, a, 1)
            } else {
                let a = self.load_for_write(ty, addr);
                let dst = self.b.binary_imm(op, ty, a, 1);
                self.store(ty, addr, dst);
                dst
            }
        };
        self.set_step_flags(decrements, ty, dst);
        Ok(())
    }

    /// NEG, NOT.
    pub(super) fn neg_not(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.operand_type(insn, 0);
        let op = if insn.mnemonic() == Mnemonic::Neg { Op::Neg } else { Op::Not };
        let (a, dst);
        if self.is_memory(insn, 0) {
            let addr = self.linear(insn, ty.bytes(), true);
            if insn.has_lock_prefix() {
                a = self.compare_and_swap(ty, addr, |l, old| l.b.unary(op, ty, old));
                dst = self.b.unary(op, ty, a);
            } else {
                a = self.load_for_write(ty, addr);
                dst = self.b.unary(op, ty, a);
                self.store(ty, addr, dst);
            }
        } else {
            a = self.read(insn, 0, ty);
            dst = self.b.unary(op, ty, a);
            self.write(insn, 0, ty, dst);
        }
        if op == Op::Neg {
            let zero = self.b.iconst(ty, 0);
            self.set_flags(Record { kind: CcKind::Sub, ty, a: zero, dst, src: a, aux: zero });
        }
        Ok(())
    }

    /// MUL and one-operand IMUL: the double-width product of the accumulator.
    pub(super) fn mul(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.operand_type(insn, 0);
        let signed = insn.mnemonic() == Mnemonic::Imul;
        let src = self.read(insn, 0, ty);
        let acc = self.gpr(reg::RAX);
        if ty == Type::I64 {
            let low = self.b.binary(Op::Mul, ty, acc, src);
            let high = self.b.binary(if signed { Op::SMulHi } else { Op::UMulHi }, ty, acc, src);
            self.write_gpr(Gpr::new(reg::RAX, ty), low);
            self.write_gpr(Gpr::new(reg::RDX, ty), high);
            self.mul_flags(ty, low, high, signed);
            return Ok(());
        }
        let extend = if signed { Op::Sext } else { Op::Zext };
        let x = self.b.extend(extend, Type::I64, ty, acc);
        let y = self.b.extend(extend, Type::I64, ty, src);
        let product = self.b.binary(Op::Mul, Type::I64, x, y);
        let high = self.b.extract(Type::I64, product, ty.bits(), ty.bits());
        if ty == Type::I8 {
            self.write_gpr(Gpr::new(reg::RAX, Type::I16), product);
        } else {
            let low = self.b.extend(Op::Zext, Type::I64, ty, product);
            self.write_gpr(Gpr::new(reg::RAX, ty), low);
            self.write_gpr(Gpr::new(reg::RDX, ty), high);
        }
        self.mul_flags(ty, product, high, signed);
        Ok(())
    }

    /// CF and OF tell whether the upper half of a product matters: for a signed one, whether it is not the sign of the low half.
    fn mul_flags(&mut self, ty: Type, low: Value, high: Value, signed: bool) {
        let excess = if signed {
            let sign = self.b.binary_imm(Op::SarI, ty, low, u64::from(ty.bits() - 1));
            self.b.binary(Op::Xor, ty, high, sign)
        } else {
            high
        };
        self.set_flags_simple(CcKind::Mul, ty, low, excess);
    }

    /// Two- and three-operand IMUL, or the one-operand form.
    pub(super) fn imul(&mut self, insn: &Instruction) -> Lifted {
        if insn.op_count() == 1 {
            return self.mul(insn);
        }
        let ty = self.operand_type(insn, 0);
        let (x, y) = if insn.op_count() == 3 {
            (self.read(insn, 1, ty), self.read(insn, 2, ty))
        } else {
            (self.read(insn, 0, ty), self.read(insn, 1, ty))
        };
        let low = self.b.binary(Op::Mul, ty, x, y);
        // For the flags, which are seldom read: the result does not wait for it.
        let high = if ty == Type::I64 {
            self.b.binary(Op::SMulHi, ty, x, y)
        } else {
            let x = self.b.extend(Op::Sext, Type::I64, ty, x);
            let y = self.b.extend(Op::Sext, Type::I64, ty, y);
            let product = self.b.binary(Op::Mul, Type::I64, x, y);
            self.b.extract(Type::I64, product, ty.bits(), ty.bits())
        };
        let result = self.zext64(ty, low);
        self.write(insn, 0, ty, result);
        self.mul_flags(ty, low, high, true);
        Ok(())
    }

    /// XADD.
    pub(super) fn xadd(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.operand_type(insn, 0);
        let gpr = Gpr::of(insn.op_register(1)).ok_or(Refusal::Undefined)?;
        let src = self.read_gpr(gpr);
        let (a, dst);
        if self.is_memory(insn, 0) {
            let addr = self.linear(insn, ty.bytes(), true);
            let addr = self.flatten(addr);
            a = self.b.rmw(RmwKind::Add, ty, addr, src);
            dst = self.b.binary(Op::Add, ty, a, src);
            self.write_gpr(gpr, a);
        } else {
            a = self.read(insn, 0, ty);
            dst = self.b.binary(Op::Add, ty, a, src);
            let old = self.zext64(ty, a);
            self.write_gpr(gpr, old);
            self.write(insn, 0, ty, dst);
        }
        self.set_flags(Record { kind: CcKind::Add, ty, a, dst, src, aux: src });
        Ok(())
    }

    /// CMPXCHG.
    pub(super) fn cmpxchg(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.operand_type(insn, 0);
        let src = self.read(insn, 1, ty);
        let acc = self.gpr(reg::RAX);
        let accumulator = Gpr::new(reg::RAX, ty);
        let old;
        if self.is_memory(insn, 0) {
            let addr = self.linear(insn, ty.bytes(), true);
            let addr = self.flatten(addr);
            old = self.b.cas(ty, addr, acc, src);
            let same = self.b.binary(Op::Eq, ty, acc, old);
            // When they are equal the accumulator keeps its upper half.
            self.keep_or_write(accumulator, same, old);
        } else {
            let whole = self.read(insn, 0, ty);
            old = self.b.extend(Op::Zext, Type::I64, ty, whole);
            let same = self.b.binary(Op::Eq, ty, acc, old);
            let differs = self.b.binary_imm(Op::XorI, Type::I8, same, 1);
            let target = Gpr::of(insn.op_register(0)).ok_or(Refusal::Undefined)?;
            self.keep_or_write(accumulator, same, old);
            // A destination that is not equal keeps its upper half, too.
            self.keep_or_write(target, differs, src);
        }
        let dst = self.b.binary(Op::Sub, ty, acc, old);
        self.set_flags(Record { kind: CcKind::Sub, ty, a: acc, dst, src: old, aux: old });
        Ok(())
    }

    /// Writes `value` to `gpr` unless `keep` holds, in which case the whole 64-bit register stays as it is.
    pub(super) fn keep_or_write(&mut self, gpr: Gpr, keep: Value, value: Value) {
        let old = self.gpr(gpr.number);
        let written = match gpr.ty {
            Type::I64 => value,
            Type::I32 => self.zext64(Type::I32, value),
            ty => self.b.deposit(Type::I64, old, value, if gpr.high { 8 } else { 0 }, ty.bits()),
        };
        let result = self.b.select(Type::I64, keep, old, written);
        self.b.store_env(crate::x86::state::gpr_slot(gpr.number), result);
    }

    /// CMPXCHG8B, CMPXCHG16B.
    pub(super) fn cmpxchg_pair(&mut self, insn: &Instruction) -> Lifted {
        let bytes = if insn.mnemonic() == Mnemonic::Cmpxchg16b { 16 } else { 8 };
        let addr = self.linear(insn, bytes, true);
        let addr = self.flatten(addr);
        self.call(Helper::CompareExchangePair, Type::I64, &[addr], bytes);
        // The helper may have written translated code, this block's included.
        self.end_after_helper_store();
        Ok(())
    }

    /// Ends the block with a jump to the next instruction: what follows may have been rewritten by the helper just called.
    pub(super) fn end_after_helper_store(&mut self) {
        let next = self.next;
        self.b.jump(next);
        self.ended = true;
    }

    /// DAA, DAS, AAA, AAS, AAM, AAD.
    pub(super) fn decimal(&mut self, insn: &Instruction) -> Lifted {
        let (which, imm) = match insn.mnemonic() {
            Mnemonic::Daa => (0, 0),
            Mnemonic::Das => (1, 0),
            Mnemonic::Aaa => (2, 0),
            Mnemonic::Aas => (3, 0),
            Mnemonic::Aam => (4, insn.immediate8()),
            _ => (5, insn.immediate8()),
        };
        self.call(Helper::DecimalAdjust, Type::I64, &[], which | u32::from(imm) << 8);
        Ok(())
    }
}
