//! What is on a PC's ISA bus by other options than `-device`: `-serial`, `-debugcon`. And the console of another board.

use mimus_hw::registry::{ISA_DEBUGCON, ISA_SERIAL, TOO_MANY_SERIALS};
use mimus_hw::{COM_PORTS, SerialPort};

use super::chardev::{self, Chardevs, is_stdio};
use super::globals::Globals;
use super::{Arch, CliError, Given};
use mimus_host::config::Chardev;
use mimus_machine::config::{Backend, Config, Device, MachineKind};

/// The option that connects serial ports.
const SERIAL: &str = "-serial";

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

/// Reads `-serial` and `-debugcon`.
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
    let first = serials.next().unwrap_or(usual);
    if arch == Arch::Riscv {
        config.riscv.console = first;
        for _ in serials.filter(|chardev| !matches!(chardev, Chardev::None | Chardev::Null)) {
            config.warnings.push("-serial: this machine has one serial port: the others are left out".to_owned());
        }
        return check_terminal(config);
    }
    let mut ports = Vec::new();
    for (index, chardev) in std::iter::once(first).chain(serials).enumerate() {
        let port = COM_PORTS.get(index).ok_or_else(|| CliError::new(SERIAL, TOO_MANY_SERIALS))?;
        if chardev != Chardev::None {
            ports.push(serial(*port, globals)?.at(chardev));
        }
    }
    // They have the first numbers.
    config.devices.splice(0..0, ports);
    check_terminal(config)
}

/// A serial port of `-serial`, which is at this place unless `-global` says that all are elsewhere.
fn serial(SerialPort { iobase, irq }: SerialPort, globals: &Globals) -> Result<Device, CliError> {
    let mut device = globals.device(ISA_SERIAL, SERIAL)?;
    for (name, number) in [("iobase", iobase.into()), ("irq", irq.into())] {
        if device.values.get(name).is_none() {
            device = device.with(name, number);
        }
    }
    Ok(device)
}

/// Connects the serial port that there is without a word to nothing, so that it leaves the terminal to somebody else.
pub(super) fn disconnect(config: &mut Config) {
    if config.machine != MachineKind::Pc {
        config.riscv.console = Chardev::Null;
    }
    for device in config.devices.iter_mut().filter(|device| device.model == ISA_SERIAL && device.option == SERIAL) {
        device.backend = Backend::Chardev(Chardev::Null);
    }
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
    devices.chain(config.console()).filter(|chardev| is_stdio(chardev)).count() + consoles_at_stdio(config)
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
