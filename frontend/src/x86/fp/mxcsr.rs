//! MXCSR and SIMD floating-point exceptions (SDM vol. 1, 10.2.3 and 11.5). Env has the floating-point environment as the IR lays it
//! out; the register is made of it where a program looks, and converted to it where one writes.

use crate::common::fp::Env;
use mimus_ir::FpEnv;

/// The bits that may be set; LDMXCSR and FXRSTOR raise #GP for others. FXSAVE reports it as MXCSR_MASK.
pub const MXCSR_MASK: u32 = 0xffff;

/// The environment that a value of MXCSR stands for; `None` if a bit outside [`MXCSR_MASK`] is set.
pub const fn from_mxcsr(value: u32) -> Option<FpEnv> {
    // MXCSR is the low half of the IR's layout, bit for bit; in the other half is what no x86 has.
    if value & !MXCSR_MASK == 0 { Some(FpEnv::from_bits_retain(value)) } else { None }
}

/// What MXCSR reads as.
pub const fn to_mxcsr(env: FpEnv) -> u32 {
    env.bits() & MXCSR_MASK
}

/// Takes the flags of an instruction into the environment that it worked by.
pub(super) fn settle(env: &mut FpEnv, done: Env) -> Result<(), SimdException> {
    let unmasked = done.unmasked;
    let flags = done.finish();
    *env = FpEnv::from_bits_retain(env.bits() | flags);
    match flags & unmasked {
        0 => Ok(()),
        flags => Err(SimdException { flags }),
    }
}

/// An unmasked SIMD floating-point exception (#XM).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimdException {
    /// The unmasked exceptions that were detected, in the positions of MXCSR's flags.
    pub flags: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use mimus_ir::FpFlags;
    use mimus_ir::fp::Rounding;

    /// SDM vol. 1, figure 10-3.
    const FLAGS: [FpFlags; 6] = [
        FpFlags::INVALID,
        FpFlags::DENORMAL,
        FpFlags::DIVIDE_BY_ZERO,
        FpFlags::OVERFLOW,
        FpFlags::UNDERFLOW,
        FpFlags::INEXACT,
    ];
    const ROUNDING: [Rounding; 4] = [Rounding::Nearest, Rounding::Down, Rounding::Up, Rounding::Zero];

    #[test]
    fn every_value_means_in_the_environment_what_it_means_in_mxcsr() {
        for value in 0..=MXCSR_MASK {
            let bit = |n: usize| value >> n & 1 != 0;
            let env = from_mxcsr(value).unwrap();
            for (n, flag) in FLAGS.into_iter().enumerate() {
                assert_eq!(env.flags().contains(flag), bit(n), "{value:#x}");
                assert_eq!(env.unmasked().contains(flag), !bit(7 + n), "{value:#x}");
            }
            assert_eq!(env.rounding(), ROUNDING[(value >> 13 & 3) as usize], "{value:#x}");
            let flushing = [env.contains(FpEnv::FLUSH_INPUTS), env.contains(FpEnv::FLUSH_OUTPUTS)];
            assert_eq!(flushing, [bit(6), bit(15)], "{value:#x}");
            assert!(!env.intersects(FpEnv::DEFAULT_NAN | FpEnv::TIES_AWAY), "{value:#x}");
            assert_eq!(to_mxcsr(env), value);
        }
        assert_eq!((from_mxcsr(1 << 16), from_mxcsr(1 << 31)), (None, None));
        assert_eq!(from_mxcsr(0x1f80), Some(FpEnv::RESET), "after a reset");
    }
}
