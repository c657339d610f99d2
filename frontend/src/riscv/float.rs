//! Floating point, exact on every host (vol. I, "F", "D" and "Zfh" extensions): the arithmetic core that x86 has too, with RISC-V's
//! NaNs, flags and boxing.
//!
//! fflags and the rounding mode are kept as an x86 MXCSR has them, so that hosts which have one can round and raise flags for the
//! guest while compiled code runs. Of MXCSR's flags, denormal operands have no counterpart and are ignored.

use std::cmp::Ordering;

use mimus_ir::{VecInfo, VecKind};

use super::isa::{Code, Insn};
use super::state::State;
use crate::x86::fp::soft::{self, Arith, Class, F16, F32, F64, Format, IE, OE, PE, Range, Rounding, UE, Val, ZE};
use crate::x86::fp::{Mxcsr, inline};

/// [`State::mxcsr`] after reset: every exception masked.
pub const MXCSR_RESET: u64 = 0x1f80;

const RC_SHIFT: u32 = 13;

/// fflags' bits from the lowest on, as flags of MXCSR: NX, UF, OF, DZ, NV.
const FLAGS: [u32; 5] = [PE, UE, OE, ZE, IE];

/// Rounding mode `rm` to nearest, ties away from zero, which no host has.
pub const RMM: u8 = 4;

/// fflags.
pub fn fflags(state: &State) -> u64 {
    let set = FLAGS.iter().zip(0..).filter(|&(&flag, _)| state.mxcsr & u64::from(flag) != 0);
    set.fold(0, |flags, (_, bit)| flags | 1 << bit)
}

/// Sets fflags.
pub fn set_fflags(state: &mut State, value: u64) {
    let set = FLAGS.iter().zip(0..).filter(|&(_, bit)| value >> bit & 1 != 0);
    let flags = set.fold(0, |flags, (&flag, _)| flags | u64::from(flag));
    state.mxcsr = state.mxcsr & !u64::from(Mxcsr::FLAGS) | flags;
}

/// Takes frm into MXCSR. Where there is no such mode there, no operation asks for it.
pub fn set_rounding(state: &mut State) {
    let rc = rounding(state.frm as u8) as u64 & 3;
    state.mxcsr = state.mxcsr & !(3 << RC_SHIFT) | rc << RC_SHIFT;
}

/// The rounding mode numbered `rm`.
pub const fn rounding(rm: u8) -> Rounding {
    match rm {
        1 => Rounding::Zero,
        2 => Rounding::Down,
        3 => Rounding::Up,
        RMM => Rounding::NearestAway,
        _ => Rounding::Nearest,
    }
}

/// An operation of the IR's vector table, by the rounding mode in MXCSR, where its flags go.
pub fn operation(state: &mut State, info: VecInfo, operands: [u128; 3]) -> u128 {
    let [a, b, _] = operands;
    let multiply_add = match info.kind {
        VecKind::MulAddF32 => Some((F32, 0xffff_ffff)),
        VecKind::MulAddF64 => Some((F64, u64::MAX)),
        _ => None,
    };
    if let Some((fmt, mask)) = multiply_add {
        let mut unit = Unit { rc: Mxcsr(state.mxcsr as u32).rounding(), flags: 0 };
        let value = unit.multiply_add(fmt, operands.map(|x| x as u64 & mask), (false, false));
        state.mxcsr |= u64::from(unit.flags);
        return a & !u128::from(mask) | u128::from(value);
    }
    let mut mxcsr = Mxcsr(state.mxcsr as u32);
    let value = inline::float(info, a, b, &mut mxcsr);
    state.mxcsr = mxcsr.0.into();
    value
}

/// A number of format `fmt` in a register: what is not boxed is the canonical NaN.
const fn unbox(fmt: Format, register: u64) -> u64 {
    let value = low(fmt);
    if register & !value == !value { register & value } else { canonical(fmt) }
}

/// The bits that a number of format `fmt` has.
const fn low(fmt: Format) -> u64 {
    u64::MAX >> (64 - fmt.bits())
}

/// The box of a single-precision number.
pub const fn boxed(bits: u64) -> u64 {
    bits | !low(F32)
}

/// The box of a half-precision number.
pub const fn boxed_half(bits: u64) -> u64 {
    bits | !low(F16)
}

/// The canonical NaN.
const fn canonical(fmt: Format) -> u64 {
    fmt.quiet(fmt.infinity())
}

/// One operation: its rounding mode, and the flags that it has raised.
struct Unit {
    rc: Rounding,
    flags: u32,
}

impl Unit {
    fn invalid(&mut self, fmt: Format) -> u64 {
        self.flags |= IE;
        canonical(fmt)
    }

