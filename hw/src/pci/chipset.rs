//! The chipset's functions: host bridge (82441FX), ISA bridge (82371SB) and power management (82371AB), as far as software
//! sees them in configuration space.

use super::{Config, DevFn, HEADER_TYPE, Identity};

/// Where they are.
pub(super) const HOST_BRIDGE: DevFn = 0;
/// See [`HOST_BRIDGE`].
pub(super) const ISA_BRIDGE: DevFn = 1 << 3;
/// See [`HOST_BRIDGE`].
pub(super) const PM: DevFn = 1 << 3 | 3;

/// Interrupt lines of the bus.
pub(super) const PIRQ_LINES: usize = 4;

/// What QEMU's machine has there: firmware recognises it by that.
const SUBSYSTEM: (u16, u16) = (0x1af4, 0x1100);

/// The host bridge's programmable attribute map (82441FX data sheet, 3.2.17).
const PAM0: u8 = 0x59;
/// The ISA bridge's routing of interrupt lines (82371SB data sheet, 2.2.7).
const PIRQ_ROUTE: u8 = 0x60;
/// A line that is not routed, as at power-on.
const PIRQ_OFF: u8 = 1 << 7;
/// Power management's base address, and the register that enables it (82371AB data sheet, 7.1).
const PM_BASE_ADDRESS: u8 = 0x40;
const PM_MISC: u8 = 0x80;
const PM_MISC_ENABLE: u8 = 1 << 0;

/// Registers besides the header: offset, power-on value, writable bits.
type Register = (u8, u8, u8);

const HOST_BRIDGE_REGISTERS: &[Register] = &[
    // Configuration, DRAM control and timing.
    (0x50, 0x00, 0xff),
    (0x51, 0x01, 0xff),
    (0x57, 0x01, 0xff),
    (0x58, 0x10, 0xff),
    // Programmable attribute map: nothing is shadowed.
    (0x59, 0x00, 0xff),
    (0x5a, 0x00, 0xff),
    (0x5b, 0x00, 0xff),
    (0x5c, 0x00, 0xff),
    (0x5d, 0x00, 0xff),
    (0x5e, 0x00, 0xff),
    (0x5f, 0x00, 0xff),
    // System management RAM control.
    (0x72, 0x02, 0x78),
];

const ISA_BRIDGE_REGISTERS: &[Register] = &[
    (0x4c, 0x4d, 0xff),
    (0x4e, 0x03, 0xff),
    (0x60, PIRQ_OFF, 0x8f),
    (0x61, PIRQ_OFF, 0x8f),
    (0x62, PIRQ_OFF, 0x8f),
    (0x63, PIRQ_OFF, 0x8f),
    (0x69, 0x02, 0xff),
    (0x70, 0x80, 0xff),
    (0x76, 0x0c, 0xff),
    (0x77, 0x0c, 0xff),
    (0x78, 0x02, 0xff),
    (0x82, 0x00, 0xff),
    (0xa0, 0x08, 0xff),
    (0xa2, 0x00, 0xff),
    (0xa8, 0x0f, 0xff),
];

const PM_REGISTERS: &[Register] = &[
    (0x40, 0x01, 0xc0),
    (0x41, 0x00, 0xff),
    (0x58, 0x00, 0xff),
    (0x59, 0x00, 0xff),
    (0x5a, 0x00, 0xff),
    // System management mode is set up: that is how firmware is told that there is none.
    (0x5b, 0x02, 0xff),
    (0x5f, 0x90, 0xff),
    (0x63, 0x60, 0xff),
    (0x67, 0x98, 0xff),
    (0x80, 0x00, 0x01),
    // The SMBus host controller: its ports can be placed, and nothing answers there.
    (0x90, 0x01, 0xc0),
    (0x91, 0x00, 0xff),
    (0xd2, 0x00, 0x0f),
];

/// A part of the memory from 768 KiB to 1 MiB whose reads and writes the host bridge sends to RAM or to the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pam {
    /// First guest-physical address.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// Reads, and fetches of instructions, are of RAM.
    pub read: bool,
    /// Writes are to RAM.
    pub write: bool,
}

/// Whether a register is one of the programmable attribute map's.
pub(super) fn is_pam(devfn: DevFn, register: u8) -> bool {
    devfn == HOST_BRIDGE && (PAM0..PAM0 + 7).contains(&register)
}

/// The chipset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chipset {
    host_bridge: Config,
    isa_bridge: Config,
    pm: Config,
}

fn function(device: u16, revision: u8, class: u32, command_status: u32, registers: &[Register]) -> Config {
    let mut config = Config::new(Identity { vendor: 0x8086, device, revision, class, subsystem: SUBSYSTEM });
    config.set_u32(super::COMMAND, command_status);
    for &(offset, value, writable) in registers {
        config.set(offset, &[value]);
        config.allow(offset, &[writable]);
    }
    config
}

