//! The x87 unit: edge operands by table, random operands against the host's doubles, functions against values computed
//! with hundreds of digits.

use super::table::{MemFormat, TABLE, X87Op, X87Op::*, lookup};
use super::{EnvLayout, Fpu, Reg, X87Fault, X87Out};
use crate::x86::fp::soft::{DE, IE, OE, PE, UE, ZE};
use crate::x86::fp::tests::Random;
use mimus_ir::FpEnv;

const ONE: Reg = Reg::new(0x3fff, 1 << 63);
const INF: Reg = Reg::new(0x7fff, 1 << 63);
const ZERO: Reg = Reg::new(0, 0);
const INDEFINITE: Reg = Reg::new(0xffff, 3 << 62);
const SNAN: Reg = Reg::new(0x7fff, 1 << 63 | 7);
const DENORMAL: Reg = Reg::new(0, 1);
const SF: u32 = 1 << 6;
const ES: u16 = 1 << 7;
const C0: u16 = 1 << 8;
const C1: u16 = 1 << 9;
const C2: u16 = 1 << 10;
const C3: u16 = 1 << 14;

fn neg(x: Reg) -> Reg {
    Reg::new(x.se ^ 0x8000, x.sig)
}

fn qnan(payload: u64) -> Reg {
    Reg::new(0x7fff, 3 << 62 | payload)
}

impl Fpu {
    fn run(&mut self, op: X87Op, sti: u8, operand: u128) -> X87Out {
        self.exec(op, sti, operand).expect("nothing pending")
    }

    fn st(&self, i: u8) -> Reg {
        self.regs[usize::from((self.top() + i) & 7)]
    }

    fn flags(&self) -> u32 {
        u32::from(self.status_word() & 0x7f)
    }

    fn with(values: &[Reg]) -> Self {
        let mut fpu = Self::default();
        for value in values.iter().rev() {
            fpu.run(Fld_m80fp, 0, value.bits());
        }
        fpu
    }

    fn with_control(mut self, cw: u16) -> Self {
        self.set_control_word(cw);
        self
    }

    fn pop_f64(&mut self) -> f64 {
        let bits = self.run(Fstp_m64fp, 0, 0).memory.expect("exceptions are masked");
        f64::from_bits(bits as u64)
    }
}

fn double(x: f64) -> Reg {
    let mut fpu = Fpu::default();
    fpu.run(Fld_m64fp, 0, x.to_bits().into());
    fpu.st(0)
}

#[test]
fn the_table_and_its_index_agree() {
    for (i, row) in TABLE.iter().enumerate() {
        assert_eq!(row.op as usize, i);
        assert_eq!(X87Op::try_from(i as u16), Ok(row.op));
        assert_eq!(X87Op::ALL[i], row.op);
        for &code in row.codes {
            assert_eq!(lookup(code).map(|row| row.op), Some(row.op));
        }
    }
    assert_eq!(X87Op::try_from(TABLE.len() as u16), Err(TABLE.len() as u16));
    assert!(lookup(iced_x86::Code::Fxsave_m512byte).is_none());
    assert!(!Fnstsw_AX.row().waits && Fnstsw_AX.row().control && !Fnstsw_AX.row().store);
    assert!(Fnstcw_m2byte.row().store && Fldcw_m2byte.row().waits && Fldcw_m2byte.row().control);
    assert!(Fld1.row().waits && !Fld1.row().control && Fcmovu_st0_sti.row().condition() == Some(10));
    assert_eq!(Fbld_m80bcd.row().memory, MemFormat::Bcd);
}

/// With 53 bits of precision and no overflow or underflow, results are those of doubles.
#[test]
fn double_precision_arithmetic_is_the_hosts() {
    let mut random = Random::new(11);
    for _ in 0..10_000 {
        let (a, b) = (random.f64(), random.f64());
        for (op, host) in [
            (Fadd_m64fp, a + b),
            (Fsub_m64fp, a - b),
            (Fsubr_m64fp, b - a),
            (Fmul_m64fp, a * b),
            (Fdiv_m64fp, a / b),
            (Fdivr_m64fp, b / a),
        ] {
            if !host.is_normal() {
                continue;
            }
            let mut fpu = Fpu::with(&[double(a)]).with_control(0x027f);
            fpu.run(op, 0, b.to_bits().into());
            assert_eq!(fpu.pop_f64().to_bits(), host.to_bits(), "{op:?} {a:e} {b:e}");
        }
        let mut fpu = Fpu::with(&[double(a.abs())]).with_control(0x027f);
        fpu.run(Fsqrt, 0, 0);
        assert_eq!(fpu.pop_f64().to_bits(), a.abs().sqrt().to_bits(), "{a:e}");
        let mut fpu = Fpu::with(&[double(a), double(b)]);
        let compared = fpu.run(Fcomi_st0_sti, 1, 0).eflags;
        let expected = if a > b {
            0
        } else if a < b {
            1
        } else {
            0x40
        };
        assert_eq!(compared, Some(expected), "{a:e} {b:e}");
    }
}

