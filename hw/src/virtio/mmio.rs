//! Virtio over MMIO: version 2 of the register layout (VIRTIO 1.2, 4.2.2), and version 1, the one of before the standard (4.2.4),
//! which QEMU's boards have unless they are told otherwise.

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_mmio::{
    VIRTIO_MMIO_CONFIG, VIRTIO_MMIO_CONFIG_GENERATION, VIRTIO_MMIO_DEVICE_FEATURES, VIRTIO_MMIO_DEVICE_FEATURES_SEL,
    VIRTIO_MMIO_DEVICE_ID, VIRTIO_MMIO_DRIVER_FEATURES, VIRTIO_MMIO_DRIVER_FEATURES_SEL, VIRTIO_MMIO_GUEST_PAGE_SIZE,
    VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INTERRUPT_STATUS, VIRTIO_MMIO_MAGIC_VALUE, VIRTIO_MMIO_QUEUE_ALIGN,
    VIRTIO_MMIO_QUEUE_AVAIL_HIGH, VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_DESC_HIGH, VIRTIO_MMIO_QUEUE_DESC_LOW,
    VIRTIO_MMIO_QUEUE_NOTIFY, VIRTIO_MMIO_QUEUE_NUM, VIRTIO_MMIO_QUEUE_NUM_MAX, VIRTIO_MMIO_QUEUE_PFN,
    VIRTIO_MMIO_QUEUE_READY, VIRTIO_MMIO_QUEUE_SEL, VIRTIO_MMIO_QUEUE_USED_HIGH, VIRTIO_MMIO_QUEUE_USED_LOW,
    VIRTIO_MMIO_SHM_LEN_HIGH, VIRTIO_MMIO_SHM_LEN_LOW, VIRTIO_MMIO_STATUS, VIRTIO_MMIO_VENDOR_ID, VIRTIO_MMIO_VERSION,
};

use super::queue::Ring;
use super::{Virtio, VirtioData};
use crate::fabric::{Drives, IrqLine, Timer};

/// Size in bytes of a slot's registers.
pub(crate) const SIZE: u64 = 0x1000;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
const LEGACY_VERSION: u32 = 1;
/// QEMU's, since drivers know it.
const VENDOR: u32 = u32::from_le_bytes(*b"QEMU");

/// The registers that hold halves of the rings' addresses.
const ADDRESSES: [(u32, u32, Ring); 3] = [
    (VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_DESC_HIGH, Ring::Descriptors),
    (VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, Ring::Available),
    (VIRTIO_MMIO_QUEUE_USED_LOW, VIRTIO_MMIO_QUEUE_USED_HIGH, Ring::Used),
];

/// A slot for a virtio device, plugged or not.
#[derive(Debug, Default)]
pub(crate) struct MmioTransport {
    device: Option<Virtio>,
    select: Select,
    /// It has version 1 of the registers.
    legacy: bool,
}

/// What a slot is wired to.
pub(crate) struct SlotHandles {
    pub(crate) irq: IrqLine,
    pub(crate) timer: Timer,
}

impl Drives for MmioTransport {
    type Handles = SlotHandles;

    fn drive(&mut self, handles: &mut SlotHandles) {
        handles.irq.set(self.irq());
        // At once.
        handles.timer.set(self.device.as_ref().is_some_and(Virtio::has_more).then_some(0));
    }
}

/// What the selecting registers hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Select {
    device_features: u32,
    driver_features: u32,
    queue: u32,
    layout: Layout,
}

/// Where a legacy driver puts a queue: all of it is in one piece that begins with a page.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Layout {
    /// Binary logarithm of the driver's pages.
    page_shift: u32,
    /// What the used ring is aligned to, in bytes, a power of two.
    align: u32,
}

impl Default for Layout {
    fn default() -> Layout {
        Layout { page_shift: 0, align: 4096 }
    }
}

impl Select {
    /// Writes one of the registers that only version 1 has.
    fn write_legacy(&mut self, device: &mut Virtio, offset: u32, value: u32) {
        let index = self.queue as usize;
        match offset {
            VIRTIO_MMIO_GUEST_PAGE_SIZE if value.is_power_of_two() => self.layout.page_shift = value.trailing_zeros(),
            VIRTIO_MMIO_QUEUE_ALIGN if value.is_power_of_two() => self.layout.align = value,
            VIRTIO_MMIO_QUEUE_PFN => {
                // The driver stops using the queue, or begins anew.
                match (value, device.queue_mut(index)) {
                    (0, Some(queue)) => queue.reset(),
                    (0, None) => {}
                    _ => device.place_queue(index, u64::from(value) << self.layout.page_shift, self.layout.align),
                }
            }
            _ => {}
        }
    }
}

