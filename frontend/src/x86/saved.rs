//! A vCPU's state as data, apart from memory, devices and whatever can be found again: TLB, translations, mode bits.

use mimus_softmmu::Verdict;
use serde::{Deserialize, Serialize};

use super::cpu::{Cpu, Features};
use super::exception::Exception;
use super::state::State;

/// Version of [`CpuState`]; changes with its fields or with the meaning of one.
pub const VERSION: u32 = 5;

/// A vCPU's state at a point between two instructions.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CpuState {
    /// [`VERSION`] of who saved it. Comes first, so that it can be read whatever follows.
    version: u32,
    features: Features,
    state: State,
    pending: Option<Exception>,
    triple_fault: bool,
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
    /// It was saved by a vCPU with other features.
    #[error("vCPU state was saved with other CPU features")]
    Features,
}

impl Cpu {
    /// Its state now; to be called between two instructions.
    pub fn save(&self) -> CpuState {
        CpuState {
            version: VERSION,
            features: self.features,
            state: self.state,
            pending: self.pending.filter(|_| self.header.verdict == Verdict::Fault as u32),
            triple_fault: self.triple_fault,
        }
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
        self.pending = saved.pending;
        self.triple_fault = saved.triple_fault;
        self.header.verdict = if saved.pending.is_some() { Verdict::Fault as u32 } else { Verdict::Done as u32 };
        self.flush_tlb(false);
        self.update_mode();
        self.update_data_breakpoints();
        Ok(())
    }
}
