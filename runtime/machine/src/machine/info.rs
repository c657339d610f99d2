//! Texts of `info pci`, `info mtree` and their kin, and the JSON of `query-pci`.

use std::fmt::Write;

use mimus_hw::Pc;
use mimus_hw::pci::{Config, DevFn, INTERRUPT_LINE, INTERRUPT_PIN, Space};
use mimus_softmmu::{Backing, Route};
use serde_json::{Value, json};

use crate::memory_map::Piece;

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

pub(super) fn class_name(class: u16) -> String {
    let known = CLASSES.iter().find(|(number, _)| *number == class);
    known.map_or_else(|| format!("Class {class:04x}"), |(_, name)| (*name).to_owned())
}

/// Who a function says it is.
pub(super) struct Ids {
    /// Class and subclass.
    pub class: u16,
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
    /// Subsystem's vendor and number.
    pub subsystem: (u16, u16),
}

impl Ids {
    /// Reads a configuration space.
    pub fn of(config: &Config) -> Ids {
        Ids {
            class: config.u16(CLASS),
            vendor: config.u16(VENDOR),
            device: config.u16(DEVICE),
            subsystem: (config.u16(SUBSYSTEM_VENDOR), config.u16(SUBSYSTEM)),
        }
    }
}

/// The functions of bus 0 as QEMU's `info pci` shows them.
pub(super) fn pci_text<'a>(
    functions: impl Iterator<Item = (DevFn, &'a Config)>,
    id: impl Fn(DevFn) -> String,
) -> String {
    let mut out = String::new();
    for (devfn, config) in functions {
        let _ = writeln!(out, "  Bus  0, device {:3}, function {}:", devfn >> 3, devfn & 7);
        let Ids { class, vendor, device, subsystem } = Ids::of(config);
        let _ = writeln!(out, "    {}: PCI device {vendor:04x}:{device:04x}", class_name(class));
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
        let _ = writeln!(out, "      id \"{}\"", id(devfn));
    }
    out
}

/// The same for QMP's `query-pci`.
pub(super) fn pci_json<'a>(
    functions: impl Iterator<Item = (DevFn, &'a Config)>,
    id: impl Fn(DevFn) -> String,
) -> Value {
    let region = |window: mimus_hw::pci::Window| {
        let space = if window.space == Space::Io { "io" } else { "memory" };
        json!({ "bar": window.bar, "type": space, "address": window.base, "size": window.size })
    };
    let device = |(devfn, config): (DevFn, &Config)| {
        let Ids { class, vendor, device, .. } = Ids::of(config);
        json!({
            "bus": 0,
            "slot": devfn >> 3,
            "function": devfn & 7,
            "class_info": { "class": class, "desc": class_name(class) },
            "id": { "vendor": vendor, "device": device },
            "irq": config.u8(INTERRUPT_LINE),
            "irq_pin": config.u8(INTERRUPT_PIN),
            "qdev_id": id(devfn),
            "regions": config.windows().map(region).collect::<Value>(),
        })
    };
    json!([{ "bus": 0, "devices": functions.map(device).collect::<Value>() }])
}

/// A range of guest-physical memory or ports: first and last address, kind, name.
type Range = (u64, u64, &'static str, String);

fn ranges_text(out: &mut String, title: &str, (last, root): (u64, &str), mut ranges: Vec<Range>) {
    ranges.sort();
    let _ = writeln!(out, "address-space: {title}\n  {:016x}-{last:016x} (prio 0, i/o): {root}", 0);
    for (first, last, kind, name) in ranges {
        let priority = if kind == "ram" { 0 } else { 1 };
        let _ = writeln!(out, "    {first:016x}-{last:016x} (prio {priority}, {kind}): {name}");
    }
    out.push('\n');
}

/// What is at which address of a PC as QEMU's `info mtree` shows it: `ram` by first address and size, what the chipset says
/// of the rest, and what `name` calls the functions of bus 0.
pub(super) fn address_text(pc: &Pc, ram: &[(u64, u64)], pieces: &[Piece], name: impl Fn(DevFn) -> String) -> String {
    let named = |range: mimus_hw::pci::Range| {
        let what = match range.bar {
            Some(bar) => format!("{} bar {bar}", name(range.devfn)),
            None => name(range.devfn),
        };
        (range.base, range.last, "i/o", what)
    };
    let of = |space: Space| pc.pci_ranges().filter(move |range| range.space == space).map(named);
    let mut memory: Vec<Range> = of(Space::Memory).collect();
    let names = ["ram-below-4g", "ram-above-4g"];
    let own = ram.iter().zip(names).map(|(&(base, size), name)| (base, base + (size - 1), "ram", name.to_owned()));
    memory.extend(own);
    memory.extend(pieces.iter().map(|&(base, size, backing)| {
        let (kind, name) = match backing {
            Backing { read: Route::Device, write: Route::Device } => ("i/o", "pci-hole"),
            Backing { read: Route::Own, write: Route::Own } => ("ram", "pam-ram"),
            Backing { write: Route::Device, .. } => ("rom", "rom"),
            _ => ("ram", "pam-write-only"),
        };
        (base, base + (size - 1), kind, name.to_owned())
    }));
    memory.push((0xfec0_0000, 0xfec0_0fff, "i/o", "ioapic".to_owned()));
    let apic = pc.interrupts().apic_base(0) & 0x000f_ffff_ffff_f000;
    memory.push((apic, apic + 0xfff, "i/o", "apic-msi".to_owned()));
    let ports = pc.port_ranges().map(|(first, last, name)| (first.into(), last.into(), "i/o", name.to_owned()));
    let mut out = String::new();
    ranges_text(&mut out, "memory", (u64::MAX, "system"), memory);
    ranges_text(&mut out, "I/O", (0xffff, "io"), ports.chain(of(Space::Io)).collect());
    out
}
