//! Vector operations and floating point: almost every row of the table is one host instruction, with the guest's floating-point
//! environment in MXCSR.

use mimus_ir::vec::{TEST_EQUAL_OR_UNORDERED, TEST_ORDERED_AND_UNEQUAL, VecInfo, VecKind};
use mimus_ir::{Inst, Type, Value};

use super::alloc::Loc;
use super::emit::{Alu, Cond, Opcode, RAX, RCX, Rm, Width, op0f, op3a, op38};
use super::{Quick, Refused};

pub(super) const MOVUPS: Opcode = op0f(0, 0x10);
pub(super) const MOVUPS_TO_MEMORY: Opcode = op0f(0, 0x11);
const MOVAPS: Opcode = op0f(0, 0x28);
const PXOR: Opcode = op0f(0x66, 0xef);
const PCMPEQD: Opcode = op0f(0x66, 0x76);
const PTEST: Opcode = op38(0x17);

/// How an operation is made of its instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// `op dst, src` on `a` in place, with `b`.
    Two,
    /// Likewise with the immediate.
    TwoImm,
    /// `op dst, src` of `a` alone.
    One,
    /// Likewise with the immediate.
    OneImm,
    /// `op dst, imm` with this number in the register field, on `a` in place.
    Group(u8),
    /// `op dst, gpr` of integer `a`.
    FromInt,
    /// `op dst, gpr` on `a` in place, with integer `b`.
    Int,
    /// Likewise with the immediate.
    IntImm,
    /// `op gpr, src` of `a`.
    ToInt,
    /// Likewise with the immediate.
    ToIntImm,
    /// `op rm, reg, imm`, with the integer in the place of the register or memory operand.
    ExtractImm,
    /// `a` in place, with `b` by the signs of `c`, which is in XMM0.
    BySigns,
}

struct Row {
    kind: VecKind,
    form: Form,
    opcode: Opcode,
}

macro_rules! rows {
    ($($kind:ident $form:expr, $opcode:expr;)*) => {
        [$(Row { kind: VecKind::$kind, form: { use Form::*; $form }, opcode: $opcode }),*]
    };
}

