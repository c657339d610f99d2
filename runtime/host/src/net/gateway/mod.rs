//! A gateway between the guest and the host's network that needs no rights: what QEMU calls user networking.
//!
//! The guest sees a router with an address, a DHCP server and a name server. Its TCP connections end here, in one of smoltcp's
//! sockets each, and go on as a socket of the host ([`tcp`]); its datagrams and its pings leave by sockets of the host, too
//! ([`udp`], [`icmp`]). To the guest, the gateway's address is the host's loopback interface. A guest that starts from the network finds
//! a DHCP server and a TFTP server ([`tftp`]) there.
//!
//! All tables are bounded, since a guest decides how much is in them.

mod dhcp;
mod forwards;
mod fragments;
mod icmp;
mod packet;
mod tcp;
mod tftp;
mod udp;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Instant;

use mimus_hw::net::Offload;
use rustix::event::epoll::EventFlags;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet,
};

use super::{Connection, Context, Network, Poll};
use crate::config::{Protocol, UserNet};
use crate::error::HostError;
use crate::sandbox::Runner;
use packet::Link;

/// Guests whose hardware addresses are known, at most.
const GUESTS: usize = 64;

/// Which table the rest of an event's number is for.
const KINDS: u32 = 60;
const TCP: u64 = 1;
const TCP_LISTENER: u64 = 2;
const UDP: u64 = 3;
const UDP_LISTENER: u64 = 4;
const PING: u64 = 5;

/// Where something goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Destination {
    /// To this address of the host's network.
    Host(SocketAddr),
    /// Nowhere.
    Unreachable,
    /// Nowhere: the packet is dropped without an answer.
    Lost,
}

/// Random numbers from the host's.
fn random() -> u64 {
    let mut bytes = [0; 8];
    // It has them from boot on; without the call the numbers are guessable.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u64::from_ne_bytes(bytes)
}

/// The first name server in the text of `resolv.conf`.
fn name_server(text: &str) -> Option<IpAddr> {
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    servers.filter_map(|server| server.split_whitespace().next()?.parse().ok()).next()
}

/// The gateway.
pub(super) struct Gateway {
    config: UserNet,
    mac: EthernetAddress,
    guests: HashMap<Ipv4Addr, EthernetAddress>,
    leases: dhcp::Leases,
    tcp: tcp::Flows,
    udp: udp::Flows,
    pings: icmp::Pings,
    fragments: fragments::Fragments,
    tftp: Option<tftp::Server>,
    /// Runs the programs that are services of the guest's network.
    runner: Option<Runner>,
}

impl Gateway {
    /// Makes the gateway and binds the ports that are forwarded.
    pub(super) fn open(config: &UserNet, runner: Option<Runner>) -> Result<Gateway, HostError> {
        let [a, b, c, d] = config.host.octets();
        let tftp = config.boot.tftp.as_deref().map(|folder| {
            let failed =
                |error| HostError::new("-netdev user: tftp", format!("cannot open '{}': {error}", folder.display()));
            tftp::Server::open(folder).map_err(failed)
        });
        Ok(Gateway {
            config: config.clone(),
            // A locally administered address (IEEE 802, 8.2.2) that tells whose it is.
            mac: EthernetAddress([0x52, 0x55, a, b, c, d]),
            guests: HashMap::new(),
            leases: dhcp::Leases::default(),
            tcp: tcp::Flows::open(config)?,
            udp: udp::Flows::open(config)?,
            pings: icmp::Pings::default(),
            fragments: fragments::Fragments::default(),
            tftp: tftp.transpose()?,
            runner,
        })
    }

    /// Whether the gateway answers for this address.
    fn is_own(&self, address: Ipv4Addr) -> bool {
        let mut services = self.config.guest_forwards.iter().map(|forward| *forward.guest.ip());
        address == self.config.host || address == self.config.dns || services.any(|service| service == address)
    }

    fn link(&self, to: EthernetAddress) -> Link {
        Link { from: self.mac, to }
    }

