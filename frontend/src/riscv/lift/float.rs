//! Floating point. The common case is inline, by operations on the IR's vectors, whose rounding mode and flags are those of
//! [`State::fp_env`](crate::riscv::state::State::fp_env). What is not common leaves the block by a trap that executes the
//! instruction exactly ([`TrapCode::Float`]): operands that are not boxed, NaNs as results, since RISC-V has one of its own, and
//! integers out of range. Flags that were raised by then are raised again.

use mimus_ir::block::{NONE, Value};
use mimus_ir::op::{Op, Type};
use mimus_ir::vec::TEST_EQUAL_OR_UNORDERED;
use mimus_ir::{MemFlags, VecKind};

use super::{Lift, Lifted};
use crate::riscv::float::{RMM, SOURCES, boxed, boxed_half};
use crate::riscv::helpers::Helper;
use crate::riscv::isa::{Code, Field, Insn};
use crate::riscv::mode::Mode;
use crate::riscv::state::f_slot;
use crate::riscv::trap::TrapCode;

/// The rounding mode that says: the one in frm.
const DYNAMIC: u8 = 7;
/// The first number that is no rounding mode.
const RESERVED: u8 = 5;
/// Towards zero.
const RTZ: u8 = 1;

/// Predicates of the IR's tests.
const EQUAL: u8 = 0;
const LESS: u8 = 1;
const LESS_OR_EQUAL: u8 = 2;
const UNORDERED: u8 = 3;

/// What of an instruction is single precision.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Singles {
    operands: bool,
    result: bool,
}

const DOUBLE: Singles = Singles { operands: false, result: false };
const SINGLE: Singles = Singles { operands: true, result: true };
const WIDENING: Singles = Singles { operands: true, result: false };
const NARROWING: Singles = Singles { operands: false, result: true };

/// Arithmetic that is one operation on two vectors.
fn arithmetic(code: Code) -> Option<(VecKind, Singles)> {
    use Code::*;
    Some(match code {
        FaddD => (VecKind::AddF64, DOUBLE),
        FsubD => (VecKind::SubF64, DOUBLE),
        FmulD => (VecKind::MulF64, DOUBLE),
        FdivD => (VecKind::DivF64, DOUBLE),
        FsqrtD => (VecKind::SqrtF64, DOUBLE),
        FaddS => (VecKind::AddF32, SINGLE),
        FsubS => (VecKind::SubF32, SINGLE),
        FmulS => (VecKind::MulF32, SINGLE),
        FdivS => (VecKind::DivF32, SINGLE),
        FsqrtS => (VecKind::SqrtF32, SINGLE),
        FcvtDS => (VecKind::F32ToF64, WIDENING),
        FcvtSD => (VecKind::F64ToF32, NARROWING),
        _ => return None,
    })
}

/// Multiplications with an addition: the operation, and whether the product and the addend are negated.
fn multiply_add(code: Code) -> Option<(VecKind, [bool; 2], Singles)> {
    use Code::*;
    Some(match code {
        FmaddD => (VecKind::MulAddF64, [false, false], DOUBLE),
        FmsubD => (VecKind::MulAddF64, [false, true], DOUBLE),
        FnmsubD => (VecKind::MulAddF64, [true, false], DOUBLE),
        FnmaddD => (VecKind::MulAddF64, [true, true], DOUBLE),
        FmaddS => (VecKind::MulAddF32, [false, false], SINGLE),
        FmsubS => (VecKind::MulAddF32, [false, true], SINGLE),
        FnmsubS => (VecKind::MulAddF32, [true, false], SINGLE),
        FnmaddS => (VecKind::MulAddF32, [true, true], SINGLE),
        _ => return None,
    })
}

/// Conversions to integers: rounding towards zero, and by the mode.
fn to_integer(code: Code) -> Option<(VecKind, VecKind, Singles)> {
    use Code::*;
    Some(match code {
        FcvtWD => (VecKind::TruncF64ToI32, VecKind::F64ToI32, DOUBLE),
        FcvtLD => (VecKind::TruncF64ToI64, VecKind::F64ToI64, DOUBLE),
        FcvtWS => (VecKind::TruncF32ToI32, VecKind::F32ToI32, SINGLE),
        FcvtLS => (VecKind::TruncF32ToI64, VecKind::F32ToI64, SINGLE),
        _ => return None,
    })
}