#[test]
fn remainder_is_the_hosts() {
    let mut random = Random::new(12);
    for _ in 0..3_000 {
        let (a, b) = (random.f64(), random.f64());
        if b == 0.0 {
            continue;
        }
        let mut fpu = Fpu::with(&[double(a), double(b)]);
        let mut steps = 0;
        loop {
            fpu.run(Fprem, 0, 0);
            steps += 1;
            assert!(steps < 100, "{a:e} {b:e}");
            if fpu.status_word() & C2 == 0 {
                break;
            }
        }
        assert_eq!(fpu.pop_f64().to_bits(), (a % b).to_bits(), "{a:e} {b:e}");
    }
    // Dividend, divisor, remainders of FPREM and FPREM1 with the low bits of their quotients.
    for (a, b, truncated, q, nearest, q1) in [
        (7.0, 2.0, 1.0, 3, -1.0, 4),
        (5.0, 2.0, 1.0, 2, 1.0, 2),
        (-7.0, 4.0, -3.0, 1, 1.0, 2),
        (3.0, 4.0, 3.0, 0, -1.0, 1),
        (2.0, 4.0, 2.0, 0, 2.0, 0),
        (6.0, 3.0, 0.0, 2, 0.0, 2),
        (1.0, 8.0, 1.0, 0, 1.0, 0),
    ] {
        for (op, remainder, q) in [(Fprem, truncated, q), (Fprem1, nearest, q1)] {
            let mut fpu = Fpu::with(&[double(a), double(b)]);
            fpu.run(op, 0, 0);
            let bit = |n: u32, flag: u16| if q >> n & 1 != 0 { flag } else { 0 };
            let expected = bit(2, C0) | bit(1, C3) | bit(0, C1);
            assert_eq!(fpu.status_word() & (C0 | C1 | C2 | C3), expected, "{op:?} {a} {b}");
            assert_eq!(fpu.pop_f64(), remainder, "{op:?} {a} {b}");
        }
    }
}

#[test]
fn edge_operands() {
    let max = Reg::new(0x7ffe, u64::MAX);
    let cases: &[(X87Op, Reg, Reg, Reg, u32)] = &[
        // Operation on ST(0) and ST(1), result in ST(0), flags. NaNs: quiet before signalling, then the larger.
        (Fadd_st0_sti, qnan(5), qnan(9), qnan(9), 0),
        (Fadd_st0_sti, qnan(9), neg(qnan(9)), qnan(9), 0),
        (Fadd_st0_sti, SNAN, qnan(1), qnan(1), IE),
        (Fadd_st0_sti, SNAN, ONE, qnan(7), IE),
        (Fadd_st0_sti, SNAN, Reg::new(0xffff, 1 << 63 | 8), neg(qnan(8)), IE),
        // Formats that are no more: a pseudo-NaN, a pseudo-infinity, an unnormal number.
        (Fadd_st0_sti, Reg::new(0x7fff, 5), qnan(1), INDEFINITE, IE),
        (Fadd_st0_sti, Reg::new(0x7fff, 0), ONE, INDEFINITE, IE),
        (Fmul_st0_sti, Reg::new(0x3fff, 1), ONE, INDEFINITE, IE),
        // A pseudo-denormal is a denormal operand of the smallest normal exponent.
        (Fmul_st0_sti, Reg::new(0, 1 << 63), ONE, Reg::new(1, 1 << 63), DE),
        (Fsub_st0_sti, INF, INF, INDEFINITE, IE),
        (Fmul_st0_sti, ZERO, INF, INDEFINITE, IE),
        (Fdiv_st0_sti, ZERO, ZERO, INDEFINITE, IE),
        (Fdiv_st0_sti, ONE, neg(ZERO), neg(INF), ZE),
        (Fdiv_st0_sti, ZERO, INF, ZERO, 0),
        (Fdivr_st0_sti, ZERO, ONE, INF, ZE),
        (Fadd_st0_sti, max, max, INF, OE | PE),
        (Fmul_st0_sti, DENORMAL, double(0.5), ZERO, DE | UE | PE),
        (Fscale, ONE, double(3.9), double(8.0), 0),
        (Fscale, ONE, neg(INF), ZERO, 0),
        (Fscale, ZERO, INF, INDEFINITE, IE),
        (Fscale, INF, neg(INF), INDEFINITE, IE),
        (Fscale, ONE, double(-1e300), ZERO, UE | PE),
        (Fscale, ONE, double(1e9), INF, OE | PE),
        (Fprem, INF, ONE, INDEFINITE, IE),
        (Fprem, ONE, ZERO, INDEFINITE, IE),
        (Fprem, ONE, INF, ONE, 0),
        (Fsqrt, neg(ONE), ONE, INDEFINITE, IE),
        (Fsqrt, neg(ZERO), ONE, neg(ZERO), 0),
        (Fsqrt, double(2.0), ONE, Reg::new(0x3fff, 0xb504_f333_f9de_6484), PE),
        (Frndint, double(2.5), ONE, double(2.0), PE),
        (Frndint, double(-0.5), ONE, neg(ZERO), PE),
        (Frndint, neg(DENORMAL), ONE, neg(ZERO), DE | PE),
        (Fchs, SNAN, ONE, neg(SNAN), 0),
        (Fabs, neg(qnan(3)), ONE, qnan(3), 0),
        (F2xm1, neg(ONE), ONE, double(-0.5), PE),
        (F2xm1, neg(ZERO), ONE, neg(ZERO), 0),
        (Fsin, neg(ZERO), ONE, neg(ZERO), 0),
        (Fcos, ZERO, ONE, ONE, 0),
        (Fcos, INF, ONE, INDEFINITE, IE),
        // What pops: the result is in ST(0) afterwards.
        (Fyl2x, neg(ONE), ONE, INDEFINITE, IE),
        (Fyl2x, ZERO, ONE, neg(INF), ZE),
        (Fyl2x, ZERO, ZERO, INDEFINITE, IE),
        (Fyl2x, ONE, INF, INDEFINITE, IE),
        (Fyl2x, ONE, neg(ONE), neg(ZERO), 0),
        (Fyl2x, double(8.0), double(1.5), double(4.5), PE),
        (Fyl2xp1, neg(ZERO), ONE, neg(ZERO), 0),
        (Fpatan, ONE, ZERO, ZERO, 0),
        (Fpatan, INF, neg(ONE), neg(ZERO), 0),
        (Fpatan, ZERO, ONE, Reg::new(0x3fff, 0xc90f_daa2_2168_c235), PE),
        (Fpatan, neg(ZERO), neg(ZERO), Reg::new(0xc000, 0xc90f_daa2_2168_c235), PE),
        (Fpatan, neg(INF), INF, Reg::new(0x4000, 0x96cb_e3f9_990e_91a8), PE),
        (Fpatan, ONE, ONE, Reg::new(0x3ffe, 0xc90f_daa2_2168_c235), PE),
    ];
    for &(op, a, b, result, flags) in cases {
        let mut fpu = Fpu::with(&[a, b]);
        fpu.run(op, 1, 0);
        assert_eq!((fpu.st(0), fpu.flags()), (result, flags), "{op:?} {a:x?} {b:x?}");
    }
}

