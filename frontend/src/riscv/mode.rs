//! What translated code depends on beside its bytes.

use super::state::{State, mcountinhibit, mstatus, privilege};

/// Mode bits of a translation; part of its key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Mode(pub u32);

impl Mode {
    /// The floating-point unit is off: its instructions are illegal.
    pub const FLOAT_OFF: u32 = 1 << 2;
    /// mstatus.FS does not say dirty: an instruction that changes floating-point state has to make it so.
    pub const FLOAT_CLEAN: u32 = 1 << 3;
    const FRM_SHIFT: u32 = 4;
    /// Somebody looks at minstret or instret.
    pub const COUNTING: u32 = 1 << 7;
    /// With [`Mode::COUNTING`]: mcountinhibit.IR stops them.
    pub const INHIBITED: u32 = 1 << 8;

    /// The mode of a state.
    pub fn of(s: &State) -> Mode {
        let float = match s.mstatus & mstatus::FS {
            0 => Mode::FLOAT_OFF,
            mstatus::FS => 0,
            _ => Mode::FLOAT_CLEAN,
        };
        let counting = match (s.counting, s.mcountinhibit & mcountinhibit::IR) {
            (0, _) => 0,
            (_, 0) => Mode::COUNTING,
            _ => Mode::COUNTING | Mode::INHIBITED,
        };
        Mode(s.privilege as u32 & 3 | float | (s.frm as u32 & 7) << Mode::FRM_SHIFT | counting)
    }

    /// Whether any of `bits` is set.
    pub const fn has(self, bits: u32) -> bool {
        self.0 & bits != 0
    }

    /// Whether minstret counts.
    pub const fn counts(self) -> bool {
        self.0 & (Mode::COUNTING | Mode::INHIBITED) == Mode::COUNTING
    }

    /// Privilege mode.
    pub const fn privilege(self) -> u64 {
        self.0 as u64 & privilege::MACHINE
    }

    /// frm.
    pub const fn frm(self) -> u8 {
        (self.0 >> Mode::FRM_SHIFT & 7) as u8
    }
}
