//! A virtio driver that knows the protocol well enough to break it in the interesting places (VIRTIO 1.2).

use crate::bench::{Bench, Board, Plug};
use crate::input::Input;

/// Queues are at these places relative to RAM, with their rings at these distances.
const RINGS: u64 = 0x1_0000;
const RING_SIZE: u64 = 0x8000;
const AVAILABLE: u64 = 0x4000;
const USED: u64 = 0x6000;
/// Buffers are from here on.
const BUFFERS: u64 = 0x3_0000;
/// A table that a descriptor leads to.
const INDIRECT_TABLE: u64 = 0x7_0000;
/// Descriptors in a table that the chains here use.
const DESCRIPTORS: u64 = 256;

/// Flags of a descriptor (2.7.5).
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A register by its offsets in the layout of MMIO (4.2.2) and in PCI's common configuration (4.1.4.3), and its size there.
type Register = (u64, u64, u8);
const DRIVER_FEATURES_SELECT: Register = (0x24, 0x08, 4);
const DRIVER_FEATURES: Register = (0x20, 0x0c, 4);
const STATUS: Register = (0x70, 0x14, 1);
const QUEUE_SELECT: Register = (0x30, 0x16, 2);
const QUEUE_SIZE: Register = (0x38, 0x18, 2);
const QUEUE_READY: Register = (0x44, 0x1c, 2);
/// The halves of the rings' addresses.
const RING_ADDRESSES: [(Register, Register); 3] =
    [((0x80, 0x20, 4), (0x84, 0x24, 4)), ((0x90, 0x28, 4), (0x94, 0x2c, 4)), ((0xa0, 0x30, 4), (0xa4, 0x34, 4))];
/// Where a queue's number is written on MMIO, and where PCI has the places to notify.
const NOTIFY_MMIO: u64 = 0x50;
const NOTIFY_PCI: u64 = 0x3000;
/// The base address register that has the structures, and the one that has MSI-X's.
const REGISTERS_BAR: usize = 4;
const MSIX_BAR: usize = 1;

fn put(bench: &mut Bench, register: Register, value: u32) {
    let (mmio, pci, size) = register;
    match bench.board {
        Board::Virt => {
            let slot = bench.slot();
            bench.write(slot + mmio, 4, value.into());
        }
        Board::Pc => {
            if let Some(base) = bench.bar(REGISTERS_BAR) {
                bench.write(base + pci, size, value.into());
            }
        }
    }
}

fn notify(bench: &mut Bench, queue: u64) {
    match bench.board {
        Board::Virt => {
            let slot = bench.slot();
            bench.write(slot + NOTIFY_MMIO, 4, queue);
        }
        Board::Pc => {
            if let Some(base) = bench.bar(REGISTERS_BAR) {
                bench.write(base + NOTIFY_PCI + 4 * queue, 2, queue);
            }
        }
    }
}

fn queues(plug: Plug) -> u64 {
    if matches!(plug, Plug::Block | Plug::Rng | Plug::Share) { 1 } else { 2 }
}

