//! Floating point: values against the host's where it rounds to nearest, flags and special cases against the manual.

use mimus_frontend::riscv::isa::Code::{self, *};
use mimus_frontend::riscv::isa::Insn;
use mimus_frontend::riscv::state::Mstatus;

use crate::hart::{BASE, DATA, Hart, Numbers, action, i, r, s};

const NX: u64 = 1;
const UF: u64 = 2;
const OF: u64 = 4;
const DZ: u64 = 8;
const NV: u64 = 16;

const NAN: u64 = 0x7ff8 << 48;
const NAN_S: u64 = 0xffff_ffff_7fc0_0000;
const SIGNALLING: u64 = 0x7ff4_0000_0000_0001;
const INF: u64 = 0x7ff0 << 48;

fn d(x: f64) -> u64 {
    x.to_bits()
}

fn f(x: f32) -> u64 {
    u64::from(x.to_bits()) | 0xffff_ffff << 32
}

/// Runs an instruction on `f1`, `f2`, `f3` and `x1` with rounding mode `rm`: the bits written, and fflags.
fn run(hart: &mut Hart, code: Code, rm: u8, [a, b, c]: [u64; 3]) -> (u64, u64) {
    hart.cpu.access_csr(1, action::WRITE, 0).unwrap();
    (hart.cpu.state.f[1][0], hart.cpu.state.f[2][0], hart.cpu.state.f[3][0]) = (a, b, c);
    (hart.cpu.state.x[1], hart.cpu.state.pc) = (a, BASE);
    hart.run(&[Insn { rd: 4, rs1: 1, rs2: 2, rs3: 3, rm, ..Insn::new(code) }]);
    assert_eq!(hart.cpu.state.pc, BASE + 4, "{code:?}");
    let to_float = code.row().syntax.starts_with('D');
    let value = if to_float { hart.cpu.state.f[4][0] } else { hart.cpu.state.x[4] };
    (value, hart.cpu.access_csr(1, action::READ, 0).unwrap())
}

/// Both ways to an instruction: as lifted, and after the passes.
fn harts() -> [Hart; 2] {
    [Hart::new().with_float(), Hart::optimizing().with_float()]
}

#[test]
fn results_are_the_hosts_where_it_has_the_operation() {
    let mut numbers = Numbers(0x2468_ace1_3579_bdf0);
    for mut hart in harts() {
        for _ in 0..3000 {
            let [a, b, c] = std::array::from_fn(|_| {
                let n = numbers.next();
                // Exponents close to each other, so that sums are not one of their terms.
                if n & 1 == 0 { n } else { n & !(0x7ff << 52) | (1000 + (n >> 8 & 63)) << 52 }
            });
            let (x, y, z) = (f64::from_bits(a), f64::from_bits(b), f64::from_bits(c));
            let canonical = |v: f64| if v.is_nan() { NAN } else { v.to_bits() };
            let cases = [
                (FaddD, x + y),
                (FsubD, x - y),
                (FmulD, x * y),
                (FdivD, x / y),
                (FsqrtD, x.sqrt()),
                (FmaddD, x.mul_add(y, z)),
                (FmsubD, x.mul_add(y, -z)),
                (FnmsubD, (-x).mul_add(y, z)),
                (FnmaddD, (-x).mul_add(y, -z)),
                (FcvtDW, f64::from(a as i32)),
                (FcvtDWu, f64::from(a as u32)),
                (FcvtDL, a as i64 as f64),
                (FcvtDLu, a as f64),
            ];
            for (code, want) in cases {
                assert_eq!(run(&mut hart, code, 0, [a, b, c]).0, canonical(want), "{code:?} of {x:e} {y:e} {z:e}");
            }
            let [a, b, c] = [a, b, c].map(|n| n >> 32 | 0xffff_ffff << 32);
            let [x, y, z] = [a, b, c].map(|n| f32::from_bits(n as u32));
            let canonical = |v: f32| if v.is_nan() { NAN_S } else { f(v) };
            let cases = [
                (FaddS, x + y),
                (FsubS, x - y),
                (FmulS, x * y),
                (FdivS, x / y),
                (FsqrtS, x.sqrt()),
                (FmaddS, x.mul_add(y, z)),
                (FnmaddS, (-x).mul_add(y, -z)),
                (FcvtSW, a as i32 as f32),
                (FcvtSL, a as i64 as f32),
                (FcvtSLu, a as f32),
            ];
            for (code, want) in cases {
                assert_eq!(run(&mut hart, code, 0, [a, b, c]).0, canonical(want), "{code:?} of {x:e} {y:e} {z:e}");
            }
            assert_eq!(run(&mut hart, FcvtDS, 0, [a, b, c]).0, if x.is_nan() { NAN } else { d(f64::from(x)) });
        }
    }
}

