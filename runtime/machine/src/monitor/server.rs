//! Where monitors and debuggers connect: a thread for each place, one client at a time.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::control::{Control, Listener, Notice};
use mimus_host::chardev::Relay;
use mimus_host::config::MonitorSocket;
use mimus_host::error::HostError;
use mimus_host::socket::{self, Opened, Telnet};

/// Bytes of answers that a client has not read, at which no more is read from it.
const BACKLOG: usize = 64 << 10;

/// Bytes of answers at which notices are dropped instead.
const NOTICE_BACKLOG: usize = 1 << 20;

/// File descriptors that come with one message at most; the host closes the others.
const HANDED: usize = 16;

/// How long a client that does not read has for the last answers when the machine ends.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Whether a session goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flow {
    /// It does.
    Go,
    /// The client is to be disconnected, once it has been sent what there is.
    End,
}

/// What talks with one client.
pub(super) trait Session: Send {
    /// The client sent bytes. Answers are appended to `out`.
    fn input(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Flow;

    /// Things happened to the machine.
    fn notices(&mut self, notices: &[(Notice, SystemTime)], out: &mut Vec<u8>) -> Flow {
        let _ = (notices, out);
        Flow::Go
    }

    /// The client has handed over file descriptors, with the bytes that come next.
    fn handed(&mut self, fds: Vec<OwnedFd>) {
        drop(fds);
    }

    /// The client turned out to be none, before it was heard: what its coming has changed is undone.
    fn turned_away(&mut self) {}

    /// The client is gone.
    fn closed(&mut self) {}
}

/// Makes a session for each client; what it is greeted with is appended.
pub(super) type Open = Box<dyn FnMut(&mut Vec<u8>) -> Box<dyn Session> + Send>;

/// Bytes of a client's first line that are looked at.
const FIRST_LINE: usize = 4096;

/// Tells programs that speak HTTP from clients: a page in a browser can have it send what it likes to a port of this host.
#[derive(Default)]
struct Guard {
    /// What came of the first line; nothing more of it is looked at once it has ended.
    line: Vec<u8>,
    ended: bool,
}

impl Guard {
    /// Whether the client is no client, by what it has sent up to and with `bytes`.
    fn is_http(&mut self, bytes: &[u8]) -> bool {
        const METHODS: [&[u8]; 9] =
            [b"GET ", b"POST ", b"PUT ", b"HEAD ", b"OPTIONS ", b"DELETE ", b"PATCH ", b"CONNECT ", b"TRACE "];
        if self.ended {
            return false;
        }
        let room = FIRST_LINE - self.line.len();
        let end = bytes.iter().position(|&byte| byte == b'\n');
        self.line.extend(bytes.iter().take(end.unwrap_or(bytes.len()).min(room)));
        self.ended = end.is_some() || self.line.len() == FIRST_LINE;
        METHODS.iter().any(|method| self.line.starts_with(method))
            || self.line.windows(7).any(|part| part == b" HTTP/1")
            || self.line.to_ascii_lowercase().starts_with(b"host:")
    }
}

/// Where clients come from.
enum Source {
    Clients(socket::Listener),
    /// One client, and no other.
    One(Option<Client>),
}

/// A client's two directions.
struct Client {
    input: OwnedFd,
    output: OwnedFd,
    /// Standard output, which others may share, is not made non-blocking.
    shared: bool,
    /// It is a socket, by which file descriptors may come.
    socket: bool,
    /// The other side of a pseudo-terminal, so that it never hangs up.
    _side: Option<OwnedFd>,
    /// What is between it and a character device.
    _relay: Option<Relay>,
}

impl Client {
    fn of_socket(socket: OwnedFd) -> io::Result<Client> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Client {
            input: socket.try_clone()?,
            output: socket,
            shared: false,
            socket: true,
            _side: None,
            _relay: None,
        })
    }

    fn of_terminal(main: OwnedFd, side: OwnedFd) -> io::Result<Client> {
        Ok(Client { socket: false, _side: Some(side), ..Client::of_socket(main)? })
    }

    fn stdio() -> io::Result<Client> {
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        let output = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Client { input, output, shared: true, socket: false, _side: None, _relay: None })
    }

    /// Reads what there is, and adds the file descriptors that have come with it to `handed`.
    fn receive(&self, bytes: &mut [u8], handed: &mut Vec<OwnedFd>) -> rustix::io::Result<usize> {
        if !self.socket {
            return rustix::io::read(&self.input, bytes);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(HANDED))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(&self.input, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                handed.extend(fds);
            }
        }
        Ok(received.bytes)
    }

    /// Sends what the client takes at once.
    fn send(&self, out: &mut Vec<u8>) -> rustix::io::Result<()> {
        while !out.is_empty() {
            let part = if self.shared { out.len().min(512) } else { out.len() };
            match rustix::io::write(&self.output, &out[..part]) {
                Ok(count) => drop(out.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error),
            }
            if self.shared {
                // There may be room for no more.
                return Ok(());
            }
        }
        Ok(())
    }
}

