//! The table of MMX and SSE to SSE4.2 operations, and their execution.

use super::mxcsr::{SimdException, settle};
use super::sse::{comis, dot_product, reciprocal};
use super::string;
use crate::common::fp::element::{D, S, from_integers, packed, scalar, to_integers};
use crate::common::fp::{self, Env};
use iced_x86::Code;
use mimus_ir::packed::*;
use mimus_ir::vec::VecShape;
use mimus_ir::{FpEnv, VecInfo, VecKind};

/// Where an operation's result goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dest {
    /// The XMM register that is the first operand.
    Xmm,
    /// The MMX register that is the first operand; its exponent bits become all ones.
    Mm,
    /// A general register; all 64 bits are given (a 32-bit result is zero-extended).
    Gpr,
    /// A general register as for [`Dest::Gpr`], or so many bytes of memory.
    GprOrMem(u8),
    /// So many bytes of memory.
    Mem(u8),
    /// EFLAGS: ZF, PF and CF as given; OF, SF and AF become 0.
    Eflags,
    /// ECX (zero-extended into RCX), with EFLAGS by [`string_eflags`].
    Ecx,
    /// XMM0, with EFLAGS by [`string_eflags`].
    Xmm0,
}

/// The register file of the source operand (the last one that is no immediate) when it is no memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// There is no register form, or the only operand is the destination.
    None,
    /// An XMM register.
    Xmm,
    /// An MMX register.
    Mm,
    /// A general register.
    Gpr,
}

/// What the third source of an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aux {
    /// There is none.
    None,
    /// XMM0.
    Xmm0,
    /// RAX in the low and RDX in the high 64 bits.
    RaxRdx,
}

enum Semantics {
    /// Alike for MMX and XMM: register width in bytes, destination, source, immediate.
    Packed(fn(usize, u128, u128, u8) -> u128),
    Int(fn(u128, u128, u8) -> u128),
    /// Destination, source, third source, immediate.
    Aux(fn(u128, u128, u128, u8) -> u128),
    Float(fn(&mut Env, u128, u128, u8) -> u128),
    /// As the IR's vector table has it.
    Ir(VecKind),
}

/// One operation.
pub struct VecRow {
    /// Its name, which is that of its first code.
    pub op: VecOp,
    /// The decoder's codes that it implements.
    pub codes: &'static [Code],
    /// Where the result goes.
    pub dest: Dest,
    /// The register form's source.
    pub source: Source,
    /// Bytes read when the source is a memory operand; 0 where there is no such form that this row implements.
    pub memory: u8,
    semantics: Semantics,
}

impl VecRow {
    /// Whether a memory source must be aligned to 16 bytes (#GP otherwise; SDM vol. 2, 2.4, "Exceptions Type 4").
    pub fn needs_alignment(&self) -> bool {
        self.memory == 16 && !self.is_string()
    }

    /// Whether the operation uses MXCSR and can raise #XM.
    pub fn is_float(&self) -> bool {
        matches!(self.semantics, Semantics::Float(_) | Semantics::Ir(_))
    }

    /// Whether the operation compares strings: it writes EFLAGS besides its destination.
    pub fn is_string(&self) -> bool {
        matches!(self.dest, Dest::Ecx | Dest::Xmm0)
    }

    /// The third source.
    pub fn aux(&self) -> Aux {
        match self.semantics {
            Semantics::Aux(_) if self.is_string() => Aux::RaxRdx,
            Semantics::Aux(_) => Aux::Xmm0,
            _ => Aux::None,
        }
    }

    /// Whether an MMX register is involved, so that the instruction takes the x87 unit into MMX mode. A memory source
    /// counts as none: CVTPI2PD from memory does not touch the x87 unit, but CVTPI2PS from memory does.
    pub fn uses_mmx(&self, memory_source: bool) -> bool {
        let source = self.source == Source::Mm && !(memory_source && self.op == VecOp::Cvtpi2pd_xmm_mmm64);
        self.dest == Dest::Mm || source
    }

    /// The immediate to pass to [`exec`] when the source is a memory operand: INSERTPS then ignores its source selector.
    pub fn memory_immediate(&self, imm: u8) -> u8 {
        if self.op == VecOp::Insertps_xmm_xmmm32_imm8 { imm & 0x3f } else { imm }
    }
}

macro_rules! vec_table {
    (
        packed { $($pm:ident $px:ident = $ps:expr;)* }
        shifts { $($sm:ident $sx:ident = $ss:expr;)* }
        rows { $($code:ident $(+ $also:ident)*: $dest:expr, $source:ident, $bytes:literal = $sem:expr;)* }
    ) => {
        /// An operation, named like the decoder's code.
        #[expect(non_camel_case_types, reason = "the names are those of iced_x86::Code")]
        #[expect(missing_docs, reason = "each is an instruction of the manual in the form that its name says")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum VecOp { $($pm, $px,)* $($sm, $sx,)* $($code,)* }

        /// The rows, in the order of [`VecOp`].
        pub static TABLE: &[VecRow] = {
            use Dest::*;
            use Semantics::*;
            &[
                $(
                    row(VecOp::$pm, &[Code::$pm], Mm, Source::Mm, 8, Packed($ps)),
                    row(VecOp::$px, &[Code::$px], Xmm, Source::Xmm, 16, Packed($ps)),
                )*
                $(
                    row(VecOp::$sm, &[Code::$sm], Mm, Source::None, 0, Packed($ss)),
                    row(VecOp::$sx, &[Code::$sx], Xmm, Source::None, 0, Packed($ss)),
                )*
                $(row(VecOp::$code, &[Code::$code, $(Code::$also),*], $dest, Source::$source, $bytes, $sem),)*
            ]
        };

        impl VecOp {
            /// Every operation.
            pub const ALL: &[Self] = &[$(Self::$pm, Self::$px,)* $(Self::$sm, Self::$sx,)* $(Self::$code,)*];
        }
    };
}
const fn row(
    op: VecOp,
    codes: &'static [Code],
    dest: Dest,
    source: Source,
    memory: u8,
    semantics: Semantics,
) -> VecRow {
    VecRow { op, codes, dest, source, memory, semantics }
}

