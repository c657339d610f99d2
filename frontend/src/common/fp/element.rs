//! SSE floating-point arithmetic on the bits of one element (SDM vol. 1, 4.8, 4.9, 11.5; vol. 2, each instruction).

use super::mxcsr::Env;
use super::soft::{self, Arith, Class, DE, F32, F64, Finite, Format, IE, OE, PE, Range, Rounding, UE, Val, ZE};
use std::cmp::Ordering;

/// Applies `f` to each pair of elements.
pub(super) fn packed(fmt: Format, a: u128, b: u128, mut f: impl FnMut(u64, u64) -> u64) -> u128 {
    let mut out = 0;
    let mut at = 0;
    while at < 128 {
        out |= u128::from(f(element(fmt, a >> at), element(fmt, b >> at))) << at;
        at += fmt.bits();
    }
    out
}

/// Applies `f` to the low elements and keeps the rest of `a`.
pub(super) fn scalar(fmt: Format, a: u128, b: u128, mut f: impl FnMut(u64, u64) -> u64) -> u128 {
    let mask = (1u128 << fmt.bits()) - 1;
    a & !mask | u128::from(f(element(fmt, a), element(fmt, b)))
}

/// The low element of `x`.
pub(super) fn element(fmt: Format, x: u128) -> u64 {
    x as u64 & (u64::MAX >> (64 - fmt.bits()))
}

/// An operand under denormals-are-zeros.
fn daz(e: &Env, fmt: Format, x: u64) -> u64 {
    if e.daz && x & fmt.infinity() == 0 { x & fmt.sign_bit() } else { x }
}

