//! Folding, specialization, identities and env forwarding, in one walk.
//!
//! Values are held zero-extended and operands are truncated or zero-extended to the op's type, so a value may
//! stand for another of a different type exactly when the held bits are equal. `bound` says of each value how
//! many low bits can be set; a value that is truncated to a type at least that wide is unchanged.

use super::{Scratch, at};
use crate::block::{Block, Inst, MAX_INSTS, NONE, Value};
use crate::interp::{eval, eval_deposit, eval_extend, eval_extract};
use crate::op::{Effects, Op, Shape, Type};
use crate::vec::{VecInfo, VecKind};

/// What became of an instruction.
enum Action {
    /// It stays, perhaps rewritten.
    Keep,
    /// Its result is this earlier value.
    Copy(Value),
    /// It does nothing.
    Drop,
}

use Action::{Copy, Drop, Keep};

pub(super) fn run(block: &mut Block, scratch: &mut Scratch) {
    let Scratch { env, replace, bound, flag } = scratch;
    env.clear();
    let mut code_may_have_changed = false;
    let mut aligned = Alignments::default();
    for index in 0..block.insts.len() {
        let (done, rest) = block.insts.split_at_mut(index);
        let Some(inst) = rest.first_mut() else { return };
        inst.for_each_operand(|v| *v = replace[at(usize::from(*v))]);
        let value = index as Value;
        flag[at(index)] = false;
        let forward = Forward { done, bound };
        let action = match inst.op {
            Op::Insn => {
                flag[at(index)] = code_may_have_changed;
                code_may_have_changed = false;
                Keep
            }
            Op::LoadEnv => match env.known(inst.c, inst.ty) {
                Some(known) => {
                    let slot = inst.c;
                    let action = forward.forward_load(inst, known);
                    if matches!(action, Keep) && inst.op != Op::Const {
                        env.learn(slot, inst.ty, value);
                    }
                    action
                }
                None => {
                    env.learn(inst.c, inst.ty, value);
                    Keep
                }
            },
            Op::StoreEnv | Op::StoreEnvI => {
                forward.store_env(inst);
                let known = env.known(inst.c, inst.ty);
                if known.is_some_and(|known| forward.holds_already(inst, known)) {
                    Drop
                } else {
                    env.write(inst.c, inst.ty, if inst.op == Op::StoreEnv { inst.a } else { value });
                    Keep
                }
            }
            Op::Call => {
                if inst.effects().contains(Effects::WRITE_ENV) {
                    env.clear();
                }
                Keep
            }
            Op::Load | Op::Store => {
                forward.fold_address(inst);
                Keep
            }
            Op::TrapIf => forward.trap_if(inst, &mut aligned),
            Op::Branch => {
                forward.branch(inst, block.fallthrough);
                Keep
            }
            _ => forward.pure(inst),
        };
        code_may_have_changed |= inst.may_change_code();
        let (same, bits) = match action {
            Keep => (value, forward.result_bound(inst)),
            Copy(other) => (other, 0),
            Drop => {
                // A constant that nobody uses: dead code.
                constant(inst, Type::I8, 0);
                (value, 0)
            }
        };
        replace[at(index)] = same;
        bound[at(index)] = bits as u8;
    }
}

/// Number of low bits needed for `value`.
fn width(value: u64) -> u32 {
    64 - value.leading_zeros()
}

/// Makes `inst` the constant `value`.
fn constant(inst: &mut Inst, ty: Type, value: u64) -> Action {
    *inst = Inst { op: Op::Const, ty, a: NONE, b: NONE, c: NONE, imm: value };
    Keep
}

/// Makes `inst` the vector that `kind`, which has no operands, names.
fn vec_constant(inst: &mut Inst, kind: VecKind) -> Action {
    *inst = Inst { a: NONE, b: NONE, c: NONE, imm: VecInfo { kind, imm: 0 }.encode(), ..*inst };
    Keep
}

