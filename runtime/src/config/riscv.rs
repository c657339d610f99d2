//! What only RISC-V machines have.

/// Settings of RISC-V machines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RiscvConfig {
    /// The slots of virtio devices have the register layout of the standard; otherwise, as QEMU's by default, the one that was
    /// before it.
    pub modern_virtio: bool,
}