/// A slot as data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SlotData {
    select: Select,
    device: Option<VirtioData>,
}

impl MmioTransport {
    /// An empty slot, with version 1 of the registers or with version 2.
    pub(crate) fn new(legacy: bool) -> MmioTransport {
        MmioTransport { legacy, ..MmioTransport::default() }
    }

    /// Plugs a device in; false, and it is dropped, if there is one already.
    pub(crate) fn plug(&mut self, mut device: Virtio) -> bool {
        let free = self.device.is_none();
        if free {
            if self.legacy {
                device.make_legacy();
            }
            self.device = Some(device);
        }
        free
    }

    pub(crate) fn device(&self) -> Option<&Virtio> {
        self.device.as_ref()
    }

    pub(crate) fn device_mut(&mut self) -> Option<&mut Virtio> {
        self.device.as_mut()
    }

    /// The level of the slot's interrupt line.
    fn irq(&self) -> bool {
        self.device.as_ref().is_some_and(Virtio::interrupt)
    }

    /// Has the device go on with what it has left, if it has left something.
    pub(crate) fn go_on(&mut self) {
        if let Some(device) = self.device.as_mut().filter(|device| device.has_more()) {
            device.go_on();
        }
    }

    pub(crate) fn reset(&mut self) {
        self.select = Select::default();
        if let Some(device) = &mut self.device {
            device.reset();
        }
    }

    /// Reads `size` (1, 2, 4 or 8) bytes at `offset`. Registers are 32 bits wide; the configuration space takes any access.
    pub(crate) fn read(&mut self, offset: u64, size: u8) -> u64 {
        let config = offset.checked_sub(u64::from(VIRTIO_MMIO_CONFIG));
        match (config, &self.device) {
            (Some(at), Some(device)) => {
                let mut bytes = [0; 8];
                device.read_config(at, bytes.get_mut(..usize::from(size)).unwrap_or_default());
                u64::from_le_bytes(bytes)
            }
            (None, _) if size == 4 && offset.is_multiple_of(4) => self.read_register(offset as u32).into(),
            _ => 0,
        }
    }

    fn read_register(&mut self, offset: u32) -> u32 {
        match (offset, &self.device) {
            (VIRTIO_MMIO_MAGIC_VALUE, _) => MAGIC,
            (VIRTIO_MMIO_VERSION, _) if self.legacy => LEGACY_VERSION,
            (VIRTIO_MMIO_VERSION, _) => VERSION,
            (VIRTIO_MMIO_VENDOR_ID, _) => VENDOR,
            // Device 0: the slot is empty, and nothing else may be looked at.
            (_, None) => 0,
            (VIRTIO_MMIO_DEVICE_ID, Some(device)) => device.id(),
            (VIRTIO_MMIO_DEVICE_FEATURES, Some(device)) => match self.select.device_features {
                0 => device.features() as u32,
                1 => (device.features() >> 32) as u32,
                _ => 0,
            },
            (VIRTIO_MMIO_INTERRUPT_STATUS, Some(device)) => device.isr().into(),
            (VIRTIO_MMIO_STATUS, Some(device)) => device.status().into(),
            // The configuration never changes.
            (VIRTIO_MMIO_CONFIG_GENERATION, Some(_)) => 0,
            // No shared memory (4.2.2.1).
            (VIRTIO_MMIO_SHM_LEN_LOW | VIRTIO_MMIO_SHM_LEN_HIGH, Some(_)) => u32::MAX,
            (_, Some(device)) => match (offset, device.queue(self.select.queue as usize)) {
                (VIRTIO_MMIO_QUEUE_NUM_MAX, Some(queue)) => queue.max_size().into(),
                (VIRTIO_MMIO_QUEUE_PFN, Some(queue)) if self.legacy => queue.page(self.select.layout.page_shift),
                (VIRTIO_MMIO_QUEUE_READY, Some(queue)) if !self.legacy => queue.ready().into(),
                _ => 0,
            },
        }
    }

