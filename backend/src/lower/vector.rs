//! Lowering of the rows of the vector table that compute with integers.
//!
//! A 128-bit value is held as [`types::I64X2`]; an operation sees it as the lanes it works on by a bit cast, which costs
//! nothing. Where the host has no instruction for an operation ([`HostIsa::vectors`] or the row's), the runtime evaluates it
//! by [`EnvHeader::vector`].
//!
//! [`HostIsa::vectors`]: crate::host::HostIsa::vectors

use std::mem::offset_of;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{ConstantData, Endianness, InstBuilder, MemFlagsData, Type as Clif, Value, types};
use mimus_ir::vec::{VecInfo, VecKind, VecShape};
use mimus_ir::{Inst, Op, Type};
use mimus_softmmu::EnvHeader;

use super::Lowering;
use crate::error::BackendError;
use crate::host::Arch;

const B: Clif = types::I8X16;
const W: Clif = types::I16X8;
const D: Clif = types::I32X4;
const Q: Clif = types::I64X2;

/// Lowers an operation on two vectors taken as lanes `$ty`.
macro_rules! binary {
    ($l:ident, $inst:ident, $ty:ident, $method:ident) => {{
        let (x, y) = ($l.lanes($inst.a, $ty)?, $l.lanes($inst.b, $ty)?);
        $l.b.ins().$method(x, y)
    }};
}

/// Lowers an operation on one vector taken as lanes `$ty`.
macro_rules! unary {
    ($l:ident, $inst:ident, $ty:ident, $($method:ident)+) => {{
        let x = $l.lanes($inst.a, $ty)?;
        $(let x = $l.b.ins().$method(x);)+
        x
    }};
}

impl Lowering<'_, '_> {
    /// Lowers an operation of the vector table without floating point.
    pub(super) fn vec(&mut self, inst: &Inst) -> Result<(), BackendError> {
        let info = self.vec_info(inst)?;
        let row = info.kind.row();
        let value = if self.host.vectors() { self.vec_inline(inst, info)? } else { None };
        let value = match value {
            Some(value) if row.ty == Type::V128 => self.cast(value, Q),
            Some(value) => value,
            None => self.vec_call(inst, info)?,
        };
        self.define(row.ty, value);
        Ok(())
    }

    /// Which operation it is, if it is one that the op may carry.
    pub(super) fn vec_info(&self, inst: &Inst) -> Result<VecInfo, BackendError> {
        let info = inst.vec_info().ok_or_else(|| self.malformed("no such vector operation"))?;
        let row = info.kind.row();
        if row.op != inst.op || row.ty != inst.ty {
            return Err(self.malformed("not this operation's op or type"));
        }
        Ok(info)
    }

    /// The same 128 bits as another type.
    pub(super) fn cast(&mut self, value: Value, ty: Clif) -> Value {
        if self.b.func.dfg.value_type(value) == ty {
            return value;
        }
        let flags = MemFlagsData::new().with_endianness(Endianness::Little);
        self.b.ins().bitcast(ty, flags, value)
    }

    /// A vector operand as lanes of `ty`.
    pub(super) fn lanes(&mut self, v: mimus_ir::Value, ty: Clif) -> Result<Value, BackendError> {
        let value = self.wide(v)?;
        Ok(self.cast(value, ty))
    }

    pub(super) fn vector_constant(&mut self, ty: Clif, value: u128) -> Value {
        let data = ConstantData::from(&value.to_le_bytes()[..]);
        let constant = self.b.func.dfg.constants.insert(data);
        self.b.ins().vconst(ty, constant)
    }

    /// Bytes of `a` (0 to 15) and `b` (16 to 31) in the order of `mask`.
    pub(super) fn permute(&mut self, a: Value, b: Value, mask: [u8; 16]) -> Value {
        let (a, b) = (self.cast(a, B), self.cast(b, B));
        let mask = self.b.func.dfg.immediates.push(ConstantData::from(&mask[..]));
        self.b.ins().shuffle(a, b, mask)
    }

