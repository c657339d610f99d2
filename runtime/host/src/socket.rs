//! Sockets that others connect to, or that they listen at: TCP, or in the file system.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{AddressFamily, sockopt};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::chardev::Relay;
use crate::config::MonitorSocket;

/// Binds a socket in the file system by `bind`. One of before, which nobody listens at, is replaced.
///
/// # Errors
///
/// Those of `bind`; a file that is no socket stays.
pub fn bind_unix<T>(path: &Path, bind: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
    match bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && UnixStream::connect(path).is_err() => {
            if std::fs::symlink_metadata(path)?.file_type().is_socket() {
                std::fs::remove_file(path)?;
            }
            bind(path)
        }
        result => result,
    }
}

/// A socket that clients connect to. Accepting does not wait; a socket in the file system goes with it.
#[derive(Debug)]
pub enum Listener {
    /// At a TCP port.
    Tcp(TcpListener),
    /// In the file system, with its name if it is to go with it.
    Unix(UnixListener, Option<PathBuf>),
}

impl Listener {
    /// Listens at a TCP port.
    ///
    /// # Errors
    ///
    /// When there is no such address, or somebody listens there already.
    pub fn tcp(address: impl ToSocketAddrs) -> io::Result<Listener> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Listener::Tcp(listener))
    }

    /// Listens at a socket in the file system.
    ///
    /// # Errors
    ///
    /// As of [`bind_unix`].
    pub fn unix(path: &Path) -> io::Result<Listener> {
        let listener = bind_unix(path, |path| UnixListener::bind(path))?;
        let listener = Listener::Unix(listener, Some(path.to_owned()));
        rustix::io::ioctl_fionbio(&listener, true)?;
        Ok(listener)
    }

    /// The address of a TCP port.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(..) => None,
        }
    }

    /// The next client, which waits when it is read, and how it is called.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] when there is none yet.
    pub fn accept(&self) -> io::Result<(Stream, String)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                // What is small is waited for.
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), peer.to_string()))
            }
            Listener::Unix(listener, path) => {
                let name = path.as_ref().map_or_else(|| "a socket".to_owned(), |path| path.display().to_string());
                Ok((Stream::Unix(listener.accept()?.0), name))
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener, _) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, Some(path)) = self {
            // It may have been taken away by somebody else.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// By TCP.
    Tcp(TcpStream),
    /// By a socket in the file system.
    Unix(UnixStream),
}

/// Does the same with either.
macro_rules! either {
    ($stream:expr, $own:ident => $do:expr) => {
        match $stream {
            Stream::Tcp($own) => $do,
            Stream::Unix($own) => $do,
        }
    };
}

impl Stream {
    /// Another handle of the same connection.
    pub fn try_clone(&self) -> io::Result<Stream> {
        Ok(match self {
            Stream::Tcp(stream) => Stream::Tcp(stream.try_clone()?),
            Stream::Unix(stream) => Stream::Unix(stream.try_clone()?),
        })
    }

    /// How long reading waits.
    pub fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        either!(self, stream => stream.set_read_timeout(time))
    }

    /// How long writing waits.
    pub fn set_write_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        either!(self, stream => stream.set_write_timeout(time))
    }

    /// Ends the connection for all threads that use it.
    pub fn close(&self) {
        // Fails when it has ended already.
        let _ = either!(self, stream => stream.shutdown(Shutdown::Both));
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        either!(self, stream => stream.as_fd())
    }
}

impl From<Stream> for OwnedFd {
    fn from(stream: Stream) -> OwnedFd {
        either!(stream, stream => stream.into())
    }
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        either!(self, stream => stream.read(out))
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        either!(self, stream => { let mut stream = stream; stream.write(bytes) })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A place that the command line names, once it is open.
#[derive(Debug)]
pub enum Opened {
    /// Standard input and output.
    Stdio,
    /// A connection to a listening socket.
    Stream(Stream),
    /// Clients connect to it; whether the first one is to be waited for.
    Listener(Listener, bool),
    /// A character device of another kind, by a connection of its own.
    Relayed(Stream, Relay),
    /// A pseudo-terminal: this process's side, and the other, which is kept open so that it never hangs up.
    Pty(OwnedFd, OwnedFd),
}

/// A socket that the process was started with.
fn inherited(fd: i32) -> io::Result<OwnedFd> {
    if fd <= 2 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "standard input and output are no sockets"));
    }
    // SAFETY: it is only borrowed to ask the host for another descriptor of the same file, which fails if there is none.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(rustix::io::fcntl_dupfd_cloexec(borrowed, 3)?)
}

