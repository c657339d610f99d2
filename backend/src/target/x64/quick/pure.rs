//! Ops without effects on integers.
//!
//! 8 and 16 bits are computed in 32 and then truncated, but for comparisons and rotations.

use mimus_ir::{Inst, Op, Shape, Type, Value};

use super::alloc::Loc;
use super::emit::{Alu, Cond, Gpr, LEA, RAX, RCX, RDX, Rm, Shift, Width, op, op0f};
use super::{Quick, Refused};

const IMUL: super::emit::Opcode = op0f(0, 0xaf);

fn width(ty: Type) -> Width {
    if ty == Type::I64 { Width::Wide } else { Width::Plain }
}

impl Quick<'_> {
    pub(super) fn pure(&mut self, inst: &Inst) -> Result<(), Refused> {
        if inst.ty == Type::V128 {
            return Err(Refused);
        }
        if self.plan.is_deferred(self.index) {
            self.regs.set(self.index, Loc::Deferred);
            return Ok(());
        }
        match inst.op.info().shape {
            Shape::Compare | Shape::CompareImm => {
                let cond = self.compare(inst)?;
                let reg = self.result()?;
                self.e.set(cond, reg);
                return Ok(());
            }
            _ => {}
        }
        match inst.op {
            Op::Add | Op::Sub | Op::And | Op::Or | Op::Xor => self.arithmetic(inst),
            Op::AddI | Op::SubI | Op::AndI | Op::OrI | Op::XorI => self.arithmetic_imm(inst),
            Op::Mul => self.multiply(inst),
            Op::MulI => self.multiply_imm(inst),
            Op::UMulHi | Op::SMulHi => self.multiply_high(inst),
            Op::UDiv | Op::SDiv => self.divide(inst),
            Op::Neg | Op::Not => self.negate(inst),
            Op::Clz | Op::Ctz => self.count_zeros(inst),
            Op::Popcnt => self.count_ones(inst),
            Op::Bswap => self.byte_swap(inst),
            Op::Zext | Op::Sext => self.extend(inst),
            Op::Shl | Op::Shr | Op::Sar | Op::Rotl | Op::Rotr => self.shift(inst),
            Op::ShlI | Op::ShrI | Op::SarI | Op::RotlI | Op::RotrI => self.shift_imm(inst),
            Op::Select => self.select(inst),
            Op::Deposit => self.deposit(inst),
            Op::Extract => self.extract(inst),
            Op::Lea => self.lea(inst),
            _ => Err(Refused),
        }
    }

    fn arithmetic(&mut self, inst: &Inst) -> Result<(), Refused> {
        let alu = alu_of(inst.op).ok_or(Refused)?;
        let reg = self.result_from(inst.a, inst.ty)?;
        self.alu(alu, reg, inst.b, inst.ty, RCX)?;
        self.narrow_unless_fits(inst, reg, &[inst.a, inst.b]);
        Ok(())
    }

    fn arithmetic_imm(&mut self, inst: &Inst) -> Result<(), Refused> {
        let alu = alu_of(inst.op).ok_or(Refused)?;
        let reg = self.result_from(inst.a, inst.ty)?;
        self.alu_const(alu, reg, inst.imm, inst.ty, RCX);
        self.narrow_unless_fits(inst, reg, &[inst.a]);
        Ok(())
    }

    /// Truncates the result unless the operation gives none of the bits that its operands do not have.
    fn narrow_unless_fits(&mut self, inst: &Inst, reg: Gpr, operands: &[Value]) {
        let bitwise = matches!(inst.op, Op::And | Op::AndI | Op::Or | Op::OrI | Op::Xor | Op::XorI);
        if !bitwise || operands.iter().any(|v| self.type_of(*v).bits() > inst.ty.bits()) {
            self.narrow(reg, inst.ty);
        }
    }

    fn multiply(&mut self, inst: &Inst) -> Result<(), Refused> {
        let reg = self.result_from(inst.a, inst.ty)?;
        let rm = self.rm(inst.b, RCX)?;
        self.e.inst(width(inst.ty), IMUL, reg, rm);
        self.narrow(reg, inst.ty);
        Ok(())
    }

    fn multiply_imm(&mut self, inst: &Inst) -> Result<(), Refused> {
        let reg = self.result_from(inst.a, inst.ty)?;
        self.e.mov_imm_flags(RCX, inst.imm);
        self.e.inst(width(inst.ty), IMUL, reg, Rm::Reg(RCX));
        self.narrow(reg, inst.ty);
        Ok(())
    }

    fn multiply_high(&mut self, inst: &Inst) -> Result<(), Refused> {
        const MUL: u8 = 4;
        const IMUL_WIDE: u8 = 5;
        let signed = inst.op == Op::SMulHi;
        let ty = inst.ty;
        for (reg, v) in [(RDX, inst.b), (RAX, inst.a)] {
            self.move_to(reg, v, ty)?;
            if signed {
                self.e.sign_extend(ty.bytes(), reg, Rm::Reg(reg));
            }
        }
        if ty == Type::I64 {
            self.e.inst(Width::Wide, op(0xf7), if signed { IMUL_WIDE } else { MUL }, Rm::Reg(RDX));
        } else {
            self.e.inst(Width::Wide, IMUL, RDX, Rm::Reg(RAX));
            self.e.shift_imm(Width::Wide, Shift::Shr, RDX, ty.bits() as u8);
        }
        let reg = self.result()?;
        self.e.zero_extend(ty.bytes(), reg, Rm::Reg(RDX));
        Ok(())
    }

    /// The host's instruction raises #DE for divisors of 0, and -1 where the quotient overflows: these have no division.
    fn divide(&mut self, inst: &Inst) -> Result<(), Refused> {
        const DIV: u8 = 6;
        const IDIV: u8 = 7;
        const NEG: u8 = 3;
        let (ty, w) = (inst.ty, width(inst.ty));
        let signed = inst.op == Op::SDiv;
        for (reg, v) in [(RCX, inst.b), (RAX, inst.a)] {
            self.move_to(reg, v, ty)?;
            if signed && ty.bytes() < 4 {
                self.e.sign_extend(ty.bytes(), reg, Rm::Reg(reg));
            }
        }
        let (plain, done) = (self.e.label(), self.e.label());
        if signed {
            self.e.inst(w, LEA, RDX, Rm::Mem(RCX, 1));
            self.e.alu_imm(w, Alu::Cmp, Rm::Reg(RDX), 1);
            self.e.jump_if(Cond::A, plain);
            self.e.inst(w, op(0xf7), NEG, Rm::Reg(RAX));
            self.e.mov_imm_flags(RDX, u64::MAX);
            self.e.inst(w, op(0x85), RCX, Rm::Reg(RCX));
            self.e.cmov(w, Cond::E, RAX, Rm::Reg(RDX));
        } else {
            self.e.inst(w, op(0x85), RCX, Rm::Reg(RCX));
            self.e.jump_if(Cond::NE, plain);
            self.e.mov_imm_flags(RAX, u64::MAX);
        }
        self.e.jump(done);
        self.e.place(plain);
        if signed {
            self.e.sign_into_rdx(w);
        } else {
            self.e.mov_imm(RDX, 0);
        }
        self.e.inst(w, op(0xf7), if signed { IDIV } else { DIV }, Rm::Reg(RCX));
        self.e.place(done);
        let reg = self.result()?;
        self.e.zero_extend(ty.bytes(), reg, Rm::Reg(RAX));
        Ok(())
    }

    fn negate(&mut self, inst: &Inst) -> Result<(), Refused> {
        const NOT: u8 = 2;
        const NEG: u8 = 3;
        let reg = self.result_from(inst.a, inst.ty)?;
        self.e.inst(width(inst.ty), op(0xf7), if inst.op == Op::Neg { NEG } else { NOT }, Rm::Reg(reg));
        self.narrow(reg, inst.ty);
        Ok(())
    }

    /// BSF and BSR leave their result undefined for 0, which is replaced.
    fn count_zeros(&mut self, inst: &Inst) -> Result<(), Refused> {
        let ty = inst.ty;
        let bits = u64::from(ty.bits());
        let host_bits = bits.max(32);
        self.move_to(RAX, inst.a, ty)?;
        let reg = self.result()?;
        if inst.op == Op::Ctz {
            self.e.mov_imm_flags(RCX, bits);
            self.e.inst(width(ty), op0f(0, 0xbc), reg, Rm::Reg(RAX));
            self.e.cmov(width(ty), Cond::E, reg, Rm::Reg(RCX));
        } else {
            // Bit number n gives width - 1 - n, which is n exclusive-ored with width - 1.
            self.e.mov_imm_flags(RCX, 2 * host_bits - 1);
            self.e.inst(width(ty), op0f(0, 0xbd), reg, Rm::Reg(RAX));
            self.e.cmov(width(ty), Cond::E, reg, Rm::Reg(RCX));
            self.e.alu_imm(Width::Plain, Alu::Xor, Rm::Reg(reg), host_bits as i32 - 1);
            if bits < host_bits {
                self.e.alu_imm(Width::Plain, Alu::Sub, Rm::Reg(reg), (host_bits - bits) as i32);
            }
        }
        Ok(())
    }

    fn count_ones(&mut self, inst: &Inst) -> Result<(), Refused> {
        self.move_to(RAX, inst.a, inst.ty)?;
        let reg = self.result()?;
        self.e.inst(Width::Wide, op0f(0xf3, 0xb8), reg, Rm::Reg(RAX));
        Ok(())
    }

    fn byte_swap(&mut self, inst: &Inst) -> Result<(), Refused> {
        let reg = self.result()?;
        self.move_to(reg, inst.a, inst.ty)?;
        match inst.ty {
            Type::I16 => {
                self.e.inst_imm8(Width::Plain, op(0xc1).size16(), Shift::Rol as u8, Rm::Reg(reg), 8);
            }
            Type::I32 | Type::I64 => self.e.byte_swap(width(inst.ty), reg),
            _ => {}
        }
        Ok(())
    }

    fn extend(&mut self, inst: &Inst) -> Result<(), Refused> {
        let from = Type::ALL[usize::from(inst.c).min(3)].bytes().min(inst.ty.bytes());
        if let Loc::Const(imm) = self.regs.get(inst.a)? {
            let value = mimus_ir::interp::eval_extend(inst.op, inst.ty, inst.c, imm);
            self.regs.set(self.index, Loc::Const(value));
            return Ok(());
        }
        let rm = self.rm(inst.a, RAX)?;
        let reg = self.result()?;
        if inst.op == Op::Zext || from == inst.ty.bytes() {
            self.e.zero_extend(from, reg, rm);
        } else {
            self.e.sign_extend(from, reg, rm);
            if inst.ty != Type::I64 {
                self.e.zero_extend(inst.ty.bytes(), reg, Rm::Reg(reg));
            }
        }
        Ok(())
    }

    fn shift(&mut self, inst: &Inst) -> Result<(), Refused> {
        let shift = shift_of(inst.op).ok_or(Refused)?;
        let ty = inst.ty;
        self.move_to(RCX, inst.b, Type::I8)?;
        if ty.bytes() < 4 {
            self.e.alu_imm(Width::Plain, Alu::And, Rm::Reg(RCX), ty.bits() as i32 - 1);
        }
        let reg = self.shifted(inst, shift)?;
        let opcode = if ty == Type::I8 && is_rotation(shift) { op(0xd2) } else { op(0xd3) };
        self.e.inst(shift_width(ty, shift), sized(opcode, ty, shift), shift as u8, Rm::Reg(reg));
        self.end_shift(reg, ty, shift);
        Ok(())
    }

    fn shift_imm(&mut self, inst: &Inst) -> Result<(), Refused> {
        let shift = shift_of(inst.op).ok_or(Refused)?;
        let ty = inst.ty;
        let count = inst.imm as u8 & (ty.bits() as u8 - 1);
        let reg = self.shifted(inst, shift)?;
        let opcode = if ty == Type::I8 && is_rotation(shift) { op(0xc0) } else { op(0xc1) };
        self.e.inst_imm8(shift_width(ty, shift), sized(opcode, ty, shift), shift as u8, Rm::Reg(reg), count);
        self.end_shift(reg, ty, shift);
        Ok(())
    }

    /// The operand to be shifted, extended as the shift needs it.
    fn shifted(&mut self, inst: &Inst, shift: Shift) -> Result<Gpr, Refused> {
        let ty = inst.ty;
        if shift == Shift::Shl {
            return self.result_from(inst.a, ty);
        }
        let reg = self.result()?;
        self.move_to(reg, inst.a, ty)?;
        if shift == Shift::Sar && ty.bytes() < 4 {
            self.e.sign_extend(ty.bytes(), reg, Rm::Reg(reg));
        }
        Ok(reg)
    }

    fn end_shift(&mut self, reg: Gpr, ty: Type, shift: Shift) {
        // What comes in from above is zero in a logical right shift, and rotations are of their own width.
        if matches!(shift, Shift::Shl | Shift::Sar) {
            self.narrow(reg, ty);
        }
    }

    fn select(&mut self, inst: &Inst) -> Result<(), Refused> {
        let reg = self.result()?;
        self.move_to(reg, inst.c, inst.ty)?;
        let cond = self.condition(inst.a)?;
        if self.type_of(inst.b).bits() > inst.ty.bits() || matches!(self.regs.get(inst.b)?, Loc::Const(_)) {
            self.move_to(RDX, inst.b, inst.ty)?;
            self.e.cmov(Width::Wide, cond, reg, Rm::Reg(RDX));
        } else {
            let rm = self.rm(inst.b, RDX)?;
            self.e.cmov(Width::Wide, cond, reg, rm);
        }
        Ok(())
    }

    fn deposit(&mut self, inst: &Inst) -> Result<(), Refused> {
        let (pos, len) = inst.bit_field();
        let (pos, len) = (pos & 63, len.clamp(1, 64));
        let field = (u64::MAX >> (64 - len)) << pos;
        if pos == 0 && (len == 8 || len == 16) && len <= inst.ty.bits() {
            let b = self.reg(inst.b, RCX)?;
            let reg = self.result_from(inst.a, Type::I64)?;
            match len {
                8 => self.e.mov(Width::Byte, reg, Rm::Reg(b)),
                _ => self.e.inst(Width::Plain, op(0x8b).size16(), reg, Rm::Reg(b)),
            }
            self.truncate(reg, inst.a, inst.ty);
            return Ok(());
        }
        self.move_to(RCX, inst.b, Type::I64)?;
        self.e.shift_imm(Width::Wide, Shift::Shl, RCX, pos as u8);
        self.alu_const(Alu::And, RCX, field, Type::I64, RDX);
        let reg = self.result_from(inst.a, Type::I64)?;
        self.alu_const(Alu::And, reg, !field, Type::I64, RDX);
        self.e.alu(Width::Wide, Alu::Or, reg, Rm::Reg(RCX));
        if inst.ty != Type::I64 {
            self.e.zero_extend(inst.ty.bytes(), reg, Rm::Reg(reg));
        }
        Ok(())
    }

    /// Truncates to `ty` what began as the value `v`.
    fn truncate(&mut self, reg: Gpr, v: Value, ty: Type) {
        if self.type_of(v).bits() > ty.bits() {
            self.e.zero_extend(ty.bytes(), reg, Rm::Reg(reg));
        }
    }

    fn extract(&mut self, inst: &Inst) -> Result<(), Refused> {
        let (pos, len) = inst.bit_field();
        let (pos, len) = (pos & 63, len.clamp(1, 64).min(inst.ty.bits()));
        if pos == 0 && matches!(len, 8 | 16 | 32) {
            let rm = self.rm(inst.a, RAX)?;
            let reg = self.result()?;
            self.e.zero_extend(len / 8, reg, rm);
            return Ok(());
        }
        let from = self.type_of(inst.a).bits();
        let reg = self.result_from(inst.a, Type::I64)?;
        if pos != 0 {
            self.e.shift_imm(Width::Wide, Shift::Shr, reg, pos as u8);
        }
        match len {
            _ if pos + len >= from => {}
            8 | 16 | 32 => self.e.zero_extend(len / 8, reg, Rm::Reg(reg)),
            _ => self.alu_const(Alu::And, reg, u64::MAX >> (64 - len), Type::I64, RDX),
        }
        Ok(())
    }

    fn lea(&mut self, inst: &Inst) -> Result<(), Refused> {
        let ty = inst.ty;
        let disp = match ty {
            Type::I64 => i32::try_from(inst.imm as i64).ok(),
            _ => Some(inst.imm as i32),
        };
        let (Some(disp), scale @ 0..=3) = (disp, (inst.c & 63) as u8) else {
            self.move_to(RCX, inst.b, Type::I64)?;
            self.e.shift_imm(Width::Wide, Shift::Shl, RCX, inst.c as u8 & 63);
            self.alu_const(Alu::Add, RCX, inst.imm, Type::I64, RDX);
            let reg = self.result_from(inst.a, Type::I64)?;
            self.e.alu(Width::Wide, Alu::Add, reg, Rm::Reg(RCX));
            if ty != Type::I64 {
                self.e.zero_extend(ty.bytes(), reg, Rm::Reg(reg));
            }
            return Ok(());
        };
        let (a, b) = (self.reg(inst.a, RAX)?, self.reg(inst.b, RCX)?);
        let reg = self.result()?;
        self.e.inst(width(ty), LEA, reg, Rm::Index(a, b, scale, disp));
        self.narrow(reg, ty);
        Ok(())
    }

    /// Makes the comparison `inst`; the condition that it holds.
    fn compare(&mut self, inst: &Inst) -> Result<Cond, Refused> {
        let (cond, signed) = match inst.op {
            Op::Eq | Op::EqI => (Cond::E, false),
            Op::Ne | Op::NeI => (Cond::NE, false),
            Op::Ult | Op::UltI => (Cond::B, false),
            Op::Ule | Op::UleI => (Cond::BE, false),
            Op::Slt | Op::SltI => (Cond::L, true),
            Op::Sle | Op::SleI => (Cond::LE, true),
            _ => return Err(Refused),
        };
        let ty = inst.ty;
        let imm = match inst.op.info().shape {
            Shape::CompareImm => Some(inst.imm & ty.mask()),
            _ => match self.regs.get(inst.b)? {
                Loc::Const(imm) => Some(imm & ty.mask()),
                _ => None,
            },
        };
        let a = self.compared(inst.a, ty, signed, RAX)?;
        match imm {
            Some(0) if matches!(cond, Cond::E | Cond::NE) => {
                let w = if ty == Type::I8 { Width::Byte } else { width(ty) };
                self.e.inst(w, if ty == Type::I8 { op(0x84) } else { op(0x85) }, a, Rm::Reg(a));
            }
            Some(imm) => {
                let imm = if signed { sign(imm, ty) } else { imm };
                self.compare_const(a, imm, ty);
            }
            None => {
                let b = self.compared(inst.b, ty, signed, RCX)?;
                let w = if ty == Type::I8 { Width::Byte } else { width(ty) };
                self.e.alu(w, Alu::Cmp, a, Rm::Reg(b));
            }
        }
        Ok(cond)
    }

    fn compare_const(&mut self, a: Gpr, imm: u64, ty: Type) {
        match ty {
            Type::I8 => self.e.alu_imm(Width::Byte, Alu::Cmp, Rm::Reg(a), imm as i32),
            _ => self.alu_const(Alu::Cmp, a, imm, ty, RDX),
        }
    }

    /// An operand of a comparison, in a register, so that its width is a host's: 16 bits are extended to 32.
    fn compared(&mut self, v: Value, ty: Type, signed: bool, scratch: Gpr) -> Result<Gpr, Refused> {
        if ty == Type::I16 && (signed || self.type_of(v).bits() > 16) {
            let rm = self.rm(v, scratch)?;
            match signed {
                true => self.e.sign_extend(2, scratch, rm),
                false => self.e.zero_extend(2, scratch, rm),
            }
            return Ok(scratch);
        }
        self.reg(v, scratch)
    }

    /// Sets the flags by condition `v`; which of them say that it holds. Uses RAX, RCX and RDX.
    pub(super) fn condition(&mut self, v: Value) -> Result<Cond, Refused> {
        if self.regs.get(v)? != Loc::Deferred {
            let reg = self.reg(v, RAX)?;
            self.e.inst(Width::Byte, op(0x84), reg, Rm::Reg(reg));
            return Ok(Cond::NE);
        }
        let block = self.block;
        let inst = block.insts.get(usize::from(v)).ok_or(Refused)?;
        if inst.op == Op::XorI { Ok(self.condition(inst.a)?.not()) } else { self.compare(inst) }
    }
}

