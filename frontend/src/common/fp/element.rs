//! Floating-point arithmetic on the bits of one number, and on the elements of a vector. What the standard leaves open is as SSE has
//! it (SDM vol. 1, 4.8, 4.9, 11.5; vol. 2, each instruction), but for what an [`Env`] says.

use super::soft::{self, Arith, Class, DE, F32, F64, Format, IE, OE, PE, Range, Rounding, UE, Val, ZE};
use super::{Env, Nans};
use std::cmp::Ordering;

/// Applies `f` to each pair of elements.
pub(crate) fn packed(fmt: Format, a: u128, b: u128, mut f: impl FnMut(u64, u64) -> u64) -> u128 {
    let mut out = 0;
    let mut at = 0;
    while at < 128 {
        out |= u128::from(f(element(fmt, a >> at), element(fmt, b >> at))) << at;
        at += fmt.bits();
    }
    out
}

/// Applies `f` to the low elements and keeps the rest of `a`.
pub(crate) fn scalar(fmt: Format, a: u128, b: u128, mut f: impl FnMut(u64, u64) -> u64) -> u128 {
    let mask = (1u128 << fmt.bits()) - 1;
    a & !mask | u128::from(f(element(fmt, a), element(fmt, b)))
}

/// The low element of `x`.
pub(crate) fn element(fmt: Format, x: u128) -> u64 {
    x as u64 & (u64::MAX >> (64 - fmt.bits()))
}

/// An operand under denormals-are-zeros.
fn daz(e: &Env, fmt: Format, x: u64) -> u64 {
    if e.denormals_are_zeros && x & fmt.infinity() == 0 { x & fmt.sign_bit() } else { x }
}

/// Rounds and encodes a result, with the masked responses of SDM vol. 1, 11.5.2.
pub(crate) fn finish(e: &mut Env, fmt: Format, v: Val) -> u64 {
    let f = match v {
        Val::Zero(sign) => return fmt.encode(sign, 0, 0),
        Val::Inf(sign) => return fmt.infinity() | if sign { fmt.sign_bit() } else { 0 },
        Val::Finite(f) => f,
    };
    let (unbounded, range) = soft::round(f, fmt, e.rounding);
    match range {
        Range::Normal => {
            if unbounded.inexact {
                e.raise(PE);
            }
            fmt.encode(f.sign, unbounded.sig, unbounded.exp)
        }
        Range::Huge => {
            // An unmasked overflow reports inexactness of the significand only.
            e.raise(OE | if unbounded.inexact || e.unmasked & OE == 0 { PE } else { 0 });
            fmt.overflow(f.sign, e.rounding)
        }
        Range::Tiny(_) if e.unmasked & UE != 0 => {
            e.raise(UE | if unbounded.inexact { PE } else { 0 });
            0
        }
        Range::Tiny(_) if e.flush_to_zero => {
            e.raise(UE | PE);
            fmt.encode(f.sign, 0, 0)
        }
        Range::Tiny(denormal) => {
            if denormal.inexact {
                e.raise(UE | PE);
            }
            fmt.encode(f.sign, denormal.sig, denormal.exp)
        }
    }
}

/// The NaN result of two operands, at least one of them a NaN: the first has precedence where it is propagated.
fn nan2(e: &mut Env, fmt: Format, (ca, a): (Class, u64), (cb, b): (Class, u64)) -> u64 {
    if ca == Class::SNan || cb == Class::SNan {
        e.raise(IE);
    }
    match e.nans {
        Nans::Propagated => fmt.quiet(if ca.is_nan() { a } else { b }),
        Nans::Default => fmt.default_nan(),
    }
}

fn denormal_operand(e: &mut Env, classes: [Class; 2]) {
    if classes.contains(&Class::Denormal) {
        e.raise(DE);
    }
}

/// `a op b`.
pub(crate) fn arith(e: &mut Env, fmt: Format, op: Arith, a: u64, b: u64) -> u64 {
    let (a, b) = (daz(e, fmt, a), daz(e, fmt, b));
    let ((ca, va), (cb, vb)) = (fmt.decode(a), fmt.decode(b));
    if ca.is_nan() || cb.is_nan() {
        return nan2(e, fmt, (ca, a), (cb, b));
    }
    match soft::arith(op, va, vb, e.rounding) {
        Err(_) => e.invalid(fmt),
        Ok((v, true)) => {
            e.raise(ZE);
            finish(e, fmt, v)
        }
        Ok((v, false)) => {
            denormal_operand(e, [ca, cb]);
            finish(e, fmt, v)
        }
    }
}

