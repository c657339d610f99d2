//! The arithmetic core of every guest's floating point: exact operations on unpacked numbers and one rounding step.
//!
//! Addition, multiplication and division run in [`rustc_apfloat`] in a format wide enough (110 bits of significand, 18 of
//! exponent) that every operand of a guest format is exact and no intermediate result leaves the range. They truncate, and
//! the lost part is folded into a sticky bit; [`round`] then rounds once to the guest's precision, for which 110 bits and a
//! sticky bit carry all the information there is. So tininess after rounding, x87 precision control and the wrapped
//! exponents of unmasked exceptions are all decided here and not by the library, whose rules differ.

use mimus_ir::FpFlags;
pub use mimus_ir::fp::Rounding;
use rustc_apfloat::ieee::{IeeeFloat, Semantics};
use rustc_apfloat::{Float, Round, Status};

/// Invalid operation (IE). The flags have the positions of [`FpFlags`], and so of x86's MXCSR; those of the x87 status word are the
/// same.
pub const IE: u32 = FpFlags::INVALID.bits();
/// Denormal operand (DE).
pub const DE: u32 = FpFlags::DENORMAL.bits();
/// Division by zero (ZE).
pub const ZE: u32 = FpFlags::DIVIDE_BY_ZERO.bits();
/// Numeric overflow (OE).
pub const OE: u32 = FpFlags::OVERFLOW.bits();
/// Numeric underflow (UE).
pub const UE: u32 = FpFlags::UNDERFLOW.bits();
/// Inexact result, "precision" (PE).
pub const PE: u32 = FpFlags::INEXACT.bits();

/// A destination's precision in bits, the integer bit included, and exponent range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub bits: u32,
    pub prec: u32,
    pub emin: i32,
    pub emax: i32,
}

pub(crate) const F16: Format = Format { bits: 16, prec: 11, emin: -14, emax: 15 };
pub(crate) const F32: Format = Format { bits: 32, prec: 24, emin: -126, emax: 127 };
pub(crate) const F64: Format = Format { bits: 64, prec: 53, emin: -1022, emax: 1023 };
pub(crate) const X80: Format = Format { bits: 64, prec: 64, emin: -16382, emax: 16383 };

impl Format {
    /// Width of the interchange format in bits; not for [`X80`].
    pub const fn bits(self) -> u32 {
        self.bits
    }

    pub const fn sign_bit(self) -> u64 {
        1 << (self.bits() - 1)
    }

    const fn frac_bits(self) -> u32 {
        self.prec - 1
    }

    const fn quiet_bit(self) -> u64 {
        1 << (self.prec - 2)
    }

    /// The exponent field all ones: infinity.
    pub const fn infinity(self) -> u64 {
        (self.sign_bit() - 1) & !((1 << self.frac_bits()) - 1)
    }

    /// The QNaN floating-point indefinite (SDM vol. 1, table 4-3).
    pub const fn indefinite(self) -> u64 {
        self.sign_bit() | self.infinity() | self.quiet_bit()
    }

    /// The positive quiet NaN without a payload.
    pub const fn default_nan(self) -> u64 {
        self.infinity() | self.quiet_bit()
    }

    pub const fn quiet(self, bits: u64) -> u64 {
        bits | self.quiet_bit()
    }

    /// Encodes the integer significand `sig` of at most `prec` bits at exponent `exp` (a denormal when its top bit is clear).
    pub fn encode(self, sign: bool, sig: u64, exp: i32) -> u64 {
        let sign = if sign { self.sign_bit() } else { 0 };
        let normal = sig >> self.frac_bits() & 1;
        let biased = if normal == 0 { 0 } else { (exp + self.emax) as u64 };
        sign | biased << self.frac_bits() | sig & ((1 << self.frac_bits()) - 1)
    }

    /// Splits an encoding into its class and, for finite numbers and infinities, its value.
    pub fn decode(self, bits: u64) -> (Class, Val) {
        let sign = bits & self.sign_bit() != 0;
        let frac = bits & ((1 << self.frac_bits()) - 1);
        let biased = (bits & self.infinity()) >> self.frac_bits();
        if biased == self.infinity() >> self.frac_bits() {
            let class = match frac {
                0 => Class::Inf,
                _ if frac & self.quiet_bit() != 0 => Class::QNan,
                _ => Class::SNan,
            };
            return (class, Val::Inf(sign));
        }
        let shift = 128 - self.prec;
        match (biased, frac) {
            (0, 0) => (Class::Zero, Val::Zero(sign)),
            (0, _) => (Class::Denormal, normalize(sign, self.emin, u128::from(frac) << shift)),
            _ => {
                let sig = u128::from(frac | 1 << self.frac_bits()) << shift;
                (Class::Normal, Val::Finite(Finite { sign, exp: biased as i32 - self.emax, sig }))
            }
        }
    }