/// The same, that clients connect to or that is a connection.
fn open_inherited(fd: i32, server: bool, wait: bool) -> io::Result<Opened> {
    let socket = inherited(fd)?;
    let unix = sockopt::socket_domain(&socket)? == AddressFamily::UNIX;
    if server {
        rustix::io::ioctl_fionbio(&socket, true)?;
    }
    Ok(match (server, unix) {
        (true, true) => Opened::Listener(Listener::Unix(socket.into(), None), wait),
        (true, false) => Opened::Listener(Listener::Tcp(socket.into()), wait),
        (false, true) => Opened::Stream(Stream::Unix(socket.into())),
        (false, false) => Opened::Stream(Stream::Tcp(socket.into())),
    })
}

/// Bytes of the telnet protocol (RFC 854, RFC 856 to 858).
mod telnet {
    pub(super) const IAC: u8 = 255;
    pub(super) const DONT: u8 = 254;
    pub(super) const WILL: u8 = 251;
    pub(super) const DO: u8 = 253;
    pub(super) const SB: u8 = 250;
    pub(super) const SE: u8 = 240;
    pub(super) const BINARY: u8 = 0;
    pub(super) const ECHO: u8 = 1;
    pub(super) const SUPPRESS_GO_AHEAD: u8 = 3;
}

/// Takes a telnet client's commands out of what it types.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Telnet {
    /// Nothing began.
    #[default]
    Text,
    /// A command.
    Command,
    /// A command with an option, which comes.
    Option,
    /// A negotiation, up to its end.
    Negotiation,
    /// That, and perhaps its end.
    End,
}

impl Telnet {
    /// What a client is told, so that it sends each key as it is, and does not show it.
    pub const CHARACTERS: &[u8] = &{
        use telnet::{BINARY, DO, ECHO, IAC, SUPPRESS_GO_AHEAD, WILL};
        [IAC, WILL, ECHO, IAC, WILL, SUPPRESS_GO_AHEAD, IAC, WILL, BINARY, IAC, DO, BINARY]
    };

    /// The byte that was typed, if this one is.
    pub fn step(&mut self, byte: u8) -> Option<u8> {
        use telnet::{DONT, IAC, SB, SE, WILL};
        let (next, typed) = match (*self, byte) {
            (Telnet::Text, IAC) => (Telnet::Command, None),
            (Telnet::Text, byte) => (Telnet::Text, Some(byte)),
            (Telnet::Command, IAC) => (Telnet::Text, Some(IAC)),
            (Telnet::Command, WILL..=DONT) => (Telnet::Option, None),
            (Telnet::Command, SB) => (Telnet::Negotiation, None),
            (Telnet::Command | Telnet::Option, _) | (Telnet::End, SE) => (Telnet::Text, None),
            (Telnet::Negotiation, IAC) => (Telnet::End, None),
            (Telnet::Negotiation | Telnet::End, _) => (Telnet::Negotiation, None),
        };
        *self = next;
        typed
    }

    /// Output as a client takes it.
    pub fn escape(bytes: &[u8]) -> Vec<u8> {
        let twice = |&byte: &u8| std::iter::repeat_n(byte, if byte == telnet::IAC { 2 } else { 1 });
        bytes.iter().flat_map(twice).collect()
    }
}

impl MonitorSocket {
    /// How a client's input is to be read, if it speaks telnet.
    pub fn telnet(&self) -> Option<Telnet> {
        matches!(self, MonitorSocket::Telnet(_)).then(Telnet::default)
    }

    /// Whether strangers reach it, such as a program that runs in a browser on this host.
    pub fn is_tcp(&self) -> bool {
        let known = matches!(self, MonitorSocket::Stdio | MonitorSocket::Pty(_) | MonitorSocket::Unix { .. });
        !known
    }