/// Rounds and encodes a result, with the masked responses of SDM vol. 1, 11.5.2.
pub(super) fn finish(e: &mut Env, fmt: Format, v: Val) -> u64 {
    let f = match v {
        Val::Zero(sign) => return fmt.encode(sign, 0, 0),
        Val::Inf(sign) => return fmt.infinity() | if sign { fmt.sign_bit() } else { 0 },
        Val::Finite(f) => f,
    };
    let (unbounded, range) = soft::round(f, fmt, e.rc);
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
            fmt.overflow(f.sign, e.rc)
        }
        Range::Tiny(_) if e.unmasked & UE != 0 => {
            e.raise(UE | if unbounded.inexact { PE } else { 0 });
            0
        }
        Range::Tiny(_) if e.ftz => {
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

/// The NaN result of two operands, at least one of them a NaN (SDM vol. 1, table 4-7: the first operand has precedence).
fn nan2(e: &mut Env, fmt: Format, (ca, a): (Class, u64), (cb, b): (Class, u64)) -> u64 {
    if ca == Class::SNan || cb == Class::SNan {
        e.raise(IE);
    }
    fmt.quiet(if ca.is_nan() { a } else { b })
}

fn denormal_operand(e: &mut Env, classes: [Class; 2]) {
    if classes.contains(&Class::Denormal) {
        e.raise(DE);
    }
}

/// `a op b`.
pub(super) fn arith(e: &mut Env, fmt: Format, op: Arith, a: u64, b: u64) -> u64 {
    let (a, b) = (daz(e, fmt, a), daz(e, fmt, b));
    let ((ca, va), (cb, vb)) = (fmt.decode(a), fmt.decode(b));
    if ca.is_nan() || cb.is_nan() {
        return nan2(e, fmt, (ca, a), (cb, b));
    }
    match soft::arith(op, va, vb, e.rc) {
        Err(flags) => {
            e.raise(flags);
            fmt.indefinite()
        }
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

/// The square root of `b`.
pub(super) fn sqrt(e: &mut Env, fmt: Format, b: u64) -> u64 {
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
        _ => {
            e.raise(IE);
            fmt.indefinite()
        }
    }
}

/// MIN and MAX: the second operand unless the first lies on the wanted side of it (so also for NaNs and two zeros).
pub(super) fn min_max(e: &mut Env, fmt: Format, wanted: Ordering, a: u64, b: u64) -> u64 {
    let (a, b) = (daz(e, fmt, a), daz(e, fmt, b));
    match compare(e, fmt, true, a, b) {
        Some(order) if order == wanted => a,
        _ => b,
    }
}

/// Compares; `None` is unordered. A signalling comparison raises IE for quiet NaNs as well.
fn compare(e: &mut Env, fmt: Format, signalling: bool, a: u64, b: u64) -> Option<Ordering> {
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
pub(super) fn cmp(e: &mut Env, fmt: Format, predicate: u8, a: u64, b: u64) -> u64 {
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

/// COMISx (signalling) and UCOMISx: ZF, PF and CF.
pub(super) fn comis(e: &mut Env, fmt: Format, signalling: bool, a: u128, b: u128) -> u128 {
    super::eflags_of_order(compare(e, fmt, signalling, element(fmt, a), element(fmt, b))).into()
}

/// Horizontal and alternating forms: element `i` of the result is `x op y` with the operands and operation `pick(i)` names.
pub(super) fn pairwise(e: &mut Env, fmt: Format, pick: impl Fn(u32) -> (u128, u128, Arith)) -> u128 {
    let mut out = 0;
    for i in 0..128 / fmt.bits() {
        let (x, y, op) = pick(i);
        out |= u128::from(arith(e, fmt, op, element(fmt, x), element(fmt, y))) << (i * fmt.bits());
    }
    out
}

/// HADDPx and HSUBPx.
pub(super) fn horizontal_float(e: &mut Env, fmt: Format, op: Arith, a: u128, b: u128) -> u128 {
    let half = 64 / fmt.bits();
    pairwise(e, fmt, |i| {
        let from = if i < half { a } else { b };
        let at = i % half * 2 * fmt.bits();
        (from >> at, from >> (at + fmt.bits()), op)
    })
}

/// ADDSUBPx: subtract in even elements, add in odd ones.
pub(super) fn addsub(e: &mut Env, fmt: Format, a: u128, b: u128) -> u128 {
    pairwise(e, fmt, |i| {
        let at = i * fmt.bits();
        (a >> at, b >> at, if i % 2 == 0 { Arith::Sub } else { Arith::Add })
    })
}

/// DPPS and DPPD: products selected by imm bits 4-7, added pairwise, broadcast by imm bits 0-3.
pub(super) fn dot_product(e: &mut Env, fmt: Format, imm: u8, a: u128, b: u128) -> u128 {
    let lanes = (128 / fmt.bits()) as usize;
    let mut terms = [0u64; 4];
    for (i, term) in terms.iter_mut().enumerate().take(lanes) {
        if imm >> (4 + i) & 1 != 0 {
            let at = i as u32 * fmt.bits();
            *term = arith(e, fmt, Arith::Mul, element(fmt, a >> at), element(fmt, b >> at));
        }
    }
    // Each step is checked for exceptions on its own; an unmasked one ends the instruction.
    if e.settle() {
        return 0;
    }
    let mut sum = arith(e, fmt, Arith::Add, terms[0], terms[1]);
    if lanes == 4 {
        let high = arith(e, fmt, Arith::Add, terms[2], terms[3]);
        if e.settle() {
            return 0;
        }
        sum = arith(e, fmt, Arith::Add, sum, high);
    }
    (0..lanes).filter(|i| imm >> i & 1 != 0).map(|i| u128::from(sum) << (i as u32 * fmt.bits())).sum()
}

/// ROUNDxx: imm bits 0-1 are a rounding mode, bit 2 selects MXCSR's instead, bit 3 suppresses PE.
pub(super) fn round_integral(e: &mut Env, fmt: Format, imm: u8, b: u64) -> u64 {
    let b = daz(e, fmt, b);
    let (class, v) = fmt.decode(b);
    if class.is_nan() {
        return nan2(e, fmt, (Class::Zero, 0), (class, b));
    }
    let Val::Finite(f) = v else { return b };
    if f.exp >= fmt.prec as i32 - 1 {
        return b;
    }
    let rc = if imm & 4 != 0 { e.rc } else { Rounding::from_rc(imm.into()) };
    let r = soft::to_int(f, rc);
    if r.inexact && imm & 8 == 0 {
        e.raise(PE);
    }
    match soft::from_int(f.sign, r.int) {
        Val::Finite(f) => fmt.encode(f.sign, (f.sig >> (128 - fmt.prec)) as u64, f.exp),
        _ => fmt.encode(f.sign, 0, 0),
    }
}

/// RCPxS and RSQRTxS of one single-precision element. The manual allows a relative error of 1.5 * 2^-12; this gives the
/// exact result truncated to 24 bits, so processors (which differ among themselves) give other low bits. Denormal operands
/// count as zeros, results below the normal range become zeros, and no exception is raised.
pub(super) fn reciprocal(root: bool, b: u64) -> u64 {
    let b = if b & F32.infinity() == 0 { b & F32.sign_bit() } else { b };
    let (class, v) = F32.decode(b);
    if class.is_nan() {
        return F32.quiet(b);
    }
    let sign = v.sign();
    // From here on results are sure to be flushed to zero (SDM vol. 2B, RCPPS).
    const FLUSHED: u64 = 0x7e7f_e800;
    let f = match v {
        Val::Finite(_) if !root && b & !F32.sign_bit() >= FLUSHED => return F32.encode(sign, 0, 0),
        Val::Zero(_) => return F32.infinity() | (b & F32.sign_bit()),
        Val::Finite(f) if root && f.sign => return F32.indefinite(),
        Val::Inf(true) if root => return F32.indefinite(),
        Val::Inf(_) => return F32.encode(sign, 0, 0),
        Val::Finite(f) => {
            if root {
                soft::sqrt(f)
            } else {
                f
            }
        }
    };
    // 2^127 over the 64 leading bits of a significand in [2^63, 2^64] lies in [2^63, 2^64].
    let quotient = (1u128 << 127) / (f.sig >> 64);
    let one = quotient >> 64 != 0;
    let result = Finite { sign, exp: -f.exp - i32::from(!one), sig: if one { 1 << 127 } else { quotient << 64 } };
    match soft::round(result, F32, Rounding::Zero) {
        (r, Range::Normal) => F32.encode(sign, r.sig, r.exp),
        _ => F32.encode(sign, 0, 0),
    }
}

/// CVTxx2DQ, CVTxx2SI and their truncating forms: an integer of `width` bits, or the integer indefinite with IE.
pub(super) fn to_integer(e: &mut Env, fmt: Format, truncate: bool, width: u32, b: u64) -> u64 {
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
    let r = soft::to_int(f, if truncate { Rounding::Zero } else { e.rc });
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
pub(super) fn from_integer(e: &mut Env, fmt: Format, x: i64) -> u64 {
    finish(e, fmt, soft::from_int(x < 0, x.unsigned_abs().into()))
}

/// CVTxS2xD and CVTxD2xS: a number of format `from` in format `to`.
pub(super) fn convert(e: &mut Env, from: Format, to: Format, b: u64) -> u64 {
    let b = daz(e, from, b);
    let (class, v) = from.decode(b);
    if class.is_nan() {
        if class == Class::SNan {
            e.raise(IE);
        }
        return convert_nan(from, to, b);
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
pub(super) fn convert_packed(e: &mut Env, from: Format, to: Format, b: u128) -> u128 {
    u128::from(convert(e, from, to, element(from, b)))
        | u128::from(convert(e, from, to, element(from, b >> from.bits()))) << to.bits()
}

/// Converts each of `n` elements to a 32-bit integer; the rest is zero.
pub(super) fn to_integers(e: &mut Env, fmt: Format, truncate: bool, n: u32, b: u128) -> u128 {
    (0..n)
        .map(|i| u128::from(to_integer(e, fmt, truncate, 32, element(fmt, b >> (i * fmt.bits())))) << (i * 32))
        .fold(0, |acc, lane| acc | lane)
}

/// Converts each of `n` 32-bit integers; the rest is zero.
pub(super) fn from_integers(e: &mut Env, fmt: Format, n: u32, b: u128) -> u128 {
    (0..n)
        .map(|i| u128::from(from_integer(e, fmt, i64::from((b >> (i * 32)) as i32))) << (i * fmt.bits()))
        .fold(0, |acc, lane| acc | lane)
}

pub(super) const S: Format = F32;
pub(super) const D: Format = F64;
