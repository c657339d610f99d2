//! Integer computing: RV64I, M, Zba, Zbb, Zbc, Zbkb, Zbkx, Zbs, Zicond.

use mimus_ir::block::Value;
use mimus_ir::op::{Op, Type};

use super::{Lift, Lifted};
use crate::riscv::helpers::Helper;
use crate::riscv::isa::{Code, Insn};

/// What an instruction takes as its second operand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Second {
    Register,
    Immediate,
}

/// An instruction that is one op on two operands of a type, its result sign-extended.
fn simple(code: Code) -> Option<(Op, Type, Second)> {
    use Code::*;
    use Second::{Immediate as I, Register as R};
    use Type::{I32, I64};
    Some(match code {
        Add => (Op::Add, I64, R),
        Addi => (Op::Add, I64, I),
        Addw => (Op::Add, I32, R),
        Addiw => (Op::Add, I32, I),
        Sub => (Op::Sub, I64, R),
        Subw => (Op::Sub, I32, R),
        And => (Op::And, I64, R),
        Andi => (Op::And, I64, I),
        Or => (Op::Or, I64, R),
        Ori => (Op::Or, I64, I),
        Xor => (Op::Xor, I64, R),
        Xori => (Op::Xor, I64, I),
        Sll => (Op::Shl, I64, R),
        Slli => (Op::Shl, I64, I),
        Sllw => (Op::Shl, I32, R),
        Slliw => (Op::Shl, I32, I),
        Srl => (Op::Shr, I64, R),
        Srli => (Op::Shr, I64, I),
        Srlw => (Op::Shr, I32, R),
        Srliw => (Op::Shr, I32, I),
        Sra => (Op::Sar, I64, R),
        Srai => (Op::Sar, I64, I),
        Sraw => (Op::Sar, I32, R),
        Sraiw => (Op::Sar, I32, I),
        Slt => (Op::Slt, I64, R),
        Slti => (Op::Slt, I64, I),
        Sltu => (Op::Ult, I64, R),
        Sltiu => (Op::Ult, I64, I),
        Mul => (Op::Mul, I64, R),
        Mulw => (Op::Mul, I32, R),
        Mulh => (Op::SMulHi, I64, R),
        Mulhu => (Op::UMulHi, I64, R),
        Div => (Op::SDiv, I64, R),
        Divu => (Op::UDiv, I64, R),
        Divw => (Op::SDiv, I32, R),
        Divuw => (Op::UDiv, I32, R),
        Rol => (Op::Rotl, I64, R),
        Rolw => (Op::Rotl, I32, R),
        Ror => (Op::Rotr, I64, R),
        Rori => (Op::Rotr, I64, I),
        Rorw => (Op::Rotr, I32, R),
        Roriw => (Op::Rotr, I32, I),
        _ => return None,
    })
}

/// An instruction that is one op on one operand of a type.
fn unary(code: Code) -> Option<(Op, Type)> {
    use Code::*;
    Some(match code {
        Clz => (Op::Clz, Type::I64),
        Clzw => (Op::Clz, Type::I32),
        Ctz => (Op::Ctz, Type::I64),
        Ctzw => (Op::Ctz, Type::I32),
        Cpop => (Op::Popcnt, Type::I64),
        Cpopw => (Op::Popcnt, Type::I32),
        Rev8 => (Op::Bswap, Type::I64),
        _ => return None,
    })
}

impl Lift {
    pub(super) fn int(&mut self, insn: &Insn) -> Lifted {
        if let Some((op, ty, second)) = simple(insn.code) {
            let value = self.simple(insn, op, ty, second);
            self.set_x(insn.rd, value);
            return true;
        }
        if let Some((op, ty)) = unary(insn.code) {
            let a = self.x(insn.rs1);
            // A count of bits is no negative number, so that extending it either way is the same.
            let value = self.b.unary(op, ty, a);
            self.set_x(insn.rd, value);
            return true;
        }
        let value = match insn.code {
            Code::Lui => self.iconst(insn.imm as u64),
            Code::Auipc => self.b.pc(self.pc.wrapping_add(insn.imm as u64)),
            code => match self.other(code, insn) {
                Some(value) => value,
                None => return false,
            },
        };
        self.set_x(insn.rd, value);
        true
    }

