//! Character devices other than the terminal: pipes, pseudo-terminals and sockets, each for output and input at once.
//!
//! Output goes to whoever is there, and nowhere while nobody is. Somebody who does not read is waited for once, and not again
//! until there is room: a guest must not stand still because of them for long.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mimus_hw::CharSink;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::config::{Chardev, MonitorSocket};
use crate::error::{HostError, append_output, open_output};
use crate::socket::{self, Listener, Opened, Telnet};
use crate::terminal::{OnSinkError, open_sink};
use crate::wake::Wake;

mod mux;
mod relay;

pub use mux::Mux;
pub use relay::Relay;

/// How long a write waits for a peer that does not read.
const PATIENCE: Duration = Duration::from_secs(1);

/// How soon a guest without room is offered input again.
const RETRY: Duration = Duration::from_millis(5);

/// Gives a guest input; how much of it was taken.
pub type Deliver = Box<dyn FnMut(&[u8]) -> usize + Send>;

/// Called with true when a client connects, with false when it is gone.
pub type Attend = Box<dyn FnMut(bool) + Send>;

/// The other end of a connection.
#[derive(Debug, Default)]
struct Peer {
    output: Option<OwnedFd>,
    /// It did not read for so long that it is not waited for.
    stuck: bool,
    /// It speaks telnet.
    telnet: bool,
}

#[derive(Clone, Debug, Default)]
struct SharedPeer(Arc<Mutex<Peer>>);

impl SharedPeer {
    fn lock(&self) -> MutexGuard<'_, Peer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, output: Option<OwnedFd>) {
        *self.lock() = Peer { output, ..Peer::default() };
    }
}

impl CharSink for SharedPeer {
    fn write(&mut self, bytes: &[u8]) {
        let mut peer = self.lock();
        let Peer { output: Some(output), stuck, telnet } = &mut *peer else { return };
        let escaped = telnet.then(|| Telnet::escape(bytes));
        let mut bytes = escaped.as_deref().unwrap_or(bytes);
        while !bytes.is_empty() {
            match rustix::io::write(&*output, bytes) {
                Ok(count) => {
                    *stuck = false;
                    bytes = bytes.get(count..).unwrap_or_default();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if !*stuck => {
                    let room = wait(&mut [PollFd::new(&*output, PollFlags::OUT)], Some(PATIENCE));
                    *stuck = !matches!(room, Ok(count) if count != 0);
                }
                Err(Errno::AGAIN | Errno::CONNREFUSED) => return,
                Err(_) => {
                    // It is gone; the thread that reads from it notices by itself.
                    peer.output = None;
                    return;
                }
            }
        }
    }
}

/// Polls, interrupted or not; how many are ready.
fn wait(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> rustix::io::Result<usize> {
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    match poll(fds, timeout.as_ref()) {
        Err(Errno::INTR) => Ok(0),
        result => result,
    }
}

/// Connects again.
#[derive(Debug)]
struct Again {
    place: MonitorSocket,
    period: Duration,
    /// When next; at once if not yet tried.
    next: Option<Instant>,
}

/// Where input comes from.
#[derive(Default)]
pub struct Source {
    input: Option<OwnedFd>,
    listener: Option<Listener>,
    again: Option<Again>,
    /// The peer speaks telnet.
    telnet: Option<Telnet>,
    peer: SharedPeer,
    /// What is typed at a device that is shared, by one of this number.
    mux: Option<(Mux, usize)>,
    /// Whom it concerns whether somebody is there.
    attend: Option<Attend>,
    /// A pseudo-terminal's other side, which is kept open so that it never hangs up.
    _side: Option<OwnedFd>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("input", &self.input).finish_non_exhaustive()
    }
}

/// Opens `chardev`, which `option` (as typed, such as `-serial`) names: where output goes, and where input comes from if it is not
/// standard input.
///
/// # Errors
///
/// What the host refuses.
pub fn open(
    option: &str,
    chardev: &Chardev,
    on_error: OnSinkError,
) -> Result<(Box<dyn CharSink>, Option<Source>), HostError> {
    open_as(option, option, chardev, on_error)
}

/// The same; `label` is how others are told of it.
fn open_as(
    option: &str,
    label: &str,
    chardev: &Chardev,
    on_error: OnSinkError,
) -> Result<(Box<dyn CharSink>, Option<Source>), HostError> {
    let failed = |error: io::Error| HostError::new(option, format!("{chardev}: {error}"));
    let source = match chardev {
        Chardev::Stdio { .. } | Chardev::File(_) | Chardev::Append(_) | Chardev::Null | Chardev::None => {
            return Ok((open_sink(option, chardev, on_error)?, None));
        }
        Chardev::Pipe(path) => pipe(path).map_err(failed)?,
        Chardev::Named { id, chardev } => return open_as(option, &format!("label {id}"), chardev, on_error),
        Chardev::Pty(name) => {
            let (source, made) = pty().map_err(failed)?;
            name.set(&made);
            // As QEMU says it, so that what looks for the name finds it. Without a standard error there is nobody to tell.
            let _ = writeln!(io::stderr(), "char device redirected to {made} ({label})");
            source
        }
        Chardev::Socket(place) => open_socket(option, place).map_err(failed)?,
        Chardev::Reconnecting(place, seconds) => reconnecting(place, *seconds),
        Chardev::Udp { local, remote } => udp(local, remote).map_err(failed)?,
        Chardev::Device(path) => device(path).map_err(failed)?,
        Chardev::Mux(mux) => {
            return mux.attach(option, label, false, on_error).map(|(sink, source)| (sink, Some(source)));
        }
        Chardev::Logged { chardev, file, append } => {
            let log = if *append { append_output(option, file)? } else { open_output(option, file)? };
            let (sink, source) = open_as(option, label, chardev, on_error)?;
            return Ok((Box::new(Logged { sink, log: Some(log) }), source));
        }
    };
    Ok((Box::new(source.peer.clone()), Some(source)))
}

/// Copies output to a file.
struct Logged {
    sink: Box<dyn CharSink>,
    /// Nowhere any more after an error, which is told.
    log: Option<File>,
}

impl CharSink for Logged {
    fn write(&mut self, bytes: &[u8]) {
        self.sink.write(bytes);
        if let Some(Err(error)) = self.log.as_mut().map(|log| log.write_all(bytes)) {
            tracing::warn!("logfile: the log is incomplete: {error}");
            self.log = None;
        }
    }
}

/// A source of one peer, who stays.
fn of(input: OwnedFd, side: Option<OwnedFd>, output: OwnedFd) -> io::Result<Source> {
    rustix::io::ioctl_fionbio(&output, true)?;
    let peer = SharedPeer::default();
    peer.set(Some(output));
    Ok(Source { input: Some(input), peer, _side: side, ..Source::default() })
}

/// A device of the host's, such as a serial port. A terminal passes bytes as they are; its speed stays.
fn device(path: &Path) -> io::Result<Source> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    if let Ok(mut modes) = tcgetattr(&file) {
        modes.make_raw();
        tcsetattr(&file, OptionalActions::Now, &modes)?;
    }
    of(file.try_clone()?, None, file)
}

