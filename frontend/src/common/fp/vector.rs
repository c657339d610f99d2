//! The operations of the IR's vector table with floating point, as tier 0 does them and hosts that have no instruction for one.
//!
//! What lanes an operation works on is in its name ([`VecKind`]); here each is one line, by the arithmetic of [`super::element`].

use std::cmp::Ordering;

use mimus_ir::packed::with_lane;
use mimus_ir::vec::{TEST_EQUAL_OR_UNORDERED, TEST_ORDERED_AND_UNEQUAL};
use mimus_ir::{VecInfo, VecKind};

use super::Env;
use super::element::*;
use super::soft::{Arith, Format};

/// Does an operation of the table that has floating point; 0 for others.
pub fn float(e: &mut Env, info: VecInfo, [a, b, c]: [u128; 3]) -> u128 {
    use VecKind::*;
    let i = info.imm;
    let add = |e: &mut Env, fmt, x, y| arith(e, fmt, Arith::Add, x, y);
    let sub = |e: &mut Env, fmt, x, y| arith(e, fmt, Arith::Sub, x, y);
    let mul = |e: &mut Env, fmt, x, y| arith(e, fmt, Arith::Mul, x, y);
    let div = |e: &mut Env, fmt, x, y| arith(e, fmt, Arith::Div, x, y);
    let min = |e: &mut Env, fmt, x, y| min_max(e, fmt, Ordering::Less, x, y);
    let max = |e: &mut Env, fmt, x, y| min_max(e, fmt, Ordering::Greater, x, y);
    match info.kind {
        AddF32 => scalar(S, a, b, |x, y| add(e, S, x, y)),
        AddF64 => scalar(D, a, b, |x, y| add(e, D, x, y)),
        AddF32P => packed(S, a, b, |x, y| add(e, S, x, y)),
        AddF64P => packed(D, a, b, |x, y| add(e, D, x, y)),
        SubF32 => scalar(S, a, b, |x, y| sub(e, S, x, y)),
        SubF64 => scalar(D, a, b, |x, y| sub(e, D, x, y)),
        SubF32P => packed(S, a, b, |x, y| sub(e, S, x, y)),
        SubF64P => packed(D, a, b, |x, y| sub(e, D, x, y)),
        MulF32 => scalar(S, a, b, |x, y| mul(e, S, x, y)),
        MulF64 => scalar(D, a, b, |x, y| mul(e, D, x, y)),
        MulF32P => packed(S, a, b, |x, y| mul(e, S, x, y)),
        MulF64P => packed(D, a, b, |x, y| mul(e, D, x, y)),
        DivF32 => scalar(S, a, b, |x, y| div(e, S, x, y)),
        DivF64 => scalar(D, a, b, |x, y| div(e, D, x, y)),
        DivF32P => packed(S, a, b, |x, y| div(e, S, x, y)),
        DivF64P => packed(D, a, b, |x, y| div(e, D, x, y)),
        MulAddF32 => scalar(S, a, b, |x, y| multiply_add(e, S, [x, y, element(S, c)], (false, false))),
        MulAddF64 => scalar(D, a, b, |x, y| multiply_add(e, D, [x, y, element(D, c)], (false, false))),
        MinF32 => scalar(S, a, b, |x, y| min(e, S, x, y)),
        MinF64 => scalar(D, a, b, |x, y| min(e, D, x, y)),
        MinF32P => packed(S, a, b, |x, y| min(e, S, x, y)),
        MinF64P => packed(D, a, b, |x, y| min(e, D, x, y)),
        MaxF32 => scalar(S, a, b, |x, y| max(e, S, x, y)),
        MaxF64 => scalar(D, a, b, |x, y| max(e, D, x, y)),
        MaxF32P => packed(S, a, b, |x, y| max(e, S, x, y)),
        MaxF64P => packed(D, a, b, |x, y| max(e, D, x, y)),
        SqrtF32 => scalar(S, a, b, |_, y| sqrt(e, S, y)),
        SqrtF64 => scalar(D, a, b, |_, y| sqrt(e, D, y)),
        SqrtF32P => packed(S, a, a, |x, _| sqrt(e, S, x)),
        SqrtF64P => packed(D, a, a, |x, _| sqrt(e, D, x)),
        CompareF32 => scalar(S, a, b, |x, y| cmp(e, S, i, x, y)),
        CompareF64 => scalar(D, a, b, |x, y| cmp(e, D, i, x, y)),
        CompareF32P => packed(S, a, b, |x, y| cmp(e, S, i, x, y)),
        CompareF64P => packed(D, a, b, |x, y| cmp(e, D, i, x, y)),
        RoundF32 => scalar(S, a, b, |_, y| round_integral(e, S, i, y)),
        RoundF64 => scalar(D, a, b, |_, y| round_integral(e, D, i, y)),
        RoundF32P => packed(S, a, a, |x, _| round_integral(e, S, i, x)),
        RoundF64P => packed(D, a, a, |x, _| round_integral(e, D, i, x)),
        AddPairsF32P => horizontal_float(e, S, Arith::Add, a, b),
        AddPairsF64P => horizontal_float(e, D, Arith::Add, a, b),
        SubPairsF32P => horizontal_float(e, S, Arith::Sub, a, b),
        SubPairsF64P => horizontal_float(e, D, Arith::Sub, a, b),
        SubAddF32P => addsub(e, S, a, b),
        SubAddF64P => addsub(e, D, a, b),
        F32ToF64 => with_lane(a, 0, convert(e, S, D, element(S, b))),
        F64ToF32 => with_lane(a, 0, convert(e, D, S, element(D, b)) as u32),
        F32PToF64P => convert_packed(e, S, D, a),
        F64PToF32P => convert_packed(e, D, S, a),
        I32PToF32P => from_integers(e, S, 4, a),
        I32PToF64P => from_integers(e, D, 2, a),
        F32PToI32P => to_integers(e, S, false, 4, a),
        F64PToI32P => to_integers(e, D, false, 2, a),
        TruncF32PToI32P => to_integers(e, S, true, 4, a),
        TruncF64PToI32P => to_integers(e, D, true, 2, a),
        I32ToF32 => with_lane(a, 0, from_integer(e, S, (b as i32).into()) as u32),
        I32ToF64 => with_lane(a, 0, from_integer(e, D, (b as i32).into())),
        I64ToF32 => with_lane(a, 0, from_integer(e, S, b as i64) as u32),
        I64ToF64 => with_lane(a, 0, from_integer(e, D, b as i64)),
        F32ToI32 => to_integer(e, S, false, 32, element(S, a)).into(),
        F32ToI64 => to_integer(e, S, false, 64, element(S, a)).into(),
        F64ToI32 => to_integer(e, D, false, 32, element(D, a)).into(),
        F64ToI64 => to_integer(e, D, false, 64, element(D, a)).into(),
        TruncF32ToI32 => to_integer(e, S, true, 32, element(S, a)).into(),
        TruncF32ToI64 => to_integer(e, S, true, 64, element(S, a)).into(),
        TruncF64ToI32 => to_integer(e, D, true, 32, element(D, a)).into(),
        TruncF64ToI64 => to_integer(e, D, true, 64, element(D, a)).into(),
        OrderF32 => unordered(e, S, true, a, b),
        OrderF64 => unordered(e, D, true, a, b),
        OrderQuietF32 => unordered(e, S, false, a, b),
        OrderQuietF64 => unordered(e, D, false, a, b),
        TestF32 => test(*e, S, i, a, b),
        TestF64 => test(*e, D, i, a, b),
        _ => 0,
    }
}