/// `±(a * b) ± c`, rounded once: the product of two significands is exact in the core's format.
pub(crate) fn multiply_add(e: &mut Env, fmt: Format, operands: [u64; 3], negate: (bool, bool)) -> u64 {
    let [a, b, c] = operands.map(|x| daz(e, fmt, x));
    let [(ca, va), (cb, vb), (cc, vc)] = [a, b, c].map(|x| fmt.decode(x));
    // Infinity times zero is invalid even when a quiet NaN is added.
    let undefined = matches!((ca, cb), (Class::Inf, Class::Zero) | (Class::Zero, Class::Inf));
    if undefined {
        e.raise(IE);
    }
    if cc.is_nan() && !ca.is_nan() && !cb.is_nan() {
        return nan2(e, fmt, (cc, c), (cc, c));
    }
    if ca.is_nan() || cb.is_nan() {
        if cc == Class::SNan {
            e.raise(IE);
        }
        return nan2(e, fmt, (ca, a), (cb, b));
    }
    let product = match soft::arith(Arith::Mul, va, vb, e.rounding) {
        Ok((product, _)) if !undefined => product,
        _ => return e.invalid(fmt),
    };
    let product = if negate.0 { product.neg() } else { product };
    let addend = if negate.1 { vc.neg() } else { vc };
    match soft::arith(Arith::Add, product, addend, e.rounding) {
        Err(_) => e.invalid(fmt),
        Ok((v, _)) => {
            denormal_operand(e, [ca, cb]);
            denormal_operand(e, [cc, cc]);
            finish(e, fmt, v)
        }
    }
}

/// The square root of `b`.
pub(crate) fn sqrt(e: &mut Env, fmt: Format, b: u64) -> u64 {
    let b = daz(e, fmt, b);
    let (class, v) = fmt.decode(b);
    if class.is_nan() {
        return nan2(e, fmt, (Class::Zero, 0), (class, b));
    }
    match v {
        Val::Zero(_) | Val::Inf(false) => b,
        Val::Finite(f) if !f.sign => {
            denormal_operand(e, [class, class]);
            finish(e, fmt, Val::Finite(soft::sqrt(f)))
        }
        _ => e.invalid(fmt),
    }
}

/// MIN and MAX: the second operand unless the first lies on the wanted side of it (so also for NaNs and two zeros).
pub(crate) fn min_max(e: &mut Env, fmt: Format, wanted: Ordering, a: u64, b: u64) -> u64 {
    let (a, b) = (daz(e, fmt, a), daz(e, fmt, b));
    match compare(e, fmt, true, a, b) {
        Some(order) if order == wanted => a,
        _ => b,
    }
}

/// Compares; `None` is unordered. A signalling comparison raises IE for quiet NaNs as well.
pub(crate) fn compare(e: &mut Env, fmt: Format, signalling: bool, a: u64, b: u64) -> Option<Ordering> {
    let (a, b) = (daz(e, fmt, a), daz(e, fmt, b));
    let ((ca, va), (cb, vb)) = (fmt.decode(a), fmt.decode(b));
    if ca.is_nan() || cb.is_nan() {
        if signalling || ca == Class::SNan || cb == Class::SNan {
            e.raise(IE);
        }
        return None;
    }
    denormal_operand(e, [ca, cb]);
    Some(va.compare(vb))
}

/// CMPccPS and its kin: all ones or zero. Bits 0-2 of `predicate` select EQ, LT, LE, UNORD, NEQ, NLT, NLE, ORD.
pub(crate) fn cmp(e: &mut Env, fmt: Format, predicate: u8, a: u64, b: u64) -> u64 {
    let signalling = matches!(predicate & 3, 1 | 2);
    let order = compare(e, fmt, signalling, a, b);
    let holds = match predicate & 3 {
        0 => order == Some(Ordering::Equal),
        1 => order == Some(Ordering::Less),
        2 => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        _ => order.is_none(),
    };
    if holds != (predicate & 4 != 0) { u64::MAX >> (64 - fmt.bits()) } else { 0 }
}

/// Horizontal and alternating forms: element `i` of the result is `x op y` with the operands and operation `pick(i)` names.
pub(crate) fn pairwise(e: &mut Env, fmt: Format, pick: impl Fn(u32) -> (u128, u128, Arith)) -> u128 {
    let mut out = 0;
    for i in 0..128 / fmt.bits() {
        let (x, y, op) = pick(i);
        out |= u128::from(arith(e, fmt, op, element(fmt, x), element(fmt, y))) << (i * fmt.bits());
    }
    out
}

/// HADDPx and HSUBPx.
pub(crate) fn horizontal_float(e: &mut Env, fmt: Format, op: Arith, a: u128, b: u128) -> u128 {
    let half = 64 / fmt.bits();
    pairwise(e, fmt, |i| {
        let from = if i < half { a } else { b };
        let at = i % half * 2 * fmt.bits();
        (from >> at, from >> (at + fmt.bits()), op)
    })
}

