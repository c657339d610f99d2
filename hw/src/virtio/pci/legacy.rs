//! The legacy interface (VIRTIO 1.2, 4.1.4.10): a window of I/O ports, which is all that drivers from before the standard know.
//! QEMU's devices have it, and hobby kernels, firmware and old systems use nothing else.

use super::super::Virtio;
use super::VirtioPci;
use crate::pci::{BarKind, Config};

/// The base address register.
pub(super) const LEGACY_BAR: usize = 0;

/// Registers, by offset.
const DEVICE_FEATURES: u64 = 0;
const DRIVER_FEATURES: u64 = 4;
const QUEUE_PAGE: u64 = 8;
const QUEUE_SIZE: u64 = 12;
const QUEUE_SELECT: u64 = 14;
const QUEUE_NOTIFY: u64 = 16;
const STATUS: u64 = 18;
const ISR: u64 = 19;
const CONFIG_VECTOR: u64 = 20;
const QUEUE_VECTOR: u64 = 22;
/// Where the device's own configuration is without vectors, and with them.
const DEVICE: u64 = 20;
const DEVICE_WITH_VECTORS: u64 = 24;

/// The unit of a queue's address in bits, and what its used ring is aligned to.
const PAGE_BITS: u32 = 12;
const ALIGNMENT: u32 = 1 << PAGE_BITS;
/// The driver may divide what it offers into buffers as it likes (6).
const ANY_LAYOUT: u32 = 1 << 27;

/// Adds the window to a configuration space.
pub(super) fn with_window(config: Config, device: &Virtio) -> Config {
    let size = DEVICE_WITH_VECTORS + device.config_len() as u64;
    config.with_bar(LEGACY_BAR, BarKind::Io, size.next_power_of_two())
}

/// The bytes of a register of `len` bytes at `first` that an access of `size` bytes at `offset` reads.
fn part(offset: u64, size: u8, first: u64, len: u64, value: u32) -> u64 {
    let kept = size.min((first + len - offset) as u8);
    u64::from(value) >> (8 * (offset - first)) & (u64::MAX >> (64 - 8 * u32::from(kept.clamp(1, 8))))
}

impl VirtioPci {
    /// Where the device's own configuration begins at present.
    fn legacy_config(&self) -> u64 {
        if self.has_msix() { DEVICE_WITH_VECTORS } else { DEVICE }
    }

    pub(super) fn legacy_read(&mut self, offset: u64, size: u8) -> u64 {
        if let Some(offset) = offset.checked_sub(self.legacy_config()) {
            let mut bytes = [0; 8];
            self.device.read_config(offset, bytes.get_mut(..usize::from(size)).unwrap_or_default());
            return u64::from_le_bytes(bytes);
        }
        let selected = usize::from(self.registers.queue);
        let queue = self.device.queue(selected);
        let (first, len, value) = match offset {
            DEVICE_FEATURES..DRIVER_FEATURES => (DEVICE_FEATURES, 4, self.device.features() as u32 | ANY_LAYOUT),
            DRIVER_FEATURES..QUEUE_PAGE => (DRIVER_FEATURES, 4, self.device.accepted_features() as u32),
            QUEUE_PAGE..QUEUE_SIZE => (QUEUE_PAGE, 4, queue.map_or(0, |queue| queue.page(PAGE_BITS))),
            QUEUE_SIZE..QUEUE_SELECT => (QUEUE_SIZE, 2, queue.map_or(0, |queue| queue.max_size().into())),
            QUEUE_SELECT..QUEUE_NOTIFY => (QUEUE_SELECT, 2, self.registers.queue.into()),
            QUEUE_NOTIFY..STATUS => (QUEUE_NOTIFY, 2, 0xffff),
            STATUS => (STATUS, 1, self.device.status().into()),
            ISR => {
                let isr = self.device.isr();
                self.device.acknowledge(isr);
                (ISR, 1, isr.into())
            }
            CONFIG_VECTOR..QUEUE_VECTOR => (CONFIG_VECTOR, 2, self.registers.config_vector.into()),
            _ => (QUEUE_VECTOR, 2, self.registers.vectors.get(selected).copied().unwrap_or(super::NO_VECTOR).into()),
        };
        part(offset, size, first, len, value)
    }