    /// The masked response to overflow (SDM vol. 1, table 4-10): infinity or the largest finite number.
    pub fn overflow(self, sign: bool, rc: Rounding) -> u64 {
        let magnitude = if overflows_to_infinity(sign, rc) { self.infinity() } else { self.infinity() - 1 };
        magnitude | if sign { self.sign_bit() } else { 0 }
    }
}

/// Whether a masked overflow gives infinity rather than the largest finite number (SDM vol. 1, table 4-10).
pub(crate) fn overflows_to_infinity(sign: bool, rc: Rounding) -> bool {
    match rc {
        Rounding::Nearest | Rounding::NearestAway => true,
        Rounding::Down => sign,
        Rounding::Up => !sign,
        Rounding::Zero => false,
    }
}

/// What an encoding stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Zero,
    Denormal,
    Normal,
    Inf,
    QNan,
    SNan,
    /// An x87 encoding that has been invalid since the 80387 (SDM vol. 1, table 8-3).
    Unsupported,
}

impl Class {
    pub fn is_nan(self) -> bool {
        matches!(self, Self::QNan | Self::SNan)
    }
}

/// A finite number other than zero: `sig / 2^127 * 2^exp`, bit 127 of `sig` set. Bit 0 may be a sticky bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finite {
    pub sign: bool,
    pub exp: i32,
    pub sig: u128,
}

/// A number that is not a NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Val {
    Zero(bool),
    Finite(Finite),
    Inf(bool),
}

impl Val {
    pub fn sign(self) -> bool {
        match self {
            Self::Zero(sign) | Self::Inf(sign) => sign,
            Self::Finite(f) => f.sign,
        }
    }

    pub fn with_sign(self, sign: bool) -> Self {
        match self {
            Self::Zero(_) => Self::Zero(sign),
            Self::Inf(_) => Self::Inf(sign),
            Self::Finite(f) => Self::Finite(Finite { sign, ..f }),
        }
    }

    pub fn neg(self) -> Self {
        self.with_sign(!self.sign())
    }

    fn to_wide(self) -> Wide {
        match self {
            Self::Zero(sign) => {
                if sign {
                    -Wide::ZERO
                } else {
                    Wide::ZERO
                }
            }
            Self::Inf(sign) => {
                if sign {
                    -Wide::INFINITY
                } else {
                    Wide::INFINITY
                }
            }
            Self::Finite(f) => Wide::from_bits(
                u128::from(f.sign) << 127
                    | ((f.exp + WIDE_BIAS) as u128) << WIDE_FRAC
                    | (f.sig << 1) >> (128 - WIDE_FRAC),
            ),
        }
    }

    fn from_wide(wide: Wide, inexact: bool) -> Self {
        let sign = wide.is_negative();
        if wide.is_zero() {
            return Self::Zero(sign);
        }
        if wide.is_infinite() {
            return Self::Inf(sign);
        }
        let bits = wide.to_bits();
        let exp = ((bits << 1) >> (WIDE_FRAC + 1)) as i32 - WIDE_BIAS;
        let sig = 1 << 127 | (bits << (128 - WIDE_FRAC)) >> 1 | u128::from(inexact);
        Self::Finite(Finite { sign, exp, sig })
    }

    /// Compares two numbers; zeros are equal.
    pub fn compare(self, other: Self) -> std::cmp::Ordering {
        self.order_key().cmp(&other.order_key())
    }

    fn order_key(self) -> (i8, i32, i128) {
        let (sign, exp, sig) = match self {
            Self::Zero(_) => return (0, 0, 0),
            Self::Inf(sign) => (sign, i32::MAX, 0),
            Self::Finite(f) => (f.sign, f.exp, (f.sig >> 1) as i128),
        };
        if sign { (-1, -exp, -sig) } else { (1, exp, sig) }
    }
}

/// Makes a number of a significand that may have leading zeros.
pub(crate) fn normalize(sign: bool, exp: i32, sig: u128) -> Val {
    if sig == 0 {
        return Val::Zero(sign);
    }
    let shift = sig.leading_zeros();
    Val::Finite(Finite { sign, exp: exp - shift as i32, sig: sig << shift })
}

/// The integer `magnitude` with a sign.
pub(crate) fn from_int(sign: bool, magnitude: u128) -> Val {
    normalize(sign, 127, magnitude)
}

struct WideS;

impl Semantics for WideS {
    const BITS: usize = 128;
    const EXP_BITS: usize = 18;
}

type Wide = IeeeFloat<WideS>;
const WIDE_FRAC: u32 = 109;
const WIDE_BIAS: i32 = (1 << 17) - 1;

/// The four basic operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arith {
    Add,
    Sub,
    Mul,
    Div,
}