impl VecOp {
    /// The operation's row.
    pub fn row(self) -> &'static VecRow {
        &TABLE[self as usize]
    }
}

impl TryFrom<u16> for VecOp {
    type Error = u16;

    fn try_from(x: u16) -> Result<Self, u16> {
        Self::ALL.get(usize::from(x)).copied().ok_or(x)
    }
}

vec_table! {
    packed {
        Paddb_mm_mmm64 Paddb_xmm_xmmm128 = |_, a, b, _| map2(a, b, u8::wrapping_add);
        Psubb_mm_mmm64 Psubb_xmm_xmmm128 = |_, a, b, _| map2(a, b, u8::wrapping_sub);
        Paddw_mm_mmm64 Paddw_xmm_xmmm128 = |_, a, b, _| map2(a, b, u16::wrapping_add);
        Psubw_mm_mmm64 Psubw_xmm_xmmm128 = |_, a, b, _| map2(a, b, u16::wrapping_sub);
        Paddd_mm_mmm64 Paddd_xmm_xmmm128 = |_, a, b, _| map2(a, b, u32::wrapping_add);
        Psubd_mm_mmm64 Psubd_xmm_xmmm128 = |_, a, b, _| map2(a, b, u32::wrapping_sub);
        Paddq_mm_mmm64 Paddq_xmm_xmmm128 = |_, a, b, _| map2(a, b, u64::wrapping_add);
        Psubq_mm_mmm64 Psubq_xmm_xmmm128 = |_, a, b, _| map2(a, b, u64::wrapping_sub);
        Paddsb_mm_mmm64 Paddsb_xmm_xmmm128 = |_, a, b, _| map2(a, b, i8::saturating_add);
        Psubsb_mm_mmm64 Psubsb_xmm_xmmm128 = |_, a, b, _| map2(a, b, i8::saturating_sub);
        Paddsw_mm_mmm64 Paddsw_xmm_xmmm128 = |_, a, b, _| map2(a, b, i16::saturating_add);
        Psubsw_mm_mmm64 Psubsw_xmm_xmmm128 = |_, a, b, _| map2(a, b, i16::saturating_sub);
        Paddusb_mm_mmm64 Paddusb_xmm_xmmm128 = |_, a, b, _| map2(a, b, u8::saturating_add);
        Psubusb_mm_mmm64 Psubusb_xmm_xmmm128 = |_, a, b, _| map2(a, b, u8::saturating_sub);
        Paddusw_mm_mmm64 Paddusw_xmm_xmmm128 = |_, a, b, _| map2(a, b, u16::saturating_add);
        Psubusw_mm_mmm64 Psubusw_xmm_xmmm128 = |_, a, b, _| map2(a, b, u16::saturating_sub);
        Pcmpeqb_mm_mmm64 Pcmpeqb_xmm_xmmm128 = |_, a, b, _| compare(a, b, i8::eq);
        Pcmpgtb_mm_mmm64 Pcmpgtb_xmm_xmmm128 = |_, a, b, _| compare(a, b, i8::gt);
        Psignb_mm_mmm64 Psignb_xmm_xmmm128 = |_, a, b, _| sign::<i8>(a, b);
        Pabsb_mm_mmm64 Pabsb_xmm_xmmm128 = |_, _, b, _| map(b, i8::wrapping_abs);
        Pcmpeqw_mm_mmm64 Pcmpeqw_xmm_xmmm128 = |_, a, b, _| compare(a, b, i16::eq);
        Pcmpgtw_mm_mmm64 Pcmpgtw_xmm_xmmm128 = |_, a, b, _| compare(a, b, i16::gt);
        Psignw_mm_mmm64 Psignw_xmm_xmmm128 = |_, a, b, _| sign::<i16>(a, b);
        Pabsw_mm_mmm64 Pabsw_xmm_xmmm128 = |_, _, b, _| map(b, i16::wrapping_abs);
        Pcmpeqd_mm_mmm64 Pcmpeqd_xmm_xmmm128 = |_, a, b, _| compare(a, b, i32::eq);
        Pcmpgtd_mm_mmm64 Pcmpgtd_xmm_xmmm128 = |_, a, b, _| compare(a, b, i32::gt);
        Psignd_mm_mmm64 Psignd_xmm_xmmm128 = |_, a, b, _| sign::<i32>(a, b);
        Pabsd_mm_mmm64 Pabsd_xmm_xmmm128 = |_, _, b, _| map(b, i32::wrapping_abs);
        Pmullw_mm_mmm64 Pmullw_xmm_xmmm128 = |_, a, b, _| multiply::<i16>(a, b, 0);
        Pmulhw_mm_mmm64 Pmulhw_xmm_xmmm128 = |_, a, b, _| multiply::<i16>(a, b, 16);
        Pmulhuw_mm_mmm64 Pmulhuw_xmm_xmmm128 = |_, a, b, _| multiply::<u16>(a, b, 16);
        Pmulhrsw_mm_mmm64 Pmulhrsw_xmm_xmmm128 = |_, a, b, _| multiply_round(a, b);
        Pmuludq_mm_mmm64 Pmuludq_xmm_xmmm128 = |_, a, b, _| multiply_even::<u32>(a, b);
        Pmaddwd_mm_mmm64 Pmaddwd_xmm_xmmm128 = |_, a, b, _| multiply_add(a, b);
        Pmaddubsw_mm_mmm64 Pmaddubsw_xmm_xmmm128 = |_, a, b, _| multiply_add_bytes(a, b);
        Psadbw_mm_mmm64 Psadbw_xmm_xmmm128 = |_, a, b, _| sum_differences(a, b);
        Pavgb_mm_mmm64 Pavgb_xmm_xmmm128 = |_, a, b, _| average::<u8>(a, b);
        Pavgw_mm_mmm64 Pavgw_xmm_xmmm128 = |_, a, b, _| average::<u16>(a, b);
        Pminub_mm_mmm64 Pminub_xmm_xmmm128 = |_, a, b, _| map2(a, b, u8::min);
        Pmaxub_mm_mmm64 Pmaxub_xmm_xmmm128 = |_, a, b, _| map2(a, b, u8::max);
        Pminsw_mm_mmm64 Pminsw_xmm_xmmm128 = |_, a, b, _| map2(a, b, i16::min);
        Pmaxsw_mm_mmm64 Pmaxsw_xmm_xmmm128 = |_, a, b, _| map2(a, b, i16::max);
        Pand_mm_mmm64 Pand_xmm_xmmm128 = |_, a, b, _| a & b;
        Pandn_mm_mmm64 Pandn_xmm_xmmm128 = |_, a, b, _| !a & b;
        Por_mm_mmm64 Por_xmm_xmmm128 = |_, a, b, _| a | b;
        Pxor_mm_mmm64 Pxor_xmm_xmmm128 = |_, a, b, _| a ^ b;
        Packsswb_mm_mmm64 Packsswb_xmm_xmmm128 = |n, a, b, _| pack(n, a, b, saturate_i8);
        Packuswb_mm_mmm64 Packuswb_xmm_xmmm128 = |n, a, b, _| pack(n, a, b, saturate_u8);
        Packssdw_mm_mmm64 Packssdw_xmm_xmmm128 = |n, a, b, _| pack(n, a, b, saturate_i16);
        Punpckhbw_mm_mmm64 Punpckhbw_xmm_xmmm128 = |n, a, b, _| unpack::<u8>(n, true, a, b);
        Punpckhwd_mm_mmm64 Punpckhwd_xmm_xmmm128 = |n, a, b, _| unpack::<u16>(n, true, a, b);
        Punpckhdq_mm_mmm64 Punpckhdq_xmm_xmmm128 = |n, a, b, _| unpack::<u32>(n, true, a, b);
        Phaddw_mm_mmm64 Phaddw_xmm_xmmm128 = |n, a, b, _| horizontal(n, a, b, i16::wrapping_add);
        Phsubw_mm_mmm64 Phsubw_xmm_xmmm128 = |n, a, b, _| horizontal(n, a, b, i16::wrapping_sub);
        Phaddd_mm_mmm64 Phaddd_xmm_xmmm128 = |n, a, b, _| horizontal(n, a, b, i32::wrapping_add);
        Phsubd_mm_mmm64 Phsubd_xmm_xmmm128 = |n, a, b, _| horizontal(n, a, b, i32::wrapping_sub);
        Phaddsw_mm_mmm64 Phaddsw_xmm_xmmm128 = |n, a, b, _| horizontal(n, a, b, i16::saturating_add);
        Phsubsw_mm_mmm64 Phsubsw_xmm_xmmm128 = |n, a, b, _| horizontal(n, a, b, i16::saturating_sub);
        Pshufb_mm_mmm64 Pshufb_xmm_xmmm128 = |n, a, b, _| shuffle_bytes(n, a, b);
        Psllw_mm_mmm64 Psllw_xmm_xmmm128 = |_, a, b, _| shift(a, b as u64, |x: u16, c| x << c);
        Psrlw_mm_mmm64 Psrlw_xmm_xmmm128 = |_, a, b, _| shift(a, b as u64, |x: u16, c| x >> c);
        Psraw_mm_mmm64 Psraw_xmm_xmmm128 = |_, a, b, _| shift_sign(a, b as u64, |x: i16, c| x >> c);
        Pslld_mm_mmm64 Pslld_xmm_xmmm128 = |_, a, b, _| shift(a, b as u64, |x: u32, c| x << c);
        Psrld_mm_mmm64 Psrld_xmm_xmmm128 = |_, a, b, _| shift(a, b as u64, |x: u32, c| x >> c);
        Psrad_mm_mmm64 Psrad_xmm_xmmm128 = |_, a, b, _| shift_sign(a, b as u64, |x: i32, c| x >> c);
        Psllq_mm_mmm64 Psllq_xmm_xmmm128 = |_, a, b, _| shift(a, b as u64, |x: u64, c| x << c);
        Psrlq_mm_mmm64 Psrlq_xmm_xmmm128 = |_, a, b, _| shift(a, b as u64, |x: u64, c| x >> c);
        Palignr_mm_mmm64_imm8 Palignr_xmm_xmmm128_imm8 = align;
    }
    shifts {
        Psllw_mm_imm8 Psllw_xmm_imm8 = |_, a, _, i| shift(a, i.into(), |x: u16, c| x << c);
        Psrlw_mm_imm8 Psrlw_xmm_imm8 = |_, a, _, i| shift(a, i.into(), |x: u16, c| x >> c);
        Psraw_mm_imm8 Psraw_xmm_imm8 = |_, a, _, i| shift_sign(a, i.into(), |x: i16, c| x >> c);
        Pslld_mm_imm8 Pslld_xmm_imm8 = |_, a, _, i| shift(a, i.into(), |x: u32, c| x << c);
        Psrld_mm_imm8 Psrld_xmm_imm8 = |_, a, _, i| shift(a, i.into(), |x: u32, c| x >> c);
        Psrad_mm_imm8 Psrad_xmm_imm8 = |_, a, _, i| shift_sign(a, i.into(), |x: i32, c| x >> c);
        Psllq_mm_imm8 Psllq_xmm_imm8 = |_, a, _, i| shift(a, i.into(), |x: u64, c| x << c);
        Psrlq_mm_imm8 Psrlq_xmm_imm8 = |_, a, _, i| shift(a, i.into(), |x: u64, c| x >> c);
    }
    rows {
        Punpcklbw_mm_mmm32: Mm, Mm, 4 = Int(|a, b, _| unpack::<u8>(8, false, a, b));
        Punpcklbw_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| unpack::<u8>(16, false, a, b));
        Punpcklwd_mm_mmm32: Mm, Mm, 4 = Int(|a, b, _| unpack::<u16>(8, false, a, b));
        Punpcklwd_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| unpack::<u16>(16, false, a, b));
        Punpckldq_mm_mmm32: Mm, Mm, 4 = Int(|a, b, _| unpack::<u32>(8, false, a, b));
        Punpckldq_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| unpack::<u32>(16, false, a, b));
        Punpcklqdq_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| unpack::<u64>(16, false, a, b));
        Punpckhqdq_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| unpack::<u64>(16, true, a, b));
        Unpcklps_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| unpack::<u32>(16, false, a, b));
        Unpckhps_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| unpack::<u32>(16, true, a, b));
        Unpcklpd_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| unpack::<u64>(16, false, a, b));
        Unpckhpd_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| unpack::<u64>(16, true, a, b));
        Andps_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| a & b);
        Andpd_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| a & b);
        Andnps_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| !a & b);
        Andnpd_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| !a & b);
        Orps_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| a | b);
        Orpd_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| a | b);
        Xorps_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| a ^ b);
        Xorpd_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| a ^ b);
        Pminsb_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| map2(a, b, i8::min));
        Pmaxsb_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| map2(a, b, i8::max));
        Pminuw_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| map2(a, b, u16::min));
        Pmaxuw_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| map2(a, b, u16::max));
        Pminsd_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| map2(a, b, i32::min));
        Pmaxsd_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| map2(a, b, i32::max));
        Pminud_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| map2(a, b, u32::min));
        Pmaxud_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| map2(a, b, u32::max));
        Pcmpeqq_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| compare(a, b, i64::eq));
        Pcmpgtq_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| compare(a, b, i64::gt));
        Pmulld_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| multiply::<i32>(a, b, 0));
        Pmuldq_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| multiply_even::<i32>(a, b));
        Packusdw_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| pack(16, a, b, saturate_u16));
        Phminposuw_xmm_xmmm128: Xmm, Xmm, 16 = Int(|_, b, _| minimum_position(b));
        Mpsadbw_xmm_xmmm128_imm8: Xmm, Xmm, 16 = Int(sliding_differences);
        Pslldq_xmm_imm8: Xmm, None, 0 = Int(|a, _, i| byte_shift(a, i, u128::checked_shl));
        Psrldq_xmm_imm8: Xmm, None, 0 = Int(|a, _, i| byte_shift(a, i, u128::checked_shr));
        Pmovsxbw_xmm_xmmm64: Xmm, Xmm, 8 = Int(|_, b, _| extend(b, |x: i8| i16::from(x)));
        Pmovsxbd_xmm_xmmm32: Xmm, Xmm, 4 = Int(|_, b, _| extend(b, |x: i8| i32::from(x)));
        Pmovsxbq_xmm_xmmm16: Xmm, Xmm, 2 = Int(|_, b, _| extend(b, |x: i8| i64::from(x)));
        Pmovsxwd_xmm_xmmm64: Xmm, Xmm, 8 = Int(|_, b, _| extend(b, |x: i16| i32::from(x)));
        Pmovsxwq_xmm_xmmm32: Xmm, Xmm, 4 = Int(|_, b, _| extend(b, |x: i16| i64::from(x)));
        Pmovsxdq_xmm_xmmm64: Xmm, Xmm, 8 = Int(|_, b, _| extend(b, |x: i32| i64::from(x)));
        Pmovzxbw_xmm_xmmm64: Xmm, Xmm, 8 = Int(|_, b, _| extend(b, |x: u8| u16::from(x)));
        Pmovzxbd_xmm_xmmm32: Xmm, Xmm, 4 = Int(|_, b, _| extend(b, |x: u8| u32::from(x)));
        Pmovzxbq_xmm_xmmm16: Xmm, Xmm, 2 = Int(|_, b, _| extend(b, |x: u8| u64::from(x)));
        Pmovzxwd_xmm_xmmm64: Xmm, Xmm, 8 = Int(|_, b, _| extend(b, |x: u16| u32::from(x)));
        Pmovzxwq_xmm_xmmm32: Xmm, Xmm, 4 = Int(|_, b, _| extend(b, |x: u16| u64::from(x)));
        Pmovzxdq_xmm_xmmm64: Xmm, Xmm, 8 = Int(|_, b, _| extend(b, |x: u32| u64::from(x)));
        Pshufw_mm_mmm64_imm8: Mm, Mm, 8 = Int(|_, b, i| shuffle4::<u16>(b, i));
        Pshufd_xmm_xmmm128_imm8: Xmm, Xmm, 16 = Int(|_, b, i| shuffle4::<u32>(b, i));
        Pshuflw_xmm_xmmm128_imm8: Xmm, Xmm, 16 = Int(|_, b, i| b >> 64 << 64 | shuffle4::<u16>(b, i));
        Pshufhw_xmm_xmmm128_imm8: Xmm, Xmm, 16 = Int(|_, b, i| u128::from(b as u64) | shuffle4::<u16>(b >> 64, i) << 64);
        Shufps_xmm_xmmm128_imm8: Xmm, Xmm, 16 = Int(shuffle_ps);
        Shufpd_xmm_xmmm128_imm8: Xmm, Xmm, 16 = Int(shuffle_pd);
        Blendps_xmm_xmmm128_imm8: Xmm, Xmm, 16 = Int(blend::<u32>);
        Blendpd_xmm_xmmm128_imm8: Xmm, Xmm, 16 = Int(blend::<u64>);
        Pblendw_xmm_xmmm128_imm8: Xmm, Xmm, 16 = Int(blend::<u16>);
        Pblendvb_xmm_xmmm128: Xmm, Xmm, 16 = Aux(|a, b, aux, _| blend_variable::<u8>(a, b, aux));
        Blendvps_xmm_xmmm128: Xmm, Xmm, 16 = Aux(|a, b, aux, _| blend_variable::<u32>(a, b, aux));
        Blendvpd_xmm_xmmm128: Xmm, Xmm, 16 = Aux(|a, b, aux, _| blend_variable::<u64>(a, b, aux));
        Insertps_xmm_xmmm32_imm8: Xmm, Xmm, 4 = Int(insert_ps);
        Movss_xmm_xmmm32 + Movss_xmmm32_xmm: Xmm, Xmm, 0 = Int(|a, b, _| with_lane(a, 0, b as u32));
        Movsd_xmm_xmmm64 + Movsd_xmmm64_xmm: Xmm, Xmm, 0 = Int(|a, b, _| with_lane(a, 0, b as u64));
        Movhlps_xmm_xmm: Xmm, Xmm, 0 = Int(|a, b, _| with_lane(a, 0, (b >> 64) as u64));
        Movlhps_xmm_xmm: Xmm, Xmm, 0 = Int(|a, b, _| with_lane(a, 1, b as u64));
        Movlps_xmm_m64 + Movlpd_xmm_m64: Xmm, None, 8 = Int(|a, b, _| with_lane(a, 0, b as u64));
        Movhps_xmm_m64 + Movhpd_xmm_m64: Xmm, None, 8 = Int(|a, b, _| with_lane(a, 1, b as u64));
        Movlps_m64_xmm + Movlpd_m64_xmm: Mem(8), Xmm, 0 = Int(|_, b, _| (b as u64).into());
        Movhps_m64_xmm + Movhpd_m64_xmm: Mem(8), Xmm, 0 = Int(|_, b, _| b >> 64);
        Movsldup_xmm_xmmm128: Xmm, Xmm, 16 = Int(|_, b, _| shuffle4::<u32>(b, 0xa0));
        Movshdup_xmm_xmmm128: Xmm, Xmm, 16 = Int(|_, b, _| shuffle4::<u32>(b, 0xf5));
        Movddup_xmm_xmmm64: Xmm, Xmm, 8 = Int(|_, b, _| unpack::<u64>(16, false, b, b));
        Movq2dq_xmm_mm: Xmm, Mm, 0 = Int(|_, b, _| (b as u64).into());
        Movdq2q_mm_xmm: Mm, Xmm, 0 = Int(|_, b, _| b);
        Movmskps_r32_xmm + Movmskps_r64_xmm: Gpr, Xmm, 0 = Int(|_, b, _| top_bits::<u32>(16, b));
        Movmskpd_r32_xmm + Movmskpd_r64_xmm: Gpr, Xmm, 0 = Int(|_, b, _| top_bits::<u64>(16, b));
        Pmovmskb_r32_mm + Pmovmskb_r64_mm: Gpr, Mm, 0 = Int(|_, b, _| top_bits::<u8>(8, b));
        Pmovmskb_r32_xmm + Pmovmskb_r64_xmm: Gpr, Xmm, 0 = Int(|_, b, _| top_bits::<u8>(16, b));
        Pinsrb_xmm_r32m8_imm8 + Pinsrb_xmm_r64m8_imm8: Xmm, Gpr, 1 = Int(|a, b, i| with_lane(a, usize::from(i & 15), b as u8));
        Pinsrw_mm_r32m16_imm8 + Pinsrw_mm_r64m16_imm8: Mm, Gpr, 2 = Int(|a, b, i| with_lane(a, usize::from(i & 3), b as u16));
        Pinsrw_xmm_r32m16_imm8 + Pinsrw_xmm_r64m16_imm8: Xmm, Gpr, 2 = Int(|a, b, i| with_lane(a, usize::from(i & 7), b as u16));
        Pinsrd_xmm_rm32_imm8: Xmm, Gpr, 4 = Int(|a, b, i| with_lane(a, usize::from(i & 3), b as u32));
        Pinsrq_xmm_rm64_imm8: Xmm, Gpr, 8 = Int(|a, b, i| with_lane(a, usize::from(i & 1), b as u64));
        Pextrb_r32m8_xmm_imm8 + Pextrb_r64m8_xmm_imm8: GprOrMem(1), Xmm, 0 = Int(|_, b, i| lane::<u8>(b, usize::from(i & 15)).into());
        Pextrw_r32m16_xmm_imm8 + Pextrw_r64m16_xmm_imm8: GprOrMem(2), Xmm, 0 = Int(|_, b, i| lane::<u16>(b, usize::from(i & 7)).into());
        Pextrw_r32_xmm_imm8 + Pextrw_r64_xmm_imm8: Gpr, Xmm, 0 = Int(|_, b, i| lane::<u16>(b, usize::from(i & 7)).into());
        Pextrw_r32_mm_imm8 + Pextrw_r64_mm_imm8: Gpr, Mm, 0 = Int(|_, b, i| lane::<u16>(b, usize::from(i & 3)).into());
        Pextrd_rm32_xmm_imm8: GprOrMem(4), Xmm, 0 = Int(|_, b, i| lane::<u32>(b, usize::from(i & 3)).into());
        Pextrq_rm64_xmm_imm8: GprOrMem(8), Xmm, 0 = Int(|_, b, i| lane::<u64>(b, usize::from(i & 1)).into());
        Extractps_rm32_xmm_imm8 + Extractps_r64m32_xmm_imm8: GprOrMem(4), Xmm, 0 = Int(|_, b, i| lane::<u32>(b, usize::from(i & 3)).into());
        Ptest_xmm_xmmm128: Eflags, Xmm, 16 = Int(|a, b, _| test(a, b));
        Pcmpistri_xmm_xmmm128_imm8: Ecx, Xmm, 16 = Int(|a, b, i| string::implicit(i, a, b).index());
        Pcmpistrm_xmm_xmmm128_imm8: Xmm0, Xmm, 16 = Int(|a, b, i| string::implicit(i, a, b).mask());
        Pcmpestri_xmm_xmmm128_imm8: Ecx, Xmm, 16 = Aux(|a, b, aux, i| string::explicit(i, a, b, lengths32(aux)).index());
        Pcmpestri64_xmm_xmmm128_imm8: Ecx, Xmm, 16 = Aux(|a, b, aux, i| string::explicit(i, a, b, lengths64(aux)).index());
        Pcmpestrm_xmm_xmmm128_imm8: Xmm0, Xmm, 16 = Aux(|a, b, aux, i| string::explicit(i, a, b, lengths32(aux)).mask());
        Pcmpestrm64_xmm_xmmm128_imm8: Xmm0, Xmm, 16 = Aux(|a, b, aux, i| string::explicit(i, a, b, lengths64(aux)).mask());
        Addps_xmm_xmmm128: Xmm, Xmm, 16 = Ir(VecKind::AddF32P);
        Addpd_xmm_xmmm128: Xmm, Xmm, 16 = Ir(VecKind::AddF64P);
        Addss_xmm_xmmm32: Xmm, Xmm, 4 = Ir(VecKind::AddF32);
        Addsd_xmm_xmmm64: Xmm, Xmm, 8 = Ir(VecKind::AddF64);
        Subps_xmm_xmmm128: Xmm, Xmm, 16 = Ir(VecKind::SubF32P);
        Subpd_xmm_xmmm128: Xmm, Xmm, 16 = Ir(VecKind::SubF64P);
        Subss_xmm_xmmm32: Xmm, Xmm, 4 = Ir(VecKind::SubF32);
        Subsd_xmm_xmmm64: Xmm, Xmm, 8 = Ir(VecKind::SubF64);
        Mulps_xmm_xmmm128: Xmm, Xmm, 16 = Ir(VecKind::MulF32P);
        Mulpd_xmm_xmmm128: Xmm, Xmm, 16 = Ir(VecKind::MulF64P);
        Mulss_xmm_xmmm32: Xmm, Xmm, 4 = Ir(VecKind::MulF32);
        Mulsd_xmm_xmmm64: Xmm, Xmm, 8 = Ir(VecKind::MulF64);
        Divps_xmm_xmmm128: Xmm, Xmm, 16 = Ir(VecKind::DivF32P);
        Divpd_xmm_xmmm128: Xmm, Xmm, 16 = Ir(VecKind::DivF64P);
        Divss_xmm_xmmm32: Xmm, Xmm, 4 = Ir(VecKind::DivF32);
        Divsd_xmm_xmmm64: Xmm, Xmm, 8 = Ir(VecKind::DivF64);
        Minps_xmm_xmmm128: Xmm, Xmm, 16 = Ir(VecKind::MinF32P);
        Minpd_xmm_xmmm128: Xmm, Xmm, 16 = Ir(VecKind::MinF64P);
        Minss_xmm_xmmm32: Xmm, Xmm, 4 = Ir(VecKind::MinF32);
        Minsd_xmm_xmmm64: Xmm, Xmm, 8 = Ir(VecKind::MinF64);
        Maxps_xmm_xmmm128: Xmm, Xmm, 16 = Ir(VecKind::MaxF32P);
        Maxpd_xmm_xmmm128: Xmm, Xmm, 16 = Ir(VecKind::MaxF64P);
        Maxss_xmm_xmmm32: Xmm, Xmm, 4 = Ir(VecKind::MaxF32);
        Maxsd_xmm_xmmm64: Xmm, Xmm, 8 = Ir(VecKind::MaxF64);
        Sqrtps_xmm_xmmm128: Xmm, Xmm, 16 = Ir(VecKind::SqrtF32P);
        Sqrtpd_xmm_xmmm128: Xmm, Xmm, 16 = Ir(VecKind::SqrtF64P);
        Sqrtss_xmm_xmmm32: Xmm, Xmm, 4 = Ir(VecKind::SqrtF32);
        Sqrtsd_xmm_xmmm64: Xmm, Xmm, 8 = Ir(VecKind::SqrtF64);
        Cmpps_xmm_xmmm128_imm8: Xmm, Xmm, 16 = Ir(VecKind::CompareF32P);
        Cmppd_xmm_xmmm128_imm8: Xmm, Xmm, 16 = Ir(VecKind::CompareF64P);
        Cmpss_xmm_xmmm32_imm8: Xmm, Xmm, 4 = Ir(VecKind::CompareF32);
        Cmpsd_xmm_xmmm64_imm8: Xmm, Xmm, 8 = Ir(VecKind::CompareF64);
        Roundps_xmm_xmmm128_imm8: Xmm, Xmm, 16 = Ir(VecKind::RoundF32P);
        Roundpd_xmm_xmmm128_imm8: Xmm, Xmm, 16 = Ir(VecKind::RoundF64P);
        Roundss_xmm_xmmm32_imm8: Xmm, Xmm, 4 = Ir(VecKind::RoundF32);
        Roundsd_xmm_xmmm64_imm8: Xmm, Xmm, 8 = Ir(VecKind::RoundF64);
        Rcpps_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| packed(S, a, b, |_, y| reciprocal(false, y)));
        Rcpss_xmm_xmmm32: Xmm, Xmm, 4 = Int(|a, b, _| scalar(S, a, b, |_, y| reciprocal(false, y)));
        Rsqrtps_xmm_xmmm128: Xmm, Xmm, 16 = Int(|a, b, _| packed(S, a, b, |_, y| reciprocal(true, y)));
        Rsqrtss_xmm_xmmm32: Xmm, Xmm, 4 = Int(|a, b, _| scalar(S, a, b, |_, y| reciprocal(true, y)));
        Comiss_xmm_xmmm32: Eflags, Xmm, 4 = Float(|e, a, b, _| comis(e, S, true, a, b));
        Ucomiss_xmm_xmmm32: Eflags, Xmm, 4 = Float(|e, a, b, _| comis(e, S, false, a, b));
        Comisd_xmm_xmmm64: Eflags, Xmm, 8 = Float(|e, a, b, _| comis(e, D, true, a, b));
        Ucomisd_xmm_xmmm64: Eflags, Xmm, 8 = Float(|e, a, b, _| comis(e, D, false, a, b));
        Haddps_xmm_xmmm128: Xmm, Xmm, 16 = Ir(VecKind::AddPairsF32P);
        Hsubps_xmm_xmmm128: Xmm, Xmm, 16 = Ir(VecKind::SubPairsF32P);
        Addsubps_xmm_xmmm128: Xmm, Xmm, 16 = Ir(VecKind::SubAddF32P);
        Dpps_xmm_xmmm128_imm8: Xmm, Xmm, 16 = Float(|e, a, b, i| dot_product(e, S, i, a, b));
        Haddpd_xmm_xmmm128: Xmm, Xmm, 16 = Ir(VecKind::AddPairsF64P);
        Hsubpd_xmm_xmmm128: Xmm, Xmm, 16 = Ir(VecKind::SubPairsF64P);
        Addsubpd_xmm_xmmm128: Xmm, Xmm, 16 = Ir(VecKind::SubAddF64P);
        Dppd_xmm_xmmm128_imm8: Xmm, Xmm, 16 = Float(|e, a, b, i| dot_product(e, D, i, a, b));
        Cvtps2pd_xmm_xmmm64: Xmm, Xmm, 8 = Ir(VecKind::F32PToF64P);
        Cvtpd2ps_xmm_xmmm128: Xmm, Xmm, 16 = Ir(VecKind::F64PToF32P);
        Cvtss2sd_xmm_xmmm32: Xmm, Xmm, 4 = Ir(VecKind::F32ToF64);
        Cvtsd2ss_xmm_xmmm64: Xmm, Xmm, 8 = Ir(VecKind::F64ToF32);
        Cvtdq2ps_xmm_xmmm128: Xmm, Xmm, 16 = Ir(VecKind::I32PToF32P);
        Cvtdq2pd_xmm_xmmm64: Xmm, Xmm, 8 = Ir(VecKind::I32PToF64P);
        Cvtpi2ps_xmm_mmm64: Xmm, Mm, 8 = Float(|e, a, b, _| with_lane(a, 0, from_integers(e, S, 2, b) as u64));
        Cvtpi2pd_xmm_mmm64: Xmm, Mm, 8 = Float(|e, _, b, _| from_integers(e, D, 2, b));
        Cvtps2dq_xmm_xmmm128: Xmm, Xmm, 16 = Ir(VecKind::F32PToI32P);
        Cvtpd2dq_xmm_xmmm128: Xmm, Xmm, 16 = Ir(VecKind::F64PToI32P);
        Cvtps2pi_mm_xmmm64: Mm, Xmm, 8 = Float(|e, _, b, _| to_integers(e, S, false, 2, b));
        Cvtpd2pi_mm_xmmm128: Mm, Xmm, 16 = Float(|e, _, b, _| to_integers(e, D, false, 2, b));
        Cvtss2si_r32_xmmm32: Gpr, Xmm, 4 = Ir(VecKind::F32ToI32);
        Cvtss2si_r64_xmmm32: Gpr, Xmm, 4 = Ir(VecKind::F32ToI64);
        Cvtsd2si_r32_xmmm64: Gpr, Xmm, 8 = Ir(VecKind::F64ToI32);
        Cvtsd2si_r64_xmmm64: Gpr, Xmm, 8 = Ir(VecKind::F64ToI64);
        Cvttps2dq_xmm_xmmm128: Xmm, Xmm, 16 = Ir(VecKind::TruncF32PToI32P);
        Cvttpd2dq_xmm_xmmm128: Xmm, Xmm, 16 = Ir(VecKind::TruncF64PToI32P);
        Cvttps2pi_mm_xmmm64: Mm, Xmm, 8 = Float(|e, _, b, _| to_integers(e, S, true, 2, b));
        Cvttpd2pi_mm_xmmm128: Mm, Xmm, 16 = Float(|e, _, b, _| to_integers(e, D, true, 2, b));
        Cvttss2si_r32_xmmm32: Gpr, Xmm, 4 = Ir(VecKind::TruncF32ToI32);
        Cvttss2si_r64_xmmm32: Gpr, Xmm, 4 = Ir(VecKind::TruncF32ToI64);
        Cvttsd2si_r32_xmmm64: Gpr, Xmm, 8 = Ir(VecKind::TruncF64ToI32);
        Cvttsd2si_r64_xmmm64: Gpr, Xmm, 8 = Ir(VecKind::TruncF64ToI64);
        Cvtsi2ss_xmm_rm32: Xmm, Gpr, 4 = Ir(VecKind::I32ToF32);
        Cvtsi2ss_xmm_rm64: Xmm, Gpr, 8 = Ir(VecKind::I64ToF32);
        Cvtsi2sd_xmm_rm32: Xmm, Gpr, 4 = Ir(VecKind::I32ToF64);
        Cvtsi2sd_xmm_rm64: Xmm, Gpr, 8 = Ir(VecKind::I64ToF64);
    }
}

