//! Datagrams: one socket of the host for each port of the guest's that sends any, for a while.
//!
//! Whoever the guest has sent something to may answer by it from any port, as servers of TFTP do and peers behind other gateways
//! (RFC 4787: mapping that is independent of the other end, filtering by its address). Questions to name servers have a socket each, which
//! takes the answer of that server only: what cannot be seen cannot be answered in its place.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mimus_hw::net::Offload;
use nix::sys::socket::sockopt::Ipv4RecvErr;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt};
use rustix::event::epoll::EventFlags;
use smoltcp::wire::{DHCP_SERVER_PORT, Icmpv4DstUnreachable, IpProtocol, UdpPacket};

use super::forwards::Forwards;
use super::{Destination, Gateway, KINDS, UDP, packet, tftp};
use crate::config::UserNet;
use crate::error::HostError;
use crate::net::{Connection, Context};

/// Sockets at most.
const FLOWS: usize = 256;
/// How long a socket is kept that nobody uses; for questions to a name server.
const LIFETIME: Duration = Duration::from_secs(120);
const DNS_LIFETIME: Duration = Duration::from_secs(15);
const DNS_PORT: u16 = 53;
/// Datagrams that are taken from a socket at once.
const AT_ONCE: usize = 64;

/// Others that a port of the guest's hears, at most; whom it wrote to last comes first.
const PEERS: usize = 64;

/// The guest's end and the other.
type Ends = (SocketAddrV4, SocketAddrV4);

/// Whose datagrams a socket carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// Datagrams between two ends.
    Pair(Ends),
    /// Datagrams of a port of the guest's.
    Port(SocketAddrV4),
}

/// Whom a port of the guest's has written to: addresses, and how the guest knows them.
#[derive(Debug, Default)]
struct Peers(Vec<(IpAddr, Ipv4Addr)>);

impl Peers {
    fn note(&mut self, peer: IpAddr, seen: Ipv4Addr) {
        match self.0.iter().position(|&(known, _)| known == peer) {
            Some(0) => {}
            Some(index) => drop(self.0.remove(index)),
            None => self.0.truncate(PEERS - 1),
        }
        if self.0.first().is_none_or(|&(first, _)| first != peer) {
            self.0.insert(0, (peer, seen));
        }
    }

    /// How the guest knows `peer`, if it has written to it.
    fn seen(&self, peer: SocketAddr) -> Option<SocketAddrV4> {
        let (_, seen) = self.0.iter().find(|(known, _)| *known == peer.ip())?;
        Some(SocketAddrV4::new(*seen, peer.port()))
    }
}

/// How a datagram of the guest leaves.
#[derive(Debug)]
enum Way {
    /// By a socket of its own, to one other.
    Own(UdpSocket),
    /// By that of its port, to anybody.
    Open(UdpSocket, Peers),
    /// By the socket of a forwarded port, to who sent to it.
    Forwarded(usize, SocketAddrV4),
}

#[derive(Debug)]
struct Flow {
    /// The guest's, and the last other one.
    ends: Ends,
    way: Way,
    last: Instant,
}

impl Flow {
    fn key(&self) -> Key {
        match self.way {
            Way::Open(..) => Key::Port(self.ends.0),
            Way::Own(_) | Way::Forwarded(..) => Key::Pair(self.ends),
        }
    }

    fn socket(&self) -> Option<&UdpSocket> {
        match &self.way {
            Way::Own(socket) | Way::Open(socket, _) => Some(socket),
            Way::Forwarded(..) => None,
        }
    }

    fn end(&self) -> Instant {
        let dns = matches!(self.way, Way::Own(_)) && self.ends.1.port() == DNS_PORT;
        self.last + if dns { DNS_LIFETIME } else { LIFETIME }
    }
}

/// The sockets.
#[derive(Debug)]
pub(super) struct Flows {
    slots: Vec<Option<Flow>>,
    index: HashMap<Key, usize>,
    pub(super) forwards: Forwards<UdpSocket>,
    buffer: Vec<u8>,
    ident: u16,
    /// When to look for sockets that nobody uses.
    sweep: Option<Instant>,
}