    /// An operation that only moves bytes of its one or two operands: its own evaluation tells where each comes from.
    fn permutation(&mut self, inst: &Inst, info: VecInfo) -> Result<Option<Value>, BackendError> {
        let row = info.kind.row();
        let Some(eval) = row.eval else { return Ok(None) };
        let numbered = |from: u8| u128::from_le_bytes(std::array::from_fn(|i| from + i as u8));
        let a = self.wide(inst.a)?;
        if row.shape == VecShape::VVToV {
            let mask = eval(numbered(0), numbered(16), 0, info.imm).to_le_bytes();
            let b = self.wide(inst.b)?;
            return Ok(Some(self.permute(a, b, mask)));
        }
        // Counted from 1, so that a zero can be told from byte 0; zeros come from a second, zero, vector.
        let from = eval(numbered(1), 0, 0, info.imm).to_le_bytes();
        let zero = from.contains(&0);
        let mask = from.map(|n| if n == 0 { 16 } else { n - 1 });
        let b = if zero { self.vector_constant(B, 0) } else { a };
        Ok(Some(self.permute(a, b, mask)))
    }

    /// The operation in the host's instructions; `None` if there are none for it.
    fn vec_inline(&mut self, inst: &Inst, info: VecInfo) -> Result<Option<Value>, BackendError> {
        use VecKind::*;
        let l = self;
        let imm = info.imm;
        let x64 = l.host.arch == Arch::X64;
        Ok(Some(match info.kind {
            Zero => l.vector_constant(Q, 0),
            Ones => l.vector_constant(Q, u128::MAX),
            From32 | From64 => {
                let (int, ty) = if info.kind == From32 { (Type::I32, D) } else { (Type::I64, Q) };
                let x = l.int(inst.a, int)?;
                l.b.ins().scalar_to_vector(ty, x)
            }
            Extract8 | Extract16 | Extract32 | Extract64 => {
                let x = l.lanes(inst.a, lanes_of(info.kind.row().ty))?;
                l.b.ins().extractlane(x, imm)
            }
            Insert8 | Insert16 | Insert32 | Insert64 => {
                let int = info.kind.row().int;
                let (x, y) = (l.lanes(inst.a, lanes_of(int))?, l.int(inst.b, int)?);
                l.b.ins().insertlane(x, y, imm)
            }
            Signs8 | Signs32 | Signs64 => {
                let ty = [(Signs8, B), (Signs32, D), (Signs64, Q)].into_iter().find(|(k, _)| *k == info.kind);
                let x = l.lanes(inst.a, ty.map_or(Q, |(_, ty)| ty))?;
                l.b.ins().vhigh_bits(types::I32, x)
            }
            Any => unary!(l, inst, B, vany_true),
            And => binary!(l, inst, Q, band),
            AndNot => {
                let (x, y) = (l.wide(inst.a)?, l.wide(inst.b)?);
                let x = l.b.ins().bnot(x);
                l.b.ins().band(y, x)
            }
            Or => binary!(l, inst, Q, bor),
            Xor => binary!(l, inst, Q, bxor),
            Add8 => binary!(l, inst, B, iadd),
            Add16 => binary!(l, inst, W, iadd),
            Add32 => binary!(l, inst, D, iadd),
            Add64 => binary!(l, inst, Q, iadd),
            Sub8 => binary!(l, inst, B, isub),
            Sub16 => binary!(l, inst, W, isub),
            Sub32 => binary!(l, inst, D, isub),
            Sub64 => binary!(l, inst, Q, isub),
            AddSatS8 => binary!(l, inst, B, sadd_sat),
            AddSatS16 => binary!(l, inst, W, sadd_sat),
            AddSatU8 => binary!(l, inst, B, uadd_sat),
            AddSatU16 => binary!(l, inst, W, uadd_sat),
            SubSatS8 => binary!(l, inst, B, ssub_sat),
            SubSatS16 => binary!(l, inst, W, ssub_sat),
            SubSatU8 => binary!(l, inst, B, usub_sat),
            SubSatU16 => binary!(l, inst, W, usub_sat),
            Mul16 => binary!(l, inst, W, imul),
            Mul32 => binary!(l, inst, D, imul),
            MulHighS16 | MulHighU16 => l.multiply_high_lanes(inst, info.kind == MulHighS16)?,
            MulEvenS32 | MulEvenU32 => l.multiply_even(inst, info.kind == MulEvenS32)?,
            MulAdd16 => {
                let [low, high] = l.products(inst, true)?;
                l.b.ins().iadd_pairwise(low, high)
            }
            MulRound16 if x64 => binary!(l, inst, W, x86_pmulhrsw),
            MulAdd8 if x64 => {
                let (x, y) = (l.lanes(inst.a, B)?, l.lanes(inst.b, B)?);
                l.b.ins().x86_pmaddubsw(y, x)
            }
            ShuffleBytes if x64 => binary!(l, inst, B, x86_pshufb),
            BlendSigns8 if x64 => l.blend_signs(inst, B)?,
            BlendSigns32 if x64 => l.blend_signs(inst, D)?,
            BlendSigns64 if x64 => l.blend_signs(inst, Q)?,
            MulRound16 | MulAdd8 | ShuffleBytes | BlendSigns8 | BlendSigns32 | BlendSigns64 => return Ok(None),
            Differences8 => l.differences(inst)?,
            Average8 => binary!(l, inst, B, avg_round),
            Average16 => binary!(l, inst, W, avg_round),
            MinS8 => binary!(l, inst, B, smin),
            MinS16 => binary!(l, inst, W, smin),
            MinS32 => binary!(l, inst, D, smin),
            MinU8 => binary!(l, inst, B, umin),
            MinU16 => binary!(l, inst, W, umin),
            MinU32 => binary!(l, inst, D, umin),
            MaxS8 => binary!(l, inst, B, smax),
            MaxS16 => binary!(l, inst, W, smax),
            MaxS32 => binary!(l, inst, D, smax),
            MaxU8 => binary!(l, inst, B, umax),
            MaxU16 => binary!(l, inst, W, umax),
            MaxU32 => binary!(l, inst, D, umax),
            Eq8 => l.compare_lanes(inst, B, IntCC::Equal)?,
            Eq16 => l.compare_lanes(inst, W, IntCC::Equal)?,
            Eq32 => l.compare_lanes(inst, D, IntCC::Equal)?,
            Eq64 => l.compare_lanes(inst, Q, IntCC::Equal)?,
            Sgt8 => l.compare_lanes(inst, B, IntCC::SignedGreaterThan)?,
            Sgt16 => l.compare_lanes(inst, W, IntCC::SignedGreaterThan)?,
            Sgt32 => l.compare_lanes(inst, D, IntCC::SignedGreaterThan)?,
            Sgt64 => l.compare_lanes(inst, Q, IntCC::SignedGreaterThan)?,
            Abs8 => unary!(l, inst, B, iabs),
            Abs16 => unary!(l, inst, W, iabs),
            Abs32 => unary!(l, inst, D, iabs),
            AddPairs16 => binary!(l, inst, W, iadd_pairwise),
            AddPairs32 => binary!(l, inst, D, iadd_pairwise),
            NarrowS16 => binary!(l, inst, W, snarrow),
            NarrowU16 => binary!(l, inst, W, unarrow),
            NarrowS32 => binary!(l, inst, D, snarrow),
            NarrowU32 => binary!(l, inst, D, unarrow),
            Align if imm > 16 => {
                // All of `b` is shifted out: what is left is a byte shift of `a`.
                let (a, zero) = (l.wide(inst.a)?, l.vector_constant(B, 0));
                let mask = std::array::from_fn(|i| (i as u8).saturating_add(imm - 16).min(16));
                l.permute(a, zero, mask)
            }
            Low64 | ZipLow8 | ZipLow16 | ZipLow32 | ZipLow64 | ZipHigh8 | ZipHigh16 | ZipHigh32 | ZipHigh64
            | Shuffle32 | ShuffleLow16 | ShuffleHigh16 | ShufflePair32 | ShufflePair64 | Align | Blend16 | Blend32
            | Blend64 | ShlBytes | ShrBytes => return l.permutation(inst, info),
            InsertLane32 => l.insert_lane(inst, imm)?,
            ShlI16 => l.shift_constant(inst, W, imm, |l, x, n| l.b.ins().ishl_imm_u(x, n))?,
            ShlI32 => l.shift_constant(inst, D, imm, |l, x, n| l.b.ins().ishl_imm_u(x, n))?,
            ShlI64 => l.shift_constant(inst, Q, imm, |l, x, n| l.b.ins().ishl_imm_u(x, n))?,
            ShrI16 => l.shift_constant(inst, W, imm, |l, x, n| l.b.ins().ushr_imm_u(x, n))?,
            ShrI32 => l.shift_constant(inst, D, imm, |l, x, n| l.b.ins().ushr_imm_u(x, n))?,
            ShrI64 => l.shift_constant(inst, Q, imm, |l, x, n| l.b.ins().ushr_imm_u(x, n))?,
            SarI16 => l.shift_constant(inst, W, imm.min(15), |l, x, n| l.b.ins().sshr_imm_u(x, n))?,
            SarI32 => l.shift_constant(inst, D, imm.min(31), |l, x, n| l.b.ins().sshr_imm_u(x, n))?,
            Shl16 => l.shift_all(inst, W, |l, x, n| l.b.ins().ishl(x, n))?,
            Shl32 => l.shift_all(inst, D, |l, x, n| l.b.ins().ishl(x, n))?,
            Shl64 => l.shift_all(inst, Q, |l, x, n| l.b.ins().ishl(x, n))?,
            Shr16 => l.shift_all(inst, W, |l, x, n| l.b.ins().ushr(x, n))?,
            Shr32 => l.shift_all(inst, D, |l, x, n| l.b.ins().ushr(x, n))?,
            Shr64 => l.shift_all(inst, Q, |l, x, n| l.b.ins().ushr(x, n))?,
            Sar16 => l.shift_signs(inst, W)?,
            Sar32 => l.shift_signs(inst, D)?,
            Sext8To16 => unary!(l, inst, B, swiden_low),
            Sext8To32 => unary!(l, inst, B, swiden_low swiden_low),
            Sext8To64 => unary!(l, inst, B, swiden_low swiden_low swiden_low),
            Sext16To32 => unary!(l, inst, W, swiden_low),
            Sext16To64 => unary!(l, inst, W, swiden_low swiden_low),
            Sext32To64 => unary!(l, inst, D, swiden_low),
            Zext8To16 => unary!(l, inst, B, uwiden_low),
            Zext8To32 => unary!(l, inst, B, uwiden_low uwiden_low),
            Zext8To64 => unary!(l, inst, B, uwiden_low uwiden_low uwiden_low),
            Zext16To32 => unary!(l, inst, W, uwiden_low),
            Zext16To64 => unary!(l, inst, W, uwiden_low uwiden_low),
            Zext32To64 => unary!(l, inst, D, uwiden_low),
            _ => return Ok(None),
        }))
    }