/// The comparison that holds when `op` does not, and whether its operands change places.
fn inverse(op: Op) -> Option<(Op, bool)> {
    Some(match op {
        Op::Eq => (Op::Ne, false),
        Op::Ne => (Op::Eq, false),
        Op::EqI => (Op::NeI, false),
        Op::NeI => (Op::EqI, false),
        Op::Ult => (Op::Ule, true),
        Op::Ule => (Op::Ult, true),
        Op::Slt => (Op::Sle, true),
        Op::Sle => (Op::Slt, true),
        _ => return None,
    })
}

fn commutes(op: Op) -> bool {
    matches!(op, Op::Add | Op::Mul | Op::And | Op::Or | Op::Xor | Op::Eq | Op::Ne)
}

/// That the bits of `of + offset` which are in `mask` are 0.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Alignment {
    of: Value,
    offset: u64,
    mask: u64,
}

/// The last few alignments that traps have made sure of.
#[derive(Default)]
struct Alignments {
    known: [Option<Alignment>; 4],
    next: usize,
}

impl Alignments {
    /// Adds one; false if it is known already.
    fn insert(&mut self, alignment: Alignment) -> bool {
        if self.known.contains(&Some(alignment)) {
            return false;
        }
        self.known[self.next % self.known.len()] = Some(alignment);
        self.next += 1;
        true
    }
}

struct Forward<'a> {
    /// The instructions before the current one, as rewritten.
    done: &'a [Inst],
    bound: &'a [u8; MAX_INSTS],
}

