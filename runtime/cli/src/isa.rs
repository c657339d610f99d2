//! What is on a PC's ISA bus: `-serial`, `-debugcon`, and `-device` with the test devices of kernels.

use mimus_hw::{COM_PORTS, SerialPort};

use super::chardev::{self, Chardevs, is_stdio};
use super::keyval::Values;
use super::{Arch, CliError, Given, disks, keyval, utf8};
use mimus_host::config::{Chardev, Plug};
use mimus_machine::config::{Config, DebugExit, Debugcon, IsaSerial, PciDevice, PciModel, VirtioDevice};

/// The port of a debug console, and what it reads as.
const DEBUGCON: u16 = 0xe9;

/// The most serial ports that have a usual place, as a user reads it.
const FULL: &str = "a PC has no more than four serial ports, unless iobase= and irq= are given";

/// A serial port of `-device`, which gets its place when those of `-serial` have theirs.
#[derive(Debug)]
struct Wanted {
    option: String,
    plug: Plug,
    index: Option<usize>,
    iobase: Option<u16>,
    irq: Option<u8>,
    chardev: Chardev,
}

/// The serial ports of `-device`.
#[derive(Debug, Default)]
pub(super) struct Serials(Vec<Wanted>);

/// The ids of the devices here.
pub(super) fn plugs(config: &Config) -> impl Iterator<Item = &Plug> {
    let isa = &config.isa;
    let serials = isa.serials.iter().map(|serial| &serial.plug);
    let consoles = isa.debugcons.iter().map(|debugcon| &debugcon.plug);
    let exits = isa.debug_exits.iter().map(|exit| &exit.plug);
    serials.chain(consoles).chain(exits).chain(&isa.testdev).chain(config.pci.iter().map(|device| &device.plug))
}

/// Plugs in a device of `-device` that is neither a disk, an adapter nor a virtio device.
pub(super) fn device(
    name: &str,
    option: &str,
    values: &Values,
    (serials, chardevs): (&mut Serials, &mut Chardevs),
    config: &mut Config,
) -> Result<(), CliError> {
    let plug = disks::plug(option, values)?;
    let number = |key: &str, default: u16| {
        values
            .number(key)
            .map_or(Ok(default), u16::try_from)
            .map_err(|_| CliError::new(option, format!("{key}: out of range")))
    };
    match name {
        "pci-testdev" => config.pci.push(PciDevice { model: PciModel::Testdev, plug }),
        "pc-testdev" => {
            if config.isa.testdev.replace(plug).is_some() {
                return Err(CliError::new(option, "its ports are fixed: there can be only one"));
            }
        }
        "isa-serial" => {
            let chardev = take(option, values, chardevs)?;
            serials.0.push(Wanted {
                option: option.to_owned(),
                plug,
                index: values.number("index").and_then(|index| usize::try_from(index).ok()),
                iobase: values.number("iobase").and_then(|port| u16::try_from(port).ok()),
                irq: values.number("irq").and_then(|irq| u8::try_from(irq).ok()),
                chardev,
            });
        }
        "isa-debugcon" => {
            let chardev = take(option, values, chardevs)?;
            let iobase = number("iobase", DEBUGCON)?;
            let [readback, _] = number("readback", DEBUGCON)?.to_le_bytes();
            config.isa.debugcons.push(Debugcon { plug, iobase, readback, chardev });
        }
        _ => {
            // QEMU's defaults.
            let exit = DebugExit { plug, iobase: number("iobase", 0x501)?, iosize: number("iosize", 2)? };
            check_ports(option, "iosize", exit.iobase, exit.iosize)?;
            config.isa.debug_exits.push(exit);
        }
    }
    Ok(())
}

fn check_ports(option: &str, size: &str, iobase: u16, count: u16) -> Result<(), CliError> {
    if u32::from(iobase) + u32::from(count) > 0x1_0000 {
        return Err(CliError::new(option, format!("iobase={iobase:#x},{size}={count} reaches past port 0xffff")));
    }
    Ok(())
}