    /// Writes the low `size` bytes of `value`. No device has a configuration that the driver may write.
    pub(crate) fn write(&mut self, offset: u64, size: u8, value: u64) {
        let Some(device) = &mut self.device else { return };
        if size != 4 || !offset.is_multiple_of(4) || offset >= u64::from(VIRTIO_MMIO_CONFIG) {
            tracing::debug!(offset, size, "virtio: write ignored");
            return;
        }
        let (offset, value) = (offset as u32, value as u32);
        let index = self.select.queue as usize;
        match offset {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.select.device_features = value,
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.select.driver_features = value,
            VIRTIO_MMIO_QUEUE_SEL => self.select.queue = value,
            VIRTIO_MMIO_DRIVER_FEATURES => match self.select.driver_features {
                half @ 0..=1 => device.accept_features(half != 0, value),
                // Features that nobody has: the driver must not accept them.
                _ => tracing::debug!(value, "virtio: features beyond bit 63 ignored"),
            },
            VIRTIO_MMIO_QUEUE_NUM => {
                if let (Some(queue), Ok(size)) = (device.queue_mut(index), u16::try_from(value)) {
                    queue.set_size(size);
                }
            }
            VIRTIO_MMIO_QUEUE_NOTIFY => device.notify(value as usize),
            VIRTIO_MMIO_INTERRUPT_ACK => device.acknowledge(value as u8),
            VIRTIO_MMIO_STATUS => device.set_status(value as u8),
            _ if self.legacy => self.select.write_legacy(device, offset, value),
            VIRTIO_MMIO_QUEUE_READY => device.set_queue_ready(index, value & 1 != 0),
            _ => {
                let half = ADDRESSES.iter().find_map(|&(low, high, ring)| match offset {
                    at if at == low => Some((ring, Some(value), None)),
                    at if at == high => Some((ring, None, Some(value))),
                    _ => None,
                });
                if let (Some((ring, low, high)), Some(queue)) = (half, device.queue_mut(index)) {
                    queue.set_address(ring, low, high);
                }
            }
        }
    }

    pub(crate) fn save(&self) -> SlotData {
        SlotData { select: self.select, device: self.device.as_ref().map(Virtio::save) }
    }

    /// Whether `data` is of a slot with such a device, or an empty one like this.
    pub(crate) fn fits(&self, data: &SlotData) -> bool {
        match (&self.device, &data.device) {
            (Some(device), Some(data)) => device.fits(data),
            (None, None) => true,
            _ => false,
        }
    }

