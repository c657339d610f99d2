//! Why a saved state cannot be restored: what all boards say of it.

/// Why a state does not fit a machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Another version of this crate wrote it.
    #[error("device state has version {found}, this is version {expected}")]
    Version {
        /// The version in the state.
        found: u32,
        /// The version that can be restored.
        expected: u32,
    },
    /// The state comes from a machine that was configured differently.
    #[error("device state is for a machine with another {0}")]
    Machine(&'static str),
    /// A device's state breaks that device's own rules.
    #[error("device state of the {0} is malformed")]
    Malformed(&'static str),
}