fn take(option: &str, values: &Values, chardevs: &mut Chardevs) -> Result<Chardev, CliError> {
    let id = values.text("chardev").ok_or_else(|| CliError::new(option, "needs chardev=ID"))?;
    chardevs.take(option, id)
}

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
    wanted: Serials,
    chardevs: &mut Chardevs,
    config: &mut Config,
) -> Result<(), CliError> {
    let nographic = config.nographic;
    let mut all = |name: &'static str| -> Result<Vec<Chardev>, CliError> {
        given.all(name).map(|value| chardev::parse(name, value, nographic, chardevs)).collect()
    };
    let (serials, debugcons) = (all("serial")?, all("debugcon")?);
    unseen(given, config);
    let iobase = debugcon_port(given)?;
    if debugcons.is_empty() && config.isa.debugcons.is_empty() && iobase.is_some() {
        return Err(CliError::new("-global", "isa-debugcon needs -debugcon"));
    }
    let consoles = debugcons.into_iter().filter(|chardev| *chardev != Chardev::None).map(|chardev| Debugcon {
        plug: Plug::default(),
        iobase: iobase.unwrap_or(DEBUGCON),
        readback: DEBUGCON as u8,
        chardev,
    });
    config.isa.debugcons.extend(consoles);
    let usual = if wanted.0.is_empty() { usual_serial(given, arch, config) } else { Chardev::None };
    let mut serials = serials.into_iter();
    config.serial = serials.next().unwrap_or(usual);
    for (index, chardev) in serials.enumerate() {
        if arch == Arch::Riscv {
            if !matches!(chardev, Chardev::None | Chardev::Null) {
                config.warnings.push("-serial: this machine has one serial port: the others are left out".to_owned());
            }
            continue;
        }
        let port = COM_PORTS.get(index + 1).ok_or_else(|| CliError::new("-serial", FULL))?;
        if chardev != Chardev::None {
            let SerialPort { iobase, irq } = *port;
            config.isa.serials.push(IsaSerial { plug: Plug::default(), iobase, irq, chardev });
        }
    }
    wanted.0.into_iter().try_for_each(|wanted| place(wanted, config))?;
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
    let ports = config.virtio.iter().flat_map(|device| match device {
        VirtioDevice::Console(ports, _) => &ports[..],
        _ => &[],
    });
    ports.filter(|port| is_stdio(&port.chardev)).count()
}

/// How many devices read what is typed at the terminal.
pub(super) fn readers_of_stdio(config: &Config) -> usize {
    let serials = config.isa.serials.iter().map(|serial| &serial.chardev).chain([&config.serial]);
    serials.filter(|chardev| is_stdio(chardev)).count() + consoles_at_stdio(config)
}

/// Checks that no two who read have the terminal, and that nobody has it who would disturb what is drawn there.
fn check_terminal(config: &Config) -> Result<(), CliError> {
    let readers = readers_of_stdio(config);
    let writer = config.isa.debugcons.iter().any(|debugcon| is_stdio(&debugcon.chardev));
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

/// Gives a serial port of `-device` its place: that of its index, or the first that is free.
fn place(wanted: Wanted, config: &mut Config) -> Result<(), CliError> {
    let Wanted { option, plug, index, iobase, irq, chardev } = wanted;
    let first = (config.serial != Chardev::None).then_some(COM_PORTS[0].iobase);
    let taken =
        |port: u16| config.isa.serials.iter().map(|serial| serial.iobase).chain(first).any(|other| other == port);
    let usual = match index {
        Some(index) => COM_PORTS.get(index).copied(),
        None => COM_PORTS.into_iter().find(|port| !taken(port.iobase)),
    };
    let (Some(iobase), Some(irq)) = (iobase.or(usual.map(|usual| usual.iobase)), irq.or(usual.map(|usual| usual.irq)))
    else {
        return Err(CliError::new(option, FULL));
    };
    if taken(iobase) {
        return Err(CliError::new(option, format!("iobase={iobase:#x}: another serial port is there")));
    }
    check_ports(&option, "ports", iobase, 8)?;
    config.isa.serials.push(IsaSerial { plug, iobase, irq, chardev });
    Ok(())
}

/// The port of `-debugcon`, if `-global` moves it.
fn debugcon_port(given: &Given) -> Result<Option<u16>, CliError> {
    let mut port = None;
    for value in given.all("global") {
        if let Some(number) = utf8("global", value)?.strip_prefix("isa-debugcon.iobase=") {
            let parsed = keyval::number(number).and_then(|number| u16::try_from(number).ok());
            port = Some(parsed.ok_or_else(|| CliError::new("-global", format!("'{number}' is not a port")))?);
        }
    }
    Ok(port)
}