    fn compare_lanes(&mut self, inst: &Inst, ty: Clif, cc: IntCC) -> Result<Value, BackendError> {
        let (x, y) = (self.lanes(inst.a, ty)?, self.lanes(inst.b, ty)?);
        Ok(self.b.ins().icmp(cc, x, y))
    }

    /// The 32-bit products of the low and of the high 16-bit lanes.
    fn products(&mut self, inst: &Inst, signed: bool) -> Result<[Value; 2], BackendError> {
        let (x, y) = (self.lanes(inst.a, W)?, self.lanes(inst.b, W)?);
        let low = [x, y].map(|v| if signed { self.b.ins().swiden_low(v) } else { self.b.ins().uwiden_low(v) });
        let low = self.b.ins().imul(low[0], low[1]);
        let high = [x, y].map(|v| if signed { self.b.ins().swiden_high(v) } else { self.b.ins().uwiden_high(v) });
        let high = self.b.ins().imul(high[0], high[1]);
        Ok([low, high])
    }

    fn multiply_high_lanes(&mut self, inst: &Inst, signed: bool) -> Result<Value, BackendError> {
        let products = self.products(inst, signed)?;
        let [low, high] = products.map(|p| match signed {
            true => self.b.ins().sshr_imm_u(p, 16),
            false => self.b.ins().ushr_imm_u(p, 16),
        });
        // The halves fit: nothing is saturated.
        Ok(if signed { self.b.ins().snarrow(low, high) } else { self.b.ins().unarrow(low, high) })
    }

