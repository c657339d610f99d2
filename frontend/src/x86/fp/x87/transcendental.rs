//! Transcendental functions (SDM vol. 1, 8.3.6 to 8.3.10), by argument reduction and power series in 110-bit arithmetic.
//!
//! The series end where a term is below 2^-72 of the result, and some dozens of operations lose a few units of 2^-109, so
//! the result before rounding is off by far less than a unit of a 64-bit significand. What is not known to be exact
//! counts as inexact.

use super::{C2, Fpu, Operand, Outcome, Reg};
use crate::x86::fp::soft::{self, Arith, Class, Finite, PE, Rounding, UE, Val, X80, ZE};
use std::cmp::Ordering;

// Significands of 128 bits, truncated, with bit 127 set.
pub(super) const PI: u128 = 0xc90fdaa22168c234_c4c6628b80dc1cd1;
pub(super) const LOG2_10: u128 = 0xd49a784bcd1b8afe_492bf6ff4dafdb4c;
pub(super) const LOG2_E: u128 = 0xb8aa3b295c17f0bb_be87fed0691d3e88;
pub(super) const LOG10_2: u128 = 0x9a209a84fbcff798_8f8959ac0b7c9178;
pub(super) const LN_2: u128 = 0xb17217f7d1cf79ab_c9e3b39803f2f6af;
const ATAN_HALF: u128 = 0xed63382b0dda7b45_6fe445ecbc3a8d03;
const SQRT_2: u128 = 0xb504f333f9de6484_597d89b3754abe9f;

/// The 66-bit pi of the argument reduction, in units of 2^-64; as pi/2 in units of 2^-65.
const REDUCTION_PI: u128 = 0x3_243f_6a88_85a3_08d3;

fn op(op: Arith, a: Val, b: Val) -> Val {
    // Callers never pass operands without a result.
    soft::arith(op, a, b, Rounding::Nearest).map_or(Val::Zero(false), |(v, _)| v)
}

fn add(a: Val, b: Val) -> Val {
    op(Arith::Add, a, b)
}

fn sub(a: Val, b: Val) -> Val {
    op(Arith::Sub, a, b)
}

fn mul(a: Val, b: Val) -> Val {
    op(Arith::Mul, a, b)
}

fn div(a: Val, b: Val) -> Val {
    op(Arith::Div, a, b)
}

fn int(x: u32) -> Val {
    soft::from_int(false, x.into())
}

fn constant(sig: u128, exp: i32) -> Val {
    soft::normalize(false, exp, sig)
}

/// `e^y - 1` for `|y| <= ln 2`.
fn exp_minus_1(y: Val) -> Val {
    let series = (2..=28).rev().fold(int(1), |acc, k| add(int(1), div(mul(y, acc), int(k))));
    mul(y, series)
}

/// The inverse hyperbolic tangent for `|z| < 0.18` or, `alternating`, the inverse tangent for `|z| < 0.34`.
fn inverse_tangent_series(z: Val, alternating: bool) -> Val {
    let square = if alternating { mul(z, z).neg() } else { mul(z, z) };
    let series = (0..=26).rev().fold(Val::Zero(false), |acc, k| add(div(int(1), int(2 * k + 1)), mul(square, acc)));
    mul(z, series)
}

/// `r - r^3/3! + ...` and `1 - r^2/2! + ...` for `|r| <= pi/4`.
fn sine_cosine_series(r: Val) -> (Val, Val) {
    let square = mul(r, r);
    let series = |first: u32| {
        (0..15).rev().fold(int(1), |acc, k| {
            let n = first + 2 * k;
            sub(int(1), div(mul(square, acc), int(n * (n + 1))))
        })
    };
    (mul(r, series(2)), series(1))
}

