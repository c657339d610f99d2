//! Connections: the guest's end is one of smoltcp's sockets, the other one of the host's.
//!
//! Each flow has a smoltcp interface of its own, which has the remote's address. So a packet goes straight to its flow, and
//! what a flow may leave to the guest (checksums, segments) is settled when it begins. The guest's SYN is answered when the
//! host's connection stands, and with a reset if it does not come about.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use mimus_hw::net::Offload;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, socket_with, sockopt,
};
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpProtocol, TcpControl, TcpPacket, TcpRepr};

use super::forwards::Forwards;
use super::packet::{self, MTU};
use super::{Destination, Gateway, KINDS, TCP};
use crate::config::{Endpoint, GuestForward, Service, UserNet};
use crate::error::HostError;
use crate::net::{Connection, Context};

mod wire;

use wire::Wire;

/// Connections at most.
const FLOWS: usize = 256;
/// Those of them that the guest has asked for and that do not stand yet, at most: a guest does not look for other hosts faster.
const CONNECTING: usize = 64;
/// Bytes of the buffers of a connection, each way. The window that the guest is offered is as large.
const BUFFER: usize = 256 << 10;
/// Bytes that are read from the host for a connection before others have their turn.
const TURN: usize = 512 << 10;
/// How long a guest may take to answer a SYN.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// A connection that was silent for so long makes room for a new one.
const IDLE: Duration = Duration::from_secs(120);
/// Connections that are accepted at once.
const ACCEPT_AT_ONCE: usize = 16;
/// The longest IPv4 packet in bytes.
const LONGEST: usize = 0xffff;

/// The guest's end and the other, as the guest sees it.
type Ends = (SocketAddrV4, SocketAddrV4);

/// A connection.
struct Flow {
    ends: Ends,
    iface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    /// A connection of the host's, or what is like one.
    host: OwnedFd,
    /// The host's connection does not stand yet.
    connecting: bool,
    /// What the host's socket was last said to be; edges are told of.
    readable: bool,
    writable: bool,
    /// The host has sent its last byte, the guest has.
    host_done: bool,
    guest_done: bool,
    /// Broken off: the other side is told by a reset.
    aborted: bool,
    /// In the list of flows with something to do.
    dirty: bool,
    last: Instant,
    deadline: Option<Instant>,
}

/// The connections.
pub(super) struct Flows {
    slots: Vec<Option<Box<Flow>>>,
    /// Counts what was ever in a slot, so that late events find out.
    generations: Vec<u32>,
    index: HashMap<Ends, usize>,
    dirty: Vec<usize>,
    pub(super) forwards: Forwards<TcpListener>,
    started: Instant,
    /// The port for a connection from the host whose own is in use.
    next_port: u16,
}

/// A flow's number in events: slot and generation.
fn token(index: usize, generation: u32) -> u64 {
    TCP << KINDS | u64::from(generation) << 16 | index as u64
}

impl Flows {
    pub(super) fn open(config: &UserNet) -> Result<Flows, HostError> {
        Ok(Flows {
            slots: Vec::new(),
            generations: Vec::new(),
            index: HashMap::new(),
            dirty: Vec::new(),
            forwards: Forwards::open(config)?,
            started: Instant::now(),
            next_port: 0,
        })
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.slots.iter().flatten().filter_map(|flow| flow.deadline).min()
    }

