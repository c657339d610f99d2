//! Sending: legacy, context and data descriptors, checksums, segmentation (3.3, 3.4, 3.5).

use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress};

use super::checksum::{add, sum};
use super::regs::*;
use super::{DESCRIPTOR, E1000, take};
use crate::net::{Batch, ETHERNET_HEADER, MAX_FRAME, MAX_SEGMENTED, Offload};

/// Descriptors that are done at once.
const AT_ONCE: u32 = 128;
/// The shortest frame without its check sequence (IEEE 802.3, 3.2.8).
const MIN_FRAME: usize = 60;
/// The smallest payload of a segment that is taken seriously. Less would make of one frame very many.
const MIN_SEGMENT: usize = 64;
/// Bytes of headers of a frame with segments, at most (3.5.6).
const MAX_HEADERS: usize = 240;

/// Bits of a descriptor's command (3.3.3.1, 3.3.7.1).
const END: u8 = 1 << 0;
const CHECKSUM: u8 = 1 << 2;
const SEGMENT: u8 = 1 << 2;
const REPORT: u8 = 1 << 3;
const EXTENDED: u8 = 1 << 5;
const VLAN: u8 = 1 << 6;
/// Bits of a context's command (3.3.6.1).
const CONTEXT_TCP: u8 = 1 << 0;
const CONTEXT_IPV4: u8 = 1 << 1;
/// The type of a data descriptor; 0 is a context.
const TYPE_DATA: u32 = 1;
/// Bits of a data descriptor's options (3.3.7.2).
const INSERT_IP: u8 = 1 << 0;
const INSERT_TCP: u8 = 1 << 1;
/// In the written-back status: done.
const DONE: u8 = 1;

/// Bits of the TCP header (RFC 9293, 3.1), and where they and other fields are.
const TCP_FLAGS: usize = 13;
const TCP_LAST_FLAGS: u8 = 1 << 0 | 1 << 3;
const TCP_CHECKSUM: usize = 16;
const UDP_LENGTH: usize = 4;
const IPV4_LENGTH: usize = 2;
const IPV4_IDENT: usize = 4;
const IPV6_LENGTH: usize = 4;
const IPV6_HEADER: usize = 40;

/// A checksum that is to be inserted: bytes `start..end` (to the frame's end if 0) are summed, and the sum put at `offset`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Insert {
    start: u8,
    offset: u8,
    end: u16,
}

impl Insert {
    /// Of a context's first or second four bytes.
    fn parse([start, offset, low, high]: [u8; 4]) -> Insert {
        Insert { start, offset, end: u16::from_le_bytes([low, high]) }
    }

    fn bytes(self) -> [u8; 4] {
        let [low, high] = self.end.to_le_bytes();
        [self.start, self.offset, low, high]
    }

    /// Inserts the checksum; what does not fit into the frame is left out.
    fn apply(self, frame: &mut [u8]) {
        let end = if self.end == 0 { frame.len() } else { frame.len().min(usize::from(self.end) + 1) };
        let Some(bytes) = frame.get(self.start.into()..end) else { return };
        // In UDP, 0 means that there is none (RFC 768).
        let checksum = match !sum(bytes) {
            0 => 0xffff,
            checksum => checksum,
        };
        put(frame, self.offset.into(), checksum);
    }
}

