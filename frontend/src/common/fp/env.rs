//! What a floating-point operation depends on beside its operands, unpacked for one instruction: an [`Env`] is made of the guest's
//! environment ([`FpEnv`]), and takes in the flags that the instruction raises.

use mimus_ir::{FpEnv, FpFlags};

use super::soft::{DE, Format, IE, Rounding, ZE};

/// Which NaN an operation gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nans {
    /// The first operand that is one, made quiet; for an invalid operation the negative default one (SDM vol. 1, table 4-7).
    Propagated,
    /// Always the positive default one (RISC-V; AArch64 with FPCR.DN).
    Default,
}

/// The control bits of one instruction, and the exceptions that it has raised so far.
#[derive(Clone, Copy, Debug)]
pub struct Env {
    /// How results are rounded.
    pub rounding: Rounding,
    /// Denormal operands are zeros.
    pub denormals_are_zeros: bool,
    /// Results below the normal range become zeros.
    pub flush_to_zero: bool,
    /// Which NaN is a result.
    pub nans: Nans,
    /// Exceptions that stop the instruction instead of giving their default result.
    pub unmasked: u32,
    flags: u32,
    settled: u32,
}

impl Env {
    /// What an instruction works by in a guest whose environment is `env`.
    pub fn of(env: FpEnv) -> Self {
        let unmasked = env.unmasked();
        Self {
            denormals_are_zeros: env.contains(FpEnv::FLUSH_INPUTS),
            // Flushing is the masked response to underflow: it has no effect otherwise (SDM vol. 1, 10.2.3.3).
            flush_to_zero: env.contains(FpEnv::FLUSH_OUTPUTS) && !unmasked.contains(FpFlags::UNDERFLOW),
            unmasked: unmasked.bits(),
            ..Self::new(env.rounding(), if env.contains(FpEnv::DEFAULT_NAN) { Nans::Default } else { Nans::Propagated })
        }
    }

    /// An environment with every exception masked and without flushing.
    pub const fn new(rounding: Rounding, nans: Nans) -> Self {
        Self { rounding, denormals_are_zeros: false, flush_to_zero: false, nans, unmasked: 0, flags: 0, settled: 0 }
    }

    /// Raises flags, in the positions of [`super::soft`]'s constants.
    pub(crate) fn raise(&mut self, flags: u32) {
        self.flags |= flags;
    }

    /// An invalid operation: its flag and its result.
    pub(crate) fn invalid(&mut self, fmt: Format) -> u64 {
        self.raise(IE);
        match self.nans {
            Nans::Propagated => fmt.indefinite(),
            Nans::Default => fmt.default_nan(),
        }
    }

    /// Ends a step, that is the operations that an instruction does side by side; tells whether an unmasked exception ends
    /// the instruction. When an exception of the operands is unmasked in any element, no element gets as far as the
    /// exceptions of a result (SDM vol. 1, 4.9.2 and 11.5.3).
    pub(crate) fn settle(&mut self) -> bool {
        if self.flags & self.unmasked & (IE | DE | ZE) != 0 {
            self.flags &= IE | DE | ZE;
        }
        self.settled |= std::mem::take(&mut self.flags);
        self.settled & self.unmasked != 0
    }

    /// Ends the last step; the flags of all steps.
    pub fn finish(mut self) -> u32 {
        self.settle();
        self.settled
    }
}
