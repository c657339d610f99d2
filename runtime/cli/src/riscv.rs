//! What only RISC-V machines have on the command line.

pub(super) mod cpu;

use super::chardev::Chardevs;
use super::error::CliError;
use super::keyval::{self, Key, Kind, Values};
use super::{Arch, Given, utf8};
use mimus_machine::config::{Config, MachineKind, Semihosting};

/// Keys of `-semihosting-config`.
const SEMIHOSTING: &[Key] = &[
    Key { name: "enable", kind: Kind::Word(&["on", "off"]), help: "whether programs may call the host" },
    Key { name: "target", kind: Kind::Word(&["native", "auto"]), help: "who answers: mimus" },
    Key { name: "chardev", kind: Kind::Text("the id of a -chardev"), help: "the program's console" },
    Key { name: "userspace", kind: Kind::Word(&["on", "off"]), help: "whether user mode may call, too" },
    Key { name: "arg", kind: Kind::Texts("a word"), help: "a word of the program's command line" },
];

/// Takes over `-semihosting` and `-semihosting-config`.
pub(super) fn semihosting(
    given: &Given,
    arch: Arch,
    chardevs: &mut Chardevs,
    config: &mut Config,
) -> Result<(), CliError> {
    const OPTION: &str = "-semihosting-config";
    if given.flag("semihosting") {
        config.riscv.semihosting = Some(Semihosting::default());
    }
    for value in given.all("semihosting-config") {
        let values = keyval::parse(OPTION, utf8("semihosting-config", value)?, "enable", SEMIHOSTING)?;
        if values.word("enable") == Some("off") {
            config.riscv.semihosting = None;
            continue;
        }
        let semihosting = config.riscv.semihosting.get_or_insert_default();
        if let Some(id) = values.text("chardev") {
            semihosting.chardev = Some(chardevs.take(OPTION, id)?);
        }
        if let Some(word) = values.word("userspace") {
            semihosting.user_mode = word == "on";
        }
        semihosting.arguments.extend(values.texts("arg").map(str::to_owned));
    }
    if arch != Arch::Riscv && config.riscv.semihosting.is_some() {
        return Err(CliError::new("-semihosting", "programs of a PC have no such calls"));
    }
    Ok(())
}

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
    if let Some(file) = given.path("dtb")? {
        if arch != Arch::Riscv {
            return Err(CliError::new("-dtb", "this machine has no device tree"));
        }
        config.riscv.dtb = Some(file);
    }
    Ok(())
}
