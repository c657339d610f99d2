//! Virtio over PCI (VIRTIO 1.2, 4.1). The modern interface has registers in a memory window that capabilities describe, and a
//! vector for each queue; the legacy one is in [`legacy`].

mod legacy;

use serde::{Deserialize, Serialize};

use super::queue::Ring;
use super::{ISR_CONFIG, ISR_QUEUE, Virtio, VirtioData};
use crate::net::Adapter;
use crate::pci::{BarKind, COMMAND, Config, Function, Identity, MsiMessage, Msix, MsixData};

/// Vendor, and the first of the device numbers, to which a device's type is added (4.1.2).
const VENDOR: u16 = 0x1af4;
const FIRST_DEVICE: u16 = 0x1040;
/// The subsystem of devices without a legacy interface; with it, it is the type.
const SUBSYSTEM: u16 = 0x1100;

/// Base address registers: MSI-X's table and pending bits, the device's registers.
const MSIX_BAR: usize = 1;
const MSIX_SIZE: u64 = 0x1000;
const MSIX_PENDING: u64 = 0x800;
const REGISTERS_BAR: usize = 4;
const REGISTERS_SIZE: u64 = 0x4000;
/// Where each structure is among the registers, and the bytes of one.
const PART: u64 = 0x1000;
const COMMON: u64 = 0;
const ISR: u64 = 1;
const DEVICE: u64 = 2;
const NOTIFY: u64 = 3;
/// Bytes between the places where queues are notified.
const NOTIFY_MULTIPLIER: u32 = 4;

/// A vendor's capability, and the types of structures (4.1.4).
const VENDOR_CAPABILITY: u8 = 0x09;
const COMMON_TYPE: u8 = 1;
const NOTIFY_TYPE: u8 = 2;
const ISR_TYPE: u8 = 3;
const DEVICE_TYPE: u8 = 4;
const WINDOW_TYPE: u8 = 5;

/// Offsets in the capability by which registers are reached in configuration space (4.1.4.9): base address register, offset,
/// length, data.
mod window {
    pub(super) const BAR: u8 = 4;
    pub(super) const OFFSET: u8 = 8;
    pub(super) const LENGTH: u8 = 12;
    pub(super) const DATA: u8 = 16;
}

/// Fields of the common configuration (4.1.4.3).
mod common {
    pub(super) const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub(super) const DEVICE_FEATURE: u64 = 0x04;
    pub(super) const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub(super) const DRIVER_FEATURE: u64 = 0x0c;
    pub(super) const CONFIG_VECTOR: u64 = 0x10;
    pub(super) const NUM_QUEUES: u64 = 0x12;
    pub(super) const STATUS: u64 = 0x14;
    pub(super) const GENERATION: u64 = 0x15;
    pub(super) const QUEUE_SELECT: u64 = 0x16;
    pub(super) const QUEUE_SIZE: u64 = 0x18;
    pub(super) const QUEUE_VECTOR: u64 = 0x1a;
    pub(super) const QUEUE_ENABLE: u64 = 0x1c;
    pub(super) const QUEUE_NOTIFY: u64 = 0x1e;
    pub(super) const QUEUE_DESCRIPTORS: u64 = 0x20;
    pub(super) const QUEUE_AVAILABLE: u64 = 0x28;
    pub(super) const QUEUE_USED: u64 = 0x30;
    pub(super) const LENGTH: u32 = 0x38;
}

/// No vector (4.1.5.1.2).
const NO_VECTOR: u16 = 0xffff;

/// Queues beyond which there are two vectors, as QEMU has it: one for the configuration, and one that queues share.
const MANY_QUEUES: usize = 8;

/// Device types that are there (5), what class of PCI device each is, and its number where it has a legacy interface.
const TYPES: &[(u32, u32, u16)] = &[
    (1, 0x02_0000, 0x1000),
    (2, 0x01_0000, 0x1001),
    (3, 0x07_8000, 0x1003),
    (4, 0x00_ff00, 0x1005),
    (9, 0x00_0200, 0x1009),
];
const OTHER_CLASS: u32 = 0x00_ff00;

/// How drivers reach a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interface {
    /// As drivers before the standard know it, and as the standard has it.
    #[default]
    Transitional,
    /// As the standard has it.
    Modern,
    /// As drivers before the standard know it.
    Legacy,
}

