//! Floating point on x86-64 hosts: the guest's floating-point environment is in MXCSR, so that the host's instructions round and
//! raise flags as the guest's do. Other hosts have the runtime evaluate every operation.
//!
//! What the code generator may do to floating point is not quite what a guest wants. It takes the operations for pure: a
//! result that nothing uses is not computed and raises no flags, so [`Lowering::keep`] uses it. It may take a load as the
//! right operand of a commutative operation although it is the left one, which is seen in the payload of a NaN: here a
//! bit cast or the extraction of a lane is always in between. It must not be asked to optimize: it would fold
//! constants and move operations.

use std::mem::offset_of;

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{AbiParam, Endianness, InstBuilder, MemFlagsData, Signature, Type as Clif, Value, types};
use cranelift_codegen::isa::CallConv;
use mimus_ir::vec::{TEST_EQUAL_OR_UNORDERED, TEST_ORDERED_AND_UNEQUAL, VecInfo, VecKind};
use mimus_ir::{Inst, NONE, Op, Type};
use mimus_softmmu::EnvHeader;

use super::{Lowering, SLOW_VECTOR, slow_signature};
use crate::error::BackendError;
use crate::target::x64::stubs;

const S: Clif = types::F32;
const D: Clif = types::F64;
const SP: Clif = types::F32X4;
const DP: Clif = types::F64X2;

/// Lowers an operation on lane 0 of two vectors.
macro_rules! scalar {
    ($l:ident, $inst:ident, $ty:ident, $method:ident) => {{
        let (x, y) = ($l.scalar($inst.a, $ty)?, $l.scalar($inst.b, $ty)?);
        let result = $l.b.ins().$method(x, y);
        $l.with_scalar($inst, result)?
    }};
}

/// Lowers an operation on all lanes of two vectors.
macro_rules! packed {
    ($l:ident, $inst:ident, $ty:ident, $method:ident) => {{
        let (x, y) = ($l.lanes($inst.a, $ty)?, $l.lanes($inst.b, $ty)?);
        $l.b.ins().$method(x, y)
    }};
}

/// Lowers a conversion of all lanes of a vector taken as `$from`.
macro_rules! convert {
    ($l:ident, $inst:ident, $from:expr, |$x:ident| $($to:tt)+) => {{
        let $x = $l.lanes($inst.a, $from)?;
        $l.b.ins().$($to)+
    }};
}

/// The condition that a `Compare` or `Test` predicate stands for.
fn condition(predicate: u8) -> FloatCC {
    match predicate {
        0 => FloatCC::Equal,
        1 => FloatCC::LessThan,
        2 => FloatCC::LessThanOrEqual,
        3 => FloatCC::Unordered,
        4 => FloatCC::NotEqual,
        5 => FloatCC::UnorderedOrGreaterThanOrEqual,
        6 => FloatCC::UnorderedOrGreaterThan,
        TEST_EQUAL_OR_UNORDERED => FloatCC::UnorderedOrEqual,
        TEST_ORDERED_AND_UNEQUAL => FloatCC::OrderedNotEqual,
        _ => FloatCC::Ordered,
    }
}

impl Lowering<'_, '_> {
    /// Notes in the header that this part does floating point, if it does, and finds out which results are used.
    pub(super) fn mark_floats(&mut self) {
        let insts = &self.block.insts;
        self.used.clear();
        if !self.host.floats() || !insts.iter().any(|i| i.op == Op::Float) {
            return;
        }
        let one = self.b.ins().iconst(types::I32, 1);
        self.store_header(one, offset_of!(EnvHeader, floats));
        self.used.resize(insts.len(), false);
        for inst in insts.iter().filter(|i| !i.effects().is_empty()) {
            let mut inst = *inst;
            if only_lane_0_of_b(&inst) {
                inst.a = NONE;
            }
            inst.for_each_operand(|v| {
                if let Some(used) = self.used.get_mut(usize::from(*v)) {
                    *used = true;
                }
            });
        }
    }

