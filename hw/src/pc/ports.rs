//! The PC's I/O ports: one table says which device answers at which port, two functions read and write them.

use super::{Pc, PcEvent};
use crate::acpi_pm::Sleep;
use crate::debug::debug_exit_code;
use crate::ferr::{FERR_PORT, FerrLatch};
use crate::i8042::I8042;
use crate::rtc::Rtc;
use crate::{acpi_pm, testdev};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PortDevice {
    Dma,
    Pic,
    Pit,
    KeyboardData,
    PortB,
    KeyboardCommand,
    RtcIndex,
    RtcData,
    PostCode,
    Port92,
    Smi,
    Serial(u8),
    Pm,
    Pci,
    Gpe,
    Ferr,
    FwCfg,
    DebugExit,
    Debugcon(u8),
    Isa(u8),
    TestData,
    TestFlush,
    TestByte,
    TestIrq,
}

impl PortDevice {
    /// What monitors call it, if it is the board's own.
    pub(super) fn name(self) -> &'static str {
        match self {
            PortDevice::Dma => "dma",
            PortDevice::Pic => "pic",
            PortDevice::Pit => "pit",
            PortDevice::KeyboardData => "i8042-data",
            PortDevice::PortB => "port-b",
            PortDevice::KeyboardCommand => "i8042-cmd",
            PortDevice::RtcIndex => "rtc-index",
            PortDevice::RtcData => "rtc",
            PortDevice::PostCode => "post-code",
            PortDevice::Port92 => "port92",
            PortDevice::Smi => "apm",
            PortDevice::Serial(_) => "serial",
            PortDevice::Pm => "piix4-pm",
            PortDevice::Pci => "pci-conf",
            PortDevice::Gpe => "acpi-gpe0",
            PortDevice::Ferr => "ferr",
            PortDevice::FwCfg => "fwcfg",
            PortDevice::DebugExit => "isa-debug-exit",
            PortDevice::Debugcon(_) => "isa-debugcon",
            PortDevice::Isa(_) => "isa",
            PortDevice::TestData | PortDevice::TestFlush | PortDevice::TestByte | PortDevice::TestIrq => "pc-testdev",
        }
    }

    /// Whether the device sees an access of several bytes as one; the others see each byte at its own port.
    pub(super) fn is_wide(self) -> bool {
        matches!(
            self,
            PortDevice::Pci
                | PortDevice::Pm
                | PortDevice::FwCfg
                | PortDevice::DebugExit
                | PortDevice::TestData
                | PortDevice::TestFlush
        )
    }
}

/// First and last port, and who answers there.
pub(super) type PortRange = (u16, u16, PortDevice);

/// First and last port of devices that are always there.
pub(crate) mod fixed {
    use crate::{acpi_pm, fw_cfg};

    /// First and last port.
    pub(crate) type Range = (u16, u16);

    /// The DMA controllers: the first, page registers behind the port of POST codes, the second.
    pub(crate) const DMA: [Range; 3] = [(0x00, 0x0f), (0x81, 0x8f), (0xc0, 0xdf)];
    /// The interrupt controllers, and how their lines are triggered.
    pub(crate) const PIC: [Range; 3] = [(0x20, 0x21), (0xa0, 0xa1), (0x4d0, 0x4d1)];
    /// The timer.
    pub(crate) const PIT: Range = (0x40, 0x43);
    /// The keyboard controller's data.
    pub(crate) const KEYBOARD_DATA: Range = (0x60, 0x60);
    /// The timer's gate and output, and the speaker.
    pub(crate) const PORT_B: Range = (0x61, 0x61);
    /// The keyboard controller's commands and status.
    pub(crate) const KEYBOARD_COMMAND: Range = (0x64, 0x64);
    /// The clock's index and its data.
    pub(crate) const RTC: Range = (0x70, 0x71);
    /// What firmware says of how far it is.
    pub(crate) const POST_CODE: Range = (0x80, 0x80);
    /// A reset, and the gate of address line 20.
    pub(crate) const PORT_92: Range = (0x92, 0x92);
    /// Power management's command and data.
    pub(crate) const SMI: Range = (acpi_pm::SMI_COMMAND, acpi_pm::SMI_COMMAND + 1);
    /// General purpose events.
    pub(crate) const GPE0: Range = (acpi_pm::GPE0_BASE, acpi_pm::GPE0_BASE + 3);
    /// What firmware is told.
    pub(crate) const FW_CFG: Range = (fw_cfg::BASE, fw_cfg::BASE + fw_cfg::LENGTH - 1);
    /// Configuration spaces' address and data.
    pub(crate) const PCI: Range = (0xcf8, 0xcff);
}

