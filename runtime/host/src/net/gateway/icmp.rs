//! Pings, and what is said of packets that reach nobody.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Repr, UdpPacket, UdpRepr};

use super::{Destination, Gateway, KINDS, PING, packet};
use crate::net::Context;

/// Hosts that are pinged at a time, at most.
const PINGS: usize = 32;
/// How long an answer is waited for.
const LIFETIME: Duration = Duration::from_secs(20);

/// The socket for the echo requests of a guest's program to a host.
#[derive(Debug)]
struct Ping {
    guest: Ipv4Addr,
    ident: u16,
    to: Ipv4Addr,
    socket: UdpSocket,
    last: Instant,
}

/// The pings that are under way.
#[derive(Debug, Default)]
pub(super) struct Pings(Vec<Option<Ping>>);

impl Pings {
    pub(super) fn expire(&mut self, now: Instant) {
        for slot in &mut self.0 {
            if slot.as_ref().is_some_and(|ping| ping.last + LIFETIME <= now) {
                *slot = None;
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.iter().flatten().map(|ping| ping.last + LIFETIME).min()
    }

    /// The slot of the socket for these; `None` if the host does not allow one.
    fn find(&mut self, guest: Ipv4Addr, ident: u16, to: Ipv4Addr, cx: &Context) -> Option<&mut Ping> {
        let same = |ping: &Ping| (ping.guest, ping.ident, ping.to) == (guest, ident, to);
        let index = match self.0.iter().position(|slot| slot.as_ref().is_some_and(same)) {
            Some(index) => index,
            None => {
                let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
                let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, Some(ipproto::ICMP)).ok()?;
                let socket = UdpSocket::from(socket);
                socket.connect((to, 0)).ok()?;
                let free = self.0.iter().position(Option::is_none).or_else(|| {
                    // The one that waits for the longest time makes room.
                    let oldest = self.0.iter().enumerate().min_by_key(|(_, slot)| slot.as_ref().map(|ping| ping.last));
                    oldest.map(|(index, _)| index).filter(|_| self.0.len() == PINGS)
                });
                let index = free.unwrap_or_else(|| {
                    self.0.push(None);
                    self.0.len() - 1
                });
                cx.poll.add(&socket, PING << KINDS | index as u64, EventFlags::IN).ok()?;
                *self.0.get_mut(index)? = Some(Ping { guest, ident, to, socket, last: cx.now });
                index
            }
        };
        let ping = self.0.get_mut(index)?.as_mut()?;
        ping.last = cx.now;
        Some(ping)
    }
}

fn emit(repr: &Icmpv4Repr) -> Vec<u8> {
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&mut Icmpv4Packet::new_unchecked(bytes.as_mut_slice()), &ChecksumCapabilities::default());
    bytes
}

impl Gateway {
    pub(super) fn icmp_packet(&mut self, (from, to): (Ipv4Addr, Ipv4Addr), bytes: &[u8], cx: &mut Context) {
        let Ok(request) = Icmpv4Packet::new_checked(bytes) else { return };
        let repr = Icmpv4Repr::parse(&request, &ChecksumCapabilities::default());
        let Ok(Icmpv4Repr::EchoRequest { ident, seq_no, data }) = repr else { return };
        if to == self.config.host || to == self.config.dns {
            let reply = Icmpv4Repr::EchoReply { ident, seq_no, data };
            self.send_icmp(to, from, &reply, cx);
            return;
        }
        match self.destination(SocketAddrV4::new(to, 0)) {
            Destination::Host(_) => {}
            Destination::Unreachable => return self.unreachable_ping((from, to), bytes, cx),
            Destination::Lost => return,
        }
        let sent = match self.pings.find(from, ident, to, cx) {
            Some(ping) => ping.socket.send(bytes).is_ok(),
            None => false,
        };
        if !sent {
            self.unreachable_ping((from, to), bytes, cx);
        }
    }

    /// An answer.
    pub(super) fn ping_event(&mut self, index: usize, cx: &mut Context) {
        let mut buffer = vec![0; 0x1_0000];
        while let Some(Some(ping)) = self.pings.0.get(index) {
            let Ok(len) = ping.socket.recv(&mut buffer) else { return };
            let bytes = buffer.get(..len).unwrap_or_default();
            let Ok(answer) = Icmpv4Packet::new_checked(bytes) else { continue };
            let repr = Icmpv4Repr::parse(&answer, &ChecksumCapabilities::ignored());
            if let Ok(Icmpv4Repr::EchoReply { seq_no, data, .. }) = repr {
                // The host has put a number of its own in place of the guest's.
                let (from, to, reply) =
                    (ping.to, ping.guest, Icmpv4Repr::EchoReply { ident: ping.ident, seq_no, data });
                self.send_icmp(from, to, &reply, cx);
            }
        }
    }

    fn send_icmp(&mut self, from: Ipv4Addr, to: Ipv4Addr, repr: &Icmpv4Repr, cx: &mut Context) {
        let Some(link) = self.link_to(to) else { return };
        let ident = self.udp.next_ident();
        packet::ipv4(cx.queue, link, (from, to), IpProtocol::Icmp, ident, &emit(repr));
    }

    /// Tells the guest that nothing is at the end of `sent`, whose payload began with `data`.
    fn unreachable(&mut self, reason: Icmpv4DstUnreachable, sent: Ipv4Repr, data: &[u8], cx: &mut Context) {
        // 8 bytes of it are enough to know it by (RFC 792, "Destination Unreachable Message").
        let data = data.get(..8).unwrap_or(data);
        let repr = Icmpv4Repr::DstUnreachable { reason, header: sent, data };
        self.send_icmp(self.config.host, sent.src_addr, &repr, cx);
    }

    fn unreachable_ping(&mut self, (from, to): (Ipv4Addr, Ipv4Addr), bytes: &[u8], cx: &mut Context) {
        let sent = packet::header(from, to, IpProtocol::Icmp, bytes.len());
        self.unreachable(Icmpv4DstUnreachable::HostUnreachable, sent, bytes, cx);
    }

    /// Tells the guest that the port that it has sent a datagram to is not listened at.
    pub(super) fn unreachable_port(
        &mut self,
        (from, from_port): (Ipv4Addr, u16),
        (to, to_port): (Ipv4Addr, u16),
        reason: Icmpv4DstUnreachable,
        cx: &mut Context,
    ) {
        let mut bytes = [0; 8];
        let repr = UdpRepr { src_port: from_port, dst_port: to_port };
        repr.emit(
            &mut UdpPacket::new_unchecked(&mut bytes[..]),
            &from.into(),
            &to.into(),
            0,
            |_| {},
            &ChecksumCapabilities::ignored(),
        );
        self.unreachable(reason, packet::header(from, to, IpProtocol::Udp, bytes.len()), &bytes, cx);
    }
}