    /// Lowers an operation of the vector table with floating point.
    pub(super) fn float(&mut self, inst: &Inst) -> Result<(), BackendError> {
        let info = self.vec_info(inst)?;
        let ty = info.kind.row().ty;
        let value = if self.host.floats() { self.float_inline(inst, info)? } else { None };
        let value = match value {
            Some(value) if ty == Type::V128 => self.cast(value, types::I64X2),
            Some(value) => value,
            None => self.vec_call(inst, info)?,
        };
        self.define(ty, value);
        let branches = matches!(info.kind, VecKind::OrderF32 | VecKind::OrderF64);
        if inst.op == Op::Float && !branches && self.used.get(self.index) == Some(&false) {
            self.keep(ty, value);
        }
        Ok(())
    }

    /// Uses a value that may be used nowhere else.
    fn keep(&mut self, ty: Type, value: Value) {
        let field = offset_of!(EnvHeader, vector_args);
        if ty == Type::V128 { self.store_wide_header(value, field) } else { self.store_header(value, field) }
    }

    /// Lane 0 of a vector.
    fn scalar(&mut self, v: mimus_ir::Value, ty: Clif) -> Result<Value, BackendError> {
        let slot = scalar_slot(ty);
        if let Some(value) = self.values.get(usize::from(v)).and_then(|s| s[slot]) {
            return Ok(value);
        }
        let whole = self.lanes(v, if ty == S { SP } else { DP })?;
        let value = self.b.ins().extractlane(whole, 0);
        self.values[usize::from(v)][slot] = Some(value);
        Ok(value)
    }

    /// If `v`, to be stored as `ty`, is lane 0 of a vector: that lane as a float, so that it need not go through an integer
    /// register.
    pub(super) fn stored_lane(&mut self, v: mimus_ir::Value, ty: Type) -> Result<Option<Value>, BackendError> {
        if !self.host.floats() {
            return Ok(None);
        }
        let (inst, from) = self.definition(v)?;
        let lane = match inst.vec_info() {
            Some(VecInfo { kind: VecKind::Extract32, imm: 0 }) => S,
            Some(VecInfo { kind: VecKind::Extract64, imm: 0 }) => D,
            _ => return Ok(None),
        };
        if inst.op != Op::Vec || from != ty {
            return Ok(None);
        }
        self.scalar(inst.a, lane).map(Some)
    }

    /// The bits of a float as an integer.
    pub(super) fn lane_bits(&mut self, value: Value) -> Value {
        let ty = if self.b.func.dfg.value_type(value) == S { types::I32 } else { types::I64 };
        self.b.ins().bitcast(ty, MemFlagsData::new().with_endianness(Endianness::Little), value)
    }

    /// Operand `a` with lane 0 replaced by `value`, which is remembered as such.
    fn with_scalar(&mut self, inst: &Inst, value: Value) -> Result<Value, BackendError> {
        let ty = self.b.func.dfg.value_type(value);
        let whole = self.lanes(inst.a, if ty == S { SP } else { DP })?;
        self.values[self.index][scalar_slot(ty)] = Some(value);
        Ok(self.b.ins().insertlane(whole, value, 0))
    }

