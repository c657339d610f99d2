//! Lowering of ops without effects on integers.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};
use mimus_ir::{Inst, Op, Shape, Type};

use super::Lowering;
use crate::error::BackendError;

impl Lowering<'_, '_> {
    /// Lowers a pure op.
    pub(super) fn pure(&mut self, inst: &Inst) -> Result<(), BackendError> {
        let ty = inst.ty;
        if ty == Type::V128 {
            return Err(self.malformed("no 128-bit form"));
        }
        let value = match inst.op.info().shape {
            Shape::Unary => {
                let a = self.int(inst.a, ty)?;
                self.unary(inst.op, ty, a)
            }
            Shape::Extend => self.extend(inst)?,
            Shape::Binary => {
                let a = self.int(inst.a, ty)?;
                let b = if is_shift(inst.op) { self.int(inst.b, Type::I8)? } else { self.int(inst.b, ty)? };
                self.binary(inst.op, ty, a, b)
            }
            Shape::BinaryImm => {
                let a = self.int(inst.a, ty)?;
                self.binary_imm(inst, a)
            }
            Shape::Compare => {
                let (a, b) = (self.int(inst.a, ty)?, self.int(inst.b, ty)?);
                self.compare(inst.op, a, b)
            }
            Shape::CompareImm => {
                let a = self.int(inst.a, ty)?;
                let b = self.constant(ty, inst.imm);
                self.compare(inst.op, a, b)
            }
            Shape::Select => {
                let cond = self.int(inst.a, Type::I8)?;
                let (then, otherwise) = (self.int(inst.b, ty)?, self.int(inst.c, ty)?);
                Some(self.b.ins().select(cond, then, otherwise))
            }
            Shape::Deposit => self.deposit(inst)?,
            Shape::Extract => self.extract(inst)?,
            Shape::Lea => self.lea(inst)?,
            _ => None,
        };
        let value = value.ok_or_else(|| self.malformed("not a pure op"))?;
        self.define(inst.result_type().unwrap_or(ty), value);
        Ok(())
    }

    fn unary(&mut self, op: Op, ty: Type, a: Value) -> Option<Value> {
        let ins = self.b.ins();
        Some(match op {
            Op::Neg => ins.ineg(a),
            Op::Not => ins.bnot(a),
            Op::Clz => ins.clz(a),
            Op::Ctz => ins.ctz(a),
            Op::Popcnt => ins.popcnt(a),
            Op::Bswap if ty == Type::I8 => a,
            Op::Bswap => ins.bswap(a),
            _ => return None,
        })
    }

    /// An op with a constant right operand.
    pub(super) fn binary_imm(&mut self, inst: &Inst, a: Value) -> Option<Value> {
        let ty = inst.ty;
        let b = if is_shift(inst.op) {
            self.constant(Type::I8, inst.imm & u64::from(ty.bits() - 1))
        } else {
            self.constant(ty, inst.imm)
        };
        self.binary(inst.op, ty, a, b)
    }

    pub(super) fn binary(&mut self, op: Op, ty: Type, a: Value, b: Value) -> Option<Value> {
        if matches!(op, Op::UMulHi | Op::SMulHi) {
            return Some(self.multiply_high(op, ty, a, b));
        }
        if matches!(op, Op::UDiv | Op::SDiv) {
            return Some(self.divide(op, ty, a, b));
        }
        let ins = self.b.ins();
        Some(match op {
            Op::Add | Op::AddI => ins.iadd(a, b),
            Op::Sub | Op::SubI => ins.isub(a, b),
            Op::Mul | Op::MulI => ins.imul(a, b),
            Op::And | Op::AndI => ins.band(a, b),
            Op::Or | Op::OrI => ins.bor(a, b),
            Op::Xor | Op::XorI => ins.bxor(a, b),
            Op::Shl | Op::ShlI => ins.ishl(a, b),
            Op::Shr | Op::ShrI => ins.ushr(a, b),
            Op::Sar | Op::SarI => ins.sshr(a, b),
            Op::Rotl | Op::RotlI => ins.rotl(a, b),
            Op::Rotr | Op::RotrI => ins.rotr(a, b),
            _ => return None,
        })
    }

    fn multiply_high(&mut self, op: Op, ty: Type, a: Value, b: Value) -> Value {
        let signed = op == Op::SMulHi;
        if ty == Type::I64 {
            return if signed { self.b.ins().smulhi(a, b) } else { self.b.ins().umulhi(a, b) };
        }
        // Both halves fit one register: portable, and no slower than a widening multiply.
        let [a, b] = [a, b].map(|x| match signed {
            true => self.b.ins().sextend(types::I64, x),
            false => self.b.ins().uextend(types::I64, x),
        });
        let product = self.b.ins().imul(a, b);
        let high = self.b.ins().ushr_imm_u(product, i64::from(ty.bits()));
        self.convert(high, Type::I64, ty)
    }