/// The ports of `range` as those of a device.
const fn at(range: fixed::Range, device: PortDevice) -> PortRange {
    (range.0, range.1, device)
}

/// The fixed ports, in order.
pub(super) const PORTS: [PortRange; 19] = [
    at(fixed::DMA[0], PortDevice::Dma),
    at(fixed::PIC[0], PortDevice::Pic),
    at(fixed::PIT, PortDevice::Pit),
    at(fixed::KEYBOARD_DATA, PortDevice::KeyboardData),
    at(fixed::PORT_B, PortDevice::PortB),
    at(fixed::KEYBOARD_COMMAND, PortDevice::KeyboardCommand),
    (fixed::RTC.0, fixed::RTC.0, PortDevice::RtcIndex),
    (fixed::RTC.1, fixed::RTC.1, PortDevice::RtcData),
    at(fixed::POST_CODE, PortDevice::PostCode),
    at(fixed::DMA[1], PortDevice::Dma),
    at(fixed::PORT_92, PortDevice::Port92),
    at(fixed::PIC[1], PortDevice::Pic),
    at(fixed::SMI, PortDevice::Smi),
    at(fixed::DMA[2], PortDevice::Dma),
    (FERR_PORT, FERR_PORT, PortDevice::Ferr),
    at(fixed::PIC[2], PortDevice::Pic),
    at(fixed::FW_CFG, PortDevice::FwCfg),
    at(fixed::PCI, PortDevice::Pci),
    at(fixed::GPE0, PortDevice::Gpe),
];

/// Where `pc-testdev` answers.
pub(super) const TEST_PORTS: [PortRange; 4] = [
    (testdev::DATA_PORT, testdev::DATA_PORT + testdev::GROUP - 1, PortDevice::TestData),
    (testdev::FLUSH_PORT, testdev::FLUSH_PORT + testdev::GROUP - 1, PortDevice::TestFlush),
    (testdev::BYTE_PORT, testdev::BYTE_PORT + testdev::GROUP - 1, PortDevice::TestByte),
    (testdev::IRQ_PORT, testdev::IRQ_PORT + testdev::IRQ_LINES - 1, PortDevice::TestIrq),
];

impl Pc {
    /// The first port of the range that `port` is in, and its device.
    pub(super) fn route(&self, port: u16) -> Option<(u16, PortDevice)> {
        let range = self.ports.iter().find(|(first, last, _)| (*first..=*last).contains(&port));
        let pm = || {
            let base = self.bus.chipset().pm_base()?;
            (base..base.saturating_add(acpi_pm::PM_LENGTH)).contains(&port).then_some((base, PortDevice::Pm))
        };
        range.map(|(first, _, device)| (*first, *device)).or_else(pm)
    }

    pub(super) fn read_device(&mut self, now: u64, device: PortDevice, offset: u16, port: u16, size: u8) -> u32 {
        let devices = &mut self.devices;
        let [low, _] = offset.to_le_bytes();
        let byte = match device {
            PortDevice::Pm => return devices.pm.with(|pm| pm.read(now, offset, size)),
            PortDevice::Pci => return self.bus.read(low, size),
            PortDevice::Isa(number) => {
                return self.with_isa(number, |device| device.read(now, port)).map_or(u32::MAX, u32::from);
            }
            PortDevice::FwCfg => return self.fw_cfg.as_mut().map_or(u32::MAX, |device| device.read(offset, size)),
            PortDevice::TestData | PortDevice::TestByte => {
                let device = devices.testdev.as_ref();
                return device.map_or(u32::MAX, |device| device.state().read_data(offset, size));
            }
            PortDevice::DebugExit | PortDevice::TestFlush | PortDevice::TestIrq => 0,
            PortDevice::Debugcon(index) => self.debugcons.get(usize::from(index)).map_or(0xff, |port| port.readback),
            PortDevice::Dma => devices.dma.read(port),
            PortDevice::Pic => self.interrupts.read_pic(port),
            PortDevice::Pit => devices.pit.with(|pit| pit.read(now, low)),
            PortDevice::PortB => devices.pit.with(|pit| pit.read_port_b(now)),
            PortDevice::KeyboardData => devices.i8042.with(I8042::read_data),
            PortDevice::KeyboardCommand => devices.i8042.state().read_status(),
            PortDevice::Port92 => devices.i8042.state().read_port_92(),
            // The index can not be read back.
            PortDevice::RtcIndex => 0xff,
            PortDevice::RtcData => devices.rtc.with(|rtc| rtc.read(now)),
            PortDevice::PostCode => devices.post_code.read(),
            PortDevice::Smi => devices.pm.state().read_smi(offset),
            PortDevice::Gpe => devices.pm.state().read_gpe(offset),
            PortDevice::Ferr => 0xff,
            PortDevice::Serial(index) => {
                let uart = devices.uarts.get_mut(usize::from(index));
                uart.map_or(0xff, |uart| uart.with(|uart| uart.read(low)))
            }
        };
        u32::from(byte)
    }