/// Computes `a op b` exactly up to a sticky bit. The error is [`IE`] (no value); `Ok` carries whether a finite number was
/// divided by zero.
pub(crate) fn arith(op: Arith, a: Val, b: Val, rc: Rounding) -> Result<(Val, bool), u32> {
    let (x, y) = (a.to_wide(), b.to_wide());
    let result = match op {
        Arith::Add => x.add_r(y, Round::TowardZero),
        Arith::Sub => x.sub_r(y, Round::TowardZero),
        Arith::Mul => x.mul_r(y, Round::TowardZero),
        Arith::Div => x.div_r(y, Round::TowardZero),
    };
    if result.status.contains(Status::INVALID_OP) {
        return Err(IE);
    }
    let mut value = Val::from_wide(result.value, result.status.contains(Status::INEXACT));
    if let (Val::Zero(_), Arith::Add | Arith::Sub) = (value, op) {
        // The sign of an exact zero sum depends on the rounding mode, which the truncating operation does not know.
        let b_sign = b.sign() ^ (op == Arith::Sub);
        value = Val::Zero(if a.sign() == b_sign { a.sign() } else { rc == Rounding::Down });
    }
    Ok((value, result.status.contains(Status::DIV_BY_ZERO)))
}

/// The square root of a positive number whose low significand bit is no sticky bit: 66 bits and a sticky bit.
pub(crate) fn sqrt(f: Finite) -> Finite {
    // Two integer bits, so that the exponent is even.
    let mut digits = if f.exp & 1 == 0 { f.sig >> 1 } else { f.sig };
    let (mut root, mut rem) = (0u128, 0u128);
    for _ in 0..66 {
        rem = rem << 2 | digits >> 126;
        digits <<= 2;
        let trial = root << 2 | 1;
        root <<= 1;
        if rem >= trial {
            rem -= trial;
            root |= 1;
        }
    }
    Finite { sign: false, exp: f.exp >> 1, sig: root << 62 | u128::from(rem != 0) }
}

/// A significand rounded to an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RoundedInt {
    pub int: u128,
    pub inexact: bool,
    /// The magnitude was increased.
    pub up: bool,
}

/// Drops the low `drop` bits of `sig`, rounding what is left.
pub(crate) fn round_int(sig: u128, drop: u32, sign: bool, rc: Rounding) -> RoundedInt {
    const HALF: u128 = 1 << 127;
    let (kept, rem) = match drop {
        0 => (sig, 0),
        1..128 => (sig >> drop, sig << (128 - drop)),
        128 => (0, sig),
        _ => (0, u128::from(sig != 0)),
    };
    let up = rem != 0
        && match rc {
            Rounding::Nearest => rem > HALF || rem == HALF && kept & 1 == 1,
            Rounding::NearestAway => rem >= HALF,
            Rounding::Down => sign,
            Rounding::Up => !sign,
            Rounding::Zero => false,
        };
    RoundedInt { int: kept + u128::from(up), inexact: rem != 0, up }
}

/// Rounds a number to an integer; a magnitude of 2^127 or more gives `u128::MAX`.
pub(crate) fn to_int(f: Finite, rc: Rounding) -> RoundedInt {
    if f.exp > 126 {
        return RoundedInt { int: u128::MAX, inexact: false, up: false };
    }
    round_int(f.sig, (127 - f.exp) as u32, f.sign, rc)
}

/// A significand of at most `prec` bits with its exponent: `sig / 2^(prec - 1) * 2^exp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rounded {
    pub sig: u64,
    pub exp: i32,
    pub inexact: bool,
    pub up: bool,
}

/// How a rounded result lies in the destination's range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Range {
    Normal,
    /// Tiny after rounding (SDM vol. 1, 4.9.1.5), with the denormal number (or zero or smallest normal number) it becomes.
    Tiny(Rounded),
    Huge,
}

/// Rounds to the precision of `fmt`, with an unbounded exponent, and tells where the result lies.
pub(crate) fn round(f: Finite, fmt: Format, rc: Rounding) -> (Rounded, Range) {
    let drop = 128 - fmt.prec;
    let pack = |r: RoundedInt, exp: i32| {
        let carry = r.int >> fmt.prec != 0;
        let sig = if carry { r.int >> 1 } else { r.int } as u64;
        Rounded { sig, exp: exp + i32::from(carry), inexact: r.inexact, up: r.up }
    };
    let unbounded = pack(round_int(f.sig, drop, f.sign, rc), f.exp);
    let range = if unbounded.exp > fmt.emax {
        Range::Huge
    } else if unbounded.exp < fmt.emin {
        let denormal = round_int(f.sig, drop.saturating_add_signed(fmt.emin - f.exp), f.sign, rc);
        Range::Tiny(pack(denormal, fmt.emin))
    } else {
        Range::Normal
    };
    (unbounded, range)
}