fn unordered(e: &mut Env, fmt: Format, signalling: bool, a: u128, b: u128) -> u128 {
    compare(e, fmt, signalling, element(fmt, a), element(fmt, b)).is_none().into()
}

/// Compares again what has raised its flags before: those of this comparison are nobody's.
fn test(mut e: Env, fmt: Format, predicate: u8, a: u128, b: u128) -> u128 {
    let order = compare(&mut e, fmt, false, element(fmt, a), element(fmt, b));
    let (unordered, equal, less) = (order.is_none(), order == Some(Ordering::Equal), order == Some(Ordering::Less));
    let holds = match predicate {
        0 => equal,
        1 => less,
        2 => less || equal,
        3 => unordered,
        4 => !equal,
        5 => !less,
        6 => !(less || equal),
        TEST_EQUAL_OR_UNORDERED => equal || unordered,
        TEST_ORDERED_AND_UNEQUAL => !equal && !unordered,
        _ => !unordered,
    };
    holds.into()
}

#[cfg(test)]
mod tests {
    use mimus_ir::Op;

    use super::super::soft::{IE, Rounding};
    use super::super::{Env, Nans};
    use super::*;

    #[test]
    fn every_operation_with_floating_point_has_a_line() {
        // Signalling NaNs in both formats, which are no small integers either.
        let operand = 0x7ff4_0001_7fa0_0001_7ff4_0001_7fa0_0001;
        let rows = VecKind::ALL.iter().filter(|kind| matches!(kind.row().op, Op::Float | Op::FloatTest));
        for &kind in rows {
            let mut e = Env::new(Rounding::Nearest, Nans::Propagated);
            let value = float(&mut e, VecInfo { kind, imm: 3 }, [operand; 3]);
            let flags = e.finish();
            assert!(value != 0, "{kind:?}");
            let silent = kind.row().op == Op::FloatTest || format!("{kind:?}").starts_with('I');
            assert_eq!(flags & IE != 0, !silent, "{kind:?}");
        }
    }

    #[test]
    fn the_environment_says_which_nan() {
        let one = 0x3f80_0000u128;
        let negative = 0xffc0_1234u128;
        for (nans, want) in [(Nans::Propagated, negative), (Nans::Default, 0x7fc0_0000)] {
            for (kind, operands) in [
                (VecKind::AddF32, [negative, one, 0]),
                (VecKind::MulAddF32, [one, one, negative]),
                (VecKind::MulAddF32, [one, negative, 0x7fc0_4321]),
            ] {
                let mut e = Env::new(Rounding::Nearest, nans);
                assert_eq!(float(&mut e, VecInfo { kind, imm: 0 }, operands), want, "{kind:?} {nans:?}");
                assert_eq!(e.finish(), 0);
            }
        }
    }
}