    /// Forwarded ports and connections, for a monitor.
    pub(super) fn connections(&self) -> impl Iterator<Item = Connection> + '_ {
        let flows = self.slots.iter().flatten().map(|flow| {
            let socket = flow.sockets.get::<Socket>(flow.handle);
            // RFC 793's names in capitals, as everybody writes them.
            let state =
                if flow.connecting { "SYN_SENT".to_owned() } else { socket.state().to_string().replace('-', "_") };
            Connection {
                protocol: "TCP",
                state,
                source: flow.ends.0,
                dest: flow.ends.1,
                to_guest: socket.send_queue(),
                to_host: socket.recv_queue(),
            }
        });
        self.forwards.connections().chain(flows)
    }

    /// smoltcp's time.
    fn time(&self, now: Instant) -> smoltcp::time::Instant {
        let micros = now.saturating_duration_since(self.started).as_micros();
        smoltcp::time::Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    pub(super) fn event(&mut self, token: u64, flags: EventFlags) {
        let (index, generation) = ((token & 0xffff) as usize, (token >> 16) as u32);
        if self.generations.get(index) != Some(&generation) {
            return;
        }
        let Some(Some(flow)) = self.slots.get_mut(index) else { return };
        let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        flow.readable |= broken || flags.intersects(EventFlags::IN | EventFlags::RDHUP);
        flow.writable |= broken || flags.contains(EventFlags::OUT);
        self.mark(index);
    }

    pub(super) fn listener_event(&mut self, index: u64) {
        if let Some(listener) = self.forwards.get_mut(index as usize) {
            listener.ready = true;
        }
    }

    /// Notes that the flow in this slot has something to do.
    fn mark(&mut self, index: usize) {
        if let Some(Some(flow)) = self.slots.get_mut(index)
            && !std::mem::replace(&mut flow.dirty, true)
        {
            self.dirty.push(index);
        }
    }

    fn remove(&mut self, index: usize) {
        let Some(flow) = self.slots.get_mut(index).and_then(Option::take) else { return };
        self.index.remove(&flow.ends);
        if flow.aborted {
            // Closing is a reset then.
            let _ = sockopt::set_socket_linger(&flow.host, Some(Duration::ZERO));
        }
    }

    /// A free slot; if there is none, that of a connection which has been silent for long.
    fn slot(&mut self, now: Instant) -> Option<usize> {
        if let Some(index) = self.slots.iter().position(Option::is_none) {
            return Some(index);
        }
        if self.slots.len() < FLOWS {
            self.slots.push(None);
            self.generations.push(0);
            return Some(self.slots.len() - 1);
        }
        let oldest = self.slots.iter().enumerate().min_by_key(|(_, slot)| slot.as_ref().map(|flow| flow.last));
        let (index, flow) = oldest.and_then(|(index, slot)| Some((index, slot.as_ref()?)))?;
        if flow.last + IDLE > now {
            return None;
        }
        if let Some(Some(flow)) = self.slots.get_mut(index) {
            flow.aborted = true;
        }
        self.remove(index);
        Some(index)
    }

    /// Whether a guest may have another connection: `Err` says what becomes of its wish.
    fn admit(&self, now: Instant) -> Result<(), Destination> {
        let idle = |slot: &Option<Box<Flow>>| slot.as_ref().is_none_or(|flow| flow.last + IDLE <= now);
        if self.slots.len() == FLOWS && !self.slots.iter().any(idle) {
            // A table full of connections that are in use: the guest is to give up one.
            return Err(Destination::Unreachable);
        }
        // It asks again by itself.
        let connecting = self.slots.iter().flatten().filter(|flow| flow.connecting).count();
        if connecting < CONNECTING { Ok(()) } else { Err(Destination::Lost) }
    }

    /// Puts a flow into a slot and tells of what its host socket can do.
    fn insert(&mut self, flow: Flow, cx: &Context) -> Option<usize> {
        let index = self.slot(cx.now)?;
        let generation = self.generations.get_mut(index)?;
        *generation = generation.wrapping_add(1);
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        cx.poll.add(&flow.host, token(index, *generation), flags).ok()?;
        self.index.insert(flow.ends, index);
        *self.slots.get_mut(index)? = Some(Box::new(flow));
        self.mark(index);
        Some(index)
    }
}

/// What the interface of a flow leaves to the guest.
fn capabilities(cx: &Context) -> DeviceCapabilities {
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = Medium::Ip;
    capabilities.max_transmission_unit = MTU;
    // What comes in was checked.
    capabilities.checksum.ipv4 = Checksum::Tx;
    capabilities.checksum.tcp = if cx.offloads.checksum { Checksum::None } else { Checksum::Tx };
    capabilities.segmentation.tcpv4 =
        NonZeroUsize::new(LONGEST).filter(|_| cx.offloads.checksum && cx.offloads.segment);
    capabilities
}