#[test]
fn flags_and_special_results_are_the_manuals() {
    let (one, zero, tiny) = (d(1.0), d(0.0), 1);
    let negative = 1 << 63;
    let cases = [
        (FaddD, [INF, INF | negative, 0], NAN, NV),
        (FaddD, [one, d(1e-30), 0], one, NX),
        (FaddD, [one, one, 0], d(2.0), 0),
        (FaddD, [NAN | negative | 5, one, 0], NAN, 0),
        (FaddD, [one, SIGNALLING, 0], NAN, NV),
        (FmulD, [d(1e300), d(1e300), 0], INF, OF | NX),
        (FmulD, [d(1e-300), d(1e-300), 0], 0, UF | NX),
        (FmulD, [tiny, one, 0], tiny, 0),
        (FmulD, [INF, zero, 0], NAN, NV),
        (FdivD, [one, zero, 0], INF, DZ),
        (FdivD, [zero, zero, 0], NAN, NV),
        (FdivD, [one, d(3.0), 0], d(1.0 / 3.0), NX),
        (FsqrtD, [d(-1.0), 0, 0], NAN, NV),
        (FsqrtD, [negative, 0, 0], negative, 0),
        // A product of infinity and zero is invalid whatever is added.
        (FmaddD, [INF, zero, NAN], NAN, NV),
        (FmaddD, [one, one, d(-1.0)], zero, 0),
        (FnmaddD, [one, one, d(-1.0)], negative ^ negative, 0),
        (FminD, [zero, negative, 0], negative, 0),
        (FmaxD, [negative, zero, 0], zero, 0),
        (FminD, [NAN, one, 0], one, 0),
        (FmaxD, [one, SIGNALLING, 0], one, NV),
        (FminD, [NAN | 1, NAN | negative, 0], NAN, 0),
        (FeqD, [NAN, one, 0], 0, 0),
        (FeqD, [SIGNALLING, one, 0], 0, NV),
        (FeqD, [zero, negative, 0], 1, 0),
        (FltD, [NAN, one, 0], 0, NV),
        (FltD, [d(-1.0), one, 0], 1, 0),
        (FleD, [one, one, 0], 1, 0),
        (FleD, [one, NAN, 0], 0, NV),
        (FclassD, [INF | negative, 0, 0], 1 << 0, 0),
        (FclassD, [d(-1.0), 0, 0], 1 << 1, 0),
        (FclassD, [tiny | negative, 0, 0], 1 << 2, 0),
        (FclassD, [negative, 0, 0], 1 << 3, 0),
        (FclassD, [zero, 0, 0], 1 << 4, 0),
        (FclassD, [tiny, 0, 0], 1 << 5, 0),
        (FclassD, [one, 0, 0], 1 << 6, 0),
        (FclassD, [INF, 0, 0], 1 << 7, 0),
        (FclassD, [SIGNALLING, 0, 0], 1 << 8, 0),
        (FclassD, [NAN | negative, 0, 0], 1 << 9, 0),
        (FcvtWD, [d(1e10), 0, 0], i32::MAX as u64, NV),
        (FcvtWD, [d(-1e10), 0, 0], i32::MIN as u64, NV),
        (FcvtWD, [NAN | negative, 0, 0], i32::MAX as u64, NV),
        (FcvtWuD, [d(4e9), 0, 0], 4_000_000_000u32 as i32 as u64, 0),
        (FcvtWuD, [d(-0.25), 0, 0], 0, NX),
        (FcvtWuD, [d(-1.0), 0, 0], 0, NV),
        (FcvtWuD, [INF, 0, 0], u64::MAX, NV),
        (FcvtLD, [d(-9.3e18), 0, 0], i64::MIN as u64, NV),
        (FcvtLD, [d(-9_223_372_036_854_775_808.0), 0, 0], i64::MIN as u64, 0),
        (FcvtLD, [INF, 0, 0], i64::MAX as u64, NV),
        (FcvtLuD, [d(1.8e19), 0, 0], 18_000_000_000_000_000_000, 0),
        (FcvtLuD, [d(2e19), 0, 0], u64::MAX, NV),
        (FcvtSD, [d(1e300), 0, 0], f(f32::INFINITY), OF | NX),
        (FcvtSD, [SIGNALLING, 0, 0], NAN_S, NV),
        (FcvtDS, [0xffff_ffff_7fa0_0000, 0, 0], NAN, NV),
        // What is not boxed is the canonical NaN.
        (FaddS, [f(1.0) >> 1, f(1.0), 0], NAN_S, 0),
        (FclassS, [0x3f80_0000, 0, 0], 1 << 9, 0),
        (FsgnjS, [0x3f80_0000, f(-1.0), 0], NAN_S | 1 << 31, 0),
        (FsgnjS, [f(2.0), f(-1.0), 0], f(-2.0), 0),
        (FsgnjnS, [f(2.0), f(-1.0), 0], f(2.0), 0),
        (FsgnjxS, [f(-2.0), f(-1.0), 0], f(2.0), 0),
        (FsgnjD, [SIGNALLING, negative, 0], SIGNALLING | negative, 0),
        (FsgnjnD, [one, one, 0], d(-1.0), 0),
        (FsgnjxD, [d(-1.0), one, 0], d(-1.0), 0),
        (FmvXW, [f(-1.0), 0, 0], 0xffff_ffff_bf80_0000, 0),
        (FmvXD, [SIGNALLING, 0, 0], SIGNALLING, 0),
        (FmvWX, [0x1234_5678_3f80_0000, 0, 0], f(1.0), 0),
        (FmvDX, [SIGNALLING, 0, 0], SIGNALLING, 0),
    ];
    for mut hart in harts() {
        for (code, operands, value, flags) in cases {
            let rm = if code.row().syntax.ends_with('m') && code.row().name.starts_with("fcvt.w") { 1 } else { 0 };
            assert_eq!(run(&mut hart, code, rm, operands), (value, flags), "{code:?} of {operands:x?}");
        }
    }
}

