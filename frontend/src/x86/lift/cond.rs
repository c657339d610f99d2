//! What is known of the arithmetic flags while a block is lifted, and conditions on them.

use mimus_ir::block::{NONE, Value};
use mimus_ir::op::{Op, Type};
use mimus_ir::vec::{TEST_EQUAL_OR_UNORDERED, TEST_ORDERED_AND_UNEQUAL};
use mimus_ir::{EnvSlot, VecKind};

use super::Lift;
use crate::x86::flags::{CARRY_APART, CcKind, CcOp, OVERFLOW_APART};
use crate::x86::helpers::Helper;
use crate::x86::state::{Rflags, slot};

/// The flags, as far as they are known in this block.
#[derive(Clone, Copy)]
pub(super) struct Flags {
    /// The record that a later instruction of this block has set.
    record: Option<Record>,
    carry: Carry,
    /// OF, in bit 0, where it is not the record's.
    overflow: Option<Value>,
}

/// Where CF is.
#[derive(Clone, Copy)]
enum Carry {
    /// In the record.
    Own,
    /// Bit 0 of a value.
    Apart(Value),
    /// As before the block, or as a helper has left it, though the record is known.
    Kept,
}

impl Flags {
    /// Set before the block, or by a helper.
    pub const DYNAMIC: Flags = Flags { record: None, carry: Carry::Own, overflow: None };

    /// All of a record.
    const fn known(record: Record) -> Flags {
        Flags { record: Some(record), carry: Carry::Own, overflow: None }
    }

    /// The record, if all flags are of it.
    fn whole(&self) -> Option<Record> {
        self.record.filter(|_| matches!(self.carry, Carry::Own) && self.overflow.is_none())
    }
}

/// A flags record with its values at hand.
#[derive(Clone, Copy)]
pub(super) struct Record {
    pub kind: CcKind,
    pub ty: Type,
    /// First operand, for additions and subtractions; for floating point the vector that holds it.
    pub a: Value,
    pub dst: Value,
    pub src: Value,
    /// Carry in; for floating point the vector that holds the second operand.
    pub aux: Value,
}

/// Condition codes by their low 4 opcode bits.
pub(super) mod cc {
    pub const B: u8 = 2;
    pub const E: u8 = 4;
    pub const S: u8 = 8;
}

// Predicates of the IR's float tests, which are those of CMPPS.
const LESS: u8 = 1;
const LESS_OR_EQUAL: u8 = 2;
const UNORDERED: u8 = 3;
const NOT_LESS: u8 = 5;
const NOT_LESS_OR_EQUAL: u8 = 6;
const ORDERED: u8 = 7;

/// By `cc_op`: what [`CcOp::all`] says where all flags are of a record.
static OPS: [u64; 64] = {
    let (mut ops, mut op) = ([0; 64], 0u8);
    while op < 64 {
        ops[op as usize] = CcOp::all(op, op);
        op += 1;
    }
    ops
};

impl Record {
    const fn op(&self) -> u8 {
        let kind = if matches!(self.kind, CcKind::Logic) { CcKind::Sub } else { self.kind };
        CcOp { kind, log2: self.ty as u8 }.encode()
    }

    const fn is_order(&self) -> bool {
        matches!(self.kind, CcKind::Float | CcKind::FloatDaz)
    }
}

impl Lift {
    /// Records that an instruction set the flags.
    pub(super) fn set_flags(&mut self, record: Record) {
        self.b.store_env_imm(slot::CC_OPS, OPS[usize::from(record.op() & 63)]);
        self.b.store_env(slot::CC_DST, record.dst);
        match record.kind {
            CcKind::Logic => self.b.store_env_imm(slot::CC_SRC, 0),
            _ => self.b.store_env(slot::CC_SRC, record.src),
        }
        if matches!(record.kind, CcKind::Adc | CcKind::Sbb) {
            self.b.store_env(slot::CC_AUX, record.aux);
        }
        self.flags = Flags::known(record);
    }

    /// [`Lift::set_flags`] for the kinds that need only a result and one operand.
    pub(super) fn set_flags_simple(&mut self, kind: CcKind, ty: Type, dst: Value, src: Value) {
        self.set_flags(Record { kind, ty, a: src, dst, src, aux: src });
    }

    /// Sets all six flags from a value that has them where RFLAGS has.
    pub(super) fn set_flag_bits(&mut self, bits: Value) {
        let op = CcOp::FLAGS.encode();
        self.b.store_env_imm(slot::CC_OPS, CcOp::all(op, op));
        self.b.store_env(slot::CC_SRC, bits);
        let (kind, ty) = (CcKind::Flags, Type::I64);
        self.flags = Flags::known(Record { kind, ty, a: bits, dst: bits, src: bits, aux: bits });
    }