impl Flow {
    /// A flow whose guest's end is closed yet.
    fn new(ends: Ends, host: OwnedFd, connecting: bool, time: smoltcp::time::Instant, cx: &mut Context) -> Flow {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = super::random();
        let mut wire = Wire::new(capabilities(cx), None, None, cx.queue);
        let mut iface = Interface::new(config, &mut wire, time);
        let own = IpCidr::new(IpAddress::from(*ends.1.ip()), 32);
        iface.update_ip_addrs(|addresses| {
            // There is room for one.
            let _ = addresses.push(own);
        });
        let buffer = || SocketBuffer::new(vec![0; BUFFER]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        socket.set_timeout(Some(CONNECT_TIMEOUT.into()));
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Flow {
            ends,
            iface,
            sockets,
            handle,
            host,
            connecting,
            readable: false,
            writable: false,
            host_done: false,
            guest_done: false,
            aborted: false,
            dirty: false,
            last: cx.now,
            deadline: None,
        }
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// Breaks both ends off.
    fn abort(&mut self) {
        self.aborted = true;
        self.socket().abort();
    }

    /// Sees whether the host's connection stands.
    fn connected(&mut self) {
        if !self.connecting || !self.writable {
            return;
        }
        match sockopt::socket_error(&self.host) {
            Ok(Ok(())) => {
                self.connecting = false;
                self.socket().pause_synack(false);
            }
            Ok(Err(error)) | Err(error) => {
                tracing::debug!(ends = ?self.ends, "net: cannot connect: {error}");
                self.abort();
            }
        }
    }

    /// Writes what the guest has sent to the host.
    fn send_to_host(&mut self) {
        let Flow { sockets, handle, host, .. } = self;
        let socket = sockets.get_mut::<Socket>(*handle);
        while self.writable && socket.can_recv() {
            let sent = socket.recv(|bytes| match rustix::net::send(&*host, bytes, SendFlags::NOSIGNAL) {
                Ok(count) => (count, Ok(count)),
                Err(error) => (0, Err(error)),
            });
            match sent {
                Ok(Ok(_)) | Ok(Err(Errno::INTR)) => {}
                Ok(Err(Errno::AGAIN)) => self.writable = false,
                Ok(Err(_)) | Err(_) => return self.abort(),
            }
        }
        let finished = matches!(socket.state(), State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
        if finished && !socket.can_recv() && !self.guest_done {
            self.guest_done = true;
            // Fails when the host's peer has gone already.
            let _ = rustix::net::shutdown(&self.host, Shutdown::Write);
        }
    }

    /// Reads what the host has for the guest; whether there is more than a turn's.
    fn receive_from_host(&mut self) -> bool {
        let Flow { sockets, handle, host, .. } = self;
        let socket = sockets.get_mut::<Socket>(*handle);
        let mut turn = 0;
        while self.readable && !self.host_done && socket.can_send() {
            if turn >= TURN {
                return true;
            }
            let received = socket.send(|bytes| match rustix::net::recv(&*host, bytes, RecvFlags::empty()) {
                Ok((count, _)) => (count, Ok(count)),
                Err(error) => (0, Err(error)),
            });
            match received {
                Ok(Ok(0)) => {
                    self.host_done = true;
                    socket.close();
                }
                Ok(Ok(count)) => turn += count,
                Ok(Err(Errno::INTR)) => {}
                Ok(Err(Errno::AGAIN)) => self.readable = false,
                Ok(Err(_)) | Err(_) => {
                    self.abort();
                    return false;
                }
            }
        }
        false
    }

    /// Moves everything that can be moved; whether there is more to do at once.
    fn pump(&mut self, link: Option<packet::Link>, time: smoltcp::time::Instant, cx: &mut Context) -> bool {
        self.connected();
        let mut more = false;
        if !self.connecting && !self.aborted {
            self.send_to_host();
            more = self.receive_from_host();
        }
        let Flow { iface, sockets, .. } = self;
        let mut wire = Wire::new(capabilities(cx), link, None, cx.queue);
        while wire.has_room() && iface.poll_egress(time, &mut wire, sockets) != PollResult::None {}
        let full = !wire.has_room();
        let state = self.socket().state();
        if state == State::Established {
            // smoltcp would end connections that are merely silent.
            self.socket().set_timeout(None);
        }
        if state == State::Closed && !(self.host_done && self.guest_done) {
            self.aborted = true;
        }
        // Events end these states, not time.
        let waits = self.connecting || full;
        let wait = if waits { None } else { self.iface.poll_delay(time, &self.sockets) };
        self.deadline = wait.map(|wait| cx.now + Duration::from_micros(wait.total_micros()));
        more || full
    }

    /// Whether nothing is left of it for either end.
    fn is_over(&mut self) -> bool {
        match self.socket().state() {
            State::Closed => true,
            // Nothing gets lost on the way to the guest: it has our last word.
            State::TimeWait => self.host_done && self.guest_done,
            _ => false,
        }
    }
}

/// Begins to connect to `to`.
fn connect(to: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket: OwnedFd = socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error),
    }
    // The guest decides what is sent together.
    let _ = sockopt::set_tcp_nodelay(&socket, true);
    Ok(socket)
}

/// Begins to connect to a socket in the file system.
fn connect_unix(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

impl Gateway {
    /// Begins to connect to a service of the guest's network.
    fn reach(&self, service: &Service) -> io::Result<OwnedFd> {
        match (service, &self.runner) {
            (Service::Connect(Endpoint::Inet(address)), _) => Ok(connect(*address)?),
            (Service::Connect(Endpoint::Unix(path)), _) => Ok(connect_unix(path)?),
            (Service::Run(command), Some(runner)) => runner.run(command),
            (Service::Run(_), None) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// A segment of the guest's; `bytes` is the whole packet.
    pub(super) fn tcp_packet(
        &mut self,
        (from, to): (Ipv4Addr, Ipv4Addr),
        bytes: &[u8],
        segment: &[u8],
        offload: Offload,
        cx: &mut Context,
    ) {
        let Ok(packet) = TcpPacket::new_checked(segment) else { return };
        if offload.checksum.is_none() && !packet.verify_checksum(&from.into(), &to.into()) {
            return;
        }
        let ends = (SocketAddrV4::new(from, packet.src_port()), SocketAddrV4::new(to, packet.dst_port()));
        let opens = packet.syn() && !packet.ack() && !packet.rst() && !packet.fin();
        let mut index = self.tcp.index.get(&ends).copied();
        // A guest that was restarted uses the ports of before again.
        if let Some(old) = index.filter(|_| opens)
            && let Some(Some(flow)) = self.tcp.slots.get_mut(old)
            && !matches!(flow.socket().state(), State::SynReceived | State::SynSent | State::Listen)
        {
            flow.aborted = true;
            self.tcp.remove(old);
            index = None;
        }
        if index.is_none() && opens {
            index = match self.open_flow(ends, cx) {
                Ok(index) => Some(index),
                Err(Destination::Lost) => return,
                Err(_) => None,
            };
        }
        let Some(index) = index else { return self.refuse((from, to), &packet, cx) };
        let time = self.tcp.time(cx.now);
        let link = self.link_to(from);
        let Some(Some(flow)) = self.tcp.slots.get_mut(index) else { return };
        flow.last = cx.now;
        let mut wire = Wire::new(capabilities(cx), link, Some(bytes), cx.queue);
        flow.iface.poll_ingress_single(time, &mut wire, &mut flow.sockets);
        if flow.socket().state() == State::Listen {
            // It was no SYN after all: its options are nonsense.
            return self.tcp.remove(index);
        }
        self.tcp.mark(index);
    }

    /// Makes a flow for a SYN of the guest, or says what becomes of it.
    fn open_flow(&mut self, ends: Ends, cx: &mut Context) -> Result<usize, Destination> {
        if ends.0.port() == 0 || ends.1.port() == 0 {
            return Err(Destination::Lost);
        }
        self.tcp.admit(cx.now)?;
        let service = self.config.guest_forwards.iter().find(|forward| forward.guest == ends.1);
        let stream = match (service, self.destination(ends.1)) {
            (Some(GuestForward { to, .. }), _) => self.reach(to),
            (None, Destination::Host(host)) => connect(host).map_err(io::Error::from),
            (None, other) => return Err(other),
        };
        let stream = stream.map_err(|error| {
            tracing::debug!(?ends, "net: cannot connect: {error}");
            Destination::Unreachable
        })?;
        let time = self.tcp.time(cx.now);
        let mut flow = Flow::new(ends, stream, true, time, cx);
        let listen = (IpAddress::from(*ends.1.ip()), ends.1.port());
        flow.socket().pause_synack(true);
        flow.socket().listen(listen).map_err(|_| Destination::Lost)?;
        self.tcp.insert(flow, cx).ok_or(Destination::Unreachable)
    }

    /// Answers a segment of no connection by a reset (RFC 9293, 3.10.7.1).
    fn refuse(&mut self, (from, to): (Ipv4Addr, Ipv4Addr), packet: &TcpPacket<&[u8]>, cx: &mut Context) {
        // Who may reach nothing is told so where there would be something.
        let place = SocketAddrV4::new(to, packet.dst_port());
        let service = self.config.guest_forwards.iter().any(|forward| forward.guest == place);
        let told = !packet.rst() && (service || !self.config.restrict);
        let Some(link) = self.link_to(from).filter(|_| told) else { return };
        let ack = packet.seq_number() + packet.segment_len();
        let repr = TcpRepr {
            src_port: packet.dst_port(),
            dst_port: packet.src_port(),
            control: TcpControl::Rst,
            seq_number: if packet.ack() { packet.ack_number() } else { Default::default() },
            ack_number: (!packet.ack()).then_some(ack),
            window_len: 0,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        };
        let mut bytes = vec![0; repr.buffer_len()];
        let mut reset = TcpPacket::new_unchecked(bytes.as_mut_slice());
        repr.emit(&mut reset, &to.into(), &from.into(), &Default::default());
        packet::ipv4(cx.queue, link, (to, from), IpProtocol::Tcp, 0, &bytes);
    }

    /// Accepts connections to forwarded ports, as many as there is room for.
    fn accept(&mut self, cx: &mut Context) {
        for number in 0..self.tcp.forwards.numbers() {
            for _ in 0..ACCEPT_AT_ONCE {
                let listener = self.tcp.forwards.get_mut(number);
                let Some(listener) = listener.filter(|listener| listener.ready) else { break };
                let guest = listener.guest;
                let (stream, peer) = match listener.socket.accept() {
                    Ok((stream, SocketAddr::V4(peer))) => (stream, peer),
                    Ok(_) => continue,
                    Err(error) => {
                        listener.ready = error.kind() == io::ErrorKind::Interrupted;
                        if error.kind() != io::ErrorKind::WouldBlock {
                            tracing::debug!("net: cannot accept: {error}");
                        }
                        break;
                    }
                };
                if stream.set_nonblocking(true).is_err() {
                    continue;
                }
                let _ = stream.set_nodelay(true);
                if self.link_to(*guest.ip()).is_none() {
                    // The SYN will be repeated when the answer is there.
                    self.ask(*guest.ip(), cx);
                }
                self.forward(stream, peer, guest, cx);
            }
        }
    }

    /// The other end of a connection from `peer` to `guest`, with a port that no connection has.
    fn outer_end(&mut self, peer: SocketAddrV4, guest: SocketAddrV4) -> SocketAddrV4 {
        let mut end = SocketAddrV4::new(self.seen(*peer.ip()), peer.port());
        for _ in 0..FLOWS {
            if end.port() != 0 && !self.tcp.index.contains_key(&(guest, end)) {
                break;
            }
            // The dynamic ports (RFC 6335, 6).
            end.set_port(49152 | self.tcp.next_port);
            self.tcp.next_port = (self.tcp.next_port + 1) & 0x3fff;
        }
        end
    }

    fn forward(&mut self, stream: TcpStream, peer: SocketAddrV4, guest: SocketAddrV4, cx: &mut Context) {
        let end = self.outer_end(peer, guest);
        let time = self.tcp.time(cx.now);
        let mut flow = Flow::new((guest, end), stream.into(), false, time, cx);
        let remote = (IpAddress::from(*guest.ip()), guest.port());
        let local = (IpAddress::from(*end.ip()), end.port());
        let Flow { iface, sockets, handle, .. } = &mut flow;
        if sockets.get_mut::<Socket>(*handle).connect(iface.context(), remote, local).is_ok() {
            // Closes the connection if there is no room.
            let _ = self.tcp.insert(flow, cx);
        }
    }

    /// Lets the connections work; whether some of them have more to do.
    pub(super) fn tcp_work(&mut self, cx: &mut Context) -> bool {
        self.accept(cx);
        for index in 0..self.tcp.slots.len() {
            if let Some(Some(flow)) = self.tcp.slots.get(index)
                && flow.deadline.is_some_and(|deadline| deadline <= cx.now)
            {
                self.tcp.mark(index);
            }
        }
        let time = self.tcp.time(cx.now);
        for index in std::mem::take(&mut self.tcp.dirty) {
            let Some(Some(flow)) = self.tcp.slots.get_mut(index) else { continue };
            flow.dirty = false;
            let link = self.guests.get(flow.ends.0.ip()).map(|&to| packet::Link { from: self.mac, to });
            let more = flow.pump(link, time, cx);
            if more {
                self.tcp.mark(index);
            } else if flow.is_over() {
                self.tcp.remove(index);
            }
        }
        !self.tcp.dirty.is_empty() || self.tcp.forwards.any_ready()
    }
}
