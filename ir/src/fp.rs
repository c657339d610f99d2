//! The guest's floating-point environment: what the rows with floating point ([`crate::vec`]) depend on beside their operands, and
//! what they change. Frontends keep it in a word of env and convert their control and status registers when these are read or
//! written; [`crate::Guest::float`] and compiled code work by that word.
//!
//! Its layout is one for all guests, so that a backend has to know one. Bits 0 to 15 are laid out as x86's MXCSR is (SDM vol. 1,
//! 10.2.3): it is the one register of the common architectures that has flags, rounding, flushing and masks in one word, and where
//! guest or host is an x86 nothing has to be converted on the way into compiled code. RISC-V's fcsr and AArch64's FPCR and FPSR have
//! nothing that is not here, but for what is about formats (AHP, FZ16) and saturation of integers (QC).

use bitflags::bitflags;

bitflags! {
    /// Exceptions (IEEE 754-2019, clause 7, and denormal operands). In an environment they are *sticky*: what has been raised stays.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct FpFlags: u32 {
        /// Invalid operation: x86 IE, RISC-V NV, AArch64 IOC.
        const INVALID = 1;
        /// A denormal operand was used: x86 DE. RISC-V has no such flag; AArch64's IDC tells of operands that were flushed.
        const DENORMAL = 1 << 1;
        /// Division by zero: x86 ZE, RISC-V DZ, AArch64 DZC.
        const DIVIDE_BY_ZERO = 1 << 2;
        /// Overflow.
        const OVERFLOW = 1 << 3;
        /// Underflow, detected after rounding.
        const UNDERFLOW = 1 << 4;
        /// Inexact result: x86 PE, RISC-V NX, AArch64 IXC.
        const INEXACT = 1 << 5;
    }
}

/// How results are rounded. The first four are numbered as [`FpEnv::ROUNDING`] has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Rounding {
    /// To nearest, ties to even.
    Nearest = 0,
    /// Towards minus infinity.
    Down = 1,
    /// Towards plus infinity.
    Up = 2,
    /// Towards zero.
    Zero = 3,
    /// To nearest, ties away from zero: RISC-V's RMM.
    NearestAway = 4,
}

impl Rounding {
    /// The mode that the low two bits of `code` select.
    #[inline]
    pub const fn from_code(code: u32) -> Self {
        match code & 3 {
            0 => Self::Nearest,
            1 => Self::Down,
            2 => Self::Up,
            _ => Self::Zero,
        }
    }
}

bitflags! {
    /// A floating-point environment: [`FpFlags`] raised so far in bits 0 to 5, and these.
    ///
    /// [`FpEnv::DEFAULT_NAN`] and [`FpEnv::TIES_AWAY`] are what no x86-64 host does by itself. The frontend of a guest that sets them
    /// lifts rows only where their results are the same without, or checks the results.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    #[repr(transparent)]
    pub struct FpEnv: u32 {
        /// Denormal operands are zeros: x86 DAZ, AArch64 FPCR.FIZ, and with [`FpEnv::FLUSH_OUTPUTS`] FPCR.FZ.
        const FLUSH_INPUTS = 1 << 6;
        /// Masked exceptions, [`FpFlags`] shifted by [`FpEnv::MASK_SHIFT`]: they give their default results. Others trap; AArch64's
        /// trap enables are the complement.
        const MASKED = 0x3f << 7;
        /// The [`Rounding`] mode, apart from [`Rounding::NearestAway`].
        const ROUNDING = 3 << 13;
        /// Results below the normal range become zeros: x86 FTZ.
        const FLUSH_OUTPUTS = 1 << 15;
        /// Every NaN that is a result is the default one: RISC-V, AArch64 FPCR.DN. Otherwise operands that are NaNs are propagated.
        const DEFAULT_NAN = 1 << 16;
        /// The mode is [`Rounding::NearestAway`]; [`FpEnv::ROUNDING`] says to nearest then.
        const TIES_AWAY = 1 << 17;
        /// The flags raised so far.
        const FLAGS = FpFlags::all().bits();
    }
}

impl FpEnv {
    /// Where [`FpEnv::MASKED`] begins.
    pub const MASK_SHIFT: u32 = 7;

    /// All exceptions masked, to nearest, nothing flushed, NaNs propagated, no flag raised.
    pub const RESET: FpEnv = FpEnv::MASKED;

    /// What has been raised.
    #[inline]
    pub const fn flags(self) -> FpFlags {
        FpFlags::from_bits_truncate(self.bits())
    }

    /// With `flags` raised, too.
    #[inline]
    pub const fn raise(self, flags: FpFlags) -> FpEnv {
        FpEnv::from_bits_retain(self.bits() | flags.bits())
    }

    /// With exactly `flags` raised.
    #[inline]
    pub const fn with_flags(self, flags: FpFlags) -> FpEnv {
        self.difference(FpEnv::FLAGS).raise(flags)
    }

    /// The exceptions that trap.
    #[inline]
    pub const fn unmasked(self) -> FpFlags {
        FpFlags::from_bits_truncate(!(self.bits() >> FpEnv::MASK_SHIFT))
    }

    /// The rounding mode.
    #[inline]
    pub const fn rounding(self) -> Rounding {
        if self.contains(FpEnv::TIES_AWAY) {
            Rounding::NearestAway
        } else {
            Rounding::from_code(self.bits() >> FpEnv::ROUNDING.bits().trailing_zeros())
        }
    }

    /// With another rounding mode.
    #[inline]
    pub const fn with_rounding(self, rounding: Rounding) -> FpEnv {
        let mode = match rounding {
            Rounding::NearestAway => FpEnv::TIES_AWAY,
            other => FpEnv::from_bits_retain((other as u32) << FpEnv::ROUNDING.bits().trailing_zeros()),
        };
        self.difference(FpEnv::ROUNDING.union(FpEnv::TIES_AWAY)).union(mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_disturb_one_another() {
        use Rounding::*;
        let flags = FpFlags::INVALID | FpFlags::INEXACT;
        for rounding in [Nearest, Down, Up, Zero, NearestAway] {
            for rest in [FpEnv::RESET, FpEnv::FLUSH_INPUTS | FpEnv::FLUSH_OUTPUTS | FpEnv::DEFAULT_NAN] {
                // Whatever was there before.
                let env = rest.with_rounding(NearestAway).with_rounding(Zero).with_rounding(rounding).raise(flags);
                assert_eq!((env.rounding(), env.flags()), (rounding, flags));
                assert_eq!(env.with_rounding(Nearest).with_flags(FpFlags::empty()), rest);
                assert_eq!(env.unmasked(), rest.unmasked());
            }
        }
        assert_eq!(FpEnv::RESET.unmasked(), FpFlags::empty());
        assert_eq!(FpEnv::DEFAULT_NAN.unmasked(), FpFlags::all());
    }

    #[test]
    fn the_low_half_is_laid_out_as_mxcsr() {
        assert_eq!(FpEnv::RESET.bits(), 0x1f80);
        assert_eq!((FpEnv::FLUSH_INPUTS.bits(), FpEnv::FLUSH_OUTPUTS.bits()), (1 << 6, 1 << 15));
        let up = FpEnv::RESET.with_rounding(Rounding::Up);
        assert_eq!(up.bits(), 0x5f80);
        // Underflow is unmasked, and division by zero raised.
        let trap = FpEnv::from_bits_retain(0x1784);
        assert_eq!((trap.unmasked(), trap.flags()), (FpFlags::UNDERFLOW, FpFlags::DIVIDE_BY_ZERO));
    }
}