    /// The canonical NaN if there is a NaN among `classes`; a signalling one is invalid.
    fn nan(&mut self, fmt: Format, classes: &[Class]) -> Option<u64> {
        if classes.contains(&Class::SNan) {
            self.flags |= IE;
        }
        classes.iter().any(|c| c.is_nan()).then_some(canonical(fmt))
    }

    /// Rounds and encodes a result.
    fn finish(&mut self, fmt: Format, v: Val) -> u64 {
        let f = match v {
            Val::Zero(sign) => return fmt.encode(sign, 0, 0),
            Val::Inf(sign) => return fmt.infinity() | if sign { fmt.sign_bit() } else { 0 },
            Val::Finite(f) => f,
        };
        let (unbounded, range) = soft::round(f, fmt, self.rc);
        match range {
            Range::Normal => {
                self.flags |= if unbounded.inexact { PE } else { 0 };
                fmt.encode(f.sign, unbounded.sig, unbounded.exp)
            }
            Range::Huge => {
                self.flags |= OE | PE;
                fmt.overflow(f.sign, self.rc)
            }
            Range::Tiny(denormal) => {
                self.flags |= if denormal.inexact { UE | PE } else { 0 };
                fmt.encode(f.sign, denormal.sig, denormal.exp)
            }
        }
    }

    fn arith(&mut self, fmt: Format, op: Arith, a: u64, b: u64) -> u64 {
        let ((ca, va), (cb, vb)) = (fmt.decode(a), fmt.decode(b));
        if let Some(nan) = self.nan(fmt, &[ca, cb]) {
            return nan;
        }
        match soft::arith(op, va, vb, self.rc) {
            Err(_) => self.invalid(fmt),
            Ok((v, by_zero)) => {
                self.flags |= if by_zero { ZE } else { 0 };
                self.finish(fmt, v)
            }
        }
    }

    /// `±(a * b) ± c`, rounded once: the product of two significands is exact in the core's format.
    fn multiply_add(&mut self, fmt: Format, [a, b, c]: [u64; 3], negate: (bool, bool)) -> u64 {
        let [(ca, va), (cb, vb), (cc, vc)] = [a, b, c].map(|x| fmt.decode(x));
        // Infinity times zero is invalid even when a quiet NaN is added.
        let undefined = matches!((ca, cb), (Class::Inf, Class::Zero) | (Class::Zero, Class::Inf));
        if undefined {
            self.flags |= IE;
        }
        if let Some(nan) = self.nan(fmt, &[ca, cb, cc]) {
            return nan;
        }
        let product = match soft::arith(Arith::Mul, va, vb, self.rc) {
            Ok((product, _)) if !undefined => product,
            _ => return self.invalid(fmt),
        };
        let product = if negate.0 { product.neg() } else { product };
        let addend = if negate.1 { vc.neg() } else { vc };
        match soft::arith(Arith::Add, product, addend, self.rc) {
            Err(_) => self.invalid(fmt),
            Ok((v, _)) => self.finish(fmt, v),
        }
    }

    fn sqrt(&mut self, fmt: Format, a: u64) -> u64 {
        let (class, v) = fmt.decode(a);
        if let Some(nan) = self.nan(fmt, &[class]) {
            return nan;
        }
        match v {
            Val::Zero(_) | Val::Inf(false) => a,
            Val::Finite(f) if !f.sign => self.finish(fmt, Val::Finite(soft::sqrt(f))),
            _ => self.invalid(fmt),
        }
    }

    /// FMIN and FMAX: a NaN gives way to a number, and -0 is less than +0.
    fn extreme(&mut self, fmt: Format, wanted: Ordering, a: u64, b: u64) -> u64 {
        let ((ca, va), (cb, vb)) = (fmt.decode(a), fmt.decode(b));
        self.nan(fmt, &[ca, cb]);
        match (ca.is_nan(), cb.is_nan()) {
            (true, true) => canonical(fmt),
            (true, false) => b,
            (false, true) => a,
            _ => {
                // Of two zeros the one with a sign is less.
                let order = va.compare(vb).then(vb.sign().cmp(&va.sign()));
                if order == wanted { a } else { b }
            }
        }
    }

    /// The order of two numbers; `None` if one is a NaN, which a quiet comparison objects to only if it is a signalling one.
    fn compare(&mut self, fmt: Format, quiet: bool, a: u64, b: u64) -> Option<Ordering> {
        let ((ca, va), (cb, vb)) = (fmt.decode(a), fmt.decode(b));
        if self.nan(fmt, &[ca, cb]).is_some() {
            self.flags |= if quiet { 0 } else { IE };
            return None;
        }
        Some(va.compare(vb))
    }