/// A place where clients connect.
#[derive(Debug)]
pub(super) struct Server {
    thread: Option<JoinHandle<()>>,
}

impl Drop for Server {
    /// The control channel is closed then, which ends the thread.
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic was printed by the thread itself.
            let _ = thread.join();
        }
    }
}

impl Server {
    /// Starts to serve `endpoint`, which `option` (as typed) names, with sessions that `open` makes. Waits for the first client
    /// if the endpoint says so.
    ///
    /// # Errors
    ///
    /// What the host refuses, by the option's name.
    pub(super) fn start(
        option: &str,
        endpoint: &MonitorSocket,
        control: &Arc<Control>,
        open: Open,
    ) -> Result<Server, HostError> {
        let failed = |error: io::Error| HostError::new(option, format!("{endpoint}: {error}"));
        let (mut source, waits) = match endpoint.open().map_err(failed)? {
            Opened::Stdio => (Source::One(Some(Client::stdio().map_err(failed)?)), false),
            Opened::Stream(stream) => (Source::One(Some(Client::of_socket(stream.into()).map_err(failed)?)), false),
            Opened::Relayed(stream, relay) => {
                let client = Client::of_socket(stream.into()).map_err(failed)?;
                (Source::One(Some(Client { _relay: Some(relay), ..client })), false)
            }
            Opened::Pty(main, side) => (Source::One(Some(Client::of_terminal(main, side).map_err(failed)?)), false),
            Opened::Listener(listener, waits) => (Source::Clients(listener), waits),
        };
        let first = if waits {
            tracing::warn!("{option}: waiting for a connection on {endpoint}");
            source.wait(None).map_err(failed)?
        } else {
            None
        };
        let listener = control.listen().map_err(failed)?;
        let setup = ServerSetup {
            option: option.to_owned(),
            endpoint: endpoint.clone(),
            source,
            control: control.clone(),
            listener,
            open,
        };
        let name = option.trim_start_matches('-').to_owned();
        let thread = std::thread::Builder::new().name(name).spawn(move || setup.run(first)).map_err(failed)?;
        Ok(Server { thread: Some(thread) })
    }
}

