//! The table of vector operations: what [`crate::Op::Vec`], [`crate::Op::Float`] and [`crate::Op::FloatTest`] do.
//!
//! A row is one operation on 128-bit vectors, with an immediate of 8 bits where it has one. Rows without floating point
//! have their evaluation here, shared by the interpreter and every test. Floating point is the guest's
//! ([`crate::Guest::float`]): it depends on, and changes, the guest's floating-point environment ([`crate::fp`]).

use crate::op::{Op, Type};
use crate::packed::*;

/// Operands and result of a vector operation: `V` is a vector, `I` an integer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VecShape {
    /// No operand; a vector.
    ToV,
    /// Vector `a`; a vector.
    VToV,
    /// Vectors `a`, `b`; a vector.
    VVToV,
    /// Vectors `a`, `b`, `c`; a vector.
    VVVToV,
    /// Integer `a`; a vector.
    IToV,
    /// Vector `a` and integer `b`; a vector.
    VIToV,
    /// Vector `a`; an integer.
    VToI,
    /// Vectors `a`, `b`; an integer.
    VVToI,
}

impl VecShape {
    /// For each of `a`, `b`, `c`: whether it is a vector; `None` if it is absent.
    pub const fn operands(self) -> [Option<bool>; 3] {
        match self {
            VecShape::ToV => [None, None, None],
            VecShape::VToV | VecShape::VToI => [Some(true), None, None],
            VecShape::VVToV | VecShape::VVToI => [Some(true), Some(true), None],
            VecShape::VVVToV => [Some(true), Some(true), Some(true)],
            VecShape::IToV => [Some(false), None, None],
            VecShape::VIToV => [Some(true), Some(false), None],
        }
    }
}

/// Evaluates an operation without floating point: operands `a`, `b`, `c` (integers zero-extended) and the immediate.
pub type Eval = fn(u128, u128, u128, u8) -> u128;

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct VecRow {
    /// Name in the text form.
    pub name: &'static str,
    /// The op that carries it.
    pub op: Op,
    /// Operands.
    pub shape: VecShape,
    /// Type of the result; for integer operands the type they are taken in.
    pub ty: Type,
    /// Type that an integer operand is taken in.
    pub int: Type,
    /// Number of values that the immediate may have, from 0 on; 1 if there is none.
    pub immediates: u16,
    /// The result, for rows of [`Op::Vec`].
    pub eval: Option<Eval>,
}

/// Predicate of `Test` rows beside the eight of CMPPS (SDM vol. 2A, CMPPS: EQ, LT, LE, UNORD, NEQ, NLT, NLE, ORD).
pub const TEST_EQUAL_OR_UNORDERED: u8 = 8;
/// As [`TEST_EQUAL_OR_UNORDERED`].
pub const TEST_ORDERED_AND_UNEQUAL: u8 = 9;

macro_rules! vec_ops {
    (
        $(pure $kind:ident $name:literal $shape:ident $ty:ident $imms:literal = $eval:expr;)*
        $(float $fop:ident $fkind:ident $fname:literal $fshape:ident $fty:ident $fimms:literal;)*
    ) => {
        /// A vector operation. Names say what is done and to which lanes: `Add16` adds lanes of 16 bits, `S` and `U` are
        /// signed and unsigned; rows of floating point have the formats in their names, with `P` for all lanes and without it for
        /// lane 0, the other lanes being those of `a`. Their semantics are those of SSE's instructions: `MinF64` is MINSD.
        /// `MulAdd` is `a * b + c`, rounded once.
        /// `Order` (signalling for every NaN) and `OrderQuiet` (for signalling ones) raise flags as COMISD and UCOMISD do
        /// and tell whether the operands are unordered. `Compare` takes the predicates of CMPPS, `Test` two more:
        /// [`TEST_EQUAL_OR_UNORDERED`] and [`TEST_ORDERED_AND_UNEQUAL`].
        #[expect(missing_docs, reason = "the table's rows say what each is")]
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u16)]
        pub enum VecKind { $($kind,)* $($fkind,)* }

        impl VecKind {
            /// Every operation, in table order.
            pub const ALL: &'static [VecKind] = &[$(VecKind::$kind,)* $(VecKind::$fkind,)*];

            const ROWS: &'static [VecRow] = &[
                $(vec_row($name, Op::Vec, VecShape::$shape, Type::$ty, $imms, Some($eval)),)*
                $(vec_row($fname, Op::$fop, VecShape::$fshape, Type::$fty, $fimms, None),)*
            ];
        }
    };
}