    /// Sets all flags but CF, from the result of INC or DEC. A CF that an earlier block has set stays where it is.
    pub(super) fn set_step_flags(&mut self, decrements: bool, ty: Type, dst: Value) {
        if let Some(carry) = self.known_carry() {
            let kind = if decrements { CcKind::Dec } else { CcKind::Inc };
            self.set_flags_simple(kind, ty, dst, carry);
            return;
        }
        let kind = if decrements { CcKind::DecKept } else { CcKind::IncKept };
        self.b.store_env(slot::CC_STEP, dst);
        let record = Record { kind, ty, a: dst, dst, src: dst, aux: dst };
        self.flags = Flags { record: Some(record), carry: Carry::Kept, overflow: None };
        self.store_ops();
    }

    /// Sets CF or OF, or both, from bit 0 of values, and leaves the other flags as they are.
    pub(super) fn set_apart(&mut self, carry: Option<Value>, overflow: Option<Value>) {
        for (slot, value) in [(slot::CC_CARRY, carry), (slot::CC_OVERFLOW, overflow)] {
            if let Some(value) = value {
                self.b.store_env(slot, value);
            }
        }
        self.flags.carry = carry.map_or(self.flags.carry, Carry::Apart);
        self.flags.overflow = overflow.or(self.flags.overflow);
        self.store_ops();
    }

    /// Writes what the flags are of.
    fn store_ops(&mut self) {
        let Flags { record, carry, overflow } = self.flags;
        let apart = overflow.map_or(0, |_| OVERFLOW_APART);
        let op = record.map(|record| record.op() | apart);
        match (op, carry) {
            (Some(op), Carry::Own) => self.b.store_env_imm(slot::CC_OPS, CcOp::all(op, op & !OVERFLOW_APART)),
            (Some(op), Carry::Apart(_)) => self.b.store_env_imm(slot::CC_OPS, CcOp::all(op, CARRY_APART)),
            (Some(op), Carry::Kept) => self.b.store_env_imm(slot::CC_OP, op.into()),
            (None, _) => {
                if matches!(carry, Carry::Apart(_)) {
                    self.b.store_env_imm(slot::CC_CARRY_OP, CARRY_APART.into());
                }
                if apart != 0 {
                    let op = self.b.load_env(slot::CC_OP);
                    let op = self.b.binary_imm(Op::OrI, Type::I8, op, apart.into());
                    self.b.store_env(slot::CC_OP, op);
                }
            }
        }
    }

    /// The six flags where RFLAGS has them.
    pub(super) fn flag_bits(&mut self) -> Value {
        if let Some(Record { kind: CcKind::Flags, src, .. }) = self.flags.whole() {
            return src;
        }
        self.call(Helper::CcFlags, Type::I64, &[], 0)
    }

    /// The carry flag as 0 or 1.
    pub(super) fn carry(&mut self) -> Value {
        self.condition(cc::B)
    }

    /// The carry flag as 0 or 1, if this block has set it.
    fn known_carry(&mut self) -> Option<Value> {
        match (self.flags.carry, self.flags.record) {
            (Carry::Apart(bit), _) => Some(self.b.extract(Type::I8, bit, 0, 1)),
            (Carry::Own, Some(record)) if record.is_order() => Some(self.order_condition(&record, cc::B)),
            (Carry::Own, Some(record)) => self.known_condition(&record, cc::B),
            _ => None,
        }
    }

    fn negative(&mut self, ty: Type, value: Value) -> Value {
        self.b.binary_imm(Op::SltI, ty, value, 0)
    }

    fn carry_of(&mut self, r: &Record) -> Option<Value> {
        Some(match r.kind {
            CcKind::Logic => self.b.iconst(Type::I8, 0),
            CcKind::Add => self.b.binary(Op::Ult, r.ty, r.dst, r.src),
            CcKind::Sub => self.b.binary(Op::Ult, r.ty, r.a, r.src),
            CcKind::Adc | CcKind::Sbb => {
                let left = if r.kind == CcKind::Adc { r.dst } else { r.a };
                let with = self.b.binary(Op::Ule, r.ty, left, r.src);
                let without = self.b.binary(Op::Ult, r.ty, left, r.src);
                self.b.select(Type::I8, r.aux, with, without)
            }
            CcKind::Inc | CcKind::Dec => r.src,
            CcKind::Shl => self.negative(r.ty, r.src),
            CcKind::Shr => self.b.binary_imm(Op::AndI, Type::I8, r.src, 1),
            CcKind::Mul => self.b.binary_imm(Op::NeI, r.ty, r.src, 0),
            CcKind::IncKept | CcKind::DecKept | CcKind::Flags | CcKind::Float | CcKind::FloatDaz => return None,
        })
    }

