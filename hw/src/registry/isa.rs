//! Rows of the registry: devices on the ISA bus that a user plugs in.

use super::property::{Default, Host, ID, Value, Values, accepted, address, host, number, without};
use super::{Bus, Handle, Make, Model, Parts, memory, ports};
use crate::pc::{COM_PORTS, Pc, SerialPort};
use crate::{isa, testdev};

/// I/O ports of a serial port.
const SERIAL_PORTS: u64 = 8;
/// The first port of a device that ends the run, and how many there are.
const EXIT_PORT: u64 = 0x501;
const EXIT_PORTS: u64 = 2;
/// The port of a debug console, and what it reads as.
const DEBUG_PORT: u64 = 0xe9;

/// The port of `pvpanic`.
const PANIC_PORT: u64 = 0x505;

/// The most serial ports that have a usual place, as a user reads it.
pub const TOO_MANY: &str = "a PC has no more than four serial ports, unless iobase= and irq= are given";

/// Ends the run.
const EXIT: &Model = &Model {
    help: "a port that ends the run with exit code (value << 1) | 1",
    properties: &[
        address("iobase", 0, 0xffff, "first I/O port").or(Default::Number(EXIT_PORT)),
        number("iosize", 1, 4, "number of ports").or(Default::Number(EXIT_PORTS)),
        ID,
    ],
    check: |values| ends_in_time(values, "iosize", values.number("iosize").unwrap_or(0)),
    make: Make::Isa(|pc, Parts { values, .. }| {
        pc.plug_debug_exit(values.port("iobase"), values.port("iosize"));
        None
    }),
    windows: &[ports(EXIT_PORT, EXIT_PORTS)],
    fuzz: &["debug-ports"],
    ..Model::on(Bus::Isa, "isa-debug-exit")
};

/// A debug console: bytes written to a port appear on a character device.
pub const DEBUGCON: &Model = &Model {
    help: "a port that sends what is written to it",
    properties: &[
        host("chardev", Host::Output, "where it sends to"),
        address("iobase", 0, 0xffff, "I/O port").or(Default::Number(DEBUG_PORT)),
        address("readback", 0, 0xff, "what the port reads as").or(Default::Number(DEBUG_PORT)),
        ID,
    ],
    make: Make::Isa(|pc, Parts { values, handle, .. }| {
        if let Handle::Chars(chars) = handle {
            pc.plug_debugcon(values.port("iobase"), values.port("readback") as u8, chars);
        }
        None
    }),
    windows: &[ports(DEBUG_PORT, 1)],
    fuzz: &["debug-ports"],
    ..Model::on(Bus::Isa, "isa-debugcon")
};

/// A serial port.
pub const SERIAL: &Model = &Model {
    help: "a serial port",
    properties: &[
        host("chardev", Host::Chardev, "what it is connected to"),
        number("index", 0, 3, "which of the four usual places, default the first free one"),
        address("iobase", 0, 0xffff, "first I/O port"),
        number("irq", 0, 15, "interrupt line"),
        without("baudbase", "the clock's rate is 115200"),
        accepted("wakeup"),
        ID,
    ],
    place: place_serial,
    make: Make::Isa(plug_serial),
    windows: &[ports(COM_PORTS[0].iobase as u64, SERIAL_PORTS)],
    fuzz: &["uart"],
    ..Model::on(Bus::Isa, "isa-serial")
};

/// What tests of kernels use.
const TESTDEV: &Model = &Model {
    help: "ports, memory and interrupt lines for tests of kernels",
    properties: &[ID],
    only_one: Some("its ports are fixed: there can be only one"),
    make: Make::Isa(|pc, _| {
        pc.plug_testdev();
        None
    }),
    windows: &[
        ports(testdev::DATA_PORT as u64, testdev::GROUP as u64),
        ports(testdev::FLUSH_PORT as u64, testdev::GROUP as u64),
        ports(testdev::BYTE_PORT as u64, testdev::GROUP as u64),
        ports(testdev::IRQ_PORT as u64, testdev::IRQ_LINES as u64),
        memory(testdev::MEMORY, testdev::MEMORY_SIZE as u64, 1),
    ],
    fuzz: &["testdevs"],
    ..Model::on(Bus::Isa, "pc-testdev")
};

