//! MXCSR and SIMD floating-point exceptions (SDM vol. 1, 10.2.3 and 11.5).

use super::soft::{DE, IE, Rounding, UE, ZE};
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
        Rounding::from_rc(self.0 >> 13)
    }

    /// The exceptions whose mask bit is clear, in the positions of the flags.
    pub fn unmasked(self) -> u32 {
        !(self.0 >> 7) & Self::FLAGS
    }
}

/// An unmasked SIMD floating-point exception (#XM).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimdException {
    /// The unmasked exceptions that were detected, in the positions of MXCSR's flags.
    pub flags: u32,
}

/// The control bits of MXCSR, unpacked, and the exceptions that one instruction has raised so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Env {
    pub rc: Rounding,
    pub daz: bool,
    pub ftz: bool,
    pub unmasked: u32,
    flags: u32,
    settled: u32,
}

impl Env {
    pub fn new(mxcsr: Mxcsr) -> Self {
        let unmasked = mxcsr.unmasked();
        Self {
            rc: mxcsr.rounding(),
            daz: mxcsr.0 & Mxcsr::DAZ != 0,
            // Flush-to-zero is the masked response to underflow: it has no effect otherwise (SDM vol. 1, 10.2.3.3).
            ftz: mxcsr.0 & 1 << 15 != 0 && unmasked & UE == 0,
            unmasked,
            flags: 0,
            settled: 0,
        }
    }

    pub fn raise(&mut self, flags: u32) {
        self.flags |= flags;
    }

    /// Ends a step, that is the operations that an instruction does side by side; tells whether an unmasked exception ends
    /// the instruction. When an exception of the operands is unmasked in any element, no element gets as far as the
    /// exceptions of a result (SDM vol. 1, 4.9.2 and 11.5.3).
    pub fn settle(&mut self) -> bool {
        if self.flags & self.unmasked & (IE | DE | ZE) != 0 {
            self.flags &= IE | DE | ZE;
        }
        self.settled |= std::mem::take(&mut self.flags);
        self.settled & self.unmasked != 0
    }

    /// Ends the last step and merges the flags into MXCSR.
    pub fn finish(mut self, mxcsr: &mut Mxcsr) -> Result<(), SimdException> {
        let stops = self.settle();
        mxcsr.0 |= self.settled;
        if stops { Err(SimdException { flags: self.settled & self.unmasked }) } else { Ok(()) }
    }
}