/// Two pipes, PATH.in and PATH.out, or one for both directions.
fn pipe(path: &Path) -> io::Result<Source> {
    let name = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    // Opened for both directions, a pipe does not wait for somebody at its other end, nor end when they go.
    let both = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
    let (input, output) = match (both(&name(".in")), both(&name(".out"))) {
        (Ok(input), Ok(output)) => (input, output),
        _ => {
            let both = both(path)?;
            (both.try_clone()?, both)
        }
    };
    of(input.into(), None, output.into())
}

/// A pseudo-terminal, and the name of its other side.
fn pty() -> io::Result<(Source, String)> {
    let (main, side, name) = socket::pty()?;
    Ok((of(main.try_clone()?, Some(side), main)?, name))
}

/// Datagrams between two addresses, each `HOST:PORT`.
fn udp(local: &str, remote: &str) -> io::Result<Source> {
    let socket = UdpSocket::bind(local)?;
    socket.connect(remote)?;
    of(socket.try_clone()?.into(), None, socket.into())
}

/// A client of a socket that somebody else listens at, or will.
fn reconnecting(place: &MonitorSocket, seconds: u32) -> Source {
    let again = Again { place: place.clone(), period: Duration::from_secs(seconds.into()), next: None };
    Source { again: Some(again), telnet: place.telnet(), ..Source::default() }
}

fn open_socket(option: &str, place: &MonitorSocket) -> io::Result<Source> {
    let (listener, waits) = match place.open()? {
        Opened::Stdio | Opened::Relayed(..) => return Err(io::ErrorKind::Unsupported.into()),
        Opened::Stream(stream) => {
            let mut source = Source { telnet: place.telnet(), ..Source::default() };
            source.welcome(stream.into())?;
            return Ok(source);
        }
        Opened::Pty(main, side) => return of(main.try_clone()?, Some(side), main),
        Opened::Listener(listener, waits) => (listener, waits),
    };
    let mut source = Source { telnet: place.telnet(), ..Source::default() };
    if waits {
        tracing::warn!("{option}: waiting for a connection on {place}");
        while source.input.is_none() {
            match listener.accept() {
                Ok((client, _)) => source.welcome(client.into())?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait(&mut [PollFd::new(&listener, PollFlags::IN)], None)?;
                }
                Err(error) => return Err(error),
            }
        }
    }
    source.listener = Some(listener);
    Ok(source)
}