    fn simple(&mut self, insn: &Insn, op: Op, ty: Type, second: Second) -> Value {
        let a = self.x(insn.rs1);
        let value = match second {
            // The moves that assemblers make of ADDI and ADD.
            Second::Immediate if insn.imm == 0 && op == Op::Add && ty == Type::I64 => a,
            Second::Immediate => self.b.binary_imm(op, ty, a, insn.imm as u64),
            Second::Register if op == Op::Add && ty == Type::I64 && insn.rs1 == 0 => self.x(insn.rs2),
            Second::Register => {
                let b = self.x(insn.rs2);
                self.b.binary(op, ty, a, b)
            }
        };
        self.sext(ty, value)
    }

    /// The remainder of a division.
    fn remainder(&mut self, op: Op, ty: Type, a: Value, b: Value) -> Value {
        let quotient = self.b.binary(op, ty, a, b);
        let product = self.b.binary(Op::Mul, ty, quotient, b);
        let remainder = self.b.binary(Op::Sub, ty, a, product);
        self.sext(ty, remainder)
    }

    /// Instructions of more than one op.
    fn other(&mut self, code: Code, insn: &Insn) -> Option<Value> {
        use Code::*;
        const W: Type = Type::I64;
        let (a, b) = (self.x(insn.rs1), self.x(insn.rs2));
        Some(match code {
            Rem => self.remainder(Op::SDiv, W, a, b),
            Remu => self.remainder(Op::UDiv, W, a, b),
            Remw => self.remainder(Op::SDiv, Type::I32, a, b),
            Remuw => self.remainder(Op::UDiv, Type::I32, a, b),
            Mulhsu => {
                // The unsigned product, less what a negative first operand is too large by.
                let high = self.b.binary(Op::UMulHi, W, a, b);
                let sign = self.b.binary_imm(Op::Sar, W, a, 63);
                let excess = self.b.binary(Op::And, W, sign, b);
                self.b.binary(Op::Sub, W, high, excess)
            }
            Sh1add | Sh2add | Sh3add | AddUw | Sh1addUw | Sh2addUw | Sh3addUw => {
                let shift = match code {
                    Sh1add | Sh1addUw => 1,
                    Sh2add | Sh2addUw => 2,
                    Sh3add | Sh3addUw => 3,
                    _ => 0,
                };
                let word = matches!(code, AddUw | Sh1addUw | Sh2addUw | Sh3addUw);
                let index = if word { self.b.extend(Op::Zext, W, Type::I32, a) } else { a };
                self.b.lea(W, b, index, shift, 0)
            }
            SlliUw => {
                let index = self.b.extend(Op::Zext, W, Type::I32, a);
                self.b.binary_imm(Op::Shl, W, index, insn.imm as u64)
            }
            Andn | Orn => {
                let inverse = self.b.unary(Op::Not, W, b);
                self.b.binary(if code == Andn { Op::And } else { Op::Or }, W, a, inverse)
            }
            Xnor => {
                let value = self.b.binary(Op::Xor, W, a, b);
                self.b.unary(Op::Not, W, value)
            }
            Max | Maxu | Min | Minu => {
                let op = if matches!(code, Max | Min) { Op::Slt } else { Op::Ult };
                let less = self.b.binary(op, W, a, b);
                let (first, second) = if matches!(code, Min | Minu) { (a, b) } else { (b, a) };
                self.b.select(W, less, first, second)
            }
            SextB => self.sext(Type::I8, a),
            SextH => self.sext(Type::I16, a),
            Packw if insn.rs2 == 0 => self.b.extend(Op::Zext, W, Type::I16, a),
            Packw => {
                let (low, high) = (self.b.extend(Op::Zext, W, Type::I16, a), self.b.binary_imm(Op::Shl, W, b, 16));
                let word = self.b.binary(Op::Or, W, low, high);
                self.sext(Type::I32, word)
            }
            Pack => {
                let (low, high) = (self.b.extend(Op::Zext, W, Type::I32, a), self.b.binary_imm(Op::Shl, W, b, 32));
                self.b.binary(Op::Or, W, low, high)
            }
            Packh => {
                let (low, high) = (self.b.binary_imm(Op::And, W, a, 0xff), self.b.binary_imm(Op::And, W, b, 0xff));
                let high = self.b.binary_imm(Op::Shl, W, high, 8);
                self.b.binary(Op::Or, W, low, high)
            }
            Brev8 => self.brev8(a),
            Clmul | Clmulr | Clmulh | Xperm4 | Xperm8 => self.call(Helper::Bits, &[a, b], code as u32),
            OrcB => self.orc_b(a),
            Bclr | Bset | Binv | Bclri | Bseti | Binvi => {
                let bit = self.bit(insn, b);
                match code {
                    Bclr | Bclri => {
                        let others = self.b.unary(Op::Not, W, bit);
                        self.b.binary(Op::And, W, a, others)
                    }
                    Bset | Bseti => self.b.binary(Op::Or, W, a, bit),
                    _ => self.b.binary(Op::Xor, W, a, bit),
                }
            }
            Bext | Bexti => {
                let moved = if code == Bext {
                    self.b.binary(Op::Shr, W, a, b)
                } else {
                    self.b.binary_imm(Op::Shr, W, a, insn.imm as u64)
                };
                self.b.binary_imm(Op::And, W, moved, 1)
            }
            CzeroEqz | CzeroNez => {
                let op = if code == CzeroEqz { Op::Eq } else { Op::Ne };
                let condition = self.b.binary_imm(op, W, b, 0);
                let zero = self.iconst(0);
                self.b.select(W, condition, zero, a)
            }
            _ => return None,
        })
    }

