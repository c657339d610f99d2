//! Forwarded ports: sockets of the host that lead to the guest. [`super::tcp`] and [`super::udp`] have a list each.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::AsFd;

use rustix::event::epoll::EventFlags;

use super::{KINDS, TCP_LISTENER, UDP_LISTENER};
use crate::config::{Forward, Protocol, UserNet};
use crate::error::HostError;
use crate::net::{Connection, Poll};

/// Ports that are forwarded at most, those included that are so no longer.
const FORWARDS: usize = 256;

/// What listens at a port of the host, by protocol.
pub(super) trait Listen: AsFd + Sized {
    const PROTOCOL: Protocol;
    /// The protocol's name.
    const NAME: &'static str;
    /// The kind of its events.
    const KIND: u64;
    /// When `poll` tells of it.
    const EVENTS: EventFlags;

    /// Listens at `host`, without blocking.
    fn listen(host: SocketAddrV4) -> io::Result<Self>;

    fn address(&self) -> io::Result<SocketAddr>;
}

impl Listen for TcpListener {
    const PROTOCOL: Protocol = Protocol::Tcp;
    const NAME: &'static str = "TCP";
    const KIND: u64 = TCP_LISTENER;
    const EVENTS: EventFlags = EventFlags::IN.union(EventFlags::ET);

    fn listen(host: SocketAddrV4) -> io::Result<Self> {
        let socket = TcpListener::bind(host)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    fn address(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }
}

impl Listen for UdpSocket {
    const PROTOCOL: Protocol = Protocol::Udp;
    const NAME: &'static str = "UDP";
    const KIND: u64 = UDP_LISTENER;
    const EVENTS: EventFlags = EventFlags::IN;

    fn listen(host: SocketAddrV4) -> io::Result<Self> {
        let socket = UdpSocket::bind(host)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    fn address(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }
}

/// A port of the host that leads to the guest.
#[derive(Debug)]
pub(super) struct Listener<S> {
    pub(super) socket: S,
    pub(super) guest: SocketAddrV4,
    /// There may be connections to accept: `poll` tells of them once.
    pub(super) ready: bool,
}

impl<S: Listen> Listener<S> {
    fn open(forward: Forward) -> io::Result<Self> {
        Ok(Listener { socket: S::listen(forward.host)?, guest: forward.guest, ready: false })
    }

    /// Has `poll` tell of it as the listener of this number.
    fn tell(&self, poll: &Poll, number: usize) -> io::Result<()> {
        poll.add(&self.socket, S::KIND << KINDS | number as u64, S::EVENTS)
    }
}

/// The forwarded ports of a protocol, by number; none where a port is forwarded no longer.
#[derive(Debug)]
pub(super) struct Forwards<S>(Vec<Option<Listener<S>>>);

impl<S: Listen> Forwards<S> {
    /// The forwarded ports that the command line asks for.
    pub(super) fn open(config: &UserNet) -> Result<Self, HostError> {
        let mut listeners = Vec::new();
        for forward in config.forwards.iter().filter(|forward| forward.protocol == S::PROTOCOL) {
            let failed = |error| {
                let place = format!("{}:{}", S::NAME.to_ascii_lowercase(), forward.host);
                HostError::new("-netdev user: hostfwd", format!("cannot bind {place}: {error}"))
            };
            listeners.push(Some(Listener::open(*forward).map_err(failed)?));
        }
        Ok(Forwards(listeners))
    }

    /// Has `poll` tell of all of them.
    pub(super) fn start(&self, poll: &Poll) -> io::Result<()> {
        let mut all = self.0.iter().enumerate();
        all.try_for_each(|(number, listener)| listener.as_ref().map_or(Ok(()), |listener| listener.tell(poll, number)))
    }

    /// Forwards another port.
    pub(super) fn add(&mut self, forward: Forward, poll: &Poll) -> io::Result<()> {
        // A number is never used again: flows remember it.
        if self.0.len() >= FORWARDS {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let listener = Listener::open(forward)?;
        listener.tell(poll, self.0.len())?;
        self.0.push(Some(listener));
        Ok(())
    }

    /// Forwards a port no longer; whether it was.
    pub(super) fn remove(&mut self, host: SocketAddrV4) -> bool {
        let is = |listener: &Listener<S>| listener.socket.address().is_ok_and(|own| own == SocketAddr::V4(host));
        let found = self.0.iter_mut().find(|listener| listener.as_ref().is_some_and(is));
        found.is_some_and(|listener| listener.take().is_some())
    }

    /// One more than the largest number.
    pub(super) fn numbers(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, number: usize) -> Option<&Listener<S>> {
        self.0.get(number)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut Listener<S>> {
        self.0.get_mut(number)?.as_mut()
    }

    /// Whether there may be connections to accept.
    pub(super) fn any_ready(&self) -> bool {
        self.0.iter().flatten().any(|listener| listener.ready)
    }

    /// For a monitor.
    pub(super) fn connections(&self) -> impl Iterator<Item = Connection> + '_ {
        self.0.iter().flatten().filter_map(|listener| {
            Some(Connection::forwarded(S::NAME, listener.socket.address().ok()?, listener.guest))
        })
    }
}