    fn overflow_of(&mut self, r: &Record) -> Option<Value> {
        let sign = 1u64 << (r.ty.bits() - 1);
        Some(match r.kind {
            CcKind::Logic => self.b.iconst(Type::I8, 0),
            CcKind::Add | CcKind::Adc | CcKind::Sub | CcKind::Sbb => {
                let other = if matches!(r.kind, CcKind::Add | CcKind::Adc) { r.dst } else { r.a };
                let x = self.b.binary(Op::Xor, r.ty, r.a, r.dst);
                let y = self.b.binary(Op::Xor, r.ty, r.src, other);
                let both = self.b.binary(Op::And, r.ty, x, y);
                self.negative(r.ty, both)
            }
            CcKind::Inc | CcKind::IncKept => self.b.binary_imm(Op::EqI, r.ty, r.dst, sign),
            CcKind::Dec | CcKind::DecKept => self.b.binary_imm(Op::EqI, r.ty, r.dst, sign - 1),
            CcKind::Shl | CcKind::Shr => {
                let both = self.b.binary(Op::Xor, r.ty, r.src, r.dst);
                self.negative(r.ty, both)
            }
            CcKind::Mul => return self.carry_of(r),
            CcKind::Flags | CcKind::Float | CcKind::FloatDaz => return None,
        })
    }

    fn not(&mut self, condition: Value) -> Value {
        self.b.binary_imm(Op::XorI, Type::I8, condition, 1)
    }

    /// Condition `code` (the low 4 opcode bits of Jcc) as 0 or 1.
    pub(super) fn condition(&mut self, code: u8) -> Value {
        let known = match self.flags.whole() {
            Some(record) if record.is_order() => return self.order_condition(&record, code),
            Some(record) => self.known_condition(&record, code & !1),
            None => self.apart_condition(code & !1),
        };
        match known {
            Some(value) if code & 1 == 0 => value,
            Some(value) => self.not(value),
            None => self.env_condition(code),
        }
    }

    /// Condition `code` by the record in env. What subtractions, comparisons and logic leave is compared here, for the rest there is
    /// a helper.
    #[cold]
    fn env_condition(&mut self, code: u8) -> Value {
        let [known, unknown] = match code & !1 {
            0 | 10 => [self.b.iconst(Type::I8, 0), self.b.iconst(Type::I8, 1)],
            even => {
                let unknown = match even {
                    2 => self.other_op(slot::CC_CARRY_OP),
                    6 => self.other_op(slot::CC_OP_PAIR),
                    _ => self.other_op(slot::CC_OP),
                };
                [self.sub_condition(code), unknown]
            }
        };
        self.call(Helper::CcCond, Type::I8, &[unknown, known], u32::from(code))
    }

    /// Not 0 if an op in env, or one of two, is of another kind than a subtraction.
    fn other_op(&mut self, slot: EnvSlot) -> Value {
        let op = self.b.load_env(slot);
        self.b.binary_imm(Op::AndI, slot.ty, op, 0xfcfc)
    }

    /// Condition `code`, but O and P, if the record in env is a subtraction's.
    fn sub_condition(&mut self, code: u8) -> Value {
        let dst = self.b.load_env(slot::CC_DST);
        let inverse = code & 1 != 0;
        if code & !1 == cc::E {
            return self.b.binary_imm(if inverse { Op::NeI } else { Op::EqI }, Type::I64, dst, 0);
        }
        let shift = self.b.load_env(slot::CC_SHIFT);
        if code & !1 == cc::S {
            let dst = self.b.binary(Op::Shl, Type::I64, dst, shift);
            let negative = self.negative(Type::I64, dst);
            return if inverse { self.not(negative) } else { negative };
        }
        let src = self.b.load_env(slot::CC_SRC);
        let a = self.b.binary(Op::Add, Type::I64, dst, src);
        let [a, src] = [a, src].map(|value| self.b.binary(Op::Shl, Type::I64, value, shift));
        let (op, inverse_op) = match code & !1 {
            cc::B => (Op::Ult, Op::Ule),
            6 => (Op::Ule, Op::Ult),
            12 => (Op::Slt, Op::Sle),
            _ => (Op::Sle, Op::Slt),
        };
        if inverse { self.b.binary(inverse_op, Type::I64, src, a) } else { self.b.binary(op, Type::I64, a, src) }
    }

