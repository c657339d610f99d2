//! Floating point, exact on every host (vol. I, "F", "D" and "Zfh" extensions): the arithmetic of [`crate::common::fp`], with RISC-V's
//! NaNs, flags and boxing.
//!
//! fflags and the rounding mode are kept as the IR's floating-point environment ([`FpEnv`]), so that hosts can round and raise flags
//! for the guest while compiled code runs. RISC-V has no flag for denormal operands: what a host says of them is ignored.

use std::cmp::Ordering;

use mimus_ir::{FpEnv, FpFlags, VecInfo};

use super::isa::{Code, Insn};
use super::state::State;
use crate::common::fp::element::{arith, compare, convert, finish, multiply_add, sqrt};
use crate::common::fp::soft::{self, Arith, Class, DE, F16, F32, F64, Format, IE, PE, Val};
use crate::common::fp::{self, Env, Rounding};

/// [`State::fp_env`] after reset: no exception traps, and every NaN is the canonical one.
pub const FP_ENV_RESET: FpEnv = FpEnv::RESET.union(FpEnv::DEFAULT_NAN);

/// fflags' bits from the lowest on: NX, UF, OF, DZ, NV.
const FLAGS: [FpFlags; 5] =
    [FpFlags::INEXACT, FpFlags::UNDERFLOW, FpFlags::OVERFLOW, FpFlags::DIVIDE_BY_ZERO, FpFlags::INVALID];

/// Rounding mode `rm` to nearest, ties away from zero, which no host has.
pub const RMM: u8 = 4;

impl State {
    /// The floating-point environment.
    pub const fn fp_env(&self) -> FpEnv {
        FpEnv::from_bits_retain(self.fp_env as u32)
    }

    const fn set_fp_env(&mut self, env: FpEnv) {
        self.fp_env = env.bits() as u64;
    }
}

/// fflags.
pub fn fflags(state: &State) -> u64 {
    let raised = state.fp_env().flags();
    FLAGS.iter().zip(0..).filter(|&(&flag, _)| raised.contains(flag)).fold(0, |flags, (_, bit)| flags | 1 << bit)
}

/// Sets fflags.
pub fn set_fflags(state: &mut State, value: u64) {
    let set = FLAGS.iter().zip(0..).filter(|&(_, bit)| value >> bit & 1 != 0);
    state.set_fp_env(state.fp_env().with_flags(set.map(|(&flag, _)| flag).collect()));
}