    /// Registers are written as a whole.
    pub(super) fn legacy_write(&mut self, offset: u64, value: u64) {
        if offset >= self.legacy_config() {
            tracing::debug!(offset, value, "virtio: the configuration cannot be written");
            return;
        }
        let selected = usize::from(self.registers.queue);
        match offset {
            DRIVER_FEATURES => self.device.accept_legacy_features(value as u32 & !ANY_LAYOUT),
            // Page 0 is how such drivers give up the device: all of it is reset.
            QUEUE_PAGE if value as u32 == 0 => self.reset_device(),
            QUEUE_PAGE => self.device.place_queue(selected, u64::from(value as u32) << PAGE_BITS, ALIGNMENT),
            QUEUE_SELECT => self.registers.queue = value as u16,
            QUEUE_NOTIFY => self.device.notify((value as u16).into()),
            STATUS if value as u8 == 0 => self.reset_device(),
            STATUS => self.device.set_status(value as u8),
            CONFIG_VECTOR => self.registers.config_vector = self.vector(value as u16),
            QUEUE_VECTOR => self.choose_vector(selected, value as u16),
            _ => tracing::debug!(offset, value, "virtio: write ignored"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Ones, messages};
    use super::super::{Interface, VirtioPci};
    use super::*;
    use crate::pci::{CAPABILITIES, COMMAND, Function};
    use crate::virtio::testing::{BASE, setup};
    use vm_memory::{Bytes, GuestAddress};

    fn set(f: &mut VirtioPci, offset: u64, size: u8, value: u64) {
        f.bar_write(0, LEGACY_BAR, offset, size, value);
    }

    fn get(f: &mut VirtioPci, offset: u64, size: u8) -> u64 {
        f.bar_read(0, LEGACY_BAR, offset, size)
    }

    /// Identifiers, class with revision, and subsystem as QEMU's have them.
    #[test]
    fn who_it_is_by_interface() {
        let rows = [
            (Interface::Transitional, 0x1005_1af4, 0x00ff_0000, 0x0004_1af4, true),
            (Interface::Legacy, 0x1005_1af4, 0x00ff_0000, 0x0004_1af4, false),
            (Interface::Modern, 0x1044_1af4, 0x00ff_0001, 0x1100_1af4, true),
        ];
        for (interface, id, class, subsystem, modern) in rows {
            let mut f = VirtioPci::new(Virtio::rng(setup().1, Box::new(Ones)), interface);
            let vendors = |f: &VirtioPci| {
                let mut at = f.config().u8(CAPABILITIES);
                let mut count = 0;
                while at != 0 {
                    count += usize::from(f.config().u8(at) == 9);
                    at = f.config().u8(at + 1);
                }
                count
            };
            assert_eq!((f.config().u32(0), f.config().u32(8), f.config().u32(0x2c)), (id, class, subsystem));
            assert_eq!(vendors(&f) != 0, modern, "{interface:?}");
            f.config_mut().allow(0x10, &[0xe0, 0xff, 0xff, 0xff]);
            assert_eq!(f.config().u8(0x10) & 1 != 0, interface != Interface::Modern, "{interface:?}");
        }
    }

    /// What a driver of a hobby kernel does, from reset to the first bytes, with a queue of 8.
    #[test]
    fn a_driver_that_knows_nothing_else() {
        let (ram, mem) = setup();
        let ram = ram.memory();
        let mut f = VirtioPci::new(Virtio::rng(mem, Box::new(Ones)), Interface::Transitional);
        for status in [0, 1, 3] {
            set(&mut f, STATUS, 1, status);
        }
        assert_eq!(get(&mut f, DEVICE_FEATURES, 4) & 0x3800_0000, 0x3800_0000);
        set(&mut f, DRIVER_FEATURES, 4, 0);
        set(&mut f, QUEUE_SELECT, 2, 1);
        assert_eq!(get(&mut f, QUEUE_SIZE, 2), 0, "there is one queue");
        set(&mut f, QUEUE_SELECT, 2, 0);
        let size = get(&mut f, QUEUE_SIZE, 2);
        let (descriptors, buffer) = (BASE, BASE + 0x8000);
        let available = descriptors + 16 * size;
        let used = (available + 4 + 2 * size).next_multiple_of(0x1000);
        set(&mut f, QUEUE_PAGE, 4, descriptors >> 12);
        assert_eq!(
            (get(&mut f, QUEUE_PAGE, 4), get(&mut f, QUEUE_PAGE + 2, 2)),
            (descriptors >> 12, descriptors >> 28)
        );
        let write = |at: u64, value: u64, len: usize| {
            ram.write_slice(&value.to_le_bytes()[..len], GuestAddress(at)).unwrap();
        };
        write(descriptors, buffer, 8);
        write(descriptors + 8, 6 | 2 << 32, 8);
        write(available + 4, 0, 2);
        write(available + 2, 1, 2);
        // Some tell the device of buffers before they say that they are ready.
        set(&mut f, QUEUE_NOTIFY, 2, 0);
        let read = |at: u64| ram.read_obj::<u32>(GuestAddress(at)).unwrap();
        assert_eq!((read(used) >> 16, read(used + 4), read(used + 8), read(buffer)), (1, 0, 6, 0xaaaa_aaaa));
        set(&mut f, STATUS, 1, 7);
        assert_eq!((get(&mut f, STATUS, 1), f.intx()), (7, true));
        assert_eq!((get(&mut f, ISR, 1), f.intx()), (1, false));
        let data = f.save();
        assert!(f.fits(&data));
        f.restore(&data);
        assert_eq!((f.save(), get(&mut f, QUEUE_PAGE, 4)), (data, descriptors >> 12));
        // It gives the device up.
        set(&mut f, QUEUE_PAGE, 4, 0);
        assert_eq!((get(&mut f, STATUS, 1), get(&mut f, QUEUE_PAGE, 4), get(&mut f, QUEUE_NOTIFY, 2)), (0, 0, 0xffff));
    }

    #[test]
    fn with_vectors_the_configuration_is_elsewhere() {
        let mac = [2, 0, 0, 0, 0, 1];
        let mut f = VirtioPci::new(Virtio::net(setup().1, mac, None), Interface::Legacy);
        assert_eq!((get(&mut f, DEVICE, 4), get(&mut f, DEVICE + 5, 1)), (0x0000_0002, 1));
        f.config_mut().allow(COMMAND, &[0xff, 0xff]);
        f.config_mut().put(COMMAND, 7);
        let msix = f.config().u8(CAPABILITIES);
        f.config_mut().put(msix + 3, 0x80);
        assert_eq!((get(&mut f, DEVICE_WITH_VECTORS, 4), get(&mut f, CONFIG_VECTOR, 2)), (0x0000_0002, 0xffff));
        set(&mut f, QUEUE_VECTOR, 2, 9);
        assert_eq!(get(&mut f, QUEUE_VECTOR, 2), 0xffff, "there is no such vector");
        set(&mut f, QUEUE_VECTOR, 2, 1);
        assert_eq!((get(&mut f, QUEUE_VECTOR, 2), messages(&mut f).len()), (1, 0));
    }

    #[test]
    fn a_queue_outside_ram_needs_a_reset() {
        let mut f = VirtioPci::new(Virtio::rng(setup().1, Box::new(Ones)), Interface::Transitional);
        set(&mut f, QUEUE_PAGE, 4, 0x1234);
        assert_eq!(get(&mut f, STATUS, 1), 0x40);
        set(&mut f, QUEUE_NOTIFY, 2, 0);
        set(&mut f, STATUS, 1, 0);
        assert_eq!(get(&mut f, STATUS, 1), 0);
    }
}