impl Forward<'_> {
    fn def(&self, v: Value) -> Option<&Inst> {
        self.done.get(usize::from(v))
    }

    /// The instruction that defines `v`, if it is an `op` computed in a type of at least `ty`'s width.
    fn def_as(&self, v: Value, op: Op, ty: Type) -> Option<&Inst> {
        self.def(v).filter(|d| d.op == op && d.ty as u8 >= ty as u8)
    }

    fn constant(&self, v: Value) -> Option<u64> {
        self.def(v).filter(|d| d.op == Op::Const).map(|d| d.imm)
    }

    fn bound(&self, v: Value) -> u32 {
        u32::from(self.bound[at(usize::from(v))])
    }

    /// Makes `inst` the value `v` truncated to `inst.ty`.
    fn truncated(&self, inst: &mut Inst, v: Value) -> Action {
        if self.bound(v) <= inst.ty.bits() {
            return Copy(v);
        }
        *inst = Inst { op: Op::Zext, ty: inst.ty, a: v, b: NONE, c: inst.ty as u16, imm: 0 };
        Keep
    }

    fn pure(&self, inst: &mut Inst) -> Action {
        match inst.op.info().shape {
            Shape::Unary => match self.constant(inst.a).and_then(|a| eval(inst.op, inst.ty, a, 0)) {
                Some(value) => constant(inst, inst.ty, value),
                None => Keep,
            },
            Shape::Extend => self.extend(inst),
            Shape::Binary | Shape::Compare => self.binary(inst),
            Shape::BinaryImm => self.binary_imm(inst),
            Shape::CompareImm => self.compare_imm(inst),
            Shape::Select => self.select(inst),
            Shape::Deposit => self.deposit(inst),
            Shape::Extract => self.extract(inst),
            Shape::Lea => self.lea(inst),
            Shape::Vec => self.vec(inst),
            _ => Keep,
        }
    }

    fn extend(&self, inst: &mut Inst) -> Action {
        if let Some(a) = self.constant(inst.a) {
            return constant(inst, inst.ty, eval_extend(inst.op, inst.ty, inst.c, a));
        }
        let from = Type::ALL[usize::from(inst.c).min(3)].bits();
        let bits = inst.ty.bits();
        if inst.op == Op::Sext && (from >= bits || self.bound(inst.a) < from) {
            // No sign to extend, or none that fits: only the truncation to the op's type is left.
            return self.truncated(inst, inst.a);
        }
        inst.a = self.deposited(inst.a, from.min(bits));
        // A narrower zero-extension below leaves the bits taken here as they are.
        if let Some(inner) = self.def(inst.a).filter(|d| d.op == Op::Zext)
            && from.min(bits) <= Type::ALL[usize::from(inner.c).min(3)].bits().min(inner.ty.bits())
        {
            inst.a = inner.a;
        }
        if inst.op == Op::Zext && self.bound(inst.a) <= from.min(bits) { Copy(inst.a) } else { Keep }
    }

    /// What the low `bits` bits of `v` were deposited from, if they all were.
    fn deposited(&self, v: Value, bits: u32) -> Value {
        match self.def(v) {
            Some(d) if d.op == Op::Deposit && d.bit_field().0 == 0 && bits <= d.bit_field().1.min(d.ty.bits()) => d.b,
            _ => v,
        }
    }

    fn binary(&self, inst: &mut Inst) -> Action {
        let info = inst.op.info();
        inst.a = self.deposited(inst.a, inst.ty.bits());
        if !matches!(inst.op, Op::Shl | Op::Shr | Op::Sar | Op::Rotl | Op::Rotr) {
            inst.b = self.deposited(inst.b, inst.ty.bits());
        }
        let (mut left, mut right) = (self.constant(inst.a), self.constant(inst.b));
        let result = inst.result_type().unwrap_or(inst.ty);
        if let (Some(a), Some(b)) = (left, right)
            && let Some(value) = eval(inst.op, inst.ty, a, b)
        {
            return constant(inst, result, value);
        }
        if left.is_some() && commutes(inst.op) {
            (inst.a, inst.b) = (inst.b, inst.a);
            (left, right) = (right, left);
        }
        if let (Some(b), Some(form)) = (right, info.imm_form) {
            inst.op = form;
            inst.b = NONE;
            inst.imm = b & inst.ty.mask();
            return if info.shape == Shape::Compare { self.compare_imm(inst) } else { self.binary_imm(inst) };
        }
        if inst.a == inst.b {
            match inst.op {
                Op::Sub | Op::Xor | Op::Ne | Op::Ult | Op::Slt => return constant(inst, result, 0),
                Op::Eq | Op::Ule | Op::Sle => return constant(inst, result, 1),
                Op::And | Op::Or => return self.truncated(inst, inst.a),
                _ => {}
            }
        }
        if inst.op == Op::Sub && left.is_some_and(|a| a & inst.ty.mask() == 0) {
            *inst = Inst { op: Op::Neg, a: inst.b, b: NONE, ..*inst };
        }
        Keep
    }

    fn binary_imm(&self, inst: &mut Inst) -> Action {
        let (ty, bits, mask) = (inst.ty, inst.ty.bits(), inst.ty.mask());
        inst.a = self.deposited(inst.a, bits);
        if let Some(a) = self.constant(inst.a)
            && let Some(value) = eval(inst.op, ty, a, inst.imm)
        {
            return constant(inst, ty, value);
        }
        inst.imm &= mask;
        match inst.op {
            Op::SubI => (inst.op, inst.imm) = (Op::AddI, inst.imm.wrapping_neg() & mask),
            Op::MulI if inst.imm.is_power_of_two() => {
                (inst.op, inst.imm) = (Op::ShlI, u64::from(inst.imm.trailing_zeros()));
            }
            Op::ShlI | Op::ShrI | Op::SarI | Op::RotlI | Op::RotrI => inst.imm &= u64::from(bits - 1),
            _ => {}
        }
        if inst.op == Op::XorI && inst.imm == 1 && self.bound(inst.a) == 1 && self.invert(inst) {
            return Keep;
        }
        match inst.op {
            Op::AddI => {
                if let Some(inner) = self.def_as(inst.a, Op::AddI, ty) {
                    inst.a = inner.a;
                    inst.imm = inst.imm.wrapping_add(inner.imm) & mask;
                }
                if let Some(pc) = self.def_as(inst.a, Op::Pc, Type::I64).filter(|_| ty == Type::I64) {
                    *inst = Inst { imm: pc.imm.wrapping_add(inst.imm), ..*pc };
                    return Keep;
                }
            }
            Op::AndI => {
                if let Some(inner) = self.def(inst.a).filter(|d| d.op == Op::AndI) {
                    inst.a = inner.a;
                    inst.imm &= inner.imm;
                }
                return if inst.imm == 0 {
                    constant(inst, ty, 0)
                } else if inst.imm == mask {
                    self.truncated(inst, inst.a)
                } else if low_bits(self.bound(inst.a)) & !inst.imm == 0 {
                    Copy(inst.a)
                } else {
                    Keep
                };
            }
            Op::OrI if inst.imm == mask => return constant(inst, ty, mask),
            Op::MulI if inst.imm == 0 => return constant(inst, ty, 0),
            Op::MulI => return Keep,
            Op::ShrI if u64::from(self.bound(inst.a).min(bits)) <= inst.imm => return constant(inst, ty, 0),
            _ => {}
        }
        if inst.imm == 0 { self.truncated(inst, inst.a) } else { Keep }
    }

    fn compare_imm(&self, inst: &mut Inst) -> Action {
        let (ty, mask) = (inst.ty, inst.ty.mask());
        inst.a = self.deposited(inst.a, ty.bits());
        if let Some(a) = self.constant(inst.a)
            && let Some(value) = eval(inst.op, ty, a, inst.imm)
        {
            return constant(inst, Type::I8, value);
        }
        inst.imm &= mask;
        // Largest value the left operand can have.
        let max = low_bits(self.bound(inst.a)) & mask;
        let known = match inst.op {
            Op::EqI if inst.imm > max => Some(0),
            Op::NeI if inst.imm > max => Some(1),
            Op::UltI if inst.imm > max => Some(1),
            Op::UltI if inst.imm == 0 => Some(0),
            Op::UleI if inst.imm >= max => Some(1),
            _ => None,
        };
        if let Some(value) = known {
            return constant(inst, Type::I8, value);
        }
        if self.bound(inst.a) > 1 {
            return Keep;
        }
        // The left operand is a condition.
        match (inst.op, inst.imm) {
            (Op::NeI, 0) | (Op::EqI, 1) => return Copy(inst.a),
            (Op::EqI, 0) | (Op::NeI, 1) => {
                self.invert(inst);
            }
            _ => {}
        }
        Keep
    }

    /// Makes `inst`, which is 1 when its left operand is 0 and 0 when that is 1, the inverse comparison, if there is one.
    fn invert(&self, inst: &mut Inst) -> bool {
        let Some(inner) = self.def(inst.a) else { return false };
        let Some((op, swap)) = inverse(inner.op) else { return false };
        *inst = Inst { op, ..*inner };
        if swap {
            (inst.a, inst.b) = (inst.b, inst.a);
        }
        true
    }

    /// Strips a comparison with 0 from a condition, which is tested against 0 in 8 bits anyway.
    fn condition(&self, v: &mut Value) {
        if let Some(inner) = self.def(*v)
            && inner.op == Op::NeI
            && inner.imm == 0
            && (inner.ty == Type::I8 || self.bound(inner.a) <= 8)
        {
            *v = inner.a;
        }
    }

    fn select(&self, inst: &mut Inst) -> Action {
        self.condition(&mut inst.a);
        if let Some(cond) = self.constant(inst.a) {
            let taken = if cond & 0xff != 0 { inst.b } else { inst.c };
            return self.pick(inst, taken);
        }
        if inst.b == inst.c {
            return self.pick(inst, inst.b);
        }
        if self.bound(inst.a) <= 1 && self.constant(inst.b) == Some(1) && self.constant(inst.c) == Some(0) {
            return Copy(inst.a);
        }
        Keep
    }

    /// Makes `inst` the value `v` truncated to its type, or that constant.
    fn pick(&self, inst: &mut Inst, v: Value) -> Action {
        match self.constant(v) {
            Some(value) => constant(inst, inst.ty, value & inst.ty.mask()),
            None => self.truncated(inst, v),
        }
    }

    fn deposit(&self, inst: &mut Inst) -> Action {
        let (pos, len) = inst.bit_field();
        if let (Some(a), Some(b)) = (self.constant(inst.a), self.constant(inst.b)) {
            return constant(inst, inst.ty, eval_deposit(inst.ty, a, b, (pos, len)));
        }
        if pos == 0 && len >= inst.ty.bits() { self.truncated(inst, inst.b) } else { Keep }
    }

    fn extract(&self, inst: &mut Inst) -> Action {
        let (pos, len) = inst.bit_field();
        if let Some(a) = self.constant(inst.a) {
            return constant(inst, inst.ty, eval_extract(inst.ty, a, (pos, len)));
        }
        let bound = self.bound(inst.a);
        if pos >= bound {
            return constant(inst, inst.ty, 0);
        }
        if pos == 0 && len >= inst.ty.bits() {
            return self.truncated(inst, inst.a);
        }
        if pos == 0 && len >= bound { Copy(inst.a) } else { Keep }
    }

    fn lea(&self, inst: &mut Inst) -> Action {
        let (ty, mask, shift) = (inst.ty, inst.ty.mask(), u32::from(inst.c & 63));
        if let Some(inner) = self.def_as(inst.a, Op::AddI, ty) {
            inst.a = inner.a;
            inst.imm = inst.imm.wrapping_add(inner.imm) & mask;
        }
        if let Some(inner) = self.def_as(inst.b, Op::AddI, ty) {
            inst.b = inner.a;
            inst.imm = inst.imm.wrapping_add(inner.imm << shift) & mask;
        }
        match (self.constant(inst.a), self.constant(inst.b)) {
            (Some(a), Some(b)) => constant(inst, ty, a.wrapping_add(b << shift).wrapping_add(inst.imm) & mask),
            (None, Some(b)) => {
                let imm = inst.imm.wrapping_add(b << shift) & mask;
                *inst = Inst { op: Op::AddI, ty, a: inst.a, b: NONE, c: NONE, imm };
                self.binary_imm(inst)
            }
            (Some(a), None) => {
                let imm = inst.imm.wrapping_add(a) & mask;
                if shift == 0 {
                    *inst = Inst { op: Op::AddI, ty, a: inst.b, b: NONE, c: NONE, imm };
                    self.binary_imm(inst)
                } else if imm == 0 && shift < ty.bits() {
                    *inst = Inst { op: Op::ShlI, ty, a: inst.b, b: NONE, c: NONE, imm: u64::from(shift) };
                    self.binary_imm(inst)
                } else {
                    Keep
                }
            }
            (None, None) => {
                if shift == 0 && inst.imm == 0 {
                    *inst = Inst { op: Op::Add, ty, a: inst.a, b: inst.b, c: NONE, imm: 0 };
                }
                Keep
            }
        }
    }

    fn vec(&self, inst: &mut Inst) -> Action {
        use VecKind::*;
        let Some(VecInfo { kind, imm }) = inst.vec_info() else { return Keep };
        match kind {
            // A lane that was just put there.
            Extract8 | Extract16 | Extract32 | Extract64 => {
                let inner = self.def(inst.a).and_then(|d| Some((d, d.vec_info()?))).filter(|(d, _)| d.op == Op::Vec);
                match (kind, inner) {
                    (Extract32, Some((d, VecInfo { kind: From32, .. }))) if imm == 0 => self.truncated(inst, d.a),
                    (Extract64, Some((d, VecInfo { kind: From64, .. }))) if imm == 0 => self.truncated(inst, d.a),
                    (Extract8, Some((d, VecInfo { kind: Insert8, imm: at })))
                    | (Extract16, Some((d, VecInfo { kind: Insert16, imm: at })))
                    | (Extract32, Some((d, VecInfo { kind: Insert32, imm: at })))
                    | (Extract64, Some((d, VecInfo { kind: Insert64, imm: at })))
                        if imm == at =>
                    {
                        self.truncated(inst, d.b)
                    }
                    _ => Keep,
                }
            }
            // The ways to make a register zero or all ones, whatever it held.
            Xor | AndNot | Sub8 | Sub16 | Sub32 | Sub64 | Sgt8 | Sgt16 | Sgt32 | Sgt64 if inst.a == inst.b => {
                vec_constant(inst, Zero)
            }
            Eq8 | Eq16 | Eq32 | Eq64 if inst.a == inst.b => vec_constant(inst, Ones),
            And | Or if inst.a == inst.b => Copy(inst.a),
            _ => Keep,
        }
    }

    /// Moves a constant added to the address into the displacement.
    fn fold_address(&self, inst: &mut Inst) {
        if let Some(inner) = self.def_as(inst.a, Op::AddI, Type::I64)
            && let Some(disp) = (inner.imm as i64).checked_add(i64::from(inst.mem_disp()))
            && let Ok(disp) = i32::try_from(disp)
        {
            inst.a = inner.a;
            inst.imm = inst.imm & !0xffff_ffff | u64::from(disp as u32);
        }
    }

    /// Makes a store of a constant its immediate form.
    fn store_env(&self, inst: &mut Inst) {
        if inst.op == Op::StoreEnv
            && inst.ty != Type::V128
            && let Some(value) = self.constant(inst.a)
        {
            *inst = Inst { op: Op::StoreEnvI, a: NONE, imm: value & inst.ty.mask(), ..*inst };
        }
    }

    /// Whether the env store writes what its slot holds already, which is `known`.
    fn holds_already(&self, inst: &Inst, known: Value) -> bool {
        match inst.op {
            Op::StoreEnv => inst.a == known,
            _ => self.def(known).is_some_and(|d| d.op == Op::StoreEnvI && d.imm == inst.imm),
        }
    }

    /// Replaces an env load by the slot's `known` value, of the same type.
    fn forward_load(&self, inst: &mut Inst, known: Value) -> Action {
        match self.def(known) {
            Some(d) if d.op == Op::StoreEnvI => constant(inst, inst.ty, d.imm & inst.ty.mask()),
            _ => self.truncated(inst, known),
        }
    }

    fn trap_if(&self, inst: &mut Inst, aligned: &mut Alignments) -> Action {
        self.condition(&mut inst.a);
        if self.constant(inst.a).is_some_and(|cond| cond & 0xff == 0) {
            return Drop;
        }
        match self.alignment(inst.a) {
            Some(alignment) if !aligned.insert(alignment) => Drop,
            _ => Keep,
        }
    }

    /// What a trap on condition `v` makes sure of, if it is low bits of an address.
    fn alignment(&self, v: Value) -> Option<Alignment> {
        let low = self.def_as(v, Op::AndI, Type::I8).filter(|d| d.imm <= 0xff)?;
        let sum = self.def_as(low.a, Op::AddI, Type::I8).filter(|_| (low.imm + 1).is_power_of_two());
        Some(match sum {
            Some(sum) => Alignment { of: sum.a, offset: sum.imm & low.imm, mask: low.imm },
            None => Alignment { of: low.a, offset: 0, mask: low.imm },
        })
    }

    fn branch(&self, inst: &mut Inst, fallthrough: u64) {
        self.condition(&mut inst.a);
        if let Some(cond) = self.constant(inst.a) {
            let (slot, pc) = if cond & 0xff != 0 { (0, inst.imm) } else { (1, fallthrough) };
            *inst = Inst { op: Op::Jump, ty: Type::I64, a: NONE, b: NONE, c: slot, imm: pc };
        }
    }

    /// How many low bits of the result can be set.
    fn result_bound(&self, inst: &Inst) -> u32 {
        let bits = inst.ty.bits();
        let bound = match inst.op {
            Op::Const => width(inst.imm),
            Op::And => self.bound(inst.a).min(self.bound(inst.b)),
            Op::AndI => self.bound(inst.a).min(width(inst.imm)),
            Op::Or | Op::Xor => self.bound(inst.a).max(self.bound(inst.b)),
            Op::OrI | Op::XorI => self.bound(inst.a).max(width(inst.imm)),
            Op::ShlI => self.bound(inst.a) + inst.imm as u32,
            Op::ShrI => self.bound(inst.a).min(bits).saturating_sub(inst.imm as u32),
            Op::Clz | Op::Ctz | Op::Popcnt => 7,
            Op::Zext => self.bound(inst.a).min(Type::ALL[usize::from(inst.c).min(3)].bits()),
            Op::Select => self.bound(inst.b).max(self.bound(inst.c)),
            Op::Extract => {
                let (pos, len) = inst.bit_field();
                self.bound(inst.a).saturating_sub(pos).min(len)
            }
            op if matches!(op.info().shape, Shape::Compare | Shape::CompareImm) => 1,
            _ => bits,
        };
        bound.min(bits)
    }
}

/// A mask of the low `bits` bits.
fn low_bits(bits: u32) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}
