//! `pvpanic`: a port by which a guest tells that its kernel has panicked, or that it starts one to make a dump (QEMU
//! documentation, "PVPANIC DEVICE"). Made by its row; drivers find it by its ACPI device.

use super::IsaDevice;
use crate::PcEvent;
use crate::acpi_tables::named_device;

/// The guest has panicked.
pub(crate) const PANICKED: u8 = 1;
/// The guest has panicked, and starts a kernel that makes a dump and restarts the machine.
pub(crate) const CRASH_LOADED: u8 = 2;

/// The hardware ID that drivers look for, and a name for the device.
const HARDWARE_ID: &str = "QEMU0001";
const ACPI_NAME: &str = "PEVT";

/// The device. It remembers nothing.
pub(crate) struct Pvpanic {
    port: u16,
    events: u8,
    event: Option<PcEvent>,
}

impl Pvpanic {
    /// A device at `port` that says that it understands `events`.
    pub(crate) fn new(port: u16, events: u8) -> Pvpanic {
        Pvpanic { port, events, event: None }
    }
}

impl IsaDevice for Pvpanic {
    fn ports(&self) -> Vec<(u16, u16)> {
        vec![(self.port, self.port)]
    }

    /// The events that it understands.
    fn read(&mut self, _now: u64, _port: u16) -> u8 {
        self.events
    }

    fn write(&mut self, _now: u64, _port: u16, value: u8) {
        self.event = match value {
            value if value & PANICKED != 0 => Some(PcEvent::Panicked),
            value if value & CRASH_LOADED != 0 => Some(PcEvent::CrashLoaded),
            _ => {
                tracing::debug!(value, "pvpanic: an unknown event is ignored");
                None
            }
        };
    }

    fn take_event(&mut self) -> Option<PcEvent> {
        self.event.take()
    }
}

/// The ACPI device by which drivers find the one at `port`, for the system bus.
pub(crate) fn acpi_device(port: u16) -> Vec<u8> {
    named_device(ACPI_NAME, HARDWARE_ID, port, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_write_is_one_event() {
        let mut device = Pvpanic::new(0x505, CRASH_LOADED);
        assert_eq!((device.ports(), device.read(0, 0x505)), (vec![(0x505, 0x505)], 2));
        for (value, event) in [
            (1, Some(PcEvent::Panicked)),
            (2, Some(PcEvent::CrashLoaded)),
            (3, Some(PcEvent::Panicked)),
            (0xfd, Some(PcEvent::Panicked)),
            (0xfc, None),
            (0, None),
        ] {
            device.write(0, 0x505, value);
            assert_eq!((device.take_event(), device.take_event()), (event, None), "{value}");
        }
    }

    #[test]
    fn drivers_find_it() {
        let aml = acpi_device(0x506);
        let has = |bytes: &[u8]| aml.windows(bytes.len()).any(|window| window == bytes);
        assert!(has(b"PEVT") && has(b"QEMU0001"));
        // A descriptor of ports: decodes 16 bits, from and to this one, aligned to 1, one of them (ACPI 6.5, 6.4.2.5).
        assert!(has(&[0x47, 1, 0x06, 0x05, 0x06, 0x05, 1, 1]), "{aml:x?}");
    }
}