    /// To an integer from `least` to `most`, the ends standing for what is beyond, and `most` for NaNs.
    fn integer_of(&mut self, fmt: Format, a: u64, (least, most): (i128, i128)) -> u64 {
        let (class, v) = fmt.decode(a);
        let integer = match v {
            _ if class.is_nan() => None,
            Val::Zero(_) => return 0,
            Val::Inf(sign) => Some((if sign { i128::MIN } else { i128::MAX }, false)),
            Val::Finite(f) => {
                let r = soft::to_int(f, self.rc);
                let magnitude = i128::try_from(r.int).unwrap_or(i128::MAX);
                Some((if f.sign { -magnitude } else { magnitude }, r.inexact))
            }
        };
        let Some((value, inexact)) = integer else {
            self.flags |= IE;
            return most as u64;
        };
        if !(least..=most).contains(&value) {
            self.flags |= IE;
        } else if inexact {
            self.flags |= PE;
        }
        value.clamp(least, most) as u64
    }

    fn of_integer(&mut self, fmt: Format, value: i128) -> u64 {
        self.finish(fmt, soft::from_int(value < 0, value.unsigned_abs()))
    }

    fn convert(&mut self, from: Format, to: Format, a: u64) -> u64 {
        let (class, v) = from.decode(a);
        match self.nan(to, &[class]) {
            Some(nan) => nan,
            None => self.finish(to, v),
        }
    }
}

/// FCLASS: one bit of ten.
fn classify(fmt: Format, a: u64) -> u64 {
    let negative = a & fmt.sign_bit() != 0;
    let (down, up) = match fmt.decode(a).0 {
        Class::Inf => (0, 7),
        Class::Normal => (1, 6),
        Class::Denormal => (2, 5),
        Class::Zero => (3, 4),
        Class::SNan => (8, 8),
        Class::QNan | Class::Unsupported => (9, 9),
    };
    1 << if negative { down } else { up }
}

/// What an instruction does with its operands, in the format of what it computes.
type Operation = fn(&mut Unit, Format, [u64; 3]) -> u64;

