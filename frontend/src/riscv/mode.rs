//! What translated code depends on beside its bytes.

use bitflags::bitflags;

use super::state::{Countinhibit, Mstatus, State, privilege};

bitflags! {
    /// Mode bits of a translation; part of its key.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct Mode: u32 {
        /// Privilege mode, a number.
        const PRIVILEGE = privilege::MACHINE as u32;
        /// The floating-point unit is off: its instructions are illegal.
        const FLOAT_OFF = 1 << 2;
        /// mstatus.FS does not say dirty: an instruction that changes floating-point state has to make it so.
        const FLOAT_CLEAN = 1 << 3;
        /// frm, a number.
        const FRM = 7 << Mode::FRM_SHIFT;
        /// Somebody looks at minstret or instret.
        const COUNTING = 1 << 7;
        /// With [`Mode::COUNTING`]: mcountinhibit.IR stops them.
        const INHIBITED = 1 << 8;
    }
}

impl Mode {
    const FRM_SHIFT: u32 = 4;

    /// The mode of a state.
    pub fn of(s: &State) -> Mode {
        let float = match s.mstatus & Mstatus::FS {
            Mstatus::FS => Mode::empty(),
            part if part.is_empty() => Mode::FLOAT_OFF,
            _ => Mode::FLOAT_CLEAN,
        };
        let counting = match (s.counting, s.mcountinhibit.contains(Countinhibit::IR)) {
            (0, _) => Mode::empty(),
            (_, false) => Mode::COUNTING,
            (_, true) => Mode::COUNTING | Mode::INHIBITED,
        };
        let numbers = s.privilege as u32 & 3 | (s.frm as u32 & 7) << Mode::FRM_SHIFT;
        Mode::from_bits_retain(numbers) | float | counting
    }

    /// Whether minstret counts.
    pub const fn counts(self) -> bool {
        self.contains(Mode::COUNTING) && !self.contains(Mode::INHIBITED)
    }

    /// Privilege mode.
    pub const fn privilege(self) -> u64 {
        self.bits() as u64 & privilege::MACHINE
    }

    /// frm.
    pub const fn frm(self) -> u8 {
        (self.bits() >> Mode::FRM_SHIFT & 7) as u8
    }
}