    /// How to reach the guest of this address, if it was ever heard of.
    fn link_to(&self, guest: Ipv4Addr) -> Option<Link> {
        self.guests.get(&guest).map(|&mac| self.link(mac))
    }

    /// Where the guest's packets to `to` go.
    fn destination(&self, to: SocketAddrV4) -> Destination {
        let (address, port) = (*to.ip(), to.port());
        if self.config.restrict || address.is_loopback() || address.is_multicast() || address.octets()[0] == 0 {
            return Destination::Lost;
        }
        if !self.config.host_loopback && (address == self.config.host || address.is_link_local()) {
            return Destination::Unreachable;
        }
        if address == self.config.host {
            return Destination::Host((Ipv4Addr::LOCALHOST, port).into());
        }
        if address == self.config.dns {
            // Read each time: hosts move between networks.
            let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
            let server = name_server(&text).unwrap_or(Ipv4Addr::LOCALHOST.into());
            return if port == 53 { Destination::Host((server, port).into()) } else { Destination::Unreachable };
        }
        // 240.0.0.0 and up are reserved or broadcasts (RFC 1112, 4).
        if self.config.contains(address) || address.octets()[0] >= 240 {
            return Destination::Unreachable;
        }
        Destination::Host(to.into())
    }

    /// As the guest sees the peer of a forwarded port.
    fn seen(&self, peer: Ipv4Addr) -> Ipv4Addr {
        if peer.is_loopback() || self.config.contains(peer) { self.config.host } else { peer }
    }

    /// Notes the hardware address of a guest.
    fn learn(&mut self, guest: Ipv4Addr, mac: EthernetAddress) {
        let own = self.is_own(guest);
        let known = self.guests.contains_key(&guest);
        if !own && self.config.contains(guest) && mac.is_unicast() && (known || self.guests.len() < GUESTS) {
            self.guests.insert(guest, mac);
        }
    }

    fn arp(&mut self, bytes: &[u8], cx: &mut Context) {
        let Ok(request) = ArpPacket::new_checked(bytes).and_then(|packet| ArpRepr::parse(&packet)) else { return };
        let ArpRepr::EthernetIpv4 {
            operation, source_hardware_addr, source_protocol_addr, target_protocol_addr, ..
        } = request
        else {
            return;
        };
        self.learn(source_protocol_addr, source_hardware_addr);
        if operation == ArpOperation::Request && self.is_own(target_protocol_addr) {
            let to = (source_hardware_addr, source_protocol_addr);
            self.send_arp(ArpOperation::Reply, target_protocol_addr, to, cx);
        }
    }

    fn send_arp(
        &self,
        operation: ArpOperation,
        own: Ipv4Addr,
        (hardware, address): (EthernetAddress, Ipv4Addr),
        cx: &mut Context,
    ) {
        let repr = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: self.mac,
            source_protocol_addr: own,
            target_hardware_addr: hardware,
            target_protocol_addr: address,
        };
        packet::ethernet(cx.queue, self.link(hardware), EthernetProtocol::Arp, repr.buffer_len(), |bytes| {
            repr.emit(&mut ArpPacket::new_unchecked(bytes));
        });
    }

    /// Asks for the hardware address of a guest.
    fn ask(&self, guest: Ipv4Addr, cx: &mut Context) {
        self.send_arp(ArpOperation::Request, self.config.host, (EthernetAddress::BROADCAST, guest), cx);
    }

    fn ipv4(&mut self, mac: EthernetAddress, bytes: &[u8], offload: Offload, cx: &mut Context) {
        let Ok(packet) = Ipv4Packet::new_checked(bytes) else { return };
        if packet.version() != 4 || !packet.verify_checksum() {
            return;
        }
        // Frames shorter than Ethernet's minimum are filled up.
        let bytes = bytes.get(..packet.total_len().into()).unwrap_or_default();
        let from = packet.src_addr();
        let dhcp = packet.next_header() == IpProtocol::Udp && udp::is_dhcp(packet.payload());
        // Packets of others that the guest routes have no way back.
        let known = self.config.contains(from) || dhcp && from.is_unspecified();
        if !known {
            return;
        }
        self.learn(from, mac);
        if !packet.more_frags() && packet.frag_offset() == 0 {
            return self.whole(&packet, bytes, offload, cx);
        }
        if let Some(payload) = self.fragments.add(&packet, cx.now) {
            let bytes = packet::rejoined(&packet, &payload);
            self.whole(&Ipv4Packet::new_unchecked(&bytes), &bytes, Offload::default(), cx);
        }
    }

    /// A packet that is no fragment; `bytes` is all of it.
    fn whole(&mut self, packet: &Ipv4Packet<&[u8]>, bytes: &[u8], offload: Offload, cx: &mut Context) {
        let (from, to) = (packet.src_addr(), packet.dst_addr());
        match packet.next_header() {
            IpProtocol::Tcp => self.tcp_packet((from, to), bytes, packet.payload(), offload, cx),
            IpProtocol::Udp => self.udp_packet((from, to), packet.payload(), offload, cx),
            IpProtocol::Icmp => self.icmp_packet((from, to), packet.payload(), cx),
            other => tracing::debug!(%other, "net: a packet of an unknown protocol is dropped"),
        }
    }
}