impl Source {
    /// The same source, which calls `attend` when a client connects and when it is gone.
    pub fn attended(self, attend: Attend) -> Source {
        Source { attend: Some(attend), ..self }
    }

    fn tell(&mut self) {
        let here = self.input.is_some();
        if let Some(attend) = &mut self.attend {
            attend(here);
        }
    }

    fn welcome(&mut self, client: OwnedFd) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&client, true)?;
        self.input = Some(client.try_clone()?);
        self.peer.set(Some(client));
        if let Some(telnet) = &mut self.telnet {
            *telnet = Telnet::default();
            self.peer.write(Telnet::CHARACTERS);
            self.peer.lock().telnet = true;
        }
        self.tell();
        Ok(())
    }

    /// Connects, if it is time; how long there is until then.
    fn connect(&mut self) -> Option<Duration> {
        let again = self.again.as_mut().filter(|_| self.input.is_none())?;
        let now = Instant::now();
        let left = again.next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now));
        if !left.is_zero() {
            return Some(left);
        }
        again.next = Some(now + again.period);
        let period = again.period;
        match again.place.open().map(|opened| match opened {
            Opened::Stream(stream) => self.welcome(stream.into()),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }) {
            Ok(Ok(())) => None,
            Ok(Err(error)) | Err(error) => {
                tracing::debug!("a character device is not connected: {error}");
                Some(period)
            }
        }
    }

    fn run(mut self, wake: &Wake, mut deliver: Deliver) {
        let mut pending = Vec::new();
        self.tell();
        while !wake.is_stopped() {
            if !pending.is_empty() {
                let taken = deliver(&pending).min(pending.len());
                pending.drain(..taken);
            }
            let later = self.connect();
            let mut fds = vec![PollFd::new(wake, PollFlags::IN)];
            match (&self.input, &self.listener) {
                // No more is read before there is room for it.
                _ if !pending.is_empty() => {}
                (Some(input), _) => fds.push(PollFd::new(input, PollFlags::IN)),
                (None, Some(listener)) => fds.push(PollFd::new(listener, PollFlags::IN)),
                (None, None) if later.is_none() => return,
                (None, None) => {}
            }
            let timeout = if pending.is_empty() { later } else { Some(RETRY) };
            if let Err(error) = wait(&mut fds, timeout) {
                tracing::warn!("a character device is no longer read: {error}");
                return;
            }
            if fds.get(1).is_some_and(|fd| !fd.revents().is_empty()) {
                self.ready(&mut pending);
            }
        }
    }

    /// There is a client, or input of one.
    fn ready(&mut self, pending: &mut Vec<u8>) {
        let Some(input) = &self.input else {
            let client = self.listener.as_ref().map(Listener::accept);
            if let Some(Err(error)) = client.map(|client| client.and_then(|(client, _)| self.welcome(client.into()))) {
                tracing::debug!("a client is gone before it was served: {error}");
            }
            return;
        };
        let mut bytes = [0; 4096];
        match rustix::io::read(input, &mut bytes) {
            Ok(count) if count != 0 => {
                let bytes = bytes.get(..count).unwrap_or_default().iter().copied();
                match &mut self.telnet {
                    Some(telnet) => pending.extend(bytes.filter_map(|byte| telnet.step(byte))),
                    None => pending.extend(bytes),
                }
            }
            // Nobody listens where datagrams go, yet.
            Err(Errno::INTR | Errno::AGAIN | Errno::CONNREFUSED) => {}
            _ => {
                self.input = None;
                self.peer.set(None);
                self.tell();
            }
        }
    }
}

/// A thread that gives a guest the input of a [`Source`]. Dropping it ends the thread and waits for it, so no lock that delivering
/// takes may be held then.
#[derive(Debug)]
pub struct CharThread {
    wake: Arc<Wake>,
    thread: Option<JoinHandle<()>>,
    /// Reads for all who share a device with this one.
    _shared: Option<Box<CharThread>>,
}