#[test]
fn precision_and_rounding_control() {
    // 1/3 by precision and rounding.
    for (cw, sig, up) in [
        (0x007f, 0xaaaa_ab00_0000_0000, true),
        (0x027f, 0xaaaa_aaaa_aaaa_a800, false),
        (0x037f, 0xaaaa_aaaa_aaaa_aaab, true),
        (0x077f, 0xaaaa_aaaa_aaaa_aaaa, false),
        (0x0b7f, 0xaaaa_aaaa_aaaa_aaab, true),
        (0x0f7f, 0xaaaa_aaaa_aaaa_aaaa, false),
    ] {
        let mut fpu = Fpu::with(&[ONE, double(3.0)]).with_control(cw);
        fpu.run(Fdiv_st0_sti, 1, 0);
        assert_eq!(fpu.st(0), Reg::new(0x3ffd, sig), "{cw:#x}");
        assert_eq!((fpu.status_word() & C1 != 0, fpu.flags()), (up, PE), "{cw:#x}");
    }
    // The constants of the manual, to nearest and truncated.
    for (op, nearest, truncated) in [
        (Fldpi, (0x4000, 0xc90f_daa2_2168_c235), 0xc90f_daa2_2168_c234),
        (Fldl2t, (0x4000, 0xd49a_784b_cd1b_8afe), 0xd49a_784b_cd1b_8afe),
        (Fldl2e, (0x3fff, 0xb8aa_3b29_5c17_f0bc), 0xb8aa_3b29_5c17_f0bb),
        (Fldlg2, (0x3ffd, 0x9a20_9a84_fbcf_f799), 0x9a20_9a84_fbcf_f798),
        (Fldln2, (0x3ffe, 0xb172_17f7_d1cf_79ac), 0xb172_17f7_d1cf_79ab),
        (Fld1, (0x3fff, 1 << 63), 1 << 63),
        (Fldz, (0, 0), 0),
    ] {
        let mut fpu = Fpu::default();
        fpu.run(op, 0, 0);
        fpu.set_control_word(0x0f7f);
        fpu.run(op, 0, 0);
        assert_eq!((fpu.st(1), fpu.st(0).sig, fpu.flags()), (Reg::new(nearest.0, nearest.1), truncated, 0), "{op:?}");
    }
}

#[test]
fn stack_faults() {
    let mut fpu = Fpu::default();
    fpu.run(Fadd_st0_sti, 1, 0);
    assert_eq!((fpu.st(0), fpu.flags(), fpu.status_word() & C1), (INDEFINITE, IE | SF, 0));
    let mut fpu = Fpu::with(&[ONE; 8]);
    assert_eq!((fpu.flags(), fpu.tags()), (0, 0xff));
    fpu.run(Fldz, 0, 0);
    assert_eq!((fpu.st(0), fpu.flags(), fpu.status_word() & C1), (INDEFINITE, IE | SF, C1));
    // Unmasked, nothing is pushed, and the next waiting instruction faults; those that do not wait still run.
    let mut fpu = Fpu::with(&[ONE; 8]).with_control(0x037e);
    let top = fpu.top();
    fpu.run(Fldz, 0, 0);
    assert_eq!((fpu.top(), fpu.st(0)), (top, ONE));
    assert_eq!(fpu.exec(Fnop, 0, 0), Err(X87Fault));
    assert_eq!(fpu.store_value(Fstp_m64fp).map(|store| store.value), Err(X87Fault));
    let sw = fpu.run(Fnstsw_AX, 0, 0).ax.unwrap_or_default();
    assert_eq!(sw & (ES | 0x8000), ES | 0x8000);
    fpu.run(Fnclex, 0, 0);
    assert_eq!(fpu.exec(Fnop, 0, 0), Ok(X87Out::default()));
    // FXCH and FCMOV put the indefinite where nothing was.
    let mut fpu = Fpu::with(&[ONE]);
    fpu.run(Fxch_st0_sti, 1, 0);
    assert_eq!((fpu.st(0), fpu.st(1), fpu.flags()), (INDEFINITE, ONE, IE | SF));
    // FXTRACT and FSINCOS need room.
    for op in [Fxtract, Fsincos, Fptan] {
        let mut fpu = Fpu::with(&[ONE; 8]);
        fpu.run(op, 0, 0);
        assert_eq!((fpu.st(0), fpu.st(1), fpu.status_word() & C1), (INDEFINITE, INDEFINITE, C1), "{op:?}");
    }
}