impl Flows {
    pub(super) fn open(config: &UserNet) -> Result<Flows, HostError> {
        Ok(Flows {
            slots: Vec::new(),
            index: HashMap::new(),
            forwards: Forwards::open(config)?,
            buffer: vec![0; 0x1_0000],
            ident: super::random() as u16,
            sweep: None,
        })
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.sweep
    }

    /// Forwarded ports and sockets, for a monitor.
    pub(super) fn connections(&self) -> impl Iterator<Item = Connection> + '_ {
        let flows = self.slots.iter().flatten().map(|flow| {
            let left = flow.end().saturating_duration_since(Instant::now()).as_secs();
            let (source, dest) = flow.ends;
            Connection { protocol: "UDP", state: format!("{left} sec"), source, dest, to_guest: 0, to_host: 0 }
        });
        self.forwards.connections().chain(flows)
    }

    pub(super) fn expire(&mut self, now: Instant) {
        if self.sweep.is_none_or(|sweep| sweep > now) {
            return;
        }
        for index in 0..self.slots.len() {
            if self.slots.get(index).and_then(Option::as_ref).is_some_and(|flow| flow.end() <= now) {
                self.remove(index);
            }
        }
        self.sweep = self.slots.iter().flatten().map(Flow::end).min();
    }

    /// The number of another packet that may have fragments.
    pub(super) fn next_ident(&mut self) -> u16 {
        self.ident = self.ident.wrapping_add(1);
        self.ident
    }

    fn remove(&mut self, index: usize) {
        if let Some(flow) = self.slots.get_mut(index).and_then(Option::take) {
            self.index.remove(&flow.key());
        }
    }

    /// Puts a flow into a free slot, or into that of the one that is unused for the longest time.
    fn insert(&mut self, flow: Flow) -> usize {
        let index = match self.slots.iter().position(Option::is_none) {
            Some(index) => index,
            None if self.slots.len() < FLOWS => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => {
                let oldest = self.slots.iter().enumerate().min_by_key(|(_, slot)| slot.as_ref().map(|flow| flow.last));
                let index = oldest.map_or(0, |(index, _)| index);
                self.remove(index);
                index
            }
        };
        let end = flow.end();
        self.sweep = Some(self.sweep.map_or(end, |sweep| sweep.min(end)));
        self.index.insert(flow.key(), index);
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Some(flow);
        }
        index
    }

    /// Makes a flow with a socket, which is told of.
    fn add(&mut self, flow: Flow, cx: &Context) -> io::Result<usize> {
        let index = self.insert(flow);
        let added = match self.slots.get(index).and_then(|flow| flow.as_ref()?.socket()) {
            Some(socket) => cx.poll.add(socket, UDP << KINDS | index as u64, EventFlags::IN),
            None => Ok(()),
        };
        if added.is_err() {
            self.remove(index);
        }
        added.map(|()| index)
    }

    /// Makes a flow whose socket is connected to `to`.
    fn connect(&mut self, ends: Ends, to: SocketAddr, cx: &Context) -> io::Result<usize> {
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.set_nonblocking(true)?;
        socket.connect(to)?;
        self.add(Flow { ends, way: Way::Own(socket), last: cx.now }, cx)
    }

    /// The flow of the port that the guest sends from.
    fn open_port(&mut self, ends: Ends, cx: &Context) -> io::Result<usize> {
        if let Some(&index) = self.index.get(&Key::Port(ends.0)) {
            return Ok(index);
        }
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_nonblocking(true)?;
        // Otherwise the host does not tell that nobody is there.
        setsockopt(&socket, Ipv4RecvErr, &true)?;
        self.add(Flow { ends, way: Way::Open(socket, Peers::default()), last: cx.now }, cx)
    }

    /// Sends a datagram of the guest's by the flow at `index` to who is at its other end, who is `host` if there may be several.
    fn send(&mut self, index: usize, (ends, host): (Ends, SocketAddr), payload: &[u8], cx: &Context) -> io::Result<()> {
        let Some(Some(flow)) = self.slots.get_mut(index) else { return Ok(()) };
        flow.last = cx.now;
        flow.ends = ends;
        match &mut flow.way {
            Way::Own(socket) => socket.send(payload).map(drop),
            Way::Open(socket, peers) => {
                peers.note(host.ip(), *ends.1.ip());
                match socket.send_to(payload, host) {
                    // An error that is of an earlier one, and is told of when its event is taken.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => socket.send_to(payload, host),
                    result => result,
                }
                .map(drop)
            }
            Way::Forwarded(listener, peer) => match self.forwards.get(*listener) {
                Some(listener) => listener.socket.send_to(payload, *peer).map(drop),
                None => Ok(()),
            },
        }
    }
}