/// Conversions of integers: the operation, whether the integer is an unsigned word, what the result is.
fn from_integer(code: Code) -> Option<(VecKind, bool, Singles)> {
    use Code::*;
    Some(match code {
        FcvtDW => (VecKind::I32ToF64, false, DOUBLE),
        FcvtDWu => (VecKind::I64ToF64, true, DOUBLE),
        FcvtDL => (VecKind::I64ToF64, false, DOUBLE),
        FcvtSW => (VecKind::I32ToF32, false, NARROWING),
        FcvtSWu => (VecKind::I64ToF32, true, NARROWING),
        FcvtSL => (VecKind::I64ToF32, false, NARROWING),
        _ => return None,
    })
}

/// Comparisons: what raises the flags, the predicate, what the operands are.
fn comparison(code: Code) -> Option<(VecKind, u8, Singles)> {
    use Code::*;
    Some(match code {
        FeqD => (VecKind::OrderQuietF64, EQUAL, DOUBLE),
        FltD => (VecKind::OrderF64, LESS, DOUBLE),
        FleD => (VecKind::OrderF64, LESS_OR_EQUAL, DOUBLE),
        FeqS => (VecKind::OrderQuietF32, EQUAL, SINGLE),
        FltS => (VecKind::OrderF32, LESS, SINGLE),
        FleS => (VecKind::OrderF32, LESS_OR_EQUAL, SINGLE),
        _ => return None,
    })
}

impl Lift {
    /// Floating-point register `number` as a vector.
    fn vector(&mut self, number: u8) -> Value {
        self.b.load_env(f_slot(number))
    }

    fn set_vector(&mut self, number: u8, value: Value, single: bool) {
        self.b.store_env(f_slot(number), value);
        self.set_known_boxed(number, single);
    }

    fn known_boxed(&self, number: u8) -> bool {
        self.boxed >> (number & 31) & 1 != 0
    }

    fn set_known_boxed(&mut self, number: u8, boxed: bool) {
        self.boxed = self.boxed & !(1 << (number & 31)) | u32::from(boxed) << (number & 31);
    }

    /// The 64 bits of floating-point register `number`.
    fn f(&mut self, number: u8) -> Value {
        let register = self.vector(number);
        self.b.vec(VecKind::Extract64, 0, [register, NONE, NONE])
    }

    fn set_f(&mut self, number: u8, bits: Value, single: bool) {
        let register = self.b.vec(VecKind::From64, 0, [bits, NONE, NONE]);
        self.set_vector(number, register, single);
    }

    /// Writes the low 32 bits of an integer as a single-precision number.
    fn set_boxed(&mut self, number: u8, bits: Value) {
        let wide = self.b.extend(Op::Zext, Type::I64, Type::I32, bits);
        let value = self.b.binary_imm(Op::Or, Type::I64, wide, boxed(0));
        self.set_f(number, value, true);
    }

    /// Writes the low 16 bits of an integer as a half-precision number. Its box is one of a single-precision number, too.
    fn set_boxed_half(&mut self, number: u8, bits: Value) {
        let wide = self.b.extend(Op::Zext, Type::I64, Type::I16, bits);
        let value = self.b.binary_imm(Op::Or, Type::I64, wide, boxed_half(0));
        self.set_f(number, value, true);
    }

    pub(super) fn float(&mut self, insn: &Insn) -> Lifted {
        let stores = matches!(insn.code, Code::Fsw | Code::Fsd | Code::Fsh);
        if !is_float(insn) {
            return false;
        }
        if self.mode.intersects(Mode::FLOAT_OFF) {
            self.illegal();
        } else if self.mode.intersects(Mode::FLOAT_CLEAN) && !stores {
            self.make_float_dirty();
        } else if !self.move_float(insn) {
            match self.rounding(insn) {
                Some(rm) if self.inline(insn, rm) => {}
                Some(rm) => self.compute(insn, rm),
                None => self.illegal(),
            }
        }
        true
    }

