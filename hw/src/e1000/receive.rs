//! Receiving: filters, descriptors, checksums (3.2).

use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress};

use super::checksum::{add, sum};
use super::regs::*;
use super::{DESCRIPTOR, E1000};
use crate::net::{ETHERNET_HEADER, FrameQueue};

/// Frames and bytes that are given to the guest at once: as long as the adapter may be kept from its vCPU.
const AT_ONCE: (usize, usize) = (64, 128 << 10);
/// The shortest frame, and the longest without and with a VLAN tag, without their check sequence (IEEE 802.3, 3.2.8).
const MIN_FRAME: usize = 60;
const MAX_FRAME: usize = 1514;
const MAX_TAGGED: usize = 1518;
/// The longest at all (13.4.22).
const MAX_LONG: usize = 16384 - CHECK_SEQUENCE;
const CHECK_SEQUENCE: usize = 4;
const TAG: usize = 4;

/// Bits of a descriptor's status (3.2.3.1) and errors (3.2.3.2).
const DONE: u8 = 1 << 0;
const END: u8 = 1 << 1;
const NO_CHECKSUM: u8 = 1 << 2;
const TAGGED: u8 = 1 << 3;
const TCP_CHECKED: u8 = 1 << 5;
const IP_CHECKED: u8 = 1 << 6;
const TCP_ERROR: u8 = 1 << 5;
const IP_ERROR: u8 = 1 << 6;

/// Fields of Ethernet and IPv4.
const TYPE_IPV4: [u8; 2] = [8, 0];
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

/// What is found out about a frame's checksums: status and errors.
fn checksums(frame: &[u8], enabled: u32) -> (u8, u8) {
    let unknown = (NO_CHECKSUM, 0);
    let Some((header, packet)) = frame.split_at_checked(ETHERNET_HEADER) else { return unknown };
    let length = match packet {
        [first, _, high, low, ..] if header.ends_with(&TYPE_IPV4) && first >> 4 == 4 => {
            (usize::from(first & 15) * 4, usize::from(u16::from_be_bytes([*high, *low])))
        }
        _ => return unknown,
    };
    let (head_len, len) = length;
    let Some((head, payload)) = packet.get(..len).and_then(|packet| packet.split_at_checked(head_len)) else {
        return unknown;
    };
    let (mut status, mut errors) = (0, 0);
    if enabled & RXCSUM_IP != 0 {
        status |= IP_CHECKED;
        errors |= if sum(head) == 0xffff { 0 } else { IP_ERROR };
    }
    let [_, _, _, _, _, _, fragment_high, fragment_low, _, protocol, _, _, addresses @ ..] = head else {
        return unknown;
    };
    // Neither offset nor another fragment to come.
    let whole = u16::from_be_bytes([*fragment_high, *fragment_low]) & 0x3fff == 0;
    // A datagram may have none.
    let has = match *protocol {
        PROTOCOL_TCP => true,
        PROTOCOL_UDP => payload.get(6..8).is_some_and(|bytes| bytes != [0, 0]),
        _ => false,
    };
    if enabled & RXCSUM_TCP != 0 && whole && has {
        let addresses = addresses.get(..8).unwrap_or_default();
        let pseudo = add(add(sum(addresses), u16::from(*protocol)), payload.len() as u16);
        status |= TCP_CHECKED;
        errors |= if add(pseudo, sum(payload)) == 0xffff { 0 } else { TCP_ERROR };
    }
    if status == 0 { unknown } else { (status, errors) }
}