#[test]
fn every_rounding_mode_rounds_its_own_way_static_or_dynamic() {
    // 2.5 and 3.5, of either sign, to integers: to even, to zero, down, up, away from zero.
    let table = [
        (2.5, [2, 2, 2, 3, 3]),
        (3.5, [4, 3, 3, 4, 4]),
        (-2.5, [-2, -2, -3, -2, -3]),
        (-0.5, [0, 0, -1, 0, -1]),
        (2.25, [2, 2, 2, 3, 2]),
    ];
    // Half of a unit in the last place, added to 1.
    let half = d(f64::EPSILON / 2.0);
    let up = d(1.0 + f64::EPSILON);
    let sums = [d(1.0), d(1.0), d(1.0), up, up];
    for mut hart in harts() {
        for rm in 0..5 {
            for (x, want) in table {
                let want = want[usize::from(rm)] as i64 as u64;
                assert_eq!(run(&mut hart, FcvtLD, rm, [d(x), 0, 0]), (want, NX), "{x} by {rm}");
                hart.cpu.access_csr(2, action::WRITE, rm.into()).unwrap();
                assert_eq!(run(&mut hart, FcvtLD, 7, [d(x), 0, 0]), (want, NX), "{x} by frm {rm}");
            }
            assert_eq!(run(&mut hart, FaddD, rm, [d(1.0), half, 0]), (sums[usize::from(rm)], NX));
            assert_eq!(run(&mut hart, FaddD, 7, [d(1.0), half, 0]), (sums[usize::from(rm)], NX));
        }
    }
}

#[test]
fn a_rounding_mode_that_is_none_is_illegal() {
    let mut hart = Hart::new().with_float();
    for rm in [5, 6] {
        hart.cpu.state.pc = BASE;
        assert_eq!(hart.trap(Insn { rm, ..Insn::new(FaddD) }).0, 2);
    }
    hart.cpu.access_csr(2, action::WRITE, 5).unwrap();
    hart.cpu.state.pc = BASE;
    assert_eq!(hart.trap(Insn { rm: 7, ..Insn::new(FaddD) }).0, 2);
    // One that does not round does not mind.
    hart.cpu.state.pc = BASE;
    hart.run(&[r(FsgnjD, 1, 2, 3)]);
    assert_eq!(hart.cpu.state.pc, BASE + 4);
}

