//! SSE and MMX: edge operands by table, random operands against the host's arithmetic, the soft-float library's own
//! formats, and plain Rust.

use super::SimdException;
use super::soft::{DE, IE, OE, PE, UE, ZE};
use super::vec::{Aux, Dest, TABLE, VecOp, VecOp::*, exec, lookup, string_eflags};
use iced_x86::Code;
use mimus_ir::{FpEnv, FpFlags};
use rustc_apfloat::ieee::{Double, Single};
use rustc_apfloat::{Float, Round, Status};

const DAZ: u32 = 1 << 6;
const FTZ: u32 = 1 << 15;
const QNAN: u32 = 0x7fc0_0000;
const SNAN: u32 = 0x7f80_0001;
const INDEFINITE: u32 = 0xffc0_0000;
const INF: u32 = 0x7f80_0000;
const NEG: u32 = 1 << 31;
const ONE: u32 = 0x3f80_0000;
const MIN_NORMAL: u32 = 0x0080_0000;
const MAX: u32 = 0x7f7f_ffff;

/// A xorshift generator: the same operands in every run.
pub(super) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }

    /// Finite doubles, with many near the ends of the range and near each other.
    pub fn f64(&mut self) -> f64 {
        let exp = match self.next() % 4 {
            0 => self.next() % 3,
            1 => 2044 + self.next() % 3,
            2 => 1000 + self.next() % 60,
            _ => self.next() % 2047,
        };
        f64::from_bits(self.next() & (1 << 63) | exp << 52 | self.next() >> (12 + self.next() % 2 * (self.next() % 52)))
    }

    fn f32(&mut self) -> f32 {
        let exp = match self.next() % 4 {
            0 => self.next() % 3,
            1 => 252 + self.next() % 3,
            2 => 120 + self.next() % 16,
            _ => self.next() % 255,
        };
        let frac = self.next() >> (41 + self.next() % 2 * (self.next() % 23));
        f32::from_bits((self.next() as u32 & NEG) | (exp as u32) << 23 | frac as u32)
    }
}

fn run(op: VecOp, imm: u8, dst: u128, src: u128) -> u128 {
    exec(op, imm, dst, src, 0, &mut { FpEnv::RESET }).expect("all exceptions are masked")
}

/// The low 32 bits and the flags under the control bits `control`.
fn run32(op: VecOp, control: u32, a: u32, b: u32) -> (u32, u32) {
    let mut mxcsr = FpEnv::from_bits_retain(FpEnv::RESET.bits() | control);
    let result = exec(op, 0, a.into(), b.into(), 0, &mut mxcsr).expect("all exceptions are masked");
    (result as u32, mxcsr.flags().bits())
}

fn lanes<const N: usize>(values: [u64; N]) -> u128 {
    values.iter().rev().fold(0, |acc, &x| acc << (128 / N) | u128::from(x))
}

#[test]
fn the_table_and_its_index_agree() {
    for (i, row) in TABLE.iter().enumerate() {
        assert_eq!(row.op as usize, i);
        assert_eq!(VecOp::try_from(i as u16), Ok(row.op));
        assert_eq!(VecOp::ALL[i], row.op);
        for &code in row.codes {
            assert_eq!(lookup(code).map(|row| row.op), Some(row.op));
        }
    }
    assert_eq!(VecOp::ALL.len(), TABLE.len());
    assert_eq!(VecOp::try_from(TABLE.len() as u16), Err(TABLE.len() as u16));
    for code in [Code::VEX_Vaddps_xmm_xmm_xmmm128, Code::EVEX_Vmulpd_xmm_k1z_xmm_xmmm128b64, Code::Movaps_xmm_xmmm128] {
        assert!(lookup(code).is_none(), "{code:?}");
    }
}