    pub(super) fn write_device(&mut self, now: u64, device: PortDevice, offset: u16, port: u16, size: u8, value: u32) {
        let devices = &mut self.devices;
        let [low, _] = offset.to_le_bytes();
        let [byte, ..] = value.to_le_bytes();
        match device {
            PortDevice::Pm => {
                let sleep = devices.pm.with(|pm| {
                    pm.write(now, offset, size, value);
                    pm.take_sleep()
                });
                match sleep {
                    Some(Sleep::ToRam) => {
                        devices.rtc.with(Rtc::fall_asleep);
                        devices.request(PcEvent::Suspend);
                    }
                    Some(Sleep::ToDisk) => devices.request(PcEvent::SuspendToDisk),
                    Some(Sleep::Off) => devices.request(PcEvent::PowerOff),
                    None => {}
                }
            }
            PortDevice::Pci => {
                if self.bus.write(low, size, value) {
                    devices.request(PcEvent::Reset);
                }
            }
            PortDevice::FwCfg => {
                let pm_base = self.bus.chipset().pm_base();
                if let Some(device) = &mut self.fw_cfg {
                    device.write(offset, size, value, pm_base);
                }
            }
            PortDevice::Isa(number) => drop(self.with_isa(number, |device| device.write(now, port, byte))),
            PortDevice::DebugExit => devices.request(PcEvent::DebugExit(debug_exit_code(value))),
            PortDevice::Debugcon(index) => {
                if let Some(port) = self.debugcons.get_mut(usize::from(index)) {
                    port.sink.write(&[byte]);
                }
            }
            // A translation is never out of date, so there is no mapping to be made again.
            PortDevice::TestFlush => {}
            PortDevice::TestData | PortDevice::TestByte => {
                if let Some(device) = &mut devices.testdev {
                    device.with(|device| device.write_data(offset, size, value));
                }
            }
            PortDevice::TestIrq => {
                if let Some(device) = &mut devices.testdev {
                    device.with(|device| device.set_line(offset, byte != 0));
                }
            }
            PortDevice::Dma => devices.dma.write(port, byte),
            PortDevice::Pic => self.interrupts.write_pic(port, byte),
            PortDevice::Pit => devices.pit.with(|pit| pit.write(now, low, byte)),
            PortDevice::PortB => devices.pit.with(|pit| pit.write_port_b(now, byte)),
            PortDevice::KeyboardData => self.with_i8042(|device| device.write_data(byte)),
            PortDevice::KeyboardCommand => self.with_i8042(|device| device.write_command(byte)),
            PortDevice::Port92 => self.with_i8042(|device| device.write_port_92(byte)),
            PortDevice::RtcIndex => devices.rtc.with(|rtc| rtc.write_index(byte)),
            PortDevice::RtcData => devices.rtc.with(|rtc| rtc.write(now, byte)),
            PortDevice::Ferr => devices.ferr.with(FerrLatch::write),
            PortDevice::PostCode => devices.post_code.write(byte),
            PortDevice::Smi => devices.pm.with(|pm| pm.write_smi(offset, byte)),
            PortDevice::Gpe => devices.pm.with(|pm| pm.write_gpe(offset, byte)),
            PortDevice::Serial(index) => {
                if let Some(uart) = devices.uarts.get_mut(usize::from(index)) {
                    uart.with(|uart| uart.write(low, byte));
                }
            }
        }
    }
}