impl Chipset {
    pub(super) fn new() -> Chipset {
        // What cannot be switched off in the command registers, and medium timing in the status registers.
        let mut host_bridge = function(0x1237, 0x02, 0x06_0000, 0x0000_0006, HOST_BRIDGE_REGISTERS);
        host_bridge.allow(super::COMMAND, &[0x00, 0x01]);
        let mut isa_bridge = function(0x7000, 0x00, 0x06_0100, 0x0200_0007, ISA_BRIDGE_REGISTERS);
        isa_bridge.allow(super::COMMAND, &[0x00, 0x01]);
        isa_bridge.set(HEADER_TYPE, &[0x80]);
        let mut pm = function(0x7113, 0x03, 0x06_8000, 0x0280_0000, PM_REGISTERS).with_interrupt_pin(1);
        pm.set(super::INTERRUPT_LINE, &[0x09]);
        Chipset { host_bridge, isa_bridge, pm }
    }

    pub(super) fn config(&self, devfn: DevFn) -> Option<&Config> {
        match devfn {
            HOST_BRIDGE => Some(&self.host_bridge),
            ISA_BRIDGE => Some(&self.isa_bridge),
            PM => Some(&self.pm),
            _ => None,
        }
    }

    pub(super) fn config_mut(&mut self, devfn: DevFn) -> Option<&mut Config> {
        match devfn {
            HOST_BRIDGE => Some(&mut self.host_bridge),
            ISA_BRIDGE => Some(&mut self.isa_bridge),
            PM => Some(&mut self.pm),
            _ => None,
        }
    }

    /// The ISA interrupt line that line `pirq` of the bus is routed to, if it is.
    pub(super) fn routed(&self, pirq: usize) -> Option<u8> {
        let route = self.isa_bridge.u8(PIRQ_ROUTE + (pirq as u8 & 3));
        (route & PIRQ_OFF == 0).then_some(route & 0x0f)
    }

    /// The first port of the power management registers, when they answer.
    pub(crate) fn pm_base(&self) -> Option<u16> {
        let enabled = self.pm.u8(PM_MISC) & PM_MISC_ENABLE != 0;
        let base = self.pm.u16(PM_BASE_ADDRESS) & 0xffc0;
        (enabled && base != 0).then_some(base)
    }

    /// The attributes of memory from 768 KiB to 1 MiB, in order.
    pub(crate) fn pam(&self) -> impl Iterator<Item = Pam> + '_ {
        // Two areas of 16 KiB in each of PAM1-6; the last 64 KiB in the high half of PAM0.
        let small = (0..12u8).map(|area| {
            let attributes = self.host_bridge.u8(PAM0 + 1 + area / 2) >> (4 * (area & 1));
            (0xc_0000 + 0x4000 * u64::from(area), 0x4000, attributes)
        });
        let last = (0xf_0000, 0x1_0000, self.host_bridge.u8(PAM0) >> 4);
        small.chain([last]).map(|(base, size, bits)| Pam { base, size, read: bits & 1 != 0, write: bits & 2 != 0 })
    }

    /// All of the upper memory is RAM, power management answers, interrupts are routed.
    pub(super) fn set_up_as_firmware(&mut self, irqs: [u8; PIRQ_LINES]) {
        self.host_bridge.write(PAM0, 0x30);
        (1..7).for_each(|register| self.host_bridge.write(PAM0 + register, 0x33));
        for (register, irq) in (PIRQ_ROUTE..).zip(irqs) {
            self.isa_bridge.write(register, irq);
        }
        let [low, high] = crate::acpi_pm::PM_BASE.to_le_bytes();
        for (offset, value) in [(PM_BASE_ADDRESS, low), (PM_BASE_ADDRESS + 1, high), (PM_MISC, PM_MISC_ENABLE)] {
            self.pm.write(offset, value);
        }
    }

    pub(super) fn reset(&mut self) {
        *self = Chipset::new();
    }

    /// A reset that keeps the attributes of memory from 768 KiB to 1 MiB: firmware's code there is what it was.
    pub(super) fn reset_but_memory(&mut self) {
        let attributes: [u8; 7] = std::array::from_fn(|index| self.host_bridge.u8(PAM0 + index as u8));
        self.reset();
        for (register, value) in (PAM0..).zip(attributes) {
            self.host_bridge.write(register, value);
        }
    }

    pub(super) fn save(&self) -> Vec<Vec<u8>> {
        [&self.host_bridge, &self.isa_bridge, &self.pm].map(Config::save).to_vec()
    }

    pub(super) fn fits(&self, data: &[Vec<u8>]) -> bool {
        let configs = [&self.host_bridge, &self.isa_bridge, &self.pm];
        data.len() == configs.len() && configs.iter().zip(data).all(|(config, data)| config.fits(data))
    }

    pub(super) fn restore(&mut self, data: &[Vec<u8>]) {
        let configs = [&mut self.host_bridge, &mut self.isa_bridge, &mut self.pm];
        configs.into_iter().zip(data).for_each(|(config, data)| config.restore(data));
    }
}