/// The driver's side of the initialization (3.1.1), with a slip now and then.
fn start(bench: &mut Bench, input: &mut Input) {
    for status in [0, 1, 3] {
        put(bench, STATUS, status);
    }
    // All that a driver can want of the devices here, or some of it; those that a device has not it must not accept.
    let wanted = match bench.plug {
        Plug::Block => 0x7644,
        Plug::Net => 0x0000_7fa3,
        Plug::Share => 1,
        _ => 0,
    };
    let rings = input.pick(&[0, 1 << 28, 1 << 29, 3 << 28]);
    let features = if input.one_in(8) { input.u32() } else { wanted & input.u32() | rings };
    for (half, value) in [(0, features), (1, 1)] {
        put(bench, DRIVER_FEATURES_SELECT, half);
        put(bench, DRIVER_FEATURES, value);
    }
    put(bench, STATUS, 11);
    bench.available = [0; 4];
    for queue in 0..queues(bench.plug) {
        put(bench, QUEUE_SELECT, queue as u32);
        let size = if input.one_in(4) { input.u16() } else { input.pick(&[1, 2, 8, 128, 256]) };
        put(bench, QUEUE_SIZE, size.into());
        let base = bench.board.base();
        let rings = base + RINGS + queue * RING_SIZE;
        // A new driver's rings are empty.
        bench.put(rings + AVAILABLE, &[0; 4]);
        for (at, (low, high)) in [0, AVAILABLE, USED].into_iter().zip(RING_ADDRESSES) {
            let address = if input.one_in(32) { input.address(base) } else { rings + at };
            put(bench, low, address as u32);
            put(bench, high, (address >> 32) as u32);
        }
        put(bench, QUEUE_READY, 1);
    }
    if bench.board == Board::Pc && input.one_in(2) {
        vectors(bench, input);
    }
    put(bench, STATUS, 15);
}

/// Gives the queues vectors, and lets MSI-X have its way.
fn vectors(bench: &mut Bench, input: &mut Input) {
    bench.config(0x40, 4, None);
    for register in [0x40, 0x4c, 0x84, 0x98] {
        bench.config(register + 2, 2, Some(0x8000));
    }
    let Some(table) = bench.bar(MSIX_BAR) else { return };
    for vector in 0..4 {
        bench.write(table + 16 * vector, 4, 0xfee0_0000 | u64::from(input.u8()) << 4);
        bench.write(table + 16 * vector + 8, 4, input.u8().into());
        bench.write(table + 16 * vector + 12, 4, (input.u8() & 1).into());
    }
    let Some(registers) = bench.bar(REGISTERS_BAR) else { return };
    bench.write(registers + 0x10, 2, input.below(5));
    for queue in 0..2 {
        put(bench, QUEUE_SELECT, queue);
        bench.write(registers + 0x1a, 2, input.below(5));
    }
}

/// One descriptor.
struct Descriptor {
    address: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// What the first readable buffer of a request holds.
fn request(plug: Plug, input: &mut Input) -> Vec<u8> {
    match plug {
        Plug::Block => {
            let kind = input.pick(&[0u32, 1, 4, 8, 11, 13, 99]);
            let sector = match input.u8() % 4 {
                0 => input.u64(),
                1 => 4096 - u64::from(input.u8() % 4),
                _ => input.u8().into(),
            };
            let mut bytes = kind.to_le_bytes().to_vec();
            bytes.extend([0; 4]);
            bytes.extend(sector.to_le_bytes());
            // What follows is the range of a discard, or data.
            bytes.extend(u64::from(input.u8()).to_le_bytes());
            bytes.extend(input.length().to_le_bytes());
            bytes.extend(u32::from(input.u8() % 3).to_le_bytes());
            bytes
        }
        Plug::Net => {
            // Flags, kind of segmentation, header length, segment size, where a checksum begins, where it goes (5.1.6).
            let mut bytes = vec![input.u8() % 4, input.pick(&[0, 1, 3, 4, 5, 0x81])];
            for _ in 0..4 {
                bytes.extend(u16::from(input.u8()).to_le_bytes());
            }
            bytes.extend([0; 2]);
            bytes.extend([0x52; 12]);
            bytes.extend(input.pick(&[[0x08, 0x00], [0x86, 0xdd], [0x08, 0x06]]));
            bytes.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, input.pick(&[6, 17, 1])]);
            bytes.extend(input.bytes(80));
            bytes
        }
        _ => input.bytes(64),
    }
}