const fn vec_row(name: &'static str, op: Op, shape: VecShape, ty: Type, immediates: u16, eval: Option<Eval>) -> VecRow {
    let from_int = matches!(shape, VecShape::IToV | VecShape::VIToV);
    // A row with an integer operand names that operand's type: its result is a vector.
    let result = if from_int { Type::V128 } else { ty };
    VecRow { name, op, shape, ty: result, int: ty, immediates, eval }
}

vec_ops! {
    pure Zero "zero" ToV V128 1 = |_, _, _, _| 0;
    pure Ones "ones" ToV V128 1 = |_, _, _, _| u128::MAX;
    pure From32 "from.i32" IToV I32 1 = |a, _, _, _| a;
    pure From64 "from.i64" IToV I64 1 = |a, _, _, _| a;
    pure Low64 "low.i64" VToV V128 1 = |a, _, _, _| (a as u64).into();
    pure Extract8 "extract.i8x16" VToI I8 16 = |a, _, _, i| lane::<u8>(a, usize::from(i & 15)).into();
    pure Extract16 "extract.i16x8" VToI I16 8 = |a, _, _, i| lane::<u16>(a, usize::from(i & 7)).into();
    pure Extract32 "extract.i32x4" VToI I32 4 = |a, _, _, i| lane::<u32>(a, usize::from(i & 3)).into();
    pure Extract64 "extract.i64x2" VToI I64 2 = |a, _, _, i| lane::<u64>(a, usize::from(i & 1)).into();
    pure Insert8 "insert.i8x16" VIToV I8 16 = |a, b, _, i| with_lane(a, usize::from(i & 15), b as u8);
    pure Insert16 "insert.i16x8" VIToV I16 8 = |a, b, _, i| with_lane(a, usize::from(i & 7), b as u16);
    pure Insert32 "insert.i32x4" VIToV I32 4 = |a, b, _, i| with_lane(a, usize::from(i & 3), b as u32);
    pure Insert64 "insert.i64x2" VIToV I64 2 = |a, b, _, i| with_lane(a, usize::from(i & 1), b as u64);
    pure Signs8 "signs.i8x16" VToI I32 1 = |a, _, _, _| top_bits::<u8>(16, a);
    pure Signs32 "signs.i32x4" VToI I32 1 = |a, _, _, _| top_bits::<u32>(16, a);
    pure Signs64 "signs.i64x2" VToI I32 1 = |a, _, _, _| top_bits::<u64>(16, a);
    pure Any "any" VToI I8 1 = |a, _, _, _| u128::from(a != 0);
    pure And "and" VVToV V128 1 = |a, b, _, _| a & b;
    pure AndNot "andnot" VVToV V128 1 = |a, b, _, _| !a & b;
    pure Or "or" VVToV V128 1 = |a, b, _, _| a | b;
    pure Xor "xor" VVToV V128 1 = |a, b, _, _| a ^ b;
    pure Add8 "add.i8x16" VVToV V128 1 = |a, b, _, _| map2(a, b, u8::wrapping_add);
    pure Add16 "add.i16x8" VVToV V128 1 = |a, b, _, _| map2(a, b, u16::wrapping_add);
    pure Add32 "add.i32x4" VVToV V128 1 = |a, b, _, _| map2(a, b, u32::wrapping_add);
    pure Add64 "add.i64x2" VVToV V128 1 = |a, b, _, _| map2(a, b, u64::wrapping_add);
    pure Sub8 "sub.i8x16" VVToV V128 1 = |a, b, _, _| map2(a, b, u8::wrapping_sub);
    pure Sub16 "sub.i16x8" VVToV V128 1 = |a, b, _, _| map2(a, b, u16::wrapping_sub);
    pure Sub32 "sub.i32x4" VVToV V128 1 = |a, b, _, _| map2(a, b, u32::wrapping_sub);
    pure Sub64 "sub.i64x2" VVToV V128 1 = |a, b, _, _| map2(a, b, u64::wrapping_sub);
    pure AddSatS8 "add_sat_s.i8x16" VVToV V128 1 = |a, b, _, _| map2(a, b, i8::saturating_add);
    pure AddSatS16 "add_sat_s.i16x8" VVToV V128 1 = |a, b, _, _| map2(a, b, i16::saturating_add);
    pure AddSatU8 "add_sat_u.i8x16" VVToV V128 1 = |a, b, _, _| map2(a, b, u8::saturating_add);
    pure AddSatU16 "add_sat_u.i16x8" VVToV V128 1 = |a, b, _, _| map2(a, b, u16::saturating_add);
    pure SubSatS8 "sub_sat_s.i8x16" VVToV V128 1 = |a, b, _, _| map2(a, b, i8::saturating_sub);
    pure SubSatS16 "sub_sat_s.i16x8" VVToV V128 1 = |a, b, _, _| map2(a, b, i16::saturating_sub);
    pure SubSatU8 "sub_sat_u.i8x16" VVToV V128 1 = |a, b, _, _| map2(a, b, u8::saturating_sub);
    pure SubSatU16 "sub_sat_u.i16x8" VVToV V128 1 = |a, b, _, _| map2(a, b, u16::saturating_sub);
    pure Mul16 "mul.i16x8" VVToV V128 1 = |a, b, _, _| multiply::<i16>(a, b, 0);
    pure Mul32 "mul.i32x4" VVToV V128 1 = |a, b, _, _| multiply::<i32>(a, b, 0);
    pure MulHighS16 "mul_high_s.i16x8" VVToV V128 1 = |a, b, _, _| multiply::<i16>(a, b, 16);
    pure MulHighU16 "mul_high_u.i16x8" VVToV V128 1 = |a, b, _, _| multiply::<u16>(a, b, 16);
    pure MulRound16 "mul_round.i16x8" VVToV V128 1 = |a, b, _, _| multiply_round(a, b);
    pure MulEvenS32 "mul_even_s.i32x4" VVToV V128 1 = |a, b, _, _| multiply_even::<i32>(a, b);
    pure MulEvenU32 "mul_even_u.i32x4" VVToV V128 1 = |a, b, _, _| multiply_even::<u32>(a, b);
    pure MulAdd16 "mul_add.i16x8" VVToV V128 1 = |a, b, _, _| multiply_add(a, b);
    pure MulAdd8 "mul_add_us.i8x16" VVToV V128 1 = |a, b, _, _| multiply_add_bytes(a, b);
    pure Differences8 "differences.i8x16" VVToV V128 1 = |a, b, _, _| sum_differences(a, b);
    pure Average8 "average.i8x16" VVToV V128 1 = |a, b, _, _| average::<u8>(a, b);
    pure Average16 "average.i16x8" VVToV V128 1 = |a, b, _, _| average::<u16>(a, b);
    pure MinS8 "min_s.i8x16" VVToV V128 1 = |a, b, _, _| map2(a, b, i8::min);
    pure MinS16 "min_s.i16x8" VVToV V128 1 = |a, b, _, _| map2(a, b, i16::min);
    pure MinS32 "min_s.i32x4" VVToV V128 1 = |a, b, _, _| map2(a, b, i32::min);
    pure MinU8 "min_u.i8x16" VVToV V128 1 = |a, b, _, _| map2(a, b, u8::min);
    pure MinU16 "min_u.i16x8" VVToV V128 1 = |a, b, _, _| map2(a, b, u16::min);
    pure MinU32 "min_u.i32x4" VVToV V128 1 = |a, b, _, _| map2(a, b, u32::min);
    pure MaxS8 "max_s.i8x16" VVToV V128 1 = |a, b, _, _| map2(a, b, i8::max);
    pure MaxS16 "max_s.i16x8" VVToV V128 1 = |a, b, _, _| map2(a, b, i16::max);
    pure MaxS32 "max_s.i32x4" VVToV V128 1 = |a, b, _, _| map2(a, b, i32::max);
    pure MaxU8 "max_u.i8x16" VVToV V128 1 = |a, b, _, _| map2(a, b, u8::max);
    pure MaxU16 "max_u.i16x8" VVToV V128 1 = |a, b, _, _| map2(a, b, u16::max);
    pure MaxU32 "max_u.i32x4" VVToV V128 1 = |a, b, _, _| map2(a, b, u32::max);
    pure Eq8 "eq.i8x16" VVToV V128 1 = |a, b, _, _| compare(a, b, i8::eq);
    pure Eq16 "eq.i16x8" VVToV V128 1 = |a, b, _, _| compare(a, b, i16::eq);
    pure Eq32 "eq.i32x4" VVToV V128 1 = |a, b, _, _| compare(a, b, i32::eq);
    pure Eq64 "eq.i64x2" VVToV V128 1 = |a, b, _, _| compare(a, b, i64::eq);
    pure Sgt8 "sgt.i8x16" VVToV V128 1 = |a, b, _, _| compare(a, b, i8::gt);
    pure Sgt16 "sgt.i16x8" VVToV V128 1 = |a, b, _, _| compare(a, b, i16::gt);
    pure Sgt32 "sgt.i32x4" VVToV V128 1 = |a, b, _, _| compare(a, b, i32::gt);
    pure Sgt64 "sgt.i64x2" VVToV V128 1 = |a, b, _, _| compare(a, b, i64::gt);
    pure Abs8 "abs.i8x16" VToV V128 1 = |a, _, _, _| map(a, i8::wrapping_abs);
    pure Abs16 "abs.i16x8" VToV V128 1 = |a, _, _, _| map(a, i16::wrapping_abs);
    pure Abs32 "abs.i32x4" VToV V128 1 = |a, _, _, _| map(a, i32::wrapping_abs);
    pure AddPairs16 "add_pairs.i16x8" VVToV V128 1 = |a, b, _, _| horizontal(16, a, b, i16::wrapping_add);
    pure AddPairs32 "add_pairs.i32x4" VVToV V128 1 = |a, b, _, _| horizontal(16, a, b, i32::wrapping_add);
    pure NarrowS16 "narrow_s.i16x8" VVToV V128 1 = |a, b, _, _| pack(16, a, b, saturate_i8);
    pure NarrowU16 "narrow_u.i16x8" VVToV V128 1 = |a, b, _, _| pack(16, a, b, saturate_u8);
    pure NarrowS32 "narrow_s.i32x4" VVToV V128 1 = |a, b, _, _| pack(16, a, b, saturate_i16);
    pure NarrowU32 "narrow_u.i32x4" VVToV V128 1 = |a, b, _, _| pack(16, a, b, saturate_u16);
    pure ZipLow8 "zip_low.i8x16" VVToV V128 1 = |a, b, _, _| unpack::<u8>(16, false, a, b);
    pure ZipLow16 "zip_low.i16x8" VVToV V128 1 = |a, b, _, _| unpack::<u16>(16, false, a, b);
    pure ZipLow32 "zip_low.i32x4" VVToV V128 1 = |a, b, _, _| unpack::<u32>(16, false, a, b);
    pure ZipLow64 "zip_low.i64x2" VVToV V128 1 = |a, b, _, _| unpack::<u64>(16, false, a, b);
    pure ZipHigh8 "zip_high.i8x16" VVToV V128 1 = |a, b, _, _| unpack::<u8>(16, true, a, b);
    pure ZipHigh16 "zip_high.i16x8" VVToV V128 1 = |a, b, _, _| unpack::<u16>(16, true, a, b);
    pure ZipHigh32 "zip_high.i32x4" VVToV V128 1 = |a, b, _, _| unpack::<u32>(16, true, a, b);
    pure ZipHigh64 "zip_high.i64x2" VVToV V128 1 = |a, b, _, _| unpack::<u64>(16, true, a, b);
    pure ShuffleBytes "shuffle.i8x16" VVToV V128 1 = |a, b, _, _| shuffle_bytes(16, a, b);
    pure Shuffle32 "shuffle.i32x4" VToV V128 256 = |a, _, _, i| shuffle4::<u32>(a, i);
    pure ShuffleLow16 "shuffle_low.i16x8" VToV V128 256 = |a, _, _, i| a >> 64 << 64 | shuffle4::<u16>(a, i);
    pure ShuffleHigh16 "shuffle_high.i16x8" VToV V128 256 =
        |a, _, _, i| u128::from(a as u64) | shuffle4::<u16>(a >> 64, i) << 64;
    pure ShufflePair32 "shuffle_pair.i32x4" VVToV V128 256 = |a, b, _, i| shuffle_ps(a, b, i);
    pure ShufflePair64 "shuffle_pair.i64x2" VVToV V128 256 = |a, b, _, i| shuffle_pd(a, b, i);
    pure Align "align.i8x16" VVToV V128 256 = |a, b, _, i| align(16, a, b, i);
    pure Blend16 "blend.i16x8" VVToV V128 256 = |a, b, _, i| blend::<u16>(a, b, i);
    pure Blend32 "blend.i32x4" VVToV V128 256 = |a, b, _, i| blend::<u32>(a, b, i);
    pure Blend64 "blend.i64x2" VVToV V128 256 = |a, b, _, i| blend::<u64>(a, b, i);
    pure BlendSigns8 "blend_signs.i8x16" VVVToV V128 1 = |a, b, c, _| blend_variable::<u8>(a, b, c);
    pure BlendSigns32 "blend_signs.i32x4" VVVToV V128 1 = |a, b, c, _| blend_variable::<u32>(a, b, c);
    pure BlendSigns64 "blend_signs.i64x2" VVVToV V128 1 = |a, b, c, _| blend_variable::<u64>(a, b, c);
    pure InsertLane32 "insert_lane.i32x4" VVToV V128 256 = |a, b, _, i| insert_ps(a, b, i);
    pure ShlBytes "shl_bytes" VToV V128 256 = |a, _, _, i| byte_shift(a, i, u128::checked_shl);
    pure ShrBytes "shr_bytes" VToV V128 256 = |a, _, _, i| byte_shift(a, i, u128::checked_shr);
    pure ShlI16 "shl.i.i16x8" VToV V128 256 = |a, _, _, i| shift(a, i.into(), |x: u16, c| x << c);
    pure ShlI32 "shl.i.i32x4" VToV V128 256 = |a, _, _, i| shift(a, i.into(), |x: u32, c| x << c);
    pure ShlI64 "shl.i.i64x2" VToV V128 256 = |a, _, _, i| shift(a, i.into(), |x: u64, c| x << c);
    pure ShrI16 "shr.i.i16x8" VToV V128 256 = |a, _, _, i| shift(a, i.into(), |x: u16, c| x >> c);
    pure ShrI32 "shr.i.i32x4" VToV V128 256 = |a, _, _, i| shift(a, i.into(), |x: u32, c| x >> c);
    pure ShrI64 "shr.i.i64x2" VToV V128 256 = |a, _, _, i| shift(a, i.into(), |x: u64, c| x >> c);
    pure SarI16 "sar.i.i16x8" VToV V128 256 = |a, _, _, i| shift_sign(a, i.into(), |x: i16, c| x >> c);
    pure SarI32 "sar.i.i32x4" VToV V128 256 = |a, _, _, i| shift_sign(a, i.into(), |x: i32, c| x >> c);
    pure Shl16 "shl.i16x8" VVToV V128 1 = |a, b, _, _| shift(a, b as u64, |x: u16, c| x << c);
    pure Shl32 "shl.i32x4" VVToV V128 1 = |a, b, _, _| shift(a, b as u64, |x: u32, c| x << c);
    pure Shl64 "shl.i64x2" VVToV V128 1 = |a, b, _, _| shift(a, b as u64, |x: u64, c| x << c);
    pure Shr16 "shr.i16x8" VVToV V128 1 = |a, b, _, _| shift(a, b as u64, |x: u16, c| x >> c);
    pure Shr32 "shr.i32x4" VVToV V128 1 = |a, b, _, _| shift(a, b as u64, |x: u32, c| x >> c);
    pure Shr64 "shr.i64x2" VVToV V128 1 = |a, b, _, _| shift(a, b as u64, |x: u64, c| x >> c);
    pure Sar16 "sar.i16x8" VVToV V128 1 = |a, b, _, _| shift_sign(a, b as u64, |x: i16, c| x >> c);
    pure Sar32 "sar.i32x4" VVToV V128 1 = |a, b, _, _| shift_sign(a, b as u64, |x: i32, c| x >> c);
    pure Sext8To16 "sext.i8x8.i16x8" VToV V128 1 = |a, _, _, _| extend(a, |x: i8| i16::from(x));
    pure Sext8To32 "sext.i8x4.i32x4" VToV V128 1 = |a, _, _, _| extend(a, |x: i8| i32::from(x));
    pure Sext8To64 "sext.i8x2.i64x2" VToV V128 1 = |a, _, _, _| extend(a, |x: i8| i64::from(x));
    pure Sext16To32 "sext.i16x4.i32x4" VToV V128 1 = |a, _, _, _| extend(a, |x: i16| i32::from(x));
    pure Sext16To64 "sext.i16x2.i64x2" VToV V128 1 = |a, _, _, _| extend(a, |x: i16| i64::from(x));
    pure Sext32To64 "sext.i32x2.i64x2" VToV V128 1 = |a, _, _, _| extend(a, |x: i32| i64::from(x));
    pure Zext8To16 "zext.i8x8.i16x8" VToV V128 1 = |a, _, _, _| extend(a, |x: u8| u16::from(x));
    pure Zext8To32 "zext.i8x4.i32x4" VToV V128 1 = |a, _, _, _| extend(a, |x: u8| u32::from(x));
    pure Zext8To64 "zext.i8x2.i64x2" VToV V128 1 = |a, _, _, _| extend(a, |x: u8| u64::from(x));
    pure Zext16To32 "zext.i16x4.i32x4" VToV V128 1 = |a, _, _, _| extend(a, |x: u16| u32::from(x));
    pure Zext16To64 "zext.i16x2.i64x2" VToV V128 1 = |a, _, _, _| extend(a, |x: u16| u64::from(x));
    pure Zext32To64 "zext.i32x2.i64x2" VToV V128 1 = |a, _, _, _| extend(a, |x: u32| u64::from(x));
    float Float AddF32 "add.f32" VVToV V128 1;
    float Float AddF64 "add.f64" VVToV V128 1;
    float Float AddF32P "add.f32x4" VVToV V128 1;
    float Float AddF64P "add.f64x2" VVToV V128 1;
    float Float SubF32 "sub.f32" VVToV V128 1;
    float Float SubF64 "sub.f64" VVToV V128 1;
    float Float SubF32P "sub.f32x4" VVToV V128 1;
    float Float SubF64P "sub.f64x2" VVToV V128 1;
    float Float MulF32 "mul.f32" VVToV V128 1;
    float Float MulF64 "mul.f64" VVToV V128 1;
    float Float MulF32P "mul.f32x4" VVToV V128 1;
    float Float MulF64P "mul.f64x2" VVToV V128 1;
    float Float DivF32 "div.f32" VVToV V128 1;
    float Float DivF64 "div.f64" VVToV V128 1;
    float Float DivF32P "div.f32x4" VVToV V128 1;
    float Float DivF64P "div.f64x2" VVToV V128 1;
    float Float MulAddF32 "mul_add.f32" VVVToV V128 1;
    float Float MulAddF64 "mul_add.f64" VVVToV V128 1;
    float Float MinF32 "min.f32" VVToV V128 1;
    float Float MinF64 "min.f64" VVToV V128 1;
    float Float MinF32P "min.f32x4" VVToV V128 1;
    float Float MinF64P "min.f64x2" VVToV V128 1;
    float Float MaxF32 "max.f32" VVToV V128 1;
    float Float MaxF64 "max.f64" VVToV V128 1;
    float Float MaxF32P "max.f32x4" VVToV V128 1;
    float Float MaxF64P "max.f64x2" VVToV V128 1;
    float Float SqrtF32 "sqrt.f32" VVToV V128 1;
    float Float SqrtF64 "sqrt.f64" VVToV V128 1;
    float Float SqrtF32P "sqrt.f32x4" VToV V128 1;
    float Float SqrtF64P "sqrt.f64x2" VToV V128 1;
    float Float CompareF32 "compare.f32" VVToV V128 8;
    float Float CompareF64 "compare.f64" VVToV V128 8;
    float Float CompareF32P "compare.f32x4" VVToV V128 8;
    float Float CompareF64P "compare.f64x2" VVToV V128 8;
    float Float RoundF32 "round.f32" VVToV V128 16;
    float Float RoundF64 "round.f64" VVToV V128 16;
    float Float RoundF32P "round.f32x4" VToV V128 16;
    float Float RoundF64P "round.f64x2" VToV V128 16;
    float Float AddPairsF32P "add_pairs.f32x4" VVToV V128 1;
    float Float AddPairsF64P "add_pairs.f64x2" VVToV V128 1;
    float Float SubPairsF32P "sub_pairs.f32x4" VVToV V128 1;
    float Float SubPairsF64P "sub_pairs.f64x2" VVToV V128 1;
    float Float SubAddF32P "sub_add.f32x4" VVToV V128 1;
    float Float SubAddF64P "sub_add.f64x2" VVToV V128 1;
    float Float F32ToF64 "convert.f32.f64" VVToV V128 1;
    float Float F64ToF32 "convert.f64.f32" VVToV V128 1;
    float Float F32PToF64P "convert.f32x2.f64x2" VToV V128 1;
    float Float F64PToF32P "convert.f64x2.f32x2" VToV V128 1;
    float Float I32PToF32P "convert.i32x4.f32x4" VToV V128 1;
    float Float I32PToF64P "convert.i32x2.f64x2" VToV V128 1;
    float Float F32PToI32P "convert.f32x4.i32x4" VToV V128 1;
    float Float F64PToI32P "convert.f64x2.i32x2" VToV V128 1;
    float Float TruncF32PToI32P "trunc.f32x4.i32x4" VToV V128 1;
    float Float TruncF64PToI32P "trunc.f64x2.i32x2" VToV V128 1;
    float Float I32ToF32 "convert.i32.f32" VIToV I32 1;
    float Float I32ToF64 "convert.i32.f64" VIToV I32 1;
    float Float I64ToF32 "convert.i64.f32" VIToV I64 1;
    float Float I64ToF64 "convert.i64.f64" VIToV I64 1;
    float Float F32ToI32 "convert.f32.i32" VToI I32 1;
    float Float F32ToI64 "convert.f32.i64" VToI I64 1;
    float Float F64ToI32 "convert.f64.i32" VToI I32 1;
    float Float F64ToI64 "convert.f64.i64" VToI I64 1;
    float Float TruncF32ToI32 "trunc.f32.i32" VToI I32 1;
    float Float TruncF32ToI64 "trunc.f32.i64" VToI I64 1;
    float Float TruncF64ToI32 "trunc.f64.i32" VToI I32 1;
    float Float TruncF64ToI64 "trunc.f64.i64" VToI I64 1;
    float Float OrderF32 "order.f32" VVToI I8 1;
    float Float OrderF64 "order.f64" VVToI I8 1;
    float Float OrderQuietF32 "order_quiet.f32" VVToI I8 1;
    float Float OrderQuietF64 "order_quiet.f64" VVToI I8 1;
    float FloatTest TestF32 "test.f32" VVToI I8 10;
    float FloatTest TestF64 "test.f64" VVToI I8 10;
}

impl VecKind {
    /// Its row of the table.
    #[inline]
    pub const fn row(self) -> &'static VecRow {
        &VecKind::ROWS[self as usize]
    }

    /// The operation numbered `n`.
    #[inline]
    pub fn from_code(n: u16) -> Option<VecKind> {
        VecKind::ALL.get(usize::from(n)).copied()
    }
}

/// What an op of the vector table carries in its `imm`: operation and immediate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VecInfo {
    /// The operation.
    pub kind: VecKind,
    /// Its immediate, below [`VecRow::immediates`].
    pub imm: u8,
}

impl VecInfo {
    /// As held in an instruction.
    pub const fn encode(self) -> u64 {
        self.kind as u64 | (self.imm as u64) << 16
    }

    /// From an instruction; `None` if there is no such operation.
    #[inline]
    pub fn decode(imm: u64) -> Option<VecInfo> {
        Some(VecInfo { kind: VecKind::from_code(imm as u16)?, imm: (imm >> 16) as u8 })
    }
}
