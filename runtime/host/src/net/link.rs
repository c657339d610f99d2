//! Networks that pass frames to another program: a stream with each frame's length in front of it, or datagrams.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::{Duration, Instant};

use mimus_hw::net::{ETHERNET_HEADER, Frame, MAX_SEGMENTED, Offload};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, socket, sockopt};

use super::{Context, Network, Poll};
use crate::config::{Endpoint, Link};
use crate::error::HostError;
use crate::socket::{Listener, bind_unix};

/// Bytes of the length in front of each frame of a stream, most significant first.
const LENGTH: usize = 4;
/// Bytes that wait for the other program; frames that find so many are lost.
const OUTPUT: usize = 1 << 20;
/// Bytes that are read at once.
const INPUT: usize = 256 << 10;
/// Datagrams that are taken at once.
const AT_ONCE: usize = 64;
/// Pause between attempts to connect again.
const RETRY: Duration = Duration::from_secs(1);

const CONNECTION: u64 = 1;
const LISTENER: u64 = 2;

/// Opens what `link` describes.
pub(super) fn open(link: &Link) -> Result<Box<dyn Network>, HostError> {
    Ok(match link {
        Link::Listen(end) => Box::new(Stream::listen(end).map_err(|error| failed("cannot listen at", end, &error))?),
        Link::Connect { end, reconnect } => {
            let socket = connect(end).map_err(|error| failed("cannot connect to", end, &error))?;
            Box::new(Stream::connected(socket, reconnect.then(|| end.clone())))
        }
        Link::Datagrams { local, remote } => {
            let socket = datagrams(local.as_ref(), remote.as_ref());
            let socket = socket.map_err(|error| match local.as_ref().or(remote.as_ref()) {
                Some(end) => failed("cannot use", end, &error),
                None => HostError::new("-netdev", error.to_string()),
            })?;
            Box::new(Datagrams { socket, remote: remote.clone(), buffer: vec![0; MAX_SEGMENTED + 1] })
        }
        Link::Multicast { group, interface } => {
            let socket = multicast(*group, *interface);
            let socket = socket.map_err(|error| failed("cannot join", &Endpoint::Inet((*group).into()), &error))?;
            let remote = Some(Endpoint::Inet((*group).into()));
            Box::new(Datagrams { socket, remote, buffer: vec![0; MAX_SEGMENTED + 1] })
        }
    })
}

fn failed(what: &str, end: &Endpoint, error: &io::Error) -> HostError {
    HostError::new("-netdev", format!("{what} {end}: {error}"))
}

