//! The PCI host bridge: configuration mechanism #1 (PCI Local Bus Specification 3.0, 3.2.2.3.2) with a 82441FX at
//! 0:0.0 and nothing else, and the reset control port 0xcf9 (82371SB data sheet, section 2.5.4.3).

use serde::{Deserialize, Serialize};

const ENABLE: u32 = 1 << 31;
const HOST_BRIDGE: u32 = 0;
const CONFIG_SIZE: usize = 256;

/// The defined bytes of the host bridge: offset, reset value, writable bits (82441FX data sheet, table 3).
const HOST_BRIDGE_REGISTERS: &[(u8, u8, u8)] = &[
    (0x00, 0x86, 0),
    (0x01, 0x80, 0),
    (0x02, 0x37, 0),
    (0x03, 0x12, 0),
    // Command: memory and master enable are hardwired; status: medium DEVSEL.
    (0x04, 0x06, 0),
    (0x07, 0x02, 0),
    (0x08, 0x02, 0),
    // Class: host bridge.
    (0x0b, 0x06, 0),
    // Master latency timer.
    (0x0d, 0x00, 0xf8),
    // Configuration, DRAM control and timing.
    (0x50, 0x00, 0xff),
    (0x51, 0x01, 0xff),
    (0x57, 0x01, 0xff),
    (0x58, 0x10, 0xff),
    // Programmable attribute map: all of the upper memory area is RAM, as firmware leaves it.
    (0x59, 0x30, 0xff),
    (0x5a, 0x33, 0xff),
    (0x5b, 0x33, 0xff),
    (0x5c, 0x33, 0xff),
    (0x5d, 0x33, 0xff),
    (0x5e, 0x33, 0xff),
    (0x5f, 0x33, 0xff),
    // System management RAM control.
    (0x72, 0x02, 0x78),
];

/// The host bridge and its bus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pci {
    address: u32,
    host_bridge: Vec<u8>,
    reset_control: u8,
}

impl Pci {
    pub(crate) fn new() -> Self {
        let mut host_bridge = vec![0; CONFIG_SIZE];
        for &(offset, value, _) in HOST_BRIDGE_REGISTERS {
            if let Some(byte) = host_bridge.get_mut(usize::from(offset)) {
                *byte = value;
            }
        }
        Pci { address: 0, host_bridge, reset_control: 0 }
    }

    /// Whether a restored state has the whole configuration space.
    pub(crate) fn is_well_formed(&self) -> bool {
        self.host_bridge.len() == CONFIG_SIZE
    }

    /// Reads `size` bytes at port 0xcf8 + `offset`, offset 0-7.
    pub(crate) fn read(&self, offset: u8, size: u8) -> u32 {
        match (offset, size) {
            (0, 4) => self.address,
            (1, 1) => u32::from(self.reset_control),
            (4..=7, _) => {
                let bytes: Vec<u8> = (0..size).map(|byte| self.config_byte(offset + byte)).collect();
                bytes.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
            }
            _ => u32::MAX,
        }
    }

    /// Writes `size` bytes at port 0xcf8 + `offset`. True when the write asks for a reset of the machine.
    pub(crate) fn write(&mut self, offset: u8, size: u8, value: u32) -> bool {
        match (offset, size) {
            // Only a double word selects an address; anything smaller belongs to other devices.
            (0, 4) => self.address = value & 0x80ff_fffc,
            (1, 1) => {
                let [value, ..] = value.to_le_bytes();
                let reset = value & !self.reset_control & 4 != 0;
                self.reset_control = value & 0x06;
                return reset;
            }
            (4..=7, _) => {
                for (offset, byte) in (offset..offset.saturating_add(size)).zip(value.to_le_bytes()) {
                    self.write_config_byte(offset, byte);
                }
            }
            _ => {}
        }
        false
    }

    /// The register selected by the address and a data port, if the host bridge is addressed. An access that runs
    /// past the data ports reaches nothing.
    fn host_bridge_register(&self, offset: u8) -> Option<usize> {
        let selected = self.address & ENABLE != 0 && self.address >> 8 == ENABLE >> 8 | HOST_BRIDGE;
        (selected && (4..8).contains(&offset)).then(|| (self.address & 0xfc) as usize | usize::from(offset & 3))
    }

    fn config_byte(&self, offset: u8) -> u8 {
        self.host_bridge_register(offset).and_then(|register| self.host_bridge.get(register)).copied().unwrap_or(0xff)
    }

    fn write_config_byte(&mut self, offset: u8, value: u8) {
        let Some(register) = self.host_bridge_register(offset) else {
            return;
        };
        let writable = HOST_BRIDGE_REGISTERS.iter().find(|row| usize::from(row.0) == register).map_or(0, |row| row.2);
        if let Some(byte) = self.host_bridge.get_mut(register) {
            *byte = *byte & !writable | value & writable;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pci: &mut Pci, address: u32) -> u32 {
        pci.write(0, 4, ENABLE | address);
        pci.read(4, 4)
    }

    #[test]
    fn the_host_bridge_is_found_and_nothing_else() {
        let mut p = Pci::new();
        assert_eq!(config(&mut p, 0), 0x1237_8086);
        assert_eq!(config(&mut p, 8), 0x0600_0002);
        for device in 1..32 {
            assert_eq!(config(&mut p, device << 11), u32::MAX);
        }
        assert_eq!(config(&mut p, 1 << 16), u32::MAX);
        p.write(0, 4, 0);
        assert_eq!(p.read(4, 4), u32::MAX, "not enabled");
    }

    #[test]
    fn address_register_takes_double_words_only() {
        let mut p = Pci::new();
        p.write(0, 4, 0x8000_0004);
        p.write(0, 1, 0xff);
        p.write(0, 2, 0xffff);
        assert_eq!(p.read(0, 4), 0x8000_0004);
        assert_eq!(p.read(0, 1), u32::MAX);
    }

    #[test]
    fn parts_of_a_register() {
        let mut p = Pci::new();
        config(&mut p, 0);
        assert_eq!(p.read(6, 2), 0x1237);
        assert_eq!(p.read(5, 1), 0x80);
        assert_eq!(p.read(7, 2), 0xff12, "past the data ports");
        config(&mut p, 0x58);
        p.write(5, 2, 0x1234);
        assert_eq!(p.read(4, 4), 0x3312_3410);
        config(&mut p, 0);
        p.write(4, 4, 0);
        assert_eq!(p.read(4, 4), 0x1237_8086, "identity is read-only");
    }

    #[test]
    fn reset_control_fires_on_the_rise_of_bit_2() {
        let mut p = Pci::new();
        assert!(!p.write(1, 1, 0x02));
        assert!(p.write(1, 1, 0x06));
        assert!(!p.write(1, 1, 0x06));
        assert_eq!(p.read(1, 1), 6);
    }

    #[test]
    fn state_round_trips() {
        let mut p = Pci::new();
        config(&mut p, 0x58);
        p.write(5, 1, 0x77);
        let back: Pci = postcard::from_bytes(&postcard::to_stdvec(&p).unwrap()).unwrap();
        assert_eq!(back, p);
        assert_eq!(back.read(5, 1), 0x77);
    }
}