#[test]
fn unmasked_exceptions() {
    // Operands: the destination stays, nothing is popped.
    let mut fpu = Fpu::with(&[ZERO, ONE]).with_control(0x037b);
    fpu.run(Fdivp_sti_st0, 1, 0);
    assert_eq!((fpu.st(0), fpu.st(1), fpu.flags()), (ZERO, ONE, ZE));
    // Results: the exponent is adjusted, and the instruction completes.
    let max = Reg::new(0x7ffe, 1 << 63);
    let mut fpu = Fpu::with(&[max, max]).with_control(0x0377);
    fpu.run(Fmulp_sti_st0, 1, 0);
    let exponent = 2 * (0x7ffe - 0x3fff) + 0x3fff - 24576;
    assert_eq!((fpu.st(0), fpu.flags()), (Reg::new(exponent as u16, 1 << 63), OE));
    let tiny = Reg::new(1, 1 << 63);
    let mut fpu = Fpu::with(&[tiny, tiny]).with_control(0x036f);
    fpu.run(Fmul_st0_sti, 1, 0);
    let exponent = 2 * (1 - 0x3fff) + 0x3fff + 24576;
    assert_eq!((fpu.st(0), fpu.flags()), (Reg::new(exponent as u16, 1 << 63), UE));
    // Stores: overflow and underflow store nothing and keep the stack, inexactness stores.
    for (x, cw, value, flags) in [
        (double(1e300), 0x0377, None, OE),
        (double(1e-300), 0x036f, None, UE),
        (double(0.1), 0x035f, Some(0x3dcc_cccd), PE),
        (double(1e300), 0x037f, Some(0x7f80_0000), OE | PE),
        (double(1e-300), 0x0b7f, Some(1), UE | PE),
    ] {
        let mut fpu = Fpu::with(&[x]).with_control(cw);
        let out = fpu.run(Fstp_m32fp, 0, 0);
        assert_eq!((out.memory, fpu.flags()), (value, flags), "{x:x?}");
        assert_eq!(fpu.tags() == 0, value.is_some(), "{x:x?}");
    }
}

#[test]
fn comparisons_and_examination() {
    for (a, b, conditions, ordered, unordered) in [
        (ONE, ZERO, 0, 0, 0),
        (ZERO, ONE, C0, 0, 0),
        (ZERO, neg(ZERO), C3, 0, 0),
        (neg(INF), INF, C0, 0, 0),
        (qnan(1), ONE, C0 | C2 | C3, IE, 0),
        (ONE, SNAN, C0 | C2 | C3, IE, IE),
        (DENORMAL, ONE, C0, DE, DE),
    ] {
        for (op, flags) in [(Fcom_st0_sti, ordered), (Fucom_st0_sti, unordered)] {
            let mut fpu = Fpu::with(&[a, b]);
            fpu.run(op, 1, 0);
            assert_eq!(fpu.status_word() & (C0 | C1 | C2 | C3), conditions, "{op:?} {a:x?} {b:x?}");
            assert_eq!(fpu.flags(), flags, "{op:?} {a:x?} {b:x?}");
        }
        let eflags = u32::from((conditions >> 8) & 0x45);
        assert_eq!(Fpu::with(&[a, b]).run(Fucomip_st0_sti, 1, 0).eflags, Some(eflags));
    }
    let mut fpu = Fpu::with(&[ONE, ONE, ONE]);
    fpu.run(Fcompp, 0, 0);
    assert_eq!((fpu.tags().count_ones(), fpu.status_word() & C3), (1, C3));
    fpu.run(Ftst, 0, 0);
    assert_eq!(fpu.status_word() & (C0 | C2 | C3), 0);
    for (x, class) in [
        (Reg::new(0x3fff, 1), 0),
        (neg(SNAN), C0 | C1),
        (ONE, C2),
        (neg(INF), C0 | C1 | C2),
        (ZERO, C3),
        (neg(DENORMAL), C1 | C2 | C3),
    ] {
        let mut fpu = Fpu::with(&[x]);
        fpu.run(Fxam, 0, 0);
        assert_eq!(fpu.status_word() & (C0 | C1 | C2 | C3), class, "{x:x?}");
    }
    let mut fpu = Fpu::default();
    fpu.run(Fxam, 0, 0);
    assert_eq!(fpu.status_word() & (C0 | C2 | C3), C0 | C3);
    // FCMOVcc: CF, PF and ZF.
    for (op, eflags, moves) in [
        (Fcmovb_st0_sti, 1, true),
        (Fcmovb_st0_sti, 0x44, false),
        (Fcmovnbe_st0_sti, 4, true),
        (Fcmovnbe_st0_sti, 0x40, false),
        (Fcmovu_st0_sti, 4, true),
        (Fcmovne_st0_sti, 0x40, false),
    ] {
        let mut fpu = Fpu::with(&[ZERO, ONE]);
        fpu.run(op, 1, eflags);
        assert_eq!(fpu.st(0) == ONE, moves, "{op:?} {eflags:#x}");
    }
}