/// The binary logarithm, and whether it is exact.
fn log2(f: Finite) -> (Val, bool) {
    let above = f.sig > SQRT_2;
    let exp = f.exp + i32::from(above);
    let m = Val::Finite(Finite { sign: false, exp: if above { -1 } else { 0 }, ..f });
    let whole = soft::from_int(exp < 0, exp.unsigned_abs().into());
    if f.sig == 1 << 127 {
        return (whole, true);
    }
    (add(whole, log2_of_ratio(sub(m, int(1)), add(m, int(1)))), false)
}

/// `2 atanh(numerator / denominator) * log2 e`.
fn log2_of_ratio(numerator: Val, denominator: Val) -> Val {
    let z = div(numerator, denominator);
    mul(mul(int(2), inverse_tangent_series(z, false)), constant(LOG2_E, 0))
}

/// The remainder of `|f|` by pi/2, at most half of it in magnitude, and the quotient modulo 4. The exponent is below 63.
fn reduce(f: Finite) -> (Val, u32) {
    if f.exp < -2 {
        return (Val::Finite(Finite { sign: false, ..f }), 0);
    }
    let (mut rem, mut quotient) = (f.sig >> 64, 0u32);
    for _ in 0..f.exp + 2 {
        rem <<= 1;
        quotient <<= 1;
        if rem >= REDUCTION_PI {
            rem -= REDUCTION_PI;
            quotient |= 1;
        }
    }
    let over = rem * 2 > REDUCTION_PI;
    if over {
        rem = REDUCTION_PI - rem;
        quotient = quotient.wrapping_add(1);
    }
    (soft::normalize(over, 127 - 65, rem), quotient & 3)
}

/// Sine and cosine of a number of an exponent below 63.
fn sine_and_cosine(f: Finite) -> (Val, Val) {
    let (r, quadrant) = reduce(f);
    let (s, c) = sine_cosine_series(r);
    let (s, c) = match quadrant {
        0 => (s, c),
        1 => (c, s.neg()),
        2 => (s.neg(), c.neg()),
        _ => (c.neg(), s),
    };
    (if f.sign { s.neg() } else { s }, c)
}

/// The angle of the point `(x, y)`, both finite and not zero.
fn angle(y: Val, x: Val) -> Val {
    let (height, width) = (y.with_sign(false), x.with_sign(false));
    let steep = height.compare(width) == Ordering::Greater;
    let t = if steep { div(width, height) } else { div(height, width) };
    let half = constant(1 << 127, -1);
    let mut a = if t.compare(div(int(3), int(10))) == Ordering::Greater {
        let z = div(sub(t, half), add(int(1), mul(t, half)));
        add(constant(ATAN_HALF, -2), inverse_tangent_series(z, true))
    } else {
        inverse_tangent_series(t, true)
    };
    if steep {
        a = sub(constant(PI, 0), a);
    }
    if x.sign() {
        a = sub(constant(PI, 1), a);
    }
    a.with_sign(y.sign())
}

impl Fpu {
    /// Rounds a result that is not exact.
    fn approximate(&mut self, v: Val) -> Reg {
        match v {
            Val::Finite(f) => self.finish(Val::Finite(Finite { sig: f.sig | 1, ..f }), X80),
            _ => self.finish(v, X80),
        }
    }

    /// 2^x - 1; beyond the defined range of -1 to 1, ST(0) is left as it is, but for an infinity.
    pub(super) fn exp2_minus_1(&mut self) -> Outcome<()> {
        self.unary(|fpu, x| {
            let f = match x.val {
                Val::Zero(_) | Val::Inf(false) => return Ok(x.reg),
                Val::Inf(true) => return Ok(Reg::exact(int(1).neg())),
                Val::Finite(f) => f,
            };
            fpu.check_denormal(&[x])?;
            if f.exp < 0 {
                return Ok(fpu.approximate(exp_minus_1(mul(x.val, constant(LN_2, -1)))));
            }
            fpu.raise(PE);
            let minus_one = x.val == int(1).neg();
            Ok(if minus_one { Reg::exact(constant(1 << 127, -1).neg()) } else { x.reg })
        })
    }