    /// The operation in the host's instructions; `None` if there are none for it.
    fn float_inline(&mut self, inst: &Inst, info: VecInfo) -> Result<Option<Value>, BackendError> {
        use VecKind::*;
        let l = self;
        let kind = info.kind;
        Ok(Some(match kind {
            AddF32 => scalar!(l, inst, S, fadd),
            AddF64 => scalar!(l, inst, D, fadd),
            AddF32P => packed!(l, inst, SP, fadd),
            AddF64P => packed!(l, inst, DP, fadd),
            SubF32 => scalar!(l, inst, S, fsub),
            SubF64 => scalar!(l, inst, D, fsub),
            SubF32P => packed!(l, inst, SP, fsub),
            SubF64P => packed!(l, inst, DP, fsub),
            MulF32 => scalar!(l, inst, S, fmul),
            MulF64 => scalar!(l, inst, D, fmul),
            MulF32P => packed!(l, inst, SP, fmul),
            MulF64P => packed!(l, inst, DP, fmul),
            DivF32 => scalar!(l, inst, S, fdiv),
            DivF64 => scalar!(l, inst, D, fdiv),
            DivF32P => packed!(l, inst, SP, fdiv),
            DivF64P => packed!(l, inst, DP, fdiv),
            MulAddF32 | MulAddF64 if l.host.fma() => {
                let ty = if kind == MulAddF32 { S } else { D };
                let (x, y, z) = (l.scalar(inst.a, ty)?, l.scalar(inst.b, ty)?, l.scalar(inst.c, ty)?);
                let value = l.b.ins().fma(x, y, z);
                l.with_scalar(inst, value)?
            }
            MinF32 | MinF64 | MaxF32 | MaxF64 => {
                l.extreme(inst, if matches!(kind, MinF32 | MaxF32) { S } else { D }, matches!(kind, MinF32 | MinF64))?
            }
            MinF32P | MinF64P | MaxF32P | MaxF64P => {
                let ty = if matches!(kind, MinF32P | MaxF32P) { SP } else { DP };
                l.extreme_lanes(inst, ty, matches!(kind, MinF32P | MinF64P))?
            }
            SqrtF32 | SqrtF64 => {
                let x = l.scalar(inst.b, if kind == SqrtF32 { S } else { D })?;
                let root = l.b.ins().sqrt(x);
                l.with_scalar(inst, root)?
            }
            SqrtF32P => convert!(l, inst, SP, |x| sqrt(x)),
            SqrtF64P => convert!(l, inst, DP, |x| sqrt(x)),
            CompareF32 => l.compare_scalar(inst, SP, info.imm)?,
            CompareF64 => l.compare_scalar(inst, DP, info.imm)?,
            CompareF32P | CompareF64P => {
                let ty = if kind == CompareF32P { SP } else { DP };
                let (x, y) = (l.lanes(inst.a, ty)?, l.lanes(inst.b, ty)?);
                l.b.ins().fcmp(condition(info.imm), x, y)
            }
            AddPairsF32P | SubPairsF32P => l.pairs(inst, SP, kind == AddPairsF32P)?,
            AddPairsF64P | SubPairsF64P => l.pairs(inst, DP, kind == AddPairsF64P)?,
            F32ToF64 => {
                let x = l.scalar(inst.b, S)?;
                let value = l.b.ins().fpromote(D, x);
                l.with_scalar(inst, value)?
            }
            F64ToF32 => {
                let x = l.scalar(inst.b, D)?;
                let value = l.b.ins().fdemote(S, x);
                l.with_scalar(inst, value)?
            }
            F32PToF64P => convert!(l, inst, SP, |x| fvpromote_low(x)),
            F64PToF32P => convert!(l, inst, DP, |x| fvdemote(x)),
            I32PToF32P => convert!(l, inst, types::I32X4, |x| fcvt_from_sint(SP, x)),
            I32PToF64P => {
                let x = convert!(l, inst, types::I32X4, |x| swiden_low(x));
                l.b.ins().fcvt_from_sint(DP, x)
            }
            TruncF32PToI32P => convert!(l, inst, SP, |x| x86_cvtt2dq(types::I32X4, x)),
            TruncF64PToI32P => {
                let x = convert!(l, inst, DP, |x| x86_cvtt2dq(types::I64X2, x));
                let zero = l.vector_constant(types::I64X2, 0);
                l.b.ins().snarrow(x, zero)
            }
            I32ToF32 | I64ToF32 | I32ToF64 | I64ToF64 => {
                let x = l.int(inst.b, kind.row().int)?;
                let value = l.b.ins().fcvt_from_sint(if matches!(kind, I32ToF32 | I64ToF32) { S } else { D }, x);
                l.with_scalar(inst, value)?
            }
            TruncF32ToI32 => l.truncate(inst, S, types::I32)?,
            TruncF32ToI64 => l.truncate(inst, S, types::I64)?,
            TruncF64ToI32 => l.truncate(inst, D, types::I32)?,
            TruncF64ToI64 => l.truncate(inst, D, types::I64)?,
            OrderF32 | OrderQuietF32 => l.order_of(inst, info, S)?,
            OrderF64 | OrderQuietF64 => l.order_of(inst, info, D)?,
            TestF32 | TestF64 => {
                let ty = if kind == TestF32 { S } else { D };
                let (x, y) = (l.scalar(inst.a, ty)?, l.scalar(inst.b, ty)?);
                l.b.ins().fcmp(condition(info.imm), x, y)
            }
            _ => return l.stub(inst, info),
        }))
    }

