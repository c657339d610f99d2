//! Lazy arithmetic flags.
//!
//! An instruction that sets flags records what it did: `cc_op` (kind and operand width), `cc_dst` (result), `cc_src`
//! and `cc_aux`. Flags are computed from them when something reads them. All values are zero-extended from the
//! operand width. An instruction that changes no flag but CF and OF leaves the record as it is, puts them into `cc_carry`
//! and `cc_overflow`, and says so in `cc_carry_op` and `cc_op`. INC and DEC keep CF: where it is of an earlier block they leave its
//! record as it is, and `cc_carry_op` with it.

use super::fp::vec::order_flags;
use super::state::{Rflags, State};

macro_rules! cc_kinds {
    ($($(#[$doc:meta])* $kind:ident;)*) => {
        /// What kind of instruction set the flags last.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u8)]
        pub enum CcKind { $($(#[$doc])* $kind),* }

        impl CcKind {
            /// Every kind, in order of number.
            pub const ALL: &'static [CcKind] = &[$(CcKind::$kind),*];
        }
    };
}

cc_kinds! {
    /// `dst = a - src`. Its number is 0, so that code can tell by one operation.
    Sub;
    /// `cc_src` holds the six flags as they are in RFLAGS.
    Flags;
    /// `dst = a + src`.
    Add;
    /// `dst = a + src + aux`.
    Adc;
    /// `dst = a - src - aux`.
    Sbb;
    /// Carry, overflow and adjust are 0. In env it is a `Sub` of 0.
    Logic;
    /// `dst = a + 1`, `src` is the carry before.
    Inc;
    /// `dst = a - 1`, `src` is the carry before.
    Dec;
    /// `dst = a << n`, `src = a << (n - 1)`.
    Shl;
    /// `dst = a >> n` (either kind), `src = a >> (n - 1)`.
    Shr;
    /// Carry and overflow are `src != 0`.
    Mul;
    /// The order of floating-point numbers `dst` and `src`, by COMISS or COMISD.
    Float;
    /// As `Float`, with denormals taken as zeros.
    FloatDaz;
    /// `cc_step = a + 1`; the carry is that of the record before.
    IncKept;
    /// `cc_step = a - 1`; the carry is that of the record before.
    DecKept;
}

/// Kind and operand width, as held in `cc_op` and `cc_carry_op`: `kind * 4 + log2(bytes)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct CcOp {
    /// Kind.
    pub kind: CcKind,
    /// log2 of the operand width in bytes.
    pub log2: u8,
}

impl CcOp {
    /// Flags given bit by bit.
    pub const FLAGS: CcOp = CcOp { kind: CcKind::Flags, log2: 0 };

    /// As held in `cc_op` and `cc_carry_op`.
    pub const fn encode(self) -> u8 {
        self.kind as u8 * 4 + (self.log2 & 3)
    }

    /// From `cc_op` or `cc_carry_op`.
    pub fn decode(code: u8) -> CcOp {
        let kind = CcKind::ALL.get(usize::from(code >> 2 & 0x1f)).copied().unwrap_or(CcKind::Flags);
        CcOp { kind, log2: code & 3 }
    }

    /// What a slot over `cc_op`, `cc_carry_op` and `cc_shift` has where they are of a record with this `op`.
    pub const fn all(op: u8, carry_op: u8) -> u64 {
        u64::from_ne_bytes([op, carry_op, CcOp::shift(op), 0, 0, 0, 0, 0])
    }

    /// 64 less the bits of the operands.
    const fn shift(op: u8) -> u8 {
        64 - (8 << (op & 3))
    }
}

/// `cc_carry_op` where CF is no record's, but bit 0 of `cc_carry`.
pub const CARRY_APART: u8 = u8::MAX;

/// In `cc_op`: OF is not the record's, but bit 0 of `cc_overflow`.
pub const OVERFLOW_APART: u8 = 1 << 7;

/// `flag` if the condition holds.
#[inline]
pub(super) const fn when(condition: bool, flag: Rflags) -> Rflags {
    if condition { flag } else { Rflags::empty() }
}

/// The six arithmetic flags of a record, CF being 0 if it is another's.
pub fn compute(op: CcOp, dst: u64, src: u64, aux: u64) -> Rflags {
    if op.kind == CcKind::Flags {
        return Rflags::from_bits_retain(src) & Rflags::ARITH;
    }
    if matches!(op.kind, CcKind::Float | CcKind::FloatDaz) {
        let flags = order_flags(op.log2 == 3, op.kind == CcKind::FloatDaz, dst, src);
        return Rflags::from_bits_retain(flags.into());
    }
    let bits = 8u32 << op.log2;
    let mask = u64::MAX >> (64 - bits);
    let sign = 1u64 << (bits - 1);
    let (dst, src) = (dst & mask, src & mask);
    let carry_in = aux & 1;
    let (cf, of, af) = match op.kind {
        CcKind::Flags | CcKind::Float | CcKind::FloatDaz => (false, false, false),
        CcKind::Add | CcKind::Adc => {
            let carry_in = if op.kind == CcKind::Adc { carry_in } else { 0 };
            let a = dst.wrapping_sub(src).wrapping_sub(carry_in) & mask;
            let carries = (a & src) | ((a | src) & !dst);
            (carries & sign != 0, (a ^ dst) & (src ^ dst) & sign != 0, (a ^ src ^ dst) & 0x10 != 0)
        }
        CcKind::Sub | CcKind::Sbb => {
            let carry_in = if op.kind == CcKind::Sbb { carry_in } else { 0 };
            let a = dst.wrapping_add(src).wrapping_add(carry_in) & mask;
            let borrows = (!a & src) | ((!a | src) & dst);
            (borrows & sign != 0, (a ^ src) & (a ^ dst) & sign != 0, (a ^ src ^ dst) & 0x10 != 0)
        }
        CcKind::Logic => (false, false, false),
        CcKind::Inc | CcKind::IncKept => (op.kind == CcKind::Inc && src & 1 != 0, dst == sign, dst & 0xf == 0),
        CcKind::Dec | CcKind::DecKept => (op.kind == CcKind::Dec && src & 1 != 0, dst == sign - 1, dst & 0xf == 0xf),
        CcKind::Shl => {
            let cf = src & sign != 0;
            (cf, cf != (dst & sign != 0), false)
        }
        CcKind::Shr => (src & 1 != 0, (src ^ dst) & sign != 0, false),
        CcKind::Mul => (src != 0, src != 0, false),
    };
    when(cf, Rflags::CF)
        | when((dst as u8).count_ones().is_multiple_of(2), Rflags::PF)
        | when(af, Rflags::AF)
        | when(dst == 0, Rflags::ZF)
        | when(dst & sign != 0, Rflags::SF)
        | when(of, Rflags::OF)
}

/// Whether condition `cc` (low 4 bits of the opcodes of Jcc, SETcc, CMOVcc: SDM vol. 1, appendix B) holds.
pub const fn condition(cc: u8, flags: Rflags) -> bool {
    let cf = flags.contains(Rflags::CF);
    let zf = flags.contains(Rflags::ZF);
    let sf = flags.contains(Rflags::SF);
    let of = flags.contains(Rflags::OF);
    let pf = flags.contains(Rflags::PF);
    let holds = match cc >> 1 & 7 {
        0 => of,
        1 => cf,
        2 => zf,
        3 => cf || zf,
        4 => sf,
        5 => pf,
        6 => sf != of,
        _ => zf || sf != of,
    };
    holds != (cc & 1 != 0)
}

impl State {
    /// The six arithmetic flags now.
    pub fn arith_flags(&self) -> Rflags {
        let op = CcOp::decode(self.cc_op);
        let dst = if matches!(op.kind, CcKind::IncKept | CcKind::DecKept) { self.cc_step } else { self.cc_dst };
        let mut flags = compute(op, dst, self.cc_src, self.cc_aux);
        if self.cc_carry_op == CARRY_APART {
            flags.set(Rflags::CF, self.cc_carry & 1 != 0);
        } else if self.cc_carry_op != op.encode() {
            let before = compute(CcOp::decode(self.cc_carry_op), self.cc_dst, self.cc_src, self.cc_aux);
            flags.set(Rflags::CF, before.contains(Rflags::CF));
        }
        if self.cc_op & OVERFLOW_APART != 0 {
            flags.set(Rflags::OF, self.cc_overflow & 1 != 0);
        }
        flags
    }

    /// Says which instruction has set all arithmetic flags.
    pub fn set_cc_op(&mut self, op: CcOp) {
        self.cc_op = op.encode();
        self.cc_carry_op = op.encode();
        self.cc_shift = CcOp::shift(op.encode());
    }

    /// Sets the six arithmetic flags.
    pub fn set_arith_flags(&mut self, flags: Rflags) {
        self.set_cc_op(CcOp::FLAGS);
        self.cc_src = (flags & Rflags::ARITH).bits();
        self.cc_dst = 0;
        self.cc_aux = 0;
    }

    /// RFLAGS, whole.
    pub fn rflags(&self) -> Rflags {
        self.flags | self.arith_flags()
    }

    /// Sets RFLAGS, whole; bit 1 is forced.
    pub fn set_rflags(&mut self, value: Rflags) {
        self.set_arith_flags(value);
        self.flags = value & !Rflags::ARITH | Rflags::FIXED;
    }
}
