//! Tests of the adapter as a driver sees it: registers, descriptor rings, filters, checksums, segmentation.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mimus_softmmu::{CodeSink, Dropped, Ram};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::*;
use crate::net::{Frame, Offload};
use crate::pci::COMMAND;

const RAM: usize = 4 << 20;
const TX: u64 = 0x1000;
const RX: u64 = 0x2000;
const BUFFERS: u64 = 0x10_0000;
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const RING: u32 = 8;

struct NoCode;

impl CodeSink for NoCode {
    fn code_written(&self, _: u64, _: u64) -> Dropped {
        Dropped::NONE
    }
}

#[derive(Clone, Default)]
struct Peer(Arc<AtomicUsize>, bool);

impl NetPeer for Peer {
    fn notify(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn offloads(&self) -> bool {
        self.1
    }
}

/// An adapter with its driver.
struct Setup {
    ram: Arc<Ram>,
    adapter: E1000,
    peer: Peer,
    tail: u32,
}

impl Setup {
    /// Both rings of 8 descriptors, everything enabled.
    fn new(offloads: bool) -> Setup {
        let ram = Arc::new(Ram::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).unwrap()));
        let peer = Peer(Arc::default(), offloads);
        let adapter = E1000::new(Dma::new(ram.clone(), Arc::new(NoCode)), MAC, Some(Box::new(peer.clone())));
        let mut s = Setup { ram, adapter, peer, tail: 0 };
        s.adapter.config.put(COMMAND, 7);
        for (low, base) in [(TDBAL, TX), (RDBAL, RX)] {
            s.set(low, base as u32);
            s.set(low + 8, RING * 16);
        }
        s.set(TCTL, TCTL_ENABLE | TCTL_PAD);
        s.set(RCTL, RCTL_ENABLE | RCTL_BROADCAST | RCTL_STRIP_CRC);
        s.set(RXCSUM, RXCSUM_IP | RXCSUM_TCP);
        s
    }

    fn set(&mut self, register: u32, value: u32) {
        self.adapter.bar_write(0, BAR_MEMORY, register.into(), 4, value.into());
    }

    fn get(&mut self, register: u32) -> u32 {
        self.adapter.bar_read(0, BAR_MEMORY, register.into(), 4) as u32
    }

    fn put(&self, gpa: u64, bytes: &[u8]) {
        self.ram.memory().write_slice(bytes, GuestAddress(gpa)).unwrap();
    }

    fn bytes(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.ram.memory().read_slice(&mut bytes, GuestAddress(gpa)).unwrap();
        bytes
    }

    /// Adds a descriptor to the ring for sending.
    fn describe(&mut self, address: u64, low: u32, high: u32) {
        let at = TX + u64::from(self.tail) * 16;
        self.put(at, &address.to_le_bytes());
        self.put(at + 8, &low.to_le_bytes());
        self.put(at + 12, &high.to_le_bytes());
        self.tail = (self.tail + 1) % RING;
    }

    /// What goes out after the tail was written.
    fn sent(&mut self) -> Vec<(Vec<u8>, Offload)> {
        self.set(TDT, self.tail);
        let mut frames = Vec::new();
        loop {
            let mut batch = Batch::default();
            let more = self.adapter.transmit(&mut batch);
            frames.extend(batch.iter().map(|(bytes, offload)| (bytes.to_vec(), offload)));
            if !more {
                return frames;
            }
        }
    }

    /// Gives the adapter `count` buffers of 2 KiB.
    fn offer(&mut self, count: u32) {
        for index in 0..RING {
            self.put(RX + u64::from(index) * 16, &(BUFFERS + u64::from(index) * 2048).to_le_bytes());
            self.put(RX + u64::from(index) * 16 + 8, &[0; 8]);
        }
        let tail = (self.get(RDH) + count) % RING;
        self.set(RDT, tail);
    }

    fn receive(&mut self, frames: &[&[u8]]) -> FrameQueue {
        let mut queue = FrameQueue::default();
        frames.iter().for_each(|bytes| queue.push(Frame { bytes: bytes.to_vec(), offload: Offload::default() }));
        assert!(!self.adapter.receive(&mut queue));
        queue
    }
}