/// Operation, form, instruction (SDM vol. 2).
static ROWS: [Row; 191] = rows! {
    From32 FromInt, op0f(0x66, 0x6e);
    From64 FromInt, op0f(0x66, 0x6e);
    Low64 One, op0f(0xf3, 0x7e);
    Extract8 ExtractImm, op3a(0x14);
    Extract16 ToIntImm, op0f(0x66, 0xc5);
    Extract32 ExtractImm, op3a(0x16);
    Extract64 ExtractImm, op3a(0x16);
    Insert8 IntImm, op3a(0x20);
    Insert16 IntImm, op0f(0x66, 0xc4);
    Insert32 IntImm, op3a(0x22);
    Insert64 IntImm, op3a(0x22);
    Signs8 ToInt, op0f(0x66, 0xd7);
    Signs32 ToInt, op0f(0, 0x50);
    Signs64 ToInt, op0f(0x66, 0x50);
    And Two, op0f(0x66, 0xdb);
    AndNot Two, op0f(0x66, 0xdf);
    Or Two, op0f(0x66, 0xeb);
    Xor Two, PXOR;
    Add8 Two, op0f(0x66, 0xfc);
    Add16 Two, op0f(0x66, 0xfd);
    Add32 Two, op0f(0x66, 0xfe);
    Add64 Two, op0f(0x66, 0xd4);
    Sub8 Two, op0f(0x66, 0xf8);
    Sub16 Two, op0f(0x66, 0xf9);
    Sub32 Two, op0f(0x66, 0xfa);
    Sub64 Two, op0f(0x66, 0xfb);
    AddSatS8 Two, op0f(0x66, 0xec);
    AddSatS16 Two, op0f(0x66, 0xed);
    AddSatU8 Two, op0f(0x66, 0xdc);
    AddSatU16 Two, op0f(0x66, 0xdd);
    SubSatS8 Two, op0f(0x66, 0xe8);
    SubSatS16 Two, op0f(0x66, 0xe9);
    SubSatU8 Two, op0f(0x66, 0xd8);
    SubSatU16 Two, op0f(0x66, 0xd9);
    Mul16 Two, op0f(0x66, 0xd5);
    Mul32 Two, op38(0x40);
    MulHighS16 Two, op0f(0x66, 0xe5);
    MulHighU16 Two, op0f(0x66, 0xe4);
    MulEvenU32 Two, op0f(0x66, 0xf4);
    MulEvenS32 Two, op38(0x28);
    MulAdd16 Two, op0f(0x66, 0xf5);
    MulRound16 Two, op38(0x0b);
    MulAdd8 Two, op38(0x04);
    ShuffleBytes Two, op38(0x00);
    Differences8 Two, op0f(0x66, 0xf6);
    Average8 Two, op0f(0x66, 0xe0);
    Average16 Two, op0f(0x66, 0xe3);
    MinS8 Two, op38(0x38);
    MinS16 Two, op0f(0x66, 0xea);
    MinS32 Two, op38(0x39);
    MinU8 Two, op0f(0x66, 0xda);
    MinU16 Two, op38(0x3a);
    MinU32 Two, op38(0x3b);
    MaxS8 Two, op38(0x3c);
    MaxS16 Two, op0f(0x66, 0xee);
    MaxS32 Two, op38(0x3d);
    MaxU8 Two, op0f(0x66, 0xde);
    MaxU16 Two, op38(0x3e);
    MaxU32 Two, op38(0x3f);
    Eq8 Two, op0f(0x66, 0x74);
    Eq16 Two, op0f(0x66, 0x75);
    Eq32 Two, PCMPEQD;
    Eq64 Two, op38(0x29);
    Sgt8 Two, op0f(0x66, 0x64);
    Sgt16 Two, op0f(0x66, 0x65);
    Sgt32 Two, op0f(0x66, 0x66);
    Sgt64 Two, op38(0x37);
    Abs8 One, op38(0x1c);
    Abs16 One, op38(0x1d);
    Abs32 One, op38(0x1e);
    AddPairs16 Two, op38(0x01);
    AddPairs32 Two, op38(0x02);
    NarrowS16 Two, op0f(0x66, 0x63);
    NarrowU16 Two, op0f(0x66, 0x67);
    NarrowS32 Two, op0f(0x66, 0x6b);
    NarrowU32 Two, op38(0x2b);
    ZipLow8 Two, op0f(0x66, 0x60);
    ZipLow16 Two, op0f(0x66, 0x61);
    ZipLow32 Two, op0f(0x66, 0x62);
    ZipLow64 Two, op0f(0x66, 0x6c);
    ZipHigh8 Two, op0f(0x66, 0x68);
    ZipHigh16 Two, op0f(0x66, 0x69);
    ZipHigh32 Two, op0f(0x66, 0x6a);
    ZipHigh64 Two, op0f(0x66, 0x6d);
    Shuffle32 OneImm, op0f(0x66, 0x70);
    ShuffleLow16 OneImm, op0f(0xf2, 0x70);
    ShuffleHigh16 OneImm, op0f(0xf3, 0x70);
    ShufflePair32 TwoImm, op0f(0, 0xc6);
    ShufflePair64 TwoImm, op0f(0x66, 0xc6);
    Align TwoImm, op3a(0x0f);
    Blend16 TwoImm, op3a(0x0e);
    Blend32 TwoImm, op3a(0x0c);
    Blend64 TwoImm, op3a(0x0d);
    BlendSigns8 BySigns, op38(0x10);
    BlendSigns32 BySigns, op38(0x14);
    BlendSigns64 BySigns, op38(0x15);
    InsertLane32 TwoImm, op3a(0x21);
    ShlBytes Group(7), op0f(0x66, 0x73);
    ShrBytes Group(3), op0f(0x66, 0x73);
    ShlI16 Group(6), op0f(0x66, 0x71);
    ShlI32 Group(6), op0f(0x66, 0x72);
    ShlI64 Group(6), op0f(0x66, 0x73);
    ShrI16 Group(2), op0f(0x66, 0x71);
    ShrI32 Group(2), op0f(0x66, 0x72);
    ShrI64 Group(2), op0f(0x66, 0x73);
    SarI16 Group(4), op0f(0x66, 0x71);
    SarI32 Group(4), op0f(0x66, 0x72);
    Shl16 Two, op0f(0x66, 0xf1);
    Shl32 Two, op0f(0x66, 0xf2);
    Shl64 Two, op0f(0x66, 0xf3);
    Shr16 Two, op0f(0x66, 0xd1);
    Shr32 Two, op0f(0x66, 0xd2);
    Shr64 Two, op0f(0x66, 0xd3);
    Sar16 Two, op0f(0x66, 0xe1);
    Sar32 Two, op0f(0x66, 0xe2);
    Sext8To16 One, op38(0x20);
    Sext8To32 One, op38(0x21);
    Sext8To64 One, op38(0x22);
    Sext16To32 One, op38(0x23);
    Sext16To64 One, op38(0x24);
    Sext32To64 One, op38(0x25);
    Zext8To16 One, op38(0x30);
    Zext8To32 One, op38(0x31);
    Zext8To64 One, op38(0x32);
    Zext16To32 One, op38(0x33);
    Zext16To64 One, op38(0x34);
    Zext32To64 One, op38(0x35);
    AddF32 Two, op0f(0xf3, 0x58);
    AddF64 Two, op0f(0xf2, 0x58);
    AddF32P Two, op0f(0, 0x58);
    AddF64P Two, op0f(0x66, 0x58);
    SubF32 Two, op0f(0xf3, 0x5c);
    SubF64 Two, op0f(0xf2, 0x5c);
    SubF32P Two, op0f(0, 0x5c);
    SubF64P Two, op0f(0x66, 0x5c);
    MulF32 Two, op0f(0xf3, 0x59);
    MulF64 Two, op0f(0xf2, 0x59);
    MulF32P Two, op0f(0, 0x59);
    MulF64P Two, op0f(0x66, 0x59);
    DivF32 Two, op0f(0xf3, 0x5e);
    DivF64 Two, op0f(0xf2, 0x5e);
    DivF32P Two, op0f(0, 0x5e);
    DivF64P Two, op0f(0x66, 0x5e);
    MinF32 Two, op0f(0xf3, 0x5d);
    MinF64 Two, op0f(0xf2, 0x5d);
    MinF32P Two, op0f(0, 0x5d);
    MinF64P Two, op0f(0x66, 0x5d);
    MaxF32 Two, op0f(0xf3, 0x5f);
    MaxF64 Two, op0f(0xf2, 0x5f);
    MaxF32P Two, op0f(0, 0x5f);
    MaxF64P Two, op0f(0x66, 0x5f);
    SqrtF32 Two, op0f(0xf3, 0x51);
    SqrtF64 Two, op0f(0xf2, 0x51);
    SqrtF32P One, op0f(0, 0x51);
    SqrtF64P One, op0f(0x66, 0x51);
    CompareF32 TwoImm, op0f(0xf3, 0xc2);
    CompareF64 TwoImm, op0f(0xf2, 0xc2);
    CompareF32P TwoImm, op0f(0, 0xc2);
    CompareF64P TwoImm, op0f(0x66, 0xc2);
    RoundF32 TwoImm, op3a(0x0a);
    RoundF64 TwoImm, op3a(0x0b);
    RoundF32P OneImm, op3a(0x08);
    RoundF64P OneImm, op3a(0x09);
    AddPairsF32P Two, op0f(0xf2, 0x7c);
    AddPairsF64P Two, op0f(0x66, 0x7c);
    SubPairsF32P Two, op0f(0xf2, 0x7d);
    SubPairsF64P Two, op0f(0x66, 0x7d);
    SubAddF32P Two, op0f(0xf2, 0xd0);
    SubAddF64P Two, op0f(0x66, 0xd0);
    F32ToF64 Two, op0f(0xf3, 0x5a);
    F64ToF32 Two, op0f(0xf2, 0x5a);
    F32PToF64P One, op0f(0, 0x5a);
    F64PToF32P One, op0f(0x66, 0x5a);
    I32PToF32P One, op0f(0, 0x5b);
    I32PToF64P One, op0f(0xf3, 0xe6);
    F32PToI32P One, op0f(0x66, 0x5b);
    F64PToI32P One, op0f(0xf2, 0xe6);
    TruncF32PToI32P One, op0f(0xf3, 0x5b);
    TruncF64PToI32P One, op0f(0x66, 0xe6);
    I32ToF32 Int, op0f(0xf3, 0x2a);
    I32ToF64 Int, op0f(0xf2, 0x2a);
    I64ToF32 Int, op0f(0xf3, 0x2a);
    I64ToF64 Int, op0f(0xf2, 0x2a);
    F32ToI32 ToInt, op0f(0xf3, 0x2d);
    F32ToI64 ToInt, op0f(0xf3, 0x2d);
    F64ToI32 ToInt, op0f(0xf2, 0x2d);
    F64ToI64 ToInt, op0f(0xf2, 0x2d);
    TruncF32ToI32 ToInt, op0f(0xf3, 0x2c);
    TruncF32ToI64 ToInt, op0f(0xf3, 0x2c);
    TruncF64ToI32 ToInt, op0f(0xf2, 0x2c);
    TruncF64ToI64 ToInt, op0f(0xf2, 0x2c);
};