const NO_ROW: u16 = u16::MAX;

const CODE_LIMIT: usize = {
    let mut limit = 0;
    let mut i = 0;
    while i < TABLE.len() {
        let mut k = 0;
        while k < TABLE[i].codes.len() {
            if limit <= TABLE[i].codes[k] as usize {
                limit = TABLE[i].codes[k] as usize + 1;
            }
            k += 1;
        }
        i += 1;
    }
    limit
};

static BY_CODE: [u16; CODE_LIMIT] = {
    let mut index = [NO_ROW; CODE_LIMIT];
    let mut i = 0;
    while i < TABLE.len() {
        let mut k = 0;
        while k < TABLE[i].codes.len() {
            let code = TABLE[i].codes[k] as usize;
            assert!(index[code] == NO_ROW, "a code has two rows");
            index[code] = i as u16;
            k += 1;
        }
        i += 1;
    }
    index
};

/// The row of a decoded instruction; `None` for one that this table does not have (VEX and EVEX forms, plain moves).
///
/// MOVSS and MOVSD between registers are here; their memory forms have the same code and are plain moves, so their rows
/// have no memory source and no memory destination.
pub fn lookup(code: Code) -> Option<&'static VecRow> {
    TABLE.get(usize::from(*BY_CODE.get(code as usize)?))
}

