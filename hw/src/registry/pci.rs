//! Functions on the PCI bus that are not virtio devices.

use super::property::{BOOT_INDEX, ID, accepted, among, fixed, not_yet, number, properties, text, without, word};
use super::virtio::NETWORK;
use super::{Bus, Handle, Make, Model, Property, memory, ports};
use crate::e1000::E1000 as E1000Adapter;
use crate::pci::PciTestdev;

/// A function's place on the bus.
pub const ADDR: Property = text("addr", "SLOT, in hexadecimal", "its place on the bus, default the first free one");
const BUS: Property = word("bus", &["pci.0"], "the bus");

/// What every function has.
pub(super) const FUNCTION: &[Property] = &[
    ID,
    ADDR,
    BUS,
    without("acpi-index", "the guest finds no such number"),
    accepted("command_serr_enable"),
    fixed("multifunction", "off"),
    // Devices have no ROM: an empty name is what they have.
    among("rombar", &["0", "off"]),
    fixed("romfile", ""),
    accepted("x-pcie-extcap-init"),
    accepted("x-pcie-lnksta-dllla"),
];

const E1000_PROPERTIES: &[Property] = &[
    BOOT_INDEX,
    accepted("autonegotiation"),
    accepted("extra_mac_registers"),
    accepted("init-vet"),
    accepted("migrate_tso_props"),
    accepted("mitigation"),
];

const VGA_PROPERTIES: &[Property] = &[
    ID,
    number("vgamem_mb", 1, 256, "MiB of display memory, a power of two"),
    word("edid", &["on", "off"], "whether the monitor tells of itself"),
    number("xres", 64, 2560, "its width"),
    number("yres", 64, 1600, "its height"),
    BUS,
    // Firmware knows it there.
    among("addr", &["0x2", "2", "02", "2.0", "0x2.0"]),
    accepted("big-endian-framebuffer"),
    accepted("mmio"),
    accepted("qemu-extended-regs"),
    accepted("refresh_rate"),
    among("rombar", &["0", "off"]),
    fixed("romfile", ""),
    accepted("xmax"),
    accepted("ymax"),
];

/// What tests of kernels use.
const TESTDEV: &Model = &Model {
    help: "a PCI function for tests of single accesses",
    properties: properties!(FUNCTION, &[not_yet("membar")]),
    make: Make::Function(|_| Some(Box::new(PciTestdev::new()))),
    fuzz: &["testdevs"],
    ..Model::on(Bus::Pci, "pci-testdev")
};

/// A network adapter.
pub const E1000: &Model = &Model {
    aliases: &["e1000-82540em"],
    help: "a network adapter, Intel 82540EM",
    properties: properties!(NETWORK, FUNCTION, E1000_PROPERTIES),
    make: Make::Function(|parts| match parts.handle {
        Handle::Network(mac, peer) => Some(Box::new(E1000Adapter::new(parts.mem, mac, peer))),
        _ => None,
    }),
    fuzz: &["e1000"],
    ..Model::on(Bus::Pci, "e1000")
};

/// The display adapter.
pub const VGA: &Model = &Model {
    help: "the display adapter; -vga std",
    properties: VGA_PROPERTIES,
    windows: &[ports(0x3b0, 48), ports(0x1ce, 2), memory(0xa_0000, 0x2_0000, 1)],
    fuzz: &["vga"],
    ..Model::on(Bus::Pci, "VGA")
};

pub(super) const ROWS: &[&Model] = &[TESTDEV, E1000, VGA];