fn non_blocking(socket: OwnedFd) -> io::Result<OwnedFd> {
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

fn connect(end: &Endpoint) -> io::Result<OwnedFd> {
    non_blocking(match end {
        Endpoint::Unix(path) => UnixStream::connect(path)?.into(),
        Endpoint::Inet(address) => {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.into()
        }
    })
}

fn datagrams(local: Option<&Endpoint>, remote: Option<&Endpoint>) -> io::Result<OwnedFd> {
    let socket: OwnedFd = match (local, remote) {
        (Some(Endpoint::Inet(local)), _) => UdpSocket::bind(local)?.into(),
        (Some(Endpoint::Unix(path)), _) => bind_unix(path, |path| UnixDatagram::bind(path))?.into(),
        (None, Some(Endpoint::Unix(_)) | None) => UnixDatagram::unbound()?.into(),
        (None, Some(Endpoint::Inet(_))) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?.into(),
    };
    non_blocking(socket)
}

fn multicast(group: SocketAddrV4, interface: Option<Ipv4Addr>) -> io::Result<OwnedFd> {
    let fd = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // Several guests on one host share the port.
    sockopt::set_socket_reuseaddr(&fd, true)?;
    rustix::net::bind(&fd, &SocketAddr::from(group))?;
    let interface = interface.unwrap_or(Ipv4Addr::UNSPECIFIED);
    sockopt::set_ip_add_membership(&fd, group.ip(), &interface)?;
    if !interface.is_unspecified() {
        sockopt::set_ip_multicast_if(&fd, &interface)?;
    }
    sockopt::set_ip_multicast_loop(&fd, true)?;
    non_blocking(fd)
}

/// A stream of frames; one connection at a time.
struct Stream {
    socket: Option<OwnedFd>,
    listener: Option<Listener>,
    /// Where to connect to when the connection is gone, and when.
    again: Option<Endpoint>,
    retry: Option<Instant>,
    readable: bool,
    writable: bool,
    input: Vec<u8>,
    /// Where in the input the next frame begins.
    at: usize,
    output: Vec<u8>,
}

impl Stream {
    fn new(socket: Option<OwnedFd>, listener: Option<Listener>, again: Option<Endpoint>) -> Stream {
        Stream {
            socket,
            listener,
            again,
            retry: None,
            readable: false,
            writable: false,
            input: Vec::new(),
            at: 0,
            output: Vec::new(),
        }
    }

    fn connected(socket: OwnedFd, again: Option<Endpoint>) -> Stream {
        Stream::new(Some(socket), None, again)
    }

    fn listen(end: &Endpoint) -> io::Result<Stream> {
        let listener = match end {
            Endpoint::Unix(path) => Listener::unix(path)?,
            Endpoint::Inet(address) => Listener::tcp(address)?,
        };
        Ok(Stream::new(None, Some(listener), None))
    }

    fn register(&mut self, poll: &Poll) -> io::Result<()> {
        match &self.socket {
            Some(socket) => {
                let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
                poll.add(socket, CONNECTION, flags)
            }
            None => Ok(()),
        }
    }

    /// The connection is gone.
    fn close(&mut self, cx: &Context) {
        tracing::debug!("net: the connection is closed");
        self.socket = None;
        self.input.clear();
        self.output.clear();
        self.at = 0;
        (self.readable, self.writable) = (false, false);
        if let Some(listener) = &self.listener {
            // Tells of who waits already.
            let _ = cx.poll.change(listener, LISTENER, EventFlags::IN);
        }
        self.retry = self.again.as_ref().map(|_| cx.now + RETRY);
    }

    fn accept(&mut self, cx: &Context) -> io::Result<()> {
        let Some(listener) = &self.listener else { return Ok(()) };
        self.socket = Some(non_blocking(listener.accept()?.0.into())?);
        // Others wait until this one is gone.
        cx.poll.change(listener, LISTENER, EventFlags::empty())?;
        self.register(cx.poll)
    }

    fn connect_again(&mut self, cx: &Context) {
        let due = self.retry.is_some_and(|retry| retry <= cx.now);
        let Some(end) = self.again.as_ref().filter(|_| due) else { return };
        match connect(end) {
            Ok(socket) => {
                (self.socket, self.retry) = (Some(socket), None);
                if self.register(cx.poll).is_err() {
                    self.close(cx);
                }
            }
            Err(_) => self.retry = Some(cx.now + RETRY),
        }
    }

    /// Writes what waits; false when the connection is broken.
    fn flush(&mut self) -> bool {
        let Some(socket) = &self.socket else { return true };
        let mut done = 0;
        while self.writable && done < self.output.len() {
            let rest = self.output.get(done..).unwrap_or_default();
            match rustix::net::send(socket, rest, SendFlags::NOSIGNAL) {
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.writable = false,
                Err(_) => return false,
            }
        }
        self.output.drain(..done);
        true
    }

    /// The next frame's place in the input. `None`: there is no whole one; an error: what comes is no stream of frames.
    fn next(&self) -> Result<Option<(usize, usize)>, ()> {
        let Some(length) = self.input.get(self.at..).and_then(|rest| rest.first_chunk::<LENGTH>()) else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > MAX_SEGMENTED {
            return Err(());
        }
        let (start, end) = (self.at + LENGTH, self.at + LENGTH + length);
        Ok((end <= self.input.len()).then_some((start, end)))
    }

    /// Passes frames on while there is room; whether the stream is as it should be.
    fn frames(&mut self, cx: &mut Context) -> bool {
        while cx.queue.has_room() {
            let (start, end) = match self.next() {
                Ok(Some(place)) => place,
                Ok(None) => break,
                Err(()) => return false,
            };
            let bytes = self.input.get(start..end).unwrap_or_default();
            if bytes.len() >= ETHERNET_HEADER {
                let mut buffer = cx.queue.buffer();
                buffer.extend_from_slice(bytes);
                cx.queue.push(Frame { bytes: buffer, offload: Offload::default() });
            }
            self.at = end;
        }
        self.input.drain(..std::mem::take(&mut self.at));
        true
    }

    /// Reads as much as one turn may.
    fn read(&mut self) -> bool {
        let Some(socket) = &self.socket else { return true };
        let start = self.input.len();
        if !self.readable || start >= INPUT {
            return true;
        }
        self.input.resize(start + INPUT, 0);
        let read = rustix::net::recv(socket, self.input.get_mut(start..).unwrap_or_default(), RecvFlags::empty());
        let count = read.as_ref().map_or(0, |(count, _)| *count);
        self.input.truncate(start + count);
        match read {
            Ok(_) => count != 0,
            Err(Errno::INTR) => true,
            Err(Errno::AGAIN) => {
                self.readable = false;
                true
            }
            Err(_) => false,
        }
    }
}

impl Network for Stream {
    fn start(&mut self, poll: &Poll) -> io::Result<()> {
        if let Some(listener) = &self.listener {
            poll.add(listener, LISTENER, EventFlags::IN)?;
        }
        self.register(poll)
    }

    fn send(&mut self, frame: &[u8], _: Offload, _: &mut Context) {
        if self.socket.is_some() && self.output.len() + frame.len() <= OUTPUT {
            self.output.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            self.output.extend_from_slice(frame);
        }
    }

    fn event(&mut self, token: u64, flags: EventFlags, cx: &mut Context) {
        if token == LISTENER {
            if let Err(error) = self.accept(cx) {
                tracing::debug!("net: cannot accept: {error}");
            }
            return;
        }
        let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        self.readable |= broken || flags.intersects(EventFlags::IN | EventFlags::RDHUP);
        self.writable |= broken || flags.contains(EventFlags::OUT);
    }

    fn work(&mut self, cx: &mut Context) -> bool {
        self.connect_again(cx);
        if self.socket.is_some() && !(self.flush() && self.frames(cx) && self.read() && self.frames(cx)) {
            self.close(cx);
        }
        self.readable || matches!(self.next(), Ok(Some(_)))
    }

    fn deadline(&self) -> Option<Instant> {
        self.retry
    }
}

/// A frame a datagram.
struct Datagrams {
    socket: OwnedFd,
    remote: Option<Endpoint>,
    buffer: Vec<u8>,
}

impl Network for Datagrams {
    fn start(&mut self, poll: &Poll) -> io::Result<()> {
        poll.add(&self.socket, CONNECTION, EventFlags::IN)
    }

    fn send(&mut self, frame: &[u8], _: Offload, _: &mut Context) {
        let sent = match &self.remote {
            Some(Endpoint::Inet(address)) => {
                rustix::net::sendto(&self.socket, frame, SendFlags::NOSIGNAL, address).map(drop)
            }
            Some(Endpoint::Unix(path)) => rustix::net::SocketAddrUnix::new(path)
                .and_then(|address| rustix::net::sendto(&self.socket, frame, SendFlags::NOSIGNAL, &address).map(drop)),
            None => Ok(()),
        };
        if let Err(error) = sent {
            // The other program is not there yet, or is busy: the frame is lost.
            tracing::debug!("net: {error}");
        }
    }

    fn event(&mut self, _: u64, _: EventFlags, cx: &mut Context) {
        for _ in 0..AT_ONCE {
            let len = match rustix::net::recv(&self.socket, self.buffer.as_mut_slice(), RecvFlags::empty()) {
                Ok((len, _)) => len,
                Err(_) => return,
            };
            if (ETHERNET_HEADER..=MAX_SEGMENTED).contains(&len) {
                let mut buffer = cx.queue.buffer();
                buffer.extend_from_slice(self.buffer.get(..len).unwrap_or_default());
                cx.queue.push(Frame { bytes: buffer, offload: Offload::default() });
            }
        }
    }

    fn work(&mut self, _: &mut Context) -> bool {
        false
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }
}
