//! The PC's state as data: what is saved of each device, and how it is checked before it is restored.

use super::interrupts::InterruptData;
use super::{Pc, PcEvent};
use crate::acpi_pm::AcpiPm;
use crate::debug::PostCode;
use crate::dma::Dma;
use crate::error::StateError;
use crate::fabric::Wired;
use crate::ferr::FerrLatch;
use crate::fw_cfg::{FwCfg, FwCfgData};
use crate::hpet::Hpet;
use crate::i8042::I8042;
use crate::isa::{IsaData, IsaSlot};
use crate::pci::BusData;
use crate::pit::Pit;
use crate::rtc::Rtc;
use crate::testdev::PcTestdev;
use crate::uart::Uart;
use serde::{Deserialize, Serialize};

/// Changes whenever a device's state changes its shape.
const VERSION: u32 = 12;

/// The board's devices but for those of PCI, with what they are wired to.
pub(super) struct Devices {
    /// Guest nanoseconds since power-on, as far as the board knows.
    pub(super) now: u64,
    pub(super) uarts: Vec<Wired<Uart>>,
    pub(super) pit: Wired<Pit>,
    pub(super) hpet: Option<Wired<Hpet>>,
    pub(super) dma: Dma,
    pub(super) rtc: Wired<Rtc>,
    pub(super) i8042: Wired<I8042>,
    pub(super) pm: Wired<AcpiPm>,
    pub(super) ferr: Wired<FerrLatch>,
    pub(super) post_code: PostCode,
    pub(super) testdev: Option<Wired<PcTestdev>>,
    pub(super) event: Option<PcEvent>,
}

impl Devices {
    /// Keeps the first request that nobody has taken yet. One behind which the guest goes on anyway gives way to any other.
    pub(super) fn request(&mut self, event: PcEvent) {
        if matches!(self.event, None | Some(PcEvent::CrashLoaded)) {
            self.event = Some(event);
        }
    }

    fn save(&self) -> DeviceData {
        DeviceData {
            now: self.now,
            uarts: self.uarts.iter().map(|uart| uart.state().clone()).collect(),
            pit: self.pit.state().clone(),
            hpet: self.hpet.as_ref().map(|hpet| hpet.state().clone()),
            dma: self.dma.clone(),
            rtc: self.rtc.state().clone(),
            i8042: self.i8042.state().clone(),
            pm: self.pm.state().clone(),
            ferr: self.ferr.state().clone(),
            post_code: self.post_code.clone(),
            testdev: self.testdev.as_ref().map(|device| device.state().clone()),
            event: self.event,
        }
    }

    /// Takes over the state of the same devices.
    fn restore(&mut self, data: DeviceData) {
        self.now = data.now;
        for (uart, data) in self.uarts.iter_mut().zip(data.uarts) {
            uart.restore(data);
        }
        self.pit.restore(data.pit);
        if let (Some(hpet), Some(data)) = (&mut self.hpet, data.hpet) {
            hpet.restore(data);
        }
        self.dma = data.dma;
        self.rtc.restore(data.rtc);
        self.i8042.restore(data.i8042);
        self.pm.restore(data.pm);
        self.ferr.restore(data.ferr);
        self.post_code = data.post_code;
        if let (Some(device), Some(data)) = (&mut self.testdev, data.testdev) {
            device.restore(data);
        }
        self.event = data.event;
    }
}

/// What [`Devices`] remember.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct DeviceData {
    now: u64,
    uarts: Vec<Uart>,
    pit: Pit,
    hpet: Option<Hpet>,
    dma: Dma,
    rtc: Rtc,
    i8042: I8042,
    pm: AcpiPm,
    ferr: FerrLatch,
    post_code: PostCode,
    testdev: Option<PcTestdev>,
    event: Option<PcEvent>,
}

/// The state of a [`Pc`] at a moment between two accesses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PcState {
    version: u32,
    ram_size: u64,
    tsc_hz: u64,
    devices: DeviceData,
    isa: Vec<IsaData>,
    interrupts: InterruptData,
    bus: BusData,
    fw_cfg: Option<FwCfgData>,
}