    fn multiply_even(&mut self, inst: &Inst, signed: bool) -> Result<Value, BackendError> {
        const EVEN: [u8; 16] = [0, 1, 2, 3, 8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11];
        let (a, b) = (self.wide(inst.a)?, self.wide(inst.b)?);
        let [x, y] = [a, b].map(|v| {
            let even = self.permute(v, v, EVEN);
            let even = self.cast(even, D);
            if signed { self.b.ins().swiden_low(even) } else { self.b.ins().uwiden_low(even) }
        });
        Ok(self.b.ins().imul(x, y))
    }

    fn blend_signs(&mut self, inst: &Inst, ty: Clif) -> Result<Value, BackendError> {
        let (a, b, c) = (self.lanes(inst.a, ty)?, self.lanes(inst.b, ty)?, self.lanes(inst.c, ty)?);
        Ok(self.b.ins().blendv(c, b, a))
    }

    /// Sums of absolute differences: one of two saturating differences is the absolute one, the other 0.
    fn differences(&mut self, inst: &Inst) -> Result<Value, BackendError> {
        let (a, b) = (self.lanes(inst.a, B)?, self.lanes(inst.b, B)?);
        let (x, y) = (self.b.ins().usub_sat(a, b), self.b.ins().usub_sat(b, a));
        let mut sums = self.b.ins().bor(x, y);
        for _ in 0..2 {
            let (low, high) = (self.b.ins().uwiden_low(sums), self.b.ins().uwiden_high(sums));
            sums = self.b.ins().iadd_pairwise(low, high);
        }
        let sums = self.cast(sums, Q);
        let mask = self.vector_constant(Q, 0xffff_ffff_0000_0000_ffff_ffff);
        let (low, high) = (self.b.ins().band(sums, mask), self.b.ins().ushr_imm_u(sums, 32));
        Ok(self.b.ins().iadd(low, high))
    }