/// Makes a chain available that is right but for a slip now and then.
fn offer(bench: &mut Bench, input: &mut Input) {
    let base = bench.board.base();
    let queue = input.below(queues(bench.plug));
    let rings = base + RINGS + queue * RING_SIZE;
    let (count, head) = (1 + input.below(6) as u16, input.u8());
    let first = request(bench.plug, input);
    bench.put(base + BUFFERS, &first);
    // Devices write what is in queue 0, but for the disk and the shared folder, whose requests have both.
    let readable = match (bench.plug, queue) {
        (Plug::Block | Plug::Share, _) => 1 + input.below(u64::from(count)) as u16,
        (_, 0) => 0,
        _ => count,
    };
    let mut chain = Vec::new();
    for number in 0..count {
        let slip = input.one_in(24);
        let mut flags = if number < readable { 0 } else { WRITE };
        if number + 1 < count {
            flags |= NEXT;
        }
        let address = if slip { input.address(base) } else { base + BUFFERS + 0x1000 * u64::from(number) };
        let len = match (slip, number) {
            (true, _) => input.length(),
            (_, 0) if readable != 0 && bench.plug == Plug::Block && !input.one_in(4) => 16,
            (_, 0) if readable != 0 => first.len() as u32,
            _ => input.pick(&[1, 12, 16, 512, 1514, 4096, 65_536]),
        };
        if slip && input.one_in(2) {
            flags ^= input.u16() & 0xf;
        }
        let next = if slip && input.one_in(2) { input.u16() } else { (u16::from(head) + number + 1) % 256 };
        chain.push(Descriptor { address, len, flags, next });
    }
    if input.one_in(6) {
        let table = base + INDIRECT_TABLE;
        for (number, descriptor) in chain.iter_mut().enumerate() {
            descriptor.next = if input.one_in(32) { input.u8().into() } else { number as u16 + 1 };
            bench.put(table + 16 * number as u64, &descriptor.bytes());
        }
        let len = if input.one_in(8) { input.length() } else { 16 * u32::from(count) };
        let outer = Descriptor { address: table, len, flags: INDIRECT, next: 0 };
        bench.put(rings + 16 * u64::from(head), &outer.bytes());
    } else {
        for (number, descriptor) in chain.iter().enumerate() {
            let at = (u64::from(head) + number as u64) % DESCRIPTORS;
            bench.put(rings + 16 * at, &descriptor.bytes());
        }
    }
    publish(bench, input, queue, head.into());
    if !input.one_in(4) {
        notify(bench, queue);
    }
}

/// Puts a chain into the available ring, of whatever size that is.
fn publish(bench: &mut Bench, input: &mut Input, queue: u64, head: u16) {
    let ring = bench.board.base() + RINGS + queue * RING_SIZE + AVAILABLE;
    let index = bench.available[queue as usize];
    for size in [1, 2, 8, 128, 256] {
        bench.put(ring + 4 + 2 * u64::from(index % size), &head.to_le_bytes());
    }
    let ahead = if input.one_in(40) { input.u16() } else { 1 };
    let index = index.wrapping_add(ahead);
    bench.available[queue as usize] = index;
    bench.put(ring + 2, &index.to_le_bytes());
}

/// One act of the driver.
pub fn act(bench: &mut Bench, input: &mut Input) {
    let base = bench.board.base();
    match input.u8() % 16 {
        0 => start(bench, input),
        1..=10 => offer(bench, input),
        11 => {
            let queue = input.below(4);
            notify(bench, queue);
        }
        12 => put(bench, STATUS, input.pick(&[0, 15, 11, 7, 0x4f, 0xff])),
        13 => {
            // What the driver may write while the device looks.
            let queue = input.below(2);
            let at = base + RINGS + queue * RING_SIZE + input.pick(&[0, AVAILABLE, USED]) + input.below(RING_SIZE / 4);
            let bytes = input.bytes(40);
            bench.put(at, &bytes);
        }
        14 if input.one_in(4) => bench.twin(),
        _ => {
            let register = input.pick(&[QUEUE_SELECT, QUEUE_SIZE, QUEUE_READY, DRIVER_FEATURES, STATUS]);
            let value = input.value() as u32;
            put(bench, register, value);
        }
    }
}
