//! What firmware is told about a PC: its items and files.

use mimus_softmmu::Dma;

use super::FwCfg;
use crate::acpi_tables::{self, AcpiConfig};
use crate::{low_ram_size, smbios};

/// Numbers of items that have no name.
const RAM_SIZE: u16 = 0x03;
const NO_GRAPHIC: u16 = 0x04;
const CPUS: u16 = 0x05;
const BOOT_MENU: u16 = 0x0e;
const MAX_CPUS: u16 = 0x0f;
const KERNEL_SIZE: u16 = 0x08;
const INITRD_ADDRESS: u16 = 0x0a;
const INITRD_SIZE: u16 = 0x0b;
const KERNEL_DATA: u16 = 0x11;
const INITRD_DATA: u16 = 0x12;
const CMDLINE_ADDRESS: u16 = 0x13;
const CMDLINE_SIZE: u16 = 0x14;
const CMDLINE_DATA: u16 = 0x15;
const SETUP_ADDRESS: u16 = 0x16;
const SETUP_SIZE: u16 = 0x17;
const SETUP_DATA: u16 = 0x18;
const KERNEL_ADDRESS: u16 = 0x07;
const IRQ0_OVERRIDE: u16 = 0x8002;

/// Types of memory in the map (ACPI specification 6.5, 15).
const E820_RAM: u32 = 1;
/// RAM above the hole begins here.
const HIGH_RAM: u64 = 1 << 32;

/// The first serial port.
const COM1: u16 = crate::uart::COM1.base;

/// What firmware is to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirmwareConfig {
    /// RAM in bytes.
    pub ram_size: u64,
    /// What the ACPI tables say.
    pub acpi: AcpiConfig,
    /// Show the boot menu and wait for so many milliseconds.
    pub boot_menu: Option<u32>,
    /// The serial port is the console.
    pub serial_console: bool,
    /// OpenFirmware paths of devices to boot from, the first one first.
    pub boot_paths: Vec<String>,
}

/// The device with what every PC has.
pub fn fw_cfg(mem: Dma, config: &FirmwareConfig) -> FwCfg {
    let mut device = FwCfg::new(mem);
    let cpus = u16::from(config.acpi.cpus.max(1)).to_le_bytes().to_vec();
    device.add(RAM_SIZE, config.ram_size.to_le_bytes().to_vec());
    device.add(NO_GRAPHIC, u16::from(config.serial_console).to_le_bytes().to_vec());
    device.add(CPUS, cpus.clone());
    device.add(MAX_CPUS, cpus);
    device.add(BOOT_MENU, u16::from(config.boot_menu.is_some()).to_le_bytes().to_vec());
    device.add(IRQ0_OVERRIDE, 1u32.to_le_bytes().to_vec());
    device.add_file("etc/e820", memory_map(config.ram_size));
    let tables = acpi_tables::loadable(config.acpi);
    for (name, bytes) in tables {
        device.add_file(name, bytes);
    }
    let (anchor, structures) = smbios::build(config.ram_size, config.acpi.cpus);
    device.add_file("etc/smbios/smbios-anchor", anchor);
    device.add_file("etc/smbios/smbios-tables", structures);
    // S3 and S4 are not there; S5 is by the first of the sleep types.
    device.add_file("etc/system-states", vec![128, 0, 0, 1, 2, 128 | crate::acpi_pm::S5_SLEEP_TYPE]);
    if let Some(wait) = config.boot_menu {
        device.add_file("etc/boot-menu-wait", wait.to_le_bytes().to_vec());
    }
    if config.serial_console {
        device.add_file("etc/sercon-port", u64::from(COM1).to_le_bytes().to_vec());
    }
    if !config.boot_paths.is_empty() {
        let mut order = config.boot_paths.join("\n").into_bytes();
        order.push(0);
        device.add_file("bootorder", order);
    }
    device
}

/// The memory map: address, length and type of each piece of RAM.
fn memory_map(ram_size: u64) -> Vec<u8> {
    let low = low_ram_size(ram_size);
    let pieces = [(0, low), (HIGH_RAM, ram_size - low)];
    pieces.into_iter().filter(|(_, size)| *size != 0).fold(Vec::new(), |mut map, (address, size)| {
        map.extend(address.to_le_bytes());
        map.extend(size.to_le_bytes());
        map.extend(E820_RAM.to_le_bytes());
        map
    })
}

/// A Linux kernel that firmware hands to a boot loader in an option ROM: the kernel's real-mode part and the rest, where each is
/// to be loaded, and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinuxFiles {
    /// The real-mode part, with the header filled in, and its address.
    pub setup: (u32, Vec<u8>),
    /// The rest and its address.
    pub kernel: (u32, Vec<u8>),
    /// The initial RAM disk and its address.
    pub initrd: (u32, Vec<u8>),
    /// The command line, with its terminator, and its address.
    pub cmdline: (u32, Vec<u8>),
}

/// Adds a Linux kernel's items.
pub fn add_linux(device: &mut FwCfg, files: LinuxFiles) {
    for (address_key, size_key, data_key, (address, bytes)) in [
        (SETUP_ADDRESS, SETUP_SIZE, SETUP_DATA, files.setup),
        (KERNEL_ADDRESS, KERNEL_SIZE, KERNEL_DATA, files.kernel),
        (INITRD_ADDRESS, INITRD_SIZE, INITRD_DATA, files.initrd),
        (CMDLINE_ADDRESS, CMDLINE_SIZE, CMDLINE_DATA, files.cmdline),
    ] {
        device.add(address_key, address.to_le_bytes().to_vec());
        device.add(size_key, (bytes.len() as u32).to_le_bytes().to_vec());
        device.add(data_key, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_beyond_the_hole_is_a_piece_of_its_own() {
        assert_eq!(memory_map(512 << 20).len(), 20);
        let map = memory_map(5 << 30);
        assert_eq!(map.len(), 40);
        assert_eq!(map[20..28], HIGH_RAM.to_le_bytes());
        assert_eq!(map[28..36], (2u64 << 30).to_le_bytes());
    }
}