    /// INSERTPS: `imm` bits 6-7 select the lane of `b`, 4-5 that of the result, 0-3 lanes to clear.
    fn insert_lane(&mut self, inst: &Inst, imm: u8) -> Result<Value, BackendError> {
        let (a, b) = (self.wide(inst.a)?, self.wide(inst.b)?);
        let (from, to) = (16 + (imm >> 6) * 4, usize::from(imm >> 4 & 3) * 4);
        let mask = std::array::from_fn(|i| if i / 4 == to / 4 { from + (i % 4) as u8 } else { i as u8 });
        let merged = self.permute(a, b, mask);
        if imm & 15 == 0 {
            return Ok(merged);
        }
        let zero = self.vector_constant(B, 0);
        let cleared = std::array::from_fn(|i| if imm >> (i / 4) & 1 != 0 { 16 } else { 0 } + i as u8);
        Ok(self.permute(merged, zero, cleared))
    }

    /// A shift by a constant; one by the lanes' width or more gives 0.
    fn shift_constant(
        &mut self,
        inst: &Inst,
        ty: Clif,
        imm: u8,
        shift: impl FnOnce(&mut Self, Value, i64) -> Value,
    ) -> Result<Value, BackendError> {
        if u32::from(imm) >= ty.lane_bits() {
            return Ok(self.vector_constant(ty, 0));
        }
        let x = self.lanes(inst.a, ty)?;
        Ok(shift(self, x, imm.into()))
    }

