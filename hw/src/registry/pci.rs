//! Rows of the registry: functions on the PCI bus that are not virtio devices.

use super::property::{
    BOOT_INDEX, Default, ID, accepted, among, fixed, not_yet, number, properties, text, without, word,
};
use super::virtio::NETWORK;
use super::{Bus, Handle, Make, Model, Parts, Property, memory, range};
use crate::e1000::E1000 as E1000Adapter;
use crate::pci::{Function, PciTestdev};
use crate::vga::{LARGEST_MODE, NATIVE_MODE, PORTS, StdVga, VBE_PORTS, VRAM_SIZE, WINDOW, WINDOW_SIZE, edid};

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
    accepted("romsize"),
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

/// The fewest pixels, of width or height, that are of any use.
const LEAST_PIXELS: u64 = 64;

const VGA_PROPERTIES: &[Property] = &[
    ID,
    number("vgamem_mb", 1, 256, "MiB of display memory, a power of two").or(Default::Number(VRAM_SIZE >> 20)),
    word("edid", &["on", "off"], "whether the monitor tells of itself").or(Default::Word("on")),
    number("xres", LEAST_PIXELS, LARGEST_MODE.0 as u64, "its width").or(Default::Number(NATIVE_MODE.0 as u64)),
    number("yres", LEAST_PIXELS, LARGEST_MODE.1 as u64, "its height").or(Default::Number(NATIVE_MODE.1 as u64)),
    BUS,
    // Firmware knows it there.
    among("addr", &["0x2", "2", "02", "2.0", "0x2.0"]),
    without("acpi-index", "the guest finds no such number"),
    accepted("big-endian-framebuffer"),
    accepted("global-vmstate"),
    accepted("mmio"),
    fixed("multifunction", "off"),
    accepted("qemu-extended-regs"),
    accepted("refresh_rate"),
    among("rombar", &["0", "off"]),
    fixed("romfile", ""),
    accepted("romsize"),
    accepted("x-pcie-extcap-init"),
    accepted("x-pcie-lnksta-dllla"),
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
    only_one: Some("more than one display adapter is not supported yet"),
    check: |values| match values.number("vgamem_mb") {
        Some(mib) if !mib.is_power_of_two() => Err(format!("vgamem_mb={mib} is not a power of two")),
        _ => Ok(()),
    },
    make: Make::Function(vga),
    windows: &[range(PORTS), range(VBE_PORTS), memory(WINDOW, WINDOW_SIZE, 1)],
    fuzz: &["vga"],
    ..Model::on(Bus::Pci, "VGA")
};

pub(super) const ROWS: &[&Model] = &[TESTDEV, E1000, VGA];

fn vga(Parts { values, handle, .. }: Parts<'_>) -> Option<Box<dyn Function>> {
    let Handle::Display(vram, rom) = handle else { return None };
    let mut adapter = StdVga::new(vram, rom);
    adapter.vga_mut().set_edid(values.is_on("edid").then(|| edid(values.port("xres"), values.port("yres"))));
    Some(Box::new(adapter))
}
