//! What a configuration says of RISC-V machines alone.

use std::path::PathBuf;

use super::Chardev;

/// Settings of RISC-V machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RiscvConfig {
    /// Where the board's serial port, or its console, is connected.
    pub console: Chardev,
    /// A file with the device tree that takes the place of the board's own.
    pub dtb: Option<PathBuf>,
    /// The device tree is written to this file, and nothing runs.
    pub dump_dtb: Option<PathBuf>,
    /// Programs may call the host.
    pub semihosting: Option<Semihosting>,
}

impl Default for RiscvConfig {
    fn default() -> RiscvConfig {
        RiscvConfig { console: Chardev::Stdio { mux: false }, dtb: None, dump_dtb: None, semihosting: None }
    }
}

/// Semihosting: calls by which a program prints, reads what is typed, and ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Semihosting {
    /// What the program's console is; the process's own outputs, and no input, if there is none.
    pub chardev: Option<Chardev>,
    /// User mode may call, too.
    pub user_mode: bool,
    /// The program's name and arguments; the kernel's file and command line if there are none.
    pub arguments: Vec<String>,
}