    /// Replaces the state by `data`, which fits.
    pub(crate) fn restore(&mut self, data: SlotData) {
        self.select = data.select;
        if let (Some(device), Some(data)) = (&mut self.device, data.device) {
            device.restore(data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::Entropy;
    use crate::virtio::testing::{Driver, setup};

    struct Zero;

    impl Entropy for Zero {
        fn fill(&mut self, out: &mut [u8]) {
            out.fill(0xaa);
        }
    }

    fn read(slot: &mut MmioTransport, offset: u32) -> u32 {
        slot.read(offset.into(), 4) as u32
    }

    fn write(slot: &mut MmioTransport, offset: u32, value: u32) {
        slot.write(offset.into(), 4, value.into());
    }

    /// The driver's side of the initialization up to FEATURES_OK (3.1.1).
    fn negotiate(slot: &mut MmioTransport, features: u64) -> u32 {
        write(slot, VIRTIO_MMIO_STATUS, 0);
        write(slot, VIRTIO_MMIO_STATUS, 1);
        write(slot, VIRTIO_MMIO_STATUS, 3);
        for half in 0..2 {
            write(slot, VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
            write(slot, VIRTIO_MMIO_DRIVER_FEATURES, (features >> (32 * half)) as u32);
        }
        write(slot, VIRTIO_MMIO_STATUS, 11);
        read(slot, VIRTIO_MMIO_STATUS)
    }

    #[test]
    fn an_empty_slot_says_so() {
        let mut slot = MmioTransport::default();
        assert_eq!([0, 4, 8].map(|at| read(&mut slot, at)), [0x7472_6976, 2, 0]);
        write(&mut slot, VIRTIO_MMIO_STATUS, 0xff);
        write(&mut slot, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
        assert_eq!((read(&mut slot, VIRTIO_MMIO_STATUS), slot.irq(), slot.read(0x100, 8)), (0, false, 0));
    }

    #[test]
    fn a_driver_through_the_registers() {
        let (ram, mem) = setup();
        let mut slot = MmioTransport::default();
        assert!(slot.plug(Virtio::rng(mem.clone(), Box::new(Zero))));
        assert!(!slot.plug(Virtio::rng(mem, Box::new(Zero))), "it is taken");
        assert_eq!(read(&mut slot, VIRTIO_MMIO_DEVICE_ID), 4);
        write(&mut slot, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
        assert_eq!(read(&mut slot, VIRTIO_MMIO_DEVICE_FEATURES), 1);
        write(&mut slot, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
        assert_eq!(read(&mut slot, VIRTIO_MMIO_DEVICE_FEATURES), 0);
        assert_eq!(negotiate(&mut slot, 1 << 29), 11, "a driver that knows the first 32 features only");
        assert_eq!(negotiate(&mut slot, 1 << 32 | 1 << 5), 3, "a feature that was not offered");
        assert_eq!(negotiate(&mut slot, 1 << 32), 11);
        assert_eq!(read(&mut slot, VIRTIO_MMIO_QUEUE_NUM_MAX), 8);
        write(&mut slot, VIRTIO_MMIO_QUEUE_NUM, 5);
        write(&mut slot, VIRTIO_MMIO_QUEUE_NUM, 1 << 20);
        let mut driver = Driver::new(&ram, 1, 8);
        let [descriptors, available, used] = driver.rings(0);
        for ((low, high, _), address) in ADDRESSES.into_iter().zip([descriptors, available, used]) {
            write(&mut slot, low, address as u32);
            write(&mut slot, high, (address >> 32) as u32);
        }
        write(&mut slot, VIRTIO_MMIO_QUEUE_READY, 1);
        assert_eq!(read(&mut slot, VIRTIO_MMIO_QUEUE_READY), 1);
        let chain = driver.offer(0, &[], &[4]);
        write(&mut slot, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
        assert_eq!(driver.used(0), [], "not before DRIVER_OK");
        write(&mut slot, VIRTIO_MMIO_STATUS, 15);
        assert_eq!(driver.used(0), [(chain.head, 4)], "what was there already");
        driver.offer(0, &[], &[4]);
        write(&mut slot, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
        assert_eq!(driver.used(0).len(), 1);
        assert_eq!((slot.irq(), read(&mut slot, VIRTIO_MMIO_INTERRUPT_STATUS)), (true, 1));
        write(&mut slot, VIRTIO_MMIO_INTERRUPT_ACK, 1);
        assert!(!slot.irq());
        // The driver wants no interrupts.
        driver.suppress(0);
        driver.offer(0, &[], &[4]);
        write(&mut slot, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
        assert_eq!((driver.used(0).len(), slot.irq()), (1, false));
        write(&mut slot, VIRTIO_MMIO_STATUS, 0);
        assert_eq!([VIRTIO_MMIO_STATUS, VIRTIO_MMIO_QUEUE_READY].map(|at| read(&mut slot, at)), [0, 0]);
    }

    #[test]
    fn a_driver_from_before_the_standard() {
        let (ram, mem) = setup();
        let mut slot = MmioTransport::new(true);
        assert!(slot.plug(Virtio::rng(mem, Box::new(Zero))));
        assert_eq!([4, 8].map(|at| read(&mut slot, at)), [1, 4]);
        write(&mut slot, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
        assert_eq!(read(&mut slot, VIRTIO_MMIO_DEVICE_FEATURES), 0, "no version 1 of the standard");
        write(&mut slot, VIRTIO_MMIO_GUEST_PAGE_SIZE, 4096);
        for status in [0, 1, 3] {
            write(&mut slot, VIRTIO_MMIO_STATUS, status);
        }
        // Bit 5 was not offered; what is more than was offered is dropped.
        write(&mut slot, VIRTIO_MMIO_DRIVER_FEATURES, 1 << 5);
        assert_eq!(slot.device().unwrap().accepted_features(), 0);
        write(&mut slot, VIRTIO_MMIO_QUEUE_NUM, 8);
        write(&mut slot, VIRTIO_MMIO_QUEUE_ALIGN, 0x4000);
        // Not where version 2 has its registers.
        write(&mut slot, VIRTIO_MMIO_QUEUE_READY, 1);
        assert_eq!([VIRTIO_MMIO_QUEUE_READY, VIRTIO_MMIO_QUEUE_PFN].map(|at| read(&mut slot, at)), [0, 0]);
        let mut driver = Driver::legacy(&ram, 8, 0x4000);
        let page = (driver.rings(0)[0] >> 12) as u32;
        write(&mut slot, VIRTIO_MMIO_QUEUE_PFN, page);
        assert_eq!(read(&mut slot, VIRTIO_MMIO_QUEUE_PFN), page);
        write(&mut slot, VIRTIO_MMIO_STATUS, 7);
        assert_eq!(read(&mut slot, VIRTIO_MMIO_STATUS), 7);
        let chain = driver.offer(0, &[], &[4]);
        write(&mut slot, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
        assert_eq!((driver.used(0), slot.irq()), (vec![(chain.head, 4)], true));
        write(&mut slot, VIRTIO_MMIO_QUEUE_PFN, 0);
        assert_eq!(read(&mut slot, VIRTIO_MMIO_QUEUE_PFN), 0);
        driver.offer(0, &[], &[4]);
        write(&mut slot, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
        assert_eq!(driver.used(0), [], "the queue is not in use");
        // The size of the driver's pages outlasts a reset of the device: Linux writes it before.
        write(&mut slot, VIRTIO_MMIO_STATUS, 0);
        write(&mut slot, VIRTIO_MMIO_QUEUE_PFN, page);
        assert_eq!(read(&mut slot, VIRTIO_MMIO_QUEUE_PFN), page);
        write(&mut slot, VIRTIO_MMIO_QUEUE_PFN, u32::MAX);
        assert_eq!(read(&mut slot, VIRTIO_MMIO_STATUS) & 64, 64, "outside RAM");
    }

    #[test]
    fn rings_outside_ram_need_a_reset() {
        let (_, mem) = setup();
        let mut slot = MmioTransport::default();
        slot.plug(Virtio::rng(mem, Box::new(Zero)));
        negotiate(&mut slot, 1 << 32);
        write(&mut slot, VIRTIO_MMIO_QUEUE_DESC_HIGH, 0xffff_ffff);
        write(&mut slot, VIRTIO_MMIO_QUEUE_READY, 1);
        assert_eq!(read(&mut slot, VIRTIO_MMIO_STATUS), 11 | 64);
        write(&mut slot, VIRTIO_MMIO_STATUS, 15);
        assert_eq!(read(&mut slot, VIRTIO_MMIO_STATUS), 15 | 64, "only a reset takes it back");
        write(&mut slot, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
        write(&mut slot, VIRTIO_MMIO_STATUS, 0);
        assert_eq!(read(&mut slot, VIRTIO_MMIO_STATUS), 0);
    }

    #[test]
    fn any_access_is_survived() {
        let (_, mem) = setup();
        let mut slot = MmioTransport::default();
        let mut random = 0x1234_5678_9abc_def1u64;
        for i in 0..400_000 {
            if i % 200_000 == 0 {
                slot = MmioTransport::new(i == 0);
                slot.plug(Virtio::net(mem.clone(), [1; 6], None));
            }
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (offset, size) = (random >> 48 & 0x1ff, 1 << (random >> 46 & 3));
            // Mostly registers, and small values, which mean more.
            let offset = if random & 7 == 0 { offset } else { offset & !3 };
            let value = if random & 8 == 0 { random >> 8 } else { random >> 8 & 0xff };
            slot.write(offset, if random & 7 == 0 { size } else { 4 }, value);
            slot.read(offset, size);
        }
    }

    #[test]
    fn state_round_trips() {
        let (ram, mem) = setup();
        let mut slot = MmioTransport::default();
        slot.plug(Virtio::rng(mem.clone(), Box::new(Zero)));
        let mut driver = Driver::start(slot.device_mut().unwrap(), &ram);
        write(&mut slot, VIRTIO_MMIO_QUEUE_SEL, 7);
        driver.offer(0, &[], &[4]);
        write(&mut slot, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
        let bytes = postcard::to_stdvec(&slot.save()).unwrap();
        let data: SlotData = postcard::from_bytes(&bytes).unwrap();
        assert!(!MmioTransport::default().fits(&data));
        let mut other = MmioTransport::default();
        other.plug(Virtio::net(mem.clone(), [0; 6], None));
        assert!(!other.fits(&data));
        let mut back = MmioTransport::default();
        back.plug(Virtio::rng(mem, Box::new(Zero)));
        assert!(back.fits(&data));
        back.restore(data);
        assert_eq!(back.save(), slot.save());
        assert!(back.irq());
        driver.used(0);
        driver.offer(0, &[], &[4]);
        write(&mut back, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
        assert_eq!(driver.used(0).len(), 1, "the queue goes on where it was");
    }
}