#[test]
fn the_unit_is_off_clean_or_dirty() {
    let mut hart = Hart::new();
    for insn in [r(FaddD, 1, 2, 3), i(Fld, 1, 10, 0), s(Fsd, 1, 10, 0), i(Csrrs, 5, 0, 3)] {
        hart.cpu.state.pc = BASE;
        assert_eq!(hart.trap(insn).0, 2, "off: {insn:?}");
    }
    const FS: Mstatus = Mstatus::FS;
    for (insn, dirties) in [
        (r(FaddD, 1, 2, 3), true),
        (i(Fld, 1, 10, 0), true),
        (s(Fsd, 1, 10, 0), false),
        (i(Csrrw, 5, 0, 1), true),
        (i(Csrrs, 5, 0, 3), false),
    ] {
        hart.cpu.state.mstatus = Mstatus::from_bits_retain(2 << 13);
        hart.cpu.state.x[10] = DATA;
        hart.enter(3, BASE);
        hart.code(&[insn]);
        hart.block(1);
        if dirties {
            assert_eq!((hart.cpu.state.pc, hart.cpu.state.mstatus & FS), (BASE, FS), "started again: {insn:?}");
            hart.block(1);
        }
        assert_eq!(hart.cpu.state.pc, BASE + 4, "{insn:?}");
        assert_eq!(hart.cpu.state.mstatus.contains(FS), dirties, "{insn:?}");
        let read = hart.cpu.access_csr(0x300, action::READ, 0).unwrap();
        assert_eq!(read >> 63 != 0, dirties, "SD");
    }
}

#[test]
fn numbers_go_to_memory_and_back_in_their_boxes() {
    let mut hart = Hart::optimizing().with_float();
    hart.cpu.state.x[10] = DATA + 1;
    hart.cpu.state.f[1][0] = f(-1.5);
    hart.run(&[s(Fsw, 1, 10, 0), i(Flw, 2, 10, 0), s(Fsd, 2, 10, 8), i(Fld, 3, 10, 8)]);
    assert_eq!([hart.cpu.state.f[2][0], hart.cpu.state.f[3][0]], [f(-1.5); 2]);
    assert_eq!(hart.cpu.mmu.ram.read_u32(DATA + 1), Some((-1.5f32).to_bits()));
}

#[test]
fn fcsr_is_fflags_and_frm_together() {
    let mut hart = Hart::new().with_float();
    hart.cpu.access_csr(3, action::WRITE, u64::MAX).unwrap();
    let read = |hart: &mut Hart, number| hart.cpu.access_csr(number, action::READ, 0).unwrap();
    assert_eq!([1, 2, 3].map(|n| read(&mut hart, n)), [0x1f, 7, 0xff]);
    hart.cpu.access_csr(1, action::WRITE, NV | NX).unwrap();
    hart.cpu.access_csr(2, action::WRITE, 3).unwrap();
    assert_eq!([1, 2, 3].map(|n| read(&mut hart, n)), [0x11, 3, 0x71]);
}

