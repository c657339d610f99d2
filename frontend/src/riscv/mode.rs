//! What translated code depends on beside its bytes.

use super::state::{State, mstatus, privilege};

/// Mode bits of a translation; part of its key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Mode(pub u32);

impl Mode {
    /// The floating-point unit is off: its instructions are illegal.
    pub const FLOAT_OFF: u32 = 1 << 2;
    /// mstatus.FS does not say dirty: an instruction that changes floating-point state has to make it so.
    pub const FLOAT_CLEAN: u32 = 1 << 3;
    const FRM_SHIFT: u32 = 4;

    /// The mode of a state.
    pub fn of(s: &State) -> Mode {
        let float = match s.mstatus & mstatus::FS {
            0 => Mode::FLOAT_OFF,
            mstatus::FS => 0,
            _ => Mode::FLOAT_CLEAN,
        };
        Mode(s.privilege as u32 & 3 | float | (s.frm as u32 & 7) << Mode::FRM_SHIFT)
    }

    /// Whether any of `bits` is set.
    pub const fn has(self, bits: u32) -> bool {
        self.0 & bits != 0
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
