//! Devices and their buses as a tree: `info qtree`.

use std::fmt::Write;

use mimus_hw::pci::{Config, DevFn, INTERRUPT_PIN, Space};
use serde_json::{Value, json};

use super::super::info::{self, Ids};
use super::{Adapter, Attachment, Device, Drive, Inventory, Part, ROOT};

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
        self.bus_text((ROOT, None), 1, pci, &mut out);
        out
    }

    /// The devices of a bus that device number `maker` makes, `depth` steps inwards. No device makes a bus that it is on, so this ends.
    fn bus_text(&self, (bus, maker): (&str, Option<usize>), depth: usize, pci: &[Pci], out: &mut String) {
        let is_on = |device: &Device| match device.place {
            Attachment::Port(controller) => maker == Some(controller),
            place => place.bus() == bus,
        };
        for (index, device) in self.devices.iter().enumerate().filter(|(_, device)| is_on(device)) {
            let (outer, inner) = ("  ".repeat(depth), "  ".repeat(depth + 1));
            let _ = writeln!(out, "{outer}dev: {}, id \"{}\"", device.model.name, device.id);
            for line in self.lines(device, pci) {
                let _ = writeln!(out, "{inner}{line}");
            }
            for (bus, kind) in device.model.buses {
                let _ = writeln!(out, "{inner}bus: {bus}\n{inner}  type {kind}");
                self.bus_text((bus, Some(index)), depth + 2, pci, out);
            }
        }
    }
}

impl Inventory {
    /// Every device for QMP's object model: its path, what it is, and what is said of it.
    pub(super) fn devices_json(&self) -> Value {
        let one = |device: &Device| json!({ "path": self.path(device), "type": device.model.name, "properties": self.properties(device) });
        self.devices.iter().map(one).collect()
    }

    fn properties(&self, device: &Device) -> Value {
        let mut all = json!({ "realized": true, "hotplugged": false, "parent_bus": device.place.bus() });
        if let Attachment::Pci(devfn) = device.place {
            all["addr"] = format!("{:02x}.{:x}", devfn >> 3, devfn & 7).into();
        }
        let facts = device.facts.iter().filter(|(name, _)| !name.is_empty()).cloned();
        for (name, value) in self.contents(device).into_iter().chain(facts) {
            all[name] = value.into();
        }
        all
    }

    /// What is in a device: names of properties, and their text.
    pub(super) fn contents(&self, device: &Device) -> Vec<(&'static str, String)> {
        match &device.part {
            Part::Nothing => Vec::new(),
            Part::Drive(Drive { name, medium, .. }) => {
                let serial = medium.as_ref().map(|medium| ("serial", medium.disk.serial.clone()));
                std::iter::once(("drive", name.clone())).chain(serial).collect()
            }
            Part::Adapter(Adapter { mac, .. }) => {
                let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
                vec![("mac", mac), ("netdev", self.network_of(device))]
            }
        }
    }

    fn lines(&self, device: &Device, pci: &[Pci]) -> Vec<String> {
        let mut lines = Vec::new();
        match device.place {
            Attachment::On(_) | Attachment::Port(_) => {}
            Attachment::Pci(devfn) => {
                lines.push(format!("addr = {:02x}.{:x}", devfn >> 3, devfn & 7));
                lines.extend(pci.iter().filter(|row| row.devfn == devfn).flat_map(|row| row.lines.iter().cloned()));
            }
            Attachment::Ide(place) => lines.push(format!("unit = {}", place.unit)),
            Attachment::Slot(slot) => lines.push(format!("slot = {slot}")),
        }
        lines.extend(self.contents(device).iter().map(|(name, text)| format!("{name} = \"{text}\"")));
        lines.extend(device.facts.iter().map(|(name, value)| match *name {
            "" => value.clone(),
            name => format!("{name} = {value}"),
        }));
        lines
    }
}
