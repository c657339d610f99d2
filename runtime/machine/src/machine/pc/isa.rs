//! What is on a PC's ISA bus besides what every PC has, and where its serial ports' input comes from.

use anyhow::Result;
use mimus_hw::{COM_PORTS, Pc, SerialPort};

use super::super::Parts;
use super::super::input::Input;
use super::super::inventory::{Inventory, Place};
use crate::bus::Outside;
use crate::config::IsaSerial;
use mimus_host::chardev::Source;
use mimus_host::config::{Chardev, Plug};

/// The bus.
const ISA: Place = Place::On("isa.0");

/// Where the input of a serial port comes from.
pub(super) struct Typed {
    index: usize,
    chardev: Chardev,
    source: Option<Source>,
}

impl Typed {
    /// Brings it to the port.
    pub(super) fn connect(self, outside: &Outside) -> Input {
        let Typed { index, chardev, source } = self;
        let outside = outside.clone();
        let deliver = move |bytes: &[u8]| outside.access(|pc, now| pc.serial_receive(index, now, bytes));
        Input { chardev, source, deliver: Box::new(deliver) }
    }
}

/// Plugs in what the configuration names; the serial ports' input.
pub(super) fn plug(parts: &Parts, pc: &mut Pc, inventory: &mut Inventory) -> Result<Vec<Typed>> {
    let (config, mut typed) = (parts.config, Vec::new());
    let SerialPort { iobase, irq } = COM_PORTS[0];
    let first = IsaSerial { plug: Plug::default(), iobase, irq, chardev: config.serial.clone() };
    let first = Some(&first).filter(|first| first.chardev != Chardev::None);
    for IsaSerial { plug, iobase, irq, chardev } in first.into_iter().chain(&config.isa.serials) {
        let (sink, source) = parts.open("-serial", chardev)?;
        let index = pc.plug_serial(SerialPort { iobase: *iobase, irq: *irq }, sink);
        typed.push(Typed { index, chardev: chardev.clone(), source });
        inventory.plain(ISA, "isa-serial", plug, &[("iobase", format!("{iobase:#x}")), ("", format!("isa irq {irq}"))]);
    }
    for debugcon in &config.isa.debugcons {
        pc.plug_debugcon(debugcon.iobase, debugcon.readback, parts.open("-debugcon", &debugcon.chardev)?.0);
        inventory.plain(ISA, "isa-debugcon", &debugcon.plug, &[("iobase", format!("{:#x}", debugcon.iobase))]);
    }
    for exit in &config.isa.debug_exits {
        pc.plug_debug_exit(exit.iobase, exit.iosize);
        let facts = [("iobase", format!("{:#x}", exit.iobase)), ("iosize", exit.iosize.to_string())];
        inventory.plain(ISA, "isa-debug-exit", &exit.plug, &facts);
    }
    if let Some(plug) = &config.isa.testdev {
        pc.plug_testdev();
        inventory.plain(ISA, "pc-testdev", plug, &[]);
    }
    Ok(typed)
}