impl Pc {
    /// The state of every device.
    pub fn save(&self) -> PcState {
        PcState {
            version: VERSION,
            ram_size: self.config.ram_size,
            tsc_hz: self.config.tsc_hz,
            devices: self.devices.save(),
            isa: self.isa.iter().map(IsaSlot::save).collect(),
            interrupts: self.interrupts.save(),
            bus: self.bus.save(),
            fw_cfg: self.fw_cfg.as_ref().map(FwCfg::save),
        }
    }

    /// Replaces the state of every device; the configuration and the character sinks stay. On an error nothing has
    /// changed.
    pub fn restore(&mut self, state: PcState) -> Result<(), StateError> {
        if state.version != VERSION {
            return Err(StateError::Version { found: state.version, expected: VERSION });
        }
        let devices = state.devices;
        for (what, same) in [
            ("amount of RAM", state.ram_size == self.config.ram_size),
            ("TSC frequency", state.tsc_hz == self.config.tsc_hz),
            ("number of processors", state.interrupts.cpus() == usize::from(self.config.cpus)),
            ("set of serial ports", self.has_serial_ports(&devices.uarts)),
            ("set of test devices", devices.testdev.is_some() == self.devices.testdev.is_some()),
            ("set of ISA devices", self.has_isa_devices(&state.isa)),
            ("set of timers", devices.hpet.is_some() == self.devices.hpet.is_some()),
            ("way to configure firmware", state.fw_cfg.is_some() == self.fw_cfg.is_some()),
            ("set of PCI functions", self.bus.fits(&state.bus)),
        ] {
            if !same {
                return Err(StateError::Machine(what));
            }
        }
        for (what, well_formed) in [
            ("clock", devices.rtc.is_well_formed()),
            ("serial ports", devices.uarts.iter().all(Uart::is_well_formed)),
            ("test device", devices.testdev.as_ref().is_none_or(PcTestdev::is_well_formed)),
            ("keyboard controller", devices.i8042.is_well_formed()),
        ] {
            if !well_formed {
                return Err(StateError::Malformed(what));
            }
        }
        for (slot, data) in self.isa.iter_mut().zip(&state.isa) {
            slot.restore(data);
        }
        self.devices.restore(devices);
        self.bus.restore(state.bus);
        if let (Some(device), Some(data)) = (&mut self.fw_cfg, state.fw_cfg) {
            device.restore(data);
        }
        // After all that drives lines: it is as it was, whatever they have just told it.
        self.interrupts.restore(state.interrupts);
        Ok(())
    }

    fn has_isa_devices(&self, data: &[IsaData]) -> bool {
        self.isa.len() == data.len() && self.isa.iter().zip(data).all(|(slot, data)| slot.fits(data))
    }

    fn has_serial_ports(&self, uarts: &[Uart]) -> bool {
        uarts.iter().map(Uart::config).eq(self.devices.uarts.iter().map(|uart| uart.state().config()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PcConfig;

    #[test]
    fn a_malformed_device_is_refused_and_nothing_changes() {
        let config = PcConfig { ram_size: 64 << 20, tsc_hz: 1_000_000_000, ..PcConfig::default() };
        let mut pc = Pc::new(config);
        pc.advance(1_000);
        let good = pc.save();
        let mut bad = good.clone();
        bad.devices.now = 77_777;
        bad.devices.rtc = serde_round_trip_with_short_memory(&bad.devices.rtc);
        assert_eq!(pc.restore(bad), Err(StateError::Malformed("clock")));
        assert_eq!(pc.save(), good);
    }

    /// Serializes a clock and drops the last byte of its CMOS memory.
    fn serde_round_trip_with_short_memory(rtc: &Rtc) -> Rtc {
        let mut bytes = postcard::to_stdvec(rtc).expect("a clock serializes");
        // Index, then the length of the memory as a two-byte variable-length integer: 128 becomes 127.
        assert_eq!(bytes[1..3], [0x80, 0x01]);
        bytes.splice(1..3, [0x7f]);
        bytes.remove(2 + 127);
        postcard::from_bytes(&bytes).expect("the shape is still a clock's")
    }
}