    /// MINSS and its kin: the second operand unless the first lies on the wanted side of it. The code generator knows the
    /// pattern.
    fn extreme(&mut self, inst: &Inst, ty: Clif, min: bool) -> Result<Value, BackendError> {
        let (x, y) = (self.scalar(inst.a, ty)?, self.scalar(inst.b, ty)?);
        let (left, right) = if min { (x, y) } else { (y, x) };
        let first = self.b.ins().fcmp(FloatCC::LessThan, left, right);
        let value = self.b.ins().select(first, x, y);
        self.with_scalar(inst, value)
    }

    fn extreme_lanes(&mut self, inst: &Inst, ty: Clif, min: bool) -> Result<Value, BackendError> {
        let (x, y) = (self.lanes(inst.a, ty)?, self.lanes(inst.b, ty)?);
        let (left, right) = if min { (x, y) } else { (y, x) };
        let first = self.b.ins().fcmp(FloatCC::LessThan, left, right);
        let first = self.cast(first, ty);
        Ok(self.b.ins().bitselect(first, x, y))
    }

    /// CMPSS, CMPSD: a comparison of whole vectors, each of copies of one lane, so that other lanes raise no flags.
    fn compare_scalar(&mut self, inst: &Inst, ty: Clif, predicate: u8) -> Result<Value, BackendError> {
        let lane = ty.lane_type();
        let (x, y) = (self.scalar(inst.a, lane)?, self.scalar(inst.b, lane)?);
        let [x, y] = [x, y].map(|v| self.b.ins().splat(ty, v));
        let mask = self.b.ins().fcmp(condition(predicate), x, y);
        let whole = self.wide(inst.a)?;
        let bytes = lane.bytes() as u8;
        Ok(self.permute(whole, mask, std::array::from_fn(|i| if (i as u8) < bytes { 16 } else { 0 } + i as u8)))
    }

    /// HADDPS and its kin: the even lanes of both operands with the odd ones.
    fn pairs(&mut self, inst: &Inst, ty: Clif, add: bool) -> Result<Value, BackendError> {
        let (a, b) = (self.wide(inst.a)?, self.wide(inst.b)?);
        let bytes = ty.lane_type().bytes() as usize;
        let [x, y] = [0, bytes].map(|first| {
            let mask = std::array::from_fn(|i| (i / bytes * 2 * bytes + first + i % bytes) as u8);
            let half = self.permute(a, b, mask);
            self.cast(half, ty)
        });
        Ok(if add { self.b.ins().fadd(x, y) } else { self.b.ins().fsub(x, y) })
    }

