//! What only RISC-V machines have on the command line.

use super::error::CliError;
use super::{Arch, Given, utf8};
use crate::config::Config;

/// The setting of the slots of virtio devices, as `-global` names it.
const LEGACY: &str = "virtio-mmio.force-legacy=";

/// Takes over the options that are for RISC-V machines.
pub(super) fn parse(given: &Given, arch: Arch, config: &mut Config) -> Result<(), CliError> {
    for value in given.all("global") {
        let Some(word) = utf8("global", value)?.strip_prefix(LEGACY) else { continue };
        if arch != Arch::Riscv {
            return Err(CliError::new("-global", "virtio-mmio: this machine has no such device"));
        }
        config.riscv.modern_virtio = match word {
            "false" | "off" | "no" => true,
            "true" | "on" | "yes" => false,
            _ => return Err(CliError::new("-global", format!("{LEGACY}{word}: not on or off"))),
        };
    }
    Ok(())
}