    /// Loads, stores, moves.
    fn move_float(&mut self, insn: &Insn) -> bool {
        match insn.code {
            Code::Flw | Code::Fld => {
                let base = self.x(insn.rs1);
                let ty = if insn.code == Code::Flw { Type::I32 } else { Type::I64 };
                let bits = self.b.load(ty, base, insn.imm as i32, MemFlags::empty());
                if ty == Type::I32 { self.set_boxed(insn.rd, bits) } else { self.set_f(insn.rd, bits, false) }
            }
            Code::Fsw | Code::Fsd => {
                let base = self.x(insn.rs1);
                let register = self.vector(insn.rs2);
                let (kind, ty) = if insn.code == Code::Fsw {
                    (VecKind::Extract32, Type::I32)
                } else {
                    (VecKind::Extract64, Type::I64)
                };
                let bits = self.b.vec(kind, 0, [register, NONE, NONE]);
                self.b.store(ty, base, insn.imm as i32, bits, MemFlags::empty());
            }
            Code::Flh => {
                let base = self.x(insn.rs1);
                let bits = self.b.load(Type::I16, base, insn.imm as i32, MemFlags::empty());
                self.set_boxed_half(insn.rd, bits);
            }
            Code::Fsh => {
                let (base, bits) = (self.x(insn.rs1), self.f(insn.rs2));
                self.b.store(Type::I16, base, insn.imm as i32, bits, MemFlags::empty());
            }
            Code::FmvXH => {
                let bits = self.f(insn.rs1);
                let value = self.sext(Type::I16, bits);
                self.set_x(insn.rd, value);
            }
            Code::FmvHX => {
                let bits = self.x(insn.rs1);
                self.set_boxed_half(insn.rd, bits);
            }
            Code::FmvXW => {
                let bits = self.f(insn.rs1);
                let value = self.sext(Type::I32, bits);
                self.set_x(insn.rd, value);
            }
            Code::FmvXD => {
                let bits = self.f(insn.rs1);
                self.set_x(insn.rd, bits);
            }
            Code::FmvWX => {
                let bits = self.x(insn.rs1);
                self.set_boxed(insn.rd, bits);
            }
            Code::FmvDX => {
                let bits = self.x(insn.rs1);
                self.set_f(insn.rd, bits, false);
            }
            Code::FsgnjD | Code::FsgnjnD | Code::FsgnjxD => self.with_sign(insn, DOUBLE),
            Code::FsgnjS | Code::FsgnjnS | Code::FsgnjxS => self.with_sign(insn, SINGLE),
            _ => return false,
        }
        true
    }

    /// The first operand with a sign: the second's, its opposite, or the product of both.
    fn with_sign(&mut self, insn: &Insn, singles: Singles) {
        let [a, b] = self.operands(insn, 0, singles);
        let (same, mask) = (insn.rs1 == insn.rs2, if singles.operands { 1 << 31 } else { 1 << 63 });
        let (negated, multiplied) = match insn.code {
            Code::FsgnjnD | Code::FsgnjnS => (true, false),
            Code::FsgnjxD | Code::FsgnjxS => (false, true),
            _ => (false, false),
        };
        if same && !negated && !multiplied {
            return self.set_vector(insn.rd, a, singles.result);
        }
        let bits = self.iconst(mask);
        let mask = self.b.vec(VecKind::From64, 0, [bits, NONE, NONE]);
        let value = match (same, negated, multiplied) {
            (true, true, _) => self.b.vec(VecKind::Xor, 0, [a, mask, NONE]),
            (true, _, true) => self.b.vec(VecKind::AndNot, 0, [mask, a, NONE]),
            _ => {
                let sign = self.b.vec(VecKind::And, 0, [b, mask, NONE]);
                if multiplied {
                    self.b.vec(VecKind::Xor, 0, [a, sign, NONE])
                } else {
                    let sign = if negated { self.b.vec(VecKind::Xor, 0, [sign, mask, NONE]) } else { sign };
                    let magnitude = self.b.vec(VecKind::AndNot, 0, [mask, a, NONE]);
                    self.b.vec(VecKind::Or, 0, [magnitude, sign, NONE])
                }
            }
        };
        self.set_vector(insn.rd, value, singles.result);
    }

