//! What only RISC-V machines have on the command line.

use super::error::CliError;
use super::keyval::Values;
use super::{Arch, Given, utf8};
use crate::config::{Config, MachineKind};

/// The setting of the slots of virtio devices, as `-global` names it.
const LEGACY: &str = "virtio-mmio.force-legacy=";

/// Takes over a `-machine`, of any architecture.
pub(super) fn machine(name: &str, values: &Values, config: &mut Config) {
    match name {
        "virt" => config.machine = MachineKind::Virt,
        "spike" => config.machine = MachineKind::Spike,
        _ => {}
    }
    for (key, file) in [("dtb", &mut config.riscv.dtb), ("dumpdtb", &mut config.riscv.dump_dtb)] {
        if let Some(path) = values.text(key) {
            *file = Some(path.into());
        }
    }
}

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
    if let Some(file) = given.path("dtb")? {
        if arch != Arch::Riscv {
            return Err(CliError::new("-dtb", "this machine has no device tree"));
        }
        config.riscv.dtb = Some(file);
    }
    Ok(())
}