/// What the driver has selected, and its vectors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Registers {
    device_features: u32,
    driver_features: u32,
    queue: u16,
    config_vector: u16,
    vectors: Vec<u16>,
    /// The driver was told of the configuration's change.
    config_told: bool,
}

/// A virtio device on the PCI bus.
#[derive(Debug)]
pub struct VirtioPci {
    config: Config,
    device: Virtio,
    msix: Option<Msix>,
    registers: Registers,
    /// Vectors that the driver may choose of.
    vectors: u8,
    /// Where the capability is that registers are reached by.
    window: Option<u8>,
}

/// What it remembers besides its configuration space.
#[derive(Serialize, Deserialize)]
struct Saved {
    registers: Registers,
    msix: Option<MsixData>,
    device: VirtioData,
}

impl Registers {
    fn new(queues: usize) -> Registers {
        Registers { config_vector: NO_VECTOR, vectors: vec![NO_VECTOR; queues], ..Registers::default() }
    }
}

/// Adds a capability of a structure of `length` bytes at part `part` of the registers.
fn add_structure(config: &mut Config, kind: u8, part: u64, length: u32, extra: &[u8]) {
    // Length of the capability, its type, the base address register, padding; where the structure is.
    let mut body = vec![16 + extra.len() as u8, kind, REGISTERS_BAR as u8, 0, 0, 0];
    body.extend(((part * PART) as u32).to_le_bytes());
    body.extend(length.to_le_bytes());
    body.extend(extra);
    config.add_capability(VENDOR_CAPABILITY, &body, &[]);
}

/// Adds the capability by which registers are reached in configuration space, for drivers that do not map them; its offset.
fn add_window(config: &mut Config) -> Option<u8> {
    let (mut body, mut writable) = ([0; 18], [0xff; 18]);
    body[..2].copy_from_slice(&[20, WINDOW_TYPE]);
    // The capability's length and type, and its padding.
    for at in [0, 1, 3, 4, 5] {
        writable[at] = 0;
    }
    config.add_capability(VENDOR_CAPABILITY, &body, &writable)
}

impl VirtioPci {
    /// Puts `device` on the bus. What the standard knew from its beginning has the modern interface only.
    pub fn new(device: Virtio, interface: Interface) -> VirtioPci {
        let queues = (0..).take_while(|&index| device.queue(index).is_some()).count();
        let (id, row) = (device.id() as u16, TYPES.iter().find(|(id, ..)| *id == device.id()));
        let legacy = row.map(|row| row.2).filter(|_| interface != Interface::Modern);
        let modern = legacy.is_none() || interface != Interface::Legacy;
        let identity = Identity {
            vendor: VENDOR,
            device: legacy.unwrap_or(FIRST_DEVICE.wrapping_add(id)),
            revision: legacy.is_none().into(),
            class: row.map_or(OTHER_CLASS, |row| row.1),
            subsystem: (VENDOR, if legacy.is_some() { id } else { SUBSYSTEM }),
        };
        let mut config = Config::new(identity).with_bar(MSIX_BAR, BarKind::Memory, MSIX_SIZE).with_interrupt_pin(1);
        if legacy.is_some() {
            config = legacy::with_window(config, &device);
        }
        if modern {
            config = config.with_bar(REGISTERS_BAR, BarKind::Prefetchable64, REGISTERS_SIZE);
        }
        let vectors = if queues > MANY_QUEUES { 2 } else { queues as u8 + 1 };
        let msix = Msix::add(&mut config, vectors, MSIX_BAR as u8, 0, MSIX_PENDING as u32);
        if modern {
            add_structure(&mut config, COMMON_TYPE, COMMON, common::LENGTH, &[]);
            add_structure(&mut config, ISR_TYPE, ISR, 1, &[]);
            add_structure(&mut config, DEVICE_TYPE, DEVICE, PART as u32, &[]);
            add_structure(&mut config, NOTIFY_TYPE, NOTIFY, PART as u32, &NOTIFY_MULTIPLIER.to_le_bytes());
        }
        let window = if modern { add_window(&mut config) } else { None };
        VirtioPci { config, device, msix, registers: Registers::new(queues), vectors, window }
    }

    /// The device.
    pub fn device(&self) -> &Virtio {
        &self.device
    }