/// A TCP segment over IPv4 with this payload; sums are left out as a driver leaves them out for a frame with segments.
fn segment(payload: &[u8], to: [u8; 6]) -> Vec<u8> {
    let mut frame = [&to[..], &MAC, &[8, 0]].concat();
    let len = (40 + payload.len()) as u16;
    frame.extend([0x45, 0, (len >> 8) as u8, len as u8, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]);
    frame.extend([0x10, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x19, 0xff, 0xff, 0, 0, 0, 0]);
    frame.extend(payload);
    frame
}

/// The pseudo header's sum without the length.
fn pseudo() -> u16 {
    checksum::add(checksum::sum(&[10, 0, 2, 15, 10, 0, 2, 2]), 6)
}

/// Whether both checksums of a segment are right.
fn is_right(frame: &[u8]) -> bool {
    let tcp = checksum::add(checksum::sum(&frame[34..]), checksum::add(pseudo(), (frame.len() - 34) as u16));
    (checksum::sum(&frame[14..34]), tcp) == (0xffff, 0xffff)
}

const CONTEXT: u32 = 0x2000_0000;
const DATA: u32 = 0x2010_0000;
const COMMAND_END: u32 = 1 << 24;
const COMMAND_SEGMENT: u32 = 1 << 26;
const COMMAND_REPORT: u32 = 1 << 27;
const TCP_IPV4: u32 = 3 << 24;

/// A context for TCP over IPv4: the sums' places, and sizes of headers and segments.
fn context(s: &mut Setup, size: u32) {
    let (ip, tcp) = (14u64 | 24 << 8 | 33 << 16, 34u64 | 50 << 8);
    s.describe(ip | tcp << 32, CONTEXT | TCP_IPV4, 54 << 8 | size << 16);
}

#[test]
fn a_legacy_frame_goes_out_in_pieces_and_is_reported() {
    let mut s = Setup::new(false);
    s.put(BUFFERS, &[1; 100]);
    s.describe(BUFFERS, 40, 0);
    s.describe(BUFFERS + 40, 10 | COMMAND_END | COMMAND_REPORT, 0);
    let before = s.peer.0.load(Ordering::Relaxed);
    let sent = s.sent();
    assert_eq!(s.peer.0.load(Ordering::Relaxed), before + 1);
    assert_eq!(sent, [([vec![1; 50], vec![0; 10]].concat(), Offload::default())], "filled up to 60 bytes");
    assert_eq!((s.bytes(TX + 12, 1), s.bytes(TX + 28, 1)), (vec![0], vec![1]));
    assert_eq!((s.get(TDH), s.get(GPTC), s.get(GPTC)), (2, 1, 0), "reading clears");
    s.set(IMS, TX_WRITTEN_BACK);
    assert!(s.adapter.intx());
    assert_eq!(s.get(ICR), ASSERTED | TX_WRITTEN_BACK | TX_EMPTY);
    assert!(!s.adapter.intx());
}

#[test]
fn checksums_are_inserted_or_left_to_the_peer() {
    for offloads in [false, true] {
        let mut s = Setup::new(offloads);
        let mut frame = segment(&[7; 101], [2; 6]);
        let length = checksum::add(pseudo(), 121);
        frame[50..52].copy_from_slice(&length.to_be_bytes());
        s.put(BUFFERS, &frame);
        context(&mut s, 0);
        s.describe(BUFFERS, frame.len() as u32 | DATA | COMMAND_END, 3 << 8);
        let sent = s.sent();
        assert_eq!(sent.len(), 1);
        if offloads {
            assert_eq!(sent[0].1.checksum, Some((34, 16)));
            assert_eq!(sent[0].0[50..52], length.to_be_bytes());
        } else {
            assert!(is_right(&sent[0].0));
        }
    }
}