impl E1000 {
    /// Whether the frame passes the address and VLAN filters (3.2.1).
    fn passes(&self, frame: &[u8]) -> bool {
        let control = self.regs.get(RCTL);
        let Some((&[a, b, c, d, e, f], rest)) = frame.split_first_chunk::<6>() else { return false };
        let tag = self.tag(frame).map(u32::from).filter(|_| control & RCTL_VLAN_FILTER != 0);
        if let Some(id) = tag.map(|tag| tag & 0xfff)
            && self.regs.get(VFTA + (id >> 5) * 4) >> (id & 31) & 1 == 0
        {
            return false;
        }
        if [a, b, c, d, e, f] == [0xff; 6] && control & RCTL_BROADCAST != 0 {
            return true;
        }
        let all = if a & 1 != 0 { RCTL_ALL_MULTICAST } else { RCTL_ALL_UNICAST };
        let (low, high) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, 0, 0]));
        let exact = (RAL..RAL + 0x80).step_by(8).any(|register| {
            let valid = self.regs.get(register + 4);
            valid & ADDRESS_VALID != 0 && self.regs.get(register) == low && valid & 0xffff == high
        });
        // Twelve bits of the address select one of the table (13.5.1).
        let shift = [4, 3, 2, 0].get((control >> 12 & 3) as usize).copied().unwrap_or(4);
        let hash = u32::from(u16::from_le_bytes([e, f])) >> shift & 0xfff;
        let multicast = a & 1 != 0 && self.regs.get(MTA + (hash >> 5) * 4) >> (hash & 31) & 1 != 0;
        !rest.is_empty() && (control & all != 0 || exact || multicast)
    }

    /// The VLAN tag of a frame.
    fn tag(&self, frame: &[u8]) -> Option<u16> {
        let kind = (self.regs.get(VET) as u16).to_be_bytes();
        match frame.get(ETHERNET_HEADER - 2..)? {
            [a, b, high, low, ..] if [*a, *b] == kind && kind != [0, 0] => Some(u16::from_be_bytes([*high, *low])),
            _ => None,
        }
    }

    /// Bytes of each buffer (13.4.22).
    fn buffer_size(&self) -> usize {
        let control = self.regs.get(RCTL);
        let size = 2048 >> (control >> 16 & 3);
        // The larger sizes have no fourth.
        if control & RCTL_LARGER != 0 && size < 2048 { size * 16 } else { size }
    }

    /// Whether a frame is one for the guest.
    fn takes(&self, frame: &[u8]) -> bool {
        let longest = match self.tag(frame) {
            _ if self.regs.get(RCTL) & RCTL_LONG != 0 => MAX_LONG,
            Some(_) => MAX_TAGGED,
            None => MAX_FRAME,
        };
        frame.len() <= longest && self.passes(frame)
    }

    /// Gives frames to the guest's descriptors; whether to go on.
    pub(super) fn receive_from(&mut self, queue: &mut FrameQueue) -> bool {
        if !self.active(RCTL, RCTL_ENABLE) {
            queue.clear();
            return false;
        }
        let (_, count) = self.regs.ring(RDBAL);
        let (mut frames, mut bytes) = (0, 0);
        let (mut more, mut received) = (false, false);
        while let Some(frame) = queue.front() {
            if frames == AT_ONCE.0 || bytes >= AT_ONCE.1 {
                more = true;
                break;
            }
            (frames, bytes) = (frames + 1, bytes + frame.bytes.len());
            if self.takes(&frame.bytes) {
                let (head, tail) = (self.regs.get(RDH), self.regs.get(RDT));
                let free = if head < count && tail < count { (tail + count - head) % count } else { 0 };
                let needed = (frame.bytes.len().max(MIN_FRAME) + CHECK_SEQUENCE).div_ceil(self.buffer_size()) as u32;
                if free < needed {
                    self.port.starve();
                    break;
                }
                self.deliver(&frame.bytes);
                received = true;
            }
            queue.pop();
        }
        if received {
            self.cause(RX_TIMER | if self.few(count) { RX_FEW } else { 0 });
        }
        more
    }

    /// Whether there are fewer descriptors than software wants there to be (13.4.22).
    fn few(&self, count: u32) -> bool {
        let free = (self.regs.get(RDT) + count).saturating_sub(self.regs.get(RDH)) % count.max(1);
        free <= count >> (1 + (self.regs.get(RCTL) >> 8 & 3))
    }

    /// Writes a frame for which there are descriptors.
    fn deliver(&mut self, frame: &[u8]) {
        let control = self.regs.get(RCTL);
        let tag = self.tag(frame).filter(|_| self.regs.get(CTRL) & CTRL_VLAN != 0);
        let (mut status, errors) = checksums(frame, self.regs.get(RXCSUM));
        let mut bytes = Vec::with_capacity(frame.len().max(MIN_FRAME) + CHECK_SEQUENCE);
        let split = frame.split_at_checked(ETHERNET_HEADER - 2);
        match (tag, split.and_then(|(addresses, rest)| Some((addresses, rest.get(TAG..)?)))) {
            (Some(_), Some((addresses, rest))) => {
                status |= TAGGED;
                bytes.extend_from_slice(addresses);
                bytes.extend_from_slice(rest);
            }
            _ => bytes.extend_from_slice(frame),
        }
        bytes.resize(bytes.len().max(MIN_FRAME), 0);
        let octets = bytes.len() + CHECK_SEQUENCE;
        if control & RCTL_STRIP_CRC == 0 {
            // Nobody looks at it: the adapter has checked it.
            bytes.resize(octets, 0);
        }
        let (base, count) = self.regs.ring(RDBAL);
        let size = self.buffer_size();
        let pieces = bytes.len().div_ceil(size);
        for (index, piece) in bytes.chunks(size).enumerate() {
            let last = index + 1 == pieces;
            let head = self.regs.get(RDH);
            let descriptor = base.wrapping_add(u64::from(head) * DESCRIPTOR);
            let word = [piece.len() as u64, 0, u64::from(if last { status | END } else { 0 } | DONE)];
            let errors = u64::from(if last { errors } else { 0 });
            let written = word[0] | word[2] << 32 | errors << 40 | u64::from(tag.unwrap_or(0)) << 48;
            self.fill(descriptor, piece, written);
            self.regs.set(RDH, (head + 1) % count.max(1));
        }
        for (register, low) in [(GPRC, GORCL), (TPR, TORL)] {
            self.regs.count(register, 1);
            self.regs.count_bytes(low, octets);
        }
    }

    /// Fills a descriptor's buffer and then writes its second half. What is not in RAM is lost.
    fn fill(&self, descriptor: u64, piece: &[u8], written: u64) {
        let Ok(buffer) = self.mem.read_obj::<u64>(GuestAddress(descriptor)).map(u64::from_le) else { return };
        // A buffer at 0 is none (3.2.4).
        if buffer != 0 {
            let _ = self.mem.write_slice(piece, GuestAddress(buffer));
        }
        let _ = self.mem.store(written.to_le(), GuestAddress(descriptor.wrapping_add(8)), Ordering::Release);
    }
}