fn put(frame: &mut [u8], offset: usize, value: u16) {
    if let Some(place) = frame.get_mut(offset..offset + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

fn word(frame: &[u8], offset: usize) -> u16 {
    frame.get(offset..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

/// What a context descriptor says (3.3.6).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Context {
    ip: Insert,
    tcp: Insert,
    command: u8,
    headers: u8,
    segment: u16,
}

/// The frame that descriptors describe part by part.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Transmitter {
    context: Context,
    frame: Vec<u8>,
    /// It is too long, or not in RAM: it is dropped at its end.
    bad: bool,
    /// Of the first data descriptor: options, and whether there are segments.
    begun: bool,
    options: u8,
    segments: bool,
}

/// A descriptor by its fields.
struct Fields {
    address: u64,
    /// Of a legacy descriptor also the checksum's offset.
    length: u32,
    command: u8,
    /// Checksum start or options, in the byte after the status.
    options: u8,
    special: u16,
}

impl Fields {
    fn parse(bytes: &[u8; 16]) -> Fields {
        let [a, b, c, d, e, f, g, h, l0, l1, l2, command, _, options, s0, s1] = *bytes;
        Fields {
            address: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            length: u32::from_le_bytes([l0, l1, l2, 0]),
            command,
            options,
            special: u16::from_le_bytes([s0, s1]),
        }
    }
}

impl Transmitter {
    pub(super) fn save(&self) -> Vec<u8> {
        let Context { ip, tcp, command, headers, segment } = self.context;
        let mut bytes = [ip.bytes(), tcp.bytes()].concat();
        bytes.extend([command, headers, self.bad.into(), self.begun.into(), self.options, self.segments.into()]);
        bytes.extend(segment.to_le_bytes());
        bytes.extend((self.frame.len() as u32).to_le_bytes());
        bytes.extend(&self.frame);
        bytes
    }

    pub(super) fn restore(data: &mut &[u8]) -> Option<Transmitter> {
        let (ip, tcp) = (Insert::parse(take(data)?), Insert::parse(take(data)?));
        let [command, headers, bad, begun, options, segments] = take(data)?;
        let segment = u16::from_le_bytes(take(data)?);
        let len = u32::from_le_bytes(take(data)?) as usize;
        let (frame, rest) = data.split_at_checked(len).filter(|_| len <= MAX_SEGMENTED)?;
        *data = rest;
        let context = Context { ip, tcp, command, headers, segment };
        let (bad, begun, segments) = (bad != 0, begun != 0, segments != 0);
        Some(Transmitter { context, frame: frame.to_vec(), bad, begun, options, segments })
    }

    fn forget_frame(&mut self) {
        self.frame.clear();
        (self.bad, self.begun, self.options, self.segments) = (false, false, 0, false);
    }

    /// Cuts a frame with segments (3.5.6): calls `send` with each.
    fn cut(&self, mut send: impl FnMut(&mut [u8])) {
        let Context { ip, tcp, command, headers, segment } = self.context;
        let Some((head, payload)) = self.frame.split_at_checked(headers.into()) else { return };
        let (ip_at, tcp_at, size) = (usize::from(ip.start), usize::from(tcp.start), usize::from(segment));
        let count = payload.len().div_ceil(size).max(1);
        let sequence = head.get(tcp_at + 4..).and_then(|rest| rest.first_chunk()).map_or(0, |b| u32::from_be_bytes(*b));
        let mut frame = Vec::with_capacity(head.len() + size);
        for index in 0..count {
            let at = index * size;
            let piece = payload.get(at..payload.len().min(at + size)).unwrap_or_default();
            frame.clear();
            frame.extend_from_slice(head);
            frame.extend_from_slice(piece);
            let frame = frame.as_mut_slice();
            let len = frame.len();
            if command & CONTEXT_IPV4 != 0 {
                put(frame, ip_at + IPV4_LENGTH, len.saturating_sub(ip_at) as u16);
                put(frame, ip_at + IPV4_IDENT, word(head, ip_at + IPV4_IDENT).wrapping_add(index as u16));
                ip.apply(frame);
            } else {
                put(frame, ip_at + IPV6_LENGTH, len.saturating_sub(ip_at + IPV6_HEADER) as u16);
            }
            let transport = len.saturating_sub(tcp_at) as u16;
            if command & CONTEXT_TCP != 0 {
                if let Some(place) = frame.get_mut(tcp_at + 4..tcp_at + 8) {
                    place.copy_from_slice(&sequence.wrapping_add(at as u32).to_be_bytes());
                }
                if let Some(flags) = frame.get_mut(tcp_at + TCP_FLAGS).filter(|_| index + 1 < count) {
                    *flags &= !TCP_LAST_FLAGS;
                }
            } else {
                put(frame, tcp_at + UDP_LENGTH, transport);
            }
            // Where the checksum goes is the pseudo header's sum without the length.
            put(frame, tcp.offset.into(), add(word(frame, tcp.offset.into()), transport));
            tcp.apply(frame);
            send(frame);
        }
    }

    /// Makes of a frame with segments one that a peer takes as it is, if it is TCP over IPv4.
    fn whole(&mut self) -> Option<Offload> {
        let Context { ip, tcp, command, headers, segment } = self.context;
        let (ip_at, tcp_at) = (usize::from(ip.start), usize::from(tcp.start));
        let len = self.frame.len().checked_sub(ip_at).filter(|&len| len <= 0xffff)? as u16;
        let transport = self.frame.len().checked_sub(tcp_at)? as u16;
        if command & CONTEXT_TCP == 0 || command & CONTEXT_IPV4 == 0 || usize::from(tcp.offset) != tcp_at + TCP_CHECKSUM
        {
            return None;
        }
        put(&mut self.frame, ip_at + IPV4_LENGTH, len);
        ip.apply(&mut self.frame);
        let pseudo = add(word(&self.frame, tcp.offset.into()), transport);
        put(&mut self.frame, tcp.offset.into(), pseudo);
        Some(Offload { checksum: Some((tcp_at as u16, TCP_CHECKSUM as u16)), segment, headers: headers.into() })
    }
}

impl E1000 {
    /// Adds what the guest has sent to `batch`; whether there is more.
    pub(super) fn transmit_to(&mut self, batch: &mut Batch) -> bool {
        let (base, count) = self.regs.ring(TDBAL);
        let (mut head, tail) = (self.regs.get(TDH), self.regs.get(TDT));
        if !self.active(TCTL, TCTL_ENABLE) || head >= count || tail >= count || head == tail {
            return false;
        }
        let (mut causes, mut more) = (0, false);
        for done in 0.. {
            if head == tail {
                causes |= TX_EMPTY;
                break;
            }
            if done == AT_ONCE || !batch.has_room() {
                more = true;
                break;
            }
            if self.descriptor(base.wrapping_add(u64::from(head) * DESCRIPTOR), batch) {
                causes |= TX_WRITTEN_BACK;
            }
            head = (head + 1) % count;
        }
        self.regs.set(TDH, head);
        self.cause(causes);
        more
    }

    /// Does the descriptor at `gpa`; whether that was reported.
    fn descriptor(&mut self, gpa: u64, batch: &mut Batch) -> bool {
        let mut bytes = [0; 16];
        if self.mem.read_slice(&mut bytes, GuestAddress(gpa)).is_err() {
            return false;
        }
        let fields = Fields::parse(&bytes);
        let data = fields.command & EXTENDED != 0 && fields.length >> 20 == TYPE_DATA;
        if fields.command & EXTENDED != 0 && !data {
            self.context(&bytes, fields.command);
        } else {
            self.data(&fields, data, batch);
        }
        if fields.command & REPORT == 0 {
            return false;
        }
        let [.., status, _, _, _] = bytes;
        // It was read from there.
        let _ = self.mem.store(status | DONE, GuestAddress(gpa + 12), Ordering::Release);
        true
    }

    fn context(&mut self, bytes: &[u8; 16], command: u8) {
        let [a, b, c, d, e, f, g, h, .., headers, s0, s1] = *bytes;
        self.transmitter.context = Context {
            ip: Insert::parse([a, b, c, d]),
            tcp: Insert::parse([e, f, g, h]),
            command,
            headers,
            segment: u16::from_le_bytes([s0, s1]),
        };
    }

    /// A piece of a frame.
    fn data(&mut self, fields: &Fields, extended: bool, batch: &mut Batch) {
        let transmitter = &mut self.transmitter;
        if !std::mem::replace(&mut transmitter.begun, true) && extended {
            transmitter.options = fields.options;
            transmitter.segments = fields.command & SEGMENT != 0;
        }
        let length = if extended { fields.length & 0xf_ffff } else { fields.length & 0xffff } as usize;
        let start = transmitter.frame.len();
        if start + length > MAX_SEGMENTED {
            transmitter.bad = true;
        }
        if !transmitter.bad {
            transmitter.frame.resize(start + length, 0);
            let place = transmitter.frame.get_mut(start..).unwrap_or_default();
            transmitter.bad = self.mem.read_slice(place, GuestAddress(fields.address)).is_err();
        }
        if fields.command & END == 0 {
            return;
        }
        if !transmitter.bad {
            if !extended && fields.command & CHECKSUM != 0 {
                let offset = (fields.length >> 16) as u8;
                Insert { start: fields.options, offset, end: 0 }.apply(&mut transmitter.frame);
            }
            let vlan = (fields.command & VLAN != 0 && self.regs.get(CTRL) & CTRL_VLAN != 0).then_some(fields.special);
            self.finish(vlan, batch);
        }
        self.transmitter.forget_frame();
    }

    /// Sends the frame that is complete.
    fn finish(&mut self, vlan: Option<u16>, batch: &mut Batch) {
        let unfinished = vlan.is_none() && self.port.offloads();
        let tag = vlan.map(|tag| [self.regs.get(VET) as u16, tag]);
        let pad = self.regs.get(TCTL) & TCTL_PAD != 0;
        let (mut packets, mut octets) = (0, 0);
        let mut send = |frame: &mut [u8], offload: Offload| {
            let tag: Vec<u8> = tag.into_iter().flatten().flat_map(u16::to_be_bytes).collect();
            // Behind the addresses (IEEE 802.1Q, 9.3).
            let Some((addresses, rest)) = frame.split_at_checked(ETHERNET_HEADER - 2) else { return };
            let bytes = frame.len() + tag.len();
            let len = if pad { bytes.max(MIN_FRAME) } else { bytes };
            if bytes < ETHERNET_HEADER || len > MAX_FRAME && offload.segment == 0 {
                return;
            }
            batch.add(len, offload, |out| {
                let parts = addresses.iter().chain(&tag).chain(rest);
                if tag.is_empty() {
                    out.get_mut(..frame.len()).into_iter().for_each(|out| out.copy_from_slice(frame));
                } else {
                    out.iter_mut().zip(parts).for_each(|(out, byte)| *out = *byte);
                }
                true
            });
            (packets, octets) = (packets + 1, octets + len + 4);
        };
        let transmitter = &mut self.transmitter;
        let Context { ip, tcp, headers, segment, .. } = transmitter.context;
        if transmitter.segments {
            let whole = if unfinished && usize::from(segment) >= MIN_SEGMENT { transmitter.whole() } else { None };
            match whole {
                Some(offload) => send(&mut transmitter.frame, offload),
                None if usize::from(segment) < MIN_SEGMENT || usize::from(headers) > MAX_HEADERS => {
                    tracing::debug!(segment, headers, "e1000: a frame with strange segments is dropped");
                }
                None => transmitter.cut(|frame| send(frame, Offload::default())),
            }
        } else {
            if transmitter.options & INSERT_IP != 0 {
                ip.apply(&mut transmitter.frame);
            }
            let mut offload = Offload::default();
            if transmitter.options & INSERT_TCP != 0 {
                let offset = u16::from(tcp.offset).checked_sub(tcp.start.into());
                match offset.filter(|_| unfinished && tcp.end == 0) {
                    Some(offset) => offload.checksum = Some((tcp.start.into(), offset)),
                    None => tcp.apply(&mut transmitter.frame),
                }
            }
            send(&mut transmitter.frame, offload);
        }
        for (register, low) in [(GPTC, GOTCL), (TPT, TOTL)] {
            self.regs.count(register, packets);
            self.regs.count_bytes(low, octets);
        }
    }
}
