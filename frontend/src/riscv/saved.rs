//! A vCPU's state as data, apart from memory, devices, lines and whatever can be found again: TLB, translations, mode bits.

use mimus_softmmu::Verdict;
use serde::{Deserialize, Serialize};

use super::cpu::{Cpu, Features};
use super::state::State;
use super::trap::Pending;

/// Version of [`CpuState`]; changes with its fields or with the meaning of one.
pub const VERSION: u32 = 3;

/// A vCPU's state at a point between two instructions.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CpuState {
    /// [`VERSION`] of who saved it. Comes first, so that it can be read whatever follows.
    version: u32,
    features: Features,
    state: State,
    pending: Option<Pending>,
}

/// Why a state cannot be restored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RestoreError {
    /// Another version of mimus saved it.
    #[error("vCPU state of version {found}: only version {VERSION} can be restored")]
    Version {
        /// Its version.
        found: u32,
    },
    /// It was saved by a hart of another number, or one that starts elsewhere.
    #[error("vCPU state was saved by another hart")]
    Features,
}

impl Cpu {
    /// Its state now; to be called between two instructions.
    pub fn save(&self) -> CpuState {
        let pending = self.pending.filter(|_| self.header.verdict == Verdict::Fault as u32);
        CpuState { version: VERSION, features: self.features, state: self.state, pending }
    }

    /// Goes on from a saved state. Everything derived from the old one is forgotten; counters go on.
    ///
    /// # Errors
    ///
    /// [`RestoreError`]; nothing was changed then.
    pub fn restore(&mut self, saved: &CpuState) -> Result<(), RestoreError> {
        if saved.version != VERSION {
            return Err(RestoreError::Version { found: saved.version });
        }
        if saved.features != self.features {
            return Err(RestoreError::Features);
        }
        self.state = saved.state;
        self.state.x[0] = 0;
        self.pending = saved.pending;
        self.header.verdict = if saved.pending.is_some() { Verdict::Fault as u32 } else { Verdict::Done as u32 };
        self.arm_timer();
        self.flush_tlb();
        self.update_mode();
        self.open_interrupts();
        Ok(())
    }
}