    /// ST(1) * log2(ST(0)).
    pub(super) fn log2(&mut self) -> Outcome<()> {
        let result = self.binary(|fpu, x, y| {
            let sign = y.val.sign();
            match (x.val, y.val) {
                (Val::Finite(Finite { sign: true, .. }) | Val::Inf(true), _) => return fpu.invalid(),
                (Val::Zero(_), Val::Zero(_)) | (Val::Inf(false), Val::Zero(_)) => return fpu.invalid(),
                (Val::Zero(_), Val::Inf(_)) => return Ok(Reg::infinity(!sign)),
                (Val::Zero(_), Val::Finite(_)) => {
                    fpu.except(ZE)?;
                    return Ok(Reg::infinity(!sign));
                }
                _ => {}
            }
            let order = x.val.compare(int(1));
            if order == Ordering::Equal && matches!(y.val, Val::Inf(_)) {
                return fpu.invalid();
            }
            fpu.check_denormal(&[x, y])?;
            let sign = sign ^ (order == Ordering::Less);
            Ok(match (x.val, y.val) {
                (_, Val::Inf(_)) | (Val::Inf(_), _) => Reg::infinity(sign),
                (Val::Finite(f), Val::Finite(_)) => match log2(f) {
                    (Val::Zero(_), _) => Reg::zero(sign),
                    (v, true) => {
                        let result = fpu.finish(mul(y.val, v), X80);
                        // Processors report even these products as inexact.
                        fpu.raise(if result.class() == Class::Denormal { UE | PE } else { PE });
                        result
                    }
                    (v, false) => fpu.approximate(mul(y.val, v)),
                },
                _ => Reg::zero(sign),
            })
        })?;
        self.pop_under(result)
    }

    /// ST(1) * log2(ST(0) + 1), also beyond the defined range of ST(0), but ST(0) itself from -1 down.
    pub(super) fn log2_plus_1(&mut self) -> Outcome<()> {
        let result = self.binary(|fpu, x, y| {
            let sign = y.val.sign() ^ x.val.sign();
            match (x.val, y.val) {
                (Val::Zero(_), Val::Inf(_)) | (Val::Inf(_), Val::Zero(_)) | (Val::Inf(true), _) => {
                    return fpu.invalid();
                }
                _ => fpu.check_denormal(&[x, y])?,
            }
            Ok(match (x.val, y.val) {
                (Val::Inf(_), _) | (_, Val::Inf(_)) => Reg::infinity(sign),
                (Val::Finite(_), Val::Finite(_)) if x.val.compare(int(1).neg()) != Ordering::Greater => {
                    fpu.raise(PE);
                    x.reg
                }
                (Val::Finite(f), Val::Finite(_)) if f.exp < -2 => {
                    fpu.approximate(mul(y.val, log2_of_ratio(x.val, add(x.val, int(2)))))
                }
                (Val::Finite(_), Val::Finite(_)) => match add(x.val, int(1)) {
                    Val::Finite(one_more) => fpu.approximate(mul(y.val, log2(one_more).0)),
                    _ => Reg::zero(sign),
                },
                _ => Reg::zero(sign),
            })
        })?;
        self.pop_under(result)
    }

    /// The angle of the point (ST(0), ST(1)).
    pub(super) fn arctangent(&mut self) -> Outcome<()> {
        let result = self.binary(|fpu, x, y| {
            fpu.check_denormal(&[x, y])?;
            let (sign, left) = (y.val.sign(), x.val.sign());
            let a = match (y.val, x.val) {
                (Val::Zero(_), _) | (Val::Finite(_), Val::Inf(_)) if !left => return Ok(Reg::zero(sign)),
                (Val::Zero(_), _) | (Val::Finite(_), Val::Inf(_)) => constant(PI, 1),
                (Val::Inf(_), Val::Inf(_)) if left => add(constant(PI, 0), constant(PI, -1)),
                (Val::Inf(_), Val::Inf(_)) => constant(PI, -1),
                (Val::Inf(_), _) | (_, Val::Zero(_)) => constant(PI, 0),
                (Val::Finite(_), Val::Finite(_)) => angle(y.val, x.val),
            };
            Ok(fpu.approximate(a.with_sign(sign)))
        })?;
        self.pop_under(result)
    }

