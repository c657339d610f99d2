//! What is on a PC's ISA bus besides what every PC has, and where its serial ports' input comes from.

use anyhow::Result;
use mimus_hw::Pc;
use mimus_hw::registry::Bus;

use super::super::Parts;
use super::super::host_side::{self, Unstarted};
use super::super::input::Input;
use super::super::inventory::{Attachment, Inventory};
use crate::bus::DeviceHandle;
use mimus_host::chardev::Source;
use mimus_host::config::Chardev;

/// The bus.
const ISA: Attachment = Attachment::On("isa.0");

/// Where the input of a serial port comes from.
pub(super) struct Typed {
    index: usize,
    chardev: Chardev,
    source: Option<Source>,
}

impl Typed {
    /// Brings it to the port.
    pub(super) fn connect(self, devices: &DeviceHandle) -> Input {
        let Typed { index, chardev, source } = self;
        let devices = devices.clone();
        let deliver = move |bytes: &[u8]| devices.access(|pc, now| pc.serial_receive(index, now, bytes));
        Input { chardev, source, deliver: Box::new(deliver) }
    }
}

/// Plugs in what the configuration names; the serial ports' input.
pub(super) fn plug(parts: &Parts, pc: &mut Pc, inventory: &mut Inventory) -> Result<Vec<Typed>> {
    let mut typed = Vec::new();
    for device in parts.config.devices.iter().filter(|device| device.model.bus == Bus::Isa) {
        let (parts, host) = host_side::parts(parts, device)?;
        if let (Some(index), Unstarted::Chars(chardev, source)) = (device.model.plug_isa(pc, parts), host) {
            typed.push(Typed { index, chardev, source });
        }
        let line = device.values.number("irq").map(|irq| ("", format!("isa irq {irq}")));
        let facts: Vec<_> = device.values.told().chain(line).collect();
        inventory.plain(ISA, device.model, &device.plug, &facts);
    }
    Ok(typed)
}
