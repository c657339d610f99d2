//! The device of a flow's interface: packets come from the guest's frame and leave as frames for it.

use mimus_hw::net::{ETHERNET_HEADER, Frame, FrameQueue, Offload};
use smoltcp::phy::{Device, DeviceCapabilities, PacketMeta, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetFrame, EthernetProtocol, EthernetRepr, Ipv4Packet, TcpPacket};

use super::super::packet::{IPV4_HEADER, Link};

/// Where in a TCP header the checksum is (RFC 9293, 3.1).
const CHECKSUM: u16 = 16;

/// The two directions of the wire.
pub(super) struct Wire<'a> {
    capabilities: DeviceCapabilities,
    /// Packets to a guest that was never heard of are lost.
    link: Option<Link>,
    packet: Option<&'a [u8]>,
    queue: &'a mut FrameQueue,
}

impl<'a> Wire<'a> {
    /// A wire on which `packet` has come and whose other end is `queue`.
    pub(super) fn new(
        capabilities: DeviceCapabilities,
        link: Option<Link>,
        packet: Option<&'a [u8]>,
        queue: &'a mut FrameQueue,
    ) -> Self {
        Wire { capabilities, link, packet, queue }
    }

    pub(super) fn has_room(&self) -> bool {
        self.queue.has_room()
    }

    fn sender(&mut self) -> Sender<'_> {
        Sender {
            queue: self.queue,
            link: self.link,
            // smoltcp leaves the checksum out, so somebody else has to compute it.
            partial: !self.capabilities.checksum.tcp.tx(),
            segment: 0,
        }
    }
}

impl Device for Wire<'_> {
    type RxToken<'b>
        = Received<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Sender<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sender<'_>)> {
        let packet = self.packet.take()?;
        Some((Received(packet), self.sender()))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sender<'_>> {
        self.has_room().then(|| self.sender())
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.capabilities.clone()
    }
}

/// A packet from the guest.
pub(super) struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// A packet for the guest.
pub(super) struct Sender<'a> {
    queue: &'a mut FrameQueue,
    link: Option<Link>,
    partial: bool,
    segment: u16,
}

/// Notes in a packet's TCP header the sum of the pseudo header, and says what is left to do (RFC 9293, 3.1).
fn leave(bytes: &mut [u8], segment: u16) -> Option<Offload> {
    let packet = Ipv4Packet::new_checked(&*bytes).ok()?;
    let words = [packet.src_addr().octets(), packet.dst_addr().octets()];
    let words = words.iter().flat_map(|[a, b, c, d]| [[*a, *b], [*c, *d]]);
    let len = packet.payload().len();
    let mut sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(word))).sum();
    sum += u32::from(u8::from(packet.next_header())) + len as u32;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let mut tcp = TcpPacket::new_checked(bytes.get_mut(IPV4_HEADER..)?).ok()?;
    tcp.set_checksum(sum as u16);
    let start = ETHERNET_HEADER + IPV4_HEADER;
    let headers = start as u16 + u16::from(tcp.header_len());
    Some(Offload { checksum: Some((start as u16, CHECKSUM)), segment, headers })
}

impl TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut bytes = self.queue.buffer();
        bytes.resize(ETHERNET_HEADER + len, 0);
        let Some(link) = self.link else { return f(bytes.get_mut(ETHERNET_HEADER..).unwrap_or_default()) };
        let mut frame = EthernetFrame::new_unchecked(bytes);
        EthernetRepr { src_addr: link.from, dst_addr: link.to, ethertype: EthernetProtocol::Ipv4 }.emit(&mut frame);
        let result = f(frame.payload_mut());
        let offload = if self.partial { leave(frame.payload_mut(), self.segment) } else { None };
        self.queue.push(Frame { bytes: frame.into_inner(), offload: offload.unwrap_or_default() });
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment = meta.segmentation_offload_size.map_or(0, Into::into);
    }
}
