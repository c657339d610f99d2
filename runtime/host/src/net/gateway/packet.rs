//! Building the frames that the gateway sends.

use std::net::Ipv4Addr;

use mimus_hw::net::{ETHERNET_HEADER, Frame, FrameQueue, Offload};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket,
    UdpRepr,
};

/// Bytes of an IPv4 header without options.
pub(super) const IPV4_HEADER: usize = 20;
/// Bytes of an IPv4 packet on the wire.
pub(super) const MTU: usize = 1500;
/// Bytes of the payload of each fragment of a packet; a multiple of 8 (RFC 791, 3.2).
const FRAGMENT: usize = MTU - IPV4_HEADER;
const HOP_LIMIT: u8 = 64;

/// Addresses of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) from: EthernetAddress,
    pub(super) to: EthernetAddress,
}

/// Queues a frame with `len` bytes of payload, which `fill` writes.
pub(super) fn ethernet(
    queue: &mut FrameQueue,
    link: Link,
    protocol: EthernetProtocol,
    len: usize,
    fill: impl FnOnce(&mut [u8]),
) {
    let mut bytes = queue.buffer();
    bytes.resize(ETHERNET_HEADER + len, 0);
    let repr = EthernetRepr { src_addr: link.from, dst_addr: link.to, ethertype: protocol };
    let mut frame = EthernetFrame::new_unchecked(bytes);
    repr.emit(&mut frame);
    fill(frame.payload_mut());
    queue.push(Frame { bytes: frame.into_inner(), offload: Offload::default() });
}

/// An IPv4 header.
pub(super) fn header(from: Ipv4Addr, to: Ipv4Addr, protocol: IpProtocol, len: usize) -> Ipv4Repr {
    Ipv4Repr { src_addr: from, dst_addr: to, next_header: protocol, payload_len: len, hop_limit: HOP_LIMIT }
}

/// Queues an IPv4 packet with this payload, in fragments numbered `ident` if it is too long for one.
pub(super) fn ipv4(
    queue: &mut FrameQueue,
    link: Link,
    (from, to): (Ipv4Addr, Ipv4Addr),
    protocol: IpProtocol,
    ident: u16,
    payload: &[u8],
) {
    let count = payload.len().div_ceil(FRAGMENT).max(1);
    for index in 0..count {
        let at = index * FRAGMENT;
        let piece = payload.get(at..payload.len().min(at + FRAGMENT)).unwrap_or_default();
        let repr = header(from, to, protocol, piece.len());
        ethernet(queue, link, EthernetProtocol::Ipv4, IPV4_HEADER + piece.len(), |bytes| {
            let mut packet = Ipv4Packet::new_unchecked(bytes);
            repr.emit(&mut packet, &ChecksumCapabilities::ignored());
            if count > 1 {
                packet.set_dont_frag(false);
                packet.set_ident(ident);
                packet.set_more_frags(index + 1 < count);
                packet.set_frag_offset(at as u16);
            }
            packet.fill_checksum();
            packet.payload_mut().copy_from_slice(piece);
        });
    }
}

/// The packet of which `fragment` is one, and `payload` all.
pub(super) fn rejoined(fragment: &Ipv4Packet<&[u8]>, payload: &[u8]) -> Vec<u8> {
    let repr = header(fragment.src_addr(), fragment.dst_addr(), fragment.next_header(), payload.len());
    let mut bytes = vec![0; IPV4_HEADER + payload.len()];
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes);
    repr.emit(&mut packet, &ChecksumCapabilities::default());
    packet.payload_mut().copy_from_slice(payload);
    bytes
}

/// A UDP datagram with its header.
pub(super) fn udp((from, from_port): (Ipv4Addr, u16), (to, to_port): (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let repr = UdpRepr { src_port: from_port, dst_port: to_port };
    let mut bytes = vec![0; repr.header_len() + payload.len()];
    let mut packet = UdpPacket::new_unchecked(&mut bytes);
    let fill = |out: &mut [u8]| out.copy_from_slice(payload);
    repr.emit(&mut packet, &from.into(), &to.into(), payload.len(), fill, &ChecksumCapabilities::default());
    bytes
}