/// The next error of a socket that the host has noted, and to whom the datagram was that it is of.
fn next_error(socket: &UdpSocket) -> Option<(SocketAddr, io::Error)> {
    let (mut byte, mut control) = ([0; 1], nix::cmsg_space!([u8; 64]));
    let mut bytes = [io::IoSliceMut::new(&mut byte)];
    let message =
        recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut bytes, Some(&mut control), MsgFlags::MSG_ERRQUEUE).ok()?;
    let number = message.cmsgs().ok()?.find_map(|part| match part {
        ControlMessageOwned::Ipv4RecvErr(error, _) => Some(error.ee_errno),
        _ => None,
    })?;
    let to = SocketAddrV4::from(message.address?);
    Some((to.into(), io::Error::from_raw_os_error(number.cast_signed())))
}

/// Whether a UDP packet is for the DHCP server.
pub(super) fn is_dhcp(bytes: &[u8]) -> bool {
    UdpPacket::new_checked(bytes).is_ok_and(|packet| packet.dst_port() == DHCP_SERVER_PORT)
}

impl Gateway {
    pub(super) fn udp_packet(
        &mut self,
        (from, to): (Ipv4Addr, Ipv4Addr),
        bytes: &[u8],
        offload: Offload,
        cx: &mut Context,
    ) {
        let Ok(packet) = UdpPacket::new_checked(bytes) else { return };
        if offload.checksum.is_none() && !packet.verify_checksum(&from.into(), &to.into()) {
            return;
        }
        let (from_port, to_port) = (packet.src_port(), packet.dst_port());
        if to_port == DHCP_SERVER_PORT && (to.is_broadcast() || to == self.config.host) {
            return self.dhcp(packet.payload(), cx);
        }
        if from_port == 0 || to_port == 0 {
            return;
        }
        let ends = (SocketAddrV4::new(from, from_port), SocketAddrV4::new(to, to_port));
        if to == self.config.host && to_port == tftp::PORT && self.tftp.is_some() {
            return self.tftp_packet(ends, packet.payload(), cx);
        }
        if let Err(error) = self.udp_to_host(ends, packet.payload(), cx) {
            tracing::debug!(?ends, "net: udp: {error}");
            self.udp_failed(ends, &error, cx);
        }
    }

    /// Sends a datagram of the guest's to whom it is for.
    fn udp_to_host(&mut self, ends: Ends, payload: &[u8], cx: &mut Context) -> io::Result<()> {
        if let Some(&index) = self.udp.index.get(&Key::Pair(ends)) {
            return self.udp.send(index, (ends, ends.1.into()), payload, cx);
        }
        let host = match self.destination(ends.1) {
            Destination::Host(host) => host,
            Destination::Unreachable => return Err(io::ErrorKind::HostUnreachable.into()),
            Destination::Lost => return Ok(()),
        };
        let index = match ends.1.port() == DNS_PORT {
            true => self.udp.connect(ends, host, cx)?,
            false => self.udp.open_port(ends, cx)?,
        };
        self.udp.send(index, (ends, host), payload, cx)
    }

    /// A datagram for the TFTP server, and its answer.
    fn tftp_packet(&mut self, ends: Ends, payload: &[u8], cx: &mut Context) {
        let answer = self.tftp.as_mut().and_then(|server| server.answer(ends.0, payload, cx.now));
        if let Some(answer) = answer {
            self.udp_to_guest(ends, &answer, cx);
        }
    }

