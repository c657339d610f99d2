//! MXCSR and SIMD floating-point exceptions (SDM vol. 1, 10.2.3 and 11.5).

use crate::common::fp::{Env, Rounding};
use mimus_ir::FpEnv;
use serde::{Deserialize, Serialize};

/// The value of MXCSR: flags in bits 0-5, DAZ in 6, masks in 7-12, RC in 13-14, FTZ in 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mxcsr(pub u32);

impl Default for Mxcsr {
    fn default() -> Self {
        Self(Self::RESET)
    }
}

impl Mxcsr {
    /// The value after reset: all exceptions masked, rounding to nearest.
    pub const RESET: u32 = 0x1f80;
    /// The bits that may be set; LDMXCSR and FXRSTOR raise #GP for others. FXSAVE reports it as MXCSR_MASK.
    pub const WRITABLE: u32 = 0xffff;
    /// Denormals are zeros.
    pub const DAZ: u32 = 1 << 6;
    /// The six status flags.
    pub const FLAGS: u32 = 0x3f;

    /// The rounding mode.
    pub fn rounding(self) -> Rounding {
        self.fp_env().rounding()
    }

    /// The exceptions whose mask bit is clear, in the positions of the flags.
    pub fn unmasked(self) -> u32 {
        self.fp_env().unmasked().bits()
    }

    /// The floating-point environment: the IR has it in the same layout.
    pub(crate) const fn fp_env(self) -> FpEnv {
        FpEnv::from_bits_retain(self.0 & Self::WRITABLE)
    }

    /// What an instruction works by.
    pub(crate) fn env(self) -> Env {
        Env::of(self.fp_env())
    }

    /// Takes in the flags of an instruction.
    pub(crate) fn settle(&mut self, env: Env) -> Result<(), SimdException> {
        let flags = env.finish();
        self.0 |= flags;
        match flags & env.unmasked {
            0 => Ok(()),
            flags => Err(SimdException { flags }),
        }
    }
}

/// An unmasked SIMD floating-point exception (#XM).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimdException {
    /// The unmasked exceptions that were detected, in the positions of MXCSR's flags.
    pub flags: u32,
}