    /// Hosts trap, or have other results, for divisors of 0 and where a quotient overflows: those that may be so, 0 and -1, are none of
    /// the division's.
    fn divide(&mut self, op: Op, ty: Type, a: Value, b: Value) -> Value {
        let signed = op == Op::SDiv;
        let wide = if ty.bits() < 32 { Type::I32 } else { ty };
        let clif = self.ty(wide);
        let [a, b] = [a, b].map(|x| match signed && wide != ty {
            true => self.b.ins().sextend(clif, x),
            false => self.convert(x, ty, wide),
        });
        let (special, plain, done) = (self.cold_block(), self.b.create_block(), self.b.create_block());
        let quotient = self.b.append_block_param(done, clif);
        let is_special = if signed {
            let above = self.b.ins().iadd_imm_u(b, 1);
            self.b.ins().icmp_imm_u(IntCC::UnsignedLessThanOrEqual, above, 1)
        } else {
            self.b.ins().icmp_imm_u(IntCC::Equal, b, 0)
        };
        self.b.ins().brif(is_special, special, &[], plain, &[]);
        self.b.switch_to_block(special);
        let mut value = self.constant(wide, u64::MAX);
        if signed {
            let negated = self.b.ins().ineg(a);
            let zero = self.b.ins().icmp_imm_u(IntCC::Equal, b, 0);
            value = self.b.ins().select(zero, value, negated);
        }
        self.b.ins().jump(done, &[value.into()]);
        self.b.switch_to_block(plain);
        let value = if signed { self.b.ins().sdiv(a, b) } else { self.b.ins().udiv(a, b) };
        self.b.ins().jump(done, &[value.into()]);
        self.b.switch_to_block(done);
        self.convert(quotient, wide, ty)
    }

    fn compare(&mut self, op: Op, a: Value, b: Value) -> Option<Value> {
        let cc = match op {
            Op::Eq | Op::EqI => IntCC::Equal,
            Op::Ne | Op::NeI => IntCC::NotEqual,
            Op::Ult | Op::UltI => IntCC::UnsignedLessThan,
            Op::Ule | Op::UleI => IntCC::UnsignedLessThanOrEqual,
            Op::Slt | Op::SltI => IntCC::SignedLessThan,
            Op::Sle | Op::SleI => IntCC::SignedLessThanOrEqual,
            _ => return None,
        };
        Some(self.b.ins().icmp(cc, a, b))
    }

    fn extend(&mut self, inst: &Inst) -> Result<Option<Value>, BackendError> {
        let from = Type::ALL.get(usize::from(inst.c)).copied().filter(|&t| t != Type::V128);
        let from = from.ok_or_else(|| self.malformed("no such source type"))?;
        let value = self.int(inst.a, from)?;
        if inst.op == Op::Sext && inst.ty.bits() > from.bits() {
            let ty = self.ty(inst.ty);
            return Ok(Some(self.b.ins().sextend(ty, value)));
        }
        Ok(Some(self.convert(value, from, inst.ty)))
    }

    fn deposit(&mut self, inst: &Inst) -> Result<Option<Value>, BackendError> {
        let ty = inst.ty;
        let (pos, len) = bit_field(inst);
        let field = ((u64::MAX >> (64 - len)) << pos) & ty.mask();
        if field == 0 {
            return Ok(Some(self.int(inst.a, ty)?));
        }
        let (_, from) = self.definition(inst.b)?;
        // A byte, word or doubleword is cut out by a move of that width.
        let cut = Type::int(len / 8).filter(|t| len.is_multiple_of(8) && t.bits() < ty.bits());
        let (value, from) = match cut {
            Some(cut) => (self.int(inst.b, cut)?, cut),
            None => (self.int(inst.b, ty)?, from),
        };
        let mut value = if cut.is_some() { self.convert(value, from, ty) } else { value };
        if pos != 0 {
            value = self.b.ins().ishl_imm_u(value, i64::from(pos));
        }
        if from.bits() > len && pos + len < ty.bits() {
            let mask = self.constant(ty, field);
            value = self.b.ins().band(value, mask);
        }
        if field == ty.mask() {
            return Ok(Some(value));
        }
        let into = self.int(inst.a, ty)?;
        let mask = self.constant(ty, !field);
        let kept = self.b.ins().band(into, mask);
        Ok(Some(self.b.ins().bor(kept, value)))
    }

    /// The operand is not cut to the op's type first: a byte may be extracted from bit 8 on.
    fn extract(&mut self, inst: &Inst) -> Result<Option<Value>, BackendError> {
        let (pos, len) = bit_field(inst);
        let (_, from) = self.definition(inst.a)?;
        if pos >= from.bits() {
            return Ok(Some(self.constant(inst.ty, 0)));
        }
        let mut value = self.int(inst.a, from)?;
        if pos != 0 {
            value = self.b.ins().ushr_imm_u(value, i64::from(pos));
        }
        value = self.convert(value, from, inst.ty);
        if len < (from.bits() - pos).min(inst.ty.bits()) {
            let mask = self.constant(inst.ty, u64::MAX >> (64 - len));
            value = self.b.ins().band(value, mask);
        }
        Ok(Some(value))
    }

    fn lea(&mut self, inst: &Inst) -> Result<Option<Value>, BackendError> {
        let ty = inst.ty;
        let mut sum = self.int(inst.a, ty)?;
        let shift = u32::from(inst.c) & 63;
        let mut index = self.int(inst.b, ty)?;
        if shift < ty.bits() {
            if shift != 0 {
                index = self.b.ins().ishl_imm_u(index, i64::from(shift));
            }
            sum = self.b.ins().iadd(sum, index);
        }
        if inst.imm & ty.mask() != 0 {
            let disp = self.constant(ty, inst.imm);
            sum = self.b.ins().iadd(sum, disp);
        }
        Ok(Some(sum))
    }
}

/// Whether the second operand is a count, which may have any type.
fn is_shift(op: Op) -> bool {
    use Op::*;
    matches!(op, Shl | Shr | Sar | Rotl | Rotr | ShlI | ShrI | SarI | RotlI | RotrI)
}

/// Position and length, in the range the interpreter takes them in.
fn bit_field(inst: &Inst) -> (u32, u32) {
    let (pos, len) = inst.bit_field();
    (pos & 63, len.clamp(1, 64))
}
