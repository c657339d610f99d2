//! Floating point by the host's instructions: MXCSR on the way in and out, and flags of results that nobody uses. Which bits
//! each operation gives is compared for the x86 guest, whose arithmetic is exact on every host.
#![cfg(all(target_arch = "x86_64", unix))]

use mimus_ir::{Builder, NONE, Type, Value, VecInfo, VecKind};

use crate::ops::vector_block;
use crate::toy::{How, Toy, one, reg, wide};

const DEFAULT: u32 = 0x1f80;
const IE: u32 = 1;
const ZE: u32 = 4;
const PE: u32 = 0x20;
const UP: u32 = 0x4000;

fn host_mxcsr() -> u32 {
    let mut value = 0u32;
    // SAFETY: stores four bytes in a local.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack)) };
    value
}

/// Runs a block with two numbers in wide registers 0 and 1 and a value of MXCSR, whose new value is returned.
fn run(toy: &mut Toy, [a, b]: [f64; 2], mxcsr: u32, body: impl FnOnce(&mut Builder)) -> u32 {
    let block = one(0x1000, body);
    let (entry, _) = toy.compile(&block, How::default());
    toy.set_state(&Toy::fresh(1));
    toy.env.wide[0] = [a.to_bits(), 0];
    toy.env.wide[1] = [b.to_bits(), 0];
    toy.env.mxcsr = mxcsr;
    toy.enter(entry);
    assert_eq!(host_mxcsr() & !0x3f, DEFAULT, "the host's own is back");
    toy.env.mxcsr
}

fn binary(b: &mut Builder, kind: VecKind) -> Value {
    let (x, y) = (b.load_env(wide(0)), b.load_env(wide(1)));
    b.vec(kind, 0, [x, y, NONE])
}

#[test]
fn flags_come_back_and_rounding_is_the_guests() {
    let mut toy = Toy::new();
    let divide = |b: &mut Builder| {
        let value = binary(b, VecKind::DivF64);
        b.store_env(wide(2), value);
    };
    assert_eq!(run(&mut toy, [1.0, 2.0], DEFAULT, divide), DEFAULT);
    assert_eq!(toy.env.wide[2][0], 0.5f64.to_bits());
    assert_eq!(run(&mut toy, [1.0, 0.0], DEFAULT, divide), DEFAULT | ZE);
    assert_eq!(run(&mut toy, [1.0, 3.0], DEFAULT | IE, divide), DEFAULT | IE | PE);
    let nearest = toy.env.wide[2][0];
    assert_eq!(run(&mut toy, [1.0, 3.0], DEFAULT | UP, divide), DEFAULT | UP | PE);
    assert_eq!(toy.env.wide[2][0], nearest + 1);
}

#[test]
fn code_without_floating_point_leaves_mxcsr_alone() {
    let mut toy = Toy::new();
    // Exceptions that are not masked: such a guest's floating point is not compiled.
    let value = run(&mut toy, [0.0; 2], 0x1234, |b| b.store_env_imm(reg(0, Type::I64), 1));
    assert_eq!(value, 0x1234);
}

#[test]
fn results_that_nobody_uses_raise_flags() {
    let mut toy = Toy::new();
    let unused = |toy: &mut Toy, kind, operands| {
        run(toy, operands, DEFAULT, |b| {
            binary(b, kind);
        })
    };
    for kind in [VecKind::DivF64, VecKind::DivF64P, VecKind::SubAddF64P] {
        assert_eq!(unused(&mut toy, kind, [f64::MAX, 1e-3]) & PE, PE, "{kind:?}");
    }
    for kind in [VecKind::OrderF64, VecKind::CompareF64, VecKind::MinF64] {
        // A signalling NaN.
        let nan = f64::from_bits(0x7ff0_0000_0000_0001);
        assert_eq!(unused(&mut toy, kind, [nan, 1.0]) & IE, IE, "{kind:?}");
    }
    let nan = f64::from_bits(0x7ff0_0000_0000_0001);
    assert_eq!(unused(&mut toy, VecKind::OrderQuietF64, [nan, 1.0]), DEFAULT | IE);
    assert_eq!(unused(&mut toy, VecKind::OrderQuietF64, [f64::NAN, 1.0]), DEFAULT);
    // The sum is replaced by the conversion, of which only lane 0 is looked at.
    let value = run(&mut toy, [1.0, 1e-20], DEFAULT, |b| {
        let sum = binary(b, VecKind::AddF64);
        let seven = b.iconst(Type::I32, 7);
        let converted = b.vec(VecKind::I32ToF64, 0, [sum, seven, NONE]);
        let zero = b.vec(VecKind::Zero, 0, [NONE; 3]);
        b.vec(VecKind::OrderF64, 0, [converted, zero, NONE]);
    });
    assert_eq!(value, DEFAULT | PE);
}

#[test]
fn every_operation_compiles() {
    let mut toy = Toy::new();
    for &kind in VecKind::ALL {
        for imm in (0..kind.row().immediates).take(16) {
            toy.compile(&vector_block(VecInfo { kind, imm: imm as u8 }), How::default());
        }
    }
}