    /// The rounding mode of the current instruction; `None` if there is none of that number.
    fn rounding(&self, insn: &Insn) -> Option<u8> {
        if !insn.row().has(Field::Rm) {
            return Some(0);
        }
        let rm = if insn.rm == DYNAMIC { self.mode.frm() } else { insn.rm };
        (rm < RESERVED).then_some(rm)
    }

    /// Leaves the block to have the instruction executed exactly, if `condition`.
    fn exactly_if(&mut self, condition: Value, insn: &Insn, rm: u8) {
        // The field has a meaning only where there is a rounding mode.
        let rm = if insn.row().has(Field::Rm) { rm } else { insn.rm };
        let word = Insn { rm, ..*insn }.encode();
        self.b.trap_if(condition, TrapCode::Float { word }.encode());
    }

    /// Both sources; single-precision ones are sure to be boxed.
    fn operands(&mut self, insn: &Insn, rm: u8, singles: Singles) -> [Value; 2] {
        let two = insn.row().has(Field::Rs2);
        self.sources(insn, rm, singles, [insn.rs1, if two { insn.rs2 } else { insn.rs1 }])
    }

    fn sources<const N: usize>(&mut self, insn: &Insn, rm: u8, singles: Singles, numbers: [u8; N]) -> [Value; N] {
        numbers.map(|number| {
            let register = self.vector(number);
            if singles.operands && !self.known_boxed(number) {
                let upper = self.b.vec(VecKind::Extract32, 1, [register, NONE, NONE]);
                let bare = self.b.binary_imm(Op::Ne, Type::I32, upper, boxed(0) >> 32);
                self.exactly_if(bare, insn, rm);
                self.set_known_boxed(number, true);
            }
            register
        })
    }

    /// Writes a result that is no NaN, or leaves.
    fn set_number(&mut self, insn: &Insn, rm: u8, value: Value, single: bool) {
        let test = if single { VecKind::TestF32 } else { VecKind::TestF64 };
        let nan = self.b.vec(test, UNORDERED, [value, value, NONE]);
        self.exactly_if(nan, insn, rm);
        self.set_vector(insn.rd, value, single);
    }

    /// Operations in which the rounding mode is the environment's, or has no part.
    fn inline(&mut self, insn: &Insn, rm: u8) -> bool {
        let live = rm == self.mode.frm() && rm != RMM;
        if let Some((kind, singles)) = arithmetic(insn.code)
            && live
        {
            let [a, b] = self.operands(insn, rm, singles);
            // A narrow result is boxed by what is in the other lanes of the first operand.
            let a = if singles == NARROWING { self.b.vec(VecKind::Ones, 0, [NONE; 3]) } else { a };
            let value = self.b.vec(kind, 0, [a, b, NONE]);
            self.set_number(insn, rm, value, singles.result);
        } else if let Some((kind, negated, singles)) = multiply_add(insn.code)
            && live
        {
            let [mut a, b, mut c] = self.sources(insn, rm, singles, [insn.rs1, insn.rs2, insn.rs3]);
            if negated.contains(&true) {
                let sign = self.iconst(if singles.operands { 1 << 31 } else { 1 << 63 });
                let sign = self.b.vec(VecKind::From64, 0, [sign, NONE, NONE]);
                for (operand, _) in [&mut a, &mut c].into_iter().zip(negated).filter(|(_, negated)| *negated) {
                    *operand = self.b.vec(VecKind::Xor, 0, [*operand, sign, NONE]);
                }
            }
            let value = self.b.vec(kind, 0, [a, b, c]);
            self.set_number(insn, rm, value, singles.result);
        } else if let Some((trunc, round, singles)) = to_integer(insn.code)
            && (live || rm == RTZ)
        {
            self.convert_to_integer(insn, rm, if rm == RTZ { trunc } else { round }, singles);
        } else if let Some((kind, unsigned, singles)) = from_integer(insn.code)
            // Doubles have all words exactly.
            && (live || !singles.result && kind == VecKind::I32ToF64 || !singles.result && unsigned)
        {
            let integer = self.x(insn.rs1);
            let integer = if unsigned { self.b.extend(Op::Zext, Type::I64, Type::I32, integer) } else { integer };
            let rest = self.b.vec(if singles.result { VecKind::Ones } else { VecKind::Zero }, 0, [NONE; 3]);
            let value = self.b.vec(kind, 0, [rest, integer, NONE]);
            self.set_vector(insn.rd, value, singles.result);
        } else if let Some((order, predicate, singles)) = comparison(insn.code) {
            let [a, b] = self.operands(insn, rm, singles);
            self.b.vec(order, 0, [a, b, NONE]);
            let test = if singles.operands { VecKind::TestF32 } else { VecKind::TestF64 };
            let holds = self.b.vec(test, predicate, [a, b, NONE]);
            self.set_x(insn.rd, holds);
        } else {
            match insn.code {
                Code::FminD | Code::FmaxD => self.extreme(insn, DOUBLE),
                Code::FminS | Code::FmaxS => self.extreme(insn, SINGLE),
                _ => return false,
            }
        }
        true
    }