fn lengths64(aux: u128) -> [i64; 2] {
    [aux as i64, (aux >> 64) as i64]
}

fn lengths32(aux: u128) -> [i64; 2] {
    [(aux as i32).into(), ((aux >> 64) as i32).into()]
}

/// Executes an operation.
///
/// `dst` is the destination register's old value, `src` the source operand zero-extended (a register: all its bits, a memory
/// operand: the bytes that the row says), `aux` the third source that [`VecRow::aux`] names (ignored otherwise).
///
/// Returns the destination's new value (see [`Dest`]); an MMX register is the low 64 bits. The flags that are raised are taken into the
/// environment, also when an unmasked exception makes the result an error.
pub fn exec(op: VecOp, imm: u8, dst: u128, src: u128, aux: u128, env: &mut FpEnv) -> Result<u128, SimdException> {
    let row = op.row();
    let result = match row.semantics {
        Semantics::Packed(f) => f(if row.dest == Dest::Mm { 8 } else { 16 }, dst, src, imm),
        Semantics::Int(f) => f(dst, src, imm),
        Semantics::Aux(f) => f(dst, src, aux, imm),
        Semantics::Float(f) => {
            let mut unpacked = Env::of(*env);
            let result = f(&mut unpacked, dst, src, imm);
            settle(env, unpacked)?;
            result
        }
        Semantics::Ir(kind) => {
            let mut unpacked = Env::of(*env);
            let info = VecInfo { kind, imm };
            let result = match kind.row().shape {
                VecShape::VToV | VecShape::VToI => fp::float(&mut unpacked, info, [src, 0, 0]),
                _ => fp::float(&mut unpacked, info, [dst, src, 0]),
            };
            settle(env, unpacked)?;
            result
        }
    };
    Ok(if row.dest == Dest::Mm { u128::from(result as u64) } else { result })
}

