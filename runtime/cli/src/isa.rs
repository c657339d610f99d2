//! What is on a PC's ISA bus by other options than `-device`: `-serial`, `-debugcon`. And the places of all devices.

use mimus_hw::COM_PORTS;
use mimus_hw::registry::{ISA_DEBUGCON, ISA_SERIAL, TOO_MANY_SERIALS};

use super::chardev::{self, Chardevs, is_stdio};
use super::globals::Globals;
use super::{Arch, CliError, Given, place};
use mimus_host::config::Chardev;
use mimus_machine::config::{Config, Device};

/// Warns of what is to be beside the screen, and of a parallel port: there is none.
fn unseen(given: &Given, config: &mut Config) {
    let named = ["serial", "debugcon", "monitor"].into_iter();
    let virtual_ones = named.filter(|name| given.all(name).any(chardev::is_virtual));
    let mut warnings: Vec<String> = virtual_ones
        .map(|name| format!("-{name}: vc: there is no console beside the screen: nothing is seen of it"))
        .collect();
    if given.all("parallel").any(|value| value != "none" && value != "null") {
        warnings.push("-parallel: there is no parallel port".to_owned());
    }
    config.warnings.append(&mut warnings);
}

/// Reads `-serial` and `-debugcon`, and gives all serial ports their places.
pub(super) fn ports(
    given: &Given,
    arch: Arch,
    globals: &Globals,
    chardevs: &mut Chardevs,
    config: &mut Config,
) -> Result<(), CliError> {
    let nographic = config.nographic;
    let mut all = |name: &'static str| -> Result<Vec<Chardev>, CliError> {
        given.all(name).map(|value| chardev::parse(name, value, nographic, chardevs)).collect()
    };
    let (serials, debugcons) = (all("serial")?, all("debugcon")?);
    unseen(given, config);
    for chardev in debugcons.into_iter().filter(|chardev| *chardev != Chardev::None) {
        config.devices.push(globals.device(ISA_DEBUGCON, "-debugcon")?.at(chardev));
    }
    let by_device = config.devices_of(ISA_SERIAL).next().is_some();
    let usual = if by_device { Chardev::None } else { usual_serial(given, arch, config) };
    let mut serials = serials.into_iter();
    config.serial = serials.next().unwrap_or(usual);
    let mut more = Vec::new();
    for (index, chardev) in serials.enumerate() {
        if arch == Arch::Riscv {
            if !matches!(chardev, Chardev::None | Chardev::Null) {
                config.warnings.push("-serial: this machine has one serial port: the others are left out".to_owned());
            }
            continue;
        }
        let port = COM_PORTS.get(index + 1).ok_or_else(|| CliError::new("-serial", TOO_MANY_SERIALS))?;
        if chardev != Chardev::None {
            let serial = globals.device(ISA_SERIAL, "-serial")?;
            more.push(serial.with("iobase", port.iobase.into()).with("irq", port.irq.into()).at(chardev));
        }
    }
    // They have the first numbers.
    config.devices.splice(0..0, more);
    // The first has its own.
    let first = (config.serial != Chardev::None).then(|| Device::serial(COM_PORTS[0]).values);
    place(&mut config.devices, first.into_iter().collect())?;
    check_terminal(config)
}

/// What the first serial port is connected to unless somebody says so.
fn usual_serial(given: &Given, arch: Arch, config: &Config) -> Chardev {
    match () {
        // The other board always has it.
        () if given.flag("nodefaults") && arch == Arch::X86 => Chardev::None,
        () if consoles_at_stdio(config) != 0 || config.curses || given.flag("nodefaults") => Chardev::Null,
        () if config.nographic => Chardev::Stdio { mux: true },
        // In QEMU the port would be in a window beside the screen.
        () if given.one("display").is_some() || given.one("vnc").is_some() => Chardev::Null,
        () => Chardev::Stdio { mux: false },
    }
}

/// How many virtio consoles have the terminal.
fn consoles_at_stdio(config: &Config) -> usize {
    config.ports().filter_map(Device::chardev).filter(|chardev| is_stdio(chardev)).count()
}

/// How many devices read what is typed at the terminal.
pub(super) fn readers_of_stdio(config: &Config) -> usize {
    let devices = config.devices.iter().filter(|device| device.reads()).filter_map(Device::chardev);
    devices.chain([&config.serial]).filter(|chardev| is_stdio(chardev)).count() + consoles_at_stdio(config)
}

/// Checks that no two who read have the terminal, and that nobody has it who would disturb what is drawn there.
fn check_terminal(config: &Config) -> Result<(), CliError> {
    let readers = readers_of_stdio(config);
    let mut writers = config.devices.iter().filter(|device| !device.reads()).filter_map(Device::chardev);
    let writer = writers.any(is_stdio);
    match config.curses {
        true if writer => Err(CliError::new("-debugcon", "stdio is where -display curses draws")),
        true if consoles_at_stdio(config) != 0 => {
            Err(CliError::new("-chardev stdio", "stdio is where -display curses draws"))
        }
        true if readers != 0 => Err(CliError::new("-serial", "stdio is where -display curses draws")),
        _ if readers > 1 => Err(CliError::new("-serial", "cannot use stdio by multiple character devices")),
        _ => Ok(()),
    }
}