#[test]
fn the_common_case_and_the_exact_one_are_the_same() {
    let mut numbers = Numbers(0x0f1e_2d3c_4b5a_6978);
    let known = |code: Code| code.row().syntax.contains(['S', 'T']) || code.row().name.starts_with("fcvt");
    let rows = mimus_frontend::riscv::isa::TABLE.iter().map(|row| row.code).filter(|&code| known(code));
    // Moves and stores have no value to compute.
    let codes: Vec<Code> = rows.filter(|code| !matches!(code, FmvXW | FmvXD | FmvXH | Fsw | Fsd | Fsh)).collect();
    assert_eq!(codes.len(), 84);
    let special = [
        NAN,
        NAN | 1 << 63 | 7,
        SIGNALLING,
        INF,
        INF | 1 << 63,
        0,
        1 << 63,
        1,
        d(1.0),
        d(-2.5),
        d(2e9),
        d(-3e9),
        NAN_S,
        f(1.0),
        h(0x3c00),
        h(0x7d01),
        h(0xfc00),
    ];
    for mut hart in harts() {
        for round in 0..12_000 {
            let code = codes[round % codes.len()];
            let operands = std::array::from_fn(|_| {
                let n = numbers.next();
                match numbers.next() >> 61 {
                    0 => special[(n >> 32) as usize % special.len()],
                    1 => n & !(0x7ff << 52) | (1020 + (n >> 8 & 63)) << 52,
                    2 | 3 => n & 0xffff_ffff | 0xffff_ffff << 32,
                    4 => n & 0x80ff_ffff | (120 + (n >> 40 & 31)) << 23 | 0xffff_ffff << 32,
                    5 => f(f32::from_bits(special[(n >> 32) as usize % special.len()] as u32)),
                    6 if n & 1 == 0 => h(n >> 48),
                    6 => n >> (n & 63),
                    _ => n,
                }
            });
            let rm = (numbers.next() % 5) as u8;
            hart.cpu.access_csr(2, action::WRITE, numbers.next() % 5).unwrap();
            let dynamic = numbers.next().is_multiple_of(2);
            if dynamic {
                hart.cpu.access_csr(2, action::WRITE, rm.into()).unwrap();
            }
            let got = run(&mut hart, code, if dynamic { 7 } else { rm }, operands);
            let mut state = hart.cpu.state;
            state.f[1..].iter_mut().zip(operands).for_each(|(f, operand)| f[0] = operand);
            state.x[1] = operands[0];
            state.fp_env = mimus_frontend::riscv::float::FP_ENV_RESET.bits().into();
            let insn = Insn { rd: 4, rs1: 1, rs2: 2, rs3: 3, rm, ..Insn::new(code) };
            mimus_frontend::riscv::float::execute(&mut state, &insn);
            let value = if code.row().syntax.starts_with('D') { state.f[4][0] } else { state.x[4] };
            let want = (value, mimus_frontend::riscv::float::fflags(&state));
            assert_eq!(got, want, "{code:?} of {operands:x?} by {rm}, dynamic {dynamic}");
        }
    }
}

/// A box of a half-precision number.
fn h(bits: u64) -> u64 {
    bits | !0xffff
}

/// The value of a half-precision number that is no NaN.
fn half(bits: u64) -> f64 {
    let (sign, exp, frac) = (bits >> 15 & 1, (bits >> 10 & 31) as i32, (bits & 0x3ff) as f64);
    let magnitude = match exp {
        31 => f64::INFINITY,
        0 => frac * f64::exp2(-24.0),
        _ => (1024.0 + frac) * f64::exp2(f64::from(exp - 25)),
    };
    if sign == 0 { magnitude } else { -magnitude }
}

/// The half-precision number nearest to `x`, ties to even, and whether it is another.
fn nearest_half(x: f64) -> (u64, bool) {
    let sign = if x.is_sign_negative() { 0x8000 } else { 0 };
    if x.is_nan() {
        return (0x7e00, false);
    }
    let magnitude = x.abs();
    if magnitude >= 65520.0 {
        return (sign | 0x7c00, magnitude != f64::INFINITY);
    }
    let exp = ((magnitude.to_bits() >> 52) as i32 - 1023).max(-14);
    let steps = (magnitude * f64::exp2(f64::from(10 - exp))).round_ties_even();
    // A carry into the exponent is one of the sum.
    let bits = if exp == -14 { steps as u64 } else { ((exp + 14) as u64) * 1024 + steps as u64 };
    (sign | bits, steps * f64::exp2(f64::from(exp - 10)) != magnitude)
}

