//! What a monitor is told of a PC's devices.

use std::fmt::Write;

use mimus_hw::pci::{Config, DevFn, INTERRUPT_LINE, INTERRUPT_PIN, Space};
use serde_json::{Value, json};

/// Names of classes and subclasses (PCI Code and ID Assignment Specification 1.11, 1).
const CLASSES: &[(u16, &str)] = &[
    (0x0100, "SCSI controller"),
    (0x0101, "IDE controller"),
    (0x0180, "Storage controller"),
    (0x0200, "Ethernet controller"),
    (0x0300, "VGA controller"),
    (0x0600, "Host bridge"),
    (0x0601, "ISA bridge"),
    (0x0680, "Bridge"),
    (0x0780, "Communication controller"),
];

/// Offsets of a configuration space (PCI Local Bus Specification 3.0, 6.1).
const VENDOR: u8 = 0x00;
const DEVICE: u8 = 0x02;
const CLASS: u8 = 0x0a;
const SUBSYSTEM_VENDOR: u8 = 0x2c;
const SUBSYSTEM: u8 = 0x2e;

fn class_name(class: u16) -> String {
    let known = CLASSES.iter().find(|(number, _)| *number == class);
    known.map_or_else(|| format!("Class {class:04x}"), |(_, name)| (*name).to_owned())
}

/// The functions of bus 0 as QEMU's `info pci` shows them.
pub(super) fn pci_text<'a>(functions: impl Iterator<Item = (DevFn, &'a Config)>) -> String {
    let mut out = String::new();
    for (devfn, config) in functions {
        let _ = writeln!(out, "  Bus  0, device {:3}, function {}:", devfn >> 3, devfn & 7);
        let (vendor, device) = (config.u16(VENDOR), config.u16(DEVICE));
        let _ = writeln!(out, "    {}: PCI device {vendor:04x}:{device:04x}", class_name(config.u16(CLASS)));
        let subsystem = (config.u16(SUBSYSTEM_VENDOR), config.u16(SUBSYSTEM));
        if subsystem != (0, 0) {
            let _ = writeln!(out, "      PCI subsystem {:04x}:{:04x}", subsystem.0, subsystem.1);
        }
        if let pin @ 1..=4 = config.u8(INTERRUPT_PIN) {
            let _ = writeln!(out, "      IRQ {}, pin {}", config.u8(INTERRUPT_LINE), char::from(b'A' + pin - 1));
        }
        for window in config.windows() {
            let (bar, base, last) = (window.bar, window.base, window.base + (window.size - 1));
            let _ = match window.space {
                Space::Io => writeln!(out, "      BAR{bar}: I/O at 0x{base:04x} [0x{last:04x}]."),
                Space::Memory => writeln!(out, "      BAR{bar}: 32 bit memory at 0x{base:08x} [0x{last:08x}]."),
            };
        }
        out.push_str("      id \"\"\n");
    }
    out
}

/// The same for QMP's `query-pci`.
pub(super) fn pci_json<'a>(functions: impl Iterator<Item = (DevFn, &'a Config)>) -> Value {
    let region = |window: mimus_hw::pci::Window| {
        let space = if window.space == Space::Io { "io" } else { "memory" };
        json!({ "bar": window.bar, "type": space, "address": window.base, "size": window.size })
    };
    let device = |(devfn, config): (DevFn, &Config)| {
        let class = config.u16(CLASS);
        json!({
            "bus": 0,
            "slot": devfn >> 3,
            "function": devfn & 7,
            "class_info": { "class": class, "desc": class_name(class) },
            "id": { "vendor": config.u16(VENDOR), "device": config.u16(DEVICE) },
            "irq": config.u8(INTERRUPT_LINE),
            "irq_pin": config.u8(INTERRUPT_PIN),
            "qdev_id": "",
            "regions": config.windows().map(region).collect::<Value>(),
        })
    };
    json!([{ "bus": 0, "devices": functions.map(device).collect::<Value>() }])
}