    /// Writes a result of ST(0) and ST(1) to ST(1) and pops.
    fn pop_under(&mut self, result: Reg) -> Outcome<()> {
        self.write(1, result);
        self.pop();
        Ok(())
    }

    /// The operand of a trigonometric function, unless it is out of range, which C2 reports.
    fn angle_operand(&mut self) -> Option<Operand> {
        let x = self.read(0);
        let out_of_range = matches!((x.class, x.val), (Some(_), Val::Finite(f)) if f.exp >= 63);
        self.sw = self.sw & !C2 | if out_of_range { C2 } else { 0 };
        (!out_of_range).then_some(x)
    }

    pub(super) fn sine(&mut self) -> Outcome<()> {
        self.trigonometric(|fpu, x, (s, _)| if let Val::Zero(_) = x.val { x.reg } else { fpu.approximate(s) })
    }

    pub(super) fn cosine(&mut self) -> Outcome<()> {
        self.trigonometric(|fpu, x, (_, c)| fpu.cosine_of(x, c))
    }

    fn cosine_of(&mut self, x: Operand, c: Val) -> Reg {
        if let Val::Zero(_) = x.val { Reg::exact(int(1)) } else { self.approximate(c) }
    }

    fn trigonometric(&mut self, f: impl FnOnce(&mut Self, Operand, (Val, Val)) -> Reg) -> Outcome<()> {
        if self.angle_operand().is_none() {
            return Ok(());
        }
        self.unary(|fpu, x| match fpu.sine_cosine_values(x)? {
            None => fpu.invalid(),
            Some(values) => Ok(f(fpu, x, values)),
        })
    }

    /// Sine and cosine of an operand that is in range; none of an infinity.
    fn sine_cosine_values(&mut self, x: Operand) -> Outcome<Option<(Val, Val)>> {
        self.check_denormal(&[x])?;
        Ok(match x.val {
            Val::Inf(_) => None,
            Val::Zero(_) => Some((x.val, int(1))),
            Val::Finite(f) => Some(sine_and_cosine(f)),
        })
    }

    pub(super) fn sine_cosine(&mut self) -> Outcome<()> {
        self.trigonometric_pair(|fpu, x, (s, c)| {
            let s = if let Val::Zero(_) = x.val { x.reg } else { fpu.approximate(s) };
            (s, fpu.cosine_of(x, c))
        })
    }

    pub(super) fn tangent(&mut self) -> Outcome<()> {
        self.trigonometric_pair(|fpu, x, (s, c)| {
            let t = if let Val::Zero(_) = x.val { x.reg } else { fpu.approximate(div(s, c)) };
            (t, Reg::exact(int(1)))
        })
    }

    /// Replaces ST(0) and pushes a second result.
    fn trigonometric_pair(&mut self, f: impl FnOnce(&mut Self, Operand, (Val, Val)) -> (Reg, Reg)) -> Outcome<()> {
        if self.is_empty(0) || !self.is_empty(7) {
            self.sw &= !C2;
        } else if self.angle_operand().is_none() {
            return Ok(());
        }
        self.replace_and_push(|fpu, x| {
            if let Some(reg) = fpu.special(&[x])? {
                return Ok((reg, reg));
            }
            match fpu.sine_cosine_values(x)? {
                None => fpu.invalid().map(|reg| (reg, reg)),
                Some(values) => Ok(f(fpu, x, values)),
            }
        })
    }
}