/// Takes frm into the environment.
pub fn set_rounding(state: &mut State) {
    state.set_fp_env(state.fp_env().with_rounding(rounding(state.frm as u8)));
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

/// An operation of the IR's vector table, by the environment, where its flags go.
pub fn operation(state: &mut State, info: VecInfo, operands: [u128; 3]) -> u128 {
    let mut env = Env::of(state.fp_env());
    let value = fp::float(&mut env, info, operands);
    state.fp_env |= u64::from(env.finish());
    value
}

/// A number of format `fmt` in a register: what is not boxed is the canonical NaN.
const fn unbox(fmt: Format, register: u64) -> u64 {
    let value = low(fmt);
    if register & !value == !value { register & value } else { fmt.default_nan() }
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

/// Notes that an operand is a NaN that signals.
fn signal(e: &mut Env, classes: &[Class]) {
    if classes.contains(&Class::SNan) {
        e.raise(IE);
    }
}

/// FMIN and FMAX: a NaN gives way to a number, and -0 is less than +0.
fn extreme(e: &mut Env, fmt: Format, wanted: Ordering, a: u64, b: u64) -> u64 {
    let ((ca, va), (cb, vb)) = (fmt.decode(a), fmt.decode(b));
    signal(e, &[ca, cb]);
    match (ca.is_nan(), cb.is_nan()) {
        (true, true) => fmt.default_nan(),
        (true, false) => b,
        (false, true) => a,
        _ => {
            // Of two zeros the one with a sign is less.
            let order = va.compare(vb).then(vb.sign().cmp(&va.sign()));
            if order == wanted { a } else { b }
        }
    }
}

/// To an integer from `least` to `most`, the ends standing for what is beyond, and `most` for NaNs.
fn integer_of(e: &mut Env, fmt: Format, a: u64, (least, most): (i128, i128)) -> u64 {
    let (class, v) = fmt.decode(a);
    let integer = match v {
        _ if class.is_nan() => None,
        Val::Zero(_) => return 0,
        Val::Inf(sign) => Some((if sign { i128::MIN } else { i128::MAX }, false)),
        Val::Finite(f) => {
            let r = soft::to_int(f, e.rounding);
            let magnitude = i128::try_from(r.int).unwrap_or(i128::MAX);
            Some((if f.sign { -magnitude } else { magnitude }, r.inexact))
        }
    };
    let Some((value, inexact)) = integer else {
        e.raise(IE);
        return most as u64;
    };
    if !(least..=most).contains(&value) {
        e.raise(IE);
    } else if inexact {
        e.raise(PE);
    }
    value.clamp(least, most) as u64
}

fn of_integer(e: &mut Env, fmt: Format, value: i128) -> u64 {
    finish(e, fmt, soft::from_int(value < 0, value.unsigned_abs()))
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
type Operation = fn(&mut Env, Format, [u64; 3]) -> u64;

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
        FaddS | FaddD | FaddH => |e, f, [a, b, _]| arith(e, f, Arith::Add, a, b),
        FsubS | FsubD | FsubH => |e, f, [a, b, _]| arith(e, f, Arith::Sub, a, b),
        FmulS | FmulD | FmulH => |e, f, [a, b, _]| arith(e, f, Arith::Mul, a, b),
        FdivS | FdivD | FdivH => |e, f, [a, b, _]| arith(e, f, Arith::Div, a, b),
        FsqrtS | FsqrtD | FsqrtH => |e, f, [a, _, _]| sqrt(e, f, a),
        FmaddS | FmaddD | FmaddH => |e, f, operands| multiply_add(e, f, operands, (false, false)),
        FmsubS | FmsubD | FmsubH => |e, f, operands| multiply_add(e, f, operands, (false, true)),
        FnmsubS | FnmsubD | FnmsubH => |e, f, operands| multiply_add(e, f, operands, (true, false)),
        FnmaddS | FnmaddD | FnmaddH => |e, f, operands| multiply_add(e, f, operands, (true, true)),
        FminS | FminD | FminH => |e, f, [a, b, _]| extreme(e, f, Ordering::Less, a, b),
        FmaxS | FmaxD | FmaxH => |e, f, [a, b, _]| extreme(e, f, Ordering::Greater, a, b),
        FsgnjS | FsgnjD | FsgnjH => |_, f, [a, b, _]| a & !f.sign_bit() | b & f.sign_bit(),
        FsgnjnS | FsgnjnD | FsgnjnH => |_, f, [a, b, _]| a & !f.sign_bit() | !b & f.sign_bit(),
        FsgnjxS | FsgnjxD | FsgnjxH => |_, f, [a, b, _]| a ^ b & f.sign_bit(),
        FeqS | FeqD | FeqH => |e, f, [a, b, _]| (compare(e, f, false, a, b) == Some(Ordering::Equal)).into(),
        FltS | FltD | FltH => |e, f, [a, b, _]| (compare(e, f, true, a, b) == Some(Ordering::Less)).into(),
        FleS | FleD | FleH => {
            |e, f, [a, b, _]| compare(e, f, true, a, b).is_some_and(|o| o != Ordering::Greater).into()
        }
        FclassS | FclassD | FclassH => |_, f, [a, _, _]| classify(f, a),
        FcvtWS | FcvtWD | FcvtWH => |e, f, [a, _, _]| word(integer_of(e, f, a, W)),
        FcvtWuS | FcvtWuD | FcvtWuH => |e, f, [a, _, _]| word(integer_of(e, f, a, WU)),
        FcvtLS | FcvtLD | FcvtLH => |e, f, [a, _, _]| integer_of(e, f, a, L),
        FcvtLuS | FcvtLuD | FcvtLuH => |e, f, [a, _, _]| integer_of(e, f, a, LU),
        FcvtSW | FcvtDW | FcvtHW => |e, f, [a, _, _]| of_integer(e, f, (a as i32).into()),
        FcvtSWu | FcvtDWu | FcvtHWu => |e, f, [a, _, _]| of_integer(e, f, (a as u32).into()),
        FcvtSL | FcvtDL | FcvtHL => |e, f, [a, _, _]| of_integer(e, f, (a as i64).into()),
        FcvtSLu | FcvtDLu | FcvtHLu => |e, f, [a, _, _]| of_integer(e, f, a.into()),
        FcvtDS | FcvtHS => |e, f, [a, _, _]| convert(e, F32, f, a),
        FcvtSD | FcvtHD => |e, f, [a, _, _]| convert(e, F64, f, a),
        FcvtSH | FcvtDH => |e, f, [a, _, _]| convert(e, F16, f, a),
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
    let value = compute(state, insn.code, insn.rm, operands);
    if syntax.starts_with('D') {
        state.f[usize::from(insn.rd & 31)] = [value, 0];
    } else {
        state.set_x(insn.rd, value);
    }
}

/// Letters of source operands in the table's syntax.
pub(super) const SOURCES: &[u8] = b"STUs";

/// Does an instruction on the 64 bits of its source registers, floating-point or integer; the 64 bits of its result. Flags are
/// raised in `state`.
pub fn compute(state: &mut State, code: Code, rm: u8, operands: [u64; 3]) -> u64 {
    let Some((fmt, operand, result, operation)) = semantics(code) else { return 0 };
    let mut env = Env::of(state.fp_env().with_rounding(rounding(rm)));
    let value = operation(&mut env, fmt, operands.map(|register| unbox(operand, register)));
    state.fp_env |= u64::from(env.finish() & !DE);
    if result == F64 { value } else { value | !low(result) }
}
