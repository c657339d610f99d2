//! The ISA bus: what a device on it is to the board. A device that a user plugs in is a file here and a row of the registry; the
//! board routes its ports, sets its timer, saves it and resets it by the trait [`IsaDevice`], and knows nothing else of it.
//!
//! Serial ports and those for debugging, which came before, are the board's own (`pc/isa.rs`).

mod ib700;
mod pvpanic;

use crate::PcEvent;
use crate::fabric::Timer;
use serde::{Deserialize, Serialize};

pub(crate) use ib700::{DISABLE_PORT as IB700_DISABLE, ENABLE_PORT as IB700_ENABLE, Ib700};
pub(crate) use pvpanic::{CRASH_LOADED, PANICKED, Pvpanic, acpi_device as pvpanic_acpi};

/// A device on the ISA bus that answers at I/O ports, a byte at each.
pub trait IsaDevice: Send {
    /// First and last port of each range at which it answers. They stay the same.
    fn ports(&self) -> Vec<(u16, u16)>;

    /// Reads a port.
    fn read(&mut self, now: u64, port: u16) -> u8 {
        let _ = (now, port);
        0xff
    }

    /// Writes a port.
    fn write(&mut self, now: u64, port: u16, value: u8);

    /// What the guest asks of the machine by the device; each event is returned once.
    fn take_event(&mut self) -> Option<PcEvent> {
        None
    }

    /// Brings it to `now`.
    fn advance(&mut self, now: u64) {
        let _ = now;
    }

    /// The earliest guest nanosecond at which [`IsaDevice::advance`] has something to do.
    fn next_deadline(&self) -> Option<u64> {
        None
    }

    /// As at power-on.
    fn reset(&mut self) {}

    /// What it remembers, as data.
    fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Whether `data` is the state of such a device.
    fn fits(&self, data: &[u8]) -> bool {
        data.is_empty()
    }

    /// Takes over `data`, which fits.
    fn restore(&mut self, data: &[u8]) {
        let _ = data;
    }
}

/// A device on the bus, with what it is wired to.
pub(crate) struct IsaSlot {
    /// The name of its row.
    pub(crate) name: &'static str,
    device: Box<dyn IsaDevice>,
    timer: Timer,
}

/// What a device on the bus remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IsaData {
    name: String,
    state: Vec<u8>,
}

impl IsaSlot {
    pub(crate) fn new(name: &'static str, device: Box<dyn IsaDevice>, timer: Timer) -> IsaSlot {
        IsaSlot { name, device, timer }
    }

    /// Does something with the device and sets its timer; what the guest then asks of the machine by it.
    pub(crate) fn with<T>(&mut self, f: impl FnOnce(&mut dyn IsaDevice) -> T) -> (T, Option<PcEvent>) {
        let result = f(self.device.as_mut());
        self.timer.set(self.device.next_deadline());
        (result, self.device.take_event())
    }

    pub(crate) fn save(&self) -> IsaData {
        IsaData { name: self.name.to_owned(), state: self.device.save() }
    }

    /// Whether `data` is the state of the same device.
    pub(crate) fn fits(&self, data: &IsaData) -> bool {
        self.name == data.name && self.device.fits(&data.state)
    }

    /// Takes over `data`, which fits.
    pub(crate) fn restore(&mut self, data: &IsaData) {
        self.with(|device| device.restore(&data.state));
    }
}