#[test]
fn half_precision_is_rounded_once_from_the_exact_result() {
    let mut numbers = Numbers(0x1357_9bdf_2468_ace0);
    let is_nan = |bits: u64| bits & 0x7fff > 0x7c00;
    for mut hart in harts() {
        // Each there is, to wider formats and back.
        for bits in (0..1 << 16).filter(|&bits| !is_nan(bits)).step_by(7) {
            assert_eq!(run(&mut hart, FcvtDH, 0, [h(bits), 0, 0]), (d(half(bits)), 0), "{bits:#x}");
            assert_eq!(run(&mut hart, FcvtSH, 0, [h(bits), 0, 0]), (f(half(bits) as f32), 0), "{bits:#x}");
            assert_eq!(run(&mut hart, FcvtHD, 0, [d(half(bits)), 0, 0]), (h(bits), 0), "{bits:#x}");
            assert_eq!(run(&mut hart, FcvtHS, 0, [f(half(bits) as f32), 0, 0]), (h(bits), 0), "{bits:#x}");
        }
        for _ in 0..4000 {
            let n = numbers.next();
            let (a, b) = (n & 0xffff, n >> 16 & 0xffff);
            if is_nan(a) || is_nan(b) {
                continue;
            }
            let (x, y) = (half(a), half(b));
            // A double has more than twice the digits: rounding it again is as rounding the exact result.
            for (code, exact) in
                [(FaddH, x + y), (FsubH, x - y), (FmulH, x * y), (FdivH, x / y), (FsqrtH, x.sqrt()), (FcvtHD, x * y)]
            {
                let operands = if code == FcvtHD { [d(x * y), 0, 0] } else { [h(a), h(b), 0] };
                let (value, flags) = run(&mut hart, code, 0, operands);
                let (want, inexact) = nearest_half(exact);
                assert_eq!((value, flags & NX != 0), (h(want), inexact), "{code:?} of {a:#x} and {b:#x}");
            }
            let compared = [FeqH, FltH, FleH].map(|code| run(&mut hart, code, 0, [h(a), h(b), 0]).0 != 0);
            assert_eq!(compared, [x == y, x < y, x <= y], "{a:#x} and {b:#x}");
        }
    }
}

#[test]
fn half_precision_corner_cases() {
    let (nan, one) = (h(0x7e00), h(0x3c00));
    let cases = [
        // What is not boxed is the canonical NaN, a box of a wider number included.
        (FaddH, 0, [0x3c00, one, 0], (nan, 0)),
        (FaddH, 0, [f(1.0), one, 0], (nan, 0)),
        (FaddH, 0, [h(0x7d01), one, 0], (nan, NV)),
        (FdivH, 0, [one, h(0), 0], (h(0x7c00), DZ)),
        (FmulH, 0, [h(0x7bff), h(0x4000), 0], (h(0x7c00), OF | NX)),
        (FmulH, 1, [h(0x7bff), h(0x4000), 0], (h(0x7bff), OF | NX)),
        (FmulH, 0, [h(1), h(0x3800), 0], (h(0), UF | NX)),
        (FmulH, 3, [h(1), h(0x3800), 0], (h(1), UF | NX)),
        // 1 + 2^-10 squared less 1: 2^-9 + 2^-20, of which a product rounded by itself has 2^-10 more.
        (FmaddH, 3, [h(0x3c01), h(0x3c01), h(0xbc00)], (h(0x1801), NX)),
        (FnmsubH, 0, [one, one, one], (h(0), 0)),
        (FminH, 0, [h(0x8000), h(0), 0], (h(0x8000), 0)),
        (FmaxH, 0, [nan, one, 0], (one, 0)),
        (FsgnjnH, 0, [one, one, 0], (h(0xbc00), 0)),
        (FclassH, 0, [h(1), 0, 0], (1 << 5, 0)),
        (FclassH, 0, [one & !(1 << 63), 0, 0], (1 << 9, 0)),
        (FcvtWH, 0, [h(0x7c00), 0, 0], (0x7fff_ffff, NV)),
        (FcvtWuH, 1, [h(0xbc00), 0, 0], (0, NV)),
        (FcvtHWu, 0, [u64::MAX, 0, 0], (h(0x7c00), OF | NX)),
        (FcvtHL, 0, [u64::MAX, 0, 0], (h(0xbc00), 0)),
        (FmvXH, 0, [0x1234_8001, 0, 0], (0xffff_ffff_ffff_8001, 0)),
        (FmvHX, 0, [0x1234_8001, 0, 0], (h(0x8001), 0)),
    ];
    for mut hart in harts() {
        for (code, rm, operands, want) in cases {
            assert_eq!(run(&mut hart, code, rm, operands), want, "{code:?} by {rm} of {operands:x?}");
        }
        (hart.cpu.state.x[10], hart.cpu.state.pc) = (DATA, BASE);
        hart.cpu.state.f[5][0] = 0x1122_3344_5566_8899;
        hart.run(&[s(Fsh, 5, 10, 1), i(Flh, 6, 10, 1)]);
        assert_eq!((hart.cpu.state.f[6][0], hart.cpu.mmu.ram.read_u32(DATA)), (h(0x8899), Some(0x88_9900)));
    }
}