    /// Where a number is out of range, or a NaN, the operation has the least integer, and elsewhere only for that number.
    fn convert_to_integer(&mut self, insn: &Insn, rm: u8, kind: VecKind, singles: Singles) {
        let [a, _] = self.operands(insn, rm, singles);
        let value = self.b.vec(kind, 0, [a, NONE, NONE]);
        let ty = kind.row().ty;
        let least = self.b.binary_imm(Op::Eq, ty, value, 1 << (ty.bits() - 1));
        self.exactly_if(least, insn, rm);
        let value = self.sext(ty, value);
        self.set_x(insn.rd, value);
    }

    /// FMIN and FMAX of numbers that are not equal, or the same.
    fn extreme(&mut self, insn: &Insn, singles: Singles) {
        let [a, b] = self.operands(insn, 0, singles);
        let test = if singles.operands { VecKind::TestF32 } else { VecKind::TestF64 };
        let [x, y] = [a, b].map(|v| self.b.vec(VecKind::Extract64, 0, [v, NONE, NONE]));
        let special = self.b.vec(test, TEST_EQUAL_OR_UNORDERED, [a, b, NONE]);
        let differ = self.b.binary(Op::Ne, Type::I64, x, y);
        let nan = self.b.vec(test, UNORDERED, [a, b, NONE]);
        let either = self.b.binary(Op::Or, Type::I8, differ, nan);
        let rare = self.b.binary(Op::And, Type::I8, special, either);
        self.exactly_if(rare, insn, 0);
        let least = matches!(insn.code, Code::FminD | Code::FminS);
        let first = if least { [a, b, NONE] } else { [b, a, NONE] };
        let first = self.b.vec(test, LESS, first);
        let value = self.b.select(Type::I64, first, x, y);
        self.set_f(insn.rd, value, singles.result);
    }

    /// An operation by its helper.
    fn compute(&mut self, insn: &Insn, rm: u8) {
        let mut operands = [NONE; 3];
        let sources = insn.row().syntax.bytes().filter(|c| SOURCES.contains(c));
        for (operand, c) in operands.iter_mut().zip(sources) {
            *operand = match c {
                b'S' => self.f(insn.rs1),
                b'T' => self.f(insn.rs2),
                b'U' => self.f(insn.rs3),
                _ => self.x(insn.rs1),
            };
        }
        let value = self.call(Helper::Float, &operands, insn.code as u32 | u32::from(rm) << 8);
        let row = insn.row();
        if row.syntax.starts_with('D') {
            self.set_f(insn.rd, value, false);
        } else {
            self.set_x(insn.rd, value);
        }
    }
}

/// Whether an instruction has a floating-point register.
fn is_float(insn: &Insn) -> bool {
    insn.row().syntax.bytes().any(|c| c.is_ascii_uppercase())
}
