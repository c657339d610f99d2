//! Devices and their buses as a tree: `info qtree`.

use std::fmt::Write;

use mimus_hw::pci::{Config, DevFn, INTERRUPT_PIN, Space};

use super::super::info::{self, Ids};
use super::{Adapter, Device, Drive, Inventory, Part, Place, ROOT};

/// A function of the PCI bus as its configuration space tells it, a line a fact.
#[derive(Debug)]
pub(in crate::machine) struct Pci {
    devfn: DevFn,
    lines: Vec<String>,
}

impl Pci {
    /// Reads a configuration space.
    pub fn new(devfn: DevFn, config: &Config) -> Pci {
        let Ids { class, vendor, device, subsystem } = Ids::of(config);
        let (slot, function, name) = (devfn >> 3, devfn & 7, info::class_name(class));
        let mut lines = vec![format!(
            "class {name}, addr 00:{slot:02x}.{function:x}, pci id {vendor:04x}:{device:04x} (sub {:04x}:{:04x})",
            subsystem.0, subsystem.1
        )];
        if let pin @ 1..=4 = config.u8(INTERRUPT_PIN) {
            lines.push(format!("interrupt pin {}", char::from(b'A' + pin - 1)));
        }
        lines.extend(config.windows().map(|window| {
            let space = if window.space == Space::Io { "i/o" } else { "mem" };
            let last = window.base.saturating_add(window.size - 1);
            format!("bar {}: {space} at {:#x} [{last:#x}]", window.bar, window.base)
        }));
        Pci { devfn, lines }
    }
}

impl Inventory {
    pub(super) fn tree_text(&self, pci: &[Pci]) -> String {
        let mut out = String::from("bus: main-system-bus\n  type System\n");
        self.bus_text(ROOT, 1, pci, &mut out);
        out
    }

    /// The devices of a bus, `depth` steps inwards. No device makes a bus that it is on, so this ends.
    fn bus_text(&self, bus: &str, depth: usize, pci: &[Pci], out: &mut String) {
        for device in self.devices.iter().filter(|device| device.place.bus() == bus) {
            let (outer, inner) = ("  ".repeat(depth), "  ".repeat(depth + 1));
            let _ = writeln!(out, "{outer}dev: {}, id \"{}\"", device.driver, device.id);
            for line in device.lines(pci) {
                let _ = writeln!(out, "{inner}{line}");
            }
            for (bus, kind) in device.buses {
                let _ = writeln!(out, "{inner}bus: {bus}\n{inner}  type {kind}");
                self.bus_text(bus, depth + 2, pci, out);
            }
        }
    }
}

impl Device {
    fn lines(&self, pci: &[Pci]) -> Vec<String> {
        let mut lines = Vec::new();
        match self.place {
            Place::On(_) => {}
            Place::Pci(devfn) => {
                lines.push(format!("addr = {:02x}.{:x}", devfn >> 3, devfn & 7));
                lines.extend(pci.iter().filter(|row| row.devfn == devfn).flat_map(|row| row.lines.iter().cloned()));
            }
            Place::Ide(place) => lines.push(format!("unit = {}", place.unit)),
            Place::Slot(slot) => lines.push(format!("slot = {slot}")),
        }
        match &self.part {
            Part::Nothing => {}
            Part::Drive(Drive { name, medium, .. }) => {
                lines.push(format!("drive = \"{name}\""));
                lines.extend(medium.iter().map(|medium| format!("serial = \"{}\"", medium.disk.serial)));
            }
            Part::Adapter(Adapter { mac, netdev, .. }) => {
                lines.push(format!("mac = \"{}\"", mac.map(|byte| format!("{byte:02x}")).join(":")));
                lines.extend(netdev.iter().map(|netdev| format!("netdev = \"{}\"", netdev.id)));
            }
        }
        lines.extend(self.facts.iter().map(|(name, value)| match *name {
            "" => value.clone(),
            name => format!("{name} = {value}"),
        }));
        lines
    }
}