    /// Connects to it, or listens there.
    ///
    /// # Errors
    ///
    /// What the host refuses.
    pub fn open(&self) -> io::Result<Opened> {
        Ok(match self {
            MonitorSocket::Stdio => Opened::Stdio,
            MonitorSocket::Telnet(place) => place.open()?,
            MonitorSocket::At(chardev) => {
                let (stream, relay) = Relay::open("a monitor", chardev).map_err(io::Error::other)?;
                Opened::Relayed(Stream::Unix(stream), relay)
            }
            MonitorSocket::Inherited { fd, server, wait } => open_inherited(*fd, *server, *wait)?,
            MonitorSocket::Pty(known) => {
                let (main, side, name) = pty()?;
                known.set(&name);
                // As QEMU says it, so that what looks for the name finds it. Without a standard error there is nobody to tell.
                let _ = writeln!(io::stderr(), "char device redirected to {name}");
                Opened::Pty(main, side)
            }
            MonitorSocket::Unix { path, server: true, wait } => Opened::Listener(Listener::unix(path)?, *wait),
            MonitorSocket::Unix { path, .. } => Opened::Stream(Stream::Unix(UnixStream::connect(path)?)),
            MonitorSocket::Tcp { host, port, server: true, wait } => {
                Opened::Listener(Listener::tcp((host.as_str(), *port))?, *wait)
            }
            MonitorSocket::Tcp { host, port, .. } => {
                let stream = TcpStream::connect((host.as_str(), *port))?;
                stream.set_nodelay(true)?;
                Opened::Stream(Stream::Tcp(stream))
            }
        })
    }
}

/// A pseudo-terminal: this process's side, the other, and the other's name.
pub fn pty() -> io::Result<(OwnedFd, OwnedFd, String)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let main = openpt(flags)?;
    grantpt(&main)?;
    unlockpt(&main)?;
    let side = ioctl_tiocgptpeer(&main, flags)?;
    // Without echo: what is written to it would be its input.
    let mut modes = tcgetattr(&side)?;
    modes.make_raw();
    tcsetattr(&side, OptionalActions::Now, &modes)?;
    let name = ptsname(&main, Vec::new())?.to_string_lossy().into_owned();
    Ok((main, side, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_telnet_client_negotiates_is_not_typed() {
        let mut telnet = Telnet::default();
        let bytes = b"a\xff\xfd\x01b\xff\xfa\x1f\x00\xff\xff\x18\xff\xf0c\xff\xffd\xff\xf1e";
        let typed: Vec<u8> = bytes.iter().filter_map(|&byte| telnet.step(byte)).collect();
        assert_eq!(typed, b"abc\xffde");
        assert_eq!(Telnet::escape(b"1\xff2"), b"1\xff\xff2");
    }

    #[test]
    fn sockets_that_the_process_was_started_with() {
        let path = std::env::temp_dir().join(format!("mimus-inherited-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&listener);
        let opened = MonitorSocket::Inherited { fd, server: true, wait: false }.open().unwrap();
        let Opened::Listener(own, false) = opened else { panic!("{opened:?}") };
        let client = UnixStream::connect(&path).unwrap();
        own.accept().unwrap();
        drop(own);
        assert!(path.exists(), "it is somebody else's");
        let fd = std::os::fd::AsRawFd::as_raw_fd(&client);
        let opened = MonitorSocket::Inherited { fd, server: false, wait: false }.open().unwrap();
        assert!(matches!(opened, Opened::Stream(Stream::Unix(_))));
        assert!(MonitorSocket::Inherited { fd: 1, server: false, wait: false }.open().is_err());
        assert!(MonitorSocket::Inherited { fd: 1 << 20, server: false, wait: false }.open().is_err());
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_name_is_taken_over_from_the_dead_only() {
        let path = std::env::temp_dir().join(format!("mimus-socket-{}", std::process::id()));
        let first = Listener::unix(&path).unwrap();
        assert_eq!(first.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(Listener::unix(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse, "somebody listens there");
        drop(first);
        assert!(!path.exists());
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(Listener::unix(&path).unwrap());
        std::fs::write(&path, "a file").unwrap();
        assert!(Listener::unix(&path).is_err() && path.exists(), "not what is no socket");
        std::fs::remove_file(&path).unwrap();
    }
}