    /// The device, for what its host side has done.
    pub fn device_mut(&mut self) -> &mut Virtio {
        &mut self.device
    }

    fn has_msix(&self) -> bool {
        self.msix.as_ref().is_some_and(|msix| msix.is_enabled(&self.config))
    }

    /// A vector that the driver may choose, or none.
    fn vector(&self, value: u16) -> u16 {
        if value < self.vectors.into() { value } else { NO_VECTOR }
    }

    /// The driver chooses a queue's vector.
    fn choose_vector(&mut self, queue: usize, value: u16) {
        let vector = self.vector(value);
        if let Some(place) = self.registers.vectors.get_mut(queue) {
            *place = vector;
        }
    }

    /// The driver resets the device, and with it what it has selected.
    fn reset_device(&mut self) {
        self.device.set_status(0);
        self.registers = Registers::new(self.registers.vectors.len());
    }

    fn read_common(&self, offset: u64) -> u64 {
        let selected = usize::from(self.registers.queue);
        let queue = self.device.queue(selected);
        let features = |select: u32, features: u64| match select {
            0 => features & 0xffff_ffff,
            1 => features >> 32,
            _ => 0,
        };
        match offset {
            common::DEVICE_FEATURE_SELECT => self.registers.device_features.into(),
            common::DEVICE_FEATURE => features(self.registers.device_features, self.device.features()),
            common::DRIVER_FEATURE_SELECT => self.registers.driver_features.into(),
            common::DRIVER_FEATURE => features(self.registers.driver_features, self.device.accepted_features()),
            common::CONFIG_VECTOR => self.registers.config_vector.into(),
            common::NUM_QUEUES => self.registers.vectors.len() as u64,
            common::STATUS => self.device.status().into(),
            // The configuration never changes.
            common::GENERATION => 0,
            common::QUEUE_SELECT => self.registers.queue.into(),
            common::QUEUE_SIZE => queue.map_or(0, |queue| queue.size().into()),
            common::QUEUE_VECTOR => self.registers.vectors.get(selected).copied().unwrap_or(NO_VECTOR).into(),
            common::QUEUE_ENABLE => queue.map_or(0, |queue| queue.ready().into()),
            common::QUEUE_NOTIFY => self.registers.queue.into(),
            _ => match (ring(offset), queue) {
                (Some((ring, high)), Some(queue)) => queue.address(ring) >> if high { 32 } else { 0 } & 0xffff_ffff,
                _ => 0,
            },
        }
    }

    fn write_common(&mut self, offset: u64, value: u32) {
        let selected = usize::from(self.registers.queue);
        match offset {
            common::DEVICE_FEATURE_SELECT => self.registers.device_features = value,
            common::DRIVER_FEATURE_SELECT => self.registers.driver_features = value,
            common::DRIVER_FEATURE => match self.registers.driver_features {
                half @ 0..=1 => self.device.accept_features(half != 0, value),
                _ => tracing::debug!(value, "virtio: features beyond bit 63 ignored"),
            },
            common::CONFIG_VECTOR => self.registers.config_vector = self.vector(value as u16),
            common::STATUS if value as u8 == 0 => self.reset_device(),
            common::STATUS => self.device.set_status(value as u8),
            common::QUEUE_SELECT => self.registers.queue = value as u16,
            common::QUEUE_SIZE => {
                if let Some(queue) = self.device.queue_mut(selected) {
                    queue.set_size(value as u16);
                }
            }
            common::QUEUE_VECTOR => self.choose_vector(selected, value as u16),
            // 0 is not to be written (4.1.4.3.2).
            common::QUEUE_ENABLE if value & 1 != 0 => self.device.set_queue_ready(selected, true),
            _ => {
                if let (Some((ring, high)), Some(queue)) = (ring(offset), self.device.queue_mut(selected)) {
                    let (low, high) = if high { (None, Some(value)) } else { (Some(value), None) };
                    queue.set_address(ring, low, high);
                }
            }
        }
    }

    fn write_register(&mut self, offset: u64, size: u8, value: u64) {
        match offset / PART {
            // Fields of 64 bits may be written whole.
            COMMON if size == 8 => {
                self.write_common(offset, value as u32);
                self.write_common(offset + 4, (value >> 32) as u32);
            }
            COMMON => self.write_common(offset, value as u32),
            NOTIFY => self.device.notify((offset % PART) as usize / NOTIFY_MULTIPLIER as usize),
            // No device has a configuration that the driver may write.
            _ => tracing::debug!(offset, size, "virtio: write ignored"),
        }
    }

