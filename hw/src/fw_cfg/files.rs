//! What firmware is told about a PC: its items and files.

use mimus_softmmu::Dma;

use super::FwCfg;
use crate::acpi_tables::AcpiConfig;
use crate::smbios::{self, SmbiosConfig};
use crate::{acpi_pm, low_ram_size};

/// Numbers of items that have no name.
const RAM_SIZE: u16 = 0x03;
const NO_GRAPHIC: u16 = 0x04;
const CPUS: u16 = 0x05;
const BOOT_MENU: u16 = 0x0e;
const MAX_CPUS: u16 = 0x0f;
const IRQ0_OVERRIDE: u16 = 0x8002;

/// Types of memory in the map (ACPI specification 6.5, 15).
const E820_RAM: u32 = 1;
/// RAM above the hole begins here.
const HIGH_RAM: u64 = 1 << 32;

/// The first serial port.
const COM1: u16 = crate::pc::COM_PORTS[0].iobase;

/// What firmware is to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirmwareConfig {
    /// RAM in bytes.
    pub ram_size: u64,
    /// What the ACPI tables say.
    pub acpi: AcpiConfig,
    /// What the SMBIOS structures say.
    pub smbios: SmbiosConfig,
    /// Show the boot menu and wait for so many milliseconds.
    pub boot_menu: Option<u32>,
    /// The serial port is the console.
    pub serial_console: bool,
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
    device.add_acpi(config.acpi.clone());
    let (anchor, structures) = smbios::build(&config.smbios);
    device.add_file("etc/smbios/smbios-anchor", anchor);
    device.add_file("etc/smbios/smbios-tables", structures);
    device.add_file("etc/system-states", sleep_states(config.acpi.sleeps));
    if let Some(wait) = config.boot_menu {
        device.add_file("etc/boot-menu-wait", wait.to_le_bytes().to_vec());
    }
    if config.serial_console {
        device.add_file("etc/sercon-port", u64::from(COM1).to_le_bytes().to_vec());
    }
    device
}

/// The sleep states from S0 to S5, each with its sleep type, and bit 7 where it is there.
fn sleep_states([to_ram, to_disk]: [bool; 2]) -> Vec<u8> {
    let state = |sleep_type: u8, there: bool| sleep_type | if there { 0x80 } else { 0 };
    vec![
        state(0, true),
        0,
        0,
        state(acpi_pm::S3_SLEEP_TYPE, to_ram),
        state(acpi_pm::S4_SLEEP_TYPE, to_disk),
        state(acpi_pm::S5_SLEEP_TYPE, true),
    ]
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
