//! DIV and IDIV: ops that are total, and traps for what they have no quotient for (SDM vol. 2A). A dividend of twice 64 bits has an op
//! only if its upper half is seen to be that of a number of 64; a helper divides the others.

use iced_x86::{Instruction, Mnemonic};
use mimus_ir::block::Value;
use mimus_ir::op::{Op, Type};
use mimus_ir::{Effects, Inst};

use super::operand::Gpr;
use super::{Lift, Lifted};
use crate::x86::exception::{Exception, vector};
use crate::x86::helpers::Helper;
use crate::x86::state::{gpr_slot, reg};

/// A division under way.
struct Division {
    signed: bool,
    /// Of the divisor, and of both results.
    ty: Type,
    /// What the dividend fits into.
    wide: Type,
    dividend: Value,
    divisor: Value,
}

impl Lift {
    /// DIV, IDIV. The flags are left as they were.
    pub(super) fn div(&mut self, insn: &Instruction) -> Lifted {
        let ty = self.operand_type(insn, 0);
        let src = self.read(insn, 0, ty);
        let signed = insn.mnemonic() == Mnemonic::Idiv;
        let Some((wide, dividend)) = self.dividend(ty, signed) else {
            let flags = self.flags;
            self.call(Helper::Divide, Type::I64, &[src], signed.into());
            self.flags = flags;
            return Ok(());
        };
        let extend = if signed { Op::Sext } else { Op::Zext };
        let divisor = if wide == ty { src } else { self.b.extend(extend, wide, ty, src) };
        let division = Division { signed, ty, wide, dividend, divisor };
        let quotient = self.b.binary(if signed { Op::SDiv } else { Op::UDiv }, wide, dividend, divisor);
        let undefined = self.has_no_quotient(&division, quotient);
        self.b.trap_if(undefined, Exception::plain(vector::DE).trap_code());
        let product = self.b.binary(Op::Mul, ty, quotient, divisor);
        let remainder = self.b.binary(Op::Sub, ty, dividend, product);
        if ty == Type::I8 {
            let both = self.b.deposit(Type::I64, quotient, remainder, 8, 8);
            self.write_gpr(Gpr::new(reg::RAX, Type::I16), both);
        } else {
            self.write_gpr(Gpr::new(reg::RAX, ty), quotient);
            self.write_gpr(Gpr::new(reg::RDX, ty), remainder);
        }
        Ok(())
    }

    /// The dividend, and the type that it fits into, if there is one.
    fn dividend(&mut self, ty: Type, signed: bool) -> Option<(Type, Value)> {
        let acc = self.gpr(reg::RAX);
        if ty == Type::I8 {
            return Some((
                Type::I32,
                self.b.extend(if signed { Op::Sext } else { Op::Zext }, Type::I32, Type::I16, acc),
            ));
        }
        let wide = match ty {
            _ if ty != Type::I16 && self.is_extended(ty, signed) => return Some((ty, acc)),
            Type::I16 => Type::I32,
            Type::I32 => Type::I64,
            _ => return None,
        };
        let high = self.gpr(reg::RDX);
        Some((wide, self.b.deposit(wide, acc, high, ty.bits(), ty.bits())))
    }

    /// Whether the block has left in RDX what extends the RAX of now, as a number of type `ty`: zero, or with `signed` its sign.
    fn is_extended(&self, ty: Type, signed: bool) -> bool {
        let (acc, high) = (gpr_slot(reg::RAX).offset, gpr_slot(reg::RDX).offset);
        let end = self.b.len() as Value;
        let Some(written) = (0..end).rev().find(|&at| self.writes(at, high)) else { return false };
        let extension = match self.b.inst(written) {
            Some(&Inst { op: Op::StoreEnv, c, a, .. }) if c == high => self.b.inst(a),
            _ => None,
        };
        match extension {
            Some(Inst { op: Op::Const, imm: 0, .. }) => !signed,
            Some(&Inst { op: Op::SarI, ty: of, a, imm, .. }) => {
                let of_acc = self.b.inst(a).is_some_and(|inst| inst.op == Op::LoadEnv && inst.c == acc);
                let sign = of == ty && imm == u64::from(ty.bits() - 1);
                signed && sign && of_acc && !(a..end).any(|at| self.writes(at, acc))
            }
            _ => false,
        }
    }

    /// Whether op number `at` may write the slot of a general register at `offset`.
    fn writes(&self, at: Value, offset: u16) -> bool {
        self.b.inst(at).is_some_and(|inst| match inst.op {
            Op::StoreEnv | Op::StoreEnvI => inst.c == offset,
            _ => inst.effects().contains(Effects::WRITE_ENV),
        })
    }

    /// Whether there is no quotient, or it does not fit.
    fn has_no_quotient(&mut self, division: &Division, quotient: Value) -> Value {
        let &Division { signed, ty, wide, dividend, divisor } = division;
        if !signed && wide != ty {
            // All ones for a divisor of 0.
            let above = self.b.binary_imm(Op::ShrI, wide, quotient, u64::from(ty.bits()));
            return self.b.binary_imm(Op::NeI, wide, above, 0);
        }
        let zero = self.b.binary_imm(Op::EqI, wide, divisor, 0);
        if !signed {
            return zero;
        }
        let overflow = if wide == ty {
            let minus_one = self.b.binary_imm(Op::EqI, ty, divisor, ty.mask());
            let least = self.b.binary_imm(Op::EqI, ty, dividend, 1 << (ty.bits() - 1));
            self.b.binary(Op::And, Type::I8, minus_one, least)
        } else {
            let fitting = self.b.extend(Op::Sext, wide, ty, quotient);
            self.b.binary(Op::Ne, wide, fitting, quotient)
        };
        self.b.binary(Op::Or, Type::I8, zero, overflow)
    }
}