    /// CVTTSD2SI and its kin. The code generator's conversion saturates; what is out of range, or a NaN, has the smallest
    /// integer here (the "integer indefinite"). Its flags are those of the instruction that it begins with: what follows
    /// looks at numbers that are out of range only. The range is told by the exponent, without touching the flags.
    fn truncate(&mut self, inst: &Inst, from: Clif, to: Clif) -> Result<Value, BackendError> {
        let x = self.scalar(inst.a, from)?;
        let (bits, mantissa, bias) = if from == S { (types::I32, 23, 127) } else { (types::I64, 52, 1023) };
        let saturated = self.b.ins().fcvt_to_sint_sat(to, x);
        let raw = self.lane_bits(x);
        let doubled = self.b.ins().ishl_imm_u(raw, 1);
        // The first exponent of numbers that may be too large, above the mantissa and the bit shifted in.
        let limit = (bias + i64::from(to.bits()) - 1) << (mantissa + 1);
        let limit = self.b.ins().iconst(bits, if from == S { i64::from(limit as u32) } else { limit });
        let within = self.b.ins().icmp(IntCC::UnsignedLessThan, doubled, limit);
        let least = self.b.ins().iconst(to, if to == types::I32 { 0x8000_0000 } else { i64::MIN });
        Ok(self.b.ins().select(within, saturated, least))
    }

    /// COMISD and its kin as far as flags go. The code generator has only the quiet comparison; an unordered signalling
    /// one is done again by the runtime.
    fn order_of(&mut self, inst: &Inst, info: VecInfo, ty: Clif) -> Result<Value, BackendError> {
        let (x, y) = (self.scalar(inst.a, ty)?, self.scalar(inst.b, ty)?);
        let unordered = self.b.ins().fcmp(FloatCC::Unordered, x, y);
        if matches!(info.kind, VecKind::OrderQuietF32 | VecKind::OrderQuietF64) {
            return Ok(unordered);
        }
        let (cold, resume) = (self.cold_block(), self.b.create_block());
        self.b.ins().brif(unordered, cold, &[], resume, &[]);
        self.b.switch_to_block(cold);
        self.vec_arguments(inst, info)?;
        let signature = self.b.import_signature(slow_signature(CallConv::PreserveAll, &SLOW_VECTOR));
        let thunk = self.load_header(types::I64, SLOW_VECTOR.offset);
        let operation = self.const64(info.encode());
        self.b.ins().call_indirect(signature, thunk, &[self.env, operation]);
        self.b.ins().jump(resume, &[]);
        self.b.switch_to_block(resume);
        Ok(unordered)
    }

    /// An operation by a stub of one host instruction.
    fn stub(&mut self, inst: &Inst, info: VecInfo) -> Result<Option<Value>, BackendError> {
        let Some(number) = stubs::number(info) else { return Ok(None) };
        let ty = self.ty(info.kind.row().ty);
        let mut signature = Signature::new(self.host.c_call_conv());
        signature.returns.push(AbiParam::new(ty));
        let mut args = Vec::new();
        for (v, operand) in [inst.a, inst.b].into_iter().zip(info.kind.row().shape.operands()) {
            if operand.is_some() {
                signature.params.push(AbiParam::new(types::I64X2));
                args.push(self.wide(v)?);
            }
        }
        let signature = self.b.import_signature(signature);
        let base = self.load_header(types::I64, offset_of!(EnvHeader, vector_stubs));
        let address = self.b.ins().iadd_imm_s(base, (number * stubs::SIZE) as i64);
        let call = self.b.ins().call_indirect(signature, address, &args);
        Ok(Some(self.b.inst_results(call)[0]))
    }
}

/// Whether an operation computes with its second operand only and takes lanes from the first, which may then never be made.
fn only_lane_0_of_b(inst: &Inst) -> bool {
    use VecKind::*;
    inst.op == Op::Float
        && inst.vec_info().is_some_and(|info| {
            matches!(info.kind, SqrtF32 | SqrtF64 | F32ToF64 | F64ToF32 | I32ToF32 | I64ToF32 | I32ToF64 | I64ToF64)
        })
}

/// Where lane 0 is in a value's slots.
fn scalar_slot(ty: Clif) -> usize {
    if ty == S { 5 } else { 6 }
}