/// Tells the host that the guest has panicked.
const PVPANIC: &Model = &Model {
    help: "a port by which a guest tells that it has panicked; see -action panic=",
    properties: &[
        address("ioport", 0, 0xffff, "I/O port").or(Default::Number(PANIC_PORT)),
        number("events", 0, 3, "what it says that it understands: 1 a panic, 2 a panic with a dump to come, 3 both")
            .or(Default::Number((isa::PANICKED | isa::CRASH_LOADED) as u64)),
        ID,
    ],
    only_one: Some("drivers look for one"),
    acpi: |values| isa::pvpanic_acpi(values.port("ioport")),
    make: Make::IsaDevice(|values| Box::new(isa::Pvpanic::new(values.port("ioport"), values.port("events") as u8))),
    windows: &[ports(PANIC_PORT, 1)],
    fuzz: &["pvpanic"],
    ..Model::on(Bus::Isa, "pvpanic")
};

/// A watchdog.
const IB700: &Model = &Model {
    help: "a watchdog timer; see -action watchdog=",
    properties: &[ID],
    only_one: Some("its ports are fixed: there can be only one"),
    make: Make::IsaDevice(|_| Box::new(isa::Ib700::default())),
    windows: &[ports(isa::IB700_DISABLE as u64, 1), ports(isa::IB700_ENABLE as u64, 1)],
    fuzz: &["ib700"],
    ..Model::on(Bus::Isa, "ib700")
};

pub(super) const ROWS: &[&Model] = &[EXIT, DEBUGCON, SERIAL, TESTDEV, PVPANIC, IB700];

/// Checks that the last of `count` ports is one; `size` is the property that says how many.
fn ends_in_time(values: &Values, size: &str, count: u64) -> Result<(), String> {
    let iobase = values.number("iobase").unwrap_or(0);
    match iobase + count > 0x1_0000 {
        true => Err(format!("iobase={iobase:#x},{size}={count} reaches past port 0xffff")),
        false => Ok(()),
    }
}

/// Gives a serial port its place: that of its index, or the first that is free.
fn place_serial(values: &mut Values, others: &[&Values]) -> Result<(), String> {
    let model = values.model();
    let serials = others.iter().filter(|other| other.model() == model);
    let taken: Vec<u64> = serials.filter_map(|serial| serial.number("iobase")).collect();
    let usual = match values.number("index").and_then(|index| usize::try_from(index).ok()) {
        Some(index) => COM_PORTS.get(index).copied(),
        None => COM_PORTS.into_iter().find(|port| !taken.contains(&port.iobase.into())),
    };
    let iobase = values.number("iobase").or(usual.map(|usual| usual.iobase.into()));
    let irq = values.number("irq").or(usual.map(|usual| usual.irq.into()));
    let (Some(iobase), Some(irq)) = (iobase, irq) else { return Err(TOO_MANY.to_owned()) };
    if taken.contains(&iobase) {
        return Err(format!("iobase={iobase:#x}: another serial port is there"));
    }
    values.set("iobase", Value::Number(iobase));
    values.set("irq", Value::Number(irq));
    ends_in_time(values, "ports", SERIAL_PORTS)
}

fn plug_serial(pc: &mut Pc, Parts { values, handle, .. }: Parts<'_>) -> Option<usize> {
    let Handle::Chars(chars) = handle else { return None };
    Some(pc.plug_serial(SerialPort { iobase: values.port("iobase"), irq: values.port("irq") as u8 }, chars))
}

#[cfg(test)]
mod tests {
    use super::super::model;
    use super::*;

    #[test]
    fn a_serial_port_gets_the_first_free_place() {
        let serial = model("isa-serial").unwrap();
        let mut placed: Vec<Values> = Vec::new();
        for (index, port) in COM_PORTS.iter().enumerate() {
            let mut values = Values::new(serial);
            (serial.place)(&mut values, &placed.iter().collect::<Vec<_>>()).unwrap();
            assert_eq!((values.port("iobase"), values.port("irq")), (port.iobase, port.irq.into()), "{index}");
            placed.push(values);
        }
        let others: Vec<&Values> = placed.iter().collect();
        let place = |mut values: Values| (serial.place)(&mut values, &others);
        assert_eq!(place(Values::new(serial)), Err(TOO_MANY.to_owned()));
        assert!(place(Values::new(serial).with("iobase", 0x3e8).with("irq", 5)).unwrap_err().contains("another"));
        assert!(place(Values::new(serial).with("iobase", 0xfffc).with("irq", 5)).unwrap_err().contains("0xffff"));
        assert_eq!(place(Values::new(serial).with("iobase", 0x100).with("irq", 5)), Ok(()));
    }
}