#[test]
fn a_frame_with_segments_is_cut() {
    let mut s = Setup::new(false);
    let payload: Vec<u8> = (0..3500u32).map(|i| i as u8).collect();
    let mut frame = segment(&payload, [2; 6]);
    frame[16..18].fill(0);
    frame[50..52].copy_from_slice(&pseudo().to_be_bytes());
    s.put(BUFFERS, &frame);
    context(&mut s, 1460);
    s.describe(BUFFERS, 54 | DATA | COMMAND_SEGMENT, 3 << 8);
    s.describe(BUFFERS + 54, payload.len() as u32 | DATA | COMMAND_SEGMENT | COMMAND_END, 0);
    let sent = s.sent();
    assert_eq!(sent.iter().map(|(bytes, _)| bytes.len()).collect::<Vec<_>>(), [1514, 1514, 634]);
    assert!(sent.iter().all(|(bytes, _)| is_right(bytes)));
    let sequences: Vec<u8> = sent.iter().flat_map(|(bytes, _)| bytes[40..42].to_vec()).collect();
    assert_eq!(sequences, [0, 1, 5, 181, 11, 105]);
    assert_eq!(
        sent.iter().map(|(bytes, _)| bytes[47]).collect::<Vec<_>>(),
        [0x10, 0x10, 0x19],
        "FIN and PSH at the end"
    );
    assert_eq!(sent.iter().flat_map(|(bytes, _)| bytes[54..].to_vec()).collect::<Vec<_>>(), payload);

    let mut s = Setup::new(true);
    s.put(BUFFERS, &frame);
    context(&mut s, 1460);
    s.describe(BUFFERS, frame.len() as u32 | DATA | COMMAND_SEGMENT | COMMAND_END, 3 << 8);
    let sent = s.sent();
    assert_eq!((sent.len(), sent[0].1), (1, Offload { checksum: Some((34, 16)), segment: 1460, headers: 54 }));
    assert_eq!(checksum::sum(&sent[0].0[14..34]), 0xffff);
}

#[test]
fn frames_come_in_if_they_are_for_the_guest() {
    let mut s = Setup::new(false);
    s.offer(4);
    let broadcast = segment(b"to all", [0xff; 6]);
    let mut wrong = segment(b"a wrong sum", MAC);
    wrong[24..26].copy_from_slice(&[1, 2]);
    let others = segment(b"to somebody else", [2, 0, 0, 0, 0, 1]);
    let queue = s.receive(&[&others, &broadcast, &wrong, &[0xff; 1600], &[1; 3]]);
    assert!(queue.is_empty());
    assert_eq!(s.get(RDH), 2);
    assert_eq!(s.bytes(BUFFERS, broadcast.len()), broadcast);
    let status: Vec<Vec<u8>> = (0..2).map(|index| s.bytes(RX + index * 16 + 8, 6)).collect();
    // Done, the end, both sums looked at: both wrong, since they were left out.
    assert_eq!(status[0], [60, 0, 0, 0, 0x63, 0x60]);
    assert_eq!(status[1][4..], [0x63, 0x60]);
    assert_eq!(s.get(ICR) & RX_TIMER, RX_TIMER);
}

#[test]
fn a_frame_without_descriptors_waits_for_them() {
    let mut s = Setup::new(false);
    s.offer(1);
    let frame = segment(&[3; 1000], MAC);
    let mut queue = s.receive(&[&frame, &frame]);
    assert_eq!(queue.len(), 1);
    let before = s.peer.0.load(Ordering::Relaxed);
    s.offer(3);
    assert_eq!(s.peer.0.load(Ordering::Relaxed), before + 1);
    assert!(!s.adapter.receive(&mut queue) && queue.is_empty());
    // Buffers of 256 bytes: a frame takes several.
    s.set(RCTL, RCTL_ENABLE | RCTL_STRIP_CRC | 3 << 16);
    s.offer(6);
    let head = u64::from(s.get(RDH));
    s.receive(&[&frame]);
    let lengths: Vec<Vec<u8>> = (0..5).map(|i| s.bytes(RX + (head + i) % 8 * 16 + 8, 5)).collect();
    assert_eq!(lengths.iter().map(|l| u16::from_le_bytes([l[0], l[1]])).collect::<Vec<_>>(), [256, 256, 256, 256, 30]);
    assert_eq!(lengths.iter().map(|l| l[4] & 3).collect::<Vec<_>>(), [1, 1, 1, 1, 3]);
}