impl Source {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Source::Clients(listener) => Some(listener.as_fd()),
            Source::One(_) => None,
        }
    }

    /// A client that is there.
    fn accept(&mut self) -> io::Result<Option<Client>> {
        let listener = match self {
            Source::Clients(listener) => listener,
            Source::One(client) => return Ok(client.take()),
        };
        match listener.accept() {
            Ok((stream, _)) => Client::of_socket(stream.into()).map(Some),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            // It was gone before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next client; `None` when `end` is readable, or when there is none to come.
    fn wait(&mut self, end: Option<BorrowedFd<'_>>) -> io::Result<Option<Client>> {
        loop {
            if let Some(client) = self.accept()? {
                return Ok(Some(client));
            }
            let Some(fd) = self.fd() else { return Ok(None) };
            let end = end.unwrap_or(fd);
            let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN), PollFd::from_borrowed_fd(end, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if fds[0].revents().is_empty() && !fds[1].revents().is_empty() {
                return Ok(None);
            }
        }
    }
}

/// What was typed at a telnet client.
fn typed(telnet: &mut Telnet, bytes: &[u8]) -> Vec<u8> {
    bytes.iter().filter_map(|&byte| telnet.step(byte)).collect()
}

/// What a server's thread works on.
struct ServerSetup {
    option: String,
    endpoint: MonitorSocket,
    source: Source,
    control: Arc<Control>,
    listener: Arc<Listener>,
    open: Open,
}

impl ServerSetup {
    fn run(mut self, mut next: Option<Client>) {
        while !self.control.is_closed() {
            let client = match next.take() {
                Some(client) => client,
                None => match self.source.wait(Some(self.listener.as_fd())) {
                    Ok(Some(client)) => client,
                    Ok(None) => {
                        // Notices without anybody to be told.
                        self.listener.take();
                        if matches!(self.source, Source::One(_)) {
                            return;
                        }
                        continue;
                    }
                    Err(error) => {
                        tracing::warn!("{}: no more connections: {error}", self.option);
                        return;
                    }
                },
            };
            self.listener.take();
            self.serve(&client);
        }
    }

    fn serve(&mut self, client: &Client) {
        let mut out = Vec::new();
        let mut session = (self.open)(&mut out);
        if let Err(error) = self.talk(client, &mut *session, &mut out) {
            tracing::debug!("{}: the client is gone: {error}", self.option);
        }
        session.closed();
    }

    fn talk(&self, client: &Client, session: &mut dyn Session, out: &mut Vec<u8>) -> rustix::io::Result<()> {
        let mut flow = Flow::Go;
        let mut guard = self.endpoint.is_tcp().then(Guard::default);
        let mut telnet = self.endpoint.telnet();
        loop {
            let closed = self.control.is_closed();
            let notices = self.listener.take();
            if !notices.is_empty() && out.len() < NOTICE_BACKLOG && flow == Flow::Go {
                flow = session.notices(&notices, out);
            }
            if closed {
                return self.finish(client, out);
            }
            if flow == Flow::End && out.is_empty() {
                return Ok(());
            }
            let reading = flow == Flow::Go && out.len() < BACKLOG;
            let (readable, writable) = self.wait(client, reading, !out.is_empty())?;
            if writable {
                client.send(out)?;
            }
            if readable {
                let (mut bytes, mut handed) = ([0; 4096], Vec::new());
                match client.receive(&mut bytes, &mut handed) {
                    // What it was not told yet it may still read.
                    Ok(0) if out.is_empty() => return Ok(()),
                    Ok(0) => flow = Flow::End,
                    Ok(count) => {
                        let bytes = bytes.get(..count).unwrap_or_default();
                        if guard.as_mut().is_some_and(|guard| guard.is_http(bytes)) {
                            tracing::warn!("{}: a client that speaks HTTP is disconnected", self.option);
                            session.turned_away();
                            return Ok(());
                        }
                        if !handed.is_empty() {
                            session.handed(handed);
                        }
                        flow = match &mut telnet {
                            Some(telnet) => session.input(&typed(telnet, bytes), out),
                            None => session.input(bytes, out),
                        };
                    }
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Waits until the client may be read or written, as wanted, or something has happened.
    fn wait(&self, client: &Client, reading: bool, writing: bool) -> rustix::io::Result<(bool, bool)> {
        let wanted = |wanted, flag| if wanted { flag } else { PollFlags::empty() };
        let mut fds = [
            PollFd::new(&self.listener, PollFlags::IN),
            PollFd::new(&client.input, wanted(reading, PollFlags::IN)),
            PollFd::new(&client.output, wanted(writing, PollFlags::OUT)),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let over = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        let (input, output) = (fds[1].revents(), fds[2].revents());
        if !reading && !writing && (input | output).intersects(over) {
            return Err(Errno::PIPE);
        }
        Ok((reading && !input.is_empty(), writing && !output.is_empty()))
    }

    /// Sends the last answers, for some time.
    fn finish(&self, client: &Client, out: &mut Vec<u8>) -> rustix::io::Result<()> {
        let begin = std::time::Instant::now();
        while !out.is_empty() {
            let left = LAST_WORDS.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            let timeout = Timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().into() };
            let mut fds = [PollFd::new(&client.output, PollFlags::OUT)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => client.send(out)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_browser_sends_is_no_command() {
        let is_http = |parts: &[&[u8]]| {
            let mut guard = Guard::default();
            parts.iter().any(|part| guard.is_http(part))
        };
        assert!(is_http(&[b"GET / HTTP/1.1\r\nHost: x\r\n"]));
        assert!(is_http(&[b"PO", b"ST /", b" HTTP/1.1\r\n\r\nquit\n"]));
        assert!(is_http(&[b"EVIL / HTTP", b"/1.1\r\n\r\nquit\n"]));
        assert!(is_http(&[b"host: localhost\n"]));
        assert!(!is_http(&[b"{\"execute\": \"qmp_capabilities\"}\n", b"GET "]));
        assert!(!is_http(&[b"$qSupported#37"]));
        assert!(!is_http(&[b"info status\nPOST "]));
        assert!(!is_http(&[&[b'x'; FIRST_LINE], b"GET "]));
    }
}