    /// A logical shift by the number in the low 64 bits of `b`, which the host's shift takes modulo the width.
    fn shift_all(
        &mut self,
        inst: &Inst,
        ty: Clif,
        shift: impl FnOnce(&mut Self, Value, Value) -> Value,
    ) -> Result<Value, BackendError> {
        let (x, count) = (self.lanes(inst.a, ty)?, self.shift_count(inst)?);
        let shifted = shift(self, x, count);
        let within = self.b.ins().icmp_imm_u(IntCC::UnsignedLessThan, count, i64::from(ty.lane_bits()));
        let mask = self.b.ins().bmask(types::I64, within);
        let mask = self.b.ins().splat(Q, mask);
        let mask = self.cast(mask, ty);
        Ok(self.b.ins().band(shifted, mask))
    }

    /// An arithmetic right shift by the number in the low 64 bits of `b`.
    fn shift_signs(&mut self, inst: &Inst, ty: Clif) -> Result<Value, BackendError> {
        let (x, count) = (self.lanes(inst.a, ty)?, self.shift_count(inst)?);
        let most = self.const64(u64::from(ty.lane_bits() - 1));
        let count = self.b.ins().umin(count, most);
        Ok(self.b.ins().sshr(x, count))
    }

    fn shift_count(&mut self, inst: &Inst) -> Result<Value, BackendError> {
        let b = self.wide(inst.b)?;
        Ok(self.b.ins().extractlane(b, 0))
    }

    /// The operation by the runtime's function: operands and result lie in the header.
    pub(super) fn vec_call(&mut self, inst: &Inst, info: VecInfo) -> Result<Value, BackendError> {
        self.vec_arguments(inst, info)?;
        let row = info.kind.row();
        let function = self.load_header(types::I64, offset_of!(EnvHeader, vector));
        let (number, zero) = (self.const64(info.encode()), self.const64(0));
        self.call_rust(function, vec![self.env, number, zero, zero, zero], row.op != Op::Vec);
        let field = offset_of!(EnvHeader, vector_args);
        if row.ty == Type::V128 {
            return Ok(self.load_wide_header(field));
        }
        let value = self.load_header(types::I64, field);
        Ok(self.convert(value, Type::I64, row.ty))
    }

    /// Puts an operation's operands where the runtime's function takes them from.
    pub(super) fn vec_arguments(&mut self, inst: &Inst, info: VecInfo) -> Result<(), BackendError> {
        let row = info.kind.row();
        for (n, (v, operand)) in [inst.a, inst.b, inst.c].into_iter().zip(row.shape.operands()).enumerate() {
            let field = offset_of!(EnvHeader, vector_args) + 16 * n;
            match operand {
                Some(true) => {
                    let value = self.wide(v)?;
                    self.store_wide_header(value, field);
                }
                Some(false) => {
                    let value = self.int(v, row.int)?;
                    let (low, high) = (self.convert(value, row.int, Type::I64), self.const64(0));
                    self.store_header(low, field);
                    self.store_header(high, field + 8);
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Stores a 128-bit value in the header, low half first.
    pub(super) fn store_wide_header(&mut self, value: Value, field: usize) {
        if self.host.has_vectors() {
            let offset = self.header_offset(field);
            self.b.ins().store(self.flags.env_wide, value, self.env, offset);
        } else {
            let (low, high) = self.b.ins().isplit(value);
            self.store_header(low, field);
            self.store_header(high, field + 8);
        }
    }

    fn load_wide_header(&mut self, field: usize) -> Value {
        if self.host.has_vectors() {
            let offset = self.header_offset(field);
            return self.b.ins().load(Q, self.flags.env_wide, self.env, offset);
        }
        let (low, high) = (self.load_header(types::I64, field), self.load_header(types::I64, field + 8));
        self.b.ins().iconcat(low, high)
    }
}

/// The vector of lanes of an integer type.
fn lanes_of(ty: Type) -> Clif {
    match ty {
        Type::I8 => B,
        Type::I16 => W,
        Type::I32 => D,
        Type::I64 | Type::V128 => Q,
    }
}