    /// Condition `code`, which is even, where not all flags are of one record.
    fn apart_condition(&mut self, code: u8) -> Option<Value> {
        if code == cc::B {
            return self.known_carry();
        }
        let record = self.flags.record.filter(|r| !r.is_order());
        let carry_is_own = matches!(self.flags.carry, Carry::Own);
        match (code, self.flags.overflow) {
            (0, Some(bit)) => Some(self.b.extract(Type::I8, bit, 0, 1)),
            (6, _) if !carry_is_own => {
                let carry = self.known_carry()?;
                let zero = self.known_condition(&record?, cc::E)?;
                Some(self.b.binary(Op::Or, Type::I8, carry, zero))
            }
            // What needs OF with other flags.
            (12 | 14, Some(_)) => None,
            _ => self.known_condition(&record?, code),
        }
    }

    /// Condition `code` after COMISS or COMISD: OF and SF are 0; ZF, PF and CF tell the order.
    fn order_condition(&mut self, r: &Record, code: u8) -> Value {
        // Predicate, and whether it is of the second operand and the first.
        let (predicate, swap) = match code {
            // CF: less or unordered, that is not (b <= a).
            2 => (NOT_LESS_OR_EQUAL, true),
            3 => (LESS_OR_EQUAL, true),
            // CF or ZF: not (b < a).
            6 => (NOT_LESS, true),
            7 => (LESS, true),
            10 => (UNORDERED, false),
            11 => (ORDERED, false),
            4 | 14 => (TEST_EQUAL_OR_UNORDERED, false),
            5 | 15 => (TEST_ORDERED_AND_UNEQUAL, false),
            _ => return self.b.iconst(Type::I8, u64::from(code & 1)),
        };
        let kind = if r.ty == Type::I64 { VecKind::TestF64 } else { VecKind::TestF32 };
        let (a, b) = if swap { (r.aux, r.a) } else { (r.a, r.aux) };
        self.b.vec(kind, predicate, [a, b, NONE])
    }

    fn known_condition(&mut self, r: &Record, code: u8) -> Option<Value> {
        let zero = |l: &mut Lift| l.b.binary_imm(Op::EqI, r.ty, r.dst, 0);
        if r.kind == CcKind::Flags && code == 6 {
            // CF or ZF.
            let either = self.b.binary_imm(Op::AndI, Type::I64, r.src, (Rflags::CF | Rflags::ZF).bits());
            return Some(self.b.binary_imm(Op::NeI, Type::I64, either, 0));
        }
        if r.kind == CcKind::Flags {
            let flag = match code {
                0 => Rflags::OF,
                2 => Rflags::CF,
                4 => Rflags::ZF,
                8 => Rflags::SF,
                10 => Rflags::PF,
                _ => return None,
            };
            return Some(self.b.extract(Type::I64, r.src, flag.position(), 1));
        }
        let sub = r.kind == CcKind::Sub;
        Some(match code {
            0 => self.overflow_of(r)?,
            2 => self.carry_of(r)?,
            4 if sub => self.b.binary(Op::Eq, r.ty, r.a, r.src),
            4 => zero(self),
            6 if sub => self.b.binary(Op::Ule, r.ty, r.a, r.src),
            6 => {
                let (carry, zero) = (self.carry_of(r)?, zero(self));
                self.b.binary(Op::Or, Type::I8, carry, zero)
            }
            8 => self.negative(r.ty, r.dst),
            10 => {
                let ones = self.b.unary(Op::Popcnt, Type::I8, r.dst);
                let odd = self.b.binary_imm(Op::AndI, Type::I8, ones, 1);
                self.not(odd)
            }
            12 if sub => self.b.binary(Op::Slt, r.ty, r.a, r.src),
            14 if sub => self.b.binary(Op::Sle, r.ty, r.a, r.src),
            12 if r.kind == CcKind::Logic => self.negative(r.ty, r.dst),
            14 if r.kind == CcKind::Logic => self.b.binary_imm(Op::SleI, r.ty, r.dst, 0),
            _ => {
                let overflow = self.overflow_of(r)?;
                let sign = self.negative(r.ty, r.dst);
                let less = self.b.binary(Op::Xor, Type::I8, sign, overflow);
                if code == 12 {
                    less
                } else {
                    let zero = zero(self);
                    self.b.binary(Op::Or, Type::I8, less, zero)
                }
            }
        })
    }
}