impl Network for Gateway {
    fn offloads(&self) -> bool {
        true
    }

    fn start(&mut self, poll: &Poll) -> io::Result<()> {
        self.tcp.forwards.start(poll)?;
        self.udp.forwards.start(poll)
    }

    fn send(&mut self, frame: &[u8], offload: Offload, cx: &mut Context) {
        let Ok(frame) = EthernetFrame::new_checked(frame) else { return };
        let to = frame.dst_addr();
        if to != self.mac && !to.is_broadcast() {
            return;
        }
        match frame.ethertype() {
            EthernetProtocol::Arp => self.arp(frame.payload(), cx),
            EthernetProtocol::Ipv4 => self.ipv4(frame.src_addr(), frame.payload(), offload, cx),
            _ => {}
        }
    }

    fn event(&mut self, token: u64, flags: EventFlags, cx: &mut Context) {
        let rest = token & ((1 << KINDS) - 1);
        match token >> KINDS {
            TCP => self.tcp.event(rest, flags),
            TCP_LISTENER => self.tcp.listener_event(rest),
            UDP => self.udp_event(rest, cx),
            UDP_LISTENER => self.udp_listener_event(rest as usize, cx),
            PING => self.ping_event(rest as usize, cx),
            _ => {}
        }
    }

    fn work(&mut self, cx: &mut Context) -> bool {
        self.udp.expire(cx.now);
        self.pings.expire(cx.now);
        self.tcp_work(cx)
    }

    fn deadline(&self) -> Option<Instant> {
        [self.tcp.deadline(), self.udp.deadline(), self.pings.deadline()].into_iter().flatten().min()
    }

    fn forward(&mut self, rule: &str, add: bool, poll: &Poll) -> Result<(), String> {
        if !add {
            let (protocol, host) = super::rules::forwarded(rule).ok_or_else(|| format!("invalid format '{rule}'"))?;
            let found = match protocol {
                Protocol::Tcp => self.tcp.forwards.remove(host),
                Protocol::Udp => self.udp.forwards.remove(host),
            };
            return found.then_some(()).ok_or_else(|| format!("host forwarding rule for {rule} not found"));
        }
        let forward = super::rules::forward(rule, self.config.dhcp_start);
        let forward = forward.ok_or_else(|| format!("Invalid host forwarding rule '{rule}'"))?;
        let added = match forward.protocol {
            Protocol::Tcp => self.tcp.forwards.add(forward, poll),
            Protocol::Udp => self.udp.forwards.add(forward, poll),
        };
        added.map_err(|error| format!("Could not set up host forwarding rule '{rule}': {error}"))
    }

    fn connections(&self) -> Vec<Connection> {
        self.tcp.connections().chain(self.udp.connections()).collect()
    }
}