#[test]
fn without_its_cable_it_loses_frames_and_tells_the_guest() {
    let mut s = Setup::new(false);
    let phy_status = |s: &mut Setup| {
        s.set(MDIC, MDIC_READ | PHY << 21 | 1 << 16);
        s.get(MDIC) & 0xffff
    };
    assert_eq!((s.get(STATUS), phy_status(&mut s)), (STATUS_VALUE, 0x796d));
    s.get(ICR);
    s.adapter.set_link(false);
    assert_eq!((s.get(STATUS), phy_status(&mut s)), (STATUS_VALUE & !STATUS_LINK, 0x7949));
    assert_ne!(s.get(ICR) & LINK_CHANGED, 0);
    s.adapter.set_link(false);
    assert_eq!(s.get(ICR) & LINK_CHANGED, 0, "nothing has changed");
    // Nor does a reset by software bring it up.
    s.set(CTRL, CTRL_RESET);
    assert_eq!((s.get(STATUS) & STATUS_LINK, phy_status(&mut s)), (0, 0x7949));
    s.set(RCTL, RCTL_ENABLE);
    s.offer(3);
    assert!(s.receive(&[&[0xff; 60]]).is_empty());
    assert_eq!(s.get(RDH), 0);
    s.adapter.set_link(true);
    assert_eq!((s.get(STATUS), phy_status(&mut s)), (STATUS_VALUE, 0x796d));
}

#[test]
fn interrupts_are_throttled() {
    let mut s = Setup::new(false);
    s.set(ITR, 1000);
    s.set(IMS, LINK_CHANGED);
    s.adapter.bar_write(5_000, BAR_MEMORY, ICS.into(), 4, LINK_CHANGED.into());
    assert!(s.adapter.intx());
    s.adapter.bar_read(6_000, BAR_MEMORY, ICR.into(), 4);
    s.adapter.bar_write(7_000, BAR_MEMORY, ICS.into(), 4, LINK_CHANGED.into());
    assert_eq!((s.adapter.intx(), s.adapter.next_deadline()), (false, Some(261_000)));
    s.adapter.advance(261_000);
    assert_eq!((s.adapter.intx(), s.adapter.next_deadline()), (true, None));
}

#[test]
fn registers_of_the_phy_and_the_eeprom() {
    let mut s = Setup::new(false);
    s.set(EERD, 1 << 8 | 1);
    assert_eq!(s.get(EERD), 0x1200 << 16 | 1 << 8 | 1 << 4);
    s.set(MDIC, MDIC_READ | PHY << 21 | 2 << 16);
    assert_eq!(s.get(MDIC) & (MDIC_READY | MDIC_ERROR | 0xffff), MDIC_READY | 0x0141);
    s.set(MDIC, MDIC_READ | 7 << 21);
    assert_ne!(s.get(MDIC) & MDIC_ERROR, 0);
    assert_eq!((s.get(RAL), s.get(RAH)), (0x1200_5452, 0x8000_5634));
    s.adapter.bar_write(0, BAR_IO, IO_ADDRESS, 4, RAL.into());
    assert_eq!(s.adapter.bar_read(0, BAR_IO, IO_DATA, 4), 0x1200_5452);
    s.set(CTRL, CTRL_RESET);
    assert_eq!((s.get(RCTL), s.get(STATUS)), (0, STATUS_VALUE));
}