#[test]
fn loads_and_stores() {
    for (op, bits, reg, flags) in [
        (Fld_m32fp, 0x3f80_0000, ONE, 0),
        (Fld_m32fp, 1, Reg::new(0x3fff - 149, 1 << 63), DE),
        (Fld_m32fp, 0xff80_0001, Reg::new(0xffff, 0xc000_0100_0000_0000), IE),
        (Fld_m64fp, 0x7ff0_0000_0000_0000, INF, 0),
        (Fld_m80fp, SNAN.bits(), SNAN, 0),
        (Fld_m80fp, DENORMAL.bits(), DENORMAL, 0),
        (Fild_m16int, 0x8000, double(-32768.0), 0),
        (Fild_m64int, 0xffff_ffff_ffff_ffff, neg(ONE), 0),
        (Fild_m64int, 0x7fff_ffff_ffff_ffff, Reg::new(0x403d, 0xffff_ffff_ffff_fffe), 0),
        (Fbld_m80bcd, 0x8000_0000_0000_0000_1234, double(-1234.0), 0),
        (Fbld_m80bcd, 1 << 79, neg(ZERO), 0),
    ] {
        let mut fpu = Fpu::default();
        fpu.run(op, 0, bits);
        assert_eq!((fpu.st(0), fpu.flags()), (reg, flags), "{op:?} {bits:x}");
    }
    for (op, x, bits, flags) in [
        (Fst_m64fp, SNAN, 0x7ff8_0000_0000_0000, IE),
        (Fst_m32fp, qnan(1 << 40), 0x7fc0_0001, 0),
        (Fst_m32fp, neg(ZERO), 0x8000_0000, 0),
        (Fist_m16int, double(-32768.0), 0x8000, 0),
        (Fist_m16int, double(32767.5), 0x8000, IE),
        (Fist_m32int, double(2.5), 2, PE),
        (Fist_m32int, qnan(0), 0x8000_0000, IE),
        (Fisttp_m32int, double(-2.9), 0xffff_fffe, PE),
        (Fistp_m64int, double(-9.3e18), 1 << 63, IE),
        (Fistp_m64int, double(-(2f64.powi(63))), 1 << 63, 0),
        (Fistp_m64int, Reg::new(0x3fff, 1), 1 << 63, IE),
        (Fbstp_m80bcd, double(-98_765_432.1), 1 << 79 | 0x9876_5432, PE),
        (Fbstp_m80bcd, double(1e18), 0xffff_c000_0000_0000_0000, IE),
        (Fbstp_m80bcd, neg(ZERO), 1 << 79, 0),
        (Fstp_m80fp, SNAN, SNAN.bits(), 0),
    ] {
        let mut fpu = Fpu::with(&[x]);
        let before = fpu;
        let store = fpu.store_value(op).expect("nothing pending");
        assert_eq!(fpu, before);
        assert_eq!(store.value, Some(bits), "{op:?} {x:x?}");
        fpu.commit(store.commit);
        assert_eq!(fpu.flags(), flags, "{op:?} {x:x?}");
        let pops = !matches!(op, Fst_m32fp | Fst_m64fp | Fist_m16int | Fist_m32int);
        assert_eq!(fpu.tags() == 0, pops, "{op:?}");
    }
    let mut random = Random::new(13);
    for _ in 0..1_000 {
        let x = random.next() as i64 >> (random.next() % 64);
        let mut fpu = Fpu::default();
        fpu.run(Fild_m64int, 0, (x as u64).into());
        assert_eq!(fpu.run(Fistp_m64int, 0, 0).memory, Some((x as u64).into()));
        fpu.run(Fild_m64int, 0, ((x / 10) as u64).into());
        let digits = fpu.run(Fbstp_m80bcd, 0, 0).memory.expect("masked");
        assert_eq!(format!("{:x}", digits & !(1 << 79)), (x / 10).unsigned_abs().to_string());
        fpu.run(Fbld_m80bcd, 0, digits);
        assert_eq!(fpu.run(Fistp_m64int, 0, 0).memory, Some(((x / 10) as u64).into()));
    }
}

#[test]
fn register_operations() {
    let (two, three) = (double(2.0), double(3.0));
    let mut fpu = Fpu::with(&[ONE, two, three]);
    fpu.run(Fxch_st0_sti, 2, 0);
    assert_eq!((fpu.st(0), fpu.st(2)), (three, ONE));
    fpu.run(Fsubr_sti_st0, 1, 0);
    assert_eq!(fpu.st(1), ONE);
    fpu.run(Fsub_sti_st0, 1, 0);
    assert_eq!(fpu.st(1), double(-2.0));
    fpu.run(Fld_sti, 2, 0);
    assert_eq!(fpu.st(0), ONE);
    fpu.run(Fstp_sti, 2, 0);
    assert_eq!((fpu.st(0), fpu.st(1), fpu.tags().count_ones()), (three, ONE, 3));
    let top = fpu.top();
    fpu.run(Fincstp, 0, 0);
    assert_eq!((fpu.top(), fpu.tags().count_ones()), ((top + 1) & 7, 3));
    fpu.run(Fdecstp, 0, 0);
    fpu.run(Ffree_sti, 0, 0);
    assert_eq!((fpu.top(), fpu.tags().count_ones()), (top, 2));
    let mut fpu = Fpu::with(&[double(-12.0)]);
    fpu.run(Fxtract, 0, 0);
    assert_eq!((fpu.st(0), fpu.st(1)), (double(-1.5), double(3.0)));
    let mut fpu = Fpu::with(&[neg(ZERO)]);
    fpu.run(Fxtract, 0, 0);
    assert_eq!((fpu.st(0), fpu.st(1), fpu.flags()), (neg(ZERO), neg(INF), ZE));
}

#[test]
fn control_words_and_mmx() {
    let mut fpu = Fpu::default();
    assert_eq!(fpu.run(Fnstcw_m2byte, 0, 0).memory, Some(0x037f));
    fpu.run(Fldcw_m2byte, 0, 0xffff);
    assert_eq!(fpu.control_word(), 0x1f7f);
    fpu.run(Fld1, 0, 0);
    assert_eq!(fpu.run(Fnstsw_m2byte, 0, 0).memory, Some(7 << 11));
    fpu.enter_mmx();
    fpu.set_mmx(3, 0x1234);
    assert_eq!((fpu.top(), fpu.tags(), fpu.mmx(3), fpu.regs[3].se), (0, 0xff, 0x1234, 0xffff));
    assert_eq!(fpu.mmx(7), 1 << 63);
    fpu.emms();
    assert_eq!(fpu.tag_word(), 0xffff);
    let mut fpu = Fpu::default();
    fpu.run(Fld1, 0, 0);
    fpu.emms();
    assert_eq!((fpu.top(), fpu.tags()), (0, 0));
    // An exception that was masked becomes pending when it is unmasked.
    let mut fpu = Fpu::with(&[ONE, ZERO]);
    fpu.run(Fdiv_st0_sti, 1, 0);
    assert_eq!(fpu.check_pending(), Ok(()));
    fpu.run(Fldcw_m2byte, 0, 0x037b);
    assert_eq!(fpu.check_pending(), Err(X87Fault));
    fpu.run(Fnstenv_m14byte, 0, 0);
    assert_eq!((fpu.control_word(), fpu.check_pending()), (0x037f, Ok(())));
    fpu.run(Fnsave_m94byte, 0, 0);
    assert_eq!((fpu.tags(), fpu.status_word()), (0, 0));
}

