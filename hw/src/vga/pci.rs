//! The adapter as a PCI function: QEMU's `VGA` (QEMU's documentation, "QEMU Standard VGA").

use std::sync::Arc;

use mimus_softmmu::Vram;

use super::{PORTS, VBE_PORTS, Vga, VgaState, WINDOW, WINDOW_SIZE};
use crate::pci::{BarKind, Config, Fixed, Function, Identity, ROM_BAR, Space};

/// Where QEMU has it: device 2.
pub const DEVFN: u8 = 2 << 3;

const IDENTITY: Identity =
    Identity { vendor: 0x1234, device: 0x1111, revision: 2, class: 0x03_0000, subsystem: (0x1af4, 0x1100) };

/// Base address registers: display memory, registers in memory.
const MEMORY_BAR: usize = 0;
const REGISTERS_BAR: usize = 2;
const REGISTERS_SIZE: u64 = 0x1000;

/// The least size of an expansion ROM's base address register, in bytes.
const ROM_LEAST: usize = 2048;
/// The largest: 64 KiB is what fits below 1 MiB.
const ROM_MOST: usize = 1 << 20;

/// A VGA on the PCI bus.
pub struct StdVga {
    config: Config,
    vga: Vga,
    rom: Vec<u8>,
}

impl StdVga {
    /// An adapter with this display memory, whose size is a power of two, and its video BIOS (at most 1 MiB), if there is one.
    pub fn new(vram: Arc<Vram>, rom: Option<Vec<u8>>) -> StdVga {
        let mut config = Config::new(IDENTITY).with_bar(MEMORY_BAR, BarKind::Prefetchable, vram.len()).with_bar(
            REGISTERS_BAR,
            BarKind::Memory,
            REGISTERS_SIZE,
        );
        let mut rom = rom.unwrap_or_default();
        rom.truncate(ROM_MOST);
        if !rom.is_empty() {
            let size = rom.len().max(ROM_LEAST).next_power_of_two();
            config = config.with_bar(ROM_BAR, BarKind::Rom, size as u64);
        }
        StdVga { config, vga: Vga::new(vram), rom }
    }

    /// The adapter itself.
    pub fn vga(&self) -> &Vga {
        &self.vga
    }

    /// The adapter itself.
    pub fn vga_mut(&mut self) -> &mut Vga {
        &mut self.vga
    }

    /// Where the guest sees display memory at present, as a guest-physical address.
    pub fn memory_window(&self) -> Option<u64> {
        self.config.windows().find(|window| window.bar == MEMORY_BAR).map(|window| window.base)
    }
}

impl Function for StdVga {
    fn config(&self) -> &Config {
        &self.config
    }

    fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    fn bar_read(&mut self, now: u64, bar: usize, offset: u64, size: u8) -> u64 {
        match bar {
            MEMORY_BAR => self.vga.vram.read(offset, size),
            REGISTERS_BAR => self.vga.read_mmio(now, offset, size),
            _ => {
                let byte = |at: u64| usize::try_from(at).ok().and_then(|at| self.rom.get(at)).copied().unwrap_or(0);
                (0..u64::from(size.min(8))).rev().fold(0, |value, at| value << 8 | u64::from(byte(offset + at)))
            }
        }
    }

    fn bar_write(&mut self, _now: u64, bar: usize, offset: u64, size: u8, value: u64) {
        match bar {
            MEMORY_BAR => self.vga.vram.write(offset, size, value),
            REGISTERS_BAR => self.vga.write_mmio(offset, size, value),
            _ => {}
        }
    }

    fn display_bar(&self) -> Option<usize> {
        Some(MEMORY_BAR)
    }

    /// What every VGA answers to, wherever it is.
    fn fixed(&self) -> Vec<Fixed> {
        let ports = |(first, last): (u16, u16)| Fixed {
            space: Space::Io,
            base: first.into(),
            size: u64::from(last - first) + 1,
        };
        vec![ports(PORTS), ports(VBE_PORTS), Fixed { space: Space::Memory, base: WINDOW, size: WINDOW_SIZE }]
    }

    fn fixed_read(&mut self, now: u64, index: usize, offset: u64, size: u8) -> u64 {
        match index {
            0 => {
                let ports = (PORTS.0 + offset as u16..=PORTS.1).take(size.into());
                let bytes = ports.map(|port| self.vga.read_port(now, port));
                let read = bytes.zip(0u32..).fold(0, |value, (byte, at)| value | u64::from(byte) << (8 * at));
                // All ones where the ports end.
                let missing = (offset as u16 + u16::from(size)).saturating_sub(PORTS.1 - PORTS.0 + 1);
                read | u64::MAX.checked_shl(8 * u32::from(u16::from(size) - missing)).unwrap_or(0)
            }
            1 => u64::from(self.vga.read_vbe_port(VBE_PORTS.0 + offset as u16)) | 0xffff_0000,
            _ => self.vga.read_window(offset, size),
        }
    }

    fn fixed_write(&mut self, _now: u64, index: usize, offset: u64, size: u8, value: u64) {
        match index {
            0 => {
                let ports = (PORTS.0 + offset as u16..=PORTS.1).take(size.into());
                ports.zip(value.to_le_bytes()).for_each(|(port, byte)| self.vga.write_port(port, byte));
            }
            1 => self.vga.write_vbe_port(VBE_PORTS.0 + offset as u16, value as u16),
            _ => self.vga.write_window(offset, size, value),
        }
    }