    /// One bit, by the immediate or by `count`.
    fn bit(&mut self, insn: &Insn, count: Value) -> Value {
        if insn.row().imm.is_some() {
            return self.iconst(1 << (insn.imm & 63));
        }
        let one = self.iconst(1);
        self.b.binary(Op::Shl, Type::I64, one, count)
    }

    /// The bits of each byte in the opposite order: halves, quarters and single bits change places.
    fn brev8(&mut self, a: Value) -> Value {
        let mut value = a;
        for (shift, mask) in [(4, 0x0f0f_0f0f_0f0f_0f0f), (2, 0x3333_3333_3333_3333), (1, 0x5555_5555_5555_5555)] {
            let down = self.b.binary_imm(Op::Shr, Type::I64, value, shift);
            let down = self.b.binary_imm(Op::And, Type::I64, down, mask);
            let up = self.b.binary_imm(Op::And, Type::I64, value, mask);
            let up = self.b.binary_imm(Op::Shl, Type::I64, up, shift);
            value = self.b.binary(Op::Or, Type::I64, down, up);
        }
        value
    }

    /// Each byte all ones unless it is 0: its bits are gathered in its lowest, and spread from there.
    fn orc_b(&mut self, a: Value) -> Value {
        let mut value = a;
        for shift in [4, 2, 1] {
            let moved = self.b.binary_imm(Op::Shr, Type::I64, value, shift);
            // Bits that come from the byte above stay out of what becomes the lowest bit.
            let own = self.b.binary_imm(Op::And, Type::I64, moved, 0x0101_0101_0101_0101 * (0xff >> shift));
            value = self.b.binary(Op::Or, Type::I64, value, own);
        }
        let low = self.b.binary_imm(Op::And, Type::I64, value, 0x0101_0101_0101_0101);
        self.b.binary_imm(Op::Mul, Type::I64, low, 0xff)
    }
}