    fn read_register(&mut self, offset: u64, size: u8) -> u64 {
        match offset / PART {
            COMMON if size == 8 => self.read_common(offset) | self.read_common(offset + 4) << 32,
            COMMON => self.read_common(offset),
            ISR => {
                let isr = self.device.isr();
                self.device.acknowledge(isr);
                isr.into()
            }
            DEVICE => {
                let mut bytes = [0; 8];
                self.device.read_config(offset % PART, bytes.get_mut(..usize::from(size)).unwrap_or_default());
                u64::from_le_bytes(bytes)
            }
            _ => 0,
        }
    }

    /// What the driver reaches by configuration space: where its data are there, and offset and size of the register.
    fn windowed(&self) -> Option<(u8, u64, u8)> {
        let at = self.window?;
        let field = |offset| self.config.u32(at + offset);
        let (offset, size) = (u64::from(field(window::OFFSET)), field(window::LENGTH));
        let is_one = matches!(size, 1 | 2 | 4) && offset.is_multiple_of(size.into()) && offset < REGISTERS_SIZE;
        let bar = usize::from(self.config.u8(at + window::BAR));
        (is_one && bar == REGISTERS_BAR).then_some((at + window::DATA, offset, size as u8))
    }

    /// Makes messages of what the device has signalled.
    fn signal(&mut self) {
        let signals = self.device.take_signals();
        let told = self.device.isr() & ISR_CONFIG != 0;
        let changed = told && !self.registers.config_told;
        self.registers.config_told = told;
        let Some(msix) = self.msix.as_mut().filter(|msix| msix.is_enabled(&self.config)) else { return };
        // The status is for drivers without vectors.
        self.device.acknowledge(ISR_QUEUE);
        for (queue, &vector) in self.registers.vectors.iter().enumerate() {
            if signals >> queue & 1 != 0 {
                msix.signal(&self.config, vector);
            }
        }
        if changed {
            msix.signal(&self.config, self.registers.config_vector);
        }
    }
}

/// The ring whose address is at `offset` of the common configuration, and whether it is the high half.
fn ring(offset: u64) -> Option<(Ring, bool)> {
    let ring = match offset & !7 {
        common::QUEUE_DESCRIPTORS => Ring::Descriptors,
        common::QUEUE_AVAILABLE => Ring::Available,
        common::QUEUE_USED => Ring::Used,
        _ => return None,
    };
    offset.is_multiple_of(4).then_some((ring, offset & 4 != 0))
}

impl Function for VirtioPci {
    fn config(&self) -> &Config {
        &self.config
    }

    fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    fn config_reading(&mut self, offset: u8) {
        if let Some((data, register, size)) = self.windowed()
            && offset == data
        {
            let value = self.read_register(register, size);
            for (at, byte) in (data..data + size).zip(value.to_le_bytes()) {
                self.config.put(at, byte);
            }
        }
    }

    fn config_written(&mut self, offset: u8) {
        if offset == COMMAND && !self.config.is_master() {
            self.device.lose_bus();
        }
        // The last of the bytes.
        if let Some((data, register, size)) = self.windowed()
            && offset == data + size - 1
        {
            let value = self.config.u32(data) & u32::MAX >> (32 - 8 * u32::from(size));
            self.write_register(register, size, value.into());
        }
    }

    fn bar_read(&mut self, _now: u64, bar: usize, offset: u64, size: u8) -> u64 {
        match (bar, &self.msix) {
            (MSIX_BAR, Some(msix)) if offset < MSIX_PENDING => msix.read_table(offset, size),
            (MSIX_BAR, Some(msix)) => msix.read_pending(offset - MSIX_PENDING, size),
            (legacy::LEGACY_BAR, _) => self.legacy_read(offset, size),
            _ => self.read_register(offset, size),
        }
    }

    fn bar_write(&mut self, _now: u64, bar: usize, offset: u64, size: u8, value: u64) {
        match (bar, &mut self.msix) {
            (MSIX_BAR, Some(msix)) => msix.write_table(offset, size, value),
            (legacy::LEGACY_BAR, _) => self.legacy_write(offset, value),
            _ => self.write_register(offset, size, value),
        }
    }