/// ZF, PF and CF as COMISS or (`double`) COMISD set them for these operands, with denormals taken as zeros if `daz`.
pub fn order_flags(double: bool, daz: bool, a: u64, b: u64) -> u32 {
    let mut env = Env::of(if daz { FpEnv::RESET | FpEnv::FLUSH_INPUTS } else { FpEnv::RESET });
    comis(&mut env, if double { D } else { S }, false, a.into(), b.into()) as u32
}

/// CF, ZF, SF and OF of a string comparison with the operands of [`exec`]; AF and PF become 0. 0 for other operations.
pub fn string_eflags(op: VecOp, imm: u8, dst: u128, src: u128, aux: u128) -> u32 {
    use VecOp::*;
    match op {
        Pcmpistri_xmm_xmmm128_imm8 | Pcmpistrm_xmm_xmmm128_imm8 => string::implicit(imm, dst, src).eflags(),
        Pcmpestri_xmm_xmmm128_imm8 | Pcmpestrm_xmm_xmmm128_imm8 => {
            string::explicit(imm, dst, src, lengths32(aux)).eflags()
        }
        Pcmpestri64_xmm_xmmm128_imm8 | Pcmpestrm64_xmm_xmmm128_imm8 => {
            string::explicit(imm, dst, src, lengths64(aux)).eflags()
        }
        _ => 0,
    }
}