#[test]
fn every_register_or_memory_form_of_the_decoder_is_known() {
    // Plain moves, stores under a mask, and what is no SSE at all, by the names that the decoder gives them.
    let elsewhere = [
        "Movup", "Movap", "Movdq", "Movd_", "Movq_", "Movnt", "Lddqu", "Maskmov", "Pclmul", "Prefetch", "Pi2f", "Pf2i",
        "Pavgusb", "Pmulhrw_", "Pswapd", "Movdir", "Monitor", "Pause", "Popcnt", "Push", "Pop",
    ];
    let mut missing = vec![];
    for code in Code::values() {
        let name = format!("{code:?}");
        let vector = name.contains("xmm") || name.contains("_mm");
        let other = ["VEX_", "EVEX_", "XOP_", "D3NOW_", "MVEX_"].iter().any(|prefix| name.starts_with(prefix));
        // Later extensions, and Cyrix's.
        let later = [
            "Aes",
            "Sha",
            "Gf2p8",
            "Extrq",
            "Insertq",
            "Invept",
            "Enc",
            "Loadiwkey",
            "Paveb",
            "Paddsiw",
            "Pmagw",
            "Pdistib",
            "Psubsiw",
            "Pmv",
            "Pmulhriw",
            "Pmachriw",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix));
        if vector
            && !other
            && !later
            && !elsewhere.iter().any(|prefix| name.starts_with(prefix))
            && lookup(code).is_none()
        {
            missing.push(name);
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn rows_say_what_memory_and_registers_they_use() {
    assert!(Addps_xmm_xmmm128.row().needs_alignment());
    assert!(!Pcmpistri_xmm_xmmm128_imm8.row().needs_alignment());
    assert!(!Movddup_xmm_xmmm64.row().needs_alignment());
    assert_eq!(Punpcklbw_mm_mmm32.row().memory, 4);
    assert_eq!(Pinsrb_xmm_r32m8_imm8.row().memory, 1);
    assert_eq!(Pextrw_r32m16_xmm_imm8.row().dest, Dest::GprOrMem(2));
    assert_eq!(Pblendvb_xmm_xmmm128.row().aux(), Aux::Xmm0);
    assert_eq!(Pcmpestri_xmm_xmmm128_imm8.row().aux(), Aux::RaxRdx);
    assert!(Cvtpi2pd_xmm_mmm64.row().uses_mmx(false) && !Cvtpi2pd_xmm_mmm64.row().uses_mmx(true));
    assert!(Cvtpi2ps_xmm_mmm64.row().uses_mmx(true) && Cvttpd2pi_mm_xmmm128.row().uses_mmx(true));
    assert_eq!(Insertps_xmm_xmmm32_imm8.row().memory_immediate(0xff), 0x3f);
    assert_eq!(Pshufd_xmm_xmmm128_imm8.row().memory_immediate(0xff), 0xff);
}

#[test]
fn arithmetic_is_the_hosts() {
    let mut random = Random::new(1);
    for _ in 0..20_000 {
        let (a, b) = (random.f64(), random.f64());
        for (op, host) in [
            (Addsd_xmm_xmmm64, a + b),
            (Subsd_xmm_xmmm64, a - b),
            (Mulsd_xmm_xmmm64, a * b),
            (Divsd_xmm_xmmm64, a / b),
            (Sqrtsd_xmm_xmmm64, b.sqrt()),
        ] {
            let ours = f64::from_bits(run(op, 0, a.to_bits().into(), b.to_bits().into()) as u64);
            let same = if host.is_nan() { ours.is_nan() } else { ours.to_bits() == host.to_bits() };
            assert!(same, "{op:?} {a:e} {b:e}: {ours:e}, not {host:e}");
        }
        let (a, b) = (random.f32(), random.f32());
        for (op, host) in [
            (Addss_xmm_xmmm32, a + b),
            (Subss_xmm_xmmm32, a - b),
            (Mulss_xmm_xmmm32, a * b),
            (Divss_xmm_xmmm32, a / b),
            (Sqrtss_xmm_xmmm32, b.sqrt()),
        ] {
            let ours = f32::from_bits(run(op, 0, a.to_bits().into(), b.to_bits().into()) as u32);
            let same = if host.is_nan() { ours.is_nan() } else { ours.to_bits() == host.to_bits() };
            assert!(same, "{op:?} {a:e} {b:e}: {ours:e}, not {host:e}");
        }
    }
}

#[test]
fn conversions_are_the_hosts() {
    let mut random = Random::new(2);
    for _ in 0..20_000 {
        let (s, d, i) = (random.f32(), random.f64(), random.next() as i64 >> (random.next() % 64));
        let to_double = run(Cvtss2sd_xmm_xmmm32, 0, 0, s.to_bits().into()) as u64;
        assert_eq!(to_double, f64::from(s).to_bits(), "{s:e}");
        assert_eq!(run(Cvtsd2ss_xmm_xmmm64, 0, 0, d.to_bits().into()) as u32, (d as f32).to_bits(), "{d:e}");
        assert_eq!(run(Cvtsi2sd_xmm_rm64, 0, 0, (i as u64).into()) as u64, (i as f64).to_bits(), "{i}");
        assert_eq!(run(Cvtsi2ss_xmm_rm32, 0, 0, (i as u32).into()) as u32, (i as i32 as f32).to_bits(), "{i}");
        // Casts truncate and saturate; where they would saturate, the guest's result is the indefinite.
        let in_range = d.abs() < 9.2e18;
        let truncated = if in_range { d as i64 } else { i64::MIN };
        assert_eq!(run(Cvttsd2si_r64_xmmm64, 0, 0, d.to_bits().into()) as i64, truncated, "{d:e}");
        if d.abs() < 1e15 {
            let nearest = run(Cvtsd2si_r64_xmmm64, 0, 0, d.to_bits().into()) as i64;
            assert_eq!(nearest, d.round_ties_even() as i64, "{d:e}");
        }
        for (imm, host) in [(0, d.round_ties_even()), (1, d.floor()), (2, d.ceil()), (3, d.trunc())] {
            let ours = run(Roundsd_xmm_xmmm64_imm8, imm, 0, d.to_bits().into()) as u64;
            assert_eq!(ours, host.to_bits(), "{d:e} mode {imm}");
        }
    }
}

/// All four rounding modes and the flags, against the library's own formats. Its underflow differs by intention: it takes
/// a result for tiny when it is denormal, x86 when it is below the normal range rounded with an unbounded exponent. Nor does
/// it report an overflow that gives the largest finite number.
#[test]
fn rounding_modes_and_flags_are_the_librarys() {
    fn flags(status: Status) -> u32 {
        let bit = |s: Status, flag| if status.contains(s) { flag } else { 0 };
        bit(Status::INVALID_OP, IE)
            | bit(Status::DIV_BY_ZERO, ZE)
            | bit(Status::OVERFLOW, OE)
            | bit(Status::UNDERFLOW, UE)
            | bit(Status::INEXACT, PE)
    }
    let modes = [Round::NearestTiesToEven, Round::TowardNegative, Round::TowardPositive, Round::TowardZero];
    let mut random = Random::new(3);
    for i in 0..40_000u32 {
        let (mode, control) = (modes[i as usize % 4], (i % 4) << 13);
        let check = |op: VecOp, a: u64, b: u64, expected: u64, status: Status, [min_normal, max, sign]: [u64; 3]| {
            let mut mxcsr = FpEnv::from_bits_retain(FpEnv::RESET.bits() | control);
            let ours = exec(op, 0, a.into(), b.into(), 0, &mut mxcsr).expect("masked") as u64;
            if !status.contains(Status::INVALID_OP) {
                assert_eq!(ours, expected, "{op:?} {a:x} {b:x} mode {i}");
            }
            let mut ignored = DE;
            if ours & !sign == min_normal {
                ignored |= UE;
            }
            if ours & !sign == max {
                ignored |= OE;
            }
            assert_eq!(mxcsr.flags().bits() & !ignored, flags(status) & !ignored, "{op:?} {a:x} {b:x} mode {i}");
        };
        let (a, b) = (random.f32().to_bits(), random.f32().to_bits());
        let (x, y) = (Single::from_bits(a.into()), Single::from_bits(b.into()));
        for (op, r) in [
            (Addss_xmm_xmmm32, x.add_r(y, mode)),
            (Subss_xmm_xmmm32, x.sub_r(y, mode)),
            (Mulss_xmm_xmmm32, x.mul_r(y, mode)),
            (Divss_xmm_xmmm32, x.div_r(y, mode)),
        ] {
            let expected = r.value.to_bits() as u64;
            check(op, a.into(), b.into(), expected, r.status, [MIN_NORMAL, MAX, NEG].map(u64::from));
        }
        let (a, b) = (random.f64().to_bits(), random.f64().to_bits());
        let (x, y) = (Double::from_bits(a.into()), Double::from_bits(b.into()));
        for (op, r) in [
            (Addsd_xmm_xmmm64, x.add_r(y, mode)),
            (Subsd_xmm_xmmm64, x.sub_r(y, mode)),
            (Mulsd_xmm_xmmm64, x.mul_r(y, mode)),
            (Divsd_xmm_xmmm64, x.div_r(y, mode)),
        ] {
            check(op, a, b, r.value.to_bits() as u64, r.status, [1 << 52, f64::MAX.to_bits(), 1 << 63]);
        }
    }
}

#[test]
fn edge_operands_of_arithmetic() {
    let cases: &[(VecOp, u32, u32, u32, u32, u32)] = &[
        // Operation, control bits, operands, result, flags. NaNs: the first operand's goes first, made quiet.
        (Addss_xmm_xmmm32, 0, QNAN | 1, QNAN | 2, QNAN | 1, 0),
        (Addss_xmm_xmmm32, 0, SNAN, QNAN | 2, QNAN | 1, IE),
        (Addss_xmm_xmmm32, 0, QNAN | 2, SNAN, QNAN | 2, IE),
        (Addss_xmm_xmmm32, 0, ONE, SNAN | NEG, QNAN | NEG | 1, IE),
        (Divss_xmm_xmmm32, 0, QNAN | 5, 0, QNAN | 5, 0),
        (Addss_xmm_xmmm32, 0, QNAN | 5, 1, QNAN | 5, 0),
        // Invalid operations.
        (Subss_xmm_xmmm32, 0, INF, INF, INDEFINITE, IE),
        (Mulss_xmm_xmmm32, 0, 0, INF | NEG, INDEFINITE, IE),
        (Divss_xmm_xmmm32, 0, 0, NEG, INDEFINITE, IE),
        (Divss_xmm_xmmm32, 0, INF, INF, INDEFINITE, IE),
        (Sqrtss_xmm_xmmm32, 0, 0, ONE | NEG, INDEFINITE, IE),
        (Sqrtss_xmm_xmmm32, 0, 0, 1 | NEG, INDEFINITE, IE),
        (Sqrtss_xmm_xmmm32, 0, 0, NEG, NEG, 0),
        // Zeros and their signs.
        (Addss_xmm_xmmm32, 0, ONE, ONE | NEG, 0, 0),
        (Addss_xmm_xmmm32, 1 << 13, ONE, ONE | NEG, NEG, 0),
        (Addss_xmm_xmmm32, 1 << 13, 0, 0, 0, 0),
        (Subss_xmm_xmmm32, 0, NEG, 0, NEG, 0),
        (Divss_xmm_xmmm32, 0, ONE | NEG, 0, INF | NEG, ZE),
        // A denormal operand counts only where nothing ranks above it.
        (Addss_xmm_xmmm32, 0, 1, INF, INF, DE),
        (Divss_xmm_xmmm32, 0, 1, 0, INF, ZE),
        (Mulss_xmm_xmmm32, 0, 1, INF, INF, DE),
        // Denormals are zeros.
        (Addss_xmm_xmmm32, DAZ, 1 | NEG, 0x007f_ffff | NEG, NEG, 0),
        (Divss_xmm_xmmm32, DAZ, ONE, 1, INF, ZE),
        (Sqrtss_xmm_xmmm32, DAZ, 0, 1 | NEG, NEG, 0),
        // Overflow in the four modes.
        (Addss_xmm_xmmm32, 0, MAX, MAX, INF, OE | PE),
        (Addss_xmm_xmmm32, 1 << 13, MAX, MAX, MAX, OE | PE),
        (Addss_xmm_xmmm32, 2 << 13, MAX | NEG, MAX | NEG, MAX | NEG, OE | PE),
        (Addss_xmm_xmmm32, 3 << 13, MAX, MAX, MAX, OE | PE),
        // Underflow: exact denormal results are silent unless flushed.
        (Mulss_xmm_xmmm32, 0, MIN_NORMAL, 0x3f00_0000, 0x0040_0000, 0),
        (Mulss_xmm_xmmm32, FTZ, MIN_NORMAL | NEG, 0x3f00_0000, NEG, UE | PE),
        (Mulss_xmm_xmmm32, 0, 0x0080_0001, 0x3f00_0000, 0x0040_0000, UE | PE),
        // Tininess is found after rounding with an unbounded exponent. (1 - 2^-24) * 2^-126 is exact then, so tiny, though
        // as a denormal it rounds to the smallest normal number; (1 - 2^-46) * 2^-126 rounds to that in both ways.
        (Mulss_xmm_xmmm32, 0, 0x00ff_ffff, 0x3f00_0000, MIN_NORMAL, UE | PE),
        (Mulss_xmm_xmmm32, FTZ, 0x00ff_ffff, 0x3f00_0000, 0, UE | PE),
        (Mulss_xmm_xmmm32, 0, 0x3f80_0001, 0x007f_ffff, MIN_NORMAL, DE | PE),
        // Halfway cases.
        (Addss_xmm_xmmm32, 0, 0x4b80_0000, ONE, 0x4b80_0000, PE),
        (Addss_xmm_xmmm32, 0, 0x4b80_0001, ONE, 0x4b80_0002, PE),
        (Addss_xmm_xmmm32, 2 << 13, 0x4b80_0000, ONE, 0x4b80_0001, PE),
        (Addss_xmm_xmmm32, 3 << 13, 0x4b80_0001, ONE, 0x4b80_0001, PE),
        // Minimum and maximum give the second operand for NaNs and zeros.
        (Minss_xmm_xmmm32, 0, 0, NEG, NEG, 0),
        (Maxss_xmm_xmmm32, 0, NEG, 0, 0, 0),
        (Minss_xmm_xmmm32, 0, SNAN, ONE, ONE, IE),
        (Maxss_xmm_xmmm32, 0, ONE, SNAN, SNAN, IE),
        (Maxss_xmm_xmmm32, 0, QNAN, ONE, ONE, IE),
        (Minss_xmm_xmmm32, 0, ONE, INF, ONE, 0),
        (Maxss_xmm_xmmm32, DAZ, 1, 2 | NEG, NEG, 0),
        // Conversions to integers.
        (Cvttss2si_r32_xmmm32, 0, 0, QNAN, 1 << 31, IE),
        (Cvttss2si_r32_xmmm32, 0, 0, 0x4f00_0000, 1 << 31, IE),
        (Cvttss2si_r32_xmmm32, 0, 0, 0xcf00_0000, 1 << 31, 0),
        (Cvttss2si_r32_xmmm32, 0, 0, 1, 0, PE),
        (Cvttss2si_r32_xmmm32, DAZ, 0, 1, 0, 0),
        (Cvtss2si_r32_xmmm32, 0, 0, 0x4020_0000, 2, PE),
        (Cvtss2si_r32_xmmm32, 2 << 13, 0, 0x4020_0000, 3, PE),
        (Cvtss2si_r32_xmmm32, 1 << 13, 0, 0xc020_0000, (-3i32) as u32, PE),
    ];
    for &(op, control, a, b, result, flags) in cases {
        assert_eq!(run32(op, control, a, b), (result, flags), "{op:?} {control:#x} {a:#x} {b:#x}");
    }
}

#[test]
fn comparison_predicates() {
    // Operands, and which of EQ LT LE UNORD NEQ NLT NLE ORD hold; flags of a quiet and of a signalling predicate.
    for (a, b, holds, quiet, signalling) in [
        (ONE, ONE, [1, 0, 1, 0, 0, 1, 0, 1], 0, 0),
        (0, NEG, [1, 0, 1, 0, 0, 1, 0, 1], 0, 0),
        (ONE | NEG, ONE, [0, 1, 1, 0, 1, 0, 0, 1], 0, 0),
        (INF, MAX, [0, 0, 0, 0, 1, 1, 1, 1], 0, 0),
        (QNAN, ONE, [0, 0, 0, 1, 1, 1, 1, 0], 0, IE),
        (ONE, SNAN, [0, 0, 0, 1, 1, 1, 1, 0], IE, IE),
        (1, ONE, [0, 1, 1, 0, 1, 0, 0, 1], DE, DE),
    ] {
        for (predicate, holds) in (0u8..).zip(holds) {
            let mut mxcsr = FpEnv::RESET;
            let upper = 0x1234 << 64;
            let result = exec(Cmpss_xmm_xmmm32_imm8, predicate, upper | u128::from(a), b.into(), 0, &mut mxcsr);
            let mask = if holds == 1 { u128::from(u32::MAX) } else { 0 };
            assert_eq!(result, Ok(upper | mask), "{a:#x} {b:#x} {predicate}");
            let flags = if matches!(predicate & 3, 1 | 2) { signalling } else { quiet };
            assert_eq!(mxcsr.flags().bits(), flags, "{a:#x} {b:#x} {predicate}");
        }
    }
    for (a, b, eflags, comis, ucomis) in
        [(ONE, 0, 0, 0, 0), (0, ONE, 1, 0, 0), (0, NEG, 0x40, 0, 0), (QNAN, 0, 0x45, IE, 0), (0, SNAN, 0x45, IE, IE)]
    {
        assert_eq!(run32(Comiss_xmm_xmmm32, 0, a, b), (eflags, comis));
        assert_eq!(run32(Ucomiss_xmm_xmmm32, 0, a, b), (eflags, ucomis));
    }
}

#[test]
fn unmasked_exceptions() {
    let unmask = |flags: u32| FpEnv::from_bits_retain(FpEnv::RESET.bits() & !(flags << 7));
    // One element overflows, another divides by zero: the unmasked exception of operands hides the one of results.
    let (a, b) = (lanes([MAX.into(), ONE.into(), 0, 0]), lanes([MIN_NORMAL.into(), 0, ONE.into(), ONE.into()]));
    let mut mxcsr = unmask(ZE);
    let result = exec(Divps_xmm_xmmm128, 0, a, b, 0, &mut mxcsr);
    assert_eq!((result, mxcsr.flags().bits()), (Err(SimdException { flags: ZE }), ZE));
    // The other way round both are reported.
    let mut mxcsr = unmask(OE);
    let result = exec(Divps_xmm_xmmm128, 0, a, b, 0, &mut mxcsr);
    assert_eq!((result, mxcsr.flags().bits()), (Err(SimdException { flags: OE }), ZE | OE));
    // Unmasked underflow is reported for exact results too, and turns flushing off.
    let mut mxcsr = unmask(UE) | FpEnv::FLUSH_OUTPUTS;
    let result = exec(Mulss_xmm_xmmm32, 0, MIN_NORMAL.into(), 0x3f00_0000, 0, &mut mxcsr);
    assert_eq!((result, mxcsr.flags().bits()), (Err(SimdException { flags: UE }), UE));
    // A sum after a product: what the masked first step has set stays.
    let mut mxcsr = unmask(DE);
    let result = exec(Dpps_xmm_xmmm128_imm8, 0x11, 0x0080_0001, 0x3f00_0000, 0, &mut mxcsr);
    assert_eq!((result, mxcsr.flags().bits()), (Err(SimdException { flags: DE }), DE | UE | PE));
    // Flags are sticky and an old one raises nothing.
    let mut mxcsr = unmask(IE).raise(FpFlags::INVALID);
    assert!(exec(Addss_xmm_xmmm32, 0, ONE.into(), ONE.into(), 0, &mut mxcsr).is_ok());
    assert_eq!(mxcsr.flags().bits(), IE);
}

#[test]
fn forms_of_float_operations() {
    let f = |values: [f32; 4]| lanes(values.map(|x| x.to_bits().into()));
    let d = |values: [f64; 2]| lanes(values.map(f64::to_bits));
    let (a, b) = (f([1.0, 2.0, 3.0, 4.0]), f([10.0, 20.0, 30.0, 40.0]));
    assert_eq!(run(Addps_xmm_xmmm128, 0, a, b), f([11.0, 22.0, 33.0, 44.0]));
    assert_eq!(run(Addss_xmm_xmmm32, 0, a, b), f([11.0, 2.0, 3.0, 4.0]));
    assert_eq!(run(Haddps_xmm_xmmm128, 0, a, b), f([3.0, 7.0, 30.0, 70.0]));
    assert_eq!(run(Hsubps_xmm_xmmm128, 0, a, b), f([-1.0, -1.0, -10.0, -10.0]));
    assert_eq!(run(Addsubps_xmm_xmmm128, 0, a, b), f([-9.0, 22.0, -27.0, 44.0]));
    assert_eq!(run(Dpps_xmm_xmmm128_imm8, 0x71, a, b), f([140.0, 0.0, 0.0, 0.0]));
    assert_eq!(run(Dpps_xmm_xmmm128_imm8, 0xfa, a, b), f([0.0, 300.0, 0.0, 300.0]));
    assert_eq!(run(Dppd_xmm_xmmm128_imm8, 0x33, d([1.0, 2.0]), d([3.0, 4.0])), d([11.0, 11.0]));
    assert_eq!(run(Haddpd_xmm_xmmm128, 0, d([1.0, 2.0]), d([3.0, 4.0])), d([3.0, 7.0]));
    assert_eq!(run(Addsubpd_xmm_xmmm128, 0, d([1.0, 2.0]), d([3.0, 4.0])), d([-2.0, 6.0]));
    assert_eq!(run(Cvtps2pd_xmm_xmmm64, 0, a, b), d([10.0, 20.0]));
    assert_eq!(run(Cvtpd2ps_xmm_xmmm128, 0, a, d([3.0, 4.0])), f([3.0, 4.0, 0.0, 0.0]));
    assert_eq!(run(Cvtdq2pd_xmm_xmmm64, 0, 0, lanes([5, 0xffff_fffa, 1, 1])), d([5.0, -6.0]));
    assert_eq!(run(Cvtpd2dq_xmm_xmmm128, 0, a, d([-6.5, 1e10])), lanes([0xffff_fffa, 0x8000_0000, 0, 0]));
    assert_eq!(run(Cvtpi2ps_xmm_mmm64, 0, a, lanes([7, 0xffff_fff8, 0, 0])), f([7.0, -8.0, 3.0, 4.0]));
    assert_eq!(run(Cvttps2pi_mm_xmmm64, 0, 0, f([7.9, -8.9, 1.0, 1.0])), lanes([7, 0xffff_fff8, 0, 0]));
    // NaNs keep the top of their payload.
    let nan = run(Cvtsd2ss_xmm_xmmm64, 0, 0, 0xfff4_0000_2000_0000) as u32;
    assert_eq!(nan, 0xffe0_0001);
    assert_eq!(run(Cvtss2sd_xmm_xmmm32, 0, 0, 0x7f80_0001) as u64, 0x7ff8_0000_2000_0000);
    // The inexact flag of ROUNDSS can be suppressed.
    for (imm, flags) in [(0, PE), (8, 0)] {
        let mut mxcsr = FpEnv::RESET;
        let result = exec(Roundss_xmm_xmmm32_imm8, imm, 0, f([-0.25, 0.0, 0.0, 0.0]), 0, &mut mxcsr);
        assert_eq!((result, mxcsr.flags().bits()), (Ok(f([-0.0, 0.0, 0.0, 0.0])), flags));
    }
}

#[test]
fn reciprocals_are_within_the_documented_error() {
    let mut random = Random::new(4);
    for _ in 0..5_000 {
        let x = random.f32();
        if !x.is_normal() {
            continue;
        }
        let ours = f32::from_bits(run(Rcpss_xmm_xmmm32, 0, 0, x.to_bits().into()) as u32);
        let exact = 1.0 / f64::from(x);
        if x.to_bits() & !NEG < 0x7e7f_e800 {
            assert!((f64::from(ours) / exact - 1.0).abs() <= 1.5 / 4096.0, "{x:e} {ours:e}");
        } else {
            assert_eq!(ours.to_bits(), x.to_bits() & NEG, "{x:e}");
        }
        let x = x.abs();
        let ours = f32::from_bits(run(Rsqrtss_xmm_xmmm32, 0, 0, x.to_bits().into()) as u32);
        assert!((f64::from(ours) * f64::from(x).sqrt() - 1.0).abs() <= 1.5 / 4096.0, "{x:e} {ours:e}");
    }
    for (op, x, result) in [
        (Rcpss_xmm_xmmm32, 0x8000_0001, INF | NEG),
        (Rcpss_xmm_xmmm32, INF | NEG, NEG),
        (Rcpss_xmm_xmmm32, SNAN, QNAN | 1),
        (Rcpss_xmm_xmmm32, 0x4000_0000, 0x3f00_0000),
        (Rcpss_xmm_xmmm32, 0xfe80_0000, NEG),
        (Rsqrtss_xmm_xmmm32, ONE | NEG, INDEFINITE),
        (Rsqrtss_xmm_xmmm32, NEG, INF | NEG),
        (Rsqrtss_xmm_xmmm32, 0x4080_0000, 0x3f00_0000),
        (Rsqrtss_xmm_xmmm32, INF, 0),
    ] {
        assert_eq!(run32(op, 0, 0, x), (result, 0), "{op:?} {x:#x}");
    }
}

/// Lane-wise operations against Rust's own on arrays.
#[test]
fn packed_integers() {
    fn words(x: u128) -> [i16; 8] {
        std::array::from_fn(|i| (x >> (16 * i)) as i16)
    }
    fn from_words(x: [i16; 8]) -> u128 {
        x.iter().rev().fold(0, |acc, &w| acc << 16 | u128::from(w as u16))
    }
    let mut random = Random::new(5);
    for _ in 0..5_000 {
        let (a, b) = (random.wide(), random.wide());
        let (bytes_a, bytes_b) = (a.to_le_bytes(), b.to_le_bytes());
        let bytes = |f: fn(u8, u8) -> u8| u128::from_le_bytes(std::array::from_fn(|i| f(bytes_a[i], bytes_b[i])));
        let (wa, wb) = (words(a), words(b));
        let each = |f: fn(i16, i16) -> i16| from_words(std::array::from_fn(|i| f(wa[i], wb[i])));
        let high =
            |f: fn(i32) -> i32| from_words(std::array::from_fn(|i| f(i32::from(wa[i]) * i32::from(wb[i])) as i16));
        let cases = [
            (Paddb_mm_mmm64, Paddb_xmm_xmmm128, bytes(u8::wrapping_add)),
            (Psubusb_mm_mmm64, Psubusb_xmm_xmmm128, bytes(u8::saturating_sub)),
            (Paddsb_mm_mmm64, Paddsb_xmm_xmmm128, bytes(|x, y| (x as i8).saturating_add(y as i8) as u8)),
            (Pmaxub_mm_mmm64, Pmaxub_xmm_xmmm128, bytes(|x, y| x.max(y))),
            (Pavgb_mm_mmm64, Pavgb_xmm_xmmm128, bytes(|x, y| (u16::from(x) + u16::from(y)).div_ceil(2) as u8)),
            (Pcmpgtb_mm_mmm64, Pcmpgtb_xmm_xmmm128, bytes(|x, y| if x as i8 > y as i8 { 255 } else { 0 })),
            (Pabsb_mm_mmm64, Pabsb_xmm_xmmm128, bytes(|_, y| (y as i8).unsigned_abs())),
            (Paddsw_mm_mmm64, Paddsw_xmm_xmmm128, each(i16::saturating_add)),
            (Psubw_mm_mmm64, Psubw_xmm_xmmm128, each(i16::wrapping_sub)),
            (Pmullw_mm_mmm64, Pmullw_xmm_xmmm128, each(i16::wrapping_mul)),
            (Pminsw_mm_mmm64, Pminsw_xmm_xmmm128, each(|x, y| x.min(y))),
            (Psignw_mm_mmm64, Psignw_xmm_xmmm128, each(|x, y| x.wrapping_mul(y.signum()))),
            (Pmulhw_mm_mmm64, Pmulhw_xmm_xmmm128, high(|p| p >> 16)),
            (Pmulhrsw_mm_mmm64, Pmulhrsw_xmm_xmmm128, high(|p| (p + 0x4000) >> 15)),
            (Pandn_mm_mmm64, Pandn_xmm_xmmm128, !a & b),
        ];
        for (mmx, sse, expected) in cases {
            assert_eq!(run(sse, 0, a, b), expected, "{sse:?} {a:x} {b:x}");
            // The MMX form is the low half, whatever is above.
            assert_eq!(run(mmx, 0, a, b), u128::from(expected as u64), "{mmx:?} {a:x} {b:x}");
        }
        let products: [i32; 4] = std::array::from_fn(|i| {
            let p = |k: usize| i32::from(wa[k]) * i32::from(wb[k]);
            p(2 * i).wrapping_add(p(2 * i + 1))
        });
        assert_eq!(run(Pmaddwd_xmm_xmmm128, 0, a, b), lanes(products.map(|x| (x as u32).into())));
        let unsigned_by_signed: [i16; 8] = std::array::from_fn(|i| {
            let p = |k: usize| i32::from(bytes_a[k]) * i32::from(bytes_b[k] as i8);
            (p(2 * i) + p(2 * i + 1)).clamp(-32768, 32767) as i16
        });
        assert_eq!(run(Pmaddubsw_xmm_xmmm128, 0, a, b), from_words(unsigned_by_signed));
        let sums: [u64; 2] =
            std::array::from_fn(|h| (h * 8..h * 8 + 8).map(|i| u64::from(bytes_a[i].abs_diff(bytes_b[i]))).sum());
        assert_eq!(run(Psadbw_xmm_xmmm128, 0, a, b), lanes(sums));
        let packed: [u8; 16] =
            std::array::from_fn(|i| (if i < 8 { wa[i] } else { wb[i - 8] }).clamp(-128, 127) as i8 as u8);
        assert_eq!(run(Packsswb_xmm_xmmm128, 0, a, b), u128::from_le_bytes(packed));
        let shuffled: [u8; 16] =
            std::array::from_fn(|i| if bytes_b[i] > 127 { 0 } else { bytes_a[usize::from(bytes_b[i] & 15)] });
        assert_eq!(run(Pshufb_xmm_xmmm128, 0, a, b), u128::from_le_bytes(shuffled));
        let first_least = (0..8).min_by_key(|&i| (wb[i] as u16, i)).unwrap_or(0);
        let expected = u128::from(wb[first_least] as u16) | (first_least as u128) << 16;
        assert_eq!(run(Phminposuw_xmm_xmmm128, 0, a, b), expected);
        // Identities: an interleaving packed again, a rotation by its complement.
        let (low, high) = (run(Punpcklbw_xmm_xmmm128, 0, a, 0), run(Punpckhbw_xmm_xmmm128, 0, a, 0));
        assert_eq!(run(Packuswb_xmm_xmmm128, 0, low, high), a);
        let n = random.next() as u8 % 17;
        let turned = run(Palignr_xmm_xmmm128_imm8, n, a, a);
        assert_eq!(turned, a.rotate_right(u32::from(n) * 8));
        assert_eq!(run(Pshufd_xmm_xmmm128_imm8, 0x1b, 0, run(Pshufd_xmm_xmmm128_imm8, 0x1b, 0, a)), a);
    }
}

#[test]
fn shifts_and_their_limits() {
    let a = 0x8000_7fff_ffff_0001_8421_1248_0f0f_f0f0;
    for (op, imm, expected) in [
        (Psllw_xmm_imm8, 4, 0x0000_fff0_fff0_0010_4210_2480_f0f0_0f00),
        (Psllw_xmm_imm8, 16, 0),
        (Psraw_xmm_imm8, 255, 0xffff_0000_ffff_0000_ffff_0000_0000_ffff),
        (Psrld_xmm_imm8, 31, 0x0000_0001_0000_0001_0000_0001_0000_0000),
        (Psrlq_xmm_imm8, 64, 0),
        (Psrldq_xmm_imm8, 8, 0x8000_7fff_ffff_0001),
        (Psrldq_xmm_imm8, 16, 0),
        (Pslldq_xmm_imm8, 15, 0xf0 << 120),
        (Pslldq_xmm_imm8, 255, 0),
    ] {
        assert_eq!(run(op, imm, a, 0), expected, "{op:?} {imm}");
    }
    // A count in a register is 64 bits wide; the upper half of an XMM register does not count.
    assert_eq!(run(Psllq_xmm_xmmm128, 0, a, 1 << 64), a);
    assert_eq!(run(Psllq_xmm_xmmm128, 0, a, 1 << 32), 0);
    assert_eq!(run(Psrad_xmm_xmmm128, 0, a, 1 << 63), 0xffff_ffff_ffff_ffff_ffff_ffff_0000_0000);
}

#[test]
fn shuffles_moves_and_elements() {
    let (a, b) = (0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100, 0x1f1e_1d1c_1b1a_1918_1716_1514_1312_1110);
    for (op, imm, expected) in [
        (Shufps_xmm_xmmm128_imm8, 0b11_00_01_10, 0x1f1e_1d1c_1312_1110_0706_0504_0b0a_0908),
        (Shufpd_xmm_xmmm128_imm8, 0b01, 0x1716_1514_1312_1110_0f0e_0d0c_0b0a_0908),
        (Pshuflw_xmm_xmmm128_imm8, 0x1b, 0x1f1e_1d1c_1b1a_1918_1110_1312_1514_1716),
        (Pshufhw_xmm_xmmm128_imm8, 0x1b, 0x1918_1b1a_1d1c_1f1e_1716_1514_1312_1110),
        (Blendps_xmm_xmmm128_imm8, 0b0101, 0x0f0e_0d0c_1b1a_1918_0706_0504_1312_1110),
        (Insertps_xmm_xmmm32_imm8, 0x98, 0x0000_0000_0b0a_0908_1b1a_1918_0302_0100),
        (Movhlps_xmm_xmm, 0, 0x0f0e_0d0c_0b0a_0908_1f1e_1d1c_1b1a_1918),
        (Movlhps_xmm_xmm, 0, 0x1716_1514_1312_1110_0706_0504_0302_0100),
        (Movss_xmm_xmmm32, 0, 0x0f0e_0d0c_0b0a_0908_0706_0504_1312_1110),
        (Movddup_xmm_xmmm64, 0, 0x1716_1514_1312_1110_1716_1514_1312_1110),
        (Movshdup_xmm_xmmm128, 0, 0x1f1e_1d1c_1f1e_1d1c_1716_1514_1716_1514),
        (Movsldup_xmm_xmmm128, 0, 0x1b1a_1918_1b1a_1918_1312_1110_1312_1110),
        (Movhps_m64_xmm, 0, 0x1f1e_1d1c_1b1a_1918),
        (Unpcklps_xmm_xmmm128, 0, 0x1716_1514_0706_0504_1312_1110_0302_0100),
        (Unpckhpd_xmm_xmmm128, 0, 0x1f1e_1d1c_1b1a_1918_0f0e_0d0c_0b0a_0908),
        (Pmovzxbq_xmm_xmmm16, 0, 0x11 << 64 | 0x10),
        (Pextrb_r32m8_xmm_imm8, 0x1d, 0x1d),
        (Pextrq_rm64_xmm_imm8, 1, 0x1f1e_1d1c_1b1a_1918),
        (Pinsrw_xmm_r32m16_imm8, 7, 0x1110_0d0c_0b0a_0908_0706_0504_0302_0100),
        (Mpsadbw_xmm_xmmm128_imm8, 0, 0x0024_0028_002c_0030_0034_0038_003c_0040),
    ] {
        assert_eq!(run(op, imm, a, b), expected, "{op:?}");
    }
    assert_eq!(run(Pmovsxbw_xmm_xmmm64, 0, 0, 0x80ff), 0xff80_ffff);
    assert_eq!(run(Pmovmskb_r32_xmm, 0, 0, 1 << 127 | 1 << 7), 0x8001);
    assert_eq!(run(Movmskpd_r32_xmm, 0, 0, 1 << 127), 2);
    assert_eq!(run(Ptest_xmm_xmmm128, 0, 0b0101, 0b1010), 0x40);
    assert_eq!(run(Ptest_xmm_xmmm128, 0, 0b0111, 0b0010), 1);
    let select = 0x80 << 120 | 0x80;
    let blended = exec(Pblendvb_xmm_xmmm128, 0, a, b, select, &mut { FpEnv::RESET });
    assert_eq!(blended, Ok(0x1f0e_0d0c_0b0a_0908_0706_0504_0302_0110));
}

#[test]
fn string_comparison() {
    let text = |s: &str| {
        let mut bytes = [0; 16];
        bytes[..s.len()].copy_from_slice(s.as_bytes());
        u128::from_le_bytes(bytes)
    };
    // Needle or set, haystack, immediate, index, CF ZF SF OF.
    for (a, b, imm, index, eflags) in [
        ("aeiou", "string", 0x00, 3, 0x0c1),
        ("aeiou", "strng", 0x00, 16, 0x0c0),
        ("az", "ABCdef", 0x04, 3, 0x0c1),
        ("az", "ABCdef", 0x34, 0, 0x0c1 | 0x800),
        ("same", "same text", 0x18, 4, 0x0c1),
        ("lo", "hello hello", 0x0c, 3, 0x0c1),
        ("lo", "hello hello", 0x4c, 9, 0x0c1),
        ("", "abc", 0x00, 16, 0x0c0),
        ("sixteen letters!", "sixteen letters!", 0x08, 0, 0x801),
    ] {
        let (a, b) = (text(a), text(b));
        assert_eq!(run(Pcmpistri_xmm_xmmm128_imm8, imm, a, b), index, "{a:x} {b:x} {imm:#x}");
        assert_eq!(string_eflags(Pcmpistri_xmm_xmmm128_imm8, imm, a, b, 0), eflags, "{a:x} {b:x} {imm:#x}");
    }
    // Explicit lengths are absolute values; those of the 32-bit forms ignore what is above.
    let (a, b) = (text("abcdefgh"), text("xxxxabcd"));
    let aux = u128::from(0xdead_beef_0000_0001u64) | u128::from((-8i32) as u32) << 64;
    let mut mxcsr = FpEnv::RESET;
    assert_eq!(exec(Pcmpestri_xmm_xmmm128_imm8, 0, a, b, aux, &mut mxcsr), Ok(4));
    assert_eq!(string_eflags(Pcmpestri_xmm_xmmm128_imm8, 0, a, b, aux), 0x0c1);
    assert_eq!(exec(Pcmpestrm_xmm_xmmm128_imm8, 0x40, a, b, aux, &mut mxcsr), Ok(0xff << 32));
    assert_eq!(exec(Pcmpestrm_xmm_xmmm128_imm8, 0, a, b, aux, &mut mxcsr), Ok(1 << 4));
    // As 64-bit lengths both are huge: the zeros after the texts match each other.
    assert_eq!(exec(Pcmpestri64_xmm_xmmm128_imm8, 0x40, a, b, aux, &mut mxcsr), Ok(15));
}