impl CharThread {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// When no thread can be made.
    pub fn start(source: Source, deliver: Deliver) -> io::Result<CharThread> {
        let wake = Arc::new(Wake::new()?);
        if let Some((mux, number)) = &source.mux {
            let shared = mux.connect(*number, deliver)?;
            return Ok(CharThread { wake, thread: None, _shared: shared.map(Box::new) });
        }
        let own = wake.clone();
        let thread = std::thread::Builder::new().name("chardev".into()).spawn(move || source.run(&own, deliver))?;
        Ok(CharThread { wake, thread: Some(thread), _shared: None })
    }
}

impl Drop for CharThread {
    fn drop(&mut self) {
        self.wake.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    /// A guest that takes three bytes at a time, and what it has.
    fn guest() -> (Arc<Mutex<Vec<u8>>>, Deliver) {
        let taken: Arc<Mutex<Vec<u8>>> = Arc::default();
        let own = taken.clone();
        let deliver = move |bytes: &[u8]| {
            let part = &bytes[..bytes.len().min(3)];
            own.lock().unwrap().extend(part);
            part.len()
        };
        (taken, Box::new(deliver))
    }

    fn until(taken: &Mutex<Vec<u8>>, bytes: &[u8]) {
        let end = Instant::now() + Duration::from_secs(20);
        while *taken.lock().unwrap() != bytes {
            assert!(Instant::now() < end, "{:?}", taken.lock().unwrap());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn name(end: &str) -> PathBuf {
        std::env::temp_dir().join(format!("mimus-chardev-{}-{end}", std::process::id()))
    }

    fn opened(chardev: &Chardev) -> (Box<dyn CharSink>, Source) {
        let (sink, source) = open("-serial", chardev, Box::new(|_| panic!("no error"))).unwrap();
        (sink, source.unwrap())
    }

    fn read(stream: &mut impl Read, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn one_client_after_another_and_none() {
        let path = name("socket");
        let place = MonitorSocket::Unix { path: path.clone(), server: true, wait: false };
        let (mut sink, source) = opened(&Chardev::Socket(place));
        sink.write(b"to nobody");
        let (taken, deliver) = guest();
        let (told, here) = std::sync::mpsc::channel();
        let source = source.attended(Box::new(move |here| told.send(here).unwrap()));
        let thread = CharThread::start(source, deliver).unwrap();
        let mut first = UnixStream::connect(&path).unwrap();
        first.write_all(b"hello, guest").unwrap();
        until(&taken, b"hello, guest");
        sink.write(b"hello, host");
        assert_eq!(read(&mut first, 11), b"hello, host");
        drop(first);
        let mut second = UnixStream::connect(&path).unwrap();
        second.write_all(b"!").unwrap();
        until(&taken, b"hello, guest!");
        sink.write(b"again");
        assert_eq!(read(&mut second, 5), b"again");
        drop(thread);
        assert_eq!(here.iter().collect::<Vec<_>>(), [false, true, false, true]);
        assert!(!path.exists(), "the name goes with it");
    }

    #[test]
    fn a_client_that_does_not_read_is_waited_for_once() {
        let path = name("stuck");
        let place = MonitorSocket::Unix { path: path.clone(), server: true, wait: false };
        let (mut sink, source) = opened(&Chardev::Socket(place));
        let (taken, deliver) = guest();
        let _thread = CharThread::start(source, deliver).unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"x").unwrap();
        until(&taken, b"x");
        let begin = Instant::now();
        (0..200).for_each(|_| sink.write(&[7; 65536]));
        assert!(begin.elapsed() >= PATIENCE && begin.elapsed() < 20 * PATIENCE, "{:?}", begin.elapsed());
        client.set_nonblocking(true).unwrap();
        while client.read(&mut [0; 65536]).is_ok_and(|count| count != 0) {}
        sink.write(b"later");
        assert_eq!(read(&mut client, 5), b"later");
    }

    #[test]
    fn a_pseudo_terminal_passes_bytes_as_they_are() {
        let (source, name) = pty().unwrap();
        let mut sink = source.peer.clone();
        let (taken, deliver) = guest();
        let _thread = CharThread::start(source, deliver).unwrap();
        let mut side = OpenOptions::new().read(true).write(true).open(name).unwrap();
        sink.write(b"login:\n\x03");
        assert_eq!(read(&mut side, 8), b"login:\n\x03");
        side.write_all(b"root\r\x03\x04").unwrap();
        until(&taken, b"root\r\x03\x04");
    }

    #[test]
    fn a_connection_that_is_gone_is_made_again() {
        let path = name("again");
        let place = MonitorSocket::Unix { path: path.clone(), server: false, wait: false };
        let (mut sink, source) = opened(&Chardev::Reconnecting(place, 1));
        sink.write(b"to nobody");
        let (taken, deliver) = guest();
        let _thread = CharThread::start(source, deliver).unwrap();
        for (round, text) in [&b"one"[..], b"onetwo"].into_iter().enumerate() {
            let listener = UnixListener::bind(&path).unwrap();
            let mut client = listener.accept().unwrap().0;
            client.write_all(&text[3 * round..]).unwrap();
            until(&taken, text);
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_telnet_client_is_told_to_send_keys() {
        let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = probe.local_addr().unwrap().port();
        drop(probe);
        let tcp = MonitorSocket::Tcp { host: "127.0.0.1".into(), port, server: true, wait: false };
        let (mut sink, source) = opened(&Chardev::Socket(MonitorSocket::Telnet(tcp.into())));
        let (taken, deliver) = guest();
        let _thread = CharThread::start(source, deliver).unwrap();
        let mut client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert_eq!(read(&mut client, 12), Telnet::CHARACTERS);
        client.write_all(b"r\xff\xfd\x03oot").unwrap();
        until(&taken, b"root");
        sink.write(b"\xff!");
        assert_eq!(read(&mut client, 3), b"\xff\xff!");
    }

    #[test]
    fn a_terminal_of_the_host_passes_bytes_as_they_are() {
        let (main, _side, name) = socket::pty().unwrap();
        let (mut sink, source) = opened(&Chardev::Device(name.into()));
        let (taken, deliver) = guest();
        let _thread = CharThread::start(source, deliver).unwrap();
        let mut main = File::from(main);
        sink.write(b"AT\r\x03");
        assert_eq!(read(&mut main, 4), b"AT\r\x03");
        main.write_all(b"OK\r\n\x04").unwrap();
        until(&taken, b"OK\r\n\x04");
        assert!(open("-serial", &Chardev::Device("/dev/no-such-port".into()), Box::new(|_| {})).is_err());
    }

    #[test]
    fn a_monitor_may_be_at_any_of_them() {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let own = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let chardev = Chardev::Udp { local: own.to_string(), remote: peer.local_addr().unwrap().to_string() };
        let (mut monitor, _relay) = Relay::open("-monitor", &chardev).unwrap();
        peer.send_to(b"info status\n", own).unwrap();
        assert_eq!(read(&mut monitor, 12), b"info status\n");
        monitor.write_all(b"running").unwrap();
        let mut bytes = [0; 8];
        assert_eq!((peer.recv(&mut bytes).unwrap(), &bytes[..7]), (7, &b"running"[..]));
    }

    #[test]
    fn datagrams_both_ways() {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let own = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let remote = peer.local_addr().unwrap().to_string();
        let (mut sink, source) = opened(&Chardev::Udp { local: own.to_string(), remote });
        let (taken, deliver) = guest();
        let _thread = CharThread::start(source, deliver).unwrap();
        sink.write(b"out");
        let mut bytes = [0; 8];
        assert_eq!((peer.recv(&mut bytes).unwrap(), &bytes[..3]), (3, &b"out"[..]));
        peer.send_to(b"in", own).unwrap();
        until(&taken, b"in");
    }

    #[test]
    fn a_log_has_a_copy_of_the_output() {
        let (log, out) = (name("log"), name("out"));
        std::fs::write(&log, "before\n").unwrap();
        std::fs::write(&out, "before\n").unwrap();
        for (append, expected) in [(true, "before\n1"), (false, "1")] {
            let logged = Chardev::Logged { chardev: Chardev::Append(out.clone()).into(), file: log.clone(), append };
            let (mut sink, _) = open("-serial", &logged, Box::new(|_| panic!("no error"))).unwrap();
            sink.write(b"1");
            assert_eq!(std::fs::read_to_string(&log).unwrap(), expected);
        }
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "before\n11");
        [log, out].iter().for_each(|path| std::fs::remove_file(path).unwrap());
    }

    #[test]
    fn pipes_of_both_kinds() {
        let path = name("pipe");
        let both = [path.with_extension("in"), path.with_extension("out")];
        both.iter().for_each(|path| {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        });
        let (mut sink, source) = opened(&Chardev::Pipe(path.clone()));
        let (taken, deliver) = guest();
        let thread = CharThread::start(source, deliver).unwrap();
        std::fs::write(&both[0], "typed").unwrap();
        until(&taken, b"typed");
        sink.write(b"out");
        let mut out = std::fs::File::open(&both[1]).unwrap();
        assert_eq!(read(&mut out, 3), b"out");
        drop(thread);
        both.iter().for_each(|path| std::fs::remove_file(path).unwrap());
        assert!(open("-serial", &Chardev::Pipe(path), Box::new(|_| {})).is_err(), "there are none");
    }
}