/// The semantics of an instruction: the format that it works in, those of its floating-point operands and of its result, where an
/// integer counts as a double, and what it does; `None` if it has none here.
fn semantics(code: Code) -> Option<(Format, Format, Format, Operation)> {
    use Code::*;
    const W: (i128, i128) = (i32::MIN as i128, i32::MAX as i128);
    const WU: (i128, i128) = (0, u32::MAX as i128);
    const L: (i128, i128) = (i64::MIN as i128, i64::MAX as i128);
    const LU: (i128, i128) = (0, u64::MAX as i128);
    // What a 32-bit conversion leaves in a register is sign-extended, unsigned or not.
    const fn word(value: u64) -> u64 {
        value as i32 as u64
    }
    let (fmt, operand, result) = match code {
        FcvtSW | FcvtSWu | FcvtSL | FcvtSLu => (F32, F64, F32),
        FcvtHW | FcvtHWu | FcvtHL | FcvtHLu => (F16, F64, F16),
        FcvtWS | FcvtWuS | FcvtLS | FcvtLuS | FeqS | FltS | FleS | FclassS => (F32, F32, F64),
        FcvtWH | FcvtWuH | FcvtLH | FcvtLuH | FeqH | FltH | FleH | FclassH => (F16, F16, F64),
        FmaddS | FmsubS | FnmsubS | FnmaddS | FaddS | FsubS | FmulS | FdivS | FsqrtS | FminS | FmaxS | FsgnjS
        | FsgnjnS | FsgnjxS => (F32, F32, F32),
        FmaddH | FmsubH | FnmsubH | FnmaddH | FaddH | FsubH | FmulH | FdivH | FsqrtH | FminH | FmaxH | FsgnjH
        | FsgnjnH | FsgnjxH => (F16, F16, F16),
        FcvtDS => (F64, F32, F64),
        FcvtDH => (F64, F16, F64),
        FcvtSD => (F32, F64, F32),
        FcvtSH => (F32, F16, F32),
        FcvtHS => (F16, F32, F16),
        FcvtHD => (F16, F64, F16),
        _ => (F64, F64, F64),
    };
    let operation: Operation = match code {
        FaddS | FaddD | FaddH => |u, f, [a, b, _]| u.arith(f, Arith::Add, a, b),
        FsubS | FsubD | FsubH => |u, f, [a, b, _]| u.arith(f, Arith::Sub, a, b),
        FmulS | FmulD | FmulH => |u, f, [a, b, _]| u.arith(f, Arith::Mul, a, b),
        FdivS | FdivD | FdivH => |u, f, [a, b, _]| u.arith(f, Arith::Div, a, b),
        FsqrtS | FsqrtD | FsqrtH => |u, f, [a, _, _]| u.sqrt(f, a),
        FmaddS | FmaddD | FmaddH => |u, f, operands| u.multiply_add(f, operands, (false, false)),
        FmsubS | FmsubD | FmsubH => |u, f, operands| u.multiply_add(f, operands, (false, true)),
        FnmsubS | FnmsubD | FnmsubH => |u, f, operands| u.multiply_add(f, operands, (true, false)),
        FnmaddS | FnmaddD | FnmaddH => |u, f, operands| u.multiply_add(f, operands, (true, true)),
        FminS | FminD | FminH => |u, f, [a, b, _]| u.extreme(f, Ordering::Less, a, b),
        FmaxS | FmaxD | FmaxH => |u, f, [a, b, _]| u.extreme(f, Ordering::Greater, a, b),
        FsgnjS | FsgnjD | FsgnjH => |_, f, [a, b, _]| a & !f.sign_bit() | b & f.sign_bit(),
        FsgnjnS | FsgnjnD | FsgnjnH => |_, f, [a, b, _]| a & !f.sign_bit() | !b & f.sign_bit(),
        FsgnjxS | FsgnjxD | FsgnjxH => |_, f, [a, b, _]| a ^ b & f.sign_bit(),
        FeqS | FeqD | FeqH => |u, f, [a, b, _]| (u.compare(f, true, a, b) == Some(Ordering::Equal)).into(),
        FltS | FltD | FltH => |u, f, [a, b, _]| (u.compare(f, false, a, b) == Some(Ordering::Less)).into(),
        FleS | FleD | FleH => {
            |u, f, [a, b, _]| u.compare(f, false, a, b).is_some_and(|o| o != Ordering::Greater).into()
        }
        FclassS | FclassD | FclassH => |_, f, [a, _, _]| classify(f, a),
        FcvtWS | FcvtWD | FcvtWH => |u, f, [a, _, _]| word(u.integer_of(f, a, W)),
        FcvtWuS | FcvtWuD | FcvtWuH => |u, f, [a, _, _]| word(u.integer_of(f, a, WU)),
        FcvtLS | FcvtLD | FcvtLH => |u, f, [a, _, _]| u.integer_of(f, a, L),
        FcvtLuS | FcvtLuD | FcvtLuH => |u, f, [a, _, _]| u.integer_of(f, a, LU),
        FcvtSW | FcvtDW | FcvtHW => |u, f, [a, _, _]| u.of_integer(f, (a as i32).into()),
        FcvtSWu | FcvtDWu | FcvtHWu => |u, f, [a, _, _]| u.of_integer(f, (a as u32).into()),
        FcvtSL | FcvtDL | FcvtHL => |u, f, [a, _, _]| u.of_integer(f, (a as i64).into()),
        FcvtSLu | FcvtDLu | FcvtHLu => |u, f, [a, _, _]| u.of_integer(f, a.into()),
        FcvtDS | FcvtHS => |u, f, [a, _, _]| u.convert(F32, f, a),
        FcvtSD | FcvtHD => |u, f, [a, _, _]| u.convert(F64, f, a),
        FcvtSH | FcvtDH => |u, f, [a, _, _]| u.convert(F16, f, a),
        _ => return None,
    };
    Some((fmt, operand, result, operation))
}

/// Executes an instruction that [`compute`] knows, by the rounding mode in it, on the registers of `state`.
pub fn execute(state: &mut State, insn: &Insn) {
    let syntax = insn.row().syntax;
    let mut operands = [0; 3];
    for (operand, c) in operands.iter_mut().zip(syntax.bytes().filter(|c| SOURCES.contains(c))) {
        let f = |number: u8| state.f[usize::from(number & 31)][0];
        *operand = match c {
            b'S' => f(insn.rs1),
            b'T' => f(insn.rs2),
            b'U' => f(insn.rs3),
            _ => state.x[usize::from(insn.rs1 & 31)],
        };
    }
    let value = compute(insn.code, insn.rm, operands, &mut state.mxcsr);
    if syntax.starts_with('D') {
        state.f[usize::from(insn.rd & 31)] = [value, 0];
    } else {
        state.set_x(insn.rd, value);
    }
}

/// Letters of source operands in the table's syntax.
pub(super) const SOURCES: &[u8] = b"STUs";

/// Does an instruction on the 64 bits of its source registers, floating-point or integer; the 64 bits of its result. Flags are
/// or-ed into `mxcsr`.
pub fn compute(code: Code, rm: u8, operands: [u64; 3], mxcsr: &mut u64) -> u64 {
    let Some((fmt, operand, result, operation)) = semantics(code) else { return 0 };
    let mut unit = Unit { rc: rounding(rm), flags: 0 };
    let value = operation(&mut unit, fmt, operands.map(|register| unbox(operand, register)));
    *mxcsr |= u64::from(unit.flags);
    if result == F64 { value } else { value | !low(result) }
}
