//! A driver for the devices' tests: rings and buffers in a small RAM.

use std::sync::Arc;

use mimus_softmmu::{CodeSink, Dma, Dropped, Ram};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::Virtio;
use super::queue::Ring;

/// Where RAM begins.
pub(super) const BASE: u64 = 0x8000_0000;
/// Its size in bytes.
pub(super) const SIZE: u64 = 4 << 20;
/// Buffers begin here; the rings are below.
const BUFFERS: u64 = BASE + (1 << 20);
/// Bytes of a queue's rings.
const RINGS: u64 = 0x1_0000;

pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

struct NoCode;

impl CodeSink for NoCode {
    fn code_written(&self, _: u64, _: u64) -> Dropped {
        Dropped::NONE
    }
}

/// RAM, and devices' access to it.
pub(super) fn setup() -> (Arc<Ram>, Dma) {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(BASE), SIZE as usize)]).unwrap();
    let ram = Arc::new(Ram::new(memory));
    (ram.clone(), Dma::new(ram, Arc::new(NoCode)))
}

/// A chain that was made available.
pub(super) struct Offered {
    pub(super) head: u16,
    /// Address and length of each writable buffer.
    pub(super) writable: Vec<(u64, u32)>,
}

/// One queue as the driver sees it.
#[derive(Clone, Default)]
struct Side {
    next: u16,
    available: u16,
    used: u16,
}

pub(super) struct Driver {
    ram: Arc<Ram>,
    size: u16,
    sides: Vec<Side>,
    buffer: u64,
    align: Option<u64>,
}

impl Driver {
    pub(super) fn new(ram: &Arc<Ram>, queues: usize, size: u16) -> Driver {
        ram.memory().write_slice(&vec![0; (BUFFERS - BASE) as usize], GuestAddress(BASE)).unwrap();
        Driver { ram: ram.clone(), size, sides: vec![Side::default(); queues], buffer: BUFFERS, align: None }
    }

    /// Takes a device from reset to DRIVER_OK, with all of its features, up to 16 queues, and the largest size up to 256 that all
    /// of them have.
    pub(super) fn start(device: &mut Virtio, ram: &Arc<Ram>) -> Driver {
        let sizes: Vec<u16> = (0..16).map_while(|index| Some(device.queue(index)?.max_size())).collect();
        let (size, queues) = (sizes.iter().copied().fold(256, u16::min), sizes.len());
        let driver = Driver::new(ram, queues, size);
        device.set_status(0);
        device.set_status(3);
        let features = device.features();
        device.accept_features(false, features as u32);
        device.accept_features(true, (features >> 32) as u32);
        device.set_status(11);
        assert_eq!(device.status(), 11);
        for index in 0..queues {
            let rings = [Ring::Descriptors, Ring::Available, Ring::Used].into_iter().zip(driver.rings(index));
            let queue = device.queue_mut(index).unwrap();
            queue.set_size(size);
            for (ring, address) in rings {
                queue.set_address(ring, Some(address as u32), Some((address >> 32) as u32));
            }
            device.set_queue_ready(index, true);
        }
        device.set_status(15);
        assert_eq!(device.status(), 15);
        driver
    }

    /// A driver of one queue of `size` chains in one piece, whose used ring is aligned to `align` bytes.
    pub(super) fn legacy(ram: &Arc<Ram>, size: u16, align: u64) -> Driver {
        Driver { align: Some(align), ..Driver::new(ram, 1, size) }
    }

    /// Addresses of a queue's descriptor table, available and used ring.
    pub(super) fn rings(&self, queue: usize) -> [u64; 3] {
        let base = BASE + RINGS * queue as u64;
        match self.align {
            None => [base, base + 0x4000, base + 0x8000],
            Some(align) => [base, base + 16 * u64::from(self.size), base + align],
        }
    }

    fn put<T: vm_memory::ByteValued>(&self, value: T, gpa: u64) {
        self.ram.memory().write_obj(value, GuestAddress(gpa)).unwrap();
    }

    fn get<T: vm_memory::ByteValued>(&self, gpa: u64) -> T {
        self.ram.memory().read_obj(GuestAddress(gpa)).unwrap()
    }

    /// Writes a descriptor of a table.
    pub(super) fn describe(&self, table: u64, index: u16, (addr, len): (u64, u32), flags: u16, next: u16) {
        let at = table + 16 * u64::from(index);
        self.put(addr, at);
        self.put(len, at + 8);
        self.put(flags, at + 12);
        self.put(next, at + 14);
    }

    /// Room for a buffer.
    pub(super) fn allocate(&mut self, len: u32) -> u64 {
        let at = self.buffer;
        self.buffer += u64::from(len).next_multiple_of(16);
        at
    }

    /// Makes the chain that begins with descriptor `head` available.
    pub(super) fn publish(&mut self, queue: usize, head: u16) {
        let [_, available, _] = self.rings(queue);
        let index = self.sides[queue].available;
        self.put(head, available + 4 + 2 * u64::from(index % self.size));
        self.set_available(queue, index.wrapping_add(1));
    }

    /// Sets the available ring's index.
    pub(super) fn set_available(&mut self, queue: usize, index: u16) {
        self.sides[queue].available = index;
        self.put(index, self.rings(queue)[1] + 2);
    }

    /// Makes a chain of these buffers available: contents to read, sizes to write.
    pub(super) fn offer(&mut self, queue: usize, readable: &[&[u8]], writable: &[u32]) -> Offered {
        let [table, ..] = self.rings(queue);
        let mut pieces = Vec::new();
        for bytes in readable {
            let at = self.allocate(bytes.len() as u32);
            self.ram.memory().write_slice(bytes, GuestAddress(at)).unwrap();
            pieces.push((at, bytes.len() as u32, 0));
        }
        let mut rooms = Vec::new();
        for &len in writable {
            let at = self.allocate(len);
            rooms.push((at, len));
            pieces.push((at, len, WRITE));
        }
        if pieces.is_empty() {
            pieces.push((BUFFERS, 0, 0));
        }
        let head = self.sides[queue].next;
        let last = pieces.len() - 1;
        for (i, (at, len, flags)) in pieces.into_iter().enumerate() {
            let index = self.sides[queue].next;
            let next = (index + 1) % self.size;
            self.describe(table, index, (at, len), flags | if i == last { 0 } else { NEXT }, next);
            self.sides[queue].next = next;
        }
        self.publish(queue, head);
        Offered { head, writable: rooms }
    }

    /// Chains that came back since the last call: head and bytes written.
    pub(super) fn used(&mut self, queue: usize) -> Vec<(u16, u32)> {
        let [_, available, used] = self.rings(queue);
        let end: u16 = self.get(used + 2);
        let mut chains = Vec::new();
        while self.sides[queue].used != end {
            let at = used + 4 + 8 * u64::from(self.sides[queue].used % self.size);
            chains.push((self.get::<u32>(at) as u16, self.get::<u32>(at + 4)));
            self.sides[queue].used = self.sides[queue].used.wrapping_add(1);
        }
        // used_event: an interrupt at the next one.
        self.put(end, available + 4 + 2 * u64::from(self.size));
        chains
    }

    /// Sets the flag that suppresses interrupts.
    pub(super) fn suppress(&mut self, queue: usize) {
        self.put(1u16, self.rings(queue)[1]);
    }

    /// The contents of buffers.
    pub(super) fn bytes(&self, buffers: &[(u64, u32)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &(at, len) in buffers {
            let start = bytes.len();
            bytes.resize(start + len as usize, 0);
            self.ram.memory().read_slice(&mut bytes[start..], GuestAddress(at)).unwrap();
        }
        bytes
    }
}