#[test]
fn images() {
    let mut fpu = Fpu::with(&[ONE, ZERO, SNAN, DENORMAL, INF]).with_control(0x027f);
    (fpu.fip, fpu.fdp, fpu.fcs, fpu.fds, fpu.fop) = (0x1234, 0x5678, 0x10, 0x18, 0x5d9);
    // TOP is 3; R3 to R7 hold valid, zero, special, special, special.
    assert_eq!(fpu.tag_word(), 0b10_10_10_01_00_11_11_11);
    let words = |layout: EnvLayout| -> Vec<u16> {
        let image = fpu.environment(layout);
        image[..layout.bytes()].chunks(2).map(|x| u16::from_le_bytes([x[0], x[1]])).collect()
    };
    let sw = 3 << 11;
    assert_eq!(words(EnvLayout::Protected16), [0x27f, sw, 0xa93f, 0x1234, 0x10, 0x5678, 0x18]);
    assert_eq!(words(EnvLayout::Real16), [0x27f, sw, 0xa93f, 0x1334, 0x05d9, 0x57f8, 0]);
    let (ones, tw) = (0xffff, 0xa93f);
    assert_eq!(
        words(EnvLayout::Protected32),
        [0x27f, ones, sw, ones, tw, ones, 0x1234, 0, 0x10, 0x5d9, 0x5678, 0, 0x18, ones]
    );
    assert_eq!(
        words(EnvLayout::Real32),
        [0x27f, ones, sw, ones, tw, ones, 0x1334, ones, 0x05d9, 0, 0x57f8, ones, 0, 0]
    );
    for layout in [EnvLayout::Protected16, EnvLayout::Real16, EnvLayout::Protected32, EnvLayout::Real32] {
        let image = fpu.save(layout);
        assert_eq!(image[layout.bytes()..layout.bytes() + 10], ONE.bits().to_le_bytes()[..10]);
        let mut other = Fpu::default();
        other.restore(layout, &image[..layout.state_bytes()]);
        assert_eq!(other.save(layout), image, "{layout:?}");
        assert_eq!((other.regs[3..].to_vec(), other.tags()), (fpu.regs[3..].to_vec(), fpu.tags()));
        // A short image is no reason to panic.
        other.restore(layout, &image[..5]);
    }
    // The linear address in real mode has more than 16 bits.
    (fpu.fcs, fpu.fip) = (0xf000, 0xfff0);
    let image = fpu.environment(EnvLayout::Real16);
    assert_eq!(image[6..10], [0xf0, 0xff, 0xd9, 0xf5]);
    for wide in [false, true] {
        let image = fpu.fxsave(wide, FpEnv::RESET);
        assert_eq!((image[4], image[24], image[25]), (0xf8, 0x80, 0x1f));
        let mut other = Fpu::default();
        other.fxrstor(wide, &image);
        assert_eq!(other.fxsave(wide, FpEnv::RESET), image);
        assert_eq!((other.fcs, other.fip), (if wide { 0 } else { 0xf000 }, 0xfff0));
    }
}

type Bits = (u16, u64);

fn reg((se, sig): Bits) -> Reg {
    Reg::new(se, sig)
}

#[track_caller]
fn assert_close(ours: Reg, exact: Bits) {
    assert!(ours.se == exact.0 && ours.sig.abs_diff(exact.1) <= 1, "{ours:x?}, not {exact:x?}");
}