/// U-Boot takes the semaphore before it reads the EEPROM, whatever the adapter; it would see no hardware address otherwise.
#[test]
fn registers_are_kept_where_qemu_keeps_them() {
    let mut s = Setup::new(false);
    s.set(CTRL, CTRL_RESET);
    // Offset, after a reset, after a write of ones.
    let rows = [
        (CTRL, 0x0014_0240, 0x7bff_ffff),
        (STATUS, 0x8008_0783, 0x8008_0783),
        (VET, 0x8100, 0xffff_ffff),
        (0x0e00, 0x602, 0xffff_ffff),
        (0x1000, 0x0010_0030, 0xffff_ffff),
        (0x2410, 0, 0x1fff),
        (0x3418, 0, 0x7ff),
        (0x5820, 0x0022_2300, 0x0022_2300),
        (0x5b50, 0, 0xffff_ffff),
        (0x5b5c, 0, 0),
        (0x5f00, 0, 0x7ff),
    ];
    for (offset, initial, ones) in rows {
        let before = s.get(offset);
        s.set(offset, if offset == CTRL { !(CTRL_RESET | CTRL_PHY_RESET) } else { u32::MAX });
        assert_eq!((before, s.get(offset)), (initial, ones), "{offset:#x}");
    }
}

#[test]
fn hostile_rings_are_survived() {
    let mut s = Setup::new(false);
    // A frame without an end, longer than any; a ring without descriptors; heads and tails beyond it.
    for _ in 0..50 {
        s.describe(BUFFERS, 0xf_ffff | DATA, 0);
        s.sent();
    }
    assert!(s.adapter.transmitter.save().len() <= crate::net::MAX_SEGMENTED + 32);
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random >> 16
    };
    let registers = [RCTL, TCTL, TDBAL, TDLEN, TDH, TDT, RDBAL, RDBAH, RDLEN, RDH, RDT, CTRL, ITR, VET, RXCSUM, RAH];
    for round in 0..20_000 {
        let register = registers[next() as usize % registers.len()];
        let value = match register {
            TDBAL | RDBAL => next() as u32 & 0x3_fff0,
            TDLEN | RDLEN => 128 << (next() % 8),
            RDBAH => u32::from(round % 64 == 0),
            TDH | TDT | RDH | RDT => next() as u32 & 0x3f,
            RCTL | TCTL => next() as u32 | 2,
            _ => next() as u32 & !CTRL_RESET,
        };
        s.set(register, value);
        s.put(next() & 0x3_fff0, &next().to_le_bytes());
        s.put((next() & 0x3_fff0) + 8, &(next() as u32 | (next() as u32 & 0x3f) << 24).to_le_bytes());
        let mut batch = Batch::default();
        s.adapter.transmit(&mut batch);
        assert!(batch.iter().all(|(bytes, _)| (ETHERNET_MIN..=crate::net::MAX_SEGMENTED).contains(&bytes.len())));
        let frame = segment(&[0; 40], MAC);
        let mut queue = FrameQueue::default();
        queue.push(Frame { bytes: frame, offload: Offload::default() });
        s.adapter.receive(&mut queue);
        s.adapter.advance(next());
    }
}

const ETHERNET_MIN: usize = crate::net::ETHERNET_HEADER;

#[test]
fn state_round_trips() {
    let mut s = Setup::new(false);
    s.put(BUFFERS, &[9; 100]);
    s.describe(BUFFERS, 30 | DATA, 0);
    s.sent();
    s.set(IMS, 0xff);
    s.set(EECD, 0x42);
    let data = s.adapter.save();
    let mut back = Setup::new(false);
    assert!(back.adapter.fits(&data) && !back.adapter.fits(&data[1..]) && !back.adapter.fits(&[]));
    back.adapter.restore(&data);
    assert_eq!(back.adapter.save(), data);
    back.adapter.config.put(COMMAND, 7);
    back.tail = s.tail;
    back.put(BUFFERS, &[9; 100]);
    back.describe(BUFFERS, 40 | DATA | COMMAND_END, 0);
    assert_eq!(back.sent()[0].0, [&[9; 60][..], &[9; 10]].concat());
}
