//! What only RISC-V machines have.

use std::path::PathBuf;

/// Settings of RISC-V machines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RiscvConfig {
    /// The slots of virtio devices have the register layout of the standard; otherwise, as QEMU's by default, the one that was
    /// before it.
    pub modern_virtio: bool,
    /// A file with the device tree that takes the place of the board's own.
    pub dtb: Option<PathBuf>,
    /// The device tree is written to this file, and nothing runs.
    pub dump_dtb: Option<PathBuf>,
}