/// ADDSUBPx: subtract in even elements, add in odd ones.
pub(crate) fn addsub(e: &mut Env, fmt: Format, a: u128, b: u128) -> u128 {
    pairwise(e, fmt, |i| {
        let at = i * fmt.bits();
        (a >> at, b >> at, if i % 2 == 0 { Arith::Sub } else { Arith::Add })
    })
}

/// ROUNDxx: imm bits 0-1 are a rounding mode, bit 2 selects the environment's instead, bit 3 suppresses PE.
pub(crate) fn round_integral(e: &mut Env, fmt: Format, imm: u8, b: u64) -> u64 {
    let b = daz(e, fmt, b);
    let (class, v) = fmt.decode(b);
    if class.is_nan() {
        return nan2(e, fmt, (Class::Zero, 0), (class, b));
    }
    let Val::Finite(f) = v else { return b };
    if f.exp >= fmt.prec as i32 - 1 {
        return b;
    }
    let rc = if imm & 4 != 0 { e.rounding } else { Rounding::from_code(imm.into()) };
    let r = soft::to_int(f, rc);
    if r.inexact && imm & 8 == 0 {
        e.raise(PE);
    }
    match soft::from_int(f.sign, r.int) {
        Val::Finite(f) => fmt.encode(f.sign, (f.sig >> (128 - fmt.prec)) as u64, f.exp),
        _ => fmt.encode(f.sign, 0, 0),
    }
}

/// CVTxx2DQ, CVTxx2SI and their truncating forms: an integer of `width` bits, or the integer indefinite with IE.
pub(crate) fn to_integer(e: &mut Env, fmt: Format, truncate: bool, width: u32, b: u64) -> u64 {
    let b = daz(e, fmt, b);
    let (class, v) = fmt.decode(b);
    let mask = u64::MAX >> (64 - width);
    let limit = 1u128 << (width - 1);
    let f = match v {
        Val::Zero(_) => return 0,
        Val::Finite(f) => f,
        Val::Inf(_) => {
            debug_assert!(class.is_nan() || class == Class::Inf);
            e.raise(IE);
            return limit as u64;
        }
    };
    let r = soft::to_int(f, if truncate { Rounding::Zero } else { e.rounding });
    if r.int >= limit + u128::from(f.sign) {
        e.raise(IE);
        return limit as u64;
    }
    if r.inexact {
        e.raise(PE);
    }
    let magnitude = r.int as u64;
    (if f.sign { magnitude.wrapping_neg() } else { magnitude }) & mask
}

/// CVTDQ2xx, CVTPI2xx and CVTSI2xx.
pub(crate) fn from_integer(e: &mut Env, fmt: Format, x: i64) -> u64 {
    finish(e, fmt, soft::from_int(x < 0, x.unsigned_abs().into()))
}

/// CVTxS2xD and CVTxD2xS: a number of format `from` in format `to`.
pub(crate) fn convert(e: &mut Env, from: Format, to: Format, b: u64) -> u64 {
    let b = daz(e, from, b);
    let (class, v) = from.decode(b);
    if class.is_nan() {
        if class == Class::SNan {
            e.raise(IE);
        }
        return match e.nans {
            Nans::Propagated => convert_nan(from, to, b),
            Nans::Default => to.default_nan(),
        };
    }
    denormal_operand(e, [class, class]);
    finish(e, to, v)
}

/// A NaN in another format, made quiet: its payload is kept from the top.
fn convert_nan(from: Format, to: Format, b: u64) -> u64 {
    let sign = if b & from.sign_bit() != 0 { to.sign_bit() } else { 0 };
    let payload = b << (64 - from.prec + 1);
    to.quiet(sign | to.infinity() | payload >> (64 - to.prec + 1))
}

/// CVTPD2PS and CVTPS2PD on whole registers.
pub(crate) fn convert_packed(e: &mut Env, from: Format, to: Format, b: u128) -> u128 {
    u128::from(convert(e, from, to, element(from, b)))
        | u128::from(convert(e, from, to, element(from, b >> from.bits()))) << to.bits()
}

/// Converts each of `n` elements to a 32-bit integer; the rest is zero.
pub(crate) fn to_integers(e: &mut Env, fmt: Format, truncate: bool, n: u32, b: u128) -> u128 {
    (0..n)
        .map(|i| u128::from(to_integer(e, fmt, truncate, 32, element(fmt, b >> (i * fmt.bits())))) << (i * 32))
        .fold(0, |acc, lane| acc | lane)
}

/// Converts each of `n` 32-bit integers; the rest is zero.
pub(crate) fn from_integers(e: &mut Env, fmt: Format, n: u32, b: u128) -> u128 {
    (0..n)
        .map(|i| u128::from(from_integer(e, fmt, i64::from((b >> (i * 32)) as i32))) << (i * fmt.bits()))
        .fold(0, |acc, lane| acc | lane)
}

pub(crate) const S: Format = F32;
pub(crate) const D: Format = F64;
