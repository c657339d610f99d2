//! The controller as function 1 of the chipset (82371SB data sheet, 2.3).

use super::{BUS_MASTER_SIZE, COMMAND_PORTS, CONTROL_PORTS, IRQS, Ide, IdeState};
use crate::pci::{BarKind, Config, DevFn, Fixed, Function, Identity, Space};

/// Where it is.
pub const IDE_DEVFN: DevFn = 1 << 3 | 1;

/// The bus masters' base address register.
const BUS_MASTER_BAR: usize = 4;
/// Timing registers of the channels, the upper bit of which says that a channel decodes its ports (2.3.9). Here it always does,
/// as on QEMU, whatever that and the command register say.
const TIMING: [u8; 2] = [0x40, 0x42];
const DECODE: u16 = 1 << 15;

/// Ports of a channel's command block, and its control port.
const COMMAND_SIZE: u64 = 8;

/// What answers at a fixed range.
#[derive(Clone, Copy)]
enum Block {
    Command(usize),
    Control(usize),
}

/// The fixed ranges in the order of [`Function::fixed`].
const BLOCKS: [Block; 4] = [Block::Command(0), Block::Control(0), Block::Command(1), Block::Control(1)];

/// The IDE controller on the PCI bus.
#[derive(Debug)]
pub struct IdeFunction {
    config: Config,
    /// The controller behind the configuration space.
    pub ide: Ide,
}

impl IdeFunction {
    /// Puts `ide` on the bus.
    pub fn new(ide: Ide) -> IdeFunction {
        let identity = Identity {
            vendor: 0x8086,
            device: 0x7010,
            revision: 0,
            class: 0x01_0180,
            // QEMU's, as that of the chipset's other functions.
            subsystem: (0x1af4, 0x1100),
        };
        let mut config = Config::new(identity).with_bar(BUS_MASTER_BAR, BarKind::Io, BUS_MASTER_SIZE.into());
        // Status: medium timing, fast back-to-back.
        config.set_u16(0x06, 0x0280);
        for register in TIMING {
            // As firmware leaves it: it finds the drives by these ports.
            config.set_u16(register, DECODE);
            config.allow(register, &[0xff, 0xf3]);
        }
        config.allow(0x44, &[0xff]);
        config.allow(0x48, &[0x0f]);
        config.allow(0x4a, &[0x33, 0x33]);
        IdeFunction { config, ide }
    }
}

impl Function for IdeFunction {
    fn config(&self) -> &Config {
        &self.config
    }

    fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    fn config_written(&mut self, _offset: u8) {
        self.ide.enable_bus_master(self.config.is_master());
    }

    fn bar_read(&mut self, _now: u64, _bar: usize, offset: u64, size: u8) -> u64 {
        self.ide.bus_master_read(offset as u16, size).into()
    }

    fn bar_write(&mut self, _now: u64, _bar: usize, offset: u64, size: u8, value: u64) {
        self.ide.bus_master_write(offset as u16, size, value as u32);
    }

    fn fixed(&self) -> Vec<Fixed> {
        let range = |block: &Block| {
            let (ports, channel, size) = match block {
                Block::Command(channel) => (COMMAND_PORTS, *channel, COMMAND_SIZE),
                Block::Control(channel) => (CONTROL_PORTS, *channel, 1),
            };
            let base = ports.get(channel).copied().unwrap_or(0).into();
            Fixed { space: Space::Io, base, size }
        };
        BLOCKS.iter().map(range).collect()
    }

    fn fixed_read(&mut self, _now: u64, index: usize, offset: u64, size: u8) -> u64 {
        match BLOCKS.get(index) {
            Some(Block::Command(channel)) => self.ide.command_read(*channel, offset as u16, size).into(),
            Some(Block::Control(channel)) => self.ide.control_read(*channel).into(),
            None => u64::MAX,
        }
    }

    fn fixed_write(&mut self, _now: u64, index: usize, offset: u64, size: u8, value: u64) {
        match BLOCKS.get(index) {
            Some(Block::Command(channel)) => self.ide.command_write(*channel, offset as u16, size, value as u32),
            Some(Block::Control(channel)) => self.ide.control_write(*channel, value as u8),
            None => {}
        }
    }

    fn attend(&mut self, _now: u64) {
        self.ide.attend();
    }

    fn isa_irqs(&self) -> u16 {
        (0..).zip(IRQS).filter(|(channel, _)| self.ide.irq(*channel)).fold(0, |lines, (_, irq)| lines | 1 << irq)
    }

    fn reset(&mut self) {
        self.ide.reset();
        self.ide.enable_bus_master(self.config.is_master());
    }

    fn save(&self) -> Vec<u8> {
        // Nothing in it can fail to be data.
        postcard::to_stdvec(&self.ide.save()).unwrap_or_default()
    }

    fn fits(&self, data: &[u8]) -> bool {
        postcard::from_bytes::<IdeState>(data).is_ok_and(|state| self.ide.fits(&state))
    }

    fn restore(&mut self, data: &[u8]) {
        if let Ok(state) = postcard::from_bytes::<IdeState>(data) {
            self.ide.restore(state);
        }
    }
}