/// Values computed with 900 bits and rounded to nearest; the angles are reduced by the unit's pi of 66 bits.
#[test]
fn transcendental_functions() {
    let angles: &[(Bits, Bits, Bits, Bits)] = &[
        (
            (0xbfe2, 0xd860_8fef_cb91_ce37),
            (0xbfe2, 0xd860_8fef_cb91_ce1d),
            (0x3ffe, 0xffff_ffff_ffff_ffa5),
            (0xbfe2, 0xd860_8fef_cb91_ce6b),
        ),
        (
            (0x3ffe, 0xf8bf_e9ba_c6a5_3877),
            (0x3ffe, 0xd369_d01c_7f2f_64be),
            (0x3ffe, 0x905c_afaf_e994_c39b),
            (0x3fff, 0xbb73_9fbf_fb3c_17b0),
        ),
        (
            (0x3fff, 0x9413_b446_e6a1_6a3b),
            (0x3ffe, 0xea60_e80f_9f43_85f9),
            (0x3ffd, 0xcdf0_5698_3c27_cc9e),
            (0x4000, 0x91ad_312f_50c7_6bf5),
        ),
        (
            (0x4009, 0xef29_3880_7814_e8a2),
            (0xbffa, 0xee56_d3c4_8e16_5261),
            (0xbffe, 0xff90_f523_2fcf_041d),
            (0x3ffa, 0xeebe_6272_9b65_2665),
        ),
        (
            (0x4035, 0x8d0d_7f43_8b33_e968),
            (0xbffe, 0xee9b_1813_d323_1939),
            (0x3ffd, 0xb981_e945_dbc1_7dcc),
            (0xc000, 0xa4a3_48f9_e84f_353c),
        ),
        (
            (0xbffd, 0xf54a_ce10_2e9c_82b1),
            (0xbffd, 0xec04_129d_57cf_d530),
            (0x3ffe, 0xe32d_b9a6_14d4_13fb),
            (0xbffe, 0x84fa_ae95_7d49_3378),
        ),
        (
            (0xbfff, 0xe608_e9ab_c30d_8b76),
            (0xbffe, 0xf978_4cad_704d_339e),
            (0xbffc, 0xe5cf_1605_4ffa_06df),
            (0x4001, 0x8af3_6bf1_0f6a_bdb8),
        ),
        (
            (0x4006, 0xcf08_af25_9e30_691c),
            (0xbffd, 0x9cc5_7bbe_5670_82a6),
            (0x3ffe, 0xf3b4_3ed7_c8be_9674),
            (0xbffd, 0xa4ae_63c4_1a1f_9f54),
        ),
        (
            (0xc025, 0x803a_2898_21da_8978),
            (0x3ffd, 0x8f1b_597d_3515_b1ac),
            (0xbffe, 0xf5cc_00a1_b5d3_027b),
            (0xbffd, 0x950c_1889_689d_3fef),
        ),
        (
            (0x3fff, 0x9b94_e30c_c60a_3cab),
            (0x3ffe, 0xf002_6b03_8c7e_3e32),
            (0x3ffd, 0xb21e_1848_1f98_1b2c),
            (0x4000, 0xac7a_2697_4f78_164f),
        ),
    ];
    for &(x, sine, cosine, tangent) in angles {
        let function = |op| {
            let mut fpu = Fpu::with(&[reg(x)]);
            fpu.run(op, 0, 0);
            assert_eq!((fpu.flags(), fpu.status_word() & C2), (PE, 0));
            fpu
        };
        assert_close(function(Fsin).st(0), sine);
        assert_close(function(Fcos).st(0), cosine);
        let both = function(Fsincos);
        assert_close(both.st(1), sine);
        assert_close(both.st(0), cosine);
        let tan = function(Fptan);
        assert_close(tan.st(1), tangent);
        assert_eq!(tan.st(0), ONE);
    }
    let powers: &[(Bits, Bits)] = &[
        ((0x3fde, 0xa507_f3ae_2a9e_ba0c), (0x3fdd, 0xe4c8_18f3_02ce_b634)),
        ((0xbff8, 0xf024_aa47_8a0a_8c96), (0xbff8, 0xa59c_a576_84a1_99fd)),
        ((0x3ffe, 0xfbf9_ab1a_f0e3_cd97), (0x3ffe, 0xfa73_6957_eaca_1815)),
        ((0x3ffa, 0x953e_0c40_6a37_5391), (0x3ff9, 0xd187_5300_0ed4_f74c)),
        ((0x3ffe, 0xaa7a_3534_10ac_ff00), (0x3ffe, 0x962a_9c0f_d1b0_0598)),
        ((0xbfdd, 0xcb06_ad47_9a65_6aaf), (0xbfdd, 0x8cba_19c9_bbb3_785e)),
        ((0xbffe, 0xd924_48c8_7b12_1dc5), (0xbffd, 0xe398_f8e0_55b4_8857)),
    ];
    for &(x, result) in powers {
        let mut fpu = Fpu::with(&[reg(x)]);
        fpu.run(F2xm1, 0, 0);
        assert_close(fpu.st(0), result);
    }
    let binary: &[(X87Op, Bits, Bits, Bits)] = &[
        (Fyl2x, (0x3fe4, 0xbc7c_22fa_7b31_20df), (0x3ffa, 0xfcd0_0ff4_4195_21fe), (0xbfff, 0xd0e6_6114_3ea7_d0a0)),
        (Fyl2x, (0x3fff, 0xb3bf_e89c_d84a_1d3a), (0x4002, 0xb59c_2184_c9a9_37a6), (0x4001, 0xb1eb_e27b_b100_bf3a)),
        (Fyl2x, (0x3ffe, 0xebad_8f12_9419_cf4d), (0x4001, 0xda97_d29e_0bf6_4ef7), (0xbffe, 0xd0ac_1d05_f992_b277)),
        (Fyl2x, (0x4010, 0xe346_f5ae_403a_960a), (0xbffb, 0xdfcb_81e0_96fa_bb7b), (0xbfff, 0xf95e_2b31_7f7d_19bf)),
        (Fyl2x, (0x3ffe, 0xa349_5d01_5707_9670), (0x3ffe, 0xa88c_e6e6_af9b_74f8), (0xbffd, 0xdab0_a1e5_5b3c_c1a1)),
        (Fyl2x, (0x3fff, 0x8000_0000_0000_0001), (0x4001, 0x8a5c_d6da_0c6d_ea3d), (0x3fc2, 0xc79d_781a_4bc8_7199)),
        (Fyl2x, (0x3ffe, 0xffff_ffff_ffff_ffff), (0xbfff, 0xdeca_9ee1_3cc2_1779), (0x3fc0, 0xa0b5_c83c_1674_dba5)),
        (Fyl2xp1, (0xbfdd, 0xba53_3be3_400d_b00d), (0xbffc, 0xfd51_87d6_0e42_d43c), (0x3fdc, 0x84ff_5057_1795_c3f8)),
        (Fyl2xp1, (0x3ffc, 0xeb51_a69f_558d_2adb), (0x3ffc, 0xdda7_2e08_fb36_8220), (0x3ffb, 0x844b_8211_4beb_c906)),
        (Fyl2xp1, (0xbffd, 0xba00_fae7_2425_d75a), (0x4002, 0xfae5_957e_741b_324d), (0xc002, 0xa368_0207_9570_b5f1)),
        (Fyl2xp1, (0xbff7, 0xb041_8f79_1cd0_c151), (0x4001, 0xab53_45a0_de28_123c), (0xbffa, 0xaaa2_d4cd_2fd5_9150)),
        (Fyl2xp1, (0xbffd, 0xa721_25c9_c277_af32), (0xc002, 0xd58b_1a03_b458_1e37), (0x4001, 0xf37a_3a54_fe14_964d)),
        (Fpatan, (0xbff0, 0xe287_15cc_43cd_c356), (0xbfe6, 0xed08_80d5_94a6_300c), (0xc000, 0xc8ff_1cad_5379_504e)),
        (Fpatan, (0x3fff, 0xe309_28c8_8c07_985b), (0xc001, 0xbb41_95b1_4610_3a2b), (0xbfff, 0xa364_075b_7150_d817)),
        (Fpatan, (0xbfff, 0xa30e_5b70_590e_f594), (0xbfff, 0xebe3_7a71_ec1e_07d7), (0xc000, 0x8b3d_5c69_623a_7b24)),
        (Fpatan, (0x3fff, 0xaea0_8d86_f9e3_24de), (0x3fff, 0xeb16_5f92_32da_ef9f), (0x3ffe, 0xee91_7e0c_247d_55aa)),
        (Fpatan, (0xbffe, 0xc6cf_8388_9fad_3bf4), (0x3ffd, 0xcb10_bc3e_28f7_4587), (0x4000, 0xaad7_cc5d_e5e2_05c7)),
        (Fpatan, (0x3fff, 0x9117_68b8_e44d_a6a6), (0xbffd, 0x98c0_0610_7b8f_ba72), (0xbffd, 0x83c4_a2ab_bf65_353e)),
        (Fpatan, (0x3fee, 0xacf0_d6e2_771f_e0ac), (0x3ff3, 0x9e71_c047_3451_58db), (0x3fff, 0xc4b2_995c_054e_7bc3)),
    ];
    for &(op, x, y, result) in binary {
        let mut fpu = Fpu::with(&[reg(x), reg(y)]);
        fpu.run(op, 0, 0);
        assert_close(fpu.st(0), result);
        assert_eq!((fpu.tags().count_ones(), fpu.flags()), (1, PE));
    }
    // Out of range: nothing happens but that C2 is set.
    for op in [Fsin, Fcos, Fsincos, Fptan] {
        let huge = Reg::new(0x3fff + 63, 1 << 63);
        let mut fpu = Fpu::with(&[huge]);
        fpu.run(op, 0, 0);
        assert_eq!((fpu.st(0), fpu.status_word() & C2, fpu.flags()), (huge, C2, 0), "{op:?}");
    }
}