fn alu_of(op: Op) -> Option<Alu> {
    Some(match op {
        Op::Add | Op::AddI => Alu::Add,
        Op::Sub | Op::SubI => Alu::Sub,
        Op::And | Op::AndI => Alu::And,
        Op::Or | Op::OrI => Alu::Or,
        Op::Xor | Op::XorI => Alu::Xor,
        _ => return None,
    })
}

fn shift_of(op: Op) -> Option<Shift> {
    Some(match op {
        Op::Shl | Op::ShlI => Shift::Shl,
        Op::Shr | Op::ShrI => Shift::Shr,
        Op::Sar | Op::SarI => Shift::Sar,
        Op::Rotl | Op::RotlI => Shift::Rol,
        Op::Rotr | Op::RotrI => Shift::Ror,
        _ => return None,
    })
}

fn is_rotation(shift: Shift) -> bool {
    matches!(shift, Shift::Rol | Shift::Ror)
}

/// Rotations are of their own width, shifts of at least 32 bits.
fn shift_width(ty: Type, shift: Shift) -> Width {
    if ty == Type::I8 && is_rotation(shift) { Width::Byte } else { width(ty) }
}

fn sized(opcode: super::emit::Opcode, ty: Type, shift: Shift) -> super::emit::Opcode {
    if ty == Type::I16 && is_rotation(shift) { opcode.size16() } else { opcode }
}

fn sign(imm: u64, ty: Type) -> u64 {
    let unused = 64 - ty.bits();
    ((imm << unused) as i64 >> unused) as u64
}
