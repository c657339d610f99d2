//! Floating point by the host's instructions: the environment on the way in and out, and flags of results that nobody uses. Which bits
//! each operation gives is compared for the x86 guest, whose arithmetic is exact on every host.
#![cfg(all(target_arch = "x86_64", unix))]

use mimus_ir::fp::Rounding;
use mimus_ir::{Builder, FpEnv, FpFlags, NONE, Type, Value, VecInfo, VecKind};

use crate::ops::vector_block;
use crate::toy::{How, Toy, one, reg, wide};

const DEFAULT: FpEnv = FpEnv::RESET;
const IE: FpFlags = FpFlags::INVALID;
const ZE: FpFlags = FpFlags::DIVIDE_BY_ZERO;
const PE: FpFlags = FpFlags::INEXACT;

fn host_mxcsr() -> u32 {
    let mut value = 0u32;
    // SAFETY: stores four bytes in a local.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack)) };
    value
}

/// Runs a block with two numbers in wide registers 0 and 1 and an environment, whose new value is returned.
fn run(toy: &mut Toy, [a, b]: [f64; 2], env: FpEnv, body: impl FnOnce(&mut Builder)) -> FpEnv {
    let block = one(0x1000, body);
    let (entry, _) = toy.compile(&block, How::default());
    toy.set_state(&Toy::fresh(1));
    toy.env.wide[0] = [a.to_bits(), 0];
    toy.env.wide[1] = [b.to_bits(), 0];
    toy.env.fp_env = env;
    toy.enter(entry);
    assert_eq!(host_mxcsr() & !0x3f, 0x1f80, "the host's own is back");
    toy.env.fp_env
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
    assert_eq!(run(&mut toy, [1.0, 0.0], DEFAULT, divide), DEFAULT.raise(ZE));
    assert_eq!(run(&mut toy, [1.0, 3.0], DEFAULT.raise(IE), divide), DEFAULT.raise(IE | PE));
    let nearest = toy.env.wide[2][0];
    let up = DEFAULT.with_rounding(Rounding::Up);
    assert_eq!(run(&mut toy, [1.0, 3.0], up, divide), up.raise(PE));
    assert_eq!(toy.env.wide[2][0], nearest + 1);
    // What the host's register has no bits for stays in env, and does not get into it: that would be #GP.
    let more = DEFAULT | FpEnv::DEFAULT_NAN | FpEnv::TIES_AWAY;
    assert_eq!(run(&mut toy, [1.0, 3.0], more, divide), more.raise(PE));
    assert_eq!(toy.env.wide[2][0], nearest);
    // Likewise where a function of the runtime is called in between.
    let signalling = |b: &mut Builder| {
        binary(b, VecKind::OrderF64);
        divide(b);
    };
    assert_eq!(run(&mut toy, [1.0, f64::NAN], more, signalling), more.raise(IE));
}

#[test]
fn code_without_floating_point_leaves_the_environment_alone() {
    let mut toy = Toy::new();
    // Exceptions that are not masked: such a guest's floating point is not compiled.
    let env = FpEnv::FLUSH_INPUTS.raise(ZE);
    let value = run(&mut toy, [0.0; 2], env, |b| b.store_env_imm(reg(0, Type::I64), 1));
    assert_eq!(value, env);
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
        assert!(unused(&mut toy, kind, [f64::MAX, 1e-3]).flags().contains(PE), "{kind:?}");
    }
    for kind in [VecKind::OrderF64, VecKind::CompareF64, VecKind::MinF64] {
        // A signalling NaN.
        let nan = f64::from_bits(0x7ff0_0000_0000_0001);
        assert!(unused(&mut toy, kind, [nan, 1.0]).flags().contains(IE), "{kind:?}");
    }
    let nan = f64::from_bits(0x7ff0_0000_0000_0001);
    assert_eq!(unused(&mut toy, VecKind::OrderQuietF64, [nan, 1.0]), DEFAULT.raise(IE));
    assert_eq!(unused(&mut toy, VecKind::OrderQuietF64, [f64::NAN, 1.0]), DEFAULT);
    // The sum is replaced by the conversion, of which only lane 0 is looked at.
    let value = run(&mut toy, [1.0, 1e-20], DEFAULT, |b| {
        let sum = binary(b, VecKind::AddF64);
        let seven = b.iconst(Type::I32, 7);
        let converted = b.vec(VecKind::I32ToF64, 0, [sum, seven, NONE]);
        let zero = b.vec(VecKind::Zero, 0, [NONE; 3]);
        b.vec(VecKind::OrderF64, 0, [converted, zero, NONE]);
    });
    assert_eq!(value, DEFAULT.raise(PE));
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