#[test]
fn host_image_is_what_fnsave_stores() {
    for top in 0..8 {
        let mut fpu = Fpu::default();
        for i in 0..8u8 {
            fpu.regs[usize::from(i)] = Reg::new(0x3fff + u16::from(i), 1 << 63 | u64::from(i));
        }
        fpu.set_top(top);
        fpu.tags = 0xa7u8.rotate_left(top.into());
        fpu.raise(PE);
        (fpu.fip, fpu.fdp, fpu.fop) = (0x1234, 0x5678, 0x1d9);
        let image = fpu.host_image();
        let saved = fpu.save(EnvLayout::Protected32);
        assert_eq!((&image[0..2], &image[4..6], &image[28..]), (&saved[0..2], &saved[4..6], &saved[28..]));
        let empty = |image: &[u8; 108]| {
            let word = u16::from_le_bytes([image[8], image[9]]);
            (0..8).map(|i| word >> (2 * i) & 3 == 3).collect::<Vec<_>>()
        };
        assert_eq!(empty(&image), empty(&saved));
        let mut other = Fpu { fip: fpu.fip, fdp: fpu.fdp, fop: fpu.fop, ..Fpu::default() };
        other.load_host_image(&saved);
        assert_eq!(other, fpu);
        assert!(fpu.is_quiet());
        fpu.set_control_word(0x37f & !1);
        assert!(!fpu.is_quiet());
    }
}

#[test]
fn only_what_all_processors_do_alike_is_exact() {
    let exact = |op: X87Op| op.row().is_exact();
    let not = [X87Op::Fprem, X87Op::Fsin, X87Op::F2xm1, X87Op::Fbstp_m80bcd, X87Op::Fnsave_m94byte, X87Op::Fninit];
    assert!(not.into_iter().all(|op| !exact(op)));
    let yes = [X87Op::Fdivrp_sti_st0, X87Op::Fstp_m80fp, X87Op::Fldcw_m2byte, X87Op::Fcmovu_st0_sti, X87Op::Fldpi];
    assert!(yes.into_iter().all(exact));
}

#[test]
fn conditions_of_moves() {
    for (op, code) in [
        (X87Op::Fcmovb_st0_sti, 2),
        (X87Op::Fcmovne_st0_sti, 5),
        (X87Op::Fcmovbe_st0_sti, 6),
        (X87Op::Fcmovnu_st0_sti, 11),
    ] {
        let row = op.row();
        assert_eq!(row.condition(), Some(code));
        for holds in [false, true] {
            let (one, two) = (Reg::new(0x3fff, 1 << 63), Reg::new(0x4000, 1 << 63));
            let mut fpu = Fpu::with(&[one, two]);
            fpu.run(op, 1, row.eflags_where(holds).into());
            assert_eq!(fpu.st(0), if holds { two } else { one }, "{op:?} {holds}");
        }
    }
    assert_eq!(X87Op::Fadd_m32fp.row().condition(), None);
}