    /// Tells the guest why its datagrams do not arrive.
    fn udp_failed(&mut self, (guest, remote): Ends, error: &io::Error, cx: &mut Context) {
        let reason = match error.kind() {
            io::ErrorKind::ConnectionRefused => Icmpv4DstUnreachable::PortUnreachable,
            io::ErrorKind::HostUnreachable => Icmpv4DstUnreachable::HostUnreachable,
            io::ErrorKind::NetworkUnreachable => Icmpv4DstUnreachable::NetUnreachable,
            // The host is busy: the datagram is lost.
            _ => return,
        };
        let (from, to) = ((*guest.ip(), guest.port()), (*remote.ip(), remote.port()));
        self.unreachable_port(from, to, reason, cx);
    }

    /// Queues a datagram for the guest.
    fn udp_to_guest(&mut self, (guest, remote): Ends, payload: &[u8], cx: &mut Context) {
        let Some(link) = self.link_to(*guest.ip()) else { return };
        let (from, to) = ((*remote.ip(), remote.port()), (*guest.ip(), guest.port()));
        let datagram = packet::udp(from, to, payload);
        let ident = self.udp.next_ident();
        packet::ipv4(cx.queue, link, (from.0, to.0), IpProtocol::Udp, ident, &datagram);
    }

    /// An answer has come, or an error.
    pub(super) fn udp_event(&mut self, token: u64, cx: &mut Context) {
        let index = token as usize;
        let mut buffer = std::mem::take(&mut self.udp.buffer);
        for _ in 0..AT_ONCE {
            let Some(Some(flow)) = self.udp.slots.get_mut(index) else { break };
            let (guest, remote) = flow.ends;
            let (received, open) = match &flow.way {
                Way::Own(socket) => (socket.recv(&mut buffer).map(|len| (len, Some(remote))), false),
                Way::Open(socket, peers) => {
                    (socket.recv_from(&mut buffer).map(|(len, peer)| (len, peers.seen(peer))), true)
                }
                Way::Forwarded(..) => break,
            };
            match received {
                Ok((len, Some(remote))) => {
                    flow.last = cx.now;
                    self.udp_to_guest((guest, remote), buffer.get(..len).unwrap_or_default(), cx);
                }
                Ok((_, None)) => tracing::debug!(?guest, "net: a datagram that the guest has not asked for is dropped"),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Whom it is of says the queue of errors.
                Err(_) if open => {}
                Err(error) => self.udp_failed((guest, remote), &error, cx),
            }
        }
        self.udp.buffer = buffer;
        self.udp_errors(index, cx);
    }

    /// Tells the guest of what its datagrams from a port met.
    fn udp_errors(&mut self, index: usize, cx: &mut Context) {
        for _ in 0..AT_ONCE {
            let Some(Some(Flow { ends, way: Way::Open(socket, peers), .. })) = self.udp.slots.get(index) else {
                return;
            };
            let Some((to, error)) = next_error(socket) else { return };
            let (guest, remote) = (ends.0, peers.seen(to));
            if let Some(remote) = remote {
                self.udp_failed((guest, remote), &error, cx);
            }
        }
    }

    /// Something has come to a forwarded port.
    pub(super) fn udp_listener_event(&mut self, number: usize, cx: &mut Context) {
        let mut buffer = std::mem::take(&mut self.udp.buffer);
        for _ in 0..AT_ONCE {
            let Some(listener) = self.udp.forwards.get(number) else { break };
            let guest = listener.guest;
            match listener.socket.recv_from(&mut buffer) {
                Ok((len, SocketAddr::V4(peer))) => {
                    let ends = (guest, SocketAddrV4::new(self.seen(*peer.ip()), peer.port()));
                    match self.udp.index.get(&Key::Pair(ends)) {
                        Some(&index) => {
                            if let Some(Some(flow)) = self.udp.slots.get_mut(index) {
                                flow.last = cx.now;
                                flow.way = Way::Forwarded(number, peer);
                            }
                        }
                        None => {
                            self.udp.insert(Flow { ends, way: Way::Forwarded(number, peer), last: cx.now });
                        }
                    }
                    if self.link_to(*guest.ip()).is_none() {
                        self.ask(*guest.ip(), cx);
                    }
                    self.udp_to_guest(ends, buffer.get(..len).unwrap_or_default(), cx);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => tracing::debug!("net: udp: {error}"),
            }
        }
        self.udp.buffer = buffer;
    }
}