    fn attend(&mut self, _now: u64) {
        self.device.attend();
    }

    fn adapter(&mut self, _now: u64) -> Option<&mut dyn Adapter> {
        Some(&mut self.device)
    }

    fn intx(&self) -> bool {
        !self.has_msix() && self.device.interrupt()
    }

    fn take_msis(&mut self, out: &mut Vec<MsiMessage>) {
        self.signal();
        if let Some(msix) = &mut self.msix {
            msix.take(&self.config, out);
        }
    }

    fn advance(&mut self, _now: u64) {
        if self.device.has_more() {
            self.device.go_on();
        }
    }

    fn next_deadline(&self) -> Option<u64> {
        // At once.
        self.device.has_more().then_some(0)
    }

    fn reset(&mut self) {
        self.device.reset();
        self.registers = Registers::new(self.registers.vectors.len());
        if let Some(msix) = &mut self.msix {
            msix.reset();
        }
    }

    fn save(&self) -> Vec<u8> {
        let saved = Saved {
            registers: self.registers.clone(),
            msix: self.msix.as_ref().map(Msix::save),
            device: self.device.save(),
        };
        postcard::to_stdvec(&saved).unwrap_or_default()
    }

    fn fits(&self, data: &[u8]) -> bool {
        postcard::from_bytes::<Saved>(data).is_ok_and(|saved| {
            self.device.fits(&saved.device)
                && saved.registers.vectors.len() == self.registers.vectors.len()
                && saved.msix.is_some() == self.msix.is_some()
        })
    }