    fn reset(&mut self) {
        self.vga.reset();
    }

    fn save(&self) -> Vec<u8> {
        postcard::to_stdvec(&self.vga.save()).unwrap_or_default()
    }

    fn fits(&self, data: &[u8]) -> bool {
        postcard::from_bytes::<VgaState>(data).is_ok_and(|state| self.vga.fits(&state))
    }

    fn restore(&mut self, data: &[u8]) {
        if let Ok(state) = postcard::from_bytes(data) {
            self.vga.restore(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vga::VRAM_SIZE;
    use crate::{Pc, PcConfig};

    fn pc() -> (Pc, Arc<Vram>) {
        let config = PcConfig { ram_size: 64 << 20, tsc_hz: 1_000_000_000, ..PcConfig::default() };
        let mut pc = Pc::new(config);
        let vram = Arc::new(Vram::new(VRAM_SIZE as usize).expect("16 MiB"));
        let rom = vec![0x55, 0xaa, 0x4e];
        assert_eq!(pc.plug(Some(DEVFN), Box::new(StdVga::new(vram.clone(), Some(rom)))), Some(DEVFN));
        pc.set_up_as_firmware();
        (pc, vram)
    }

    fn config_write(pc: &mut Pc, register: u8, value: u32) {
        pc.port_write(0, 0xcf8, 4, 0x8000_0000 | u32::from(DEVFN) << 8 | u32::from(register));
        pc.port_write(0, 0xcfc, 4, value);
    }

    fn config_read(pc: &mut Pc, register: u8) -> u32 {
        pc.port_write(0, 0xcf8, 4, 0x8000_0000 | u32::from(DEVFN) << 8 | u32::from(register));
        pc.port_read(0, 0xcfc, 4)
    }

    #[test]
    fn the_guest_finds_it_and_moves_it() {
        let (mut pc, vram) = pc();
        assert_eq!((config_read(&mut pc, 0), config_read(&mut pc, 8)), (0x1111_1234, 0x0300_0002));
        let registers = u64::from(config_read(&mut pc, 0x18));
        let read = |pc: &mut Pc, at: u64| pc.mmio_read(0, 0, registers + at, 4);
        assert_eq!([0, 4, 124, 128].map(|at| read(&mut pc, at) & 0xffff), [0xff00, 0xffff, 0, 0], "the monitor's data");
        assert_eq!(read(&mut pc, 54 + 2) & 0xff, 1280 & 0xff);
        config_write(&mut pc, 0x10, u32::MAX);
        assert_eq!(config_read(&mut pc, 0x10), 0xff00_0008);
        config_write(&mut pc, 0x10, 0xfd00_0000);
        pc.mmio_write(0, 0, 0xfd00_1000, 8, 0x1122_3344_5566_7788);
        assert_eq!((vram.read(0x1000, 8), pc.mmio_read(0, 0, 0xfd00_1004, 2)), (0x1122_3344_5566_7788, 0x3344));
        let window = |pc: &mut Pc| pc.function(0, DEVFN, |vga: &mut StdVga, _| vga.memory_window());
        assert_eq!(window(&mut pc), Some(Some(0xfd00_0000)));
        config_write(&mut pc, 0x30, 0xfebe_0001);
        assert_eq!(pc.mmio_read(0, 0, 0xfebe_0000, 4), 0x004e_aa55);
        config_write(&mut pc, 0x04, 0);
        assert_eq!(window(&mut pc), Some(None));
    }

    #[test]
    fn the_old_ports_and_the_window_lead_to_it() {
        let (mut pc, vram) = pc();
        pc.function(0, DEVFN, |vga: &mut StdVga, _| vga.vga_mut().set_text_mode());
        pc.port_write(0, 0x3d4, 2, 0x550f);
        assert_eq!((pc.port_read(0, 0x3d5, 1), pc.port_read(0, 0x3d4, 2)), (0x55, 0x550f));
        assert_eq!(pc.port_read(0, 0x3df, 4) >> 8, 0xff_ffff);
        pc.mmio_write(0, 0, 0xb_8000, 4, 0x1f42_1f41);
        assert_eq!((vram.read_word(0)[..2].to_vec(), pc.mmio_read(0, 0, 0xb_8002, 2)), (vec![0x41, 0x1f], 0x1f42));
        pc.port_write(0, 0x1ce, 2, 0x0a);
        assert_eq!((pc.port_read(0, 0x1cf, 2), pc.port_read(0, 0x1ce, 2)), (256, 0x0a));
    }

    #[test]
    fn state_round_trips() {
        let (mut pc, vram) = pc();
        vram.write(0x12345, 1, 9);
        pc.port_write(0, 0x3c2, 1, 0x67);
        let state = pc.save();
        let bytes = postcard::to_stdvec(&state).expect("it serializes");
        vram.write(0x12345, 1, 8);
        pc.port_write(0, 0x3c2, 1, 0x66);
        pc.restore(postcard::from_bytes(&bytes).expect("and back")).expect("it fits");
        assert_eq!((vram.read(0x12345, 1), pc.port_read(0, 0x3cc, 1)), (9, 0x67));
    }
}