/// Row of each operation, by its number; `None` for those done otherwise.
static BY_KIND: [Option<u8>; VecKind::ALL.len()] = {
    let mut all = [None; VecKind::ALL.len()];
    let mut i = 0;
    while i < ROWS.len() {
        all[ROWS[i].kind as usize] = Some(i as u8);
        i += 1;
    }
    all
};

impl Quick<'_> {
    pub(super) fn vector(&mut self, inst: &Inst) -> Result<(), Refused> {
        let info = inst.vec_info().ok_or(Refused)?;
        let row = info.kind.row();
        if row.op != inst.op || row.ty != inst.ty {
            return Err(Refused);
        }
        match info.kind {
            VecKind::Zero | VecKind::Ones => {
                let reg = self.result_vector()?;
                let opcode = if info.kind == VecKind::Zero { PXOR } else { PCMPEQD };
                self.e.inst(Width::Plain, opcode, reg, Rm::Reg(reg));
                Ok(())
            }
            VecKind::Any => {
                let x = self.vector_reg(inst.a, 0)?;
                self.e.inst(Width::Plain, PTEST, x, Rm::Reg(x));
                self.set_result(Cond::NE)
            }
            VecKind::OrderF32 => self.order(inst, op0f(0, 0x2f)),
            VecKind::OrderF64 => self.order(inst, op0f(0x66, 0x2f)),
            VecKind::OrderQuietF32 => self.order(inst, op0f(0, 0x2e)),
            VecKind::OrderQuietF64 => self.order(inst, op0f(0x66, 0x2e)),
            VecKind::TestF32 => self.test(inst, info, op0f(0, 0x2e)),
            VecKind::TestF64 => self.test(inst, info, op0f(0x66, 0x2e)),
            VecKind::MulAddF32 => self.multiply_add(inst, Width::Plain),
            VecKind::MulAddF64 => self.multiply_add(inst, Width::Wide),
            _ => self.by_row(inst, info),
        }
    }

    fn by_row(&mut self, inst: &Inst, info: VecInfo) -> Result<(), Refused> {
        let index = BY_KIND.get(info.kind as usize).copied().flatten().ok_or(Refused)?;
        let Row { form, opcode, .. } = ROWS[usize::from(index)];
        let row = info.kind.row();
        let imm = info.imm;
        let int_width = |ty: Type| if ty == Type::I64 { Width::Wide } else { Width::Plain };
        match form {
            Form::Two | Form::TwoImm => {
                let b = self.vector_reg(inst.b, 1)?;
                let dst = self.result_from_vector(inst.a)?;
                self.e.inst(Width::Plain, opcode, dst, Rm::Reg(b));
            }
            Form::One | Form::OneImm => {
                let a = self.vector_reg(inst.a, 1)?;
                let dst = self.result_vector()?;
                self.e.inst(Width::Plain, opcode, dst, Rm::Reg(a));
            }
            Form::Group(number) => {
                let dst = self.result_from_vector(inst.a)?;
                self.e.inst_imm8(Width::Plain, opcode, number, Rm::Reg(dst), imm);
            }
            Form::FromInt => {
                self.move_to(RCX, inst.a, row.int)?;
                let dst = self.result_vector()?;
                self.e.inst(int_width(row.int), opcode, dst, Rm::Reg(RCX));
            }
            Form::Int | Form::IntImm => {
                self.move_to(RCX, inst.b, row.int)?;
                let dst = self.result_from_vector(inst.a)?;
                self.e.inst(int_width(row.int), opcode, dst, Rm::Reg(RCX));
            }
            Form::ToInt | Form::ToIntImm => {
                let a = self.vector_reg(inst.a, 1)?;
                let dst = self.result()?;
                self.e.inst(int_width(row.ty), opcode, dst, Rm::Reg(a));
            }
            Form::ExtractImm => {
                let a = self.vector_reg(inst.a, 1)?;
                let dst = self.result()?;
                self.e.inst(int_width(row.ty), opcode, a, Rm::Reg(dst));
            }
            Form::BySigns => {
                let b = self.vector_reg(inst.b, 1)?;
                let c = self.vector_reg(inst.c, 0)?;
                if c != 0 {
                    self.e.inst(Width::Plain, MOVAPS, 0, Rm::Reg(c));
                }
                let dst = self.result_from_vector(inst.a)?;
                self.e.inst(Width::Plain, opcode, dst, Rm::Reg(b));
            }
        }
        if matches!(form, Form::TwoImm | Form::OneImm | Form::IntImm | Form::ToIntImm | Form::ExtractImm) {
            self.e.code.push(imm);
        }
        Ok(())
    }

    /// VFMADD213SS and VFMADD213SD: `a` in place, times `b`, plus `c`.
    fn multiply_add(&mut self, inst: &Inst, width: Width) -> Result<(), Refused> {
        if !self.fma {
            return Err(Refused);
        }
        let (b, c) = (self.vector_reg(inst.b, 0)?, self.vector_reg(inst.c, 1)?);
        let dst = self.result_from_vector(inst.a)?;
        self.e.vex38(width, 0xa9, dst, b, c);
        Ok(())
    }

    /// Whether two numbers are unordered.
    fn order(&mut self, inst: &Inst, compare: Opcode) -> Result<(), Refused> {
        self.compare_floats(compare, inst.a, inst.b)?;
        self.set_result(Cond::P)
    }

    fn compare_floats(&mut self, compare: Opcode, a: Value, b: Value) -> Result<(), Refused> {
        let (a, b) = (self.vector_reg(a, 0)?, self.vector_reg(b, 1)?);
        self.e.inst(Width::Plain, compare, a, Rm::Reg(b));
        Ok(())
    }

    /// A predicate by UCOMISx, which says "above" and its like of ordered numbers only.
    fn test(&mut self, inst: &Inst, info: VecInfo, compare: Opcode) -> Result<(), Refused> {
        let (a, b) = (inst.a, inst.b);
        let (a, b, cond, parity) = match info.imm {
            0 => (a, b, Cond::E, Some((Cond::NP, Alu::And))),
            1 => (b, a, Cond::A, None),
            2 => (b, a, Cond::AE, None),
            3 => (a, b, Cond::P, None),
            4 => (a, b, Cond::NE, Some((Cond::P, Alu::Or))),
            5 => (b, a, Cond::BE, None),
            6 => (b, a, Cond::B, None),
            7 => (a, b, Cond::NP, None),
            TEST_EQUAL_OR_UNORDERED => (a, b, Cond::E, None),
            TEST_ORDERED_AND_UNEQUAL => (a, b, Cond::NE, None),
            _ => return Err(Refused),
        };
        self.compare_floats(compare, a, b)?;
        if let Some((parity, combine)) = parity {
            self.e.set(parity, RAX);
            self.e.set(cond, RCX);
            self.e.alu(Width::Plain, combine, RAX, Rm::Reg(RCX));
            let reg = self.result()?;
            self.e.mov(Width::Plain, reg, Rm::Reg(RAX));
            return Ok(());
        }
        self.set_result(cond)
    }

    /// The condition as the current op's result. Giving it a register leaves the flags alone.
    fn set_result(&mut self, cond: Cond) -> Result<(), Refused> {
        let reg = self.result()?;
        self.e.set(cond, reg);
        Ok(())
    }

    /// A vector operand in a register: its own, or `scratch`.
    pub(super) fn vector_reg(&mut self, v: Value, scratch: u8) -> Result<u8, Refused> {
        match self.regs.get(v)? {
            Loc::Vector(reg) => Ok(reg),
            Loc::SpilledVector(slot) => {
                let mem = self.spill(slot);
                self.e.inst(Width::Plain, MOVUPS, scratch, mem);
                Ok(scratch)
            }
            _ => Err(Refused),
        }
    }

    /// A register for the current op's result.
    pub(super) fn result_vector(&mut self) -> Result<u8, Refused> {
        let reg = self.alloc_vector()?;
        self.regs.set(self.index, Loc::Vector(reg));
        Ok(reg)
    }

    /// A register for the current op's result that holds operand `a` already: its own if it is not needed any more.
    fn result_from_vector(&mut self, a: Value) -> Result<u8, Refused> {
        let inst = &self.block.insts[self.index];
        if let Loc::Vector(reg) = self.regs.get(a)?
            && self.plan.is_last(a, self.index)
            && ![inst.b, inst.c].contains(&a)
        {
            self.regs.release(a);
            self.regs.set(self.index, Loc::Vector(reg));
            return Ok(reg);
        }
        let reg = self.alloc_vector()?;
        match self.regs.get(a)? {
            Loc::SpilledVector(slot) => {
                let mem = self.spill(slot);
                self.e.inst(Width::Plain, MOVUPS, reg, mem);
            }
            _ => {
                let a = self.vector_reg(a, 0)?;
                self.e.inst(Width::Plain, MOVAPS, reg, Rm::Reg(a));
            }
        }
        self.regs.set(self.index, Loc::Vector(reg));
        Ok(reg)
    }
}

#[cfg(test)]
mod tests {
    use mimus_ir::vec::VecShape;

    use super::*;

    #[test]
    fn forms_are_of_the_rows_shapes() {
        for row in &ROWS {
            let shape = row.kind.row().shape;
            let fits = match row.form {
                Form::Two | Form::TwoImm => shape == VecShape::VVToV,
                Form::One | Form::OneImm | Form::Group(_) => shape == VecShape::VToV,
                Form::FromInt => shape == VecShape::IToV,
                Form::Int | Form::IntImm => shape == VecShape::VIToV,
                Form::ToInt | Form::ToIntImm | Form::ExtractImm => shape == VecShape::VToI,
                Form::BySigns => shape == VecShape::VVVToV,
            };
            assert!(fits, "{:?}", row.kind);
            let imm = matches!(
                row.form,
                Form::TwoImm | Form::OneImm | Form::IntImm | Form::ToIntImm | Form::ExtractImm | Form::Group(_)
            );
            assert_eq!(imm, row.kind.row().immediates > 1, "{:?}", row.kind);
        }
    }
}