    fn restore(&mut self, data: &[u8]) {
        let Ok(saved) = postcard::from_bytes::<Saved>(data) else { return };
        self.registers = saved.registers;
        if let (Some(msix), Some(data)) = (&mut self.msix, saved.msix) {
            msix.restore(data);
        }
        self.device.restore(saved.device);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::testing::Driven;
    use crate::pci::{Bus, CAPABILITIES, COMMAND};
    use crate::virtio::Entropy;
    use crate::virtio::testing::{Driver, setup};

    pub(super) struct Ones;

    impl Entropy for Ones {
        fn fill(&mut self, out: &mut [u8]) {
            out.fill(0xaa);
        }
    }

    fn set(f: &mut VirtioPci, offset: u64, size: u8, value: u64) {
        f.bar_write(0, REGISTERS_BAR, offset, size, value);
    }

    fn get(f: &mut VirtioPci, offset: u64, size: u8) -> u64 {
        f.bar_read(0, REGISTERS_BAR, offset, size)
    }

    pub(super) fn messages(f: &mut VirtioPci) -> Vec<MsiMessage> {
        let mut out = Vec::new();
        f.take_msis(&mut out);
        out
    }

    /// A source of random numbers whose driver has set everything up but DRIVER_OK.
    fn negotiated() -> (VirtioPci, Driver) {
        let (ram, mem) = setup();
        let mut f = VirtioPci::new(Virtio::rng(mem, Box::new(Ones)), Interface::Modern);
        for status in [0, 1, 3] {
            set(&mut f, common::STATUS, 1, status);
        }
        set(&mut f, common::DRIVER_FEATURE_SELECT, 4, 1);
        set(&mut f, common::DRIVER_FEATURE, 4, 1);
        set(&mut f, common::STATUS, 1, 11);
        assert_eq!(get(&mut f, common::STATUS, 1), 11);
        let driver = Driver::new(&ram, 1, 8);
        let [descriptors, available, used] = driver.rings(0);
        set(&mut f, common::QUEUE_SIZE, 2, 8);
        set(&mut f, common::QUEUE_DESCRIPTORS, 8, descriptors);
        set(&mut f, common::QUEUE_AVAILABLE, 4, available & 0xffff_ffff);
        set(&mut f, common::QUEUE_AVAILABLE + 4, 4, available >> 32);
        set(&mut f, common::QUEUE_USED, 8, used);
        set(&mut f, common::QUEUE_ENABLE, 2, 1);
        assert_eq!(get(&mut f, common::QUEUE_DESCRIPTORS, 8), descriptors);
        (f, driver)
    }

    #[test]
    fn without_the_bus_it_stops() {
        let (mut f, _driver) = negotiated();
        let command = |f: &mut VirtioPci, value: u8| {
            f.config_mut().put(COMMAND, value);
            f.config_written(COMMAND);
        };
        // One that never was a master is taken to be one: some drivers forget to say so.
        set(&mut f, common::STATUS, 1, 15);
        assert_eq!(get(&mut f, common::STATUS, 1), 15);
        command(&mut f, 6);
        f.config_written(COMMAND + 1);
        assert_eq!(get(&mut f, common::STATUS, 1), 15);
        command(&mut f, 2);
        assert_eq!(get(&mut f, common::STATUS, 1), 11, "its driver starts it again");
        command(&mut f, 6);
        set(&mut f, common::STATUS, 1, 15);
        assert_eq!(get(&mut f, common::STATUS, 1), 15);
    }

    #[test]
    fn who_it_is_and_where_its_structures_are() {
        let (_, mem) = setup();
        let mut f = VirtioPci::new(Virtio::rng(mem, Box::new(Ones)), Interface::Modern);
        assert_eq!((f.config.u32(0), f.config.u32(8)), (0x1044_1af4, 0x00ff_0001));
        let (mut at, mut found) = (f.config.u8(CAPABILITIES), Vec::new());
        while at != 0 {
            found.push((f.config.u8(at), f.config.u8(at + 3), f.config.u32(at + 8)));
            at = f.config.u8(at + 1);
        }
        let kinds: Vec<_> = found.iter().map(|row| (row.0, row.1)).collect();
        assert_eq!(kinds, [(9, 5), (9, 2), (9, 4), (9, 3), (9, 1), (0x11, 0)]);
        assert_eq!(found[1].2, 0x3000);
        set(&mut f, common::DEVICE_FEATURE_SELECT, 4, 1);
        assert_eq!(get(&mut f, common::DEVICE_FEATURE, 4), 1);
        assert_eq!((get(&mut f, common::NUM_QUEUES, 2), get(&mut f, common::QUEUE_VECTOR, 2)), (1, 0xffff));
    }

    #[test]
    fn registers_are_reached_by_configuration_space() {
        let (ram, mem) = setup();
        let (mut bus, _) = Driven::bus();
        let device = VirtioPci::new(Virtio::rng(mem, Box::new(Ones)), Interface::Modern);
        let at = device.window.expect("it has the capability");
        let place = bus.plug(None, Box::new(device)).expect("there is room");
        let select = |bus: &mut Bus, offset: u8| {
            bus.write(0, 4, 1 << 31 | u32::from(place) << 8 | u32::from(at + offset));
        };
        let aim = |bus: &mut Bus, bar: u8, register: u64, size: u8| {
            for (offset, value) in
                [(window::BAR, bar.into()), (window::OFFSET, register as u32), (window::LENGTH, size.into())]
            {
                select(bus, offset);
                bus.write(4, if offset == window::BAR { 1 } else { 4 }, value);
            }
            select(bus, window::DATA);
        };
        let bar = REGISTERS_BAR as u8;
        for (status, size) in [(1, 1), (3, 1)] {
            aim(&mut bus, bar, common::STATUS, size);
            bus.write(4, size, status);
            assert_eq!(bus.read(4, size), status);
        }
        aim(&mut bus, bar, common::DRIVER_FEATURE_SELECT, 4);
        bus.write(4, 4, 1);
        aim(&mut bus, bar, common::DRIVER_FEATURE, 4);
        bus.write(4, 4, 1);
        assert_eq!(bus.read(4, 4), 1, "VIRTIO_F_VERSION_1");
        aim(&mut bus, bar, common::STATUS, 1);
        bus.write(4, 1, 11);
        let mut driver = Driver::new(&ram, 1, 8);
        let set = |bus: &mut Bus, register: u64, size: u8, value: u64| {
            aim(bus, bar, register, size);
            bus.write(4, size, value as u32);
        };
        let [descriptors, available, used] = driver.rings(0);
        set(&mut bus, common::QUEUE_SIZE, 2, 8);
        for (register, value) in
            [(common::QUEUE_DESCRIPTORS, descriptors), (common::QUEUE_AVAILABLE, available), (common::QUEUE_USED, used)]
        {
            set(&mut bus, register, 4, value);
            set(&mut bus, register + 4, 4, value >> 32);
        }
        set(&mut bus, common::QUEUE_ENABLE, 2, 1);
        set(&mut bus, common::STATUS, 1, 15);
        let chain = driver.offer(0, &[], &[4]);
        set(&mut bus, NOTIFY * PART, 2, 0);
        assert_eq!(driver.used(0), [(chain.head, 4)]);
        aim(&mut bus, bar, ISR * PART, 1);
        assert_eq!((bus.read(4, 1), bus.read(4, 1)), (1, 0), "a read acknowledges");
        // What names no register reaches nothing.
        for (bar, register, size) in
            [(1, 0, 4), (bar, 2, 4), (bar, REGISTERS_SIZE, 4), (bar, 0, 3), (bar, 0, 0), (9, 0, 1)]
        {
            aim(&mut bus, bar, register, size);
            bus.write(4, 4, 0);
            bus.read(4, 4);
        }
        aim(&mut bus, bar, common::STATUS, 1);
        assert_eq!(bus.read(4, 1), 15);
    }

    #[test]
    fn a_queue_with_the_interrupt_pin() {
        let (mut f, mut driver) = negotiated();
        let chain = driver.offer(0, &[], &[4]);
        set(&mut f, NOTIFY * PART, 2, 0);
        assert_eq!(driver.used(0), [], "not before DRIVER_OK");
        set(&mut f, common::STATUS, 1, 15);
        assert_eq!(driver.used(0), [(chain.head, 4)]);
        assert!(f.intx() && messages(&mut f).is_empty());
        assert!(f.intx(), "until it is acknowledged");
        assert_eq!((get(&mut f, ISR * PART, 1), f.intx(), get(&mut f, ISR * PART, 1)), (1, false, 0));
        let (data, restored) = (f.save(), VirtioPci::new(Virtio::rng(setup().1, Box::new(Ones)), Interface::Modern));
        assert!(restored.fits(&data) && !restored.fits(&data[1..]));
        set(&mut f, common::STATUS, 1, 0);
        assert_eq!((get(&mut f, common::QUEUE_ENABLE, 2), get(&mut f, common::STATUS, 1)), (0, 0));
    }

    #[test]
    fn a_queue_with_its_vector() {
        let (mut f, mut driver) = negotiated();
        f.config.allow(COMMAND, &[0xff, 0xff]);
        for (offset, value) in [(COMMAND, 6), (f.config.u8(CAPABILITIES), 0)] {
            if value != 0 {
                f.config.put(offset, value);
            }
        }
        let mut at = f.config.u8(CAPABILITIES);
        while f.config.u8(at) != 0x11 {
            at = f.config.u8(at + 1);
        }
        f.config.put(at + 3, 0x80);
        for (offset, value) in [(16, 0xfee0_0000), (24, 0x55), (28, 0)] {
            f.bar_write(0, MSIX_BAR, offset, 4, value);
        }
        set(&mut f, common::QUEUE_VECTOR, 2, 9);
        assert_eq!(get(&mut f, common::QUEUE_VECTOR, 2), 0xffff, "there is no such vector");
        set(&mut f, common::QUEUE_VECTOR, 2, 1);
        set(&mut f, common::STATUS, 1, 15);
        driver.offer(0, &[], &[4]);
        set(&mut f, NOTIFY * PART, 2, 0);
        assert_eq!(messages(&mut f), [MsiMessage { address: 0xfee0_0000, data: 0x55 }]);
        assert!(messages(&mut f).is_empty() && !f.intx());
    }

    #[test]
    fn any_access_is_survived() {
        let (mut f, mut driver) = negotiated();
        let mut state = 7u64;
        for _ in 0..50_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let [a, b, c, d, ..] = (state >> 24).to_le_bytes();
            let (bar, size) = ([REGISTERS_BAR, MSIX_BAR, legacy::LEGACY_BAR][usize::from(a) % 3], 1 << (b & 3));
            let part = if a & 2 != 0 { u64::from(a >> 2 & 7) * PART } else { 0 };
            let offset = part + u64::from(c);
            match d & 3 {
                0 => drop(f.bar_read(0, bar, offset, size)),
                1 if a & 0xf0 == 0 => drop(driver.offer(0, &[], &[4])),
                _ => f.bar_write(0, bar, offset, size, state >> (d & 63)),
            }
            messages(&mut f);
            f.intx();
            f.advance(0);
        }
    }
}
